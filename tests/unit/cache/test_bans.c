/*
 * test_bans.c - proves of bans.h: what a rule describes is never shown again, entries and flights,
 * and nothing else; what is fetched after it stays; standing bans keep out, and end; counts;
 * limits; that numbers that run out drop nothing too little
 */
#include "cache/bans.h"

#include "base/stats.h"
#include "cache_testing.h"

static int set_up(void **state)
{
    struct rig *rig = calloc(1, sizeof(*rig));

    rig_init(rig, 32 * MIB, 2);
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

static uint64_t ban(struct rig *rig, struct ban_rule rule)
{
    const struct ban_order order = {.rule = rule, .reason = METRIC_invalidations_pattern};
    uint64_t n_held;

    assert_int_equal(bans_add(rig->cache, &order, rig->now_us, &n_held), BAN_SET);
    return n_held;
}

static uint64_t ban_name(struct rig *rig, enum ban_name kind, const char *name)
{
    return ban(rig, (struct ban_rule){.kind = kind, .name = bytes_of_string(name), .ns = -1});
}

static enum ban_outcome stand(struct rig *rig, struct ban_rule rule, uint64_t id, int64_t ttl_us)
{
    const struct ban_order order = {.rule = rule,
                                    .reason = METRIC_invalidations_ban,
                                    .is_standing = true,
                                    .id = id,
                                    .expires_at_us = ttl_us > 0 ? rig->now_us + ttl_us
                                                                : CACHE_NO_DEADLINE};
    uint64_t n_held;

    return bans_add(rig->cache, &order, rig->now_us, &n_held);
}

static void fill(struct rig *rig, const char *key)
{
    assert_int_equal(rig_fill(rig, key, "x"), CACHE_FILLED);
}

static unsigned n_pending(struct rig *rig)
{
    struct bans_figures figures;

    bans_figures(rig->cache, &figures);
    return figures.n_pending;
}

static void a_rule_drops_what_it_names_and_nothing_else(void **state)
{
    struct rig *rig = *state;
    const uint64_t counted = stats_sum(METRIC_invalidations_pattern);

    fill(rig, "a:1");
    fill(rig, "a:2");
    fill(rig, "b:1");
    fill(rig, "b:22");
    fill(rig, "c");
    ban_name(rig, BAN_PREFIX, "a:");
    ban_name(rig, BAN_GLOB, "b:?");
    assert_false(rig_get(rig, "a:1"));
    assert_false(rig_get(rig, "b:1"));
    assert_true(rig_get(rig, "b:22"));
    assert_true(rig_get(rig, "c"));
    bans_settle_all(rig->cache, rig->now_us);
    assert_int_equal(stats_sum(METRIC_invalidations_pattern), counted + 3);
    assert_int_equal(n_pending(rig), 0);
    assert_false(rig_get(rig, "a:2"));
    assert_true(rig_get(rig, "c"));
}

/* A look-up judges all that stands in one bucket, also when it is a hit. rig_fini() counts. */
static void what_goes_beside_a_hit_is_freed(void **state)
{
    struct rig *rig = *state;
    char key[24];

    for (unsigned i = 0; i < 4000; i++) {
        snprintf(key, sizeof(key), "%c:%u", i % 2 == 0 ? 'a' : 'b', i);
        fill(rig, key);
    }
    ban_name(rig, BAN_PREFIX, "a:");
    for (unsigned i = 1; i < 4000; i += 2) {
        snprintf(key, sizeof(key), "b:%u", i);
        assert_true(rig_get(rig, key));
    }
}

static void what_is_fetched_later_stays_whatever_bans_follow(void **state)
{
    struct rig *rig = *state;
    char key[24];

    for (unsigned i = 0; i < 2000; i++) {
        snprintf(key, sizeof(key), "a:%u", i);
        fill(rig, key);
    }
    ban_name(rig, BAN_PREFIX, "a:");
    fill(rig, "a:7");
    fill(rig, "a:1999");
    ban_name(rig, BAN_PREFIX, "z:");
    ban_name(rig, BAN_GLOB, "y*");
    assert_true(rig_get(rig, "a:7"));
    bans_settle_all(rig->cache, rig->now_us);
    assert_true(rig_get(rig, "a:1999"));
    assert_false(rig_get(rig, "a:8"));
}

static void a_flight_of_before_fills_nothing_and_is_not_joined(void **state)
{
    struct rig *rig = *state;
    const struct cache_query query = rig_query(rig, "a:1", 0, NULL);
    const struct cache_query other = rig_query(rig, "b:1", 0, NULL);
    const struct cache_fill x = {.reply = BYTES("$1\r\nx\r\n"), .deadline_us = CACHE_NO_DEADLINE};
    struct cache_waiter waiters[3];
    struct cache_flight *flight = rig_begin(rig, &query, &waiters[0]);
    struct cache_flight *kept = rig_begin(rig, &other, &waiters[1]);

    ban_name(rig, BAN_PREFIX, "a:");
    struct cache_flight *next = rig_begin(rig, &query, &waiters[2]);
    assert_ptr_not_equal(next, flight);
    assert_int_equal(rig_complete(rig, kept, &x), CACHE_FILLED);
    assert_int_equal(rig_complete(rig, flight, &x), CACHE_VOIDED);
    assert_false(rig_get(rig, "a:1"));
    /* A void flight drops its key's flights, too: the newer one shows itself alone. */
    (void)rig_complete(rig, next, &x);
    assert_true(rig_get(rig, "b:1"));
}

static void a_flight_of_after_fills(void **state)
{
    struct rig *rig = *state;
    const struct cache_query query = rig_query(rig, "a:1", 0, NULL);
    const struct cache_fill x = {.reply = BYTES("$1\r\nx\r\n"), .deadline_us = CACHE_NO_DEADLINE};
    struct cache_waiter waiter;

    ban_name(rig, BAN_PREFIX, "a:");
    struct cache_flight *flight = rig_begin(rig, &query, &waiter);
    ban_name(rig, BAN_PREFIX, "b:");
    assert_int_equal(rig_complete(rig, flight, &x), CACHE_FILLED);
    assert_true(rig_get(rig, "a:1"));
}

static void a_whole_rule_counts_what_was_held(void **state)
{
    struct rig *rig = *state;
    char key[24];

    for (unsigned i = 0; i < 500; i++) {
        snprintf(key, sizeof(key), "k%u", i);
        fill(rig, key);
    }
    assert_int_equal(cache_clear(rig->cache, -1, METRIC_invalidations_admin), 500);
    /* None of them has been met since. */
    assert_int_equal(cache_clear(rig->cache, -1, METRIC_invalidations_admin), 0);
    fill(rig, "k3");
    fill(rig, "new");
    assert_int_equal(cache_clear(rig->cache, 0, METRIC_invalidations_admin), 2);
    bans_settle_all(rig->cache, rig->now_us);
    fill(rig, "new");
    assert_int_equal(cache_clear(rig->cache, -1, METRIC_invalidations_admin), 1);
}

static void a_standing_ban_keeps_out_until_it_is_removed(void **state)
{
    struct rig *rig = *state;
    const struct ban_rule rule = {.kind = BAN_PREFIX, .name = BYTES("a:"), .ns = -1};
    struct ban_info infos[4];

    fill(rig, "a:1");
    assert_int_equal(stand(rig, rule, 17, 0), BAN_SET);
    assert_false(rig_get(rig, "a:1"));
    assert_int_equal(rig_fill(rig, "a:1", "x"), CACHE_BANNED);
    bans_settle_all(rig->cache, rig->now_us);
    assert_int_equal(rig_fill(rig, "a:1", "x"), CACHE_BANNED);
    fill(rig, "b:1");
    assert_int_equal(bans_list(rig->cache, infos, 4), 1);
    assert_int_equal(infos[0].id, 17);
    assert_true(bytes_equal(infos[0].rule.name, BYTES("a:")));
    assert_int_equal(infos[0].n_dropped, 3);
    assert_false(bans_remove(rig->cache, 18));
    assert_true(bans_remove(rig->cache, 17));
    fill(rig, "a:1");
    assert_true(rig_get(rig, "a:1"));
}

static void a_standing_ban_ends_with_its_time(void **state)
{
    struct rig *rig = *state;
    const struct ban_rule rule = {.kind = BAN_GLOB, .name = BYTES("*"), .ns = -1};

    assert_int_equal(stand(rig, rule, 1, 5 * SECOND), BAN_SET);
    assert_int_equal(rig_fill(rig, "a", "x"), CACHE_BANNED);
    bans_sweep(rig->cache, rig->now_us + 5 * SECOND - 1, 0);
    assert_int_equal(rig_fill(rig, "a", "x"), CACHE_BANNED);
    bans_sweep(rig->cache, rig->now_us + 5 * SECOND, 0);
    fill(rig, "a");
}

static void age_and_size_are_asked_too(void **state)
{
    struct rig *rig = *state;
    const int64_t now_us = rig->now_us;

    /* Fetched in the past: the rig's clock goes by the entries, not by the bans. */
    rig->now_us = now_us - 100 * SECOND;
    fill(rig, "old");
    rig->now_us = now_us;
    fill(rig, "young");
    ban(rig, (struct ban_rule){.ns = -1, .min_age_ms = 50000});
    assert_false(rig_get(rig, "old"));
    assert_true(rig_get(rig, "young"));
    assert_int_equal(rig_fill_n(rig, "large", 3000, CACHE_NO_DEADLINE), CACHE_FILLED);
    ban(rig, (struct ban_rule){.ns = -1, .min_bytes = 2000});
    assert_false(rig_get(rig, "large"));
    assert_true(rig_get(rig, "young"));
}

static void a_standing_age_ends_entries_when_they_reach_it(void **state)
{
    struct rig *rig = *state;
    const struct ban_rule rule = {
        .kind = BAN_PREFIX, .name = BYTES("a"), .ns = -1, .min_age_ms = 10000};

    fill(rig, "a1");
    assert_int_equal(stand(rig, rule, 1, 0), BAN_SET);
    fill(rig, "a2");
    fill(rig, "b");
    assert_true(rig_get(rig, "a1"));
    assert_true(rig_get(rig, "a2"));
    rig->now_us += 12 * SECOND;
    epochs_advance(rig->epochs, rig->link, rig->now_us);
    assert_false(rig_get(rig, "a1"));
    assert_false(rig_get(rig, "a2"));
    assert_true(rig_get(rig, "b"));
}

static void too_many_drop_everything_and_standing_ones_are_refused(void **state)
{
    struct rig *rig = *state;
    const struct ban_order more = {.rule = {.kind = BAN_PREFIX, .name = BYTES("n4"), .ns = -1},
                                   .reason = METRIC_invalidations_pattern};
    uint64_t n_held;
    char name[8];

    cache_set_max_bans(rig->cache, 4);
    fill(rig, "innocent");
    for (unsigned i = 0; i < 4; i++) {
        snprintf(name, sizeof(name), "n%u", i);
        ban_name(rig, BAN_PREFIX, name);
        /* The same again takes the place of the first. */
        ban_name(rig, BAN_PREFIX, name);
    }
    assert_true(rig_get(rig, "innocent"));
    assert_int_equal(bans_add(rig->cache, &more, rig->now_us, &n_held), BAN_EVERYTHING);
    assert_int_equal(n_held, 1);
    assert_false(rig_get(rig, "innocent"));
    assert_int_equal(n_pending(rig), 1);
    for (uint64_t id = 1; id <= 4; id++) {
        assert_int_equal(stand(rig, more.rule, id, 0), BAN_SET);
    }
    assert_int_equal(stand(rig, more.rule, 5, 0), BAN_FULL);
}

static void marks_that_run_out_hide_nothing(void **state)
{
    struct rig *rig = *state;

    fill(rig, "k");
    fill(rig, "a:1");
    for (unsigned i = 0; i < 70000; i++) {
        ban_name(rig, BAN_PREFIX, i == 66000 ? "k" : "none");
        if (i == 66001) {
            assert_false(rig_get(rig, "k"));
            fill(rig, "k2");
        }
    }
    assert_true(rig_get(rig, "a:1"));
    ban_name(rig, BAN_PREFIX, "a:");
    assert_false(rig_get(rig, "a:1"));
    bans_settle_all(rig->cache, rig->now_us);
    fill(rig, "a:1");
    ban_name(rig, BAN_PREFIX, "a:");
    assert_false(rig_get(rig, "a:1"));
}

static void bans_hold_while_tables_grow(void **state)
{
    struct rig *rig = *state;
    char key[24];

    for (unsigned i = 0; i < 30000; i++) {
        snprintf(key, sizeof(key), "%c:%u", i % 2 == 0 ? 'a' : 'b', i);
        fill(rig, key);
        if (i == 9999) {
            ban_name(rig, BAN_PREFIX, "a:");
        }
    }
    for (unsigned i = 0; i < 10000; i++) {
        snprintf(key, sizeof(key), "%c:%u", i % 2 == 0 ? 'a' : 'b', i);
        assert_int_equal(rig_get(rig, key), i % 2 == 1);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_rule_drops_what_it_names_and_nothing_else),
        TEST(what_goes_beside_a_hit_is_freed),
        TEST(what_is_fetched_later_stays_whatever_bans_follow),
        TEST(a_flight_of_before_fills_nothing_and_is_not_joined),
        TEST(a_flight_of_after_fills),
        TEST(a_whole_rule_counts_what_was_held),
        TEST(a_standing_ban_keeps_out_until_it_is_removed),
        TEST(a_standing_ban_ends_with_its_time),
        TEST(age_and_size_are_asked_too),
        TEST(a_standing_age_ends_entries_when_they_reach_it),
        TEST(too_many_drop_everything_and_standing_ones_are_refused),
        TEST(marks_that_run_out_hide_nothing),
        TEST(bans_hold_while_tables_grow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
