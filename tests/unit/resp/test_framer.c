/*
 * Proves of resp.h: the framer finds the end of one reply of either version and of any depth, fed
 * in any pieces, never beyond it, and refuses what is no RESP. The cursor agrees about the end.
 */
#include "resp/resp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const replies[] = {
    "+OK\r\n",
    "+\r\n",
    "-ERR a\rb\nc\r\n",
    ":-12\r\n",
    "$-1\r\n",
    "$0\r\n\r\n",
    "$5\r\nhello\r\n",
    "$4\r\n\r\n\r\n\r\n",
    "*-1\r\n",
    "*0\r\n",
    "*2\r\n$1\r\na\r\n:1\r\n",
    "*2\r\n*2\r\n*0\r\n*1\r\n+x\r\n*-1\r\n",
    "_\r\n",
    "#t\r\n",
    ",1.5\r\n",
    "(123456789012345678901234567890\r\n",
    "!5\r\nERR x\r\n",
    "=7\r\ntxt:abc\r\n",
    "%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n:2\r\n",
    "%0\r\n",
    "~2\r\n+a\r\n+b\r\n",
    ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n",
    ">2\r\n$10\r\ninvalidate\r\n_\r\n",
    "|1\r\n+ttl\r\n:3\r\n$1\r\nx\r\n",
    "*2\r\n|1\r\n+a\r\n*2\r\n:1\r\n:2\r\n:3\r\n:4\r\n",
    "|1\r\n+a\r\n:1\r\n|1\r\n+b\r\n:2\r\n+value\r\n",
    "+a\r\r\n",
};

static const char *const no_replies[] = {
    "x\r\n",
    "\r\n",
    "$\r\n",
    "$5\nhello\r\n",
    "$05\r\n",
    "$+5\r\n",
    "$-2\r\n",
    "$--1\r\n",
    "$-1x\r\n",
    "$5\r\nhelloX\n",
    "$5\r\nhello\rX",
    "$?\r\n",
    "*?\r\n",
    ";4\r\n",
    ".\r\n",
    "*-2\r\n",
    "%-1\r\n",
    "~-1\r\n",
    "=-1\r\n",
    "*1\r\nx",
    "$9999999999999999999\r\n",
    "*99999999999999\r\n",
    "*1\rX",
    "$ 5\r\n",
};

static void assert_frames(struct bytes reply, size_t step)
{
    struct resp_framer framer = {0};
    size_t at = 0;

    while (at < reply.len) {
        const size_t n = reply.len - at < step ? reply.len - at : step;
        size_t used = SIZE_MAX;
        const enum resp_status status = resp_frame(&framer, reply.ptr + at, n, &used);

        at += n;
        assert_int_equal(used, n);
        assert_int_equal(status, at == reply.len ? RESP_OK : RESP_MORE);
        assert_int_equal(framer.is_inside, at < reply.len);
    }
}

static void every_type_ends_where_it_ends_in_any_pieces(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
        for (size_t step = 1; step <= 40; step++) {
            assert_frames(bytes_of_string(replies[i]), step);
        }
    }
}

static void what_follows_a_reply_is_not_used(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
        const size_t len = strlen(replies[i]);
        unsigned char two[256];
        struct resp_framer framer = {0};
        size_t used = 0;

        memcpy(two, replies[i], len);
        memcpy(two + len, replies[i], len);
        assert_int_equal(resp_frame(&framer, two, 2 * len, &used), RESP_OK);
        assert_int_equal(used, len);
        assert_int_equal(resp_frame(&framer, two + len, len, &used), RESP_OK);
        assert_int_equal(used, len);
    }
}

static void nothing_is_more(void **state)
{
    struct resp_framer framer = {0};
    size_t used = 1;

    (void)state;
    assert_int_equal(resp_frame(&framer, (const unsigned char *)"", 0, &used), RESP_MORE);
    assert_int_equal(used, 0);
    assert_false(framer.is_inside);
}

static void what_is_no_resp_is_refused_in_any_pieces(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(no_replies) / sizeof(no_replies[0]); i++) {
        const struct bytes bytes = bytes_of_string(no_replies[i]);
        struct bytes cursor = bytes;

        assert_false(resp_skip(&cursor));
        assert_ptr_equal(cursor.ptr, bytes.ptr);
        for (size_t step = 1; step <= bytes.len; step++) {
            struct resp_framer framer = {0};
            enum resp_status status = RESP_MORE;

            for (size_t at = 0; at < bytes.len && status == RESP_MORE; at += step) {
                size_t used;

                status = resp_frame(&framer, bytes.ptr + at,
                                    bytes.len - at < step ? bytes.len - at : step, &used);
            }
            assert_int_equal(status, RESP_BAD);
        }
    }
}

