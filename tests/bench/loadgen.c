/*
 * loadgen.c - a RESP load generator that checks what it gets
 *
 * Purpose:    put load on a server, know the latency of every request, and fail when one reply is
 *             not what was asked for. redis-benchmark checks nothing and spends more per request
 *             than a cache hit costs, so that with it the generator would be measured.
 * Modes:      load        timed or counted GET, SET, MGET or a mixture, keys at random
 *             preload     one SET per key          scan        one GET per key
 *             idle        N connections at once; then they stay open until stdin ends
 *             visibility  how soon a write made at the backend shows through a proxy
 * Output:     one logfmt line on stdout. Status 1 when any reply was wrong.
 * Threading:  one thread, epoll. A connection sends as many requests as the pipeline is deep, reads
 *             all their replies, and begins again, as redis-benchmark does.
 * Checks:     each reply is well-formed, of the expected type and length, and a value names the key
 *             that was asked for in its first eight digits.
 */
#include "bench_util.h"

#include <getopt.h>
#include <sys/epoll.h>

#define MGET_MAX 128
#define NUMBER_DIGITS 8 /* how a value names its key */
#define STALL_LIMIT_NS (15 * NS_PER_S)
#define EVENTS_PER_WAIT 256

enum workload { WORKLOAD_GET, WORKLOAD_SET, WORKLOAD_MGET, WORKLOAD_MIXED };

static struct options {
    const char *address, *backend, *prefix, *mode;
    enum workload workload;
    unsigned n_conns, pipeline, keys_per_mget, write_percent;
    unsigned n_keys, first_key, key_bytes, value_bytes, ttl_s;
    unsigned hot_keys_percent, hot_requests_percent;
    unsigned slot_from, slot_to;
    uint64_t n_requests, seed;
    double seconds;
    bool is_nil_allowed;
} options = {
    .address = "127.0.0.1:6379",
    .prefix = "key:",
    .mode = "load",
    .n_conns = 50,
    .pipeline = 1,
    .keys_per_mget = 10,
    .write_percent = 10,
    .n_keys = 100000,
    .key_bytes = 24,
    .value_bytes = 100,
    .slot_to = 16383,
    .seed = 1,
};

/* One request that awaits its reply. */
struct expected {
    bool is_write;
    uint32_t first; /* index of its first key number in conn.numbers */
    uint16_t n;     /* keys */
};

struct conn {
    int fd;
    unsigned n_expected, n_answered;
    unsigned n_elements; /* of the MGET reply being read: those taken */
    bool is_in_array, is_writable_wanted;
    struct expected *expected; /* pipeline of them */
    uint32_t *numbers;         /* key numbers, pipeline * keys per request */
    unsigned char *out, *in;
    size_t out_len, out_done, in_len;
    int64_t sent_ns;
};

static struct state {
    int epoll;
    uint64_t random;
    uint64_t n_sent, n_answered, n_errors, n_nils;
    uint32_t next_key; /* preload, scan: the next one in order */
    int64_t stop_ns;   /* 0: none */
    unsigned n_open;
    struct histogram latency;
    /* Parts of frames that never change. */
    size_t prefix_len, in_size;
    unsigned char key_head[32], value_head[32], *value_body;
    size_t key_head_len, value_head_len, value_frame_len;
} state;

/* ---- what is asked ---- */

static void complain(const char *what, const unsigned char *bytes, size_t len)
{
    state.n_errors++;
    if (state.n_errors <= 5) {
        fprintf(stderr, "wrong reply: %s: %.*s\n", what, (int)(len < 120 ? len : 120), bytes);
    }
}

static size_t put_key(unsigned char *to, uint32_t number)
{
    size_t width = options.key_bytes - state.prefix_len;
    unsigned char *end = to;
    memcpy(end, state.key_head, state.key_head_len);
    end += state.key_head_len;
    memcpy(end, options.prefix, state.prefix_len);
    end += state.prefix_len;
    put_digits(end, (unsigned)width, number);
    end += width;
    memcpy(end, "\r\n", 2);
    return (size_t)(end + 2 - to);
}

static size_t put_value(unsigned char *to, uint32_t number)
{
    unsigned char *end = to;
    memcpy(end, state.value_head, state.value_head_len);
    end += state.value_head_len;
    memcpy(end, state.value_body, options.value_bytes);
    if (options.value_bytes >= NUMBER_DIGITS) {
        put_digits(end, NUMBER_DIGITS, number);
    }
    end += options.value_bytes;
    memcpy(end, "\r\n", 2);
    return (size_t)(end + 2 - to);
}

