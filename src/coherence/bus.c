/*
 * Design: each worker gathers what it sends during a turn and mails it to the first worker, which
 * numbers, batches and publishes. One place that numbers needs no lock, and a burst of many workers
 * becomes few messages.
 *
 *   bus_send() -> gather (its worker) -> mail -> batches by channel -> PUBLISH
 *
 * A number that was given and did not arrive is seen by the others: at the next message, or at the
 * next heartbeat, which repeats the last number. So nothing is ever sent twice, and whatever cannot
 * be sent only needs to leave a number out. A channel on which something was sent has heartbeats
 * until one was executed behind it, also when it is no longer in use.
 *
 * What is missed is never repaired: on_gap() drops all that the group could have told. That is so
 * when a number is missing; when a proxy is first heard of, and has spoken before; when one falls
 * silent without leaving; and when the subscription was lost, unless nobody was there to be missed.
 */
#include "coherence/bus.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "coherence/bus_batch.h"
#include "coherence/bus_lines.h"
#include "coherence/bus_peers.h"

#include <stdlib.h>
#include <sys/random.h>

/* Bytes of records that wait: from the workers, and for the backend. */
#define QUEUE_MAX ((size_t)1024 * 1024)
/* A backend that refuses it is asked again: rules are changed while servers run. */
#define REFUSED_PAUSE_US 30000000
#define HEARTBEATS_TO_SILENCE 3
#define TEACH_PAUSE_US 1000000

enum bus_state { BUS_OFF, BUS_CONNECTING, BUS_UP, BUS_REFUSED };

/* What one worker sends in one turn. */
struct gather {
    struct deferred deferred;
    struct bus *bus;
    struct coherence *member;
    struct buffer records;
};

struct bus_channel {
    uint64_t seq;     /* the last number given */
    bool is_unproven; /* no heartbeat was executed behind it yet */
    bool has_skipped; /* a number was left out since the last message or heartbeat */
    struct bus_batch *first, *last;
};

struct bus {
    struct coherence_fleet *fleet;
    struct coherence *home;
    const struct bus_events *events;
    void *context;
    struct gather *gathers; /* by worker index, each its worker's */
    struct mail leave_mail;

    _Atomic bool is_on;       /* atomic: what is sent is of use */
    _Atomic int state;        /* atomic: enum bus_state */
    _Atomic unsigned n_peers; /* atomic */
    _Atomic size_t n_queued;  /* atomic: bytes in mails and batches */
    _Atomic bool has_dropped; /* atomic: something was not queued */

    struct bus_lines *lines;
    struct bus_peers *peers;
    char *group; /* that the lines are open for */
    uint64_t origin;
    struct bus_channel channels[LINES_MAX];
    int64_t heartbeat_at_us;             /* the last one */
    int64_t up_since_us;                 /* all channels are subscribed to; 0: they are not */
    int64_t heard_since_us, heard_at_us; /* our own messages come back without a pause */
    int64_t refused_until_us;            /* 0: it is not */
    bool is_refusal_logged;
    bool has_refused; /* to be closed in the next tick */
    bool was_open;
    bool is_leaving;
    bool is_new;    /* since it is up, or has missed something, no heartbeat has said so */
    bool is_asking; /* one has, and was not heard here yet */
    bool has_newcomer, is_teaching;
    int64_t taught_at_us;
    struct deferred gap_job, flush_job;
    struct event *window_event;
};

static int64_t heartbeat_us(const struct bus *bus)
{
    return bus->home->config->bus_heartbeat_ms * 1000;
}

static struct bytes secret_of(const struct bus *bus)
{
    return bytes_of_string(bus->home->config->bus_secret);
}

static void set_state(struct bus *bus, enum bus_state state)
{
    atomic_store_explicit(&bus->state, (int)state, memory_order_relaxed);
}

/* ---- what was missed ---- */

static void on_gap_job(struct deferred *deferred)
{
    struct bus *bus = CONTAINER_OF(deferred, struct bus, gap_job);

    bus->events->on_gap(bus->context);
}

