/*
 * Nothing here calls out from within a public function: connecting and sending arm events, and
 * every callback starts in one of the four event handlers. So callers need not expect to be called
 * back in the middle of their own work.
 */
#include "upstream/control_client.h"

#include "base/buffer.h"
#include "base/clock.h"
#include "base/mem.h"
#include "resp/own.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <stdio.h>

#define CLIENT_MAGIC 0x63746c63u /* "ctlc" */

/* COMMAND with several modules takes 1 MB; beyond this the peer is no server of ours. */
#define REPLY_BYTES_MAX ((size_t)32 << 20)
#define READ_BYTES ((size_t)16 * 1024)
#define ARGC_MAX 8u

enum client_state { CLIENT_CLOSED, CLIENT_CONNECTING, CLIENT_LOGIN, CLIENT_UP };

struct request {
    struct request *next;
    control_reply_fn on_reply; /* NULL: our own login */
    int64_t deadline_ms;
};

struct control_client {
    uint32_t magic;
    enum client_state state;
    struct event_base *base;
    const struct control_events *events;
    void *context;
    struct stream stream;
    struct event *read_event, *write_event; /* NULL while closed */
    struct event *timer;                    /* fails: ends the connect, or the first request */
    bool is_dispatching;                    /* a reply in the buffer `in` is with a callback */
    char failure[64];                       /* why the timer is to end it at once; else empty */
    int64_t connect_timeout_ms, request_timeout_ms, connect_deadline_ms;
    char *user, *password;   /* only until the login was sent */
    struct tls_context *tls; /* a reference, or NULL; with host and peer, until it has begun */
    char *host, peer[sizeof(((struct endpoint *)0)->text)];
    struct buffer in, out;
    struct resp_framer framer;
    size_t framed_bytes; /* of the reply that stands at the front of `in` */
    struct request *first, *last;
};

/* ---- ending ---- */

static void forget_login(struct control_client *client)
{
    if (client->password != NULL) {
        explicit_bzero(client->password, strlen(client->password));
    }
    mem_free(client->password);
    mem_free(client->user);
    client->password = client->user = NULL;
}

static void forget_tls(struct control_client *client)
{
    tls_context_unref(&client->tls);
    mem_free(client->host);
    client->host = NULL;
}

static void free_event(struct event **event)
{
    if (*event != NULL) {
        event_free(*event);
        *event = NULL;
    }
}

static struct request *take_request(struct control_client *client)
{
    struct request *request = client->first;

    client->first = request->next;
    if (client->first == NULL) {
        client->last = NULL;
    }
    return request;
}

/* The input stays while a callback looks at it; dispatch() then drops it. */
static void drop_input(struct control_client *client)
{
    client->framer = (struct resp_framer){0};
    client->framed_bytes = 0;
    buffer_fini(&client->in);
    buffer_init(&client->in);
}

void control_client_close(struct control_client *client)
{
    client->state = CLIENT_CLOSED;
    free_event(&client->read_event);
    free_event(&client->write_event);
    event_del(client->timer);
    stream_close(&client->stream);
    while (client->first != NULL) {
        mem_free(take_request(client));
    }
    forget_login(client);
    forget_tls(client);
    client->failure[0] = '\0';
    buffer_fini(&client->out);
    buffer_init(&client->out);
    if (!client->is_dispatching) {
        drop_input(client);
    }
}

static void fail(struct control_client *client, const char *reason, bool is_refused)
{
    control_client_close(client);
    client->events->on_down(reason, is_refused, client->context);
}

static void fail_errno(struct control_client *client, int error)
{
    char words[400];

    /* What it points to ends with the connection. */
    snprintf(words, sizeof(words), "%s", stream_error(&client->stream, error));
    fail(client, words, false);
}

/* ---- timers ---- */

