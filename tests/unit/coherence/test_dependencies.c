/*
 * test_dependencies.c - proves of dependencies.h: a cascade finds what is derived, through
 * relations and rules, directly and through others, each once; circles and names that grow end;
 * more than max-cascade names drop everything; a relation that is new drops what it derives
 */
#include "coherence/dependencies.h"

#include "cache/bans.h"
#include "coherence/recent.h"
#include "resp/resp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct {
    struct config *config;
    struct cache *cache;
    struct coherence member;
    struct coherence *members[1];
    struct coherence_fleet fleet;
    char changed[4096]; /* keys that were announced; "everything" */
} rig;

static void on_changed(void *context, struct bytes keys)
{
    struct resp_value value;

    (void)context;
    if (keys.len == 0) {
        strcat(rig.changed, "everything ");
        return;
    }
    assert_true(resp_next(&keys, &value));
    while (resp_next(&keys, &value)) {
        strncat(rig.changed, (const char *)value.text.ptr, value.text.len);
        strcat(rig.changed, " ");
    }
}

static void start(const char *text)
{
    const struct cache_options options = {
        .maxmemory = (size_t)1 << 20, .negative_percent = 5, .max_flights = 16};

    memset(&rig, 0, sizeof(rig));
    assert_int_equal(config_parse(bytes_of_string(text), "test.conf", &rig.config, stderr), 0);
    assert_int_equal(cache_new(&options, &rig.cache), 0);
    cache_set_max_bans(rig.cache, 256);
    rig.members[0] = &rig.member;
    rig.fleet = (struct coherence_fleet){.cache = rig.cache,
                                         .recent = recent_new(),
                                         .members = rig.members,
                                         .n_members = 1,
                                         .on_changed = on_changed};
    rig.member = (struct coherence){.fleet = &rig.fleet, .cache = rig.cache, .config = rig.config};
    rig.fleet.dependencies = dependencies_new(&rig.fleet, rig.config);
}

static void stop(void)
{
    dependencies_free(&rig.fleet.dependencies);
    recent_free(&rig.fleet.recent);
    cache_free(&rig.cache);
    config_unref(&rig.config);
}

static void depend(const char *derived, const char *source)
{
    assert_true(
        dependencies_add(&rig.member, 0, bytes_of_string(derived), bytes_of_string(source)));
    rig.changed[0] = '\0';
}

/* What goes when the key is written; in no order that is promised. */
static void assert_cascade(const char *key, const char *expected)
{
    rig.changed[0] = '\0';
    dependencies_cascade(&rig.fleet, NULL, bytes_of_string(key), DEPENDENCY_HEARD);
    assert_string_equal(rig.changed, expected);
}

static void nothing_is_used_until_something_depends(void **state)
{
    (void)state;
    start("");
    assert_false(dependencies_are_used(&rig.fleet));
    assert_cascade("a", "");
    depend("b", "a");
    assert_true(dependencies_are_used(&rig.fleet));
    stop();
    start("[dependency \"r\"]\nsource = a\nderived = b\n");
    assert_true(dependencies_are_used(&rig.fleet));
    assert_cascade("a", "b ");
    stop();
}

static void chains_and_circles_are_followed_once(void **state)
{
    (void)state;
    start("");
    depend("b", "a");
    depend("c", "b");
    depend("c", "a");
    depend("a", "c");
    assert_cascade("a", "c b ");
    assert_cascade("c", "a b ");
    assert_cascade("none", "");
    stop();
}

static void rules_and_relations_lead_to_each_other(void **state)
{
    (void)state;
    start("[dependency \"r\"]\nsource = user:{1}\nderived = profile:{1} card:{1}\n"
          "[dependency \"s\"]\nsource = page:{x}\nderived = site\n");
    depend("page:1", "profile:7");
    assert_cascade("user:7", "profile:7 card:7 page:1 site ");
    assert_cascade("user:8", "profile:8 card:8 ");
    assert_cascade("profile:7", "page:1 site ");
    stop();
}

