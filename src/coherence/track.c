/*
 * Design: default-mode tracking on the very connection that fetches. Redis then sends the
 * invalidation of a key in order with the replies, so applying messages as they are read is
 * enough: no value can be stored after its invalidation. A separate invalidation connection
 * (REDIRECT) was rejected: its messages and the replies would race.
 *
 * The watermark is the send time of the newest request whose reply has been read: every message
 * that the node sent before has been applied here. One test of its age covers a half-open link, a
 * stopped node, a partition and a pause of this process.
 */
#include "coherence/track.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/stats.h"
#include "coherence/dependencies.h"
#include "coherence/dependency_watch.h"
#include "coherence/ear.h"
#include "coherence/modes.h"
#include "resp/own.h"
#include "upstream/replicas.h"

#define TRACK_MAGIC 0x7472616bu
/* How often a server that refused CLIENT TRACKING is asked again. */
#define RETRY_TRACKING_US 1000000
/* And one that accepts it and tells nothing. */
#define RETRY_PROBE_US 10000000

static void on_ping_reply(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                          bool is_first, bool is_last);
static void on_ping_lost(struct link_op *op, struct link *link, enum link_loss loss);
static void on_retry_reply(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                           bool is_first, bool is_last);
static void on_retry_lost(struct link_op *op, struct link *link, enum link_loss loss);

static const struct link_op_type ping_type = {on_ping_reply, on_ping_lost};
static const struct link_op_type retry_type = {on_retry_reply, on_retry_lost};

struct track *track_new(struct coherence *coherence, struct backend_node *node)
{
    struct track *track = mem_alloc(sizeof(*track));

    track->magic = TRACK_MAGIC;
    track->coherence = coherence;
    track->node = node;
    track->link = &node->links[LINK_TRACKING];
    track->ping.type = &ping_type;
    track->ping.collect = LINK_COLLECT_MIN;
    track->retry.type = &retry_type;
    track->retry.collect = LINK_COLLECT_MIN;
    track->mode = -1;
    track->share = ear_share_get(coherence->fleet, node->id);
    keyspace_init_poll(track);
    probe_init(track);
    track->link->owner = track;
    track->link->events = &track_link_events;
    return track;
}

static struct epochs *epochs_of(const struct track *track)
{
    return cache_epochs(track->coherence->cache);
}

static void pass_legs(struct fence_leg **list)
{
    struct fence_leg *leg = *list;

    *list = NULL;
    while (leg != NULL) {
        struct fence_leg *const next = fence_leg_next(leg);

        fence_leg_done(leg);
        leg = next;
    }
}

void track_announce(const struct coherence *coherence, struct bytes keys)
{
    const struct coherence_fleet *fleet = coherence->fleet;

    if (fleet->on_changed != NULL) {
        fleet->on_changed(fleet->changed_context, keys);
    }
}

/* What was read on the link is heard of no more. */
static void end_incarnation(struct track *track)
{
    epochs_close(epochs_of(track), track->incarnation);
    track->incarnation = EPOCHS_NONE;
}

/* The same, as the node is away: it may be all there is (stale-if-error). What a user fetched is
 * bounded by acl-max-age whatever happens. */
static void lapse_incarnation(struct track *track)
{
    if (track->node->identity != NULL) {
        end_incarnation(track);
        return;
    }
    epochs_lapse(epochs_of(track), track->incarnation, clock_now_us());
    track->incarnation = EPOCHS_NONE;
}

void track_forget(struct track *track)
{
    end_incarnation(track);
    /* Not by the incarnation: a reload has perhaps ended it, and clients still keep its keys. */
    if (track->was_read) {
        track->was_read = false;
        track_announce(track->coherence, BYTES(""));
    }
}

void track_free(struct track **track)
{
    end_incarnation(*track);
    pass_legs(&(*track)->legs_sent);
    pass_legs(&(*track)->legs_next);
    ear_free_all(*track);
    modes_renew(*track);
    (*track)->coherence->n_untold -= (*track)->was_untold;
    ear_share_put((*track)->coherence->fleet, &(*track)->share);
    mem_free(*track);
    *track = NULL;
}

bool track_is_coherent(const struct track *track)
{
    return track->is_confirmed;
}

