/*
 * A walk visits the flights of a shard, then the buckets of its table, a few under each lock. A
 * table that is moving is helped along first; one that was replaced meanwhile is walked again from
 * its start, as entries have changed their places. So a pass misses nothing that was there when it
 * began: what comes in later was valid when it came.
 */
#include "base/clock.h"
#include "base/log.h"
#include "cache/bans.h"
#include "cache/shard.h"

/* Under one lock: at most 48 entries, which are as many waits for memory. */
/* A tenth of a second each: half a minute from nothing back to all. */
#define RESTORE_STEPS 320
#define WALK_BUCKETS 4u
#define WALK_FLIGHT_HEADS 16u
#define PASS_US 60000000
/* A pass that something waits for takes 4 seconds. */
#define HURRY 16u
/* Per tick, while too much is resident: about 80 000 entries, 20 ms. */
#define COMPACT_SECTIONS 4096u
/* Sections per shard and tick spent on a budget that became smaller. */
#define TICK_SECTIONS 256u

/* ---- walking ---- */

struct visitor {
    uint32_t now_tick;
    int64_t now_us;
};

static void visit_entry_locked(struct cache *cache, struct shard *shard, struct entry *entry,
                               struct visitor *visitor, struct shard_work *work)
{
    const enum entry_state state = shard_state_of(cache, entry, visitor->now_tick);

    if (state == STATE_KEPT) {
        return;
    }
    if (state != STATE_LIVE) {
        shard_remove_dead_locked(cache, shard, entry, entry_hash(entry), state, work);
    } else if (entry->filled != ENTRY_OLD &&
               entry_age(entry->filled, visitor->now_us) > ENTRY_AGE_MAX) {
        entry->filled = ENTRY_OLD;
    }
}

static void visit_flights_locked(struct cache *cache, struct shard *shard,
                                 const struct shard_walk *walk)
{
    const unsigned end = walk->head + WALK_FLIGHT_HEADS;

    for (unsigned i = walk->head; i < end && i < shard->flights.n_heads; i++) {
        struct cache_flight *flight = shard->flights.heads[i];
        while (flight != NULL) {
            struct cache_flight *next = flight->next;
            if (shard_has_ended(cache, flight->incarnation, flight->key) ||
                bans_match_flight(cache, flight, -1)) {
                flights_void(&shard->flights, flight);
            }
            flight = next;
        }
    }
}

static void visit_buckets_locked(struct cache *cache, struct shard *shard, struct shard_walk *walk,
                                 struct visitor *visitor, struct shard_work *work)
{
    uint32_t refs[TABLE_SLOTS];

    if (!walk->has_generation || walk->generation != shard->table.generation) {
        walk->has_generation = true;
        walk->generation = shard->table.generation;
        walk->bucket = 0;
    }
    const uint32_t end = walk->bucket + WALK_BUCKETS;
    for (; walk->bucket < end && walk->bucket < shard->table.now.n_buckets; walk->bucket++) {
        struct table_bucket *bucket = &shard->table.now.buckets[walk->bucket];
        unsigned n = table_bucket_refs(&shard->table, walk->bucket, refs);
        for (unsigned i = 0; i < n; i++) {
            __builtin_prefetch(entry_at(refs[i]));
        }
        if (NC_UNLIKELY(bucket->mark != shard->ban_mark)) {
            bans_settle_locked(cache, shard, bucket, work);
            n = table_bucket_refs(&shard->table, walk->bucket, refs);
        }
        for (unsigned i = 0; i < n; i++) {
            visit_entry_locked(cache, shard, entry_at(refs[i]), visitor, work);
        }
    }
}

/* One section. Returns true when it was the last one of the walk's shard: the next is at turn. */
static bool walk_step(struct cache *cache, struct shard_walk *walk, struct visitor *visitor)
{
    struct shard *shard = &cache->shards[walk->shard];
    struct shard_work work = {0};
    bool is_done = false;

    pthread_mutex_lock(&shard->lock);
    const int64_t began_us = bans_section_begin(cache);
    if (walk->head < shard->flights.n_heads) {
        visit_flights_locked(cache, shard, walk);
        walk->head += WALK_FLIGHT_HEADS;
    } else if (!table_is_moving(&shard->table)) {
        visit_buckets_locked(cache, shard, walk, visitor, &work);
        is_done = walk->bucket >= shard->table.now.n_buckets;
    }
    shard_plan_locked(cache, shard, TABLE_MOVES_PER_INSERT, &work);
    bans_section_end(cache, began_us);
    pthread_mutex_unlock(&shard->lock);
    shard_finish(cache, shard, &work);
    if (is_done) {
        *walk = (struct shard_walk){.shard = walk->shard + 1};
    }
    return is_done;
}

/* ---- sweep and clear ---- */

