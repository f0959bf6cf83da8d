#include "admin/mode_http.h"

#include <stdlib.h>

#include "admin/changer.h"
#include "admin/order_http.h"
#include "base/mem.h"

/* A change that the workers have not all taken yet. Its order outlives it. */
struct change {
    struct proxy *proxy;
    struct order *order;
    int mode;
};

static void on_taken(void *context)
{
    struct change *change = context;
    const struct call call = {change->proxy, change->order, NULL};

    call_answer(&call, json_pack("{s:s}", "mode", config_mode_name(change->mode)));
    order_go_on(change->order);
    mem_free(change);
}

static const struct config_namespace *space_of(const struct config *config, const char *name)
{
    for (unsigned i = 0; name != NULL && i < config->n_namespaces; i++) {
        if (strcmp(config->namespaces[i].name, name) == 0) {
            return &config->namespaces[i];
        }
    }
    return NULL;
}

/* Where clients have to log in, who merely reaches the admin port changes nothing for them. */
static bool may_change(const struct call *call)
{
    const struct config *config = call->proxy->config;

    if (config->cache_command == CACHE_COMMAND_PASSWORD ||
        (config->requirepass[0] == '\0' && config->auth != AUTH_BACKEND)) {
        return true;
    }
    stats_add(METRIC_errors_auth, 1);
    call_refuse(call, 403, "Forbidden", "mode",
                "needs cache-command = password where clients have to log in");
    return false;
}

static void change_mode(const struct call *call, int mode, const char *space)
{
    const struct config_assignment set = {space, "mode", config_mode_name(mode)};
    struct change *change = mem_alloc(sizeof(*change));
    char *error;

    change->proxy = call->proxy;
    change->order = call->order;
    change->mode = mode;
    error = changer_set_now(call->proxy->changer, "admin port", &set, 1, on_taken, change);
    if (error != NULL) {
        call_refuse_field(call, "mode", error);
        free(error);
        mem_free(change);
    }
}

static void act(const struct call *call)
{
    struct order_mode order;
    struct order_fault fault;

    if (!order_read_mode(call->body, &order, &fault)) {
        call_refuse_fault(call, &fault);
    } else if (order.ns != NULL && space_of(call->proxy->config, order.ns) == NULL) {
        call_refuse_field(call, "namespace", "no such namespace");
    } else if (may_change(call)) {
        change_mode(call, order.mode, order.ns);
    }
}

void mode_http_post(struct proxy *proxy, struct evhttp_request *request)
{
    order_post(proxy, request, act);
}
