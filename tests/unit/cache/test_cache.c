/*
 * Proves of cache.h: what is filled is read back byte for byte, under its view and database alone;
 * deadlines hold to the tick; the serve rule (incarnation, slot, watermark); names of misses; large
 * replies stay readable while pinned, whatever happens to their entry; negative entries and their
 * limit; invalidation in all databases; clear; inspect.
 */
#include <errno.h>

#include "base/stats.h"
#include "cache/bans.h"
#include "cache_testing.h"

static int set_up(void **state)
{
    struct rig *rig = malloc(sizeof(*rig));

    rig_init(rig, 8 * MIB, 1);
    *state = rig;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *rig = *state;

    rig_audit(rig);
    rig_fini(rig);
    free(rig);
    return 0;
}

static void reply_is_read_back(void **state)
{
    struct rig *rig = *state;

    assert_false(rig_get(rig, "a"));
    assert_int_equal(rig->miss, CACHE_COLD);
    assert_int_equal(rig_fill(rig, "a", "hello"), CACHE_FILLED);
    assert_true(rig_get(rig, "a"));
    assert_reply(rig, "$5\r\nhello\r\n");
    assert_int_equal(rig->hit.encoding, CACHE_SAME_IN_BOTH);
    assert_false(rig->hit.is_negative);
    assert_null(rig->hit.pinned);
    assert_false(rig_get(rig, "b"));
}

static void newer_reply_replaces_older(void **state)
{
    struct rig *rig = *state;

    rig_fill(rig, "a", "one");
    rig_fill(rig, "a", "a longer value than before, of another size class, to be sure of that");
    assert_true(rig_get(rig, "a"));
    assert_reply(rig, "$69\r\na longer value than before, of another size class, to be sure of that"
                      "\r\n");
    rig_fill(rig, "a", "3");
    assert_true(rig_get(rig, "a"));
    assert_reply(rig, "$1\r\n3\r\n");
}

static void entry_expires_exactly_at_its_deadline(void **state)
{
    struct rig *rig = *state;
    const int64_t tick_us = ENTRY_TICK_US;
    const int64_t deadline_us = (rig->now_us / tick_us + 40) * tick_us;
    const uint64_t n_before = stats_ns_sum(0, NS_METRIC_expirations);

    assert_int_equal(rig_fill_n(rig, "a", 10, deadline_us), CACHE_FILLED);
    rig->now_us = deadline_us - 1;
    assert_true(rig_get(rig, "a"));
    rig->now_us = deadline_us;
    assert_false(rig_get(rig, "a"));
    assert_int_equal(rig->miss, CACHE_EXPIRED);
    assert_int_equal(stats_ns_sum(0, NS_METRIC_expirations), n_before + 1);
    assert_false(rig_get(rig, "a"));
    assert_int_equal(rig->miss, CACHE_COLD);
}

static void deadline_between_ticks_is_rounded_down(void **state)
{
    struct rig *rig = *state;
    const int64_t tick_us = ENTRY_TICK_US;
    const int64_t on_tick_us = (rig->now_us / tick_us + 10) * tick_us;

    rig->now_us = on_tick_us - 5 * tick_us;
    rig_fill_n(rig, "a", 10, on_tick_us + tick_us - 1);
    rig->now_us = on_tick_us - 1;
    assert_true(rig_get(rig, "a"));
    rig->now_us = on_tick_us;
    assert_false(rig_get(rig, "a"));
}

static void fill_that_has_expired_is_declined(void **state)
{
    struct rig *rig = *state;

    assert_int_equal(rig_fill_n(rig, "a", 10, rig->now_us), CACHE_DECLINED);
    assert_false(rig_get(rig, "a"));
}

