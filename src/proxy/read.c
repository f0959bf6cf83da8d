/*
 * Design: a hit with nothing queued before it is copied from the shard straight into the session's
 * output, and that is all that happens. Everything else takes a place in the queue.
 *
 * W3, for one key and one session: (a) a read behind an unanswered relayed request is relayed
 * behind it; (c) a read behind an unanswered cached read joins that flight or waits, or begins a
 * flight on the same link when all the flights it would wait for are the session's own and live.
 */
#include "proxy/read.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/stats.h"
#include "cache/hot_keys.h"
#include "coherence/early.h"
#include "proxy/dry.h"
#include "proxy/group.h"
#include "proxy/large.h"
#include "proxy/overload.h"
#include "proxy/relay.h"
#include "proxy/sample.h"
#include "proxy/tracking.h"

static void on_answer(struct coherence_waiter *waiter, enum coherence_answer answer,
                      struct bytes reply, enum cache_encoding encoding);

static bool describe(struct read_call *read, const struct dispatch_call *call)
{
    const unsigned char *end = call->frame.ptr + call->frame.len;

    read->command = call->command;
    read->argv = call->argv;
    read->argc = call->argc;
    read->key = call->argv[1];
    /* Behind the key and its CRLF. */
    read->args = bytes_make(read->key.ptr + read->key.len + 2,
                            (size_t)(end - (read->key.ptr + read->key.len + 2)));
    read->hash = cache_hash(read->key);
    return read->key.len <= CACHE_KEY_MAX && read->args.len <= CACHE_COPY_MAX;
}

static struct cache_query query_of(const struct front *front, const struct read_call *read,
                                   uint32_t scope, int64_t now_us)
{
    return (struct cache_query){
        .key = read->key,
        .hash = read->hash,
        .db = scope,
        .command = read->command->number,
        .args = read->args,
        .now_us = now_us,
        .max_staleness_us = front->max_staleness_us,
    };
}

/* ---- hits ---- */

static void unpin(void *entry)
{
    cache_unpin(front_self()->proxy->cache, entry);
}

/* Copies a hit to the end of out, in the protocol version wanted. False: out of memory. */
static bool copy_hit(struct front *front, struct buffer *out, const struct cache_hit *hit,
                     unsigned proto, enum resp_downgrade how)
{
    const int error = proto == 2 && hit->encoding == CACHE_RESP3
                          ? resp_downgrade(hit->reply, how, out)
                          : buffer_append(out, hit->reply);

    if (hit->pinned != NULL) {
        cache_unpin(front->proxy->cache, hit->pinned);
    }
    return error == 0;
}

/* The same; a large reply that needs no downgrade is queued by reference. */
static bool put_hit(struct front *front, struct outq *out, const struct cache_hit *hit,
                    unsigned proto, enum resp_downgrade how)
{
    if (hit->pinned != NULL && (proto == 3 || hit->encoding == CACHE_SAME_IN_BOTH)) {
        return outq_append_ref(out, hit->reply, unpin, hit->pinned) == 0;
    }
    return copy_hit(front, &out->tail, hit, proto, how);
}

static void count_hit(struct front *front, const struct cache_hit *hit)
{
    _Atomic uint64_t *const counters = stats_block()->ns_counters[hit->ns];

    front->n_hits++;
    front->hits.of_ns[hit->ns] = 1;
    stats_bump(&counters[NS_METRIC_hits], 1);
    stats_bump(&counters[NS_METRIC_saved_bytes], hit->reply.len);
    if (hit->is_negative) {
        stats_bump(&counters[NS_METRIC_hits_negative], 1);
    }
}

/* Of a hit near its deadline, or behind it: one reader has it read again, for all. */
static void renew(struct front *front, const struct cache_query *query,
                  const struct command *command, const struct identity *identity,
                  const struct cache_hit *hit)
{
    const struct early *early = front->coherence.fleet->early;

    if (hit->left_us <= 0) {
        stats_ns_add(hit->ns, NS_METRIC_hits_grace, 1);
    }
    if (hit->left_us <= 0 ||
        (hit->is_renewable &&
         early_is_due(hit->left_us, early_fetch_cost(early, hit->ns), early_random()))) {
        (void)early_refresh(&front->coherence, query, command, identity);
    }
}

/* True: answered. room: the session's output, where a small reply was copied to. */
static bool take_direct_hit(struct session *session, const struct read_call *read,
                            const struct cache_hit *hit, unsigned char *room)
{
    struct front *front = session->front;

    count_hit(front, hit);
    if (hit->pinned == NULL && (session->proto == 3 || hit->encoding == CACHE_SAME_IN_BOTH)) {
        outq_commit(&session->out, hit->reply.len);
        return true;
    }
    if (hit->pinned == NULL) {
        struct cache_hit moved = *hit;

        memcpy(front->copy, room, hit->reply.len);
        moved.reply.ptr = front->copy;
        return put_hit(front, &session->out, &moved, 2,
                       command_downgrade(read->command, read->argv, read->argc));
    }
    return put_hit(front, &session->out, hit, session->proto,
                   command_downgrade(read->command, read->argv, read->argc));
}

