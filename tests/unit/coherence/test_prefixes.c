/*
 * test_prefixes.c - proves of prefixes.h: what is heard of covers every key that is kept in one of
 * the modes, no prefix begins another, and sets that differ are told apart
 */
#include "coherence/prefixes.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define NO_DEFAULT "[namespace \"default\"]\ncache = off\n"

static struct config *parse(const char *text)
{
    struct config *config = NULL;

    assert_int_equal(config_parse(bytes_of_string(text), "test.conf", &config, stderr), 0);
    return config;
}

static struct prefixes prefixes_of(const char *text)
{
    struct config *config = parse(text);
    struct prefixes prefixes;

    prefixes_init(&prefixes, config, COHERENCE_BROADCAST, COHERENCE_BROADCAST);
    config_unref(&config);
    return prefixes;
}

static void assert_prefixes(const char *text, bool is_wanted, const char *const *expected)
{
    struct prefixes prefixes = prefixes_of(text);
    unsigned n = 0;

    while (expected[n] != NULL) {
        n++;
    }
    assert_int_equal(prefixes.is_wanted, is_wanted);
    assert_int_equal(prefixes.n, n);
    for (unsigned i = 0; i < n; i++) {
        assert_true(bytes_equal(prefixes.items[i], bytes_of_string(expected[i])));
    }
    prefixes_fini(&prefixes);
}

static void every_key_where_the_default_namespace_is_kept(void **state)
{
    const char *const none[] = {NULL};

    (void)state;
    assert_prefixes("[coherence]\ncoherence = broadcast\n", true, none);
    assert_prefixes("[coherence]\ncoherence = broadcast\n"
                    "[namespace \"a\"]\nmatch = a:*\n",
                    true, none);
    assert_prefixes("[coherence]\ncoherence = broadcast\n" NO_DEFAULT
                    "[namespace \"a\"]\nmatch = a:*\n[namespace \"b\"]\nmatch = *:b\n",
                    true, none);
}

static void nothing_where_no_namespace_has_the_mode_and_is_kept(void **state)
{
    const char *const none[] = {NULL};

    (void)state;
    assert_prefixes("", false, none);
    assert_prefixes("[coherence]\ncoherence = broadcast\n" NO_DEFAULT, false, none);
    assert_prefixes("[namespace \"a\"]\nmatch = a:*\ncache = off\ncoherence = broadcast\n", false,
                    none);
}

static void the_literal_beginnings_of_the_patterns_that_cover_the_others(void **state)
{
    const char *const expected[] = {"a:", "b*c", "exact", "x:1", NULL};

    (void)state;
    assert_prefixes("[coherence]\ncoherence = broadcast\n" NO_DEFAULT
                    "[namespace \"1\"]\nmatch = a:b:*\n[namespace \"2\"]\nmatch = a:*\n"
                    "[namespace \"3\"]\nmatch = b\\*c[0-9]\n[namespace \"4\"]\nmatch = exact\n"
                    "[namespace \"5\"]\nmatch = a:?\n[namespace \"6\"]\nmatch = x:1*\n"
                    "[namespace \"7\"]\nmatch = x:1:2*\n"
                    "[namespace \"8\"]\nmatch = y:*\ncache = off\n"
                    "[namespace \"9\"]\nmatch = z:*\ncoherence = tracking\n",
                    true, expected);
}

static uint64_t id_of(const char *text)
{
    struct prefixes prefixes = prefixes_of(text);
    const uint64_t id = prefixes.id;

    prefixes_fini(&prefixes);
    return id;
}

static void sets_that_differ_have_another_id(void **state)
{
    static const char *const texts[] = {
        "",
        "[coherence]\ncoherence = broadcast\n",
        "[namespace \"a\"]\nmatch = a:*\ncoherence = broadcast\n",
        "[namespace \"a\"]\nmatch = b:*\ncoherence = broadcast\n",
        "[namespace \"a\"]\nmatch = a:*\ncoherence = broadcast\n"
        "[namespace \"b\"]\nmatch = b:*\ncoherence = broadcast\n",
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        assert_true(id_of(texts[i]) == id_of(texts[i]));
        for (unsigned j = 0; j < i; j++) {
            assert_true(id_of(texts[i]) != id_of(texts[j]));
        }
    }
    /* Another pattern, the same beginning. */
    assert_true(id_of(texts[2]) ==
                id_of("[namespace \"a\"]\nmatch = a:?\ncoherence = broadcast\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_key_where_the_default_namespace_is_kept),
        cmocka_unit_test(nothing_where_no_namespace_has_the_mode_and_is_kept),
        cmocka_unit_test(the_literal_beginnings_of_the_patterns_that_cover_the_others),
        cmocka_unit_test(sets_that_differ_have_another_id),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
