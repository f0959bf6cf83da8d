/*
 * The body is one JSON object. One of its members says what is to be done (actions[] below), others
 * how; a member that nobody knows is an error, so that a misspelt one does no harm. Strings are
 * UTF-8: keys of other bytes are for CACHE INVALIDATE.
 *
 * The type application/json is demanded, as a browser sends it to another site only when that
 * site allows it.
 */
#include "admin/invalidate_http.h"

#include <event2/buffer.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <strings.h>

#include "admin/http.h"
#include "base/clock.h"
#include "base/mem.h"
#include "coherence/events.h"
#include "coherence/tags.h"
#include "coherence/unlink.h"

struct call {
    struct proxy *proxy;
    struct evhttp_request *request;
    json_t *body;
};

/* ---- answers ---- */

/* Of any bytes: what is no UTF-8 is shown with question marks, and cut. */
static json_t *json_of_bytes(struct bytes bytes)
{
    json_t *json = json_stringn((const char *)bytes.ptr, bytes.len);
    char text[BAN_NAME_MAX];
    size_t n = 0;

    if (json != NULL) {
        return json;
    }
    for (; n < bytes.len && n < sizeof(text); n++) {
        text[n] = bytes.ptr[n] < 0x80 ? (char)bytes.ptr[n] : '?';
    }
    return json_stringn(text, n);
}

static void answer_json(struct evhttp_request *request, int status, const char *reason,
                        json_t *json)
{
    struct evbuffer *body = evbuffer_new();
    char *text = json_dumps(json, JSON_COMPACT | JSON_PRESERVE_ORDER);

    CHECK(body != NULL && text != NULL);
    evbuffer_add_printf(body, "%s\n", text);
    admin_http_reply(request, status, reason, "application/json", body);
    evbuffer_free(body);
    free(text);
    json_decref(json);
}

static void refuse(struct evhttp_request *request, int status, const char *reason,
                   const char *field, const char *error)
{
    stats_add(METRIC_orders_refused, 1);
    answer_json(request, status, reason,
                json_pack("{s:o, s:o}", "error", json_of_bytes(bytes_of_string(error)), "field",
                          field != NULL ? json_of_bytes(bytes_of_string(field)) : json_null()));
}

static void refuse_field(const struct call *call, const char *field, const char *error)
{
    refuse(call->request, HTTP_BADREQUEST, "Bad Request", field, error);
}

/* ---- who may ---- */

static bool has_token(struct evhttp_request *request, const char *password)
{
    const char *header = evhttp_find_header(evhttp_request_get_input_headers(request),
                                            "Authorization");

    return header != NULL && password[0] != '\0' && strncasecmp(header, "Bearer ", 7) == 0 &&
           bytes_equal_secret(bytes_of_string(header + 7), password);
}

/* False: refused, and said so. */
static bool may_call(const struct proxy *proxy, struct evhttp_request *request)
{
    const struct config *config = proxy->config;

    if (config->cache_command == CACHE_COMMAND_FREE) {
        return true;
    }
    if (config->cache_command == CACHE_COMMAND_OFF) {
        stats_add(METRIC_errors_refused, 1);
        refuse(request, 403, "Forbidden", NULL, "switched off (cache-command = off)");
        return false;
    }
    if (!has_token(request, config->cache_password)) {
        stats_add(METRIC_errors_auth, 1);
        evhttp_add_header(evhttp_request_get_output_headers(request), "WWW-Authenticate", "Bearer");
        refuse(request, 401, "Unauthorized", NULL,
               "needs the header Authorization: Bearer with the cache-password");
        return false;
    }
    return true;
}

/* Where clients must log in, nobody removes keys at the backend without a token. */
static bool may_unlink(const struct call *call)
{
    const struct config *config = call->proxy->config;

    if (config->cache_command == CACHE_COMMAND_PASSWORD ||
        (config->requirepass[0] == '\0' && config->auth != AUTH_BACKEND)) {
        return true;
    }
    stats_add(METRIC_errors_auth, 1);
    refuse(call->request, 403, "Forbidden", "scope",
           "scope all needs cache-command = password where clients have to log in");
    return false;
}

