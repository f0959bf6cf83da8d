/*
 * pressure.h - from bytes held and bytes allowed to what has to be done about it
 *
 * Purpose:    the stages of memory pressure, with hysteresis; how much of the budget tier 1 may
 *             have; what waiting for memory (PSI) means for it. Pure: no clock, no files.
 * Ownership:  the caller's struct.
 * Threading:  one thread at a time.
 * Units:      bytes, microseconds, percent.
 */
#ifndef NC_BASE_PRESSURE_H
#define NC_BASE_PRESSURE_H

#include "base/check.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Each does what those before it do, too. */
enum pressure_stage {
    PRESSURE_NONE,
    PRESSURE_SHRINK, /* tier 1 becomes smaller */
    PRESSURE_CLOSE,  /* clients that hold the most are closed */
    PRESSURE_SHED,   /* new work is refused */
    N_PRESSURE_STAGES
};

/* Percent of the limit at which a stage begins; it ends below that less PRESSURE_SLACK, a calm
 * PRESSURE_CALM_US later. */
#define PRESSURE_SHRINK_AT 85u
#define PRESSURE_CLOSE_AT 91u
#define PRESSURE_SHED_AT 95u
#define PRESSURE_REFUSE_AT 97u
#define PRESSURE_SLACK 4u
#define PRESSURE_CALM_US 1000000
/* What tier 1 is fitted to: before there is pressure, and while there is some. */
#define PRESSURE_FIT 80u
#define PRESSURE_FIT_TIGHT 72u

struct pressure {
    enum pressure_stage stage;
    int64_t calm_since_us; /* below the stage's end since then; 0: it is not */
};

/* p percent of a limit. */
static inline size_t pressure_share(size_t limit, unsigned percent)
{
    return limit / 100 * percent;
}

/*
 * The stage from now on. Up at once, down one stage at a time. can_shrink: tier 1 is above its
 * floor; while it is, clients are closed only when new work would be shed as well.
 */
enum pressure_stage pressure_step(struct pressure *pressure, size_t held, size_t limit,
                                  bool can_shrink, int64_t now_us);

/* What tier 1 may have: the limit's share less what everything else holds, within its bounds. */
size_t pressure_fit(enum pressure_stage stage, size_t held, size_t limit, size_t tier_resident,
                    size_t floor, size_t maxmemory);

/*
 * How many percent of its size tier 1 keeps while tasks wait for memory: stalled is the share of
 * the last second that they did, bound that from which on it counts. Falls by 5 to 50, and rises
 * by 1. Called once a second.
 */
unsigned pressure_stall_step(unsigned kept, unsigned stalled, unsigned bound);

const char *pressure_name(enum pressure_stage stage);

#endif
