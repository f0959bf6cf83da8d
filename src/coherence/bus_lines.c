/*
 * Design: a channel is wanted, sent or active at one link, as in proxy/hub.c. Replies to SUBSCRIBE
 * are pushes, but its errors are replies: they would be taken for the answer to a PUBLISH under
 * way. Therefore a link does one of both at a time: while subscriptions are unanswered nothing is
 * published, and they are sent only when no PUBLISH is unanswered. That costs a round trip when a
 * channel moves, and saves a second connection to every node.
 */
#include "coherence/bus_lines.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/stats.h"
#include "resp/own.h"

#include <errno.h>
#include <stdio.h>

/* Publications of one link that are unanswered; what comes then is gathered into larger ones. */
#define IN_FLIGHT_MAX 64
#define RETRY_US 100000
#define SLOTS_PER_CHANNEL (EPOCHS_SLOTS / LINES_MAX)

struct line {
    struct line *next;
    struct bus_lines *lines;
    epochs_node node;
    struct link link;
    uint8_t awaited[LINES_MAX]; /* channels whose SUBSCRIBE is unanswered, in order */
    unsigned n_awaited;
    int64_t awaited_since_us;
    unsigned n_in_flight;
};

struct channel {
    char name[112];
    size_t name_len;
    unsigned slot;
    struct line *at; /* NULL: nobody owns it */
    enum { WANTED, SENT, ACTIVE } state;
    bool is_used;
    bool is_missed;
    int64_t lost_at_us, retry_at_us;
};

struct bus_lines {
    struct coherence *home;
    const struct bus_lines_events *events;
    void *context;
    bool is_open, is_sharded;
    unsigned n;
    struct channel channels[LINES_MAX];
    struct line *links;
};

struct publication {
    struct link_op op;
    struct line *line;
    unsigned channel;
    uint64_t seq;
    bool is_heartbeat;
};

/* ---- subscribing ---- */

static void request_refresh(const struct bus_lines *lines)
{
    const struct coherence_fleet *fleet = lines->home->fleet;

    if (fleet->request_refresh != NULL) {
        fleet->request_refresh(fleet->refresh_context);
    }
}

static bool say(struct line *line, struct bytes command, struct bytes name)
{
    unsigned char room[OWN_NAME_MAX];
    const struct bytes argv[] = {own_spell(room, command), name};
    struct buffer frame;
    bool is_said;

    buffer_init(&frame);
    is_said = resp_write_request(&frame, argv, 2) == 0 &&
              link_say(&line->link, buffer_bytes(&frame)) == 0;
    buffer_fini(&frame);
    return is_said;
}

static bool is_due(const struct channel *channel, const struct line *line, int64_t now_us)
{
    return channel->at == line && channel->state == WANTED && now_us >= channel->retry_at_us;
}

static bool has_due(const struct line *line)
{
    const struct bus_lines *lines = line->lines;
    const int64_t now_us = clock_now_us();

    for (unsigned i = 0; i < lines->n; i++) {
        if (is_due(&lines->channels[i], line, now_us)) {
            return true;
        }
    }
    return false;
}

static void subscribe(struct line *line)
{
    struct bus_lines *lines = line->lines;
    const int64_t now_us = clock_now_us();

    if (!link_is_up(&line->link) || line->n_awaited > 0 || line->link.n_ops > 0) {
        return;
    }
    line->awaited_since_us = now_us;
    for (unsigned i = 0; i < lines->n; i++) {
        struct channel *channel = &lines->channels[i];

        if (is_due(channel, line, now_us) &&
            say(line, lines->is_sharded ? BYTES("SSUBSCRIBE") : BYTES("SUBSCRIBE"),
                bytes_make(channel->name, channel->name_len))) {
            channel->state = SENT;
            line->awaited[line->n_awaited++] = (uint8_t)i;
        }
    }
}

/* The channel whose SUBSCRIBE is answered now. */
static struct channel *take_awaited(struct line *line)
{
    unsigned i;

