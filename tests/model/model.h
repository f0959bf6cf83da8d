/*
 * model.h - the coherence protocol as a state machine small enough to search
 *
 * Purpose:    one state of backend, links, workers, memory tier and sessions, the
 *             steps that lead from it to others, and the properties each must have.
 *             What the model holds and what it leaves out: README.md here.
 * Ownership:  everything is a value; a struct world is copied freely. Configurations
 *             and rule tables are constant after parsing.
 * Threading:  one thread.
 * Errors:     a full queue or flight table means that the configuration is larger than
 *             the types below: the program says so and exits with status 2.
 * Units:      versions count writes of a key and begin at 1, so 0 is "nothing"; ages
 *             are clock ticks and stop growing one past the staleness bound.
 */
#ifndef NC_MODEL_MODEL_H
#define NC_MODEL_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    N_WORKERS = 2, /* each with one tracking link and one relay link */
    MAX_SESSIONS = 3,
    MAX_PIPELINE = 3,
    MAX_KEYS = 2,
    MAX_VIEWS = 2,
    MAX_FLIGHTS = 8,
    MAX_AGE = 2, /* largest staleness bound */
    MAX_MENU = 8,
    MAX_CHOICES = MAX_FLIGHTS + 1,
    MAX_ACTIONS = 256
};

/* The rules of the protocol; each can be switched off. Names and texts: rules.c. */
enum rule {
    RULE_COMPLETE_VOID,
    RULE_JOIN_VOID,
    RULE_WRITE_DROP,
    RULE_WRITE_VOID,
    RULE_WRITE_AT_REPLY,
    RULE_FENCE,
    RULE_FENCE_ALL,
    RULE_FENCE_AFTER,
    RULE_READ_DROP,
    RULE_READ_VOID,
    RULE_COMPLETE_INVALIDATE,
    RULE_HOME,
    RULE_ONE_FLIGHT,
    RULE_W3A_WRITE,
    RULE_W3A_READ,
    RULE_W3A_WITHHELD,
    RULE_W3B,
    RULE_W3C,
    RULE_W3C_LAST,
    RULE_W3C_OWN,
    RULE_W3_OPAQUE,
    RULE_GIVE_UP_ALL,
    RULE_LOST_ORDER,
    RULE_HANDOFF_EPOCH,
    RULE_WATERMARK,
    RULE_JOIN_AGE,
    RULE_MESSAGE_DROP,
    RULE_MESSAGE_VOID,
    RULE_LINK_EPOCH,
    RULE_FLUSH_EPOCH,
    N_RULES
};

/* What must hold. I1, I3, I4, I8: at the release of an answer; the others in every state. */
enum property {
    PROPERTY_I1 = 1 << 0,    /* not below the newest write acknowledged when the read began */
    PROPERTY_I2 = 1 << 1,    /* the memory tier is not below a write acknowledged here */
    PROPERTY_I3 = 1 << 2,    /* not below a write acknowledged longer ago than the bound */
    PROPERTY_I4 = 1 << 3,    /* versions do not go backwards in a session */
    PROPERTY_I5 = 1 << 4,    /* value and deadline of a view belong to one version */
    PROPERTY_I8 = 1 << 5,    /* a read does not show a later write of its own session */
    PROPERTY_QUIET = 1 << 6, /* nothing under way: the memory tier equals the backend */
    PROPERTY_LIVE = 1 << 7,  /* every request is answered in the end */
    PROPERTY_ALL = (1 << 8) - 1
};

/* What a step showed: for the counts in the table and the words of a trace. */
enum event {
    EVENT_HIT,
    EVENT_JOIN,
    EVENT_BEGIN,
    EVENT_HANDOFF,
    EVENT_PIPELINED,
    EVENT_RELAY,
    EVENT_FILL,
    EVENT_NO_FILL,
    EVENT_MAILED,
    EVENT_REFRESH,
    EVENT_LOST,
    EVENT_FENCE,
    EVENT_GAVE_UP,
    N_EVENTS
};

enum request_kind {
    KIND_NONE,
    KIND_READ,         /* a cacheable read of one view */
    KIND_RELAYED_READ, /* a read that is never cached */
    KIND_WRITE,
    KIND_OPAQUE_WRITE, /* names no key: a script; needs the fence */
    KIND_OPAQUE_READ
};

