/*
 * Design: the watch (cache/watch.h) is taken before the backend is asked, so that it covers the
 * moment at which the answer was made. Nothing waits for an audit, and nothing is sent but the read
 * itself: the proof that all messages have been applied is the entry's own watermark, which each
 * PING on its link renews within fence-interval. The fence of scripts was rejected for this: it
 * asks every worker's link, and voids what replicas showed.
 *
 * Of the reply only a digest is kept. Where Redis promises no order (HGETALL, HKEYS, HVALS,
 * SMEMBERS: two answers may differ while a table is being rehashed, or at a replica) it is the sum
 * of the elements' digests.
 */
#include "coherence/audit.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/stats.h"
#include "cache/hash.h"
#include "cache/watch.h"
#include "coherence/bus.h"
#include "coherence/ear.h"
#include "resp/own.h"
#include "upstream/replicas.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>

#define AUDIT_MAGIC 0x61756469u
/* Under way on one worker. */
#define AUDITS_MAX 256u
/* A reply may be a little longer than what it is compared with. */
#define COLLECT_MORE 1024

struct audit {
    uint32_t magic;
    struct audit *next, *prev;
    struct auditor *auditor;
    struct cache_watch watch;
    struct cache_query query; /* of the copies below */
    const struct command *command;
    struct link_op op;
    uint64_t digest;
    epochs_node node; /* that is asked */
    uint8_t ns;
    bool is_negative;
    bool is_long;    /* the reply came in parts: it is another one */
    bool is_waiting; /* for a proof that all messages were read */
    int64_t answered_at_us;
    int64_t proof_us; /* the watermark that proves it; 0: a replica is not so far yet */
    audit_done_fn done;
    void *context;
    unsigned char bytes[]; /* key and arguments */
};

struct auditor {
    struct coherence *coherence;
    struct audit *first;
    unsigned n;
    uint64_t random;
    int64_t window_began_us;
    unsigned n_in_window;
    struct buffer scratch;
    struct log_limit log;
    unsigned char copy[CACHE_COPY_MAX];
};

/* ---- words ---- */

const char *audit_result_name(enum audit_result result)
{
    static const char *const names[N_AUDIT_RESULTS] = {
        [AUDIT_SAME] = "same",         [AUDIT_CHANGED] = "changed", [AUDIT_STALE] = "stale",
        [AUDIT_NOT_HELD] = "not-held", [AUDIT_RATE] = "rate",       [AUDIT_BUSY] = "busy",
        [AUDIT_LARGE] = "large",       [AUDIT_LINK] = "link",       [AUDIT_ERROR] = "error",
        [AUDIT_UNPROVEN] = "unproven",
    };

    return names[result];
}

const char *audit_cause_name(enum audit_cause cause)
{
    static const char *const names[N_AUDIT_CAUSES] = {
        [AUDIT_OF_TRACKING] = "tracking",   [AUDIT_OF_REPLICA] = "replica",
        [AUDIT_OF_TTL_MODE] = "ttl-mode",   [AUDIT_OF_KEYSPACE] = "keyspace",
        [AUDIT_OF_FIELD_TTL] = "field-ttl",
    };

    return names[cause];
}

/* ---- counting ---- */

static const enum ns_metric stale_metrics[N_AUDIT_CAUSES] = {
    [AUDIT_OF_TRACKING] = NS_METRIC_stale_tracking,
    [AUDIT_OF_REPLICA] = NS_METRIC_stale_replica,
    [AUDIT_OF_TTL_MODE] = NS_METRIC_stale_ttl_mode,
    [AUDIT_OF_KEYSPACE] = NS_METRIC_stale_keyspace,
    [AUDIT_OF_FIELD_TTL] = NS_METRIC_stale_field_ttl,
};

static const enum histogram age_histograms[N_AUDIT_CAUSES] = {
    [AUDIT_OF_TRACKING] = HISTOGRAM_stale_age_tracking,
    [AUDIT_OF_REPLICA] = HISTOGRAM_stale_age_replica,
    [AUDIT_OF_TTL_MODE] = HISTOGRAM_stale_age_ttl_mode,
    [AUDIT_OF_KEYSPACE] = HISTOGRAM_stale_age_keyspace,
    [AUDIT_OF_FIELD_TTL] = HISTOGRAM_stale_age_field_ttl,
};

