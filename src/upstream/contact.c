/*
 * One timer per contact serves whatever its state waits for: the end of a pause, the next INFO of a
 * server that loads its data, the next poll.
 */
#include "upstream/contact.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/stats.h"
#include "upstream/info_text.h"
#include "upstream/tracking_tables.h"

#include <event2/util.h>
#include <stdio.h>
#include <stdlib.h>

#define CONTACT_MAGIC 0x636e7463u /* "cntc" */
/* Between two look-ups of a name that is not being connected to. */
#define LOCATE_PAUSE_MS 2000
/* Between two looks at how full the node's tracking table is. */
#define TRACKING_PAUSE_MS 5000

/* ---- words of servers ---- */

static bool error_is(const struct resp_value *head, const char *code)
{
    return head->type == '-' && bytes_start_with(head->text, bytes_of_string(code));
}

/* The server cannot answer yet, or just now; the connection is good. */
static bool is_passing(const struct resp_value *head)
{
    return error_is(head, "LOADING ") || error_is(head, "BUSY ") || error_is(head, "MASTERDOWN ") ||
           error_is(head, "TRYAGAIN ");
}

static void copy_field(struct bytes info, const char *name, char *out, size_t size)
{
    struct bytes field = {NULL, 0};

    (void)info_text_find(info, name, &field);
    if (field.len >= size) {
        field.len = size - 1;
    }
    if (field.len > 0) {
        memcpy(out, field.ptr, field.len);
    }
    out[field.len] = '\0';
}

static bool field_is(struct bytes info, const char *name, const char *wanted)
{
    struct bytes field;

    return info_text_find(info, name, &field) && bytes_equal(field, bytes_of_string(wanted));
}

/* False where there is no such version. */
static bool is_at_least(const char *version, unsigned major, unsigned minor)
{
    unsigned has_major, has_minor;

    if (sscanf(version, "%u.%u", &has_major, &has_minor) != 2) {
        return false;
    }
    return has_major != major ? has_major > major : has_minor >= minor;
}

/* ---- telling ---- */

static void tell(struct contact *contact)
{
    contact->watch->on_news(contact, contact->watch->context);
}

static void set_error(struct contact *contact, const char *reason)
{
    snprintf(contact->error, sizeof(contact->error), "%.90s: %.100s", contact->name, reason);
}

static void copy_words(const struct resp_value *head, char *out, size_t size)
{
    snprintf(out, size, "%.*s", (int)head->text.len, (const char *)head->text.ptr);
}

/* What an operator must do; once for each wording, as the server is asked again and again. */
static void log_refusal(struct contact *contact, const char *words)
{
    const char *msg = "the backend refuses the login: check backend-user and backend-password";

    if (strncmp(contact->refusal, words, sizeof(contact->refusal) - 1) == 0) {
        return;
    }
    contact->refusal[0] = '\0';
    strncat(contact->refusal, words, sizeof(contact->refusal) - 1);
    if (strncmp(words, "NOAUTH", 6) == 0) {
        msg = "the backend wants a password: set backend-password or put it into the backend's URL";
    } else if (strncmp(words, "NOPERM", 6) == 0) {
        msg = "the backend's user lacks permissions: allow INFO, COMMAND, PING and CLUSTER";
    }
    log_error("upstream", msg, "addr=%s error=%s", contact->name,
              log_quote(bytes_of_string(contact->refusal)));
}

static void log_lost(const struct contact *contact, const char *reason, bool was_up)
{
    const struct bytes text = bytes_of_string(reason);

    if (was_up) {
        log_warn("upstream", "node lost", "addr=%s error=%s", contact->name, log_quote_long(text));
    } else if (contact->n_failures == 0) {
        log_warn("upstream", "node cannot be reached", "addr=%s error=%s", contact->name,
                 log_quote_long(text));
    } else {
        log_debug("upstream", "node still cannot be reached", "addr=%s error=%s failures=%u",
                  contact->name, log_quote_long(text), contact->n_failures);
    }
}

