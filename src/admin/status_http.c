/*
 * Sums come from the metric table by the names of metrics and the values of their labels, so that
 * a reason or kind that is added there appears here by itself.
 */
#include "admin/status_http.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "admin/history.h"
#include "admin/order_http.h"
#include "admin/readiness.h"
#include "admin/samples.h"
#include "base/clock.h"
#include "base/version.h"
#include "coherence/bus.h"

#define PREFIX "nearcached_"

static json_t *json_of_text(const char *text)
{
    return json_of_bytes(bytes_of_string(text));
}

/* JSON knows neither infinity nor what is no number. */
static json_t *json_of_number(double number)
{
    return isfinite(number) ? json_real(number) : json_null();
}

static json_t *json_of_count(uint64_t n)
{
    return json_integer((json_int_t)n);
}

/* ---- sums over the table; ns -1: over all namespaces ---- */

/* {"write": 3, ...} by the values of a label. */
static json_t *totals_by(const char *name, const char *label, int ns)
{
    const struct metric_line *line;
    json_t *json = json_object();
    char value[64];

    for (unsigned i = 0; (line = metric_line_at(i)) != NULL; i++) {
        if (strcmp(line->name, name) == 0) {
            (void)samples_label(line->labels, label, value);
            json_object_set_new(
                json, value,
                json_of_count(samples_count(line, ns) +
                              (uint64_t)json_integer_value(json_object_get(json, value))));
        }
    }
    return json;
}

/* {"hit": {...}, "miss": null, ...} */
static json_t *latencies(int ns)
{
    const struct metric_line *line;
    json_t *json = json_object();
    char outcome[64];

    for (unsigned i = 0; (line = metric_line_at(i)) != NULL; i++) {
        uint64_t buckets[STATS_BUCKETS] = {0};

        if (strcmp(line->name, "request_duration_seconds") == 0 &&
            samples_buckets(line, ns, buckets)) {
            json_object_set_new(json, samples_label(line->labels, "outcome", outcome),
                                samples_latency(buckets));
        }
    }
    return json;
}

static json_t *ratio(uint64_t part, uint64_t whole)
{
    return whole == 0 ? json_null() : json_real((double)part / (double)whole);
}

/* ---- /v1/status ---- */

static json_t *json_of_coherence(const struct metrics_facts *facts)
{
    const struct coherence_state *state = &facts->state;

    return json_pack("{s:s, s:I, s:b, s:I, s:{s:i, s:i, s:i, s:i, s:i}}", "mode",
                     state->mode != NULL ? state->mode : "none", "bound_ms",
                     (json_int_t)facts->staleness_bound_ms, "tracking", facts->is_tracking,
                     "watermark_age_ms", (json_int_t)(facts->watermark_age_us / 1000), "links",
                     "tracking", (int)state->n_tracking_links, "broadcast",
                     (int)state->n_broadcast_links, "keyspace", (int)state->n_keyspace_links,
                     "pubsub", (int)state->n_pubsub_links, "ttl", (int)state->n_ttl_links);
}

static json_t *json_of_backend(const struct proxy *proxy, const struct metrics_facts *facts)
{
    return json_pack("{s:b, s:b, s:i, s:i, s:i, s:{s:i, s:i, s:i}}", "reachable",
                     atomic_load_explicit(&proxy->is_reachable, memory_order_relaxed), "away",
                     facts->is_backend_away, "nodes", (int)facts->n_nodes, "links_up",
                     (int)facts->n_links_up, "links_down", (int)facts->n_links_down, "breakers",
                     "closed", (int)facts->n_breakers[BREAKER_CLOSED], "open",
                     (int)facts->n_breakers[BREAKER_OPEN], "half_open",
                     (int)facts->n_breakers[BREAKER_HALF_OPEN]);
}