static void count(unsigned ns, const struct audit_verdict *verdict)
{
    switch (verdict->result) {
    case AUDIT_SAME:
        stats_ns_add(ns, NS_METRIC_audits_same, 1);
        break;
    case AUDIT_CHANGED:
        stats_ns_add(ns, NS_METRIC_audits_changed, 1);
        break;
    case AUDIT_STALE:
        stats_ns_add(ns, NS_METRIC_audits_stale, 1);
        stats_ns_add(ns, stale_metrics[verdict->cause], 1);
        stats_observe(age_histograms[verdict->cause], verdict->at_most_us, 1);
        break;
    case AUDIT_RATE:
        stats_add(METRIC_audits_skipped_rate, 1);
        break;
    case AUDIT_BUSY:
        stats_add(METRIC_audits_skipped_busy, 1);
        break;
    case AUDIT_LARGE:
        stats_add(METRIC_audits_skipped_large, 1);
        break;
    case AUDIT_LINK:
        stats_add(METRIC_audits_skipped_link, 1);
        break;
    case AUDIT_ERROR:
        stats_add(METRIC_audits_skipped_error, 1);
        break;
    case AUDIT_UNPROVEN:
        stats_add(METRIC_audits_skipped_unproven, 1);
        break;
    case AUDIT_NOT_HELD:
    case N_AUDIT_RESULTS:
        break;
    }
}

/* ---- digests ---- */

static bool has_no_order(const struct command *command)
{
    const char *name = command->name;

    return strcmp(name, "hgetall") == 0 || strcmp(name, "hkeys") == 0 ||
           strcmp(name, "hvals") == 0 || strcmp(name, "smembers") == 0;
}

/* Fields stay with their values, in a map and in the array that RESP2 has in its place. */
static uint64_t digest_of_elements(struct bytes reply, unsigned n_together)
{
    uint64_t sum = 0;

    while (reply.len > 0) {
        const unsigned char *begin = reply.ptr;
        bool is_whole = true;

        for (unsigned i = 0; is_whole && i < n_together; i++) {
            is_whole = resp_skip(&reply);
        }
        if (!is_whole) {
            break;
        }
        sum += hash_key(bytes_make(begin, (size_t)(reply.ptr - begin)));
    }
    return sum;
}

static uint64_t digest_of(const struct command *command, struct bytes reply)
{
    struct bytes at = reply;
    struct resp_value head;

    if (!has_no_order(command) || !resp_next(&at, &head) || head.is_null ||
        (head.type != '*' && head.type != '%' && head.type != '~')) {
        return hash_key(reply);
    }
    return head.n_children + digest_of_elements(at, strcmp(command->name, "hgetall") == 0 ? 2 : 1);
}

/* What the backend would answer in the protocol version it is asked in. False: no memory. */
static bool take_digest(struct audit *audit, const struct cache_hit *hit,
                        const struct audit_ask *ask)
{
    struct buffer *scratch = &audit->auditor->scratch;
    struct bytes reply = hit->reply;

    if (ask->proto == 2 && hit->encoding == CACHE_RESP3) {
        if (resp_downgrade(hit->reply, ask->downgrade, scratch) != 0) {
            buffer_consume(scratch, buffer_len(scratch));
            return false;
        }
        reply = buffer_bytes(scratch);
    }
    audit->digest = digest_of(audit->command, reply);
    buffer_consume(scratch, buffer_len(scratch));
    return true;
}

/* ---- life of an audit ---- */

static struct cache *cache_of(const struct audit *audit)
{
    return audit->auditor->coherence->cache;
}

static const struct epochs_incarnation *incarnation_of(const struct audit *audit)
{
    return epochs_at(cache_epochs(cache_of(audit)), audit->watch.incarnation);
}