static size_t put_text(unsigned char *to, const char *text)
{
    size_t len = strlen(text);
    memcpy(to, text, len);
    return len;
}

static uint32_t random_key(void)
{
    if (options.hot_keys_percent == 0) {
        return options.first_key + random_below(&state.random, options.n_keys);
    }
    uint32_t n_hot = (uint32_t)((uint64_t)options.n_keys * options.hot_keys_percent / 100);
    if (random_below(&state.random, 100) < options.hot_requests_percent) {
        return options.first_key + random_below(&state.random, n_hot);
    }
    return options.first_key + n_hot + random_below(&state.random, options.n_keys - n_hot);
}

/* Preload and scan: the next key in order whose slot is wanted. */
static bool next_in_order(uint32_t *number)
{
    while (state.next_key < options.n_keys) {
        *number = options.first_key + state.next_key++;
        if (options.slot_from == 0 && options.slot_to == 16383) {
            return true;
        }
        unsigned char frame[512];
        size_t len = put_key(frame, *number);
        unsigned slot = hash_slot(frame + state.key_head_len, len - state.key_head_len - 2);
        if (slot >= options.slot_from && slot <= options.slot_to) {
            return true;
        }
    }
    return false;
}

static bool next_keys(struct expected *expected, uint32_t *numbers)
{
    if (options.mode[0] != 'l') {
        expected->is_write = options.mode[0] == 'p';
        expected->n = 1;
        return next_in_order(&numbers[0]);
    }
    if (options.n_requests != 0 && state.n_sent >= options.n_requests) {
        return false;
    }
    expected->is_write = options.workload == WORKLOAD_SET ||
                         (options.workload == WORKLOAD_MIXED &&
                          random_below(&state.random, 100) < options.write_percent);
    expected->n = (uint16_t)(options.workload == WORKLOAD_MGET ? options.keys_per_mget : 1);
    for (unsigned i = 0; i < expected->n; i++) {
        numbers[i] = random_key();
    }
    return true;
}

static size_t put_request(unsigned char *to, const struct expected *expected,
                          const uint32_t *numbers)
{
    unsigned char *end = to;
    if (expected->is_write) {
        end += put_text(end, options.ttl_s != 0 ? "*5\r\n$3\r\nSET\r\n" : "*3\r\n$3\r\nSET\r\n");
        end += put_key(end, numbers[0]);
        end += put_value(end, numbers[0]);
        if (options.ttl_s != 0) {
            char ttl[16];
            int len = snprintf(ttl, sizeof ttl, "%u", options.ttl_s);
            end += sprintf((char *)end, "$2\r\nEX\r\n$%d\r\n%s\r\n", len, ttl);
        }
        return (size_t)(end - to);
    }
    if (options.workload == WORKLOAD_MGET) {
        end += sprintf((char *)end, "*%u\r\n$4\r\nMGET\r\n", expected->n + 1U);
    } else {
        end += put_text(end, "*2\r\n$3\r\nGET\r\n");
    }
    for (unsigned i = 0; i < expected->n; i++) {
        end += put_key(end, numbers[i]);
    }
    return (size_t)(end - to);
}

/* ---- what is answered ---- */

static void check_value(const unsigned char *body, uint32_t number)
{
    unsigned char digits[NUMBER_DIGITS];
    if (options.value_bytes < NUMBER_DIGITS) {
        return;
    }
    put_digits(digits, NUMBER_DIGITS, number);
    if (memcmp(digits, body, NUMBER_DIGITS) != 0) {
        complain("the value of another key", body, NUMBER_DIGITS);
    }
}

/* One value, or what stands in its place. Returns the bytes it takes, 0 when more are needed. */
static size_t take_value(const unsigned char *data, size_t len, uint32_t number)
{
    if (len >= state.value_frame_len && memcmp(data, state.value_head, state.value_head_len) == 0) {
        if (memcmp(data + state.value_frame_len - 2, "\r\n", 2) != 0) {
            die("malformed reply: a value of %u bytes does not end there", options.value_bytes);
        }
        check_value(data + state.value_head_len, number);
        return state.value_frame_len;
    }
    struct reply reply;
    ssize_t taken = reply_take(data, len, &reply);
    if (taken < 0) {
        die("malformed reply: %.*s", (int)(len < 80 ? len : 80), data);
    }
    if (taken == 0) {
        return 0;
    }
    if (reply.kind == REPLY_NIL) {
        state.n_nils++;
        if (!options.is_nil_allowed) {
            complain("nil for a key that exists", data, (size_t)taken);
        }
    } else {
        complain(reply.kind == REPLY_BULK ? "a value of another length" : "not a value", data,
                 (size_t)taken);
    }
    return (size_t)taken;
}

