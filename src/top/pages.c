#include "top/pages.h"

#include "base/check.h"

#include <math.h>
#include <string.h>
#include <strings.h>

#define LEN(array) (sizeof(array) / sizeof((array)[0]))

/* -- the summary -- */

/* Of the process, per second. */
static double rate(const struct interval *interval, const char *path)
{
    const json_t *before = interval->before == NULL ? NULL : interval->before->status;

    return interval_rate(interval, interval->now->status, before, path);
}

/* Of all members of an object of counters. */
static double rate_of_all(const struct interval *interval, const char *path)
{
    const json_t *now = reading_at(interval->now->status, path);
    const json_t *before = interval->before == NULL ? NULL
                                                    : reading_at(interval->before->status, path);
    double sum = 0;
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)now, name, value)
    {
        (void)value;
        sum += interval_rate(interval, now, before, name);
    }
    return sum;
}

static double ratio_of(double hits, double misses)
{
    return hits + misses > 0 ? hits / (hits + misses) : (double)NAN;
}

/* A figure in its form; up to eight of them may be in use at once. */
static const char *shown(enum table_form form, double figure)
{
    static char texts[8][32];
    static unsigned next;
    char *text = texts[next++ % LEN(texts)];

    table_format(form, figure, text);
    return text;
}

static const char *duration(double ms, char out[32])
{
    const unsigned long s = isnan(ms) ? 0 : (unsigned long)(ms / 1000);

    if (s >= 86400) {
        snprintf(out, 32, "%lud %02luh", s / 86400, s / 3600 % 24);
    } else {
        snprintf(out, 32, "%luh %02lum %02lus", s / 3600, s / 60 % 60, s % 60);
    }
    return out;
}

static void print_warnings(const struct interval *interval, FILE *out)
{
    const json_t *status = interval->now->status;
    const double stale = reading_number(status, "audit.stale_ratio");
    const double open = reading_number(status, "backend.breakers.open");

    if (!json_is_true(reading_at(status, "ready"))) {
        fprintf(out, "! not ready: %s\n", reading_text(status, "ready_text"));
    }
    if (strcmp(reading_text(status, "mode"), "on") != 0) {
        fprintf(out, "! mode %s\n", reading_text(status, "mode"));
    }
    if (json_is_true(reading_at(status, "dry_run"))) {
        fprintf(out, "! dry run: every reply is the backend's\n");
    }
    if (open > 0) {
        fprintf(out, "! %.0f of the nodes' breakers open\n", open);
    }
    if (strcmp(reading_text(status, "memory.pressure"), "none") != 0) {
        fprintf(out, "! memory pressure: %s\n", reading_text(status, "memory.pressure"));
    }
    if (stale > 0) {
        fprintf(out, "! the auditor found stale answers: %.4f %%\n", 100 * stale);
    }
}

static void print_latency(const struct interval *interval, FILE *out)
{
    static const char *const outcomes[] = {"hit", "miss", "relayed"};

    fprintf(out, "latency p50/p95/p99 us");
    for (size_t i = 0; i < LEN(outcomes); i++) {
        fprintf(out, "   %s", outcomes[i]);
        for (unsigned p = 0; p < 3; p++) {
            static const double quantiles[] = {0.5, 0.95, 0.99};
            const double us = interval_quantile_us(interval, outcomes[i], quantiles[p]);

            fprintf(out, "%s%s", p == 0 ? " " : "/", shown(FORM_COUNT, us));
        }
    }
    fputc('\n', out);
}

