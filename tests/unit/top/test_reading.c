/*
 * test_reading.c - proves of top/reading.h: figures by path, rates between two readings and since
 * the start, quantiles of what came in between
 */
#include "top/reading.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* Of a process with this run id, after so many milliseconds and hits. */
static struct reading make(const char *run_id, int uptime_ms, int hits, int fast, int all)
{
    struct reading reading = {0};

    reading.status = json_pack("{s:s, s:i, s:i, s:{s:i}}", "run_id", run_id, "uptime_ms", uptime_ms,
                               "now_unix_ms", 1000000 + uptime_ms, "requests", "hits", hits);
    reading.bounds = json_pack("[f, f]", 1e-5, 1e-4);
    reading.latency = json_pack(
        "[{s:{s:s, s:s}, s:[i, i, i]}, {s:{s:s, s:s}, s:[i, i, i]}, {s:{s:s, s:s}, s:[i, i, i]}]",
        "labels", "namespace", "a", "outcome", "hit", "buckets", fast, all, all, "labels",
        "namespace", "a", "outcome", "miss", "buckets", 0, 0, 0, "labels", "namespace", "b",
        "outcome", "hit", "buckets", fast, all, all);
    assert_non_null(reading.status);
    assert_non_null(reading.latency);
    return reading;
}

static double hits(const struct interval *interval)
{
    return interval_rate(interval, interval->now->status,
                         interval->before == NULL ? NULL : interval->before->status,
                         "requests.hits");
}

static void figures_are_found_by_their_path(void **state)
{
    struct reading reading = make("a", 1000, 5, 0, 0);

    (void)state;
    assert_true(reading_number(reading.status, "requests.hits") == 5);
    assert_true(isnan(reading_number(reading.status, "requests.misses")));
    assert_true(isnan(reading_number(reading.status, "run_id")));
    assert_true(isnan(reading_number(NULL, "requests.hits")));
    assert_string_equal(reading_text(reading.status, "run_id"), "a");
    assert_string_equal(reading_text(reading.status, "requests"), "");
    reading_clear(&reading);
}

static void rates_are_those_between_two_readings(void **state)
{
    struct reading first = make("a", 1000, 100, 0, 0), second = make("a", 3000, 500, 0, 0);
    struct interval interval = interval_of(&first, &second);

    (void)state;
    assert_true(hits(&interval) == 200);
    interval = interval_of(NULL, &second);
    assert_true(fabs(hits(&interval) - 500 / 3.0) < 1e-9);
    reading_clear(&first);
    reading_clear(&second);
}

static void another_process_begins_anew(void **state)
{
    struct reading first = make("a", 100000, 100, 0, 0), second = make("b", 2000, 50, 0, 0);
    struct interval interval = interval_of(&first, &second);

    (void)state;
    assert_null(interval.before);
    assert_true(hits(&interval) == 25);
    reading_clear(&first);
    reading_clear(&second);
}

static void a_clock_that_was_set_back_makes_no_nonsense(void **state)
{
    struct reading first = make("a", 5000, 100, 0, 0), second = make("a", 4000, 200, 0, 0);
    struct interval interval = interval_of(&first, &second);

    (void)state;
    assert_true(interval.seconds > 0);
    assert_true(hits(&interval) >= 0);
    reading_clear(&first);
    reading_clear(&second);
}

static void quantiles_are_of_what_came_in_between(void **state)
{
    struct reading first = make("a", 1000, 0, 1000, 1000), second = make("a", 2000, 0, 1010, 1020);
    struct interval interval = interval_of(&first, &second);

    (void)state;
    /* Of each of two namespaces 10 within 10 us, 10 more within 100 us. */
    assert_true(fabs(interval_quantile_us(&interval, "hit", 0.5) - 10) < 1e-6);
    assert_true(fabs(interval_quantile_us(&interval, "hit", 0.75) - 55) < 1e-6);
    assert_true(isnan(interval_quantile_us(&interval, "miss", 0.5)));
    interval = interval_of(&second, &second);
    assert_true(isnan(interval_quantile_us(&interval, "hit", 0.5)));
    reading_clear(&first);
    reading_clear(&second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(figures_are_found_by_their_path),
        cmocka_unit_test(rates_are_those_between_two_readings),
        cmocka_unit_test(another_process_begins_anew),
        cmocka_unit_test(a_clock_that_was_set_back_makes_no_nonsense),
        cmocka_unit_test(quantiles_are_of_what_came_in_between),
    };

    return cmocka_run_group_tests_name("top/reading", tests, NULL, NULL);
}
