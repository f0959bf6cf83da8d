/*
 * trace.h - a recorded trace through the policy's own header, every object of size 1
 *
 * Purpose:    the miss ratio that published figures can be compared with: no shards, no bytes.
 * Ownership:  trace_read() fills in storage that trace_free() frees.
 * Threading:  one thread.
 * Errors:     false where the file or xz(1) is missing.
 */
#ifndef NC_TESTS_TRACE_H
#define NC_TESTS_TRACE_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cache/policy.h"

struct trace {
    uint32_t *ids; /* dense: 0 to n_ids - 1 */
    size_t n_requests;
    uint32_t n_ids;
};

static inline uint64_t trace_hash(uint64_t id)
{
    uint64_t x = (id + 1) * UINT64_C(0x9e3779b97f4a7c15);

    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* Replaces the keys by dense numbers, with an open table of twice their number. */
static inline void trace_number(struct trace *trace)
{
    const size_t size = (size_t)1 << 20;
    uint32_t *keys = calloc(size, sizeof(*keys));
    uint32_t *numbers = calloc(size, sizeof(*numbers)); /* number + 1 */

    for (size_t i = 0; i < trace->n_requests; i++) {
        size_t at = trace_hash(trace->ids[i]) % size;
        while (numbers[at] != 0 && keys[at] != trace->ids[i]) {
            at = (at + 1) % size;
        }
        if (numbers[at] == 0) {
            keys[at] = trace->ids[i];
            numbers[at] = ++trace->n_ids;
        }
        trace->ids[i] = numbers[at] - 1;
    }
    free(keys);
    free(numbers);
}

static inline bool trace_read(const char *path, struct trace *trace)
{
    char command[512];
    unsigned char raw[4];
    size_t room = 0;

    *trace = (struct trace){0};
    if (access(path, R_OK) != 0 || access("/usr/bin/xz", X_OK) != 0) {
        return false;
    }
    snprintf(command, sizeof(command), "xz -dc %s", path);
    FILE *file = popen(command, "r");
    while (file != NULL && fread(raw, sizeof(raw), 1, file) == 1) {
        if (trace->n_requests == room) {
            room = room == 0 ? 1 << 16 : room * 2;
            trace->ids = realloc(trace->ids, room * sizeof(*trace->ids));
        }
        trace->ids[trace->n_requests++] = (uint32_t)raw[0] << 24 | (uint32_t)raw[1] << 16 |
                                          (uint32_t)raw[2] << 8 | raw[3];
    }
    if (file != NULL) {
        pclose(file);
    }
    if (trace->n_requests > 0) {
        trace_number(trace);
    }
    return trace->n_requests > 0;
}

static inline void trace_free(struct trace *trace)
{
    free(trace->ids);
    *trace = (struct trace){0};
}

/* ---- replay: an entry's body is its object's number ---- */

static inline size_t trace_cost(const struct entry *entry)
{
    (void)entry;
    return 1;
}

static inline uint64_t trace_entry_hash(const struct entry *entry)
{
    return trace_hash(entry->body);
}

static inline bool trace_is_dead(const void *context, const struct entry *entry)
{
    (void)context, (void)entry;
    return false;
}

static inline void trace_serve_ghost(struct policy *policy, uint64_t capacity)
{
    const size_t wanted = policy_wanted_ghost(policy, capacity);

    if (wanted > 0) {
        policy_install_ghost(policy, arena_alloc_table(wanted), wanted, capacity);
    }
    arena_free(policy_retire_ghost(policy));
}

/* The miss ratio of the whole trace from a cold start; capacity in objects. */
static inline double trace_replay(const struct trace *trace, uint64_t capacity)
{
    static const struct policy_ops ops = {trace_cost, trace_entry_hash, trace_is_dead};
    struct entry **entries = calloc(trace->n_ids, sizeof(*entries));
    struct policy policy;
    size_t n_misses = 0;
    unsigned n_touched = 0;

    policy_init(&policy, &ops);
    for (size_t i = 0; i < trace->n_requests; i++) {
        const uint32_t id = trace->ids[i];

        if (entries[id] != NULL) {
            policy_hit(entries[id]);
            continue;
        }
        n_misses++;
        while (policy_bytes(&policy) + 1 > capacity) {
            struct entry *victim = policy_evict(&policy, capacity, NULL, &n_touched);
            entries[victim->body] = NULL;
            arena_free(victim);
        }
        struct entry *entry = arena_alloc(sizeof(*entry));
        *entry = (struct entry){.body = id};
        entries[id] = entry;
        policy_insert(&policy, entry, trace_hash(id), 1);
        trace_serve_ghost(&policy, capacity);
    }
    for (uint32_t i = 0; i < trace->n_ids; i++) {
        arena_free(entries[i]);
    }
    arena_free(policy.ghost.now.slots);
    arena_free(policy.ghost.old.slots);
    free(entries);
    return (double)n_misses / (double)trace->n_requests;
}

#endif
