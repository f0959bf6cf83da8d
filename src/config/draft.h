/*
 * draft.h - a configuration in the making
 *
 * Purpose:    collect values from the layers, remember where each came from, report everything that
 *             is wrong with them, and turn the whole into a struct config.
 * Ownership:  the draft belongs to its caller; draft_finish() hands the configuration over.
 * Threading:  one thread.
 * Errors:     each is a line in the FILE given to draft_new(); draft_finish() answers NULL when
 *             there was one. After 50 the rest is only counted.
 */
#ifndef NC_CONFIG_DRAFT_H
#define NC_CONFIG_DRAFT_H

#include "config/options.h"

/* In rising precedence. */
enum config_layer {
    LAYER_DEFAULT,
    LAYER_FILE,
    LAYER_ENVIRONMENT,
    LAYER_COMMAND_LINE,
    LAYER_SET, /* CACHE CONFIG SET */
};

/* What becomes of an option that needs a restart and differs from what is in force. */
enum draft_restart { RESTART_KEEP, RESTART_REFUSE };

struct config_draft;
struct draft_namespace;  /* one [namespace] section */
struct draft_dependency; /* one [dependency] section */

/* file_name is for messages and may be NULL; it is copied. */
struct config_draft *draft_new(const char *file_name, FILE *errors);
void draft_free(struct config_draft **draft);

/* An error that belongs to no option. line 0: not in the file. */
void draft_error(struct config_draft *draft, enum config_layer layer, unsigned line,
                 const char *format, ...) NC_PRINTF(4, 5);
unsigned draft_n_errors(const struct config_draft *draft);

/* Gives an option outside [namespace] a value. line is the file's; 0 in other layers. */
void draft_set(struct config_draft *draft, const struct config_option *option,
               enum config_layer layer, unsigned line, const char *value);

/* Where the sections about events are gathered. */
struct event_rules *draft_events(struct config_draft *draft);

/* Opens a namespace; NULL, with the error reported, when it cannot be. */
struct draft_namespace *draft_add_namespace(struct config_draft *draft, const char *name,
                                            unsigned line);
void draft_set_in_namespace(struct config_draft *draft, struct draft_namespace *space,
                            const struct config_option *option, unsigned line, const char *value);

bool draft_has_namespace(const struct config_draft *draft, const char *name);

/* Sets an option in a layer above all others; space NULL: outside of namespaces. */
void draft_override(struct config_draft *draft, const char *space, const char *name,
                    const char *value);

/* What draft_finish() is to compare with; notes: of what is kept. Both are borrowed until then. */
void draft_follow(struct config_draft *draft, const struct config *in_force,
                  enum draft_restart restart, FILE *notes);

/* The same for [dependency]. */
struct draft_dependency *draft_add_dependency(struct config_draft *draft, const char *name,
                                              unsigned line);
void draft_set_in_dependency(struct config_draft *draft, struct draft_dependency *rule,
                             const struct config_option *option, unsigned line, const char *value);

/*
 * Checks what spans options. Returns the configuration with one reference (source and changes are
 * left to the caller), or NULL. The draft is spent either way.
 */
struct config *draft_finish(struct config_draft *draft);

/* Frees what a configuration holds besides its source, and the configuration. */
void draft_discard_config(struct config *config);

#endif
