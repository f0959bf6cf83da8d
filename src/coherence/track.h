/*
 * track.h - what coherence keeps about one tracking link: incarnation, watermark, fences
 *
 * Purpose:    open an incarnation when the link may fetch, end it when the link is lost or told to
 *             forget, apply invalidations in their order, and prove by PING that nothing is under
 *             way (the watermark).
 * Ownership:  one per node and worker, made and freed with the node.
 * Threading:  its worker only; the watermark is published through the cache's epochs.
 * Units:      clock_now_us().
 *
 * Source: the rules in docs/coherence.md; https://redis.io/docs/manual/client-side-caching/
 */
#ifndef NC_COHERENCE_TRACK_H
#define NC_COHERENCE_TRACK_H

#include "coherence/coherence.h"
#include "coherence/probe.h"

struct fence_leg;
struct ear;
struct ear_share;

/* What is asked of a node in keyspace mode; keyspace.c. */
struct keyspace_poll {
    struct link_op op;
    bool is_sent, has_events, has_baseline, was_warned;
    int64_t sent_at_us, answered_at_us;
    int64_t proven_at_us; /* when the newest one that was answered was sent */
    uint64_t n_flushes;   /* FLUSHALL and its kind, executed so far */
};

struct track {
    uint32_t magic;
    struct coherence *coherence;
    struct backend_node *node;
    struct link *link;
    uint16_t incarnation; /* EPOCHS_NONE: none opened */
    bool was_read;        /* clients may keep what was read on it, and were not told to forget */
    bool is_confirmed;    /* CLIENT TRACKING was accepted on the link as it is */
    bool is_probing;      /* it was accepted, and is being tried */
    bool is_ping_sent;    /* one PING is in flight */
    bool is_draining;     /* a large reply that nobody wants is being read: nothing is fetched */
    struct link_op ping;
    struct link_op retry; /* CLIENT TRACKING ON once more, while it is refused */
    bool is_retry_sent;
    int64_t ping_sent_at_us, retry_at_us;
    int64_t up_at_us;             /* since when the link is up */
    int64_t watermark_us;         /* every message sent before it has been applied */
    _Atomic unsigned *counted_in; /* of its coherence's counts of links; NULL while it is down */
    struct ear_share *share;      /* of its node */
    struct ear *ears[2];          /* by enum ear_kind: those that are kept here, for all workers */
    struct keyspace_poll poll;
    struct probe probe;
    uint64_t n_losses;           /* times that it may have missed a write */
    int mode;                    /* what `coherence` comes to here; modes.h */
    bool is_untold;              /* counted in its share's n_untold */
    bool was_untold;             /* so it was when the link was up last; counted in n_untold */
    struct fence_leg *legs_next; /* wait for the next PING */
    struct fence_leg *legs_sent; /* wait for the PONG under way */
};

struct track *track_new(struct coherence *coherence, struct backend_node *node);
void track_free(struct track **track);

/* Tells whoever keeps values elsewhere; keys as in coherence_fleet.on_changed. */
void track_announce(const struct coherence *coherence, struct bytes keys);

/*
 * Of a replica: it is proven to have everything older than replica-max-lag. Only what it has
 * acknowledged since its link came up proves anything: it may have been started anew before, with
 * what it had saved long ago.
 */
bool track_has_caught_up(const struct track *track, int64_t now_us);
/* The link may fetch now. */
bool track_may_fetch(const struct track *track, int64_t now_us);
/* A live incarnation of the link itself under which it may fetch now, or EPOCHS_NONE. */
uint16_t track_incarnation(struct track *track, int64_t now_us);
/* Ends what was read on the link so far, and tells whoever keeps values elsewhere. */
void track_forget(struct track *track);
/* True when entries read on it hear of writes; false where time alone bounds them. */
bool track_is_coherent(const struct track *track);
/*
 * Applies a push of a server with CLIENT TRACKING. *is_null: it says that everything changed, which
 * the caller applies. False: its shape is unknown.
 */
bool track_take_message(const struct coherence *coherence, struct bytes frame, bool *is_null);
/* The configuration in force is another one. */
void track_set_config(struct track *track);
/* What `coherence` comes to at this node: a word for operators. */
const char *track_mode_name(const struct track *track);
/* A reply to a request queued at sent_at_us has come: all messages before it were applied. */
void track_advance(struct track *track, int64_t sent_at_us);
/* Has the link carried messages up to now? Done when the answer to a PING sent from now on is
 * there. */
void track_add_leg(struct track *track, struct fence_leg *leg);
void track_tick(struct track *track, int64_t now_us);

/* fence.c: one leg of a fence has been passed. */
void fence_leg_done(struct fence_leg *leg);
struct fence_leg *fence_leg_next(const struct fence_leg *leg);
void fence_leg_set_next(struct fence_leg *leg, struct fence_leg *next);

extern const struct link_events track_link_events;

/* fetch.c: readers of all fetches that wait behind a large reply on this link are relayed. */
void fetch_give_way(struct track *track);

/* fetch.c: gives up fetches older than flight-timeout. */
void fetch_expire(struct coherence *coherence, int64_t now_us);

#endif
