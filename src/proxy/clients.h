/*
 * clients.h - CLIENT LIST, KILL and UNBLOCK: they concern the sessions of every worker
 *
 * Threading:  asked on the session's worker; each worker is visited by mail, the answer returns to
 *             the asking one.
 */
#ifndef NC_PROXY_CLIENTS_H
#define NC_PROXY_CLIENTS_H

#include "proxy/dispatch.h"

enum verdict clients_list(struct session *session, const struct dispatch_call *call);
enum verdict clients_unblock(struct session *session, const struct dispatch_call *call);
enum verdict clients_kill(struct session *session, const struct dispatch_call *call);

#endif
