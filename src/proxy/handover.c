/*
 * Design: one message of a SOCK_SEQPACKET per session: its state, its name, the input that it had
 * sent already, and the descriptor beside it. Messages are whole or not there, and several threads
 * may send. A message without a descriptor is a word between the two processes.
 */
#include "proxy/handover.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/stats.h"
#include "proxy/handover_record.h"
#include "proxy/request.h"
#include "proxy/session.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

/* How long a session takes no requests, and how long it is left alone then. */
#define HOLD_US (100 * 1000)
#define REST_US (1000 * 1000)
/* Sessions of one worker that share a fence. */
#define BATCH_MAX 64

/* ---- giving ---- */

static bool is_bound_to_process(const struct session *session)
{
    return session->stream.tls != NULL || session->identity != NULL || session->login != NULL ||
           session->transaction != NULL || session->subscriber != NULL ||
           session->monitor != NULL || session->tracker != NULL || session->is_target ||
           session->upload != NULL || session->is_paused || session->gone_event != NULL ||
           session->is_closed || session->is_closing || session->is_eof ||
           session->adopted_in != 0 ||
           miss_client_computes(&session->front->coherence, session->misses);
}

static size_t tail_bytes(const struct session *session)
{
    return buffer_len(&session->in) + (session->name != NULL ? strlen(session->name) : 0);
}

static void let_go(struct session *session)
{
    if (session->is_leaving) {
        session->is_leaving = false;
        session_resume(session);
        session_wake(session);
    }
}

static void hold(struct session *session)
{
    const int64_t now_us = clock_now_us();

    if (!session->is_leaving && !session->is_suspended && now_us >= session->leaving_us) {
        session->is_leaving = true;
        session->leaving_us = now_us;
        session_suspend(session, false);
    } else if (session->is_leaving && now_us - session->leaving_us > HOLD_US) {
        let_go(session);
        session->leaving_us = now_us + REST_US;
    }
}

static int send_session(const struct session *session, int fd)
{
    const struct handover_record record = {
        .magic = HANDOVER_MAGIC,
        .db = session->db,
        .id = session->id,
        .age_us = clock_now_us() - session->opened_at_us,
        .name_bytes = session->name != NULL ? (uint32_t)strlen(session->name) : 0,
        .input_bytes = (uint32_t)buffer_len(&session->in),
        .proto = session->proto,
        .reply_mode = session->reply_mode,
        .is_authed = session->is_authed,
        .may_change_cache = session->may_change_cache,
        .is_no_evict = session->is_no_evict,
        .is_unix = session->is_unix,
        .wants_attributes = session->wants_attributes,
    };
    const struct bytes input = buffer_bytes(&session->in);
    struct iovec parts[] = {
        {(void *)(uintptr_t)&record, sizeof(record)},
        {session->name, record.name_bytes},
        {(void *)(uintptr_t)input.ptr, input.len},
    };
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr aligned;
    } control = {.room = {0}};
    struct msghdr message = {.msg_iov = parts,
                             .msg_iovlen = 3,
                             .msg_control = control.room,
                             .msg_controllen = sizeof(control.room)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);

    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &session->stream.fd, sizeof(int));
    return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* True: it has gone. */
static bool give(struct session *session, int fd)
{
    const bool is_served = session->first == NULL && outq_len(&session->out) == 0 &&
                           outq_len(&session->pushes) == 0;

    if (is_bound_to_process(session) || tail_bytes(session) > HANDOVER_TAIL_MAX) {
        let_go(session);
        return false;
    }
    if (!is_served || send_session(session, fd) != 0) {
        hold(session);
        return false;
    }
    stats_add(METRIC_clients_handed_over, 1);
    session_close(session);
    return true;
}

unsigned handover_give(struct front *front, int fd)
{
    struct session *session = front->sessions;
    unsigned n = 0;

    while (session != NULL) {
        struct session *const next = session->next;

        n += give(session, fd);
        session = next;
    }
    return n;
}

void handover_forget(struct front *front)
{
    for (struct session *session = front->sessions; session != NULL; session = session->next) {
        let_go(session);
    }
}

