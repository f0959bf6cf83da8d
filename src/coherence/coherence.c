#include "coherence/coherence.h"

#include "base/clock.h"
#include "coherence/audit.h"
#include "coherence/bus.h"
#include "coherence/dependencies.h"
#include "coherence/dependency_orders.h"
#include "coherence/dependency_watch.h"
#include "coherence/ear.h"
#include "coherence/event_sources.h"
#include "coherence/events.h"
#include "coherence/key_orders.h"
#include "coherence/ledger.h"
#include "coherence/modes.h"
#include "coherence/recent.h"
#include "coherence/track.h"

/* Half of the shortest fence interval that is of use; timeouts are told to this grain. */
#define TICK_MS 10

/* What rules with debounce have held until now. */
static void end_windows(struct coherence *coherence, int64_t now_us)
{
    struct debounce *debounce = coherence->fleet->debounce;
    struct debounce_what what;
    struct bytes name;

    for (unsigned i = 0; debounce != NULL && i < DEBOUNCE_TAKEN_MAX &&
                         debounce_take(debounce, now_us, &what, &name);
         i++) {
        if (what.kind == DEBOUNCE_DEPENDENCY) {
            dependencies_drop_held(coherence, &what, name);
        } else {
            events_drop_held(coherence->events, &what, name);
        }
    }
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct coherence *coherence = arg;
    const int64_t now_us = clock_now_us();

    (void)fd;
    (void)what;
    backend_tick(coherence->backend, now_us);
    for (struct backend_node *node = coherence->backend->nodes; node != NULL; node = node->next) {
        track_tick(node->track, now_us);
        for (struct backend_node *of = node->of_users; of != NULL; of = of->next) {
            track_tick(of->track, now_us);
        }
    }
    fetch_expire(coherence, now_us);
    if (coherence == coherence->fleet->members[0]) {
        miss_leases_tick(coherence, now_us);
    }
    if (coherence->fleet->bus != NULL && coherence == coherence->fleet->members[0]) {
        bus_tick(coherence->fleet->bus, now_us);
        event_sources_tick(coherence->fleet->event_sources, now_us);
    }
    if (coherence == coherence->fleet->members[0]) {
        end_windows(coherence, now_us);
    }
    dependency_watches_tick(coherence->watches, now_us);
    dependency_desk_tick(coherence->desk, now_us);
    auditor_tick(coherence->auditor, now_us);
    ledger_tick(coherence->ledger, now_us);
}

static void note_modes(struct coherence *coherence)
{
    const struct config *config = coherence->config;

    coherence->tells_writes = config_uses_coherence(config, COHERENCE_PUBSUB);
    coherence->knows_no_writes = false;
    /* Those that are not cached as well: sources of what is may be among them. */
    for (unsigned i = 0; i < config->n_namespaces && config->max_dependencies > 0; i++) {
        const int mode = config->namespaces[i].coherence;

        coherence->knows_no_writes |= mode == COHERENCE_TTL || mode == COHERENCE_PUBSUB;
    }
}

void coherence_init(struct coherence *coherence, struct coherence_fleet *fleet,
                    struct worker *worker, struct backend *backend, const struct config *config)
{
    const struct timeval interval = {0, TICK_MS * 1000};

    memset(coherence, 0, sizeof(*coherence));
    coherence->fleet = fleet;
    coherence->worker = worker;
    coherence->cache = fleet->cache;
    coherence->backend = backend;
    coherence->config = config;
    ear_set_prefix_ids(coherence);
    note_modes(coherence);
    coherence->auditor = auditor_new(coherence);
    coherence->ledger = ledger_new(coherence);
    coherence->watches = dependency_watches_new(coherence);
    coherence->desk = dependency_desk_new(coherence);
    coherence->events = events_new(coherence);
    coherence->key_orders = key_orders_new(coherence);
    coherence->tick_event = event_new(worker->base, -1, EV_PERSIST, on_tick, coherence);
    CHECK(coherence->tick_event != NULL);
    event_priority_set(coherence->tick_event, PRIORITY_LINK);
    event_add(coherence->tick_event, &interval);
    fleet->members[worker->index] = coherence;
}

void coherence_fini(struct coherence *coherence)
{
    key_orders_free(&coherence->key_orders);
    dependency_desk_free(&coherence->desk);
    dependency_watches_free(&coherence->watches);
    auditor_free(&coherence->auditor);
    ledger_free(&coherence->ledger);
    events_free(&coherence->events);
    event_free(coherence->tick_event);
    coherence->tick_event = NULL;
}

