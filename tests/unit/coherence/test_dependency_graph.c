/*
 * test_dependency_graph.c - proves of dependency_graph.h: what was added is found from both ends
 * and by pattern until it is removed, also among thousands; limits; taking over a group leaves what
 * was added meanwhile, and other groups; nothing is kept of what went
 */
#include "coherence/dependency_graph.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define MAX 100000

static struct dependency_graph *graph;

static int setup(void **state)
{
    (void)state;
    graph = dependency_graph_new();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    dependency_graph_free(&graph);
    assert_null(graph);
    return 0;
}

static enum dependency_added add(const char *derived, const char *source)
{
    return dependency_graph_add(graph, bytes_of_string(derived), bytes_of_string(source), 0, MAX);
}

static bool has(const char *derived, const char *source)
{
    return dependency_graph_has(graph, bytes_of_string(derived), bytes_of_string(source));
}

struct names {
    char text[512];
    unsigned n, max;
};

static bool on_name(void *context, struct bytes name)
{
    struct names *names = context;

    snprintf(names->text + strlen(names->text), sizeof(names->text) - strlen(names->text), "%.*s ",
             (int)name.len, (const char *)name.ptr);
    return ++names->n != names->max;
}

static void assert_names(const struct names *names, const char *expected)
{
    assert_string_equal(names->text, expected);
}

static void relations_are_found_from_both_ends(void **state)
{
    struct names derived = {.n = 0}, sources = {.n = 0}, none = {.n = 0};

    (void)state;
    assert_int_equal(add("page", "a"), DEPENDENCY_ADDED);
    assert_int_equal(add("page", "b"), DEPENDENCY_ADDED);
    assert_int_equal(add("part", "a"), DEPENDENCY_ADDED);
    assert_int_equal(add("part", "a"), DEPENDENCY_KNOWN);
    dependency_graph_each_derived(graph, BYTES("a"), on_name, &derived);
    dependency_graph_each_source(graph, BYTES("page"), on_name, &sources);
    dependency_graph_each_derived(graph, BYTES("page"), on_name, &none);
    assert_names(&derived, "part page ");
    assert_names(&sources, "b a ");
    assert_names(&none, "");
    assert_int_equal(dependency_graph_count(graph), 3);
    assert_int_equal(dependency_graph_count_sources(graph), 2);
    assert_true(dependency_graph_is_source(graph, BYTES("a")));
    assert_false(dependency_graph_is_source(graph, BYTES("page")));
}

static void walk_ends_when_it_is_told_to(void **state)
{
    struct names names = {.max = 1};

    (void)state;
    (void)add("p", "a");
    (void)add("q", "a");
    dependency_graph_each_derived(graph, BYTES("a"), on_name, &names);
    assert_int_equal(names.n, 1);
}

static void a_circle_and_a_loop_can_be_removed(void **state)
{
    (void)state;
    (void)add("b", "a");
    (void)add("a", "b");
    (void)add("a", "a");
    assert_true(dependency_graph_remove(graph, BYTES("a"), BYTES("a")));
    assert_false(dependency_graph_remove(graph, BYTES("a"), BYTES("a")));
    assert_true(has("b", "a"));
    assert_true(has("a", "b"));
    assert_int_equal(dependency_graph_remove_derived(graph, BYTES("a")), 1);
    assert_int_equal(dependency_graph_remove_derived(graph, BYTES("b")), 1);
    assert_int_equal(dependency_graph_count(graph), 0);
    assert_int_equal(dependency_graph_bytes(graph), 0);
}

static void limits_hold(void **state)
{
    char longer[DEPENDENCY_NAME_MAX + 2];

    (void)state;
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    assert_int_equal(add(longer, "a"), DEPENDENCY_FULL);
    assert_int_equal(add("a", longer), DEPENDENCY_FULL);
    assert_int_equal(dependency_graph_add(graph, BYTES("p"), BYTES("a"), 0, 1), DEPENDENCY_ADDED);
    assert_int_equal(dependency_graph_add(graph, BYTES("q"), BYTES("a"), 0, 1), DEPENDENCY_FULL);
    assert_int_equal(dependency_graph_add(graph, BYTES("p"), BYTES("a"), 0, 1), DEPENDENCY_KNOWN);
    assert_int_equal(dependency_graph_count(graph), 1);
}

