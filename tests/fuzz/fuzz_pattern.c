/*
 * Patterns with captures, templates, globs: what a pattern takes out of a name makes that name
 * again; the glob of what was taken matches it; a template's own name can be taken apart; the tags
 * of a rule lead back to the key.
 *
 * The input is three texts with zero bytes between them: pattern, template, name.
 */
#include "fuzz.h"

#include "config/captures.h"
#include "config/config.h"
#include "config/tag_rules.h"

/* Long ones cost time and show nothing new: the work is bounded by the product of both lengths. */
#define TEXT_MAX ((size_t)200)

static void check_captures(const struct captures_pattern *pattern, const struct captures *found,
                           struct bytes name)
{
    MUST(found->n == captures_count(pattern));
    for (unsigned i = 0; i < found->n; i++) {
        MUST(found->of[i].value.ptr != NULL && found->of[i].value.len > 0);
        MUST(fuzz_is_within(found->of[i].value, name));
    }
}

static void check_match(const struct captures_pattern *pattern, struct bytes name,
                        struct captures *found)
{
    unsigned char room[4 * CAPTURES_TEXT_MAX];
    size_t len;

    check_captures(pattern, found, name);
    len = captures_prefix(pattern, room);
    MUST(bytes_start_with(name, bytes_make(room, len)));
    len = captures_glob(pattern, found, room, sizeof(room));
    MUST(len > 0 || name.len == 0);
    MUST(bytes_match_glob(bytes_make(room, len), name));
    if (captures_is_template(pattern)) {
        MUST(captures_makes(pattern, found, name));
        len = captures_expand(pattern, found, room);
        MUST(bytes_equal(bytes_make(room, len), name));
    }
}

static void check_unify(const struct captures_pattern *pattern, struct bytes name)
{
    unsigned char room[4 * CAPTURES_TEXT_MAX];
    struct captures found = {0};

    if (captures_is_template(pattern) && captures_unify(pattern, name, &found)) {
        const size_t len = captures_glob(pattern, &found, room, sizeof(room));

        MUST(bytes_match_glob(bytes_make(room, len), name));
    }
}

static void check_template(const struct captures_pattern *pattern,
                           const struct captures_pattern *made, const struct captures *found)
{
    unsigned char room[CAPTURES_TEXT_MAX];
    char why[CAPTURES_WHY_MAX];
    struct captures again = {0};
    const size_t len = captures_expand(made, found, room);

    if (len == 0 || !captures_check(pattern, made, why)) {
        return;
    }
    MUST(len <= CAPTURES_TEXT_MAX);
    MUST(captures_makes(made, found, bytes_make(room, len)));
    MUST(captures_unify(made, bytes_make(room, len), &again));
    /* What is known of it must be what it was made of. */
    for (unsigned i = 0; i < again.n; i++) {
        for (unsigned j = 0; again.of[i].value.ptr != NULL && j < found->n; j++) {
            MUST(!bytes_equal(again.of[i].name, found->of[j].name) ||
                 bytes_equal(again.of[i].value, found->of[j].value));
        }
    }
}

static void check_tags(const char *match, const char *tags, struct bytes name)
{
    char why[CAPTURES_WHY_MAX];
    struct config_namespace spaces[2] = {{.id = 0}, {.id = 1, .tags = (char *)(uintptr_t)tags}};
    char *patterns[2] = {NULL, (char *)(uintptr_t)match};
    unsigned char room[4 * CAPTURES_TEXT_MAX];
    struct tag_rules *rules;
    struct captures found;
    char *glob = NULL;

    if (!tag_rule_check(match, tags, &glob, why)) {
        return;
    }
    spaces[1].match = glob;
    rules = tag_rules_new(spaces, patterns, 2);
    if (tag_rules_match(rules, 1, name, &found)) {
        MUST(bytes_match_glob(bytes_of_string(glob), name));
        for (unsigned i = 0; i < tag_rules_count(rules, 1); i++) {
            const size_t len = tag_rules_tag(rules, 1, &found, i, room);
            const struct bytes tag = bytes_make(room, len);

            MUST(len <= CAPTURES_TEXT_MAX);
            MUST(len == 0 || (tag_rules_has(rules, 1, name, tag) && tag_rules_know(rules, tag)));
        }
    }
    tag_rules_unref(&rules);
    free(glob);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes rest = bytes_make(data, size);
    char *const text = fuzz_string(&rest), *const made_text = fuzz_string(&rest);
    char why[CAPTURES_WHY_MAX] = "";

    if (strlen(text) <= TEXT_MAX && strlen(made_text) <= TEXT_MAX && rest.len <= TEXT_MAX) {
        unsigned char *const copy = fuzz_copy(rest);
        const struct bytes name = bytes_make(copy, rest.len);
        struct captures_pattern *pattern = captures_pattern_new(bytes_of_string(text), why);
        struct captures_pattern *made = captures_pattern_new(bytes_of_string(made_text), why);
        struct captures found = {0};

        MUST((pattern != NULL && made != NULL) || why[0] != '\0');
        if (pattern != NULL) {
            MUST(bytes_equal(captures_text(pattern), bytes_of_string(text)));
            MUST(captures_count(pattern) <= CAPTURES_MAX);
            check_unify(pattern, name);
            if (captures_match(pattern, name, &found)) {
                check_match(pattern, name, &found);
                if (made != NULL) {
                    check_template(pattern, made, &found);
                }
            }
        }
        check_tags(text, made_text, name);
        captures_pattern_free(&pattern);
        captures_pattern_free(&made);
        free(copy);
    }
    free(text);
    free(made_text);
    return 0;
}
