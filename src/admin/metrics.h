/*
 * metrics.h - every sample of every line of tables/metrics.def, for whoever shows them
 *
 * Purpose:    the page for Prometheus, the status page's JSON and the terminal view show the same
 *             figures because they all come from metrics_visit(). Counters and histograms come from
 *             stats.h, the rest from facts that metrics_gather() has collected.
 * Ownership:  a sample and what it points to are borrowed for the call that hands them out.
 * Threading:  metrics_gather() on the control thread; metrics_visit() on any. Sums are exact once
 *             writers are at rest; reading takes no lock that a worker takes.
 * Errors:     none.
 * Units:      samples are in base units (bytes, seconds).
 */
#ifndef NC_ADMIN_METRICS_H
#define NC_ADMIN_METRICS_H

#include "admin/metric_facts.h"
#include "admin/metric_table.h"
#include "base/bytes.h"

#define METRIC_LABELS_MAX 768

/* A count is exact; a number is read, or computed; buckets are those of a histogram. */
enum metric_form { METRIC_COUNT, METRIC_NUMBER, METRIC_BUCKETS };

struct metric_sample {
    const struct metric_line *line;
    enum metric_form form;
    const char *ns;     /* the namespace's name; NULL where there is none */
    const char *labels; /* all of them, ready to print, the namespace first; "" for none */
    uint64_t count;     /* METRIC_COUNT; of buckets: all observations */
    double number;      /* the value, also of a count; of buckets: the sum of all, in seconds */
    uint64_t buckets[STATS_BUCKETS]; /* cumulative; bounds are stats_bucket_us, the last +Inf */
};

typedef void (*metric_sample_fn)(const struct metric_sample *sample, void *context);

/* Calls fn for each sample, in the table's order: those of one name come one after the other. */
void metrics_visit(const struct metrics_facts *facts, metric_sample_fn fn, void *context);

/*
 * The next label of a sample: *labels moves on. False: there is none. Values stand as they are
 * printed: with a backslash before a quote, a backslash, and the n of a line break.
 */
bool metric_label_next(const char **labels, struct bytes *name, struct bytes *value);

#endif
