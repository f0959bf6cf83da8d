#include "upstream/backend.h"

#include "base/mem.h"
#include "base/stats.h"
#include "upstream/lease.h"

/* Of one node and worker. Each stands for a large reply that somebody reads slowly. */
#define SPARES_MAX 64

static struct link_settings link_settings(const struct backend *backend,
                                          const struct topology_node *info)
{
    const struct config *config = backend->config;
    const bool is_cluster = backend->topology != NULL && backend->topology->is_cluster;
    /* Clients may keep what is kept nowhere here (CLIENT TRACKING). */
    const int coherence = config_main_coherence(config);

    return (struct link_settings){
        .connect_timeout_ms = config->connect_timeout_ms,
        .request_timeout_ms = config->request_timeout_ms,
        .idle_timeout_ms = config->link_idle_timeout_ms,
        .reconnect_min_ms = config->reconnect_min_ms,
        .reconnect_max_ms = config->reconnect_max_ms,
        .output_limit = config->link_output_limit,
        .tls = config->target.is_tls ? &backend->tls : NULL,
        .wants_tracking = config_uses_coherence(config, COHERENCE_AUTO) ||
                          config_uses_coherence(config, COHERENCE_TRACKING) ||
                          coherence == COHERENCE_AUTO || coherence == COHERENCE_TRACKING,
        .reads_replica = is_cluster && info != NULL && !info->is_master,
        .keeps_requests = is_cluster,
    };
}

void backend_init(struct backend *backend, struct worker *worker,
                  const struct config_backend *login, const struct config *config,
                  const struct backend_events *events, void *context)
{
    memset(backend, 0, sizeof(*backend));
    backend->worker = worker;
    backend->login = login;
    backend->config = config;
    backend->reads_replicas = config_reads_replicas(config);
    backend->tls = config->tls_backend;
    backend->events = events;
    backend->context = context;
}

static void free_spare(struct backend *backend, struct backend_spare **at)
{
    struct backend_spare *spare = *at;

    *at = spare->next;
    link_fini(&spare->link);
    mem_free(spare);
    backend->n_spares--;
}

static void free_node(struct backend *backend, struct backend_node *node)
{
    while (node->of_users != NULL) {
        struct backend_node *const of = node->of_users;

        node->of_users = of->next;
        free_node(backend, of);
    }
    lease_fini_node(node);
    while (node->spares != NULL) {
        free_spare(backend, &node->spares);
    }
    for (unsigned kind = 0; kind < N_LINK_KINDS; kind++) {
        link_fini(&node->links[kind]);
    }
    backend->events->on_node_removed(node, backend->context);
    mem_free(node);
}

void backend_fini(struct backend *backend)
{
    while (backend->nodes != NULL) {
        struct backend_node *const node = backend->nodes;

        backend->nodes = node->next;
        free_node(backend, node);
    }
    mem_free(backend->by_index);
    backend->by_index = NULL;
    topology_unref(&backend->topology);
}

struct backend_node *backend_by_id(const struct backend *backend, epochs_node id)
{
    for (struct backend_node *node = backend->nodes; node != NULL; node = node->next) {
        if (node->id == id) {
            return node;
        }
    }
    return NULL;
}

const struct config_backend *backend_login(const struct backend *backend,
                                           const struct backend_node *node)
{
    return node->identity != NULL ? &node->identity->login : backend->login;
}

static struct backend_node *new_node(struct backend *backend, const struct topology_node *info,
                                     const struct identity *identity)
{
    const struct link_settings settings = link_settings(backend, info);
    struct backend_node *node = mem_alloc(sizeof(*node));

    node->id = info->id;
    node->info = info;
    node->owner = topology_node_owner(info);
    node->is_in_map = true;
    node->identity = identity;
    for (unsigned kind = 0; kind < N_LINK_KINDS; kind++) {
        link_init(&node->links[kind], kind, backend->worker, info, backend_login(backend, node),
                  &settings);
    }
    backend->events->on_node_added(node, backend->context);
    return node;
}

static struct backend_node *add_node(struct backend *backend, const struct topology_node *info)
{
    struct backend_node *node = new_node(backend, info, NULL);

    node->next = backend->nodes;
    backend->nodes = node;
    return node;
}

struct backend_node *backend_as(struct backend *backend, struct backend_node *node,
                                const struct identity *identity)
{
    struct backend_node *of;

    if (NC_LIKELY(identity == node->identity)) {
        return node;
    }
    for (of = node->of_users; of != NULL; of = of->next) {
        if (of->identity == identity) {
            return of;
        }
    }
    if (node->info == NULL) {
        return node; /* it left the map: what is sent there fails either way */
    }
    of = new_node(backend, node->info, identity);
    of->next = node->of_users;
    node->of_users = of;
    return of;
}

