#include "admin/trend.h"

#define LEAST_CHANGE 0.005
#define LEAST_SHARE 0.1
/* 99.0 % to 98.5 % counts, whatever the last digit of a double says. */
#define TOLERANCE 1e-9

static double ratio_of(struct trend_reads reads)
{
    const uint64_t n = reads.n_hits + reads.n_misses;

    return n == 0 ? -1 : (double)reads.n_hits / (double)n;
}

static enum trend_direction direction_of(double before, double recent)
{
    const double rarer = before < 0.5 ? before : 1 - before;
    const double threshold = rarer * LEAST_SHARE > LEAST_CHANGE ? rarer * LEAST_SHARE
                                                                : LEAST_CHANGE;

    if (recent - before >= threshold - TOLERANCE) {
        return TREND_BETTER;
    }
    return before - recent >= threshold - TOLERANCE ? TREND_WORSE : TREND_STEADY;
}

struct trend trend_judge(struct trend_reads before, struct trend_reads recent, int64_t span_ms)
{
    struct trend trend = {
        .span_ms = span_ms, .before = ratio_of(before), .recent = ratio_of(recent)};

    if (span_ms > 0 && before.n_hits + before.n_misses >= TREND_READS_MIN &&
        recent.n_hits + recent.n_misses >= TREND_READS_MIN) {
        trend.direction = direction_of(trend.before, trend.recent);
    }
    return trend;
}

const char *trend_name(enum trend_direction direction)
{
    static const char *const names[] = {"unknown", "better", "steady", "worse"};

    return names[direction];
}
