/* The three layers one upon another, and the life of a snapshot. */
#include "config/config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "config/arguments.h"
#include "config/changes.h"
#include "config/draft.h"
#include "config/file.h"
#include "config/nearest.h"

#define PREFIX "NEARCACHED_"

/* -- The environment -------------------------------------------------------------------------- */

/*
 * Beside a Service called nearcached (or nearcached-something) Kubernetes gives every pod variables
 * such as NEARCACHED_SERVICE_HOST and NEARCACHED_PORT_6380_TCP_ADDR.
 */
static bool is_from_kubernetes(const char *name)
{
    const size_t len = strlen(name), port_len = strlen("_PORT");

    return strstr(name, "_SERVICE_HOST") != NULL || strstr(name, "_SERVICE_PORT") != NULL ||
           strstr(name, "_PORT_") != NULL ||
           (len >= port_len && strcmp(name + len - port_len, "_PORT") == 0);
}

/* A misspelt NEARCACHED_REQUIREPASS must not leave the door open in silence. */
static void check_variable(struct config_draft *draft, const char *name)
{
    struct nearest nearest = {.word = name};
    unsigned n;
    const struct config_option *const options = config_options(&n);

    if (strcmp(name, PREFIX "CONFIG") == 0 || is_from_kubernetes(name)) {
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        if (options[i].is_local) {
            continue;
        }
        if (strcmp(name, options[i].variable) == 0) {
            return;
        }
        nearest_offer(&nearest, options[i].variable);
    }
    draft_error(draft, LAYER_ENVIRONMENT, 0, "unknown variable %s%s%s%s",
                log_quote(bytes_of_string(name)), nearest.found != NULL ? ", did you mean " : "",
                nearest.found != NULL ? nearest.found : "", nearest.found != NULL ? "?" : "");
}

static void apply_environment(struct config_draft *draft)
{
    unsigned n;
    const struct config_option *const options = config_options(&n);

    for (unsigned i = 0; i < n; i++) {
        const char *const value = options[i].is_local ? NULL : getenv(options[i].variable);

        if (value != NULL) {
            draft_set(draft, &options[i], LAYER_ENVIRONMENT, 0, value);
        }
    }
    for (char **variable = environ; variable != NULL && *variable != NULL; variable++) {
        if (strncmp(*variable, PREFIX, strlen(PREFIX)) == 0) {
            char *const name = strndup(*variable, strcspn(*variable, "="));

            CHECK(name != NULL);
            check_variable(draft, name);
            free(name);
        }
    }
}

/* -- Loading ---------------------------------------------------------------------------------- */

/* A reload forgets what was set, but not what somebody pulled in an emergency. */
static void keep_modes(const struct config_changes *former, struct config_changes *changes,
                       const struct config_draft *draft)
{
    for (unsigned i = 0; i < former->n_items; i++) {
        const struct config_change_item *const item = &former->items[i];

        if (strcmp(item->name, "mode") == 0 &&
            (item->space == NULL || draft_has_namespace(draft, item->space))) {
            changes_set(changes, item->space, item->name, item->value);
        }
    }
}

/* How a configuration is made anew while another one is in force. */
struct follow {
    const struct config *in_force;
    enum draft_restart restart;
    FILE *notes;
};

/* All layers; n_errors counts those reported before. Takes changes, NULL: the file is read. */
static int load(struct config_source *source, const struct follow *follow,
                struct config_changes *changes, unsigned n_errors, struct config **out,
                FILE *errors)
{
    struct config_draft *draft = draft_new(source->file_name, errors);
    struct config *config;

    if (follow != NULL) {
        draft_follow(draft, follow->in_force, follow->restart, follow->notes);
    }
    if (changes == NULL) {
        changes = changes_read(source->file_name, follow != NULL, draft);
    }
    changes_apply_text(changes, draft);
    if (follow != NULL && follow->restart == RESTART_KEEP) {
        keep_modes(follow->in_force->changes, changes, draft);
    }
    apply_environment(draft);
    config_source_apply(source, draft);
    changes_apply_items(changes, draft);
    config = draft_finish(draft);
    draft_free(&draft);
    if (config == NULL) {
        changes_free(&changes);
        return -EINVAL;
    }
    config->source = config_source_ref(source);
    config->changes = changes;
    if (n_errors > 0) {
        config_unref(&config);
        return -EINVAL;
    }
    *out = config;
    return 0;
}

