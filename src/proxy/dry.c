/*
 * Design: tier 1 runs as it would, with the same flights, links and rules; only that clients are
 * answered by their relayed reads, and those reads drop nothing: they would not have been sent. A
 * fetch is begun for nobody in particular, behind the read. So the backend gets every read that it
 * would get without the proxy and, on top, what tier 1 would have asked it.
 *
 * The read that is relayed after the look-up is to it what the auditor's own read is to a hit.
 */
#include "proxy/dry.h"

#include "base/mem.h"
#include "base/stats.h"
#include "coherence/audit.h"

/* Half of what is collected of a relayed reply: RESP2 may word it longer, though not twice so. */
#define COMPARED_MAX ((size_t)8 * 1024)
/* Fetches of one worker that nobody waits for. */
#define FETCHES_MAX 16384u

struct shadow {
    struct audit *audit; /* NULL: it has ended */
};

/* Stands for the client in a flight. */
struct dry_fetch {
    struct coherence_waiter waiter;
    struct front *front;
};

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
        .max_staleness_us = front->config->max_staleness_ms * 1000,
    };
}

/* ---- misses ---- */

static void end_fetch(struct dry_fetch *fetch)
{
    fetch->front->dry.n_fetches--;
    mem_free(fetch);
}

static void on_fetched(struct coherence_waiter *waiter, enum coherence_answer answer,
                       struct bytes reply, enum cache_encoding encoding)
{
    (void)answer;
    (void)reply;
    (void)encoding;
    end_fetch(CONTAINER_OF(waiter, struct dry_fetch, waiter));
}

static void fetch(struct front *front, const struct cache_query *query,
                  const struct command *command, const struct identity *identity)
{
    const struct coherence_order order = {.may_hit = true, .may_begin = true};
    struct dry_fetch *fetch;
    struct cache_hit hit;
    enum coherence_refusal refusal;
    enum cache_outcome outcome;

    if (front->dry.n_fetches >= FETCHES_MAX) {
        return;
    }
    fetch = mem_alloc(sizeof(*fetch));
    front->dry.n_fetches++;
    fetch->front = front;
    fetch->waiter.on_answer = on_fetched;
    fetch->waiter.identity = identity;
    outcome = coherence_read(&front->coherence, query, command, &fetch->waiter, &order, front->copy,
                             &hit, &refusal);
    if (outcome == CACHE_HIT && hit.pinned != NULL) {
        cache_unpin(front->proxy->cache, hit.pinned);
    }
    if (outcome == CACHE_HIT || outcome == CACHE_RELAY) {
        end_fetch(fetch);
    }
}

/* ---- look-ups ---- */

/* Behind what would be relayed in earnest, and is not answered: it would be relayed, too (W3a). */
static bool is_behind_relayed(const struct session *session, const struct read_call *read)
{
    const uint64_t bit = key_bit(read->hash);

    if ((session->relayed_mask & bit) == 0) {
        return false;
    }
    for (const struct request *before = session->first; before != NULL; before = before->next) {
        if (before->counts_relayed && !before->is_dry && (before->key_mask & bit) != 0 &&
            (!before->has_one_key || before->key_hash == read->hash)) {
            return true;
        }
    }
    return false;
}

/* True: tier 1 would have answered. */
static bool would_hit(struct front *front, const struct cache_query *query)
{
    struct cache *cache = front->proxy->cache;
    struct cache_hit hit;
    enum cache_miss miss;

    if (!cache_get(cache, query, front->copy, &hit, &miss)) {
        return false;
    }
    if (hit.pinned != NULL) {
        cache_unpin(cache, hit.pinned);
    }
    return true;
}

static void count(const struct front *front, const struct read_call *read, bool is_hit)
{
    stats_ns_add(config_namespace_of(front->config, read->key)->id,
                 is_hit ? NS_METRIC_dry_hits : NS_METRIC_dry_misses, 1);
}

