/*
 * A value is set as soon as it is read; a wrong one is reported and leaves the former in place, so
 * that the checks across options always find usable values and one error does not cause others.
 */
#include "config/draft.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "config/dependency_rules.h"
#include "config/event_rules.h"
#include "config/namespaces.h"
#include "config/tls.h"

#define ERRORS_SHOWN_MAX 50
#define OPTIONS_MAX 192

/* Where a value came from; a zeroed one is the table. */
struct origin {
    enum config_layer layer;
    unsigned line;
};

struct draft_namespace {
    char *name;
    unsigned line;
    struct config_namespace values;
    char *pattern; /* match as it was given, where there are tags; NULL: none */
    struct origin origins[OPTIONS_MAX]; /* by index in the option table */
};

struct draft_dependency {
    struct config_dependency values;
    struct origin origins[OPTIONS_MAX]; /* by index in the option table */
};

struct config_draft {
    struct config *config;
    const struct config *in_force; /* NULL: none */
    enum draft_restart restart;
    FILE *notes;
    char *file_name;
    FILE *errors;
    unsigned n_errors;
    struct origin origins[OPTIONS_MAX];                    /* by index in the option table */
    struct draft_namespace *spaces[CONFIG_NAMESPACES_MAX]; /* in the file's order */
    unsigned n_spaces;
    struct draft_dependency *dependencies[CONFIG_DEPENDENCIES_MAX]; /* in the file's order */
    unsigned n_dependencies;
};

static unsigned index_of(const struct config_option *option)
{
    unsigned n;

    return (unsigned)(option - config_options(&n));
}

/* -- Errors ----------------------------------------------------------------------------------- */

static void print_place_to(FILE *out, const struct config_draft *draft, enum config_layer layer,
                           unsigned line)
{
    static const char *const layers[] = {
        [LAYER_DEFAULT] = "default",
        [LAYER_ENVIRONMENT] = "environment",
        [LAYER_COMMAND_LINE] = "command line",
        [LAYER_SET] = "CACHE CONFIG SET",
    };

    if (layer != LAYER_FILE) {
        fprintf(out, "%s", layers[layer]);
    } else if (line == 0) {
        fprintf(out, "%s", draft->file_name);
    } else {
        fprintf(out, "%s:%u", draft->file_name, line);
    }
}

static void print_place(const struct config_draft *draft, enum config_layer layer, unsigned line)
{
    print_place_to(draft->errors, draft, layer, line);
}

/* Counts an error; false when its text is withheld, as enough were shown. */
static bool begin_error(struct config_draft *draft)
{
    draft->n_errors++;
    return draft->n_errors <= ERRORS_SHOWN_MAX;
}

void draft_error(struct config_draft *draft, enum config_layer layer, unsigned line,
                 const char *format, ...)
{
    va_list arguments;

    if (!begin_error(draft)) {
        return;
    }
    print_place(draft, layer, line);
    fputs(": ", draft->errors);
    va_start(arguments, format);
    (void)vfprintf(draft->errors, format, arguments);
    va_end(arguments);
    fputc('\n', draft->errors);
}

unsigned draft_n_errors(const struct config_draft *draft)
{
    return draft->n_errors;
}

/* The option as its layer spells it. */
static const char *spelling_in(enum config_layer layer, const struct config_option *option,
                               char *out, size_t size)
{
    if (layer == LAYER_ENVIRONMENT) {
        return option->variable;
    }
    (void)snprintf(out, size, "%s%s", layer == LAYER_COMMAND_LINE ? "--" : "", option->spelling);
    return out;
}

static void value_error(struct config_draft *draft, const struct config_option *option,
                        struct origin origin, const char *value, const char *why)
{
    char spelling[64];

    draft_error(draft, origin.layer, origin.line, "%s = %s: %s",
                spelling_in(origin.layer, option, spelling, sizeof(spelling)),
                config_option_shown(option, value), why);
}

/* -- Values ----------------------------------------------------------------------------------- */

struct config_draft *draft_new(const char *file_name, FILE *errors)
{
    struct config_draft *const draft = mem_alloc(sizeof(*draft));
    unsigned n;
    const struct config_option *const options = config_options(&n);

