/*
 * A pattern is split once into the literal text before its first wildcard and the rest:
 *
 *     session:[0-9]*      prefix "session:", rest "[0-9]*"    PATTERN_GLOB
 *     session:*           prefix "session:", rest "*"         PATTERN_PREFIX
 *     config:global       prefix is all of it                 PATTERN_EXACT
 *
 * Most keys are decided by one memcmp. For each first byte a key can have, the matcher lists the
 * patterns that could match it, in order of preference. A trie over the prefixes would save
 * comparisons among hundreds of namespaces that begin alike; people write a handful.
 */
#include "config/namespaces.h"

#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "base/mem.h"

enum pattern_kind { PATTERN_EXACT, PATTERN_PREFIX, PATTERN_GLOB };

struct pattern {
    enum pattern_kind kind;
    unsigned char *prefix; /* unescaped */
    size_t prefix_len;
    struct bytes whole;
};

/* One list for each first byte, and one for the empty key. */
#define N_FIRST_BYTES 257
#define EMPTY_KEY 256

struct config_matcher {
    struct pattern *patterns; /* patterns[i] belongs to namespaces[i + 1] */
    unsigned n_patterns;
    uint32_t begin[N_FIRST_BYTES + 1]; /* candidates[begin[b]] up to candidates[begin[b + 1]] */
    uint8_t *candidates;               /* indices of patterns */
};

static struct {
    pthread_mutex_t lock;                     /* a leaf: orders writers */
    const char *names[CONFIG_NAMESPACES_MAX]; /* written before n counts them */
    _Atomic unsigned n;                       /* atomic */
} registry = {.lock = PTHREAD_MUTEX_INITIALIZER, .names = {"default"}, .n = 1};

/* -- Names and ids ---------------------------------------------------------------------------- */

bool namespace_name_is_valid(const char *name)
{
    const size_t len = strlen(name);

    for (size_t i = 0; i < len; i++) {
        if (!isalnum((unsigned char)name[i]) && strchr("._-:", name[i]) == NULL) {
            return false;
        }
    }
    return len >= 1 && len <= NAMESPACE_NAME_MAX;
}

unsigned config_namespace_count(void)
{
    /* Pairs with the release in namespace_register(): a counted name can be read. */
    return atomic_load_explicit(&registry.n, memory_order_acquire);
}

const char *config_namespace_name(unsigned id)
{
    CHECK(id < config_namespace_count());
    return registry.names[id];
}

int config_namespace_find(struct bytes name)
{
    for (unsigned id = 0; id < config_namespace_count(); id++) {
        if (bytes_equal(name, bytes_of_string(config_namespace_name(id)))) {
            return (int)id;
        }
    }
    return -1;
}

int namespace_register(const char *name, const char **kept)
{
    unsigned id = 0;

    pthread_mutex_lock(&registry.lock);
    const unsigned n = atomic_load_explicit(&registry.n, memory_order_relaxed);

    while (id < n && strcmp(registry.names[id], name) != 0) {
        id++;
    }
    if (id == n && n < CONFIG_NAMESPACES_MAX) {
        registry.names[id] = mem_strdup(name);
        atomic_store_explicit(&registry.n, n + 1, memory_order_release);
    }
    if (id < CONFIG_NAMESPACES_MAX) {
        *kept = registry.names[id];
    }
    pthread_mutex_unlock(&registry.lock);
    return id < CONFIG_NAMESPACES_MAX ? (int)id : -ENOSPC;
}

/* -- Patterns --------------------------------------------------------------------------------- */

/* The literal text before the first wildcard goes to prefix; returns where the rest begins. */
static const char *split_pattern(const char *pattern, unsigned char *prefix, size_t *prefix_len)
{
    *prefix_len = 0;
    while (*pattern != '\0' && strchr("*?[", *pattern) == NULL) {
        if (pattern[0] == '\\' && pattern[1] != '\0') {
            pattern++;
        }
        prefix[(*prefix_len)++] = (unsigned char)*pattern++;
    }
    return pattern;
}

size_t namespace_literal(const char *pattern, unsigned char *out)
{
    size_t len;

    (void)split_pattern(pattern, out, &len);
    return len;
}

static void pattern_init(struct pattern *pattern, const char *text)
{
    pattern->whole = bytes_of_string(text);
    pattern->prefix = mem_alloc(pattern->whole.len + 1);

    const char *const rest = split_pattern(text, pattern->prefix, &pattern->prefix_len);

    if (*rest == '\0') {
        pattern->kind = PATTERN_EXACT;
    } else {
        pattern->kind = rest[strspn(rest, "*")] == '\0' ? PATTERN_PREFIX : PATTERN_GLOB;
    }
}

