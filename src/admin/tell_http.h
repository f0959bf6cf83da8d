/*
 * tell_http.h - orders over HTTP that the first worker carries out, as it must ask the backend
 *
 * Purpose:    POST /v1/tags, /v1/dependencies and /v1/events, which do what CACHE TAG, UNTAG,
 *             DEPEND, UNDEPEND, SUBSCRIBE and UNSUBSCRIBE do; and of POST /v1/invalidate what goes
 *             by tags and events.
 * Ownership:  what is asked is copied; it comes back by mail.
 * Threading:  the control thread.
 * Errors:     answered. Status 503: the backend, or the limit of operations, is in the way: once
 *             more later.
 */
#ifndef NC_ADMIN_TELL_HTTP_H
#define NC_ADMIN_TELL_HTTP_H

#include "admin/order_http.h"

void tell_http_tags(struct proxy *proxy, struct evhttp_request *request);
void tell_http_dependencies(struct proxy *proxy, struct evhttp_request *request);
void tell_http_events(struct proxy *proxy, struct evhttp_request *request);

/* Orders of POST /v1/invalidate, as they were read. */
void tell_http_invalidate_tags(const struct call *call, const struct order_invalidate *order);
void tell_http_publish(const struct call *call, const struct order_invalidate *order);

#endif