enum request_state {
    REQUEST_FREE,
    REQUEST_PARKED,   /* its flight was lost: to be looked up anew, in order */
    REQUEST_WAITING,  /* for a flight */
    REQUEST_LIMBO,    /* its flight was lost, the mail that says so is under way */
    REQUEST_MAILED,   /* its answer is in the mailbox of its worker */
    REQUEST_RELAYED,  /* on the relay link */
    REQUEST_WITHHELD, /* answered by the backend, kept until the fence is complete */
    REQUEST_ANSWERED, /* to be released in order */
    REQUEST_FAILED    /* the same, with an error: shows no version */
};

struct request {
    uint8_t kind;
    uint8_t key;
    uint8_t view;
    uint8_t state;
    uint8_t flight;
    uint8_t version;     /* the answer, once there is one */
    uint8_t floor;       /* newest version acknowledged here when it began */
    uint8_t old_floor;   /* newest version acknowledged anywhere longer ago than the bound */
    uint8_t fence_links; /* bit per link whose PONG is awaited */
};

/* Requests are a ring: the oldest unanswered one is number n_released modulo the pipeline. */
struct session {
    uint8_t n_issued;
    uint8_t n_released;
    uint8_t last[MAX_KEYS]; /* newest version released to it */
    struct request requests[MAX_PIPELINE];
};

enum flight_state {
    FLIGHT_FREE,
    FLIGHT_LIVE,
    FLIGHT_VOID, /* off the record: answers its waiters, nobody else */
    FLIGHT_DEAD  /* void, and of an epoch of its link that is over */
};

struct flight {
    uint8_t state;
    uint8_t key;
    uint8_t view;
    uint8_t link;
    uint8_t owner; /* 1 + the session that began it; 0 once void, or for a refresh */
    uint8_t age;
    uint8_t version;  /* what the backend read; 0 before */
    uint8_t deadline; /* the version whose TTL the backend told; 0 before */
};

struct view {
    uint8_t version; /* 0: absent */
    uint8_t deadline;
    uint8_t home; /* the link it was read on */
};

enum link_state { LINK_UP, LINK_BROKEN /* the proxy has not noticed */, LINK_DOWN };

/*
 * A queue is eight one-byte items in a word, the first in the lowest byte. That keeps
 * states short and equal queues equal. An item is a kind and a flight, key or request.
 */
enum item_kind {
    ITEM_FETCH = 1, /* flight: on its way to the backend, or to the worker of its link */
    ITEM_REPLY,     /* flight: executed */
    ITEM_MESSAGE,   /* key: an invalidation */
    ITEM_PING,      /* request that is withheld */
    ITEM_PONG,
    ITEM_BEAT, /* the PING of the watermark */
    ITEM_BEAT_BACK,
    ITEM_RELAYED, /* request, on the relay link in either direction */
    ITEM_ANSWER,  /* mail, request */
    ITEM_LOST,    /* mail, request */
    ITEM_ASK,     /* mail, request that wants a PING on this worker's link */
    ITEM_DONE,    /* mail, request whose PONG came back on the other worker's link */
    ITEM_FLUSH    /* the null message of a flush */
};

struct state {
    uint64_t track_out[N_WORKERS]; /* tracking link, to the backend */
    uint64_t track_in[N_WORKERS];  /* tracking link, replies and messages in one order */
    uint64_t relay_out[N_WORKERS];
    uint64_t relay_in[N_WORKERS];
    uint64_t mail[N_WORKERS]; /* to this worker from the other one */
    struct session sessions[MAX_SESSIONS];
    struct flight flights[MAX_FLIGHTS];
    struct view views[MAX_KEYS][MAX_VIEWS];
    uint8_t value[MAX_KEYS];                  /* at the backend */
    uint8_t tracked[MAX_KEYS];                /* at the backend, bit per link */
    uint8_t acked[MAX_KEYS];                  /* newest version acknowledged by the proxy */
    uint8_t acked_ago[MAX_KEYS][MAX_AGE + 2]; /* newest acknowledged anywhere, by age */
    uint8_t link[N_WORKERS];
    uint8_t link_age[N_WORKERS]; /* of the watermark */
    uint8_t beat_age[N_WORKERS]; /* 1 + age of the PING under way, 0: none */
    uint8_t ghosts[MAX_KEYS];    /* writes of unknown outcome that may still execute */
    uint8_t n_foreign;           /* the rest: what may still happen */
    uint8_t n_evictions;
    uint8_t n_losses;
    uint8_t n_relay_losses;
    uint8_t n_overflows;
    uint8_t n_refreshes;
    uint8_t n_flushes;
    uint8_t n_give_ups;
    uint8_t unused; /* states are compared by their bytes: no padding */
};

