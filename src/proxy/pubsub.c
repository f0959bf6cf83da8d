#include "proxy/pubsub.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/stats.h"
#include "proxy/census.h"
#include "proxy/hub.h"
#include "proxy/request.h"
#include "upstream/identity.h"

#include <limits.h>
#include <stdio.h>

/* A name that sessions of this worker are subscribed to. */
struct local_topic {
    struct topic topic;
    struct subscription **subscriptions;
    unsigned n, capacity;
    uint64_t serial;
    bool is_joined; /* the backend has confirmed */
};

struct subscription {
    struct topic topic; /* of the session's table */
    struct session *session;
    struct local_topic *local;
    unsigned index; /* in its subscriptions */
    bool is_waiting;
};

/* A SUBSCRIBE whose reply waits for the backend. */
struct pending {
    struct request *request;
    struct buffer reply;
    struct subscription **added; /* by this command */
    unsigned n_added, n_waiting;
    int64_t deadline_us;
};

struct subscriber {
    struct subscriber *next, *prev; /* of the front's, while it waits */
    struct topic_table table;
    unsigned n[N_TOPIC_KINDS];
    struct pending pending; /* request is NULL: none */
};

static const char *const subscribe_words[N_TOPIC_KINDS] = {"subscribe", "psubscribe", "ssubscribe"};
static const char *const unsubscribe_words[N_TOPIC_KINDS] = {"unsubscribe", "punsubscribe",
                                                             "sunsubscribe"};

/* ---- replies ---- */

static unsigned count_of(const struct subscriber *subscriber, enum topic_kind kind)
{
    if (subscriber == NULL) {
        return 0;
    }
    return kind == TOPIC_SHARD ? subscriber->n[TOPIC_SHARD]
                               : subscriber->n[TOPIC_CHANNEL] + subscriber->n[TOPIC_PATTERN];
}

/* name: NULL pointer for none. */
static void put_change(struct resp_writer *writer, const char *word, const struct bytes *name,
                       unsigned count)
{
    resp_put_raw(writer, writer->is_resp3 ? BYTES(">3\r\n") : BYTES("*3\r\n"));
    resp_put_string(writer, word);
    if (name != NULL) {
        resp_put_bulk(writer, *name);
    } else {
        resp_put_null(writer);
    }
    resp_put_integer(writer, count);
}

/* ---- one subscription ---- */

static struct local_topic *local_of(struct session *session, const struct topic_key *key)
{
    struct front *front = session->front;
    struct topic *found = topic_find(&front->topics, key);
    struct local_topic *local;

    if (found != NULL) {
        return CONTAINER_OF(found, struct local_topic, topic);
    }
    local = mem_alloc(sizeof(*local));
    local->serial = ++front->topic_serial;
    topic_add(&front->topics, &local->topic, key);
    hub_join(front, key, session->identity, local->serial);
    return local;
}

static struct subscription *subscribe(struct session *session, const struct topic_key *key)
{
    struct subscriber *subscriber = session->subscriber;
    struct local_topic *local = local_of(session, key);
    struct subscription *subscription = mem_alloc(sizeof(*subscription));

    if (local->n == local->capacity) {
        const unsigned capacity = local->capacity == 0 ? 2 : 2 * local->capacity;

        /* A pointer per subscription. */
        local->subscriptions = mem_realloc(local->subscriptions,
                                           capacity * sizeof(struct subscription *));
        local->capacity = capacity;
    }
    subscription->session = session;
    subscription->local = local;
    subscription->index = local->n;
    subscription->is_waiting = !local->is_joined;
    local->subscriptions[local->n++] = subscription;
    topic_add(&subscriber->table, &subscription->topic, key);
    subscriber->n[key->kind]++;
    census_count(key, 1);
    return subscription;
}

static void unsubscribe(struct subscription *subscription)
{
    struct session *session = subscription->session;
    struct local_topic *local = subscription->local;
    struct subscription *last = local->subscriptions[--local->n];

    local->subscriptions[subscription->index] = last;
    last->index = subscription->index;
    census_count(&local->topic.key, -1);
    if (local->n == 0) {
        hub_leave(session->front, &local->topic.key, local->serial);
        topic_remove(&session->front->topics, &local->topic);
        mem_free(local->subscriptions);
        mem_free(local);
    }
    session->subscriber->n[subscription->topic.key.kind]--;
    topic_remove(&session->subscriber->table, &subscription->topic);
    mem_free(subscription);
}

