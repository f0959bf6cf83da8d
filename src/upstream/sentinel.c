/*
 * Design: a Sentinel that is subscribed to a channel answers nothing else, so each has two
 * connections: one that asks, once in every topology-interval, and one that listens. What is heard
 * only makes the others be asked at once: a message is never the truth itself.
 */
#include "upstream/sentinel.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/stats.h"
#include "upstream/control_client.h"

#include <stdio.h>
#include <stdlib.h>

#define SENTINEL_MAGIC 0x73656e74u
/* Configured ones and those that they know. */
#define SENTINELS_MAX 32
/* How often a Sentinel is asked for the others, in polls. */
#define POLLS_PER_SURVEY 10
/* An older epoch counts only when nothing newer was heard for so long: Sentinels that were set up
 * anew. */
#define FORGET_MS 30000
#define CHANNEL "+switch-master"

struct sentinel {
    uint32_t magic;
    struct sentinel *next;
    struct sentinels *all;
    char host[256];
    unsigned port;
    char name[280];
    struct resolver_query *query;
    struct endpoint endpoint;
    struct control_client *asker, *listener;
    struct event *timer;
    bool is_up, is_listening;
    unsigned n_failures, n_polls;

    /* Its newest answer. */
    int64_t answered_at_ms; /* 0: none since it was connected */
    char master_host[256];
    unsigned master_port;
    uint64_t epoch, heard_epoch;
    char complaint[400]; /* the last one that was logged; as long as TLS has words */
};

struct sentinels {
    struct event_base *base;
    struct resolver *resolver;
    char *master; /* the name */
    char *user, *password;
    struct control_settings settings;
    struct config_address_map map;
    int64_t poll_ms, reconnect_min_ms, reconnect_max_ms;
    sentinels_on_master_fn on_master;
    void *context;
    struct sentinel *first;
    unsigned n;
    char host[256]; /* of the master that was told last */
    unsigned port;
    uint64_t epoch; /* of that answer, and when one at least as new was heard last */
    int64_t heard_at_ms;
    char error[480];
};

static void connect_now(struct sentinel *sentinel);

/* ---- the verdict ---- */

static const struct sentinel *best_answer(const struct sentinels *all)
{
    const int64_t now_ms = clock_now_ms();
    const struct sentinel *best = NULL;

    for (const struct sentinel *at = all->first; at != NULL; at = at->next) {
        const bool is_fresh = at->answered_at_ms > 0 &&
                              now_ms - at->answered_at_ms <= 3 * all->poll_ms;

        if (is_fresh && (best == NULL || at->epoch > best->epoch)) {
            best = at;
        }
    }
    return best;
}

static void settle(struct sentinels *all)
{
    const struct sentinel *best = best_answer(all);

    if (best == NULL) {
        return;
    }
    all->error[0] = '\0';
    if (best->epoch < all->epoch && clock_now_ms() - all->heard_at_ms < FORGET_MS) {
        return; /* who knew better is silent for the moment */
    }
    all->epoch = best->epoch;
    all->heard_at_ms = clock_now_ms();
    if (best->master_port == all->port && strcmp(best->master_host, all->host) == 0) {
        return;
    }
    log_info("upstream", "the Sentinels name the master", "name=%s master=%s:%u by=%s epoch=%llu",
             log_quote(bytes_of_string(all->master)), best->master_host, best->master_port,
             best->name, (unsigned long long)best->epoch);
    if (all->port != 0) {
        stats_add(METRIC_sentinel_switches, 1);
    }
    memcpy(all->host, best->master_host, sizeof(all->host));
    all->port = best->master_port;
    all->on_master(all->host, all->port, all->context);
}

/* Logged when it is news. */
static void complain(struct sentinel *sentinel, const char *why)
{
    snprintf(sentinel->all->error, sizeof(sentinel->all->error), "sentinel %s: %s", sentinel->name,
             why);
    if (strcmp(sentinel->complaint, why) != 0) {
        snprintf(sentinel->complaint, sizeof(sentinel->complaint), "%s", why);
        log_warn("upstream", "sentinel", "addr=%s reason=%s", sentinel->name,
                 log_quote_long(bytes_of_string(why)));
    }
}

/* ---- losing and coming back ---- */

static void arm(struct sentinel *sentinel, int64_t delay_ms)
{
    const struct timeval delay = {.tv_sec = delay_ms / 1000, .tv_usec = delay_ms % 1000 * 1000};

    event_add(sentinel->timer, &delay);
}

