/*
 * config.h - the configuration: one immutable snapshot from file, environment and command line
 *
 * Purpose:    every option is a line of tables/options.def; the struct's fields, the parser with
 *             its bounds, --describe and the reference pages are made from it. The command line
 *             (--max-staleness 2s) counts more than the environment (NEARCACHED_MAX_STALENESS),
 *             that more than the file (max-staleness = 2s under [coherence]).
 * Ownership:  snapshots are reference counted and never change; a reload makes a new one. What a
 *             snapshot points to lives as long as the snapshot; names of namespaces live as long
 *             as the process.
 * Threading:  any thread may read; references are atomic. Loading and reloading belong to one
 *             thread at a time (inih keeps its limits in globals).
 * Errors:     loading writes one line per error to the FILE given, each naming where (file:line,
 *             variable or flag), option, value and what was expected, returns -EINVAL and leaves
 *             *out alone. Values of secrets are never written.
 * Units:      sizes are bytes, times are milliseconds (fields end in _ms).
 */
#ifndef NC_CONFIG_CONFIG_H
#define NC_CONFIG_CONFIG_H

#include "base/bytes.h"
#include "base/check.h"
#include "base/tls_context.h"
#include "config/address.h"
#include "config/address_map.h"
#include "config/backend_url.h"
#include "config/captures.h"
#include "config/tag_rules.h"

#include <stdatomic.h>
#include <stdio.h>

/* In the order of WORDS() in tables/options.def; log_level holds an enum log_level (base/log.h). */
enum { PRESENT_AS_STANDALONE, PRESENT_AS_CLUSTER };
enum {
    COHERENCE_AUTO,
    COHERENCE_TRACKING,
    COHERENCE_BROADCAST,
    COHERENCE_KEYSPACE,
    COHERENCE_PUBSUB,
    COHERENCE_TTL
};
enum { AUTH_AUTO, AUTH_PROXY, AUTH_BACKEND };
enum { SCRIPT_KEYS_UNDECLARED, SCRIPT_KEYS_DECLARED };
enum { CONFIG_COMMAND_ON, CONFIG_COMMAND_GET, CONFIG_COMMAND_OFF };
enum { CACHE_COMMAND_FREE, CACHE_COMMAND_PASSWORD, CACHE_COMMAND_OFF };
enum {
    TLS_AUTH_CLIENTS_AUTO,
    TLS_AUTH_CLIENTS_NO,
    TLS_AUTH_CLIENTS_OPTIONAL,
    TLS_AUTH_CLIENTS_YES
};
enum { SENTINEL_TLS_AUTO, SENTINEL_TLS_ON, SENTINEL_TLS_OFF };
enum { MODE_ON, MODE_BYPASS, MODE_READONLY, MODE_OFF };
enum { SCOPE_L1, SCOPE_ALL };
enum { LOG_FORMAT_LOGFMT, LOG_FORMAT_JSON };

#define CONFIG_LIST_MAX 16
/* "default" included; ids are one byte, and 255 is kept for "none". */
#define CONFIG_NAMESPACES_MAX 255
/* One bit each where they are counted along a chain. */
#define CONFIG_DEPENDENCIES_MAX 64

struct config_list {
    unsigned n;
    char *items[CONFIG_LIST_MAX];
};

/* CONFIG_FIELD(type, name): the field that holds an option, as in `bool cache` or `int64_t x_ms`.
 */
