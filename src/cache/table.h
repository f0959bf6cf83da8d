/*
 * table.h - from hash to 4-byte reference, one cache line per bucket
 *
 *     | 12 tags | overflow | 12 references |        64 bytes
 *
 * Purpose:    a look-up reads one line of the table and, but for one probe in 21, no entry except
 *             the right one: tags are 8 bits of the hash. A key lives in the first bucket of its
 *             probe sequence that had room; every full bucket passed on the way counts it in
 *             `overflow`, and a probe stops at a bucket that counts none. Erasing takes the counts
 *             back, so there are no tombstones.
 * Growth:     by one size class (a quarter at most), which keeps the mean cost at 6.4 bytes per
 *             entry. A second table is filled bucket by bucket, look-ups ask both.
 * Ownership:  bucket arrays come from the caller, made outside its lock, and go back to it.
 * Threading:  none; the caller's lock.
 * Errors:     table_insert() returns false when the table is full and has not been grown.
 * Units:      sizes of arrays are bytes.
 *
 * Sources:    F14, "Open-sourcing F14 for faster, more memory-efficient hash tables" (folly).
 */
#ifndef NC_CACHE_TABLE_H
#define NC_CACHE_TABLE_H

#include "base/check.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__SSE2__) && !defined(NC_TABLE_PLAIN)
#include <emmintrin.h>
#endif

#define TABLE_SLOTS 12u
#define TABLE_MIN_BYTES ((size_t)4096)
/* What one insertion moves from the old table. */
#define TABLE_MOVES_PER_INSERT 4u

struct table_bucket {
    uint8_t tags[TABLE_SLOTS]; /* 0: free */
    uint16_t overflow;         /* keys that passed this bucket; stays at its maximum once there */
    uint16_t mark;             /* the caller's; an empty bucket takes that of what moves there */
    uint32_t refs[TABLE_SLOTS];
} __attribute__((aligned(64)));

_Static_assert(sizeof(struct table_bucket) == 64, "a bucket is one cache line");

struct table_half {
    struct table_bucket *buckets; /* NULL: absent */
    uint32_t n_buckets;           /* prime, so that any step visits all of them */
    uint32_t n_used;
    size_t n_bytes; /* of the array, as the caller gave it */
};

typedef uint64_t (*table_hash_fn)(uint32_t ref);
typedef bool (*table_match_fn)(uint32_t ref, const void *what);

struct table {
    struct table_half now;
    struct table_half old; /* while growing or shrinking */
    uint32_t n_moved;      /* buckets of old that are empty */
    uint32_t generation;   /* counts table_install(): references change their places */
    table_hash_fn hash_of;
};

/* buckets: zeroed, n_bytes long, TABLE_MIN_BYTES or more. */
void table_init(struct table *table, table_hash_fn hash_of, struct table_bucket *buckets,
                size_t n_bytes);

static inline uint32_t table_count(const struct table *table)
{
    return table->now.n_used + table->old.n_used;
}

static inline size_t table_bytes(const struct table *table)
{
    return table->now.n_bytes + table->old.n_bytes;
}

/* The caller knows that the key is absent. False: full. */
NC_MUST_CHECK bool table_insert(struct table *table, uint64_t hash, uint32_t ref);
/* The bucket that table_insert() would take. */
struct table_bucket *table_place(const struct table *table, uint64_t hash);
/* slot is what table_find() returned for this hash. */
void table_erase(struct table *table, uint64_t hash, const uint32_t *slot);

static inline bool table_is_moving(const struct table *table)
{
    return table->old.buckets != NULL;
}

/* How long the next array should be; 0: the present one is right, or the table is moving. */
size_t table_wanted_bytes(const struct table *table);
/* Starts moving into buckets (zeroed). The table must not be moving. */
void table_install(struct table *table, struct table_bucket *buckets, size_t n_bytes);
/* Moves n buckets, whose marks are as new as any. Returns the old array when it has become empty:
 * the caller frees it. */
NC_MUST_CHECK struct table_bucket *table_move(struct table *table, unsigned n);

/* The bucket that a slot stands in: buckets are aligned to their size. */
static inline struct table_bucket *table_bucket_of(const uint32_t *slot)
{
    return (struct table_bucket *)((uintptr_t)slot & ~(uintptr_t)(sizeof(struct table_bucket) - 1));
}

/* The references in one bucket of the present table; returns their number. */
unsigned table_bucket_refs(const struct table *table, uint32_t bucket, uint32_t refs[TABLE_SLOTS]);

/*
 * Parts of a hash: 0-7 tag, 8-13 shard, 14-31 step (and the ghost's fingerprint), 32-63 bucket.
 */
static inline uint8_t table_tag(uint64_t hash)
{
    const uint8_t tag = (uint8_t)hash;

    return tag == 0 ? 1 : tag;
}

static inline uint32_t table_home(const struct table_half *half, uint64_t hash)
{
    return (uint32_t)(((hash >> 32) * half->n_buckets) >> 32);
}

static inline uint32_t table_step(const struct table_half *half, uint64_t hash)
{
    return 1 + (uint32_t)((hash >> 14) & 0x3ffff) % (half->n_buckets - 1);
}

/* One bit per slot whose tag equals tag. */
static inline unsigned table_matches(const struct table_bucket *bucket, uint8_t tag)
{
#if defined(__SSE2__) && !defined(NC_TABLE_PLAIN)
    const __m128i line = _mm_load_si128((const __m128i *)(const void *)bucket);
    const __m128i equal = _mm_cmpeq_epi8(line, _mm_set1_epi8((char)tag));

    return (unsigned)_mm_movemask_epi8(equal) & ((1u << TABLE_SLOTS) - 1);
#else
    unsigned mask = 0;

    for (unsigned i = 0; i < TABLE_SLOTS; i++) {
        mask |= (unsigned)(bucket->tags[i] == tag) << i;
    }
    return mask;
#endif
}

static inline __attribute__((always_inline)) uint32_t *
table_find_in(const struct table_half *half, uint64_t hash, table_match_fn match, const void *what)
{
    const uint8_t tag = table_tag(hash);
    uint32_t at = table_home(half, hash);
    uint32_t step = 0;

    for (uint32_t left = half->n_buckets; left > 0; left--) {
        struct table_bucket *bucket = &half->buckets[at];

        for (unsigned mask = table_matches(bucket, tag); mask != 0; mask &= mask - 1) {
            uint32_t *slot = &bucket->refs[__builtin_ctz(mask)];

            if (NC_LIKELY(match(*slot, what))) {
                return slot;
            }
        }
        if (NC_LIKELY(bucket->overflow == 0)) {
            return NULL;
        }
        step = step == 0 ? table_step(half, hash) : step;
        at = at < half->n_buckets - step ? at + step : at - (half->n_buckets - step);
    }
    return NULL;
}

/* The place of the reference that matches, or NULL; may be overwritten in place. */
static inline __attribute__((always_inline)) uint32_t *
table_find(const struct table *table, uint64_t hash, table_match_fn match, const void *what)
{
    uint32_t *slot = table_find_in(&table->now, hash, match, what);

    if (NC_UNLIKELY(slot == NULL && table_is_moving(table))) {
        slot = table_find_in(&table->old, hash, match, what);
    }
    return slot;
}

#endif
