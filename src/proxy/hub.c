/*
 * Design: what is subscribed where is a spot: one topic at one node. Spots are wanted until they
 * were sent, sent until the backend confirms, in the order in which they were sent, and wanted
 * again when their link is lost. All that a hub does follows from that.
 */
#include "proxy/hub.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/stats.h"
#include "coherence/bus.h"
#include "proxy/census.h"
#include "resp/own.h"
#include "resp/writer.h"
#include "upstream/identity.h"

#include <stdio.h>

#define PING_PAUSE_US 1000000

struct hub_link {
    struct hub_link *next;
    struct hub *hub;
    epochs_node node;
    const struct identity *identity;
    struct link link;
    struct link_op ping;
    bool is_ping_sent;
    int64_t pinged_at_us;
    struct sent *first_sent, *last_sent; /* whose confirmations are still to come */
    struct topic_table leaving;          /* left, but the backend may still count them */
    unsigned n_spots;
    int n_wanted; /* of them: to be sent when the link is up */
};

struct spot {
    struct spot *next; /* of its topic */
    struct hub_topic *topic;
    struct hub_link *at;
    enum { SPOT_WANTED, SPOT_SENT, SPOT_ACTIVE } state;
};

struct sent {
    struct sent *next;
    struct spot *spot; /* NULL: nobody wants it any more */
};

struct joiner {
    struct joiner *next;
    struct front *front;
    uint64_t serial;
    bool is_told;
};

struct hub_topic {
    struct topic topic;
    const struct identity *identity;
    struct joiner *joiners;
    struct spot *spots; /* the first one delivers; the others only what stays on their node */
};

struct hub {
    struct front *front;
    const struct hub_events *events;
    struct topic_table topics;
    struct hub_link *links;
};

static const char *const subscribe_names[N_TOPIC_KINDS] = {"SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"};
static const char *const unsubscribe_names[N_TOPIC_KINDS] = {"UNSUBSCRIBE", "PUNSUBSCRIBE",
                                                             "SUNSUBSCRIBE"};

void hub_message_unref(struct hub_message *message)
{
    /* acq_rel: who frees it sees that everybody else is done with it. */
    if (atomic_fetch_sub_explicit(&message->n_refs, 1, memory_order_acq_rel) == 1) {
        mem_free(message);
    }
}

/* ---- keyspace events stay on their node ---- */

static bool is_event(struct bytes channel)
{
    return bytes_start_with(channel, BYTES("__keyspace@")) ||
           bytes_start_with(channel, BYTES("__keyevent@"));
}

static bool may_begin_alike(struct bytes pattern, struct bytes text)
{
    for (size_t i = 0; i < pattern.len && i < text.len; i++) {
        if (strchr("*?[\\", pattern.ptr[i]) != NULL) {
            return true;
        }
        if (pattern.ptr[i] != text.ptr[i]) {
            return false;
        }
    }
    return pattern.len >= text.len;
}

static bool is_everywhere(const struct topic_key *key)
{
    switch (key->kind) {
    case TOPIC_CHANNEL:
        return is_event(key->name);
    case TOPIC_PATTERN:
        return may_begin_alike(key->name, BYTES("__keyspace@")) ||
               may_begin_alike(key->name, BYTES("__keyevent@"));
    default:
        return false;
    }
}

/* ---- sending ---- */

static void say(struct hub_link *at, const char *command, struct bytes name)
{
    const struct bytes argv[] = {bytes_of_string(command), name};
    struct buffer frame;

    buffer_init(&frame);
    if (resp_write_request(&frame, argv, 2) != 0 ||
        link_say(&at->link, buffer_bytes(&frame)) != 0) {
        link_close(&at->link, "out of memory");
    }
    buffer_fini(&frame);
}

static void set_state(struct spot *spot, int state)
{
    const bool was_active = spot->state == SPOT_ACTIVE;

    spot->at->n_wanted += (state == SPOT_WANTED) - (spot->state == SPOT_WANTED);
    spot->state = state;
    if (was_active != (state == SPOT_ACTIVE)) {
        census_set_active(&spot->topic->topic.key, spot->at->node, state == SPOT_ACTIVE);
    }
}

static void send_spot(struct spot *spot)
{
    struct hub_link *at = spot->at;
    const struct topic_key *key = &spot->topic->topic.key;
    struct sent *sent;

    link_wake(&at->link);
    if (!link_is_up(&at->link) || spot->state != SPOT_WANTED) {
        return;
    }
    sent = mem_alloc(sizeof(*sent));
    sent->spot = spot;
    if (at->last_sent != NULL) {
        at->last_sent->next = sent;
    } else {
        at->first_sent = sent;
    }
    at->last_sent = sent;
    set_state(spot, SPOT_SENT);
    say(at, subscribe_names[key->kind], key->name);
}

