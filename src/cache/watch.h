/*
 * watch.h - has tier 1 held one and the same reply all the time?
 *
 * Purpose:    who compares what tier 1 holds with what the backend says (coherence/audit.h) must
 *             know whether it is still the very entry that was looked at. Bytes do not tell: a key
 *             may have been dropped and filled with the same value again. A watch notices every
 *             invalidation of its key, and every fill, from the look to the end.
 * Ownership:  embedded in the caller's struct; the shard links it from cache_watch() to
 *             cache_watch_end(), which must come once. The query's bytes must live as long.
 * Threading:  any thread, one at a time.
 * Errors:     false: tier 1 would not serve it now, or there are CACHE_WATCHES_MAX watches.
 * Units:      clock_now_us().
 */
#ifndef NC_CACHE_WATCH_H
#define NC_CACHE_WATCH_H

#include "cache/cache.h"

/* Of the whole process: an invalidation looks at those whose keys share a chain with its own. */
#define CACHE_WATCHES_MAX 1024u
#define CACHE_WATCH_HEADS 16u

struct shard;

struct cache_watch {
    struct cache_watch *next; /* shard lock */
    uint64_t hash;            /* of the key, in whatever database */
    bool is_touched;          /* shard lock */
    uint16_t incarnation;     /* under which it was read */
    int64_t deadline_us;      /* CACHE_NO_DEADLINE: none */
};

/* What tier 1 would answer now, as cache_get() does, without counting a hit; and watches it. */
bool cache_watch(struct cache *cache, const struct cache_query *query, struct cache_watch *watch,
                 unsigned char *copy_to, struct cache_hit *hit);

/*
 * Ends the watch. True: tier 1 has held that reply all the time, and would still serve it at
 * query->now_us if its link's watermark were young enough.
 */
bool cache_watch_end(struct cache *cache, const struct cache_query *query,
                     struct cache_watch *watch);

/* How many there are. */
unsigned cache_watch_count(const struct cache *cache);

/* For the cache itself: the key was invalidated, or something was filled in for it. */
void watch_touch_locked(struct shard *shard, uint64_t key_hash);

#endif
