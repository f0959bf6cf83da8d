/*
 * cache.h - tier 1: replies of the backend by key, bounded in bytes, with the fetches under way
 *
 * Purpose:    answer reads without a round trip, fetch each view once for the whole process, and
 *             keep to the per-key rules of docs/coherence.md: look-up, join, begin, complete,
 * invalidate are one section under one shard lock each. The unit is the key: it owns its views (the
 *             replies of read commands with their arguments) and its flights (fetches in the air).
 * Ownership:  the cache owns entries and flights. A hit is copied out, or pinned and given back
 *             with cache_unpin(). Waiters are embedded in the caller's requests; the cache links
 *             them while a flight is under way and hands all of them back when it is completed.
 * Threading:  any thread. A call holds one shard lock at a time, for a bounded number of
 *             instructions, and never calls out or into the kernel under it. Entries are built
 *             before and freed after the lock.
 * Errors:     what cannot be stored is declined and counted, never an error for the reader.
 * Units:      bytes; instants and ages in clock_now_us() microseconds; deadlines are kept in
 *             1/64 s since start, rounded down.
 *
 * Sources:    S3-FIFO: Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023.
 *             Table: F14, Facebook's folly. Flights as lease tokens: Nishtala et al., "Scaling
 *             Memcache at Facebook", NSDI 2013.
 */
#ifndef NC_CACHE_CACHE_H
#define NC_CACHE_CACHE_H

#include "base/bytes.h"
#include "base/check.h"
#include "base/stats.h"
#include "cache/epochs.h"

#include <stdatomic.h>

/* Hits up to this size are copied under the lock, larger ones are pinned. */
#define CACHE_COPY_MAX ((size_t)4096)
/* Longer keys are never cached. */
#define CACHE_KEY_MAX ((size_t)65535)
#define CACHE_ARGS_MAX ((size_t)65535)
#define CACHE_VIEWS_MAX 16
/*
 * Entries outside database 0 carry a scope: a database of the proxy's own login, or one of the
 * first databases of a user that logged in as itself, whose entries are apart from all others.
 * Scopes from CACHE_DBS up are never cached.
 */
#define CACHE_OWN_DBS 1024u
#define CACHE_USERS 252u
#define CACHE_USER_DBS 16u
#define CACHE_DBS (CACHE_OWN_DBS + CACHE_USERS * CACHE_USER_DBS)

/* user: 0 is the proxy's own login, others count from 1. */
static inline uint32_t cache_scope(unsigned user, uint32_t db)
{
    if (user == 0) {
        return db < CACHE_OWN_DBS ? db : UINT32_MAX;
    }
    return user <= CACHE_USERS && db < CACHE_USER_DBS
               ? CACHE_OWN_DBS + (user - 1) * CACHE_USER_DBS + db
               : UINT32_MAX;
}

static inline unsigned cache_scope_user(uint32_t scope)
{
    return scope < CACHE_OWN_DBS ? 0 : 1 + (scope - CACHE_OWN_DBS) / CACHE_USER_DBS;
}

static inline uint32_t cache_scope_db(uint32_t scope)
{
    return scope < CACHE_OWN_DBS ? scope : (scope - CACHE_OWN_DBS) % CACHE_USER_DBS;
}
#define CACHE_NO_DEADLINE INT64_MAX

struct cache;       /* opaque */
struct cache_entry; /* opaque */

struct cache_options {
    size_t maxmemory;          /* bytes, 1 MiB to 48 GiB */
    unsigned negative_percent; /* share of maxmemory that negative entries may take */
    unsigned n_shards;  /* 0: chosen from maxmemory (power of two, at most 64, >= 16 MiB each) */
    size_t max_flights; /* fetches under way, for the whole process */
};

/* -ENOMEM: address space or memory is missing; -EINVAL. One cache at a time (they share the arena).
 */
NC_MUST_CHECK int cache_new(const struct cache_options *options, struct cache **cache);
/* After the last reader and the last flight: pins and flights do not survive it. */
void cache_free(struct cache **cache);