    CHECK(n <= OPTIONS_MAX);
    draft->config = mem_alloc(sizeof(*draft->config));
    draft->config->events = event_rules_new();
    draft->file_name = mem_strdup(file_name != NULL ? file_name : "(no file)");
    draft->errors = errors;
    for (unsigned i = 0; i < n; i++) {
        char why[OPTION_TEXT_MAX];

        if (!options[i].is_local) {
            CHECK(config_option_set(&options[i], draft->config, options[i].initial, why));
        }
    }
    return draft;
}

static void free_space(struct draft_namespace *space)
{
    mem_free(space->values.match);
    mem_free(space->values.tags);
    mem_free(space->pattern);
    mem_free(space->name);
    mem_free(space);
}

void draft_free(struct config_draft **draft)
{
    if (*draft == NULL) {
        return;
    }
    for (unsigned i = 0; i < (*draft)->n_spaces; i++) {
        free_space((*draft)->spaces[i]);
    }
    for (unsigned i = 0; i < (*draft)->n_dependencies; i++) {
        config_dependency_fini(&(*draft)->dependencies[i]->values);
        mem_free((*draft)->dependencies[i]);
    }
    draft_discard_config((*draft)->config);
    mem_free((*draft)->file_name);
    mem_free(*draft);
    *draft = NULL;
}

void draft_discard_config(struct config *config)
{
    unsigned n;
    const struct config_option *const options = config_options(&n);

    if (config == NULL) {
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        if (!options[i].is_local) {
            config_option_clear(&options[i], config);
        }
    }
    config_matcher_free(&config->matcher);
    event_rules_free(&config->events);
    tag_rules_unref(&config->tag_rules);
    for (unsigned i = 0; i < config->n_namespaces; i++) {
        mem_free(config->namespaces[i].match);
        mem_free(config->namespaces[i].tags);
    }
    mem_free(config->namespaces);
    for (unsigned i = 0; i < config->n_dependencies; i++) {
        config_dependency_fini(&config->dependencies[i]);
    }
    mem_free(config->dependencies);
    config_backend_fini(&config->target);
    tls_context_unref(&config->tls_clients);
    tls_context_unref(&config->tls_backend);
    mem_free(config);
}

/* One line of a file for each option; lists may have more. False: reported. */
static bool is_first_in_file(struct config_draft *draft, const struct config_option *option,
                             struct origin before, unsigned line)
{
    if (before.layer == LAYER_FILE && before.line != 0 && option->type != OPTION_LIST) {
        draft_error(draft, LAYER_FILE, line, "%s is given twice, first on line %u",
                    option->spelling, before.line);
        return false;
    }
    return true;
}

void draft_set(struct config_draft *draft, const struct config_option *option,
               enum config_layer layer, unsigned line, const char *value)
{
    struct origin *const origin = &draft->origins[index_of(option)];
    const struct origin now = {layer, line};
    char why[OPTION_TEXT_MAX];

    if (layer == LAYER_FILE && !is_first_in_file(draft, option, *origin, line)) {
        return;
    }
    if (option->type == OPTION_LIST && origin->layer != layer) {
        config_option_clear(option, draft->config);
    }
    *origin = now;
    if (!config_option_set(option, draft->config, value, why)) {
        value_error(draft, option, now, value, why);
    }
}

struct event_rules *draft_events(struct config_draft *draft)
{
    return draft->config->events;
}

struct draft_namespace *draft_add_namespace(struct config_draft *draft, const char *name,
                                            unsigned line)
{
    if (!namespace_name_is_valid(name)) {
        draft_error(draft, LAYER_FILE, line,
                    "namespace %s: expected a name of 1 to %d letters, digits and . _ - :",
                    log_quote(bytes_of_string(name)), NAMESPACE_NAME_MAX);
        return NULL;
    }
    for (unsigned i = 0; i < draft->n_spaces; i++) {
        if (strcmp(draft->spaces[i]->name, name) == 0) {
            draft_error(draft, LAYER_FILE, line, "namespace %s is given twice, first on line %u",
                        name, draft->spaces[i]->line);
            return NULL;
        }
    }
    if (draft->n_spaces == CONFIG_NAMESPACES_MAX) {
        draft_error(draft, LAYER_FILE, line, "namespace %s: expected at most %d namespaces", name,
                    CONFIG_NAMESPACES_MAX - 1);
        return NULL;
    }

    struct draft_namespace *const space = mem_alloc(sizeof(*space));

    space->name = mem_strdup(name);
    space->line = line;
    draft->spaces[draft->n_spaces++] = space;
    return space;
}

