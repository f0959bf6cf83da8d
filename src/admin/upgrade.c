/*
 * Design: the successor is told of the sockets as systemd would do it (LISTEN_FDS and so on), so
 * there is one way in. Both processes hold the same sockets, hence the same queues of clients that
 * wait to be accepted: nobody who connects meanwhile is lost, as would happen to those in the queue
 * of a closed SO_REUSEPORT socket. posix_spawn() does not copy this process's memory.
 */
#include "admin/upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "coherence/unlink.h"
#include "proxy/handover.h"

/* Not NEARCACHED_: that would be an option. */
#define VARIABLE "NC_HANDOVER"
#define WORD_FD_NAME "own.words"
/* How long a successor may take until it is ready; it gives up a little sooner by itself. */
#define START_TIMEOUT_S 30
#define READY_TIMEOUT_S 25
#define GIVE_TICK_MS 5
/* Out of descriptors: connections wait in the socket of words; who waits too long is lost. */
#define FULL_TICK_MS 20
#define FULL_MAX_US 10000000
/* For what two processes send each other at once. */
#define WORD_BUFFER (1024 * 1024)

enum state {
    STATE_ALONE,
    STATE_STARTING, /* a successor was started, and is not ready */
    STATE_LEFT,     /* it has taken over */
};

struct upgrade {
    char **argv;
    struct proxy *proxy;
    struct ports *ports;
    struct changer *changer;
    const struct upgrade_events *events;
    void *context;

    enum state state; /* as predecessor */
    pid_t child;
    int fd; /* of words and connections, to the successor */
    struct event *event, *timer;
    int64_t until_us;
    bool can_give;  /* the successor understands */
    bool is_giving; /* workers use fd */
    bool is_failed; /* fd is to be closed when they no longer do */
    bool has_next;  /* the successor has one itself: nothing more is given */
    bool owes_done; /* to be told so when workers no longer use fd */

    int from_fd; /* the same, to the predecessor; -1: none */
    struct event *from_event, *from_timer;
    struct event *full_timer; /* out of descriptors: when to try again */
    int64_t full_since_us;    /* 0: not */
    bool is_pending, is_ready;
    bool is_from_done; /* it gives nothing more */
    char *modes;
};

/* ---- the environment ---- */

/* WORD_FD_NAME is the last of the descriptors; systemd's call is not to see it. */
static int take_word_fd(void)
{
    const char *const text = getenv("LISTEN_FDS");
    const int n = text != NULL ? atoi(text) : 0;
    char number[16];

    if (n < 1) {
        return -1;
    }
    (void)snprintf(number, sizeof(number), "%d", n - 1);
    (void)setenv("LISTEN_FDS", number, 1);
    return SD_LISTEN_FDS_START + n - 1;
}

/* The names are one more than what is left of the descriptors: that is an error to systemd. */
static void drop_last_name(void)
{
    const char *const names = getenv("LISTEN_FDNAMES");
    const char *const last = names != NULL ? strrchr(names, ':') : NULL;
    char *cut;

    if (last == NULL) {
        (void)unsetenv("LISTEN_FDNAMES");
        return;
    }
    cut = strndup(names, (size_t)(last - names));
    CHECK(cut != NULL);
    (void)setenv("LISTEN_FDNAMES", cut, 1);
    free(cut);
}

struct upgrade *upgrade_new(char **argv)
{
    struct upgrade *upgrade = mem_alloc(sizeof(*upgrade));
    const char *const modes = getenv(VARIABLE);
    char pid[16];

    upgrade->argv = argv;
    upgrade->fd = upgrade->from_fd = -1;
    upgrade->modes = mem_strdup(modes != NULL ? modes : "");
    if (modes == NULL) {
        return upgrade;
    }
    upgrade->is_pending = true;
    upgrade->from_fd = take_word_fd();
    drop_last_name();
    if (upgrade->from_fd >= 0) {
        (void)fcntl(upgrade->from_fd, F_SETFD, FD_CLOEXEC);
    }
    (void)snprintf(pid, sizeof(pid), "%d", (int)getpid());
    (void)setenv("LISTEN_PID", pid, 1);
    if (getenv("WATCHDOG_PID") != NULL) {
        (void)setenv("WATCHDOG_PID", pid, 1);
    }
    (void)unsetenv(VARIABLE);
    return upgrade;
}