/* ---- reading the body ---- */

static struct bytes bytes_of_json(const json_t *string)
{
    return bytes_make(json_string_value(string), json_string_length(string));
}

/* Absent: *value stays. False: refused. */
static bool take_integer(const struct call *call, const json_t *object, const char *name,
                         int64_t max, int64_t *value)
{
    const json_t *member = json_object_get(object, name);

    if (member == NULL) {
        return true;
    }
    if (!json_is_integer(member) || json_integer_value(member) < 0 ||
        json_integer_value(member) > max) {
        refuse_field(call, name, "not an integer, or out of range");
        return false;
    }
    *value = json_integer_value(member);
    return true;
}

/* False: refused. */
static bool take_scope(const struct call *call, struct invalidation *what)
{
    const json_t *scope = json_object_get(call->body, "scope");
    int64_t db = call->proxy->login->db;

    if (scope != NULL &&
        (!json_is_string(scope) || (strcasecmp(json_string_value(scope), "l1") != 0 &&
                                    strcasecmp(json_string_value(scope), "all") != 0))) {
        refuse_field(call, "scope", "neither \"l1\" nor \"all\"");
        return false;
    }
    what->is_all = scope != NULL && strcasecmp(json_string_value(scope), "all") == 0;
    if (!take_integer(call, call->body, "db", CONFIG_DB_MAX, &db)) {
        return false;
    }
    what->db = (unsigned)db;
    return !what->is_all || may_unlink(call);
}

/* ---- actions ---- */

static void run(const struct call *call, const char *field, const struct invalidation *what)
{
    struct invalidation_answer answer;
    json_t *json;

    if (!invalidation_run(&call->proxy->fleet, NULL, what, &answer)) {
        refuse_field(call, field, answer.error);
        return;
    }
    json = json_pack("{s:o, s:s, s:i}", "entries",
                     answer.is_counted ? json_integer((json_int_t)answer.n_entries) : json_null(),
                     "matched", answer.is_counted ? "at-once" : "lazily", "proxies",
                     (int)answer.n_proxies);
    if (answer.job != 0) {
        json_object_set_new(json, "job", json_integer((json_int_t)answer.job));
    }
    answer_json(call->request, HTTP_OK, "OK", json);
}

static void do_keys(const struct call *call, const json_t *value, struct invalidation *what)
{
    const size_t n = json_array_size(value);
    struct bytes *keys;

    if (!json_is_array(value) || n == 0 || n > INVALIDATE_KEYS_MAX) {
        refuse_field(call, "keys", "not an array of 1 to 10000 strings");
        return;
    }
    keys = mem_alloc(n * sizeof(*keys));
    for (size_t i = 0; i < n; i++) {
        const json_t *key = json_array_get(value, i);

        if (!json_is_string(key)) {
            refuse_field(call, "keys", "not an array of 1 to 10000 strings");
            mem_free(keys);
            return;
        }
        keys[i] = bytes_of_json(key);
    }
    what->kind = INVALIDATE_KEYS;
    what->keys = keys;
    what->n_keys = n;
    run(call, "keys", what);
    mem_free(keys);
}

static void do_named(const struct call *call, const json_t *value, struct invalidation *what,
                     enum invalidation_kind kind, const char *field)
{
    if (!json_is_string(value)) {
        refuse_field(call, field, "not a string");
        return;
    }
    what->kind = kind;
    what->name = bytes_of_json(value);
    run(call, field, what);
}

static void do_prefix(const struct call *call, const json_t *value, struct invalidation *what)
{
    do_named(call, value, what, INVALIDATE_PREFIX, "prefix");
}

static void do_glob(const struct call *call, const json_t *value, struct invalidation *what)
{
    do_named(call, value, what, INVALIDATE_GLOB, "glob");
}

static void do_namespace(const struct call *call, const json_t *value, struct invalidation *what)
{
    do_named(call, value, what, INVALIDATE_NAMESPACE, "namespace");
}

