/*
 * worker.h - a thread with an event loop, a mailbox and work kept for the end of a turn
 *
 * Purpose:    everything that happens to a connection happens on one worker. Other threads reach
 *             it by mail. What a turn gathers (bytes for a backend link) leaves at its end.
 * Ownership:  mails and deferred jobs are embedded in the caller's structs; from worker_post() on a
 *             mail belongs to its run function.
 * Threading:  worker_post() from any thread; everything else on the worker's own thread, or before
 *             worker_start(). Mails of one sender to one worker run in the order they were posted.
 * Errors:     start returns a negative errno; posting never fails.
 *
 * A turn: epoll; then callbacks, PRIORITY_LINK before PRIORITY_CLIENT, so that invalidations never
 * wait behind client work; then deferred jobs, those that they queue included. The control thread
 * is a worker too (index n_workers) and runs on the main thread.
 *
 * Within a turn libevent polls again after each priority, higher ones first. A callback whose
 * descriptor can stay readable for long (a link that streams a large reply) therefore sets its own
 * event to PRIORITY_CLIENT when it runs, and back to PRIORITY_LINK in a deferred job; otherwise
 * neither clients nor the end of the turn come while bytes keep arriving.
 */
#ifndef NC_BASE_WORKER_H
#define NC_BASE_WORKER_H

#include "base/check.h"

#include <event2/event.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { PRIORITY_LINK, PRIORITY_CLIENT, N_PRIORITIES };

struct worker;

/* Runs once on the worker it was posted to. */
struct mail {
    struct mail *next;
    void (*run)(struct mail *mail);
};

/* Runs once at the end of the turn in which it was queued. */
struct deferred {
    struct deferred *next;
    void (*run)(struct deferred *deferred);
    bool is_queued;
};

struct worker {
    uint32_t magic;
    unsigned index;
    struct event_base *base;
    pthread_t thread;
    bool has_thread;                /* init */
    _Atomic(struct mail *) mailbox; /* atomic: newest first; reversed when taken */
    int wake_fd;                    /* eventfd */
    struct event *wake_event;
    struct deferred *first_deferred, *last_deferred; /* worker */
    bool is_stopping;                                /* worker */
    void *context; /* init: what the upper floors keep per worker */
};

/* Initialises storage of the caller. -ENOMEM, -EMFILE. */
NC_MUST_CHECK int worker_init(struct worker *worker, unsigned index);
void worker_fini(struct worker *worker);

/* Starts a thread that runs the loop / runs the loop on this thread until worker_stop(). */
NC_MUST_CHECK int worker_start(struct worker *worker);
void worker_run(struct worker *worker);
/* Any thread: the loop ends after the turn it is in. */
void worker_stop(struct worker *worker);
void worker_join(struct worker *worker);

/* The worker this thread runs, or NULL. */
struct worker *worker_self(void);

void worker_post(struct worker *worker, struct mail *mail);
void worker_defer(struct worker *worker, struct deferred *deferred);
/* What is queued now, on the thread that tears a stopped worker down. */
void worker_run_deferred(struct worker *worker);
/* What is in the mailbox now, on the thread that tears a stopped worker down. */
void worker_run_mails(struct worker *worker);
/* Takes a queued job back, so that what embeds it can be freed. */
void worker_undefer(struct worker *worker, struct deferred *deferred);

#endif