/* ---- losing and waiting ---- */

static void arm(struct contact *contact, int64_t delay_ms)
{
    const struct timeval delay = {.tv_sec = delay_ms / 1000, .tv_usec = delay_ms % 1000 * 1000};

    event_add(contact->timer, &delay);
}

/* Doubles with each failure; between half of it and all, so that many proxies do not come at once.
 */
static int64_t backoff(const struct contact *contact)
{
    int64_t delay_ms = contact->watch->reconnect_min_ms;
    uint32_t random;

    for (unsigned i = 1; i < contact->n_failures && delay_ms < contact->watch->reconnect_max_ms;
         i++) {
        delay_ms *= 2;
    }
    if (delay_ms > contact->watch->reconnect_max_ms) {
        delay_ms = contact->watch->reconnect_max_ms;
    }
    evutil_secure_rng_get_bytes(&random, sizeof(random));
    return delay_ms - (int64_t)(random % (uint64_t)(delay_ms / 2 + 1));
}

static void drop_map(struct contact *contact)
{
    topology_unref(&contact->map);
    mem_free(contact->slots_bytes);
    contact->slots_bytes = NULL;
    contact->n_slots_bytes = 0;
    contact->map_changed_at_ms = 0;
}

static void disconnect(struct contact *contact)
{
    resolver_cancel(&contact->query);
    control_client_close(contact->client);
    event_del(contact->timer);
    drop_map(contact);
    contact->n_asked = 0;
    contact->wants_again = false;
    contact->slots_at_ms = 0;
    contact->tracking_at_ms = 0;
    contact->tells_no_limit = false;
    contact->replicas.n = contact->replicas.n_samples = 0;
}

static void lose(struct contact *contact, const char *reason)
{
    const bool has_other = contact->state == CONTACT_CONNECTING &&
                           contact->candidate_at + 1 < contact->n_candidates;

    set_error(contact, reason);
    if (!has_other) {
        log_lost(contact, reason, contact->state == CONTACT_UP);
    }
    disconnect(contact);
    contact->state = CONTACT_WAITING;
    if (has_other) {
        contact->candidate_at++;
        arm(contact, 0);
    } else {
        /* None left: the name is resolved anew. */
        contact->n_candidates = contact->candidate_at = 0;
        contact->n_failures++;
        arm(contact, backoff(contact));
    }
    tell(contact);
}

static void refuse(struct contact *contact, const char *words)
{
    log_refusal(contact, words);
    lose(contact, words);
}

static void on_down(const char *reason, bool is_refused, void *context)
{
    struct contact *contact = OBJ_FROM(context, struct contact, CONTACT_MAGIC);

    if (is_refused) {
        refuse(contact, reason);
    } else {
        lose(contact, reason);
    }
}

/* ---- polling ---- */

static void poll_server(struct contact *contact, bool needs_map);

static void note_answer(struct contact *contact)
{
    contact->answered_at_ms = clock_now_ms();
    contact->error[0] = '\0';
}

static void note_error(struct contact *contact, const struct resp_value *head)
{
    char words[128];

    copy_words(head, words, sizeof(words));
    set_error(contact, words);
    if (error_is(head, "NOPERM") || error_is(head, "NOAUTH")) {
        log_refusal(contact, words);
    }
}

static void end_reply(struct contact *contact)
{
    int64_t next_ms;

    /* 0: the connection was given up over this reply. */
    if (contact->n_asked == 0 || --contact->n_asked > 0) {
        return;
    }
    if (contact->wants_again) {
        contact->wants_again = false;
        poll_server(contact, true);
    } else {
        next_ms = contact->polled_at_ms + contact->watch->poll_ms - clock_now_ms();
        arm(contact, next_ms > 0 ? next_ms : 1);
    }
    tell(contact);
}

