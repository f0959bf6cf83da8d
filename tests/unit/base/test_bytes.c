/*
 * test_bytes.c - proves of bytes.h: comparison without case, what is an integer and what is not,
 * globs as in Redis, and bounded work for a hostile pattern
 */
#include "base/bytes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/clock.h"

static void letters_compare_without_case_and_other_bytes_do_not(void **state)
{
    (void)state;
    assert_true(bytes_equal_nocase(BYTES("GeT"), BYTES("gEt")));
    assert_true(bytes_equal_nocase(BYTES(""), bytes_make(NULL, 0)));
    assert_false(bytes_equal_nocase(BYTES("GET"), BYTES("GETS")));
    assert_false(bytes_equal_nocase(BYTES("a[z"), BYTES("a{z"))); /* differ by the case bit */
    assert_false(bytes_equal_nocase(BYTES("@"), BYTES("`")));
    assert_true(bytes_equal(BYTES("a\0b"), BYTES("a\0b")));
    assert_false(bytes_equal(BYTES("a\0b"), BYTES("a\0c")));
    assert_true(bytes_start_with(BYTES("session:1"), BYTES("session:")));
    assert_false(bytes_start_with(BYTES("sess"), BYTES("session:")));
    assert_true(bytes_start_with(bytes_make(NULL, 0), bytes_make(NULL, 0)));
}

static void integers_are_those_that_redis_accepts(void **state)
{
    static const struct {
        const char *text;
        int64_t value;
    } good[] = {
        {"0", 0},
        {"7", 7},
        {"-1", -1},
        {"1234567890", 1234567890},
        {"9223372036854775807", INT64_MAX},
        {"-9223372036854775807", INT64_MIN + 1},
        {"-9223372036854775808", INT64_MIN},
    };
    static const char *const bad[] = {
        "",
        "-",
        "+1",
        "01",
        "-0",
        "-01",
        "1 ",
        " 1",
        "1.0",
        "a",
        "0x1",
        "--1",
        "00",
        "1-",
        "9223372036854775808",
        "-9223372036854775809",
        "18446744073709551617",
        "99999999999999999999",
        "100000000000000000000",
    };
    int64_t value;

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        value = 42;
        assert_true(bytes_to_int64(bytes_of_string(good[i].text), &value));
        assert_true(value == good[i].value);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        value = 42;
        assert_false(bytes_to_int64(bytes_of_string(bad[i]), &value));
        assert_true(value == 42); /* left alone */
    }
    assert_false(bytes_to_int64(BYTES("1\0"), &value));
}

static void integers_are_written_as_printf_writes_them(void **state)
{
    static const int64_t values[] = {0, 1, -1, 9, 10, -10, 123456789, INT64_MAX, INT64_MIN};

    (void)state;
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        char expected[32];
        char out[20];
        const int len = snprintf(expected, sizeof expected, "%lld", (long long)values[i]);

        assert_int_equal(bytes_from_int64(values[i], out), len);
        assert_memory_equal(out, expected, (size_t)len);
    }
}

static bool matches(const char *pattern, const char *text)
{
    return bytes_match_glob(bytes_of_string(pattern), bytes_of_string(text));
}

static void stars_and_question_marks_match_as_in_redis(void **state)
{
    (void)state;
    assert_true(matches("", ""));
    assert_false(matches("", "a"));
    assert_true(matches("*", ""));
    assert_true(matches("*", "anything"));
    assert_true(matches("session:*", "session:"));
    assert_true(matches("session:*", "session:1:2"));
    assert_false(matches("session:*", "session"));
    assert_true(matches("*:end", "a:end:end"));
    assert_true(matches("a*b*c", "a--b-c-b--c"));
    assert_false(matches("a*b*c", "a--c--b"));
    assert_true(matches("h?llo", "hallo"));
    assert_false(matches("h?llo", "hllo"));
    assert_true(matches("a**", "a"));
    assert_false(matches("A", "a"));
    assert_true(bytes_match_glob(BYTES("a*\0"), BYTES("a\0b\0")));
}

static void classes_and_backslashes_match_as_in_redis(void **state)
{
    (void)state;
    assert_true(matches("h[ae]llo", "hello"));
    assert_false(matches("h[ae]llo", "hillo"));
    assert_true(matches("h[^e]llo", "hallo"));
    assert_false(matches("h[^e]llo", "hello"));
    assert_true(matches("k[0-9]", "k7"));
    assert_true(matches("k[9-0]", "k7")); /* either order */
    assert_false(matches("k[0-9]", "ka"));
    assert_true(matches("[\\]]", "]"));
    assert_true(matches("[\\-a]", "-"));
    assert_false(matches("[]", "a"));
    assert_true(matches("[ab", "b")); /* never closed */
    assert_true(matches("[^", "x"));
    assert_false(matches("[", "["));
    assert_true(matches("[a-]", "_")); /* the bracket ends the range */
    assert_true(matches("\\*", "*"));
    assert_false(matches("\\*", "a"));
    assert_true(matches("a\\", "a\\"));
    assert_true(matches("[\x80-\xff]", "\xf0"));
    assert_false(matches("[a-\xff]", "\x80")); /* ends of a range are signed */
    assert_true(matches("*[0-9]x", "a1b2x"));
}

static void a_hostile_pattern_takes_bounded_time(void **state)
{
    char pattern[257];
    char text[8193];

    (void)state;
    for (size_t i = 0; i + 2 < sizeof pattern; i += 2) {
        pattern[i] = '*';
        pattern[i + 1] = 'a';
    }
    pattern[sizeof pattern - 1] = '\0';
    pattern[sizeof pattern - 2] = 'b';
    memset(text, 'a', sizeof text);
    text[sizeof text - 1] = '\0';
    const int64_t started_at_ms = clock_now_ms();
    assert_false(matches(pattern, text));
    assert_true(clock_now_ms() - started_at_ms < 2000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(letters_compare_without_case_and_other_bytes_do_not),
        cmocka_unit_test(integers_are_those_that_redis_accepts),
        cmocka_unit_test(integers_are_written_as_printf_writes_them),
        cmocka_unit_test(stars_and_question_marks_match_as_in_redis),
        cmocka_unit_test(classes_and_backslashes_match_as_in_redis),
        cmocka_unit_test(a_hostile_pattern_takes_bounded_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
