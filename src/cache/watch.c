/*
 * Design: a few chains per shard, by the key's hash. An invalidation or a fill marks what it finds
 * there; a shard without watches costs it one load. Hashes are compared, not keys: where two keys
 * share one, a watch ends early, which is the harmless way to be wrong.
 */
#include "cache/watch.h"

#include "cache/shard.h"

static const struct bytes null_reply = {(const unsigned char *)"_\r\n", 3};

static struct cache_watch **head_of(struct shard *shard, uint64_t key_hash)
{
    return &shard->watches[(key_hash >> 32) % CACHE_WATCH_HEADS];
}

/* The view, if epochs and deadlines allow it to be served. */
static struct entry *find_locked(const struct cache *cache, const struct shard *shard,
                                 const struct cache_query *query, struct entry_view *view)
{
    const uint32_t tick = entry_tick(query->now_us);
    const uint32_t *slot = shard_find_locked(shard, entry_scoped_hash(query->hash, query->db),
                                             query->key, query->db);
    struct entry *entry = slot != NULL ? entry_at(*slot) : NULL;

    if (entry == NULL || shard_state_of(cache, entry, tick) != STATE_LIVE ||
        !entry_find_view(entry, query->command, query->args, view) ||
        entry_is_past(view->deadline, tick)) {
        return NULL;
    }
    return entry;
}

static bool is_proven(const struct cache *cache, const struct cache_query *query,
                      const struct entry *entry)
{
    /* Acquire: as at a hit, see cache.c. */
    const int64_t watermark_us = atomic_load_explicit(
        &cache->incarnations[entry->incarnation].watermark_us, memory_order_acquire);

    return query->now_us - watermark_us <= query->max_staleness_us;
}

static void take_reply_locked(struct cache *cache, struct shard *shard, const struct entry *entry,
                              struct entry_view *view, unsigned char *copy_to,
                              struct cache_hit *hit)
{
    *hit = (struct cache_hit){
        .encoding = view->encoding,
        .ns = entry->ns,
        .is_negative = entry_is_negative(entry),
    };
    if (view->reply.len == 0) {
        view->reply = null_reply;
        hit->encoding = CACHE_RESP3;
    }
    hit->reply = view->reply;
    if (view->reply.len <= CACHE_COPY_MAX) {
        memcpy(copy_to, view->reply.ptr, view->reply.len);
        hit->reply.ptr = copy_to;
    } else {
        hit->pinned = shard_pin_locked(cache, shard, view);
    }
}

static bool watch_locked(struct cache *cache, struct shard *shard, const struct cache_query *query,
                         struct cache_watch *watch, unsigned char *copy_to, struct cache_hit *hit)
{
    struct cache_watch **head = head_of(shard, query->hash);
    struct entry_view view;
    const struct entry *entry = find_locked(cache, shard, query, &view);

    if (entry == NULL || !is_proven(cache, query, entry)) {
        return false;
    }
    take_reply_locked(cache, shard, entry, &view, copy_to, hit);
    *watch = (struct cache_watch){
        .next = *head,
        .hash = query->hash,
        .incarnation = entry->incarnation,
        .deadline_us = view.deadline == 0 ? CACHE_NO_DEADLINE
                                          : entry_deadline_us(view.deadline, query->now_us),
    };
    *head = watch;
    shard->n_watches++;
    return true;
}

bool cache_watch(struct cache *cache, const struct cache_query *query, struct cache_watch *watch,
                 unsigned char *copy_to, struct cache_hit *hit)
{
    struct shard *shard = shard_of(cache, query->hash);
    bool is_watched;

    if (query->key.len > CACHE_KEY_MAX || query->args.len > CACHE_ARGS_MAX ||
        query->db >= CACHE_DBS || query->command > ENTRY_COMMAND_MAX) {
        return false;
    }
    if (atomic_fetch_add_explicit(&cache->n_watches, 1, memory_order_relaxed) >=
        CACHE_WATCHES_MAX) {
        atomic_fetch_sub_explicit(&cache->n_watches, 1, memory_order_relaxed);
        return false;
    }
    pthread_mutex_lock(&shard->lock);
    is_watched = watch_locked(cache, shard, query, watch, copy_to, hit);
    pthread_mutex_unlock(&shard->lock);
    if (!is_watched) {
        atomic_fetch_sub_explicit(&cache->n_watches, 1, memory_order_relaxed);
    }
    return is_watched;
}

bool cache_watch_end(struct cache *cache, const struct cache_query *query,
                     struct cache_watch *watch)
{
    struct shard *shard = shard_of(cache, watch->hash);
    struct cache_watch **at = head_of(shard, watch->hash);
    struct entry_view view;
    bool is_held;

    pthread_mutex_lock(&shard->lock);
    while (*at != watch) {
        at = &(*at)->next;
    }
    *at = watch->next;
    shard->n_watches--;
    is_held = !watch->is_touched && find_locked(cache, shard, query, &view) != NULL;
    pthread_mutex_unlock(&shard->lock);
    atomic_fetch_sub_explicit(&cache->n_watches, 1, memory_order_relaxed);
    return is_held;
}

unsigned cache_watch_count(const struct cache *cache)
{
    return atomic_load_explicit(&cache->n_watches, memory_order_relaxed);
}

void watch_touch_locked(struct shard *shard, uint64_t key_hash)
{
    if (NC_LIKELY(shard->n_watches == 0)) {
        return;
    }
    for (struct cache_watch *watch = *head_of(shard, key_hash); watch != NULL;
         watch = watch->next) {
        watch->is_touched = watch->is_touched || watch->hash == key_hash;
    }
}