static void on_cluster_info(const struct resp_value *head, struct bytes reply, void *context)
{
    struct contact *contact = OBJ_FROM(context, struct contact, CONTACT_MAGIC);
    struct bytes field;
    int64_t epoch;

    (void)reply;
    if (head->type == '$' && info_text_find(head->text, "cluster_state", &field)) {
        contact->says_fail = !bytes_equal(field, BYTES("ok"));
        contact->heard_epoch = 0;
        if (info_text_find(head->text, "cluster_current_epoch", &field) &&
            bytes_to_int64(field, &epoch) && epoch > 0) {
            contact->heard_epoch = (uint64_t)epoch;
        }
        /* A new epoch means a new map: not only when the next one is due. */
        contact->wants_again |= contact->heard_epoch != contact->epoch && contact->n_asked == 1;
        note_answer(contact);
    } else if (error_is(head, "NOPERM")) {
        /* It lives; what it thinks of the cluster stays unknown. */
        note_answer(contact);
        note_error(contact, head);
    } else if (head->type == '-') {
        note_error(contact, head);
    }
    end_reply(contact);
}

/* Most readings of the map bring the very bytes of the last one. */
static bool is_same_reply(const struct contact *contact, struct bytes reply)
{
    return contact->map != NULL &&
           bytes_equal(reply, bytes_make(contact->slots_bytes, contact->n_slots_bytes));
}

static void take_map(struct contact *contact, struct topology *map, struct bytes reply)
{
    const bool has_changed = contact->map != NULL && !topology_equal(contact->map, map);
    const int64_t changed_at_ms = has_changed ? clock_now_ms() : contact->map_changed_at_ms;

    drop_map(contact);
    contact->map = map;
    contact->map_changed_at_ms = changed_at_ms;
    contact->slots_bytes = mem_try_alloc(reply.len);
    if (contact->slots_bytes != NULL) {
        memcpy(contact->slots_bytes, reply.ptr, reply.len);
        contact->n_slots_bytes = reply.len;
    }
}

static void miss_map(struct contact *contact, const char *reason)
{
    drop_map(contact);
    set_error(contact, reason);
    if (!contact->is_mapless) {
        contact->is_mapless = true;
        log_warn("upstream", "node has no cluster map", "addr=%s error=%s", contact->name,
                 log_quote(bytes_of_string(reason)));
    }
}

static void on_cluster_slots(const struct resp_value *head, struct bytes reply, void *context)
{
    struct contact *contact = OBJ_FROM(context, struct contact, CONTACT_MAGIC);
    struct topology *map;

    if (head->type == '-') {
        note_error(contact, head);
        end_reply(contact);
        return;
    }
    stats_add(METRIC_topology_refreshes, 1);
    /* Now, not with CLUSTER INFO: an epoch must never stand beside a map older than itself. */
    contact->epoch = contact->heard_epoch;
    if (!is_same_reply(contact, reply)) {
        /* A server on a Unix socket that does not know its own address is on this host. */
        map = topology_from_slots(reply, contact->host[0] != '\0' ? contact->host : "127.0.0.1",
                                  contact->watch->map);
        if (map != NULL) {
            contact->is_mapless = false;
            take_map(contact, map, reply);
        } else {
            miss_map(contact, head->n_children == 0 ? "the cluster has no slots assigned"
                                                    : "CLUSTER SLOTS makes no sense");
        }
    }
    end_reply(contact);
}

static void on_pong(const struct resp_value *head, struct bytes reply, void *context)
{
    struct contact *contact = OBJ_FROM(context, struct contact, CONTACT_MAGIC);

    (void)reply;
    if (head->type != '-' || error_is(head, "NOPERM")) {
        note_answer(contact);
    } else {
        note_error(contact, head);
    }
    end_reply(contact);
}

/* ---- names ---- */

static bool is_time_to_locate(const struct contact *contact)
{
    return contact->is_name && contact->query == NULL &&
           clock_now_ms() - contact->located_at_ms >= LOCATE_PAUSE_MS;
}

