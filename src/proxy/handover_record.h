/*
 * handover_record.h - one client connection as a message between two processes, as pure code
 *
 * Purpose:    the state of a session, its name, and the input that it had sent already: put into
 *             one message by the predecessor, taken out of it and checked by the successor.
 * Ownership:  what is read points into the message.
 * Threading:  any thread.
 * Errors:     false: another format, or lengths and values that do not add up.
 */
#ifndef NC_PROXY_HANDOVER_RECORD_H
#define NC_PROXY_HANDOVER_RECORD_H

#include "base/bytes.h"

#include <stdbool.h>
#include <stdint.h>

/* "NCs" and the format's number; another one is not taken. */
#define HANDOVER_MAGIC 0x02734e43u
/* Of the name and of input together: well below what one message of a Unix socket holds. */
#define HANDOVER_TAIL_MAX ((size_t)64 * 1024)

/* Begins the message; the name and the input follow. Both are programs of one machine. */
struct handover_record {
    uint32_t magic;
    uint32_t db;
    uint64_t id;
    int64_t age_us;
    uint32_t name_bytes, input_bytes;
    uint8_t proto, reply_mode;
    uint8_t is_authed, may_change_cache, is_no_evict, is_unix, wants_attributes;
};

/* *tail: name and input, one behind the other. */
bool handover_record_read(struct bytes message, struct handover_record *record, struct bytes *tail);

#endif
