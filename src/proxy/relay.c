/*
 * Design: a relayed reply is forwarded as it is framed; only its first bytes are looked at, for a
 * redirection. The reply rule runs at the first part: every key that the command names leaves
 * tier 1 before a byte of the reply leaves this process. A void flight or a later read may
 * therefore be newer than what tier 1 held, never older than what a client was shown.
 */
#include "proxy/relay.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/stats.h"
#include "coherence/bus.h"
#include "coherence/dependencies.h"
#include "proxy/dry.h"
#include "proxy/group.h"
#include "proxy/large.h"
#include "proxy/overload.h"
#include "proxy/read.h"
#include "proxy/tracking.h"
#include "resp/own.h"
#include "upstream/lease.h"

#include <errno.h>
#include <stdio.h>

/* Larger requests are not remembered in case a large reply comes in their way. */
#define KEEP_MAX ((size_t)4096)
/* Replies up to this size are handed on whole; larger ones stream. */
#define RELAY_COLLECT ((size_t)16 * 1024)
/* Long enough for a new map to arrive, short enough to go unnoticed. */
#define RETRY_PAUSE_US 2000
/* Thousandths of asking again once; how much of it there may be saved up; how often in a second it
 * is free. */
#define RETRY_TOKEN 1000
#define RETRY_BURST (1000 * RETRY_TOKEN)
#define RETRY_FREE 1000
/* A node that is loading, or a cluster that is down, is asked less often. */
#define WAIT_PAUSE_US 25000

static const struct bytes asking = {(const unsigned char *)OWN_ASKING, sizeof(OWN_ASKING) - 1};
static const struct bytes ping = {(const unsigned char *)OWN_PING, sizeof(OWN_PING) - 1};

static void on_reply(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                     bool is_first, bool is_last);
static void on_lost(struct link_op *op, struct link *link, enum link_loss loss);

static const struct link_op_type relay_type = {on_reply, on_lost};

/* ---- the reply rule ---- */

/* Of SWAPDB, by itself or within EXEC, the backend tells nobody. */
static bool is_untold(const struct command *command)
{
    return command != NULL &&
           (strcmp(command->name, "swapdb") == 0 || strcmp(command->name, "exec") == 0);
}

/* Proxies of the group hear of it, whether the backend tells them or not. */
static void tell_others(struct coherence *coherence, const struct command *command)
{
    const struct bus_record record = {.kind = BUS_FLUSH, .db = -1};

    if (command != NULL &&
        ((command->flags & COMMAND_FLUSHES) != 0 || strcmp(command->name, "exec") == 0)) {
        bus_send(coherence->fleet->bus, coherence, &record);
    }
}

/* Unknown commands are taken for writes; of EXEC nobody knows which of its keys are written. */
static bool may_write(const struct command *command)
{
    return command == NULL || (command->flags & COMMAND_WRITES) != 0 ||
           (command->class == CLASS_PINNED && strcmp(command->name, "exec") == 0);
}

void relay_drop_keys(struct request *request)
{
    struct coherence *coherence = &request->front->coherence;
    const bool is_write = may_write(request->command);
    const bool cascades = is_write && dependencies_are_used(coherence->fleet);
    size_t at = 0;

    if (request->drops_all) {
        coherence_drop_all(coherence, METRIC_flushes_command);
        tell_others(coherence, request->command);
        if (is_untold(request->command)) {
            tracking_announce(request->front->proxy, BYTES(""));
        }
    } else if (request->config_serial != request->front->config_serial) {
        /* Its keys may have belonged to an uncached namespace then, and no longer do. */
        coherence_drop_all(coherence, METRIC_flushes_reload);
    }
    while (at < request->stored_bytes && !request->is_dry) {
        uint32_t len;

        memcpy(&len, request->stored + at, sizeof(len));
        at += sizeof(len);
        if (is_write) {
            coherence_drop_written(coherence, bytes_make(request->stored + at, len));
        } else {
            coherence_drop_key(coherence, bytes_make(request->stored + at, len));
        }
        if (cascades) {
            coherence_drop_derived(coherence, bytes_make(request->stored + at, len));
        }
        at += len;
    }
}

