/*
 *               not in G                 hits >= 2
 *     insert ------------> [ S, 10 % ] ------------> [ M, 90 % ] --+ hits > 0: hits - 1, to the
 * head |                      | else                    ^  | else| |                      v |  v |
 *        |                     [ G, keys worth 90 % ]     | gone <-+
 *        +------- in G ---------------------------------->+
 *
 * Negative entries have a small queue of their own: a walk over missing keys would otherwise push
 * values out. It counts as part of S.
 */
#include "cache/policy.h"

/* The small queue's part of the budget, and of the main queue what the ghost remembers: 1/10, 9/10.
 */
#define SMALL_DIVISOR 10u
/* Hits that carry an entry from the small queue into the main one. */
#define THRESHOLD 2u

void policy_init(struct policy *policy, const struct policy_ops *ops)
{
    *policy = (struct policy){.ops = ops};
}

/* ---- queues: new entries at the head, the oldest at the tail ---- */

static void set_queue(struct entry *entry, enum policy_queue queue)
{
    entry->queue = (uint8_t)((entry->queue & 0x80) | (unsigned)queue);
}

static void push(struct policy *policy, enum policy_queue queue, struct entry *entry, size_t cost)
{
    struct policy_list *list = &policy->lists[queue];
    const arena_ref ref = arena_ref_of(entry);

    entry->prev = ARENA_NONE;
    entry->next = list->head;
    if (list->head != ARENA_NONE) {
        entry_at(list->head)->prev = ref;
    } else {
        list->tail = ref;
    }
    list->head = ref;
    list->n++;
    list->bytes += cost;
    set_queue(entry, queue);
}

/* Makes both neighbours point to new_ref instead, or past it when it is none. */
static void relink(struct policy_list *list, const struct entry *entry, arena_ref new_ref)
{
    const bool is_gone = new_ref == ARENA_NONE;

    if (entry->prev != ARENA_NONE) {
        entry_at(entry->prev)->next = is_gone ? entry->next : new_ref;
    } else {
        list->head = is_gone ? entry->next : new_ref;
    }
    if (entry->next != ARENA_NONE) {
        entry_at(entry->next)->prev = is_gone ? entry->prev : new_ref;
    } else {
        list->tail = is_gone ? entry->prev : new_ref;
    }
}

void policy_remove(struct policy *policy, struct entry *entry, size_t cost)
{
    struct policy_list *list = &policy->lists[policy_queue_of(entry)];

    relink(list, entry, ARENA_NONE);
    list->n--;
    list->bytes -= cost;
    entry->next = entry->prev = ARENA_NONE;
    set_queue(entry, POLICY_NOWHERE);
}

void policy_replace(struct policy *policy, struct entry *old, size_t old_cost, struct entry *new,
                    size_t new_cost)
{
    struct policy_list *list = &policy->lists[policy_queue_of(old)];

    relink(list, old, arena_ref_of(new));
    new->next = old->next;
    new->prev = old->prev;
    new->hits = old->hits;
    new->queue = old->queue;
    list->bytes += new_cost - old_cost;
    old->next = old->prev = ARENA_NONE;
    set_queue(old, POLICY_NOWHERE);
}

void policy_resize(struct policy *policy, const struct entry *entry, size_t old_cost,
                   size_t new_cost)
{
    policy->lists[policy_queue_of(entry)].bytes += new_cost - old_cost;
}

/* ---- entering ---- */

static uint64_t small_share(uint64_t budget)
{
    return budget / SMALL_DIVISOR;
}

static uint64_t main_share(uint64_t budget)
{
    return budget - small_share(budget);
}

/* The ghost remembers keys worth as much as the main queue holds. */
static uint64_t ghost_window(uint64_t budget)
{
    return main_share(budget);
}

size_t policy_largest(uint64_t budget)
{
    return small_share(budget);
}

bool policy_admits(const struct policy *policy, uint64_t hash, size_t cost, uint64_t budget)
{
    if (cost < small_share(budget)) {
        return true;
    }
    return cost < main_share(budget) && ghost_has(&policy->ghost, hash);
}

void policy_insert(struct policy *policy, struct entry *entry, uint64_t hash, size_t cost)
{
    entry->hits = 0;
    if (entry_is_negative(entry)) {
        push(policy, POLICY_NEGATIVE, entry, cost);
    } else if (ghost_take(&policy->ghost, hash, cost)) {
        push(policy, POLICY_MAIN, entry, cost);
    } else {
        push(policy, POLICY_SMALL, entry, cost);
    }
}

