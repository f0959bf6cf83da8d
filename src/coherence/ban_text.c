#include "coherence/ban_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Instants are made of these: a thousand times, and added to the clock. */
#define TIME_MAX_MS ((uint64_t)INT64_MAX / 2000)

size_t ban_text_write(unsigned char out[BAN_TEXT_MAX], uint64_t id, int64_t ttl_ms,
                      const struct ban_rule *rule)
{
    const size_t length = (size_t)snprintf(
        (char *)out, BAN_TEXT_MAX - BAN_NAME_MAX, "%016" PRIx64 " %" PRId64 " %" PRId64 " %zu %d ",
        id, ttl_ms, rule->min_age_ms, rule->min_bytes, (int)rule->kind);

    if (rule->name.len > 0) {
        memcpy(out + length, rule->name.ptr, rule->name.len);
    }
    return length + rule->name.len;
}

size_t ban_text_write_removal(unsigned char out[BAN_TEXT_MAX], uint64_t id)
{
    return (size_t)snprintf((char *)out, BAN_TEXT_MAX, "%016" PRIx64 " -", id);
}

/* Takes a word off the front. */
static bool take_number(struct bytes *text, int base, uint64_t *number)
{
    const char *const digits = base == 16 ? "0123456789abcdefABCDEF" : "0123456789";
    char word[24];
    size_t n = 0;

    while (n < text->len && text->ptr[n] != ' ') {
        n++;
    }
    if (n == 0 || n >= sizeof(word) || n == text->len) {
        return false;
    }
    memcpy(word, text->ptr, n);
    word[n] = '\0';
    /* strtoull() alone takes signs and spaces as well; a zero byte ends the word too early. */
    if (strspn(word, digits) != n) {
        return false;
    }
    *number = strtoull(word, NULL, base);
    *text = bytes_make(text->ptr + n + 1, text->len - n - 1);
    return true;
}

bool ban_text_read(struct bytes text, struct ban_text *ban)
{
    uint64_t id, ttl_ms, age_ms, n_bytes, kind;

    if (!take_number(&text, 16, &id)) {
        return false;
    }
    if (bytes_equal(text, BYTES("-"))) {
        *ban = (struct ban_text){.id = id, .is_removal = true};
        return true;
    }
    if (!take_number(&text, 10, &ttl_ms) || !take_number(&text, 10, &age_ms) ||
        !take_number(&text, 10, &n_bytes) || !take_number(&text, 10, &kind) || kind > BAN_TAG ||
        text.len > BAN_NAME_MAX || ttl_ms > TIME_MAX_MS || age_ms > TIME_MAX_MS) {
        return false;
    }
    *ban = (struct ban_text){
        .id = id,
        .ttl_ms = (int64_t)ttl_ms,
        .rule = {.kind = (enum ban_name)kind,
                 .name = text,
                 .ns = -1,
                 .min_age_ms = (int64_t)age_ms,
                 .min_bytes = (size_t)n_bytes},
    };
    return true;
}
