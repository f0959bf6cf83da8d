/*
 * metrics.h - /metrics: every line of tables/metrics.def in Prometheus' text format, version 0.0.4
 *
 * Purpose:    gather what gauges are read from, and write all samples. Counters and histograms
 *             come from stats.h; link states are asked of the workers, which own them.
 * Ownership:  facts are borrowed for the call that hands them out.
 * Threading:  metrics_gather() and what it calls on the control thread; metrics_write() on any.
 * Errors:     metrics_write() returns -ENOMEM, and what it wrote so far is of no use.
 * Units:      as the fields say; samples are in base units (bytes, seconds).
 *
 * Source:     https://prometheus.io/docs/instrumenting/exposition_formats/
 */
#ifndef NC_ADMIN_METRICS_H
#define NC_ADMIN_METRICS_H

#include "admin/coherence_state.h"
#include "cache/bans.h"
#include "proxy/front.h"
#include "proxy/overload.h"

#include <event2/buffer.h>

#define METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

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
    bool is_tracking, is_ready, is_dry_run, is_bus_up, is_backend_away;
    struct coherence_state state; /* the counts of links and nodes by mode */
    unsigned n_audits;            /* under way */
    unsigned n_event_patterns, n_event_sources_up, n_event_sources_down;
    double stale_ratio;
    int64_t staleness_bound_ms, watermark_age_us, uptime_us;
    struct overload_figures overload;
    unsigned n_connecting;
    uint64_t n_buffers_refused;
    uint64_t process_resident_bytes, allocated_bytes, n_log_dropped;
    unsigned n_visitors; /* connections of the admin port */
};

/* Writes one exposition: HELP and TYPE once per name, then its samples. */
NC_MUST_CHECK int metrics_write(const struct metrics_facts *facts, struct evbuffer *out);

typedef void (*metrics_ready_fn)(const struct metrics_facts *facts, void *context);

/* Asks every worker, then calls ready in a later turn. */
void metrics_gather(struct proxy *proxy, metrics_ready_fn ready, void *context);

#endif
