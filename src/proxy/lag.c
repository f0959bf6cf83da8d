#include "proxy/lag.h"

#include "base/clock.h"
#include "base/stats.h"

#define TICK_US 100000
#define WINDOW_US 10000000

static void arm(struct lag *lag, int64_t now_us)
{
    const struct timeval tick = {0, TICK_US};

    lag->due_at_us = now_us + TICK_US;
    event_add(lag->event, &tick);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct lag *lag = arg;
    const int64_t now_us = clock_now_us();
    const int64_t late_us = now_us > lag->due_at_us ? now_us - lag->due_at_us : 0;

    (void)fd;
    (void)what;
    stats_observe(HISTOGRAM_loop_lag, late_us, 1);
    if (now_us - lag->window_began_us >= WINDOW_US) {
        lag->window_began_us = now_us;
        lag->former_worst_us = lag->worst_us;
        lag->worst_us = 0;
    }
    if (late_us > lag->worst_us) {
        lag->worst_us = late_us;
    }
    arm(lag, now_us);
}

void lag_init(struct lag *lag, struct worker *worker)
{
    lag->event = event_new(worker->base, -1, 0, on_tick, lag);
    CHECK(lag->event != NULL);
    lag->window_began_us = clock_now_us();
    arm(lag, lag->window_began_us);
}

void lag_fini(struct lag *lag)
{
    event_free(lag->event);
}

int64_t lag_worst_us(const struct lag *lag)
{
    return lag->worst_us > lag->former_worst_us ? lag->worst_us : lag->former_worst_us;
}
