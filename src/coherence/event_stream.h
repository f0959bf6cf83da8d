/*
 * event_stream.h - where a reader of a stream stands, and whether entries passed it by
 *
 * Purpose:    from the replies to XREAD and XINFO STREAM, executed at one moment: the entries, the
 *             next position, and whether entries were removed before they were read.
 * Ownership:  plain values; entries point into the reply.
 * Threading:  one owner.
 * Errors:     false: the reply is not understood, and nothing has changed.
 *
 * From Redis 7.0 on a stream counts the entries that were ever added (entries-added): what was read
 * since some moment must be what was added since then, once the end is reached. Older servers have
 * no such count: there, entries passed by unless the one read last is still in the stream.
 */
#ifndef NC_COHERENCE_EVENT_STREAM_H
#define NC_COHERENCE_EVENT_STREAM_H

#include "base/bytes.h"

#include <stdbool.h>
#include <stdint.h>

/* Entries that are read at a time. */
#define EVENT_STREAM_BATCH 100u

struct stream_id {
    uint64_t ms, seq;
};

struct event_stream {
    bool is_placed; /* the rest means something */
    struct stream_id at;
    bool has_count;
    uint64_t count;  /* entries added when it was placed */
    uint64_t n_read; /* since then */
};

#define STREAM_ID_MAX 48
void stream_id_format(struct stream_id id, char out[STREAM_ID_MAX]);

/* One entry's payload; fields without it, or with an odd number of words: ptr is NULL. */
typedef void (*stream_entry_fn)(void *context, struct bytes payload);

/* info: the reply to XINFO STREAM, also that there is no such key. Later entries are new ones. */
bool event_stream_place(struct event_stream *stream, struct bytes info);

/*
 * exec: the replies to XREAD COUNT max STREAMS key `at`, and to XINFO STREAM, in one array.
 * *has_missed: entries were removed, or the stream was made anew. *n: entries handed out.
 */
bool event_stream_take(struct event_stream *stream, struct bytes exec, struct bytes field,
                       unsigned max, stream_entry_fn on_entry, void *context, unsigned *n,
                       bool *has_missed);

#endif
