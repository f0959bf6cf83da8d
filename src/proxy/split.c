/*
 * Design: a cluster executes a multi-key command only within one slot, so a command over several
 * slots becomes one part per slot (not per node). MGET and EXISTS look at tier 1 first: if every
 * key is a hit the reply is written at once; otherwise each cacheable key becomes a cached read of
 * its own (GET k, EXISTS k) and the others are asked for slot by slot.
 */
#include "proxy/split.h"

#include "base/mem.h"
#include "base/stats.h"
#include "cache/hot_keys.h"
#include "proxy/dry.h"
#include "proxy/group.h"
#include "proxy/large.h"
#include "proxy/overload.h"
#include "proxy/read.h"
#include "proxy/relay.h"
#include "proxy/tracking.h"

#include <errno.h>

struct split {
    struct session *session;
    const struct dispatch_call *call;
    bool is_cluster;
    bool is_dry;     /* its reads are only looked up beside it */
    unsigned step;   /* 2 for MSET, else 1 */
    unsigned n_keys; /* repeated ones count */
    uint64_t mask;
};

static uint16_t slot_of(const struct split *split, struct bytes key)
{
    return split->is_cluster ? command_key_slot(key) : 0;
}

static struct bytes key_at(const struct split *split, unsigned i)
{
    return split->call->argv[1 + i * split->step];
}

static bool is_mget(const struct split *split)
{
    return split->call->command->merge == MERGE_ARRAY;
}

/* MGET's elements are GET's views, EXISTS' are those of EXISTS with one key; others are no reads of
 * tier 1. */
static const struct command *view_command(const struct split *split)
{
    /*
     * W5: what is read after WATCH may not be older than it. And a user who may GET may perhaps not
     * MGET: the backend judges.
     */
    if (split->call->command->class != CLASS_SPLIT_READ || split->session->transaction != NULL ||
        split->session->identity != NULL) {
        return NULL;
    }
    if (is_mget(split)) {
        return split->session->front->config->multi_get_atomic ? NULL : command_at(0);
    }
    return bytes_equal(bytes_of_string(split->call->command->name), BYTES("exists"))
               ? split->call->command
               : NULL;
}

static struct read_call read_of(const struct split *split, const struct command *view, unsigned i)
{
    const struct bytes key = key_at(split, i);

    return (struct read_call){.command = view, .key = key, .hash = cache_hash(key)};
}

/* ---- all in tier 1 ---- */

static bool put_array_header(struct session *session, size_t n)
{
    struct resp_writer writer = {.out = &session->out.tail};

    resp_put_array(&writer, n);
    return !writer.has_failed;
}

/*
 * True: every key was a hit and the whole reply stands in the output. Hits are counted at the end:
 * what was found before a miss is looked up again as a part.
 */
static bool try_all_hits(const struct split *split, const struct command *view)
{
    struct session *session = split->session;
    const size_t mark = outq_mark(&session->out);
    bool is_whole;

    if (session->reply_mode != REPLY_ON || !is_mget(split)) {
        return false;
    }
    is_whole = put_array_header(session, split->n_keys);
    for (unsigned i = 0; is_whole && i < split->n_keys; i++) {
        const struct read_call read = read_of(split, view, i);

        is_whole = read_try_hit(session, &read);
    }
    if (!is_whole) {
        outq_truncate(&session->out, mark);
    }
    read_settle_hits(session->front, is_whole);
    return is_whole;
}

/* ---- parts ---- */

