/*
 * unlink.h - jobs that remove keys at the backend, for invalidations of scope ALL
 *
 * Purpose:    UNLINK what an invalidation names, on every master: keys as given, or what SCAN finds
 *             for a pattern, in batches, at most `unlink-rate` keys a second. Progress can be read,
 *             a job can be cancelled. At its end tier 1 drops the same once more, everywhere, as
 *             backends without tracking tell nobody what was removed.
 * Ownership:  jobs copy what they are given. The last ones that ended are kept to be read.
 * Threading:  starting, cancelling and reading on any thread; the rest on the control thread, which
 *             the jobs run on, in steps of a fraction of a millisecond.
 * Errors:     what the backend answers or a connection that fails is kept with the job, which goes
 *             on with the next batch or the next master and counts as failed in the end. So it
 *             does when slots have moved to another master meanwhile, as keys may have moved with
 *             them from one that was still to come to one that had been walked.
 */
#ifndef NC_COHERENCE_UNLINK_H
#define NC_COHERENCE_UNLINK_H

#include "coherence/invalidation.h"
#include "upstream/topology.h"

#include <stdio.h>

/* Jobs that ended and can still be read. */
#define UNLINK_KEPT 32u

struct unlink_jobs; /* opaque */

/* Of the fleet, which finds it as fleet->jobs. login is borrowed. */
struct unlink_jobs *unlink_jobs_new(struct coherence_fleet *fleet, struct worker *control,
                                    const struct config_backend *login, struct config *config);
/* Closes all connections; no job goes on. Before the workers stop. */
void unlink_jobs_stop(struct unlink_jobs *jobs);
/* After the last turn of the control thread. Accepts a pointer to NULL. */
void unlink_jobs_free(struct unlink_jobs **jobs);
void unlink_jobs_set_topology(struct unlink_jobs *jobs, struct topology *topology);
void unlink_jobs_set_config(struct unlink_jobs *jobs, struct config *config);

/*
 * Returns its number, or 0: as many as `unlink-jobs` allows are under way, or there is no memory.
 * ns: of a namespace. what->pile is empty then, if it was begun.
 */
uint64_t unlink_jobs_start(struct unlink_jobs *jobs, const struct invalidation *what, int ns);
/* False: no such job is under way. It ends after the batch it is at. */
bool unlink_jobs_cancel(struct unlink_jobs *jobs, uint64_t id);
unsigned unlink_jobs_running(const struct unlink_jobs *jobs);
/* Any thread: takes the pile away, which may be too large to be freed at once. jobs may be NULL. */
void unlink_jobs_discard(struct unlink_jobs *jobs, struct key_pile *pile);
/* The control thread, every few milliseconds: frees a piece of what was discarded. */
void unlink_jobs_tick(struct unlink_jobs *jobs);

enum unlink_state { UNLINK_RUNNING, UNLINK_DONE, UNLINK_FAILED, UNLINK_CANCELLED };
extern const char *const unlink_state_names[];

struct unlink_info {
    uint64_t id;
    enum unlink_state state;
    enum invalidation_kind kind;
    unsigned char name[64]; /* cut */
    size_t name_len;
    unsigned db, n_masters, n_masters_done;
    uint64_t n_scanned, n_removed, n_errors;
    int64_t took_ms; /* until it ended, or now */
    char error[256]; /* the first one, or empty */
};
/* Copies up to max, newest first; returns their number. */
unsigned unlink_jobs_list(struct unlink_jobs *jobs, struct unlink_info *infos, unsigned max);

#endif
