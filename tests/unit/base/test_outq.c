/*
 * test_outq.c - proves of outq.h: order of copied and borrowed bytes through short writes and
 * moves, one release per reference, truncation, bounded writes, and no storage when empty
 */
#include "base/outq.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

/* A connected pair whose far end is read by hand. */
struct pair {
    struct stream near;
    int far;
};

static void pair_init(struct pair *pair)
{
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    stream_init(&pair->near, fds[0]);
    pair->far = fds[1];
}

static void pair_fini(struct pair *pair)
{
    stream_close(&pair->near);
    close(pair->far);
}

static void count_release(void *owner)
{
    (*(unsigned *)owner)++;
}

/* Reads what has arrived behind `into`. */
static size_t drain(const struct pair *pair, unsigned char *into, size_t size)
{
    size_t len = 0;

    while (len < size) {
        const ssize_t n = read(pair->far, into + len, size - len);

        if (n <= 0) {
            break;
        }
        len += (size_t)n;
    }
    return len;
}

static void small_replies_leave_and_give_the_storage_back(void **state)
{
    struct pair pair;
    struct outq queue;
    unsigned char read_back[64];
    unsigned char *room = NULL;

    (void)state;
    pair_init(&pair);
    outq_init(&queue);
    assert_int_equal(outq_append(&queue, BYTES("+OK\r\n")), 0);
    assert_int_equal(outq_reserve(&queue, 10, &room), 0);
    memcpy(room, ":1\r\n", 4);
    outq_commit(&queue, 4);
    assert_int_equal(outq_len(&queue), 9);
    assert_int_equal(outq_write(&queue, &pair.near), 0);
    assert_int_equal(outq_len(&queue), 0);
    assert_null(queue.tail.data);
    assert_int_equal(drain(&pair, read_back, sizeof read_back), 9);
    assert_memory_equal(read_back, "+OK\r\n:1\r\n", 9);
    outq_fini(&queue);
    pair_fini(&pair);
    buffer_pool_fini();
}

/*
 * Copies and references of random sizes go through two queues, moves, truncations and shrinking
 * into a socket that is often full; what arrives is compared with what was appended.
 */
static void everything_arrives_once_and_in_order(void **state)
{
    static unsigned char source[400000];
    static unsigned char expected[64 * 1024 * 1024], arrived[sizeof expected];
    size_t n_expected = 0, n_arrived = 0;
    unsigned n_refs = 0, n_released = 0;
    struct pair pair;
    struct outq queue, side;

    (void)state;
    srand(2);
    for (size_t i = 0; i < sizeof source; i++) {
        source[i] = (unsigned char)(i * 31 + i / 251);
    }
    pair_init(&pair);
    outq_init(&queue);
    outq_init(&side);
    for (unsigned round = 0; round < 3000; round++) {
        const unsigned n_steps = (unsigned)rand() % 12;

        for (unsigned step = 0; step < n_steps; step++) {
            const size_t size = rand() % 10 == 0 ? 12000 : rand() % 4 == 0 ? 5000 : 40;
            const size_t from = (size_t)rand() % (sizeof source - size);
            const struct bytes bytes = bytes_make(source + from, (size_t)rand() % size);

            if (rand() % 3 == 0) {
                assert_int_equal(outq_append_ref(&side, bytes, count_release, &n_released), 0);
                n_refs++;
            } else {
                assert_int_equal(outq_append(&side, bytes), 0);
            }
            memcpy(expected + n_expected, bytes.ptr, bytes.len);
            n_expected += bytes.len;
        }
        const size_t mark = outq_mark(&side);
        assert_int_equal(outq_append(&side, BYTES("a reply that turned into an error")), 0);
        outq_truncate(&side, mark);
        const size_t len = outq_len(&queue) + outq_len(&side);
        assert_int_equal(outq_move(&queue, &side), 0);
        assert_int_equal(outq_len(&side), 0);
        assert_int_equal(outq_len(&queue), len);
        if (rand() % 4 == 0) {
            outq_shrink(&queue);
        }
        const int result = outq_write(&queue, &pair.near);
        assert_true(result == (outq_len(&queue) == 0 ? 0 : -EAGAIN));
        n_arrived += drain(&pair, arrived + n_arrived, (size_t)rand() % 12000);
    }
    while (outq_len(&queue) > 0) {
        (void)!outq_write(&queue, &pair.near);
        n_arrived += drain(&pair, arrived + n_arrived, sizeof arrived - n_arrived);
    }
    n_arrived += drain(&pair, arrived + n_arrived, sizeof arrived - n_arrived);
    assert_int_equal(n_arrived, n_expected);
    assert_true(memcmp(arrived, expected, n_expected) == 0);
    assert_int_equal(n_released, n_refs);
    outq_fini(&side);
    outq_fini(&queue);
    pair_fini(&pair);
    buffer_pool_fini();
}

static void a_reference_is_released_when_it_is_written_and_not_before(void **state)
{
    static unsigned char value[3 * 1024 * 1024];
    static unsigned char read_back[sizeof value + 100];
    struct pair pair;
    struct outq queue;
    unsigned n_released = 0;

    (void)state;
    pair_init(&pair);
    outq_init(&queue);
    assert_int_equal(outq_append(&queue, BYTES("$3145728\r\n")), 0);
    assert_int_equal(
        outq_append_ref(&queue, bytes_make(value, sizeof value), count_release, &n_released), 0);
    assert_int_equal(outq_append(&queue, BYTES("\r\n")), 0);
    while (outq_write(&queue, &pair.near) == -EAGAIN) {
        assert_int_equal(n_released, outq_len(&queue) <= 2); /* only the line end is left */
        (void)drain(&pair, read_back, sizeof read_back);
    }
    assert_int_equal(n_released, 1);
    outq_fini(&queue);
    assert_int_equal(n_released, 1);
    pair_fini(&pair);
    buffer_pool_fini();
}

