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
    unsigned n_tracking_links;                    /* up, and told of writes */
    unsigned n_broadcast_links, n_keyspace_links; /* up, and fetching what another one hears of */
    unsigned n_pubsub_links;                      /* up; the other proxies tell of their writes */
    unsigned n_ttl_links; /* up, but the backend offers no tracking: time alone bounds */
    unsigned n_broadcast_nodes, n_keyspace_nodes; /* nodes heard of over a link for all workers */
    bool is_tracking;                             /* no link is, or would be, in another mode */
    const char *mode;                             /* that of all links and namespaces, or "mixed" */
    int64_t staleness_bound_ms;
};

struct coherence_state coherence_state_of(const struct proxy *proxy, const struct config *config);

#endif
