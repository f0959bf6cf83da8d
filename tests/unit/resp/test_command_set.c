/*
 * Proves of command.h: commands that the table lacks are learnt from COMMAND replies of Redis 5 to
 * 8, with the class that their flags and keys ask for; malformed replies are refused.
 */
#include "resp/command.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Six elements, as Redis 5 sends them. */
#define OLD(name, arity, flags, first, last, step)                                                 \
    "*6\r\n" name ":" arity "\r\n" flags ":" first "\r\n:" last "\r\n:" step "\r\n"
/* Ten, as Redis 7. */
#define NEW(name, arity, flags, first, last, step, subcommands)                                    \
    "*10\r\n" name ":" arity "\r\n" flags ":" first "\r\n:" last "\r\n:" step                      \
    "\r\n*1\r\n+@x\r\n*0\r\n*0\r\n" subcommands

static const struct command *find(const struct command_set *set, const char *name, const char *sub)
{
    const struct bytes argv[2] = {bytes_of_string(name), bytes_of_string(sub == NULL ? "" : sub)};

    return command_find(argv, sub == NULL ? 1 : 2, set);
}

static void assert_learns(const char *flags, const char *keys, enum command_class class,
                          unsigned expected_flags, enum command_merge merge)
{
    char reply[256];
    struct command_set *set;
    const struct command *command;

    snprintf(reply, sizeof(reply), "*1\r\n*6\r\n$3\r\nfoo\r\n:-2\r\n%s%s", flags, keys);
    set = command_set_from_reply(bytes_of_string(reply));
    assert_non_null(set);
    command = find(set, "FOO", NULL);
    assert_non_null(command);
    assert_string_equal(command->name, "foo");
    assert_int_equal(command->class, class);
    assert_int_equal(command->flags, expected_flags | COMMAND_LEARNT);
    assert_int_equal(command->merge, merge);
    assert_int_equal(command->arity, -2);
    command_set_unref(&set);
    assert_null(set);
}

#define NO_KEYS ":0\r\n:0\r\n:0\r\n"
#define ONE_KEY ":1\r\n:1\r\n:1\r\n"
#define MANY_KEYS ":1\r\n:-1\r\n:1\r\n"

static void classes_follow_from_flags_and_keys(void **state)
{
    const unsigned writes = COMMAND_WRITES, opaque = COMMAND_OPAQUE;

    (void)state;
    assert_learns("*1\r\n+readonly\r\n", ONE_KEY, CLASS_READ, 0, MERGE_NONE);
    assert_learns("*1\r\n+readonly\r\n", MANY_KEYS, CLASS_MULTI_READ, 0, MERGE_NONE);
    assert_learns("*2\r\n+write\r\n+fast\r\n", ONE_KEY, CLASS_WRITE, writes, MERGE_NONE);
    assert_learns("*2\r\n+readonly\r\n+write\r\n", ONE_KEY, CLASS_WRITE, writes, MERGE_NONE);
    assert_learns("*0\r\n", MANY_KEYS, CLASS_MULTI_WRITE, writes, MERGE_NONE);
    assert_learns("*0\r\n", NO_KEYS, CLASS_SCRIPT, writes | opaque, MERGE_NONE);
    assert_learns("*1\r\n+readonly\r\n", NO_KEYS, CLASS_ALL_NODES, 0, MERGE_FIRST);
    assert_learns("*2\r\n+readonly\r\n+movablekeys\r\n", NO_KEYS, CLASS_ALL_NODES, opaque,
                  MERGE_FIRST);
    assert_learns("*2\r\n+write\r\n+movablekeys\r\n", ONE_KEY, CLASS_WRITE, writes | opaque,
                  MERGE_NONE);
    assert_learns("*1\r\n+blocking\r\n", MANY_KEYS, CLASS_PINNED, writes | COMMAND_BLOCKS,
                  MERGE_NONE);
    assert_learns("*1\r\n+admin\r\n", NO_KEYS, CLASS_ADMIN, writes | opaque, MERGE_ALL_OK);
}

