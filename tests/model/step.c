/*
 * step.c - which steps a state allows, what they do, and what must hold after each
 *
 * One step is one operation of one party: a worker takes one item from one of its queues
 * or looks at one request, the backend executes one command, the network or the clock does
 * one thing. Afterwards flights are renumbered in the order in which queues mention them,
 * so that states that differ in nothing else are one.
 */
#include "model.h"

#include <string.h>

void world_init(struct world *world, const struct config *config, uint32_t rules)
{
    memset(world, 0, sizeof(*world));
    world->config = config;
    world->rules = rules;
    struct state *state = &world->state;
    for (unsigned key = 0; key < config->n_keys; key++) {
        state->value[key] = 1;
    }
    state->n_foreign = (uint8_t)config->n_foreign;
    state->n_evictions = (uint8_t)config->n_evictions;
    state->n_losses = (uint8_t)config->n_losses;
    state->n_relay_losses = (uint8_t)config->n_relay_losses;
    state->n_overflows = (uint8_t)config->n_overflows;
    state->n_refreshes = (uint8_t)config->n_refreshes;
    state->n_flushes = (uint8_t)config->n_flushes;
    state->n_give_ups = (uint8_t)config->n_give_ups;
}

bool world_is_finished(const struct world *world)
{
    for (unsigned i = 0; i < world->config->n_sessions; i++) {
        if (world->state.sessions[i].n_released != world->config->n_requests[i]) {
            return false;
        }
    }
    return true;
}

/* Steps of a worker */

static void take_reply(struct world *world, unsigned worker, unsigned flight)
{
    struct state *state = &world->state;
    tier_complete(world, flight);
    if (state->link_age[worker] > state->flights[flight].age) {
        state->link_age[worker] = state->flights[flight].age;
    }
    session_give(world, worker, flight);
    state->flights[flight] = (struct flight){0};
}

/* A PONG, or the loss of a link that a PING was on; the epoch has been bumped by then. */
static void take_pong(struct world *world, unsigned worker, unsigned ref)
{
    if (world->config->worker[ref / MAX_PIPELINE] == worker) {
        session_fenced(world, ref, worker);
    } else {
        queue_push(&world->state.mail[other_worker(worker)], ITEM_DONE, ref);
    }
}

static void take_track_in(struct world *world, unsigned worker)
{
    struct state *state = &world->state;
    uint8_t item = queue_pop(&state->track_in[worker]);
    unsigned arg = item_arg(item);
    switch (item_kind(item)) {
    case ITEM_REPLY:
        take_reply(world, worker, arg);
        break;
    case ITEM_MESSAGE:
        tier_invalidate(state, arg, has_rule(world, RULE_MESSAGE_DROP),
                        has_rule(world, RULE_MESSAGE_VOID));
        break;
    case ITEM_PONG:
        take_pong(world, worker, arg);
        break;
    case ITEM_FLUSH:
        if (has_rule(world, RULE_FLUSH_EPOCH)) {
            tier_bump_epoch(state, worker);
        }
        break;
    default:
        if (state->link_age[worker] > state->beat_age[worker] - 1) {
            state->link_age[worker] = (uint8_t)(state->beat_age[worker] - 1);
        }
        state->beat_age[worker] = 0;
        break;
    }
}

/* A fetch handed over: sent, or lost where the epoch it was begun under is over. */
static void take_fetch(struct world *world, unsigned worker, unsigned flight)
{
    struct state *state = &world->state;
    bool is_over = state->flights[flight].state == FLIGHT_DEAD &&
                   has_rule(world, RULE_HANDOFF_EPOCH);
    if (is_over || state->link[worker] == LINK_DOWN) {
        session_lose(world, worker, 1U << flight);
        state->flights[flight] = (struct flight){0};
    } else {
        queue_push(&state->track_out[worker], ITEM_FETCH, flight);
    }
}

static void take_mail(struct world *world, unsigned worker)
{
    struct state *state = &world->state;
    uint8_t item = queue_pop(&state->mail[worker]);
    unsigned arg = item_arg(item);
    switch (item_kind(item)) {
    case ITEM_FETCH:
        take_fetch(world, worker, arg);
        break;
    case ITEM_ANSWER:
        session_mailed(world, arg);
        break;
    case ITEM_LOST:
        session_park(world, arg);
        break;
    case ITEM_ASK:
        if (state->link[worker] == LINK_DOWN) {
            queue_push(&state->mail[other_worker(worker)], ITEM_DONE, arg);
        } else {
            queue_push(&state->track_out[worker], ITEM_PING, arg);
        }
        break;
    default:
        session_fenced(world, arg, other_worker(worker));
        break;
    }
}

