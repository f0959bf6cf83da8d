/* Proves of address_map.h: what is a mapping and what is not, and which one is applied. */
#include "config/address_map.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void mappings_are_taken_apart(void **state)
{
    struct config_mapping mapping;

    (void)state;
    assert_true(config_mapping_parse(&mapping, "10.0.0.1:6379=proxy.example:7001"));
    assert_string_equal(mapping.from, "10.0.0.1");
    assert_int_equal(mapping.from_port, 6379);
    assert_string_equal(mapping.to, "proxy.example");
    assert_int_equal(mapping.to_port, 7001);
    assert_true(config_mapping_parse(&mapping, "[fe80::1]:1=[::1]:65535"));
    assert_string_equal(mapping.from, "fe80::1");
    assert_string_equal(mapping.to, "::1");
    assert_true(config_mapping_parse(&mapping, "a=b"));
    assert_int_equal(mapping.from_port, 0);
}

static void what_is_no_mapping_changes_nothing(void **state)
{
    static const char *const bad[] = {"",        "a",      "a=",       "=b",
                                      "a:1=b",   "a=b:1",  "a:0=b:1",  "a:1=b:65536",
                                      "a:x=b:1", "[::1=b", "[]:1=b:1", "a:1=b:1:2"};

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct config_mapping mapping = {.from_port = 77};

        assert_false(config_mapping_parse(&mapping, bad[i]));
        assert_int_equal(mapping.from_port, 77);
    }
}

static void a_port_of_its_own_comes_before_the_host(void **state)
{
    struct config_address_map map = {.n = 3};
    struct bytes host = BYTES("a");
    unsigned port = 1;

    (void)state;
    assert_true(config_mapping_parse(&map.of[0], "a=any"));
    assert_true(config_mapping_parse(&map.of[1], "a:2=b:3"));
    assert_true(config_mapping_parse(&map.of[2], "a=never"));
    assert_true(config_address_map(&map, &host, &port));
    assert_true(bytes_equal(host, BYTES("any")));
    assert_int_equal(port, 1);
    host = BYTES("a");
    port = 2;
    assert_true(config_address_map(&map, &host, &port));
    assert_true(bytes_equal(host, BYTES("b")));
    assert_int_equal(port, 3);
    host = BYTES("c");
    assert_false(config_address_map(&map, &host, &port));
    assert_true(bytes_equal(host, BYTES("c")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mappings_are_taken_apart),
        cmocka_unit_test(what_is_no_mapping_changes_nothing),
        cmocka_unit_test(a_port_of_its_own_comes_before_the_host),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
