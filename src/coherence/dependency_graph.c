/*
 * Design: one skip list of names, each with the relations in which it is the source and those in
 * which it is derived. A hash table would find a name sooner, but not what matches `profile:5:*`.
 * A name without relations goes.
 *
 * Skip lists: W. Pugh, "Skip Lists: A Probabilistic Alternative to Balanced Trees" (1990).
 */
#include "coherence/dependency_graph.h"

#include "base/check.h"
#include "base/mem.h"
#include "config/namespaces.h"

#include <string.h>

/* One in four names of a level is on the next one: enough for 16 million. */
#define LEVELS 12

struct name;

struct relation {
    struct name *source, *derived;
    struct relation *next_out, *prev_out; /* of its source */
    struct relation *next_in, *prev_in;   /* of what is derived */
    struct relation *next, *prev;         /* of its group */
    unsigned group;
    uint32_t load;
};

struct name {
    struct bytes text;
    struct relation *out; /* it is the source */
    struct relation *in;  /* it is derived */
    unsigned n_levels;
    struct name *next[];
};

struct dependency_graph {
    struct name *first[LEVELS];
    struct {
        struct relation *first; /* newest first */
        uint32_t load;
    } groups[DEPENDENCY_GROUPS];
    size_t n_relations, n_sources, n_bytes;
    uint32_t random;
};

/* ---- names ---- */

static int compare(struct bytes a, struct bytes b)
{
    const size_t n = a.len < b.len ? a.len : b.len;
    const int order = n > 0 ? memcmp(a.ptr, b.ptr, n) : 0;

    return order != 0 ? order : (a.len > b.len) - (a.len < b.len);
}

/* The first one that is not before text; before[]: what points to it, level by level. */
static struct name *seek(const struct dependency_graph *graph, struct bytes text,
                         struct name **before[LEVELS])
{
    /* Who only looks has no use for before[]. */
    struct name **links = ((struct dependency_graph *)(uintptr_t)graph)->first;

    for (unsigned level = LEVELS; level-- > 0;) {
        while (links[level] != NULL && compare(links[level]->text, text) < 0) {
            links = links[level]->next;
        }
        if (before != NULL) {
            before[level] = &links[level];
        }
    }
    return links[0];
}

static struct name *find(const struct dependency_graph *graph, struct bytes text)
{
    struct name *name = seek(graph, text, NULL);

    return name != NULL && compare(name->text, text) == 0 ? name : NULL;
}

static unsigned choose_levels(struct dependency_graph *graph)
{
    unsigned n = 1;

    graph->random ^= graph->random << 13;
    graph->random ^= graph->random >> 17;
    graph->random ^= graph->random << 5;
    for (uint32_t bits = graph->random; n < LEVELS && (bits & 3) == 0; bits >>= 2) {
        n++;
    }
    return n;
}

static size_t size_of(const struct name *name)
{
    return sizeof(*name) + name->n_levels * sizeof(struct name *) + name->text.len;
}

/* NULL: no memory. */
static struct name *find_or_make(struct dependency_graph *graph, struct bytes text)
{
    struct name **before[LEVELS];
    struct name *name = seek(graph, text, before);
    unsigned char *room;
    unsigned n_levels;

    if (name != NULL && compare(name->text, text) == 0) {
        return name;
    }
    n_levels = choose_levels(graph);
    name = mem_try_alloc(sizeof(*name) + n_levels * sizeof(struct name *) + text.len);
    if (name == NULL) {
        return NULL;
    }
    memset(name, 0, sizeof(*name));
    room = (unsigned char *)&name->next[n_levels];
    if (text.len > 0) {
        memcpy(room, text.ptr, text.len);
    }
    name->text = bytes_make(room, text.len);
    name->n_levels = n_levels;
    for (unsigned level = 0; level < n_levels; level++) {
        name->next[level] = *before[level];
        *before[level] = name;
    }
    graph->n_bytes += size_of(name);
    return name;
}

static void drop_if_unused(struct dependency_graph *graph, struct name *name)
{
    struct name **before[LEVELS];

    if (name == NULL || name->in != NULL || name->out != NULL) {
        return;
    }
    CHECK(seek(graph, name->text, before) == name);
    for (unsigned level = 0; level < name->n_levels; level++) {
        *before[level] = name->next[level];
    }
    graph->n_bytes -= size_of(name);
    mem_free(name);
}

