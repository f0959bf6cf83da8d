/*
 * dispatch.h - from a framed request to the code that answers it, by its class in the command table
 *
 * Purpose:    login check, look-up, keys, order (W3) and route.
 * Threading:  the session's worker.
 */
#ifndef NC_PROXY_DISPATCH_H
#define NC_PROXY_DISPATCH_H

#include "proxy/session.h"

enum verdict {
    VERDICT_TAKEN, /* answered or queued: go on with what follows */
    VERDICT_STALL, /* must wait for earlier requests of the session: look at it again then */
};

/* One request on its way through. frame is a multibulk frame and holds what argv points into. */
struct dispatch_call {
    const struct command *command; /* NULL: nobody knows it */
    const struct bytes *argv;
    unsigned argc;
    struct bytes frame;
    int64_t now_us;
};

/* What a call touches: its keys' slot and their bits. */
struct dispatch_route {
    struct command_key_list keys;
    bool is_cross_slot;
    /* A key belongs to a namespace that is cached, or may be a source: the reply must drop it. */
    bool is_cached;
    uint16_t slot;
    uint64_t mask, first_hash;
};

/* End it with command_key_list_fini(&route->keys). */
void dispatch_find_route(const struct session *session, const struct dispatch_call *call,
                         struct dispatch_route *route);
/* It may write or show keys that it does not name. */
bool dispatch_is_opaque(const struct session *session, const struct dispatch_call *call);
bool dispatch_is_cluster(const struct front *front);
/* Some node, for what has no key. */
struct backend_node *dispatch_any_node(const struct front *front);

enum verdict dispatch_request(struct session *session, const struct dispatch_call *call);

/* Relays call whole to one node, by its keys or (none) by `slot`. Opaque: a fence before its reply.
 */
enum verdict dispatch_relay(struct session *session, const struct dispatch_call *call);

/* Relays call to any one node, and drops nothing: the backend words an error or a static answer. */
enum verdict dispatch_anywhere(struct session *session, const struct dispatch_call *call);

/* The error for a command that does not exist, or has too few or too many arguments. */
enum verdict dispatch_malformed(struct session *session, const struct dispatch_call *call);
enum verdict dispatch_refuse(struct session *session, const char *name, const char *why);
/* By the command's class, whatever the session is in. */
enum verdict dispatch_by_class(struct session *session, const struct dispatch_call *call);
/* For what no key routes; NULL before the first map. */
struct backend_node *dispatch_any_node(const struct front *front);

/* ---- W3 ---- */

static inline uint64_t key_bit(uint64_t hash)
{
    return UINT64_C(1) << (hash >> 58);
}

/* An unanswered request of the session that reads a view of this key / was relayed and touches it.
 */
bool dispatch_conflicts(const struct session *session, uint64_t hash, uint64_t mask, bool cached);

/* Relayed requests of one session may be on several links to the same node. */
static inline bool dispatch_is_spread(const struct session *session)
{
    return session->front->backend.n_spares > 0 || session->n_apart > 0;
}

#endif
