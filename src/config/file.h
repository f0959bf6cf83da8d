/*
 * file.h - the configuration file, read by inih
 *
 *     ; a comment          (# too, at the start of a line)
 *     [cache]
 *     maxmemory = 1gb      ; a comment behind a value
 *     [namespace "session"]
 *     match = "session:*"  ; quotes of either kind are taken off
 *
 * Purpose:    turn lines into values of a draft, and notice what inih would pass over in silence:
 *             lines above its limit, text behind a section's bracket, indented lines (which it
 *             takes for more of the value before).
 * Ownership:  nothing is kept.
 * Threading:  one thread at a time: inih's limits are global.
 * Errors:     reported to the draft with their line; reading goes on.
 *
 * inih ends a value at a space with a semicolon behind it, within quotes too. A quoted value that
 * is cut there is an error; a password with " ;" in it can come from the environment.
 */
#ifndef NC_CONFIG_FILE_H
#define NC_CONFIG_FILE_H

#include "config/draft.h"

#include <stdio.h>

void config_file_read(FILE *file, struct config_draft *draft);

#endif
