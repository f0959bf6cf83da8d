/*
 * pause.h - CLIENT PAUSE and UNPAUSE: requests of all clients of the proxy are held, not answered
 *
 * Purpose:    the proxy's clients stand still for a time, as those of a Redis do. The backend is
 *             not told: its other clients go on.
 * Ownership:  each front has its copy of the mode; a tour over all workers sets them before the
 *             command is answered.
 * Threading:  each front's worker.
 * Units:      milliseconds in the command, clock_now_us() in the state.
 *
 * A held request stays in its session's input, which is looked at again when the pause ends. What
 * had gone to the backend before is answered as ever.
 */
#ifndef NC_PROXY_PAUSE_H
#define NC_PROXY_PAUSE_H

#include "proxy/dispatch.h"

void pause_init(struct front *front);
void pause_fini(struct front *front);

/*
 * What Redis counts as a write here: all that it might have to tell a replica. Of scripts, those
 * are none that say flags=no-writes in their first line; what EVALSHA and FCALL would run is not
 * known here.
 */
bool pause_may_write(const struct dispatch_call *call);
/* True when the pause that is on holds this call; its session is suspended then. */
bool pause_holds(struct session *session, const struct dispatch_call *call);

/* It is not held any more: the client goes on, or has gone. */
void pause_let_go(struct session *session);

/* The handlers of CLIENT PAUSE and CLIENT UNPAUSE. */
enum verdict pause_begin(struct session *session, const struct dispatch_call *call);
enum verdict pause_end(struct session *session, const struct dispatch_call *call);

#endif
