/*
 * Following a request that is passed on as it arrives. Headers are judged as the reader judges
 * them; a line longer than any that could be right is wrong.
 */
#include "resp/resp.h"

#include <stdio.h>

void resp_follow_begin(struct resp_follower *follower, const struct resp_partial *partial)
{
    *follower = (struct resp_follower){
        .skip_bytes = partial->has_bulk ? (uint64_t)partial->bulk_bytes + 2 : 0,
        .n_left = partial->n_left - partial->has_bulk,
    };
}

/* A whole header line, without its two last bytes. */
static bool take_header(struct resp_follower *follower, size_t max_bulk_bytes, const char **error)
{
    const struct bytes text = bytes_make(follower->line + 1, (size_t)follower->line_bytes - 3);
    int64_t length;

    follower->line_bytes = 0;
    if (!bytes_to_int64(text, &length) || length < 0 || (uint64_t)length > max_bulk_bytes) {
        *error = "Protocol error: invalid bulk length";
        return false;
    }
    follower->skip_bytes = (uint64_t)length + 2;
    follower->n_left--;
    return true;
}

/* One byte of a header line. Like Redis, whatever stands behind CR is taken for LF. */
static bool take_line_byte(struct resp_follower *follower, unsigned char byte,
                           size_t max_bulk_bytes, const char **error)
{
    const uint8_t n = follower->line_bytes;

    if (n == 0 && byte != '$') {
        /* The text ends up in an error line. */
        snprintf(follower->error, sizeof(follower->error), "Protocol error: expected '$', got '%c'",
                 byte == '\r' || byte == '\n' || byte == 0 ? ' ' : byte);
        *error = follower->error;
        return false;
    }
    if (n == sizeof(follower->line)) {
        *error = "Protocol error: invalid bulk length";
        return false;
    }
    follower->line[follower->line_bytes++] = byte;
    return n < 2 || follower->line[n - 1] != '\r' || take_header(follower, max_bulk_bytes, error);
}

enum resp_status resp_follow(struct resp_follower *follower, struct bytes input,
                             size_t max_bulk_bytes, size_t *used, const char **error)
{
    size_t at = 0;

    while (follower->n_left > 0 || follower->skip_bytes > 0) {
        if (at == input.len) {
            *used = at;
            return RESP_MORE;
        }
        if (follower->skip_bytes > 0) {
            const uint64_t rest = input.len - at;
            const uint64_t n = rest < follower->skip_bytes ? rest : follower->skip_bytes;

            follower->skip_bytes -= n;
            at += (size_t)n;
        } else if (!take_line_byte(follower, input.ptr[at++], max_bulk_bytes, error)) {
            return RESP_BAD;
        }
    }
    *used = at;
    return RESP_OK;
}
