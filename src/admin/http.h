/*
 * http.h - the admin port: the status page, /metrics, /healthz, /readyz, and /v1
 *
 * Purpose:    answer people, monitoring and orchestration over HTTP on the control thread, and take
 *             orders (order_http.h). docs/status.md describes /v1.
 * Ownership:  the server owns its socket and connections; proxy and discovery are borrowed and
 *             must outlive it.
 * Threading:  the control thread.
 * Errors:     starting returns a negative errno of socket, bind or listen; later errors cost only
 *             their connection. Without descriptors left, accepting pauses for a moment.
 *
 * Limits:     requests of more than 8 KiB of headers or 256 KiB of body, and connections that are
 *             silent for ten seconds, are closed.
 */
#ifndef NC_ADMIN_HTTP_H
#define NC_ADMIN_HTTP_H

#include "proxy/front.h"
#include "upstream/discovery.h"

#include <event2/http.h>

struct admin_http; /* opaque */

/*
 * discovery says why the backend cannot be reached; NULL: nobody knows. fd: a socket that listens
 * already, which is taken, and address is not looked at; -1: none.
 */
NC_MUST_CHECK int admin_http_start(struct admin_http **http, struct proxy *proxy,
                                   const struct discovery *discovery,
                                   const struct config_address *address, int fd);
/* New connections wait meanwhile, for us or for who has the socket too. */
void admin_http_accept(struct admin_http *http, bool on);
int admin_http_fd(const struct admin_http *http);
const char *admin_http_text(const struct admin_http *http);
/* Closes everything; answers under way are dropped. Accepts a pointer to NULL. */
void admin_http_stop(struct admin_http **http);

/*
 * Answers with a body, which is borrowed and left empty. That of a HEAD request stays here, but its
 * length is told.
 */
void admin_http_reply(struct evhttp_request *request, int status, const char *reason,
                      const char *content_type, struct evbuffer *body);

#endif
