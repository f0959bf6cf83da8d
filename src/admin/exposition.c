/*
 * Design: with fifty namespaces there are some ten thousand lines, so they are put together from
 * pieces in a buffer of our own; printf sees only numbers that are no integers.
 *
 * OpenMetrics names a counter's family without "_total", escapes quotes in help texts, and writes
 * bounds of buckets as floating point numbers ("1.0").
 */
#include "admin/exposition.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- which one ---- */

#define OPENMETRICS_TYPE "application/openmetrics-text"

static struct bytes trim(struct bytes text)
{
    while (text.len > 0 && (text.ptr[0] == ' ' || text.ptr[0] == '\t')) {
        text = bytes_make(text.ptr + 1, text.len - 1);
    }
    while (text.len > 0 && (text.ptr[text.len - 1] == ' ' || text.ptr[text.len - 1] == '\t')) {
        text.len--;
    }
    return text;
}

/* Takes what stands before the next `mark`, without the space around it. */
static struct bytes take_until(struct bytes *rest, char mark)
{
    const unsigned char *end = rest->len > 0 ? memchr(rest->ptr, mark, rest->len) : NULL;
    const size_t length = end != NULL ? (size_t)(end - rest->ptr) : rest->len;
    const struct bytes taken = bytes_make(rest->ptr, length);

    *rest = end != NULL ? bytes_make(end + 1, rest->len - length - 1) : bytes_make(rest->ptr, 0);
    return trim(taken);
}

/* One media range of the header. */
struct range {
    struct bytes type;
    struct bytes version; /* empty: any */
    int quality;          /* in thousandths */
};

static int quality_of(struct bytes text)
{
    char copy[16] = "";
    double value;

    memcpy(copy, text.ptr, text.len < sizeof(copy) - 1 ? text.len : sizeof(copy) - 1);
    value = strtod(copy, NULL);
    return value > 0 ? (int)((value < 1 ? value : 1) * 1000) : 0;
}

static struct range take_range(struct bytes *rest)
{
    struct bytes text = take_until(rest, ',');
    struct range range = {.quality = 1000, .version = BYTES("")};

    range.type = take_until(&text, ';');
    while (text.len > 0) {
        struct bytes value = take_until(&text, ';');
        const struct bytes name = take_until(&value, '=');

        value = trim(value);
        if (bytes_equal_nocase(name, BYTES("q"))) {
            range.quality = quality_of(value);
        } else if (bytes_equal_nocase(name, BYTES("version"))) {
            range.version = value;
        }
    }
    return range;
}

/* What the header says of a type in a version: of the ranges that fit the most specific counts. */
static int quality_for(const char *accept, const char *type, const char *group, const char *version)
{
    struct bytes rest = bytes_of_string(accept);
    int quality = 0, best = -1;

    while (rest.len > 0) {
        const struct range range = take_range(&rest);
        int fit = -1;

        if (bytes_equal_nocase(range.type, bytes_of_string(type))) {
            const bool has_version = range.version.len > 0;

            fit = !has_version ? 2 : -1;
            fit = has_version && bytes_equal(range.version, bytes_of_string(version)) ? 3 : fit;
        } else if (bytes_equal_nocase(range.type, bytes_of_string(group))) {
            fit = 1;
        } else if (bytes_equal(range.type, BYTES("*/*"))) {
            fit = 0;
        }
        if (fit > best) {
            best = fit;
            quality = range.quality;
        }
    }
    return quality;
}

enum exposition_format exposition_choose(const char *accept)
{
    if (accept == NULL) {
        return EXPOSITION_TEXT;
    }
    return quality_for(accept, OPENMETRICS_TYPE, "application/*", "1.0.0") >
                   quality_for(accept, "text/plain", "text/*", "0.0.4")
               ? EXPOSITION_OPENMETRICS
               : EXPOSITION_TEXT;
}

const char *exposition_content_type(enum exposition_format format)
{
    return format == EXPOSITION_OPENMETRICS ? OPENMETRICS_TYPE "; version=1.0.0; charset=utf-8"
                                            : "text/plain; version=0.0.4; charset=utf-8";
}

/* ---- pieces ---- */

#define ROOM 16384
#define NAME_MAX_BYTES 160

struct exposition {
    struct evbuffer *out;
    const struct metric_line *former;
    size_t name_len, family_len;
    size_t used;
    bool is_openmetrics, has_failed;
    char name[NAME_MAX_BYTES]; /* of the samples, prefix included */
    char room[ROOM];
};

static void flush(struct exposition *to)
{
    if (evbuffer_add(to->out, to->room, to->used) != 0) {
        to->has_failed = true;
    }
    to->used = 0;
}

static void put(struct exposition *to, const char *text, size_t length)
{
    if (length > ROOM - to->used) {
        flush(to);
    }
    if (length > ROOM) {
        to->has_failed = evbuffer_add(to->out, text, length) != 0 || to->has_failed;
        return;
    }
    memcpy(to->room + to->used, text, length);
    to->used += length;
}

