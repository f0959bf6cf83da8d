/*
 * info.h - INFO: the backend's text, made to look like one plain Redis, with the proxy's section
 *
 * Purpose:    ask one node (of a cluster: all masters, whose keyspaces are summed), replace what is
 *             the proxy's own (clients, port, mode, role), append "# Nearcached".
 * Threading:  the session's worker.
 */
#ifndef NC_PROXY_INFO_H
#define NC_PROXY_INFO_H

#include "proxy/dispatch.h"

enum verdict info_dispatch(struct session *session, const struct dispatch_call *call);

#endif
