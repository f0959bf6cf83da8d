/*
 * breaker.h - may a node be asked: closed, open, half-open
 *
 * Purpose:    from what was seen of a node (requests answered and failed, PINGs answered, late or
 *             owed) decide whether requests should be sent to it at all. Pure: no clock, no log.
 * Ownership:  a plain struct of the caller's.
 * Threading:  none of its own; health.h puts a lock around it.
 * Errors:     none. Each call says whether the state changed.
 * Units:      instants and spans in microseconds, all of one clock.
 *
 *     closed --failures in a row | error rate | a PING too late--> open
 *     open --open_us has passed--> half-open
 *     half-open --proofs in a row--> closed;  --any failure--> open, for twice as long
 *
 * Only what began after the last change is evidence: a request that was sent before the node came
 * back and fails now says nothing about it. A breaker that opens again soon after it closed stays
 * open for twice as long as before, up to open_max_us: that damps a node that comes and goes.
 */
#ifndef NC_UPSTREAM_BREAKER_H
#define NC_UPSTREAM_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

/* PINGs in a row that prove a node back. */
#define BREAKER_PROOFS 3u

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN };

/* Why it opened last. */
enum breaker_reason { BREAKER_FAILURES, BREAKER_ERROR_RATE, BREAKER_SILENCE, BREAKER_UNPROVEN };

struct breaker_settings {
    unsigned failures;     /* in a row, or in the window for the rate to count */
    unsigned rate_percent; /* of the requests in the window */
    int64_t window_us;
    int64_t latency_us; /* a PING unanswered, or answered, after this opens it */
    int64_t open_min_us, open_max_us;
};

struct breaker {
    enum breaker_state state;
    enum breaker_reason reason;
    int64_t since_us;         /* when the state became this; 0: from the beginning */
    int64_t open_us;          /* how long it stays open this time */
    int64_t half_began_us;    /* of the younger half of the window */
    uint64_t n_ok[2];         /* requests: of the younger half, of the elder */
    uint64_t n_failed[2];     /* requests */
    unsigned n_events[2];     /* times that something failed */
    unsigned n_failed_in_row; /* since something was answered */
    unsigned n_proofs;        /* in a row, half-open */
    uint64_t n_opened;
};

void breaker_init(struct breaker *breaker);

/* n requests were answered, whatever they were answered. */
bool breaker_ok(struct breaker *breaker, const struct breaker_settings *settings, uint64_t n,
                int64_t now_us);
/*
 * One thing went wrong with the node, which cost n requests, or none: a connection that did not
 * come up, requests without a reply in time. began_us: when it was sent, or tried.
 */
bool breaker_failed(struct breaker *breaker, const struct breaker_settings *settings, uint64_t n,
                    int64_t began_us, int64_t now_us);
/*
 * A connection that was up was lost with n requests. That counts for the rate alone: all of them
 * may be cut at once (CLIENT KILL) by a node that takes new ones the next moment.
 */
bool breaker_cut(struct breaker *breaker, const struct breaker_settings *settings, uint64_t n,
                 int64_t began_us, int64_t now_us);
/* The proxy's own PING, sent at sent_us, was answered as it should be. */
bool breaker_proof(struct breaker *breaker, const struct breaker_settings *settings,
                   int64_t sent_us, int64_t now_us);
/*
 * A node that was silent, for the first time in a while, says something again: it was busy, and may
 * prove itself at once.
 */
bool breaker_stirs(struct breaker *breaker, const struct breaker_settings *settings,
                   int64_t now_us);
/* It is unanswered. */
bool breaker_owed(struct breaker *breaker, const struct breaker_settings *settings, int64_t sent_us,
                  int64_t now_us);
/* Time has passed. */
bool breaker_tick(struct breaker *breaker, const struct breaker_settings *settings, int64_t now_us);

const char *breaker_state_name(enum breaker_state state);
const char *breaker_reason_text(enum breaker_reason reason);

#endif
