#include "config/tag_rules.h"

#include <stdatomic.h>
#include <stdio.h>

#include "base/mem.h"
#include "config/config.h"

struct tag_rule {
    unsigned ns;
    struct captures_pattern *pattern;
    struct captures_pattern *tags[TAG_RULES_MAX];
    unsigned n_tags;
};

struct tag_rules {
    struct tag_rules_head head; /* first: tag_rules_have() */
    _Atomic unsigned n_refs;
    struct tag_rule *by_ns[256]; /* NULL: none */
    struct tag_rule *rules;
    unsigned n;
};

/* The next word of a list apart by spaces. */
static struct bytes next_word(const char **at)
{
    const char *begin = *at + strspn(*at, " \t");
    const size_t n = strcspn(begin, " \t");

    *at = begin + n;
    return bytes_make(begin, n);
}

static void rule_fini(struct tag_rule *rule)
{
    captures_pattern_free(&rule->pattern);
    for (unsigned i = 0; i < rule->n_tags; i++) {
        captures_pattern_free(&rule->tags[i]);
    }
}

static bool take_tag(struct tag_rule *rule, struct bytes word, char why[CAPTURES_WHY_MAX])
{
    if (rule->n_tags == TAG_RULES_MAX) {
        snprintf(why, CAPTURES_WHY_MAX, "more than %d tags", TAG_RULES_MAX);
        return false;
    }
    rule->tags[rule->n_tags] = captures_pattern_new(word, why);
    if (rule->tags[rule->n_tags] == NULL) {
        return false;
    }
    rule->n_tags++;
    if (!captures_is_template(rule->tags[rule->n_tags - 1])) {
        snprintf(why, CAPTURES_WHY_MAX, "a tag is text and captures; *, ? and [ need a \\");
        return false;
    }
    return captures_check(rule->pattern, rule->tags[rule->n_tags - 1], why);
}

/* False: why says why, and there is nothing to free. */
static bool rule_init(struct tag_rule *rule, const char *match, const char *tags,
                      char why[CAPTURES_WHY_MAX])
{
    const char *at = tags;
    bool is_good;

    *rule = (struct tag_rule){.pattern = captures_pattern_new(bytes_of_string(match), why)};
    is_good = rule->pattern != NULL;
    for (struct bytes word = next_word(&at); is_good && word.len > 0; word = next_word(&at)) {
        is_good = take_tag(rule, word, why);
    }
    if (is_good && rule->n_tags == 0) {
        snprintf(why, CAPTURES_WHY_MAX, "expected tags, apart by spaces");
        is_good = false;
    }
    if (!is_good) {
        rule_fini(rule);
    }
    return is_good;
}

bool tag_rule_check(const char *match, const char *tags, char **glob, char why[CAPTURES_WHY_MAX])
{
    const struct captures none = {0};
    unsigned char text[4 * CAPTURES_TEXT_MAX];
    struct tag_rule rule;
    size_t length;

    if (!rule_init(&rule, match, tags, why)) {
        return false;
    }
    length = captures_glob(rule.pattern, &none, text, sizeof(text) - 1);
    text[length] = '\0';
    *glob = mem_strdup((const char *)text);
    rule_fini(&rule);
    return true;
}

struct tag_rules *tag_rules_new(const struct config_namespace *namespaces, char *const *patterns,
                                unsigned n)
{
    struct tag_rules *rules = mem_alloc(sizeof(*rules));
    char why[CAPTURES_WHY_MAX];

    atomic_init(&rules->n_refs, 1);
    rules->rules = mem_alloc((n + 1) * sizeof(*rules->rules));
    for (unsigned i = 0; i < n; i++) {
        const unsigned ns = namespaces[i].id;

        if (patterns[i] == NULL) {
            continue;
        }
        struct tag_rule *rule = &rules->rules[rules->n++];
        /* Checked before. */
        CHECK(rule_init(rule, patterns[i], namespaces[i].tags, why));
        rule->ns = ns;
        rules->by_ns[ns] = rule;
        rules->head.has[ns / 64] |= UINT64_C(1) << (ns % 64);
    }
    return rules;
}

