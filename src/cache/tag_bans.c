/*
 * Open addressing, never more than half full, never grown: a table is made for all that there may
 * be, of pages that the kernel gives when they are touched. A place is written once (its hash last)
 * and its stamp moves on, so readers need no lock of the writer's.
 */
#include "cache/tag_bans.h"

#include <sys/mman.h>

#include "cache/hash.h"

struct place {
    _Atomic uint64_t hash;  /* 0: free */
    _Atomic uint64_t stamp; /* twice the serial, and 1: told by another proxy */
};

struct tag_table {
    size_t mask, max;
    _Atomic size_t n;
    struct place places[];
};

static uint64_t hash_of(struct bytes tag)
{
    const uint64_t hash = hash_key(tag);

    return hash != 0 ? hash : 1;
}

/* The place of the hash, or the free one where it belongs. */
static struct place *find(struct tag_table *table, uint64_t hash)
{
    size_t at = hash & table->mask;

    for (;;) {
        struct place *place = &table->places[at];
        /* Acquire: partner is the release in tag_bans_put(), behind the stamp. */
        const uint64_t here = atomic_load_explicit(&place->hash, memory_order_acquire);

        if (here == hash || here == 0) {
            return place;
        }
        at = (at + 1) & table->mask;
    }
}

static uint64_t stamp_in(struct tag_table *table, uint64_t hash)
{
    struct place *place;

    if (table == NULL) {
        return 0;
    }
    place = find(table, hash);
    return atomic_load_explicit(&place->hash, memory_order_relaxed) == 0
               ? 0
               : atomic_load_explicit(&place->stamp, memory_order_relaxed);
}

/* The later one of both tables. */
static uint64_t stamp_of(const struct tag_bans *bans, uint64_t hash)
{
    const uint64_t young = stamp_in(atomic_load_explicit(&bans->young, memory_order_acquire), hash);

    return young != 0 ? young
                      : stamp_in(atomic_load_explicit(&bans->old, memory_order_acquire), hash);
}

static bool match_in(const struct tag_bans *bans, const struct tag_rules *rules, unsigned ns,
                     struct bytes key, uint64_t serial, enum metric *reason)
{
    unsigned char room[CAPTURES_TEXT_MAX];
    struct captures found;

    if (!tag_rules_match(rules, ns, key, &found)) {
        return false;
    }
    for (unsigned i = 0; i < tag_rules_count(rules, ns); i++) {
        const size_t length = tag_rules_tag(rules, ns, &found, i, room);

        /* Too long to be looked up: some tag was invalidated, and it may have been this one. */
        if (length == 0) {
            *reason = METRIC_invalidations_tag;
            return true;
        }
        const uint64_t stamp = stamp_of(bans, hash_of(bytes_make(room, length)));

        if (stamp / 2 > serial) {
            *reason = stamp % 2 == 0 ? METRIC_invalidations_tag : METRIC_invalidations_bus;
            return true;
        }
    }
    return false;
}

bool tag_bans_match(const struct tag_bans *bans, int ns, struct bytes key, uint64_t serial,
                    enum metric *reason)
{
    const struct tag_rules *rules = atomic_load_explicit(&bans->rules, memory_order_acquire);

    if (rules == NULL) {
        return false;
    }
    if (ns >= 0) {
        return tag_rules_have(rules, (unsigned)ns) &&
               match_in(bans, rules, (unsigned)ns, key, serial, reason);
    }
    for (unsigned any = 0; any < 256; any++) {
        if (tag_rules_have(rules, any) && match_in(bans, rules, any, key, serial, reason)) {
            return true;
        }
    }
    return false;
}

bool tag_bans_has(const struct tag_bans *bans, int ns, struct bytes key, struct bytes tag)
{
    const struct tag_rules *rules = atomic_load_explicit(&bans->rules, memory_order_acquire);

    if (rules == NULL) {
        return false;
    }
    if (ns >= 0) {
        return tag_rules_have(rules, (unsigned)ns) && tag_rules_has(rules, (unsigned)ns, key, tag);
    }
    for (unsigned any = 0; any < 256; any++) {
        if (tag_rules_have(rules, any) && tag_rules_has(rules, any, key, tag)) {
            return true;
        }
    }
    return false;
}

bool tag_bans_know(const struct tag_bans *bans, struct bytes tag)
{
    const struct tag_rules *rules = atomic_load_explicit(&bans->rules, memory_order_relaxed);

    return rules != NULL && tag_rules_know(rules, tag);
}

static size_t table_bytes(size_t n_places)
{
    return sizeof(struct tag_table) + n_places * sizeof(struct place);
}

/* From the kernel, as the heap would have to clear all of it. NULL: no memory. */
static struct tag_table *table_new(size_t max)
{
    size_t n = 256;

    while (n < 2 * max) {
        n *= 2;
    }
    struct tag_table *table = mmap(NULL, table_bytes(n), PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (table == MAP_FAILED) {
        return NULL;
    }
    table->mask = n - 1;
    table->max = max;
    return table;
}

bool tag_bans_put(struct tag_bans *bans, struct bytes tag, uint64_t serial, bool is_told)
{
    struct tag_table *table = atomic_load_explicit(&bans->young, memory_order_relaxed);
    const uint64_t hash = hash_of(tag);
    struct place *place;

    if (table == NULL) {
        table = table_new(bans->max);
        if (table == NULL) {
            return false;
        }
        atomic_store_explicit(&bans->young, table, memory_order_release);
    }
    place = find(table, hash);
    if (atomic_load_explicit(&place->hash, memory_order_relaxed) == 0) {
        const size_t n = atomic_load_explicit(&table->n, memory_order_relaxed);

        if (n >= table->max) {
            return false;
        }
        atomic_store_explicit(&table->n, n + 1, memory_order_relaxed);
    }
    atomic_store_explicit(&place->stamp, 2 * serial + is_told, memory_order_relaxed);
    /* Release: partner is the acquire in find(). */
    atomic_store_explicit(&place->hash, hash, memory_order_release);
    atomic_store_explicit(&bans->newest, serial, memory_order_release);
    return true;
}

struct tag_table *tag_bans_turn(struct tag_bans *bans)
{
    struct tag_table *young = atomic_load_explicit(&bans->young, memory_order_relaxed);
    struct tag_table *gone = atomic_load_explicit(&bans->old, memory_order_relaxed);

    /* In this order, so that a reader in between finds what is young in one of both. */
    atomic_store_explicit(&bans->old, young, memory_order_release);
    atomic_store_explicit(&bans->young, NULL, memory_order_release);
    if (young == NULL) {
        atomic_store_explicit(&bans->newest, 0, memory_order_release);
    }
    return gone;
}

void tag_table_free(struct tag_table *table)
{
    if (table != NULL) {
        (void)munmap(table, table_bytes(table->mask + 1));
    }
}

static size_t count_in(const struct tag_table *table)
{
    return table != NULL ? atomic_load_explicit(&table->n, memory_order_relaxed) : 0;
}

unsigned tag_bans_count(const struct tag_bans *bans)
{
    return (unsigned)(count_in(atomic_load_explicit(&bans->young, memory_order_relaxed)) +
                      count_in(atomic_load_explicit(&bans->old, memory_order_relaxed)));
}