static void known_commands_stay_as_the_table_has_them(void **state)
{
    struct command_set *set = command_set_from_reply(
        BYTES("*2\r\n" OLD("$3\r\nGET\r\n", "-7", "*1\r\n+write\r\n", "0", "0", "0")
                  OLD("+new\r\n", "2", "*1\r\n$8\r\nreadonly\r\n", "1", "1", "1")));

    (void)state;
    assert_non_null(set);
    assert_int_equal(command_set_count(set), 1);
    assert_ptr_equal(find(set, "get", NULL), command_at(0));
    assert_ptr_equal(find(set, "new", NULL), command_set_at(set, 0));
    assert_int_equal(command_set_at(set, 0)->number, command_count());
    assert_null(command_set_at(set, 1));
    assert_null(find(set, "other", NULL));
    assert_null(find(NULL, "new", NULL));
    command_set_unref(&set);
}

static void only_letters_have_a_case(void **state)
{
    struct command_set *set = command_set_from_reply(
        BYTES("*1\r\n" OLD("$4\r\na{`Z\r\n", "2", "*0\r\n", "1", "1", "1")));

    (void)state;
    assert_non_null(set);
    assert_non_null(find(set, "A{`z", NULL));
    assert_null(find(set, "a[`z", NULL));
    assert_null(find(set, "a{@z", NULL));
    assert_null(find(set, "a{`\xda", NULL));
    command_set_unref(&set);
}

static void subcommands_are_learnt_with_their_containers(void **state)
{
    struct command_set *set = command_set_from_reply(BYTES("*1\r\n" NEW(
        "$4\r\nJSON\r\n", "-2", "*0\r\n", "0", "0", "0",
        "*2\r\n" NEW("$9\r\njson|read\r\n", "-3", "*1\r\n+readonly\r\n", "2", "2", "1", "*0\r\n")
            NEW("$9\r\nJSON|help\r\n", "2", "*0\r\n", "0", "0", "0", "*0\r\n"))));

    (void)state;
    assert_non_null(set);
    assert_int_equal(command_set_count(set), 3);
    assert_string_equal(find(set, "json", "READ")->name, "json read");
    assert_int_equal(find(set, "json", "READ")->class, CLASS_READ);
    assert_int_equal(find(set, "json", "READ")->first, 2);
    assert_string_equal(find(set, "json", "help")->name, "json help");
    assert_string_equal(find(set, "json", "other")->name, "json");
    assert_string_equal(find(set, "json", NULL)->name, "json");
    command_set_unref(&set);
}

static void new_subcommands_of_known_containers_are_learnt_only_with_keys(void **state)
{
    struct command_set *set = command_set_from_reply(BYTES(
        "*2\r\n" NEW(
            "$6\r\nclient\r\n", "-2", "*0\r\n", "0", "0", "0",
            "*1\r\n" NEW("$15\r\nclient|no-touch\r\n", "3", "*0\r\n", "0", "0", "0", "*0\r\n"))
            NEW("$6\r\nobject\r\n", "-2", "*0\r\n", "0", "0", "0",
                "*2\r\n" NEW("$10\r\nobject|age\r\n", "3", "*1\r\n+readonly\r\n", "2", "2", "1",
                             "*0\r\n") NEW("$15\r\nobject|encoding\r\n", "3", "*1\r\n+write\r\n",
                                           "2", "2", "1", "*0\r\n"))));

    (void)state;
    assert_non_null(set);
    assert_int_equal(command_set_count(set), 1);
    assert_string_equal(find(set, "client", "no-touch")->name, "client");
    assert_string_equal(find(set, "object", "age")->name, "object age");
    assert_int_equal(find(set, "object", "encoding")->class, CLASS_READ);
    command_set_unref(&set);
}

