#include "proxy/pause.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/stats.h"
#include "proxy/request.h"
#include "proxy/transaction.h"

/* A timer is never set for longer; it looks again then. */
#define TIMER_MAX_US ((int64_t)3600 * 1000000)
/* A hundred years: longer pauses are this long. */
#define PAUSE_MAX_MS ((int64_t)100 * 366 * 24 * 3600 * 1000)

/* ---- one worker ---- */

static void arm(struct front *front)
{
    int64_t wait_us = front->pause.until_us - clock_now_us();
    struct timeval wait;

    wait_us = wait_us < 1000 ? 1000 : (wait_us > TIMER_MAX_US ? TIMER_MAX_US : wait_us);
    wait.tv_sec = wait_us / 1000000;
    wait.tv_usec = wait_us % 1000000;
    event_add(front->pause.event, &wait);
}

void pause_let_go(struct session *session)
{
    if (session->is_paused) {
        session->is_paused = false;
        atomic_fetch_sub_explicit(&session->front->proxy->n_blocked, 1, memory_order_relaxed);
    }
}

static void release(struct front *front)
{
    front->pause.mode = PAUSE_NONE;
    event_del(front->pause.event);
    for (struct session *session = front->sessions; session != NULL; session = session->next) {
        if (session->is_paused) {
            pause_let_go(session);
            session_resume(session);
            session_wake(session);
        }
    }
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct front *front = arg;

    (void)fd;
    (void)what;
    if (clock_now_us() < front->pause.until_us) {
        arm(front);
    } else {
        release(front);
    }
}

void pause_init(struct front *front)
{
    front->pause.event = event_new(front->worker.base, -1, 0, on_timer, front);
    CHECK(front->pause.event != NULL);
}

void pause_fini(struct front *front)
{
    event_free(front->pause.event);
}

/* #!lua name flags=allow-oom,no-writes */
static bool says_no_writes(struct bytes script)
{
    const unsigned char *end = script.len > 0 ? memchr(script.ptr, '\n', script.len) : NULL;
    bool is_flag = false;
    size_t word = 0;

    if (end == NULL || !bytes_start_with(script, BYTES("#!"))) {
        return false;
    }
    for (size_t i = 0; script.ptr + i <= end; i++) {
        const struct bytes text = bytes_make(script.ptr + word, i - word);

        if (strchr(", \t\r\n", script.ptr[i]) == NULL && script.ptr[i] != '=') {
            continue;
        }
        if (is_flag && bytes_equal(text, BYTES("no-writes"))) {
            return true;
        }
        is_flag = (is_flag && script.ptr[i] == ',') ||
                  (script.ptr[i] == '=' && bytes_equal(text, BYTES("flags")));
        word = i + 1;
    }
    return false;
}

bool pause_may_write(const struct dispatch_call *call)
{
    const struct command *command = call->command;

    if (command->class == CLASS_SCRIPT && strcmp(command->name, "eval") == 0 &&
        command_arity_fits(command, call->argc) && says_no_writes(call->argv[1])) {
        return false;
    }
    /* DEBUG has the flag because it drops what is cached; Redis lets it pass. */
    return (command->flags & (COMMAND_WRITES | COMMAND_MAY_REPLICATE)) != 0 &&
           (command->class != CLASS_ADMIN || command->keys != KEYS_NONE);
}

bool pause_holds(struct session *session, const struct dispatch_call *call)
{
    const struct command *command = call->command;

    /* Redis takes QUIT before it looks at anything else, and words what is malformed at once; CACHE
     * is for those who look why. */
    if (command == NULL || !command_arity_fits(command, call->argc) ||
        command->handler == HANDLER_quit || command->class == CLASS_PROXY) {
        return false;
    }
    if (session->front->pause.mode != PAUSE_ALL && !pause_may_write(call) &&
        !(bytes_equal(bytes_of_string(command->name), BYTES("exec")) &&
          transaction_writes(session))) {
        return false;
    }
    stats_add(METRIC_stalls_pause, 1);
    session->is_paused = true;
    atomic_fetch_add_explicit(&session->front->proxy->n_blocked, 1, memory_order_relaxed);
    session_suspend(session, true);
    return true;
}

/* ---- the tour ---- */