static void the_cursor_skips_what_the_framer_frames(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
        const struct bytes whole = bytes_of_string(replies[i]);
        struct bytes at = whole;

        assert_true(resp_skip(&at));
        assert_int_equal(at.len, 0);
        for (size_t n = 0; n < whole.len; n++) {
            at = bytes_make(whole.ptr, n);
            assert_false(resp_skip(&at));
            assert_int_equal(at.len, n);
        }
    }
}

static void no_depth_is_too_deep(void **state)
{
    const size_t depth = 1000000;
    unsigned char *deep = malloc(depth * 4 + 4);
    struct resp_framer framer = {0};
    struct bytes at = {deep, depth * 4 + 4};
    size_t used;

    (void)state;
    for (size_t i = 0; i < depth; i++) {
        memcpy(deep + 4 * i, "*1\r\n", 4);
    }
    memcpy(deep + 4 * depth, "*0\r\n", 4);
    assert_int_equal(resp_frame(&framer, deep, at.len, &used), RESP_OK);
    assert_true(resp_skip(&at));
    free(deep);
}

static void values_are_read_with_their_payloads(void **state)
{
    static const struct {
        const char *bytes, *text;
        unsigned char type;
        bool is_null;
        size_t n_children;
    } values[] = {
        {"+OK\r\n", "OK", '+', false, 0},
        {"-ERR x\r\n", "ERR x", '-', false, 0},
        {":12\r\n", "12", ':', false, 0},
        {"$-1\r\n", "", '$', true, 0},
        {"$2\r\nab\r\n", "ab", '$', false, 0},
        {"*-1\r\n", "", '*', true, 0},
        {"*3\r\n", "", '*', false, 3},
        {"%3\r\n", "", '%', false, 6},
        {"~3\r\n", "", '~', false, 3},
        {">3\r\n", "", '>', false, 3},
        {"|1\r\n", "", '|', false, 2},
        {"_\r\n", "", '_', true, 0},
        {",inf\r\n", "inf", ',', false, 0},
        {"#f\r\n", "f", '#', false, 0},
        {"=5\r\ntxt:a\r\n", "txt:a", '=', false, 0},
        {"(99\r\n", "99", '(', false, 0},
        {"!3\r\nERR\r\n", "ERR", '!', false, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        struct bytes at = bytes_of_string(values[i].bytes);
        struct resp_value value;

        assert_true(resp_next(&at, &value));
        assert_int_equal(at.len, 0);
        assert_int_equal(value.type, values[i].type);
        assert_int_equal(value.is_null, values[i].is_null);
        assert_int_equal(value.n_children, values[i].n_children);
        assert_true(bytes_equal(value.text, bytes_of_string(values[i].text)));
        assert_false(resp_next(&at, &value));
    }
}

static void replies_of_both_versions_are_told_from_those_of_one(void **state)
{
    static const char *const both[] = {"+OK\r\n", "-ERR\r\n",    ":1\r\n",
                                       "$-1\r\n", "$1\r\na\r\n", "*2\r\n:1\r\n*1\r\n$1\r\na\r\n",
                                       "*-1\r\n", "*0\r\n"};
    static const char *const one[] = {"_\r\n",       "#t\r\n",
                                      ",1\r\n",      "%0\r\n",
                                      "~0\r\n",      "=4\r\ntxt:\r\n",
                                      "*1\r\n_\r\n", "*2\r\n:1\r\n*1\r\n,1\r\n",
                                      ">0\r\n",      "",
                                      "|0\r\n+x\r\n"};

    (void)state;
    for (size_t i = 0; i < sizeof(both) / sizeof(both[0]); i++) {
        assert_true(resp_is_same_in_both(bytes_of_string(both[i])));
    }
    for (size_t i = 0; i < sizeof(one) / sizeof(one[0]); i++) {
        assert_false(resp_is_same_in_both(bytes_of_string(one[i])));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_ends_where_it_ends_in_any_pieces),
        cmocka_unit_test(what_follows_a_reply_is_not_used),
        cmocka_unit_test(nothing_is_more),
        cmocka_unit_test(what_is_no_resp_is_refused_in_any_pieces),
        cmocka_unit_test(the_cursor_skips_what_the_framer_frames),
        cmocka_unit_test(no_depth_is_too_deep),
        cmocka_unit_test(values_are_read_with_their_payloads),
        cmocka_unit_test(replies_of_both_versions_are_told_from_those_of_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
