/*
 * dependency_orders.h - CACHE DEPEND and UNDEPEND, and the table's way from the ledger
 *
 * Purpose:    DEPEND is done when the ledger has the relations, this proxy's table has them, and
 *             writes to their sources are heard of here; the other proxies are told then. The table
 *             is read of the ledger at start, and a shard of it again whenever its version is
 *             another one than expected, which is looked at in turn, and at once when the bus may
 *             have lost something.
 * Ownership:  one desk per worker, coherence->desk; the first worker's loads the table. Arguments
 *             are copied.
 * Threading:  its worker. dependency_desk_reload(): any worker.
 * Errors:     words. An error that comes later may leave some of the relations; the order may be
 *             repeated, as it comes to the same when it is done twice.
 */
#ifndef NC_COHERENCE_DEPENDENCY_ORDERS_H
#define NC_COHERENCE_DEPENDENCY_ORDERS_H

#include "coherence/bus_record.h"
#include "coherence/coherence.h"

/* Sources of one order. */
#define DEPENDENCY_SOURCES_MAX 1000u

struct dependency_desk; /* opaque */

struct dependency_desk *dependency_desk_new(struct coherence *home);
/* Answers what is under way. Before the ledger goes. */
void dependency_desk_free(struct dependency_desk **desk);
void dependency_desk_tick(struct dependency_desk *desk, int64_t now_us);

struct dependency_order {
    bool is_undo;
    unsigned db; /* of what is derived */
    struct bytes derived;
    const struct bytes *sources;
    unsigned n_sources;
    /* n: relations that are new, or went. error: NULL, or words without a code in front. */
    void (*done)(void *context, uint64_t n, const char *error);
    void *context;
};

/* NULL: done() will be called once, not at once. Else words, and done() is not called. */
NC_MUST_CHECK const char *dependency_order_begin(struct coherence *from,
                                                 const struct dependency_order *order);

/* On the first worker: what another proxy said. */
void dependency_desk_take_record(struct coherence_fleet *fleet, const struct bus_record *record);
/* On the first worker: something may have been missed. */
void dependency_desk_reload(struct coherence_fleet *fleet);

#endif
