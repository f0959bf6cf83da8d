/*
 * history.h - what chosen metrics were during the last hour, and hits of namespaces during two
 *
 * Purpose:    let a page that was opened a moment ago show what was before, and say whether a
 *             namespace is better off than an hour ago. Two rings of fixed length: one sample of
 *             the chosen metrics every five seconds, one of each namespace's hits and misses every
 *             minute.
 * Ownership:  the history owns its rings.
 * Threading:  the control thread.
 * Errors:     none; before the first two samples there is nothing to tell.
 * Units:      instants in milliseconds since 1970.
 *
 * Limits:     about 1 MB, and 2 KiB for each namespace.
 */
#ifndef NC_ADMIN_HISTORY_H
#define NC_ADMIN_HISTORY_H

#include "admin/metric_facts.h"
#include "admin/trend.h"

#include <jansson.h>

#define HISTORY_STEP_MS 5000
/* A little more than an hour. */
#define HISTORY_POINTS 780u
/* Every so many samples those of namespaces are taken. */
#define HISTORY_COARSE 12u
/* Two hours lie between the first and the last. */
#define HISTORY_NS_POINTS 121u

struct history; /* opaque */

struct history *history_new(void);
/* Accepts a pointer to NULL. */
void history_free(struct history **history);

/* Takes samples from now on. The event base is the control thread's. */
void history_start(struct history *history, struct proxy *proxy);
/* The workers end; what is being gathered is not taken any more. */
void history_stop(struct history *history);

/* One sample. */
void history_take(struct history *history, const struct metrics_facts *facts, int64_t at_unix_ms);

/*
 * The last hour against the hour before. A younger process is judged by the second half of what
 * there is against the first.
 */
struct trend history_trend(const struct history *history, unsigned ns);

/* What was taken after since_unix_ms; docs/status.md has its form. */
json_t *history_json(const struct history *history, int64_t since_unix_ms);

#endif
