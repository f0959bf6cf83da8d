#include "proxy/fanout.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/stats.h"
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

static bool is_error(struct bytes reply)
{
    return reply.len == 0 || reply.ptr[0] == '-' || reply.ptr[0] == '!';
}

static void merge_any_ok(struct group *group, struct resp_writer *reply)
{
    for (unsigned i = 0; i < group->n_parts; i++) {
        if (!is_error(group_reply(group, i))) {
            resp_put_raw(reply, group_reply(group, i));
            return;
        }
    }
    (void)group_put_error(group, reply);
}

/* SCRIPT EXISTS: 1 where every master knows the script. */
static void merge_and(struct group *group, struct resp_writer *reply)
{
    struct bytes first = group_reply(group, 0);
    struct resp_value head;

    if (group_put_error(group, reply) || !resp_next(&first, &head)) {
        return;
    }
    resp_put_array(reply, head.n_children);
    for (size_t element = 0; element < head.n_children; element++) {
        bool all = true;

        for (unsigned i = 0; i < group->n_parts; i++) {
            struct bytes at = group_reply(group, i);
            struct resp_value value = {0};

            (void)resp_next(&at, &value);
            for (size_t skip = 0; skip <= element; skip++) {
                (void)resp_next(&at, &value);
            }
            all = all && bytes_equal(value.text, BYTES("1"));
        }
        resp_put_integer(reply, all);
    }
}

/* RANDOMKEY: any master's answer that is no nil; which one goes first changes with the clock. */
static void merge_random(struct group *group, struct resp_writer *reply)
{
    const unsigned start = (unsigned)(clock_now_us() / 7 % group->n_parts);

    if (group_put_error(group, reply)) {
        return;
    }
    for (unsigned i = 0; i < group->n_parts; i++) {
        struct bytes at = group_reply(group, (start + i) % group->n_parts);
        struct resp_value value;

        if (resp_next(&at, &value) && !value.is_null) {
            resp_put_raw(reply, group_reply(group, (start + i) % group->n_parts));
            return;
        }
    }
    resp_put_raw(reply, group_reply(group, 0));
}

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

typedef void (*merge_fn)(struct group *group, struct resp_writer *reply);

static merge_fn merge_of(const struct command *command)
{
    switch ((enum command_merge)command->merge) {
    case MERGE_SUM:
        return group_merge_sum;
    case MERGE_CONCAT:
        return group_merge_concat;
    case MERGE_AND:
        return merge_and;
    case MERGE_RANDOM:
        return merge_random;
    case MERGE_ANY_OK:
        return merge_any_ok;
    default:
        return group_merge_first;
    }
}

/* ---- asking ---- */

static void ask(struct group *group, struct backend_node *node, const struct command *command,
                struct bytes frame)
{
    struct request *part = group_add(group, REQUEST_RELAYED, command);

    part->drops_all = (command->flags & COMMAND_FLUSHES) != 0;
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

enum verdict fanout_dispatch(struct session *session, const struct dispatch_call *call)
{
    const struct command *command = call->command;
    const bool drops = (command->flags & (COMMAND_FLUSHES | COMMAND_WRITES)) != 0;

    if (command->merge == MERGE_LATER && is_cluster(session->front)) {
        stats_add(METRIC_errors_refused, 1);
        session_error(session, "ERR command '%s' is not supported by nearcached on a cluster yet",
                      command->name);
        return VERDICT_TAKEN;
    }
    if (!is_cluster(session->front)) {
        return drops || command->keys != KEYS_NONE ? dispatch_relay(session, call)
                                                   : dispatch_anywhere(session, call);
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
    group_seal(fanout_to_masters(session, call, call->frame, merge_of(command)));
    return VERDICT_TAKEN;
}
