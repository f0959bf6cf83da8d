/*
 * A key's record (docs/coherence.md, flights) is spread: its entries, one per database, say the
 * incarnation of its home, and its flights stand on the shard's chain. All of it is under the lock
 * of the shard that the key's hash chooses, and each operation is one section under that lock.
 */
#include "cache/cache.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/stats.h"
#include "cache/hash.h"
#include "cache/hot_keys.h"
#include "cache/shard.h"

#define SHARD_MIN_BYTES ((size_t)16 << 20)
#define MAXMEMORY_MIN ((size_t)1 << 20)
#define MAXMEMORY_MAX ((size_t)48 << 30)
/* Sections spent on making room for one fill: enough for 64 MiB of small entries. */
#define ROOM_ROUNDS_MAX 4096u

static const struct bytes null_reply = {(const unsigned char *)"_\r\n", 3};

/* ---- life ---- */

static unsigned choose_shards(const struct cache_options *options)
{
    unsigned n = 1;

    if (options->n_shards != 0) {
        return options->n_shards;
    }
    while (n < SHARDS_MAX && options->maxmemory / (2 * n) >= SHARD_MIN_BYTES) {
        n *= 2;
    }
    return n;
}

static unsigned choose_flight_heads(const struct cache_options *options, unsigned n_shards)
{
    unsigned n = 16;

    while (n < 128 && (size_t)n * n_shards * 8 < options->max_flights) {
        n *= 2;
    }
    return n;
}

static int make_shards(struct cache *cache, unsigned n_shards, unsigned n_heads)
{
    const size_t size = n_shards * sizeof(struct shard);

    cache->shards = aligned_alloc(_Alignof(struct shard), size);
    if (cache->shards == NULL) {
        return -ENOMEM;
    }
    memset(cache->shards, 0, size);
    for (unsigned i = 0; i < n_shards; i++) {
        struct table_bucket *buckets = arena_alloc_table(TABLE_MIN_BYTES);

        if (buckets == NULL) {
            return -ENOMEM;
        }
        shard_init(&cache->shards[i], cache, buckets, n_heads);
        cache->n_shards = i + 1;
    }
    return 0;
}

int cache_new(const struct cache_options *options, struct cache **cache)
{
    const unsigned n_shards = choose_shards(options);

    if (options->maxmemory < MAXMEMORY_MIN || options->maxmemory > MAXMEMORY_MAX ||
        n_shards > SHARDS_MAX || (n_shards & (n_shards - 1)) != 0 ||
        options->negative_percent > 100) {
        return -EINVAL;
    }
    hash_seed();
    if (arena_init(options->maxmemory) != 0) {
        return -ENOMEM;
    }
    struct cache *made = mem_alloc(sizeof(*made));
    atomic_init(&made->negative_percent, options->negative_percent);
    atomic_init(&made->max_flights, options->max_flights);
    atomic_init(&made->maxmemory, options->maxmemory);
    atomic_init(&made->ceiling, SIZE_MAX);
    atomic_init(&made->shard_budget, options->maxmemory / n_shards);
    bans_init(made);
    made->epochs = epochs_new();
    if (made->epochs == NULL ||
        make_shards(made, n_shards, choose_flight_heads(options, n_shards)) != 0) {
        cache_free(&made);
        return -ENOMEM;
    }
    made->incarnations = epochs_at(made->epochs, 0);
    *cache = made;
    return 0;
}

void cache_free(struct cache **cache)
{
    struct cache *gone = *cache;

    *cache = NULL;
    if (gone == NULL) {
        return;
    }
    for (unsigned i = 0; i < gone->n_shards; i++) {
        shard_fini(&gone->shards[i]);
    }
    free(gone->shards);
    bans_fini(gone);
    epochs_free(&gone->epochs);
    mem_free(gone);
}

struct epochs *cache_epochs(struct cache *cache)
{
    return cache->epochs;
}

void cache_set_slot_function(struct cache *cache, cache_slot_fn slot_of)
{
    atomic_store_explicit(&cache->slot_of, slot_of, memory_order_relaxed);
}

uint64_t cache_hash(struct bytes key)
{
    return hash_key(key);
}

/* ---- hit ---- */

static bool is_cacheable(const struct cache_query *query)
{
    return query->key.len <= CACHE_KEY_MAX && query->args.len <= CACHE_ARGS_MAX &&
           query->db < CACHE_DBS && query->command <= ENTRY_COMMAND_MAX;
}

/* The usual case without a look at lists: GET's view behind the key. */
static inline bool find_view(const struct entry *entry, const struct cache_query *query,
                             struct entry_view *view)
{
    if (NC_LIKELY((entry->flags & (ENTRY_FIRST | ENTRY_MORE)) == ENTRY_FIRST &&
                  query->command == 0 && query->args.len == 0)) {
        *view = (struct entry_view){.object = arena_ref_of(entry),
                                    .encoding = entry_body_encoding(entry->body),
                                    .deadline = entry->deadline,
                                    .reply = entry_own_reply(entry)};
        return true;
    }
    return entry_find_view(entry, query->command, query->args, view);
}

