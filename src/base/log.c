/*
 * log.c - lines built on the stack and written at once
 *
 * A line is put together field by field in LINE_BYTES of stack; a field that does not fit is left
 * out as a whole, with all that follow, and the line says cut=1. Nothing here allocates, so that a
 * failed check can report itself when memory is what is missing.
 *
 * Who stops reading our log (a supervisor that hangs, a terminal after Ctrl-S) must not stop
 * workers. O_NONBLOCK cannot be set on stderr: it would hold for everybody who shares the open
 * file. So pipes and terminals are opened once more, and sockets are written to with MSG_DONTWAIT.
 * A pipe of another user's cannot be opened: there poll(2) is asked first, and a lock keeps other
 * threads out between the two. Files are written to as they are: a disk may be full, but it does
 * not wait for a reader.
 */
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

/* Below PIPE_BUF: one write(2) to a pipe is whole, or does not happen. */
#define LINE_BYTES 2048
/* Kept free for "cut", the closing brace and the line end. */
#define LINE_END 16
#define FIELDS_BYTES 1792

#define QUOTE_BYTES 64
#define LONG_QUOTE_BYTES 400
#define QUOTE_BUFFERS 8
/* Each byte may become \xNN; quotes, "..." and the terminator. */
#define QUOTE_SIZE (QUOTE_BYTES * 4 + 6)

/* A burst of link losses shows its first lines; what goes on for long, five lines in ten seconds.
 */
#define LIMIT_WINDOW_MS 10000
#define LIMIT_EVENTS 5

static _Atomic int max_level = LOG_INFO; /* atomic */
static _Atomic bool is_json;             /* atomic */
static _Atomic unsigned long n_dropped;  /* atomic */
static _Atomic bool is_torn;             /* atomic: the last line was written in part */
static _Thread_local int worker_index = -1;

enum route { ROUTE_WRITE, ROUTE_SEND, ROUTE_POLL };
static enum route route = ROUTE_WRITE;                        /* init */
static int out_fd = STDERR_FILENO;                            /* init */
static pthread_mutex_t poll_lock = PTHREAD_MUTEX_INITIALIZER; /* a leaf; ROUTE_POLL's writes */

struct line {
    char text[LINE_BYTES];
    size_t len;
    bool is_cut;
};

struct field {
    struct bytes key, value;
    bool is_quoted; /* value is what stands between the quotes, escapes included */
};

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&max_level, (int)level, memory_order_relaxed);
}

void log_set_json(bool json)
{
    atomic_store_explicit(&is_json, json, memory_order_relaxed);
}

bool log_is_on(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&max_level, memory_order_relaxed);
}

unsigned long log_dropped(void)
{
    return atomic_load_explicit(&n_dropped, memory_order_relaxed);
}

void log_never_block(void)
{
    struct stat status;

    if (out_fd != STDERR_FILENO) {
        close(out_fd);
    }
    out_fd = STDERR_FILENO;
    route = ROUTE_WRITE;
    if (fstat(STDERR_FILENO, &status) != 0) {
        return;
    }
    if (S_ISSOCK(status.st_mode)) {
        route = ROUTE_SEND;
    } else if (S_ISFIFO(status.st_mode) || S_ISCHR(status.st_mode)) {
        const int fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

        if (fd >= 0) {
            out_fd = fd;
        } else {
            route = ROUTE_POLL;
        }
    }
}

void log_set_worker(int worker)
{
    worker_index = worker;
}

static bool is_plain(unsigned char c)
{
    return c > ' ' && c < 0x7f && c != '"' && c != '=' && c != '\\';
}

/* Writes c between the quotes of a value. Returns how many characters that took, at most 4. */
static size_t escape(unsigned char c, char *out)
{
    static const char hex[] = "0123456789abcdef";
    const char *letter = c == '\0' ? NULL : strchr("\nn\rr\tt\"\"\\\\", c);

    if (letter != NULL && (c < ' ' || c == '"' || c == '\\')) {
        out[0] = '\\';
        out[1] = letter[1];
        return 2;
    }
    if (c >= ' ' && c < 0x7f) {
        out[0] = (char)c;
        return 1;
    }
    out[0] = '\\';
    out[1] = 'x';
    out[2] = hex[c >> 4];
    out[3] = hex[c & 15];
    return 4;
}

/* out has room for four characters per byte kept, and seven more. */
static const char *quote(struct bytes text, size_t n_max, char *out)
{
    const size_t n = text.len < n_max ? text.len : n_max;
    bool is_quoted = text.len != n || n == 0;
    size_t len = 0;

    for (size_t i = 0; i < n && !is_quoted; i++) {
        is_quoted = !is_plain(text.ptr[i]);
    }
    if (is_quoted) {
        out[len++] = '"';
    }
    for (size_t i = 0; i < n; i++) {
        len += escape(text.ptr[i], out + len);
    }
    if (text.len != n) {
        memcpy(out + len, "...", 3);
        len += 3;
    }
    if (is_quoted) {
        out[len++] = '"';
    }
    out[len] = '\0';
    return out;
}