    if (line->n_awaited == 0) {
        return NULL;
    }
    i = line->awaited[0];
    line->n_awaited--;
    memmove(line->awaited, line->awaited + 1, line->n_awaited);
    return &line->lines->channels[i];
}

static void answered(struct line *line)
{
    if (line->n_awaited == 0) {
        line->lines->events->on_ready(line->lines->context);
    }
}

static void confirm(struct line *line)
{
    struct bus_lines *lines = line->lines;
    struct channel *channel = take_awaited(line);

    if (channel != NULL && channel->at == line && channel->state == SENT) {
        channel->state = ACTIVE;
        if (channel->is_missed) {
            channel->is_missed = false;
            lines->events->on_missed(lines->context, (unsigned)(channel - lines->channels),
                                     clock_now_us() - channel->lost_at_us);
        }
    }
    answered(line);
}

static void lose(struct bus_lines *lines, struct channel *channel)
{
    if (channel->state == ACTIVE) {
        channel->is_missed = true;
        channel->lost_at_us = clock_now_us();
        lines->events->on_missed(lines->context, (unsigned)(channel - lines->channels), 0);
        stats_add(METRIC_bus_resubscriptions, 1);
    }
    channel->state = WANTED;
    channel->retry_at_us = 0;
}

/* The slot of a shard channel has left the node. */
static void take_away(struct line *line, struct bytes name)
{
    struct bus_lines *lines = line->lines;

    for (unsigned i = 0; i < lines->n; i++) {
        struct channel *channel = &lines->channels[i];

        if (channel->at == line && channel->state == ACTIVE &&
            bytes_equal(name, bytes_make(channel->name, channel->name_len))) {
            lose(lines, channel);
            request_refresh(lines);
        }
    }
}

/* ---- what links tell ---- */

static bool is_passing(struct bytes error)
{
    return bytes_start_with(error, BYTES("-MOVED ")) ||
           bytes_start_with(error, BYTES("-CLUSTERDOWN")) ||
           bytes_start_with(error, BYTES("-TRYAGAIN")) ||
           bytes_start_with(error, BYTES("-LOADING")) || bytes_start_with(error, BYTES("-BUSY")) ||
           bytes_start_with(error, BYTES("-MASTERDOWN"));
}

static void take_error(struct bus_lines *lines, struct bytes error)
{
    if (is_passing(error)) {
        request_refresh(lines);
    } else {
        lines->events->on_refused(lines->context,
                                  bytes_make(error.ptr + 1, error.len > 3 ? error.len - 3 : 0));
    }
}

static void on_up(struct link *link)
{
    subscribe(link->owner);
}

static void on_down(struct link *link)
{
    struct line *line = link->owner;
    struct bus_lines *lines = line->lines;

    line->n_awaited = 0;
    for (unsigned i = 0; i < lines->n; i++) {
        if (lines->channels[i].at == line) {
            lose(lines, &lines->channels[i]);
        }
    }
    if (lines->is_open) {
        request_refresh(lines);
    }
}

/* An error that is the answer to no PUBLISH is one to a subscription. */
static bool on_unasked(struct link *link, struct bytes frame)
{
    struct line *line = link->owner;
    struct channel *channel = take_awaited(line);

    if (frame.ptr[0] != '-' || channel == NULL) {
        return false;
    }
    if (channel->at == line && channel->state == SENT) {
        channel->state = WANTED;
        channel->retry_at_us = clock_now_us() + RETRY_US;
    }
    take_error(line->lines, frame);
    answered(line);
    return true;
}

static void take_message(struct bus_lines *lines, struct bytes name, struct bytes payload)
{
    for (unsigned i = 0; i < lines->n; i++) {
        if (bytes_equal(name, bytes_make(lines->channels[i].name, lines->channels[i].name_len))) {
            lines->events->on_message(lines->context, i, payload);
            return;
        }
    }
}