/* ---- relations ---- */

static void link_relation(struct dependency_graph *graph, struct relation *relation)
{
    struct name *source = relation->source, *derived = relation->derived;

    graph->n_sources += source->out == NULL;
    relation->next_out = source->out;
    relation->next_in = derived->in;
    relation->next = graph->groups[relation->group].first;
    if (relation->next_out != NULL) {
        relation->next_out->prev_out = relation;
    }
    if (relation->next_in != NULL) {
        relation->next_in->prev_in = relation;
    }
    if (relation->next != NULL) {
        relation->next->prev = relation;
    }
    source->out = derived->in = graph->groups[relation->group].first = relation;
    graph->n_relations++;
    graph->n_bytes += sizeof(*relation);
}

static void unlink_relation(struct dependency_graph *graph, struct relation *relation)
{
    *(relation->prev_out != NULL ? &relation->prev_out->next_out
                                 : &relation->source->out) = relation->next_out;
    if (relation->next_out != NULL) {
        relation->next_out->prev_out = relation->prev_out;
    }
    *(relation->prev_in != NULL ? &relation->prev_in->next_in
                                : &relation->derived->in) = relation->next_in;
    if (relation->next_in != NULL) {
        relation->next_in->prev_in = relation->prev_in;
    }
    *(relation->prev != NULL ? &relation->prev->next
                             : &graph->groups[relation->group].first) = relation->next;
    if (relation->next != NULL) {
        relation->next->prev = relation->prev;
    }
    graph->n_sources -= relation->source->out == NULL;
    graph->n_relations--;
    graph->n_bytes -= sizeof(*relation);
}

static void drop_relation(struct dependency_graph *graph, struct relation *relation)
{
    struct name *source = relation->source;
    struct name *derived = relation->derived != source ? relation->derived : NULL;

    unlink_relation(graph, relation);
    mem_free(relation);
    drop_if_unused(graph, source);
    drop_if_unused(graph, derived);
}

static struct relation *find_relation(const struct dependency_graph *graph, struct bytes derived,
                                      struct bytes source)
{
    const struct name *to = find(graph, derived), *from = find(graph, source);
    struct relation *in = to != NULL ? to->in : NULL;
    struct relation *out = from != NULL ? from->out : NULL;

    /* It stands in both lists: the shorter one decides. Either may be very long, hardly both. */
    while (in != NULL && out != NULL && in->source != from && out->derived != to) {
        in = in->next_in;
        out = out->next_out;
    }
    if (in == NULL || out == NULL) {
        return NULL;
    }
    return in->source == from ? in : out;
}

enum dependency_added dependency_graph_add(struct dependency_graph *graph, struct bytes derived,
                                           struct bytes source, unsigned group, size_t max)
{
    struct relation *relation = find_relation(graph, derived, source);
    struct name *from, *to;

    if (relation != NULL) {
        relation->load = graph->groups[relation->group].load;
        return DEPENDENCY_KNOWN;
    }
    if (graph->n_relations >= max || derived.len > DEPENDENCY_NAME_MAX ||
        source.len > DEPENDENCY_NAME_MAX) {
        return DEPENDENCY_FULL;
    }
    relation = mem_try_alloc(sizeof(*relation));
    from = relation != NULL ? find_or_make(graph, source) : NULL;
    to = from != NULL ? find_or_make(graph, derived) : NULL;
    if (to == NULL) {
        drop_if_unused(graph, from);
        mem_free(relation);
        return DEPENDENCY_FULL;
    }
    memset(relation, 0, sizeof(*relation));
    relation->source = from;
    relation->derived = to;
    relation->group = group;
    relation->load = graph->groups[group].load;
    link_relation(graph, relation);
    return DEPENDENCY_ADDED;
}

bool dependency_graph_remove(struct dependency_graph *graph, struct bytes derived,
                             struct bytes source)
{
    struct relation *relation = find_relation(graph, derived, source);

    if (relation != NULL) {
        drop_relation(graph, relation);
    }
    return relation != NULL;
}

