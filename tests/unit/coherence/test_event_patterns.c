/*
 * test_event_patterns.c - proves of event_patterns.h: what clients may subscribe to, and which
 * names an event drops, of its own members and by patterns
 */
#include "coherence/event_patterns.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct drops {
    char text[400];
};

/* "key k1 0; glob g* 3; " */
static void on_drop(void *context, bool is_glob, struct bytes name, unsigned db)
{
    struct drops *drops = context;
    const size_t len = strlen(drops->text);

    snprintf(drops->text + len, sizeof(drops->text) - len, "%s %.*s %u; ", is_glob ? "glob" : "key",
             (int)name.len, (const char *)name.ptr, db);
}

struct lengths {
    size_t n_keys, total;
};

static void on_length(void *context, bool is_glob, struct bytes name, unsigned db)
{
    struct lengths *lengths = context;

    (void)db;
    lengths->n_keys += !is_glob;
    lengths->total += name.len;
}

static void events_are_names_or_patterns(void **state)
{
    static const struct {
        const char *text, *name; /* NULL: a pattern */
    } cases[] = {
        {"deploy", "deploy"}, {"a\\{b", "a{b"},    {"a\\*b", "a*b"},        {"deploy.*", NULL},
        {"a?", NULL},         {"user.{id}", NULL}, {"x.{1}.*.{two}", NULL}, {"[ab]", NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char why[EVENT_WHY_MAX];
        struct event_subject subject;

        assert_true(event_subject_init(&subject, bytes_of_string(cases[i].text), why));
        assert_int_equal(subject.is_pattern, cases[i].name == NULL);
        if (cases[i].name != NULL) {
            assert_true(bytes_equal(subject.name, bytes_of_string(cases[i].name)));
        }
        event_subject_fini(&subject);
    }
}

static void what_is_no_event_or_no_name_is_told(void **state)
{
    static const struct {
        const char *event, *name; /* name NULL: the event is refused */
    } cases[] = {
        {"", NULL},         {"a{", NULL},     {"{1}{1}", NULL},
        {"x.{1}", "y:{2}"}, {"x.{1}", "y:{"}, {"x.{1}", ""},
    };
    char why[EVENT_WHY_MAX];
    char longest[EVENT_NAME_MAX + 1];
    struct event_subject subject;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const bool is_good = event_subject_init(&subject, bytes_of_string(cases[i].event), why);

        assert_int_equal(is_good, cases[i].name != NULL);
        if (is_good) {
            assert_false(event_subject_check(&subject, bytes_of_string(cases[i].name), why));
        }
        assert_true(strlen(why) > 10);
        event_subject_fini(&subject);
    }
    memset(longest, 'x', sizeof(longest));
    assert_true(event_subject_init(&subject, bytes_make(longest, EVENT_NAME_MAX), why));
    assert_true(event_subject_check(
        &subject, bytes_make(longest, EVENT_WORDS_MAX - 1 - EVENT_NAME_MAX), why));
    assert_false(
        event_subject_check(&subject, bytes_make(longest, EVENT_WORDS_MAX - EVENT_NAME_MAX), why));
    event_subject_fini(&subject);
    assert_false(event_subject_init(&subject, bytes_make(longest, EVENT_NAME_MAX + 1), why));
    event_subject_fini(&subject);
    assert_false(event_subject_init(&subject, bytes_make("a\0b", 3), why));
    event_subject_fini(&subject);
}

static void names_without_captures_keep_their_braces(void **state)
{
    static const struct {
        const char *name, *drops;
    } cases[] = {
        {"user:{42}:x", "key user:{42}:x 7; "},
        {"user:\\{42}:x", "key user:{42}:x 7; "},
        {"user:{42}:*", "glob user:{42}:* 7; "},
        {"a\\*", "key a* 7; "},
        {"plain", "key plain 7; "},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct drops drops = {""};
        char why[EVENT_WHY_MAX];
        struct event_subject subject;

        assert_true(event_subject_init(&subject, BYTES("deploy"), why));
        assert_true(event_subject_check(&subject, bytes_of_string(cases[i].name), why));
        event_subject_fini(&subject);
        event_drop_plain(bytes_of_string(cases[i].name), 7, on_drop, &drops);
        assert_string_equal(drops.text, cases[i].drops);
    }
}

static void add(struct event_patterns *patterns, const char *pattern, const char *name, unsigned db)
{
    unsigned char room[EVENT_WORDS_MAX];
    const size_t len = event_member_write(bytes_of_string(pattern), bytes_of_string(name), room);

    event_patterns_add(patterns, bytes_make(room, len), db);
}

static void patterns_drop_what_their_captures_say(void **state)
{
    static const struct {
        const char *event, *drops;
    } cases[] = {
        {"deployment.eu.user.42", "glob user:42:* 1; key profile:42 0; "},
        {"deployment.eu.user.", ""},
        {"deployment.user.42", ""},
        {"other", ""},
        {"all.1", "key {x} 2; "},
        {"deployment.a.user.b*[c", "glob user:b\\*\\[c:* 1; key profile:b*[c 0; "},
    };
    struct event_patterns *patterns = event_patterns_new();

    (void)state;
    add(patterns, "deployment.*.user.{id}", "profile:{id}", 0);
    add(patterns, "deployment.*.user.{id}", "user:{id}:*", 1);
    add(patterns, "all.*", "{x}", 2);
    assert_int_equal(event_patterns_count(patterns), 3);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct drops drops = {""};

        event_patterns_match(patterns, bytes_of_string(cases[i].event), on_drop, &drops);
        assert_string_equal(drops.text, cases[i].drops);
    }
    event_patterns_free(&patterns);
}

static void a_name_may_be_longer_than_a_template_is(void **state)
{
    char name[EVENT_WORDS_MAX], event[EVENT_NAME_MAX + 1];
    struct event_patterns *patterns = event_patterns_new();
    struct lengths lengths = {0};

    (void)state;
    snprintf(name, sizeof(name), "%0900d{x}", 0);
    snprintf(event, sizeof(event), "%0400d*", 0);
    add(patterns, "{x}", name, 0);
    event_patterns_match(patterns, bytes_of_string(event), on_length, &lengths);
    assert_int_equal(lengths.n_keys, 1);
    assert_int_equal(lengths.total, 1301);
    event_patterns_free(&patterns);
}

static void malformed_members_are_passed_over(void **state)
{
    struct event_patterns *patterns = event_patterns_new();
    struct bytes pattern, name;

    (void)state;
    event_patterns_add(patterns, BYTES("no zero byte"), 0);
    event_patterns_add(patterns, bytes_make("\0x", 2), 0);
    event_patterns_add(patterns, bytes_make("x\0", 2), 0);
    event_patterns_add(patterns, bytes_make("x{\0y", 4), 0);
    event_patterns_add(patterns, bytes_make("x{1}\0y{", 7), 0);
    event_patterns_add(patterns, (struct bytes){0}, 0);
    assert_int_equal(event_patterns_count(patterns), 0);
    assert_true(event_member_read(bytes_make("a\0b\0c", 5), &pattern, &name));
    assert_int_equal(pattern.len, 1);
    assert_int_equal(name.len, 3);
    event_patterns_free(&patterns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_are_names_or_patterns),
        cmocka_unit_test(what_is_no_event_or_no_name_is_told),
        cmocka_unit_test(names_without_captures_keep_their_braces),
        cmocka_unit_test(patterns_drop_what_their_captures_say),
        cmocka_unit_test(a_name_may_be_longer_than_a_template_is),
        cmocka_unit_test(malformed_members_are_passed_over),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
