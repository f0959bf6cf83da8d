/*
 * nearcached - a near cache in front of Redis
 *
 * Process life: options, start, run, reload, drain. The main thread becomes the control thread:
 * signals, accepting, topology, admin port and the cache's housekeeping; the workers do the rest.
 */
#include "admin/cache_command.h"
#include "admin/changer.h"
#include "admin/history.h"
#include "admin/info.h"
#include "admin/ports.h"
#include "admin/service.h"
#include "admin/upgrade.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/stats.h"
#include "base/version.h"
#include "cache/bans.h"
#include "cache/cache.h"
#include "coherence/unlink.h"
#include "config/config.h"
#include "proxy/front.h"
#include "proxy/overload.h"
#include "upstream/discovery.h"
#include "upstream/gate.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#define SWEEP_TICK_MS 10
/* Of each tick, while bans wait for the sweep: a tenth of a core, half a second for a million. */
#define SWEEP_SLICE_US 1000
/* Values that change their size can outgrow a small memory within a second. */
#define HOUSEKEEPING_TICK_MS 100
#define DRAIN_TICK_MS 20
#define WATCH_TICK_MS 50
/* Descriptors that are no clients: links, listeners, admin port, epoll and event descriptors. */
#define SPARE_DESCRIPTORS 256

/*
 * Read by jemalloc before main() begins. Freed memory goes back within seconds, by a thread of
 * jemalloc's own (which the sanitizers' runtimes would not see being made); two arenas serve
 * everything but tier 1, which has its own.
 */
#ifndef NC_DEBUG
extern const char *malloc_conf;
const char *malloc_conf = "background_thread:true,narenas:2,dirty_decay_ms:5000,muzzy_decay_ms:0";
#endif

enum { SIGNAL_TERM, SIGNAL_INT, SIGNAL_HUP, SIGNAL_USR2, SIGNAL_CHLD, N_SIGNALS };

struct daemon {
    struct config *config;       /* of the start; afterwards the changer's counts */
    struct config *first_config; /* links log in by what stands in it, as long as they live */
    struct worker control;
    struct cache *cache;
    struct proxy proxy;
    struct discovery *discovery;
    struct topology *topology; /* last published */
    struct ports *ports;
    struct changer *changer;
    struct upgrade *upgrade;
    struct service service;
    struct event *signals[N_SIGNALS];
    struct event *sweep_event, *housekeeping_event, *drain_event, *watch_event;
    int64_t drain_until_us, away_since_us;
    bool is_draining, was_reachable;
    int status;                    /* of the process */
    _Atomic bool is_refresh_asked; /* by any worker; one mail at a time */
    struct mail refresh_mail;
};

/* ---- topology ---- */

static void on_topology(struct topology *topology, void *context)
{
    struct daemon *daemon = context;

    /* Epochs first: no worker may route by the new map while entries of the old one look valid. */
    coherence_apply_topology(daemon->cache, daemon->topology, topology);
    topology_unref(&daemon->topology);
    daemon->topology = topology_ref(topology);
    proxy_set_topology(&daemon->proxy, topology);
    unlink_jobs_set_topology(daemon->proxy.fleet.jobs, topology);
}

static void on_refresh_mail(struct mail *mail)
{
    struct daemon *daemon = CONTAINER_OF(mail, struct daemon, refresh_mail);

    atomic_store_explicit(&daemon->is_refresh_asked, false, memory_order_release);
    if (daemon->discovery != NULL) {
        discovery_refresh(daemon->discovery);
    }
}

/* Any thread. */
static void request_refresh(void *context)
{
    struct daemon *daemon = context;

    /* acq_rel: the mail belongs to whoever turned the flag. */
    if (!atomic_exchange_explicit(&daemon->is_refresh_asked, true, memory_order_acq_rel)) {
        worker_post(&daemon->control, &daemon->refresh_mail);
    }
}

/* ---- timers ---- */

static void on_sweep(evutil_socket_t fd, short what, void *arg)
{
    struct daemon *daemon = arg;

    (void)fd;
    (void)what;
    cache_sweep(daemon->cache, cache_sweep_quota(daemon->cache, SWEEP_TICK_MS * 1000),
                clock_now_us());
    bans_sweep(daemon->cache, clock_now_us(), SWEEP_SLICE_US);
    unlink_jobs_tick(daemon->proxy.fleet.jobs);
}

