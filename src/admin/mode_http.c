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

static int mode_of(const char *name)
{
    for (int mode = MODE_ON; name != NULL && mode <= MODE_OFF; mode++) {
        if (strcmp(config_mode_name(mode), name) == 0) {
            return mode;
        }
    }
    return -1;
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
    static const char *const known[] = {"mode", "namespace", NULL};
    const json_t *space = json_object_get(call->body, "namespace");
    const int mode = mode_of(json_string_value(json_object_get(call->body, "mode")));

    if (!call_has_known(call, call->body, known)) {
        return;
    }
    if (mode < 0) {
        call_refuse_field(call, "mode", "none of \"on\", \"bypass\", \"readonly\", \"off\"");
    } else if (space != NULL && space_of(call->proxy->config, json_string_value(space)) == NULL) {
        call_refuse_field(call, "namespace", "no such namespace");
    } else if (may_change(call)) {
        change_mode(call, mode, json_string_value(space));
    }
}

void mode_http_post(struct proxy *proxy, struct evhttp_request *request)
{
    order_post(proxy, request, act);
}