static void do_everything(const struct call *call, const json_t *value, struct invalidation *what)
{
    if (!json_is_true(value)) {
        refuse_field(call, "everything", "not true");
        return;
    }
    what->kind = INVALIDATE_EVERYTHING;
    run(call, "everything", what);
}

/* ---- tags: the first worker asks, and the answer comes by mail ---- */

struct tag_call {
    struct tag_call *next; /* of those that are not answered; control thread */
    struct mail mail;
    struct proxy *proxy;
    struct evhttp_request *request; /* NULL: the admin port has been closed */
    struct tags_answer answer;      /* its error is kept in `error` */
    char error[192];
    bool is_all;
    unsigned db;
    size_t n;
    struct bytes tags[];
};

static struct tag_call *tag_calls; /* control thread */

static void answer_tags(const struct tag_call *call)
{
    const struct tags_answer *answer = &call->answer;
    json_t *json;

    if (call->error[0] != '\0') {
        refuse(call->request, HTTP_SERVUNAVAIL, "Service Unavailable", "tags", call->error);
        return;
    }
    json = json_pack("{s:o, s:s, s:I, s:i}", "entries",
                     answer->is_counted ? json_integer((json_int_t)answer->n_entries) : json_null(),
                     "matched", answer->is_counted ? "at-once" : "lazily", "members",
                     (json_int_t)answer->n, "proxies", (int)answer->n_proxies);
    if (answer->job != 0) {
        json_object_set_new(json, "job", json_integer((json_int_t)answer->job));
    }
    answer_json(call->request, HTTP_OK, "OK", json);
}

/* The control thread. */
static void on_tags_home(struct mail *mail)
{
    struct tag_call *call = CONTAINER_OF(mail, struct tag_call, mail);
    struct tag_call **at = &tag_calls;

    while (*at != call) {
        at = &(*at)->next;
    }
    *at = call->next;
    if (call->request != NULL) {
        answer_tags(call);
    }
    mem_free(call);
}

/* The first worker. */
static void on_tags_done(void *context, const struct tags_answer *answer)
{
    struct tag_call *call = context;

    call->answer = *answer;
    if (answer->error != NULL) {
        snprintf(call->error, sizeof(call->error), "%s", answer->error);
    }
    call->mail.run = on_tags_home;
    worker_post(call->proxy->control, &call->mail);
}

static void on_tags_begin(struct mail *mail)
{
    struct tag_call *call = CONTAINER_OF(mail, struct tag_call, mail);
    struct tags_answer answer = {.error = tags_invalidate(call->proxy->fleet.members[0], call->db,
                                                          call->is_all, call->tags,
                                                          (unsigned)call->n, on_tags_done, call)};

    if (answer.error != NULL) {
        on_tags_done(call, &answer);
    }
}

/* NULL: they are not strings. */
static struct tag_call *tag_call_new(const json_t *tags)
{
    const size_t n = json_array_size(tags);
    size_t n_bytes = 0;
    struct tag_call *call;
    unsigned char *room;

    for (size_t i = 0; i < n; i++) {
        if (!json_is_string(json_array_get(tags, i))) {
            return NULL;
        }
        n_bytes += json_string_length(json_array_get(tags, i));
    }
    call = mem_alloc(sizeof(*call) + n * sizeof(struct bytes) + n_bytes);
    call->n = n;
    room = (unsigned char *)&call->tags[n];
    for (size_t i = 0; i < n; i++) {
        const struct bytes tag = bytes_of_json(json_array_get(tags, i));

        memcpy(room, tag.ptr, tag.len);
        call->tags[i] = bytes_make(room, tag.len);
        room += tag.len;
    }
    return call;
}

static void do_tags(const struct call *call, const json_t *value, struct invalidation *what)
{
    const size_t n = json_array_size(value);
    struct tag_call *later = json_is_array(value) && n > 0 && n <= TAGS_MAX ? tag_call_new(value)
                                                                            : NULL;

    if (later == NULL) {
        refuse_field(call, "tags", "not an array of 1 to 128 strings");
        return;
    }
    later->proxy = call->proxy;
    later->request = call->request;
    later->is_all = what->is_all;
    later->db = what->db;
    later->next = tag_calls;
    tag_calls = later;
    later->mail.run = on_tags_begin;
    worker_post(call->proxy->fleet.members[0]->worker, &later->mail);
}

