/*
 * events.h - events: names that somebody publishes, and what is dropped then
 *
 * Purpose:    CACHE SUBSCRIBE, UNSUBSCRIBE, PUBLISH and EVENTS, events of HTTP and of sources. What
 *             an event drops is said by rules of the configuration (config/event_rules.h) and by
 *             subscriptions, which are kept in the ledger: a PUBLISH honours every subscription
 *             that was acknowledged before it began, at whichever proxy.
 * Ownership:  one per worker, coherence->events. What is given is copied.
 * Threading:  its worker only.
 * Errors:     a function that returns words has done nothing. Otherwise done() is called once,
 *             perhaps before it has returned; answer->error says what failed. What had been found
 *             until then has been dropped: to publish again does no harm.
 *
 * Exact events are looked up each time. Patterns are matched with a copy in memory, whose version
 * is asked for in the same round trip. Where there are more than `event-patterns` the copy is left
 * empty, and they are read each time.
 */
#ifndef NC_COHERENCE_EVENTS_H
#define NC_COHERENCE_EVENTS_H

#include "coherence/debounce.h"
#include "coherence/event_patterns.h"
#include "coherence/invalidation.h"

struct events; /* opaque */

struct events_answer {
    const char *error;  /* NULL: done */
    bool is_counted;    /* n_entries is known: no globs and no namespaces were dropped */
    uint64_t n_entries; /* that were held here */
    uint64_t n_names;   /* keys, globs, tags and namespaces that were dropped */
    unsigned n_proxies; /* others that were told */
    unsigned n_jobs;    /* of scope ALL */
    uint64_t job;       /* the first of them; 0: none */
    uint64_t n;         /* of SUBSCRIBE and UNSUBSCRIBE: that were not, or were, there */
};
typedef void (*events_done_fn)(void *context, const struct events_answer *answer);

/* Made and freed with the coherence of its worker; freed when the ledger has stopped. */
struct events *events_new(struct coherence *home);
void events_free(struct events **events);

struct events_order {
    struct bytes event;
    unsigned db;   /* where ALL removes what rules of the configuration name */
    bool is_all;   /* scope ALL for everything; else as rules say */
    bool is_heard; /* of a source: the other proxies have heard it themselves */
};
NC_MUST_CHECK const char *events_publish(struct events *events, const struct events_order *order,
                                         events_done_fn done, void *context);

/* On the first worker: what rules held of an event that a source told, at the end of its window. */
void events_drop_held(struct events *events, const struct debounce_what *what, struct bytes event);

/* names: at most LEDGER_ADD_MAX. */
NC_MUST_CHECK const char *events_subscribe(struct events *events, struct bytes event,
                                           const struct bytes *names, unsigned n, unsigned db,
                                           events_done_fn done, void *context);
/* n 0: whatever the event drops, in every database. */
NC_MUST_CHECK const char *events_unsubscribe(struct events *events, struct bytes event,
                                             const struct bytes *names, unsigned n, unsigned db,
                                             events_done_fn done, void *context);

/* One subscription, valid for the call. */
typedef void (*events_list_fn)(void *context, struct bytes event, struct bytes name, unsigned db);
/* Those whose event, as it was given, matches the glob (empty: all); stops behind max. */
NC_MUST_CHECK const char *events_list(struct events *events, struct bytes glob, uint64_t max,
                                      events_list_fn on_subscription, events_done_fn done,
                                      void *context);

/* Of all workers: patterns in the copies, operations under way. */
unsigned events_count_patterns(const struct events *events);

#endif
