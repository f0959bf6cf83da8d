/*
 * Design: cumulative values as they were read stand in the rings, eight bytes each; differences and
 * quantiles are made when somebody asks. A series is a line of the metric table, summed over
 * namespaces, whose name is in kept[]: lines that a metric gets later come with it.
 */
#include "admin/history.h"

#include <math.h>
#include <string.h>

#include "admin/samples.h"
#include "base/clock.h"
#include "base/mem.h"

#define HISTORY_MAGIC 0x68697374u

static const char *const kept[] = {
    "requests_total",
    "hits_total",
    "negative_hits_total",
    "misses_total",
    "stale_served_total",
    "bypassed_total",
    "grace_hits_total",
    "fetches_total",
    "coalesced_total",
    "commands_total",
    "commands_relayed_total",
    "errors_total",
    "evictions_total",
    "expirations_total",
    "invalidations_total",
    "audits_total",
    "backend_commands_total",
    "backend_read_bytes_total",
    "client_written_bytes_total",
    "request_duration_seconds",
    "entries",
    "memory_bytes",
    "memory_budget_bytes",
    "process_resident_bytes",
    "clients",
};

union slot {
    uint64_t count;
    double number;
};

/* Of a histogram STATS_BUCKETS slots, else one. */
struct series {
    const struct metric_line *line;
    unsigned at, n_slots;
};

struct history {
    uint32_t magic;
    struct proxy *proxy;
    struct event *event;
    bool is_gathering, is_stopped;

    struct series *series;
    unsigned n_series, n_slots;
    union slot *slots;                  /* HISTORY_POINTS rows of n_slots */
    int64_t at_unix_ms[HISTORY_POINTS]; /* by row */
    uint64_t n_taken;                   /* rows ever */
    int64_t ns_at_unix_ms[HISTORY_NS_POINTS];
    uint64_t n_ns_taken;
    struct trend_reads *of_namespaces[STATS_NAMESPACES]; /* HISTORY_NS_POINTS; NULL: not yet */
};

/* ---- life ---- */

static bool is_kept(const char *name)
{
    for (unsigned i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
        if (strcmp(kept[i], name) == 0) {
            return true;
        }
    }
    return false;
}

struct history *history_new(void)
{
    struct history *history = mem_alloc(sizeof(*history));
    const struct metric_line *line;
    unsigned n = 0;

    history->magic = HISTORY_MAGIC;
    while (metric_line_at(n) != NULL) {
        n++;
    }
    history->series = mem_alloc(n * sizeof(history->series[0]));
    for (unsigned i = 0; (line = metric_line_at(i)) != NULL; i++) {
        if (is_kept(line->name)) {
            struct series *series = &history->series[history->n_series++];

            series->line = line;
            series->at = history->n_slots;
            series->n_slots = line->kind == METRIC_HISTOGRAM ? STATS_BUCKETS : 1;
            history->n_slots += series->n_slots;
        }
    }
    history->slots = mem_alloc((size_t)HISTORY_POINTS * history->n_slots *
                               sizeof(history->slots[0]));
    return history;
}

void history_free(struct history **history)
{
    if (*history == NULL) {
        return;
    }
    for (unsigned ns = 0; ns < STATS_NAMESPACES; ns++) {
        mem_free((*history)->of_namespaces[ns]);
    }
    mem_free((*history)->series);
    mem_free((*history)->slots);
    (*history)->magic = 0;
    mem_free(*history);
    *history = NULL;
}

/* ---- taking ---- */

static union slot *row_of(const struct history *history, uint64_t number)
{
    return &history->slots[(size_t)(number % HISTORY_POINTS) * history->n_slots];
}

/* While the table is walked. */
struct taking {
    struct history *history;
    union slot *row;
    const struct metric_line *line; /* of the last sample */
    struct series *series;          /* of that line; NULL: it is not kept */
};

static struct series *find_series(const struct history *history, const struct metric_line *line)
{
    for (unsigned i = 0; i < history->n_series; i++) {
        if (history->series[i].line == line) {
            return &history->series[i];
        }
    }
    return NULL;
}

static void add_sample(const struct metric_sample *sample, void *context)
{
    struct taking *taking = context;
    union slot *slot;

    if (sample->line != taking->line) {
        taking->line = sample->line;
        taking->series = find_series(taking->history, sample->line);
    }
    if (taking->series == NULL) {
        return;
    }
    slot = &taking->row[taking->series->at];
    switch (sample->form) {
    case METRIC_COUNT:
        slot->count += sample->count;
        break;
    case METRIC_NUMBER:
        slot->number += sample->number;
        break;
    case METRIC_BUCKETS:
        for (unsigned i = 0; i < STATS_BUCKETS; i++) {
            slot[i].count += sample->buckets[i];
        }
        break;
    }
}

