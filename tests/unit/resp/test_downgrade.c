/*
 * Proves of resp.h: RESP3 becomes the RESP2 that a server words for the same reply, and a malformed
 * reply leaves the output as it was. tests/integration/test_downgrade.py compares with a server.
 */
#include "resp/resp.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void assert_downgrades(const char *reply, enum resp_downgrade how, const char *expected)
{
    struct buffer out;

    buffer_init(&out);
    assert_int_equal(buffer_append(&out, BYTES("before ")), 0);
    assert_int_equal(resp_downgrade(bytes_of_string(reply), how, &out), 0);
    buffer_consume(&out, strlen("before "));
    assert_int_equal(buffer_len(&out), strlen(expected));
    assert_memory_equal(buffer_bytes(&out).ptr, expected, strlen(expected));
    buffer_fini(&out);
}

static void assert_plain(const char *reply, const char *expected)
{
    assert_downgrades(reply, DOWNGRADE_PLAIN, expected);
}

static void what_both_versions_share_stays(void **state)
{
    (void)state;
    assert_plain("+OK\r\n", "+OK\r\n");
    assert_plain("$-1\r\n", "$-1\r\n");
    assert_plain("*3\r\n:1\r\n$1\r\na\r\n*-1\r\n", "*3\r\n:1\r\n$1\r\na\r\n*-1\r\n");
}

static void every_type_of_resp3_alone_is_worded_anew(void **state)
{
    (void)state;
    assert_plain("_\r\n", "$-1\r\n");
    assert_plain("#t\r\n", ":1\r\n");
    assert_plain("#f\r\n", ":0\r\n");
    assert_plain(",0.10000000000000001\r\n", "$19\r\n0.10000000000000001\r\n");
    assert_plain(",-inf\r\n", "$4\r\n-inf\r\n");
    assert_plain("(12345678901234567890\r\n", "$20\r\n12345678901234567890\r\n");
    assert_plain("=9\r\ntxt:hello\r\n", "$5\r\nhello\r\n");
    assert_plain("!8\r\nERR a\r\nb\r\n", "-ERR a  b\r\n");
    assert_plain("%2\r\n+a\r\n:1\r\n+b\r\n_\r\n", "*4\r\n+a\r\n:1\r\n+b\r\n$-1\r\n");
    assert_plain("~2\r\n+a\r\n+b\r\n", "*2\r\n+a\r\n+b\r\n");
    assert_plain(">1\r\n+a\r\n", "*1\r\n+a\r\n");
}

static void attributes_are_left_out(void **state)
{
    (void)state;
    assert_plain("|1\r\n+a\r\n%1\r\n+b\r\n,1\r\n+x\r\n", "+x\r\n");
    assert_plain("*2\r\n:1\r\n|1\r\n+a\r\n:9\r\n:2\r\n", "*2\r\n:1\r\n:2\r\n");
}

static void nested_values_are_worded_anew_too(void **state)
{
    (void)state;
    assert_plain("*2\r\n$1\r\na\r\n%1\r\n$1\r\nk\r\n*2\r\n,1.5\r\n~1\r\n#t\r\n",
                 "*2\r\n$1\r\na\r\n*2\r\n$1\r\nk\r\n*2\r\n$3\r\n1.5\r\n*1\r\n:1\r\n");
}

static void pairs_become_one_flat_array(void **state)
{
    (void)state;
    assert_downgrades("*2\r\n*2\r\n$1\r\na\r\n,1\r\n*2\r\n$1\r\nb\r\n,2.5\r\n", DOWNGRADE_PAIRS,
                      "*4\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n$3\r\n2.5\r\n");
    assert_downgrades("*0\r\n", DOWNGRADE_PAIRS, "*0\r\n");
    assert_downgrades("-WRONGTYPE x\r\n", DOWNGRADE_PAIRS, "-WRONGTYPE x\r\n");
    assert_downgrades("*2\r\n$1\r\na\r\n,1\r\n", DOWNGRADE_PAIRS, "*2\r\n$1\r\na\r\n$1\r\n1\r\n");
    assert_plain("*1\r\n*2\r\n$1\r\na\r\n,1\r\n", "*1\r\n*2\r\n$1\r\na\r\n$1\r\n1\r\n");
}

static void null_arrays_are_spelled_as_such(void **state)
{
    (void)state;
    assert_downgrades("*2\r\n_\r\n*2\r\n,1\r\n,2\r\n", DOWNGRADE_NULL_ARRAYS,
                      "*2\r\n*-1\r\n*2\r\n$1\r\n1\r\n$1\r\n2\r\n");
    assert_downgrades("_\r\n", DOWNGRADE_NULL_ARRAYS, "*-1\r\n");
}

static void a_malformed_reply_appends_nothing(void **state)
{
    static const char *const bad[] = {"",
                                      "x",
                                      "*2\r\n%1\r\n+a\r\n:1\r\n",
                                      "%1\r\n+a\r\n",
                                      "+a\r\n+b\r\n",
                                      "*2\r\n*2\r\n+a\r\n:1\r\n+b\r\n",
                                      "|1\r\n+a\r\n",
                                      "*99999999\r\n,1\r\n"};

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct buffer out;

        buffer_init(&out);
        assert_int_equal(buffer_append(&out, BYTES("before")), 0);
        assert_int_equal(resp_downgrade(bytes_of_string(bad[i]), DOWNGRADE_PAIRS, &out), -EINVAL);
        assert_true(bytes_equal(buffer_bytes(&out), BYTES("before")));
        buffer_fini(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_both_versions_share_stays),
        cmocka_unit_test(every_type_of_resp3_alone_is_worded_anew),
        cmocka_unit_test(attributes_are_left_out),
        cmocka_unit_test(nested_values_are_worded_anew_too),
        cmocka_unit_test(pairs_become_one_flat_array),
        cmocka_unit_test(null_arrays_are_spelled_as_such),
        cmocka_unit_test(a_malformed_reply_appends_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
