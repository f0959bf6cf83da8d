/*
 * event_patterns.h - subscriptions of names to events, as text and as a table in memory
 *
 * Purpose:    what CACHE SUBSCRIBE was given is checked, and put into words for the ledger; which
 *             names an event drops is found out again. Events that are one name are subjects of
 *             the ledger; patterns of events stand together under one subject, each member a
 *             pattern and what it drops, and the table holds a copy of them.
 * Ownership:  the table copies what it is given. What is handed out is valid for the call.
 * Threading:  one owner.
 * Errors:     words for people, or NULL.
 *
 * A name is a key, or a glob of keys where it holds * ? or [ that no backslash precedes. With an
 * event that has captures it may use them; otherwise its braces are braces.
 */
#ifndef NC_COHERENCE_EVENT_PATTERNS_H
#define NC_COHERENCE_EVENT_PATTERNS_H

#include "config/event_rules.h"

#include <stdint.h>

/* Longest event (name or pattern) and name together. */
#define EVENT_WORDS_MAX ((size_t)1000)
/* Longest glob made of a name and captures. */
#define EVENT_GLOB_MAX (3 * CAPTURES_TEXT_MAX)
#define EVENT_WHY_MAX (CAPTURES_WHY_MAX + 32)

/* An event as a client names it. */
struct event_subject {
    bool is_pattern;
    struct bytes text; /* as it was given */
    struct bytes name; /* unless it is a pattern: the event's name */
    unsigned char room[CAPTURES_TEXT_MAX];
    struct captures_pattern *pattern;
};

/* False: why. The caller frees what was made with event_subject_fini(). */
bool event_subject_init(struct event_subject *subject, struct bytes text, char why[EVENT_WHY_MAX]);
void event_subject_fini(struct event_subject *subject);
/* Whether it may drop this name. */
bool event_subject_check(const struct event_subject *subject, struct bytes name,
                         char why[EVENT_WHY_MAX]);

/* A member of the ledger's one subject for patterns: pattern, a zero byte, name. Its length. */
size_t event_member_write(struct bytes pattern, struct bytes name,
                          unsigned char out[EVENT_WORDS_MAX]);
bool event_member_read(struct bytes member, struct bytes *pattern, struct bytes *name);

/* One name to drop. */
typedef void (*event_drop_fn)(void *context, bool is_glob, struct bytes name, unsigned db);

/* What a member of an event that is one name drops. */
void event_drop_plain(struct bytes name, unsigned db, event_drop_fn drop, void *context);
/* What a pattern drops when the event matches it. */
void event_drop_by(const struct captures_pattern *pattern, const struct captures_pattern *name,
                   struct bytes event, unsigned db, event_drop_fn drop, void *context);

struct event_patterns; /* opaque */

struct event_patterns *event_patterns_new(void);
void event_patterns_free(struct event_patterns **patterns);
void event_patterns_clear(struct event_patterns *patterns);
unsigned event_patterns_count(const struct event_patterns *patterns);
/* A member as the ledger has it. Malformed ones are passed over. */
void event_patterns_add(struct event_patterns *patterns, struct bytes member, unsigned db);
void event_patterns_match(const struct event_patterns *patterns, struct bytes event,
                          event_drop_fn drop, void *context);

#endif
