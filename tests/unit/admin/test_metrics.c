/*
 * test_metrics.c - proves of metrics.h and exposition.h: every line of the table stands in the
 * exposition, once per label set; HELP and TYPE stand once per name, directly before the name's
 * samples; values are those of the facts and counters, in base units; OpenMetrics is worded as its
 * specification asks, and chosen by who prefers it; gathering asks every worker.
 */
#include "admin/exposition.h"

#include "admin_testing.h"
#include "upstream/tracking_tables.h"

#include <event2/event.h>

static struct metric_node a_node = {
    .name = "10.0.0.7:6379", .is_master = true, .has_watermark = true};
static struct metric_worker a_worker;
static const struct metrics_facts no_facts = {
    .nodes = &a_node, .n_listed_nodes = 1, .workers = &a_worker, .n_workers = 1};

static char *expose_as(const struct metrics_facts *facts, enum exposition_format format)
{
    struct evbuffer *out = evbuffer_new();
    char *text;
    size_t length;

    assert_int_equal(exposition_write(facts, format, out), 0);
    length = evbuffer_get_length(out);
    text = malloc(length + 1);
    assert_non_null(text);
    assert_int_equal(evbuffer_remove(out, text, length), length);
    text[length] = '\0';
    evbuffer_free(out);
    return text;
}

/* The exposition as a string; the caller frees it. */
static char *expose(const struct metrics_facts *facts)
{
    return expose_as(facts, EXPOSITION_TEXT);
}

/* How often a line begins with this. */
static unsigned count_lines(const char *text, const char *beginning)
{
    unsigned n = 0;

    for (const char *at = text; at != NULL && *at != '\0';) {
        n += strncmp(at, beginning, strlen(beginning)) == 0;
        at = strchr(at, '\n');
        at = at != NULL ? at + 1 : NULL;
    }
    return n;
}

static double value_of(const char *text, const char *sample)
{
    char beginning[256];
    const char *at;

    snprintf(beginning, sizeof(beginning), "\n%s ", sample);
    at = strstr(text, beginning);
    if (at == NULL) {
        fail_msg("no sample %s", sample);
    }
    return strtod(at + strlen(beginning), NULL);
}

/* "nearcached_NAME{labels}" of a line, and of namespace default where it has namespaces. */
static void sample_of(const struct metric_line *line, const char *suffix, char out[256])
{
    char labels[200];

    snprintf(labels, sizeof(labels), "%s%s%s", line->is_by_namespace ? "namespace=\"default\"" : "",
             line->is_by_namespace && line->labels[0] != '\0' ? "," : "", line->labels);
    snprintf(out, 256, "%s%s%s%s%s%s ", metric_line_prefix(line), line->name, suffix,
             labels[0] != '\0' ? "{" : "", labels, labels[0] != '\0' ? "}" : "");
}

static void every_line_of_the_table_is_exposed_exactly_once(void **state)
{
    char *text = expose(&no_facts);
    const struct metric_line *line;
    char sample[256];
    unsigned n = 0;

    (void)state;
    for (; (line = metric_line_at(n)) != NULL; n++) {
        const bool is_histogram = line->kind == METRIC_HISTOGRAM;

        if (line->kind == METRIC_GAUGE_LIST || line->kind == METRIC_COUNTER_LIST) {
            snprintf(sample, sizeof(sample), "nearcached_%s{", line->name);
            assert_in_range(count_lines(text, sample), 1, 3);
            continue;
        }
        sample_of(line, is_histogram ? "_count" : "", sample);
        assert_int_equal(count_lines(text, sample), 1);
        if (is_histogram) {
            sample_of(line, "_sum", sample);
            assert_int_equal(count_lines(text, sample), 1);
        }
    }
    assert_true(n > 80);
    free(text);
}

/* The name that a line is about: behind "# HELP " and "# TYPE ", or before labels or value. */
static void name_of(const char *line, char out[128])
{
    const char *begin = strncmp(line, "# ", 2) == 0 ? line + 7 : line;
    const size_t length = strcspn(begin, "{ ");

    assert_true(length < 128);
    memcpy(out, begin, length);
    out[length] = '\0';
}

static bool belongs_to(const char *sample, const char *family)
{
    const size_t length = strlen(family);

    return strncmp(sample, family, length) == 0 &&
           (sample[length] == '\0' || strcmp(sample + length, "_bucket") == 0 ||
            strcmp(sample + length, "_sum") == 0 || strcmp(sample + length, "_count") == 0);
}

