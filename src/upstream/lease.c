/*
 * Design: a lease is a link with one user. Idle ones wait per node and worker, newest first, so
 * that those no longer needed grow old and are closed by link-idle-timeout.
 */
#include "upstream/lease.h"

#include "base/mem.h"
#include "base/stats.h"

#include <stdatomic.h>

/* Idle connections that a node keeps for the next client of this worker. */
#define IDLE_MAX 64

/* Both for the limit and for /metrics; no order with anything else is needed. */
static _Atomic unsigned n_taken, n_idle;

unsigned lease_count_taken(void)
{
    return atomic_load_explicit(&n_taken, memory_order_relaxed);
}

unsigned lease_count_idle(void)
{
    return atomic_load_explicit(&n_idle, memory_order_relaxed);
}

static void on_up(struct link *link)
{
    (void)link;
}

static void on_down(struct link *link)
{
    struct lease *lease = link->owner;

    lease->is_lost = true;
    if (lease->on_unasked != NULL) {
        lease->on_unasked(lease, BYTES(""));
    }
}

static bool on_unasked(struct link *link, struct bytes frame)
{
    struct lease *lease = link->owner;

    if (lease->on_unasked == NULL) {
        return false;
    }
    lease->on_unasked(lease, frame);
    return true;
}

static const struct link_events events = {on_up, on_down, on_unasked, on_unasked};

/* ---- lists: idle ones, and all others of a node ---- */

static void enlist(struct lease **list, struct lease *lease)
{
    lease->prev = NULL;
    lease->next = *list;
    if (lease->next != NULL) {
        lease->next->prev = lease;
    }
    *list = lease;
}

static void unlist(struct lease **list, struct lease *lease)
{
    if (lease->prev != NULL) {
        lease->prev->next = lease->next;
    } else {
        *list = lease->next;
    }
    if (lease->next != NULL) {
        lease->next->prev = lease->prev;
    }
}

static void enlist_idle(struct lease *lease)
{
    unlist(&lease->node->leases, lease);
    enlist(&lease->node->idle_leases, lease);
    lease->node->n_idle_leases++;
    atomic_fetch_add_explicit(&n_idle, 1, memory_order_relaxed);
}

static void unlist_idle(struct lease *lease)
{
    unlist(&lease->node->idle_leases, lease);
    enlist(&lease->node->leases, lease);
    lease->node->n_idle_leases--;
    atomic_fetch_sub_explicit(&n_idle, 1, memory_order_relaxed);
}

static struct lease *make(struct backend *backend, struct backend_node *node, unsigned proto)
{
    struct lease *lease = mem_alloc(sizeof(*lease));
    struct link_settings settings = node->links[LINK_RELAY2].settings;

    settings.is_leased = true;
    lease->backend = backend;
    lease->node = node;
    link_init(&lease->link, proto == 3 ? LINK_RELAY3 : LINK_RELAY2, backend->worker, node->info,
              backend_login(backend, node), &settings);
    lease->link.events = &events;
    lease->link.owner = lease;
    enlist(&node->leases, lease);
    return lease;
}

static struct lease *find_idle(struct backend_node *node, enum link_kind kind)
{
    for (struct lease *lease = node->idle_leases; lease != NULL; lease = lease->next) {
        /* Bytes of its last request are let go of when its last reply has been handed out. */
        if (lease->link.kind == kind && link_is_up(&lease->link) &&
            buffer_len(&lease->link.out) == 0) {
            return lease;
        }
    }
    return NULL;
}

struct lease *lease_take(struct backend *backend, struct backend_node *node, unsigned proto,
                         int64_t timeout_ms)
{
    struct lease *lease;

    if (node->info == NULL) {
        return NULL;
    }
    if (atomic_fetch_add_explicit(&n_taken, 1, memory_order_relaxed) >=
        (unsigned)backend->config->leased_connections) {
        atomic_fetch_sub_explicit(&n_taken, 1, memory_order_relaxed);
        stats_add(METRIC_leases_refused, 1);
        return NULL;
    }
    lease = find_idle(node, proto == 3 ? LINK_RELAY3 : LINK_RELAY2);
    if (lease != NULL) {
        unlist_idle(lease);
        stats_add(METRIC_leases_reused, 1);
    } else {
        lease = make(backend, node, proto);
    }
    lease->is_taken = true;
    lease->is_lost = lease->link.needs_multi = false;
    lease->on_unasked = NULL;
    lease->link.settings.request_timeout_ms = timeout_ms;
    link_keep_requests(&lease->link, node->links[LINK_RELAY2].settings.keeps_requests);
    stats_add(METRIC_leases, 1);
    return lease;
}

/* It is freed in the next tick: its link's callbacks may be up the stack. */
static void end(struct lease *lease)
{
    lease->is_over = true;
    link_shut(&lease->link);
}

void lease_return(struct lease **taken)
{
    struct lease *lease = *taken;

    *taken = NULL;
    CHECK(lease->is_taken);
    lease->is_taken = false;
    atomic_fetch_sub_explicit(&n_taken, 1, memory_order_relaxed);
    if (lease->is_lost || !link_is_up(&lease->link) || lease->link.first_op != NULL ||
        lease->node->n_idle_leases >= IDLE_MAX || !lease->node->is_in_map) {
        end(lease);
        return;
    }
    enlist_idle(lease);
}

void lease_drop(struct lease **taken)
{
    struct lease *lease = *taken;

    *taken = NULL;
    CHECK(lease->is_taken);
    lease->is_taken = false;
    atomic_fetch_sub_explicit(&n_taken, 1, memory_order_relaxed);
    end(lease);
}

/* It stands in the node's list of those that are not idle. */
static void free_lease(struct lease *lease)
{
    unlist(&lease->node->leases, lease);
    link_fini(&lease->link);
    mem_free(lease);
}

/* What was made to the former address is of no use: idle ones go, the others are lost. */
void lease_set_endpoint(struct backend_node *node, const struct endpoint *endpoint)
{
    for (struct lease *lease = node->idle_leases; lease != NULL; lease = lease->next) {
        link_set_endpoint(&lease->link, endpoint);
    }
    for (struct lease *lease = node->leases; lease != NULL; lease = lease->next) {
        if (!lease->is_over) {
            link_set_endpoint(&lease->link, endpoint);
        }
    }
}

void lease_tick(struct backend_node *node, int64_t now_us)
{
    struct lease *lease = node->idle_leases;

    while (lease != NULL) {
        struct lease *const next = lease->next;

        link_tick(&lease->link, now_us);
        if (!link_is_up(&lease->link)) {
            /* Closed by the backend, or unused for too long. */
            unlist_idle(lease);
            lease->is_over = true;
        }
        lease = next;
    }
    lease = node->leases;
    while (lease != NULL) {
        struct lease *const next = lease->next;

        if (lease->is_over) {
            free_lease(lease);
        } else {
            link_tick(&lease->link, now_us);
        }
        lease = next;
    }
}

bool lease_is_any_taken(const struct backend_node *node)
{
    for (const struct lease *lease = node->leases; lease != NULL; lease = lease->next) {
        if (lease->is_taken) {
            return true;
        }
    }
    return false;
}

void lease_fini_node(struct backend_node *node)
{
    while (node->idle_leases != NULL) {
        unlist_idle(node->idle_leases);
    }
    while (node->leases != NULL) {
        struct lease *const lease = node->leases;

        /* Its user is told by the lost operations, and may give it back in turn. */
        link_shut(&lease->link);
        if (lease->is_taken) {
            atomic_fetch_sub_explicit(&n_taken, 1, memory_order_relaxed);
        }
        free_lease(lease);
    }
}