/* The reply to a write, or the header of an array. */
static size_t take_other(const unsigned char *data, size_t len, const struct expected *expected,
                         bool *is_array)
{
    struct reply reply;
    ssize_t taken = reply_take(data, len, &reply);
    if (taken < 0) {
        die("malformed reply: %.*s", (int)(len < 80 ? len : 80), data);
    }
    if (taken == 0) {
        return 0;
    }
    *is_array = reply.kind == REPLY_ARRAY && !expected->is_write;
    if (*is_array) {
        if (reply.len != expected->n) {
            die("an array of %lld, not %u", (long long)reply.len, expected->n);
        }
    } else if (!expected->is_write || reply.kind != REPLY_SIMPLE || reply.len != 2) {
        complain(expected->is_write ? "not OK" : "not an array", data, (size_t)taken);
    }
    return (size_t)taken;
}

/* Takes one step: a whole reply, or one part of an array. False: more bytes are needed. */
static bool take_reply(struct conn *conn, size_t *at)
{
    const struct expected *expected = &conn->expected[conn->n_answered];
    const uint32_t *numbers = &conn->numbers[expected->first];
    const unsigned char *data = conn->in + *at;
    size_t len = conn->in_len - *at;
    size_t taken = 0;

    if (conn->is_in_array) {
        taken = take_value(data, len, numbers[conn->n_elements]);
        if (taken != 0 && ++conn->n_elements == expected->n) {
            conn->is_in_array = false;
            conn->n_answered++;
        }
    } else if (expected->is_write || options.workload == WORKLOAD_MGET) {
        bool is_array = false;
        taken = take_other(data, len, expected, &is_array);
        conn->is_in_array = is_array;
        conn->n_elements = 0;
        if (taken != 0 && !is_array) {
            conn->n_answered++;
        }
    } else {
        taken = take_value(data, len, numbers[0]);
        if (taken != 0) {
            conn->n_answered++;
        }
    }
    *at += taken;
    return taken != 0;
}

/* ---- connections ---- */

static void watch(const struct conn *conn, unsigned index, int operation, unsigned events)
{
    struct epoll_event event = {.events = events, .data.u32 = index};
    if (epoll_ctl(state.epoll, operation, conn->fd, &event) != 0) {
        die("epoll_ctl: %s", strerror(errno));
    }
}

static void flush(struct conn *conn, unsigned index)
{
    while (conn->out_done < conn->out_len) {
        ssize_t n = write(conn->fd, conn->out + conn->out_done, conn->out_len - conn->out_done);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            break;
        }
        if (n < 0) {
            die("write: %s", strerror(errno));
        }
        conn->out_done += (size_t)n;
    }
    bool is_rest = conn->out_done < conn->out_len;
    if (is_rest != conn->is_writable_wanted) {
        conn->is_writable_wanted = is_rest;
        watch(conn, index, EPOLL_CTL_MOD, EPOLLIN | (is_rest ? EPOLLOUT : 0U));
    }
}

/* Begins the next batch, or closes the connection when there is nothing more to ask. */
static void begin_batch(struct conn *conn, unsigned index, int64_t now)
{
    uint32_t n_numbers = 0;
    conn->n_expected = 0;
    conn->n_answered = 0;
    conn->out_len = 0;
    conn->out_done = 0;
    if (state.stop_ns == 0 || now < state.stop_ns) {
        while (conn->n_expected < options.pipeline) {
            struct expected *expected = &conn->expected[conn->n_expected];
            if (!next_keys(expected, &conn->numbers[n_numbers])) {
                break;
            }
            expected->first = n_numbers;
            conn->out_len += put_request(conn->out + conn->out_len, expected,
                                         &conn->numbers[n_numbers]);
            n_numbers += expected->n;
            conn->n_expected++;
            state.n_sent++;
        }
    }
    if (conn->n_expected == 0) {
        close(conn->fd);
        conn->fd = -1;
        state.n_open--;
        return;
    }
    conn->sent_ns = now;
    flush(conn, index);
}

