/*
 * hot_keys.h - which keys are asked for, moved, missed and dropped the most, and which are large
 *
 * Purpose:    samples of what happens to keys, in sketches of each thread (base/top_keys.h), merged
 *             when somebody asks. Counts go to half every hot-keys-decay, so that they tell of now.
 * Ownership:  a thread's sketches live as long as the process. What is collected is the caller's.
 * Threading:  any thread. A thread has its own lock, which it only tries: while somebody reads, its
 *             samples are lost and nobody waits.
 * Errors:     none; without memory nothing is remembered.
 * Units:      requests, bytes; counts are estimates: samples times the interval.
 */
#ifndef NC_CACHE_HOT_KEYS_H
#define NC_CACHE_HOT_KEYS_H

#include "base/top_keys.h"

#include <stdatomic.h>

enum hot_kind {
    HOT_REQUESTS,
    HOT_BYTES,
    HOT_MISSES,
    HOT_INVALIDATIONS,
    HOT_SIZES, /* values as they were last seen, not sums */
    N_HOT_KINDS
};

/* Larger values that were not seen for this long are forgotten. */
#define HOT_SIZES_AGE_S 3600u

/* sample: one in so many, 0: off. Any thread. */
void hot_keys_configure(unsigned sample, unsigned capacity, int64_t decay_us);
/* 0: off. */
unsigned hot_keys_sample(void);
/* How many lie before the next sample, at random, as many as configured on average; 0: none ever.
 */
uint64_t hot_keys_interval(void);

/* A hit that was chosen, and stands for hot_keys_sample() of them: a request, and its bytes. */
void hot_keys_hit(uint64_t hash, struct bytes key, uint64_t n_bytes, int64_t now_us);
/* What happens off the hit path: one in so many is added. */
void hot_keys_note(enum hot_kind kind, uint64_t hash, struct bytes key, uint64_t weight);
/* A value that was read at the backend. */
void hot_keys_size(uint64_t hash, struct bytes key, uint64_t n_bytes);

/* Of all threads; fini it. */
NC_MUST_CHECK int hot_keys_collect(enum hot_kind kind, struct top_keys *out);
/* Begins anew. */
void hot_keys_reset(void);

#endif
