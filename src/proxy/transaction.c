/*
 * Design: the backend queues and judges the commands, so that every QUEUED and every error is its
 * own. The proxy adds what it must refuse itself (another slot, what may not reach the backend):
 * the transaction is then dirty, and EXEC sends DISCARD instead.
 */
#include "proxy/transaction.h"

#include "base/mem.h"
#include "base/stats.h"
#include "proxy/as_cluster.h"
#include "proxy/key_run.h"
#include "proxy/large.h"
#include "proxy/overload.h"
#include "proxy/pause.h"
#include "proxy/relay.h"
#include "proxy/tracking.h"
#include "resp/own.h"
#include "upstream/lease.h"

#include <stdlib.h>

/* Commands without a key that may come before the one that picks the node. */
#define EARLY_MAX 10000
#define COLLECT ((size_t)16 * 1024)

#define FRAME_MULTI "*1\r\n$5\r\nMULTI\r\n"
#define MULTI_BYTES (sizeof(FRAME_MULTI) - 1)
#define MULTI_NAME_AT 8

#define TEXT_MOVED "-TRYAGAIN nearcached: the slot of this transaction is moving, try it again\r\n"
#define TEXT_ABORT "-EXECABORT Transaction discarded because of previous errors.\r\n"

/* What a request means to its transaction; request->step. */
enum step { STEP_QUEUE, STEP_WATCH, STEP_UNWATCH, STEP_EXEC, STEP_DISCARD, STEP_ABORT };

struct transaction {
    struct lease *lease; /* NULL: no node was picked yet */
    uint8_t proto;       /* of the lease */
    bool is_multi;       /* between MULTI and EXEC */
    bool is_begun;       /* the backend has the MULTI */
    bool is_dirty;       /* a command was refused here */
    bool is_lost;        /* the connection broke: nothing more may be sent */
    bool has_slot, selects, is_opaque, drops_all;
    bool writes; /* EXEC would write: CLIENT PAUSE WRITE holds it */
    uint16_t slot;
    unsigned n_pending; /* unanswered on the lease */
    unsigned n_queued, n_early;
    unsigned char multi[MULTI_BYTES]; /* as the client spelled it: MONITOR shows it */
    struct buffer early;              /* frames that wait for the first key */
    struct buffer keys;               /* of all queued commands, for the reply rule */
    struct buffer reads;              /* of those that a client which tracks is shown by EXEC */
    size_t n_bytes;                   /* of all queued frames */
};

static void on_reply(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                     bool is_first, bool is_last);
static void on_lost(struct link_op *op, struct link *link, enum link_loss loss);

static const struct link_op_type transaction_type = {on_reply, on_lost};

/* ---- life ---- */

static struct transaction *begin(struct session *session)
{
    struct transaction *transaction = mem_alloc(sizeof(*transaction));

    buffer_init(&transaction->early);
    buffer_init(&transaction->keys);
    buffer_init(&transaction->reads);
    session->transaction = transaction;
    return transaction;
}

/* is_clean: the connection is as it was before. */
static void end(struct session *session, bool is_clean)
{
    struct transaction *transaction = session->transaction;

    session->transaction = NULL;
    if (transaction->lease != NULL && is_clean && !transaction->is_lost) {
        lease_return(&transaction->lease);
    } else if (transaction->lease != NULL) {
        lease_drop(&transaction->lease);
    }
    buffer_fini(&transaction->early);
    buffer_fini(&transaction->keys);
    buffer_fini(&transaction->reads);
    mem_free(transaction);
}

void transaction_end(struct session *session)
{
    if (session->transaction != NULL) {
        stats_add(METRIC_transactions_dropped, session->transaction->is_multi);
        end(session, false);
    }
}

void transaction_lose(struct session *session)
{
    if (session->transaction != NULL) {
        session->transaction->is_lost = true;
    }
}

void transaction_spoil(struct session *session)
{
    if (session->transaction != NULL && session->transaction->is_multi) {
        session->transaction->is_dirty = true;
    }
}

