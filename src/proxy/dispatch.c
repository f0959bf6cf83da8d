#include "proxy/dispatch.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/stats.h"
#include "cache/hot_keys.h"
#include "coherence/dependencies.h"
#include "proxy/fanout.h"
#include "proxy/large.h"
#include "proxy/local.h"
#include "proxy/mode.h"
#include "proxy/overload.h"
#include "proxy/pause.h"
#include "proxy/pubsub.h"
#include "proxy/read.h"
#include "proxy/relay.h"
#include "proxy/split.h"
#include "proxy/tracking.h"
#include "proxy/transaction.h"

#include <stdio.h>

/* ---- W3 ---- */

bool dispatch_conflicts(const struct session *session, uint64_t hash, uint64_t mask, bool cached)
{
    const uint64_t bit = key_bit(hash);

    if (NC_LIKELY((mask & bit) == 0)) {
        return false;
    }
    for (const struct request *request = session->first; request != NULL; request = request->next) {
        if ((cached ? request->counts_cached : request->counts_relayed) &&
            (request->key_mask & bit) != 0 &&
            (!request->has_one_key || request->key_hash == hash)) {
            return true;
        }
    }
    return false;
}

/* ---- keys and routes ---- */

bool dispatch_is_cluster(const struct front *front)
{
    return front->backend.topology != NULL && front->backend.topology->is_cluster;
}

void dispatch_find_route(const struct session *session, const struct dispatch_call *call,
                         struct dispatch_route *route)
{
    const struct front *front = session->front;
    const bool is_cluster = dispatch_is_cluster(front);

    *route = (struct dispatch_route){0};
    if (call->command == NULL ||
        !command_find_keys(call->command, call->argv, call->argc, &route->keys)) {
        return;
    }
    for (unsigned i = 0; i < route->keys.n; i++) {
        const struct bytes key = call->argv[route->keys.at[i]];
        const uint16_t slot = is_cluster ? command_key_slot(key) : 0;
        const uint64_t hash = cache_hash(key);

        if (i == 0) {
            route->slot = slot;
            route->first_hash = hash;
        }
        route->is_cross_slot = route->is_cross_slot || slot != route->slot;
        route->mask |= key_bit(hash);
        route->is_cached = route->is_cached || config_namespace_of(front->config, key)->cache;
    }
    /*
     * What is not kept itself may be a source of what is; and where nobody else tells of writes, it
     * may become one while this one is under way.
     */
    route->is_cached = route->is_cached ||
                       (route->keys.n > 0 &&
                        (dependencies_are_used(front->coherence.fleet) ||
                         front->coherence.knows_no_writes || front->coherence.n_untold > 0));
    if ((call->command->flags & COMMAND_CHANNEL) != 0) {
        route->is_cached = false;
    }
}

/* W3b: unanswered cached reads of its keys go first. */
static bool must_wait(const struct session *session, const struct dispatch_call *call,
                      const struct dispatch_route *route, bool is_opaque)
{
    if (session->n_cached == 0) {
        return false;
    }
    if (is_opaque) {
        return true;
    }
    if ((session->cached_mask & route->mask) == 0) {
        return false;
    }
    for (unsigned i = 0; i < route->keys.n; i++) {
        if (dispatch_conflicts(session, cache_hash(call->argv[route->keys.at[i]]),
                               session->cached_mask, true)) {
            return true;
        }
    }
    return false;
}

/* Sent to another node, or perhaps to be sent there: by the former map, or by a redirection. */
static bool is_at_another_node(const struct request *before, const struct backend_node *node)
{
    return before->kind != REQUEST_RELAYED || before->node != node->id || before->n_redirects > 0;
}

/*
 * W3a: "behind it" means on the same link. An unanswered request for one of these keys may be on
 * another one: to another node of a cluster, or on the link that was left to a large reply, or on
 * one of its own. What comes behind it waits.
 */
static bool is_elsewhere(const struct session *session, const struct dispatch_route *route,
                         bool is_opaque)
{
    struct backend *backend = &session->front->backend;
    struct backend_node *node = backend_owner(backend, route->slot);
    const uint64_t mask = is_opaque ? UINT64_MAX : route->mask;
    const struct link *link;
    bool is_cluster;

    if ((session->relayed_mask & mask) == 0 || node == NULL) {
        return false;
    }
    is_cluster = backend->topology->is_cluster;
    if (!is_cluster && !dispatch_is_spread(session)) {
        return false;
    }
    link = backend_relay_link(backend, backend_as(backend, node, session->identity),
                              session->proto == 3 ? LINK_RELAY3 : LINK_RELAY2);
    for (const struct request *before = session->first; before != NULL; before = before->next) {
        if (!before->counts_relayed || (before->key_mask & mask) == 0) {
            continue;
        }
        if (is_cluster && is_at_another_node(before, node)) {
            if ((before->key_mask & route->mask) != 0) {
                return true;
            }
        } else if (before->on_link != link) {
            return true;
        }
    }
    return false;
}

