/*
 * blocking.h - commands that wait at the backend: BLPOP and its kind, XREAD with BLOCK, WAIT
 *
 * Purpose:    each waits on a leased connection, so that nobody else waits with it; what its
 *             client sends next waits too (W6). A client that leaves takes its connection along.
 * Threading:  the session's worker.
 */
#ifndef NC_PROXY_BLOCKING_H
#define NC_PROXY_BLOCKING_H

#include "proxy/dispatch.h"

enum verdict blocking_dispatch(struct session *session, const struct dispatch_call *call);
/* WAIT: every master is asked, after all that this client had acknowledged; the least counts. */
enum verdict blocking_wait(struct session *session, const struct dispatch_call *call);

/* The number at the backend of the connection that the session's command blocks on, and its node;
 * 0: it does not block, or is not there yet. */
int64_t blocking_client_id(const struct session *session, epochs_node *node);

#endif
