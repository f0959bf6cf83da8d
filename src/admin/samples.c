#include "admin/samples.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "admin/order_http.h"
#include "config/config.h"

/* ---- names and labels ---- */

json_t *samples_name(const struct metric_line *line)
{
    return json_sprintf("%s%s", metric_line_prefix(line), line->name);
}

/* As it was before it was made ready to print. */
static size_t unescape(struct bytes value, char *out, size_t size)
{
    size_t n = 0;

    for (size_t i = 0; i < value.len && n + 1 < size; i++) {
        unsigned char byte = value.ptr[i];

        if (byte == '\\' && i + 1 < value.len) {
            byte = value.ptr[++i] == 'n' ? '\n' : value.ptr[i];
        }
        out[n++] = (char)byte;
    }
    out[n] = '\0';
    return n;
}

json_t *samples_labels(const char *labels)
{
    json_t *json = json_object();
    char key[64], text[METRIC_LABELS_MAX];
    struct bytes name, value;

    while (metric_label_next(&labels, &name, &value)) {
        const size_t n = unescape(value, text, sizeof(text));

        snprintf(key, sizeof(key), "%.*s", (int)name.len, (const char *)name.ptr);
        json_object_set_new(json, key, json_of_bytes(bytes_make(text, n)));
    }
    return json;
}

const char *samples_label(const char *labels, const char *name, char out[64])
{
    struct bytes found, value;

    out[0] = '\0';
    while (metric_label_next(&labels, &found, &value)) {
        if (bytes_equal(found, bytes_of_string(name))) {
            (void)unescape(value, out, 64);
        }
    }
    return out;
}

/* ---- sums ---- */

uint64_t samples_count(const struct metric_line *line, int ns)
{
    if (line->kind != METRIC_COUNTER || (ns >= 0 && !line->is_by_namespace)) {
        return 0;
    }
    return ns >= 0 ? stats_ns_sum((unsigned)ns, (enum ns_metric)line->index)
                   : metric_line_sum(line);
}

uint64_t samples_total(const char *name, int ns)
{
    const struct metric_line *line;
    uint64_t n = 0;

    for (unsigned i = 0; (line = metric_line_at(i)) != NULL; i++) {
        if (strcmp(line->name, name) == 0) {
            n += samples_count(line, ns);
        }
    }
    return n;
}

static void add_buckets(const struct metric_line *line, unsigned ns, uint64_t out[STATS_BUCKETS])
{
    uint64_t buckets[STATS_BUCKETS], sum_us;

    if (line->is_by_namespace) {
        stats_ns_histogram_sum(ns, (enum ns_histogram)line->index, buckets, &sum_us);
    } else {
        stats_histogram_sum((enum histogram)line->index, buckets, &sum_us);
    }
    for (unsigned i = 0; i < STATS_BUCKETS; i++) {
        out[i] += buckets[i];
    }
}

bool samples_buckets(const struct metric_line *line, int ns, uint64_t out[STATS_BUCKETS])
{
    const unsigned n = line->is_by_namespace ? config_namespace_count() : 1;

    if (line->kind != METRIC_HISTOGRAM || (ns >= 0 && !line->is_by_namespace)) {
        return false;
    }
    if (ns >= 0) {
        add_buckets(line, (unsigned)ns, out);
        return true;
    }
    for (unsigned i = 0; i < n; i++) {
        add_buckets(line, i, out);
    }
    return true;
}

/* ---- quantiles ---- */

double samples_quantile_us(const uint64_t buckets[STATS_BUCKETS], double quantile)
{
    const double rank = quantile * (double)buckets[STATS_BUCKETS - 1];
    unsigned i = 0;

    if (buckets[STATS_BUCKETS - 1] == 0) {
        return -1;
    }
    while (i < STATS_BUCKETS - 1 && (double)buckets[i] < rank) {
        i++;
    }
    if (i == STATS_BUCKETS - 1) {
        return (double)stats_bucket_us[STATS_BUCKETS - 2];
    }
    const double below = i > 0 ? (double)buckets[i - 1] : 0;
    const double low = i > 0 ? (double)stats_bucket_us[i - 1] : 0;
    const double within = (double)buckets[i] - below;

    return within <= 0 ? (double)stats_bucket_us[i]
                       : low + ((double)stats_bucket_us[i] - low) * (rank - below) / within;
}

/* Tenths of a microsecond are more than buckets know. */
static json_t *json_of_us(double us)
{
    return json_real(round(us * 10) / 10);
}

json_t *samples_latency(const uint64_t buckets[STATS_BUCKETS])
{
    if (buckets[STATS_BUCKETS - 1] == 0) {
        return json_null();
    }
    return json_pack("{s:I, s:o, s:o, s:o}", "count", (json_int_t)buckets[STATS_BUCKETS - 1],
                     "p50_us", json_of_us(samples_quantile_us(buckets, 0.5)), "p95_us",
                     json_of_us(samples_quantile_us(buckets, 0.95)), "p99_us",
                     json_of_us(samples_quantile_us(buckets, 0.99)));
}
