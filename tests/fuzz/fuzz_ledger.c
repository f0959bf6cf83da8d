/*
 * The ledger: a member that is read, written anew, is read as the same; keys of different shards,
 * parts and subjects are different ones, and each is in its shard's slot.
 */
#include "fuzz.h"

#include "coherence/ledger_keys.h"
#include "resp/command.h"

#include "config/config.h"

static void check_member(struct bytes text)
{
    struct ledger_member member, again;
    unsigned char *out;
    struct bytes written;

    if (!ledger_member_read(text, &member)) {
        return;
    }
    MUST(fuzz_is_within(member.key, text));
    out = malloc(LEDGER_MEMBER_EXTRA + member.key.len);
    MUST(out != NULL);
    written = ledger_member_write(&member, out);
    MUST(written.len <= LEDGER_MEMBER_EXTRA + member.key.len);
    MUST(ledger_member_read(written, &again));
    MUST(again.db == member.db && bytes_equal(again.key, member.key));
    free(out);
}

static void check_keys(struct bytes rest)
{
    char *const prefix = fuzz_string(&rest);
    struct config config = {.ledger_prefix = prefix};
    unsigned char *const out = malloc(LEDGER_KEY_EXTRA + rest.len);
    unsigned char *const other = malloc(LEDGER_KEY_EXTRA + rest.len);

    MUST(out != NULL && other != NULL);
    /* As the table of options has it: 1 to 100 bytes; braces of its own would move all slots. */
    if (prefix[0] != '\0' && strlen(prefix) <= 100 && strchr(prefix, '{') == NULL) {
        for (unsigned kind = 0; kind < N_LEDGER_KINDS; kind++) {
            const unsigned shard = ledger_shard((enum ledger_kind)kind, rest);
            const struct bytes members = ledger_key(prefix, (enum ledger_kind)kind, shard,
                                                    LEDGER_MEMBERS, rest, out);
            const struct bytes version = ledger_key(prefix, (enum ledger_kind)kind, shard,
                                                    LEDGER_VERSION, BYTES(""), other);

            MUST(shard < LEDGER_SHARDS && members.len <= LEDGER_KEY_EXTRA + rest.len);
            MUST(command_key_slot(members) == command_key_slot(version));
            MUST(!bytes_equal(members, version));
            MUST(ledger_owns(&config, members) && ledger_owns(&config, version));
        }
    }
    free(prefix);
    free(out);
    free(other);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned char *const copy = fuzz_copy(bytes_make(data, size));

    check_member(bytes_make(copy, size));
    check_keys(bytes_make(copy, size));
    free(copy);
    return 0;
}
