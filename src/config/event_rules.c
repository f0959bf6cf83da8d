/*
 * Sections are kept as they were read until the file has ended, as the order of their lines means
 * nothing; then each becomes a rule or a source.
 *
 * A source's template may use the channel's captures and {payload}. That it uses no others is
 * checked with a pattern that has all of them.
 */
#include "config/event_rules.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/log.h"
#include "base/mem.h"
#include "config/namespaces.h"
#include "config/options.h"

#define PAYLOAD "{payload}"
#define DEBOUNCE_MAX_MS 60000

static const struct event_option options[] = {
#define OPTION(section, name, type, initial, min, max, reload, help)                               \
    {#section, #name, initial, help},
#include "tables/events.def"
#undef OPTION
};

#define N_OPTIONS (sizeof(options) / sizeof(options[0]))

/* One as it stands in the file. */
struct event_section {
    struct event_section *next;
    const char *section; /* as in the table */
    char *name;
    unsigned line;
    char *values[N_OPTIONS]; /* NULL: not given */
    unsigned lines[N_OPTIONS];
};

const struct event_option *event_options(unsigned *n)
{
    *n = N_OPTIONS;
    return options;
}

struct event_rules *event_rules_new(void)
{
    return mem_alloc(sizeof(struct event_rules));
}

static void free_sections(struct event_rules *rules)
{
    while (rules->sections != NULL) {
        struct event_section *const section = rules->sections;

        rules->sections = section->next;
        for (size_t i = 0; i < N_OPTIONS; i++) {
            mem_free(section->values[i]);
        }
        mem_free(section->name);
        mem_free(section);
    }
    rules->current = NULL;
}

static void free_rule(struct event_rule *rule)
{
    for (unsigned i = 0; i < rule->n_targets; i++) {
        captures_pattern_free(&rule->targets[i].name);
    }
    captures_pattern_free(&rule->match);
    mem_free(rule->name);
}

static void free_source(struct event_source_rule *source)
{
    captures_pattern_free(&source->channel);
    captures_pattern_free(&source->event);
    mem_free(source->address);
    mem_free(source->field);
    mem_free(source->name);
}

void event_rules_free(struct event_rules **rules)
{
    struct event_rules *const gone = *rules;

    *rules = NULL;
    if (gone == NULL) {
        return;
    }
    free_sections(gone);
    for (unsigned i = 0; i < gone->n_rules; i++) {
        free_rule(&gone->rules[i]);
    }
    for (unsigned i = 0; i < gone->n_sources; i++) {
        free_source(&gone->sources[i]);
    }
    mem_free(gone->rules);
    mem_free(gone->sources);
    mem_free(gone);
}

/* ---- lines ---- */

/* The word of the table for a title's, or NULL; *name is what follows it. */
static const char *section_of(char *title, char **name)
{
    static const struct {
        const char *word, *section;
    } words[] = {{"event-source", "event_source"}, {"event", "event"}};

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        const size_t len = strlen(words[i].word);

        if (strncmp(title, words[i].word, len) == 0 &&
            (title[len] == '\0' || strchr(" \t\"'", title[len]) != NULL)) {
            *name = title + len + strspn(title + len, " \t");
            return words[i].section;
        }
    }
    return NULL;
}

static char *without_quotes(char *name)
{
    const size_t len = strlen(name);

    if (len >= 2 && (name[0] == '"' || name[0] == '\'') && name[len - 1] == name[0]) {
        name[len - 1] = '\0';
        return name + 1;
    }
    return name;
}

static const char *title_of(const char *section)
{
    return strcmp(section, "event") == 0 ? "event" : "event-source";
}

static bool may_add(struct event_rules *rules, struct config_draft *draft, unsigned line,
                    const char *section, const char *name)
{
    const unsigned max = strcmp(section, "event") == 0 ? EVENT_RULES_MAX : EVENT_SOURCES_MAX;
    unsigned n = 0;

    if (!namespace_name_is_valid(name)) {
        draft_error(draft, LAYER_FILE, line,
                    "%s %s: expected a name of 1 to %d letters, digits and . _ - :",
                    title_of(section), log_quote(bytes_of_string(name)), NAMESPACE_NAME_MAX);
        return false;
    }
    for (const struct event_section *at = rules->sections; at != NULL; at = at->next) {
        if (at->section == section && strcmp(at->name, name) == 0) {
            draft_error(draft, LAYER_FILE, line, "%s %s is given twice, first on line %u",
                        title_of(section), name, at->line);
            return false;
        }
        n += at->section == section;
    }
    if (n == max) {
        draft_error(draft, LAYER_FILE, line, "expected at most %u sections [%s \"name\"]", max,
                    title_of(section));
        return false;
    }
    return true;
}