void coherence_set_config(struct coherence *coherence, const struct config *config)
{
    coherence->config = config;
    miss_leases_set_config(coherence->fleet->leases, config);
    ear_set_prefix_ids(coherence);
    dependency_watches_set_config(coherence->watches);
    note_modes(coherence);
    backend_set_config(coherence->backend, config);
    for (struct backend_node *node = coherence->backend->nodes; node != NULL; node = node->next) {
        track_set_config(node->track);
        for (struct backend_node *of = node->of_users; of != NULL; of = of->next) {
            track_set_config(of->track);
        }
    }
}

static void on_node_added(struct backend_node *node, void *context)
{
    node->track = track_new(context, node);
}

static void on_node_removed(struct backend_node *node, void *context)
{
    struct track *track = node->track;

    (void)context;
    node->track = NULL;
    track_free(&track);
}

const struct backend_events coherence_backend_events = {on_node_added, on_node_removed};

void coherence_drop_key(struct coherence *coherence, struct bytes key)
{
    if (NC_UNLIKELY(coherence->backend->reads_replicas)) {
        recent_note(coherence->fleet->recent, cache_hash(key), clock_now_us());
    }
    if (cache_invalidate(coherence->cache, key)) {
        stats_add(METRIC_invalidations_write, 1);
    }
    miss_leases_note(coherence->fleet->leases, key, MISS_WRITTEN);
}

void coherence_drop_derived(struct coherence *coherence, struct bytes key)
{
    dependencies_cascade(coherence->fleet, coherence, key, DEPENDENCY_WRITTEN);
}

/* Nobody but this proxy can tell the others of it. */
static bool is_untold(const struct coherence *coherence, struct bytes key)
{
    const struct config_namespace *ns = config_namespace_of(coherence->config, key);
    const struct topology *topology = coherence->backend->topology;
    const struct backend_node *node;

    if (!ns->cache || ns->coherence != COHERENCE_AUTO) {
        return ns->cache && ns->coherence == COHERENCE_PUBSUB;
    }
    node = backend_owner(coherence->backend,
                         topology != NULL && topology->is_cluster ? command_key_slot(key) : 0);
    return node != NULL && modes_is_untold(node->track);
}

void coherence_drop_written(struct coherence *coherence, struct bytes key)
{
    const struct bus_record record = {.kind = BUS_KEY, .db = -1, .a = key};

    coherence_drop_key(coherence, key);
    if (NC_UNLIKELY(coherence->tells_writes || coherence->n_untold > 0) &&
        coherence->fleet->bus != NULL && is_untold(coherence, key)) {
        stats_add(METRIC_bus_writes, 1);
        bus_send(coherence->fleet->bus, coherence, &record);
    }
}

struct link *coherence_hearing_link(struct coherence *coherence, unsigned slot,
                                    const struct identity *identity)
{
    struct backend_node *node = backend_owner(coherence->backend, slot);

    if (node == NULL) {
        return NULL;
    }
    node = backend_as(coherence->backend, node, identity);
    link_wake(&node->links[LINK_TRACKING]);
    return track_is_coherent(node->track) &&
                   track_incarnation(node->track, clock_now_us()) != EPOCHS_NONE
               ? &node->links[LINK_TRACKING]
               : NULL;
}

void coherence_drop_all(struct coherence *coherence, enum metric reason)
{
    const int64_t now_us = clock_now_us();

    recent_note_all(coherence->fleet->recent, now_us);
    if (reason == METRIC_flushes_bus_gap) {
        /* Nothing was heard of, and the bus is down when the backend is: see stale-if-error. */
        epochs_lapse_all(cache_epochs(coherence->cache), now_us);
    } else {
        epochs_close_all(cache_epochs(coherence->cache));
    }
    stats_add(reason, 1);
}

/* A slot that lost its owner belongs to node 0: nothing of it is shown, and the next owner counts.
 */
void coherence_apply_topology(struct cache *cache, const struct topology *former,
                              const struct topology *topology)
{
    struct epochs *epochs = cache_epochs(cache);
    const unsigned n_slots = topology->is_cluster ? EPOCHS_SLOTS : 1;

    if (former != NULL && former->is_cluster != topology->is_cluster) {
        epochs_close_all(epochs);
    }
    cache_set_slot_function(cache, topology->is_cluster ? command_key_slot : NULL);
    for (unsigned slot = 0; slot < n_slots; slot++) {
        const struct topology_node *owner = topology_owner(topology, slot);

        if (epochs_assign(epochs, slot, owner != NULL ? owner->id : 0)) {
            stats_add(METRIC_flushes_slots, 1);
        }
    }
}