static json_t *json_of_memory(const struct metrics_facts *facts)
{
    const struct cache_stats *cache = &facts->cache;
    const struct overload_figures *overload = &facts->overload;

    return json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s}", "tier1_bytes",
        (json_int_t)cache->accounted_bytes, "tier1_metadata_bytes",
        (json_int_t)cache->metadata_bytes, "tier1_limit_bytes", (json_int_t)cache->maxmemory,
        "tier1_budget_bytes", (json_int_t)cache->budget_bytes, "entries",
        (json_int_t)cache->n_entries, "views", (json_int_t)cache->n_views, "process_bytes",
        (json_int_t)facts->process.resident_bytes, "process_held_bytes",
        (json_int_t)overload->held_bytes, "process_limit_bytes", (json_int_t)overload->limit_bytes,
        "cgroup_limit_bytes", (json_int_t)overload->cgroup_limit_bytes, "pressure",
        pressure_name(overload->stage));
}

/* ns < 0: of all. What tier 1 could have answered is the base of the ratio. */
static json_t *json_of_requests(int ns)
{
    const uint64_t hits = samples_total("hits_total", ns);
    const uint64_t misses = samples_total("misses_total", ns);
    json_t *json = json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:o}", "hits", (json_int_t)hits, "misses", (json_int_t)misses,
        "negative_hits", (json_int_t)samples_total("negative_hits_total", ns), "stale_served",
        (json_int_t)samples_total("stale_served_total", ns), "bypassed",
        (json_int_t)samples_total("bypassed_total", ns), "hit_ratio", ratio(hits, hits + misses));

    json_object_set_new(json, "misses_by_reason", totals_by("misses_total", "reason", ns));
    json_object_set_new(json, "by_outcome", totals_by("requests_total", "outcome", ns));
    json_object_set_new(json, "by_family", totals_by("requests_total", "family", ns));
    if (ns < 0) {
        json_object_set_new(json, "commands", json_of_count(samples_total("commands_total", ns)));
        json_object_set_new(json, "relayed",
                            json_of_count(samples_total("commands_relayed_total", ns)));
        json_object_set_new(json, "errors_by_kind", totals_by("errors_total", "kind", ns));
    }
    return json;
}

static json_t *json_of_invalidations(void)
{
    return json_pack("{s:I, s:o, s:I, s:I}", "total",
                     (json_int_t)samples_total("invalidations_total", -1), "by_reason",
                     totals_by("invalidations_total", "reason", -1), "evictions",
                     (json_int_t)samples_total("evictions_total", -1), "expirations",
                     (json_int_t)samples_total("expirations_total", -1));
}

static json_t *json_of_audit(const struct config *config, const struct metrics_facts *facts)
{
    const uint64_t n = samples_total("audits_total", -1);

    return json_pack("{s:I, s:I, s:o, s:o, s:o}", "sample", (json_int_t)config->audit_sample,
                     "compared", (json_int_t)n, "by_result",
                     totals_by("audits_total", "result", -1), "stale_by_cause",
                     totals_by("stale_total", "cause", -1), "stale_ratio",
                     n == 0 ? json_null() : json_real(facts->stale_ratio));
}

static const char *rule_name(const struct config *config)
{
    static const char *const names[] = {[CACHE_COMMAND_FREE] = "free",
                                        [CACHE_COMMAND_PASSWORD] = "password",
                                        [CACHE_COMMAND_OFF] = "off"};

    return names[config->cache_command];
}

static void add_parts(const struct proxy *proxy, const struct metrics_facts *facts, json_t *json)
{
    const struct config *config = proxy->config;

    json_object_set_new(json, "coherence", json_of_coherence(facts));
    json_object_set_new(json, "backend", json_of_backend(proxy, facts));
    json_object_set_new(json, "bus",
                        json_pack("{s:s, s:o, s:i}", "state", bus_state_name(proxy->fleet.bus),
                                  "group", json_of_text(config->bus_group), "peers",
                                  (int)facts->n_bus_peers));
    json_object_set_new(json, "memory", json_of_memory(facts));
    json_object_set_new(json, "clients",
                        json_pack("{s:i, s:i, s:i}", "open", (int)facts->n_clients, "max",
                                  (int)facts->max_clients, "blocked", (int)facts->n_blocked));
    json_object_set_new(json, "requests", json_of_requests(-1));
    json_object_set_new(json, "latency", latencies(-1));
    json_object_set_new(json, "invalidations", json_of_invalidations());
    json_object_set_new(json, "audit", json_of_audit(config, facts));
    json_object_set_new(json, "actions", json_pack("{s:s}", "rule", rule_name(config)));
}

