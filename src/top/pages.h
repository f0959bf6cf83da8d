/*
 * pages.h - what nearcached-top shows: a summary of the process, and one of several tables
 *
 * Purpose:    from two readings to text, for the screen and for --once alike.
 * Ownership:  the caller frees tables.
 * Threading:  plain values.
 * Errors:     none; figures that are not there are "-".
 */
#ifndef NC_TOP_PAGES_H
#define NC_TOP_PAGES_H

#include "top/reading.h"
#include "top/table.h"

enum page { PAGE_NAMESPACES, PAGE_NODES, PAGE_REASONS, N_PAGES };

/* "namespaces" */
const char *page_name(enum page page);
/* The column that it is sorted by at first. */
unsigned page_order(enum page page);
unsigned page_columns(enum page page);
/* The column with this heading, in any case; -1: there is none. */
int page_column(enum page page, const char *heading);

/* Lines, each with a newline; those that ask for attention begin with "! ". */
void page_summary(const struct interval *interval, const char *address, FILE *out);
/* Unsorted. */
struct table *page_table(enum page page, const struct interval *interval);

#endif
