/*
 * coherence.h - keeping tier 1 true: cached reads, tracking links, fences, the reply rule
 *
 * Purpose:    read a view through tier 1 (coherence_read()), apply what tracking links announce,
 * drop keys at replies, prove links alive. docs/coherence.md states the invariants. Ownership:  one
 * struct coherence per worker. Waiters are embedded in the caller's requests and answered exactly
 * once. Threading:  each instance on its worker; instances reach each other by mail. Errors:     a
 * read that tier 1 cannot serve is answered COHERENCE_RELAY: ask the backend uncached.
 *
 * Lock order: no lock of the cache is held while any function here calls out.
 */
#ifndef NC_COHERENCE_COHERENCE_H
#define NC_COHERENCE_COHERENCE_H

#include "base/stats.h"
#include "cache/cache.h"
#include "coherence/miss_lease.h"
#include "config/config.h"
#include "resp/command.h"
#include "upstream/backend.h"

struct auditor;
struct coherence;
struct ear_share;
struct fetch;
struct recent;
struct unlink_jobs;
struct bus;
struct early;
struct dependencies;
struct dependency_desk;
struct dependency_watches;
struct ledger;
struct events;
struct event_sources;

/* All instances of the process; made once, before the workers start. */
struct coherence_fleet {
    struct cache *cache;
    struct recent *recent;      /* what was shown lately, for reads from replicas */
    struct unlink_jobs *jobs;   /* that remove keys at the backend; NULL: there can be none */
    struct miss_leases *leases; /* of missing keys, in namespaces that have them */
    struct early *early;        /* what fetches cost, for early refreshes */
    struct bus *bus;            /* what the proxies of a group tell each other */
    struct dependencies *dependencies; /* what is derived from which; NULL: of nothing */
    struct coherence **members;        /* by worker index */
    unsigned n_members;
    /* A redirection or a loss asks for a fresh map: any thread. */
    void (*request_refresh)(void *context);
    void *refresh_context;
    /*
     * Keys that changed at the backend, in an array as it stood on the wire; empty: whatever was
     * read from a node may have. On the worker that hears of it, after tier 1 has dropped them.
     */
    void (*on_changed)(void *context, struct bytes keys);
    void *changed_context;
    struct event_sources *event_sources;  /* channels and streams whose messages are events */
    struct ear_share *shares;             /* ear.c: what the workers share of each node */
    _Atomic unsigned n_ledger_operations; /* under way, of all workers */
    struct debounce *debounce;            /* what rules drop again and again */
    struct ban_book *ban_book;            /* standing bans that others have missed */
    _Atomic unsigned n_gathering;         /* invalidations by tag that remove at the backend, too */
    _Atomic unsigned n_ears[2]; /* by enum ear_kind: nodes heard of over one link for all workers */
};

struct coherence {
    struct coherence_fleet *fleet;
    struct worker *worker;
    struct cache *cache;
    struct backend *backend;
    const struct config *config;
    struct event *tick_event;
    struct auditor *auditor;
    bool holds_fills; /* reads that tier 1 lacks are relayed: a configuration is on its way */
    struct dependency_desk *desk;       /* CACHE DEPEND */
    struct dependency_watches *watches; /* sources that it hears of */
    struct key_orders *key_orders;      /* CACHE INVALIDATE of a great many keys */
    struct ledger *ledger;              /* what applications told us, kept at the backend */
    struct events *events;
    struct fetch *first_fetch, *last_fetch; /* on this worker's links, oldest first */
    uint64_t prefixes[2]; /* by enum ear_kind: which keys are to be heard of; ear.c */
    unsigned n_untold;    /* nodes that, in mode auto, offered no tracking when asked last */
    bool tells_writes;    /* some namespace is of mode pubsub */
    bool knows_no_writes; /* some is of a mode in which the backend tells of none */
    /* Tracking links that are up, by mode; written by the worker, read by who reports them. */
    _Atomic unsigned n_tracking_links, n_broadcast_links, n_keyspace_links, n_pubsub_links;
    _Atomic unsigned n_ttl_links;
};

