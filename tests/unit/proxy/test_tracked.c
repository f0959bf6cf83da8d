/*
 * test_tracked.c - proves of tracked.h and key_run.h: a key is told to whoever it was remembered
 * for, once; clients that have gone make room; what is void is told to nobody; the oldest goes
 * first; runs that are cut short end
 */
#include "proxy/key_run.h"
#include "proxy/tracked.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

struct told {
    uint64_t clients[64];
    unsigned n;
};

static void note(void *context, uint64_t client)
{
    struct told *told = context;

    told->clients[told->n++] = client;
}

static unsigned take(struct tracked *table, const char *key, struct told *told)
{
    told->n = 0;
    tracked_take(table, bytes_of_string(key), note, told);
    return told->n;
}

static void a_key_is_told_once_to_all(void **state)
{
    struct tracked *table = mem_alloc(sizeof(*table));
    struct told told;

    (void)state;
    for (uint64_t client = 1; client <= 10; client++) {
        assert_true(tracked_add(table, BYTES("k"), client));
        assert_true(tracked_add(table, BYTES("k"), client));
    }
    assert_true(tracked_add(table, BYTES("other"), 11));
    assert_int_equal(table->n, 2);
    assert_int_equal(take(table, "k", &told), 10);
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(told.clients[i], i + 1);
    }
    assert_int_equal(take(table, "k", &told), 0);
    assert_int_equal(take(table, "none", &told), 0);
    assert_int_equal(take(table, "other", &told), 1);
    assert_int_equal(table->n, 0);
    tracked_fini(table);
    mem_free(table);
}

static bool is_odd(void *context, uint64_t client)
{
    (void)context;
    return client % 2 == 1;
}

static void clients_that_have_gone_make_room(void **state)
{
    struct tracked *table = mem_alloc(sizeof(*table));
    struct told told;
    unsigned n_even = 0;

    (void)state;
    table->is_gone = is_odd;
    for (uint64_t client = 1; client < 10000; client += 2) {
        assert_true(tracked_add(table, BYTES("k"), client));
        if (client % 1000 == 1) {
            assert_true(tracked_add(table, BYTES("k"), client + 1));
        }
    }
    assert_in_range(take(table, "k", &told), 10, 64);
    for (unsigned i = 0; i < told.n; i++) {
        n_even += told.clients[i] % 2 == 0;
    }
    assert_int_equal(n_even, 10);
    tracked_fini(table);
    mem_free(table);
}

static void one_client_is_removed(void **state)
{
    struct tracked *table = mem_alloc(sizeof(*table));
    struct told told;

    (void)state;
    for (uint64_t client = 1; client <= 3; client++) {
        assert_true(tracked_add(table, BYTES("k"), client));
    }
    tracked_remove(table, BYTES("k"), 2);
    tracked_remove(table, BYTES("k"), 9);
    tracked_remove(table, BYTES("none"), 1);
    assert_int_equal(take(table, "k", &told), 2);
    assert_true(tracked_add(table, BYTES("k"), 1));
    tracked_remove(table, BYTES("k"), 1);
    assert_int_equal(table->n, 0);
    tracked_fini(table);
    mem_free(table);
}

static void void_is_told_to_nobody_and_swept(void **state)
{
    struct tracked *table = mem_alloc(sizeof(*table));
    struct told told;
    char key[16];

    (void)state;
    for (unsigned i = 0; i < 100; i++) {
        snprintf(key, sizeof(key), "k%u", i);
        assert_true(tracked_add(table, bytes_of_string(key), 1));
    }
    tracked_void(table);
    assert_int_equal(table->n, 100);
    assert_int_equal(take(table, "k5", &told), 0);
    assert_true(tracked_add(table, BYTES("k7"), 2)); /* anew */
    tracked_sweep(table, 10);
    assert_int_equal(table->n, 89);
    tracked_sweep(table, 1000);
    assert_int_equal(table->n, 1);
    assert_int_equal(take(table, "k7", &told), 1);
    assert_int_equal(told.clients[0], 2);
    tracked_fini(table);
    mem_free(table);
}

static void the_oldest_comes_first(void **state)
{
    struct tracked *table = mem_alloc(sizeof(*table));
    struct told told;

    (void)state;
    assert_int_equal(tracked_oldest(table).len, 0);
    assert_true(tracked_add(table, BYTES("a"), 1));
    assert_true(tracked_add(table, BYTES("b"), 1));
    assert_true(tracked_add(table, BYTES("a"), 2));
    assert_true(bytes_equal(tracked_oldest(table), BYTES("b")));
    assert_int_equal(take(table, "b", &told), 1);
    assert_true(bytes_equal(tracked_oldest(table), BYTES("a")));
    tracked_fini(table);
    mem_free(table);
}

static void runs_end_where_they_were_cut(void **state)
{
    struct buffer run;
    struct bytes rest, key;

    (void)state;
    buffer_init(&run);
    assert_int_equal(key_run_add(&run, BYTES("one")), 0);
    assert_int_equal(key_run_add(&run, BYTES("")), 0);
    assert_int_equal(key_run_add_array(&run, BYTES("*2\r\n$1\r\na\r\n$2\r\nbc\r\n")), 0);
    rest = buffer_bytes(&run);
    assert_true(key_run_next(&rest, &key) && bytes_equal(key, BYTES("one")));
    assert_true(key_run_next(&rest, &key) && key.len == 0);
    assert_true(key_run_next(&rest, &key) && bytes_equal(key, BYTES("a")));
    assert_true(key_run_next(&rest, &key) && bytes_equal(key, BYTES("bc")));
    assert_false(key_run_next(&rest, &key));
    for (size_t len = 0; len < buffer_len(&run); len++) {
        rest = bytes_make(run.data + run.head, len);
        while (key_run_next(&rest, &key)) {
            assert_true(key.ptr + key.len <= run.data + run.head + len);
        }
    }
    assert_int_not_equal(key_run_add_array(&run, BYTES("*1\r\n:5\r\n")), 0);
    assert_int_not_equal(key_run_add_array(&run, BYTES("*2\r\n$1\r\na\r\n")), 0);
    assert_int_not_equal(key_run_add_array(&run, BYTES("$1\r\na\r\n")), 0);
    buffer_fini(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_is_told_once_to_all),
        cmocka_unit_test(clients_that_have_gone_make_room),
        cmocka_unit_test(one_client_is_removed),
        cmocka_unit_test(void_is_told_to_nobody_and_swept),
        cmocka_unit_test(the_oldest_comes_first),
        cmocka_unit_test(runs_end_where_they_were_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