const char *log_quote(struct bytes text)
{
    static _Thread_local char buffers[QUOTE_BUFFERS][QUOTE_SIZE];
    static _Thread_local unsigned next;

    return quote(text, QUOTE_BYTES, buffers[next++ % QUOTE_BUFFERS]);
}

const char *log_quote_long(struct bytes text)
{
    static _Thread_local char buffer[4 * LONG_QUOTE_BYTES + 8];

    return quote(text, LONG_QUOTE_BYTES, buffer);
}

static void put(struct line *line, const char *text, size_t len)
{
    if (line->is_cut || len > LINE_BYTES - LINE_END - line->len) {
        line->is_cut = true;
        return;
    }
    memcpy(line->text + line->len, text, len);
    line->len += len;
}

static void put_string(struct line *line, const char *text)
{
    put(line, text, strlen(text));
}

/* What has no place in a line of ASCII becomes a question mark: log_quote() was forgotten. */
static char printable(unsigned char c)
{
    return c >= ' ' && c < 0x7f ? (char)c : '?';
}

static void put_printable(struct line *line, struct bytes text)
{
    for (size_t i = 0; i < text.len; i++) {
        const char c = printable(text.ptr[i]);

        put(line, &c, 1);
    }
}

/*
 * A JSON string. The escapes of a quoted value are JSON's own, but for \xNN, which becomes the code
 * point of that number: every byte keeps a character of its own.
 */
static void put_json_string(struct line *line, struct bytes text, bool is_escaped)
{
    put(line, "\"", 1);
    for (size_t i = 0; i < text.len; i++) {
        const char c = printable(text.ptr[i]);
        const char next = i + 1 < text.len ? (char)text.ptr[i + 1] : '\0';

        if (c == '\\' && is_escaped && next == 'x') {
            put_string(line, "\\u00");
            i++;
        } else if (c == '\\' && is_escaped && next != '\0' && strchr("nrt\"\\", next) != NULL) {
            put(line, (const char *)text.ptr + i, 2);
            i++;
        } else if (c == '\\' || c == '"') {
            put(line, "\\", 1);
            put(line, &c, 1);
        } else {
            put(line, &c, 1);
        }
    }
    put(line, "\"", 1);
}

static size_t count_digits(struct bytes text, size_t from)
{
    size_t n = 0;

    while (from + n < text.len && text.ptr[from + n] >= '0' && text.ptr[from + n] <= '9') {
        n++;
    }
    return n;
}

/* JSON's grammar: -? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)? */
static bool is_json_number(struct bytes text)
{
    size_t at = text.len > 0 && text.ptr[0] == '-';
    size_t n = count_digits(text, at);

    if (n == 0 || (n > 1 && text.ptr[at] == '0')) {
        return false;
    }
    at += n;
    if (at < text.len && text.ptr[at] == '.') {
        n = count_digits(text, at + 1);
        if (n == 0) {
            return false;
        }
        at += 1 + n;
    }
    if (at < text.len && (text.ptr[at] == 'e' || text.ptr[at] == 'E')) {
        at++;
        if (at < text.len && (text.ptr[at] == '+' || text.ptr[at] == '-')) {
            at++;
        }
        n = count_digits(text, at);
        if (n == 0) {
            return false;
        }
        at += n;
    }
    return at == text.len;
}

/* Appends a field, or leaves the line as it was and marks it as cut. */
static void put_field(struct line *line, const struct field *field, bool json)
{
    const size_t before = line->len;

    put_string(line, json ? (before == 1 ? "\"" : ",\"") : (before == 0 ? "" : " "));
    put_printable(line, field->key);
    put_string(line, json ? "\":" : "=");
    if (!json) {
        put_string(line, field->is_quoted ? "\"" : "");
        put_printable(line, field->value);
        put_string(line, field->is_quoted ? "\"" : "");
    } else if (!field->is_quoted && is_json_number(field->value)) {
        put(line, (const char *)field->value.ptr, field->value.len);
    } else {
        put_json_string(line, field->value, field->is_quoted);
    }
    if (line->is_cut) {
        line->len = before;
    }
}

static void put_pair(struct line *line, const char *key, const char *value, bool is_quoted,
                     bool json)
{
    const struct field field = {bytes_of_string(key), bytes_of_string(value), is_quoted};

    put_field(line, &field, json);
}

/* Takes the next key=value off the text. False: none is left, or only one whose end is missing. */
static bool next_field(const char **text, struct field *field)
{
    const char *key = *text + strspn(*text, " ");
    const size_t key_len = strcspn(key, "= ");
    const char *value = key + key_len + (key[key_len] == '=');
    const char *end;

    if (*key == '\0') {
        return false;
    }
    field->is_quoted = *value == '"';
    if (field->is_quoted) {
        value++;
        for (end = value; *end != '"'; end++) {
            end += *end == '\\' && end[1] != '\0';
            if (*end == '\0') {
                return false;
            }
        }
    } else {
        end = value + strcspn(value, " ");
    }
    field->key = bytes_make(key, key_len);
    field->value = bytes_make(value, (size_t)(end - value));
    *text = end + field->is_quoted;
    return true;
}

