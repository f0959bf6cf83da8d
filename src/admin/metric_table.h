/*
 * metric_table.h - tables/metrics.def as data: every line with its kind, and the counters' sums
 *
 * Purpose:    what /metrics, INFO and CACHE STATS need to walk the table instead of naming its
 *             lines again.
 * Ownership:  the table is constant.
 * Threading:  any thread; sums are exact once writers are at rest.
 */
#ifndef NC_ADMIN_METRIC_TABLE_H
#define NC_ADMIN_METRIC_TABLE_H

#include "base/stats.h"

#include <stdbool.h>

/* stats.h numbers what it counts; these are read, not counted. */
enum gauge {
#define GAUGE(id, name, labels, help) GAUGE_##id,
#define NS_GAUGE GAUGE
#define READ_COUNTER GAUGE
#define NS_READ_COUNTER GAUGE
#define STANDARD_GAUGE GAUGE
#define STANDARD_COUNTER GAUGE
#include "tables/metrics.def"
    N_GAUGES
};

/* Those with a sample for each node, worker or the like. */
enum metric_list {
#define GAUGE_LIST(id, name, labels, help) METRIC_LIST_##id,
#define COUNTER_LIST GAUGE_LIST
#include "tables/metrics.def"
    N_METRIC_LISTS
};

enum metric_kind {
    METRIC_COUNTER, /* counted by stats.h */
    METRIC_GAUGE,
    METRIC_HISTOGRAM,
    METRIC_READ_COUNTER,
    METRIC_GAUGE_LIST,
    METRIC_COUNTER_LIST
};

struct metric_line {
    const char *name;   /* without its prefix */
    const char *labels; /* fixed ones, ready to print; "" when there are none. Lists: their names */
    const char *help;
    enum metric_kind kind;
    bool is_by_namespace;
    bool is_standard; /* no prefix */
    /* Of the enum that its kind and is_by_namespace name: metric, ns_metric, gauge, ... */
    unsigned index;
};

static inline const char *metric_line_prefix(const struct metric_line *line)
{
    return line->is_standard ? "" : "nearcached_";
}

/* "counter", "gauge" or "histogram". */
const char *metric_line_type(const struct metric_line *line);

/* In the table's order: lines that share a name stand together. NULL behind the end. */
const struct metric_line *metric_line_at(unsigned i);

/* A counter over all threads and namespaces. */
uint64_t metric_line_sum(const struct metric_line *line);
/* All the counters of this name, whatever their labels ("misses_total"). It must exist. */
uint64_t metric_total(const char *name);

#endif
