/*
 * test_buffer.c - proves of buffer.h: order of bytes under growth and moving, no storage in an
 * empty buffer, exact storage after shrinking, and a bounded free list
 */
#include "base/buffer.h"
#include "base/mem.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static void an_empty_buffer_holds_no_storage(void **state)
{
    struct buffer buffer;

    (void)state;
    buffer_init(&buffer);
    assert_null(buffer.data);
    assert_int_equal(buffer_append(&buffer, bytes_make(NULL, 0)), 0);
    assert_null(buffer.data);
    assert_int_equal(buffer_append(&buffer, BYTES("abc")), 0);
    buffer_consume(&buffer, 3);
    buffer_release(&buffer);
    assert_null(buffer.data);
    assert_int_equal(buffer.capacity, 0);
    buffer_fini(&buffer);
    buffer_pool_fini();
}

/* Random appends and consumptions against a counter that says which byte comes next. */
static void bytes_leave_in_the_order_they_came(void **state)
{
    struct buffer buffer;
    unsigned char block[5000];
    unsigned char in = 0, out = 0;

    (void)state;
    srand(1);
    buffer_init(&buffer);
    for (unsigned round = 0; round < 20000; round++) {
        const size_t n = (size_t)rand() % sizeof block;

        for (size_t i = 0; i < n; i++) {
            block[i] = in++;
        }
        assert_int_equal(buffer_append(&buffer, bytes_make(block, n)), 0);
        size_t taken = (size_t)rand() % (buffer_len(&buffer) + 1);
        if (round % 1000 == 999) {
            buffer_shrink(&buffer);
            taken = buffer_len(&buffer);
        }
        const struct bytes bytes = buffer_bytes(&buffer);
        for (size_t i = 0; i < taken; i++) {
            if (bytes.ptr[i] != out++) {
                fail_msg("round %u: a byte is out of order", round);
            }
        }
        buffer_consume(&buffer, taken);
    }
    buffer_fini(&buffer);
    buffer_pool_fini();
}

static void consumed_room_is_used_again_when_moving_is_cheap(void **state)
{
    struct buffer buffer;

    (void)state;
    buffer_init(&buffer);
    assert_int_equal(buffer_reserve(&buffer, BUFFER_CHUNK), 0);
    assert_int_equal(buffer.capacity, BUFFER_CHUNK);
    memset(buffer_end(&buffer), 'x', BUFFER_CHUNK);
    buffer_commit(&buffer, BUFFER_CHUNK);
    buffer_consume(&buffer, BUFFER_CHUNK - 100);
    const unsigned char *data = buffer.data;
    assert_int_equal(buffer_reserve(&buffer, 1000), 0);
    assert_ptr_equal(buffer.data, data);
    assert_int_equal(buffer.head, 0);
    assert_int_equal(buffer_len(&buffer), 100);

    /* Mostly full: it grows instead. */
    buffer_commit(&buffer, BUFFER_CHUNK - 100);
    buffer_consume(&buffer, 1000);
    assert_int_equal(buffer_reserve(&buffer, 500), 0);
    assert_int_equal(buffer.capacity, 2 * BUFFER_CHUNK);
    buffer_fini(&buffer);
    buffer_pool_fini();
}

static void growth_doubles_and_keeps_what_is_readable(void **state)
{
    struct buffer buffer;
    size_t n_changes = 0, capacity = 0;

    (void)state;
    buffer_init(&buffer);
    for (unsigned i = 0; i < 1024 * 1024; i++) {
        assert_int_equal(buffer_append(&buffer, bytes_make(&i, sizeof i)), 0);
        n_changes += buffer.capacity != capacity;
        capacity = buffer.capacity;
    }
    assert_int_equal(capacity, 4 * 1024 * 1024);
    /* Small storage of 256 bytes doubles thrice; then a chunk, doubled six times. */
    assert_int_equal(n_changes, 11);
    for (unsigned i = 0; i < 1024 * 1024; i++) {
        assert_memory_equal(buffer.data + i * sizeof i, &i, sizeof i);
    }
    buffer_fini(&buffer);
    buffer_pool_fini();
}

static void a_size_beyond_memory_changes_nothing(void **state)
{
    struct buffer buffer;

    (void)state;
    buffer_init(&buffer);
    assert_int_equal(buffer_append(&buffer, BYTES("abc")), 0);
    assert_int_equal(buffer_reserve(&buffer, SIZE_MAX), -ENOMEM);
    assert_int_equal(buffer_reserve(&buffer, SIZE_MAX - 2), -ENOMEM);
    assert_int_equal(buffer_reserve(&buffer, SIZE_MAX / 2), -ENOMEM);
    assert_true(bytes_equal(buffer_bytes(&buffer), BYTES("abc")));
    buffer_fini(&buffer);
    buffer_pool_fini();
}

