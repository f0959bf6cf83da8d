/*
 * keyspace_words.h - what a server says in keyspace mode, as pure code
 *
 * Purpose:    read messages of keyspace notifications, and the replies by which keyspace.c learns
 *             what notifies nobody.
 * Ownership:  what is found points into what was read.
 * Threading:  any thread.
 * Errors:     false: it is something else.
 */
#ifndef NC_COHERENCE_KEYSPACE_WORDS_H
#define NC_COHERENCE_KEYSPACE_WORDS_H

#include "base/bytes.h"

#include <stdbool.h>
#include <stdint.h>

enum keyspace_kind {
    KEYSPACE_SUBSCRIBED, /* a pattern is confirmed */
    KEYSPACE_WRITTEN,    /* of this key */
    KEYSPACE_FOREIGN,    /* a message on a channel that is none of the server's: means nothing */
};

struct keyspace_message {
    enum keyspace_kind kind;
    struct bytes key; /* KEYSPACE_WRITTEN */
};

/* A push, or in RESP2 an array. */
bool keyspace_read_message(struct bytes frame, struct keyspace_message *message);
/* __keyspace@<db>__:<key> */
bool keyspace_read_channel(struct bytes channel, struct bytes *key);
/* The reply to CONFIG GET notify-keyspace-events: K and A are among the flags. */
bool keyspace_has_flags(struct bytes reply);
/* The reply to INFO commandstats: how many commands there were that flush, or move databases. */
bool keyspace_count_flushes(struct bytes reply, uint64_t *n_flushes);

#endif
