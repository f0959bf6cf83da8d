/*
 * Design: requests are appended to one buffer and leave when the loop turn ends, so that whatever
 * a turn gathered costs one write(2). Positions in that stream of bytes are counted from the
 * link's birth; an operation remembers where its request begins and ends:
 *
 *     out_base          first->begin     out_sent            end
 *        | answered, kept? |   written      |   to be written  |
 *
 * Against a cluster the bytes stay until the reply has come, since MOVED and ASK send them again
 * elsewhere: no request is ever copied for that. Replies are framed where they were read and shown
 * to their operation in place.
 */
#include "upstream/link.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/stats.h"
#include "resp/own.h"
#include "upstream/gate.h"
#include "upstream/identity.h"

#include <errno.h>
#include <event2/util.h>
#include <stdio.h>
#include <stdlib.h>

#define LINK_MAGIC 0x6c696e6bu
/* A push names the keys of one write; a MULTI of a million keys still fits. */
#define PUSH_MAX ((size_t)64 * 1024 * 1024)
#define GREETING_REPLY_MAX ((size_t)64 * 1024)

/* A queue of requests that was longer than this gives its memory back when it is empty. */
#define OUT_KEPT (4 * BUFFER_CHUNK)
/* So many replies that nobody waits for are waited for on one link. */
#define ABANDONED_MAX 100000u
/* Silence on a leased link before TCP asks whether the node is still there. */
#define KEEP_ALIVE_S 30
/* Times connect-timeout that a connection may wait to be begun. */
#define GATE_PATIENCE 5

enum {
    GREET_HELLO,
    GREET_AUTH,
    GREET_NAME,
    GREET_READONLY,
    GREET_TRACKING,
    GREET_ID,
    GREET_MULTI,
    GREET_DISCARD
};

static void on_readable(evutil_socket_t fd, short what, void *arg);
static void on_writable(evutil_socket_t fd, short what, void *arg);
static void flush_at_turn_end(struct deferred *deferred);

const char *link_kind_name(enum link_kind kind)
{
    static const char *const names[N_LINK_KINDS] = {"relay2", "relay3", "tracking"};

    return names[kind];
}

void link_init(struct link *link, enum link_kind kind, struct worker *worker,
               const struct topology_node *node, const struct config_backend *login,
               const struct link_settings *settings)
{
    memset(link, 0, sizeof(*link));
    link->magic = LINK_MAGIC;
    link->kind = kind;
    link->worker = worker;
    link->login = login;
    link->settings = *settings;
    link->endpoint = node->endpoint;
    snprintf(link->name, sizeof(link->name), "%s", node->endpoint.text);
    link->host = settings->tls != NULL ? mem_strdup(node->host) : NULL;
    stream_init(&link->stream, -1);
    buffer_init(&link->out);
    buffer_init(&link->in);
    link->flush.run = flush_at_turn_end;
}

/* ---- losing ---- */

static void pause_before_retry(struct link *link)
{
    const int64_t now_us = clock_now_us();
    int64_t pause_ms = link->settings.reconnect_min_ms;
    uint64_t random;

    int64_t max_ms = link->settings.reconnect_max_ms;

    if (link->kind == LINK_TRACKING) {
        max_ms = health_retry_max_ms(link->settings.health, max_ms);
    }
    for (unsigned i = 1; i < link->n_failures && pause_ms < max_ms; i++) {
        pause_ms *= 2;
    }
    if (pause_ms > max_ms) {
        pause_ms = max_ms;
    }
    /* Half fixed, half random: workers and proxies that lost a node together do not return
     * together. */
    evutil_secure_rng_get_bytes(&random, sizeof(random));
    link->retry_at_us = now_us + pause_ms * 500 +
                        (int64_t)(random % (uint64_t)(pause_ms * 500 + 1));
}

static void free_event(struct event **event)
{
    if (*event != NULL) {
        event_free(*event);
        *event = NULL;
    }
}

static void lose_operations(struct link *link, bool is_timeout)
{
    struct link_op *op = link->first_op;

    link->first_op = link->last_op = NULL;
    link->n_ops = 0;
    link->is_losing = true;
    while (op != NULL) {
        struct link_op *const next = op->next;
        enum link_loss loss = op->begin >= link->out_sent ? LINK_LOST_UNSENT : LINK_LOST_SENT;

        if (loss == LINK_LOST_SENT && is_timeout) {
            loss = LINK_LOST_TIMEOUT;
        }
        op->next = NULL;
        op->type->on_lost(op, link, loss);
        op = next;
    }
    link->is_losing = false;
}

static void leave_gate(struct link *link)
{
    if (link->gate != NULL && !link->is_at_gate) {
        gate_leave(link->gate);
    }
    link->is_at_gate = false;
    gate_put(&link->gate);
}

