/*
 * ledger_keys.h - how the ledger's keys and members are spelled, as pure code
 *
 * Purpose:    what ledger.h says about names, for the files that read and write them.
 * Ownership:  writes into room that the caller has.
 * Threading:  any thread.
 * Errors:     false: not a member of the ledger's.
 */
#ifndef NC_COHERENCE_LEDGER_KEYS_H
#define NC_COHERENCE_LEDGER_KEYS_H

#include "coherence/ledger.h"

/* Prefix, {k}, kind, and two signs between. */
#define LEDGER_KEY_EXTRA ((size_t)160)
/* Digits of a database, and a colon. */
#define LEDGER_MEMBER_EXTRA ((size_t)12)

enum ledger_part { LEDGER_SUBJECTS, LEDGER_MEMBERS, LEDGER_VERSION };

/* Whatever the map is like: the same in every process. */
unsigned ledger_tag_number(unsigned shard);

/* subject: of LEDGER_MEMBERS, else empty. out has room for LEDGER_KEY_EXTRA and the subject. */
struct bytes ledger_key(const char *prefix, enum ledger_kind kind, unsigned shard,
                        enum ledger_part part, struct bytes subject, unsigned char *out);

/* out has room for LEDGER_MEMBER_EXTRA and the key. */
struct bytes ledger_member_write(const struct ledger_member *member, unsigned char *out);
/* The key points into text. */
bool ledger_member_read(struct bytes text, struct ledger_member *member);

#endif
