/*
 * Promises of cache/watch.h: a watch tells an entry that was there all the time from one that went
 * and came back with the same bytes.
 */
#include "cache_testing.h"

#include "cache/watch.h"

static int setup(void **state)
{
    struct rig *rig = malloc(sizeof(*rig));

    rig_init(rig, 4 * MIB, 1);
    *state = rig;
    return 0;
}

static int teardown(void **state)
{
    rig_fini(*state);
    free(*state);
    return 0;
}

static bool watch(struct rig *rig, struct cache_query *query, struct cache_watch *watch)
{
    return cache_watch(rig->cache, query, watch, rig->copy, &rig->hit);
}

static void untouched_entry_is_held(void **state)
{
    struct rig *rig = *state;
    struct cache_query query = rig_query(rig, "a", 0, NULL);
    struct cache_watch first, second;

    rig_fill(rig, "a", "1");
    assert_true(watch(rig, &query, &first));
    assert_reply(rig, "$1\r\n1\r\n");
    assert_true(watch(rig, &query, &second));
    assert_int_equal(first.incarnation, rig->link);
    rig_fill(rig, "b", "1");
    assert_true(rig_get(rig, "a"));
    assert_true(cache_watch_end(rig->cache, &query, &first));
    assert_true(cache_watch_end(rig->cache, &query, &second));
}

static void invalidated_entry_is_not(void **state)
{
    struct rig *rig = *state;
    struct cache_query query = rig_query(rig, "a", 0, NULL);
    struct cache_watch at;

    rig_fill(rig, "a", "1");
    assert_true(watch(rig, &query, &at));
    cache_invalidate(rig->cache, BYTES("a"));
    assert_false(cache_watch_end(rig->cache, &query, &at));
}

static void the_same_value_once_more_is_another_entry(void **state)
{
    struct rig *rig = *state;
    struct cache_query query = rig_query(rig, "a", 0, NULL);
    struct cache_watch at;

    rig_fill(rig, "a", "1");
    assert_true(watch(rig, &query, &at));
    cache_invalidate(rig->cache, BYTES("a"));
    rig_fill(rig, "a", "1");
    assert_true(rig_get(rig, "a"));
    assert_false(cache_watch_end(rig->cache, &query, &at));
}

/* Nobody invalidates what expires or ends with its link: the fill alone tells. */
static void a_fill_ends_it_without_an_invalidation(void **state)
{
    struct rig *rig = *state;
    struct cache_query query = rig_query(rig, "a", 0, NULL);
    struct cache_watch at;

    rig_fill(rig, "a", "1");
    assert_true(watch(rig, &query, &at));
    epochs_close(rig->epochs, rig->link);
    rig->link = epochs_open(rig->epochs, RIG_NODE, 0, rig->now_us);
    rig_fill(rig, "a", "1");
    assert_true(rig_get(rig, "a"));
    assert_false(cache_watch_end(rig->cache, &query, &at));
}

static void ended_or_expired_entry_is_not_held(void **state)
{
    struct rig *rig = *state;
    struct cache_query query = rig_query(rig, "a", 0, NULL);
    struct cache_watch at;

    rig_fill_n(rig, "a", 10, rig->now_us + SECOND);
    assert_true(watch(rig, &query, &at));
    query.now_us += SECOND;
    assert_false(cache_watch_end(rig->cache, &query, &at));

    query.now_us -= SECOND;
    assert_true(watch(rig, &query, &at));
    epochs_close(rig->epochs, rig->link);
    assert_false(cache_watch_end(rig->cache, &query, &at));
}

static void old_watermark_begins_no_watch_and_ends_none(void **state)
{
    struct rig *rig = *state;
    struct cache_query query = rig_query(rig, "a", 0, NULL);
    struct cache_watch at;

    rig_fill(rig, "a", "1");
    assert_true(watch(rig, &query, &at));
    query.now_us += 2 * SECOND;
    assert_true(cache_watch_end(rig->cache, &query, &at));
    assert_false(watch(rig, &query, &at));
}

static void views_and_databases_are_told_apart(void **state)
{
    struct rig *rig = *state;
    struct cache_query query = rig_query(rig, "h", 7, "$1\r\nf\r\n");
    struct cache_query other = query;
    struct cache_watch at;

    rig_fill_view(rig, &query, BYTES("$1\r\nx\r\n"), CACHE_NO_DEADLINE, false);
    other.args = BYTES("$1\r\ng\r\n");
    assert_false(watch(rig, &other, &at));
    other = query;
    other.db = 1;
    assert_false(watch(rig, &other, &at));
    assert_true(watch(rig, &query, &at));
    assert_reply(rig, "$1\r\nx\r\n");
    assert_true(cache_watch_end(rig->cache, &query, &at));
}

static void missing_keys_and_large_values_are_watched(void **state)
{
    struct rig *rig = *state;
    struct cache_query query = rig_query(rig, "none", 0, NULL);
    struct cache_watch at;

    rig_fill_view(rig, &query, BYTES("_\r\n"), rig->now_us + SECOND, true);
    assert_true(watch(rig, &query, &at));
    assert_true(rig->hit.is_negative);
    assert_reply(rig, "_\r\n");
    assert_true(cache_watch_end(rig->cache, &query, &at));

    query = rig_query(rig, "large", 0, NULL);
    rig_fill_n(rig, "large", 50000, CACHE_NO_DEADLINE);
    assert_true(watch(rig, &query, &at));
    assert_non_null(rig->hit.pinned);
    rig_unpin(rig);
    assert_true(cache_watch_end(rig->cache, &query, &at));
}

static void there_is_a_limit(void **state)
{
    struct rig *rig = *state;
    struct cache_query query = rig_query(rig, "a", 0, NULL);
    struct cache_watch *all = calloc(CACHE_WATCHES_MAX + 1, sizeof(*all));

    rig_fill(rig, "a", "1");
    for (unsigned i = 0; i < CACHE_WATCHES_MAX; i++) {
        assert_true(watch(rig, &query, &all[i]));
    }
    assert_false(watch(rig, &query, &all[CACHE_WATCHES_MAX]));
    for (unsigned i = 0; i < CACHE_WATCHES_MAX; i++) {
        assert_true(cache_watch_end(rig->cache, &query, &all[i]));
    }
    assert_true(watch(rig, &query, &all[0]));
    assert_true(cache_watch_end(rig->cache, &query, &all[0]));
    free(all);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(untouched_entry_is_held),
        TEST(invalidated_entry_is_not),
        TEST(the_same_value_once_more_is_another_entry),
        TEST(a_fill_ends_it_without_an_invalidation),
        TEST(ended_or_expired_entry_is_not_held),
        TEST(old_watermark_begins_no_watch_and_ends_none),
        TEST(views_and_databases_are_told_apart),
        TEST(missing_keys_and_large_values_are_watched),
        TEST(there_is_a_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
