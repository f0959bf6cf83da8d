/*
 * resolver.h - names to socket addresses, without blocking
 *
 * Purpose:    look names up in /etc/hosts and in the DNS (evdns). Numeric addresses are answered
 *             without either.
 * Ownership:  a query belongs to the resolver; the asker's pointer is good until the answer or
 * until resolver_cancel(). Threading:  the thread of the event base. Errors:     an answer without
 * endpoints comes with a reason ("nodename nor servname provided"). A missing /etc/resolv.conf or
 * /etc/hosts is no error.
 *
 * A look-up that is under way at resolver_free() ends in the event base's next turns, and the
 * last of its memory goes then; the asker hears nothing of it.
 */
#ifndef NC_UPSTREAM_RESOLVER_H
#define NC_UPSTREAM_RESOLVER_H

#include "base/stream.h"

#include <event2/event.h>

/* More addresses of one name than this are left out. */
#define RESOLVER_MAX 8

struct resolver;       /* opaque */
struct resolver_query; /* opaque */

/* endpoints are borrowed for the call; error is NULL when there are some. The query is over. */
typedef void (*resolver_answer_fn)(const struct endpoint *endpoints, unsigned n_endpoints,
                                   const char *error, void *context);

struct resolver *resolver_new(struct event_base *base);
void resolver_free(struct resolver **resolver);

/* The answer comes from the event loop, never before this returns. */
struct resolver_query *resolver_ask(struct resolver *resolver, const char *host, unsigned port,
                                    resolver_answer_fn on_answer, void *context);
/* No answer will come. Accepts a pointer to NULL. */
void resolver_cancel(struct resolver_query **query);

#endif
