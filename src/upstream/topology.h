/*
 * topology.h - who the backend's nodes are and which slots they own
 *
 * Purpose:    one immutable snapshot that workers route by. A standalone backend is a topology of
 *             one node that owns slot 0 (every key is in slot 0 then).
 * Ownership:  reference counted; the last unref frees. Node numbers come from a process-wide
 *             registry by address and are never used for another address.
 * Threading:  built by the control thread, read by any thread.
 */
#ifndef NC_UPSTREAM_TOPOLOGY_H
#define NC_UPSTREAM_TOPOLOGY_H

#include "base/bytes.h"
#include "base/stream.h"
#include "cache/epochs.h"
#include "config/address_map.h"
#include "resp/command.h"

#include <stdatomic.h>

#define TOPOLOGY_NO_NODE UINT16_MAX

struct topology_node {
    epochs_node id;
    char host[256]; /* as the backend or the configuration names it; empty for a Unix socket */
    unsigned port;
    struct endpoint endpoint; /* resolved; newest answer of the name service */
    bool is_resolved;
    bool is_master;
    epochs_node master; /* whose replica it is; 0: of none that is known */
    /* False while the node says cluster_state:fail or says nothing: not served from tier 1. */
    bool is_healthy;
};

struct topology {
    _Atomic unsigned n_refs;
    uint64_t version; /* grows with every snapshot that differs */
    bool is_cluster;
    char server_version[32];    /* redis_version of INFO */
    bool has_field_ttl;         /* 7.4 or later: hashes may have fields that expire */
    struct command_set *learnt; /* owned reference; NULL before COMMAND was read */
    unsigned n_nodes;
    struct topology_node *nodes;
    /* Index into nodes, or TOPOLOGY_NO_NODE; [0] alone if standalone. */
    uint16_t slot_node[EPOCHS_SLOTS];
};

struct topology *topology_new(unsigned n_nodes);
struct topology *topology_ref(struct topology *topology);
void topology_unref(struct topology **topology);

/* The number that stands for this address for the life of the process; 0 when 65535 are taken. */
epochs_node topology_node_number(const char *host, unsigned port);

/* NULL when nobody is known to own the slot. */
const struct topology_node *topology_owner(const struct topology *topology, unsigned slot);
/* Some slot has another owner than before. former may be NULL. */
bool topology_has_moved(const struct topology *former, const struct topology *topology);
const struct topology_node *topology_find(const struct topology *topology, const char *host,
                                          unsigned port);
const struct topology_node *topology_by_id(const struct topology *topology, epochs_node id);

/* The node whose slots it has: itself, or its master. */
static inline epochs_node topology_node_owner(const struct topology_node *node)
{
    return node->is_master ? node->id : node->master;
}

/* Nodes in order (addresses, roles, health), slots, server and learnt set: nothing to publish. */
bool topology_equal(const struct topology *a, const struct topology *b);

/*
 * Reads a CLUSTER SLOTS reply (RESP2 bytes). default_host stands in for nodes that announce an
 * empty host ("the one you asked"). Nodes come sorted by address, are called healthy, and are
 * resolved where their host is a number. Slots of a node that announces no usable address have no
 * node. map: what nodes announce and where they are reached; may be NULL. NULL: malformed or empty.
 */
struct topology *topology_from_slots(struct bytes reply, const char *default_host,
                                     const struct config_address_map *map);

#endif
