#include "resp/own.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void the_last_letter_is_small(void **state)
{
    unsigned char room[OWN_NAME_MAX];
    const struct bytes name = own_spell(room, BYTES("HELLO"));

    (void)state;
    assert_true(bytes_equal(name, BYTES("HELLo")));
    assert_true(own_is_name(name));
    assert_true(own_is_name(own_spell(room, BYTES("GEORADIUSBYMEMBER_RO"))));
}

static void no_client_writes_so(void **state)
{
    static const char *const names[] = {"GET", "get", "Get", "gET", "GEt2",
                                        "G-t", "t",   "T",   "",    "MgeT"};

    (void)state;
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        assert_false(own_is_name(bytes_of_string(names[i])));
    }
}

/* Every request that stands here as a whole frame has such a name. */
static void frames_are_spelled_so(void **state)
{
    static const char *const frames[] = {OWN_ASKING, OWN_CLIENT_INFO, OWN_DISCARD, OWN_EXISTS,
                                         OWN_PING,   OWN_PTTL,        OWN_SELECT,  OWN_TRACKING_ON};

    (void)state;
    for (unsigned i = 0; i < sizeof(frames) / sizeof(frames[0]); i++) {
        const char *name = strchr(strchr(frames[i], '$'), '\n') + 1;

        assert_true(own_is_name(bytes_make(name, strcspn(name, "\r"))));
    }
}

static void lines_of_monitor(void **state)
{
    (void)state;
    assert_true(own_is_monitor_line(BYTES("+1.5 [0 127.0.0.1:7] \"PINg\"\r\n")));
    assert_true(own_is_monitor_line(BYTES("+1.5 [9 [::1]:7] \"PTTl\" \"key\"\r\n")));
    assert_true(own_is_monitor_line(BYTES("+1.5 [0 unix:/tmp/a b] \"SELECt\" \"1\"\r\n")));
    assert_false(own_is_monitor_line(BYTES("+1.5 [0 127.0.0.1:7] \"PING\"\r\n")));
    assert_false(own_is_monitor_line(BYTES("+1.5 [0 lua] \"set\" \"] \\\"PINg\"\r\n")));
    assert_false(own_is_monitor_line(BYTES("+1.5 [0 127.0.0.1:7] \"PINg")));
    assert_false(own_is_monitor_line(BYTES("+OK\r\n")));
    assert_false(own_is_monitor_line(BYTES("")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_letter_is_small),
        cmocka_unit_test(no_client_writes_so),
        cmocka_unit_test(frames_are_spelled_so),
        cmocka_unit_test(lines_of_monitor),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