/* The backend is away altogether: what is answered now, tier 1 answers alone. */
static void watch_outage(struct daemon *daemon, bool is_reachable)
{
    const bool is_away = daemon->topology != NULL && !is_reachable;
    const int64_t now_us = clock_now_us();
    struct cache_stats stats;

    if (is_away == atomic_load_explicit(&daemon->proxy.is_away, memory_order_relaxed)) {
        return;
    }
    atomic_store_explicit(&daemon->proxy.is_away, is_away, memory_order_relaxed);
    if (!is_away) {
        log_warn("main", "the backend is back, tier 1 is not alone any more", "away_ms=%lld",
                 (long long)((now_us - daemon->away_since_us) / 1000));
        return;
    }
    daemon->away_since_us = now_us;
    cache_stats(daemon->cache, &stats);
    log_warn("main", "the backend is away, tier 1 answers alone what it may",
             "stale_if_error=%s entries=%llu ready=%s",
             config_serves_stale(changer_config(daemon->changer)) ? "yes" : "no",
             (unsigned long long)stats.n_entries,
             changer_config(daemon->changer)->ready_without_backend ? "yes" : "no");
}

static void watch_backend(struct daemon *daemon)
{
    const bool is_reachable = daemon->topology != NULL &&
                              discovery_is_reachable(daemon->discovery) &&
                              health_allows_any(daemon->topology);

    atomic_store_explicit(&daemon->proxy.is_reachable, is_reachable, memory_order_relaxed);
    watch_outage(daemon, is_reachable);
    if (is_reachable) {
        upgrade_ready(daemon->upgrade);
    }
    if (is_reachable == daemon->was_reachable) {
        return;
    }
    daemon->was_reachable = is_reachable;
    service_status(&daemon->service, is_reachable);
    if (is_reachable) {
        log_info("main", "backend reachable", "nodes=%u cluster=%s version=%s",
                 daemon->topology->n_nodes, daemon->topology->is_cluster ? "yes" : "no",
                 daemon->topology->server_version);
    } else {
        log_error("main", "backend unreachable", "reason=%s",
                  log_quote(bytes_of_string(discovery_last_error(daemon->discovery))));
    }
}

static void on_housekeeping(evutil_socket_t fd, short what, void *arg)
{
    struct daemon *daemon = arg;

    (void)fd;
    (void)what;
    overload_tick(daemon->proxy.overload);
    cache_tick(daemon->cache);
}

/* ---- drain ---- */

static const struct config *config_of(const struct daemon *daemon)
{
    return changer_config(daemon->changer);
}

static void drain_clients(struct daemon *daemon)
{
    const struct timeval tick = {0, DRAIN_TICK_MS * 1000};
    const int64_t limit_ms = config_of(daemon)->drain_timeout_ms;

    log_info("main", "draining", "clients=%u limit_ms=%lld",
             atomic_load_explicit(&daemon->proxy.n_clients, memory_order_relaxed),
             (long long)limit_ms);
    daemon->is_draining = true;
    daemon->drain_until_us = clock_now_us() + limit_ms * 1000;
    ports_close_clients(daemon->ports);
    proxy_drain(&daemon->proxy);
    event_add(daemon->drain_event, &tick);
}

/* At the end of drain-delay, and then until nobody is left. */
static void on_drain_tick(evutil_socket_t fd, short what, void *arg)
{
    struct daemon *daemon = arg;
    const unsigned n_left = atomic_load_explicit(&daemon->proxy.n_clients, memory_order_relaxed);

    (void)fd;
    (void)what;
    if (!daemon->is_draining) {
        event_del(daemon->drain_event);
        drain_clients(daemon);
    } else if (n_left == 0 || clock_now_us() >= daemon->drain_until_us) {
        log_info("main", "stopping", "clients_left=%u", n_left);
        worker_stop(&daemon->control);
    }
}

