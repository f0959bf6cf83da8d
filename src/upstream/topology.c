/*
 * Topologies are kept in one form: nodes sorted by address. Two servers that list the same cluster
 * in different orders thus give equal snapshots, and topology_equal() is one walk side by side.
 */
#include "upstream/topology.h"

#include "base/mem.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

/* Redis recommends at most 1000 nodes; what names more is no map that we want to keep. */
#define NODES_MAX 2048

#define REGISTRY_BUCKETS 4096
#define REGISTRY_MAX (UINT16_MAX)

/* ---- node numbers ---- */

struct address {
    struct address *next;
    epochs_node number;
    unsigned port;
    char host[]; /* init */
};

static struct {
    pthread_mutex_t lock;                      /* a leaf */
    struct address *buckets[REGISTRY_BUCKETS]; /* lock */
    unsigned n_taken;                          /* lock */
} registry = {.lock = PTHREAD_MUTEX_INITIALIZER};

static struct address *find_address_locked(unsigned bucket, const char *host, unsigned port)
{
    struct address *address = registry.buckets[bucket];

    while (address != NULL && (address->port != port || strcmp(address->host, host) != 0)) {
        address = address->next;
    }
    return address;
}

static struct address *add_address_locked(unsigned bucket, const char *host, unsigned port)
{
    const size_t host_bytes = strlen(host) + 1;
    struct address *address;

    if (registry.n_taken == REGISTRY_MAX) {
        return NULL;
    }
    address = mem_alloc(sizeof(*address) + host_bytes);
    memcpy(address->host, host, host_bytes);
    address->port = port;
    address->number = (epochs_node)++registry.n_taken;
    address->next = registry.buckets[bucket];
    registry.buckets[bucket] = address;
    return address;
}

epochs_node topology_node_number(const char *host, unsigned port)
{
    const unsigned bucket = (unsigned)(XXH3_64bits_withSeed(host, strlen(host), port) %
                                       REGISTRY_BUCKETS);
    epochs_node number = 0;
    struct address *address;

    pthread_mutex_lock(&registry.lock);
    address = find_address_locked(bucket, host, port);
    if (address == NULL) {
        address = add_address_locked(bucket, host, port);
    }
    if (address != NULL) {
        number = address->number;
    }
    pthread_mutex_unlock(&registry.lock);
    return number;
}

/* ---- snapshots ---- */

struct topology *topology_new(unsigned n_nodes)
{
    struct topology *topology;

    CHECK(n_nodes < TOPOLOGY_NO_NODE);
    topology = mem_alloc(sizeof(*topology));
    topology->n_nodes = n_nodes;
    if (n_nodes > 0) {
        topology->nodes = mem_alloc(n_nodes * sizeof(topology->nodes[0]));
    }
    for (unsigned slot = 0; slot < EPOCHS_SLOTS; slot++) {
        topology->slot_node[slot] = TOPOLOGY_NO_NODE;
    }
    atomic_init(&topology->n_refs, 1);
    return topology;
}

struct topology *topology_ref(struct topology *topology)
{
    const unsigned before = atomic_fetch_add_explicit(&topology->n_refs, 1, memory_order_relaxed);

    CHECK(before > 0);
    return topology;
}

void topology_unref(struct topology **topology)
{
    struct topology *dropped = *topology;
    unsigned before;

    *topology = NULL;
    if (dropped == NULL) {
        return;
    }
    /* Release and acquire: the last one sees what the others read before they let go. */
    before = atomic_fetch_sub_explicit(&dropped->n_refs, 1, memory_order_acq_rel);
    CHECK(before > 0);
    if (before > 1) {
        return;
    }
    if (dropped->learnt != NULL) {
        command_set_unref(&dropped->learnt);
    }
    mem_free(dropped->nodes);
    mem_free(dropped);
}

const struct topology_node *topology_owner(const struct topology *topology, unsigned slot)
{
    CHECK(slot < EPOCHS_SLOTS);
    if (topology->slot_node[slot] == TOPOLOGY_NO_NODE) {
        return NULL;
    }
    return &topology->nodes[topology->slot_node[slot]];
}

bool topology_has_moved(const struct topology *former, const struct topology *topology)
{
    const unsigned n_slots = topology->is_cluster ? EPOCHS_SLOTS : 1;

    if (former == NULL || former->is_cluster != topology->is_cluster) {
        return true;
    }
    for (unsigned slot = 0; slot < n_slots; slot++) {
        const struct topology_node *before = topology_owner(former, slot);
        const struct topology_node *after = topology_owner(topology, slot);

        if ((before != NULL ? before->id : 0) != (after != NULL ? after->id : 0)) {
            return true;
        }
    }
    return false;
}

