/*
 * test_tag_bans.c - proves of tag_bans.h and bans_add_tag(): what has an invalidated tag is never
 * shown again, entries and flights, and nothing else; what is fetched later stays; as many tags as
 * one likes drop nothing else; the set empties; a set that is full drops everything; what it costs
 */
#include "cache/bans.h"

#include "base/stats.h"
#include "cache_testing.h"
#include "config/config.h"

static struct config *config;

/* The namespace `session` has the id 1, as the first one that is registered in this process. */
static int set_up(void **state)
{
    struct rig *rig = calloc(1, sizeof(*rig));

    if (config == NULL) {
        assert_int_equal(config_parse(BYTES("[namespace session]\nmatch = session:{1}:*\n"
                                            "tags = user:{1} all\n"),
                                      "x", &config, stderr),
                         0);
    }
    rig_init(rig, 64 * MIB, 4);
    cache_set_tag_rules(rig->cache, config->tag_rules);
    *state = rig;
    return 0;
}

static int tear_down(void **state)
{
    rig_audit(*state);
    rig_fini(*state);
    free(*state);
    return 0;
}

static void fill(struct rig *rig, const char *key)
{
    const struct cache_query query = rig_query(rig, key, 0, NULL);
    struct cache_waiter waiter;
    struct cache_flight *flight = rig_begin(rig, &query, &waiter);
    const struct cache_fill x = {
        .reply = BYTES("$1\r\nx\r\n"),
        .deadline_us = CACHE_NO_DEADLINE,
        .ns = config_namespace_of(config, bytes_of_string(key))->id,
    };

    assert_int_equal(rig_complete(rig, flight, &x), CACHE_FILLED);
}

static enum ban_outcome drop(struct rig *rig, const char *tag)
{
    return bans_add_tag(rig->cache, bytes_of_string(tag), false, rig->now_us);
}

static unsigned n_tags(struct rig *rig)
{
    struct bans_figures figures;

    bans_figures(rig->cache, &figures);
    return figures.n_tags;
}

static void a_tag_drops_what_has_it_and_nothing_else(void **state)
{
    struct rig *rig = *state;
    const uint64_t counted = stats_sum(METRIC_invalidations_tag);

    fill(rig, "session:42:a");
    fill(rig, "session:42:b");
    fill(rig, "session:43:a");
    fill(rig, "session:4");
    fill(rig, "other");
    assert_int_equal(drop(rig, "user:42"), BAN_SET);
    assert_false(rig_get(rig, "session:42:a"));
    assert_true(rig_get(rig, "session:43:a"));
    assert_true(rig_get(rig, "session:4"));
    assert_true(rig_get(rig, "other"));
    /* Fetched later: stays, whatever comes. */
    fill(rig, "session:42:a");
    assert_int_equal(drop(rig, "user:7"), BAN_SET);
    assert_true(rig_get(rig, "session:42:a"));
    bans_settle_all(rig->cache, rig->now_us);
    assert_int_equal(stats_sum(METRIC_invalidations_tag), counted + 2);
    assert_int_equal(n_tags(rig), 0);
    assert_true(rig_get(rig, "session:42:a"));
    assert_false(rig_get(rig, "session:42:b"));
    assert_int_equal(drop(rig, "all"), BAN_SET);
    assert_false(rig_get(rig, "session:42:a"));
    assert_true(rig_get(rig, "other"));
    assert_int_equal(drop(rig, "group:1"), BAN_NONE);
    bans_settle_all(rig->cache, rig->now_us);
}

