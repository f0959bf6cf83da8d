/*
 * bus_peers.h - what was heard last of each proxy of the group, per channel
 *
 * Purpose:    from the number of a message: is it the next one, was it there before, or is there
 *             one missing? And: who has fallen silent without a word?
 * Ownership:  the bus owns it. Bounded: of more than BUS_PEERS_MAX the one silent longest is
 *             forgotten, and called new when it is heard again.
 * Threading:  the bus's worker.
 * Units:      microseconds, clock_now_us().
 */
#ifndef NC_COHERENCE_BUS_PEERS_H
#define NC_COHERENCE_BUS_PEERS_H

#include "coherence/bus_record.h"

#define BUS_PEERS_MAX 1024

enum bus_order {
    BUS_NEXT,      /* as expected */
    BUS_DUPLICATE, /* known already: skip it */
    BUS_GAP,       /* at least one message before it was missed */
    BUS_FIRST,     /* first heard of on this channel, where it has said something before */
};

struct bus_peers; /* opaque */

struct bus_peers *bus_peers_new(unsigned n_channels);
void bus_peers_free(struct bus_peers **peers);

enum bus_order bus_peers_note(struct bus_peers *peers, const struct bus_header *header,
                              unsigned channel, int64_t now_us);

/* How many were heard since then, and have not taken their leave. */
unsigned bus_peers_count(const struct bus_peers *peers, int64_t since_us);
/* How many were not, and left without a word; each is told once, until it is heard again. */
unsigned bus_peers_take_silent(struct bus_peers *peers, int64_t since_us);

/* Anyone was ever heard on this channel. */
bool bus_peers_use(const struct bus_peers *peers, unsigned channel);

#endif