/* Ticks before the end of an entry from which hits say that it is near. */
static inline uint32_t margin_of(const struct cache *cache, const struct entry *entry)
{
    return atomic_load_explicit(&cache->margins[entry->ns], memory_order_relaxed);
}

/* Its end is within the margin of its namespace: how far away is its deadline? */
static bool __attribute__((noinline))
tell_near(const struct cache *cache, const struct entry *entry, const struct entry_view *view,
          int64_t now_us, struct cache_hit *hit)
{
    const uint32_t grace = atomic_load_explicit(&cache->graces[entry->ns], memory_order_relaxed);
    const bool has_grace = (entry_view_marks(view) & ENTRY_GRACE) != 0;
    const int64_t left_us = entry_deadline_us(view->deadline, now_us) - now_us -
                            (has_grace ? (int64_t)grace * ENTRY_TICK_US : 0);

    hit->is_renewable = (entry_view_marks(view) & ENTRY_RENEWABLE) != 0;
    hit->incarnation = entry->incarnation;
    hit->left_us = left_us;
    return left_us <= (int64_t)(margin_of(cache, entry) - grace) * ENTRY_TICK_US;
}

void cache_set_margin(struct cache *cache, unsigned ns, int64_t early_us, int64_t grace_us)
{
    /* What lives longer than the ticks of half a year is not told apart anyway. */
    const int64_t grace = (grace_us + ENTRY_TICK_US - 1) / ENTRY_TICK_US;
    const int64_t margin = grace + (early_us + ENTRY_TICK_US - 1) / ENTRY_TICK_US;

    atomic_store_explicit(&cache->graces[ns], (uint32_t)grace, memory_order_relaxed);
    atomic_store_explicit(&cache->margins[ns], (uint32_t)margin, memory_order_relaxed);
}

static enum cache_miss why_gone_locked(struct shard *shard, uint64_t hash)
{
    switch (gone_why(&shard->gone, hash)) {
    case GONE_INVALIDATED:
        return CACHE_INVALIDATED;
    case GONE_EVICTED:
        return CACHE_EVICTED;
    case GONE_UNKNOWN:
        break;
    }
    return CACHE_COLD;
}

/* The view, if it may be served; otherwise *miss, and what will never be served again is gone. */
static inline struct entry *find_valid_locked(struct cache *cache, struct shard *shard,
                                              const struct cache_query *query,
                                              struct entry_view *view, enum cache_miss *miss,
                                              struct shard_work *work)
{
    const uint64_t hash = entry_scoped_hash(query->hash, query->db);
    const uint32_t *slot = shard_find_judged_locked(cache, shard, hash, query->key, query->db,
                                                    work);
    const uint32_t now_tick = entry_tick(query->now_us);

    *miss = CACHE_COLD;
    if (slot == NULL) {
        *miss = why_gone_locked(shard, hash);
        return NULL;
    }
    struct entry *entry = entry_at(*slot);
    if (NC_UNLIKELY(shard_has_ended(cache, entry->incarnation, query->key))) {
        *miss = CACHE_EPOCH;
        if (shard_stale_left(cache, entry, entry->deadline, now_tick) == 0) {
            shard_remove_dead_locked(cache, shard, entry, hash, STATE_ENDED, work);
        }
        return NULL;
    }
    if (NC_UNLIKELY(!find_view(entry, query, view))) {
        return NULL;
    }
    if (NC_UNLIKELY(entry_is_past(view->deadline, now_tick + margin_of(cache, entry)))) {
        if (entry_is_past(view->deadline, now_tick)) {
            *miss = CACHE_EXPIRED;
            if (shard_stale_left(cache, entry, view->deadline, now_tick) > 0) {
                return NULL;
            }
            if (entry_is_past(entry->deadline, now_tick)) {
                shard_remove_dead_locked(cache, shard, entry, hash, STATE_EXPIRED, work);
            } else {
                shard_remove_view_locked(cache, shard, entry, view, work);
            }
            return NULL;
        }
        *miss = CACHE_NEAR;
    }
    /*
     * Acquire: partner is the store in epochs_advance(). All invalidations of writes before the
     * watermark are applied under this lock before it is stored, so what is found here outlived
     * them.
     */
    const int64_t watermark_us = atomic_load_explicit(
        &cache->incarnations[entry->incarnation].watermark_us, memory_order_acquire);
    if (NC_UNLIKELY(query->now_us - watermark_us > query->max_staleness_us)) {
        *miss = CACHE_STALE;
        return NULL;
    }
    return entry;
}

