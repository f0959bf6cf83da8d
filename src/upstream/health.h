/*
 * health.h - what the whole process knows of one node: its circuit breaker
 *
 * Purpose:    all workers' links say what they see of a node; all ask here whether requests should
 *             be sent to it. The proofs are the PINGs of tracking links, never clients' requests.
 * Ownership:  one per node number, made when first asked for; lives as long as the process.
 * Threading:  any thread: one lock for what is said, an atomic for what is asked.
 * Errors:     none. NULL stands for a node that nobody judges: it is never open.
 * Units:      instants in clock_now_us().
 */
#ifndef NC_UPSTREAM_HEALTH_H
#define NC_UPSTREAM_HEALTH_H

#include "config/config.h"
#include "upstream/breaker.h"
#include "upstream/topology.h"

#include <stdatomic.h>
#include <stddef.h>

struct health {
    _Atomic int state;              /* enum breaker_state */
    _Atomic int reason;             /* enum breaker_reason of the last time it opened */
    _Atomic int64_t returned_at_us; /* when it was last proven back; 0: never */
    struct breaker breaker;         /* lock */
    int64_t away_since_us;          /* lock: when it left closed */
    char name[300];                 /* init: for the log */
};

/* The node's; name: as it is called in logs. */
struct health *health_of(epochs_node node, const char *name);
/* Takes the options. Any thread, as often as one likes. */
void health_configure(const struct config *config);

static inline enum breaker_state health_state(const struct health *health)
{
    return health == NULL
               ? BREAKER_CLOSED
               : (enum breaker_state)atomic_load_explicit(&health->state, memory_order_acquire);
}

/* It is not closed: what the node held when it was last heard may be all there is. */
static inline bool health_is_open(const struct health *health)
{
    return health_state(health) != BREAKER_CLOSED;
}

/* The same, and requests are to fail at once. */
bool health_refuses(const struct health *health);
/* It has come back since then: what was put off may be tried. */
static inline bool health_has_returned(const struct health *health, int64_t since_us)
{
    return health != NULL &&
           atomic_load_explicit(&health->returned_at_us, memory_order_acquire) > since_us;
}
/* Some master of the map may be asked, as far as its breaker goes. */
bool health_allows_any(const struct topology *topology);
/* Why requests are refused, for their errors. */
const char *health_text(const struct health *health);
/* How long a tracking link to a node that is away waits at most before it tries again. */
int64_t health_retry_max_ms(const struct health *health, int64_t otherwise_ms);

/* As in breaker.h. */
void health_ok(struct health *health, uint64_t n, int64_t now_us);
void health_failed(struct health *health, uint64_t n, int64_t began_us, int64_t now_us);
void health_cut(struct health *health, uint64_t n, int64_t began_us, int64_t now_us);
void health_owed(struct health *health, int64_t sent_us, int64_t now_us);
void health_stirs(struct health *health, int64_t now_us);
void health_tick(struct health *health, int64_t now_us);
/*
 * is_first: since its connection came up. on_return is called, under the lock, at once when the
 * breaker has closed: what the outage may have changed is to go then.
 */
void health_proof(struct health *health, int64_t sent_us, int64_t now_us, bool is_first,
                  void (*on_return)(void *context), void *context);

#endif
