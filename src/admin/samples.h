/*
 * samples.h - samples of the metric table in the form that people and JSON want
 *
 * Purpose:    labels as an object, quantiles of buckets, sums over lines and namespaces.
 * Ownership:  JSON goes to the caller.
 * Threading:  any thread; sums are exact once writers are at rest.
 * Errors:     none.
 * Units:      as names end.
 */
#ifndef NC_ADMIN_SAMPLES_H
#define NC_ADMIN_SAMPLES_H

#include "admin/metric_table.h"
#include "admin/metrics.h"

#include <jansson.h>

/* Its name, prefix included. */
json_t *samples_name(const struct metric_line *line);
/* {"reason": "write"} of labels as a sample has them. */
json_t *samples_labels(const char *labels);
/* The value of the label called so, or "" when there is none. */
const char *samples_label(const char *labels, const char *name, char out[64]);

/* Of a counter of stats.h, or of how much a histogram has observed; ns -1: over all namespaces. */
uint64_t samples_total(const char *name, int ns);
/* A counter of one line; lines without namespaces count for none of them. */
uint64_t samples_count(const struct metric_line *line, int ns);
/* Adds up the cumulative counts of a line; false: it is not by namespace, or no histogram. */
bool samples_buckets(const struct metric_line *line, int ns, uint64_t out[STATS_BUCKETS]);

/*
 * A quantile of cumulative counts in microseconds, with values taken to lie evenly within their
 * bucket, as histogram_quantile() of Prometheus does it; -1 when nothing was observed. What lies
 * behind the last bound is told as that bound.
 */
double samples_quantile_us(const uint64_t buckets[STATS_BUCKETS], double quantile);
/* {"count": n, "p50_us": ...}; null when nothing was observed. */
json_t *samples_latency(const uint64_t buckets[STATS_BUCKETS]);

#endif
