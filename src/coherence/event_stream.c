#include "coherence/event_stream.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "resp/resp.h"

/* What XINFO STREAM says. */
struct summary {
    bool exists, has_count, has_first;
    struct stream_id last, first;
    uint64_t count;
};

void stream_id_format(struct stream_id id, char out[STREAM_ID_MAX])
{
    (void)snprintf(out, STREAM_ID_MAX, "%" PRIu64 "-%" PRIu64, id.ms, id.seq);
}

static bool parse_number(struct bytes text, uint64_t *number)
{
    char digits[24], *end;

    if (text.len == 0 || text.len >= sizeof(digits) || text.ptr[0] < '0' || text.ptr[0] > '9') {
        return false;
    }
    memcpy(digits, text.ptr, text.len);
    digits[text.len] = '\0';
    *number = strtoull(digits, &end, 10);
    return *end == '\0';
}

static bool parse_id(struct bytes text, struct stream_id *id)
{
    const unsigned char *const dash = text.len > 0 ? memchr(text.ptr, '-', text.len) : NULL;

    return dash != NULL && parse_number(bytes_make(text.ptr, (size_t)(dash - text.ptr)), &id->ms) &&
           parse_number(bytes_make(dash + 1, (size_t)(text.ptr + text.len - dash - 1)), &id->seq);
}

static int compare(struct stream_id a, struct stream_id b)
{
    if (a.ms != b.ms) {
        return a.ms < b.ms ? -1 : 1;
    }
    return a.seq == b.seq ? 0 : (a.seq < b.seq ? -1 : 1);
}

/* ---- XINFO STREAM ---- */

static bool take_first_entry(struct bytes value, struct summary *summary)
{
    struct resp_value head, id;

    if (!resp_next(&value, &head)) {
        return false;
    }
    summary->has_first = head.type == '*' && head.n_children > 0 && resp_next(&value, &id) &&
                         parse_id(id.text, &summary->first);
    return true;
}

static bool take_member(struct bytes name, struct bytes value, struct summary *summary,
                        bool *has_last)
{
    struct bytes at = value;
    struct resp_value head;

    if (!resp_next(&at, &head)) {
        return false;
    }
    if (bytes_equal(name, BYTES("last-generated-id"))) {
        *has_last = parse_id(head.text, &summary->last);
    } else if (bytes_equal(name, BYTES("entries-added"))) {
        summary->has_count = parse_number(head.text, &summary->count);
    } else if (bytes_equal(name, BYTES("first-entry"))) {
        return take_first_entry(value, summary);
    }
    return true;
}

static bool parse_info(struct bytes info, struct summary *summary)
{
    struct resp_value head, name;
    bool has_last = false;

    *summary = (struct summary){0};
    if (!resp_next(&info, &head)) {
        return false;
    }
    if (head.type == '-') {
        /* An empty place; a count of zero is right with any server. */
        summary->has_count = true;
        return bytes_start_with(head.text, BYTES("ERR no such key"));
    }
    if (head.type != '*' || head.n_children % 2 != 0) {
        return false;
    }
    summary->exists = true;
    for (size_t i = 0; i < head.n_children; i += 2) {
        struct bytes value;

        if (!resp_next(&info, &name)) {
            return false;
        }
        value = info;
        if (!resp_skip(&info)) {
            return false;
        }
        value.len -= info.len;
        if (!take_member(name.text, value, summary, &has_last)) {
            return false;
        }
    }
    return has_last;
}

static void place(struct event_stream *stream, const struct summary *summary)
{
    *stream = (struct event_stream){
        .is_placed = true,
        .at = summary->last,
        .has_count = summary->has_count,
        .count = summary->count,
    };
}

bool event_stream_place(struct event_stream *stream, struct bytes info)
{
    struct summary summary;

    if (!parse_info(info, &summary)) {
        return false;
    }
    place(stream, &summary);
    return true;
}

