/*
 * stats.c - the registry of the threads' blocks
 *
 * A scrape takes the lock of the registry, never a writer: a thread takes it once, when it counts
 * for the first time.
 */
#include "base/stats.h"

#include <pthread.h>
#include <string.h>

#include "base/mem.h"

const int64_t stats_bucket_us[STATS_BUCKETS - 1] = {
    10,    20,    50,     100,    200,    500,     1000,    2000,    5000,    10000,
    20000, 50000, 100000, 200000, 500000, 1000000, 2000000, 5000000, 10000000};

_Thread_local struct stats_block *stats_mine;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* a leaf */
static struct stats_block *blocks;                       /* lock; blocks are only ever added */

struct stats_block *stats_register(void)
{
    struct stats_block *block = mem_alloc(sizeof *block);

    pthread_mutex_lock(&lock);
    block->next = blocks;
    blocks = block;
    pthread_mutex_unlock(&lock);
    stats_mine = block;
    return block;
}

void stats_observe(enum histogram histogram, int64_t us, uint64_t n)
{
    stats_observe_in(&stats_block()->histograms[histogram], us, n);
}

void stats_ns_observe(unsigned ns, enum ns_histogram histogram, int64_t us, uint64_t n)
{
    stats_observe_in(&stats_block()->ns_histograms[ns][histogram], us, n);
}

static const struct stats_block *first_block(void)
{
    pthread_mutex_lock(&lock);
    const struct stats_block *first = blocks;
    pthread_mutex_unlock(&lock);
    return first;
}

/* A block never changes its successor once it stands in the list, so walking needs no lock. */
uint64_t stats_sum(enum metric metric)
{
    uint64_t sum = 0;

    for (const struct stats_block *block = first_block(); block != NULL; block = block->next) {
        sum += atomic_load_explicit(&block->counters[metric], memory_order_relaxed);
    }
    return sum;
}

uint64_t stats_ns_sum(unsigned ns, enum ns_metric metric)
{
    uint64_t sum = 0;

    for (const struct stats_block *block = first_block(); block != NULL; block = block->next) {
        sum += atomic_load_explicit(&block->ns_counters[ns][metric], memory_order_relaxed);
    }
    return sum;
}

static void add_histogram(const struct stats_histogram *theirs, uint64_t buckets[STATS_BUCKETS],
                          uint64_t *sum_us)
{
    for (unsigned i = 0; i < STATS_BUCKETS; i++) {
        buckets[i] += atomic_load_explicit(&theirs->buckets[i], memory_order_relaxed);
    }
    *sum_us += atomic_load_explicit(&theirs->sum_us, memory_order_relaxed);
}

static void cumulate(uint64_t buckets[STATS_BUCKETS])
{
    for (unsigned i = 1; i < STATS_BUCKETS; i++) {
        buckets[i] += buckets[i - 1];
    }
}

void stats_histogram_sum(enum histogram histogram, uint64_t out[STATS_BUCKETS], uint64_t *sum_us)
{
    memset(out, 0, STATS_BUCKETS * sizeof(out[0]));
    *sum_us = 0;
    for (const struct stats_block *block = first_block(); block != NULL; block = block->next) {
        add_histogram(&block->histograms[histogram], out, sum_us);
    }
    cumulate(out);
}

void stats_ns_histogram_sum(unsigned ns, enum ns_histogram histogram, uint64_t out[STATS_BUCKETS],
                            uint64_t *sum_us)
{
    memset(out, 0, STATS_BUCKETS * sizeof(out[0]));
    *sum_us = 0;
    for (const struct stats_block *block = first_block(); block != NULL; block = block->next) {
        add_histogram(&block->ns_histograms[ns][histogram], out, sum_us);
    }
    cumulate(out);
}