/* Its request is large, or its reply probably is. */
static bool is_large(const struct session *session, const struct dispatch_call *call,
                     const struct dispatch_route *route)
{
    const struct front *front = session->front;

    if (call->frame.len > front->config->large_request) {
        return true;
    }
    if (front->large_until_us <= call->now_us || call->command == NULL ||
        (call->command->flags & COMMAND_WRITES) != 0) {
        return false;
    }
    for (unsigned i = 0; i < route->keys.n; i++) {
        if (large_is_noted(front, call->command, cache_hash(call->argv[route->keys.at[i]]),
                           call->now_us)) {
            return true;
        }
    }
    return false;
}

/* A script without keys always meets the same node. */
static uint16_t slot_of_script(const struct session *session, const struct dispatch_call *call)
{
    const struct topology *topology = session->front->backend.topology;

    return topology != NULL && topology->is_cluster && call->argc > 1
               ? command_key_slot(call->argv[1])
               : 0;
}

bool dispatch_is_opaque(const struct session *session, const struct dispatch_call *call)
{
    const struct command *command = call->command;

    if (command == NULL) {
        return true;
    }
    if (command_shows_unnamed(command, call->argv, call->argc)) {
        return true;
    }
    if ((command->flags & COMMAND_OPAQUE) == 0) {
        return false;
    }
    return (command->class != CLASS_SCRIPT && command->class != CLASS_SCRIPT_READ) ||
           session->front->config->script_keys != SCRIPT_KEYS_DECLARED;
}

struct backend_node *dispatch_any_node(const struct front *front)
{
    struct backend_node *node = backend_owner(&front->backend, 0);

    return node != NULL ? node : backend_next_master(&front->backend, 0);
}

/* NULL: it may not cause work now, and was answered. */
static struct request *queue_relayed(struct session *session, const struct dispatch_call *call,
                                     const struct dispatch_route *route)
{
    struct front *front = session->front;
    struct request *request;

    if (NC_UNLIKELY(overload_is_guarded(front)) &&
        !overload_admit(session, call,
                        route->keys.n > 0 ? call->argv[route->keys.at[0]] : BYTES(""))) {
        return NULL;
    }
    stats_add(METRIC_commands_relayed, 1);
    request = request_queue(session, REQUEST_RELAYED, call->command);
    request->is_dry = front->dry.is_next;
    request->shadow = front->dry.shadow;
    if (NC_UNLIKELY(front->guard != 0)) {
        overload_hold(front, request);
    }
    return request;
}

/* That tier 1 would look up, were its namespace cached. EXISTS is that of one key. */
static bool is_cacheable(const struct command *command, unsigned n_keys)
{
    return command != NULL && (command->class == CLASS_CACHED_READ ||
                               (command->class == CLASS_SPLIT_READ && command->merge == MERGE_SUM &&
                                (command->flags & COMMAND_BY_KEY) != 0 && n_keys == 1));
}

/* The first one's namespace is what it is counted under. */
static void set_keys(struct request *request, const struct dispatch_call *call,
                     const struct dispatch_route *route)
{
    const struct config_namespace *ns = config_namespace_of(request->front->config,
                                                            call->argv[route->keys.at[0]]);

    hot_keys_note(HOT_BYTES, route->first_hash, call->argv[route->keys.at[0]], call->frame.len);
    for (unsigned i = 0; i < route->keys.n; i++) {
        const struct bytes key = call->argv[route->keys.at[i]];

        hot_keys_note(HOT_REQUESTS, i == 0 ? route->first_hash : cache_hash(key), key, 1);
    }
    request->slot = route->slot;
    request->key_mask = route->mask;
    request->key_hash = route->first_hash;
    request->has_one_key = route->keys.n == 1;
    request->ns = ns->id;
    if (!ns->cache && is_cacheable(request->command, route->keys.n)) {
        request->outcome = OUTCOME_BYPASS;
        stats_ns_add(ns->id, NS_METRIC_misses_bypass, 1);
    }
}

static enum verdict relay_by(struct session *session, const struct dispatch_call *call,
                             struct dispatch_route *route)
{
    struct front *front = session->front;
    const bool opaque = dispatch_is_opaque(session, call);
    const bool is_apart = is_large(session, call, route);
    const bool flushes = call->command != NULL && (call->command->flags & COMMAND_FLUSHES) != 0;
    struct backend_node *node;
    struct request *request;
    int error = 0;