void coherence_init(struct coherence *coherence, struct coherence_fleet *fleet,
                    struct worker *worker, struct backend *backend, const struct config *config);
/* The backend must be gone already: its links tell their tracks. */
void coherence_fini(struct coherence *coherence);
void coherence_set_config(struct coherence *coherence, const struct config *config);

/* For backend_init(): makes and frees the track of each node. */
extern const struct backend_events coherence_backend_events;

/* ---- cached reads ---- */

enum coherence_answer {
    COHERENCE_REPLY,   /* a whole reply, in RESP3 unless encoding says that both are alike */
    COHERENCE_RETRY,   /* the flight was lost: look it up anew */
    COHERENCE_MISSING, /* a whole reply, of a missing key that has a lease */
    COHERENCE_AGAIN,   /* it waited for somebody's write: look it up anew, now */
    COHERENCE_RELAY,   /* read it uncached */
    COHERENCE_LARGE,   /* the same, over a connection of its own: the reply exceeds large-reply */
};

struct coherence_waiter {
    struct cache_waiter waiter;
    struct miss_wait miss;           /* its client is set by the asker */
    const struct identity *identity; /* who asks; set by the asker. NULL: the proxy's own login */
    /* On the waiter's worker. reply is valid for the call. */
    void (*on_answer)(struct coherence_waiter *waiter, enum coherence_answer answer,
                      struct bytes reply, enum cache_encoding encoding);
    int64_t asked_at_us;
    struct cache_flight *flight; /* what it waits for, for identity only; NULL: not under way */
    bool has_begun;              /* the flight is this waiter's own */
};

/* Why a read is relayed: the label of its miss. */
enum coherence_refusal { REFUSED_NOT, REFUSED_LINK, REFUSED_CACHE };

/*
 * W3c, as in struct cache_offer: own are the flights that earlier reads of the session wait for,
 * oldest first. All true and none own: nothing stands before this read.
 */
struct coherence_order {
    struct cache_flight *own[8];
    unsigned n_own;
    bool may_hit, may_begin;
};

/*
 * Hit, join, begin or relay. hit and copy_to as in cache_get(). CACHE_BEGUN: the fetch is on its
 * way, or handed to its home's worker.
 */
enum cache_outcome coherence_read(struct coherence *coherence, const struct cache_query *query,
                                  const struct command *command, struct coherence_waiter *waiter,
                                  const struct coherence_order *order, unsigned char *copy_to,
                                  struct cache_hit *hit, enum coherence_refusal *refusal);

/* ---- reply rule ---- */

/* Drops key in every database, for a reply that named it. */
void coherence_drop_key(struct coherence *coherence, struct bytes key);
/* The same, where the key was perhaps written: in mode pubsub the other proxies are told. */
void coherence_drop_written(struct coherence *coherence, struct bytes key);
/* Behind it, where the command writes: drops what is derived from key. */
void coherence_drop_derived(struct coherence *coherence, struct bytes key);
/* Ends every incarnation: FLUSHALL, FLUSHDB, SWAPDB, a reload. */
void coherence_drop_all(struct coherence *coherence, enum metric reason);

/* ---- reads over other connections ---- */

/* The tracking link on which a read of a key of this slot makes us hear of its changes; or NULL. */
struct link *coherence_hearing_link(struct coherence *coherence, unsigned slot,
                                    const struct identity *identity);

/* ---- fences ---- */

/* Calls done on the asking worker once every worker's tracking link to the node was read up to now.
 */
struct coherence_fence;
void coherence_fence(struct coherence *coherence, epochs_node node, void (*done)(void *arg),
                     void *arg);

/* ---- state, for INFO, metrics and the operator ---- */

/* Slots whose owner changed: told by the control thread before any worker routes by the new map. */
void coherence_apply_topology(struct cache *cache, const struct topology *former,
                              const struct topology *topology);

#endif
