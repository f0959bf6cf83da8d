/*
 * test_debounce.c - proves of debounce.h: the first is done at once, what follows within the window
 * is held and comes once at its end, never lost and never twice; windows end in their order; names
 * are told apart; a full table does all at once
 */
#include "coherence/debounce.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define MS INT64_C(1000)

static const struct debounce_what plain = {.kind = DEBOUNCE_DEPENDENCY, .rule = 1, .rules = 6};

static bool hold(struct debounce *debounce, const char *name, int64_t window_us, int64_t now_us)
{
    return debounce_hold(debounce, &plain, bytes_of_string(name), window_us, now_us);
}

static void takes(struct debounce *debounce, int64_t now_us, const char *name)
{
    struct debounce_what what;
    struct bytes taken;

    if (name == NULL) {
        assert_false(debounce_take(debounce, now_us, &what, &taken));
        return;
    }
    assert_true(debounce_take(debounce, now_us, &what, &taken));
    assert_true(bytes_equal(taken, bytes_of_string(name)));
    assert_int_equal(what.rule, 1);
}

static void the_first_is_done_and_the_last_comes_at_the_end(void **state)
{
    struct debounce *debounce = debounce_new();

    (void)state;
    assert_false(hold(debounce, "a", 100 * MS, 0));
    assert_true(hold(debounce, "a", 100 * MS, 1 * MS));
    assert_true(hold(debounce, "a", 100 * MS, 99 * MS));
    takes(debounce, 99 * MS, NULL);
    takes(debounce, 100 * MS, "a");
    takes(debounce, 100 * MS, NULL);
    /* A window begins with what was done at the end of another. */
    assert_true(hold(debounce, "a", 100 * MS, 150 * MS));
    takes(debounce, 199 * MS, NULL);
    takes(debounce, 200 * MS, "a");
    /* One that holds nothing ends. */
    takes(debounce, 300 * MS, NULL);
    assert_int_equal(debounce_count(debounce), 0);
    assert_false(hold(debounce, "a", 100 * MS, 301 * MS));
    debounce_free(&debounce);
}

static void what_is_noted_after_the_end_is_held_for_the_tick(void **state)
{
    struct debounce *debounce = debounce_new();

    (void)state;
    assert_false(hold(debounce, "a", 10 * MS, 0));
    /* The tick is late: the window is over, and nobody has looked yet. */
    assert_true(hold(debounce, "a", 10 * MS, 50 * MS));
    takes(debounce, 51 * MS, "a");
    debounce_free(&debounce);
}

static void windows_end_in_their_order(void **state)
{
    struct debounce *debounce = debounce_new();
    char name[8];

    (void)state;
    for (int i = 0; i < 100; i++) {
        (void)snprintf(name, sizeof(name), "%d", (i * 37) % 100);
        assert_false(hold(debounce, name, (1 + (i * 37) % 100) * MS, 0));
        assert_true(hold(debounce, name, 1 * MS, 0));
    }
    for (int i = 0; i < 100; i++) {
        (void)snprintf(name, sizeof(name), "%d", i);
        takes(debounce, (1 + i) * MS, name);
        takes(debounce, (1 + i) * MS, NULL);
    }
    debounce_free(&debounce);
}

static void kinds_are_told_apart(void **state)
{
    struct debounce *debounce = debounce_new();
    const struct debounce_what others[] = {
        {.kind = DEBOUNCE_EVENT, .rule = 1},
        {.kind = DEBOUNCE_DEPENDENCY, .rule = 2},
        {.kind = DEBOUNCE_DEPENDENCY, .rule = 1, .is_glob = true},
        {.kind = DEBOUNCE_EVENT, .rule = 1, .db = 3},
    };

    (void)state;
    assert_false(hold(debounce, "a", 100 * MS, 0));
    for (unsigned i = 0; i < 4; i++) {
        assert_false(debounce_hold(debounce, &others[i], BYTES("a"), 100 * MS, 0));
    }
    assert_false(hold(debounce, "b", 100 * MS, 0));
    assert_int_equal(debounce_count(debounce), 6);
    debounce_free(&debounce);
}

static void the_rules_of_all_ways_are_merged(void **state)
{
    struct debounce *debounce = debounce_new();
    struct debounce_what what = {.rules = 7}, taken;
    struct bytes name;

    (void)state;
    assert_false(debounce_hold(debounce, &what, BYTES("a"), MS, 0));
    what.rules = 6;
    assert_true(debounce_hold(debounce, &what, BYTES("a"), MS, 0));
    what.rules = 3;
    assert_true(debounce_hold(debounce, &what, BYTES("a"), MS, 0));
    assert_true(debounce_take(debounce, MS, &taken, &name));
    assert_int_equal(taken.rules, 2);
    debounce_free(&debounce);
}

static void a_full_table_holds_nothing_more(void **state)
{
    struct debounce *debounce = debounce_new();
    char name[8];

    (void)state;
    for (unsigned i = 0; i < DEBOUNCE_MAX; i++) {
        (void)snprintf(name, sizeof(name), "%u", i);
        assert_false(hold(debounce, name, 100 * MS, 0));
    }
    assert_false(hold(debounce, "one more", 100 * MS, 0));
    assert_false(hold(debounce, "one more", 100 * MS, 0));
    assert_true(hold(debounce, "0", 100 * MS, 0));
    takes(debounce, 100 * MS, "0");
    takes(debounce, 100 * MS, NULL);
    assert_int_equal(debounce_count(debounce), 1);
    debounce_free(&debounce);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_is_done_and_the_last_comes_at_the_end),
        cmocka_unit_test(what_is_noted_after_the_end_is_held_for_the_tick),
        cmocka_unit_test(windows_end_in_their_order),
        cmocka_unit_test(kinds_are_told_apart),
        cmocka_unit_test(the_rules_of_all_ways_are_merged),
        cmocka_unit_test(a_full_table_holds_nothing_more),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