/* ---- waiting for the backend ---- */

static void enlist_pending(struct front *front, struct subscriber *subscriber)
{
    subscriber->prev = NULL;
    subscriber->next = front->waiting_subscribers;
    if (subscriber->next != NULL) {
        subscriber->next->prev = subscriber;
    }
    front->waiting_subscribers = subscriber;
}

static void end_pending(struct front *front, struct subscriber *subscriber)
{
    struct pending *pending = &subscriber->pending;

    if (subscriber->prev != NULL) {
        subscriber->prev->next = subscriber->next;
    } else {
        front->waiting_subscribers = subscriber->next;
    }
    if (subscriber->next != NULL) {
        subscriber->next->prev = subscriber->prev;
    }
    buffer_fini(&pending->reply);
    mem_free(pending->added);
    *pending = (struct pending){0};
}

static void free_if_empty(struct session *session)
{
    struct subscriber *subscriber = session->subscriber;

    if (subscriber->table.n == 0 && subscriber->pending.request == NULL) {
        mem_free(subscriber);
        session->subscriber = NULL;
    }
}

static void finish(struct session *session)
{
    struct pending *pending = &session->subscriber->pending;
    struct request *request = pending->request;

    request->is_muted = false; /* a message, and no reply: CLIENT REPLY OFF lets it pass */
    request_take_part(request, buffer_bytes(&pending->reply));
    end_pending(session->front, session->subscriber);
    request_done(request);
}

/* error: a whole error frame. What this command subscribed to is taken back. */
static void fail(struct session *session, struct bytes error)
{
    struct pending *pending = &session->subscriber->pending;
    struct request *request = pending->request;

    for (unsigned i = 0; i < pending->n_added; i++) {
        unsubscribe(pending->added[i]);
    }
    end_pending(session->front, session->subscriber);
    free_if_empty(session);
    request_take_part(request, error);
    request_done(request);
}

static void on_joined(struct front *front, const struct topic_key *key, uint64_t serial,
                      struct bytes error)
{
    struct topic *found = topic_find(&front->topics, key);
    struct local_topic *local = found != NULL ? CONTAINER_OF(found, struct local_topic, topic)
                                              : NULL;

    if (local == NULL || local->serial != serial) {
        return;
    }
    if (error.len == 0) {
        local->is_joined = true;
        for (unsigned i = 0; i < local->n; i++) {
            struct subscription *subscription = local->subscriptions[i];
            struct pending *pending = &subscription->session->subscriber->pending;

            if (!subscription->is_waiting) {
                continue;
            }
            subscription->is_waiting = false;
            if (--pending->n_waiting == 0) {
                finish(subscription->session);
                /* A client that cannot take its reply is closed, and its subscriptions go. */
                if (topic_find(&front->topics, key) != found) {
                    return;
                }
                i = UINT_MAX; /* from the beginning */
            }
        }
        return;
    }
    /* Each takes its subscriptions back; with the last one the topic goes. */
    while (found != NULL && local->n > 0) {
        const bool is_last = local->n == 1;

        fail(local->subscriptions[local->n - 1]->session, error);
        found = is_last ? NULL : topic_find(&front->topics, key);
    }
}

static void on_message(struct front *front, const struct topic_key *key,
                       const struct hub_message *message)
{
    struct topic *found = topic_find(&front->topics, key);
    const struct bytes frame = bytes_make(message->frame, message->len);
    struct local_topic *local;
    unsigned i = 0;

    if (found == NULL) {
        return;
    }
    local = CONTAINER_OF(found, struct local_topic, topic);
    stats_add(METRIC_messages, local->n);
    /* A session that is closed over it leaves the list: the last one takes its place. */
    while (i < local->n) {
        struct subscription *const subscription = local->subscriptions[i];
        const bool is_last = local->n == 1;
        const bool is_open = session_push(subscription->session, frame);

        if (!is_open && is_last) {
            return;
        }
        i += is_open;
    }
}