void draft_set_in_namespace(struct config_draft *draft, struct draft_namespace *space,
                            const struct config_option *option, unsigned line, const char *value)
{
    struct origin *const origin = &space->origins[index_of(option)];
    const struct origin now = {LAYER_FILE, line};
    char why[OPTION_TEXT_MAX];

    if (!is_first_in_file(draft, option, *origin, line)) {
        return;
    }
    *origin = now;
    if (!config_option_set(option, &space->values, value, why)) {
        value_error(draft, option, now, value, why);
    }
}

static void set_override(struct config_draft *draft, struct draft_namespace *space,
                         const struct config_option *option, const char *value)
{
    const struct origin now = {LAYER_SET, 0};
    char why[OPTION_TEXT_MAX];

    space->origins[index_of(option)] = now;
    if (!config_option_set(option, &space->values, value, why)) {
        value_error(draft, option, now, value, why);
    }
}

static struct draft_namespace *find_space(const struct config_draft *draft, const char *name)
{
    for (unsigned i = 0; i < draft->n_spaces; i++) {
        if (strcmp(draft->spaces[i]->name, name) == 0) {
            return draft->spaces[i];
        }
    }
    return NULL;
}

bool draft_has_namespace(const struct config_draft *draft, const char *name)
{
    return strcmp(name, "default") == 0 || find_space(draft, name) != NULL;
}

void draft_override(struct config_draft *draft, const char *space, const char *name,
                    const char *value)
{
    const bool is_local = space != NULL;
    const struct config_option *const option = config_option_find(is_local, name);
    struct draft_namespace *found = is_local ? find_space(draft, space) : NULL;

    if (is_local && found == NULL && strcmp(space, "default") == 0) {
        found = draft_add_namespace(draft, "default", 0);
    }
    if (is_local && found == NULL) {
        draft_error(draft, LAYER_SET, 0, "there is no namespace %s",
                    log_quote(bytes_of_string(space)));
    } else if (option == NULL) {
        const struct config_option *const nearest = config_option_nearest(is_local, name);

        draft_error(draft, LAYER_SET, 0, "unknown option %s%s%s%s",
                    log_quote(bytes_of_string(name)), nearest != NULL ? ", did you mean " : "",
                    nearest != NULL ? nearest->spelling : "", nearest != NULL ? "?" : "");
    } else if (found != NULL) {
        set_override(draft, found, option, value);
    } else {
        if (option->type == OPTION_LIST) {
            config_option_clear(option, draft->config);
        }
        draft_set(draft, option, LAYER_SET, 0, value);
    }
}

void draft_follow(struct config_draft *draft, const struct config *in_force,
                  enum draft_restart restart, FILE *notes)
{
    draft->in_force = in_force;
    draft->restart = restart;
    draft->notes = notes;
}

struct draft_dependency *draft_add_dependency(struct config_draft *draft, const char *name,
                                              unsigned line)
{
    if (!namespace_name_is_valid(name)) {
        draft_error(draft, LAYER_FILE, line,
                    "dependency %s: expected a name of 1 to %d letters, digits and . _ - :",
                    log_quote(bytes_of_string(name)), NAMESPACE_NAME_MAX);
        return NULL;
    }
    for (unsigned i = 0; i < draft->n_dependencies; i++) {
        if (strcmp(draft->dependencies[i]->values.name, name) == 0) {
            draft_error(draft, LAYER_FILE, line, "dependency %s is given twice, first on line %u",
                        name, draft->dependencies[i]->values.line);
            return NULL;
        }
    }
    if (draft->n_dependencies == CONFIG_DEPENDENCIES_MAX) {
        draft_error(draft, LAYER_FILE, line, "dependency %s: expected at most %d of them", name,
                    CONFIG_DEPENDENCIES_MAX);
        return NULL;
    }

    struct draft_dependency *const rule = mem_alloc(sizeof(*rule));

    rule->values.name = mem_strdup(name);
    rule->values.line = line;
    draft->dependencies[draft->n_dependencies++] = rule;
    return rule;
}