static inline void give_locked(struct cache *cache, struct shard *shard, struct entry *entry,
                               struct entry_view *view, unsigned char *copy_to,
                               struct cache_hit *hit)
{
    policy_hit(entry);
    hit->ns = entry->ns;
    hit->is_negative = entry_is_negative(entry);
    hit->encoding = view->encoding;
    hit->pinned = NULL;
    if (NC_UNLIKELY(view->reply.len == 0)) {
        /* Only a negative view of GET holds no reply. */
        view->reply = null_reply;
        hit->encoding = CACHE_RESP3;
    }
    if (NC_LIKELY(view->reply.len <= CACHE_COPY_MAX)) {
        memcpy(copy_to, view->reply.ptr, view->reply.len);
        hit->reply = bytes_make(copy_to, view->reply.len);
    } else {
        hit->reply = view->reply;
        hit->pinned = shard_pin_locked(cache, shard, view);
    }
}

static inline bool hit_locked(struct cache *cache, struct shard *shard,
                              const struct cache_query *query, unsigned char *copy_to,
                              struct cache_hit *hit, enum cache_miss *miss, struct shard_work *work)
{
    struct entry_view view;
    struct entry *entry = find_valid_locked(cache, shard, query, &view, miss, work);

    if (entry == NULL) {
        return false;
    }
    if (NC_UNLIKELY(*miss != CACHE_COLD) && !tell_near(cache, entry, &view, query->now_us, hit)) {
        *miss = CACHE_COLD;
    }
    give_locked(cache, shard, entry, &view, copy_to, hit);
    return true;
}

bool cache_get(struct cache *cache, const struct cache_query *query, unsigned char *copy_to,
               struct cache_hit *hit, enum cache_miss *miss)
{
    struct shard *shard = shard_of(cache, query->hash);
    struct shard_work work = {0};

    if (NC_UNLIKELY(!is_cacheable(query))) {
        *miss = CACHE_COLD;
        return false;
    }
    pthread_mutex_lock(&shard->lock);
    const bool is_hit = hit_locked(cache, shard, query, copy_to, hit, miss, &work);
    pthread_mutex_unlock(&shard->lock);
    /* A hit leaves some as well where bans had its bucket judged. */
    if (NC_UNLIKELY(!is_hit || work.trash != ARENA_NONE)) {
        shard_finish(cache, shard, &work);
    }
    return is_hit;
}

/* ---- while the node cannot be asked ---- */

void cache_set_stale(struct cache *cache, const int64_t *stale_ms, unsigned n)
{
    int64_t longest_ms = 0;

    for (unsigned i = 0; i < 256; i++) {
        const int64_t bound_ms = i < n ? stale_ms[i] : 0;

        longest_ms = bound_ms > longest_ms ? bound_ms : longest_ms;
        atomic_store_explicit(&cache->ns_stale_ticks[i], entry_tick(bound_ms * 1000),
                              memory_order_relaxed);
    }
    epochs_keep_lapsed(cache->epochs, longest_ms * 1000);
}

bool cache_get_stale(struct cache *cache, const struct cache_query *query, unsigned char *copy_to,
                     struct cache_hit *hit, int64_t *left_us)
{
    const uint64_t hash = entry_scoped_hash(query->hash, query->db);
    const uint32_t now_tick = entry_tick(query->now_us);
    struct shard *shard = shard_of(cache, query->hash);
    struct shard_work work = {0};
    struct entry_view view;
    uint32_t left = 0;

    if (!is_cacheable(query)) {
        return false;
    }
    pthread_mutex_lock(&shard->lock);
    const uint32_t *slot = shard_find_judged_locked(cache, shard, hash, query->key, query->db,
                                                    &work);
    struct entry *entry = slot != NULL ? entry_at(*slot) : NULL;
    if (entry != NULL && find_view(entry, query, &view)) {
        left = shard_stale_left(cache, entry, view.deadline, now_tick);
    }
    if (left > 0) {
        give_locked(cache, shard, entry, &view, copy_to, hit);
    }
    pthread_mutex_unlock(&shard->lock);
    shard_finish(cache, shard, &work);
    *left_us = (int64_t)left * ENTRY_TICK_US;
    return left > 0;
}

/* ---- flights ---- */

/* It could not fill: its link's incarnation has ended, its slot has a new owner, or it is banned.
 */
static bool has_flight_ended(const struct cache *cache, const struct cache_flight *flight, int ns)
{
    return !epochs_is_live(&cache->incarnations[flight->incarnation]) ||
           epochs_slot_word(cache->epochs, flight->slot) != flight->slot_word ||
           bans_match_flight(cache, flight, ns);
}

static void void_ended_flights_locked(struct cache *cache, struct shard *shard,
                                      const struct cache_query *query)
{
    struct cache_flight *flight = flights_next_of_key(&shard->flights, query->hash, query->key,
                                                      NULL);

    while (flight != NULL) {
        struct cache_flight *next = flights_next_of_key(&shard->flights, query->hash, query->key,
                                                        flight);
        if (has_flight_ended(cache, flight, -1)) {
            flights_void(&shard->flights, flight);
        }
        flight = next;
    }
}

