/*
 * local.h - commands that the proxy answers from its own record of the client
 *
 * Purpose:    HELLO, AUTH, SELECT, RESET, QUIT, CLIENT, PING, ECHO, ROLE and their kind; hands
 * INFO, CONFIG, COMMAND and CACHE on. Error texts are those of Redis 7.0. Threading:  the session's
 * worker.
 */
#ifndef NC_PROXY_LOCAL_H
#define NC_PROXY_LOCAL_H

#include "proxy/dispatch.h"

enum verdict local_dispatch(struct session *session, const struct dispatch_call *call);

#endif