static void deadlines_work_whatever_the_clock_shows(void **state)
{
    struct rig *rig = *state;
    const int64_t starts_us[] = {SECOND, (INT64_C(1) << 31) * ENTRY_TICK_US - SECOND,
                                 (INT64_C(1) << 32) * ENTRY_TICK_US - SECOND / 2};

    for (unsigned i = 0; i < 3; i++) {
        epochs_close(rig->epochs, rig->link);
        rig->now_us = starts_us[i];
        rig->link = epochs_open(rig->epochs, RIG_NODE, 0, rig->now_us);
        assert_int_equal(rig_fill_n(rig, "a", 10, rig->now_us + SECOND), CACHE_FILLED);
        epochs_advance(rig->epochs, rig->link, rig->now_us + 2 * SECOND);
        rig->now_us += SECOND - 2 * ENTRY_TICK_US;
        assert_true(rig_get(rig, "a"));
        rig->now_us += 2 * ENTRY_TICK_US;
        assert_false(rig_get(rig, "a"));
    }
}

static void fetch_that_is_not_kept_drops_what_is_held(void **state)
{
    struct rig *rig = *state;
    const struct cache_query other = rig_query(rig, "a", 1, "x");
    const uint64_t n_before = stats_sum(METRIC_invalidations_error);
    struct cache_waiter waiter;

    assert_int_equal(rig_complete(rig, rig_begin(rig, &other, &waiter), NULL), CACHE_VOIDED);
    assert_int_equal(stats_sum(METRIC_invalidations_error), n_before);
    rig_fill(rig, "a", "one");
    assert_int_equal(rig_complete(rig, rig_begin(rig, &other, &waiter), NULL), CACHE_VOIDED);
    assert_false(rig_get(rig, "a"));
    assert_int_equal(stats_sum(METRIC_invalidations_error), n_before + 1);
}

static void stale_watermark_refuses_and_keeps(void **state)
{
    struct rig *rig = *state;

    rig_fill(rig, "a", "x");
    rig->now_us += SECOND;
    assert_true(rig_get(rig, "a"));
    rig->now_us += 1;
    assert_false(rig_get(rig, "a"));
    assert_int_equal(rig->miss, CACHE_STALE);
    epochs_advance(rig->epochs, rig->link, rig->now_us - 10);
    assert_true(rig_get(rig, "a"));
}

static void end_of_the_link_drops_what_it_read(void **state)
{
    struct rig *rig = *state;
    const uint64_t n_before = stats_sum(METRIC_invalidations_epoch);

    rig_fill(rig, "a", "x");
    epochs_close(rig->epochs, rig->link);
    assert_false(rig_get(rig, "a"));
    assert_int_equal(rig->miss, CACHE_EPOCH);
    assert_int_equal(stats_sum(METRIC_invalidations_epoch), n_before + 1);
    assert_false(rig_get(rig, "a"));
    assert_int_equal(rig->miss, CACHE_COLD);
}

static void slot_that_left_the_node_is_not_served(void **state)
{
    struct rig *rig = *state;

    rig_fill(rig, "a", "x");
    epochs_assign(rig->epochs, 0, 2);
    assert_false(rig_get(rig, "a"));
    assert_int_equal(rig->miss, CACHE_EPOCH);
}

/* ---- views ---- */

static void views_of_a_key_do_not_mix(void **state)
{
    struct rig *rig = *state;
    const struct cache_query all = rig_query(rig, "h", 7, NULL);
    const struct cache_query one = rig_query(rig, "h", 8, "f1");
    const struct cache_query two = rig_query(rig, "h", 8, "f2");

    rig_fill_view(rig, &all, BYTES("%0\r\n"), CACHE_NO_DEADLINE, false);
    rig_fill_view(rig, &one, BYTES("$1\r\n1\r\n"), CACHE_NO_DEADLINE, false);
    assert_true(rig_get_view(rig, &all));
    assert_reply(rig, "%0\r\n");
    assert_true(rig_get_view(rig, &one));
    assert_reply(rig, "$1\r\n1\r\n");
    assert_false(rig_get_view(rig, &two));
    assert_int_equal(rig->miss, CACHE_COLD);
    assert_false(rig_get(rig, "h"));
}