    if (must_wait(session, call, route, opaque || flushes) ||
        is_elsewhere(session, route, opaque || flushes) || (is_apart && session->first != NULL)) {
        stats_add(METRIC_stalls_order, 1);
        return VERDICT_STALL;
    }
    if (route->is_cross_slot) {
        stats_add(METRIC_errors_crossslot, 1);
        session_error(session, "CROSSSLOT Keys in request don't hash to the same slot");
        return VERDICT_TAKEN;
    }
    if (NC_UNLIKELY(session->tracker != NULL) &&
        tracking_must_wait(session, call->argv, &route->keys)) {
        return VERDICT_STALL;
    }
    request = queue_relayed(session, call, route);
    if (request == NULL) {
        return VERDICT_TAKEN;
    }
    if (is_apart) {
        large_set_apart(request);
    }
    if (route->keys.n > 0) {
        set_keys(request, call, route);
    } else if (opaque) {
        request->slot = slot_of_script(session, call);
    }
    if (opaque || flushes) {
        request->key_mask = UINT64_MAX;
        request->has_one_key = false;
    }
    request->needs_fence = opaque;
    request->drops_all = flushes;
    if (route->is_cached || session->tracker != NULL) {
        error = relay_store_keys(request, call->argv, &route->keys);
    }
    request_count(request, false, true);
    if (error != 0) {
        request_fail(request, "ERR nearcached: out of memory");
        return VERDICT_TAKEN;
    }
    node = route->keys.n > 0 || opaque ? backend_owner(&front->backend, request->slot)
                                       : dispatch_any_node(front);
    relay_send(request, node, call->frame);
    if (NC_UNLIKELY(session->tracker != NULL) && route->keys.n > 0) {
        tracking_note_relayed(session, call->argv, &route->keys);
    }
    return VERDICT_TAKEN;
}

enum verdict dispatch_relay(struct session *session, const struct dispatch_call *call)
{
    struct dispatch_route route;
    enum verdict verdict;

    dispatch_find_route(session, call, &route);
    verdict = relay_by(session, call, &route);
    command_key_list_fini(&route.keys);
    return verdict;
}

enum verdict dispatch_anywhere(struct session *session, const struct dispatch_call *call)
{
    struct request *request = request_queue(session, REQUEST_RELAYED, call->command);

    request_count(request, false, true);
    stats_add(METRIC_commands_relayed, 1);
    relay_send(request, dispatch_any_node(session->front), call->frame);
    return VERDICT_TAKEN;
}

/* ---- by class ---- */

static bool is_login_needed(const struct session *session, const struct command *command)
{
    return !session->is_authed && (command == NULL || (command->flags & COMMAND_NO_AUTH) == 0);
}

enum verdict dispatch_refuse(struct session *session, const char *name, const char *why)
{
    stats_add(METRIC_errors_refused, 1);
    session_error(session, "ERR command '%s' is not supported by nearcached%s", name, why);
    return VERDICT_TAKEN;
}

/* XREAD and XREADGROUP without BLOCK are plain multi-key commands. */
static enum verdict dispatch_pinned(struct session *session, const struct dispatch_call *call)
{
    if (call->command->keys == KEYS_STREAMS &&
        !command_blocks(call->command, call->argv, call->argc)) {
        return dispatch_relay(session, call);
    }
    if (call->command->handler == HANDLER_none) {
        return dispatch_refuse(session, call->command->name, " yet");
    }
    if (NC_UNLIKELY(overload_is_guarded(session->front)) &&
        !overload_admit_briefly(session, call)) {
        return VERDICT_TAKEN;
    }
    return local_dispatch(session, call);
}

static enum verdict dispatch_admin(struct session *session, const struct dispatch_call *call)
{
    if (!session->front->config->admin_commands) {
        return dispatch_refuse(session, call->command->name, " unless admin-commands is on");
    }
    return fanout_dispatch(session, call);
}

static void word_unknown(struct session *session, const struct dispatch_call *call)
{
    char text[160] = "";
    size_t length = 0;

    for (unsigned i = 1; i < call->argc && length < 128; i++) {
        const size_t room = 128 - length;

        snprintf(text + length, sizeof(text) - length, "'%.*s' ",
                 (int)(call->argv[i].len < room ? call->argv[i].len : room),
                 (const char *)call->argv[i].ptr);
        length = strlen(text);
    }
    session_error(session, "ERR unknown command '%.*s', with args beginning with: %s",
                  call->argv[0].len > 128 ? 128 : (int)call->argv[0].len,
                  (const char *)call->argv[0].ptr, text);
}

enum verdict dispatch_malformed(struct session *session, const struct dispatch_call *call)
{
    char name[COMMAND_NAME_MAX + 1];

