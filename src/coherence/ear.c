/*
 * Design: a reply and the message about its key travel on two connections here, in no order to each
 * other. Everything else rests on three things: a flight begins before its request is sent and is
 * void once its key was heard of; a key keeps one view only; and what is held is served only while
 * the ear is proven to have heard everything up to a moment ago.
 *
 * That proof is a PONG. Notifications precede it on their connection. With BCAST a PONG overtakes
 * the message of a write of the same turn of the server's event loop, never that of an earlier one:
 * so the PONG to a PING that was sent after the PONG to another proves what was written before that
 * other one was sent. The same holds for fences: they wait for two PINGs in turn.
 *
 * Requests are said, not sent as operations: on a subscribed RESP2 connection replies and messages
 * look alike. All that is not a push is therefore the answer to the oldest of them.
 */
#include "coherence/ear.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/stats.h"
#include "resp/own.h"

#include <pthread.h>

#define EAR_MAGIC 0x20656172u
/* How often a node that refused is asked again. */
#define RETRY_US 1000000

/* ---- what the workers share ---- */

static pthread_mutex_t share_lock = PTHREAD_MUTEX_INITIALIZER; /* a leaf: fleets' lists of shares */

struct ear_share *ear_share_get(struct coherence_fleet *fleet, epochs_node node)
{
    struct ear_share *share;

    pthread_mutex_lock(&share_lock);
    share = fleet->shares;
    while (share != NULL && share->node != node) {
        share = share->next;
    }
    if (share == NULL) {
        share = mem_alloc(sizeof(*share));
        share->node = node;
        share->next = fleet->shares;
        fleet->shares = share;
    }
    share->n_refs++;
    pthread_mutex_unlock(&share_lock);
    return share;
}

void ear_share_put(struct coherence_fleet *fleet, struct ear_share **share)
{
    struct ear_share **at = &fleet->shares;

    pthread_mutex_lock(&share_lock);
    if (--(*share)->n_refs == 0) {
        while (*at != *share) {
            at = &(*at)->next;
        }
        *at = (*share)->next;
        mem_free(*share);
    }
    pthread_mutex_unlock(&share_lock);
    *share = NULL;
}

void ear_survey_untold(const struct coherence_fleet *fleet, bool *is_heard, bool *is_not)
{
    pthread_mutex_lock(&share_lock);
    for (const struct ear_share *share = fleet->shares; share != NULL; share = share->next) {
        if (atomic_load_explicit(&share->n_untold, memory_order_relaxed) > 0) {
            bool *const which = atomic_load_explicit(&share->is_heard[EAR_KEYSPACE],
                                                     memory_order_relaxed)
                                    ? is_heard
                                    : is_not;

            *which = true;
        }
    }
    pthread_mutex_unlock(&share_lock);
}

uint16_t ear_incarnation(const struct track *track, enum ear_kind kind)
{
    const struct coherence *coherence = track->coherence;
    /* Acquire: what it hears of was stored before. */
    const uint16_t number = atomic_load_explicit(&track->share->incarnation[kind],
                                                 memory_order_acquire);

    if (number == EPOCHS_NONE ||
        atomic_load_explicit(&track->share->prefixes[kind], memory_order_relaxed) !=
            coherence->prefixes[kind] ||
        !epochs_is_live(epochs_at(cache_epochs(coherence->cache), number))) {
        return EPOCHS_NONE;
    }
    return number;
}

/* ---- the incarnation ---- */

static struct epochs *epochs_of(const struct ear *ear)
{
    return cache_epochs(ear->track->coherence->cache);
}

static void publish(struct ear *ear, uint16_t incarnation)
{
    struct ear_share *share = ear->track->share;

    ear->incarnation = incarnation;
    atomic_store_explicit(&share->prefixes[ear->kind], ear->prefixes.id, memory_order_relaxed);
    /* Release: partner is the load in ear_incarnation(). */
    atomic_store_explicit(&share->incarnation[ear->kind], incarnation, memory_order_release);
}

