/*
 * link.h - one pipelined connection of one worker to one backend node
 *
 * Purpose:    requests of a loop turn leave in one write at its end; replies come back to their
 *             operations in order. Tracking links also deliver invalidations, in order with the
 *             replies, which is what coherence rests on.
 * Ownership:  the link is owned by its worker's backend (backend.h). Operations are embedded in the
 *             caller's structs; the link holds them from link_send() until their last callback.
 * Threading:  its worker only.
 * Errors:     link_send() answers -ENOTCONN (down: see link_error()), -ENOBUFS (more than
 *             link-output-limit is waiting) or -ENOMEM, and then takes nothing. What was taken is
 *             answered exactly once per reply, or lost exactly once.
 * Units:      bytes; instants in clock_now_us().
 *
 * Life: idle -> connecting -> greeting (HELLO or AUTH, CLIENT TRACKING) -> up -> down (pause) ->
 * ... Requests may be queued while the link connects; none leaves before the greeting was accepted.
 */
#ifndef NC_UPSTREAM_LINK_H
#define NC_UPSTREAM_LINK_H

#include "base/buffer.h"
#include "base/stream.h"
#include "base/worker.h"
#include "config/backend_url.h"
#include "config/config.h"
#include "resp/resp.h"
#include "upstream/health.h"
#include "upstream/topology.h"

enum link_kind { LINK_RELAY2, LINK_RELAY3, LINK_TRACKING, N_LINK_KINDS };

enum link_state { LINK_IDLE, LINK_CONNECTING, LINK_GREETING, LINK_UP, LINK_DOWN };

/* Unsent: certainly not executed. Sent: may have been executed. */
enum link_loss { LINK_LOST_UNSENT, LINK_LOST_SENT, LINK_LOST_TIMEOUT };

/* An error line never comes in parts. */
#define LINK_COLLECT_MIN ((size_t)1024)

struct gate;
struct link;
struct link_op;

struct link_op_type {
    /*
     * Part of reply number `index` (0 .. n_replies - 1). Replies of up to op->collect bytes come
     * whole (is_first and is_last); larger ones in parts. When is_last is true for the last index
     * the link has let go of op.
     */
    void (*on_reply)(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                     bool is_first, bool is_last);
    void (*on_lost)(struct link_op *op, struct link *link, enum link_loss loss);
};

struct link_op {
    struct link_op *next;
    const struct link_op_type *type;
    size_t collect;      /* set by the owner, at least LINK_COLLECT_MIN: errors come whole */
    size_t collect_many; /* instead, for arrays, maps and sets: their size is not known before */
    uint64_t begin, end; /* its bytes in the link's output, counted since the link was made */
    int64_t sent_at_us;  /* when it was queued: never later than when it was sent */
    uint16_t n_replies, n_seen;
};

/* What the owner hears of a link; tracking links have all of them, relay links none. */
struct link_events {
    void (*on_up)(struct link *link);
    void (*on_down)(struct link *link); /* before the operations in flight are lost */
    /* One whole push message. False: its shape is unknown, the link is closed. */
    bool (*on_push)(struct link *link, struct bytes frame);
    /* A whole reply that no operation waits for; NULL: it closes the link. False: likewise. */
    bool (*on_unasked)(struct link *link, struct bytes frame);
};

struct link_settings {
    int64_t connect_timeout_ms, idle_timeout_ms;
    int64_t request_timeout_ms; /* 0: none */
    int64_t reconnect_min_ms, reconnect_max_ms;
    size_t output_limit;
    struct health *health;          /* of the node; NULL: nobody judges it */
    bool is_judge;                  /* what befalls the link is news of the node */
    struct tls_context *const *tls; /* NULL: plain. What it points to follows reloads */
    bool wants_tracking;            /* tracking links: send CLIENT TRACKING ON */
    bool is_broadcast;              /* the same with BCAST, and these prefixes; none: every key */
    const struct bytes *prefixes;   /* the owner's */
    unsigned n_prefixes;
    bool is_quiet;       /* its coming and going is no news: a login that is being checked */
    bool is_leased;      /* one client's own (lease.h): its number at the backend is asked for */
    bool reads_replica;  /* of a cluster: READONLY */
    bool keeps_requests; /* a cluster: requests may have to be sent again elsewhere */
};

struct link {
    uint32_t magic;
    enum link_kind kind;
    enum link_state state;
    struct worker *worker;
    const struct config_backend *login; /* user and password; lives as long as the process */
    struct link_settings settings;
    const struct link_events *events; /* NULL: none */
    void *owner;
    struct endpoint endpoint;
    char *host;     /* as the node is called; for TLS, else NULL */
    char name[300]; /* for logs and error texts */

    struct stream stream;
    struct event *read_event, *write_event;
    struct deferred flush;

    struct buffer out;    /* requests; kept until answered when settings.keeps_requests */
    uint64_t out_base;    /* position of the first byte in out */
    uint64_t out_sent;    /* position up to which bytes were written */
    uint64_t out_allowed; /* while not up: nothing behind it may be written yet */
    uint64_t out_held;    /* the first SELECT ends here, and is not answered yet; 0: none */

