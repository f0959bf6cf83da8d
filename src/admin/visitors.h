/*
 * visitors.h - the connections of the admin port: never more than a few
 *
 * Purpose:    evhttp knows no limit, and whoever sends a byte now and then keeps a connection for
 * ever. Above VISITORS_MAX the oldest one that nobody works for is closed for the next: who asks
 *             properly is new, and served. So this port never takes the descriptors of clients.
 * Ownership:  evhttp owns the connections.
 * Threading:  the control thread.
 */
#ifndef NC_ADMIN_VISITORS_H
#define NC_ADMIN_VISITORS_H

#include <event2/event.h>
#include <event2/http.h>

#define VISITORS_MAX 128

struct visitors; /* opaque: of one server */

/* Before the server accepts; visitors_free() after evhttp_free(). */
struct visitors *visitors_new(struct event_base *base, struct evhttp *server);
void visitors_free(struct visitors **visitors);

/* Of all servers of the process. */
unsigned visitors_count(void);

/*
 * Somebody works for this connection until on_gone is set to NULL again: it is not closed here, and
 * on_gone(connection, arg) tells when it goes by itself. In place of
 * evhttp_connection_set_closecb().
 */
void visitors_watch(struct evhttp_connection *connection,
                    void (*on_gone)(struct evhttp_connection *connection, void *arg), void *arg);

#endif
