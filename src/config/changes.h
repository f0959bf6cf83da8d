/*
 * changes.h - what a configuration was made of besides flags and environment, so that one option
 * can be changed later and nothing else with it
 *
 * Purpose:    keep the file as it was read last, and the options that were set since.
 * Ownership:  a configuration has one of its own and frees it.
 * Threading:  who makes configurations; constant afterwards.
 * Errors:     a file that cannot be read is reported to the draft.
 */
#ifndef NC_CONFIG_CHANGES_H
#define NC_CONFIG_CHANGES_H

#include "config/draft.h"

struct config_change_item {
    char *space; /* NULL: outside of namespaces */
    char *name, *value;
};

struct config_changes {
    char *text; /* of the file; NULL: there is none */
    size_t text_len;
    struct config_change_item *items; /* each option once */
    unsigned n_items;
};

/*
 * file_name NULL: there is no file. is_again: it is read by a process that serves, which may not
 * wait for whoever writes to a pipe.
 */
struct config_changes *changes_read(const char *file_name, bool is_again,
                                    struct config_draft *draft);
struct config_changes *changes_copy(const struct config_changes *from);
void changes_free(struct config_changes **changes);

/* Takes the place of an earlier value of the option. */
void changes_set(struct config_changes *changes, const char *space, const char *name,
                 const char *value);

/* Reads the text into the draft / puts what was set on top of it. */
void changes_apply_text(const struct config_changes *changes, struct config_draft *draft);
void changes_apply_items(const struct config_changes *changes, struct config_draft *draft);

#endif