static void lose(struct sentinel *sentinel, const char *why)
{
    const struct sentinels *all = sentinel->all;
    int64_t delay_ms = all->reconnect_min_ms;

    complain(sentinel, why);
    control_client_close(sentinel->asker);
    control_client_close(sentinel->listener);
    sentinel->is_up = sentinel->is_listening = false;
    sentinel->answered_at_ms = 0;
    for (unsigned i = 0; i < sentinel->n_failures && delay_ms < all->reconnect_max_ms; i++) {
        delay_ms *= 2;
    }
    sentinel->n_failures++;
    arm(sentinel, delay_ms < all->reconnect_max_ms ? delay_ms : all->reconnect_max_ms);
}

static void on_asker_down(const char *reason, bool is_refused, void *context)
{
    struct sentinel *sentinel = OBJ_FROM(context, struct sentinel, SENTINEL_MAGIC);

    (void)is_refused;
    lose(sentinel, reason);
}

/* ---- asking ---- */

/* "field" -> value in a flat array of texts; at stands behind its header. */
static bool find_field(struct bytes at, size_t n_children, const char *field, struct bytes *value)
{
    struct resp_value name, content;

    for (size_t i = 0; i + 1 < n_children; i += 2) {
        if (!resp_next(&at, &name) || !resp_next(&at, &content)) {
            return false;
        }
        if (bytes_equal(name.text, bytes_of_string(field))) {
            *value = content.text;
            return true;
        }
    }
    return false;
}

/* Where another Sentinel is reached. */
static bool read_address(const struct sentinels *all, struct bytes fields, size_t n_children,
                         char host[256], unsigned *port)
{
    struct bytes ip, number;
    int64_t value;

    if (!find_field(fields, n_children, "ip", &ip) ||
        !find_field(fields, n_children, "port", &number) || ip.len == 0 || ip.len > 255 ||
        !bytes_to_int64(number, &value) || value < 1 || value > 65535) {
        return false;
    }
    *port = (unsigned)value;
    (void)config_address_map(&all->map, &ip, port);
    memcpy(host, ip.ptr, ip.len);
    host[ip.len] = '\0';
    return true;
}

static void on_master(const struct resp_value *head, struct bytes reply, void *context)
{
    struct sentinel *sentinel = OBJ_FROM(context, struct sentinel, SENTINEL_MAGIC);
    struct resp_value list;
    struct bytes epoch;
    int64_t value = 0;

    if (head->type == '-') {
        char words[160];

        snprintf(words, sizeof(words), "%.*s", head->text.len > 150 ? 150 : (int)head->text.len,
                 (const char *)head->text.ptr);
        sentinel->answered_at_ms = 0;
        complain(sentinel, words);
        return;
    }
    if (resp_next(&reply, &list) && list.type == '*' &&
        find_field(reply, list.n_children, "config-epoch", &epoch)) {
        (void)bytes_to_int64(epoch, &value);
    }
    sentinel->heard_epoch = (uint64_t)value;
}

/*
 * Asked apart: during a failover SENTINEL MASTER still tells the address of the old master,
 * together with the epoch of the new one.
 */
static void on_address(const struct resp_value *head, struct bytes reply, void *context)
{
    struct sentinel *sentinel = OBJ_FROM(context, struct sentinel, SENTINEL_MAGIC);
    struct resp_value list, host, number;
    unsigned reached_at;
    int64_t port;

    (void)head;
    if (!resp_next(&reply, &list) || list.type != '*' || list.is_null || list.n_children != 2) {
        return; /* it has said why when it was asked for the epoch */
    }
    if (!resp_next(&reply, &host) || !resp_next(&reply, &number) || host.text.len == 0 ||
        host.text.len > 255 || !bytes_to_int64(number.text, &port) || port < 1 || port > 65535) {
        complain(sentinel, "its answer makes no sense");
        return;
    }
    reached_at = (unsigned)port;
    (void)config_address_map(&sentinel->all->map, &host.text, &reached_at);
    memcpy(sentinel->master_host, host.text.ptr, host.text.len);
    sentinel->master_host[host.text.len] = '\0';
    sentinel->master_port = reached_at;
    sentinel->epoch = sentinel->heard_epoch;
    sentinel->answered_at_ms = clock_now_ms();
    sentinel->n_failures = 0;
    sentinel->complaint[0] = '\0';
    settle(sentinel->all);
}

static struct sentinel *add(struct sentinels *all, const char *host, unsigned port);

