/*
 * Large requests that are passed on: wherever the reader stops and the follower takes over, the
 * request ends where the reader alone finds its end, or both call it broken; the follower does not
 * mind in which pieces it is shown the rest.
 *
 * The first byte of the input chooses where the reader stops, the second one the pieces.
 */
#include "fuzz.h"

#include "resp/resp.h"

#define BULK_MAX ((size_t)512 << 20)

static const struct resp_reader_limits limits = {
    .max_args = INT32_MAX, .max_bulk_bytes = BULK_MAX, .max_inline_bytes = 64u << 10};

static enum resp_status read_whole(struct bytes input, size_t *end)
{
    struct resp_reader *reader = resp_reader_new();
    struct resp_request request;
    const char *error;
    size_t wanted;
    const enum resp_status status = resp_read_request(reader, input, &limits, true, &request,
                                                      &wanted, &error);

    *end = status == RESP_OK ? request.frame_bytes : 0;
    resp_reader_free(&reader);
    return status;
}

static enum resp_status follow(struct resp_follower follower, struct bytes rest, size_t step,
                               size_t *end)
{
    enum resp_status status = RESP_MORE;
    size_t at = 0;

    while (status == RESP_MORE && at < rest.len) {
        const struct bytes piece = bytes_make(rest.ptr + at,
                                              rest.len - at < step ? rest.len - at : step);
        unsigned char *const copy = fuzz_copy(piece);
        const char *error = NULL;
        size_t used = 0;

        status = resp_follow(&follower, bytes_make(copy, piece.len), BULK_MAX, &used, &error);
        MUST(status == RESP_BAD ? error != NULL : used <= piece.len);
        MUST(status != RESP_MORE || used == piece.len);
        at += used;
        free(copy);
    }
    *end = at;
    return status;
}

/* False: there is nothing to follow. */
static bool begin(struct bytes input, size_t cut, struct resp_partial *partial)
{
    struct resp_reader *reader = resp_reader_new();
    struct resp_request request;
    const char *error;
    size_t wanted;
    bool is_followed = false;

    if (resp_read_request(reader, bytes_make(input.ptr, cut), &limits, true, &request, &wanted,
                          &error) == RESP_MORE) {
        resp_reader_peek(reader, bytes_make(input.ptr, cut), partial);
        MUST(partial->n_all == 0 || partial->at <= cut);
        is_followed = partial->n_all > 0;
    }
    resp_reader_free(&reader);
    return is_followed;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t end = 0, followed_end = 0, split_end = 0;
    struct resp_follower follower;
    struct resp_partial partial;
    struct bytes input, rest;

    if (size < 3) {
        return 0;
    }
    input = bytes_make(data + 2, size - 2);
    if (!begin(input, 1 + data[0] % input.len, &partial)) {
        return 0;
    }
    rest = bytes_make(input.ptr + partial.at, input.len - partial.at);
    resp_follow_begin(&follower, &partial);
    const enum resp_status whole = read_whole(input, &end);
    const enum resp_status followed = rest.len > 0 ? follow(follower, rest, SIZE_MAX, &followed_end)
                                                   : RESP_MORE;

    MUST(rest.len == 0 || follow(follower, rest, 1u + data[1] % 16, &split_end) == followed);
    MUST(followed != RESP_OK || followed_end == split_end);
    /* The reader calls a line that has no end yet broken later than the follower, or sooner. */
    MUST((whole == RESP_OK) == (followed == RESP_OK));
    MUST(whole != RESP_OK || partial.at + followed_end == end);
    return 0;
}
