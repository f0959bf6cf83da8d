/*
 * Design: one word per place, the time in units of 2 ms (rounded up) above the node's number. Only
 * the newest event counts: what allowed a replica to show the key vouches for everything before.
 */
#include "coherence/recent.h"

#include "base/mem.h"

#include <stdatomic.h>

#define PLACES 65536u
#define UNIT_US 2000

struct recent {
    _Atomic int64_t floor_us;
    _Atomic uint64_t places[PLACES];
};

struct recent *recent_new(void)
{
    return mem_alloc(sizeof(struct recent));
}

void recent_free(struct recent **recent)
{
    mem_free(*recent);
    *recent = NULL;
}

static uint64_t word_of(epochs_node node, int64_t now_us)
{
    return (uint64_t)(now_us / UNIT_US + 1) << 16 | node;
}

static bool word_allows(uint64_t word, epochs_node replica, int64_t caught_up_us)
{
    return (epochs_node)(word & 0xffff) == replica ||
           caught_up_us > (int64_t)(word >> 16) * UNIT_US;
}

void recent_note(struct recent *recent, uint64_t hash, int64_t now_us)
{
    const uint64_t word = word_of(0, now_us);
    _Atomic uint64_t *place = &recent->places[hash % PLACES];
    uint64_t before = atomic_load_explicit(place, memory_order_relaxed);

    /* Of one unit of time the master's word stays. */
    while (before >> 16 <= word >> 16 &&
           !atomic_compare_exchange_weak_explicit(place, &before, word, memory_order_release,
                                                  memory_order_relaxed)) {
    }
}

/* What the place says after a replica has shown the key. */
static uint64_t shown_after(uint64_t before, epochs_node replica, int64_t caught_up_us,
                            int64_t now_us)
{
    const uint64_t word = word_of(replica, now_us), of_master = word_of(0, now_us);

    if (word_allows(before, replica, caught_up_us)) {
        return before >> 16 < word >> 16 ? word : before;
    }
    /*
     * It was asked for before the key was written, perhaps, or shown elsewhere. But it may also
     * have shown something newer than that: who shows it next must have either.
     */
    return before >> 16 < of_master >> 16 ? of_master : before & ~UINT64_C(0xffff);
}

void recent_note_replica(struct recent *recent, uint64_t hash, epochs_node replica,
                         int64_t caught_up_us, int64_t now_us)
{
    _Atomic uint64_t *place = &recent->places[hash % PLACES];
    uint64_t before = atomic_load_explicit(place, memory_order_relaxed);
    uint64_t word;

    do {
        word = shown_after(before, replica, caught_up_us, now_us);
    } while (word != before &&
             !atomic_compare_exchange_weak_explicit(place, &before, word, memory_order_release,
                                                    memory_order_relaxed));
}

void recent_note_all(struct recent *recent, int64_t now_us)
{
    atomic_store_explicit(&recent->floor_us, now_us, memory_order_release);
}

bool recent_allows(const struct recent *recent, uint64_t hash, epochs_node replica,
                   int64_t caught_up_us)
{
    const uint64_t word = atomic_load_explicit(&recent->places[hash % PLACES],
                                               memory_order_acquire);

    if (caught_up_us <= atomic_load_explicit(&recent->floor_us, memory_order_acquire)) {
        return false;
    }
    return word_allows(word, replica, caught_up_us);
}