static void put_text(struct exposition *to, const char *text)
{
    put(to, text, strlen(text));
}

static void put_integer(struct exposition *to, uint64_t value)
{
    char digits[20];
    size_t at = sizeof(digits);

    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    put(to, digits + at, sizeof(digits) - at);
}

/* 15 digits keep 0.05 as it is written; integers up to 2^53 are exact. */
static void put_number(struct exposition *to, double value)
{
    char text[40];

    if (value >= 0 && value <= 9007199254740992.0 && value == floor(value)) {
        put_integer(to, (uint64_t)value);
    } else {
        put(to, text, (size_t)snprintf(text, sizeof(text), "%.15g", value));
    }
}

/* ---- lines ---- */

/* Up to the value: "name_suffix{labels,le="..."} ". */
static void begin_line(struct exposition *to, const char *suffix, const char *labels,
                       const char *bound)
{
    put(to, to->name, to->name_len);
    put_text(to, suffix);
    if (labels[0] != '\0' || bound != NULL) {
        put(to, "{", 1);
        put_text(to, labels);
        if (bound != NULL) {
            put_text(to, labels[0] != '\0' ? ",le=\"" : "le=\"");
            put_text(to, bound);
            put(to, "\"", 1);
        }
        put(to, "}", 1);
    }
    put(to, " ", 1);
}

static void put_histogram(struct exposition *to, const struct metric_sample *sample)
{
    for (unsigned i = 0; i < STATS_BUCKETS; i++) {
        const bool is_last = i == STATS_BUCKETS - 1;
        const double bound = is_last ? 0 : (double)stats_bucket_us[i] / 1e6;
        char text[24] = "+Inf";

        if (!is_last) {
            snprintf(text, sizeof(text), "%g%s", bound,
                     to->is_openmetrics && bound == floor(bound) ? ".0" : "");
        }
        begin_line(to, "_bucket", sample->labels, text);
        put_integer(to, sample->buckets[i]);
        put(to, "\n", 1);
    }
    begin_line(to, "_sum", sample->labels, NULL);
    put_number(to, sample->number);
    put(to, "\n", 1);
    begin_line(to, "_count", sample->labels, NULL);
    put_integer(to, sample->count);
    put(to, "\n", 1);
}

static void begin_comment(struct exposition *to, const char *what)
{
    put_text(to, what);
    put(to, to->name, to->family_len);
    put(to, " ", 1);
}

static void put_help(struct exposition *to, const char *help)
{
    for (; *help != '\0'; help++) {
        if (*help == '\\' || (*help == '"' && to->is_openmetrics)) {
            put(to, "\\", 1);
        }
        put(to, help, 1);
    }
    put(to, "\n", 1);
}

static const char *unit_of(const struct exposition *to)
{
    static const char *const units[] = {"seconds", "bytes", "ratio"};

    for (unsigned i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        const size_t length = strlen(units[i]);

        if (to->family_len > length && to->name[to->family_len - length - 1] == '_' &&
            memcmp(to->name + to->family_len - length, units[i], length) == 0) {
            return units[i];
        }
    }
    return NULL;
}

static void begin_family(struct exposition *to, const struct metric_line *line)
{
    const char *type = metric_line_type(line);
    const char *unit;

    to->name_len = (size_t)snprintf(to->name, sizeof(to->name), "%s%s", metric_line_prefix(line),
                                    line->name);
    to->family_len = to->name_len;
    if (to->is_openmetrics && strcmp(type, "counter") == 0) {
        to->family_len -= strlen("_total");
    }
    begin_comment(to, "# HELP ");
    put_help(to, line->help);
    begin_comment(to, "# TYPE ");
    put_text(to, type);
    put(to, "\n", 1);
    unit = to->is_openmetrics ? unit_of(to) : NULL;
    if (unit != NULL) {
        begin_comment(to, "# UNIT ");
        put_text(to, unit);
        put(to, "\n", 1);
    }
}

static void put_sample(const struct metric_sample *sample, void *context)
{
    struct exposition *to = context;

    if (to->former == NULL ||
        (to->former != sample->line && strcmp(to->former->name, sample->line->name) != 0)) {
        begin_family(to, sample->line);
    }
    to->former = sample->line;
    if (sample->form == METRIC_BUCKETS) {
        put_histogram(to, sample);
        return;
    }
    begin_line(to, "", sample->labels, NULL);
    if (sample->form == METRIC_COUNT) {
        put_integer(to, sample->count);
    } else {
        put_number(to, sample->number);
    }
    put(to, "\n", 1);
}

int exposition_write(const struct metrics_facts *facts, enum exposition_format format,
                     struct evbuffer *out)
{
    struct exposition to = {.out = out, .is_openmetrics = format == EXPOSITION_OPENMETRICS};

    metrics_visit(facts, put_sample, &to);
    if (to.is_openmetrics) {
        put_text(&to, "# EOF\n");
    }
    flush(&to);
    return to.has_failed ? -ENOMEM : 0;
}
