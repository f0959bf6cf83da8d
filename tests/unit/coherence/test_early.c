/*
 * test_early.c - proves of early.h: who is chosen to renew (XFetch) follows an exponential
 * distribution of the cost, past the deadline everybody is; costs are averaged and have a least
 */
#include "coherence/early.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void past_the_deadline_everybody_is_due(void **state)
{
    (void)state;
    assert_true(early_is_due(0, 0, 12345));
    assert_true(early_is_due(-1, 1000, UINT32_MAX));
}

static void far_away_nobody_is(void **state)
{
    (void)state;
    /* -ln(2^-32) is 22.2: no number makes more of the cost than that. */
    assert_true(early_is_due(22100, 1000, 0));
    assert_false(early_is_due(22300, 1000, 0));
    assert_false(early_is_due(1, 1000, UINT32_MAX));
    assert_false(early_is_due(1, 0, 0));
}

static void the_share_that_is_due_falls_by_e_with_each_cost(void **state)
{
    static const unsigned expected[] = {10000, 3679, 1353, 498};

    (void)state;
    for (unsigned i = 1; i < 4; i++) {
        unsigned n = 0;

        /* Evenly over all numbers. */
        for (uint32_t step = 0; step < 10000; step++) {
            n += early_is_due(1000 * (int64_t)i, 1000, step * 429496u);
        }
        assert_in_range(n, expected[i] - 5, expected[i] + 5);
    }
}

static void numbers_differ_and_spread(void **state)
{
    unsigned n_high = 0;

    (void)state;
    for (unsigned i = 0; i < 1000; i++) {
        n_high += early_random() >> 31;
    }
    assert_in_range(n_high, 400, 600);
}

static void fetches_are_averaged_above_a_least_cost(void **state)
{
    struct early *early = early_new();
    int64_t least;

    (void)state;
    least = early_fetch_cost(early, 3);
    assert_true(least > 0);
    early_note_fetch(early, 3, 100);
    assert_int_equal(early_fetch_cost(early, 3), least);
    for (unsigned i = 0; i < 100; i++) {
        early_note_fetch(early, 3, 80000);
    }
    assert_in_range(early_fetch_cost(early, 3), 79000, 80000);
    assert_int_equal(early_fetch_cost(early, 4), least);
    early_free(&early);
    assert_null(early);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(past_the_deadline_everybody_is_due),
        cmocka_unit_test(far_away_nobody_is),
        cmocka_unit_test(the_share_that_is_due_falls_by_e_with_each_cost),
        cmocka_unit_test(numbers_differ_and_spread),
        cmocka_unit_test(fetches_are_averaged_above_a_least_cost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