static void on_others(const struct resp_value *head, struct bytes reply, void *context)
{
    struct sentinel *sentinel = OBJ_FROM(context, struct sentinel, SENTINEL_MAGIC);
    struct resp_value list;
    char host[256];
    unsigned port;

    if (head->type != '*' || !resp_next(&reply, &list)) {
        return;
    }
    for (size_t i = 0; i < list.n_children; i++) {
        struct bytes fields = reply;
        struct resp_value one;

        if (!resp_next(&fields, &one) || !resp_skip(&reply)) {
            return;
        }
        if (read_address(sentinel->all, fields, one.n_children, host, &port)) {
            (void)add(sentinel->all, host, port);
        }
    }
}

static void poll_sentinel(struct sentinel *sentinel)
{
    const char *const master[] = {"SENTINEL", "MASTER", sentinel->all->master};
    const char *const address[] = {"SENTINEL", "GET-MASTER-ADDR-BY-NAME", sentinel->all->master};
    const char *const others[] = {"SENTINEL", "SENTINELS", sentinel->all->master};

    control_client_send(sentinel->asker, master, 3, on_master);
    control_client_send(sentinel->asker, address, 3, on_address);
    if (sentinel->n_polls++ % POLLS_PER_SURVEY == 0) {
        control_client_send(sentinel->asker, others, 3, on_others);
    }
    arm(sentinel, sentinel->all->poll_ms);
}

static void on_asker_up(void *context)
{
    struct sentinel *sentinel = OBJ_FROM(context, struct sentinel, SENTINEL_MAGIC);

    sentinel->is_up = true;
    poll_sentinel(sentinel);
    if (!sentinel->is_listening) {
        sentinel->is_listening = true;
        control_client_connect(sentinel->listener, &sentinel->endpoint, sentinel->host,
                               &sentinel->all->settings);
    }
}

/* ---- listening ---- */

static void on_subscribed(const struct resp_value *head, struct bytes reply, void *context)
{
    (void)head;
    (void)reply;
    (void)context;
}

static void on_listener_up(void *context)
{
    struct sentinel *sentinel = OBJ_FROM(context, struct sentinel, SENTINEL_MAGIC);
    const char *const argv[] = {"SUBSCRIBE", CHANNEL};

    control_client_send(sentinel->listener, argv, 2, on_subscribed);
}

/* The asker notices when the Sentinel is gone; without its ears it still asks. */
static void on_listener_down(const char *reason, bool is_refused, void *context)
{
    struct sentinel *sentinel = OBJ_FROM(context, struct sentinel, SENTINEL_MAGIC);

    (void)is_refused;
    log_debug("upstream", "sentinel channel lost", "addr=%s reason=%s", sentinel->name,
              log_quote(bytes_of_string(reason)));
    sentinel->is_listening = false;
}

static void on_message(const struct resp_value *head, struct bytes message, void *context)
{
    struct sentinel *sentinel = OBJ_FROM(context, struct sentinel, SENTINEL_MAGIC);

    (void)head;
    (void)message;
    sentinels_refresh(sentinel->all);
}

static const struct control_events asker_events = {on_asker_up, on_asker_down, NULL};
static const struct control_events listener_events = {on_listener_up, on_listener_down, on_message};

/* ---- connecting ---- */

static void on_resolved(const struct endpoint *endpoints, unsigned n_endpoints, const char *error,
                        void *context)
{
    struct sentinel *sentinel = OBJ_FROM(context, struct sentinel, SENTINEL_MAGIC);

    sentinel->query = NULL;
    if (error != NULL) {
        stats_add(METRIC_resolve_failures, 1);
    }
    if (error != NULL && sentinel->endpoint.length == 0) {
        lose(sentinel, error);
        return;
    }
    /* Of several addresses another one each time; without the name service the last one. */
    if (error == NULL) {
        sentinel->endpoint = endpoints[sentinel->n_failures % n_endpoints];
    }
    control_client_connect(sentinel->asker, &sentinel->endpoint, sentinel->host,
                           &sentinel->all->settings);
}

static void connect_now(struct sentinel *sentinel)
{
    sentinel->query = resolver_ask(sentinel->all->resolver, sentinel->host, sentinel->port,
                                   on_resolved, sentinel);
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
    struct sentinel *sentinel = OBJ_FROM(context, struct sentinel, SENTINEL_MAGIC);

    (void)fd;
    (void)what;
    if (!sentinel->is_up) {
        connect_now(sentinel);
        return;
    }
    if (!sentinel->is_listening) {
        sentinel->is_listening = true;
        control_client_connect(sentinel->listener, &sentinel->endpoint, sentinel->host,
                               &sentinel->all->settings);
    }
    poll_sentinel(sentinel);
}

