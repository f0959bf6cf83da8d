#include "coherence/early.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/stats.h"

#include <math.h>
#include <stdatomic.h>

/* A refresh in the background costs no reader anything: rather too early than too late. */
#define COST_MIN_US 5000
/* Of 2^-3 each: the newest eight or so count. */
#define WEIGHT 8

struct early {
    _Atomic int64_t fetch_us[STATS_NAMESPACES];
};

struct early *early_new(void)
{
    return mem_alloc(sizeof(struct early));
}

void early_free(struct early **early)
{
    mem_free(*early);
    *early = NULL;
}

/* Two threads at once: one observation is lost, which no average minds. */
void early_note_fetch(struct early *early, unsigned ns, int64_t took_us)
{
    const int64_t former = atomic_load_explicit(&early->fetch_us[ns], memory_order_relaxed);

    atomic_store_explicit(&early->fetch_us[ns],
                          former == 0 ? took_us : former + (took_us - former) / WEIGHT,
                          memory_order_relaxed);
}

int64_t early_fetch_cost(const struct early *early, unsigned ns)
{
    const int64_t cost_us = atomic_load_explicit(&early->fetch_us[ns], memory_order_relaxed);

    return cost_us > COST_MIN_US ? cost_us : COST_MIN_US;
}

/* An exponentially distributed time with the cost as its mean: e.g. above twice it in 13 %. */
bool early_is_due(int64_t left_us, int64_t cost_us, uint32_t random)
{
    const double uniform = ((double)random + 1.0) / 4294967296.0;

    return left_us <= 0 || (double)left_us <= (double)cost_us * -log(uniform);
}

/* xorshift64*; quality is no matter, only that workers differ. */
uint32_t early_random(void)
{
    static _Thread_local uint64_t state;

    if (state == 0) {
        state = ((uint64_t)clock_now_us() ^ (uint64_t)(uintptr_t)&state) | 1;
    }
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * UINT64_C(0x2545f4914f6cdd1d)) >> 32);
}
