/*
 * Whether rules form a circle is tried out: a name that the source of one matches is made, with a
 * byte that nobody uses for whatever captures take, and the rules are followed from it.
 */
#include "config/dependency_rules.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"

#define FAULT_SHOWN 100
/* Names that are followed from one; chains of rules are short. */
#define FOLLOWED_MAX 16
#define ANY_BYTE '\1'

/* ---- one rule ---- */

static bool refuse(struct config_rule_fault *fault, const char *option, const char *value,
                   const char *why)
{
    fault->option = option;
    (void)snprintf(fault->text, sizeof(fault->text), "%s = %.*s: %s", option, FAULT_SHOWN, value,
                   why);
    return false;
}

static bool take_source(struct config_dependency *rule, struct config_rule_fault *fault)
{
    unsigned char prefix[CAPTURES_TEXT_MAX];
    char why[CAPTURES_WHY_MAX];

    if (rule->source == NULL || rule->source[0] == '\0') {
        fault->option = "source";
        (void)snprintf(fault->text, sizeof(fault->text),
                       "dependency %s has no source, expected a pattern as user:{1}", rule->name);
        return false;
    }
    rule->source_pattern = captures_pattern_new(bytes_of_string(rule->source), why);
    if (rule->source_pattern == NULL) {
        return refuse(fault, "source", rule->source, why);
    }
    if (captures_prefix(rule->source_pattern, prefix) == 0) {
        return refuse(fault, "source", rule->source,
                      "expected a pattern that begins with text, as user:{1}: the backend is asked "
                      "to tell of writes to names that begin so");
    }
    return true;
}

static bool take_derived(struct config_dependency *rule, struct config_rule_fault *fault)
{
    if (rule->derived.n == 0) {
        fault->option = "derived";
        (void)snprintf(fault->text, sizeof(fault->text),
                       "dependency %s has no derived, expected names or patterns as profile:{1} or "
                       "profile:{1}:*",
                       rule->name);
        return false;
    }
    for (unsigned i = 0; i < rule->derived.n; i++) {
        const char *const text = rule->derived.items[i];
        char why[CAPTURES_WHY_MAX];

        rule->derived_patterns[i] = captures_pattern_new(bytes_of_string(text), why);
        if (rule->derived_patterns[i] == NULL ||
            !captures_check(rule->source_pattern, rule->derived_patterns[i], why)) {
            return refuse(fault, "derived", text, why);
        }
    }
    return true;
}

bool config_dependency_take(struct config_dependency *rule, struct config_rule_fault *fault)
{
    if (!take_source(rule, fault) || !take_derived(rule, fault)) {
        return false;
    }
    if (rule->debounce_ms > 0 && rule->scope == SCOPE_ALL) {
        return refuse(
            fault, "debounce", rule->name,
            "not with scope = ALL: what waits for the end of its window would stay at the "
            "backend if the process ended");
    }
    return true;
}

void config_dependency_fini(struct config_dependency *rule)
{
    captures_pattern_free(&rule->source_pattern);
    for (unsigned i = 0; i < rule->derived.n; i++) {
        captures_pattern_free(&rule->derived_patterns[i]);
        mem_free(rule->derived.items[i]);
    }
    rule->derived.n = 0;
    mem_free(rule->source);
    mem_free(rule->name);
    rule->source = rule->name = NULL;
}

/* ---- several rules ---- */

bool config_patterns_may_meet(const struct captures_pattern *a, const struct captures_pattern *b)
{
    unsigned char room_a[CAPTURES_TEXT_MAX], room_b[CAPTURES_TEXT_MAX];
    const struct bytes left = bytes_make(room_a, captures_prefix(a, room_a));
    const struct bytes right = bytes_make(room_b, captures_prefix(b, room_b));

    return bytes_start_with(left, right) || bytes_start_with(right, left);
}

/* A name that the pattern matches, or none that is found so easily (0). */
static size_t sample_of(const struct captures_pattern *pattern, unsigned char *out)
{
    const struct captures nothing = {0};
    struct captures found;
    unsigned char glob[3 * CAPTURES_TEXT_MAX];
    const size_t n = captures_glob(pattern, &nothing, glob, sizeof(glob));
    size_t length = 0;

    for (size_t i = 0; i < n && length < CAPTURES_TEXT_MAX; i++) {
        if (glob[i] == '\\' && i + 1 < n) {
            out[length++] = glob[++i];
        } else if (glob[i] == '[' && i + 2 < n) {
            out[length++] = glob[i + 1] == '\\' ? glob[i + 2] : glob[i + 1];
            while (i < n && glob[i] != ']') {
                i += glob[i] == '\\' ? 2 : 1;
            }
        } else {
            out[length++] = glob[i] == '*' || glob[i] == '?' ? ANY_BYTE : glob[i];
        }
    }
    return captures_match(pattern, bytes_make(out, length), &found) ? length : 0;
}

struct followed {
    unsigned n;
    struct {
        size_t length;
        bool has_all; /* a rule of scope ALL led here */
        unsigned char text[CAPTURES_TEXT_MAX];
    } names[FOLLOWED_MAX];
};

