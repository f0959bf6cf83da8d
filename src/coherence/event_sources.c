/*
 * Each source has a connection of its own to one node: of a channel any master, of a shard channel
 * and a stream the owner of its slot. On a subscribed connection messages and replies look alike,
 * so every frame is looked at in the same way, whatever was asked before.
 *
 * A stream is read in rounds of four requests:
 *
 *     XREAD BLOCK    waits until there is something, or a while
 *     MULTI, XREAD, XINFO STREAM, EXEC
 *                    what there is, and how much was ever added, at one moment
 *
 * The next round begins when none of the events are under way, or when what all streams may bring
 * has its place in the queue: half of it is theirs, so that a channel that never rests stops none
 * of them. After a lost connection it goes on where it was; that entries were removed meanwhile is
 * seen like at any other time. A channel repeats nothing: everything is dropped when the
 * subscription is made again.
 */
#include "coherence/event_sources.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "coherence/bus.h"
#include "coherence/event_push.h"
#include "coherence/event_stream.h"
#include "upstream/control_client.h"

#define SOURCE_MAGIC 0x6576736fu /* "evso" */
#define RETRY_US 200000
#define REFUSED_RETRY_US 2000000
#define PING_US 1000000
#define BLOCK_MS "1000"
/* Failures while a batch is read; then single entries, and then a new place. */
#define READS_TO_SINGLE 1u
#define READS_TO_SKIP 4u

enum state { DOWN, CONNECTING, ASKING, UP };

struct source {
    uint32_t magic;
    struct source *next;
    struct event_sources *sources;
    const struct event_source_rule *rule; /* of sources->config */
    struct control_client *client;
    enum state state;
    epochs_node node; /* connected to */
    unsigned n_attempts;
    bool has_been_up;
    bool is_missed; /* messages may have been missed since it was up */
    bool is_refusal_logged;
    int64_t retry_at_us, heard_at_us, pinged_at_us;
    struct event_stream stream;
    bool is_reading; /* a round is under way */
    unsigned batch;  /* entries that it asks for */
    unsigned n_failed_reads;
};

/* One event under way. */
struct hearing {
    struct hearing *next, *prev;
    struct event_sources *sources; /* NULL: gone */
};

struct event_sources {
    struct coherence_fleet *fleet;
    struct coherence *home;
    struct config *config;
    struct source *first;
    struct hearing *hearings;
    unsigned n_hearings;
    struct deferred missed_job;
    _Atomic unsigned n_up, n_down;
};

static bool is_stream(const struct source *source)
{
    return source->rule->kind == EVENT_STREAM;
}

/* ---- what was missed ---- */

static void on_missed(struct deferred *deferred)
{
    struct event_sources *sources = CONTAINER_OF(deferred, struct event_sources, missed_job);
    const struct invalidation what = {
        .kind = INVALIDATE_EVERYTHING, .is_event = true, .is_heard = true};
    struct invalidation_answer answer;

    (void)invalidation_run(sources->fleet, sources->home, &what, &answer);
}

/* Once a turn is enough. */
static void drop_everything(struct event_sources *sources)
{
    worker_defer(sources->home->worker, &sources->missed_job);
}

static void note_gap(struct event_sources *sources, enum metric cause)
{
    stats_add(cause, 1);
    drop_everything(sources);
}

/* ---- events ---- */

static void end_hearing(struct hearing *hearing)
{
    struct event_sources *sources = hearing->sources;

    if (sources != NULL) {
        *(hearing->prev != NULL ? &hearing->prev->next : &sources->hearings) = hearing->next;
        if (hearing->next != NULL) {
            hearing->next->prev = hearing->prev;
        }
        sources->n_hearings--;
    }
    mem_free(hearing);
}

static void on_published(void *context, const struct events_answer *answer)
{
    struct hearing *hearing = context;

    if (answer->error != NULL && hearing->sources != NULL) {
        note_gap(hearing->sources, METRIC_event_gaps_failed);
    }
    end_hearing(hearing);
}