static void put_prefix(struct line *line, enum log_level level, const char *module, const char *msg,
                       bool json)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    const int64_t now_ms = clock_unix_ms();
    const time_t seconds = (time_t)(now_ms / 1000);
    struct tm utc;
    char text[64];

    gmtime_r(&seconds, &utc);
    snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", utc.tm_year + 1900,
             utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
             (int)(now_ms % 1000));
    put_pair(line, "ts", text, false, json);
    put_pair(line, "level", names[level], false, json);
    put_pair(line, "mod", module, false, json);
    if (worker_index >= 0) {
        snprintf(text, sizeof text, "%d", worker_index);
        put_pair(line, "worker", text, false, json);
    }
    put_pair(line, "msg", msg, true, json);
}

/* Formats the fields; what vsnprintf() had to cut ends before its last, incomplete field. */
NC_PRINTF(3, 0)
static bool format_fields(char *text, size_t size, const char *fields, va_list args)
{
    const int n = vsnprintf(text, size, fields, args);

    if (n < 0) {
        text[0] = '\0';
    }
    if (n >= 0 && (size_t)n < size) {
        return true;
    }
    char *last_space = strrchr(text, ' ');

    *(last_space != NULL ? last_space : text) = '\0';
    return false;
}

static void finish(struct line *line, bool json)
{
    const char *end = json ? "}\n" : "\n";

    if (line->is_cut) {
        const char *cut = json ? ",\"cut\":1" : " cut=1";

        memcpy(line->text + line->len, cut, strlen(cut));
        line->len += strlen(cut);
    }
    memcpy(line->text + line->len, end, strlen(end));
    line->len += strlen(end);
}

static ssize_t write_if_ready(const char *text, size_t len)
{
    struct pollfd out = {.fd = STDERR_FILENO, .events = POLLOUT};
    ssize_t n = -1;

    pthread_mutex_lock(&poll_lock);
    if (poll(&out, 1, 0) == 1 && (out.revents & POLLOUT) != 0) {
        n = write(STDERR_FILENO, text, len);
    } else {
        errno = EAGAIN;
    }
    pthread_mutex_unlock(&poll_lock);
    return n;
}

static ssize_t write_some(const char *text, size_t len)
{
    ssize_t n;

    do {
        switch (route) {
        case ROUTE_SEND:
            n = send(STDERR_FILENO, text, len, MSG_DONTWAIT | MSG_NOSIGNAL);
            break;
        case ROUTE_POLL:
            n = write_if_ready(text, len);
            break;
        default:
            n = write(out_fd, text, len);
            break;
        }
    } while (n < 0 && errno == EINTR);
    return n;
}

/* A line that was cut off gets its end with the next one, so that this one stands alone. */
static void write_line(const struct line *line)
{
    ssize_t n;

    if (atomic_load_explicit(&is_torn, memory_order_relaxed) && write_some("\n", 1) == 1) {
        atomic_store_explicit(&is_torn, false, memory_order_relaxed);
    }
    n = write_some(line->text, line->len);
    if (n != (ssize_t)line->len) {
        atomic_fetch_add_explicit(&n_dropped, 1, memory_order_relaxed);
    }
    if (n > 0 && n != (ssize_t)line->len) {
        atomic_store_explicit(&is_torn, true, memory_order_relaxed);
    }
}

void log_event(enum log_level level, const char *module, const char *msg, const char *fields, ...)
{
    const int saved_errno = errno;
    const bool json = atomic_load_explicit(&is_json, memory_order_relaxed);
    struct line line;
    struct field field;
    char text[FIELDS_BYTES];
    const char *rest = text;
    bool is_whole = true;
    va_list args;

    if (!log_is_on(level)) {
        return;
    }
    line.len = 0;
    line.is_cut = false;
    text[0] = '\0';
    if (fields != NULL) {
        va_start(args, fields);
        is_whole = format_fields(text, sizeof text, fields, args);
        va_end(args);
    }
    put_string(&line, json ? "{" : "");
    put_prefix(&line, level, module, msg, json);
    while (!line.is_cut && next_field(&rest, &field)) {
        put_field(&line, &field, json);
    }
    line.is_cut |= !is_whole;
    finish(&line, json);
    write_line(&line);
    errno = saved_errno;
}

bool log_limit_pass(struct log_limit *limit, int64_t now_ms, unsigned *suppressed)
{
    if (now_ms - limit->window_started_ms >= LIMIT_WINDOW_MS) {
        limit->window_started_ms = now_ms;
        limit->n_in_window = 0;
    }
    if (limit->n_in_window >= LIMIT_EVENTS) {
        limit->n_suppressed++;
        return false;
    }
    limit->n_in_window++;
    *suppressed = limit->n_suppressed;
    limit->n_suppressed = 0;
    return true;
}
