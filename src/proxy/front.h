/*
 * front.h - what the proxy floor keeps per process (struct proxy) and per worker (struct front)
 *
 * Purpose:    the state that sessions of one worker share: its links, its coherence, the
 *             configuration in force, spare readers and requests.
 * Ownership:  main.c makes one proxy; it owns its fronts.
 * Threading:  a front belongs to its worker; the proxy's fields name their guard.
 */
#ifndef NC_PROXY_FRONT_H
#define NC_PROXY_FRONT_H

#include "base/stats.h"
#include "base/worker.h"
#include "coherence/coherence.h"
#include "config/config.h"
#include "proxy/lag.h"
#include "proxy/limits.h"
#include "proxy/topic.h"
#include "resp/command.h"
#include "resp/writer.h"
#include "upstream/backend.h"

struct broadcast;
struct config_change;
struct history;
struct hub;
struct overload;
struct subscriber;
struct session;
struct tracking;
struct request;
struct shadow;
struct proxy;

/* What CLIENT PAUSE holds back, of all clients; see pause.h. */
enum pause_mode { PAUSE_NONE, PAUSE_WRITE, PAUSE_ALL };

struct pause {
    enum pause_mode mode;
    int64_t until_us;
    struct event *event;
};

/* Answers CACHE for the admin floor: composes the reply, or keeps the request and answers later. */
typedef void (*proxy_cache_fn)(struct session *session, const struct bytes *argv, unsigned argc,
                               struct resp_writer *reply);
/* Appends the lines of the "# Nearcached" section of INFO. */
typedef void (*proxy_info_fn)(struct proxy *proxy, struct resp_writer *text);

/* Hits of a multi-key read that is not yet known to be answered from tier 1 as a whole. */
struct front_tally {
    uint32_t n_hits[STATS_NAMESPACES], n_negative[STATS_NAMESPACES];
    uint64_t n_bytes[STATS_NAMESPACES];
    uint8_t touched[STATS_NAMESPACES];
    unsigned n_touched;
};

/*
 * Hits since their time was last observed: one byte is stored per hit, and what it comes to is
 * found out once per batch.
 */
struct front_hits {
    union {
        uint8_t of_ns[256]; /* 1: there were some */
        uint64_t words[32];
    };
    unsigned n_words;                      /* those that namespaces have */
    uint64_t n_observed[STATS_NAMESPACES]; /* of this worker's count */
    int64_t n_parts[STATS_NAMESPACES];     /* of those since: not requests by themselves */
};

/* See sample.h. Hits; 0 is never. */
struct front_sample {
    uint64_t left, step;           /* until the next one; what that was at first */
    uint64_t audit_left, hot_left; /* behind the last one: until each of the two wants one */
};

/* A dry run; see dry.h. */
struct front_dry {
    unsigned n_fetches; /* that nobody waits for */
    /* While a read is dispatched: how its request is to be marked. */
    bool is_next;
    struct shadow *shadow;
};

/* Keys whose replies were large not long ago: their reads go over a connection of their own. */
#define LARGE_NOTES 256
struct large_note {
    uint64_t hash;
    int64_t until_us;
};

struct front {
    uint32_t magic;
    struct proxy *proxy;
    struct worker worker;
    struct backend backend;
    struct coherence coherence;
    struct config *config;  /* the snapshot in force here */
    uint32_t config_serial; /* how often the namespaces' policies changed */

    struct session *sessions; /* newest first */
    unsigned n_sessions;
    unsigned n_unwritten;    /* sessions whose replies wait for the end of the turn */
    unsigned guard;          /* GUARD_*: what tier 1 does not answer has to be asked; overload.h */
    bool is_tight, is_short; /* tier 1 shrinks; clients are closed */
    unsigned pipeline_least; /* unanswered requests of a client that are always permitted */
    struct permit permit;    /* of what was admitted last, until a request has it */
    struct front_tally tally;
    uint64_t n_hits; /* reads answered from tier 1 here */
    struct front_hits hits;
    struct front_sample sample;
    /* max-staleness; in a dry run so low that tier 1 answers nothing: see dry.h. */
    int64_t max_staleness_us;
    struct front_dry dry;
    struct resp_reader *spare_reader;
    struct request *spare_requests;
    unsigned n_spare_requests;
    struct resp_reader *again_reader; /* for frames that are looked at once more */
    struct buffer scratch;            /* a local reply while it is composed */
    struct buffer answer;             /* a reply while it is put into RESP2 */