json_t *status_json(const struct proxy *proxy, const struct discovery *discovery,
                    const struct metrics_facts *facts)
{
    const int64_t now_unix_ms = clock_unix_ms();
    const int64_t uptime_ms = facts->uptime_us / 1000;
    char text[READINESS_TEXT_MAX];
    const bool is_ready = readiness_of(proxy, discovery, text);
    const bool is_draining = atomic_load_explicit(&proxy->is_leaving, memory_order_relaxed) ||
                             atomic_load_explicit(&proxy->is_draining, memory_order_relaxed);
    json_t *json = json_pack(
        "{s:s, s:s, s:i, s:i, s:I, s:I, s:I, s:b, s:o, s:b, s:s, s:b}", "version", NC_VERSION,
        "run_id", proxy->run_id, "pid", (int)getpid(), "workers", (int)proxy->n_fronts,
        "now_unix_ms", (json_int_t)now_unix_ms, "started_unix_ms",
        (json_int_t)(now_unix_ms - uptime_ms), "uptime_ms", (json_int_t)uptime_ms, "ready",
        is_ready, "ready_text", json_of_text(text), "draining", is_draining, "mode",
        config_mode_name(proxy->config->mode), "dry_run", facts->is_dry_run);

    add_parts(proxy, facts, json);
    return json;
}

/* ---- /v1/metrics ---- */

static bool is_wanted(const char *names, const char *name)
{
    const size_t len = strlen(name);

    if (names == NULL) {
        return true;
    }
    for (const char *at = names; *at != '\0';) {
        const size_t n = strcspn(at, ",");
        const size_t prefix = n > strlen(PREFIX) && strncmp(at, PREFIX, strlen(PREFIX)) == 0
                                  ? strlen(PREFIX)
                                  : 0;

        if (n - prefix == len && memcmp(at + prefix, name, len) == 0) {
            return true;
        }
        at += n + (at[n] == ',');
    }
    return false;
}

static json_t *json_of_sample(const struct metric_sample *sample)
{
    json_t *json = json_pack("{s:o}", "labels", samples_labels(sample->labels));
    json_t *counts;

    switch (sample->form) {
    case METRIC_COUNT:
        json_object_set_new(json, "value", json_of_count(sample->count));
        break;
    case METRIC_NUMBER:
        json_object_set_new(json, "value", json_of_number(sample->number));
        break;
    case METRIC_BUCKETS:
        counts = json_array();
        for (unsigned i = 0; i < STATS_BUCKETS; i++) {
            json_array_append_new(counts, json_of_count(sample->buckets[i]));
        }
        json_object_set_new(json, "buckets", counts);
        json_object_set_new(json, "sum", json_of_number(sample->number));
        json_object_set_new(json, "count", json_of_count(sample->count));
        break;
    }
    return json;
}

/* Upper bounds of all buckets but the last one, which has none. */
static json_t *json_of_bounds(void)
{
    json_t *bounds = json_array();

    for (unsigned i = 0; i < STATS_BUCKETS - 1; i++) {
        json_array_append_new(bounds, json_real((double)stats_bucket_us[i] / 1e6));
    }
    return bounds;
}

/* While the table is walked. */
struct listing {
    const char *names;
    json_t *list;
    const struct metric_line *line; /* of the last sample */
    json_t *samples;                /* of that line's name; NULL: nobody asked for it */
};

static json_t *begin_metric(const struct listing *listing, const struct metric_line *line)
{
    json_t *metric = json_pack("{s:o, s:s, s:s}", "name", samples_name(line), "type",
                               metric_line_type(line), "help", line->help);
    json_t *samples = json_array();

    if (line->kind == METRIC_HISTOGRAM) {
        json_object_set_new(metric, "bounds", json_of_bounds());
    }
    json_object_set_new(metric, "samples", samples);
    json_array_append_new(listing->list, metric);
    return samples;
}

static void put_sample(const struct metric_sample *sample, void *context)
{
    struct listing *listing = context;
    const struct metric_line *former = listing->line;

    if (former == NULL || strcmp(former->name, sample->line->name) != 0) {
        listing->samples = is_wanted(listing->names, sample->line->name)
                               ? begin_metric(listing, sample->line)
                               : NULL;
    }
    listing->line = sample->line;
    if (listing->samples != NULL) {
        json_array_append_new(listing->samples, json_of_sample(sample));
    }
}

