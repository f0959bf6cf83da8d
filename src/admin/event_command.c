/*
 * CACHE SUBSCRIBE, UNSUBSCRIBE, PUBLISH and EVENTS: coherence/events.h, answered when the backend
 * has been asked.
 */
#include "admin/cache_call.h"
#include "base/mem.h"
#include "coherence/events.h"
#include "proxy/request.h"

/* Subscriptions that EVENTS shows. */
#define LIST_MAX 10000u

/* A request whose answer comes later. */
struct waiting {
    struct request *request; /* outlives its session */
    bool shows_drops;        /* of PUBLISH */
    struct buffer list;      /* of EVENTS: maps, one behind the other */
    uint64_t n_listed;
};

static struct events *events_of(struct cache_call *call)
{
    return call->front->coherence.events;
}

static void put_pair(struct resp_writer *reply, const char *name, uint64_t value)
{
    resp_put_string(reply, name);
    resp_put_integer(reply, (int64_t)value);
}

static void put_drops(struct resp_writer *reply, const struct events_answer *answer)
{
    resp_put_map(reply, answer->n_jobs > 0 ? 6 : 4);
    resp_put_string(reply, "entries");
    if (answer->is_counted) {
        resp_put_integer(reply, (int64_t)answer->n_entries);
    } else {
        resp_put_null(reply);
    }
    resp_put_string(reply, "matched");
    resp_put_string(reply, answer->is_counted ? "at-once" : "lazily");
    put_pair(reply, "names", answer->n_names);
    put_pair(reply, "proxies", answer->n_proxies);
    if (answer->n_jobs > 0) {
        put_pair(reply, "jobs", answer->n_jobs);
        put_pair(reply, "job", answer->job);
    }
}

static void put_answer(struct resp_writer *reply, const struct waiting *waiting,
                       const struct events_answer *answer)
{
    if (waiting->shows_drops) {
        put_drops(reply, answer);
    } else {
        resp_put_integer(reply, (int64_t)answer->n);
    }
}

static void answer(struct waiting *waiting, const struct events_answer *result,
                   void (*put)(struct resp_writer *reply, const struct waiting *waiting,
                               const struct events_answer *answer))
{
    struct buffer room;
    struct resp_writer reply = {.out = &room, .is_resp3 = waiting->request->proto == 3};

    buffer_init(&room);
    if (result->error == NULL) {
        put(&reply, waiting, result);
    }
    if (result->error != NULL) {
        request_fail(waiting->request, "ERR nearcached: %s", result->error);
    } else if (reply.has_failed) {
        request_fail(waiting->request, "ERR nearcached: out of memory");
    } else {
        request_take_part(waiting->request, buffer_bytes(&room));
        request_done(waiting->request);
    }
    buffer_fini(&room);
    buffer_fini(&waiting->list);
    mem_free(waiting);
}

static void on_done(void *context, const struct events_answer *result)
{
    answer(context, result, put_answer);
}

static struct waiting *wait(struct cache_call *call)
{
    struct waiting *waiting = mem_alloc(sizeof(*waiting));

    waiting->request = request_queue(call->session, REQUEST_LOCAL, NULL);
    buffer_init(&waiting->list);
    /* What follows in a pipeline is not answered by what the event drops. */
    waiting->request->suspends = true;
    session_suspend(call->session, false);
    return waiting;
}

/* NULL: it is answered, or will be. */
static void refuse(struct waiting *waiting, const char *error)
{
    if (error != NULL) {
        stats_add(METRIC_orders_refused, 1);
        request_fail(waiting->request, "ERR %s", error);
        buffer_fini(&waiting->list);
        mem_free(waiting);
    }
}

void cache_run_subscribe(struct cache_call *call)
{
    struct waiting *waiting = wait(call);

    refuse(waiting, events_subscribe(events_of(call), call->args[0], call->args + 1,
                                     call->n_args - 1, call->session->db, on_done, waiting));
}

void cache_run_unsubscribe(struct cache_call *call)
{
    struct waiting *waiting = wait(call);

    refuse(waiting, events_unsubscribe(events_of(call), call->args[0], call->args + 1,
                                       call->n_args - 1, call->session->db, on_done, waiting));
}

void cache_run_publish(struct cache_call *call)
{
    const bool is_all = call->n_args == 2 && bytes_equal_nocase(call->args[0], BYTES("ALL"));
    const struct events_order order = {
        .event = call->args[call->n_args - 1], .db = call->session->db, .is_all = is_all};
    struct waiting *waiting;

    if (call->n_args == 2 && !is_all && !bytes_equal_nocase(call->args[0], BYTES("L1"))) {
        resp_put_error(call->reply, "ERR syntax error");
        return;
    }
    if (is_all && !cache_may_unlink(call)) {
        return;
    }
    waiting = wait(call);
    waiting->shows_drops = true;
    refuse(waiting, events_publish(events_of(call), &order, on_done, waiting));
}

/* ---- EVENTS ---- */

static void put_one(struct resp_writer *reply, const char *from, struct bytes event,
                    struct bytes name, unsigned db)
{
    resp_put_map(reply, 4);
    resp_put_string(reply, "event");
    resp_put_bulk(reply, event);
    resp_put_string(reply, "drops");
    resp_put_bulk(reply, name);
    put_pair(reply, "db", db);
    resp_put_string(reply, "from");
    resp_put_string(reply, from);
}

static void list_one(struct waiting *waiting, const char *from, struct bytes event,
                     struct bytes name, unsigned db)
{
    struct resp_writer writer = {.out = &waiting->list, .is_resp3 = waiting->request->proto == 3};

    put_one(&writer, from, event, name, db);
    waiting->n_listed++;
}

static void on_subscription(void *context, struct bytes event, struct bytes name, unsigned db)
{
    list_one(context, "subscription", event, name, db);
}

static void put_list(struct resp_writer *reply, const struct waiting *waiting,
                     const struct events_answer *result)
{
    (void)result;
    resp_put_array(reply, waiting->n_listed);
    resp_put_raw(reply, buffer_bytes(&waiting->list));
}

static void on_listed(void *context, const struct events_answer *result)
{
    answer(context, result, put_list);
}

static void list_rule(struct waiting *waiting, const struct event_rule *rule, unsigned db)
{
    static const char *const kinds[] = {"rule", "rule-namespace", "rule-tag"};

    for (unsigned i = 0; i < rule->n_targets; i++) {
        list_one(waiting, kinds[rule->targets[i].kind], captures_text(rule->match),
                 captures_text(rule->targets[i].name), db);
    }
}

void cache_run_events(struct cache_call *call)
{
    const struct event_rules *rules = call->front->config->events;
    const struct bytes glob = call->n_args > 0 ? call->args[0] : (struct bytes){0};
    struct waiting *waiting = wait(call);

    for (unsigned i = 0; i < rules->n_rules; i++) {
        if (glob.len == 0 || bytes_match_glob(glob, captures_text(rules->rules[i].match))) {
            list_rule(waiting, &rules->rules[i], call->session->db);
        }
    }
    refuse(waiting,
           events_list(events_of(call), glob, LIST_MAX, on_subscription, on_listed, waiting));
}
