/*
 * lag.h - how late a worker comes to what is due
 *
 * Purpose:    a timer every 100 ms that looks at the clock: as late as it is, a request may have
 *             waited. It costs the data path nothing.
 * Ownership:  embedded in its front.
 * Threading:  its worker only.
 * Errors:     none.
 * Units:      microseconds. Timers come up to a millisecond late by themselves.
 */
#ifndef NC_PROXY_LAG_H
#define NC_PROXY_LAG_H

#include "base/worker.h"

struct lag {
    struct event *event;
    int64_t due_at_us;
    int64_t window_began_us;
    int64_t worst_us, former_worst_us; /* of this window of 10 s, of the one before */
};

void lag_init(struct lag *lag, struct worker *worker);
void lag_fini(struct lag *lag);
/* The worst of the last 10 to 20 s. */
int64_t lag_worst_us(const struct lag *lag);

#endif
