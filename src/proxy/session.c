/*
 * Design: raw events, one read per wake-up into storage that the session holds only while there is
 * input, one write when the batch is done. Between requests an idle session owns its struct and
 * nothing else.
 *
 * A turn of a session: read, take requests until input ends or one has to wait. Its replies leave
 * at the end of the worker's turn, together with those that flights and relays brought meanwhile.
 * Writing at once was tried: the first client that is answered wakes up and asks again while the
 * others still wait, each turn then serves one client, and a request costs nearly twice the CPU.
 */
#include "proxy/session.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/stats.h"
#include "proxy/account.h"
#include "proxy/dispatch.h"
#include "proxy/handshake.h"
#include "proxy/large.h"
#include "proxy/login.h"
#include "proxy/monitor.h"
#include "proxy/overload.h"
#include "proxy/pause.h"
#include "proxy/pubsub.h"
#include "proxy/read.h"
#include "proxy/request.h"
#include "proxy/tracking.h"
#include "proxy/transaction.h"
#include "proxy/upload.h"
#include "upstream/identity.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#define SESSION_MAGIC 0x73657373u
/* A batch writes when it has this much, so that its output stays in the cache. */
#define FLUSH_AT ((size_t)48 * 1024)
/* Sessions that hold an output chunk until the turn ends; half of what a thread keeps ready. */
#define UNWRITTEN_MAX 32
/* Redis' PROTO_INLINE_MAX_SIZE. */
#define INLINE_MAX ((size_t)64 * 1024)
/* Redis' limit for one multibulk. */
#define ARGS_MAX ((size_t)INT32_MAX)

static void on_readable(evutil_socket_t fd, short what, void *arg);
static void on_writable(evutil_socket_t fd, short what, void *arg);
static void on_turn_end(struct deferred *deferred);

/* ---- life ---- */

static void learn_addresses(struct session *session)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof(address);

    if (getpeername(session->stream.fd, (struct sockaddr *)&address, &length) == 0) {
        endpoint_from_sockaddr(&session->peer, (struct sockaddr *)&address, length);
    }
    length = sizeof(address);
    if (getsockname(session->stream.fd, (struct sockaddr *)&address, &length) == 0) {
        endpoint_from_sockaddr(&session->local, (struct sockaddr *)&address, length);
    }
}

void session_open(struct front *front, int fd, bool is_unix, struct tls_context *tls, uint64_t id)
{
    struct session *session = mem_alloc(sizeof(*session));
    struct event_base *base = front->worker.base;
    bool is_good;

    session->magic = SESSION_MAGIC;
    session->front = front;
    session->id = id;
    session->is_unix = is_unix;
    session->proto = 2;
    session_log_out(session);
    session_set_db(session, front->proxy->login->db);
    session->turn_end.run = on_turn_end;
    session->opened_at_us = session->active_at_us = clock_now_us();
    stream_init(&session->stream, fd);
    is_good = tls == NULL || stream_start_tls(&session->stream, tls, NULL, NULL) == 0;
    learn_addresses(session);
    buffer_init(&session->in);
    outq_init(&session->out);
    outq_init(&session->pushes);
    event_assign(&session->read_event, base, fd, EV_READ | EV_PERSIST, on_readable, session);
    event_assign(&session->write_event, base, fd, EV_WRITE, on_writable, session);
    event_priority_set(&session->read_event, PRIORITY_CLIENT);
    event_priority_set(&session->write_event, PRIORITY_CLIENT);
    event_add(&session->read_event, NULL);
    session->is_reading = true;
    session->next = front->sessions;
    if (front->sessions != NULL) {
        front->sessions->prev = session;
    }
    front->sessions = session;
    front->n_sessions++;
    if (!is_good || atomic_load_explicit(&front->proxy->is_draining, memory_order_relaxed)) {
        session_close(session);
    }
}