struct tag_rules *tag_rules_ref(struct tag_rules *rules)
{
    atomic_fetch_add_explicit(&rules->n_refs, 1, memory_order_relaxed);
    return rules;
}

void tag_rules_unref(struct tag_rules **rules)
{
    struct tag_rules *gone = *rules;

    *rules = NULL;
    /* acq_rel: whoever frees has seen what the others did before they let go. */
    if (gone == NULL || atomic_fetch_sub_explicit(&gone->n_refs, 1, memory_order_acq_rel) > 1) {
        return;
    }
    for (unsigned i = 0; i < gone->n; i++) {
        rule_fini(&gone->rules[i]);
    }
    mem_free(gone->rules);
    mem_free(gone);
}

static bool is_same_text(const struct captures_pattern *a, const struct captures_pattern *b)
{
    return bytes_equal(captures_text(a), captures_text(b));
}

static bool is_same_rule(const struct tag_rule *a, const struct tag_rule *b)
{
    bool is_same = a->ns == b->ns && a->n_tags == b->n_tags && is_same_text(a->pattern, b->pattern);

    for (unsigned i = 0; is_same && i < a->n_tags; i++) {
        is_same = is_same_text(a->tags[i], b->tags[i]);
    }
    return is_same;
}

bool tag_rules_equal(const struct tag_rules *a, const struct tag_rules *b)
{
    bool is_same = a->n == b->n;

    for (unsigned i = 0; is_same && i < a->n; i++) {
        is_same = is_same_rule(&a->rules[i], &b->rules[i]);
    }
    return is_same;
}

bool tag_rules_are_any(const struct tag_rules *rules)
{
    return rules->n > 0;
}

bool tag_rules_match(const struct tag_rules *rules, unsigned ns, struct bytes key,
                     struct captures *found)
{
    const struct tag_rule *rule = rules->by_ns[ns % 256];

    return rule != NULL && captures_match(rule->pattern, key, found);
}

unsigned tag_rules_count(const struct tag_rules *rules, unsigned ns)
{
    const struct tag_rule *rule = rules->by_ns[ns % 256];

    return rule != NULL ? rule->n_tags : 0;
}

size_t tag_rules_tag(const struct tag_rules *rules, unsigned ns, const struct captures *found,
                     unsigned at, unsigned char *out)
{
    const struct tag_rule *rule = rules->by_ns[ns % 256];

    return at < rule->n_tags ? captures_expand(rule->tags[at], found, out) : 0;
}

bool tag_rules_has(const struct tag_rules *rules, unsigned ns, struct bytes key, struct bytes tag)
{
    const struct tag_rule *rule = rules->by_ns[ns % 256];
    struct captures found;

    if (!tag_rules_match(rules, ns, key, &found)) {
        return false;
    }
    for (unsigned i = 0; i < rule->n_tags; i++) {
        if (captures_makes(rule->tags[i], &found, tag)) {
            return true;
        }
    }
    return false;
}

bool tag_rules_know(const struct tag_rules *rules, struct bytes tag)
{
    struct captures found;

    for (unsigned i = 0; i < rules->n; i++) {
        for (unsigned j = 0; j < rules->rules[i].n_tags; j++) {
            if (captures_match(rules->rules[i].tags[j], tag, &found)) {
                return true;
            }
        }
    }
    return false;
}

unsigned tag_rules_globs(const struct tag_rules *rules, struct bytes tag, unsigned char *out,
                         size_t *length)
{
    struct captures found;
    unsigned n = 0;

    *length = 0;
    for (unsigned i = 0; i < rules->n && n < 2; i++) {
        const struct tag_rule *rule = &rules->rules[i];

        for (unsigned j = 0; j < rule->n_tags && n < 2; j++) {
            if (captures_unify(rule->tags[j], tag, &found) && ++n == 1) {
                *length = captures_glob(rule->pattern, &found, out, 4 * CAPTURES_TEXT_MAX);
            }
        }
    }
    return n;
}
