/*
 * test_worker.c - proves of worker.h: mails run once, in each sender's order, on the right thread;
 * deferred jobs run once at the end of their turn; links come before clients, and cannot starve
 * them; stopping from anywhere; a thread with a name and without signals
 */
#include "base/worker.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"

enum { SENDERS = 4, MAILS = 20000 };

struct numbered_mail {
    struct mail mail;
    unsigned sender, number;
};

static struct worker worker;
static unsigned next_number[SENDERS]; /* worker */
static unsigned n_out_of_order;       /* worker */
static unsigned n_run;                /* worker */

static void run_numbered(struct mail *mail)
{
    struct numbered_mail *numbered = CONTAINER_OF(mail, struct numbered_mail, mail);

    n_out_of_order += numbered->number != next_number[numbered->sender]++;
    n_out_of_order += worker_self() != &worker;
    if (++n_run == SENDERS * MAILS) {
        worker_stop(&worker);
    }
    mem_free(numbered);
}

static void *send_mails(void *arg)
{
    const unsigned sender = (unsigned)(uintptr_t)arg;

    for (unsigned i = 0; i < MAILS; i++) {
        struct numbered_mail *numbered = mem_alloc(sizeof *numbered);

        numbered->mail.run = run_numbered;
        numbered->sender = sender;
        numbered->number = i;
        worker_post(&worker, &numbered->mail);
    }
    return NULL;
}

static void mails_of_each_sender_run_once_and_in_order(void **state)
{
    pthread_t senders[SENDERS];

    (void)state;
    assert_int_equal(worker_init(&worker, 0), 0);
    assert_int_equal(worker_start(&worker), 0);
    for (uintptr_t i = 0; i < SENDERS; i++) {
        assert_int_equal(pthread_create(&senders[i], NULL, send_mails, (void *)i), 0);
    }
    for (unsigned i = 0; i < SENDERS; i++) {
        pthread_join(senders[i], NULL);
    }
    worker_join(&worker);
    worker_fini(&worker);
    assert_int_equal(n_run, SENDERS * MAILS);
    assert_int_equal(n_out_of_order, 0);
    assert_null(worker_self());
}

/* What happened in which order, one letter each. */
static char trace[64];
static size_t trace_len;

static void note(char what)
{
    assert_true(trace_len < sizeof trace - 1);
    trace[trace_len++] = what;
    trace[trace_len] = '\0';
}

static void trace_begin(void)
{
    trace_len = 0;
    trace[0] = '\0';
    assert_int_equal(worker_init(&worker, 7), 0);
}

static struct deferred jobs[3];

static void run_third(struct deferred *deferred)
{
    (void)deferred;
    note('3');
}

static void run_second(struct deferred *deferred)
{
    (void)deferred;
    note('2');
}

static void run_first(struct deferred *deferred)
{
    note('1');
    assert_false(deferred->is_queued);
    worker_defer(&worker, &jobs[2]);
}

static void run_defer_all(struct mail *mail)
{
    (void)mail;
    note('m');
    worker_defer(&worker, &jobs[0]);
    worker_defer(&worker, &jobs[1]);
    worker_defer(&worker, &jobs[0]); /* queued already: runs once */
}

static void run_note(struct mail *mail)
{
    (void)mail;
    note('n');
}

static void deferred_jobs_run_at_the_end_of_their_turn(void **state)
{
    struct mail first = {.run = run_defer_all}, second = {.run = run_note};

    (void)state;
    jobs[0].run = run_first;
    jobs[1].run = run_second;
    jobs[2].run = run_third;
    trace_begin();
    worker_post(&worker, &first);
    worker_post(&worker, &second);
    worker_stop(&worker);
    worker_run(&worker); /* on this thread, as the control thread does */
    worker_fini(&worker);
    assert_string_equal(trace, "mn123"); /* in the turn that stops the loop as well */
}

static void a_job_deferred_before_the_start_does_not_wait_for_an_event(void **state)
{
    (void)state;
    trace_begin();
    worker_defer(&worker, &jobs[1]);
    worker_stop(&worker);
    worker_run(&worker);
    worker_fini(&worker);
    assert_string_equal(trace, "2");
}

static void on_client(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
    note('c');
    worker_defer(&worker, &jobs[1]);
}

static void on_link(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
    note('l');
}

/* An event that is always ready: an eventfd that nobody reads. */
static struct event *ready_event(int fd, int priority, event_callback_fn callback)
{
    struct event *event = event_new(worker.base, fd, EV_READ, callback, NULL);

    assert_non_null(event);
    assert_int_equal(event_priority_set(event, priority), 0);
    assert_int_equal(event_add(event, NULL), 0);
    return event;
}

