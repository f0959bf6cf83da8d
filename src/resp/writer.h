/*
 * writer.h - composing replies that the proxy words itself
 *
 * Purpose:    append RESP2 or RESP3 values to a buffer.
 * Ownership:  the buffer is the caller's.
 * Threading:  one owner.
 * Errors:     running out of memory is remembered in has_failed, so that a reply is composed
 *             without checks and tested once at its end.
 */
#ifndef NC_RESP_WRITER_H
#define NC_RESP_WRITER_H

#include "base/buffer.h"
#include "base/check.h"

struct resp_writer {
    struct buffer *out;
    bool is_resp3;
    bool has_failed;
};

void resp_put_raw(struct resp_writer *writer, struct bytes bytes);
void resp_put_simple(struct resp_writer *writer, const char *text);
/* text without the leading '-', line breaks become spaces. */
void resp_put_error(struct resp_writer *writer, const char *format, ...) NC_PRINTF(2, 3);
void resp_put_integer(struct resp_writer *writer, int64_t value);
void resp_put_bulk(struct resp_writer *writer, struct bytes text);
void resp_put_string(struct resp_writer *writer, const char *text);
void resp_put_null(struct resp_writer *writer);
/* Human text: a verbatim string for RESP3, as the server does for INFO and CLIENT LIST. */
void resp_put_text(struct resp_writer *writer, struct bytes text);
void resp_put_array(struct resp_writer *writer, size_t n);
void resp_put_set(struct resp_writer *writer, size_t n);
void resp_put_map(struct resp_writer *writer, size_t n_pairs);

#endif