void cache_sweep(struct cache *cache, size_t n_buckets, int64_t now_us)
{
    struct visitor visitor = {.now_tick = entry_tick(now_us), .now_us = now_us};

    for (size_t n = 0; n < n_buckets; n += WALK_BUCKETS) {
        if (!cache->is_sweeping) {
            epochs_sweep_begin(cache->epochs);
            bans_pass_begin(cache);
            cache->is_sweeping = true;
        }
        if (walk_step(cache, &cache->sweep, &visitor) && cache->sweep.shard == cache->n_shards) {
            epochs_sweep_end(cache->epochs);
            bans_pass_end(cache);
            cache->is_sweeping = false;
            cache->sweep = (struct shard_walk){0};
        }
    }
}

size_t cache_sweep_quota(struct cache *cache, int64_t tick_us)
{
    const uint64_t n_buckets = atomic_load_explicit(&cache->n_buckets, memory_order_relaxed);
    const uint64_t per_tick = n_buckets * (uint64_t)tick_us / PASS_US + WALK_BUCKETS;

    return per_tick * (epochs_wants_sweep(cache->epochs) ? HURRY : 1);
}

/* ---- budget ---- */

static void set_budget(struct cache *cache, size_t budget)
{
    atomic_store_explicit(&cache->shard_budget, budget / cache->n_shards, memory_order_relaxed);
}

static size_t budget_of(const struct cache *cache)
{
    return atomic_load_explicit(&cache->shard_budget, memory_order_relaxed) * cache->n_shards;
}

void cache_set_limits(struct cache *cache, unsigned negative_percent, size_t max_flights)
{
    atomic_store_explicit(&cache->negative_percent, negative_percent, memory_order_relaxed);
    atomic_store_explicit(&cache->max_flights, max_flights, memory_order_relaxed);
}

void cache_set_maxmemory(struct cache *cache, size_t maxmemory)
{
    const size_t most = arena_range_bytes() / 3 * 2;

    if (maxmemory > most) {
        log_warn("cache", "maxmemory is more than the address space reserved at start allows",
                 "wanted_bytes=%zu used_bytes=%zu", maxmemory, most);
        maxmemory = most;
    }
    const size_t ceiling = atomic_load_explicit(&cache->ceiling, memory_order_relaxed);

    atomic_store_explicit(&cache->maxmemory, maxmemory, memory_order_relaxed);
    set_budget(cache, maxmemory < ceiling ? maxmemory : ceiling);
}

void cache_set_ceiling(struct cache *cache, size_t ceiling)
{
    atomic_store_explicit(&cache->ceiling, ceiling, memory_order_relaxed);
}

static size_t accounted(struct cache *cache)
{
    size_t sum = 0;

    for (unsigned i = 0; i < cache->n_shards; i++) {
        struct shard *shard = &cache->shards[i];
        pthread_mutex_lock(&shard->lock);
        sum += shard_used_locked(shard);
        pthread_mutex_unlock(&shard->lock);
    }
    return sum;
}

/* What is resident beyond the accounted bytes and the tolerated ones. */
static size_t excess_bytes(struct cache *cache, size_t tolerated)
{
    const size_t used = accounted(cache);
    struct arena_stats arena;

    arena_read_stats(&arena);
    return arena.resident_bytes > used + tolerated ? arena.resident_bytes - used - tolerated : 0;
}

/*
 * What the arena keeps resident beyond the accounted bytes (thin slabs, unused pages, jemalloc's
 * own structures) may be a sixteenth of maxmemory. Above that entries are moved together first, and
 * what is still missing then, the entries do without.
 */
static void adapt_budget(struct cache *cache)
{
    const size_t wanted = atomic_load_explicit(&cache->maxmemory, memory_order_relaxed);
    const size_t ceiling = atomic_load_explicit(&cache->ceiling, memory_order_relaxed);
    const size_t maxmemory = wanted < ceiling ? wanted : ceiling;
    const size_t tolerated = maxmemory / 16;
    const size_t present = budget_of(cache);
    size_t budget = maxmemory;

    size_t excess = excess_bytes(cache, tolerated);
    if (excess > 0) {
        shard_compact(cache, COMPACT_SECTIONS);
        arena_purge();
        excess = excess_bytes(cache, tolerated);
    }
    if (excess > 0) {
        budget = excess < maxmemory - maxmemory / 4 ? maxmemory - excess : maxmemory / 4;
    }
    /* Down at once, up slowly: what has been shrunk for stays so for a while. */
    if (budget > present + wanted / RESTORE_STEPS) {
        budget = present + wanted / RESTORE_STEPS;
    }
    set_budget(cache, budget);
}

static void shrink_to_budget(struct cache *cache, struct shard *shard, uint32_t now_tick)
{
    enum shard_room room = ROOM_LATER;

    for (unsigned i = 0; i < TICK_SECTIONS && room == ROOM_LATER; i++) {
        struct shard_work work = {0};

        pthread_mutex_lock(&shard->lock);
        room = shard_make_room_locked(cache, shard, 0, false, now_tick, &work);
        shard_plan_locked(cache, shard, TABLE_MOVES_PER_INSERT, &work);
        pthread_mutex_unlock(&shard->lock);
        shard_finish(cache, shard, &work);
    }
}