static void note_hit(struct front *front, const struct cache_hit *hit)
{
    struct front_tally *tally = &front->tally;

    if (tally->n_hits[hit->ns]++ == 0) {
        tally->touched[tally->n_touched++] = hit->ns;
    }
    tally->n_negative[hit->ns] += hit->is_negative;
    tally->n_bytes[hit->ns] += hit->reply.len;
}

bool read_try_hit(struct session *session, const struct read_call *read)
{
    struct front *front = session->front;
    const struct cache_query query = query_of(front, read, session->scope, session->active_at_us);
    struct cache_hit hit;
    enum cache_miss miss;
    unsigned char *room;
    bool is_put = true;

    if (outq_reserve(&session->out, CACHE_COPY_MAX, &room) != 0 ||
        !cache_get(front->proxy->cache, &query, room, &hit, &miss)) {
        return false;
    }
    if (hit.pinned == NULL && (session->proto == 3 || hit.encoding == CACHE_SAME_IN_BOTH)) {
        outq_commit(&session->out, hit.reply.len);
    } else {
        if (hit.pinned == NULL) {
            memcpy(front->copy, room, hit.reply.len);
            hit.reply.ptr = front->copy;
        }
        is_put = copy_hit(front, &session->out.tail, &hit, session->proto, DOWNGRADE_PLAIN);
    }
    if (is_put) {
        if (NC_UNLIKELY(miss == CACHE_NEAR)) {
            renew(front, &query, read->command, session->identity, &hit);
        }
        note_hit(front, &hit);
        sample_hit(front, &query, read->command, hit.reply.len);
    }
    return is_put;
}

void read_settle_hits(struct front *front, bool do_count)
{
    struct front_tally *tally = &front->tally;

    if (do_count && tally->n_touched > 0) {
        /* All of them together are one request, of the first key's namespace. */
        front->hits.n_parts[tally->touched[0]]--;
    }
    for (unsigned i = 0; i < tally->n_touched; i++) {
        const unsigned ns = tally->touched[i];

        if (do_count) {
            front->n_hits += tally->n_hits[ns];
            front->hits.n_parts[ns] += tally->n_hits[ns];
            front->hits.of_ns[ns] = 1;
            stats_ns_add(ns, NS_METRIC_hits, tally->n_hits[ns]);
            stats_ns_add(ns, NS_METRIC_hits_negative, tally->n_negative[ns]);
            stats_ns_add(ns, NS_METRIC_saved_bytes, tally->n_bytes[ns]);
        }
        tally->n_hits[ns] = tally->n_negative[ns] = 0;
        tally->n_bytes[ns] = 0;
    }
    tally->n_touched = 0;
}

/* Of a pipeline of one this is once per hit, so all of it is inlined. */
static inline void observe_hits_of(struct front_hits *hits, struct stats_block *block, unsigned ns,
                                   int64_t took_us)
{
    _Atomic uint64_t *const counters = block->ns_counters[ns];
    const uint64_t n_hits = atomic_load_explicit(&counters[NS_METRIC_hits], memory_order_relaxed);
    const uint64_t n_new = n_hits - hits->n_observed[ns];

    stats_observe_in(&block->ns_histograms[ns][NS_HISTOGRAM_latency_hit], took_us, n_new);
    stats_bump(&counters[NS_METRIC_requests_hit], n_new - (uint64_t)hits->n_parts[ns]);
    hits->n_observed[ns] = n_hits;
    hits->n_parts[ns] = 0;
}

void read_observe_hits(struct front *front, int64_t took_us)
{
    struct front_hits *hits = &front->hits;
    struct stats_block *block = stats_block();

    for (unsigned i = 0; i < hits->n_words; i++) {
        while (hits->words[i] != 0) {
            const unsigned ns = i * 8 + (unsigned)__builtin_ctzll(hits->words[i]) / 8;

            hits->of_ns[ns] = 0;
            observe_hits_of(hits, block, ns, took_us);
        }
    }
}

#define ATTRIBUTE_MAX 64

/* RESP3's attribute stands before the reply that it tells of. Empty: it is not asked for. */
static struct bytes attribute_of(const struct session *session, int64_t left_us,
                                 char text[ATTRIBUTE_MAX])
{
    int length;

    if (left_us < 0 || session == NULL || !session->wants_attributes || session->proto != 3) {
        return BYTES("");
    }
    length = snprintf(text, ATTRIBUTE_MAX, "|1\r\n$5\r\nstale\r\n:%" PRId64 "\r\n", left_us / 1000);
    return bytes_make(text, (size_t)length);
}

