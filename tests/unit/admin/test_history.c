/*
 * test_history.c - proves of history.h and of quantiles in samples.h: what is told is what came
 * between two samples, no more samples than fit are kept, `since` leaves out what is known, and a
 * trend compares two spans of the same length, an hour each when there are two hours
 */
#include "admin/history.h"

#include "admin/samples.h"
#include "base/stats.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static struct metrics_facts facts;
static int64_t now_unix_ms;

static void take(struct history *history)
{
    now_unix_ms += HISTORY_STEP_MS;
    history_take(history, &facts, now_unix_ms);
}

static void take_many(struct history *history, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        take(history);
    }
}

static size_t length_of(const json_t *json)
{
    return json_array_size(json_object_get(json, "at_unix_ms"));
}

static const json_t *series_of(const json_t *json, const char *name)
{
    size_t i;
    json_t *series;

    json_array_foreach(json_object_get(json, "series"), i, series)
    {
        if (strcmp(json_string_value(json_object_get(series, "name")), name) == 0) {
            return series;
        }
    }
    fail_msg("no series %s", name);
    return NULL;
}

static json_int_t value_at(const json_t *series, const char *list, size_t i)
{
    const json_t *value = json_array_get(json_object_get(series, list), i);

    assert_true(json_is_integer(value));
    return json_integer_value(value);
}

static void one_sample_tells_nothing(void **state)
{
    struct history *history = history_new();
    json_t *json = history_json(history, 0);

    (void)state;
    assert_int_equal(length_of(json), 0);
    json_decref(json);
    take(history);
    json = history_json(history, 0);
    assert_int_equal(length_of(json), 0);
    json_decref(json);
    history_free(&history);
    assert_null(history);
}

static void counters_are_told_as_what_came(void **state)
{
    struct history *history = history_new();
    const json_t *hits, *entries, *latency;
    json_t *json;

    (void)state;
    stats_ns_add(0, NS_METRIC_hits, 1000);
    take(history);
    stats_ns_add(0, NS_METRIC_hits, 7);
    facts.namespaces[0].n_entries = 42;
    for (unsigned i = 0; i < 100; i++) {
        stats_ns_observe(0, NS_HISTOGRAM_latency_hit, 15, 1);
    }
    take(history);
    take(history);
    json = history_json(history, 0);
    assert_int_equal(length_of(json), 2);
    hits = series_of(json, "nearcached_hits_total");
    assert_int_equal(value_at(hits, "values", 0), 7);
    assert_int_equal(value_at(hits, "values", 1), 0);
    entries = series_of(json, "nearcached_entries");
    assert_int_equal(value_at(entries, "values", 0), 42);
    latency = series_of(json, "nearcached_request_duration_seconds");
    assert_int_equal(value_at(latency, "count", 0), 100);
    assert_int_equal(value_at(latency, "p50_us", 0), 15);
    assert_int_equal(value_at(latency, "count", 1), 0);
    assert_true(json_is_null(json_array_get(json_object_get(latency, "p50_us"), 1)));
    json_decref(json);
    history_free(&history);
}

static void rings_hold_so_many_and_since_leaves_out_the_rest(void **state)
{
    struct history *history = history_new();
    const json_t *namespaces;
    json_t *json;

    (void)state;
    take_many(history, 2 * HISTORY_POINTS + 5);
    json = history_json(history, 0);
    assert_int_equal(length_of(json), HISTORY_POINTS - 1);
    namespaces = json_object_get(json, "namespaces");
    assert_int_equal(length_of(namespaces), HISTORY_NS_POINTS - 1);
    json_decref(json);
    json = history_json(history, now_unix_ms - 3 * HISTORY_STEP_MS);
    assert_int_equal(length_of(json), 3);
    assert_int_equal(json_integer_value(json_array_get(json_object_get(json, "at_unix_ms"), 2)),
                     now_unix_ms);
    json_decref(json);
    json = history_json(history, now_unix_ms);
    assert_int_equal(length_of(json), 0);
    json_decref(json);
    json = history_json(history, INT64_MAX);
    assert_int_equal(length_of(json), 0);
    json_decref(json);
    history_free(&history);
}