static void reset_connection(struct link *link)
{
    leave_gate(link);
    free_event(&link->read_event);
    free_event(&link->write_event);
    stream_close(&link->stream);
    buffer_consume(&link->in, buffer_len(&link->in));
    buffer_release(&link->in);
    buffer_consume(&link->out, buffer_len(&link->out));
    buffer_release(&link->out);
    link->out_base = link->out_sent = link->out_allowed = link->out_held = 0;
    link->may_select = false;
    link->in_seen = 0;
    link->is_streaming = false;
    memset(&link->framer, 0, sizeof(link->framer));
    link->db = 0;
    link->n_greeting = link->n_greeted = 0;
    link->client_id = 0;
    link->multi_refused = link->needs_multi = false;
    link->is_paused = link->is_left = link->is_filling = link->is_filled = false;
    link->on_drained = NULL;
}

/* That a connection without requests is closed is no failure: servers do so (timeout). */
static void tell_health(const struct link *link, bool is_timeout)
{
    const bool was_up = link->state == LINK_UP;
    const int64_t now_us = clock_now_us();

    if (!link->settings.is_judge || link->settings.is_quiet || link->is_closing ||
        (was_up && link->first_op == NULL && link->kind != LINK_TRACKING)) {
        return;
    }
    if (!was_up) {
        health_failed(link->settings.health, 0, link->connect_began_us, now_us);
    } else if (is_timeout) {
        health_failed(link->settings.health, link->n_ops,
                      link->first_op != NULL ? link->first_op->sent_at_us : now_us, now_us);
    } else {
        health_cut(link->settings.health, link->n_ops,
                   link->first_op != NULL ? link->first_op->sent_at_us : now_us, now_us);
    }
}

static void go_down(struct link *link, const char *reason, bool is_timeout)
{
    const bool was_up = link->state == LINK_UP;

    if (link->state == LINK_IDLE || link->state == LINK_DOWN) {
        return;
    }
    tell_health(link, is_timeout);
    link->down_at_us = INT64_MAX; /* not before it has been reset is it connected again */
    snprintf(link->error, sizeof(link->error), "%s", reason);
    link->state = LINK_DOWN;
    link->is_resp2 = false; /* the server may have changed: asked anew next time */
    stats_add(was_up ? METRIC_links_lost : METRIC_links_failed, 1);
    link->n_failures++;
    pause_before_retry(link);
    if (link->settings.is_quiet || (link->settings.is_leased && was_up && link->first_op == NULL)) {
        log_debug("upstream", "link closed", "addr=%s reason=%s", link->name,
                  log_quote_long(bytes_of_string(reason)));
    } else {
        log_warn("upstream", was_up ? "link lost" : "link did not come up",
                 "addr=%s kind=%s reason=%s retry_ms=%lld", link->name, link_kind_name(link->kind),
                 log_quote_long(bytes_of_string(reason)),
                 (long long)((link->retry_at_us - clock_now_us()) / 1000));
    }
    if (was_up && link->events != NULL) {
        link->events->on_down(link);
    }
    lose_operations(link, is_timeout);
    reset_connection(link);
    link->down_at_us = clock_now_us();
}

void link_close(struct link *link, const char *reason)
{
    link->is_closing = true;
    go_down(link, reason, false);
    link->is_closing = false;
}

bool link_require_multi(struct link *link)
{
    link->needs_multi = true;
    return !link->multi_refused;
}

void link_shut(struct link *link)
{
    if (link->state == LINK_IDLE || link->state == LINK_DOWN) {
        return;
    }
    link->state = LINK_IDLE;
    snprintf(link->error, sizeof(link->error), "closed");
    lose_operations(link, false);
    reset_connection(link);
}

void link_fini(struct link *link)
{
    const bool was_up = link->state == LINK_UP;

    /* As in go_down: who is told finds the link down, and connects it no more. */
    link->state = LINK_DOWN;
    link->retry_at_us = link->down_at_us = INT64_MAX;
    if (was_up && link->events != NULL) {
        link->events->on_down(link);
    }
    snprintf(link->error, sizeof(link->error), "the node left the map");
    lose_operations(link, false);
    reset_connection(link);
    worker_undefer(link->worker, &link->flush);
    mem_free(link->host);
    link->host = NULL;
    buffer_fini(&link->in);
    buffer_fini(&link->out);
}

void link_set_endpoint(struct link *link, const struct endpoint *endpoint)
{
    if (strcmp(link->endpoint.text, endpoint->text) == 0) {
        return;
    }
    link_close(link, "the node's address changed");
    link->endpoint = *endpoint;
    snprintf(link->name, sizeof(link->name), "%s", endpoint->text);
    link->retry_at_us = 0; /* what failed was the former address */
}

/* ---- sending ---- */

static uint64_t out_end(const struct link *link)
{
    return link->out_base + buffer_len(&link->out);
}

/* What a burst has left behind is given back when the burst is over, and not before. */
static void drop_out(struct link *link, uint64_t until)
{
    buffer_consume(&link->out, (size_t)(until - link->out_base));
    link->out_base = until;
    if (buffer_len(&link->out) == 0 && link->out.capacity > OUT_KEPT) {
        buffer_release(&link->out);
    }
}

