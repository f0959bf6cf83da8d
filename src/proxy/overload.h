/*
 * overload.h - one memory budget for the whole process, and what is done when it runs out
 *
 * Purpose:    what the process holds is measured ten times a second, and at once when much was
 *             allocated since: resident memory, and in a container what its cgroup counts. Near
 *             the limit tier 1 becomes smaller, then clients that hold the most are closed, then
 *             new work is refused (base/pressure.h has the stages). Limits of rate and concurrency
 *             (proxy/limits.h) are asked here as well, so that requests have one thing to test.
 * Ownership:  main.c makes one; it outlives the workers.
 * Threading:  the control thread; overload_admit() and overload_hold() on the session's worker.
 *             Workers learn of a stage by mail: front->guard.
 * Errors:     what cannot be measured does not count.
 * Units:      bytes.
 */
#ifndef NC_PROXY_OVERLOAD_H
#define NC_PROXY_OVERLOAD_H

#include "base/mem.h"
#include "base/pressure.h"
#include "proxy/dispatch.h"

/* Redis's own prefix: clients that have an error of its kind use it. */
#define OVERLOAD_TEXT                                                                              \
    "OOM nearcached: command not allowed when used memory > 'process-memory' of the proxy"

/* While memory is short: unanswered requests of one client, and how much of its input is read at
 * once. */
#define OVERLOAD_PIPELINE 16u
#define OVERLOAD_READ ((size_t)4096)

/* front->guard: what a request has to be asked that tier 1 does not answer. */
enum { GUARD_SHED = 1, GUARD_LIMITS = 2 };

struct overload; /* opaque */

struct overload *overload_new(struct proxy *proxy, struct cache *cache, struct worker *control,
                              const struct config *config);
/* No more bounds, and nobody is closed: workers are about to stop. */
void overload_stop(struct overload *overload);
/* Workers have stopped, and the control thread's mail was run. Accepts a pointer to NULL. */
void overload_free(struct overload **overload);
/* A reload. */
void overload_configure(struct overload *overload, const struct config *config);
/* Every 100 ms, before the cache's own tick. */
void overload_tick(struct overload *overload);

/* A front takes a configuration or a stage into use. */
void overload_fit_front(struct front *front);
/* No connection can be taken now. Any thread. */
bool overload_refuses_clients(const struct proxy *proxy);

/* Between two measurements memory may get short before the stage is known here. */
static inline bool overload_is_short(const struct front *front)
{
    return front->is_short || mem_is_short();
}

static inline bool overload_is_guarded(const struct front *front)
{
    return front->guard != 0 || mem_is_short();
}

/*
 * The request of call is about to cause work for the backend, with this key (empty: none). False:
 * it was answered with an error. Ask only while it is guarded.
 */
bool overload_admit(struct session *session, const struct dispatch_call *call, struct bytes key);
/* What was admitted last counts as under way until the request is freed. */
void overload_hold(struct front *front, struct request *request);
/* It holds nothing, or did not go to the backend after all. */
void overload_let_go(struct front *front);
void overload_undo(struct session *session, struct bytes key);
/* For commands on connections of their own, and those for all nodes: they count for the rate. */
bool overload_admit_briefly(struct session *session, const struct dispatch_call *call);

struct overload_figures {
    enum pressure_stage stage;
    size_t limit_bytes; /* 0: none */
    size_t held_bytes, cgroup_limit_bytes, tier_bytes;
    unsigned stalled_percent;
};

/* Any thread. */
void overload_figures(const struct proxy *proxy, struct overload_figures *figures);

#endif
