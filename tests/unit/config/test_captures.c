/*
 * test_captures.c - proves of captures.h: what a pattern matches is what its glob matches; each
 * capture takes the shortest run; a name that a template made gives back captures that are right
 * or unknown; a glob made of them matches every key that the name can have come from
 */
#include "config/captures.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct captures_pattern *pattern_of(const char *text)
{
    char why[CAPTURES_WHY_MAX] = "";
    struct captures_pattern *pattern = captures_pattern_new(bytes_of_string(text), why);

    if (pattern == NULL) {
        fail_msg("%s: %s", text, why);
    }
    return pattern;
}

/* wanted: "name=value name=value", ? for what is not known; NULL: no match. */
static void assert_takes(bool unifies, const char *pattern_text, const char *text,
                         const char *wanted)
{
    struct captures_pattern *pattern = pattern_of(pattern_text);
    struct captures found;
    char shown[512] = "";
    size_t length = 0;
    const bool is_match = unifies ? captures_unify(pattern, bytes_of_string(text), &found)
                                  : captures_match(pattern, bytes_of_string(text), &found);

    if (is_match != (wanted != NULL)) {
        fail_msg("%s %s %s", pattern_text, is_match ? "matches" : "does not match", text);
    }
    for (unsigned i = 0; is_match && i < found.n; i++) {
        const struct capture *one = &found.of[i];

        length += (size_t)snprintf(shown + length, sizeof(shown) - length, "%s%.*s=%.*s",
                                   i > 0 ? " " : "", (int)one->name.len,
                                   (const char *)one->name.ptr,
                                   one->value.ptr == NULL ? 1 : (int)one->value.len,
                                   one->value.ptr == NULL ? "?" : (const char *)one->value.ptr);
    }
    if (is_match && strcmp(shown, wanted) != 0) {
        fail_msg("%s of %s: %s, not %s", pattern_text, text, shown, wanted);
    }
    captures_pattern_free(&pattern);
}

static void assert_match(const char *pattern, const char *text, const char *wanted)
{
    assert_takes(false, pattern, text, wanted);
}

static void captures_take_the_shortest_run(void **state)
{
    (void)state;
    assert_match("session:{1}:*", "session:42:cart", "1=42");
    assert_match("session:{1}:*", "session:42:a:b", "1=42");
    assert_match("session:{1}:*", "session:42:", "1=42");
    assert_match("session:{1}:*", "session::", NULL);
    assert_match("session:{1}:*", "session:::", "1=:");
    assert_match("session:{1}:*", "session:42", NULL);
    assert_match("a:{x}", "a:b:c", "x=b:c");
    assert_match("a:{x}", "a:", NULL);
    assert_match("{x}", "q", "x=q");
    assert_match("{x}", "", NULL);
    assert_match("{a}:{b}", "1:2:3", "a=1 b=2:3");
    assert_match("{a}{b}", "123", "a=1 b=23");
    assert_match("*{b}", "123", "b=123");
    assert_match("{a}*", "123", "a=1");
    assert_match("{a}ab", "aabab", "a=aab");
    assert_match("{a}ab*", "aabab", "a=a");
    assert_match("plain", "plain", "");
    assert_match("plain", "plainer", NULL);
    assert_match("x[0-9]{a}?z", "x7bcdz", "a=bc");
    assert_match("x[^0-9]{a}", "x7b", NULL);
    assert_match("\\{{tag}\\}:\\*", "{t}:*", "tag=t");
    assert_match("deployment.*.user.{id}", "deployment.eu.1.user.17", "id=17");
    assert_match("ab{x}ba", "aba", NULL);
}

static void names_give_back_what_is_certain(void **state)
{
    (void)state;
    assert_takes(true, "user:{1}", "user:42", "1=42");
    assert_takes(true, "user:{1}", "user:4:2", "1=4:2");
    assert_takes(true, "user:{1}", "group:42", NULL);
    assert_takes(true, "{a}-{b}", "x-y", "a=x b=y");
    assert_takes(true, "{a}-{b}", "x-y-z", "a=? b=?");
    assert_takes(true, "{a}-{b}.{c}", "x-y-z.q", "a=? b=? c=q");
    assert_takes(true, "{a}{b}", "12", "a=1 b=2");
    assert_takes(true, "{a}{b}", "123", "a=? b=?");
    assert_takes(true, "same", "same", "");
}