/*
 * The incarnation that all views and live flights of the key and user belong to, or EPOCHS_NONE.
 * Dead entries met on the way go, and ended flights have gone before.
 */
static uint16_t home_locked(struct cache *cache, struct shard *shard,
                            const struct cache_query *query, struct shard_work *work)
{
    const unsigned user = cache_scope_user(query->db);
    const struct cache_flight *flight = NULL;
    uint32_t db = 0;

    do {
        flight = flights_next_of_key(&shard->flights, query->hash, query->key, flight);
    } while (flight != NULL && cache_scope_user(flight->db) != user);
    if (flight != NULL) {
        return flight->incarnation;
    }
    do {
        const uint64_t hash = entry_scoped_hash(query->hash, db);
        const uint32_t *slot = cache_scope_user(db) == user
                                   ? shard_find_judged_locked(cache, shard, hash, query->key, db,
                                                              work)
                                   : NULL;

        if (slot != NULL) {
            struct entry *entry = entry_at(*slot);
            const enum entry_state state = shard_state_of(cache, entry, entry_tick(query->now_us));
            if (state == STATE_LIVE) {
                return entry->incarnation;
            }
            if (state != STATE_KEPT) {
                shard_remove_dead_locked(cache, shard, entry, hash, state, work);
            }
        }
        db = shard_next_db_locked(cache, shard, db);
    } while (db != 0);
    return EPOCHS_NONE;
}

static bool may_join(const struct cache_query *query, const struct cache_offer *offer,
                     const struct cache_flight *flight, unsigned max_waiters)
{
    return flight->n_waiters < max_waiters &&
           query->now_us - flight->t_sent_us <= query->max_staleness_us &&
           (offer->n_own == 0 || flight == offer->own[offer->n_own - 1]);
}

static void join_locked(struct cache_flight *flight, struct cache_waiter *waiter)
{
    waiter->next = flight->waiters;
    flight->waiters = waiter;
    flight->n_waiters++;
}

static struct shard_note *note_of(struct shard *shard, uint64_t hash)
{
    return &shard->notes[(hash >> 32) % SHARD_NOTES];
}

static bool is_oversized_locked(struct shard *shard, const struct cache_query *query)
{
    const struct shard_note *note = note_of(shard, query->hash);

    return note->until_tick != 0 && note->hash == (uint32_t)query->hash &&
           !entry_is_past(note->until_tick, entry_tick(query->now_us));
}

static bool are_own_live_locked(const struct shard *shard, const struct cache_query *query,
                                const struct cache_offer *offer)
{
    for (unsigned i = 0; i < offer->n_own; i++) {
        if (!flights_have(&shard->flights, query->hash, offer->own[i])) {
            return false;
        }
    }
    return true;
}

/* Completes flight and puts it on the chain, if the record and the offer allow it. */
static bool begin_locked(struct cache *cache, struct shard *shard, const struct cache_query *query,
                         const struct cache_offer *offer, struct cache_flight *flight,
                         struct shard_work *work)
{
    const uint16_t home = home_locked(cache, shard, query, work);
    const uint16_t number = home != EPOCHS_NONE ? home : offer->incarnation;
    struct epochs_incarnation *incarnation = &cache->incarnations[number];
    const uint32_t word = epochs_slot_word(cache->epochs, flight->slot);

    if (is_oversized_locked(shard, query) || epochs_slot_owner(word) != offer->node ||
        !epochs_use(incarnation)) {
        return false;
    }
    /* The number may have ended and be another link's by now. */
    const uint8_t worker = atomic_load_explicit(&incarnation->worker, memory_order_relaxed);
    const bool is_shared = atomic_load_explicit(&incarnation->shared, memory_order_relaxed) != 0;
    if (atomic_load_explicit(&incarnation->node, memory_order_relaxed) != offer->node ||
        (number == offer->incarnation && worker != offer->worker && !is_shared)) {
        return false;
    }
    /* A shared one has no link that all of the key's fetches are on: there is nobody to ask. */
    if (is_shared && number != offer->incarnation) {
        return false;
    }
    /* Acquire: as in find_valid_locked(). */
    if (query->now_us - atomic_load_explicit(&incarnation->watermark_us, memory_order_acquire) >
        query->max_staleness_us) {
        return false;
    }
    if (offer->n_own > 0 &&
        (number != offer->incarnation || !are_own_live_locked(shard, query, offer))) {
        return false;
    }
    flight->incarnation = number;
    flight->worker = is_shared ? offer->worker : worker;
    flight->slot_word = word;
    flight->ban_serial = shard->ban_serial;
    flights_add(&shard->flights, flight);
    return true;
}