static bool on_push(struct link *link, struct bytes frame)
{
    struct line *line = link->owner;
    struct resp_value head, kind, name, payload;

    if (!resp_next(&frame, &head) || head.n_children < 3 || !resp_next(&frame, &kind) ||
        !resp_next(&frame, &name) || kind.type != '$' || name.type != '$') {
        return false;
    }
    if (bytes_equal(kind.text, BYTES("message")) || bytes_equal(kind.text, BYTES("smessage"))) {
        if (!resp_next(&frame, &payload) || payload.type != '$') {
            return false;
        }
        take_message(line->lines, name.text, payload.text);
    } else if (bytes_equal(kind.text, BYTES("subscribe")) ||
               bytes_equal(kind.text, BYTES("ssubscribe"))) {
        confirm(line);
    } else if (bytes_equal(kind.text, BYTES("sunsubscribe"))) {
        take_away(line, name.text);
    }
    return true;
}

static const struct link_events link_events = {on_up, on_down, on_push, on_unasked};

/* ---- publishing ---- */

static void end_publication(struct publication *publication)
{
    struct line *line = publication->line;

    line->n_in_flight--;
    mem_free(publication);
}

static void on_published(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                         bool is_first, bool is_last)
{
    struct publication *publication = CONTAINER_OF(op, struct publication, op);
    struct line *line = publication->line;
    struct bus_lines *lines = line->lines;

    (void)link;
    (void)index;
    if (!is_last) {
        return;
    }
    if (is_first && part.ptr[0] == '-') {
        stats_add(METRIC_bus_failed, 1);
        take_error(lines, part);
    } else if (lines->channels[publication->channel].at == line) {
        lines->events->on_published(lines->context, publication->channel, publication->seq,
                                    publication->is_heartbeat);
    }
    end_publication(publication);
    subscribe(line);
    if (line->n_awaited == 0) {
        lines->events->on_ready(lines->context);
    }
}

/* Nothing is sent again: the others notice by the numbers. */
static void on_lost(struct link_op *op, struct link *link, enum link_loss loss)
{
    (void)link;
    (void)loss;
    stats_add(METRIC_bus_failed, 1);
    end_publication(CONTAINER_OF(op, struct publication, op));
}

static const struct link_op_type publication_type = {on_published, on_lost};

bool lines_can_publish(const struct bus_lines *lines, unsigned channel)
{
    const struct line *line = lines->channels[channel].at;

    return line != NULL && link_is_up(&line->link) && line->n_awaited == 0 &&
           line->n_in_flight < IN_FLIGHT_MAX && !has_due(line);
}

int lines_publish(struct bus_lines *lines, unsigned channel, struct bytes message, uint64_t seq,
                  bool is_heartbeat)
{
    struct channel *on = &lines->channels[channel];
    unsigned char room[OWN_NAME_MAX];
    const struct bytes argv[] = {
        own_spell(room, lines->is_sharded ? BYTES("SPUBLISH") : BYTES("PUBLISH")),
        bytes_make(on->name, on->name_len), message};
    struct publication *publication = mem_alloc(sizeof(*publication));
    struct buffer frame;
    struct bytes parts[1];
    int error;

    publication->op.type = &publication_type;
    publication->op.collect = LINK_COLLECT_MIN;
    publication->line = on->at;
    publication->channel = channel;
    publication->seq = seq;
    publication->is_heartbeat = is_heartbeat;
    buffer_init(&frame);
    error = resp_write_request(&frame, argv, 3);
    if (error == 0) {
        parts[0] = buffer_bytes(&frame);
        on->at->n_in_flight++;
        error = link_send(&on->at->link, on->at->link.db, parts, 1, 1, &publication->op);
        on->at->n_in_flight -= error != 0;
    }
    buffer_fini(&frame);
    if (error != 0) {
        mem_free(publication);
    }
    return error;
}

/* ---- where channels are ---- */

/* A heartbeat that is not answered ends the link as early as silence ends a tracking link. */
static struct link_settings settings_of(const struct bus_lines *lines,
                                        const struct backend_node *node)
{
    struct link_settings settings = node->links[LINK_RELAY3].settings;

    settings.request_timeout_ms = lines->home->config->link_timeout_ms;
    settings.keeps_requests = false;
    settings.idle_timeout_ms = 0;
    settings.is_quiet = true; /* the bus tells what it means */
    return settings;
}

