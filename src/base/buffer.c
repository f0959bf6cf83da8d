/*
 * buffer.c - storage for buffers, and the free list that makes it cheap
 *
 * A busy connection takes a chunk for each batch and gives it back when the batch is done, so that
 * 10 000 idle ones hold none. Chunks are too large for the allocator's thread cache; a short list
 * per thread takes the place of its locks.
 */
#include "base/buffer.h"

#include <errno.h>

#include "base/mem.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAS_ASAN 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define HAS_ASAN 1
#endif
#ifdef HAS_ASAN
#include <sanitizer/asan_interface.h>
/* A chunk on the free list is as untouchable as freed memory. */
#define POISON(ptr, size) ASAN_POISON_MEMORY_REGION(ptr, size)
#define UNPOISON(ptr, size) ASAN_UNPOISON_MEMORY_REGION(ptr, size)
#else
#define POISON(ptr, size) ((void)(ptr))
#define UNPOISON(ptr, size) ((void)(ptr))
#endif

/* 4 MiB per thread at most. */
#define FREE_CHUNKS_MAX 64
/* Exact storage is rounded to the line size: finer steps save nothing in the allocator. */
#define SHRINK_STEP ((size_t)64)

/* One small reply that waits for its turn must not hold a chunk. */
#define SMALL_MIN ((size_t)256)
#define SMALL_MAX ((size_t)2048)

/* The head of an unused chunk. */
struct chunk {
    struct chunk *next;
};

static _Thread_local struct chunk *free_chunks;
static _Thread_local unsigned n_free_chunks;

static unsigned char *storage_alloc(size_t capacity)
{
    struct chunk *chunk = free_chunks;

    if (capacity != BUFFER_CHUNK || chunk == NULL) {
        return mem_try_alloc(capacity);
    }
    free_chunks = chunk->next;
    n_free_chunks--;
    UNPOISON(chunk, BUFFER_CHUNK);
    return (unsigned char *)chunk;
}

static void storage_free(unsigned char *data, size_t capacity)
{
    struct chunk *chunk = (void *)data;

    if (capacity != BUFFER_CHUNK || n_free_chunks == FREE_CHUNKS_MAX) {
        mem_free(data);
        return;
    }
    chunk->next = free_chunks;
    free_chunks = chunk;
    n_free_chunks++;
    POISON(data + sizeof *chunk, BUFFER_CHUNK - sizeof *chunk);
}

void buffer_init(struct buffer *buffer)
{
    *buffer = (struct buffer){0};
}

void buffer_fini(struct buffer *buffer)
{
    if (buffer->data != NULL) {
        storage_free(buffer->data, buffer->capacity);
    }
    buffer_init(buffer);
}

/* Puts what is readable into storage of the given capacity, at its start. */
static int change_storage(struct buffer *buffer, size_t capacity)
{
    const size_t len = buffer_len(buffer);
    unsigned char *data;

    /* A large request that still arrives: the allocator may extend it in place. */
    if (buffer->head == 0 && buffer->capacity > BUFFER_CHUNK && capacity > BUFFER_CHUNK) {
        data = mem_try_realloc(buffer->data, capacity);
        if (data == NULL) {
            return -ENOMEM;
        }
        buffer->data = data;
        buffer->capacity = capacity;
        return 0;
    }
    data = storage_alloc(capacity);
    if (data == NULL) {
        return -ENOMEM;
    }
    if (len > 0) {
        memcpy(data, buffer->data + buffer->head, len);
    }
    buffer_fini(buffer);
    *buffer = (struct buffer){.data = data, .tail = len, .capacity = capacity};
    return 0;
}

/*
 * Moving is worth its cost only when it gains as much room as it copies; otherwise a full buffer
 * that is consumed in small bites would be moved for each of them.
 */
int buffer_reserve_slow(struct buffer *buffer, size_t n)
{
    const size_t len = buffer_len(buffer);
    size_t capacity = BUFFER_CHUNK;

    if (n > SIZE_MAX / 4 || len > SIZE_MAX / 4) {
        return -ENOMEM;
    }
    if (buffer->data != NULL && len + n <= buffer->capacity && len <= buffer->capacity / 2) {
        memmove(buffer->data, buffer->data + buffer->head, len);
        buffer->head = 0;
        buffer->tail = len;
        return 0;
    }
    if (len + n <= SMALL_MAX) {
        capacity = SMALL_MIN;
    }
    while (capacity < len + n || capacity <= buffer->capacity) {
        capacity *= 2;
    }
    if (change_storage(buffer, capacity) == 0) {
        return 0;
    }
    /* While memory is short, blocks of this size are still given out. */
    return len + n <= MEM_SMALL ? change_storage(buffer, MEM_SMALL) : -ENOMEM;
}

int buffer_reserve_some(struct buffer *buffer, size_t n)
{
    const size_t len = buffer_len(buffer);

    if (buffer_reserve(buffer, n) == 0) {
        return 0;
    }
    if (buffer->head > 0) {
        memmove(buffer->data, buffer->data + buffer->head, len);
        buffer->head = 0;
        buffer->tail = len;
    }
    if (buffer->capacity > len) {
        return 0;
    }
    return len < MEM_SMALL ? change_storage(buffer, MEM_SMALL) : -ENOMEM;
}

int buffer_append(struct buffer *buffer, struct bytes bytes)
{
    if (bytes.len == 0) {
        return 0;
    }
    const int error = buffer_reserve(buffer, bytes.len);

    if (error != 0) {
        return error;
    }
    memcpy(buffer_end(buffer), bytes.ptr, bytes.len);
    buffer_commit(buffer, bytes.len);
    return 0;
}

void buffer_release(struct buffer *buffer)
{
    CHECK(buffer_len(buffer) == 0);
    buffer_fini(buffer);
}

void buffer_shrink(struct buffer *buffer)
{
    const size_t len = buffer_len(buffer);
    const size_t wanted = (len + SHRINK_STEP - 1) / SHRINK_STEP * SHRINK_STEP;

    if (len == 0) {
        buffer_release(buffer);
        return;
    }
    if (wanted < buffer->capacity && change_storage(buffer, wanted) != 0) {
        return; /* No memory for the copy: the chunk has to do. */
    }
}

size_t buffer_pool_bytes(void)
{
    return n_free_chunks * BUFFER_CHUNK;
}

void buffer_pool_fini(void)
{
    while (free_chunks != NULL) {
        struct chunk *chunk = free_chunks;

        free_chunks = chunk->next;
        UNPOISON(chunk, BUFFER_CHUNK);
        mem_free(chunk);
    }
    n_free_chunks = 0;
}
