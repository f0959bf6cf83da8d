/*
 * bans.h - dropping entries by what they are, without looking for them
 *
 * Purpose:    drop all entries that a rule describes (name or tag, namespace, age, size) at
 *             once: from
 *             here on no look-up shows one of them and no fetch that was under way fills one. The
 *             entries themselves go when they are met, by a look-up, an eviction or the sweep. A
 *             standing ban also keeps what it describes from being cached, until it is removed or
 *             its time is over; any other one is retired when the sweep has been round.
 * Ownership:  part of the cache, which copies the names it is given.
 * Threading:  any thread; bans_sweep() the control thread. The lock of the bans is taken before
 *             those of the shards, one after the other, and never under one.
 * Errors:     BAN_FULL: there are as many standing bans as cache_set_max_bans() allows. Too many
 *             others never fail: then everything is dropped instead (BAN_EVERYTHING), and counted.
 * Units:      instants in clock_now_us(); ages milliseconds, known to the second and up to 12
 *             hours: what is older is of any age; sizes bytes, as accounted.
 */
#ifndef NC_CACHE_BANS_H
#define NC_CACHE_BANS_H

#include "base/stats.h"
#include "cache/cache.h"

struct tag_rules;

/* Longest prefix or pattern. */
#define BAN_NAME_MAX ((size_t)1024)

/* BAN_TAG: keys that have this tag by their names; what the ledger keeps is not known here. */
enum ban_name { BAN_ANY_NAME, BAN_PREFIX, BAN_GLOB, BAN_TAG };

/* All that is said must hold. */
struct ban_rule {
    enum ban_name kind;
    struct bytes name;  /* prefix, pattern or tag */
    int ns;             /* -1: any */
    int64_t min_age_ms; /* 0: any */
    size_t min_bytes;   /* 0: any */
};

struct ban_order {
    struct ban_rule rule;
    enum metric reason; /* METRIC_invalidations_*: what entries that go are counted as */
    bool is_standing;
    uint64_t id;           /* of a standing one */
    int64_t expires_at_us; /* of a standing one; CACHE_NO_DEADLINE: none */
};

/* BAN_NONE: there is no such tag. */
enum ban_outcome { BAN_SET, BAN_EVERYTHING, BAN_FULL, BAN_NONE };

/*
 * *n_held: of a rule that asks for nothing, or for a namespace alone, how many entries were held;
 * else 0, as nobody has counted them.
 */
enum ban_outcome bans_add(struct cache *cache, const struct ban_order *order, int64_t now_us,
                          uint64_t *n_held);
/*
 * Drops what has this tag by its name, whatever else waits for the sweep: never BAN_FULL. Entries
 * that go are counted as reason tag, or bus where another proxy told of it.
 */
enum ban_outcome bans_add_tag(struct cache *cache, struct bytes tag, bool is_told, int64_t now_us);
/*
 * By which rules keys have tags. What waits is forgotten: all that was fetched under other rules
 * must be invalid already.
 */
void cache_set_tag_rules(struct cache *cache, struct tag_rules *rules);

/* A standing one. False: there is none with this id. */
bool bans_remove(struct cache *cache, uint64_t id);
bool bans_has(struct cache *cache, uint64_t id);
/* Some key may have this tag by its name. */
bool bans_know_tag(struct cache *cache, struct bytes tag);

struct ban_info {
    uint64_t id, n_dropped;
    struct ban_rule rule; /* its name stands in `text` */
    int64_t expires_at_us;
    bool is_settled; /* the sweep has been round since it was set */
    unsigned char text[BAN_NAME_MAX];
};
/* Copies up to max standing bans, newest first; returns their number. */
unsigned bans_list(struct cache *cache, struct ban_info *infos, unsigned max);

struct bans_figures {
    unsigned n_tags;                /* pending ones, by tag */
    unsigned n_standing, n_pending; /* pending: the sweep has not been round for them yet */
    int64_t longest_section_us;     /* of the sweep, under one shard's lock */
    int64_t longest_slice_us;       /* of the sweep, in one turn of the control thread */
};
void bans_figures(struct cache *cache, struct bans_figures *figures);

/* At most this many standing ones, and as many that the sweep has not settled. */
void cache_set_max_bans(struct cache *cache, unsigned max_bans);
/* At most this many tags that the sweep has not settled, from the next of its passes on. */
void cache_set_max_tag_bans(struct cache *cache, unsigned max);

/*
 * Every few milliseconds: ends standing bans whose time is over, and sweeps for at most budget_us
 * while a ban waits for it.
 */
void bans_sweep(struct cache *cache, int64_t now_us, int64_t budget_us);

/* For tests: as many slices as it takes until none waits. */
void bans_settle_all(struct cache *cache, int64_t now_us);

#endif
