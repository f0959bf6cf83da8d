/*
 * test_address.c - proves of address.h: which addresses are accepted, what they become, and that a
 * refused one changes nothing
 */
#include "config/address.h"

#include "config_testing.h"

static void addresses_are_taken_apart(void **state)
{
    static const struct {
        const char *text, *host;
        unsigned port;
    } good[] = {
        {"127.0.0.1:6380", "127.0.0.1", 6380},       {"*:1", "0.0.0.0", 1},
        {"localhost:65535", "127.0.0.1", 65535},     {"[::1]:6380", "::1", 6380},
        {"[::ffff:1.2.3.4]:2", "::ffff:1.2.3.4", 2}, {"[::]:2", "::", 2},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct config_address address;

        assert_true(config_address_parse(&address, good[i].text));
        assert_false(address.is_unix);
        assert_string_equal(address.host, good[i].host);
        assert_int_equal(address.port, good[i].port);
        assert_string_equal(address.path, "");
    }
}

static void paths_fit_a_socket_address(void **state)
{
    struct config_address address;
    char text[5 + 108 + 1] = "unix:";

    (void)state;
    memset(text + 5, 'p', 107);
    text[5 + 107] = '\0';
    assert_true(config_address_parse(&address, text));
    assert_true(address.is_unix);
    assert_string_equal(address.path, text + 5);
    assert_string_equal(address.host, "");
    text[5 + 107] = 'p';
    text[5 + 108] = '\0';
    assert_false(config_address_parse(&address, text));
}

static void anything_else_is_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "127.0.0.1",
        "127.0.0.1:",
        ":6380",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "::1:80",
        "[::1]",
        "[::1]80",
        "[1.2.3.4]:1",
        "[]:1",
        "1.2.3:1",
        "unix:",
        "127.0.0.1:+80",
        "host.name:1",
        "1.2.3.4:08",
        "1.2.3.4:8 ",
        "[::1%lo]:1",
        "**:1",
        "1.2.3.4.5.6:80",
        "[1111:2222:3333:4444:5555:6666:7777:8888:9999:0000:1111]:1",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct config_address address = {.port = 7};

        if (config_address_parse(&address, bad[i])) {
            fail_msg("accepted: %s", bad[i]);
        }
        assert_int_equal(address.port, 7);
    }
}

static void addresses_are_equal_by_what_they_mean(void **state)
{
    struct config_address a, b;

    (void)state;
    assert_true(config_address_parse(&a, "localhost:1") && config_address_parse(&b, "127.0.0.1:1"));
    assert_true(config_address_equal(&a, &b));
    assert_true(config_address_parse(&b, "127.0.0.1:2"));
    assert_false(config_address_equal(&a, &b));
    assert_true(config_address_parse(&a, "unix:/a") && config_address_parse(&b, "unix:/b"));
    assert_false(config_address_equal(&a, &b));
}

static void an_announced_host_may_be_a_name(void **state)
{
    static const struct {
        const char *text, *host;
        unsigned port;
    } good[] = {
        {"10.0.0.1:6380", "10.0.0.1", 6380},
        {"cache-1.example_x:1", "cache-1.example_x", 1},
        {"[2001:db8::1]:65535", "2001:db8::1", 65535},
        {"localhost:2", "localhost", 2},
    };
    static const char *const bad[] = {"",      "host",   "host:",     "host:0", ":1",
                                      "a b:1", "::1:80", "[::1]",     "[x]:1",  "unix:/x",
                                      "*:1",   "[]:1",   "host:65536"};
    struct config_announce announce = {.port = 77};

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_true(config_announce_parse(&announce, good[i].text));
        assert_string_equal(announce.host, good[i].host);
        assert_int_equal(announce.port, good[i].port);
    }
    announce.port = 77;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(config_announce_parse(&announce, bad[i]));
        assert_int_equal(announce.port, 77);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_taken_apart),
        cmocka_unit_test(paths_fit_a_socket_address),
        cmocka_unit_test(anything_else_is_refused),
        cmocka_unit_test(addresses_are_equal_by_what_they_mean),
        cmocka_unit_test(an_announced_host_may_be_a_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