static void leave_front(struct session *session)
{
    struct front *front = session->front;

    if (session->prev != NULL) {
        session->prev->next = session->next;
    } else {
        front->sessions = session->next;
    }
    if (session->next != NULL) {
        session->next->prev = session->prev;
    }
    front->n_sessions--;
    atomic_fetch_sub_explicit(&front->proxy->n_clients, 1, memory_order_relaxed);
}

static void forget_gone_event(struct session *session)
{
    if (session->gone_event != NULL) {
        event_free(session->gone_event);
        session->gone_event = NULL;
    }
}

static void on_gone(evutil_socket_t fd, short what, void *arg)
{
    struct session *session = OBJ_FROM(arg, struct session, SESSION_MAGIC);

    (void)fd;
    (void)what;
    if (!session->is_closed) {
        session_close(session);
    }
}

void session_suspend(struct session *session, bool is_blocking)
{
    session->is_suspended = true;
    if (is_blocking && session->gone_event == NULL) {
        session->gone_event = event_new(session->front->worker.base, session->stream.fd, EV_CLOSED,
                                        on_gone, session);
        CHECK(session->gone_event != NULL);
        event_priority_set(session->gone_event, PRIORITY_CLIENT);
        event_add(session->gone_event, NULL);
    }
}

void session_resume(struct session *session)
{
    session->is_suspended = false;
    forget_gone_event(session);
}

void session_close(struct session *session)
{
    struct request *request = session->first;

    if (session->is_closed) {
        return;
    }
    session->is_closed = true;
    upload_end(session);
    event_del(&session->read_event);
    event_del(&session->write_event);
    forget_gone_event(session);
    stream_close(&session->stream);
    session->first = session->last = NULL;
    while (request != NULL) {
        struct request *const next = request->next;

        request_orphan(request);
        request = next;
    }
    miss_client_free(&session->front->coherence, &session->misses);
    transaction_end(session);
    pubsub_end(session);
    monitor_end(session);
    tracking_end(session);
    pause_let_go(session);
    login_cancel(session);
    session_set_identity(session, NULL);
    leave_front(session);
    /* Callers up the stack may still look at is_closed: the struct goes at the end of the turn. */
    worker_defer(&session->front->worker, &session->turn_end);
}

static void free_session(struct session *session)
{
    buffer_fini(&session->in);
    outq_fini(&session->out);
    outq_fini(&session->pushes);
    if (session->reader != NULL) {
        resp_reader_free(&session->reader);
    }
    mem_free(session->name);
    session->magic = 0;
    mem_free(session);
}

void session_set_db(struct session *session, uint32_t db)
{
    session->db = db;
    session->scope = cache_scope(session->identity != NULL ? session->identity->number : 0, db);
}

void session_set_identity(struct session *session, struct identity *identity)
{
    if (session->identity != NULL) {
        atomic_fetch_sub_explicit(&session->identity->n_sessions, 1, memory_order_relaxed);
    }
    session->identity = identity;
    if (identity != NULL) {
        atomic_fetch_add_explicit(&identity->n_sessions, 1, memory_order_relaxed);
    }
    session_set_db(session, session->db);
}

const char *session_user(const struct session *session)
{
    const char *own = session->front->proxy->login->user;

    if (session->identity != NULL) {
        return session->identity->name;
    }
    return own != NULL && own[0] != '\0' && session->front->config->requirepass[0] == '\0'
               ? own
               : "default";
}

void session_log_out(struct session *session)
{
    const struct config *config = session->front->config;

    login_cancel(session);
    session_set_identity(session, NULL);
    session->is_authed = config->auth != AUTH_BACKEND && config->requirepass[0] == '\0';
    session->may_change_cache = session->wants_attributes = false;
}

void session_close_after_reply(struct session *session)
{
    session->is_closing = true;
    session_wake(session);
}

void session_wake(struct session *session)
{
    worker_defer(&session->front->worker, &session->turn_end);
}

/* ---- output ---- */

static void close_for(struct session *session, enum metric reason, const char *msg)
{
    stats_add(reason, 1);
    log_warn("proxy", msg, "client=%s id=%llu pending_bytes=%zu", session->peer.text,
             (unsigned long long)session->id, outq_len(&session->out) + session->held_bytes);
    session_close(session);
}

