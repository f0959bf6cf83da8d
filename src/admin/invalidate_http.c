#include "admin/invalidate_http.h"

#include <inttypes.h>

#include "admin/order_http.h"
#include "admin/tell_http.h"
#include "base/clock.h"
#include "base/mem.h"
#include "coherence/invalidation.h"
#include "coherence/unlink.h"

/* ---- POST /v1/invalidate ---- */

static void drop(const struct call *call, const struct order_invalidate *order)
{
    const size_t n = json_array_size(order->names);
    struct bytes *const keys = n > 0 ? mem_alloc(n * sizeof(*keys)) : NULL;
    struct invalidation what = order->what;
    struct invalidation_answer answer;
    json_t *json;

    for (size_t i = 0; i < n; i++) {
        keys[i] = bytes_of_json(json_array_get(order->names, i));
    }
    what.keys = keys;
    what.n_keys = n;
    const bool is_done = invalidation_run(&call->proxy->fleet, NULL, &what, &answer);
    mem_free(keys);
    if (!is_done) {
        call_refuse_field(call, order->field, answer.error);
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

static void ban(const struct call *call, const struct order_invalidate *order)
{
    struct ban_rule rule = order->rule;
    struct invalidation_answer answer;
    uint64_t id;
    char text[20];

    if (order->ns.ptr != NULL) {
        rule.ns = config_namespace_find(order->ns);
        if (rule.ns < 0) {
            call_refuse_field(call, "namespace", "no such namespace");
            return;
        }
    }
    if (!invalidation_ban(&call->proxy->fleet, NULL, &rule, order->ttl_ms, &id, &answer)) {
        call_refuse_field(call, "ban", answer.error);
        return;
    }
    (void)snprintf(text, sizeof(text), "%016" PRIx64, id);
    call_answer(call, json_pack("{s:s, s:i}", "id", text, "proxies", (int)answer.n_proxies));
}

static void unban(const struct call *call, uint64_t id)
{
    struct invalidation_answer answer;
    const bool is_removed = invalidation_unban(&call->proxy->fleet, NULL, id, &answer);

    call_answer(call,
                json_pack("{s:b, s:i}", "removed", is_removed, "proxies", (int)answer.n_proxies));
}

static void cancel(const struct call *call, uint64_t job)
{
    struct unlink_jobs *const jobs = call->proxy->fleet.jobs;
    const bool is_cancelled = jobs != NULL && unlink_jobs_cancel(jobs, job);

    call_answer(call, json_pack("{s:b}", "cancelled", is_cancelled));
}

static void act(const struct call *call)
{
    struct order_invalidate order;
    struct order_fault fault;

    if (!order_read_invalidate(call->body, call_db(call), &order, &fault)) {
        call_refuse_fault(call, &fault);
        return;
    }
    if (order.what.is_all && !call_may_unlink(call)) {
        return;
    }
    switch (order.action) {
    case ORDER_DROP:
        drop(call, &order);
        return;
    case ORDER_DROP_TAGS:
        tell_http_invalidate_tags(call, &order);
        return;
    case ORDER_PUBLISH:
        tell_http_publish(call, &order);
        return;
    case ORDER_BAN:
        ban(call, &order);
        return;
    case ORDER_UNBAN:
        unban(call, order.id);
        return;
    case ORDER_CANCEL:
        cancel(call, order.id);
        return;
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
