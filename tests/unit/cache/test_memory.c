/*
 * Proves of cache.h's promises on memory: the accounted bytes are the sum over
 * entries and structures after any sequence of operations; nothing leaks; an entry of a 24-byte key
 * and a 100-byte value costs at most 45 bytes beyond key, value and size class; maxmemory holds for
 * the arena's resident size, also after the size of values has shifted, and may change.
 */
#include "cache_testing.h"

static uint32_t random_state;

static uint32_t next_random(uint32_t below)
{
    random_state = random_state * 1664525 + 1013904223;
    return (random_state >> 8) % below;
}

/* One of all the things that can happen to a key. */
static void one_operation(struct rig *rig, struct cache_entry **pins)
{
    static unsigned char text[70000];
    char key[16], args[8];
    struct cache_waiter waiter;

    snprintf(key, sizeof(key), "k%u", next_random(3000));
    snprintf(args, sizeof(args), "%u", next_random(20));
    struct cache_query query = rig_query(rig, key, next_random(2) * 8,
                                         next_random(2) == 0 ? args : NULL);
    query.db = next_random(4) == 0 ? next_random(3) : 0;
    if (query.command == 0) {
        query.args.len = 0;
    }
    const unsigned what = next_random(10);
    if (what < 5) {
        const size_t n = next_random(20) == 0 ? next_random(60000) : next_random(300);
        memset(text, 'v', n + 1);
        const struct cache_fill fill = {.reply = bytes_make(text, n + 1),
                                        .deadline_us = next_random(3) == 0
                                                           ? rig->now_us + next_random(2000000)
                                                           : CACHE_NO_DEADLINE,
                                        .ns = (uint8_t)(next_random(50) == 0 ? 3 : 0),
                                        .is_negative = next_random(10) == 0};
        struct cache_offer offer = rig_offer(rig);
        struct cache_flight *flight = NULL;
        offer.may_hit = next_random(2) == 0;
        if (cache_lookup(rig->cache, &query, &offer, 5, &waiter, rig->copy, &rig->hit, &flight) ==
            CACHE_BEGUN) {
            if (next_random(20) == 0) {
                cache_invalidate(rig->cache, query.key);
            }
            rig_complete(rig, flight, next_random(20) == 0 ? NULL : &fill);
        }
    } else if (what < 8) {
        rig->hit.pinned = NULL;
        (void)rig_get_view(rig, &query);
    } else if (what == 8) {
        cache_invalidate(rig->cache, query.key);
    } else {
        rig->now_us += next_random(20000);
        epochs_advance(rig->epochs, rig->link, rig->now_us);
    }
    if (rig->hit.pinned != NULL) {
        struct cache_entry **place = &pins[next_random(50)];
        if (*place != NULL) {
            cache_unpin(rig->cache, *place);
        }
        *place = rig->hit.pinned;
        rig->hit.pinned = NULL;
    }
}

static void accounted_bytes_are_exact_after_any_sequence(void **state)
{
    struct rig rig;
    struct cache_entry *pins[50] = {0};
    struct cache_stats stats;

    (void)state;
    random_state = 42;
    rig_init(&rig, 2 * MIB, 2);
    const size_t before = arena_allocated();
    for (unsigned i = 0; i < 200000; i++) {
        one_operation(&rig, pins);
        if (i % 10000 == 0) {
            rig_audit(&rig);
        }
        if (i % 40000 == 39999) {
            epochs_close(rig.epochs, rig.link);
            rig.link = epochs_open(rig.epochs, RIG_NODE, 0, rig.now_us);
        }
        if (i % 1000 == 0) {
            cache_sweep(rig.cache, 100, rig.now_us);
        }
    }
    rig_audit(&rig);
    /* The allocator's own figure is the same, but for the padding of large classes. */
    cache_stats(rig.cache, &stats);
    assert_true(stats.n_views > stats.n_entries);
    assert_true(stats.accounted_bytes <= 2 * MIB + 200000);
    for (unsigned i = 0; i < 50; i++) {
        if (pins[i] != NULL) {
            cache_unpin(rig.cache, pins[i]);
        }
    }
    assert_int_equal(rig.cache->shards[0].detached_bytes + rig.cache->shards[1].detached_bytes, 0);
    cache_clear(rig.cache, -1, METRIC_invalidations_admin);
    for (unsigned i = 0; i < 20; i++) {
        cache_sweep(rig.cache, 1000, rig.now_us);
    }
    rig_audit(&rig);
    assert_true(arena_allocated() <= before + 200000);
    rig_fini(&rig);
    assert_true(arena_allocated() < before);
}

static void fill_keys(struct rig *rig, const char *prefix, unsigned n, size_t value_bytes)
{
    char key[32];

    for (unsigned i = 0; i < n; i++) {
        snprintf(key, sizeof(key), "%s:%020u", prefix, i);
        rig_fill_n(rig, key, value_bytes, rig->now_us + 3600 * SECOND);
        if (i % 4096 == 0) {
            cache_tick(rig->cache);
        }
    }
}

static void metadata_is_at_most_45_bytes_per_entry(void **state)
{
    struct rig rig;
    struct cache_stats stats;

    (void)state;
    rig_init(&rig, 64 * MIB, 4);
    /* While it fills, and when it is full and has a ghost. */
    for (unsigned step = 0; step < 12; step++) {
        char prefix[8];
        snprintf(prefix, sizeof(prefix), "s%02u", step);
        fill_keys(&rig, prefix, 50000, 100);
        cache_stats(rig.cache, &stats);
        const double per_entry = (double)stats.metadata_bytes / (double)stats.n_entries;
        assert_true(per_entry > 36 && per_entry <= 45);
    }
    assert_true(stats.n_entries > 350000 && stats.n_entries < 450000);
    assert_true(rig.cache->shards[0].policy.ghost.now.slots != NULL);
    const double resident = (double)stats.arena_resident_bytes / (double)stats.n_entries - 124;
    assert_true(resident <= 65);
    rig_audit(&rig);
    rig_fini(&rig);
}

