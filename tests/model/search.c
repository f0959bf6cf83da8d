/*
 * search.c - breadth-first search with a compacted set of visited states
 *
 * A visited state is kept as a 64-bit hash; two different states with one hash would make
 * the search skip the second. Among n states that happens somewhere with a probability of
 * at most n^2 / 2^65: 3 in 10^6 for 10^7 states, 3 in 10^4 for 10^8. The queue holds whole
 * states, in blocks that are freed once expanded. For the trace each state keeps its
 * predecessor and the step between them, eight bytes.
 */
#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BLOCK_STATES = 4096, NO_PARENT = 0 };

struct pending {
    uint32_t number;
    struct state state;
};

struct block {
    struct block *next;
    unsigned n;
    struct pending items[BLOCK_STATES];
};

struct origin {
    uint32_t parent;
    struct action action;
};

struct searcher {
    uint64_t *hashes;       /* open addressing, 0: free */
    size_t n_slots;         /* a power of two */
    struct origin *origins; /* by number of state */
    size_t n_states;
    size_t n_origins; /* allocated */
    struct block *first;
    struct block *last;
    unsigned next; /* in the first block */
};

static void *must(void *memory)
{
    if (memory == NULL) {
        fputs("model: out of memory\n", stderr);
        exit(2);
    }
    return memory;
}

static uint64_t mix(uint64_t a, uint64_t b)
{
    __extension__ unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

_Static_assert(offsetof(struct state, unused) + 1 == sizeof(struct state), "no padding");

static uint64_t hash_state(const struct state *state)
{
    uint64_t words[sizeof(*state) / sizeof(uint64_t)];
    uint64_t hash = UINT64_C(0x9e3779b97f4a7c15);
    memcpy(words, state, sizeof(words));
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        hash = mix(hash ^ words[i], UINT64_C(0xa0761d6478bd642f)) + UINT64_C(0xe7037ed1a0b428db);
    }
    hash = mix(hash, UINT64_C(0x8ebc6af09c88c6e3));
    return hash == 0 ? 1 : hash;
}

/* True where the hash was not there yet. */
static bool insert_hash(uint64_t *hashes, size_t n_slots, uint64_t hash)
{
    size_t i = hash & (n_slots - 1);
    while (hashes[i] != 0) {
        if (hashes[i] == hash) {
            return false;
        }
        i = (i + 1) & (n_slots - 1);
    }
    hashes[i] = hash;
    return true;
}

static void grow_hashes(struct searcher *searcher)
{
    size_t n_slots = searcher->n_slots * 2;
    uint64_t *hashes = must(calloc(n_slots, sizeof(*hashes)));
    for (size_t i = 0; i < searcher->n_slots; i++) {
        if (searcher->hashes[i] != 0) {
            insert_hash(hashes, n_slots, searcher->hashes[i]);
        }
    }
    free(searcher->hashes);
    searcher->hashes = hashes;
    searcher->n_slots = n_slots;
}

static void enqueue(struct searcher *searcher, const struct state *state, uint32_t number)
{
    struct block *block = searcher->last;
    if (block == NULL || block->n == BLOCK_STATES) {
        block = must(malloc(sizeof(*block)));
        block->next = NULL;
        block->n = 0;
        if (searcher->last == NULL) {
            searcher->first = block;
        } else {
            searcher->last->next = block;
        }
        searcher->last = block;
    }
    block->items[block->n++] = (struct pending){number, *state};
}

/* The next state to expand; false: none left. */
static bool dequeue(struct searcher *searcher, struct pending *out)
{
    if (searcher->first != NULL && searcher->next == BLOCK_STATES) {
        struct block *done = searcher->first;
        searcher->first = done->next;
        searcher->next = 0;
        if (searcher->first == NULL) {
            searcher->last = NULL;
        }
        free(done);
    }
    if (searcher->first == NULL || searcher->next == searcher->first->n) {
        return false;
    }
    *out = searcher->first->items[searcher->next++];
    return true;
}

static uint32_t remember(struct searcher *searcher, uint32_t parent, struct action action)
{
    if (searcher->n_states == searcher->n_origins) {
        searcher->n_origins *= 2;
        searcher->origins = must(
            realloc(searcher->origins, searcher->n_origins * sizeof(struct origin)));
    }
    searcher->origins[searcher->n_states] = (struct origin){parent, action};
    return (uint32_t)searcher->n_states++;
}