static void write_out(struct link *link)
{
    uint64_t until = link->state == LINK_UP ? out_end(link) : link->out_allowed;
    size_t n_written = 0;

    if (link->out_held != 0 && link->out_held < until) {
        until = link->out_held;
    }

    while (link->out_sent < until) {
        const unsigned char *from = link->out.data + link->out.head +
                                    (link->out_sent - link->out_base);
        const ssize_t n = stream_write(&link->stream,
                                       bytes_make(from, (size_t)(until - link->out_sent)));

        if (n == -EAGAIN) {
            event_add(link->write_event, NULL);
            break;
        }
        if (n < 0) {
            go_down(link, stream_error(&link->stream, (int)n), false);
            return;
        }
        link->out_sent += (uint64_t)n;
        n_written += (size_t)n;
    }
    stats_add(METRIC_backend_written_bytes, n_written);
    if (!link->settings.keeps_requests && link->out_sent > link->out_base) {
        drop_out(link, link->out_sent);
    }
    if (NC_UNLIKELY(link->is_filling) && n_written > 0) {
        link_note_written(link);
    }
}

static void flush_at_turn_end(struct deferred *deferred)
{
    struct link *link = CONTAINER_OF(deferred, struct link, flush);

    if (link->read_event != NULL) {
        event_priority_set(link->read_event, PRIORITY_LINK);
        if (stream_has_pending(&link->stream) && event_pending(link->read_event, EV_READ, NULL)) {
            event_active(link->read_event, EV_READ, 1);
        }
    }
    if (link->state == LINK_UP || link->state == LINK_GREETING) {
        write_out(link);
    }
}

static void queue_op(struct link *link, struct link_op *op, uint64_t begin, unsigned n_replies)
{
    op->next = NULL;
    op->begin = begin;
    op->end = out_end(link);
    op->n_replies = (uint16_t)n_replies;
    op->n_seen = 0;
    op->sent_at_us = clock_now_us();
    if (link->last_op != NULL) {
        link->last_op->next = op;
    } else {
        link->first_op = op;
    }
    link->last_op = op;
    link->n_ops++;
    link->last_used_us = op->sent_at_us;
    stats_add(METRIC_backend_commands, n_replies);
}

/*
 * The SELECT that goes before the first command for another database. The first one of a connection
 * goes alone: where it is not permitted, what follows would run in the database of before.
 */
struct select_op {
    struct link_op op;
};

static void on_select_reply(struct link_op *op, struct link *link, unsigned index,
                            struct bytes part, bool is_first, bool is_last)
{
    (void)index;
    (void)is_first;
    if (is_last) {
        mem_free(CONTAINER_OF(op, struct select_op, op));
    }
    if (part.len > 0 && part.ptr[0] == '-') {
        char reason[160];

        snprintf(reason, sizeof(reason), "SELECT was refused: %.*s",
                 part.len > 120 ? 120 : (int)part.len - 3, (const char *)part.ptr + 1);
        link_close(link, reason);
    } else if (is_last) {
        link->may_select = true;
        link->out_held = 0;
        worker_defer(link->worker, &link->flush);
    }
}

static void on_select_lost(struct link_op *op, struct link *link, enum link_loss loss)
{
    (void)link;
    (void)loss;
    mem_free(CONTAINER_OF(op, struct select_op, op));
}

static const struct link_op_type select_type = {on_select_reply, on_select_lost};

static int queue_select(struct link *link, uint32_t db)
{
    char digits[12], frame[64];
    const int n_digits = snprintf(digits, sizeof(digits), "%u", db);
    const int length = snprintf(frame, sizeof(frame), OWN_SELECT "$%d\r\n%s\r\n", n_digits, digits);
    const uint64_t begin = out_end(link);
    struct select_op *select;
    int error = buffer_append(&link->out, bytes_make(frame, (size_t)length));

    if (error != 0) {
        return error;
    }
    select = mem_alloc(sizeof(*select));
    select->op.type = &select_type;
    select->op.collect = LINK_COLLECT_MIN;
    queue_op(link, &select->op, begin, 1);
    if (!link->may_select && link->out_held == 0) {
        link->out_held = out_end(link);
    }
    link->db = db;
    return 0;
}

int link_send(struct link *link, uint32_t db, const struct bytes *parts, unsigned n_parts,
              unsigned n_replies, struct link_op *op)
{
    size_t total = 0;
    uint64_t begin;
    int error;

    if (link->is_losing) {
        return -ENOTCONN;
    }
    link_wake(link);
    if (link->state == LINK_IDLE || link->state == LINK_DOWN) {
        return -ENOTCONN;
    }
    for (unsigned i = 0; i < n_parts; i++) {
        total += parts[i].len;
    }
    if (buffer_len(&link->out) > 0 &&
        total > link->settings.output_limit - (buffer_len(&link->out) < link->settings.output_limit
                                                   ? buffer_len(&link->out)
                                                   : link->settings.output_limit)) {
        return -ENOBUFS;
    }
    error = buffer_reserve(&link->out, total + 64);
    if (error == 0 && link->db != db) {
        error = queue_select(link, db);
    }
    if (error != 0) {
        return error;
    }
    begin = out_end(link);
    for (unsigned i = 0; i < n_parts; i++) {
        memcpy(buffer_end(&link->out), parts[i].ptr, parts[i].len);
        buffer_commit(&link->out, parts[i].len);
    }
    queue_op(link, op, begin, n_replies);
    worker_defer(link->worker, &link->flush);
    return 0;
}

