/*
 * Proves of command.h: keys are found where each rule says, lists of any length hold them, and what
 * options say about a command (patterns, BLOCK, WITHSCORES) is seen.
 */
#include "resp/command.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

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

/* expected: the argument numbers, "1 2"; NULL: not found. */
static void assert_keys(const char *line, const char *expected)
{
    struct bytes argv[32];
    const unsigned argc = split(line, argv);
    struct command_key_list list = {0};
    char found[128] = "";

    if (!command_find_keys(command_find(argv, argc, NULL), argv, argc, &list)) {
        assert_null(expected);
        assert_int_equal(list.n, 0);
        return;
    }
    for (unsigned i = 0; i < list.n; i++) {
        const size_t n = strlen(found);

        snprintf(found + n, sizeof(found) - n, i == 0 ? "%u" : " %u", list.at[i]);
    }
    assert_non_null(expected);
    assert_string_equal(found, expected);
    command_key_list_fini(&list);
}

static void ranges_follow_first_last_and_step(void **state)
{
    (void)state;
    assert_keys("GET k", "1");
    assert_keys("SET k v EX 5", "1");
    assert_keys("GET", NULL);
    assert_keys("MGET a b a", "1 2 3");
    assert_keys("MSET a 1 b 2", "1 3");
    assert_keys("BLPOP a b 0", "1 2");
    assert_keys("BITOP AND d a b", "2 3 4");
    assert_keys("RENAME a b", "1 2");
    assert_keys("RENAME a", NULL);
    assert_keys("OBJECT ENCODING k", "2");
    assert_keys("MGET", NULL);
    assert_keys("SUNSUBSCRIBE", "");
    assert_keys("PING", "");
}

static void counts_say_how_many_keys_follow(void **state)
{
    (void)state;
    assert_keys("EVAL s 2 a b c", "3 4");
    assert_keys("EVAL s 0 a", "");
    assert_keys("EVAL s 3 a b", NULL);
    assert_keys("EVAL s -1 a", NULL);
    assert_keys("EVAL s 1x a", NULL);
    assert_keys("EVAL s 99999999999999999999 a", NULL);
    assert_keys("EVAL s", NULL);
    assert_keys("LMPOP 2 a b LEFT", "2 3");
    assert_keys("LMPOP 0 a LEFT", NULL);
    assert_keys("BZMPOP 0 1 a MIN", "3");
    assert_keys("ZUNIONSTORE d 2 a b", "1 3 4");
    assert_keys("ZUNIONSTORE d 3 a b", NULL);
    assert_keys("ZUNIONSTORE d", NULL);
}

static void keywords_say_where_keys_are(void **state)
{
    (void)state;
    assert_keys("XREAD COUNT 2 BLOCK 0 streams a b 0 0", "6 7");
    assert_keys("XREADGROUP GROUP streams streams NOACK STREAMS a >", "6");
    assert_keys("XREAD STREAMS a", NULL);
    assert_keys("XREAD STREAMS", NULL);
    assert_keys("XREAD COUNT STREAMS a 0", NULL);
    assert_keys("SORT k BY STORE GET STORE LIMIT 1 STORE", "1");
    assert_keys("SORT k STORE x STORE d", "1 5");
    assert_keys("SORT_RO k BY w_*", "1");
    assert_keys("GEORADIUS k 1 2 3 km STORE d", "1 7");
    assert_keys("GEORADIUS k 1 2 3 km STORE", "1");
    assert_keys("GEORADIUSBYMEMBER k m 3 km STOREDIST d", "1 6");
    assert_keys("MIGRATE h 1 k 0 5", "3");
}