/* ---- telling the workers ---- */

struct joined_mail {
    struct mail mail;
    struct front *front;
    const struct hub_events *events;
    uint64_t serial;
    struct topic_key key;
    struct bytes error;
    unsigned char bytes[];
};

static void on_joined_mail(struct mail *arrived)
{
    struct joined_mail *mail = CONTAINER_OF(arrived, struct joined_mail, mail);

    mail->events->on_joined(mail->front, &mail->key, mail->serial, mail->error);
    mem_free(mail);
}

static void tell(struct hub_topic *topic, struct joiner *joiner, struct bytes error)
{
    const struct topic_key *key = &topic->topic.key;
    struct joined_mail *mail = mem_alloc(sizeof(*mail) + key->name.len + error.len + 1);

    joiner->is_told = true;
    mail->mail.run = on_joined_mail;
    mail->front = joiner->front;
    mail->events = joiner->front->hub->events;
    mail->serial = joiner->serial;
    mail->key = *key;
    mail->key.name = bytes_make(mail->bytes, key->name.len);
    mail->error = bytes_make(mail->bytes + key->name.len, error.len);
    if (key->name.len > 0) {
        memcpy(mail->bytes, key->name.ptr, key->name.len);
    }
    if (error.len > 0) {
        memcpy(mail->bytes + key->name.len, error.ptr, error.len);
    }
    worker_post(&joiner->front->worker, &mail->mail);
}

static bool is_confirmed(const struct hub_topic *topic)
{
    const struct spot *spot = topic->spots;

    while (spot != NULL && spot->state == SPOT_ACTIVE) {
        spot = spot->next;
    }
    return spot == NULL && topic->spots != NULL;
}

static void tell_if_confirmed(struct hub_topic *topic)
{
    if (!is_confirmed(topic)) {
        return;
    }
    for (struct joiner *joiner = topic->joiners; joiner != NULL; joiner = joiner->next) {
        if (!joiner->is_told) {
            tell(topic, joiner, BYTES(""));
        }
    }
}

/* ---- spots and links ---- */

static void on_ping_reply(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                          bool is_first, bool is_last);
static void on_ping_lost(struct link_op *op, struct link *link, enum link_loss loss);
static void on_up(struct link *link);
static void on_down(struct link *link);
static bool on_push(struct link *link, struct bytes frame);
static bool on_unasked(struct link *link, struct bytes frame);

static const struct link_op_type ping_type = {on_ping_reply, on_ping_lost};
static const struct link_events events = {on_up, on_down, on_push, on_unasked};

static struct hub_link *link_to(struct hub *hub, struct backend_node *node,
                                const struct identity *identity)
{
    struct backend *backend = &hub->front->backend;
    struct hub_link *at = hub->links;
    struct link_settings settings = node->links[LINK_RELAY3].settings;

    while (at != NULL && (at->node != node->id || at->identity != identity)) {
        at = at->next;
    }
    if (at != NULL) {
        return at;
    }
    at = mem_alloc(sizeof(*at));
    settings.keeps_requests = false;
    settings.idle_timeout_ms = 0;
    at->hub = hub;
    at->node = node->id;
    at->identity = identity;
    at->ping.type = &ping_type;
    at->ping.collect = LINK_COLLECT_MIN;
    link_init(&at->link, LINK_RELAY3, backend->worker, node->info,
              identity != NULL ? &identity->login : backend->login, &settings);
    at->link.events = &events;
    at->link.owner = at;
    at->next = hub->links;
    hub->links = at;
    return at;
}

static void add_spot(struct hub *hub, struct hub_topic *topic, struct backend_node *node)
{
    struct spot *spot = mem_alloc(sizeof(*spot)), **end = &topic->spots;

    spot->topic = topic;
    spot->at = link_to(hub, node, topic->identity);
    spot->at->n_spots++;
    spot->at->n_wanted++;
    while (*end != NULL) {
        end = &(*end)->next;
    }
    *end = spot;
    send_spot(spot);
}

