/*
 * tracker.h - what the files tracking*.c share: one client that tracks, and those of one worker
 *
 * Purpose:    the state behind tracking.h, which is what everybody else includes.
 * Ownership:  a session owns its tracker.
 * Threading:  the worker.
 */
#ifndef NC_PROXY_TRACKER_H
#define NC_PROXY_TRACKER_H

#include "proxy/broadcast.h"
#include "proxy/touch.h"
#include "proxy/tracked.h"
#include "proxy/tracking.h"

enum touch_state { TOUCH_NONE, TOUCH_PENDING, TOUCH_HEARD, TOUCH_FAILED };

struct tracking_options {
    bool is_broadcast, is_optin, is_optout, is_noloop;
    uint64_t redirect;            /* 0: none */
    struct front *redirect_front; /* where that client lives */
};

struct tracker {
    struct topic by_id; /* of the worker's trackers */
    struct session *session;
    struct tracking_options options;
    bool is_on; /* false: CLIENT TRACKING ON waits for the backend */
    bool is_broken;
    bool has_caching;  /* CLIENT CACHING was given, for the next command */
    bool has_keys;     /* some are remembered since everything was void last */
    bool applies;      /* the command in hand is one whose keys are remembered */
    bool shows;        /* it shows keys, which a client may keep */
    bool is_protected; /* ... and the tracking links hear of them */
    uint8_t touch_state;
    struct touch *touch;
    struct buffer prefixes; /* key_run.h */
    struct broadcast *broadcast;

    /* CLIENT TRACKING ON BCAST that waits; request is NULL: none. */
    struct request *request;
    struct tracking_options wanted;
    struct buffer wanted_prefixes;
    struct broadcast *wanted_broadcast;

    bool writes_plainly; /* the command in hand is a write whose reply tells what it did */
};

/* A session that others redirect to. */
struct target {
    struct topic by_id;
    struct session *session;
};

struct tracking {
    struct front *front;
    struct tracked keys;
    struct topic_table trackers, targets;
    struct topic *next_told; /* of trackers: tracker_next() */
    unsigned n_counted;      /* of keys, in the process's count */
};

struct tracker *tracker_new(struct session *session);
void tracker_free(struct session *session);
/* All of them, one walk at a time: whoever is told may be closed over it, and close others. */
struct tracker *tracker_first(struct tracking *tracking);
struct tracker *tracker_next(struct tracking *tracking);
/* Counts it among those that are told of changes. */
void tracker_set_on(struct tracker *tracker, bool is_on);
/* Others redirect to this session from now on. */
void tracker_make_target(struct session *session);
/* A message for the tracker's client, behind the replies that it concerns. keys: key_run.h; empty:
 * everything. */
void tracker_deliver(struct tracker *tracker, struct bytes keys);

/* Some tracking link is up and hears of nothing: the backend refuses, or coherence = ttl. */
bool tracking_is_refused(const struct proxy *proxy);
/* The backend has confirmed CLIENT TRACKING ON BCAST, or not. */
void tracking_on_ready(struct front *front, const struct broadcast *broadcast, struct bytes error);

extern const struct broadcast_events tracking_broadcast_events;

#endif
