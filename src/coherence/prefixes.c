#include "coherence/prefixes.h"

#include "base/mem.h"
#include "config/namespaces.h"

#include <stdlib.h>
#include <string.h>

static int compare(const void *a, const void *b)
{
    const struct bytes *left = a, *right = b;
    const size_t n = left->len < right->len ? left->len : right->len;
    const int order = n > 0 ? memcmp(left->ptr, right->ptr, n) : 0;

    return order != 0 ? order : (left->len > right->len) - (left->len < right->len);
}

/* Sorted, a prefix stands directly before whatever begins with it. */
static void drop_covered(struct prefixes *prefixes)
{
    unsigned n = 0;

    for (unsigned i = 0; i < prefixes->n; i++) {
        if (n == 0 || !bytes_start_with(prefixes->items[i], prefixes->items[n - 1])) {
            prefixes->items[n++] = prefixes->items[i];
        }
    }
    prefixes->n = n;
    if (n == 1 && prefixes->items[0].len == 0) {
        prefixes->n = 0;
    }
}

/* FNV-1a, each prefix with its length before it. */
static uint64_t hash_all(const struct prefixes *prefixes)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325) + prefixes->is_wanted;

    for (unsigned i = 0; i < prefixes->n; i++) {
        const struct bytes item = prefixes->items[i];

        hash = (hash ^ item.len) * UINT64_C(0x100000001b3);
        for (size_t at = 0; at < item.len; at++) {
            hash = (hash ^ item.ptr[at]) * UINT64_C(0x100000001b3);
        }
    }
    return hash;
}

bool prefixes_have_rules(const struct config *config, int mode)
{
    const int coherence = config->coherence;

    if (config->n_dependencies == 0) {
        return false;
    }
    return mode == COHERENCE_BROADCAST
               ? coherence == COHERENCE_AUTO || coherence == COHERENCE_TRACKING ||
                     coherence == COHERENCE_BROADCAST
               : coherence == COHERENCE_AUTO || coherence == COHERENCE_KEYSPACE;
}

static void add_rules(struct prefixes *prefixes, const struct config *config, unsigned char *at)
{
    for (unsigned i = 0; i < config->n_dependencies; i++) {
        const size_t len = captures_prefix(config->dependencies[i].source_pattern, at);

        prefixes->items[prefixes->n++] = bytes_make(at, len);
        at += len;
    }
}

void prefixes_init(struct prefixes *prefixes, const struct config *config, int mode, int other)
{
    size_t total = 1;

    memset(prefixes, 0, sizeof(*prefixes));
    for (unsigned i = 0; i < config->n_namespaces; i++) {
        const char *match = config->namespaces[i].match;

        total += match != NULL ? strlen(match) + 1 : 1;
    }
    for (unsigned i = 0; i < config->n_dependencies; i++) {
        total += strlen(config->dependencies[i].source);
    }
    prefixes->items = mem_alloc((config->n_namespaces + config->n_dependencies) *
                                sizeof(*prefixes->items));
    prefixes->bytes = mem_alloc(total);
    unsigned char *at = prefixes->bytes;
    for (unsigned i = 0; i < config->n_namespaces; i++) {
        const struct config_namespace *ns = &config->namespaces[i];
        size_t len = 0;

        /* What a mode does not keep for a while is heard of all the same: links stay. */
        if (!ns->has_cache || (ns->coherence != mode && ns->coherence != other)) {
            continue;
        }
        if (ns->match != NULL) {
            len = namespace_literal(ns->match, at);
        }
        prefixes->items[prefixes->n++] = bytes_make(at, len);
        at += len;
    }
    if (prefixes_have_rules(config, mode)) {
        add_rules(prefixes, config, at);
    }
    prefixes->is_wanted = prefixes->n > 0;
    qsort(prefixes->items, prefixes->n, sizeof(*prefixes->items), compare);
    drop_covered(prefixes);
    prefixes->id = hash_all(prefixes);
}

void prefixes_fini(struct prefixes *prefixes)
{
    mem_free(prefixes->items);
    mem_free(prefixes->bytes);
    memset(prefixes, 0, sizeof(*prefixes));
}