static void help_and_type_come_once_and_directly_before_their_samples(void **state)
{
    char *text = expose(&no_facts);
    char family[128] = "", name[128], header[160];
    bool has_type = false;

    (void)state;
    for (char *rest = text, *line; (line = strsep(&rest, "\n")) != NULL && rest != NULL;) {
        name_of(line, name);
        if (strncmp(line, "# HELP ", 7) == 0) {
            strcpy(family, name);
            has_type = false;
        } else if (strncmp(line, "# TYPE ", 7) == 0) {
            assert_string_equal(name, family);
            assert_false(has_type);
            has_type = true;
        } else {
            assert_true(has_type);
            assert_true(belongs_to(name, family));
        }
        assert_true(strncmp(name, "nearcached_", strlen("nearcached_")) == 0 ||
                    strncmp(name, "process_", strlen("process_")) == 0);
    }
    free(text);
    text = expose(&no_facts);
    for (unsigned i = 0; metric_line_at(i) != NULL; i++) {
        snprintf(header, sizeof(header), "# HELP %s%s ", metric_line_prefix(metric_line_at(i)),
                 metric_line_at(i)->name);
        assert_int_equal(count_lines(text, header), 1);
        snprintf(header, sizeof(header), "# TYPE %s%s ", metric_line_prefix(metric_line_at(i)),
                 metric_line_at(i)->name);
        assert_int_equal(count_lines(text, header), 1);
    }
    free(text);
}

static void texts_of_the_table_need_no_escaping(void **state)
{
    (void)state;
    for (unsigned i = 0; metric_line_at(i) != NULL; i++) {
        assert_null(strpbrk(metric_line_at(i)->help, "\\\n"));
        assert_null(strpbrk(metric_line_at(i)->labels, "\\\n"));
    }
}

static void counters_show_what_was_counted_and_only_that(void **state)
{
    char *before = expose(&no_facts);
    char *after;

    (void)state;
    stats_add(METRIC_redirects_ask, 3);
    stats_ns_add(1, NS_METRIC_misses_stale, 4);
    after = expose(&no_facts);
    assert_int_equal((int)(value_of(after, "nearcached_redirects_total{kind=\"ask\"}") -
                           value_of(before, "nearcached_redirects_total{kind=\"ask\"}")),
                     3);
    assert_int_equal((int)value_of(after, "nearcached_misses_total{namespace=\"session\","
                                          "reason=\"stale-refused\"}"),
                     4);
    assert_int_equal((int)value_of(after, "nearcached_misses_total{namespace=\"default\","
                                          "reason=\"stale-refused\"}"),
                     0);
    assert_int_equal((int)value_of(after, "nearcached_redirects_total{kind=\"moved\"}"), 0);
    assert_int_equal(metric_total("misses_total"), 4);
    free(before);
    free(after);
}

static void gauges_show_the_facts_in_base_units(void **state)
{
    struct metrics_facts facts = {.n_clients = 12,
                                  .n_links_down = 5,
                                  .is_ready = true,
                                  .staleness_bound_ms = 250,
                                  .watermark_age_us = 50000,
                                  .n_log_dropped = 9};
    char *text;

    (void)state;
    facts.cache.accounted_bytes = 123456789012345;
    facts.namespaces[1].n_entries = 77;
    text = expose(&facts);
    assert_int_equal((int)value_of(text, "nearcached_clients"), 12);
    assert_int_equal((int)value_of(text, "nearcached_backend_links{state=\"down\"}"), 5);
    assert_int_equal((int)value_of(text, "nearcached_backend_links{state=\"up\"}"), 0);
    assert_int_equal((int)value_of(text, "nearcached_ready"), 1);
    assert_int_equal((int)value_of(text, "nearcached_log_lines_dropped"), 9);
    assert_int_equal((int)value_of(text, "nearcached_entries{namespace=\"session\"}"), 77);
    assert_int_equal((int)value_of(text, "nearcached_entries{namespace=\"default\"}"), 0);
    assert_non_null(strstr(text, "\nnearcached_staleness_bound_seconds 0.25\n"));
    assert_non_null(strstr(text, "\nnearcached_watermark_age_seconds 0.05\n"));
    assert_non_null(strstr(text, "\nnearcached_memory_bytes 123456789012345\n"));
    free(text);
}

