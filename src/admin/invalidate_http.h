/*
 * invalidate_http.h - POST /v1/invalidate, GET /v1/bans, GET /v1/jobs
 *
 * Purpose:    what CACHE INVALIDATE, BAN and JOB do, for webhooks and change-data-capture: JSON in,
 *             JSON out, under the same rule (cache-command), with cache-password as bearer token.
 * Ownership:  requests are libevent's; each is answered within the call, but for those by tags,
 *             which are answered when the backend has been asked.
 * Threading:  the control thread.
 * Errors:     answered as {"error": "...", "field": "..."}; field is null where none is to blame.
 *
 * Limits:     10000 keys in one order; see order_http.h.
 */
#ifndef NC_ADMIN_INVALIDATE_HTTP_H
#define NC_ADMIN_INVALIDATE_HTTP_H

#include "proxy/front.h"

#include <event2/http.h>

void invalidate_http_post(struct proxy *proxy, struct evhttp_request *request);
void invalidate_http_bans(struct proxy *proxy, struct evhttp_request *request);
void invalidate_http_jobs(struct proxy *proxy, struct evhttp_request *request);

#endif