int relay_store_keys(struct request *request, const struct bytes *argv,
                     const struct command_key_list *keys)
{
    unsigned char *room = request->few;
    size_t total = 0;

    for (unsigned i = 0; i < keys->n; i++) {
        total += sizeof(uint32_t) + argv[keys->at[i]].len;
    }
    if (total > sizeof(request->few)) {
        room = mem_try_alloc(total);
        if (room == NULL) {
            return -ENOMEM;
        }
    }
    if (request->stored != request->few) {
        mem_free(request->stored);
    }
    request->stored = room;
    request->stored_bytes = total;
    for (unsigned i = 0; i < keys->n; i++) {
        const struct bytes key = argv[keys->at[i]];
        const uint32_t len = (uint32_t)key.len;

        memcpy(room, &len, sizeof(len));
        memcpy(room + sizeof(len), key.ptr, key.len);
        room += sizeof(len) + key.len;
    }
    return 0;
}

/* ---- sending ---- */

static void fail_unreachable(struct request *request, const struct backend_node *node,
                             const struct link *link, int error, struct bytes frame)
{
    if (read_answer_stale(request, frame)) {
        return;
    }
    if (error == -ENOBUFS) {
        stats_add(METRIC_errors_busy, 1);
        request_fail(request, "ERR nearcached: too many requests are waiting for %s", link->name);
        return;
    }
    if (error == -ENOMEM) {
        stats_add(METRIC_errors_memory, 1);
        request_fail(request, "%s", OVERLOAD_TEXT);
        return;
    }
    stats_add(METRIC_errors_backend, 1);
    if (node == NULL) {
        request_fail(request, "%s",
                     request->front->backend.topology == NULL
                         ? "ERR nearcached: the backend was not reached yet"
                         : "CLUSTERDOWN Hash slot not served");
        return;
    }
    request_fail(request, "ERR nearcached: no connection to the backend %s (%s)", link->name,
                 link->error);
}

enum redirection { REDIRECT_NONE, REDIRECT_MOVED, REDIRECT_ASK, REDIRECT_TRYAGAIN, REDIRECT_WAIT };

static bool may_follow(const struct request *request, enum redirection kind);
static void retry_earn(struct front *front);
static void resend_later(struct request *request, struct bytes frame,
                         const struct backend_node *to);

/* NULL: no connection of its own is to be had. */
static struct link *link_for(struct request *request, struct backend_node *node)
{
    struct front *front = request->front;

    if (request->lease_use == LEASE_NONE) {
        return backend_relay_link(&front->backend, node,
                                  request->proto == 3 ? LINK_RELAY3 : LINK_RELAY2);
    }
    request->lease = lease_take(
        &front->backend, node, request->proto,
        request->lease_use == LEASE_TIMED ? front->config->request_timeout_ms : 0);
    return request->lease != NULL ? &request->lease->link : NULL;
}

/* Its connection is as it was: the next client may have it. Or it may not be. */
static void return_lease(struct request *request)
{
    if (request->lease != NULL && request->lease_use == LEASE_SPOILT) {
        lease_drop(&request->lease);
    } else if (request->lease != NULL) {
        lease_return(&request->lease);
    }
}

/* It may be asked twice: nothing but its reply comes of it. */
bool relay_is_plain_read(const struct request *request)
{
    const struct command *command = request->command;

    if (command == NULL || (command->flags & COMMAND_WRITES) != 0 || request->needs_fence ||
        request->drops_all || request->lease_use != LEASE_NONE) {
        return false;
    }
    return command->class == CLASS_CACHED_READ || command->class == CLASS_READ ||
           command->class == CLASS_SPLIT_READ || command->class == CLASS_MULTI_READ;
}

/* Nothing is sent to a node that would not answer, nor does anybody wait for it to. */
static void refuse(struct request *request, const struct backend_node *node, struct bytes frame)
{
    char text[640];

    if (read_answer_stale(request, frame)) {
        return;
    }
    stats_add(METRIC_errors_backend, 1);
    relay_refusal(node, text, sizeof(text));
    request_fail(request, "%s", text);
}