static void visit(struct searcher *searcher, const struct state *state, uint32_t parent,
                  struct action action)
{
    if (searcher->n_states * 5 >= searcher->n_slots * 3) {
        grow_hashes(searcher);
    }
    if (insert_hash(searcher->hashes, searcher->n_slots, hash_state(state))) {
        enqueue(searcher, state, remember(searcher, parent, action));
    }
}

static unsigned depth_of(const struct searcher *searcher, uint32_t number)
{
    unsigned depth = 0;
    for (; number != NO_PARENT; number = searcher->origins[number].parent) {
        depth++;
    }
    return depth;
}

/* The steps to state number, then one more where has_action. */
static void keep_trace(struct search_result *result, const struct searcher *searcher,
                       uint32_t number, const struct action *action)
{
    size_t n = depth_of(searcher, number);
    result->n_trace = n + (action != NULL);
    result->trace = must(malloc((result->n_trace + 1) * sizeof(*result->trace)));
    if (action != NULL) {
        result->trace[n] = *action;
    }
    while (n-- > 0) {
        result->trace[n] = searcher->origins[number].action;
        number = searcher->origins[number].parent;
    }
}

static void count_events(struct search_result *result, uint32_t events)
{
    for (unsigned i = 0; i < N_EVENTS; i++) {
        result->n_events[i] += events >> i & 1;
    }
}

/* Expands one state; true: a counterexample was found. */
static bool expand(struct searcher *searcher, struct world *world, const struct pending *pending,
                   uint32_t properties, struct search_result *result)
{
    struct action actions[MAX_ACTIONS];
    bool has_progress = false;
    world->state = pending->state;
    unsigned n = step_list(world, actions);
    for (unsigned i = 0; i < n; i++) {
        world->state = pending->state;
        if (!step_take(world, actions[i])) {
            continue;
        }
        has_progress |= actions[i].kind <= ACTION_LAST_PROGRESS;
        result->n_steps++;
        count_events(result, world->events);
        if ((world->broken & properties) != 0) {
            result->broken = world->broken;
            keep_trace(result, searcher, pending->number, &actions[i]);
            return true;
        }
        visit(searcher, &world->state, pending->number, actions[i]);
    }
    world->state = pending->state;
    if (!has_progress && (properties & PROPERTY_LIVE) != 0 && !world_is_finished(world)) {
        result->broken = PROPERTY_LIVE;
        keep_trace(result, searcher, pending->number, NULL);
        return true;
    }
    return false;
}

static double now_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void searcher_fini(struct searcher *searcher)
{
    while (searcher->first != NULL) {
        struct block *block = searcher->first;
        searcher->first = block->next;
        free(block);
    }
    free(searcher->hashes);
    free(searcher->origins);
}

void search(struct search_result *result, const struct config *config, uint32_t rules,
            uint32_t properties, uint64_t max_states)
{
    struct searcher searcher = {.n_slots = 1U << 16, .n_origins = 1U << 15};
    struct world world;
    struct pending pending;
    double start = now_seconds();
    memset(result, 0, sizeof(*result));
    searcher.hashes = must(calloc(searcher.n_slots, sizeof(uint64_t)));
    searcher.origins = must(malloc(searcher.n_origins * sizeof(struct origin)));
    world_init(&world, config, rules);
    visit(&searcher, &world.state, NO_PARENT, (struct action){0});
    uint32_t last = 0;
    result->is_complete = true;
    while (dequeue(&searcher, &pending)) {
        last = pending.number;
        if (searcher.n_states > max_states) {
            result->is_complete = false;
            break;
        }
        if (expand(&searcher, &world, &pending, properties, result)) {
            break;
        }
    }
    result->n_states = searcher.n_states;
    result->depth = result->trace != NULL ? (unsigned)result->n_trace : depth_of(&searcher, last);
    result->seconds = now_seconds() - start;
    searcher_fini(&searcher);
}

void search_result_fini(struct search_result *result)
{
    free(result->trace);
    result->trace = NULL;
}