const struct hub_events pubsub_hub_events = {on_joined, on_message};

void pubsub_tick(struct front *front, int64_t now_us)
{
    struct subscriber *subscriber = front->waiting_subscribers;

    while (subscriber != NULL) {
        struct subscriber *const next = subscriber->next;

        if (now_us > subscriber->pending.deadline_us) {
            stats_add(METRIC_errors_timeout, 1);
            fail(
                subscriber->pending.request->session,
                BYTES("-ERR nearcached: the backend did not confirm the subscription in time\r\n"));
        }
        subscriber = next;
    }
}

/* ---- commands ---- */

static struct topic_key key_of(const struct session *session, enum topic_kind kind,
                               struct bytes name)
{
    return (struct topic_key){kind, session->identity != NULL ? session->identity->number : 0,
                              name};
}

static enum verdict subscribe_all(struct session *session, const struct dispatch_call *call,
                                  enum topic_kind kind)
{
    struct front *front = session->front;
    struct subscriber *subscriber;
    struct pending *pending;
    struct resp_writer writer;

    if (session->subscriber == NULL) {
        session->subscriber = mem_alloc(sizeof(*subscriber));
    }
    subscriber = session->subscriber;
    if (subscriber->table.n + call->argc - 1 > (unsigned)front->config->client_subscriptions) {
        free_if_empty(session);
        session_error(session, "ERR nearcached: more subscriptions than client-subscriptions");
        return VERDICT_TAKEN;
    }
    pending = &subscriber->pending;
    buffer_init(&pending->reply);
    writer = (struct resp_writer){.out = &pending->reply, .is_resp3 = session->proto == 3};
    pending->added = mem_alloc(call->argc * sizeof(struct subscription *));
    for (unsigned i = 1; i < call->argc; i++) {
        const struct topic_key key = key_of(session, kind, call->argv[i]);
        struct topic *found = topic_find(&subscriber->table, &key);

        if (found == NULL) {
            struct subscription *subscription = subscribe(session, &key);

            pending->added[pending->n_added++] = subscription;
            pending->n_waiting += subscription->is_waiting;
        }
        put_change(&writer, subscribe_words[kind], &call->argv[i], count_of(subscriber, kind));
    }
    pending->deadline_us = clock_now_us() + front->config->request_timeout_ms * 1000;
    pending->request = request_queue(session, REQUEST_LOCAL, call->command);
    pending->request->suspends = true;
    session_suspend(session, false);
    enlist_pending(front, subscriber);
    if (writer.has_failed) {
        fail(session, BYTES("-ERR nearcached: out of memory\r\n"));
    } else if (pending->n_waiting == 0) {
        finish(session);
    }
    return VERDICT_TAKEN;
}

static void unsubscribe_name(struct session *session, struct resp_writer *writer,
                             enum topic_kind kind, struct bytes name)
{
    const struct topic_key key = key_of(session, kind, name);
    struct topic *found = session->subscriber != NULL
                              ? topic_find(&session->subscriber->table, &key)
                              : NULL;
    unsigned count = count_of(session->subscriber, kind);

    if (found != NULL) {
        count--;
    }
    put_change(writer, unsubscribe_words[kind], &name, count);
    if (found != NULL) {
        unsubscribe(CONTAINER_OF(found, struct subscription, topic));
    }
}

static void unsubscribe_kind(struct session *session, struct resp_writer *writer,
                             enum topic_kind kind)
{
    struct topic *at = session->subscriber != NULL ? topic_next(&session->subscriber->table, NULL)
                                                   : NULL;
    bool is_any = false;

    while (at != NULL) {
        struct topic *const next = topic_next(&session->subscriber->table, at);

        if (at->key.kind == kind) {
            is_any = true;
            unsubscribe_name(session, writer, kind, at->key.name);
        }
        at = next;
    }
    if (!is_any) {
        put_change(writer, unsubscribe_words[kind], NULL, count_of(session->subscriber, kind));
    }
}