bool upgrade_is_pending(const struct upgrade *upgrade)
{
    return upgrade->is_pending;
}

const char *upgrade_modes(const struct upgrade *upgrade)
{
    return upgrade->modes;
}

bool upgrade_has_left(const struct upgrade *upgrade)
{
    return upgrade->state == STATE_LEFT;
}

/* ---- the successor's side ---- */

static void forget_predecessor(struct upgrade *upgrade)
{
    if (upgrade->from_event != NULL) {
        event_free(upgrade->from_event);
        upgrade->from_event = NULL;
    }
    if (upgrade->from_timer != NULL) {
        event_free(upgrade->from_timer);
        upgrade->from_timer = NULL;
    }
    if (upgrade->full_timer != NULL) {
        event_free(upgrade->full_timer);
        upgrade->full_timer = NULL;
    }
    if (upgrade->from_fd >= 0) {
        close(upgrade->from_fd);
        upgrade->from_fd = -1;
    }
}

/* A word that costs nothing when it does not arrive. */
static void mention(int fd, const char *word)
{
    if (fd >= 0) {
        (void)!handover_say(fd, word);
    }
}

/* Nobody accepts from those that our options do not name: the predecessor closes them as well. */
static void drop_unused(struct upgrade *upgrade)
{
    char word[HANDOVER_WORD_MAX];
    unsigned number;

    while (ports_next_unused(upgrade->ports, &number)) {
        (void)snprintf(word, sizeof(word), "DROP %u", number);
        mention(upgrade->from_fd, word);
    }
}

static void take_over(struct upgrade *upgrade, const char *why)
{
    upgrade->is_pending = false;
    if (upgrade->from_timer != NULL) {
        event_del(upgrade->from_timer);
    }
    ports_own_files(upgrade->ports, true);
    ports_accept(upgrade->ports, true);
    drop_unused(upgrade);
    log_info("main", "taken over from the predecessor", "reason=%s",
             log_quote(bytes_of_string(why)));
    upgrade->events->on_taken(upgrade->context);
}

static void on_word_of_predecessor(struct upgrade *upgrade, const char *word)
{
    uint64_t next_id;

    if (strcmp(word, "DONE") == 0) {
        upgrade->is_from_done = true;
    }
    if (!upgrade->is_pending) {
        return;
    }
    if (strcmp(word, "STOP") == 0) {
        upgrade->is_pending = false; /* its end is not a reason to take over any more */
        log_error("main", "the predecessor waits no longer", NULL);
        upgrade->events->on_failed(upgrade->context);
    } else if (sscanf(word, "GO %" SCNu64, &next_id) != 1) {
        return;
    } else if (atomic_load_explicit(&upgrade->proxy->is_leaving, memory_order_relaxed)) {
        upgrade->is_pending = false; /* told to end meanwhile: the predecessor is to go on */
        (void)shutdown(upgrade->from_fd, SHUT_RDWR);
    } else {
        atomic_store_explicit(&upgrade->proxy->next_session_id, next_id, memory_order_relaxed);
        take_over(upgrade, "it has stopped accepting");
    }
}

/* Others may close some meanwhile. */
static void wait_for_descriptors(struct upgrade *upgrade)
{
    const struct timeval tick = {0, FULL_TICK_MS * 1000};

    if (upgrade->full_since_us == 0) {
        upgrade->full_since_us = clock_now_us();
        stats_add(METRIC_handover_stalls, 1);
        log_error("main", "connections of the predecessor wait: out of descriptors", NULL);
    }
    event_del(upgrade->from_event);
    event_add(upgrade->full_timer, &tick);
}

