/*
 * request.h - one request that could not be answered at once
 *
 * Purpose:    hold a request's place in its session's order while a flight, a relay link, a fence
 * or its parts (a group) produce the reply. Ownership:  owned by its session, or by its group when
 * it is a part; orphans own themselves until what they wait for has come. request_done() ends it.
 * Threading:  its worker only.
 */
#ifndef NC_PROXY_REQUEST_H
#define NC_PROXY_REQUEST_H

#include "base/outq.h"
#include "proxy/session.h"

struct group;
struct shadow;

#define REQUEST_BRIEF_MAX 224u

/* As what it is counted when it is done; see account.h. */
enum request_outcome {
    OUTCOME_OF_KIND, /* cached: a miss; else relayed */
    OUTCOME_HIT,     /* all its keys were, while it waited for what is before it */
    OUTCOME_STALE,
    OUTCOME_MISS,
    OUTCOME_BYPASS /* a read of a namespace that is not cached */
};

enum request_kind { REQUEST_LOCAL, REQUEST_CACHED, REQUEST_RELAYED, REQUEST_GROUP };

/* Look the read up anew, read it uncached, or send it again to whoever owns its slot. */
enum request_again { AGAIN_LOOKUP, AGAIN_RELAY, AGAIN_RESEND };

/* Spoilt: without a limit of time, and closed behind the reply. */
enum lease_use { LEASE_NONE, LEASE_TIMED, LEASE_UNTIMED, LEASE_SPOILT };

struct request {
    uint32_t magic;
    struct request *next;       /* of the session's queue or of the spare list */
    struct request *next_retry; /* of the front's retry list */
    struct front *front;
    struct session *session;         /* NULL: an orphan, or a part (then group has the owner) */
    const struct identity *identity; /* whose links it goes on; NULL: the proxy's own */
    struct group *group; /* the parts it waits for (REQUEST_GROUP), or that it is one of */
    const struct command *command;
    struct link_op op;
    struct coherence_waiter waiter;
    struct outq reply;     /* what cannot leave yet */
    struct shadow *shadow; /* what its reply is compared with; NULL: nothing. See dry.h */

    uint64_t key_hash, key_mask; /* W3: of its key; of all its keys */
    int64_t began_at_us, retry_at_us;
    size_t held_bytes;
    uint32_t db;
    uint16_t slot;
    epochs_node node; /* where it was relayed to */
    uint8_t kind;     /* enum request_kind */
    uint8_t proto;
    uint8_t ns;
    uint8_t n_redirects;
    bool is_done, is_muted, is_part, has_one_key;
    bool is_held; /* a fence: nothing leaves before it is passed */
    bool needs_fence, drops_all;
    bool is_fencing;   /* a fence was sent at the beginning of its reply, and is not passed */
    bool is_answered;  /* done when that fence is passed */
    bool is_paced;     /* asking again is subject to retry-budget */
    bool is_waiting;   /* the next retry is not so soon: the node said "not now" */
    bool is_asking;    /* ASKING goes before it */
    bool must_repeat;  /* its reply may be older than a retried write's: ask again */
    bool is_skipping;  /* a part whose reply grew too large: the rest is discarded */
    bool is_streaming; /* some of its reply has gone on: no error can take its place any more */
    bool counts_cached, counts_relayed; /* in its session's n_cached, n_relayed */
    uint8_t lease_use;                  /* enum lease_use: goes over a connection of its own? */
    bool is_blocking;                   /* its client waits in it, and may be unblocked */
    bool is_notice;           /* no request: tells of keys, those stored, when its turn comes */
    bool is_tracked;          /* shows keys to a client that may keep them: tracking.h */
    bool is_own_write;        /* of a NOLOOP client */
    bool suspends;            /* what its client sends next waits for the answer */
    bool has_ping;            /* PING goes before it */
    uint8_t step;             /* of a transaction; see transaction.c */
    uint16_t n_before;        /* replies that come before the client's */
    struct lease *lease;      /* while it needs one and is under way */
    struct link *on_link;     /* where it was sent last; for comparison */
    struct link *paused_link; /* not read, as its client is slow; see large.h */
    bool is_dry;              /* tier 1 would have answered it: its reply drops nothing */
    bool counts_apart;        /* in its session's n_apart */
    bool counts_large;        /* in the proxy's n_large */
    uint8_t outcome;          /* enum request_outcome */
    bool has_reply;           /* some of it was taken */
    bool awaits_turn;         /* goes to the retry list when it heads the queue */
    uint8_t again;            /* enum request_again: what the retry list does with it */
    uint8_t downgrade;        /* enum resp_downgrade of a cached read's reply */
    uint32_t config_serial;   /* of the configuration it was dispatched under */
    struct permit permit;     /* what it holds of max-concurrency; see limits.h */

    /* Keys for the reply rule (length and bytes of each), or the request's frame while it may be
     * asked again. Behind the keys the frame of a read that may be asked again elsewhere. */
    unsigned char *stored; /* points at few, or at heap memory */
    size_t stored_bytes, frame_bytes;
    /* How it began, for the slow log; 0 bytes: not known. */
    uint32_t frame_brief_bytes;
    uint8_t n_brief;
    unsigned char few[96];
    unsigned char brief[REQUEST_BRIEF_MAX];
};

/* Remembers how its frame begins. */
static inline void request_brief(struct request *request, struct bytes frame)
{
    const size_t n = frame.len < REQUEST_BRIEF_MAX ? frame.len : REQUEST_BRIEF_MAX;

    memcpy(request->brief, frame.ptr, n);
    request->n_brief = (uint8_t)n;
    request->frame_brief_bytes = frame.len < UINT32_MAX ? (uint32_t)frame.len : UINT32_MAX;
}

/* From the front's spare list. The caller queues it or makes it a part. */
struct request *request_new(struct front *front, enum request_kind kind,
                            const struct command *command);
/* A new request at the end of its session's queue. */
struct request *request_queue(struct session *session, enum request_kind kind,
                              const struct command *command);
/* A place right behind a request of the queue, for a notice. */
struct request *request_queue_behind(struct request *before);
/* The request queued last goes again: it was answered after all. */
void request_unqueue(struct request *request);

/* Remembers bytes with the request; -ENOMEM. */
NC_MUST_CHECK int request_store(struct request *request, struct bytes bytes);

/* Remembers the frame behind the keys; where there is no memory for it, it is not remembered. */
void request_keep_frame(struct request *request, struct bytes frame);

/* The request of the session's queue that this one is, or is a part of. */
struct request *request_in_queue(const struct request *request);

/* W3 bookkeeping: it is now an unanswered cached read, or relayed request, or both, of its session.
 */
void request_count(struct request *request, bool as_cached, bool as_relayed);

/* Part of the reply, in the client's protocol version. */
void request_take_part(struct request *request, struct bytes part);
void request_done(struct request *request);
/* An error as the whole reply; then done. */
void request_fail(struct request *request, const char *format, ...) NC_PRINTF(2, 3);

/* Releases what heads the queue and is ready into the session's output. */
void session_advance(struct session *session);
/* The client is gone: the request lives on until it is answered. */
void request_orphan(struct request *request);
/* Its client left, and nobody works on it any more: counted, if it was not, and freed. */
void request_drop(struct request *request);
void request_free(struct request *request);
void front_free_spare_requests(struct front *front);

#endif
