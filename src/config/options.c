/*
 * Each type is a row of functions over the field at `offset`. Bounds stay text as in the table and
 * are read by the same functions as values, so that a message shows them as people wrote them.
 */
#include "config/options.h"

#include <ctype.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/log.h"
#include "base/mem.h"
#include "config/nearest.h"
#include "config/tls.h"

/* The same as CONFIG_FIELD() of config.h, without the type. */
#define FIELD_NAME(type, name) FIELD_NAME_##type(name)
#define FIELD_NAME_BOOL(name) name
#define FIELD_NAME_INT(name) name
#define FIELD_NAME_SIZE(name) name
#define FIELD_NAME_TIME(name) name##_ms
#define FIELD_NAME_TEXT(name) name
#define FIELD_NAME_SECRET(name) name
#define FIELD_NAME_LIST(name) name
#define FIELD_NAME_ENUM_present_as(name) name
#define FIELD_NAME_ENUM_coherence(name) name
#define FIELD_NAME_ENUM_auth(name) name
#define FIELD_NAME_ENUM_script_keys(name) name
#define FIELD_NAME_ENUM_config_command(name) name
#define FIELD_NAME_ENUM_cache_command(name) name
#define FIELD_NAME_ENUM_tls_auth_clients(name) name
#define FIELD_NAME_ENUM_sentinel_tls(name) name
#define FIELD_NAME_ENUM_mode(name) name
#define FIELD_NAME_ENUM_scope(name) name
#define FIELD_NAME_ENUM_log_level(name) name
#define FIELD_NAME_ENUM_log_format(name) name

#define TYPE_BOOL OPTION_BOOL
#define TYPE_INT OPTION_INT
#define TYPE_SIZE OPTION_SIZE
#define TYPE_TIME OPTION_TIME
#define TYPE_TEXT OPTION_TEXT
#define TYPE_SECRET OPTION_SECRET
#define TYPE_LIST OPTION_LIST
#define TYPE_ENUM_present_as OPTION_ENUM
#define TYPE_ENUM_coherence OPTION_ENUM
#define TYPE_ENUM_auth OPTION_ENUM
#define TYPE_ENUM_script_keys OPTION_ENUM
#define TYPE_ENUM_config_command OPTION_ENUM
#define TYPE_ENUM_cache_command OPTION_ENUM
#define TYPE_ENUM_tls_auth_clients OPTION_ENUM
#define TYPE_ENUM_sentinel_tls OPTION_ENUM
#define TYPE_ENUM_mode OPTION_ENUM
#define TYPE_ENUM_scope OPTION_ENUM
#define TYPE_ENUM_log_level OPTION_ENUM
#define TYPE_ENUM_log_format OPTION_ENUM

#define RESTART_LIVE false
#define RESTART_START true

#define WORDS(list, words)
/* ENUM_<list> keeps its list's name here until name_words() finds the words. */
#define ROW(struct_name, is_local_, section_, name_, type_, initial_, min_, max_, reload_, help_)  \
    {.section = #section_,                                                                         \
     .name = #name_,                                                                               \
     .is_local = is_local_,                                                                        \
     .type = TYPE_##type_,                                                                         \
     .words = #type_,                                                                              \
     .initial = initial_,                                                                          \
     .min = min_,                                                                                  \
     .max = max_,                                                                                  \
     .needs_restart = RESTART_##reload_,                                                           \
     .help = help_,                                                                                \
     .offset = offsetof(struct struct_name, FIELD_NAME(type_, name_))},

static struct config_option options[] = {
#define OPTION(section, name, type, initial, min, max, reload, help)                               \
    CONFIG_GLOBAL(section, ROW(config, false, section, name, type, initial, min, max, reload, help))
#define OVERRIDE(name, type)
#include "tables/options.def"
#undef OPTION
#undef OVERRIDE
#define OPTION(section, name, type, initial, min, max, reload, help)                               \
    CONFIG_LOCAL(section, ROW(config_namespace, true, section, name, type, initial, min, max,      \
                              reload, help))
#define OVERRIDE(name_, type_)                                                                     \
    {.section = "namespace",                                                                       \
     .is_local = true,                                                                             \
     .name = #name_,                                                                               \
     .type = TYPE_##type_,                                                                         \
     .words = #type_,                                                                              \
     .is_override = true,                                                                          \
     .offset = offsetof(struct config_namespace, FIELD_NAME(type_, name_))},
#include "tables/options.def"
#undef OPTION
#undef OVERRIDE
#define OPTION(section, name, type, initial, min, max, reload, help)                               \
    CONFIG_DEPENDENCY(section, ROW(config_dependency, true, section, name, type, initial, min,     \
                                   max, reload, help))
#define OVERRIDE(name, type)
#include "tables/options.def"
#undef OPTION
#undef OVERRIDE
};
#undef WORDS

