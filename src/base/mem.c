/*
 * mem.c - a thin layer over malloc(3), which is jemalloc in normal builds
 *
 * Sanitizer builds keep the sanitizer's allocator, so nothing here knows which one it is.
 *
 * Counting: sizes as the allocator rounds them, so that what is freed counts what it counted when
 * it came. A block that another thread frees makes that thread's share negative; the sum is right.
 */
#include "base/mem.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define REPORT_BYTES ((int64_t)64 * 1024)

static _Thread_local int64_t unreported;
static _Thread_local bool is_exempt;

static struct {
    _Atomic int64_t live;      /* atomic */
    _Atomic int64_t alarm_at;  /* atomic */
    _Atomic int64_t refuse_at; /* atomic */
    _Atomic int64_t end_at;    /* atomic */
    _Atomic uint64_t n_refused;
    void (*alarm)(void *context); /* init: before other threads allocate */
    void *context;                /* init */
} account = {.alarm_at = INT64_MAX, .refuse_at = INT64_MAX, .end_at = INT64_MAX};

/* ---- the account ---- */

static void report(void)
{
    const int64_t live =
        atomic_fetch_add_explicit(&account.live, unreported, memory_order_relaxed) + unreported;

    unreported = 0;
    if (NC_UNLIKELY(live >= atomic_load_explicit(&account.alarm_at, memory_order_relaxed)) &&
        atomic_exchange_explicit(&account.alarm_at, INT64_MAX, memory_order_relaxed) != INT64_MAX &&
        account.alarm != NULL) {
        account.alarm(account.context);
    }
}

static inline void count(int64_t bytes)
{
    unreported += bytes;
    if (NC_UNLIKELY(unreported >= REPORT_BYTES || unreported <= -REPORT_BYTES)) {
        report();
    }
}

static inline void count_block(void *block, bool is_new)
{
    if (block != NULL) {
        const int64_t size = (int64_t)malloc_usable_size(block);

        count(is_new ? size : -size);
    }
}

static bool is_refused(size_t size)
{
    if (NC_LIKELY(size <= MEM_SMALL) || is_exempt) {
        return false;
    }
    if (atomic_load_explicit(&account.live, memory_order_relaxed) + (int64_t)(size & INT64_MAX) <
        atomic_load_explicit(size > MEM_LARGE ? &account.refuse_at : &account.end_at,
                             memory_order_relaxed)) {
        return false;
    }
    atomic_fetch_add_explicit(&account.n_refused, 1, memory_order_relaxed);
    return true;
}

int64_t mem_live_bytes(void)
{
    return atomic_load_explicit(&account.live, memory_order_relaxed);
}

void mem_note(int64_t bytes)
{
    count(bytes);
}

void mem_set_bounds(const struct mem_bounds *bounds)
{
    atomic_store_explicit(&account.alarm_at, bounds->alarm_at, memory_order_relaxed);
    atomic_store_explicit(&account.refuse_at, bounds->refuse_at, memory_order_relaxed);
    atomic_store_explicit(&account.end_at, bounds->end_at, memory_order_relaxed);
}

void mem_set_alarm(void (*fn)(void *context), void *context)
{
    account.alarm = fn;
    account.context = context;
}

bool mem_is_short(void)
{
    return atomic_load_explicit(&account.live, memory_order_relaxed) >=
           atomic_load_explicit(&account.refuse_at, memory_order_relaxed);
}

void mem_exempt(bool on)
{
    is_exempt = on;
}

uint64_t mem_count_refused(void)
{
    return atomic_load_explicit(&account.n_refused, memory_order_relaxed);
}

/* ---- blocks ---- */

static void *must(void *block)
{
    if (NC_UNLIKELY(block == NULL)) {
        check_failed("memory for a small object", __FILE__, __LINE__, __func__);
    }
    count_block(block, true);
    return block;
}

void *mem_alloc(size_t size)
{
    return must(calloc(1, size == 0 ? 1 : size));
}

/* A size of 0 asks for a block all the same: NULL would read as "none left". */
void *mem_try_alloc(size_t size)
{
    void *const block = is_refused(size) ? NULL : malloc(size == 0 ? 1 : size);

    count_block(block, true);
    return block;
}

void *mem_try_realloc(void *block, size_t size)
{
    const size_t former = block != NULL ? malloc_usable_size(block) : 0;
    void *grown;

    if (size > former && is_refused(size)) {
        return NULL;
    }
    grown = realloc(block, size == 0 ? 1 : size);
    if (grown != NULL) {
        count(-(int64_t)former);
        count_block(grown, true);
    }
    return grown;
}

void *mem_realloc(void *block, size_t size)
{
    const size_t former = block != NULL ? malloc_usable_size(block) : 0;
    void *const grown = realloc(block, size == 0 ? 1 : size);

    if (grown != NULL) {
        count(-(int64_t)former);
    }
    return must(grown);
}

char *mem_strdup(const char *string)
{
    return must(strdup(string));
}

void mem_free(void *block)
{
    count_block(block, false);
    free(block);
}
