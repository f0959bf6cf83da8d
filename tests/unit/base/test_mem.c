/*
 * test_mem.c - proves of mem.h: what comes and goes is counted, also across threads; near the
 * bounds large blocks are refused, then small ones, and who is exempt gets them; one alarm
 */
#include "base/mem.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define KB ((size_t)1024)
#define MB ((size_t)1 << 20)

static const struct mem_bounds none = {INT64_MAX, INT64_MAX, INT64_MAX};

static void what_comes_and_goes_is_counted(void **state)
{
    const int64_t before = mem_live_bytes();
    void *block = mem_try_alloc(4 * MB);

    (void)state;
    assert_non_null(block);
    assert_in_range(mem_live_bytes() - before, 4 * MB, 5 * MB);
    block = mem_try_realloc(block, 8 * MB);
    assert_non_null(block);
    assert_in_range(mem_live_bytes() - before, 8 * MB, 9 * MB);
    mem_free(block);
    assert_true(mem_live_bytes() - before < (int64_t)MB);
    mem_note(2 * (int64_t)MB);
    assert_in_range(mem_live_bytes() - before, 2 * MB - 128 * KB, 3 * MB);
    mem_note(-2 * (int64_t)MB);
}

static void what_was_let_in_is_not_refused(void **state)
{
    const struct mem_bounds beyond = {INT64_MAX, INT64_MIN / 2, INT64_MIN / 2};
    const int64_t before = mem_live_bytes();
    unsigned char *block = mem_alloc(16);

    (void)state;
    block[15] = 7;
    mem_set_bounds(&beyond);
    assert_null(mem_try_realloc(block, 4 * MB));
    block = mem_realloc(block, 4 * MB);
    assert_int_equal(block[15], 7);
    assert_in_range(mem_live_bytes() - before, 4 * MB - 64 * KB, 5 * MB);
    mem_set_bounds(&none);
    mem_free(block);
    assert_true(mem_live_bytes() - before < (int64_t)MB);
}

static void *free_block(void *block)
{
    mem_free(block);
    return NULL;
}

static void another_thread_may_free_it(void **state)
{
    const int64_t before = mem_live_bytes();
    void *const block = mem_alloc(2 * MB);
    pthread_t thread;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, free_block, block), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(mem_live_bytes() - before < (int64_t)MB);
}

static void large_blocks_are_refused_first(void **state)
{
    const uint64_t n_before = mem_count_refused();
    const struct mem_bounds near = {INT64_MAX, mem_live_bytes() - (int64_t)MB,
                                    mem_live_bytes() + (int64_t)MB};
    void *block = mem_try_alloc(32 * KB);

    (void)state;
    assert_non_null(block);
    mem_set_bounds(&near);
    assert_true(mem_is_short());
    assert_null(mem_try_alloc(65 * KB));
    assert_null(mem_try_realloc(block, 65 * KB));
    block = mem_try_realloc(block, 16 * KB); /* smaller is always granted */
    assert_non_null(block);
    mem_free(block);
    block = mem_try_alloc(64 * KB);
    assert_non_null(block);
    mem_free(block);
    mem_exempt(true);
    block = mem_try_alloc(65 * KB);
    mem_exempt(false);
    assert_non_null(block);
    mem_free(block);
    assert_int_equal(mem_count_refused() - n_before, 2);
    mem_set_bounds(&none);
    assert_false(mem_is_short());
}

static void then_small_ones(void **state)
{
    const int64_t live = mem_live_bytes();
    const struct mem_bounds end = {INT64_MAX, live - (int64_t)MB, live - (int64_t)MB};
    void *block;

    (void)state;
    mem_set_bounds(&end);
    assert_null(mem_try_alloc(64 * KB));
    block = mem_try_alloc(4 * KB);
    assert_non_null(block);
    mem_free(block);
    block = mem_alloc(64 * KB); /* what cannot fail does not */
    mem_free(block);
    mem_set_bounds(&none);
}

static void count_alarm(void *context)
{
    ++*(unsigned *)context;
}

static void one_alarm(void **state)
{
    struct mem_bounds bounds = none;
    unsigned n_alarms = 0;
    void *blocks[8];

    (void)state;
    mem_set_alarm(count_alarm, &n_alarms);
    bounds.alarm_at = mem_live_bytes() + 3 * (int64_t)MB;
    mem_set_bounds(&bounds);
    for (unsigned i = 0; i < 8; i++) {
        blocks[i] = mem_alloc(MB);
        assert_int_equal(n_alarms, i >= 3 ? 1 : (i < 2 ? 0 : n_alarms));
    }
    for (unsigned i = 0; i < 8; i++) {
        mem_free(blocks[i]);
    }
    mem_set_bounds(&none);
    mem_set_alarm(NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_comes_and_goes_is_counted),
        cmocka_unit_test(what_was_let_in_is_not_refused),
        cmocka_unit_test(another_thread_may_free_it),
        cmocka_unit_test(large_blocks_are_refused_first),
        cmocka_unit_test(then_small_ones),
        cmocka_unit_test(one_alarm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
