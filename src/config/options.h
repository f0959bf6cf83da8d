/*
 * options.h - the option table as data: look up, read, check, compare and print one value
 *
 * Purpose:    what the layers of the configuration, --describe and the tests need to know about an
 *             option, from tables/options.def.
 * Ownership:  the table is static. config_option_set() copies text into the struct it fills, and
 *             config_option_clear() frees it.
 * Threading:  any thread; values follow the struct that holds them.
 * Errors:     setting answers false, says in `why` what was expected, and changes nothing.
 * Units:      as in config.h.
 *
 * `values` is a struct config, or a struct config_namespace for the options of [namespace], or a
 * struct config_dependency.
 */
#ifndef NC_CONFIG_OPTIONS_H
#define NC_CONFIG_OPTIONS_H

#include "config/config.h"

enum config_option_type {
    OPTION_BOOL,
    OPTION_INT,
    OPTION_SIZE,
    OPTION_TIME,
    OPTION_TEXT,
    OPTION_SECRET,
    OPTION_ENUM,
    OPTION_LIST,
};

struct config_option {
    const char *section;
    const char *name; /* as in the table: max_staleness */
    enum config_option_type type;
    const char *words; /* OPTION_ENUM: apart by spaces */
    const char *initial, *min, *max;
    bool needs_restart;
    bool is_local;    /* of [namespace] or [dependency] */
    bool is_override; /* of [namespace], and of [cache] by the same name */
    const char *help;
    size_t offset;
    char spelling[32]; /* as in the file and in flags: max-staleness */
    char variable[48]; /* NEARCACHED_MAX_STALENESS */
};

/* Room for any message of this module. */
#define OPTION_TEXT_MAX 320

/* All of them in the table's order; those of [namespace] and then of [dependency] last. */
const struct config_option *config_options(unsigned *n);

/* By spelling (file, flags) among those of [namespace], or all the others. NULL: unknown. */
const struct config_option *config_option_find(bool in_namespace, const char *spelling);
/* Among those of [dependency]. */
const struct config_option *config_option_of_dependency(const char *spelling);
bool config_option_is_dependency(const struct config_option *option);
/* The likeliest that was meant, or NULL. */
const struct config_option *config_option_nearest(bool in_namespace, const char *spelling);

/* A LIST grows by what text holds; every other type is replaced. */
NC_MUST_CHECK bool config_option_set(const struct config_option *option, void *values,
                                     const char *text, char why[OPTION_TEXT_MAX]);
/* Frees what the value holds; it becomes NULL, or an empty list. */
void config_option_clear(const struct config_option *option, void *values);
bool config_option_equal(const struct config_option *option, const void *a, const void *b);
/* Takes over the value of another option of the same type; not for texts and lists. */
void config_option_copy(const struct config_option *option, void *values,
                        const struct config_option *from, const void *from_values);

/* The value that `from`, another struct of the same kind, has. */
void config_option_assign(const struct config_option *option, void *values, const void *from);

/* The value as one would write it; of a secret only whether there is one. */
void config_option_format(const struct config_option *option, const void *values,
                          char out[OPTION_TEXT_MAX]);
/* "100ms", "5s": milliseconds; of options that have no field of their own. */
NC_MUST_CHECK bool config_parse_time(const char *text, int64_t *ms);
/* "a size from 1mb to 48gb", "on or off", "auto, tracking or ttl". */
void config_option_expected(const struct config_option *option, char out[OPTION_TEXT_MAX]);
/* text as it may be shown in a message: escaped, cut, without secrets. May be used 8 times at once.
 */
const char *config_option_shown(const struct config_option *option, const char *text);

#endif