static void resident_size_keeps_to_maxmemory_after_a_size_shift(void **state)
{
    struct rig rig;
    struct cache_stats stats;
    const size_t sizes[] = {100, 900, 300};
    const size_t before = arena_allocated();

    (void)state;
    arena_purge();
    rig_init(&rig, 64 * MIB, 4);
    for (unsigned i = 0; i < 3; i++) {
        char prefix[8];
        snprintf(prefix, sizeof(prefix), "z%02u", i);
        fill_keys(&rig, prefix, (unsigned)(200 * MIB / (sizes[i] + 80)), sizes[i]);
        cache_tick(rig.cache);
        cache_stats(rig.cache, &stats);
        assert_true(stats.accounted_bytes > 52 * MIB);
        assert_true(stats.arena_resident_bytes <= 64 * MIB / 10 * 11 + 4 * MIB);
    }
    rig_audit(&rig);
    rig_fini(&rig);
    assert_int_equal(arena_allocated(), before);
}

static void entries_left_in_thin_slabs_are_moved_together(void **state)
{
    struct rig rig;
    struct cache_stats before, after;
    char key[32];

    (void)state;
    rig_init(&rig, 64 * MIB, 4);
    fill_keys(&rig, "c", 300000, 100);
    for (unsigned i = 0; i < 300000; i++) {
        if (i % 10 != 0) {
            const int n = snprintf(key, sizeof(key), "c:%020u", i);
            cache_invalidate(rig.cache, bytes_make(key, (size_t)n));
        }
    }
    arena_purge();
    cache_stats(rig.cache, &before);
    assert_true(before.arena_resident_bytes > 30 * MIB);
    for (unsigned i = 0; i < 4; i++) {
        cache_tick(rig.cache);
    }
    cache_stats(rig.cache, &after);
    assert_int_equal(after.n_entries, 30000);
    assert_true(after.arena_resident_bytes < 16 * MIB);
    rig_audit(&rig);
    for (unsigned i = 0; i < 300000; i += 10) {
        snprintf(key, sizeof(key), "c:%020u", i);
        assert_true(rig_get(&rig, key));
        assert_int_equal(rig.hit.reply.len, 108);
        assert_int_equal(rig.hit.reply.ptr[105], 'v');
    }
    rig_fini(&rig);
}

static void maxmemory_may_change(void **state)
{
    struct rig rig;
    struct cache_stats stats;

    (void)state;
    rig_init(&rig, 32 * MIB, 2);
    fill_keys(&rig, "a", 150000, 200);
    cache_set_maxmemory(rig.cache, 16 * MIB);
    for (unsigned i = 0; i < 20; i++) {
        cache_tick(rig.cache);
    }
    cache_stats(rig.cache, &stats);
    assert_int_equal(stats.maxmemory, 16 * MIB);
    assert_true(stats.accounted_bytes <= 16 * MIB);
    assert_true(stats.n_entries > 30000);
    cache_set_maxmemory(rig.cache, 64 * MIB);
    fill_keys(&rig, "b", 150000, 200);
    cache_stats(rig.cache, &stats);
    assert_true(stats.accounted_bytes > 32 * MIB);
    rig_audit(&rig);
    rig_fini(&rig);
}

/* What others in the process hold bounds it also when it is set anew. */
static void maxmemory_stays_below_the_ceiling(void **state)
{
    struct rig rig;
    struct cache_stats stats;

    (void)state;
    rig_init(&rig, 32 * MIB, 2);
    cache_set_ceiling(rig.cache, 8 * MIB);
    cache_set_maxmemory(rig.cache, 64 * MIB);
    cache_stats(rig.cache, &stats);
    assert_int_equal(stats.maxmemory, 64 * MIB);
    assert_true(stats.budget_bytes <= 8 * MIB);
    fill_keys(&rig, "a", 150000, 200);
    cache_stats(rig.cache, &stats);
    assert_true(stats.accounted_bytes <= 8 * MIB);
    cache_set_ceiling(rig.cache, 128 * MIB);
    cache_set_maxmemory(rig.cache, 16 * MIB);
    cache_stats(rig.cache, &stats);
    assert_int_equal(stats.budget_bytes, 16 * MIB);
    rig_fini(&rig);
}

static void table_shrinks_after_a_clear(void **state)
{
    struct rig rig;

    (void)state;
    rig_init(&rig, 32 * MIB, 1);
    fill_keys(&rig, "a", 100000, 10);
    assert_true(rig.cache->shards[0].table.now.n_bytes > 500000);
    assert_int_equal(cache_clear(rig.cache, -1, METRIC_invalidations_admin), 100000);
    for (unsigned i = 0; i < 20; i++) {
        cache_sweep(rig.cache, 10000, rig.now_us);
    }
    assert_true(rig.cache->shards[0].table.now.n_bytes <= 2 * TABLE_MIN_BYTES);
    rig_audit(&rig);
    rig_fini(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accounted_bytes_are_exact_after_any_sequence),
        cmocka_unit_test(metadata_is_at_most_45_bytes_per_entry),
        cmocka_unit_test(resident_size_keeps_to_maxmemory_after_a_size_shift),
        cmocka_unit_test(entries_left_in_thin_slabs_are_moved_together),
        cmocka_unit_test(maxmemory_may_change),
        cmocka_unit_test(maxmemory_stays_below_the_ceiling),
        cmocka_unit_test(table_shrinks_after_a_clear),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