#define CONFIG_FIELD(type, name) CONFIG_FIELD_##type(name)
#define CONFIG_FIELD_BOOL(name) bool name
#define CONFIG_FIELD_INT(name) int64_t name
#define CONFIG_FIELD_SIZE(name) size_t name
#define CONFIG_FIELD_TIME(name) int64_t name##_ms
#define CONFIG_FIELD_TEXT(name) char *name
#define CONFIG_FIELD_SECRET(name) char *name
#define CONFIG_FIELD_LIST(name) struct config_list name
#define CONFIG_FIELD_ENUM_present_as(name) int name
#define CONFIG_FIELD_ENUM_coherence(name) int name
#define CONFIG_FIELD_ENUM_auth(name) int name
#define CONFIG_FIELD_ENUM_script_keys(name) int name
#define CONFIG_FIELD_ENUM_config_command(name) int name
#define CONFIG_FIELD_ENUM_cache_command(name) int name
#define CONFIG_FIELD_ENUM_tls_auth_clients(name) int name
#define CONFIG_FIELD_ENUM_sentinel_tls(name) int name
#define CONFIG_FIELD_ENUM_mode(name) int name
#define CONFIG_FIELD_ENUM_scope(name) int name
#define CONFIG_FIELD_ENUM_log_level(name) int name
#define CONFIG_FIELD_ENUM_log_format(name) int name

/*
 * CONFIG_GLOBAL(section, code) is code unless the section is one of those with names;
 * CONFIG_LOCAL: if it is [namespace]; CONFIG_DEPENDENCY: if it is [dependency].
 */
#define CONFIG_GLOBAL(section, ...) CONFIG_GLOBAL_##section(__VA_ARGS__)
#define CONFIG_GLOBAL_server(...) __VA_ARGS__
#define CONFIG_GLOBAL_backend(...) __VA_ARGS__
#define CONFIG_GLOBAL_tls(...) __VA_ARGS__
#define CONFIG_GLOBAL_cache(...) __VA_ARGS__
#define CONFIG_GLOBAL_coherence(...) __VA_ARGS__
#define CONFIG_GLOBAL_bus(...) __VA_ARGS__
#define CONFIG_GLOBAL_ledger(...) __VA_ARGS__
#define CONFIG_GLOBAL_admin(...) __VA_ARGS__
#define CONFIG_GLOBAL_log(...) __VA_ARGS__
#define CONFIG_GLOBAL_namespace(...)
#define CONFIG_GLOBAL_dependency(...)
#define CONFIG_LOCAL(section, ...) CONFIG_LOCAL_##section(__VA_ARGS__)
#define CONFIG_LOCAL_server(...)
#define CONFIG_LOCAL_backend(...)
#define CONFIG_LOCAL_tls(...)
#define CONFIG_LOCAL_cache(...)
#define CONFIG_LOCAL_coherence(...)
#define CONFIG_LOCAL_bus(...)
#define CONFIG_LOCAL_ledger(...)
#define CONFIG_LOCAL_admin(...)
#define CONFIG_LOCAL_log(...)
#define CONFIG_LOCAL_namespace(...) __VA_ARGS__
#define CONFIG_LOCAL_dependency(...)
#define CONFIG_DEPENDENCY(section, ...) CONFIG_DEPENDENCY_##section(__VA_ARGS__)
#define CONFIG_DEPENDENCY_server(...)
#define CONFIG_DEPENDENCY_backend(...)
#define CONFIG_DEPENDENCY_tls(...)
#define CONFIG_DEPENDENCY_cache(...)
#define CONFIG_DEPENDENCY_coherence(...)
#define CONFIG_DEPENDENCY_bus(...)
#define CONFIG_DEPENDENCY_admin(...)
#define CONFIG_DEPENDENCY_log(...)
#define CONFIG_DEPENDENCY_ledger(...)
#define CONFIG_DEPENDENCY_namespace(...)
#define CONFIG_DEPENDENCY_dependency(...) __VA_ARGS__

