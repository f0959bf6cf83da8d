/*
 * Design: the table says what there is; a gauge adds a function here, read_<id>(), and a list one
 * called list_<id>(): a missing one would fail to compile. Names of namespaces are of a kind that
 * needs no escaping in labels (config/namespaces.h).
 */
#include "admin/metrics.h"

#include <stdio.h>

#include "base/version.h"
#include "upstream/tracking_tables.h"

/* ---- gauges ---- */

/* ns is 0 for gauges without namespaces. Integers up to 2^53 are exact. */
typedef double (*gauge_fn)(const struct metrics_facts *facts, unsigned ns);

#define READ_GAUGE(id, expression)                                                                 \
    static double read_##id(const struct metrics_facts *facts, unsigned ns)                        \
    {                                                                                              \
        (void)facts;                                                                               \
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
READ_GAUGE(bus_enabled, facts->is_bus_enabled)
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
READ_GAUGE(process_resident, facts->process.resident_bytes)
READ_GAUGE(process_limit, facts->overload.limit_bytes)
READ_GAUGE(process_held, facts->overload.held_bytes)
READ_GAUGE(cgroup_limit, facts->overload.cgroup_limit_bytes)
READ_GAUGE(tier_ceiling, facts->overload.tier_bytes)
READ_GAUGE(pressure_stage, facts->overload.stage)
READ_GAUGE(memory_stalled, (double)facts->overload.stalled_percent / 100)
READ_GAUGE(buffers_refused, facts->n_buffers_refused)
READ_GAUGE(connecting, facts->n_connecting)
READ_GAUGE(allocated, facts->heap.allocated)
READ_GAUGE(jemalloc_allocated, facts->heap.allocated)
READ_GAUGE(jemalloc_active, facts->heap.active)
READ_GAUGE(jemalloc_resident, facts->heap.resident)
READ_GAUGE(jemalloc_metadata, facts->heap.metadata)
READ_GAUGE(jemalloc_mapped, facts->heap.mapped)
READ_GAUGE(jemalloc_retained, facts->heap.retained)
READ_GAUGE(std_resident, facts->process.resident_bytes)
READ_GAUGE(std_virtual, facts->process.virtual_bytes)
READ_GAUGE(std_open_fds, facts->process.n_open_fds)
READ_GAUGE(std_max_fds, facts->process.max_fds)
READ_GAUGE(std_cpu, (double)facts->process.cpu_us / 1e6)
READ_GAUGE(std_start, facts->process.started_at_unix)
READ_GAUGE(std_threads, facts->process.n_threads)
READ_GAUGE(saved_commands, stats_ns_sum(ns, NS_METRIC_hits) +
                               stats_ns_sum(ns, NS_METRIC_coalesced) +
                               stats_ns_sum(ns, NS_METRIC_stale_served))
READ_GAUGE(uptime, (double)facts->uptime_us / 1e6)
READ_GAUGE(ready, facts->is_ready)
READ_GAUGE(log_dropped, facts->n_log_dropped)
READ_GAUGE(admin_connections, facts->n_visitors)

static const gauge_fn gauges[N_GAUGES] = {
#define GAUGE(id, name, labels, help) [GAUGE_##id] = read_##id,
#define NS_GAUGE GAUGE
#define READ_COUNTER GAUGE
#define NS_READ_COUNTER GAUGE
#define STANDARD_GAUGE GAUGE
#define STANDARD_COUNTER GAUGE
#include "tables/metrics.def"
};

/* ---- samples ---- */

struct visit {
    const struct metrics_facts *facts;
    metric_sample_fn fn;
    void *context;
    const struct metric_line *line;
};

static void give(const struct visit *visit, struct metric_sample *sample)
{
    sample->line = visit->line;
    visit->fn(sample, visit->context);
}

static void give_count(const struct visit *visit, const char *ns, const char *labels,
                       uint64_t count)
{
    struct metric_sample sample = {
        .form = METRIC_COUNT, .ns = ns, .labels = labels, .count = count, .number = (double)count};

    give(visit, &sample);
}

static void give_number(const struct visit *visit, const char *ns, const char *labels,
                        double number)
{
    struct metric_sample sample = {
        .form = METRIC_NUMBER, .ns = ns, .labels = labels, .number = number};

    give(visit, &sample);
}

/* ---- lists ---- */

/* In a label's value only these are written otherwise. */
static const char *escaped(const char *text, char *out, size_t size)
{
    size_t n = 0;

    for (; *text != '\0' && n + 3 < size; text++) {
        if (*text == '\\' || *text == '"' || *text == '\n') {
            out[n++] = '\\';
        }
        out[n++] = *text;
        if (*text == '\n') {
            out[n - 1] = 'n';
        }
    }
    out[n] = '\0';
    return out;
}

static void give_listed(const struct visit *visit, double number, const char *format, ...)
    NC_PRINTF(3, 4);

static void give_listed(const struct visit *visit, double number, const char *format, ...)
{
    char labels[METRIC_LABELS_MAX];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(labels, sizeof(labels), format, arguments);
    va_end(arguments);
    give_number(visit, NULL, labels, number);
}

typedef void (*list_fn)(const struct visit *visit);

static void list_build_info(const struct visit *visit)
{
    char compiler[128];

    give_listed(visit, 1, "version=\"%s\",compiler=\"%s\"", NC_VERSION,
                escaped(__VERSION__, compiler, sizeof(compiler)));
}

#define NODE_NAME_MAX 320

static const char *name_of(const struct metric_node *node, char out[NODE_NAME_MAX])
{
    return escaped(node->name, out, NODE_NAME_MAX);
}

/* Runs `statement` for each node, called `node`, with its `name`. */
#define FOR_EACH_NODE(visit, statement)                                                            \
    for (unsigned i = 0; i < (visit)->facts->n_listed_nodes; i++) {                                \
        const struct metric_node *node = &(visit)->facts->nodes[i];                                \
        char room[NODE_NAME_MAX];                                                                  \
        const char *name = name_of(node, room);                                                    \
                                                                                                   \
        statement;                                                                                 \
    }

static void list_node_info(const struct visit *visit)
{
    FOR_EACH_NODE(visit, give_listed(visit, 1, "node=\"%s\",role=\"%s\"", name,
                                     node->is_master ? "master" : "replica"))
}

static void list_node_links(const struct visit *visit)
{
    FOR_EACH_NODE(visit, {
        give_listed(visit, node->n_links_up, "node=\"%s\",state=\"up\"", name);
        give_listed(visit, node->n_links_down, "node=\"%s\",state=\"down\"", name);
    })
}

static void list_node_breaker(const struct visit *visit)
{
    static const enum breaker_state states[] = {BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN};

    for (unsigned k = 0; k < sizeof(states) / sizeof(states[0]); k++) {
        FOR_EACH_NODE(visit,
                      give_listed(visit, node->breaker == states[k], "node=\"%s\",state=\"%s\"",
                                  name, breaker_state_name(states[k])))
    }
}

static void list_node_healthy(const struct visit *visit)
{
    FOR_EACH_NODE(visit, give_listed(visit, node->is_healthy, "node=\"%s\"", name))
}

static void list_node_watermark_age(const struct visit *visit)
{
    FOR_EACH_NODE(
        visit, if (node->has_watermark) {
            give_listed(visit, (double)node->watermark_age_us / 1e6, "node=\"%s\"", name);
        })
}

static void list_node_tracking_keys(const struct visit *visit)
{
    uint64_t n;

    FOR_EACH_NODE(
        visit, if (tracking_tables_keys(node->id, &n)) {
            give_listed(visit, (double)n, "node=\"%s\"", name);
        })
}

static void list_node_tracking_limit(const struct visit *visit)
{
    uint64_t n;

    FOR_EACH_NODE(
        visit, if (tracking_tables_limit(node->id, &n)) {
            give_listed(visit, (double)n, "node=\"%s\"", name);
        })
}

static void list_worker_clients(const struct visit *visit)
{
    for (unsigned i = 0; i < visit->facts->n_workers; i++) {
        give_listed(visit, visit->facts->workers[i].n_clients, "worker=\"%u\"", i);
    }
}

static void list_worker_cpu(const struct visit *visit)
{
    for (unsigned i = 0; i < visit->facts->n_workers; i++) {
        give_listed(visit, (double)visit->facts->workers[i].cpu_us / 1e6, "worker=\"%u\"", i);
    }
}

static void list_worker_lag(const struct visit *visit)
{
    for (unsigned i = 0; i < visit->facts->n_workers; i++) {
        give_listed(visit, (double)visit->facts->workers[i].lag_us / 1e6, "worker=\"%u\"", i);
    }
}

static const list_fn lists[N_METRIC_LISTS] = {
#define GAUGE_LIST(id, name, labels, help) [METRIC_LIST_##id] = list_##id,
#define COUNTER_LIST GAUGE_LIST
#include "tables/metrics.def"
};

/* ---- visiting ---- */

static void give_histogram(const struct visit *visit, const char *ns_name, unsigned ns,
                           const char *labels)
{
    const struct metric_line *line = visit->line;
    struct metric_sample sample = {.form = METRIC_BUCKETS, .ns = ns_name, .labels = labels};
    uint64_t sum_us;

    if (line->is_by_namespace) {
        stats_ns_histogram_sum(ns, (enum ns_histogram)line->index, sample.buckets, &sum_us);
    } else {
        stats_histogram_sum((enum histogram)line->index, sample.buckets, &sum_us);
    }
    sample.count = sample.buckets[STATS_BUCKETS - 1];
    sample.number = (double)sum_us / 1e6;
    give(visit, &sample);
}

/* ns_name: NULL for those that are not by namespace. */
static void give_one(const struct visit *visit, const char *ns_name, unsigned ns,
                     const char *labels)
{
    const struct metric_line *line = visit->line;

    switch (line->kind) {
    case METRIC_COUNTER:
        give_count(visit, ns_name, labels,
                   line->is_by_namespace ? stats_ns_sum(ns, (enum ns_metric)line->index)
                                         : stats_sum((enum metric)line->index));
        return;
    case METRIC_HISTOGRAM:
        give_histogram(visit, ns_name, ns, labels);
        return;
    case METRIC_GAUGE:
    case METRIC_READ_COUNTER:
        give_number(visit, ns_name, labels, gauges[line->index](visit->facts, ns));
        return;
    case METRIC_GAUGE_LIST:
    case METRIC_COUNTER_LIST:
        lists[line->index](visit);
        return;
    }
}

static void visit_line(struct visit *visit, const struct metric_line *line)
{
    const unsigned n_namespaces = config_namespace_count();
    char labels[METRIC_LABELS_MAX];

    visit->line = line;
    if (!line->is_by_namespace) {
        give_one(visit, NULL, 0, line->labels);
        return;
    }
    for (unsigned ns = 0; ns < n_namespaces; ns++) {
        const char *name = config_namespace_name(ns);

        snprintf(labels, sizeof(labels), "namespace=\"%s\"%s%s", name,
                 line->labels[0] != '\0' ? "," : "", line->labels);
        give_one(visit, name, ns, labels);
    }
}

void metrics_visit(const struct metrics_facts *facts, metric_sample_fn fn, void *context)
{
    struct visit visit = {.facts = facts, .fn = fn, .context = context};
    const struct metric_line *line;

    for (unsigned i = 0; (line = metric_line_at(i)) != NULL; i++) {
        visit_line(&visit, line);
    }
}

bool metric_label_next(const char **labels, struct bytes *name, struct bytes *value)
{
    const char *at = *labels + (**labels == ',');
    const size_t name_len = strcspn(at, "=");
    const char *begin = at + name_len + 2, *end = begin;

    if (at[0] == '\0' || at[name_len] != '=' || at[name_len + 1] != '"') {
        return false;
    }
    while (*end != '"' && *end != '\0') {
        end += *end == '\\' && end[1] != '\0' ? 2 : 1;
    }
    *name = bytes_make(at, name_len);
    *value = bytes_make(begin, (size_t)(end - begin));
    *labels = end + (*end == '"');
    return true;
}