static void get_and_other_views_stand_side_by_side_in_any_order(void **state)
{
    struct rig *rig = *state;

    for (unsigned order = 0; order < 2; order++) {
        const char *key = order == 0 ? "first get" : "last get";
        const struct cache_query length = rig_query(rig, key, 9, NULL);
        if (order == 0) {
            rig_fill(rig, key, "one");
        }
        rig_fill_view(rig, &length, BYTES(":3\r\n"), CACHE_NO_DEADLINE, false);
        rig_audit(rig);
        if (order == 1) {
            rig_fill(rig, key, "one");
        }
        assert_true(rig_get(rig, key));
        assert_reply(rig, "$3\r\none\r\n");
        assert_true(rig_get_view(rig, &length));
        assert_reply(rig, ":3\r\n");
        rig_fill(rig, key, "other");
        rig_fill_view(rig, &length, BYTES(":5\r\n"), CACHE_NO_DEADLINE, false);
        rig_audit(rig);
        assert_true(rig_get(rig, key));
        assert_reply(rig, "$5\r\nother\r\n");
        assert_true(rig_get_view(rig, &length));
        assert_reply(rig, ":5\r\n");
        assert_true(cache_invalidate(rig->cache, bytes_of_string(key)));
        assert_false(rig_get(rig, key));
        assert_false(rig_get_view(rig, &length));
    }
}

static void oldest_view_goes_beyond_sixteen(void **state)
{
    struct rig *rig = *state;
    char args[8];

    rig_fill(rig, "h", "get stays");
    for (unsigned i = 0; i < 16; i++) {
        snprintf(args, sizeof(args), "f%u", i);
        const struct cache_query query = rig_query(rig, "h", 8, args);
        rig_fill_view(rig, &query, BYTES("$1\r\n1\r\n"), CACHE_NO_DEADLINE, false);
    }
    const struct cache_query oldest = rig_query(rig, "h", 8, "f0");
    const struct cache_query next = rig_query(rig, "h", 8, "f1");
    const struct cache_query newest = rig_query(rig, "h", 8, "f15");
    assert_true(rig_get(rig, "h"));
    assert_false(rig_get_view(rig, &oldest));
    assert_true(rig_get_view(rig, &next));
    assert_true(rig_get_view(rig, &newest));
}

static void views_of_a_key_keep_to_its_bytes(void **state)
{
    struct rig *rig = *state;
    struct cache_waiter waiter;
    const struct bytes bulk = make_bulk(1000);
    char args[8];

    for (unsigned i = 0; i < 8; i++) {
        snprintf(args, sizeof(args), "f%u", i);
        const struct cache_query query = rig_query(rig, "h", 8, args);
        const struct cache_fill fill = {
            .reply = bulk, .deadline_us = CACHE_NO_DEADLINE, .max_key_bytes = 4096};
        rig_complete(rig, rig_begin(rig, &query, &waiter), &fill);
    }
    const struct cache_query fourth = rig_query(rig, "h", 8, "f4");
    const struct cache_query fifth = rig_query(rig, "h", 8, "f5");
    assert_false(rig_get_view(rig, &fourth));
    assert_true(rig_get_view(rig, &fifth));
    free((void *)(uintptr_t)bulk.ptr);
}

static void views_expire_one_by_one(void **state)
{
    struct rig *rig = *state;
    const struct cache_query soon = rig_query(rig, "h", 8, "soon");
    const struct cache_query late = rig_query(rig, "h", 8, "late");
    struct cache_query later;

    rig_fill_view(rig, &late, BYTES(":1\r\n"), rig->now_us + 800 * MS, false);
    rig_fill_view(rig, &soon, BYTES(":2\r\n"), rig->now_us + 100 * MS, false);
    rig->now_us += 200 * MS;
    later = rig_query(rig, "h", 8, "soon");
    assert_false(rig_get_view(rig, &later));
    assert_int_equal(rig->miss, CACHE_EXPIRED);
    rig_audit(rig);
    later = rig_query(rig, "h", 8, "late");
    assert_true(rig_get_view(rig, &later));
    rig->now_us += 700 * MS;
    later = rig_query(rig, "h", 8, "late");
    assert_false(rig_get_view(rig, &later));
    assert_int_equal(rig->miss, CACHE_EXPIRED);
}

