/*
 * worker.c - the loop of a thread
 *
 * The mailbox is a stack that senders push onto and the worker takes as a whole: no lock, and one
 * write to the eventfd for however many mails arrive before the worker looks. The eventfd is
 * watched edge-triggered, so it is never read; each write is an edge of its own.
 *
 * libevent polls again after each priority it has served and serves the higher one first. A
 * PRIORITY_LINK event that is ready at every poll would starve the clients, and with them the end
 * of the turn. The wake event therefore steps down to PRIORITY_CLIENT once it has run, and gets
 * its priority back when the turn ends. Links that can stay readable for long do the same.
 */
#include "base/worker.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/log.h"
#include "base/mem.h"

#define WORKER_MAGIC 0x6e637772u /* "ncwr" */

/* worker_stop() sends it, so that the flag belongs to the worker's thread alone. */
struct stop_mail {
    struct mail mail;
    struct worker *worker;
};

static _Thread_local struct worker *self;

/* Empties the mailbox; the result is in the order of posting. */
static struct mail *take_mails(struct worker *worker)
{
    /* acquire: partner of the release in worker_post() */
    struct mail *newest = atomic_exchange_explicit(&worker->mailbox, NULL, memory_order_acquire);
    struct mail *oldest = NULL;

    while (newest != NULL) {
        struct mail *next = newest->next;

        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    return oldest;
}

void worker_run_mails(struct worker *worker)
{
    struct mail *mail = take_mails(worker);

    while (mail != NULL) {
        struct mail *next = mail->next; /* run() may free the mail */

        mail->run(mail);
        mail = next;
    }
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    struct worker *worker = OBJ_FROM(arg, struct worker, WORKER_MAGIC);

    (void)fd;
    (void)what;
    event_priority_set(worker->wake_event, PRIORITY_CLIENT);
    worker_run_mails(worker);
}

/* The base is used by its own thread only; mail is the one way in. */
static struct event_base *make_base(void)
{
    struct event_config *config = event_config_new();
    struct event_base *base = NULL;

    if (config == NULL) {
        return NULL;
    }
    if (event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK) == 0) {
        base = event_base_new_with_config(config);
    }
    event_config_free(config);
    if (base != NULL && event_base_priority_init(base, N_PRIORITIES) != 0) {
        event_base_free(base);
        base = NULL;
    }
    return base;
}

int worker_init(struct worker *worker, unsigned index)
{
    memset(worker, 0, sizeof *worker);
    worker->magic = WORKER_MAGIC;
    worker->index = index;
    atomic_init(&worker->mailbox, NULL);
    worker->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (worker->wake_fd < 0) {
        return -errno;
    }
    worker->base = make_base();
    if (worker->base == NULL) {
        goto fail;
    }
    worker->wake_event = event_new(worker->base, worker->wake_fd, EV_READ | EV_ET | EV_PERSIST,
                                   on_wake, worker);
    if (worker->wake_event == NULL) {
        goto fail;
    }
    if (event_priority_set(worker->wake_event, PRIORITY_LINK) != 0 ||
        event_add(worker->wake_event, NULL) != 0) {
        goto fail;
    }
    return 0;

fail:
    if (worker->wake_event != NULL) {
        event_free(worker->wake_event);
    }
    if (worker->base != NULL) {
        event_base_free(worker->base);
    }
    close(worker->wake_fd);
    worker->magic = 0;
    return -ENOMEM;
}

static void run_stop(struct mail *mail)
{
    struct stop_mail *stop = CONTAINER_OF(mail, struct stop_mail, mail);

    stop->worker->is_stopping = true;
    mem_free(stop);
}

/*
 * Mails that nobody took are dropped: they were meant for the worker's thread and for objects that
 * may be gone by now, and the process is ending.
 */
