#include "proxy/census.h"

#include "base/mem.h"
#include "upstream/identity.h"

#include <pthread.h>

struct citizen {
    struct topic topic;
    unsigned n_sessions, n_nodes;
    epochs_node *nodes; /* where a hub's subscription is active */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct topic_table names, patterns; /* lock */
static unsigned n_total;                   /* lock: sessions of all topics */

static struct topic_table *table_of(enum topic_kind kind)
{
    return kind == TOPIC_PATTERN ? &patterns : &names;
}

static struct citizen *citizen_locked(const struct topic_key *key)
{
    struct topic_table *table = table_of(key->kind);
    struct topic *found = topic_find(table, key);
    struct citizen *citizen;

    if (found != NULL) {
        return CONTAINER_OF(found, struct citizen, topic);
    }
    citizen = mem_alloc(sizeof(*citizen));
    topic_add(table, &citizen->topic, key);
    return citizen;
}

static void forget_if_empty_locked(struct citizen *citizen)
{
    if (citizen->n_sessions == 0 && citizen->n_nodes == 0) {
        topic_remove(table_of(citizen->topic.key.kind), &citizen->topic);
        mem_free(citizen->nodes);
        mem_free(citizen);
    }
}

void census_count(const struct topic_key *key, int change)
{
    struct citizen *citizen;

    pthread_mutex_lock(&lock);
    citizen = citizen_locked(key);
    citizen->n_sessions += (unsigned)change;
    n_total += (unsigned)change;
    forget_if_empty_locked(citizen);
    pthread_mutex_unlock(&lock);
}

void census_set_active(const struct topic_key *key, epochs_node node, bool is_active)
{
    struct citizen *citizen;
    unsigned i = 0;

    pthread_mutex_lock(&lock);
    citizen = citizen_locked(key);
    while (i < citizen->n_nodes && citizen->nodes[i] != node) {
        i++;
    }
    if (is_active && i == citizen->n_nodes) {
        citizen->nodes = mem_realloc(citizen->nodes, (i + 1) * sizeof(epochs_node));
        citizen->nodes[citizen->n_nodes++] = node;
    } else if (!is_active && i < citizen->n_nodes) {
        citizen->nodes[i] = citizen->nodes[--citizen->n_nodes];
    }
    forget_if_empty_locked(citizen);
    pthread_mutex_unlock(&lock);
}

static bool is_at(const struct citizen *citizen, epochs_node node)
{
    for (unsigned i = 0; i < citizen->n_nodes; i++) {
        if (citizen->nodes[i] == node) {
            return true;
        }
    }
    return false;
}

/* Calls fn for what a message of this channel reaches. */
typedef void (*citizen_fn)(const struct citizen *citizen, epochs_node node, unsigned *n);

static unsigned sum(enum topic_kind kind, struct bytes channel, bool with_patterns,
                    epochs_node node, citizen_fn fn)
{
    const unsigned n_users = identity_count();
    unsigned n = 0;

    pthread_mutex_lock(&lock);
    for (unsigned user = 0; user <= n_users; user++) {
        const struct topic_key key = {kind, user, channel};
        struct topic *found = topic_find(table_of(kind), &key);

        if (found != NULL) {
            fn(CONTAINER_OF(found, struct citizen, topic), node, &n);
        }
    }
    for (struct topic *at = with_patterns ? topic_next(&patterns, NULL) : NULL; at != NULL;
         at = topic_next(&patterns, at)) {
        if (bytes_match_glob(at->key.name, channel)) {
            fn(CONTAINER_OF(at, struct citizen, topic), node, &n);
        }
    }
    pthread_mutex_unlock(&lock);
    return n;
}

static void add_sessions(const struct citizen *citizen, epochs_node node, unsigned *n)
{
    (void)node;
    *n += citizen->n_sessions;
}

static void add_own(const struct citizen *citizen, epochs_node node, unsigned *n)
{
    *n += is_at(citizen, node);
}

unsigned census_receivers(enum topic_kind kind, struct bytes channel)
{
    return sum(kind, channel, kind == TOPIC_CHANNEL, 0, add_sessions);
}

unsigned census_own(enum topic_kind kind, struct bytes channel, epochs_node node,
                    bool with_patterns)
{
    return sum(kind, channel, with_patterns && kind == TOPIC_CHANNEL, node, add_own);
}

unsigned census_sessions(enum topic_kind kind, struct bytes name)
{
    return sum(kind, name, false, 0, add_sessions);
}

unsigned census_total(void)
{
    unsigned n;

    pthread_mutex_lock(&lock);
    n = n_total;
    pthread_mutex_unlock(&lock);
    return n;
}
