/*
 * pubsub.h - SUBSCRIBE and its kind for the clients of one worker; PUBLISH and PUBSUB
 *
 * Purpose:    a session's subscriptions, in Redis's words; messages from the hubs to the sessions.
 *             A subscription is confirmed to the client when the backend has confirmed it, so that
 *             nothing published from then on is missed.
 * Ownership:  the session owns its struct subscriber, the front the topics of its sessions.
 * Threading:  the worker.
 *
 * While the link to the backend is down messages are missed, as they are by any client of Redis
 * whose connection breaks; the subscription itself lasts.
 */
#ifndef NC_PROXY_PUBSUB_H
#define NC_PROXY_PUBSUB_H

#include "proxy/dispatch.h"
#include "proxy/topic.h"

struct hub_events;

extern const struct hub_events pubsub_hub_events;

/* The handler of (P|S)SUBSCRIBE and (P|S)UNSUBSCRIBE. */
enum verdict pubsub_dispatch(struct session *session, const struct dispatch_call *call);
/* PUBLISH, SPUBLISH, PUBSUB CHANNELS, NUMSUB, NUMPAT ... */
enum verdict pubsub_publish(struct session *session, const struct dispatch_call *call);
enum verdict pubsub_report(struct session *session, const struct dispatch_call *call);

/* In RESP2 a subscriber may send little else. True: the call was refused, or was its PING. */
bool pubsub_restricts(struct session *session, const struct dispatch_call *call);
/* The client left, or RESET. */
void pubsub_end(struct session *session);
/* For CLIENT INFO. */
unsigned pubsub_count(const struct session *session, enum topic_kind kind);
/* Subscriptions that wait too long for the backend. */
void pubsub_tick(struct front *front, int64_t now_us);

#endif
