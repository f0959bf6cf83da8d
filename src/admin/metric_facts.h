/*
 * metric_facts.h - what metrics are read from that nobody counts: states, sizes, ages
 *
 * Purpose:    gather them from the process and from the workers, which own links and sessions.
 * Ownership:  facts are borrowed for the call that hands them out.
 * Threading:  control thread. Workers are asked by mail: each answers in a turn of its own.
 * Errors:     none; what cannot be read is 0.
 * Units:      as the fields say.
 */
#ifndef NC_ADMIN_METRIC_FACTS_H
#define NC_ADMIN_METRIC_FACTS_H

#include "admin/coherence_state.h"
#include "base/process.h"
#include "cache/bans.h"
#include "proxy/front.h"
#include "proxy/overload.h"

/* One node of the map, over all workers. */
struct metric_node {
    epochs_node id;
    char name[300];
    bool is_master, is_healthy, has_watermark;
    enum breaker_state breaker;
    unsigned n_links_up, n_links_down;
    int64_t watermark_age_us; /* the oldest */
};

struct metric_worker {
    unsigned n_clients;
    int64_t cpu_us, lag_us;
};

/* What jemalloc says, in bytes. */
struct metric_heap {
    size_t allocated, active, resident, metadata, mapped, retained;
};

/* What gauges are read from. */
struct metrics_facts {
    struct cache_stats cache;
    struct bans_figures bans;
    unsigned n_jobs, n_ledger_operations;
    size_t n_dependencies, n_dependency_bytes, n_sources_watched, n_sources_unheard;
    bool are_dependencies_incomplete;
    struct {
        uint64_t n_entries, n_bytes;
        int mode;
    } namespaces[STATS_NAMESPACES];
    unsigned n_clients, max_clients;
    unsigned n_subscriptions;
    unsigned n_tls_clients, n_tls_links;
    int64_t tls_client_expiry, tls_backend_expiry;
    unsigned n_identities;
    unsigned n_miss_leases, n_miss_waiting;
    unsigned n_leased_taken, n_leased_idle, n_blocked, n_trackers, n_tracked_keys, n_large;
    unsigned n_links_up, n_links_down, n_nodes, n_bus_peers;
    unsigned n_breakers[3]; /* nodes, by enum breaker_state */
    bool is_tracking, is_ready, is_dry_run, is_bus_enabled, is_bus_up, is_backend_away;
    struct coherence_state state; /* the counts of links and nodes by mode */
    unsigned n_audits;            /* under way */
    unsigned n_event_patterns, n_event_sources_up, n_event_sources_down;
    double stale_ratio;
    int64_t staleness_bound_ms, watermark_age_us, uptime_us;
    struct overload_figures overload;
    unsigned n_connecting;
    uint64_t n_buffers_refused;
    uint64_t n_log_dropped;
    unsigned n_visitors; /* connections of the admin port */
    struct process_figures process;
    struct metric_heap heap;
    struct metric_node *nodes; /* those of the map */
    unsigned n_listed_nodes;
    struct metric_worker *workers; /* by index */
    unsigned n_workers;
};

typedef void (*metrics_ready_fn)(const struct metrics_facts *facts, void *context);

/* Asks every worker, then calls ready in a later turn. */
void metrics_gather(struct proxy *proxy, metrics_ready_fn ready, void *context);

#endif