static void on_readable(struct conn *conn, unsigned index)
{
    ssize_t n = read(conn->fd, conn->in + conn->in_len, state.in_size - conn->in_len);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n <= 0) {
        die("connection lost: %s", n == 0 ? "closed by the server" : strerror(errno));
    }
    conn->in_len += (size_t)n;
    int64_t now = now_ns();
    unsigned answered_before = conn->n_answered;
    size_t at = 0;
    while (conn->n_answered < conn->n_expected && at < conn->in_len && take_reply(conn, &at)) {
    }
    histogram_add(&state.latency, now - conn->sent_ns, conn->n_answered - answered_before);
    state.n_answered += conn->n_answered - answered_before;

    conn->in_len -= at;
    if (conn->in_len != 0) {
        if (conn->n_answered == conn->n_expected) {
            die("more replies than requests: %.40s", conn->in + at);
        }
        if (conn->in_len == state.in_size) {
            die("a reply larger than %zu bytes", state.in_size);
        }
        memmove(conn->in, conn->in + at, conn->in_len);
    }
    if (conn->n_answered == conn->n_expected) {
        begin_batch(conn, index, now);
    }
}

static void prepare_frames(void)
{
    state.prefix_len = strlen(options.prefix);
    if (options.key_bytes < state.prefix_len + NUMBER_DIGITS || options.key_bytes > 256) {
        die("--key-size: at least the prefix and %d digits, at most 256", NUMBER_DIGITS);
    }
    state.key_head_len = (size_t)sprintf((char *)state.key_head, "$%u\r\n", options.key_bytes);
    state.value_head_len = (size_t)sprintf((char *)state.value_head, "$%u\r\n",
                                           options.value_bytes);
    state.value_frame_len = state.value_head_len + options.value_bytes + 2;
    state.value_body = must_alloc(options.value_bytes + 1, 1);
    /* Not compressible to nothing, the same in every run. */
    uint64_t random = random_seed(options.value_bytes);
    for (unsigned i = 0; i < options.value_bytes; i++) {
        state.value_body[i] = (unsigned char)('a' + random_below(&random, 26));
    }
    state.in_size = 2 * state.value_frame_len + 65536;
    state.random = random_seed(options.seed);
}

static struct conn *open_conns(void)
{
    size_t keys_per_request = options.workload == WORKLOAD_MGET ? options.keys_per_mget : 1;
    size_t request = keys_per_request * (options.key_bytes + 16U) + state.value_frame_len + 128;
    struct conn *conns = must_alloc(options.n_conns, sizeof *conns);
    for (unsigned i = 0; i < options.n_conns; i++) {
        struct conn *conn = &conns[i];
        conn->expected = must_alloc(options.pipeline, sizeof *conn->expected);
        conn->numbers = must_alloc(options.pipeline * keys_per_request, sizeof *conn->numbers);
        conn->out = must_alloc(options.pipeline, request);
        conn->in = must_alloc(state.in_size, 1);
        conn->fd = dial(options.address);
        set_nonblocking(conn->fd);
        watch(conn, i, EPOLL_CTL_ADD, EPOLLIN);
    }
    state.n_open = options.n_conns;
    return conns;
}

static int run_load(void)
{
    static const char *const names[] = {"get", "set", "mget", "mixed"};
    prepare_frames();
    struct conn *conns = open_conns();
    int64_t begin_ns = now_ns();
    if (options.seconds > 0) {
        state.stop_ns = begin_ns + (int64_t)(options.seconds * 1e9);
    }
    for (unsigned i = 0; i < options.n_conns; i++) {
        begin_batch(&conns[i], i, now_ns());
    }
    while (state.n_open != 0) {
        struct epoll_event events[EVENTS_PER_WAIT];
        int n = epoll_wait(state.epoll, events, EVENTS_PER_WAIT, (int)(STALL_LIMIT_NS / NS_PER_MS));
        if (n == 0) {
            die("no reply for %d s", (int)(STALL_LIMIT_NS / NS_PER_S));
        }
        for (int i = 0; i < n; i++) {
            struct conn *conn = &conns[events[i].data.u32];
            if ((events[i].events & EPOLLOUT) != 0) {
                flush(conn, events[i].data.u32);
            }
            if ((events[i].events & ~(uint32_t)EPOLLOUT) != 0) {
                on_readable(conn, events[i].data.u32);
            }
        }
    }
    double seconds = (double)(now_ns() - begin_ns) / 1e9;
    printf("mode=%s workload=%s conns=%u pipeline=%u keys=%u key_bytes=%u value_bytes=%u "
           "requests=%llu seconds=%.4f ops=%.0f p50_us=%.2f p99_us=%.2f p999_us=%.2f max_us=%.2f "
           "nils=%llu errors=%llu\n",
           options.mode, names[options.workload], options.n_conns, options.pipeline, options.n_keys,
           options.key_bytes, options.value_bytes, (unsigned long long)state.n_answered, seconds,
           (double)state.n_answered / seconds, histogram_us(&state.latency, 0.5),
           histogram_us(&state.latency, 0.99), histogram_us(&state.latency, 0.999),
           (double)state.latency.max_ns / 1e3, (unsigned long long)state.n_nils,
           (unsigned long long)state.n_errors);
    return state.n_errors != 0;
}

