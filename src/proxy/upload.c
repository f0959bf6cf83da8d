/*
 * Design: the beginning of the request, as far as the reader has understood it, goes out with
 * link_begin_fill(), and everything behind it as it is read, while a follower looks for its end.
 * The operation is in the link from the first byte on: if the connection breaks it is lost like
 * any other.
 *
 *   asking -> filling -> (whole) the upload is over, its request waits for the reply
 *                 \-> discarding: it was answered or lost before its end; the rest is skipped
 */
#include "proxy/upload.h"

#include "base/mem.h"
#include "base/stats.h"
#include "proxy/large.h"
#include "proxy/mode.h"
#include "proxy/overload.h"
#include "proxy/pause.h"
#include "proxy/relay.h"
#include "proxy/tracking.h"
#include "proxy/transaction.h"
#include "upstream/lease.h"

#include <stdio.h>

#define COLLECT ((size_t)16 * 1024)

#define TEXT_MOVED "-TRYAGAIN nearcached: the slot of this key is moving, try it again\r\n"

enum phase { PHASE_ASKING, PHASE_READY, PHASE_FILLING, PHASE_DISCARDING };

struct upload {
    uint8_t phase;           /* enum phase */
    bool is_asking;          /* ASKING goes before it: the slot is being imported there */
    bool is_full;            /* the window is full */
    struct request *request; /* NULL: answered or lost */
    struct backend_node *node;
    size_t n_understood; /* bytes that stand before what the follower is shown */
    struct resp_follower follower;
    struct link_op probe; /* EXISTS of its first key */
    unsigned n_probes;
    unsigned char *key;
    size_t key_len;
};

static void on_reply(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                     bool is_first, bool is_last);
static void on_lost(struct link_op *op, struct link *link, enum link_loss loss);
static void on_probe_reply(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                           bool is_first, bool is_last);
static void on_probe_lost(struct link_op *op, struct link *link, enum link_loss loss);

static const struct link_op_type upload_type = {on_reply, on_lost};
static const struct link_op_type probe_type = {on_probe_reply, on_probe_lost};

/* ---- may it? ---- */

/* True: all its keys are among the arguments that are here. */
static bool has_its_keys(const struct command *command, const struct resp_partial *partial)
{
    switch ((enum command_keys)command->keys) {
    case KEYS_RANGE:
        return command->first > 0 && command->last >= command->first &&
               (unsigned)command->last < partial->argc;
    case KEYS_COUNT:
    case KEYS_STORE_COUNT:
        return true; /* a count that exceeds the arguments finds no keys */
    default:
        return false;
    }
}

static bool is_relayed_class(const struct command *command)
{
    switch ((enum command_class)command->class) {
    case CLASS_CACHED_READ:
    case CLASS_READ:
    case CLASS_WRITE:
    case CLASS_MULTI_READ:
    case CLASS_MULTI_WRITE:
    case CLASS_SCRIPT:
    case CLASS_SCRIPT_READ:
        return true;
    default:
        return false;
    }
}

/* What it is and touches, when it can be passed on piece by piece. End route with its fini. */
static bool find_route(const struct session *session, const struct resp_partial *partial,
                       struct dispatch_call *call, struct dispatch_route *route)
{
    const struct topology *topology = session->front->backend.topology;

    *route = (struct dispatch_route){0};
    /* Others answer themselves what they do not let through, and need the whole request for it. */
    if (partial->argc == 0 || topology == NULL || session->monitor != NULL ||
        (session->subscriber != NULL && session->proto == 2) || transaction_depth(session) >= 0) {
        return false;
    }
    *call = (struct dispatch_call){
        .command = command_find(partial->argv, partial->argc, topology->learnt),
        .argv = partial->argv,
        .argc = partial->argc,
        .now_us = session->active_at_us,
    };
    if (call->command == NULL || !is_relayed_class(call->command) ||
        !command_arity_fits(call->command, partial->n_all) ||
        !has_its_keys(call->command, partial) || tracking_wants(session, call->command)) {
        return false;
    }
    dispatch_find_route(session, call, route);
    if (route->keys.n == 0 || route->is_cross_slot) {
        command_key_list_fini(&route->keys);
        return false;
    }
    return true;
}