void relay_refusal(const struct backend_node *node, char *text, size_t size)
{
    const struct link *link = &node->links[LINK_TRACKING];

    stats_add(METRIC_breaker_refused, 1);
    snprintf(text, size, "ERR nearcached: no connection to the backend %s (%s)", link->name,
             link->state == LINK_DOWN && link->error[0] != '\0' ? link->error
                                                                : health_text(node->health));
}

void relay_send(struct request *request, struct backend_node *node, struct bytes frame)
{
    struct link *link;
    struct bytes parts[2];
    unsigned n = 0;
    int error;

    if (node == NULL) {
        fail_unreachable(request, NULL, NULL, -ENOTCONN, frame);
        return;
    }
    if (node->info != NULL && node->info->endpoint.length == 0 &&
        may_follow(request, REDIRECT_WAIT)) {
        /* Its name is being looked up. */
        request->is_waiting = true;
        resend_later(request, frame, node);
        return;
    }
    if (NC_UNLIKELY(health_refuses(node->health))) {
        refuse(request, node, frame);
        return;
    }
    retry_earn(request->front);
    node = backend_as(&request->front->backend, node, request->identity);
    link = link_for(request, node);
    if (link == NULL) {
        request_fail(request, "ERR nearcached: all leased-connections are in use");
        return;
    }
    request->node = node->id;
    request->on_link = request_in_queue(request)->on_link = link;
    request->op.type = &relay_type;
    request->op.collect = RELAY_COLLECT;
    request->op.collect_many = large_collect(request->front);
    if (frame.len <= KEEP_MAX && !link->settings.keeps_requests && relay_is_plain_read(request)) {
        request_keep_frame(request, frame);
    }
    if (request->is_asking) {
        parts[n++] = asking;
    } else if (request->has_ping) {
        parts[n++] = ping;
    }
    parts[n++] = frame;
    error = link_send(link, request->db, parts, n, n, &request->op);
    if (error != 0) {
        fail_unreachable(request, node, link, error, frame);
    }
}

/* ---- redirections ---- */

/* "-MOVED 3999 127.0.0.1:6381" and "-ASK ..." name a node; the host may be empty or an IPv6
 * address. */
struct backend_node *relay_named_node(struct request *request, struct bytes line,
                                      struct backend_node *from)
{
    const unsigned char *at = memchr(line.ptr, ' ', line.len);
    const unsigned char *end = line.ptr + line.len - 2;
    const unsigned char *colon = NULL;
    struct bytes host;
    unsigned reached_at;
    int64_t port;

    at = at != NULL ? memchr(at + 1, ' ', (size_t)(end - at - 1)) : NULL;
    if (at == NULL) {
        return NULL;
    }
    at++;
    for (const unsigned char *scan = at; scan < end; scan++) {
        if (*scan == ':') {
            colon = scan;
        }
    }
    if (colon == NULL || !bytes_to_int64(bytes_make(colon + 1, (size_t)(end - colon - 1)), &port) ||
        port < 1 || port > 65535) {
        return NULL;
    }
    host = bytes_make(at, (size_t)(colon - at));
    reached_at = (unsigned)port;
    (void)config_address_map(&request->front->config->mappings, &host, &reached_at);
    return backend_by_address(&request->front->backend, host, reached_at, from);
}

/*
 * Reads behind a request that is sent again must not show what it has yet to do: their replies are
 * discarded, and they are sent again behind it.
 */
static void repeat_later_reads(const struct request *request)
{
    const struct request *in_queue = request->is_part ? request->group->owner : request;

    if (in_queue->session == NULL) {
        return;
    }
    for (struct request *later = in_queue->next; later != NULL; later = later->next) {
        if (later->kind == REQUEST_RELAYED && !later->is_done && later->slot == request->slot &&
            later->command != NULL && (later->command->flags & COMMAND_WRITES) == 0) {
            later->must_repeat = true;
        }
    }
}

