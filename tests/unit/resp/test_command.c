/*
 * Proves of command.h: every name is found in any case and nothing else is; containers decide about
 * unknown subcommands; lines of the table make sense together; slots are those of the cluster.
 */
#include "resp/command.h"

#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <cmocka.h>

/* Splits a line at spaces; at most 16 words. */
static unsigned split(const char *line, struct bytes *argv)
{
    unsigned argc = 0;

    while (*line != 0) {
        const size_t n = strcspn(line, " ");

        argv[argc++] = bytes_make(line, n);
        line += n + (line[n] == ' ');
    }
    return argc;
}

static const struct command *find(const char *line)
{
    struct bytes argv[16];
    const unsigned argc = split(line, argv);

    return command_find(argv, argc, NULL);
}

static void get_is_number_0(void **state)
{
    (void)state;
    assert_string_equal(command_at(0)->name, "get");
}

static void every_command_is_found_in_any_case(void **state)
{
    (void)state;
    for (unsigned i = 0; i < command_count(); i++) {
        const struct command *const command = command_at(i);
        char upper[64], mixed[64];

        assert_int_equal(command->number, i);
        assert_ptr_equal(find(command->name), command);
        snprintf(upper, sizeof(upper), "%s", command->name);
        snprintf(mixed, sizeof(mixed), "%s", command->name);
        for (size_t at = 0; upper[at] != 0; at++) {
            upper[at] = (char)toupper(upper[at]);
            mixed[at] = at % 2 ? mixed[at] : upper[at];
        }
        assert_ptr_equal(find(upper), command);
        assert_ptr_equal(find(mixed), command);
    }
    assert_null(command_at(command_count()));
}

static void a_name_that_differs_in_one_byte_is_not_found(void **state)
{
    (void)state;
    for (unsigned i = 0; i < command_count(); i++) {
        const char *const name = command_at(i)->name;
        char other[64];

        if (strchr(name, ' ') != NULL) {
            continue;
        }
        for (size_t at = 0; name[at] != 0; at++) {
            /* The letters' neighbours: @ ` [ {, and what 0x20 or the top bit makes of a letter. */
            static const int flips[] = {0x40, 0x80, 0x1f, 0xa0};

            for (size_t flip = 0; flip < sizeof(flips) / sizeof(flips[0]); flip++) {
                struct bytes argv = bytes_of_string(other);
                const struct command *found;

                snprintf(other, sizeof(other), "%s", name);
                other[at] = (char)(other[at] ^ flips[flip]);
                argv = bytes_make(other, strlen(name));
                found = command_find(&argv, 1, NULL);
                assert_true(found == NULL || strlen(found->name) == strlen(name));
                assert_true(found == NULL || strcasecmp(found->name, other) == 0);
            }
        }
        snprintf(other, sizeof(other), "%sx", name);
        assert_true(find(other) == NULL || strcmp(find(other)->name, other) == 0);
    }
}

static void strange_names_are_not_found(void **state)
{
    static const char *const strange[] = {
        "@ET", "client|id", "[et", "ge", "gett", "georadiusbymemberxro", "restore_asking"};
    unsigned char long_name[4096];
    struct bytes argv = BYTES("");

    (void)state;
    for (size_t i = 0; i < sizeof(strange) / sizeof(strange[0]); i++) {
        assert_null(find(strange[i]));
    }
    assert_null(command_find(&argv, 1, NULL));
    assert_null(command_find(&argv, 0, NULL));
    memset(long_name, 'g', sizeof(long_name));
    for (size_t n = 1; n < 200; n++) {
        argv = bytes_make(long_name, n);
        assert_null(command_find(&argv, 1, NULL));
    }
    argv = bytes_make(long_name, sizeof(long_name));
    assert_null(command_find(&argv, 1, NULL));
    argv = BYTES("get\0");
    assert_null(command_find(&argv, 1, NULL));
    argv = BYTES("client id");
    assert_null(command_find(&argv, 1, NULL));
}