int config_load(int argc, char **argv, enum config_action *action, struct config **out,
                FILE *errors)
{
    enum config_action asked;
    unsigned n_errors;
    struct config_source *source = config_source_new(argc, argv, &asked, errors, &n_errors);
    int error = n_errors > 0 ? -EINVAL : 0;

    if (asked == CONFIG_RUN || asked == CONFIG_TEST) {
        error = load(source, NULL, NULL, n_errors, out, errors);
    }
    config_source_unref(&source);
    if (error == 0) {
        *action = asked;
    }
    return error;
}

int config_reload(const struct config *current, struct config **out, FILE *errors, FILE *notes)
{
    const struct follow follow = {current, RESTART_KEEP, notes};

    CHECK(current->source != NULL);
    return load(current->source, &follow, NULL, 0, out, errors);
}

int config_set(const struct config *current, const struct config_assignment *set, unsigned n,
               struct config **out, FILE *errors)
{
    const struct follow follow = {current, RESTART_REFUSE, NULL};
    struct config_changes *const changes = changes_copy(current->changes);

    CHECK(current->source != NULL);
    for (unsigned i = 0; i < n; i++) {
        changes_set(changes, set[i].space, set[i].name, set[i].value);
    }
    return load(current->source, &follow, changes, 0, out, errors);
}

static bool has_namespace(const struct config *config, const char *name)
{
    for (unsigned i = 0; i < config->n_namespaces; i++) {
        if (strcmp(config->namespaces[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

void config_modes_set(const struct config *config, FILE *out)
{
    const struct config_changes *const changes = config->changes;

    for (unsigned i = 0; i < changes->n_items; i++) {
        const struct config_change_item *const item = &changes->items[i];

        if (strcmp(item->name, "mode") == 0) {
            fprintf(out, "%s=%s ", item->space != NULL ? item->space : "", item->value);
        }
    }
}

int config_set_modes(const struct config *current, const char *text, struct config **out,
                     FILE *errors)
{
    struct config_assignment set[CONFIG_NAMESPACES_MAX + 1];
    char *const copy = mem_strdup(text);
    char *rest = copy, *word;
    unsigned n = 0;

    while (n <= CONFIG_NAMESPACES_MAX && (word = strsep(&rest, " ")) != NULL) {
        char *const equals = strchr(word, '=');

        if (equals == NULL) {
            continue;
        }
        *equals = '\0';
        /* The new file may lack a namespace of the former one. */
        if (word[0] == '\0' || has_namespace(current, word)) {
            set[n++] = (struct config_assignment){word[0] == '\0' ? NULL : word, "mode",
                                                  equals + 1};
        }
    }

    const int error = config_set(current, set, n, out, errors);

    mem_free(copy);
    return error;
}

int config_parse(struct bytes text, const char *file_name, struct config **out, FILE *errors)
{
    struct config_draft *draft = draft_new(file_name, errors);
    struct config *config;

    if (text.len > 0) {
        /* fmemopen() does not write to what is opened for reading. */
        FILE *const file = fmemopen((void *)(uintptr_t)text.ptr, text.len, "r");

        CHECK(file != NULL);
        config_file_read(file, draft);
        (void)fclose(file);
    }
    config = draft_finish(draft);
    draft_free(&draft);
    if (config == NULL) {
        return -EINVAL;
    }
    *out = config;
    return 0;
}

/* -- Snapshots -------------------------------------------------------------------------------- */

const char *config_file_name(const struct config *config)
{
    return config->source == NULL ? NULL : config->source->file_name;
}

struct config *config_ref(struct config *config)
{
    atomic_fetch_add_explicit(&config->n_refs, 1, memory_order_relaxed);
    return config;
}

void config_unref(struct config **config)
{
    struct config *const last = *config;

    *config = NULL;
    /* Release what was read here, acquire what others did: the last one frees. */
    if (last == NULL || atomic_fetch_sub_explicit(&last->n_refs, 1, memory_order_acq_rel) > 1) {
        return;
    }
    config_source_unref(&last->source);
    changes_free(&last->changes);
    draft_discard_config(last);
}