/* ---- idle: many connections at once ---- */

static void on_idle_event(struct conn *conn, unsigned index, uint32_t events, unsigned *n_ready)
{
    if ((events & (EPOLLERR | EPOLLHUP)) != 0) {
        die("connection %u was refused or lost after %u had been answered", index, *n_ready);
    }
    if ((events & EPOLLOUT) != 0) {
        if (write(conn->fd, "*1\r\n$4\r\nPING\r\n", 14) != 14) {
            die("write: %s", strerror(errno));
        }
        watch(conn, index, EPOLL_CTL_MOD, EPOLLIN);
    }
    if ((events & EPOLLIN) != 0) {
        char reply[64];
        ssize_t n = read(conn->fd, reply, sizeof reply);
        if (n != 7 || memcmp(reply, "+PONG\r\n", 7) != 0) {
            die("connection %u got no PONG but: %.*s", index, (int)(n > 0 ? n : 0), reply);
        }
        (*n_ready)++;
    }
}

static int run_idle(void)
{
    raise_descriptor_limit(options.n_conns + 64UL);
    struct conn *conns = must_alloc(options.n_conns, sizeof *conns);
    struct address to = address_of(options.address);
    unsigned n_ready = 0;
    int64_t begin_ns = now_ns();
    for (unsigned i = 0; i < options.n_conns; i++) {
        conns[i].fd = dial_start(&to);
        if (conns[i].fd < 0) {
            die("connection %u: %s", i, strerror(errno));
        }
        watch(&conns[i], i, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
    }
    while (n_ready < options.n_conns) {
        struct epoll_event events[EVENTS_PER_WAIT];
        int n = epoll_wait(state.epoll, events, EVENTS_PER_WAIT, (int)(STALL_LIMIT_NS / NS_PER_MS));
        if (n == 0) {
            die("%u of %u connections were not answered", options.n_conns - n_ready,
                options.n_conns);
        }
        for (int i = 0; i < n; i++) {
            unsigned index = events[i].data.u32;
            on_idle_event(&conns[index], index, events[i].events, &n_ready);
        }
    }
    printf("mode=idle conns=%u seconds=%.4f errors=0\n", options.n_conns,
           (double)(now_ns() - begin_ns) / 1e9);
    fflush(stdout);

    char byte;
    while (read(STDIN_FILENO, &byte, 1) > 0) {
    }
    for (unsigned i = 0; i < options.n_conns; i++) {
        /* A reset leaves no TIME_WAIT: rounds of 10 000 would use up the local ports. */
        struct linger linger = {.l_onoff = 1, .l_linger = 0};
        setsockopt(conns[i].fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
        close(conns[i].fd);
    }
    return 0;
}

/* ---- visibility ---- */

/* Sends a request and reads its one reply into buffer; blocking. */
static struct reply ask(int fd, const unsigned char *request, size_t len, unsigned char *buffer,
                        size_t size)
{
    struct reply reply;
    size_t have = 0;
    if (write(fd, request, len) != (ssize_t)len) {
        die("write: %s", strerror(errno));
    }
    for (;;) {
        ssize_t n = read(fd, buffer + have, size - have);
        if (n <= 0) {
            die("connection lost: %s", n == 0 ? "closed by the server" : strerror(errno));
        }
        have += (size_t)n;
        ssize_t taken = reply_take(buffer, have, &reply);
        if (taken < 0 || (size_t)taken > have || (taken > 0 && (size_t)taken < have)) {
            die("malformed reply: %.*s", (int)(have < 80 ? have : 80), buffer);
        }
        if (taken > 0) {
            if (reply.kind == REPLY_ERROR) {
                die("%.*s", (int)reply.len, reply.body);
            }
            return reply;
        }
    }
}

static uint32_t version_of(const struct reply *reply)
{
    if (reply->kind != REPLY_BULK || (size_t)reply->len != options.value_bytes) {
        die("visibility: not the value that was written");
    }
    uint32_t version = 0;
    for (unsigned i = 0; i < NUMBER_DIGITS; i++) {
        version = version * 10 + (uint32_t)(reply->body[i] - '0');
    }
    return version;
}

/*
 * Each sample: the key is read twice through the proxy, so that it is tracked and held there; a
 * new version is written at the backend; then the proxy is asked until it shows that version. The
 * sample is the time from the writer's reply to the first reply with the new version, so it holds
 * one round trip through the proxy even when the invalidation came at once.
 */
static int run_visibility(void)
{
    prepare_frames();
    size_t size = state.value_frame_len + 65536;
    unsigned char *request = must_alloc(size, 1), *buffer = must_alloc(size, 1);
    int reader = dial(options.address);
    int writer = dial(options.backend);
    uint64_t n_samples = options.n_requests != 0 ? options.n_requests : 1000;
    uint64_t n_at_once = 0;
    for (uint64_t i = 0; i < n_samples; i++) {
        uint32_t number = options.first_key + (uint32_t)(i % options.n_keys);
        uint32_t version = (uint32_t)i + 1;
        size_t get_len = put_text(request, "*2\r\n$3\r\nGET\r\n");
        get_len += put_key(request + get_len, number);
        (void)ask(reader, request, get_len, buffer, size);
        (void)ask(reader, request, get_len, buffer, size);

        unsigned char *set = request + get_len;
        size_t set_len = put_text(set, "*3\r\n$3\r\nSET\r\n");
        set_len += put_key(set + set_len, number);
        set_len += put_value(set + set_len, version);
        (void)ask(writer, set, set_len, buffer, size);

        int64_t written_ns = now_ns();
        uint64_t n_polls = 0;
        struct reply reply;
        do {
            reply = ask(reader, request, get_len, buffer, size);
            n_polls++;
        } while (reply.kind == REPLY_NIL || version_of(&reply) != version);
        histogram_add(&state.latency, now_ns() - written_ns, 1);
        n_at_once += n_polls == 1;
    }
    printf("mode=visibility samples=%llu at_first_read=%llu p50_us=%.2f p99_us=%.2f p999_us=%.2f "
           "max_us=%.2f errors=0\n",
           (unsigned long long)n_samples, (unsigned long long)n_at_once,
           histogram_us(&state.latency, 0.5), histogram_us(&state.latency, 0.99),
           histogram_us(&state.latency, 0.999), (double)state.latency.max_ns / 1e3);
    return 0;
}

/* ---- options ---- */

static void usage(void)
{
    puts("usage: loadgen [options]\n"
         "  --mode load|preload|scan|idle|visibility   what to do (load)\n"
         "  --address HOST:PORT|unix:PATH   the server, or the proxy (127.0.0.1:6379)\n"
         "  --backend HOST:PORT             visibility: where the writes are made\n"
         "  --connections N (50)            --pipeline N (1)\n"
         "  --requests N | --seconds S      when a load ends; visibility: samples\n"
         "  --workload get|set|mget|mixed   --mget N keys each (10)   --write-percent N (10)\n"
         "  --keys N (100000)               --first N  number of the first key (0)\n"
         "  --prefix TEXT (key:)            may hold a hash tag; a number in digits follows\n"
         "  --key-size N (24)               --value-size N (100)\n"
         "  --ttl S                         SET with EX\n"
         "  --hot REQUESTS/KEYS             80/20: 80 % of requests to 20 % of the keys\n"
         "  --slots FROM-TO                 preload, scan: only keys of these hash slots\n"
         "  --allow-nil                     a missing key is no error\n"
         "  --seed N (1)");
}

static unsigned number_of(const char *text, const char *name)
{
    char *end = NULL;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || number > UINT32_MAX) {
        die("--%s %s: a number is expected", name, text);
    }
    return (unsigned)number;
}

static enum workload workload_of(const char *text)
{
    static const char *const names[] = {"get", "set", "mget", "mixed"};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(text, names[i]) == 0) {
            return (enum workload)i;
        }
    }
    die("--workload %s: get, set, mget or mixed is expected", text);
}

