/*
 * Where a process is: /proc/self/cgroup has one line per hierarchy of version 1, "4:memory:/a/b",
 * and one for version 2, "0::/a/b". Where that is to be seen: /proc/self/mountinfo, whose fourth
 * field says which part of the hierarchy the mount shows. In a container that is mostly its own
 * group, and the path may then name what is not visible: the mount itself is the group.
 */
#include "base/cgroup.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Version 1 rounds LONG_MAX down to pages for "none". */
#define UNLIMITED_FROM ((uint64_t)1 << 60)
#define TEXT_MAX 8192

/* ---- formats ---- */

size_t cgroup_parse_limit(const char *text)
{
    char *end;
    unsigned long long value;

    if (text[0] < '0' || text[0] > '9') {
        return CGROUP_NO_LIMIT;
    }
    value = strtoull(text, &end, 10);
    return value >= UNLIMITED_FROM ? CGROUP_NO_LIMIT : (size_t)value;
}

uint64_t cgroup_parse_stat(const char *text, const char *name)
{
    const size_t len = strlen(name);

    for (const char *line = text; line != NULL && *line != '\0';) {
        if (strncmp(line, name, len) == 0 && line[len] == ' ') {
            return strtoull(line + len + 1, NULL, 10);
        }
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
    return 0;
}

bool cgroup_parse_pressure(const char *text, uint64_t *total_us)
{
    const char *end = strchr(text, '\n');
    const char *total = strstr(text, "total=");

    if (strncmp(text, "some ", 5) != 0 || total == NULL || (end != NULL && total > end)) {
        return false;
    }
    *total_us = strtoull(total + strlen("total="), NULL, 10);
    return true;
}

/* A word of a list apart by commas. */
static bool has_word(const char *list, size_t list_len, const char *word)
{
    const size_t len = strlen(word);

    for (size_t at = 0; at + len <= list_len; at++) {
        if (memcmp(list + at, word, len) == 0 && (at == 0 || list[at - 1] == ',') &&
            (at + len == list_len || list[at + len] == ',')) {
            return true;
        }
    }
    return false;
}

bool cgroup_parse_membership(const char *text, const char *controller, char *path, size_t size)
{
    for (const char *line = text; line != NULL && *line != '\0';) {
        const char *const end = line + strcspn(line, "\n");
        const char *const names = memchr(line, ':', (size_t)(end - line));
        const char *const at = names != NULL ? memchr(names + 1, ':', (size_t)(end - names - 1))
                                             : NULL;

        if (at != NULL) {
            const size_t names_len = (size_t)(at - names - 1);

            if (controller[0] == '\0' ? names_len == 0
                                      : has_word(names + 1, names_len, controller)) {
                (void)snprintf(path, size, "%.*s", (int)(end - at - 1), at + 1);
                return true;
            }
        }
        line = *end == '\n' ? end + 1 : NULL;
    }
    return false;
}

/* ---- files ---- */

/* False: not there. What is longer than the room is cut. */
static bool read_text(const char *path, char *text, size_t size)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t len = 0;
    ssize_t n = 1;

    if (fd < 0) {
        return false;
    }
    while (n > 0 && len + 1 < size) {
        n = read(fd, text + len, size - 1 - len);
        len += n > 0 ? (size_t)n : 0;
    }
    close(fd);
    text[len] = '\0';
    return n >= 0;
}

static bool read_in(const char *dir, const char *name, char *text, size_t size)
{
    char path[PATH_MAX + 64];

    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    return read_text(path, text, size);
}

static bool is_there(const char *dir, const char *name)
{
    char path[PATH_MAX + 64];

    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    return access(path, R_OK) == 0;
}

/* ---- finding ---- */

/* A mount of one hierarchy. */
struct hierarchy {
    char shown[PATH_MAX / 2]; /* which part of it the mount shows */
    char mount[PATH_MAX / 2];
};

/* One line of mountinfo: "36 35 0:33 /shown /mount rw,... - type source options". */
static bool take_mount(const char *line, const char *type, const char *option,
                       struct hierarchy *found)
{
    const char *const dash = strstr(line, " - ");
    char line_type[32], options[512];

    if (dash == NULL || sscanf(dash, " - %31s %*s %511s", line_type, options) != 2 ||
        strcmp(line_type, type) != 0 ||
        (option != NULL && !has_word(options, strlen(options), option))) {
        return false;
    }
    return sscanf(line, "%*s %*s %*s %2047s %2047s", found->shown, found->mount) == 2;
}

static bool find_mount(const char *root, const char *type, const char *option,
                       struct hierarchy *found)
{
    char path[PATH_MAX], line[TEXT_MAX];
    bool is_found = false;
    FILE *file;