int transaction_depth(const struct session *session)
{
    return session->transaction != NULL && session->transaction->is_multi
               ? (int)session->transaction->n_queued
               : -1;
}

size_t transaction_bytes(const struct session *session)
{
    return session->transaction != NULL ? session->transaction->n_bytes : 0;
}

bool transaction_writes(const struct session *session)
{
    return session->transaction != NULL && session->transaction->writes;
}

/* ---- replies of our own ---- */

static enum verdict say(struct session *session, const char *text)
{
    struct resp_writer writer = session_begin_reply(session);

    resp_put_simple(&writer, text);
    session_end_reply(session, &writer);
    return VERDICT_TAKEN;
}

static enum verdict fail(struct session *session, const char *text)
{
    session_error(session, "%s", text);
    return VERDICT_TAKEN;
}

/* Refused while queuing: EXEC will not execute anything. */
static enum verdict spoil(struct session *session, const char *text)
{
    session->transaction->is_dirty = true;
    return fail(session, text);
}

/* ---- the connection ---- */

static bool is_broken(struct transaction *transaction)
{
    if (transaction->lease != NULL && transaction->lease->is_lost) {
        transaction->is_lost = true;
    }
    return transaction->is_lost;
}

/* False: the session was told why. */
static bool take_lease(struct session *session, struct backend_node *node)
{
    struct transaction *transaction = session->transaction;
    struct front *front = session->front;
    char text[640];

    if (node == NULL) {
        stats_add(METRIC_errors_backend, 1);
        (void)spoil(session, front->backend.topology == NULL
                                 ? "ERR nearcached: the backend was not reached yet"
                                 : "CLUSTERDOWN Hash slot not served");
        return false;
    }
    if (health_refuses(node->health)) {
        stats_add(METRIC_errors_backend, 1);
        relay_refusal(node, text, sizeof(text));
        (void)spoil(session, text);
        return false;
    }
    transaction->lease = lease_take(&front->backend,
                                    backend_as(&front->backend, node, session->identity),
                                    session->proto, front->config->request_timeout_ms);
    if (transaction->lease == NULL) {
        (void)spoil(session, "ERR nearcached: all leased-connections are in use");
        return false;
    }
    transaction->proto = session->proto;
    if (!link_require_multi(&transaction->lease->link)) {
        transaction->is_lost = true;
        (void)spoil(session, "NOPERM nearcached: the backend does not permit MULTI");
        return false;
    }
    return true;
}

static struct request *new_request(struct session *session, const struct dispatch_call *call,
                                   enum step step)
{
    struct request *request = request_queue(session, REQUEST_RELAYED, call->command);

    request->step = (uint8_t)step;
    request->key_mask = UINT64_MAX;
    request->node = session->transaction->lease->node->id;
    request->op.type = &transaction_type;
    request->op.collect = COLLECT;
    request->op.collect_many = large_collect(request->front);
    request_count(request, false, true);
    stats_add(METRIC_commands_relayed, 1);
    return request;
}

/* n_before: replies that come before the one that is the client's. */
static void send_parts(struct session *session, struct request *request, const struct bytes *parts,
                       unsigned n_parts, unsigned n_before, unsigned n_after)
{
    struct transaction *transaction = session->transaction;
    struct link *link = &transaction->lease->link;

    request->n_before = (uint16_t)n_before;
    if (link_send(link, session->db, parts, n_parts, n_before + 1 + n_after, &request->op) != 0) {
        transaction->is_lost = true;
        stats_add(METRIC_errors_backend, 1);
        request_fail(request, "ERR nearcached: no connection to the backend %s (%s)", link->name,
                     link->error);
        return;
    }
    transaction->n_pending++;
}

/* What follows waits for the answer: it may go another way then. */
static void suspend(struct session *session, struct request *request)
{
    request->suspends = true;
    session_suspend(session, false);
}

/* ---- WATCH, UNWATCH ---- */

static enum verdict watch(struct session *session, const struct dispatch_call *call)
{
    struct transaction *transaction = session->transaction;
    struct front *front = session->front;
    struct dispatch_route route;
    bool is_elsewhere;