#define VARIABLE_PREFIX "NEARCACHED_"
#define N_OPTIONS (sizeof(options) / sizeof(options[0]))

static const struct {
    const char *type, *words;
} word_lists[] = {
#define WORDS(list, words) {"ENUM_" #list, words},
#define OPTION(section, name, type, initial, min, max, reload, help)
#define OVERRIDE(name, type)
#include "tables/options.def"
#undef WORDS
#undef OPTION
#undef OVERRIDE
};

/* -- The table -------------------------------------------------------------------------------- */

static void name_words(struct config_option *option)
{
    static const size_t n_lists = sizeof(word_lists) / sizeof(word_lists[0]);
    size_t i = 0;

    while (i < n_lists && strcmp(option->words, word_lists[i].type) != 0) {
        i++;
    }
    /* An option of type ENUM_<list> has its WORDS() in the table. */
    CHECK(i < n_lists);
    option->words = word_lists[i].words;
}

/* An override is the option of [cache] in all but where its value stands. */
static void name_override(struct config_option *override)
{
    size_t i = 0;

    while (i < N_OPTIONS && (options[i].is_local || strcmp(options[i].name, override->name) != 0)) {
        i++;
    }
    CHECK(i < N_OPTIONS && options[i].type == override->type);
    override->initial = options[i].initial;
    override->min = options[i].min;
    override->max = options[i].max;
    override->help = options[i].help;
}

static void prepare(void)
{
    static const size_t prefix_len = sizeof(VARIABLE_PREFIX) - 1;

    for (size_t i = 0; i < N_OPTIONS; i++) {
        struct config_option *const option = &options[i];
        const size_t len = strlen(option->name);

        CHECK(len < sizeof(option->spelling));
        (void)snprintf(option->variable, sizeof(option->variable), VARIABLE_PREFIX);
        for (size_t j = 0; j < len; j++) {
            option->spelling[j] = option->name[j] == '_' ? '-' : option->name[j];
            option->variable[prefix_len + j] = (char)toupper((unsigned char)option->name[j]);
        }
        if (option->type == OPTION_ENUM) {
            name_words(option);
        }
        if (option->is_override) {
            name_override(option);
        }
    }
}

const struct config_option *config_options(unsigned *n)
{
    static pthread_once_t is_prepared = PTHREAD_ONCE_INIT;

    (void)pthread_once(&is_prepared, prepare);
    *n = N_OPTIONS;
    return options;
}

const struct config_option *config_option_find(bool in_namespace, const char *spelling)
{
    unsigned n;
    const struct config_option *const all = config_options(&n);

    for (unsigned i = 0; i < n; i++) {
        if (all[i].is_local == in_namespace && !config_option_is_dependency(&all[i]) &&
            strcmp(all[i].spelling, spelling) == 0) {
            return &all[i];
        }
    }
    return NULL;
}

bool config_option_is_dependency(const struct config_option *option)
{
    return option->is_local && strcmp(option->section, "dependency") == 0;
}

const struct config_option *config_option_of_dependency(const char *spelling)
{
    unsigned n;
    const struct config_option *const all = config_options(&n);

    for (unsigned i = 0; i < n; i++) {
        if (config_option_is_dependency(&all[i]) && strcmp(all[i].spelling, spelling) == 0) {
            return &all[i];
        }
    }
    return NULL;
}

const struct config_option *config_option_nearest(bool in_namespace, const char *spelling)
{
    struct nearest nearest = {.word = spelling};
    unsigned n;
    const struct config_option *const all = config_options(&n);

    for (unsigned i = 0; i < n; i++) {
        if (all[i].is_local == in_namespace && !config_option_is_dependency(&all[i])) {
            nearest_offer(&nearest, all[i].spelling);
        }
    }
    return nearest.found == NULL ? NULL : config_option_find(in_namespace, nearest.found);
}

/* -- Numbers with units ----------------------------------------------------------------------- */

struct unit {
    const char *name;
    int64_t factor;
};

