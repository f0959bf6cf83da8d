/*
 * dependency_watch.h - hearing of writes to sources, although nobody caches them
 *
 * Purpose:    every source of a relation is kept watched: where CLIENT TRACKING tells of writes, by
 *             EXISTS on the tracking link to its node, again after each message; where one link
 *             hears for all (broadcast, keyspace), by the names that it hears of. While nobody
 *             hears of a source, what is derived from it is dropped every max-staleness, and once
 *             more when it is heard of again. The same for the sources of rules, which broadcast
 *             or notifications tell of.
 * Ownership:  one set per worker, coherence->watches. A source is watched by one worker, chosen by
 *             its hash.
 * Threading:  its worker; dependency_watch_ask() asks another one by mail.
 * Errors:     the answer to an ask.
 * Units:      clock_now_us().
 *
 * In modes ttl and pubsub the backend tells of no writes: there a source counts as heard of, and
 * only writes through proxies drop what is derived.
 */
#ifndef NC_COHERENCE_DEPENDENCY_WATCH_H
#define NC_COHERENCE_DEPENDENCY_WATCH_H

#include "coherence/coherence.h"

struct dependency_watches; /* opaque */

struct dependency_watches *dependency_watches_new(struct coherence *home);
/* After the end of the backend's links. */
void dependency_watches_free(struct dependency_watches **watches);
void dependency_watches_set_config(struct dependency_watches *watches);
void dependency_watches_tick(struct dependency_watches *watches, int64_t now_us);

/* A message of the backend named the key, after tier 1 has dropped it. */
void dependency_watch_heard(const struct coherence *coherence, struct bytes key);

/* heard: writes to the source are heard of from here on. On the asking worker, never at once. */
typedef void (*dependency_heard_fn)(void *context, bool is_heard);
/* False: no memory; done() is not called. The relation is in dependencies.h's table already. */
NC_MUST_CHECK bool dependency_watch_ask(struct coherence *from, struct bytes source,
                                        dependency_heard_fn done, void *context);

/* UNLINK at the backend, in the database of the login; what fails is counted. */
void dependency_watch_unlink(struct coherence *coherence, struct bytes key);

/* Sources that are watched, and those of them that are not heard of: any thread. */
void dependency_watches_count(const struct coherence_fleet *fleet, size_t *n_watched,
                              size_t *n_unheard);

#endif
