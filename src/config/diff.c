/* Configurations as people see them: every option with its value, and what differs between two. */
#include "config/config.h"

#include <string.h>

#include "config/dependency_rules.h"
#include "config/options.h"

/* "namespace.", 32 characters, ".", 31 characters */
#define NAME_MAX_BYTES 96

static const char *name_of(const struct config_namespace *space, const struct config_option *option,
                           char out[NAME_MAX_BYTES])
{
    (void)snprintf(out, NAME_MAX_BYTES, "%s%s%s%s", space != NULL ? "namespace." : "",
                   space != NULL ? space->name : "", space != NULL ? "." : "", option->spelling);
    return out;
}

static bool is_of_namespace(const struct config_option *option)
{
    return option->is_local && !config_option_is_dependency(option);
}

/* As one would write it: texts without the quotes of the log. */
static void format(const struct config_option *option, const void *values,
                   char out[OPTION_TEXT_MAX])
{
    if (option->type == OPTION_TEXT && strcmp(option->name, "backend") != 0) {
        const char *const text = *(char *const *)((const char *)values + option->offset);

        (void)snprintf(out, OPTION_TEXT_MAX, "%s", text != NULL ? text : "");
    } else {
        config_option_format(option, values, out);
    }
}

/* As it was set: modes change what comes of `cache`. */
static void format_local(const struct config_option *option, const struct config_namespace *space,
                         char out[OPTION_TEXT_MAX])
{
    struct config_namespace shown = *space;

    shown.cache = space->has_cache;
    format(option, &shown, out);
}

/* A secret that changed looks the same; so do long texts that differ in their end. */
static bool is_equal(const struct config_option *option, const struct config_namespace *a,
                     const struct config_namespace *b)
{
    char left[OPTION_TEXT_MAX], right[OPTION_TEXT_MAX];

    if (option->type == OPTION_TEXT) {
        const char *const one = *(char *const *)((const char *)a + option->offset);
        const char *const other = *(char *const *)((const char *)b + option->offset);

        return one == NULL || other == NULL ? one == other : strcmp(one, other) == 0;
    }
    format_local(option, a, left);
    format_local(option, b, right);
    return strcmp(left, right) == 0;
}

static const struct config_namespace *find(const struct config *config, const char *name)
{
    for (unsigned i = 0; i < config->n_namespaces; i++) {
        if (strcmp(config->namespaces[i].name, name) == 0) {
            return &config->namespaces[i];
        }
    }
    return NULL;
}

void config_each(const struct config *config, config_each_fn fn, void *context)
{
    unsigned n;
    const struct config_option *const options = config_options(&n);
    char name[NAME_MAX_BYTES], value[OPTION_TEXT_MAX];

    for (unsigned i = 0; i < n && !options[i].is_local; i++) {
        format(&options[i], config, value);
        fn(context, options[i].spelling, value);
    }
    for (unsigned s = 0; s < config->n_namespaces; s++) {
        const struct config_namespace *const space = &config->namespaces[s];

        for (unsigned i = 0; i < n; i++) {
            if (is_of_namespace(&options[i])) {
                format_local(&options[i], space, value);
                fn(context, name_of(space, &options[i], name), value);
            }
        }
    }
}

/* An override that only follows [cache], which is told by itself. */
static bool follows(const struct config *former, const struct config *fresh,
                    const struct config_option *option, const char *before, const char *after)
{
    const struct config_option *const global = option->is_override
                                                   ? config_option_find(false, option->spelling)
                                                   : NULL;
    char old[OPTION_TEXT_MAX], new[OPTION_TEXT_MAX];

    if (global == NULL) {
        return false;
    }
    format(global, former, old);
    format(global, fresh, new);
    return strcmp(old, before) == 0 && strcmp(new, after) == 0;
}

static unsigned diff_space(const struct config *former, const struct config *fresh,
                           const struct config_namespace *before,
                           const struct config_namespace *after, config_diff_fn fn, void *context)
{
    unsigned n, n_found = 0;
    const struct config_option *const options = config_options(&n);
    char name[NAME_MAX_BYTES], old[OPTION_TEXT_MAX], new[OPTION_TEXT_MAX];

    for (unsigned i = 0; i < n; i++) {
        if (!is_of_namespace(&options[i]) ||
            (before != NULL && after != NULL && is_equal(&options[i], before, after))) {
            continue;
        }
        if (before != NULL) {
            format_local(&options[i], before, old);
        }
        if (after != NULL) {
            format_local(&options[i], after, new);
        }
        if (before != NULL && after != NULL && follows(former, fresh, &options[i], old, new)) {
            continue;
        }
        fn(context, name_of(before != NULL ? before : after, &options[i], name),
           before != NULL ? old : NULL, after != NULL ? new : NULL);
        n_found++;
    }
    return n_found;
}

unsigned config_diff(const struct config *former, const struct config *fresh, config_diff_fn fn,
                     void *context)
{
    unsigned n, n_found = 0;
    const struct config_option *const options = config_options(&n);
    char old[OPTION_TEXT_MAX], new[OPTION_TEXT_MAX];

    for (unsigned i = 0; i < n && !options[i].is_local; i++) {
        if (!config_option_equal(&options[i], former, fresh)) {
            format(&options[i], former, old);
            format(&options[i], fresh, new);
            fn(context, options[i].spelling, old, new);
            n_found++;
        }
    }
    if (!config_dependencies_equal(former, fresh)) {
        (void)snprintf(old, sizeof(old), "%u rules", former->n_dependencies);
        (void)snprintf(new, sizeof(new), "%u rules", fresh->n_dependencies);
        fn(context, "[dependency]", old, new);
        n_found++;
    }
    for (unsigned s = 0; s < former->n_namespaces; s++) {
        const struct config_namespace *const before = &former->namespaces[s];

        n_found += diff_space(former, fresh, before, find(fresh, before->name), fn, context);
    }
    for (unsigned s = 0; s < fresh->n_namespaces; s++) {
        const struct config_namespace *const after = &fresh->namespaces[s];

        if (find(former, after->name) == NULL) {
            n_found += diff_space(former, fresh, NULL, after, fn, context);
        }
    }
    return n_found;
}

const char *config_mode_name(int mode)
{
    static const char *const names[] = {"on", "bypass", "readonly", "off"};

    return names[mode];
}

int config_mode_of(const struct config *config, const struct config_namespace *space)
{
    if (space->refuses_all) {
        return MODE_OFF;
    }
    /* Readonly and bypass together are told as the one that clients feel. */
    if (space->refuses_writes) {
        return MODE_READONLY;
    }
    return config->mode == MODE_BYPASS || space->mode == MODE_BYPASS ? MODE_BYPASS : MODE_ON;
}