static void databases_are_apart_and_invalidated_together(void **state)
{
    struct rig *rig = *state;
    const uint32_t dbs[] = {0, 1, 63, 64, 1023};
    char reply[32];

    for (unsigned i = 0; i < 5; i++) {
        struct cache_query query = rig_query(rig, "a", 0, NULL);
        query.db = dbs[i];
        const int n = snprintf(reply, sizeof(reply), "$4\r\n%04u\r\n", dbs[i]);
        rig_fill_view(rig, &query, bytes_make(reply, (size_t)n), CACHE_NO_DEADLINE, false);
    }
    rig_audit(rig);
    for (unsigned i = 0; i < 5; i++) {
        struct cache_query query = rig_query(rig, "a", 0, NULL);
        query.db = dbs[i];
        assert_true(rig_get_view(rig, &query));
        snprintf(reply, sizeof(reply), "$4\r\n%04u\r\n", dbs[i]);
        assert_reply(rig, reply);
    }
    assert_true(cache_invalidate(rig->cache, BYTES("a")));
    for (unsigned i = 0; i < 5; i++) {
        struct cache_query query = rig_query(rig, "a", 0, NULL);
        query.db = dbs[i];
        assert_false(rig_get_view(rig, &query));
    }
    assert_false(cache_invalidate(rig->cache, BYTES("a")));
}

static void database_beyond_the_limit_is_relayed(void **state)
{
    struct rig *rig = *state;
    const struct cache_offer offer = rig_offer(rig);
    struct cache_query query = rig_query(rig, "a", 0, NULL);
    struct cache_waiter waiter;
    struct cache_flight *flight;

    query.db = CACHE_DBS;
    assert_false(rig_get_view(rig, &query));
    assert_int_equal(
        cache_lookup(rig->cache, &query, &offer, 10, &waiter, rig->copy, &rig->hit, &flight),
        CACHE_RELAY);
}

/* ---- large replies ---- */

static void large_reply_is_pinned_and_survives_its_entry(void **state)
{
    struct rig *rig = *state;

    rig_fill_n(rig, "a", 10000, CACHE_NO_DEADLINE);
    const size_t held = arena_allocated();
    assert_true(rig_get(rig, "a"));
    assert_non_null(rig->hit.pinned);
    const struct bytes reply = rig->hit.reply;
    assert_true(cache_invalidate(rig->cache, BYTES("a")));
    rig_audit(rig);
    assert_false(rig_get(rig, "a"));
    assert_int_equal(rig->cache->shards[0].detached_bytes, arena_cost(24 + 1 + 10010));
    assert_int_equal(reply.len, 10010);
    assert_int_equal(reply.ptr[10000], 'v');
    assert_int_equal(arena_allocated(), held);
    rig_unpin(rig);
    assert_int_equal(rig->cache->shards[0].detached_bytes, 0);
    assert_true(arena_allocated() < held);
}

static void reply_of_copy_size_is_copied(void **state)
{
    struct rig *rig = *state;

    rig_fill_n(rig, "a", CACHE_COPY_MAX - 9, CACHE_NO_DEADLINE);
    assert_true(rig_get(rig, "a"));
    assert_int_equal(rig->hit.reply.len, CACHE_COPY_MAX);
    assert_null(rig->hit.pinned);
    rig_fill_n(rig, "b", CACHE_COPY_MAX - 8, CACHE_NO_DEADLINE);
    assert_true(rig_get(rig, "b"));
    assert_non_null(rig->hit.pinned);
    rig_unpin(rig);
}

