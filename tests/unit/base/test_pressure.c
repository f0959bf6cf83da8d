/*
 * test_pressure.c - proves of pressure.h: stages begin at once and end one by one after a calm
 * while; tier 1 gives way before clients do; it gets what others leave, within its bounds; waiting
 * for memory makes it smaller, to half at most
 */
#include "base/pressure.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define LIMIT ((size_t)1000)
#define SECOND 1000000

static void stages_rise_at_once(void **state)
{
    struct pressure pressure = {0};

    (void)state;
    assert_int_equal(pressure_step(&pressure, 849, LIMIT, false, 1), PRESSURE_NONE);
    assert_int_equal(pressure_step(&pressure, 850, LIMIT, false, 2), PRESSURE_SHRINK);
    assert_int_equal(pressure_step(&pressure, 910, LIMIT, false, 3), PRESSURE_CLOSE);
    assert_int_equal(pressure_step(&pressure, 950, LIMIT, false, 4), PRESSURE_SHED);
    pressure = (struct pressure){0};
    assert_int_equal(pressure_step(&pressure, 2000, LIMIT, true, 5), PRESSURE_SHED);
}

static void tier_one_gives_way_first(void **state)
{
    struct pressure pressure = {0};

    (void)state;
    assert_int_equal(pressure_step(&pressure, 949, LIMIT, true, 1), PRESSURE_SHRINK);
    assert_int_equal(pressure_step(&pressure, 949, LIMIT, false, 2), PRESSURE_CLOSE);
    /* It does not become one of the milder stage because tier 1 has grown again. */
    assert_int_equal(pressure_step(&pressure, 949, LIMIT, true, 3), PRESSURE_CLOSE);
}

static void stages_fall_one_by_one_when_it_is_calm(void **state)
{
    struct pressure pressure = {.stage = PRESSURE_SHED};
    int64_t now = 10 * SECOND;

    (void)state;
    /* Not far enough below, for ever so long. */
    for (int i = 0; i < 100; i++, now += SECOND) {
        assert_int_equal(pressure_step(&pressure, 920, LIMIT, false, now), PRESSURE_SHED);
    }
    assert_int_equal(pressure_step(&pressure, 100, LIMIT, false, now), PRESSURE_SHED);
    assert_int_equal(pressure_step(&pressure, 100, LIMIT, false, now + SECOND - 1), PRESSURE_SHED);
    /* Interrupted: the second begins anew. */
    assert_int_equal(pressure_step(&pressure, 930, LIMIT, false, now + SECOND), PRESSURE_SHED);
    assert_int_equal(pressure_step(&pressure, 100, LIMIT, false, now + 2 * SECOND), PRESSURE_SHED);
    assert_int_equal(pressure_step(&pressure, 100, LIMIT, false, now + 3 * SECOND), PRESSURE_CLOSE);
    assert_int_equal(pressure_step(&pressure, 100, LIMIT, false, now + 3 * SECOND + 1),
                     PRESSURE_CLOSE);
    assert_int_equal(pressure_step(&pressure, 100, LIMIT, false, now + 5 * SECOND),
                     PRESSURE_SHRINK);
    (void)pressure_step(&pressure, 100, LIMIT, false, now + 6 * SECOND);
    assert_int_equal(pressure_step(&pressure, 100, LIMIT, false, now + 8 * SECOND), PRESSURE_NONE);
    assert_int_equal(pressure_step(&pressure, 100, LIMIT, false, now + 99 * SECOND), PRESSURE_NONE);
}

static void tier_one_gets_what_others_leave(void **state)
{
    (void)state;
    /* Others hold 200 of 1000: 600 are left of 800. */
    assert_int_equal(pressure_fit(PRESSURE_NONE, 500, LIMIT, 300, 50, 10000), 600 - 37);
    assert_int_equal(pressure_fit(PRESSURE_SHRINK, 500, LIMIT, 300, 50, 10000), 520 - 32);
    assert_int_equal(pressure_fit(PRESSURE_NONE, 500, LIMIT, 300, 50, 400), 400);
    assert_int_equal(pressure_fit(PRESSURE_SHED, 950, LIMIT, 0, 50, 400), 50);
    /* Figures of two moments. */
    assert_int_equal(pressure_fit(PRESSURE_NONE, 100, LIMIT, 300, 50, 10000), 800 - 50);
}

static void waiting_for_memory_makes_it_smaller(void **state)
{
    unsigned kept = 100;

    (void)state;
    assert_int_equal(pressure_stall_step(kept, 9, 10), 100);
    kept = pressure_stall_step(kept, 10, 10);
    assert_int_equal(kept, 95);
    for (int i = 0; i < 50; i++) {
        kept = pressure_stall_step(kept, 100, 10);
    }
    assert_int_equal(kept, 50);
    assert_int_equal(pressure_stall_step(kept, 9, 10), 51);
    assert_int_equal(pressure_stall_step(kept, 100, 0), 51); /* not looked at */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stages_rise_at_once),
        cmocka_unit_test(tier_one_gives_way_first),
        cmocka_unit_test(stages_fall_one_by_one_when_it_is_calm),
        cmocka_unit_test(tier_one_gets_what_others_leave),
        cmocka_unit_test(waiting_for_memory_makes_it_smaller),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