static void publish(struct event_sources *sources, struct bytes event)
{
    const struct events_order order = {
        .event = event, .db = sources->home->backend->login->db, .is_heard = true};
    struct hearing *hearing;

    if (sources->n_hearings >= (unsigned)sources->config->event_queue) {
        note_gap(sources, METRIC_event_gaps_overflow);
        return;
    }
    hearing = mem_alloc(sizeof(*hearing));
    hearing->sources = sources;
    hearing->next = sources->hearings;
    if (hearing->next != NULL) {
        hearing->next->prev = hearing;
    }
    sources->hearings = hearing;
    sources->n_hearings++;
    if (events_publish(sources->home->events, &order, on_published, hearing) != NULL) {
        note_gap(sources, METRIC_event_gaps_failed);
        end_hearing(hearing);
    }
}

static void take_message(struct source *source, struct bytes channel, struct bytes payload)
{
    unsigned char room[EVENT_NAME_MAX];
    const size_t len = payload.ptr != NULL ? event_source_name(source->rule, channel, payload, room)
                                           : 0;

    if (len == 0) {
        stats_add(METRIC_event_messages_rejected, 1);
        return;
    }
    stats_add(METRIC_event_messages, 1);
    publish(source->sources, bytes_make(room, len));
}

/* ---- coming and going ---- */

static void set_state(struct source *source, enum state state)
{
    struct event_sources *sources = source->sources;

    if ((source->state == UP) != (state == UP)) {
        atomic_fetch_add_explicit(&sources->n_up, state == UP ? 1u : (unsigned)-1,
                                  memory_order_relaxed);
        atomic_fetch_add_explicit(&sources->n_down, state == UP ? (unsigned)-1 : 1u,
                                  memory_order_relaxed);
    }
    source->state = state;
}

static void lose(struct source *source, int64_t pause_us)
{
    const struct coherence_fleet *fleet = source->sources->fleet;

    if (source->state == UP) {
        log_warn("coherence", "event source lost", "source=%s", source->rule->name);
    }
    /* A channel that was heard once: from here on messages pass unheard. */
    source->is_missed = source->is_missed || (source->state == UP && !is_stream(source));
    source->n_failed_reads += source->is_reading;
    source->is_reading = false;
    control_client_close(source->client);
    set_state(source, DOWN);
    source->retry_at_us = clock_now_us() + pause_us;
    source->n_attempts++;
    stats_add(METRIC_event_source_losses, 1);
    if (fleet->request_refresh != NULL) {
        fleet->request_refresh(fleet->refresh_context);
    }
}

static bool is_passing(struct bytes error)
{
    return bytes_start_with(error, BYTES("MOVED ")) || bytes_start_with(error, BYTES("ASK ")) ||
           bytes_start_with(error, BYTES("CLUSTERDOWN")) ||
           bytes_start_with(error, BYTES("TRYAGAIN")) ||
           bytes_start_with(error, BYTES("LOADING")) ||
           bytes_start_with(error, BYTES("UNBLOCKED")) || bytes_start_with(error, BYTES("BUSY")) ||
           bytes_start_with(error, BYTES("MASTERDOWN"));
}

static void refuse(struct source *source, struct bytes error)
{
    const bool is_short = is_passing(error);

    if (!is_short && !source->is_refusal_logged) {
        source->is_refusal_logged = true; /* once, until it is up */
        log_warn("coherence", "event source refused", "source=%s error=%s", source->rule->name,
                 log_quote(error));
    }
    lose(source, is_short ? RETRY_US : REFUSED_RETRY_US);
}

static void be_up(struct source *source)
{
    log_info("coherence", "event source up", "source=%s", source->rule->name);
    set_state(source, UP);
    source->is_refusal_logged = false;
    source->n_attempts = 0;
    if (source->is_missed) {
        note_gap(source->sources, METRIC_event_gaps_link);
    } else if (!source->has_been_up) {
        /* Of what was published since the first key was kept nothing was heard. */
        drop_everything(source->sources);
    }
    source->is_missed = false;
    source->has_been_up = true;
}

/* ---- channels ---- */

/* "message" channel payload, "pmessage" pattern channel payload. */
static void take_push(struct source *source, struct bytes frame)
{
    struct event_push push;

    if (!event_push_read(frame, &push)) {
        return;
    }
    if (push.kind == EVENT_PUSH_BEGUN) {
        be_up(source);
    } else if (push.kind == EVENT_PUSH_MOVED) {
        lose(source, RETRY_US);
    } else if (!bus_is_message(push.channel, push.payload)) {
        take_message(source, push.channel, push.payload);
    }
}

