#include "proxy/large.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/stats.h"
#include "proxy/group.h"
#include "proxy/relay.h"

#include <sys/ioctl.h>

/* How long after a large reply the next one is expected. */
#define NOTED_US 10000000
/* Parts of one request that have a connection of their own at a time. */
#define PARTS_APART 4
/* A client with so much sent and not taken is probably waiting for it to be taken. */
#define STUCK_BYTES (16 * 1024)

/* ---- which keys ---- */

/* Other reads of a key are small: the length of a long list. */
static uint64_t mix(const struct command *command, uint64_t hash)
{
    const uint64_t number = command->class == CLASS_SPLIT_READ ? 0 : command->number;

    return hash ^ (number * UINT64_C(0x9e3779b97f4a7c15));
}

void large_note(struct front *front, const struct command *command, uint64_t hash)
{
    const uint64_t mixed = mix(command, hash);
    struct large_note *note = &front->large_notes[mixed % LARGE_NOTES];

    note->hash = mixed;
    note->until_us = front->large_until_us = clock_now_us() + NOTED_US;
    if (command->class == CLASS_CACHED_READ) {
        /* Nor is it fetched for tier 1: it would be read for nobody. */
        cache_note_oversized(front->proxy->cache, hash, note->until_us);
    }
}

bool large_is_noted(const struct front *front, const struct command *command, uint64_t hash,
                    int64_t now_us)
{
    const uint64_t mixed = mix(command, hash);
    const struct large_note *note = &front->large_notes[mixed % LARGE_NOTES];

    return front->large_until_us > now_us && note->hash == mixed && note->until_us > now_us;
}

/* ---- one request ---- */

void large_set_apart(struct request *request)
{
    struct request *in_queue = request_in_queue(request);

    request->lease_use = LEASE_TIMED;
    if (in_queue->session != NULL && !in_queue->counts_apart) {
        in_queue->counts_apart = true;
        in_queue->session->n_apart++;
    }
}

size_t large_collect(const struct front *front)
{
    const struct config *config = front->config;

    return config->large_reply < config->client_output_limit / 2 ? config->large_reply
                                                                 : config->client_output_limit / 2;
}

/* Many large values in one MGET: a few at a time. */
static bool is_group_busy(struct request *part)
{
    if (part->lease_use == LEASE_NONE || part->counts_apart) {
        return false;
    }
    if (part->group->n_apart >= PARTS_APART) {
        return true;
    }
    part->counts_apart = true;
    part->group->n_apart++;
    return false;
}

bool large_must_wait(struct request *request)
{
    const struct request *in_queue = request_in_queue(request);

    if (request->is_part && is_group_busy(request)) {
        return true;
    }
    if (in_queue->session == NULL || in_queue->session->n_apart == 0) {
        return false;
    }
    for (const struct request *before = in_queue->session->first; before != in_queue;
         before = before->next) {
        /* One large reply at a time: more could not leave, and each would fill its window. */
        if (request->lease_use != LEASE_NONE && !request->is_part) {
            return true;
        }
        if (before->counts_apart && !before->is_done &&
            (before->key_mask & in_queue->key_mask) != 0) {
            return true;
        }
    }
    return false;
}

void large_wait(struct request *request)
{
    if (request->is_part) {
        relay_retry(request);
    } else {
        request->awaits_turn = true;
    }
}

void large_count(struct request *request, enum metric metric)
{
    stats_add(metric, 1);
    if (!request->counts_large) {
        request->counts_large = true;
        atomic_fetch_add_explicit(&request->front->proxy->n_large, 1, memory_order_relaxed);
    }
}

/* Unwritten bytes from which on nothing more is read for this session. */
static size_t window_of(const struct session *session)
{
    const struct config *config = session->front->config;
    const size_t soft = config->client_output_soft_limit;
    size_t window = config->client_output_limit / 2;

    /* A client that is held back is not one that has left too much unread. */
    if (soft > 0 && window > soft) {
        window = session->is_writing ? soft : soft / 2;
    }
    return session->is_writing || window < config->stream_window ? window : config->stream_window;
}

void large_hold(struct request *request, struct link *link)
{
    struct session *session = request->session;
    size_t behind;

    /* What waits for a fence leaves after its end only. */
    if (session == NULL || request->is_part || request->is_muted || link->is_paused ||
        (request->is_held && !request->is_fencing)) {
        return;
    }
    behind = session->first == request && !request->is_held ? outq_len(&session->out)
                                                            : request->held_bytes;
    if (behind > window_of(session)) {
        stats_add(METRIC_stalls_reply, 1);
        link_pause(link);
        request->paused_link = link;
    }
}

static void resume_below(struct session *session, size_t limit)
{
    struct request *request = session->first;

    if (outq_len(&session->out) <= limit) {
        link_resume(request->paused_link);
        request->paused_link = NULL;
    }
}

void large_flow_on(struct session *session)
{
    resume_below(session, window_of(session) / 2);
}

void large_look_for_writer(struct session *session)
{
    int n_waiting = 0;

    if (ioctl(session->stream.fd, FIONREAD, &n_waiting) != 0 || n_waiting < STUCK_BYTES) {
        return;
    }
    session->is_writing = true;
    resume_below(session, window_of(session));
}

void large_end(struct request *request)
{
    request->paused_link = NULL;
    if (request->session != NULL && request->session->first == request) {
        request->session->is_writing = false;
    }
    if (request->counts_apart && request->is_part) {
        request->group->n_apart--;
    } else if (request->counts_apart && request->session != NULL) {
        request->session->n_apart--;
    }
    if (request->counts_large) {
        atomic_fetch_sub_explicit(&request->front->proxy->n_large, 1, memory_order_relaxed);
    }
    request->counts_apart = request->counts_large = false;
}