bool track_has_caught_up(const struct track *track, int64_t now_us)
{
    const int64_t caught_up_us = replicas_caught_up(track->node->id);

    return caught_up_us > track->up_at_us &&
           now_us - caught_up_us <= track->coherence->config->replica_max_lag_ms * 1000;
}

bool track_may_fetch(const struct track *track, int64_t now_us)
{
    return link_is_up(track->link) && !track->is_draining && track->node->info != NULL &&
           track->node->info->is_healthy &&
           now_us - track->watermark_us <= track->coherence->config->max_staleness_ms * 1000;
}

uint16_t track_incarnation(struct track *track, int64_t now_us)
{
    struct epochs *epochs = epochs_of(track);

    if (!track_may_fetch(track, now_us)) {
        return EPOCHS_NONE;
    }
    if (track->incarnation != EPOCHS_NONE &&
        epochs_is_live(epochs_at(epochs, track->incarnation))) {
        return track->incarnation;
    }
    /* A replica's keys are those of its master: a slot that leaves that one leaves both. */
    track->incarnation = epochs_open(epochs, track->node->owner, track->coherence->worker->index,
                                     now_us);
    if (track->incarnation != EPOCHS_NONE) {
        struct epochs_incarnation *opened = epochs_at(epochs, track->incarnation);

        epochs_advance(epochs, track->incarnation, track->watermark_us);
        track->was_read = true;
        /* Relaxed: who finds an entry with the number has taken its shard's lock after its fill. */
        atomic_store_explicit(&opened->shown_by, track->node->id, memory_order_relaxed);
        atomic_store_explicit(&opened->is_told, track->is_confirmed, memory_order_relaxed);
    }
    return track->incarnation;
}

void track_advance(struct track *track, int64_t sent_at_us)
{
    if (sent_at_us > track->watermark_us) {
        track->watermark_us = sent_at_us;
        /* Ended by a flush, its number may soon be another link's. */
        if (track->incarnation != EPOCHS_NONE &&
            !epochs_advance(epochs_of(track), track->incarnation, sent_at_us)) {
            track->incarnation = EPOCHS_NONE;
        }
    }
}

/* ---- PING ---- */

static void send_ping(struct track *track)
{
    const struct bytes frame = BYTES(OWN_PING);

    if (track->is_ping_sent || !link_is_up(track->link) ||
        link_send(track->link, track->link->db, &frame, 1, 1, &track->ping) != 0) {
        return;
    }
    track->is_ping_sent = true;
    track->ping_sent_at_us = track->ping.sent_at_us;
    if (track->owed_since_us == 0) {
        track->owed_since_us = track->ping_sent_at_us;
    }
    track->legs_sent = track->legs_next;
    track->legs_next = NULL;
}

static void on_node_returned(void *context)
{
    struct track *track = context;

    if (track->node->owner != track->node->id || !track->node->info->is_healthy) {
        return; /* it answers PING, and refuses to say what it holds: CLUSTERDOWN */
    }
    epochs_end_lapsed(epochs_of(track), track->node->id, track->ping_sent_at_us);
}

/* The answer to a PING is what proves a node. */
static void take_proof(struct track *track)
{
    const struct backend_node *node = track->node;

    if (node->identity != NULL || node->info == NULL) {
        return;
    }
    health_stirs(node->health, clock_now_us());
    health_proof(node->health, track->ping_sent_at_us, clock_now_us(), !track->is_proven,
                 on_node_returned, track);
    if (!track->is_proven && !health_is_open(node->health)) {
        track->is_proven = true;
        /* Clients with caches of their own may keep what they were shown meanwhile. */
        if (config_serves_stale(track->coherence->config)) {
            track_announce(track->coherence, BYTES(""));
        }
    }
}

/* A few PINGs in a row are wanted: they are not spread over time. */
static bool may_prove(const struct track *track)
{
    return track->node->identity == NULL && health_state(track->node->health) == BREAKER_HALF_OPEN;
}

/* Who may not send PING is told so by a node that is well. */
static bool says_not_now(struct bytes reply)
{
    return bytes_start_with(reply, BYTES("-LOADING")) || bytes_start_with(reply, BYTES("-BUSY")) ||
           bytes_start_with(reply, BYTES("-MASTERDOWN"));
}