void page_summary(const struct interval *interval, const char *address, FILE *out)
{
    const json_t *status = interval->now->status;
    const double hits = rate(interval, "requests.hits"), misses = rate(interval, "requests.misses");
    const double bound = reading_number(status, "memory.process_limit_bytes");
    char uptime[32];

    fprintf(out, "nearcached %s at %s   up %s   %s, coherence %s within %s   %s\n",
            reading_text(status, "version"), address,
            duration(reading_number(status, "uptime_ms"), uptime),
            json_is_true(reading_at(status, "ready")) ? "ready" : "NOT READY",
            reading_text(status, "coherence.mode"),
            shown(FORM_MS, reading_number(status, "coherence.bound_ms")),
            interval->before == NULL ? "(since the start)" : "");
    print_warnings(interval, out);
    fprintf(out, "hit ratio %s   hits/s %s   misses/s %s   relayed/s %s   errors/s %s\n",
            shown(FORM_PERCENT, ratio_of(hits, misses)), shown(FORM_RATE, hits),
            shown(FORM_RATE, misses), shown(FORM_RATE, rate(interval, "requests.relayed")),
            shown(FORM_RATE, rate_of_all(interval, "requests.errors_by_kind")));
    print_latency(interval, out);
    fprintf(out, "tier 1 %s of %s   %s entries   evictions/s %s   process %s%s%s\n",
            shown(FORM_BYTES, reading_number(status, "memory.tier1_bytes")),
            shown(FORM_BYTES, reading_number(status, "memory.tier1_limit_bytes")),
            shown(FORM_COUNT, reading_number(status, "memory.entries")),
            shown(FORM_RATE, rate(interval, "invalidations.evictions")),
            shown(FORM_BYTES, reading_number(status, "memory.process_bytes")),
            bound > 0 ? " of " : "", bound > 0 ? shown(FORM_BYTES, bound) : "");
    fprintf(
        out,
        "clients %s   nodes %s   links up %s, down %s   bus %s, peers %s   invalidations/s %s\n",
        shown(FORM_COUNT, reading_number(status, "clients.open")),
        shown(FORM_COUNT, reading_number(status, "backend.nodes")),
        shown(FORM_COUNT, reading_number(status, "backend.links_up")),
        shown(FORM_COUNT, reading_number(status, "backend.links_down")),
        reading_text(status, "bus.state"), shown(FORM_COUNT, reading_number(status, "bus.peers")),
        shown(FORM_RATE, rate(interval, "invalidations.total")));
}

/* -- the tables -- */

static const struct table_column namespace_columns[] = {
    {"NAMESPACE", FORM_TEXT}, {"READS/S", FORM_RATE},  {"HITS", FORM_PERCENT},
    {"TREND", FORM_TEXT},     {"MISSES/S", FORM_RATE}, {"FETCHES/S", FORM_RATE},
    {"SHARED/S", FORM_RATE},  {"STALE/S", FORM_RATE},  {"EVICTED/S", FORM_RATE},
    {"ENTRIES", FORM_COUNT},  {"BYTES", FORM_BYTES},   {"MODE", FORM_TEXT}};

static void fill_namespaces(struct table *table, const struct interval *interval)
{
    size_t i;
    json_t *row;

    json_array_foreach(interval->now->namespaces, i, row)
    {
        const json_t *before = interval->before == NULL
                                   ? NULL
                                   : reading_find(interval->before->namespaces, "name",
                                                  reading_text(row, "name"));
        const double hits = interval_rate(interval, row, before, "requests.hits");
        const double misses = interval_rate(interval, row, before, "requests.misses");
        const double bypassed = interval_rate(interval, row, before, "requests.bypassed");
        const double stale = interval_rate(interval, row, before, "requests.stale_served");

        table_row(table);
        table_text(table, reading_text(row, "name"));
        table_figure(table, hits + misses + bypassed + stale);
        table_figure(table, ratio_of(hits, misses));
        table_text(table, reading_text(row, "trend.direction"));
        table_figure(table, misses);
        table_figure(table, interval_rate(interval, row, before, "fetches"));
        table_figure(table, interval_rate(interval, row, before, "coalesced"));
        table_figure(table, stale);
        table_figure(table, interval_rate(interval, row, before, "evictions"));
        table_figure(table, reading_number(row, "entries"));
        table_figure(table, reading_number(row, "bytes"));
        table_text(table, json_is_false(reading_at(row, "cached")) ? "not cached"
                                                                   : reading_text(row, "mode"));
    }
}

