/*
 * test_ledger_keys.c - proves of ledger_keys.h: names as ledger.h has them, all of a shard in one
 * slot, shards spread over the slots and the same for ever; members read back as written
 */
#include "coherence/ledger_keys.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void assert_key(enum ledger_kind kind, unsigned shard, enum ledger_part part,
                       const char *subject, const char *wanted)
{
    unsigned char room[LEDGER_KEY_EXTRA + 64];
    const struct bytes key = ledger_key("nc:", kind, shard, part, bytes_of_string(subject), room);

    if (!bytes_equal(key, bytes_of_string(wanted))) {
        fail_msg("%.*s, not %s", (int)key.len, (const char *)key.ptr, wanted);
    }
}

/* What other versions have written must be found: these never change. */
static void names_are_as_ever(void **state)
{
    (void)state;
    assert_int_equal(ledger_shard(LEDGER_TAG, BYTES("user:42")), 33);
    assert_int_equal(ledger_tag_number(0), 10);
    assert_key(LEDGER_TAG, 0, LEDGER_SUBJECTS, "", "nc:{10}:tag");
    assert_key(LEDGER_DEPENDENCY, 0, LEDGER_VERSION, "", "nc:{10}:dep!");
    assert_key(LEDGER_EVENT, 0, LEDGER_MEMBERS, "a{b}", "nc:{10}:event:a{b}");
}

static void each_shard_has_a_share_of_the_slots(void **state)
{
    unsigned char room[LEDGER_KEY_EXTRA + 64];

    (void)state;
    for (unsigned shard = 0; shard < LEDGER_SHARDS; shard++) {
        const unsigned slot = command_key_slot(
            ledger_key("nc:", LEDGER_TAG, shard, LEDGER_SUBJECTS, (struct bytes){0}, room));

        assert_int_equal(slot / (EPOCHS_SLOTS / LEDGER_SHARDS), shard);
        assert_int_equal(command_key_slot(ledger_key("nc:", LEDGER_TAG, shard, LEDGER_MEMBERS,
                                                     BYTES("{other}x"), room)),
                         slot);
        assert_int_equal(command_key_slot(ledger_key("nc:", LEDGER_EVENT, shard, LEDGER_VERSION,
                                                     (struct bytes){0}, room)),
                         slot);
    }
}

static void subjects_are_spread(void **state)
{
    unsigned counts[LEDGER_SHARDS] = {0};
    char name[24];

    (void)state;
    for (unsigned i = 0; i < 64000; i++) {
        const int length = snprintf(name, sizeof(name), "user:%u", i);

        counts[ledger_shard(LEDGER_TAG, bytes_make(name, (size_t)length))]++;
    }
    for (unsigned i = 0; i < LEDGER_SHARDS; i++) {
        assert_in_range(counts[i], 700, 1300);
    }
}

static void members_are_read_as_written(void **state)
{
    const struct ledger_member members[] = {
        {0, BYTES("k")}, {15, BYTES("a:b:c")}, {2147483647, BYTES("x\0y")}, {3, BYTES("")}};
    static const char *const bad[] = {"", "k", ":k", "x:k", "-1:k", "01:k", "12345678901:k"};
    unsigned char room[64];
    struct ledger_member read;

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        assert_true(ledger_member_read(ledger_member_write(&members[i], room), &read));
        assert_int_equal(read.db, members[i].db);
        assert_true(bytes_equal(read.key, members[i].key));
    }
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(ledger_member_read(bytes_of_string(bad[i]), &read));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_as_ever),
        cmocka_unit_test(each_shard_has_a_share_of_the_slots),
        cmocka_unit_test(subjects_are_spread),
        cmocka_unit_test(members_are_read_as_written),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