static void more_readers_than_four_bits_count_each_keep_the_reply(void **state)
{
    struct rig *rig = *state;
    struct cache_entry *pins[40];
    const struct cache_query query = rig_query(rig, "h", 8, "f");
    const struct bytes bulk = make_bulk(5000);

    rig_fill_view(rig, &query, bulk, CACHE_NO_DEADLINE, false);
    rig_fill_n(rig, "a", 5000, CACHE_NO_DEADLINE);
    for (unsigned i = 0; i < 40; i++) {
        assert_true(i % 2 == 0 ? rig_get_view(rig, &query) : rig_get(rig, "a"));
        pins[i] = rig->hit.pinned;
    }
    const struct bytes reply = rig->hit.reply;
    cache_invalidate(rig->cache, BYTES("a"));
    cache_invalidate(rig->cache, BYTES("h"));
    for (unsigned i = 0; i < 40; i++) {
        assert_true(rig->cache->shards[0].detached_bytes > 0);
        assert_int_equal(reply.ptr[4000], 'v');
        cache_unpin(rig->cache, pins[i]);
    }
    assert_int_equal(rig->cache->shards[0].detached_bytes, 0);
    for (unsigned i = 0; i < SHARD_PIN_HEADS; i++) {
        assert_null(rig->cache->shards[0].pins[i]);
    }
    free((void *)(uintptr_t)bulk.ptr);
}

static void pinned_reply_survives_replacement_and_becoming_a_holder(void **state)
{
    struct rig *rig = *state;
    const struct cache_query length = rig_query(rig, "a", 9, NULL);

    rig_fill_n(rig, "a", 6000, CACHE_NO_DEADLINE);
    assert_true(rig_get(rig, "a"));
    struct cache_entry *first = rig->hit.pinned;
    rig_fill_view(rig, &length, BYTES(":6000\r\n"), CACHE_NO_DEADLINE, false);
    assert_true(rig_get(rig, "a"));
    struct cache_entry *second = rig->hit.pinned;
    const struct bytes reply = rig->hit.reply;
    rig_fill_n(rig, "a", 7000, CACHE_NO_DEADLINE);
    rig_audit(rig);
    assert_int_equal(rig->cache->shards[0].detached_bytes, arena_cost(24 + 1 + 6009));
    assert_int_equal(reply.ptr[6000], 'v');
    cache_unpin(rig->cache, first);
    cache_unpin(rig->cache, second);
    assert_int_equal(rig->cache->shards[0].detached_bytes, 0);
    assert_true(rig_get(rig, "a"));
    assert_int_equal(rig->hit.reply.len, 7009);
    rig_unpin(rig);
}

static void pinned_reply_survives_eviction(void **state)
{
    struct rig *rig = *state;
    char key[16];

    rig_fill_n(rig, "pinned", 50000, CACHE_NO_DEADLINE);
    assert_true(rig_get(rig, "pinned"));
    struct cache_entry *pin = rig->hit.pinned;
    const struct bytes reply = rig->hit.reply;
    for (unsigned i = 0; i < 400; i++) {
        snprintf(key, sizeof(key), "k%u", i);
        rig_fill_n(rig, key, 50000, CACHE_NO_DEADLINE);
    }
    assert_false(rig_get(rig, "pinned"));
    assert_int_equal(reply.ptr[40000], 'v');
    assert_true(rig->cache->shards[0].detached_bytes > 50000);
    cache_unpin(rig->cache, pin);
    assert_int_equal(rig->cache->shards[0].detached_bytes, 0);
}

/* ---- negative entries ---- */

static void missing_key_is_remembered_without_a_reply(void **state)
{
    struct rig *rig = *state;
    const struct cache_query get = rig_query(rig, "none", 0, NULL);
    const struct cache_query all = rig_query(rig, "none", 7, NULL);

    rig_fill_view(rig, &get, BYTES(""), rig->now_us + SECOND, true);
    assert_true(rig_get_view(rig, &get));
    assert_reply(rig, "_\r\n");
    assert_int_equal(rig->hit.encoding, CACHE_RESP3);
    assert_true(rig->hit.is_negative);
    rig_fill_view(rig, &all, BYTES("%0\r\n"), rig->now_us + SECOND, true);
    assert_true(rig_get_view(rig, &all));
    assert_reply(rig, "%0\r\n");
    assert_true(rig->hit.is_negative);
    assert_true(rig_get_view(rig, &get));
    assert_reply(rig, "_\r\n");
}

