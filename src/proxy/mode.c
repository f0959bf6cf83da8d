#include "proxy/mode.h"

#include "base/stats.h"
#include "proxy/pause.h"
#include "proxy/transaction.h"

#include <strings.h>

static bool is_named(const struct command *command, const char *name)
{
    return strcasecmp(command->name, name) == 0;
}

/* What serves the connection, and those who look why; nothing of it reaches a key. */
static bool is_always_allowed(const struct command *command)
{
    static const char *const names[] = {"discard",      "unwatch",     "multi",
                                        "exec",         "unsubscribe", "punsubscribe",
                                        "sunsubscribe", "command",     "info"};

    switch ((enum command_class)command->class) {
    case CLASS_PROXY:
    case CLASS_CONNECTION:
    case CLASS_REFUSED:
        return true;
    case CLASS_LOCAL:
        return command->handler != HANDLER_config && command->handler != HANDLER_publish &&
               command->handler != HANDLER_forward;
    default:
        break;
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (is_named(command, names[i])) {
            return true;
        }
    }
    return false;
}

/* A replica would refuse it, too. What is not known here may write. */
static bool writes(const struct dispatch_call *call)
{
    const struct command *command = call->command;

    if (command == NULL) {
        return true;
    }
    if (strncasecmp(command->name, "function ", 9) == 0) {
        return (command->flags & COMMAND_MAY_REPLICATE) != 0;
    }
    return (command->flags & COMMAND_WRITES) != 0 && pause_may_write(call);
}

/* The strictest that holds for what the call names; *space: whose it is, NULL: everybody's. */
static int mode_of_keys(const struct session *session, const struct dispatch_call *call,
                        bool is_write, const struct config_namespace **space)
{
    const struct config *config = session->front->config;
    struct command_key_list keys = {0};
    int found = MODE_ON;

    if (call->command == NULL || (call->command->flags & COMMAND_CHANNEL) != 0 ||
        !command_find_keys(call->command, call->argv, call->argc, &keys)) {
        return MODE_ON;
    }
    for (unsigned i = 0; i < keys.n && found != MODE_OFF; i++) {
        const struct config_namespace *of = config_namespace_of(config, call->argv[keys.at[i]]);

        if (of->refuses_all || (of->refuses_writes && is_write && found == MODE_ON)) {
            found = of->refuses_all ? MODE_OFF : MODE_READONLY;
            *space = of;
        }
    }
    command_key_list_fini(&keys);
    return found;
}

/* FLUSHALL and its kind reach into every namespace. */
static int mode_of_all(const struct config *config, const struct config_namespace **space)
{
    for (unsigned i = 0; i < config->n_namespaces; i++) {
        const struct config_namespace *of = &config->namespaces[i];

        if (of->refuses_all || of->refuses_writes) {
            *space = of;
            return of->refuses_all ? MODE_OFF : MODE_READONLY;
        }
    }
    return MODE_ON;
}

static int mode_for(const struct session *session, const struct dispatch_call *call,
                    const struct config_namespace **space)
{
    const struct config *config = session->front->config;
    const bool is_write = writes(call);

    if (config->mode == MODE_OFF) {
        return MODE_OFF;
    }
    if (config->mode == MODE_READONLY && is_write) {
        return MODE_READONLY;
    }
    if (call->command != NULL && (call->command->flags & COMMAND_FLUSHES) != 0) {
        return mode_of_all(config, space);
    }
    return mode_of_keys(session, call, is_write, space);
}

bool mode_refuses(struct session *session, const struct dispatch_call *call)
{
    return (call->command == NULL ||
            (!is_always_allowed(call->command) && command_arity_fits(call->command, call->argc))) &&
           mode_refuses_upload(session, call);
}

bool mode_refuses_upload(struct session *session, const struct dispatch_call *call)
{
    const struct config_namespace *space = NULL;
    const int mode = mode_for(session, call, &space);

    if (mode == MODE_ON) {
        return false;
    }
    stats_add(METRIC_errors_mode, 1);
    transaction_spoil(session);
    session_error(session, "%s (CACHE MODE %s%s%s)",
                  mode == MODE_OFF ? "ERR nearcached: switched off"
                                   : "READONLY nearcached: writes are refused",
                  config_mode_name(mode), space != NULL ? ", namespace " : "",
                  space != NULL ? space->name : "");
    return true;
}

static const struct config_namespace *find(const struct config *config, uint8_t id)
{
    for (unsigned i = 0; i < config->n_namespaces; i++) {
        if (config->namespaces[i].id == id) {
            return &config->namespaces[i];
        }
    }
    return NULL;
}

/* Something is refused that was not; *is_off: reads, too. */
static bool is_stricter(const struct config *former, const struct config *config, bool *is_off)
{
    bool found = false;

    *is_off = config->mode == MODE_OFF;
    for (unsigned i = 0; i < config->n_namespaces; i++) {
        const struct config_namespace *now = &config->namespaces[i];
        const struct config_namespace *before = find(former, now->id);

        if (now->refuses_all && (before == NULL || !before->refuses_all)) {
            found = *is_off = true;
        }
        found = found || (now->refuses_writes && (before == NULL || !before->refuses_writes));
    }
    return found;
}

void mode_take_config(struct front *front, const struct config *former)
{
    const struct config *config = front->config;
    bool is_off;

    front->is_restricted = config->has_refusals;
    if (!config->has_refusals || !is_stricter(former, config, &is_off)) {
        return;
    }
    for (struct session *session = front->sessions; session != NULL; session = session->next) {
        if (is_off || transaction_writes(session)) {
            transaction_spoil(session);
        }
    }
}