/* It counts at the backend until that confirms. */
static void unsubscribe(struct spot *spot)
{
    const struct topic_key *key = &spot->topic->topic.key;

    say(spot->at, unsubscribe_names[key->kind], key->name);
    if (spot->state == SPOT_ACTIVE && topic_find(&spot->at->leaving, key) == NULL) {
        struct topic *leaving = mem_alloc(sizeof(*leaving));

        topic_add(&spot->at->leaving, leaving, key);
        spot->state = SPOT_SENT; /* so that the census keeps it */
    }
}

static void has_left(struct hub_link *at, struct topic *leaving)
{
    census_set_active(&leaving->key, at->node, false);
    topic_remove(&at->leaving, leaving);
    mem_free(leaving);
}

/* An unused link goes in the next tick. */
static void drop_spot(struct hub_topic *topic, struct spot *spot)
{
    struct spot **at = &topic->spots;

    while (*at != spot) {
        at = &(*at)->next;
    }
    *at = spot->next;
    for (struct sent *sent = spot->at->first_sent; sent != NULL; sent = sent->next) {
        if (sent->spot == spot) {
            sent->spot = NULL;
        }
    }
    if (spot->state != SPOT_WANTED && link_is_up(&spot->at->link)) {
        unsubscribe(spot);
    }
    set_state(spot, SPOT_WANTED);
    spot->at->n_wanted--;
    spot->at->n_spots--;
    mem_free(spot);
}

static struct spot *spot_at(const struct hub_topic *topic, epochs_node node)
{
    struct spot *spot = topic->spots;

    while (spot != NULL && spot->at->node != node) {
        spot = spot->next;
    }
    return spot;
}

/* Where the map says that it belongs; what is elsewhere goes. */
static void place(struct hub *hub, struct hub_topic *topic)
{
    const struct topic_key *key = &topic->topic.key;
    struct backend *backend = &hub->front->backend;
    const bool is_cluster = backend->topology != NULL && backend->topology->is_cluster;
    const bool on_all = is_cluster && is_everywhere(key);
    struct backend_node *wanted[256];
    unsigned n = 0;

    if (!on_all) {
        wanted[0] = is_cluster && key->kind == TOPIC_PATTERN
                        ? backend_next_master(backend, 0)
                        : backend_owner(backend, is_cluster ? command_key_slot(key->name) : 0);
        n = wanted[0] != NULL;
    }
    for (struct backend_node *node = on_all ? backend_next_master(backend, 0) : NULL;
         node != NULL && n < 256; node = backend_next_master(backend, node->id)) {
        wanted[n++] = node;
    }
    for (struct spot *spot = topic->spots, *next; spot != NULL; spot = next) {
        unsigned i = 0;

        next = spot->next;
        while (i < n && wanted[i]->id != spot->at->node) {
            i++;
        }
        if (i == n) {
            drop_spot(topic, spot);
        }
    }
    for (unsigned i = 0; i < n; i++) {
        if (wanted[i]->info != NULL && spot_at(topic, wanted[i]->id) == NULL) {
            add_spot(hub, topic, wanted[i]);
        }
    }
}

/* ---- topics ---- */

static void free_topic(struct hub *hub, struct hub_topic *topic)
{
    while (topic->spots != NULL) {
        drop_spot(topic, topic->spots);
    }
    while (topic->joiners != NULL) {
        struct joiner *const joiner = topic->joiners;

        topic->joiners = joiner->next;
        mem_free(joiner);
    }
    topic_remove(&hub->topics, &topic->topic);
    mem_free(topic);
}

static void join(struct hub *hub, struct front *from, const struct topic_key *key,
                 const struct identity *identity, uint64_t serial)
{
    struct topic *found = topic_find(&hub->topics, key);
    struct hub_topic *topic = found != NULL ? CONTAINER_OF(found, struct hub_topic, topic) : NULL;
    struct joiner *joiner = mem_alloc(sizeof(*joiner));

    if (topic == NULL) {
        topic = mem_alloc(sizeof(*topic));
        topic->identity = identity;
        topic_add(&hub->topics, &topic->topic, key);
        place(hub, topic);
    }
    joiner->front = from;
    joiner->serial = serial;
    joiner->next = topic->joiners;
    topic->joiners = joiner;
    tell_if_confirmed(topic);
}

static void leave(struct hub *hub, const struct topic_key *key, uint64_t serial,
                  const struct front *from)
{
    struct topic *found = topic_find(&hub->topics, key);
    struct hub_topic *topic;
    struct joiner **at;

    if (found == NULL) {
        return;
    }
    topic = CONTAINER_OF(found, struct hub_topic, topic);
    at = &topic->joiners;
    while (*at != NULL && ((*at)->front != from || (*at)->serial != serial)) {
        at = &(*at)->next;
    }
    if (*at != NULL) {
        struct joiner *const joiner = *at;

        *at = joiner->next;
        mem_free(joiner);
    }
    if (topic->joiners == NULL) {
        free_topic(hub, topic);
    }
}