void session_close_for_memory(struct session *session)
{
    close_for(session, METRIC_clients_closed_memory, "client closed: memory");
}

bool session_check_output(struct session *session)
{
    const struct config *config = session->front->config;
    const size_t pending = outq_len(&session->out) + session->held_bytes +
                           outq_len(&session->pushes);

    if (session->is_closed) {
        return false;
    }
    if (NC_LIKELY(pending <= config->client_output_soft_limit ||
                  config->client_output_soft_limit == 0)) {
        session->above_soft_since_us = 0;
        if (pending <= config->client_output_limit) {
            return true;
        }
    }
    if (pending > config->client_output_limit) {
        close_for(session, METRIC_clients_closed_output, "client closed: output limit");
        return false;
    }
    if (session->above_soft_since_us == 0) {
        session->above_soft_since_us = clock_now_us();
    } else if (clock_now_us() - session->above_soft_since_us >
               config->client_output_soft_time_ms * 1000) {
        close_for(session, METRIC_clients_closed_output, "client closed: soft output limit");
        return false;
    }
    return true;
}

/* False: the session was closed. */
static bool write_out(struct session *session)
{
    const size_t before = outq_len(&session->out);
    int error;

    if (before == 0 || session->is_blocked) {
        return true;
    }
    error = outq_write(&session->out, &session->stream);
    stats_add(METRIC_client_written_bytes, before - outq_len(&session->out));
    if (error == -EAGAIN) {
        session->is_blocked = true;
        event_add(&session->write_event, NULL);
        return true;
    }
    if (error != 0) {
        session_close(session);
        return false;
    }
    return true;
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct session *session = OBJ_FROM(arg, struct session, SESSION_MAGIC);

    (void)fd;
    (void)what;
    session->is_blocked = false;
    if (stream_wants_write(&session->stream)) {
        event_active(&session->read_event, EV_READ, 1);
    }
    session_wake(session);
}

/* ---- messages ---- */

bool session_push(struct session *session, struct bytes frame)
{
    struct outq *to = session->first != NULL && session->first->is_streaming ? &session->pushes
                                                                             : &session->out;
    const struct bytes type = session->proto == 3 || frame.ptr[0] != '>' ? bytes_make(frame.ptr, 1)
                                                                         : BYTES("*");

    if (session->is_closed) {
        return false;
    }
    if (outq_append(to, type) != 0 ||
        outq_append(to, bytes_make(frame.ptr + 1, frame.len - 1)) != 0) {
        session_close_for_memory(session);
        return false;
    }
    if (!session_check_output(session)) {
        return false;
    }
    session_wake(session);
    return true;
}

void session_release_pushes(struct session *session)
{
    const bool is_within = session->first != NULL && session->first->is_streaming;

    if (!is_within && outq_len(&session->pushes) > 0 &&
        outq_move(&session->out, &session->pushes) != 0) {
        session_close(session);
    }
}

/* ---- replies of our own ---- */

bool session_is_muted(const struct session *session)
{
    return session->reply_mode == REPLY_OFF || session->reply_mode == REPLY_SKIP_THIS;
}

struct resp_writer session_begin_reply(struct session *session)
{
    struct buffer *scratch = &session->front->scratch;

    buffer_consume(scratch, buffer_len(scratch));
    return (struct resp_writer){.out = scratch, .is_resp3 = session->proto == 3};
}

void session_end_reply(struct session *session, struct resp_writer *writer)
{
    const struct bytes reply = buffer_bytes(writer->out);

    if (session->is_closed) {
        return;
    }
    if (writer->has_failed) {
        session_close_for_memory(session);
        return;
    }
    if (session->first != NULL) {
        struct request *request = request_queue(session, REQUEST_LOCAL, NULL);

        request_take_part(request, reply);
        request_done(request);
    } else if (!session_is_muted(session)) {
        account_reply(NULL, reply);
        if (outq_append(&session->out, reply) != 0) {
            session_close_for_memory(session);
        }
    }
    buffer_consume(writer->out, reply.len);
    if (writer->out->capacity > BUFFER_CHUNK) {
        buffer_release(writer->out);
    }
}

