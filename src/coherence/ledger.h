/*
 * ledger.h - what applications told us about keys, kept at the backend
 *
 * Purpose:    relations of three kinds, each from a subject (a tag, the source of a dependency, an
 *             event) to members, which are keys. They are kept at the backend, so that every proxy
 *             honours them, one that starts later too. Members that do not exist any more are taken
 *             out in time (ledger_review.h).
 * Ownership:  one per worker, coherence->ledger. What is given is copied; what is handed out is
 *             valid for the call. An operation cannot be recalled: its context stays until done().
 * Threading:  its worker only. Different workers' and proxies' may work on one subject at a time.
 * Errors:     a function that returns words has done nothing, and calls nobody. Otherwise done() is
 *             called once, never before the function has returned; answer->error says why it
 *             failed: then nothing is known of what was written, and it may be repeated, as every
 *             operation comes to the same when done twice.
 * Units:      bytes. Time at the backend is wall-clock milliseconds of the proxies.
 *
 * A subject belongs to one of LEDGER_SHARDS shards, each with a slot of its own in a cluster, so
 * that what concerns a subject is changed and read at once:
 *
 *     <prefix>{k}:<kind>             sorted set: subjects, by when to look at them again
 *     <prefix>{k}:<kind>:<subject>   sorted set: members "<db>:<key>", by when to look again
 *     <prefix>{k}:<kind>!            string: version, another one after each change
 *
 * kind is tag, dep or event, prefix is `ledger-prefix`. All are in the database of the proxy's own
 * login. Keys that begin with the prefix are never cached. What done() has said is added stays
 * until it is removed or its key is gone, and is found by every operation that begins later, at
 * any proxy. Replication is as good as the backend's: a failover may lose it, as any other write.
 */
#ifndef NC_COHERENCE_LEDGER_H
#define NC_COHERENCE_LEDGER_H

#include "coherence/coherence.h"

#define LEDGER_SHARDS 64u

enum ledger_kind { LEDGER_TAG, LEDGER_DEPENDENCY, LEDGER_EVENT, N_LEDGER_KINDS };

struct ledger; /* opaque */

/* A key in its database. */
struct ledger_member {
    unsigned db;
    struct bytes key;
};

/* Of a kind and shard; compare with ledger_version_equal(). length 0: nothing was ever written. */
struct ledger_version {
    uint8_t length;
    unsigned char text[40];
};

struct ledger_answer {
    const char *error;             /* NULL: done. For people, without a code in front */
    uint64_t n;                    /* added or removed that were not, or were, there; handed out */
    struct ledger_version version; /* of the shard: behind the change, or before what was read */
};

typedef void (*ledger_done_fn)(void *context, const struct ledger_answer *answer);
/* One batch, at most `ledger-batch` or so. Several may come, and a member twice. */
typedef void (*ledger_members_fn)(void *context, const struct ledger_member *members, unsigned n);
typedef void (*ledger_subject_fn)(void *context, struct bytes subject);

/* Made and freed with the coherence of its worker. */
struct ledger *ledger_new(struct coherence *home);
/* Before the backend's links go: operations under way end with an error, and no more begin. */
void ledger_stop(struct ledger *ledger);
/* After them. */
void ledger_free(struct ledger **ledger);
/* From coherence.c. */
void ledger_tick(struct ledger *ledger, int64_t now_us);

/* One atomic change. At most LEDGER_ADD_MAX at a time. */
#define LEDGER_ADD_MAX 1000u
NC_MUST_CHECK const char *ledger_add(struct ledger *ledger, enum ledger_kind kind,
                                     struct bytes subject, const struct ledger_member *members,
                                     unsigned n, ledger_done_fn done, void *context);
NC_MUST_CHECK const char *ledger_remove(struct ledger *ledger, enum ledger_kind kind,
                                        struct bytes subject, const struct ledger_member *members,
                                        unsigned n, ledger_done_fn done, void *context);

/*
 * Every member of database db (-1: of any) that is there from beginning to end, in batches, the
 * last of which comes before done(); on_members may be NULL. max: 0 for all, else it ends behind
 * the batch that reaches so many.
 */
NC_MUST_CHECK const char *ledger_members(struct ledger *ledger, enum ledger_kind kind,
                                         struct bytes subject, int db, uint64_t max,
                                         ledger_members_fn on_members, ledger_done_fn done,
                                         void *context);

/* Every subject of a shard; one without members may be among them. For a table in memory. */
NC_MUST_CHECK const char *ledger_subjects(struct ledger *ledger, enum ledger_kind kind,
                                          unsigned shard, ledger_subject_fn on_subject,
                                          ledger_done_fn done, void *context);

/*
 * The version of a shard alone: whether what was read of it still holds. A table is filled like
 * this: ledger_subjects(), ledger_members() of each; if all their versions are the same, that is
 * the version of the whole.
 */
NC_MUST_CHECK const char *ledger_ask_version(struct ledger *ledger, enum ledger_kind kind,
                                             unsigned shard, ledger_done_fn done, void *context);

unsigned ledger_shard(enum ledger_kind kind, struct bytes subject);
bool ledger_version_equal(const struct ledger_version *a, const struct ledger_version *b);

/* A key of the ledger itself, or one that would be taken for it. */
bool ledger_owns(const struct config *config, struct bytes key);

#endif
