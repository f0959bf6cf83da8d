#include "admin/coherence_state.h"

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/*
 * Where a link is told of writes, the serve rule refuses what its watermark leaves older than
 * max-staleness. Where none tells, an entry's life is the bound.
 */
struct coherence_state coherence_state_of(const struct proxy *proxy, const struct config *config)
{
    struct coherence_state state = {0};

    for (unsigned i = 0; i < proxy->n_fronts; i++) {
        const struct coherence *coherence = &proxy->fronts[i].coherence;

        state.n_tracking_links += atomic_load_explicit(&coherence->n_tracking_links,
                                                       memory_order_relaxed);
        state.n_ttl_links += atomic_load_explicit(&coherence->n_ttl_links, memory_order_relaxed);
    }
    state.is_tracking = state.n_ttl_links == 0 && config->coherence != COHERENCE_TTL;
    if (state.is_tracking) {
        state.mode = "tracking";
        state.staleness_bound_ms = config->max_staleness_ms;
    } else if (state.n_tracking_links == 0) {
        state.mode = "ttl";
        state.staleness_bound_ms = config->ttl_mode_max_ms;
    } else {
        state.mode = "mixed";
        state.staleness_bound_ms = larger(config->max_staleness_ms, config->ttl_mode_max_ms);
    }
    return state;
}
