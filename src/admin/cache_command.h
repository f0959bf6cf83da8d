/*
 * cache_command.h - the CACHE command: subcommands, who may use them, HELP
 *
 * Purpose:    look into tier 1, and drop from it, over any Redis client. The subcommands stand once
 *             in a table, of which HELP is made. Those that drop something can be tied to a
 *             password (cache-command = password) or switched off.
 * Ownership:  argv is borrowed for the call.
 * Threading:  the session's worker.
 * Errors:     answered, worded as Redis words them.
 */
#ifndef NC_ADMIN_CACHE_COMMAND_H
#define NC_ADMIN_CACHE_COMMAND_H

#include "proxy/session.h"

/* A proxy_cache_fn. Nothing in reply: the request waits in the session's queue. */
void cache_command(struct session *session, const struct bytes *argv, unsigned argc,
                   struct resp_writer *reply);

#endif