void draft_set_in_dependency(struct config_draft *draft, struct draft_dependency *rule,
                             const struct config_option *option, unsigned line, const char *value)
{
    struct origin *const origin = &rule->origins[index_of(option)];
    const struct origin now = {LAYER_FILE, line};
    char why[OPTION_TEXT_MAX];

    if (!is_first_in_file(draft, option, *origin, line)) {
        return;
    }
    *origin = now;
    if (!config_option_set(option, &rule->values, value, why)) {
        value_error(draft, option, now, value, why);
    }
}

/* -- Checks across options -------------------------------------------------------------------- */

static struct origin origin_of(const struct config_draft *draft, const char *spelling)
{
    return draft->origins[index_of(config_option_find(false, spelling))];
}

static void print_value(const struct config_draft *draft, const char *name)
{
    const struct config_option *const option = config_option_find(false, name);
    char spelling[64], value[OPTION_TEXT_MAX];

    config_option_format(option, draft->config, value);
    fprintf(draft->errors, "%s = %s",
            spelling_in(origin_of(draft, name).layer, option, spelling, sizeof(spelling)), value);
}

/* "x.conf:9: reconnect-min = 5s must not be above reconnect-max = 2s (default)" */
static void pair_error(struct config_draft *draft, const char *one, const char *relation,
                       const char *other)
{
    const struct origin first = origin_of(draft, one), second = origin_of(draft, other);

    if (!begin_error(draft)) {
        return;
    }
    print_place(draft, first.layer, first.line);
    fputs(": ", draft->errors);
    print_value(draft, one);
    fputs(relation, draft->errors);
    print_value(draft, other);
    fputs(" (", draft->errors);
    print_place(draft, second.layer, second.line);
    fputs(")\n", draft->errors);
}

static void check_pairs(struct config_draft *draft)
{
    const struct config *const config = draft->config;

    if (config->client_output_soft_limit > config->client_output_limit) {
        pair_error(draft, "client-output-soft-limit", " must not be above ", "client-output-limit");
    }
    if (config->reconnect_min_ms > config->reconnect_max_ms) {
        pair_error(draft, "reconnect-min", " must not be above ", "reconnect-max");
    }
    if (config->link_timeout_ms <= config->fence_interval_ms) {
        pair_error(draft, "link-timeout", " must be above ", "fence-interval");
    }
    if (config->max_staleness_ms <= config->fence_interval_ms) {
        pair_error(draft, "max-staleness", " must be above ", "fence-interval");
    }
    if (config->cache_command == CACHE_COMMAND_PASSWORD && config->cache_password[0] == '\0') {
        pair_error(draft, "cache-command", " needs a password in ", "cache-password");
    }
}

/* -- What texts mean -------------------------------------------------------------------------- */

static bool is_listener(const struct config *config, const struct config_address *address)
{
    for (unsigned i = 0; i < config->n_tls_listeners; i++) {
        if (config_address_equal(&config->tls_listeners[i], address)) {
            return true;
        }
    }
    for (unsigned i = 0; i < config->n_listeners; i++) {
        if (config_address_equal(&config->listeners[i], address)) {
            return true;
        }
    }
    return false;
}

/* Texts that were wrong are reported and not in the draft, so what is there parses. */
static void take_listeners(struct config_draft *draft, const char *option,
                           const struct config_list *list, struct config_address *taken,
                           unsigned *n_taken)
{
    const struct origin origin = origin_of(draft, option);

    for (unsigned i = 0; i < list->n; i++) {
        struct config_address address;

        if (!config_address_parse(&address, list->items[i])) {
            continue;
        }
        if (is_listener(draft->config, &address)) {
            draft_error(draft, origin.layer, origin.line, "%s: %s is given twice", option,
                        log_quote(bytes_of_string(list->items[i])));
        } else {
            taken[(*n_taken)++] = address;
        }
    }
}

static void take_addresses(struct config_draft *draft)
{
    struct config *const config = draft->config;
    const struct origin admin = origin_of(draft, "admin");

    take_listeners(draft, "listen", &config->listen, config->listeners, &config->n_listeners);
    take_listeners(draft, "tls-listen", &config->tls_listen, config->tls_listeners,
                   &config->n_tls_listeners);
    config->mappings.n = 0;
    for (unsigned i = 0; i < config->address_map.n && i < CONFIG_MAPPINGS_MAX; i++) {
        if (config_mapping_parse(&config->mappings.of[config->mappings.n],
                                 config->address_map.items[i])) {
            config->mappings.n++;
        }
    }
    if (!config_announce_parse(&config->announce, config->announce_address)) {
        config->announce.port = 0;
    }
    config->has_admin = config_address_parse(&config->admin_address, config->admin);
    if (config->has_admin && config->admin_address.is_unix) {
        draft_error(draft, admin.layer, admin.line,
                    "admin = %s: the admin port is a TCP port, expected HOST:PORT", config->admin);
    } else if (config->has_admin && is_listener(config, &config->admin_address)) {
        draft_error(draft, admin.layer, admin.line, "admin = %s: clients are served there (listen)",
                    config->admin);
    }
}

