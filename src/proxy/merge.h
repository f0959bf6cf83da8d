/*
 * merge.h - how the masters' replies to one command become one reply
 *
 * Purpose:    the merges that enum command_merge names, for commands that every master was asked.
 * Ownership:  works on the group's parts, keeps nothing.
 * Threading:  the group's worker.
 * Errors:     unless said otherwise the first error of the masters is the reply. What does not look
 *             as the command's reply should sets reply->has_failed.
 */
#ifndef NC_PROXY_MERGE_H
#define NC_PROXY_MERGE_H

#include "proxy/group.h"

typedef void (*merge_fn)(struct group *group, struct resp_writer *reply);

merge_fn merge_of(enum command_merge merge);

/* For SLOWLOG GET and ACL LOG: how many entries were asked for, into group->number. */
uint64_t merge_limit(const struct bytes *argv, unsigned argc);

#endif