    if (session->first != NULL) {
        return VERDICT_STALL;
    }
    dispatch_find_route(session, call, &route);
    command_key_list_fini(&route.keys);
    if (transaction == NULL) {
        transaction = begin(session);
    }
    is_elsewhere = route.is_cross_slot ||
                   (transaction->has_slot && transaction->slot != route.slot);
    if (is_elsewhere) {
        stats_add(METRIC_errors_crossslot, 1);
        fail(session, "CROSSSLOT Keys in request don't hash to the same slot");
    } else if (is_broken(transaction)) {
        fail(session, "ERR nearcached: the connection of this transaction was lost");
    } else if (transaction->lease != NULL ||
               take_lease(session, backend_owner(&front->backend, route.slot))) {
        transaction->has_slot = dispatch_is_cluster(front);
        transaction->slot = route.slot;
        send_parts(session, new_request(session, call, STEP_WATCH), &call->frame, 1, 0, 0);
    }
    if (session->transaction != NULL && session->transaction->lease == NULL) {
        end(session, false);
    }
    return VERDICT_TAKEN;
}

static enum verdict unwatch(struct session *session, const struct dispatch_call *call)
{
    struct request *request;

    if (is_broken(session->transaction)) {
        end(session, false);
        return say(session, "OK");
    }
    request = new_request(session, call, STEP_UNWATCH);
    suspend(session, request);
    send_parts(session, request, &call->frame, 1, 0, 0);
    return VERDICT_TAKEN;
}

/* ---- queuing ---- */

/* Why the command may not stand in a transaction, or NULL. */
static const char *refusal_of(const struct session *session, const struct dispatch_call *call)
{
    static const char not_here[] = "ERR Command not allowed inside a transaction";
    const struct config *config = session->front->config;
    const struct command *command = call->command;
    const bool is_cluster = dispatch_is_cluster(session->front);

    switch ((enum command_class)command->class) {
    case CLASS_CONNECTION:
        return command->handler == HANDLER_select && !as_cluster(session->front) ? NULL : not_here;
    case CLASS_PROXY:
    case CLASS_REFUSED:
        return not_here;
    case CLASS_ADMIN:
        return config->admin_commands && (!is_cluster || command->merge == MERGE_FIRST) ? NULL
                                                                                        : not_here;
    case CLASS_PINNED:
        return command->handler == HANDLER_blocking || command->handler == HANDLER_wait ||
                       command->handler == HANDLER_transaction
                   ? NULL
                   : not_here;
    case CLASS_ALL_NODES:
        /* One node would answer for all. */
        return is_cluster && command->merge != MERGE_FIRST ? not_here : NULL;
    case CLASS_LOCAL:
        if (command->handler == HANDLER_config && config->config_command != CONFIG_COMMAND_ON) {
            return not_here;
        }
        return (is_cluster || as_cluster(session->front)) && command->handler == HANDLER_cluster
                   ? not_here
                   : NULL;
    default:
        return NULL;
    }
}

/* Answered here, and sent once a key has picked the node. */
static enum verdict keep_early(struct session *session, const struct dispatch_call *call)
{
    struct transaction *transaction = session->transaction;

    if (transaction->n_early == EARLY_MAX || buffer_append(&transaction->early, call->frame) != 0) {
        return spoil(session, "ERR nearcached: too many commands before the first key");
    }
    transaction->n_early++;
    transaction->n_queued++;
    return say(session, "QUEUED");
}

/* The reply rule at EXEC: all keys that were named. False: no memory. */
static bool keep_keys(const struct session *session, const struct dispatch_call *call,
                      const struct dispatch_route *route)
{
    struct transaction *transaction = session->transaction;
    const bool is_tracked = tracking_wants(session, call->command);

    for (unsigned i = 0; i < route->keys.n; i++) {
        const struct bytes key = call->argv[route->keys.at[i]];

        if ((route->is_cached && key_run_add(&transaction->keys, key) != 0) ||
            (is_tracked && key_run_add(&transaction->reads, key) != 0)) {
            return false;
        }
    }
    return true;
}