static void take_backend(struct config_draft *draft)
{
    struct config *const config = draft->config;
    struct config_backend *const target = &config->target;
    const struct origin origin = origin_of(draft, "backend-user");
    const char *why;

    if (!config_backend_parse(target, config->backend, &why)) {
        return;
    }
    target->is_sentinel_tls = target->sentinel_master != NULL &&
                              (config->sentinel_tls == SENTINEL_TLS_ON ||
                               (config->sentinel_tls == SENTINEL_TLS_AUTO && target->is_tls));
    if (target->password != NULL && target->password[0] == '\0') {
        mem_free(target->password);
        target->password = NULL;
    }
    if (target->user == NULL && config->backend_user[0] != '\0') {
        target->user = mem_strdup(config->backend_user);
    }
    if (target->password == NULL && config->backend_password[0] != '\0') {
        target->password = mem_strdup(config->backend_password);
    }
    if (target->user != NULL && target->password == NULL) {
        draft_error(draft, origin.layer, origin.line,
                    "backend-user (or the user in the URL of backend) needs backend-password");
    }
}

static bool is_same_section(const struct config *a, const struct config *b, const char *section)
{
    unsigned n;
    const struct config_option *const options = config_options(&n);

    for (unsigned i = 0; i < n; i++) {
        if (strcmp(options[i].section, section) == 0 && !config_option_equal(&options[i], a, b)) {
            return false;
        }
    }
    return true;
}

/* The backend cannot change either, so the same contexts are needed. */
static void take_tls_over(struct config *config, const struct config *in_force)
{
    if (in_force->tls_clients != NULL) {
        config->tls_clients = tls_context_ref(in_force->tls_clients);
    }
    if (in_force->tls_backend != NULL) {
        config->tls_backend = tls_context_ref(in_force->tls_backend);
    }
}

/* Last of all, as it reads files and makes keys ready. */
static void take_tls(struct config_draft *draft)
{
    struct config_tls_problem problem;

    if (draft->restart == RESTART_REFUSE && draft->in_force != NULL &&
        is_same_section(draft->config, draft->in_force, "tls")) {
        take_tls_over(draft->config, draft->in_force);
        return;
    }
    if (draft->n_errors == 0 && !config_tls_make(draft->config, &problem)) {
        const struct origin origin = origin_of(draft, problem.option);

        draft_error(draft, origin.layer, origin.line, "%s", problem.text);
    }
}

/* -- Namespaces ------------------------------------------------------------------------------- */

/* Fills what the namespace is silent about: [cache] for overrides, the table for the rest. */
static void resolve(const struct config *config, struct draft_namespace *space)
{
    unsigned n;
    const struct config_option *const options = config_options(&n);

    for (unsigned i = 0; i < n; i++) {
        const struct config_option *const option = &options[i];
        char why[OPTION_TEXT_MAX];

        if (!option->is_local || config_option_is_dependency(option) ||
            space->origins[i].layer != LAYER_DEFAULT) {
            continue;
        }
        if (option->is_override) {
            config_option_copy(option, &space->values, config_option_find(false, option->spelling),
                               config);
        } else if (option->type != OPTION_TEXT) {
            CHECK(config_option_set(option, &space->values, option->initial, why));
        }
    }
}

static bool is_default(const struct draft_namespace *space)
{
    return strcmp(space->name, "default") == 0;
}

