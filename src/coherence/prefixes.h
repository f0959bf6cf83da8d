/*
 * prefixes.h - what the names of the keys begin with that a link for all workers has to hear of
 *
 * Purpose:    CLIENT TRACKING with BCAST, and patterns of keyspace notifications, for no more keys
 *             than are kept: the literal beginnings of the cacheable namespaces' patterns, and of
 *             the sources of [dependency] rules, none of them the beginning of another (Redis
 *             refuses such).
 * Ownership:  copies what it is made from.
 * Threading:  none of its own.
 */
#ifndef NC_COHERENCE_PREFIXES_H
#define NC_COHERENCE_PREFIXES_H

#include "config/config.h"

struct prefixes {
    struct bytes *items;  /* sorted */
    unsigned n;           /* 0: every key, or none is wanted */
    bool is_wanted;       /* some namespace with one of these modes is kept */
    unsigned char *bytes; /* what items point into */
    uint64_t id;          /* sets of prefixes that differ have another one */
};

/* Of the namespaces whose coherence is `mode`, or `other`; and of the rules. */
void prefixes_init(struct prefixes *prefixes, const struct config *config, int mode, int other);
/* Rules are heard of in this way (COHERENCE_BROADCAST or COHERENCE_KEYSPACE), if in any. */
bool prefixes_have_rules(const struct config *config, int mode);
void prefixes_fini(struct prefixes *prefixes);

#endif
