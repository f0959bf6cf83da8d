/*
 * bus_lines.h - the channels of the bus, and the connections that they are on
 *
 * Purpose:    be subscribed to every channel where the map says that it belongs, again after each
 *             loss and move, and publish on them. One connection per node carries both.
 * Ownership:  the bus owns the lines, the lines their links. What is published is copied.
 * Threading:  the bus's worker.
 * Errors:     lines_publish() as link_send(). What the backend refuses for good is told once
 *             (on_refused); what it refuses for the moment is tried again.
 * Units:      clock_now_us().
 *
 * One channel, "nc:<group>:inv", where messages reach every node: no cluster, or one before 7.0.
 * Otherwise LINES_MAX shard channels, "nc:<group>:{<k>}:inv", whose slots are spread over all
 * slots. Their names do not depend on the map, so that proxies with different maps hear each
 * other; of those that a master owns, the lowest is in use.
 */
#ifndef NC_COHERENCE_BUS_LINES_H
#define NC_COHERENCE_BUS_LINES_H

#include "coherence/coherence.h"

#define LINES_MAX 64
/* No channel: no map is known, or it has no owner for anything. */
#define LINES_NONE LINES_MAX

struct bus_lines; /* opaque */

struct bus_lines_events {
    void (*on_message)(void *context, unsigned channel, struct bytes payload);
    /* The subscription broke (for_us 0), or is back after so long. */
    void (*on_missed)(void *context, unsigned channel, int64_t for_us);
    /* A message could be published that could not before. */
    void (*on_ready)(void *context);
    /* The node that has the channel now has executed a PUBLISH of this number. */
    void (*on_published)(void *context, unsigned channel, uint64_t seq, bool is_heartbeat);
    /* Words of an error; the lines are to be closed in the next tick. */
    void (*on_refused)(void *context, struct bytes error);
};

/* home, events and context outlive the lines. */
struct bus_lines *lines_new(struct coherence *home, const struct bus_lines_events *events,
                            void *context);
void lines_free(struct bus_lines **lines);

/* is_back: messages may have been missed since they were open last. Not from within an event. */
void lines_open(struct bus_lines *lines, const char *group, bool is_sharded, bool is_back);
void lines_close(struct bus_lines *lines);
bool lines_are_open(const struct bus_lines *lines);
bool lines_is_sharded(const struct bus_lines *lines);
unsigned lines_count(const struct bus_lines *lines);
struct bytes lines_name(const struct bus_lines *lines, unsigned channel);

/* Subscribed to every channel that has an owner, and there is one. */
bool lines_are_up(const struct bus_lines *lines);
/* This proxy sends on it. */
bool lines_is_used(const struct bus_lines *lines, unsigned channel);
/* Where to send what concerns a key, or (NULL) anything: a channel in use, or LINES_NONE. */
unsigned lines_choose(const struct bus_lines *lines, const struct bytes *key);

bool lines_can_publish(const struct bus_lines *lines, unsigned channel);
NC_MUST_CHECK int lines_publish(struct bus_lines *lines, unsigned channel, struct bytes message,
                                uint64_t seq, bool is_heartbeat);

/* The map, or the configuration, has changed. */
void lines_move(struct bus_lines *lines);
void lines_tick(struct bus_lines *lines, int64_t now_us);

#endif
