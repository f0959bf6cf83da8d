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

/* stats.h numbers what it counts; gauges are read, not counted. */
enum gauge {
#define COUNTER(id, name, labels, help)
#define NS_COUNTER(id, name, labels, help)
#define GAUGE(id, name, labels, help) GAUGE_##id,
#define NS_GAUGE(id, name, labels, help) GAUGE_##id,
#define HISTOGRAM(id, name, labels, help)
#include "tables/metrics.def"
#undef COUNTER
#undef NS_COUNTER
#undef GAUGE
#undef NS_GAUGE
#undef HISTOGRAM
    N_GAUGES
};

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

struct metric_line {
    const char *name;   /* without "nearcached_" */
    const char *labels; /* fixed ones, ready to print; "" when there are none */
    const char *help;
    enum metric_kind kind;
    bool is_by_namespace;
    /* An enum metric or (is_by_namespace) enum ns_metric; enum gauge; enum histogram. */
    unsigned index;
};

/* In the table's order: lines that share a name stand together. NULL behind the end. */
const struct metric_line *metric_line_at(unsigned i);

/* A counter over all threads and namespaces. */
uint64_t metric_line_sum(const struct metric_line *line);
/* All the counters of this name, whatever their labels ("misses_total"). It must exist. */
uint64_t metric_total(const char *name);

#endif