    (void)snprintf(path, sizeof(path), "%s/proc/self/mountinfo", root);
    file = fopen(path, "re");
    if (file == NULL) {
        return false;
    }
    while (!is_found && fgets(line, sizeof(line), file) != NULL) {
        is_found = take_mount(line, type, option, found);
    }
    (void)fclose(file);
    return is_found;
}

/* The group's directory under the mount: the path without what the mount does not show. */
static bool set_dir(struct cgroup *group, const char *root, const struct hierarchy *found,
                    const char *path, const char *probe)
{
    const size_t shown_len = strcmp(found->shown, "/") == 0 ? 0 : strlen(found->shown);
    const bool is_within = strncmp(path, found->shown, shown_len) == 0;
    const char *const rest = is_within ? path + shown_len : "";

    (void)snprintf(group->mount, sizeof(group->mount), "%s%s", root, found->mount);
    if (snprintf(group->dir, sizeof(group->dir), "%s%s", group->mount,
                 strcmp(rest, "/") == 0 ? "" : rest) >= (int)sizeof(group->dir) ||
        !is_there(group->dir, probe)) {
        (void)snprintf(group->dir, sizeof(group->dir), "%s", group->mount);
    }
    return is_there(group->dir, probe);
}

void cgroup_find(struct cgroup *group, const char *root)
{
    char path[PATH_MAX], text[TEXT_MAX];
    struct hierarchy found;

    *group = (struct cgroup){0};
    (void)snprintf(path, sizeof(path), "%s/proc/self/cgroup", root);
    if (!read_text(path, text, sizeof(text))) {
        return;
    }
    if (cgroup_parse_membership(text, "memory", path, sizeof(path)) &&
        find_mount(root, "cgroup", "memory", &found)) {
        group->has_memory = set_dir(group, root, &found, path, "memory.limit_in_bytes");
    } else if (cgroup_parse_membership(text, "", path, sizeof(path)) &&
               find_mount(root, "cgroup2", NULL, &found)) {
        group->is_v2 = true;
        group->has_memory = set_dir(group, root, &found, path, "memory.current");
    }
}

/* ---- reading ---- */

/* Above memory.high tasks are slowed down until they stand still: a limit, too. */
static size_t limit_of(const char *dir, bool is_v2)
{
    static const char *const names[2][2] = {{"memory.limit_in_bytes", NULL},
                                            {"memory.max", "memory.high"}};
    size_t least = CGROUP_NO_LIMIT;
    char text[64];

    for (unsigned i = 0; i < 2 && names[is_v2][i] != NULL; i++) {
        const size_t limit = read_in(dir, names[is_v2][i], text, sizeof(text))
                                 ? cgroup_parse_limit(text)
                                 : CGROUP_NO_LIMIT;

        least = limit < least ? limit : least;
    }
    return least;
}

size_t cgroup_limit(struct cgroup *group)
{
    const size_t mount_len = strlen(group->mount);
    size_t least = CGROUP_NO_LIMIT;
    char dir[PATH_MAX];

    group->tight[0] = '\0';
    if (!group->has_memory) {
        return CGROUP_NO_LIMIT;
    }
    memcpy(dir, group->dir, sizeof(dir));
    for (;;) {
        char *const slash = strrchr(dir, '/');
        const size_t limit = limit_of(dir, group->is_v2);

        if (limit < least) {
            least = limit;
            memcpy(group->tight, dir, sizeof(dir));
        }
        if (strlen(dir) <= mount_len || slash == NULL) {
            return least;
        }
        *slash = '\0';
    }
}

size_t cgroup_used(const struct cgroup *group)
{
    char text[TEXT_MAX];
    size_t used, files;

    if (group->tight[0] == '\0' ||
        !read_in(group->tight, group->is_v2 ? "memory.current" : "memory.usage_in_bytes", text,
                 sizeof(text))) {
        return 0;
    }
    used = (size_t)strtoull(text, NULL, 10);
    if (!read_in(group->tight, "memory.stat", text, sizeof(text))) {
        return used;
    }
    files = group->is_v2
                ? cgroup_parse_stat(text, "inactive_file") + cgroup_parse_stat(text, "active_file")
                : cgroup_parse_stat(text, "total_inactive_file") +
                      cgroup_parse_stat(text, "total_active_file");
    return used > files ? used - files : 0;
}

bool cgroup_stalled(const struct cgroup *group, const char *root, uint64_t *total_us)
{
    char path[PATH_MAX], text[512];

    if (group->has_memory && group->is_v2 &&
        read_in(group->dir, "memory.pressure", text, sizeof(text))) {
        return cgroup_parse_pressure(text, total_us);
    }
    (void)snprintf(path, sizeof(path), "%s/proc/pressure/memory", root);
    return read_text(path, text, sizeof(text)) && cgroup_parse_pressure(text, total_us);
}
