/* test_nearest.c - proves of nearest.h: typing errors find their word, other words find none */
#include "config/nearest.h"

#include "config_testing.h"

static const char *nearest_of(const char *word)
{
    static const char *const candidates[] = {"maxmemory", "max-ttl", "max-value", "log-level"};
    struct nearest nearest = {.word = word};

    for (size_t i = 0; i < sizeof(candidates) / sizeof(candidates[0]); i++) {
        nearest_offer(&nearest, candidates[i]);
    }
    return nearest.found;
}

static void typing_errors_find_their_word(void **state)
{
    (void)state;
    assert_string_equal(nearest_of("maxmemory"), "maxmemory");
    assert_string_equal(nearest_of("max-memory"), "maxmemory");
    assert_string_equal(nearest_of("maxmmeory"), "maxmemory");
    assert_string_equal(nearest_of("max_ttl"), "max-ttl");
    assert_string_equal(nearest_of("maxttl"), "max-ttl");
    assert_string_equal(nearest_of("log-levle"), "log-level");
    assert_string_equal(nearest_of("mx-valeu"), "max-value");
}

static void other_words_find_none(void **state)
{
    char longest[NEAREST_WORD_MAX + 2];

    (void)state;
    assert_null(nearest_of("colour"));
    assert_null(nearest_of(""));
    assert_null(nearest_of("memory-limit"));
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    assert_null(nearest_of(longest));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(typing_errors_find_their_word),
        cmocka_unit_test(other_words_find_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
