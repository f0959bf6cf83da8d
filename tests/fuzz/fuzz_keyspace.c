/*
 * Keyspace mode: a channel of any database and key is read as that key; what is read of messages
 * lies within them; counters and flags are found in any reply without a crash.
 */
#include "fuzz.h"

#include "coherence/keyspace_words.h"
#include "resp/resp.h"

static void check_channel(struct bytes key)
{
    static const char head[] = "__keyspace@15__:";
    unsigned char *const channel = malloc(sizeof(head) + key.len);
    struct bytes read;

    MUST(channel != NULL);
    memcpy(channel, head, sizeof(head) - 1);
    if (key.len > 0) {
        memcpy(channel + sizeof(head) - 1, key.ptr, key.len);
    }
    MUST(keyspace_read_channel(bytes_make(channel, sizeof(head) - 1 + key.len), &read));
    MUST(bytes_equal(read, key));
    free(channel);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned char *const copy = fuzz_copy(bytes_make(data, size));
    const struct bytes frame = bytes_make(copy, size);
    struct keyspace_message message;
    struct bytes end = frame, key;
    uint64_t n = 0;

    check_channel(frame);
    if (keyspace_read_channel(frame, &key)) {
        MUST(fuzz_is_within(key, frame) && key.len < frame.len);
    }
    if (resp_skip(&end) && end.len == 0) {
        if (keyspace_read_message(frame, &message) && message.kind == KEYSPACE_WRITTEN) {
            MUST(fuzz_is_within(message.key, frame));
        }
        (void)keyspace_has_flags(frame);
        (void)keyspace_count_flushes(frame, &n);
    }
    free(copy);
    return 0;
}