struct config {
    unsigned n_sessions;
    unsigned worker[MAX_SESSIONS];
    unsigned n_requests[MAX_SESSIONS];
    char menu[MAX_SESSIONS][MAX_MENU + 1];
    bool is_script[MAX_SESSIONS]; /* the menu is the exact sequence */
    unsigned pipeline;
    unsigned n_keys;
    unsigned n_views;
    unsigned n_foreign;
    unsigned n_evictions;
    unsigned n_losses;
    unsigned n_relay_losses;
    unsigned n_overflows;
    unsigned n_refreshes;
    unsigned n_flushes;
    unsigned n_give_ups;
    unsigned max_age;  /* staleness bound in ticks; 0: no clock */
    bool splits_fetch; /* PTTL and the read are two steps of the backend */
};

struct world {
    const struct config *config;
    uint32_t rules;  /* bit per enum rule: in force */
    uint32_t broken; /* bits of enum property, gathered by the last step */
    uint32_t events; /* bit per enum event, gathered by the last step */
    struct state state;
};

enum action_kind {
    ACTION_ISSUE,         /* session, menu entry, choice */
    ACTION_LOOK_AGAIN,    /* session, slot, choice */
    ACTION_BACKEND_TRACK, /* link */
    ACTION_BACKEND_RELAY, /* link */
    ACTION_TRACK_IN,      /* worker */
    ACTION_RELAY_IN,      /* worker */
    ACTION_MAIL,          /* worker */
    ACTION_NOTICE,        /* worker */
    ACTION_RECONNECT,     /* worker */
    ACTION_LAST_PROGRESS = ACTION_RECONNECT,
    ACTION_FOREIGN_WRITE, /* key */
    ACTION_GHOST_WRITE,   /* key */
    ACTION_FLUSH,         /* by a foreign client */
    ACTION_GIVE_UP,       /* session, slot: its flight takes too long */
    ACTION_OVERFLOW,      /* key, link: the tracking table forgets and says so */
    ACTION_BREAK,         /* link */
    ACTION_RELAY_LOSS,    /* worker */
    ACTION_EVICT,         /* key, view */
    ACTION_TICK,
    ACTION_BEAT /* worker */
};

struct action {
    uint8_t kind;
    uint8_t a;
    uint8_t b;
    uint8_t choice;
};

/* rules.c */
struct rule_text {
    const char *name;
    const char *text;
};
extern const struct rule_text rule_texts[N_RULES];
extern const char *const event_names[N_EVENTS];
/* -1: no rule of that name. */
int rule_by_name(const char *name);
/* Writes names such as "I1 I4" for a set of properties; returns out. */
const char *property_names(uint32_t properties, char *out, size_t out_bytes);
/* 0: no property of that name. */
uint32_t property_by_name(const char *name);

static inline bool has_rule(const struct world *world, enum rule rule)
{
    return (world->rules >> rule & 1) != 0;
}

static inline void note(struct world *world, enum event event)
{
    world->events |= UINT32_C(1) << event;
}

/* config.c: reads "0:3:rwu 1:2:rs pipe=2 views=2"; false with a message on stderr. */
bool config_parse(struct config *config, const char *spec);

/* queue.c */
unsigned queue_length(uint64_t queue);
void queue_push(uint64_t *queue, enum item_kind kind, unsigned arg);
uint8_t queue_pop(uint64_t *queue);

static inline uint8_t queue_at(uint64_t queue, unsigned i)
{
    return (uint8_t)(queue >> (8 * i));
}