void invalidate_http_stop(void)
{
    for (struct tag_call *call = tag_calls; call != NULL; call = call->next) {
        call->request = NULL;
    }
}

/* ---- events: asked of the first worker, answered when that has asked the backend ---- */

struct event_call {
    struct mail mail;
    struct proxy *proxy;
    struct evhttp_request *request; /* NULL: whoever asked has gone */
    struct events_order order;
    struct events_answer answer;
    char error[200];
    bool is_refused; /* nothing was asked */
    unsigned char event[];
};

static void on_caller_gone(struct evhttp_connection *connection, void *context)
{
    struct event_call *event = context;

    (void)connection;
    event->request = NULL;
}

static json_t *json_of_drops(const struct events_answer *answer)
{
    json_t *json = json_pack("{s:o, s:s, s:I, s:i}", "entries",
                             answer->is_counted ? json_integer((json_int_t)answer->n_entries)
                                                : json_null(),
                             "matched", answer->is_counted ? "at-once" : "lazily", "names",
                             (json_int_t)answer->n_names, "proxies", (int)answer->n_proxies);

    if (answer->n_jobs > 0) {
        json_object_set_new(json, "jobs", json_integer((json_int_t)answer->n_jobs));
        json_object_set_new(json, "job", json_integer((json_int_t)answer->job));
    }
    return json;
}

/* The control thread. */
static void on_event_answered(struct mail *mail)
{
    struct event_call *event = CONTAINER_OF(mail, struct event_call, mail);

    if (event->request != NULL) {
        evhttp_connection_set_closecb(evhttp_request_get_connection(event->request), NULL, NULL);
        if (event->answer.error == NULL) {
            answer_json(event->request, HTTP_OK, "OK", json_of_drops(&event->answer));
        } else if (event->is_refused) {
            refuse(event->request, HTTP_BADREQUEST, "Bad Request", "event", event->error);
        } else {
            refuse(event->request, HTTP_SERVUNAVAIL, "Service Unavailable", NULL, event->error);
        }
    }
    mem_free(event);
}

static void on_event_done(void *context, const struct events_answer *answer)
{
    struct event_call *event = context;

    event->answer = *answer;
    if (answer->error != NULL) {
        (void)snprintf(event->error, sizeof(event->error), "%s", answer->error);
        event->answer.error = event->error;
    }
    event->mail.run = on_event_answered;
    worker_post(event->proxy->control, &event->mail);
}

/* The first worker. */
static void on_event_asked(struct mail *mail)
{
    struct event_call *event = CONTAINER_OF(mail, struct event_call, mail);
    struct events_answer refusal = {0};

    refusal.error = events_publish(event->proxy->fleet.members[0]->events, &event->order,
                                   on_event_done, event);
    if (refusal.error != NULL) {
        event->is_refused = true;
        on_event_done(event, &refusal);
    }
}

static void do_event(const struct call *call, const json_t *value, struct invalidation *what)
{
    const struct bytes name = json_is_string(value) ? bytes_of_json(value) : (struct bytes){0};
    struct event_call *event;

    if (name.len == 0 || name.len > EVENT_NAME_MAX) {
        refuse_field(call, "event", "not a string of 1 to 512 bytes");
        return;
    }
    event = mem_alloc(sizeof(*event) + name.len);
    memcpy(event->event, name.ptr, name.len);
    event->mail.run = on_event_asked;
    event->proxy = call->proxy;
    event->request = call->request;
    event->order = (struct events_order){
        .event = bytes_make(event->event, name.len), .db = what->db, .is_all = what->is_all};
    evhttp_connection_set_closecb(evhttp_request_get_connection(call->request), on_caller_gone,
                                  event);
    worker_post(call->proxy->fleet.members[0]->worker, &event->mail);
}

