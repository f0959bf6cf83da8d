/*
 * test_table.c - proves of top/table.h: what figures look like, in which order rows stand, and that
 * no line is wider than the terminal
 */
#include "top/table.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct table_column columns[] = {
    {"NAME", FORM_TEXT}, {"HITS", FORM_PERCENT}, {"BYTES", FORM_BYTES}};

static void add(struct table *table, const char *name, double hits, double bytes)
{
    table_row(table);
    table_text(table, name);
    table_figure(table, hits);
    table_figure(table, bytes);
}

static struct table *some(void)
{
    struct table *table = table_new(columns, 3);

    add(table, "pages", 0.5, 10);
    add(table, "config", (double)NAN, 2048);
    add(table, "users", 0.981, 10);
    return table;
}

/* The row, or the heading for SIZE_MAX. */
static const char *line(const struct table *table, size_t row, unsigned width)
{
    static char text[256];
    FILE *out;

    text[0] = '\0';
    out = fmemopen(text, sizeof(text), "w");
    if (row == SIZE_MAX) {
        table_print_head(table, 1, width, out);
    } else {
        table_print_row(table, row, width, out);
    }
    fclose(out);
    return text;
}

static void assert_names(const struct table *table, const char *first, const char *second,
                         const char *third)
{
    assert_memory_equal(line(table, 0, 80), first, strlen(first));
    assert_memory_equal(line(table, 1, 80), second, strlen(second));
    assert_memory_equal(line(table, 2, 80), third, strlen(third));
}

static void figures_have_their_form(void **state)
{
    static const struct {
        enum table_form form;
        double figure;
        const char *text;
    } cases[] = {
        {FORM_COUNT, 0, "0"},        {FORM_COUNT, 999, "999"},        {FORM_COUNT, 1500, "1.5k"},
        {FORM_COUNT, 2.5e6, "2.5M"}, {FORM_COUNT, 123456, "123k"},    {FORM_RATE, 0.25, "0.2"},
        {FORM_RATE, 12.7, "13"},     {FORM_PERCENT, 0.981, "98.1 %"}, {FORM_PERCENT, 1, "100.0 %"},
        {FORM_BYTES, 0, "0 B"},      {FORM_BYTES, 1536, "1.5 KB"},    {FORM_BYTES, 3e9, "2.8 GB"},
        {FORM_MS, 0.5, "0.5 ms"},    {FORM_MS, 1000, "1000 ms"},      {FORM_RATE, NAN, "-"},
        {FORM_COUNT, 1e15, "1000T"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[32];

        table_format(cases[i].form, cases[i].figure, text);
        assert_string_equal(text, cases[i].text);
    }
}

static void figures_descend_and_texts_ascend(void **state)
{
    struct table *table = some();

    (void)state;
    table_sort(table, 0, false);
    assert_names(table, "config", "pages", "users");
    table_sort(table, 0, true);
    assert_names(table, "users", "pages", "config");
    table_sort(table, 1, false);
    assert_names(table, "users", "pages", "config");
    table_free(&table);
}

static void what_is_not_there_is_last_either_way(void **state)
{
    struct table *table = some();

    (void)state;
    table_sort(table, 1, true);
    assert_names(table, "pages", "users", "config");
    table_free(&table);
}

static void equal_ones_keep_their_order(void **state)
{
    struct table *table = some();

    (void)state;
    table_sort(table, 2, false);
    assert_names(table, "config", "pages", "users");
    table_sort(table, 2, true);
    assert_names(table, "pages", "users", "config");
    table_free(&table);
}

static void no_line_is_wider_than_the_terminal(void **state)
{
    struct table *table = some();

    (void)state;
    for (unsigned width = 0; width < 40; width++) {
        assert_true(strlen(line(table, 0, width)) <= width);
        assert_true(strlen(line(table, SIZE_MAX, width)) <= width);
    }
    assert_non_null(strstr(line(table, SIZE_MAX, 80), "HITS*"));
    assert_null(strstr(line(table, SIZE_MAX, 10), "HITS"));
    table_free(&table);
}

static void names_do_not_speak_to_the_terminal(void **state)
{
    struct table *table = table_new(columns, 3);

    (void)state;
    add(table, "a\033[2Jb\n", 0, 0);
    assert_non_null(strstr(line(table, 0, 80), "a?[2Jb?"));
    table_free(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(figures_have_their_form),
        cmocka_unit_test(figures_descend_and_texts_ascend),
        cmocka_unit_test(what_is_not_there_is_last_either_way),
        cmocka_unit_test(equal_ones_keep_their_order),
        cmocka_unit_test(no_line_is_wider_than_the_terminal),
        cmocka_unit_test(names_do_not_speak_to_the_terminal),
    };

    return cmocka_run_group_tests_name("top/table", tests, NULL, NULL);
}