static void locate(struct contact *contact, resolver_answer_fn on_answer)
{
    contact->located_at_ms = clock_now_ms();
    contact->query = resolver_ask(contact->watch->resolver, contact->host, contact->port, on_answer,
                                  contact);
}

static void on_located(const struct endpoint *endpoints, unsigned n_endpoints, const char *error,
                       void *context)
{
    struct contact *contact = OBJ_FROM(context, struct contact, CONTACT_MAGIC);

    (void)n_endpoints;
    contact->query = NULL;
    if (error == NULL && contact->state == CONTACT_IDLE) {
        contact->endpoint = endpoints[0];
        contact->is_resolved = true;
        tell(contact);
    }
}

void contact_locate(struct contact *contact)
{
    if (contact->state == CONTACT_IDLE && is_time_to_locate(contact)) {
        locate(contact, on_located);
    }
}

static void on_replica_located(const struct endpoint *endpoints, unsigned n_endpoints,
                               const char *error, void *context)
{
    struct contact *contact = OBJ_FROM(context, struct contact, CONTACT_MAGIC);

    contact->query = NULL;
    for (unsigned i = 0; i < n_endpoints; i++) {
        if (strcmp(endpoints[i].text, contact->endpoint.text) == 0) {
            return;
        }
    }
    if (error == NULL && contact->state == CONTACT_UP) {
        lose(contact, "the name of this replica leads elsewhere now");
    }
}

/*
 * A managed Redis moves its name to the new master when it fails over, at once or a while later.
 * While a named server is a replica its name is asked for again; one that is meant to be a replica
 * keeps its address, and is kept.
 */
static void take_role(struct contact *contact, struct bytes info)
{
    const bool was_replica = contact->is_replica;

    contact->is_replica = field_is(info, "role", "slave");
    if (contact->is_replica && !was_replica) {
        log_warn("upstream", "the backend is a replica: it may refuse writes", "addr=%s",
                 contact->name);
        contact->located_at_ms = 0;
    }
    if (contact->is_replica && contact->state == CONTACT_UP && is_time_to_locate(contact)) {
        locate(contact, on_replica_located);
    }
}

/* The writes executed before the question was sent are part of what its answer counts. */
static void take_replicas(struct contact *contact, struct bytes info)
{
    if (contact->watch->wants_replicas && field_is(info, "role", "master")) {
        replicas_take(&contact->replicas, info, contact->polled_at_ms * 1000, contact->watch->map);
    } else {
        contact->replicas.n = contact->replicas.n_samples = 0;
    }
}

static void on_replication(const struct resp_value *head, struct bytes reply, void *context)
{
    struct contact *contact = OBJ_FROM(context, struct contact, CONTACT_MAGIC);

    (void)reply;
    if (head->type == '$') {
        if (!contact->is_cluster) {
            take_role(contact, head->text);
        }
        take_replicas(contact, head->text);
    }
    end_reply(contact);
}

static void ask(struct contact *contact, const char *command, const char *argument,
                control_reply_fn on_reply)
{
    const char *argv[2] = {command, argument};

    control_client_send(contact->client, argv, argument != NULL ? 2 : 1, on_reply);
}

static void on_stats(const struct resp_value *head, struct bytes reply, void *context)
{
    struct contact *contact = OBJ_FROM(context, struct contact, CONTACT_MAGIC);
    struct bytes field;
    int64_t n_keys;

    (void)reply;
    if (head->type == '$' && info_text_find(head->text, "tracking_total_keys", &field) &&
        bytes_to_int64(field, &n_keys) && n_keys >= 0) {
        tracking_tables_note_keys(topology_node_number(contact->host, contact->port),
                                  (uint64_t)n_keys);
    }
    end_reply(contact);
}