/* left_us: how long it may still be shown, for a client that asked for it; -1: not told. */
static void queue_reply(struct session *session, const struct read_call *read,
                        const struct cache_hit *hit, int64_t left_us)
{
    struct request *request = request_queue(session, REQUEST_LOCAL, read->command);
    char text[ATTRIBUTE_MAX];

    if (request->is_muted) {
        if (hit->pinned != NULL) {
            cache_unpin(session->front->proxy->cache, hit->pinned);
        }
    } else if (outq_append(&request->reply, attribute_of(session, left_us, text)) != 0 ||
               !put_hit(session->front, &request->reply, hit, session->proto,
                        command_downgrade(read->command, read->argv, read->argc))) {
        session_close_for_memory(session);
        return;
    }
    request->held_bytes = outq_len(&request->reply);
    session->held_bytes += request->held_bytes;
    request_done(request);
}

/* A hit that has to wait for earlier requests. */
static void queue_hit(struct session *session, const struct read_call *read,
                      const struct cache_hit *hit)
{
    count_hit(session->front, hit);
    queue_reply(session, read, hit, -1);
}

static void queue_stale(struct session *session, const struct read_call *read,
                        const struct cache_hit *hit, int64_t left_us)
{
    stats_ns_add(hit->ns, NS_METRIC_requests_stale, 1);
    queue_reply(session, read, hit, left_us);
}

static enum ns_metric miss_metric(enum cache_miss miss)
{
    switch (miss) {
    case CACHE_EXPIRED:
        return NS_METRIC_misses_expired;
    case CACHE_EPOCH:
        return NS_METRIC_misses_epoch;
    case CACHE_STALE:
        return NS_METRIC_misses_stale;
    case CACHE_INVALIDATED:
        return NS_METRIC_misses_invalidated;
    case CACHE_EVICTED:
        return NS_METRIC_misses_evicted;
    case CACHE_NEAR:
    case CACHE_COLD:
        break;
    }
    return NS_METRIC_misses_cold;
}

/* ---- misses ---- */

static bool touches(const struct request *request, uint64_t hash, uint64_t bit)
{
    return (request->key_mask & bit) != 0 && (!request->has_one_key || request->key_hash == hash);
}

/* What W3c allows behind the session's unanswered cached reads of this key, those before `until`.
 */
static void order_behind(const struct session *session, uint64_t hash, const struct request *until,
                         struct coherence_order *order)
{
    const uint64_t bit = key_bit(hash);
    const unsigned n_max = sizeof(order->own) / sizeof(order->own[0]);

    *order = (struct coherence_order){.may_hit = true, .may_begin = true};
    for (struct request *request = session->first; request != until && request != NULL;
         request = request->next) {
        if (!request->counts_cached || !touches(request, hash, bit)) {
            continue;
        }
        order->may_hit = false;
        order->may_begin = order->may_begin && order->n_own < n_max && request->waiter.has_begun &&
                           request->waiter.flight != NULL;
        if (order->n_own == n_max) {
            order->n_own--;
        }
        /* The last one is what may be joined; a group's is none. */
        order->own[order->n_own++] = request->waiter.flight;
    }
}

static enum cache_outcome look_up(struct request *request, const struct read_call *read,
                                  const struct coherence_order *order, struct cache_hit *hit,
                                  enum coherence_refusal *refusal)
{
    struct front *front = request->front;
    const uint32_t scope = cache_scope(request->identity != NULL ? request->identity->number : 0,
                                       request->db);
    const struct cache_query query = query_of(front, read, scope, clock_now_us());

    enum cache_outcome outcome;

    request->waiter.on_answer = on_answer;
    request->waiter.identity = request->identity;
    outcome = coherence_read(&front->coherence, &query, read->command, &request->waiter, order,
                             front->copy, hit, refusal);
    if (outcome == CACHE_HIT && NC_UNLIKELY(hit->is_near)) {
        renew(front, &query, read->command, request->identity, hit);
    }
    return outcome;
}

static void prepare(struct request *request, const struct read_call *read)
{
    request->key_hash = read->hash;
    request->key_mask = key_bit(read->hash);
    request->has_one_key = true;
    request->downgrade = read->argv != NULL
                             ? (uint8_t)command_downgrade(read->command, read->argv, read->argc)
                             : DOWNGRADE_PLAIN;
}

/* Tier 1 could not answer it; is_fetched: what is relayed instead is noted there. */
static void note_miss(const struct read_call *read, bool is_fetched)
{
    hot_keys_note(HOT_MISSES, read->hash, read->key, 1);
    if (is_fetched) {
        hot_keys_note(HOT_REQUESTS, read->hash, read->key, 1);
    }
}

static enum ns_metric relayed_miss_metric(enum coherence_refusal refusal, enum cache_miss miss)
{
    const bool is_absent = miss == CACHE_COLD || miss == CACHE_INVALIDATED || miss == CACHE_EVICTED;