/* ---- the connection ---- */

static bool take_lease(struct upload *upload)
{
    struct request *request = upload->request;
    struct front *front = request->front;

    request->lease = lease_take(&front->backend,
                                backend_as(&front->backend, upload->node, request->identity),
                                request->proto, front->config->request_timeout_ms);
    if (request->lease == NULL) {
        return false;
    }
    request->node = upload->node->id;
    /* It is passed on once, and nothing of it is kept. */
    link_keep_requests(&request->lease->link, false);
    request->lease->user = upload;
    return true;
}

/*
 * It will not be sent, or not be answered by the backend: what still comes of it is skipped. Its
 * operation is in no link any more.
 */
static struct request *let_go(struct upload *upload)
{
    struct request *request = upload->request;

    upload->request = NULL;
    upload->is_full = false;
    upload->phase = PHASE_DISCARDING;
    if (request->lease != NULL) {
        lease_drop(&request->lease);
    }
    return request;
}

static void fail_unreachable(struct upload *upload)
{
    const struct lease *lease = upload->request->lease;
    char why[640];

    stats_add(METRIC_errors_backend, 1);
    snprintf(why, sizeof(why), "ERR nearcached: no connection to the backend %s (%s)",
             lease->link.name, lease->link.error);
    request_fail(let_go(upload), "%s", why);
}

/* ---- asking the node of a cluster first ---- */

static void ask(struct upload *upload)
{
    struct request *request = upload->request;
    const struct bytes key = bytes_make(upload->key, upload->key_len);
    const struct bytes asking[] = {BYTES("ASKING")};
    const struct bytes exists[] = {BYTES("EXISTS"), key};
    struct buffer frame;
    struct bytes parts[1];
    int error = 0;

    if (upload->node != NULL && health_refuses(upload->node->health)) {
        char why[640];

        stats_add(METRIC_errors_backend, 1);
        relay_refusal(upload->node, why, sizeof(why));
        request_fail(let_go(upload), "%s", why);
        return;
    }
    if (upload->node == NULL || !take_lease(upload)) {
        stats_add(METRIC_errors_backend, upload->node == NULL);
        request_fail(let_go(upload), "%s",
                     upload->node == NULL ? "CLUSTERDOWN Hash slot not served"
                                          : "ERR nearcached: all leased-connections are in use");
        return;
    }
    buffer_init(&frame);
    if (upload->is_asking) {
        error = resp_write_request(&frame, asking, 1);
    }
    if (error == 0) {
        error = resp_write_request(&frame, exists, 2);
    }
    parts[0] = buffer_bytes(&frame);
    upload->probe.type = &probe_type;
    upload->probe.collect = LINK_COLLECT_MIN;
    upload->n_probes++;
    if (error == 0) {
        error = link_send(&request->lease->link, request->db, parts, 1, 1U + upload->is_asking,
                          &upload->probe);
    }
    buffer_fini(&frame);
    if (error != 0) {
        fail_unreachable(upload);
    }
}

/* True: the slot is elsewhere, and the node there is asked. */
static bool follow(struct upload *upload, struct bytes line)
{
    struct request *request = upload->request;
    struct front *front = request->front;
    const bool is_ask = bytes_start_with(line, BYTES("-ASK "));

    if ((!is_ask && !bytes_start_with(line, BYTES("-MOVED "))) ||
        upload->n_probes > (unsigned)front->config->max_redirects) {
        return false;
    }
    stats_add(is_ask ? METRIC_redirects_ask : METRIC_redirects_moved, 1);
    if (is_ask) {
        epochs_disturb(cache_epochs(front->proxy->cache), request->slot);
    }
    relay_ask_for_map(front);
    upload->node = relay_named_node(request, line, upload->node);
    upload->is_asking = is_ask;
    lease_return(&request->lease);
    if (upload->node == NULL) {
        request_take_part(request, BYTES(TEXT_MOVED));
        request_done(let_go(upload));
        return true;
    }
    ask(upload);
    return true;
}

