/*
 * cache_call.h - one CACHE request on its way to its answer
 *
 * Purpose:    what the files that implement subcommands of CACHE share.
 * Ownership:  everything is borrowed for the call.
 * Threading:  the session's worker.
 * Errors:     answered, worded as Redis words them.
 */
#ifndef NC_ADMIN_CACHE_CALL_H
#define NC_ADMIN_CACHE_CALL_H

#include "proxy/session.h"

struct cache_call {
    struct session *session;
    struct front *front;
    const struct bytes *args; /* behind the subcommand */
    unsigned n_args;
    struct resp_writer *reply;
};

/* admin/invalidate_command.c */
void cache_run_invalidate(struct cache_call *call);
void cache_run_clear(struct cache_call *call);
void cache_run_ban(struct cache_call *call);
void cache_run_job(struct cache_call *call);
/* Jobs of scope ALL may be begun for it; else that was answered. */
bool cache_may_unlink(struct cache_call *call);

/* admin/event_command.c */
void cache_run_events(struct cache_call *call);
void cache_run_publish(struct cache_call *call);
void cache_run_subscribe(struct cache_call *call);
void cache_run_unsubscribe(struct cache_call *call);

/* admin/config_command.c */
void cache_run_config(struct cache_call *call);
void cache_run_mode(struct cache_call *call);

/* admin/watch_command.c */
void cache_run_hotkeys(struct cache_call *call);
void cache_run_bigkeys(struct cache_call *call);
void cache_run_slowlog(struct cache_call *call);

/* admin/dependency_command.c */
void cache_run_depend(struct cache_call *call);
void cache_run_undepend(struct cache_call *call);
void cache_run_depends(struct cache_call *call);

/* admin/tag_command.c; answered later */
void cache_run_tag(struct cache_call *call);
void cache_run_untag(struct cache_call *call);
void cache_run_members(struct cache_call *call);
void cache_run_invalidate_tags(struct cache_call *call, const struct bytes *tags, unsigned n,
                               bool is_all);

#endif