struct epochs *cache_epochs(struct cache *cache);

/* How a key's hash slot is found; NULL (the default, a standalone backend): every key is in slot 0.
 */
typedef uint16_t (*cache_slot_fn)(struct bytes key);
void cache_set_slot_function(struct cache *cache, cache_slot_fn slot_of);

/*
 * What a reader asks for: a view of a key. Filled in by the caller, hash by cache_hash(). Keys
 * above CACHE_KEY_MAX, arguments above CACHE_ARGS_MAX and databases from CACHE_DBS up are never
 * cached: cache_get() answers "cold" and cache_lookup() "relay".
 */
struct cache_query {
    struct bytes key;
    uint64_t hash; /* of key alone */
    uint32_t db;
    uint16_t command; /* 0: GET, whose view is the entry's first; else the command's number */
    struct bytes
        args; /* the bytes that tell views of one command apart; empty when there are none */
    int64_t now_us;
    int64_t max_staleness_us;
};

uint64_t cache_hash(struct bytes key);

/* Both protocol versions word the reply alike / it is RESP3 and RESP2 readers need the downgrade.
 */
enum cache_encoding { CACHE_SAME_IN_BOTH, CACHE_RESP3 };

struct cache_hit {
    struct bytes reply; /* copied: where the caller wanted it; pinned: inside the entry */
    enum cache_encoding encoding;
    uint8_t ns;
    bool is_negative;           /* the key does not exist */
    struct cache_entry *pinned; /* NULL when copied; a token, not an address */
    /*
     * CACHE_NEAR, in is_near for cache_lookup(): the deadline is near, or past and in its grace
     * (cache_set_margin()). The rest is set then, and says how far away it is (past: 0 or less),
     * and whether a new reading would move it, as the backend keeps the key for longer.
     */
    bool is_near, is_renewable;
    uint16_t incarnation;
    int64_t left_us;
    uint8_t miss; /* of cache_lookup() without a hit: enum cache_miss */
};

/*
 * Why cache_get() found nothing: the label of the miss. Of a hit: CACHE_NEAR, or CACHE_COLD.
 * Invalidated, evicted: its key was held, and what went last not long ago; see gone.h.
 */
enum cache_miss {
    CACHE_COLD,
    CACHE_EXPIRED,
    CACHE_EPOCH,
    CACHE_STALE,
    CACHE_NEAR,
    CACHE_INVALIDATED,
    CACHE_EVICTED
};

/*
 * The hit path. copy_to has room for CACHE_COPY_MAX bytes. True: *hit is filled in. False: *miss
 * says why; what had expired or lost its epoch is removed by this call. CACHE_STALE: the entry is
 * kept, but its link's watermark is older than max_staleness_us.
 */
bool cache_get(struct cache *cache, const struct cache_query *query, unsigned char *copy_to,
               struct cache_hit *hit, enum cache_miss *miss);

/*
 * How long what a namespace holds may be shown while its node cannot be asked, by id; 0: never. n:
 * the namespaces that there are. Any thread.
 */
void cache_set_stale(struct cache *cache, const int64_t *stale_ms, unsigned n);
/*
 * As cache_get(), for a reader whose node cannot be asked: what it held when it was last heard, as
 * long as the namespace allows (cache_set_stale()), whatever its deadline and incarnation say.
 * Nothing that was invalidated, or whose slot has left the node, is found. left_us: for how long.
 */
bool cache_get_stale(struct cache *cache, const struct cache_query *query, unsigned char *copy_to,
                     struct cache_hit *hit, int64_t *left_us);

/* Gives a pinned hit back. Any thread; usable as an outq_release_fn through the global cache. */
void cache_unpin(struct cache *cache, struct cache_entry *pinned);

/* ---- flights ---- */

struct cache_waiter {
    struct cache_waiter *next; /* shard lock while its flight is under way */
    uint8_t worker;            /* who answers it */
};

