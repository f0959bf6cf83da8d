/*
 * upgrade.h - SIGUSR2: a new process of the same command line takes over, and no client notices
 *
 * Purpose:    start the successor with all listening sockets, stop accepting when it says that it
 * is ready, give it the clients' connections, serve those that cannot be given until they end or
 * handover-timeout is over. A successor that fails costs nothing: the predecessor goes on, and
 * accepts again. Ownership:  one struct upgrade per process. A successor that has taken over lives
 * on its own. Threading:  the control thread. Errors:     logged and counted.
 *
 * The words between the two: "READY f" (it can reach the backend, and understands
 * connections in this format; others are not given), "GO n" (accept; ids of clients begin
 * at n), "STOP" (it took too long, or the predecessor ends: end as well), "DROP i" (the successor
 * does not listen on the socket with this number in the list), then connections
 * (proxy/handover.h), "BYE" (the successor is told to end: so does the predecessor), "NEXT" (the
 * successor has a successor itself: nothing more is given to it, and who goes on when it is gone is
 * not the predecessor), "DONE" (the answer: what was sent before is all), "BACK" (it has none any
 * more). Words that are not known are nothing.
 */
#ifndef NC_ADMIN_UPGRADE_H
#define NC_ADMIN_UPGRADE_H

#include "admin/changer.h"
#include "admin/ports.h"

struct upgrade; /* opaque */

struct upgrade_events {
    /* This process has taken over: accept. */
    void (*on_taken)(void *context);
    /* All clients have gone or been given / those that are left are to be drained. */
    void (*on_left)(void *context);
    void (*on_timeout)(void *context);
    /* The predecessor waits no longer, or the backend is not to be reached: end with an error. */
    void (*on_failed)(void *context);
};

/*
 * Before sd_listen_fds(3) is asked, and before there are threads: what the predecessor has put into
 * the environment becomes ours. argv: as it was given, passwords included; borrowed.
 */
struct upgrade *upgrade_new(char **argv);
/* This process stops: no word is heard any more. The workers may still give. */
void upgrade_stop(struct upgrade *upgrade);
void upgrade_free(struct upgrade **upgrade);

/* The proxy is set up; ports are open. */
void upgrade_start(struct upgrade *upgrade, struct proxy *proxy, struct ports *ports,
                   struct changer *changer, const struct upgrade_events *events, void *context);

/* Whether a predecessor is to be taken over from, and has not been yet. */
bool upgrade_is_pending(const struct upgrade *upgrade);
/* What its CACHE MODE had set; "" without a predecessor. */
const char *upgrade_modes(const struct upgrade *upgrade);
/* The backend can be reached: now the predecessor may go. */
void upgrade_ready(struct upgrade *upgrade);

/* SIGUSR2. */
void upgrade_begin(struct upgrade *upgrade);
/* SIGCHLD. */
void upgrade_reap(struct upgrade *upgrade);
/* This process drains: a predecessor that still serves clients, or a successor that has only begun,
 * is told to end, too. */
void upgrade_end(struct upgrade *upgrade);
/* Whether a successor has taken over. */
bool upgrade_has_left(const struct upgrade *upgrade);

#endif
