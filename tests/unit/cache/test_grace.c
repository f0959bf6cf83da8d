/*
 * Proves of cache.h, margins: a hit says when its deadline is near and whether a new reading moves
 * it; behind the deadline what has a grace is shown until that ends, and never when its key was
 * invalidated; a refresh is one flight that nobody waits for, and what it brings takes the place.
 */
#include "cache_testing.h"

#define LATER INT64_C(100000000)

static int set_up(void **state)
{
    struct rig *rig = malloc(sizeof(*rig));

    rig_init(rig, 8 * MIB, 1);
    cache_set_margin(rig->cache, 0, SECOND, 3 * SECOND);
    *state = rig;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *rig = *state;
    struct cache_stats stats;

    rig_audit(rig);
    cache_stats(rig->cache, &stats);
    assert_int_equal(stats.n_flights, 0);
    rig_fini(rig);
    free(rig);
    return 0;
}

static struct cache_fill fill_of(const struct rig *rig, int64_t life_us, int64_t grace_us,
                                 bool is_renewable)
{
    return (struct cache_fill){.reply = BYTES("$1\r\nx\r\n"),
                               .deadline_us = rig->now_us + life_us,
                               .grace_us = grace_us,
                               .is_renewable = is_renewable};
}

/* Time passes, and the link is heard from. */
static void pass(struct rig *rig, int64_t us)
{
    rig->now_us += us;
    assert_true(epochs_advance(rig->epochs, rig->link, rig->now_us));
}

static enum cache_completion complete(struct rig *rig, struct cache_flight *flight,
                                      const struct cache_fill *with)
{
    struct cache_waiter *waiters = NULL;
    const enum cache_completion completion = cache_complete(rig->cache, &flight, with, rig->now_us,
                                                            SECOND, &waiters);

    assert_null(waiters);
    return completion;
}

static void fill(struct rig *rig, const struct cache_query *query, const struct cache_fill *with)
{
    struct cache_waiter waiter = {0};

    assert_int_equal(rig_complete(rig, rig_begin(rig, query, &waiter), with), CACHE_FILLED);
}

static void hit_says_that_its_deadline_is_near(void **state)
{
    struct rig *rig = *state;
    const struct cache_query query = rig_query(rig, "a", 0, NULL);
    const struct cache_fill with = fill_of(rig, 10 * SECOND, 0, true);

    fill(rig, &query, &with);
    assert_true(rig_get(rig, "a"));
    assert_int_equal(rig->miss, CACHE_COLD);
    pass(rig, 9 * SECOND + 100 * MS);
    assert_true(rig_get(rig, "a"));
    assert_int_equal(rig->miss, CACHE_NEAR);
    assert_true(rig->hit.is_renewable);
    assert_int_equal(rig->hit.incarnation, rig->link);
    assert_in_range(rig->hit.left_us, 880 * MS, 900 * MS);
    assert_reply(rig, "$1\r\nx\r\n");
    pass(rig, SECOND);
    assert_false(rig_get(rig, "a"));
    assert_int_equal(rig->miss, CACHE_EXPIRED);
}

/* An entry without a grace, in a namespace with one: nothing is near for as long as that. */
static void entry_without_grace_is_near_for_the_early_time_only(void **state)
{
    struct rig *rig = *state;
    const struct cache_query query = rig_query(rig, "a", 0, NULL);
    const struct cache_fill with = fill_of(rig, 10 * SECOND, 0, false);

    fill(rig, &query, &with);
    pass(rig, 8 * SECOND);
    assert_true(rig_get(rig, "a"));
    assert_int_equal(rig->miss, CACHE_COLD);
    pass(rig, 1500 * MS);
    assert_true(rig_get(rig, "a"));
    assert_int_equal(rig->miss, CACHE_NEAR);
    assert_false(rig->hit.is_renewable);
}