int link_say(struct link *link, struct bytes frame)
{
    int error;

    CHECK(!link->settings.keeps_requests);
    if (link->state != LINK_UP || link->is_losing) {
        return -ENOTCONN;
    }
    error = buffer_append(&link->out, frame);
    if (error == 0) {
        link->last_used_us = clock_now_us();
        worker_defer(link->worker, &link->flush);
    }
    return error;
}

struct bytes link_op_bytes(const struct link *link, const struct link_op *op)
{
    if (op->begin < link->out_base) {
        return bytes_make(NULL, 0);
    }
    return bytes_make(link->out.data + link->out.head + (op->begin - link->out_base),
                      (size_t)(op->end - op->begin));
}

/* ---- connecting and greeting ---- */

static int add_greeting(struct link *link, unsigned step, struct bytes *argv, unsigned argc)
{
    const struct bytes in_capitals = argv[0];
    unsigned char name[OWN_NAME_MAX];
    int error;

    argv[0] = own_spell(name, in_capitals);
    link->greeting[link->n_greeting++] = (uint8_t)step;
    error = resp_write_request(&link->out, argv, argc);
    argv[0] = in_capitals;
    return error;
}

/*
 * CLIENT UNBLOCK needs the connection's number. Where MULTI is not permitted, what follows it would
 * run at once instead of being queued: that is found out before there is anything to run.
 */
static int add_leased_greeting(struct link *link)
{
    struct bytes client_id[] = {BYTES("CLIENT"), BYTES("ID")};
    struct bytes multi[] = {BYTES("MULTI")};
    struct bytes discard[] = {BYTES("DISCARD")};
    int error;

    if (!link->settings.is_leased) {
        return 0;
    }
    error = add_greeting(link, GREET_ID, client_id, 2);
    if (error == 0) {
        error = add_greeting(link, GREET_MULTI, multi, 1);
    }
    return error != 0 ? error : add_greeting(link, GREET_DISCARD, discard, 1);
}

static int add_tracking_greeting(struct link *link)
{
    const struct link_settings *settings = &link->settings;
    const unsigned n_prefixes = settings->is_broadcast ? settings->n_prefixes : 0;
    struct bytes *argv = mem_alloc((4 + 2 * (size_t)n_prefixes) * sizeof(*argv));
    unsigned n = 0;
    int error;

    argv[n++] = BYTES("CLIENT");
    argv[n++] = BYTES("TRACKING");
    argv[n++] = BYTES("ON");
    if (settings->is_broadcast) {
        argv[n++] = BYTES("BCAST");
    }
    for (unsigned i = 0; i < n_prefixes; i++) {
        argv[n++] = BYTES("PREFIX");
        argv[n++] = settings->prefixes[i];
    }
    link->tracking_asked = true;
    error = add_greeting(link, GREET_TRACKING, argv, n);
    mem_free(argv);
    return error;
}

static int write_greeting(struct link *link)
{
    const struct config_backend *login = link->login;
    const char *user = login->user != NULL && login->user[0] != '\0' ? login->user : NULL;
    const char *password = login->password;
    struct bytes argv[7];
    unsigned n = 0;
    int error = 0;

    if (link->kind == LINK_RELAY2 || link->is_resp2) {
        if (password != NULL) {
            argv[n++] = BYTES("AUTH");
            if (user != NULL) {
                argv[n++] = bytes_of_string(user);
            }
            argv[n++] = bytes_of_string(password);
            error = add_greeting(link, GREET_AUTH, argv, n);
        }
        argv[0] = BYTES("CLIENT");
        argv[1] = BYTES("SETNAME");
        argv[2] = BYTES("nearcached");
        if (error == 0) {
            error = add_greeting(link, GREET_NAME, argv, 3);
        }
        return error != 0 ? error : add_leased_greeting(link);
    }
    argv[n++] = BYTES("HELLO");
    argv[n++] = BYTES("3");
    if (password != NULL) {
        argv[n++] = BYTES("AUTH");
        argv[n++] = bytes_of_string(user != NULL ? user : "default");
        argv[n++] = bytes_of_string(password);
    }
    argv[n++] = BYTES("SETNAME");
    argv[n++] = BYTES("nearcached");
    error = add_greeting(link, GREET_HELLO, argv, n);
    if (error == 0 && link->kind == LINK_TRACKING && link->settings.reads_replica) {
        argv[0] = BYTES("READONLY");
        error = add_greeting(link, GREET_READONLY, argv, 1);
    }
    if (error == 0 && link->kind == LINK_TRACKING && link->settings.wants_tracking) {
        error = add_tracking_greeting(link);
    }
    return error != 0 ? error : add_leased_greeting(link);
}

