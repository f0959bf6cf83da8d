/*
 * invalidation.h - dropping from tier 1 what somebody names: here, and at the other proxies
 *
 * Purpose:    one way for CACHE, the admin port and the bus: apply it here, tell the bus, and for
 *             the scope ALL begin a job that removes the keys at the backend as well (unlink.h).
 *             When invalidation_run() returns, no client of this proxy is shown any more what was
 *             in memory before, and no fetch that was under way is kept. Clients that keep values
 *             themselves are told, too; a rule tells them that anything may have changed.
 * Ownership:  arguments are borrowed for the call.
 * Threading:  any worker (from: its coherence), or the control thread (from: NULL).
 * Errors:     false, and answer->error says why in a fixed phrase; then nothing has happened.
 *
 * invalidation_run() answers at once. What must ask the backend first (tags.h) uses its parts.
 */
#ifndef NC_COHERENCE_INVALIDATION_H
#define NC_COHERENCE_INVALIDATION_H

#include "cache/bans.h"
#include "coherence/bus.h"
#include "coherence/coherence.h"
#include "coherence/key_pile.h"

enum invalidation_kind {
    INVALIDATE_KEYS,
    INVALIDATE_PREFIX,
    INVALIDATE_GLOB,
    INVALIDATE_NAMESPACE,
    INVALIDATE_EVERYTHING,
    INVALIDATE_TAGS, /* of jobs: the keys, and what has one of the tags by a rule */
};

struct invalidation {
    enum invalidation_kind kind;
    const struct bytes *keys; /* of INVALIDATE_KEYS and INVALIDATE_TAGS */
    size_t n_keys;
    struct key_pile *pile;    /* of jobs: more keys, which they take over; or NULL */
    const struct bytes *tags; /* of INVALIDATE_TAGS */
    size_t n_tags;
    struct bytes name; /* prefix, pattern, or the namespace's name */
    bool is_all;       /* scope ALL: at the backend, too */
    unsigned db;       /* where ALL removes; tier 1 drops a name in every database */
    bool is_event;     /* an event asks for it: the reason that is counted */
    bool is_heard;     /* the other proxies hear of it themselves: they are not told */
};

struct invalidation_answer {
    bool is_counted;    /* n_entries is known; else they are matched as they are met */
    uint64_t n_entries; /* that were held here */
    unsigned n_proxies; /* others that were told */
    uint64_t job;       /* of scope ALL; 0: none */
    const char *error;
};

#define INVALIDATION_NO_MORE_JOBS "as many jobs as unlink-jobs allows are under way"

bool invalidation_run(struct coherence_fleet *fleet, struct coherence *from,
                      const struct invalidation *what, struct invalidation_answer *answer);

/*
 * The scope L1 of it once more, at the end of its job: nobody has asked for it anew. Keys are
 * repeated by the second one, as they were removed.
 */
void invalidation_repeat(struct coherence_fleet *fleet, const struct invalidation *what);
void invalidation_repeat_keys(struct coherence_fleet *fleet, const struct invalidation *what,
                              const struct bytes *keys, size_t n);

/*
 * The parts of it, for those who find out themselves what is to go (tags, dependencies, events): on
 * a worker, from being its coherence, or the control thread (NULL). Each drops here and tells the
 * others.
 */
/* Returns how many were held; counted by reason. */
uint64_t invalidation_drop_keys(struct coherence_fleet *fleet, struct coherence *from,
                                const struct bytes *keys, size_t n, enum metric reason);
/* What has this tag by a rule: whether there is such a rule here. is_told: by another proxy. */
bool invalidation_drop_tag(struct coherence_fleet *fleet, struct coherence *from, struct bytes tag,
                           bool is_told);
unsigned invalidation_count_proxies(const struct coherence_fleet *fleet);

/* A standing ban, here and at the other proxies; *id is new. ttl_ms: 0 is "until it is removed". */
bool invalidation_ban(struct coherence_fleet *fleet, struct coherence *from,
                      const struct ban_rule *rule, int64_t ttl_ms, uint64_t *id,
                      struct invalidation_answer *answer);
/* Returns whether it stood here; the others are told in any case. */
bool invalidation_unban(struct coherence_fleet *fleet, struct coherence *from, uint64_t id,
                        struct invalidation_answer *answer);

/* What the bus received is applied here, reason bus; a kind that is not known drops everything. */
extern const struct bus_events invalidation_bus_events; /* context: the coherence_fleet */

#endif
