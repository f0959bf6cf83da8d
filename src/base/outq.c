/*
 * outq.c - a list of segments in front of one growing tail
 *
 *     first -> [copied | borrowed] -> [copied | borrowed] -> last     tail: [copied .....]
 *
 * Nearly every batch of replies is small and lives in the tail alone: no list, one send(2). A
 * borrowed reply closes a segment with what the tail held before it. That is mostly a header and
 * the line end of the reply before, so it is copied into the segment's own memory; only a long
 * tail hands over its storage.
 */
#include "base/outq.h"

#include <errno.h>

#include "base/mem.h"

/* iovecs per writev(2): a batch of 30 borrowed replies with their headers. */
#define WRITE_PARTS 64
/* Bytes per call of outq_write(): a fast reader of large values must not hold up the others. */
#define WRITE_BUDGET ((size_t)1024 * 1024)
/* Below this, copying is cheaper than a segment more. */
#define COPY_BELOW ((size_t)4096)

struct outq_segment {
    struct outq_segment *next;
    struct bytes copied;   /* not yet written; in own[] or in storage */
    struct buffer storage; /* taken from a long tail, else empty */
    struct bytes ref;      /* not yet written; empty in a segment without a reference */
    outq_release_fn release;
    void *owner;
    unsigned char own[];
};

void outq_init(struct outq *queue)
{
    *queue = (struct outq){0};
}

static void segment_free(struct outq_segment *segment)
{
    buffer_fini(&segment->storage);
    if (segment->release != NULL) {
        segment->release(segment->owner);
    }
    mem_free(segment);
}

void outq_fini(struct outq *queue)
{
    struct outq_segment *segment = queue->first;

    buffer_fini(&queue->tail);
    outq_init(queue);
    while (segment != NULL) {
        struct outq_segment *next = segment->next;

        segment_free(segment);
        segment = next;
    }
}

int outq_append(struct outq *queue, struct bytes bytes)
{
    return buffer_append(&queue->tail, bytes);
}

static void link_segments(struct outq *queue, struct outq_segment *first, struct outq_segment *last)
{
    if (queue->last != NULL) {
        queue->last->next = first;
    } else {
        queue->first = first;
    }
    queue->last = last;
}

/* Turns the tail, which may be empty, into a new last segment. NULL: no memory, nothing changed. */
static struct outq_segment *close_tail(struct outq *queue)
{
    const struct bytes bytes = buffer_bytes(&queue->tail);
    const bool is_copy = bytes.len < COPY_BELOW;
    struct outq_segment *segment = mem_try_alloc(sizeof *segment + (is_copy ? bytes.len : 0));

    if (segment == NULL) {
        return NULL;
    }
    *segment = (struct outq_segment){.copied = bytes};
    if (!is_copy) {
        segment->storage = queue->tail;
        buffer_init(&queue->tail);
    } else if (bytes.len > 0) {
        memcpy(segment->own, bytes.ptr, bytes.len);
        segment->copied.ptr = segment->own;
        buffer_consume(&queue->tail, bytes.len);
    }
    queue->n_bytes += bytes.len;
    link_segments(queue, segment, segment);
    return segment;
}

int outq_append_ref(struct outq *queue, struct bytes bytes, outq_release_fn release, void *owner)
{
    if (bytes.len == 0) {
        release(owner);
        return 0;
    }
    struct outq_segment *segment = close_tail(queue);

    if (segment == NULL) {
        release(owner);
        return -ENOMEM;
    }
    segment->ref = bytes;
    segment->release = release;
    segment->owner = owner;
    queue->n_bytes += bytes.len;
    return 0;
}

int outq_move(struct outq *dst, struct outq *src)
{
    const size_t src_tail_len = buffer_len(&src->tail);

    if (src->first == NULL && src_tail_len < COPY_BELOW && outq_len(dst) > 0) {
        const int error = outq_append(dst, buffer_bytes(&src->tail));

        if (error == 0) {
            buffer_fini(&src->tail);
        }
        return error;
    }
    if (outq_len(src) > 0) {
        /* What stands in dst's tail is older than all of src. */
        if (buffer_len(&dst->tail) > 0 && close_tail(dst) == NULL) {
            return -ENOMEM;
        }
        if (src->first != NULL) {
            link_segments(dst, src->first, src->last);
            dst->n_bytes += src->n_bytes;
        }
        buffer_fini(&dst->tail);
        dst->tail = src->tail;
        buffer_init(&src->tail);
    }
    buffer_fini(&src->tail);
    outq_init(src);
    return 0;
}