/* MULTI and what was kept go before the first command that is sent. Returns their number. */
static unsigned put_beginning(struct transaction *transaction, struct bytes parts[2],
                              unsigned *n_parts)
{
    if (transaction->is_begun) {
        return 0;
    }
    transaction->is_begun = true;
    parts[(*n_parts)++] = bytes_make(transaction->multi, MULTI_BYTES);
    if (transaction->n_early > 0) {
        parts[(*n_parts)++] = buffer_bytes(&transaction->early);
    }
    return 1 + transaction->n_early;
}

static enum verdict send_queued(struct session *session, const struct dispatch_call *call,
                                const struct dispatch_route *route)
{
    struct transaction *transaction = session->transaction;
    struct bytes parts[3];
    unsigned n_parts = 0, n_before;

    if (!keep_keys(session, call, route)) {
        return spoil(session, "ERR nearcached: out of memory");
    }
    n_before = put_beginning(transaction, parts, &n_parts);
    parts[n_parts++] = call->frame;
    transaction->n_queued++;
    send_parts(session, new_request(session, call, STEP_QUEUE), parts, n_parts, n_before, 0);
    return VERDICT_TAKEN;
}

/* Routes it; the first key picks the node. */
static enum verdict queue_by(struct session *session, const struct dispatch_call *call,
                             const struct dispatch_route *route)
{
    struct transaction *transaction = session->transaction;
    struct front *front = session->front;
    const bool has_keys = route->keys.n > 0;

    if (route->is_cross_slot ||
        (has_keys && transaction->has_slot && route->slot != transaction->slot)) {
        stats_add(METRIC_errors_crossslot, 1);
        return spoil(session, "CROSSSLOT Keys in request don't hash to the same slot");
    }
    if (has_keys && !transaction->has_slot && dispatch_is_cluster(front)) {
        transaction->has_slot = true;
        transaction->slot = route->slot;
    }
    if (transaction->lease == NULL && !has_keys && dispatch_is_cluster(front)) {
        return keep_early(session, call);
    }
    if (transaction->lease == NULL &&
        !take_lease(session, backend_owner(&front->backend, route->slot))) {
        return VERDICT_TAKEN;
    }
    return send_queued(session, call, route);
}

static void note_effects(struct session *session, const struct dispatch_call *call)
{
    struct transaction *transaction = session->transaction;
    const struct command *command = call->command;

    transaction->n_bytes += call->frame.len;
    transaction->is_opaque = transaction->is_opaque || dispatch_is_opaque(session, call);
    if (command != NULL) {
        transaction->writes = transaction->writes || pause_may_write(call);
        transaction->drops_all = transaction->drops_all ||
                                 (command->flags & COMMAND_FLUSHES) != 0 ||
                                 command->class == CLASS_ADMIN;
        transaction->selects = transaction->selects || command->handler == HANDLER_select;
    }
}

static enum verdict queue(struct session *session, const struct dispatch_call *call)
{
    struct transaction *transaction = session->transaction;
    const bool is_whole = call->command != NULL && command_arity_fits(call->command, call->argc);
    struct dispatch_route route;
    enum verdict verdict;

    if (is_broken(transaction)) {
        return spoil(session, "ERR nearcached: the connection of this transaction was lost");
    }
    if (!is_whole && transaction->lease == NULL && dispatch_is_cluster(session->front)) {
        transaction->is_dirty = true;
        return dispatch_malformed(session, call);
    }
    if (is_whole && refusal_of(session, call) != NULL) {
        stats_add(METRIC_errors_refused, 1);
        return spoil(session, refusal_of(session, call));
    }
    if (transaction->n_bytes + call->frame.len > session->front->config->client_input_limit) {
        return spoil(session, "ERR nearcached: the transaction exceeds client-input-limit");
    }
    if (NC_UNLIKELY((session->front->guard & GUARD_SHED) != 0 || mem_is_short())) {
        stats_add(METRIC_errors_memory, 1);
        return spoil(session, OVERLOAD_TEXT);
    }
    note_effects(session, call);
    dispatch_find_route(session, call, &route);
    verdict = queue_by(session, call, &route);
    command_key_list_fini(&route.keys);
    return verdict;
}

