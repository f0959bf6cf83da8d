/*
 * exposition.h - metrics as text: Prometheus' format 0.0.4 and OpenMetrics 1.0
 *
 * Purpose:    write all samples of metrics.h; choose the format from what a client accepts.
 * Ownership:  nothing is kept.
 * Threading:  any thread.
 * Errors:     exposition_write() returns -ENOMEM, and what it wrote so far is of no use.
 * Units:      base units (bytes, seconds).
 *
 * Sources:    https://prometheus.io/docs/instrumenting/exposition_formats/
 *             https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md
 *             RFC 9110, 12.5.1 (Accept)
 */
#ifndef NC_ADMIN_EXPOSITION_H
#define NC_ADMIN_EXPOSITION_H

#include "admin/metrics.h"

#include <event2/buffer.h>

enum exposition_format { EXPOSITION_TEXT, EXPOSITION_OPENMETRICS };

/* By the value of an Accept header; NULL: there was none. Text, unless the other one is preferred.
 */
enum exposition_format exposition_choose(const char *accept);
const char *exposition_content_type(enum exposition_format format);

/* HELP and TYPE (and UNIT) once per name, then its samples. */
NC_MUST_CHECK int exposition_write(const struct metrics_facts *facts, enum exposition_format format,
                                   struct evbuffer *out);

#endif
