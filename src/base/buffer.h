/*
 * buffer.h - a growable run of bytes that is filled at its end and consumed from its front
 *
 *     data     data+head            data+tail        data+capacity
 *      |  consumed  |     readable      |     writable     |
 *
 * Purpose:    input collected from a socket, output waiting for one.
 * Ownership:  storage belongs to the buffer; buffer_fini() frees it. An empty buffer can give its
 *             storage back (buffer_release()), so that an idle connection holds none.
 * Threading:  one owner; storage of BUFFER_CHUNK bytes comes from a per-thread free list.
 * Errors:     growing returns -ENOMEM and changes nothing.
 * Units:      bytes.
 */
#ifndef NC_BASE_BUFFER_H
#define NC_BASE_BUFFER_H

#include "base/bytes.h"
#include "base/check.h"

/* One read(2) of a busy connection, one write(2) of a batch of replies. */
#define BUFFER_CHUNK ((size_t)64 * 1024)

struct buffer {
    unsigned char *data;
    size_t head, tail, capacity;
};

void buffer_init(struct buffer *buffer);
void buffer_fini(struct buffer *buffer);

static inline size_t buffer_len(const struct buffer *buffer)
{
    return buffer->tail - buffer->head;
}

static inline struct bytes buffer_bytes(const struct buffer *buffer)
{
    /* C11 has no NULL + 0; compilers drop the comparison. */
    return (struct bytes){buffer->head == 0 ? buffer->data : buffer->data + buffer->head,
                          buffer->tail - buffer->head};
}

static inline unsigned char *buffer_end(const struct buffer *buffer)
{
    return buffer->data + buffer->tail;
}

/* Room for n more bytes at buffer_end(); may move the readable bytes. */
NC_MUST_CHECK int buffer_reserve_slow(struct buffer *buffer, size_t n);

NC_MUST_CHECK static inline int buffer_reserve(struct buffer *buffer, size_t n)
{
    if (NC_LIKELY(n <= buffer->capacity - buffer->tail && buffer->data != NULL)) {
        return 0;
    }
    return buffer_reserve_slow(buffer, n);
}

/* The same, but any room will do while memory is short: at least one byte. */
NC_MUST_CHECK int buffer_reserve_some(struct buffer *buffer, size_t n);

/* n bytes were written at buffer_end(). */
static inline void buffer_commit(struct buffer *buffer, size_t n)
{
    DCHECK(n <= buffer->capacity - buffer->tail);
    buffer->tail += n;
}

NC_MUST_CHECK int buffer_append(struct buffer *buffer, struct bytes bytes);

/* Drops n readable bytes from the front. */
static inline void buffer_consume(struct buffer *buffer, size_t n)
{
    DCHECK(n <= buffer_len(buffer));
    buffer->head += n;
    if (buffer->head == buffer->tail) {
        buffer->head = buffer->tail = 0;
    }
}

/* Gives the storage back; the buffer must be empty. */
void buffer_release(struct buffer *buffer);
/* Moves what is readable into storage of its own size: a slow reader must not hold a chunk. */
void buffer_shrink(struct buffer *buffer);
/* What this thread's free list holds, in bytes; bounded. */
size_t buffer_pool_bytes(void);
/* Frees this thread's free list, at thread exit. */
void buffer_pool_fini(void);

#endif