struct config_namespace {
    const char *name;
    uint8_t id; /* stable for the life of the process, by name; 0 is "default" */
    /*
     * match (NULL for "default"; without captures), tags (NULL: none), cache, and the options that
     * a namespace may override, resolved: max_ttl_ms, negative_ttl_ms, max_value, replica_reads,
     * rate_limit, max_concurrency, coherence, mode. `cache` is what comes of the option and of the
     * modes: whether its keys are kept.
     */
#define WORDS(list, words)
#define OPTION(section, name, type, def, min, max, reload, help)                                   \
    CONFIG_LOCAL(section, CONFIG_FIELD(type, name);)
#define OVERRIDE(name, type) CONFIG_FIELD(type, name);
#include "tables/options.def"
#undef OPTION
#undef OVERRIDE
    bool has_cache;                   /* the option `cache` alone */
    bool refuses_writes, refuses_all; /* by its own mode or the global one */
};

/* One [dependency] section: what its source's pattern matches, its derived names follow. */
struct config_dependency {
    char *name;
    unsigned line; /* of the file */
    /* source, derived, scope */
#define OPTION(section, name, type, def, min, max, reload, help)                                   \
    CONFIG_DEPENDENCY(section, CONFIG_FIELD(type, name);)
#define OVERRIDE(name, type)
#include "tables/options.def"
#undef OPTION
#undef OVERRIDE
    struct captures_pattern *source_pattern;
    struct captures_pattern *derived_patterns[CONFIG_LIST_MAX]; /* derived.n of them */
};

struct event_rules;    /* event_rules.h */
struct config_matcher; /* opaque: patterns prepared for config_namespace_of() */
struct config_source;  /* opaque: file name and flags, kept for config_reload() */
struct config_changes; /* opaque: the file as it was read, and what was set since */

struct config {
    /*
     * One field per option outside [namespace], in the table's order: bool name (BOOL),
     * int64_t name (INT), size_t name (SIZE), int64_t name_ms (TIME), char *name (TEXT, SECRET;
     * never NULL), int name (ENUM_*), struct config_list name (LIST).
     */
#define OPTION(section, name, type, def, min, max, reload, help)                                   \
    CONFIG_GLOBAL(section, CONFIG_FIELD(type, name);)
#define OVERRIDE(name, type)
#include "tables/options.def"
#undef OPTION
#undef OVERRIDE
#undef WORDS

    /* What some of the texts above mean. */
    struct config_address listeners[CONFIG_LIST_MAX]; /* listen */
    unsigned n_listeners;
    struct config_address tls_listeners[CONFIG_LIST_MAX]; /* tls_listen */
    unsigned n_tls_listeners;
    struct tls_context *tls_clients; /* for who connects to tls_listen; NULL: nobody can */
    struct tls_context *tls_backend; /* for nodes and Sentinels reached by TLS; NULL: none are */
    struct config_address admin_address; /* admin */
    bool has_admin;
    struct config_address_map mappings; /* address_map */
    struct config_announce announce;    /* announce_address; port 0: none */
    struct config_backend target;       /* backend, backend_user and backend_password */
    unsigned unix_mode;                 /* unix_socket_mode */

    struct config_namespace *namespaces; /* [0] is "default"; then longest pattern first */
    unsigned n_namespaces;
    struct config_namespace ledger_namespace; /* of the ledger's own keys: default, but not kept */
    struct tag_rules *tag_rules;
    struct config_matcher *matcher;
    bool has_refusals; /* some namespace, or all, refuses writes or everything */
    struct config_dependency *dependencies; /* in the file's order */
    unsigned n_dependencies;
    struct event_rules *events; /* sections [event] and [event-source] */
    struct config_source *source;
    struct config_changes *changes;
    _Atomic unsigned n_refs;
};

/* What the command line asks for. */
enum config_action {
    CONFIG_RUN,
    CONFIG_TEST, /* -t: the caller says that the configuration is good, and exits */
    CONFIG_DESCRIBE_CONFIG,
    CONFIG_DESCRIBE_METRICS,
    CONFIG_VERSION,
    CONFIG_HELP,
};

/*
 * Reads the file that --config (or NEARCACHED_CONFIG) names, the environment and the flags. *out is
 * a first reference for CONFIG_RUN and CONFIG_TEST; the other actions need no configuration and
 * leave *out alone. Secrets among the arguments are overwritten in place, also when loading fails:
 * call it before anything else looks at argv.
 */
