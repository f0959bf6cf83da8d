/*
 * session.h - one client connection
 *
 * Purpose:    read requests, keep replies in the order of their requests, write them, keep the
 *             client's state and limits.
 * Ownership:  the session belongs to its worker's front; it owns its unanswered requests, which
 *             outlive it when the backend still owes them a reply (they are orphaned then).
 * Threading:  its worker only.
 * Errors:     whatever goes wrong here costs this connection only.
 */
#ifndef NC_PROXY_SESSION_H
#define NC_PROXY_SESSION_H

#include "base/outq.h"
#include "proxy/front.h"

#include <event2/event_struct.h>

enum session_reply_mode { REPLY_ON, REPLY_OFF, REPLY_SKIP_NEXT, REPLY_SKIP_THIS };

struct identity;
struct login;
struct monitor;
struct subscriber;
struct tracker;
struct transaction;
struct upload;

struct session {
    uint32_t magic;
    struct front *front;
    struct session *next, *prev; /* of the front's sessions */
    uint64_t id;

    struct stream stream;
    struct event read_event, write_event;
    bool is_reading; /* read_event is added */
    struct deferred turn_end;

    struct buffer in;           /* input not yet taken; empty between requests */
    struct resp_reader *reader; /* NULL: the front's spare one serves */
    struct outq out;

    struct request *first, *last; /* unanswered or unreleased, in order */
    unsigned n_requests;
    unsigned n_apart;  /* of them over a connection of their own: what follows waits */
    size_t held_bytes; /* of replies that wait behind an unanswered request */

    /* W3: unanswered requests by kind; a bit per key hash, cleared when none is left. */
    unsigned n_cached, n_relayed;
    uint64_t cached_mask, relayed_mask;

    struct identity *identity; /* who it logged in as at the backend; NULL: nobody */
    struct login *login;       /* a login that is being checked; NULL: none */
    uint8_t proto;             /* 2 or 3 */
    uint8_t reply_mode;        /* enum session_reply_mode */
    bool wants_attributes;     /* CACHE ATTRIBUTES: what is stale says so, in RESP3 */
    bool is_authed, may_change_cache, is_closing, is_eof, is_stalled, is_closed, is_no_evict;
    bool is_blocked;     /* the socket takes no more: write_event is added */
    bool is_suspended;   /* what follows waits for the answer in hand: SELECT, EXEC, BLPOP */
    bool is_paused;      /* suspended by CLIENT PAUSE */
    bool is_leaving;     /* suspended, as it goes to the successor once it is served: handover.h */
    int64_t leaving_us;  /* since when; if it is not leaving: not again before. handover.h */
    uint32_t adopted_in; /* suspended until its batch's fence is passed; 0: not. handover.h */
    bool is_writing;     /* it does not read its large reply since it is busy sending: large.h */
    bool is_unix;
    uint32_t db;
    uint32_t scope; /* of its entries in tier 1: session_set_db() */
    char *name;     /* NULL: none */
    const struct command *last_command;
    uint64_t n_commands;
    int64_t opened_at_us, active_at_us, above_soft_since_us;
    struct endpoint peer, local;
    struct event *gone_event;        /* while it blocks: tells that the client has gone */
    struct subscriber *subscriber;   /* NULL: it is subscribed to nothing */
    struct monitor *monitor;         /* NULL: it is none */
    struct tracker *tracker;         /* NULL: CLIENT TRACKING is off */
    bool is_target;                  /* others redirect their invalidations to it */
    struct outq pushes;              /* that wait for the end of a reply */
    struct miss_client *misses;      /* it reads where missing keys have leases; else NULL */
    struct upload *upload;           /* the request that is passed on as it arrives; NULL: none */
    struct transaction *transaction; /* NULL: none; from MULTI or WATCH until it ends */
};

/* Takes the descriptor. tls: NULL unless it speaks TLS. Runs on the front's worker. */
void session_open(struct front *front, int fd, bool is_unix, struct tls_context *tls, uint64_t id);
/* At once; requests under way are orphaned. The struct goes at the end of the turn. */
void session_close(struct session *session);
/* Counted and logged: there is no memory for what it sent, or for its reply. */
void session_close_for_memory(struct session *session);
/* As it was on connecting: logged in where no password is asked for, and then it stays so. */
void session_log_out(struct session *session);
void session_set_db(struct session *session, uint32_t db);
/* NULL: the proxy's own login. */
void session_set_identity(struct session *session, struct identity *identity);
/* As ACL WHOAMI says. */
const char *session_user(const struct session *session);
/* When everything owed has been written. */
void session_close_after_reply(struct session *session);

/* Something became ready: write and look at waiting input at the end of this turn. */
void session_wake(struct session *session);
/*
 * What the client sends next waits until session_resume(). is_blocking: its hanging up is noticed
 * at once meanwhile, as Redis does: what blocks for it must not take an item for nobody.
 */
void session_suspend(struct session *session, bool is_blocking);
void session_resume(struct session *session);
/* Checks the output limits after replies were added. False: the session was closed. */
bool session_check_output(struct session *session);

/*
 * A reply that the proxy words itself: begin, compose with the writer, end. It takes its place
 * behind unanswered requests.
 */
struct resp_writer session_begin_reply(struct session *session);
void session_end_reply(struct session *session, struct resp_writer *writer);
void session_error(struct session *session, const char *format, ...) NC_PRINTF(2, 3);

/*
 * A message out of order, a push in RESP3's form (RESP2 has an array in its place) or a line. It
 * leaves between replies, never within one that is being streamed. False: the session was closed
 * over it.
 */
bool session_push(struct session *session, struct bytes frame);
/* Messages that waited for a reply to end. */
void session_release_pushes(struct session *session);

/* A request is taken: CLIENT REPLY SKIP silences the one that follows it. */
void session_step_reply_mode(struct session *session);
/* True when replies of the command in hand are suppressed (CLIENT REPLY OFF | SKIP). */
bool session_is_muted(const struct session *session);

/* What Redis' CLIENT INFO says, without a line break. */
void session_describe(const struct session *session, struct buffer *out);

#endif