void session_error(struct session *session, const char *format, ...)
{
    struct resp_writer writer = session_begin_reply(session);
    char text[512];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    resp_put_error(&writer, "%s", text);
    session_end_reply(session, &writer);
}

/* ---- input ---- */

static struct resp_reader *reader_of(struct session *session)
{
    return session->reader != NULL ? session->reader : session->front->spare_reader;
}

/* A reader that is inside a request stays with the session; between requests none is needed. */
static void keep_or_return_reader(struct session *session)
{
    struct front *front = session->front;

    if (session->reader == NULL && resp_reader_is_inside(front->spare_reader)) {
        session->reader = front->spare_reader;
        front->spare_reader = resp_reader_new();
    } else if (session->reader != NULL && !resp_reader_is_inside(session->reader)) {
        resp_reader_free(&session->reader);
    }
}

static void fail_protocol(struct session *session, const char *error)
{
    stats_add(METRIC_errors_protocol, 1);
    stats_add(METRIC_clients_closed_protocol, 1);
    log_debug("proxy", "protocol error", "client=%s error=%s", session->peer.text,
              log_quote(bytes_of_string(error)));
    session->reply_mode = REPLY_ON;
    session_error(session, "ERR %s", error);
    buffer_consume(&session->in, buffer_len(&session->in));
    session_close_after_reply(session);
}

void session_step_reply_mode(struct session *session)
{
    if (session->reply_mode == REPLY_SKIP_NEXT) {
        session->reply_mode = REPLY_SKIP_THIS;
    } else if (session->reply_mode == REPLY_SKIP_THIS) {
        session->reply_mode = REPLY_ON;
    }
}

/* An inline request is written anew as a frame, so that all that follows sees one form. */
static enum verdict dispatch_inline(struct session *session, struct dispatch_call *call)
{
    struct buffer frame;
    struct bytes *argv = mem_try_alloc(call->argc * sizeof(*argv));
    enum verdict verdict = VERDICT_TAKEN;
    struct bytes at;
    struct resp_value value;

    buffer_init(&frame);
    if (argv == NULL || resp_write_request(&frame, call->argv, call->argc) != 0) {
        session_close_for_memory(session);
    } else {
        at = buffer_bytes(&frame);
        (void)resp_next(&at, &value);
        for (unsigned i = 0; i < call->argc && resp_next(&at, &value); i++) {
            argv[i] = value.text;
        }
        call->argv = argv;
        call->frame = buffer_bytes(&frame);
        verdict = dispatch_request(session, call);
    }
    buffer_fini(&frame);
    mem_free(argv);
    return verdict;
}

static enum verdict take_request(struct session *session, const struct resp_request *request,
                                 struct bytes frame)
{
    const struct topology *topology = session->front->backend.topology;
    struct dispatch_call call = {
        .command = command_find(request->argv, request->argc,
                                topology != NULL ? topology->learnt : NULL),
        .argv = request->argv,
        .argc = request->argc,
        .frame = frame,
        .now_us = session->active_at_us,
    };
    const uint8_t reply_mode = session->reply_mode;
    const struct request *last = session->last;
    enum verdict verdict;

    session_step_reply_mode(session);
    verdict = request->is_inline ? dispatch_inline(session, &call)
                                 : dispatch_request(session, &call);
    if (verdict == VERDICT_STALL) {
        session->reply_mode = reply_mode;
        return verdict;
    }
    if (session->last != last && session->last != NULL) {
        request_brief(session->last, frame);
    }
    session->last_command = call.command;
    session->n_commands++;
    return verdict;
}

