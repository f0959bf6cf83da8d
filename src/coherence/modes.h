/*
 * modes.h - what `coherence` comes to at one node, and what that means for a fetch
 *
 * Purpose:    from the option, which may be auto and differ by namespace, and from what the node
 *             offers to: the incarnation that a fetch is begun under, and how what it brings is
 *             bounded.
 * Ownership:  plain values.
 * Threading:  the track's worker.
 * Units:      microseconds.
 */
#ifndef NC_COHERENCE_MODES_H
#define NC_COHERENCE_MODES_H

#include "coherence/track.h"

/* "tracking", "broadcast", "keyspace", "pubsub", "ttl". */
const char *modes_name(int mode);
/*
 * coherence itself; of auto, the first of tracking, keyspace, pubsub and ttl that the node offers;
 * of pubsub, ttl while the bus is not up.
 */
int modes_now(const struct track *track, int coherence);
/* Of a namespace of mode auto: the node tells of no writes. */
bool modes_is_untold(const struct track *track);
/* Under which a key of a namespace with this coherence may be fetched now; or EPOCHS_NONE. */
uint16_t modes_incarnation(struct track *track, int coherence, int64_t now_us);

struct modes_bound {
    bool is_sole;        /* as in struct cache_fill */
    int64_t max_life_us; /* INT64_MAX: the mode sets no limit */
};
/* Of what was fetched under it. */
struct modes_bound modes_bound_of(const struct track *track, int coherence, uint16_t incarnation);
/* Under it one hears of every write, those made here included. */
bool modes_is_told(const struct track *track, int coherence, uint16_t incarnation);

/*
 * To be called when anything changed that the above rests on: a change of what auto comes to is
 * logged and ends what was fetched before.
 */
void modes_renew(struct track *track);

#endif
