/*
 * as_cluster.h - present-as = cluster: the proxy as a Redis Cluster of one node that owns all slots
 *
 * Purpose:    applications whose client library insists on cluster mode find what they ask for:
 *             CLUSTER SLOTS, SHARDS, NODES, INFO ... in the words of Redis 7.0, whatever stands
 *             behind. What would change the cluster is refused.
 * Ownership:  keeps nothing.
 * Threading:  the session's worker.
 * Errors:     Redis' own texts.
 *
 * The node's id is the process's run id. Its address is announce-address, else the one that the
 * client connected to.
 */
#ifndef NC_PROXY_AS_CLUSTER_H
#define NC_PROXY_AS_CLUSTER_H

#include "proxy/dispatch.h"

static inline bool as_cluster(const struct front *front)
{
    return front->config->present_as == PRESENT_AS_CLUSTER;
}

/* The CLUSTER command; as_cluster() holds. */
enum verdict as_cluster_dispatch(struct session *session, const struct dispatch_call *call);

/* True: the number is no database of a cluster, as an error said. */
bool as_cluster_refuses_select(struct session *session, const struct dispatch_call *call);
/* True: the command works on several databases, as an error said (SWAPDB, MOVE). */
bool as_cluster_refuses(struct session *session, const struct dispatch_call *call);

#endif