NC_MUST_CHECK int config_load(int argc, char **argv, enum config_action *action,
                              struct config **out, FILE *errors);

/*
 * Reads the file again, under the environment and the flags of the first time. What config_set()
 * changed is forgotten, but for modes. An option that needs a restart (START) and has changed keeps
 * its value; `notes` gets a line for each. current, or what it was reloaded from, came from
 * config_load().
 */
NC_MUST_CHECK int config_reload(const struct config *current, struct config **out, FILE *errors,
                                FILE *notes);

/* One option and its new value; space: its namespace, NULL: outside of them. Borrowed. */
struct config_assignment {
    const char *space, *name, *value;
};

/*
 * Sets options over all else, and all of them or none: with the file as it was read last, so that
 * nothing else changes. Certificates are read again only where [tls] changed. Checks are those of
 * the file; an option that needs a restart is an error.
 */
NC_MUST_CHECK int config_set(const struct config *current, const struct config_assignment *set,
                             unsigned n, struct config **out, FILE *errors);

/* "=off session=bypass", as config_set_modes() takes it: the modes that were set. */
void config_modes_set(const struct config *config, FILE *out);
NC_MUST_CHECK int config_set_modes(const struct config *current, const char *text,
                                   struct config **out, FILE *errors);

/* One difference. before or after NULL: the namespace was not, or is no longer, there. */
typedef void (*config_diff_fn)(void *context, const char *option, const char *before,
                               const char *after);
/* Values are shown as by config_each(). Returns how many differ. */
unsigned config_diff(const struct config *former, const struct config *fresh, config_diff_fn fn,
                     void *context);

/*
 * All options as one writes them, "max-ttl" and "namespace.session.max-ttl". Of secrets only
 * whether there is one.
 */
typedef void (*config_each_fn)(void *context, const char *option, const char *value);
void config_each(const struct config *config, config_each_fn fn, void *context);

/* "on", "bypass" ... of the mode that holds for the namespace, the global one included. */
const char *config_mode_name(int mode);
int config_mode_of(const struct config *config, const struct config_namespace *space);

/* Defaults and the given text alone, as for a file of this name: for tests and fuzzing. */
NC_MUST_CHECK int config_parse(struct bytes text, const char *file_name, struct config **out,
                               FILE *errors);

/* The file that was read, or NULL when there is none. */
const char *config_file_name(const struct config *config);

struct config *config_ref(struct config *config);
/* Accepts a pointer to NULL; clears the pointer. */
void config_unref(struct config **config);

/*
 * The namespace of a key: that of the longest matching pattern (in characters, as written; of
 * equals the one with the longer part before its first wildcard, then the one that stands first),
 * else "default". Keys that begin with `ledger_prefix` are in one that is like "default", but never
 * cached. Never NULL.
 */
const struct config_namespace *config_namespace_of(const struct config *config, struct bytes key);

/* Some namespace whose keys are kept has this for `coherence`. */
bool config_uses_coherence(const struct config *config, int coherence);
/* What links that fetch for several namespaces are told by: `coherence`, unless keys are kept, and
 * none of them by it. */
int config_main_coherence(const struct config *config);

/* Some namespace is read from replicas. */
bool config_reads_replicas(const struct config *config);
/* Some namespace has stale-if-error. */
bool config_serves_stale(const struct config *config);

/*
 * Every namespace name that any configuration of this process had, by id: 0 is "default", ids are
 * handed out upwards and never reused. id must be below config_namespace_count(). Any thread.
 */
unsigned config_namespace_count(void);
const char *config_namespace_name(unsigned id);
/* The id of a name, or -1 when no namespace was ever called so. */
int config_namespace_find(struct bytes name);

/* --help, --describe config and --describe metrics. */
void config_usage(FILE *out);
void config_describe(FILE *out);
void config_describe_metrics(FILE *out);

#endif
