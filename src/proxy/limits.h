/*
 * limits.h - how much work for the backend a namespace, and a user, may cause
 *
 * Purpose:    rate-limit and max-concurrency of namespaces, user-rate-limit and
 *             user-max-concurrency, over all workers. What tier 1 answers is not counted.
 * Ownership:  counts live as long as the process; who got a permit returns it once.
 * Threading:  any thread.
 * Errors:     a text for the client, without a lock and without waiting.
 * Units:      requests, of clients: an MGET is one.
 */
#ifndef NC_PROXY_LIMITS_H
#define NC_PROXY_LIMITS_H

#include "config/config.h"

#include <stdbool.h>
#include <stdint.h>

/* What a request holds of the concurrency; 0 is "none", else the number and 1. */
struct permit {
    uint16_t ns, user;
};

/* Some limit is configured. */
bool limits_are_set(const struct config *config);

/*
 * NULL: go on, and return the permit when the request has ended. Else why not, as an error text in
 * text; nothing is held then. user is the identity's number, 0 for who has not logged in.
 */
const char *limits_take(const struct config *config, const struct config_namespace *ns,
                        unsigned user, const char *user_name, int64_t now_us, struct permit *permit,
                        char *text, size_t size);
void limits_return(struct permit *permit);
/* The request did not go to the backend after all: its tokens go back as well. */
void limits_undo(const struct config *config, const struct config_namespace *ns, unsigned user);

#endif