bool event_rules_enter(struct event_rules *rules, struct config_draft *draft, unsigned line,
                       char *title)
{
    char *name = NULL;
    const char *const section = section_of(title, &name);
    struct event_section **at = &rules->sections;

    rules->current = NULL;
    if (section == NULL) {
        return false;
    }
    name = without_quotes(name);
    if (!may_add(rules, draft, line, section, name)) {
        return true;
    }
    while (*at != NULL) {
        at = &(*at)->next;
    }
    *at = mem_alloc(sizeof(**at));
    (*at)->section = section;
    (*at)->name = mem_strdup(name);
    (*at)->line = line;
    rules->current = *at;
    return true;
}

static void spell(const char *name, char out[32])
{
    size_t i = 0;

    for (; name[i] != '\0' && i < 31; i++) {
        out[i] = name[i] == '_' ? '-' : name[i];
    }
    out[i] = '\0';
}

void event_rules_set(struct event_rules *rules, struct config_draft *draft, unsigned line,
                     const char *option, const char *value)
{
    struct event_section *const section = rules->current;
    char spelling[32];

    for (size_t i = 0; section != NULL && i < N_OPTIONS; i++) {
        spell(options[i].name, spelling);
        if (strcmp(options[i].section, section->section) != 0 || strcmp(spelling, option) != 0) {
            continue;
        }
        if (section->values[i] != NULL) {
            draft_error(draft, LAYER_FILE, line, "%s is given twice, first on line %u", option,
                        section->lines[i]);
            return;
        }
        section->values[i] = mem_strdup(value);
        section->lines[i] = line;
        return;
    }
    if (section != NULL) {
        draft_error(draft, LAYER_FILE, line, "unknown option %s in [%s \"%s\"]",
                    log_quote(bytes_of_string(option)), title_of(section->section), section->name);
    }
}

/* ---- what they mean ---- */

struct making {
    struct config_draft *draft;
    const struct event_section *section;
};

static unsigned index_of(const char *section, const char *name)
{
    unsigned i = 0;

    while (strcmp(options[i].section, section) != 0 || strcmp(options[i].name, name) != 0) {
        i++;
    }
    return i;
}

/* NULL: neither given nor has it a default. */
static const char *value_of(const struct making *making, const char *name)
{
    const unsigned i = index_of(making->section->section, name);

    if (making->section->values[i] != NULL) {
        return making->section->values[i];
    }
    return options[i].initial[0] != '\0' ? options[i].initial : NULL;
}

static void complain(const struct making *making, const char *name, const char *value,
                     const char *why)
{
    const unsigned i = index_of(making->section->section, name);
    char spelling[32];

    spell(name, spelling);
    draft_error(making->draft, LAYER_FILE,
                making->section->lines[i] != 0 ? making->section->lines[i] : making->section->line,
                "%s = %s: %s", spelling, log_quote(bytes_of_string(value)), why);
}

static struct captures_pattern *pattern_of(const struct making *making, const char *name,
                                           const char *text, size_t max)
{
    char why[CAPTURES_WHY_MAX];
    struct captures_pattern *pattern = NULL;

    if (strlen(text) > max) {
        complain(making, name, text, "too long");
        return NULL;
    }
    pattern = captures_pattern_new(bytes_of_string(text), why);
    if (pattern == NULL) {
        complain(making, name, text, why);
    }
    return pattern;
}

/* One word of an option; "" and NULL when there is none left. */
static char *next_word(char **rest)
{
    char *const word = *rest + strspn(*rest, " \t");

    *rest = word + strcspn(word, " \t");
    if (**rest != '\0') {
        *(*rest)++ = '\0';
    }
    return *word != '\0' ? word : NULL;
}

static void add_target(const struct making *making, struct event_rule *rule,
                       enum event_target_kind kind, const char *name, const char *word)
{
    char why[CAPTURES_WHY_MAX];
    struct captures_pattern *pattern;

