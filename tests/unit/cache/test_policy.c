/*
 * Proves of policy.h and ghost.h: entries leave in the order of S3-FIFO; a hit moves nothing; what
 * is dead goes without being remembered; negative entries have a queue of their own; the ghost
 * remembers keys worth the window and no more; and the miss ratio on recorded traces is that of
 * published S3-FIFO within 1 %.
 */
#include "cache_testing.h"
#include "trace.h"

static bool are_all_dead;

static bool dead_if_told(const void *context, const struct entry *entry)
{
    (void)context, (void)entry;
    return are_all_dead;
}

static const struct policy_ops ops = {trace_cost, trace_entry_hash, dead_if_told};

struct bench {
    struct policy policy;
    uint64_t capacity;
    struct entry *entries[20000]; /* by id; freed at the end */
};

static int set_up(void **state)
{
    struct bench *bench = calloc(1, sizeof(*bench));

    if (arena_init(256 * MIB) != 0) {
        return -1;
    }
    are_all_dead = false;
    policy_init(&bench->policy, &ops);
    bench->capacity = 100;
    *state = bench;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *bench = *state;

    for (unsigned i = 0; i < 20000; i++) {
        arena_free(bench->entries[i]);
    }
    arena_free(bench->policy.ghost.now.slots);
    arena_free(bench->policy.ghost.old.slots);
    free(bench);
    return 0;
}

static struct entry *insert(struct bench *bench, uint32_t id, bool is_negative)
{
    if (bench->entries[id] == NULL) {
        bench->entries[id] = arena_alloc(sizeof(struct entry));
    }
    struct entry *entry = bench->entries[id];
    *entry = (struct entry){.body = id, .queue = is_negative ? 0x80 : 0};
    policy_insert(&bench->policy, entry, trace_hash(id), 1);
    trace_serve_ghost(&bench->policy, bench->capacity);
    return entry;
}

static uint32_t evict(struct bench *bench)
{
    unsigned n_touched = 0;
    struct entry *victim = policy_evict(&bench->policy, bench->capacity, NULL, &n_touched);

    return victim != NULL ? victim->body : UINT32_MAX;
}

static void entries_without_hits_leave_in_their_order(void **state)
{
    struct bench *bench = *state;

    for (uint32_t id = 0; id < 100; id++) {
        insert(bench, id, false);
    }
    for (uint32_t id = 0; id < 100; id++) {
        assert_int_equal(evict(bench), id);
    }
    assert_int_equal(evict(bench), UINT32_MAX);
}

static void two_hits_carry_an_entry_into_the_main_queue(void **state)
{
    struct bench *bench = *state;

    for (uint32_t id = 0; id < 100; id++) {
        insert(bench, id, false);
    }
    policy_hit(bench->entries[0]);
    policy_hit(bench->entries[1]);
    policy_hit(bench->entries[1]);
    assert_int_equal(policy_queue_of(bench->entries[1]), POLICY_SMALL);
    assert_int_equal(evict(bench), 0);
    assert_int_equal(evict(bench), 2);
    assert_int_equal(policy_queue_of(bench->entries[1]), POLICY_MAIN);
    assert_int_equal(bench->entries[1]->hits, 0);
}

static void hits_in_the_main_queue_are_used_up_one_by_one(void **state)
{
    struct bench *bench = *state;

    /* Two in the main queue, and the small one empty. */
    for (uint32_t id = 0; id < 3; id++) {
        insert(bench, id, false);
    }
    for (unsigned i = 0; i < 5; i++) {
        policy_hit(bench->entries[0]);
        policy_hit(bench->entries[1]);
    }
    assert_int_equal(bench->entries[0]->hits, ENTRY_HITS_MAX);
    assert_int_equal(evict(bench), 2);
    for (unsigned i = 0; i < 5; i++) {
        policy_hit(bench->entries[0]);
    }
    policy_hit(bench->entries[1]);
    assert_int_equal(evict(bench), 1);
    assert_int_equal(bench->entries[0]->hits, 1);
    assert_int_equal(evict(bench), 0);
}

static void key_that_comes_back_soon_enters_the_main_queue(void **state)
{
    struct bench *bench = *state;

    for (uint32_t id = 0; id < 100; id++) {
        insert(bench, id, false);
    }
    assert_int_equal(evict(bench), 0);
    assert_true(ghost_has(&bench->policy.ghost, trace_hash(0)));
    insert(bench, 0, false);
    assert_int_equal(policy_queue_of(bench->entries[0]), POLICY_MAIN);
    assert_false(ghost_has(&bench->policy.ghost, trace_hash(0)));
}

static void ghost_remembers_the_window_and_no_more(void **state)
{
    struct bench *bench = *state;
    unsigned n_known = 0;

    bench->capacity = 5000;
    for (uint32_t id = 0; id < 5000; id++) {
        insert(bench, id, false);
    }
    for (uint32_t id = 5000; id < 20000; id++) {
        assert_int_equal(evict(bench), id - 5000);
        insert(bench, id, false);
    }
    for (uint32_t id = 0; id < 15000; id++) {
        const bool is_known = ghost_has(&bench->policy.ghost, trace_hash(id));
        n_known += is_known ? 1 : 0;
        /* The window is 4 500 keys. What full sets have lost makes it longer. */
        assert_false(is_known && id < 15000 - 2 * 4500);
        assert_false(!is_known && id >= 15000 - 1000);
    }
    assert_in_range(n_known, 4000, 4500);
}

