/*
 * bench_util.h - what the load generators share: clock, sockets, histogram, hash slots
 *
 * Purpose:    keep loadgen.c and replay.c free of plumbing. Header only, so that each generator
 *             stays one file to compile and depends on nothing but libc.
 * Ownership:  the caller owns descriptors and histograms.
 * Threading:  the generators have one thread; nothing here is shared.
 * Errors:     a benchmark that cannot measure is worthless, so what fails ends the program with a
 *             message on stderr and status 1, unless a function says otherwise.
 * Units:      nanoseconds of CLOCK_MONOTONIC, bytes.
 */
#ifndef NC_BENCH_UTIL_H
#define NC_BENCH_UTIL_H

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_US INT64_C(1000)
#define NS_PER_MS INT64_C(1000000)
#define NS_PER_S INT64_C(1000000000)

static inline int64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

__attribute__((noreturn, format(printf, 1, 2))) static inline void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("error: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

static inline void *must_alloc(size_t n, size_t size)
{
    void *memory = calloc(n != 0 ? n : 1, size);
    if (memory == NULL) {
        die("out of memory");
    }
    return memory;
}

/* ---- random numbers: xorshift64*, the same sequence for the same seed everywhere ---- */

static inline uint64_t random_next(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * UINT64_C(0x2545F4914F6CDD1D);
}

/* Uniform in [0, n), n < 2^32: multiplication instead of a division. */
static inline uint32_t random_below(uint64_t *state, uint32_t n)
{
    return (uint32_t)(((random_next(state) >> 32) * n) >> 32);
}

static inline uint64_t random_seed(uint64_t seed)
{
    uint64_t state = seed * UINT64_C(0x9E3779B97F4A7C15) + UINT64_C(0x1234567887654321);
    return state != 0 ? state : 1;
}

/* ---- digits ---- */

/* Writes n in exactly width decimal digits, zero-padded; higher digits of n are lost. */
static inline void put_digits(unsigned char *to, unsigned width, uint64_t n)
{
    while (width > 0) {
        to[--width] = (unsigned char)('0' + n % 10);
        n /= 10;
    }
}

/* ---- histogram: 64 steps to each power of two, so a percentile is right within 1.6 % ---- */

#define HISTOGRAM_STEP_BITS 6
#define HISTOGRAM_STEPS (1U << HISTOGRAM_STEP_BITS)
#define HISTOGRAM_SIZE ((64 - HISTOGRAM_STEP_BITS) * HISTOGRAM_STEPS)

struct histogram {
    uint64_t counts[HISTOGRAM_SIZE];
    uint64_t total;
    int64_t max_ns;
};

static inline unsigned histogram_index(uint64_t value)
{
    if (value < HISTOGRAM_STEPS) {
        return (unsigned)value;
    }
    unsigned top = 63U - (unsigned)__builtin_clzll(value);
    unsigned shift = top - HISTOGRAM_STEP_BITS;
    return (shift + 1) * HISTOGRAM_STEPS + (unsigned)((value >> shift) - HISTOGRAM_STEPS);
}

static inline void histogram_add(struct histogram *histogram, int64_t value_ns, uint64_t n)
{
    uint64_t value = value_ns > 0 ? (uint64_t)value_ns : 0;
    histogram->counts[histogram_index(value)] += n;
    histogram->total += n;
    if (value_ns > histogram->max_ns) {
        histogram->max_ns = value_ns;
    }
}

/* The middle of the step in which the given part (0.5: the median) of the values lies, in us. */
static inline double histogram_us(const struct histogram *histogram, double part)
{
    uint64_t rank = (uint64_t)(part * (double)histogram->total);
    uint64_t seen = 0;
    for (unsigned i = 0; i < HISTOGRAM_SIZE; i++) {
        seen += histogram->counts[i];
        if (seen > rank) {
            if (i < HISTOGRAM_STEPS) {
                return (double)i / 1e3;
            }
            unsigned shift = i / HISTOGRAM_STEPS - 1;
            uint64_t base = (uint64_t)(i % HISTOGRAM_STEPS + HISTOGRAM_STEPS) << shift;
            return ((double)base + (double)(UINT64_C(1) << shift) / 2) / 1e3;
        }
    }
    return (double)histogram->max_ns / 1e3;
}

/* ---- hash slots ---- */

/* CRC-16/XMODEM bit by bit: only preloads and replays hash keys here, never a measured loop. */
static inline uint16_t crc16(const unsigned char *data, size_t len)
{
    uint16_t crc = 0;
    for (size_t i = 0; i < len; i++) {
        crc = (uint16_t)(crc ^ (data[i] << 8));
        for (int bit = 0; bit < 8; bit++) {
            crc = (uint16_t)((crc & 0x8000) != 0 ? (crc << 1) ^ 0x1021 : crc << 1);
        }
    }
    return crc;
}

static inline unsigned hash_slot(const unsigned char *key, size_t len)
{
    const unsigned char *open = memchr(key, '{', len);
    if (open != NULL) {
        const unsigned char *tag = open + 1;
        const unsigned char *close = memchr(tag, '}', (size_t)(key + len - tag));
        if (close != NULL && close != tag) {
            return crc16(tag, (size_t)(close - tag)) & 16383U;
        }
    }
    return crc16(key, len) & 16383U;
}

/* ---- sockets ---- */

static inline void raise_descriptor_limit(unsigned long wanted)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        die("getrlimit: %s", strerror(errno));
    }
    if (limit.rlim_cur < wanted) {
        limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < wanted) {
            die("descriptor limit: %lu are needed, %lu are allowed", wanted,
                (unsigned long)limit.rlim_max);
        }
    }
}

