/*
 * test_gate.c - proves of gate.h: places and rate per address, places kept from leased connections,
 * addresses that nobody uses are forgotten
 */
#include "upstream/gate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#define NOW INT64_C(7000000000)

static void places(void **state)
{
    struct gate *gate = gate_get("a:1");
    struct gate *same = gate_get("a:1");
    struct gate *other = gate_get("a:2");

    (void)state;
    gate_configure(4, 1000);
    assert_ptr_equal(gate, same);
    assert_ptr_not_equal(gate, other);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(gate_enter(gate, true, NOW));
    }
    assert_false(gate_enter(gate, true, NOW));
    assert_true(gate_enter(gate, false, NOW));
    assert_false(gate_enter(gate, false, NOW));
    assert_true(gate_enter(other, true, NOW));
    assert_int_equal(gate_count_inside(), 5);
    gate_leave(gate);
    assert_true(gate_enter(gate, false, NOW));
    for (unsigned i = 0; i < 4; i++) {
        gate_leave(gate);
    }
    gate_leave(other);
    assert_int_equal(gate_count_inside(), 0);
    gate_put(&gate);
    gate_put(&same);
    gate_put(&other);
    assert_null(gate);
    gate_put(&gate);
}

static void one_place_serves_everybody(void **state)
{
    struct gate *gate = gate_get("b:1");

    (void)state;
    gate_configure(1, 1000);
    assert_true(gate_enter(gate, true, NOW));
    assert_false(gate_enter(gate, false, NOW));
    gate_leave(gate);
    gate_put(&gate);
}

static void rate(void **state)
{
    struct gate *gate = gate_get("c:1");
    unsigned n = 0;

    (void)state;
    gate_configure(100, 20);
    for (unsigned i = 0; i < 100; i++) {
        if (gate_enter(gate, false, NOW)) {
            n++;
            gate_leave(gate);
        }
    }
    assert_int_equal(n, 20);
    assert_false(gate_enter(gate, false, NOW + 49999));
    assert_true(gate_enter(gate, false, NOW + 50000));
    gate_leave(gate);
    gate_put(&gate);
}

static void what_nobody_uses_is_forgotten(void **state)
{
    struct gate *kept = gate_get("kept:1");
    struct gate *again;

    (void)state;
    for (unsigned i = 0; i < 1000; i++) {
        char address[32];
        struct gate *gate;

        (void)snprintf(address, sizeof(address), "d:%u", i);
        gate = gate_get(address);
        gate_put(&gate);
    }
    assert_true(gate_count() <= 256);
    again = gate_get("kept:1");
    assert_ptr_equal(again, kept);
    gate_put(&again);
    gate_put(&kept);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(places),
        cmocka_unit_test(one_place_serves_everybody),
        cmocka_unit_test(rate),
        cmocka_unit_test(what_nobody_uses_is_forgotten),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
