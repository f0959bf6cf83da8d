/* Walking through a reply that is complete: one value after the other, no recursion. */
#include "resp/resp.h"
#include "resp/wire.h"

/* The text behind a type byte, up to CRLF. Returns the bytes up to behind it, 0: no end. */
static size_t read_text(const unsigned char *start, const unsigned char *end, struct bytes *text)
{
    const unsigned char *at = start, *cr;

    while ((cr = memchr(at, '\r', (size_t)(end - at))) != NULL && cr + 1 < end) {
        if (cr[1] == '\n') {
            *text = bytes_make(start, (size_t)(cr - start));
            return (size_t)(cr + 2 - start);
        }
        at = cr + 1;
    }
    return 0;
}

/* What follows a header of that kind. Returns the bytes of a payload and its CRLF, or -1. */
static int64_t read_body(enum wire_kind kind, int64_t number, const unsigned char *at,
                         const unsigned char *end, struct resp_value *value)
{
    if (!wire_number_fits(kind, number)) {
        return -1;
    }
    if (number < 0) {
        value->is_null = true;
        return 0;
    }
    if (kind == WIRE_ARRAY) {
        value->n_children = (size_t)number;
        return 0;
    }
    if (kind != WIRE_BULK) {
        value->n_children = 2 * (size_t)number;
        return 0;
    }
    if (end - at < 2 || number > end - at - 2 || at[number] != '\r' || at[number + 1] != '\n') {
        return -1;
    }
    value->text = bytes_make(at, (size_t)number);
    return number + 2;
}

bool resp_next(struct bytes *at, struct resp_value *value)
{
    const unsigned char *const start = at->ptr, *const end = start + at->len;
    struct resp_value read = {0};
    size_t taken = 1;

    if (at->len == 0) {
        return false;
    }
    read.type = *start;
    if (wire_kinds[read.type] == WIRE_BAD) {
        return false;
    }
    if (wire_kinds[read.type] == WIRE_TEXT) {
        const size_t n = read_text(start + 1, end, &read.text);

        if (n == 0) {
            return false;
        }
        read.is_null = read.type == '_';
        taken += n;
    } else {
        int64_t number, body;
        const int n = wire_read_number(start + 1, end, wire_is_nullable(read.type), &number);

        if (n <= 0) {
            return false;
        }
        body = read_body(wire_kinds[read.type], number, start + 1 + n, end, &read);
        if (body < 0) {
            return false;
        }
        taken += (size_t)n + (size_t)body;
    }
    *at = bytes_make(start + taken, at->len - taken);
    *value = read;
    return true;
}

bool resp_skip(struct bytes *at)
{
    struct bytes rest = *at;
    struct resp_value value;
    uint64_t n_pending = 1;

    while (n_pending > 0) {
        /* Every child takes bytes: what does not fit into the rest cannot be there. */
        if (n_pending > rest.len || !resp_next(&rest, &value)) {
            return false;
        }
        n_pending += value.n_children;
        if (value.type != '|') {
            n_pending--;
        }
    }
    *at = rest;
    return true;
}

static bool is_resp2_type(unsigned char type)
{
    return type == '$' || type == '*' || type == ':' || type == '+' || type == '-';
}

bool resp_is_same_in_both(struct bytes reply)
{
    struct resp_value value;

    if (reply.len == 0 || !is_resp2_type(*reply.ptr)) {
        return false;
    }
    if (*reply.ptr != '*') {
        return true;
    }
    while (reply.len > 0) {
        if (!is_resp2_type(*reply.ptr) || !resp_next(&reply, &value)) {
            return false;
        }
    }
    return true;
}
