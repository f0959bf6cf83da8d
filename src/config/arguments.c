#include "config/arguments.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "config/nearest.h"

/* The walk along argv. */
struct walk {
    int argc, at;
    char **argv;
    enum config_action action;
    struct config_source *source;
    FILE *errors;
    unsigned n_errors;
};

/* Flags that are no options. */
static const char *const other_flags[] = {"config", "test", "describe", "version", "help"};

static void walk_error(struct walk *walk, const char *format, ...) NC_PRINTF(2, 3);

static void walk_error(struct walk *walk, const char *format, ...)
{
    va_list arguments;

    walk->n_errors++;
    fputs("command line: ", walk->errors);
    va_start(arguments, format);
    (void)vfprintf(walk->errors, format, arguments);
    va_end(arguments);
    fputc('\n', walk->errors);
}

/* The argument at hand, if there is one that is no flag. It may be taken with walk->at++. */
static char *peek(const struct walk *walk)
{
    const bool is_there = walk->at < walk->argc && strncmp(walk->argv[walk->at], "--", 2) != 0;

    return is_there ? walk->argv[walk->at] : NULL;
}

/*
 * What follows "=" in the flag itself, else the next argument. A value that begins with "--" is
 * taken behind "=" alone: it is likelier that the value was forgotten. NULL: reported.
 */
static char *take_value(struct walk *walk, const char *name, char *inline_value)
{
    if (inline_value != NULL) {
        return inline_value;
    }
    if (peek(walk) == NULL) {
        walk_error(walk, "--%s needs a value", name);
        return NULL;
    }
    return walk->argv[walk->at++];
}

static void overwrite(char *text, size_t begin, size_t end)
{
    memset(text + begin, 'x', end - begin);
}

static void hide(const struct config_option *option, char *value)
{
    size_t begin, end;

    if (option->type == OPTION_SECRET) {
        overwrite(value, 0, strlen(value));
    } else if (strcmp(option->name, "backend") == 0 &&
               config_backend_credentials(value, &begin, &end)) {
        overwrite(value, begin, end);
    }
}

static void keep_flag(struct walk *walk, const struct config_option *option, const char *value)
{
    struct config_source *const source = walk->source;

    source->flags[source->n_flags++] = (struct config_flag){option, mem_strdup(value)};
}

static bool is_bool_word(const struct config_option *option, const char *word)
{
    struct config ignored;
    char why[OPTION_TEXT_MAX];

    return word != NULL && config_option_set(option, &ignored, word, why);
}

static void take_option(struct walk *walk, const struct config_option *option, char *inline_value)
{
    char *value = inline_value;

    if (option->type == OPTION_BOOL && value == NULL) {
        value = peek(walk);
        if (is_bool_word(option, value)) {
            walk->at++;
            keep_flag(walk, option, value);
        } else {
            keep_flag(walk, option, "on");
        }
        return;
    }
    value = take_value(walk, option->spelling, inline_value);
    if (value != NULL) {
        keep_flag(walk, option, value);
        hide(option, value);
    }
}

static void take_describe(struct walk *walk, const char *what)
{
    if (what == NULL && peek(walk) != NULL) {
        what = walk->argv[walk->at++];
    }
    if (what == NULL || strcmp(what, "config") == 0) {
        walk->action = CONFIG_DESCRIBE_CONFIG;
    } else if (strcmp(what, "metrics") == 0) {
        walk->action = CONFIG_DESCRIBE_METRICS;
    } else {
        walk_error(walk, "--describe %s: expected config or metrics",
                   log_quote(bytes_of_string(what)));
    }
}

/* --config and the flags that ask for something else than running. False: it is none of them. */
static bool take_other(struct walk *walk, const char *name, char *inline_value)
{
    if (strcmp(name, "config") == 0) {
        const char *const file_name = take_value(walk, name, inline_value);

        if (file_name != NULL) {
            mem_free(walk->source->file_name);
            walk->source->file_name = mem_strdup(file_name);
        }
        return true;
    }
    if (strcmp(name, "describe") == 0) {
        take_describe(walk, inline_value);
        return true;
    }

    static const struct {
        const char *name;
        enum config_action action;
    } actions[] = {{"test", CONFIG_TEST}, {"version", CONFIG_VERSION}, {"help", CONFIG_HELP}};

    for (size_t i = 0; i < sizeof(actions) / sizeof(actions[0]); i++) {
        if (strcmp(name, actions[i].name) == 0) {
            if (inline_value != NULL) {
                walk_error(walk, "--%s takes no value", name);
            }
            /* -t does not take back what a flag before it asked for. */
            if (actions[i].action != CONFIG_TEST || walk->action == CONFIG_RUN) {
                walk->action = actions[i].action;
            }
            return true;
        }
    }
    return false;
}