static void take_namespaces(struct history *history, int64_t at_unix_ms)
{
    const unsigned at = (unsigned)(history->n_ns_taken % HISTORY_NS_POINTS);

    for (unsigned ns = 0; ns < config_namespace_count(); ns++) {
        struct trend_reads **ring = &history->of_namespaces[ns];

        if (*ring == NULL) {
            *ring = mem_alloc(HISTORY_NS_POINTS * sizeof(**ring));
        }
        (*ring)[at].n_hits = samples_total("hits_total", (int)ns);
        (*ring)[at].n_misses = samples_total("misses_total", (int)ns);
    }
    history->ns_at_unix_ms[at] = at_unix_ms;
    history->n_ns_taken++;
}

void history_take(struct history *history, const struct metrics_facts *facts, int64_t at_unix_ms)
{
    struct taking taking = {.history = history, .row = row_of(history, history->n_taken)};

    memset(taking.row, 0, history->n_slots * sizeof(*taking.row));
    metrics_visit(facts, add_sample, &taking);
    if (history->n_taken % HISTORY_COARSE == 0) {
        take_namespaces(history, at_unix_ms);
    }
    history->at_unix_ms[history->n_taken % HISTORY_POINTS] = at_unix_ms;
    history->n_taken++;
}

/* ---- the clock ---- */

static void on_gathered(const struct metrics_facts *facts, void *context)
{
    struct history *history = OBJ_FROM(context, struct history, HISTORY_MAGIC);

    history->is_gathering = false;
    if (!history->is_stopped) {
        history_take(history, facts, clock_unix_ms());
    }
}

/* A worker that hangs must not have mail heaped up before it. */
static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct history *history = OBJ_FROM(arg, struct history, HISTORY_MAGIC);

    (void)fd;
    (void)what;
    if (!history->is_gathering) {
        history->is_gathering = true;
        metrics_gather(history->proxy, on_gathered, history);
    }
}

void history_start(struct history *history, struct proxy *proxy)
{
    const struct timeval step = {HISTORY_STEP_MS / 1000, HISTORY_STEP_MS % 1000 * 1000};

    history->proxy = proxy;
    history->event = event_new(proxy->control->base, -1, EV_PERSIST, on_timer, history);
    CHECK(history->event != NULL);
    event_add(history->event, &step);
    on_timer(-1, 0, history);
}

void history_stop(struct history *history)
{
    if (history != NULL && history->event != NULL) {
        event_free(history->event);
        history->event = NULL;
        history->is_stopped = true;
    }
}

/* ---- trends ---- */

static struct trend_reads reads_between(const struct trend_reads *ring, uint64_t from, uint64_t to)
{
    const struct trend_reads *a = &ring[from % HISTORY_NS_POINTS];
    const struct trend_reads *b = &ring[to % HISTORY_NS_POINTS];

    return (struct trend_reads){b->n_hits - a->n_hits, b->n_misses - a->n_misses};
}

struct trend history_trend(const struct history *history, unsigned ns)
{
    const struct trend_reads *ring = history->of_namespaces[ns];
    const uint64_t n = history->n_ns_taken;
    const uint64_t n_held = n < HISTORY_NS_POINTS ? n : HISTORY_NS_POINTS;
    const uint64_t span = n_held > 0 ? (n_held - 1) / 2 : 0;
    const struct trend_reads none = {0, 0};

    if (ring == NULL || span == 0) {
        return trend_judge(none, none, 0);
    }
    return trend_judge(reads_between(ring, n - 1 - 2 * span, n - 1 - span),
                       reads_between(ring, n - 1 - span, n - 1),
                       (int64_t)span * HISTORY_COARSE * HISTORY_STEP_MS);
}

/* ---- telling ---- */

/* Rows first .. n_taken - 1 are told, each as what came since the row before it. */
struct window {
    const struct history *history;
    uint64_t first;
};

static uint64_t oldest(uint64_t n_taken, unsigned n_points)
{
    return n_taken > n_points ? n_taken - n_points : 0;
}

/* The first row behind since_unix_ms that has one before it. */
static uint64_t first_since(const int64_t *at_unix_ms, uint64_t n_taken, unsigned n_points,
                            int64_t since_unix_ms)
{
    const uint64_t end = oldest(n_taken, n_points) + 1;
    uint64_t first = n_taken;

    while (first > end && at_unix_ms[(first - 1) % n_points] > since_unix_ms) {
        first--;
    }
    return first;
}