static void on_frame(const struct resp_value *head, struct bytes frame, void *context)
{
    struct source *source = OBJ_FROM(context, struct source, SOURCE_MAGIC);

    source->heard_at_us = clock_now_us();
    if (head->type == '-') {
        refuse(source, head->text);
    } else if (head->type == '*') {
        take_push(source, frame);
    }
}

static void subscribe(struct source *source)
{
    static const char *const words[] = {
        [EVENT_CHANNEL] = "SUBSCRIBE",
        [EVENT_PATTERN] = "PSUBSCRIBE",
        [EVENT_SHARD_CHANNEL] = "SSUBSCRIBE",
    };
    const char *const argv[] = {words[source->rule->kind], source->rule->address};

    control_client_send(source->client, argv, 2, on_frame);
}

static void ping(struct source *source, int64_t now_us)
{
    static const char *const argv[] = {"PING"};

    source->pinged_at_us = now_us;
    control_client_send(source->client, argv, 1, on_frame);
}

/* ---- streams ---- */

static void on_entry(void *context, struct bytes payload)
{
    struct source *source = context;

    take_message(source, (struct bytes){0}, payload);
}

static unsigned batch_of(const struct source *source)
{
    const unsigned n_sources = source->sources->config->events->n_sources;
    const unsigned share = (unsigned)source->sources->config->event_queue / (2 * n_sources);

    if (source->n_failed_reads >= READS_TO_SINGLE || share == 0) {
        return 1;
    }
    return share < EVENT_STREAM_BATCH ? share : EVENT_STREAM_BATCH;
}

/* With what the rounds under way bring there is room for what this one may bring. */
static bool has_room(const struct source *source)
{
    const struct event_sources *sources = source->sources;
    uint64_t n = sources->n_hearings + batch_of(source);

    for (const struct source *at = sources->first; at != NULL; at = at->next) {
        n += at->is_reading ? at->batch : 0;
    }
    return sources->n_hearings == 0 || n <= (uint64_t)sources->config->event_queue;
}

static void on_exec(const struct resp_value *head, struct bytes reply, void *context)
{
    struct source *source = OBJ_FROM(context, struct source, SOURCE_MAGIC);
    bool has_missed;
    unsigned n;

    if (head->type == '-') {
        refuse(source, head->text);
        return;
    }
    if (!event_stream_take(&source->stream, reply, bytes_of_string(source->rule->field),
                           source->batch, on_entry, source, &n, &has_missed)) {
        refuse(source, BYTES("not an answer to XREAD and XINFO STREAM, or an error"));
        return;
    }
    if (has_missed) {
        note_gap(source->sources, METRIC_event_gaps_trimmed);
    }
    source->is_reading = false;
    source->n_failed_reads = 0;
}

/* Errors of single requests come again as that of EXEC; that of XREAD BLOCK may be one of time. */
static void on_step(const struct resp_value *head, struct bytes reply, void *context)
{
    struct source *source = OBJ_FROM(context, struct source, SOURCE_MAGIC);

    (void)reply;
    source->heard_at_us = clock_now_us();
    if (head->type == '-') {
        refuse(source, head->text);
    }
}

static void read_on(struct source *source)
{
    char id[STREAM_ID_MAX], count[16];
    const char *const key = source->rule->address;
    const char *const wait[] = {"XREAD", "BLOCK", BLOCK_MS, "COUNT", "1", "STREAMS", key, id};
    const char *const read[] = {"XREAD", "COUNT", count, "STREAMS", key, id};
    const char *const info[] = {"XINFO", "STREAM", key};
    static const char *const multi[] = {"MULTI"}, *const exec[] = {"EXEC"};

    stream_id_format(source->stream.at, id);
    source->batch = batch_of(source);
    (void)snprintf(count, sizeof(count), "%u", source->batch);
    source->is_reading = true;
    control_client_send(source->client, wait, 8, on_step);
    control_client_send(source->client, multi, 1, on_step);
    control_client_send(source->client, read, 6, on_step);
    control_client_send(source->client, info, 3, on_step);
    control_client_send(source->client, exec, 1, on_exec);
}