    return refusal == REFUSED_LINK && is_absent ? NS_METRIC_misses_link : miss_metric(miss);
}

/* ---- while the node cannot be asked (stale-if-error) ---- */

static bool is_away(const struct front *front, const struct read_call *read)
{
    const struct topology *topology = front->backend.topology;
    const struct backend_node *node = backend_owner(
        &front->backend,
        topology != NULL && topology->is_cluster ? command_key_slot(read->key) : 0);

    return node == NULL || health_is_open(node->health);
}

/* What tier 1 held of the key when its node was last heard. A copy goes to the front's. */
static bool find_stale(struct front *front, const struct read_call *read, uint32_t scope,
                       struct cache_hit *hit, int64_t *left_us)
{
    const struct cache_query query = query_of(front, read, scope, clock_now_us());

    if (!cache_get_stale(front->proxy->cache, &query, front->copy, hit, left_us)) {
        return false;
    }
    stats_ns_add(hit->ns, NS_METRIC_stale_served, 1);
    return true;
}

/* Nothing older of its session that could show or change the key is unanswered. */
static bool is_first_of_key(const struct request *request, uint64_t hash)
{
    const struct request *in_queue = request_in_queue(request);

    /* Within a transaction, and from WATCH on, reads are the backend's. */
    if (in_queue->session == NULL || in_queue->session->transaction != NULL) {
        return false;
    }
    for (const struct request *before = in_queue->session->first; before != in_queue;
         before = before->next) {
        if (!before->is_done && touches(before, hash, key_bit(hash))) {
            return false;
        }
    }
    return true;
}

bool read_answer_stale(struct request *request, struct bytes frame)
{
    const struct resp_reader_limits limits = {INT32_MAX, SIZE_MAX / 2, SIZE_MAX / 2};
    struct front *front = request->front;
    struct dispatch_call call = {.command = request->command, .frame = frame};
    struct resp_request parsed;
    struct read_call read;
    struct cache_hit hit;
    char text[ATTRIBUTE_MAX];
    int64_t left_us;
    size_t wanted;
    const char *error;

    if (request->command == NULL || request->command->class != CLASS_CACHED_READ ||
        dry_is_on(front) || request->identity != NULL || request->shadow != NULL ||
        request->is_streaming || request->must_repeat || frame.len == 0 ||
        !config_serves_stale(front->config)) {
        return false;
    }
    resp_reader_reset(front->again_reader);
    if (resp_read_request(front->again_reader, frame, &limits, true, &parsed, &wanted, &error) !=
            RESP_OK ||
        parsed.argc < 2) {
        return false;
    }
    call.argv = parsed.argv;
    call.argc = parsed.argc;
    if (!describe(&read, &call) || !is_first_of_key(request, read.hash) ||
        !find_stale(front, &read, cache_scope(0, request->db), &hit, &left_us)) {
        return false;
    }
    request->downgrade = (uint8_t)command_downgrade(read.command, read.argv, read.argc);
    if (!copy_hit(front, &front->answer, &hit, request->proto, request->downgrade)) {
        buffer_consume(&front->answer, buffer_len(&front->answer));
        request_fail(request, "ERR nearcached: out of memory");
        return true;
    }
    request_take_part(request, attribute_of(request->session, left_us, text));
    request_take_part(request, buffer_bytes(&front->answer));
    buffer_consume(&front->answer, buffer_len(&front->answer));
    request_done(request);
    return true;
}

/* What changes the key is told of on the link that showed it. */
static bool is_heard_of(const struct front *front, const struct config_namespace *ns,
                        uint16_t incarnation)
{
    const struct epochs_incarnation *at = epochs_at(cache_epochs(front->proxy->cache), incarnation);

    return ns->coherence != COHERENCE_TTL &&
           atomic_load_explicit(&at->is_told, memory_order_relaxed);
}

/* As leases see its client: a part of MGET is never held, and has none. */
static struct miss_client *misses_of(struct session *session)
{
    if (session->misses == NULL) {
        session->misses = miss_client_new();
    }
    return session->misses;
}

/* Who is not shown what expires soon missed it, as if it had expired. */
static void note_early(const struct read_call *read, uint8_t ns)
{
    stats_ns_add(ns, NS_METRIC_misses_expired, 1);
    note_miss(read, true);
}

/*
 * A key with a lease is about to expire at the backend: this reader is perhaps told that it is
 * missing, so that it computes the value while the others go on being served.
 */
