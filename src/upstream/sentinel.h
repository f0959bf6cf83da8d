/*
 * sentinel.h - the control thread's watch over Redis Sentinels: who is the master of this name
 *
 * Purpose:    keep a connection to every Sentinel, those that the configured ones know included;
 *             ask each for the master, and listen to +switch-master. The answer with the highest
 *             configuration epoch counts, so that one Sentinel that was cut off does not bring an
 *             old master back. https://redis.io/docs/reference/sentinel-clients/
 * Ownership:  owns its connections. The resolver and the configuration's texts are borrowed.
 * Threading:  the control thread.
 * Errors:     none are returned: Sentinels are tried for ever, with backoff; sentinels_error()
 *             tells why there is no answer.
 */
#ifndef NC_UPSTREAM_SENTINEL_H
#define NC_UPSTREAM_SENTINEL_H

#include "config/config.h"
#include "upstream/resolver.h"

#include <event2/event.h>

struct sentinels; /* opaque */

/* Called when the master is another one than before. host and port are borrowed. */
typedef void (*sentinels_on_master_fn)(const char *host, unsigned port, void *context);

struct sentinels *sentinels_new(struct event_base *base, struct resolver *resolver,
                                const struct config *config, sentinels_on_master_fn on_master,
                                void *context);
void sentinels_free(struct sentinels **sentinels);
/* A reload: new intervals. */
void sentinels_configure(struct sentinels *sentinels, const struct config *config);
/* Asks all of them now. */
void sentinels_refresh(struct sentinels *sentinels);
/* Empty while one of them answers. Never a secret. */
const char *sentinels_error(const struct sentinels *sentinels);

#endif
