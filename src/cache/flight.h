/*
 * flight.h - the fetches under way of one shard
 *
 * Purpose:    find a key's live flights, and end them. A flight that is void is off the chain at
 *             once: nobody finds it any more, its waiters still get its reply.
 * Ownership:  a flight belongs to whoever began it, until cache_complete(); the chain only links
 * it. Threading:  the shard's lock, but for flight_new() and flight_free(). Errors: flight_new():
 * NULL when there is no memory.
 */
#ifndef NC_CACHE_FLIGHT_H
#define NC_CACHE_FLIGHT_H

#include "cache/cache.h"

struct flights {
    struct cache_flight **heads; /* chains by hash of the key */
    unsigned n_heads;            /* a power of two */
};

void flights_init(struct flights *flights, unsigned n_heads);
/* Frees what is still on the chains. */
void flights_fini(struct flights *flights);

/* With copies of key and arguments; on no chain. */
struct cache_flight *flight_new(const struct cache_query *query, uint16_t slot);
/* Accepts NULL. */
void flight_free(struct cache_flight *flight);

void flights_add(struct flights *flights, struct cache_flight *flight);
void flights_remove(struct flights *flights, struct cache_flight *flight);
/* Makes it void and takes it off its chain. */
void flights_void(struct flights *flights, struct cache_flight *flight);

static inline bool flight_is_void(const struct cache_flight *flight)
{
    return atomic_load_explicit(&flight->is_void, memory_order_relaxed);
}

/* The first flight of key in any database, on the chain or behind `after` on it. */
struct cache_flight *flights_next_of_key(const struct flights *flights, uint64_t hash,
                                         struct bytes key, const struct cache_flight *after);
/* The live flight of one view, or NULL. */
struct cache_flight *flights_find(const struct flights *flights, const struct cache_query *query);
/* Whether flight, which may have been freed long since, is live: told by its address alone. */
bool flights_have(const struct flights *flights, uint64_t hash, const struct cache_flight *flight);

#endif