static void on_from(evutil_socket_t fd, short what, void *arg)
{
    struct upgrade *upgrade = arg;
    char word[HANDOVER_WORD_MAX];
    enum handover_result result;

    (void)what;
    do {
        result = handover_take(upgrade->proxy, fd, word);
        if (result == HANDOVER_SIGNAL) {
            on_word_of_predecessor(upgrade, word);
        } else if (result == HANDOVER_FULL && upgrade->full_since_us != 0 &&
                   clock_now_us() - upgrade->full_since_us > FULL_MAX_US) {
            handover_lose(fd);
        }
    } while (result == HANDOVER_SIGNAL);
    if (result == HANDOVER_FULL) {
        wait_for_descriptors(upgrade);
        return;
    }
    upgrade->full_since_us = 0;
    if (result == HANDOVER_END) {
        forget_predecessor(upgrade);
        if (upgrade->is_pending) {
            take_over(upgrade, "it has ended");
        } else {
            log_info("main", "the predecessor has ended", NULL);
        }
    }
}

static void on_full_tick(evutil_socket_t fd, short what, void *arg)
{
    struct upgrade *upgrade = arg;

    (void)fd;
    (void)what;
    event_add(upgrade->from_event, NULL);
}

static void on_not_ready(evutil_socket_t fd, short what, void *arg)
{
    struct upgrade *upgrade = arg;

    (void)fd;
    (void)what;
    if (upgrade->is_pending) {
        log_error("main", "the backend is not reached, the predecessor goes on", "after_s=%d",
                  READY_TIMEOUT_S);
        upgrade->is_pending = false;
        upgrade->events->on_failed(upgrade->context);
    }
}

void upgrade_ready(struct upgrade *upgrade)
{
    char word[HANDOVER_WORD_MAX];

    if (upgrade->is_pending && !upgrade->is_ready && upgrade->from_fd >= 0 &&
        !atomic_load_explicit(&upgrade->proxy->is_leaving, memory_order_relaxed)) {
        (void)snprintf(word, sizeof(word), "READY %x", handover_format());
        upgrade->is_ready = handover_say(upgrade->from_fd, word) == 0;
    }
}

/* ---- the predecessor's side ---- */

static void forget_successor(struct upgrade *upgrade)
{
    if (upgrade->event != NULL) {
        event_free(upgrade->event);
        upgrade->event = NULL;
    }
    event_del(upgrade->timer);
    if (upgrade->is_giving) {
        upgrade->is_failed = true;
    } else if (upgrade->fd >= 0) {
        close(upgrade->fd);
        upgrade->fd = -1;
    }
}

static void forget_front(struct front *front, void *context)
{
    (void)context;
    handover_forget(front);
}

/*
 * It serves nobody yet, and may hang. The word is for one that a script has started: what goes on
 * below the script is not to take the end of this process's socket for its death.
 */
static void stop_successor(struct upgrade *upgrade)
{
    mention(upgrade->fd, "STOP");
    (void)kill(upgrade->child, SIGKILL);
}

/* As if nothing had been. */
static void go_on(struct upgrade *upgrade, const char *reason)
{
    stats_add(METRIC_upgrade_failures, 1);
    log_error("main", "the successor failed, this process goes on", "pid=%d reason=%s",
              (int)upgrade->child, log_quote(bytes_of_string(reason)));
    if (upgrade->state == STATE_STARTING) {
        stop_successor(upgrade);
    }
    ports_thaw(upgrade->ports, changer_config(upgrade->changer));
    if (upgrade->state == STATE_LEFT &&
        !atomic_load_explicit(&upgrade->proxy->is_leaving, memory_order_relaxed)) {
        ports_own_files(upgrade->ports, true);
        ports_accept(upgrade->ports, true);
        sd_notifyf(0, "MAINPID=%d\nREADY=1", (int)getpid());
    }
    upgrade->state = STATE_ALONE;
    mention(upgrade->from_fd, "BACK");
    forget_successor(upgrade);
    /* Behind what gives, on every worker. */
    proxy_on_all_workers(upgrade->proxy, forget_front, NULL, NULL);
}

static void give_front(struct front *front, void *context)
{
    const struct upgrade *upgrade = context;

    if (upgrade->can_give) {
        (void)handover_give(front, upgrade->fd);
    }
}

static void arm(struct upgrade *upgrade, int64_t wait_ms)
{
    const struct timeval wait = {wait_ms / 1000, wait_ms % 1000 * 1000};

    event_add(upgrade->timer, &wait);
}

/* Behind the last connection. */
static void say_done(struct upgrade *upgrade)
{
    if (upgrade->owes_done && !upgrade->is_giving) {
        upgrade->owes_done = false;
        mention(upgrade->fd, "DONE");
    }
}

