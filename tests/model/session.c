/*
 * session.c - requests from the moment they are looked at to the release of their answers
 *
 * A request that has to wait is one that cannot be issued in this state: the session's
 * further input is not looked at. So only those exist that the order rules let through,
 * and those whose flight was lost, which are parked until the rules let them through again.
 */
#include "model.h"

#include <string.h>

unsigned session_slot(const struct world *world, unsigned session, unsigned i)
{
    return (world->state.sessions[session].n_released + i) % world->config->pipeline;
}

static struct request *request_at(struct world *world, unsigned session, unsigned i)
{
    return &world->state.sessions[session].requests[session_slot(world, session, i)];
}

static struct request *request_of(struct world *world, unsigned ref)
{
    return &world->state.sessions[ref / MAX_PIPELINE].requests[ref % MAX_PIPELINE];
}

static unsigned worker_of(const struct world *world, unsigned ref)
{
    return world->config->worker[ref / MAX_PIPELINE];
}

static unsigned n_open(const struct session *session)
{
    return (unsigned)(session->n_issued - session->n_released);
}

static bool is_opaque(const struct request *request)
{
    return request->kind == KIND_OPAQUE_WRITE || request->kind == KIND_OPAQUE_READ;
}

static bool is_write(const struct request *request)
{
    return request->kind == KIND_WRITE || request->kind == KIND_OPAQUE_WRITE;
}

/* An opaque command touches every key. */
static bool may_share_key(const struct world *world, const struct request *a,
                          const struct request *b)
{
    if (is_opaque(a) || is_opaque(b)) {
        return has_rule(world, RULE_W3_OPAQUE);
    }
    return a->key == b->key;
}

static bool is_open_cached(const struct request *request)
{
    return request->state == REQUEST_PARKED || request->state == REQUEST_WAITING ||
           request->state == REQUEST_LIMBO || request->state == REQUEST_MAILED;
}

static bool is_open_relayed(const struct world *world, const struct request *request)
{
    return request->state == REQUEST_RELAYED ||
           (request->state == REQUEST_WITHHELD && has_rule(world, RULE_W3A_WITHHELD));
}

/* Release */

static void release_write(struct world *world, struct session *session, struct request *request)
{
    struct state *state = &world->state;
    uint8_t *last = &session->last[request->key];
    if (*last >= request->version) {
        world->broken |= PROPERTY_I8;
    }
    *last = request->version;
    if (state->acked[request->key] < request->version) {
        state->acked[request->key] = request->version;
    }
    if (world->config->max_age > 0 && state->acked_ago[request->key][0] < request->version) {
        state->acked_ago[request->key][0] = request->version;
    }
}

static void release_read(struct world *world, struct session *session, struct request *request)
{
    uint8_t *last = &session->last[request->key];
    if (request->version < request->floor) {
        world->broken |= PROPERTY_I1;
    }
    if (request->version < *last) {
        world->broken |= PROPERTY_I4;
    }
    if (request->version < request->old_floor) {
        world->broken |= PROPERTY_I3;
    }
    if (*last < request->version) {
        *last = request->version;
    }
}

/* Answers leave in order; the checks are made here. */
static void release(struct world *world, unsigned index)
{
    struct session *session = &world->state.sessions[index];
    while (n_open(session) > 0) {
        struct request *request = request_at(world, index, 0);
        if (request->state == REQUEST_ANSWERED) {
            if (is_write(request)) {
                release_write(world, session, request);
            } else {
                release_read(world, session, request);
            }
        } else if (request->state != REQUEST_FAILED) {
            break;
        }
        *request = (struct request){0};
        session->n_released++;
    }
    if (session->n_released == world->config->n_requests[index]) {
        memset(session->last, 0, sizeof(session->last));
    }
}

static void answer(struct world *world, unsigned ref)
{
    struct request *request = request_of(world, ref);
    request->state = REQUEST_ANSWERED;
    request->flight = 0;
    release(world, ref / MAX_PIPELINE);
}