static void arm_timer_at(struct control_client *client, int64_t at_ms)
{
    const int64_t left_ms = at_ms - clock_now_ms();
    const struct timeval delay = {.tv_sec = left_ms > 0 ? left_ms / 1000 : 0,
                                  .tv_usec = left_ms > 0 ? left_ms % 1000 * 1000 : 0};

    event_add(client->timer, &delay);
}

static void arm_timer(struct control_client *client)
{
    if (client->state != CLIENT_UP) {
        arm_timer_at(client, client->connect_deadline_ms);
    } else if (client->first != NULL) {
        arm_timer_at(client, client->first->deadline_ms);
    } else {
        event_del(client->timer);
    }
}

/* What a public function cannot report by itself: the timer does it in the next turn. */
static void fail_soon(struct control_client *client, const char *reason)
{
    const struct timeval now = {0, 0};

    snprintf(client->failure, sizeof(client->failure), "%s", reason);
    event_add(client->timer, &now);
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
    struct control_client *client = OBJ_FROM(context, struct control_client, CLIENT_MAGIC);
    char reason[64];

    (void)fd;
    (void)what;
    if (client->failure[0] != '\0') {
        memcpy(reason, client->failure, sizeof(reason));
    } else if (client->state == CLIENT_UP) {
        snprintf(reason, sizeof(reason), "no answer within %lld ms",
                 (long long)client->request_timeout_ms);
    } else {
        snprintf(reason, sizeof(reason), "no %s within %lld ms",
                 stream_is_in_handshake(&client->stream) ? "TLS handshake" : "connection",
                 (long long)client->connect_timeout_ms);
    }
    fail(client, reason, false);
}

/* ---- sending ---- */

/* hiredis writes the frame; its argv is not const, but it does not write there. */
static int format_request(struct control_client *client, const struct bytes *argv, unsigned argc)
{
    const char *words[ARGC_MAX];
    size_t lengths[ARGC_MAX];
    unsigned char name[OWN_NAME_MAX + 1] = "";
    char *frame = NULL;
    int error;

    for (unsigned i = 0; i < argc; i++) {
        words[i] = (const char *)argv[i].ptr;
        lengths[i] = argv[i].len;
    }
    (void)own_spell(name, argv[0]);
    words[0] = (const char *)name;
    const long long n = redisFormatCommandArgv(&frame, (int)argc, words, lengths);

    if (n < 0) {
        return -ENOMEM;
    }
    error = buffer_append(&client->out, bytes_make(frame, (size_t)n));
    /* It may hold a password. */
    explicit_bzero(frame, (size_t)n);
    redisFreeCommand(frame);
    return error;
}

static void queue_request(struct control_client *client, const struct bytes *argv, unsigned argc,
                          control_reply_fn on_reply)
{
    struct request *request;

    if (format_request(client, argv, argc) != 0) {
        fail_soon(client, "out of memory");
        return;
    }
    request = mem_alloc(sizeof(*request));
    request->on_reply = on_reply;
    request->deadline_ms = clock_now_ms() + client->request_timeout_ms;
    if (client->last != NULL) {
        client->last->next = request;
    } else {
        client->first = request;
    }
    client->last = request;
    event_add(client->write_event, NULL);
}

void control_client_send(struct control_client *client, const char *const *argv, unsigned argc,
                         control_reply_fn on_reply)
{
    struct bytes words[ARGC_MAX];

    CHECK(argc <= ARGC_MAX);
    for (unsigned i = 0; i < argc; i++) {
        words[i] = bytes_of_string(argv[i]);
    }
    control_client_send_bytes(client, words, argc, on_reply);
}

void control_client_send_bytes(struct control_client *client, const struct bytes *argv,
                               unsigned argc, control_reply_fn on_reply)
{
    CHECK(client->state == CLIENT_UP && argc <= ARGC_MAX);
    queue_request(client, argv, argc, on_reply);
    if (client->failure[0] == '\0') {
        arm_timer(client);
    }
}