void relay_ask_for_map(struct front *front)
{
    const struct coherence_fleet *fleet = front->coherence.fleet;

    fleet->request_refresh(fleet->refresh_context);
}

/* The frame without what may stand before it. */
struct bytes relay_frame(const struct request *request, const struct link *link)
{
    const size_t before = request->is_asking ? asking.len : (request->has_ping ? ping.len : 0);
    struct bytes frame = link_op_bytes(link, &request->op);

    if (frame.len >= before) {
        frame.ptr += before;
        frame.len -= before;
    }
    return frame;
}

/*
 * Keeps the frame in the request for the retry list; its keys were dropped already. to: the node a
 * redirection named; NULL: whoever owns the slot then.
 */
static void resend_later(struct request *request, struct bytes frame, const struct backend_node *to)
{
    request->node = to != NULL ? to->id : 0;
    request->on_link = NULL;
    request->again = AGAIN_RESEND;
    if (request_store(request, frame) != 0) {
        request_fail(request, "ERR nearcached: out of memory");
        return;
    }
    return_lease(request);
    relay_retry(request);
}

static void resend_now(struct request *request, struct backend_node *node, struct bytes frame)
{
    unsigned char *copy;

    /* The frame stands in a link's buffer, which sending may move. */
    copy = mem_try_alloc(frame.len);
    if (copy == NULL) {
        request_fail(request, "ERR nearcached: out of memory");
        return;
    }
    memcpy(copy, frame.ptr, frame.len);
    return_lease(request);
    relay_send(request, node, bytes_make(copy, frame.len));
    mem_free(copy);
}

static enum redirection redirection_of(struct bytes line)
{
    if (bytes_start_with(line, BYTES("-MOVED "))) {
        return REDIRECT_MOVED;
    }
    if (bytes_start_with(line, BYTES("-ASK "))) {
        return REDIRECT_ASK;
    }
    if (bytes_start_with(line, BYTES("-TRYAGAIN"))) {
        return REDIRECT_TRYAGAIN;
    }
    if (bytes_start_with(line, BYTES("-CLUSTERDOWN")) ||
        bytes_start_with(line, BYTES("-LOADING"))) {
        return REDIRECT_WAIT;
    }
    return REDIRECT_NONE;
}

bool relay_is_redirection(struct bytes line)
{
    return redirection_of(line) != REDIRECT_NONE;
}

/* What says "not now" is bounded by time, what says "not here" by number. */
static bool may_follow(const struct request *request, enum redirection kind)
{
    const struct config *config = request->front->config;
    const int64_t waited_us = clock_now_us() - request->began_at_us;

    switch (kind) {
    case REDIRECT_MOVED:
    case REDIRECT_ASK:
        return request->n_redirects < config->max_redirects;
    case REDIRECT_TRYAGAIN:
        return waited_us < config->request_timeout_ms * 1000;
    case REDIRECT_WAIT:
        return waited_us < config->request_timeout_ms * 1000 / 2;
    case REDIRECT_NONE:
        break;
    }
    return false;
}

static void count_redirection(enum redirection kind)
{
    static const enum metric metrics[] = {
        [REDIRECT_MOVED] = METRIC_redirects_moved,
        [REDIRECT_ASK] = METRIC_redirects_ask,
        [REDIRECT_TRYAGAIN] = METRIC_redirects_tryagain,
        [REDIRECT_WAIT] = METRIC_redirects_wait,
    };

    stats_add(metrics[kind], 1);
}