static void check_match(struct config_draft *draft, unsigned at)
{
    const struct draft_namespace *const space = draft->spaces[at];
    const unsigned match_index = index_of(config_option_find(true, "match"));
    const unsigned line = space->origins[match_index].line;

    if (is_default(space)) {
        if (line != 0) {
            draft_error(draft, LAYER_FILE, line,
                        "match: the namespace default has the keys that match no other");
        }
        return;
    }
    if (line == 0) {
        draft_error(draft, LAYER_FILE, space->line, "namespace %s has no match", space->name);
    }
    for (unsigned i = 0; i < at; i++) {
        const struct draft_namespace *const other = draft->spaces[i];

        if (space->values.match != NULL && other->values.match != NULL &&
            strcmp(space->values.match, other->values.match) == 0) {
            draft_error(draft, LAYER_FILE, line, "match = %s: namespace %s has this pattern",
                        log_quote(bytes_of_string(space->values.match)), other->name);
        }
    }
}

/*
 * Where a namespace has tags, a brace in its match is a capture; from here on match is the glob.
 */
static void check_tags(struct config_draft *draft, struct draft_namespace *space)
{
    const unsigned line = space->origins[index_of(config_option_find(true, "tags"))].line;
    char why[CAPTURES_WHY_MAX], *glob;

    if (space->values.tags == NULL) {
        return;
    }
    if (space->values.match == NULL) {
        draft_error(draft, LAYER_FILE, line, "tags: the namespace %s has no match", space->name);
        return;
    }
    if (!tag_rule_check(space->values.match, space->values.tags, &glob, why)) {
        draft_error(draft, LAYER_FILE, line, "tags = %s with match = %s: %s",
                    log_quote(bytes_of_string(space->values.tags)),
                    log_quote(bytes_of_string(space->values.match)), why);
        return;
    }
    space->pattern = space->values.match;
    space->values.match = glob;
}

/* "default" comes first, with or without a section of its own. */
static void put_default_first(struct config_draft *draft)
{
    unsigned at = 0;

    while (at < draft->n_spaces && !is_default(draft->spaces[at])) {
        at++;
    }
    if (at == draft->n_spaces) {
        if (at == CONFIG_NAMESPACES_MAX) {
            draft_error(draft, LAYER_FILE, draft->spaces[at - 1]->line,
                        "expected at most %d namespaces", CONFIG_NAMESPACES_MAX - 1);
            return;
        }
        (void)draft_add_namespace(draft, "default", 0);
    }

    struct draft_namespace *const first = draft->spaces[at];

    memmove(&draft->spaces[1], &draft->spaces[0], at * sizeof(draft->spaces[0]));
    draft->spaces[0] = first;
}

/* Last of all checks, as an id, once given, stays. */
static void take_ids(struct config_draft *draft)
{
    for (unsigned i = 0; i < draft->n_spaces; i++) {
        struct draft_namespace *const space = draft->spaces[i];
        const int id = namespace_register(space->name, &space->values.name);

        if (id < 0) {
            draft_error(draft, LAYER_FILE, space->line,
                        "namespace %s: %d other names were used since the start; a restart "
                        "forgets those that are gone",
                        space->name, CONFIG_NAMESPACES_MAX - 1);
            return;
        }
        space->values.id = (uint8_t)id;
    }
}

/* What the modes come to; neither of the two is weaker than the other. */
static void apply_modes(struct config *config, struct config_namespace *space)
{
    const int both[] = {config->mode, space->mode};

    space->has_cache = space->cache;
    for (unsigned i = 0; i < 2; i++) {
        space->cache = space->cache && (both[i] == MODE_ON || both[i] == MODE_READONLY);
        space->refuses_writes = space->refuses_writes || both[i] == MODE_READONLY;
        space->refuses_all = space->refuses_all || both[i] == MODE_OFF;
    }
    config->has_refusals = config->has_refusals || space->refuses_writes || space->refuses_all;
}

static void take_namespaces(struct config_draft *draft)
{
    struct config *const config = draft->config;

    char **patterns = mem_alloc(draft->n_spaces * sizeof(*patterns));

    config->namespaces = mem_alloc(draft->n_spaces * sizeof(*config->namespaces));
    config->n_namespaces = draft->n_spaces;
    for (unsigned i = 0; i < draft->n_spaces; i++) {
        resolve(config, draft->spaces[i]);
        config->namespaces[i] = draft->spaces[i]->values;
        draft->spaces[i]->values.match = NULL;
        apply_modes(config, &config->namespaces[i]);
        draft->spaces[i]->values.tags = NULL;
        patterns[i] = draft->spaces[i]->pattern;
    }
    config->tag_rules = tag_rules_new(config->namespaces, patterns, config->n_namespaces);
    mem_free(patterns);
    namespaces_sort(config->namespaces, config->n_namespaces);
    config->matcher = config_matcher_new(config->namespaces, config->n_namespaces);
    config->ledger_namespace = config->namespaces[0];
    config->ledger_namespace.cache = false;
}