/* Values of unknown flags are passed over unseen: one may be a password behind a typing error. */
static void unknown_flag(struct walk *walk, const char *name)
{
    struct nearest nearest = {.word = name};
    const struct config_option *const option = config_option_nearest(false, name);

    if (option != NULL) {
        nearest_offer(&nearest, option->spelling);
    }
    for (size_t i = 0; i < sizeof(other_flags) / sizeof(other_flags[0]); i++) {
        nearest_offer(&nearest, other_flags[i]);
    }
    if (peek(walk) != NULL) {
        walk->at++;
    }
    if (nearest.found != NULL) {
        walk_error(walk, "unknown flag --%s, did you mean --%s?", log_quote(bytes_of_string(name)),
                   nearest.found);
    } else {
        walk_error(walk, "unknown flag --%s", log_quote(bytes_of_string(name)));
    }
}

static void take_long(struct walk *walk, char *flag)
{
    char *const equals = strchr(flag, '=');
    char *const inline_value = equals == NULL ? NULL : equals + 1;
    char *const name = strndup(flag, equals == NULL ? strlen(flag) : (size_t)(equals - flag));

    CHECK(name != NULL);

    const struct config_option *const option = config_option_find(false, name);

    if (option != NULL) {
        take_option(walk, option, inline_value);
    } else if (!take_other(walk, name, inline_value)) {
        unknown_flag(walk, name);
    }
    free(name);
}

static void take_argument(struct walk *walk, char *argument)
{
    if (strcmp(argument, "-t") == 0) {
        (void)take_other(walk, "test", NULL);
    } else if (strcmp(argument, "-h") == 0) {
        (void)take_other(walk, "help", NULL);
    } else if (strncmp(argument, "--", 2) == 0 && argument[2] != '\0') {
        take_long(walk, argument + 2);
    } else if (argument[0] == '-') {
        walk_error(walk, "unknown flag %s", log_quote(bytes_of_string(argument)));
    } else {
        walk_error(walk, "unexpected argument %s (a file is given with --config FILE)",
                   log_quote(bytes_of_string(argument)));
    }
}

struct config_source *config_source_new(int argc, char **argv, enum config_action *action,
                                        FILE *errors, unsigned *n_errors)
{
    struct config_source *const source = mem_alloc(sizeof(*source));
    struct walk walk = {.argc = argc,
                        .at = 1,
                        .argv = argv,
                        .action = CONFIG_RUN,
                        .source = source,
                        .errors = errors};
    const char *const file_name = getenv("NEARCACHED_CONFIG");

    atomic_init(&source->n_refs, 1);
    source->flags = mem_alloc((size_t)(argc + 1) * sizeof(*source->flags));
    if (file_name != NULL && file_name[0] != '\0') {
        source->file_name = mem_strdup(file_name);
    }
    while (walk.at < argc) {
        take_argument(&walk, argv[walk.at++]);
    }
    *action = walk.action;
    *n_errors = walk.n_errors;
    return source;
}

struct config_source *config_source_ref(struct config_source *source)
{
    atomic_fetch_add_explicit(&source->n_refs, 1, memory_order_relaxed);
    return source;
}

void config_source_unref(struct config_source **source)
{
    struct config_source *const last = *source;

    *source = NULL;
    /* Release what was done to it here, acquire what others did: the last one frees. */
    if (last == NULL || atomic_fetch_sub_explicit(&last->n_refs, 1, memory_order_acq_rel) > 1) {
        return;
    }
    for (unsigned i = 0; i < last->n_flags; i++) {
        mem_free(last->flags[i].value);
    }
    mem_free(last->flags);
    mem_free(last->file_name);
    mem_free(last);
}

void config_source_apply(const struct config_source *source, struct config_draft *draft)
{
    for (unsigned i = 0; i < source->n_flags; i++) {
        draft_set(draft, source->flags[i].option, LAYER_COMMAND_LINE, 0, source->flags[i].value);
    }
}
