#include "cache/flight.h"

#include "base/mem.h"
#include "base/stats.h"

void flights_init(struct flights *flights, unsigned n_heads)
{
    CHECK(n_heads > 0 && (n_heads & (n_heads - 1)) == 0);
    flights->heads = mem_alloc(n_heads * sizeof(struct cache_flight *));
    flights->n_heads = n_heads;
}

void flights_fini(struct flights *flights)
{
    for (unsigned i = 0; i < flights->n_heads; i++) {
        while (flights->heads[i] != NULL) {
            struct cache_flight *flight = flights->heads[i];
            flights->heads[i] = flight->next;
            flight_free(flight);
        }
    }
    mem_free(flights->heads);
    *flights = (struct flights){0};
}

struct cache_flight *flight_new(const struct cache_query *query, uint16_t slot)
{
    struct cache_flight *flight = mem_try_alloc(sizeof(*flight) + query->key.len + query->args.len);

    if (flight == NULL) {
        return NULL;
    }
    unsigned char *key = (unsigned char *)(flight + 1);
    unsigned char *args = key + query->key.len;
    *flight = (struct cache_flight){.key = bytes_make(key, query->key.len),
                                    .args = bytes_make(args, query->args.len),
                                    .hash = query->hash,
                                    .db = query->db,
                                    .slot = slot,
                                    .command = query->command,
                                    .t_sent_us = query->now_us};
    if (query->key.len > 0) {
        memcpy(key, query->key.ptr, query->key.len);
    }
    if (query->args.len > 0) {
        memcpy(args, query->args.ptr, query->args.len);
    }
    return flight;
}

void flight_free(struct cache_flight *flight)
{
    mem_free(flight);
}

static struct cache_flight **head_of(const struct flights *flights, uint64_t hash)
{
    return &flights->heads[(hash >> 14) & (flights->n_heads - 1)];
}

void flights_add(struct flights *flights, struct cache_flight *flight)
{
    struct cache_flight **head = head_of(flights, flight->hash);

    flight->next = *head;
    *head = flight;
}

void flights_remove(struct flights *flights, struct cache_flight *flight)
{
    struct cache_flight **at = head_of(flights, flight->hash);

    while (*at != flight) {
        CHECK(*at != NULL);
        at = &(*at)->next;
    }
    *at = flight->next;
    flight->next = NULL;
}

void flights_void(struct flights *flights, struct cache_flight *flight)
{
    flights_remove(flights, flight);
    atomic_store_explicit(&flight->is_void, true, memory_order_relaxed);
    stats_add(METRIC_flights_voided, 1);
}

struct cache_flight *flights_next_of_key(const struct flights *flights, uint64_t hash,
                                         struct bytes key, const struct cache_flight *after)
{
    struct cache_flight *flight = after != NULL ? after->next : *head_of(flights, hash);

    while (flight != NULL && !(flight->hash == hash && bytes_equal(flight->key, key))) {
        flight = flight->next;
    }
    return flight;
}

struct cache_flight *flights_find(const struct flights *flights, const struct cache_query *query)
{
    struct cache_flight *flight = NULL;

    do {
        flight = flights_next_of_key(flights, query->hash, query->key, flight);
    } while (flight != NULL && !(flight->db == query->db && flight->command == query->command &&
                                 bytes_equal(flight->args, query->args)));
    return flight;
}

bool flights_have(const struct flights *flights, uint64_t hash, const struct cache_flight *wanted)
{
    const struct cache_flight *flight = *head_of(flights, hash);

    while (flight != NULL && flight != wanted) {
        flight = flight->next;
    }
    return flight != NULL;
}
