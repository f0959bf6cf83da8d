#include "admin/audit_report.h"

#include <inttypes.h>
#include <stdio.h>

#include "admin/info.h"
#include "admin/metric_table.h"
#include "base/clock.h"
#include "base/mem.h"
#include "coherence/audit.h"
#include "proxy/request.h"

/* Room for the arguments of every view. */
#define ARGS_ROOM (CACHE_VIEWS_MAX * CACHE_COPY_MAX)

static uint64_t sum_of(enum ns_metric metric)
{
    uint64_t sum = 0;

    for (unsigned ns = 0; ns < config_namespace_count(); ns++) {
        sum += stats_ns_sum(ns, metric);
    }
    return sum;
}

static double ratio(uint64_t part, uint64_t whole)
{
    return whole == 0 ? 0 : (double)part / (double)whole;
}

double audit_stale_ratio(void)
{
    return ratio(sum_of(NS_METRIC_audits_stale), metric_total("audits_total"));
}

void audit_report_info(const struct config *config, struct resp_writer *text)
{
    const uint64_t hits = sum_of(NS_METRIC_dry_hits);

    info_line(text, "nearcached_audits:%" PRIu64, metric_total("audits_total"));
    info_line(text, "nearcached_audits_stale:%" PRIu64, sum_of(NS_METRIC_audits_stale));
    info_line(text, "nearcached_audits_skipped:%" PRIu64, metric_total("audits_skipped_total"));
    info_line(text, "nearcached_stale_ratio:%.6f", audit_stale_ratio());
    info_line(text, "nearcached_dry_run:%d", config->dry_run);
    if (config->dry_run) {
        info_line(text, "nearcached_dry_run_hits:%" PRIu64, hits);
        info_line(text, "nearcached_dry_run_misses:%" PRIu64, sum_of(NS_METRIC_dry_misses));
        info_line(text, "nearcached_dry_run_hit_ratio:%.4f",
                  ratio(hits, hits + sum_of(NS_METRIC_dry_misses)));
    }
}

/* ---- CACHE AUDIT ---- */

static void put_count(struct resp_writer *reply, const char *name, uint64_t value)
{
    resp_put_string(reply, name);
    resp_put_integer(reply, (int64_t)value);
}

static void put_ratio(struct resp_writer *reply, const char *name, double value)
{
    char text[32];

    snprintf(text, sizeof(text), "%.6f", value);
    resp_put_string(reply, name);
    resp_put_string(reply, text);
}

void audit_report(const struct config *config, struct resp_writer *reply)
{
    const uint64_t hits = sum_of(NS_METRIC_dry_hits);
    const uint64_t misses = sum_of(NS_METRIC_dry_misses);

    resp_put_map(reply, 15);
    put_count(reply, "audit-sample", (uint64_t)config->audit_sample);
    put_count(reply, "audit-rate", (uint64_t)config->audit_rate);
    put_count(reply, "same", sum_of(NS_METRIC_audits_same));
    put_count(reply, "changed", sum_of(NS_METRIC_audits_changed));
    put_count(reply, "stale", sum_of(NS_METRIC_audits_stale));
    put_count(reply, "skipped", metric_total("audits_skipped_total"));
    put_ratio(reply, "stale-ratio", audit_stale_ratio());
    put_count(reply, "stale-tracking", sum_of(NS_METRIC_stale_tracking));
    put_count(reply, "stale-replica", sum_of(NS_METRIC_stale_replica));
    put_count(reply, "stale-ttl-mode", sum_of(NS_METRIC_stale_ttl_mode));
    put_count(reply, "stale-keyspace", sum_of(NS_METRIC_stale_keyspace));
    put_count(reply, "stale-field-ttl", sum_of(NS_METRIC_stale_field_ttl));
    resp_put_string(reply, "dry-run");
    resp_put_string(reply, config->dry_run ? "on" : "off");
    put_count(reply, "dry-run-hits", hits);
    put_ratio(reply, "dry-run-hit-ratio", ratio(hits, hits + misses));
}

