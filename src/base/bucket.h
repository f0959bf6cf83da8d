/*
 * bucket.h - a token bucket that threads share without a lock
 *
 * Purpose:    so many events a second on average, and as many as a second's worth at once. One
 *             instant is kept, at which the bucket would be full again (the generic cell rate
 *             algorithm), so that taking is one compare-and-swap.
 * Ownership:  the caller's struct; zeroed it is a full bucket.
 * Threading:  any thread.
 * Units:      microseconds of one clock; the bucket counts in nanoseconds, so that a million
 *             events a second are exact.
 */
#ifndef NC_BASE_BUCKET_H
#define NC_BASE_BUCKET_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct bucket {
    _Atomic int64_t full_at_ns; /* atomic */
};

/* Takes a token. False: there is none now. rate is per second, at least 1. */
bool bucket_take(struct bucket *bucket, int64_t rate, int64_t now_us);
/* Gives a token back that was not used. */
void bucket_return(struct bucket *bucket, int64_t rate);

#endif
