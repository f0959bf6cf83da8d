/* test_keyspace_words.c - proves of keyspace_words.h: messages, flags and counters, and all else */
#include "coherence/keyspace_words.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void a_write_names_its_key(void **state)
{
    struct keyspace_message message;
    struct bytes key;

    (void)state;
    assert_true(keyspace_read_message(BYTES(">4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$18\r\n"
                                            "__keyspace@15__:a:\r\n$3\r\nset\r\n"),
                                      &message));
    assert_int_equal(message.kind, KEYSPACE_WRITTEN);
    assert_true(bytes_equal(message.key, BYTES("a:")));
    assert_true(keyspace_read_channel(BYTES("__keyspace@0__:"), &key));
    assert_int_equal(key.len, 0);
    assert_false(keyspace_read_channel(BYTES("__keyspace@0_:a"), &key));
    assert_false(keyspace_read_channel(BYTES("__keyspace@0"), &key));
}

static void others_channels_mean_nothing(void **state)
{
    struct keyspace_message message;

    (void)state;
    assert_true(keyspace_read_message(
        BYTES("*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1\r\nx\r\n$3\r\nset\r\n"), &message));
    assert_int_equal(message.kind, KEYSPACE_FOREIGN);
    assert_true(
        keyspace_read_message(BYTES(">3\r\n$10\r\npsubscribe\r\n$1\r\n*\r\n:1\r\n"), &message));
    assert_int_equal(message.kind, KEYSPACE_SUBSCRIBED);
    assert_false(keyspace_read_message(BYTES("+PONG\r\n"), &message));
    assert_false(keyspace_read_message(BYTES("*0\r\n"), &message));
    assert_false(keyspace_read_message(BYTES("*2\r\n$8\r\npmessage\r\n$1\r\n*\r\n"), &message));
}

static void flags_are_both_there_or_not(void **state)
{
    (void)state;
    assert_true(keyspace_has_flags(BYTES("*2\r\n$1\r\nn\r\n$3\r\nAKE\r\n")));
    assert_true(keyspace_has_flags(BYTES("%1\r\n$1\r\nn\r\n$3\r\nAKE\r\n")));
    assert_false(keyspace_has_flags(BYTES("*2\r\n$1\r\nn\r\n$2\r\nKE\r\n")));
    assert_false(keyspace_has_flags(BYTES("*2\r\n$1\r\nn\r\n$0\r\n\r\n")));
    assert_false(keyspace_has_flags(BYTES("*2\r\n$1\r\nn\r\n$-1\r\n")));
    assert_false(keyspace_has_flags(BYTES("*0\r\n")));
}

static void calls_that_flush_are_added_up(void **state)
{
    uint64_t n = 7;

    (void)state;
    assert_true(
        keyspace_count_flushes(BYTES("$64\r\n# Commandstats\r\ncmdstat_flushall:calls=12\r\n"
                                     "cmdstat_debug:calls=3\r\n"),
                               &n));
    assert_int_equal(n, 15);
    assert_true(keyspace_count_flushes(BYTES("$14\r\n# Commandstats\r\n"), &n));
    assert_int_equal(n, 0);
    assert_false(keyspace_count_flushes(BYTES("$-1\r\n"), &n));
    assert_false(keyspace_count_flushes(BYTES("$0\r\n\r\n"), &n));
    assert_false(keyspace_count_flushes(BYTES("-NOPERM no\r\n"), &n));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_write_names_its_key),
        cmocka_unit_test(others_channels_mean_nothing),
        cmocka_unit_test(flags_are_both_there_or_not),
        cmocka_unit_test(calls_that_flush_are_added_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