/* ---- EXEC, DISCARD ---- */

static enum verdict abort_here(struct session *session)
{
    stats_add(METRIC_transactions_aborted, 1);
    end(session, false); /* a connection that was taken has a WATCH */
    return fail(session, "EXECABORT Transaction discarded because of previous errors.");
}

/* Nothing was queued at any node. */
static enum verdict exec_nothing(struct session *session)
{
    struct resp_writer writer;

    stats_add(METRIC_transactions, 1);
    end(session, false);
    writer = session_begin_reply(session);
    resp_put_array(&writer, 0);
    session_end_reply(session, &writer);
    return VERDICT_TAKEN;
}

/* The backend is to forget what it queued. */
static enum verdict send_discard(struct session *session, const struct dispatch_call *call,
                                 enum step step)
{
    const struct bytes frame = step == STEP_DISCARD ? call->frame : BYTES(OWN_DISCARD);
    struct request *request = new_request(session, call, step);

    suspend(session, request);
    send_parts(session, request, &frame, 1, 0, 0);
    return VERDICT_TAKEN;
}

static enum verdict exec(struct session *session, const struct dispatch_call *call)
{
    struct transaction *transaction = session->transaction;
    struct bytes parts[4];
    unsigned n_parts = 0, n_before;
    struct request *request;

    if (is_broken(transaction)) {
        return abort_here(session);
    }
    if (transaction->is_dirty) {
        return transaction->is_begun ? send_discard(session, call, STEP_ABORT)
                                     : abort_here(session);
    }
    if (transaction->lease == NULL && transaction->n_early == 0) {
        return exec_nothing(session);
    }
    if (tracking_must_wait_for_exec(session, buffer_bytes(&transaction->reads))) {
        return VERDICT_STALL;
    }
    if (session->is_closed) {
        return VERDICT_TAKEN;
    }
    if (transaction->lease == NULL && !take_lease(session, dispatch_any_node(session->front))) {
        end(session, false);
        return VERDICT_TAKEN;
    }
    request = new_request(session, call, STEP_EXEC);
    request->needs_fence = transaction->is_opaque;
    request->drops_all = transaction->drops_all;
    suspend(session, request);
    if (request_store(request, buffer_bytes(&transaction->keys)) != 0) {
        end(session, false);
        request_fail(request, "ERR nearcached: out of memory");
        return VERDICT_TAKEN;
    }
    n_before = put_beginning(transaction, parts, &n_parts);
    parts[n_parts++] = call->frame;
    if (transaction->selects) {
        /* Which database it stands in now, the connection says itself. */
        parts[n_parts++] = BYTES(OWN_CLIENT_INFO);
    }
    send_parts(session, request, parts, n_parts, n_before, transaction->selects);
    /* The session may be closed over either, and the transaction gone. */
    if (session->transaction != NULL) {
        tracking_note_exec(session, buffer_bytes(&session->transaction->reads));
    }
    if (session->transaction != NULL && session->transaction->is_lost) {
        end(session, false);
    }
    return VERDICT_TAKEN;
}

static enum verdict discard(struct session *session, const struct dispatch_call *call)
{
    stats_add(METRIC_transactions_dropped, 1);
    if (session->transaction->is_begun && !is_broken(session->transaction)) {
        return send_discard(session, call, STEP_DISCARD);
    }
    /* Closing the connection ends its WATCH as well. */
    end(session, false);
    return say(session, "OK");
}

/* ---- replies ---- */

static bool is_moved(struct bytes part)
{
    return bytes_start_with(part, BYTES("-MOVED ")) || bytes_start_with(part, BYTES("-ASK "));
}

static void take_part(struct request *request, struct bytes part, bool is_first)
{
    if (is_first && is_moved(part)) {
        relay_ask_for_map(request->front);
        part = BYTES(TEXT_MOVED);
    }
    request_take_part(request, part);
}

