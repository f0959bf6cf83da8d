/*
 * main.c - runs the searches and prints their table
 *
 * Without arguments: every configuration with all rules on must show no violation, and
 * hits, joins and fills; then every rule's switch must yield a counterexample. Exit 0 only
 * if all of that holds.
 */
#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint32_t all_rules = (UINT32_C(1) << N_RULES) - 1;

struct options {
    bool is_full;
    bool has_trace;
    const char *spec;    /* NULL: the cases of cases.c */
    uint32_t rules;      /* in force */
    uint32_t properties; /* looked for */
    uint64_t max_states;
};

static void print_head(const char *first)
{
    printf("%-23s %9s %10s %5s %9s %8s %8s %6s  %s\n", first, "states", "steps", "depth", "hits",
           "joins", "fills", "s", "result");
}

static void print_row(const char *name, const struct search_result *result, const char *words)
{
    printf("%-23s %9llu %10llu %5u %9llu %8llu %8llu %6.2f  %s\n", name,
           (unsigned long long)result->n_states, (unsigned long long)result->n_steps, result->depth,
           (unsigned long long)result->n_events[EVENT_HIT],
           (unsigned long long)result->n_events[EVENT_JOIN],
           (unsigned long long)result->n_events[EVENT_FILL], result->seconds, words);
    fflush(stdout);
}

/* One configuration with all rules on; true if it is as it must be. */
static bool run_config(const struct config_case *one, const struct options *options,
                       uint64_t *n_events)
{
    struct config config;
    struct search_result result;
    char names[64];
    char words[128] = "no violation";
    if (!config_parse(&config, one->spec)) {
        return false;
    }
    search(&result, &config, all_rules, PROPERTY_ALL, options->max_states);
    bool is_good = result.broken == 0 && result.is_complete;
    if (result.broken != 0) {
        snprintf(words, sizeof(words), "VIOLATED: %s",
                 property_names(result.broken, names, sizeof(names)));
    } else if (!result.is_complete) {
        snprintf(words, sizeof(words), "NOT COMPLETE");
    } else if (result.n_events[EVENT_HIT] == 0 || result.n_events[EVENT_JOIN] == 0 ||
               result.n_events[EVENT_FILL] == 0) {
        snprintf(words, sizeof(words), "NO HIT, JOIN OR FILL");
        is_good = false;
    }
    print_row(one->name, &result, words);
    if (result.broken != 0) {
        printf("    %s\n", one->spec);
        trace_print(&config, all_rules, &result);
    }
    for (unsigned i = 0; i < N_EVENTS; i++) {
        n_events[i] += result.n_events[i];
    }
    search_result_fini(&result);
    return is_good;
}

/* One rule switched off; true if the property breaks. */
static bool run_rule(const struct rule_case *one, const struct options *options)
{
    struct config config;
    struct search_result result;
    char names[64];
    char words[128];
    uint32_t rules = all_rules & ~(UINT32_C(1) << one->rule);
    if (!config_parse(&config, one->spec)) {
        return false;
    }
    search(&result, &config, rules, one->property, options->max_states);
    property_names(one->property, names, sizeof(names));
    bool is_found = result.broken != 0;
    snprintf(words, sizeof(words), is_found ? "%s breaks, as it must" : "%s DOES NOT BREAK", names);
    print_row(rule_texts[one->rule].name, &result, words);
    if (is_found && options->has_trace) {
        printf("     without: %s\n     in: %s\n", rule_texts[one->rule].text, one->spec);
        trace_print(&config, rules, &result);
    }
    search_result_fini(&result);
    return is_found;
}

static bool run_configs(const struct options *options)
{
    uint64_t n_events[N_EVENTS] = {0};
    bool is_good = true;
    print_head("all rules on");
    for (size_t i = 0; i < n_config_cases; i++) {
        if (!config_cases[i].is_full || options->is_full) {
            is_good &= run_config(&config_cases[i], options, n_events);
        }
    }
    printf("seen:");
    for (unsigned i = 0; i < N_EVENTS; i++) {
        printf(" %s %llu%s", event_names[i], (unsigned long long)n_events[i],
               i + 1 < N_EVENTS ? "," : "\n\n");
        is_good &= n_events[i] > 0;
    }
    return is_good;
}