static void value_and_absence_do_not_stand_side_by_side(void **state)
{
    struct rig *rig = *state;
    const struct cache_query get = rig_query(rig, "k", 0, NULL);
    const struct cache_query all = rig_query(rig, "k", 7, NULL);

    rig_fill_view(rig, &all, BYTES("%0\r\n"), CACHE_NO_DEADLINE, true);
    rig_fill(rig, "k", "v");
    assert_true(rig_get_view(rig, &get));
    assert_false(rig->hit.is_negative);
    assert_false(rig_get_view(rig, &all));
}

static void walk_over_missing_keys_pushes_no_values_out(void **state)
{
    struct rig *rig = *state;
    struct cache_stats stats;
    char key[24];

    for (unsigned i = 0; i < 1000; i++) {
        snprintf(key, sizeof(key), "value %u", i);
        rig_fill_n(rig, key, 3000, CACHE_NO_DEADLINE);
    }
    for (unsigned i = 0; i < 100000; i++) {
        snprintf(key, sizeof(key), "missing %u", i);
        const struct cache_query query = rig_query(rig, key, 0, NULL);
        assert_int_equal(rig_fill_view(rig, &query, BYTES(""), CACHE_NO_DEADLINE, true),
                         CACHE_FILLED);
    }
    cache_stats(rig->cache, &stats);
    assert_int_equal(stats.n_entries - stats.n_negative, 1000);
    assert_true(rig->cache->shards[0].negative_bytes <= 8 * MIB / 20);
    assert_true(rig->cache->shards[0].negative_bytes > 8 * MIB / 22);
}

static void negative_entry_asked_for_twice_outlives_the_walk(void **state)
{
    struct rig *rig = *state;
    const struct cache_query hot = rig_query(rig, "hot", 0, NULL);
    const struct cache_query warm = rig_query(rig, "warm", 0, NULL);
    char key[24];

    rig_fill_view(rig, &hot, BYTES(""), CACHE_NO_DEADLINE, true);
    rig_fill_view(rig, &warm, BYTES(""), CACHE_NO_DEADLINE, true);
    assert_true(rig_get_view(rig, &warm));
    assert_true(rig_get_view(rig, &hot));
    assert_true(rig_get_view(rig, &hot));
    for (unsigned i = 0; i < 50000; i++) {
        snprintf(key, sizeof(key), "missing %u", i);
        const struct cache_query query = rig_query(rig, key, 0, NULL);
        rig_fill_view(rig, &query, BYTES(""), CACHE_NO_DEADLINE, true);
    }
    assert_true(rig_get_view(rig, &hot));
    assert_false(rig_get_view(rig, &warm));
}

/* ---- eviction, clear, inspect ---- */

static void full_cache_stays_within_its_budget(void **state)
{
    struct rig *rig = *state;
    struct cache_stats stats;
    const uint64_t n_before = stats_ns_sum(0, NS_METRIC_evictions);
    char key[24];

    for (unsigned i = 0; i < 60000; i++) {
        snprintf(key, sizeof(key), "key %u", i);
        assert_int_equal(rig_fill_n(rig, key, 200, CACHE_NO_DEADLINE), CACHE_FILLED);
    }
    cache_stats(rig->cache, &stats);
    assert_in_range(stats.accounted_bytes, 8 * MIB - 200000, 8 * MIB);
    assert_int_equal(stats_ns_sum(0, NS_METRIC_evictions) - n_before, 60000 - stats.n_entries);
}

