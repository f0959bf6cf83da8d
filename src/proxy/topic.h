/*
 * topic.h - names that clients subscribe to, and tables of them
 *
 * Purpose:    one table for all who keep something per channel: sessions, workers, the links to the
 *             backend, the census. What is kept embeds a struct topic.
 * Ownership:  the table owns the names, the caller what embeds them.
 * Threading:  one owner, or under its owner's lock.
 */
#ifndef NC_PROXY_TOPIC_H
#define NC_PROXY_TOPIC_H

#include "base/bytes.h"

#include <stdbool.h>

enum topic_kind { TOPIC_CHANNEL, TOPIC_PATTERN, TOPIC_SHARD, N_TOPIC_KINDS };

/* user: whose login subscribes at the backend (identity.h); 0: the proxy's own. */
struct topic_key {
    enum topic_kind kind;
    unsigned user;
    struct bytes name;
};

struct topic {
    struct topic *next; /* of its bucket */
    uint64_t hash;
    struct topic_key key; /* the name is the table's copy */
};

/* All zero is an empty table. */
struct topic_table {
    struct topic **buckets;
    unsigned n_buckets, n;
};

struct topic *topic_find(const struct topic_table *table, const struct topic_key *key);
/* It must not be there yet. */
void topic_add(struct topic_table *table, struct topic *topic, const struct topic_key *key);
void topic_remove(struct topic_table *table, struct topic *topic);
/* In no order; after: NULL for the first. The one that was returned may be removed meanwhile only
 * if the next one was asked for before. */
struct topic *topic_next(const struct topic_table *table, const struct topic *after);
/* What is still in it is the caller's. */
void topic_table_fini(struct topic_table *table);

#endif