static void dropping_a_queue_releases_its_references(void **state)
{
    struct outq queue;
    unsigned n_released = 0;

    (void)state;
    outq_init(&queue);
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(outq_append(&queue, BYTES("header")), 0);
        assert_int_equal(outq_append_ref(&queue, BYTES("value"), count_release, &n_released), 0);
    }
    assert_int_equal(outq_append_ref(&queue, BYTES(""), count_release, &n_released), 0);
    assert_int_equal(n_released, 1); /* nothing to write: at once */
    assert_int_equal(outq_len(&queue), 55);
    outq_fini(&queue);
    assert_int_equal(n_released, 6);
    assert_int_equal(outq_len(&queue), 0);
    buffer_pool_fini();
}

static void one_call_writes_a_bounded_amount(void **state)
{
    static unsigned char value[600 * 1024];
    struct pair pair;
    struct outq queue;
    unsigned n_released = 0;
    const int size = 8 * 1024 * 1024;

    (void)state;
    pair_init(&pair);
    /* Above the system's limit where we may: the socket must take more than the bound. */
    (void)setsockopt(pair.near.fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
    outq_init(&queue);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(
            outq_append_ref(&queue, bytes_make(value, sizeof value), count_release, &n_released),
            0);
    }
    const size_t before = outq_len(&queue);
    assert_int_equal(outq_write(&queue, &pair.near), -EAGAIN);
    assert_true(before - outq_len(&queue) <= 1024 * 1024);
    outq_fini(&queue);
    pair_fini(&pair);
    buffer_pool_fini();
}

static void moving_small_output_copies_and_large_output_moves_its_storage(void **state)
{
    static unsigned char block[5000];
    struct outq dst, src;

    (void)state;
    outq_init(&dst);
    outq_init(&src);
    /* into an empty queue: the storage itself */
    assert_int_equal(outq_append(&src, BYTES("first ")), 0);
    const unsigned char *data = src.tail.data;
    assert_int_equal(outq_move(&dst, &src), 0);
    assert_ptr_equal(dst.tail.data, data);
    assert_null(src.tail.data);
    /* small behind something: a copy, and the storage goes back to the pool */
    assert_int_equal(outq_append(&src, BYTES("second ")), 0);
    assert_int_equal(outq_move(&dst, &src), 0);
    assert_null(dst.first);
    assert_null(src.tail.data);
    assert_int_equal(outq_len(&dst), 13);
    /* large behind something: moved */
    assert_int_equal(outq_append(&src, bytes_make(block, sizeof block)), 0);
    data = src.tail.data;
    assert_int_equal(outq_move(&dst, &src), 0);
    assert_ptr_equal(dst.tail.data, data);
    assert_int_equal(outq_len(&dst), 13 + sizeof block);
    /* nothing */
    assert_int_equal(outq_move(&dst, &src), 0);
    assert_int_equal(outq_len(&dst), 13 + sizeof block);
    outq_fini(&dst);
    outq_fini(&src);
    buffer_pool_fini();
}

static void a_broken_connection_is_reported(void **state)
{
    struct pair pair;
    struct outq queue;
    unsigned n_released = 0;

    (void)state;
    pair_init(&pair);
    close(pair.far);
    outq_init(&queue);
    assert_int_equal(outq_append(&queue, BYTES("x")), 0);
    assert_int_equal(outq_write(&queue, &pair.near), -EPIPE);
    assert_int_equal(outq_append_ref(&queue, BYTES("y"), count_release, &n_released), 0);
    assert_int_equal(outq_write(&queue, &pair.near), -EPIPE);
    outq_fini(&queue);
    assert_int_equal(n_released, 1);
    stream_close(&pair.near);
    buffer_pool_fini();
}

static void shrinking_leaves_no_chunk_behind(void **state)
{
    static unsigned char block[5000];
    struct outq queue;
    unsigned n_released = 0;

    (void)state;
    outq_init(&queue);
    assert_int_equal(outq_append(&queue, bytes_make(block, sizeof block)), 0);
    assert_int_equal(outq_append_ref(&queue, BYTES("value"), count_release, &n_released), 0);
    assert_int_equal(outq_append(&queue, BYTES("tail")), 0);
    outq_shrink(&queue);
    /* The small tail held none. */
    assert_int_equal(buffer_pool_bytes(), BUFFER_CHUNK);
    assert_int_equal(outq_len(&queue), sizeof block + 9);
    outq_fini(&queue);
    outq_shrink(&queue);
    assert_null(queue.tail.data);
    buffer_pool_fini();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_replies_leave_and_give_the_storage_back),
        cmocka_unit_test(everything_arrives_once_and_in_order),
        cmocka_unit_test(a_reference_is_released_when_it_is_written_and_not_before),
        cmocka_unit_test(dropping_a_queue_releases_its_references),
        cmocka_unit_test(one_call_writes_a_bounded_amount),
        cmocka_unit_test(moving_small_output_copies_and_large_output_moves_its_storage),
        cmocka_unit_test(a_broken_connection_is_reported),
        cmocka_unit_test(shrinking_leaves_no_chunk_behind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
