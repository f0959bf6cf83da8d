/*
 * Proves of table.h: what is inserted is found until it is erased, while the table grows, shrinks
 * and moves; colliding hashes keep apart; overflow counts return to nothing; the load stays within
 * its limits and the cost of an entry near 6.4 bytes.
 */
#include "cache_testing.h"

#define N_REFS 200000u

/* A reference is a number, its hash comes from there; `mask` makes hashes collide. */
static uint64_t mask = UINT64_MAX;

static uint64_t hash_of(uint32_t ref)
{
    uint64_t x = (ref + UINT64_C(1)) * UINT64_C(0x9e3779b97f4a7c15);

    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (x ^ (x >> 31)) & mask;
}

static bool is_ref(uint32_t ref, const void *what)
{
    return ref == *(const uint32_t *)what;
}

static uint32_t *find(const struct table *table, uint32_t ref)
{
    return table_find(table, hash_of(ref), is_ref, &ref);
}

static int set_up(void **state)
{
    struct table *table = calloc(1, sizeof(*table));

    mask = UINT64_MAX;
    if (arena_init(256 * MIB) != 0) {
        return -1;
    }
    table_init(table, hash_of, arena_alloc_table(TABLE_MIN_BYTES), TABLE_MIN_BYTES);
    *state = table;
    return 0;
}

static int tear_down(void **state)
{
    struct table *table = *state;

    arena_free(table->now.buckets);
    arena_free(table->old.buckets);
    free(table);
    return 0;
}

/* What a shard does after each insertion. */
static void serve(struct table *table)
{
    arena_free(table_move(table, TABLE_MOVES_PER_INSERT));
    const size_t wanted = table_wanted_bytes(table);
    if (wanted > 0) {
        table_install(table, arena_alloc_table(wanted), wanted);
    }
}

static void insert(struct table *table, uint32_t ref)
{
    assert_true(table_insert(table, hash_of(ref), ref));
    serve(table);
}

static void erase(struct table *table, uint32_t ref)
{
    const uint32_t *slot = find(table, ref);

    assert_non_null(slot);
    table_erase(table, hash_of(ref), slot);
}

static uint64_t sum_of_overflows(const struct table *table)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < table->now.n_buckets; i++) {
        sum += table->now.buckets[i].overflow;
    }
    return sum;
}

static void table_grows_and_finds_everything(void **state)
{
    struct table *table = *state;
    double bytes = 0;
    uint64_t n = 0;

    for (uint32_t ref = 1; ref <= N_REFS; ref++) {
        insert(table, ref);
        assert_non_null(find(table, ref));
        assert_non_null(find(table, ref / 2 + 1));
        assert_null(find(table, ref + N_REFS));
        if (ref > 1000 && !table_is_moving(table)) {
            assert_true(table_count(table) <= table->now.n_buckets * 11);
            bytes += (double)table_bytes(table) / ref;
            n++;
        }
    }
    assert_int_equal(table_count(table), N_REFS);
    for (uint32_t ref = 1; ref <= N_REFS; ref++) {
        assert_int_equal(*find(table, ref), ref);
    }
    assert_true(bytes / (double)n > 5.8 && bytes / (double)n < 6.6);
}

static void table_shrinks_and_leaves_no_counts(void **state)
{
    struct table *table = *state;

    for (uint32_t ref = 1; ref <= N_REFS; ref++) {
        insert(table, ref);
    }
    const size_t full_bytes = table_bytes(table);
    for (uint32_t ref = 1; ref <= N_REFS; ref++) {
        erase(table, ref);
        serve(table);
        assert_null(find(table, ref));
    }
    while (table_is_moving(table)) {
        serve(table);
    }
    assert_int_equal(table_count(table), 0);
    assert_int_equal(table_bytes(table), TABLE_MIN_BYTES);
    assert_int_equal(sum_of_overflows(table), 0);
    assert_true(full_bytes > 100 * TABLE_MIN_BYTES);
}

static void colliding_hashes_are_kept_apart(void **state)
{
    struct table *table = *state;

    /* 16 buckets at most, one step, 4 tags. */
    mask = UINT64_C(0xf000000000000003);
    for (uint32_t ref = 1; ref <= 600; ref++) {
        assert_true(table_insert(table, hash_of(ref), ref));
    }
    for (uint32_t ref = 1; ref <= 600; ref += 2) {
        erase(table, ref);
    }
    for (uint32_t ref = 1; ref <= 600; ref++) {
        assert_int_equal(find(table, ref) != NULL, ref % 2 == 0);
    }
    for (uint32_t ref = 2; ref <= 600; ref += 2) {
        erase(table, ref);
    }
    assert_int_equal(sum_of_overflows(table), 0);
}

static void full_table_refuses(void **state)
{
    struct table *table = *state;
    uint32_t ref = 1;

    while (table_insert(table, hash_of(ref), ref)) {
        ref++;
    }
    assert_in_range(ref, table->now.n_buckets * 11, table->now.n_buckets * 12);
    for (uint32_t i = 1; i < ref; i++) {
        assert_non_null(find(table, i));
    }
    serve(table);
    assert_true(table_is_moving(table));
    assert_true(table_insert(table, hash_of(ref), ref));
}

static void random_changes_agree_with_a_plain_array(void **state)
{
    struct table *table = *state;
    bool *held = calloc(40001, sizeof(*held));
    uint32_t random = 1, n_held = 0;

    for (unsigned i = 0; i < 400000; i++) {
        random = random * 1664525 + 1013904223;
        const uint32_t ref = 1 + (random >> 8) % ((i / 50000) % 2 == 0 ? 40000 : 2000);
        if (held[ref]) {
            erase(table, ref);
            n_held--;
        } else {
            assert_true(table_insert(table, hash_of(ref), ref));
            n_held++;
        }
        held[ref] = !held[ref];
        serve(table);
        assert_int_equal(table_count(table), n_held);
    }
    for (uint32_t ref = 1; ref <= 40000; ref++) {
        assert_int_equal(find(table, ref) != NULL, held[ref]);
    }
    free(held);
}

static void bucket_gives_its_references(void **state)
{
    struct table *table = *state;
    uint32_t refs[TABLE_SLOTS];
    uint32_t n = 0;

    for (uint32_t ref = 1; ref <= 500; ref++) {
        assert_true(table_insert(table, hash_of(ref), ref));
    }
    for (uint32_t i = 0; i < table->now.n_buckets; i++) {
        n += table_bucket_refs(table, i, refs);
    }
    assert_int_equal(n, 500);
}

static void matching_tags_are_all_found(void **state)
{
    struct table_bucket bucket = {.overflow = 0x0505, .refs = {0x05050505}};

    (void)state;
    for (unsigned pattern = 0; pattern < 4096; pattern++) {
        for (unsigned i = 0; i < TABLE_SLOTS; i++) {
            bucket.tags[i] = (pattern >> i & 1) != 0 ? 5 : 6;
        }
        assert_int_equal(table_matches(&bucket, 5), pattern);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(table_grows_and_finds_everything),        TEST(table_shrinks_and_leaves_no_counts),
        TEST(colliding_hashes_are_kept_apart),         TEST(full_table_refuses),
        TEST(random_changes_agree_with_a_plain_array), TEST(bucket_gives_its_references),
        cmocka_unit_test(matching_tags_are_all_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