struct address {
    struct sockaddr_storage name;
    socklen_t len;
};

/* text is HOST:PORT, [V6]:PORT or unix:PATH. */
static inline struct address address_of(const char *text)
{
    struct address address = {.len = 0};
    if (strncmp(text, "unix:", 5) == 0) {
        struct sockaddr_un unix_name = {.sun_family = AF_UNIX};
        size_t len = strlen(text + 5);
        if (len >= sizeof unix_name.sun_path) {
            die("%s: the path is too long", text);
        }
        memcpy(unix_name.sun_path, text + 5, len + 1);
        memcpy(&address.name, &unix_name, sizeof unix_name);
        address.len = sizeof unix_name;
        return address;
    }
    const char *colon = strrchr(text, ':');
    char host[256];
    if (colon == NULL || (size_t)(colon - text) >= sizeof host) {
        die("%s: HOST:PORT or unix:PATH is expected", text);
    }
    bool is_bracketed = text[0] == '[' && colon[-1] == ']';
    size_t len = (size_t)(colon - text) - (is_bracketed ? 2 : 0);
    memcpy(host, text + (is_bracketed ? 1 : 0), len);
    host[len] = '\0';

    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    int error = getaddrinfo(host, colon + 1, &hints, &found);
    if (error != 0) {
        die("%s: %s", text, gai_strerror(error));
    }
    memcpy(&address.name, found->ai_addr, found->ai_addrlen);
    address.len = found->ai_addrlen;
    freeaddrinfo(found);
    return address;
}

/* A non-blocking socket whose connection is made or under way; -1 with errno when it is refused. */
static inline int dial_start(const struct address *to)
{
    int family = to->name.ss_family;
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        die("socket: %s", strerror(errno));
    }
    if (family != AF_UNIX) {
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    if (connect(fd, (const struct sockaddr *)&to->name, to->len) != 0 && errno != EINPROGRESS) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

/* A blocking connection. */
static inline int dial(const char *text)
{
    struct address to = address_of(text);
    int fd = socket(to.name.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to.name, to.len) != 0) {
        die("%s: %s", text, strerror(errno));
    }
    if (to.name.ss_family != AF_UNIX) {
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    return fd;
}

static inline void set_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) {
        die("fcntl: %s", strerror(errno));
    }
}

/* ---- replies ---- */

enum reply_kind { REPLY_SIMPLE, REPLY_BULK, REPLY_NIL, REPLY_ERROR, REPLY_ARRAY, REPLY_INTEGER };

struct reply {
    enum reply_kind kind;
    const unsigned char *body; /* SIMPLE, BULK, ERROR: its bytes */
    int64_t len;               /* of body; ARRAY: number of elements; INTEGER: the number */
};

/*
 * Reads one reply, of an array only its header. Returns how many bytes it takes, 0 when more are
 * needed, -1 when this is no RESP.
 */
static inline ssize_t reply_take(const unsigned char *data, size_t len, struct reply *reply)
{
    const unsigned char *cr = memchr(data, '\r', len);
    if (cr == NULL || (size_t)(cr - data) + 2 > len) {
        return cr == NULL && len > 65536 ? -1 : 0;
    }
    size_t line = (size_t)(cr - data) + 2;
    if (cr[1] != '\n' || line < 3) {
        return -1;
    }
    reply->body = data + 1;
    reply->len = (int64_t)line - 3;
    switch (data[0]) {
    case '+':
        reply->kind = REPLY_SIMPLE;
        return (ssize_t)line;
    case '-':
        reply->kind = REPLY_ERROR;
        return (ssize_t)line;
    case '_':
        reply->kind = REPLY_NIL;
        return (ssize_t)line;
    case ':':
    case '$':
    case '*':
        break;
    default:
        return -1;
    }
    char *end = NULL;
    long long number = strtoll((const char *)data + 1, &end, 10);
    if ((const unsigned char *)end != cr || line == 3) {
        return -1;
    }
    reply->len = number;
    if (data[0] == ':') {
        reply->kind = REPLY_INTEGER;
        return (ssize_t)line;
    }
    if (number < 0) {
        reply->kind = REPLY_NIL;
        return number == -1 ? (ssize_t)line : -1;
    }
    if (data[0] == '*') {
        reply->kind = REPLY_ARRAY;
        return (ssize_t)line;
    }
    reply->kind = REPLY_BULK;
    reply->body = data + line;
    size_t frame = line + (size_t)number + 2;
    if (len < frame) {
        return 0;
    }
    return memcmp(data + frame - 2, "\r\n", 2) == 0 ? (ssize_t)frame : -1;
}

#endif