static void patterns_find_the_sources_they_stand_for(void **state)
{
    (void)state;
    start("[dependency \"r\"]\nsource = user:{1}\nderived = view:{1}:*\n");
    depend("page", "view:7:a");
    depend("other", "view:8:a");
    /* A pattern went: clients with caches of their own have to drop everything. */
    assert_cascade("user:7", "everything ");
    stop();
}

static void names_that_grow_end(void **state)
{
    (void)state;
    start("[dependency \"r\"]\nsource = a:{1}\nderived = b:{1}:x\n"
          "[dependency \"s\"]\nsource = b:{1}\nderived = a:{1}\n");
    assert_cascade("a:1", "b:1:x a:1:x ");
    stop();
    /* Names that become shorter are followed as far as they go. */
    start("[dependency \"up\"]\nsource = dir:{1}/{2}\nderived = dir:{1}\n"
          "[dependency \"down\"]\nsource = tree:x{1}\nderived = tree:{1}\n");
    assert_cascade("tree:xxxy", "tree:xxy tree:xy tree:y ");
    assert_cascade("dir:a/b/c", "dir:a ");
    stop();
}

static void a_name_reached_on_two_ways_is_followed_for_both(void **state)
{
    (void)state;
    /* Through the rule alone it could not be used again, through the relation it can. */
    start("[dependency \"r\"]\nsource = a:{1}\nderived = a:{1}:x\n");
    depend("a:1:x", "a:1");
    assert_cascade("a:1", "a:1:x a:1:x:x ");
    stop();
}

static void too_many_names_drop_everything(void **state)
{
    char name[16];

    (void)state;
    start("[coherence]\nmax-cascade = 3\n");
    for (unsigned i = 0; i < 4; i++) {
        assert_true(i != 3 || rig.changed[0] == '\0');
        snprintf(name, sizeof(name), "p%u", i);
        depend(name, "a");
        if (i == 2) {
            assert_cascade("a", "p2 p1 p0 ");
            rig.changed[0] = '\0';
        }
    }
    assert_cascade("a", "everything ");
    stop();
}

static void a_name_too_long_to_be_followed_drops_everything(void **state)
{
    char key[4000];

    (void)state;
    start("[dependency \"r\"]\nsource = user:{1}\nderived = profile:{1}\n");
    memset(key, 'x', sizeof(key) - 1);
    key[sizeof(key) - 1] = '\0';
    assert_cascade(key, "");
    memcpy(key, "user:", 5);
    assert_cascade(key, "everything ");
    /* What it derives is longer than a name that is made of a rule: a pattern takes its place. */
    key[1024] = '\0';
    assert_cascade(key, "everything ");
    key[100] = '\0';
    rig.changed[0] = '\0';
    dependencies_cascade(&rig.fleet, NULL, bytes_of_string(key), DEPENDENCY_HEARD);
    assert_int_equal(strncmp(rig.changed, "profile:x", 9), 0);
    stop();
}

static void a_new_relation_drops_what_it_derives(void **state)
{
    (void)state;
    start("[coherence]\nmax-dependencies = 2\n");
    depend("c", "b");
    assert_true(dependencies_add(&rig.member, 0, BYTES("b"), BYTES("a")));
    assert_string_equal(rig.changed, "b c ");
    rig.changed[0] = '\0';
    assert_true(dependencies_add(&rig.member, 0, BYTES("b"), BYTES("a")));
    assert_string_equal(rig.changed, "");
    assert_false(dependencies_add(&rig.member, 0, BYTES("d"), BYTES("a")));
    assert_int_equal(dependencies_count(rig.fleet.dependencies), 2);
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_used_until_something_depends),
        cmocka_unit_test(chains_and_circles_are_followed_once),
        cmocka_unit_test(rules_and_relations_lead_to_each_other),
        cmocka_unit_test(patterns_find_the_sources_they_stand_for),
        cmocka_unit_test(names_that_grow_end),
        cmocka_unit_test(a_name_reached_on_two_ways_is_followed_for_both),
        cmocka_unit_test(too_many_names_drop_everything),
        cmocka_unit_test(a_name_too_long_to_be_followed_drops_everything),
        cmocka_unit_test(a_new_relation_drops_what_it_derives),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
