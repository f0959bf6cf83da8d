/*
 * Reading requests.
 *
 * Design: the reader is shown the same bytes again until a request is complete, at an address that
 * may have changed. So it keeps offsets: where it stands, which arguments it has located (their
 * ptr holds an offset until the request is complete) and how far a line end was sought in vain.
 * Short headers that lie wholly in the input take a straight path of a few compares. Everything
 * else about a header (cut, too long, wrong, tolerated) is decided by read_line(), in Redis's order
 * and with its texts (processMultibulkBuffer() and processInlineBuffer() in networking.c of 7.0,
 * sdssplitargs() in sds.c). What is decided depends on the bytes only, never on how they arrive.
 */
#include "resp/resp.h"

#include "base/mem.h"

#include <limits.h>
#include <stdio.h>

/* GET, SET and their kind; larger requests use heap memory. */
#define FEW_ARGS 8
/* A larger array goes back after its request: an idle connection must not hold it. */
#define KEEP_ARGS 64
#define KEEP_SCRATCH 512
/* What a client that has not logged in may send, as Redis 7.0. */
#define UNTRUSTED_ARGS 10
#define UNTRUSTED_BULK_BYTES 16384

struct resp_reader {
    struct bytes *argv; /* points at few, or at heap memory */
    unsigned capacity;
    unsigned argc;
    unsigned n_left;   /* arguments declared and not located yet */
    size_t at;         /* offset of the first byte that is not understood yet */
    size_t scanned;    /* so many bytes from `at` on hold no line end */
    size_t bulk_bytes; /* of the argument in hand; its header has been read */
    bool is_inside;
    bool has_count, has_bulk;
    bool is_odd;            /* a line end is not CRLF */
    unsigned char *scratch; /* of arguments in quotes */
    size_t scratch_bytes;
    char error[40];
    struct bytes few[FEW_ARGS];
};

struct input {
    const unsigned char *start, *end;
    size_t max_line_bytes, max_args, max_bulk_bytes;
    bool is_trusted;
    size_t wanted;
    const char *error;
};

struct resp_reader *resp_reader_new(void)
{
    struct resp_reader *reader = mem_alloc(sizeof(*reader));

    reader->argv = reader->few;
    reader->capacity = FEW_ARGS;
    return reader;
}

static void release_large(struct resp_reader *reader, unsigned keep_args, size_t keep_scratch)
{
    if (reader->capacity > keep_args) {
        mem_free(reader->argv);
        reader->argv = reader->few;
        reader->capacity = FEW_ARGS;
    }
    if (reader->scratch_bytes > keep_scratch) {
        mem_free(reader->scratch);
        reader->scratch = NULL;
        reader->scratch_bytes = 0;
    }
}

void resp_reader_free(struct resp_reader **reader)
{
    if (*reader != NULL) {
        release_large(*reader, FEW_ARGS, 0);
        mem_free(*reader);
        *reader = NULL;
    }
}

static void begin_request(struct resp_reader *reader)
{
    reader->argc = 0;
    reader->n_left = 0;
    reader->at = 0;
    reader->scanned = 0;
    reader->has_count = false;
    reader->has_bulk = false;
    reader->is_odd = false;
}

void resp_reader_reset(struct resp_reader *reader)
{
    reader->is_inside = false;
    begin_request(reader);
    release_large(reader, KEEP_ARGS, KEEP_SCRATCH);
}

bool resp_reader_is_inside(const struct resp_reader *reader)
{
    return reader->is_inside;
}

void resp_reader_peek(const struct resp_reader *reader, struct bytes input,
                      struct resp_partial *partial)
{
    *partial = (struct resp_partial){0};
    if (!reader->is_inside || !reader->has_count) {
        return;
    }
    while (partial->argc < reader->argc && partial->argc < RESP_PARTIAL_ARGS) {
        const struct bytes argument = reader->argv[partial->argc];

        partial->argv[partial->argc++] = bytes_make(input.ptr + (uintptr_t)argument.ptr,
                                                    argument.len);
    }
    partial->n_all = reader->argc + reader->n_left;
    partial->n_left = reader->n_left;
    partial->at = reader->at;
    partial->has_bulk = reader->has_bulk;
    partial->bulk_bytes = reader->bulk_bytes;
}

static enum resp_status refuse(struct input *input, const char *error)
{
    input->error = error;
    return RESP_BAD;
}

static enum resp_status want(struct input *input, size_t n_bytes)
{
    input->wanted = n_bytes;
    return RESP_MORE;
}

/*
 * Room for one more argument. A declared count allocates nothing: the array doubles as arguments
 * arrive, so that memory stays in proportion to the bytes that a client really sent.
 */
