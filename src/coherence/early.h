/*
 * early.h - reading an entry again before its end
 *
 * Purpose:    whether a hit near its deadline should renew it (XFetch: the nearer the deadline and
 *             the dearer the renewal, the more likely, so that of many readers one does it in
 *             time), what a renewal costs, and the renewal of entries that a new reading prolongs.
 * Ownership:  the fleet owns what is measured.
 * Threading:  any thread; early_refresh(): its worker.
 * Errors:     a refresh that cannot be begun is not: the entry ends as it would have.
 * Units:      microseconds.
 *
 * Source: Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache Stampede Prevention",
 * VLDB 2015.
 */
#ifndef NC_COHERENCE_EARLY_H
#define NC_COHERENCE_EARLY_H

#include "cache/cache.h"
#include "resp/command.h"

struct coherence;
struct early;
struct identity;

struct early *early_new(void);
void early_free(struct early **early);

/* A fetch of the namespace took this long. */
void early_note_fetch(struct early *early, unsigned ns, int64_t took_us);
/* What a fetch costs, as an average of the newest; never so little that one reader in a burst would
 * not make it in time. */
int64_t early_fetch_cost(const struct early *early, unsigned ns);

/*
 * left_us from the deadline (0 or less: past it), a renewal takes cost_us: should this reader do
 * it? random: 32 of them.
 */
bool early_is_due(int64_t left_us, int64_t cost_us, uint32_t random);
/* Of this thread. */
uint32_t early_random(void);

/* Reads the view once more for tier 1 alone, unless that is under way. */
bool early_refresh(struct coherence *coherence, const struct cache_query *query,
                   const struct command *command, const struct identity *identity);

#endif
