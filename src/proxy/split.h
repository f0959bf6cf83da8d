/*
 * split.h - MGET, EXISTS, TOUCH, DEL, UNLINK and MSET: served key by key, split by slot, merged
 *
 * Purpose:    answer what tier 1 holds, fetch what it may hold, ask each slot for the rest, and
 *             put the parts together in the order of the arguments.
 * Threading:  the session's worker.
 */
#ifndef NC_PROXY_SPLIT_H
#define NC_PROXY_SPLIT_H

#include "proxy/dispatch.h"

enum verdict split_dispatch(struct session *session, const struct dispatch_call *call);

#endif
