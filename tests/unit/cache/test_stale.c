/*
 * test_stale.c - proves of cache_get_stale(): what tier 1 may show while a node cannot be asked,
 * for how long, and what nobody is shown any more; that what is kept for it is swept and accounted
 */
#include "cache_testing.h"

#define BOUND (60 * SECOND)

static int set_up(void **state)
{
    static struct rig rig;
    const int64_t bounds_ms[] = {BOUND / MS};

    rig_init(&rig, 4 * MIB, 1);
    cache_set_stale(rig.cache, bounds_ms, 1);
    *state = &rig;
    return 0;
}

static int tear_down(void **state)
{
    rig_fini(*state);
    return 0;
}

static bool get_stale(struct rig *rig, const char *key, int64_t *left_us)
{
    const struct cache_query query = rig_query(rig, key, 0, NULL);

    return cache_get_stale(rig->cache, &query, rig->copy, &rig->hit, left_us);
}

static bool is_there(struct rig *rig, const char *key)
{
    int64_t left_us;

    return get_stale(rig, key, &left_us);
}

static unsigned sweep(struct rig *rig)
{
    struct cache_stats stats;

    for (unsigned i = 0; i < 3; i++) {
        cache_sweep(rig->cache, 100000, rig->now_us);
    }
    cache_stats(rig->cache, &stats);
    rig_audit(rig);
    return (unsigned)stats.n_entries;
}

static void a_lapsed_link_leaves_what_it_read(void **state)
{
    struct rig *rig = *state;
    int64_t left_us;

    rig_fill(rig, "a", "x");
    epochs_lapse(rig->epochs, rig->link, rig->now_us);
    assert_false(rig_get(rig, "a"));
    assert_int_equal(rig->miss, CACHE_EPOCH);
    assert_true(get_stale(rig, "a", &left_us));
    assert_reply(rig, "$1\r\nx\r\n");
    assert_in_range(left_us, BOUND - SECOND, BOUND);
    rig->now_us += BOUND - SECOND;
    assert_true(get_stale(rig, "a", &left_us));
    assert_in_range(left_us, 1, SECOND + 2 * ENTRY_TICK_US);
    rig->now_us += SECOND + ENTRY_TICK_US;
    assert_false(get_stale(rig, "a", &left_us));
    assert_false(rig_get(rig, "a"));
    rig_audit(rig);
}

static void the_bound_counts_from_the_watermark(void **state)
{
    struct rig *rig = *state;

    rig_fill(rig, "a", "x");
    epochs_advance(rig->epochs, rig->link, rig->now_us + 10 * SECOND);
    rig->now_us += 10 * SECOND + BOUND - SECOND;
    assert_false(rig_get(rig, "a"));
    assert_int_equal(rig->miss, CACHE_STALE);
    assert_true(is_there(rig, "a"));
    rig->now_us += SECOND + ENTRY_TICK_US;
    assert_false(is_there(rig, "a"));
}

static void a_deadline_may_have_passed_by_less(void **state)
{
    struct rig *rig = *state;

    rig_fill_n(rig, "a", 10, rig->now_us + SECOND);
    rig->now_us += 2 * SECOND;
    epochs_advance(rig->epochs, rig->link, rig->now_us);
    assert_false(rig_get(rig, "a"));
    assert_int_equal(rig->miss, CACHE_EXPIRED);
    assert_true(is_there(rig, "a"));
    rig->now_us += BOUND - 2 * SECOND;
    epochs_advance(rig->epochs, rig->link, rig->now_us);
    assert_int_equal(sweep(rig), 1);
    assert_true(is_there(rig, "a"));
    rig->now_us += SECOND + ENTRY_TICK_US;
    epochs_advance(rig->epochs, rig->link, rig->now_us);
    assert_false(is_there(rig, "a"));
    assert_int_equal(sweep(rig), 0);
}

static void what_was_invalidated_is_gone(void **state)
{
    struct rig *rig = *state;

    rig_fill(rig, "a", "x");
    epochs_lapse(rig->epochs, rig->link, rig->now_us);
    assert_false(cache_invalidate(rig->cache, BYTES("a")));
    assert_false(is_there(rig, "a"));
    rig_audit(rig);
}

static void flushes_and_moved_slots_spare_nothing(void **state)
{
    struct rig *rig = *state;

    rig_fill(rig, "a", "x");
    epochs_lapse(rig->epochs, rig->link, rig->now_us);
    epochs_close_all(rig->epochs);
    assert_false(is_there(rig, "a"));

    rig->link = epochs_open(rig->epochs, RIG_NODE, 0, rig->now_us);
    rig_fill(rig, "b", "x");
    epochs_lapse(rig->epochs, rig->link, rig->now_us);
    assert_true(is_there(rig, "b"));
    assert_true(epochs_assign(rig->epochs, 0, RIG_NODE + 1));
    assert_false(is_there(rig, "b"));
    assert_int_equal(sweep(rig), 0);
}