/* Once a turn is enough: many channels share one connection. */
static void note_gap(struct bus *bus, enum metric cause)
{
    /* What lasts is to be told again. Of another version it would not be understood, either. */
    bus->is_new = bus->is_new || cause != METRIC_bus_gaps_version;
    if (!bus->gap_job.is_queued) {
        stats_add(cause, 1);
        worker_defer(bus->home->worker, &bus->gap_job);
    }
}

/* Nobody else was on the bus: what a newcomer says is seen by its numbers. */
static void on_missed(void *context, unsigned channel, int64_t for_us)
{
    struct bus *bus = context;
    const bool is_short = for_us < heartbeat_us(bus);

    bus->up_since_us = 0;
    if (is_short && (atomic_load_explicit(&bus->n_peers, memory_order_relaxed) == 0 ||
                     !bus_peers_use(bus->peers, channel))) {
        return;
    }
    note_gap(bus, METRIC_bus_gaps_link);
}

/* ---- receiving ---- */

static void reject(enum bus_verdict verdict, struct bytes channel)
{
    static struct log_limit limit; /* the bus's worker */
    static const char *const reasons[] = {
        [BUS_MALFORMED] = "malformed", [BUS_UNSIGNED] = "unsigned", [BUS_FORGED] = "forged"};
    static const enum metric counters[] = {
        [BUS_MALFORMED] = METRIC_bus_rejected_malformed,
        [BUS_UNSIGNED] = METRIC_bus_rejected_unsigned,
        [BUS_FORGED] = METRIC_bus_rejected_forged,
    };
    unsigned n_suppressed;

    stats_add(counters[verdict], 1);
    if (log_limit_pass(&limit, clock_now_ms(), &n_suppressed)) {
        log_warn("coherence", "message of the bus rejected", "reason=%s channel=%s suppressed=%u",
                 reasons[verdict], log_quote(channel), n_suppressed);
    }
}

static void apply(struct bus *bus, struct bytes records)
{
    struct bus_record record;

    while (bus_record_next(&records, &record)) {
        stats_add(METRIC_bus_records_received, 1);
        bus->events->on_record(bus->context, &record);
    }
}

static void take_good(struct bus *bus, unsigned channel, const struct bus_header *header,
                      struct bytes records)
{
    const int64_t now_us = clock_now_us();

    if (header->origin == bus->origin) {
        if (now_us - bus->heard_at_us > 2 * heartbeat_us(bus)) {
            bus->heard_since_us = now_us;
        }
        bus->heard_at_us = now_us;
        bus->is_asking = bus->is_asking && !header->is_new;
        return;
    }
    stats_add(header->is_heartbeat ? METRIC_bus_heartbeats_received : METRIC_bus_messages_received,
              1);
    if (header->is_new) {
        bus->heartbeat_at_us = 0; /* in the next tick: what it kept before may be old */
        bus->has_newcomer = true;
    }
    switch (bus_peers_note(bus->peers, header, channel, now_us)) {
    case BUS_DUPLICATE:
        stats_add(METRIC_bus_duplicates, 1);
        return;
    case BUS_GAP:
        note_gap(bus, METRIC_bus_gaps_number);
        break;
    case BUS_FIRST:
        note_gap(bus, METRIC_bus_gaps_first);
        break;
    case BUS_NEXT:
        break;
    }
    apply(bus, records);
    const int64_t lag_us = clock_unix_us() - header->sent_unix_us;

    stats_observe(HISTOGRAM_bus_lag, lag_us, 1);
    stats_observe(HISTOGRAM_lag_bus, lag_us, 1);
    atomic_store_explicit(
        &bus->n_peers,
        bus_peers_count(bus->peers, now_us - HEARTBEATS_TO_SILENCE * heartbeat_us(bus)),
        memory_order_relaxed);
}