static void on_probe_reply(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                           bool is_first, bool is_last)
{
    struct upload *upload = CONTAINER_OF(op, struct upload, probe);
    struct session *session = upload->request->session;

    (void)link;
    (void)is_first;
    if (index + 1 < op->n_replies || !is_last) {
        return;
    }
    if (!follow(upload, part)) {
        /* Whatever else it says, it would say of the request. */
        upload->phase = PHASE_READY;
    }
    session_wake(session);
}

static void on_probe_lost(struct link_op *op, struct link *link, enum link_loss loss)
{
    struct upload *upload = CONTAINER_OF(op, struct upload, probe);

    (void)link;
    (void)loss;
    if (upload->request != NULL) {
        struct session *session = upload->request->session;

        fail_unreachable(upload);
        session_wake(session);
    }
}

/* ---- the reply ---- */

/* The connection is as it was: unless the request is still on its way. */
static void give_back(struct request *request, struct upload *upload)
{
    if (upload != NULL || request->lease->link.is_filling) {
        lease_drop(&request->lease);
    } else {
        lease_return(&request->lease);
    }
}

/* The upload that the request still is the head of, or NULL. */
static struct upload *upload_of(const struct request *request)
{
    struct upload *upload = request->session != NULL ? request->session->upload : NULL;

    return upload != NULL && upload->request == request ? upload : NULL;
}

static void on_reply(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                     bool is_first, bool is_last)
{
    struct request *request = CONTAINER_OF(op, struct request, op);
    struct upload *upload = upload_of(request);

    if (index + 1 < op->n_replies) {
        return; /* of ASKING */
    }
    if (is_first) {
        relay_drop_keys(request);
        request->is_held = request->needs_fence;
        if (NC_UNLIKELY(request->is_own_write)) {
            tracking_take_own_write(request, part);
        }
        if (bytes_start_with(part, BYTES("-MOVED ")) || bytes_start_with(part, BYTES("-ASK "))) {
            relay_ask_for_map(request->front);
            part = BYTES(TEXT_MOVED);
        }
        if (!is_last && resp_is_large(part, request->front->config->large_reply)) {
            large_count(request, METRIC_large_replies);
            relay_fence_early(request);
        }
    }
    request->is_streaming = !is_last;
    request_take_part(request, part);
    if (!is_last) {
        if (link_is_up(link)) {
            large_hold(request, link);
        }
        return;
    }
    if (upload != NULL) {
        /* Before the request was whole: what is left of it is skipped. */
        upload->request = NULL;
        upload->is_full = false;
        upload->phase = PHASE_DISCARDING;
    }
    if (request->lease != NULL) {
        give_back(request, upload);
    }
    relay_complete(request);
}

static void on_lost(struct link_op *op, struct link *link, enum link_loss loss)
{
    struct request *request = CONTAINER_OF(op, struct request, op);
    struct upload *upload = upload_of(request);
    const bool is_whole = upload == NULL && !link->is_filling;

    if (upload != NULL) {
        (void)let_go(upload);
    } else if (request->lease != NULL) {
        lease_drop(&request->lease);
    }
    /* What did not arrive whole was not executed. */
    relay_lost(request, link, is_whole || loss == LINK_LOST_TIMEOUT ? loss : LINK_LOST_UNSENT);
}

/* ---- filling ---- */

static void on_drained(struct link *link)
{
    const struct lease *lease = link->owner;
    struct upload *upload = lease->user;

    if (upload != NULL && upload->request != NULL && upload->is_full) {
        upload->is_full = false;
        session_wake(upload->request->session);
    }
}

