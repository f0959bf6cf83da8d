/*
 * screen.h - the terminal: summary, table, keys
 *
 * Purpose:    shows readings as they come, until the user leaves.
 * Ownership:  none.
 * Threading:  one thread.
 * Errors:     a proxy that does not answer is shown as such, and asked again.
 * Units:      seconds.
 */
#ifndef NC_TOP_SCREEN_H
#define NC_TOP_SCREEN_H

#include "top/ask.h"
#include "top/pages.h"

struct screen_options {
    double interval_s;
    enum page page;
    int order; /* column; -1: the page's own */
    bool is_reversed;
};

/* Returns the exit status. */
int screen_run(struct asker *asker, struct screen_options options);

#endif