static void on_table_limit(const struct resp_value *head, struct bytes reply, void *context)
{
    struct contact *contact = OBJ_FROM(context, struct contact, CONTACT_MAGIC);
    struct resp_value value = {0};
    int64_t limit;

    /* A refusal is final: each one stands in the server's ACL LOG. */
    contact->tells_no_limit = head->type == '-';
    if (head->type == '*' && head->n_children == 2 && resp_next(&reply, &value) &&
        resp_skip(&reply) && resp_next(&reply, &value) && bytes_to_int64(value.text, &limit) &&
        limit >= 0) {
        tracking_tables_note_limit(topology_node_number(contact->host, contact->port),
                                   (uint64_t)limit);
    }
    end_reply(contact);
}

static void ask_for_tracking(struct contact *contact, int64_t now_ms)
{
    static const char *const limit[] = {"CONFIG", "GET", "tracking-table-max-keys"};

    if (contact->is_cluster && !contact->is_in_map) { /* it has no number there */
        return;
    }
    if (contact->tracking_at_ms != 0 && now_ms - contact->tracking_at_ms < TRACKING_PAUSE_MS) {
        return;
    }
    contact->tracking_at_ms = now_ms;
    contact->n_asked++;
    ask(contact, "INFO", "stats", on_stats);
    if (!contact->tells_no_limit) {
        contact->n_asked++;
        control_client_send(contact->client, limit, 3, on_table_limit);
    }
}

static void poll_server(struct contact *contact, bool needs_map)
{
    const int64_t now_ms = clock_now_ms();

    event_del(contact->timer);
    contact->polled_at_ms = now_ms;
    contact->n_asked = 1;
    if (!contact->is_cluster) {
        contact->n_asked = 2;
        ask(contact, "PING", NULL, on_pong);
        ask(contact, "INFO", "replication", on_replication);
        ask_for_tracking(contact, now_ms);
        return;
    }
    if (contact->watch->wants_replicas) {
        contact->n_asked = 2;
        ask(contact, "INFO", "replication", on_replication);
    }
    ask_for_tracking(contact, now_ms);
    /* In this order the epoch may be older than the map that it stands for, but not newer. */
    ask(contact, "CLUSTER", "INFO", on_cluster_info);
    if (needs_map || contact->map == NULL ||
        now_ms - contact->slots_at_ms >= contact->watch->slots_ms - contact->watch->poll_ms / 2) {
        contact->n_asked++;
        contact->slots_at_ms = now_ms;
        ask(contact, "CLUSTER", "SLOTS", on_cluster_slots);
    }
}

void contact_poll(struct contact *contact)
{
    if (contact->state != CONTACT_UP) {
        return;
    }
    if (contact->n_asked > 0) {
        contact->wants_again = true;
    } else {
        poll_server(contact, true);
    }
}

/* ---- getting to know the server ---- */

static void on_commands(const struct resp_value *head, struct bytes reply, void *context)
{
    struct contact *contact = OBJ_FROM(context, struct contact, CONTACT_MAGIC);
    struct command_set *learnt = NULL;
    char words[128];

    if (head->type == '*') {
        learnt = command_set_from_reply(reply);
    }
    if (learnt != NULL) {
        contact->watch->on_commands(contact, learnt, contact->watch->context);
        return;
    }
    copy_words(head, words, sizeof(words));
    log_warn("upstream", "the backend's commands cannot be read", "addr=%s error=%s", contact->name,
             log_quote(bytes_of_string(head->type == '-' ? words : "malformed")));
}

static void come_up(struct contact *contact)
{
    contact->state = CONTACT_UP;
    contact->n_failures = 0;
    contact->is_loading = false;
    contact->is_known = true;
    log_info("upstream", "node answers", "addr=%s version=%s mode=%s role=%s", contact->name,
             contact->version[0] != '\0' ? log_quote(bytes_of_string(contact->version)) : "unknown",
             contact->is_cluster ? "cluster" : "standalone",
             contact->is_replica ? "replica" : "master");
    if (contact->watch->wants_commands(contact, contact->watch->context)) {
        ask(contact, "COMMAND", NULL, on_commands);
    }
    poll_server(contact, true);
    tell(contact);
}

