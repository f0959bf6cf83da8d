#include "top/sample.h"

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

bool sample_take(struct sample *sample, struct asker *asker, char error[ASK_ERROR_LEN])
{
    json_t *metrics;

    memset(sample, 0, sizeof(*sample));
    sample->status = asker_get(asker, "/v1/status", error);
    if (sample->status == NULL) {
        return false;
    }
    sample->namespaces = ask_for(asker, "/v1/namespaces", "namespaces", error);
    sample->nodes = sample->namespaces == NULL ? NULL : ask_for(asker, "/v1/nodes", "nodes", error);
    metrics = sample->nodes == NULL ? NULL : ask_for(asker, LATENCY, "metrics", error);
    if (metrics == NULL) {
        sample_clear(sample);
        return false;
    }
    sample->latency = json_incref(json_object_get(json_array_get(metrics, 0), "samples"));
    sample->bounds = json_incref(json_object_get(json_array_get(metrics, 0), "bounds"));
    json_decref(metrics);
    return true;
}

void sample_clear(struct sample *sample)
{
    json_decref(sample->status);
    json_decref(sample->namespaces);
    json_decref(sample->nodes);
    json_decref(sample->latency);
    json_decref(sample->bounds);
    memset(sample, 0, sizeof(*sample));
}

json_t *sample_json(const struct sample *sample)
{
    json_t *all = json_object();

    json_object_set(all, "status", sample->status);
    json_object_set(all, "namespaces", sample->namespaces);
    json_object_set(all, "nodes", sample->nodes);
    json_object_set(all, "request_durations", sample->latency);
    json_object_set(all, "request_duration_bounds", sample->bounds);
    return all;
}

/* -- figures -- */

const json_t *sample_at(const json_t *object, const char *path)
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

double sample_number(const json_t *object, const char *path)
{
    const json_t *at = sample_at(object, path);

    return json_is_number(at) ? json_number_value(at) : (double)NAN;
}

const char *sample_text(const json_t *object, const char *path)
{
    const char *text = json_string_value(sample_at(object, path));

    return text == NULL ? "" : text;
}

const json_t *sample_find(const json_t *array, const char *name, const char *value)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        const json_t *each = json_array_get(array, i);

        if (strcmp(sample_text(each, name), value) == 0) {
            return each;
        }
    }
    return NULL;
}

/* -- between two samples -- */

struct interval interval_of(const struct sample *before, const struct sample *now)
{
    struct interval interval = {.now = now};

    if (before != NULL && before->status != NULL &&
        strcmp(sample_text(before->status, "run_id"), sample_text(now->status, "run_id")) == 0) {
        interval.before = before;
        interval.seconds = (sample_number(now->status, "now_unix_ms") -
                            sample_number(before->status, "now_unix_ms")) /
                           1000;
    } else {
        interval.seconds = sample_number(now->status, "uptime_ms") / 1000;
    }
    if (!(interval.seconds > 0.001)) { /* not a number included; clocks may be set */
        interval.seconds = 0.001;
    }
    return interval;
}

double interval_rate(const struct interval *interval, const json_t *now, const json_t *before,
                     const char *path)
{
    double was = interval->before == NULL ? 0 : sample_number(before, path);
    double is = sample_number(now, path);

    if (isnan(was)) { /* it is new, and began with nothing */
        was = 0;
    }
    return is >= was ? (is - was) / interval->seconds : is;
}

/* How many of this outcome, of all namespaces, took no longer than the bound of this bucket. */
static double count_of(const struct sample *sample, const char *outcome, size_t bucket)
{
    double sum = 0;

    for (size_t i = 0; sample != NULL && i < json_array_size(sample->latency); i++) {
        const json_t *each = json_array_get(sample->latency, i);

        if (strcmp(sample_text(each, "labels.outcome"), outcome) == 0) {
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
