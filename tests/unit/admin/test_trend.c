/*
 * test_trend.c - proves of trend.h: what counts as better, steady and worse, and that nothing is
 * said where too little was read
 */
#include "admin/trend.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static enum trend_direction judge(uint64_t hits_before, uint64_t misses_before, uint64_t hits,
                                  uint64_t misses)
{
    const struct trend_reads before = {hits_before, misses_before}, recent = {hits, misses};

    return trend_judge(before, recent, 1000).direction;
}

static void a_tenth_of_the_rarer_of_hits_and_misses_is_a_change(void **state)
{
    (void)state;
    assert_int_equal(judge(500, 500, 550, 450), TREND_BETTER);
    assert_int_equal(judge(500, 500, 450, 550), TREND_WORSE);
    assert_int_equal(judge(500, 500, 549, 451), TREND_STEADY);
    assert_int_equal(judge(800, 200, 810, 190), TREND_STEADY);
    assert_int_equal(judge(800, 200, 820, 180), TREND_BETTER);
    assert_int_equal(judge(100, 900, 110, 890), TREND_BETTER);
    assert_int_equal(judge(100, 900, 90, 910), TREND_WORSE);
}

static void half_a_percentage_point_is_the_least_change(void **state)
{
    (void)state;
    assert_int_equal(judge(9900, 100, 9850, 150), TREND_WORSE);
    assert_int_equal(judge(9900, 100, 9851, 149), TREND_STEADY);
    assert_int_equal(judge(9950, 50, 10000, 0), TREND_BETTER);
    assert_int_equal(judge(10000, 0, 10000, 0), TREND_STEADY);
    assert_int_equal(judge(0, 1000, 0, 1000), TREND_STEADY);
}

static void too_few_reads_say_nothing(void **state)
{
    const struct trend_reads few = {TREND_READS_MIN - 1, 0}, enough = {0, TREND_READS_MIN};

    (void)state;
    assert_int_equal(trend_judge(few, enough, 1000).direction, TREND_UNKNOWN);
    assert_int_equal(trend_judge(enough, few, 1000).direction, TREND_UNKNOWN);
    assert_int_equal(trend_judge(enough, enough, 1000).direction, TREND_STEADY);
    assert_int_equal(trend_judge(enough, enough, 0).direction, TREND_UNKNOWN);
}

static void ratios_are_told_where_something_was_read(void **state)
{
    const struct trend_reads none = {0, 0}, some = {3, 1};
    const struct trend trend = trend_judge(none, some, 60000);

    (void)state;
    assert_true(trend.before < 0);
    assert_true(trend.recent == 0.75);
    assert_int_equal(trend.span_ms, 60000);
    assert_string_equal(trend_name(TREND_BETTER), "better");
    assert_string_equal(trend_name(TREND_UNKNOWN), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_tenth_of_the_rarer_of_hits_and_misses_is_a_change),
        cmocka_unit_test(half_a_percentage_point_is_the_least_change),
        cmocka_unit_test(too_few_reads_say_nothing),
        cmocka_unit_test(ratios_are_told_where_something_was_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
