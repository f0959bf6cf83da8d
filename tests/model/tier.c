/*
 * tier.c - the memory tier: views, flights, and the operations on a key
 *
 * Epochs need no counters here: a bump drops the views of its link and marks its flights
 * dead, which is what unequal counters would do to each of them later.
 */
#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_fresh(const struct world *world, unsigned link)
{
    return world->state.link_age[link] <= world->config->max_age;
}

/* A link that broke unnoticed still looks fit. */
static bool is_fit(const struct world *world, unsigned link)
{
    return world->state.link[link] != LINK_DOWN && is_fresh(world, link);
}

static bool is_of(const struct flight *flight, const struct request *request)
{
    return flight->key == request->key && flight->view == request->view;
}

static int find_live(const struct state *state, const struct request *request)
{
    for (int i = 0; i < MAX_FLIGHTS; i++) {
        if (state->flights[i].state == FLIGHT_LIVE && is_of(&state->flights[i], request)) {
            return i;
        }
    }
    return -1;
}

/* The link that the record of the key belongs to; -1 where there is no record. */
static int home_of(const struct state *state, unsigned key)
{
    for (unsigned i = 0; i < MAX_VIEWS; i++) {
        if (state->views[key][i].version != 0) {
            return state->views[key][i].home;
        }
    }
    for (unsigned i = 0; i < MAX_FLIGHTS; i++) {
        if (state->flights[i].state == FLIGHT_LIVE && state->flights[i].key == key) {
            return state->flights[i].link;
        }
    }
    return -1;
}

void tier_invalidate(struct state *state, unsigned key, bool drops, bool voids)
{
    if (drops) {
        memset(state->views[key], 0, sizeof(state->views[key]));
    }
    for (unsigned i = 0; voids && i < MAX_FLIGHTS; i++) {
        struct flight *flight = &state->flights[i];
        if (flight->state == FLIGHT_LIVE && flight->key == key) {
            flight->state = FLIGHT_VOID;
            flight->owner = 0;
        }
    }
}

bool tier_is_joinable(const struct world *world, unsigned index, const struct request *request)
{
    const struct flight *flight = &world->state.flights[index];
    bool is_current = flight->state == FLIGHT_LIVE ||
                      (flight->state == FLIGHT_VOID && !has_rule(world, RULE_JOIN_VOID));
    bool is_young = flight->age <= world->config->max_age || !has_rule(world, RULE_JOIN_AGE);
    return is_current && is_young && is_of(flight, request);
}

bool tier_can_begin_behind(const struct world *world, const struct request *request)
{
    return world->state.views[request->key][request->view].version == 0 &&
           find_live(&world->state, request) < 0;
}

void tier_join(struct world *world, struct request *request, unsigned flight)
{
    request->state = REQUEST_WAITING;
    request->flight = (uint8_t)flight;
    note(world, EVENT_JOIN);
}

static unsigned free_flight(const struct state *state)
{
    unsigned i = 0;
    while (i < MAX_FLIGHTS && state->flights[i].state != FLIGHT_FREE) {
        i++;
    }
    if (i == MAX_FLIGHTS) {
        fputs("model: too many flights; take a smaller configuration\n", stderr);
        exit(2);
    }
    return i;
}

/* The new flight, on its way; -1 where its link is not fit. */
static int begin(struct world *world, unsigned session, const struct request *request)
{
    struct state *state = &world->state;
    unsigned worker = world->config->worker[session];
    int home = has_rule(world, RULE_HOME) ? home_of(state, request->key) : -1;
    unsigned link = home >= 0 ? (unsigned)home : worker;
    if (!is_fit(world, link)) {
        return -1;
    }
    unsigned index = free_flight(state);
    state->flights[index] = (struct flight){.state = FLIGHT_LIVE,
                                            .key = request->key,
                                            .view = request->view,
                                            .link = (uint8_t)link,
                                            .owner = (uint8_t)(session + 1)};
    queue_push(link == worker ? &state->track_out[link] : &state->mail[link], ITEM_FETCH, index);
    note(world, link == worker ? EVENT_BEGIN : EVENT_HANDOFF);
    return (int)index;
}

