/*
 * relay.h - requests that go to the backend as they are
 *
 * Purpose:    send a request on a relay link of the client's protocol version, follow redirections,
 *             apply the reply rule before a byte of the reply leaves, withhold opaque replies until
 *             their fence is passed.
 * Ownership:  the request stays its session's or group's; it is answered exactly once.
 * Threading:  the request's worker.
 */
#ifndef NC_PROXY_RELAY_H
#define NC_PROXY_RELAY_H

#include "proxy/request.h"

/* Sends frame (a whole multibulk request) to node; NULL: nobody owns the slot, an error is the
 * reply. */
/* Why nothing is sent to a node whose breaker is open. */
void relay_refusal(const struct backend_node *node, char *text, size_t size);
void relay_send(struct request *request, struct backend_node *node, struct bytes frame);

/* Remembers the keys that the reply must drop. -ENOMEM. */
NC_MUST_CHECK int relay_store_keys(struct request *request, const struct bytes *argv,
                                   const struct command_key_list *keys);

/* The reply rule: every key that was stored leaves tier 1. */
void relay_drop_keys(struct request *request);
/*
 * A large reply has begun: what the command did is done, so its fence can be sent now, and the
 * reply need not be held here to its end.
 */
void relay_fence_early(struct request *request);
/* A reply that came whole: done once its fence, if it needs one, is passed. */
void relay_complete(struct request *request);
/* The connection broke: drops its keys, and words the error that is the reply. */
void relay_lost(struct request *request, const struct link *link, enum link_loss loss);
/* MOVED, ASK, TRYAGAIN, CLUSTERDOWN and LOADING: what a cluster says instead of answering. */
bool relay_is_redirection(struct bytes line);
/* It may be asked twice: nothing but its reply comes of it. */
bool relay_is_plain_read(const struct request *request);
/* Its frame as it stands in the link's output, without what may go before it; empty: not kept. */
struct bytes relay_frame(const struct request *request, const struct link *link);
/* The request that was sent with this operation by relay_send(); NULL: it is of another kind. */
struct request *relay_request_of(struct link_op *op);
/* The node that MOVED or ASK names; NULL: not in the map. */
struct backend_node *relay_named_node(struct request *request, struct bytes line,
                                      struct backend_node *from);
/* Something is not where the map says: have it read. */
void relay_ask_for_map(struct front *front);

/* Looks at the request again in a moment; request->again says how. FIFO for the whole worker. */
void relay_retry(struct request *request);

/* The retry list's timer; see front.c. */
void relay_on_retry_timer(evutil_socket_t fd, short what, void *arg);

#endif