static void shake_hands(struct link *link)
{
    const int error = stream_handshake(&link->stream);

    if (error == -EAGAIN) {
        event_add(link->read_event, NULL);
        if (stream_wants_write(&link->stream)) {
            event_add(link->write_event, NULL);
        }
        return;
    }
    if (error != 0) {
        go_down(link, stream_error(&link->stream, error), false);
        return;
    }
    link->state = LINK_GREETING;
    event_add(link->read_event, NULL);
    write_out(link);
}

static void connected(struct link *link)
{
    const struct link_settings *settings = &link->settings;
    const int error = settings->tls != NULL && *settings->tls != NULL
                          ? stream_start_tls(&link->stream, *settings->tls, link->host, link->name)
                          : 0;

    if (error != 0) {
        go_down(link, strerror(-error), false);
        return;
    }
    shake_hands(link);
}

/* The greeting stands in out, and leaves when the connection is there. */
static void dial(struct link *link)
{
    const int error = stream_connect(&link->stream, &link->endpoint);

    link->connect_began_us = link->last_progress_us = clock_now_us();
    if (error != 0 && error != -EINPROGRESS) {
        go_down(link, strerror(-error), false);
        return;
    }
    link->read_event = event_new(link->worker->base, link->stream.fd, EV_READ | EV_PERSIST,
                                 on_readable, link);
    link->write_event = event_new(link->worker->base, link->stream.fd, EV_WRITE, on_writable, link);
    CHECK(link->read_event != NULL && link->write_event != NULL);
    event_priority_set(link->read_event, PRIORITY_LINK);
    event_priority_set(link->write_event, PRIORITY_LINK);
    if (link->settings.is_leased) {
        /* A blocking command has no timeout: only TCP can tell that its node is gone. */
        stream_keep_alive(&link->stream, KEEP_ALIVE_S);
    }
    if (error == 0) {
        connected(link);
    } else {
        event_add(link->write_event, NULL);
    }
}

/* Its turn may have come: asked at every tick. */
static void ask_at_gate(struct link *link, int64_t now_us)
{
    if (gate_enter(link->gate, link->settings.is_leased, now_us)) {
        link->is_at_gate = false;
        dial(link);
    }
}

static void begin_connect(struct link *link)
{
    int error;

    link->state = LINK_CONNECTING;
    link->connect_began_us = link->last_progress_us = clock_now_us();
    link->tracking_refused = link->kind == LINK_TRACKING &&
                             (!link->settings.wants_tracking || link->is_resp2);
    link->tracking_asked = false;
    identity_lock(); /* a user's password may be another one by now */
    error = write_greeting(link);
    identity_unlock();
    if (error == 0 && link->endpoint.length == 0) {
        error = -EDESTADDRREQ; /* its name was not resolved yet */
    }
    if (error != 0) {
        go_down(link, strerror(-error), false);
        return;
    }
    link->out_allowed = out_end(link);
    link->gate = gate_get(link->name);
    link->is_at_gate = true;
    ask_at_gate(link, link->connect_began_us);
    if (link->is_at_gate) {
        stats_add(METRIC_connects_held, 1);
    }
}

void link_wake(struct link *link)
{
    if (link->state == LINK_IDLE ||
        (link->state == LINK_DOWN &&
         (clock_now_us() >= link->retry_at_us ||
          health_has_returned(link->settings.health, link->down_at_us)))) {
        begin_connect(link);
    }
}

static void come_up(struct link *link)
{
    leave_gate(link);
    link->state = LINK_UP;
    link->error[0] = '\0';
    link->last_used_us = link->last_progress_us = clock_now_us();
    stats_add(METRIC_links_opened, 1);
    stats_observe(HISTOGRAM_connect_time, link->last_used_us - link->connect_began_us, 1);
    if (link->settings.is_leased || link->settings.is_quiet) {
        log_debug("upstream", "link up", "addr=%s kind=%s", link->name, link_kind_name(link->kind));
    } else {
        log_info("upstream", "link up", "addr=%s kind=%s tracking=%s", link->name,
                 link_kind_name(link->kind),
                 !link->tracking_asked ? "none" : (link->tracking_refused ? "refused" : "on"));
    }
    if (link->settings.keeps_requests) {
        drop_out(link, link->out_allowed);
    }
    if (link->events != NULL) {
        link->events->on_up(link);
    }
    worker_defer(link->worker, &link->flush);
}

/* Redis before 6, or HELLO is renamed or not permitted: values can still be kept for a while. */
static bool lacks_hello(const struct link *link, struct bytes reply)
{
    return link->kind == LINK_TRACKING && (bytes_start_with(reply, BYTES("-ERR unknown ")) ||
                                           bytes_start_with(reply, BYTES("-NOPERM")) ||
                                           bytes_start_with(reply, BYTES("-NOPROTO")));
}