/* ---- leaving ---- */

static void prefetch_tail(const struct policy_list *list)
{
    if (list->tail != ARENA_NONE) {
        __builtin_prefetch(arena_at(list->tail));
    }
}

/* Looks at the tail of one queue: it leaves (returned), or moves to the head of the main queue. */
static struct entry *try_tail(struct policy *policy, enum policy_queue queue, bool may_move,
                              uint64_t window, const void *context)
{
    const struct policy_list *list = &policy->lists[queue];
    struct entry *tail = entry_at(list->tail);
    const size_t cost = policy->ops->cost(tail);
    const uint8_t needed = queue == POLICY_MAIN ? 1 : THRESHOLD;

    policy_remove(policy, tail, cost);
    prefetch_tail(list);
    if (policy->ops->is_dead(context, tail)) {
        return tail;
    }
    if (tail->hits >= needed && may_move) {
        tail->hits = queue == POLICY_MAIN ? (uint8_t)(tail->hits - 1) : 0;
        push(policy, POLICY_MAIN, tail, cost);
        return NULL;
    }
    if (queue == POLICY_SMALL) {
        ghost_insert(&policy->ghost, policy->ops->hash(tail), cost, window);
    }
    return tail;
}

/* The negative queue has a limit of its own and gives only when there is nothing else. */
static enum policy_queue next_queue(const struct policy *policy, uint64_t budget)
{
    const struct policy_list *lists = policy->lists;

    if (lists[POLICY_MAIN].n > 0 &&
        (lists[POLICY_MAIN].bytes > main_share(budget) || lists[POLICY_SMALL].n == 0)) {
        return POLICY_MAIN;
    }
    if (lists[POLICY_SMALL].n > 0) {
        return POLICY_SMALL;
    }
    return lists[POLICY_NEGATIVE].n > 0 ? POLICY_NEGATIVE : POLICY_NOWHERE;
}

struct entry *policy_evict(struct policy *policy, uint64_t budget, const void *context,
                           unsigned *n_touched)
{
    for (unsigned moves = 0;; moves++) {
        const enum policy_queue queue = next_queue(policy, budget);

        if (queue == POLICY_NOWHERE) {
            return NULL;
        }
        ++*n_touched;
        struct entry *victim = try_tail(policy, queue, moves < POLICY_MOVES_MAX,
                                        ghost_window(budget), context);
        if (victim != NULL) {
            return victim;
        }
    }
}

struct entry *policy_evict_negative(struct policy *policy, const void *context, unsigned *n_touched)
{
    for (unsigned moves = 0; policy->lists[POLICY_NEGATIVE].n > 0; moves++) {
        ++*n_touched;
        struct entry *victim = try_tail(policy, POLICY_NEGATIVE, moves < POLICY_MOVES_MAX, 0,
                                        context);
        if (victim != NULL) {
            return victim;
        }
    }
    return NULL;
}

uint64_t policy_count(const struct policy *policy)
{
    const struct policy_list *lists = policy->lists;

    return lists[POLICY_SMALL].n + lists[POLICY_MAIN].n + lists[POLICY_NEGATIVE].n;
}

uint64_t policy_bytes(const struct policy *policy)
{
    const struct policy_list *lists = policy->lists;

    return lists[POLICY_SMALL].bytes + lists[POLICY_MAIN].bytes + lists[POLICY_NEGATIVE].bytes;
}

/* ---- the ghost's memory ---- */

/*
 * It is made when the queues are nearly full, as only then there is something to remember and the
 * number of entries is known; and again when that number has changed by a third.
 */
size_t policy_wanted_ghost(const struct policy *policy, uint64_t budget)
{
    const struct ghost *ghost = &policy->ghost;
    const size_t ideal = policy_count(policy) * GHOST_BYTES_PER_KEY;
    const size_t wanted = ideal > GHOST_MIN_BYTES ? arena_class_at_most(ideal) : GHOST_MIN_BYTES;
    const size_t present = ghost->now.n_bytes;

    if (ghost->old.slots != NULL || policy_bytes(policy) < budget - budget / 8) {
        return 0;
    }
    if (present == 0 || wanted > present + present / 3 || wanted < present - present / 3) {
        return wanted;
    }
    return 0;
}

void policy_install_ghost(struct policy *policy, uint32_t *slots, size_t n_bytes, uint64_t budget)
{
    ghost_install(&policy->ghost, slots, n_bytes, ghost_window(budget));
}

uint32_t *policy_retire_ghost(struct policy *policy)
{
    return ghost_retire(&policy->ghost);
}
