/*
 * outq.h - output of one connection: copied bytes and borrowed ones, in order
 *
 * Purpose:    small replies are copied into one buffer and leave in one write(2); large ones are
 *             queued by reference and leave by writev(2).
 * Ownership:  copies belong to the queue. A reference is given back exactly once, through the
 *             release function it came with, when written or dropped.
 * Threading:  one owner; release functions run on its thread.
 * Errors:     -ENOMEM leaves the queue as it was; outq_write() returns 0, -EAGAIN (more is left)
 *             or the socket's negative errno.
 * Units:      bytes.
 */
#ifndef NC_BASE_OUTQ_H
#define NC_BASE_OUTQ_H

#include "base/buffer.h"
#include "base/stream.h"

typedef void (*outq_release_fn)(void *owner);

/* Opaque: a run of copied bytes followed by a borrowed one. */
struct outq_segment;

struct outq {
    struct outq_segment *first, *last; /* older than what stands in tail */
    struct buffer tail;                /* copied bytes behind the last segment */
    size_t n_bytes;                    /* of the segments only */
};

void outq_init(struct outq *queue);
/* Releases what is left, references included. */
void outq_fini(struct outq *queue);

static inline size_t outq_len(const struct outq *queue)
{
    return queue->n_bytes + buffer_len(&queue->tail);
}

/* The bytes stay where they are until the next call on this queue: write up to n, then commit. */
NC_MUST_CHECK static inline int outq_reserve(struct outq *queue, size_t n, unsigned char **room)
{
    const int error = buffer_reserve(&queue->tail, n);

    if (error == 0) {
        *room = buffer_end(&queue->tail);
    }
    return error;
}

static inline void outq_commit(struct outq *queue, size_t n)
{
    buffer_commit(&queue->tail, n);
}

NC_MUST_CHECK int outq_append(struct outq *queue, struct bytes bytes);
/* Takes the reference, also when the call fails (then it is released at once). */
NC_MUST_CHECK int outq_append_ref(struct outq *queue, struct bytes bytes, outq_release_fn release,
                                  void *owner);
/* Everything of src goes to the end of dst; src is empty afterwards. On -ENOMEM nothing moved. */
NC_MUST_CHECK int outq_move(struct outq *dst, struct outq *src);

/*
 * A place to return to: outq_truncate() drops what was appended by copy since outq_mark(). Valid
 * while nothing was written or appended by reference in between.
 */
static inline size_t outq_mark(const struct outq *queue)
{
    return buffer_len(&queue->tail);
}
void outq_truncate(struct outq *queue, size_t mark);

NC_MUST_CHECK int outq_write(struct outq *queue, struct stream *stream);
/* Keeps what is left in storage of its own size; an empty queue keeps none. */
void outq_shrink(struct outq *queue);

#endif
