/*
 * arena.h - the memory of tier 1: one range of addresses, handed out by one jemalloc arena
 *
 * Purpose:    4-byte references instead of pointers, size classes that can be accounted to the
 *             byte, and a resident size that can be asked for. The range is reserved without
 *             access and made writable part by part, as the arena grows.
 * Ownership:  the arena is made by the first arena_init() and lives as long as the process; blocks
 *             belong to whoever allocated them.
 * Threading:  any thread; no call is made under a shard lock, as any may enter the kernel.
 * Errors:     arena_init(): -ENOMEM, said in the log. arena_alloc(): NULL.
 * Units:      bytes; a reference counts 16 bytes from the start of the range, 0 is "none".
 */
#ifndef NC_CACHE_ARENA_H
#define NC_CACHE_ARENA_H

#include "base/check.h"

#include <stddef.h>
#include <stdint.h>

typedef uint32_t arena_ref;

#define ARENA_NONE ((arena_ref)0)
#define ARENA_GRAIN ((size_t)16)

/* Reserves the range (once). maxmemory is what the range has to serve at least. */
NC_MUST_CHECK int arena_init(size_t maxmemory);
/* What the range can hold; 0 before arena_init(). */
size_t arena_range_bytes(void);

/* Not zeroed, aligned to ARENA_GRAIN; size is at least that. NULL also while memory is short. */
NC_MUST_CHECK void *arena_alloc(size_t size);
/* Zeroed and touched, aligned to a cache line: for tables. */
NC_MUST_CHECK void *arena_alloc_table(size_t size);
/* Accepts NULL. */
void arena_free(void *block);

/*
 * How empty the slabs are that n blocks lie in: free parts of 1024. 0 for large blocks and where it
 * is not known. Blocks may have been freed meanwhile. n is at most ARENA_QUERY_MAX.
 */
#define ARENA_QUERY_MAX 48u
void arena_query_room(void *const *blocks, unsigned n, unsigned *rooms);

/* What a block of this size takes: its size class, and the page that jemalloc adds to large ones.
 */
size_t arena_cost(size_t size);
/* The largest size class that is not above size / the smallest that is above it. */
size_t arena_class_at_most(size_t size);
size_t arena_class_above(size_t size);

extern unsigned char *arena_base; /* init */

static inline void *arena_at(arena_ref ref)
{
    return arena_base + (size_t)ref * ARENA_GRAIN;
}

static inline arena_ref arena_ref_of(const void *block)
{
    return (arena_ref)((size_t)((const unsigned char *)block - arena_base) / ARENA_GRAIN);
}

struct arena_stats {
    size_t resident_bytes, active_bytes, allocated_bytes;
};

/* Asks jemalloc for fresh figures: tens of microseconds. */
void arena_read_stats(struct arena_stats *stats);
/* Gives back what has been unused for a while / everything unused, at once. */
void arena_decay(void);
void arena_purge(void);

#endif