static void containers_stand_in_for_unknown_and_missing_subcommands(void **state)
{
    (void)state;
    assert_string_equal(find("client")->name, "client");
    assert_string_equal(find("CLIENT foo bar")->name, "client");
    assert_string_equal(find("CLIENT No-Evict on")->name, "client no-evict");
    assert_string_equal(find("config id")->name, "config");
    assert_string_equal(find("get id")->name, "get");
    assert_int_equal(find("client setinfo lib-name x")->handler, HANDLER_client_unknown);
    assert_int_equal(find("client setinfo lib-name x")->class, CLASS_CONNECTION);
}

static void subcommands_are_found_in_their_own_container_only(void **state)
{
    (void)state;
    for (unsigned i = 0; i < command_count(); i++) {
        const struct command *const container = command_at(i);

        for (unsigned other = 0; container->has_subcommands && other < command_count(); other++) {
            const char *const space = strchr(command_at(other)->name, ' ');
            struct bytes argv[2] = {bytes_of_string(container->name)};
            const struct command *found;
            char expected[64];

            if (space == NULL) {
                continue;
            }
            argv[1] = bytes_of_string(space + 1);
            found = command_find(argv, 2, NULL);
            snprintf(expected, sizeof(expected), "%s%s", container->name, space);
            assert_true(found == container || strcmp(found->name, expected) == 0);
        }
    }
}

static void arities_are_exact_or_minimal(void **state)
{
    (void)state;
    assert_true(command_arity_fits(find("get"), 2));
    assert_false(command_arity_fits(find("get"), 1));
    assert_false(command_arity_fits(find("get"), 3));
    assert_false(command_arity_fits(find("mget"), 1));
    assert_true(command_arity_fits(find("mget"), 2));
    assert_true(command_arity_fits(find("mget"), 2000));
}

static bool is_one_of(const struct command *command, enum command_class a, enum command_class b)
{
    return command->class == a || command->class == b;
}

static void lines_of_the_table_make_sense(void **state)
{
    (void)state;
    for (unsigned i = 0; i < command_count(); i++) {
        const struct command *const command = command_at(i);
        const bool writes = (command->flags & COMMAND_WRITES) != 0;
        const bool is_one_key = command->keys == KEYS_SORT ||
                                (command->keys == KEYS_RANGE && command->first > 0 &&
                                 command->first == command->last);

        if (command->class == CLASS_CACHED_READ) {
            assert_true(is_one_key && command->first == 1 && command->flags == 0);
        }
        if (is_one_of(command, CLASS_READ, CLASS_WRITE)) {
            assert_true(is_one_key);
        }
        if (is_one_of(command, CLASS_SPLIT_READ, CLASS_SPLIT_WRITE)) {
            assert_true(command->keys == KEYS_RANGE && command->merge != MERGE_NONE);
        }
        if (is_one_of(command, CLASS_WRITE, CLASS_SPLIT_WRITE) ||
            is_one_of(command, CLASS_MULTI_WRITE, CLASS_SCRIPT)) {
            assert_true(writes);
        }
        if (is_one_of(command, CLASS_CACHED_READ, CLASS_READ) ||
            is_one_of(command, CLASS_SPLIT_READ, CLASS_MULTI_READ)) {
            assert_false(writes);
        }
        if (is_one_of(command, CLASS_CONNECTION, CLASS_LOCAL) || command->class == CLASS_PROXY) {
            assert_int_not_equal(command->handler, HANDLER_none);
        } else if (command->class != CLASS_PINNED) {
            assert_int_equal(command->handler, HANDLER_none);
        }
        if (is_one_of(command, CLASS_ALL_NODES, CLASS_ADMIN)) {
            assert_int_not_equal(command->merge, MERGE_NONE);
        }
        assert_string_not_equal(command_class_name((enum command_class)command->class), "?");
    }
}