static bool take_early(struct session *session, const struct dispatch_call *call,
                       const struct read_call *read, const struct cache_query *query,
                       const struct config_namespace *ns, const struct cache_hit *hit)
{
    struct coherence *coherence = &session->front->coherence;
    const int64_t cost_us = miss_leases_cost(coherence->fleet->leases, read->hash);
    const uint16_t slot = dispatch_is_cluster(session->front) ? command_key_slot(read->key) : 0;
    const struct miss_subject subject = {
        .key = read->key,
        .hash = read->hash,
        .scope = query->db,
        .incarnation = hit->incarnation,
        .slot = slot,
        .slot_word = epochs_slot_word(cache_epochs(session->front->proxy->cache), slot),
        .is_told = is_heard_of(session->front, ns, hit->incarnation),
        .ns = ns->id,
        .life_us = ns->miss_lease_ms * 1000,
        .now_us = query->now_us,
    };
    struct request *request;

    if (hit->left_us > 0 &&
        (cost_us == 0 || !early_is_due(hit->left_us, cost_us, early_random()))) {
        return false;
    }
    request = request_queue(session, REQUEST_CACHED, read->command);
    request->ns = ns->id;
    prepare(request, read);
    if (request_store(request, call->frame) != 0) {
        request_unqueue(request);
        return false;
    }
    request_count(request, true, false);
    request->waiter.on_answer = on_answer;
    request->waiter.identity = request->identity;
    request->waiter.asked_at_us = query->now_us;
    request->waiter.waiter.worker = (uint8_t)coherence->worker->index;
    request->waiter.miss.client = misses_of(session);
    switch (miss_leases_take_early(coherence, &request->waiter, &subject,
                                   query->now_us + hit->left_us)) {
    case MISS_PASS:
        note_early(read, ns->id);
        on_answer(&request->waiter, COHERENCE_MISSING, BYTES("_\r\n"), CACHE_RESP3);
        return true;
    case MISS_HELD:
        note_early(read, ns->id);
        return true;
    case MISS_AGAIN:
        break;
    }
    request_unqueue(request);
    return false;
}

/* A hit near its deadline, or behind it. True: its reader is not shown it, but told otherwise. */
static bool __attribute__((noinline))
is_taken_early(struct session *session, const struct dispatch_call *call,
               const struct read_call *read, const struct cache_query *query,
               const struct cache_hit *hit)
{
    const struct config_namespace *ns = config_namespace_of(session->front->config, read->key);

    if (ns->miss_lease_ms > 0 && ns->early_refresh_ms > 0 && !hit->is_renewable &&
        !hit->is_negative && query->command == 0 && query->args.len == 0 &&
        !session_is_muted(session) && take_early(session, call, read, query, ns, hit)) {
        if (hit->pinned != NULL) {
            cache_unpin(session->front->proxy->cache, hit->pinned);
        }
        return true;
    }
    renew(session->front, query, read->command, session->identity, hit);
    return false;
}

/* NULL: it may not cause work now, and was answered. */
static struct request *queue_miss(struct session *session, const struct dispatch_call *call,
                                  const struct read_call *read, const struct config_namespace *ns)
{
    struct front *front = session->front;
    struct request *request;

    if (NC_UNLIKELY(overload_is_guarded(front)) && !overload_admit(session, call, read->key)) {
        stats_ns_add(ns->id, NS_METRIC_misses_guard, 1);
        return NULL;
    }
    request = request_queue(session, REQUEST_CACHED, read->command);
    if (NC_UNLIKELY(front->guard != 0)) {
        overload_hold(front, request);
    }
    request->ns = ns->id;
    prepare(request, read);
    return request;
}

/* It causes none, or is admitted anew. */
static void unqueue_miss(struct request *request, const struct read_call *read)
{
    if (NC_UNLIKELY(request->front->guard != 0)) {
        overload_undo(request->session, read->key);
    }
    request_unqueue(request);
}

static enum verdict relay_miss(struct session *session, const struct dispatch_call *call,
                               const struct read_call *read, uint8_t ns, enum ns_metric metric)
{
    const enum verdict verdict = dispatch_relay(session, call);

    if (verdict == VERDICT_TAKEN) {
        stats_ns_add(ns, metric, 1);
        note_miss(read, false);
    }
    return verdict;
}