static struct audit *new_audit(struct auditor *auditor, const struct cache_query *query,
                               const struct command *command, const struct audit_ask *ask)
{
    struct audit *audit = mem_try_alloc(sizeof(*audit) + query->key.len + query->args.len);
    unsigned char *args;

    if (audit == NULL) {
        return NULL;
    }
    *audit = (struct audit){
        .magic = AUDIT_MAGIC,
        .auditor = auditor,
        .query = *query,
        .command = command,
        .done = ask->done,
        .context = ask->context,
    };
    args = audit->bytes + query->key.len;
    memcpy(audit->bytes, query->key.ptr, query->key.len);
    if (query->args.len > 0) {
        memcpy(args, query->args.ptr, query->args.len);
    }
    audit->query.key.ptr = audit->bytes;
    audit->query.args.ptr = args;
    return audit;
}

static void list(struct audit *audit)
{
    struct auditor *auditor = audit->auditor;

    audit->next = auditor->first;
    if (auditor->first != NULL) {
        auditor->first->prev = audit;
    }
    auditor->first = audit;
    auditor->n++;
}

static void unlist(struct audit *audit)
{
    struct auditor *auditor = audit->auditor;

    if (audit->prev != NULL) {
        audit->prev->next = audit->next;
    } else {
        auditor->first = audit->next;
    }
    if (audit->next != NULL) {
        audit->next->prev = audit->prev;
    }
    auditor->n--;
}

static void tell(audit_done_fn done, void *context, const struct audit_verdict *verdict)
{
    if (done != NULL) {
        done(context, verdict);
    }
}

/* The watch has ended. */
static void finish(struct audit *audit, const struct audit_verdict *verdict)
{
    count(audit->ns, verdict);
    unlist(audit);
    tell(audit->done, audit->context, verdict);
    mem_free(audit);
}

static void end_as(struct audit *audit, enum audit_result result)
{
    (void)cache_watch_end(cache_of(audit), &audit->query, &audit->watch);
    finish(audit, &(struct audit_verdict){.result = result});
}

/* Watches and digests what tier 1 holds. NULL: *result says why not. */
static struct audit *begin(struct auditor *auditor, const struct cache_query *query,
                           const struct command *command, const struct audit_ask *ask,
                           enum audit_result *result)
{
    struct cache *cache = auditor->coherence->cache;
    struct audit *audit = NULL;
    struct cache_hit hit;

    *result = AUDIT_BUSY;
    if (auditor->n < AUDITS_MAX && cache_watch_count(cache) < CACHE_WATCHES_MAX) {
        audit = new_audit(auditor, query, command, ask);
    }
    if (audit == NULL) {
        return NULL;
    }
    if (!cache_watch(cache, &audit->query, &audit->watch, auditor->copy, &hit)) {
        *result = AUDIT_NOT_HELD;
        mem_free(audit);
        return NULL;
    }
    audit->ns = hit.ns;
    audit->is_negative = hit.is_negative;
    *result = hit.reply.len > ask->max_bytes ? AUDIT_LARGE : AUDIT_SAME;
    if (*result == AUDIT_SAME && !take_digest(audit, &hit, ask)) {
        *result = AUDIT_BUSY;
    }
    if (hit.pinned != NULL) {
        cache_unpin(cache, hit.pinned);
    }
    if (*result != AUDIT_SAME) {
        (void)cache_watch_end(cache, &audit->query, &audit->watch);
        mem_free(audit);
        return NULL;
    }
    list(audit);
    return audit;
}

/* ---- the verdict ---- */

static bool has_field_ttl(const struct audit *audit)
{
    const struct topology *topology = audit->auditor->coherence->backend->topology;

    return topology != NULL && topology->has_field_ttl && audit->command->name[0] == 'h';
}

static bool is_of_replica(const struct epochs_incarnation *incarnation)
{
    return atomic_load_explicit(&incarnation->shown_by, memory_order_relaxed) !=
           atomic_load_explicit(&incarnation->node, memory_order_relaxed);
}