static void on_message(void *context, unsigned channel, struct bytes payload)
{
    struct bus *bus = context;
    const struct bytes name = lines_name(bus->lines, channel);
    struct bus_header header;
    struct bytes records;
    const enum bus_verdict verdict = bus_message_read(payload, secret_of(bus), name, &header,
                                                      &records);

    if (verdict == BUS_GOOD) {
        take_good(bus, channel, &header, records);
    } else if (verdict == BUS_NEWER) {
        note_gap(bus, METRIC_bus_gaps_version);
    } else {
        reject(verdict, name);
    }
}

/* ---- sending ---- */

/* The others are to see that something is missing. */
static void skip_number(struct bus_channel *channel)
{
    stats_add(METRIC_bus_dropped, 1);
    channel->seq += !channel->has_skipped;
    channel->has_skipped = channel->is_unproven = true;
}

static void publish(struct bus *bus, unsigned index, struct bytes records, unsigned n,
                    bool is_heartbeat)
{
    struct bus_channel *channel = &bus->channels[index];
    const struct bytes name = lines_name(bus->lines, index);
    struct bus_header header = {
        .origin = bus->origin,
        .seq = channel->seq + !is_heartbeat,
        .sent_unix_us = clock_unix_us(),
        .n_records = (uint16_t)n,
        .is_heartbeat = is_heartbeat,
        .is_last = is_heartbeat && bus->is_leaving,
        .is_new = is_heartbeat && bus->is_new,
    };
    struct buffer message;
    int error;

    channel->seq = header.seq;
    channel->has_skipped = false;
    buffer_init(&message);
    error = bus_message_write(&message, &header, records, secret_of(bus), name);
    if (error == 0) {
        error = lines_publish(bus->lines, index, buffer_bytes(&message), header.seq, is_heartbeat);
    }
    buffer_fini(&message);
    if (error != 0) {
        stats_add(METRIC_bus_failed, 1);
    }
    if (is_heartbeat) {
        stats_add(METRIC_bus_heartbeats_sent, 1);
        return;
    }
    channel->is_unproven = true;
    stats_add(METRIC_bus_messages_sent, 1);
    stats_add(METRIC_bus_records_sent, n);
}

static void unqueue(struct bus *bus, size_t n_bytes)
{
    atomic_fetch_sub_explicit(&bus->n_queued, n_bytes, memory_order_relaxed);
}

static struct bus_batch *take_batch(struct bus *bus, struct bus_channel *channel)
{
    struct bus_batch *batch = channel->first;

    if (batch != NULL) {
        channel->first = batch->next;
        if (channel->first == NULL) {
            channel->last = NULL;
        }
        unqueue(bus, buffer_len(&batch->records));
    }
    return batch;
}

static void flush(struct bus *bus)
{
    for (unsigned i = 0; i < lines_count(bus->lines); i++) {
        struct bus_channel *channel = &bus->channels[i];

        while (channel->first != NULL && lines_can_publish(bus->lines, i)) {
            struct bus_batch *batch = take_batch(bus, channel);

            publish(bus, i, buffer_bytes(&batch->records), batch->n, false);
            bus_batch_free(&batch);
        }
    }
}

static void on_flush_job(struct deferred *deferred)
{
    flush(CONTAINER_OF(deferred, struct bus, flush_job));
}

static void on_window(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    flush(arg);
}

static void flush_soon(struct bus *bus)
{
    const int64_t window_ms = bus->home->config->bus_window_ms;
    const struct timeval window = {0, window_ms * 1000};

    if (window_ms == 0) {
        worker_defer(bus->home->worker, &bus->flush_job);
    } else if (!event_pending(bus->window_event, EV_TIMEOUT, NULL)) {
        event_add(bus->window_event, &window);
    }
}

static void on_ready(void *context)
{
    struct bus *bus = context;

    /* While a window is open, what it gathers waits for its end. */
    if (!event_pending(bus->window_event, EV_TIMEOUT, NULL)) {
        worker_defer(bus->home->worker, &bus->flush_job);
    }
}

static bool add_record(struct bus_channel *channel, struct bytes record, bool *is_duplicate)
{
    enum bus_added added = BUS_FULL;
    struct bus_batch *batch;

    if (channel->last != NULL) {
        added = bus_batch_add(channel->last, record, is_duplicate);
    }
    if (added == BUS_FULL) {
        batch = bus_batch_new();
        if (channel->last != NULL) {
            channel->last->next = batch;
        } else {
            channel->first = batch;
        }
        channel->last = batch;
        added = bus_batch_add(batch, record, is_duplicate);
    }
    return added == BUS_ADDED;
}

