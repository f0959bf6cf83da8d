/*
 * Design: the table says what there is; a gauge adds a function here, read_<id>(), which a missing
 * one would fail to compile without. Names of namespaces are of a kind that needs no escaping in
 * labels (config/namespaces.h), and the table's texts have neither backslashes nor line breaks.
 */
#include "admin/metrics.h"

#include <errno.h>
#include <inttypes.h>
#include <jemalloc/jemalloc.h>
#include <stdio.h>
#include <unistd.h>

#include "admin/audit_report.h"
#include "admin/metric_table.h"
#include "admin/visitors.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/tls.h"
#include "cache/watch.h"
#include "coherence/bus.h"
#include "coherence/dependencies.h"
#include "coherence/dependency_watch.h"
#include "coherence/event_sources.h"
#include "coherence/unlink.h"
#include "proxy/census.h"
#include "proxy/tracking.h"
#include "upstream/gate.h"
#include "upstream/identity.h"
#include "upstream/lease.h"

/* ---- gauges ---- */

/* ns is 0 for gauges without namespaces. Integers up to 2^53 are exact. */
typedef double (*gauge_fn)(const struct metrics_facts *facts, unsigned ns);

#define READ_GAUGE(id, expression)                                                                 \
    static double read_##id(const struct metrics_facts *facts, unsigned ns)                        \
    {                                                                                              \
        (void)ns;                                                                                  \
        return (double)(expression);                                                               \
    }

READ_GAUGE(entries, facts->namespaces[ns].n_entries)
READ_GAUGE(entry_bytes, facts->namespaces[ns].n_bytes)
READ_GAUGE(mode, facts->namespaces[ns].mode)
READ_GAUGE(tls_clients, facts->n_tls_clients)
READ_GAUGE(tls_links, facts->n_tls_links)
READ_GAUGE(tls_client_expiry, facts->tls_client_expiry)
READ_GAUGE(tls_backend_expiry, facts->tls_backend_expiry)
READ_GAUGE(clients, facts->n_clients)
READ_GAUGE(max_clients, facts->max_clients)
READ_GAUGE(event_patterns, facts->n_event_patterns)
READ_GAUGE(event_sources, facts->n_event_sources_up)
READ_GAUGE(event_sources_down, facts->n_event_sources_down)
READ_GAUGE(bus_up, facts->is_bus_up)
READ_GAUGE(bus_peers, facts->n_bus_peers)
READ_GAUGE(links_up, facts->n_links_up)
READ_GAUGE(links_down, facts->n_links_down)
READ_GAUGE(subscriptions, facts->n_subscriptions)
READ_GAUGE(identities, facts->n_identities)
READ_GAUGE(leased_taken, facts->n_leased_taken)
READ_GAUGE(leased_idle, facts->n_leased_idle)
READ_GAUGE(client_trackers, facts->n_trackers)
READ_GAUGE(client_tracked_keys, facts->n_tracked_keys)
READ_GAUGE(large_transfers, facts->n_large)
READ_GAUGE(blocked_clients, facts->n_blocked)
READ_GAUGE(nodes, facts->n_nodes)
READ_GAUGE(nodes_closed, facts->n_breakers[BREAKER_CLOSED])
READ_GAUGE(nodes_open, facts->n_breakers[BREAKER_OPEN])
READ_GAUGE(nodes_half_open, facts->n_breakers[BREAKER_HALF_OPEN])
READ_GAUGE(backend_away, facts->is_backend_away)
READ_GAUGE(tracking, facts->is_tracking)
READ_GAUGE(mode_tracking, facts->state.n_tracking_links)
READ_GAUGE(mode_broadcast, facts->state.n_broadcast_links)
READ_GAUGE(mode_keyspace, facts->state.n_keyspace_links)
READ_GAUGE(mode_pubsub, facts->state.n_pubsub_links)
READ_GAUGE(mode_ttl, facts->state.n_ttl_links)
READ_GAUGE(nodes_broadcast, facts->state.n_broadcast_nodes)
READ_GAUGE(nodes_keyspace, facts->state.n_keyspace_nodes)
READ_GAUGE(audits_under_way, facts->n_audits)
READ_GAUGE(stale_ratio, facts->stale_ratio)
READ_GAUGE(dry_run, facts->is_dry_run)
READ_GAUGE(miss_leases, facts->n_miss_leases)
READ_GAUGE(miss_lease_waiting, facts->n_miss_waiting)
READ_GAUGE(staleness_bound, (double)facts->staleness_bound_ms / 1e3)
READ_GAUGE(watermark_age, (double)facts->watermark_age_us / 1e6)
READ_GAUGE(tag_bans_pending, facts->bans.n_tags)
READ_GAUGE(bans_standing, facts->bans.n_standing)
READ_GAUGE(bans_pending, facts->bans.n_pending)
READ_GAUGE(ban_section, (double)facts->bans.longest_section_us / 1e6)
READ_GAUGE(ban_slice, (double)facts->bans.longest_slice_us / 1e6)
READ_GAUGE(ledger_under_way, facts->n_ledger_operations)
READ_GAUGE(jobs_running, facts->n_jobs)
READ_GAUGE(dependencies, facts->n_dependencies)
READ_GAUGE(dependencies_incomplete, facts->are_dependencies_incomplete)
READ_GAUGE(dependency_bytes, facts->n_dependency_bytes)
READ_GAUGE(dependency_sources_watched, facts->n_sources_watched)
READ_GAUGE(dependency_sources_unheard, facts->n_sources_unheard)
READ_GAUGE(memory_bytes, facts->cache.accounted_bytes)
READ_GAUGE(memory_limit, facts->cache.maxmemory)
READ_GAUGE(memory_budget, facts->cache.budget_bytes)
READ_GAUGE(arena_resident, facts->cache.arena_resident_bytes)
READ_GAUGE(process_resident, facts->process_resident_bytes)
READ_GAUGE(process_limit, facts->overload.limit_bytes)
READ_GAUGE(process_held, facts->overload.held_bytes)
READ_GAUGE(cgroup_limit, facts->overload.cgroup_limit_bytes)
READ_GAUGE(tier_ceiling, facts->overload.tier_bytes)
READ_GAUGE(pressure_stage, facts->overload.stage)
READ_GAUGE(memory_stalled, (double)facts->overload.stalled_percent / 100)
READ_GAUGE(buffers_refused, facts->n_buffers_refused)
READ_GAUGE(connecting, facts->n_connecting)
READ_GAUGE(allocated, facts->allocated_bytes)
READ_GAUGE(uptime, (double)facts->uptime_us / 1e6)
READ_GAUGE(ready, facts->is_ready)
READ_GAUGE(log_dropped, facts->n_log_dropped)
READ_GAUGE(admin_connections, facts->n_visitors)