static void end_incarnation(struct ear *ear)
{
    const uint16_t former = ear->incarnation;

    if (former != EPOCHS_NONE) {
        publish(ear, EPOCHS_NONE);
        epochs_close(epochs_of(ear), former);
    }
}

static void note_loss(const struct ear *ear)
{
    /* Release: partner is the load of who watches sources (dependency_watch.c). */
    atomic_fetch_add_explicit(&ear->track->share->n_losses[ear->kind], 1, memory_order_release);
}

void ear_forget(struct ear *ear, enum metric reason)
{
    note_loss(ear);
    if (ear->incarnation != EPOCHS_NONE) {
        if (epochs_is_live(epochs_at(epochs_of(ear), ear->incarnation))) {
            stats_add(reason, 1);
        }
        end_incarnation(ear);
        track_announce(ear->track->coherence, BYTES(""));
    }
}

static bool is_healthy(const struct ear *ear)
{
    return ear->track->node->info != NULL && ear->track->node->info->is_healthy;
}

/* After a flush, or when it has come up: there is one again as soon as there may be. */
static void open_incarnation(struct ear *ear, int64_t now_us)
{
    const struct track *track = ear->track;

    if (!ear->is_confirmed || !link_is_up(&ear->link) || !is_healthy(ear) ||
        now_us - ear->watermark_us > track->coherence->config->max_staleness_ms * 1000 ||
        (ear->incarnation != EPOCHS_NONE &&
         epochs_is_live(epochs_at(epochs_of(ear), ear->incarnation)))) {
        return;
    }
    const uint16_t incarnation = epochs_open_shared(epochs_of(ear), track->node->id,
                                                    track->coherence->worker->index,
                                                    (uint8_t)(ear->kind + 1), now_us);

    if (incarnation != EPOCHS_NONE) {
        struct epochs_incarnation *opened = epochs_at(epochs_of(ear), incarnation);

        atomic_store_explicit(&opened->shown_by, track->node->id, memory_order_relaxed);
        atomic_store_explicit(&opened->is_told, true, memory_order_relaxed);
    }
    publish(ear, incarnation);
}

static void advance(struct ear *ear, int64_t sent_at_us)
{
    if (sent_at_us <= ear->watermark_us) {
        return;
    }
    ear->watermark_us = sent_at_us;
    if (ear->incarnation != EPOCHS_NONE &&
        !epochs_advance(epochs_of(ear), ear->incarnation, sent_at_us)) {
        /* Ended by a flush, its number may soon be another link's. */
        publish(ear, EPOCHS_NONE);
    }
}

static void set_heard(const struct ear *ear, bool is_heard)
{
    _Atomic unsigned *n = &ear->track->coherence->fleet->n_ears[ear->kind];

    atomic_fetch_add_explicit(n, is_heard ? 1u : (unsigned)-1, memory_order_relaxed);
    atomic_store_explicit(&ear->track->share->is_heard[ear->kind], is_heard, memory_order_relaxed);
}

/* ---- PING ---- */

static void pass(struct fence_leg **list)
{
    struct fence_leg *leg = *list;

    *list = NULL;
    while (leg != NULL) {
        struct fence_leg *const next = fence_leg_next(leg);

        fence_leg_done(leg);
        leg = next;
    }
}

static void move(struct fence_leg **from, struct fence_leg **to)
{
    while (*from != NULL) {
        struct fence_leg *const leg = *from;

        *from = fence_leg_next(leg);
        fence_leg_set_next(leg, *to);
        *to = leg;
    }
}

static void pass_all(struct ear *ear)
{
    pass(&ear->legs_next);
    pass(&ear->legs_sent);
    pass(&ear->legs_again);
    pass(&ear->legs_last);
}

