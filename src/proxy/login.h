/*
 * login.h - AUTH and HELLO AUTH where the backend judges them
 *
 * Purpose:    try the credentials on a connection of their own; what the backend says is the
 *             answer. Nothing about a credential is remembered from one login to the next, so one
 *             that was revoked logs nobody in.
 * Ownership:  the session owns its login; it goes with the answer or with the session.
 * Threading:  the session's worker.
 */
#ifndef NC_PROXY_LOGIN_H
#define NC_PROXY_LOGIN_H

#include "proxy/dispatch.h"

enum login_state { LOGIN_WAITS, LOGIN_ACCEPTED, LOGIN_REFUSED };

/* True: the backend judges; false: requirepass does. */
bool login_is_at_backend(const struct session *session);

/*
 * LOGIN_WAITS: the command stalls, and is looked at again when the answer is here. Accepted: the
 * session is that user now. Refused: error says why, in the backend's words.
 */
enum login_state login_try(struct session *session, struct bytes user, struct bytes password,
                           char *error, size_t error_size);
/* The session has no more need of an answer. */
void login_cancel(struct session *session);

/* Timeouts of the connections: now and then. */
void login_tick(struct front *front, int64_t now_us);

#endif