static bool take_flight_number(struct cache *cache)
{
    if (atomic_fetch_add_explicit(&cache->n_flights, 1, memory_order_relaxed) <
        atomic_load_explicit(&cache->max_flights, memory_order_relaxed)) {
        return true;
    }
    atomic_fetch_sub_explicit(&cache->n_flights, 1, memory_order_relaxed);
    stats_add(METRIC_flights_refused, 1);
    return false;
}

static void give_flight_number(struct cache *cache)
{
    atomic_fetch_sub_explicit(&cache->n_flights, 1, memory_order_relaxed);
}

/* fresh: a flight that may be begun, or NULL. */
static enum cache_outcome
join_or_begin_locked(struct cache *cache, struct shard *shard, const struct cache_query *query,
                     const struct cache_offer *offer, unsigned max_waiters,
                     struct cache_waiter *waiter, struct cache_flight *fresh,
                     struct cache_flight **joined, struct shard_work *work)
{
    void_ended_flights_locked(cache, shard, query);
    struct cache_flight *flight = flights_find(&shard->flights, query);

    if (flight != NULL) {
        if (!may_join(query, offer, flight, max_waiters)) {
            if (flight->n_waiters >= max_waiters) {
                stats_add(METRIC_waiters_refused, 1);
            }
            return CACHE_RELAY;
        }
        join_locked(flight, waiter);
        *joined = flight;
        return CACHE_JOINED;
    }
    if (fresh == NULL || !begin_locked(cache, shard, query, offer, fresh, work)) {
        return CACHE_RELAY;
    }
    join_locked(fresh, waiter);
    return CACHE_BEGUN;
}

enum cache_outcome cache_lookup(struct cache *cache, const struct cache_query *query,
                                const struct cache_offer *offer, unsigned max_waiters,
                                struct cache_waiter *waiter, unsigned char *copy_to,
                                struct cache_hit *hit, struct cache_flight **flight)
{
    struct shard *shard = shard_of(cache, query->hash);
    struct shard_work work = {0};
    struct cache_flight *fresh = NULL;
    enum cache_outcome outcome = CACHE_HIT;
    enum cache_miss miss = CACHE_COLD;

    if (!is_cacheable(query)) {
        return CACHE_RELAY;
    }
    /* Made before the lock, in vain when it comes to a hit or a join. */
    const bool may_begin = offer->may_begin && offer->incarnation != EPOCHS_NONE &&
                           take_flight_number(cache);
    if (may_begin) {
        fresh = flight_new(query, (uint16_t)shard_slot(cache, query->key));
    }
    pthread_mutex_lock(&shard->lock);
    if (!offer->may_hit || offer->n_own > 0 ||
        !hit_locked(cache, shard, query, copy_to, hit, &miss, &work)) {
        outcome = join_or_begin_locked(cache, shard, query, offer, max_waiters, waiter, fresh,
                                       flight, &work);
    }
    pthread_mutex_unlock(&shard->lock);
    shard_finish(cache, shard, &work);
    if (outcome == CACHE_HIT) {
        hit->is_near = miss == CACHE_NEAR;
    } else {
        hit->miss = (uint8_t)miss;
    }
    if (outcome == CACHE_BEGUN) {
        *flight = fresh;
    } else if (may_begin) {
        flight_free(fresh);
        give_flight_number(cache);
    }
    return outcome;
}

bool cache_refresh(struct cache *cache, const struct cache_query *query,
                   const struct cache_offer *offer, struct cache_flight **flight)
{
    struct shard *shard = shard_of(cache, query->hash);
    struct shard_work work = {0};
    struct cache_flight *fresh;
    bool is_begun = false;

    if (!is_cacheable(query) || offer->incarnation == EPOCHS_NONE || !take_flight_number(cache)) {
        return false;
    }
    fresh = flight_new(query, (uint16_t)shard_slot(cache, query->key));
    if (fresh != NULL) {
        pthread_mutex_lock(&shard->lock);
        void_ended_flights_locked(cache, shard, query);
        is_begun = flights_find(&shard->flights, query) == NULL &&
                   begin_locked(cache, shard, query, offer, fresh, &work);
        pthread_mutex_unlock(&shard->lock);
        shard_finish(cache, shard, &work);
    }
    if (is_begun) {
        *flight = fresh;
    } else {
        flight_free(fresh);
        give_flight_number(cache);
    }
    return is_begun;
}

/* ---- invalidate ---- */