json_t *status_metrics_json(const struct metrics_facts *facts, const char *names)
{
    struct listing listing = {.names = names, .list = json_array()};

    metrics_visit(facts, put_sample, &listing);
    return json_pack("{s:o}", "metrics", listing.list);
}

/* ---- /v1/namespaces ---- */

static json_t *json_of_trend(const struct trend *trend)
{
    return json_pack("{s:s, s:I, s:o, s:o}", "direction", trend_name(trend->direction), "span_ms",
                     (json_int_t)trend->span_ms, "before",
                     trend->before < 0 ? json_null() : json_real(trend->before), "recent",
                     trend->recent < 0 ? json_null() : json_real(trend->recent));
}

static json_t *json_of_namespace(const struct proxy *proxy, const struct metrics_facts *facts,
                                 const struct config_namespace *space)
{
    const int ns = space->id;
    const struct trend trend = proxy->history != NULL ? history_trend(proxy->history, space->id)
                                                      : trend_judge((struct trend_reads){0, 0},
                                                                    (struct trend_reads){0, 0}, 0);
    json_t *json = json_pack(
        "{s:s, s:o, s:b, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o}", "name", space->name,
        "match", space->match != NULL ? json_of_text(space->match) : json_null(), "cached",
        space->has_cache, "mode", config_mode_name(config_mode_of(proxy->config, space)), "entries",
        (json_int_t)facts->namespaces[ns].n_entries, "bytes",
        (json_int_t)facts->namespaces[ns].n_bytes, "fetches",
        (json_int_t)samples_total("fetches_total", ns), "coalesced",
        (json_int_t)samples_total("coalesced_total", ns), "evictions",
        (json_int_t)samples_total("evictions_total", ns), "expirations",
        (json_int_t)samples_total("expirations_total", ns), "requests", json_of_requests(ns),
        "latency", latencies(ns), "trend", json_of_trend(&trend));

    json_object_set_new(json, "audits", totals_by("audits_total", "result", ns));
    json_object_set_new(json, "policy", json_object());
    return json;
}

/* Both the rows and the options come namespace by namespace, in the same order. */
struct policies {
    json_t *rows;
    size_t at;
};

static bool is_row(const struct policies *policies, const char *name, size_t len)
{
    const json_t *found = json_object_get(json_array_get(policies->rows, policies->at), "name");

    return json_string_length(found) == len && memcmp(json_string_value(found), name, len) == 0;
}

/* "namespace.session.max-ttl": into the row of session. */
static void put_policy(void *context, const char *option, const char *value)
{
    static const char prefix[] = "namespace.";
    struct policies *policies = context;
    const char *point = strrchr(option, '.');
    const char *begin = option + sizeof(prefix) - 1;

    if (point == NULL || strncmp(option, prefix, sizeof(prefix) - 1) != 0) {
        return;
    }
    if (!is_row(policies, begin, (size_t)(point - begin))) {
        policies->at++;
    }
    if (is_row(policies, begin, (size_t)(point - begin))) {
        json_object_set_new(json_object_get(json_array_get(policies->rows, policies->at), "policy"),
                            point + 1, json_of_text(value));
    }
}

json_t *status_namespaces_json(const struct proxy *proxy, const struct metrics_facts *facts)
{
    struct policies policies = {0};
    json_t *rows = json_array();

    for (unsigned i = 0; i < proxy->config->n_namespaces; i++) {
        json_array_append_new(rows, json_of_namespace(proxy, facts, &proxy->config->namespaces[i]));
    }
    policies.rows = rows;
    config_each(proxy->config, put_policy, &policies);
    return json_pack("{s:o}", "namespaces", rows);
}

/* ---- /v1/config ---- */

static void put_option(void *context, const char *option, const char *value)
{
    json_object_set_new(context, option, json_of_text(value));
}

json_t *status_config_json(const struct config *config)
{
    const char *file = config_file_name(config);
    json_t *options = json_object();

    config_each(config, put_option, options);
    return json_pack("{s:o, s:o}", "file", file != NULL ? json_of_text(file) : json_null(),
                     "options", options);
}