/* ---- what links tell ---- */

static void on_ping_reply(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                          bool is_first, bool is_last)
{
    struct hub_link *at = CONTAINER_OF(op, struct hub_link, ping);

    (void)index;
    (void)is_first;
    if (is_last) {
        at->is_ping_sent = false;
    }
    if (part.len > 0 && part.ptr[0] == '-') {
        (void)on_unasked(link, part); /* of a subscription; the PONG comes next */
    }
}

static void on_ping_lost(struct link_op *op, struct link *link, enum link_loss loss)
{
    (void)link;
    (void)loss;
    CONTAINER_OF(op, struct hub_link, ping)->is_ping_sent = false;
}

static void for_each_spot(struct hub_link *at, void (*fn)(struct spot *spot))
{
    for (struct topic *topic = topic_next(&at->hub->topics, NULL); topic != NULL;
         topic = topic_next(&at->hub->topics, topic)) {
        struct hub_topic *of = CONTAINER_OF(topic, struct hub_topic, topic);

        for (struct spot *spot = of->spots; spot != NULL; spot = spot->next) {
            if (spot->at == at) {
                fn(spot);
            }
        }
    }
}

static void on_up(struct link *link)
{
    for_each_spot(link->owner, send_spot);
}

static void want_again(struct spot *spot)
{
    stats_add(METRIC_resubscriptions, spot->state != SPOT_WANTED);
    set_state(spot, SPOT_WANTED);
}

static void forget_sent(struct hub_link *at)
{
    while (at->first_sent != NULL) {
        struct sent *const sent = at->first_sent;

        at->first_sent = sent->next;
        mem_free(sent);
    }
    at->last_sent = NULL;
}

static void on_down(struct link *link)
{
    struct hub_link *at = link->owner;

    forget_sent(at);
    while (at->leaving.n > 0) {
        has_left(at, topic_next(&at->leaving, NULL));
    }
    for_each_spot(at, want_again);
}

/* The subscription that was sent first among those whose answer has not come. */
static struct spot *take_sent(struct hub_link *at)
{
    struct sent *sent = at->first_sent;
    struct spot *spot;

    if (sent == NULL) {
        return NULL;
    }
    at->first_sent = sent->next;
    if (at->first_sent == NULL) {
        at->last_sent = NULL;
    }
    spot = sent->spot;
    mem_free(sent);
    return spot;
}

/* An error: of a subscription, as nothing else is asked here. */
static bool on_unasked(struct link *link, struct bytes frame)
{
    struct hub_link *at = link->owner;
    struct spot *spot;

    if (frame.ptr[0] != '-') {
        return true;
    }
    spot = take_sent(at);
    if (spot == NULL) {
        return true;
    }
    set_state(spot, SPOT_WANTED);
    if (bytes_start_with(frame, BYTES("-MOVED ")) ||
        bytes_start_with(frame, BYTES("-CLUSTERDOWN"))) {
        return true; /* the next tick, or the next map, tries again */
    }
    for (struct joiner *joiner = spot->topic->joiners; joiner != NULL; joiner = joiner->next) {
        if (!joiner->is_told) {
            tell(spot->topic, joiner, frame);
        }
    }
    return true;
}

struct message_mail {
    struct mail mail;
    struct front *front;
    const struct hub_events *events;
    struct hub_message *message;
    struct topic_key key; /* its name stands in the message */
};

static void on_message_mail(struct mail *arrived)
{
    struct message_mail *mail = CONTAINER_OF(arrived, struct message_mail, mail);

    mail->events->on_message(mail->front, &mail->key, mail->message);
    hub_message_unref(mail->message);
    mem_free(mail);
}

