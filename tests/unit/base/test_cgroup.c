/*
 * test_cgroup.c - proves of cgroup.h: both versions, "max", the smallest limit of the group and
 * those above it, containers that see only their own group, what is held without file pages, PSI
 */
#include "base/cgroup.h"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define MB ((size_t)1 << 20)

static char root[64];

/* Makes the directories above it, too. */
static void put(const char *path, const char *text)
{
    char whole[512];
    FILE *file;

    (void)snprintf(whole, sizeof(whole), "%s%s", root, path);
    for (char *at = strchr(whole + 1, '/'); at != NULL; at = strchr(at + 1, '/')) {
        *at = '\0';
        (void)mkdir(whole, 0700);
        *at = '/';
    }
    file = fopen(whole, "w");
    assert_non_null(file);
    (void)fputs(text, file);
    (void)fclose(file);
}

static int begin(void **state)
{
    (void)state;
    (void)strcpy(root, "/tmp/test_cgroup.XXXXXX");
    return mkdtemp(root) != NULL ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *stat, int type, struct FTW *ftw)
{
    (void)stat, (void)type, (void)ftw;
    return remove(path);
}

static int end(void **state)
{
    (void)state;
    return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void limits(void **state)
{
    (void)state;
    assert_true(cgroup_parse_limit("max\n") == CGROUP_NO_LIMIT);
    assert_true(cgroup_parse_limit("") == CGROUP_NO_LIMIT);
    assert_true(cgroup_parse_limit("9223372036854771712\n") == CGROUP_NO_LIMIT);
    assert_true(cgroup_parse_limit("18446744073709551615\n") == CGROUP_NO_LIMIT);
    assert_true(cgroup_parse_limit("0\n") == 0);
    assert_true(cgroup_parse_limit("268435456\n") == 256 * MB);
}

static void statistics(void **state)
{
    static const char text[] = "anon 5\nfile 6\ninactive_file 77\nfile_mapped 8\n";

    (void)state;
    assert_int_equal(cgroup_parse_stat(text, "anon"), 5);
    assert_int_equal(cgroup_parse_stat(text, "file"), 6);
    assert_int_equal(cgroup_parse_stat(text, "inactive_file"), 77);
    assert_int_equal(cgroup_parse_stat(text, "active_file"), 0);
    assert_int_equal(cgroup_parse_stat("", "anon"), 0);
}

static void pressure_lines(void **state)
{
    uint64_t total = 0;

    (void)state;
    assert_true(cgroup_parse_pressure("some avg10=0.00 avg60=1.50 avg300=0.00 total=123456\n"
                                      "full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
                                      &total));
    assert_int_equal(total, 123456);
    assert_false(cgroup_parse_pressure("", &total));
    assert_false(cgroup_parse_pressure("full avg10=0.00 total=7\n", &total));
    assert_false(cgroup_parse_pressure("some avg10=0.00\nfull total=7\n", &total));
}

static void memberships(void **state)
{
    static const char text[] = "12:cpu,cpuacct:/a\n4:memory:/b/c\n1:name=systemd:/d\n0::/e\n";
    char path[64];

    (void)state;
    assert_true(cgroup_parse_membership(text, "memory", path, sizeof(path)));
    assert_string_equal(path, "/b/c");
    assert_true(cgroup_parse_membership(text, "cpuacct", path, sizeof(path)));
    assert_string_equal(path, "/a");
    assert_true(cgroup_parse_membership(text, "", path, sizeof(path)));
    assert_string_equal(path, "/e");
    assert_false(cgroup_parse_membership(text, "mem", path, sizeof(path)));
    assert_false(cgroup_parse_membership("no colons\n0:", "memory", path, sizeof(path)));
}

static void version_two_takes_the_smallest_of_those_above(void **state)
{
    struct cgroup group;
    uint64_t total = 0;

    (void)state;
    put("/proc/self/cgroup", "0::/pod/box\n");
    put("/proc/self/mountinfo",
        "20 1 0:5 / /proc rw - proc proc rw\n"
        "30 1 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n");
    put("/sys/fs/cgroup/memory.stat", "anon 1\n");
    put("/sys/fs/cgroup/pod/memory.max", "100000000\n");
    put("/sys/fs/cgroup/pod/memory.current", "90000000\n");
    put("/sys/fs/cgroup/pod/memory.stat", "anon 5\ninactive_file 20000000\nactive_file 10000000\n");
    put("/sys/fs/cgroup/pod/box/memory.max", "max\n");
    put("/sys/fs/cgroup/pod/box/memory.current", "40000000\n");
    put("/sys/fs/cgroup/pod/box/memory.pressure",
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=42\n");
    put("/proc/pressure/memory", "some avg10=0.00 avg60=0.00 avg300=0.00 total=43\n");
    cgroup_find(&group, root);
    assert_true(group.has_memory && group.is_v2);
    assert_int_equal(cgroup_limit(&group), 100000000);
    assert_int_equal(cgroup_used(&group), 60000000); /* of the one that limits */
    assert_true(cgroup_stalled(&group, root, &total));
    assert_int_equal(total, 42);

    put("/sys/fs/cgroup/pod/box/memory.max", "50000000\n");
    assert_int_equal(cgroup_limit(&group), 50000000);
    assert_int_equal(cgroup_used(&group), 40000000);
    put("/sys/fs/cgroup/pod/box/memory.high", "45000000\n");
    assert_int_equal(cgroup_limit(&group), 45000000);
    put("/sys/fs/cgroup/pod/box/memory.high", "max\n");
    put("/sys/fs/cgroup/pod/box/memory.max", "max\n");
    put("/sys/fs/cgroup/pod/memory.max", "max\n");
    assert_true(cgroup_limit(&group) == CGROUP_NO_LIMIT);
    assert_int_equal(cgroup_used(&group), 0);
}

static void version_one(void **state)
{
    struct cgroup group;
    uint64_t total = 0;

    (void)state;
    put("/proc/self/cgroup", "5:memory:/docker/abc\n2:cpu:/\n0::/\n");
    put("/proc/self/mountinfo",
        "35 31 0:32 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
        "36 31 0:33 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
        "37 31 0:34 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("/sys/fs/cgroup/memory/docker/memory.limit_in_bytes", "300000000\n");
    put("/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "200000000\n");
    put("/sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes", "150000000\n");
    put("/sys/fs/cgroup/memory/docker/abc/memory.stat",
        "inactive_file 1\ntotal_inactive_file 30000000\ntotal_active_file 20000000\n");
    put("/proc/pressure/memory", "some avg10=0.00 avg60=0.00 avg300=0.00 total=43\n");
    cgroup_find(&group, root);
    assert_true(group.has_memory && !group.is_v2);
    assert_int_equal(cgroup_limit(&group), 200000000);
    assert_int_equal(cgroup_used(&group), 100000000);
    assert_true(cgroup_stalled(&group, root, &total));
    assert_int_equal(total, 43);
}

/* Docker of version 1: the mount shows the container's own group only. */
static void a_container_that_sees_its_own_group(void **state)
{
    struct cgroup group;

    (void)state;
    put("/proc/self/cgroup", "5:memory:/docker/abc\n");
    put("/proc/self/mountinfo",
        "36 31 0:33 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "200000000\n");
    cgroup_find(&group, root);
    assert_int_equal(cgroup_limit(&group), 200000000);

    /* A path that is not below what is shown, and one that is not there. */
    put("/proc/self/cgroup", "5:memory:/../xyz\n");
    cgroup_find(&group, root);
    assert_int_equal(cgroup_limit(&group), 200000000);
}

static void nothing_to_be_seen(void **state)
{
    struct cgroup group;
    uint64_t total;

    (void)state;
    cgroup_find(&group, root);
    assert_false(group.has_memory);
    assert_true(cgroup_limit(&group) == CGROUP_NO_LIMIT);
    assert_int_equal(cgroup_used(&group), 0);
    assert_false(cgroup_stalled(&group, root, &total));
    put("/proc/self/cgroup", "0::/\n");
    put("/proc/self/mountinfo", "20 1 0:5 / /proc rw - proc proc rw\nshort line\n");
    cgroup_find(&group, root);
    assert_false(group.has_memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limits),
        cmocka_unit_test(statistics),
        cmocka_unit_test(pressure_lines),
        cmocka_unit_test(memberships),
        cmocka_unit_test_setup_teardown(version_two_takes_the_smallest_of_those_above, begin, end),
        cmocka_unit_test_setup_teardown(version_one, begin, end),
        cmocka_unit_test_setup_teardown(a_container_that_sees_its_own_group, begin, end),
        cmocka_unit_test_setup_teardown(nothing_to_be_seen, begin, end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