/* The descriptor is closed here alone, when no worker uses it. */
static void on_given(void *context)
{
    struct upgrade *upgrade = context;
    struct proxy *proxy = upgrade->proxy;

    upgrade->is_giving = false;
    say_done(upgrade);
    if (upgrade->is_failed && upgrade->timer != NULL) {
        upgrade->is_failed = false;
        forget_successor(upgrade);
    }
    if (upgrade->state != STATE_LEFT) {
        return;
    }
    /* What a predecessor has sent until it heard that it is not to is not lost. */
    if (atomic_load_explicit(&proxy->n_clients, memory_order_relaxed) == 0 &&
        (upgrade->from_fd < 0 || upgrade->is_from_done) &&
        (proxy->fleet.jobs == NULL || unlink_jobs_running(proxy->fleet.jobs) == 0)) {
        upgrade->events->on_left(upgrade->context);
    } else if (clock_now_us() >= upgrade->until_us) {
        upgrade->events->on_timeout(upgrade->context);
    } else {
        arm(upgrade, GIVE_TICK_MS);
    }
}

static void give(struct upgrade *upgrade)
{
    if (!upgrade->is_giving &&
        !atomic_load_explicit(&upgrade->proxy->is_draining, memory_order_relaxed)) {
        upgrade->is_giving = true;
        proxy_on_all_workers(upgrade->proxy, upgrade->has_next ? forget_front : give_front,
                             on_given, upgrade);
    }
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct upgrade *upgrade = arg;

    (void)fd;
    (void)what;
    if (upgrade->state == STATE_STARTING) {
        go_on(upgrade, "not ready in time");
    } else if (upgrade->state == STATE_LEFT) {
        give(upgrade);
    }
}

/* The successor is ready. From here on it accepts. */
static void leave(struct upgrade *upgrade)
{
    char word[HANDOVER_WORD_MAX];
    const int64_t wait_ms = changer_config(upgrade->changer)->handover_timeout_ms;

    ports_accept(upgrade->ports, false);
    ports_own_files(upgrade->ports, false);
    (void)snprintf(word, sizeof(word), "GO %" PRIu64,
                   atomic_load_explicit(&upgrade->proxy->next_session_id, memory_order_relaxed));
    if (handover_say(upgrade->fd, word) != 0) {
        ports_own_files(upgrade->ports, true);
        ports_accept(upgrade->ports, true);
        go_on(upgrade, "it does not listen");
        return;
    }
    sd_notifyf(0, "MAINPID=%d", (int)upgrade->child);
    upgrade->state = STATE_LEFT;
    upgrade->until_us = clock_now_us() + wait_ms * 1000;
    upgrade->has_next = upgrade->owes_done = false;
    mention(upgrade->from_fd, "NEXT");
    stats_add(METRIC_upgrades, 1);
    log_info("main", "the successor takes over", "pid=%d clients=%u limit_ms=%" PRId64,
             (int)upgrade->child,
             atomic_load_explicit(&upgrade->proxy->n_clients, memory_order_relaxed), wait_ms);
    event_del(upgrade->timer);
    give(upgrade);
}

/*
 * One that has a successor itself has left the clients to that one: this process need not accept
 * again, and serves those that it has to their end.
 */
static void on_successor_s_end(struct upgrade *upgrade)
{
    if (upgrade->state == STATE_LEFT && upgrade->has_next) {
        event_free(upgrade->event);
        upgrade->event = NULL;
        log_info("main", "the successor has ended, its own one serves", "pid=%d",
                 (int)upgrade->child);
    } else {
        go_on(upgrade, "it has ended");
    }
}

