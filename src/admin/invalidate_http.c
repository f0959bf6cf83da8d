/*
 * One of the members of an order says what is to be done (actions[] below), others how; a member
 * that nobody knows is an error, so that a misspelt one does no harm. Strings are UTF-8: keys of
 * other bytes are for CACHE INVALIDATE.
 */
#include "admin/invalidate_http.h"

#include <inttypes.h>
#include <stdlib.h>
#include <strings.h>

#include "admin/order_http.h"
#include "admin/tell_http.h"
#include "base/clock.h"
#include "base/mem.h"
#include "coherence/invalidation.h"
#include "coherence/unlink.h"

/* ---- reading an order ---- */

/* False: refused. */
static bool take_scope(const struct call *call, struct invalidation *what)
{
    const json_t *scope = json_object_get(call->body, "scope");

    if (scope != NULL &&
        (!json_is_string(scope) || (strcasecmp(json_string_value(scope), "l1") != 0 &&
                                    strcasecmp(json_string_value(scope), "all") != 0))) {
        call_refuse_field(call, "scope", "neither \"l1\" nor \"all\"");
        return false;
    }
    what->is_all = scope != NULL && strcasecmp(json_string_value(scope), "all") == 0;
    return call_take_db(call, &what->db) && (!what->is_all || call_may_unlink(call));
}

/* ---- actions ---- */

static void run(const struct call *call, const char *field, const struct invalidation *what)
{
    struct invalidation_answer answer;
    json_t *json;

    if (!invalidation_run(&call->proxy->fleet, NULL, what, &answer)) {
        call_refuse_field(call, field, answer.error);
        return;
    }
    json = json_pack("{s:o, s:s, s:i}", "entries",
                     answer.is_counted ? json_integer((json_int_t)answer.n_entries) : json_null(),
                     "matched", answer.is_counted ? "at-once" : "lazily", "proxies",
                     (int)answer.n_proxies);
    if (answer.job != 0) {
        json_object_set_new(json, "job", json_integer((json_int_t)answer.job));
    }
    call_answer(call, json);
}

