/*
 * test_namespaces.c - proves of namespaces.h and config_namespace_of(): the longest pattern wins,
 * the prepared matcher agrees with trying every pattern, ids stay with their names and run out
 * without harm
 */
#include "config/namespaces.h"

#include "config_testing.h"

#include <errno.h>

static void assert_in(const struct config *config, const char *key, const char *name)
{
    const struct config_namespace *const space = config_namespace_of(config, bytes_of_string(key));

    if (strcmp(space->name, name) != 0) {
        fail_msg("%s is in %s, not in %s", key, space->name, name);
    }
}

static void the_longest_pattern_wins(void **state)
{
    struct config *config = assert_accepted("[namespace app]\nmatch = app:*\n"
                                            "[namespace user]\nmatch = app:user:*\n"
                                            "[namespace one]\nmatch = app:user:1\n"
                                            "[namespace html]\nmatch = *.html.gz.br\n"
                                            "[namespace class]\nmatch = [xy]:??\n"
                                            "[namespace star]\nmatch = a\\*b*\n");

    (void)state;
    assert_in(config, "app:", "app");
    assert_in(config, "app:x", "app");
    assert_in(config, "app:user", "app");
    assert_in(config, "app:user:", "user");
    assert_in(config, "app:user:17", "user");
    assert_in(config, "app:user:2", "user");
    /* Both have ten characters; the one with the longer literal part is preferred. */
    assert_in(config, "app:user:1", "one");
    assert_in(config, "app:user:1.html.gz.br", "html");
    assert_in(config, ".html.gz.br", "html");
    assert_in(config, "x:12", "class");
    assert_in(config, "z:12", "default");
    assert_in(config, "x:1", "default");
    assert_in(config, "a*b", "star");
    assert_in(config, "a*bc", "star");
    assert_in(config, "aab", "default");
    assert_in(config, "ap", "default");
    assert_in(config, "", "default");
    assert_in(config, "App:x", "default");
    config_unref(&config);
}

static void equals_are_decided_by_their_order(void **state)
{
    struct config *config = assert_accepted("[namespace first]\nmatch = a*?\n"
                                            "[namespace second]\nmatch = a?*\n"
                                            "[namespace literal]\nmatch = aa*\n");

    (void)state;
    assert_in(config, "ab", "first");
    assert_in(config, "aab", "literal");
    config_unref(&config);
}

static void keys_are_bytes(void **state)
{
    struct config *config = assert_accepted("[namespace all]\nmatch = *\n"
                                            "[namespace high]\nmatch = \xff\xfe*\n");
    const struct config_namespace *space;

    (void)state;
    space = config_namespace_of(config, bytes_make("\xff\xfe\0x", 4));
    assert_string_equal(space->name, "high");
    space = config_namespace_of(config, bytes_make("\0", 1));
    assert_string_equal(space->name, "all");
    space = config_namespace_of(config, bytes_make(NULL, 0));
    assert_string_equal(space->name, "all");
    config_unref(&config);
}

static const char *slow_namespace_of(const struct config *config, struct bytes key)
{
    for (unsigned i = 1; i < config->n_namespaces; i++) {
        if (bytes_match_glob(bytes_of_string(config->namespaces[i].match), key)) {
            return config->namespaces[i].name;
        }
    }
    return "default";
}

static char random_of(const char *letters)
{
    return letters[(size_t)random() % strlen(letters)];
}

static void the_matcher_agrees_with_trying_every_pattern(void **state)
{
    (void)state;
    srandom(7);
    for (int round = 0; round < 200; round++) {
        char text[4096] = "";

        for (int i = 0; i < 12; i++) {
            char pattern[9] = "";
            const size_t used = strlen(text);

            for (int j = 0; j < 1 + (int)(random() % 7); j++) {
                pattern[j] = random_of("abab**?[]-^\\");
            }
            (void)snprintf(text + used, sizeof(text) - used,
                           "[namespace n%d]\nmatch = \"%d%s\"\n[namespace m%d]\nmatch = \"%s%d\"\n",
                           i, i % 3, pattern, i, pattern, i);
        }

        struct loaded loaded = load_text(text);

        /* Two of them may have become the same pattern. */
        for (int i = 0; i < 300 && loaded.error == 0; i++) {
            char key[12] = "";

            for (int j = 0; j < (int)(random() % 10); j++) {
                key[j] = random_of("ababab012*[]-^\\");
            }
            assert_in(loaded.config, key, slow_namespace_of(loaded.config, bytes_of_string(key)));
        }
        unload(&loaded);
    }
}