static void on_placed(const struct resp_value *head, struct bytes reply, void *context)
{
    struct source *source = OBJ_FROM(context, struct source, SOURCE_MAGIC);

    if (!event_stream_place(&source->stream, reply)) {
        refuse(source, head->type == '-' ? head->text : BYTES("not an answer to XINFO STREAM"));
        return;
    }
    source->n_failed_reads = 0;
    be_up(source);
}

/* From the end of the stream; later on from where it was. */
static void begin_stream(struct source *source)
{
    const char *const info[] = {"XINFO", "STREAM", source->rule->address};

    if (source->n_failed_reads >= READS_TO_SKIP) {
        source->stream.is_placed = false;
        source->is_missed = true;
    }
    if (source->stream.is_placed) {
        be_up(source);
    } else {
        control_client_send(source->client, info, 3, on_placed);
    }
}

static void on_selected(const struct resp_value *head, struct bytes reply, void *context)
{
    struct source *source = OBJ_FROM(context, struct source, SOURCE_MAGIC);

    (void)reply;
    if (head->type == '-') {
        refuse(source, head->text);
    } else {
        begin_stream(source);
    }
}

static void select_database(struct source *source)
{
    const unsigned db = source->sources->home->backend->login->db;
    char digits[16];
    const char *const argv[] = {"SELECT", digits};

    (void)snprintf(digits, sizeof(digits), "%u", db);
    if (db == 0 || source->sources->home->backend->topology->is_cluster) {
        begin_stream(source);
    } else {
        control_client_send(source->client, argv, 2, on_selected);
    }
}

/* ---- the connection ---- */

static void on_up(void *context)
{
    struct source *source = OBJ_FROM(context, struct source, SOURCE_MAGIC);

    set_state(source, ASKING);
    source->heard_at_us = source->pinged_at_us = clock_now_us();
    if (is_stream(source)) {
        select_database(source);
    } else {
        subscribe(source);
    }
}

static void on_down(const char *reason, bool is_refused, void *context)
{
    struct source *source = OBJ_FROM(context, struct source, SOURCE_MAGIC);

    log_debug("coherence", "connection of an event source ended", "source=%s reason=%s",
              source->rule->name, log_quote(bytes_of_string(reason)));
    lose(source, is_refused ? REFUSED_RETRY_US : RETRY_US);
}

static const struct control_events client_events = {on_up, on_down, on_frame};

/* In a cluster messages of channels reach every node: another one after each failure. */
static const struct topology_node *node_for(const struct source *source)
{
    const struct topology *topology = source->sources->home->backend->topology;
    unsigned n_masters = 0, at;

    if (topology == NULL) {
        return NULL;
    }
    if (!topology->is_cluster) {
        return topology_owner(topology, 0);
    }
    if (is_stream(source) || source->rule->kind == EVENT_SHARD_CHANNEL) {
        return topology_owner(topology, command_key_slot(bytes_of_string(source->rule->address)));
    }
    for (unsigned i = 0; i < topology->n_nodes; i++) {
        n_masters += topology->nodes[i].is_master;
    }
    at = n_masters > 0 ? source->n_attempts % n_masters : 0;
    for (unsigned i = 0; i < topology->n_nodes; i++) {
        if (topology->nodes[i].is_master && at-- == 0) {
            return &topology->nodes[i];
        }
    }
    return NULL;
}

static void connect_to(struct source *source, const struct topology_node *node)
{
    const struct event_sources *sources = source->sources;
    const struct config *config = sources->config;
    const struct control_settings settings = {
        .user = sources->home->backend->login->user,
        .password = sources->home->backend->login->password,
        .connect_timeout_ms = config->connect_timeout_ms,
        /* Longer than a round of a stream waits. */
        .request_timeout_ms = 2000 + config->link_timeout_ms,
        .tls = config->tls_backend,
    };

    source->node = node->id;
    set_state(source, CONNECTING);
    control_client_connect(source->client, &node->endpoint, node->host, &settings);
}