void outq_truncate(struct outq *queue, size_t mark)
{
    struct buffer *tail = &queue->tail;

    CHECK(mark <= buffer_len(tail));
    tail->tail = tail->head + mark;
    if (mark == 0) {
        tail->head = tail->tail = 0;
    }
}

/* The iovecs of one call, and how many bytes they may still take. */
struct gathering {
    struct iovec parts[WRITE_PARTS];
    int n_parts;
    size_t room;
};

static void gather(struct gathering *gathering, struct bytes bytes)
{
    const size_t len = bytes.len < gathering->room ? bytes.len : gathering->room;

    if (len > 0 && gathering->n_parts < WRITE_PARTS) {
        /* struct iovec serves readv(2) too and knows no const. */
        gathering->parts[gathering->n_parts++] = (struct iovec){
            .iov_base = (void *)(uintptr_t)bytes.ptr, .iov_len = len};
        gathering->room -= len;
    }
}

static ssize_t write_parts(const struct outq *queue, struct stream *stream, size_t budget)
{
    struct gathering gathering;

    gathering.n_parts = 0;
    gathering.room = budget;
    for (const struct outq_segment *segment = queue->first;
         segment != NULL && gathering.n_parts < WRITE_PARTS; segment = segment->next) {
        gather(&gathering, segment->copied);
        gather(&gathering, segment->ref);
    }
    gather(&gathering, buffer_bytes(&queue->tail));
    return stream_writev(stream, gathering.parts, gathering.n_parts);
}

static ssize_t write_tail(const struct outq *queue, struct stream *stream, size_t budget)
{
    struct bytes bytes = buffer_bytes(&queue->tail);

    bytes.len = bytes.len < budget ? bytes.len : budget;
    return stream_write(stream, bytes);
}

static size_t consume_bytes(struct bytes *bytes, size_t n)
{
    const size_t taken = n < bytes->len ? n : bytes->len;

    if (taken > 0) { /* an empty run may have no address to add to */
        bytes->ptr += taken;
        bytes->len -= taken;
    }
    return taken;
}

/* n bytes of the queue are written. */
static void consume(struct outq *queue, size_t n)
{
    while (n > 0 && queue->first != NULL) {
        struct outq_segment *segment = queue->first;
        size_t taken = consume_bytes(&segment->copied, n);

        taken += consume_bytes(&segment->ref, n - taken);
        queue->n_bytes -= taken;
        n -= taken;
        if (segment->copied.len == 0 && segment->ref.len == 0) {
            queue->first = segment->next;
            if (queue->first == NULL) {
                queue->last = NULL;
            }
            segment_free(segment);
        }
    }
    if (n > 0) {
        buffer_consume(&queue->tail, n);
    }
}

int outq_write(struct outq *queue, struct stream *stream)
{
    size_t budget = WRITE_BUDGET;

    while (outq_len(queue) > 0) {
        if (budget == 0) {
            return -EAGAIN;
        }
        const ssize_t n = queue->first == NULL ? write_tail(queue, stream, budget)
                                               : write_parts(queue, stream, budget);
        if (n <= 0) {
            return n == 0 ? -EAGAIN : (int)n;
        }
        consume(queue, (size_t)n);
        budget -= (size_t)n;
    }
    buffer_release(&queue->tail);
    return 0;
}

void outq_shrink(struct outq *queue)
{
    for (struct outq_segment *segment = queue->first; segment != NULL; segment = segment->next) {
        struct buffer *storage = &segment->storage;

        if (storage->data != NULL) {
            storage->head = storage->tail - segment->copied.len;
            buffer_shrink(storage);
            segment->copied = buffer_bytes(storage);
        }
    }
    buffer_shrink(&queue->tail);
}
