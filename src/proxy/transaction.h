/*
 * transaction.h - WATCH, MULTI, EXEC and DISCARD on a leased backend connection
 *
 * Purpose:    everything between MULTI and EXEC goes to one connection in order; nothing is
 *             answered from tier 1, and the keys of all queued commands leave it when EXEC is
 *             answered (W4). From WATCH on reads bypass tier 1: one that it held might be older
 * than the WATCH (W5). Ownership:  the session owns its transaction; the transaction owns its
 * lease. Threading:  the session's worker. Errors:     as Redis words them. A connection that
 * breaks makes EXEC answer EXECABORT.
 *
 * On a cluster the first key picks the node; what has no key and comes before it is kept, answered
 * QUEUED here, and sent then. Another slot is CROSSSLOT, and EXEC then EXECABORT.
 */
#ifndef NC_PROXY_TRANSACTION_H
#define NC_PROXY_TRANSACTION_H

#include "proxy/dispatch.h"

/* MULTI, WATCH, EXEC, DISCARD, UNWATCH; and every command of a session that has a transaction. */
enum verdict transaction_dispatch(struct session *session, const struct dispatch_call *call);
/* The client left, or RESET: nothing of it is executed any more. */
void transaction_end(struct session *session);
/* Its connection is another user's now: what it watches can not be executed any more. */
void transaction_lose(struct session *session);
/* A command for it was refused while it arrived: EXEC will not execute anything. */
void transaction_spoil(struct session *session);
/* Commands queued since MULTI; -1: not in MULTI. For CLIENT INFO. */
int transaction_depth(const struct session *session);
/* Of all commands queued since MULTI. */
size_t transaction_bytes(const struct session *session);
/* EXEC of the session may write. */
bool transaction_writes(const struct session *session);

#endif
