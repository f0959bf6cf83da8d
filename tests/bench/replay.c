/*
 * replay.c - a real trace with writes mixed in, through proxies against a cluster, every answer
 * checked
 *
 * Purpose:    the real input: who asks for which object in which order comes from a trace of a
 *             real application; some requests are made writes. What is read is checked against
 *             what was written, and the latencies of reads and writes are measured.
 * Phases:     preload  writes version 0 of every object of the trace, straight to its node
 *             direct   the trace by a client that knows the cluster's slots (the yardstick)
 *             proxied  the trace through the proxies in turn; some writes go around them
 * Output:     one logfmt line on stdout. Status 1 when an answer was wrong or stale.
 * Threading:  one thread, epoll; each session has one request under way. As sending and receiving
 *             happen on one thread, "before" and "after" below are exact.
 * Latency:    from the moment a request is sent; one that was due (--rate) while every session was
 *             busy counts from when it was due, so a stall shows in full.
 *
 * Values say which object and which version they are. One write of an object is under way at a
 * time, so the order of versions is the order of execution. An answer is
 *
 *   wrong      another object's, malformed, or a version that nobody has written
 *   stale_own  older than what its own proxy had acknowledged when the read was sent
 *   stale      older than what anybody had been told more than the bound before the read was sent
 *   backwards  older than what its own session had seen before
 *
 * and each of these must be 0. Between acknowledgement elsewhere and the bound an older answer is
 * allowed; the oldest such answer is reported as lag_max_us. In the direct phase the bound is 0.
 */
#include "bench_util.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#define MAX_NODES 16
#define MAX_PROXIES 8
#define MAX_SESSIONS 512
#define VALUE_HEAD 20 /* "oooooooo:vvvvvvvvvv:" */
#define VALUE_MAX 2048
#define IN_SIZE (VALUE_MAX + 1024)
#define STALL_LIMIT_MS 15000
#define ACKS_KEPT 8

struct node {
    const char *address;
    unsigned slot_from, slot_to;
};

static struct options {
    const char *phase, *trace, *prefix;
    struct node nodes[MAX_NODES];
    unsigned n_nodes;
    const char *proxies[MAX_PROXIES];
    unsigned n_proxies;
    unsigned n_sessions, write_percent, around_percent;
    uint64_t limit, seed;
    unsigned rate; /* requests per second; 0: as fast as the sessions get answers */
    int64_t bound_ns;
} options = {
    .prefix = "obj:",
    .n_sessions = 8,
    .write_percent = 5,
    .around_percent = 10,
    .seed = 1,
    .bound_ns = NS_PER_S,
};

/* What is known of one object. Versions count from 0, the preloaded one. */
struct object {
    uint32_t name;    /* the trace's number */
    uint32_t issued;  /* the newest version sent */
    uint32_t acked;   /* the newest version acknowledged anywhere */
    uint32_t settled; /* the newest version acknowledged more than the bound ago */
    bool is_being_written;
    uint16_t slot;
    uint32_t acked_by[MAX_PROXIES]; /* the newest version that each proxy acknowledged */
    int64_t acked_ns[ACKS_KEPT];    /* when version v was acknowledged, at v % ACKS_KEPT */
};

/* An acknowledgement that is not older than the bound yet. */
struct pending_ack {
    int64_t at_ns;
    uint32_t object, version;
};

struct session {
    int fds[MAX_NODES]; /* to the nodes; -1: not open */
    int proxy_fd;       /* -1 in the direct phase */
    unsigned proxy;     /* whose */
    uint32_t *seen;     /* per object: the newest version this session has been shown */
    bool is_write, is_around;
    uint32_t object, version;      /* a write's */
    uint32_t floor_own, floor_any; /* a read's: versions it must not be older than */
    uint32_t acked_at_send;
    int64_t sent_ns, latency_from_ns;
    unsigned char in[IN_SIZE];
    size_t in_len;
};