    if (call->command == NULL) {
        word_unknown(session, call);
        return VERDICT_TAKEN;
    }
    snprintf(name, sizeof(name), "%s", call->command->name);
    for (char *at = name; *at != '\0'; at++) {
        *at = *at == ' ' ? '|' : *at;
    }
    session_error(session, "ERR wrong number of arguments for '%s' command", name);
    return VERDICT_TAKEN;
}

/* Before login nothing reaches the backend: what it would say first is said here. */
static enum verdict refuse_stranger(struct session *session, const struct dispatch_call *call)
{
    stats_add(METRIC_errors_auth, 1);
    if (call->command == NULL || !command_arity_fits(call->command, call->argc)) {
        return dispatch_malformed(session, call);
    }
    session_error(session, "NOAUTH Authentication required.");
    return VERDICT_TAKEN;
}

/*
 * A browser that was made to talk to this port (cross-protocol scripting). Redis closes a
 * connection on these words without an answer; were they passed on, it would close the link that
 * others share.
 */
static bool __attribute__((noinline)) is_http(struct bytes name)
{
    return bytes_equal_nocase(name, BYTES("host:")) || bytes_equal_nocase(name, BYTES("post"));
}

/* Apart: what stands on its stack would be guarded at each request. */
static enum verdict __attribute__((noinline)) close_http(struct session *session)
{
    static _Thread_local struct log_limit limit;
    unsigned suppressed;

    stats_add(METRIC_errors_protocol, 1);
    stats_add(METRIC_clients_closed_protocol, 1);
    if (log_limit_pass(&limit, clock_now_ms(), &suppressed)) {
        log_warn("proxy", "client closed: it speaks HTTP", "client=%s suppressed=%u",
                 session->peer.text, suppressed);
    }
    session_close_after_reply(session);
    return VERDICT_TAKEN;
}

enum verdict dispatch_request(struct session *session, const struct dispatch_call *call)
{
    if (NC_UNLIKELY(call->command == NULL) && is_http(call->argv[0])) {
        return close_http(session);
    }
    if (NC_UNLIKELY(is_login_needed(session, call->command))) {
        return refuse_stranger(session, call);
    }
    if (NC_UNLIKELY(session->front->is_restricted) && mode_refuses(session, call)) {
        return VERDICT_TAKEN;
    }
    if (NC_UNLIKELY(session->front->pause.mode != PAUSE_NONE) && pause_holds(session, call)) {
        return VERDICT_STALL;
    }
    if (NC_UNLIKELY(session->subscriber != NULL) && pubsub_restricts(session, call)) {
        return VERDICT_TAKEN;
    }
    if (NC_UNLIKELY(session->tracker != NULL)) {
        return tracking_dispatch(session, call);
    }
    if (NC_UNLIKELY(session->transaction != NULL)) {
        return transaction_dispatch(session, call);
    }
    return dispatch_by_class(session, call);
}

enum verdict dispatch_by_class(struct session *session, const struct dispatch_call *call)
{
    const struct command *command = call->command;

    if (command == NULL) {
        return dispatch_relay(session, call);
    }
    if (NC_UNLIKELY(!command_arity_fits(command, call->argc) && !session->is_authed)) {
        return refuse_stranger(session, call);
    }
    if (NC_UNLIKELY(!command_arity_fits(command, call->argc)) && command->class != CLASS_PROXY) {
        /* Nothing was executed: the backend words the error, unless another version of it might
         * take what is wrong for this one. */
        return command->class == CLASS_REFUSED ? dispatch_malformed(session, call)
                                               : dispatch_anywhere(session, call);
    }
    switch ((enum command_class)command->class) {
    case CLASS_CACHED_READ:
        return read_dispatch(session, call);
    case CLASS_SPLIT_READ:
    case CLASS_SPLIT_WRITE:
        return split_dispatch(session, call);
    case CLASS_READ:
    case CLASS_WRITE:
    case CLASS_MULTI_READ:
    case CLASS_MULTI_WRITE:
    case CLASS_SCRIPT:
    case CLASS_SCRIPT_READ:
        return dispatch_relay(session, call);
    case CLASS_PINNED:
        return dispatch_pinned(session, call);
    case CLASS_CONNECTION:
    case CLASS_LOCAL:
    case CLASS_PROXY:
        return local_dispatch(session, call);
    case CLASS_ALL_NODES:
        return NC_UNLIKELY(overload_is_guarded(session->front)) &&
                       !overload_admit_briefly(session, call)
                   ? VERDICT_TAKEN
                   : fanout_dispatch(session, call);
    case CLASS_ADMIN:
        return dispatch_admin(session, call);
    case CLASS_REFUSED:
    case N_COMMAND_CLASSES:
        break;
    }
    return dispatch_refuse(session, command->name, "");
}