/*
 * "-ERR max number of clients reached", "-DENIED ..." come unasked, in place of the first reply,
 * and the server closes then. That it does not know CLIENT SETNAME, or is busy, is no reason.
 */
static bool is_turned_away(unsigned step, struct bytes reply)
{
    return step == GREET_NAME && (bytes_start_with(reply, BYTES("-DENIED ")) ||
                                  (bytes_start_with(reply, BYTES("-ERR ")) &&
                                   !bytes_start_with(reply, BYTES("-ERR unknown "))));
}

/* One whole reply to a step of the greeting. False: the link went down. */
static bool take_greeting(struct link *link, struct bytes reply)
{
    const unsigned step = link->greeting[link->n_greeted++];
    const bool is_error = reply.ptr[0] == '-';
    char reason[256];

    if (is_error && step == GREET_HELLO && lacks_hello(link, reply)) {
        link_close(link, "the server does not speak RESP3");
        link->is_resp2 = true;
        link->retry_at_us = 0;
        return false;
    }
    if (is_error && (step == GREET_HELLO || step == GREET_AUTH || is_turned_away(step, reply))) {
        const int length = reply.len > 222 ? 220 : (int)reply.len - 2;

        snprintf(reason, sizeof(reason), "refused: %.*s", length, (const char *)reply.ptr);
        go_down(link, reason, false);
        return false;
    }
    if (is_error && step == GREET_TRACKING) {
        link->tracking_refused = true;
    }
    if (step == GREET_ID &&
        (is_error || !bytes_to_int64(bytes_make(reply.ptr + 1, reply.len - 3), &link->client_id))) {
        link->client_id = 0;
    }
    if (is_error && step == GREET_DISCARD && !link->multi_refused) {
        go_down(link, "MULTI is permitted, but DISCARD is not", false);
        return false;
    }
    if (is_error && step == GREET_MULTI) {
        link->multi_refused = true;
        if (link->needs_multi) {
            go_down(link, "MULTI is not permitted", false);
            return false;
        }
    }
    if (link->n_greeted == link->n_greeting) {
        come_up(link);
    }
    return true;
}

/* ---- receiving ---- */

static void release_request(struct link *link, uint64_t end)
{
    if (link->settings.keeps_requests && end > link->out_base) {
        drop_out(link, end);
    }
}

/* Hands part of the reply in hand to the first operation. False: the link went down. */
static bool hand_out(struct link *link, struct bytes part, bool is_first, bool is_last)
{
    struct link_op *op = link->first_op;
    const unsigned index = op->n_seen;
    const uint64_t end = op->end;

    if (is_last && ++op->n_seen == op->n_replies) {
        link->n_answered++;
        link->n_failures = 0; /* not before it has answered something: it may close at once */
        link->first_op = op->next;
        if (link->first_op == NULL) {
            link->last_op = NULL;
        }
        link->n_ops--;
        op->next = NULL;
        op->type->on_reply(op, link, index, part, is_first, is_last);
        if (link->state != LINK_UP) {
            return false;
        }
        release_request(link, end);
        return true;
    }
    op->type->on_reply(op, link, index, part, is_first, is_last);
    return link->state == LINK_UP;
}

static bool is_push(const struct link *link)
{
    return link->in.data[link->in.head] == '>' && !link->is_streaming;
}

static bool is_aggregate(unsigned char type)
{
    return type == '*' || type == '%' || type == '~';
}

/* How much of an unfinished reply is kept together before it is handed on in parts. */
static size_t collect_limit(const struct link *link)
{
    if (link->state != LINK_UP) {
        return GREETING_REPLY_MAX;
    }
    if (is_push(link)) {
        return PUSH_MAX;
    }
    if (link->first_op == NULL) {
        return 0;
    }
    return link->first_op->collect_many > 0 && is_aggregate(link->in.data[link->in.head])
               ? link->first_op->collect_many
               : link->first_op->collect;
}

/* One whole frame, or the last part of one, of frame_len bytes at the front of in. */
static bool take_frame(struct link *link, size_t frame_len)
{
    const struct bytes frame = bytes_make(link->in.data + link->in.head, frame_len);
    const bool is_first = !link->is_streaming;

    link->is_streaming = false;
    if (is_first && frame.ptr[0] == '>') {
        if (link->events != NULL && !link->events->on_push(link, frame)) {
            go_down(link, "unknown push message", false);
            return false;
        }
        return link->state == LINK_UP || link->state == LINK_GREETING;
    }
    if (link->state == LINK_GREETING) {
        return take_greeting(link, frame);
    }
    if (link->first_op == NULL) {
        if (link->events != NULL && link->events->on_unasked != NULL &&
            link->events->on_unasked(link, frame)) {
            return link->state == LINK_UP;
        }
        go_down(link, "a reply that nobody asked for", false);
        return false;
    }
    return hand_out(link, frame, is_first, true);
}