/* An unfinished request may be too large to be collected. True: session->upload takes it. */
static bool begin_upload(struct session *session, struct bytes input, size_t wanted)
{
    struct resp_reader *reader = reader_of(session);

    switch (upload_consider(session, reader, input, wanted)) {
    case UPLOAD_NOT:
        return false;
    case UPLOAD_STALL:
        session->is_stalled = true;
        return false;
    case UPLOAD_BEGUN:
        break;
    }
    resp_reader_reset(reader);
    return true;
}

/* Input of the large request in hand. 0: it has to wait. */
static size_t take_upload(struct session *session, struct bytes input)
{
    const char *error = NULL;
    const size_t n_taken = upload_take(session, input, &error);

    if (error != NULL) {
        fail_protocol(session, error);
        upload_end(session);
        return input.len;
    }
    session->is_stalled = n_taken == 0;
    return n_taken;
}

/* Each unanswered request takes memory: fewer of them while that is short. */
static bool is_pipeline_full(const struct session *session)
{
    const struct front *front = session->front;

    return session->n_requests >= (unsigned)front->config->client_pipeline_limit ||
           overload_is_short(front);
}

/* Takes the requests of input; returns how many bytes of it are done with. */
static size_t take_requests(struct session *session, struct bytes input, uint64_t *n_commands)
{
    const struct config *config = session->front->config;
    const struct resp_reader_limits limits = {ARGS_MAX, config->max_bulk_size, INLINE_MAX};
    size_t done = 0;

    session->is_stalled = false;
    while (done < input.len && !session->is_closed &&
           (!session->is_closing || session->upload != NULL)) {
        const struct bytes rest = bytes_make(input.ptr + done, input.len - done);
        struct resp_reader *reader = reader_of(session);
        struct resp_request request;
        size_t wanted;
        const char *error = NULL;
        enum resp_status status;

        if (NC_UNLIKELY(session->upload != NULL)) {
            done += take_upload(session, rest);
            if (session->is_stalled) {
                break;
            }
            continue;
        }
        if (session->is_suspended || session->n_apart > 0) {
            session->is_stalled = true;
            break;
        }
        if (session->n_requests >= session->front->pipeline_least && is_pipeline_full(session)) {
            stats_add(METRIC_stalls_pipeline, 1);
            session->is_stalled = true;
            break;
        }
        status = resp_read_request(reader, rest, &limits, session->is_authed, &request, &wanted,
                                   &error);
        if (status == RESP_MORE && begin_upload(session, rest, wanted)) {
            continue;
        }
        if (status == RESP_MORE) {
            break;
        }
        if (status == RESP_BAD) {
            fail_protocol(session, error);
            return input.len;
        }
        if (request.argc > 0) {
            if (take_request(session, &request, bytes_make(rest.ptr, request.frame_bytes)) ==
                VERDICT_STALL) {
                resp_reader_reset(reader);
                session->is_stalled = true;
                break;
            }
            (*n_commands)++;
        }
        done += request.frame_bytes;
        if (outq_len(&session->out) >= FLUSH_AT && !write_out(session)) {
            break;
        }
    }
    return done;
}

static void set_reading(struct session *session, bool on)
{
    if (session->is_reading == on || session->is_closed) {
        return;
    }
    session->is_reading = on;
    if (on) {
        event_add(&session->read_event, NULL);
    } else {
        event_del(&session->read_event);
    }
}

/* A large request that has begun is taken to its end also when the proxy drains. */
static bool may_read(const struct session *session)
{
    if (session->is_stalled || session->is_eof) {
        return false;
    }
    return session->upload != NULL ? !upload_is_full(session) : !session->is_closing;
}

static bool is_over_input_limit(const struct session *session)
{
    return buffer_len(&session->in) > session->front->config->client_input_limit;
}

