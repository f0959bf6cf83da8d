/*
 * key_orders.h - invalidating a great many keys that one request names, in slices
 *
 * Purpose:    what invalidation_run() does with keys, a few hundred in each turn of the worker, so
 *             that the worker's other clients wait for one slice and no more. For the scope ALL the
 *             job begins when all keys have left tier 1.
 * Ownership:  one desk per worker, coherence->key_orders. The names are copied, in one piece.
 * Threading:  its worker.
 * Errors:     words. A function that returns words has done nothing, and done() is not called.
 *             Where the job cannot begin in the end, what was dropped does no harm.
 */
#ifndef NC_COHERENCE_KEY_ORDERS_H
#define NC_COHERENCE_KEY_ORDERS_H

#include "coherence/invalidation.h"

/* More keys than this are worth the trouble. */
#define KEY_ORDERS_SLICE 512u

struct key_orders; /* opaque */

struct key_orders *key_orders_new(struct coherence *home);
/* Answers what is under way. */
void key_orders_free(struct key_orders **orders);

typedef void (*key_orders_done_fn)(void *context, const struct invalidation_answer *answer);

struct key_order {
    struct bytes keys; /* RESP bulk strings, one behind the other */
    bool is_all;       /* scope ALL, in database db */
    unsigned db;
    key_orders_done_fn done; /* once, never before the order was begun */
    void *context;
};

NC_MUST_CHECK const char *key_orders_begin(struct key_orders *orders,
                                           const struct key_order *order);

#endif