void dry_look_up(struct session *session, const struct read_call *read)
{
    struct front *front = session->front;
    const struct cache_query query = query_of(front, read, session->scope, session->active_at_us);
    const struct config_namespace *ns = config_namespace_of(front->config, read->key);
    bool is_hit = false;

    if (!ns->cache) {
        stats_ns_add(ns->id, NS_METRIC_misses_bypass, 1);
    }
    if (!ns->cache || read->key.len > CACHE_KEY_MAX) {
        return;
    }
    if (!is_behind_relayed(session, read)) {
        is_hit = would_hit(front, &query);
        if (!is_hit) {
            fetch(front, &query, read->command, session->identity);
        }
    }
    count(front, read, is_hit);
}

/* ---- comparing ---- */

static void on_ended(void *context, const struct audit_verdict *verdict)
{
    struct shadow *shadow = context;

    (void)verdict;
    shadow->audit = NULL;
}

static struct shadow *new_shadow(struct session *session, const struct cache_query *query,
                                 const struct read_call *read)
{
    struct shadow *shadow = mem_alloc(sizeof(*shadow));
    const struct audit_ask ask = {
        .proto = session->proto,
        .downgrade = command_downgrade(read->command, read->argv, read->argc),
        .max_bytes = COMPARED_MAX,
        .done = on_ended,
        .context = shadow,
    };

    shadow->audit = audit_expect(session->front->coherence.auditor, query, read->command, &ask);
    if (shadow->audit == NULL) {
        mem_free(shadow);
        shadow = NULL;
    }
    return shadow;
}

static void free_shadow(struct shadow *shadow)
{
    if (shadow->audit != NULL) {
        audit_drop(shadow->audit);
    }
    mem_free(shadow);
}

void dry_take_reply(struct request *request, struct bytes part)
{
    struct shadow *shadow = request->shadow;
    struct audit *audit = shadow->audit;

    request->shadow = NULL;
    mem_free(shadow);
    if (audit != NULL) {
        audit_answer(audit, part);
    }
}

void dry_forget(struct request *request)
{
    free_shadow(request->shadow);
    request->shadow = NULL;
}

/* ---- dispatch ---- */

enum verdict dry_relay(struct session *session, const struct dispatch_call *call)
{
    struct front_dry *dry = &session->front->dry;
    enum verdict verdict;

    dry->is_next = true;
    verdict = dispatch_relay(session, call);
    dry->is_next = false;
    return verdict;
}

/* With the look-up's answer to be compared with the reply; NULL: it had none. */
static enum verdict relay(struct session *session, const struct dispatch_call *call,
                          struct shadow *shadow)
{
    struct front_dry *dry = &session->front->dry;
    enum verdict verdict;

    dry->shadow = shadow;
    verdict = dry_relay(session, call);
    dry->shadow = NULL;
    if (verdict != VERDICT_TAKEN && shadow != NULL) {
        free_shadow(shadow);
    }
    return verdict;
}

enum verdict dry_dispatch(struct session *session, const struct dispatch_call *call,
                          const struct read_call *read)
{
    struct front *front = session->front;
    const struct identity *identity = session->identity;
    const struct cache_query query = query_of(front, read, session->scope, call->now_us);
    const struct config_namespace *ns = config_namespace_of(front->config, read->key);
    enum verdict verdict;
    bool is_hit;

    if (!ns->cache) {
        return dispatch_relay(session, call);
    }
    if (is_behind_relayed(session, read)) {
        verdict = dispatch_relay(session, call);
        if (verdict == VERDICT_TAKEN) {
            count(front, read, false);
        }
        return verdict;
    }
    is_hit = would_hit(front, &query);
    verdict = relay(session, call, is_hit ? new_shadow(session, &query, read) : NULL);
    if (verdict != VERDICT_TAKEN) {
        return verdict;
    }
    count(front, read, is_hit);
    if (!is_hit) {
        fetch(front, &query, read->command, identity);
    }
    return verdict;
}
