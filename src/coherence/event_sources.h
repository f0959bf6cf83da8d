/*
 * event_sources.h - channels and streams at the backend whose messages are events
 *
 * Purpose:    listen where the configuration says ([event-source "name"]), and publish what is
 *             heard (events.h). Every proxy listens itself, so nobody tells another one. Where
 *             messages may have been missed, everything is dropped.
 * Ownership:  one per process, fleet->event_sources; made after the workers' coherence. It keeps a
 *             reference to the configuration.
 * Threading:  the first worker, or while no worker runs; event_sources_count() any thread.
 * Errors:     none are returned. Connections that fail are made again, and counted.
 * Units:      clock_now_us().
 */
#ifndef NC_COHERENCE_EVENT_SOURCES_H
#define NC_COHERENCE_EVENT_SOURCES_H

#include "coherence/events.h"

struct event_sources; /* opaque */

struct event_sources *event_sources_new(struct coherence_fleet *fleet, struct config *config);
/* Events under way go on, and nobody hears how they end. */
void event_sources_free(struct event_sources **sources);

/* The configuration, or the map, is another one. */
void event_sources_set_config(struct event_sources *sources, struct config *config);
void event_sources_move(struct event_sources *sources);
/* From coherence.c: every few milliseconds. */
void event_sources_tick(struct event_sources *sources, int64_t now_us);

void event_sources_count(const struct event_sources *sources, unsigned *n_up, unsigned *n_down);

#endif