static const gauge_fn gauges[N_GAUGES] = {
#define COUNTER(id, name, labels, help)
#define NS_COUNTER(id, name, labels, help)
#define GAUGE(id, name, labels, help) [GAUGE_##id] = read_##id,
#define NS_GAUGE(id, name, labels, help) [GAUGE_##id] = read_##id,
#define HISTOGRAM(id, name, labels, help)
#include "tables/metrics.def"
#undef COUNTER
#undef NS_COUNTER
#undef GAUGE
#undef NS_GAUGE
#undef HISTOGRAM
};

/* ---- writing ---- */

struct exposition {
    const struct metrics_facts *facts;
    struct evbuffer *out;
    bool has_failed;
};

static void put(struct exposition *exposition, const char *format, ...) NC_PRINTF(2, 3);

static void put(struct exposition *exposition, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    if (evbuffer_add_vprintf(exposition->out, format, arguments) < 0) {
        exposition->has_failed = true;
    }
    va_end(arguments);
}

static void put_count(struct exposition *exposition, const char *name, const char *suffix,
                      const char *labels, uint64_t value)
{
    const bool has_labels = labels[0] != '\0';

    put(exposition, "nearcached_%s%s%s%s%s %" PRIu64 "\n", name, suffix, has_labels ? "{" : "",
        labels, has_labels ? "}" : "", value);
}

/* 15 digits keep 0.05 as it is written, and every count of bytes exact. */
static void put_number(struct exposition *exposition, const char *name, const char *suffix,
                       const char *labels, double value)
{
    const bool has_labels = labels[0] != '\0';

    put(exposition, "nearcached_%s%s%s%s%s %.15g\n", name, suffix, has_labels ? "{" : "", labels,
        has_labels ? "}" : "", value);
}

