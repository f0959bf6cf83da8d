/*
 * A pattern is segments of single bytes (literal ones, ?, sets) with gaps between them: * or a
 * capture. The first segment is anchored at the beginning, the last one at the end, each of the
 * others is searched for from the left. That the leftmost place is taken is the shortest run for
 * the gap before it, and no other place could help the rest: every gap can grow. So nothing is
 * ever tried twice.
 *
 *     session:{1}:*        "session:"  {1}  ":"  *  ""
 *
 * To unify, the segments are searched for from the right as well. A capture is certain where both
 * its ends are the same from both sides.
 */
#include "config/captures.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

/* What one byte of a segment may be. */
enum unit_kind { UNIT_BYTE, UNIT_ANY, UNIT_SET };

struct unit {
    enum unit_kind kind;
    unsigned char byte;
    uint64_t set[4];   /* UNIT_SET: a bit per byte */
    struct bytes glob; /* UNIT_SET: as it was written */
};

struct segment {
    size_t at, n; /* of units */
};

struct gap {
    bool is_capture;
    struct bytes name;
};

struct captures_pattern {
    struct bytes text;
    struct unit *units;
    size_t n_units;
    struct gap *gaps;
    struct segment *segments; /* n_gaps + 1 */
    size_t n_gaps;
    unsigned n_captures;
    bool is_template;
    unsigned char room[]; /* text */
};

/* ---- reading ---- */

static bool is_name_byte(unsigned char c)
{
    return isalnum(c) != 0 || c == '_' || c == '-';
}

/* Where a set that begins at `at` ends, behind its bracket; 0: nowhere. As Redis reads it. */
static size_t end_of_set(struct bytes text, size_t at)
{
    size_t i = at + 1;

    if (i < text.len && text.ptr[i] == '^') {
        i++;
    }
    while (i < text.len && text.ptr[i] != ']') {
        if (text.ptr[i] == '\\' && i + 1 < text.len) {
            i += 2;
        } else if (i + 2 < text.len && text.ptr[i + 1] == '-') {
            i += 3;
        } else {
            i++;
        }
    }
    return i < text.len ? i + 1 : 0;
}

/* The matcher of globs says what is in it, so that both always agree. */
static void fill_set(struct unit *unit, struct bytes glob)
{
    unit->kind = UNIT_SET;
    unit->glob = glob;
    for (unsigned c = 0; c < 256; c++) {
        const unsigned char byte = (unsigned char)c;

        if (bytes_match_glob(glob, bytes_make(&byte, 1))) {
            unit->set[c / 64] |= UINT64_C(1) << (c % 64);
        }
    }
}

static void begin_segment(struct captures_pattern *pattern)
{
    pattern->segments[pattern->n_gaps] = (struct segment){pattern->n_units, 0};
}

static void add_gap(struct captures_pattern *pattern, struct bytes name)
{
    pattern->gaps[pattern->n_gaps++] = (struct gap){name.len > 0, name};
    begin_segment(pattern);
}

static struct unit *add_unit(struct captures_pattern *pattern)
{
    pattern->segments[pattern->n_gaps].n++;
    return &pattern->units[pattern->n_units++];
}

static bool has_capture(const struct captures_pattern *pattern, struct bytes name)
{
    for (size_t i = 0; i < pattern->n_gaps; i++) {
        if (pattern->gaps[i].is_capture && bytes_equal(pattern->gaps[i].name, name)) {
            return true;
        }
    }
    return false;
}

/* Returns how many bytes it took; 0: said why. */
static size_t take_capture(struct captures_pattern *pattern, size_t at, char *why)
{
    const struct bytes text = pattern->text;
    size_t n = 0;

    while (at + 1 + n < text.len && is_name_byte(text.ptr[at + 1 + n])) {
        n++;
    }
    const struct bytes name = bytes_make(text.ptr + at + 1, n);
    if (n == 0 || at + 1 + n == text.len || text.ptr[at + 1 + n] != '}') {
        snprintf(why, CAPTURES_WHY_MAX,
                 "a capture is {name}, of letters, digits, _ and -; a brace is \\{");
        return 0;
    }
    if (n > CAPTURE_NAME_MAX) {
        snprintf(why, CAPTURES_WHY_MAX, "the name of a capture has at most %d characters",
                 CAPTURE_NAME_MAX);
        return 0;
    }
    if (has_capture(pattern, name)) {
        snprintf(why, CAPTURES_WHY_MAX, "{%.*s} stands there twice", (int)n,
                 (const char *)name.ptr);
        return 0;
    }
    if (pattern->n_captures == CAPTURES_MAX) {
        snprintf(why, CAPTURES_WHY_MAX, "more than %d captures", CAPTURES_MAX);
        return 0;
    }
    pattern->n_captures++;
    add_gap(pattern, name);
    return n + 2;
}