/* ---- bans ---- */

#define TIME_MAX_MS (INT64_C(30) * 86400 * 1000)
#define SIZE_MAX_BYTES ((int64_t)1 << 32)

/* False: refused. */
static bool take_ban_name(const struct call *call, const json_t *ban, struct ban_rule *rule)
{
    const json_t *prefix = json_object_get(ban, "prefix");
    const json_t *glob = json_object_get(ban, "glob");
    const json_t *ns = json_object_get(ban, "namespace");
    const json_t *name = prefix != NULL ? prefix : glob;

    if (name != NULL && (!json_is_string(name) || (prefix != NULL && glob != NULL))) {
        refuse_field(call, prefix != NULL ? "prefix" : "glob", "not one string");
        return false;
    }
    if (name != NULL) {
        rule->kind = prefix != NULL ? BAN_PREFIX : BAN_GLOB;
        rule->name = bytes_of_json(name);
    }
    if (ns != NULL) {
        rule->ns = json_is_string(ns) ? config_namespace_find(bytes_of_json(ns)) : -1;
        if (rule->ns < 0) {
            refuse_field(call, "namespace", "no such namespace");
            return false;
        }
    }
    return true;
}

/* False: refused. */
static bool has_known_members(const struct call *call, const json_t *object,
                              const char *const *known)
{
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)object, name, value)
    {
        unsigned i = 0;

        while (known[i] != NULL && strcmp(known[i], name) != 0) {
            i++;
        }
        if (known[i] == NULL) {
            refuse_field(call, name, "unknown member");
            return false;
        }
    }
    return true;
}

static void do_ban(const struct call *call, const json_t *value, struct invalidation *what)
{
    static const char *const known[] = {"prefix",       "glob",   "namespace", "older_ms",
                                        "larger_bytes", "ttl_ms", NULL};
    struct ban_rule rule = {.ns = -1};
    struct invalidation_answer answer;
    int64_t n_bytes = 0, ttl_ms = 0;
    uint64_t id;
    char text[20];

    (void)what;
    if (!json_is_object(value) || json_object_size(value) == 0) {
        refuse_field(call, "ban", "not an object with a rule");
        return;
    }
    if (!has_known_members(call, value, known) || !take_ban_name(call, value, &rule) ||
        !take_integer(call, value, "older_ms", TIME_MAX_MS, &rule.min_age_ms) ||
        !take_integer(call, value, "larger_bytes", SIZE_MAX_BYTES, &n_bytes) ||
        !take_integer(call, value, "ttl_ms", TIME_MAX_MS, &ttl_ms)) {
        return;
    }
    rule.min_bytes = (size_t)n_bytes;
    if (rule.kind == BAN_ANY_NAME && rule.ns < 0 && rule.min_age_ms == 0 && n_bytes == 0) {
        refuse_field(call, "ban", "needs prefix, glob, namespace, older_ms or larger_bytes");
    } else if (!invalidation_ban(&call->proxy->fleet, NULL, &rule, ttl_ms, &id, &answer)) {
        refuse_field(call, "ban", answer.error);
    } else {
        snprintf(text, sizeof(text), "%016" PRIx64, id);
        answer_json(call->request, HTTP_OK, "OK",
                    json_pack("{s:s, s:i}", "id", text, "proxies", (int)answer.n_proxies));
    }
}

static void do_unban(const struct call *call, const json_t *value, struct invalidation *what)
{
    const char *text = json_string_value(value);
    struct invalidation_answer answer;
    char *end = NULL;
    uint64_t id;

    (void)what;
    id = text != NULL && strlen(text) == 16 ? strtoull(text, &end, 16) : 0;
    if (end == NULL || *end != '\0') {
        refuse_field(call, "unban", "not the id of a ban");
        return;
    }
    const bool is_removed = invalidation_unban(&call->proxy->fleet, NULL, id, &answer);
    answer_json(call->request, HTTP_OK, "OK",
                json_pack("{s:b, s:i}", "removed", is_removed, "proxies", (int)answer.n_proxies));
}

