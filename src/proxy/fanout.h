/*
 * fanout.h - commands that concern every master: FLUSHALL, DBSIZE, KEYS, SCAN, SCRIPT LOAD ...
 *
 * Purpose:    one backend gets them whole; of a cluster every master is asked, and the replies
 * become one as the command table says. Threading:  the session's worker.
 */
#ifndef NC_PROXY_FANOUT_H
#define NC_PROXY_FANOUT_H

#include "proxy/dispatch.h"
#include "proxy/group.h"

enum verdict fanout_dispatch(struct session *session, const struct dispatch_call *call);

/* Sends frame to every master as parts of a new group in the session's queue; the caller seals it.
 */
struct group *fanout_to_masters(struct session *session, const struct dispatch_call *call,
                                struct bytes frame,
                                void (*merge)(struct group *group, struct resp_writer *reply));

#endif
