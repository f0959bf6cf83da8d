#include "cache/shard.h"

#include "base/mem.h"
#include "base/stats.h"
#include "cache/hash.h"

struct victim_context {
    const struct cache *cache;
    uint32_t now_tick;
};

/* ---- what the policy and the table ask about entries ---- */

static size_t cost_of(const struct entry *entry)
{
    return entry_measure(entry).cost;
}

static bool is_dead(const void *context, const struct entry *entry)
{
    const struct victim_context *victims = context;

    return shard_state_of(victims->cache, entry, victims->now_tick) != STATE_LIVE;
}

static const struct policy_ops policy_ops = {
    .cost = cost_of, .hash = entry_hash, .is_dead = is_dead};

static uint64_t hash_of(uint32_t ref)
{
    return entry_hash(entry_at(ref));
}

/* ---- life ---- */

static void renew_overhead_locked(struct shard *shard)
{
    const size_t parts[] = {shard->table.now.n_bytes, shard->table.old.n_bytes,
                            shard->policy.ghost.now.n_bytes, shard->policy.ghost.old.n_bytes};
    size_t sum = sizeof(*shard) + shard->flights.n_heads * sizeof(struct cache_flight *);

    for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        sum += parts[i] > 0 ? arena_cost(parts[i]) : 0;
    }
    shard->overhead_bytes = sum;
}

void shard_init(struct shard *shard, struct cache *cache, struct table_bucket *buckets,
                unsigned n_flight_heads)
{
    pthread_mutexattr_t attributes;

    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ADAPTIVE_NP);
    pthread_mutex_init(&shard->lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
    table_init(&shard->table, hash_of, buckets, TABLE_MIN_BYTES);
    policy_init(&shard->policy, &policy_ops);
    flights_init(&shard->flights, n_flight_heads);
    atomic_fetch_add_explicit(&cache->n_buckets, shard->table.now.n_buckets, memory_order_relaxed);
    renew_overhead_locked(shard);
}

static void free_dropped(void *context, void *object, bool is_block)
{
    (void)context, (void)is_block;
    arena_free(object);
}

static void free_half(const struct table_half *half)
{
    for (uint32_t i = 0; i < half->n_buckets; i++) {
        for (unsigned slot = 0; slot < TABLE_SLOTS; slot++) {
            if (half->buckets[i].tags[slot] != 0) {
                struct entry *entry = entry_at(half->buckets[i].refs[slot]);
                entry_drop_views(entry, free_dropped, NULL);
                arena_free(entry);
            }
        }
    }
    arena_free(half->buckets);
}

void shard_fini(struct shard *shard)
{
    free_half(&shard->table.now);
    free_half(&shard->table.old);
    arena_free(shard->policy.ghost.now.slots);
    arena_free(shard->policy.ghost.old.slots);
    flights_fini(&shard->flights);
    for (unsigned i = 0; i < SHARD_PIN_HEADS; i++) {
        while (shard->pins[i] != NULL) {
            struct shard_pins *pins = shard->pins[i];
            shard->pins[i] = pins->next;
            mem_free(pins);
        }
    }
    pthread_mutex_destroy(&shard->lock);
}

uint32_t shard_stale_left(const struct cache *cache, const struct entry *entry, uint32_t deadline,
                          uint32_t now_tick)
{
    const uint32_t bound = atomic_load_explicit(&cache->ns_stale_ticks[entry->ns],
                                                memory_order_relaxed);
    const struct epochs_incarnation *incarnation = &cache->incarnations[entry->incarnation];
    uint32_t age;

    if (NC_LIKELY(bound == 0) || (!epochs_is_live(incarnation) && !epochs_is_lapsed(incarnation)) ||
        (epochs_has_moves(incarnation) &&
         epochs_has_moved(incarnation, shard_slot(cache, entry_key(entry)))) ||
        entry_db(entry) >= CACHE_OWN_DBS) {
        return 0;
    }
    /* Acquire: as in find_valid_locked(). */
    age = now_tick -
          entry_tick(atomic_load_explicit(&incarnation->watermark_us, memory_order_acquire));
    if ((int32_t)age < 0) {
        age = 0;
    }
    if (entry_is_past(deadline, now_tick) && now_tick - deadline > age) {
        age = now_tick - deadline;
    }
    return age < bound ? bound - age : 0;
}

enum entry_state shard_state_of(const struct cache *cache, const struct entry *entry,
                                uint32_t now_tick)
{
    const bool has_ended = shard_has_ended(cache, entry->incarnation, entry_key(entry));

    if (NC_LIKELY(!has_ended && !entry_is_past(entry->deadline, now_tick))) {
        return STATE_LIVE;
    }
    if (shard_stale_left(cache, entry, entry->deadline, now_tick) > 0) {
        return STATE_KEPT;
    }
    return has_ended ? STATE_ENDED : STATE_EXPIRED;
}

