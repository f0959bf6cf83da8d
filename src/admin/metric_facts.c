/*
 * Design: what many threads write is read from where they write it (atomics, statistics of tier 1);
 * what a worker owns is asked of it by mail, so that no lock is on its way.
 */
#include "admin/metric_facts.h"

#include <jemalloc/jemalloc.h>
#include <stdio.h>
#include <time.h>

#include "admin/audit_report.h"
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
#include "coherence/track.h"
#include "coherence/unlink.h"
#include "proxy/census.h"
#include "proxy/tracking.h"
#include "upstream/gate.h"
#include "upstream/identity.h"
#include "upstream/lease.h"

/* What one worker says. */
struct front_facts {
    unsigned n_links_up, n_links_down, n_nodes, n_event_patterns;
    unsigned n_breakers[3]; /* by enum breaker_state */
    struct coherence_state state;
    bool is_dry_run;
    struct metric_worker worker;
    struct metric_node *nodes; /* n_listed */
    unsigned n_listed;
};

struct gather {
    struct proxy *proxy;
    metrics_ready_fn ready;
    void *context;
    unsigned n_asked; /* fronts; when all have answered there may be none any more */
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

static void describe_node(const struct backend_node *node, struct metric_node *described)
{
    const struct link *link = &node->links[LINK_TRACKING];
    const struct track *track = node->track;
    const int64_t now_us = clock_now_us();

    described->id = node->id;
    snprintf(described->name, sizeof(described->name), "%s", link->name);
    described->breaker = health_state(node->health);
    described->is_master = node->info != NULL && node->info->is_master;
    described->is_healthy = node->info != NULL && node->info->is_healthy;
    described->has_watermark = track != NULL && link_is_up(link);
    if (described->has_watermark && track->watermark_us < now_us) {
        described->watermark_age_us = now_us - track->watermark_us;
    }
    for (unsigned kind = 0; kind < N_LINK_KINDS; kind++) {
        described->n_links_up += link_is_up(&node->links[kind]);
        described->n_links_down += is_down(&node->links[kind], now_us);
    }
    for (const struct backend_spare *spare = node->spares; spare != NULL; spare = spare->next) {
        described->n_links_up += link_is_up(&spare->link);
        described->n_links_down += is_down(&spare->link, now_us);
    }
}

static void list_nodes(const struct backend *backend, struct front_facts *facts)
{
    unsigned n = 0;

    for (const struct backend_node *node = backend->nodes; node != NULL; node = node->next) {
        n += node->is_in_map;
    }
    facts->nodes = mem_alloc((n + 1) * sizeof(facts->nodes[0]));
    for (const struct backend_node *node = backend->nodes; node != NULL; node = node->next) {
        if (node->is_in_map) {
            struct metric_node *described = &facts->nodes[facts->n_listed++];

            describe_node(node, described);
            facts->n_links_up += described->n_links_up;
            facts->n_links_down += described->n_links_down;
            facts->n_breakers[described->breaker]++;
        }
    }
}

static int64_t thread_cpu_us(void)
{
    struct timespec used;

    return clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used) != 0
               ? 0
               : (int64_t)used.tv_sec * 1000000 + used.tv_nsec / 1000;
}

static void ask_front(struct front *front, void *context)
{
    struct gather *gather = context;
    struct front_facts *facts = &gather->fronts[front->worker.index];

    facts->state = coherence_state_of(front->proxy, front->config);
    facts->is_dry_run = front->config->dry_run;
    facts->n_event_patterns = events_count_patterns(front->coherence.events);
    facts->n_nodes = front->backend.topology != NULL ? front->backend.topology->n_nodes : 0;
    list_nodes(&front->backend, facts);
    facts->worker = (struct metric_worker){.n_clients = front->n_sessions,
                                           .cpu_us = thread_cpu_us(),
                                           .lag_us = lag_worst_us(&front->lag)};
}

/* What several workers say of one node; a map may be newer at some. */
static void add_node(struct metrics_facts *facts, const struct metric_node *node)
{
    struct metric_node *known = NULL;

    for (unsigned i = 0; i < facts->n_listed_nodes && known == NULL; i++) {
        known = facts->nodes[i].id == node->id ? &facts->nodes[i] : NULL;
    }
    if (known == NULL) {
        facts->nodes[facts->n_listed_nodes++] = *node;
        return;
    }
    known->n_links_up += node->n_links_up;
    known->n_links_down += node->n_links_down;
    known->has_watermark = known->has_watermark || node->has_watermark;
    if (node->watermark_age_us > known->watermark_age_us) {
        known->watermark_age_us = node->watermark_age_us;
    }
}

static void add_nodes(struct gather *gather)
{
    struct metrics_facts *facts = &gather->facts;
    size_t n = 1;

    for (unsigned i = 0; i < gather->proxy->n_fronts; i++) {
        n += gather->fronts[i].n_listed;
    }
    facts->nodes = mem_alloc(n * sizeof(facts->nodes[0]));
    facts->workers = mem_alloc((gather->proxy->n_fronts + 1) * sizeof(facts->workers[0]));
    facts->n_workers = gather->proxy->n_fronts;
    for (unsigned i = 0; i < gather->proxy->n_fronts; i++) {
        facts->workers[i] = gather->fronts[i].worker;
        for (unsigned k = 0; k < gather->fronts[i].n_listed; k++) {
            add_node(facts, &gather->fronts[i].nodes[k]);
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

/* jemalloc's figures are those of its last epoch until it is told to begin a new one. */
static void read_heap(struct metric_heap *heap)
{
    static const char *const names[] = {"stats.allocated", "stats.active", "stats.resident",
                                        "stats.metadata",  "stats.mapped", "stats.retained"};
    size_t *const values[] = {&heap->allocated, &heap->active, &heap->resident,
                              &heap->metadata,  &heap->mapped, &heap->retained};
    uint64_t epoch = 1;

    (void)mallctl("epoch", NULL, NULL, &epoch, sizeof(epoch));
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        size_t size = sizeof(*values[i]);

        if (mallctl(names[i], values[i], &size, NULL, 0) != 0) {
            *values[i] = 0;
        }
    }
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
    facts->is_bus_enabled = proxy->config->bus;
    facts->is_bus_up = bus_is_up(proxy->fleet.bus);
    facts->n_bus_peers = bus_count_peers(proxy->fleet.bus);
    event_sources_count(proxy->fleet.event_sources, &facts->n_event_sources_up,
                        &facts->n_event_sources_down);
    facts->watermark_age_us = watermark_age_us(proxy->cache, now_us);
    facts->uptime_us = now_us - proxy->started_at_us;
    process_read(&facts->process);
    read_heap(&facts->heap);
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
        add_nodes(gather);
        add_process(gather);
    }
    gather->ready(&gather->facts, gather->context);
    for (unsigned i = 0; i < gather->n_asked; i++) {
        mem_free(gather->fronts[i].nodes);
    }
    mem_free(gather->facts.nodes);
    mem_free(gather->facts.workers);
    mem_free(gather);
}

void metrics_gather(struct proxy *proxy, metrics_ready_fn ready, void *context)
{
    struct gather *gather = mem_alloc(sizeof(*gather) +
                                      proxy->n_fronts * sizeof(gather->fronts[0]));

    gather->proxy = proxy;
    gather->n_asked = proxy->n_fronts;
    gather->ready = ready;
    gather->context = context;
    proxy_on_all_workers(proxy, ask_front, on_all_asked, gather);
}