/* Fence */

static void begin_fence(struct world *world, unsigned ref)
{
    struct state *state = &world->state;
    unsigned worker = worker_of(world, ref);
    struct request *request = request_of(world, ref);
    if (state->link[worker] != LINK_DOWN) {
        queue_push(&state->track_out[worker], ITEM_PING, ref);
        request->fence_links |= (uint8_t)(1U << worker);
    }
    if (has_rule(world, RULE_FENCE_ALL)) {
        queue_push(&state->mail[other_worker(worker)], ITEM_ASK, ref);
        request->fence_links |= (uint8_t)(1U << other_worker(worker));
    }
    note(world, EVENT_FENCE);
}

static void withhold(struct world *world, unsigned ref)
{
    struct request *request = request_of(world, ref);
    if (has_rule(world, RULE_FENCE) && has_rule(world, RULE_FENCE_AFTER)) {
        begin_fence(world, ref);
    }
    request->state = REQUEST_WITHHELD;
    if (request->fence_links == 0) {
        answer(world, ref);
    }
}

void session_fenced(struct world *world, unsigned ref, unsigned link)
{
    struct request *request = request_of(world, ref);
    request->fence_links &= (uint8_t) ~(1U << link);
    if (request->state == REQUEST_WITHHELD && request->fence_links == 0) {
        answer(world, ref);
    }
}

/* Relay */

static void relay(struct world *world, unsigned session, struct request *request)
{
    unsigned ref = request_ref(session,
                               (unsigned)(request - world->state.sessions[session].requests));
    request->state = REQUEST_RELAYED;
    queue_push(&world->state.relay_out[world->config->worker[session]], ITEM_RELAYED, ref);
    note(world, EVENT_RELAY);
    if (request->kind == KIND_WRITE && !has_rule(world, RULE_WRITE_AT_REPLY)) {
        tier_invalidate(&world->state, request->key, true, true);
    }
    if (is_opaque(request) && has_rule(world, RULE_FENCE) && !has_rule(world, RULE_FENCE_AFTER)) {
        begin_fence(world, ref);
    }
}

/* What every reply on a relay link does before a byte of it goes to the client. */
static void apply_reply_rule(struct world *world, const struct request *request)
{
    if (is_opaque(request)) {
        return;
    }
    if (!is_write(request)) {
        tier_invalidate(&world->state, request->key, has_rule(world, RULE_READ_DROP),
                        has_rule(world, RULE_READ_VOID));
    } else if (has_rule(world, RULE_WRITE_AT_REPLY)) {
        tier_invalidate(&world->state, request->key, has_rule(world, RULE_WRITE_DROP),
                        has_rule(world, RULE_WRITE_VOID));
    }
}

void session_relay_reply(struct world *world, unsigned ref)
{
    const struct request *request = request_of(world, ref);
    apply_reply_rule(world, request);
    if (is_opaque(request)) {
        withhold(world, ref);
    } else {
        answer(world, ref);
    }
}

void session_fail(struct world *world, unsigned ref)
{
    struct request *request = request_of(world, ref);
    apply_reply_rule(world, request);
    request->state = REQUEST_FAILED;
    request->fence_links = 0;
    release(world, ref / MAX_PIPELINE);
}

/* Look-up */

static bool is_own_live_flight(const struct world *world, unsigned session,
                               const struct request *request)
{
    const struct flight *flight = &world->state.flights[request->flight];
    return request->state == REQUEST_WAITING && flight->state == FLIGHT_LIVE &&
           (flight->owner == session + 1 || !has_rule(world, RULE_W3C_OWN));
}

/*
 * A cached read behind unanswered cached reads of its session and key (W3c): joins the
 * flight of the last of them; or begins one behind flights that the session itself began,
 * which are all on one link and in order; or waits.
 */