static void key_that_comes_back_enters_the_main_queue(void **state)
{
    struct rig *rig = *state;
    char key[24];
    struct cache_view_info info;

    for (unsigned i = 0; i < 40000; i++) {
        snprintf(key, sizeof(key), "key %u", i);
        rig_fill_n(rig, key, 200, CACHE_NO_DEADLINE);
    }
    for (unsigned i = 39000; i > 0 && rig_get(rig, key); i--) {
        snprintf(key, sizeof(key), "key %u", i);
    }
    rig_fill_n(rig, key, 200, CACHE_NO_DEADLINE);
    assert_int_equal(
        cache_inspect(rig->cache, bytes_of_string(key), 0, rig->now_us, &info, 1, NULL, 0), 1);
    assert_string_equal(info.queue, "main");
}

static void reply_as_large_as_the_small_queue_is_declined(void **state)
{
    struct rig *rig = *state;

    assert_int_equal(rig_fill_n(rig, "a", MIB, CACHE_NO_DEADLINE), CACHE_DECLINED);
    assert_int_equal(rig_fill_n(rig, "b", MIB / 2, CACHE_NO_DEADLINE), CACHE_FILLED);
}

static void clear_removes_one_namespace_or_all(void **state)
{
    struct rig *rig = *state;
    struct cache_waiter waiter;
    uint64_t n_entries, n_bytes;
    char key[24];

    for (unsigned i = 0; i < 3000; i++) {
        snprintf(key, sizeof(key), "key %u", i);
        const struct cache_query query = rig_query(rig, key, 0, NULL);
        const struct cache_fill fill = {.reply = BYTES("$1\r\nx\r\n"),
                                        .deadline_us = CACHE_NO_DEADLINE,
                                        .ns = i % 3 == 0 ? 5 : 1};
        rig_complete(rig, rig_begin(rig, &query, &waiter), &fill);
    }
    cache_ns_stats(rig->cache, 5, &n_entries, &n_bytes);
    assert_int_equal(n_entries, 1000);
    assert_int_equal(cache_clear(rig->cache, 5, METRIC_invalidations_admin), 1000);
    bans_settle_all(rig->cache, rig->now_us);
    cache_ns_stats(rig->cache, 5, &n_entries, &n_bytes);
    assert_int_equal(n_entries, 0);
    assert_int_equal(n_bytes, 0);
    assert_false(rig_get(rig, "key 0"));
    assert_true(rig_get(rig, "key 1"));
    rig_audit(rig);
    assert_int_equal(cache_clear(rig->cache, -1, METRIC_invalidations_admin), 2000);
    assert_int_equal(cache_clear(rig->cache, -1, METRIC_invalidations_admin), 0);
}

static void sweep_removes_what_has_expired(void **state)
{
    struct rig *rig = *state;
    struct cache_stats stats;
    char key[24];

    for (unsigned i = 0; i < 5000; i++) {
        snprintf(key, sizeof(key), "key %u", i);
        rig_fill_n(rig, key, 20, rig->now_us + (i % 2 == 0 ? SECOND : 100 * SECOND));
    }
    /* A minute of ticks is a whole pass, and no more than a second one. */
    for (unsigned i = 0; i < 6000; i++) {
        cache_sweep(rig->cache, cache_sweep_quota(rig->cache, 10 * MS), rig->now_us + 2 * SECOND);
    }
    cache_stats(rig->cache, &stats);
    assert_int_equal(stats.n_entries, 2500);
}

