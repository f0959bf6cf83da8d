/*
 * cgroup.h - the control group of this process: how much memory it may have, and how much it has
 *
 * Purpose:    a container is killed at the limit of its cgroup or of one above it. Version 2
 *             (memory.max, memory.high, memory.current, memory.stat, memory.pressure) and version 1
 *             (memory.limit_in_bytes and its kind) are read; of several limits the smallest counts.
 * Ownership:  the caller's struct; nothing is kept open.
 * Threading:  one thread at a time.
 * Errors:     what is not there, or cannot be read, reads as "no limit" and "nothing used".
 * Units:      bytes, microseconds.
 */
#ifndef NC_BASE_CGROUP_H
#define NC_BASE_CGROUP_H

#include "base/check.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CGROUP_NO_LIMIT SIZE_MAX

struct cgroup {
    bool has_memory, is_v2;
    char mount[PATH_MAX]; /* where the hierarchy is mounted */
    char dir[PATH_MAX];   /* this process's own group within it; begins with mount */
    char tight[PATH_MAX]; /* the group whose limit is the smallest; empty: none has one */
};

/* Finds the group that accounts for this process's memory. root: "" but in tests, where it stands
 * before /proc and before the mounts that it names. */
void cgroup_find(struct cgroup *group, const char *root);
/* The smallest limit of the group and those above it; notes in `tight` whose it is. */
size_t cgroup_limit(struct cgroup *group);
/* What the tightest group holds and the kernel cannot take back by itself: without file pages. */
size_t cgroup_used(const struct cgroup *group);
/* Time that some task of the group, or else of the machine, has waited for memory. False: not
 * told. */
bool cgroup_stalled(const struct cgroup *group, const char *root, uint64_t *total_us);

/* ---- the formats, for tests ---- */

/* "max", or a number; version 1 spells "none" as one near 2^63. */
size_t cgroup_parse_limit(const char *text);
/* The value behind a name, as in memory.stat; 0 when it is not there. */
uint64_t cgroup_parse_stat(const char *text, const char *name);
/* total= of the line "some". False: it is not there. */
bool cgroup_parse_pressure(const char *text, uint64_t *total_us);
/* The path of a controller in /proc/self/cgroup; "" for version 2's line. False: it is not there.
 */
bool cgroup_parse_membership(const char *text, const char *controller, char *path, size_t size);

#endif