static void count_result(struct bytes part)
{
    const bool is_aborted = part.ptr[0] == '-' || part.ptr[0] == '_' ||
                            bytes_start_with(part, BYTES("*-1"));

    stats_add(is_aborted ? METRIC_transactions_aborted : METRIC_transactions, 1);
}

static void learn_database(struct session *session, struct bytes info)
{
    static const char field[] = " db=";
    const unsigned char *at = memmem(info.ptr, info.len, field, sizeof(field) - 1);

    if (at != NULL && session != NULL) {
        session_set_db(session, (uint32_t)strtoul((const char *)at + sizeof(field) - 1, NULL, 10));
    }
}

/* The last reply to EXEC, DISCARD or UNWATCH has come: the transaction is over. */
static void finish(struct request *request)
{
    struct session *session = request->session;

    if (session != NULL && session->transaction != NULL) {
        end(session, !session->transaction->selects);
    }
    relay_complete(request);
}

/* Of EXEC's reply, which may be large. */
static void take_exec_part(struct request *request, struct link *link, struct bytes part,
                           bool is_first, bool is_last)
{
    request->is_streaming = !is_last;
    if (is_first && !is_last && resp_is_large(part, request->front->config->large_reply)) {
        large_count(request, METRIC_large_replies);
    }
    take_part(request, part, is_first);
    /* The session may have been closed over it, and its connection with it. */
    if (!is_last && link_is_up(link)) {
        large_hold(request, link);
    }
}

static void on_exec_reply(struct request *request, struct link *link, unsigned index,
                          struct bytes part, bool is_first, bool is_last)
{
    const bool is_all = is_last && index + 1 == request->op.n_replies;

    if (index > request->n_before) {
        learn_database(request->session, part);
    } else {
        if (is_first) {
            relay_drop_keys(request);
            request->is_held = request->needs_fence;
            count_result(part);
        }
        take_exec_part(request, link, part, is_first, is_last);
    }
    if (is_all) {
        finish(request);
    }
}

/* MULTI was accepted when the connection came up, and is not any more: what follows would run. */
static bool is_multi_refused(const struct request *request, unsigned index, struct bytes part)
{
    return request->n_before > 0 && index == 0 && part.ptr[0] == '-';
}

/* UNWATCH or DISCARD is not permitted: the connection is still in what it should have left. */
static void note_refusal(struct session *session, struct bytes part)
{
    if (part.ptr[0] == '-' && session != NULL) {
        transaction_lose(session);
    }
}

static void on_reply(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                     bool is_first, bool is_last)
{
    struct request *request = CONTAINER_OF(op, struct request, op);
    struct session *session = request->session;
    const bool is_all = is_last && index + 1 == op->n_replies;

    if (is_all && session != NULL && session->transaction != NULL) {
        session->transaction->n_pending--;
    }
    if (index < request->n_before) {
        if (is_multi_refused(request, index, part)) {
            link_close(link, "MULTI was refused");
        }
        return;
    }
    switch ((enum step)request->step) {
    case STEP_EXEC:
        on_exec_reply(request, link, index, part, is_first, is_last);
        return;
    case STEP_QUEUE:
    case STEP_WATCH:
        take_part(request, part, is_first);
        if (is_all) {
            request_done(request);
        }
        return;
    case STEP_ABORT:
        note_refusal(session, part);
        stats_add(METRIC_transactions_aborted, 1);
        request_take_part(request, BYTES(TEXT_ABORT));
        finish(request);
        return;
    case STEP_UNWATCH:
    case STEP_DISCARD:
        note_refusal(session, part);
        request_take_part(request, part);
        finish(request);
        return;
    }
}

