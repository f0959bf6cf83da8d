/*
 * Design: as base/stats.c, a block per thread on a list that only grows. Samples are rare, so a
 * lock that is tried costs nothing that counts; trying instead of waiting is what lets a reader
 * copy a sketch in peace.
 */
#include "cache/hot_keys.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"

struct hot_block {
    pthread_mutex_t lock;              /* a leaf */
    struct top_keys keys[N_HOT_KINDS]; /* lock; capacity 0: none yet */
    int64_t halved_at_us;              /* lock */
    uint64_t left[N_HOT_KINDS];        /* its thread: hot_keys_note(), until the next sample */
    unsigned sample;                   /* its thread: what `left` was drawn for */
    uint64_t random;                   /* its thread */
    struct hot_block *next;            /* init */
};

static _Thread_local struct hot_block *mine;
static pthread_mutex_t registry = PTHREAD_MUTEX_INITIALIZER; /* taken before a block's */
static struct hot_block *blocks;                             /* registry; only ever added to */

static _Atomic unsigned sample_every;  /* atomic */
static _Atomic unsigned wanted;        /* atomic: capacity */
static _Atomic int64_t decay_every_us; /* atomic */

void hot_keys_configure(unsigned sample, unsigned capacity, int64_t decay_us)
{
    atomic_store_explicit(&wanted, capacity, memory_order_relaxed);
    atomic_store_explicit(&decay_every_us, decay_us, memory_order_relaxed);
    atomic_store_explicit(&sample_every, sample, memory_order_relaxed);
}

unsigned hot_keys_sample(void)
{
    return atomic_load_explicit(&sample_every, memory_order_relaxed);
}

static uint32_t now_s(int64_t now_us)
{
    return (uint32_t)(now_us / 1000000);
}

static struct hot_block *own_block(void)
{
    if (mine != NULL) {
        return mine;
    }
    mine = mem_alloc(sizeof(*mine));
    pthread_mutex_init(&mine->lock, NULL);
    mine->halved_at_us = clock_now_us();
    mine->random = (uint64_t)mine->halved_at_us * 2 + 1;
    pthread_mutex_lock(&registry);
    mine->next = blocks;
    blocks = mine;
    pthread_mutex_unlock(&registry);
    return mine;
}

/* xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators". */
static uint64_t draw(struct hot_block *block, unsigned sample)
{
    block->random ^= block->random >> 12;
    block->random ^= block->random << 25;
    block->random ^= block->random >> 27;
    return 1 + ((block->random * UINT64_C(2685821657736338717)) >> 32) % (2 * (uint64_t)sample - 1);
}

uint64_t hot_keys_interval(void)
{
    const unsigned sample = hot_keys_sample();

    return sample == 0 ? 0 : draw(own_block(), sample);
}

/* ---- adding ---- */

static void decay_locked(struct hot_block *block, int64_t now_us)
{
    const int64_t every_us = atomic_load_explicit(&decay_every_us, memory_order_relaxed);
    int64_t n;

    if (every_us <= 0 || now_us - block->halved_at_us < every_us) {
        return;
    }
    n = (now_us - block->halved_at_us) / every_us;
    block->halved_at_us += n * every_us;
    for (unsigned i = 0; i < HOT_SIZES; i++) {
        top_keys_halve(&block->keys[i], n < 64 ? (unsigned)n : 64);
    }
    top_keys_forget(&block->keys[HOT_SIZES], now_s(now_us) - HOT_SIZES_AGE_S);
}

/* NULL: there is no memory for it. */
static struct top_keys *keys_locked(struct hot_block *block, enum hot_kind kind)
{
    const uint32_t capacity = atomic_load_explicit(&wanted, memory_order_relaxed);
    struct top_keys *keys = &block->keys[kind];

    if (keys->capacity != capacity) {
        top_keys_fini(keys);
        if (capacity == 0 || top_keys_init(keys, capacity) != 0) {
            return NULL;
        }
    }
    return keys;
}

