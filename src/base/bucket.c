#include "base/bucket.h"

#define SECOND_NS INT64_C(1000000000)

bool bucket_take(struct bucket *bucket, int64_t rate, int64_t now_us)
{
    const int64_t now_ns = now_us * 1000;
    const int64_t cost_ns = SECOND_NS / rate;
    int64_t full_at_ns = atomic_load_explicit(&bucket->full_at_ns, memory_order_relaxed);
    int64_t next_ns;

    do {
        next_ns = (full_at_ns > now_ns ? full_at_ns : now_ns) + cost_ns;
        if (next_ns - now_ns > SECOND_NS) {
            return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(&bucket->full_at_ns, &full_at_ns, next_ns,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

void bucket_return(struct bucket *bucket, int64_t rate)
{
    atomic_fetch_sub_explicit(&bucket->full_at_ns, SECOND_NS / rate, memory_order_relaxed);
}