/* It is whole: the request waits for its reply like any other. */
static void finish(struct session *session)
{
    struct upload *upload = session->upload;

    session->upload = NULL;
    if (upload->request != NULL) {
        struct link *link = &upload->request->lease->link;

        upload->request->lease->user = NULL;
        link->on_drained = NULL;
        link_end_fill(link);
    }
    mem_free(upload->key);
    mem_free(upload);
}

/* Sends what the reader has understood. */
static void begin_fill(struct upload *upload, struct bytes beginning)
{
    struct request *request = upload->request;
    struct link *link;
    struct bytes parts[2];
    unsigned n = 0;

    if (request->lease == NULL && !take_lease(upload)) {
        request_fail(let_go(upload), "ERR nearcached: all leased-connections are in use");
        return;
    }
    link = &request->lease->link;
    if (upload->is_asking) {
        parts[n++] = BYTES("*1\r\n$6\r\nASKING\r\n");
    }
    parts[n++] = beginning;
    request->op.type = &upload_type;
    request->op.collect = COLLECT;
    request->op.collect_many = large_collect(request->front);
    if (link_begin_fill(link, request->db, parts, n, n, &request->op) != 0) {
        fail_unreachable(upload);
        return;
    }
    link->on_drained = on_drained;
    upload->phase = PHASE_FILLING;
}

/* bytes belong to the request, whether it is still sent or not. */
static void pass_on(struct upload *upload, const struct session *session, struct bytes bytes)
{
    struct link *link;

    if (upload->phase != PHASE_FILLING || bytes.len == 0) {
        return;
    }
    link = &upload->request->lease->link;
    if (link_fill(link, bytes) != 0) {
        lease_drop(&upload->request->lease); /* on_lost() tells the client */
        return;
    }
    if (link_unsent(link) > session->front->config->stream_window) {
        stats_add(METRIC_stalls_request, 1);
        upload->is_full = true;
    }
}

size_t upload_take(struct session *session, struct bytes input, const char **error)
{
    struct upload *upload = session->upload;
    const size_t at = upload->n_understood;
    enum resp_status status;
    size_t used;

    if (upload->phase == PHASE_ASKING) {
        return 0;
    }
    if (upload->phase == PHASE_READY) {
        begin_fill(upload, bytes_make(input.ptr, at));
        if (session->is_closed) {
            return input.len;
        }
    }
    upload->n_understood = 0;
    status = resp_follow(&upload->follower, bytes_make(input.ptr + at, input.len - at),
                         session->front->config->max_bulk_size, &used, error);
    if (status == RESP_BAD) {
        if (upload->request != NULL) {
            /* The only answer is the protocol error. */
            upload->request->is_muted = true;
            lease_drop(&upload->request->lease);
        }
        return input.len;
    }
    pass_on(upload, session, bytes_make(input.ptr + at, used));
    if (status == RESP_OK && !session->is_closed) {
        finish(session);
    }
    return at + used;
}

bool upload_is_full(const struct session *session)
{
    return session->upload->phase == PHASE_ASKING || session->upload->is_full;
}

void upload_end(struct session *session)
{
    struct upload *upload = session->upload;
    struct request *request;

    if (upload == NULL) {
        return;
    }
    request = upload->request;
    session->upload = NULL;
    upload->request = NULL;
    if (request != NULL && upload->phase != PHASE_FILLING) {
        /* Nothing of it was sent: no operation will end it. */
        if (request->lease != NULL) {
            lease_drop(&request->lease);
        }
        request->is_done = true;
    }
    mem_free(upload->key);
    mem_free(upload);
}

/* ---- beginning ---- */

static struct upload *new_upload(struct session *session, const struct resp_partial *partial)
{
    struct upload *upload = mem_alloc(sizeof(*upload));

    resp_follow_begin(&upload->follower, partial);
    upload->n_understood = partial->at;
    session->upload = upload;
    return upload;
}

