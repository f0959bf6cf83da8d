/*
 * reading.h - what the admin port said at one moment, and what changed since the moment before
 *
 * Purpose:    figures by their path in the JSON of docs/status.md, as they are or per second.
 * Ownership:  a reading owns its documents.
 * Threading:  plain values.
 * Errors:     a figure that is not there is NAN.
 * Units:      those of docs/status.md; rates per second.
 */
#ifndef NC_TOP_READING_H
#define NC_TOP_READING_H

#include "top/ask.h"

#include <stdbool.h>
#include <stdint.h>

struct reading {
    json_t *status;     /* /v1/status */
    json_t *namespaces; /* the array of /v1/namespaces */
    json_t *nodes;      /* the array of /v1/nodes */
    json_t *latency;    /* the samples of nearcached_request_duration_seconds */
    json_t *bounds;     /* its buckets' bounds, in seconds */
};

/* Asks for all of it; false, with the reason in error, when a part of it does not come. */
bool reading_take(struct reading *reading, struct asker *asker, char error[ASK_ERROR_LEN]);
void reading_clear(struct reading *reading);

/* One object of all documents, for programs; the caller decrefs it. */
json_t *reading_json(const struct reading *reading);

/* path: members apart by dots, as in "requests.hits". */
const json_t *reading_at(const json_t *object, const char *path);
double reading_number(const json_t *object, const char *path);
/* "" when it is none. */
const char *reading_text(const json_t *object, const char *path);
/* The element of an array of objects whose member called name is value; NULL: there is none. */
const json_t *reading_find(const json_t *array, const char *name, const char *value);

/* Two readings of the same process; before may be NULL or of another one: then since its start. */
struct interval {
    const struct reading *before, *now;
    double seconds;
};

struct interval interval_of(const struct reading *before, const struct reading *now);
/* Of a counter in an object as it is now, and as it was before (NULL: it was not there). */
double interval_rate(const struct interval *interval, const json_t *now, const json_t *before,
                     const char *path);
/* A quantile of request durations with this outcome, in microseconds. */
double interval_quantile_us(const struct interval *interval, const char *outcome, double quantile);

#endif
