#include "proxy/tracked.h"

#include "base/mem.h"
#include "cache/cache.h"

struct tracked_key {
    struct topic topic;
    struct tracked_key *older, *newer;
    uint64_t generation;
    uint64_t *clients; /* points at few, or at heap memory */
    unsigned n, capacity;
    uint64_t few[2];
};

static struct topic_key name_of(struct bytes key)
{
    return (struct topic_key){.name = key};
}

static struct topic_table *part_of(struct tracked *table, struct bytes key)
{
    return &table->parts[cache_hash(key) >> 58];
}

static struct tracked_key *find(struct tracked *table, struct bytes key)
{
    const struct topic_key name = name_of(key);
    struct topic *topic = topic_find(part_of(table, key), &name);

    return topic != NULL ? CONTAINER_OF(topic, struct tracked_key, topic) : NULL;
}

static void list_newest(struct tracked *table, struct tracked_key *entry)
{
    entry->newer = NULL;
    entry->older = table->newest;
    if (table->newest != NULL) {
        table->newest->newer = entry;
    } else {
        table->oldest = entry;
    }
    table->newest = entry;
}

static void unlist(struct tracked *table, struct tracked_key *entry)
{
    if (entry->older != NULL) {
        entry->older->newer = entry->newer;
    } else {
        table->oldest = entry->newer;
    }
    if (entry->newer != NULL) {
        entry->newer->older = entry->older;
    } else {
        table->newest = entry->older;
    }
}

static void free_entry(struct tracked *table, struct tracked_key *entry)
{
    unlist(table, entry);
    table->n--;
    topic_remove(part_of(table, entry->topic.key.name), &entry->topic);
    if (entry->clients != entry->few) {
        mem_free(entry->clients);
    }
    mem_free(entry);
}

static struct tracked_key *new_entry(struct tracked *table, struct bytes key)
{
    const struct topic_key name = name_of(key);
    struct tracked_key *entry = mem_alloc(sizeof(*entry));

    entry->clients = entry->few;
    entry->capacity = sizeof(entry->few) / sizeof(entry->few[0]);
    entry->generation = table->generation;
    list_newest(table, entry);
    table->n++;
    topic_add(part_of(table, key), &entry->topic, &name);
    return entry;
}

static bool grow(struct tracked_key *entry)
{
    const unsigned capacity = 2 * entry->capacity;
    uint64_t *grown = entry->clients == entry->few
                          ? mem_try_alloc(capacity * sizeof(*grown))
                          : mem_try_realloc(entry->clients, capacity * sizeof(*grown));

    if (grown == NULL) {
        return false;
    }
    if (entry->clients == entry->few) {
        memcpy(grown, entry->few, sizeof(entry->few));
    }
    entry->clients = grown;
    entry->capacity = capacity;
    return true;
}

/* A key that never changes must not keep the number of every client that ever read it. */
static void drop_gone(const struct tracked *table, struct tracked_key *entry)
{
    unsigned n = 0;

    for (unsigned i = 0; i < entry->n; i++) {
        if (table->is_gone == NULL || !table->is_gone(table->context, entry->clients[i])) {
            entry->clients[n++] = entry->clients[i];
        }
    }
    entry->n = n;
}

/* False: no memory. */
static bool make_room(const struct tracked *table, struct tracked_key *entry)
{
    if (entry->n < entry->capacity) {
        return true;
    }
    drop_gone(table, entry);
    /* Half of it free: the next look at all of them is as far away as this one was. */
    return entry->n <= entry->capacity / 2 || grow(entry);
}

bool tracked_add(struct tracked *table, struct bytes key, uint64_t client)
{
    struct tracked_key *entry = find(table, key);

    if (entry != NULL && entry->generation != table->generation) {
        free_entry(table, entry);
        entry = NULL;
    }
    if (entry == NULL) {
        entry = new_entry(table, key);
    } else {
        unlist(table, entry);
        list_newest(table, entry);
    }
    for (unsigned i = 0; i < entry->n; i++) {
        if (entry->clients[i] == client) {
            return true;
        }
    }
    if (!make_room(table, entry)) {
        return false;
    }
    entry->clients[entry->n++] = client;
    return true;
}

void tracked_take(struct tracked *table, struct bytes key, tracked_fn fn, void *context)
{
    struct tracked_key *entry = find(table, key);
    uint64_t few[sizeof(entry->few) / sizeof(entry->few[0])];
    uint64_t *clients;
    unsigned n;

    if (entry == NULL) {
        return;
    }
    /* fn may remember the key anew. */
    n = entry->generation == table->generation ? entry->n : 0;
    memcpy(few, entry->few, sizeof(few));
    clients = entry->clients == entry->few ? few : entry->clients;
    entry->clients = entry->few;
    free_entry(table, entry);
    for (unsigned i = 0; i < n; i++) {
        fn(context, clients[i]);
    }
    if (clients != few) {
        mem_free(clients);
    }
}

void tracked_remove(struct tracked *table, struct bytes key, uint64_t client)
{
    struct tracked_key *entry = find(table, key);

    for (unsigned i = 0; entry != NULL && i < entry->n; i++) {
        if (entry->clients[i] == client) {
            entry->clients[i] = entry->clients[--entry->n];
            break;
        }
    }
    if (entry != NULL && entry->n == 0) {
        free_entry(table, entry);
    }
}

void tracked_void(struct tracked *table)
{
    table->generation++;
}

void tracked_sweep(struct tracked *table, unsigned n_max)
{
    for (unsigned i = 0;
         i < n_max && table->oldest != NULL && table->oldest->generation != table->generation;
         i++) {
        free_entry(table, table->oldest);
    }
}

struct bytes tracked_oldest(const struct tracked *table)
{
    return table->oldest != NULL ? table->oldest->topic.key.name : BYTES("");
}

void tracked_fini(struct tracked *table)
{
    while (table->oldest != NULL) {
        free_entry(table, table->oldest);
    }
    for (unsigned i = 0; i < TRACKED_PARTS; i++) {
        topic_table_fini(&table->parts[i]);
    }
}