static void a_flight_of_before_fills_nothing(void **state)
{
    struct rig *rig = *state;
    const struct cache_query query = rig_query(rig, "session:42:a", 0, NULL);
    const struct cache_query other = rig_query(rig, "session:43:a", 0, NULL);
    const struct cache_fill x = {
        .reply = BYTES("$1\r\nx\r\n"), .deadline_us = CACHE_NO_DEADLINE, .ns = 1};
    struct cache_waiter waiters[3];
    struct cache_flight *flight = rig_begin(rig, &query, &waiters[0]);
    struct cache_flight *kept = rig_begin(rig, &other, &waiters[1]);
    struct cache_flight *late = rig_begin(
        rig,
        &(struct cache_query){.key = BYTES("session:42:z"),
                              .hash = cache_hash(BYTES("session:42:z")),
                              .now_us = rig->now_us,
                              .max_staleness_us = SECOND},
        &waiters[2]);

    assert_int_equal(config_namespace_of(config, BYTES("session:1:1"))->id, 1);
    drop(rig, "user:42");
    assert_int_equal(rig_complete(rig, flight, &x), CACHE_VOIDED);
    assert_int_equal(rig_complete(rig, kept, &x), CACHE_FILLED);
    assert_false(rig_get(rig, "session:42:a"));
    /* When the tag has left the set already, too. */
    bans_settle_all(rig->cache, rig->now_us);
    assert_int_equal(n_tags(rig), 0);
    assert_int_equal(rig_complete(rig, late, &x), CACHE_VOIDED);
    assert_true(rig_get(rig, "session:43:a"));
}

static void thousands_of_tags_drop_what_they_name_alone(void **state)
{
    struct rig *rig = *state;
    const uint64_t overflowed = stats_sum(METRIC_bans_overflowed);
    char name[40];

    for (unsigned i = 0; i < 20000; i++) {
        snprintf(name, sizeof(name), "session:%u:a", i);
        fill(rig, name);
    }
    for (unsigned i = 0; i < 20000; i += 2) {
        snprintf(name, sizeof(name), "user:%u", i);
        assert_int_equal(drop(rig, name), BAN_SET);
        if (i % 500 == 0) {
            cache_sweep(rig->cache, 64, rig->now_us);
        }
    }
    for (unsigned i = 0; i < 20000; i += 7) {
        snprintf(name, sizeof(name), "session:%u:a", i);
        assert_int_equal(rig_get(rig, name), i % 2 != 0);
    }
    bans_settle_all(rig->cache, rig->now_us);
    for (unsigned i = 0; i < 20000; i++) {
        snprintf(name, sizeof(name), "session:%u:a", i);
        assert_int_equal(rig_get(rig, name), i % 2 != 0);
    }
    assert_int_equal(stats_sum(METRIC_bans_overflowed), overflowed);
    assert_int_equal(n_tags(rig), 0);
}

/* A look-up judges what it finds and leaves its neighbours for later: no order of these matters. */
static void nothing_old_is_shown_whoever_was_judged_first(void **state)
{
    struct rig *rig = *state;
    bool is_kept[400] = {false};
    uint32_t random = 12345;
    char name[40];

    for (unsigned step = 0; step < 60000; step++) {
        random = random * 1664525 + 1013904223;
        const unsigned key = (random >> 8) % 400, what = (random >> 20) % 16;

        snprintf(name, sizeof(name), "session:%u:%u", key / 4, key % 4);
        if (what == 0) {
            snprintf(name, sizeof(name), "user:%u", key / 4);
            assert_int_equal(drop(rig, name), BAN_SET);
            memset(&is_kept[key / 4 * 4], 0, 4 * sizeof(bool));
        } else if (what == 1 && step % 9 == 0) {
            cache_sweep(rig->cache, 7, rig->now_us);
        } else if (what < 4 && !is_kept[key]) {
            fill(rig, name);
            is_kept[key] = true;
        } else {
            assert_int_equal(rig_get(rig, name), is_kept[key]);
        }
    }
    bans_settle_all(rig->cache, rig->now_us);
    for (unsigned key = 0; key < 400; key++) {
        snprintf(name, sizeof(name), "session:%u:%u", key / 4, key % 4);
        assert_int_equal(rig_get(rig, name), is_kept[key]);
    }
}

