/*
 * mem.h - heap memory with a stated answer to "none left"
 *
 * Purpose:    mem_alloc() serves small fixed sizes and aborts when there is none, so callers
 *             stay simple; mem_try_alloc() serves sizes that peers influence and may return NULL.
 *             All of it is counted as it comes and goes, so that a bound can be kept between two
 *             measurements of what the process holds: see proxy/overload.h.
 * Ownership:  the caller frees with mem_free(), which accepts NULL.
 * Threading:  any thread. Each thread counts for itself and reports in steps of 64 KiB.
 */
#ifndef NC_BASE_MEM_H
#define NC_BASE_MEM_H

#include "base/check.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Zeroed. Never NULL. */
void *mem_alloc(size_t size);
/* Not zeroed. NULL when there is no memory. */
NC_MUST_CHECK void *mem_try_alloc(size_t size);
/* Keeps the old block when it returns NULL. */
NC_MUST_CHECK void *mem_try_realloc(void *block, size_t size);
/* Never NULL, and never refused: for what is small beside something that was let in already. */
void *mem_realloc(void *block, size_t size);
char *mem_strdup(const char *string);
void mem_free(void *block);

/* What is allocated here and not freed, as far as threads have reported it. */
int64_t mem_live_bytes(void);
/* Memory that is not from here comes, or goes: tier 1. */
void mem_note(int64_t bytes);

struct mem_bounds {
    int64_t alarm_at;  /* the function of mem_set_alarm() is called, once */
    int64_t refuse_at; /* memory is short: blocks above MEM_LARGE are refused */
    int64_t end_at;    /* blocks above MEM_SMALL are refused as well */
};

/*
 * In live bytes; INT64_MAX: no bound. Refused means that mem_try_alloc() and mem_try_realloc()
 * return NULL: who wants to grow then goes without.
 */
#define MEM_LARGE ((size_t)64 * 1024)
#define MEM_SMALL ((size_t)4 * 1024)
void mem_set_bounds(const struct mem_bounds *bounds);
/* Called from inside an allocation, on any thread: it must not allocate. */
void mem_set_alarm(void (*fn)(void *context), void *context);
/* Live bytes have reached refuse_at. */
bool mem_is_short(void);
/* This thread is not refused until it is switched off: what all clients depend on. */
void mem_exempt(bool on);
/* Blocks refused so far. */
uint64_t mem_count_refused(void);

#endif
