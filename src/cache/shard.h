/*
 * shard.h - one part of the cache: lock, table, queues, flights and byte budget
 *
 * Purpose:    what cache.c and housekeeping.c share. A shard holds all databases of its keys, so
 *             that a key's record is under one lock.
 * Ownership:  part of struct cache. What leaves under the lock is collected in a struct shard_work
 *             and freed by shard_finish() after it.
 * Threading:  functions ending in _locked need the shard's lock, a leaf but for those of the
 *             epochs and of jemalloc's hooks, which are never taken under it.
 * Errors:     none; what does not fit is declined.
 * Units:      bytes, ticks of 1/64 s.
 */
#ifndef NC_CACHE_SHARD_H
#define NC_CACHE_SHARD_H

#include <pthread.h>

#include "cache/flight.h"
#include "cache/gone.h"
#include "cache/policy.h"
#include "cache/table.h"
#include "cache/tag_bans.h"
#include "cache/watch.h"

#define SHARDS_MAX 64u
#define SHARD_NOTES 32u
#define SHARD_PIN_HEADS 16u
/* Entries looked at for eviction under one lock. */
#define SHARD_TOUCH_MAX 32u

/* A view too large to keep: readers of such keys relay. A false match costs a relay. */
struct shard_note {
    uint32_t hash;
    uint32_t until_tick;
};

/* More readers of one object than its 4 bits count. */
struct shard_pins {
    arena_ref object;
    unsigned n;
    struct shard_pins *next;
};

struct shard {
    pthread_mutex_t lock;
    uint32_t ban_mark;      /* lock: buckets with another one hold entries to be judged */
    uint32_t n_late;        /* lock: look-ups that met such a bucket */
    uint64_t ban_serial;    /* lock: of the newest ban */
    struct table table;     /* lock */
    struct policy policy;   /* lock: its queues hold what the table holds */
    struct flights flights; /* lock; the pointer itself: init */
    size_t overhead_bytes;  /* lock: table, ghost, this struct and its arrays */
    size_t detached_bytes;  /* lock: removed while a reply was being written from them */
    size_t metadata_bytes;  /* lock: of the entries */
    size_t negative_bytes;  /* lock */
    uint64_t n_negative;    /* lock */
    uint64_t n_views;       /* lock */
    uint64_t n_scoped;      /* lock: entries outside database 0 */
    bool is_resizing;       /* lock: somebody makes a new table or ghost */
    struct shard_pins *pins[SHARD_PIN_HEADS];       /* lock */
    struct shard_note notes[SHARD_NOTES];           /* lock */
    struct cache_watch *watches[CACHE_WATCH_HEADS]; /* lock: by hash of the key */
    unsigned n_watches;                             /* lock */
    struct gone gone;                               /* lock: by scoped hash */
} __attribute__((aligned(64)));

/* Where a walk over all entries stands. */
struct shard_walk {
    unsigned shard, head;
    uint32_t bucket, generation;
    bool has_generation;
};

struct ban; /* opaque */

/* An immutable set of bans: readers hold a shard's lock, and an old set goes after all of them. */
struct ban_set {
    unsigned n, n_standing, n_pending;
    uint64_t newest;     /* serial of the newest one that is pending */
    struct ban *items[]; /* newest first */
};

/* What bans.c keeps. */
struct bans {
    pthread_mutex_t lock;          /* taken before a shard's */
    _Atomic(struct ban_set *) set; /* lock for writing, any shard's for reading; NULL: no bans */
    uint64_t serial;               /* lock: of the newest ban */
    uint64_t serial_then,
        serial_settled;                 /* lock: at the passes of the sweep under way, and before */
    uint64_t pass;                      /* lock: number of the sweep's pass */
    unsigned max_bans;                  /* lock */
    int64_t first_expiry_us;            /* lock */
    _Atomic int64_t longest_section_us; /* atomic */
    _Atomic int64_t longest_slice_us;   /* atomic */
    _Atomic int64_t ns_doomed[256];     /* atomic: entries, dropped by namespace */
    _Atomic uint64_t ns_serial[256];    /* atomic: of that ban */
    struct tag_bans tags;
};