static void links_and_mail_come_before_clients(void **state)
{
    struct mail mail = {.run = run_note};
    int fds[4];
    struct event *events[4];

    (void)state;
    trace_begin();
    for (unsigned i = 0; i < 4; i++) {
        fds[i] = eventfd(1, 0);
        assert_true(fds[i] >= 0);
        events[i] = i % 2 == 0 ? ready_event(fds[i], PRIORITY_CLIENT, on_client)
                               : ready_event(fds[i], PRIORITY_LINK, on_link);
    }
    worker_post(&worker, &mail);
    worker_stop(&worker);
    worker_run(&worker);
    for (unsigned i = 0; i < 4; i++) {
        event_free(events[i]);
        close(fds[i]);
    }
    worker_fini(&worker);
    assert_int_equal(strlen(trace), 6);
    assert_int_equal(strspn(trace, "ln"), 3);
    assert_string_equal(trace + 3, "cc2"); /* two clients, and the end of the turn */
}

static unsigned n_reposted;
static bool has_client_run;

/* Keeps the mailbox full, from the worker itself. */
static void run_repost(struct mail *mail)
{
    if (has_client_run || ++n_reposted == 10000) {
        worker_stop(&worker);
        return;
    }
    worker_post(&worker, mail);
}

static void on_client_runs(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
    has_client_run = true;
}

static void a_flood_of_mail_does_not_starve_clients(void **state)
{
    struct mail mail = {.run = run_repost};
    const int fd = eventfd(1, 0);

    (void)state;
    trace_begin();
    struct event *event = ready_event(fd, PRIORITY_CLIENT, on_client_runs);
    worker_post(&worker, &mail);
    worker_run(&worker);
    event_free(event);
    close(fd);
    worker_fini(&worker);
    assert_true(has_client_run);
    assert_true(n_reposted <= 3);
}

static char thread_name[16];
static bool is_term_blocked;

static void run_look(struct mail *mail)
{
    sigset_t mask;

    (void)mail;
    pthread_getname_np(pthread_self(), thread_name, sizeof thread_name);
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    is_term_blocked = sigismember(&mask, SIGTERM) == 1 && sigismember(&mask, SIGHUP) == 1;
}

static void a_worker_thread_has_a_name_and_takes_no_signals(void **state)
{
    struct mail mail = {.run = run_look};
    sigset_t mask;

    (void)state;
    assert_int_equal(worker_init(&worker, 12), 0);
    assert_int_equal(worker_start(&worker), 0);
    worker_post(&worker, &mail);
    worker_stop(&worker);
    worker_join(&worker);
    worker_join(&worker); /* harmless */
    worker_fini(&worker);
    assert_string_equal(thread_name, "nc-worker-12");
    assert_true(is_term_blocked);
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    assert_int_equal(sigismember(&mask, SIGTERM), 0); /* ours is as it was */
}

static void mail_left_at_the_end_is_dropped(void **state)
{
    struct mail mail = {.run = run_note};

    (void)state;
    trace_begin();
    worker_post(&worker, &mail);
    worker_stop(&worker); /* its own mail must not leak */
    worker_fini(&worker);
    assert_string_equal(trace, "");
}

static void an_idle_worker_sleeps(void **state)
{
    struct timespec before, after;
    clockid_t clock;

    (void)state;
    assert_int_equal(worker_init(&worker, 0), 0);
    assert_int_equal(worker_start(&worker), 0);
    usleep(20 * 1000);
    assert_int_equal(pthread_getcpuclockid(worker.thread, &clock), 0);
    clock_gettime(clock, &before);
    usleep(100 * 1000);
    clock_gettime(clock, &after);
    worker_stop(&worker);
    worker_join(&worker);
    worker_fini(&worker);
    const int64_t used_us = (after.tv_sec - before.tv_sec) * 1000000 +
                            (after.tv_nsec - before.tv_nsec) / 1000;
    assert_true(used_us < 20 * 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mails_of_each_sender_run_once_and_in_order),
        cmocka_unit_test(deferred_jobs_run_at_the_end_of_their_turn),
        cmocka_unit_test(a_job_deferred_before_the_start_does_not_wait_for_an_event),
        cmocka_unit_test(links_and_mail_come_before_clients),
        cmocka_unit_test(a_flood_of_mail_does_not_starve_clients),
        cmocka_unit_test(a_worker_thread_has_a_name_and_takes_no_signals),
        cmocka_unit_test(mail_left_at_the_end_is_dropped),
        cmocka_unit_test(an_idle_worker_sleeps),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
