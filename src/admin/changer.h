/*
 * changer.h - changing the configuration in force: a reload, and single options
 *
 * Purpose:    one way for SIGHUP, CACHE CONFIG SET and CACHE MODE: make the new configuration, log
 *             what differs, do what can fail, and have every worker take it into use before anybody
 *             is told that it holds.
 * Ownership:  the changer owns the configuration in force.
 * Threading:  the control thread; changer_set() any worker.
 * Errors:     what is wrong is logged (reload) or answered (set), and nothing has changed.
 */
#ifndef NC_ADMIN_CHANGER_H
#define NC_ADMIN_CHANGER_H

#include "proxy/front.h"

struct changer; /* opaque */

/*
 * Takes into use what the control thread has of it. Returns a negative errno, with the reason in
 * errors, before anything has changed. former stays valid for the call.
 */
typedef int (*changer_apply_fn)(void *context, const struct config *former, struct config *fresh,
                                FILE *errors);

/* Takes a reference. */
struct changer *changer_new(struct proxy *proxy, struct config *config, changer_apply_fn apply,
                            void *context);
/* The process stops: nothing is changed any more, and nobody is told. */
void changer_stop(struct changer *changer);
void changer_free(struct changer **changer);

/* In force; valid until the next change. */
struct config *changer_config(const struct changer *changer);

/* Returns whether it was taken into use. */
bool changer_reload(struct changer *changer);
/* What a predecessor's CACHE MODE had set; config_set_modes(). */
bool changer_set_modes(struct changer *changer, const char *text);

/*
 * Sets options for a client, which waits; what it sends behind it is judged by the new ones. who is
 * for the log. Names and values are copied.
 */
void changer_set(struct changer *changer, struct session *session,
                 const struct config_assignment *set, unsigned n);

/*
 * The same on the control thread. NULL: done is called when all workers act by it. Else what is
 * wrong, in one line; free() it.
 */
char *changer_set_now(struct changer *changer, const char *who, const struct config_assignment *set,
                      unsigned n, void (*done)(void *context), void *context);

#endif
