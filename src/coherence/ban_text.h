/*
 * ban_text.h - a ban, or its removal, as the bus has it, as pure code
 *
 * Purpose:    `<id> <ttl-ms> <age-ms> <bytes> <kind> <name>`, or `<id> -` of one that was removed:
 *             the text a of a record BUS_BAN (bus_record.h). The id is hexadecimal.
 * Ownership:  writes into room that the caller has; what is read points into the text.
 * Threading:  any thread.
 * Errors:     false: not as above, or a figure that no proxy sends.
 */
#ifndef NC_COHERENCE_BAN_TEXT_H
#define NC_COHERENCE_BAN_TEXT_H

#include "cache/bans.h"

/* Longest text of a ban on the bus. */
#define BAN_TEXT_MAX (96 + BAN_NAME_MAX)

struct ban_text {
    uint64_t id;
    bool is_removal;      /* the rest means nothing */
    int64_t ttl_ms;       /* 0: until it is removed */
    struct ban_rule rule; /* ns: -1, as the text does not hold it */
};

/* The name is no longer than BAN_NAME_MAX. Returns the length. */
size_t ban_text_write(unsigned char out[BAN_TEXT_MAX], uint64_t id, int64_t ttl_ms,
                      const struct ban_rule *rule);
size_t ban_text_write_removal(unsigned char out[BAN_TEXT_MAX], uint64_t id);

bool ban_text_read(struct bytes text, struct ban_text *ban);

#endif
