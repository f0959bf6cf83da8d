#include "config/nearest.h"

#include <string.h>

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/*
 * Optimal string alignment, three rows of the usual matrix:
 * https://en.wikipedia.org/wiki/Damerau-Levenshtein_distance
 */
static unsigned distance_between(const char *a, size_t a_len, const char *b, size_t b_len)
{
    unsigned rows[3][NEAREST_WORD_MAX + 1];
    unsigned *before = rows[0], *above = rows[1], *row = rows[2];

    for (unsigned j = 0; j <= b_len; j++) {
        above[j] = before[j] = j;
    }
    for (unsigned i = 1; i <= a_len; i++) {
        row[0] = i;
        for (unsigned j = 1; j <= b_len; j++) {
            const unsigned replaced = above[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);

            row[j] = least(replaced, least(above[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                row[j] = least(row[j], before[j - 2] + 1);
            }
        }

        unsigned *const oldest = before;
        before = above;
        above = row;
        row = oldest;
    }
    return above[b_len];
}

void nearest_offer(struct nearest *nearest, const char *candidate)
{
    const size_t word_len = strlen(nearest->word), candidate_len = strlen(candidate);

    if (word_len > NEAREST_WORD_MAX || candidate_len > NEAREST_WORD_MAX) {
        return;
    }

    const unsigned distance = distance_between(nearest->word, word_len, candidate, candidate_len);
    /* About a third of the letters may be wrong: beyond that the hint misleads. */
    const size_t allowed = candidate_len < 2 ? 1 : (candidate_len + 1) / 3;

    if (distance <= allowed && (nearest->found == NULL || distance < nearest->distance)) {
        nearest->found = candidate;
        nearest->distance = distance;
    }
}