/* ---- CACHE AUDIT key ---- */

struct key_audit;

struct view_audit {
    struct key_audit *key;
    const struct command *command;
    struct bytes args;
    struct audit_verdict verdict;
};

struct key_audit {
    struct request *request; /* outlives its session */
    unsigned n, n_left;
    struct view_audit views[CACHE_VIEWS_MAX];
    unsigned char room[ARGS_ROOM];
};

static void put_view(struct resp_writer *reply, const struct view_audit *view)
{
    const struct audit_verdict *verdict = &view->verdict;
    const bool is_stale = verdict->result == AUDIT_STALE;
    struct bytes at = view->args;
    struct resp_value value;
    size_t n = 0;

    resp_put_map(reply, is_stale ? 6 : 3);
    resp_put_string(reply, "command");
    resp_put_string(reply, view->command->name);
    while (resp_next(&at, &value)) {
        n++;
    }
    resp_put_string(reply, "args");
    resp_put_array(reply, n);
    for (at = view->args; n > 0 && resp_next(&at, &value); n--) {
        resp_put_bulk(reply, value.text);
    }
    resp_put_string(reply, "result");
    resp_put_string(reply, audit_result_name(verdict->result));
    if (is_stale) {
        resp_put_string(reply, "cause");
        resp_put_string(reply, audit_cause_name(verdict->cause));
        put_count(reply, "stale-for-at-least-ms", (uint64_t)(verdict->at_least_us / 1000));
        put_count(reply, "read-at-most-ms-ago", (uint64_t)(verdict->at_most_us / 1000));
    }
}

static void answer(struct key_audit *key)
{
    struct buffer room;
    struct resp_writer reply = {.out = &room, .is_resp3 = key->request->proto == 3};

    buffer_init(&room);
    resp_put_array(&reply, key->n);
    for (unsigned i = 0; i < key->n; i++) {
        put_view(&reply, &key->views[i]);
    }
    if (reply.has_failed) {
        request_fail(key->request, "ERR nearcached: out of memory");
    } else {
        request_take_part(key->request, buffer_bytes(&room));
        request_done(key->request);
    }
    buffer_fini(&room);
    mem_free(key);
}

static void on_verdict(void *context, const struct audit_verdict *verdict)
{
    struct view_audit *view = context;

    view->verdict = *verdict;
    if (--view->key->n_left == 0) {
        answer(view->key);
    }
}

void audit_report_key(struct session *session, struct bytes key, struct resp_writer *reply)
{
    struct front *front = session->front;
    struct key_audit *audit = mem_try_alloc(sizeof(*audit));
    struct cache_view_info infos[CACHE_VIEWS_MAX];
    struct cache_query query = {
        .key = key,
        .hash = cache_hash(key),
        .db = session->scope,
        .now_us = clock_now_us(),
        .max_staleness_us = front->config->max_staleness_ms * 1000,
    };

    if (audit == NULL) {
        resp_put_error(reply, "ERR nearcached: out of memory");
        return;
    }
    audit->n = key.len > CACHE_KEY_MAX
                   ? 0
                   : cache_inspect(front->proxy->cache, key, session->scope, query.now_us, infos,
                                   CACHE_VIEWS_MAX, audit->room, sizeof(audit->room));
    if (audit->n == 0) {
        resp_put_array(reply, 0);
        mem_free(audit);
        return;
    }
    audit->request = request_queue(session, REQUEST_LOCAL, NULL);
    audit->n_left = audit->n;
    for (unsigned i = 0; i < audit->n; i++) {
        audit->views[i] = (struct view_audit){
            .key = audit, .command = command_at(infos[i].command), .args = infos[i].args};
    }
    /* The last one may be over at once, and the whole with it. */
    for (unsigned i = 0, n = audit->n; i < n; i++) {
        query.command = infos[i].command;
        query.args = infos[i].args;
        audit_view(front->coherence.auditor, &query, audit->views[i].command, on_verdict,
                   &audit->views[i]);
    }
}