/* Balancers are told first: /readyz says no, while who comes is still served. */
static void begin_drain(void *context)
{
    struct daemon *daemon = context;
    const int64_t delay_ms = config_of(daemon)->drain_delay_ms;
    const bool has_left = upgrade_has_left(daemon->upgrade);

    if (atomic_exchange_explicit(&daemon->proxy.is_leaving, true, memory_order_relaxed)) {
        return;
    }
    if (!has_left) {
        service_stopping(&daemon->service);
    }
    upgrade_end(daemon->upgrade);
    if (delay_ms > 0 && !has_left) {
        const struct timeval delay = {delay_ms / 1000, delay_ms % 1000 * 1000};

        log_info("main", "no longer ready", "drain_delay_ms=%lld", (long long)delay_ms);
        event_add(daemon->drain_event, &delay);
    } else {
        drain_clients(daemon);
    }
}

/* ---- signals ---- */

static void on_terminate(evutil_socket_t signal_number, short what, void *arg)
{
    struct daemon *daemon = arg;

    (void)what;
    if (atomic_load_explicit(&daemon->proxy.is_leaving, memory_order_relaxed)) {
        log_warn("main", "second signal, exit at once", "signal=%d", signal_number);
        ports_close_clients(daemon->ports); /* for the files of Unix sockets */
        _exit(0);
    }
    log_info("main", "told to stop", "signal=%d", signal_number);
    begin_drain(daemon);
}

static void on_upgrade(evutil_socket_t signal_number, short what, void *arg)
{
    struct daemon *daemon = arg;

    (void)signal_number;
    (void)what;
    upgrade_begin(daemon->upgrade);
}

static void on_child(evutil_socket_t signal_number, short what, void *arg)
{
    struct daemon *daemon = arg;

    (void)signal_number;
    (void)what;
    upgrade_reap(daemon->upgrade);
}

static void set_log(const struct config *config)
{
    log_set_level((enum log_level)config->log_level);
    log_set_json(config->log_format == LOG_FORMAT_JSON);
}

/* Borrowed: the configuration in force keeps them. */
static void set_tls(struct daemon *daemon, const struct config *config)
{
    daemon->proxy.config = config;
    daemon->proxy.tls_clients = config->tls_clients;
    daemon->proxy.tls_backend = config->tls_backend;
    tls_context_log(config->tls_clients);
    tls_context_log(config->tls_backend);
    if (config->tls_backend == NULL &&
        (config->backend_tls_ca_file[0] != '\0' || config->backend_tls_cert_file[0] != '\0' ||
         config->backend_tls_server_name[0] != '\0')) {
        log_warn("main", "no TLS to the backend: that begins with rediss:// or sentinels://", NULL);
    }
    if (config->tls_backend != NULL && !config->backend_tls_verify) {
        log_warn("main", "the backend's certificate is not verified (backend-tls-verify = off)",
                 NULL);
    }
}

static unsigned fit_max_clients(const struct config *config)
{
    struct rlimit limit;
    const rlim_t wanted = (rlim_t)config->maxclients + SPARE_DESCRIPTORS;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return (unsigned)config->maxclients;
    }
    if (limit.rlim_cur < wanted) {
        limit.rlim_cur = wanted < limit.rlim_max ? wanted : limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
        (void)getrlimit(RLIMIT_NOFILE, &limit);
    }
    if (limit.rlim_cur >= wanted) {
        return (unsigned)config->maxclients;
    }
    log_warn("main", "maxclients lowered to the descriptor limit", "maxclients=%lld limit=%llu",
             (long long)config->maxclients, (unsigned long long)limit.rlim_cur);
    return limit.rlim_cur > 2 * SPARE_DESCRIPTORS ? (unsigned)(limit.rlim_cur - SPARE_DESCRIPTORS)
                                                  : (unsigned)(limit.rlim_cur / 2);
}

