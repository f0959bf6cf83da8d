/*
 * mem.h - heap memory with a stated answer to "none left"
 *
 * Purpose:    mem_alloc() serves small fixed sizes and aborts when there is none, so callers
 *             stay simple; mem_try_alloc() serves sizes that peers influence and may return NULL.
 * Ownership:  the caller frees with mem_free(), which accepts NULL.
 * Threading:  any thread.
 */
#ifndef NC_BASE_MEM_H
#define NC_BASE_MEM_H

#include "base/check.h"

#include <stddef.h>

/* Zeroed. Never NULL. */
void *mem_alloc(size_t size);
/* Not zeroed. NULL when there is no memory. */
NC_MUST_CHECK void *mem_try_alloc(size_t size);
/* Keeps the old block when it returns NULL. */
NC_MUST_CHECK void *mem_try_realloc(void *block, size_t size);
char *mem_strdup(const char *string);
void mem_free(void *block);

#endif
