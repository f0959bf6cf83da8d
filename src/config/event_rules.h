/*
 * event_rules.h - what the configuration says of events: what they drop, and where they come from
 *
 * Purpose:    the sections [event "name"] and [event-source "name"] (tables/events.def), read,
 *             checked and prepared.
 * Ownership:  part of a configuration (config->events), which frees it. Never changes after that.
 * Threading:  any thread may read.
 * Errors:     while it is made, each is reported to the draft with its line.
 */
#ifndef NC_CONFIG_EVENT_RULES_H
#define NC_CONFIG_EVENT_RULES_H

#include "config/captures.h"
#include "config/draft.h"

#define EVENT_RULES_MAX 256
#define EVENT_SOURCES_MAX 32
#define EVENT_TARGETS_MAX 64
/* Longest name of an event, and pattern of such names. */
#define EVENT_NAME_MAX ((size_t)512)

enum event_target_kind {
    EVENT_TARGET_NAME, /* a key, or a glob of keys */
    EVENT_TARGET_NAMESPACE,
    EVENT_TARGET_TAG,
};

struct event_target {
    enum event_target_kind kind;
    struct captures_pattern *name;
};

struct event_rule {
    char *name;
    struct captures_pattern *match;
    struct event_target targets[EVENT_TARGETS_MAX];
    unsigned n_targets;
    bool is_all;
    int64_t debounce_ms;
};

enum event_source_kind { EVENT_CHANNEL, EVENT_PATTERN, EVENT_SHARD_CHANNEL, EVENT_STREAM };

struct event_source_rule {
    char *name;
    enum event_source_kind kind;
    char *address;                    /* of the channel, stream, or a glob for PSUBSCRIBE */
    struct captures_pattern *channel; /* EVENT_PATTERN: what the captures are taken from */
    char *field;                      /* EVENT_STREAM */
    struct captures_pattern *event;   /* NULL: the payload itself */
};

struct event_rules {
    struct event_rule *rules;
    unsigned n_rules;
    uint64_t print; /* of what the rules say and of their order: equal ones have the same */
    struct event_source_rule *sources;
    unsigned n_sources;
    struct event_section *sections; /* as they were read; NULL afterwards */
    struct event_section *current;
};

struct event_rules *event_rules_new(void);
/* Accepts a pointer to NULL. */
void event_rules_free(struct event_rules **rules);

/*
 * The line of a section's title: `event "deploy"`. False: it is another section. Names that are
 * wrong, or given twice, are reported.
 */
bool event_rules_enter(struct event_rules *rules, struct config_draft *draft, unsigned line,
                       char *title);
/* A line of the section entered last. */
void event_rules_set(struct event_rules *rules, struct config_draft *draft, unsigned line,
                     const char *option, const char *value);
/* Behind the last line. */
void event_rules_finish(struct event_rules *rules, struct config_draft *draft);

/* Word for word the same. */
bool event_source_equal(const struct event_source_rule *a, const struct event_source_rule *b);

/*
 * The name of the event that a message is; out has room for EVENT_NAME_MAX. 0: none, or longer.
 * channel: where it came from.
 */
size_t event_source_name(const struct event_source_rule *source, struct bytes channel,
                         struct bytes payload, unsigned char *out);

/* For --describe config: prints the options of these sections. */
struct event_option {
    const char *section, *name, *initial, *help;
};
const struct event_option *event_options(unsigned *n);

#endif
