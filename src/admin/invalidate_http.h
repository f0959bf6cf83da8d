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
 * Limits:     bodies of 256 KiB, 10000 keys in one request.
 */
#ifndef NC_ADMIN_INVALIDATE_HTTP_H
#define NC_ADMIN_INVALIDATE_HTTP_H

#include "proxy/front.h"

#include <event2/http.h>

#define INVALIDATE_BODY_MAX ((size_t)256 * 1024)
#define INVALIDATE_KEYS_MAX ((size_t)10000)

void invalidate_http_post(struct proxy *proxy, struct evhttp_request *request);
void invalidate_http_bans(struct proxy *proxy, struct evhttp_request *request);
void invalidate_http_jobs(struct proxy *proxy, struct evhttp_request *request);
/* By the same rules as an invalidation, whatever the body. False: refused, and said so. */
bool invalidate_http_may_order(const struct proxy *proxy, struct evhttp_request *request);
/* 413, for a body that was not even read. */
void invalidate_http_too_large(struct evhttp_request *request);
/* The admin port closes: what is not answered yet will not be. Before it frees its requests. */
void invalidate_http_stop(void);

#endif
