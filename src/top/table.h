/*
 * table.h - rows of figures under headings, sorted by one of them
 *
 * Purpose:    what stands on the screen below the summary, as lines of text.
 * Ownership:  a table owns its cells; lines are written to the caller's FILE.
 * Threading:  plain values.
 * Errors:     none.
 * Units:      columns of the terminal.
 */
#ifndef NC_TOP_TABLE_H
#define NC_TOP_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define TABLE_COLUMNS_MAX 12

/* How a figure is written. */
enum table_form { FORM_TEXT, FORM_COUNT, FORM_RATE, FORM_PERCENT, FORM_BYTES, FORM_MS };

struct table_column {
    const char *title;
    enum table_form form;
};

struct table; /* opaque */

/* columns must outlive the table. */
struct table *table_new(const struct table_column *columns, unsigned n_columns);
void table_free(struct table **table);

/* Begins a row; its cells follow, in the order of the columns. */
void table_row(struct table *table);
void table_text(struct table *table, const char *text);
/* NAN: "-", and last in any order. */
void table_figure(struct table *table, double figure);

size_t table_count(const struct table *table);
/* Texts ascending, figures descending, or the other way round; equal ones keep their order. */
void table_sort(struct table *table, unsigned column, bool is_reversed);
/* The heading, with a mark at the column that it is sorted by (-1: none). */
void table_print_head(const struct table *table, int sorted_by, unsigned width, FILE *out);
/* One row, cut to the width. */
void table_print_row(const struct table *table, size_t row, unsigned width, FILE *out);

/* "12.3k", "98.1 %", "1.5 MB", at most 9 characters. */
void table_format(enum table_form form, double figure, char out[32]);

#endif