/* Takes what stands in session->in. */
static void take_input(struct session *session)
{
    struct front *front = session->front;
    const uint64_t n_hits = front->n_hits;
    uint64_t n_commands = 0;
    size_t done;

    session->active_at_us = clock_now_us();
    done = take_requests(session, buffer_bytes(&session->in), &n_commands);
    stats_add(METRIC_commands, n_commands);
    if (front->n_hits != n_hits) {
        /* One clock reading for all hits of a batch. */
        read_observe_hits(front, clock_now_us() - session->active_at_us);
    }
    if (session->is_closed) {
        return;
    }
    if (done > buffer_len(&session->in)) {
        done = buffer_len(&session->in);
    }
    buffer_consume(&session->in, done);
    keep_or_return_reader(session);
    if (buffer_len(&session->in) == 0) {
        buffer_release(&session->in);
    } else if (!session->is_stalled && is_over_input_limit(session)) {
        close_for(session, METRIC_clients_closed_input, "client closed: input limit");
        return;
    }
    if (!session_check_output(session)) {
        return;
    }
    /* While a request waits, its client's further input stays in the socket. */
    set_reading(session, may_read(session));
}

/* The batch's replies leave at the end of the turn, unless many sessions hold some already. */
static void write_or_wait(struct session *session)
{
    struct front *front = session->front;

    if (outq_len(&session->out) == 0) {
        return;
    }
    if (front->n_unwritten >= UNWRITTEN_MAX) {
        (void)write_out(session);
        return;
    }
    front->n_unwritten += !session->turn_end.is_queued;
    session_wake(session);
}

/* How a session ends that has nothing more to read: what it is owed still leaves. */
static bool close_when_served(struct session *session)
{
    const bool is_over = session->is_closing || (session->is_eof && !session->is_stalled);

    if (is_over && session->first == NULL && outq_len(&session->out) == 0) {
        session_close(session);
        return true;
    }
    return false;
}

/* A half-closed client still gets what it is owed. error: 0, or why reading failed. */
static void on_input_end(struct session *session, int error)
{
    session->is_eof = true;
    set_reading(session, false);
    if (error < 0) {
        handshake_failed(session, error);
        session_close(session);
    } else if (session->upload != NULL || session->gone_event != NULL) {
        /* Half a request, or nobody to wait for: by TLS the farewell may come before the FIN. */
        session_close(session);
    } else {
        read_hurry(session);
        (void)close_when_served(session);
    }
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct session *session = OBJ_FROM(arg, struct session, SESSION_MAGIC);
    size_t room;
    ssize_t n;

    (void)fd;
    (void)what;
    if (session->is_closed ||
        (stream_is_in_handshake(&session->stream) && !handshake_may_go_on(session))) {
        return;
    }
    if (NC_UNLIKELY(buffer_reserve(&session->in, BUFFER_CHUNK / 4) != 0) &&
        buffer_reserve_some(&session->in, BUFFER_CHUNK / 4) != 0) {
        session_close_for_memory(session);
        return;
    }
    room = session->in.capacity - session->in.tail;
    if (NC_UNLIKELY(overload_is_short(session->front)) && room > OVERLOAD_READ) {
        room = OVERLOAD_READ; /* what has to wait stays in the socket */
    }
    n = stream_read(&session->stream, buffer_end(&session->in), room);
    if (n == -EAGAIN) {
        if (buffer_len(&session->in) == 0) {
            buffer_release(&session->in);
        }
        if (stream_wants_write(&session->stream)) {
            /* Until then what there is to read would be told of again and again. */
            set_reading(session, false);
            event_add(&session->write_event, NULL);
        }
        return;
    }
    if (n <= 0) {
        on_input_end(session, (int)n);
        return;
    }
    buffer_commit(&session->in, (size_t)n);
    stats_add(METRIC_client_read_bytes, (uint64_t)n);
    take_input(session);
    if (!session->is_closed) {
        write_or_wait(session);
    }
    if (!session->is_closed) {
        if (session->in.data != NULL && session->in.capacity == BUFFER_CHUNK &&
            buffer_len(&session->in) < BUFFER_CHUNK / 2) {
            buffer_shrink(&session->in);
        }
        (void)close_when_served(session);
    }
    if (stream_has_pending(&session->stream)) {
        session_wake(session);
    }
}

