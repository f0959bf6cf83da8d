/* PUBLISH and PUBSUB: what the backend counts, less the hubs' own subscriptions, plus our clients.
 */
#include "base/stats.h"
#include "coherence/bus.h"
#include "proxy/census.h"
#include "proxy/fanout.h"
#include "proxy/group.h"
#include "proxy/pubsub.h"
#include "proxy/relay.h"

#include "base/mem.h"

static bool is_shard(const struct command *command)
{
    return command->name[0] == 's' || strstr(command->name, "shard") != NULL;
}

/* ---- PUBLISH, SPUBLISH ---- */

/* The channel stands in the owner's stored bytes. */
static void merge_published(struct group *group, struct resp_writer *reply)
{
    const struct request *owner = group->owner;
    const struct bytes channel = bytes_make(owner->stored, owner->stored_bytes);
    const enum topic_kind kind = is_shard(owner->command) ? TOPIC_SHARD : TOPIC_CHANNEL;
    struct bytes at = group_reply(group, 0);
    struct resp_value value;
    unsigned own;
    int64_t n;

    if (group_put_error(group, reply)) {
        return;
    }
    if (!resp_next(&at, &value) || !bytes_to_int64(value.text, &n)) {
        reply->has_failed = true;
        return;
    }
    /* A subscription that was ended meanwhile may have been counted still. */
    own = census_own(kind, channel, group->parts[0]->node, true);
    n -= own > (unsigned)group->number ? own : (unsigned)group->number;
    resp_put_integer(reply, (n > 0 ? n : 0) + census_receivers(kind, channel));
}

enum verdict pubsub_publish(struct session *session, const struct dispatch_call *call)
{
    struct front *front = session->front;
    const unsigned slot = dispatch_is_cluster(front) ? command_key_slot(call->argv[1]) : 0;
    struct request *owner = request_queue(session, REQUEST_GROUP, call->command);
    struct group *group = group_new(owner, merge_published);
    struct request *part = group_add(group, REQUEST_RELAYED, call->command);
    struct backend_node *node;

    stats_add(METRIC_commands_relayed, 1);
    request_count(owner, false, true);
    part->slot = (uint16_t)slot;
    if (request_store(owner, call->argv[1]) != 0) {
        group->has_failed = true;
    }
    node = backend_owner(&front->backend, slot);
    if (node != NULL) {
        group->number = census_own(is_shard(call->command) ? TOPIC_SHARD : TOPIC_CHANNEL,
                                   call->argv[1], node->id, true);
    }
    relay_send(part, node, call->frame);
    group_seal(group);
    return VERDICT_TAKEN;
}

/* ---- PUBSUB ---- */

/* Each name once, whichever nodes tell it. */
static void merge_union(struct group *group, struct resp_writer *reply)
{
    struct topic_table seen = {0};
    struct topic *topics;
    size_t n_all = 0, n = 0;

    if (group_put_error(group, reply)) {
        return;
    }
    for (unsigned i = 0; i < group->n_parts; i++) {
        struct bytes at = group_reply(group, i);
        struct resp_value head;

        n_all += resp_next(&at, &head) ? head.n_children : 0;
    }
    topics = mem_alloc((n_all + 1) * sizeof(*topics));
    for (unsigned i = 0; i < group->n_parts; i++) {
        struct bytes at = group_reply(group, i);
        struct resp_value value;

        (void)resp_next(&at, &value);
        while (resp_next(&at, &value) && n < n_all) {
            const struct topic_key key = {TOPIC_CHANNEL, 0, value.text};

            /* The proxies' own channels are none of the clients'. */
            if (!bus_is_channel(value.text) && topic_find(&seen, &key) == NULL) {
                topic_add(&seen, &topics[n++], &key);
            }
        }
    }
    resp_put_array(reply, n);
    for (size_t i = 0; i < n; i++) {
        resp_put_bulk(reply, topics[i].key.name);
        topic_remove(&seen, &topics[i]);
    }
    mem_free(topics);
}

/* [name, count, name, count ...] of every node. */
static void merge_counts(struct group *group, struct resp_writer *reply)
{
    const enum topic_kind kind = is_shard(group->owner->command) ? TOPIC_SHARD : TOPIC_CHANNEL;
    struct bytes first = group_reply(group, 0);
    struct resp_value head, name, count;

    if (group_put_error(group, reply) || !resp_next(&first, &head)) {
        return;
    }
    resp_put_array(reply, head.n_children);
    for (size_t pair = 0; pair < head.n_children / 2; pair++) {
        int64_t sum = 0;

        for (unsigned i = 0; i < group->n_parts; i++) {
            struct bytes at = group_reply(group, i);
            int64_t n = 0;

            (void)resp_next(&at, &count);
            for (size_t skip = 0; skip <= pair; skip++) {
                (void)(resp_next(&at, &name) && resp_next(&at, &count));
            }
            (void)bytes_to_int64(count.text, &n);
            sum += n - census_own(kind, name.text, group->parts[i]->node, false);
        }
        resp_put_bulk(reply, name.text);
        resp_put_integer(reply, (sum > 0 ? sum : 0) + census_sessions(kind, name.text));
    }
}

enum verdict pubsub_report(struct session *session, const struct dispatch_call *call)
{
    const char *name = call->command->name;
    void (*merge)(struct group * group, struct resp_writer * reply) = group_merge_sum;

    if (strstr(name, "numsub") != NULL) {
        merge = merge_counts;
    } else if (strstr(name, "channels") != NULL) {
        merge = merge_union;
    }
    group_seal(fanout_to_masters(session, call, call->frame, merge));
    return VERDICT_TAKEN;
}
