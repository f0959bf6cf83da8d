/*
 * policy.h - which entry leaves next: S3-FIFO
 *
 * Purpose:    new entries enter a small queue, a tenth of the budget. What is asked for twice there
 *             goes on into the main queue, the rest leaves soon and is remembered for a while; what
 *             comes back in that time enters the main queue at once. A hit counts, nothing moves.
 *             The shard knows only: insert, hit, remove, evict.
 * Ownership:  entries belong to the shard; the policy links them. The ghost's memory comes from the
 *             caller, made outside its lock, and goes back to it.
 * Threading:  none; the shard's lock.
 * Errors:     none.
 * Units:      sizes are what ops->cost() says: bytes for the shard, 1 per entry in the test against
 *             published miss ratios. budget is what all entries together may take.
 *
 * Sources:    Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023.
 */
#ifndef NC_CACHE_POLICY_H
#define NC_CACHE_POLICY_H

#include "cache/entry.h"
#include "cache/ghost.h"

enum policy_queue {
    POLICY_NOWHERE,
    POLICY_SMALL,
    POLICY_MAIN,
    POLICY_NEGATIVE, /* small queue of entries for keys that do not exist; they have their own limit
                      */
    POLICY_QUEUES
};

/* Moves within one eviction, and so under one lock; what is at the tail then leaves regardless. */
#define POLICY_MOVES_MAX 64u

struct policy_list {
    arena_ref head, tail;
    uint64_t n, bytes;
};

struct policy_ops {
    size_t (*cost)(const struct entry *entry);
    uint64_t (*hash)(const struct entry *entry);
    /* Expired or invalid: leaves without being moved or remembered. */
    bool (*is_dead)(const void *context, const struct entry *entry);
};

struct policy {
    const struct policy_ops *ops;
    struct policy_list lists[POLICY_QUEUES];
    struct ghost ghost;
};

void policy_init(struct policy *policy, const struct policy_ops *ops);

static inline enum policy_queue policy_queue_of(const struct entry *entry)
{
    return (enum policy_queue)(entry->queue & 0x7f);
}

/* The whole of what a hit does. */
static inline void policy_hit(struct entry *entry)
{
    if (entry->hits < ENTRY_HITS_MAX) {
        entry->hits++;
    }
}

/* What one key may take at most, views added later included. */
size_t policy_largest(uint64_t budget);
/* False: as large as the small queue's share and not asked for before; better not stored. */
bool policy_admits(const struct policy *policy, uint64_t hash, size_t cost, uint64_t budget);
void policy_insert(struct policy *policy, struct entry *entry, uint64_t hash, size_t cost);
void policy_remove(struct policy *policy, struct entry *entry, size_t cost);
/* new takes the place, the hits and the negative mark of old. */
void policy_replace(struct policy *policy, struct entry *old, size_t old_cost, struct entry *new,
                    size_t new_cost);
/* The entry's size changed where it stands. */
void policy_resize(struct policy *policy, const struct entry *entry, size_t old_cost,
                   size_t new_cost);

/*
 * Takes the next victim out of its queue, or returns NULL when there is none. *n_touched grows by
 * the entries looked at. policy_evict_negative(): of the negative queue alone.
 */
struct entry *policy_evict(struct policy *policy, uint64_t budget, const void *context,
                           unsigned *n_touched);
struct entry *policy_evict_negative(struct policy *policy, const void *context,
                                    unsigned *n_touched);

/* Entries and their cost in all queues. */
uint64_t policy_count(const struct policy *policy);
uint64_t policy_bytes(const struct policy *policy);

/* How long the ghost's array should be, 0: as it is. */
size_t policy_wanted_ghost(const struct policy *policy, uint64_t budget);
/* slots: zeroed. */
void policy_install_ghost(struct policy *policy, uint32_t *slots, size_t n_bytes, uint64_t budget);
/* An array of the ghost's that is of no use any more, or NULL. */
uint32_t *policy_retire_ghost(struct policy *policy);

#endif
