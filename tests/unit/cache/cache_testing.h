/*
 * cache_testing.h - what the tests of the cache share: a cache with a link, fills, and the auditor
 *
 * Purpose:    say in one line what a test does to the cache; recount everything from scratch.
 * Ownership:  rig_init() and rig_fini() bracket a test.
 * Threading:  rig_audit() while no other thread uses the cache.
 */
#ifndef NC_TESTS_CACHE_TESTING_H
#define NC_TESTS_CACHE_TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/clock.h"
#include "cache/shard.h"

#define MIB ((size_t)1 << 20)
#define MS INT64_C(1000)
#define SECOND INT64_C(1000000)
#define RIG_NODE 1

struct rig {
    struct cache *cache;
    struct epochs *epochs;
    uint16_t link;  /* of worker 0 to node 1 */
    int64_t now_us; /* starts at the clock; a test moves it */
    unsigned char copy[CACHE_COPY_MAX];
    struct cache_hit hit;
    enum cache_miss miss;
    size_t allocated; /* of the arena before: other caches' */
};

void rig_init(struct rig *rig, size_t maxmemory, unsigned n_shards);
/* No block of the arena may be left: LeakSanitizer does not know of those. */
void rig_fini(struct rig *rig);

/* command 0 and args NULL: GET. */
struct cache_query rig_query(const struct rig *rig, const char *key, unsigned command,
                             const char *args);
struct cache_offer rig_offer(const struct rig *rig);

/* Begins a flight for the query, which must be possible. */
struct cache_flight *rig_begin(struct rig *rig, const struct cache_query *query,
                               struct cache_waiter *waiter);
enum cache_completion rig_complete(struct rig *rig, struct cache_flight *flight,
                                   const struct cache_fill *fill);
/* Begins and completes: reply is stored for the view, ends at deadline_us. */
enum cache_completion rig_fill_view(struct rig *rig, const struct cache_query *query,
                                    struct bytes reply, int64_t deadline_us, bool is_negative);
/* GET key with a bulk string as value, without deadline. */
enum cache_completion rig_fill(struct rig *rig, const char *key, const char *value);
/* The same with a value of n bytes. */
enum cache_completion rig_fill_n(struct rig *rig, const char *key, size_t n, int64_t deadline_us);

bool rig_get_view(struct rig *rig, const struct cache_query *query);
bool rig_get(struct rig *rig, const char *key);
/* Drops what a hit has pinned. */
void rig_unpin(struct rig *rig);

/* A bulk string of n bytes, to be freed. */
struct bytes make_bulk(size_t n);

/* Recounts entries, bytes, views, queues and namespaces, and compares with every sum kept. */
void rig_audit(struct rig *rig);
/* What mallocx() has handed out from the arena and not taken back. */
size_t arena_allocated(void);
void assert_reply(const struct rig *rig, const char *expected);

#endif