static void classes_are_those_of_the_design(void **state)
{
    static const struct {
        const char *name, *class;
    } some[] = {
        {"get", "CACHED_READ"},
        {"xrange", "CACHED_READ"},
        {"ttl", "READ"},
        {"sort_ro", "READ"},
        {"getex", "WRITE"},
        {"xgroup create", "WRITE"},
        {"mget", "SPLIT_READ"},
        {"touch", "SPLIT_READ"},
        {"unlink", "SPLIT_WRITE"},
        {"mset", "SPLIT_WRITE"},
        {"msetnx", "MULTI_WRITE"},
        {"sort", "MULTI_WRITE"},
        {"lcs", "MULTI_READ"},
        {"eval", "SCRIPT"},
        {"fcall_ro", "SCRIPT_READ"},
        {"xread", "PINNED"},
        {"wait", "PINNED"},
        {"hello", "CONNECTION"},
        {"readonly", "CONNECTION"},
        {"ping", "LOCAL"},
        {"config set", "LOCAL"},
        {"cluster help", "LOCAL"},
        {"client help", "ALL_NODES"},
        {"flushall", "ALL_NODES"},
        {"acl whoami", "LOCAL"},
        {"acl list", "ADMIN"},
        {"debug", "ADMIN"},
        {"migrate", "REFUSED"},
        {"script debug", "REFUSED"},
        {"cache", "PROXY"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(some) / sizeof(some[0]); i++) {
        const struct command *const command = find(some[i].name);

        assert_string_equal(command->name, some[i].name);
        assert_string_equal(command_class_name((enum command_class)command->class), some[i].class);
    }
}

static void slots_are_those_of_the_cluster(void **state)
{
    (void)state;
    /* From the cluster specification, and CLUSTER KEYSLOT of a real server. */
    assert_int_equal(command_key_slot(BYTES("123456789")), 0x31c3);
    assert_int_equal(command_key_slot(BYTES("foo")), 12182);
    assert_int_equal(command_key_slot(BYTES("bar")), 5061);
    assert_int_equal(command_key_slot(BYTES("")), 0);
    assert_int_equal(command_key_slot(BYTES("key:00000000000000000001")), 61729 % 16384);
    assert_int_equal(command_key_slot(BYTES("{user1000}.following")),
                     command_key_slot(BYTES("user1000")));
    assert_int_equal(command_key_slot(BYTES("a{foo}{bar}")), 12182);
    assert_int_equal(command_key_slot(BYTES("foo{{bar}}zap")), command_key_slot(BYTES("{bar")));
    assert_int_not_equal(command_key_slot(BYTES("foo{}{bar}")), command_key_slot(BYTES("bar")));
    assert_int_not_equal(command_key_slot(BYTES("foo{bar")), command_key_slot(BYTES("bar")));
    assert_int_equal(command_key_slot(BYTES("}{foo}")), 12182);
}

static uint16_t slot_bit_by_bit(const unsigned char *at, size_t len)
{
    unsigned crc = 0;

    for (size_t i = 0; i < len; i++) {
        crc ^= (unsigned)at[i] << 8;
        for (unsigned bit = 0; bit < 8; bit++) {
            crc = (crc & 0x8000) != 0 ? (crc << 1 ^ 0x1021) & 0xffff : crc << 1 & 0xffff;
        }
    }
    return (uint16_t)(crc % 16384);
}

static void slots_of_all_lengths_agree_with_the_definition(void **state)
{
    unsigned char key[100];
    uint32_t seed = 1;

    (void)state;
    for (unsigned round = 0; round < 50; round++) {
        for (size_t i = 0; i < sizeof(key); i++) {
            seed = seed * 1664525 + 1013904223;
            key[i] = (unsigned char)(seed >> 24);
            key[i] = key[i] == '{' ? 'x' : key[i];
        }
        for (size_t len = 0; len <= sizeof(key); len++) {
            assert_int_equal(command_key_slot(bytes_make(key, len)), slot_bit_by_bit(key, len));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(get_is_number_0),
        cmocka_unit_test(every_command_is_found_in_any_case),
        cmocka_unit_test(a_name_that_differs_in_one_byte_is_not_found),
        cmocka_unit_test(strange_names_are_not_found),
        cmocka_unit_test(containers_stand_in_for_unknown_and_missing_subcommands),
        cmocka_unit_test(subcommands_are_found_in_their_own_container_only),
        cmocka_unit_test(arities_are_exact_or_minimal),
        cmocka_unit_test(lines_of_the_table_make_sense),
        cmocka_unit_test(classes_are_those_of_the_design),
        cmocka_unit_test(slots_are_those_of_the_cluster),
        cmocka_unit_test(slots_of_all_lengths_agree_with_the_definition),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
