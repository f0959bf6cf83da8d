/*
 * test_ban_text.c - proves of ban_text.h: bans read back as written, and what no proxy writes is
 * refused
 */
#include "coherence/ban_text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void what_was_written_is_read(void **state)
{
    const struct ban_rule rule = {
        .kind = BAN_GLOB, .name = BYTES("a *b"), .ns = 7, .min_age_ms = 60000, .min_bytes = 100000};
    unsigned char text[BAN_TEXT_MAX];
    struct ban_text ban;
    size_t n = ban_text_write(text, UINT64_C(0xa9c18b2ae44fcabd), 600000, &rule);

    (void)state;
    assert_true(bytes_equal(bytes_make(text, n), BYTES("a9c18b2ae44fcabd 600000 60000 100000 2 "
                                                       "a *b")));
    assert_true(ban_text_read(bytes_make(text, n), &ban));
    assert_true(ban.id == UINT64_C(0xa9c18b2ae44fcabd) && ban.ttl_ms == 600000);
    assert_false(ban.is_removal);
    assert_int_equal(ban.rule.kind, BAN_GLOB);
    assert_int_equal(ban.rule.ns, -1);
    assert_true(bytes_equal(ban.rule.name, rule.name));
    assert_true(ban.rule.min_age_ms == 60000 && ban.rule.min_bytes == 100000);
    n = ban_text_write_removal(text, 5);
    assert_true(ban_text_read(bytes_make(text, n), &ban));
    assert_true(ban.is_removal && ban.id == 5);
}

static void a_rule_without_a_name_is_one(void **state)
{
    struct ban_text ban;

    (void)state;
    assert_true(ban_text_read(BYTES("0000000000000001 0 1000 0 0 "), &ban));
    assert_int_equal(ban.rule.kind, BAN_ANY_NAME);
    assert_int_equal(ban.rule.name.len, 0);
}

static void what_no_proxy_writes_is_refused(void **state)
{
    static const char *const texts[] = {
        "", "-", "12", "12 ", "x 0 0 0 1 a", "-1 5 0 0 1 a", "1 -5 0 0 1 ", "1  5 0 0 1 ",
        "1 +5 0 0 1 a", "1 5 0 0 4 a", "0x1 5 0 0 1 a", "1 5 0 0 1",
        /* Instants that would overflow. */
        "1 9223372036854775807 0 0 1 a", "1 0 9223372036854775807 0 1 a"};
    struct ban_text ban;

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        if (ban_text_read(bytes_of_string(texts[i]), &ban)) {
            fail_msg("taken: %s", texts[i]);
        }
    }
    assert_false(ban_text_read(BYTES("12\0 5 0 0 1 a"), &ban));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_read),
        cmocka_unit_test(a_rule_without_a_name_is_one),
        cmocka_unit_test(what_no_proxy_writes_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