static bool place_behind_cached(struct world *world, unsigned session, unsigned position,
                                unsigned choice)
{
    struct request *request = request_at(world, session, position);
    bool may_begin = choice == 0 && tier_can_begin_behind(world, request);
    bool is_last = true;
    for (unsigned i = position; i-- > 0;) {
        const struct request *earlier = request_at(world, session, i);
        if (!is_open_cached(earlier) || !may_share_key(world, earlier, request)) {
            continue;
        }
        if (earlier->state == REQUEST_WAITING &&
            tier_is_joinable(world, earlier->flight, request) &&
            (is_last || !has_rule(world, RULE_W3C_LAST))) {
            unsigned flight = earlier->flight;
            if (!has_rule(world, RULE_ONE_FLIGHT) && choice > 0) {
                flight = choice - 1;
            }
            if (!tier_is_joinable(world, flight, request)) {
                return false;
            }
            tier_join(world, request, flight);
            return true;
        }
        may_begin = may_begin && is_own_live_flight(world, session, earlier);
        is_last = false;
    }
    if (may_begin && tier_begin(world, session, request)) {
        note(world, EVENT_PIPELINED);
        return true;
    }
    return false;
}

struct earlier {
    bool has_cached;
    bool has_relayed;
};

static struct earlier look_earlier(struct world *world, unsigned session, unsigned position)
{
    struct request *request = request_at(world, session, position);
    struct earlier found = {false, false};
    for (unsigned i = 0; i < position; i++) {
        const struct request *earlier = request_at(world, session, i);
        if (!may_share_key(world, earlier, request)) {
            continue;
        }
        if (is_open_relayed(world, earlier)) {
            found.has_relayed |= has_rule(world,
                                          is_write(earlier) ? RULE_W3A_WRITE : RULE_W3A_READ);
        }
        bool is_lost = earlier->state == REQUEST_PARKED || earlier->state == REQUEST_LIMBO;
        if (is_open_cached(earlier) && (!is_lost || has_rule(world, RULE_LOST_ORDER))) {
            found.has_cached = true;
        }
    }
    return found;
}

/* Sends, joins or answers a request as W3 allows; false where it has to wait. */
static bool place(struct world *world, unsigned session, unsigned position, unsigned choice)
{
    struct request *request = request_at(world, session, position);
    struct earlier earlier = look_earlier(world, session, position);
    bool must_wait_to_relay = earlier.has_cached && has_rule(world, RULE_W3B);
    if (request->kind != KIND_READ || earlier.has_relayed) {
        if (must_wait_to_relay || choice > 0) {
            return false;
        }
        relay(world, session, request);
        return true;
    }
    if (earlier.has_cached && has_rule(world, RULE_W3C)) {
        return place_behind_cached(world, session, position, choice);
    }
    switch (tier_lookup(world, session, request, choice)) {
    case LOOK_HIT:
        answer(world, request_ref(session, session_slot(world, session, position)));
        return true;
    case LOOK_WAIT:
        return true;
    case LOOK_RELAY:
        if (must_wait_to_relay) {
            return false;
        }
        relay(world, session, request);
        return true;
    case LOOK_DISABLED:
        break;
    }
    return false;
}

static struct request new_request(const struct world *world, char letter)
{
    const struct state *state = &world->state;
    struct request request = {0};
    request.key = letter >= 'A' && letter <= 'Z';
    switch (letter | 0x20) {
    case 's':
        request.view = 1;
        request.kind = KIND_READ;
        break;
    case 'r':
        request.kind = KIND_READ;
        break;
    case 'u':
        request.kind = KIND_RELAYED_READ;
        break;
    case 'w':
        request.kind = KIND_WRITE;
        break;
    case 'o':
        request.kind = KIND_OPAQUE_WRITE;
        break;
    default:
        request.kind = KIND_OPAQUE_READ;
        break;
    }
    if (!is_write(&request)) {
        request.floor = state->acked[request.key];
        request.old_floor = world->config->max_age > 0
                                ? state->acked_ago[request.key][world->config->max_age + 1]
                                : 0;
    }
    return request;
}