/* Sends the keys marked with this slot as one command. */
static void send_slot(struct split *split, struct group *group, const bool *is_asked,
                      unsigned first, bool *is_sent)
{
    const struct dispatch_call *call = split->call;
    struct front *front = split->session->front;
    const uint16_t slot = slot_of(split, key_at(split, first));
    const unsigned part = group->n_parts;
    struct request *request = group_add(group, REQUEST_RELAYED, call->command);
    struct bytes *argv = mem_try_alloc((1 + split->n_keys * split->step) * sizeof(*argv));
    struct command_key_list keys = {0};
    struct buffer frame;
    unsigned argc = 0, element = 0;
    int error = argv != NULL ? 0 : -ENOMEM;

    buffer_init(&frame);
    for (unsigned i = first; error == 0 && i < split->n_keys; i++) {
        if (is_sent[i] || !is_asked[i] || slot_of(split, key_at(split, i)) != slot) {
            continue;
        }
        if (argc == 0) {
            argv[argc++] = call->argv[0];
        }
        is_sent[i] = true;
        hot_keys_note(HOT_REQUESTS, cache_hash(key_at(split, i)), key_at(split, i), 1);
        argv[argc++] = key_at(split, i);
        if (split->step == 2) {
            argv[argc++] = call->argv[2 + i * 2];
        }
        if (group->places != NULL) {
            group->places[i] = (struct group_place){part, element++, true};
        }
    }
    request->slot = slot;
    request->is_dry = split->is_dry;
    if (error == 0) {
        error = resp_write_request(&frame, argv, argc);
    }
    if (error == 0 && command_find_keys(call->command, argv, argc, &keys)) {
        error = relay_store_keys(request, argv, &keys);
        command_key_list_fini(&keys);
    }
    if (error != 0) {
        request_fail(request, "ERR nearcached: out of memory");
    } else {
        relay_send(request, backend_owner(&front->backend, slot), buffer_bytes(&frame));
    }
    buffer_fini(&frame);
    mem_free(argv);
}

/* ---- merging ---- */

/* The elements of MGET's parts, each found once: a part's array is walked from its front. */
struct cursor {
    struct bytes at;
    uint32_t element;
    bool is_open;
};

static bool next_element(struct cursor *cursor, struct bytes reply, uint32_t element,
                         struct bytes *value)
{
    struct resp_value head;
    struct bytes before;

    if (!cursor->is_open) {
        cursor->at = reply;
        cursor->is_open = true;
        if (!resp_next(&cursor->at, &head)) {
            return false;
        }
    }
    while (cursor->element < element) {
        if (!resp_skip(&cursor->at)) {
            return false;
        }
        cursor->element++;
    }
    before = cursor->at;
    if (!resp_skip(&cursor->at)) {
        return false;
    }
    cursor->element++;
    *value = bytes_make(before.ptr, before.len - cursor->at.len);
    return true;
}

/* MGET says nil where GET says WRONGTYPE. */
static void put_element(struct resp_writer *reply, struct bytes value)
{
    if (bytes_start_with(value, BYTES("-WRONGTYPE"))) {
        resp_put_null(reply);
    } else {
        resp_put_raw(reply, value);
    }
}

static bool put_first_error(const struct group *group, struct resp_writer *reply)
{
    for (unsigned i = 0; i < group->n_parts; i++) {
        const struct bytes part = group_reply(group, i);

        if (part.len == 0 || (part.ptr[0] == '-' && !bytes_start_with(part, BYTES("-WRONGTYPE")))) {
            resp_put_raw(reply, part);
            return true;
        }
    }
    return false;
}

static void merge_mget(struct group *group, struct resp_writer *reply)
{
    struct cursor *cursors = mem_try_alloc((group->n_parts + 1) * sizeof(*cursors));

    if (cursors == NULL || put_first_error(group, reply)) {
        reply->has_failed = reply->has_failed || cursors == NULL;
        mem_free(cursors);
        return;
    }
    memset(cursors, 0, (group->n_parts + 1) * sizeof(*cursors));
    resp_put_array(reply, group->n_places);
    for (unsigned i = 0; i < group->n_places; i++) {
        const struct group_place *place = &group->places[i];
        struct bytes value = group_reply(group, place->part);

        if (place->is_array && !next_element(&cursors[place->part], group_reply(group, place->part),
                                             place->element, &value)) {
            reply->has_failed = true;
            break;
        }
        put_element(reply, value);
    }
    mem_free(cursors);
}

static void merge_all_ok(struct group *group, struct resp_writer *reply)
{
    group_merge_first(group, reply);
}

/* ---- dispatch ---- */

/* What each key needs: a cached read of its own, or its slot is asked. False: it has to wait (W3).
 */