static void set_option(const char *name, const char *value)
{
    static const struct {
        const char *name;
        unsigned *number;
    } numbers[] = {
        {"connections", &options.n_conns}, {"pipeline", &options.pipeline},
        {"mget", &options.keys_per_mget},  {"write-percent", &options.write_percent},
        {"keys", &options.n_keys},         {"first", &options.first_key},
        {"key-size", &options.key_bytes},  {"value-size", &options.value_bytes},
        {"ttl", &options.ttl_s},
    };
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (strcmp(name, numbers[i].name) == 0) {
            *numbers[i].number = number_of(value, name);
            return;
        }
    }
    if (strcmp(name, "mode") == 0) {
        options.mode = value;
    } else if (strcmp(name, "address") == 0) {
        options.address = value;
    } else if (strcmp(name, "backend") == 0) {
        options.backend = value;
    } else if (strcmp(name, "prefix") == 0) {
        options.prefix = value;
    } else if (strcmp(name, "workload") == 0) {
        options.workload = workload_of(value);
    } else if (strcmp(name, "requests") == 0) {
        options.n_requests = strtoull(value, NULL, 10);
    } else if (strcmp(name, "seconds") == 0) {
        options.seconds = strtod(value, NULL);
    } else if (strcmp(name, "seed") == 0) {
        options.seed = strtoull(value, NULL, 10);
    } else if (strcmp(name, "hot") == 0) {
        if (sscanf(value, "%u/%u", &options.hot_requests_percent, &options.hot_keys_percent) != 2) {
            die("--hot %s: REQUESTS/KEYS in percent is expected", value);
        }
    } else if (strcmp(name, "slots") == 0) {
        if (sscanf(value, "%u-%u", &options.slot_from, &options.slot_to) != 2) {
            die("--slots %s: FROM-TO is expected", value);
        }
    }
}