/* Ascending; where two have one factor, the last is the one that is printed. */
static const struct unit size_units[] = {
    {"", 1},         {"b", 1},       {"k", 1 << 10},  {"kb", 1 << 10}, {"m", 1 << 20},
    {"mb", 1 << 20}, {"g", 1 << 30}, {"gb", 1 << 30}, {NULL, 0},
};
static const struct unit time_units[] = {
    {"ms", 1}, {"s", 1000}, {"m", 60 * 1000}, {"h", 60 * 60 * 1000}, {"d", 86400000}, {NULL, 0},
};

static bool parse_with_unit(const char *text, const struct unit *units, int64_t *out)
{
    const size_t n_digits = strspn(text, "0123456789");
    int64_t number;

    if (!bytes_to_int64(bytes_make(text, n_digits), &number)) {
        return false;
    }
    /* Nothing is nothing in any unit. */
    if (number == 0 && text[n_digits] == '\0') {
        *out = 0;
        return true;
    }

    const char *const unit = text + n_digits + strspn(text + n_digits, " ");

    for (; units->name != NULL; units++) {
        if (strcasecmp(unit, units->name) == 0) {
            return !__builtin_mul_overflow(number, units->factor, out);
        }
    }
    return false;
}

static void format_with_unit(int64_t value, const struct unit *units, char out[OPTION_TEXT_MAX])
{
    static const struct unit none = {"", 1};
    const struct unit *best = units;

    for (; units->name != NULL; units++) {
        if (value % units->factor == 0) {
            best = units;
        }
    }
    if (value == 0) {
        best = &none;
    }
    (void)snprintf(out, OPTION_TEXT_MAX, "%lld%s", (long long)(value / best->factor), best->name);
}

bool config_parse_time(const char *text, int64_t *ms)
{
    return parse_with_unit(text, time_units, ms);
}

static bool parse_number(const struct config_option *option, const char *text, int64_t *out)
{
    switch (option->type) {
    case OPTION_SIZE:
        return parse_with_unit(text, size_units, out);
    case OPTION_TIME:
        return parse_with_unit(text, time_units, out);
    default:
        return bytes_to_int64(bytes_of_string(text), out);
    }
}

static bool parse_number_in_bounds(const struct config_option *option, const char *text,
                                   int64_t *out)
{
    int64_t min, max, value;

    CHECK(parse_number(option, option->min, &min) && parse_number(option, option->max, &max));
    if (!parse_number(option, text, &value) || value < min || value > max) {
        return false;
    }
    *out = value;
    return true;
}

/* -- Words ------------------------------------------------------------------------------------ */

static bool parse_bool(const char *text, bool *out)
{
    static const char *const on[] = {"on", "yes", "true"}, *const off[] = {"off", "no", "false"};

    for (size_t i = 0; i < sizeof(on) / sizeof(on[0]); i++) {
        if (strcasecmp(text, on[i]) == 0 || strcasecmp(text, off[i]) == 0) {
            *out = strcasecmp(text, on[i]) == 0;
            return true;
        }
    }
    return false;
}

/* The n-th of the words apart by spaces; an empty view behind the last. */
static struct bytes nth_word(const char *words, int n)
{
    while (n-- > 0) {
        words += strcspn(words, " ");
        words += strspn(words, " ");
    }
    return bytes_make(words, strcspn(words, " "));
}

static bool parse_word(const char *words, const char *text, int *out)
{
    for (int i = 0; nth_word(words, i).len > 0; i++) {
        if (bytes_equal_nocase(nth_word(words, i), bytes_of_string(text))) {
            *out = i;
            return true;
        }
    }
    return false;
}

/* -- Texts ------------------------------------------------------------------------------------ */

#define EXPECTED_ADMIN CONFIG_ADDRESS_EXPECTED ", or nothing"
#define EXPECTED_ANNOUNCE CONFIG_ANNOUNCE_EXPECTED ", or nothing"
#define EXPECTED_UNIX_MODE "permissions in octal from 0000 to 0777"
#define EXPECTED_TLS_LISTEN "an address as 127.0.0.1:6390, [::1]:6390 or *:6390"
#define EXPECTED_LEDGER_PREFIX "1 to 100 characters without braces and spaces"
#define EXPECTED_BUS_GROUP "1 to 64 letters, digits, dots, dashes or underscores"
#define EXPECTED_MATCH "a glob pattern of 1 to 256 characters"

static const char *check_backend(const char *text)
{
    struct config_backend backend;
    const char *why;

    if (!config_backend_parse(&backend, text, &why)) {
        return why;
    }
    config_backend_fini(&backend);
    return NULL;
}