void worker_fini(struct worker *worker)
{
    CHECK(worker->magic == WORKER_MAGIC && !worker->has_thread);
    struct mail *mail = take_mails(worker);

    while (mail != NULL) {
        struct mail *next = mail->next;

        if (mail->run == run_stop) {
            mem_free(CONTAINER_OF(mail, struct stop_mail, mail));
        }
        mail = next;
    }
    event_free(worker->wake_event);
    event_base_free(worker->base);
    close(worker->wake_fd);
    worker->magic = 0;
}

void worker_run_deferred(struct worker *worker)
{
    while (worker->first_deferred != NULL) {
        struct deferred *deferred = worker->first_deferred;

        worker->first_deferred = deferred->next;
        if (worker->first_deferred == NULL) {
            worker->last_deferred = NULL;
        }
        /* Before it runs: it may free itself, or queue itself for another round. */
        deferred->is_queued = false;
        deferred->run(deferred);
    }
}

void worker_run(struct worker *worker)
{
    CHECK(worker->magic == WORKER_MAGIC && self == NULL);
    self = worker;
    /* What was queued before the start must not wait for a first event. */
    worker_run_deferred(worker);
    while (!worker->is_stopping) {
        event_base_loop(worker->base, EVLOOP_ONCE);
        event_priority_set(worker->wake_event, PRIORITY_LINK);
        worker_run_deferred(worker);
    }
    worker->is_stopping = false;
    self = NULL;
}

static void *thread_main(void *arg)
{
    struct worker *worker = OBJ_FROM(arg, struct worker, WORKER_MAGIC);
    char name[16]; /* the kernel's limit */

    snprintf(name, sizeof name, "nc-worker-%u", worker->index % 100000);
    pthread_setname_np(pthread_self(), name);
    log_set_worker((int)worker->index);
    worker_run(worker);
    buffer_pool_fini();
    return NULL;
}

/* Signals are the main thread's; blocked before the thread begins, none can slip in. */
int worker_start(struct worker *worker)
{
    sigset_t all, before;

    CHECK(worker->magic == WORKER_MAGIC && !worker->has_thread);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int error = pthread_create(&worker->thread, NULL, thread_main, worker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    worker->has_thread = error == 0;
    return -error;
}

void worker_stop(struct worker *worker)
{
    struct stop_mail *stop = mem_alloc(sizeof *stop);

    stop->mail.run = run_stop;
    stop->worker = worker;
    worker_post(worker, &stop->mail);
}

void worker_join(struct worker *worker)
{
    if (worker->has_thread) {
        pthread_join(worker->thread, NULL);
        worker->has_thread = false;
    }
}

struct worker *worker_self(void)
{
    return self;
}

void worker_post(struct worker *worker, struct mail *mail)
{
    struct mail *newest = atomic_load_explicit(&worker->mailbox, memory_order_relaxed);

    do {
        mail->next = newest;
        /* release: partner of the acquire in take_mails() */
    } while (!atomic_compare_exchange_weak_explicit(&worker->mailbox, &newest, mail,
                                                    memory_order_release, memory_order_relaxed));
    /* Behind another mail the worker is already on its way; the mail may be gone by now. */
    if (newest == NULL) {
        const uint64_t one = 1;
        ssize_t n;

        do {
            n = write(worker->wake_fd, &one, sizeof one);
        } while (n < 0 && errno == EINTR);
    }
}

void worker_defer(struct worker *worker, struct deferred *deferred)
{
    if (deferred->is_queued) {
        return;
    }
    deferred->is_queued = true;
    deferred->next = NULL;
    if (worker->last_deferred != NULL) {
        worker->last_deferred->next = deferred;
    } else {
        worker->first_deferred = deferred;
    }
    worker->last_deferred = deferred;
}

void worker_undefer(struct worker *worker, struct deferred *deferred)
{
    struct deferred **at = &worker->first_deferred;
    struct deferred *before = NULL;

    if (!deferred->is_queued) {
        return;
    }
    while (*at != deferred) {
        before = *at;
        at = &before->next;
    }
    *at = deferred->next;
    if (worker->last_deferred == deferred) {
        worker->last_deferred = before;
    }
    deferred->is_queued = false;
}