static bool invalidate_locked(struct cache *cache, struct shard *shard, struct bytes key,
                              uint64_t key_hash, struct shard_work *work)
{
    bool was_live = false;
    uint32_t db = 0;

    watch_touch_locked(shard, key_hash);
    do {
        const uint64_t hash = entry_scoped_hash(key_hash, db);
        const uint32_t *slot = shard_find_judged_locked(cache, shard, hash, key, db, work);
        /* Asked before removal: with the last scoped entry gone there is no next one. */
        const uint32_t next = shard_next_db_locked(cache, shard, db);

        if (slot != NULL) {
            struct entry *entry = entry_at(*slot);
            const enum entry_state state = shard_state_of(cache, entry, entry_tick(clock_now_us()));
            was_live = was_live || state == STATE_LIVE;
            if (state == STATE_LIVE) {
                stats_ns_add(entry->ns, NS_METRIC_invalidated, 1);
                gone_put(&shard->gone, hash, GONE_INVALIDATED);
            }
            shard_remove_dead_locked(cache, shard, entry, hash, state, work);
        }
        db = next;
    } while (db != 0);

    struct cache_flight *flight;
    while ((flight = flights_next_of_key(&shard->flights, key_hash, key, NULL)) != NULL) {
        flights_void(&shard->flights, flight);
    }
    return was_live;
}

bool cache_invalidate(struct cache *cache, struct bytes key)
{
    const uint64_t hash = hash_key(key);
    struct shard *shard = shard_of(cache, hash);
    struct shard_work work = {0};

    pthread_mutex_lock(&shard->lock);
    const bool was_live = invalidate_locked(cache, shard, key, hash, &work);
    pthread_mutex_unlock(&shard->lock);
    shard_finish(cache, shard, &work);
    if (was_live) {
        hot_keys_note(HOT_INVALIDATIONS, hash, key, 1);
    }
    return was_live;
}

void cache_note_oversized(struct cache *cache, uint64_t hash, int64_t until_us)
{
    struct shard *shard = shard_of(cache, hash);
    const uint32_t tick = entry_tick(until_us);

    pthread_mutex_lock(&shard->lock);
    *note_of(shard, hash) = (struct shard_note){.hash = (uint32_t)hash,
                                                .until_tick = tick == 0 ? 1 : tick};
    pthread_mutex_unlock(&shard->lock);
}

/* ---- complete ---- */

/* What a fill may become: GET's entry; or a block, and an entry for the case that there is none. */
struct built {
    struct entry *entry;
    struct entry_block *block;
    size_t cost;
};

/* False: nothing was built (no memory, already expired, does not fit the formats). */
static bool build(const struct cache_flight *flight, const struct cache_fill *fill, int64_t now_us,
                  struct built *built)
{
    const bool is_get = flight->command == 0 && flight->args.len == 0;
    uint32_t deadline;

    if (fill->reply.len > ENTRY_REPLY_MAX ||
        !entry_deadline(fill->deadline_us == CACHE_NO_DEADLINE ? CACHE_NO_DEADLINE
                                                               : fill->deadline_us + fill->grace_us,
                        now_us, &deadline)) {
        return false;
    }
    if (is_get) {
        built->entry = entry_new_get(flight->key, flight->db, flight->incarnation, fill, deadline);
    } else {
        built->entry = entry_new(flight->key, flight->db, flight->incarnation, fill->ns,
                                 fill->is_negative);
        built->block = entry_block_new(flight->command, flight->args, fill, deadline);
    }
    if (built->entry == NULL || (!is_get && built->block == NULL)) {
        arena_free(built->entry);
        arena_free(built->block);
        *built = (struct built){0};
        return false;
    }
    built->entry->filled = entry_second(flight->t_sent_us);
    built->cost = entry_object_cost(built->entry, false) +
                  (is_get ? 0 : entry_object_cost(built->block, true));
    return true;
}

struct dropping {
    struct shard *shard;
    struct shard_work *work;
};

static void drop_one(void *context, void *object, bool is_block)
{
    const struct dropping *dropping = context;

    shard_drop_locked(dropping->shard, dropping->work, object, is_block);
}

static void set_more(struct entry *entry, struct dropping *dropping, const struct built *built,
                     size_t max_bytes)
{
    if (built->block != NULL) {
        entry_set_block(entry, built->block, drop_one, dropping);
    } else {
        entry_set_holder(entry, built->entry, drop_one, dropping);
    }
    entry_limit_views(entry, max_bytes, drop_one, dropping);
}

/* Of two views; 18 hours apart they never are: the entry would be ENTRY_OLD. */
static uint16_t older_second(uint16_t a, uint16_t b, int64_t now_us)
{
    return entry_age(a, now_us) > entry_age(b, now_us) ? a : b;
}

/* The key has a valid entry of the same incarnation: the view joins it, or replaces its like. */
static void update_locked(struct cache *cache, struct shard *shard, uint32_t *slot,
                          const struct built *built, size_t max_bytes, int64_t now_us,
                          struct shard_work *work)
{
    struct dropping dropping = {shard, work};
    struct entry *old = entry_at(*slot);
    struct entry *kept = old;
    const uint16_t filled = older_second(old->filled, built->entry->filled, now_us);
    const size_t old_cost = shard_uncount_locked(cache, shard, old).cost;