struct tour {
    struct mail mail;
    struct proxy *proxy;
    struct front *home;
    struct request *request; /* answered at home */
    unsigned next;           /* worker to visit */
    enum pause_mode mode;    /* PAUSE_NONE: the pause ends */
    int64_t until_us;
};

static void visit(const struct tour *tour, struct front *front)
{
    struct pause *pause = &front->pause;

    if (tour->mode == PAUSE_NONE) {
        release(front);
        return;
    }
    if (pause->mode != PAUSE_NONE && clock_now_us() >= pause->until_us) {
        release(front); /* it is over, only its timer has not said so yet */
    }
    /* A second pause makes the first one longer or stricter, never shorter or laxer. */
    if (pause->mode == PAUSE_NONE || pause->until_us < tour->until_us) {
        pause->until_us = tour->until_us;
    }
    pause->mode = tour->mode > pause->mode ? tour->mode : pause->mode;
    arm(front);
}

/*
 * From worker to worker, then home: two tours visit in the same order, so that all workers end up
 * with the same mode.
 */
static void on_visit(struct mail *mail)
{
    struct tour *tour = CONTAINER_OF(mail, struct tour, mail);

    if (tour->next == tour->proxy->n_fronts) {
        request_take_part(tour->request, BYTES("+OK\r\n"));
        request_done(tour->request);
        mem_free(tour);
        return;
    }
    visit(tour, &tour->proxy->fronts[tour->next]);
    tour->next++;
    worker_post(tour->next < tour->proxy->n_fronts ? &tour->proxy->fronts[tour->next].worker
                                                   : &tour->home->worker,
                &tour->mail);
}

static enum verdict begin_tour(struct session *session, const struct dispatch_call *call,
                               enum pause_mode mode, int64_t until_us)
{
    struct tour *tour = mem_alloc(sizeof(*tour));

    tour->mail.run = on_visit;
    tour->proxy = session->front->proxy;
    tour->home = session->front;
    tour->mode = mode;
    tour->until_us = until_us;
    tour->request = request_queue(session, REQUEST_LOCAL, call->command);
    /* What the client sends behind it is held too. */
    tour->request->suspends = true;
    session_suspend(session, false);
    worker_post(&tour->proxy->fronts[0].worker, &tour->mail);
    return VERDICT_TAKEN;
}

/* ---- the commands ---- */

static enum verdict fail(struct session *session, const char *text)
{
    session_error(session, "%s", text);
    return VERDICT_TAKEN;
}

enum verdict pause_begin(struct session *session, const struct dispatch_call *call)
{
    enum pause_mode mode = PAUSE_ALL;
    int64_t timeout_ms;

    if (call->argc > 4) {
        session_error(session,
                      "ERR unknown subcommand or wrong number of arguments for '%.*s'. Try CLIENT "
                      "HELP.",
                      call->argv[1].len > 128 ? 128 : (int)call->argv[1].len,
                      (const char *)call->argv[1].ptr);
        return VERDICT_TAKEN;
    }
    if (call->argc == 4 && bytes_equal_nocase(call->argv[3], BYTES("WRITE"))) {
        mode = PAUSE_WRITE;
    } else if (call->argc == 4 && !bytes_equal_nocase(call->argv[3], BYTES("ALL"))) {
        return fail(session, "ERR CLIENT PAUSE mode must be WRITE or ALL");
    }
    if (!bytes_to_int64(call->argv[2], &timeout_ms)) {
        return fail(session, "ERR timeout is not an integer or out of range");
    }
    if (timeout_ms < 0) {
        return fail(session, "ERR timeout is negative");
    }
    timeout_ms = timeout_ms > PAUSE_MAX_MS ? PAUSE_MAX_MS : timeout_ms;
    log_info("proxy", "clients paused", "client=%s mode=%s timeout_ms=%lld", session->peer.text,
             mode == PAUSE_ALL ? "all" : "write", (long long)timeout_ms);
    return begin_tour(session, call, mode, clock_now_us() + timeout_ms * 1000);
}

enum verdict pause_end(struct session *session, const struct dispatch_call *call)
{
    log_info("proxy", "clients go on", "client=%s", session->peer.text);
    return begin_tour(session, call, PAUSE_NONE, 0);
}
