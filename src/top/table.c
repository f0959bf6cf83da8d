#include "top/table.h"

#include "base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define GAP 2

struct cell {
    char *text; /* what is printed */
    double figure;
};

struct row {
    struct cell cells[TABLE_COLUMNS_MAX];
    unsigned n_cells;
    size_t number; /* in the order in which they came */
};

struct table {
    const struct table_column *columns;
    unsigned n_columns;
    struct row *rows;
    size_t n_rows, room;
    unsigned widths[TABLE_COLUMNS_MAX];
};

struct table *table_new(const struct table_column *columns, unsigned n_columns)
{
    struct table *table = mem_alloc(sizeof(*table));

    CHECK(n_columns <= TABLE_COLUMNS_MAX);
    table->columns = columns;
    table->n_columns = n_columns;
    for (unsigned i = 0; i < n_columns; i++) {
        table->widths[i] = (unsigned)strlen(columns[i].title) + 1; /* the mark of the order */
    }
    return table;
}

void table_free(struct table **at)
{
    struct table *table = *at;

    *at = NULL;
    if (table == NULL) {
        return;
    }
    for (size_t i = 0; i < table->n_rows; i++) {
        for (unsigned c = 0; c < table->rows[i].n_cells; c++) {
            mem_free(table->rows[i].cells[c].text);
        }
    }
    mem_free(table->rows);
    mem_free(table);
}

void table_row(struct table *table)
{
    if (table->n_rows == table->room) {
        table->room = table->room == 0 ? 16 : 2 * table->room;
        table->rows = mem_try_realloc(table->rows, table->room * sizeof(*table->rows));
        CHECK(table->rows != NULL);
    }
    memset(&table->rows[table->n_rows], 0, sizeof(*table->rows));
    table->rows[table->n_rows].number = table->n_rows;
    table->n_rows++;
}

/* Columns that text takes in UTF-8, as far as each character takes one. */
static unsigned width_of(const char *text)
{
    unsigned width = 0;

    for (; *text != '\0'; text++) {
        width += ((unsigned char)*text & 0xc0) != 0x80;
    }
    return width;
}

static void add(struct table *table, const char *text, double figure)
{
    struct row *row = &table->rows[table->n_rows - 1];
    struct cell *cell = &row->cells[row->n_cells];
    const unsigned width = width_of(text);

    CHECK(row->n_cells < table->n_columns);
    cell->text = mem_strdup(text);
    cell->figure = figure;
    if (width > table->widths[row->n_cells]) {
        table->widths[row->n_cells] = width;
    }
    row->n_cells++;
}

void table_text(struct table *table, const char *text)
{
    char *clean = mem_strdup(text);

    /* Names come from configurations and keys: nothing of them may speak to the terminal. */
    for (char *at = clean; *at != '\0'; at++) {
        if ((unsigned char)*at < ' ' || *at == 0x7f) {
            *at = '?';
        }
    }
    add(table, clean, 0);
    mem_free(clean);
}

void table_figure(struct table *table, double figure)
{
    const struct row *row = &table->rows[table->n_rows - 1];
    char text[32];

    table_format(table->columns[row->n_cells].form, figure, text);
    add(table, text, figure);
}

size_t table_count(const struct table *table)
{
    return table->n_rows;
}

/* -- order -- */

struct order {
    unsigned column;
    bool is_text, is_reversed;
};

static int compare(const void *left, const void *right, void *context)
{
    const struct row *a = left, *b = right;
    const struct order *order = context;
    const struct cell *x = &a->cells[order->column], *y = &b->cells[order->column];
    int by = 0;

    if (order->is_text) {
        by = strcmp(x->text, y->text);
    } else if (isnan(x->figure) != isnan(y->figure)) {
        return isnan(x->figure) ? 1 : -1;
    } else if (!isnan(x->figure)) {
        by = (x->figure < y->figure) - (x->figure > y->figure);
    }
    if (by == 0) {
        return (a->number > b->number) - (a->number < b->number);
    }
    return order->is_reversed ? -by : by;
}

void table_sort(struct table *table, unsigned column, bool is_reversed)
{
    struct order order = {.column = column,
                          .is_text = table->columns[column].form == FORM_TEXT,
                          .is_reversed = is_reversed};

    qsort_r(table->rows, table->n_rows, sizeof(*table->rows), compare, &order);
}

/* -- text -- */

/* The gap before the cell comes along. room: what is left of the line. */
static void print_cell(FILE *out, const char *text, unsigned width, bool is_left, bool is_first,
                       unsigned *room)
{
    const unsigned gap = is_first ? 0 : GAP;
    const int pad = (int)(width - width_of(text));

    if (*room < gap + width) { /* what does not fit is left out, with all behind it */
        *room = 0;
        return;
    }
    *room -= gap + width;
    if (is_left) {
        fprintf(out, "%*s%s%*s", (int)gap, "", text, pad, "");
    } else {
        fprintf(out, "%*s%s", (int)gap + pad, "", text);
    }
}

void table_print_head(const struct table *table, int sorted_by, unsigned width, FILE *out)
{
    unsigned room = width;

    for (unsigned i = 0; i < table->n_columns && room > 0; i++) {
        char title[64];

        snprintf(title, sizeof(title), "%s%s", table->columns[i].title,
                 (int)i == sorted_by ? "*" : "");
        print_cell(out, title, table->widths[i], table->columns[i].form == FORM_TEXT, i == 0,
                   &room);
    }
}

void table_print_row(const struct table *table, size_t row, unsigned width, FILE *out)
{
    unsigned room = width;

    for (unsigned i = 0; i < table->rows[row].n_cells && room > 0; i++) {
        print_cell(out, table->rows[row].cells[i].text, table->widths[i],
                   table->columns[i].form == FORM_TEXT, i == 0, &room);
    }
}

static void scaled(double figure, double step, const char *const units[], char out[32])
{
    unsigned unit = 0;

    while (fabs(figure) >= step && units[unit + 1] != NULL) {
        figure /= step;
        unit++;
    }
    snprintf(out, 32, "%.*f%s", unit == 0 || fabs(figure) >= 100 ? 0 : 1, figure, units[unit]);
}

void table_format(enum table_form form, double figure, char out[32])
{
    static const char *const thousands[] = {"", "k", "M", "G", "T", NULL};
    static const char *const sizes[] = {" B", " KB", " MB", " GB", " TB", NULL};

    if (isnan(figure)) {
        snprintf(out, 32, "-");
    } else if (form == FORM_PERCENT) {
        snprintf(out, 32, "%.1f %%", 100 * figure);
    } else if (form == FORM_BYTES) {
        scaled(figure, 1024, sizes, out);
    } else if (form == FORM_RATE && figure > 0 && figure < 10) {
        snprintf(out, 32, "%.1f", figure);
    } else if (form == FORM_MS && figure < 10) {
        snprintf(out, 32, "%.1f ms", figure);
    } else if (form == FORM_MS) {
        snprintf(out, 32, "%.0f ms", figure);
    } else {
        scaled(figure, 1000, thousands, out);
    }
}
