/*
 * dependency_rules.h - the [dependency] sections: patterns made ready, and what is wrong with them
 *
 * Purpose:    a rule says that names which a pattern matches are the source of others. With scope
 *             ALL keys are removed at the backend, which is a write in itself: rules that would
 *             remove what was just written, or take what they remove for a source again, are
 *             refused.
 * Ownership:  a rule owns its name, texts and patterns.
 * Threading:  rules never change once they are taken: any thread.
 * Errors:     false, and the fault says which option of which rule, and why.
 */
#ifndef NC_CONFIG_DEPENDENCY_RULES_H
#define NC_CONFIG_DEPENDENCY_RULES_H

#include "config/config.h"

struct config_rule_fault {
    const char *option; /* spelling */
    unsigned rule;      /* its place among the rules */
    char text[640];
};

/* From the texts to the patterns. */
NC_MUST_CHECK bool config_dependency_take(struct config_dependency *rule,
                                          struct config_rule_fault *fault);
/* What spans rules. */
NC_MUST_CHECK bool config_dependencies_check(const struct config_dependency *rules, unsigned n,
                                             struct config_rule_fault *fault);
void config_dependency_fini(struct config_dependency *rule);

/* The same rules, in the same order. */
bool config_dependencies_equal(const struct config *a, const struct config *b);

/* Some name may match both, as far as the texts that they begin with tell. */
bool config_patterns_may_meet(const struct captures_pattern *a, const struct captures_pattern *b);

#endif