static void on_ping_reply(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                          bool is_first, bool is_last)
{
    struct track *track = OBJ_FROM(link->owner, struct track, TRACK_MAGIC);

    (void)index;
    (void)is_first;
    if (!is_last) {
        return;
    }
    track->is_ping_sent = false;
    track->owed_since_us = 0;
    if (!says_not_now(part)) {
        take_proof(track);
    }
    /* -BUSY and -LOADING prove that the link is alive, not that earlier writes were told. */
    if (part.len > 0 && part.ptr[0] == '+') {
        stats_observe(HISTOGRAM_lag_tracking, clock_now_us() - op->sent_at_us, 1);
        track_advance(track, op->sent_at_us);
    }
    pass_legs(&track->legs_sent);
    if (track->legs_next != NULL || (!says_not_now(part) && may_prove(track))) {
        send_ping(track);
    }
}

static void on_ping_lost(struct link_op *op, struct link *link, enum link_loss loss)
{
    struct track *track = OBJ_FROM(link->owner, struct track, TRACK_MAGIC);

    (void)op;
    (void)loss;
    track->is_ping_sent = false;
}

void track_add_leg(struct track *track, struct fence_leg *leg)
{
    if (!link_is_up(track->link) || !track->is_confirmed) {
        /* Its epoch has ended: whatever it had read is gone. Or it hears of nothing anyway. */
        fence_leg_done(leg);
        return;
    }
    fence_leg_set_next(leg, track->legs_next);
    track->legs_next = leg;
    send_ping(track);
}

/* ---- the link ---- */

/* CLIENT TRACKING was accepted on the link as it is. */
static void take_acceptance(struct track *track)
{
    track->is_probing = true;
    if (!probe_begin(track)) {
        track_on_probed(track, true);
    }
}

void track_on_probed(struct track *track, bool is_told)
{
    track->is_probing = false;
    if (is_told) {
        track->probe.has_failed = track->probe.was_logged = false;
        /* What was read so far hears of nothing: it goes. */
        end_incarnation(track);
        track->n_losses++;
        track->is_confirmed = true;
    } else {
        track->retry_at_us = clock_now_us() + RETRY_PROBE_US;
    }
    modes_renew(track);
}

static void on_up(struct link *link)
{
    struct track *track = OBJ_FROM(link->owner, struct track, TRACK_MAGIC);

    track->watermark_us = track->up_at_us = clock_now_us();
    track->ping_sent_at_us = track->watermark_us;
    track->retry_at_us = track->watermark_us + RETRY_TRACKING_US;
    if (track->node->identity == NULL) {
        health_stirs(track->node->health, track->watermark_us);
    }
    if (may_prove(track)) {
        send_ping(track);
    }
    if (link->tracking_refused) {
        modes_renew(track);
    } else {
        take_acceptance(track);
    }
}

static void on_down(struct link *link)
{
    struct track *track = OBJ_FROM(link->owner, struct track, TRACK_MAGIC);
    const bool was_heard = track->is_confirmed;

    if (track->incarnation != EPOCHS_NONE &&
        epochs_is_live(epochs_at(epochs_of(track), track->incarnation))) {
        stats_add(METRIC_flushes_link, 1);
    }
    lapse_incarnation(track);
    track->is_proven = false;
    track->n_losses++;
    track->is_confirmed = track->is_draining = track->is_probing = false;
    probe_end(track);
    modes_renew(track);
    if (was_heard) {
        track_announce(track->coherence, BYTES(""));
    }
    pass_legs(&track->legs_sent);
    pass_legs(&track->legs_next);
    if (track->coherence->fleet->request_refresh != NULL) {
        track->coherence->fleet->request_refresh(track->coherence->fleet->refresh_context);
    }
}

/* `>2 invalidate [key ...]` or `>2 invalidate null`; other kinds of push mean nothing to us. */
bool track_take_message(const struct coherence *coherence, struct bytes frame, bool *is_null)
{
    struct resp_value head, kind, keys, key;
    struct bytes array;

    *is_null = false;
    if (!resp_next(&frame, &head) || head.n_children < 1 || !resp_next(&frame, &kind) ||
        kind.type != '$') {
        return false;
    }
    if (!bytes_equal(kind.text, BYTES("invalidate"))) {
        return true;
    }
    array = frame;
    if (head.n_children != 2 || !resp_next(&frame, &keys)) {
        return false;
    }
    stats_add(METRIC_invalidation_messages, 1);
    if (keys.is_null) {
        *is_null = true;
        return true;
    }
    if (keys.type != '*') {
        return false;
    }
    for (size_t i = 0; i < keys.n_children; i++) {
        if (!resp_next(&frame, &key) || key.type != '$' || key.is_null) {
            return false;
        }
        if (cache_invalidate(coherence->cache, key.text)) {
            stats_add(METRIC_invalidations_tracking, 1);
        }
        miss_leases_note(coherence->fleet->leases, key.text, MISS_TOLD);
        if (dependencies_are_used(coherence->fleet)) {
            dependency_watch_heard(coherence, key.text);
        }
    }
    if (keys.n_children > 0) {
        track_announce(coherence, array);
    }
    return true;
}