static json_t *json_of_instants(const int64_t *at_unix_ms, unsigned n_points, uint64_t first,
                                uint64_t n_taken)
{
    json_t *list = json_array();

    for (uint64_t i = first; i < n_taken; i++) {
        json_array_append_new(list, json_integer((json_int_t)at_unix_ms[i % n_points]));
    }
    return list;
}

/* Sizes and the like are whole numbers, and shorter so. */
static json_t *json_of_number(double number)
{
    return fabs(number) < 1e15 && number == floor(number) ? json_integer((json_int_t)number)
                                                          : json_real(number);
}

static void put_values(const struct window *window, const struct series *series, json_t *json)
{
    json_t *values = json_array();

    for (uint64_t i = window->first; i < window->history->n_taken; i++) {
        const union slot now = row_of(window->history, i)[series->at];
        const union slot before = row_of(window->history, i - 1)[series->at];

        json_array_append_new(values, series->line->kind == METRIC_COUNTER
                                          ? json_integer((json_int_t)(now.count - before.count))
                                          : json_of_number(now.number));
    }
    json_object_set_new(json, "values", values);
}

static void put_latencies(const struct window *window, const struct series *series, json_t *json)
{
    static const struct {
        const char *name;
        double quantile;
    } all[] = {{"p50_us", 0.5}, {"p95_us", 0.95}, {"p99_us", 0.99}};
    json_t *lists[3] = {json_array(), json_array(), json_array()};
    json_t *counts = json_array();

    for (uint64_t i = window->first; i < window->history->n_taken; i++) {
        const union slot *now = &row_of(window->history, i)[series->at];
        const union slot *before = &row_of(window->history, i - 1)[series->at];
        uint64_t buckets[STATS_BUCKETS];

        for (unsigned b = 0; b < STATS_BUCKETS; b++) {
            buckets[b] = now[b].count - before[b].count;
        }
        json_array_append_new(counts, json_integer((json_int_t)buckets[STATS_BUCKETS - 1]));
        for (unsigned q = 0; q < 3; q++) {
            const double us = samples_quantile_us(buckets, all[q].quantile);

            json_array_append_new(lists[q], us < 0 ? json_null() : json_integer(llround(us)));
        }
    }
    json_object_set_new(json, "count", counts);
    for (unsigned q = 0; q < 3; q++) {
        json_object_set_new(json, all[q].name, lists[q]);
    }
}

static json_t *json_of_series(const struct window *window, const struct series *series)
{
    json_t *json = json_pack("{s:o, s:s, s:o}", "name", samples_name(series->line), "type",
                             metric_line_type(series->line), "labels",
                             samples_labels(series->line->labels));

    if (series->line->kind == METRIC_HISTOGRAM) {
        put_latencies(window, series, json);
    } else {
        put_values(window, series, json);
    }
    return json;
}

static json_t *json_of_namespaces(const struct history *history, int64_t since_unix_ms)
{
    const uint64_t n = history->n_ns_taken;
    const uint64_t first = first_since(history->ns_at_unix_ms, n, HISTORY_NS_POINTS, since_unix_ms);
    json_t *rows = json_array();

    for (unsigned ns = 0; ns < config_namespace_count(); ns++) {
        const struct trend_reads *ring = history->of_namespaces[ns];
        json_t *hits = json_array(), *misses = json_array();

        for (uint64_t i = first; ring != NULL && i < n; i++) {
            const struct trend_reads reads = reads_between(ring, i - 1, i);

            json_array_append_new(hits, json_integer((json_int_t)reads.n_hits));
            json_array_append_new(misses, json_integer((json_int_t)reads.n_misses));
        }
        json_array_append_new(rows, json_pack("{s:s, s:o, s:o}", "name", config_namespace_name(ns),
                                              "hits", hits, "misses", misses));
    }
    return json_pack(
        "{s:i, s:o, s:o}", "step_ms", (int)HISTORY_COARSE * HISTORY_STEP_MS, "at_unix_ms",
        json_of_instants(history->ns_at_unix_ms, HISTORY_NS_POINTS, first, n), "rows", rows);
}

json_t *history_json(const struct history *history, int64_t since_unix_ms)
{
    const struct window window = {
        history, first_since(history->at_unix_ms, history->n_taken, HISTORY_POINTS, since_unix_ms)};
    json_t *series = json_array();

    for (unsigned i = 0; i < history->n_series; i++) {
        json_array_append_new(series, json_of_series(&window, &history->series[i]));
    }
    return json_pack(
        "{s:i, s:o, s:o, s:o}", "step_ms", HISTORY_STEP_MS, "at_unix_ms",
        json_of_instants(history->at_unix_ms, HISTORY_POINTS, window.first, history->n_taken),
        "series", series, "namespaces", json_of_namespaces(history, since_unix_ms));
}
