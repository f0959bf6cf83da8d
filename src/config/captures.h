/*
 * captures.h - names with captures: what a pattern takes out of a key, and where it puts it
 *
 * Purpose:    rules say which name belongs to which: `session:{1}:*` and `user:{1}`. A pattern is
 *             matched with a key, what its captures took is put into a template; the other way
 *             round a name tells what the captures of a template must have been.
 * Ownership:  a pattern owns its text. Captures point into the text they were taken from.
 * Threading:  patterns never change: any thread.
 * Errors:     captures_pattern_new() says what is wrong, for people. Matching never fails; the work
 *             is at most the product of the lengths of pattern and text.
 * Units:      bytes.
 *
 * `{name}` is a capture: it takes a run of at least one byte; name is 1 to 32 letters, digits, _
 * and -, and stands once in a pattern. A brace that means itself is written \{. Everything else is
 * as in Redis' globs: * any run, empty ones too, ? one byte, [a-z] [^x] one byte of a set, \x the
 * byte x. Where a text can be matched in more than one way, each capture and each *, from the left
 * to the right, takes the shortest run with which the rest still matches: of `a:{1}:*` and a:b:c:d
 * {1} takes b. The last one takes what is left.
 *
 * A template is a pattern of captures and literal text alone: it makes, from captures, one name.
 */
#ifndef NC_CONFIG_CAPTURES_H
#define NC_CONFIG_CAPTURES_H

#include "base/bytes.h"
#include "base/check.h"

/* Of one pattern. */
#define CAPTURES_MAX 8
#define CAPTURE_NAME_MAX 32
/* Longest pattern as written, and longest text that is made of a template. */
#define CAPTURES_TEXT_MAX ((size_t)1024)
#define CAPTURES_WHY_MAX 160

struct captures_pattern; /* opaque */

struct capture {
    struct bytes name;  /* borrowed from the pattern */
    struct bytes value; /* ptr is NULL where it is not known */
};

struct captures {
    unsigned n;
    struct capture of[CAPTURES_MAX]; /* in the order in which they stand in the pattern */
};

/* NULL: why says what is wrong with it. */
struct captures_pattern *captures_pattern_new(struct bytes text, char why[CAPTURES_WHY_MAX]);
/* Accepts a pointer to NULL. */
void captures_pattern_free(struct captures_pattern **pattern);

/* As it was written. */
struct bytes captures_text(const struct captures_pattern *pattern);
unsigned captures_count(const struct captures_pattern *pattern);
/* Nothing but captures and literal text. */
bool captures_is_template(const struct captures_pattern *pattern);
/* The literal text that every name of it begins with; out has room for CAPTURES_TEXT_MAX. */
size_t captures_prefix(const struct captures_pattern *pattern, unsigned char *out);

/*
 * Every capture of `uses` is one of `pattern`. False: why says which is not. So a rule is
 * checked: what its template names, its pattern must have.
 */
bool captures_check(const struct captures_pattern *pattern, const struct captures_pattern *uses,
                    char why[CAPTURES_WHY_MAX]);

/* Whether text matches; *found is what the captures took, all of it known. */
bool captures_match(const struct captures_pattern *pattern, struct bytes text,
                    struct captures *found);

/*
 * The one name that a template makes of captures. Returns its length, or 0: a capture is not known,
 * it is no template, or the name would be empty or longer than CAPTURES_TEXT_MAX. out has room for
 * that.
 */
size_t captures_expand(const struct captures_pattern *pattern, const struct captures *values,
                       unsigned char *out);

/* The template makes this name of them, however long it is. */
bool captures_makes(const struct captures_pattern *pattern, const struct captures *values,
                    struct bytes name);

/*
 * The inverse: whether the template can have made this name, and of which captures. Those that
 * could have been one thing or another (`{a}-{b}` of x-y-z) are left unknown.
 */
bool captures_unify(const struct captures_pattern *pattern, struct bytes name,
                    struct captures *found);

/*
 * A glob, as bytes_match_glob() and Redis have them, that matches at least the names which the
 * pattern matches with these captures: what is known is literal, escaped, what is not is *. Returns
 * its length, or 0: longer than size. Four times CAPTURES_TEXT_MAX always suffice for the
 * captures of one name of at most CAPTURES_TEXT_MAX bytes where each stands once.
 */
size_t captures_glob(const struct captures_pattern *pattern, const struct captures *values,
                     unsigned char *out, size_t size);

#endif
