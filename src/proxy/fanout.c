#include "proxy/fanout.h"

#include "base/mem.h"
#include "base/stats.h"
#include "proxy/as_cluster.h"
#include "proxy/merge.h"
#include "proxy/relay.h"

#include <stdio.h>

/*
 * SCAN walks the masters in the order of their numbers. The cursor that clients hold is the node's
 * own times 2^16 plus the node's number: below 2^53 for tables of up to 2^37 keys, as some
 * libraries keep it in a double.
 */
#define CURSOR_NODE_BITS 16

static bool is_cluster(const struct front *front)
{
    return front->backend.topology != NULL && front->backend.topology->is_cluster;
}

/* ---- merging ---- */

/* [cursor, keys] of one node: the cursor goes on there, or at the next node. */
static void merge_scan(struct group *group, struct resp_writer *reply)
{
    struct bytes at = group_reply(group, 0);
    struct resp_value head, cursor;
    uint64_t next = 0;
    char digits[24];
    int64_t inner = 0;

    if (group_put_error(group, reply)) {
        return;
    }
    if (!resp_next(&at, &head) || !resp_next(&at, &cursor) ||
        !bytes_to_int64(cursor.text, &inner)) {
        reply->has_failed = true;
        return;
    }
    if (inner != 0) {
        next = ((uint64_t)inner << CURSOR_NODE_BITS) | group->number;
    } else {
        const struct backend_node *node = backend_next_master(&group->owner->front->backend,
                                                              (epochs_node)group->number);

        next = node != NULL ? node->id : 0;
    }
    snprintf(digits, sizeof(digits), "%llu", (unsigned long long)next);
    resp_put_array(reply, 2);
    resp_put_string(reply, digits);
    resp_put_raw(reply, at);
}

/* ---- asking ---- */

/* What it changes is not known by its keys. */
static bool drops_all(const struct command *command)
{
    return (command->flags & (COMMAND_FLUSHES | COMMAND_OPAQUE)) != 0;
}

/*
 * SCRIPT KILL must get past a busy script; administrators' commands may keep a node busy, or
 * silent, for long, or change the connection that they come on.
 */
static enum lease_use lease_use_of(const struct command *command)
{
    if (command->class == CLASS_ADMIN && command->keys == KEYS_NONE) {
        return LEASE_SPOILT;
    }
    return command->class == CLASS_ALL_NODES && command->merge == MERGE_ANY_OK ? LEASE_TIMED
                                                                               : LEASE_NONE;
}

static void ask(struct group *group, struct backend_node *node, const struct command *command,
                struct bytes frame)
{
    struct request *part = group_add(group, REQUEST_RELAYED, command);

    part->drops_all = drops_all(command);
    part->lease_use = lease_use_of(command);
    relay_send(part, node, frame);
}

struct group *fanout_to_masters(struct session *session, const struct dispatch_call *call,
                                struct bytes frame,
                                void (*merge)(struct group *group, struct resp_writer *reply))
{
    struct front *front = session->front;
    struct request *owner = request_queue(session, REQUEST_GROUP, call->command);
    struct group *group = group_new(owner, merge);
    struct backend_node *node = backend_next_master(&front->backend, 0);

    owner->key_mask = UINT64_MAX;
    request_count(owner, false, true);
    stats_add(METRIC_commands_relayed, 1);
    group->number = merge_limit(call->argv, call->argc);
    if (node == NULL) {
        ask(group, NULL, call->command, frame);
    }
    for (; node != NULL; node = backend_next_master(&front->backend, node->id)) {
        ask(group, node, call->command, frame);
    }
    return group;
}

static enum verdict scan(struct session *session, const struct dispatch_call *call)
{
    struct front *front = session->front;
    struct backend_node *node;
    struct request *owner;
    struct group *group;
    struct buffer frame;
    struct bytes *argv;
    char digits[24];
    int64_t cursor;

    if (!bytes_to_int64(call->argv[1], &cursor) || cursor < 0) {
        return dispatch_anywhere(session, call);
    }
    node = backend_by_id(&front->backend, (epochs_node)((uint64_t)cursor & 0xffff));
    if (node == NULL || node->info == NULL || !node->info->is_master) {
        /* The beginning; or the node left the map: on with the next one. */
        node = backend_next_master(&front->backend, (epochs_node)((uint64_t)cursor & 0xffff));
        cursor = 0;
    }
    snprintf(digits, sizeof(digits), "%llu",
             (unsigned long long)((uint64_t)cursor >> CURSOR_NODE_BITS));
    argv = mem_try_alloc(call->argc * sizeof(*argv));
    buffer_init(&frame);
    if (argv != NULL) {
        memcpy(argv, call->argv, call->argc * sizeof(*argv));
        argv[1] = bytes_of_string(digits);
    }
    owner = request_queue(session, REQUEST_GROUP, call->command);
    group = group_new(owner, merge_scan);
    if (argv == NULL || resp_write_request(&frame, argv, call->argc) != 0) {
        group->has_failed = true;
    } else {
        group->number = node != NULL ? node->id : 0;
        ask(group, node, call->command, buffer_bytes(&frame));
    }
    group_seal(group);
    buffer_fini(&frame);
    mem_free(argv);
    return VERDICT_TAKEN;
}

/* On a connection of its own, with nothing of the session under way beside it. */
static enum verdict ask_apart(struct session *session, const struct dispatch_call *call)
{
    const struct command *command = call->command;
    struct request *request;
    struct group *group;

    if (session->first != NULL) {
        stats_add(METRIC_stalls_order, 1);
        return VERDICT_STALL;
    }
    session_suspend(session, true);
    if (is_cluster(session->front) && command->merge != MERGE_FIRST) {
        group = fanout_to_masters(session, call, call->frame, merge_of(command->merge));
        group->owner->suspends = true;
        group_seal(group);
        return VERDICT_TAKEN;
    }
    stats_add(METRIC_commands_relayed, 1);
    request = request_queue(session, REQUEST_RELAYED, command);
    request->drops_all = drops_all(command);
    request->lease_use = lease_use_of(command);
    request->suspends = true;
    relay_send(request, dispatch_any_node(session->front), call->frame);
    return VERDICT_TAKEN;
}

enum verdict fanout_dispatch(struct session *session, const struct dispatch_call *call)
{
    const struct command *command = call->command;
    const bool drops = (command->flags & (COMMAND_FLUSHES | COMMAND_WRITES)) != 0;

    if (as_cluster(session->front) && as_cluster_refuses(session, call)) {
        return VERDICT_TAKEN;
    }
    if (lease_use_of(command) != LEASE_NONE) {
        return ask_apart(session, call);
    }
    if (command->keys != KEYS_NONE) {
        return dispatch_relay(session, call);
    }
    if (!is_cluster(session->front)) {
        return drops ? dispatch_relay(session, call) : dispatch_anywhere(session, call);
    }
    if (command->merge == MERGE_FIRST) {
        return dispatch_anywhere(session, call);
    }
    if (command->merge == MERGE_SCAN) {
        return scan(session, call);
    }
    /* It touches every key: what the session still reads from tier 1 goes first (W3b). */
    if (drops && session->n_cached > 0) {
        stats_add(METRIC_stalls_order, 1);
        return VERDICT_STALL;
    }
    group_seal(fanout_to_masters(session, call, call->frame, merge_of(command->merge)));
    return VERDICT_TAKEN;
}
