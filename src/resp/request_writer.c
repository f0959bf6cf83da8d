/* Writing requests: used for what clients sent inline, for parts of split commands, for our own. */
#include "resp/resp.h"

#include <errno.h>

/* A type byte, up to 20 digits, CRLF. */
#define MAX_HEADER_BYTES 23

static unsigned char *write_header(unsigned char *at, char type, size_t number)
{
    *at++ = (unsigned char)type;
    at += bytes_from_int64((int64_t)number, (char *)at);
    *at++ = '\r';
    *at++ = '\n';
    return at;
}

int resp_write_request(struct buffer *out, const struct bytes *argv, unsigned argc)
{
    size_t size = MAX_HEADER_BYTES;
    unsigned char *at;
    int error;

    for (unsigned i = 0; i < argc; i++) {
        if (argv[i].len > (size_t)INT64_MAX - size - MAX_HEADER_BYTES - 2) {
            return -ENOMEM;
        }
        size += argv[i].len + MAX_HEADER_BYTES + 2;
    }
    error = buffer_reserve(out, size);
    if (error != 0) {
        return error;
    }
    at = write_header(buffer_end(out), '*', argc);
    for (unsigned i = 0; i < argc; i++) {
        at = write_header(at, '$', argv[i].len);
        if (argv[i].len > 0) {
            memcpy(at, argv[i].ptr, argv[i].len);
            at += argv[i].len;
        }
        *at++ = '\r';
        *at++ = '\n';
    }
    buffer_commit(out, (size_t)(at - buffer_end(out)));
    return 0;
}