static bool pattern_matches(const struct pattern *pattern, struct bytes key)
{
    if (!bytes_start_with(key, bytes_make(pattern->prefix, pattern->prefix_len))) {
        return false;
    }
    switch (pattern->kind) {
    case PATTERN_EXACT:
        return key.len == pattern->prefix_len;
    case PATTERN_PREFIX:
        return true;
    default:
        return bytes_match_glob(pattern->whole, key);
    }
}

static bool pattern_may_begin(const struct pattern *pattern, unsigned first)
{
    return pattern->prefix_len == 0 || pattern->prefix[0] == first;
}

/* -- The matcher ------------------------------------------------------------------------------ */

static size_t literal_len(const char *pattern)
{
    unsigned char *const prefix = mem_alloc(strlen(pattern) + 1);
    size_t len;

    (void)split_pattern(pattern, prefix, &len);
    mem_free(prefix);
    return len;
}

static bool is_preferred(const struct config_namespace *a, const struct config_namespace *b)
{
    const size_t a_len = strlen(a->match), b_len = strlen(b->match);

    return a_len != b_len ? a_len > b_len : literal_len(a->match) > literal_len(b->match);
}

/* By insertion, which keeps the file's order among equals. */
void namespaces_sort(struct config_namespace *namespaces, unsigned n)
{
    for (unsigned i = 2; i < n; i++) {
        const struct config_namespace moving = namespaces[i];
        unsigned at = i;

        while (at > 1 && is_preferred(&moving, &namespaces[at - 1])) {
            namespaces[at] = namespaces[at - 1];
            at--;
        }
        namespaces[at] = moving;
    }
}

struct config_matcher *config_matcher_new(const struct config_namespace *namespaces, unsigned n)
{
    struct config_matcher *const matcher = mem_alloc(sizeof(*matcher));
    uint32_t used = 0;

    matcher->n_patterns = n - 1;
    matcher->patterns = mem_alloc(n * sizeof(*matcher->patterns));
    matcher->candidates = mem_alloc(n * (size_t)N_FIRST_BYTES);
    for (unsigned i = 0; i < matcher->n_patterns; i++) {
        pattern_init(&matcher->patterns[i], namespaces[i + 1].match);
    }
    for (unsigned first = 0; first < N_FIRST_BYTES; first++) {
        matcher->begin[first] = used;
        for (unsigned i = 0; i < matcher->n_patterns; i++) {
            if (pattern_may_begin(&matcher->patterns[i], first)) {
                matcher->candidates[used++] = (uint8_t)i;
            }
        }
    }
    matcher->begin[N_FIRST_BYTES] = used;
    return matcher;
}

void config_matcher_free(struct config_matcher **matcher)
{
    if (*matcher == NULL) {
        return;
    }
    for (unsigned i = 0; i < (*matcher)->n_patterns; i++) {
        mem_free((*matcher)->patterns[i].prefix);
    }
    mem_free((*matcher)->patterns);
    mem_free((*matcher)->candidates);
    mem_free(*matcher);
    *matcher = NULL;
}

bool config_uses_coherence(const struct config *config, int coherence)
{
    for (unsigned i = 0; i < config->n_namespaces; i++) {
        if (config->namespaces[i].has_cache && config->namespaces[i].coherence == coherence) {
            return true;
        }
    }
    return false;
}

int config_main_coherence(const struct config *config)
{
    int coherence = COHERENCE_AUTO;

    if (config_uses_coherence(config, config->coherence)) {
        return config->coherence;
    }
    while (coherence <= COHERENCE_TTL && !config_uses_coherence(config, coherence)) {
        coherence++;
    }
    return coherence <= COHERENCE_TTL ? coherence : config->coherence;
}

bool config_reads_replicas(const struct config *config)
{
    for (unsigned i = 0; i < config->n_namespaces; i++) {
        if (config->namespaces[i].replica_reads) {
            return true;
        }
    }
    return false;
}

bool config_serves_stale(const struct config *config)
{
    for (unsigned i = 0; i < config->n_namespaces; i++) {
        if (config->namespaces[i].stale_if_error_ms > 0) {
            return true;
        }
    }
    return false;
}

const struct config_namespace *config_namespace_of(const struct config *config, struct bytes key)
{
    const struct config_matcher *const matcher = config->matcher;

    if (key.len > 0 && key.ptr[0] == (unsigned char)config->ledger_prefix[0] &&
        bytes_start_with(key, bytes_of_string(config->ledger_prefix))) {
        return &config->ledger_namespace;
    }
    if (config->n_namespaces == 1) {
        return &config->namespaces[0];
    }

    const unsigned first = key.len > 0 ? key.ptr[0] : EMPTY_KEY;

    for (uint32_t i = matcher->begin[first]; i < matcher->begin[first + 1]; i++) {
        const unsigned index = matcher->candidates[i];

        if (pattern_matches(&matcher->patterns[index], key)) {
            return &config->namespaces[index + 1];
        }
    }
    return &config->namespaces[0];
}