static void assert_made(const char *pattern_text, const char *key, const char *template_text,
                        const char *wanted)
{
    struct captures_pattern *pattern = pattern_of(pattern_text);
    struct captures_pattern *template = pattern_of(template_text);
    unsigned char out[CAPTURES_TEXT_MAX];
    struct captures found;

    assert_true(captures_match(pattern, bytes_of_string(key), &found));
    const size_t length = captures_expand(template, &found, out);
    assert_int_equal(length, strlen(wanted));
    assert_memory_equal(out, wanted, length);
    if (length > 0) {
        assert_true(captures_makes(template, &found, bytes_of_string(wanted)));
        assert_false(captures_makes(template, &found, bytes_make(wanted, length - 1)));
    }
    captures_pattern_free(&template);
    captures_pattern_free(&pattern);
}

static void templates_make_names(void **state)
{
    char key[1300];

    (void)state;
    assert_made("session:{1}:*", "session:42:x", "user:{1}", "user:42");
    assert_made("{a}:{b}", "1:2", "{b}/{a}/{b-}", "");
    assert_made("{a}:{b}", "1:2", "{b}/\\{{a}\\}", "2/{1}");
    assert_made("{a}:{b}", "1:2", "all", "all");
    assert_made("{a}:{b}", "1:2", "glob:*", "");
    memset(key, 'k', sizeof(key));
    key[CAPTURES_TEXT_MAX - 3] = '\0';
    assert_made("{a}", key, "{a}1234", ""); /* 1025 bytes */
}

static void assert_glob(const char *pattern_text, const char *template_text, const char *name,
                        const char *wanted)
{
    struct captures_pattern *pattern = pattern_of(pattern_text);
    struct captures_pattern *template = pattern_of(template_text);
    unsigned char out[4 * CAPTURES_TEXT_MAX];
    struct captures found;

    assert_true(captures_unify(template, bytes_of_string(name), &found));
    const size_t length = captures_glob(pattern, &found, out, sizeof(out));
    if (length != strlen(wanted) || memcmp(out, wanted, length) != 0) {
        fail_msg("%s: %.*s, not %s", pattern_text, (int)length, (char *)out, wanted);
    }
    assert_int_equal(captures_glob(pattern, &found, out, length - 1), 0);
    captures_pattern_free(&template);
    captures_pattern_free(&pattern);
}

static void globs_hold_what_is_known(void **state)
{
    (void)state;
    assert_glob("session:{1}:*", "user:{1}", "user:42", "session:42:*");
    assert_glob("session:{1}:*", "user:{1}", "user:*[", "session:\\*\\[:*");
    assert_glob("{x}:{1}:[0-9]?", "user:{1}", "user:42", "*:42:[0-9]?");
    assert_glob("{a}:{b}\\*", "{a}-{b}", "x-y-z", "*:*\\*");
}

static void assert_wrong(const char *text, const char *words)
{
    char why[CAPTURES_WHY_MAX] = "";
    struct captures_pattern *pattern = captures_pattern_new(bytes_of_string(text), why);

    assert_null(pattern);
    if (strstr(why, words) == NULL) {
        fail_msg("%s: %s", text, why);
    }
}

static void faults_are_named(void **state)
{
    struct captures_pattern *pattern = pattern_of("session:{1}:*");
    struct captures_pattern *good = pattern_of("user:{1}");
    struct captures_pattern *bad = pattern_of("user:{1}:{2}");
    char why[CAPTURES_WHY_MAX], long_text[CAPTURES_TEXT_MAX + 2];

    (void)state;
    assert_wrong("", "1 to 1024");
    memset(long_text, 'x', sizeof(long_text) - 1);
    long_text[sizeof(long_text) - 1] = '\0';
    assert_wrong(long_text, "1 to 1024");
    assert_wrong("a{", "a capture is {name}");
    assert_wrong("a{}", "a capture is {name}");
    assert_wrong("a{b", "a capture is {name}");
    assert_wrong("a{b:c}", "a capture is {name}");
    assert_wrong("{a}{a}", "{a} stands there twice");
    assert_wrong("{1}{2}{3}{4}{5}{6}{7}{8}{9}", "more than 8");
    assert_wrong("{123456789012345678901234567890123}", "at most 32");
    assert_wrong("a[b", "[ without ]");
    assert_true(captures_check(pattern, good, why));
    assert_false(captures_check(pattern, bad, why));
    assert_string_equal(why, "{2} is no capture of session:{1}:*");
    assert_false(captures_is_template(pattern));
    assert_true(captures_is_template(good));
    captures_pattern_free(&pattern);
    captures_pattern_free(&good);
    captures_pattern_free(&bad);
}

