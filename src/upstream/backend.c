#include "upstream/backend.h"

#include "base/mem.h"
#include "upstream/lease.h"

static struct link_settings link_settings(const struct backend *backend)
{
    const struct config *config = backend->config;

    return (struct link_settings){
        .connect_timeout_ms = config->connect_timeout_ms,
        .request_timeout_ms = config->request_timeout_ms,
        .idle_timeout_ms = config->link_idle_timeout_ms,
        .reconnect_min_ms = config->reconnect_min_ms,
        .reconnect_max_ms = config->reconnect_max_ms,
        .output_limit = config->link_output_limit,
        .wants_tracking = config->coherence != COHERENCE_TTL,
        .keeps_requests = backend->topology != NULL && backend->topology->is_cluster,
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
    backend->events = events;
    backend->context = context;
}

static void free_node(struct backend *backend, struct backend_node *node)
{
    lease_fini_node(node);
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

static struct backend_node *add_node(struct backend *backend, const struct topology_node *info)
{
    const struct link_settings settings = link_settings(backend);
    struct backend_node *node = mem_alloc(sizeof(*node));

    node->id = info->id;
    for (unsigned kind = 0; kind < N_LINK_KINDS; kind++) {
        link_init(&node->links[kind], kind, backend->worker, info, backend->login, &settings);
    }
    node->next = backend->nodes;
    backend->nodes = node;
    backend->events->on_node_added(node, backend->context);
    return node;
}

void backend_set_topology(struct backend *backend, struct topology *topology)
{
    struct topology *former = backend->topology;

    backend->topology = topology_ref(topology);
    mem_free(backend->by_index);
    backend->by_index = mem_alloc(sizeof(struct backend_node *) * (topology->n_nodes + 1));
    for (struct backend_node *node = backend->nodes; node != NULL; node = node->next) {
        node->is_in_map = false;
        node->info = NULL;
    }
    for (unsigned i = 0; i < topology->n_nodes; i++) {
        const struct topology_node *info = &topology->nodes[i];
        struct backend_node *node = backend_by_id(backend, info->id);

        if (node == NULL) {
            node = add_node(backend, info);
        }
        node->is_in_map = true;
        node->info = info;
        backend->by_index[i] = node;
        for (unsigned kind = 0; kind < N_LINK_KINDS; kind++) {
            link_set_endpoint(&node->links[kind], &info->endpoint);
        }
        lease_set_endpoint(node, &info->endpoint);
    }
    backend_set_config(backend, backend->config);
    topology_unref(&former);
}

void backend_set_config(struct backend *backend, const struct config *config)
{
    backend->config = config;
    for (struct backend_node *node = backend->nodes; node != NULL; node = node->next) {
        for (unsigned kind = 0; kind < N_LINK_KINDS; kind++) {
            const bool keeps_requests = node->links[kind].settings.keeps_requests;

            node->links[kind].settings = link_settings(backend);
            if (node->links[kind].state != LINK_IDLE && node->links[kind].state != LINK_DOWN) {
                /* The bytes in its buffer are laid out one way or the other. */
                node->links[kind].settings.keeps_requests = keeps_requests;
            }
        }
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
    return !lease_is_any_taken(node);
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
        for (unsigned kind = 0; kind < N_LINK_KINDS; kind++) {
            const bool is_wanted = kind != LINK_TRACKING ||
                                   (node->info != NULL && node->info->is_master) ||
                                   (node->links[kind].state != LINK_IDLE &&
                                    node->links[kind].state != LINK_DOWN);

            if (is_wanted) {
                link_tick(&node->links[kind], now_us);
            }
        }
        lease_tick(node, now_us);
        at = &node->next;
    }
}
