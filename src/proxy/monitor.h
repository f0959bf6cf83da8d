/*
 * monitor.h - MONITOR: what the masters execute, as they tell it
 *
 * Purpose:    one leased connection to each master; their lines go to the client between its
 * replies. They show the backend's view: what tier 1 answers never gets there. What proxies ask for
 * themselves is left out (resp/own.h). Ownership:  the session owns its struct monitor. Threading:
 * the session's worker. Errors:     when one of the connections breaks, or a master joins or
 * leaves, the client is closed rather than shown a part.
 */
#ifndef NC_PROXY_MONITOR_H
#define NC_PROXY_MONITOR_H

#include "proxy/dispatch.h"

/* The handler of MONITOR. */
enum verdict monitor_dispatch(struct session *session, const struct dispatch_call *call);
/* The client left, or RESET. */
void monitor_end(struct session *session);

#endif
