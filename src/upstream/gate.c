#include "upstream/gate.h"

#include "base/bucket.h"
#include "base/check.h"
#include "base/mem.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

/* Addresses that nobody connects to are forgotten from here on. */
#define REMEMBERED_MAX 256u

struct gate {
    struct gate *next;         /* lock */
    unsigned n_users;          /* lock */
    _Atomic unsigned n_inside; /* atomic */
    struct bucket bucket;
    char address[300];
};

static struct {
    pthread_mutex_t lock;           /* a leaf */
    struct gate *first;             /* lock */
    unsigned n;                     /* lock */
    _Atomic int64_t parallel, rate; /* atomic */
    _Atomic unsigned n_inside;      /* atomic: for /metrics */
} gates = {.lock = PTHREAD_MUTEX_INITIALIZER, .parallel = 128, .rate = 5000};

void gate_configure(int64_t parallel, int64_t rate)
{
    atomic_store_explicit(&gates.parallel, parallel, memory_order_relaxed);
    atomic_store_explicit(&gates.rate, rate, memory_order_relaxed);
}

/* In the order of their last use, the oldest at the end. */
static void forget_one_locked(void)
{
    struct gate **unused = NULL;

    for (struct gate **at = &gates.first; *at != NULL; at = &(*at)->next) {
        if ((*at)->n_users == 0) {
            unused = at;
        }
    }
    if (unused != NULL) {
        struct gate *const gone = *unused;

        *unused = gone->next;
        gates.n--;
        mem_free(gone);
    }
}

struct gate *gate_get(const char *address)
{
    struct gate **at = &gates.first;
    struct gate *gate;

    pthread_mutex_lock(&gates.lock);
    while (*at != NULL && strncmp((*at)->address, address, sizeof((*at)->address) - 1) != 0) {
        at = &(*at)->next;
    }
    gate = *at;
    if (gate != NULL) {
        *at = gate->next;
    } else {
        if (gates.n >= REMEMBERED_MAX) {
            forget_one_locked();
        }
        gate = mem_alloc(sizeof(*gate));
        (void)snprintf(gate->address, sizeof(gate->address), "%s", address);
        gates.n++;
    }
    gate->next = gates.first;
    gates.first = gate;
    gate->n_users++;
    pthread_mutex_unlock(&gates.lock);
    return gate;
}

void gate_put(struct gate **gate)
{
    if (*gate == NULL) {
        return;
    }
    pthread_mutex_lock(&gates.lock);
    CHECK((*gate)->n_users > 0);
    (*gate)->n_users--;
    pthread_mutex_unlock(&gates.lock);
    *gate = NULL;
}

bool gate_enter(struct gate *gate, bool is_leased, int64_t now_us)
{
    const int64_t parallel = atomic_load_explicit(&gates.parallel, memory_order_relaxed);
    const int64_t places = is_leased && parallel > 1 ? parallel - (parallel + 7) / 8 : parallel;

    if (atomic_fetch_add_explicit(&gate->n_inside, 1, memory_order_relaxed) >= places ||
        !bucket_take(&gate->bucket, atomic_load_explicit(&gates.rate, memory_order_relaxed),
                     now_us)) {
        atomic_fetch_sub_explicit(&gate->n_inside, 1, memory_order_relaxed);
        return false;
    }
    atomic_fetch_add_explicit(&gates.n_inside, 1, memory_order_relaxed);
    return true;
}

void gate_leave(struct gate *gate)
{
    atomic_fetch_sub_explicit(&gates.n_inside, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&gate->n_inside, 1, memory_order_relaxed);
}

unsigned gate_count_inside(void)
{
    return atomic_load_explicit(&gates.n_inside, memory_order_relaxed);
}

unsigned gate_count(void)
{
    unsigned n;

    pthread_mutex_lock(&gates.lock);
    n = gates.n;
    pthread_mutex_unlock(&gates.lock);
    return n;
}
