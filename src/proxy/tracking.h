/*
 * tracking.h - CLIENT TRACKING for clients of the proxy
 *
 * Purpose:    an application's own client-side cache stays coherent behind tier 1: whoever was
 *             shown a key, from tier 1 or from the backend, is told when it changes, and told to
 *             drop everything when that can no longer be promised.
 * Ownership:  a session owns its struct tracker, from CLIENT TRACKING ON to OFF; the front owns
 *             its struct tracking.
 * Threading:  the worker; tracking_announce() on any worker.
 * Errors:     a key whose changes nobody would hear of is called changed behind the reply that
 *             shows it, so that no client keeps it.
 *
 * Source: https://redis.io/docs/manual/client-side-caching/; the words are those of Redis 7.0.
 */
#ifndef NC_PROXY_TRACKING_H
#define NC_PROXY_TRACKING_H

#include "proxy/dispatch.h"

struct tracking;

struct tracking *tracking_new(struct front *front);
void tracking_free(struct tracking **tracking);

/* CLIENT TRACKING, TRACKINGINFO, CACHING, GETREDIR. */
enum verdict tracking_client(struct session *session, const struct dispatch_call *call);
enum verdict tracking_info(struct session *session, const struct dispatch_call *call);
enum verdict tracking_caching(struct session *session, const struct dispatch_call *call);
enum verdict tracking_getredir(struct session *session, const struct dispatch_call *call);
/* The client left, or RESET. */
void tracking_end(struct session *session);

/* A request of a session that tracks: what it is shown is remembered first. */
enum verdict tracking_dispatch(struct session *session, const struct dispatch_call *call);
/*
 * The request in hand is about to be relayed. True: it has to wait until the tracking links hear of
 * its keys. To be asked again when it is looked at again.
 */
bool tracking_must_wait(struct session *session, const struct bytes *argv,
                        const struct command_key_list *keys);
/* A request that tracking_wants() nothing of is passed on as it arrives (upload.h): before it is
 * queued. argc: all that it will have. */
void tracking_begin_upload(struct session *session, const struct dispatch_call *call);
/* It was relayed: its client may not keep these keys, unless the tracking links hear of them. */
void tracking_note_relayed(struct session *session, const struct bytes *argv,
                           const struct command_key_list *keys);
/* A cached read is relayed after all. */
void tracking_note_late(struct request *request, struct bytes key);
/* Commands queued in a transaction: does EXEC show keys to be remembered? */
bool tracking_wants(const struct session *session, const struct command *command);
/* The same two for EXEC and the keys that it shows, as in key_run.h. */
bool tracking_must_wait_for_exec(struct session *session, struct bytes keys);
void tracking_note_exec(struct session *session, struct bytes keys);
/* A request of a session that tracks was queued. */
void tracking_mark(struct request *request);
/* The first part of the reply to a write of a NOLOOP client. */
void tracking_take_own_write(struct request *request, struct bytes part);
/* A notice (request.h) has come to the head of its session's queue. */
void tracking_tell(struct session *session, const struct request *notice);

/*
 * For coherence_fleet.on_changed: keys in an array as it stood on the wire; empty: whatever was
 * read from a node may have changed.
 */
void tracking_announce(void *proxy, struct bytes keys);
/* The map gave slots to other nodes: nobody tells what changed meanwhile. */
void tracking_move(struct front *front);
void tracking_tick(struct front *front);

/* For CLIENT INFO: -1 when it does not track. */
int64_t tracking_redirection(const struct session *session);
bool tracking_is_on(const struct session *session);
bool tracking_is_broadcast(const struct session *session);
bool tracking_is_broken(const struct session *session);

/* Of the process: clients that track, and keys remembered for them. */
unsigned tracking_count_clients(void);
unsigned tracking_count_keys(void);

#endif