void ear_confirm(struct ear *ear, bool is_confirmed, const char *reason)
{
    const char *mode = ear->kind == EAR_BROADCAST ? "broadcast" : "keyspace";

    if (is_confirmed && !ear->is_confirmed) {
        ear->is_confirmed = true;
        ear->was_refused = ear->link.settings.is_quiet = false;
        ear->watermark_us = clock_now_us();
        ear->former_sent_at_us = 0;
        set_heard(ear, true);
        log_info("coherence", "the node tells of every write", "addr=%s mode=%s prefixes=%u",
                 ear->link.name, mode, ear->prefixes.n);
        open_incarnation(ear, ear->watermark_us);
    } else if (!is_confirmed) {
        if (ear->is_confirmed) {
            set_heard(ear, false);
        }
        ear->is_confirmed = false;
        ear_forget(ear, METRIC_flushes_link);
        pass_all(ear); /* no PING is sent from here on, and nothing is left that it could prove */
        if (reason != NULL && !ear->was_refused) {
            ear->was_refused = true;
            log_warn("coherence", "the node does not tell of writes", "addr=%s mode=%s reason=%s",
                     ear->link.name, mode, log_quote_long(bytes_of_string(reason)));
        }
    }
}

static bool are_legs_waiting(const struct ear *ear)
{
    return ear->legs_next != NULL || ear->legs_again != NULL;
}

static void send_ping(struct ear *ear)
{
    if (ear->is_ping_sent || !ear->is_confirmed || link_say(&ear->link, BYTES(OWN_PING)) != 0) {
        return;
    }
    ear->is_ping_sent = true;
    ear->ping_sent_at_us = clock_now_us();
    move(&ear->legs_next, &ear->legs_sent);
    move(&ear->legs_again, &ear->legs_last);
}

static void on_pong(struct ear *ear)
{
    const int64_t sent_at_us = ear->ping_sent_at_us;

    ear->is_ping_sent = false;
    ear->link.n_failures = 0;
    if (ear->kind == EAR_BROADCAST) {
        if (ear->former_sent_at_us != 0) {
            advance(ear, ear->former_sent_at_us);
        }
        ear->former_sent_at_us = sent_at_us;
        pass(&ear->legs_last);
        move(&ear->legs_sent, &ear->legs_again);
    } else {
        advance(ear, keyspace_limit(ear, sent_at_us));
        pass(&ear->legs_sent);
    }
    if (are_legs_waiting(ear)) {
        send_ping(ear);
    }
}

/* -BUSY or -LOADING: the link is alive, but what was written before may not have been told. */
static void on_no_pong(struct ear *ear)
{
    ear->is_ping_sent = false;
    ear->former_sent_at_us = 0;
    move(&ear->legs_sent, &ear->legs_next);
    move(&ear->legs_last, &ear->legs_again);
}

void ear_add_leg(struct ear *ear, struct fence_leg *leg)
{
    if (!ear->is_confirmed) {
        /* Its epoch has ended: whatever was fetched under it is gone. */
        fence_leg_done(leg);
        return;
    }
    fence_leg_set_next(leg, ear->legs_next);
    ear->legs_next = leg;
    send_ping(ear);
}

/* ---- the link ---- */

static void on_up(struct link *link)
{
    struct ear *ear = OBJ_FROM(link->owner, struct ear, EAR_MAGIC);

    ear->is_ping_sent = false;
    ear->n_subscribed = 0;
    ear->retry_at_us = clock_now_us() + RETRY_US;
    if (ear->kind == EAR_KEYSPACE) {
        keyspace_subscribe(ear);
    } else {
        ear_confirm(ear, !link->tracking_refused, "CLIENT TRACKING is refused");
    }
}

static void on_down(struct link *link)
{
    struct ear *ear = OBJ_FROM(link->owner, struct ear, EAR_MAGIC);
    const struct coherence_fleet *fleet = ear->track->coherence->fleet;

    ear_confirm(ear, false, NULL);
    ear->is_ping_sent = false;
    ear->n_subscribed = 0; /* the answer to a poll may still come, on another link */
    if (fleet->request_refresh != NULL) {
        fleet->request_refresh(fleet->refresh_context);
    }
}