static bool make_room(struct resp_reader *reader)
{
    struct bytes *grown;
    unsigned capacity;

    if (NC_LIKELY(reader->argc < reader->capacity)) {
        return true;
    }
    if (reader->capacity > UINT_MAX / 2) {
        return false;
    }
    capacity = 2 * reader->capacity;
    if (reader->argv == reader->few) {
        grown = mem_try_alloc(capacity * sizeof(*grown));
        if (grown != NULL) {
            memcpy(grown, reader->few, sizeof(reader->few));
        }
    } else {
        grown = mem_try_realloc(reader->argv, capacity * sizeof(*grown));
    }
    if (grown == NULL) {
        return false;
    }
    reader->argv = grown;
    reader->capacity = capacity;
    return true;
}

/* ---- multibulk ---- */

/*
 * A number of at most six digits and its CRLF, wholly in the input: what nearly every header is.
 * NULL: anything else; read_line() finds out what.
 */
static inline const unsigned char *read_short_number(const unsigned char *at,
                                                     const unsigned char *end, unsigned *number)
{
    unsigned n, digit;

    if (NC_UNLIKELY(end - at < 3)) {
        return NULL;
    }
    n = (unsigned)(*at++ - '0');
    if (n > 9) {
        return NULL;
    }
    if (n > 0) {
        const unsigned char *const last = end - at > 7 ? at + 5 : end - 2;

        while (at < last && (digit = (unsigned)(*at - '0')) <= 9) {
            n = n * 10 + digit;
            at++;
        }
    }
    *number = n;
    return at[0] == '\r' && at[1] == '\n' ? at + 2 : NULL;
}

/*
 * The header line at reader->at: *text is what stands between its first byte and CR. Redis takes
 * any byte behind CR for LF, and wants it to be there.
 */
static enum resp_status read_line(struct resp_reader *reader, struct input *input,
                                  const char *too_long, struct bytes *text)
{
    const unsigned char *const line = input->start + reader->at;
    const size_t rest = (size_t)(input->end - line);
    const size_t limit = input->max_line_bytes;
    const size_t seen = rest <= limit ? rest : limit + 1;
    const unsigned char *const cr = memchr(line + reader->scanned, '\r', seen - reader->scanned);

    if (cr == NULL) {
        reader->scanned = seen;
        return rest > limit ? refuse(input, too_long) : want(input, 1);
    }
    if (cr + 1 == input->end) {
        reader->scanned = (size_t)(cr - line);
        return want(input, 1);
    }
    if (cr[1] != '\n') {
        reader->is_odd = true;
    }
    reader->scanned = 0;
    reader->at += (size_t)(cr + 2 - line);
    /* A line that begins with CR has no type byte: its text is empty, its first byte the CR. */
    *text = cr == line ? bytes_make(line, 0) : bytes_make(line + 1, (size_t)(cr - line) - 1);
    return RESP_OK;
}

static enum resp_status read_count_line(struct resp_reader *reader, struct input *input)
{
    int64_t count;
    struct bytes text;
    const enum resp_status status = read_line(reader, input,
                                              "Protocol error: too big mbulk count string", &text);

    if (status != RESP_OK) {
        return status;
    }
    if (!bytes_to_int64(text, &count) || (count > 0 && (uint64_t)count > input->max_args)) {
        return refuse(input, "Protocol error: invalid multibulk length");
    }
    if (count > UNTRUSTED_ARGS && !input->is_trusted) {
        return refuse(input, "Protocol error: unauthenticated multibulk length");
    }
    reader->n_left = count > 0 ? (unsigned)count : 0;
    reader->has_count = true;
    return RESP_OK;
}

static enum resp_status refuse_first_byte(struct resp_reader *reader, struct input *input,
                                          unsigned char byte)
{
    /* The text ends up in an error line, and is a C string. */
    if (byte == '\r' || byte == '\n' || byte == 0) {
        byte = ' ';
    }
    snprintf(reader->error, sizeof(reader->error), "Protocol error: expected '$', got '%c'", byte);
    return refuse(input, reader->error);
}

static enum resp_status read_bulk_line(struct resp_reader *reader, struct input *input)
{
    const unsigned char *const line = input->start + reader->at;
    int64_t length;
    struct bytes text;
    const enum resp_status status = read_line(reader, input,
                                              "Protocol error: too big bulk count string", &text);

    if (status != RESP_OK) {
        return status;
    }
    if (*line != '$') {
        return refuse_first_byte(reader, input, *line);
    }
    if (!bytes_to_int64(text, &length) || length < 0 || (uint64_t)length > input->max_bulk_bytes) {
        return refuse(input, "Protocol error: invalid bulk length");
    }
    if (length > UNTRUSTED_BULK_BYTES && !input->is_trusted) {
        return refuse(input, "Protocol error: unauthenticated bulk length");
    }
    reader->bulk_bytes = (size_t)length;
    reader->has_bulk = true;
    return RESP_OK;
}

