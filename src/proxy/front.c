#include "proxy/front.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/stats.h"
#include "cache/bans.h"
#include "cache/hot_keys.h"
#include "coherence/ban_book.h"
#include "coherence/debounce.h"
#include "coherence/dependencies.h"
#include "coherence/early.h"
#include "coherence/event_sources.h"
#include "coherence/invalidation.h"
#include "coherence/ledger.h"
#include "coherence/recent.h"
#include "config/dependency_rules.h"
#include "proxy/handshake.h"
#include "proxy/hub.h"
#include "proxy/large.h"
#include "proxy/login.h"
#include "proxy/mode.h"
#include "proxy/overload.h"
#include "proxy/pause.h"
#include "proxy/pubsub.h"
#include "proxy/relay.h"
#include "proxy/request.h"
#include "proxy/sample.h"
#include "proxy/session.h"
#include "proxy/slow_log.h"
#include "proxy/tracking.h"
#include "proxy/upload.h"

#include <errno.h>

#define FRONT_MAGIC 0x66726f6eu
#define IDLE_TICK_MS 250

struct front *front_self(void)
{
    struct worker *worker = worker_self();

    CHECK(worker != NULL && worker->context != NULL);
    return worker->context;
}

/* ---- time ---- */

static void close_idle_sessions(struct front *front, int64_t now_us)
{
    const int64_t limit_us = front->config->client_idle_timeout_ms * 1000;
    struct session *session = front->sessions;

    while (session != NULL) {
        struct session *const next = session->next;

        const bool is_served = session->first == NULL ||
                               (session->upload != NULL && !upload_is_full(session));
        const bool may_be_idle = is_served && session->subscriber == NULL &&
                                 session->monitor == NULL;

        if (handshake_check_time(session, now_us)) {
            session = next;
            continue;
        }
        if (limit_us > 0 && may_be_idle && now_us - session->active_at_us > limit_us) {
            stats_add(METRIC_clients_closed_idle, 1);
            session_close(session);
        } else if (session->above_soft_since_us != 0) {
            (void)session_check_output(session);
        }
        if (!session->is_closed && session->first != NULL && session->first->paused_link != NULL) {
            large_look_for_writer(session);
        }
        session = next;
    }
}

static void on_idle_timer(evutil_socket_t fd, short what, void *arg)
{
    struct front *front = arg;

    (void)fd;
    (void)what;
    close_idle_sessions(front, clock_now_us());
    login_tick(front, clock_now_us());
    hub_tick(front->hub, clock_now_us());
    pubsub_tick(front, clock_now_us());
    tracking_tick(front);
}

/* ---- life ---- */

static int64_t max_staleness_us(const struct config *config)
{
    return config->dry_run ? INT64_MIN : config->max_staleness_ms * 1000;
}

/* What looks on: before the workers take the configuration and draw their samples. */
static void set_watchers(const struct config *config)
{
    hot_keys_configure((unsigned)config->hot_keys_sample, (unsigned)config->hot_keys,
                       config->hot_keys_decay_ms * 1000);
    slow_log_configure(config->slowlog_threshold_ms * 1000, (unsigned)config->slowlog_length);
}

/* Which hits are told to be near their end. */
static void set_margins(struct cache *cache, const struct config *config)
{
    for (unsigned i = 0; i < config->n_namespaces; i++) {
        const struct config_namespace *ns = &config->namespaces[i];

        cache_set_margin(cache, ns->id, ns->early_refresh_ms * 1000,
                         ns->stale_while_revalidate_ms * 1000);
    }
}

/* Ids of namespaces never go: entries of those that are gone are there still. */
static unsigned hit_words(void)
{
    return (config_namespace_count() + 7) / 8;
}