static void a_list_holds_any_number_and_is_used_again(void **state)
{
    static struct bytes argv[5000];
    struct command_key_list list = {0};
    const struct bytes get[] = {BYTES("GET"), BYTES("k")};

    (void)state;
    argv[0] = BYTES("MGET");
    for (unsigned i = 1; i < 5000; i++) {
        argv[i] = BYTES("k");
    }
    for (unsigned n = 2; n <= 5000; n = n < 40 ? n + 1 : n * 3) {
        assert_true(command_find_keys(command_find(argv, n, NULL), argv, n, &list));
        assert_int_equal(list.n, n - 1);
        for (unsigned i = 0; i < list.n; i++) {
            assert_int_equal(list.at[i], i + 1);
        }
        assert_true(command_find_keys(command_find(get, 2, NULL), get, 2, &list));
        assert_int_equal(list.n, 1);
        assert_int_equal(list.at[0], 1);
    }
    command_key_list_fini(&list);
    command_key_list_fini(&list);
    assert_int_equal(list.n, 0);
}

static bool shows_unnamed(const char *line)
{
    struct bytes argv[32];
    const unsigned argc = split(line, argv);

    return command_shows_unnamed(command_find(argv, argc, NULL), argv, argc);
}

static void sort_shows_other_keys_only_with_patterns(void **state)
{
    (void)state;
    assert_false(shows_unnamed("SORT k"));
    assert_false(shows_unnamed("SORT k BY nosort GET # STORE d*"));
    assert_false(shows_unnamed("SORT k LIMIT 0 BY x*"));
    assert_true(shows_unnamed("SORT k by w_*"));
    assert_true(shows_unnamed("SORT_RO k GET # GET o_*->f"));
    assert_true(shows_unnamed("EVAL s 1 k"));
    assert_true(shows_unnamed("FCALL_RO f 0"));
    assert_false(shows_unnamed("GET k*"));
}

static bool blocks(const char *line)
{
    struct bytes argv[32];
    const unsigned argc = split(line, argv);

    return command_blocks(command_find(argv, argc, NULL), argv, argc);
}

static void reading_streams_blocks_only_with_block(void **state)
{
    (void)state;
    assert_true(blocks("BLPOP k 0"));
    assert_true(blocks("WAIT 1 0"));
    assert_false(blocks("LPOP k"));
    assert_false(blocks("XREAD COUNT 1 STREAMS block 0"));
    assert_true(blocks("XREAD COUNT 1 block 5 STREAMS k 0"));
    assert_false(blocks("XREADGROUP GROUP BLOCK BLOCK STREAMS k >"));
    assert_true(blocks("XREADGROUP GROUP g c BLOCK 0 STREAMS k >"));
}

static enum resp_downgrade downgrade(const char *line)
{
    struct bytes argv[32];
    const unsigned argc = split(line, argv);

    return command_downgrade(command_find(argv, argc, NULL), argv, argc);
}

static void scores_come_in_pairs_only_when_asked_for(void **state)
{
    (void)state;
    assert_int_equal(downgrade("ZRANGE z 0 -1"), DOWNGRADE_PLAIN);
    assert_int_equal(downgrade("ZRANGE z 0 -1 REV withScores"), DOWNGRADE_PAIRS);
    assert_int_equal(downgrade("ZRANGE withscores withscores withscores"), DOWNGRADE_PLAIN);
    assert_int_equal(downgrade("ZRANGEBYLEX z - + WITHSCORES"), DOWNGRADE_PLAIN);
    assert_int_equal(downgrade("GEOPOS g m"), DOWNGRADE_NULL_ARRAYS);
    assert_int_equal(downgrade("GET k"), DOWNGRADE_PLAIN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges_follow_first_last_and_step),
        cmocka_unit_test(counts_say_how_many_keys_follow),
        cmocka_unit_test(keywords_say_where_keys_are),
        cmocka_unit_test(a_list_holds_any_number_and_is_used_again),
        cmocka_unit_test(sort_shows_other_keys_only_with_patterns),
        cmocka_unit_test(reading_streams_blocks_only_with_block),
        cmocka_unit_test(scores_come_in_pairs_only_when_asked_for),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
