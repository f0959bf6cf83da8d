/*
 * arguments.h - the command line
 *
 *     --name value   --name=value   --name (BOOL only: on)   -t   --describe [config|metrics]
 *
 * Purpose:    take flags apart, hide the secrets among them from ps(1), and keep the rest for
 *             reloads.
 * Ownership:  a source is reference counted and owns copies of everything.
 * Threading:  parsing on one thread; references are atomic.
 * Errors:     reported to the draft, all of them.
 */
#ifndef NC_CONFIG_ARGUMENTS_H
#define NC_CONFIG_ARGUMENTS_H

#include "config/draft.h"

struct config_flag {
    const struct config_option *option;
    char *value;
};

struct config_source {
    char *file_name; /* of --config, else of NEARCACHED_CONFIG; NULL: no file */
    struct config_flag *flags;
    unsigned n_flags;
    _Atomic unsigned n_refs;
};

/*
 * What argv says, with one reference. Errors go to `errors`, and their number to *n_errors. Secrets
 * in argv are overwritten with x.
 */
struct config_source *config_source_new(int argc, char **argv, enum config_action *action,
                                        FILE *errors, unsigned *n_errors);
struct config_source *config_source_ref(struct config_source *source);
void config_source_unref(struct config_source **source);

/* Puts the flags on top of what the draft holds. */
void config_source_apply(const struct config_source *source, struct config_draft *draft);

#endif
