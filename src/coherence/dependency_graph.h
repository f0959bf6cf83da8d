/*
 * dependency_graph.h - which names are derived from which: a graph in memory, as pure data
 *
 * Purpose:    what CACHE DEPEND said, for the question "what is derived from this source", asked at
 *             every write, and the other way round for who looks at it. Names stand in order, so
 *             that the sources that match a pattern are found without looking at all of them.
 * Ownership:  copies the names it is given. What the walks hand out is valid for the call.
 * Threading:  none of its own; the caller's lock. Walks do not change it.
 * Errors:     DEPENDENCY_FULL: as many relations as the caller allows, or no memory. Nothing has
 *             changed then.
 */
#ifndef NC_COHERENCE_DEPENDENCY_GRAPH_H
#define NC_COHERENCE_DEPENDENCY_GRAPH_H

#include "base/bytes.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Longest name in it. */
#define DEPENDENCY_NAME_MAX ((size_t)1024)
#define DEPENDENCY_GROUPS 64u

struct dependency_graph; /* opaque */

struct dependency_graph *dependency_graph_new(void);
/* Accepts a pointer to NULL. */
void dependency_graph_free(struct dependency_graph **graph);

enum dependency_added { DEPENDENCY_ADDED, DEPENDENCY_KNOWN, DEPENDENCY_FULL };

/* group: what it is loaded with, below DEPENDENCY_GROUPS. max: relations there may be. */
enum dependency_added dependency_graph_add(struct dependency_graph *graph, struct bytes derived,
                                           struct bytes source, unsigned group, size_t max);
bool dependency_graph_remove(struct dependency_graph *graph, struct bytes derived,
                             struct bytes source);
/* From whatever it was derived; returns how many relations went. */
size_t dependency_graph_remove_derived(struct dependency_graph *graph, struct bytes derived);

/*
 * To take over a group as a whole: begin, add each of it (those that are known stay), end: what was
 * not added since goes. Returns how many went.
 */
void dependency_graph_begin_load(struct dependency_graph *graph, unsigned group);
size_t dependency_graph_end_load(struct dependency_graph *graph, unsigned group);

bool dependency_graph_has(const struct dependency_graph *graph, struct bytes derived,
                          struct bytes source);
bool dependency_graph_is_source(const struct dependency_graph *graph, struct bytes name);
size_t dependency_graph_count(const struct dependency_graph *graph);
size_t dependency_graph_count_sources(const struct dependency_graph *graph);
/* Memory of names and relations. */
size_t dependency_graph_bytes(const struct dependency_graph *graph);

/* False: enough. */
typedef bool (*dependency_fn)(void *context, struct bytes name);

void dependency_graph_each_derived(const struct dependency_graph *graph, struct bytes source,
                                   dependency_fn fn, void *context);
void dependency_graph_each_source(const struct dependency_graph *graph, struct bytes derived,
                                  dependency_fn fn, void *context);
/* The sources that match a glob pattern. */
void dependency_graph_each_source_like(const struct dependency_graph *graph, struct bytes glob,
                                       dependency_fn fn, void *context);
/* The sources in order, from the first behind `after` on (empty: from the beginning). */
void dependency_graph_each_source_after(const struct dependency_graph *graph, struct bytes after,
                                        dependency_fn fn, void *context);

#endif