/* ---- spare links ---- */

static struct link *new_spare(struct backend *backend, struct backend_node *node,
                              enum link_kind kind)
{
    struct backend_spare *spare = mem_alloc(sizeof(*spare));
    struct link_settings settings = link_settings(backend, node->info);

    link_init(&spare->link, kind, backend->worker, node->info, backend_login(backend, node),
              &settings);
    spare->next = node->spares;
    node->spares = spare;
    backend->n_spares++;
    return &spare->link;
}

struct link *backend_relay_link(struct backend *backend, struct backend_node *node,
                                enum link_kind kind)
{
    if (NC_LIKELY(!node->links[kind].is_left)) {
        return &node->links[kind];
    }
    for (struct backend_spare *spare = node->spares; spare != NULL; spare = spare->next) {
        if (spare->link.kind == kind && !spare->link.is_left) {
            return &spare->link;
        }
    }
    return node->info != NULL ? new_spare(backend, node, kind) : &node->links[kind];
}

bool backend_leave_link(struct backend *backend, struct backend_node *node, struct link *link)
{
    unsigned n_spares = 0;

    for (const struct backend_spare *spare = node->spares; spare != NULL; spare = spare->next) {
        n_spares++;
    }
    if (n_spares >= SPARES_MAX || node->info == NULL || link->is_left) {
        return link->is_left;
    }
    stats_add(METRIC_links_left, 1);
    link->is_left = true;
    /* Connected now, it is up when the next request comes. */
    link_wake(backend_relay_link(backend, node, link->kind));
    return true;
}

void backend_rejoin_link(struct link *link)
{
    link->is_left = false;
}

/* One that nobody needs any more goes, so that requests of a client are on one link again. */
static void tick_spares(struct backend *backend, struct backend_node *node, int64_t now_us)
{
    struct backend_spare **at = &node->spares;

    while (*at != NULL) {
        struct link *link = &(*at)->link;

        if (link->first_op == NULL && !link->is_left && !node->links[link->kind].is_left) {
            link_shut(link);
            free_spare(backend, at);
            continue;
        }
        link_tick(link, now_us);
        at = &(*at)->next;
    }
}

/* info: in the topology in force; NULL: it left the map. */
static void set_info(struct backend_node *node, const struct topology_node *info)
{
    if (info != NULL && topology_node_owner(info) != node->owner) {
        /* READONLY is said, and its keys belong to another node. */
        link_close(&node->links[LINK_TRACKING], "the node's role changed");
        node->owner = topology_node_owner(info);
    }
    node->is_in_map = info != NULL;
    node->info = info;
    if (info != NULL) {
        for (unsigned kind = 0; kind < N_LINK_KINDS; kind++) {
            link_set_endpoint(&node->links[kind], &info->endpoint);
        }
        for (struct backend_spare *spare = node->spares; spare != NULL; spare = spare->next) {
            link_set_endpoint(&spare->link, &info->endpoint);
        }
        lease_set_endpoint(node, &info->endpoint);
    }
    for (struct backend_node *of = node->of_users; of != NULL; of = of->next) {
        set_info(of, info);
    }
}

void backend_set_topology(struct backend *backend, struct topology *topology)
{
    struct topology *former = backend->topology;

    backend->topology = topology_ref(topology);
    mem_free(backend->by_index);
    backend->by_index = mem_alloc(sizeof(struct backend_node *) * (topology->n_nodes + 1));
    for (struct backend_node *node = backend->nodes; node != NULL; node = node->next) {
        set_info(node, NULL);
    }
    for (unsigned i = 0; i < topology->n_nodes; i++) {
        const struct topology_node *info = &topology->nodes[i];
        struct backend_node *node = backend_by_id(backend, info->id);

        if (node == NULL) {
            node = add_node(backend, info);
        }
        set_info(node, info);
        backend->by_index[i] = node;
    }
    backend_set_config(backend, backend->config);
    topology_unref(&former);
}

static void set_settings(const struct backend *backend, struct backend_node *node)
{
    for (unsigned kind = 0; kind < N_LINK_KINDS; kind++) {
        struct link *link = &node->links[kind];
        const bool keeps_requests = link->settings.keeps_requests;

        link->settings = link_settings(backend, node->info);
        if (link->state != LINK_IDLE && link->state != LINK_DOWN) {
            /* The bytes in its buffer are laid out one way or the other. */
            link->settings.keeps_requests = keeps_requests;
        }
    }
    /* Spare links live shortly: new ones have the new settings. */
    for (struct backend_node *of = node->of_users; of != NULL; of = of->next) {
        set_settings(backend, of);
    }
}

