/*
 * test_bus_peers.c - proves of bus_peers.h: a missing number is noticed at the next message or
 * heartbeat, a newcomer that has spoken before is told apart, silence is noticed once
 */
#include "coherence/bus_peers.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define ANNA 1
#define BERTA 2

static struct bus_peers *peers;
static int64_t now_us;

static int setup(void **state)
{
    (void)state;
    peers = bus_peers_new(4);
    now_us = 1000;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    bus_peers_free(&peers);
    return 0;
}

static enum bus_order hear(uint64_t origin, unsigned channel, uint64_t seq)
{
    const struct bus_header header = {.origin = origin, .seq = seq, .n_records = 1};

    return bus_peers_note(peers, &header, channel, now_us);
}

static enum bus_order beat(uint64_t origin, unsigned channel, uint64_t seq)
{
    const struct bus_header header = {.origin = origin, .seq = seq, .is_heartbeat = true};

    return bus_peers_note(peers, &header, channel, now_us);
}

static void leave(uint64_t origin, uint64_t seq)
{
    const struct bus_header header = {
        .origin = origin, .seq = seq, .is_heartbeat = true, .is_last = true};

    assert_int_equal(bus_peers_note(peers, &header, 0, now_us), BUS_NEXT);
}

static void numbers_follow_each_other(void **state)
{
    (void)state;
    assert_int_equal(hear(ANNA, 0, 1), BUS_NEXT);
    assert_int_equal(hear(ANNA, 0, 2), BUS_NEXT);
    assert_int_equal(hear(ANNA, 0, 2), BUS_DUPLICATE);
    assert_int_equal(hear(ANNA, 0, 1), BUS_DUPLICATE);
    assert_int_equal(beat(ANNA, 0, 2), BUS_NEXT);
    assert_int_equal(hear(ANNA, 0, 3), BUS_NEXT);
}

static void a_missing_number_is_noticed_once(void **state)
{
    (void)state;
    assert_int_equal(hear(ANNA, 0, 1), BUS_NEXT);
    assert_int_equal(hear(ANNA, 0, 3), BUS_GAP);
    assert_int_equal(hear(ANNA, 0, 4), BUS_NEXT);
    assert_int_equal(hear(ANNA, 0, 2), BUS_DUPLICATE);
}

static void a_lost_tail_is_noticed_by_the_heartbeat(void **state)
{
    (void)state;
    assert_int_equal(beat(ANNA, 0, 0), BUS_NEXT);
    assert_int_equal(beat(ANNA, 0, 1), BUS_GAP);
    assert_int_equal(beat(ANNA, 0, 1), BUS_NEXT);
    assert_int_equal(hear(ANNA, 0, 2), BUS_NEXT);
}

static void who_spoke_before_it_was_heard_is_told_apart(void **state)
{
    (void)state;
    assert_int_equal(hear(ANNA, 0, 5), BUS_FIRST);
    assert_int_equal(hear(ANNA, 0, 6), BUS_NEXT);
    assert_int_equal(beat(BERTA, 0, 1), BUS_FIRST);
    assert_int_equal(beat(BERTA, 1, 0), BUS_NEXT);
}

static void channels_and_origins_are_counted_apart(void **state)
{
    (void)state;
    assert_int_equal(hear(ANNA, 0, 1), BUS_NEXT);
    assert_int_equal(hear(ANNA, 1, 1), BUS_NEXT);
    assert_int_equal(hear(BERTA, 0, 1), BUS_NEXT);
    assert_int_equal(hear(ANNA, 0, 2), BUS_NEXT);
    assert_true(bus_peers_use(peers, 0) && bus_peers_use(peers, 1));
    assert_false(bus_peers_use(peers, 2));
}

static void silence_is_noticed_once_and_leaving_is_none(void **state)
{
    (void)state;
    assert_int_equal(beat(ANNA, 0, 0), BUS_NEXT);
    assert_int_equal(beat(BERTA, 0, 0), BUS_NEXT);
    assert_int_equal(bus_peers_count(peers, now_us), 2);
    assert_int_equal(bus_peers_take_silent(peers, now_us), 0);
    leave(BERTA, 0);
    assert_int_equal(bus_peers_count(peers, now_us), 1);
    assert_int_equal(bus_peers_take_silent(peers, now_us + 1), 1);
    assert_int_equal(bus_peers_take_silent(peers, now_us + 1), 0);
    assert_int_equal(bus_peers_count(peers, now_us + 1), 0);
    now_us += 10;
    assert_int_equal(beat(ANNA, 0, 0), BUS_NEXT);
    assert_int_equal(bus_peers_count(peers, now_us), 1);
}

static void who_is_heard_between_two_looks_only_is_missed(void **state)
{
    (void)state;
    assert_int_equal(bus_peers_take_silent(peers, now_us), 0);
    now_us += 10;
    assert_int_equal(hear(ANNA, 0, 1), BUS_NEXT);
    assert_int_equal(bus_peers_take_silent(peers, now_us + 1), 1);
    assert_int_equal(bus_peers_take_silent(peers, now_us + 1), 0);
    now_us += 10;
    assert_int_equal(hear(ANNA, 0, 2), BUS_NEXT);
    leave(ANNA, 2);
    assert_int_equal(bus_peers_take_silent(peers, now_us + 1), 0);
}

static void of_too_many_the_one_silent_longest_is_forgotten(void **state)
{
    (void)state;
    for (unsigned i = 0; i < BUS_PEERS_MAX; i++) {
        assert_int_equal(hear(100 + i, 0, 1), BUS_NEXT);
    }
    assert_int_equal(hear(100, 0, 2), BUS_NEXT);
    assert_int_equal(hear(ANNA, 0, 1), BUS_NEXT);
    assert_int_equal(bus_peers_count(peers, now_us), BUS_PEERS_MAX);
    assert_int_equal(hear(100, 0, 3), BUS_NEXT);
    assert_int_equal(hear(101, 0, 2), BUS_FIRST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(numbers_follow_each_other, setup, teardown),
        cmocka_unit_test_setup_teardown(a_missing_number_is_noticed_once, setup, teardown),
        cmocka_unit_test_setup_teardown(a_lost_tail_is_noticed_by_the_heartbeat, setup, teardown),
        cmocka_unit_test_setup_teardown(who_spoke_before_it_was_heard_is_told_apart, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(channels_and_origins_are_counted_apart, setup, teardown),
        cmocka_unit_test_setup_teardown(silence_is_noticed_once_and_leaving_is_none, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(who_is_heard_between_two_looks_only_is_missed, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(of_too_many_the_one_silent_longest_is_forgotten, setup,
                                        teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