struct cache {
    struct epochs *epochs;                   /* init */
    struct epochs_incarnation *incarnations; /* init: epochs_at(epochs, 0) */
    struct shard *shards;                    /* init */
    unsigned n_shards;                       /* init: a power of two */
    _Atomic unsigned negative_percent;       /* atomic */
    _Atomic size_t max_flights;              /* atomic */
    _Atomic(cache_slot_fn) slot_of;          /* atomic */
    _Atomic size_t n_flights;                /* atomic: void ones too */
    _Atomic unsigned n_watches;              /* atomic */
    _Atomic size_t maxmemory;                /* atomic */
    _Atomic size_t ceiling;                  /* atomic: instead of maxmemory, where that is more */
    _Atomic size_t shard_budget;             /* atomic: what each shard may use now */
    _Atomic uint64_t n_buckets;              /* atomic: of all tables, for the sweep's pace */
    _Atomic uint64_t dbs[CACHE_DBS / 64];    /* atomic: which have had entries; never cleared */
    _Atomic uint64_t ns_entries[256];        /* atomic */
    _Atomic uint64_t ns_bytes[256];          /* atomic */
    _Atomic uint32_t ns_stale_ticks[256];    /* atomic: cache_set_stale() */
    _Atomic uint32_t margins[256];           /* atomic, ticks: a deadline nearer is said */
    _Atomic uint32_t graces[256];            /* atomic, ticks: of these behind the deadline */
    struct bans bans;
    struct shard_walk sweep, compaction; /* control thread */
    bool is_sweeping;                    /* control thread: between begin and end of a pass */
};

/* Collected under the lock, done after it. */
struct shard_work {
    arena_ref trash; /* linked by their first field */
    struct table_bucket *retired_table;
    uint32_t *retired_ghost;
    size_t wanted_table, wanted_ghost;
};

/* Kept: not to be shown, but for cache_get_stale(). */
enum entry_state { STATE_LIVE, STATE_KEPT, STATE_EXPIRED, STATE_ENDED };

static inline struct shard *shard_of(const struct cache *cache, uint64_t hash)
{
    return &cache->shards[(hash >> 8) & (cache->n_shards - 1)];
}

void shard_init(struct shard *shard, struct cache *cache, struct table_bucket *buckets,
                unsigned n_flight_heads);
void shard_fini(struct shard *shard);

/* ---- what an entry depends on ---- */

static inline unsigned shard_slot(const struct cache *cache, struct bytes key)
{
    const cache_slot_fn slot_of = atomic_load_explicit(&cache->slot_of, memory_order_relaxed);

    return slot_of != NULL ? slot_of(key) : 0;
}

/* Its incarnation has ended, or its slot has left the node. */
static inline bool shard_has_ended(const struct cache *cache, uint16_t number, struct bytes key)
{
    const struct epochs_incarnation *incarnation = &cache->incarnations[number];

    return NC_UNLIKELY(!epochs_is_live(incarnation)) ||
           (NC_UNLIKELY(epochs_has_moves(incarnation)) &&
            epochs_has_moved(incarnation, shard_slot(cache, key)));
}

enum entry_state shard_state_of(const struct cache *cache, const struct entry *entry,
                                uint32_t now_tick);
/*
 * Ticks for which an entry may still be shown while its node cannot be asked: 0 for none. What
 * bounds it is the watermark of its incarnation, and how long ago deadline has passed.
 */
uint32_t shard_stale_left(const struct cache *cache, const struct entry *entry, uint32_t deadline,
                          uint32_t now_tick);

/* ---- finding ---- */

struct shard_wanted {
    struct bytes key;
    uint32_t db;
};

static inline bool shard_match(uint32_t ref, const void *what)
{
    const struct shard_wanted *wanted = what;
    const struct entry *entry = entry_at(ref);

    /* The reply behind the key is wanted next: its lines come while the key is compared. */
    __builtin_prefetch((const unsigned char *)entry + 64);
    __builtin_prefetch((const unsigned char *)entry + 128);
    return entry_has(entry, wanted->key, wanted->db);
}

/* The place of the entry's reference in the table, or NULL. hash is the scoped one. */
static inline uint32_t *shard_find_locked(const struct shard *shard, uint64_t hash,
                                          struct bytes key, uint32_t db)
{
    const struct shard_wanted wanted = {key, db};

    return table_find(&shard->table, hash, shard_match, &wanted);
}

/* ---- bans (bans.c); under a shard's lock unless they say otherwise ---- */

/* Not under a lock. */
void bans_init(struct cache *cache);
void bans_fini(struct cache *cache);

/* Whether a ban that came after it drops the flight; ns: -1 while nobody knows it. */
bool bans_match_flight(const struct cache *cache, const struct cache_flight *flight, int ns);
/* Whether a standing ban keeps out what would be filled now; brings *deadline forward otherwise. */
bool bans_refuse(const struct cache *cache, struct bytes key, const struct cache_fill *fill,
                 size_t cost, uint32_t *deadline, int64_t now_us);
/* Whether a ban drops an entry of this bucket. */
bool bans_match_entry(const struct cache *cache, const struct shard *shard,
                      const struct table_bucket *bucket, const struct entry *entry, int64_t now_us);
