/*
 * entry.h - how a key and its views lie in memory
 *
 *     GET alone:     | header 24 | key | db 4, if scoped | reply of GET |
 *     other views:   | header 24 | key | db 4, if scoped |                 `body` refers to the
 * list: [holder ->] block -> block ... block:         | header 16 | arguments | reply | holder:
 * what had been, or would be, the entry for GET alone; holds GET's reply
 *
 * Purpose:    a key that is only read by GET pays nothing for the possibility of other views, and
 *             no view ever has to be copied when another one comes or goes.
 * Ownership:  the shard's; objects (entry, holder, block) are blocks of the arena, made before the
 *             lock and freed after it.
 * Threading:  none; the shard's lock. Building one needs no lock.
 * Errors:     building: NULL when there is no memory.
 * Units:      bytes; deadlines are ticks of 1/64 s, modulo 2^32, 0 is "none".
 */
#ifndef NC_CACHE_ENTRY_H
#define NC_CACHE_ENTRY_H

#include "cache/arena.h"
#include "cache/cache.h"

#define ENTRY_TICK_US 15625
#define ENTRY_HITS_MAX 3
/* 28 bits of a body. */
#define ENTRY_REPLY_MAX (((size_t)1 << 28) - 1)
/* Of a body, in the highest two bits; its encoding has the two below. */
#define ENTRY_RENEWABLE 2u
#define ENTRY_GRACE 1u
/* 11 bits of a block's word. */
#define ENTRY_COMMAND_MAX 2047u
/* This many readers: the exact number is kept elsewhere. */
#define ENTRY_PINS_MAX 15u

enum {
    ENTRY_MORE = 1,     /* body refers to the list of views, not to a reply behind the key */
    ENTRY_FIRST = 2,    /* GET's view is there: behind the key, or with ENTRY_MORE in the holder */
    ENTRY_SCOPED = 4,   /* not database 0 */
    ENTRY_DETACHED = 8, /* out of the cache; the last reader frees it */
    ENTRY_PIN = 16,     /* one reader; 4 bits */
};

struct entry {
    arena_ref next,
        prev;          /* neighbours in the policy's queue; next: also the list of views, trash */
    uint32_t deadline; /* with ENTRY_MORE: the latest of the views' */
    uint32_t body;     /* length of the reply (28 bits) and its encoding (4), or a reference */
    uint16_t incarnation, key_len;
    uint8_t ns;
    uint8_t hits;
    uint8_t queue; /* the policy's queue; highest bit: the key does not exist */
    uint8_t flags;
    uint16_t filled;     /* ENTRY_OLD, or when its oldest view was fetched: entry_second() */
    unsigned char key[]; /* then the scope, then GET's reply */
};

/* The structure's own size has padding, in which the key begins. */
#define ENTRY_HEAD offsetof(struct entry, key)

struct entry_block {
    arena_ref next;
    uint32_t deadline;
    uint32_t body; /* length of the reply and its encoding */
    uint16_t args_len;
    uint16_t word; /* command (11 bits), ENTRY_DETACHED's twin, pins (4 bits) */
};

_Static_assert(ENTRY_HEAD == 26 && sizeof(struct entry_block) == 16, "compact headers");

/* A view, wherever it lies. */
struct entry_view {
    arena_ref object; /* whose memory holds the reply */
    bool is_block;
    uint16_t command;
    enum cache_encoding encoding;
    uint32_t deadline;
    struct bytes args, reply;
};

/* What an entry with all its views takes. */
struct entry_sizes {
    size_t cost;     /* as accounted: size classes */
    size_t metadata; /* of these, what is neither key, nor payload, nor rounding */
    unsigned n_views;
};

/* ---- time ---- */

static inline uint32_t entry_tick(int64_t now_us)
{
    return (uint32_t)(now_us / ENTRY_TICK_US);
}

static inline bool entry_is_past(uint32_t deadline, uint32_t now_tick)
{
    return deadline != 0 && (int32_t)(deadline - now_tick) <= 0;
}

/* Rounds down. False: it has passed already, or would by rounding. */
bool entry_deadline(int64_t deadline_us, int64_t now_us, uint32_t *deadline);
/* The instant that a deadline stands for, near now_us. */
int64_t entry_deadline_us(uint32_t deadline, int64_t now_us);

/*
 * When it was fetched, to the second: of any 18 hours. The sweep calls what is older than
 * ENTRY_AGE_MAX seconds ENTRY_OLD, long before a number could mean another time.
 */
#define ENTRY_OLD ((uint16_t)0)
#define ENTRY_AGE_MAX 43200

static inline uint16_t entry_second(int64_t now_us)
{
    return (uint16_t)(1 + now_us / 1000000 % UINT16_MAX);
}