static void dead_entries_leave_without_a_trace(void **state)
{
    struct bench *bench = *state;

    for (uint32_t id = 0; id < 100; id++) {
        insert(bench, id, false);
        policy_hit(bench->entries[id]);
        policy_hit(bench->entries[id]);
    }
    are_all_dead = true;
    assert_int_equal(evict(bench), 0);
    assert_false(ghost_has(&bench->policy.ghost, trace_hash(0)));
}

static void eviction_ends_where_everything_is_hot(void **state)
{
    struct bench *bench = *state;
    unsigned n_touched = 0;

    for (uint32_t id = 0; id < 1000; id++) {
        insert(bench, id, false);
        for (unsigned i = 0; i < 3; i++) {
            policy_hit(bench->entries[id]);
        }
    }
    assert_non_null(policy_evict(&bench->policy, bench->capacity, NULL, &n_touched));
    assert_int_equal(n_touched, POLICY_MOVES_MAX + 1);
}

static void negative_entries_have_their_own_queue(void **state)
{
    struct bench *bench = *state;
    unsigned n_touched = 0;

    for (uint32_t id = 0; id < 10; id++) {
        insert(bench, id, true);
    }
    for (uint32_t id = 10; id < 20; id++) {
        insert(bench, id, false);
    }
    assert_int_equal(evict(bench), 10);
    policy_hit(bench->entries[0]);
    policy_hit(bench->entries[0]);
    policy_hit(bench->entries[1]);
    struct entry *victim = policy_evict_negative(&bench->policy, NULL, &n_touched);
    assert_int_equal(victim->body, 1);
    assert_int_equal(policy_queue_of(bench->entries[0]), POLICY_MAIN);
    assert_true(entry_is_negative(bench->entries[0]));
    assert_false(ghost_has(&bench->policy.ghost, trace_hash(1)));
}

static void replacement_keeps_place_and_hits(void **state)
{
    struct bench *bench = *state;

    for (uint32_t id = 0; id < 3; id++) {
        insert(bench, id, false);
    }
    policy_hit(bench->entries[0]);
    bench->entries[7] = arena_alloc(sizeof(struct entry));
    *bench->entries[7] = (struct entry){.body = 7};
    policy_replace(&bench->policy, bench->entries[0], 1, bench->entries[7], 1);
    assert_int_equal(bench->entries[7]->hits, 1);
    assert_int_equal(evict(bench), 7);
    policy_remove(&bench->policy, bench->entries[1], 1);
    assert_int_equal(evict(bench), 2);
    assert_int_equal(policy_count(&bench->policy), 0);
    assert_int_equal(policy_bytes(&bench->policy), 0);
}

static void large_entries_are_admitted_only_when_they_come_back(void **state)
{
    struct bench *bench = *state;

    assert_true(policy_admits(&bench->policy, trace_hash(0), 9, 100));
    assert_false(policy_admits(&bench->policy, trace_hash(0), 10, 100));
    for (uint32_t id = 0; id < 100; id++) {
        insert(bench, id, false);
    }
    evict(bench);
    assert_true(policy_admits(&bench->policy, trace_hash(0), 10, 100));
    assert_false(policy_admits(&bench->policy, trace_hash(0), 90, 100));
}

/* ---- published miss ratios ---- */

static void assert_ratio(const struct trace *trace, uint64_t capacity, double expected)
{
    const double ratio = trace_replay(trace, capacity);

    if (ratio < expected * 0.99 || ratio > expected * 1.01) {
        fail_msg("capacity %lu: miss ratio %.4f, published %.4f", (unsigned long)capacity, ratio,
                 expected);
    }
}

static void miss_ratio_on_web12_is_that_of_s3fifo(void **state)
{
    struct trace trace;

    (void)state;
    if (!trace_read("tests/data/web12.trace.xz", &trace)) {
        print_message("skipped: tests/data/web12.trace.xz or xz is not here\n");
        skip();
    }
    assert_int_equal(trace.n_requests, 95607);
    assert_int_equal(trace.n_ids, 13756);
    assert_ratio(&trace, 138, 0.5894);
    assert_ratio(&trace, 1376, 0.2774);
    assert_ratio(&trace, 4127, 0.1949);
    trace_free(&trace);
}

static void miss_ratio_on_orm_busy_is_that_of_s3fifo(void **state)
{
    struct trace trace;

    (void)state;
    if (!trace_read("../shared/workloads/orm-busy.trace.xz", &trace)) {
        print_message("skipped: ../shared/workloads/orm-busy.trace.xz is not here\n");
        skip();
    }
    assert_ratio(&trace, 76, 0.5975);
    assert_ratio(&trace, 763, 0.2436);
    assert_ratio(&trace, 7635, 0.1111);
    assert_ratio(&trace, 22905, 0.0518);
    trace_free(&trace);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(entries_without_hits_leave_in_their_order),
        TEST(two_hits_carry_an_entry_into_the_main_queue),
        TEST(hits_in_the_main_queue_are_used_up_one_by_one),
        TEST(key_that_comes_back_soon_enters_the_main_queue),
        TEST(ghost_remembers_the_window_and_no_more),
        TEST(dead_entries_leave_without_a_trace),
        TEST(eviction_ends_where_everything_is_hot),
        TEST(negative_entries_have_their_own_queue),
        TEST(replacement_keeps_place_and_hits),
        TEST(large_entries_are_admitted_only_when_they_come_back),
        TEST(miss_ratio_on_web12_is_that_of_s3fifo),
        TEST(miss_ratio_on_orm_busy_is_that_of_s3fifo),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
