/*
 * backend.c - one Redis node and what can befall the links to it
 *
 * It takes the head of any request queue in one step. Tracking is a bit per key and link:
 * set by a read on a tracking link, cleared by a write, which appends a message to the
 * replies of that link. Links share no order.
 */
#include "model.h"

void backend_write(struct state *state, unsigned key)
{
    state->value[key]++;
    for (unsigned link = 0; link < N_WORKERS; link++) {
        if ((state->tracked[key] >> link & 1) != 0) {
            queue_push(&state->track_in[link], ITEM_MESSAGE, key);
        }
    }
    state->tracked[key] = 0;
}

/* Every key gets a new version: it is gone. */
void backend_flush(struct world *world)
{
    struct state *state = &world->state;
    for (unsigned key = 0; key < world->config->n_keys; key++) {
        state->value[key]++;
        state->tracked[key] = 0;
    }
    for (unsigned link = 0; link < N_WORKERS; link++) {
        if (state->link[link] == LINK_UP) {
            queue_push(&state->track_in[link], ITEM_FLUSH, 0);
        }
    }
}

/* With a split fetch the first call is PTTL, which tracks the key too, the second the read. */
static void execute_fetch(struct world *world, unsigned link, unsigned index)
{
    struct state *state = &world->state;
    struct flight *flight = &state->flights[index];
    bool is_first_half = world->config->splits_fetch && flight->deadline == 0;
    state->tracked[flight->key] |= (uint8_t)(1U << link);
    if (flight->deadline == 0) {
        flight->deadline = state->value[flight->key];
    }
    if (!is_first_half) {
        flight->version = state->value[flight->key];
        queue_pop(&state->track_out[link]);
        queue_push(&state->track_in[link], ITEM_REPLY, index);
    }
}

void backend_track(struct world *world, unsigned link)
{
    struct state *state = &world->state;
    uint8_t item = queue_at(state->track_out[link], 0);
    if (item_kind(item) == ITEM_FETCH) {
        execute_fetch(world, link, item_arg(item));
        return;
    }
    queue_pop(&state->track_out[link]);
    queue_push(&state->track_in[link], item_kind(item) == ITEM_PING ? ITEM_PONG : ITEM_BEAT_BACK,
               item_arg(item));
}

void backend_relay(struct world *world, unsigned link)
{
    struct state *state = &world->state;
    unsigned ref = item_arg(queue_pop(&state->relay_out[link]));
    struct request *request = &state->sessions[ref / MAX_PIPELINE].requests[ref % MAX_PIPELINE];
    if (request->kind == KIND_WRITE || request->kind == KIND_OPAQUE_WRITE) {
        backend_write(state, request->key);
    }
    request->version = state->value[request->key];
    queue_push(&state->relay_in[link], ITEM_RELAYED, ref);
}

/* Requests on the link are never executed; replies may still arrive until the loss is noticed. */
void backend_break(struct state *state, unsigned link)
{
    state->link[link] = LINK_BROKEN;
    for (unsigned key = 0; key < MAX_KEYS; key++) {
        state->tracked[key] &= (uint8_t) ~(1U << link);
    }
}