uint32_t shard_next_db_locked(const struct cache *cache, const struct shard *shard, uint32_t db)
{
    if (shard->n_scoped == 0) {
        return 0;
    }
    for (uint32_t next = db + 1; next < CACHE_DBS;) {
        const uint64_t word = atomic_load_explicit(&cache->dbs[next / 64], memory_order_relaxed) >>
                              next % 64;

        if (word != 0) {
            return next + (uint32_t)__builtin_ctzll(word);
        }
        next = (next / 64 + 1) * 64;
    }
    return 0;
}

/* ---- bytes ---- */

size_t shard_entry_budget_locked(const struct cache *cache, const struct shard *shard)
{
    const size_t budget = atomic_load_explicit(&cache->shard_budget, memory_order_relaxed);
    const size_t taken = shard->overhead_bytes + shard->detached_bytes;

    return budget > taken ? budget - taken : 0;
}

struct entry_sizes shard_uncount_locked(struct cache *cache, struct shard *shard,
                                        const struct entry *entry)
{
    const struct entry_sizes sizes = entry_measure(entry);

    shard->metadata_bytes -= sizes.metadata;
    shard->n_views -= sizes.n_views;
    shard->n_scoped -= (entry->flags & ENTRY_SCOPED) != 0 ? 1 : 0;
    if (entry_is_negative(entry)) {
        shard->negative_bytes -= sizes.cost;
        shard->n_negative--;
    }
    atomic_fetch_sub_explicit(&cache->ns_entries[entry->ns], 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&cache->ns_bytes[entry->ns], sizes.cost, memory_order_relaxed);
    return sizes;
}

struct entry_sizes shard_count_locked(struct cache *cache, struct shard *shard,
                                      const struct entry *entry)
{
    const struct entry_sizes sizes = entry_measure(entry);

    shard->metadata_bytes += sizes.metadata;
    shard->n_views += sizes.n_views;
    shard->n_scoped += (entry->flags & ENTRY_SCOPED) != 0 ? 1 : 0;
    if (entry_is_negative(entry)) {
        shard->negative_bytes += sizes.cost;
        shard->n_negative++;
    }
    atomic_fetch_add_explicit(&cache->ns_entries[entry->ns], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&cache->ns_bytes[entry->ns], sizes.cost, memory_order_relaxed);
    return sizes;
}

/* ---- removing ---- */

/* Entries and blocks begin with the field that links them here. */
_Static_assert(offsetof(struct entry, next) == 0 && offsetof(struct entry_block, next) == 0,
               "trash is linked by the first field");

void shard_drop_locked(struct shard *shard, struct shard_work *work, void *object, bool is_block)
{
    if (entry_pins(object, is_block) > 0) {
        entry_set_detached(object, is_block);
        shard->detached_bytes += entry_object_cost(object, is_block);
        return;
    }
    memcpy(object, &work->trash, sizeof(work->trash));
    work->trash = arena_ref_of(object);
}

struct drop_context {
    struct shard *shard;
    struct shard_work *work;
};

static void drop_one(void *context, void *object, bool is_block)
{
    const struct drop_context *drop = context;

    shard_drop_locked(drop->shard, drop->work, object, is_block);
}

static bool is_same(uint32_t ref, const void *what)
{
    return ref == *(const uint32_t *)what;
}

static void drop_entry_locked(struct cache *cache, struct shard *shard, struct entry *entry,
                              uint64_t hash, struct shard_work *work)
{
    struct drop_context drop = {shard, work};
    const uint32_t ref = arena_ref_of(entry);
    const uint32_t *slot = table_find(&shard->table, hash, is_same, &ref);

    CHECK(slot != NULL);
    bans_note_gone_locked(cache, shard, table_bucket_of(slot), entry);
    table_erase(&shard->table, hash, slot);
    entry_drop_views(entry, drop_one, &drop);
    shard_drop_locked(shard, work, entry, false);
}

void shard_remove_locked(struct cache *cache, struct shard *shard, struct entry *entry,
                         uint64_t hash, struct shard_work *work)
{
    const struct entry_sizes sizes = shard_uncount_locked(cache, shard, entry);

    policy_remove(&shard->policy, entry, sizes.cost);
    drop_entry_locked(cache, shard, entry, hash, work);
}

static void count_dead(const struct entry *entry, enum entry_state state)
{
    if (state == STATE_EXPIRED) {
        stats_ns_add(entry->ns, NS_METRIC_expirations, 1);
        stats_add(METRIC_invalidations_ttl, 1);
    } else if (state != STATE_LIVE) {
        stats_add(METRIC_invalidations_epoch, 1);
    }
}

