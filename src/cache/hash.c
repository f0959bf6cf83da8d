#include "cache/hash.h"

#include <sys/random.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/clock.h"

static uint64_t seed; /* init */

void hash_seed(void)
{
    /* A kernel that has no randomness yet (-EAGAIN) is no reason not to start. */
    if (seed == 0 && getrandom(&seed, sizeof(seed), GRND_NONBLOCK) != sizeof(seed)) {
        seed = (uint64_t)clock_now_us() * 0x9e3779b97f4a7c15u;
    }
}

uint64_t hash_key(struct bytes key)
{
    return XXH3_64bits_withSeed(key.ptr, key.len, seed);
}