static struct state {
    int epoll;
    uint64_t random;
    const uint32_t *trace; /* indices into objects */
    uint64_t n_requests, next;
    struct object *objects;
    uint32_t n_objects;
    struct pending_ack *pending; /* a ring, oldest first */
    size_t pending_size, pending_first, n_pending;
    struct histogram reads, writes;
    uint64_t n_wrong, n_stale_own, n_stale, n_backwards, n_behind;
    int64_t lag_max_ns, begin_ns;
    struct session **idle; /* a stack */
    unsigned n_idle;
} state;

/* ---- the trace ---- */

/* Maps the trace's numbers to dense indices, by an open table. */
static void number_objects(uint32_t *trace)
{
    size_t size = 1;
    while (size < state.n_requests * 2) {
        size *= 2;
    }
    uint32_t *table = must_alloc(size, sizeof *table); /* index + 1; 0: free */
    state.objects = must_alloc(state.n_requests, sizeof *state.objects);
    for (uint64_t i = 0; i < state.n_requests; i++) {
        uint32_t name = ntohl(trace[i]);
        size_t at = (name * UINT64_C(0x9E3779B97F4A7C15) >> 20) & (size - 1);
        while (table[at] != 0 && state.objects[table[at] - 1].name != name) {
            at = (at + 1) & (size - 1);
        }
        if (table[at] == 0) {
            state.objects[state.n_objects].name = name;
            table[at] = ++state.n_objects;
        }
        trace[i] = table[at] - 1;
    }
    free(table);
}