bool tier_begin(struct world *world, unsigned session, struct request *request)
{
    int index = begin(world, session, request);
    if (index < 0) {
        return false;
    }
    request->state = REQUEST_WAITING;
    request->flight = (uint8_t)index;
    return true;
}

static enum look_result hit(struct world *world, unsigned session, struct request *request,
                            bool refreshes)
{
    struct state *state = &world->state;
    if (refreshes) {
        if (state->n_refreshes == 0 || find_live(state, request) >= 0) {
            return LOOK_DISABLED;
        }
        int index = begin(world, session, request);
        if (index < 0) {
            return LOOK_DISABLED;
        }
        state->flights[index].owner = 0;
        state->n_refreshes--;
        note(world, EVENT_REFRESH);
    }
    request->version = state->views[request->key][request->view].version;
    note(world, EVENT_HIT);
    return LOOK_HIT;
}

/*
 * Without the rule of one flight a look-up begins another beside the first (choice 0) or
 * joins any of them (choice n: the n-th), as a record that knows several cannot tell them
 * apart.
 */
static enum look_result look_without_one_flight(struct world *world, unsigned session,
                                                struct request *request, unsigned choice)
{
    if (choice == 0) {
        return tier_begin(world, session, request) ? LOOK_WAIT : LOOK_RELAY;
    }
    if (!tier_is_joinable(world, choice - 1, request)) {
        return LOOK_DISABLED;
    }
    tier_join(world, request, choice - 1);
    return LOOK_WAIT;
}

enum look_result tier_lookup(struct world *world, unsigned session, struct request *request,
                             unsigned choice)
{
    struct state *state = &world->state;
    const struct view *view = &state->views[request->key][request->view];
    if (view->version != 0 && (is_fresh(world, view->home) || !has_rule(world, RULE_WATERMARK))) {
        return choice > 1 ? LOOK_DISABLED : hit(world, session, request, choice == 1);
    }
    if (!has_rule(world, RULE_ONE_FLIGHT)) {
        return look_without_one_flight(world, session, request, choice);
    }
    if (choice > 0) {
        return LOOK_DISABLED;
    }
    for (unsigned i = 0; i < MAX_FLIGHTS; i++) {
        if (tier_is_joinable(world, i, request)) {
            tier_join(world, request, i);
            return LOOK_WAIT;
        }
    }
    if (find_live(state, request) < 0 && tier_begin(world, session, request)) {
        return LOOK_WAIT;
    }
    return LOOK_RELAY;
}

void tier_complete(struct world *world, unsigned index)
{
    struct state *state = &world->state;
    const struct flight *flight = &state->flights[index];
    bool is_current = flight->state == FLIGHT_LIVE ||
                      (flight->state == FLIGHT_VOID && !has_rule(world, RULE_COMPLETE_VOID));
    if (is_current && flight->age <= world->config->max_age) {
        state->views[flight->key][flight->view] = (struct view){
            .version = flight->version, .deadline = flight->deadline, .home = flight->link};
        note(world, EVENT_FILL);
        return;
    }
    note(world, EVENT_NO_FILL);
    if (has_rule(world, RULE_COMPLETE_INVALIDATE)) {
        tier_invalidate(state, flight->key, true, true);
    }
}

void tier_bump_epoch(struct state *state, unsigned link)
{
    for (unsigned key = 0; key < MAX_KEYS; key++) {
        for (unsigned i = 0; i < MAX_VIEWS; i++) {
            if (state->views[key][i].home == link) {
                state->views[key][i] = (struct view){0};
            }
        }
    }
    for (unsigned i = 0; i < MAX_FLIGHTS; i++) {
        struct flight *flight = &state->flights[i];
        if (flight->state != FLIGHT_FREE && flight->link == link) {
            flight->state = FLIGHT_DEAD;
            flight->owner = 0;
        }
    }
}