/* One byte of a segment; returns how many bytes of text it took; 0: said why. */
static size_t take_unit(struct captures_pattern *pattern, size_t at, char *why)
{
    const struct bytes text = pattern->text;
    const unsigned char c = text.ptr[at];
    size_t end;

    if (c == '?') {
        add_unit(pattern)->kind = UNIT_ANY;
        pattern->is_template = false;
        return 1;
    }
    if (c == '[') {
        end = end_of_set(text, at);
        if (end == 0) {
            snprintf(why, CAPTURES_WHY_MAX, "[ without ]; a bracket is \\[");
            return 0;
        }
        fill_set(add_unit(pattern), bytes_make(text.ptr + at, end - at));
        pattern->is_template = false;
        return end - at;
    }
    if (c == '\\' && at + 1 < text.len) {
        add_unit(pattern)->byte = text.ptr[at + 1];
        return 2;
    }
    add_unit(pattern)->byte = c;
    return 1;
}

static bool take_all(struct captures_pattern *pattern, char *why)
{
    const struct bytes text = pattern->text;
    size_t n;

    begin_segment(pattern);
    for (size_t at = 0; at < text.len; at += n) {
        if (text.ptr[at] == '*') {
            add_gap(pattern, (struct bytes){0});
            pattern->is_template = false;
            n = 1;
        } else if (text.ptr[at] == '{') {
            n = take_capture(pattern, at, why);
        } else {
            n = take_unit(pattern, at, why);
        }
        if (n == 0) {
            return false;
        }
    }
    return true;
}

struct captures_pattern *captures_pattern_new(struct bytes text, char why[CAPTURES_WHY_MAX])
{
    struct captures_pattern *pattern;

    if (text.len == 0 || text.len > CAPTURES_TEXT_MAX) {
        snprintf(why, CAPTURES_WHY_MAX, "expected 1 to %zu bytes", CAPTURES_TEXT_MAX);
        return NULL;
    }
    pattern = mem_alloc(sizeof(*pattern) + text.len);
    memcpy(pattern->room, text.ptr, text.len);
    pattern->text = bytes_make(pattern->room, text.len);
    pattern->units = mem_alloc(text.len * sizeof(*pattern->units));
    pattern->gaps = mem_alloc(text.len * sizeof(*pattern->gaps));
    pattern->segments = mem_alloc((text.len + 1) * sizeof(*pattern->segments));
    pattern->is_template = true;
    if (!take_all(pattern, why)) {
        captures_pattern_free(&pattern);
    }
    return pattern;
}

void captures_pattern_free(struct captures_pattern **pattern)
{
    if (*pattern != NULL) {
        mem_free((*pattern)->units);
        mem_free((*pattern)->gaps);
        mem_free((*pattern)->segments);
        mem_free(*pattern);
        *pattern = NULL;
    }
}

/* ---- what it is ---- */

struct bytes captures_text(const struct captures_pattern *pattern)
{
    return pattern->text;
}

unsigned captures_count(const struct captures_pattern *pattern)
{
    return pattern->n_captures;
}

bool captures_is_template(const struct captures_pattern *pattern)
{
    return pattern->is_template;
}

size_t captures_prefix(const struct captures_pattern *pattern, unsigned char *out)
{
    size_t n = 0;

    while (n < pattern->segments[0].n && pattern->units[n].kind == UNIT_BYTE) {
        out[n] = pattern->units[n].byte;
        n++;
    }
    return n;
}

