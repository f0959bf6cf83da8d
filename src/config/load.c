/* The three layers one upon another, and the life of a snapshot. */
#include "config/config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "config/arguments.h"
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

static void apply_file(struct config_draft *draft, const char *file_name)
{
    FILE *const file = fopen(file_name, "re");

    if (file == NULL) {
        draft_error(draft, LAYER_FILE, 0, "cannot be opened: %s", strerror(errno));
        return;
    }
    config_file_read(file, draft);
    (void)fclose(file);
}

/* All layers; n_errors counts those reported before. */
static int load(struct config_source *source, const struct config *in_force, unsigned n_errors,
                struct config **out, FILE *errors)
{
    struct config_draft *draft = draft_new(source->file_name, errors);
    struct config *config;

    if (source->file_name != NULL) {
        apply_file(draft, source->file_name);
    }
    apply_environment(draft);
    config_source_apply(source, draft);
    config = draft_finish(draft, in_force);
    draft_free(&draft);
    if (config == NULL) {
        return -EINVAL;
    }
    config->source = config_source_ref(source);
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
        error = load(source, NULL, n_errors, out, errors);
    }
    config_source_unref(&source);
    if (error == 0) {
        *action = asked;
    }
    return error;
}

int config_reload(const struct config *current, struct config **out, FILE *errors)
{
    CHECK(current->source != NULL);
    return load(current->source, current, 0, out, errors);
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
    config = draft_finish(draft, NULL);
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
    draft_discard_config(last);
}