void sentinels_refresh(struct sentinels *sentinels)
{
    for (struct sentinel *at = sentinels->first; at != NULL; at = at->next) {
        if (at->is_up) {
            arm(at, 0);
        }
    }
}

const char *sentinels_error(const struct sentinels *sentinels)
{
    return best_answer(sentinels) != NULL ? "" : sentinels->error;
}

/* ---- life ---- */

/* NULL: it is known already, or there are too many. */
static struct sentinel *add(struct sentinels *all, const char *host, unsigned port)
{
    struct sentinel *sentinel;

    for (sentinel = all->first; sentinel != NULL; sentinel = sentinel->next) {
        if (sentinel->port == port && strcmp(sentinel->host, host) == 0) {
            return NULL;
        }
    }
    if (all->n == SENTINELS_MAX) {
        return NULL;
    }
    sentinel = mem_alloc(sizeof(*sentinel));
    sentinel->magic = SENTINEL_MAGIC;
    sentinel->all = all;
    snprintf(sentinel->host, sizeof(sentinel->host), "%s", host);
    sentinel->port = port;
    snprintf(sentinel->name, sizeof(sentinel->name),
             strchr(host, ':') != NULL ? "[%s]:%u" : "%s:%u", host, port);
    sentinel->asker = control_client_new(all->base, &asker_events, sentinel);
    sentinel->listener = control_client_new(all->base, &listener_events, sentinel);
    sentinel->timer = evtimer_new(all->base, on_timer, sentinel);
    CHECK(sentinel->timer != NULL);
    sentinel->next = all->first;
    all->first = sentinel;
    all->n++;
    arm(sentinel, 0);
    return sentinel;
}

static char *copy_or_null(const char *text)
{
    return text != NULL && text[0] != '\0' ? mem_strdup(text) : NULL;
}

void sentinels_configure(struct sentinels *sentinels, const struct config *config)
{
    sentinels->settings.connect_timeout_ms = config->connect_timeout_ms;
    sentinels->settings.request_timeout_ms = config->request_timeout_ms;
    tls_context_unref(&sentinels->settings.tls);
    sentinels->settings.tls = config->target.is_sentinel_tls ? tls_context_ref(config->tls_backend)
                                                             : NULL;
    sentinels->poll_ms = config->topology_interval_ms;
    sentinels->reconnect_min_ms = config->reconnect_min_ms;
    sentinels->reconnect_max_ms = config->reconnect_max_ms;
}

struct sentinels *sentinels_new(struct event_base *base, struct resolver *resolver,
                                const struct config *config, sentinels_on_master_fn on_new_master,
                                void *context)
{
    const struct config_backend *target = &config->target;
    struct sentinels *sentinels = mem_alloc(sizeof(*sentinels));

    sentinels->base = base;
    sentinels->resolver = resolver;
    sentinels->master = mem_strdup(target->sentinel_master);
    sentinels->user = copy_or_null(config->sentinel_user);
    sentinels->password = copy_or_null(config->sentinel_password);
    sentinels->settings.user = sentinels->user;
    sentinels->settings.password = sentinels->password;
    sentinels->map = config->mappings;
    sentinels->on_master = on_new_master;
    sentinels->context = context;
    snprintf(sentinels->error, sizeof(sentinels->error), "no Sentinel has answered yet");
    sentinels_configure(sentinels, config);
    for (unsigned i = 0; i < target->n_seeds; i++) {
        (void)add(sentinels, target->seeds[i].host, target->seeds[i].port);
    }
    return sentinels;
}

void sentinels_free(struct sentinels **sentinels)
{
    struct sentinels *gone = *sentinels;

    *sentinels = NULL;
    if (gone == NULL) {
        return;
    }
    while (gone->first != NULL) {
        struct sentinel *const sentinel = gone->first;

        gone->first = sentinel->next;
        resolver_cancel(&sentinel->query);
        control_client_free(&sentinel->asker);
        control_client_free(&sentinel->listener);
        event_free(sentinel->timer);
        mem_free(sentinel);
    }
    if (gone->password != NULL) {
        explicit_bzero(gone->password, strlen(gone->password));
    }
    tls_context_unref(&gone->settings.tls);
    mem_free(gone->password);
    mem_free(gone->user);
    mem_free(gone->master);
    mem_free(gone);
}
