/*
 * test_breaker.c - proves of breaker.h: what opens it, that only the proxy's own proofs close it,
 * that evidence of before a change counts for nothing, that flapping is damped and bounded
 */
#include "upstream/breaker.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define MS INT64_C(1000)
#define SECOND INT64_C(1000000)

static const struct breaker_settings settings = {
    .failures = 5,
    .rate_percent = 50,
    .window_us = 10 * SECOND,
    .latency_us = SECOND,
    .open_min_us = 200 * MS,
    .open_max_us = SECOND,
};

/* Five in a row, at this instant. */
static void fail_at(struct breaker *breaker, int64_t now_us)
{
    for (unsigned i = 0; i < settings.failures; i++) {
        (void)breaker_failed(breaker, &settings, 1, now_us, now_us);
    }
    assert_int_equal(breaker->state, BREAKER_OPEN);
}

static void prove_at(struct breaker *breaker, int64_t now_us)
{
    for (unsigned i = 0; i < BREAKER_PROOFS; i++) {
        assert_int_equal(breaker->state, BREAKER_HALF_OPEN);
        (void)breaker_proof(breaker, &settings, now_us, now_us + 1);
    }
    assert_int_equal(breaker->state, BREAKER_CLOSED);
}

static void failures_in_a_row_open_it(void **state)
{
    struct breaker breaker;

    (void)state;
    breaker_init(&breaker);
    for (unsigned i = 0; i < 4; i++) {
        assert_false(breaker_failed(&breaker, &settings, 1, SECOND, SECOND));
    }
    (void)breaker_ok(&breaker, &settings, 100, SECOND);
    for (unsigned i = 0; i < 4; i++) {
        assert_false(breaker_failed(&breaker, &settings, 1, SECOND, SECOND));
    }
    assert_true(breaker_failed(&breaker, &settings, 1, SECOND, SECOND));
    assert_int_equal(breaker.state, BREAKER_OPEN);
    assert_int_equal(breaker.reason, BREAKER_FAILURES);
    assert_int_equal(breaker.open_us, settings.open_min_us);
}

static void the_rate_of_the_window_opens_it(void **state)
{
    struct breaker breaker;
    int64_t now_us = SECOND;

    (void)state;
    breaker_init(&breaker);
    (void)breaker_ok(&breaker, &settings, 100, now_us);
    for (unsigned i = 0; i < 4; i++) {
        /* A connection with 24 requests; in between the node answers. */
        assert_false(breaker_failed(&breaker, &settings, 24, now_us, now_us));
        (void)breaker_ok(&breaker, &settings, 1, now_us);
    }
    assert_true(breaker_failed(&breaker, &settings, 24, now_us, now_us));
    assert_int_equal(breaker.reason, BREAKER_ERROR_RATE);
}

static void cut_connections_count_for_the_rate_alone(void **state)
{
    struct breaker breaker;

    (void)state;
    breaker_init(&breaker);
    (void)breaker_ok(&breaker, &settings, 100, SECOND);
    for (unsigned i = 0; i < 50; i++) {
        assert_false(breaker_cut(&breaker, &settings, i % 2, SECOND, SECOND));
    }
    assert_true(breaker_cut(&breaker, &settings, 100, SECOND, SECOND));
    assert_int_equal(breaker.reason, BREAKER_ERROR_RATE);
}

static void what_is_out_of_the_window_is_forgotten(void **state)
{
    struct breaker breaker;

    (void)state;
    breaker_init(&breaker);
    for (unsigned i = 0; i < 20; i++) {
        const int64_t now_us = SECOND + i * 3 * SECOND;

        assert_false(breaker_failed(&breaker, &settings, 1000, now_us, now_us));
        (void)breaker_ok(&breaker, &settings, 1, now_us);
    }
    assert_int_equal(breaker.state, BREAKER_CLOSED);
}

static void silence_opens_it(void **state)
{
    struct breaker breaker;

    (void)state;
    breaker_init(&breaker);
    assert_false(breaker_owed(&breaker, &settings, SECOND, 2 * SECOND));
    assert_true(breaker_owed(&breaker, &settings, SECOND, 2 * SECOND + 1));
    assert_int_equal(breaker.reason, BREAKER_SILENCE);
    assert_false(breaker_owed(&breaker, &settings, SECOND, 3 * SECOND));
    breaker_init(&breaker);
    assert_true(breaker_proof(&breaker, &settings, SECOND, 3 * SECOND)); /* far too late */
    assert_int_equal(breaker.state, BREAKER_OPEN);
}