static void on_word_of_successor(evutil_socket_t fd, short what, void *arg)
{
    struct upgrade *upgrade = arg;
    char word[HANDOVER_WORD_MAX];
    const ssize_t n = recv(fd, word, sizeof(word) - 1, MSG_DONTWAIT);
    unsigned format, number;

    (void)what;
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    word[n > 0 ? n : 0] = '\0';
    if (n <= 0) {
        on_successor_s_end(upgrade);
    } else if (sscanf(word, "READY %x", &format) == 1 && upgrade->state == STATE_STARTING) {
        upgrade->can_give = format == handover_format();
        leave(upgrade);
    } else if (upgrade->state != STATE_LEFT) {
        return;
    } else if (strcmp(word, "BYE") == 0) {
        upgrade->events->on_timeout(upgrade->context);
    } else if (sscanf(word, "DROP %u", &number) == 1) {
        ports_drop(upgrade->ports, number);
    } else if (strcmp(word, "NEXT") == 0 || strcmp(word, "BACK") == 0) {
        upgrade->has_next = word[0] == 'N';
        upgrade->owes_done = upgrade->has_next;
        say_done(upgrade);
    }
}

/* ---- starting it ---- */

/* Copies above all targets, so that no dup2() hits one that is still to be copied. */
static bool lift(int *fds, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, SD_LISTEN_FDS_START + (int)n);
        if (fds[i] < 0) {
            while (i > 0) {
                close(fds[--i]);
            }
            return false;
        }
    }
    return true;
}

static bool is_replaced(const char *variable)
{
    static const char *const names[] = {
        "LISTEN_FDS=", "LISTEN_PID=", "LISTEN_FDNAMES=", VARIABLE "="};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strncmp(variable, names[i], strlen(names[i])) == 0) {
            return true;
        }
    }
    return false;
}

/* Free it, and its first three strings. */
static char **make_environment(const struct upgrade *upgrade,
                               char names[PORTS_MAX + 1][PORTS_NAME_MAX], unsigned n)
{
    size_t n_variables = 0, at = 3, size = 0;
    char **variables;
    FILE *out;

    while (environ[n_variables] != NULL) {
        n_variables++;
    }
    variables = mem_alloc((n_variables + 4) * sizeof(*variables));
    CHECK(asprintf(&variables[0], "LISTEN_FDS=%u", n) > 0);
    out = open_memstream(&variables[1], &size);
    CHECK(out != NULL);
    fputs("LISTEN_FDNAMES=", out);
    for (unsigned i = 0; i < n; i++) {
        fprintf(out, "%s%s", i > 0 ? ":" : "", names[i]);
    }
    (void)fclose(out);
    out = open_memstream(&variables[2], &size);
    CHECK(out != NULL);
    fputs(VARIABLE "=", out);
    config_modes_set(changer_config(upgrade->changer), out);
    (void)fclose(out);
    for (size_t i = 0; i < n_variables; i++) {
        if (!is_replaced(environ[i])) {
            variables[at++] = environ[i];
        }
    }
    return variables;
}

/* 0 or an errno. */
static int spawn(struct upgrade *upgrade, const int *fds, unsigned n, char **environment)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    int error;

    CHECK(posix_spawn_file_actions_init(&actions) == 0 && posix_spawnattr_init(&attributes) == 0);
    for (unsigned i = 0; i < n; i++) {
        (void)posix_spawn_file_actions_adddup2(&actions, fds[i], SD_LISTEN_FDS_START + (int)i);
    }
    (void)sigemptyset(&none);
    (void)sigfillset(&all);
    (void)posix_spawnattr_setsigmask(&attributes, &none);
    (void)posix_spawnattr_setsigdefault(&attributes, &all);
    (void)posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    error = posix_spawnp(&upgrade->child, upgrade->argv[0], &actions, &attributes, upgrade->argv,
                         environment);
    (void)posix_spawnattr_destroy(&attributes);
    (void)posix_spawn_file_actions_destroy(&actions);
    return error;
}

static int start(struct upgrade *upgrade, int word_fd)
{
    int fds[PORTS_MAX + 1];
    char names[PORTS_MAX + 1][PORTS_NAME_MAX];
    unsigned n = ports_list(upgrade->ports, fds, names);
    char **environment;
    int error;

    fds[n] = word_fd;
    (void)snprintf(names[n], PORTS_NAME_MAX, "%s", WORD_FD_NAME);
    n++;
    if (!lift(fds, n)) {
        return EMFILE;
    }
    environment = make_environment(upgrade, names, n);
    error = spawn(upgrade, fds, n, environment);
    for (unsigned i = 0; i < n; i++) {
        close(fds[i]);
    }
    for (unsigned i = 0; i < 3; i++) {
        free(environment[i]);
    }
    mem_free(environment);
    return error;
}

