/*
 * namespaces.h - ids of namespace names, and finding a key's namespace
 *
 * Purpose:    what config.h promises with config_namespace_of(), _count() and _name(): entries and
 *             statistics carry a one-byte id that outlives every configuration; a look-up per miss
 *             and per relayed command touches only the patterns that can match the key's first
 * byte. Ownership:  names in the registry live as long as the process. A matcher borrows the
 * patterns of the namespaces it was made for. Threading:  any thread; registering takes a lock,
 * reading does not. A matcher never changes. Errors:     -ENOSPC: every id was given to a name
 * before.
 */
#ifndef NC_CONFIG_NAMESPACES_H
#define NC_CONFIG_NAMESPACES_H

#include "config/config.h"

#define NAMESPACE_NAME_MAX 32

/* 1 to 32 letters, digits and . _ - : only, so that it can stand in a label and in a section. */
bool namespace_name_is_valid(const char *name);

/* Returns the id of name, a new one where it is new; *kept is the registry's own copy. */
NC_MUST_CHECK int namespace_register(const char *name, const char **kept);

/* Brings namespaces[1] and up into the order in which config_namespace_of() prefers them. */
void namespaces_sort(struct config_namespace *namespaces, unsigned n);

/* The literal text that every key of a pattern begins with; `out` has room for the pattern. Returns
 * its length. */
size_t namespace_literal(const char *pattern, unsigned char *out);

/* Of sorted namespaces. */
struct config_matcher *config_matcher_new(const struct config_namespace *namespaces, unsigned n);
void config_matcher_free(struct config_matcher **matcher);

#endif
