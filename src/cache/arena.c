/*
 * The range
 *
 *     base                       base + n_taken                          base + n_range
 *      | mprotect()ed, with the arena | PROT_NONE: costs neither memory nor commit |
 *
 * The arena takes the range from its start to its end and never gives addresses back (dalloc
 * refuses), only pages. Refused: a MAP_NORESERVE range that is writable from the start, because
 * vm.overcommit_memory = 2 denies one of 64 GiB.
 *
 * The thread cache is bypassed in both directions. With it, a slot freed by an eviction is reused
 * at once, so that slabs of a size that has gone out of use never become empty: after values moved
 * from 150 to 900 and to 300 bytes a 256 MiB cache was 63 % over its size, without it 7 %.
 */
#include "cache/arena.h"

#include <errno.h>
#include <jemalloc/jemalloc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"
#include "base/mem.h"

#if defined(__SANITIZE_ADDRESS__)
#define ARENA_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_ASAN 1
#endif
#endif

#if defined(__SANITIZE_THREAD__)
#define ARENA_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define ARENA_TSAN 1
#endif
#endif

#ifdef ARENA_ASAN
#include <sanitizer/asan_interface.h>
#endif
#ifdef ARENA_TSAN
#include <sanitizer/tsan_interface.h>
#endif

/* As far as a 32-bit reference reaches. */
#define RANGE_MAX ((size_t)64 << 30)
/* jemalloc's blocks of metadata want this alignment; starting on it wastes nothing later. */
#define RANGE_ALIGNMENT ((size_t)2 << 20)
#define PAGE ((size_t)4096)
/* jemalloc's smallest large class; these get a page of padding unless opt.cache_oblivious is off.
 */
#define LARGE_MIN ((size_t)16384)
#define CACHE_LINE ((size_t)64)
/* Each growth of the arena is mprotect()ed whole, and committed where the kernel is strict. */
#define GROWTH_MAX ((size_t)32 << 20)
#define DIRTY_DECAY_MS 5000

unsigned char *arena_base;

static struct {
    pthread_mutex_t lock; /* a leaf; taken inside jemalloc */
    size_t n_taken;       /* lock */
    size_t n_range;       /* init */
    size_t large_padding; /* init */
    unsigned index;       /* init */
    int flags;            /* init */
} range = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- extent hooks ---- */

static void *on_alloc(extent_hooks_t *hooks, void *new_addr, size_t size, size_t alignment,
                      bool *zero, bool *commit, unsigned index)
{
    void *extent = NULL;

    (void)hooks;
    (void)index;
    pthread_mutex_lock(&range.lock);
    const uintptr_t base = (uintptr_t)arena_base;
    const uintptr_t start = (base + range.n_taken + alignment - 1) & ~((uintptr_t)alignment - 1);
    const size_t offset = start - base;
    const bool is_wanted_here = new_addr == NULL || (uintptr_t)new_addr == start;

    if (is_wanted_here && offset <= range.n_range && size <= range.n_range - offset &&
        mprotect(arena_base + offset, size, PROT_READ | PROT_WRITE) == 0) {
        range.n_taken = offset + size;
        extent = arena_base + offset;
        *zero = true;
        *commit = true;
    }
    pthread_mutex_unlock(&range.lock);
    return extent;
}

/* True is "no": the addresses stay with the arena. */
static bool on_dalloc(extent_hooks_t *hooks, void *addr, size_t size, bool committed,
                      unsigned index)
{
    (void)hooks, (void)addr, (void)size, (void)committed, (void)index;
    return true;
}

static bool on_purge_forced(extent_hooks_t *hooks, void *addr, size_t size, size_t offset,
                            size_t length, unsigned index)
{
    (void)hooks, (void)size, (void)index;
    return madvise((unsigned char *)addr + offset, length, MADV_DONTNEED) != 0;
}

static bool on_split(extent_hooks_t *hooks, void *addr, size_t size, size_t size_a, size_t size_b,
                     bool committed, unsigned index)
{
    (void)hooks, (void)addr, (void)size, (void)size_a, (void)size_b, (void)committed, (void)index;
    return false;
}