static void put_histogram(struct exposition *exposition, const struct metric_line *line)
{
    const char *comma = line->labels[0] != '\0' ? "," : "";
    uint64_t counts[STATS_BUCKETS];
    uint64_t sum_us;

    stats_histogram_sum((enum histogram)line->index, counts, &sum_us);
    for (unsigned i = 0; i < STATS_BUCKETS - 1; i++) {
        put(exposition, "nearcached_%s_bucket{%s%sle=\"%g\"} %" PRIu64 "\n", line->name,
            line->labels, comma, (double)stats_bucket_us[i] / 1e6, counts[i]);
    }
    put(exposition, "nearcached_%s_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n", line->name, line->labels,
        comma, counts[STATS_BUCKETS - 1]);
    put_number(exposition, line->name, "_sum", line->labels, (double)sum_us / 1e6);
    put_count(exposition, line->name, "_count", line->labels, counts[STATS_BUCKETS - 1]);
}

static void put_plain(struct exposition *exposition, const struct metric_line *line)
{
    if (line->kind == METRIC_COUNTER) {
        put_count(exposition, line->name, "", line->labels, stats_sum((enum metric)line->index));
    } else {
        put_number(exposition, line->name, "", line->labels,
                   gauges[line->index](exposition->facts, 0));
    }
}

static void put_of_namespace(struct exposition *exposition, const struct metric_line *line,
                             unsigned ns)
{
    char labels[160];

    snprintf(labels, sizeof(labels), "namespace=\"%s\"%s%s", config_namespace_name(ns),
             line->labels[0] != '\0' ? "," : "", line->labels);
    if (line->kind == METRIC_COUNTER) {
        put_count(exposition, line->name, "", labels,
                  stats_ns_sum(ns, (enum ns_metric)line->index));
    } else {
        put_number(exposition, line->name, "", labels, gauges[line->index](exposition->facts, ns));
    }
}

static void put_line(struct exposition *exposition, const struct metric_line *line)
{
    if (line->kind == METRIC_HISTOGRAM) {
        put_histogram(exposition, line);
        return;
    }
    if (!line->is_by_namespace) {
        put_plain(exposition, line);
        return;
    }
    for (unsigned ns = 0; ns < config_namespace_count(); ns++) {
        put_of_namespace(exposition, line, ns);
    }
}

static const char *type_of(const struct metric_line *line)
{
    switch (line->kind) {
    case METRIC_COUNTER:
        return "counter";
    case METRIC_GAUGE:
        return "gauge";
    case METRIC_HISTOGRAM:
        break;
    }
    return "histogram";
}

int metrics_write(const struct metrics_facts *facts, struct evbuffer *out)
{
    struct exposition exposition = {.facts = facts, .out = out};
    const struct metric_line *line, *former = NULL;

    for (unsigned i = 0; (line = metric_line_at(i)) != NULL; i++) {
        if (former == NULL || strcmp(former->name, line->name) != 0) {
            put(&exposition, "# HELP nearcached_%s %s\n# TYPE nearcached_%s %s\n", line->name,
                line->help, line->name, type_of(line));
        }
        put_line(&exposition, line);
        former = line;
    }
    return exposition.has_failed ? -ENOMEM : 0;
}

/* ---- gathering ---- */

/* What one worker says. */
struct front_facts {
    unsigned n_links_up, n_links_down, n_nodes, n_event_patterns;
    unsigned n_breakers[3]; /* by enum breaker_state */
    struct coherence_state state;
    bool is_dry_run;
};

struct gather {
    struct proxy *proxy;
    metrics_ready_fn ready;
    void *context;
    struct metrics_facts facts;
    struct front_facts fronts[]; /* by worker index; each written by its worker */
};

/*
 * A link that nobody needs is neither up nor down: one that was never used, that idled out, or a
 * relay link that was lost and could connect again.
 */
static bool is_down(const struct link *link, int64_t now_us)
{
    if (link->state == LINK_DOWN) {
        return link->kind == LINK_TRACKING || now_us < link->retry_at_us;
    }
    return link->state != LINK_IDLE && link->state != LINK_UP;
}