static void histograms_are_cumulative_and_in_seconds(void **state)
{
    const char *of_misses = "namespace=\"session\",outcome=\"miss\"";
    char sample[160];
    char *text;

    (void)state;
    stats_ns_observe(1, NS_HISTOGRAM_latency_miss, 150, 2);
    stats_ns_observe(1, NS_HISTOGRAM_latency_miss, 20 * 1000 * 1000, 1);
    text = expose(&no_facts);
    snprintf(sample, sizeof(sample), "nearcached_request_duration_seconds_bucket{%s,le=\"0.0001\"}",
             of_misses);
    assert_int_equal((int)value_of(text, sample), 0);
    snprintf(sample, sizeof(sample), "nearcached_request_duration_seconds_bucket{%s,le=\"0.0002\"}",
             of_misses);
    assert_int_equal((int)value_of(text, sample), 2);
    snprintf(sample, sizeof(sample), "nearcached_request_duration_seconds_bucket{%s,le=\"10\"}",
             of_misses);
    assert_int_equal((int)value_of(text, sample), 2);
    snprintf(sample, sizeof(sample), "nearcached_request_duration_seconds_bucket{%s,le=\"+Inf\"}",
             of_misses);
    assert_int_equal((int)value_of(text, sample), 3);
    snprintf(sample, sizeof(sample), "nearcached_request_duration_seconds_sum{%s}", of_misses);
    assert_true(value_of(text, sample) > 20.0002 && value_of(text, sample) < 20.0004);
    free(text);
}

static void openmetrics_is_worded_as_specified(void **state)
{
    char *text = expose_as(&no_facts, EXPOSITION_OPENMETRICS);
    const size_t length = strlen(text);

    (void)state;
    assert_true(length > 6 && strcmp(text + length - 6, "# EOF\n") == 0);
    assert_int_equal(count_lines(text, "# EOF"), 1);
    assert_int_equal(count_lines(text, "# TYPE nearcached_misses counter"), 1);
    assert_int_equal(count_lines(text, "nearcached_misses_total{"), 2 * 9);
    assert_int_equal(count_lines(text, "# UNIT nearcached_request_duration_seconds seconds"), 1);
    assert_int_equal(count_lines(text, "# UNIT nearcached_client_read_bytes bytes"), 1);
    assert_int_equal(count_lines(text, "# TYPE process_cpu_seconds counter"), 1);
    assert_int_equal(count_lines(text, "nearcached_bus_lag_seconds_bucket{le=\"1.0\"} "), 1);
    assert_int_equal(count_lines(text, "nearcached_bus_lag_seconds_bucket{le=\"0.5\"} "), 1);
    assert_int_equal(count_lines(text, "# TYPE nearcached_bus_lag_seconds histogram"), 1);
    free(text);
}

/* Without "_total" no counter is called as another metric. */
static void families_have_one_name_each(void **state)
{
    const struct metric_line *line, *other;

    (void)state;
    for (unsigned i = 0; (line = metric_line_at(i)) != NULL; i++) {
        const size_t length = strlen(line->name) - strlen("_total");

        if (strcmp(metric_line_type(line), "counter") != 0) {
            continue;
        }
        assert_string_equal(line->name + length, "_total");
        for (unsigned k = 0; (other = metric_line_at(k)) != NULL; k++) {
            if (strlen(other->name) == length && memcmp(other->name, line->name, length) == 0 &&
                other->is_standard == line->is_standard) {
                fail_msg("%s and %s", line->name, other->name);
            }
        }
    }
}

static void the_format_is_what_the_client_prefers(void **state)
{
    static const struct {
        const char *accept;
        enum exposition_format format;
    } cases[] = {
        {NULL, EXPOSITION_TEXT},
        {"", EXPOSITION_TEXT},
        {"*/*", EXPOSITION_TEXT},
        {"text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", EXPOSITION_TEXT},
        {"application/openmetrics-text", EXPOSITION_OPENMETRICS},
        {"application/openmetrics-text; version=1.0.0; charset=utf-8", EXPOSITION_OPENMETRICS},
        {"application/openmetrics-text;version=\t0.0.1", EXPOSITION_TEXT},
        {"application/openmetrics-text;version=1.0.0;q=0", EXPOSITION_TEXT},
        {"APPLICATION/OpenMetrics-Text;Version=1.0.0;Q=0.7, text/plain;q=0.3",
         EXPOSITION_OPENMETRICS},
        {"text/plain;version=0.0.4;q=0.9, application/openmetrics-text;q=0.8", EXPOSITION_TEXT},
        {"text/plain, application/openmetrics-text", EXPOSITION_TEXT},
        {"application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;"
         "q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
         EXPOSITION_OPENMETRICS},
        {"application/*;q=0.5", EXPOSITION_OPENMETRICS},
        {",;=,;;q=,q", EXPOSITION_TEXT},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (exposition_choose(cases[i].accept) != cases[i].format) {
            fail_msg("Accept: %s", cases[i].accept);
        }
    }
}

