/*
 * test_bucket.c - proves of bucket.h: a second's worth at once, then the rate; threads together get
 * no more than one would
 */
#include "base/bucket.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define NOW INT64_C(5000000000)
#define SECOND 1000000

static unsigned take_all(struct bucket *bucket, int64_t rate, int64_t now_us, unsigned tries)
{
    unsigned n = 0;

    for (unsigned i = 0; i < tries; i++) {
        n += bucket_take(bucket, rate, now_us);
    }
    return n;
}

static void a_second_s_worth_at_once_then_the_rate(void **state)
{
    struct bucket bucket = {0};

    (void)state;
    assert_int_equal(take_all(&bucket, 10, NOW, 100), 10);
    assert_int_equal(take_all(&bucket, 10, NOW + SECOND / 10 - 1, 100), 0);
    assert_int_equal(take_all(&bucket, 10, NOW + SECOND / 10, 100), 1);
    assert_int_equal(take_all(&bucket, 10, NOW + SECOND, 100), 9);
    assert_int_equal(take_all(&bucket, 10, NOW + 100 * (int64_t)SECOND, 100), 10);
}

static void odd_rates(void **state)
{
    static const int64_t rates[] = {1, 3, 7, 999, 1000000, 10000000};

    (void)state;
    for (unsigned i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
        struct bucket bucket = {0};
        const unsigned rate = (unsigned)rates[i];
        const unsigned n = take_all(&bucket, rates[i], NOW, rate + 2);

        /* Nanoseconds are cut: of a high rate one more may fit. */
        assert_in_range(n, rate, rate + 1);
    }
}

static void what_is_returned_can_be_taken_again(void **state)
{
    struct bucket bucket = {0};

    (void)state;
    assert_int_equal(take_all(&bucket, 5, NOW, 100), 5);
    bucket_return(&bucket, 5);
    assert_int_equal(take_all(&bucket, 5, NOW, 100), 1);
}

static void *take_many(void *arg)
{
    return (void *)(uintptr_t)take_all(arg, 1000, NOW, 5000);
}

static void threads_share_it(void **state)
{
    struct bucket bucket = {0};
    pthread_t threads[4];
    uintptr_t sum = 0;

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, take_many, &bucket), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        void *n;

        assert_int_equal(pthread_join(threads[i], &n), 0);
        sum += (uintptr_t)n;
    }
    assert_int_equal(sum, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_second_s_worth_at_once_then_the_rate),
        cmocka_unit_test(odd_rates),
        cmocka_unit_test(what_is_returned_can_be_taken_again),
        cmocka_unit_test(threads_share_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
