#include "coherence/keyspace_words.h"

#include <ctype.h>
#include <string.h>

#include "resp/resp.h"

bool keyspace_read_channel(struct bytes channel, struct bytes *key)
{
    size_t at = sizeof("__keyspace@") - 1;

    if (!bytes_start_with(channel, BYTES("__keyspace@"))) {
        return false;
    }
    while (at < channel.len && isdigit(channel.ptr[at])) {
        at++;
    }
    if (channel.len - at < 3 || memcmp(channel.ptr + at, "__:", 3) != 0) {
        return false;
    }
    *key = bytes_make(channel.ptr + at + 3, channel.len - at - 3);
    return true;
}

bool keyspace_read_message(struct bytes frame, struct keyspace_message *message)
{
    struct resp_value head, kind, pattern, channel;

    if (!resp_next(&frame, &head) || head.n_children < 1 || !resp_next(&frame, &kind) ||
        kind.type != '$') {
        return false;
    }
    if (bytes_equal(kind.text, BYTES("psubscribe"))) {
        message->kind = KEYSPACE_SUBSCRIBED;
        return true;
    }
    if (!bytes_equal(kind.text, BYTES("pmessage")) || head.n_children != 4 ||
        !resp_next(&frame, &pattern) || !resp_next(&frame, &channel) || channel.type != '$') {
        return false;
    }
    /* Anybody may publish on such a channel: another name means nothing. */
    message->kind = keyspace_read_channel(channel.text, &message->key) ? KEYSPACE_WRITTEN
                                                                       : KEYSPACE_FOREIGN;
    return true;
}

static bool has_byte(struct bytes text, unsigned char byte)
{
    return text.len > 0 && memchr(text.ptr, byte, text.len) != NULL;
}

/* A map in RESP3, an array in RESP2. */
bool keyspace_has_flags(struct bytes reply)
{
    struct resp_value head, name, value;

    return resp_next(&reply, &head) && head.n_children == 2 && resp_next(&reply, &name) &&
           resp_next(&reply, &value) && value.type == '$' && has_byte(value.text, 'K') &&
           has_byte(value.text, 'A');
}

/* The number behind a name; a text that does not hold it counts nothing. */
static uint64_t count_of(struct bytes text, const char *name)
{
    const size_t len = strlen(name);
    const unsigned char *const end = text.ptr + text.len;
    const unsigned char *at = memmem(text.ptr, text.len, name, len);
    uint64_t calls = 0;

    for (at = at != NULL ? at + len : end; at < end && isdigit(*at); at++) {
        calls = calls * 10 + (uint64_t)(*at - '0');
    }
    return calls;
}

bool keyspace_count_flushes(struct bytes reply, uint64_t *n_flushes)
{
    static const char *const names[] = {"cmdstat_flushall:calls=", "cmdstat_flushdb:calls=",
                                        "cmdstat_swapdb:calls=", "cmdstat_debug:calls="};
    struct resp_value value;

    if (!resp_next(&reply, &value) || (value.type != '$' && value.type != '=') ||
        value.text.len == 0 ||
        memmem(value.text.ptr, value.text.len, "# Commandstats", 14) == NULL) {
        return false;
    }
    *n_flushes = 0;
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        *n_flushes += count_of(value.text, names[i]);
    }
    return true;
}
