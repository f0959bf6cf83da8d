/*
 * nodes.h - every node of the backend with its links, breaker and coherence, as JSON
 *
 * Purpose:    ask the workers, which own the links, and add up what they say of each node.
 * Ownership:  the JSON goes to who asked.
 * Threading:  the control thread; each worker is asked in a turn of its own.
 * Errors:     none: before there is a map there are no nodes.
 */
#ifndef NC_ADMIN_NODES_H
#define NC_ADMIN_NODES_H

#include "proxy/front.h"

#include <jansson.h>

/* nodes: taken; an array in the order of the map. */
typedef void (*nodes_ready_fn)(json_t *nodes, void *context);

/* Calls ready in a later turn. */
void nodes_gather(struct proxy *proxy, nodes_ready_fn ready, void *context);

#endif
