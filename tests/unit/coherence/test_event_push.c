/* test_event_push.c - proves of event_push.h: the pushes it knows, and that it passes over others
 */
#include "coherence/event_push.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void messages_are_taken_apart(void **state)
{
    struct event_push push;

    (void)state;
    assert_true(event_push_read(BYTES("*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n"), &push));
    assert_int_equal(push.kind, EVENT_PUSH_MESSAGE);
    assert_true(bytes_equal(push.channel, BYTES("c")) && bytes_equal(push.payload, BYTES("hi")));
    assert_true(
        event_push_read(BYTES(">4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1\r\nd\r\n$0\r\n\r\n"), &push));
    assert_true(bytes_equal(push.channel, BYTES("d")) && push.payload.len == 0);
    assert_true(event_push_read(BYTES(">3\r\n$8\r\nsmessage\r\n$1\r\ns\r\n$1\r\nx\r\n"), &push));
    assert_true(bytes_equal(push.channel, BYTES("s")));
}

static void begin_and_end_of_subscribing(void **state)
{
    struct event_push push;

    (void)state;
    assert_true(event_push_read(BYTES("*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"), &push));
    assert_int_equal(push.kind, EVENT_PUSH_BEGUN);
    assert_true(event_push_read(BYTES(">3\r\n$12\r\nsunsubscribe\r\n$1\r\nc\r\n:0\r\n"), &push));
    assert_int_equal(push.kind, EVENT_PUSH_MOVED);
}

static void others_are_passed_over(void **state)
{
    static const char *const frames[] = {"+PONG\r\n",
                                         "*0\r\n",
                                         "*2\r\n$4\r\npong\r\n$0\r\n\r\n",
                                         "*2\r\n$7\r\nmessage\r\n$1\r\nc\r\n",
                                         "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$-1\r\n",
                                         "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n:1\r\n",
                                         ">2\r\n$10\r\ninvalidate\r\n_\r\n",
                                         "*3\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1\r\nd\r\n"};
    struct event_push push;

    (void)state;
    for (size_t i = 0; i < sizeof(frames) / sizeof(frames[0]); i++) {
        if (event_push_read(bytes_of_string(frames[i]), &push)) {
            fail_msg("taken: %s", frames[i]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_are_taken_apart),
        cmocka_unit_test(begin_and_end_of_subscribing),
        cmocka_unit_test(others_are_passed_over),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