static enum verdict miss_for_session(struct session *session, const struct dispatch_call *call,
                                     const struct read_call *read, enum cache_miss miss,
                                     const struct coherence_order *order)
{
    const struct config_namespace *ns = config_namespace_of(session->front->config, read->key);
    struct request *request;
    struct cache_hit hit;
    enum coherence_refusal refusal;
    enum cache_outcome outcome;
    int64_t left_us;

    if (dry_is_on(session->front)) {
        return dry_dispatch(session, call, read);
    }
    if (!ns->cache) {
        return dispatch_relay(session, call);
    }
    if (NC_UNLIKELY(ns->stale_if_error_ms > 0) && order->may_hit && session->identity == NULL &&
        is_away(session->front, read) &&
        find_stale(session->front, read, session->scope, &hit, &left_us)) {
        queue_stale(session, read, &hit, left_us);
        return VERDICT_TAKEN;
    }
    request = queue_miss(session, call, read, ns);
    if (request == NULL) {
        return VERDICT_TAKEN;
    }
    if (request_store(request, call->frame) != 0) {
        request_fail(request, "ERR nearcached: out of memory");
        return VERDICT_TAKEN;
    }
    request_count(request, true, false);
    if (NC_UNLIKELY(ns->miss_lease_ms > 0)) {
        request->waiter.miss.client = misses_of(session);
    }
    outcome = look_up(request, read, order, &hit, &refusal);
    switch (outcome) {
    case CACHE_HIT:
        /* Filled between the two look-ups. */
        unqueue_miss(request, read);
        queue_hit(session, read, &hit);
        return VERDICT_TAKEN;
    case CACHE_JOINED:
    case CACHE_BEGUN:
        stats_ns_add(ns->id, miss_metric(miss), 1);
        stats_ns_add(ns->id, NS_METRIC_coalesced, outcome == CACHE_JOINED);
        note_miss(read, true);
        return VERDICT_TAKEN;
    case CACHE_RELAY:
        break;
    }
    unqueue_miss(request, read);
    if (!order->may_hit) {
        return VERDICT_STALL;
    }
    return relay_miss(session, call, read, ns->id, relayed_miss_metric(refusal, miss));
}

void read_note_guard(const struct session *session, struct bytes key)
{
    const struct config_namespace *ns = config_namespace_of(session->front->config, key);

    if (ns->cache) {
        stats_ns_add(ns->id, NS_METRIC_misses_guard, 1);
    }
}

static void note_order(const struct config_namespace *ns)
{
    if (ns->cache) {
        stats_ns_add(ns->id, NS_METRIC_misses_order, 1);
    }
}

bool read_note_apart(const struct session *session, const struct read_call *read, bool is_behind)
{
    const struct config_namespace *ns = config_namespace_of(session->front->config, read->key);

    if (!ns->cache) {
        stats_ns_add(ns->id, NS_METRIC_misses_bypass, 1);
    } else if (is_behind) {
        note_order(ns);
    }
    return !ns->cache;
}

enum verdict read_dispatch(struct session *session, const struct dispatch_call *call)
{
    struct front *front = session->front;
    struct coherence_order order = {.may_hit = true, .may_begin = true};
    struct read_call read;
    struct cache_query query;
    struct cache_hit hit;
    enum cache_miss miss = CACHE_COLD;
    unsigned char *room;

    if (!describe(&read, call)) {
        return dispatch_relay(session, call);
    }
    if (dispatch_conflicts(session, read.hash, session->relayed_mask, false)) {
        if (dry_is_on(front)) {
            return dry_dispatch(session, call, &read);
        }
        const enum verdict verdict = dispatch_relay(session, call);
        /* Where it has to wait it comes here again. */
        if (verdict == VERDICT_TAKEN) {
            note_order(config_namespace_of(front->config, read.key));
        }
        return verdict;
    }
    if (dispatch_conflicts(session, read.hash, session->cached_mask, true)) {
        order_behind(session, read.hash, NULL, &order);
        return miss_for_session(session, call, &read, miss, &order);
    }
    query = query_of(front, &read, session->scope, call->now_us);
    if (session->first == NULL && session->reply_mode == REPLY_ON) {
        if (outq_reserve(&session->out, CACHE_COPY_MAX, &room) == 0 &&
            cache_get(front->proxy->cache, &query, room, &hit, &miss)) {
            if (NC_UNLIKELY(miss == CACHE_NEAR) &&
                is_taken_early(session, call, &read, &query, &hit)) {
                return VERDICT_TAKEN;
            }
            if (!take_direct_hit(session, &read, &hit, room)) {
                session_close_for_memory(session);
                return VERDICT_TAKEN;
            }
            sample_hit(front, &query, read.command, hit.reply.len);
            return VERDICT_TAKEN;
        }
    } else if (cache_get(front->proxy->cache, &query, front->copy, &hit, &miss)) {
        if (NC_UNLIKELY(miss == CACHE_NEAR) && is_taken_early(session, call, &read, &query, &hit)) {
            return VERDICT_TAKEN;
        }
        queue_hit(session, &read, &hit);
        sample_hit(front, &query, read.command, hit.reply.len);
        return VERDICT_TAKEN;
    }
    return miss_for_session(session, call, &read, miss, &order);
}

/* ---- parts of MGET and EXISTS ---- */

static void take_part_hit(struct request *request, const struct cache_hit *hit,
                          enum request_outcome outcome)
{
    request->outcome = (uint8_t)outcome;
    if (!copy_hit(request->front, &request->reply.tail, hit, request->proto, DOWNGRADE_PLAIN)) {
        group_part_failed(request);
    }
    request_done(request);
}