static enum resp_status read_count(struct resp_reader *reader, struct input *input)
{
    unsigned count;
    const unsigned char *const next = read_short_number(input->start + 1, input->end, &count);

    if (NC_UNLIKELY(next == NULL || count > UNTRUSTED_ARGS || count > input->max_args)) {
        return read_count_line(reader, input);
    }
    reader->at = (size_t)(next - input->start);
    reader->scanned = 0;
    reader->n_left = count;
    reader->has_count = true;
    return RESP_OK;
}

static inline enum resp_status read_bulk_header(struct resp_reader *reader, struct input *input)
{
    const unsigned char *const line = input->start + reader->at, *next;
    unsigned length;

    if (NC_LIKELY(line < input->end && *line == '$')) {
        next = read_short_number(line + 1, input->end, &length);
        if (NC_LIKELY(next != NULL && length <= UNTRUSTED_BULK_BYTES &&
                      length <= input->max_bulk_bytes)) {
            reader->at = (size_t)(next - input->start);
            reader->scanned = 0;
            reader->bulk_bytes = length;
            reader->has_bulk = true;
            return RESP_OK;
        }
    }
    return read_bulk_line(reader, input);
}

static enum resp_status read_multibulk(struct resp_reader *reader, struct input *input)
{
    enum resp_status status = RESP_OK;

    if (!reader->has_count) {
        status = read_count(reader, input);
    }
    while (status == RESP_OK && reader->n_left > 0) {
        const unsigned char *payload;
        size_t rest;

        if (!reader->has_bulk) {
            status = read_bulk_header(reader, input);
            if (NC_UNLIKELY(status != RESP_OK)) {
                return status;
            }
        }
        payload = input->start + reader->at;
        rest = (size_t)(input->end - payload);
        if (rest < 2 || rest - 2 < reader->bulk_bytes) {
            return want(input, reader->bulk_bytes + 2 - rest);
        }
        if (!make_room(reader)) {
            return refuse(input, "out of memory");
        }
        reader->argv[reader->argc++] = bytes_make((const unsigned char *)(uintptr_t)reader->at,
                                                  reader->bulk_bytes);
        payload += reader->bulk_bytes;
        if (NC_UNLIKELY(payload[0] != '\r' || payload[1] != '\n')) {
            reader->is_odd = true;
        }
        reader->at += reader->bulk_bytes + 2;
        reader->has_bulk = false;
        reader->n_left--;
    }
    return status;
}

/* The request is complete: its offsets become addresses. */
static void place_arguments(struct resp_reader *reader, const unsigned char *start)
{
    for (unsigned i = 0; i < reader->argc; i++) {
        reader->argv[i].ptr = start + (uintptr_t)reader->argv[i].ptr;
    }
}

/* ---- inline ---- */

