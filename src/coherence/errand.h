/*
 * errand.h - what the proxy asks the owner of a slot for itself
 *
 * Purpose:    send a few requests in a row, MULTI and EXEC perhaps, to the master that owns a slot,
 *             and hand their replies back whole. Redirections are followed, what says "not now" and
 *             what was lost is sent again, for at most half of request-timeout: so what is sent
 *             must come to the same when it is executed twice.
 * Ownership:  one set of errands per worker. Requests are copied; replies are valid for the call.
 * Threading:  their worker only.
 * Errors:     words in the answer. Nothing is known then of what was executed.
 * Units:      clock_now_us().
 *
 * They go on the worker's relay links, as the proxy's own login. A row is never interrupted by
 * other requests, as it leaves in one piece.
 */
#ifndef NC_COHERENCE_ERRAND_H
#define NC_COHERENCE_ERRAND_H

#include "coherence/coherence.h"

/* All replies of one errand together. */
#define ERRAND_REPLIES_MAX ((size_t)32 * 1024 * 1024)
/* Of digits that are new each time it is sent; see `stamp_at`. */
#define ERRAND_STAMP 32u

struct errands; /* opaque */

/* Who answered: while it is the same, it is the same process and connection. */
struct errand_source {
    const struct link *link;
    int64_t connected_at_us;
};

struct errand_answer {
    const char *error;    /* NULL: replies are whole, and none is an error; else without a dash */
    struct bytes replies; /* RESP2, one behind the other */
    struct errand_source source;
    struct bytes stamp; /* as it was sent last */
};

typedef void (*errand_done_fn)(void *context, const struct errand_answer *answer);

struct errand_order {
    unsigned slot;
    uint32_t db;
    struct bytes requests; /* n_replies of them */
    unsigned n_replies;
    /* Where in `requests` ERRAND_STAMP bytes stand that name this sending and no other; 0: nowhere.
     */
    size_t stamp_at;
    /* -TRYAGAIN is an answer: whoever asks has a way that does not need all keys at one node. */
    bool ends_apart;
    errand_done_fn done; /* once, never before errand_run() has returned */
    void *context;
};

struct errands *errands_new(struct coherence *home);
/* Nothing is under way: after errands_stop() and the end of the backend's links. */
void errands_free(struct errands **errands);

/* False: no memory; done() is not called. */
NC_MUST_CHECK bool errand_run(struct errands *errands, const struct errand_order *order);

/* What waits fails, and so does what would wait from now on. */
void errands_stop(struct errands *errands);
void errands_tick(struct errands *errands, int64_t now_us);

#endif
