/*
 * The window is two halves: the younger one is filled, the elder one still counts, and every half
 * window the elder one is forgotten. So a rate is over half a window to a whole one.
 */
#include "upstream/breaker.h"

#include <string.h>

/* Opening again within so many of the longest pauses counts as flapping. */
#define FLAP_PAUSES 10

void breaker_init(struct breaker *breaker)
{
    memset(breaker, 0, sizeof(*breaker));
}

static void forget_counts(struct breaker *breaker, int64_t now_us)
{
    memset(breaker->n_ok, 0, sizeof(breaker->n_ok));
    memset(breaker->n_failed, 0, sizeof(breaker->n_failed));
    memset(breaker->n_events, 0, sizeof(breaker->n_events));
    breaker->n_failed_in_row = 0;
    breaker->half_began_us = now_us;
}

static void roll(struct breaker *breaker, const struct breaker_settings *settings, int64_t now_us)
{
    const int64_t half_us = settings->window_us / 2;

    if (now_us - breaker->half_began_us < half_us) {
        return;
    }
    const bool is_long_ago = now_us - breaker->half_began_us >= 2 * half_us;

    breaker->n_ok[1] = is_long_ago ? 0 : breaker->n_ok[0];
    breaker->n_failed[1] = is_long_ago ? 0 : breaker->n_failed[0];
    breaker->n_events[1] = is_long_ago ? 0 : breaker->n_events[0];
    breaker->n_ok[0] = breaker->n_failed[0] = 0;
    breaker->n_events[0] = 0;
    breaker->half_began_us = now_us;
}

static bool open(struct breaker *breaker, const struct breaker_settings *settings,
                 enum breaker_reason reason, int64_t now_us)
{
    const bool is_flapping = breaker->state == BREAKER_HALF_OPEN ||
                             (breaker->n_opened > 0 &&
                              now_us - breaker->since_us < FLAP_PAUSES * settings->open_max_us);

    breaker->open_us = is_flapping ? 2 * breaker->open_us : settings->open_min_us;
    if (breaker->open_us > settings->open_max_us) {
        breaker->open_us = settings->open_max_us;
    }
    if (breaker->open_us < settings->open_min_us) {
        breaker->open_us = settings->open_min_us;
    }
    breaker->state = BREAKER_OPEN;
    breaker->reason = reason;
    breaker->since_us = now_us;
    breaker->n_opened++;
    forget_counts(breaker, now_us);
    return true;
}

bool breaker_ok(struct breaker *breaker, const struct breaker_settings *settings, uint64_t n,
                int64_t now_us)
{
    if (breaker->state == BREAKER_CLOSED && n > 0) {
        roll(breaker, settings, now_us);
        breaker->n_ok[0] += n;
        breaker->n_failed_in_row = 0;
    }
    return false;
}

static bool is_rate_reached(const struct breaker *breaker, const struct breaker_settings *settings)
{
    const uint64_t n_failed = breaker->n_failed[0] + breaker->n_failed[1];
    const uint64_t n_all = n_failed + breaker->n_ok[0] + breaker->n_ok[1];

    return breaker->n_events[0] + breaker->n_events[1] >= settings->failures &&
           n_failed * 100 >= n_all * settings->rate_percent;
}

static bool fail(struct breaker *breaker, const struct breaker_settings *settings, uint64_t n,
                 bool is_cut, int64_t began_us, int64_t now_us)
{
    if (breaker->state == BREAKER_OPEN || began_us < breaker->since_us) {
        return false;
    }
    if (breaker->state == BREAKER_HALF_OPEN) {
        return open(breaker, settings, BREAKER_UNPROVEN, now_us);
    }
    roll(breaker, settings, now_us);
    breaker->n_failed[0] += n;
    breaker->n_events[0]++;
    breaker->n_failed_in_row += !is_cut;
    if (breaker->n_failed_in_row >= settings->failures) {
        return open(breaker, settings, BREAKER_FAILURES, now_us);
    }
    return is_rate_reached(breaker, settings) &&
           open(breaker, settings, BREAKER_ERROR_RATE, now_us);
}

bool breaker_failed(struct breaker *breaker, const struct breaker_settings *settings, uint64_t n,
                    int64_t began_us, int64_t now_us)
{
    return fail(breaker, settings, n > 0 ? n : 1, false, began_us, now_us);
}

bool breaker_cut(struct breaker *breaker, const struct breaker_settings *settings, uint64_t n,
                 int64_t began_us, int64_t now_us)
{
    return n > 0 && fail(breaker, settings, n, true, began_us, now_us);
}

bool breaker_proof(struct breaker *breaker, const struct breaker_settings *settings,
                   int64_t sent_us, int64_t now_us)
{
    if (now_us - sent_us > settings->latency_us) {
        return breaker_owed(breaker, settings, sent_us, now_us);
    }
    if (breaker->state == BREAKER_CLOSED) {
        return breaker_ok(breaker, settings, 1, now_us);
    }
    if (breaker->state == BREAKER_OPEN || sent_us < breaker->since_us ||
        ++breaker->n_proofs < BREAKER_PROOFS) {
        return false;
    }
    breaker->state = BREAKER_CLOSED;
    breaker->since_us = now_us;
    forget_counts(breaker, now_us);
    return true;
}

bool breaker_stirs(struct breaker *breaker, const struct breaker_settings *settings, int64_t now_us)
{
    if (breaker->state != BREAKER_OPEN || breaker->reason != BREAKER_SILENCE ||
        breaker->open_us > settings->open_min_us) {
        return false;
    }
    breaker->state = BREAKER_HALF_OPEN;
    breaker->since_us = now_us;
    breaker->n_proofs = 0;
    return true;
}

bool breaker_owed(struct breaker *breaker, const struct breaker_settings *settings, int64_t sent_us,
                  int64_t now_us)
{
    /* While the state is what it is: a PING of before is waited for anew. */
    const int64_t from_us = sent_us > breaker->since_us ? sent_us : breaker->since_us;

    if (breaker->state == BREAKER_OPEN || now_us - from_us <= settings->latency_us) {
        return false;
    }
    return open(breaker, settings,
                breaker->state == BREAKER_CLOSED ? BREAKER_SILENCE : BREAKER_UNPROVEN, now_us);
}

bool breaker_tick(struct breaker *breaker, const struct breaker_settings *settings, int64_t now_us)
{
    (void)settings;
    if (breaker->state != BREAKER_OPEN || now_us - breaker->since_us < breaker->open_us) {
        return false;
    }
    breaker->state = BREAKER_HALF_OPEN;
    breaker->since_us = now_us;
    breaker->n_proofs = 0;
    return true;
}

const char *breaker_state_name(enum breaker_state state)
{
    static const char *const names[] = {"closed", "open", "half-open"};

    return names[state];
}

const char *breaker_reason_text(enum breaker_reason reason)
{
    static const char *const texts[] = {
        [BREAKER_FAILURES] = "several failures in a row",
        [BREAKER_ERROR_RATE] = "too many requests fail",
        [BREAKER_SILENCE] = "it does not answer in time",
        [BREAKER_UNPROVEN] = "it has not proven itself",
    };

    return texts[reason];
}