static void read_options(int argc, char **argv)
{
    static const char *const names[] = {
        "mode", "address", "backend",  "prefix",      "workload", "requests",  "seconds",
        "seed", "hot",     "slots",    "connections", "pipeline", "mget",      "write-percent",
        "keys", "first",   "key-size", "value-size",  "ttl",      "allow-nil", "help",
    };
    enum { N_NAMES = sizeof names / sizeof *names };
    struct option table[N_NAMES + 1];
    memset(table, 0, sizeof table);
    for (int i = 0; i < N_NAMES; i++) {
        table[i].name = names[i];
        table[i].has_arg = i < N_NAMES - 2 ? required_argument : no_argument;
        table[i].val = i;
    }
    int found;
    while ((found = getopt_long(argc, argv, "", table, NULL)) != -1) {
        if (found == '?' || found == N_NAMES - 1) {
            usage();
            exit(found == '?');
        }
        if (found == N_NAMES - 2) {
            options.is_nil_allowed = true;
        } else {
            set_option(names[found], optarg);
        }
    }
    if (optind != argc || options.n_conns == 0 || options.pipeline == 0 || options.n_keys == 0) {
        usage();
        exit(1);
    }
    if (options.keys_per_mget == 0 || options.keys_per_mget > MGET_MAX) {
        die("--mget: 1 to %d", MGET_MAX);
    }
    if (options.hot_keys_percent >= 100 || options.hot_requests_percent > 100) {
        die("--hot: the hot keys must be fewer than all");
    }
}

int main(int argc, char **argv)
{
    read_options(argc, argv);
    state.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (state.epoll < 0) {
        die("epoll_create1: %s", strerror(errno));
    }
    bool is_load = strcmp(options.mode, "load") == 0;
    if (is_load && options.n_requests == 0 && options.seconds <= 0) {
        die("a load needs --requests or --seconds");
    }
    if (is_load || strcmp(options.mode, "preload") == 0 || strcmp(options.mode, "scan") == 0) {
        return run_load();
    }
    if (strcmp(options.mode, "idle") == 0) {
        return run_idle();
    }
    if (strcmp(options.mode, "visibility") == 0 && options.backend != NULL) {
        return run_visibility();
    }
    usage();
    return 1;
}
