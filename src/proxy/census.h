/*
 * census.h - who is subscribed to what in this process, and where the hubs are subscribed for them
 *
 * Purpose:    PUBLISH and PUBSUB count clients. The backend counts each shared subscription once:
 *             the census says what to take away and what to add.
 * Ownership:  process-wide.
 * Threading:  any thread; one lock, never held across I/O. Subscriptions are no hot path.
 */
#ifndef NC_PROXY_CENSUS_H
#define NC_PROXY_CENSUS_H

#include "cache/epochs.h"
#include "proxy/topic.h"

/* A session more (1) or less (-1). */
void census_count(const struct topic_key *key, int change);
/* A hub's subscription at this node was confirmed, or is no more. */
void census_set_active(const struct topic_key *key, epochs_node node, bool is_active);

/* Clients of the proxy that get a message of this channel, over all users. */
unsigned census_receivers(enum topic_kind kind, struct bytes channel);
/* The hubs' subscriptions at this node that get it; patterns included if wanted. */
unsigned census_own(enum topic_kind kind, struct bytes channel, epochs_node node,
                    bool with_patterns);
/* Clients subscribed to just this name. */
unsigned census_sessions(enum topic_kind kind, struct bytes name);
/* Subscriptions of clients, of all kinds. */
unsigned census_total(void);

#endif