void cache_tick(struct cache *cache)
{
    const uint32_t now_tick = entry_tick(clock_now_us());

    arena_decay();
    adapt_budget(cache);
    for (unsigned i = 0; i < cache->n_shards; i++) {
        shrink_to_budget(cache, &cache->shards[i], now_tick);
    }
}

/* ---- figures ---- */

void cache_stats(struct cache *cache, struct cache_stats *stats)
{
    struct arena_stats arena;

    *stats = (struct cache_stats){
        .n_flights = atomic_load_explicit(&cache->n_flights, memory_order_relaxed),
        .budget_bytes = budget_of(cache),
        .maxmemory = atomic_load_explicit(&cache->maxmemory, memory_order_relaxed),
    };
    for (unsigned i = 0; i < cache->n_shards; i++) {
        struct shard *shard = &cache->shards[i];
        const struct policy_list *lists = shard->policy.lists;

        pthread_mutex_lock(&shard->lock);
        stats->n_entries += policy_count(&shard->policy);
        stats->n_negative += shard->n_negative;
        stats->n_views += shard->n_views;
        stats->accounted_bytes += shard_used_locked(shard);
        stats->metadata_bytes += shard->metadata_bytes + shard->overhead_bytes;
        stats->n_small += lists[POLICY_SMALL].n + lists[POLICY_NEGATIVE].n;
        stats->n_main += lists[POLICY_MAIN].n;
        pthread_mutex_unlock(&shard->lock);
    }
    arena_read_stats(&arena);
    stats->arena_resident_bytes = arena.resident_bytes;
    stats->arena_active_bytes = arena.active_bytes;
}

void cache_ns_stats(struct cache *cache, unsigned ns, uint64_t *n_entries, uint64_t *n_bytes)
{
    *n_entries = atomic_load_explicit(&cache->ns_entries[ns], memory_order_relaxed);
    *n_bytes = atomic_load_explicit(&cache->ns_bytes[ns], memory_order_relaxed);
}

/* Copies the arguments of one view. False: there is no room for them. */
static bool keep_args(struct cache_view_info *info, struct bytes args, unsigned char **storage,
                      size_t *left)
{
    if (args.len > *left) {
        return false;
    }
    if (args.len > 0) {
        memcpy(*storage, args.ptr, args.len);
    }
    info->args = bytes_make(*storage, args.len);
    *storage += args.len;
    *left -= args.len;
    return true;
}

/* The view's own, without the grace behind it. */
static int64_t shown_deadline(const struct cache *cache, const struct entry *entry,
                              const struct entry_view *view, int64_t now_us)
{
    const int64_t end_us = entry_deadline_us(view->deadline, now_us);
    const uint32_t grace = atomic_load_explicit(&cache->graces[entry->ns], memory_order_relaxed);

    return end_us == CACHE_NO_DEADLINE || (entry_view_marks(view) & ENTRY_GRACE) == 0
               ? end_us
               : end_us - (int64_t)grace * ENTRY_TICK_US;
}

unsigned cache_inspect(struct cache *cache, struct bytes key, uint32_t db, int64_t now_us,
                       struct cache_view_info *infos, unsigned max, unsigned char *args_storage,
                       size_t storage_size)
{
    const uint64_t key_hash = cache_hash(key);
    const uint32_t now_tick = entry_tick(now_us);
    struct shard *shard = shard_of(cache, key_hash);
    struct entry_view views[CACHE_VIEWS_MAX];
    unsigned n = 0;

    pthread_mutex_lock(&shard->lock);
    const uint32_t *slot = shard_find_locked(shard, entry_scoped_hash(key_hash, db), key, db);
    const struct entry *entry = slot != NULL ? entry_at(*slot) : NULL;
    const unsigned n_views = entry != NULL
                                 ? entry_views(entry, views,
                                               max < CACHE_VIEWS_MAX ? max : CACHE_VIEWS_MAX)
                                 : 0;
    const bool is_banned = slot != NULL &&
                           bans_match_entry(cache, shard, table_bucket_of(slot), entry, now_us);
    for (unsigned i = 0; i < n_views; i++) {
        infos[n] = (struct cache_view_info){
            .command = views[i].command,
            .reply_bytes = views[i].reply.len,
            .deadline_us = shown_deadline(cache, entry, &views[i], now_us),
            .is_negative = entry_is_negative(entry),
            .ns = entry->ns,
            .hits = entry->hits,
            .incarnation = entry->incarnation,
            .age_s = entry_age(entry->filled, now_us),
            .is_live = shard_state_of(cache, entry, now_tick) == STATE_LIVE && !is_banned &&
                       !entry_is_past(views[i].deadline, now_tick),
            .entry_bytes = entry_measure(entry).cost,
            .queue = policy_queue_of(entry) == POLICY_MAIN ? "main" : "small",
        };
        n += keep_args(&infos[n], views[i].args, &args_storage, &storage_size) ? 1 : 0;
    }
    pthread_mutex_unlock(&shard->lock);
    return n;
}
