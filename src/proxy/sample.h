/*
 * sample.h - which hits are looked at more closely
 *
 * Purpose:    the auditor and the sketches of hot keys each want one hit in so many. A hit counts
 *             down once for both, to whichever comes first.
 * Ownership:  part of its front.
 * Threading:  its worker only.
 * Errors:     none.
 */
#ifndef NC_PROXY_SAMPLE_H
#define NC_PROXY_SAMPLE_H

#include "proxy/front.h"

/* Draws anew; after a change of options too. */
void sample_begin(struct front *front);
/* The countdown has come to 0 with this hit. */
void sample_take(struct front *front, const struct cache_query *query,
                 const struct command *command, size_t reply_bytes);

static inline void sample_hit(struct front *front, const struct cache_query *query,
                              const struct command *command, size_t reply_bytes)
{
    if (NC_UNLIKELY(--front->sample.left == 0)) {
        sample_take(front, query, command, reply_bytes);
    }
}

#endif
