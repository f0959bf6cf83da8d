/*
 * visitors.c - evhttp tells of a connection only when it has read a request. What is made before
 * that is the connection's bufferevent, by our callback; whose argument evhttp sets to the
 * connection a moment later. So a visitor is noted there, and tied to its connection by an event
 * that runs in the same turn, before anything can have been read. A reference to the bufferevent
 * spans the time in between.
 */
#include "admin/visitors.h"

#include "base/check.h"
#include "base/mem.h"
#include "base/stats.h"

#include <event2/bufferevent.h>

struct visitor {
    struct visitor *previous, *next; /* in the order of their arrival */
    struct visitors *home;
    struct bufferevent *stream;           /* a reference; NULL once the connection is known */
    struct evhttp_connection *connection; /* NULL before */
    void (*on_gone)(struct evhttp_connection *connection, void *arg);
    void *arg;
};

struct visitors {
    struct event_base *base;
    struct event *adopt_event;
};

/* Of all servers: for a moment of a reload there are two. The control thread's. */
static struct visitor *first_visitor, *last_visitor;
static unsigned n_visitors;

static void forget(struct visitor *visitor)
{
    *(visitor->previous != NULL ? &visitor->previous->next : &first_visitor) = visitor->next;
    *(visitor->next != NULL ? &visitor->next->previous : &last_visitor) = visitor->previous;
    n_visitors--;
    mem_free(visitor);
}

static void on_closed(struct evhttp_connection *connection, void *arg)
{
    struct visitor *visitor = arg;
    void (*on_gone)(struct evhttp_connection *, void *) = visitor->on_gone;
    void *gone_arg = visitor->arg;

    evhttp_connection_set_closecb(connection, NULL, NULL);
    forget(visitor);
    if (on_gone != NULL) {
        on_gone(connection, gone_arg);
    }
}

/* evhttp has made a connection of it, or has given up. */
static void adopt(struct visitor *visitor)
{
    void *connection = NULL;

    bufferevent_getcb(visitor->stream, NULL, NULL, NULL, &connection);
    bufferevent_decref(visitor->stream);
    visitor->stream = NULL;
    if (connection == NULL) {
        forget(visitor);
        return;
    }
    visitor->connection = connection;
    evhttp_connection_set_closecb(connection, on_closed, visitor);
}

static void make_room(void)
{
    struct visitor *next;

    for (struct visitor *at = first_visitor; at != NULL && n_visitors > VISITORS_MAX; at = next) {
        next = at->next;
        if (at->connection != NULL && at->on_gone == NULL) {
            stats_add(METRIC_admin_closed, 1);
            evhttp_connection_free(at->connection);
        }
    }
}

static void on_adopt(evutil_socket_t fd, short what, void *arg)
{
    struct visitors *visitors = arg;
    struct visitor *next;

    (void)fd;
    (void)what;
    for (struct visitor *at = first_visitor; at != NULL; at = next) {
        next = at->next;
        if (at->stream != NULL && at->home == visitors) {
            adopt(at);
        }
    }
    make_room();
}

static struct bufferevent *on_accepted(struct event_base *base, void *arg)
{
    struct visitors *visitors = arg;
    struct bufferevent *stream = bufferevent_socket_new(base, -1, 0);
    struct visitor *visitor;

    if (stream == NULL) {
        return NULL; /* evhttp tries it itself, and closes the connection */
    }
    visitor = mem_alloc(sizeof(*visitor));
    bufferevent_incref(stream);
    visitor->stream = stream;
    visitor->home = visitors;
    visitor->previous = last_visitor;
    *(last_visitor != NULL ? &last_visitor->next : &first_visitor) = visitor;
    last_visitor = visitor;
    n_visitors++;
    event_active(visitors->adopt_event, 0, 0);
    return stream;
}

struct visitors *visitors_new(struct event_base *base, struct evhttp *server)
{
    struct visitors *made = mem_alloc(sizeof(*made));

    made->base = base;
    made->adopt_event = event_new(base, -1, 0, on_adopt, made);
    CHECK(made->adopt_event != NULL);
    evhttp_set_bevcb(server, on_accepted, made);
    return made;
}

void visitors_free(struct visitors **visitors)
{
    struct visitors *gone = *visitors;

    *visitors = NULL;
    if (gone == NULL) {
        return;
    }
    /* Those of this very turn: evhttp_free() has ended their connections. */
    on_adopt(-1, 0, gone);
    event_free(gone->adopt_event);
    mem_free(gone);
}

unsigned visitors_count(void)
{
    return n_visitors;
}

void visitors_watch(struct evhttp_connection *connection,
                    void (*on_gone)(struct evhttp_connection *connection, void *arg), void *arg)
{
    for (struct visitor *at = last_visitor; at != NULL; at = at->previous) {
        if (at->connection == connection) {
            at->on_gone = on_gone;
            at->arg = arg;
            return;
        }
    }
    evhttp_connection_set_closecb(connection, on_gone, arg);
}
