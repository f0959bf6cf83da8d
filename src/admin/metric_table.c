#include "admin/metric_table.h"

#include <string.h>

#include "base/check.h"
#include "config/config.h"

static const struct metric_line lines[] = {
#define COUNTER(id, name, labels, help) {name, labels, help, METRIC_COUNTER, false, METRIC_##id},
#define NS_COUNTER(id, name, labels, help)                                                         \
    {name, labels, help, METRIC_COUNTER, true, NS_METRIC_##id},
#define GAUGE(id, name, labels, help) {name, labels, help, METRIC_GAUGE, false, GAUGE_##id},
#define NS_GAUGE(id, name, labels, help) {name, labels, help, METRIC_GAUGE, true, GAUGE_##id},
#define HISTOGRAM(id, name, labels, help)                                                          \
    {name, labels, help, METRIC_HISTOGRAM, false, HISTOGRAM_##id},
#include "tables/metrics.def"
#undef COUNTER
#undef NS_COUNTER
#undef GAUGE
#undef NS_GAUGE
#undef HISTOGRAM
};

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