static void do_cancel(const struct call *call, const json_t *value, struct invalidation *what)
{
    struct unlink_jobs *jobs = call->proxy->fleet.jobs;

    (void)what;
    if (!json_is_integer(value)) {
        refuse_field(call, "cancel", "not the number of a job");
        return;
    }
    const bool is_cancelled = jobs != NULL &&
                              unlink_jobs_cancel(jobs, (uint64_t)json_integer_value(value));
    answer_json(call->request, HTTP_OK, "OK", json_pack("{s:b}", "cancelled", is_cancelled));
}

/* ---- POST /v1/invalidate ---- */

static const struct action {
    const char *name;
    bool has_scope; /* "scope" and "db" may stand beside it */
    void (*run)(const struct call *call, const json_t *value, struct invalidation *what);
} actions[] = {
    {"keys", true, do_keys},    {"prefix", true, do_prefix},
    {"glob", true, do_glob},    {"namespace", true, do_namespace},
    {"ban", false, do_ban},     {"everything", true, do_everything},
    {"unban", false, do_unban}, {"cancel", false, do_cancel},
    {"tags", true, do_tags},    {"event", true, do_event},
};

#define N_ACTIONS (sizeof(actions) / sizeof(actions[0]))

static const struct action *find_action(const char *name)
{
    for (size_t i = 0; i < N_ACTIONS; i++) {
        if (strcmp(actions[i].name, name) == 0) {
            return &actions[i];
        }
    }
    return NULL;
}

static void act(const struct call *call)
{
    const struct action *chosen = NULL;
    struct invalidation what = {0};
    const char *name;
    json_t *value;

    json_object_foreach(call->body, name, value)
    {
        const struct action *action = find_action(name);

        if (action == NULL && strcmp(name, "scope") != 0 && strcmp(name, "db") != 0) {
            refuse_field(call, name, "unknown member");
            return;
        }
        if (action != NULL && chosen != NULL) {
            refuse_field(call, name, "more than one thing to do");
            return;
        }
        chosen = action != NULL ? action : chosen;
    }
    if (chosen == NULL) {
        refuse_field(call, NULL,
                     "needs keys, prefix, glob, namespace, everything, tags, event, ban, unban or "
                     "cancel");
    } else if (!chosen->has_scope && json_object_size(call->body) > 1) {
        refuse_field(call, json_object_get(call->body, "scope") != NULL ? "scope" : "db",
                     "does not go with what is to be done");
    } else if (take_scope(call, &what)) {
        chosen->run(call, json_object_get(call->body, chosen->name), &what);
    }
}

static bool is_json(struct evhttp_request *request)
{
    const char *type = evhttp_find_header(evhttp_request_get_input_headers(request),
                                          "Content-Type");

    return type != NULL && strncasecmp(type, "application/json", 16) == 0 &&
           (type[16] == '\0' || type[16] == ';' || type[16] == ' ');
}

static bool must_be_json(struct evhttp_request *request)
{
    if (is_json(request)) {
        return true;
    }
    refuse(request, 415, "Unsupported Media Type", NULL, "Content-Type is not application/json");
    return false;
}

bool invalidate_http_may_order(const struct proxy *proxy, struct evhttp_request *request)
{
    return may_call(proxy, request) && must_be_json(request);
}

void invalidate_http_post(struct proxy *proxy, struct evhttp_request *request)
{
    struct evbuffer *input = evhttp_request_get_input_buffer(request);
    const size_t length = evbuffer_get_length(input);
    struct call call = {.proxy = proxy, .request = request};
    json_error_t error;
    char text[256];

    if (!may_call(proxy, request)) {
        return;
    }
    if (length > INVALIDATE_BODY_MAX) {
        refuse(request, HTTP_ENTITYTOOLARGE, "Request Entity Too Large", NULL,
               "the body is larger than 256 KiB");
        return;
    }
    if (!must_be_json(request)) {
        return;
    }
    call.body = length > 0 ? json_loadb((const char *)evbuffer_pullup(input, -1), length,
                                        JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error)
                           : NULL;
    if (!json_is_object(call.body)) {
        snprintf(text, sizeof(text), "not a JSON object%s%.160s",
                 length > 0 && call.body == NULL ? ": " : "",
                 length > 0 && call.body == NULL ? error.text : "");
        refuse_field(&call, NULL, text);
    } else {
        act(&call);
    }
    json_decref(call.body);
}

