/*
 * tag_rules.h - tags that a key has by its name
 *
 * Purpose:    a namespace with `match = session:{1}:*` and `tags = user:{1}` gives session:42:cart
 *             the tag user:42, without anybody saying so. Which tags a key has, and which keys may
 *             have a tag.
 * Ownership:  reference counted; made with a configuration, and kept by whoever judges by it.
 * Threading:  immutable: any thread.
 * Errors:     tag_rule_check() says what is wrong with an option, for people.
 */
#ifndef NC_CONFIG_TAG_RULES_H
#define NC_CONFIG_TAG_RULES_H

#include "config/captures.h"

/* Tags of one namespace. */
#define TAG_RULES_MAX 16

struct config_namespace;
struct tag_rules; /* opaque */

/*
 * What the options of a namespace mean. False: why says what is wrong with `tags`. True: *glob is
 * the pattern of the namespace's keys without captures, the caller's to free.
 */
bool tag_rule_check(const char *match, const char *tags, char **glob, char why[CAPTURES_WHY_MAX]);

/* patterns[i] is what namespaces[i] was given as `match`; NULL: it has no tags. */
struct tag_rules *tag_rules_new(const struct config_namespace *namespaces, char *const *patterns,
                                unsigned n);
struct tag_rules *tag_rules_ref(struct tag_rules *rules);
/* Accepts a pointer to NULL. */
void tag_rules_unref(struct tag_rules **rules);

/* Every key has the same tags by both. */
bool tag_rules_equal(const struct tag_rules *a, const struct tag_rules *b);

/* Keys of some namespace have tags. */
bool tag_rules_are_any(const struct tag_rules *rules);

/* The beginning of every struct tag_rules. */
struct tag_rules_head {
    uint64_t has[4]; /* a bit per id of a namespace */
};

/* Keys of this namespace have tags. */
static inline bool tag_rules_have(const struct tag_rules *rules, unsigned ns)
{
    const struct tag_rules_head *head = (const struct tag_rules_head *)(const void *)rules;

    return (head->has[ns / 64 % 4] >> (ns % 64) & 1) != 0;
}

/* Whether a key of namespace ns has tags; *found is what they are made of. */
bool tag_rules_match(const struct tag_rules *rules, unsigned ns, struct bytes key,
                     struct captures *found);
unsigned tag_rules_count(const struct tag_rules *rules, unsigned ns);
/*
 * The tag at a place: its length, 0 where there is none, or it is longer than CAPTURES_TEXT_MAX,
 * for which out has room.
 */
size_t tag_rules_tag(const struct tag_rules *rules, unsigned ns, const struct captures *found,
                     unsigned at, unsigned char *out);

/* The key, of this namespace, has the tag. */
bool tag_rules_has(const struct tag_rules *rules, unsigned ns, struct bytes key, struct bytes tag);

/* Some key may have the tag. */
bool tag_rules_know(const struct tag_rules *rules, struct bytes tag);

/*
 * Globs of the keys that may have the tag: how many there are, at most 2 are told apart. out has
 * the first one; room for 4 * CAPTURES_TEXT_MAX.
 */
unsigned tag_rules_globs(const struct tag_rules *rules, struct bytes tag, unsigned char *out,
                         size_t *length);

#endif