static bool may_begin_now(const struct split *split)
{
    const struct session *session = split->session;

    for (unsigned i = 0; i < split->n_keys; i++) {
        const uint64_t hash = cache_hash(key_at(split, i));

        if (dispatch_conflicts(session, hash, session->cached_mask, true)) {
            return false;
        }
        if ((split->is_cluster || dispatch_is_spread(session)) &&
            dispatch_conflicts(session, hash, session->relayed_mask, false)) {
            return false;
        }
    }
    return true;
}

/* What became of the keys so far. */
struct tally {
    unsigned n_asked;    /* the backend is asked for them, by the client's command */
    unsigned n_bypassed; /* of these */
    unsigned n_cached;
    unsigned n_hits, n_stale; /* of these */
};

static void count_part(struct tally *tally, const struct request *part)
{
    tally->n_cached++;
    tally->n_hits += part->outcome == OUTCOME_HIT;
    tally->n_stale += part->outcome == OUTCOME_STALE;
}

static void read_cached_parts(struct split *split, struct group *group, const struct command *view,
                              bool *is_asked, struct tally *tally)
{
    for (unsigned i = 0; i < split->n_keys; i++) {
        unsigned part = 0;

        is_asked[i] = true;
        if (view != NULL) {
            const struct read_call read = read_of(split, view, i);
            const bool is_behind = dispatch_conflicts(split->session, read.hash,
                                                      split->session->relayed_mask, false);

            tally->n_bypassed += read_note_apart(split->session, &read, is_behind);
            if (!is_behind && read_part(group, split->session, &read, &part)) {
                is_asked[i] = false;
                count_part(tally, group->parts[part]);
                if (group->places != NULL) {
                    group->places[i] = (struct group_place){part, 0, false};
                }
            }
        }
        tally->n_asked += is_asked[i];
    }
}

static enum request_outcome outcome_of(const struct tally *tally)
{
    if (tally->n_hits + tally->n_stale < tally->n_cached) {
        return OUTCOME_MISS;
    }
    if (tally->n_asked > 0) {
        return tally->n_bypassed == tally->n_asked ? OUTCOME_BYPASS : OUTCOME_OF_KIND;
    }
    return tally->n_stale > 0 ? OUTCOME_STALE : OUTCOME_HIT;
}

/* Of a client that tracks: keys that tier 1 does not hold are made known to the tracking links. */
static bool must_wait_for_tracking(const struct split *split, const struct command *view)
{
    const struct dispatch_call *call = split->call;
    bool is_any_relayed = view == NULL, must_wait;
    struct command_key_list keys = {0};

    for (unsigned i = 0; i < split->n_keys && !is_any_relayed; i++) {
        is_any_relayed =
            !config_namespace_of(split->session->front->config, key_at(split, i))->cache;
    }
    if (!is_any_relayed || !command_find_keys(call->command, call->argv, call->argc, &keys)) {
        return false;
    }
    must_wait = tracking_must_wait(split->session, call->argv, &keys);
    command_key_list_fini(&keys);
    return must_wait;
}

static void note_relayed(const struct split *split)
{
    const struct dispatch_call *call = split->call;
    struct command_key_list keys = {0};

    if (command_find_keys(call->command, call->argv, call->argc, &keys)) {
        tracking_note_relayed(split->session, call->argv, &keys);
        command_key_list_fini(&keys);
    }
}

static void begin_parts(struct split *split, const struct command *view)
{
    const struct command *command = split->call->command;
    struct request *owner = request_queue(split->session, REQUEST_GROUP, command);
    struct group *group = group_new(
        owner, is_mget(split) ? merge_mget
                              : (command->merge == MERGE_SUM ? group_merge_sum : merge_all_ok));
    bool *flags = mem_try_alloc(2 * (size_t)split->n_keys);
    struct tally tally = {0};

    owner->ns = config_namespace_of(split->session->front->config, key_at(split, 0))->id;
    owner->key_mask = split->mask;
    owner->is_dry = split->is_dry;
    if (NC_UNLIKELY(split->session->front->guard != 0)) {
        overload_hold(split->session->front, owner);
    }
    if (is_mget(split)) {
        group->places = mem_try_alloc(split->n_keys * sizeof(*group->places));
        group->n_places = split->n_keys;
    }
    if (flags == NULL || (is_mget(split) && group->places == NULL)) {
        group->has_failed = true;
        mem_free(flags);
        group_seal(group);
        return;
    }
    memset(flags, 0, 2 * (size_t)split->n_keys);
    read_cached_parts(split, group, view, flags, &tally);
    owner->outcome = (uint8_t)outcome_of(&tally);
    request_count(owner, tally.n_cached > 0, tally.n_asked > 0);
    for (unsigned i = 0; i < split->n_keys; i++) {
        if (flags[i] && !flags[split->n_keys + i]) {
            send_slot(split, group, flags, i, flags + split->n_keys);
        }
    }
    mem_free(flags);
    stats_add(METRIC_commands_relayed, tally.n_asked > 0 ? 1 : 0);
    group_seal(group);
    if (NC_UNLIKELY(split->session->tracker != NULL) && tally.n_asked > 0) {
        note_relayed(split);
    }
}

