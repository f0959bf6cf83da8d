/*
 * recent.h - what was shown of keys lately, and from which node
 *
 * Purpose:    reads from replicas that never go back: a key that was written or read at one node is
 *             read from a replica only once that has everything that had been executed by then.
 * Ownership:  one per process, made with the cache.
 * Threading:  any thread.
 * Units:      clock_now_us().
 *
 * Keys share places by their hash: a key may be held to what was shown of another, never to less.
 */
#ifndef NC_COHERENCE_RECENT_H
#define NC_COHERENCE_RECENT_H

#include "cache/epochs.h"

struct recent; /* opaque */

struct recent *recent_new(void);
void recent_free(struct recent **recent);

/* Written, or shown by its master. Before the reply is passed on. */
void recent_note(struct recent *recent, uint64_t hash, int64_t now_us);
/* Shown by a replica that has everything executed before caught_up_us. */
void recent_note_replica(struct recent *recent, uint64_t hash, epochs_node replica,
                         int64_t caught_up_us, int64_t now_us);
/* Any key may have been written. */
void recent_note_all(struct recent *recent, int64_t now_us);
/* May a replica show the key that has everything executed before caught_up_us? */
bool recent_allows(const struct recent *recent, uint64_t hash, epochs_node replica,
                   int64_t caught_up_us);

#endif