/* -- Dependencies ----------------------------------------------------------------------------- */

/* The patterns are made ready; errors name the line of the option, or of the section. */
static void take_dependencies(struct config_draft *draft)
{
    struct config *const config = draft->config;
    struct config_rule_fault fault;

    config->dependencies = mem_alloc((draft->n_dependencies + 1) * sizeof(*config->dependencies));
    for (unsigned i = 0; i < draft->n_dependencies; i++) {
        struct draft_dependency *const rule = draft->dependencies[i];

        config->dependencies[config->n_dependencies++] = rule->values;
        memset(&rule->values, 0, sizeof(rule->values));
        if (!config_dependency_take(&config->dependencies[i], &fault)) {
            const unsigned at = index_of(config_option_of_dependency(fault.option));
            const unsigned line = rule->origins[at].line;

            draft_error(draft, LAYER_FILE, line != 0 ? line : config->dependencies[i].line, "%s",
                        fault.text);
        }
    }
    if (draft->n_errors == 0 &&
        !config_dependencies_check(config->dependencies, config->n_dependencies, &fault)) {
        const struct draft_dependency *const rule = draft->dependencies[fault.rule];

        draft_error(draft, LAYER_FILE,
                    rule->origins[index_of(config_option_of_dependency("scope"))].line, "%s",
                    fault.text);
    }
}

/* -- The end ---------------------------------------------------------------------------------- */

/*
 * Said, and the old value stays; or an error, when it is what is set now. What a file says that was
 * read before has been told then.
 */
static void keep_or_refuse(struct config_draft *draft, const struct config_option *option)
{
    const struct origin origin = draft->origins[index_of(option)];
    char now[OPTION_TEXT_MAX], before[OPTION_TEXT_MAX], spelling[64];
    const char *const name = spelling_in(origin.layer, option, spelling, sizeof(spelling));

    config_option_format(option, draft->config, now);
    config_option_format(option, draft->in_force, before);
    if (draft->restart == RESTART_REFUSE && origin.layer == LAYER_SET) {
        draft_error(draft, origin.layer, origin.line,
                    "%s = %s: a change needs a restart, in force is %s", name, now, before);
        return;
    }
    if (draft->notes != NULL) {
        print_place_to(draft->notes, draft, origin.layer, origin.line);
        fprintf(draft->notes, ": %s = %s: a change needs a restart, in force is %s\n", name, now,
                before);
    }
    config_option_assign(option, draft->config, draft->in_force);
}

/* First of all: what is kept is what the other checks look at. */
static void check_restart(struct config_draft *draft)
{
    unsigned n;
    const struct config_option *const options = config_options(&n);

    if (draft->in_force == NULL || draft->n_errors > 0) {
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        if (options[i].needs_restart && !options[i].is_local &&
            !config_option_equal(&options[i], draft->config, draft->in_force)) {
            keep_or_refuse(draft, &options[i]);
        }
    }
}

struct config *draft_finish(struct config_draft *draft)
{
    check_restart(draft);
    put_default_first(draft);
    for (unsigned i = 0; i < draft->n_spaces; i++) {
        check_tags(draft, draft->spaces[i]);
    }
    for (unsigned i = 0; i < draft->n_spaces; i++) {
        check_match(draft, i);
    }
    event_rules_finish(draft->config->events, draft);
    check_pairs(draft);
    take_addresses(draft);
    take_backend(draft);
    draft->config->unix_mode = (unsigned)strtoul(draft->config->unix_socket_mode, NULL, 8);
    take_dependencies(draft);
    take_tls(draft);
    if (draft->n_errors == 0) {
        take_ids(draft);
    }
    if (draft->n_errors > ERRORS_SHOWN_MAX) {
        fprintf(draft->errors, "%u more errors\n", draft->n_errors - ERRORS_SHOWN_MAX);
    }
    if (draft->n_errors > 0) {
        return NULL;
    }
    take_namespaces(draft);

    struct config *const config = draft->config;

    atomic_init(&config->n_refs, 1);
    draft->config = NULL;
    return config;
}