/* ---- taking ---- */

struct adopted {
    struct handover_record record;
    int fd;
    unsigned char *tail; /* name and input */
};

/* Sessions on their way to one worker. */
struct batch {
    struct mail mail;
    struct front *front;
    uint32_t number;
    unsigned n_fences;
    unsigned n;
    struct adopted all[BATCH_MAX];
};

static void let_in(struct batch *batch)
{
    for (struct session *session = batch->front->sessions; session != NULL;
         session = session->next) {
        if (session->adopted_in == batch->number) {
            session->adopted_in = 0;
            session_resume(session);
            session_wake(session);
        }
    }
    mem_free(batch);
}

static void on_fence(void *arg)
{
    struct batch *batch = arg;

    if (--batch->n_fences == 0) {
        let_in(batch);
    }
}

/* The newest session of the front is the one that was just opened. */
static void restore(struct session *session, const struct adopted *adopted)
{
    const struct handover_record *record = &adopted->record;

    session->proto = record->proto == 3 ? 3 : 2;
    session->reply_mode = record->reply_mode <= REPLY_SKIP_THIS ? record->reply_mode : REPLY_ON;
    session->is_authed = record->is_authed != 0;
    session->may_change_cache = record->may_change_cache != 0;
    session->is_no_evict = record->is_no_evict != 0;
    session->wants_attributes = record->wants_attributes != 0;
    session->opened_at_us = clock_now_us() - record->age_us;
    session_set_db(session, record->db);
    if (record->name_bytes > 0) {
        session->name = mem_try_alloc(record->name_bytes + 1);
        if (session->name != NULL) {
            memcpy(session->name, adopted->tail, record->name_bytes);
            session->name[record->name_bytes] = '\0';
        }
    }
    if (record->input_bytes > 0 &&
        buffer_append(&session->in,
                      bytes_make(adopted->tail + record->name_bytes, record->input_bytes)) != 0) {
        session_close(session);
    }
}

static void adopt(struct batch *batch, const struct adopted *adopted)
{
    struct front *front = batch->front;
    struct session *session;

    session_open(front, adopted->fd, adopted->record.is_unix != 0, NULL, adopted->record.id);
    session = front->sessions;
    if (session == NULL || session->id != adopted->record.id || session->is_closed) {
        return; /* this process drains already */
    }
    restore(session, adopted);
    if (!session->is_closed) {
        session->adopted_in = batch->number;
        session->is_stalled = true;
        session_suspend(session, false);
        stats_add(METRIC_clients_adopted, 1);
    }
}

static void on_batch(struct mail *mail)
{
    struct batch *batch = CONTAINER_OF(mail, struct batch, mail);
    struct front *front = batch->front;

    for (unsigned i = 0; i < batch->n; i++) {
        adopt(batch, &batch->all[i]);
        mem_free(batch->all[i].tail);
    }
    batch->n_fences = 1; /* ours, until all are asked for */
    for (struct backend_node *node = front->backend.nodes; node != NULL; node = node->next) {
        if (node->info != NULL && node->info->is_master) {
            batch->n_fences++;
            coherence_fence(&front->coherence, node->id, on_fence, batch);
        }
    }
    on_fence(batch);
}

static void post(struct batch **batch)
{
    if (*batch != NULL) {
        worker_post(&(*batch)->front->worker, &(*batch)->mail);
        *batch = NULL;
    }
}

static void add(struct proxy *proxy, struct batch **batches, struct adopted *adopted)
{
    static uint32_t next_batch;
    static unsigned next_front;
    const unsigned at = next_front++ % proxy->n_fronts;
    struct batch *batch = batches[at];

    if (batch == NULL) {
        batch = mem_alloc(sizeof(*batch));
        batch->mail.run = on_batch;
        batch->front = &proxy->fronts[at];
        next_batch += next_batch == UINT32_MAX ? 2 : 1; /* 0 is none */
        batch->number = next_batch;
        batches[at] = batch;
    }
    atomic_fetch_add_explicit(&proxy->n_clients, 1, memory_order_relaxed);
    batch->all[batch->n++] = *adopted;
    if (batch->n == BATCH_MAX) {
        post(&batches[at]);
    }
}