static void count_links(const struct backend_node *node, struct front_facts *facts)
{
    const int64_t now_us = clock_now_us();

    for (unsigned kind = 0; kind < N_LINK_KINDS; kind++) {
        facts->n_links_up += link_is_up(&node->links[kind]);
        facts->n_links_down += is_down(&node->links[kind], now_us);
    }
    for (const struct backend_spare *spare = node->spares; spare != NULL; spare = spare->next) {
        facts->n_links_up += link_is_up(&spare->link);
        facts->n_links_down += is_down(&spare->link, now_us);
    }
}

static void ask_front(struct front *front, void *context)
{
    struct gather *gather = context;
    struct front_facts *facts = &gather->fronts[front->worker.index];

    facts->state = coherence_state_of(front->proxy, front->config);
    facts->is_dry_run = front->config->dry_run;
    facts->n_event_patterns = events_count_patterns(front->coherence.events);
    facts->n_nodes = front->backend.topology != NULL ? front->backend.topology->n_nodes : 0;
    for (const struct backend_node *node = front->backend.nodes; node != NULL; node = node->next) {
        if (node->is_in_map) {
            count_links(node, facts);
            facts->n_breakers[health_state(node->health)]++;
        }
    }
}

static void add_fronts(struct gather *gather)
{
    struct metrics_facts *facts = &gather->facts;

    facts->is_tracking = true;
    for (unsigned i = 0; i < gather->proxy->n_fronts; i++) {
        const struct front_facts *front = &gather->fronts[i];

        facts->is_dry_run = facts->is_dry_run || front->is_dry_run;
        facts->n_links_up += front->n_links_up;
        facts->n_links_down += front->n_links_down;
        facts->n_event_patterns += front->n_event_patterns;
        facts->is_tracking = facts->is_tracking && front->state.is_tracking;
        facts->state = front->state; /* its counts are of the process */
        if (front->n_nodes > facts->n_nodes) {
            facts->n_nodes = front->n_nodes;
        }
        memcpy(facts->n_breakers, front->n_breakers, sizeof(facts->n_breakers));
        if (front->state.staleness_bound_ms > facts->staleness_bound_ms) {
            facts->staleness_bound_ms = front->state.staleness_bound_ms;
        }
    }
}

/* No link has a watermark: nothing is served, so nothing is old. */
static int64_t watermark_age_us(struct cache *cache, int64_t now_us)
{
    const int64_t oldest_us = epochs_oldest_watermark(cache_epochs(cache));

    return oldest_us >= now_us ? 0 : now_us - oldest_us;
}

