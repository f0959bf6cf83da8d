/*
 * touch.h - making tracking links hear of keys before they are read over another connection
 *
 * Purpose:    a relayed read is no news to a tracking link, so a change of what it showed would go
 *             unheard. EXISTS on the tracking link of each key's node, answered before the read is
 *             sent, makes the link hear of whatever happens to the key from then on.
 * Ownership:  the touch frees itself after done(), or after the last answer once abandoned.
 * Threading:  the worker.
 * Errors:     NULL: no tracking link can be asked now.
 */
#ifndef NC_PROXY_TOUCH_H
#define NC_PROXY_TOUCH_H

#include "proxy/front.h"

struct touch;
struct identity;

/* keys: as in key_run.h. */
struct touch *touch_begin(struct front *front, const struct identity *identity, uint32_t db,
                          struct bytes keys, void (*done)(void *owner, bool is_heard), void *owner);
/* Nobody waits for it any more. */
void touch_abandon(struct touch **touch);

#endif