/* isspace() in the C locale. */
static bool is_space(unsigned char byte)
{
    return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

/* What ends a word outside quotes: fewer bytes than what is skipped before one. */
static bool ends_word(unsigned char byte)
{
    return byte == ' ' || byte == '\n' || byte == '\r' || byte == '\t';
}

static int hex_digit(unsigned char byte)
{
    if (byte >= '0' && byte <= '9') {
        return byte - '0';
    }
    byte |= 0x20;
    return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

/* A line in the making: read from at, written to out. */
struct words {
    const unsigned char *at, *end;
    unsigned char *out;
};

/* The escape behind a backslash. */
static void read_escape(struct words *words)
{
    static const char names[] = "nrtba", values[] = "\n\r\t\b\a";
    const unsigned char byte = *words->at;
    const char *name;

    if (byte == 'x' && words->end - words->at >= 3 && hex_digit(words->at[1]) >= 0 &&
        hex_digit(words->at[2]) >= 0) {
        *words->out++ = (unsigned char)(hex_digit(words->at[1]) * 16 + hex_digit(words->at[2]));
        words->at += 3;
        return;
    }
    name = byte == 0 ? NULL : strchr(names, byte);
    *words->out++ = name != NULL ? (unsigned char)values[name - names] : byte;
    words->at++;
}

/* From behind the opening quote to behind the closing one, which must end the word. */
static bool read_quoted(struct words *words, unsigned char quote)
{
    while (words->at < words->end) {
        const unsigned char byte = *words->at++;

        if (byte == quote) {
            return words->at == words->end || is_space(*words->at);
        }
        if (byte == '\\' && quote == '"' && words->at < words->end) {
            read_escape(words);
        } else if (byte == '\\' && words->at < words->end && *words->at == '\'') {
            *words->out++ = *words->at++;
        } else {
            *words->out++ = byte;
        }
    }
    return false;
}

static bool read_word(struct words *words)
{
    while (words->at < words->end && !ends_word(*words->at)) {
        const unsigned char byte = *words->at++;

        if (byte == '"' || byte == '\'') {
            return read_quoted(words, byte);
        }
        *words->out++ = byte;
    }
    return true;
}

static enum resp_status split_quoted(struct resp_reader *reader, struct input *input,
                                     struct bytes line)
{
    struct words words = {line.ptr, line.ptr + line.len, NULL};

    if (reader->scratch_bytes < line.len) {
        unsigned char *const grown = mem_try_realloc(reader->scratch, line.len);

        if (grown == NULL) {
            return refuse(input, "out of memory");
        }
        reader->scratch = grown;
        reader->scratch_bytes = line.len;
    }
    words.out = reader->scratch;
    for (;;) {
        unsigned char *const word = words.out;

        while (words.at < words.end && is_space(*words.at)) {
            words.at++;
        }
        if (words.at == words.end) {
            return RESP_OK;
        }
        if (!read_word(&words)) {
            return refuse(input, "Protocol error: unbalanced quotes in request");
        }
        if (!make_room(reader)) {
            return refuse(input, "out of memory");
        }
        reader->argv[reader->argc++] = bytes_make(word, (size_t)(words.out - word));
    }
}

static enum resp_status split_plain(struct resp_reader *reader, struct input *input,
                                    struct bytes line)
{
    const unsigned char *at = line.ptr, *const end = line.ptr + line.len;

    for (;;) {
        const unsigned char *word;

        while (at < end && is_space(*at)) {
            at++;
        }
        if (at == end) {
            return RESP_OK;
        }
        word = at;
        while (at < end && !ends_word(*at)) {
            at++;
        }
        if (!make_room(reader)) {
            return refuse(input, "out of memory");
        }
        reader->argv[reader->argc++] = bytes_make(word, (size_t)(at - word));
    }
}

static enum resp_status read_inline(struct resp_reader *reader, struct input *input)
{
    const size_t rest = (size_t)(input->end - input->start);
    const size_t limit = input->max_line_bytes;
    const size_t seen = rest <= limit ? rest : limit + 1;
    const unsigned char *const lf = memchr(input->start + reader->scanned, '\n',
                                           seen - reader->scanned);
    struct bytes line;

    if (lf == NULL) {
        reader->scanned = seen;
        return rest > limit ? refuse(input, "Protocol error: too big inline request")
                            : want(input, 1);
    }
    line = bytes_make(input->start, (size_t)(lf - input->start));
    reader->at = line.len + 1;
    reader->is_odd = true;
    if (line.len > 0 && line.ptr[line.len - 1] == '\r') {
        line.len--;
    }
    if (memchr(line.ptr, '"', line.len) != NULL || memchr(line.ptr, '\'', line.len) != NULL) {
        return split_quoted(reader, input, line);
    }
    return split_plain(reader, input, line);
}

/* ---- both ---- */

enum resp_status resp_read_request(struct resp_reader *reader, struct bytes bytes,
                                   const struct resp_reader_limits *limits, bool is_trusted,
                                   struct resp_request *request, size_t *wanted, const char **error)
{
    struct input input = {
        .start = bytes.ptr,
        .end = bytes.ptr + bytes.len,
        .max_line_bytes = limits->max_inline_bytes,
        /* Redis's own bound, whatever is configured; it keeps counts within an unsigned. */
        .max_args = limits->max_args < INT_MAX ? limits->max_args : INT_MAX,
        .max_bulk_bytes = limits->max_bulk_bytes,
        .is_trusted = is_trusted,
    };
    enum resp_status status;

    if (!reader->is_inside) {
        begin_request(reader);
        if (NC_UNLIKELY(reader->capacity > KEEP_ARGS || reader->scratch_bytes > KEEP_SCRATCH)) {
            release_large(reader, KEEP_ARGS, KEEP_SCRATCH);
        }
    }
    if (bytes.len == 0) {
        *wanted = 1;
        return RESP_MORE;
    }
    if (NC_LIKELY(*input.start == '*')) {
        status = read_multibulk(reader, &input);
        if (NC_LIKELY(status == RESP_OK)) {
            place_arguments(reader, input.start);
        }
    } else {
        status = read_inline(reader, &input);
    }
    reader->is_inside = status == RESP_MORE;
    if (NC_LIKELY(status == RESP_OK)) {
        *request = (struct resp_request){.argv = reader->argv,
                                         .argc = reader->argc,
                                         .frame_bytes = reader->at,
                                         .is_inline = reader->is_odd};
    } else if (status == RESP_MORE) {
        *wanted = input.wanted;
    } else {
        resp_reader_reset(reader);
        *error = input.error;
    }
    return status;
}
