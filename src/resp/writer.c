#include "resp/writer.h"

#include <stdarg.h>
#include <stdio.h>

void resp_put_raw(struct resp_writer *writer, struct bytes bytes)
{
    if (buffer_append(writer->out, bytes) != 0) {
        writer->has_failed = true;
    }
}

static void put_header(struct resp_writer *writer, char type, int64_t value)
{
    char line[24];
    size_t length;

    line[0] = type;
    length = 1 + bytes_from_int64(value, line + 1);
    line[length++] = '\r';
    line[length++] = '\n';
    resp_put_raw(writer, bytes_make(line, length));
}

void resp_put_simple(struct resp_writer *writer, const char *text)
{
    resp_put_raw(writer, BYTES("+"));
    resp_put_raw(writer, bytes_of_string(text));
    resp_put_raw(writer, BYTES("\r\n"));
}

void resp_put_error(struct resp_writer *writer, const char *format, ...)
{
    char text[512];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    for (char *at = text; *at != '\0'; at++) {
        if (*at == '\r' || *at == '\n') {
            *at = ' ';
        }
    }
    resp_put_raw(writer, BYTES("-"));
    resp_put_raw(writer, bytes_of_string(text));
    resp_put_raw(writer, BYTES("\r\n"));
}

void resp_put_integer(struct resp_writer *writer, int64_t value)
{
    put_header(writer, ':', value);
}

void resp_put_bulk(struct resp_writer *writer, struct bytes text)
{
    put_header(writer, '$', (int64_t)text.len);
    resp_put_raw(writer, text);
    resp_put_raw(writer, BYTES("\r\n"));
}

void resp_put_string(struct resp_writer *writer, const char *text)
{
    resp_put_bulk(writer, bytes_of_string(text));
}

void resp_put_null(struct resp_writer *writer)
{
    resp_put_raw(writer, writer->is_resp3 ? BYTES("_\r\n") : BYTES("$-1\r\n"));
}

void resp_put_text(struct resp_writer *writer, struct bytes text)
{
    if (!writer->is_resp3) {
        resp_put_bulk(writer, text);
        return;
    }
    put_header(writer, '=', (int64_t)text.len + 4);
    resp_put_raw(writer, BYTES("txt:"));
    resp_put_raw(writer, text);
    resp_put_raw(writer, BYTES("\r\n"));
}

void resp_put_array(struct resp_writer *writer, size_t n)
{
    put_header(writer, '*', (int64_t)n);
}

void resp_put_map(struct resp_writer *writer, size_t n_pairs)
{
    put_header(writer, writer->is_resp3 ? '%' : '*',
               (int64_t)(writer->is_resp3 ? n_pairs : 2 * n_pairs));
}

void resp_put_set(struct resp_writer *writer, size_t n)
{
    put_header(writer, writer->is_resp3 ? '~' : '*', (int64_t)n);
}