static uint64_t process_resident_bytes(void)
{
    FILE *file = fopen("/proc/self/statm", "re");
    unsigned long n_pages = 0;

    if (file == NULL) {
        return 0;
    }
    if (fscanf(file, "%*u %lu", &n_pages) != 1) {
        n_pages = 0;
    }
    (void)fclose(file);
    return (uint64_t)n_pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* jemalloc's figures are those of its last epoch until it is told to begin a new one. */
static uint64_t allocated_bytes(void)
{
    uint64_t epoch = 1;
    size_t n_bytes = 0;
    size_t size = sizeof(n_bytes);

    if (mallctl("epoch", NULL, NULL, &epoch, sizeof(epoch)) != 0 ||
        mallctl("stats.allocated", &n_bytes, &size, NULL, 0) != 0) {
        return 0;
    }
    return n_bytes;
}

static void add_dependencies(struct metrics_facts *facts, const struct coherence_fleet *fleet)
{
    const struct dependencies *dependencies = fleet->dependencies;

    if (dependencies == NULL) {
        return;
    }
    facts->n_dependencies = atomic_load_explicit(&dependencies->n_relations, memory_order_relaxed);
    facts->n_dependency_bytes = atomic_load_explicit(&dependencies->n_bytes, memory_order_relaxed);
    facts->are_dependencies_incomplete = atomic_load_explicit(&dependencies->is_incomplete,
                                                              memory_order_relaxed);
    dependency_watches_count(fleet, &facts->n_sources_watched, &facts->n_sources_unheard);
}

static void add_process(struct gather *gather)
{
    struct metrics_facts *facts = &gather->facts;
    struct proxy *proxy = gather->proxy;
    const int64_t now_us = clock_now_us();

    cache_stats(proxy->cache, &facts->cache);
    bans_figures(proxy->cache, &facts->bans);
    facts->n_jobs = proxy->fleet.jobs != NULL ? unlink_jobs_running(proxy->fleet.jobs) : 0;
    add_dependencies(facts, &proxy->fleet);
    for (unsigned ns = 0; ns < config_namespace_count(); ns++) {
        cache_ns_stats(proxy->cache, ns, &facts->namespaces[ns].n_entries,
                       &facts->namespaces[ns].n_bytes);
    }
    for (unsigned i = 0; i < proxy->config->n_namespaces; i++) {
        const struct config_namespace *ns = &proxy->config->namespaces[i];

        facts->namespaces[ns->id].mode = config_mode_of(proxy->config, ns);
    }
    facts->n_clients = atomic_load_explicit(&proxy->n_clients, memory_order_relaxed);
    facts->n_blocked = atomic_load_explicit(&proxy->n_blocked, memory_order_relaxed);
    facts->n_large = atomic_load_explicit(&proxy->n_large, memory_order_relaxed);
    facts->n_subscriptions = census_total();
    facts->n_tls_clients = tls_count(TLS_CLIENT);
    facts->n_tls_links = tls_count(TLS_BACKEND);
    facts->tls_client_expiry = tls_context_expires_at(proxy->tls_clients);
    facts->tls_backend_expiry = tls_context_expires_at(proxy->tls_backend);
    facts->n_identities = identity_count();
    facts->n_miss_leases = miss_leases_count(proxy->fleet.leases);
    facts->n_miss_waiting = miss_leases_waiting(proxy->fleet.leases);
    facts->n_leased_taken = lease_count_taken();
    facts->n_leased_idle = lease_count_idle();
    facts->n_trackers = tracking_count_clients();
    facts->n_tracked_keys = tracking_count_keys();
    facts->max_clients = atomic_load_explicit(&proxy->max_clients, memory_order_relaxed);
    facts->is_ready = proxy->config->ready_without_backend ||
                      atomic_load_explicit(&proxy->is_reachable, memory_order_relaxed);
    facts->is_backend_away = atomic_load_explicit(&proxy->is_away, memory_order_relaxed);
    facts->n_ledger_operations = atomic_load_explicit(&proxy->fleet.n_ledger_operations,
                                                      memory_order_relaxed);
    facts->is_bus_up = bus_is_up(proxy->fleet.bus);
    facts->n_bus_peers = bus_count_peers(proxy->fleet.bus);
    event_sources_count(proxy->fleet.event_sources, &facts->n_event_sources_up,
                        &facts->n_event_sources_down);
    facts->watermark_age_us = watermark_age_us(proxy->cache, now_us);
    facts->uptime_us = now_us - proxy->started_at_us;
    facts->process_resident_bytes = process_resident_bytes();
    facts->allocated_bytes = allocated_bytes();
    overload_figures(proxy, &facts->overload);
    facts->n_connecting = gate_count_inside();
    facts->n_buffers_refused = mem_count_refused();
    facts->n_log_dropped = log_dropped();
    facts->n_visitors = visitors_count();
    facts->n_audits = cache_watch_count(proxy->cache);
    facts->stale_ratio = audit_stale_ratio();
}

static void on_all_asked(void *context)
{
    struct gather *gather = context;

    /* At the very end of the process there is nobody left to speak of, nor anybody who reads it. */
    if (gather->proxy->n_fronts > 0) {
        add_fronts(gather);
        add_process(gather);
    }
    gather->ready(&gather->facts, gather->context);
    mem_free(gather);
}

void metrics_gather(struct proxy *proxy, metrics_ready_fn ready, void *context)
{
    struct gather *gather = mem_alloc(sizeof(*gather) +
                                      proxy->n_fronts * sizeof(gather->fronts[0]));

    gather->proxy = proxy;
    gather->ready = ready;
    gather->context = context;
    proxy_on_all_workers(proxy, ask_front, on_all_asked, gather);
}