static void queue_record(struct bus *bus, const struct bus_record *record, struct bytes encoded)
{
    const unsigned index = lines_choose(bus->lines, record->kind == BUS_KEY ? &record->a : NULL);
    bool is_duplicate = false;

    if (index == LINES_NONE) {
        unqueue(bus, encoded.len);
        atomic_store_explicit(&bus->has_dropped, true, memory_order_relaxed);
    } else if (!add_record(&bus->channels[index], encoded, &is_duplicate)) {
        unqueue(bus, encoded.len);
        skip_number(&bus->channels[index]);
    } else if (is_duplicate) {
        unqueue(bus, encoded.len);
        stats_add(METRIC_bus_merged, 1);
    }
}

/* Something was lost before it was known where it belongs: all that are in use tell. */
static void tell_dropped(struct bus *bus)
{
    if (!atomic_load_explicit(&bus->has_dropped, memory_order_relaxed) ||
        lines_choose(bus->lines, NULL) == LINES_NONE) {
        return;
    }
    atomic_store_explicit(&bus->has_dropped, false, memory_order_relaxed);
    for (unsigned i = 0; i < lines_count(bus->lines); i++) {
        if (lines_is_used(bus->lines, i)) {
            skip_number(&bus->channels[i]);
        }
    }
}

/* ---- from the workers ---- */

struct records_mail {
    struct mail mail;
    struct bus *bus;
    size_t len;
    unsigned char records[];
};

static void on_records_mail(struct mail *arrived)
{
    struct records_mail *mail = CONTAINER_OF(arrived, struct records_mail, mail);
    struct bus *bus = mail->bus;
    struct bytes left = bytes_make(mail->records, mail->len), before = left;
    struct bus_record record;

    while (bus_record_next(&left, &record)) {
        queue_record(bus, &record, bytes_make(before.ptr, (size_t)(left.ptr - before.ptr)));
        before = left;
    }
    mem_free(mail);
    tell_dropped(bus);
    flush_soon(bus);
}

static void post(struct bus *bus, struct bytes records)
{
    struct records_mail *mail = NULL;

    if (atomic_fetch_add_explicit(&bus->n_queued, records.len, memory_order_relaxed) +
            records.len <=
        QUEUE_MAX) {
        mail = mem_try_alloc(sizeof(*mail) + records.len);
    }
    if (mail == NULL) {
        unqueue(bus, records.len);
        atomic_store_explicit(&bus->has_dropped, true, memory_order_relaxed);
        return;
    }
    mail->mail.run = on_records_mail;
    mail->bus = bus;
    mail->len = records.len;
    memcpy(mail->records, records.ptr, records.len);
    worker_post(bus->home->worker, &mail->mail);
}

static void end_gather(struct gather *gather)
{
    if (buffer_len(&gather->records) > 0) {
        post(gather->bus, buffer_bytes(&gather->records));
        buffer_consume(&gather->records, buffer_len(&gather->records));
        buffer_release(&gather->records);
    }
}

static void on_gathered(struct deferred *deferred)
{
    end_gather(CONTAINER_OF(deferred, struct gather, deferred));
}

void bus_send(struct bus *bus, struct coherence *from, const struct bus_record *record)
{
    struct gather *gather;

    if (bus == NULL) {
        return;
    }
    if (!atomic_load_explicit(&bus->is_on, memory_order_relaxed)) {
        /* When it is on again, the others are to know that something was said meanwhile. */
        atomic_store_explicit(&bus->has_dropped, true, memory_order_relaxed);
        return;
    }
    if (from == NULL) {
        struct buffer encoded;

        buffer_init(&encoded);
        if (bus_record_write(&encoded, record) == 0) {
            post(bus, buffer_bytes(&encoded));
        } else {
            atomic_store_explicit(&bus->has_dropped, true, memory_order_relaxed);
        }
        buffer_fini(&encoded);
        return;
    }
    gather = &bus->gathers[from->worker->index];
    if (bus_record_write(&gather->records, record) != 0) {
        atomic_store_explicit(&bus->has_dropped, true, memory_order_relaxed);
        return;
    }
    if (buffer_len(&gather->records) >= BUS_BATCH_BYTES) {
        end_gather(gather);
    } else {
        worker_defer(from->worker, &gather->deferred);
    }
}

