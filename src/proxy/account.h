/*
 * account.h - what requests came to: outcomes, families of commands, errors
 *
 * Purpose:    count each request once by how it was answered, and how long that took. Hits that are
 *             answered at once do not come here: read_observe_hits() counts a batch of them.
 * Ownership:  nothing is kept.
 * Threading:  the session's worker.
 * Errors:     none.
 * Units:      microseconds.
 */
#ifndef NC_PROXY_ACCOUNT_H
#define NC_PROXY_ACCOUNT_H

#include "proxy/request.h"

enum account_family { FAMILY_READ, FAMILY_WRITE, FAMILY_SCRIPT, FAMILY_OTHER };

/* NULL: a command that is not known. */
enum account_family account_family_of(const struct command *command);

/* A request that was queued has its reply. */
void account_done(const struct request *request);
/* The beginning of a reply; what is no error is passed over. */
void account_reply(const struct command *command, struct bytes reply);

#endif