bool read_part(struct group *group, struct session *session, const struct read_call *read,
               unsigned *part)
{
    struct front *front = session->front;
    const struct config_namespace *ns = config_namespace_of(front->config, read->key);
    const struct coherence_order order = {.may_hit = true, .may_begin = true};
    struct request *request;
    struct cache_hit hit;
    enum coherence_refusal refusal;
    enum cache_outcome outcome;
    struct buffer frame;
    struct bytes argv[2] = {bytes_of_string(read->command->name), read->key};
    int64_t left_us;
    int error;

    if (!ns->cache || read->key.len > CACHE_KEY_MAX) {
        return false;
    }
    hit.miss = CACHE_COLD;
    buffer_init(&frame);
    error = resp_write_request(&frame, argv, 2);
    request = group_add(group, REQUEST_CACHED, read->command);
    *part = group->n_parts - 1;
    request->ns = ns->id;
    prepare(request, read);
    if (error == 0) {
        error = request_store(request, buffer_bytes(&frame));
    }
    buffer_fini(&frame);
    if (error != 0) {
        request_fail(request, "ERR nearcached: out of memory");
        return true;
    }
    if (NC_UNLIKELY(ns->stale_if_error_ms > 0) && request->identity == NULL && !dry_is_on(front) &&
        is_away(front, read) &&
        find_stale(front, read, cache_scope(0, request->db), &hit, &left_us)) {
        take_part_hit(request, &hit, OUTCOME_STALE);
        return true;
    }
    outcome = look_up(request, read, &order, &hit, &refusal);
    switch (outcome) {
    case CACHE_HIT:
        count_hit(front, &hit);
        front->hits.n_parts[hit.ns]++;
        hot_keys_note(HOT_REQUESTS, read->hash, read->key, 1);
        take_part_hit(request, &hit, OUTCOME_HIT);
        return true;
    case CACHE_JOINED:
    case CACHE_BEGUN:
        stats_ns_add(ns->id, miss_metric((enum cache_miss)hit.miss), 1);
        stats_ns_add(ns->id, NS_METRIC_coalesced, outcome == CACHE_JOINED);
        note_miss(read, true);
        return true;
    case CACHE_RELAY:
        break;
    }
    stats_ns_add(ns->id, relayed_miss_metric(refusal, (enum cache_miss)hit.miss), 1);
    note_miss(read, false);
    group_drop_last(group);
    return false;
}

/*
 * A cached read that is relayed after all takes the session's later cached reads of its key with
 * it: their answers could otherwise overtake its own. They are asked again, behind it.
 */
static void take_later_reads_along(const struct request *request)
{
    const struct request *in_queue = request->is_part ? request->group->owner : request;

    if (in_queue->session == NULL) {
        return;
    }
    for (struct request *later = in_queue->next; later != NULL; later = later->next) {
        if (!later->counts_cached || !touches(later, request->key_hash, request->key_mask)) {
            continue;
        }
        later->must_repeat = later->kind == REQUEST_CACHED;
        for (unsigned i = 0; later->group != NULL && i < later->group->n_parts; i++) {
            struct request *part = later->group->parts[i];

            part->must_repeat = part->kind == REQUEST_CACHED && !part->is_done &&
                                part->key_hash == request->key_hash;
        }
    }
}

/* ---- answers ---- */

/* Its session has an unanswered cached read of the same key before it. */
static bool is_behind_own_read(const struct request *request)
{
    const struct request *in_queue = request->is_part ? request->group->owner : request;
    struct coherence_order order = {.may_hit = true};

    if (in_queue->session != NULL) {
        order_behind(in_queue->session, request->key_hash, in_queue, &order);
    }
    return !order.may_hit;
}

static void on_answer(struct coherence_waiter *waiter, enum coherence_answer answer,
                      struct bytes reply, enum cache_encoding encoding)
{
    struct request *request = CONTAINER_OF(waiter, struct request, waiter);
    struct front *front = request->front;

    request->waiter.flight = NULL;
    if (answer == COHERENCE_LARGE) {
        large_note(front, request->command, request->key_hash);
        large_set_apart(request);
        answer = COHERENCE_RELAY;
    } else if (request->must_repeat) {
        answer = COHERENCE_RELAY;
    }
    if (answer == COHERENCE_RELAY) {
        /* Now: the answers of later flights on the same link may already be behind this one. */
        take_later_reads_along(request);
    }
    if (answer == COHERENCE_MISSING) {
        /* An earlier read of the key may still wait for its value: this one must not show less. */
        answer = is_behind_own_read(request) ? COHERENCE_RETRY : COHERENCE_REPLY;
    }
    if (answer == COHERENCE_AGAIN) {
        /* At once: it has waited, and so have many. */
        request->again = AGAIN_LOOKUP;
        read_again(request);
        return;
    }
    if (answer != COHERENCE_REPLY) {
        request->is_paced = answer == COHERENCE_RETRY;
        request->again = answer == COHERENCE_RETRY ? AGAIN_LOOKUP : AGAIN_RELAY;
        relay_retry(request);
        return;
    }
    if (request->proto == 2 && encoding == CACHE_RESP3) {
        struct buffer *scratch = &front->answer;

        if (resp_downgrade(reply, request->downgrade, scratch) != 0) {
            buffer_consume(scratch, buffer_len(scratch));
            request_fail(request, "ERR nearcached: the reply could not be put into RESP2");
            return;
        }
        request_take_part(request, buffer_bytes(scratch));
        buffer_consume(scratch, buffer_len(scratch));
    } else {
        request_take_part(request, reply);
    }
    request_done(request);
}