/* ---- heartbeats ---- */

static void on_published(void *context, unsigned channel, uint64_t seq, bool is_heartbeat)
{
    struct bus *bus = context;

    if (is_heartbeat && bus->channels[channel].seq == seq) {
        bus->channels[channel].is_unproven = false;
    }
}

/* False: none could be sent. */
static bool send_heartbeats(struct bus *bus)
{
    bool is_sent = false;

    for (unsigned i = 0; i < lines_count(bus->lines); i++) {
        if ((lines_is_used(bus->lines, i) || bus->channels[i].is_unproven) &&
            lines_can_publish(bus->lines, i)) {
            publish(bus, i, bytes_make(NULL, 0), 0, true);
            is_sent = true;
        }
    }
    return is_sent;
}

/* Silence says something only while this proxy hears its own voice. */
static void count_peers(struct bus *bus, int64_t now_us)
{
    const int64_t silence_us = HEARTBEATS_TO_SILENCE * heartbeat_us(bus);
    const bool is_hearing = now_us - bus->heard_at_us < 2 * heartbeat_us(bus) &&
                            now_us - bus->heard_since_us > silence_us;

    if (is_hearing && bus_peers_take_silent(bus->peers, now_us - silence_us) > 0) {
        note_gap(bus, METRIC_bus_gaps_silence);
    }
    atomic_store_explicit(&bus->n_peers, bus_peers_count(bus->peers, now_us - silence_us),
                          memory_order_relaxed);
}

/* ---- opening and closing ---- */

static void on_refused(void *context, struct bytes error)
{
    struct bus *bus = context;

    if (!bus->has_refused) {
        bus->has_refused = true;
        atomic_store_explicit(&bus->is_on, false, memory_order_relaxed);
        if (!bus->is_refusal_logged) {
            log_warn("coherence", "the backend refuses the bus between proxies",
                     "error=%s retry_s=%d", log_quote(error), REFUSED_PAUSE_US / 1000000);
        }
        bus->is_refusal_logged = true; /* once, until it is up */
    }
}

static void drop_batches(struct bus *bus)
{
    for (unsigned i = 0; i < LINES_MAX; i++) {
        struct bus_batch *batch;

        while ((batch = take_batch(bus, &bus->channels[i])) != NULL) {
            bus_batch_free(&batch);
            atomic_store_explicit(&bus->has_dropped, true, memory_order_relaxed);
        }
    }
}

static void close_bus(struct bus *bus, enum bus_state state)
{
    drop_batches(bus);
    lines_close(bus->lines);
    bus_peers_free(&bus->peers);
    mem_free(bus->group);
    bus->group = NULL;
    bus->up_since_us = 0;
    atomic_store_explicit(&bus->n_peers, 0, memory_order_relaxed);
    atomic_store_explicit(&bus->is_on, state == BUS_CONNECTING, memory_order_relaxed);
    set_state(bus, state);
}

/* 7.0 and later of a cluster: shard channels. */
static bool wants_shards(const struct topology *topology)
{
    return topology->is_cluster && atoi(topology->server_version) >= 7;
}

/* A number is used for one start only: the others know this process by it. */
static void renumber(struct bus *bus)
{
    memset(bus->channels, 0, sizeof(bus->channels));
    if (getrandom(&bus->origin, sizeof(bus->origin), 0) != (ssize_t)sizeof(bus->origin)) {
        bus->origin = (uint64_t)clock_unix_us() ^ (uint64_t)(uintptr_t)bus;
    }
}