    if (rule->n_targets == EVENT_TARGETS_MAX) {
        complain(making, name, word, "an event drops at most 64 names");
        return;
    }
    pattern = pattern_of(making, name, word, CAPTURES_TEXT_MAX);
    if (pattern == NULL) {
        return;
    }
    if (kind != EVENT_TARGET_NAME && !captures_is_template(pattern)) {
        complain(making, name, word, "expected text and captures, no wildcards");
    } else if (rule->match != NULL && !captures_check(rule->match, pattern, why)) {
        complain(making, name, word, why);
    } else {
        rule->targets[rule->n_targets++] = (struct event_target){kind, pattern};
        return;
    }
    captures_pattern_free(&pattern);
}

static void take_targets(const struct making *making, struct event_rule *rule,
                         enum event_target_kind kind, const char *name)
{
    const char *const value = value_of(making, name);
    char *const copy = mem_strdup(value != NULL ? value : "");
    char *rest = copy, *word;

    while ((word = next_word(&rest)) != NULL) {
        add_target(making, rule, kind, name, word);
    }
    mem_free(copy);
}

static void make_rule(const struct making *making, struct event_rule *rule)
{
    const char *const match = value_of(making, "match");
    const char *const scope = value_of(making, "scope");
    const char *const debounce = value_of(making, "debounce");

    rule->name = mem_strdup(making->section->name);
    if (match == NULL) {
        draft_error(making->draft, LAYER_FILE, making->section->line, "event %s has no match",
                    rule->name);
    } else {
        rule->match = pattern_of(making, "match", match, EVENT_NAME_MAX);
    }
    take_targets(making, rule, EVENT_TARGET_NAME, "invalidate");
    take_targets(making, rule, EVENT_TARGET_NAMESPACE, "namespaces");
    take_targets(making, rule, EVENT_TARGET_TAG, "tags");
    if (rule->n_targets == 0 && draft_n_errors(making->draft) == 0) {
        draft_error(making->draft, LAYER_FILE, making->section->line,
                    "event %s drops nothing: expected invalidate, namespaces or tags", rule->name);
    }
    rule->is_all = strcasecmp(scope, "all") == 0;
    if (!rule->is_all && strcasecmp(scope, "l1") != 0) {
        complain(making, "scope", scope, "expected L1 or ALL");
    }
    if (!config_parse_time(debounce, &rule->debounce_ms) || rule->debounce_ms < 0 ||
        rule->debounce_ms > DEBOUNCE_MAX_MS) {
        complain(making, "debounce", debounce, "expected a time from 0 to 1m");
    } else if (rule->debounce_ms > 0 && rule->is_all) {
        complain(making, "debounce", debounce, "not with scope = ALL");
    }
}

/* What is literal stands for itself; else it is a glob for PSUBSCRIBE. */
static void take_channel(const struct making *making, struct event_source_rule *source,
                         const char *name, const char *text)
{
    static const struct captures none = {0};
    unsigned char out[3 * CAPTURES_TEXT_MAX];
    struct captures_pattern *pattern = pattern_of(making, name, text, EVENT_NAME_MAX);
    size_t len;

    if (pattern == NULL) {
        return;
    }
    if (captures_is_template(pattern) && captures_count(pattern) == 0) {
        len = captures_expand(pattern, &none, out);
    } else if (source->kind == EVENT_SHARD_CHANNEL) {
        complain(making, name, text, "the name of one channel, no wildcards and no captures");
        captures_pattern_free(&pattern);
        return;
    } else {
        source->kind = EVENT_PATTERN;
        len = captures_glob(pattern, &none, out, sizeof(out) - 1);
    }
    out[len] = '\0';
    source->address = mem_strdup((const char *)out);
    source->channel = pattern;
}

/* Of the channel's captures and {payload} only. */
static void take_event(const struct making *making, struct event_source_rule *source)
{
    const char *const text = value_of(making, "event");
    const struct bytes channel = source->channel != NULL ? captures_text(source->channel)
                                                         : (struct bytes){0};
    char all[EVENT_NAME_MAX + 32], why[CAPTURES_WHY_MAX];
    struct captures_pattern *pattern;

    if (strcmp(text, PAYLOAD) == 0) {
        return;
    }
    source->event = pattern_of(making, "event", text, EVENT_NAME_MAX);
    if (source->event == NULL) {
        return;
    }
    (void)snprintf(all, sizeof(all), "%.*s%s" PAYLOAD, (int)channel.len, (const char *)channel.ptr,
                   channel.len > 0 ? " " : "");
    pattern = captures_pattern_new(bytes_of_string(all), why);
    if (pattern == NULL || !captures_check(pattern, source->event, why)) {
        complain(making, "event", text, why);
    } else if (!captures_is_template(source->event)) {
        complain(making, "event", text, "expected text and captures, no wildcards");
    }
    captures_pattern_free(&pattern);
}