const struct topology_node *topology_find(const struct topology *topology, const char *host,
                                          unsigned port)
{
    for (unsigned i = 0; i < topology->n_nodes; i++) {
        const struct topology_node *node = &topology->nodes[i];

        if (node->port == port && strcmp(node->host, host) == 0) {
            return node;
        }
    }
    return NULL;
}

const struct topology_node *topology_by_id(const struct topology *topology, epochs_node id)
{
    for (unsigned i = 0; i < topology->n_nodes; i++) {
        if (topology->nodes[i].id == id) {
            return &topology->nodes[i];
        }
    }
    return NULL;
}

static bool endpoints_are_equal(const struct topology_node *a, const struct topology_node *b)
{
    if (!a->is_resolved) {
        return true;
    }
    return a->endpoint.length == b->endpoint.length &&
           memcmp(&a->endpoint.address, &b->endpoint.address, a->endpoint.length) == 0;
}

static bool nodes_are_equal(const struct topology_node *a, const struct topology_node *b)
{
    return a->id == b->id && a->port == b->port && a->is_master == b->is_master &&
           a->master == b->master && a->is_healthy == b->is_healthy &&
           a->is_resolved == b->is_resolved && strcmp(a->host, b->host) == 0 &&
           endpoints_are_equal(a, b);
}

bool topology_equal(const struct topology *a, const struct topology *b)
{
    if (a->is_cluster != b->is_cluster || a->n_nodes != b->n_nodes || a->learnt != b->learnt ||
        a->has_field_ttl != b->has_field_ttl || strcmp(a->server_version, b->server_version) != 0) {
        return false;
    }
    for (unsigned i = 0; i < a->n_nodes; i++) {
        if (!nodes_are_equal(&a->nodes[i], &b->nodes[i])) {
            return false;
        }
    }
    return memcmp(a->slot_node, b->slot_node, sizeof(a->slot_node)) == 0;
}

/* ---- CLUSTER SLOTS ---- */

/*
 *     *ranges
 *       *3 or more   :first  :last  node (the master)  node (a replica) ...
 *                                     \ *2 or more   $host  :port  $id  *metadata
 *
 * https://redis.io/commands/cluster-slots/ ; Redis 6.2 ends a node after its id.
 */
struct slots_reader {
    const char *default_host;
    const struct config_address_map *map;
    struct topology_node *nodes; /* in order of appearance */
    unsigned n_nodes, capacity;
    uint16_t slot_node[EPOCHS_SLOTS];
};

static bool read_number(struct bytes *at, int64_t min, int64_t max, int64_t *number)
{
    struct resp_value value;

    return resp_next(at, &value) && value.type == ':' && bytes_to_int64(value.text, number) &&
           *number >= min && *number <= max;
}

static bool host_is_sane(struct bytes host)
{
    for (size_t i = 0; i < host.len; i++) {
        if (host.ptr[i] <= ' ' || host.ptr[i] == 127) {
            return false;
        }
    }
    return host.len < sizeof(((struct topology_node *)0)->host);
}

/* "?" stands for a name that the server prefers but does not know; the metadata then has the ip. */
static bool read_metadata_ip(struct bytes at, struct bytes *host)
{
    struct resp_value list, name, text;

    if (!resp_next(&at, &list) || list.type != '*') {
        return false;
    }
    for (size_t i = 0; i + 1 < list.n_children; i += 2) {
        if (!resp_next(&at, &name) || !resp_next(&at, &text) || text.type != '$') {
            return false;
        }
        if (bytes_equal(name.text, BYTES("ip"))) {
            *host = text.text;
            return !text.is_null && text.text.len > 0;
        }
    }
    return false;
}

/* Index of the node, or TOPOLOGY_NO_NODE: no memory, too many of them, no number left. */
static uint16_t add_node(struct slots_reader *reader, struct bytes host, unsigned port)
{
    struct topology_node node = {.port = port, .is_healthy = true};

    memcpy(node.host, host.ptr, host.len);
    node.id = topology_node_number(node.host, port);
    if (node.id == 0) {
        return TOPOLOGY_NO_NODE;
    }
    for (unsigned i = 0; i < reader->n_nodes; i++) {
        if (reader->nodes[i].id == node.id) {
            return (uint16_t)i;
        }
    }
    if (reader->n_nodes == reader->capacity) {
        const unsigned capacity = reader->capacity == 0 ? 16 : reader->capacity * 2;
        struct topology_node *grown = capacity > NODES_MAX
                                          ? NULL
                                          : mem_try_realloc(reader->nodes, capacity * sizeof(node));

        if (grown == NULL) {
            return TOPOLOGY_NO_NODE;
        }
        reader->nodes = grown;
        reader->capacity = capacity;
    }
    node.is_resolved = endpoint_from_ip(&node.endpoint, node.host, port) == 0;
    reader->nodes[reader->n_nodes] = node;
    return (uint16_t)reader->n_nodes++;
}

