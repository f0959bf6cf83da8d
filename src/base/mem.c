/*
 * mem.c - a thin layer over malloc(3), which is jemalloc in normal builds
 *
 * Sanitizer builds keep the sanitizer's allocator, so nothing here knows which one it is.
 */
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

static void *must(void *block)
{
    if (NC_UNLIKELY(block == NULL)) {
        check_failed("memory for a small object", __FILE__, __LINE__, __func__);
    }
    return block;
}

void *mem_alloc(size_t size)
{
    return must(calloc(1, size == 0 ? 1 : size));
}

/* A size of 0 asks for a block all the same: NULL would read as "none left". */
void *mem_try_alloc(size_t size)
{
    return malloc(size == 0 ? 1 : size);
}

void *mem_try_realloc(void *block, size_t size)
{
    return realloc(block, size == 0 ? 1 : size);
}

char *mem_strdup(const char *string)
{
    return must(strdup(string));
}

void mem_free(void *block)
{
    free(block);
}
