/*
 * tracked.h - which clients of one worker may keep which keys in a cache of their own
 *
 * Purpose:    the table behind CLIENT TRACKING: a key is remembered with the clients that read it,
 *             and forgotten when they are told of a change.
 * Ownership:  the table owns the names. Clients are numbers: one that has gone stays in the table
 *             until its key is forgotten, or needs more room.
 * Threading:  its worker only.
 * Errors:     tracked_add() answers false when there is no memory: the key is not remembered.
 *
 * Source: the tracking table of Redis, https://redis.io/docs/manual/client-side-caching/
 */
#ifndef NC_PROXY_TRACKED_H
#define NC_PROXY_TRACKED_H

#include "base/check.h"
#include "proxy/topic.h"

#define TRACKED_PARTS 64

struct tracked_key;

/* All zero is an empty table. */
struct tracked {
    struct topic_table parts[TRACKED_PARTS]; /* small ones: none takes long to grow */
    struct tracked_key *oldest, *newest;
    unsigned n;
    uint64_t generation; /* what was remembered under an earlier one is void */
    /* May be NULL. Asked of the clients of a key that has many, before it remembers more. */
    bool (*is_gone)(void *context, uint64_t client);
    void *context;
};

typedef void (*tracked_fn)(void *context, uint64_t client);

/* The key is the newest then. */
NC_MUST_CHECK bool tracked_add(struct tracked *table, struct bytes key, uint64_t client);
/* Forgets the key; calls fn for each client that it was remembered for. */
void tracked_take(struct tracked *table, struct bytes key, tracked_fn fn, void *context);
/* This client's part in the key only. */
void tracked_remove(struct tracked *table, struct bytes key, uint64_t client);
/* Everything is void from now on; tracked_sweep() frees it little by little. */
void tracked_void(struct tracked *table);
void tracked_sweep(struct tracked *table, unsigned n_max);
/* The name of the key that was read last the longest ago, to be taken before the next call; empty:
 * none. */
struct bytes tracked_oldest(const struct tracked *table);
void tracked_fini(struct tracked *table);

#endif