static void who_was_silent_once_may_prove_itself_at_once(void **state)
{
    struct breaker breaker;
    int64_t now_us = SECOND;

    (void)state;
    breaker_init(&breaker);
    assert_false(breaker_stirs(&breaker, &settings, now_us));
    assert_true(breaker_owed(&breaker, &settings, now_us, now_us + 2 * SECOND));
    now_us += 2 * SECOND + 1;
    assert_true(breaker_stirs(&breaker, &settings, now_us));
    prove_at(&breaker, now_us);
    /* Again, so soon: it waits. And who failed in other ways does. */
    assert_true(breaker_owed(&breaker, &settings, now_us, now_us + 2 * SECOND));
    assert_false(breaker_stirs(&breaker, &settings, now_us + 2 * SECOND + 1));
    breaker_init(&breaker);
    fail_at(&breaker, SECOND);
    assert_false(breaker_stirs(&breaker, &settings, SECOND + 1));
}

static void only_proofs_that_were_asked_for_half_open_close_it(void **state)
{
    struct breaker breaker;
    const int64_t half_us = SECOND + settings.open_min_us;

    (void)state;
    breaker_init(&breaker);
    fail_at(&breaker, SECOND);
    assert_false(breaker_proof(&breaker, &settings, SECOND + 1, SECOND + 2));
    (void)breaker_ok(&breaker, &settings, 1000, SECOND + 3);
    assert_false(breaker_tick(&breaker, &settings, half_us - 1));
    assert_true(breaker_tick(&breaker, &settings, half_us));
    assert_int_equal(breaker.state, BREAKER_HALF_OPEN);
    for (unsigned i = 0; i < 10; i++) {
        assert_false(breaker_proof(&breaker, &settings, half_us - 1, half_us + 1));
        (void)breaker_ok(&breaker, &settings, 1000, half_us + 1);
    }
    prove_at(&breaker, half_us + 1);
}

static void failures_of_before_are_no_evidence(void **state)
{
    struct breaker breaker;
    int64_t now_us = SECOND;

    (void)state;
    breaker_init(&breaker);
    fail_at(&breaker, now_us);
    now_us += settings.open_min_us;
    (void)breaker_tick(&breaker, &settings, now_us);
    for (unsigned i = 0; i < 10; i++) {
        assert_false(breaker_failed(&breaker, &settings, 100, now_us - 1, now_us));
    }
    prove_at(&breaker, now_us);
    for (unsigned i = 0; i < 10; i++) {
        assert_false(breaker_failed(&breaker, &settings, 100, now_us - 1, now_us + SECOND));
    }
    assert_int_equal(breaker.state, BREAKER_CLOSED);
    fail_at(&breaker, now_us + 2 * SECOND);
}

static void a_failed_proof_doubles_the_wait_up_to_its_limit(void **state)
{
    static const int64_t expected_ms[] = {200, 400, 800, 1000, 1000};
    struct breaker breaker;
    int64_t now_us = SECOND;

    (void)state;
    breaker_init(&breaker);
    fail_at(&breaker, now_us);
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(breaker.open_us, expected_ms[i] * MS);
        now_us += breaker.open_us;
        assert_true(breaker_tick(&breaker, &settings, now_us));
        assert_true(breaker_failed(&breaker, &settings, 0, now_us, now_us));
        assert_int_equal(breaker.reason, BREAKER_UNPROVEN);
    }
    now_us += breaker.open_us;
    (void)breaker_tick(&breaker, &settings, now_us);
    assert_false(breaker_owed(&breaker, &settings, SECOND, now_us + settings.latency_us));
    assert_true(breaker_owed(&breaker, &settings, SECOND, now_us + settings.latency_us + 1));
}

static void coming_and_going_is_damped(void **state)
{
    struct breaker breaker;
    int64_t now_us = SECOND;

    (void)state;
    breaker_init(&breaker);
    for (unsigned i = 0; i < 4; i++) {
        static const int64_t expected_ms[] = {200, 400, 800, 1000};

        fail_at(&breaker, now_us);
        assert_int_equal(breaker.open_us, expected_ms[i] * MS);
        now_us += breaker.open_us;
        (void)breaker_tick(&breaker, &settings, now_us);
        prove_at(&breaker, now_us);
        now_us += SECOND;
    }
    now_us += 60 * SECOND; /* well for a minute */
    fail_at(&breaker, now_us);
    assert_int_equal(breaker.open_us, settings.open_min_us);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failures_in_a_row_open_it),
        cmocka_unit_test(the_rate_of_the_window_opens_it),
        cmocka_unit_test(cut_connections_count_for_the_rate_alone),
        cmocka_unit_test(what_is_out_of_the_window_is_forgotten),
        cmocka_unit_test(silence_opens_it),
        cmocka_unit_test(who_was_silent_once_may_prove_itself_at_once),
        cmocka_unit_test(only_proofs_that_were_asked_for_half_open_close_it),
        cmocka_unit_test(failures_of_before_are_no_evidence),
        cmocka_unit_test(a_failed_proof_doubles_the_wait_up_to_its_limit),
        cmocka_unit_test(coming_and_going_is_damped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
