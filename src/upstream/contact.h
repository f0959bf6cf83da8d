/*
 * contact.h - what the control thread knows of one address, and its connection to it
 *
 * Purpose:    resolve, connect, ask the server what it is (INFO, COMMAND), then poll it: CLUSTER
 *             INFO and CLUSTER SLOTS of a cluster node, PING and role of a standalone server.
 *             Tries for ever, with backoff and jitter, from contact_start() to contact_stop().
 * Ownership:  the discovery owns contacts and the watch that they share; it reads the fields below
 *             freely and writes those marked "discovery".
 * Threading:  the control thread.
 * Errors:     none are returned; `error` tells why there is no answer, on_news() that something
 *             changed.
 * Units:      milliseconds; instants in clock_now_ms().
 *
 *     idle -> resolving -> connecting -> asking (INFO) -> up (polling)
 *       ^         ^             |            |              |
 *       |         +---- waiting (backoff) <--+--------------+
 *       +-- contact_stop(), from anywhere
 */
#ifndef NC_UPSTREAM_CONTACT_H
#define NC_UPSTREAM_CONTACT_H

#include "upstream/control_client.h"
#include "upstream/replicas.h"
#include "upstream/resolver.h"
#include "upstream/topology.h"

enum contact_state {
    CONTACT_IDLE,
    CONTACT_RESOLVING,
    CONTACT_CONNECTING,
    CONTACT_ASKING,
    CONTACT_UP,
    CONTACT_WAITING,
};

struct contact;

/* What all contacts share; filled by the discovery. */
struct contact_watch {
    struct event_base *base;
    struct resolver *resolver;
    struct control_settings settings;
    const struct config_address_map *map;
    int64_t reconnect_min_ms, reconnect_max_ms;
    int64_t poll_ms;     /* between two polls of a server */
    int64_t slots_ms;    /* between two readings of its map */
    bool wants_replicas; /* how far they have come is to be known */
    /* Something changed: state, answers, map. Called from event handlers; must not free contacts.
     */
    void (*on_news)(struct contact *contact, void *context);
    /* Asked once per connection, when INFO is known: read this server's COMMAND? */
    bool (*wants_commands)(const struct contact *contact, void *context);
    /* The reference is the receiver's. */
    void (*on_commands)(const struct contact *contact, struct command_set *learnt, void *context);
    void *context;
};

struct contact {
    uint32_t magic;
    struct contact *next; /* discovery */
    struct contact_watch *watch;
    char host[256]; /* empty: a Unix socket */
    unsigned port;
    char name[280];           /* for logs: "[::1]:7000", "unix:/run/redis.sock" */
    bool is_seed;             /* discovery: the configuration names it */
    bool is_in_map;           /* discovery */
    bool is_watched;          /* discovery: its health counts */
    int64_t watched_since_ms; /* discovery */

    enum contact_state state;
    struct endpoint endpoint; /* numeric, or where a connection last came up */
    bool is_resolved;
    char error[200]; /* "name: reason" of the last failure; empty after an answer */

    /* From INFO, of the newest connection that had an answer. */
    bool is_known;
    char version[32], run_id[48];
    bool has_field_ttl, is_cluster, is_replica;

    /* From polls. answered_at_ms: the last good answer, 0 for never. */
    int64_t answered_at_ms;
    bool says_fail;            /* cluster_state:fail */
    uint64_t epoch;            /* cluster_current_epoch, as of the map */
    struct topology *map;      /* CLUSTER SLOTS; NULL while not connected */
    int64_t map_changed_at_ms; /* 0: as first read */
    struct replicas replicas;  /* of a master, where they are wanted */

    /* Its own. */
    struct control_client *client;
    struct resolver_query *query;
    struct event *timer;
    struct endpoint candidates[RESOLVER_MAX]; /* addresses of the name, tried in turn */
    unsigned n_candidates, candidate_at;
    bool is_name; /* not a number: to be resolved anew when it may have moved */
    bool is_loading, is_mapless, is_unresolved; /* that was logged */
    unsigned n_failures;                        /* in a row */
    uint64_t heard_epoch;                       /* of the newest CLUSTER INFO */
    unsigned n_asked;      /* replies of the running poll that are still to come */
    bool wants_again;      /* a fresh map was asked for during a poll */
    int64_t located_at_ms; /* when its name was last asked for without connecting; 0: never */
    int64_t polled_at_ms, slots_at_ms;
    int64_t tracking_at_ms; /* when it was last asked how full its tracking table is; 0: never */
    bool tells_no_limit;    /* of that table: CONFIG GET is not allowed to us */
    unsigned char *slots_bytes; /* the reply that map was made of */
    size_t n_slots_bytes;
    char refusal[128]; /* the last refused login or permission that was logged */
};

/* path: of a Unix socket, with host "" and port 0; else NULL. */
struct contact *contact_new(struct contact_watch *watch, const char *host, unsigned port,
                            const char *path);
/* Not from within on_news() and its kind. */
void contact_free(struct contact **contact);

/* Nothing happens unless it is idle. */
void contact_start(struct contact *contact);
void contact_stop(struct contact *contact);
/*
 * Asks for the address of its name now and then, without connecting: links may be made to nodes
 * that are not polled, or are not masters yet.
 */
void contact_locate(struct contact *contact);
/* Reads state and map now, if it is up. */
void contact_poll(struct contact *contact);

#endif