    struct buffer in;
    size_t in_seen; /* bytes of in that the framer has seen */
    struct resp_framer framer;
    bool is_streaming; /* the reply in hand is handed on in parts */
    bool is_paused;    /* link_pause() */
    bool is_left;      /* a large reply has begun on it: backend_relay_link() picks another one */

    /* A request that is passed on as it arrives: link_begin_fill(). */
    bool is_filling;                       /* it has not been written to its end */
    bool is_filled;                        /* all of it is in out */
    void (*on_drained)(struct link *link); /* while filling: little of it is unsent by now */

    struct link_op *first_op, *last_op;
    unsigned n_ops;
    uint32_t db;         /* where the connection stands behind all queued requests */
    uint8_t greeting[6]; /* steps whose replies are still to come, in order */
    uint8_t n_greeting, n_greeted;
    bool may_select;       /* a SELECT was accepted */
    bool is_losing;        /* operations are being told; nothing can be queued */
    bool multi_refused;    /* leased: MULTI was not accepted */
    bool needs_multi;      /* leased: useless without */
    bool is_resp2;         /* a tracking link to a server without HELLO: RESP2 and no tracking */
    bool tracking_asked;   /* CLIENT TRACKING was part of its greeting */
    bool tracking_refused; /* up, but CLIENT TRACKING was not accepted */

    uint64_t n_answered;  /* operations, since health was last told */
    unsigned n_abandoned; /* operations whose replies nobody waits for any more */
    bool is_closing;      /* by its owner: no news of the node */
    struct gate *gate;    /* while it connects; NULL: else */
    bool is_at_gate;      /* too many connect to the node already: not begun yet */

    int64_t client_id; /* leased: the connection's number at the backend, 0 while unknown */
    int64_t down_at_us;
    int64_t connect_began_us, retry_at_us, last_used_us, last_progress_us;
    unsigned n_failures; /* in a row */
    char error[256];     /* why it is down */
};

void link_init(struct link *link, enum link_kind kind, struct worker *worker,
               const struct topology_node *node, const struct config_backend *login,
               const struct link_settings *settings);
/* Closes; operations in flight are lost first. */
void link_fini(struct link *link);
/* The node's name was resolved anew: used by the next connect. */
void link_set_endpoint(struct link *link, const struct endpoint *endpoint);

/*
 * Queues one request of n_replies replies, given in parts, for database db (a SELECT goes first
 * where the link stands in another). Connects when idle or when the pause is over.
 */
NC_MUST_CHECK int link_send(struct link *link, uint32_t db, const struct bytes *parts,
                            unsigned n_parts, unsigned n_replies, struct link_op *op);
/*
 * Queues a request whose answers are pushes: no operation waits for it. For links that keep no
 * requests; -ENOTCONN unless it is up.
 */
NC_MUST_CHECK int link_say(struct link *link, struct bytes frame);
/* The request as it was queued; valid in on_reply and, for requests kept, on_lost. */
struct bytes link_op_bytes(const struct link *link, const struct link_op *op);

/* ---- large requests and replies, link_flow.c ---- */

/* Nothing more is read, and no timeout runs, until link_resume(). Not for tracking links. */
void link_pause(struct link *link);
void link_resume(struct link *link);
/* What is still to come for op comes to `by`, which is set up like op; valid in on_reply, not for
 * a last part. */
void link_replace_op(struct link *link, struct link_op *op, struct link_op *by);
/* Nobody waits for op's reply any more: the link lets go of it and drops what comes. */
void link_abandon(struct link *link, struct link_op *op);
/* An operation of the link's own, or one that was abandoned. */
bool link_owns(const struct link_op *op);
/* Another request than op's is unanswered on it. */
bool link_has_others(const struct link *link, const struct link_op *op);

/*
 * As link_send(), for a request of which only the beginning is here: link_fill() adds to it,
 * link_end_fill() says that it is whole. The reply may come earlier: then it is none. Meanwhile
 * nothing else can be sent; for links that keep no requests. request_timeout counts while bytes
 * wait to be written, and from the end on.
 */
NC_MUST_CHECK int link_begin_fill(struct link *link, uint32_t db, const struct bytes *parts,
                                  unsigned n_parts, unsigned n_replies, struct link_op *op);
NC_MUST_CHECK int link_fill(struct link *link, struct bytes bytes);
void link_end_fill(struct link *link);
/* Bytes in out that were not written yet. */
size_t link_unsent(const struct link *link);
/* Nothing may be queued on it. */
void link_keep_requests(struct link *link, bool on);
/* For link.c: bytes of out have been written. */
void link_note_written(struct link *link);

static inline bool link_is_up(const struct link *link)
{
    return link->state == LINK_UP;
}

/* Begins to connect when idle or when the pause is over. */
void link_wake(struct link *link);
/* Closes with a reason that operators read; reconnects after the usual pause. */
void link_close(struct link *link, const char *reason);
/* Leased: from now on it does not come up where MULTI is refused. False: it was refused already. */
NC_MUST_CHECK bool link_require_multi(struct link *link);
/* Closes without a word: its user has no more need of it. Stays idle until it is sent on again. */
void link_shut(struct link *link);
/* Timeouts, idle closing, reconnecting of tracking links: every few milliseconds. */
void link_tick(struct link *link, int64_t now_us);

const char *link_kind_name(enum link_kind kind);

#endif