static int init_front(struct front *front, struct proxy *proxy, struct config *config,
                      unsigned index)
{
    const struct timeval tick = {0, IDLE_TICK_MS * 1000};
    const int error = worker_init(&front->worker, index);

    if (error != 0) {
        return error;
    }
    front->magic = FRONT_MAGIC;
    front->proxy = proxy;
    front->worker.context = front;
    front->config = config_ref(config);
    front->spare_reader = resp_reader_new();
    front->again_reader = resp_reader_new();
    buffer_init(&front->scratch);
    buffer_init(&front->answer);
    backend_init(&front->backend, &front->worker, proxy->login, config, &coherence_backend_events,
                 &front->coherence);
    coherence_init(&front->coherence, &proxy->fleet, &front->worker, &front->backend, config);
    sample_begin(front);
    front->hits.n_words = hit_words();
    front->max_staleness_us = max_staleness_us(config);
    front->is_restricted = config->has_refusals;
    overload_fit_front(front);
    front->hub = hub_new(front, &pubsub_hub_events);
    front->tracking = tracking_new(front);
    front->retry_event = event_new(front->worker.base, -1, 0, relay_on_retry_timer, front);
    front->idle_event = event_new(front->worker.base, -1, EV_PERSIST, on_idle_timer, front);
    CHECK(front->retry_event != NULL && front->idle_event != NULL);
    event_add(front->idle_event, &tick);
    lag_init(&front->lag, &front->worker);
    pause_init(front);
    handshake_init(front);
    return 0;
}

/* What tier 1 may answer while a node cannot be asked. */
static void set_stale_bounds(struct proxy *proxy, const struct config *config)
{
    int64_t bounds_ms[256] = {0};

    for (unsigned i = 0; i < config->n_namespaces; i++) {
        bounds_ms[config->namespaces[i].id] = config->namespaces[i].stale_if_error_ms;
    }
    cache_set_stale(proxy->cache, bounds_ms, 256);
}

int proxy_init(struct proxy *proxy, struct cache *cache, struct worker *control,
               struct config *config, unsigned n_workers, const struct config_backend *login)
{
    CHECK(n_workers > 0 && n_workers <= 64);
    proxy->cache = cache;
    proxy->control = control;
    proxy->login = login;
    proxy->config = config;
    proxy->fronts = mem_alloc(n_workers * sizeof(*proxy->fronts));
    proxy->fleet.cache = cache;
    proxy->fleet.recent = recent_new();
    proxy->fleet.leases = miss_leases_new(&proxy->fleet, config);
    proxy->fleet.early = early_new();
    set_watchers(config);
    set_margins(cache, config);
    proxy->fleet.members = mem_alloc(n_workers * sizeof(struct coherence *));
    proxy->fleet.n_members = n_workers;
    proxy->fleet.on_changed = tracking_announce;
    proxy->fleet.changed_context = proxy;
    proxy->fleet.dependencies = dependencies_new(&proxy->fleet, config);
    proxy->fleet.ban_book = ban_book_new();
    proxy->fleet.debounce = debounce_new();
    proxy->started_at_us = clock_now_us();
    atomic_store_explicit(&proxy->next_session_id, 1, memory_order_relaxed);
    for (unsigned i = 0; i < n_workers; i++) {
        const int error = init_front(&proxy->fronts[i], proxy, config, i);

        if (error != 0) {
            return error;
        }
        proxy->n_fronts++;
    }
    health_configure(config);
    set_stale_bounds(proxy, config);
    proxy->fleet.bus = bus_new(&proxy->fleet, &invalidation_bus_events, &proxy->fleet);
    proxy->fleet.event_sources = event_sources_new(&proxy->fleet, config);
    return 0;
}

int proxy_start(struct proxy *proxy)
{
    for (unsigned i = 0; i < proxy->n_fronts; i++) {
        const int error = worker_start(&proxy->fronts[i].worker);

        if (error != 0) {
            return error;
        }
    }
    return 0;
}

void proxy_stop(struct proxy *proxy)
{
    bus_leave(proxy->fleet.bus);
    for (unsigned i = 0; i < proxy->n_fronts; i++) {
        worker_stop(&proxy->fronts[i].worker);
    }
    for (unsigned i = 0; i < proxy->n_fronts; i++) {
        worker_join(&proxy->fronts[i].worker);
    }
}