/* INFO is not allowed to us: CLUSTER INFO tells at least whether this is a cluster. */
static void on_guess(const struct resp_value *head, struct bytes reply, void *context)
{
    struct contact *contact = OBJ_FROM(context, struct contact, CONTACT_MAGIC);
    struct bytes field;

    (void)reply;
    contact->version[0] = contact->run_id[0] = '\0';
    contact->has_field_ttl = true; /* for all we know */
    contact->is_cluster = head->type == '$' && info_text_find(head->text, "cluster_state", &field);
    come_up(contact);
}

static void read_info(struct contact *contact, struct bytes info)
{
    char valkey[32];

    copy_field(info, "redis_version", contact->version, sizeof(contact->version));
    copy_field(info, "run_id", contact->run_id, sizeof(contact->run_id));
    /* Valkey calls itself Redis 7.2.4 for ever, and has field TTLs since its own 9.0. */
    copy_field(info, "valkey_version", valkey, sizeof(valkey));
    contact->has_field_ttl = contact->version[0] == '\0' || is_at_least(contact->version, 7, 4) ||
                             is_at_least(valkey, 9, 0);
    contact->is_cluster = field_is(info, "cluster_enabled", "1") ||
                          field_is(info, "redis_mode", "cluster");
    if (contact->is_cluster) {
        contact->is_replica = field_is(info, "role", "slave");
    } else {
        take_role(contact, info);
    }
}

static void wait_for_data(struct contact *contact, const char *words)
{
    set_error(contact, words);
    if (!contact->is_loading) {
        contact->is_loading = true;
        log_info("upstream", "node is not ready yet", "addr=%s error=%s", contact->name,
                 log_quote(bytes_of_string(words)));
    }
    arm(contact, contact->watch->poll_ms);
    tell(contact);
}

static void on_info(const struct resp_value *head, struct bytes reply, void *context)
{
    struct contact *contact = OBJ_FROM(context, struct contact, CONTACT_MAGIC);
    char words[128];

    (void)reply;
    copy_words(head, words, sizeof(words));
    if (is_passing(head)) {
        wait_for_data(contact, words);
    } else if (error_is(head, "NOAUTH")) {
        refuse(contact, words);
    } else if (head->type != '$') {
        log_refusal(contact, head->type == '-' ? words : "INFO makes no sense");
        ask(contact, "CLUSTER", "INFO", on_guess);
    } else if (field_is(head->text, "loading", "1")) {
        wait_for_data(contact, "the server loads its data");
    } else {
        contact->refusal[0] = '\0';
        read_info(contact, head->text);
        come_up(contact);
    }
}

static void on_up(void *context)
{
    struct contact *contact = OBJ_FROM(context, struct contact, CONTACT_MAGIC);

    contact->state = CONTACT_ASKING;
    contact->endpoint = contact->candidates[contact->candidate_at];
    contact->is_resolved = true;
    /* The next connection begins with a fresh answer of the name service. */
    contact->n_candidates = contact->candidate_at = 0;
    ask(contact, "INFO", NULL, on_info);
}

/* ---- connecting ---- */

static void connect_candidate(struct contact *contact)
{
    contact->state = CONTACT_CONNECTING;
    control_client_connect(contact->client, &contact->candidates[contact->candidate_at],
                           contact->host, &contact->watch->settings);
}

/* One line for as long as the name service is away. */
static void log_unresolved(struct contact *contact, const char *error)
{
    if (!contact->is_unresolved) {
        log_warn("upstream", "name cannot be resolved, its last address is tried",
                 "name=%s addr=%s error=%s", contact->host, contact->endpoint.text,
                 log_quote(bytes_of_string(error)));
    }
    contact->is_unresolved = true;
}

/*
 * A name service that is away must not take the backend with it: what it said last is tried. Links
 * of the workers do the same, as the map keeps the address.
 */