static void deliver(struct hub_topic *topic, const struct topic_key *key, struct bytes frame)
{
    struct hub_message *message = mem_try_alloc(sizeof(*message) + frame.len);
    struct topic_key inside = *key;

    if (message == NULL) {
        log_warn("proxy", "a message was lost: out of memory", NULL);
        return;
    }
    atomic_store_explicit(&message->n_refs, 1, memory_order_relaxed);
    message->len = frame.len;
    memcpy(message->frame, frame.ptr, frame.len);
    inside.name.ptr = message->frame + (key->name.ptr - frame.ptr);
    for (struct joiner *joiner = topic->joiners; joiner != NULL; joiner = joiner->next) {
        struct message_mail *mail = mem_alloc(sizeof(*mail));

        mail->mail.run = on_message_mail;
        mail->front = joiner->front;
        mail->events = joiner->front->hub->events;
        mail->message = message;
        mail->key = inside;
        atomic_fetch_add_explicit(&message->n_refs, 1, memory_order_relaxed);
        worker_post(&joiner->front->worker, &mail->mail);
    }
    hub_message_unref(message);
}

/* name: the channel or pattern it came by; channel: where it was published. */
static void take_message(struct hub_link *at, enum topic_kind kind, struct bytes name,
                         struct bytes channel, struct bytes frame)
{
    const struct topic_key key = {kind, at->identity != NULL ? at->identity->number : 0, name};
    struct topic *found = topic_find(&at->hub->topics, &key);
    struct hub_topic *topic;

    if (found == NULL) {
        return;
    }
    topic = CONTAINER_OF(found, struct hub_topic, topic);
    /* All nodes have ordinary messages; one of them is enough. */
    if (topic->spots != NULL && (topic->spots->at == at || is_event(channel))) {
        deliver(topic, &key, frame);
    }
}

static void confirm(struct hub_link *at)
{
    struct spot *spot = take_sent(at);

    if (spot != NULL && spot->state == SPOT_SENT) {
        set_state(spot, SPOT_ACTIVE);
        tell_if_confirmed(spot->topic);
    }
}

static void confirm_leave(struct hub_link *at, enum topic_kind kind, struct bytes name)
{
    const struct topic_key key = {kind, at->identity != NULL ? at->identity->number : 0, name};
    struct topic *leaving = topic_find(&at->leaving, &key);

    if (leaving != NULL) {
        has_left(at, leaving);
    }
}

/* The slot of a shard channel has left the node. */
static void take_away(struct hub_link *at, struct bytes name)
{
    const struct topic_key key = {TOPIC_SHARD, at->identity != NULL ? at->identity->number : 0,
                                  name};
    struct topic *found = topic_find(&at->hub->topics, &key);
    const struct coherence_fleet *fleet = at->hub->front->coherence.fleet;
    struct spot *spot;

    if (found == NULL) {
        return;
    }
    spot = spot_at(CONTAINER_OF(found, struct hub_topic, topic), at->node);
    if (spot != NULL && spot->state == SPOT_ACTIVE) {
        want_again(spot);
        fleet->request_refresh(fleet->refresh_context);
    }
}

static bool on_push(struct link *link, struct bytes frame)
{
    struct hub_link *at = link->owner;
    struct bytes rest = frame;
    struct resp_value head, kind, name, channel = {0}, payload = {0};

    if (!resp_next(&rest, &head) || head.n_children < 3 || !resp_next(&rest, &kind) ||
        !resp_next(&rest, &name) || kind.type != '$' || name.type != '$') {
        return false;
    }
    if (bytes_equal(kind.text, BYTES("message"))) {
        take_message(at, TOPIC_CHANNEL, name.text, name.text, frame);
    } else if (bytes_equal(kind.text, BYTES("smessage"))) {
        take_message(at, TOPIC_SHARD, name.text, name.text, frame);
    } else if (bytes_equal(kind.text, BYTES("pmessage")) && resp_next(&rest, &channel) &&
               resp_next(&rest, &payload)) {
        /* What proxies tell each other is none of the clients'. */
        if (!bus_is_message(channel.text, payload.text)) {
            take_message(at, TOPIC_PATTERN, name.text, channel.text, frame);
        }
    } else if (bytes_equal(kind.text, BYTES("subscribe")) ||
               bytes_equal(kind.text, BYTES("psubscribe")) ||
               bytes_equal(kind.text, BYTES("ssubscribe"))) {
        confirm(at);
    } else if (bytes_equal(kind.text, BYTES("unsubscribe"))) {
        confirm_leave(at, TOPIC_CHANNEL, name.text);
    } else if (bytes_equal(kind.text, BYTES("punsubscribe"))) {
        confirm_leave(at, TOPIC_PATTERN, name.text);
    } else if (bytes_equal(kind.text, BYTES("sunsubscribe"))) {
        confirm_leave(at, TOPIC_SHARD, name.text);
        take_away(at, name.text);
    }
    return true;
}

/* ---- from the workers ---- */

