/*
 * trace.c - a counterexample in words
 *
 * Each step is one line that says who did what, followed by what the world looks like
 * then: L1, flights, links and sessions, as far as there is anything to say.
 */
#include "model.h"

#include <stdio.h>

static const char *const kind_words[] = {
    [KIND_READ] = "read",
    [KIND_RELAYED_READ] = "uncached read",
    [KIND_WRITE] = "write",
    [KIND_OPAQUE_WRITE] = "opaque write",
    [KIND_OPAQUE_READ] = "opaque read",
};

static const char *const request_words[] = {
    [REQUEST_PARKED] = "to be looked up anew",
    [REQUEST_WAITING] = "waits for flight",
    [REQUEST_LIMBO] = "its flight was lost",
    [REQUEST_MAILED] = "answer in the mail",
    [REQUEST_RELAYED] = "relayed",
    [REQUEST_WITHHELD] = "withheld",
    [REQUEST_ANSWERED] = "answered",
    [REQUEST_FAILED] = "failed",
};

static char key_name(unsigned key)
{
    return (char)('k' + key);
}

static char session_name(unsigned session)
{
    return (char)('A' + session);
}

static void print_request(const struct request *request)
{
    printf("%s %c", kind_words[request->kind], key_name(request->key));
    if (request->kind == KIND_READ) {
        printf(".%u", request->view);
    }
}

static void print_ref(const struct state *state, unsigned ref)
{
    unsigned session = ref / MAX_PIPELINE;
    printf("%c's ", session_name(session));
    print_request(&state->sessions[session].requests[ref % MAX_PIPELINE]);
}

static void print_flight(const struct state *state, unsigned index)
{
    const struct flight *flight = &state->flights[index];
    printf("flight %u (%c.%u)", index, key_name(flight->key), flight->view);
}

static void print_item(const struct state *state, uint8_t item)
{
    unsigned arg = item_arg(item);
    switch (item_kind(item)) {
    case ITEM_FETCH:
        printf("the fetch of ");
        print_flight(state, arg);
        break;
    case ITEM_REPLY:
        printf("the reply of ");
        print_flight(state, arg);
        printf(", version %u", state->flights[arg].version);
        break;
    case ITEM_MESSAGE:
        printf("the invalidation of %c", key_name(arg));
        break;
    case ITEM_PING:
    case ITEM_PONG:
    case ITEM_ASK:
    case ITEM_DONE: {
        static const char *const words[] = {[ITEM_PING] = "PING",
                                            [ITEM_PONG] = "PONG",
                                            [ITEM_ASK] = "the order to PING",
                                            [ITEM_DONE] = "word of the PONG"};
        printf("%s for the fence of ", words[item_kind(item)]);
        print_ref(state, arg);
        break;
    }
    case ITEM_FLUSH:
        printf("the null message");
        break;
    case ITEM_BEAT:
        printf("the watermark's PING");
        break;
    case ITEM_BEAT_BACK:
        printf("the watermark's PONG");
        break;
    case ITEM_RELAYED:
        print_ref(state, arg);
        break;
    case ITEM_ANSWER:
        printf("the answer to ");
        print_ref(state, arg);
        break;
    case ITEM_LOST:
        printf("word of the lost flight of ");
        print_ref(state, arg);
        break;
    }
}

static void print_events(uint32_t events)
{
    const char *separator = ": ";
    for (unsigned i = 0; i < N_EVENTS; i++) {
        if ((events >> i & 1) != 0) {
            printf("%s%s", separator, event_names[i]);
            separator = ", ";
        }
    }
}

static void print_session_step(const struct world *before, struct action action)
{
    const struct config *config = before->config;
    printf("session %c on worker %u: ", session_name(action.a), config->worker[action.a]);
    if (action.kind == ACTION_LOOK_AGAIN) {
        printf("looks again at ");
        print_request(&before->state.sessions[action.a].requests[action.b]);
        return;
    }
    unsigned n = before->state.sessions[action.a].n_issued;
    printf("request %u, %c", n + 1,
           config->menu[action.a][config->is_script[action.a] ? n : action.b]);
}

static void print_queue_step(const struct world *before, struct action action)
{
    const struct state *state = &before->state;
    const char *who = "backend executes";
    uint64_t queue = state->track_out[action.a];
    switch ((enum action_kind)action.kind) {
    case ACTION_BACKEND_RELAY:
        queue = state->relay_out[action.a];
        break;
    case ACTION_TRACK_IN:
        who = "takes from its tracking link";
        queue = state->track_in[action.a];
        break;
    case ACTION_RELAY_IN:
        who = "takes from its relay link the reply to";
        queue = state->relay_in[action.a];
        break;
    case ACTION_MAIL:
        who = "takes from its mailbox";
        queue = state->mail[action.a];
        break;
    default:
        break;
    }
    if (action.kind != ACTION_BACKEND_TRACK && action.kind != ACTION_BACKEND_RELAY) {
        printf("worker %u ", action.a);
    }
    printf("%s ", who);
    print_item(state, queue_at(queue, 0));
    if (action.kind == ACTION_BACKEND_TRACK || action.kind == ACTION_BACKEND_RELAY) {
        printf(" (from worker %u)", action.a);
    }
}