/* Of many sources, or many that are derived, each is found soon: this would take a minute. */
static void long_lists_are_not_searched(void **state)
{
    const clock_t begin = clock();
    char name[32];

    (void)state;
    for (unsigned i = 0; i < MAX / 2; i++) {
        snprintf(name, sizeof(name), "%u", i);
        assert_int_equal(add("derived", name), DEPENDENCY_ADDED);
        assert_int_equal(add(name, "source"), DEPENDENCY_ADDED);
    }
    assert_true(has("derived", "0"));
    assert_true(has("0", "source"));
    assert_true(has("0", "source"));
    assert_false(has("derived", "source"));
    assert_true(clock() - begin < 20 * CLOCKS_PER_SEC);
}

static void patterns_find_sources_alone(void **state)
{
    struct names some = {.n = 0}, escaped = {.n = 0}, all = {.n = 0};

    (void)state;
    (void)add("p", "view:1:a");
    (void)add("p", "view:1:b");
    (void)add("p", "view:11:a");
    (void)add("p", "view");
    (void)add("view:1:c", "other");
    (void)add("p", "view*x");
    dependency_graph_each_source_like(graph, BYTES("view:1:*"), on_name, &some);
    dependency_graph_each_source_like(graph, BYTES("view\\**"), on_name, &escaped);
    dependency_graph_each_source_like(graph, BYTES("*"), on_name, &all);
    assert_names(&some, "view:1:a view:1:b ");
    assert_names(&escaped, "view*x ");
    assert_int_equal(all.n, 6);
}

static void sources_come_in_order(void **state)
{
    struct names first = {.max = 2}, rest = {.n = 0};

    (void)state;
    (void)add("p", "c");
    (void)add("p", "a");
    (void)add("p", "b");
    dependency_graph_each_source_after(graph, BYTES(""), on_name, &first);
    dependency_graph_each_source_after(graph, BYTES("b"), on_name, &rest);
    assert_names(&first, "a b ");
    assert_names(&rest, "c ");
}

static void taking_over_a_group_drops_what_is_not_in_it(void **state)
{
    (void)state;
    (void)add("p", "stays");
    (void)add("p", "goes");
    (void)dependency_graph_add(graph, BYTES("p"), BYTES("elsewhere"), 1, MAX);
    dependency_graph_begin_load(graph, 0);
    (void)add("p", "meanwhile");
    (void)add("p", "stays");
    assert_int_equal(dependency_graph_end_load(graph, 0), 1);
    assert_true(has("p", "stays"));
    assert_true(has("p", "meanwhile"));
    assert_true(has("p", "elsewhere"));
    assert_false(has("p", "goes"));
}

static void thousands_are_found_again(void **state)
{
    enum { N = 5000 };
    char derived[32], source[32];

    (void)state;
    for (unsigned i = 0; i < N; i++) {
        snprintf(derived, sizeof(derived), "d:%u", i * 7919 % N);
        snprintf(source, sizeof(source), "s:%u", i * 104729 % N);
        assert_int_equal(add(derived, source), DEPENDENCY_ADDED);
    }
    for (unsigned i = 0; i < N; i++) {
        snprintf(derived, sizeof(derived), "d:%u", i * 7919 % N);
        snprintf(source, sizeof(source), "s:%u", i * 104729 % N);
        assert_true(has(derived, source));
        if (i % 2 == 0) {
            assert_true(
                dependency_graph_remove(graph, bytes_of_string(derived), bytes_of_string(source)));
        }
    }
    assert_int_equal(dependency_graph_count(graph), N / 2);
    assert_int_equal(dependency_graph_count_sources(graph), N / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(relations_are_found_from_both_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(walk_ends_when_it_is_told_to, setup, teardown),
        cmocka_unit_test_setup_teardown(a_circle_and_a_loop_can_be_removed, setup, teardown),
        cmocka_unit_test_setup_teardown(limits_hold, setup, teardown),
        cmocka_unit_test_setup_teardown(long_lists_are_not_searched, setup, teardown),
        cmocka_unit_test_setup_teardown(patterns_find_sources_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(sources_come_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(taking_over_a_group_drops_what_is_not_in_it, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(thousands_are_found_again, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