static void make_source(const struct making *making, struct event_source_rule *source)
{
    const char *const channel = value_of(making, "channel");
    const char *const shard_channel = value_of(making, "shard_channel");
    const char *const stream = value_of(making, "stream");

    source->name = mem_strdup(making->section->name);
    source->field = mem_strdup(value_of(making, "field"));
    if ((channel != NULL) + (shard_channel != NULL) + (stream != NULL) != 1) {
        draft_error(making->draft, LAYER_FILE, making->section->line,
                    "event-source %s: expected one of channel, shard-channel and stream",
                    source->name);
        return;
    }
    if (stream != NULL) {
        source->kind = EVENT_STREAM;
        source->address = mem_strdup(stream);
    } else {
        source->kind = channel != NULL ? EVENT_CHANNEL : EVENT_SHARD_CHANNEL;
        take_channel(making, source, channel != NULL ? "channel" : "shard_channel",
                     channel != NULL ? channel : shard_channel);
    }
    take_event(making, source);
}

/* FNV-1a; what is not given differs from what is empty. */
static uint64_t add_to_print(uint64_t print, const char *text)
{
    for (const char *at = text; at != NULL && *at != '\0'; at++) {
        print = (print ^ (unsigned char)*at) * UINT64_C(0x100000001b3);
    }
    return (print ^ (text != NULL ? 0x100 : 0x101)) * UINT64_C(0x100000001b3);
}

void event_rules_finish(struct event_rules *rules, struct config_draft *draft)
{
    rules->rules = mem_alloc(EVENT_RULES_MAX * sizeof(*rules->rules));
    rules->sources = mem_alloc(EVENT_SOURCES_MAX * sizeof(*rules->sources));
    rules->print = UINT64_C(0xcbf29ce484222325);
    for (const struct event_section *at = rules->sections; at != NULL; at = at->next) {
        const struct making making = {draft, at};

        if (strcmp(at->section, "event") == 0) {
            make_rule(&making, &rules->rules[rules->n_rules++]);
            for (size_t i = 0; i < N_OPTIONS; i++) {
                rules->print = add_to_print(rules->print, at->values[i]);
            }
        } else {
            make_source(&making, &rules->sources[rules->n_sources++]);
        }
    }
    free_sections(rules);
}

/* ---- use ---- */

static bool is_same_text(const struct captures_pattern *a, const struct captures_pattern *b)
{
    return a == NULL || b == NULL ? a == b : bytes_equal(captures_text(a), captures_text(b));
}

bool event_source_equal(const struct event_source_rule *a, const struct event_source_rule *b)
{
    return a->kind == b->kind && strcmp(a->name, b->name) == 0 &&
           strcmp(a->address, b->address) == 0 && strcmp(a->field, b->field) == 0 &&
           is_same_text(a->channel, b->channel) && is_same_text(a->event, b->event);
}

size_t event_source_name(const struct event_source_rule *source, struct bytes channel,
                         struct bytes payload, unsigned char *out)
{
    unsigned char room[CAPTURES_TEXT_MAX];
    struct captures values = {0};
    size_t len;

    if (source->event == NULL) {
        if (payload.len == 0 || payload.len > EVENT_NAME_MAX) {
            return 0;
        }
        memcpy(out, payload.ptr, payload.len);
        return payload.len;
    }
    if (source->kind == EVENT_PATTERN && !captures_match(source->channel, channel, &values)) {
        return 0;
    }
    if (values.n < CAPTURES_MAX && payload.len > 0) {
        values.of[values.n++] = (struct capture){BYTES("payload"), payload};
    }
    len = captures_expand(source->event, &values, room);
    if (len > EVENT_NAME_MAX) {
        return 0;
    }
    memcpy(out, room, len);
    return len;
}