/* The worker's thread has ended; what is left is this thread's to free. */
static void fini_front(struct front *front)
{
    while (front->sessions != NULL) {
        session_close(front->sessions);
    }
    login_tick(front, clock_now_us());
    hub_free(&front->hub);
    topic_table_fini(&front->topics);
    tracking_free(&front->tracking);
    pause_fini(front);
    ledger_stop(front->coherence.ledger);
    backend_fini(&front->backend);
    coherence_fini(&front->coherence);
    event_free(front->retry_event);
    event_free(front->idle_event);
    lag_fini(&front->lag);
    worker_run_deferred(&front->worker);
    while (front->first_retry != NULL) {
        struct request *const request = front->first_retry;

        front->first_retry = request->next_retry;
        if (!request->is_part) {
            request_free(request);
        }
    }
    front_free_spare_requests(front);
    resp_reader_free(&front->spare_reader);
    resp_reader_free(&front->again_reader);
    buffer_fini(&front->scratch);
    buffer_fini(&front->answer);
    config_unref(&front->config);
    worker_fini(&front->worker);
}

void proxy_fini(struct proxy *proxy)
{
    /* What a session leaves behind concerns other workers too. */
    for (unsigned i = 0; i < proxy->n_fronts; i++) {
        while (proxy->fronts[i].sessions != NULL) {
            session_close(proxy->fronts[i].sessions);
        }
    }
    for (unsigned i = 0; i < proxy->n_fronts; i++) {
        worker_run_mails(&proxy->fronts[i].worker);
    }
    bus_free(&proxy->fleet.bus);
    event_sources_free(&proxy->fleet.event_sources);
    for (unsigned i = 0; i < proxy->n_fronts; i++) {
        fini_front(&proxy->fronts[i]);
    }
    dependencies_free(&proxy->fleet.dependencies);
    ban_book_free(&proxy->fleet.ban_book);
    debounce_free(&proxy->fleet.debounce);
    mem_free(proxy->fleet.members);
    recent_free(&proxy->fleet.recent);
    miss_leases_free(&proxy->fleet.leases);
    early_free(&proxy->fleet.early);
    mem_free(proxy->fronts);
    proxy->fronts = NULL;
    proxy->n_fronts = 0;
}

/* ---- visits: one mail per worker, then one home ---- */

struct visit_leg {
    struct mail mail;
    struct visit *visit;
    struct front *front;
};

struct visit {
    struct mail done_mail;
    struct proxy *proxy;
    void (*fn)(struct front *front, void *context);
    void (*done)(void *context);
    void *context;
    _Atomic unsigned n_left;
    struct visit_leg legs[];
};

static void on_visits_done(struct mail *mail)
{
    struct visit *visit = CONTAINER_OF(mail, struct visit, done_mail);

    if (visit->done != NULL) {
        visit->done(visit->context);
    }
    mem_free(visit);
}

static void on_visit(struct mail *mail)
{
    struct visit_leg *leg = CONTAINER_OF(mail, struct visit_leg, mail);
    struct visit *visit = leg->visit;

    visit->fn(leg->front, visit->context);
    /* acq_rel: done sees what every fn wrote. */
    if (atomic_fetch_sub_explicit(&visit->n_left, 1, memory_order_acq_rel) == 1) {
        worker_post(visit->proxy->control, &visit->done_mail);
    }
}

void proxy_on_all_workers(struct proxy *proxy, void (*fn)(struct front *front, void *context),
                          void (*done)(void *context), void *context)
{
    struct visit *visit = mem_alloc(sizeof(*visit) + proxy->n_fronts * sizeof(struct visit_leg));

    visit->done_mail.run = on_visits_done;
    visit->proxy = proxy;
    visit->fn = fn;
    visit->done = done;
    visit->context = context;
    atomic_store_explicit(&visit->n_left, proxy->n_fronts, memory_order_relaxed);
    for (unsigned i = 0; i < proxy->n_fronts; i++) {
        visit->legs[i].mail.run = on_visit;
        visit->legs[i].visit = visit;
        visit->legs[i].front = &proxy->fronts[i];
        worker_post(&proxy->fronts[i].worker, &visit->legs[i].mail);
    }
}

/* ---- snapshots ---- */

