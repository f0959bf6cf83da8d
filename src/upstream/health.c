#include "upstream/health.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/stats.h"

#include <pthread.h>
#include <stdio.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* a leaf but for what on_return() takes */
static _Atomic(struct health *) all[UINT16_MAX + 1];     /* by node number; stored under lock */
static struct breaker_settings settings;                 /* lock */
static _Atomic bool is_on;
static _Atomic int64_t retry_max_ms;

struct health *health_of(epochs_node node, const char *name)
{
    struct health *health;

    pthread_mutex_lock(&lock);
    health = atomic_load_explicit(&all[node], memory_order_relaxed);
    if (health == NULL) {
        health = mem_alloc(sizeof(*health));
        breaker_init(&health->breaker);
        snprintf(health->name, sizeof(health->name), "%s", name);
        atomic_store_explicit(&all[node], health, memory_order_release);
    }
    pthread_mutex_unlock(&lock);
    return health;
}

void health_configure(const struct config *config)
{
    const int64_t latency_ms = config->breaker_latency_ms != 0 ? config->breaker_latency_ms
                                                               : config->request_timeout_ms;

    pthread_mutex_lock(&lock);
    settings = (struct breaker_settings){
        .failures = (unsigned)config->breaker_failures,
        .rate_percent = (unsigned)config->breaker_error_rate,
        .window_us = config->breaker_window_ms * 1000,
        .latency_us = latency_ms * 1000,
        .open_min_us = config->breaker_open_min_ms * 1000,
        .open_max_us = config->breaker_open_max_ms * 1000,
    };
    if (settings.open_max_us < settings.open_min_us) {
        settings.open_max_us = settings.open_min_us;
    }
    atomic_store_explicit(&is_on, config->breaker, memory_order_relaxed);
    atomic_store_explicit(&retry_max_ms, settings.open_max_us / 1000, memory_order_relaxed);
    pthread_mutex_unlock(&lock);
}

bool health_refuses(const struct health *health)
{
    return health_is_open(health) && atomic_load_explicit(&is_on, memory_order_relaxed);
}

bool health_allows_any(const struct topology *topology)
{
    for (unsigned i = 0; i < topology->n_nodes; i++) {
        if (topology->nodes[i].is_master &&
            !health_refuses(
                atomic_load_explicit(&all[topology->nodes[i].id], memory_order_acquire))) {
            return true;
        }
    }
    return false;
}

const char *health_text(const struct health *health)
{
    return breaker_reason_text(
        (enum breaker_reason)atomic_load_explicit(&health->reason, memory_order_relaxed));
}

int64_t health_retry_max_ms(const struct health *health, int64_t otherwise_ms)
{
    const int64_t max_ms = atomic_load_explicit(&retry_max_ms, memory_order_relaxed);

    return health_is_open(health) && max_ms < otherwise_ms ? max_ms : otherwise_ms;
}

/* Tells what the breaker has become. Under the lock. */
static void publish(struct health *health, enum breaker_state former, int64_t now_us)
{
    const struct breaker *breaker = &health->breaker;

    switch (breaker->state) {
    case BREAKER_OPEN:
        stats_add(METRIC_breaker_opened, 1);
        if (former == BREAKER_CLOSED) {
            health->away_since_us = now_us;
            log_warn("upstream", "the node is not asked any more",
                     "addr=%s breaker=open reason=\"%s\" open_ms=%lld", health->name,
                     breaker_reason_text(breaker->reason), (long long)(breaker->open_us / 1000));
        }
        break;
    case BREAKER_HALF_OPEN:
        stats_add(METRIC_breaker_half_opened, 1);
        log_debug("upstream", "the node may prove itself", "addr=%s breaker=half-open",
                  health->name);
        break;
    case BREAKER_CLOSED:
        stats_add(METRIC_breaker_closed, 1);
        atomic_store_explicit(&health->returned_at_us, now_us, memory_order_release);
        log_info("upstream", "the node is asked again", "addr=%s breaker=closed away_ms=%lld",
                 health->name, (long long)((now_us - health->away_since_us) / 1000));
        break;
    }
    atomic_store_explicit(&health->reason, (int)breaker->reason, memory_order_relaxed);
    atomic_store_explicit(&health->state, (int)breaker->state, memory_order_release);
}

void health_ok(struct health *health, uint64_t n, int64_t now_us)
{
    if (health == NULL || n == 0) {
        return;
    }
    pthread_mutex_lock(&lock);
    (void)breaker_ok(&health->breaker, &settings, n, now_us);
    pthread_mutex_unlock(&lock);
}

void health_failed(struct health *health, uint64_t n, int64_t began_us, int64_t now_us)
{
    enum breaker_state former;

    if (health == NULL) {
        return;
    }
    pthread_mutex_lock(&lock);
    former = health->breaker.state;
    if (breaker_failed(&health->breaker, &settings, n, began_us, now_us)) {
        publish(health, former, now_us);
    }
    pthread_mutex_unlock(&lock);
}

void health_cut(struct health *health, uint64_t n, int64_t began_us, int64_t now_us)
{
    enum breaker_state former;

    if (health == NULL) {
        return;
    }
    pthread_mutex_lock(&lock);
    former = health->breaker.state;
    if (breaker_cut(&health->breaker, &settings, n, began_us, now_us)) {
        publish(health, former, now_us);
    }
    pthread_mutex_unlock(&lock);
}

void health_owed(struct health *health, int64_t sent_us, int64_t now_us)
{
    enum breaker_state former;

    if (health == NULL) {
        return;
    }
    pthread_mutex_lock(&lock);
    former = health->breaker.state;
    if (breaker_owed(&health->breaker, &settings, sent_us, now_us)) {
        publish(health, former, now_us);
    }
    pthread_mutex_unlock(&lock);
}

void health_stirs(struct health *health, int64_t now_us)
{
    if (!health_is_open(health)) {
        return;
    }
    pthread_mutex_lock(&lock);
    if (breaker_stirs(&health->breaker, &settings, now_us)) {
        publish(health, BREAKER_OPEN, now_us);
    }
    pthread_mutex_unlock(&lock);
}

void health_tick(struct health *health, int64_t now_us)
{
    if (!health_is_open(health)) {
        return;
    }
    pthread_mutex_lock(&lock);
    if (breaker_tick(&health->breaker, &settings, now_us)) {
        publish(health, BREAKER_OPEN, now_us);
    }
    pthread_mutex_unlock(&lock);
}

void health_proof(struct health *health, int64_t sent_us, int64_t now_us, bool is_first,
                  void (*on_return)(void *context), void *context)
{
    enum breaker_state former;

    if (health == NULL) {
        return;
    }
    pthread_mutex_lock(&lock);
    former = health->breaker.state;
    if (breaker_proof(&health->breaker, &settings, sent_us, now_us)) {
        /* In this order: who finds nothing left to be shown finds that the node may be asked. */
        publish(health, former, now_us);
        if (health->breaker.state == BREAKER_CLOSED) {
            on_return(context);
        }
    } else if (health->breaker.state == BREAKER_CLOSED) {
        on_return(context);
        if (is_first) {
            atomic_store_explicit(&health->returned_at_us, now_us, memory_order_release);
        }
    }
    pthread_mutex_unlock(&lock);
}
