/*
 * test_hot_keys.c - proves of hot_keys.h: nothing is kept while it is off; what threads saw is
 * found together; samples stand for as many as were passed over; who reads never holds up who adds.
 */
#include "cache/hot_keys.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { THREADS = 3, ROUNDS = 20000 };

static struct bytes name_of(uint64_t number)
{
    static const char *const names[] = {"a", "b", "c", "d"};

    return bytes_of_string(names[number % 4]);
}

static void *note_many(void *arg)
{
    (void)arg;
    for (uint64_t i = 0; i < ROUNDS; i++) {
        const uint64_t number = i % 10 < 7 ? 0 : 1 + i % 3;

        hot_keys_note(HOT_REQUESTS, number + 1, name_of(number), 1);
        hot_keys_size(number + 1, name_of(number), 1000 * (number + 1));
    }
    return NULL;
}

static uint64_t count_of(enum hot_kind kind, uint64_t hash)
{
    struct top_keys keys;
    uint64_t count = 0;

    assert_int_equal(hot_keys_collect(kind, &keys), 0);
    for (uint32_t i = 0; i < keys.n; i++) {
        count += keys.items[i].hash == hash ? keys.items[i].count : 0;
    }
    top_keys_fini(&keys);
    return count;
}

static void off_means_nothing_is_kept(void **state)
{
    (void)state;
    hot_keys_configure(0, 100, 60000000);
    assert_int_equal(hot_keys_interval(), 0);
    hot_keys_note(HOT_MISSES, 1, BYTES("k"), 1);
    hot_keys_size(1, BYTES("k"), 100);
    hot_keys_hit(1, BYTES("k"), 100, 0);
    assert_int_equal(count_of(HOT_MISSES, 1), 0);
    assert_int_equal(count_of(HOT_SIZES, 1), 0);
    assert_int_equal(count_of(HOT_REQUESTS, 1), 0);
}

/* Exactly, as nobody reads meanwhile. */
static void threads_are_counted_together(void **state)
{
    pthread_t threads[THREADS];

    (void)state;
    hot_keys_configure(1, 100, INT64_C(3600000000));
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, note_many, NULL), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(count_of(HOT_REQUESTS, 1), THREADS * ROUNDS * 7 / 10);
    assert_int_equal(count_of(HOT_SIZES, 4), 4000);
    hot_keys_reset();
    assert_int_equal(count_of(HOT_REQUESTS, 1), 0);
    assert_int_equal(count_of(HOT_SIZES, 4), 0);
}

static void samples_stand_for_what_was_passed_over(void **state)
{
    (void)state;
    hot_keys_configure(10, 100, INT64_C(3600000000));
    for (unsigned i = 0; i < 100000; i++) {
        hot_keys_note(HOT_INVALIDATIONS, 7, BYTES("k"), 1);
    }
    assert_in_range(count_of(HOT_INVALIDATIONS, 7), 95000, 105000);
    hot_keys_reset();
}

static void readers_and_writers_meet(void **state)
{
    pthread_t threads[THREADS];

    (void)state;
    hot_keys_configure(1, 50, 1000);
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, note_many, NULL), 0);
    }
    for (unsigned i = 0; i < 200; i++) {
        (void)count_of(HOT_REQUESTS, 1);
        hot_keys_configure(1, 50 + i % 2, 1000);
    }
    hot_keys_reset();
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(off_means_nothing_is_kept),
        cmocka_unit_test(threads_are_counted_together),
        cmocka_unit_test(samples_stand_for_what_was_passed_over),
        cmocka_unit_test(readers_and_writers_meet),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
