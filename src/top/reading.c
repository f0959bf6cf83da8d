#include "top/reading.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define LATENCY "/v1/metrics?names=request_duration_seconds"

/* The member of a document, kept; the document itself is let go. */
static json_t *take_member(json_t *document, const char *name)
{
    json_t *member = json_incref(json_object_get(document, name));

    json_decref(document);
    return member;
}

static json_t *ask_for(struct asker *asker, const char *path, const char *member,
                       char error[ASK_ERROR_LEN])
{
    json_t *document = asker_get(asker, path, error);

    if (document == NULL) {
        return NULL;
    }
    document = take_member(document, member);
    if (!json_is_array(document)) {
        json_decref(document);
        snprintf(error, ASK_ERROR_LEN, "%s: %s has no %s", asker_address(asker), path, member);
        return NULL;
    }
    return document;
}

bool reading_take(struct reading *reading, struct asker *asker, char error[ASK_ERROR_LEN])
{
    json_t *metrics;

    memset(reading, 0, sizeof(*reading));
    reading->status = asker_get(asker, "/v1/status", error);
    if (reading->status == NULL) {
        return false;
    }
    reading->namespaces = ask_for(asker, "/v1/namespaces", "namespaces", error);
    reading->nodes = reading->namespaces == NULL ? NULL
                                                 : ask_for(asker, "/v1/nodes", "nodes", error);
    metrics = reading->nodes == NULL ? NULL : ask_for(asker, LATENCY, "metrics", error);
    if (metrics == NULL) {
        reading_clear(reading);
        return false;
    }
    reading->latency = json_incref(json_object_get(json_array_get(metrics, 0), "samples"));
    reading->bounds = json_incref(json_object_get(json_array_get(metrics, 0), "bounds"));
    json_decref(metrics);
    return true;
}

void reading_clear(struct reading *reading)
{
    json_decref(reading->status);
    json_decref(reading->namespaces);
    json_decref(reading->nodes);
    json_decref(reading->latency);
    json_decref(reading->bounds);
    memset(reading, 0, sizeof(*reading));
}

json_t *reading_json(const struct reading *reading)
{
    json_t *all = json_object();

    json_object_set(all, "status", reading->status);
    json_object_set(all, "namespaces", reading->namespaces);
    json_object_set(all, "nodes", reading->nodes);
    json_object_set(all, "request_durations", reading->latency);
    json_object_set(all, "request_duration_bounds", reading->bounds);
    return all;
}

/* -- figures -- */

const json_t *reading_at(const json_t *object, const char *path)
{
    while (*path != '\0') {
        const size_t len = strcspn(path, ".");
        char name[64];

        if (len >= sizeof(name)) {
            return NULL;
        }
        memcpy(name, path, len);
        name[len] = '\0';
        object = json_object_get(object, name);
        path += len + (path[len] == '.');
    }
    return object;
}

double reading_number(const json_t *object, const char *path)
{
    const json_t *at = reading_at(object, path);

    return json_is_number(at) ? json_number_value(at) : (double)NAN;
}

const char *reading_text(const json_t *object, const char *path)
{
    const char *text = json_string_value(reading_at(object, path));

    return text == NULL ? "" : text;
}

const json_t *reading_find(const json_t *array, const char *name, const char *value)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        const json_t *each = json_array_get(array, i);

        if (strcmp(reading_text(each, name), value) == 0) {
            return each;
        }
    }
    return NULL;
}

/* -- between two readings -- */

struct interval interval_of(const struct reading *before, const struct reading *now)
{
    struct interval interval = {.now = now};

    if (before != NULL && before->status != NULL &&
        strcmp(reading_text(before->status, "run_id"), reading_text(now->status, "run_id")) == 0) {
        interval.before = before;
        interval.seconds = (reading_number(now->status, "now_unix_ms") -
                            reading_number(before->status, "now_unix_ms")) /
                           1000;
    } else {
        interval.seconds = reading_number(now->status, "uptime_ms") / 1000;
    }
    if (!(interval.seconds > 0.001)) { /* not a number included; clocks may be set */
        interval.seconds = 0.001;
    }
    return interval;
}

double interval_rate(const struct interval *interval, const json_t *now, const json_t *before,
                     const char *path)
{
    double was = interval->before == NULL ? 0 : reading_number(before, path);
    double is = reading_number(now, path);

    if (isnan(was)) { /* it is new, and began with nothing */
        was = 0;
    }
    return is >= was ? (is - was) / interval->seconds : is;
}

/* How many of this outcome, of all namespaces, took no longer than the bound of this bucket. */
static double count_of(const struct reading *reading, const char *outcome, size_t bucket)
{
    double sum = 0;

    for (size_t i = 0; reading != NULL && i < json_array_size(reading->latency); i++) {
        const json_t *each = json_array_get(reading->latency, i);

        if (strcmp(reading_text(each, "labels.outcome"), outcome) == 0) {
            sum += json_number_value(json_array_get(json_object_get(each, "buckets"), bucket));
        }
    }
    return sum;
}

double interval_quantile_us(const struct interval *interval, const char *outcome, double quantile)
{
    const size_t n_bounds = json_array_size(interval->now->bounds);
    double rank = quantile * (count_of(interval->now, outcome, n_bounds) -
                              count_of(interval->before, outcome, n_bounds));
    double below = 0, floor_us = 0;

    if (!(rank > 0)) {
        return (double)NAN;
    }
    /* Within a bucket values are taken to lie evenly, as Prometheus' histogram_quantile() has it.
     */
    for (size_t i = 0; i < n_bounds; i++) {
        const double bound_us = 1e6 * json_number_value(json_array_get(interval->now->bounds, i));
        const double n = count_of(interval->now, outcome, i) -
                         count_of(interval->before, outcome, i);

        if (n >= rank) {
            return floor_us + (bound_us - floor_us) * (rank - below) / (n - below);
        }
        below = n;
        floor_us = bound_us;
    }
    return floor_us;
}