/* A changer_apply_fn: what can fail comes first. The workers are told by the changer. */
static int apply_config(void *context, const struct config *former, struct config *fresh,
                        FILE *errors)
{
    struct daemon *daemon = context;
    const int error = ports_change(daemon->ports, former, fresh, errors);

    if (error != 0) {
        return error;
    }
    set_log(fresh);
    set_tls(daemon, fresh);
    /* What the others hold bounds the new size, too. */
    overload_configure(daemon->proxy.overload, fresh);
    overload_tick(daemon->proxy.overload);
    cache_set_maxmemory(daemon->cache, fresh->maxmemory);
    cache_set_max_bans(daemon->cache, (unsigned)fresh->max_bans);
    cache_set_max_tag_bans(daemon->cache, (unsigned)fresh->max_tag_bans);
    cache_set_limits(daemon->cache, (unsigned)fresh->negative_share, (size_t)fresh->max_flights);
    gate_configure(fresh->connect_parallel, fresh->connect_rate);
    atomic_store_explicit(&daemon->proxy.max_clients, fit_max_clients(fresh), memory_order_relaxed);
    discovery_configure(daemon->discovery, fresh);
    unlink_jobs_set_config(daemon->proxy.fleet.jobs, fresh);
    return 0;
}

static void on_hangup(evutil_socket_t signal_number, short what, void *arg)
{
    struct daemon *daemon = arg;
    const bool is_main = !upgrade_is_pending(daemon->upgrade) &&
                         !upgrade_has_left(daemon->upgrade) &&
                         !atomic_load_explicit(&daemon->proxy.is_leaving, memory_order_relaxed);

    (void)signal_number;
    (void)what;
    /* To systemd the main process is another one before and after an upgrade. */
    if (is_main) {
        service_reloading(&daemon->service);
    }
    (void)changer_reload(daemon->changer);
    if (is_main) {
        service_ready(&daemon->service);
    }
}

/* ---- start ---- */

static void make_run_id(char out[41])
{
    static const char digits[] = "0123456789abcdef";
    unsigned char random_bytes[20];

    if (getrandom(random_bytes, sizeof(random_bytes), 0) != (ssize_t)sizeof(random_bytes)) {
        memset(random_bytes, 0, sizeof(random_bytes));
    }
    for (unsigned i = 0; i < 20; i++) {
        out[2 * i] = digits[random_bytes[i] >> 4];
        out[2 * i + 1] = digits[random_bytes[i] & 15];
    }
    out[40] = '\0';
}

static unsigned worker_count(const struct config *config)
{
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);

    if (config->threads > 0) {
        return (unsigned)config->threads;
    }
    return cores < 1 ? 1 : (cores > 4 ? 4 : (unsigned)cores);
}

static int start_cache(struct daemon *daemon)
{
    const struct cache_options options = {
        .maxmemory = daemon->config->maxmemory,
        .negative_percent = (unsigned)daemon->config->negative_share,
        .max_flights = (size_t)daemon->config->max_flights,
    };
    const int error = cache_new(&options, &daemon->cache);

    if (error == 0) {
        cache_set_max_bans(daemon->cache, (unsigned)daemon->config->max_bans);
        cache_set_max_tag_bans(daemon->cache, (unsigned)daemon->config->max_tag_bans);
        cache_set_tag_rules(daemon->cache, daemon->config->tag_rules);
    } else {
        log_error("main", "cannot reserve memory for tier 1", "maxmemory=%zu reason=%s",
                  options.maxmemory, log_quote(bytes_of_string(strerror(-error))));
    }
    return error;
}

static void log_lines(char *text)
{
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        log_error("main", "cannot listen", "reason=%s", log_quote_long(bytes_of_string(line)));
    }
}

/* Those of clients before there are threads; the admin port, which asks it, with the discovery. */
static int start_ports(struct daemon *daemon)
{
    char *text = NULL;
    size_t size = 0;
    FILE *errors = open_memstream(&text, &size);
    int error;

    CHECK(errors != NULL);
    error = daemon->discovery == NULL
                ? ports_open(daemon->ports, daemon->config, errors)
                : ports_open_admin(daemon->ports, daemon->config, daemon->discovery, errors);
    (void)fclose(errors);
    if (error != 0) {
        log_lines(text);
    }
    free(text);
    return error;
}

static struct event *new_timer(struct daemon *daemon, event_callback_fn fn, int interval_ms)
{
    struct event *timer = event_new(daemon->control.base, -1, EV_PERSIST, fn, daemon);
    const struct timeval interval = {interval_ms / 1000, interval_ms % 1000 * 1000};