static void nulls_and_nonsense_are_skipped(void **state)
{
    struct command_set *set = command_set_from_reply(
        BYTES("*5\r\n*-1\r\n" OLD("$0\r\n\r\n", "2", "*0\r\n", "1", "1", "1")
                  OLD("$3\r\nbig\r\n", "99999", "*0\r\n", "1", "1", "1")
                      OLD("$3\r\nneg\r\n", "2", "*0\r\n", "-1", "1", "1")
                          OLD("$65\r\n0123456789012345678901234567890123456789012345678901234567890"
                              "1234\r\n",
                              "2", "*0\r\n", "1", "1", "1")));

    (void)state;
    assert_non_null(set);
    assert_int_equal(command_set_count(set), 0);
    assert_null(find(set, "big", NULL));
    command_set_unref(&set);
}

static void malformed_replies_teach_nothing(void **state)
{
    static const char whole[] = "*1\r\n" NEW(
        "$3\r\nfoo\r\n", "2", "*1\r\n+readonly\r\n", "1", "1", "1",
        "*1\r\n" NEW("$7\r\nfoo|bar\r\n", "2", "*0\r\n", "0", "0", "0", "*0\r\n"));
    struct command_set *set = command_set_from_reply(bytes_of_string(whole));

    (void)state;
    assert_non_null(set);
    command_set_unref(&set);
    for (size_t n = 0; n < sizeof(whole) - 1; n++) {
        unsigned char *const cut = malloc(n + 1);

        memcpy(cut, whole, n);
        assert_null(command_set_from_reply(bytes_make(cut, n)));
        free(cut);
    }
    assert_null(command_set_from_reply(BYTES("-ERR unknown command\r\n")));
    assert_null(command_set_from_reply(BYTES("*0\r\n+x\r\n")));
    assert_null(command_set_from_reply(BYTES("*1\r\n*5\r\n$1\r\na\r\n:1\r\n*0\r\n:1\r\n:1\r\n")));
}

static void many_commands_are_found(void **state)
{
    struct buffer reply;
    struct command_set *set;

    (void)state;
    buffer_init(&reply);
    assert_int_equal(buffer_append(&reply, BYTES("*3000\r\n")), 0);
    for (unsigned i = 0; i < 3000; i++) {
        char line[128];

        snprintf(line, sizeof(line),
                 "*6\r\n$23\r\nmodule.some.command%04u\r\n:2\r\n*0\r\n:1\r\n:1\r\n:1\r\n", i);
        assert_int_equal(buffer_append(&reply, bytes_of_string(line)), 0);
    }
    set = command_set_from_reply(buffer_bytes(&reply));
    buffer_fini(&reply);
    assert_non_null(set);
    for (unsigned i = 0; i < 3000; i++) {
        char name[32];

        snprintf(name, sizeof(name), "MODULE.some.command%04u", i);
        assert_ptr_equal(find(set, name, NULL), command_set_at(set, i));
    }
    assert_null(find(set, "module.some.command3000", NULL));
    command_set_unref(&set);
}

static void a_set_lives_as_long_as_its_last_reference(void **state)
{
    struct command_set *set = command_set_from_reply(
        BYTES("*1\r\n" OLD("$3\r\nfoo\r\n", "2", "*0\r\n", "1", "1", "1")));
    struct command_set *second = set;

    (void)state;
    command_set_ref(set);
    command_set_unref(&set);
    assert_non_null(find(second, "foo", NULL));
    command_set_unref(&second);
    command_set_unref(&second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(classes_follow_from_flags_and_keys),
        cmocka_unit_test(known_commands_stay_as_the_table_has_them),
        cmocka_unit_test(only_letters_have_a_case),
        cmocka_unit_test(subcommands_are_learnt_with_their_containers),
        cmocka_unit_test(new_subcommands_of_known_containers_are_learnt_only_with_keys),
        cmocka_unit_test(nulls_and_nonsense_are_skipped),
        cmocka_unit_test(malformed_replies_teach_nothing),
        cmocka_unit_test(many_commands_are_found),
        cmocka_unit_test(a_set_lives_as_long_as_its_last_reference),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
