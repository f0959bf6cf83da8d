/*
 * bus_apply.h - what a proxy does when another one tells it something
 *
 * Purpose:    keys go from tier 1; of everything else, and when messages were missed, all goes:
 *             in O(1), and never less than what was meant.
 * Threading:  the bus's worker.
 */
#ifndef NC_COHERENCE_BUS_APPLY_H
#define NC_COHERENCE_BUS_APPLY_H

#include "coherence/bus.h"

/* context: the struct coherence of the bus's worker. */
extern const struct bus_events bus_apply_events;

#endif