static struct line *line_to(struct bus_lines *lines, struct backend_node *node)
{
    struct backend *backend = lines->home->backend;
    const struct link_settings settings = settings_of(lines, node);
    struct line *line = lines->links;

    while (line != NULL && line->node != node->id) {
        line = line->next;
    }
    if (line != NULL) {
        return line;
    }
    line = mem_alloc(sizeof(*line));
    line->lines = lines;
    line->node = node->id;
    link_init(&line->link, LINK_RELAY3, backend->worker, node->info, backend->login, &settings);
    line->link.events = &link_events;
    line->link.owner = line;
    line->next = lines->links;
    lines->links = line;
    return line;
}

static void free_line(struct line *line)
{
    link_fini(&line->link);
    mem_free(line);
}

/*
 * It is subscribed elsewhere from now on. Nothing is said there: a node that has lost the slot has
 * ended the subscription itself, and answers SUNSUBSCRIBE with an error; what still comes from one
 * that has not is a duplicate, or a record that is as true as it was.
 */
static void detach(struct bus_lines *lines, struct channel *channel)
{
    lose(lines, channel);
    channel->at = NULL;
}

static void place(struct bus_lines *lines, struct channel *channel)
{
    struct backend_node *node = backend_owner(lines->home->backend, channel->slot);
    struct line *line = node != NULL && node->info != NULL ? line_to(lines, node) : NULL;

    if (channel->at == line) {
        return;
    }
    if (channel->at != NULL) {
        detach(lines, channel);
    }
    channel->at = line;
}

/* The lowest of each link. */
static void choose_used(struct bus_lines *lines)
{
    for (unsigned i = 0; i < lines->n; i++) {
        struct channel *channel = &lines->channels[i];

        channel->is_used = channel->at != NULL;
        for (unsigned j = 0; j < i && channel->is_used; j++) {
            channel->is_used = lines->channels[j].at != channel->at;
        }
    }
}

void lines_move(struct bus_lines *lines)
{
    const struct backend *backend = lines->home->backend;

    if (!lines->is_open) {
        return;
    }
    for (struct line *line = lines->links; line != NULL; line = line->next) {
        const struct backend_node *node = backend_by_id(backend, line->node);

        if (node != NULL && node->info != NULL) {
            link_set_endpoint(&line->link, &node->info->endpoint);
            line->link.settings = settings_of(lines, node);
        }
    }
    for (unsigned i = 0; i < lines->n; i++) {
        place(lines, &lines->channels[i]);
    }
    choose_used(lines);
    for (struct line *line = lines->links; line != NULL; line = line->next) {
        link_wake(&line->link);
        subscribe(line);
    }
}

/* ---- opening and closing ---- */

static void add_channel(struct bus_lines *lines, unsigned i, const char *group, const char *tag,
                        bool is_back)
{
    struct channel *channel = &lines->channels[i];
    const struct topology *topology = lines->home->backend->topology;

    memset(channel, 0, sizeof(*channel));
    channel->name_len = (size_t)snprintf(channel->name, sizeof(channel->name), "nc:%s:%s%sinv",
                                         group, tag, tag[0] != '\0' ? ":" : "");
    channel->slot = topology->is_cluster
                        ? command_key_slot(bytes_make(channel->name, channel->name_len))
                        : 0;
    channel->is_missed = is_back;
    channel->lost_at_us = 0;
}

/* For each share of the slots the smallest number in braces that falls into it. */
static void add_shard_channels(struct bus_lines *lines, const char *group, bool is_back)
{
    bool has[LINES_MAX] = {false};
    unsigned n = 0;

    for (unsigned k = 0; n < LINES_MAX; k++) {
        char tag[16];
        const int len = snprintf(tag, sizeof(tag), "{%u}", k);
        const unsigned share = command_key_slot(bytes_make(tag, (size_t)len)) / SLOTS_PER_CHANNEL;

        if (!has[share]) {
            has[share] = true;
            n++;
            add_channel(lines, share, group, tag, is_back);
        }
    }
}

