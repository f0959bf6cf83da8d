/*
 * Cost of the memory tier without network and threads: hit, miss and fill, in nanoseconds per
 * operation, and bytes per entry. One logfmt line.
 *
 *     bench_cache [keys [value bytes [maxmemory MiB]]]      100000 keys of 24 bytes, values of 100
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "cache/cache.h"

#define KEY_LEN 24u
#define MIB ((size_t)1 << 20)
#define STALENESS_US INT64_C(1000000000)
#define OPERATIONS 5000000u

struct bench {
    struct cache *cache;
    uint32_t n_keys;
    size_t value_bytes;
    uint16_t link;
    int64_t now_us;
    unsigned char *reply;
    size_t reply_len;
};

static double now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/* A cheap generator: the order of the requests must not be the order of the entries in memory. */
static uint32_t next_random(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (uint32_t)(*state >> 33);
}

static struct cache_query query_for(const struct bench *bench, uint32_t number, char *key)
{
    for (unsigned i = KEY_LEN; i > 4; i--) {
        key[i - 1] = (char)('0' + number % 10);
        number /= 10;
    }
    const struct bytes name = bytes_make(key, KEY_LEN);
    return (struct cache_query){.key = name,
                                .hash = cache_hash(name),
                                .now_us = bench->now_us,
                                .max_staleness_us = STALENESS_US};
}

static void fill(struct bench *bench, uint32_t number)
{
    char key[KEY_LEN] = "key:";
    const struct cache_query query = query_for(bench, number, key);
    const struct cache_offer offer = {
        .incarnation = bench->link, .node = 1, .may_begin = true, .may_hit = true};
    const struct cache_fill filled = {.reply = bytes_make(bench->reply, bench->reply_len),
                                      .deadline_us = bench->now_us + INT64_C(3600000000)};
    unsigned char copy[CACHE_COPY_MAX];
    struct cache_waiter waiter;
    struct cache_waiter *back = NULL;
    struct cache_flight *flight = NULL;
    struct cache_hit hit;

    if (cache_lookup(bench->cache, &query, &offer, 1, &waiter, copy, &hit, &flight) ==
        CACHE_BEGUN) {
        (void)cache_complete(bench->cache, &flight, &filled, bench->now_us, STALENESS_US, &back);
    }
}

static double time_fills(struct bench *bench)
{
    const double start_ns = now_ns();

    for (uint32_t i = 0; i < bench->n_keys; i++) {
        fill(bench, i);
    }
    return (now_ns() - start_ns) / bench->n_keys;
}

/* Keys from first on, as many as there are; returns ns per look-up. */
static double time_gets(struct bench *bench, uint32_t first, uint64_t *n_hits)
{
    unsigned char copy[CACHE_COPY_MAX];
    char key[KEY_LEN] = "key:";
    uint64_t state = 1;
    const double start_ns = now_ns();

    for (unsigned i = 0; i < OPERATIONS; i++) {
        const struct cache_query query = query_for(
            bench, first + next_random(&state) % bench->n_keys, key);
        struct cache_hit hit;
        enum cache_miss miss;

        if (cache_get(bench->cache, &query, copy, &hit, &miss)) {
            ++*n_hits;
            if (hit.pinned != NULL) {
                cache_unpin(bench->cache, hit.pinned);
            }
        }
    }
    return (now_ns() - start_ns) / OPERATIONS;
}

/* What the loop costs without the cache: random number, key and hash. */
static double time_loop(const struct bench *bench)
{
    char key[KEY_LEN] = "key:";
    uint64_t state = 1, sum = 0;
    const double start_ns = now_ns();

    for (unsigned i = 0; i < OPERATIONS; i++) {
        sum += query_for(bench, next_random(&state) % bench->n_keys, key).hash;
    }
    return (now_ns() - start_ns) / OPERATIONS + (sum == 0 ? 1 : 0);
}

static void report(struct bench *bench)
{
    const double fill_ns = time_fills(bench);
    const double loop_ns = time_loop(bench);
    uint64_t n_hits = 0, n_wrong = 0;
    const double hit_ns = time_gets(bench, 0, &n_hits);
    const double miss_ns = time_gets(bench, bench->n_keys, &n_wrong);
    struct cache_stats stats;

    cache_stats(bench->cache, &stats);
    const double n = stats.n_entries > 0 ? (double)stats.n_entries : 1;
    printf("bench=cache keys=%u value_bytes=%zu maxmemory=%zu entries=%" PRIu64
           " hit_ratio=%.4f hit_ns=%.0f miss_ns=%.0f loop_ns=%.0f fill_ns=%.0f "
           "accounted_per_entry=%.1f metadata_per_entry=%.1f resident_per_entry=%.1f\n",
           bench->n_keys, bench->value_bytes, stats.maxmemory, stats.n_entries,
           (double)n_hits / OPERATIONS, hit_ns - loop_ns, miss_ns - loop_ns, loop_ns, fill_ns,
           (double)stats.accounted_bytes / n, (double)stats.metadata_bytes / n,
           (double)stats.arena_resident_bytes / n);
}

int main(int argc, char **argv)
{
    struct bench bench = {.n_keys = argc > 1 ? (uint32_t)atoi(argv[1]) : 100000,
                          .value_bytes = argc > 2 ? (size_t)atol(argv[2]) : 100,
                          .now_us = clock_now_us()};
    const struct cache_options options = {.maxmemory = (argc > 3 ? (size_t)atol(argv[3]) : 256) *
                                                       MIB,
                                          .negative_percent = 5,
                                          .max_flights = 65536};

    if (cache_new(&options, &bench.cache) != 0) {
        return 1;
    }
    bench.reply = malloc(bench.value_bytes + 32);
    const int head = sprintf((char *)bench.reply, "$%zu\r\n", bench.value_bytes);
    memset(bench.reply + head, 'v', bench.value_bytes);
    memcpy(bench.reply + head + bench.value_bytes, "\r\n", 2);
    bench.reply_len = (size_t)head + bench.value_bytes + 2;
    epochs_assign(cache_epochs(bench.cache), 0, 1);
    bench.link = epochs_open(cache_epochs(bench.cache), 1, 0, bench.now_us);
    report(&bench);
    cache_free(&bench.cache);
    free(bench.reply);
    return 0;
}