/* The reply in hand is unfinished: keep it, or hand on what there is. */
static bool take_part(struct link *link)
{
    const struct bytes part = buffer_bytes(&link->in);

    if (!link->is_streaming && (part.len == 0 || part.len <= collect_limit(link))) {
        return true;
    }
    if (link->state != LINK_UP || link->first_op == NULL || is_push(link)) {
        go_down(link, "a reply larger than any the proxy asked for", false);
        return false;
    }
    if (!hand_out(link, part, !link->is_streaming, false)) {
        return false;
    }
    link->is_streaming = true;
    buffer_consume(&link->in, part.len);
    link->in_seen = 0;
    return true;
}

/* Frames what was read. False: the link went down. */
static bool take_input(struct link *link)
{
    while (link->in_seen < buffer_len(&link->in)) {
        size_t used;
        const enum resp_status status = resp_frame(&link->framer,
                                                   link->in.data + link->in.head + link->in_seen,
                                                   buffer_len(&link->in) - link->in_seen, &used);

        link->in_seen += used;
        if (status == RESP_BAD) {
            go_down(link, "the backend sent what is no RESP", false);
            return false;
        }
        if (status == RESP_OK) {
            const size_t frame_len = link->in_seen;

            if (!take_frame(link, frame_len)) {
                return false;
            }
            buffer_consume(&link->in, frame_len);
            link->in_seen = 0;
        }
    }
    return take_part(link);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct link *link = OBJ_FROM(arg, struct link, LINK_MAGIC);
    size_t room;
    ssize_t n;
    int error;

    (void)fd;
    (void)what;
    /* Once a turn it goes before the clients; a link that always has more must not starve them. */
    event_priority_set(link->read_event, PRIORITY_CLIENT);
    worker_defer(link->worker, &link->flush);
    if (link->state == LINK_CONNECTING) {
        shake_hands(link);
        return;
    }
    /* All clients would lose it; what a reply takes here is bounded. */
    mem_exempt(true);
    error = buffer_reserve(&link->in, BUFFER_CHUNK / 4);
    mem_exempt(false);
    if (error != 0) {
        go_down(link, "out of memory", false);
        return;
    }
    room = link->in.capacity - link->in.tail;
    n = stream_read(&link->stream, buffer_end(&link->in), room);
    if (n == -EAGAIN) {
        if (stream_wants_write(&link->stream)) {
            event_del(link->read_event);
            event_add(link->write_event, NULL);
        }
        return;
    }
    if (n <= 0) {
        go_down(link, n == 0 ? "closed by the backend" : stream_error(&link->stream, (int)n),
                false);
        return;
    }
    buffer_commit(&link->in, (size_t)n);
    stats_add(METRIC_backend_read_bytes, (uint64_t)n);
    link->last_progress_us = clock_now_us();
    if (take_input(link) && buffer_len(&link->in) == 0) {
        buffer_release(&link->in);
    }
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct link *link = OBJ_FROM(arg, struct link, LINK_MAGIC);

    (void)fd;
    (void)what;
    if (link->state == LINK_CONNECTING && stream_is_in_handshake(&link->stream)) {
        shake_hands(link);
        return;
    }
    if (link->state == LINK_CONNECTING) {
        const int error = stream_connect_result(&link->stream);

        if (error != 0) {
            go_down(link, strerror(-error), false);
            return;
        }
        connected(link);
        return;
    }
    if (stream_wants_write(&link->stream) && !link->is_paused) {
        event_add(link->read_event, NULL);
        event_active(link->read_event, EV_READ, 1);
    }
    write_out(link);
}

/* ---- time ---- */

/* Stands in the place of an operation that was told that it is lost: its reply may still come. */
static void on_abandoned_reply(struct link_op *op, struct link *link, unsigned index,
                               struct bytes part, bool is_first, bool is_last)
{
    (void)part;
    (void)is_first;
    if (is_last && index + 1 == op->n_replies) {
        link->n_abandoned--;
        mem_free(op);
    }
}

static void on_abandoned_lost(struct link_op *op, struct link *link, enum link_loss loss)
{
    (void)loss;
    link->n_abandoned--;
    mem_free(op);
}

static const struct link_op_type abandoned_type = {on_abandoned_reply, on_abandoned_lost};

bool link_owns(const struct link_op *op)
{
    return op->type == &abandoned_type || op->type == &select_type;
}

void link_abandon(struct link *link, struct link_op *op)
{
    struct link_op *instead = mem_alloc(sizeof(*instead));

    instead->type = &abandoned_type;
    instead->collect = LINK_COLLECT_MIN;
    instead->collect_many = 0;
    link_replace_op(link, op, instead);
    link->n_abandoned++;
}

/* Takes the operations whose time is over out of the link; each leaves somebody in its place. */
static struct link_op *take_overdue(struct link *link, int64_t sent_before_us, unsigned *n)
{
    struct link_op *first = NULL, *former = NULL;
    struct link_op **last = &first, **at = &link->first_op;