static bool has_parked(struct world *world, unsigned session)
{
    for (unsigned i = 0; i < n_open(&world->state.sessions[session]); i++) {
        if (request_at(world, session, i)->state == REQUEST_PARKED) {
            return true;
        }
    }
    return false;
}

bool session_issue(struct world *world, unsigned index, unsigned menu_entry, unsigned choice)
{
    const struct config *config = world->config;
    struct session *session = &world->state.sessions[index];
    unsigned position = n_open(session);
    if (session->n_issued == config->n_requests[index] || position == config->pipeline ||
        has_parked(world, index)) {
        return false;
    }
    unsigned entry = config->is_script[index] ? session->n_issued : menu_entry;
    session->n_issued++;
    *request_at(world, index, position) = new_request(world, config->menu[index][entry]);
    return place(world, index, position, choice);
}

bool session_look_again(struct world *world, unsigned session, unsigned slot, unsigned choice)
{
    unsigned position = 0;
    while (session_slot(world, session, position) != slot) {
        if (request_at(world, session, position)->state == REQUEST_PARKED &&
            has_rule(world, RULE_LOST_ORDER)) {
            return false;
        }
        position++;
    }
    request_at(world, session, position)->flight = 0;
    return place(world, session, position, choice);
}

/* Ends of flights */

void session_give(struct world *world, unsigned worker, unsigned flight)
{
    struct state *state = &world->state;
    for (unsigned session = 0; session < world->config->n_sessions; session++) {
        unsigned n = n_open(&state->sessions[session]);
        for (unsigned i = 0; i < n; i++) {
            struct request *request = request_at(world, session, i);
            if (request->state != REQUEST_WAITING || request->flight != flight) {
                continue;
            }
            request->version = state->flights[flight].version;
            request->flight = 0;
            if (world->config->worker[session] == worker) {
                request->state = REQUEST_ANSWERED;
                continue;
            }
            request->state = REQUEST_MAILED;
            queue_push(&state->mail[other_worker(worker)], ITEM_ANSWER,
                       request_ref(session, session_slot(world, session, i)));
            note(world, EVENT_MAILED);
        }
        release(world, session);
    }
}

void session_lose(struct world *world, unsigned worker, uint32_t flights)
{
    struct state *state = &world->state;
    for (unsigned session = 0; session < world->config->n_sessions; session++) {
        for (unsigned i = 0; i < n_open(&state->sessions[session]); i++) {
            struct request *request = request_at(world, session, i);
            if (request->state != REQUEST_WAITING || (flights >> request->flight & 1) == 0) {
                continue;
            }
            request->flight = 0;
            note(world, EVENT_LOST);
            if (world->config->worker[session] == worker) {
                request->state = REQUEST_PARKED;
                continue;
            }
            request->state = REQUEST_LIMBO;
            queue_push(&state->mail[other_worker(worker)], ITEM_LOST,
                       request_ref(session, session_slot(world, session, i)));
        }
    }
}

void session_mailed(struct world *world, unsigned ref)
{
    answer(world, ref);
}

bool session_give_up(struct world *world, unsigned session, unsigned slot)
{
    const struct request first = world->state.sessions[session].requests[slot];
    bool is_reached = false;
    for (unsigned i = 0; i < n_open(&world->state.sessions[session]); i++) {
        struct request *request = request_at(world, session, i);
        bool is_first = session_slot(world, session, i) == slot;
        is_reached |= is_first;
        if (request->key != first.key || !is_open_cached(request)) {
            continue;
        }
        if (!is_reached && request->state != REQUEST_MAILED) {
            return false;
        }
        if (is_first || (is_reached && request->state == REQUEST_WAITING &&
                         has_rule(world, RULE_GIVE_UP_ALL))) {
            request->flight = 0;
            relay(world, session, request);
        }
    }
    note(world, EVENT_GAVE_UP);
    return true;
}

void session_park(struct world *world, unsigned ref)
{
    request_of(world, ref)->state = REQUEST_PARKED;
}