void read_hurry(struct session *session)
{
    for (struct request *request = session->first; request != NULL; request = request->next) {
        miss_leases_hurry(&session->front->coherence, &request->waiter.miss);
    }
}

/* ---- again ---- */

int read_store_keys_of_frame(struct request *request, struct bytes frame)
{
    struct front *front = request->front;
    const struct resp_reader_limits limits = {INT32_MAX, SIZE_MAX / 2, SIZE_MAX / 2};
    struct resp_request parsed;
    struct command_key_list keys = {0};
    size_t wanted;
    const char *error;
    int result = 0;

    resp_reader_reset(front->again_reader);
    if (request->command == NULL || resp_read_request(front->again_reader, frame, &limits, true,
                                                      &parsed, &wanted, &error) != RESP_OK) {
        return 0;
    }
    if (command_find_keys(request->command, parsed.argv, parsed.argc, &keys)) {
        result = relay_store_keys(request, parsed.argv, &keys);
        command_key_list_fini(&keys);
    }
    return result;
}

static void relay_instead(struct request *request, struct bytes frame, const struct read_call *read)
{
    struct front *front = request->front;
    const bool is_cluster = front->backend.topology != NULL && front->backend.topology->is_cluster;

    take_later_reads_along(request);
    request->must_repeat = false;
    request->kind = REQUEST_RELAYED;
    request->slot = is_cluster ? command_key_slot(read->key) : 0;
    request_count(request, false, true);
    stats_add(METRIC_commands_relayed, 1);
    if (read_store_keys_of_frame(request, frame) != 0) {
        request_fail(request, "ERR nearcached: out of memory");
        return;
    }
    tracking_note_late(request, read->key);
    relay_send(request, backend_owner(&front->backend, request->slot), frame);
}

static void look_up_again(struct request *request, struct bytes frame, const struct read_call *read)
{
    const struct request *in_queue = request->is_part ? request->group->owner : request;
    struct cache *cache = request->front->proxy->cache;
    struct coherence_order order = {.may_hit = true, .may_begin = true};
    struct cache_hit hit;
    enum coherence_refusal refusal;

    if (in_queue->session != NULL) {
        order_behind(in_queue->session, read->hash, in_queue, &order);
    }
    switch (look_up(request, read, &order, &hit, &refusal)) {
    case CACHE_HIT:
        on_answer(&request->waiter, COHERENCE_REPLY, hit.reply, hit.encoding);
        if (hit.pinned != NULL) {
            cache_unpin(cache, hit.pinned);
        }
        return;
    case CACHE_JOINED:
    case CACHE_BEGUN:
        return;
    case CACHE_RELAY:
        break;
    }
    if (!order.may_hit) {
        /* Behind another cached read of its session: not on a second connection. */
        request->again = AGAIN_LOOKUP;
        relay_retry(request);
        return;
    }
    relay_instead(request, frame, read);
}

void read_again(struct request *request)
{
    const struct resp_reader_limits limits = {INT32_MAX, SIZE_MAX / 2, SIZE_MAX / 2};
    struct front *front = request->front;
    struct dispatch_call call = {.command = request->command};
    struct resp_request parsed;
    struct read_call read;
    struct buffer frame;
    size_t wanted;
    const char *error;

    if (!request->is_part && request->session == NULL) {
        request_drop(request);
        return;
    }
    buffer_init(&frame);
    resp_reader_reset(front->again_reader);
    if (buffer_append(&frame, bytes_make(request->stored, request->stored_bytes)) != 0 ||
        resp_read_request(front->again_reader, buffer_bytes(&frame), &limits, true, &parsed,
                          &wanted, &error) != RESP_OK) {
        buffer_fini(&frame);
        request_fail(request, "ERR nearcached: out of memory");
        return;
    }
    call.argv = parsed.argv;
    call.argc = parsed.argc;
    call.frame = buffer_bytes(&frame);
    (void)describe(&read, &call);
    if (request->again == AGAIN_LOOKUP && !request->must_repeat) {
        look_up_again(request, buffer_bytes(&frame), &read);
    } else {
        relay_instead(request, buffer_bytes(&frame), &read);
    }
    buffer_fini(&frame);
}
