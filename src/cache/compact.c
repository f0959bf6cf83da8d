/*
 * An entry stays where it was allocated. When the sizes of new values change, the few old entries
 * that are still asked for keep their slabs, each nearly empty: of a 256 MiB cache that had moved
 * from 100 to 900-byte values 200 MiB were such slabs, which the budget had to make up for. So the
 * control thread copies these entries into fuller slabs, in two sections: choose under the lock,
 * allocate without it, copy under it what is still as it was.
 *
 * Entries with further views stay: they are few, and their blocks would have to be found again.
 */
#include "cache/shard.h"

#define BUCKETS 2u
#define BATCH_MAX (BUCKETS * TABLE_SLOTS)
/* Of 1024: what eviction and refilling leave free in a slab at any time is less. */
#define ROOM_THIN 128u
/* Larger ones have slabs of their own, or share them with few. */
#define SIZE_MAX_MOVED ((size_t)4096)

_Static_assert(BATCH_MAX <= ARENA_QUERY_MAX, "one question for a batch");

struct candidate {
    arena_ref ref;
    uint64_t hash;
    size_t size;
    void *copy;
};

struct batch {
    struct candidate items[BATCH_MAX];
    unsigned n;
};

static bool may_move(const struct entry *entry)
{
    return (entry->flags & ENTRY_MORE) == 0 && entry_pins(entry, false) == 0 &&
           entry_own_size(entry) <= SIZE_MAX_MOVED;
}

/* Takes the next buckets of the walk's shard; at its end the walk goes to the next shard. */
static void choose_locked(const struct cache *cache, const struct shard *shard,
                          struct shard_walk *walk, struct batch *batch)
{
    uint32_t refs[TABLE_SLOTS];

    for (unsigned i = 0; i < BUCKETS && walk->bucket < shard->table.now.n_buckets; i++) {
        const unsigned n = table_bucket_refs(&shard->table, walk->bucket++, refs);
        for (unsigned j = 0; j < n; j++) {
            const struct entry *entry = entry_at(refs[j]);
            if (may_move(entry)) {
                batch->items[batch->n++] = (struct candidate){
                    .ref = refs[j], .hash = entry_hash(entry), .size = entry_own_size(entry)};
            }
        }
    }
    if (walk->bucket >= shard->table.now.n_buckets) {
        *walk = (struct shard_walk){.shard = (walk->shard + 1) % cache->n_shards};
    }
}

/*
 * Whatever slab the copy comes to lie in: the allocator fills one after the other, the lowest
 * first, and entries in slabs that have become full stay. To compare both slabs and keep the fuller
 * one ends at once when the slab to be filled next is the emptiest.
 */
static void allocate(struct batch *batch)
{
    void *blocks[BATCH_MAX];
    unsigned rooms[BATCH_MAX];

    for (unsigned i = 0; i < batch->n; i++) {
        blocks[i] = arena_at(batch->items[i].ref);
    }
    arena_query_room(blocks, batch->n, rooms);
    for (unsigned i = 0; i < batch->n; i++) {
        struct candidate *item = &batch->items[i];
        item->copy = rooms[i] > ROOM_THIN ? arena_alloc(item->size) : NULL;
    }
}

static bool is_same(uint32_t ref, const void *what)
{
    return ref == *(const uint32_t *)what;
}

/*
 * The reference may have been freed and be another entry's by now. If that one has the same hash
 * and size, it may be moved just as well.
 */
static void move_locked(struct shard *shard, struct candidate *item, struct shard_work *work)
{
    uint32_t *slot = table_find(&shard->table, item->hash, is_same, &item->ref);
    struct entry *entry = entry_at(item->ref);

    if (slot == NULL || !may_move(entry) || entry_own_size(entry) != item->size) {
        return;
    }
    const size_t cost = entry_object_cost(entry, false);
    memcpy(item->copy, entry, item->size);
    policy_replace(&shard->policy, entry, cost, item->copy, cost);
    *slot = arena_ref_of(item->copy);
    shard_drop_locked(shard, work, entry, false);
    item->copy = NULL;
}

static void compact_step(struct cache *cache, struct shard_walk *walk)
{
    struct shard *shard = &cache->shards[walk->shard];
    struct shard_work work = {0};
    struct batch batch = {.n = 0};

    pthread_mutex_lock(&shard->lock);
    if (table_is_moving(&shard->table)) {
        shard_plan_locked(cache, shard, TABLE_MOVES_PER_INSERT, &work);
    } else {
        choose_locked(cache, shard, walk, &batch);
    }
    pthread_mutex_unlock(&shard->lock);
    if (batch.n == 0) {
        shard_finish(cache, shard, &work);
        return;
    }
    allocate(&batch);
    pthread_mutex_lock(&shard->lock);
    for (unsigned i = 0; i < batch.n; i++) {
        if (batch.items[i].copy != NULL) {
            move_locked(shard, &batch.items[i], &work);
        }
    }
    pthread_mutex_unlock(&shard->lock);
    for (unsigned i = 0; i < batch.n; i++) {
        arena_free(batch.items[i].copy);
    }
    shard_finish(cache, shard, &work);
}

void shard_compact(struct cache *cache, unsigned n_sections)
{
    for (unsigned i = 0; i < n_sections; i++) {
        compact_step(cache, &cache->compaction);
    }
}
