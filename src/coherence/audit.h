/*
 * audit.h - is what tier 1 shows what the backend has?
 *
 * Purpose:    compare what tier 1 answered with what the backend says a moment later, and tell
 *             staleness from a change in between. An entry is called stale only when all of this
 *             holds: tier 1 held this very entry, by a watch, from before the backend was asked;
 *             the backend answered something else; its link has since then been read beyond that
 *             answer, so that every message about a change before it has been applied; and the
 *             entry was still there. docs/coherence.md, "The auditor".
 * Ownership:  an auditor per coherence instance. An audit frees itself when it has its verdict.
 * Threading:  the worker.
 * Errors:     an audit that cannot be carried out ends as "skipped", with its reason.
 * Units:      clock_now_us().
 */
#ifndef NC_COHERENCE_AUDIT_H
#define NC_COHERENCE_AUDIT_H

#include "coherence/coherence.h"

struct audit;   /* opaque */
struct auditor; /* opaque */

enum audit_result {
    AUDIT_SAME,
    AUDIT_CHANGED, /* something else at the backend, and the entry has gone since */
    AUDIT_STALE,
    AUDIT_NOT_HELD, /* tier 1 has no such entry to serve */
    AUDIT_RATE,     /* skipped: more than audit-rate */
    AUDIT_BUSY,     /* skipped: too many under way */
    AUDIT_LARGE,    /* skipped: larger than audit-max-value */
    AUDIT_LINK,     /* skipped: the backend could not be asked, or did not answer */
    AUDIT_ERROR,    /* skipped: it answered an error */
    AUDIT_UNPROVEN, /* skipped: no proof came that all messages were read */
    N_AUDIT_RESULTS
};

enum audit_cause {
    AUDIT_OF_TRACKING,  /* a message was lost, or never sent */
    AUDIT_OF_REPLICA,   /* the same, of what a replica showed */
    AUDIT_OF_TTL_MODE,  /* nothing tells of changes: stale until its deadline, as promised */
    AUDIT_OF_KEYSPACE,  /* keyspace notifications: they do not tell everything */
    AUDIT_OF_FIELD_TTL, /* a field of a hash may have expired, which nothing tells either */
    N_AUDIT_CAUSES
};

struct audit_verdict {
    enum audit_result result;
    enum audit_cause cause; /* of AUDIT_STALE, as the next two */
    int64_t at_least_us;    /* it was stale for so long */
    int64_t at_most_us;     /* it was read this long ago */
};

/* Called once. */
typedef void (*audit_done_fn)(void *context, const struct audit_verdict *verdict);

struct auditor *auditor_new(struct coherence *coherence);
/* The links must be gone already. What is under way ends as skipped. */
void auditor_free(struct auditor **auditor);
void auditor_tick(struct auditor *auditor, int64_t now_us);

/* How many hits lie before the next one to audit; 0: none ever. */
uint64_t audit_interval(struct auditor *auditor);
/* A hit that was chosen: within audit-rate. */
void audit_hit(struct auditor *auditor, const struct cache_query *query,
               const struct command *command);
/* Whatever tier 1 holds of this view, on demand. done may be called at once. */
void audit_view(struct auditor *auditor, const struct cache_query *query,
                const struct command *command, audit_done_fn done, void *context);

/*
 * The same where the backend is asked anyhow: the caller will show the reply to this very request,
 * in the protocol version `proto`, sent after this call. NULL: there is nothing that could be
 * compared, or too much under way. done is called only if it ends before the caller has answered or
 * dropped it.
 */
struct audit_ask {
    unsigned proto;
    enum resp_downgrade downgrade;
    size_t max_bytes;
    audit_done_fn done;
    void *context;
};
struct audit *audit_expect(struct auditor *auditor, const struct cache_query *query,
                           const struct command *command, const struct audit_ask *ask);
/* The whole reply; empty: it is longer than max_bytes. */
void audit_answer(struct audit *audit, struct bytes reply);
/* No reply will come. */
void audit_drop(struct audit *audit);

/* Words of reports and labels. */
const char *audit_result_name(enum audit_result result);
const char *audit_cause_name(enum audit_cause cause);

#endif
