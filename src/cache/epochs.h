/*
 * epochs.h - what makes a whole set of entries valid: incarnations of tracking links, and slots
 *
 * Purpose:    losing a link, a slot or everything drops all that depended on it in O(1).
 *             An incarnation is one unbroken life of a tracking link: entries and flights carry
 *             its 16-bit number and are valid only while it lives. A slot word says who owns a
 *             hash slot and how often the owner changed: a flight that saw another word fills
 *             nothing. An entry carries no slot epoch; a slot that leaves a node sets a bit in the
 *             node's incarnations, which look-ups test until the sweep has removed what they mark.
 * Ownership:  part of the cache.
 * Threading:  any thread. The watermark is stored with release by the link's worker after it has
 *             applied all earlier messages under the shard locks; look-ups load it (acquire) under
 *             the shard lock.
 * Errors:     EPOCHS_NONE when all numbers are taken; the link then fetches nothing until the sweep
 *             has given some back.
 * Units:      watermarks are clock_now_us().
 */
#ifndef NC_CACHE_EPOCHS_H
#define NC_CACHE_EPOCHS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EPOCHS_NONE ((uint16_t)0)
#define EPOCHS_SLOTS 16384

/* Node numbers are given out by the topology and never used again in a process; 0 is "no node". */
typedef uint16_t epochs_node;

/* A cache line each: a watermark is stored at every reply, and others read their own at every hit.
 */
struct epochs_incarnation {
    _Atomic int64_t watermark_us;      /* release by its link, acquire by look-ups */
    _Atomic(_Atomic uint64_t *) moved; /* bitmap of slots that left the node, or NULL */
    _Atomic bool is_live;              /* cleared by any thread, once */
    _Atomic bool is_lapsed;            /* ended by epochs_lapse(), and not closed since */
    _Atomic bool is_used;              /* an entry or a flight may carry it */
    _Atomic uint8_t worker;            /* set when opened: whose link it is */
    _Atomic uint8_t shared;            /* set when opened: epochs_open_shared(), 0 else */
    _Atomic epochs_node node;          /* set when opened */
    /* Set by the link before anything carries the number: which node showed it, a replica perhaps,
     * and whether the link hears of writes. */
    _Atomic epochs_node shown_by;
    _Atomic bool is_told;
} __attribute__((aligned(64)));

struct epochs; /* opaque */

/* NULL: no address space. */
struct epochs *epochs_new(void);
void epochs_free(struct epochs **epochs);

/*
 * A new live incarnation with its watermark at now_us. Numbers are given out in turn, so that one
 * that has ended is not soon another's; who holds a number finds out by epochs_is_live().
 */
uint16_t epochs_open(struct epochs *epochs, epochs_node node, unsigned worker, int64_t now_us);
/*
 * The same for all workers at once: what they fetch, each over a link of its own, lives as long as
 * one link of `worker` to the node hears of writes. shared: what that link is, above 0.
 */
uint16_t epochs_open_shared(struct epochs *epochs, epochs_node node, unsigned worker,
                            uint8_t shared, int64_t now_us);
/* Ends it: whatever carries it is invalid from here on. Idempotent; EPOCHS_NONE is accepted. */
void epochs_close(struct epochs *epochs, uint16_t incarnation);
/*
 * The same where its node has gone silent, not what was read: what carries it is never valid again,
 * but may be shown while the node cannot be asked, until epochs_end_lapsed() or epochs_close(), or
 * for as long as epochs_keep_lapsed() says. Its watermark stays where it was. now_us: the time.
 */
void epochs_lapse(struct epochs *epochs, uint16_t incarnation, int64_t now_us);
/* All of them: something may have been missed of any. */
void epochs_lapse_all(struct epochs *epochs, int64_t now_us);
/* How long behind its watermark a lapsed one is of use; 0 (the default): epochs_lapse() closes. */
void epochs_keep_lapsed(struct epochs *epochs, int64_t keep_us);
/* The node has answered what it was asked at sent_at_us: what had lapsed before is closed. */
void epochs_end_lapsed(struct epochs *epochs, epochs_node node, int64_t sent_at_us);
/* Ends all of them (FLUSHALL, reload). Links open new ones when they next fetch. */
void epochs_close_all(struct epochs *epochs);

/* They stand in one array: epochs_at(epochs, 0)[incarnation] is the same. */
struct epochs_incarnation *epochs_at(struct epochs *epochs, uint16_t incarnation);

static inline bool epochs_is_live(const struct epochs_incarnation *incarnation)
{
    return atomic_load_explicit(&incarnation->is_live, memory_order_acquire);
}

/* Not valid, but what carries it may be shown while its node cannot be asked. */
static inline bool epochs_is_lapsed(const struct epochs_incarnation *incarnation)
{
    return atomic_load_explicit(&incarnation->is_lapsed, memory_order_acquire);
}

/* As epochs_is_live(), for who is about to let a flight carry it: it will not be given out again
 * without a sweep. */
static inline bool epochs_use(struct epochs_incarnation *incarnation)
{
    /*
     * Sequentially consistent, with the pair in epochs_close(): either that one sees "used", or
     * this one sees "not live".
     */
    atomic_store_explicit(&incarnation->is_used, true, memory_order_seq_cst);
    return atomic_load_explicit(&incarnation->is_live, memory_order_seq_cst);
}

/*
 * The link has applied every message that its node sent before watermark_us; never goes back.
 * False: the incarnation has ended, its number is to be forgotten. The link's own thread.
 */
bool epochs_advance(struct epochs *epochs, uint16_t incarnation, int64_t watermark_us);

/*
 * Slot words. Standalone backends use slot 0 alone. epochs_assign() marks the slot as moved in
 * every incarnation of its former owner; nothing happens when the owner stays.
 */
uint32_t epochs_slot_word(struct epochs *epochs, unsigned slot);
epochs_node epochs_slot_owner(uint32_t word);
/* Returns true when the owner changed. */
bool epochs_assign(struct epochs *epochs, unsigned slot, epochs_node node);
/* The owner stays, but nothing read before may be kept (import seen): as if it had moved away and
 * back. */
void epochs_disturb(struct epochs *epochs, unsigned slot);

/*
 * True when slot left the incarnation's node since entries were filled under it. Under a shard lock
 * and after epochs_is_live(): the sweep, which takes each of these locks, frees the bitmap.
 */
bool epochs_has_moved(const struct epochs_incarnation *incarnation, unsigned slot);

static inline bool epochs_has_moves(const struct epochs_incarnation *incarnation)
{
    return atomic_load_explicit(&incarnation->moved, memory_order_acquire) != NULL;
}

/*
 * Recycling, by the sweep alone: a full pass over all shards brackets itself with these two. It
 * removes what is not valid and voids such flights. What was closed, and the moved bits that were
 * set, before the pass began are forgotten at its end.
 */
void epochs_sweep_begin(struct epochs *epochs);
void epochs_sweep_end(struct epochs *epochs);
/* Incarnation numbers run short, or slots have moved: a pass is wanted soon. */
bool epochs_wants_sweep(struct epochs *epochs);

/* The oldest watermark of a live incarnation, or INT64_MAX: for the metrics. */
int64_t epochs_oldest_watermark(struct epochs *epochs);

#endif