bool captures_check(const struct captures_pattern *pattern, const struct captures_pattern *uses,
                    char why[CAPTURES_WHY_MAX])
{
    for (size_t i = 0; i < uses->n_gaps; i++) {
        const struct gap *gap = &uses->gaps[i];

        if (gap->is_capture && !has_capture(pattern, gap->name)) {
            snprintf(why, CAPTURES_WHY_MAX, "{%.*s} is no capture of %.*s", (int)gap->name.len,
                     (const char *)gap->name.ptr,
                     pattern->text.len > 80 ? 80 : (int)pattern->text.len,
                     (const char *)pattern->text.ptr);
            return false;
        }
    }
    return true;
}

/* ---- matching ---- */

static bool unit_has(const struct unit *unit, unsigned char c)
{
    switch (unit->kind) {
    case UNIT_BYTE:
        return unit->byte == c;
    case UNIT_ANY:
        return true;
    case UNIT_SET:
        return (unit->set[c / 64] >> (c % 64) & 1) != 0;
    }
    return false;
}

/* text has at least so many bytes from `at` on. */
static bool segment_is_at(const struct captures_pattern *pattern, size_t which, struct bytes text,
                          size_t at)
{
    const struct segment *segment = &pattern->segments[which];

    for (size_t i = 0; i < segment->n; i++) {
        if (!unit_has(&pattern->units[segment->at + i], text.ptr[at + i])) {
            return false;
        }
    }
    return true;
}

/* The two that are anchored, and that there is room for both. */
static bool ends_match(const struct captures_pattern *pattern, struct bytes text)
{
    const size_t first = pattern->segments[0].n, last = pattern->segments[pattern->n_gaps].n;

    if (pattern->n_gaps == 0) {
        return text.len == first && segment_is_at(pattern, 0, text, 0);
    }
    return first <= text.len && last <= text.len - first && segment_is_at(pattern, 0, text, 0) &&
           segment_is_at(pattern, pattern->n_gaps, text, text.len - last);
}

static size_t shortest(const struct gap *gap)
{
    return gap->is_capture ? 1 : 0;
}

static void note(struct captures *found, const struct gap *gap, struct bytes value)
{
    if (gap->is_capture) {
        found->of[found->n++] = (struct capture){gap->name, value};
    }
}

bool captures_match(const struct captures_pattern *pattern, struct bytes text,
                    struct captures *found)
{
    size_t from, end;

    found->n = 0;
    if (!ends_match(pattern, text)) {
        return false;
    }
    from = pattern->segments[0].n;
    end = text.len - pattern->segments[pattern->n_gaps].n;
    for (size_t i = 0; i < pattern->n_gaps; i++) {
        const struct gap *gap = &pattern->gaps[i];
        const size_t n = pattern->segments[i + 1].n;
        size_t at = from + shortest(gap);

        if (i + 1 == pattern->n_gaps) {
            if (at > end) {
                return false;
            }
            note(found, gap, bytes_make(text.ptr + from, end - from));
            return true;
        }
        while (at <= end && n <= end - at && !segment_is_at(pattern, i + 1, text, at)) {
            at++;
        }
        if (at > end || n > end - at) {
            return false;
        }
        note(found, gap, bytes_make(text.ptr + from, at - from));
        from = at + n;
    }
    return true;
}

/* ---- making ---- */

static struct bytes value_of(const struct captures *values, struct bytes name)
{
    for (unsigned i = 0; i < values->n; i++) {
        if (bytes_equal(values->of[i].name, name)) {
            return values->of[i].value;
        }
    }
    return (struct bytes){0};
}

size_t captures_expand(const struct captures_pattern *pattern, const struct captures *values,
                       unsigned char *out)
{
    size_t length = 0;

    if (!pattern->is_template) {
        return 0;
    }
    for (size_t i = 0; i <= pattern->n_gaps; i++) {
        const struct segment *segment = &pattern->segments[i];
        struct bytes value;

        if (segment->n > CAPTURES_TEXT_MAX - length) {
            return 0;
        }
        for (size_t j = 0; j < segment->n; j++) {
            out[length++] = pattern->units[segment->at + j].byte;
        }
        if (i == pattern->n_gaps) {
            break;
        }
        value = value_of(values, pattern->gaps[i].name);
        if (value.len == 0 || value.len > CAPTURES_TEXT_MAX - length) {
            return 0;
        }
        memcpy(out + length, value.ptr, value.len);
        length += value.len;
    }
    return length;
}

