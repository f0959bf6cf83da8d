/*
 * nearest.h - "did you mean": the known word that is closest to a mistyped one
 *
 * Purpose:    end an error about an unknown name with a usable hint.
 * Ownership:  answers are among the candidates.
 * Threading:  any thread; no state.
 * Errors:     NULL where nothing is close enough to be a typing error.
 */
#ifndef NC_CONFIG_NEAREST_H
#define NC_CONFIG_NEAREST_H

#include <stddef.h>

/* Words longer than this are not compared. */
#define NEAREST_WORD_MAX 48

/*
 * Collects the best of the candidates offered one by one:
 * struct nearest nearest = {.word = mistyped}; nearest_offer(...)...; nearest.found.
 */
struct nearest {
    const char *word;
    const char *found; /* NULL so far */
    unsigned distance; /* of found: insertions, deletions, replacements, swaps of neighbours */
};

void nearest_offer(struct nearest *nearest, const char *candidate);

#endif