void lines_open(struct bus_lines *lines, const char *group, bool is_sharded, bool is_back)
{
    lines_close(lines);
    lines->is_open = true;
    lines->is_sharded = is_sharded;
    lines->n = is_sharded ? LINES_MAX : 1;
    if (is_sharded) {
        add_shard_channels(lines, group, is_back);
    } else {
        add_channel(lines, 0, group, "", is_back);
    }
    lines_move(lines);
}

void lines_close(struct bus_lines *lines)
{
    lines->is_open = false;
    lines->n = 0; /* links that go down have no channels to tell of */
    while (lines->links != NULL) {
        struct line *const line = lines->links;

        lines->links = line->next;
        free_line(line);
    }
}

struct bus_lines *lines_new(struct coherence *home, const struct bus_lines_events *events,
                            void *context)
{
    struct bus_lines *lines = mem_alloc(sizeof(*lines));

    lines->home = home;
    lines->events = events;
    lines->context = context;
    return lines;
}

void lines_free(struct bus_lines **lines)
{
    lines_close(*lines);
    mem_free(*lines);
    *lines = NULL;
}

/* ---- state ---- */

bool lines_are_open(const struct bus_lines *lines)
{
    return lines->is_open;
}

bool lines_is_sharded(const struct bus_lines *lines)
{
    return lines->is_sharded;
}

unsigned lines_count(const struct bus_lines *lines)
{
    return lines->n;
}

struct bytes lines_name(const struct bus_lines *lines, unsigned channel)
{
    return bytes_make(lines->channels[channel].name, lines->channels[channel].name_len);
}

bool lines_are_up(const struct bus_lines *lines)
{
    unsigned n_active = 0;

    for (unsigned i = 0; i < lines->n; i++) {
        if (lines->channels[i].at != NULL && lines->channels[i].state != ACTIVE) {
            return false;
        }
        n_active += lines->channels[i].state == ACTIVE;
    }
    return n_active > 0;
}

bool lines_is_used(const struct bus_lines *lines, unsigned channel)
{
    return lines->channels[channel].is_used;
}

unsigned lines_choose(const struct bus_lines *lines, const struct bytes *key)
{
    const struct backend *backend = lines->home->backend;
    const struct backend_node *owner = key != NULL && lines->is_sharded
                                           ? backend_owner(backend, command_key_slot(*key))
                                           : NULL;
    unsigned any = LINES_NONE;

    for (unsigned i = 0; i < lines->n; i++) {
        const struct channel *channel = &lines->channels[i];

        if (!channel->is_used) {
            continue;
        }
        if (owner != NULL ? channel->at->node == owner->id : channel->state == ACTIVE) {
            return i;
        }
        any = any == LINES_NONE ? i : any;
    }
    return any;
}

/* ---- time ---- */

/* Messages come as pushes: a server that cannot do that now will not do it in a moment either. */
static void check_greeting(struct line *line)
{
    const char *error = line->link.error;

    if (line->link.state == LINK_DOWN &&
        (strstr(error, "-ERR unknown command") != NULL || strstr(error, "-NOPROTO") != NULL ||
         strstr(error, "-NOPERM") != NULL)) {
        line->lines->events->on_refused(line->lines->context, bytes_of_string(error));
    }
}

void lines_tick(struct bus_lines *lines, int64_t now_us)
{
    struct line **at = &lines->links;

    while (*at != NULL) {
        struct line *const line = *at;
        bool is_needed = line->link.n_ops > 0 && link_is_up(&line->link);

        for (unsigned i = 0; i < lines->n && !is_needed; i++) {
            is_needed = lines->channels[i].at == line;
        }
        if (!is_needed) {
            *at = line->next;
            free_line(line);
            continue;
        }
        check_greeting(line);
        link_wake(&line->link);
        link_tick(&line->link, now_us);
        if (line->n_awaited > 0 &&
            now_us - line->awaited_since_us > line->link.settings.request_timeout_ms * 1000) {
            link_close(&line->link, "no answer to a subscription");
        }
        subscribe(line);
        at = &line->next;
    }
}
