/*
 * stats.h - counters and latency histograms, kept per thread and summed when read
 *
 * Purpose:    count without a shared write on the data path. Names, help texts, labels and scopes
 *             stand once, in tables/metrics.def.
 * Ownership:  a thread's block lives as long as the process, so that nothing counted is lost.
 * Threading:  stats_add() and friends on any thread, each into its own block (plain loads and
 *             stores of relaxed atomics); reading from any thread, exact once writers are at rest.
 * Units:      counts; histograms take microseconds.
 */
#ifndef NC_BASE_STATS_H
#define NC_BASE_STATS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* Namespace ids are one byte in an entry; 0 is "default". */
#define STATS_NAMESPACES 255

enum metric {
#define COUNTER(id, name, labels, help) METRIC_##id,
#include "tables/metrics.def"
    N_METRICS
};

enum ns_metric {
#define NS_COUNTER(id, name, labels, help) NS_METRIC_##id,
#include "tables/metrics.def"
    N_NS_METRICS
};

enum histogram {
#define HISTOGRAM(id, name, labels, help) HISTOGRAM_##id,
#include "tables/metrics.def"
    N_HISTOGRAMS
};

enum ns_histogram {
#define NS_HISTOGRAM(id, name, labels, help) NS_HISTOGRAM_##id,
#include "tables/metrics.def"
    N_NS_HISTOGRAMS
};

/* Upper bounds in microseconds, 10 us to 10 s; the last bucket is +Inf. */
#define STATS_BUCKETS 20
extern const int64_t stats_bucket_us[STATS_BUCKETS - 1];

struct stats_histogram {
    _Atomic uint64_t buckets[STATS_BUCKETS];
    _Atomic uint64_t sum_us;
};

struct stats_block {
    _Atomic uint64_t counters[N_METRICS];
    _Atomic uint64_t ns_counters[STATS_NAMESPACES][N_NS_METRICS];
    struct stats_histogram histograms[N_HISTOGRAMS];
    struct stats_histogram ns_histograms[STATS_NAMESPACES][N_NS_HISTOGRAMS];
    struct stats_block *next; /* the registry's list; init */
};

extern _Thread_local struct stats_block *stats_mine;
/* Allocates and registers this thread's block; called by the first use on each thread. */
struct stats_block *stats_register(void);

static inline struct stats_block *stats_block(void)
{
    struct stats_block *block = stats_mine;

    return __builtin_expect(block != NULL, 1) ? block : stats_register();
}

static inline void stats_bump(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

static inline void stats_add(enum metric metric, uint64_t n)
{
    stats_bump(&stats_block()->counters[metric], n);
}

static inline void stats_ns_add(unsigned ns, enum ns_metric metric, uint64_t n)
{
    stats_bump(&stats_block()->ns_counters[ns][metric], n);
}

/* Of this thread's block. What is observed most is short, so the search begins at the short end. */
static inline void stats_observe_in(struct stats_histogram *mine, int64_t us, uint64_t n)
{
    const int64_t counted_us = us < 0 ? 0 : us;
    unsigned bucket = 0;

    while (bucket < STATS_BUCKETS - 1 && counted_us > stats_bucket_us[bucket]) {
        bucket++;
    }
    stats_bump(&mine->buckets[bucket], n);
    stats_bump(&mine->sum_us, (uint64_t)counted_us * n);
}

/* n observations of one value: a batch of hits shares one clock reading. */
void stats_observe(enum histogram histogram, int64_t us, uint64_t n);
void stats_ns_observe(unsigned ns, enum ns_histogram histogram, int64_t us, uint64_t n);

/* Sums over all threads. */
uint64_t stats_sum(enum metric metric);
uint64_t stats_ns_sum(unsigned ns, enum ns_metric metric);
/* Cumulative counts as Prometheus wants them, out[STATS_BUCKETS - 1] is the total. */
void stats_histogram_sum(enum histogram histogram, uint64_t out[STATS_BUCKETS], uint64_t *sum_us);
void stats_ns_histogram_sum(unsigned ns, enum ns_histogram histogram, uint64_t out[STATS_BUCKETS],
                            uint64_t *sum_us);

#endif
