/*
 * Proves of resp.h: what the reader knows of an unfinished request is what it holds, and the
 * follower finds the end of the rest, fed in any pieces, exactly where the reader would.
 */
#include "resp/resp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BEHIND "*1\r\n$4\r\nPING\r\n"

static const struct resp_reader_limits limits = {1000, 1000, 64 * 1024};

static const char *const requests[] = {
    "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$10\r\n0123456789\r\n",
    "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n",
    "*4\r\n$5\r\nRPUSH\r\n$1\r\nl\r\n$3\r\n\r\n\r\r\n$12\r\n$5\r\nhello\r\n!\r\n",
    "*1\r\n$4\r\nPING\r\n",
    "*2\r\n$3\r\nGET\rx$1\rxkxx", /* line ends that Redis tolerates */
};

struct fixture {
    struct resp_reader *reader;
    struct resp_partial partial;
    struct resp_follower follower;
};

/* Shows the reader the first n bytes; false: the follower has nothing to do. */
static bool begin(struct fixture *fixture, struct bytes input)
{
    struct resp_request request;
    const char *error;
    size_t wanted;
    const enum resp_status status = resp_read_request(fixture->reader, input, &limits, true,
                                                      &request, &wanted, &error);

    if (status != RESP_MORE) {
        resp_reader_reset(fixture->reader);
        return false;
    }
    resp_reader_peek(fixture->reader, input, &fixture->partial);
    resp_reader_reset(fixture->reader);
    if (fixture->partial.n_all == 0) {
        return false;
    }
    resp_follow_begin(&fixture->follower, &fixture->partial);
    return true;
}

static void the_end_is_found_wherever_reading_stops(void **state)
{
    struct fixture fixture = {.reader = resp_reader_new()};

    (void)state;
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        const size_t len = strlen(requests[i]);
        char whole[200];

        memcpy(whole, requests[i], len);
        memcpy(whole + len, BEHIND, sizeof(BEHIND));
        for (size_t cut = 1; cut < len; cut++) {
            const char *error = NULL;
            size_t used;

            if (!begin(&fixture, bytes_make(whole, cut))) {
                continue;
            }
            assert_int_equal(resp_follow(&fixture.follower,
                                         bytes_make(whole + fixture.partial.at,
                                                    len + sizeof(BEHIND) - 1 - fixture.partial.at),
                                         limits.max_bulk_bytes, &used, &error),
                             RESP_OK);
            assert_null(error);
            assert_int_equal(fixture.partial.at + used, len);
        }
    }
    resp_reader_free(&fixture.reader);
}

static void single_bytes_are_as_good_as_the_whole(void **state)
{
    struct fixture fixture = {.reader = resp_reader_new()};

    (void)state;
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        const size_t len = strlen(requests[i]);

        for (size_t cut = 5; cut < len; cut++) {
            const char *error = NULL;
            size_t used;

            if (!begin(&fixture, bytes_make(requests[i], cut))) {
                continue;
            }
            for (size_t at = fixture.partial.at; at < len; at++) {
                const enum resp_status status = resp_follow(&fixture.follower,
                                                            bytes_make(requests[i] + at, 1),
                                                            limits.max_bulk_bytes, &used, &error);

                assert_int_equal(status, at + 1 == len ? RESP_OK : RESP_MORE);
                assert_int_equal(used, 1);
            }
        }
    }
    resp_reader_free(&fixture.reader);
}

static void arguments_that_are_whole_are_known(void **state)
{
    struct fixture fixture = {.reader = resp_reader_new()};

    (void)state;
    assert_true(begin(&fixture, BYTES("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$999\r\n01234")));
    assert_int_equal(fixture.partial.argc, 2);
    assert_int_equal(fixture.partial.n_all, 3);
    assert_int_equal(fixture.partial.n_left, 1);
    assert_true(bytes_equal(fixture.partial.argv[1], BYTES("k")));
    assert_true(fixture.partial.has_bulk);
    assert_int_equal(fixture.partial.bulk_bytes, 999);
    assert_false(begin(&fixture, BYTES("SET k")));
    resp_reader_free(&fixture.reader);
}

static void what_is_no_request_is_refused_in_the_words_of_redis(void **state)
{
    static const struct {
        const char *rest, *error;
    } cases[] = {
        {"$x\r\n", "Protocol error: invalid bulk length"},
        {"$-1\r\n", "Protocol error: invalid bulk length"},
        {"$1001\r\n", "Protocol error: invalid bulk length"},
        {"$\r\n", "Protocol error: invalid bulk length"},
        {"$00000000000000000000000000000000000001\r\n", "Protocol error: invalid bulk length"},
        {":1\r\n", "Protocol error: expected '$', got ':'"},
        {"\r\n", "Protocol error: expected '$', got ' '"},
    };
    struct fixture fixture = {.reader = resp_reader_new()};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *error = NULL;
        size_t used;

        assert_true(begin(&fixture, BYTES("*2\r\n$4\r\nECHO\r\n")));
        assert_int_equal(resp_follow(&fixture.follower, bytes_of_string(cases[i].rest),
                                     limits.max_bulk_bytes, &used, &error),
                         RESP_BAD);
        assert_string_equal(error, cases[i].error);
    }
    resp_reader_free(&fixture.reader);
}

static void large_replies_are_known_by_their_beginning(void **state)
{
    (void)state;
    assert_true(resp_is_large(BYTES("$101\r\nx"), 100));
    assert_true(resp_is_large(BYTES("=101\r\ntxt:"), 100));
    assert_false(resp_is_large(BYTES("$100\r\nx"), 100));
    assert_false(resp_is_large(BYTES("$-1\r\n"), 100));
    assert_true(resp_is_large(BYTES("*2\r\n"), 100));
    assert_true(resp_is_large(BYTES("%2\r\n"), 100));
    assert_false(resp_is_large(BYTES("+OK"), 100));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_end_is_found_wherever_reading_stops),
        cmocka_unit_test(single_bytes_are_as_good_as_the_whole),
        cmocka_unit_test(arguments_that_are_whole_are_known),
        cmocka_unit_test(what_is_no_request_is_refused_in_the_words_of_redis),
        cmocka_unit_test(large_replies_are_known_by_their_beginning),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