static int fd_of(struct msghdr *message)
{
    const struct cmsghdr *header = CMSG_FIRSTHDR(message);
    int fd = -1;

    if (header != NULL && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
        header->cmsg_len == CMSG_LEN(sizeof(int))) {
        memcpy(&fd, CMSG_DATA(header), sizeof(int));
    }
    return fd;
}

/* One message with a descriptor. */
static void take_session(struct proxy *proxy, struct batch **batches, int fd, struct bytes message)
{
    struct adopted adopted = {.fd = fd};
    struct bytes tail;

    if (!handover_record_read(message, &adopted.record, &tail)) {
        log_error("proxy", "a connection of the predecessor is not understood, and closed", NULL);
        close(fd);
        return;
    }
    if (tail.len > 0) {
        adopted.tail = mem_alloc(tail.len);
        memcpy(adopted.tail, tail.ptr, tail.len);
    }
    add(proxy, batches, &adopted);
}

/* What stands first in the socket. It is looked at with MSG_PEEK before it is taken: what comes
 * without its descriptor, as there are none left, would be gone for good. */
struct message {
    ssize_t n;
    int fd, flags;
};

static unsigned char room[sizeof(struct handover_record) + HANDOVER_TAIL_MAX];

/* flags: of recvmsg(2). An error is a negative n. */
static struct message receive(int fd, int flags)
{
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr aligned;
    } control;
    struct iovec part = {room, sizeof(room)};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.room,
                             .msg_controllen = sizeof(control.room)};
    ssize_t n;

    /* ECONNRESET is told once, when the other side has ended without having read all; what it sent
     * is still there. */
    do {
        n = recvmsg(fd, &message, flags | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (n < 0 && (errno == EINTR || errno == ECONNRESET));
    return (struct message){n < 0 ? -errno : n, n > 0 ? fd_of(&message) : -1,
                            n > 0 ? message.msg_flags : 0};
}

/* Takes what was looked at, without a further descriptor for it. */
static void consume(int fd)
{
    struct msghdr message = {0};

    (void)!recvmsg(fd, &message, MSG_DONTWAIT);
}

/* False: *result says why no more is taken now. */
static bool take_one(struct proxy *proxy, struct batch **batches, int fd,
                     char word[HANDOVER_WORD_MAX], enum handover_result *result)
{
    const struct message message = receive(fd, MSG_PEEK);

    if (message.n <= 0) {
        *result = message.n == -EAGAIN ? HANDOVER_AGAIN : HANDOVER_END;
        return false;
    }
    if (message.fd < 0 && (message.flags & MSG_CTRUNC) != 0) {
        *result = HANDOVER_FULL;
        return false;
    }
    consume(fd);
    if (message.fd < 0) {
        (void)snprintf(word, HANDOVER_WORD_MAX, "%.*s", (int)message.n, (const char *)room);
        *result = HANDOVER_SIGNAL;
        return false;
    }
    /* One that was cut is not understood. */
    take_session(proxy, batches, message.fd,
                 bytes_make(room, (message.flags & MSG_TRUNC) != 0 ? 0 : (size_t)message.n));
    return true;
}

enum handover_result handover_take(struct proxy *proxy, int fd, char word[HANDOVER_WORD_MAX])
{
    struct batch *batches[64] = {NULL}; /* proxy_init(): no more workers than that */
    enum handover_result result = HANDOVER_AGAIN;

    while (take_one(proxy, batches, fd, word, &result)) {
    }
    for (unsigned i = 0; i < proxy->n_fronts; i++) {
        post(&batches[i]);
    }
    return result;
}

void handover_lose(int fd)
{
    const struct message message = receive(fd, 0);

    if (message.fd >= 0) {
        close(message.fd);
    }
    stats_add(METRIC_clients_lost_in_handover, 1);
    log_error("proxy", "a connection of the predecessor is lost: out of descriptors", NULL);
}

int handover_say(int fd, const char *word)
{
    return send(fd, word, strlen(word), MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

unsigned handover_format(void)
{
    return HANDOVER_MAGIC;
}