void backend_set_config(struct backend *backend, const struct config *config)
{
    backend->config = config;
    backend->reads_replicas = config_reads_replicas(config);
    backend->tls = config->tls_backend;
    for (struct backend_node *node = backend->nodes; node != NULL; node = node->next) {
        set_settings(backend, node);
    }
}

struct backend_node *backend_owner(const struct backend *backend, unsigned slot)
{
    const struct topology *topology = backend->topology;

    if (topology == NULL || topology->slot_node[slot] == TOPOLOGY_NO_NODE) {
        return NULL;
    }
    return backend->by_index[topology->slot_node[slot]];
}

struct backend_node *backend_next_replica(const struct backend *backend,
                                          const struct backend_node *master,
                                          const struct backend_node *after)
{
    struct backend_node *node = after == NULL ? backend->nodes : after->next;

    while (node != NULL &&
           (node->info == NULL || node->info->is_master || node->owner != master->id)) {
        node = node->next;
    }
    return node;
}

struct backend_node *backend_by_address(const struct backend *backend, struct bytes host,
                                        unsigned port, const struct backend_node *from)
{
    const struct topology *topology = backend->topology;
    char name[256];

    if (topology == NULL || host.len >= sizeof(name)) {
        return NULL;
    }
    if (host.len == 0 && from->info != NULL) {
        host = bytes_of_string(from->info->host);
    }
    memcpy(name, host.ptr, host.len);
    name[host.len] = '\0';
    for (unsigned i = 0; i < topology->n_nodes; i++) {
        if (topology->nodes[i].port == port && strcmp(topology->nodes[i].host, name) == 0) {
            return backend->by_index[i];
        }
    }
    return NULL;
}

struct backend_node *backend_next_master(const struct backend *backend, epochs_node after)
{
    struct backend_node *next = NULL;

    for (struct backend_node *node = backend->nodes; node != NULL; node = node->next) {
        if (node->info != NULL && node->info->is_master && node->id > after &&
            (next == NULL || node->id < next->id)) {
            next = node;
        }
    }
    return next;
}

static bool is_at_rest(const struct backend_node *node)
{
    for (unsigned kind = 0; kind < N_LINK_KINDS; kind++) {
        if (node->links[kind].first_op != NULL) {
            return false;
        }
    }
    for (const struct backend_spare *spare = node->spares; spare != NULL; spare = spare->next) {
        if (spare->link.first_op != NULL) {
            return false;
        }
    }
    for (const struct backend_node *of = node->of_users; of != NULL; of = of->next) {
        if (!is_at_rest(of)) {
            return false;
        }
    }
    return !lease_is_any_taken(node);
}

/* Its tracking link is made anew whenever it is lost. */
static bool wants_tracking(const struct backend *backend, const struct backend_node *node)
{
    return node->info != NULL && (node->info->is_master || backend->reads_replicas) &&
           (node->identity == NULL ||
            atomic_load_explicit(&node->identity->n_sessions, memory_order_relaxed) > 0);
}

static void tick_node(struct backend *backend, struct backend_node *node, int64_t now_us)
{
    struct link *tracking = &node->links[LINK_TRACKING];

    if (node->identity != NULL && link_is_up(tracking) && !wants_tracking(backend, node)) {
        link_close(tracking, "its user has left");
    }
    for (unsigned kind = 0; kind < N_LINK_KINDS; kind++) {
        const bool is_wanted = kind != LINK_TRACKING || wants_tracking(backend, node) ||
                               (tracking->state != LINK_IDLE && tracking->state != LINK_DOWN);

        if (is_wanted) {
            link_tick(&node->links[kind], now_us);
        }
    }
    tick_spares(backend, node, now_us);
    lease_tick(node, now_us);
    for (struct backend_node *of = node->of_users; of != NULL; of = of->next) {
        tick_node(backend, of, now_us);
    }
}

void backend_tick(struct backend *backend, int64_t now_us)
{
    struct backend_node **at = &backend->nodes;

    while (*at != NULL) {
        struct backend_node *const node = *at;

        if (!node->is_in_map && is_at_rest(node)) {
            *at = node->next;
            free_node(backend, node);
            continue;
        }
        tick_node(backend, node, now_us);
        at = &node->next;
    }
}
