/* test_handover_record.c - proves of handover_record.h: whole messages of this format, or none */
#include "proxy/handover_record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static unsigned char room[sizeof(struct handover_record) + HANDOVER_TAIL_MAX + 1];

static struct bytes message(const struct handover_record *record, size_t n_tail)
{
    memcpy(room, record, sizeof(*record));
    memset(room + sizeof(*record), 'x', n_tail);
    return bytes_make(room, sizeof(*record) + n_tail);
}

static const struct handover_record good = {.magic = HANDOVER_MAGIC,
                                            .id = 7,
                                            .proto = 3,
                                            .age_us = 1000,
                                            .name_bytes = 3,
                                            .input_bytes = 9};

static void a_whole_message_is_taken(void **state)
{
    struct handover_record record;
    struct bytes tail;

    (void)state;
    assert_true(handover_record_read(message(&good, 12), &record, &tail));
    assert_memory_equal(&record, &good, sizeof(good));
    assert_int_equal(tail.len, 12);
    assert_ptr_equal(tail.ptr, room + sizeof(good));
}

static void nothing_else_is(void **state)
{
    struct handover_record record, bad;
    struct bytes tail;

    (void)state;
    assert_false(handover_record_read(message(&good, 11), &record, &tail));
    assert_false(handover_record_read(message(&good, 13), &record, &tail));
    assert_false(handover_record_read(bytes_make(room, sizeof(good) - 1), &record, &tail));
    assert_false(handover_record_read(bytes_make(room, 0), &record, &tail));
    bad = good, bad.magic++;
    assert_false(handover_record_read(message(&bad, 12), &record, &tail));
    bad = good, bad.proto = 4;
    assert_false(handover_record_read(message(&bad, 12), &record, &tail));
    bad = good, bad.age_us = -1;
    assert_false(handover_record_read(message(&bad, 12), &record, &tail));
    /* Lengths whose sum overflows. */
    bad = good, bad.name_bytes = UINT32_MAX, bad.input_bytes = 13;
    assert_false(handover_record_read(message(&bad, 12), &record, &tail));
    bad = good, bad.name_bytes = 0, bad.input_bytes = HANDOVER_TAIL_MAX + 1;
    assert_false(handover_record_read(message(&bad, HANDOVER_TAIL_MAX + 1), &record, &tail));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_message_is_taken),
        cmocka_unit_test(nothing_else_is),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
