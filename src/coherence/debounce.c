/*
 * Windows stand in a hash table by name, and in a heap by their ends. What is taken has no longer
 * anything held before it is done: what comes meanwhile is held for the next end, so that nothing
 * falls in between.
 */
#include "coherence/debounce.h"

#include "base/mem.h"
#include "base/stats.h"
#include "cache/hash.h"

#include <pthread.h>

#define N_HEADS 4096u

struct window {
    struct window *next; /* of its head */
    uint64_t hash;
    int64_t ends_at_us, length_us;
    bool is_held;
    struct debounce_what what;
    size_t len;
    unsigned char name[];
};

struct debounce {
    pthread_mutex_t lock; /* a leaf */
    struct window *heads[N_HEADS];
    struct window *heap[DEBOUNCE_MAX]; /* the first one ends first */
    unsigned n;
    struct window *taken; /* whose name the caller of debounce_take() sees; its own copy */
};

struct debounce *debounce_new(void)
{
    struct debounce *debounce = mem_alloc(sizeof(*debounce));

    pthread_mutex_init(&debounce->lock, NULL);
    return debounce;
}

void debounce_free(struct debounce **debounce)
{
    struct debounce *gone = *debounce;

    *debounce = NULL;
    if (gone == NULL) {
        return;
    }
    for (unsigned i = 0; i < gone->n; i++) {
        mem_free(gone->heap[i]);
    }
    mem_free(gone->taken);
    pthread_mutex_destroy(&gone->lock);
    mem_free(gone);
}

/* ---- the heap ---- */

static void swap(struct debounce *debounce, unsigned a, unsigned b)
{
    struct window *window = debounce->heap[a];

    debounce->heap[a] = debounce->heap[b];
    debounce->heap[b] = window;
}

static void sift_up(struct debounce *debounce, unsigned at)
{
    while (at > 0 && debounce->heap[at]->ends_at_us < debounce->heap[(at - 1) / 2]->ends_at_us) {
        swap(debounce, at, (at - 1) / 2);
        at = (at - 1) / 2;
    }
}

static void sift_down(struct debounce *debounce)
{
    unsigned at = 0;

    for (;;) {
        unsigned least = at;

        for (unsigned child = 2 * at + 1; child <= 2 * at + 2 && child < debounce->n; child++) {
            if (debounce->heap[child]->ends_at_us < debounce->heap[least]->ends_at_us) {
                least = child;
            }
        }
        if (least == at) {
            return;
        }
        swap(debounce, at, least);
        at = least;
    }
}

/* ---- windows ---- */

static bool is_same(const struct debounce_what *a, const struct debounce_what *b)
{
    return a->kind == b->kind && a->is_glob == b->is_glob && a->rule == b->rule && a->of == b->of &&
           a->db == b->db;
}

static struct window **find(struct debounce *debounce, const struct debounce_what *what,
                            struct bytes name, uint64_t hash)
{
    struct window **at = &debounce->heads[hash % N_HEADS];

    while (*at != NULL && !((*at)->hash == hash && is_same(&(*at)->what, what) &&
                            bytes_equal(bytes_make((*at)->name, (*at)->len), name))) {
        at = &(*at)->next;
    }
    return at;
}

static struct window *window_new(const struct debounce_what *what, struct bytes name)
{
    struct window *window = mem_try_alloc(sizeof(*window) + name.len);

    if (window != NULL) {
        memset(window, 0, sizeof(*window));
        window->what = *what;
        window->len = name.len;
        memcpy(window->name, name.ptr, name.len);
    }
    return window;
}

static bool hold_locked(struct debounce *debounce, const struct debounce_what *what,
                        struct bytes name, int64_t window_us, int64_t now_us)
{
    const uint64_t hash = hash_key(name);
    struct window **at = find(debounce, what, name, hash);
    struct window *window = *at;

    if (window != NULL) {
        stats_add(METRIC_debounce_merged, window->is_held);
        stats_add(METRIC_debounce_held, !window->is_held);
        window->what.rules = window->is_held ? window->what.rules & what->rules : what->rules;
        window->is_held = true;
        return true;
    }
    window = debounce->n < DEBOUNCE_MAX ? window_new(what, name) : NULL;
    if (window == NULL) {
        stats_add(METRIC_debounce_overflowed, 1);
        return false;
    }
    window->hash = hash;
    window->length_us = window_us;
    window->ends_at_us = now_us + window_us;
    *at = window;
    debounce->heap[debounce->n++] = window;
    sift_up(debounce, debounce->n - 1);
    return false;
}

bool debounce_hold(struct debounce *debounce, const struct debounce_what *what, struct bytes name,
                   int64_t window_us, int64_t now_us)
{
    pthread_mutex_lock(&debounce->lock);
    const bool is_held = hold_locked(debounce, what, name, window_us, now_us);
    pthread_mutex_unlock(&debounce->lock);
    return is_held;
}

/* It ends with nothing held. */
static void close_first(struct debounce *debounce)
{
    struct window *gone = debounce->heap[0];
    struct window **at = find(debounce, &gone->what, bytes_make(gone->name, gone->len), gone->hash);

    *at = gone->next;
    debounce->heap[0] = debounce->heap[--debounce->n];
    sift_down(debounce);
    mem_free(gone);
}

/* A copy of the first one that is due and holds something; its next window begins. */
static struct window *take_locked(struct debounce *debounce, int64_t now_us)
{
    while (debounce->n > 0 && debounce->heap[0]->ends_at_us <= now_us) {
        struct window *first = debounce->heap[0], *copy;

        if (!first->is_held) {
            close_first(debounce);
            continue;
        }
        copy = window_new(&first->what, bytes_make(first->name, first->len));
        if (copy == NULL) {
            return NULL; /* in the next tick */
        }
        first->is_held = false;
        first->ends_at_us = now_us + first->length_us;
        sift_down(debounce);
        return copy;
    }
    return NULL;
}

bool debounce_take(struct debounce *debounce, int64_t now_us, struct debounce_what *what,
                   struct bytes *name)
{
    mem_free(debounce->taken);
    pthread_mutex_lock(&debounce->lock);
    debounce->taken = take_locked(debounce, now_us);
    pthread_mutex_unlock(&debounce->lock);
    if (debounce->taken == NULL) {
        return false;
    }
    *what = debounce->taken->what;
    *name = bytes_make(debounce->taken->name, debounce->taken->len);
    return true;
}

unsigned debounce_count(struct debounce *debounce)
{
    pthread_mutex_lock(&debounce->lock);
    const unsigned n = debounce->n;
    pthread_mutex_unlock(&debounce->lock);
    return n;
}