/* First the epoch, then the fences that counted on the link, then the readers. */
static void notice_loss(struct world *world, unsigned worker)
{
    struct state *state = &world->state;
    uint64_t queues[2] = {state->track_in[worker], state->track_out[worker]};
    uint32_t lost = 0;
    state->link[worker] = LINK_DOWN;
    state->track_in[worker] = 0;
    state->track_out[worker] = 0;
    state->beat_age[worker] = 0;
    if (has_rule(world, RULE_LINK_EPOCH)) {
        tier_bump_epoch(state, worker);
    }
    for (unsigned q = 0; q < 2; q++) {
        for (unsigned i = 0; i < queue_length(queues[q]); i++) {
            uint8_t item = queue_at(queues[q], i);
            if (item_kind(item) == ITEM_FETCH || item_kind(item) == ITEM_REPLY) {
                lost |= 1U << item_arg(item);
            } else if (item_kind(item) == ITEM_PING || item_kind(item) == ITEM_PONG) {
                take_pong(world, worker, item_arg(item));
            }
        }
    }
    session_lose(world, worker, lost);
    for (unsigned i = 0; i < MAX_FLIGHTS; i++) {
        if ((lost >> i & 1) != 0) {
            state->flights[i] = (struct flight){0};
        }
    }
}

/* The relay link fails: outcomes are unknown, what was on its way may execute later. */
static void lose_relay(struct world *world, unsigned worker)
{
    struct state *state = &world->state;
    uint64_t queues[2] = {state->relay_in[worker], state->relay_out[worker]};
    state->relay_in[worker] = 0;
    state->relay_out[worker] = 0;
    for (unsigned q = 0; q < 2; q++) {
        for (unsigned i = 0; i < queue_length(queues[q]); i++) {
            unsigned ref = item_arg(queue_at(queues[q], i));
            const struct request *request =
                &state->sessions[ref / MAX_PIPELINE].requests[ref % MAX_PIPELINE];
            if (q == 1 && (request->kind == KIND_WRITE || request->kind == KIND_OPAQUE_WRITE)) {
                state->ghosts[request->key]++;
            }
            session_fail(world, ref);
        }
    }
}

static void age(uint8_t *value, unsigned max)
{
    if (*value < max) {
        (*value)++;
    }
}

static void tick(struct world *world)
{
    struct state *state = &world->state;
    unsigned old = world->config->max_age + 1;
    for (unsigned i = 0; i < N_WORKERS; i++) {
        age(&state->link_age[i], old);
        if (state->beat_age[i] > 0) {
            age(&state->beat_age[i], old + 1);
        }
    }
    for (unsigned i = 0; i < MAX_FLIGHTS; i++) {
        if (state->flights[i].state != FLIGHT_FREE) {
            age(&state->flights[i].age, old);
        }
    }
    for (unsigned key = 0; key < world->config->n_keys; key++) {
        memmove(&state->acked_ago[key][1], &state->acked_ago[key][0], old);
    }
}

/* Checks and the common form of a state */

static bool has_empty_queues(const struct state *state)
{
    for (unsigned i = 0; i < N_WORKERS; i++) {
        if ((state->track_out[i] | state->track_in[i] | state->relay_out[i] | state->relay_in[i] |
             state->mail[i]) != 0 ||
            state->link[i] == LINK_BROKEN) {
            return false;
        }
    }
    return true;
}

static void check(struct world *world)
{
    const struct state *state = &world->state;
    bool is_quiet = has_empty_queues(state);
    for (unsigned key = 0; key < world->config->n_keys; key++) {
        for (unsigned i = 0; i < world->config->n_views; i++) {
            const struct view *view = &state->views[key][i];
            if (view->version == 0) {
                continue;
            }
            if (view->version < state->acked[key]) {
                world->broken |= PROPERTY_I2;
            }
            if (view->deadline != view->version) {
                world->broken |= PROPERTY_I5;
            }
            if (is_quiet && view->version != state->value[key]) {
                world->broken |= PROPERTY_QUIET;
            }
        }
    }
}

static void renumber_queue(uint64_t *queue, uint8_t *names, uint8_t *n_names)
{
    uint64_t renamed = 0;
    for (unsigned i = 0; i < queue_length(*queue); i++) {
        uint8_t item = queue_at(*queue, i);
        unsigned arg = item_arg(item);
        if (item_kind(item) == ITEM_FETCH || item_kind(item) == ITEM_REPLY) {
            names[arg] = (*n_names)++;
            arg = names[arg];
        }
        renamed |= (uint64_t)((unsigned)item_kind(item) << 4 | arg) << (8 * i);
    }
    *queue = renamed;
}