    *n = 0;
    while (*at != NULL && (*at)->sent_at_us < sent_before_us) {
        struct link_op *op = *at;

        /* Nobody waits for SELECT, and what it is answered decides about what follows it. */
        if (op->type != &abandoned_type && op->type != &select_type &&
            (op != link->first_op || !link->is_streaming)) {
            struct link_op *instead = mem_alloc(sizeof(*instead));

            *instead = *op;
            instead->type = &abandoned_type;
            instead->collect = LINK_COLLECT_MIN;
            instead->collect_many = 0;
            *at = instead;
            op->next = NULL;
            *last = op;
            last = &op->next;
            link->n_abandoned++;
            (*n)++;
        }
        former = *at;
        at = &(*at)->next;
    }
    if (*at == NULL && former != NULL) {
        link->last_op = former;
    }
    return first;
}

/*
 * Each request has request-timeout of its own, whatever it stands behind. The connection is kept:
 * what comes later on it may be answered in time, and stays in the order in which it was sent.
 */
static void abandon_overdue(struct link *link, int64_t now_us)
{
    const int64_t limit_us = link->settings.request_timeout_ms * 1000;
    unsigned n;
    struct link_op *op = take_overdue(link, now_us - limit_us, &n);

    if (op == NULL) {
        return;
    }
    stats_add(METRIC_requests_abandoned, n);
    if (link->settings.is_judge) {
        health_failed(link->settings.health, n, op->sent_at_us, now_us);
    }
    /* The link is up: whoever is told may send on it, behind what took the places. */
    while (op != NULL) {
        struct link_op *const next = op->next;

        op->next = NULL;
        op->type->on_lost(op, link, LINK_LOST_TIMEOUT);
        op = next;
    }
}

/* Its operations are requests of many clients, each complete in itself. */
static bool is_shared(const struct link *link)
{
    return link->events == NULL && !link->settings.is_leased && !link->settings.is_quiet &&
           !link->is_filling && !link->is_left;
}

static void watch_replies(struct link *link, int64_t now_us)
{
    const int64_t limit_us = link->settings.request_timeout_ms * 1000;
    const int64_t since_us = link->first_op->sent_at_us > link->last_progress_us
                                 ? link->first_op->sent_at_us
                                 : link->last_progress_us;

    if (!is_shared(link) || link->is_streaming) {
        if (now_us - since_us > limit_us) {
            go_down(link, "no reply within request-timeout", true);
            return;
        }
    }
    if (!is_shared(link)) {
        return;
    }
    if (now_us - since_us > 2 * limit_us || link->n_abandoned > ABANDONED_MAX) {
        go_down(link, "no reply within twice request-timeout", true);
        return;
    }
    abandon_overdue(link, now_us);
}

static void close_idle(struct link *link)
{
    log_debug("upstream", "idle link closed", "addr=%s kind=%s", link->name,
              link_kind_name(link->kind));
    link->state = LINK_IDLE;
    reset_connection(link);
}

/* While it connects: the first of those who wait has waited for as long as it may. */
static bool is_overdue(const struct link *link, int64_t now_us)
{
    const int64_t timeout_ms = link->settings.request_timeout_ms;

    return link->first_op != NULL && is_shared(link) && timeout_ms > 0 &&
           now_us - link->first_op->sent_at_us > timeout_ms * 1000;
}

/* Others are connecting to the node: it waits longer than a connection may take. */
static void tick_at_gate(struct link *link, int64_t now_us)
{
    const int64_t patience_us = link->settings.connect_timeout_ms * GATE_PATIENCE * 1000;

    if (now_us - link->connect_began_us <= patience_us && !is_overdue(link, now_us)) {
        ask_at_gate(link, now_us);
        return;
    }
    link->is_closing = true; /* that says nothing about the node */
    go_down(link, "too many connections to it are being made (connect-parallel, connect-rate)",
            true);
    link->is_closing = false;
}

void link_tick(struct link *link, int64_t now_us)
{
    const struct link_settings *settings = &link->settings;

    switch (link->state) {
    case LINK_CONNECTING:
    case LINK_GREETING:
        if (link->is_at_gate) {
            tick_at_gate(link, now_us);
        } else if (now_us - link->connect_began_us > settings->connect_timeout_ms * 1000 ||
                   is_overdue(link, now_us)) {
            go_down(link,
                    stream_is_in_handshake(&link->stream)
                        ? "TLS handshake timed out: does the server speak TLS there?"
                        : "connect timed out",
                    true);
        }
        break;
    case LINK_UP:
        if (link->is_paused || (link->is_filling && link_unsent(link) == 0)) {
            link->last_progress_us = now_us; /* the client's turn, not the node's */
        } else if (link->first_op != NULL && link->kind != LINK_TRACKING &&
                   settings->request_timeout_ms > 0) {
            watch_replies(link, now_us);
        } else if (link->first_op == NULL && link->kind != LINK_TRACKING &&
                   settings->idle_timeout_ms > 0 &&
                   now_us - link->last_used_us > settings->idle_timeout_ms * 1000) {
            close_idle(link);
        }
        break;
    case LINK_IDLE:
    case LINK_DOWN:
        if (link->kind == LINK_TRACKING) {
            link_wake(link);
        }
        break;
    }
}