static void print_outside_step(struct action action)
{
    switch ((enum action_kind)action.kind) {
    case ACTION_NOTICE:
        printf("worker %u notices that its tracking link is gone", action.a);
        break;
    case ACTION_RECONNECT:
        printf("worker %u has a new tracking link", action.a);
        break;
    case ACTION_FOREIGN_WRITE:
        printf("foreign write of %c", key_name(action.a));
        break;
    case ACTION_GHOST_WRITE:
        printf("a write of %c whose outcome was unknown executes", key_name(action.a));
        break;
    case ACTION_FLUSH:
        printf("foreign flush");
        break;
    case ACTION_GIVE_UP:
        printf("session %c gives up the flight of request slot %u", session_name(action.a),
               action.b);
        break;
    case ACTION_OVERFLOW:
        printf("backend forgets that link %u tracks %c, and says so", action.b, key_name(action.a));
        break;
    case ACTION_BREAK:
        printf("tracking link %u breaks at the backend", action.a);
        break;
    case ACTION_RELAY_LOSS:
        printf("relay link %u fails", action.a);
        break;
    case ACTION_EVICT:
        printf("eviction of %c.%u", key_name(action.a), action.b);
        break;
    case ACTION_TICK:
        printf("a tick of the clock");
        break;
    default:
        printf("worker %u sends the watermark's PING", action.a);
        break;
    }
}

static void print_tier(const struct state *state, const struct config *config)
{
    for (unsigned key = 0; key < config->n_keys; key++) {
        printf(" | backend %c=%u, L1", key_name(key), state->value[key]);
        bool is_empty = true;
        for (unsigned i = 0; i < config->n_views; i++) {
            const struct view *view = &state->views[key][i];
            if (view->version != 0) {
                printf(" %c.%u=%u", key_name(key), i, view->version);
                if (view->deadline != view->version) {
                    printf(" with the deadline of %u", view->deadline);
                }
                printf(" of link %u", view->home);
                is_empty = false;
            }
        }
        printf("%s", is_empty ? " empty" : "");
    }
}

static void print_flights_and_links(const struct state *state, const struct config *config)
{
    static const char *const words[] = {
        [FLIGHT_LIVE] = "live", [FLIGHT_VOID] = "void", [FLIGHT_DEAD] = "dead"};
    for (unsigned i = 0; i < MAX_FLIGHTS; i++) {
        const struct flight *flight = &state->flights[i];
        if (flight->state != FLIGHT_FREE) {
            printf(" | ");
            print_flight(state, i);
            printf(" link %u %s", flight->link, words[flight->state]);
            if (flight->version != 0) {
                printf(" read %u", flight->version);
            }
            if (config->max_age > 0) {
                printf(" age %u", flight->age);
            }
        }
    }
    for (unsigned i = 0; i < N_WORKERS; i++) {
        if (state->link[i] != LINK_UP) {
            printf(" | link %u %s", i, state->link[i] == LINK_DOWN ? "down" : "broken");
        }
        if (config->max_age > 0) {
            printf(" | watermark %u age %u", i, state->link_age[i]);
        }
    }
}

static void print_sessions(const struct world *world)
{
    const struct state *state = &world->state;
    for (unsigned s = 0; s < world->config->n_sessions; s++) {
        const struct session *session = &state->sessions[s];
        unsigned n = (unsigned)(session->n_issued - session->n_released);
        printf(" | %c", session_name(s));
        for (unsigned key = 0; key < world->config->n_keys; key++) {
            if (session->last[key] != 0) {
                printf(" saw %c=%u", key_name(key), session->last[key]);
            }
        }
        for (unsigned i = 0; i < n; i++) {
            const struct request *request = &session->requests[session_slot(world, s, i)];
            printf("%s", i == 0 ? ": " : ", ");
            print_request(request);
            printf(" %s", request_words[request->state]);
            if (request->state == REQUEST_WAITING) {
                printf(" %u", request->flight);
            } else if (request->version != 0) {
                printf(" %u", request->version);
            }
        }
    }
}

static void print_step(const struct world *before, const struct world *after, struct action action,
                       size_t number)
{
    printf("%3zu  ", number);
    if (action.kind == ACTION_ISSUE || action.kind == ACTION_LOOK_AGAIN) {
        print_session_step(before, action);
    } else if (action.kind <= ACTION_MAIL) {
        print_queue_step(before, action);
    } else {
        print_outside_step(action);
    }
    print_events(after->events);
    printf("\n     ");
    print_tier(&after->state, after->config);
    print_flights_and_links(&after->state, after->config);
    print_sessions(after);
    printf("\n");
}

void trace_print(const struct config *config, uint32_t rules, const struct search_result *result)
{
    struct world world;
    char names[64];
    world_init(&world, config, rules);
    for (size_t i = 0; i < result->n_trace; i++) {
        struct world before = world;
        step_take(&world, result->trace[i]);
        print_step(&before, &world, result->trace[i], i + 1);
    }
    printf("     violated: %s\n\n", property_names(result->broken, names, sizeof(names)));
}
