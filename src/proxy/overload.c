/*
 * Two clocks: a tick every 100 ms measures; between two ticks base/mem counts what is allocated and
 * says so when the next stage may have been reached. The bound at which single large blocks are
 * refused (mem_set_bounds) holds at any instant, so what a burst can add between two measurements
 * is small: chunks, sessions and requests.
 *
 * Measured is the larger of resident memory and what jemalloc calls resident, which includes pages
 * that were handed out and not yet touched. In a cgroup with a limit its own figure counts as well,
 * as that is what the kernel kills by; it includes the kernel's socket buffers.
 *
 * Closing: each worker names the sessions that hold the most, the control thread picks the largest
 * of all until enough will be free, each worker closes those of its own that are still there.
 */
#include "proxy/overload.h"

#include "base/cgroup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/stats.h"
#include "cache/cache.h"
#include "proxy/group.h"
#include "proxy/limits.h"
#include "proxy/transaction.h"
#include "upstream/identity.h"

#include <jemalloc/jemalloc.h>
#include <linux/sock_diag.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* The process may move, and its limit may change. */
#define LOOK_AROUND_US 1000000
/* Kept free below a cgroup's limit: a sixteenth, and for the kernel's part not too little. */
#define MARGIN_MIN ((size_t)8 << 20)
/* Tier 1 is not made smaller than this by what others hold. */
#define TIER_FLOOR_MIN ((size_t)1 << 20)
/* Sessions that a worker names in one round, and what one must hold to be closed. */
#define NAMED_MAX 128u
#define CLOSE_MIN ((size_t)64 * 1024)
#define CLOSE_MIN_SHED ((size_t)8 * 1024)

struct overload {
    struct proxy *proxy;
    struct cache *cache;
    struct worker *control;
    size_t process_memory, maxmemory; /* of the configuration in force */
    unsigned stall_bound;
    struct cgroup group;
    int64_t looked_at_us, stalled_at_us;
    uint64_t stalled_us;
    size_t cgroup_limit;
    unsigned kept_percent; /* of tier 1, by PSI */
    ssize_t decay_ms;      /* jemalloc's dirty_decay_ms as it was at start; -1: not known */
    struct pressure pressure;
    struct round *round; /* of closing; NULL: none is under way */
    struct mail alarm_mail;
    _Atomic bool is_alarmed; /* atomic: the mail is under way */
    bool was_stalled, is_stopping;

    /* For everybody. */
    _Atomic unsigned stage, stalled_percent;      /* atomic */
    _Atomic size_t limit, held, group_limit, fit; /* atomic */
};

static const struct mem_bounds no_bounds = {INT64_MAX, INT64_MAX, INT64_MAX};

/* ---- measuring ---- */

static size_t resident_bytes(void)
{
    long long n_pages = 0;
    FILE *const file = fopen("/proc/self/statm", "re");

    if (file != NULL) {
        if (fscanf(file, "%*d %lld", &n_pages) != 1) {
            n_pages = 0;
        }
        (void)fclose(file);
    }
    return (size_t)n_pages * (size_t)sysconf(_SC_PAGESIZE);
}

static size_t jemalloc_resident_bytes(void)
{
    uint64_t epoch = 1;
    size_t n_bytes = 0, size = sizeof(n_bytes);

    if (mallctl("epoch", NULL, NULL, &epoch, sizeof(epoch)) != 0 ||
        mallctl("stats.resident", &n_bytes, &size, NULL, 0) != 0) {
        return 0;
    }
    return n_bytes;
}

/* What is free and not yet given back; all arenas. */
static void purge(void)
{
    char name[32];

    (void)snprintf(name, sizeof(name), "arena.%u.purge", (unsigned)MALLCTL_ARENAS_ALL);
    (void)mallctl(name, NULL, NULL, NULL, 0);
}

/* How long free pages are kept, in the arenas of everything but tier 1: not at all, or as at start.
 */
