/*
 * Proves of epochs.h: incarnations live until they are closed, once; numbers that nothing carried
 * are free at once and the others after a sweep, and are given out in turn; watermarks never go
 * back; a slot that changes its owner has a new word and is marked in the former owner's
 * incarnations alone; the sweep forgets what was there before it began, and nothing else.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "cache/epochs.h"

static int set_up(void **state)
{
    *state = epochs_new();
    return *state == NULL;
}

static int tear_down(void **state)
{
    struct epochs *epochs = *state;

    epochs_free(&epochs);
    return 0;
}

static bool is_live(struct epochs *epochs, uint16_t number)
{
    return epochs_is_live(epochs_at(epochs, number));
}

static bool has_moved(struct epochs *epochs, uint16_t number, unsigned slot)
{
    return epochs_has_moved(epochs_at(epochs, number), slot);
}

static void incarnation_lives_until_closed(void **state)
{
    struct epochs *epochs = *state;
    const uint16_t one = epochs_open(epochs, 3, 1, 1000);
    const uint16_t two = epochs_open(epochs, 4, 2, 2000);

    assert_int_not_equal(one, EPOCHS_NONE);
    assert_int_not_equal(one, two);
    assert_int_equal(epochs_at(epochs, one)->node, 3);
    assert_int_equal(epochs_at(epochs, two)->worker, 2);
    assert_ptr_equal(epochs_at(epochs, two), epochs_at(epochs, 0) + two);
    assert_true(is_live(epochs, one));
    epochs_close(epochs, one);
    epochs_close(epochs, one);
    epochs_close(epochs, EPOCHS_NONE);
    assert_false(is_live(epochs, one));
    assert_true(is_live(epochs, two));
    epochs_close_all(epochs);
    assert_false(is_live(epochs, two));
    assert_false(is_live(epochs, EPOCHS_NONE));
}

static void watermark_never_goes_back(void **state)
{
    struct epochs *epochs = *state;
    const uint16_t one = epochs_open(epochs, 3, 1, 1000);
    const uint16_t two = epochs_open(epochs, 3, 2, 500);

    assert_true(epochs_advance(epochs, one, 1500));
    assert_true(epochs_advance(epochs, one, 1200));
    assert_int_equal(epochs_at(epochs, one)->watermark_us, 1500);
    assert_int_equal(epochs_oldest_watermark(epochs), 500);
    epochs_close(epochs, two);
    assert_int_equal(epochs_oldest_watermark(epochs), 1500);
    assert_false(epochs_advance(epochs, two, 9000));
    assert_false(epochs_advance(epochs, EPOCHS_NONE, 9000));
    epochs_close_all(epochs);
    assert_int_equal(epochs_oldest_watermark(epochs), INT64_MAX);
}

static void unused_numbers_are_never_exhausted(void **state)
{
    struct epochs *epochs = *state;
    uint16_t last = EPOCHS_NONE;

    for (unsigned i = 0; i < 200000; i++) {
        const uint16_t number = epochs_open(epochs, 1, 0, 0);
        assert_int_not_equal(number, EPOCHS_NONE);
        assert_int_not_equal(number, last);
        last = number;
        if (i % 2 == 0) {
            epochs_close(epochs, number);
        } else {
            epochs_close_all(epochs);
        }
    }
    assert_false(epochs_wants_sweep(epochs));
}

static void used_numbers_come_back_by_the_sweep(void **state)
{
    struct epochs *epochs = *state;

    for (unsigned i = 0; i < 65535; i++) {
        const uint16_t number = epochs_open(epochs, 1, 0, 0);
        assert_int_not_equal(number, EPOCHS_NONE);
        assert_true(epochs_use(epochs_at(epochs, number)));
        epochs_close(epochs, number);
    }
    assert_int_equal(epochs_open(epochs, 1, 0, 0), EPOCHS_NONE);
    assert_true(epochs_wants_sweep(epochs));
    epochs_sweep_begin(epochs);
    assert_int_equal(epochs_open(epochs, 1, 0, 0), EPOCHS_NONE);
    epochs_sweep_end(epochs);
    assert_int_not_equal(epochs_open(epochs, 1, 0, 0), EPOCHS_NONE);
    assert_false(epochs_wants_sweep(epochs));
}

static void number_closed_during_a_sweep_waits_for_the_next(void **state)
{
    struct epochs *epochs = *state;
    uint16_t numbers[65536];

    for (unsigned i = 0; i < 65535; i++) {
        numbers[i] = epochs_open(epochs, 1, 0, 0);
        (void)epochs_use(epochs_at(epochs, numbers[i]));
    }
    epochs_sweep_begin(epochs);
    epochs_close(epochs, numbers[7]);
    epochs_sweep_end(epochs);
    assert_int_equal(epochs_open(epochs, 1, 0, 0), EPOCHS_NONE);
    epochs_sweep_begin(epochs);
    epochs_sweep_end(epochs);
    assert_int_equal(epochs_open(epochs, 1, 0, 0), numbers[7]);
    assert_false(epochs_use(epochs_at(epochs, EPOCHS_NONE)));
}

static void slot_word_changes_with_the_owner(void **state)
{
    struct epochs *epochs = *state;
    const uint32_t first = epochs_slot_word(epochs, 100);

    assert_int_equal(epochs_slot_owner(first), 0);
    assert_true(epochs_assign(epochs, 100, 5));
    const uint32_t second = epochs_slot_word(epochs, 100);
    assert_int_equal(epochs_slot_owner(second), 5);
    assert_false(epochs_assign(epochs, 100, 5));
    assert_int_equal(epochs_slot_word(epochs, 100), second);
    epochs_disturb(epochs, 100);
    assert_int_equal(epochs_slot_owner(epochs_slot_word(epochs, 100)), 5);
    assert_int_not_equal(epochs_slot_word(epochs, 100), second);
    assert_int_equal(epochs_slot_owner(epochs_slot_word(epochs, 101)), 0);
}

static void slot_that_leaves_is_marked_at_the_former_owner_alone(void **state)
{
    struct epochs *epochs = *state;
    const uint16_t old_a = epochs_open(epochs, 5, 0, 0);
    const uint16_t old_b = epochs_open(epochs, 5, 1, 0);
    const uint16_t other = epochs_open(epochs, 6, 0, 0);

    epochs_assign(epochs, 100, 5);
    assert_false(has_moved(epochs, old_a, 100));
    assert_false(epochs_has_moves(epochs_at(epochs, old_a)));
    epochs_assign(epochs, 100, 6);
    assert_true(has_moved(epochs, old_a, 100));
    assert_true(has_moved(epochs, old_b, 100));
    assert_false(has_moved(epochs, old_a, 99));
    assert_false(has_moved(epochs, other, 100));
    assert_false(has_moved(epochs, epochs_open(epochs, 5, 2, 0), 100));
    assert_true(epochs_wants_sweep(epochs));
    epochs_disturb(epochs, 100);
    assert_true(has_moved(epochs, other, 100));
}

static void sweep_forgets_the_marks_from_before_it(void **state)
{
    struct epochs *epochs = *state;
    const uint16_t link = epochs_open(epochs, 5, 0, 0);

    epochs_assign(epochs, 100, 5);
    epochs_assign(epochs, 200, 5);
    epochs_assign(epochs, 100, 6);
    epochs_sweep_begin(epochs);
    epochs_assign(epochs, 200, 6);
    epochs_sweep_end(epochs);
    assert_false(has_moved(epochs, link, 100));
    assert_true(has_moved(epochs, link, 200));
    assert_true(epochs_wants_sweep(epochs));
    epochs_sweep_begin(epochs);
    epochs_sweep_end(epochs);
    assert_false(has_moved(epochs, link, 200));
    assert_false(epochs_wants_sweep(epochs));
}

static void marks_of_a_new_life_survive_the_sweep_of_the_former(void **state)
{
    struct epochs *epochs = *state;
    const uint16_t link = epochs_open(epochs, 5, 0, 0);
    uint16_t again;

    epochs_assign(epochs, 100, 5);
    epochs_assign(epochs, 100, 6);
    epochs_assign(epochs, 100, 5);
    epochs_sweep_begin(epochs);
    epochs_close(epochs, link);
    do {
        again = epochs_open(epochs, 5, 0, 0);
        if (again != link) {
            epochs_close(epochs, again);
        }
    } while (again != link);
    assert_false(has_moved(epochs, again, 100));
    epochs_assign(epochs, 100, 6);
    epochs_sweep_end(epochs);
    assert_true(has_moved(epochs, again, 100));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(incarnation_lives_until_closed),
        TEST(watermark_never_goes_back),
        TEST(unused_numbers_are_never_exhausted),
        TEST(used_numbers_come_back_by_the_sweep),
        TEST(number_closed_during_a_sweep_waits_for_the_next),
        TEST(slot_word_changes_with_the_owner),
        TEST(slot_that_leaves_is_marked_at_the_former_owner_alone),
        TEST(sweep_forgets_the_marks_from_before_it),
        TEST(marks_of_a_new_life_survive_the_sweep_of_the_former),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