static void refuse(const char *reason)
{
    stats_add(METRIC_upgrade_failures, 1);
    log_error("main", "no upgrade", "reason=%s", log_quote(bytes_of_string(reason)));
}

void upgrade_begin(struct upgrade *upgrade)
{
    int pair[2];
    const int size = WORD_BUFFER;
    int error;

    if (upgrade->state != STATE_ALONE || upgrade->is_pending || upgrade->is_giving ||
        atomic_load_explicit(&upgrade->proxy->is_leaving, memory_order_relaxed)) {
        refuse("one is under way, or this process ends");
        return;
    }
    if (getpid() == 1) {
        refuse("this is process 1: its container would end with it");
        return;
    }
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0) {
        refuse(strerror(errno));
        return;
    }
    (void)setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    error = start(upgrade, pair[1]);
    close(pair[1]);
    if (error != 0) {
        close(pair[0]);
        refuse(strerror(error));
        return;
    }
    log_info("main", "a successor was started", "pid=%d", (int)upgrade->child);
    upgrade->state = STATE_STARTING;
    ports_freeze(upgrade->ports);
    upgrade->fd = pair[0];
    upgrade->event = event_new(upgrade->proxy->control->base, pair[0], EV_READ | EV_PERSIST,
                               on_word_of_successor, upgrade);
    CHECK(upgrade->event != NULL);
    event_add(upgrade->event, NULL);
    arm(upgrade, START_TIMEOUT_S * 1000);
}

void upgrade_reap(struct upgrade *upgrade)
{
    int status;

    /* Nobody else has children here. */
    while (waitpid(-1, &status, WNOHANG) > 0) {
    }
    (void)upgrade;
}

/* ---- life ---- */

void upgrade_start(struct upgrade *upgrade, struct proxy *proxy, struct ports *ports,
                   struct changer *changer, const struct upgrade_events *events, void *context)
{
    const struct timeval wait = {READY_TIMEOUT_S, 0};
    struct event_base *base = proxy->control->base;

    upgrade->proxy = proxy;
    upgrade->ports = ports;
    upgrade->changer = changer;
    upgrade->events = events;
    upgrade->context = context;
    upgrade->timer = event_new(base, -1, 0, on_timer, upgrade);
    CHECK(upgrade->timer != NULL);
    if (!upgrade->is_pending) {
        return;
    }
    upgrade->from_timer = event_new(base, -1, 0, on_not_ready, upgrade);
    CHECK(upgrade->from_timer != NULL);
    event_add(upgrade->from_timer, &wait);
    if (upgrade->from_fd >= 0) {
        upgrade->from_event = event_new(base, upgrade->from_fd, EV_READ | EV_PERSIST, on_from,
                                        upgrade);
        upgrade->full_timer = event_new(base, -1, 0, on_full_tick, upgrade);
        CHECK(upgrade->from_event != NULL && upgrade->full_timer != NULL);
        event_add(upgrade->from_event, NULL);
    }
}

void upgrade_end(struct upgrade *upgrade)
{
    if (upgrade->from_fd >= 0 && !upgrade->is_pending &&
        handover_say(upgrade->from_fd, "BYE") != 0) {
        log_warn("main", "the predecessor cannot be told, and ends by itself", NULL);
    }
    if (upgrade->state == STATE_STARTING) {
        stop_successor(upgrade);
        upgrade->state = STATE_ALONE;
        forget_successor(upgrade);
    }
}

void upgrade_stop(struct upgrade *upgrade)
{
    upgrade->state = STATE_ALONE;
    forget_predecessor(upgrade);
    if (upgrade->event != NULL) {
        event_free(upgrade->event);
        upgrade->event = NULL;
    }
    if (upgrade->timer != NULL) {
        event_free(upgrade->timer);
        upgrade->timer = NULL;
    }
}

void upgrade_free(struct upgrade **upgrade)
{
    struct upgrade *const gone = *upgrade;

    if (gone == NULL) {
        return;
    }
    if (gone->fd >= 0) {
        close(gone->fd);
    }
    mem_free(gone->modes);
    mem_free(gone);
    *upgrade = NULL;
}