static void keep_free_pages(struct overload *overload, bool is_kept)
{
    ssize_t decay_ms = is_kept ? overload->decay_ms : 0;
    unsigned n = 0;
    size_t size = sizeof(n);
    char name[40];

    if (overload->decay_ms < 0 || mallctl("opt.narenas", &n, &size, NULL, 0) != 0) {
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        (void)snprintf(name, sizeof(name), "arena.%u.dirty_decay_ms", i);
        (void)mallctl(name, NULL, NULL, &decay_ms, sizeof(decay_ms));
    }
}

/* The bound that is nearer, and what counts against it. */
struct budget {
    size_t held, limit; /* 0: no limit */
};

static size_t margin_of(size_t limit)
{
    const size_t margin = limit / 16 > MARGIN_MIN ? limit / 16 : MARGIN_MIN;

    return margin < limit / 4 ? margin : limit / 4;
}

static struct budget measure(const struct overload *overload)
{
    const size_t resident = resident_bytes();
    const size_t mapped = jemalloc_resident_bytes();
    struct budget own = {resident > mapped ? resident : mapped, overload->process_memory};

    if (overload->cgroup_limit != CGROUP_NO_LIMIT) {
        const size_t used = cgroup_used(&overload->group);
        const struct budget shared = {used > own.held ? used : own.held,
                                      overload->cgroup_limit - margin_of(overload->cgroup_limit)};

        if (own.limit == 0 ||
            (double)shared.held / (double)shared.limit > (double)own.held / (double)own.limit) {
            return shared;
        }
    }
    return own;
}

static void look_around(struct overload *overload, int64_t now_us)
{
    size_t limit;

    if (now_us - overload->looked_at_us < LOOK_AROUND_US && overload->looked_at_us != 0) {
        return;
    }
    overload->looked_at_us = now_us;
    cgroup_find(&overload->group, "");
    limit = cgroup_limit(&overload->group);
    if (limit == overload->cgroup_limit) {
        return;
    }
    if (limit != CGROUP_NO_LIMIT) {
        log_info("proxy", "cgroup's memory limit",
                 "limit_bytes=%zu usable_bytes=%zu maxmemory=%zu group=%s", limit,
                 limit - margin_of(limit), overload->maxmemory,
                 log_quote(bytes_of_string(overload->group.tight)));
    } else {
        log_info("proxy", "the cgroup has no memory limit any more", NULL);
    }
    overload->cgroup_limit = limit;
    atomic_store_explicit(&overload->group_limit, limit == CGROUP_NO_LIMIT ? 0 : limit,
                          memory_order_relaxed);
}

/* Once a second: how much of it tasks have waited for memory. */
static void look_at_stalls(struct overload *overload, int64_t now_us)
{
    const int64_t since_us = now_us - overload->stalled_at_us;
    const unsigned bound = overload->stall_bound;
    uint64_t total_us = 0;
    unsigned stalled = 0;

    if (since_us < LOOK_AROUND_US) {
        return;
    }
    if (bound > 0 && cgroup_stalled(&overload->group, "", &total_us) &&
        overload->stalled_at_us != 0 && total_us >= overload->stalled_us) {
        stalled = (unsigned)((total_us - overload->stalled_us) * 100 / (uint64_t)since_us);
    }
    overload->stalled_us = total_us;
    overload->stalled_at_us = now_us;
    overload->kept_percent = pressure_stall_step(overload->kept_percent, stalled, bound);
    atomic_store_explicit(&overload->stalled_percent, stalled, memory_order_relaxed);
    if ((overload->kept_percent < 100) != overload->was_stalled) {
        overload->was_stalled = !overload->was_stalled;
        log_info("proxy",
                 overload->was_stalled ? "tasks wait for memory: tier 1 shrinks"
                                       : "tasks do not wait for memory any more",
                 "stalled_percent=%u", stalled);
    }
}

/* ---- the stage ---- */

void overload_fit_front(struct front *front)
{
    const struct overload *overload = front->proxy->overload;
    const unsigned stage = overload != NULL
                               ? atomic_load_explicit(&overload->stage, memory_order_relaxed)
                               : PRESSURE_NONE;
    const unsigned pipeline = (unsigned)front->config->client_pipeline_limit;

    front->guard = (stage == PRESSURE_SHED ? GUARD_SHED : 0u) |
                   (limits_are_set(front->config) ? GUARD_LIMITS : 0u);
    front->pipeline_least = pipeline < OVERLOAD_PIPELINE ? pipeline : OVERLOAD_PIPELINE;
    front->is_tight = stage != PRESSURE_NONE;
    front->is_short = stage >= PRESSURE_CLOSE;
}

