/*
 * The numbers in braces are chosen so that the shards' slots are spread over all slots: for each
 * 64th of them the smallest number that falls into it, as the bus does with its channels.
 */
#include "coherence/ledger_keys.h"

#include <pthread.h>
#include <stdio.h>

#define SLOTS_PER_SHARD (EPOCHS_SLOTS / LEDGER_SHARDS)

static unsigned numbers[LEDGER_SHARDS]; /* once */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void find_numbers(void)
{
    bool has[LEDGER_SHARDS] = {false};
    unsigned n = 0;

    for (unsigned k = 0; n < LEDGER_SHARDS; k++) {
        char tag[16];
        const int length = snprintf(tag, sizeof(tag), "{%u}", k);
        const unsigned share = command_key_slot(bytes_make(tag, (size_t)length)) / SLOTS_PER_SHARD;

        if (!has[share]) {
            has[share] = true;
            numbers[share] = k;
            n++;
        }
    }
}

unsigned ledger_tag_number(unsigned shard)
{
    pthread_once(&once, find_numbers);
    return numbers[shard];
}

/* FNV-1a, 64 bits, folded: the same in every process and on every machine. */
unsigned ledger_shard(enum ledger_kind kind, struct bytes subject)
{
    uint64_t hash = UINT64_C(14695981039346656037) ^ (uint64_t)kind;

    for (size_t i = 0; i < subject.len; i++) {
        hash = (hash ^ subject.ptr[i]) * UINT64_C(1099511628211);
    }
    hash ^= hash >> 32;
    hash ^= hash >> 16;
    return (unsigned)(hash % LEDGER_SHARDS);
}

struct bytes ledger_key(const char *prefix, enum ledger_kind kind, unsigned shard,
                        enum ledger_part part, struct bytes subject, unsigned char *out)
{
    static const char *const kinds[N_LEDGER_KINDS] = {"tag", "dep", "event"};
    static const char *const ends[] = {"", ":", "!"};
    const int length = snprintf((char *)out, LEDGER_KEY_EXTRA, "%.100s{%u}:%s%s", prefix,
                                ledger_tag_number(shard), kinds[kind], ends[part]);

    if (subject.len > 0) {
        memcpy(out + length, subject.ptr, subject.len);
    }
    return bytes_make(out, (size_t)length + subject.len);
}

struct bytes ledger_member_write(const struct ledger_member *member, unsigned char *out)
{
    const int length = snprintf((char *)out, LEDGER_MEMBER_EXTRA, "%u:", member->db);

    if (member->key.len > 0) {
        memcpy(out + length, member->key.ptr, member->key.len);
    }
    return bytes_make(out, (size_t)length + member->key.len);
}

bool ledger_member_read(struct bytes text, struct ledger_member *member)
{
    const unsigned char *colon = memchr(
        text.ptr, ':', text.len < LEDGER_MEMBER_EXTRA ? text.len : LEDGER_MEMBER_EXTRA);
    int64_t db;

    if (colon == NULL || !bytes_to_int64(bytes_make(text.ptr, (size_t)(colon - text.ptr)), &db) ||
        db < 0 || db > INT32_MAX) {
        return false;
    }
    member->db = (unsigned)db;
    member->key = bytes_make(colon + 1, text.len - (size_t)(colon - text.ptr) - 1);
    return true;
}

bool ledger_owns(const struct config *config, struct bytes key)
{
    return bytes_start_with(key, bytes_of_string(config->ledger_prefix));
}