static inline enum item_kind item_kind(uint8_t item)
{
    return (enum item_kind)(item >> 4);
}

static inline unsigned item_arg(uint8_t item)
{
    return item & 15U;
}

static inline unsigned request_ref(unsigned session, unsigned slot)
{
    return session * MAX_PIPELINE + slot;
}

static inline unsigned other_worker(unsigned worker)
{
    return 1 - worker;
}

/* backend.c: steps of the backend and of the network. */
void backend_write(struct state *state, unsigned key);
void backend_flush(struct world *world);
void backend_track(struct world *world, unsigned link);
void backend_relay(struct world *world, unsigned link);
void backend_break(struct state *state, unsigned link);

/* tier.c: the memory tier; each function is one section under its lock. */
enum look_result { LOOK_HIT, LOOK_WAIT, LOOK_RELAY, LOOK_DISABLED };
void tier_invalidate(struct state *state, unsigned key, bool drops, bool voids);
/* Choice 0 does as the rules say; others: a refresh beside a hit, or a rule switched off. */
enum look_result tier_lookup(struct world *world, unsigned session, struct request *request,
                             unsigned choice);
bool tier_is_joinable(const struct world *world, unsigned flight, const struct request *request);
bool tier_can_begin_behind(const struct world *world, const struct request *request);
void tier_join(struct world *world, struct request *request, unsigned flight);
/* Begins a flight; false where its link is not fit for one. */
bool tier_begin(struct world *world, unsigned session, struct request *request);
/* The reply of a flight has come: fill, or drop the key. Its waiters: the caller's. */
void tier_complete(struct world *world, unsigned flight);
void tier_bump_epoch(struct state *state, unsigned link);

/* session.c: what workers do for their sessions. */
bool session_issue(struct world *world, unsigned session, unsigned menu_entry, unsigned choice);
bool session_look_again(struct world *world, unsigned session, unsigned slot, unsigned choice);
void session_give(struct world *world, unsigned worker, unsigned flight);
void session_lose(struct world *world, unsigned worker, uint32_t flights);
void session_relay_reply(struct world *world, unsigned ref);
void session_fail(struct world *world, unsigned ref);
void session_mailed(struct world *world, unsigned ref);
/*
 * Takes a waiting read, and the later ones of its key, from their flights to the relay link;
 * false where an earlier one still waits: the oldest gives up first.
 */
bool session_give_up(struct world *world, unsigned session, unsigned slot);
void session_park(struct world *world, unsigned ref);
void session_fenced(struct world *world, unsigned ref, unsigned link);
/* The i-th unreleased request of a session, the oldest first. */
unsigned session_slot(const struct world *world, unsigned session, unsigned i);

/* step.c */
void world_init(struct world *world, const struct config *config, uint32_t rules);
/* Fills out (MAX_ACTIONS) with what may be possible; returns how many. */
unsigned step_list(const struct world *world, struct action *out);
/* Takes the step and checks; false: not possible in this state, which is then undefined. */
bool step_take(struct world *world, struct action action);
bool world_is_finished(const struct world *world);

/* search.c */
struct search_result {
    uint64_t n_states;
    uint64_t n_steps;
    uint64_t n_events[N_EVENTS];
    double seconds;
    unsigned depth;
    uint32_t broken;      /* properties violated by the last step of the trace; 0: none */
    struct action *trace; /* from the first state; NULL where nothing was violated */
    size_t n_trace;
    bool is_complete; /* false: stopped at max_states */
};
/* Breadth first, so a counterexample is as short as any. Free with search_result_fini. */
void search(struct search_result *result, const struct config *config, uint32_t rules,
            uint32_t properties, uint64_t max_states);
void search_result_fini(struct search_result *result);

/* trace.c: tells a counterexample on stdout. */
void trace_print(const struct config *config, uint32_t rules, const struct search_result *result);

/* cases.c */
struct config_case {
    const char *name;
    const char *spec;
    bool is_full; /* only with --full */
};
struct rule_case {
    enum rule rule;
    uint32_t property; /* that breaks without the rule */
    const char *spec;
};
extern const struct config_case config_cases[];
extern const size_t n_config_cases;
extern const struct rule_case rule_cases[];
extern const size_t n_rule_cases;

#endif
