#include "cache_testing.h"

void rig_init(struct rig *rig, size_t maxmemory, unsigned n_shards)
{
    const struct cache_options options = {
        .maxmemory = maxmemory, .negative_percent = 5, .n_shards = n_shards, .max_flights = 1024};

    memset(rig, 0, sizeof(*rig));
    rig->allocated = arena_base != NULL ? arena_allocated() : 0;
    assert_int_equal(cache_new(&options, &rig->cache), 0);
    rig->epochs = cache_epochs(rig->cache);
    rig->now_us = clock_now_us();
    epochs_assign(rig->epochs, 0, RIG_NODE);
    rig->link = epochs_open(rig->epochs, RIG_NODE, 0, rig->now_us);
}

void rig_fini(struct rig *rig)
{
    cache_free(&rig->cache);
    assert_int_equal(arena_allocated(), rig->allocated);
}

struct cache_query rig_query(const struct rig *rig, const char *key, unsigned command,
                             const char *args)
{
    const struct bytes name = bytes_of_string(key);

    return (struct cache_query){.key = name,
                                .hash = cache_hash(name),
                                .command = (uint16_t)command,
                                .args = bytes_of_string(args != NULL ? args : ""),
                                .now_us = rig->now_us,
                                .max_staleness_us = SECOND};
}

struct cache_offer rig_offer(const struct rig *rig)
{
    return (struct cache_offer){
        .incarnation = rig->link, .node = RIG_NODE, .may_begin = true, .may_hit = true};
}

struct cache_flight *rig_begin(struct rig *rig, const struct cache_query *query,
                               struct cache_waiter *waiter)
{
    struct cache_offer offer = rig_offer(rig);
    struct cache_flight *flight = NULL;

    offer.may_hit = false;
    assert_int_equal(
        cache_lookup(rig->cache, query, &offer, 100, waiter, rig->copy, &rig->hit, &flight),
        CACHE_BEGUN);
    return flight;
}

enum cache_completion rig_complete(struct rig *rig, struct cache_flight *flight,
                                   const struct cache_fill *fill)
{
    struct cache_waiter *waiters = NULL;
    const enum cache_completion completion = cache_complete(rig->cache, &flight, fill, rig->now_us,
                                                            SECOND, &waiters);

    assert_null(flight);
    assert_non_null(waiters);
    return completion;
}

enum cache_completion rig_fill_view(struct rig *rig, const struct cache_query *query,
                                    struct bytes reply, int64_t deadline_us, bool is_negative)
{
    struct cache_waiter waiter;
    const struct cache_fill fill = {
        .reply = reply, .deadline_us = deadline_us, .is_negative = is_negative};

    return rig_complete(rig, rig_begin(rig, query, &waiter), &fill);
}

enum cache_completion rig_fill(struct rig *rig, const char *key, const char *value)
{
    const struct cache_query query = rig_query(rig, key, 0, NULL);
    char reply[256];
    const int n = snprintf(reply, sizeof(reply), "$%zu\r\n%s\r\n", strlen(value), value);

    return rig_fill_view(rig, &query, bytes_make(reply, (size_t)n), CACHE_NO_DEADLINE, false);
}

struct bytes make_bulk(size_t n)
{
    char *text = malloc(n + 32);
    const int head = sprintf(text, "$%zu\r\n", n);

    memset(text + head, 'v', n);
    memcpy(text + head + n, "\r\n", 2);
    return bytes_make(text, (size_t)head + n + 2);
}

static void free_bulk(struct bytes bulk)
{
    free((void *)(uintptr_t)bulk.ptr);
}

enum cache_completion rig_fill_n(struct rig *rig, const char *key, size_t n, int64_t deadline_us)
{
    const struct cache_query query = rig_query(rig, key, 0, NULL);
    const struct bytes bulk = make_bulk(n);
    const enum cache_completion completion = rig_fill_view(rig, &query, bulk, deadline_us, false);

    free_bulk(bulk);
    return completion;
}

bool rig_get_view(struct rig *rig, const struct cache_query *query)
{
    return cache_get(rig->cache, query, rig->copy, &rig->hit, &rig->miss);
}

bool rig_get(struct rig *rig, const char *key)
{
    const struct cache_query query = rig_query(rig, key, 0, NULL);

    return rig_get_view(rig, &query);
}

void rig_unpin(struct rig *rig)
{
    if (rig->hit.pinned != NULL) {
        cache_unpin(rig->cache, rig->hit.pinned);
        rig->hit.pinned = NULL;
    }
}

void assert_reply(const struct rig *rig, const char *expected)
{
    assert_int_equal(rig->hit.reply.len, strlen(expected));
    assert_memory_equal(rig->hit.reply.ptr, expected, strlen(expected));
}

/* ---- auditor ---- */

struct audit {
    uint64_t n_entries, n_views, n_negative, n_scoped;
    size_t cost, metadata, negative_cost;
    struct policy_list lists[POLICY_QUEUES];
    uint64_t ns_entries[256], ns_bytes[256];
};

