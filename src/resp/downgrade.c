/*
 * RESP3 to RESP2.
 *
 * Design: no tree is built. Each header is worded anew or kept, from left to right; what both
 * versions word alike (bulk strings, integers, arrays) is copied in runs as long as they last.
 * Only the pairs of WITHSCORES change the shape, and those stand at one known place.
 */
#include "resp/resp.h"

#include <errno.h>

struct rewriter {
    struct buffer *out;
    struct bytes at;          /* what is still to be read */
    const unsigned char *run; /* from here to the value in hand: to be copied as it is */
    enum resp_downgrade how;
};

static int append_header(struct buffer *out, char type, uint64_t number)
{
    char *room;
    size_t n;

    if (buffer_reserve(out, 24) != 0) {
        return -ENOMEM;
    }
    room = (char *)buffer_end(out);
    room[0] = type;
    n = 1 + bytes_from_int64((int64_t)number, room + 1);
    room[n++] = '\r';
    room[n++] = '\n';
    buffer_commit(out, n);
    return 0;
}

static int append_bulk(struct buffer *out, struct bytes text)
{
    int error = append_header(out, '$', text.len);

    if (error == 0) {
        error = buffer_append(out, text);
    }
    return error != 0 ? error : buffer_append(out, BYTES("\r\n"));
}

/* A bulk error becomes a line: what would end it early becomes a space, as in Redis. */
static int append_error(struct buffer *out, struct bytes text)
{
    unsigned char *room;

    if (text.len > SIZE_MAX - 3 || buffer_reserve(out, text.len + 3) != 0) {
        return -ENOMEM;
    }
    room = buffer_end(out);
    *room++ = '-';
    for (size_t i = 0; i < text.len; i++) {
        *room++ = text.ptr[i] == '\r' || text.ptr[i] == '\n' ? ' ' : text.ptr[i];
    }
    *room++ = '\r';
    *room++ = '\n';
    buffer_commit(out, text.len + 3);
    return 0;
}

/* "txt:" and the like are RESP3's own. */
static struct bytes verbatim_text(struct bytes text)
{
    const size_t n = text.len < 4 ? text.len : 4;

    return bytes_make(text.ptr + n, text.len - n);
}

static int append_null(struct rewriter *rewriter)
{
    return buffer_append(rewriter->out, rewriter->how == DOWNGRADE_NULL_ARRAYS ? BYTES("*-1\r\n")
                                                                               : BYTES("$-1\r\n"));
}

/* Words what RESP2 lacks; an attribute and all it holds is left out. */
static int reword(struct rewriter *rewriter, const struct resp_value *value)
{
    switch (value->type) {
    case '%':
    case '~':
    case '>':
        return append_header(rewriter->out, '*', value->n_children);
    case ',':
    case '(':
        return append_bulk(rewriter->out, value->text);
    case '=':
        return append_bulk(rewriter->out, verbatim_text(value->text));
    case '!':
        return append_error(rewriter->out, value->text);
    case '#':
        return append_header(rewriter->out, ':', bytes_start_with(value->text, BYTES("t")));
    case '_':
        return append_null(rewriter);
    case '|':
        for (size_t i = 0; i < value->n_children; i++) {
            if (!resp_skip(&rewriter->at)) {
                return -EINVAL;
            }
        }
        return 0;
    default:
        return -EINVAL;
    }
}

static int flush_run(struct rewriter *rewriter, const unsigned char *to)
{
    const size_t n = (size_t)(to - rewriter->run);

    return n == 0 ? 0 : buffer_append(rewriter->out, bytes_make(rewriter->run, n));
}

static bool stays_as_it_is(unsigned char type)
{
    return type == '$' || type == '*' || type == ':' || type == '+' || type == '-';
}

/* One whole value. */
static int rewrite_value(struct rewriter *rewriter)
{
    uint64_t n_pending = 1;

    while (n_pending > 0) {
        const unsigned char *const start = rewriter->at.ptr;
        struct resp_value value;
        int error;

        if (n_pending > rewriter->at.len || !resp_next(&rewriter->at, &value)) {
            return -EINVAL;
        }
        if (!stays_as_it_is(value.type)) {
            error = flush_run(rewriter, start);
            if (error == 0) {
                error = reword(rewriter, &value);
            }
            if (error != 0) {
                return error;
            }
            rewriter->run = rewriter->at.ptr;
        }
        if (value.type != '|') {
            n_pending += value.n_children;
            n_pending--;
        }
    }
    return 0;
}

/* An array of pairs as one flat array; false when the reply is something else (an error, none). */
static bool has_pairs(struct bytes reply, struct resp_value *array)
{
    struct resp_value first;

    return resp_next(&reply, array) && array->type == '*' && array->n_children > 0 &&
           resp_next(&reply, &first) && first.type == '*' && first.n_children == 2;
}

static int rewrite_pairs(struct rewriter *rewriter, const struct resp_value *array)
{
    struct resp_value skipped;
    int error = append_header(rewriter->out, '*', 2 * (uint64_t)array->n_children);

    if (!resp_next(&rewriter->at, &skipped)) {
        return -EINVAL;
    }
    rewriter->run = rewriter->at.ptr;
    for (size_t i = 0; error == 0 && i < array->n_children; i++) {
        struct resp_value pair;

        error = flush_run(rewriter, rewriter->at.ptr);
        if (!resp_next(&rewriter->at, &pair) || pair.type != '*' || pair.n_children != 2) {
            return -EINVAL;
        }
        rewriter->run = rewriter->at.ptr;
        for (unsigned half = 0; error == 0 && half < 2; half++) {
            error = rewrite_value(rewriter);
        }
    }
    return error;
}

int resp_downgrade(struct bytes reply, enum resp_downgrade how, struct buffer *out)
{
    struct rewriter rewriter = {.out = out, .at = reply, .run = reply.ptr, .how = how};
    struct resp_value array;
    const size_t old_len = buffer_len(out);
    int error;

    if (how == DOWNGRADE_PAIRS && has_pairs(reply, &array)) {
        error = rewrite_pairs(&rewriter, &array);
    } else {
        error = rewrite_value(&rewriter);
    }
    if (error == 0 && rewriter.at.len > 0) {
        error = -EINVAL;
    }
    if (error == 0) {
        error = flush_run(&rewriter, rewriter.at.ptr);
    }
    if (error != 0) {
        out->tail = out->head + old_len;
    }
    return error;
}