static void open_bus(struct bus *bus)
{
    const struct topology *topology = bus->home->backend->topology;

    close_bus(bus, BUS_CONNECTING);
    renumber(bus);
    bus->group = mem_strdup(bus->home->config->bus_group);
    bus->has_refused = false;
    bus->refused_until_us = 0;
    bus->heard_since_us = bus->heard_at_us = 0;
    bus->peers = bus_peers_new(LINES_MAX);
    lines_open(bus->lines, bus->group, wants_shards(topology), bus->was_open);
    bus->was_open = true;
    tell_dropped(bus);
}

/* Opens, closes, or leaves it as it is. */
static void review(struct bus *bus)
{
    const struct config *config = bus->home->config;
    const struct topology *topology = bus->home->backend->topology;

    if (!config->bus) {
        if (bus->was_open) {
            close_bus(bus, BUS_OFF);
        }
        set_state(bus, BUS_OFF);
        atomic_store_explicit(&bus->is_on, false, memory_order_relaxed);
        bus->was_open = true; /* what is said from now on is missed */
    } else if (topology != NULL && bus->refused_until_us == 0 &&
               (!lines_are_open(bus->lines) || strcmp(bus->group, config->bus_group) != 0 ||
                lines_is_sharded(bus->lines) != wants_shards(topology))) {
        open_bus(bus);
    }
}

void bus_move(struct bus *bus)
{
    review(bus);
    lines_move(bus->lines);
    /*
     * A node that had lost a channel and did not know yet has executed what nobody heard any more,
     * heartbeats included: they are due once where the channel is now, in use there or not.
     */
    for (unsigned i = 0; i < LINES_MAX; i++) {
        bus->channels[i].is_unproven = bus->channels[i].seq > 0;
    }
    if (lines_are_open(bus->lines)) {
        tell_dropped(bus);
    }
}

void bus_set_config(struct bus *bus)
{
    bus->refused_until_us = 0;
    bus_move(bus);
}

static void note_down(struct bus *bus)
{
    bus->up_since_us = 0;
    if (bus_is_up(bus)) {
        set_state(bus, BUS_CONNECTING);
        log_warn("coherence", "bus lost", "group=%s", bus->group);
    }
}

/* At most once a second, however many come, and only as fast as it leaves. */
static void teach(struct bus *bus, int64_t now_us)
{
    const bool is_beginning = !bus->is_teaching;

    if (!bus_is_up(bus) ||
        atomic_load_explicit(&bus->n_queued, memory_order_relaxed) > QUEUE_MAX / 4 ||
        (is_beginning && (!bus->has_newcomer || now_us - bus->taught_at_us < TEACH_PAUSE_US))) {
        return;
    }
    if (is_beginning) {
        bus->has_newcomer = false;
        bus->taught_at_us = now_us;
    }
    bus->is_teaching = bus->events->on_newcomer(bus->context, is_beginning);
}

static void tick_open(struct bus *bus, int64_t now_us)
{
    lines_tick(bus->lines, now_us);
    if (!lines_are_up(bus->lines)) {
        note_down(bus);
    } else if (bus->up_since_us == 0) {
        bus->up_since_us = now_us;
        bus->heartbeat_at_us = 0;
        bus->is_new = bus->has_newcomer = true;
        bus->is_refusal_logged = false;
        if (!bus_is_up(bus)) {
            log_info("coherence", "bus up", "group=%s channels=%s signed=%s", bus->group,
                     lines_is_sharded(bus->lines) ? "sharded" : "one",
                     secret_of(bus).len > 0 ? "yes" : "no");
        }
        set_state(bus, BUS_UP);
    }
    if (now_us - bus->heartbeat_at_us >= heartbeat_us(bus)) {
        bus->heartbeat_at_us = now_us;
        tell_dropped(bus);
        flush(bus);
        bus->is_new = bus->is_new || bus->is_asking;
        if (send_heartbeats(bus)) {
            bus->is_asking = bus->is_new;
            bus->is_new = false;
        }
        count_peers(bus, now_us);
    }
    teach(bus, now_us);
}