static void take_topology(struct front *front, void *context)
{
    const bool is_moved = topology_has_moved(front->backend.topology, context);

    backend_set_topology(&front->backend, context);
    hub_move(front->hub);
    if (front == &front->proxy->fronts[0]) {
        bus_move(front->proxy->fleet.bus);
        event_sources_move(front->proxy->fleet.event_sources);
    }
    if (is_moved) {
        tracking_move(front);
    }
    /* Tracking links are up before the first miss asks for one. */
    for (struct backend_node *node = front->backend.nodes; node != NULL; node = node->next) {
        if (node->info != NULL && node->info->is_master) {
            link_wake(&node->links[LINK_TRACKING]);
        }
    }
}

static void forget_topology(void *context)
{
    struct topology *topology = context;

    topology_unref(&topology);
}

void proxy_set_topology(struct proxy *proxy, struct topology *topology)
{
    proxy_on_all_workers(proxy, take_topology, forget_topology, topology_ref(topology));
}

static bool is_same_match(const struct config_namespace *a, const struct config_namespace *b)
{
    return a->id == b->id &&
           (a->match == NULL || b->match == NULL ? a->match == b->match
                                                 : strcmp(a->match, b->match) == 0);
}

static bool is_same_policy(const struct config_namespace *a, const struct config_namespace *b)
{
    return a->cache == b->cache && a->max_ttl_ms == b->max_ttl_ms &&
           a->negative_ttl_ms == b->negative_ttl_ms && a->max_value == b->max_value &&
           a->replica_reads == b->replica_reads && a->coherence == b->coherence &&
           a->miss_lease_ms == b->miss_lease_ms &&
           a->stale_while_revalidate_ms == b->stale_while_revalidate_ms;
}

/* Every key belongs to the namespace that it did, and what holds for all of them is the same. */
static bool is_same_frame(const struct config *a, const struct config *b)
{
    bool is_same = a->n_namespaces == b->n_namespaces && a->ttl_mode_max_ms == b->ttl_mode_max_ms &&
                   a->coherence == b->coherence &&
                   a->keyspace_mode_max_ms == b->keyspace_mode_max_ms &&
                   a->pubsub_mode_max_ms == b->pubsub_mode_max_ms &&
                   a->hash_ttl_cap_ms == b->hash_ttl_cap_ms &&
                   a->acl_max_age_ms == b->acl_max_age_ms && config_dependencies_equal(a, b) &&
                   tag_rules_equal(a->tag_rules, b->tag_rules);

    for (unsigned i = 0; is_same && i < a->n_namespaces; i++) {
        is_same = is_same_match(&a->namespaces[i], &b->namespaces[i]);
    }
    return is_same;
}

/*
 * A configuration on its way to the workers. Where keys begin to be kept, or no longer are, one
 * worker's writes would not drop what another one's reads fetch. So it goes in stages then: all
 * stop fetching; what is kept goes; all take it; all fetch again.
 */
struct config_change {
    struct config_change *next; /* of the proxy's list */
    struct proxy *proxy;
    struct config *config;
    bool is_same_frame; /* else everything goes */
    bool is_staged;
    bool ends_leases; /* miss leases end with the epochs, so everything goes then, too */
    unsigned n_changed;
    uint8_t changed[CONFIG_NAMESPACES_MAX]; /* ids of namespaces with another policy */
    void (*done)(void *context);
    void *context;
};

static void compare(struct config_change *change, const struct config *former)
{
    const struct config *config = change->config;

    change->is_same_frame = is_same_frame(former, config);
    change->is_staged = !change->is_same_frame;
    for (unsigned i = 0; change->is_same_frame && i < config->n_namespaces; i++) {
        const struct config_namespace *before = &former->namespaces[i];
        const struct config_namespace *after = &config->namespaces[i];

        if (!is_same_policy(before, after)) {
            change->changed[change->n_changed++] = after->id;
            change->is_staged = change->is_staged || after->cache != before->cache;
            change->ends_leases = change->ends_leases || before->miss_lease_ms > 0;
        }
    }
}