static void a_full_set_drops_everything(void **state)
{
    struct rig *rig = *state;
    char name[40];

    cache_set_max_tag_bans(rig->cache, 100);
    fill(rig, "other");
    for (unsigned i = 0; i < 100; i++) {
        snprintf(name, sizeof(name), "user:%u", i);
        assert_int_equal(drop(rig, name), BAN_SET);
    }
    assert_int_equal(drop(rig, "user:7"), BAN_SET);
    assert_true(rig_get(rig, "other"));
    assert_int_equal(drop(rig, "user:100"), BAN_EVERYTHING);
    assert_false(rig_get(rig, "other"));
    bans_settle_all(rig->cache, rig->now_us);
}

/* More serials than marks have bits, with the sweep a long way behind. */
static void marks_that_run_out_drop_nothing_too_little(void **state)
{
    struct rig *rig = *state;
    char name[40];

    fill(rig, "session:1:a");
    fill(rig, "session:2:a");
    drop(rig, "user:1");
    for (unsigned i = 0; i < 70000; i++) {
        snprintf(name, sizeof(name), "user:%u", 1000 + i % 5000);
        assert_int_equal(drop(rig, name), BAN_SET);
    }
    assert_false(rig_get(rig, "session:1:a"));
    assert_true(rig_get(rig, "session:2:a"));
    bans_settle_all(rig->cache, rig->now_us);
    assert_true(rig_get(rig, "session:2:a"));
    fill(rig, "session:1:a");
    assert_true(rig_get(rig, "session:1:a"));
}

static void a_standing_ban_by_tag_drops_and_keeps_out(void **state)
{
    struct rig *rig = *state;
    const struct ban_order order = {
        .rule = {.kind = BAN_TAG, .name = BYTES("user:42"), .ns = -1},
        .reason = METRIC_invalidations_ban,
        .is_standing = true,
        .id = 7,
        .expires_at_us = CACHE_NO_DEADLINE,
    };
    const struct cache_query query = rig_query(rig, "session:42:b", 0, NULL);
    const struct cache_fill x = {
        .reply = BYTES("$1\r\nx\r\n"),
        .deadline_us = CACHE_NO_DEADLINE,
        .ns = config_namespace_of(config, BYTES("session:42:b"))->id,
    };
    struct cache_flight *flight;
    struct cache_waiter waiter;
    uint64_t n_held;

    assert_true(bans_know_tag(rig->cache, BYTES("user:42")));
    assert_false(bans_know_tag(rig->cache, BYTES("red")));
    fill(rig, "session:42:a");
    fill(rig, "session:43:a");
    assert_int_equal(bans_add(rig->cache, &order, rig->now_us, &n_held), BAN_SET);
    assert_true(bans_has(rig->cache, 7));
    assert_false(bans_has(rig->cache, 8));
    assert_false(rig_get(rig, "session:42:a"));
    assert_true(rig_get(rig, "session:43:a"));
    flight = rig_begin(rig, &query, &waiter);
    assert_int_equal(rig_complete(rig, flight, &x), CACHE_BANNED);
    bans_settle_all(rig->cache, rig->now_us);
    flight = rig_begin(rig, &query, &waiter);
    assert_int_equal(rig_complete(rig, flight, &x), CACHE_BANNED);
    assert_true(bans_remove(rig->cache, 7));
    fill(rig, "session:42:b");
    assert_true(rig_get(rig, "session:42:b"));
    assert_true(rig_get(rig, "session:43:a"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_tag_drops_what_has_it_and_nothing_else, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_flight_of_before_fills_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(thousands_of_tags_drop_what_they_name_alone, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(nothing_old_is_shown_whoever_was_judged_first, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_full_set_drops_everything, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_standing_ban_by_tag_drops_and_keeps_out, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(marks_that_run_out_drop_nothing_too_little, set_up,
                                        tear_down),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);

    config_unref(&config);
    return failed;
}
