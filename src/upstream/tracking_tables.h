/*
 * tracking_tables.h - how full the tables are in which the nodes remember who read what
 *
 * Purpose:    beyond tracking-table-max-keys a node invalidates keys at random, so operators want
 *             to see it coming. The discovery asks, the metrics tell.
 * Ownership:  one record per node number for the life of the process.
 * Threading:  the control thread.
 * Errors:     none; what a node does not tell is not known.
 * Source:     tracking_total_keys of INFO stats, https://redis.io/docs/manual/client-side-caching/
 */
#ifndef NC_UPSTREAM_TRACKING_TABLES_H
#define NC_UPSTREAM_TRACKING_TABLES_H

#include "cache/epochs.h"

/* limit: 0 when the node does not tell, or has none. */
void tracking_tables_note_keys(epochs_node node, uint64_t n_keys);
void tracking_tables_note_limit(epochs_node node, uint64_t limit);
/* false, and 0, when nothing is known. */
bool tracking_tables_keys(epochs_node node, uint64_t *n_keys);
bool tracking_tables_limit(epochs_node node, uint64_t *limit);

#endif