static void load_trace(void)
{
    int fd = open(options.trace, O_RDONLY | O_CLOEXEC);
    struct stat facts;
    if (fd < 0 || fstat(fd, &facts) != 0) {
        die("%s: %s", options.trace, strerror(errno));
    }
    state.n_requests = (uint64_t)facts.st_size / 4;
    if (options.limit != 0 && state.n_requests > options.limit) {
        state.n_requests = options.limit;
    }
    if (state.n_requests == 0) {
        die("%s: no request", options.trace);
    }
    /* Private and writable: the numbers are replaced in place. */
    uint32_t *trace = mmap(NULL, state.n_requests * 4, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    if (trace == MAP_FAILED) {
        die("%s: %s", options.trace, strerror(errno));
    }
    close(fd);
    number_objects(trace);
    state.trace = trace;
}

/* ---- requests ---- */

static size_t key_of(const struct object *object, char *to, size_t size)
{
    return (size_t)snprintf(to, size, "%s%08x", options.prefix, object->name);
}

/* The length of an object's values: 40 to 2 023 bytes, small ones more often, the same always. */
static size_t value_len(uint32_t index)
{
    uint64_t random = random_seed(index + 1);
    unsigned shift = random_below(&random, 7);
    return (size_t)40 + random_below(&random, 31U << shift);
}

static size_t put_read(unsigned char *to, const struct object *object)
{
    char key[128];
    size_t len = key_of(object, key, sizeof key);
    return (size_t)sprintf((char *)to, "*2\r\n$3\r\nGET\r\n$%zu\r\n%s\r\n", len, key);
}

static size_t put_write(unsigned char *to, uint32_t index, uint32_t version)
{
    char key[128];
    size_t key_len = key_of(&state.objects[index], key, sizeof key);
    size_t len = value_len(index);
    int n = sprintf((char *)to, "*3\r\n$3\r\nSET\r\n$%zu\r\n%s\r\n$%zu\r\n%08u:%010u:", key_len,
                    key, len, index, version);
    unsigned char *end = to + n;
    memset(end, 'a' + (int)(version % 26), len - VALUE_HEAD);
    end += len - VALUE_HEAD;
    memcpy(end, "\r\n", 2);
    return (size_t)(end + 2 - to);
}

/* ---- what has been acknowledged ---- */

static void note_ack(struct session *session, int64_t now)
{
    struct object *object = &state.objects[session->object];
    object->is_being_written = false;
    object->acked = session->version;
    object->acked_ns[session->version % ACKS_KEPT] = now;
    if (session->proxy_fd >= 0 && !session->is_around) {
        object->acked_by[session->proxy] = session->version;
    }
    if (state.n_pending == state.pending_size) {
        struct pending_ack *larger = must_alloc(state.pending_size * 2, sizeof *larger);
        for (size_t i = 0; i < state.n_pending; i++) {
            larger[i] = state.pending[(state.pending_first + i) % state.pending_size];
        }
        free(state.pending);
        state.pending = larger;
        state.pending_size *= 2;
        state.pending_first = 0;
    }
    state.pending[(state.pending_first + state.n_pending++) % state.pending_size] =
        (struct pending_ack){.at_ns = now, .object = session->object, .version = session->version};
}

static void settle(int64_t now)
{
    while (state.n_pending != 0) {
        const struct pending_ack *ack = &state.pending[state.pending_first];
        if (ack->at_ns > now - options.bound_ns) {
            return;
        }
        state.objects[ack->object].settled = ack->version;
        state.pending_first = (state.pending_first + 1) % state.pending_size;
        state.n_pending--;
    }
}

/* ---- answers ---- */

static void complain(const struct session *session, const char *what, uint32_t version)
{
    static unsigned n_complaints;
    if (n_complaints++ < 10) {
        const struct object *object = &state.objects[session->object];
        fprintf(
            stderr, "%s: object=%u got=%u own=%u settled=%u seen=%u acked=%u issued=%u proxy=%u\n",
            what, session->object, version, session->floor_own, session->floor_any,
            session->seen[session->object], session->acked_at_send, object->issued, session->proxy);
    }
}

/* Reads "index:version:" off a value; false when it is not this object's. */
static bool parse_value(const struct session *session, const struct reply *reply, uint32_t *version)
{
    if (reply->kind != REPLY_BULK || (size_t)reply->len != value_len(session->object)) {
        return false;
    }
    char head[VALUE_HEAD + 1];
    memcpy(head, reply->body, VALUE_HEAD);
    head[VALUE_HEAD] = '\0';
    uint32_t index;
    if (sscanf(head, "%8u:%10u:", &index, version) != 2 || index != session->object) {
        return false;
    }
    /* The last byte belongs to the version too: a torn value would show here. */
    return reply->len == VALUE_HEAD || reply->body[reply->len - 1] == 'a' + (int)(*version % 26);
}

static void check_lag(const struct session *session, uint32_t version)
{
    const struct object *object = &state.objects[session->object];
    if (version >= session->acked_at_send) {
        return;
    }
    /* The version after this one was acknowledged when? If that is forgotten, the oldest known. */
    uint32_t next = version + 1;
    if (session->acked_at_send - next >= ACKS_KEPT) {
        next = session->acked_at_send - ACKS_KEPT + 1;
    }
    int64_t lag = session->sent_ns - object->acked_ns[next % ACKS_KEPT];
    state.n_behind++;
    if (lag > state.lag_max_ns) {
        state.lag_max_ns = lag;
    }
}

static void check_read(struct session *session, const struct reply *reply)
{
    const struct object *object = &state.objects[session->object];
    uint32_t version = 0;
    if (!parse_value(session, reply, &version) || version > object->issued) {
        state.n_wrong++;
        complain(session, "wrong", version);
        return;
    }
    if (version < session->floor_own) {
        state.n_stale_own++;
        complain(session, "stale_own", version);
    }
    if (version < session->floor_any) {
        state.n_stale++;
        complain(session, "stale", version);
    }
    if (version < session->seen[session->object]) {
        state.n_backwards++;
        complain(session, "backwards", version);
    } else {
        session->seen[session->object] = version;
    }
    check_lag(session, version);
}

/* ---- sessions ---- */

static int node_fd(struct session *session, unsigned slot)
{
    for (unsigned i = 0; i < options.n_nodes; i++) {
        if (slot >= options.nodes[i].slot_from && slot <= options.nodes[i].slot_to) {
            return session->fds[i];
        }
    }
    die("no node serves slot %u", slot);
}

static void add(struct session *session, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = session};
    if (epoll_ctl(state.epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
        die("epoll_ctl: %s", strerror(errno));
    }
}

static struct session *open_sessions(void)
{
    struct session *sessions = must_alloc(options.n_sessions, sizeof *sessions);
    bool is_proxied = strcmp(options.phase, "proxied") == 0;
    for (unsigned i = 0; i < options.n_sessions; i++) {
        struct session *session = &sessions[i];
        session->seen = must_alloc(state.n_objects, sizeof *session->seen);
        session->proxy_fd = -1;
        if (is_proxied) {
            session->proxy = i % options.n_proxies;
            session->proxy_fd = dial(options.proxies[session->proxy]);
            add(session, session->proxy_fd);
        }
        for (unsigned n = 0; n < options.n_nodes; n++) {
            session->fds[n] = dial(options.nodes[n].address);
            add(session, session->fds[n]);
        }
    }
    return sessions;
}

static void send_all(int fd, const unsigned char *data, size_t len)
{
    if (write(fd, data, len) != (ssize_t)len) {
        die("write: %s", strerror(errno));
    }
}

static void begin_write(struct session *session, int64_t now)
{
    struct object *object = &state.objects[session->object];
    unsigned char request[VALUE_MAX + 256];
    session->is_write = true;
    session->version = strcmp(options.phase, "preload") == 0 ? 0 : object->issued + 1;
    session->is_around = session->proxy_fd >= 0 &&
                         random_below(&state.random, 100) < options.around_percent;
    object->issued = session->version;
    object->is_being_written = true;
    size_t len = put_write(request, session->object, session->version);
    session->sent_ns = now;
    send_all(session->proxy_fd < 0 || session->is_around ? node_fd(session, object->slot)
                                                         : session->proxy_fd,
             request, len);
}

static void begin_read(struct session *session, int64_t now)
{
    const struct object *object = &state.objects[session->object];
    unsigned char request[256];
    session->is_write = false;
    session->acked_at_send = object->acked;
    session->floor_any = object->settled;
    session->floor_own = session->proxy_fd < 0 ? object->acked : object->acked_by[session->proxy];
    size_t len = put_read(request, object);
    session->sent_ns = now;
    send_all(session->proxy_fd < 0 ? node_fd(session, object->slot) : session->proxy_fd, request,
             len);
}

static uint64_t n_to_ask(void)
{
    return strcmp(options.phase, "preload") == 0 ? state.n_objects : state.n_requests;
}

/* When the next request is to be sent. */
static int64_t due_ns(void)
{
    if (options.rate == 0) {
        return state.begin_ns;
    }
    return state.begin_ns + (int64_t)(state.next * (uint64_t)NS_PER_S / options.rate);
}

/* Gives the session the trace's next request. */
static void begin_next(struct session *session, int64_t latency_from_ns, int64_t now)
{
    bool is_preload = strcmp(options.phase, "preload") == 0;
    settle(now);
    session->latency_from_ns = latency_from_ns;
    session->object = is_preload ? (uint32_t)state.next : state.trace[state.next];
    state.next++;
    /* Drawn in either case, so that both phases write the same requests where they can. */
    bool is_write = random_below(&state.random, 100) < options.write_percent;
    if (is_preload || (is_write && !state.objects[session->object].is_being_written)) {
        begin_write(session, now);
    } else {
        begin_read(session, now);
    }
}

/* Sends what is due while a session is free for it. */
static void begin_due(void)
{
    while (state.n_idle != 0 && state.next < n_to_ask()) {
        int64_t now = now_ns();
        if (due_ns() > now) {
            return;
        }
        begin_next(state.idle[--state.n_idle], now, now);
    }
}

static void on_reply(struct session *session, const struct reply *reply)
{
    int64_t now = now_ns();
    int64_t took = now - session->latency_from_ns;
    if (reply->kind == REPLY_ERROR) {
        /* The outcome of a write is unknown from here on, so no later check would be sound. */
        die("%.*s", (int)reply->len, reply->body);
    }
    if (session->is_write) {
        if (reply->kind != REPLY_SIMPLE || reply->len != 2) {
            die("the reply to a write is not OK");
        }
        histogram_add(&state.writes, took, 1);
        note_ack(session, now);
    } else {
        histogram_add(&state.reads, took, 1);
        check_read(session, reply);
    }
    int64_t due = due_ns();
    if (state.next < n_to_ask() && due <= now) {
        begin_next(session, options.rate != 0 ? due : now, now);
    } else {
        state.idle[state.n_idle++] = session;
    }
}

static void on_readable(struct session *session)
{
    /* One request is under way, so only the connection it went out on can have something. */
    int fd = session->proxy_fd;
    if (fd < 0 || (session->is_write && session->is_around)) {
        fd = node_fd(session, state.objects[session->object].slot);
    }
    ssize_t n = recv(fd, session->in + session->in_len, IN_SIZE - session->in_len, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        die("bytes on a connection that owes no reply");
    }
    if (n <= 0) {
        die("connection lost: %s", n == 0 ? "closed by the server" : strerror(errno));
    }
    session->in_len += (size_t)n;
    struct reply reply;
    ssize_t taken = reply_take(session->in, session->in_len, &reply);
    if (taken < 0 || (taken > 0 && (size_t)taken < session->in_len)) {
        die("malformed reply: %.80s", session->in);
    }
    if (taken > 0) {
        session->in_len = 0;
        on_reply(session, &reply);
    } else if (session->in_len == IN_SIZE) {
        die("a reply larger than any value written");
    }
}

static void report(double seconds)
{
    printf("phase=%s requests=%llu objects=%u reads=%llu writes=%llu seconds=%.3f ops=%.0f "
           "read_p50_us=%.2f read_p99_us=%.2f write_p50_us=%.2f write_p99_us=%.2f "
           "wrong=%llu stale_own=%llu stale=%llu backwards=%llu behind=%llu lag_max_us=%.1f\n",
           options.phase, (unsigned long long)(state.reads.total + state.writes.total),
           state.n_objects, (unsigned long long)state.reads.total,
           (unsigned long long)state.writes.total, seconds,
           (double)(state.reads.total + state.writes.total) / seconds,
           histogram_us(&state.reads, 0.5), histogram_us(&state.reads, 0.99),
           histogram_us(&state.writes, 0.5), histogram_us(&state.writes, 0.99),
           (unsigned long long)state.n_wrong, (unsigned long long)state.n_stale_own,
           (unsigned long long)state.n_stale, (unsigned long long)state.n_backwards,
           (unsigned long long)state.n_behind, (double)state.lag_max_ns / 1e3);
}

/* Waits for replies, but not beyond the moment at which an idle session has something to send. */
static void wait_for_events(void)
{
    struct epoll_event events[64];
    int64_t wait_ns = STALL_LIMIT_MS * NS_PER_MS;
    bool is_paced = state.n_idle != 0 && state.next < n_to_ask();
    if (is_paced) {
        wait_ns = due_ns() - now_ns();
        wait_ns = wait_ns > 0 ? wait_ns : 0;
    }
    struct timespec timeout = {.tv_sec = wait_ns / NS_PER_S, .tv_nsec = wait_ns % NS_PER_S};
    int n = epoll_pwait2(state.epoll, events, 64, &timeout, NULL);
    if (n == 0 && !is_paced) {
        die("no reply for %d ms", STALL_LIMIT_MS);
    }
    for (int i = 0; i < n; i++) {
        on_readable(events[i].data.ptr);
    }
}

static int run(void)
{
    struct session *sessions = open_sessions();
    state.idle = must_alloc(options.n_sessions, sizeof *state.idle);
    for (unsigned i = 0; i < options.n_sessions; i++) {
        state.idle[state.n_idle++] = &sessions[i];
    }
    /* The default slack of 50 us would be late by a whole request at 20 000 per second. */
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
    state.begin_ns = now_ns();
    while (state.next < n_to_ask() || state.n_idle < options.n_sessions) {
        begin_due();
        wait_for_events();
    }
    report((double)(now_ns() - state.begin_ns) / 1e9);
    return state.n_wrong + state.n_stale_own + state.n_stale + state.n_backwards != 0;
}

/* ---- options ---- */

static void add_node(char *text)
{
    struct node *node = &options.nodes[options.n_nodes];
    char *range = strrchr(text, ':');
    if (options.n_nodes == MAX_NODES || range == NULL ||
        sscanf(range + 1, "%u-%u", &node->slot_from, &node->slot_to) != 2) {
        die("--node %s: HOST:PORT:FROM-TO is expected, at most %d times", text, MAX_NODES);
    }
    *range = '\0';
    node->address = text;
    options.n_nodes++;
}

static void add_proxy(const char *text)
{
    if (options.n_proxies == MAX_PROXIES) {
        die("--proxy: at most %d", MAX_PROXIES);
    }
    options.proxies[options.n_proxies++] = text;
}

__attribute__((noreturn)) static void usage(void)
{
    puts("usage: replay --phase preload|direct|proxied --trace FILE --node HOST:PORT:FROM-TO...\n"
         "  --proxy HOST:PORT...      the proxies, for phase proxied\n"
         "  --sessions N (8)          each with one request under way\n"
         "  --write-percent N (5)     requests that become writes\n"
         "  --around-percent N (10)   of the writes: those that go around the proxies\n"
         "  --bound-ms N (1000)       how long after an acknowledgement elsewhere reads may lag\n"
         "  --rate N                  requests per second; 0: as fast as answers come (0)\n"
         "  --limit N                 only the first N requests\n"
         "  --prefix TEXT (obj:)      --seed N (1)\n"
         "FILE holds one big-endian 32-bit number per request.");
    exit(1);
}

static void set_number(const char *name, const char *text)
{
    char *end = NULL;
    uint64_t number = strtoull(text, &end, 10);
    if (end == text || *end != '\0' || number > UINT32_MAX) {
        die("--%s %s: a number is expected", name, text);
    }
    if (strcmp(name, "sessions") == 0) {
        options.n_sessions = (unsigned)number;
    } else if (strcmp(name, "write-percent") == 0) {
        options.write_percent = (unsigned)number;
    } else if (strcmp(name, "around-percent") == 0) {
        options.around_percent = (unsigned)number;
    } else if (strcmp(name, "bound-ms") == 0) {
        options.bound_ns = (int64_t)number * NS_PER_MS;
    } else if (strcmp(name, "rate") == 0) {
        options.rate = (unsigned)number;
    } else if (strcmp(name, "limit") == 0) {
        options.limit = number;
    } else {
        options.seed = number;
    }
}

static void set_option(const char *name, char *value)
{
    if (strcmp(name, "phase") == 0) {
        options.phase = value;
    } else if (strcmp(name, "trace") == 0) {
        options.trace = value;
    } else if (strcmp(name, "prefix") == 0) {
        options.prefix = value;
    } else if (strcmp(name, "node") == 0) {
        add_node(value);
    } else if (strcmp(name, "proxy") == 0) {
        add_proxy(value);
    } else {
        set_number(name, value);
    }
}

static void read_options(int argc, char **argv)
{
    static const char *const names[] = {
        "phase",         "trace",          "prefix",   "node", "proxy", "sessions",
        "write-percent", "around-percent", "bound-ms", "rate", "limit", "seed",
    };
    enum { N_NAMES = sizeof names / sizeof *names };
    struct option table[N_NAMES + 1];
    memset(table, 0, sizeof table);
    for (int i = 0; i < N_NAMES; i++) {
        table[i].name = names[i];
        table[i].has_arg = required_argument;
        table[i].val = i;
    }
    int found;
    while ((found = getopt_long(argc, argv, "", table, NULL)) != -1) {
        if (found == '?') {
            usage();
        }
        set_option(names[found], optarg);
    }
    if (options.phase == NULL || options.trace == NULL || options.n_nodes == 0 || optind != argc ||
        options.n_sessions == 0 || options.n_sessions > MAX_SESSIONS ||
        strlen(options.prefix) > 64 ||
        (strcmp(options.phase, "proxied") == 0) != (options.n_proxies != 0)) {
        usage();
    }
}

int main(int argc, char **argv)
{
    read_options(argc, argv);
    if (strcmp(options.phase, "direct") == 0) {
        options.bound_ns = 0;
    }
    load_trace();
    for (uint32_t i = 0; i < state.n_objects; i++) {
        char key[128];
        size_t len = key_of(&state.objects[i], key, sizeof key);
        state.objects[i].slot = (uint16_t)hash_slot((const unsigned char *)key, len);
    }
    state.random = random_seed(options.seed);
    state.pending_size = 4096;
    state.pending = must_alloc(state.pending_size, sizeof *state.pending);
    state.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (state.epoll < 0) {
        die("epoll_create1: %s", strerror(errno));
    }
    return run();
}