static void ids_stay_with_their_names(void **state)
{
    struct config *config = assert_accepted("[namespace id-a]\nmatch = ida*\n"
                                            "[namespace id-b]\nmatch = idbb*\n");
    const uint8_t a = config_namespace_of(config, BYTES("ida"))->id;
    const uint8_t b = config_namespace_of(config, BYTES("idbb"))->id;

    (void)state;
    assert_int_not_equal(a, b);
    assert_string_equal(config_namespace_name(0), "default");
    assert_string_equal(config_namespace_name(a), "id-a");
    assert_string_equal(config_namespace_name(b), "id-b");
    config_unref(&config);

    config = assert_accepted("[namespace id-b]\nmatch = other*\n");
    assert_int_equal(config_namespace_of(config, BYTES("other"))->id, b);
    assert_string_equal(config_namespace_name(a), "id-a");
    config_unref(&config);

    /* A refused configuration takes none. */
    const unsigned n = config_namespace_count();
    struct loaded loaded = load_text("[namespace id-c]\nmatch = x\n[cache]\nmaxmemory = 1\n");

    assert_true(loaded.error < 0);
    assert_int_equal(config_namespace_count(), n);
    unload(&loaded);
}

static void assert_main_coherence(const char *text, int coherence)
{
    struct config *config = assert_accepted(text);

    assert_int_equal(config_main_coherence(config), coherence);
    config_unref(&config);
}

static void links_are_told_by_a_mode_that_keeps_keys(void **state)
{
    (void)state;
    assert_main_coherence("", COHERENCE_AUTO);
    assert_main_coherence("[coherence]\ncoherence = keyspace\n"
                          "[namespace a]\nmatch = a\ncoherence = ttl\n",
                          COHERENCE_KEYSPACE);
    assert_main_coherence("[namespace default]\ncache = off\n"
                          "[namespace a]\nmatch = a\ncoherence = ttl\n"
                          "[namespace b]\nmatch = b\ncoherence = broadcast\n",
                          COHERENCE_BROADCAST);
    assert_main_coherence("[namespace default]\ncache = off\n"
                          "[namespace a]\nmatch = a\ncoherence = ttl\ncache = off\n",
                          COHERENCE_AUTO);
}

/* The last test of this process: it uses all ids up. */
static void ids_run_out_without_harm(void **state)
{
    const char *kept = NULL;
    char name[NAMESPACE_NAME_MAX + 1];
    int id = 0;

    (void)state;
    for (int i = 0; id >= 0; i++) {
        const unsigned before = config_namespace_count();

        (void)snprintf(name, sizeof(name), "run-out-%d", i);
        id = namespace_register(name, &kept);
        assert_int_equal(id, before < CONFIG_NAMESPACES_MAX ? (int)before : -ENOSPC);
    }
    assert_int_equal(config_namespace_count(), CONFIG_NAMESPACES_MAX);
    assert_int_equal(CONFIG_NAMESPACES_MAX, 255);
    assert_string_equal(config_namespace_name(254), kept);
    assert_refused("[namespace too-many]\nmatch = x\n",
                   "x.conf:1: namespace too-many: 254 other names were used since the start; a "
                   "restart forgets those that are gone\n");

    struct config *config = assert_accepted("[namespace run-out-1]\nmatch = x\n");

    config_unref(&config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_longest_pattern_wins),
        cmocka_unit_test(equals_are_decided_by_their_order),
        cmocka_unit_test(keys_are_bytes),
        cmocka_unit_test(the_matcher_agrees_with_trying_every_pattern),
        cmocka_unit_test(ids_stay_with_their_names),
        cmocka_unit_test(links_are_told_by_a_mode_that_keeps_keys),
        cmocka_unit_test(ids_run_out_without_harm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