static bool has_name(const struct followed *followed, struct bytes name, bool has_all)
{
    for (unsigned i = 0; i < followed->n; i++) {
        if (followed->names[i].has_all == has_all &&
            bytes_equal(bytes_make(followed->names[i].text, followed->names[i].length), name)) {
            return true;
        }
    }
    return false;
}

static void add_name(struct followed *followed, struct bytes name, bool has_all)
{
    if (followed->n < FOLLOWED_MAX && !has_name(followed, name, has_all)) {
        followed->names[followed->n].length = name.len;
        followed->names[followed->n].has_all = has_all;
        memcpy(followed->names[followed->n++].text, name.ptr, name.len);
    }
}

static void apply(const struct config_dependency *rule, struct bytes name, bool has_all,
                  struct followed *followed)
{
    unsigned char room[CAPTURES_TEXT_MAX];
    struct captures found;

    if (!captures_match(rule->source_pattern, name, &found)) {
        return;
    }
    for (unsigned i = 0; i < rule->derived.n; i++) {
        const size_t n = captures_expand(rule->derived_patterns[i], &found, room);

        if (n > 0) {
            add_name(followed, bytes_make(room, n), has_all || rule->scope == SCOPE_ALL);
        }
    }
}

/* What is derived from name, name itself only when it is derived from itself. */
static void follow(const struct config_dependency *rules, unsigned n, struct bytes name,
                   struct followed *followed)
{
    followed->n = 0;
    for (unsigned i = 0; i < n; i++) {
        apply(&rules[i], name, false, followed);
    }
    for (unsigned at = 0; at < followed->n; at++) {
        const struct bytes next = bytes_make(followed->names[at].text, followed->names[at].length);

        for (unsigned i = 0; i < n; i++) {
            apply(&rules[i], next, followed->names[at].has_all, followed);
        }
    }
}

static bool is_in_circle(const struct config_dependency *rules, unsigned n, struct bytes name,
                         struct followed *room)
{
    follow(rules, n, name, room);
    return has_name(room, name, true);
}

/* Of what is derived from a name of this rule's source, something is derived from itself. */
static bool has_circle(const struct config_dependency *rules, unsigned n, unsigned at)
{
    struct followed *const names = mem_alloc(2 * sizeof(*names));
    unsigned char sample[CAPTURES_TEXT_MAX];
    const size_t length = sample_of(rules[at].source_pattern, sample);
    bool has = length > 0 && is_in_circle(rules, n, bytes_make(sample, length), &names[0]);

    if (length > 0) {
        follow(rules, n, bytes_make(sample, length), &names[0]);
        for (unsigned i = 0; i < names[0].n && !has; i++) {
            has = is_in_circle(
                rules, n, bytes_make(names[0].names[i].text, names[0].names[i].length), &names[1]);
        }
    }
    mem_free(names);
    return has;
}

/* A pattern (no single name) whose keys a rule of scope ALL may take for its sources. */
static const struct captures_pattern *find_feeding(const struct config_dependency *rules,
                                                   unsigned n, unsigned at)
{
    for (unsigned i = 0; i < n; i++) {
        for (unsigned j = 0; j < rules[i].derived.n; j++) {
            const struct captures_pattern *const derived = rules[i].derived_patterns[j];

            if (!captures_is_template(derived) &&
                config_patterns_may_meet(derived, rules[at].source_pattern)) {
                return derived;
            }
        }
    }
    return NULL;
}

bool config_dependencies_check(const struct config_dependency *rules, unsigned n,
                               struct config_rule_fault *fault)
{
    for (unsigned i = 0; i < n; i++) {
        const struct captures_pattern *feeding;

        if (rules[i].scope != SCOPE_ALL) {
            continue;
        }
        fault->option = "scope";
        fault->rule = i;
        feeding = find_feeding(rules, n, i);
        if (feeding != NULL) {
            (void)snprintf(fault->text, sizeof(fault->text),
                           "scope = ALL: what %.*s stands for would be taken for a source of %s "
                           "again, and more removed; expected scope = L1, or names without * "
                           "there",
                           FAULT_SHOWN, (const char *)captures_text(feeding).ptr, rules[i].name);
            return false;
        }
        if (has_circle(rules, n, i)) {
            (void)snprintf(fault->text, sizeof(fault->text),
                           "scope = ALL: %s is part of a circle, so that what was just written "
                           "would be removed; expected scope = L1",
                           rules[i].name);
            return false;
        }
    }
    return true;
}

bool config_dependencies_equal(const struct config *a, const struct config *b)
{
    bool is_same = a->n_dependencies == b->n_dependencies;

    for (unsigned i = 0; is_same && i < a->n_dependencies; i++) {
        const struct config_dependency *one = &a->dependencies[i], *other = &b->dependencies[i];

        is_same = one->scope == other->scope && one->debounce_ms == other->debounce_ms &&
                  strcmp(one->source, other->source) == 0 && one->derived.n == other->derived.n;
        for (unsigned j = 0; is_same && j < one->derived.n; j++) {
            is_same = strcmp(one->derived.items[j], other->derived.items[j]) == 0;
        }
    }
    return is_same;
}