static bool is_one_slot(const struct split *split)
{
    for (unsigned i = 1; split->is_cluster && i < split->n_keys; i++) {
        if (slot_of(split, key_at(split, i)) != slot_of(split, key_at(split, 0))) {
            return false;
        }
    }
    return true;
}

static bool has_large_key(const struct split *split)
{
    const struct session *session = split->session;

    for (unsigned i = 0; i < split->n_keys; i++) {
        if (large_is_noted(session->front, split->call->command, cache_hash(key_at(split, i)),
                           session->active_at_us)) {
            return true;
        }
    }
    return false;
}

static enum verdict dispatch(struct split *split, const struct command *view)
{
    struct session *session = split->session;
    const struct dispatch_call *call = split->call;

    if (view == NULL && is_one_slot(split)) {
        return dispatch_relay(session, call);
    }
    if (view != NULL && session->first == NULL && try_all_hits(split, view)) {
        return VERDICT_TAKEN;
    }
    if (view != NULL && is_mget(split) && has_large_key(split) && is_one_slot(split)) {
        /* Put together here, the reply would be held whole. */
        return dispatch_relay(session, call);
    }
    for (unsigned i = 0; i < split->n_keys; i++) {
        split->mask |= key_bit(cache_hash(key_at(split, i)));
    }
    if (!may_begin_now(split)) {
        stats_add(METRIC_stalls_order, 1);
        return VERDICT_STALL;
    }
    if (NC_UNLIKELY(session->tracker != NULL) && must_wait_for_tracking(split, view)) {
        return VERDICT_STALL;
    }
    if (NC_UNLIKELY(overload_is_guarded(session->front)) &&
        !overload_admit(session, call, key_at(split, 0))) {
        for (unsigned i = 0; view != NULL && i < split->n_keys; i++) {
            read_note_guard(session, key_at(split, i));
        }
        return VERDICT_TAKEN;
    }
    begin_parts(split, view);
    return VERDICT_TAKEN;
}

/* Its keys are asked for as if none were cached, and looked up beside it. */
static enum verdict dispatch_dry(struct split *split, const struct command *view)
{
    enum verdict verdict;

    split->is_dry = true;
    verdict = is_one_slot(split) ? dry_relay(split->session, split->call) : dispatch(split, NULL);
    for (unsigned i = 0; verdict == VERDICT_TAKEN && i < split->n_keys; i++) {
        const struct read_call read = read_of(split, view, i);

        dry_look_up(split->session, &read);
    }
    return verdict;
}

enum verdict split_dispatch(struct session *session, const struct dispatch_call *call)
{
    const struct topology *topology = session->front->backend.topology;
    struct split split = {
        .session = session,
        .call = call,
        .is_cluster = topology != NULL && topology->is_cluster,
        .step = call->command->step == 2 ? 2 : 1,
    };
    const struct command *view = view_command(&split);

    if ((call->argc - 1) % split.step != 0) {
        session_error(session, "ERR wrong number of arguments for '%s' command",
                      call->command->name);
        return VERDICT_TAKEN;
    }
    split.n_keys = (call->argc - 1) / split.step;
    if (view != NULL && split.n_keys == 1 && !is_mget(&split)) {
        return read_dispatch(session, call);
    }
    return view != NULL && dry_is_on(session->front) ? dispatch_dry(&split, view)
                                                     : dispatch(&split, view);
}
