/* Bans on the bus: one that is read, written anew, is read as the same; none is beyond its limits.
 */
#include "fuzz.h"

#include "coherence/ban_text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct bytes input = bytes_make(data, size);
    unsigned char *const copy = fuzz_copy(input);
    unsigned char written[BAN_TEXT_MAX];
    struct ban_text ban, again;
    size_t len;

    if (!ban_text_read(bytes_make(copy, size), &ban)) {
        free(copy);
        return 0;
    }
    if (ban.is_removal) {
        len = ban_text_write_removal(written, ban.id);
    } else {
        MUST(ban.rule.name.len <= BAN_NAME_MAX && ban.rule.kind <= BAN_TAG && ban.rule.ns == -1);
        MUST(fuzz_is_within(ban.rule.name, bytes_make(copy, size)));
        /* What makes instants of them must not overflow. */
        MUST(ban.ttl_ms >= 0 && ban.ttl_ms <= INT64_MAX / 2000);
        MUST(ban.rule.min_age_ms >= 0 && ban.rule.min_age_ms <= INT64_MAX / 2000);
        len = ban_text_write(written, ban.id, ban.ttl_ms, &ban.rule);
    }
    MUST(len <= sizeof(written) && ban_text_read(bytes_make(written, len), &again));
    MUST(again.id == ban.id && again.is_removal == ban.is_removal && again.ttl_ms == ban.ttl_ms);
    MUST(again.rule.kind == ban.rule.kind && bytes_equal(again.rule.name, ban.rule.name));
    MUST(again.rule.min_age_ms == ban.rule.min_age_ms);
    MUST(again.rule.min_bytes == ban.rule.min_bytes);
    free(copy);
    return 0;
}
