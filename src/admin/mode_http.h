/*
 * mode_http.h - POST /v1/mode: what CACHE MODE does
 *
 * Purpose:    the emergency lever for whoever has a browser or curl at hand: {"mode": "bypass"},
 *             or {"mode": "off", "namespace": "session"}.
 * Ownership:  requests are libevent's; a change is answered when all workers act by it.
 * Threading:  the control thread.
 * Errors:     see order_http.h.
 */
#ifndef NC_ADMIN_MODE_HTTP_H
#define NC_ADMIN_MODE_HTTP_H

#include "proxy/front.h"

#include <event2/http.h>

void mode_http_post(struct proxy *proxy, struct evhttp_request *request);

#endif
