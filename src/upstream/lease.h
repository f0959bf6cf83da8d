/*
 * lease.h - backend connections that belong to one client for a while
 *
 * Purpose:    transactions, blocking commands and whatever else needs a connection of its own. One
 *             that comes back clean waits for the next client; any other is closed.
 * Ownership:  whoever took a lease gives it back once: lease_return() or lease_drop(). Its struct
 *             lives on until the end of the turn, so both may be called from the link's callbacks.
 * Threading:  the worker of the backend.
 * Errors:     lease_take() answers NULL when leased-connections are in use; a connection that does
 *             not come up, or breaks, tells its operations as every link does.
 */
#ifndef NC_UPSTREAM_LEASE_H
#define NC_UPSTREAM_LEASE_H

#include "upstream/backend.h"

struct lease {
    struct lease *next, *prev; /* of its node's */
    struct backend *backend;
    struct backend_node *node;
    struct link link;
    bool is_taken, is_over; /* over: to be freed */
    /* What comes unasked: a line of MONITOR, a push. Empty: the connection broke. Its user sets it.
     */
    void (*on_unasked)(struct lease *lease, struct bytes frame);
    void *user;
    bool is_lost; /* it broke while it was taken: nothing more may be sent on it */
};

/* proto: 2 or 3. timeout_ms: longest wait for a reply, 0 for no limit (blocking commands). */
struct lease *lease_take(struct backend *backend, struct backend_node *node, unsigned proto,
                         int64_t timeout_ms);
/* Nothing is owed on it and its state is that of a new connection (but for the database). */
void lease_return(struct lease **lease);
/* Closes it at once; what is owed on it is lost. */
void lease_drop(struct lease **lease);

/* For backend.c: all leases of a node. */
void lease_set_endpoint(struct backend_node *node, const struct endpoint *endpoint);
void lease_tick(struct backend_node *node, int64_t now_us);
bool lease_is_any_taken(const struct backend_node *node);
void lease_fini_node(struct backend_node *node);

/* Leased connections of the process: taken, and waiting for their next client. */
unsigned lease_count_taken(void);
unsigned lease_count_idle(void);

#endif
