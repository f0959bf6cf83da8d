/*
 * discovery.h - the control thread's watch over the backend: is it a cluster, who owns what
 *
 * Purpose:    find a node that answers among seeds and known nodes, recognise a cluster by asking
 *             (INFO: redis_mode, cluster_enabled), read its map (CLUSTER SLOTS, CLUSTER INFO of
 *             every master) every topology-interval and on request, resolve names (evdns), learn
 *             the server's command table, and publish a snapshot whenever something differs.
 * Ownership:  owns its connections; published snapshots are referenced by the receiver.
 * Threading:  the control thread only.
 * Errors:     none are returned: a backend that is away is tried for ever, with backoff and jitter,
 *             seeds and known nodes in turn; discovery_is_reachable() and last_error tell.
 */
#ifndef NC_UPSTREAM_DISCOVERY_H
#define NC_UPSTREAM_DISCOVERY_H

#include "config/config.h"
#include "upstream/topology.h"

#include <event2/event.h>

struct discovery; /* opaque */

/* topology is borrowed for the call; ref it to keep it. Called first when the first map is known.
 */
typedef void (*discovery_on_change_fn)(struct topology *topology, void *context);

struct discovery *discovery_new(struct event_base *base, const struct config *config,
                                discovery_on_change_fn on_change, void *context);
/*
 * Not from within on_change(). A DNS look-up that is under way ends in the next turns of the event
 * base; nothing else is left behind.
 */
void discovery_free(struct discovery **discovery);
/* A reload: takes the new timeouts and intervals. */
void discovery_configure(struct discovery *discovery, const struct config *config);

/* A redirection or a lost link asks for a fresh map: read at once, at most every 50 ms. */
void discovery_refresh(struct discovery *discovery);
/*
 * A node answered, in the time of the last three polls, what the map needs. Nodes are polled every
 * topology-interval, every max-staleness or every second, whichever is shortest.
 */
bool discovery_is_reachable(const struct discovery *discovery);
/* Why not: "127.0.0.1:7000: Connection refused"; empty while reachable. Never a secret. */
const char *discovery_last_error(const struct discovery *discovery);

#endif
