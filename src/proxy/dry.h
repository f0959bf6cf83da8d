/*
 * dry.h - dry run: every reply is the backend's, tier 1 only says what it would have answered
 *
 * Purpose:    for dry-run: look a cached read up as if it were to be answered, relay it, fetch what
 *             was missing for tier 1 alone, and compare what it would have answered with what the
 *             backend says (coherence/audit.h).
 * Ownership:  a shadow belongs to the request whose reply it is compared with, until that comes.
 * Threading:  the session's worker.
 * Errors:     none for the client: what cannot be looked up, fetched or compared is left out.
 */
#ifndef NC_PROXY_DRY_H
#define NC_PROXY_DRY_H

#include "proxy/read.h"

static inline bool dry_is_on(const struct front *front)
{
    return NC_UNLIKELY(front->config->dry_run);
}

/* What read_dispatch() does with each read: in a dry run tier 1 answers none (front.h). */
enum verdict dry_dispatch(struct session *session, const struct dispatch_call *call,
                          const struct read_call *read);
/* Relays a read whose keys dry_look_up() is shown: its reply drops nothing. */
enum verdict dry_relay(struct session *session, const struct dispatch_call *call);
/* A key of a read that is relayed for several keys together: only looked up and fetched. */
void dry_look_up(struct session *session, const struct read_call *read);

/* The reply to a request with a shadow has begun; part is empty unless that is all of it. */
void dry_take_reply(struct request *request, struct bytes part);
/* No reply will come. */
void dry_forget(struct request *request);

#endif
