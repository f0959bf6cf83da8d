/*
 * read.h - reads that tier 1 may answer
 *
 * Purpose:    hit, join, begin or relay one cacheable read, for a session or as a part of MGET and
 *             EXISTS; keep W3 (requests of one session on one key never overlap on two
 * connections). Ownership:  as request.h. Threading:  the session's worker.
 */
#ifndef NC_PROXY_READ_H
#define NC_PROXY_READ_H

#include "proxy/dispatch.h"
#include "proxy/request.h"

/* A cacheable read with its key as first argument. args: what follows the key, as on the wire. */
struct read_call {
    const struct command *command;
    const struct bytes *argv; /* NULL: the key alone */
    unsigned argc;
    struct bytes key, args;
    uint64_t hash;
};

/* Answers, queues or stalls. */
enum verdict read_dispatch(struct session *session, const struct dispatch_call *call);

/*
 * Tries tier 1 alone and copies the reply (in the session's protocol) to its output, so that the
 * caller may take it back; large values are copied too. False: no hit. Hits found this way count
 * when the caller settles them: as hits, or as if nothing had been looked up.
 */
bool read_try_hit(struct session *session, const struct read_call *read);
void read_settle_hits(struct front *front, bool do_count);
/* All hits since the last call took this long: a batch shares one reading of the clock. */
void read_observe_hits(struct front *front, int64_t took_us);

/* Counts a key of a split read that is no part of its own, if it is one: its namespace is not
 * cached (true), or it waits behind a relayed request of its session. */
bool read_note_apart(const struct session *session, const struct read_call *read, bool is_behind);
/* The key was refused: a limit, or memory pressure. */
void read_note_guard(const struct session *session, struct bytes key);
/* A part of a split read: hit, join or begin; false: relay it with its slot's other keys. */
bool read_part(struct group *group, struct session *session, const struct read_call *read,
               unsigned *part);

/* The retry list: looks a lost read up anew, or relays it. */
void read_again(struct request *request);

/* Its client has hung up: what leases of missing keys hold back is answered now. */
void read_hurry(struct session *session);

/* Keys of a stored frame, for the reply rule. */
NC_MUST_CHECK int read_store_keys_of_frame(struct request *request, struct bytes frame);

/*
 * The backend cannot be asked for this relayed request: answers it with what tier 1 held when it
 * was last heard, where the namespace allows that (stale-if-error). False: it is as it was.
 */
bool read_answer_stale(struct request *request, struct bytes frame);

#endif