/* True when the reply was a redirection and the request is on its way again. */
static bool follow(struct request *request, struct link *link, struct bytes line)
{
    struct front *front = request->front;
    struct backend_node *from = backend_by_id(&front->backend, request->node);
    const enum redirection kind = redirection_of(line);
    struct backend_node *to;
    struct bytes frame;

    if (kind == REDIRECT_NONE || !link->settings.keeps_requests || !may_follow(request, kind)) {
        return false;
    }
    frame = relay_frame(request, link);
    if (frame.len == 0 || from == NULL) {
        return false;
    }
    count_redirection(kind);
    if (NC_UNLIKELY(request->shadow != NULL)) {
        dry_forget(request); /* another node's answer proves nothing */
    }
    repeat_later_reads(request);
    if (kind == REDIRECT_TRYAGAIN || kind == REDIRECT_WAIT) {
        /* From an importing node it comes while keys are under way: ask there again. */
        request->is_waiting = kind == REDIRECT_WAIT;
        request->is_paced = true;
        resend_later(request, frame, request->is_asking ? from : NULL);
        return true;
    }
    request->n_redirects++;
    if (kind == REDIRECT_ASK) {
        /* Keys of the slot come into being where nobody tells us. */
        epochs_disturb(cache_epochs(front->proxy->cache), request->slot);
    }
    relay_ask_for_map(front);
    to = relay_named_node(request, line, from);
    request->is_asking = kind == REDIRECT_ASK && to != NULL;
    if (to == NULL || front->first_retry != NULL) {
        resend_later(request, frame, to);
        return true;
    }
    resend_now(request, to, frame);
    return true;
}

/* ---- the retry list ---- */

static void keep_retry(struct front *front, struct request *request)
{
    if (front->last_retry != NULL) {
        front->last_retry->next_retry = request;
    } else {
        front->first_retry = request;
    }
    front->last_retry = request;
}

static void arm_retry_timer(struct front *front)
{
    const struct timeval pause = {0, RETRY_PAUSE_US};

    if (front->first_retry != NULL && !event_pending(front->retry_event, EV_TIMEOUT, NULL)) {
        event_add(front->retry_event, &pause);
    }
}

void relay_retry(struct request *request)
{
    struct front *front = request->front;

    request->retry_at_us = clock_now_us() +
                           (request->is_waiting ? WAIT_PAUSE_US : RETRY_PAUSE_US / 2);
    request->is_waiting = false;
    request->next_retry = NULL;
    keep_retry(front, request);
    arm_retry_timer(front);
}

static void resend(struct request *request)
{
    struct front *front = request->front;
    struct backend_node *node;
    unsigned char *frame;
    size_t len = request->stored_bytes;

    if (!request->is_part && request->session == NULL) {
        /* The client left before its request was accepted anywhere. */
        request_drop(request);
        return;
    }
    frame = mem_try_alloc(len);
    if (frame == NULL) {
        request_fail(request, "ERR nearcached: out of memory");
        return;
    }
    memcpy(frame, request->stored, len);
    request->stored_bytes = 0;
    if (read_store_keys_of_frame(request, bytes_make(frame, len)) != 0) {
        mem_free(frame);
        request_fail(request, "ERR nearcached: out of memory");
        return;
    }
    node = request->node != 0 ? backend_by_id(&front->backend, request->node) : NULL;
    if (node == NULL) {
        node = backend_owner(&front->backend, request->slot);
        request->is_asking = false;
    }
    relay_send(request, node, bytes_make(frame, len));
    mem_free(frame);
}

/*
 * A read behind a request of its slot that is still being redirected: answered now it could show
 * less than that one will.
 */
static bool is_behind_redirected(const struct request *request)
{
    const struct request *in_queue = request->is_part ? request->group->owner : request;
    const bool is_read = request->command != NULL &&
                         (request->command->flags & COMMAND_WRITES) == 0;

    if (!is_read || in_queue->session == NULL) {
        return false;
    }
    for (const struct request *before = in_queue->session->first; before != in_queue;
         before = before->next) {
        if (before->kind == REQUEST_RELAYED && !before->is_done && before->slot == request->slot &&
            before->n_redirects > 0) {
            return true;
        }
    }
    return false;
}

/*
 * The budget: a bucket of tokens, filled by requests and by time, of which asking again takes one.
 * When it is empty what would be asked again waits, in its order, and at the end of its patience
 * goes once more: its last answer is the node's own.
 */
static void retry_earn(struct front *front)
{
    front->retry_tokens += front->config->retry_budget * RETRY_TOKEN / 100;
    if (front->retry_tokens > RETRY_BURST) {
        front->retry_tokens = RETRY_BURST;
    }
}