/* ---- XREAD ---- */

/* The field's value among n words; they are taken off the front. False: malformed. */
static bool take_fields(struct bytes *at, size_t n, struct bytes field, struct bytes *payload)
{
    struct resp_value name, value;

    *payload = (struct bytes){0};
    for (size_t i = 0; i + 1 < n; i += 2) {
        if (!resp_next(at, &name) || !resp_next(at, &value)) {
            return false;
        }
        if (payload->ptr == NULL && bytes_equal(name.text, field)) {
            *payload = value.text;
        }
    }
    return n % 2 == 0;
}

/* An array of entries: id and fields. NULL as on_entry: they are only looked at. */
static bool walk_entries(struct bytes *at, struct bytes field, stream_entry_fn on_entry,
                         void *context, unsigned *n, struct stream_id *last)
{
    struct resp_value list, entry, id, fields;

    if (!resp_next(at, &list) || list.type != '*') {
        return false;
    }
    for (size_t i = 0; i < list.n_children; i++) {
        struct bytes payload;

        if (!resp_next(at, &entry) || entry.n_children != 2 || !resp_next(at, &id) ||
            !parse_id(id.text, last) || !resp_next(at, &fields) || fields.type != '*') {
            return false;
        }
        if (!take_fields(at, fields.n_children, field, &payload)) {
            return false;
        }
        if (on_entry != NULL) {
            on_entry(context, payload);
        }
        ++*n;
    }
    return true;
}

/* NULL, or an array of one stream: its name and entries. */
static bool walk_read(struct bytes read, struct bytes field, stream_entry_fn on_entry,
                      void *context, unsigned *n, struct stream_id *last)
{
    struct resp_value head, stream, name;

    *n = 0;
    if (!resp_next(&read, &head)) {
        return false;
    }
    if (head.is_null) {
        return true;
    }
    return head.type == '*' && head.n_children == 1 && resp_next(&read, &stream) &&
           stream.n_children == 2 && resp_next(&read, &name) &&
           walk_entries(&read, field, on_entry, context, n, last);
}

/* Older servers: the entry read last must still stand before what was read now. */
static bool has_passed(const struct event_stream *stream, const struct summary *summary, unsigned n)
{
    const bool is_first = stream->at.ms == 0 && stream->at.seq == 0;

    if (!summary->exists || is_first) {
        return false;
    }
    if (!summary->has_first) {
        return n == 0 && compare(summary->last, stream->at) > 0;
    }
    return compare(summary->first, stream->at) > 0;
}

bool event_stream_take(struct event_stream *stream, struct bytes exec, struct bytes field,
                       unsigned max, stream_entry_fn on_entry, void *context, unsigned *n,
                       bool *has_missed)
{
    struct stream_id last = stream->at;
    struct summary summary;
    struct resp_value head;
    struct bytes read;

    if (!resp_next(&exec, &head) || head.type != '*' || head.n_children != 2) {
        return false;
    }
    read = exec;
    if (!resp_skip(&exec) || !parse_info(exec, &summary) ||
        !walk_read(read, field, NULL, NULL, n, &last)) {
        return false;
    }
    (void)walk_read(read, field, on_entry, context, n, &last);
    const bool is_anew = compare(summary.last, last) < 0 ||
                         (stream->has_count && summary.has_count && summary.count < stream->count);
    const bool is_at_end = *n < max || compare(last, summary.last) == 0;

    *has_missed = is_anew;
    if (!is_anew && stream->has_count && summary.has_count) {
        *has_missed = is_at_end && summary.count - stream->count != stream->n_read + *n;
    } else if (!is_anew) {
        *has_missed = has_passed(stream, &summary, *n);
    }
    if (*has_missed && is_at_end) {
        place(stream, &summary);
        return true;
    }
    stream->at = last;
    stream->n_read += *n;
    if (!stream->has_count && is_at_end) {
        place(stream, &summary);
    }
    return true;
}