static void audit_entry(struct audit *audit, const struct entry *entry)
{
    const struct entry_sizes sizes = entry_measure(entry);
    struct entry_view views[CACHE_VIEWS_MAX + 1];
    const unsigned n_views = entry_views(entry, views, CACHE_VIEWS_MAX + 1);

    assert_true(n_views > 0 && n_views <= CACHE_VIEWS_MAX);
    assert_int_equal(n_views, sizes.n_views);
    audit->n_entries++;
    audit->n_views += n_views;
    audit->n_negative += entry_is_negative(entry) ? 1 : 0;
    audit->negative_cost += entry_is_negative(entry) ? sizes.cost : 0;
    audit->n_scoped += entry_db(entry) != 0 ? 1 : 0;
    audit->cost += sizes.cost;
    audit->metadata += sizes.metadata;
    audit->ns_entries[entry->ns]++;
    audit->ns_bytes[entry->ns] += sizes.cost;
    audit->lists[policy_queue_of(entry)].n++;
    audit->lists[policy_queue_of(entry)].bytes += sizes.cost;
}

static bool is_ref(uint32_t ref, const void *what)
{
    return ref == *(const uint32_t *)what;
}

/* Walks the queues, which must be linked both ways and hold what the table holds. */
static void audit_queues(const struct shard *shard, struct audit *audit)
{
    for (unsigned queue = POLICY_SMALL; queue < POLICY_QUEUES; queue++) {
        const struct policy_list *list = &shard->policy.lists[queue];
        arena_ref previous = ARENA_NONE;
        uint64_t n = 0;

        for (arena_ref at = list->head; at != ARENA_NONE; at = entry_at(at)->next) {
            const struct entry *entry = entry_at(at);
            assert_int_equal(entry->prev, previous);
            assert_int_equal(policy_queue_of(entry), queue);
            assert_non_null(table_find(&shard->table, entry_hash(entry), is_ref, &at));
            audit_entry(audit, entry);
            previous = at;
            n++;
        }
        assert_int_equal(list->tail, previous);
        assert_int_equal(list->n, n);
    }
    assert_int_equal(audit->n_entries, table_count(&shard->table));
}

static size_t audit_overhead(const struct shard *shard)
{
    const struct table *table = &shard->table;
    const struct ghost *ghost = &shard->policy.ghost;
    const size_t arrays[] = {table->now.n_bytes, table->old.n_bytes, ghost->now.n_bytes,
                             ghost->old.n_bytes};
    size_t sum = sizeof(*shard) + shard->flights.n_heads * sizeof(void *);

    for (unsigned i = 0; i < 4; i++) {
        sum += arrays[i] > 0 ? arena_cost(arrays[i]) : 0;
    }
    return sum;
}

void rig_audit(struct rig *rig)
{
    struct cache *cache = rig->cache;
    struct audit *total = calloc(1, sizeof(*total));
    struct cache_stats stats;
    size_t accounted = 0;
    uint64_t n_buckets = 0;

    for (unsigned i = 0; i < cache->n_shards; i++) {
        struct shard *shard = &cache->shards[i];
        struct audit *audit = calloc(1, sizeof(*audit));

        audit_queues(shard, audit);
        for (unsigned queue = POLICY_SMALL; queue < POLICY_QUEUES; queue++) {
            assert_int_equal(shard->policy.lists[queue].n, audit->lists[queue].n);
            assert_int_equal(shard->policy.lists[queue].bytes, audit->lists[queue].bytes);
        }
        assert_int_equal(shard->overhead_bytes, audit_overhead(shard));
        assert_int_equal(shard->metadata_bytes, audit->metadata);
        assert_int_equal(shard->negative_bytes, audit->negative_cost);
        assert_int_equal(shard->n_negative, audit->n_negative);
        assert_int_equal(shard->n_scoped, audit->n_scoped);
        assert_int_equal(shard->n_views, audit->n_views);
        assert_int_equal(shard_used_locked(shard),
                         audit->cost + audit_overhead(shard) + shard->detached_bytes);
        accounted += audit->cost + audit_overhead(shard) + shard->detached_bytes;
        n_buckets += shard->table.now.n_buckets + shard->table.old.n_buckets;
        total->n_entries += audit->n_entries;
        for (unsigned ns = 0; ns < 256; ns++) {
            total->ns_entries[ns] += audit->ns_entries[ns];
            total->ns_bytes[ns] += audit->ns_bytes[ns];
        }
        free(audit);
    }
    for (unsigned ns = 0; ns < 256; ns++) {
        assert_int_equal(atomic_load(&cache->ns_entries[ns]), total->ns_entries[ns]);
        assert_int_equal(atomic_load(&cache->ns_bytes[ns]), total->ns_bytes[ns]);
    }
    assert_int_equal(atomic_load(&cache->n_buckets), n_buckets);
    cache_stats(cache, &stats);
    assert_int_equal(stats.accounted_bytes, accounted);
    assert_int_equal(stats.n_entries, total->n_entries);
    assert_int_equal(stats.n_entries, stats.n_small + stats.n_main);
    free(total);
}

size_t arena_allocated(void)
{
    struct arena_stats stats;

    arena_read_stats(&stats);
    return stats.allocated_bytes;
}