/* Reads of one coarse step. */
static void read_some(struct history *history, uint64_t hits, uint64_t misses)
{
    stats_ns_add(0, NS_METRIC_hits, hits);
    stats_ns_add(0, NS_METRIC_misses_cold, misses);
    take_many(history, HISTORY_COARSE);
}

static void a_young_trend_compares_halves(void **state)
{
    struct history *history = history_new();
    struct trend trend = history_trend(history, 0);

    (void)state;
    assert_int_equal(trend.direction, TREND_UNKNOWN);
    assert_int_equal(trend.span_ms, 0);
    take(history);
    read_some(history, 500, 500);
    assert_int_equal(history_trend(history, 0).span_ms, 0);
    read_some(history, 900, 100);
    trend = history_trend(history, 0);
    assert_int_equal(trend.span_ms, HISTORY_COARSE * HISTORY_STEP_MS);
    assert_int_equal(trend.direction, TREND_BETTER);
    assert_true(trend.before == 0.5 && trend.recent == 0.9);
    read_some(history, 100, 900);
    trend = history_trend(history, 0);
    assert_int_equal(trend.direction, TREND_WORSE);
    assert_true(trend.before == 0.9 && trend.recent == 0.1);
    history_free(&history);
}

static void an_old_trend_compares_the_last_two_hours(void **state)
{
    struct history *history = history_new();
    struct trend trend;

    (void)state;
    take(history);
    for (unsigned i = 0; i < 200; i++) {
        read_some(history, 0, 1000); /* is forgotten */
    }
    for (unsigned i = 0; i < 60; i++) {
        read_some(history, 800, 200);
    }
    for (unsigned i = 0; i < 60; i++) {
        read_some(history, 700, 300);
    }
    trend = history_trend(history, 0);
    assert_int_equal(trend.span_ms, 3600 * 1000);
    assert_true(trend.before == 0.8 && trend.recent == 0.7);
    assert_int_equal(trend.direction, TREND_WORSE);
    history_free(&history);
}

static void quantiles_lie_within_their_bucket(void **state)
{
    uint64_t buckets[STATS_BUCKETS] = {0};

    (void)state;
    assert_true(samples_quantile_us(buckets, 0.5) < 0);
    for (unsigned i = 0; i < STATS_BUCKETS; i++) {
        buckets[i] = i >= 1 ? 10 : 0; /* all in 10 to 20 us */
    }
    assert_true(samples_quantile_us(buckets, 0.5) == 15);
    assert_true(samples_quantile_us(buckets, 1) == 20);
    for (unsigned i = 0; i < STATS_BUCKETS - 1; i++) {
        buckets[i] = 0; /* all behind the last bound */
    }
    assert_true(samples_quantile_us(buckets, 0.5) == (double)stats_bucket_us[STATS_BUCKETS - 2]);
}

static void labels_are_read(void **state)
{
    json_t *json = samples_labels("side=\"client\",node=\"a\\\\b\\\"c\\n\"");
    char value[64];

    (void)state;
    assert_int_equal(json_object_size(json), 2);
    assert_string_equal(json_string_value(json_object_get(json, "side")), "client");
    assert_string_equal(json_string_value(json_object_get(json, "node")), "a\\b\"c\n");
    assert_string_equal(samples_label("side=\"client\",result=\"full\"", "result", value), "full");
    assert_string_equal(samples_label("", "result", value), "");
    json_decref(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_sample_tells_nothing),
        cmocka_unit_test(counters_are_told_as_what_came),
        cmocka_unit_test(rings_hold_so_many_and_since_leaves_out_the_rest),
        cmocka_unit_test(a_young_trend_compares_halves),
        cmocka_unit_test(an_old_trend_compares_the_last_two_hours),
        cmocka_unit_test(quantiles_lie_within_their_bucket),
        cmocka_unit_test(labels_are_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
