/*
 * bus.h - what proxies of one group tell each other
 *
 * Purpose:    a proxy that drops something which no invalidation of the backend tells of (a
 *             pattern, a namespace, SWAPDB) tells the others, over publish/subscribe at the backend
 *             that they share. Messages are numbered: one that is missed is noticed, and then
 *             on_gap() says so, as nothing can be repaired.
 * Ownership:  one per process; made after the workers' coherence, freed before it.
 * Threading:  the bus lives on the first worker. bus_send() from any thread; bus_count_peers() and
 *             bus_state_name() from any thread; everything else on the bus's worker, or while no
 *             worker runs.
 * Errors:     none are returned. What cannot be sent is counted, and a number is left out, so that
 *             the others notice. A backend that does not permit it: the bus is "refused", the log
 *             says why, and it is tried again now and then.
 * Units:      clock_now_us().
 */
#ifndef NC_COHERENCE_BUS_H
#define NC_COHERENCE_BUS_H

#include "coherence/bus_record.h"
#include "coherence/coherence.h"

/*
 * Opaque; the process's is coherence->fleet->bus. At the end of the process it goes before requests
 * and scrapes that are under way: bus_send(), bus_count_peers() and bus_is_up() accept NULL.
 */
struct bus;

/* On the bus's worker. The first two may be called for any message of another proxy. */
struct bus_events {
    /* One record of another proxy; valid for the call. Kinds that are not known: flush. */
    void (*on_record)(void *context, const struct bus_record *record);
    /* Messages may have been missed: whatever the group could have told is to be dropped. */
    void (*on_gap)(void *context);
    /*
     * Somebody listens who has missed what was said before, or this proxy itself was away: what
     * lasts is to be told once more, a piece in each call. True: there is more, in the next tick.
     */
    bool (*on_newcomer)(void *context, bool is_beginning);
};

/* events and context stay as long as the bus. */
struct bus *bus_new(struct coherence_fleet *fleet, const struct bus_events *events, void *context);
void bus_free(struct bus **bus);

/*
 * Any worker: what was applied here already is told to the other proxies of the group, at the end
 * of the turn (batched, duplicates merged). The record is copied. Does nothing while the bus is
 * off. from NULL: any other thread.
 */
void bus_send(struct bus *bus, struct coherence *from, const struct bus_record *record);

/* Proxies of the group heard of within three heartbeats, this one not counted. */
unsigned bus_count_peers(const struct bus *bus);

/* "off", "connecting", "up" (heard and may be heard on all channels) or "refused". */
const char *bus_state_name(const struct bus *bus);

/* The bus's worker: the map, or the configuration, has changed. */
void bus_move(struct bus *bus);
void bus_set_config(struct bus *bus);

/* From coherence.c: every few milliseconds, on the bus's worker. */
void bus_tick(struct bus *bus, int64_t now_us);
/* Control thread, before the workers are stopped: the others need not wonder about the silence. */
void bus_leave(struct bus *bus);
bool bus_is_up(const struct bus *bus);

/*
 * A channel, a message of a bus of any group: clients that subscribe to patterns are not shown
 * them.
 */
bool bus_is_channel(struct bytes channel);
bool bus_is_message(struct bytes channel, struct bytes payload);

#endif
