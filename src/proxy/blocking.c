#include "proxy/blocking.h"

#include "base/stats.h"
#include "proxy/group.h"
#include "proxy/relay.h"
#include "proxy/tracking.h"
#include "upstream/lease.h"

static void send_blocking(struct session *session, const struct dispatch_call *call,
                          const struct dispatch_route *route)
{
    struct request *request = request_queue(session, REQUEST_RELAYED, call->command);

    request->slot = route->slot;
    request->key_mask = UINT64_MAX;
    if (route->is_cached && relay_store_keys(request, call->argv, &route->keys) != 0) {
        request_fail(request, "ERR nearcached: out of memory");
        return;
    }
    request_count(request, false, true);
    request->lease_use = LEASE_UNTIMED;
    request->is_blocking = request->suspends = true;
    atomic_fetch_add_explicit(&session->front->proxy->n_blocked, 1, memory_order_relaxed);
    session_suspend(session, true);
    relay_send(request, backend_owner(&session->front->backend, request->slot), call->frame);
    if (session->tracker != NULL) {
        /* XREAD: no tracking link hears of what it shows. */
        tracking_note_relayed(session, call->argv, &route->keys);
    }
}

enum verdict blocking_dispatch(struct session *session, const struct dispatch_call *call)
{
    struct dispatch_route route;

    /* It changes the connection: the former ones owe nothing then. */
    if (session->first != NULL) {
        stats_add(METRIC_stalls_order, 1);
        return VERDICT_STALL;
    }
    dispatch_find_route(session, call, &route);
    if (route.is_cross_slot) {
        stats_add(METRIC_errors_crossslot, 1);
        session_error(session, "CROSSSLOT Keys in request don't hash to the same slot");
        command_key_list_fini(&route.keys);
        return VERDICT_TAKEN;
    }
    stats_add(METRIC_commands_relayed, 1);
    send_blocking(session, call, &route);
    command_key_list_fini(&route.keys);
    return VERDICT_TAKEN;
}

int64_t blocking_client_id(const struct session *session, epochs_node *node)
{
    const struct request *request = session->first;

    if (request == NULL || !request->is_blocking || request->lease == NULL) {
        return 0;
    }
    *node = request->node;
    return request->lease->link.client_id;
}

/* ---- WAIT ---- */

static void merge_least(struct group *group, struct resp_writer *reply)
{
    int64_t least = INT64_MAX;

    if (group_put_error(group, reply)) {
        return;
    }
    for (unsigned i = 0; i < group->n_parts; i++) {
        struct bytes at = group_reply(group, i);
        struct resp_value value;
        int64_t n = 0;

        if (resp_next(&at, &value) && bytes_to_int64(value.text, &n) && n < least) {
            least = n;
        }
    }
    resp_put_integer(reply, least);
}

/*
 * WAIT waits for the replication offset that its connection has seen. Redis notes that offset with
 * every command, PING included: on a connection of its own, PING and WAIT cover all that was
 * acknowledged before.
 */
static void ask(struct group *group, struct backend_node *node, const struct dispatch_call *call)
{
    struct request *part = group_add(group, REQUEST_RELAYED, call->command);

    part->lease_use = LEASE_UNTIMED;
    part->has_ping = true;
    relay_send(part, node, call->frame);
}

enum verdict blocking_wait(struct session *session, const struct dispatch_call *call)
{
    struct front *front = session->front;
    struct request *owner;
    struct group *group;
    struct backend_node *node;

    if (session->first != NULL) {
        stats_add(METRIC_stalls_order, 1);
        return VERDICT_STALL;
    }
    stats_add(METRIC_commands_relayed, 1);
    owner = request_queue(session, REQUEST_GROUP, call->command);
    owner->key_mask = UINT64_MAX;
    request_count(owner, false, true);
    owner->is_blocking = owner->suspends = true;
    atomic_fetch_add_explicit(&front->proxy->n_blocked, 1, memory_order_relaxed);
    session_suspend(session, true);
    group = group_new(owner, merge_least);
    node = backend_next_master(&front->backend, 0);
    if (node == NULL) {
        ask(group, NULL, call);
    }
    for (; node != NULL; node = backend_next_master(&front->backend, node->id)) {
        ask(group, node, call);
    }
    group_seal(group);
    return VERDICT_TAKEN;
}
