/*
 * ledger_review.h - taking out of the ledger what is gone
 *
 * Purpose:    a membership follows its key. Members carry a time at which they are looked at again,
 *             subjects the earliest of their members'; when it has come, any proxy asks whether
 *             the keys exist. Those that do stay, for another `ledger-review`; those that do not
 * go, and so does a subject that has no members left. Ownership:  part of the ledger of the first
 * worker. Threading:  the first worker. Errors:     counted. What could not be asked is asked again
 * later; nothing is taken out then. Units:      clock_now_us(); at the backend wall-clock
 * milliseconds.
 */
#ifndef NC_COHERENCE_LEDGER_REVIEW_H
#define NC_COHERENCE_LEDGER_REVIEW_H

#include "coherence/errand.h"

struct ledger_review; /* opaque */

struct ledger_review *ledger_review_new(struct coherence *home, struct errands *errands);
/* Nothing is begun any more. Accepts NULL. */
void ledger_review_stop(struct ledger_review *review);
/* Nothing is under way. Accepts a pointer to NULL. */
void ledger_review_free(struct ledger_review **review);
void ledger_review_tick(struct ledger_review *review, int64_t now_us);

#endif
