/*
 * top_keys.h - Space-Saving: the heaviest of a stream of names, in fixed memory
 *
 * Purpose:    of N names with their weights, keep `capacity` counters. A name without one takes
 * that of the lightest, and what that had as its possible error. No count is too low, and none too
 * high by more than its error; every name with more than 1/capacity of all weight has a counter.
 * The same memory may keep the largest values instead: top_keys_set(). Ownership:  a plain struct
 * of the caller's; it owns its arrays. Names are copied, long ones cut: the hash tells them apart.
 * Threading:  none; the caller's lock.
 * Errors:     -ENOMEM: nothing was made.
 * Units:      weights are whatever the caller counts; ages in seconds of any clock.
 *
 * Source:     Metwally, Agrawal, El Abbadi: "Efficient Computation of Frequent and Top-k Elements
 * in Data Streams", ICDT 2005. Merging: Agarwal et al., "Mergeable Summaries", PODS 2012.
 */
#ifndef NC_BASE_TOP_KEYS_H
#define NC_BASE_TOP_KEYS_H

#include "base/bytes.h"
#include "base/check.h"

#define TOP_KEY_BYTES 104u

struct top_key {
    uint64_t hash;
    uint64_t count, error;
    uint32_t seen_s;
    uint32_t key_len; /* of the name, which may be longer than what is kept */
    uint32_t next;    /* in its chain: number and 1 */
    uint32_t heap_at;
    unsigned char key[TOP_KEY_BYTES];
};

struct top_keys {
    uint32_t capacity, n;
    uint32_t n_chains;     /* a power of two */
    struct top_key *items; /* those in use come first */
    uint32_t *heap;        /* numbers of items, the lightest first */
    uint32_t *chains;      /* by hash: number and 1; 0: none */
};

NC_MUST_CHECK int top_keys_init(struct top_keys *keys, uint32_t capacity);
void top_keys_fini(struct top_keys *keys);

void top_keys_add(struct top_keys *keys, uint64_t hash, struct bytes key, uint64_t weight,
                  uint32_t now_s);
/* Its value is this from now on; what is smaller than all that are kept is passed over. */
void top_keys_set(struct top_keys *keys, uint64_t hash, struct bytes key, uint64_t value,
                  uint32_t now_s);
/* All counts, and errors, go down to 1 / 2^n. */
void top_keys_halve(struct top_keys *keys, unsigned n);
/* What was not seen since then becomes nothing. */
void top_keys_forget(struct top_keys *keys, uint32_t before_s);
void top_keys_clear(struct top_keys *keys);

/*
 * Adds what src has to dst: counts of one name are summed, or the newer one is taken (is_value).
 * Where one of them has no counter for a name it is taken as 0, so that a sum may be too low by as
 * much as the lightest counter of the other.
 */
void top_keys_merge(struct top_keys *dst, const struct top_keys *src, bool is_value);
/* Numbers of the items with a count, the heaviest first; out has room for capacity. */
uint32_t top_keys_sorted(const struct top_keys *keys, uint32_t *out);

static inline struct bytes top_key_name(const struct top_key *item)
{
    return bytes_make(item->key, item->key_len < TOP_KEY_BYTES ? item->key_len : TOP_KEY_BYTES);
}

#endif