/* One fetch under way. Fields are set by cache_lookup() and constant, but for the last group. */
struct cache_flight {
    struct bytes key, args; /* copies, owned by the flight */
    uint64_t hash;
    uint32_t db;
    uint16_t slot, command;
    uint16_t incarnation; /* whose link must carry it */
    uint8_t worker;       /* whose worker's link that is */
    uint32_t slot_word;
    int64_t t_sent_us;
    uint64_t ban_serial;  /* of the newest ban when it was begun */
    _Atomic bool is_void; /* set under the shard lock */
    /* Set by who completes it: its readers were shown nothing, so that what is held stays. */
    bool keeps_key;
    struct cache_waiter *waiters; /* shard lock; newest first */
    unsigned n_waiters;           /* shard lock */
    struct cache_flight *next;    /* shard lock: the shard's chain of flights */
};

/* What a worker can offer for a new flight: its own tracking link to the key's node. */
struct cache_offer {
    uint16_t incarnation; /* live, or EPOCHS_NONE: no link may fetch now */
    uint8_t worker;
    epochs_node node; /* the slot must belong to it */
    /*
     * W3c. n_own is 0 for a read whose session has no other unanswered cached read of this key.
     * Otherwise own are the flights it waits for, in the order of its requests, and no hit is
     * allowed. It may join own[n_own - 1] alone (what any other shows may be older than what its
     * former reads will show), and begin only on incarnation itself, while all of own are live;
     * may_begin says that the session itself began them. Flights of own may have been completed
     * and freed meanwhile, or be NULL: they are looked for by address, never through it.
     */
    struct cache_flight *const *own;
    unsigned n_own;
    bool may_begin; /* false: hit or join, or nothing */
    bool may_hit;
};

enum cache_outcome {
    CACHE_HIT,    /* *hit is filled in as by cache_get() */
    CACHE_JOINED, /* waiter is on a flight */
    CACHE_BEGUN,  /* waiter is on a new flight, which the caller sends or hands to its worker */
    CACHE_RELAY,  /* none of these: read it uncached (or wait, W3c) */
};

/*
 * The miss path: hit, join, begin or relay, decided under one lock. *flight is the flight begun, or
 * the one joined: that one for identity only, it may be completed at any time.
 */
enum cache_outcome cache_lookup(struct cache *cache, const struct cache_query *query,
                                const struct cache_offer *offer, unsigned max_waiters,
                                struct cache_waiter *waiter, unsigned char *copy_to,
                                struct cache_hit *hit, struct cache_flight **flight);

/*
 * Begins a flight that nobody waits for, of a view that tier 1 may hold meanwhile. False: one is
 * under way, or none can be begun.
 */
bool cache_refresh(struct cache *cache, const struct cache_query *query,
                   const struct cache_offer *offer, struct cache_flight **flight);

/* What came back. reply is RESP3 and at most max_value (the namespace's) bytes. */
struct cache_fill {
    struct bytes reply; /* of GET and is_negative: not looked at, a hit answers "_\r\n" */
    enum cache_encoding encoding;
    int64_t deadline_us; /* CACHE_NO_DEADLINE: none */
    uint8_t ns;
    bool is_negative;
    int64_t grace_us;     /* beyond the deadline it may still be shown: 0, or the namespace's */
    bool is_unwanted;     /* nothing is kept: only whether it could have been is of interest */
    bool is_renewable;    /* the deadline is earlier than the backend's own */
    size_t max_key_bytes; /* for all views of the key together, the oldest go; 0: no limit */
    /*
     * Its link does not hear of writes, in order with the replies: views of one key could show
     * different versions, so that this one drops the others and voids the key's other flights.
     */
    bool is_sole;
};

enum cache_completion { CACHE_FILLED, CACHE_DECLINED, CACHE_VOIDED, CACHE_BANNED };

/*
 * Ends a flight: its waiters come back in the order they came, and the reply is stored unless the
 * flight is void, an epoch it depends on has ended, it is older than max_staleness_us, or fill is
 * NULL (error, unknown deadline, link lost): then the key is invalidated (CACHE_VOIDED).
 * CACHE_DECLINED: it may have been kept, but was unwanted, or the memory tier had no use for it;
 * CACHE_BANNED: a standing ban did not. Frees the flight.
 */
