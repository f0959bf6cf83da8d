/*
 * info_text.h - the text that INFO and CLUSTER INFO answer: lines of name:value
 *
 * Purpose:    find one line's value.
 * Ownership:  what is found points into the text.
 * Threading:  any.
 */
#ifndef NC_UPSTREAM_INFO_TEXT_H
#define NC_UPSTREAM_INFO_TEXT_H

#include "base/bytes.h"

/* The text behind "name:" at the start of one of its lines, without the line's end; or false. */
bool info_text_find(struct bytes text, const char *name, struct bytes *value);

#endif