static void take_stage(struct front *front, void *context)
{
    (void)context;
    overload_fit_front(front);
}

static void set_stage(struct overload *overload, enum pressure_stage stage,
                      const struct budget *budget)
{
    static const enum metric entered[N_PRESSURE_STAGES] = {
        [PRESSURE_SHRINK] = METRIC_pressure_shrink,
        [PRESSURE_CLOSE] = METRIC_pressure_close,
        [PRESSURE_SHED] = METRIC_pressure_shed,
    };
    const enum pressure_stage former = (enum pressure_stage)atomic_load_explicit(
        &overload->stage, memory_order_relaxed);

    if (stage == former) {
        return;
    }
    for (unsigned next = former + 1; next <= stage; next++) {
        stats_add(entered[next], 1);
    }
    atomic_store_explicit(&overload->stage, stage, memory_order_relaxed);
    if ((stage == PRESSURE_NONE) != (former == PRESSURE_NONE)) {
        keep_free_pages(overload, stage == PRESSURE_NONE);
    }
    if (stage > former) {
        log_warn("proxy", "memory pressure", "stage=%s former=%s held_bytes=%zu limit_bytes=%zu",
                 pressure_name(stage), pressure_name(former), budget->held, budget->limit);
    } else {
        log_info("proxy", stage == PRESSURE_NONE ? "memory pressure is over" : "memory pressure",
                 "stage=%s former=%s held_bytes=%zu limit_bytes=%zu", pressure_name(stage),
                 pressure_name(former), budget->held, budget->limit);
    }
    proxy_on_all_workers(overload->proxy, take_stage, NULL, NULL);
}

/* ---- closing ---- */

struct named {
    uint64_t id;
    size_t bytes;
};

struct names {
    unsigned n;
    struct named sessions[NAMED_MAX];
};

struct round {
    struct overload *overload;
    size_t wanted; /* bytes to be freed */
    size_t least;  /* a session must hold so much */
    bool with_kernel;
    bool spares_some;     /* those with CLIENT NO-EVICT */
    struct names names[]; /* by worker index; each written by its worker */
};

/* In the kernel's buffers of the socket. */
static size_t kernel_bytes(const struct session *session)
{
    uint32_t info[SK_MEMINFO_VARS] = {0};
    socklen_t size = sizeof(info);

    if (getsockopt(session->stream.fd, SOL_SOCKET, SO_MEMINFO, info, &size) != 0) {
        return 0;
    }
    return (size_t)info[SK_MEMINFO_RMEM_ALLOC] + info[SK_MEMINFO_WMEM_QUEUED];
}

static size_t session_bytes(const struct session *session, bool with_kernel)
{
    size_t bytes = session->in.capacity + session->out.n_bytes + session->out.tail.capacity +
                   outq_len(&session->pushes) + transaction_bytes(session);

    for (const struct request *request = session->first; request != NULL; request = request->next) {
        bytes += sizeof(*request) + outq_len(&request->reply) +
                 (request->group != NULL ? request->group->n_kept_bytes : 0);
        bytes += request->stored != request->few ? request->stored_bytes : 0;
    }
    return bytes + (with_kernel ? kernel_bytes(session) : 0);
}

/* Keeps the largest, in no order; the smallest of them gives way. */
static void name_session(struct names *names, struct named session)
{
    unsigned smallest = 0;

    if (names->n < NAMED_MAX) {
        names->sessions[names->n++] = session;
        return;
    }
    for (unsigned i = 1; i < NAMED_MAX; i++) {
        smallest = names->sessions[i].bytes < names->sessions[smallest].bytes ? i : smallest;
    }
    if (names->sessions[smallest].bytes < session.bytes) {
        names->sessions[smallest] = session;
    }
}