static bool is_told(const struct epochs_incarnation *incarnation)
{
    return atomic_load_explicit(&incarnation->is_told, memory_order_relaxed);
}

static bool is_of_notifications(const struct epochs_incarnation *incarnation)
{
    return atomic_load_explicit(&incarnation->shared, memory_order_relaxed) == EAR_KEYSPACE + 1;
}

static enum audit_cause cause_of(const struct audit *audit)
{
    const struct epochs_incarnation *incarnation = incarnation_of(audit);

    if (!is_told(incarnation)) {
        return AUDIT_OF_TTL_MODE;
    }
    if (has_field_ttl(audit)) {
        return AUDIT_OF_FIELD_TTL;
    }
    if (is_of_notifications(incarnation)) {
        return AUDIT_OF_KEYSPACE;
    }
    return is_of_replica(incarnation) ? AUDIT_OF_REPLICA : AUDIT_OF_TRACKING;
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* A change between the two modes ends what was kept, but for namespaces with a mode of their own.
 */
static int64_t untold_life_ms(const struct audit *audit, const struct config_namespace *ns)
{
    const struct coherence *coherence = audit->auditor->coherence;
    const struct config *config = coherence->config;
    const bool is_bus_up = coherence->fleet->bus != NULL && bus_is_up(coherence->fleet->bus);

    if (ns->coherence == COHERENCE_TTL || (ns->coherence != COHERENCE_PUBSUB && !is_bus_up)) {
        return config->ttl_mode_max_ms;
    }
    return is_bus_up ? config->pubsub_mode_max_ms
                     : -earlier(-config->pubsub_mode_max_ms, -config->ttl_mode_max_ms);
}

/*
 * An entry keeps its deadline, not the time of its fetch. No life is longer than the shortest of
 * the limits that apply to it, so what is left of that bounds its age.
 */
static int64_t age_at_most_us(const struct audit *audit, int64_t now_us)
{
    const struct config *config = audit->auditor->coherence->config;
    const struct config_namespace *ns = config_namespace_of(config, audit->query.key);
    int64_t life_ms = ns->max_ttl_ms;

    if (audit->is_negative) {
        life_ms = earlier(life_ms, ns->negative_ttl_ms);
    }
    if (cache_scope_user(audit->query.db) != 0) {
        life_ms = earlier(life_ms, config->acl_max_age_ms);
    }
    if (!is_told(incarnation_of(audit)) || ns->coherence == COHERENCE_TTL ||
        ns->coherence == COHERENCE_PUBSUB) {
        life_ms = earlier(life_ms, untold_life_ms(audit, ns));
    }
    if (is_of_notifications(incarnation_of(audit))) {
        life_ms = earlier(life_ms, config->keyspace_mode_max_ms);
    }
    if (has_field_ttl(audit)) {
        life_ms = earlier(life_ms, config->hash_ttl_cap_ms);
    }
    /* What is kept beyond its deadline has a later one in tier 1. */
    life_ms += ns->stale_while_revalidate_ms;
    return audit->watch.deadline_us == CACHE_NO_DEADLINE
               ? life_ms * 1000
               : life_ms * 1000 - (audit->watch.deadline_us - now_us);
}

static void log_stale(struct audit *audit, const struct audit_verdict *verdict)
{
    const struct config *config = audit->auditor->coherence->config;
    const bool shows_key = config->audit_log_keys;
    /* What the mode of coherence allows is no news. */
    const bool is_lost = verdict->cause == AUDIT_OF_TRACKING || verdict->cause == AUDIT_OF_REPLICA;
    unsigned n_suppressed;

    if ((!is_lost && !log_is_on(LOG_DEBUG)) ||
        !log_limit_pass(&audit->auditor->log, clock_now_ms(), &n_suppressed)) {
        return;
    }
    log_event(is_lost ? LOG_WARN : LOG_DEBUG, "audit", "tier 1 held a stale entry",
              "namespace=%s cause=%s command=%s stale_for_at_least_ms=%" PRId64
              " read_at_most_ms_ago=%" PRId64 "%s%s suppressed=%u",
              config_namespace_name(audit->ns), audit_cause_name(verdict->cause),
              audit->command->name, verdict->at_least_us / 1000, verdict->at_most_us / 1000,
              shows_key ? " key=" : "", shows_key ? log_quote(audit->query.key) : "", n_suppressed);
}

/* The message that did not come would have been passed on as well. */
static void tell_others(const struct audit *audit)
{
    struct buffer keys;

    buffer_init(&keys);
    if (resp_write_request(&keys, &audit->query.key, 1) == 0) {
        track_announce(audit->auditor->coherence, buffer_bytes(&keys));
    }
    buffer_fini(&keys);
}

/* What was answered differs, and every message that could explain it has been applied. */
static void judge(struct audit *audit)
{
    const int64_t now_us = clock_now_us();
    struct audit_verdict verdict = {.result = AUDIT_CHANGED};

    audit->query.now_us = now_us;
    if (cache_watch_end(cache_of(audit), &audit->query, &audit->watch)) {
        verdict = (struct audit_verdict){
            .result = AUDIT_STALE,
            .cause = cause_of(audit),
            .at_least_us = now_us - audit->answered_at_us,
            .at_most_us = age_at_most_us(audit, now_us),
        };
        log_stale(audit, &verdict);
        if (cache_invalidate(cache_of(audit), audit->query.key)) {
            stats_add(METRIC_invalidations_audit, 1);
        }
        if (verdict.cause == AUDIT_OF_TRACKING || verdict.cause == AUDIT_OF_REPLICA ||
            verdict.cause == AUDIT_OF_KEYSPACE) {
            tell_others(audit);
        }
    }
    finish(audit, &verdict);
}

/* Every message about a change before the answer has been applied, or the entry is gone. */
static bool is_proven(struct audit *audit, int64_t now_us)
{
    const struct epochs_incarnation *incarnation = incarnation_of(audit);

    if (!epochs_is_live(incarnation)) {
        return true;
    }
    if (audit->proof_us == 0 &&
        replicas_caught_up(atomic_load_explicit(&incarnation->shown_by, memory_order_relaxed)) >=
            audit->answered_at_us) {
        /* The replica has it by now; a PING sent from now on is answered behind its message. */
        audit->proof_us = now_us;
    }
    /* Acquire: the partner is the store in epochs_advance(), behind all that was applied. */
    return audit->proof_us != 0 && atomic_load_explicit(&incarnation->watermark_us,
                                                        memory_order_acquire) >= audit->proof_us;
}

/* How long the proof may take before it is given up. */
static int64_t patience_us(const struct audit *audit)
{
    const struct config *config = audit->auditor->coherence->config;
    const int64_t lag_ms = is_of_replica(incarnation_of(audit)) ? config->replica_max_lag_ms : 0;

    return (2 * config->fence_interval_ms + config->link_timeout_ms + lag_ms) * 1000;
}

static bool is_error(struct bytes reply)
{
    return reply.len > 0 && (reply.ptr[0] == '!' || reply.ptr[0] == '-') &&
           !bytes_start_with(reply, BYTES("-WRONGTYPE"));
}

static void take_answer(struct audit *audit, struct bytes reply)
{
    if (is_error(reply)) {
        end_as(audit, AUDIT_ERROR);
        return;
    }
    if (reply.len > 0 && digest_of(audit->command, reply) == audit->digest) {
        end_as(audit, AUDIT_SAME);
        return;
    }
    if (is_of_replica(incarnation_of(audit)) && strstr(audit->command->name, "lex") != NULL) {
        /* Among unequal scores the answer depends on a structure that each server has its own of.
         */
        end_as(audit, AUDIT_UNPROVEN);
        return;
    }
    audit->answered_at_us = clock_now_us();
    if (!is_told(incarnation_of(audit))) {
        /* No message would come. */
        judge(audit);
        return;
    }
    audit->proof_us = is_of_replica(incarnation_of(audit)) ? 0 : audit->answered_at_us;
    audit->is_waiting = true;
}

void audit_answer(struct audit *audit, struct bytes reply)
{
    CHECK(audit->magic == AUDIT_MAGIC);
    audit->done = NULL;
    take_answer(audit, reply);
}

void audit_drop(struct audit *audit)
{
    CHECK(audit->magic == AUDIT_MAGIC);
    audit->done = NULL;
    end_as(audit, AUDIT_LINK);
}

/* ---- asking ---- */

static void on_reply(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                     bool is_first, bool is_last)
{
    struct audit *audit = CONTAINER_OF(op, struct audit, op);
    struct coherence *coherence = audit->auditor->coherence;

    (void)index;
    if (is_first && !is_last) {
        struct backend_node *node = backend_by_id(coherence->backend, audit->node);

        audit->is_long = true;
        if (resp_is_large(part, coherence->config->large_reply) && node != NULL) {
            /* It has grown since: others do not wait for its end. */
            (void)backend_leave_link(coherence->backend, node, link);
        }
    }
    if (!is_last) {
        return;
    }
    if (audit->is_long && link->is_left) {
        backend_rejoin_link(link);
    }
    take_answer(audit, audit->is_long ? BYTES("") : part);
}

static void on_lost(struct link_op *op, struct link *link, enum link_loss loss)
{
    (void)link;
    (void)loss;
    end_as(CONTAINER_OF(op, struct audit, op), AUDIT_LINK);
}

static const struct link_op_type audit_type = {on_reply, on_lost};

/* Spelled as the proxy's own. */
static struct bytes spell(const struct command *command, unsigned char room[OWN_NAME_MAX])
{
    char name[OWN_NAME_MAX];
    const size_t length = strlen(command->name);

