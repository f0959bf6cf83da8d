/* What the tables say, for people: --help, --describe config and --describe metrics. */
#include "config/config.h"

#include <string.h>

#include "config/event_rules.h"
#include "config/options.h"

#define LINE_WIDTH 96

/* text, indented and broken between words. */
static void print_wrapped(FILE *out, unsigned indent, const char *text)
{
    unsigned column = 0;

    while (*text != '\0') {
        const size_t len = strcspn(text, " ");

        if (column > 0 && column + 1 + len > LINE_WIDTH) {
            fputc('\n', out);
            column = 0;
        }
        if (column == 0) {
            fprintf(out, "%*s%.*s", (int)indent, "", (int)len, text);
            column = indent + (unsigned)len;
        } else {
            fprintf(out, " %.*s", (int)len, text);
            column += 1 + (unsigned)len;
        }
        text += len;
        text += strspn(text, " ");
    }
    fputc('\n', out);
}

/* -- Options ---------------------------------------------------------------------------------- */

/* "--flag WHAT" */
static void print_flag(FILE *out, const struct config_option *option)
{
    static const char *const values[] = {
        [OPTION_BOOL] = "[on|off]", [OPTION_INT] = "N",        [OPTION_SIZE] = "SIZE",
        [OPTION_TIME] = "TIME",     [OPTION_TEXT] = "TEXT",    [OPTION_SECRET] = "PASSWORD",
        [OPTION_ENUM] = "WORD",     [OPTION_LIST] = "ADDRESS",
    };

    fprintf(out, "  --%s %s", option->spelling, values[option->type]);
    if (option->initial[0] != '\0') {
        fprintf(out, " (%s)", option->initial);
    }
    fputc('\n', out);
}

void config_usage(FILE *out)
{
    unsigned n;
    const struct config_option *const options = config_options(&n);

    fputs(
        "usage: nearcached [--config FILE] [FLAG...]\n"
        "A coherent near cache in front of Redis.\n\n"
        "  --config FILE                 read options from FILE; environment and flags go first\n"
        "  -t, --test                    check the configuration and exit\n"
        "  --describe [config|metrics]   print the reference of options or metrics\n"
        "  --version, --help\n\n"
        "Every option is a flag, a line under its [section] in the file, and a variable\n"
        "NEARCACHED_<OPTION> in the environment. SIZE takes b, kb, mb, gb (powers of 1024); TIME\n"
        "takes ms, s, m, h, d. Defaults stand in parentheses. --listen may be repeated. Passwords\n"
        "are better given in the file or the environment. Namespaces and dependencies are set in\n"
        "the file alone.\n",
        out);
    for (unsigned i = 0; i < n && !options[i].is_local; i++) {
        if (i == 0 || strcmp(options[i].section, options[i - 1].section) != 0) {
            fprintf(out, "\n[%s]\n", options[i].section);
        }
        print_flag(out, &options[i]);
        print_wrapped(out, 6, options[i].help);
    }
}

static void describe_option(FILE *out, const struct config_option *option)
{
    char expected[OPTION_TEXT_MAX];

    config_option_expected(option, expected);
    fprintf(out, "%s = %s\n", option->spelling,
            option->is_override ? "(as in [cache])" : option->initial);
    print_wrapped(out, 4, option->help);
    fprintf(out, "    %s; %s\n", expected,
            option->needs_restart ? "a change needs a restart" : "may change by a reload");
}

static void describe_events(FILE *out)
{
    unsigned n;
    const struct event_option *const options = event_options(&n);

    for (unsigned i = 0; i < n; i++) {
        const bool is_source = strcmp(options[i].section, "event_source") == 0;

        if (i == 0 || strcmp(options[i].section, options[i - 1].section) != 0) {
            fprintf(out, "\n[%s \"NAME\"]\n", is_source ? "event-source" : "event");
        }
        for (const char *at = options[i].name; *at != '\0'; at++) {
            fputc(*at == '_' ? '-' : *at, out);
        }
        fprintf(out, " = %s\n", options[i].initial);
        print_wrapped(out, 4, options[i].help);
        fputs("    text; may change by a reload\n", out);
    }
}

void config_describe(FILE *out)
{
    unsigned n;
    const struct config_option *const options = config_options(&n);

    for (unsigned i = 0; i < n; i++) {
        if (i == 0 || strcmp(options[i].section, options[i - 1].section) != 0) {
            fprintf(out, "%s[%s%s]\n", i == 0 ? "" : "\n", options[i].section,
                    options[i].is_local ? " \"NAME\"" : "");
        }
        describe_option(out, &options[i]);
    }
    describe_events(out);
}

/* -- Metrics ---------------------------------------------------------------------------------- */

struct metric_line {
    const char *prefix, *name, *labels, *type, *help;
    bool is_by_namespace;
};

static const struct metric_line metric_lines[] = {
#define LINE(name, labels, type, help) {"nearcached_", name, labels, type, help, false},
#define NS_LINE(name, labels, type, help) {"nearcached_", name, labels, type, help, true},
#define COUNTER(id, name, labels, help) LINE(name, labels, "counter", help)
#define NS_COUNTER(id, name, labels, help) NS_LINE(name, labels, "counter", help)
#define READ_COUNTER COUNTER
#define NS_READ_COUNTER NS_COUNTER
#define COUNTER_LIST COUNTER
#define GAUGE(id, name, labels, help) LINE(name, labels, "gauge", help)
#define NS_GAUGE(id, name, labels, help) NS_LINE(name, labels, "gauge", help)
#define GAUGE_LIST GAUGE
#define HISTOGRAM(id, name, labels, help) LINE(name, labels, "histogram", help)
#define NS_HISTOGRAM(id, name, labels, help) NS_LINE(name, labels, "histogram", help)
#define STANDARD_GAUGE(id, name, labels, help) {"", name, labels, "gauge", help, false},
#define STANDARD_COUNTER(id, name, labels, help) {"", name, labels, "counter", help, false},
#include "tables/metrics.def"
};

#define N_METRIC_LINES (sizeof(metric_lines) / sizeof(metric_lines[0]))

static bool is_same_metric(size_t a, size_t b)
{
    return b < N_METRIC_LINES && strcmp(metric_lines[a].name, metric_lines[b].name) == 0;
}

/* One metric: the lines from first on that share its name. Returns the first line behind it. */
static size_t describe_metric(FILE *out, size_t first)
{
    const struct metric_line *const metric = &metric_lines[first];
    size_t next = first;

    fprintf(out, "%s%s %s\n", metric->prefix, metric->name, metric->type);
    print_wrapped(out, 4, metric->help);
    if (metric->is_by_namespace) {
        fputs("    namespace=\"NAME\"\n", out);
    }
    while (is_same_metric(first, next)) {
        if (metric_lines[next].labels[0] != '\0') {
            fprintf(out, "    %s\n", metric_lines[next].labels);
        }
        next++;
    }
    return next;
}

void config_describe_metrics(FILE *out)
{
    for (size_t i = 0; i < N_METRIC_LINES;) {
        i = describe_metric(out, i);
    }
}