static void name_sessions(struct front *front, void *context)
{
    struct round *round = context;
    struct names *names = &round->names[front->worker.index];

    for (const struct session *session = front->sessions; session != NULL;
         session = session->next) {
        const size_t bytes = session_bytes(session, round->with_kernel);

        if (bytes >= round->least && !(session->is_no_evict && round->spares_some)) {
            name_session(names, (struct named){session->id, bytes});
        }
    }
}

static bool is_named(const struct names *names, uint64_t id)
{
    for (unsigned i = 0; i < names->n; i++) {
        if (names->sessions[i].id == id) {
            return true;
        }
    }
    return false;
}

static void close_sessions(struct front *front, void *context)
{
    struct round *round = context;
    const struct names *names = &round->names[front->worker.index];
    struct session *session = front->sessions;

    while (session != NULL && names->n > 0) {
        struct session *const next = session->next;
        const size_t bytes = is_named(names, session->id)
                                 ? session_bytes(session, round->with_kernel)
                                 : 0;

        /* It may have been served meanwhile. */
        if (bytes >= round->least) {
            stats_add(METRIC_clients_closed_memory, 1);
            log_warn("proxy", "client closed: memory", "client=%s id=%llu bytes=%zu",
                     session->peer.text, (unsigned long long)session->id, bytes);
            session_close(session);
        }
        session = next;
    }
}

static void on_closed(void *context)
{
    struct round *round = context;

    round->overload->round = NULL;
    mem_free(round);
}

static int by_size(const void *a, const void *b)
{
    const struct named *x = a, *y = b;

    return x->bytes < y->bytes ? 1 : (x->bytes > y->bytes ? -1 : 0);
}

/* Of all that were named, those that stay named are closed. */
static void on_named(void *context)
{
    struct round *round = context;
    struct proxy *proxy = round->overload->proxy;
    size_t bound = 0, sum = 0;
    unsigned n = 0;
    struct named *all;

    if (round->overload->is_stopping) {
        on_closed(round);
        return;
    }
    all = mem_alloc(proxy->n_fronts * NAMED_MAX * sizeof(*all));
    for (unsigned i = 0; i < proxy->n_fronts; i++) {
        for (unsigned at = 0; at < round->names[i].n; at++) {
            all[n++] = round->names[i].sessions[at];
        }
    }
    qsort(all, n, sizeof(*all), by_size);
    for (unsigned i = 0; i < n && sum < round->wanted; i++) {
        sum += all[i].bytes;
        bound = all[i].bytes;
    }
    mem_free(all);
    for (unsigned i = 0; i < proxy->n_fronts; i++) {
        struct names *names = &round->names[i];
        unsigned n_kept = 0;

        for (unsigned at = 0; at < names->n; at++) {
            if (names->sessions[at].bytes >= bound && bound > 0) {
                names->sessions[n_kept++] = names->sessions[at];
            }
        }
        names->n = n_kept;
    }
    proxy_on_all_workers(proxy, close_sessions, on_closed, round);
}

static void begin_round(struct overload *overload, const struct budget *budget)
{
    struct proxy *proxy = overload->proxy;
    const size_t goal = pressure_share(budget->limit, PRESSURE_CLOSE_AT - PRESSURE_SLACK);
    struct round *round;

    if (overload->round != NULL || budget->held <= goal) {
        return;
    }
    round = mem_alloc(sizeof(*round) + proxy->n_fronts * sizeof(round->names[0]));
    round->overload = overload;
    round->wanted = budget->held - goal;
    round->least = overload->pressure.stage == PRESSURE_SHED ? CLOSE_MIN_SHED : CLOSE_MIN;
    round->spares_some = overload->pressure.stage < PRESSURE_SHED;
    round->with_kernel = overload->cgroup_limit != CGROUP_NO_LIMIT;
    overload->round = round;
    proxy_on_all_workers(proxy, name_sessions, on_named, round);
}

/* ---- a step ---- */