static void shrinking_leaves_storage_of_its_own_size(void **state)
{
    struct buffer buffer;

    (void)state;
    buffer_init(&buffer);
    assert_int_equal(buffer_reserve(&buffer, BUFFER_CHUNK), 0);
    assert_int_equal(buffer_append(&buffer, BYTES("consumed, then what is left of it")), 0);
    buffer_consume(&buffer, 10);
    buffer_shrink(&buffer);
    assert_int_equal(buffer.capacity, 64);
    assert_int_equal(buffer_pool_bytes(), BUFFER_CHUNK);
    assert_true(bytes_equal(buffer_bytes(&buffer), BYTES("then what is left of it")));
    assert_int_equal(
        buffer_append(&buffer, BYTES(", and so much more that it cannot stay within 64 bytes")), 0);
    assert_int_equal(buffer.capacity, 256);
    assert_int_equal(buffer_reserve(&buffer, BUFFER_CHUNK / 4), 0);
    assert_int_equal(buffer.capacity, BUFFER_CHUNK);
    buffer_consume(&buffer, buffer_len(&buffer));
    buffer_shrink(&buffer);
    assert_null(buffer.data);
    buffer_pool_fini();
}

static void the_free_list_is_bounded_and_serves_again(void **state)
{
    enum { N = 80 };
    struct buffer buffers[N];

    (void)state;
    for (unsigned i = 0; i < N; i++) {
        buffer_init(&buffers[i]);
        assert_int_equal(buffer_reserve(&buffers[i], BUFFER_CHUNK / 4), 0);
    }
    assert_int_equal(buffer_pool_bytes(), 0);
    const unsigned char *data = buffers[63].data;
    for (unsigned i = 0; i < N; i++) {
        buffer_fini(&buffers[i]);
    }
    assert_int_equal(buffer_pool_bytes(), 64 * BUFFER_CHUNK);
    assert_int_equal(buffer_reserve(&buffers[0], BUFFER_CHUNK / 4), 0);
    assert_ptr_equal(buffers[0].data, data);
    assert_int_equal(buffer_pool_bytes(), 63 * BUFFER_CHUNK);
    buffer_fini(&buffers[0]);
    buffer_pool_fini();
    assert_int_equal(buffer_pool_bytes(), 0);
}

/* What any client may send is read, and what it has sent stays whole; who wants more goes without.
 */
static void some_room_is_found_while_memory_is_short(void **state)
{
    const struct mem_bounds none = {INT64_MAX, INT64_MIN / 2, INT64_MIN / 2};
    const struct mem_bounds any = {INT64_MAX, INT64_MAX, INT64_MAX};
    struct buffer buffer;

    (void)state;
    buffer_pool_fini();
    mem_set_bounds(&none);
    buffer_init(&buffer);
    assert_int_equal(buffer_reserve(&buffer, MEM_SMALL), 0);
    buffer_fini(&buffer);
    assert_int_equal(buffer_reserve(&buffer, BUFFER_CHUNK / 4), -ENOMEM);
    assert_int_equal(buffer_reserve_some(&buffer, BUFFER_CHUNK / 4), 0);
    assert_int_equal(buffer.capacity, MEM_SMALL);
    memset(buffer_end(&buffer), 'a', MEM_SMALL - 1);
    buffer_commit(&buffer, MEM_SMALL - 1);
    assert_int_equal(buffer_reserve_some(&buffer, BUFFER_CHUNK / 4), 0);
    *buffer_end(&buffer) = 'b';
    buffer_commit(&buffer, 1);
    assert_int_equal(buffer_reserve_some(&buffer, BUFFER_CHUNK / 4), -ENOMEM);
    /* What was consumed is room. */
    buffer_consume(&buffer, 1);
    assert_int_equal(buffer_reserve_some(&buffer, BUFFER_CHUNK / 4), 0);
    assert_int_equal(buffer_len(&buffer), MEM_SMALL - 1);
    assert_int_equal(buffer_bytes(&buffer).ptr[MEM_SMALL - 2], 'b');
    mem_set_bounds(&any);
    assert_int_equal(buffer_reserve_some(&buffer, BUFFER_CHUNK / 4), 0);
    assert_true(buffer.capacity - buffer.tail >= BUFFER_CHUNK / 4);
    buffer_fini(&buffer);
    buffer_pool_fini();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_buffer_holds_no_storage),
        cmocka_unit_test(bytes_leave_in_the_order_they_came),
        cmocka_unit_test(consumed_room_is_used_again_when_moving_is_cheap),
        cmocka_unit_test(growth_doubles_and_keeps_what_is_readable),
        cmocka_unit_test(a_size_beyond_memory_changes_nothing),
        cmocka_unit_test(shrinking_leaves_storage_of_its_own_size),
        cmocka_unit_test(the_free_list_is_bounded_and_serves_again),
        cmocka_unit_test(some_room_is_found_while_memory_is_short),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