enum cache_completion cache_complete(struct cache *cache, struct cache_flight **flight,
                                     const struct cache_fill *fill, int64_t now_us,
                                     int64_t max_staleness_us, struct cache_waiter **waiters);

/* Remembers that a view's reply is too large to keep, so that readers of its key relay at once
 * until then. */
void cache_note_oversized(struct cache *cache, uint64_t hash, int64_t until_us);

/*
 * Drops all views of key in every database, voids its flights. Returns whether a live entry went;
 * the caller counts it by reason.
 */
bool cache_invalidate(struct cache *cache, struct bytes key);

/*
 * Of a namespace: hits this long before their deadline say so, and for this long after it, where
 * they were filled with a grace. Any thread.
 */
void cache_set_margin(struct cache *cache, unsigned ns, int64_t early_us, int64_t grace_us);

/* ---- housekeeping: the control thread ---- */

/*
 * Visits up to n_buckets buckets, removing what has expired or lost its epoch, at most a few
 * hundred instructions per lock hold; comes round once a minute when called every 10 ms with
 * cache_sweep_quota(). Ends of passes recycle incarnations.
 */
void cache_sweep(struct cache *cache, size_t n_buckets, int64_t now_us);
size_t cache_sweep_quota(struct cache *cache, int64_t tick_us);

/*
 * Ten times a second: compares the arena's resident size with what is accounted and adapts the
 * budget.
 */
void cache_tick(struct cache *cache);

/* maxmemory may change while running; entries above a smaller one leave by eviction, bounded per
 * call of cache_tick(). */
void cache_set_maxmemory(struct cache *cache, size_t maxmemory);
/* As in struct cache_options; what is there stays. */
void cache_set_limits(struct cache *cache, unsigned negative_percent, size_t max_flights);
/*
 * What the process can spare for tier 1 now, where that is less than maxmemory; it shrinks with the
 * next ticks, and grows again slowly. SIZE_MAX: maxmemory alone counts.
 */
void cache_set_ceiling(struct cache *cache, size_t ceiling);

/*
 * Drops every entry of ns (or all with ns < 0) and voids all flights, at once and without looking
 * at them: the sweep removes them. Returns how many entries that is, those included that had
 * expired and were not found out yet. Any thread.
 */
uint64_t cache_clear(struct cache *cache, int ns, enum metric reason);

struct cache_stats {
    uint64_t n_entries, n_negative, n_views, n_flights;
    size_t accounted_bytes; /* entries, tables, ghosts: what maxmemory bounds */
    size_t metadata_bytes;  /* of these, what is neither key, reply nor size-class rounding */
    size_t budget_bytes, maxmemory;
    size_t arena_resident_bytes, arena_active_bytes;
    uint64_t n_small, n_main; /* entries in S and M */
};
void cache_stats(struct cache *cache, struct cache_stats *stats);
void cache_ns_stats(struct cache *cache, unsigned ns, uint64_t *n_entries, uint64_t *n_bytes);

/* CACHE GET: calls out once per view of key in db, newest facts, without counting a hit. */
struct cache_view_info {
    uint16_t command; /* 0: GET */
    struct bytes args;
    size_t reply_bytes;
    int64_t deadline_us; /* CACHE_NO_DEADLINE */
    int64_t age_s;       /* of the key's oldest view; INT64_MAX: more than 12 hours */
    bool is_negative;
    uint8_t ns, hits;
    uint16_t incarnation;
    bool is_live; /* would be served as far as epochs and deadline go */
    size_t entry_bytes;
    const char *queue; /* "small", "main" */
};
/* Copies up to max views; returns their number. args point into args_storage. */
unsigned cache_inspect(struct cache *cache, struct bytes key, uint32_t db, int64_t now_us,
                       struct cache_view_info *views, unsigned max, unsigned char *args_storage,
                       size_t storage_size);

#endif