    CHECK(timer != NULL);
    if (interval_ms > 0) {
        event_add(timer, &interval);
    }
    return timer;
}

static void on_watch(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    watch_backend(arg);
}

static void start_signals(struct daemon *daemon)
{
    static const struct {
        int number;
        event_callback_fn fn;
    } all[N_SIGNALS] = {
        [SIGNAL_TERM] = {SIGTERM, on_terminate}, [SIGNAL_INT] = {SIGINT, on_terminate},
        [SIGNAL_HUP] = {SIGHUP, on_hangup},      [SIGNAL_USR2] = {SIGUSR2, on_upgrade},
        [SIGNAL_CHLD] = {SIGCHLD, on_child},
    };

    for (unsigned i = 0; i < N_SIGNALS; i++) {
        daemon->signals[i] = evsignal_new(daemon->control.base, all[i].number, all[i].fn, daemon);
        CHECK(daemon->signals[i] != NULL);
        event_add(daemon->signals[i], NULL);
    }
}

/* ---- upgrade ---- */

static void on_taken(void *context)
{
    struct daemon *daemon = context;

    service_ready(&daemon->service);
}

static void on_left(void *context)
{
    struct daemon *daemon = context;

    log_info("main", "all clients have gone to the successor", NULL);
    worker_stop(&daemon->control);
}

static void on_failed(void *context)
{
    struct daemon *daemon = context;

    daemon->status = 1;
    worker_stop(&daemon->control);
}

static const struct upgrade_events upgrade_events = {on_taken, on_left, begin_drain, on_failed};

/* A successor accepts when its predecessor says so. */
static void begin_to_serve(struct daemon *daemon)
{
    upgrade_start(daemon->upgrade, &daemon->proxy, daemon->ports, daemon->changer, &upgrade_events,
                  daemon);
    if (upgrade_modes(daemon->upgrade)[0] != '\0') {
        (void)changer_set_modes(daemon->changer, upgrade_modes(daemon->upgrade));
    }
    if (!upgrade_is_pending(daemon->upgrade)) {
        ports_accept(daemon->ports, true);
        service_ready(&daemon->service);
    }
}

static int start(struct daemon *daemon)
{
    struct proxy *proxy = &daemon->proxy;
    int error = worker_init(&daemon->control, worker_count(daemon->config));

    if (error == 0) {
        error = start_cache(daemon);
    }
    if (error == 0) {
        gate_configure(daemon->config->connect_parallel, daemon->config->connect_rate);
        proxy->overload = overload_new(proxy, daemon->cache, &daemon->control, daemon->config);
        error = proxy_init(proxy, daemon->cache, &daemon->control, daemon->config,
                           worker_count(daemon->config), &daemon->first_config->target);
    }
    if (error != 0) {
        return error;
    }
    (void)unlink_jobs_new(&proxy->fleet, &daemon->control, proxy->login, daemon->config);
    set_tls(daemon, daemon->config);
    daemon->changer = changer_new(proxy, daemon->config, apply_config, daemon);
    daemon->ports = ports_new(proxy);
    proxy->changer = daemon->changer;
    proxy->begin_drain = begin_drain;
    proxy->drain_context = daemon;
    make_run_id(proxy->run_id);
    proxy->cache_command = cache_command;
    proxy->info_section = info_section;
    proxy->history = history_new();
    proxy->fleet.request_refresh = request_refresh;
    proxy->fleet.refresh_context = daemon;
    daemon->refresh_mail.run = on_refresh_mail;
    atomic_store_explicit(&proxy->max_clients, fit_max_clients(daemon->config),
                          memory_order_relaxed);
    start_signals(daemon);
    daemon->sweep_event = new_timer(daemon, on_sweep, SWEEP_TICK_MS);
    daemon->housekeeping_event = new_timer(daemon, on_housekeeping, HOUSEKEEPING_TICK_MS);
    daemon->drain_event = new_timer(daemon, on_drain_tick, 0);
    daemon->watch_event = new_timer(daemon, on_watch, WATCH_TICK_MS);
    error = start_ports(daemon);
    if (error == 0) {
        error = proxy_start(proxy);
    }
    if (error == 0) {
        daemon->discovery = discovery_new(daemon->control.base, daemon->config, on_topology,
                                          daemon);
        error = start_ports(daemon);
    }
    return error;
}

