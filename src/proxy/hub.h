/*
 * hub.h - the backend's side of publish/subscribe: one subscription per channel for all clients
 *
 * Purpose:    a user's channels have a home worker, whose hub is subscribed to them at the backend,
 *             on a link of its own per node, and hands every message to the workers that have
 *             subscribers, in the order in which it came. Lost links are connected again, and all
 * is subscribed anew. Ownership:  a front owns its hub, the hub its links. Messages are shared and
 * counted. Threading:  hub_join() and hub_leave() from any worker, everything else on the hub's
 * own. Errors:     a subscription that the backend refuses is told to those who joined; one that
 * waits for a node is tried for as long as somebody wants it.
 *
 * On a cluster a channel is subscribed at the owner of its slot, so that PUBLISH there counts it; a
 * pattern at the first master, as messages reach all nodes. Only keyspace events stay on
 * their node: a name or pattern that may mean them is subscribed on every master.
 */
#ifndef NC_PROXY_HUB_H
#define NC_PROXY_HUB_H

#include "proxy/front.h"
#include "proxy/topic.h"

struct hub; /* opaque */
struct identity;

/* A message on its way to the workers: a frame in RESP3, whose first byte RESP2 replaces. */
struct hub_message {
    _Atomic unsigned n_refs;
    size_t len;
    unsigned char frame[];
};

void hub_message_unref(struct hub_message *message);

/* Told on the worker that joined. */
struct hub_events {
    /* error: empty when the backend has confirmed; else its words, and the join is over. */
    void (*on_joined)(struct front *front, const struct topic_key *key, uint64_t serial,
                      struct bytes error);
    void (*on_message)(struct front *front, const struct topic_key *key,
                       const struct hub_message *message);
};

struct hub *hub_new(struct front *front, const struct hub_events *events);
void hub_free(struct hub **hub);
/* A worker has its first subscriber. serial tells its joins of one name apart. */
void hub_join(struct front *from, const struct topic_key *key, const struct identity *identity,
              uint64_t serial);
/* It has lost its last one. */
void hub_leave(struct front *from, const struct topic_key *key, uint64_t serial);
/* The map has changed. */
void hub_move(struct hub *hub);
/* Timeouts, reconnecting: now and then. */
void hub_tick(struct hub *hub, int64_t now_us);

#endif