static bool on_push(struct link *link, struct bytes frame)
{
    struct ear *ear = OBJ_FROM(link->owner, struct ear, EAR_MAGIC);
    bool is_null = false;

    if (ear->kind == EAR_KEYSPACE) {
        return keyspace_take(ear, frame);
    }
    if (!track_take_message(ear->track->coherence, frame, &is_null)) {
        return false;
    }
    if (is_null) {
        ear_forget(ear, METRIC_flushes_null);
        open_incarnation(ear, clock_now_us());
    }
    return true;
}

/* `*2 pong ""` on a subscribed RESP2 connection. */
static bool is_pong(struct bytes frame)
{
    struct resp_value head, kind;

    if (bytes_start_with(frame, BYTES("+PONG"))) {
        return true;
    }
    return frame.len > 0 && frame.ptr[0] == '*' && resp_next(&frame, &head) &&
           head.n_children == 2 && resp_next(&frame, &kind) && kind.type == '$' &&
           bytes_equal(kind.text, BYTES("pong"));
}

static bool on_unasked(struct link *link, struct bytes frame)
{
    struct ear *ear = OBJ_FROM(link->owner, struct ear, EAR_MAGIC);

    if (ear->is_ping_sent && is_pong(frame)) {
        on_pong(ear);
        return true;
    }
    if (frame.len > 0 && frame.ptr[0] == '*' && ear->kind == EAR_KEYSPACE) {
        return keyspace_take(ear, frame);
    }
    if (frame.len == 0 || frame.ptr[0] != '-') {
        return false;
    }
    if (ear->is_ping_sent) {
        on_no_pong(ear);
    } else {
        ear_confirm(ear, false, "the subscription is refused");
    }
    return true;
}

static const struct link_events ear_link_events = {on_up, on_down, on_push, on_unasked};

/* ---- life ---- */

static void settle(struct ear *ear)
{
    struct link_settings settings = ear->track->link->settings;

    settings.keeps_requests = false;
    settings.reads_replica = false;
    settings.is_broadcast = settings.wants_tracking = ear->kind == EAR_BROADCAST;
    settings.prefixes = ear->prefixes.items;
    settings.n_prefixes = ear->prefixes.n;
    ear->link.settings = settings;
}

void ear_make_prefixes(struct prefixes *prefixes, enum ear_kind kind, const struct config *config)
{
    if (kind == EAR_BROADCAST) {
        prefixes_init(prefixes, config, COHERENCE_BROADCAST, COHERENCE_BROADCAST);
    } else {
        prefixes_init(prefixes, config, COHERENCE_KEYSPACE, COHERENCE_AUTO);
    }
}

void ear_set_prefix_ids(struct coherence *coherence)
{
    for (enum ear_kind kind = 0; kind < N_EARS; kind++) {
        struct prefixes prefixes;

        ear_make_prefixes(&prefixes, kind, coherence->config);
        coherence->prefixes[kind] = prefixes.id;
        prefixes_fini(&prefixes);
    }
}

static struct ear *new_ear(struct track *track, enum ear_kind kind)
{
    struct backend *backend = track->coherence->backend;
    struct ear *ear = mem_alloc(sizeof(*ear));

    ear->magic = EAR_MAGIC;
    ear->kind = kind;
    ear->track = track;
    ear_make_prefixes(&ear->prefixes, kind, track->coherence->config);
    link_init(&ear->link, LINK_TRACKING, backend->worker, track->node->info,
              backend_login(backend, track->node), &track->link->settings);
    ear->link.owner = ear;
    ear->link.events = &ear_link_events;
    settle(ear);
    return ear;
}

static void free_ear(struct ear **at)
{
    struct ear *ear = *at;

    if (ear == NULL) {
        return;
    }
    *at = NULL;
    link_fini(&ear->link);
    note_loss(ear);
    end_incarnation(ear);
    pass_all(ear);
    prefixes_fini(&ear->prefixes);
    mem_free(ear);
}

/* The node is known not to tell by tracking: it would refuse BCAST as well. */
static bool is_refused(const struct track *track)
{
    return track->coherence->config->coherence == COHERENCE_AUTO && link_is_up(track->link) &&
           !track->is_probing && !track->is_confirmed;
}