static bool may_retry(struct request *request, int64_t now_us)
{
    struct front *front = request->front;
    const int64_t since_us = front->retry_filled_at_us;

    if (!request->is_paced) {
        return true;
    }
    front->retry_filled_at_us = now_us;
    if (now_us - since_us > 1000000) {
        front->retry_tokens = RETRY_BURST;
    } else {
        front->retry_tokens += (now_us - since_us) * RETRY_FREE / (1000000 / RETRY_TOKEN);
        if (front->retry_tokens > RETRY_BURST) {
            front->retry_tokens = RETRY_BURST;
        }
    }
    if (front->retry_tokens < RETRY_TOKEN &&
        now_us - request->began_at_us < front->config->request_timeout_ms * 1000 / 2) {
        stats_add(METRIC_retries_paced, 1);
        return false;
    }
    front->retry_tokens -= front->retry_tokens < RETRY_TOKEN ? front->retry_tokens : RETRY_TOKEN;
    request->is_paced = false;
    return true;
}

void relay_on_retry_timer(evutil_socket_t fd, short what, void *arg)
{
    struct front *front = arg;
    struct request *request = front->first_retry;
    const int64_t now_us = clock_now_us();
    bool is_blocked = false;

    (void)fd;
    (void)what;
    front->first_retry = front->last_retry = NULL;
    while (request != NULL) {
        struct request *const next = request->next_retry;

        request->next_retry = NULL;
        /* What stands behind one that waits may be its session's later request: it waits too. */
        is_blocked = is_blocked || request->retry_at_us > now_us || !may_retry(request, now_us);
        if (is_blocked) {
            keep_retry(front, request);
        } else if (large_must_wait(request)) {
            large_wait(request);
        } else if (request->again == AGAIN_RESEND && is_behind_redirected(request)) {
            relay_retry(request);
        } else if (request->again == AGAIN_RESEND) {
            resend(request);
        } else {
            read_again(request);
        }
        request = next;
    }
    arm_retry_timer(front);
}

/* ---- receiving ---- */

/* More of the reply is to come, and was not asked for yet. */
static void take_part(struct request *request, struct link *link, struct bytes part, bool is_last)
{
    request->is_streaming = !is_last;
    request_take_part(request, part);
    /* The session may have been closed over it, and the request be gone with its connection. */
    if (!is_last && link_is_up(link) &&
        (request->lease != NULL || (link->is_left && large_has_link(request, link)))) {
        large_hold(request, link);
    }
    if (is_last && request->lease == NULL && link->is_left) {
        backend_rejoin_link(link);
    }
}

static void on_fence_passed(void *arg)
{
    struct request *request = arg;

    request->is_held = false;
    request_done(request);
}

/* The request was kept for this, whatever became of its reply and its client. */
static void on_early_fence_passed(void *arg)
{
    struct request *request = arg;

    request->is_fencing = request->is_held = false;
    if (request->is_answered) {
        request_done(request);
    } else if (request->session != NULL) {
        session_advance(request->session);
        session_wake(request->session);
    }
}

void relay_fence_early(struct request *request)
{
    if (request->needs_fence && !request->is_part) {
        request->needs_fence = false;
        request->is_fencing = true;
        coherence_fence(&request->front->coherence, request->node, on_early_fence_passed, request);
    }
}

void relay_complete(struct request *request)
{
    if (request->is_fencing) {
        request->is_answered = true;
        return;
    }
    if (request->needs_fence) {
        coherence_fence(&request->front->coherence, request->node, on_fence_passed, request);
        return;
    }
    request_done(request);
}

/* A read behind a retried request: what it shows may be too old. It is asked again. */
static void repeat(struct request *request, struct link *link)
{
    const struct bytes frame = relay_frame(request, link);

    request->must_repeat = false;
    request->is_asking = false;
    if (frame.len == 0) {
        stats_add(METRIC_errors_lost, 1);
        request_fail(request, "ERR nearcached: a read could not be repeated");
        return;
    }
    resend_later(request, frame, NULL);
}

