/*
 * test_tag_rules.c - proves of tag_rules.h and of the option `tags`: which tags a key has, which
 * keys may have a tag, what is wrong with a rule, and that match is a plain pattern afterwards
 */
#include "config/tag_rules.h"

#include "config_testing.h"

#define RULES                                                                                      \
    "[namespace session]\nmatch = session:{1}:*\ntags = user:{1} all\n"                            \
    "[namespace cart]\nmatch = \\{cart\\}:{who}:{what}\ntags = user:{who}  {what}-{who}\n"         \
    "[namespace plain]\nmatch = {x}:*\n"

static bool has(const struct config *config, const char *key, const char *tag)
{
    const unsigned ns = config_namespace_of(config, bytes_of_string(key))->id;

    return tag_rules_has(config->tag_rules, ns, bytes_of_string(key), bytes_of_string(tag));
}

static void keys_have_the_tags_of_their_namespace(void **state)
{
    struct config *config = assert_accepted(RULES);

    (void)state;
    assert_true(has(config, "session:42:x", "user:42"));
    assert_true(has(config, "session:42:x", "all"));
    assert_false(has(config, "session:42:x", "user:4"));
    assert_false(has(config, "session:42", "all"));
    assert_true(has(config, "{cart}:7:a:b", "user:7"));
    assert_true(has(config, "{cart}:7:a:b", "a:b-7"));
    assert_false(has(config, "cart:7:a:b", "user:7"));
    /* Without tags a brace is a brace. */
    assert_string_equal(config_namespace_of(config, BYTES("{x}:1"))->name, "plain");
    assert_string_equal(config_namespace_of(config, BYTES("session:42:x"))->match, "session:*:*");
    config_unref(&config);
}

static void rules_are_equal_where_keys_have_the_same_tags(void **state)
{
    static const char *const texts[] = {
        "[namespace cart]\nmatch = cart:{a}:{b}\ntags = user:{a}\n",
        "[namespace cart]\nmatch = cart:{b}:{a}\ntags = user:{a}\n",
        "[namespace cart]\nmatch = cart:{a}:{b}\ntags = user:{a} x\n",
        "[namespace cart]\nmatch = cart:*:*\n",
    };

    (void)state;
    for (size_t i = 0; i < 16; i++) {
        struct config *a = assert_accepted(texts[i / 4]), *b = assert_accepted(texts[i % 4]);

        assert_int_equal(tag_rules_equal(a->tag_rules, b->tag_rules), i / 4 == i % 4);
        config_unref(&a);
        config_unref(&b);
    }
}

static void assert_globs(const struct config *config, const char *tag, unsigned n, const char *glob)
{
    unsigned char out[4 * CAPTURES_TEXT_MAX];
    size_t length;

    assert_int_equal(tag_rules_globs(config->tag_rules, bytes_of_string(tag), out, &length), n);
    assert_int_equal(tag_rules_know(config->tag_rules, bytes_of_string(tag)), n > 0);
    if (n > 0) {
        assert_int_equal(length, strlen(glob));
        assert_memory_equal(out, glob, length);
    }
}

static void tags_tell_where_to_look(void **state)
{
    struct config *config = assert_accepted(RULES);

    (void)state;
    assert_globs(config, "all", 1, "session:*:*");
    assert_globs(config, "a*-7", 1, "{cart}:7:a\\*");
    assert_globs(config, "none", 0, "");
    unsigned char out[4 * CAPTURES_TEXT_MAX];
    size_t length;
    assert_int_equal(tag_rules_globs(config->tag_rules, BYTES("user:1"), out, &length), 2);
    config_unref(&config);
}

static void assert_rejected(const char *text, const char *words)
{
    struct loaded loaded = load_text(text);

    assert_true(loaded.error < 0);
    if (strstr(loaded.messages, words) == NULL) {
        fail_msg("%s", loaded.messages);
    }
    unload(&loaded);
}

static void faults_are_reported(void **state)
{
    (void)state;
    assert_rejected("[namespace a]\nmatch = a:{1}\ntags = user:{2}\n",
                    "{2} is no capture of a:{1}");
    assert_rejected("[namespace a]\nmatch = a:{1}\ntags = user:*\n", "a tag is text and captures");
    assert_rejected("[namespace a]\nmatch = a:{1\ntags = x\n", "a capture is {name}");
    assert_rejected("[namespace default]\ntags = x\n", "has no match");
    assert_rejected(
        "[namespace a]\nmatch = a:{1}\ntags = 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n",
        "more than 16 tags");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_have_the_tags_of_their_namespace),
        cmocka_unit_test(rules_are_equal_where_keys_have_the_same_tags),
        cmocka_unit_test(tags_tell_where_to_look),
        cmocka_unit_test(faults_are_reported),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