/* Every flight is in exactly one queue. */
static void renumber_flights(struct state *state)
{
    uint8_t names[MAX_FLIGHTS] = {0};
    uint8_t n_names = 0;
    struct flight flights[MAX_FLIGHTS] = {{0}};
    for (unsigned i = 0; i < N_WORKERS; i++) {
        renumber_queue(&state->mail[i], names, &n_names);
        renumber_queue(&state->track_in[i], names, &n_names);
        renumber_queue(&state->track_out[i], names, &n_names);
    }
    for (unsigned i = 0; i < MAX_FLIGHTS; i++) {
        if (state->flights[i].state != FLIGHT_FREE) {
            flights[names[i]] = state->flights[i];
        }
    }
    memcpy(state->flights, flights, sizeof(flights));
    for (unsigned s = 0; s < MAX_SESSIONS; s++) {
        for (unsigned i = 0; i < MAX_PIPELINE; i++) {
            struct request *request = &state->sessions[s].requests[i];
            if (request->state == REQUEST_WAITING) {
                request->flight = names[request->flight];
            }
        }
    }
}

/* A foreign writer has its reply at once. */
static void acknowledge_foreign(struct world *world, unsigned key)
{
    if (world->config->max_age > 0) {
        world->state.acked_ago[key][0] = world->state.value[key];
    }
}

/* The environment's steps that are taken from a stock, or need no condition. */
static void take_outside(struct world *world, struct action action)
{
    struct state *state = &world->state;
    switch ((enum action_kind)action.kind) {
    case ACTION_FOREIGN_WRITE:
        state->n_foreign--;
        backend_write(state, action.a);
        acknowledge_foreign(world, action.a);
        break;
    case ACTION_GHOST_WRITE:
        state->ghosts[action.a]--;
        backend_write(state, action.a);
        break;
    case ACTION_FLUSH:
        state->n_flushes--;
        backend_flush(world);
        for (unsigned key = 0; key < world->config->n_keys; key++) {
            acknowledge_foreign(world, key);
        }
        break;
    case ACTION_OVERFLOW:
        state->n_overflows--;
        state->tracked[action.a] &= (uint8_t) ~(1U << action.b);
        queue_push(&state->track_in[action.b], ITEM_MESSAGE, action.a);
        break;
    case ACTION_BREAK:
        state->n_losses--;
        backend_break(state, action.a);
        break;
    case ACTION_RELAY_LOSS:
        state->n_relay_losses--;
        lose_relay(world, action.a);
        break;
    case ACTION_EVICT:
        state->n_evictions--;
        state->views[action.a][action.b] = (struct view){0};
        break;
    case ACTION_TICK:
        tick(world);
        break;
    default:
        queue_push(&state->track_out[action.a], ITEM_BEAT, 0);
        state->beat_age[action.a] = 1;
        break;
    }
}

bool step_take(struct world *world, struct action action)
{
    struct state *state = &world->state;
    bool is_possible = true;
    world->broken = 0;
    world->events = 0;
    switch ((enum action_kind)action.kind) {
    case ACTION_ISSUE:
        is_possible = session_issue(world, action.a, action.b, action.choice);
        break;
    case ACTION_LOOK_AGAIN:
        is_possible = session_look_again(world, action.a, action.b, action.choice);
        break;
    case ACTION_GIVE_UP:
        state->n_give_ups--;
        is_possible = session_give_up(world, action.a, action.b);
        break;
    case ACTION_BACKEND_TRACK:
        backend_track(world, action.a);
        break;
    case ACTION_BACKEND_RELAY:
        backend_relay(world, action.a);
        break;
    case ACTION_TRACK_IN:
        take_track_in(world, action.a);
        break;
    case ACTION_RELAY_IN:
        session_relay_reply(world, item_arg(queue_pop(&state->relay_in[action.a])));
        break;
    case ACTION_MAIL:
        take_mail(world, action.a);
        break;
    case ACTION_NOTICE:
        notice_loss(world, action.a);
        break;
    case ACTION_RECONNECT:
        state->link[action.a] = LINK_UP;
        state->link_age[action.a] = 0;
        break;
    default:
        take_outside(world, action);
        break;
    }
    if (is_possible) {
        check(world);
        renumber_flights(state);
    }
    return is_possible;
}

/* What may be possible */

struct list {
    struct action *out;
    unsigned n;
};