static void begin_login(struct control_client *client)
{
    struct bytes argv[3] = {BYTES("AUTH")};
    unsigned argc = 1;

    if (client->password == NULL) {
        client->state = CLIENT_UP;
        arm_timer(client);
        client->events->on_up(client->context);
        return;
    }
    client->state = CLIENT_LOGIN;
    if (client->user != NULL) {
        argv[argc++] = bytes_of_string(client->user);
    }
    argv[argc++] = bytes_of_string(client->password);
    queue_request(client, argv, argc, NULL);
    forget_login(client);
}

static void shake_hands(struct control_client *client)
{
    const int error = stream_handshake(&client->stream);

    if (error != 0 && error != -EAGAIN) {
        fail_errno(client, error);
        return;
    }
    event_add(client->read_event, NULL);
    if (error == 0) {
        begin_login(client);
    } else if (stream_wants_write(&client->stream)) {
        event_add(client->write_event, NULL);
    }
}

static void connected(struct control_client *client)
{
    int error = stream_connect_result(&client->stream);

    if (error == 0 && client->tls != NULL) {
        error = stream_start_tls(&client->stream, client->tls, client->host, client->peer);
        forget_tls(client);
    }
    if (error != 0) {
        fail_errno(client, error);
        return;
    }
    shake_hands(client);
}

static void on_writable(evutil_socket_t fd, short what, void *context)
{
    struct control_client *client = OBJ_FROM(context, struct control_client, CLIENT_MAGIC);
    ssize_t n;

    (void)fd;
    (void)what;
    if (client->state == CLIENT_CONNECTING) {
        if (stream_is_in_handshake(&client->stream)) {
            shake_hands(client);
        } else {
            connected(client);
        }
        return;
    }
    while (buffer_len(&client->out) > 0) {
        n = stream_write(&client->stream, buffer_bytes(&client->out));
        if (n == -EAGAIN) {
            event_add(client->write_event, NULL);
            return;
        }
        if (n < 0) {
            fail_errno(client, (int)n);
            return;
        }
        buffer_consume(&client->out, (size_t)n);
    }
    buffer_release(&client->out);
}

/* ---- receiving ---- */

static void finish_login(struct control_client *client, const struct resp_value *head)
{
    char words[128];

    if (head->type != '-') {
        client->state = CLIENT_UP;
        client->events->on_up(client->context);
        return;
    }
    snprintf(words, sizeof(words), "%.*s", (int)head->text.len, (const char *)head->text.ptr);
    fail(client, words, true);
}

/* One whole reply stands at the front of the input. False: it closed the connection. */
static bool dispatch(struct control_client *client)
{
    const struct bytes reply = {buffer_bytes(&client->in).ptr, client->framed_bytes};
    struct bytes at = reply;
    struct resp_value head;
    struct request *request;

    if (!resp_next(&at, &head) || (client->first == NULL && client->events->on_message == NULL)) {
        fail(client, client->first == NULL ? "a reply that nobody asked for" : "not a Redis reply",
             false);
        return false;
    }
    request = client->first != NULL ? take_request(client) : NULL;
    client->is_dispatching = true;
    if (request == NULL) {
        client->events->on_message(&head, reply, client->context);
    } else if (request->on_reply == NULL) {
        finish_login(client, &head);
    } else {
        request->on_reply(&head, reply, client->context);
    }
    client->is_dispatching = false;
    mem_free(request);
    if (client->state == CLIENT_CLOSED) {
        drop_input(client);
        return false;
    }
    buffer_consume(&client->in, client->framed_bytes);
    client->framed_bytes = 0;
    return true;
}

