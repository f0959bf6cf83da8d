/*
 * handover.h - client connections that change their process: an upgrade that no client notices
 *
 * Purpose:    give the sessions of a front to a successor over a Unix socket, descriptor and state,
 *             between two of their requests; and take those of a predecessor.
 * Ownership:  a session that was given is closed here, its connection lives on there.
 * Threading:  handover_give(), handover_forget(): the front's worker; handover_take(): the control
 *             thread, which mails sessions to their workers.
 * Errors:     what cannot be given stays: TLS, a login at the backend, transactions, subscriptions,
 *             MONITOR, CLIENT TRACKING, what blocks or is paused, half a large request; and who
 *             holds the lease of a missing key, until it has ended.
 *
 * A session that has requests under way takes no further ones until they are answered, and goes
 * then. What it had sent of the next one goes with it. It is not kept waiting for long: one that is
 * not served soon (its client reads slowly, the backend is slow) goes on and is tried again later.
 *
 * At the successor no request of it is looked at before a fence at every master: whatever the
 * client has written or seen through the predecessor, tier 1 there has heard of by then.
 */
#ifndef NC_PROXY_HANDOVER_H
#define NC_PROXY_HANDOVER_H

#include "proxy/front.h"

/* Gives what can be given over fd, a SOCK_SEQPACKET that does not block. Returns how many went. */
unsigned handover_give(struct front *front, int fd);
/* The successor is gone: those that were to go are served again. */
void handover_forget(struct front *front);

/* What the two must have in common, to be told with the successor's first word. */
unsigned handover_format(void);

enum handover_result {
    HANDOVER_AGAIN,  /* nothing more for now */
    HANDOVER_SIGNAL, /* a word, in text */
    HANDOVER_FULL,   /* there is a session, and no descriptor for it: try again later */
    HANDOVER_END,    /* the other side has gone */
};
#define HANDOVER_WORD_MAX 64

/* Takes sessions until there are no more, or a word comes. */
enum handover_result handover_take(struct proxy *proxy, int fd, char word[HANDOVER_WORD_MAX]);
/* Gives up the session that HANDOVER_FULL was about: its connection is closed, and counted. */
void handover_lose(int fd);
/* 0 or a negative errno. */
NC_MUST_CHECK int handover_say(int fd, const char *word);

#endif
