/*
 * service.h - what systemd is told: ready, reloading, stopping, status, and that all threads turn
 *
 * Purpose:    what sd_notify(3) does, without ever waiting for a systemd that does not read, and
 * the watchdog: WATCHDOG=1 goes out only after every worker has taken part in a tour since the last
 * one, so that one that hangs gets the process restarted. Ownership:  the caller's storage; the
 * proxy is borrowed. Threading:  the control thread. Errors:     none: without systemd nothing
 * happens.
 */
#ifndef NC_ADMIN_SERVICE_H
#define NC_ADMIN_SERVICE_H

#include "proxy/front.h"

#define SERVICE_WORDS 4
#define SERVICE_WORD_BYTES 96

struct service {
    struct proxy *proxy;
    struct event *event; /* NULL: no watchdog */
    bool is_touring;
    /* What systemd had no room for, in order; tried again by the event. */
    struct event *retry_event;
    unsigned n_words;
    char words[SERVICE_WORDS][SERVICE_WORD_BYTES];
};

void service_init(struct service *service, struct proxy *proxy);
void service_fini(struct service *service);
void service_ready(struct service *service);
void service_reloading(struct service *service);
void service_stopping(struct service *service);
void service_status(struct service *service, bool is_reachable);

#endif