struct wish_mail {
    struct mail mail;
    struct hub *hub;
    struct front *from;
    const struct identity *identity;
    uint64_t serial;
    bool is_join;
    struct topic_key key;
    unsigned char name[];
};

static void on_wish(struct mail *arrived)
{
    struct wish_mail *mail = CONTAINER_OF(arrived, struct wish_mail, mail);

    if (mail->is_join) {
        join(mail->hub, mail->from, &mail->key, mail->identity, mail->serial);
    } else {
        leave(mail->hub, &mail->key, mail->serial, mail->from);
    }
    mem_free(mail);
}

/*
 * One home for all that a user hears: on one link, messages of several channels, and of a channel
 * and a pattern, stay in the order in which they were published. What one thread of Redis sends,
 * one worker can hand out.
 */
static void wish(struct front *from, const struct topic_key *key, const struct identity *identity,
                 uint64_t serial, bool is_join)
{
    struct proxy *proxy = from->proxy;
    struct front *home = &proxy->fronts[key->user % proxy->n_fronts];
    struct wish_mail *mail = mem_alloc(sizeof(*mail) + key->name.len + 1);

    mail->mail.run = on_wish;
    mail->hub = home->hub;
    mail->from = from;
    mail->identity = identity;
    mail->serial = serial;
    mail->is_join = is_join;
    mail->key = *key;
    mail->key.name = bytes_make(mail->name, key->name.len);
    if (key->name.len > 0) {
        memcpy(mail->name, key->name.ptr, key->name.len);
    }
    worker_post(&home->worker, &mail->mail);
}

void hub_join(struct front *from, const struct topic_key *key, const struct identity *identity,
              uint64_t serial)
{
    wish(from, key, identity, serial, true);
}

void hub_leave(struct front *from, const struct topic_key *key, uint64_t serial)
{
    wish(from, key, NULL, serial, false);
}

/* ---- time and the map ---- */

void hub_move(struct hub *hub)
{
    for (struct hub_link *at = hub->links; at != NULL; at = at->next) {
        const struct backend_node *node = backend_by_id(&hub->front->backend, at->node);

        if (node != NULL && node->info != NULL) {
            link_set_endpoint(&at->link, &node->info->endpoint);
        }
    }
    for (struct topic *topic = topic_next(&hub->topics, NULL); topic != NULL;
         topic = topic_next(&hub->topics, topic)) {
        place(hub, CONTAINER_OF(topic, struct hub_topic, topic));
    }
}

static void ping(struct hub_link *at, int64_t now_us)
{
    const struct bytes frame = BYTES(OWN_PING);

    if (at->is_ping_sent || !link_is_up(&at->link) || now_us - at->pinged_at_us < PING_PAUSE_US) {
        return;
    }
    at->pinged_at_us = now_us;
    at->is_ping_sent = link_send(&at->link, 0, &frame, 1, 1, &at->ping) == 0;
}

static void free_link(struct hub_link *at)
{
    forget_sent(at);
    while (at->leaving.n > 0) {
        has_left(at, topic_next(&at->leaving, NULL));
    }
    link_fini(&at->link);
    mem_free(at);
}

void hub_tick(struct hub *hub, int64_t now_us)
{
    struct hub_link **at = &hub->links;

    while (*at != NULL) {
        struct hub_link *const link = *at;

        if (link->n_spots == 0 && (link->leaving.n == 0 || !link_is_up(&link->link))) {
            *at = link->next;
            free_link(link);
            continue;
        }
        link_wake(&link->link);
        link_tick(&link->link, now_us);
        ping(link, now_us);
        at = &link->next;
    }
    /* What was refused for the moment, or taken away, is tried again. */
    for (struct hub_link *link = hub->links; link != NULL; link = link->next) {
        if (link->n_wanted > 0 && link_is_up(&link->link)) {
            for_each_spot(link, send_spot);
        }
    }
}

struct hub *hub_new(struct front *front, const struct hub_events *hub_events)
{
    struct hub *hub = mem_alloc(sizeof(*hub));

    hub->front = front;
    hub->events = hub_events;
    return hub;
}

void hub_free(struct hub **hub)
{
    struct hub *gone = *hub;

    *hub = NULL;
    while (gone->topics.n > 0) {
        free_topic(gone, CONTAINER_OF(topic_next(&gone->topics, NULL), struct hub_topic, topic));
    }
    while (gone->links != NULL) {
        struct hub_link *const at = gone->links;

        gone->links = at->next;
        free_link(at);
    }
    mem_free(gone);
}