    CHECK(length <= sizeof(name));
    for (size_t i = 0; i < length; i++) {
        name[i] = (char)toupper((unsigned char)command->name[i]);
    }
    return own_spell(room, bytes_make(name, length));
}

static unsigned count_args(struct bytes args)
{
    unsigned n = 0;

    while (args.len > 0 && resp_skip(&args)) {
        n++;
    }
    return n;
}

/* The node that is asked: the one that the entry's link belongs to, as long as it has the slot. */
static struct backend_node *node_of(const struct audit *audit)
{
    const struct backend *backend = audit->auditor->coherence->backend;
    const bool is_cluster = backend->topology != NULL && backend->topology->is_cluster;
    struct backend_node *node = backend_owner(backend,
                                              is_cluster ? command_key_slot(audit->query.key) : 0);

    return node != NULL && node->id == atomic_load_explicit(&incarnation_of(audit)->node,
                                                            memory_order_relaxed)
               ? node
               : NULL;
}

static bool send_read(struct audit *audit, struct backend_node *node, unsigned proto)
{
    struct coherence *coherence = audit->auditor->coherence;
    struct link *link = backend_relay_link(coherence->backend, node,
                                           proto == 3 ? LINK_RELAY3 : LINK_RELAY2);
    const struct cache_query *query = &audit->query;
    unsigned char room[OWN_NAME_MAX];
    const struct bytes name = spell(audit->command, room);
    char head[96];
    const int n = snprintf(head, sizeof(head), "*%u\r\n$%zu\r\n%.*s\r\n$%zu\r\n",
                           2 + count_args(query->args), name.len, (int)name.len,
                           (const char *)name.ptr, query->key.len);
    const struct bytes parts[] = {bytes_make(head, (size_t)n), query->key, BYTES("\r\n"),
                                  query->args};

    audit->node = node->id;
    audit->op.type = &audit_type;
    audit->op.collect = coherence->config->audit_max_value + COLLECT_MORE;
    audit->op.collect_many = audit->op.collect;
    return link_send(link, cache_scope_db(query->db), parts, query->args.len > 0 ? 4 : 3, 1,
                     &audit->op) == 0;
}

/* RESP3, as it was fetched, unless the server has none. */
static unsigned proto_of(const struct coherence *coherence, const struct cache_query *query)
{
    const struct backend *backend = coherence->backend;
    const bool is_cluster = backend->topology != NULL && backend->topology->is_cluster;
    const struct backend_node *node = backend_owner(backend,
                                                    is_cluster ? command_key_slot(query->key) : 0);

    return node != NULL && node->links[LINK_TRACKING].is_resp2 ? 2 : 3;
}

void audit_view(struct auditor *auditor, const struct cache_query *query,
                const struct command *command, audit_done_fn done, void *context)
{
    const struct audit_ask ask = {
        .proto = proto_of(auditor->coherence, query),
        .downgrade = DOWNGRADE_PLAIN,
        .max_bytes = auditor->coherence->config->audit_max_value,
        .done = done,
        .context = context,
    };
    struct backend_node *node;
    struct audit_verdict verdict = {.result = AUDIT_BUSY};
    struct audit *audit = begin(auditor, query, command, &ask, &verdict.result);

    if (audit == NULL) {
        count(0, &verdict);
        tell(done, context, &verdict);
        return;
    }
    node = node_of(audit);
    if (node == NULL || !send_read(audit, node, ask.proto)) {
        end_as(audit, AUDIT_LINK);
    }
}

/* ---- samples ---- */

/* xorshift64: hits in a regular order must not meet samples in the same one. */
static uint64_t next_random(struct auditor *auditor)
{
    auditor->random ^= auditor->random << 13;
    auditor->random ^= auditor->random >> 7;
    auditor->random ^= auditor->random << 17;
    return auditor->random;
}

uint64_t audit_interval(struct auditor *auditor)
{
    const uint64_t mean = (uint64_t)auditor->coherence->config->audit_sample;

    return mean == 0 ? 0 : 1 + next_random(auditor) % (2 * mean - 1);
}

/* This worker's share of audit-rate, by the second. */
static bool is_within_rate(struct auditor *auditor, int64_t now_us)
{
    const unsigned n_workers = auditor->coherence->fleet->n_members;
    const unsigned rate = (unsigned)auditor->coherence->config->audit_rate;
    const unsigned share = rate / n_workers +
                           (auditor->coherence->worker->index < rate % n_workers);

    if (now_us - auditor->window_began_us >= 1000000) {
        auditor->window_began_us = now_us;
        auditor->n_in_window = 0;
    }
    return auditor->n_in_window++ < (share > 0 ? share : 1);
}

void audit_hit(struct auditor *auditor, const struct cache_query *query,
               const struct command *command)
{
    if (!is_within_rate(auditor, query->now_us)) {
        count(0, &(struct audit_verdict){.result = AUDIT_RATE});
        return;
    }
    audit_view(auditor, query, command, NULL, NULL);
}

struct audit *audit_expect(struct auditor *auditor, const struct cache_query *query,
                           const struct command *command, const struct audit_ask *ask)
{
    struct audit_verdict verdict = {.result = AUDIT_BUSY};
    struct audit *audit = begin(auditor, query, command, ask, &verdict.result);

    if (audit == NULL) {
        count(0, &verdict);
    }
    return audit;
}

/* ---- the auditor ---- */

struct auditor *auditor_new(struct coherence *coherence)
{
    struct auditor *auditor = mem_alloc(sizeof(*auditor));

    auditor->coherence = coherence;
    auditor->random = (uint64_t)clock_now_us() * 2 + 1 + ((uint64_t)coherence->worker->index << 40);
    buffer_init(&auditor->scratch);
    return auditor;
}

void auditor_free(struct auditor **auditor)
{
    while ((*auditor)->first != NULL) {
        end_as((*auditor)->first, AUDIT_LINK);
    }
    buffer_fini(&(*auditor)->scratch);
    mem_free(*auditor);
    *auditor = NULL;
}

void auditor_tick(struct auditor *auditor, int64_t now_us)
{
    struct audit *audit = auditor->first;

    while (audit != NULL) {
        struct audit *const next = audit->next;

        if (audit->is_waiting && is_proven(audit, now_us)) {
            judge(audit);
        } else if (audit->is_waiting && now_us - audit->answered_at_us > patience_us(audit)) {
            end_as(audit, AUDIT_UNPROVEN);
        }
        audit = next;
    }
}