static void inspect_tells_what_is_held(void **state)
{
    struct rig *rig = *state;
    struct cache_view_info infos[4];
    unsigned char storage[8];
    const struct cache_query one = rig_query(rig, "h", 8, "field");
    const struct cache_query two = rig_query(rig, "h", 8, "other field");
    const int64_t deadline_us = (rig->now_us / ENTRY_TICK_US + 10) * ENTRY_TICK_US;

    rig_fill_view(rig, &one, BYTES(":12\r\n"), deadline_us, false);
    assert_true(rig_get_view(rig, &one));
    assert_int_equal(cache_inspect(rig->cache, BYTES("none"), 0, rig->now_us, infos, 4, storage,
                                   sizeof(storage)),
                     0);
    assert_int_equal(
        cache_inspect(rig->cache, BYTES("h"), 0, rig->now_us, infos, 4, storage, sizeof(storage)),
        1);
    assert_int_equal(infos[0].command, 8);
    assert_int_equal(infos[0].args.len, 5);
    assert_memory_equal(infos[0].args.ptr, "field", 5);
    assert_int_equal(infos[0].reply_bytes, 5);
    assert_int_equal(infos[0].deadline_us, deadline_us);
    assert_int_equal(infos[0].incarnation, rig->link);
    assert_int_equal(infos[0].hits, 1);
    assert_true(infos[0].is_live);
    assert_string_equal(infos[0].queue, "small");
    /* "other field" does not fit into what the caller has for arguments. */
    rig_fill_view(rig, &two, BYTES(":13\r\n"), CACHE_NO_DEADLINE, false);
    assert_int_equal(
        cache_inspect(rig->cache, BYTES("h"), 0, rig->now_us, infos, 4, storage, sizeof(storage)),
        1);
    epochs_close_all(rig->epochs);
    cache_inspect(rig->cache, BYTES("h"), 0, rig->now_us, infos, 4, storage, sizeof(storage));
    assert_false(infos[0].is_live);
}

static void caches_follow_one_another(void **state)
{
    struct rig second;

    (void)state;
    const size_t before = arena_allocated();
    for (unsigned i = 0; i < 3; i++) {
        rig_init(&second, 4 * MIB, 4);
        rig_fill(&second, "a", "x");
        rig_fill_n(&second, "b", 5000, CACHE_NO_DEADLINE);
        rig_fini(&second);
        assert_int_equal(arena_allocated(), before);
    }
}

static void options_out_of_bounds_are_refused(void **state)
{
    struct cache *cache = NULL;
    struct cache_options options = {.maxmemory = 1, .max_flights = 1};

    (void)state;
    assert_int_equal(cache_new(&options, &cache), -EINVAL);
    options.maxmemory = 8 * MIB;
    options.n_shards = 3;
    assert_int_equal(cache_new(&options, &cache), -EINVAL);
    assert_null(cache);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(reply_is_read_back),
        TEST(newer_reply_replaces_older),
        TEST(entry_expires_exactly_at_its_deadline),
        TEST(deadline_between_ticks_is_rounded_down),
        TEST(fill_that_has_expired_is_declined),
        TEST(deadlines_work_whatever_the_clock_shows),
        TEST(fetch_that_is_not_kept_drops_what_is_held),
        TEST(stale_watermark_refuses_and_keeps),
        TEST(end_of_the_link_drops_what_it_read),
        TEST(slot_that_left_the_node_is_not_served),
        TEST(views_of_a_key_do_not_mix),
        TEST(get_and_other_views_stand_side_by_side_in_any_order),
        TEST(oldest_view_goes_beyond_sixteen),
        TEST(views_of_a_key_keep_to_its_bytes),
        TEST(views_expire_one_by_one),
        TEST(databases_are_apart_and_invalidated_together),
        TEST(database_beyond_the_limit_is_relayed),
        TEST(large_reply_is_pinned_and_survives_its_entry),
        TEST(reply_of_copy_size_is_copied),
        TEST(more_readers_than_four_bits_count_each_keep_the_reply),
        TEST(pinned_reply_survives_replacement_and_becoming_a_holder),
        TEST(pinned_reply_survives_eviction),
        TEST(missing_key_is_remembered_without_a_reply),
        TEST(value_and_absence_do_not_stand_side_by_side),
        TEST(walk_over_missing_keys_pushes_no_values_out),
        TEST(negative_entry_asked_for_twice_outlives_the_walk),
        TEST(full_cache_stays_within_its_budget),
        TEST(key_that_comes_back_enters_the_main_queue),
        TEST(reply_as_large_as_the_small_queue_is_declined),
        TEST(clear_removes_one_namespace_or_all),
        TEST(sweep_removes_what_has_expired),
        TEST(inspect_tells_what_is_held),
        cmocka_unit_test(caches_follow_one_another),
        cmocka_unit_test(options_out_of_bounds_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
