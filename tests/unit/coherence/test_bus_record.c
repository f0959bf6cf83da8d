/*
 * test_bus_record.c - proves of bus_record.h: what is written is read; what was cut, changed or
 * signed by another is taken by nobody; what is not known yet is told apart
 */
#include "coherence/bus_record.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define CHANNEL BYTES("nc:default:inv")
#define SECRET BYTES("sesame")
#define NO_SECRET BYTES("")

#define TEXT(literal)                                                                              \
    {                                                                                              \
        (const unsigned char *)(literal), sizeof(literal) - 1                                      \
    }

static const struct bus_record samples[] = {
    {BUS_KEY, 0, 0, TEXT("user:1"), {NULL, 0}},
    {BUS_PREFIX, 0, -1, TEXT("user:"), TEXT("session")},
    {BUS_FLUSH, 0, -1, {NULL, 0}, {NULL, 0}},
    {200, 0x80, 15, TEXT("later"), TEXT("kinds")},
};

#define N_SAMPLES (sizeof(samples) / sizeof(samples[0]))

static void write_samples(struct buffer *out, struct bytes secret)
{
    const struct bus_header header = {
        .origin = 0x1122334455667788u, .seq = 7, .sent_unix_us = 99, .n_records = N_SAMPLES};
    struct buffer records;

    buffer_init(&records);
    for (size_t i = 0; i < N_SAMPLES; i++) {
        assert_int_equal(bus_record_write(&records, &samples[i]), 0);
    }
    assert_int_equal(bus_message_write(out, &header, buffer_bytes(&records), secret, CHANNEL), 0);
    buffer_fini(&records);
}

static enum bus_verdict read_message(struct bytes message, struct bytes secret)
{
    struct bus_header header;
    struct bytes records;

    return bus_message_read(message, secret, CHANNEL, &header, &records);
}

static void what_is_written_is_read(void **state)
{
    const struct bytes secrets[] = {NO_SECRET, SECRET};

    (void)state;
    for (unsigned s = 0; s < 2; s++) {
        struct buffer message;
        struct bus_header header;
        struct bus_record record;
        struct bytes records;

        buffer_init(&message);
        write_samples(&message, secrets[s]);
        assert_int_equal(
            bus_message_read(buffer_bytes(&message), secrets[s], CHANNEL, &header, &records),
            BUS_GOOD);
        assert_true(header.origin == 0x1122334455667788u && header.seq == 7);
        assert_true(header.sent_unix_us == 99 && header.n_records == N_SAMPLES);
        assert_true(header.is_signed == (s == 1) && !header.is_heartbeat && !header.is_last);
        for (size_t i = 0; i < N_SAMPLES; i++) {
            assert_true(bus_record_next(&records, &record));
            assert_int_equal(record.kind, samples[i].kind);
            assert_int_equal(record.db, samples[i].db);
            assert_int_equal(record.flags & ~BUS_HAS_B, samples[i].flags);
            assert_true(bytes_equal(record.a, samples[i].a));
            assert_true(bytes_equal(record.b, samples[i].b));
        }
        assert_false(bus_record_next(&records, &record));
        buffer_fini(&message);
    }
}

static void the_bytes_are_those_of_the_format(void **state)
{
    static const unsigned char expected[] = "NC\x01\x00"
                                            "\0\0\0\0\0\0\0\x05"
                                            "\0\0\0\0\0\0\0\x01"
                                            "\0\0\0\0\0\0\x01\x00"
                                            "\0\x01"
                                            "\x02\x01\xff\xff\x02p:\x01n";
    const struct bus_record record = {BUS_PREFIX, 0, -1, BYTES("p:"), BYTES("n")};
    const struct bus_header header = {.origin = 5, .seq = 1, .sent_unix_us = 256, .n_records = 1};
    struct buffer records, message;

    (void)state;
    buffer_init(&records);
    buffer_init(&message);
    assert_int_equal(bus_record_write(&records, &record), 0);
    assert_int_equal(
        bus_message_write(&message, &header, buffer_bytes(&records), NO_SECRET, CHANNEL), 0);
    assert_int_equal(buffer_len(&message), sizeof(expected) - 1);
    assert_memory_equal(buffer_bytes(&message).ptr, expected, sizeof(expected) - 1);
    buffer_fini(&records);
    buffer_fini(&message);
}

static void a_message_cut_anywhere_is_malformed(void **state)
{
    struct buffer message;

    (void)state;
    buffer_init(&message);
    write_samples(&message, NO_SECRET);
    for (size_t len = 0; len < buffer_len(&message); len++) {
        /* A copy of its own size, so that a read past its end is seen. */
        unsigned char *copy = malloc(len > 0 ? len : 1);

        memcpy(copy, buffer_bytes(&message).ptr, len);
        assert_int_equal(read_message(bytes_make(copy, len), NO_SECRET), BUS_MALFORMED);
        free(copy);
    }
    assert_int_equal(buffer_append(&message, BYTES("x")), 0);
    assert_int_equal(read_message(buffer_bytes(&message), NO_SECRET), BUS_MALFORMED);
    buffer_fini(&message);
}

