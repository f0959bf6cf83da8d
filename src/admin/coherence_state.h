/*
 * coherence_state.h - how coherent tier 1 is at the moment, in one struct
 *
 * Purpose:    what INFO, CACHE INFO and the metrics say about mode and bound, derived in one place.
 * Ownership:  plain values.
 * Threading:  any thread whose config is in force; the counts are atomics of the workers.
 * Units:      milliseconds.
 */
#ifndef NC_ADMIN_COHERENCE_STATE_H
#define NC_ADMIN_COHERENCE_STATE_H

#include "proxy/front.h"

struct coherence_state {
    unsigned n_tracking_links; /* up, and told of writes */
    unsigned n_ttl_links;      /* up, but the backend offers no tracking: time alone bounds */
    bool is_tracking;          /* no link is, or would be, in ttl mode */
    const char *mode;          /* "tracking", "ttl", or "mixed" */
    int64_t staleness_bound_ms;
};

struct coherence_state coherence_state_of(const struct proxy *proxy, const struct config *config);

#endif