/* False: malformed. *index may be TOPOLOGY_NO_NODE for a node that cannot be reached by anybody. */
static bool read_node(struct slots_reader *reader, struct bytes *at, uint16_t *index)
{
    struct resp_value list, host;
    struct bytes metadata = {NULL, 0};
    int64_t port;

    if (!resp_next(at, &list) || list.type != '*' || list.n_children < 2 || !resp_next(at, &host) ||
        (host.type != '$' && host.type != '+') || !read_number(at, 0, UINT16_MAX, &port)) {
        return false;
    }
    for (size_t i = 2; i < list.n_children; i++) {
        if (i == 3) {
            metadata = *at;
        }
        if (!resp_skip(at)) {
            return false;
        }
    }
    *index = TOPOLOGY_NO_NODE;
    if (host.is_null || host.text.len == 0) {
        host.text = bytes_of_string(reader->default_host);
    } else if (bytes_equal(host.text, BYTES("?")) && !read_metadata_ip(metadata, &host.text)) {
        return true;
    }
    if (!host_is_sane(host.text)) {
        return false;
    }
    if (port > 0 && host.text.len > 0) {
        unsigned reached_at = (unsigned)port;

        if (reader->map != NULL) {
            (void)config_address_map(reader->map, &host.text, &reached_at);
        }
        *index = add_node(reader, host.text, reached_at);
    }
    return true;
}

static bool read_range(struct slots_reader *reader, struct bytes *at)
{
    struct resp_value range;
    int64_t first, last;
    uint16_t master, replica;

    if (!resp_next(at, &range) || range.type != '*' || range.n_children < 3 ||
        !read_number(at, 0, EPOCHS_SLOTS - 1, &first) ||
        !read_number(at, first, EPOCHS_SLOTS - 1, &last) || !read_node(reader, at, &master)) {
        return false;
    }
    if (master != TOPOLOGY_NO_NODE) {
        reader->nodes[master].is_master = true;
    }
    for (int64_t slot = first; slot <= last; slot++) {
        reader->slot_node[slot] = master;
    }
    for (size_t i = 3; i < range.n_children; i++) {
        if (!read_node(reader, at, &replica)) {
            return false;
        }
        if (replica != TOPOLOGY_NO_NODE && master != TOPOLOGY_NO_NODE) {
            reader->nodes[replica].master = reader->nodes[master].id;
        }
    }
    return true;
}

static bool read_slots(struct slots_reader *reader, struct bytes reply)
{
    struct resp_value ranges;

    if (!resp_next(&reply, &ranges) || ranges.type != '*' || ranges.is_null) {
        return false;
    }
    for (size_t i = 0; i < ranges.n_children; i++) {
        if (!read_range(reader, &reply)) {
            return false;
        }
    }
    return reader->n_nodes > 0;
}

static int compare_nodes(const void *left, const void *right)
{
    const struct topology_node *a = left, *b = right;
    const int by_host = strcmp(a->host, b->host);

    if (by_host != 0) {
        return by_host;
    }
    return a->port < b->port ? -1 : a->port > b->port;
}

/* The reader's nodes and slots, sorted by address. */
static struct topology *make_sorted(const struct slots_reader *reader)
{
    struct topology *topology = topology_new(reader->n_nodes);
    uint16_t place[NODES_MAX];

    topology->is_cluster = true;
    memcpy(topology->nodes, reader->nodes, reader->n_nodes * sizeof(reader->nodes[0]));
    qsort(topology->nodes, topology->n_nodes, sizeof(topology->nodes[0]), compare_nodes);
    for (unsigned i = 0; i < reader->n_nodes; i++) {
        const struct topology_node *node = bsearch(&reader->nodes[i], topology->nodes,
                                                   topology->n_nodes, sizeof(*node), compare_nodes);

        place[i] = (uint16_t)(node - topology->nodes);
    }
    for (unsigned slot = 0; slot < EPOCHS_SLOTS; slot++) {
        if (reader->slot_node[slot] != TOPOLOGY_NO_NODE) {
            topology->slot_node[slot] = place[reader->slot_node[slot]];
        }
    }
    return topology;
}

struct topology *topology_from_slots(struct bytes reply, const char *default_host,
                                     const struct config_address_map *map)
{
    struct slots_reader *reader = mem_alloc(sizeof(*reader));
    struct topology *topology = NULL;

    reader->default_host = default_host;
    reader->map = map;
    for (unsigned slot = 0; slot < EPOCHS_SLOTS; slot++) {
        reader->slot_node[slot] = TOPOLOGY_NO_NODE;
    }
    if (read_slots(reader, reply)) {
        topology = make_sorted(reader);
    }
    mem_free(reader->nodes);
    mem_free(reader);
    return topology;
}
