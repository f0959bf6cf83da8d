/*
 * debounce.h - what rules drop again and again: at once, and once more at the end of a window
 *
 * Purpose:    the first time a name is dropped by a rule with `debounce`, that is done at once and
 *             opens a window. Within it the same is noted and not done; at its end it is done once,
 *             which opens the next window. So the last one is never lost, and comes at most a
 *             window later.
 * Ownership:  one per process, fleet->debounce. Names are copied.
 * Threading:  any thread; debounce_take() the first worker.
 * Errors:     DEBOUNCE_MAX names have windows; what comes then is done at once each time, and
 *             counted.
 */
#ifndef NC_COHERENCE_DEBOUNCE_H
#define NC_COHERENCE_DEBOUNCE_H

#include "base/bytes.h"

#include <stdint.h>

#define DEBOUNCE_MAX 16384u
/* Windows that end in one tick, at most; the rest in the next ones. */
#define DEBOUNCE_TAKEN_MAX 256u

struct debounce; /* opaque */

enum debounce_kind { DEBOUNCE_DEPENDENCY, DEBOUNCE_EVENT };

/* What is told apart, and what to do it again takes. */
struct debounce_what {
    uint8_t kind;
    bool is_glob;
    uint8_t rule, of; /* of a dependency */
    unsigned db;      /* of an event */
    uint64_t rules;   /* of a dependency, not told apart: those on every way here */
};

struct debounce *debounce_new(void);
void debounce_free(struct debounce **debounce);

/* True: a window is open, and it will be done at its end. False: it is to be done now. */
bool debounce_hold(struct debounce *debounce, const struct debounce_what *what, struct bytes name,
                   int64_t window_us, int64_t now_us);

/*
 * Something that was held and is due: to be done now. *name is valid until the next call. False:
 * nothing is, now.
 */
bool debounce_take(struct debounce *debounce, int64_t now_us, struct debounce_what *what,
                   struct bytes *name);

unsigned debounce_count(struct debounce *debounce);

#endif