static const char *check_admin(const char *text)
{
    struct config_address address;
    const bool is_good = text[0] == '\0' || config_address_parse(&address, text);

    return is_good ? NULL : "expected " EXPECTED_ADMIN;
}

static const char *check_announce(const char *text)
{
    struct config_announce announce;
    const bool is_good = text[0] == '\0' || config_announce_parse(&announce, text);

    return is_good ? NULL : "expected " EXPECTED_ANNOUNCE;
}

static const char *check_listen(const char *text)
{
    struct config_address address;

    return config_address_parse(&address, text) ? NULL : "expected " CONFIG_ADDRESS_EXPECTED;
}

static const char *check_tls_listen(const char *text)
{
    struct config_address address;
    const bool is_good = text[0] == '\0' ||
                         (config_address_parse(&address, text) && !address.is_unix);

    return is_good ? NULL : "expected " EXPECTED_TLS_LISTEN;
}

static const char *check_protocol(const char *text)
{
    return config_is_protocol(text) ? NULL : "expected " CONFIG_PROTOCOL_EXPECTED;
}

static const char *check_mapping(const char *text)
{
    struct config_mapping mapping;
    const bool is_good = text[0] == '\0' || config_mapping_parse(&mapping, text);

    return is_good ? NULL : "expected " CONFIG_MAPPING_EXPECTED;
}

static const char *check_unix_mode(const char *text)
{
    const size_t len = strlen(text);
    const bool is_good = len >= 3 && len <= 4 && strspn(text, "01234567") == len &&
                         (len == 3 || text[0] == '0');

    return is_good ? NULL : "expected " EXPECTED_UNIX_MODE;
}

/* It becomes part of channel names: no braces, and nothing that a pattern means. */
static const char *check_bus_group(const char *text)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789._-";
    const size_t len = strlen(text);

    return len >= 1 && len <= 64 && strspn(text, allowed) == len ? NULL
                                                                 : "expected " EXPECTED_BUS_GROUP;
}

/* Braces choose the slot, behind it. */
static const char *check_ledger_prefix(const char *text)
{
    const size_t len = strlen(text);

    return len >= 1 && len <= 100 && strpbrk(text, "{} \t") == NULL
               ? NULL
               : "expected " EXPECTED_LEDGER_PREFIX;
}

static const char *check_match(const char *text)
{
    const size_t len = strlen(text);

    return len >= 1 && len <= 256 ? NULL : "expected " EXPECTED_MATCH;
}

static const struct text_check {
    const char *name;
    const char *(*check)(const char *text); /* NULL, or why not (of a LIST: of one item) */
    const char *expected;
} text_checks[] = {
    {"listen", check_listen, CONFIG_ADDRESS_EXPECTED},
    {"tls_listen", check_tls_listen, EXPECTED_TLS_LISTEN},
    {"tls_protocols", check_protocol, CONFIG_PROTOCOL_EXPECTED},
    {"unix_socket_mode", check_unix_mode, EXPECTED_UNIX_MODE},
    {"backend", check_backend, "a URL"},
    {"admin", check_admin, EXPECTED_ADMIN},
    {"announce_address", check_announce, EXPECTED_ANNOUNCE},
    {"address_map", check_mapping, CONFIG_MAPPING_EXPECTED},
    {"bus_group", check_bus_group, EXPECTED_BUS_GROUP},
    {"ledger_prefix", check_ledger_prefix, EXPECTED_LEDGER_PREFIX},
    {"match", check_match, EXPECTED_MATCH},
};

/* NULL: any text will do. */
static const struct text_check *find_text_check(const struct config_option *option)
{
    for (size_t i = 0; i < sizeof(text_checks) / sizeof(text_checks[0]); i++) {
        if (strcmp(option->name, text_checks[i].name) == 0) {
            return &text_checks[i];
        }
    }
    return NULL;
}

static const char *check_text(const struct config_option *option, const char *text)
{
    const struct text_check *const check = find_text_check(option);

    return check == NULL ? NULL : check->check(text);
}

