/*
 * Replies: any split of the input frames like the whole; the cursor ends a reply where the framer
 * does; what the cursor reads, written anew, is the reply itself. Each reply may also be a COMMAND
 * reply to learn from.
 *
 * The first byte of the input chooses the split.
 */
#include "fuzz.h"

#include "resp/command.h"

#include <stdio.h>

/* Where the reply at the start of input ends, 0 when it does not; in steps, each a copy. */
static enum resp_status frame_in_steps(struct bytes input, size_t step, size_t *end)
{
    struct resp_framer framer = {0};
    enum resp_status status = RESP_MORE;
    size_t at = 0;

    while (status == RESP_MORE && at < input.len) {
        const size_t n = input.len - at < step ? input.len - at : step;
        unsigned char *const copy = malloc(n);
        size_t used = 0;

        MUST(copy != NULL);
        memcpy(copy, input.ptr + at, n);
        status = resp_frame(&framer, copy, n, &used);
        MUST(status == RESP_BAD || used <= n);
        MUST(status != RESP_MORE || (used == n && framer.is_inside));
        MUST(status != RESP_OK || !framer.is_inside);
        at += used;
        free(copy);
    }
    *end = at;
    return status;
}

static void append_value(struct buffer *out, const struct resp_value *value)
{
    char header[32];

    switch (value->type) {
    case '$':
    case '=':
    case '!':
        snprintf(header, sizeof(header), "%c%lld\r\n", value->type,
                 value->is_null ? -1 : (long long)value->text.len);
        MUST(buffer_append(out, bytes_of_string(header)) == 0);
        if (value->is_null) {
            return;
        }
        break;
    case '*':
    case '~':
    case '>':
    case '%':
    case '|':
        snprintf(header, sizeof(header), "%c%lld\r\n", value->type,
                 value->is_null ? -1
                                : (long long)value->n_children /
                                      (value->type == '%' || value->type == '|' ? 2 : 1));
        MUST(buffer_append(out, bytes_of_string(header)) == 0);
        return;
    default:
        MUST(buffer_append(out, bytes_make(&value->type, 1)) == 0);
        break;
    }
    MUST(buffer_append(out, value->text) == 0);
    MUST(buffer_append(out, BYTES("\r\n")) == 0);
}

static void check_rewritten(struct bytes reply)
{
    struct bytes at = reply;
    struct buffer out;
    struct resp_value value;

    buffer_init(&out);
    while (resp_next(&at, &value)) {
        append_value(&out, &value);
    }
    MUST(at.len == 0 && bytes_equal(reply, buffer_bytes(&out)));
    buffer_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes rest;
    size_t step;

    if (size == 0) {
        return 0;
    }
    step = 1u + data[0] % 32;
    rest = bytes_make(data + 1, size - 1);
    while (rest.len > 0) {
        size_t end = 0, split_end = 0;
        const enum resp_status status = frame_in_steps(rest, SIZE_MAX, &end);
        struct bytes at = rest;
        struct command_set *set;

        MUST(frame_in_steps(rest, step, &split_end) == status);
        MUST(resp_skip(&at) == (status == RESP_OK));
        if (status != RESP_OK) {
            return 0;
        }
        MUST(split_end == end && rest.len - at.len == end);
        check_rewritten(bytes_make(rest.ptr, end));
        set = command_set_from_reply(bytes_make(rest.ptr, end));
        command_set_unref(&set);
        rest = at;
    }
    return 0;
}