static void add(struct list *list, enum action_kind kind, unsigned a, unsigned b, unsigned choice)
{
    list->out[list->n++] = (struct action){(uint8_t)kind, (uint8_t)a, (uint8_t)b, (uint8_t)choice};
}

static void list_session(const struct world *world, unsigned s, struct list *list)
{
    const struct config *config = world->config;
    const struct session *session = &world->state.sessions[s];
    unsigned n_choices = !has_rule(world, RULE_ONE_FLIGHT) ? MAX_CHOICES
                         : world->state.n_refreshes > 0    ? 2
                                                           : 1;
    unsigned n_entries = config->is_script[s] ? 1 : (unsigned)strlen(config->menu[s]);
    bool can_issue = session->n_issued < config->n_requests[s] &&
                     (unsigned)(session->n_issued - session->n_released) < config->pipeline;
    for (unsigned choice = 0; choice < n_choices; choice++) {
        for (unsigned entry = 0; can_issue && entry < n_entries; entry++) {
            add(list, ACTION_ISSUE, s, entry, choice);
        }
        for (unsigned slot = 0; slot < config->pipeline; slot++) {
            if (choice == 0 && world->state.n_give_ups > 0 &&
                session->requests[slot].state == REQUEST_WAITING) {
                add(list, ACTION_GIVE_UP, s, slot, 0);
            }
            if (session->requests[slot].state == REQUEST_PARKED) {
                add(list, ACTION_LOOK_AGAIN, s, slot, choice);
            }
        }
    }
}

static void list_worker(const struct world *world, unsigned worker, struct list *list)
{
    const struct state *state = &world->state;
    bool is_up = state->link[worker] == LINK_UP;
    if (is_up && state->track_out[worker] != 0) {
        add(list, ACTION_BACKEND_TRACK, worker, 0, 0);
    }
    if (state->relay_out[worker] != 0) {
        add(list, ACTION_BACKEND_RELAY, worker, 0, 0);
    }
    if (state->track_in[worker] != 0) {
        add(list, ACTION_TRACK_IN, worker, 0, 0);
    }
    if (state->relay_in[worker] != 0) {
        add(list, ACTION_RELAY_IN, worker, 0, 0);
    }
    if (state->mail[worker] != 0) {
        add(list, ACTION_MAIL, worker, 0, 0);
    }
    if (state->link[worker] == LINK_BROKEN) {
        add(list, ACTION_NOTICE, worker, 0, 0);
    }
    if (state->link[worker] == LINK_DOWN) {
        add(list, ACTION_RECONNECT, worker, 0, 0);
    }
    if (is_up && state->n_losses > 0) {
        add(list, ACTION_BREAK, worker, 0, 0);
    }
    if (state->n_relay_losses > 0 && (state->relay_out[worker] | state->relay_in[worker]) != 0) {
        add(list, ACTION_RELAY_LOSS, worker, 0, 0);
    }
    if (state->link[worker] != LINK_DOWN && state->beat_age[worker] == 0 &&
        state->link_age[worker] > 0) {
        add(list, ACTION_BEAT, worker, 0, 0);
    }
}

static void list_key(const struct world *world, unsigned key, struct list *list)
{
    const struct state *state = &world->state;
    if (state->n_foreign > 0) {
        add(list, ACTION_FOREIGN_WRITE, key, 0, 0);
    }
    if (state->ghosts[key] > 0) {
        add(list, ACTION_GHOST_WRITE, key, 0, 0);
    }
    for (unsigned link = 0; state->n_overflows > 0 && link < N_WORKERS; link++) {
        if ((state->tracked[key] >> link & 1) != 0) {
            add(list, ACTION_OVERFLOW, key, link, 0);
        }
    }
    for (unsigned view = 0; state->n_evictions > 0 && view < world->config->n_views; view++) {
        if (state->views[key][view].version != 0) {
            add(list, ACTION_EVICT, key, view, 0);
        }
    }
}

unsigned step_list(const struct world *world, struct action *out)
{
    struct list list = {out, 0};
    for (unsigned s = 0; s < world->config->n_sessions; s++) {
        list_session(world, s, &list);
    }
    for (unsigned worker = 0; worker < N_WORKERS; worker++) {
        list_worker(world, worker, &list);
    }
    for (unsigned key = 0; key < world->config->n_keys; key++) {
        list_key(world, key, &list);
    }
    if (world->state.n_flushes > 0) {
        add(&list, ACTION_FLUSH, 0, 0, 0);
    }
    if (world->config->max_age > 0) {
        add(&list, ACTION_TICK, 0, 0, 0);
    }
    return list.n;
}
