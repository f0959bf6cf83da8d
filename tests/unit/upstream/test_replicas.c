/*
 * test_replicas.c - proves of replicas.h: until when a replica has everything, from the offsets of
 * its master; another history, replicas that are not online and nonsense prove nothing
 */
#include "upstream/replicas.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void take(struct replicas *replicas, int64_t at_us, const char *id, int offset,
                 const char *lines)
{
    char text[2048];

    snprintf(text, sizeof(text),
             "# Replication\r\nrole:master\r\n%smaster_replid:%s\r\nmaster_repl_offset:%d\r\n",
             lines, id, offset);
    replicas_take(replicas, bytes_of_string(text), at_us, NULL);
}

static const char *slave(unsigned number, unsigned port, const char *state, int offset)
{
    static char lines[2][160];

    snprintf(lines[number % 2], sizeof(lines[0]),
             "slave%u:ip=10.0.0.7,port=%u,state=%s,offset=%d,lag=0\r\n", number, port, state,
             offset);
    return lines[number % 2];
}

static void an_offset_proves_what_was_before_it(void **state)
{
    struct replicas *replicas = mem_alloc(sizeof(*replicas));

    (void)state;
    take(replicas, 1000, "a", 100, slave(0, 6379, "online", 90));
    assert_int_equal(replicas->n, 1);
    assert_string_equal(replicas->list[0].host, "10.0.0.7");
    assert_int_equal(replicas->list[0].port, 6379);
    assert_int_equal(replicas->list[0].caught_up_us, 0); /* behind all that is known */
    take(replicas, 2000, "a", 200, slave(0, 6379, "online", 150));
    assert_int_equal(replicas->list[0].caught_up_us, 1000);
    take(replicas, 3000, "a", 200, slave(0, 6379, "online", 200));
    assert_int_equal(replicas->list[0].caught_up_us, 3000);
    take(replicas, 4000, "a", 300, slave(0, 6379, "online", 299));
    assert_int_equal(replicas->list[0].caught_up_us, 3000);
    mem_free(replicas);
}

static void another_history_proves_nothing(void **state)
{
    struct replicas *replicas = mem_alloc(sizeof(*replicas));

    (void)state;
    take(replicas, 1000, "a", 100, slave(0, 6379, "online", 100));
    assert_int_equal(replicas->list[0].caught_up_us, 1000);
    take(replicas, 2000, "b", 500, slave(0, 6379, "online", 400));
    assert_int_equal(replicas->list[0].caught_up_us, 0);
    mem_free(replicas);
}

static void only_those_online_count_in_the_order_of_addresses(void **state)
{
    struct replicas *replicas = mem_alloc(sizeof(*replicas));
    char lines[640];

    (void)state;
    snprintf(lines, sizeof(lines), "%s%s", slave(0, 7001, "online", 1),
             slave(1, 7000, "online", 1));
    take(replicas, 1000, "a", 1, lines);
    assert_int_equal(replicas->n, 2);
    assert_int_equal(replicas->list[0].port, 7000);
    assert_int_equal(replicas->list[1].port, 7001);
    snprintf(lines, sizeof(lines), "%s%s", slave(0, 7001, "wait_bgsave", 1),
             slave(1, 7000, "online", 1));
    take(replicas, 2000, "a", 1, lines);
    assert_int_equal(replicas->n, 1);
    assert_int_equal(replicas->list[0].port, 7000);
    mem_free(replicas);
}

static void nonsense_is_no_replica(void **state)
{
    static const char *const nonsense[] = {
        "slave0:\r\n",
        "slave0:ip=,port=1,state=online,offset=1\r\n",
        "slave0:ip=h,port=0,state=online,offset=1\r\n",
        "slave0:ip=h,port=99999,state=online,offset=1\r\n",
        "slave0:ip=h,port=1,state=online,offset=x\r\n",
        "slave0:ip=h,port=1,state=online\r\n",
    };
    struct replicas *replicas = mem_alloc(sizeof(*replicas));

    (void)state;
    for (unsigned i = 0; i < sizeof(nonsense) / sizeof(nonsense[0]); i++) {
        take(replicas, 1000, "a", 1, nonsense[i]);
        assert_int_equal(replicas->n, 0);
    }
    replicas_take(replicas, BYTES("role:master\r\n"), 1000, NULL);
    assert_int_equal(replicas->n + replicas->n_samples, 0);
    mem_free(replicas);
}

static void samples_reach_back_only_so_far(void **state)
{
    struct replicas *replicas = mem_alloc(sizeof(*replicas));

    (void)state;
    for (int i = 1; i <= 3 * REPLICAS_SAMPLES; i++) {
        take(replicas, i * 1000, "a", i * 10, slave(0, 6379, "online", i * 10 - 25));
        assert_int_equal(replicas->list[0].caught_up_us, i > 3 ? (i - 3) * 1000 : 0);
    }
    take(replicas, 900000, "a", 9000, slave(0, 6379, "online", 10));
    assert_int_equal(replicas->list[0].caught_up_us, 0);
    mem_free(replicas);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_offset_proves_what_was_before_it),
        cmocka_unit_test(another_history_proves_nothing),
        cmocka_unit_test(only_those_online_count_in_the_order_of_addresses),
        cmocka_unit_test(nonsense_is_no_replica),
        cmocka_unit_test(samples_reach_back_only_so_far),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