bool captures_makes(const struct captures_pattern *pattern, const struct captures *values,
                    struct bytes name)
{
    size_t at = 0;

    for (size_t i = 0; pattern->is_template && i <= pattern->n_gaps; i++) {
        const struct segment *segment = &pattern->segments[i];
        struct bytes value;

        if (segment->n > name.len - at || !segment_is_at(pattern, i, name, at)) {
            return false;
        }
        at += segment->n;
        if (i == pattern->n_gaps) {
            return at == name.len;
        }
        value = value_of(values, pattern->gaps[i].name);
        if (value.len == 0 || !bytes_start_with(bytes_make(name.ptr + at, name.len - at), value)) {
            return false;
        }
        at += value.len;
    }
    return false;
}

/* ---- the inverse ---- */

/*
 * Goes through the gaps from the right, where text matches already. A capture whose run is the same
 * from this side stays; any other one is not known.
 */
static void doubt(const struct captures_pattern *pattern, struct bytes text, struct captures *found)
{
    size_t end = text.len - pattern->segments[pattern->n_gaps].n;
    unsigned which = found->n;

    for (size_t i = pattern->n_gaps; i > 0; i--) {
        const struct gap *gap = &pattern->gaps[i - 1];
        const size_t n = pattern->segments[i - 1].n;
        size_t from = pattern->segments[0].n;

        if (i > 1) {
            from = end - shortest(gap);
            while (!segment_is_at(pattern, i - 1, text, from - n)) {
                from--;
            }
        }
        if (gap->is_capture) {
            struct bytes *value = &found->of[--which].value;

            if (value->ptr != text.ptr + from || value->len != end - from) {
                *value = (struct bytes){0};
            }
        }
        end = from - n;
    }
}

bool captures_unify(const struct captures_pattern *pattern, struct bytes name,
                    struct captures *found)
{
    if (!captures_match(pattern, name, found)) {
        return false;
    }
    if (pattern->n_gaps > 0) {
        doubt(pattern, name, found);
    }
    return true;
}

static bool is_special(unsigned char c)
{
    return c == '*' || c == '?' || c == '[' || c == ']' || c == '\\';
}

struct glob {
    unsigned char *out;
    size_t length, size;
};

static bool put(struct glob *glob, unsigned char c)
{
    if (glob->length == glob->size) {
        return false;
    }
    glob->out[glob->length++] = c;
    return true;
}

static bool put_literal(struct glob *glob, unsigned char c)
{
    return (!is_special(c) || put(glob, '\\')) && put(glob, c);
}

static bool put_all(struct glob *glob, struct bytes text)
{
    for (size_t i = 0; i < text.len; i++) {
        if (!put(glob, text.ptr[i])) {
            return false;
        }
    }
    return true;
}

static bool put_unit(struct glob *glob, const struct unit *unit)
{
    switch (unit->kind) {
    case UNIT_BYTE:
        return put_literal(glob, unit->byte);
    case UNIT_ANY:
        return put(glob, '?');
    case UNIT_SET:
        return put_all(glob, unit->glob);
    }
    return false;
}

static bool put_segment(struct glob *glob, const struct captures_pattern *pattern,
                        const struct segment *segment)
{
    for (size_t i = 0; i < segment->n; i++) {
        if (!put_unit(glob, &pattern->units[segment->at + i])) {
            return false;
        }
    }
    return true;
}

size_t captures_glob(const struct captures_pattern *pattern, const struct captures *values,
                     unsigned char *out, size_t size)
{
    struct glob glob = {out, 0, size};

    for (size_t i = 0; i <= pattern->n_gaps; i++) {
        struct bytes value;

        if (!put_segment(&glob, pattern, &pattern->segments[i])) {
            return 0;
        }
        if (i == pattern->n_gaps) {
            break;
        }
        value = value_of(values, pattern->gaps[i].name);
        if (value.len == 0 && !put(&glob, '*')) {
            return 0;
        }
        for (size_t j = 0; j < value.len; j++) {
            if (!put_literal(&glob, value.ptr[j])) {
                return 0;
            }
        }
    }
    return glob.length;
}