void bus_tick(struct bus *bus, int64_t now_us)
{
    if (bus->has_refused && lines_are_open(bus->lines)) {
        close_bus(bus, BUS_REFUSED);
        bus->refused_until_us = now_us + REFUSED_PAUSE_US;
    } else if (bus->refused_until_us != 0 && now_us >= bus->refused_until_us) {
        bus->refused_until_us = 0;
        review(bus);
    }
    if (lines_are_open(bus->lines)) {
        tick_open(bus, now_us);
    }
}

/* ---- life ---- */

static const struct bus_lines_events lines_events = {on_message, on_missed, on_ready, on_published,
                                                     on_refused};

struct bus *bus_new(struct coherence_fleet *fleet, const struct bus_events *events, void *context)
{
    struct bus *bus = mem_alloc(sizeof(*bus));

    bus->fleet = fleet;
    bus->home = fleet->members[0];
    bus->events = events;
    bus->context = context;
    bus->gap_job.run = on_gap_job;
    bus->flush_job.run = on_flush_job;
    bus->window_event = event_new(bus->home->worker->base, -1, 0, on_window, bus);
    CHECK(bus->window_event != NULL);
    bus->lines = lines_new(bus->home, &lines_events, bus);
    bus->gathers = mem_alloc(fleet->n_members * sizeof(*bus->gathers));
    for (unsigned i = 0; i < fleet->n_members; i++) {
        bus->gathers[i].deferred.run = on_gathered;
        bus->gathers[i].bus = bus;
        bus->gathers[i].member = fleet->members[i];
        buffer_init(&bus->gathers[i].records);
    }
    atomic_store_explicit(&bus->is_on, bus->home->config->bus, memory_order_relaxed);
    set_state(bus, bus->home->config->bus ? BUS_CONNECTING : BUS_OFF);
    return bus;
}

void bus_free(struct bus **bus)
{
    struct bus *const gone = *bus;

    *bus = NULL;
    if (gone == NULL) {
        return;
    }
    close_bus(gone, BUS_OFF);
    lines_free(&gone->lines);
    worker_undefer(gone->home->worker, &gone->gap_job);
    worker_undefer(gone->home->worker, &gone->flush_job);
    for (unsigned i = 0; i < gone->fleet->n_members; i++) {
        worker_undefer(gone->gathers[i].member->worker, &gone->gathers[i].deferred);
        buffer_fini(&gone->gathers[i].records);
    }
    event_free(gone->window_event);
    mem_free(gone->gathers);
    mem_free(gone);
}

static void on_leave_mail(struct mail *mail)
{
    struct bus *bus = CONTAINER_OF(mail, struct bus, leave_mail);

    if (lines_are_open(bus->lines)) {
        tell_dropped(bus);
        flush(bus);
        bus->is_leaving = true;
        (void)send_heartbeats(bus);
    }
}

void bus_leave(struct bus *bus)
{
    bus->leave_mail.run = on_leave_mail;
    worker_post(bus->home->worker, &bus->leave_mail);
}

unsigned bus_count_peers(const struct bus *bus)
{
    return bus != NULL ? atomic_load_explicit(&bus->n_peers, memory_order_relaxed) : 0;
}

bool bus_is_up(const struct bus *bus)
{
    return bus != NULL && atomic_load_explicit(&bus->state, memory_order_relaxed) == BUS_UP;
}

const char *bus_state_name(const struct bus *bus)
{
    static const char *const names[] = {"off", "connecting", "up", "refused"};

    return names[atomic_load_explicit(&bus->state, memory_order_relaxed)];
}

bool bus_is_channel(struct bytes channel)
{
    const struct bytes end = BYTES(":inv");

    return bytes_start_with(channel, BYTES("nc:")) && channel.len > end.len + 3 &&
           memcmp(channel.ptr + channel.len - end.len, end.ptr, end.len) == 0;
}

bool bus_is_message(struct bytes channel, struct bytes payload)
{
    return bus_is_channel(channel) && payload.len >= BUS_HEADER_BYTES &&
           bytes_start_with(payload, BYTES("NC"));
}