static void entry_is_shown_in_its_grace_and_not_behind(void **state)
{
    struct rig *rig = *state;
    const struct cache_query get = rig_query(rig, "a", 0, NULL);
    const struct cache_query view = rig_query(rig, "b", 7, "$1\r\nf\r\n");
    const struct cache_fill with = fill_of(rig, 2 * SECOND, 3 * SECOND, false);

    fill(rig, &get, &with);
    fill(rig, &view, &with);
    for (unsigned i = 0; i < 2; i++) {
        struct cache_query query = i == 0 ? get : view;

        query.max_staleness_us = 10 * SECOND;
        query.now_us = rig->now_us + 4 * SECOND;
        assert_true(cache_get(rig->cache, &query, rig->copy, &rig->hit, &rig->miss));
        assert_int_equal(rig->miss, CACHE_NEAR);
        assert_in_range(rig->hit.left_us + LATER, LATER - 2 * SECOND - 20 * MS, LATER - SECOND);
        query.now_us = rig->now_us + 5 * SECOND + 20 * MS;
        assert_false(cache_get(rig->cache, &query, rig->copy, &rig->hit, &rig->miss));
        assert_int_equal(rig->miss, CACHE_EXPIRED);
    }
}

static void invalidated_entry_has_no_grace(void **state)
{
    struct rig *rig = *state;
    struct cache_query query = rig_query(rig, "a", 0, NULL);
    const struct cache_fill with = fill_of(rig, 2 * SECOND, 3 * SECOND, false);

    fill(rig, &query, &with);
    pass(rig, 3 * SECOND);
    assert_true(rig_get(rig, "a"));
    assert_true(cache_invalidate(rig->cache, BYTES("a")));
    assert_false(rig_get(rig, "a"));
    query = rig_query(rig, "a", 0, NULL);
    fill(rig, &query, &with);
    assert_true(rig_get(rig, "a"));
    epochs_close(rig->epochs, rig->link);
    assert_false(rig_get(rig, "a"));
    assert_int_equal(rig->miss, CACHE_EPOCH);
}

static void refresh_is_one_flight_beside_the_entry(void **state)
{
    struct rig *rig = *state;
    struct cache_query query = rig_query(rig, "a", 0, NULL);
    const struct cache_offer offer = rig_offer(rig);
    const struct cache_fill with = fill_of(rig, 10 * SECOND, 0, true);
    struct cache_fill again = fill_of(rig, 100 * SECOND, 0, true);
    struct cache_flight *flight = NULL, *other = NULL;

    fill(rig, &query, &with);
    assert_true(cache_refresh(rig->cache, &query, &offer, &flight));
    assert_false(cache_refresh(rig->cache, &query, &offer, &other));
    assert_true(rig_get(rig, "a"));
    again.reply = BYTES("$1\r\ny\r\n");
    assert_int_equal(complete(rig, flight, &again), CACHE_FILLED);
    pass(rig, 50 * SECOND);
    assert_true(rig_get(rig, "a"));
    assert_reply(rig, "$1\r\ny\r\n");
    /* The key changes while it is read. */
    query = rig_query(rig, "a", 0, NULL);
    assert_true(cache_refresh(rig->cache, &query, &offer, &flight));
    (void)cache_invalidate(rig->cache, BYTES("a"));
    assert_int_equal(complete(rig, flight, &again), CACHE_VOIDED);
    assert_false(rig_get(rig, "a"));
}

static void unwanted_fill_tells_only_whether_it_could_have_been(void **state)
{
    struct rig *rig = *state;
    const struct cache_query query = rig_query(rig, "a", 0, NULL);
    struct cache_fill with = fill_of(rig, 10 * SECOND, 0, true);
    struct cache_waiter waiter = {0};
    struct cache_flight *flight;

    with.is_unwanted = true;
    assert_int_equal(rig_complete(rig, rig_begin(rig, &query, &waiter), &with), CACHE_DECLINED);
    assert_false(rig_get(rig, "a"));
    flight = rig_begin(rig, &query, &waiter);
    (void)cache_invalidate(rig->cache, BYTES("a"));
    assert_int_equal(rig_complete(rig, flight, &with), CACHE_VOIDED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(hit_says_that_its_deadline_is_near, set_up, tear_down),
        cmocka_unit_test_setup_teardown(entry_without_grace_is_near_for_the_early_time_only, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(entry_is_shown_in_its_grace_and_not_behind, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(invalidated_entry_has_no_grace, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refresh_is_one_flight_beside_the_entry, set_up, tear_down),
        cmocka_unit_test_setup_teardown(unwanted_fill_tells_only_whether_it_could_have_been, set_up,
                                        tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
