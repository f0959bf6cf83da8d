/*
 * identity.h - the users that clients log in as at the backend
 *
 * Purpose:    a client that gave credentials of its own is served over links that logged in with
 *             them, so that the backend judges each of its commands; what such links fetched is
 *             kept apart in tier 1 (cache_scope() of cache/cache.h).
 * Ownership:  the registry owns identities for the life of the process, at most IDENTITIES_MAX; a
 *             candidate belongs to who made it until it is registered.
 * Threading:  the registry: any thread. An identity is constant but for n_sessions, and for its
 *             password, which is that of the newest login: read it under identity_lock().
 * Errors:     NULL from identity_register(): too many. The candidate is freed then.
 *
 * The proxy's own login is no identity: NULL stands for it.
 */
#ifndef NC_UPSTREAM_IDENTITY_H
#define NC_UPSTREAM_IDENTITY_H

#include "base/bytes.h"
#include "config/backend_url.h"

#include <stdatomic.h>
#include <stdbool.h>

#define IDENTITIES_MAX 1024

struct identity {
    struct identity *next; /* of the registry */
    unsigned number;       /* 1 and up, once registered */
    struct config_backend login;
    const char *name; /* of the user */
    _Atomic unsigned
        n_sessions; /* atomic: that are logged in as it, and whether links are wanted */
};

/* user may be empty: AUTH with a password alone, which is the user "default". */
struct identity *identity_new(struct bytes user, struct bytes password);
void identity_free(struct identity **candidate);
/*
 * Takes the candidate: the identity of that name, whose password becomes the candidate's, or the
 * candidate itself. What is kept for a user does not depend on which of its passwords was given.
 */
struct identity *identity_register(struct identity **candidate);
void identity_lock(void);
void identity_unlock(void);
/* Somebody has logged in by that name. */
bool identity_has_name(struct bytes name);
/* How many there are. */
unsigned identity_count(void);

#endif
