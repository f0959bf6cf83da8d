/*
 * Finding the end of a reply that arrives in pieces.
 *
 * Design: a reply is a stream of headers, payloads and text lines. Its tree needs no stack: one
 * count of the values whose headers are still to come says when it ends, however deep it goes. No
 * byte is looked at twice; only a header line that the input cuts is copied, into the framer.
 */
#include "resp/resp.h"
#include "resp/wire.h"

bool resp_is_large(struct bytes begin, size_t limit)
{
    int64_t number;

    switch (begin.ptr[0]) {
    case '$':
    case '=':
        return wire_read_number(begin.ptr + 1, begin.ptr + begin.len, true, &number) > 0 &&
               number > 0 && (uint64_t)number > limit;
    case '*':
    case '%':
    case '~':
        return true;
    default:
        return false;
    }
}

static const unsigned char *skip_payload(struct resp_framer *framer, const unsigned char *at,
                                         const unsigned char *end)
{
    while (framer->skip_bytes > 0 && at < end) {
        if (framer->skip_bytes > 2) {
            const uint64_t here = (uint64_t)(end - at);
            const uint64_t n = here < framer->skip_bytes - 2 ? here : framer->skip_bytes - 2;

            at += n;
            framer->skip_bytes -= n;
        } else {
            if (*at != (framer->skip_bytes == 2 ? '\r' : '\n')) {
                return NULL;
            }
            at++;
            framer->skip_bytes--;
        }
    }
    return at;
}

/* To behind CRLF; a CR or LF alone is text, as in hiredis. */
static const unsigned char *skip_text(struct resp_framer *framer, const unsigned char *at,
                                      const unsigned char *end)
{
    const unsigned char *cr;

    if (framer->has_cr) {
        framer->has_cr = false;
        if (*at == '\n') {
            framer->is_in_text = false;
            return at + 1;
        }
    }
    while ((cr = memchr(at, '\r', (size_t)(end - at))) != NULL) {
        if (cr + 1 == end) {
            framer->has_cr = true;
            return end;
        }
        if (cr[1] == '\n') {
            framer->is_in_text = false;
            return cr + 2;
        }
        at = cr + 1;
    }
    return end;
}

/* A header with its number has been read. False: no RESP. */
static bool take_header(struct resp_framer *framer, unsigned char type, int64_t number)
{
    const enum wire_kind kind = wire_kinds[type];

    if (!wire_number_fits(kind, number) || framer->n_pending > UINT64_MAX / 2) {
        return false;
    }
    framer->n_pending--;
    if (number < 0) {
        return true;
    }
    switch (kind) {
    case WIRE_BULK:
        framer->skip_bytes = (uint64_t)number + 2;
        break;
    case WIRE_ARRAY:
        framer->n_pending += (uint64_t)number;
        break;
    case WIRE_MAP:
        framer->n_pending += 2 * (uint64_t)number;
        break;
    case WIRE_ATTRIBUTE:
        framer->n_pending += 2 * (uint64_t)number + 1;
        break;
    case WIRE_BAD:
    case WIRE_TEXT:
        return false;
    }
    return true;
}

/* Goes on with a header line whose beginning came with earlier input. */
static const unsigned char *resume_header(struct resp_framer *framer, const unsigned char *at,
                                          const unsigned char *end)
{
    const unsigned char type = framer->line[0];

    while (at < end) {
        int64_t number;
        int n_taken;

        if (framer->line_bytes == sizeof(framer->line)) {
            return NULL;
        }
        framer->line[framer->line_bytes++] = *at++;
        n_taken = wire_read_number(framer->line + 1, framer->line + framer->line_bytes,
                                   wire_is_nullable(type), &number);
        if (n_taken != WIRE_NUMBER_CUT) {
            framer->line_bytes = 0;
            return n_taken != WIRE_NUMBER_BAD && take_header(framer, type, number) ? at : NULL;
        }
    }
    return at;
}

/* Reads the header at the type byte *at; keeps it when the input cuts it. */
static const unsigned char *begin_value(struct resp_framer *framer, const unsigned char *at,
                                        const unsigned char *end)
{
    const unsigned char type = *at;
    int64_t number;
    int n_taken;

    if (wire_kinds[type] == WIRE_TEXT) {
        framer->n_pending--;
        framer->is_in_text = true;
        return at + 1;
    }
    if (wire_kinds[type] == WIRE_BAD) {
        return NULL;
    }
    n_taken = wire_read_number(at + 1, end, wire_is_nullable(type), &number);
    if (NC_LIKELY(n_taken > 0)) {
        return take_header(framer, type, number) ? at + 1 + n_taken : NULL;
    }
    if (n_taken == WIRE_NUMBER_BAD) {
        return NULL;
    }
    /* A line that is cut is shorter than the limit: wire_read_number() refuses longer ones. */
    framer->line_bytes = (uint8_t)(end - at);
    memcpy(framer->line, at, framer->line_bytes);
    return end;
}

enum resp_status resp_frame(struct resp_framer *framer, const unsigned char *data, size_t len,
                            size_t *used)
{
    const unsigned char *at = data;
    const unsigned char *const end = data + len;

    if (!framer->is_inside && len > 0) {
        framer->is_inside = true;
        framer->n_pending = 1;
    }
    while (at < end) {
        if (framer->skip_bytes > 0) {
            at = skip_payload(framer, at, end);
        } else if (framer->is_in_text) {
            at = skip_text(framer, at, end);
        } else if (NC_UNLIKELY(framer->line_bytes > 0)) {
            at = resume_header(framer, at, end);
        } else {
            at = begin_value(framer, at, end);
        }
        if (NC_UNLIKELY(at == NULL)) {
            return RESP_BAD;
        }
        if (framer->n_pending == 0 && framer->skip_bytes == 0 && !framer->is_in_text) {
            framer->is_inside = false;
            *used = (size_t)(at - data);
            return RESP_OK;
        }
    }
    *used = len;
    return RESP_MORE;
}
