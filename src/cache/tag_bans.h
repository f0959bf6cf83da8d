/*
 * tag_bans.h - the tags of rules that were invalidated: a set that entries are looked up in
 *
 * Purpose:    dropping all entries that have a tag by their names costs one place in this set,
 *             however many entries there are; judging an entry costs its own tags, however many
 *             tags wait. (A ban for each would be asked one after the other.)
 * Ownership:  part of struct bans.
 * Threading:  written under the lock of the bans; read under any shard's lock. What leaves is freed
 *             by the caller when every shard's lock has been taken once.
 * Errors:     a set that is full takes nothing: then everything is to be dropped.
 *
 * A tag is its hash: two that share one are dropped together, which costs a fetch. There are two
 * tables: what came before the sweep's pass under way, and what came since.
 */
#ifndef NC_CACHE_TAG_BANS_H
#define NC_CACHE_TAG_BANS_H

#include "base/stats.h"
#include "config/tag_rules.h"

#include <stdatomic.h>

struct tag_table; /* opaque */

struct tag_bans {
    _Atomic(struct tag_rules *) rules;       /* NULL: none */
    _Atomic(struct tag_table *) young, old; /* NULL: empty */
    _Atomic uint64_t newest;                 /* serial of the newest one; 0: none waits */
    size_t max;                              /* lock of the bans */
};

/* Some tag was invalidated behind this serial. */
static inline bool tag_bans_since(const struct tag_bans *bans, uint64_t serial)
{
    return NC_UNLIKELY(atomic_load_explicit(&bans->newest, memory_order_acquire) > serial);
}

/*
 * Why a key of this namespace (-1: not known) goes, if one of its tags was invalidated behind this
 * serial. False: none was.
 */
bool tag_bans_match(const struct tag_bans *bans, int ns, struct bytes key, uint64_t serial,
                    enum metric *reason);

/* The key, of this namespace (-1: not known, then of any), has the tag. */
bool tag_bans_has(const struct tag_bans *bans, int ns, struct bytes key, struct bytes tag);

/* Some key may have the tag. Under the lock of the bans. */
bool tag_bans_know(const struct tag_bans *bans, struct bytes tag);
/* False: full. Under the lock of the bans. is_told: by another proxy. */
NC_MUST_CHECK bool tag_bans_put(struct tag_bans *bans, struct bytes tag, uint64_t serial,
                                bool is_told);
/* A pass of the sweep has ended: what came before it leaves, for the caller to free. */
struct tag_table *tag_bans_turn(struct tag_bans *bans);
void tag_table_free(struct tag_table *table);
unsigned tag_bans_count(const struct tag_bans *bans);

#endif