/* Judges all entries of a bucket that has another mark than the shard; those that match go. */
void bans_settle_locked(struct cache *cache, struct shard *shard, struct table_bucket *bucket,
                        struct shard_work *work);
/* The same for one that was found: of the others perhaps none, whose bucket keeps its mark then. */
void bans_settle_found_locked(struct cache *cache, struct shard *shard, struct table_bucket *bucket,
                              uint32_t ref, struct shard_work *work);
/* An entry leaves the bucket, and the cache. */
void bans_note_gone_locked(struct cache *cache, const struct shard *shard,
                           const struct table_bucket *bucket, const struct entry *entry);
/* Around a section of the sweep, to know the longest while bans wait. 0: none do. */
int64_t bans_section_begin(const struct cache *cache);
void bans_section_end(struct cache *cache, int64_t began_us);
/* Around a pass of the sweep over everything: the control thread, without a lock. */
void bans_pass_begin(struct cache *cache);
void bans_pass_end(struct cache *cache);

/* The place of the entry's reference, or NULL, once every ban that there is has been asked. */
static inline uint32_t *shard_find_judged_locked(struct cache *cache, struct shard *shard,
                                                 uint64_t hash, struct bytes key, uint32_t db,
                                                 struct shard_work *work)
{
    uint32_t *slot = shard_find_locked(shard, hash, key, db);

    if (slot != NULL && NC_UNLIKELY(table_bucket_of(slot)->mark != shard->ban_mark)) {
        bans_settle_found_locked(cache, shard, table_bucket_of(slot), *slot, work);
        slot = shard_find_locked(shard, hash, key, db);
    }
    return slot;
}

/* The lowest database above db that has had entries and may have some in this shard; 0: no more. */
uint32_t shard_next_db_locked(const struct cache *cache, const struct shard *shard, uint32_t db);

/* ---- bytes ---- */

static inline size_t shard_used_locked(const struct shard *shard)
{
    return policy_bytes(&shard->policy) + shard->detached_bytes + shard->overhead_bytes;
}

/* What entries together may take. */
size_t shard_entry_budget_locked(const struct cache *cache, const struct shard *shard);

/* Around any change of what an entry holds, so that the sums stay exact. */
struct entry_sizes shard_uncount_locked(struct cache *cache, struct shard *shard,
                                        const struct entry *entry);
struct entry_sizes shard_count_locked(struct cache *cache, struct shard *shard,
                                      const struct entry *entry);

/* ---- removing ---- */

/* An object that no entry refers to any more: to the trash, or left to its readers. */
void shard_drop_locked(struct shard *shard, struct shard_work *work, void *object, bool is_block);
/* Takes the entry out of table and queues. hash is the scoped one. */
void shard_remove_locked(struct cache *cache, struct shard *shard, struct entry *entry,
                         uint64_t hash, struct shard_work *work);
/* Counts why it goes (expired, epoch ended) and removes it; a live one is not counted. */
void shard_remove_dead_locked(struct cache *cache, struct shard *shard, struct entry *entry,
                              uint64_t hash, enum entry_state state, struct shard_work *work);
/* Takes one view out of an entry that has several. */
void shard_remove_view_locked(struct cache *cache, struct shard *shard, struct entry *entry,
                              const struct entry_view *view, struct shard_work *work);

enum shard_room {
    ROOM_MADE,
    ROOM_LATER, /* SHARD_TOUCH_MAX entries have been looked at: leave the lock and come again */
    ROOM_NONE,  /* nothing is left that could go */
};
/* Evicts until need more bytes fit; of negative entries: into their share, too. */
enum shard_room shard_make_room_locked(struct cache *cache, struct shard *shard, size_t need,
                                       bool is_negative, uint32_t now_tick,
                                       struct shard_work *work);

/* ---- leaving the lock ---- */

/* Decides whether table or ghost need another size; moves n buckets of a table that is moving. */
void shard_plan_locked(struct cache *cache, struct shard *shard, unsigned n_moves,
                       struct shard_work *work);
/* After the lock: frees, and makes the table and ghost that were planned. Empties work. */
void shard_finish(struct cache *cache, struct shard *shard, struct shard_work *work);

/* ---- compaction: the control thread ---- */

/*
 * Moves entries out of slabs that are mostly free, in n_sections times two sections, going on where
 * the last call ended.
 */
void shard_compact(struct cache *cache, unsigned n_sections);

/* ---- readers of large replies ---- */

struct cache_entry *shard_pin_locked(struct cache *cache, struct shard *shard,
                                     const struct entry_view *view);

#endif
