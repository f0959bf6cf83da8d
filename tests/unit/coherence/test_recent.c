/*
 * test_recent.c - proves of recent.h: a replica shows a key only with all that was shown of it
 * before
 */
#include "coherence/recent.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define MS 1000
#define KEY UINT64_C(0x1234)
#define OTHER UINT64_C(0x1235)

static void a_written_key_waits_for_the_replica(void **state)
{
    struct recent *recent = recent_new();

    (void)state;
    assert_true(recent_allows(recent, KEY, 7, 100 * MS));
    recent_note(recent, KEY, 200 * MS);
    assert_false(recent_allows(recent, KEY, 7, 199 * MS));
    assert_false(recent_allows(recent, KEY, 7, 200 * MS));
    assert_true(recent_allows(recent, KEY, 7, 203 * MS));
    assert_true(recent_allows(recent, OTHER, 7, 100 * MS));
    recent_free(&recent);
}

static void one_replica_goes_on_another_must_have_caught_up(void **state)
{
    struct recent *recent = recent_new();

    (void)state;
    recent_note_replica(recent, KEY, 7, 250 * MS, 300 * MS);
    assert_true(recent_allows(recent, KEY, 7, 250 * MS));
    assert_false(recent_allows(recent, KEY, 8, 290 * MS));
    assert_true(recent_allows(recent, KEY, 8, 303 * MS));
    recent_free(&recent);
}

static void a_late_reply_of_a_replica_hides_no_write(void **state)
{
    struct recent *recent = recent_new();

    (void)state;
    recent_note(recent, KEY, 200 * MS);
    /* Asked for before the write. */
    recent_note_replica(recent, KEY, 7, 150 * MS, 210 * MS);
    assert_false(recent_allows(recent, KEY, 7, 150 * MS));
    /* In the same unit of time. */
    recent_note_replica(recent, OTHER, 7, 100 * MS, 200 * MS);
    recent_note(recent, OTHER, 200 * MS + 100);
    assert_false(recent_allows(recent, OTHER, 7, 199 * MS));
    /* One that has the write may show it. */
    recent_note_replica(recent, KEY, 7, 230 * MS, 240 * MS);
    assert_true(recent_allows(recent, KEY, 7, 230 * MS));
    recent_free(&recent);
}

static void a_late_reply_of_a_replica_may_have_shown_more(void **state)
{
    struct recent *recent = recent_new();

    (void)state;
    recent_note(recent, KEY, 200 * MS);
    /* Asked for before that write, it may show a later one that the next replica lacks. */
    recent_note_replica(recent, KEY, 7, 150 * MS, 300 * MS);
    assert_false(recent_allows(recent, KEY, 8, 250 * MS));
    assert_false(recent_allows(recent, KEY, 7, 250 * MS));
    assert_true(recent_allows(recent, KEY, 8, 303 * MS));
    /* Two replicas in one unit of time: neither vouches for the other. */
    recent_note_replica(recent, OTHER, 7, 150 * MS, 300 * MS);
    recent_note_replica(recent, OTHER, 8, 150 * MS, 300 * MS);
    assert_false(recent_allows(recent, OTHER, 7, 250 * MS));
    assert_false(recent_allows(recent, OTHER, 8, 250 * MS));
    recent_free(&recent);
}

static void what_may_have_changed_every_key_holds_for_all(void **state)
{
    struct recent *recent = recent_new();

    (void)state;
    recent_note_replica(recent, KEY, 7, 250 * MS, 300 * MS);
    recent_note_all(recent, 400 * MS);
    assert_false(recent_allows(recent, KEY, 7, 400 * MS));
    assert_false(recent_allows(recent, OTHER, 8, 399 * MS));
    assert_true(recent_allows(recent, KEY, 7, 401 * MS));
    recent_free(&recent);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_written_key_waits_for_the_replica),
        cmocka_unit_test(one_replica_goes_on_another_must_have_caught_up),
        cmocka_unit_test(a_late_reply_of_a_replica_hides_no_write),
        cmocka_unit_test(a_late_reply_of_a_replica_may_have_shown_more),
        cmocka_unit_test(what_may_have_changed_every_key_holds_for_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