void shard_remove_dead_locked(struct cache *cache, struct shard *shard, struct entry *entry,
                              uint64_t hash, enum entry_state state, struct shard_work *work)
{
    count_dead(entry, state);
    shard_remove_locked(cache, shard, entry, hash, work);
}

void shard_remove_view_locked(struct cache *cache, struct shard *shard, struct entry *entry,
                              const struct entry_view *view, struct shard_work *work)
{
    struct drop_context drop = {shard, work};
    const struct entry_sizes before = shard_uncount_locked(cache, shard, entry);

    entry_drop_view(entry, view->object, drop_one, &drop);
    const struct entry_sizes after = shard_count_locked(cache, shard, entry);
    policy_resize(&shard->policy, entry, before.cost, after.cost);
}

/* What the policy has taken out of its queues. */
static void finish_victim_locked(struct cache *cache, struct shard *shard, struct entry *victim,
                                 uint32_t now_tick, struct shard_work *work)
{
    const enum entry_state state = shard_state_of(cache, victim, now_tick);

    if (state == STATE_LIVE) {
        stats_ns_add(victim->ns, NS_METRIC_evictions, 1);
        gone_put(&shard->gone, entry_hash(victim), GONE_EVICTED);
        stats_add(METRIC_invalidations_capacity, 1);
    } else {
        count_dead(victim, state);
    }
    (void)shard_uncount_locked(cache, shard, victim);
    drop_entry_locked(cache, shard, victim, entry_hash(victim), work);
}

static bool fits_locked(const struct cache *cache, const struct shard *shard, size_t need)
{
    const size_t budget = atomic_load_explicit(&cache->shard_budget, memory_order_relaxed);
    const size_t used = shard_used_locked(shard);

    return used <= budget && need <= budget - used;
}

static bool fits_negative_locked(const struct cache *cache, const struct shard *shard, size_t need)
{
    const size_t budget = atomic_load_explicit(&cache->shard_budget, memory_order_relaxed);
    const size_t limit = budget / 100 *
                         atomic_load_explicit(&cache->negative_percent, memory_order_relaxed);

    return shard->negative_bytes <= limit && need <= limit - shard->negative_bytes;
}

enum shard_room shard_make_room_locked(struct cache *cache, struct shard *shard, size_t need,
                                       bool is_negative, uint32_t now_tick, struct shard_work *work)
{
    const struct victim_context context = {cache, now_tick};
    unsigned n_touched = 0;

    for (;;) {
        const bool has_share = !is_negative || fits_negative_locked(cache, shard, need);
        struct entry *victim;

        if (has_share && fits_locked(cache, shard, need)) {
            return ROOM_MADE;
        }
        if (n_touched >= SHARD_TOUCH_MAX) {
            return ROOM_LATER;
        }
        if (has_share) {
            victim = policy_evict(&shard->policy, shard_entry_budget_locked(cache, shard), &context,
                                  &n_touched);
        } else {
            victim = policy_evict_negative(&shard->policy, &context, &n_touched);
        }
        if (victim == NULL) {
            return ROOM_NONE;
        }
        finish_victim_locked(cache, shard, victim, now_tick, work);
    }
}

/* ---- leaving the lock ---- */

/* What moves next has been judged by every ban, so that it does no harm to its new bucket's mark.
 */
static void judge_moving_locked(struct cache *cache, struct shard *shard, unsigned n,
                                struct shard_work *work)
{
    const struct table_half *old = &shard->table.old;

    for (uint32_t i = shard->table.n_moved; n > 0 && i < old->n_buckets; n--, i++) {
        if (NC_UNLIKELY(old->buckets[i].mark != shard->ban_mark)) {
            bans_settle_locked(cache, shard, &old->buckets[i], work);
        }
    }
}

void shard_plan_locked(struct cache *cache, struct shard *shard, unsigned n_moves,
                       struct shard_work *work)
{
    if (n_moves > 0 && table_is_moving(&shard->table) && work->retired_table == NULL) {
        const uint32_t n_buckets = shard->table.old.n_buckets;

        judge_moving_locked(cache, shard, n_moves, work);
        work->retired_table = table_move(&shard->table, n_moves);
        if (work->retired_table != NULL) {
            atomic_fetch_sub_explicit(&cache->n_buckets, n_buckets, memory_order_relaxed);
            renew_overhead_locked(shard);
        }
    }
    if (work->retired_ghost == NULL) {
        work->retired_ghost = policy_retire_ghost(&shard->policy);
        if (work->retired_ghost != NULL) {
            renew_overhead_locked(shard);
        }
    }
    if (!shard->is_resizing) {
        work->wanted_table = table_wanted_bytes(&shard->table);
        work->wanted_ghost = policy_wanted_ghost(&shard->policy,
                                                 shard_entry_budget_locked(cache, shard));
        shard->is_resizing = work->wanted_table > 0 || work->wanted_ghost > 0;
    }
}

