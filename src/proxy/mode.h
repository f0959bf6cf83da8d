/*
 * mode.h - CACHE MODE readonly and off: refusing what clients ask for
 *
 * Purpose:    in the modes readonly and off, of all or of a namespace, clients are told no by the
 *             proxy itself. (bypass needs nothing here: its namespaces are just not cached.)
 * Ownership:  keeps nothing: modes are part of the configuration.
 * Threading:  the session's worker.
 * Errors:     READONLY and ERR, as replies.
 *
 * What was asked for before the mode came goes on: commands that block, subscriptions, replies. A
 * transaction that was begun before is ended by its EXEC with EXECABORT if it writes (off: at all).
 */
#ifndef NC_PROXY_MODE_H
#define NC_PROXY_MODE_H

#include "proxy/dispatch.h"

/* True: the call may not run, and the client was told. front->is_restricted holds. */
bool mode_refuses(struct session *session, const struct dispatch_call *call);
/* The same for a request that is still arriving: call has its keys, and perhaps not all arguments.
 */
bool mode_refuses_upload(struct session *session, const struct dispatch_call *call);

/* The front's configuration changed: transactions that began before may not do what is refused. */
void mode_take_config(struct front *front, const struct config *former);

#endif
