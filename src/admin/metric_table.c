#include "admin/metric_table.h"

#include <string.h>

#include "base/check.h"
#include "config/config.h"

#define LINE(name, labels, help, kind, is_by_namespace, is_standard, index)                        \
    {name, labels, help, METRIC_##kind, is_by_namespace, is_standard, index},

static const struct metric_line lines[] = {
#define COUNTER(id, name, labels, help) LINE(name, labels, help, COUNTER, false, false, METRIC_##id)
#define NS_COUNTER(id, name, labels, help)                                                         \
    LINE(name, labels, help, COUNTER, true, false, NS_METRIC_##id)
#define HISTOGRAM(id, name, labels, help)                                                          \
    LINE(name, labels, help, HISTOGRAM, false, false, HISTOGRAM_##id)
#define NS_HISTOGRAM(id, name, labels, help)                                                       \
    LINE(name, labels, help, HISTOGRAM, true, false, NS_HISTOGRAM_##id)
#define GAUGE(id, name, labels, help) LINE(name, labels, help, GAUGE, false, false, GAUGE_##id)
#define NS_GAUGE(id, name, labels, help) LINE(name, labels, help, GAUGE, true, false, GAUGE_##id)
#define READ_COUNTER(id, name, labels, help)                                                       \
    LINE(name, labels, help, READ_COUNTER, false, false, GAUGE_##id)
#define NS_READ_COUNTER(id, name, labels, help)                                                    \
    LINE(name, labels, help, READ_COUNTER, true, false, GAUGE_##id)
#define STANDARD_GAUGE(id, name, labels, help)                                                     \
    LINE(name, labels, help, GAUGE, false, true, GAUGE_##id)
#define STANDARD_COUNTER(id, name, labels, help)                                                   \
    LINE(name, labels, help, READ_COUNTER, false, true, GAUGE_##id)
#define GAUGE_LIST(id, name, labels, help)                                                         \
    LINE(name, labels, help, GAUGE_LIST, false, false, METRIC_LIST_##id)
#define COUNTER_LIST(id, name, labels, help)                                                       \
    LINE(name, labels, help, COUNTER_LIST, false, false, METRIC_LIST_##id)
#include "tables/metrics.def"
};

const char *metric_line_type(const struct metric_line *line)
{
    switch (line->kind) {
    case METRIC_COUNTER:
    case METRIC_READ_COUNTER:
    case METRIC_COUNTER_LIST:
        return "counter";
    case METRIC_GAUGE:
    case METRIC_GAUGE_LIST:
        return "gauge";
    case METRIC_HISTOGRAM:
        break;
    }
    return "histogram";
}

const struct metric_line *metric_line_at(unsigned i)
{
    return i < sizeof(lines) / sizeof(lines[0]) ? &lines[i] : NULL;
}

uint64_t metric_line_sum(const struct metric_line *line)
{
    uint64_t sum = 0;

    CHECK(line->kind == METRIC_COUNTER);
    if (!line->is_by_namespace) {
        return stats_sum((enum metric)line->index);
    }
    for (unsigned ns = 0; ns < config_namespace_count(); ns++) {
        sum += stats_ns_sum(ns, (enum ns_metric)line->index);
    }
    return sum;
}

uint64_t metric_total(const char *name)
{
    const struct metric_line *line;
    bool is_known = false;
    uint64_t sum = 0;

    for (unsigned i = 0; (line = metric_line_at(i)) != NULL; i++) {
        if (line->kind == METRIC_COUNTER && strcmp(line->name, name) == 0) {
            is_known = true;
            sum += metric_line_sum(line);
        }
    }
    CHECK(is_known);
    return sum;
}
