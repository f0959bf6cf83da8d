/*
 * test_merge.c - proves of merge.h: what the masters' replies become, in RESP2 and RESP3, and that
 * replies that are not what they should be fail instead of being read past their end
 */
#include "proxy/merge.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define PARTS_MAX 3

/* A group whose parts have answered. */
struct rig {
    struct front front;
    struct request owner, parts[PARTS_MAX];
    struct request *list[PARTS_MAX];
    struct group group;
    struct buffer out;
    struct resp_writer writer;
};

static void begin(struct rig *rig, bool is_resp3, const char *const *replies)
{
    memset(rig, 0, sizeof(*rig));
    rig->owner.front = &rig->front;
    rig->group.owner = &rig->owner;
    rig->group.parts = rig->list;
    for (unsigned i = 0; i < PARTS_MAX && replies[i] != NULL; i++) {
        outq_init(&rig->parts[i].reply);
        assert_int_equal(outq_append(&rig->parts[i].reply, bytes_of_string(replies[i])), 0);
        rig->list[i] = &rig->parts[i];
        rig->group.n_parts++;
    }
    buffer_init(&rig->out);
    rig->writer = (struct resp_writer){.out = &rig->out, .is_resp3 = is_resp3};
}

static void end(struct rig *rig)
{
    for (unsigned i = 0; i < rig->group.n_parts; i++) {
        outq_fini(&rig->parts[i].reply);
    }
    buffer_fini(&rig->out);
}

static void assert_merges(enum command_merge merge, uint64_t limit, bool is_resp3,
                          const char *expected, const char *const *replies)
{
    struct rig *rig = mem_alloc(sizeof(*rig));
    struct bytes got;

    begin(rig, is_resp3, replies);
    rig->group.number = limit;
    merge_of(merge)(&rig->group, &rig->writer);
    if (expected == NULL) {
        assert_true(rig->writer.has_failed);
    } else {
        assert_false(rig->writer.has_failed);
        got = buffer_bytes(&rig->out);
        if (!bytes_equal(got, bytes_of_string(expected))) {
            fail_msg("expected %s\ngot %.*s", expected, (int)got.len, (const char *)got.ptr);
        }
    }
    end(rig);
    mem_free(rig);
}

#define MERGES(merge, limit, is_resp3, expected, ...)                                              \
    assert_merges(merge, limit, is_resp3, expected, (const char *const[PARTS_MAX + 1]){__VA_ARGS__})

static void one_success_is_enough_for_a_kill(void **state)
{
    (void)state;
    MERGES(MERGE_ANY_OK, 0, false, "+OK\r\n", "-NOTBUSY no\r\n", "+OK\r\n", "-NOTBUSY no\r\n");
    MERGES(MERGE_ANY_OK, 0, false, "-UNKILLABLE x\r\n", "-NOTBUSY no\r\n", "-UNKILLABLE x\r\n");
    MERGES(MERGE_ANY_OK, 0, false, "-NOTBUSY a\r\n", "-NOTBUSY a\r\n", "-NOTBUSY b\r\n");
}

static void a_key_of_one_master_is_no_error_of_the_others(void **state)
{
    (void)state;
    MERGES(MERGE_DEBUG, 0, false, "+Value\r\n", "-ERR no such key\r\n", "+Value\r\n");
    MERGES(MERGE_DEBUG, 0, false, "-ERR no such key\r\n", "-ERR no such key\r\n",
           "-ERR no such key\r\n");
    MERGES(MERGE_DEBUG, 0, false, "-ERR disk\r\n", "+OK\r\n", "-ERR disk\r\n");
}

static void the_oldest_save_counts(void **state)
{
    (void)state;
    MERGES(MERGE_MIN, 0, false, ":7\r\n", ":9\r\n", ":7\r\n", ":8\r\n");
    MERGES(MERGE_MIN, 0, false, "-ERR x\r\n", ":9\r\n", "-ERR x\r\n");
    MERGES(MERGE_MIN, 0, false, NULL, ":9\r\n", "+what\r\n");
}

