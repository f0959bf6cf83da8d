/*
 * test_stats.c - proves of stats.h: sums over threads, also over those that ended, that one metric
 * leaves the others alone, and which bucket an observation falls into
 */
#include "base/stats.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { THREADS = 4, ROUNDS = 100000 };

static void *count_many(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < ROUNDS; i++) {
        stats_add(METRIC_commands, 1);
        stats_ns_add(3, NS_METRIC_hits, 2);
        stats_observe((enum histogram)0, 15, 1);
    }
    return NULL;
}

static void nothing_is_lost_when_threads_end(void **state)
{
    pthread_t threads[THREADS];
    uint64_t buckets[STATS_BUCKETS];
    uint64_t sum_us;
    uint64_t seen = 0;

    (void)state;
    stats_add(METRIC_commands, 5);
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, count_many, NULL), 0);
    }
    for (unsigned i = 0; i < 1000; i++) { /* while they write */
        const uint64_t sum = stats_sum(METRIC_commands);

        assert_true(sum >= seen);
        seen = sum;
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(stats_sum(METRIC_commands), THREADS * ROUNDS + 5);
    assert_int_equal(stats_ns_sum(3, NS_METRIC_hits), 2 * THREADS * ROUNDS);
    stats_histogram_sum((enum histogram)0, buckets, &sum_us);
    assert_int_equal(buckets[0], 0);
    assert_int_equal(buckets[1], THREADS * ROUNDS);
    assert_int_equal(sum_us, 15 * THREADS * ROUNDS);
    for (unsigned i = 0; i < N_METRICS; i++) {
        assert_true(i == METRIC_commands || stats_sum((enum metric)i) == 0);
    }
    for (unsigned ns = 0; ns < STATS_NAMESPACES; ns++) {
        for (unsigned i = 0; i < N_NS_METRICS; i++) {
            assert_true((ns == 3 && i == NS_METRIC_hits) ||
                        stats_ns_sum(ns, (enum ns_metric)i) == 0);
        }
    }
}

static void a_bucket_includes_its_upper_bound(void **state)
{
    const enum histogram histogram = (enum histogram)(N_HISTOGRAMS - 1);
    uint64_t buckets[STATS_BUCKETS];
    uint64_t sum_us;
    uint64_t expected = 0;

    (void)state;
    assert_int_equal(stats_bucket_us[0], 10);
    assert_int_equal(stats_bucket_us[STATS_BUCKETS - 2], 10 * 1000 * 1000);
    assert_int_not_equal(histogram, 0); /* which the other test counts in */
    for (unsigned i = 0; i < STATS_BUCKETS - 1; i++) {
        assert_true(i == 0 || stats_bucket_us[i] > stats_bucket_us[i - 1]);
        stats_observe(histogram, stats_bucket_us[i], 1);
        stats_observe(histogram, stats_bucket_us[i] + 1, 2);
        expected += (uint64_t)stats_bucket_us[i] * 3 + 2;
    }
    stats_observe(histogram, -7, 1); /* a clock read the wrong way round */
    stats_histogram_sum(histogram, buckets, &sum_us);
    assert_int_equal(sum_us, expected);
    assert_int_equal(buckets[STATS_BUCKETS - 1], 3 * (STATS_BUCKETS - 1) + 1);
    for (unsigned i = 1; i < STATS_BUCKETS - 1; i++) {
        assert_int_equal(buckets[i] - buckets[i - 1], 3);
    }
    assert_int_equal(buckets[STATS_BUCKETS - 1] - buckets[STATS_BUCKETS - 2], 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_lost_when_threads_end),
        cmocka_unit_test(a_bucket_includes_its_upper_bound),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