/* In seconds, rounded up; INT64_MAX: more than ENTRY_AGE_MAX. */
static inline int64_t entry_age(uint16_t filled, int64_t now_us)
{
    const int32_t age = (int32_t)entry_second(now_us) - (int32_t)filled;

    return filled == ENTRY_OLD ? INT64_MAX : (age < 0 ? age + UINT16_MAX : age);
}

/* ---- fields ---- */

static inline struct entry *entry_at(arena_ref ref)
{
    return arena_at(ref);
}

static inline struct bytes entry_key(const struct entry *entry)
{
    return bytes_make(entry->key, entry->key_len);
}

uint32_t entry_db(const struct entry *entry);

static inline bool entry_is_negative(const struct entry *entry)
{
    return (entry->queue & 0x80) != 0;
}

/* What the table is asked with: the key's hash, and in other databases than 0 theirs. */
uint64_t entry_scoped_hash(uint64_t key_hash, uint32_t db);
uint64_t entry_hash(const struct entry *entry);

static inline bool entry_has(const struct entry *entry, struct bytes key, uint32_t db)
{
    const bool is_scoped = (entry->flags & ENTRY_SCOPED) != 0;

    return entry->key_len == key.len && is_scoped == (db != 0) &&
           memcmp(entry->key, key.ptr, key.len) == 0 && (!is_scoped || entry_db(entry) == db);
}

/* ---- views ---- */

static inline enum cache_encoding entry_body_encoding(uint32_t body)
{
    return (enum cache_encoding)(body >> 28 & 3);
}

static inline size_t entry_body_length(uint32_t body)
{
    return body & ENTRY_REPLY_MAX;
}

/* GET's reply of an entry without ENTRY_MORE, or of a holder. */
static inline struct bytes entry_own_reply(const struct entry *entry)
{
    const size_t scope = (entry->flags & ENTRY_SCOPED) != 0 ? sizeof(uint32_t) : 0;

    return bytes_make(entry->key + entry->key_len + scope, entry_body_length(entry->body));
}

/* False: no such view. */
bool entry_find_view(const struct entry *entry, uint16_t command, struct bytes args,
                     struct entry_view *view);
/* ENTRY_RENEWABLE; ENTRY_GRACE: its deadline is the end of its grace. */
unsigned entry_view_marks(const struct entry_view *view);
/* All views, at most max; returns their number. */
unsigned entry_views(const struct entry *entry, struct entry_view *views, unsigned max);
struct entry_sizes entry_measure(const struct entry *entry);
/* What was asked for when the entry was built, without other objects. */
size_t entry_own_size(const struct entry *entry);
/* Size class of one object. */
size_t entry_object_cost(const void *object, bool is_block);

/* ---- building, outside the lock ---- */

struct entry *entry_new(struct bytes key, uint32_t db, uint16_t incarnation, uint8_t ns,
                        bool is_negative);
/* The same with GET's view. A negative one holds no reply. */
struct entry *entry_new_get(struct bytes key, uint32_t db, uint16_t incarnation,
                            const struct cache_fill *fill, uint32_t deadline);
struct entry_block *entry_block_new(uint16_t command, struct bytes args,
                                    const struct cache_fill *fill, uint32_t deadline);

/* ---- changing views, under the lock. Dropped objects are handed to the caller through drop. ----
 */

typedef void (*entry_drop_fn)(void *context, void *object, bool is_block);

/*
 * Gives entry, which has ENTRY_MORE, a view: replaces the one of the same kind. Afterwards the
 * oldest blocks go while there are more than CACHE_VIEWS_MAX views, or more than max_bytes.
 */
void entry_set_holder(struct entry *entry, struct entry *holder, entry_drop_fn drop, void *context);
void entry_set_block(struct entry *entry, struct entry_block *block, entry_drop_fn drop,
                     void *context);
void entry_limit_views(struct entry *entry, size_t max_bytes, entry_drop_fn drop, void *context);
/* Takes one view out; the entry may be left without any. Needs ENTRY_MORE. */
void entry_drop_view(struct entry *entry, arena_ref object, entry_drop_fn drop, void *context);
/* No view lasts longer than deadline. */
void entry_cap_deadline(struct entry *entry, uint32_t deadline);
/* All objects but the entry itself. */
void entry_drop_views(struct entry *entry, entry_drop_fn drop, void *context);

/* ---- readers of an object ---- */

unsigned entry_pins(const void *object, bool is_block);
void entry_set_pins(void *object, bool is_block, unsigned n_pins);
bool entry_is_detached(const void *object, bool is_block);
void entry_set_detached(void *object, bool is_block);

#endif