/* The switches of the rules that are off in the options, or all. */
static bool run_rules(const struct options *options)
{
    uint32_t chosen = options->rules == all_rules ? 0 : options->rules;
    uint32_t seen = chosen;
    bool is_good = true;
    print_head("without");
    for (size_t i = 0; i < n_rule_cases; i++) {
        if ((chosen >> rule_cases[i].rule & 1) == 0) {
            is_good &= run_rule(&rule_cases[i], options);
            seen |= UINT32_C(1) << rule_cases[i].rule;
        }
    }
    if (seen != all_rules) {
        puts("a rule has no case in cases.c");
        is_good = false;
    }
    return is_good;
}

/* A configuration from the command line; false where something is violated. */
static bool run_spec(const struct options *options)
{
    struct config config;
    struct search_result result;
    char names[64];
    if (!config_parse(&config, options->spec)) {
        return false;
    }
    search(&result, &config, options->rules, options->properties, options->max_states);
    print_head("configuration");
    print_row("given", &result,
              result.broken != 0   ? property_names(result.broken, names, sizeof(names))
              : result.is_complete ? "no violation"
                                   : "not complete");
    for (unsigned i = 0; i < N_EVENTS; i++) {
        printf("%s %llu%s", event_names[i], (unsigned long long)result.n_events[i],
               i + 1 < N_EVENTS ? ", " : "\n");
    }
    bool is_good = result.broken == 0;
    if (!is_good && options->has_trace) {
        trace_print(&config, options->rules, &result);
    }
    search_result_fini(&result);
    return is_good;
}

static void print_help(void)
{
    puts("model [--full]                   all configurations, then every switch\n"
         "model --without RULE [--trace]   the counterexamples of a rule switched off\n"
         "model --run SPEC [--without RULE]... [--check PROPERTY]... [--max STATES] [--trace]\n"
         "model --list                     rules and configurations");
}

static void print_list(void)
{
    for (unsigned i = 0; i < N_RULES; i++) {
        printf("%-23s %s\n", rule_texts[i].name, rule_texts[i].text);
    }
    puts("");
    for (size_t i = 0; i < n_config_cases; i++) {
        printf("%-23s %s%s\n", config_cases[i].name, config_cases[i].spec,
               config_cases[i].is_full ? " (--full)" : "");
    }
}

/* Takes the value of an option that has one; false: it is not good. */
static bool take_value(struct options *options, const char *name, const char *value)
{
    if (strcmp(name, "--without") == 0) {
        int rule = rule_by_name(value);
        if (rule >= 0) {
            options->rules &= ~(UINT32_C(1) << rule);
        }
        return rule >= 0;
    }
    if (strcmp(name, "--check") == 0) {
        uint32_t property = property_by_name(value);
        options->properties |= property;
        return property != 0;
    }
    if (strcmp(name, "--run") == 0) {
        options->spec = value;
        return true;
    }
    if (strcmp(name, "--max") == 0) {
        options->max_states = strtoull(value, NULL, 10);
        return options->max_states > 0;
    }
    return false;
}

int main(int argc, char **argv)
{
    struct options options = {.rules = all_rules, .max_states = UINT32_MAX - 1};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--full") == 0) {
            options.is_full = true;
        } else if (strcmp(argv[i], "--trace") == 0) {
            options.has_trace = true;
        } else if (strcmp(argv[i], "--list") == 0) {
            print_list();
            return 0;
        } else if (i + 1 < argc && take_value(&options, argv[i], argv[i + 1])) {
            i++;
        } else {
            print_help();
            return strcmp(argv[i], "--help") == 0 ? 0 : 2;
        }
    }
    if (options.properties == 0) {
        options.properties = PROPERTY_ALL;
    }
    if (options.spec != NULL) {
        return run_spec(&options) ? 0 : 1;
    }
    bool is_good = options.rules != all_rules || run_configs(&options);
    is_good &= run_rules(&options);
    puts(is_good ? "model: all as it must be" : "model: NOT as it must be");
    return is_good ? 0 : 1;
}