static void resize(struct cache *cache, struct shard *shard, const struct shard_work *work)
{
    struct table_bucket *buckets = work->wanted_table > 0 ? arena_alloc_table(work->wanted_table)
                                                          : NULL;
    uint32_t *slots = work->wanted_ghost > 0 ? arena_alloc_table(work->wanted_ghost) : NULL;

    pthread_mutex_lock(&shard->lock);
    if (buckets != NULL) {
        table_install(&shard->table, buckets, work->wanted_table);
        atomic_fetch_add_explicit(&cache->n_buckets, shard->table.now.n_buckets,
                                  memory_order_relaxed);
    }
    if (slots != NULL) {
        policy_install_ghost(&shard->policy, slots, work->wanted_ghost,
                             shard_entry_budget_locked(cache, shard));
    }
    renew_overhead_locked(shard);
    shard->is_resizing = false;
    pthread_mutex_unlock(&shard->lock);
}

void shard_finish(struct cache *cache, struct shard *shard, struct shard_work *work)
{
    while (work->trash != ARENA_NONE) {
        void *object = arena_at(work->trash);
        memcpy(&work->trash, object, sizeof(work->trash));
        arena_free(object);
    }
    arena_free(work->retired_table);
    arena_free(work->retired_ghost);
    if (work->wanted_table > 0 || work->wanted_ghost > 0) {
        resize(cache, shard, work);
    }
    *work = (struct shard_work){0};
}

/* ---- readers of large replies ---- */

/*
 * What a reader holds is no pointer but three numbers in one: reference, kind, shard. The readers
 * of an object are counted in 4 bits of it; from the 15th on in a list beside the shard's table.
 */
#define TOKEN_BLOCK_BIT 32
#define TOKEN_SHARD_BIT 33

static struct shard_pins **find_pins(struct shard *shard, arena_ref object)
{
    struct shard_pins **at = &shard->pins[object % SHARD_PIN_HEADS];

    while (*at != NULL && (*at)->object != object) {
        at = &(*at)->next;
    }
    return at;
}

static void add_pin_locked(struct shard *shard, arena_ref ref, bool is_block)
{
    void *object = arena_at(ref);
    const unsigned n = entry_pins(object, is_block);

    if (n < ENTRY_PINS_MAX) {
        entry_set_pins(object, is_block, n + 1);
    }
    if (n + 1 == ENTRY_PINS_MAX) {
        struct shard_pins *pins = mem_alloc(sizeof(*pins));
        struct shard_pins **head = &shard->pins[ref % SHARD_PIN_HEADS];
        *pins = (struct shard_pins){.object = ref, .n = ENTRY_PINS_MAX, .next = *head};
        *head = pins;
    } else if (n == ENTRY_PINS_MAX) {
        (*find_pins(shard, ref))->n++;
    }
}

/* Returns how many are left, up to ENTRY_PINS_MAX. */
static unsigned take_pin_locked(struct shard *shard, arena_ref ref, bool is_block)
{
    void *object = arena_at(ref);
    unsigned n = entry_pins(object, is_block);

    CHECK(n > 0);
    if (n == ENTRY_PINS_MAX) {
        struct shard_pins **at = find_pins(shard, ref);
        struct shard_pins *pins = *at;

        if (--pins->n >= ENTRY_PINS_MAX) {
            return n;
        }
        *at = pins->next;
        mem_free(pins);
    }
    entry_set_pins(object, is_block, --n);
    return n;
}

struct cache_entry *shard_pin_locked(struct cache *cache, struct shard *shard,
                                     const struct entry_view *view)
{
    const uint64_t index = (uint64_t)(shard - cache->shards);
    const uint64_t token = index << TOKEN_SHARD_BIT | (uint64_t)view->is_block << TOKEN_BLOCK_BIT |
                           view->object;

    add_pin_locked(shard, view->object, view->is_block);
    return (struct cache_entry *)(uintptr_t)token;
}

void cache_unpin(struct cache *cache, struct cache_entry *pinned)
{
    const uint64_t token = (uintptr_t)pinned;
    struct shard *shard = &cache->shards[token >> TOKEN_SHARD_BIT];
    const bool is_block = (token >> TOKEN_BLOCK_BIT & 1) != 0;
    const arena_ref ref = (arena_ref)token;
    void *object = arena_at(ref);
    bool is_last = false;

    pthread_mutex_lock(&shard->lock);
    if (take_pin_locked(shard, ref, is_block) == 0 && entry_is_detached(object, is_block)) {
        is_last = true;
        shard->detached_bytes -= entry_object_cost(object, is_block);
    }
    pthread_mutex_unlock(&shard->lock);
    if (is_last) {
        arena_free(object);
    }
}