/* The node answers that it cannot say now, and nothing of what it holds. */
static bool says_away(struct bytes line)
{
    return bytes_start_with(line, BYTES("-LOADING")) ||
           bytes_start_with(line, BYTES("-CLUSTERDOWN")) ||
           bytes_start_with(line, BYTES("-MASTERDOWN"));
}

/* The request as it was sent, where that is still known. */
static struct bytes sent_frame(const struct request *request, const struct link *link)
{
    return link->settings.keeps_requests
               ? relay_frame(request, link)
               : bytes_make(request->stored + request->stored_bytes, request->frame_bytes);
}

/* A read that was shown nothing: what tier 1 holds may be all there is (stale-if-error). */
static bool leaves_keys(const struct request *request)
{
    return relay_is_plain_read(request) && !request->is_streaming && !request->must_repeat &&
           config_serves_stale(request->front->config);
}

static void on_reply(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                     bool is_first, bool is_last)
{
    struct request *request = CONTAINER_OF(op, struct request, op);
    bool drops = true;

    if (index + 1 < op->n_replies) {
        return; /* of ASKING or PING */
    }
    if (is_first && is_last && part.ptr[0] == '-' && says_away(part) && leaves_keys(request)) {
        if (read_answer_stale(request, sent_frame(request, link))) {
            return;
        }
        drops = false;
    }
    if (is_first && drops) {
        relay_drop_keys(request);
    }
    if (request->must_repeat && !request->is_streaming) {
        if (is_last) {
            repeat(request, link);
        }
        return;
    }
    if (is_first) {
        const bool is_line = is_last && part.ptr[0] == '-';

        if (is_line && follow(request, link, part)) {
            return;
        }
        if (NC_UNLIKELY(request->shadow != NULL)) {
            dry_take_reply(request, is_last ? part : BYTES(""));
        }
        request->is_held = request->needs_fence;
        if (NC_UNLIKELY(request->is_own_write)) {
            tracking_take_own_write(request, part);
        }
        if (!is_last && resp_is_large(part, request->front->config->large_reply)) {
            large_count(request, METRIC_large_replies);
            if (large_give_way(request, link)) {
                return;
            }
            relay_fence_early(request);
        }
    }
    take_part(request, link, part, is_last);
    if (is_last) {
        return_lease(request);
        relay_complete(request);
    }
}

/* The client has the beginning of a reply whose end will not come: only closing tells it so. */
static void break_off(struct request *request)
{
    stats_add(METRIC_errors_lost, 1);
    if (request->is_part) {
        group_part_failed(request);
    } else if (request->session != NULL) {
        session_close(request->session);
    }
    if (request->is_fencing) {
        request->is_answered = true;
        return;
    }
    request_done(request);
}

void relay_lost(struct request *request, const struct link *link, enum link_loss loss)
{
    if (!leaves_keys(request)) {
        relay_drop_keys(request);
    } else if (read_answer_stale(request, sent_frame(request, link))) {
        return;
    }
    request->is_held = false;
    request->paused_link = NULL;
    if (request->is_streaming) {
        break_off(request);
    } else if (loss == LINK_LOST_UNSENT) {
        stats_add(METRIC_errors_backend, 1);
        request_fail(request, "ERR nearcached: no connection to the backend %s (%s)", link->name,
                     link->error);
    } else if (loss == LINK_LOST_TIMEOUT) {
        stats_add(METRIC_errors_timeout, 1);
        request_fail(request, "ERR nearcached: the backend %s did not answer in time", link->name);
    } else {
        stats_add(METRIC_errors_lost, 1);
        request_fail(request,
                     "ERR nearcached: the connection to the backend %s was lost, the command may "
                     "have been executed",
                     link->name);
    }
}

struct request *relay_request_of(struct link_op *op)
{
    return op->type == &relay_type ? CONTAINER_OF(op, struct request, op) : NULL;
}

static void on_lost(struct link_op *op, struct link *link, enum link_loss loss)
{
    struct request *request = CONTAINER_OF(op, struct request, op);

    if (request->lease != NULL) {
        lease_drop(&request->lease);
    }
    relay_lost(request, link, loss);
}