/* All captures become ?*, which is what they mean; its star alone would let them be empty. */
static void plain_glob(const char *pattern, char *out)
{
    for (; *pattern != '\0'; pattern++) {
        if (*pattern == '{') {
            *out++ = '?';
            *out++ = '*';
            while (*pattern != '}') {
                pattern++;
            }
        } else {
            *out++ = *pattern;
        }
    }
    *out = '\0';
}

static void random_patterns_agree_with_globs(void **state)
{
    static const char *const pieces[] = {"a", "b", "*", "?", "[ab]", "{x}", "{y}", "ab", "-"};
    struct captures found, unified;
    unsigned n_matches = 0;

    (void)state;
    srandom(7);
    for (unsigned round = 0; round < 60000; round++) {
        char text[64] = "", glob[80], key[12];
        const size_t n = (size_t)random() % 9;
        char why[CAPTURES_WHY_MAX];

        for (unsigned i = 0; i < 5; i++) {
            strcat(text, pieces[(size_t)random() % 9]);
        }
        for (size_t i = 0; i < n; i++) {
            key[i] = "ab-"[random() % 3];
        }
        key[n] = '\0';
        struct captures_pattern *pattern = captures_pattern_new(bytes_of_string(text), why);
        if (pattern == NULL) {
            continue; /* {x} twice */
        }
        plain_glob(text, glob);
        const struct bytes name = bytes_of_string(key);
        const bool is_match = captures_match(pattern, name, &found);
        if (n > 0 && is_match != bytes_match_glob(bytes_of_string(glob), name)) {
            fail_msg("%s and %s", text, key);
        }
        if (is_match && captures_is_template(pattern)) {
            unsigned char out[CAPTURES_TEXT_MAX];

            /* What made the name is what it gives back, where it says anything. */
            assert_int_equal(captures_expand(pattern, &found, out), n);
            assert_memory_equal(out, key, n);
            assert_true(captures_unify(pattern, name, &unified));
        }
        if (is_match) {
            unsigned char out[4 * CAPTURES_TEXT_MAX];
            const size_t length = captures_glob(pattern, &found, out, sizeof(out));

            assert_true(bytes_match_glob(bytes_make(out, length), name));
            n_matches++;
        }
        captures_pattern_free(&pattern);
    }
    assert_true(n_matches > 1000);
}

/* Whatever two captures made a name, the glob for it matches the key that they stood in. */
static void no_key_is_missed(void **state)
{
    struct captures_pattern *pattern = pattern_of("k:{a}:{b}");
    struct captures_pattern *template = pattern_of("{b}-{a}");

    (void)state;
    srandom(11);
    for (unsigned round = 0; round < 20000; round++) {
        unsigned char key[16] = "k:", name[CAPTURES_TEXT_MAX], glob[4 * CAPTURES_TEXT_MAX];
        const size_t n = 2 + (size_t)random() % 9;
        struct captures found, unified;

        for (size_t i = 2; i < n; i++) {
            key[i] = (unsigned char)"x-:"[random() % 3];
        }
        if (!captures_match(pattern, bytes_make(key, n), &found)) {
            continue;
        }
        const size_t name_len = captures_expand(template, &found, name);
        assert_true(captures_unify(template, bytes_make(name, name_len), &unified));
        const size_t length = captures_glob(pattern, &unified, glob, sizeof(glob));
        assert_true(bytes_match_glob(bytes_make(glob, length), bytes_make(key, n)));
    }
    captures_pattern_free(&template);
    captures_pattern_free(&pattern);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(captures_take_the_shortest_run),
        cmocka_unit_test(names_give_back_what_is_certain),
        cmocka_unit_test(templates_make_names),
        cmocka_unit_test(globs_hold_what_is_known),
        cmocka_unit_test(faults_are_named),
        cmocka_unit_test(random_patterns_agree_with_globs),
        cmocka_unit_test(no_key_is_missed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