static void do_keys(const struct call *call, const json_t *value, struct invalidation *what)
{
    const size_t n = json_array_size(value);
    struct bytes *keys;

    if (!json_is_array(value) || n == 0 || n > INVALIDATE_KEYS_MAX) {
        call_refuse_field(call, "keys", "not an array of 1 to 10000 strings");
        return;
    }
    keys = mem_alloc(n * sizeof(*keys));
    for (size_t i = 0; i < n; i++) {
        const json_t *key = json_array_get(value, i);

        if (!json_is_string(key)) {
            call_refuse_field(call, "keys", "not an array of 1 to 10000 strings");
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
        call_refuse_field(call, field, "not a string");
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
        call_refuse_field(call, "everything", "not true");
        return;
    }
    what->kind = INVALIDATE_EVERYTHING;
    run(call, "everything", what);
}

static void do_tags(const struct call *call, const json_t *value, struct invalidation *what)
{
    tell_http_invalidate_tags(call, value, what->db, what->is_all);
}

static void do_event(const struct call *call, const json_t *value, struct invalidation *what)
{
    tell_http_publish(call, value, what->db, what->is_all);
}

/* ---- bans ---- */

#define TIME_MAX_MS (INT64_C(30) * 86400 * 1000)
#define SIZE_MAX_BYTES ((int64_t)1 << 32)

/* False: refused. */
static bool take_ban_name(const struct call *call, const json_t *ban, struct ban_rule *rule)
{
    const json_t *prefix = json_object_get(ban, "prefix");
    const json_t *glob = json_object_get(ban, "glob");
    const json_t *tag = json_object_get(ban, "tag");
    const json_t *ns = json_object_get(ban, "namespace");
    const json_t *name = prefix != NULL ? prefix : (glob != NULL ? glob : tag);
    const int n = (prefix != NULL) + (glob != NULL) + (tag != NULL);

    if (n > 0 && (!json_is_string(name) || n > 1)) {
        call_refuse_field(call, prefix != NULL ? "prefix" : (glob != NULL ? "glob" : "tag"),
                          "not one string");
        return false;
    }
    if (name != NULL) {
        rule->kind = prefix != NULL ? BAN_PREFIX : (glob != NULL ? BAN_GLOB : BAN_TAG);
        rule->name = bytes_of_json(name);
    }
    if (ns != NULL) {
        rule->ns = json_is_string(ns) ? config_namespace_find(bytes_of_json(ns)) : -1;
        if (rule->ns < 0) {
            call_refuse_field(call, "namespace", "no such namespace");
            return false;
        }
    }
    return true;
}

static void do_ban(const struct call *call, const json_t *value, struct invalidation *what)
{
    static const char *const known[] = {"prefix",   "glob",         "tag",    "namespace",
                                        "older_ms", "larger_bytes", "ttl_ms", NULL};
    struct ban_rule rule = {.ns = -1};
    struct invalidation_answer answer;
    int64_t n_bytes = 0, ttl_ms = 0;
    uint64_t id;
    char text[20];

    (void)what;
    if (!json_is_object(value) || json_object_size(value) == 0) {
        call_refuse_field(call, "ban", "not an object with a rule");
        return;
    }
    if (!call_has_known(call, value, known) || !take_ban_name(call, value, &rule) ||
        !call_take_integer(call, value, "older_ms", TIME_MAX_MS, &rule.min_age_ms) ||
        !call_take_integer(call, value, "larger_bytes", SIZE_MAX_BYTES, &n_bytes) ||
        !call_take_integer(call, value, "ttl_ms", TIME_MAX_MS, &ttl_ms)) {
        return;
    }
    rule.min_bytes = (size_t)n_bytes;
    if (rule.kind == BAN_ANY_NAME && rule.ns < 0 && rule.min_age_ms == 0 && n_bytes == 0) {
        call_refuse_field(call, "ban",
                          "needs prefix, glob, tag, namespace, older_ms or larger_bytes");
    } else if (!invalidation_ban(&call->proxy->fleet, NULL, &rule, ttl_ms, &id, &answer)) {
        call_refuse_field(call, "ban", answer.error);
    } else {
        snprintf(text, sizeof(text), "%016" PRIx64, id);
        call_answer(call, json_pack("{s:s, s:i}", "id", text, "proxies", (int)answer.n_proxies));
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
        call_refuse_field(call, "unban", "not the id of a ban");
        return;
    }
    const bool is_removed = invalidation_unban(&call->proxy->fleet, NULL, id, &answer);
    call_answer(call,
                json_pack("{s:b, s:i}", "removed", is_removed, "proxies", (int)answer.n_proxies));
}

static void do_cancel(const struct call *call, const json_t *value, struct invalidation *what)
{
    struct unlink_jobs *jobs = call->proxy->fleet.jobs;

    (void)what;
    if (!json_is_integer(value)) {
        call_refuse_field(call, "cancel", "not the number of a job");
        return;
    }
    const bool is_cancelled = jobs != NULL &&
                              unlink_jobs_cancel(jobs, (uint64_t)json_integer_value(value));
    call_answer(call, json_pack("{s:b}", "cancelled", is_cancelled));
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

    json_object_foreach((json_t *)(uintptr_t)call->body, name, value)
    {
        const struct action *action = find_action(name);

        if (action == NULL && strcmp(name, "scope") != 0 && strcmp(name, "db") != 0) {
            call_refuse_field(call, name, "unknown member");
            return;
        }
        if (action != NULL && chosen != NULL) {
            call_refuse_field(call, name, "more than one thing to do");
            return;
        }
        chosen = action != NULL ? action : chosen;
    }
    if (chosen == NULL) {
        call_refuse_field(
            call, NULL,
            "needs keys, prefix, glob, namespace, everything, tags, event, ban, unban or "
            "cancel");
    } else if (!chosen->has_scope && json_object_size(call->body) > 1) {
        call_refuse_field(call, json_object_get(call->body, "scope") != NULL ? "scope" : "db",
                          "does not go with what is to be done");
    } else if (take_scope(call, &what)) {
        chosen->run(call, json_object_get(call->body, chosen->name), &what);
    }
}

void invalidate_http_post(struct proxy *proxy, struct evhttp_request *request)
{
    order_post(proxy, request, act);
}

/* ---- GET /v1/bans, /v1/jobs ---- */

static json_t *json_of_ban(const struct ban_info *info)
{
    static const char *const kinds[] = {NULL, "prefix", "glob", "tag"};
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

    if (!order_may(proxy, request)) {
        return;
    }
    infos = mem_alloc(max * sizeof(*infos));
    list = json_array();
    n = bans_list(proxy->cache, infos, max);
    for (unsigned i = 0; i < n; i++) {
        json_array_append_new(list, json_of_ban(&infos[i]));
    }
    mem_free(infos);
    order_answer_json(request, HTTP_OK, "OK", json_pack("{s:o}", "bans", list));
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

    if (!order_may(proxy, request)) {
        return;
    }
    infos = mem_alloc(max * sizeof(*infos));
    list = json_array();
    n = proxy->fleet.jobs != NULL ? unlink_jobs_list(proxy->fleet.jobs, infos, max) : 0;
    for (unsigned i = 0; i < n; i++) {
        json_array_append_new(list, json_of_job(&infos[i]));
    }
    mem_free(infos);
    order_answer_json(request, HTTP_OK, "OK", json_pack("{s:o}", "jobs", list));
}
