/*
 * name_index.h - from a command's name, in any case, to its number
 *
 * Purpose:    an open hash table over names of up to 64 bytes; a look-up of up to 16 bytes compares
 *             two words and never a string.
 * Ownership:  slots belong to the caller, who provides them zeroed, a power of two of them and at
 *             most three quarters in use. Names are borrowed and outlive the index.
 * Threading:  look-ups on any thread once it is filled.
 * Errors:     NAME_UNKNOWN.
 */
#ifndef NC_RESP_NAME_INDEX_H
#define NC_RESP_NAME_INDEX_H

#include "base/bytes.h"

/* The parent of a name that is no subcommand. */
#define NAME_NO_PARENT UINT16_MAX
#define NAME_UNKNOWN UINT16_MAX

struct name_slot {
    uint64_t head, tail; /* lower case: the first eight bytes and the last eight */
    const char *name;    /* NULL: free */
    uint16_t number;
    uint16_t parent; /* the container's number, for a subcommand */
    uint8_t len;
};

struct name_index {
    struct name_slot *slots;
    unsigned n_slots;
};

/* name is lower case, 1 to 64 bytes; for a subcommand without its container's part. */
void name_index_add(struct name_index *index, uint16_t parent, const char *name, uint16_t number);
uint16_t name_index_find(const struct name_index *index, uint16_t parent, struct bytes name);

struct command;
struct command_set;
/* A learnt command, NULL when the set has none of that name; parent as above. */
const struct command *command_set_find(const struct command_set *set, uint16_t parent,
                                       struct bytes name);

#endif