static void texts_that_agree_are_said_once(void **state)
{
    (void)state;
    MERGES(MERGE_TEXT, 0, false, "$2\r\nhi\r\n", "$2\r\nhi\r\n", "$2\r\nhi\r\n");
    MERGES(MERGE_TEXT, 0, false, "$14\r\n# ?\na\n\n# ?\nbcd\r\n", "$2\r\na\n\r\n",
           "-ERR No samples\r\n", "$3\r\nbcd\r\n");
    MERGES(MERGE_TEXT, 0, true, "=16\r\ntxt:# ?\na\n# ?\nbc\r\n", "=5\r\ntxt:a\r\n",
           "=6\r\ntxt:bc\r\n");
    MERGES(MERGE_TEXT, 0, false, "$2\r\nhi\r\n", "-ERR No samples\r\n", "$2\r\nhi\r\n");
    MERGES(MERGE_TEXT, 0, false, "-ERR a\r\n", "-ERR a\r\n", "-ERR b\r\n");
}

#define SLOW(id, time) "*3\r\n:" id "\r\n:" time "\r\n:5\r\n"

static void the_newest_slow_commands_come_first_and_no_more_than_asked_for(void **state)
{
    const char *const one = "*2\r\n" SLOW("1", "50") SLOW("0", "10");
    const char *const other = "*2\r\n" SLOW("9", "50") SLOW("8", "30");

    (void)state;
    MERGES(MERGE_SLOWLOG, 10, false,
           "*4\r\n" SLOW("1", "50") SLOW("9", "50") SLOW("8", "30") SLOW("0", "10"), one, other);
    MERGES(MERGE_SLOWLOG, 3, true, "*3\r\n" SLOW("1", "50") SLOW("9", "50") SLOW("8", "30"), one,
           other);
    MERGES(MERGE_SLOWLOG, 0, false, "*0\r\n", one, other);
    MERGES(MERGE_SLOWLOG, UINT64_MAX, false, "*0\r\n", "*0\r\n", "*0\r\n");
    MERGES(MERGE_SLOWLOG, 10, false, "-ERR x\r\n", one, "-ERR x\r\n");
    MERGES(MERGE_SLOWLOG, 10, false, NULL, one, "*1\r\n+odd\r\n");
    MERGES(MERGE_SLOWLOG, 10, false, NULL, one, "*2\r\n" SLOW("1", "2"));
}

static void how_many_entries_were_asked_for(void **state)
{
    const struct bytes all[] = {BYTES("SLOWLOG"), BYTES("GET"), BYTES("-1")};
    const struct bytes some[] = {BYTES("SLOWLOG"), BYTES("GET"), BYTES("3")};
    const struct bytes odd[] = {BYTES("ACL"), BYTES("LOG"), BYTES("RESET")};

    (void)state;
    assert_true(merge_limit(all, 3) == UINT64_MAX);
    assert_true(merge_limit(all, 2) == 10);
    assert_true(merge_limit(some, 3) == 3);
    assert_true(merge_limit(odd, 3) == 10);
}

static void the_youngest_denials_come_first(void **state)
{
    (void)state;
    MERGES(MERGE_ACL_LOG, 10, true,
           "*2\r\n%1\r\n$11\r\nage-seconds\r\n,1.5\r\n%1\r\n$11\r\nage-seconds\r\n,20\r\n",
           "*1\r\n%1\r\n$11\r\nage-seconds\r\n,20\r\n",
           "*1\r\n%1\r\n$11\r\nage-seconds\r\n,1.5\r\n");
    MERGES(MERGE_ACL_LOG, 10, false,
           "*1\r\n*4\r\n$1\r\na\r\n*1\r\n:1\r\n$11\r\nage-seconds\r\n$1\r\n2\r\n",
           "*1\r\n*4\r\n$1\r\na\r\n*1\r\n:1\r\n$11\r\nage-seconds\r\n$1\r\n2\r\n", "*0\r\n");
    MERGES(MERGE_ACL_LOG, 10, false, "+OK\r\n", "+OK\r\n", "+OK\r\n");
    MERGES(MERGE_ACL_LOG, 10, false, NULL, "*1\r\n*2\r\n$1\r\na\r\n:1\r\n", "*0\r\n");
}

#define EVENT(name, time, latest, most)                                                            \
    "*4\r\n$1\r\n" name "\r\n:" time "\r\n:" latest "\r\n:" most "\r\n"

