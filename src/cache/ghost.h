/*
 * ghost.h - which keys were evicted not long ago, 4 bytes each
 *
 * Purpose:    a key that comes back soon after it was dropped belongs into the main queue. 4-way
 *             sets of slots: 16 bits of the hash, 16 bits of time. Time is counted in bytes
 *             evicted. "Not long ago": the keys dropped since then that have not come back are
 *             worth no more than the window; a histogram over time says when that was.
 * Ownership:  slot arrays come from the caller, made outside its lock, and go back to it.
 * Threading:  none; the caller's lock.
 * Errors:     none; without an array nothing is remembered.
 * Units:      bytes (or whatever the policy counts sizes in).
 */
#ifndef NC_CACHE_GHOST_H
#define NC_CACHE_GHOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GHOST_MIN_BYTES ((size_t)4096)
/* Slots per key that fits into the window, in bytes: 1.25 slots. */
#define GHOST_BYTES_PER_KEY 5u
#define GHOST_BINS 256u

struct ghost_table {
    uint32_t *slots; /* NULL: absent */
    uint32_t n_sets;
    unsigned unit_shift; /* one tick of a slot's time is 1 << unit_shift bytes */
    size_t n_bytes;      /* of the array */
};

struct ghost {
    struct ghost_table now;
    struct ghost_table old; /* after a change of size: asked too, until all it holds is too old */
    uint64_t old_ended_at;  /* the clock when it was replaced */
    uint64_t clock;         /* bytes that went so far */
    uint64_t present;       /* of these, what is remembered: the sum of the bins */
    uint64_t oldest_bin;    /* what is before it is forgotten */
    unsigned bin_shift;     /* a bin is 1 << bin_shift bytes of the clock */
    uint32_t cleaned;       /* sets are cleaned in turn, before 16-bit times come round */
    uint32_t bins[GHOST_BINS];
};

static inline size_t ghost_bytes(const struct ghost *ghost)
{
    return ghost->now.n_bytes + ghost->old.n_bytes;
}

/* Starts a new array (zeroed); the former one is asked as long as it may know something. */
void ghost_install(struct ghost *ghost, uint32_t *slots, size_t n_bytes, uint64_t window);
/* An array that is of no use any more, or NULL. */
uint32_t *ghost_retire(struct ghost *ghost);

bool ghost_has(const struct ghost *ghost, uint64_t hash);
/* Forgets hash, says whether it was there. bytes: what has come back. */
bool ghost_take(struct ghost *ghost, uint64_t hash, uint64_t bytes);
void ghost_insert(struct ghost *ghost, uint64_t hash, uint64_t bytes, uint64_t window);

#endif