static enum verdict unsubscribe_all(struct session *session, const struct dispatch_call *call,
                                    enum topic_kind kind)
{
    struct buffer reply;
    struct resp_writer writer = {.out = &reply, .is_resp3 = session->proto == 3};

    buffer_init(&reply);
    if (call->argc == 1) {
        unsubscribe_kind(session, &writer, kind);
    }
    for (unsigned i = 1; i < call->argc; i++) {
        unsubscribe_name(session, &writer, kind, call->argv[i]);
    }
    if (session->subscriber != NULL) {
        free_if_empty(session);
    }
    if (writer.has_failed) {
        session_close(session);
    } else {
        /* Messages, and no reply: CLIENT REPLY OFF lets them pass. Nothing is owed before them. */
        (void)session_push(session, buffer_bytes(&reply));
    }
    buffer_fini(&reply);
    return VERDICT_TAKEN;
}

static bool is_cross_slot(const struct session *session, const struct dispatch_call *call)
{
    for (unsigned i = 2; dispatch_is_cluster(session->front) && i < call->argc; i++) {
        if (command_key_slot(call->argv[i]) != command_key_slot(call->argv[1])) {
            return true;
        }
    }
    return false;
}

enum verdict pubsub_dispatch(struct session *session, const struct dispatch_call *call)
{
    const char *name = call->command->name;
    const enum topic_kind kind = name[0] == 'p'                      ? TOPIC_PATTERN
                                 : name[0] == 's' && name[1] == 's'  ? TOPIC_SHARD
                                 : strcmp(name, "sunsubscribe") == 0 ? TOPIC_SHARD
                                                                     : TOPIC_CHANNEL;
    const bool is_end = strstr(name, "unsubscribe") != NULL;

    /* What was asked before is answered before, and its replies are not mixed with messages. */
    if (session->first != NULL) {
        return VERDICT_STALL;
    }
    if (kind == TOPIC_SHARD && is_cross_slot(session, call)) {
        stats_add(METRIC_errors_crossslot, 1);
        session_error(session, "CROSSSLOT Keys in request don't hash to the same slot");
        return VERDICT_TAKEN;
    }
    return is_end ? unsubscribe_all(session, call, kind) : subscribe_all(session, call, kind);
}

bool pubsub_restricts(struct session *session, const struct dispatch_call *call)
{
    const struct command *command = call->command;
    struct resp_writer writer;
    char name[COMMAND_NAME_MAX + 1];

    if (session->proto == 3 || session->subscriber->table.n == 0) {
        return false;
    }
    if (command == NULL || !command_arity_fits(command, call->argc)) {
        return false; /* that error comes first */
    }
    if (command->handler == HANDLER_pubsub || command->handler == HANDLER_quit ||
        command->handler == HANDLER_reset || (command->handler == HANDLER_ping && call->argc > 2)) {
        return false;
    }
    if (command->handler == HANDLER_ping) {
        writer = session_begin_reply(session);
        resp_put_array(&writer, 2);
        resp_put_string(&writer, "pong");
        resp_put_bulk(&writer, call->argc == 2 ? call->argv[1] : BYTES(""));
        session_end_reply(session, &writer);
        return true;
    }
    snprintf(name, sizeof(name), "%s", command->name);
    for (char *at = name; *at != '\0'; at++) {
        *at = *at == ' ' ? '|' : *at;
    }
    session_error(session,
                  "ERR Can't execute '%s': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / "
                  "RESET are allowed in this context",
                  name);
    return true;
}

void pubsub_end(struct session *session)
{
    struct subscriber *subscriber = session->subscriber;

    if (subscriber == NULL) {
        return;
    }
    while (subscriber->table.n > 0) {
        unsubscribe(CONTAINER_OF(topic_next(&subscriber->table, NULL), struct subscription, topic));
    }
    if (subscriber->pending.request != NULL) {
        struct request *const request = subscriber->pending.request;

        end_pending(session->front, subscriber);
        request_done(request); /* an orphan: the client is gone */
    }
    mem_free(subscriber);
    session->subscriber = NULL;
}

unsigned pubsub_count(const struct session *session, enum topic_kind kind)
{
    return session->subscriber != NULL ? session->subscriber->n[kind] : 0;
}