static const char *add_items(const struct config_option *option, struct config_list *list,
                             const char *text)
{
    static const char separators[] = ", \t";
    struct config_list added = {.n = 0};
    const char *why = NULL;

    text += strspn(text, separators);
    while (*text != '\0' && why == NULL) {
        const size_t len = strcspn(text, separators);

        if (list->n + added.n == CONFIG_LIST_MAX) {
            why = "expected at most 16 of them";
            break;
        }

        char *const item = mem_alloc(len + 1);

        memcpy(item, text, len);
        added.items[added.n++] = item;
        why = check_text(option, item);
        text += len;
        text += strspn(text, separators);
    }
    if (why == NULL && added.n == 0) {
        why = check_text(option, "");
    }
    for (unsigned i = 0; i < added.n; i++) {
        if (why == NULL) {
            list->items[list->n++] = added.items[i];
        } else {
            mem_free(added.items[i]);
        }
    }
    return why;
}

/* -- Values ----------------------------------------------------------------------------------- */

/* Parses into the field; false: not a value of this type and range, see config_option_expected().
 */
static bool set_plain(const struct config_option *option, void *field, const char *text)
{
    int64_t number;

    switch (option->type) {
    case OPTION_BOOL:
        return parse_bool(text, field);
    case OPTION_ENUM:
        return parse_word(option->words, text, field);
    case OPTION_SIZE:
        if (!parse_number_in_bounds(option, text, &number)) {
            return false;
        }
        *(size_t *)field = (size_t)number;
        return true;
    default:
        return parse_number_in_bounds(option, text, field);
    }
}

bool config_option_set(const struct config_option *option, void *values, const char *text,
                       char why[OPTION_TEXT_MAX])
{
    void *const field = (char *)values + option->offset;
    const char *problem = NULL;

    switch (option->type) {
    case OPTION_TEXT:
    case OPTION_SECRET:
        problem = check_text(option, text);
        if (problem == NULL) {
            config_option_clear(option, values);
            *(char **)field = mem_strdup(text);
        }
        break;
    case OPTION_LIST:
        problem = add_items(option, field, text);
        break;
    default:
        if (!set_plain(option, field, text)) {
            char expected[OPTION_TEXT_MAX];

            config_option_expected(option, expected);
            (void)snprintf(why, OPTION_TEXT_MAX, "expected %.300s", expected);
            return false;
        }
    }
    if (problem != NULL) {
        (void)snprintf(why, OPTION_TEXT_MAX, "%s", problem);
    }
    return problem == NULL;
}

void config_option_clear(const struct config_option *option, void *values)
{
    void *const field = (char *)values + option->offset;

    if (option->type == OPTION_TEXT || option->type == OPTION_SECRET) {
        mem_free(*(char **)field);
        *(char **)field = NULL;
    }
    if (option->type == OPTION_LIST) {
        struct config_list *const list = field;

        while (list->n > 0) {
            mem_free(list->items[--list->n]);
        }
    }
}

static bool lists_equal(const struct config_list *a, const struct config_list *b)
{
    for (unsigned i = 0; i < a->n && i < b->n; i++) {
        if (strcmp(a->items[i], b->items[i]) != 0) {
            return false;
        }
    }
    return a->n == b->n;
}

static size_t plain_size(enum config_option_type type)
{
    switch (type) {
    case OPTION_BOOL:
        return sizeof(bool);
    case OPTION_ENUM:
        return sizeof(int);
    case OPTION_SIZE:
        return sizeof(size_t);
    default:
        return sizeof(int64_t);
    }
}

bool config_option_equal(const struct config_option *option, const void *a, const void *b)
{
    const void *const left = (const char *)a + option->offset;
    const void *const right = (const char *)b + option->offset;

    switch (option->type) {
    case OPTION_TEXT:
    case OPTION_SECRET:
        return strcmp(*(char *const *)left, *(char *const *)right) == 0;
    case OPTION_LIST:
        return lists_equal(left, right);
    default:
        return memcmp(left, right, plain_size(option->type)) == 0;
    }
}

void config_option_copy(const struct config_option *option, void *values,
                        const struct config_option *from, const void *from_values)
{
    CHECK(option->type == from->type && option->type != OPTION_LIST &&
          option->type != OPTION_TEXT && option->type != OPTION_SECRET);
    memcpy((char *)values + option->offset, (const char *)from_values + from->offset,
           plain_size(option->type));
}

void config_option_assign(const struct config_option *option, void *values, const void *from)
{
    void *const field = (char *)values + option->offset;
    const void *const other = (const char *)from + option->offset;

    switch (option->type) {
    case OPTION_TEXT:
    case OPTION_SECRET:
        config_option_clear(option, values);
        *(char **)field = mem_strdup(*(char *const *)other);
        return;
    case OPTION_LIST: {
        const struct config_list *const list = other;
        struct config_list *const copy = field;

        config_option_clear(option, values);
        for (unsigned i = 0; i < list->n; i++) {
            copy->items[copy->n++] = mem_strdup(list->items[i]);
        }
        return;
    }
    default:
        memcpy(field, other, plain_size(option->type));
    }
}