static bool is_wanted(const struct track *track, enum ear_kind kind)
{
    const struct config *config = track->coherence->config;

    if (track->node->info == NULL || !track->node->info->is_master) {
        return false;
    }
    if (kind == EAR_BROADCAST) {
        return config_uses_coherence(config, COHERENCE_BROADCAST) ||
               (prefixes_have_rules(config, COHERENCE_BROADCAST) && !is_refused(track));
    }
    return config_uses_coherence(config, COHERENCE_KEYSPACE) ||
           (prefixes_have_rules(config, COHERENCE_KEYSPACE) &&
            config->coherence == COHERENCE_KEYSPACE) ||
           (config_uses_coherence(config, COHERENCE_AUTO) &&
            atomic_load_explicit(&track->share->n_untold, memory_order_relaxed) > 0);
}

static bool is_keeper(const struct track *track)
{
    const struct coherence *coherence = track->coherence;

    return track->node->identity == NULL &&
           track->node->id % coherence->fleet->n_members == coherence->worker->index;
}

/* Refused, or a subscription that nobody answers. */
static bool must_ask_anew(const struct ear *ear, int64_t now_us)
{
    const int64_t patience_us = ear->track->coherence->config->link_timeout_ms * 1000;

    if (ear->is_confirmed || now_us < ear->retry_at_us) {
        return false;
    }
    return ear->kind == EAR_BROADCAST ||
           (!keyspace_is_subscribed(ear) &&
            (ear->was_refused || now_us - ear->retry_at_us > patience_us));
}

static void tick(struct ear *ear, int64_t now_us)
{
    const struct config *config = ear->track->coherence->config;

    link_set_endpoint(&ear->link, &ear->track->node->info->endpoint);
    link_tick(&ear->link, now_us);
    if (!link_is_up(&ear->link)) {
        return;
    }
    if (must_ask_anew(ear, now_us)) {
        ear->link.settings.is_quiet = true;
        link_shut(&ear->link); /* nobody rests on it; the next tick connects again */
        return;
    }
    if (ear->kind == EAR_KEYSPACE) {
        keyspace_tick(ear, now_us);
    }
    if (!ear->is_confirmed) {
        return;
    }
    if (now_us - ear->watermark_us > config->link_timeout_ms * 1000) {
        link_close(&ear->link, "no sign of life within link-timeout");
        return;
    }
    if (!is_healthy(ear)) {
        ear_forget(ear, METRIC_flushes_link); /* as in track_tick() */
    }
    open_incarnation(ear, now_us);
    /* With BCAST a proof takes two. */
    const int64_t pause_us = config->fence_interval_ms * (ear->kind == EAR_BROADCAST ? 500 : 1000);

    if (are_legs_waiting(ear) || now_us - ear->ping_sent_at_us >= pause_us) {
        send_ping(ear);
    }
}

void ear_tick_all(struct track *track, int64_t now_us)
{
    for (enum ear_kind kind = 0; kind < N_EARS; kind++) {
        struct ear **ear = &track->ears[kind];

        if (!is_keeper(track) || !is_wanted(track, kind)) {
            free_ear(ear);
            continue;
        }
        if (*ear == NULL) {
            *ear = new_ear(track, kind);
        }
        tick(*ear, now_us);
    }
}

void ear_free_all(struct track *track)
{
    for (enum ear_kind kind = 0; kind < N_EARS; kind++) {
        free_ear(&track->ears[kind]);
    }
}

void ear_set_config_all(struct track *track)
{
    for (enum ear_kind kind = 0; kind < N_EARS; kind++) {
        struct ear *ear = track->ears[kind];

        if (ear == NULL) {
            continue;
        }
        if (!is_wanted(track, kind) || ear->prefixes.id != track->coherence->prefixes[kind]) {
            free_ear(&track->ears[kind]); /* the next tick makes another, where one is wanted */
        } else {
            settle(ear);
        }
    }
}
