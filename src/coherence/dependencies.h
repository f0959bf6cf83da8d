/*
 * dependencies.h - what is derived from which: a write to a source drops what is derived from it
 *
 * Purpose:    the process's copy of the relations that CACHE DEPEND made (dependency_graph.h), and
 *             the rules of [dependency] sections. dependencies_cascade() drops everything that is
 *             derived from a name, directly or through others, each once, so that circles end.
 * Ownership:  one per process, fleet->dependencies. Copies what it is given.
 * Threading:  any thread. dependencies_set_config(): the control thread.
 * Errors:     none. A cascade that would drop more than `max-cascade` names drops everything.
 *
 * Who calls it: the reply rule, for commands that write; whoever hears of writes (tracking links,
 * notifications, the bus); orders of CACHE and the admin port; and dependency_watch.h, when it may
 * have heard nothing for a while.
 */
#ifndef NC_COHERENCE_DEPENDENCIES_H
#define NC_COHERENCE_DEPENDENCIES_H

#include "coherence/bus_record.h"
#include "coherence/coherence.h"
#include "coherence/debounce.h"
#include "coherence/dependency_graph.h"

struct dependencies {
    struct coherence_fleet *fleet;
    _Atomic bool is_used;           /* atomic: there are relations or rules, or were */
    pthread_rwlock_t lock;          /* a leaf */
    struct dependency_graph *graph; /* lock */
    struct config *config;          /* control thread */
    _Atomic uint64_t *filter;       /* atomic: bits of sources, by hash; never cleared */
    _Atomic size_t n_relations, n_sources, n_bytes; /* atomic: for the metrics */
    _Atomic uint64_t serial;               /* atomic: another one after each change of the graph */
    _Atomic bool has_rules, has_relations; /* atomic */
    _Atomic bool is_told;                  /* atomic: all masters tell of rules' sources */
    _Atomic bool is_incomplete;            /* atomic: the ledger has more than fit */
    pthread_mutex_t globs_lock;            /* a leaf */
    struct dependency_glob *globs;         /* globs_lock: to be removed at the backend */
    unsigned n_globs;                      /* globs_lock */
};

struct dependencies *dependencies_new(struct coherence_fleet *fleet, struct config *config);
void dependencies_free(struct dependencies **dependencies);
/* Before any worker acts by it. */
void dependencies_set_config(struct dependencies *dependencies, struct config *config);

/* All that a write costs where nothing depends on anything. */
static inline bool dependencies_are_used(const struct coherence_fleet *fleet)
{
    return NC_UNLIKELY(fleet->dependencies != NULL &&
                       atomic_load_explicit(&fleet->dependencies->is_used, memory_order_relaxed));
}

enum dependency_cause {
    DEPENDENCY_WRITTEN, /* through this proxy: the others are told what went */
    DEPENDENCY_HEARD,   /* the backend said so */
    DEPENDENCY_ORDERED, /* somebody wants it dropped, and nobody need have written it */
    DEPENDENCY_MISSED,  /* it may have been written */
    DEPENDENCY_LEARNT,  /* through this proxy, perhaps, before it knew: the others are told */
};

/*
 * Drops what is derived from the key, not the key itself. from: on its worker; or NULL: whoever
 * calls. At the backend only what rules of scope ALL derive, and only when the backend says that
 * something was written; where it does not, every command that writes counts, in vain perhaps.
 */
void dependencies_cascade(struct coherence_fleet *fleet, struct coherence *from, struct bytes key,
                          enum dependency_cause cause);
/* The same for whatever matches a glob: DEPENDENCY_ORDERED. */
void dependencies_cascade_glob(struct coherence_fleet *fleet, struct coherence *from,
                               struct bytes glob);
/* At the end of its window, what a rule held: with what is derived from it. On from's worker. */
void dependencies_drop_held(struct coherence *from, const struct debounce_what *what,
                            struct bytes name);
/* Whatever the rules derive: their sources were not heard of for a while. */
void dependencies_cascade_rules(struct coherence *from);

/*
 * A relation, read of the ledger's shard. What is derived goes, when it is new: the source may have
 * been written before it was known here. False: there is no room for it.
 */
bool dependencies_add(struct coherence *from, unsigned shard, struct bytes derived,
                      struct bytes source);
/*
 * The same for one that another proxy has made a moment ago. In modes that tell nobody of writes,
 * it may have cached what is derived since, and a write through this proxy in between is known here
 * alone: so it is told of what went.
 */
bool dependencies_learn(struct coherence *from, unsigned shard, struct bytes derived,
                        struct bytes source);
void dependencies_begin_load(struct dependencies *dependencies, unsigned shard);
/* Returns how many went, as the ledger had them no more. */
size_t dependencies_end_load(struct dependencies *dependencies, unsigned shard);
bool dependencies_has(struct dependencies *dependencies, struct bytes derived, struct bytes source);
bool dependencies_is_source(struct dependencies *dependencies, struct bytes key);
size_t dependencies_count(struct dependencies *dependencies);

/* Copies of names: length (size_t) and bytes of each; -ENOMEM. At most max. */
NC_MUST_CHECK int dependencies_list(struct dependencies *dependencies, struct bytes name,
                                    bool wants_sources, unsigned max, struct buffer *out);
bool dependencies_next_name(struct bytes *list, struct bytes *name);
/* In order, the sources behind `after`. */
NC_MUST_CHECK int dependencies_list_sources(struct dependencies *dependencies, struct bytes after,
                                            unsigned max, struct buffer *out);

/* Worker 0, every few milliseconds: patterns that wait for a job at the backend. */
void dependencies_tick(struct dependencies *dependencies);

#endif