/* Late replies are here, or waiting input may go on. */
static void on_turn_end(struct deferred *deferred)
{
    struct session *session = CONTAINER_OF(deferred, struct session, turn_end);

    if (session->is_closed) {
        free_session(session);
        return;
    }
    session->front->n_unwritten = 0;
    if (session->is_stalled) {
        take_input(session);
    } else {
        set_reading(session, may_read(session));
    }
    if (!session->is_closed && write_out(session) && session->first != NULL &&
        session->first->paused_link != NULL) {
        large_flow_on(session);
    }
    if (!session->is_closed && !close_when_served(session) &&
        session->out.tail.capacity >= 4 * (buffer_len(&session->out.tail) + 1)) {
        /* A slow reader must not hold a chunk for what little is left. */
        outq_shrink(&session->out);
    }
    if (stream_has_pending(&session->stream) && session->is_reading) {
        /* Not sooner: others have their turn first. */
        event_active(&session->read_event, EV_READ, 1);
    }
}

/* ---- description ---- */

/* Subcommands as Redis writes them: client|info. */
static void put_command_name(char *out, size_t size, const struct command *command)
{
    snprintf(out, size, "%s", command != NULL ? command->name : "NULL");
    for (char *at = out; *at != '\0'; at++) {
        *at = *at == ' ' ? '|' : *at;
    }
}

/* In Redis's order. */
static void put_flags(const struct session *session, char flags[16])
{
    const struct {
        bool is_set;
        char letter;
    } all[] = {
        {session->monitor != NULL, 'O'},
        {session->subscriber != NULL, 'P'},
        {transaction_depth(session) >= 0, 'x'},
        {session->gone_event != NULL, 'b'},
        {tracking_is_on(session), 't'},
        {tracking_is_broken(session), 'R'},
        {tracking_is_broadcast(session), 'B'},
        {session->is_unix, 'U'},
        {session->is_no_evict, 'e'},
    };
    unsigned n = 0;

    for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (all[i].is_set) {
            flags[n++] = all[i].letter;
        }
    }
    if (n == 0) {
        flags[n++] = 'N';
    }
    flags[n] = '\0';
}

/* As snprintf(): the length that it takes, whatever the room. */
static int describe(const struct session *session, int64_t now_us, char *line, size_t room)
{
    char command[COMMAND_NAME_MAX + 1], flags[16];

    put_command_name(command, sizeof(command), session->last_command);
    put_flags(session, flags);
    return snprintf(
        line, room,
        "id=%llu addr=%s laddr=%s fd=%d name=%s age=%lld idle=%lld flags=%s db=%u sub=%u psub=%u "
        "ssub=%u multi=%d qbuf=%zu qbuf-free=%zu argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=%u "
        "omem=%zu tot-mem=%zu events=%s cmd=%s user=%s redir=%lld resp=%u",
        (unsigned long long)session->id, session->peer.text, session->local.text,
        session->stream.fd, session->name != NULL ? session->name : "",
        (long long)((now_us - session->opened_at_us) / 1000000),
        (long long)((now_us - session->active_at_us) / 1000000), flags, session->db,
        pubsub_count(session, TOPIC_CHANNEL), pubsub_count(session, TOPIC_PATTERN),
        pubsub_count(session, TOPIC_SHARD), transaction_depth(session), buffer_len(&session->in),
        session->in.capacity - session->in.tail, session->n_requests,
        outq_len(&session->out) + session->held_bytes,
        sizeof(*session) + session->in.capacity + outq_len(&session->out) + session->held_bytes,
        session->is_reading ? "r" : "", command, session_user(session),
        (long long)tracking_redirection(session), session->proto);
}

/* Names are as long as clients like. */
void session_describe(const struct session *session, struct buffer *out)
{
    const int64_t now_us = clock_now_us();
    const int length = describe(session, now_us, NULL, 0);

    if (length < 0 || buffer_reserve(out, (size_t)length + 1) != 0) {
        log_warn("proxy", "out of memory", NULL);
        return;
    }
    (void)describe(session, now_us, (char *)buffer_end(out), (size_t)length + 1);
    buffer_commit(out, (size_t)length);
}
