/*
 * Proves of arena.h: references are 4 bytes and lead back to their blocks; the cost of a block is
 * its size class, and the class functions agree with the allocator; freeing gives everything back;
 * the range is reserved once and says when it is too small.
 */
#include <errno.h>

#include "cache_testing.h"

static int set_up(void **state)
{
    (void)state;
    return arena_init(256 * MIB);
}

static void references_lead_back_to_their_blocks(void **state)
{
    const size_t sizes[] = {16, 24, 100, 4096, 20000, MIB};

    (void)state;
    for (unsigned i = 0; i < 6; i++) {
        unsigned char *block = arena_alloc(sizes[i]);
        assert_non_null(block);
        assert_int_equal((uintptr_t)block % ARENA_GRAIN, 0);
        const arena_ref ref = arena_ref_of(block);
        assert_int_not_equal(ref, ARENA_NONE);
        assert_ptr_equal(arena_at(ref), block);
        memset(block, 0xff, sizes[i]);
        arena_free(block);
    }
    arena_free(NULL);
}

static void tables_are_zeroed_and_aligned_to_lines(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 3; round++) {
        unsigned char *table = arena_alloc_table(40960);
        assert_int_equal((uintptr_t)table % 64, 0);
        for (unsigned i = 0; i < 40960; i++) {
            assert_int_equal(table[i], 0);
        }
        memset(table, 0xaa, 40960);
        arena_free(table);
    }
}

static void classes_agree_with_the_allocator(void **state)
{
    (void)state;
    assert_int_equal(arena_cost(100), 112);
    assert_int_equal(arena_cost(160), 160);
    assert_int_equal(arena_cost(161), 192);
    for (size_t size = 64; size < 10 * MIB; size += size / 7 + 1) {
        const size_t below = arena_class_at_most(size);
        const size_t above = arena_class_above(size);
        const size_t padding = arena_cost(64 * MIB) - 64 * MIB;

        assert_true(below <= size && size < above);
        assert_int_equal(arena_cost(below), below + (below >= 16384 ? padding : 0));
        assert_int_equal(arena_cost(above), above + (above >= 16384 ? padding : 0));
        assert_int_equal(arena_cost(below + 1), arena_cost(above));
    }
}

static void freed_memory_goes_back(void **state)
{
    void *blocks[1000];
    const size_t before = arena_allocated();
    struct arena_stats full, empty;

    (void)state;
    for (unsigned i = 0; i < 1000; i++) {
        blocks[i] = arena_alloc(16000);
        memset(blocks[i], 1, 16000);
    }
    assert_true(arena_allocated() >= before + 16000 * 1000);
    arena_read_stats(&full);
    for (unsigned i = 0; i < 1000; i++) {
        arena_free(blocks[i]);
    }
    assert_int_equal(arena_allocated(), before);
    arena_purge();
    arena_read_stats(&empty);
    assert_true(empty.resident_bytes + 15 * MIB < full.resident_bytes);
}

static void room_in_slabs_is_told(void **state)
{
    void *blocks[2048];
    unsigned rooms[16];

    (void)state;
    for (unsigned i = 0; i < 2048; i++) {
        blocks[i] = arena_alloc(320);
    }
    arena_query_room(&blocks[1000], 16, rooms);
    for (unsigned i = 0; i < 16; i++) {
        assert_int_equal(rooms[i], 0);
    }
    for (unsigned i = 0; i < 2048; i++) {
        if (i % 8 != 0) {
            arena_free(blocks[i]);
            blocks[i] = blocks[i & ~7u];
        }
    }
    arena_query_room(&blocks[1000], 16, rooms);
    for (unsigned i = 0; i < 16; i++) {
        assert_in_range(rooms[i], 800, 960);
    }
    for (unsigned i = 0; i < 2048; i += 8) {
        arena_free(blocks[i]);
    }
}

static void range_is_reserved_once_and_for_all(void **state)
{
    (void)state;
    const size_t size = arena_range_bytes();
    assert_true(size >= 384 * MIB);
    assert_int_equal(arena_init(256 * MIB), 0);
    assert_int_equal(arena_range_bytes(), size);
    assert_int_equal(arena_init((size_t)1 << 40), -ENOMEM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(references_lead_back_to_their_blocks),
        cmocka_unit_test(tables_are_zeroed_and_aligned_to_lines),
        cmocka_unit_test(classes_agree_with_the_allocator),
        cmocka_unit_test(freed_memory_goes_back),
        cmocka_unit_test(room_in_slabs_is_told),
        cmocka_unit_test(range_is_reserved_once_and_for_all),
    };

    return cmocka_run_group_tests(tests, set_up, NULL);
}