/* Tier 1's own figures, and what it is to be fitted to. */
static size_t fit_tier(struct overload *overload, const struct budget *budget, bool *can_shrink)
{
    const size_t maxmemory = overload->maxmemory;
    const size_t least = maxmemory / 16 > TIER_FLOOR_MIN ? maxmemory / 16 : TIER_FLOOR_MIN;
    const size_t floor = least < maxmemory ? least : maxmemory;
    struct cache_stats stats;
    size_t fit = maxmemory;

    cache_stats(overload->cache, &stats);
    *can_shrink = stats.accounted_bytes > floor + floor / 8 + TIER_FLOOR_MIN;
    if (budget->limit > 0) {
        fit = pressure_fit(overload->pressure.stage, budget->held, budget->limit,
                           stats.arena_resident_bytes, floor, maxmemory);
    }
    if (overload->kept_percent < 100) {
        const size_t kept = maxmemory / 100 * overload->kept_percent;

        fit = fit < kept ? fit : kept;
    }
    return fit > floor ? fit : floor;
}

/* Until the next measurement: when to measure sooner, and where growing ends. */
static void set_bounds(const struct budget *budget)
{
    static const unsigned marks[] = {PRESSURE_SHRINK_AT, PRESSURE_CLOSE_AT, PRESSURE_SHED_AT};
    const int64_t spare = mem_live_bytes() - (int64_t)budget->held;
    struct mem_bounds bounds = no_bounds;

    if (budget->limit > 0) {
        bounds.refuse_at = spare + (int64_t)pressure_share(budget->limit, PRESSURE_REFUSE_AT);
        bounds.end_at = spare + (int64_t)budget->limit;
    }
    for (unsigned i = sizeof(marks) / sizeof(marks[0]); i-- > 0 && budget->limit > 0;) {
        const size_t mark = pressure_share(budget->limit, marks[i]);

        if (budget->held < mark) {
            /* A little behind it, so that it is not asked for again and again. */
            bounds.alarm_at = spare + (int64_t)(mark + budget->limit / 100);
        }
    }
    mem_set_bounds(&bounds);
}

static void step(struct overload *overload)
{
    const int64_t now_us = clock_now_us();
    struct budget budget;
    bool can_shrink = false;
    size_t fit;

    look_around(overload, now_us);
    look_at_stalls(overload, now_us);
    budget = measure(overload);
    if (budget.limit > 0 && budget.held >= pressure_share(budget.limit, PRESSURE_SHRINK_AT)) {
        /* What is only kept for later is no reason for anything. */
        purge();
        budget = measure(overload);
    }
    (void)fit_tier(overload, &budget, &can_shrink);
    if (budget.limit > 0) {
        pressure_step(&overload->pressure, budget.held, budget.limit, can_shrink, now_us);
    } else {
        overload->pressure = (struct pressure){0};
    }
    fit = fit_tier(overload, &budget, &can_shrink);
    cache_set_ceiling(overload->cache, fit);
    set_bounds(&budget);
    atomic_store_explicit(&overload->limit, budget.limit, memory_order_relaxed);
    atomic_store_explicit(&overload->held, budget.held, memory_order_relaxed);
    atomic_store_explicit(&overload->fit, fit, memory_order_relaxed);
    set_stage(overload, overload->pressure.stage, &budget);
    if (overload->pressure.stage >= PRESSURE_CLOSE) {
        begin_round(overload, &budget);
    }
}

void overload_tick(struct overload *overload)
{
    step(overload);
}

/* ---- life ---- */

static void on_alarm_mail(struct mail *mail)
{
    struct overload *overload = CONTAINER_OF(mail, struct overload, alarm_mail);

    atomic_store_explicit(&overload->is_alarmed, false, memory_order_release);
    if (!overload->is_stopping) {
        step(overload);
    }
}

/* Any thread, from inside an allocation. */
static void on_alarm(void *context)
{
    struct overload *overload = context;

    /* acq_rel: the mail belongs to whoever turned the flag. */
    if (!atomic_exchange_explicit(&overload->is_alarmed, true, memory_order_acq_rel)) {
        worker_post(overload->control, &overload->alarm_mail);
    }
}

void overload_configure(struct overload *overload, const struct config *config)
{
    overload->process_memory = config->process_memory;
    overload->maxmemory = config->maxmemory;
    overload->stall_bound = (unsigned)config->memory_stall;
}