/* ---- GET /v1/bans, /v1/jobs ---- */

static json_t *json_of_ban(const struct ban_info *info)
{
    static const char *const kinds[] = {NULL, "prefix", "glob"};
    const struct ban_rule *rule = &info->rule;
    const bool is_timed = info->expires_at_us != CACHE_NO_DEADLINE;
    const int64_t left_ms = (info->expires_at_us - clock_now_us()) / 1000;
    char id[20];
    json_t *json;

    snprintf(id, sizeof(id), "%016" PRIx64, info->id);
    json = json_pack("{s:s, s:I, s:I, s:o, s:I}", "id", id, "older_ms",
                     (json_int_t)rule->min_age_ms, "larger_bytes", (json_int_t)rule->min_bytes,
                     "ttl_left_ms",
                     is_timed ? json_integer(left_ms > 0 ? left_ms : 0) : json_null(), "matched",
                     (json_int_t)info->n_dropped);
    if (rule->kind != BAN_ANY_NAME) {
        json_object_set_new(json, kinds[rule->kind], json_of_bytes(rule->name));
    }
    if (rule->ns >= 0) {
        json_object_set_new(json, "namespace",
                            json_string(config_namespace_name((unsigned)rule->ns)));
    }
    return json;
}

void invalidate_http_bans(struct proxy *proxy, struct evhttp_request *request)
{
    const unsigned max = (unsigned)proxy->config->max_bans;
    struct ban_info *infos;
    json_t *list;
    unsigned n;

    if (!may_call(proxy, request)) {
        return;
    }
    infos = mem_alloc(max * sizeof(*infos));
    list = json_array();
    n = bans_list(proxy->cache, infos, max);
    for (unsigned i = 0; i < n; i++) {
        json_array_append_new(list, json_of_ban(&infos[i]));
    }
    mem_free(infos);
    answer_json(request, HTTP_OK, "OK", json_pack("{s:o}", "bans", list));
}

static json_t *json_of_job(const struct unlink_info *info)
{
    static const char *const kinds[] = {"keys", "prefix", "glob", "namespace", "everything", "tag"};

    return json_pack(
        "{s:I, s:s, s:s, s:o, s:i, s:i, s:i, s:I, s:I, s:I, s:o, s:I}", "id", (json_int_t)info->id,
        "state", unlink_state_names[info->state], "match", kinds[info->kind], "name",
        json_of_bytes(bytes_make(info->name, info->name_len)), "db", (int)info->db, "masters",
        (int)info->n_masters, "masters_done", (int)info->n_masters_done, "scanned",
        (json_int_t)info->n_scanned, "removed", (json_int_t)info->n_removed, "errors",
        (json_int_t)info->n_errors, "error", json_of_bytes(bytes_of_string(info->error)), "took_ms",
        (json_int_t)info->took_ms);
}

void invalidate_http_jobs(struct proxy *proxy, struct evhttp_request *request)
{
    const unsigned max = UNLINK_KEPT + (unsigned)proxy->config->unlink_jobs;
    struct unlink_info *infos;
    json_t *list;
    unsigned n;

    if (!may_call(proxy, request)) {
        return;
    }
    infos = mem_alloc(max * sizeof(*infos));
    list = json_array();
    n = proxy->fleet.jobs != NULL ? unlink_jobs_list(proxy->fleet.jobs, infos, max) : 0;
    for (unsigned i = 0; i < n; i++) {
        json_array_append_new(list, json_of_job(&infos[i]));
    }
    mem_free(infos);
    answer_json(request, HTTP_OK, "OK", json_pack("{s:o}", "jobs", list));
}
