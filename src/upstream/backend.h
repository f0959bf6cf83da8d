/*
 * backend.h - one worker's view of the backend: the topology in force and its links to each node
 *
 * Purpose:    find the node and the link for a slot.
 * Ownership:  owns its nodes and their links; holds a reference to the topology.
 * Threading:  its worker only. A new topology arrives by mail.
 * Errors:     a slot without an owner has no node: NULL.
 *
 * A node that leaves the map keeps its links until their operations are answered, then goes.
 */
#ifndef NC_UPSTREAM_BACKEND_H
#define NC_UPSTREAM_BACKEND_H

#include "upstream/identity.h"
#include "upstream/link.h"
#include "upstream/topology.h"

/* A relay link more, while a large reply has the node's own. */
struct backend_spare {
    struct backend_spare *next;
    struct link link;
};

struct backend_node {
    struct backend_node *next;
    epochs_node id;
    epochs_node owner; /* whose slots it has: itself, or the master whose replica it is */
    bool is_in_map;
    const struct topology_node *info; /* in the topology in force; NULL when it left the map */
    struct link links[N_LINK_KINDS];
    struct backend_spare *spares;       /* backend_relay_link() */
    struct lease *leases, *idle_leases; /* lease.h; first: taken or ending */
    unsigned n_idle_leases;
    struct health *health;           /* may it be asked? NULL: nobody judges it */
    const struct identity *identity; /* whose links these are; NULL: the proxy's own login */
    struct backend_node *of_users;   /* the same node with the links of users, by next */
    void *track;                     /* what coherence/ keeps about the tracking link */
};

/* Told about nodes as they come and go; set once, before the first topology. */
struct backend_events {
    void (*on_node_added)(struct backend_node *node, void *context);
    void (*on_node_removed)(struct backend_node *node, void *context);
};

struct backend {
    struct worker *worker;
    const struct config_backend *login;
    const struct config *config;
    bool reads_replicas;            /* some namespace is: their tracking links are kept up */
    struct tls_context *tls;        /* of the configuration in force; NULL: nodes are plain */
    struct topology *topology;      /* NULL until the first map */
    struct backend_node *nodes;     /* all, those that left the map included */
    struct backend_node **by_index; /* as topology->nodes */
    const struct backend_events *events;
    void *context;
    unsigned n_spares; /* spare links of all nodes: requests of a client may be on several links */
};

void backend_init(struct backend *backend, struct worker *worker,
                  const struct config_backend *login, const struct config *config,
                  const struct backend_events *events, void *context);
void backend_fini(struct backend *backend);
void backend_set_topology(struct backend *backend, struct topology *topology);
/* A reload: new timeouts for links that exist. */
void backend_set_config(struct backend *backend, const struct config *config);

/* The node with the links of this user, made when there are none; NULL: the proxy's own. */
struct backend_node *backend_as(struct backend *backend, struct backend_node *node,
                                const struct identity *identity);
/* Whose credentials its links log in with. */
const struct config_backend *backend_login(const struct backend *backend,
                                           const struct backend_node *node);
/*
 * Where relayed requests of this kind (a relay kind) go now: the node's own link, or a spare one
 * while that is left to the client of a large reply.
 */
struct link *backend_relay_link(struct backend *backend, struct backend_node *node,
                                enum link_kind kind);
/*
 * A large reply has begun on the link: the requests that follow go elsewhere until
 * backend_rejoin_link(). False: there are as many spare links as there may be.
 */
bool backend_leave_link(struct backend *backend, struct backend_node *node, struct link *link);
void backend_rejoin_link(struct link *link);
struct backend_node *backend_owner(const struct backend *backend, unsigned slot);
struct backend_node *backend_by_id(const struct backend *backend, epochs_node id);
/* By the address in a redirection; an empty host means that of `from`. NULL: not in the map. */
struct backend_node *backend_by_address(const struct backend *backend, struct bytes host,
                                        unsigned port, const struct backend_node *from);
/* The masters in the order of their numbers: the next one with a number above `after`, or NULL. */
struct backend_node *backend_next_master(const struct backend *backend, epochs_node after);

/* The replicas of a master in the order in which they are kept; NULL behind the last one. */
struct backend_node *backend_next_replica(const struct backend *backend,
                                          const struct backend_node *master,
                                          const struct backend_node *after);

/* Drives timeouts of all links; removes nodes that left the map and are at rest. */
void backend_tick(struct backend *backend, int64_t now_us);

#endif