size_t dependency_graph_remove_derived(struct dependency_graph *graph, struct bytes derived)
{
    const struct name *name = find(graph, derived);
    struct relation *relation = name != NULL ? name->in : NULL;
    size_t n = 0;

    while (relation != NULL) {
        struct relation *const next = relation->next_in;

        drop_relation(graph, relation);
        relation = next;
        n++;
    }
    return n;
}

void dependency_graph_begin_load(struct dependency_graph *graph, unsigned group)
{
    graph->groups[group].load++;
}

size_t dependency_graph_end_load(struct dependency_graph *graph, unsigned group)
{
    struct relation *relation = graph->groups[group].first;
    size_t n = 0;

    while (relation != NULL) {
        struct relation *const next = relation->next;

        if (relation->load != graph->groups[group].load) {
            drop_relation(graph, relation);
            n++;
        }
        relation = next;
    }
    return n;
}

/* ---- walks ---- */

bool dependency_graph_has(const struct dependency_graph *graph, struct bytes derived,
                          struct bytes source)
{
    return find_relation(graph, derived, source) != NULL;
}

bool dependency_graph_is_source(const struct dependency_graph *graph, struct bytes name)
{
    const struct name *found = find(graph, name);

    return found != NULL && found->out != NULL;
}

size_t dependency_graph_count(const struct dependency_graph *graph)
{
    return graph->n_relations;
}

size_t dependency_graph_count_sources(const struct dependency_graph *graph)
{
    return graph->n_sources;
}

size_t dependency_graph_bytes(const struct dependency_graph *graph)
{
    return graph->n_bytes;
}

void dependency_graph_each_derived(const struct dependency_graph *graph, struct bytes source,
                                   dependency_fn fn, void *context)
{
    const struct name *name = find(graph, source);
    const struct relation *relation = name != NULL ? name->out : NULL;

    while (relation != NULL && fn(context, relation->derived->text)) {
        relation = relation->next_out;
    }
}

void dependency_graph_each_source(const struct dependency_graph *graph, struct bytes derived,
                                  dependency_fn fn, void *context)
{
    const struct name *name = find(graph, derived);
    const struct relation *relation = name != NULL ? name->in : NULL;

    while (relation != NULL && fn(context, relation->source->text)) {
        relation = relation->next_in;
    }
}

void dependency_graph_each_source_like(const struct dependency_graph *graph, struct bytes glob,
                                       dependency_fn fn, void *context)
{
    char pattern[DEPENDENCY_NAME_MAX + 1];
    unsigned char room[DEPENDENCY_NAME_MAX + 1];
    struct bytes literal = {0};
    const struct name *name;
    bool goes_on = true;

    if (glob.len <= DEPENDENCY_NAME_MAX && memchr(glob.ptr, '\0', glob.len) == NULL) {
        memcpy(pattern, glob.ptr, glob.len);
        pattern[glob.len] = '\0';
        literal = bytes_make(room, namespace_literal(pattern, room));
    }
    name = seek(graph, literal, NULL);
    while (goes_on && name != NULL && bytes_start_with(name->text, literal)) {
        if (name->out != NULL && bytes_match_glob(glob, name->text)) {
            goes_on = fn(context, name->text);
        }
        name = name->next[0];
    }
}

void dependency_graph_each_source_after(const struct dependency_graph *graph, struct bytes after,
                                        dependency_fn fn, void *context)
{
    const struct name *name = seek(graph, after, NULL);
    bool goes_on = true;

    if (name != NULL && after.len > 0 && compare(name->text, after) == 0) {
        name = name->next[0];
    }
    while (goes_on && name != NULL) {
        if (name->out != NULL) {
            goes_on = fn(context, name->text);
        }
        name = name->next[0];
    }
}

/* ---- life ---- */

struct dependency_graph *dependency_graph_new(void)
{
    struct dependency_graph *graph = mem_alloc(sizeof(*graph));

    graph->random = UINT32_C(2463534242);
    return graph;
}

void dependency_graph_free(struct dependency_graph **graph)
{
    if (*graph == NULL) {
        return;
    }
    for (unsigned group = 0; group < DEPENDENCY_GROUPS; group++) {
        while ((*graph)->groups[group].first != NULL) {
            drop_relation(*graph, (*graph)->groups[group].first);
        }
    }
    mem_free(*graph);
    *graph = NULL;
}
