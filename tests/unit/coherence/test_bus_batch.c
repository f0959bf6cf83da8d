/*
 * test_bus_batch.c - proves of bus_batch.h: duplicates are merged, order and limits are kept
 */
#include "coherence/bus_batch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static enum bus_added add(struct bus_batch *batch, unsigned kind, const char *text, bool *merged)
{
    const struct bus_record record = {(uint8_t)kind, 0, -1, bytes_of_string(text), {NULL, 0}};
    struct buffer encoded;
    enum bus_added added;

    buffer_init(&encoded);
    assert_int_equal(bus_record_write(&encoded, &record), 0);
    added = bus_batch_add(batch, buffer_bytes(&encoded), merged);
    buffer_fini(&encoded);
    return added;
}

static void the_same_record_is_kept_once(void **state)
{
    struct bus_batch *batch = bus_batch_new();
    bool merged;

    (void)state;
    assert_int_equal(add(batch, BUS_KEY, "a", &merged), BUS_ADDED);
    assert_false(merged);
    assert_int_equal(add(batch, BUS_KEY, "ab", &merged), BUS_ADDED);
    assert_false(merged);
    assert_int_equal(add(batch, BUS_PREFIX, "a", &merged), BUS_ADDED);
    assert_false(merged);
    assert_int_equal(add(batch, BUS_KEY, "a", &merged), BUS_ADDED);
    assert_true(merged);
    assert_int_equal(batch->n, 3);
    bus_batch_free(&batch);
}

/* k = 1, k = 2, k = 1: the last one counts. */
static void updates_are_never_merged(void **state)
{
    struct bus_batch *batch = bus_batch_new();
    bool merged;

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(add(batch, BUS_UPDATE, "k", &merged), BUS_ADDED);
        assert_false(merged);
    }
    assert_int_equal(batch->n, 3);
    bus_batch_free(&batch);
}

static void it_takes_so_many_records_and_merges_when_full(void **state)
{
    struct bus_batch *batch = bus_batch_new();
    char text[16];
    bool merged;

    (void)state;
    for (unsigned i = 0; i < BUS_RECORDS_MAX; i++) {
        snprintf(text, sizeof(text), "%u", i);
        assert_int_equal(add(batch, BUS_KEY, text, &merged), BUS_ADDED);
    }
    assert_int_equal(add(batch, BUS_KEY, "one more", &merged), BUS_FULL);
    assert_int_equal(add(batch, BUS_KEY, "17", &merged), BUS_ADDED);
    assert_true(merged);
    assert_int_equal(batch->n, BUS_RECORDS_MAX);
    bus_batch_free(&batch);
}

static void an_empty_one_takes_the_longest_record_and_no_more(void **state)
{
    struct bus_batch *batch = bus_batch_new();
    char *text = calloc(1, BUS_RECORD_MAX + 1);
    bool merged;

    (void)state;
    memset(text, 'x', BUS_RECORD_MAX);
    assert_int_equal(add(batch, BUS_KEY, text, &merged), BUS_ADDED);
    assert_int_equal(add(batch, BUS_KEY, "y", &merged), BUS_FULL);
    bus_batch_free(&batch);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_record_is_kept_once),
        cmocka_unit_test(updates_are_never_merged),
        cmocka_unit_test(it_takes_so_many_records_and_merges_when_full),
        cmocka_unit_test(an_empty_one_takes_the_longest_record_and_no_more),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