static const struct table_column node_columns[] = {
    {"NODE", FORM_TEXT},      {"ROLE", FORM_TEXT},      {"SLOTS", FORM_COUNT},
    {"BREAKER", FORM_TEXT},   {"COHERENCE", FORM_TEXT}, {"WATERMARK", FORM_MS},
    {"LINKS UP", FORM_COUNT}, {"DOWN", FORM_COUNT},     {"ERROR", FORM_TEXT}};

static double links(const json_t *node, const char *state)
{
    static const char *const kinds[] = {"links.tracking.", "links.relay."};
    double sum = 0;

    for (size_t i = 0; i < LEN(kinds); i++) {
        char path[64];
        double n;

        snprintf(path, sizeof(path), "%s%s", kinds[i], state);
        n = reading_number(node, path);
        sum += isnan(n) ? 0 : n;
    }
    return sum;
}

static void fill_nodes(struct table *table, const struct interval *interval)
{
    size_t i;
    json_t *node;

    json_array_foreach(interval->now->nodes, i, node)
    {
        table_row(table);
        table_text(table, reading_text(node, "address"));
        table_text(table, reading_text(node, "role"));
        table_figure(table, reading_number(node, "slots"));
        table_text(table, reading_text(node, "breaker.state"));
        table_text(table, reading_text(node, "coherence.mode"));
        table_figure(table, reading_number(node, "coherence.watermark_age_ms"));
        table_figure(table, links(node, "up"));
        table_figure(table, links(node, "down"));
        table_text(table, reading_text(node, "error"));
    }
}

static const struct table_column reason_columns[] = {
    {"WHAT", FORM_TEXT}, {"BY", FORM_TEXT}, {"/S", FORM_RATE}, {"SINCE THE START", FORM_COUNT}};

static void fill_reasons(struct table *table, const struct interval *interval)
{
    static const struct {
        const char *what, *path;
    } families[] = {{"miss", "requests.misses_by_reason"},
                    {"invalidation", "invalidations.by_reason"},
                    {"error", "requests.errors_by_kind"},
                    {"stale", "audit.stale_by_cause"}};

    for (size_t i = 0; i < LEN(families); i++) {
        const json_t *now = reading_at(interval->now->status, families[i].path);
        const json_t *before = interval->before == NULL
                                   ? NULL
                                   : reading_at(interval->before->status, families[i].path);
        const char *name;
        json_t *value;

        json_object_foreach((json_t *)(uintptr_t)now, name, value)
        {
            if (json_number_value(value) > 0) {
                table_row(table);
                table_text(table, families[i].what);
                table_text(table, name);
                table_figure(table, interval_rate(interval, now, before, name));
                table_figure(table, json_number_value(value));
            }
        }
    }
}

static const struct {
    const char *name;
    const struct table_column *columns;
    unsigned n_columns, order;
    void (*fill)(struct table *table, const struct interval *interval);
} pages[N_PAGES] = {
    [PAGE_NAMESPACES] = {"namespaces", namespace_columns, LEN(namespace_columns), 1,
                         fill_namespaces},
    [PAGE_NODES] = {"nodes", node_columns, LEN(node_columns), 0, fill_nodes},
    [PAGE_REASONS] = {"reasons", reason_columns, LEN(reason_columns), 2, fill_reasons},
};

const char *page_name(enum page page)
{
    return pages[page].name;
}

unsigned page_order(enum page page)
{
    return pages[page].order;
}

unsigned page_columns(enum page page)
{
    return pages[page].n_columns;
}

int page_column(enum page page, const char *heading)
{
    for (unsigned i = 0; i < pages[page].n_columns; i++) {
        if (strcasecmp(pages[page].columns[i].title, heading) == 0) {
            return (int)i;
        }
    }
    return -1;
}

struct table *page_table(enum page page, const struct interval *interval)
{
    struct table *table = table_new(pages[page].columns, pages[page].n_columns);

    pages[page].fill(table, interval);
    return table;
}
