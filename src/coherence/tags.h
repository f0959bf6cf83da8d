/*
 * tags.h - tags of keys: told by applications, or by rules of the configuration
 *
 * Purpose:    attach tags to keys and take them off, both in the ledger; invalidate what has a tag,
 *             here, at the other proxies and, with scope ALL, at the backend. What a rule says is
 *             dropped at once by bans_add_tag(), what was told is read from the ledger and dropped
 *             key by key, in batches. The bus carries the tag for the rules of the others, and the
 *             keys.
 * Ownership:  what is given is copied. done() is called once, never before the function returned.
 * Threading:  the worker of `home`.
 * Errors:     words. A function that returns words has done nothing and calls nobody. Where
 *             invalidating fails half-way, something has been dropped, which does no harm; nothing
 *             is claimed.
 */
#ifndef NC_COHERENCE_TAGS_H
#define NC_COHERENCE_TAGS_H

#include "coherence/invalidation.h"
#include "coherence/ledger.h"

/* Tags of one request. */
#define TAGS_MAX 128u

struct tags_answer {
    const char *error;  /* NULL: done */
    uint64_t n;         /* attached or taken off; invalidating: keys that carry a tag */
    bool is_counted;    /* of an invalidation: n_entries is all that went */
    uint64_t n_entries; /* that were held here; of keys that were told of */
    unsigned n_proxies;
    uint64_t job; /* of scope ALL; 0: there was nothing to remove */
};

typedef void (*tags_done_fn)(void *context, const struct tags_answer *answer);

/* key of database db. */
NC_MUST_CHECK const char *tags_attach(struct coherence *home, unsigned db, struct bytes key,
                                      const struct bytes *tags, unsigned n, bool is_attach,
                                      tags_done_fn done, void *context);

/* is_all: the keys of database db go at the backend, too. */
NC_MUST_CHECK const char *tags_invalidate(struct coherence *home, unsigned db, bool is_all,
                                          const struct bytes *tags, unsigned n, tags_done_fn done,
                                          void *context);

#endif