bool large_is_alone(const struct request *request)
{
    const struct link *link = request->on_link;

    return request->is_streaming && !request->is_part && request->lease == NULL && link != NULL &&
           link->is_left && !link_has_others(link, &request->op);
}

/* ---- giving way ---- */

/* In the place of an operation whose reply nobody wants any more. */
struct drain {
    struct link_op op;
    bool is_large; /* the reply that the link was left for */
};

static void on_drain_reply(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                           bool is_first, bool is_last)
{
    struct drain *drain = CONTAINER_OF(op, struct drain, op);

    (void)part;
    (void)is_first;
    if (is_last && index + 1 == op->n_replies) {
        if (drain->is_large) {
            backend_rejoin_link(link);
        }
        mem_free(drain);
    }
}

static void on_drain_lost(struct link_op *op, struct link *link, enum link_loss loss)
{
    (void)link;
    (void)loss;
    mem_free(CONTAINER_OF(op, struct drain, op));
}

static const struct link_op_type drain_type = {on_drain_reply, on_drain_lost};

/*
 * A read may be asked again elsewhere when no other request of its session is on its key: one
 * before it could come after it then, and one behind it must not be seen by it (I8), nor show less
 * than it will (I4).
 */
static bool may_leave(const struct request *request)
{
    const struct request *in_queue = request_in_queue(request);
    bool is_before = true;

    if (in_queue->session == NULL || request->must_repeat) {
        return false;
    }
    for (const struct request *other = in_queue->session->first; other != NULL;
         other = other->next) {
        if (other == in_queue) {
            is_before = false;
        } else if ((other->key_mask & in_queue->key_mask) != 0 && !(is_before && other->is_done)) {
            return false;
        }
    }
    return true;
}

/* Its frame as it may be sent again; empty: it may not. The caller frees it. */
static struct bytes take_frame(const struct request *request, const struct link *link)
{
    struct bytes frame = bytes_make(NULL, 0);
    unsigned char *copy;

    if (!relay_is_plain_read(request) || !may_leave(request)) {
        return frame;
    }
    frame = link->settings.keeps_requests
                ? relay_frame(request, link)
                : bytes_make(request->stored + request->stored_bytes, request->frame_bytes);
    copy = frame.len > 0 ? mem_try_alloc(frame.len) : NULL;
    if (copy == NULL) {
        return bytes_make(NULL, 0);
    }
    memcpy(copy, frame.ptr, frame.len);
    return bytes_make(copy, frame.len);
}

static void replace_by_drain(struct request *request, struct link *link, bool is_large)
{
    struct drain *drain = mem_alloc(sizeof(*drain));

    drain->op.type = &drain_type;
    drain->op.collect = LINK_COLLECT_MIN;
    drain->is_large = is_large;
    link_replace_op(link, &request->op, &drain->op);
}

static void free_frame(struct bytes frame)
{
    mem_free((void *)(uintptr_t)frame.ptr);
}

/*
 * Reads that were sent behind the large reply are asked again over the link that others have now.
 * What the proxy asked for itself (the ledger, audits, locks of leases) is told that it is lost.
 */
static void move_those_behind(const struct request *request, struct link *link,
                              struct backend_node *node)
{
    struct link_op *op = request->op.next;

    while (op != NULL) {
        struct link_op *const next = op->next;
        struct request *other = relay_request_of(op);
        const struct bytes frame = other != NULL ? take_frame(other, link) : BYTES("");

        if (frame.len > 0) {
            stats_add(METRIC_large_repeated_behind, 1);
            replace_by_drain(other, link, false);
            relay_send(other, node, frame);
            free_frame(frame);
        } else if (other == NULL && op->type != &drain_type && !link_owns(op)) {
            link_abandon(link, op);
            op->type->on_lost(op, link, LINK_LOST_SENT);
        }
        op = next;
    }
}

bool large_has_link(const struct request *request, struct link *link)
{
    for (struct link_op *op = link->first_op; op != NULL; op = op->next) {
        const struct request *other = relay_request_of(op);

        if (other != NULL && request_in_queue(other)->session != request->session) {
            return false;
        }
    }
    return !request->is_part && request->session != NULL;
}

/* Over a connection of its own, when it is its turn. */
static void ask_apart(struct request *request, struct backend_node *node, struct bytes frame)
{
    stats_add(METRIC_large_repeated, 1);
    large_set_apart(request);
    if (!large_must_wait(request)) {
        relay_send(request, node, frame);
    } else if (request_store(request, frame) != 0) {
        request_fail(request, "ERR nearcached: out of memory");
    } else {
        request->node = node->id;
        request->on_link = NULL;
        request->again = AGAIN_RESEND;
        large_wait(request);
    }
}

bool large_give_way(struct request *request, struct link *link)
{
    struct backend *backend = &request->front->backend;
    struct backend_node *node = backend_by_id(backend, request->node);
    struct bytes frame;

    if (request->has_one_key && request->command != NULL &&
        (request->command->flags & COMMAND_WRITES) == 0) {
        large_note(request->front, request->command, request->key_hash);
    }
    if (request->lease != NULL || node == NULL) {
        return false;
    }
    node = backend_as(backend, node, request->identity);
    if (!backend_leave_link(backend, node, link)) {
        return false;
    }
    move_those_behind(request, link, node);
    if (large_has_link(request, link)) {
        return false;
    }
    frame = take_frame(request, link);
    if (frame.len == 0) {
        return false;
    }
    replace_by_drain(request, link, true);
    ask_apart(request, node, frame);
    free_frame(frame);
    return true;
}
