/*
 * broadcast.h - what clients in BCAST mode are told: connections to the masters, by prefixes
 *
 * Purpose:    one connection per master for all clients of a worker that named the same prefixes
 *             (as the same user), with CLIENT TRACKING ON BCAST on it.
 * Ownership:  counted: broadcast_join() and broadcast_leave().
 * Threading:  its worker only.
 * Errors:     a refusal is told in the backend's words; a connection that breaks is made again, and
 *             its listeners hear that they know nothing any more, both when it breaks and when it
 *             is there again.
 */
#ifndef NC_PROXY_BROADCAST_H
#define NC_PROXY_BROADCAST_H

#include "proxy/front.h"

struct broadcast;
struct identity;

struct broadcast_events {
    /* Every master has confirmed; or not: then error has the words, and the listeners go. */
    void (*on_ready)(struct front *front, const struct broadcast *broadcast, struct bytes error);
    /* Keys that changed, as in key_run.h; none: all may have. */
    void (*on_changed)(struct front *front, const struct broadcast *broadcast, struct bytes keys);
};

/* prefixes as in key_run.h; empty: every key. */
struct broadcast *broadcast_join(struct front *front, const struct identity *identity,
                                 struct bytes prefixes, const struct broadcast_events *events);
void broadcast_leave(struct broadcast **broadcast);
bool broadcast_is_ready(const struct broadcast *broadcast);
/* Connections that broke or are new in the map; proofs that the others live: now and then. */
void broadcast_tick(struct front *front);

#endif