    if (built->block != NULL || (old->flags & ENTRY_MORE) != 0) {
        old->filled = built->entry->filled = filled;
    }
    if ((old->flags & ENTRY_MORE) != 0) {
        if (built->block != NULL) {
            shard_drop_locked(shard, work, built->entry, false);
        }
        set_more(old, &dropping, built, max_bytes);
    } else {
        /* The new entry takes the place of the old one, which goes, or becomes its holder. */
        kept = built->entry;
        *slot = arena_ref_of(kept);
        policy_replace(&shard->policy, old, old_cost, kept, old_cost);
        if (built->block != NULL) {
            entry_set_holder(kept, old, drop_one, &dropping);
            set_more(kept, &dropping, built, max_bytes);
        } else {
            shard_drop_locked(shard, work, old, false);
        }
    }
    const size_t new_cost = shard_count_locked(cache, shard, kept).cost;
    policy_resize(&shard->policy, kept, old_cost, new_cost);
}

static bool insert_locked(struct cache *cache, struct shard *shard, uint64_t hash,
                          const struct built *built, struct shard_work *work)
{
    struct entry *entry = built->entry;
    const uint32_t db = entry_db(entry);

    /* What stands there is judged first: the bucket's mark will be that of the entry, too. */
    struct table_bucket *bucket = table_place(&shard->table, hash);
    if (NC_UNLIKELY(bucket->mark != shard->ban_mark)) {
        bans_settle_locked(cache, shard, bucket, work);
    }
    if (!table_insert(&shard->table, hash, arena_ref_of(entry))) {
        return false;
    }
    gone_forget(&shard->gone, hash);
    if (built->block != NULL) {
        entry->body = arena_ref_of(built->block);
        entry->deadline = built->block->deadline;
    }
    if (db != 0) {
        atomic_fetch_or_explicit(&cache->dbs[db / 64], UINT64_C(1) << db % 64,
                                 memory_order_relaxed);
    }
    const size_t cost = shard_count_locked(cache, shard, entry).cost;
    policy_insert(&shard->policy, entry, hash, cost);
    return true;
}

/* An existing entry that the new view cannot stand beside goes first. */
static uint32_t *find_compatible_locked(struct cache *cache, struct shard *shard, uint64_t hash,
                                        const struct cache_flight *flight,
                                        const struct cache_fill *fill, int64_t now_us,
                                        struct shard_work *work)
{
    uint32_t *slot = shard_find_judged_locked(cache, shard, hash, flight->key, flight->db, work);

    if (slot == NULL) {
        return NULL;
    }
    struct entry *entry = entry_at(*slot);
    const enum entry_state state = shard_state_of(cache, entry, entry_tick(now_us));
    if (state == STATE_LIVE && entry->incarnation == flight->incarnation && entry->ns == fill->ns &&
        entry_is_negative(entry) == fill->is_negative) {
        return slot;
    }
    shard_remove_dead_locked(cache, shard, entry, hash, state, work);
    return NULL;
}

/* False: declined; built goes to the trash. */
static bool store_locked(struct cache *cache, struct shard *shard,
                         const struct cache_flight *flight, const struct cache_fill *fill,
                         struct built *built, int64_t now_us, struct shard_work *work)
{
    const uint64_t hash = entry_scoped_hash(flight->hash, flight->db);
    const size_t budget = shard_entry_budget_locked(cache, shard);
    bool is_stored = false;

    if (policy_admits(&shard->policy, hash, built->cost, budget)) {
        uint32_t *slot = find_compatible_locked(cache, shard, hash, flight, fill, now_us, work);
        if (slot != NULL) {
            const size_t most = policy_largest(budget);
            const size_t asked = fill->max_key_bytes;
            update_locked(cache, shard, slot, built, asked != 0 && asked < most ? asked : most,
                          now_us, work);
            is_stored = true;
        } else {
            is_stored = insert_locked(cache, shard, hash, built, work);
        }
    }
    if (!is_stored) {
        shard_drop_locked(shard, work, built->entry, false);
        if (built->block != NULL) {
            shard_drop_locked(shard, work, built->block, true);
        }
    }
    *built = (struct built){0};
    return is_stored;
}

static bool can_fill_locked(const struct cache *cache, const struct cache_flight *flight, int ns,
                            int64_t now_us, int64_t max_staleness_us)
{
    return !flight_is_void(flight) && !has_flight_ended(cache, flight, ns) &&
           !epochs_has_moved(&cache->incarnations[flight->incarnation], flight->slot) &&
           now_us - flight->t_sent_us <= max_staleness_us;
}

/*
 * Takes the lock, and makes room first if there is something to store: in several sections, should
 * a large value take the place of many. False: there is no room, nothing may be stored.
 */
