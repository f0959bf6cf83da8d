#include "proxy/monitor.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/stats.h"
#include "proxy/request.h"
#include "resp/own.h"
#include "upstream/lease.h"

#include <errno.h>

struct source {
    struct monitor *monitor;
    struct lease *lease; /* NULL: given back */
    struct link_op op;
};

struct monitor {
    struct session *session; /* NULL: it has ended */
    struct request *request; /* NULL: answered */
    unsigned n_sources, n_waiting;
    bool is_ending; /* its connections are being closed */
    struct source sources[];
};

static void free_if_over(struct monitor *monitor)
{
    if (monitor->session == NULL && monitor->n_waiting == 0 && !monitor->is_ending) {
        mem_free(monitor);
    }
}

static void drop_leases(struct monitor *monitor)
{
    monitor->is_ending = true;
    for (unsigned i = 0; i < monitor->n_sources; i++) {
        if (monitor->sources[i].lease != NULL) {
            monitor->sources[i].lease->on_unasked = NULL;
            lease_drop(&monitor->sources[i].lease);
        }
    }
    monitor->is_ending = false;
}

/* reply: a whole frame. The session is no monitor. */
static void fail(struct monitor *monitor, struct bytes reply)
{
    struct request *request = monitor->request;

    monitor->request = NULL;
    if (monitor->session != NULL) {
        monitor->session->monitor = NULL;
        monitor->session = NULL;
    }
    drop_leases(monitor);
    if (request != NULL) {
        request_take_part(request, reply);
        request_done(request);
    }
}

static void on_reply(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                     bool is_first, bool is_last)
{
    struct monitor *monitor = CONTAINER_OF(op, struct source, op)->monitor;

    (void)link;
    (void)index;
    (void)is_first;
    if (!is_last) {
        return;
    }
    monitor->n_waiting--;
    if (part.ptr[0] == '-') {
        fail(monitor, part);
    } else if (monitor->n_waiting == 0 && monitor->request != NULL) {
        struct request *const request = monitor->request;

        monitor->request = NULL;
        request_take_part(request, part);
        request_done(request);
    }
    free_if_over(monitor);
}

static void on_lost(struct link_op *op, struct link *link, enum link_loss loss)
{
    struct monitor *monitor = CONTAINER_OF(op, struct source, op)->monitor;

    (void)link;
    (void)loss;
    monitor->n_waiting--;
    if (!monitor->is_ending) {
        fail(monitor, BYTES("-ERR nearcached: no connection to the backend for MONITOR\r\n"));
    }
    free_if_over(monitor);
}

static const struct link_op_type monitor_type = {on_reply, on_lost};

/* A line; an empty one: the connection broke. */
static void on_line(struct lease *lease, struct bytes frame)
{
    struct monitor *monitor = lease->user;
    struct session *session = monitor->session;

    if (session == NULL) {
        return;
    }
    if (frame.len == 0) {
        log_warn("proxy", "client closed: a connection of its MONITOR broke", "client=%s",
                 session->peer.text);
        session_close(session);
        return;
    }
    if (monitor->request == NULL && !own_is_monitor_line(frame)) {
        (void)session_push(session, frame);
    }
}

static void begin(struct session *session, const struct dispatch_call *call,
                  struct backend_node *const *masters, unsigned n)
{
    struct front *front = session->front;
    struct monitor *monitor = mem_alloc(sizeof(*monitor) + n * sizeof(struct source));
    int error = 0;

    session->monitor = monitor;
    monitor->session = session;
    monitor->request = request_queue(session, REQUEST_LOCAL, call->command);
    monitor->request->suspends = true;
    session_suspend(session, false);
    for (unsigned i = 0; i < n && error == 0; i++) {
        struct source *source = &monitor->sources[i];

        monitor->n_sources++;
        source->monitor = monitor;
        source->op.type = &monitor_type;
        source->op.collect = LINK_COLLECT_MIN;
        source->lease = lease_take(&front->backend,
                                   backend_as(&front->backend, masters[i], session->identity),
                                   session->proto, 0);
        if (source->lease == NULL) {
            error = -ENOBUFS;
            break;
        }
        source->lease->user = monitor;
        source->lease->on_unasked = on_line;
        error = link_send(&source->lease->link, 0, &call->frame, 1, 1, &source->op);
        monitor->n_waiting += error == 0;
    }
    if (error != 0) {
        fail(monitor, BYTES("-ERR nearcached: no connection to the backend for MONITOR\r\n"));
        free_if_over(monitor);
    }
}

enum verdict monitor_dispatch(struct session *session, const struct dispatch_call *call)
{
    struct backend *backend = &session->front->backend;
    struct backend_node *masters[256];
    unsigned n = 0;

    if (session->first != NULL) {
        return VERDICT_STALL;
    }
    if (session->monitor != NULL) {
        return VERDICT_TAKEN; /* as Redis: no answer to the second one */
    }
    for (struct backend_node *node = backend_next_master(backend, 0); node != NULL && n < 256;
         node = backend_next_master(backend, node->id)) {
        masters[n++] = node;
    }
    if (n == 0) {
        stats_add(METRIC_errors_backend, 1);
        session_error(session, "ERR nearcached: the backend was not reached yet");
        return VERDICT_TAKEN;
    }
    begin(session, call, masters, n);
    return VERDICT_TAKEN;
}

void monitor_end(struct session *session)
{
    struct monitor *monitor = session->monitor;

    if (monitor == NULL) {
        return;
    }
    session->monitor = NULL;
    monitor->session = NULL;
    if (monitor->request != NULL) {
        struct request *const request = monitor->request;

        monitor->request = NULL;
        request_done(request); /* an orphan: the client is gone */
    }
    drop_leases(monitor);
    free_if_over(monitor);
}
