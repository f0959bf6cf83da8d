/*
 * trend.h - is a hit ratio better, worse, or as it was before?
 *
 * Purpose:    a judgement that people can follow: against the span of the same length before, and
 *             only where enough was read in both.
 * Ownership:  plain values.
 * Threading:  any thread.
 * Errors:     none; TREND_UNKNOWN where too little is known.
 */
#ifndef NC_ADMIN_TREND_H
#define NC_ADMIN_TREND_H

#include <stdint.h>

/* Reads in each of the spans below which nothing is said. */
#define TREND_READS_MIN 100

enum trend_direction { TREND_UNKNOWN, TREND_BETTER, TREND_STEADY, TREND_WORSE };

struct trend_reads {
    uint64_t n_hits, n_misses;
};

struct trend {
    enum trend_direction direction;
    int64_t span_ms;       /* of each of the two; 0: no history yet */
    double before, recent; /* hit ratios; -1: nothing was read */
};

/*
 * Steady is what moved by less than half a percentage point, or by less than a tenth of the smaller
 * of hits and misses: 99.0 % to 98.5 % is worse (half as many misses more), 80 % to 81 % is steady.
 */
struct trend trend_judge(struct trend_reads before, struct trend_reads recent, int64_t span_ms);

/* "better", "steady", "worse", "unknown" */
const char *trend_name(enum trend_direction direction);

#endif
