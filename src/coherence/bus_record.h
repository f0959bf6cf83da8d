/*
 * bus_record.h - the wire format of the bus between proxies, as pure code
 *
 * Purpose:    one message is a header and records, big-endian, perhaps signed. Writing one, reading
 *             one, and telling what is malformed, forged, or of a version that is not known here.
 * Ownership:  what is read points into the message; what is written is copied into a buffer.
 * Threading:  any thread.
 * Errors:     a message is taken whole or not at all: enum bus_verdict says why not.
 * Units:      bytes; sent_unix_us is wall-clock time, for metrics only.
 *
 *      0  'N' 'C'  u8 version  u8 flags (1 signed, 2 heartbeat, 4 leaving, 8 new)
 *      4  u64 origin   random per start of a process
 *     12  u64 seq      per origin and channel; a heartbeat tells the last one again
 *     20  u64 time of sending, unix microseconds
 *     28  u16 number of records, then each: u8 kind  u8 flags (1: b follows)  i16 db (-1: all)
 *         varint length of a, a [varint length of b, b]
 *         at the end, if signed: the first 16 bytes of HMAC(HMAC(secret, channel), all the above)
 */
#ifndef NC_COHERENCE_BUS_RECORD_H
#define NC_COHERENCE_BUS_RECORD_H

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/check.h"

#define BUS_VERSION 1
#define BUS_HEADER_BYTES 30
#define BUS_SIGNATURE_BYTES 16
/* What one message may hold: a batch is sent at the latest when it is this full. */
#define BUS_RECORDS_MAX 512
#define BUS_BATCH_BYTES ((size_t)32 * 1024)
#define BUS_MESSAGE_MAX ((size_t)64 * 1024)
/* Longest a and b together: a record always fits into a message of its own. */
#define BUS_RECORD_MAX (BUS_MESSAGE_MAX - 256)

/*
 * KEY a: key. PREFIX a: prefix, b: namespace. GLOB a: pattern, b: namespace. TAG a: tag. SLOTS a:
 * two u16, first and last slot. FLUSH a: name of a namespace, empty: all. EVENT a: name, b:
 * arguments. UPDATE a: key, b: value. BAN a: the predicate as it was given, b: namespace. DEPEND a:
 * source, b: what is derived (with BUS_IS_UNDO: is so no more). What b is
 * where it is not named is the sender's and the receiver's business.
 */
enum bus_kind {
    BUS_KEY = 1,
    BUS_PREFIX,
    BUS_GLOB,
    BUS_TAG,
    BUS_SLOTS,
    BUS_FLUSH,
    BUS_EVENT,
    BUS_UPDATE,
    BUS_BAN,
    BUS_DEPEND = 16,
};

/* Of a record. The other seven bits are the sender's. */
#define BUS_HAS_B 1
/* KEY and GLOB: derived from what was written, by dependencies. */
#define BUS_IS_DEPENDENCY 2
/* DEPEND. */
#define BUS_IS_UNDO 4
/* BAN: told before, to be heard by those who missed it. */
#define BUS_IS_AGAIN 8

struct bus_record {
    uint8_t kind, flags; /* flags: BUS_HAS_B is set and read by this module */
    int16_t db;          /* -1: all */
    struct bytes a, b;
};

struct bus_header {
    uint64_t origin, seq;
    int64_t sent_unix_us;
    uint16_t n_records;
    bool is_signed, is_heartbeat;
    bool is_last; /* its origin stops: it will not be heard of again */
    bool is_new;  /* its origin listens from now on: heartbeats are asked for, to know numbers */
};

enum bus_verdict {
    BUS_GOOD,
    BUS_MALFORMED, /* truncated, or lengths that do not add up */
    BUS_UNSIGNED,  /* a secret is set here, and the message carries no signature */
    BUS_FORGED,    /* its signature is not ours */
    BUS_NEWER,     /* well-formed as far as that can be told, of another version */
};

/* Appends one record. -E2BIG: longer than BUS_RECORD_MAX. -ENOMEM. Nothing is appended then. */
NC_MUST_CHECK int bus_record_write(struct buffer *out, const struct bus_record *record);

/*
 * Writes one message; records: n of them as bus_record_write() left them. secret: empty for no
 * signature. -ENOMEM.
 */
NC_MUST_CHECK int bus_message_write(struct buffer *out, const struct bus_header *header,
                                    struct bytes records, struct bytes secret,
                                    struct bytes channel);

/*
 * Checks all of a message, its records included, before anything of it is used. *records is what
 * bus_record_next() walks through. With an empty secret signatures are not looked at.
 */
enum bus_verdict bus_message_read(struct bytes message, struct bytes secret, struct bytes channel,
                                  struct bus_header *header, struct bytes *records);

/* Takes the next record off the front; false when there is none, or it is cut off. */
bool bus_record_next(struct bytes *records, struct bus_record *record);

#endif
