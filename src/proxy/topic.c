#include "proxy/topic.h"

#include "base/mem.h"
#include "cache/cache.h"

#include <string.h>

static uint64_t hash_of(const struct topic_key *key)
{
    return cache_hash(key->name) ^
           ((uint64_t)key->user << 8 | key->kind) * UINT64_C(0x9e3779b97f4a7c15);
}

static bool is_same(const struct topic_key *a, const struct topic_key *b)
{
    return a->kind == b->kind && a->user == b->user && bytes_equal(a->name, b->name);
}

struct topic *topic_find(const struct topic_table *table, const struct topic_key *key)
{
    const uint64_t hash = hash_of(key);
    struct topic *topic = table->n > 0 ? table->buckets[hash % table->n_buckets] : NULL;

    while (topic != NULL && !(topic->hash == hash && is_same(&topic->key, key))) {
        topic = topic->next;
    }
    return topic;
}

static void grow(struct topic_table *table)
{
    const unsigned n_buckets = table->n_buckets == 0 ? 8 : 2 * table->n_buckets;
    struct topic **buckets = mem_alloc(n_buckets * sizeof(struct topic *));

    for (unsigned i = 0; i < table->n_buckets; i++) {
        while (table->buckets[i] != NULL) {
            struct topic *const topic = table->buckets[i];

            table->buckets[i] = topic->next;
            topic->next = buckets[topic->hash % n_buckets];
            buckets[topic->hash % n_buckets] = topic;
        }
    }
    mem_free(table->buckets);
    table->buckets = buckets;
    table->n_buckets = n_buckets;
}

void topic_add(struct topic_table *table, struct topic *topic, const struct topic_key *key)
{
    unsigned char *name = mem_alloc(key->name.len + 1);

    if (key->name.len > 0) {
        memcpy(name, key->name.ptr, key->name.len);
    }
    topic->key = *key;
    topic->key.name = bytes_make(name, key->name.len);
    topic->hash = hash_of(key);
    if (table->n >= table->n_buckets) {
        grow(table);
    }
    topic->next = table->buckets[topic->hash % table->n_buckets];
    table->buckets[topic->hash % table->n_buckets] = topic;
    table->n++;
}

void topic_remove(struct topic_table *table, struct topic *topic)
{
    struct topic **at = &table->buckets[topic->hash % table->n_buckets];

    while (*at != topic) {
        at = &(*at)->next;
    }
    *at = topic->next;
    table->n--;
    mem_free((void *)(uintptr_t)topic->key.name.ptr);
    topic->key.name = bytes_make(NULL, 0);
    if (table->n == 0) {
        topic_table_fini(table);
    }
}

struct topic *topic_next(const struct topic_table *table, const struct topic *after)
{
    unsigned bucket = 0;

    if (after != NULL) {
        if (after->next != NULL) {
            return after->next;
        }
        bucket = (unsigned)(after->hash % table->n_buckets) + 1;
    }
    while (bucket < table->n_buckets && table->buckets[bucket] == NULL) {
        bucket++;
    }
    return bucket < table->n_buckets ? table->buckets[bucket] : NULL;
}

void topic_table_fini(struct topic_table *table)
{
    mem_free(table->buckets);
    *table = (struct topic_table){0};
}