static bool on_merge(extent_hooks_t *hooks, void *addr_a, size_t size_a, void *addr_b,
                     size_t size_b, bool committed, unsigned index)
{
    (void)hooks, (void)addr_a, (void)size_a, (void)addr_b, (void)size_b, (void)committed,
        (void)index;
    return false;
}

static extent_hooks_t hooks_of_range = {
    .alloc = on_alloc,
    .dalloc = on_dalloc,
    .purge_forced = on_purge_forced,
    .split = on_split,
    .merge = on_merge,
};

/* ---- start ---- */

/* One of the arena's own controls: "<area>.<index>.<what>". */
static int control(const char *area, const char *what, void *old, size_t *old_size, void *new,
                   size_t new_size)
{
    char name[64];

    snprintf(name, sizeof(name), "%s.%u.%s", area, range.index, what);
    return mallctl(name, old, old_size, new, new_size);
}

static bool reserve(size_t size)
{
    unsigned char *start = mmap(NULL, size + RANGE_ALIGNMENT, PROT_NONE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (start == MAP_FAILED) {
        return false;
    }
    const size_t skip = (RANGE_ALIGNMENT - (uintptr_t)start % RANGE_ALIGNMENT) % RANGE_ALIGNMENT;
    arena_base = start + skip;
    range.n_range = size;
    /* Offset 0 stays free, so that reference 0 can mean "none". */
    range.n_taken = PAGE;
    /*
     * A huge page would make resident again what was purged around a few live entries, and the
     * promise of maxmemory is about resident memory.
     */
    (void)madvise(arena_base, size, MADV_NOHUGEPAGE);
    return true;
}

static int make_arena(void)
{
    extent_hooks_t *hooks = &hooks_of_range;
    size_t size = sizeof(range.index);
    size_t growth = GROWTH_MAX;
    ssize_t decay_ms = DIRTY_DECAY_MS;
    ssize_t muzzy_ms = 0;
    bool is_padded = true;

    if (mallctl("arenas.create", &range.index, &size, &hooks, sizeof(hooks)) != 0) {
        return -ENOMEM;
    }
    range.flags = MALLOCX_ARENA(range.index) | MALLOCX_TCACHE_NONE;
    /* Preferences: without one of them memory is given back later, nothing else. */
    (void)control("arena", "retain_grow_limit", NULL, NULL, &growth, sizeof(growth));
    (void)control("arena", "dirty_decay_ms", NULL, NULL, &decay_ms, sizeof(decay_ms));
    (void)control("arena", "muzzy_decay_ms", NULL, NULL, &muzzy_ms, sizeof(muzzy_ms));
    size = sizeof(is_padded);
    if (mallctl("opt.cache_oblivious", &is_padded, &size, NULL, 0) != 0) {
        is_padded = true;
    }
    range.large_padding = is_padded ? PAGE : 0;
    return 0;
}

int arena_init(size_t maxmemory)
{
    const size_t least = maxmemory + maxmemory / 2;

    if (arena_base != NULL) {
        return range.n_range >= least ? 0 : -ENOMEM;
    }
    size_t size = RANGE_MAX;
    while (!reserve(size)) {
        if (size <= least) {
            log_error("cache", "no address space for the cache", "wanted_bytes=%zu errno=%d", least,
                      errno);
            return -ENOMEM;
        }
        size = size / 2 > least ? size / 2 : least;
    }
    const int error = make_arena();
    if (error != 0) {
        log_error("cache", "jemalloc refused an arena", NULL);
        munmap(arena_base, range.n_range);
        arena_base = NULL;
    }
    return error;
}

size_t arena_range_bytes(void)
{
    return range.n_range;
}

/* ---- what sanitizers must be told ---- */

/*
 * jemalloc is not instrumented here and serves mallocx() only: ASan learns what is free by hand,
 * and TSan that a free comes before the next use of the same bytes, page by page.
 */
#ifdef ARENA_TSAN
static void each_page(void *block, size_t size, void (*tell)(void *))
{
    uintptr_t page = (uintptr_t)block & ~(PAGE - 1);

    for (; page < (uintptr_t)block + size; page += PAGE) {
        tell((void *)page);
    }
}
#endif

static void mark_used(void *block, size_t size)
{
    (void)block, (void)size;
#ifdef ARENA_ASAN
    const size_t usable = sallocx(block, 0);
    ASAN_UNPOISON_MEMORY_REGION(block, usable);
    ASAN_POISON_MEMORY_REGION((unsigned char *)block + size, usable - size);
#endif
#ifdef ARENA_TSAN
    each_page(block, size, __tsan_acquire);
#endif
}

static void mark_free(void *block)
{
    (void)block;
#ifdef ARENA_ASAN
    ASAN_POISON_MEMORY_REGION(block, sallocx(block, 0));
#endif
#ifdef ARENA_TSAN
    each_page(block, sallocx(block, 0), __tsan_release);
#endif
}

/* ---- blocks ---- */

void *arena_alloc(size_t size)
{
    DCHECK(size >= ARENA_GRAIN);
    void *block = mem_is_short() ? NULL : mallocx(size, range.flags);

    if (block != NULL) {
        mem_note((int64_t)sallocx(block, 0));
        mark_used(block, size);
    }
    return block;
}

void *arena_alloc_table(size_t size)
{
    void *block = mallocx(size, range.flags | MALLOCX_ALIGN(CACHE_LINE));

    if (block != NULL) {
        mem_note((int64_t)sallocx(block, 0));
        mark_used(block, size);
        /* Not MALLOCX_ZERO: pages that nobody has touched would be faulted in under the lock. */
        memset(block, 0, size);
    }
    return block;
}

void arena_free(void *block)
{
    if (block != NULL) {
        mem_note(-(int64_t)sallocx(block, 0));
        mark_free(block);
        dallocx(block, MALLOCX_TCACHE_NONE);
    }
}

size_t arena_cost(size_t size)
{
    const size_t class_bytes = nallocx(size, 0);

    return class_bytes < LARGE_MIN ? class_bytes : class_bytes + range.large_padding;
}

/* What jemalloc answers for each block. */
struct utilization {
    size_t n_free, n_regions, slab_bytes;
};

void arena_query_room(void *const *blocks, unsigned n, unsigned *rooms)
{
    struct utilization answers[ARENA_QUERY_MAX];
    void *questions[ARENA_QUERY_MAX];
    size_t size = n * sizeof(answers[0]);

    CHECK(n > 0 && n <= ARENA_QUERY_MAX);
    memcpy(questions, blocks, n * sizeof(questions[0]));
    const bool is_answered = mallctl("experimental.utilization.batch_query", answers, &size,
                                     questions, n * sizeof(questions[0])) == 0;
    for (unsigned i = 0; i < n; i++) {
        const bool is_slab = is_answered && answers[i].n_regions > 1;
        rooms[i] = is_slab ? (unsigned)(answers[i].n_free * 1024 / answers[i].n_regions) : 0;
    }
}

/* Classes from 64 bytes up have three significant bits: four to each power of two. */
static size_t class_spacing(size_t size)
{
    const unsigned log2 = 63u - (unsigned)__builtin_clzl(size);

    return (size_t)1 << (log2 - 2);
}

size_t arena_class_at_most(size_t size)
{
    CHECK(size >= CACHE_LINE);
    return size & ~(class_spacing(size) - 1);
}

size_t arena_class_above(size_t size)
{
    return arena_class_at_most(size) + class_spacing(size);
}

/* ---- figures ---- */

static size_t read_size(const char *what)
{
    size_t value = 0;
    size_t size = sizeof(value);

    return control("stats.arenas", what, &value, &size, NULL, 0) == 0 ? value : 0;
}

void arena_read_stats(struct arena_stats *stats)
{
    uint64_t epoch = 1;
    size_t size = sizeof(epoch);

    (void)mallctl("epoch", &epoch, &size, &epoch, sizeof(epoch));
    stats->resident_bytes = read_size("resident");
    stats->active_bytes = read_size("pactive") * PAGE;
    stats->allocated_bytes = read_size("small.allocated") + read_size("large.allocated");
}

void arena_decay(void)
{
    (void)control("arena", "decay", NULL, NULL, NULL, 0);
}

void arena_purge(void)
{
    (void)control("arena", "purge", NULL, NULL, NULL, 0);
}
