/*
 * large.h - large replies: a connection to themselves, read as fast as their client reads
 *
 * Purpose:    nobody waits behind a large reply, and little of it is held here. A link on which one
 *             has begun is left to its client (backend.h); reads that were sent behind it are asked
 *             again over another link. What was sent behind it and may not be asked again decides:
 *             the large reply, if it is a read, is then asked again over a leased connection, and
 *             its link is read out at full speed.
 * Ownership:  as request.h.
 * Threading:  the session's worker.
 *
 * Where neither may be asked again (a script's large reply in front of others' writes) the link is
 * read at full speed, and client-output-limit bounds what a slow client may leave unread.
 */
#ifndef NC_PROXY_LARGE_H
#define NC_PROXY_LARGE_H

#include "proxy/request.h"

/* ---- which keys ---- */

/* This read of the key goes over a leased connection for a while. MGET follows GET. */
void large_note(struct front *front, const struct command *command, uint64_t hash);
bool large_is_noted(const struct front *front, const struct command *command, uint64_t hash,
                    int64_t now_us);

/* ---- one request ---- */

/* It goes over a connection of its own: what its client sends next waits for its answer. */
void large_set_apart(struct request *request);
/* So much of an array, map or set is collected before it is known to be large. */
size_t large_collect(const struct front *front);
/* True: behind such a request of its session on the same key, or not yet the first; it waits. */
bool large_must_wait(struct request *request);
/* Then: until it heads the queue; a part looks again in a moment. Its frame is stored. */
void large_wait(struct request *request);
/* It is a large request, or its reply is large: counted until it ends. */
void large_count(struct request *request, enum metric metric);
/* Pauses link, which nobody else needs, when the client is a stream-window behind. */
void large_hold(struct request *request, struct link *link);
/*
 * Its large reply has begun on a link, and nothing of it was passed on. True: nor will it be; the
 * request asks again over a connection of its own.
 */
bool large_give_way(struct request *request, struct link *link);
/* Nobody but the request's own session waits on the link. */
bool large_has_link(const struct request *request, struct link *link);
/* It is answered or abandoned. */
void large_end(struct request *request);
/* The link has nothing else to do than to bring the rest of this reply. */
bool large_is_alone(const struct request *request);

/* The client has read: goes on reading for it. */
void large_flow_on(struct session *session);
/*
 * Now and then, while its source is paused: a client that sends a long pipeline before it reads
 * would wait for ever. It gets a wider window, up to the soft output limit.
 */
void large_look_for_writer(struct session *session);

#endif
