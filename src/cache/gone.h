/*
 * gone.h - which keys left tier 1 not long ago, and why
 *
 * Purpose:    a miss is told apart by why its key is not there: never held (or long ago),
 *             invalidated, evicted. A table of fingerprints, 4 bytes each, where a newer one takes
 *             an older one's place. It is written when an entry goes and read when a key is
 *             missing: hits know nothing of it. One miss in 2^30 is called by another key's name.
 * Ownership:  embedded in its shard.
 * Threading:  none; the shard's lock.
 * Errors:     none.
 */
#ifndef NC_CACHE_GONE_H
#define NC_CACHE_GONE_H

#include <stdbool.h>
#include <stdint.h>

/* 8 KiB for each shard: of 16 MiB and more, unless maxmemory is less. */
#define GONE_SLOTS 2048u

enum gone_reason { GONE_UNKNOWN, GONE_INVALIDATED, GONE_EVICTED };

struct gone {
    uint32_t slots[GONE_SLOTS]; /* 30 bits of the hash, 2 of the reason; 0: empty */
};

/* The bits that choose the slot are not those that choose the shard, nor those that are kept. */
static inline uint32_t *gone_slot(struct gone *gone, uint64_t hash)
{
    return &gone->slots[(hash >> 20) % GONE_SLOTS];
}

static inline uint32_t gone_mark(uint64_t hash)
{
    return (uint32_t)(hash >> 32) & ~UINT32_C(3);
}

static inline void gone_put(struct gone *gone, uint64_t hash, enum gone_reason reason)
{
    *gone_slot(gone, hash) = gone_mark(hash) | (uint32_t)reason;
}

static inline enum gone_reason gone_why(struct gone *gone, uint64_t hash)
{
    const uint32_t slot = *gone_slot(gone, hash);

    return (slot & ~UINT32_C(3)) == gone_mark(hash) ? (enum gone_reason)(slot & 3) : GONE_UNKNOWN;
}

/* The key is held again: should it leave for another reason, that one counts. */
static inline void gone_forget(struct gone *gone, uint64_t hash)
{
    uint32_t *slot = gone_slot(gone, hash);

    if ((*slot & ~UINT32_C(3)) == gone_mark(hash)) {
        *slot = 0;
    }
}

#endif