/* What was kept by other policies. */
static void drop_changed(const struct config_change *change)
{
    struct proxy *proxy = change->proxy;

    if (change->is_same_frame && change->n_changed == 0) {
        return;
    }
    /* While replicas were read nowhere, what was shown was not noted. */
    recent_note_all(proxy->fleet.recent, clock_now_us());
    stats_add(METRIC_flushes_reload, 1);
    if (!change->is_same_frame || change->ends_leases ||
        change->n_changed == change->config->n_namespaces) {
        epochs_close_all(cache_epochs(proxy->cache));
        return;
    }
    for (unsigned i = 0; i < change->n_changed; i++) {
        const struct ban_order order = {.rule = {.ns = change->changed[i]},
                                        .reason = METRIC_invalidations_admin};
        uint64_t n_held;

        (void)bans_add(proxy->cache, &order, clock_now_us(), &n_held);
    }
}

static void take_config(struct front *front, void *context)
{
    const struct config_change *change = context;
    struct config *former = front->config;

    front->config = config_ref(change->config);
    front->config_serial += change->is_staged;
    mode_take_config(front, former);
    coherence_set_config(&front->coherence, front->config);
    if (front == &front->proxy->fronts[0]) {
        bus_set_config(front->proxy->fleet.bus);
        event_sources_set_config(front->proxy->fleet.event_sources, front->config);
    }
    sample_begin(front);
    front->hits.n_words = hit_words();
    front->max_staleness_us = max_staleness_us(front->config);
    overload_fit_front(front);
    config_unref(&former);
}

static void hold_fills(struct front *front, void *context)
{
    (void)context;
    front->coherence.holds_fills = true;
}

static void release_fills(struct front *front, void *context)
{
    (void)context;
    front->coherence.holds_fills = false;
}

static void begin_change(struct config_change *change);

/* One at a time, so that each stage meets all workers in the same state. */
static void end_change(void *context)
{
    struct config_change *change = context;
    struct proxy *proxy = change->proxy;

    proxy->first_change = change->next;
    if (proxy->first_change != NULL) {
        begin_change(proxy->first_change);
    }
    /* Behind the list's change of state: done may set the next configuration. */
    if (change->done != NULL) {
        change->done(change->context);
    }
    config_unref(&change->config);
    mem_free(change);
}

static void on_config_taken(void *context)
{
    struct config_change *change = context;

    set_margins(change->proxy->cache, change->config);
    set_stale_bounds(change->proxy, change->config);
    if (change->is_staged) {
        proxy_on_all_workers(change->proxy, release_fills, end_change, change);
    } else {
        drop_changed(change);
        end_change(change);
    }
}

/* Nothing that is kept from here on is of the namespaces concerned. */
static void on_fills_held(void *context)
{
    struct config_change *change = context;

    drop_changed(change);
    if (!change->is_same_frame) {
        cache_set_tag_rules(change->proxy->cache, change->config->tag_rules);
    }
    proxy_on_all_workers(change->proxy, take_config, on_config_taken, change);
}

static void begin_change(struct config_change *change)
{
    set_watchers(change->config);
    dependencies_set_config(change->proxy->fleet.dependencies, change->config);
    if (change->is_staged) {
        proxy_on_all_workers(change->proxy, hold_fills, on_fills_held, change);
    } else {
        proxy_on_all_workers(change->proxy, take_config, on_config_taken, change);
    }
}

void proxy_set_config(struct proxy *proxy, const struct config *former, struct config *config,
                      void (*done)(void *context), void *context)
{
    struct config_change *change = mem_alloc(sizeof(*change));
    struct config_change **last = &proxy->first_change;

    change->proxy = proxy;
    change->config = config_ref(config);
    change->done = done;
    change->context = context;
    compare(change, former);
    while (*last != NULL) {
        last = &(*last)->next;
    }
    *last = change;
    if (proxy->first_change == change) {
        begin_change(change);
    }
}

/* ---- drain ---- */

static void drain_front(struct front *front, void *context)
{
    struct session *session = front->sessions;

    (void)context;
    while (session != NULL) {
        struct session *const next = session->next;

        session_close_after_reply(session);
        session = next;
    }
}

void proxy_drain(struct proxy *proxy)
{
    atomic_store_explicit(&proxy->is_draining, true, memory_order_relaxed);
    miss_leases_drain(proxy->fleet.leases);
    proxy_on_all_workers(proxy, drain_front, NULL, NULL);
}
