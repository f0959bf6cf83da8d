#include "admin/info.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "admin/audit_report.h"
#include "admin/coherence_state.h"
#include "admin/metric_table.h"
#include "base/clock.h"
#include "base/version.h"
#include "coherence/bus.h"
#include "proxy/overload.h"

void info_line(struct resp_writer *text, const char *format, ...)
{
    char line[1024];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    resp_put_raw(text, bytes_of_string(line));
    resp_put_raw(text, BYTES("\r\n"));
}

static void put_process(struct proxy *proxy, struct resp_writer *text)
{
    const bool is_ready = atomic_load_explicit(&proxy->is_reachable, memory_order_relaxed);

    info_line(text, "nearcached_version:%s", NC_VERSION);
    info_line(text, "nearcached_uptime_in_seconds:%" PRId64,
              (clock_now_us() - proxy->started_at_us) / 1000000);
    info_line(text, "nearcached_threads:%u", proxy->n_fronts);
    info_line(text, "nearcached_clients:%u",
              atomic_load_explicit(&proxy->n_clients, memory_order_relaxed));
    info_line(text, "nearcached_ready:%d", is_ready);
    info_line(text, "nearcached_mode:%s", config_mode_name(front_self()->config->mode));
    info_line(text, "nearcached_backend_away:%d",
              atomic_load_explicit(&proxy->is_away, memory_order_relaxed));
}

/* Of the nodes in this worker's map: all workers judge alike. */
static void put_nodes(struct resp_writer *text)
{
    unsigned n[3] = {0};

    for (const struct backend_node *node = front_self()->backend.nodes; node != NULL;
         node = node->next) {
        n[health_state(node->health)] += node->is_in_map;
    }
    info_line(text, "nearcached_nodes_closed:%u", n[BREAKER_CLOSED]);
    info_line(text, "nearcached_nodes_open:%u", n[BREAKER_OPEN]);
    info_line(text, "nearcached_nodes_half_open:%u", n[BREAKER_HALF_OPEN]);
    info_line(text, "nearcached_stale_served:%" PRIu64, metric_total("stale_served_total"));
}

static void put_coherence(const struct proxy *proxy, struct resp_writer *text)
{
    const struct coherence_state state = coherence_state_of(proxy, front_self()->config);

    info_line(text, "nearcached_coherence:%s", state.mode);
    info_line(text, "nearcached_staleness_bound_ms:%" PRId64, state.staleness_bound_ms);
    info_line(text, "nearcached_tracking_links:%u", state.n_tracking_links);
    info_line(text, "nearcached_broadcast_links:%u", state.n_broadcast_links);
    info_line(text, "nearcached_keyspace_links:%u", state.n_keyspace_links);
    info_line(text, "nearcached_pubsub_links:%u", state.n_pubsub_links);
    info_line(text, "nearcached_ttl_links:%u", state.n_ttl_links);
    info_line(text, "nearcached_broadcast_nodes:%u", state.n_broadcast_nodes);
    info_line(text, "nearcached_keyspace_nodes:%u", state.n_keyspace_nodes);
    info_line(text, "nearcached_bus:%s", bus_state_name(proxy->fleet.bus));
    info_line(text, "nearcached_bus_group:%s", front_self()->config->bus_group);
    info_line(text, "nearcached_bus_peers:%u", bus_count_peers(proxy->fleet.bus));
}

static void put_tier(const struct proxy *proxy, struct resp_writer *text)
{
    const uint64_t hits = metric_total("hits_total");
    const uint64_t misses = metric_total("misses_total");
    const double ratio = hits == 0 ? 0 : (double)hits / (double)(hits + misses);
    struct cache_stats stats;

    cache_stats(proxy->cache, &stats);
    info_line(text, "nearcached_hits:%" PRIu64, hits);
    info_line(text, "nearcached_misses:%" PRIu64, misses);
    info_line(text, "nearcached_hit_ratio:%.4f", ratio);
    info_line(text, "nearcached_invalidations:%" PRIu64, metric_total("invalidations_total"));
    info_line(text, "nearcached_evictions:%" PRIu64, metric_total("evictions_total"));
    info_line(text, "nearcached_entries:%" PRIu64, stats.n_entries);
    info_line(text, "nearcached_memory_bytes:%zu", stats.accounted_bytes);
    info_line(text, "nearcached_memory_limit_bytes:%zu", stats.maxmemory);
}

static void put_overload(const struct proxy *proxy, struct resp_writer *text)
{
    struct overload_figures figures;

    overload_figures(proxy, &figures);
    info_line(text, "nearcached_memory_ceiling_bytes:%zu", figures.tier_bytes);
    info_line(text, "nearcached_process_memory_held_bytes:%zu", figures.held_bytes);
    info_line(text, "nearcached_process_memory_limit_bytes:%zu", figures.limit_bytes);
    info_line(text, "nearcached_cgroup_memory_limit_bytes:%zu", figures.cgroup_limit_bytes);
    info_line(text, "nearcached_memory_pressure:%s", pressure_name(figures.stage));
}

void info_section(struct proxy *proxy, struct resp_writer *text)
{
    info_line(text, "# Nearcached");
    put_process(proxy, text);
    put_nodes(text);
    put_coherence(proxy, text);
    put_tier(proxy, text);
    put_overload(proxy, text);
    audit_report_info(front_self()->config, text);
}