static bool on_push(struct link *link, struct bytes frame)
{
    struct track *track = OBJ_FROM(link->owner, struct track, TRACK_MAGIC);
    bool is_null;

    probe_take_message(track, frame);
    if (!track_take_message(track->coherence, frame, &is_null)) {
        return false;
    }
    if (is_null) {
        stats_add(METRIC_flushes_null, 1);
        end_incarnation(track);
        track->n_losses++;
        track_announce(track->coherence, BYTES(""));
        probe_restart(track);
    }
    return true;
}

const struct link_events track_link_events = {on_up, on_down, on_push, NULL};

/* ---- tracking refused: ask again now and then ---- */

static void on_retry_reply(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                           bool is_first, bool is_last)
{
    struct track *track = OBJ_FROM(link->owner, struct track, TRACK_MAGIC);

    (void)op;
    (void)index;
    (void)is_first;
    if (!is_last) {
        return;
    }
    track->is_retry_sent = false;
    if (part.len > 0 && part.ptr[0] == '+') {
        take_acceptance(track);
    }
}

static void on_retry_lost(struct link_op *op, struct link *link, enum link_loss loss)
{
    struct track *track = OBJ_FROM(link->owner, struct track, TRACK_MAGIC);

    (void)op;
    (void)loss;
    track->is_retry_sent = false;
}

static void retry_tracking(struct track *track, int64_t now_us)
{
    const struct bytes frame = BYTES(OWN_TRACKING_ON);

    if (track->is_confirmed || track->is_probing || track->is_retry_sent ||
        now_us < track->retry_at_us || !track->link->settings.wants_tracking ||
        track->link->is_resp2) {
        return;
    }
    track->retry_at_us = now_us + RETRY_TRACKING_US;
    track->is_retry_sent = link_send(track->link, track->link->db, &frame, 1, 1, &track->retry) ==
                           0;
}

/* Tracking is asked for in the greeting: where it is wanted no longer, or again, that is repeated.
 */
void track_set_config(struct track *track)
{
    struct link *link = track->link;

    ear_set_config_all(track);
    if (link_is_up(link) && !link->is_resp2 &&
        link->tracking_asked != link->settings.wants_tracking) {
        link_close(link, "coherence is kept in another way from now on");
        link->retry_at_us = 0;
    }
    modes_renew(track);
}

void track_tick(struct track *track, int64_t now_us)
{
    const struct config *config = track->coherence->config;

    ear_tick_all(track, now_us);
    if (track->owed_since_us != 0 && track->node->identity == NULL) {
        /* Whatever has become of the connection meanwhile. */
        health_owed(track->node->health, track->owed_since_us, now_us);
    }
    if (!link_is_up(track->link)) {
        return;
    }
    probe_tick(track, now_us);
    modes_renew(track);
    if (now_us - track->watermark_us > config->link_timeout_ms * 1000) {
        link_close(track->link, "no sign of life within link-timeout");
        return;
    }
    if (track->node->info == NULL || !track->node->info->is_healthy) {
        /* The cluster may have a newer master that we cannot see, while this one goes on to answer
         * PING: nothing that was read from it may be shown (docs/coherence.md, failures). */
        if (track->node->info != NULL) {
            lapse_incarnation(track);
        }
        track_forget(track);
    }
    if (track->node->owner != track->node->id && !track_has_caught_up(track, now_us)) {
        /* It may have lost its master: nobody tells it what is written there. */
        track_forget(track);
    }
    retry_tracking(track, now_us);
    if (now_us - track->ping_sent_at_us >= config->fence_interval_ms * 1000) {
        send_ping(track);
    }
}
