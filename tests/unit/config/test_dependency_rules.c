/*
 * test_dependency_rules.c - proves of dependency_rules.h and the [dependency] sections: what is
 * right is taken as it stands; what is wrong names file, line and what was expected; rules of scope
 * ALL that would remove what was just written, or take what they remove for sources, are refused
 */
#include "config/dependency_rules.h"

#include "config_testing.h"

static void sections_become_rules(void **state)
{
    struct config *config = assert_accepted("[dependency \"profile\"]\n"
                                            "source = user:{1}\n"
                                            "derived = profile:{1} view:{1}:*\n"
                                            "derived = menu\n"
                                            "[dependency site]\n"
                                            "source = config:*\n"
                                            "derived = page:*\n"
                                            "scope = all\n");

    (void)state;
    assert_int_equal(config->n_dependencies, 2);
    assert_string_equal(config->dependencies[0].name, "profile");
    assert_int_equal(config->dependencies[0].derived.n, 3);
    assert_int_equal(config->dependencies[0].scope, SCOPE_L1);
    assert_true(captures_is_template(config->dependencies[0].derived_patterns[0]));
    assert_false(captures_is_template(config->dependencies[0].derived_patterns[1]));
    assert_int_equal(config->dependencies[1].scope, SCOPE_ALL);
    assert_true(config_dependencies_equal(config, config));
    config_unref(&config);
}

static void faults_name_line_and_form(void **state)
{
    (void)state;
    assert_refused("[dependency \"a\"]\nderived = b\n",
                   "x.conf:1: dependency a has no source, expected a pattern as user:{1}\n");
    assert_refused("[dependency \"a\"]\nsource = b\n",
                   "x.conf:1: dependency a has no derived, expected names or patterns as "
                   "profile:{1} or profile:{1}:*\n");
    assert_refused("[dependency \"a\"]\nsource = {1}:x\nderived = b\n",
                   "x.conf:2: source = {1}:x: expected a pattern that begins with text, as "
                   "user:{1}: the backend is asked to tell of writes to names that begin so\n");
    assert_refused("[dependency \"a\"]\nsource = u:{1}\nderived = b\nsource = c\n",
                   "x.conf:4: source is given twice, first on line 2\n");
    assert_refused("[dependency \"a\"]\nsource = u:{1}\n\nderived = b:{2}\n",
                   "x.conf:4: derived = b:{2}: {2} is no capture of u:{1}\n");
    assert_refused(
        "[dependency \"a\"]\nfrom = u\n",
        "x.conf:2: unknown option from, a dependency has source, derived, scope and debounce\n"
        "x.conf:1: dependency a has no source, expected a pattern as user:{1}\n");
    assert_refused("[dependency]\nsource = u\n",
                   "x.conf:1: a dependency has a name, as in [dependency \"profile\"]\n");
    assert_refused("[dependency \"a\"]\nsource = u\nderived = b\n[dependency \"a\"]\n",
                   "x.conf:4: dependency a is given twice, first on line 1\n");
    assert_refused("[dependency \"a\"]\nsource = u\nderived = b\nscope = both\n",
                   "x.conf:4: scope = both: expected L1 or ALL\n");
}

#define RULE(name, source, derived, scope)                                                         \
    "[dependency \"" name "\"]\nsource = " source "\nderived = " derived "\nscope = " scope "\n"

static void circles_that_remove_are_refused(void **state)
{
    static const char circle[] = "is part of a circle, so that what was just written would be "
                                 "removed; expected scope = L1\n";
    char expected[256];
    struct config *config;

    (void)state;
    (void)snprintf(expected, sizeof(expected), "x.conf:4: scope = ALL: one %s", circle);
    assert_refused(RULE("one", "a:{1}", "b:{1}", "ALL") RULE("two", "b:{1}", "a:{1}", "ALL"),
                   expected);
    assert_refused(RULE("one", "a:*", "b:x", "ALL") RULE("two", "b:{1}", "a:x", "L1"), expected);
    config = assert_accepted(RULE("one", "a:{1}", "b:{1}", "L1")
                                 RULE("two", "b:{1}", "a:{1}", "L1"));
    config_unref(&config);
    config = assert_accepted(RULE("one", "a:{1}", "b:{1}", "ALL")
                                 RULE("two", "b:{1}", "c:{1}", "ALL"));
    config_unref(&config);
    /* Its names grow, and none comes again. */
    config = assert_accepted(RULE("one", "a:{1}", "a:{1}:x", "ALL"));
    config_unref(&config);
}

static void patterns_that_feed_a_rule_that_removes_are_refused(void **state)
{
    (void)state;
    assert_refused(RULE("one", "a:{1}", "a:{1}:*", "ALL"),
                   "x.conf:4: scope = ALL: what a:{1}:* stands for would be taken for a source of "
                   "one again, and more removed; expected scope = L1, or names without * there\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sections_become_rules),
        cmocka_unit_test(faults_name_line_and_form),
        cmocka_unit_test(circles_that_remove_are_refused),
        cmocka_unit_test(patterns_that_feed_a_rule_that_removes_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