static bool lock_with_room(struct cache *cache, struct shard *shard, const struct built *built,
                           bool is_negative, int64_t now_us, struct shard_work *work)
{
    const uint32_t now_tick = entry_tick(now_us);
    enum shard_room room = ROOM_NONE;

    pthread_mutex_lock(&shard->lock);
    if (built->entry == NULL) {
        return false;
    }
    for (unsigned round = 0; round < ROOM_ROUNDS_MAX; round++) {
        room = shard_make_room_locked(cache, shard, built->cost, is_negative, now_tick, work);
        if (room != ROOM_LATER) {
            break;
        }
        pthread_mutex_unlock(&shard->lock);
        shard_finish(cache, shard, work);
        pthread_mutex_lock(&shard->lock);
    }
    return room == ROOM_MADE;
}

/* By a standing ban. Nothing that was built is not kept anyway. */
static bool is_kept_out_locked(const struct cache *cache, const struct cache_flight *flight,
                               const struct cache_fill *fill, const struct built *built,
                               int64_t now_us)
{
    uint32_t *deadline, *body;

    if (built->entry == NULL) {
        return false;
    }
    deadline = built->block != NULL ? &built->block->deadline : &built->entry->deadline;
    body = built->block != NULL ? &built->block->body : &built->entry->body;
    const uint32_t former = *deadline;
    const bool is_refused = bans_refuse(cache, flight->key, fill, built->cost, deadline, now_us);
    if (*deadline != former) {
        /* The end is another one now, without a grace before it. */
        *body &= ~(ENTRY_GRACE << 30);
    }
    return is_refused;
}

/* Something newer than what is kept has been shown, and not stored. */
static void drop_kept_locked(struct cache *cache, struct shard *shard,
                             const struct cache_flight *flight, int64_t now_us,
                             struct shard_work *work)
{
    const uint64_t hash = entry_scoped_hash(flight->hash, flight->db);
    const uint32_t *slot = shard_find_judged_locked(cache, shard, hash, flight->key, flight->db,
                                                    work);
    struct entry *entry = slot != NULL ? entry_at(*slot) : NULL;

    if (entry != NULL && shard_state_of(cache, entry, entry_tick(now_us)) == STATE_KEPT) {
        shard_remove_locked(cache, shard, entry, hash, work);
    }
}

static struct cache_waiter *take_waiters_locked(struct cache_flight *flight)
{
    struct cache_waiter *in_order = NULL;

    while (flight->waiters != NULL) {
        struct cache_waiter *waiter = flight->waiters;
        flight->waiters = waiter->next;
        waiter->next = in_order;
        in_order = waiter;
    }
    return in_order;
}

enum cache_completion cache_complete(struct cache *cache, struct cache_flight **flight,
                                     const struct cache_fill *fill, int64_t now_us,
                                     int64_t max_staleness_us, struct cache_waiter **waiters)
{
    struct cache_flight *ended = *flight;
    struct shard *shard = shard_of(cache, ended->hash);
    struct shard_work work = {0};
    struct built built = {0};
    enum cache_completion completion = CACHE_VOIDED;

    *flight = NULL;
    /* A first look without the lock: what is void already is not built. */
    const bool may_fill = fill != NULL && !fill->is_unwanted && !flight_is_void(ended) &&
                          build(ended, fill, now_us, &built);
    const bool has_room = lock_with_room(cache, shard, &built, may_fill && fill->is_negative,
                                         now_us, &work);
    const bool can_fill = fill != NULL &&
                          can_fill_locked(cache, ended, fill->ns, now_us, max_staleness_us);
    if (!flight_is_void(ended)) {
        flights_remove(&shard->flights, ended);
    }
    *waiters = take_waiters_locked(ended);
    if (!can_fill && !ended->keeps_key) {
        /* What is held may be older than what the reply shows. */
        stats_add(METRIC_invalidations_error,
                  invalidate_locked(cache, shard, ended->key, ended->hash, &work));
    } else if (can_fill && (fill->is_sole || fill->is_unwanted)) {
        (void)invalidate_locked(cache, shard, ended->key, ended->hash, &work);
    }
    if (!can_fill) {
        completion = CACHE_VOIDED;
    } else if (is_kept_out_locked(cache, ended, fill, &built, now_us)) {
        completion = CACHE_BANNED;
    } else if (has_room && store_locked(cache, shard, ended, fill, &built, now_us, &work)) {
        watch_touch_locked(shard, ended->hash);
        completion = CACHE_FILLED;
    } else {
        completion = CACHE_DECLINED;
    }
    if (completion == CACHE_DECLINED || completion == CACHE_BANNED) {
        drop_kept_locked(cache, shard, ended, now_us, &work);
    }
    shard_plan_locked(cache, shard, TABLE_MOVES_PER_INSERT, &work);
    pthread_mutex_unlock(&shard->lock);

    shard_finish(cache, shard, &work);
    arena_free(built.entry);
    arena_free(built.block);
    flight_free(ended);
    give_flight_number(cache);
    return completion;
}