static void an_event_is_reported_once(void **state)
{
    (void)state;
    MERGES(MERGE_LATEST, 0, false, "*2\r\n" EVENT("a", "9", "3", "80") EVENT("b", "2", "2", "2"),
           "*2\r\n" EVENT("a", "5", "40", "80") EVENT("b", "2", "2", "2"),
           "*1\r\n" EVENT("a", "9", "3", "50"));
    MERGES(MERGE_LATEST, 0, true, "*0\r\n", "*0\r\n", "*0\r\n");
    MERGES(MERGE_HISTORY, 0, false, "*2\r\n*2\r\n:1\r\n:5\r\n*2\r\n:2\r\n:4\r\n",
           "*1\r\n*2\r\n:2\r\n:4\r\n", "*1\r\n*2\r\n:1\r\n:5\r\n");
}

static void numbers_are_added_and_ratios_averaged(void **state)
{
    (void)state;
    MERGES(MERGE_STATS, 0, true,
           "%3\r\n$1\r\na\r\n:5\r\n$4\r\ndb.0\r\n%1\r\n$1\r\nm\r\n:7\r\n$1\r\nr\r\n,1.5\r\n",
           "%2\r\n$1\r\na\r\n:2\r\n$1\r\nr\r\n,1\r\n",
           "%3\r\n$1\r\na\r\n:3\r\n$4\r\ndb.0\r\n%1\r\n$1\r\nm\r\n:7\r\n$1\r\nr\r\n,2\r\n");
    MERGES(MERGE_STATS, 0, false,
           "*4\r\n$18\r\nkeys.bytes-per-key\r\n:4\r\n$1\r\nr\r\n$4\r\n0.75\r\n",
           "*4\r\n$18\r\nkeys.bytes-per-key\r\n:2\r\n$1\r\nr\r\n$3\r\n0.5\r\n",
           "*4\r\n$18\r\nkeys.bytes-per-key\r\n:6\r\n$1\r\nr\r\n$1\r\n1\r\n");
}

#define HISTOGRAM(buckets) "%1\r\n$3\r\nset\r\n%1\r\n$14\r\nhistogram_usec\r\n" buckets

static void histograms_are_cumulative(void **state)
{
    (void)state;
    /* 2 up to 1 us and 5 up to 4; 1 up to 2 us and 9 up to 8. */
    MERGES(
        MERGE_STATS, 0, true, HISTOGRAM("%4\r\n:1\r\n:2\r\n:2\r\n:3\r\n:4\r\n:6\r\n:8\r\n:14\r\n"),
        HISTOGRAM("%2\r\n:1\r\n:2\r\n:4\r\n:5\r\n"), HISTOGRAM("%2\r\n:2\r\n:1\r\n:8\r\n:9\r\n"));
    MERGES(MERGE_STATS, 0, true, HISTOGRAM("%1\r\n:4\r\n:3\r\n"), HISTOGRAM("%1\r\n:4\r\n:1\r\n"),
           HISTOGRAM("%1\r\n:4\r\n:2\r\n"));
    MERGES(MERGE_STATS, 0, true, "%0\r\n", "%0\r\n", "%0\r\n");
}

static void maps_lie_in_each_other_only_so_deep(void **state)
{
    char deep[400] = "";

    (void)state;
    for (unsigned i = 0; i < 20; i++) {
        strcat(deep, "%1\r\n$1\r\na\r\n");
    }
    strcat(deep, ":1\r\n");
    MERGES(MERGE_STATS, 0, true, NULL, deep, deep);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_success_is_enough_for_a_kill),
        cmocka_unit_test(a_key_of_one_master_is_no_error_of_the_others),
        cmocka_unit_test(the_oldest_save_counts),
        cmocka_unit_test(texts_that_agree_are_said_once),
        cmocka_unit_test(the_newest_slow_commands_come_first_and_no_more_than_asked_for),
        cmocka_unit_test(how_many_entries_were_asked_for),
        cmocka_unit_test(the_youngest_denials_come_first),
        cmocka_unit_test(an_event_is_reported_once),
        cmocka_unit_test(numbers_are_added_and_ratios_averaged),
        cmocka_unit_test(histograms_are_cumulative),
        cmocka_unit_test(maps_lie_in_each_other_only_so_deep),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