/* False: the connection was closed. */
static bool read_replies(struct control_client *client)
{
    while (buffer_len(&client->in) > client->framed_bytes) {
        const struct bytes seen = buffer_bytes(&client->in);
        enum resp_status status;
        size_t used = 0;

        status = resp_frame(&client->framer, seen.ptr + client->framed_bytes,
                            seen.len - client->framed_bytes, &used);
        client->framed_bytes += used;
        if (status == RESP_BAD) {
            fail(client, "not a Redis reply", false);
            return false;
        }
        if (status == RESP_OK && !dispatch(client)) {
            return false;
        }
    }
    if (client->framed_bytes > REPLY_BYTES_MAX) {
        fail(client, "a reply larger than any map", false);
        return false;
    }
    return true;
}

/* False: there is no more, or the connection was closed. */
static bool read_once(struct control_client *client)
{
    ssize_t n;

    if (buffer_reserve(&client->in, READ_BYTES) != 0) {
        fail(client, "out of memory", false);
        return false;
    }
    n = stream_read(&client->stream, buffer_end(&client->in),
                    client->in.capacity - client->in.tail);
    if (n == -EAGAIN) {
        return false;
    }
    if (n == 0) {
        fail(client, "the server closed the connection", false);
        return false;
    }
    if (n < 0) {
        fail_errno(client, (int)n);
        return false;
    }
    buffer_commit(&client->in, (size_t)n);
    if (!read_replies(client)) {
        return false;
    }
    if (buffer_len(&client->in) == 0) {
        buffer_release(&client->in);
    }
    if (client->failure[0] == '\0') {
        arm_timer(client);
    }
    return stream_has_pending(&client->stream);
}

static void on_readable(evutil_socket_t fd, short what, void *context)
{
    struct control_client *client = OBJ_FROM(context, struct control_client, CLIENT_MAGIC);

    (void)fd;
    (void)what;
    if (client->state == CLIENT_CONNECTING) {
        shake_hands(client);
        return;
    }
    while (read_once(client)) {
    }
}

/* ---- life ---- */

struct control_client *control_client_new(struct event_base *base,
                                          const struct control_events *events, void *context)
{
    struct control_client *client = mem_alloc(sizeof(*client));

    client->magic = CLIENT_MAGIC;
    client->base = base;
    client->events = events;
    client->context = context;
    client->stream.fd = -1;
    buffer_init(&client->in);
    buffer_init(&client->out);
    client->timer = evtimer_new(base, on_timer, client);
    CHECK(client->timer != NULL);
    return client;
}

void control_client_free(struct control_client **client)
{
    struct control_client *freed = *client;

    *client = NULL;
    if (freed == NULL) {
        return;
    }
    CHECK(!freed->is_dispatching);
    control_client_close(freed);
    event_free(freed->timer);
    freed->magic = 0;
    mem_free(freed);
}

void control_client_connect(struct control_client *client, const struct endpoint *endpoint,
                            const char *host, const struct control_settings *settings)
{
    int error;

    CHECK(client->state == CLIENT_CLOSED && !client->is_dispatching);
    client->state = CLIENT_CONNECTING;
    client->connect_timeout_ms = settings->connect_timeout_ms;
    client->request_timeout_ms = settings->request_timeout_ms;
    client->connect_deadline_ms = clock_now_ms() + settings->connect_timeout_ms;
    error = stream_connect(&client->stream, endpoint);
    if (error != 0 && error != -EINPROGRESS) {
        fail_soon(client, strerror(-error));
        return;
    }
    if (settings->tls != NULL) {
        client->tls = tls_context_ref(settings->tls);
        client->host = mem_strdup(host);
        memcpy(client->peer, endpoint->text, sizeof(client->peer));
    }
    client->user = settings->user != NULL ? mem_strdup(settings->user) : NULL;
    client->password = settings->password != NULL ? mem_strdup(settings->password) : NULL;
    client->read_event = event_new(client->base, client->stream.fd, EV_READ | EV_PERSIST,
                                   on_readable, client);
    client->write_event = event_new(client->base, client->stream.fd, EV_WRITE, on_writable, client);
    CHECK(client->read_event != NULL && client->write_event != NULL);
    event_add(client->write_event, NULL);
    arm_timer(client);
}