/* -- Text for people -------------------------------------------------------------------------- */

static void format_list(const struct config_list *list, char out[OPTION_TEXT_MAX])
{
    size_t used = 0;

    out[0] = '\0';
    for (unsigned i = 0; i < list->n; i++) {
        const int n = snprintf(out + used, OPTION_TEXT_MAX - used, "%s%s", i > 0 ? " " : "",
                               list->items[i]);

        if (n < 0 || (size_t)n >= OPTION_TEXT_MAX - used) {
            return;
        }
        used += (size_t)n;
    }
}

void config_option_format(const struct config_option *option, const void *values,
                          char out[OPTION_TEXT_MAX])
{
    const void *const field = (const char *)values + option->offset;
    struct bytes word;

    switch (option->type) {
    case OPTION_BOOL:
        (void)snprintf(out, OPTION_TEXT_MAX, "%s", *(const bool *)field ? "on" : "off");
        return;
    case OPTION_INT:
        (void)snprintf(out, OPTION_TEXT_MAX, "%lld", (long long)*(const int64_t *)field);
        return;
    case OPTION_SIZE:
        format_with_unit((int64_t) * (const size_t *)field, size_units, out);
        return;
    case OPTION_TIME:
        format_with_unit(*(const int64_t *)field, time_units, out);
        return;
    case OPTION_ENUM:
        word = nth_word(option->words, *(const int *)field);
        (void)snprintf(out, OPTION_TEXT_MAX, "%.*s", (int)word.len, (const char *)word.ptr);
        return;
    case OPTION_LIST:
        format_list(field, out);
        return;
    case OPTION_TEXT:
    case OPTION_SECRET:
        (void)snprintf(out, OPTION_TEXT_MAX, "%s",
                       config_option_shown(option, *(char *const *)field));
    }
}

/* "auto, tracking or ttl" */
static void join_words(const char *words, char out[OPTION_TEXT_MAX])
{
    size_t used = 0;

    for (int i = 0; nth_word(words, i).len > 0 && used < OPTION_TEXT_MAX; i++) {
        const struct bytes word = nth_word(words, i);
        const char *const glue = nth_word(words, i + 1).len > 0 ? ", " : " or ";
        const int n = snprintf(out + used, OPTION_TEXT_MAX - used, "%s%.*s", i > 0 ? glue : "",
                               (int)word.len, (const char *)word.ptr);

        used += n > 0 ? (size_t)n : 0;
    }
}

void config_option_expected(const struct config_option *option, char out[OPTION_TEXT_MAX])
{
    static const char *const kinds[] = {
        [OPTION_INT] = "a whole number", [OPTION_SIZE] = "a size", [OPTION_TIME] = "a time"};
    const char *const example = option->type == OPTION_TIME ? ", with its unit (ms, s, m, h, d)"
                                                            : "";

    const struct text_check *const check = find_text_check(option);

    switch (option->type) {
    case OPTION_BOOL:
        (void)snprintf(out, OPTION_TEXT_MAX, "on or off");
        return;
    case OPTION_ENUM:
        join_words(option->words, out);
        return;
    case OPTION_TEXT:
    case OPTION_SECRET:
    case OPTION_LIST:
        (void)snprintf(out, OPTION_TEXT_MAX, "%s", check == NULL ? "a text" : check->expected);
        return;
    default:
        (void)snprintf(out, OPTION_TEXT_MAX, "%s from %s to %s%s", kinds[option->type], option->min,
                       option->max, example);
    }
}

const char *config_option_shown(const struct config_option *option, const char *text)
{
    size_t begin, end;

    if (option->type == OPTION_SECRET) {
        return text[0] == '\0' ? "(empty)" : "(hidden)";
    }
    if (strcmp(option->name, "backend") != 0 || !config_backend_credentials(text, &begin, &end)) {
        return log_quote(bytes_of_string(text));
    }

    char hidden[OPTION_TEXT_MAX];
    const int n = snprintf(hidden, sizeof(hidden), "%.*s***%s", (int)(begin < 64 ? begin : 64),
                           text, text + end);

    return log_quote(bytes_make(hidden, n < (int)sizeof(hidden) ? (size_t)n : sizeof(hidden) - 1));
}
