/*
 * handshake.h - clients that have not completed their TLS handshake
 *
 * Purpose:    say who was refused and why, close who takes too long, and leave others their time
 *             when many come at once.
 * Ownership:  sessions belong to their front.
 * Threading:  the session's worker.
 * Errors:     logged, a burst of them cut short, and counted.
 */
#ifndef NC_PROXY_HANDSHAKE_H
#define NC_PROXY_HANDSHAKE_H

#include "proxy/session.h"

void handshake_init(struct front *front);
/* False: this turn has done enough of that; the session is told again in the next. */
bool handshake_may_go_on(struct session *session);
/* Reading brought this error, and the session is about to be closed. */
void handshake_failed(const struct session *session, int error);
/* True: tls-handshake-timeout is over; the session was closed. */
bool handshake_check_time(struct session *session, int64_t now_us);

#endif
