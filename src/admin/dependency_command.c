/*
 * CACHE DEPEND, UNDEPEND and DEPENDS: words in, coherence/dependency_orders.h, numbers out. The
 * first two are answered when the ledger has them: their request waits in the session's queue.
 */
#include "admin/cache_call.h"
#include "base/mem.h"
#include "coherence/dependencies.h"
#include "coherence/dependency_orders.h"
#include "coherence/ledger.h"
#include "proxy/request.h"

#include <stdio.h>

/* Names that DEPENDS shows of each kind. */
#define SHOWN_MAX 1000u

struct waiting {
    struct request *request;
    bool is_undo;
};

static void on_done(void *context, uint64_t n, const char *error)
{
    struct waiting *waiting = context;
    struct request *request = waiting->request;
    char line[40];

    if (error != NULL) {
        request_fail(request, "ERR nearcached: %s", error);
    } else {
        const int length = waiting->is_undo
                               ? snprintf(line, sizeof(line), ":%llu\r\n", (unsigned long long)n)
                               : snprintf(line, sizeof(line), "+OK\r\n");

        request_take_part(request, bytes_make(line, (size_t)length));
        request_done(request);
    }
    mem_free(waiting);
}

/* The request is queued last: nothing is answered before the order has begun. */
static void run_order(struct cache_call *call, struct dependency_order *order)
{
    struct waiting *waiting = mem_alloc(sizeof(*waiting));
    const char *error;

    waiting->is_undo = order->is_undo;
    order->db = call->session->db;
    order->derived = call->args[0];
    order->done = on_done;
    order->context = waiting;
    error = dependency_order_begin(&call->front->coherence, order);
    if (error != NULL) {
        resp_put_error(call->reply, "ERR nearcached: %s", error);
        mem_free(waiting);
        return;
    }
    waiting->request = request_queue(call->session, REQUEST_LOCAL, NULL);
}

void cache_run_depend(struct cache_call *call)
{
    struct dependency_order order = {.sources = call->args + 1, .n_sources = call->n_args - 1};

    run_order(call, &order);
}

static struct dependencies *table_of(const struct cache_call *call)
{
    return call->front->proxy->fleet.dependencies;
}

/* From whatever it is derived. */
static void run_undo_all(struct cache_call *call, struct dependency_order *order)
{
    struct bytes *sources = mem_alloc(DEPENDENCY_SOURCES_MAX * sizeof(*sources));
    struct buffer list;
    struct bytes rest;

    buffer_init(&list);
    if (dependencies_list(table_of(call), call->args[0], true, DEPENDENCY_SOURCES_MAX, &list) !=
        0) {
        resp_put_error(call->reply, "ERR nearcached: out of memory");
    } else {
        rest = buffer_bytes(&list);
        while (dependencies_next_name(&rest, &sources[order->n_sources])) {
            order->n_sources++;
            if (order->n_sources == DEPENDENCY_SOURCES_MAX) {
                break;
            }
        }
        order->sources = sources;
        if (order->n_sources == 0) {
            resp_put_integer(call->reply, 0);
        } else {
            run_order(call, order);
        }
    }
    buffer_fini(&list);
    mem_free(sources);
}

void cache_run_undepend(struct cache_call *call)
{
    struct dependency_order order = {
        .is_undo = true, .sources = call->args + 1, .n_sources = call->n_args - 1};

    if (order.n_sources == 0) {
        run_undo_all(call, &order);
    } else {
        run_order(call, &order);
    }
}

/* ---- DEPENDS ---- */

static void put_names(struct cache_call *call, const char *name, bool wants_sources)
{
    struct bytes rest, item;
    struct buffer list;
    size_t n = 0;

    buffer_init(&list);
    if (dependencies_list(table_of(call), call->args[0], wants_sources, SHOWN_MAX, &list) != 0) {
        buffer_consume(&list, buffer_len(&list));
    }
    for (rest = buffer_bytes(&list); dependencies_next_name(&rest, &item);) {
        n++;
    }
    resp_put_string(call->reply, name);
    resp_put_array(call->reply, n);
    for (rest = buffer_bytes(&list); dependencies_next_name(&rest, &item);) {
        resp_put_bulk(call->reply, item);
    }
    buffer_fini(&list);
}

struct derived {
    unsigned n;
    struct buffer reply;
};

/* What a rule makes of the key, or of anything where it is not known how. */
static void add_made(struct derived *derived, const struct captures_pattern *pattern,
                     const struct captures *found)
{
    unsigned char room[3 * CAPTURES_TEXT_MAX];
    struct resp_writer text = {.out = &derived->reply};
    size_t n = captures_expand(pattern, found, room);

    if (n == 0) {
        n = captures_glob(pattern, found, room, sizeof(room));
    }
    resp_put_bulk(&text, bytes_make(room, n));
    derived->n++;
}

static void put_rules(struct cache_call *call)
{
    const struct config *config = call->front->config;
    struct derived derived = {0};

    buffer_init(&derived.reply);
    for (unsigned i = 0; i < config->n_dependencies; i++) {
        const struct config_dependency *rule = &config->dependencies[i];
        struct captures found;

        if (!captures_match(rule->source_pattern, call->args[0], &found)) {
            continue;
        }
        for (unsigned j = 0; j < rule->derived.n; j++) {
            add_made(&derived, rule->derived_patterns[j], &found);
        }
    }
    resp_put_string(call->reply, "by-rules");
    resp_put_array(call->reply, derived.n);
    if (buffer_append(call->reply->out, buffer_bytes(&derived.reply)) != 0) {
        call->reply->has_failed = true;
    }
    buffer_fini(&derived.reply);
}

void cache_run_depends(struct cache_call *call)
{
    resp_put_map(call->reply, 3);
    put_names(call, "sources", true);
    put_names(call, "derived", false);
    put_rules(call);
}