static void on_resolved(const struct endpoint *endpoints, unsigned n_endpoints, const char *error,
                        void *context)
{
    struct contact *contact = OBJ_FROM(context, struct contact, CONTACT_MAGIC);

    contact->query = NULL;
    if (error != NULL) {
        stats_add(METRIC_resolve_failures, 1);
    }
    if (error != NULL && !contact->is_resolved) {
        lose(contact, error);
        return;
    }
    if (error != NULL) {
        log_unresolved(contact, error);
        contact->candidates[0] = contact->endpoint;
        contact->n_candidates = 1;
    } else {
        contact->is_unresolved = false;
        memcpy(contact->candidates, endpoints, n_endpoints * sizeof(endpoints[0]));
        contact->n_candidates = n_endpoints;
    }
    contact->candidate_at = 0;
    connect_candidate(contact);
}

static void begin(struct contact *contact)
{
    if (contact->candidate_at < contact->n_candidates) {
        connect_candidate(contact);
    } else if (contact->host[0] == '\0') {
        contact->candidates[0] = contact->endpoint;
        contact->n_candidates = 1;
        connect_candidate(contact);
    } else {
        contact->state = CONTACT_RESOLVING;
        contact->query = resolver_ask(contact->watch->resolver, contact->host, contact->port,
                                      on_resolved, contact);
    }
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
    struct contact *contact = OBJ_FROM(context, struct contact, CONTACT_MAGIC);

    (void)fd;
    (void)what;
    switch (contact->state) {
    case CONTACT_WAITING:
        begin(contact);
        break;
    case CONTACT_ASKING:
        ask(contact, "INFO", NULL, on_info);
        break;
    case CONTACT_UP:
        poll_server(contact, false);
        break;
    case CONTACT_IDLE:
    case CONTACT_RESOLVING:
    case CONTACT_CONNECTING:
        break;
    }
}

void contact_start(struct contact *contact)
{
    if (contact->state == CONTACT_IDLE) {
        begin(contact);
    }
}

void contact_stop(struct contact *contact)
{
    disconnect(contact);
    contact->state = CONTACT_IDLE;
    contact->n_candidates = contact->candidate_at = 0;
    contact->n_failures = 0;
    contact->error[0] = '\0';
}

/* ---- life ---- */

static void set_name(struct contact *contact)
{
    if (contact->host[0] == '\0') {
        snprintf(contact->name, sizeof(contact->name), "%s", contact->endpoint.text);
    } else if (strchr(contact->host, ':') != NULL) {
        snprintf(contact->name, sizeof(contact->name), "[%s]:%u", contact->host, contact->port);
    } else {
        snprintf(contact->name, sizeof(contact->name), "%s:%u", contact->host, contact->port);
    }
}

struct contact *contact_new(struct contact_watch *watch, const char *host, unsigned port,
                            const char *path)
{
    static const struct control_events events = {on_up, on_down, NULL};
    struct contact *contact = mem_alloc(sizeof(*contact));

    contact->magic = CONTACT_MAGIC;
    contact->watch = watch;
    contact->port = port;
    snprintf(contact->host, sizeof(contact->host), "%s", host);
    if (path != NULL) {
        contact->is_resolved = endpoint_from_path(&contact->endpoint, path) == 0;
    } else {
        contact->is_resolved = endpoint_from_ip(&contact->endpoint, host, port) == 0;
        contact->is_name = !contact->is_resolved;
    }
    set_name(contact);
    contact->client = control_client_new(watch->base, &events, contact);
    contact->timer = evtimer_new(watch->base, on_timer, contact);
    CHECK(contact->timer != NULL);
    return contact;
}

void contact_free(struct contact **contact)
{
    struct contact *freed = *contact;

    *contact = NULL;
    if (freed == NULL) {
        return;
    }
    disconnect(freed);
    control_client_free(&freed->client);
    event_free(freed->timer);
    freed->magic = 0;
    mem_free(freed);
}