static void add_locked(struct hot_block *block, enum hot_kind kind, uint64_t hash, struct bytes key,
                       uint64_t weight, int64_t now_us)
{
    struct top_keys *keys = keys_locked(block, kind);

    if (keys != NULL && kind == HOT_SIZES) {
        top_keys_set(keys, hash, key, weight, now_s(now_us));
    } else if (keys != NULL) {
        top_keys_add(keys, hash, key, weight, now_s(now_us));
    }
}

static void add(enum hot_kind kind, uint64_t hash, struct bytes key, uint64_t weight)
{
    struct hot_block *own = own_block();
    const int64_t now_us = clock_now_us();

    if (pthread_mutex_trylock(&own->lock) == 0) {
        decay_locked(own, now_us);
        add_locked(own, kind, hash, key, weight, now_us);
        pthread_mutex_unlock(&own->lock);
    }
}

void hot_keys_hit(uint64_t hash, struct bytes key, uint64_t n_bytes, int64_t now_us)
{
    const unsigned sample = hot_keys_sample();
    struct hot_block *own = own_block();

    if (sample > 0 && pthread_mutex_trylock(&own->lock) == 0) {
        decay_locked(own, now_us);
        add_locked(own, HOT_REQUESTS, hash, key, sample, now_us);
        add_locked(own, HOT_BYTES, hash, key, n_bytes * sample, now_us);
        pthread_mutex_unlock(&own->lock);
    }
}

void hot_keys_note(enum hot_kind kind, uint64_t hash, struct bytes key, uint64_t weight)
{
    const unsigned sample = hot_keys_sample();
    struct hot_block *own;

    if (sample == 0) {
        return;
    }
    own = own_block();
    if (own->sample != sample) {
        own->sample = sample;
        memset(own->left, 0, sizeof(own->left));
    }
    if (own->left[kind] == 0) {
        own->left[kind] = draw(own, sample);
    }
    if (--own->left[kind] == 0) {
        add(kind, hash, key, weight * sample);
    }
}

void hot_keys_size(uint64_t hash, struct bytes key, uint64_t n_bytes)
{
    if (hot_keys_sample() > 0) {
        add(HOT_SIZES, hash, key, n_bytes);
    }
}

/* ---- reading ---- */

static struct hot_block *first_block(void)
{
    pthread_mutex_lock(&registry);
    struct hot_block *first = blocks;
    pthread_mutex_unlock(&registry);
    return first;
}

/* Merging hashes and sorts; under the lock there is a copy and no more. */
static int copy_of(struct hot_block *block, enum hot_kind kind, struct top_keys *copy)
{
    const uint32_t capacity = atomic_load_explicit(&wanted, memory_order_relaxed);
    int error = capacity == 0 ? -ENOMEM : top_keys_init(copy, capacity);

    if (error != 0) {
        return error;
    }
    pthread_mutex_lock(&block->lock);
    decay_locked(block, clock_now_us());
    const struct top_keys *keys = &block->keys[kind];
    if (keys->capacity == capacity) {
        copy->n = keys->n;
        memcpy(copy->items, keys->items, keys->n * sizeof(keys->items[0]));
    }
    pthread_mutex_unlock(&block->lock);
    return 0;
}

int hot_keys_collect(enum hot_kind kind, struct top_keys *out)
{
    uint32_t capacity = 1;
    int error;

    for (const struct hot_block *block = first_block(); block != NULL; block = block->next) {
        capacity += atomic_load_explicit(&wanted, memory_order_relaxed);
    }
    error = top_keys_init(out, capacity);
    for (struct hot_block *block = first_block(); block != NULL && error == 0;
         block = block->next) {
        struct top_keys copy;

        error = copy_of(block, kind, &copy);
        if (error == 0) {
            top_keys_merge(out, &copy, kind == HOT_SIZES);
            top_keys_fini(&copy);
        }
    }
    if (error != 0) {
        top_keys_fini(out);
    }
    return error;
}

void hot_keys_reset(void)
{
    for (struct hot_block *block = first_block(); block != NULL; block = block->next) {
        pthread_mutex_lock(&block->lock);
        for (unsigned i = 0; i < N_HOT_KINDS; i++) {
            if (block->keys[i].capacity > 0) {
                top_keys_clear(&block->keys[i]);
            }
        }
        pthread_mutex_unlock(&block->lock);
    }
}