struct overload *overload_new(struct proxy *proxy, struct cache *cache, struct worker *control,
                              const struct config *config)
{
    struct overload *overload = mem_alloc(sizeof(*overload));
    size_t size = sizeof(overload->decay_ms);

    overload->proxy = proxy;
    overload->cache = cache;
    overload->control = control;
    overload->cgroup_limit = CGROUP_NO_LIMIT;
    overload->kept_percent = 100;
    if (mallctl("opt.dirty_decay_ms", &overload->decay_ms, &size, NULL, 0) != 0) {
        overload->decay_ms = -1;
    }
    overload->alarm_mail.run = on_alarm_mail;
    overload_configure(overload, config);
    look_around(overload, clock_now_us());
    mem_set_alarm(on_alarm, overload);
    return overload;
}

void overload_stop(struct overload *overload)
{
    overload->is_stopping = true;
    mem_set_bounds(&no_bounds);
}

void overload_free(struct overload **overload)
{
    if (*overload == NULL) {
        return;
    }
    mem_set_alarm(NULL, NULL);
    mem_free(*overload);
    *overload = NULL;
}

bool overload_refuses_clients(const struct proxy *proxy)
{
    const struct overload *overload = proxy->overload;

    return overload != NULL &&
           (mem_is_short() ||
            atomic_load_explicit(&overload->stage, memory_order_relaxed) == PRESSURE_SHED);
}

void overload_figures(const struct proxy *proxy, struct overload_figures *figures)
{
    const struct overload *overload = proxy->overload;

    *figures = (struct overload_figures){0};
    if (overload == NULL) {
        return;
    }
    figures->stage = (enum pressure_stage)atomic_load_explicit(&overload->stage,
                                                               memory_order_relaxed);
    figures->limit_bytes = atomic_load_explicit(&overload->limit, memory_order_relaxed);
    figures->held_bytes = atomic_load_explicit(&overload->held, memory_order_relaxed);
    figures->cgroup_limit_bytes = atomic_load_explicit(&overload->group_limit,
                                                       memory_order_relaxed);
    figures->tier_bytes = atomic_load_explicit(&overload->fit, memory_order_relaxed);
    figures->stalled_percent = atomic_load_explicit(&overload->stalled_percent,
                                                    memory_order_relaxed);
}

/* ---- admission ---- */

static unsigned user_of(const struct session *session)
{
    return session->identity != NULL ? session->identity->number : 0;
}

bool overload_admit(struct session *session, const struct dispatch_call *call, struct bytes key)
{
    struct front *front = session->front;
    char text[320];

    if ((front->guard & GUARD_SHED) != 0 || mem_is_short()) {
        stats_add(METRIC_errors_memory, 1);
        session_error(session, "%s", OVERLOAD_TEXT);
        return false;
    }
    if ((front->guard & GUARD_LIMITS) != 0 &&
        limits_take(front->config, config_namespace_of(front->config, key), user_of(session),
                    session_user(session), call->now_us, &front->permit, text,
                    sizeof(text)) != NULL) {
        session_error(session, "%s", text);
        return false;
    }
    return true;
}

void overload_hold(struct front *front, struct request *request)
{
    request->permit = front->permit;
    front->permit = (struct permit){0};
}

void overload_let_go(struct front *front)
{
    limits_return(&front->permit);
}

void overload_undo(struct session *session, struct bytes key)
{
    const struct config *config = session->front->config;

    limits_undo(config, config_namespace_of(config, key), user_of(session));
}

/* They give something back. */
static bool is_release(const struct command *command)
{
    static const char *const names[] = {"exec",        "discard",      "unwatch",
                                        "unsubscribe", "punsubscribe", "sunsubscribe"};

    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(command->name, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

bool overload_admit_briefly(struct session *session, const struct dispatch_call *call)
{
    bool is_admitted;

    if (is_release(call->command)) {
        return true;
    }
    is_admitted = overload_admit(session, call, BYTES(""));
    overload_let_go(session->front);
    return is_admitted;
}