static void the_nodes_answer_ends_what_lapsed_before_it_was_asked(void **state)
{
    struct rig *rig = *state;
    const int64_t lapsed_us = rig->now_us;

    rig_fill(rig, "a", "x");
    epochs_lapse(rig->epochs, rig->link, lapsed_us);
    epochs_end_lapsed(rig->epochs, RIG_NODE, lapsed_us);         /* asked before */
    epochs_end_lapsed(rig->epochs, RIG_NODE + 1, lapsed_us + 1); /* another node */
    assert_true(is_there(rig, "a"));
    epochs_end_lapsed(rig->epochs, RIG_NODE, lapsed_us + 1);
    assert_false(is_there(rig, "a"));
    assert_int_equal(sweep(rig), 0);
}

static void something_newer_takes_its_place(void **state)
{
    struct rig *rig = *state;

    rig_fill(rig, "a", "old");
    epochs_lapse(rig->epochs, rig->link, rig->now_us);
    rig->link = epochs_open(rig->epochs, RIG_NODE, 0, rig->now_us);
    assert_int_equal(rig_fill(rig, "a", "new"), CACHE_FILLED);
    assert_true(rig_get(rig, "a"));
    assert_reply(rig, "$3\r\nnew\r\n");
    epochs_lapse(rig->epochs, rig->link, rig->now_us);
    assert_true(is_there(rig, "a"));
    assert_reply(rig, "$3\r\nnew\r\n");
    rig_audit(rig);
}

static void a_fetch_that_shows_nothing_leaves_it(void **state)
{
    struct rig *rig = *state;
    const struct cache_query query = rig_query(rig, "a", 0, NULL);
    struct cache_waiter waiter;
    struct cache_flight *flight;

    rig_fill(rig, "a", "x");
    epochs_lapse(rig->epochs, rig->link, rig->now_us);
    rig->link = epochs_open(rig->epochs, RIG_NODE, 0, rig->now_us);
    flight = rig_begin(rig, &query, &waiter);
    flight->keeps_key = true;
    assert_int_equal(rig_complete(rig, flight, NULL), CACHE_VOIDED);
    assert_true(is_there(rig, "a"));
    /* One that shows something and keeps nothing (no TTL known, an error) does not. */
    flight = rig_begin(rig, &query, &waiter);
    assert_int_equal(rig_complete(rig, flight, NULL), CACHE_VOIDED);
    assert_false(is_there(rig, "a"));
}

static void nothing_is_kept_where_it_is_off(void **state)
{
    struct rig *rig = *state;

    rig_fill(rig, "a", "x");
    cache_set_stale(rig->cache, NULL, 0);
    epochs_lapse(rig->epochs, rig->link, rig->now_us);
    assert_false(epochs_is_lapsed(epochs_at(rig->epochs, rig->link)));
    assert_false(is_there(rig, "a"));
    assert_int_equal(sweep(rig), 0);
}

static void what_users_fetched_is_bounded_by_their_rules(void **state)
{
    struct rig *rig = *state;
    struct cache_query query = rig_query(rig, "a", 0, NULL);
    int64_t left_us;

    query.db = cache_scope(1, 0);
    rig_fill_view(rig, &query, BYTES("$1\r\nx\r\n"), CACHE_NO_DEADLINE, false);
    epochs_lapse(rig->epochs, rig->link, rig->now_us);
    assert_false(cache_get_stale(rig->cache, &query, rig->copy, &rig->hit, &left_us));
}

static void numbers_come_back(void **state)
{
    struct rig *rig = *state;

    for (unsigned i = 0; i < 5000; i++) {
        rig_fill(rig, "a", "x");
        epochs_lapse(rig->epochs, rig->link, rig->now_us);
        if (i % 100 == 0) {
            (void)sweep(rig);
        }
        rig->link = epochs_open(rig->epochs, RIG_NODE, 0, rig->now_us);
        assert_int_not_equal(rig->link, EPOCHS_NONE);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_lapsed_link_leaves_what_it_read),
        TEST(the_bound_counts_from_the_watermark),
        TEST(a_deadline_may_have_passed_by_less),
        TEST(what_was_invalidated_is_gone),
        TEST(flushes_and_moved_slots_spare_nothing),
        TEST(the_nodes_answer_ends_what_lapsed_before_it_was_asked),
        TEST(something_newer_takes_its_place),
        TEST(a_fetch_that_shows_nothing_leaves_it),
        TEST(nothing_is_kept_where_it_is_off),
        TEST(what_users_fetched_is_bounded_by_their_rules),
        TEST(numbers_come_back),
    };
#undef TEST

    return cmocka_run_group_tests(tests, NULL, NULL);
}