static void tick(struct source *source, int64_t now_us)
{
    const struct event_sources *sources = source->sources;
    const struct topology_node *node;

    if (source->state == DOWN && now_us >= source->retry_at_us) {
        node = node_for(source);
        if (node != NULL && node->is_resolved) {
            connect_to(source, node);
        } else {
            source->retry_at_us = now_us + RETRY_US;
        }
    } else if (source->state == UP && is_stream(source)) {
        if (!source->is_reading && has_room(source)) {
            read_on(source);
        }
    } else if (source->state == UP || source->state == ASKING) {
        if (now_us - source->heard_at_us > (PING_US + sources->config->link_timeout_ms * 1000)) {
            lose(source, RETRY_US);
        } else if (source->state == UP && now_us - source->pinged_at_us > PING_US) {
            ping(source, now_us);
        }
    }
}

void event_sources_tick(struct event_sources *sources, int64_t now_us)
{
    for (struct source *source = sources->first; source != NULL; source = source->next) {
        tick(source, now_us);
    }
}

/* The node has the slot no more, or is no master. */
void event_sources_move(struct event_sources *sources)
{
    const struct topology *topology = sources->home->backend->topology;

    for (struct source *source = sources->first; source != NULL; source = source->next) {
        const bool is_anywhere = source->rule->kind == EVENT_CHANNEL ||
                                 source->rule->kind == EVENT_PATTERN;
        const struct topology_node *node = topology == NULL ? NULL : node_for(source);

        if (topology != NULL && topology->is_cluster && is_anywhere) {
            node = topology_by_id(topology, source->node);
            node = node != NULL && node->is_master ? node : NULL;
        }
        if (source->state != DOWN && (node == NULL || node->id != source->node)) {
            lose(source, 0);
        }
    }
}

/* ---- life ---- */

static struct source *source_new(struct event_sources *sources)
{
    struct source *source = mem_alloc(sizeof(*source));

    source->magic = SOURCE_MAGIC;
    source->sources = sources;
    source->client = control_client_new(sources->home->worker->base, &client_events, source);
    atomic_fetch_add_explicit(&sources->n_down, 1, memory_order_relaxed);
    return source;
}

static void source_free(struct source *source)
{
    set_state(source, DOWN);
    atomic_fetch_sub_explicit(&source->sources->n_down, 1, memory_order_relaxed);
    control_client_free(&source->client);
    mem_free(source);
}

/* The one that listens for just this already; taken off the list. */
static struct source *take_same(struct source **list, const struct event_source_rule *rule)
{
    for (struct source **at = list; *at != NULL; at = &(*at)->next) {
        if (event_source_equal((*at)->rule, rule)) {
            struct source *const found = *at;

            *at = found->next;
            return found;
        }
    }
    return NULL;
}

void event_sources_set_config(struct event_sources *sources, struct config *config)
{
    const struct event_rules *rules = config->events;
    struct config *former = sources->config;
    struct source *left = sources->first, **end = &sources->first;

    sources->first = NULL;
    for (unsigned i = 0; i < rules->n_sources; i++) {
        struct source *source = take_same(&left, &rules->sources[i]);

        if (source == NULL) {
            source = source_new(sources);
        }
        source->rule = &rules->sources[i];
        source->next = NULL;
        *end = source;
        end = &source->next;
    }
    while (left != NULL) {
        struct source *const gone = left;

        left = gone->next;
        source_free(gone);
    }
    sources->config = config_ref(config);
    config_unref(&former);
}

struct event_sources *event_sources_new(struct coherence_fleet *fleet, struct config *config)
{
    struct event_sources *sources = mem_alloc(sizeof(*sources));

    sources->fleet = fleet;
    sources->home = fleet->members[0];
    sources->missed_job.run = on_missed;
    event_sources_set_config(sources, config);
    return sources;
}

void event_sources_free(struct event_sources **sources)
{
    struct event_sources *const gone = *sources;

    *sources = NULL;
    if (gone == NULL) {
        return;
    }
    for (struct hearing *at = gone->hearings; at != NULL; at = at->next) {
        at->sources = NULL;
    }
    while (gone->first != NULL) {
        struct source *const source = gone->first;

        gone->first = source->next;
        source_free(source);
    }
    worker_undefer(gone->home->worker, &gone->missed_job);
    config_unref(&gone->config);
    mem_free(gone);
}

void event_sources_count(const struct event_sources *sources, unsigned *n_up, unsigned *n_down)
{
    *n_up = atomic_load_explicit(&sources->n_up, memory_order_relaxed);
    *n_down = atomic_load_explicit(&sources->n_down, memory_order_relaxed);
}