static void refuse(struct session *session, const struct resp_partial *partial)
{
    stats_add(METRIC_large_requests_refused, 1);
    session_step_reply_mode(session);
    transaction_spoil(session);
    session_error(session, "ERR nearcached: the request exceeds client-input-limit, and is none "
                           "that can be passed on as it arrives");
    new_upload(session, partial)->phase = PHASE_DISCARDING;
}

static void begin(struct session *session, const struct dispatch_call *call,
                  const struct dispatch_route *route, const struct resp_partial *partial)
{
    struct front *front = session->front;
    const struct bytes key = call->argv[route->keys.at[0]];
    struct upload *upload = new_upload(session, partial);
    struct request *request;
    int error = 0;

    session_step_reply_mode(session);
    if (NC_UNLIKELY(overload_is_guarded(front)) && !overload_admit(session, call, key)) {
        upload->phase = PHASE_DISCARDING;
        return;
    }
    if (session->tracker != NULL) {
        tracking_begin_upload(session, call);
    }
    session->last_command = call->command;
    session->n_commands++;
    stats_add(METRIC_commands, 1);
    stats_add(METRIC_commands_relayed, 1);
    request = request_queue(session, REQUEST_RELAYED, call->command);
    upload->request = request;
    if (NC_UNLIKELY(front->guard != 0)) {
        overload_hold(front, request);
    }
    request->slot = route->slot;
    request->ns = config_namespace_of(front->config, key)->id;
    request->key_mask = UINT64_MAX;
    request->needs_fence = dispatch_is_opaque(session, call);
    large_set_apart(request);
    large_count(request, METRIC_large_requests);
    request_count(request, false, true);
    upload->node = backend_owner(&front->backend, route->slot);
    upload->key = mem_try_alloc(key.len + 1);
    if (route->is_cached || session->tracker != NULL) {
        error = relay_store_keys(request, call->argv, &route->keys);
    }
    if (upload->key == NULL || error != 0) {
        request_fail(let_go(upload), "ERR nearcached: out of memory");
        return;
    }
    memcpy(upload->key, key.ptr, key.len);
    upload->key_len = key.len;
    upload->phase = PHASE_READY;
    if (dispatch_is_cluster(front) || upload->node == NULL) {
        upload->phase = PHASE_ASKING;
        ask(upload);
    }
}

enum upload_verdict upload_consider(struct session *session, const struct resp_reader *reader,
                                    struct bytes input, size_t wanted)
{
    const struct config *config = session->front->config;
    const size_t total = input.len + wanted;
    struct resp_partial partial;
    struct dispatch_route route;
    struct dispatch_call call;
    enum upload_verdict verdict = UPLOAD_BEGUN;

    if (NC_LIKELY(total <= config->large_request && total <= config->client_input_limit)) {
        return UPLOAD_NOT;
    }
    resp_reader_peek(reader, input, &partial);
    if (partial.n_all == 0 || !session->is_authed) {
        return UPLOAD_NOT;
    }
    if (!find_route(session, &partial, &call, &route)) {
        if (total <= config->client_input_limit) {
            return UPLOAD_NOT;
        }
        refuse(session, &partial);
        return UPLOAD_BEGUN;
    }
    if (session->first != NULL) {
        stats_add(METRIC_stalls_order, 1);
        command_key_list_fini(&route.keys);
        return UPLOAD_STALL;
    }
    if (NC_UNLIKELY(session->front->is_restricted) && mode_refuses_upload(session, &call)) {
        session_step_reply_mode(session);
        new_upload(session, &partial)->phase = PHASE_DISCARDING;
        command_key_list_fini(&route.keys);
        return UPLOAD_BEGUN;
    }
    call.argc = partial.n_all; /* for who judges the arity */
    if (session->front->pause.mode != PAUSE_NONE && pause_holds(session, &call)) {
        verdict = UPLOAD_STALL;
    } else {
        begin(session, &call, &route, &partial);
    }
    command_key_list_fini(&route.keys);
    return verdict;
}