    struct request *first_retry, *last_retry; /* redirected requests that wait a moment */
    struct event *retry_event;
    int64_t retry_tokens, retry_filled_at_us; /* retry-budget; relay.c */
    struct pause pause;                       /* CLIENT PAUSE */
    bool is_restricted;                       /* some mode refuses something: see mode.h */
    struct event *idle_event;
    struct lag lag;
    struct hub *hub;           /* of the users whose home is here */
    struct topic_table topics; /* that sessions here are subscribed to */
    struct subscriber *waiting_subscribers;
    uint64_t topic_serial;
    struct tracking *tracking; /* clients with a cache of their own */
    struct broadcast *broadcasts;
    _Atomic unsigned n_trackers; /* atomic: of those clients; written by the worker */
    unsigned n_handshakes;       /* TLS handshakes that this turn has worked on */
    struct deferred handshakes_end;
    struct large_note large_notes[LARGE_NOTES];
    int64_t large_until_us; /* no note lasts longer */
    struct login *logins;   /* that are being checked, or are over since the last tick */
    unsigned char copy[CACHE_COPY_MAX + 64]; /* a hit that cannot go straight to the output */
};

struct proxy {
    struct cache *cache;
    struct coherence_fleet fleet;
    struct worker *control;
    struct front *fronts;
    unsigned n_fronts;
    const struct config_backend *login;
    const struct config *config;        /* control thread: the one in force, borrowed */
    struct config_change *first_change; /* control thread: under way, and those that wait */
    struct tls_context *tls_clients, *tls_backend; /* control thread: those in force, or NULL */
    proxy_cache_fn cache_command;                  /* init */
    proxy_info_fn info_section;                    /* init */
    struct changer *changer; /* init: changes the configuration (admin/changer.h) */
    struct history *history; /* control thread: of the metrics (admin/history.h), or NULL */
    void (*begin_drain)(void *context); /* init: control thread; as SIGTERM does */
    void *drain_context;

    _Atomic uint64_t next_session_id; /* atomic */
    _Atomic unsigned n_clients;       /* atomic: sessions open or on their way to a worker */
    _Atomic unsigned n_blocked;       /* atomic: clients that block, or that CLIENT PAUSE holds */
    _Atomic unsigned n_large;         /* atomic: large requests and replies on their way */
    _Atomic unsigned max_clients;     /* atomic: fitted to the descriptor limit */
    _Atomic bool is_leaving;          /* atomic: readiness says no; a drain follows */
    _Atomic bool is_draining;         /* atomic */
    _Atomic bool is_reachable;        /* atomic: set by the control thread */
    _Atomic bool is_away;             /* atomic: the same; it was reached, and is not any more */
    struct overload *overload;        /* init; NULL: there is none (tests) */
    int64_t started_at_us;            /* init */
    char run_id[41];                  /* init: 40 hex digits */
};

/* Threads are not started. */
NC_MUST_CHECK int proxy_init(struct proxy *proxy, struct cache *cache, struct worker *control,
                             struct config *config, unsigned n_workers,
                             const struct config_backend *login);
NC_MUST_CHECK int proxy_start(struct proxy *proxy);
/* Stops and joins the workers, closing what is left. */
void proxy_stop(struct proxy *proxy);
void proxy_fini(struct proxy *proxy);

/* Control thread: every worker takes these into use in its own next turn. */
void proxy_set_topology(struct proxy *proxy, struct topology *topology);
/* done, if not NULL, is called when all of them have. */
void proxy_set_config(struct proxy *proxy, const struct config *former, struct config *config,
                      void (*done)(void *context), void *context);
/* Sessions close as soon as nothing is owed to them; n_clients tells when all have gone. */
void proxy_drain(struct proxy *proxy);

/* Runs fn on every worker, then done on the control thread. fn and done get context. */
void proxy_on_all_workers(struct proxy *proxy, void (*fn)(struct front *front, void *context),
                          void (*done)(void *context), void *context);

/* The front of the worker this thread runs. */
struct front *front_self(void);

#endif
