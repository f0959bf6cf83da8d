#include "base/pressure.h"

#define KEPT_LEAST 50u
#define KEPT_FALL 5u

static unsigned begins_at(enum pressure_stage stage)
{
    static const unsigned percent[N_PRESSURE_STAGES] = {0, PRESSURE_SHRINK_AT, PRESSURE_CLOSE_AT,
                                                        PRESSURE_SHED_AT};

    return percent[stage];
}

static enum pressure_stage wanted_stage(size_t held, size_t limit, bool can_shrink)
{
    enum pressure_stage stage = PRESSURE_NONE;

    for (unsigned next = PRESSURE_SHRINK; next < N_PRESSURE_STAGES; next++) {
        if (held >= pressure_share(limit, begins_at((enum pressure_stage)next))) {
            stage = (enum pressure_stage)next;
        }
    }
    return stage == PRESSURE_CLOSE && can_shrink ? PRESSURE_SHRINK : stage;
}

enum pressure_stage pressure_step(struct pressure *pressure, size_t held, size_t limit,
                                  bool can_shrink, int64_t now_us)
{
    const enum pressure_stage wanted = wanted_stage(held, limit, can_shrink);
    const unsigned end_at = pressure->stage == PRESSURE_NONE
                                ? 0
                                : begins_at(pressure->stage) - PRESSURE_SLACK;

    if (wanted > pressure->stage) {
        pressure->stage = wanted;
        pressure->calm_since_us = 0;
    } else if (held >= pressure_share(limit, end_at)) {
        pressure->calm_since_us = 0;
    } else if (pressure->calm_since_us == 0) {
        pressure->calm_since_us = now_us;
    } else if (now_us - pressure->calm_since_us >= PRESSURE_CALM_US) {
        pressure->stage = (enum pressure_stage)(pressure->stage - 1);
        pressure->calm_since_us = 0;
    }
    return pressure->stage;
}

size_t pressure_fit(enum pressure_stage stage, size_t held, size_t limit, size_t tier_resident,
                    size_t floor, size_t maxmemory)
{
    const size_t target = pressure_share(limit, stage == PRESSURE_NONE ? PRESSURE_FIT
                                                                       : PRESSURE_FIT_TIGHT);
    const size_t others = held > tier_resident ? held - tier_resident : 0;
    const size_t left = target > others ? target - others : 0;
    /* Its arena may keep a sixteenth more resident than its entries take. */
    const size_t room = left - left / 16;

    if (room >= maxmemory) {
        return maxmemory;
    }
    return room > floor ? room : floor;
}

unsigned pressure_stall_step(unsigned kept, unsigned stalled, unsigned bound)
{
    if (bound > 0 && stalled >= bound) {
        return kept > KEPT_LEAST + KEPT_FALL ? kept - KEPT_FALL : KEPT_LEAST;
    }
    return kept < 100 ? kept + 1 : 100;
}

const char *pressure_name(enum pressure_stage stage)
{
    static const char *const names[N_PRESSURE_STAGES] = {"none", "shrink", "close", "shed"};

    return names[stage];
}