static void a_signed_message_with_any_bit_changed_is_forged(void **state)
{
    struct buffer message;

    (void)state;
    buffer_init(&message);
    write_samples(&message, SECRET);
    assert_int_equal(read_message(buffer_bytes(&message), SECRET), BUS_GOOD);
    for (size_t i = 0; i < 8 * buffer_len(&message); i++) {
        enum bus_verdict verdict;

        message.data[message.head + i / 8] ^= (unsigned char)(1 << i % 8);
        verdict = read_message(buffer_bytes(&message), SECRET);
        assert_true(verdict == BUS_FORGED || verdict == BUS_UNSIGNED || verdict == BUS_MALFORMED);
        message.data[message.head + i / 8] ^= (unsigned char)(1 << i % 8);
    }
    buffer_fini(&message);
}

static void a_signature_holds_for_its_secret_and_channel_alone(void **state)
{
    struct bus_header header;
    struct buffer message;
    struct bytes records;

    (void)state;
    buffer_init(&message);
    write_samples(&message, SECRET);
    assert_int_equal(read_message(buffer_bytes(&message), BYTES("another")), BUS_FORGED);
    assert_int_equal(
        bus_message_read(buffer_bytes(&message), SECRET, BYTES("nc:other:inv"), &header, &records),
        BUS_FORGED);
    /* Nothing is required where there is no secret: a fleet can be given one step by step. */
    assert_int_equal(read_message(buffer_bytes(&message), NO_SECRET), BUS_GOOD);
    buffer_consume(&message, buffer_len(&message));
    write_samples(&message, NO_SECRET);
    assert_int_equal(read_message(buffer_bytes(&message), SECRET), BUS_UNSIGNED);
    buffer_fini(&message);
}

static void another_version_is_told_apart(void **state)
{
    struct buffer message;

    (void)state;
    buffer_init(&message);
    write_samples(&message, NO_SECRET);
    message.data[message.head + 2] = 2;
    assert_int_equal(read_message(buffer_bytes(&message), NO_SECRET), BUS_NEWER);
    assert_int_equal(read_message(buffer_bytes(&message), SECRET), BUS_UNSIGNED);
    buffer_fini(&message);
}

static void numbers_of_messages_begin_with_one(void **state)
{
    struct bus_header header = {.origin = 1};
    struct bytes records;
    struct buffer message;

    (void)state;
    buffer_init(&message);
    assert_int_equal(bus_message_write(&message, &header, NO_SECRET, NO_SECRET, CHANNEL), 0);
    assert_int_equal(read_message(buffer_bytes(&message), NO_SECRET), BUS_MALFORMED);
    buffer_consume(&message, buffer_len(&message));
    header.is_heartbeat = header.is_last = header.is_new = true;
    assert_int_equal(bus_message_write(&message, &header, NO_SECRET, NO_SECRET, CHANNEL), 0);
    header.is_heartbeat = header.is_last = header.is_new = false;
    assert_int_equal(
        bus_message_read(buffer_bytes(&message), NO_SECRET, CHANNEL, &header, &records), BUS_GOOD);
    assert_true(header.is_heartbeat && header.is_last && header.is_new);
    buffer_fini(&message);
}

static void the_longest_record_fits_into_a_message_and_a_longer_one_is_refused(void **state)
{
    const struct bus_header header = {.origin = 1, .seq = 1, .n_records = 1};
    unsigned char *text = calloc(1, BUS_RECORD_MAX);
    struct bus_record record = {BUS_KEY, 0, 0, {text, BUS_RECORD_MAX - 5}, {text, 5}};
    struct buffer records, message;

    (void)state;
    buffer_init(&records);
    buffer_init(&message);
    assert_int_equal(bus_record_write(&records, &record), 0);
    assert_int_equal(bus_message_write(&message, &header, buffer_bytes(&records), SECRET, CHANNEL),
                     0);
    assert_int_equal(read_message(buffer_bytes(&message), SECRET), BUS_GOOD);
    buffer_consume(&records, buffer_len(&records));
    record.b.len++;
    assert_int_equal(bus_record_write(&records, &record), -E2BIG);
    assert_int_equal(buffer_len(&records), 0);
    buffer_fini(&records);
    buffer_fini(&message);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(the_bytes_are_those_of_the_format),
        cmocka_unit_test(a_message_cut_anywhere_is_malformed),
        cmocka_unit_test(a_signed_message_with_any_bit_changed_is_forged),
        cmocka_unit_test(a_signature_holds_for_its_secret_and_channel_alone),
        cmocka_unit_test(another_version_is_told_apart),
        cmocka_unit_test(numbers_of_messages_begin_with_one),
        cmocka_unit_test(the_longest_record_fits_into_a_message_and_a_longer_one_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