static void on_lost(struct link_op *op, struct link *link, enum link_loss loss)
{
    struct request *request = CONTAINER_OF(op, struct request, op);
    struct session *session = request->session;
    struct transaction *transaction = session != NULL ? session->transaction : NULL;

    if (transaction != NULL) {
        transaction->n_pending--;
        transaction->is_lost = true;
    }
    switch ((enum step)request->step) {
    case STEP_QUEUE:
    case STEP_WATCH:
        relay_lost(request, link, loss);
        return;
    case STEP_EXEC:
        if (transaction != NULL) {
            end(session, false);
        }
        if (loss != LINK_LOST_UNSENT) {
            relay_lost(request, link, loss);
            return;
        }
        request->is_held = request->needs_fence = false;
        request_take_part(request, BYTES(TEXT_ABORT));
        break;
    case STEP_ABORT:
        request_take_part(request, BYTES(TEXT_ABORT));
        break;
    case STEP_UNWATCH:
    case STEP_DISCARD:
        /* The loss of the connection has done it. */
        request_take_part(request, BYTES("+OK\r\n"));
        break;
    }
    finish(request);
}

/* ---- dispatch ---- */

enum verb { VERB_OTHER, VERB_MULTI, VERB_EXEC, VERB_DISCARD, VERB_WATCH, VERB_UNWATCH };

static enum verb verb_of(const struct dispatch_call *call)
{
    static const char *const names[] = {"", "multi", "exec", "discard", "watch", "unwatch"};

    if (call->command == NULL || call->command->handler != HANDLER_transaction ||
        !command_arity_fits(call->command, call->argc)) {
        return VERB_OTHER;
    }
    for (unsigned verb = VERB_MULTI; verb <= VERB_UNWATCH; verb++) {
        if (strcmp(call->command->name, names[verb]) == 0) {
            return (enum verb)verb;
        }
    }
    return VERB_OTHER;
}

static enum verdict multi(struct session *session, const struct dispatch_call *call)
{
    struct transaction *transaction = session->transaction;

    /* The connection changes: the former ones owe nothing then. */
    if (session->first != NULL) {
        return VERDICT_STALL;
    }
    if (transaction == NULL) {
        transaction = begin(session);
    } else if (transaction->proto != session->proto) {
        transaction->is_lost = true; /* it answers in the client's former protocol */
    }
    memcpy(transaction->multi, FRAME_MULTI, MULTI_BYTES);
    memcpy(transaction->multi + MULTI_NAME_AT, call->argv[0].ptr, call->argv[0].len);
    transaction->is_multi = true;
    return say(session, "OK");
}

static enum verdict dispatch_outside(struct session *session, const struct dispatch_call *call)
{
    const struct transaction *transaction = session->transaction;

    /* What follows a WATCH must not be read before it. */
    if (transaction != NULL && transaction->n_pending > 0) {
        return VERDICT_STALL;
    }
    switch (verb_of(call)) {
    case VERB_MULTI:
        return multi(session, call);
    case VERB_WATCH:
        return watch(session, call);
    case VERB_UNWATCH:
        return transaction == NULL ? say(session, "OK") : unwatch(session, call);
    case VERB_EXEC:
        return fail(session, "ERR EXEC without MULTI");
    case VERB_DISCARD:
        return fail(session, "ERR DISCARD without MULTI");
    case VERB_OTHER:
        break;
    }
    /* W5: not from tier 1. */
    return call->command != NULL && call->command->class == CLASS_CACHED_READ
               ? dispatch_relay(session, call)
               : dispatch_by_class(session, call);
}

enum verdict transaction_dispatch(struct session *session, const struct dispatch_call *call)
{
    if (session->transaction == NULL || !session->transaction->is_multi) {
        return dispatch_outside(session, call);
    }
    switch (verb_of(call)) {
    case VERB_MULTI:
        return fail(session, "ERR MULTI calls can not be nested");
    case VERB_WATCH:
        return fail(session, "ERR WATCH inside MULTI is not allowed");
    case VERB_EXEC:
        return exec(session, call);
    case VERB_DISCARD:
        return discard(session, call);
    case VERB_UNWATCH:
    case VERB_OTHER:
        break;
    }
    if (call->command != NULL &&
        (call->command->handler == HANDLER_quit || call->command->handler == HANDLER_reset)) {
        return dispatch_by_class(session, call);
    }
    return queue(session, call);
}