static void stop(struct daemon *daemon)
{
    ports_close_clients(daemon->ports);
    service_fini(&daemon->service);
    history_stop(daemon->proxy.history);
    event_free(daemon->sweep_event);
    event_free(daemon->housekeeping_event);
    event_free(daemon->drain_event);
    event_free(daemon->watch_event);
    for (unsigned i = 0; i < N_SIGNALS; i++) {
        event_free(daemon->signals[i]);
    }
    upgrade_stop(daemon->upgrade);
    overload_stop(daemon->proxy.overload);
    unlink_jobs_stop(daemon->proxy.fleet.jobs);
    proxy_stop(&daemon->proxy);
    changer_stop(daemon->changer);
    ports_free(&daemon->ports);
    discovery_free(&daemon->discovery);
    proxy_fini(&daemon->proxy);
    /* Mail on its way home, and what a name service still holds. */
    event_base_loop(daemon->control.base, EVLOOP_NONBLOCK);
    upgrade_free(&daemon->upgrade);
    history_free(&daemon->proxy.history);
    changer_free(&daemon->changer);
    overload_free(&daemon->proxy.overload);
    unlink_jobs_free(&daemon->proxy.fleet.jobs);
    topology_unref(&daemon->topology);
    worker_fini(&daemon->control);
    cache_free(&daemon->cache);
    config_unref(&daemon->config);
    config_unref(&daemon->first_config);
    buffer_pool_fini();
}

static int run(struct config *config, char **argv)
{
    struct daemon daemon = {.config = config, .first_config = config_ref(config)};
    char backend[256];

    (void)signal(SIGPIPE, SIG_IGN);
    log_never_block();
    set_log(config);
    config_backend_text(&config->target, backend, sizeof(backend));
    daemon.upgrade = upgrade_new(argv);
    if (start(&daemon) != 0) {
        /* At once: workers may run by now, and use what is on this stack. */
        _exit(1);
    }
    log_info("main", "started", "version=%s pid=%d workers=%u maxmemory=%zu backend=%s", NC_VERSION,
             (int)getpid(), daemon.proxy.n_fronts, config->maxmemory, backend);
    service_init(&daemon.service, &daemon.proxy);
    history_start(daemon.proxy.history, &daemon.proxy);
    begin_to_serve(&daemon);
    worker_run(&daemon.control);
    stop(&daemon);
    log_info("main", "stopped", NULL);
    return daemon.status;
}

/* A successor gets the command line as it was, before passwords were taken out of it. */
static char **copy_arguments(int argc, char **argv)
{
    char **copy = mem_alloc((size_t)(argc + 1) * sizeof(*copy));

    for (int i = 0; i < argc; i++) {
        copy[i] = mem_strdup(argv[i]);
    }
    return copy;
}

static void free_arguments(char **copy)
{
    for (char **at = copy; *at != NULL; at++) {
        explicit_bzero(*at, strlen(*at));
        mem_free(*at);
    }
    mem_free(copy);
}

static int act(enum config_action action, struct config *config, char **argv)
{
    switch (action) {
    case CONFIG_RUN:
        return run(config, argv);
    case CONFIG_TEST:
        printf("the configuration is good\n");
        config_unref(&config);
        return 0;
    case CONFIG_DESCRIBE_CONFIG:
        config_describe(stdout);
        return 0;
    case CONFIG_DESCRIBE_METRICS:
        config_describe_metrics(stdout);
        return 0;
    case CONFIG_VERSION:
        printf("nearcached %s\n", NC_VERSION);
        return 0;
    case CONFIG_HELP:
        config_usage(stdout);
        return 0;
    }
    return 1;
}

int main(int argc, char **argv)
{
    enum config_action action = CONFIG_RUN;
    struct config *config = NULL;
    char **arguments = copy_arguments(argc, argv);
    int status = 1;

    if (config_load(argc, argv, &action, &config, stderr) == 0) {
        status = act(action, config, arguments);
    }
    free_arguments(arguments);
    return status;
}
