/*
 * ear.h - one connection per node that hears of writes, for all workers of the process
 *
 * Purpose:    the modes in which the link that fetches is not the one that hears: CLIENT TRACKING
 *             with BCAST (broadcast), and keyspace notifications. Fetches travel on the workers'
 *             own links; what they fill carries the incarnation of the ear.
 * Ownership:  an ear belongs to the track of one worker, its keeper; struct ear_share to all tracks
 *             of a node.
 * Threading:  an ear on its keeper's worker; the share's fields are atomic.
 * Units:      clock_now_us().
 *
 * Source: the rules in docs/coherence.md; https://redis.io/docs/manual/keyspace-notifications/
 */
#ifndef NC_COHERENCE_EAR_H
#define NC_COHERENCE_EAR_H

#include "coherence/prefixes.h"
#include "coherence/track.h"

enum ear_kind { EAR_BROADCAST, EAR_KEYSPACE, N_EARS };

/* What the workers know of the ears of a node. */
struct ear_share {
    struct ear_share *next;
    unsigned n_refs; /* the list's lock */
    epochs_node node;
    _Atomic uint16_t incarnation[N_EARS]; /* its keeper's; EPOCHS_NONE: hears nothing now */
    _Atomic uint64_t prefixes[N_EARS];    /* the id of what that one hears of */
    _Atomic bool is_heard[N_EARS];        /* its keeper's: it is confirmed */
    _Atomic uint64_t n_losses[N_EARS];    /* its keeper's: times that it may have missed a write */
    _Atomic unsigned n_untold;            /* links of mode auto that the node does not tell */
};

/* The one of this node, made by who asks first. */
struct ear_share *ear_share_get(struct coherence_fleet *fleet, epochs_node node);
void ear_share_put(struct coherence_fleet *fleet, struct ear_share **share);
/* Of the nodes that refuse tracking: some, or none, are heard of by notifications. Any thread. */
void ear_survey_untold(const struct coherence_fleet *fleet, bool *is_heard, bool *is_not);
/* Under which the worker may fetch a key; EPOCHS_NONE: nobody hears of all that it keeps. */
uint16_t ear_incarnation(const struct track *track, enum ear_kind kind);

struct ear {
    uint32_t magic;
    enum ear_kind kind;
    struct track *track;
    struct link link;
    struct prefixes prefixes;
    bool is_confirmed; /* it hears of every write to a key with one of these prefixes */
    bool was_refused;  /* and that was logged */
    unsigned n_subscribed;
    uint16_t incarnation;
    int64_t retry_at_us;

    bool is_ping_sent;
    int64_t ping_sent_at_us;
    int64_t former_sent_at_us; /* of the PING before, when that one was answered; 0: none */
    int64_t watermark_us;
    struct fence_leg *legs_next;  /* wait for a PING to be sent */
    struct fence_leg *legs_sent;  /* for its PONG */
    struct fence_leg *legs_again; /* broadcast: for a second PING */
    struct fence_leg *legs_last;  /* for the PONG of that */
};

/* Makes, drives and frees the ears that this track keeps. */
void ear_tick_all(struct track *track, int64_t now_us);
void ear_free_all(struct track *track);
/* What the configuration keeps may be other keys, or other modes, by now. */
void ear_set_config_all(struct track *track);
/* What an ear of this kind has to hear of. */
void ear_make_prefixes(struct prefixes *prefixes, enum ear_kind kind, const struct config *config);
/* In coherence->prefixes: which keys the configuration in force wants to be heard of. */
void ear_set_prefix_ids(struct coherence *coherence);
/* A leg of a fence: passed when all that was written up to now has been heard. */
void ear_add_leg(struct ear *ear, struct fence_leg *leg);

/* For keyspace.c. */
void ear_confirm(struct ear *ear, bool is_confirmed, const char *reason);
/* What was fetched under it goes. */
void ear_forget(struct ear *ear, enum metric reason);

/* keyspace.c */
void keyspace_subscribe(struct ear *ear);
/* All of its patterns are confirmed, on the connection as it is. */
bool keyspace_is_subscribed(const struct ear *ear);
/* A message or a confirmation. False: its shape is unknown. */
bool keyspace_take(struct ear *ear, struct bytes frame);
void keyspace_tick(struct ear *ear, int64_t now_us);
/* The watermark that a PING sent then proves: none that polls have not kept up with. */
int64_t keyspace_limit(const struct ear *ear, int64_t sent_at_us);
void keyspace_init_poll(struct track *track);

#endif
