/*
 * key_pile.h - a great many names of keys, which nobody has to copy at once
 *
 * Purpose:    names are added one by one and walked through from the front. They lie in blocks, so
 *             that growing moves nothing, and a pile goes from hand to hand, and away, in pieces.
 * Ownership:  a pile is the caller's; names are copied into it. Those that a walk shows stay valid
 *             until the pile is freed.
 * Threading:  one owner at a time.
 * Errors:     false: no memory; the pile is as it was.
 */
#ifndef NC_COHERENCE_KEY_PILE_H
#define NC_COHERENCE_KEY_PILE_H

#include "base/bytes.h"
#include "base/check.h"

#include <stdbool.h>

struct key_block; /* opaque */

/* All zero: empty. */
struct key_pile {
    struct key_block *first, *last;
    size_t n, n_bytes; /* names; what they and their lengths take */
};

NC_MUST_CHECK bool key_pile_add(struct key_pile *pile, struct bytes key);

/* All zero: the front. */
struct key_place {
    const struct key_block *block;
    size_t at, n; /* n: names that were passed */
};

/* False: that was all. */
bool key_pile_next(const struct key_pile *pile, struct key_place *place, struct bytes *key);

/* Puts all of `from` behind what `to` has, without copying; from is empty then. */
void key_pile_move(struct key_pile *to, struct key_pile *from);

/* Frees a piece of at most a few MiB; the pile is not walked through any more. False: empty. */
bool key_pile_free_some(struct key_pile *pile);
void key_pile_free(struct key_pile *pile);

#endif