static void labels_come_one_by_one(void **state)
{
    const char *labels = "node=\"a\\\"b,c\",state=\"up\"";
    struct bytes name, value;

    (void)state;
    assert_true(metric_label_next(&labels, &name, &value));
    assert_true(bytes_equal(name, BYTES("node")) && bytes_equal(value, BYTES("a\\\"b,c")));
    assert_true(metric_label_next(&labels, &name, &value));
    assert_true(bytes_equal(name, BYTES("state")) && bytes_equal(value, BYTES("up")));
    assert_false(metric_label_next(&labels, &name, &value));
    labels = "";
    assert_false(metric_label_next(&labels, &name, &value));
}

static void keep_facts(const struct metrics_facts *facts, void *context)
{
    *(struct metrics_facts *)context = *facts;
}

static void gathering_asks_workers_cache_and_process(void **state)
{
    const int64_t deadline_ms = clock_now_ms() + RIG_PATIENCE_MS;
    struct metrics_facts facts = {.uptime_us = -1};

    (void)state;
    rig_fill("session:1", "$1\r\nx\r\n", 1);
    atomic_store(&rig.proxy.n_clients, 3);
    metrics_gather(&rig.proxy, keep_facts, &facts);
    while (facts.uptime_us < 0 && clock_now_ms() < deadline_ms) {
        rig_turn(-1);
    }
    assert_true(facts.uptime_us >= 0);
    assert_int_equal(facts.n_clients, 3);
    assert_int_equal(facts.max_clients, 100);
    assert_int_equal(facts.staleness_bound_ms, 700);
    assert_true(facts.is_tracking);
    assert_false(facts.is_ready);
    assert_int_equal(facts.n_links_up, 0);
    assert_int_equal(facts.n_nodes, 0);
    assert_int_equal(facts.cache.n_entries, 1);
    assert_int_equal(facts.namespaces[1].n_entries, 1);
    assert_true(facts.namespaces[1].n_bytes > 0);
    assert_int_equal(facts.namespaces[0].n_entries, 0);
    assert_true(facts.process.resident_bytes > 100 * 1024);
    assert_true(facts.heap.allocated > 0);
    assert_in_range(facts.watermark_age_us, 0, RIG_PATIENCE_MS * 1000);
    assert_int_equal(facts.n_workers, RIG_WORKERS);
    assert_true(facts.process.n_open_fds > 3 && facts.process.n_open_fds < facts.process.max_fds);
    assert_true(facts.process.n_threads > RIG_WORKERS);
    assert_true(facts.process.started_at_unix <= (double)clock_unix_us() / 1e6 + 1);
    assert_true(facts.process.started_at_unix > (double)clock_unix_us() / 1e6 - 600);
    assert_true(facts.heap.resident >= facts.heap.active);
    atomic_store(&rig.proxy.n_clients, 0);
}

/* A link in ttl mode on any worker is the whole proxy's bound. */
static void ttl_links_change_the_mode_and_the_bound(void **state)
{
    _Atomic unsigned *n_ttl_links = &rig.proxy.fronts[1].coherence.n_ttl_links;
    const int64_t deadline_ms = clock_now_ms() + RIG_PATIENCE_MS;
    struct metrics_facts facts = {.uptime_us = -1};

    (void)state;
    atomic_store(n_ttl_links, 1);
    metrics_gather(&rig.proxy, keep_facts, &facts);
    while (facts.uptime_us < 0 && clock_now_ms() < deadline_ms) {
        rig_turn(-1);
    }
    atomic_store(n_ttl_links, 0);
    assert_false(facts.is_tracking);
    assert_int_equal(facts.staleness_bound_ms, 900);
}

static int start(void **state)
{
    (void)state;
    rig_start("[coherence]\nmax-staleness = 700ms\nttl-mode-max = 900ms\n"
              "[namespace \"session\"]\nmatch = session:*\n");
    return 0;
}

static int stop(void **state)
{
    (void)state;
    rig_stop();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_line_of_the_table_is_exposed_exactly_once),
        cmocka_unit_test(help_and_type_come_once_and_directly_before_their_samples),
        cmocka_unit_test(texts_of_the_table_need_no_escaping),
        cmocka_unit_test(counters_show_what_was_counted_and_only_that),
        cmocka_unit_test(gauges_show_the_facts_in_base_units),
        cmocka_unit_test(histograms_are_cumulative_and_in_seconds),
        cmocka_unit_test(openmetrics_is_worded_as_specified),
        cmocka_unit_test(families_have_one_name_each),
        cmocka_unit_test(the_format_is_what_the_client_prefers),
        cmocka_unit_test(labels_come_one_by_one),
        cmocka_unit_test(gathering_asks_workers_cache_and_process),
        cmocka_unit_test(ttl_links_change_the_mode_and_the_bound),
    };

    tracking_tables_note_keys(a_node.id, 7);
    tracking_tables_note_limit(a_node.id, 1000);

    return cmocka_run_group_tests(tests, start, stop);
}
