/*
 * Design: a message is checked from end to end before its first record is handed out, so that a
 * forged or truncated one changes nothing. The key of a channel is HMAC(secret, channel): what was
 * signed for one channel is worth nothing on another, and neither signing nor checking copies.
 */
#include "coherence/bus_record.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#define FLAG_SIGNED 1u
#define FLAG_HEARTBEAT 2u
#define FLAG_LAST 4u
#define FLAG_NEW 8u

/* Longest varint of a length that fits into a message: three times seven bits. */
#define VARINT_MAX 3

/* ---- numbers ---- */

static unsigned char *put_number(unsigned char *at, uint64_t value, unsigned n_bytes)
{
    for (unsigned i = n_bytes; i > 0; i--) {
        *at++ = (unsigned char)(value >> (8 * (i - 1)));
    }
    return at;
}

static uint64_t get_number(const unsigned char *at, unsigned n_bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < n_bytes; i++) {
        value = value << 8 | at[i];
    }
    return value;
}

static unsigned char *put_varint(unsigned char *at, size_t value)
{
    while (value >= 0x80) {
        *at++ = (unsigned char)(value | 0x80);
        value >>= 7;
    }
    *at++ = (unsigned char)value;
    return at;
}

/* A length and as many bytes, off the front. */
static bool take_text(struct bytes *from, struct bytes *text)
{
    size_t len = 0;
    unsigned i = 0;

    for (;; i++) {
        if (i == VARINT_MAX || i == from->len) {
            return false;
        }
        len |= (size_t)(from->ptr[i] & 0x7f) << (7 * i);
        if ((from->ptr[i] & 0x80) == 0) {
            break;
        }
    }
    i++;
    if (len > from->len - i) {
        return false;
    }
    *text = bytes_make(from->ptr + i, len);
    *from = bytes_make(from->ptr + i + len, from->len - i - len);
    return true;
}

/* ---- records ---- */

static unsigned char *put_text(unsigned char *at, struct bytes text)
{
    at = put_varint(at, text.len);
    if (text.len > 0) {
        memcpy(at, text.ptr, text.len);
    }
    return at + text.len;
}

int bus_record_write(struct buffer *out, const struct bus_record *record)
{
    const bool has_b = record->b.len > 0;
    unsigned char *at;

    if (record->a.len > BUS_RECORD_MAX || record->b.len > BUS_RECORD_MAX - record->a.len) {
        return -E2BIG;
    }
    if (buffer_reserve(out, 4 + 2 * VARINT_MAX + record->a.len + record->b.len) != 0) {
        return -ENOMEM;
    }
    at = buffer_end(out);
    *at++ = record->kind;
    *at++ = (unsigned char)((record->flags & ~BUS_HAS_B) | (has_b ? BUS_HAS_B : 0));
    at = put_number(at, (uint16_t)record->db, 2);
    at = put_text(at, record->a);
    if (has_b) {
        at = put_text(at, record->b);
    }
    buffer_commit(out, (size_t)(at - buffer_end(out)));
    return 0;
}

bool bus_record_next(struct bytes *records, struct bus_record *record)
{
    struct bytes at = *records;

    if (at.len < 4) {
        return false;
    }
    record->kind = at.ptr[0];
    record->flags = at.ptr[1];
    record->db = (int16_t)get_number(at.ptr + 2, 2);
    record->a = record->b = bytes_make(NULL, 0);
    at = bytes_make(at.ptr + 4, at.len - 4);
    if (!take_text(&at, &record->a) ||
        ((record->flags & BUS_HAS_B) != 0 && !take_text(&at, &record->b))) {
        return false;
    }
    *records = at;
    return true;
}

static bool are_whole(struct bytes records, unsigned n)
{
    struct bus_record record;

    while (n > 0 && bus_record_next(&records, &record)) {
        n--;
    }
    return n == 0 && records.len == 0;
}

/* ---- signatures ---- */

/* False: out of memory. */
static bool sign(struct bytes message, struct bytes secret, struct bytes channel,
                 unsigned char signature[BUS_SIGNATURE_BYTES])
{
    unsigned char key[EVP_MAX_MD_SIZE], whole[EVP_MAX_MD_SIZE];
    unsigned key_len = 0, len = 0;
    const bool is_good = HMAC(EVP_sha256(), secret.ptr, (int)secret.len, channel.ptr, channel.len,
                              key, &key_len) != NULL &&
                         HMAC(EVP_sha256(), key, (int)key_len, message.ptr, message.len, whole,
                              &len) != NULL;

    if (is_good) {
        memcpy(signature, whole, BUS_SIGNATURE_BYTES);
    }
    OPENSSL_cleanse(key, sizeof(key));
    return is_good;
}

static enum bus_verdict check_signature(struct bytes message, struct bytes secret,
                                        struct bytes channel)
{
    const size_t len = message.len - BUS_SIGNATURE_BYTES;
    unsigned char signature[BUS_SIGNATURE_BYTES];

    if (!sign(bytes_make(message.ptr, len), secret, channel, signature) ||
        CRYPTO_memcmp(signature, message.ptr + len, BUS_SIGNATURE_BYTES) != 0) {
        return BUS_FORGED;
    }
    return BUS_GOOD;
}

/* ---- messages ---- */

int bus_message_write(struct buffer *out, const struct bus_header *header, struct bytes records,
                      struct bytes secret, struct bytes channel)
{
    const size_t begin = buffer_len(out);
    unsigned char *at;

    if (buffer_reserve(out, BUS_HEADER_BYTES + records.len + BUS_SIGNATURE_BYTES) != 0) {
        return -ENOMEM;
    }
    at = buffer_end(out);
    *at++ = 'N';
    *at++ = 'C';
    *at++ = BUS_VERSION;
    *at++ = (unsigned char)((secret.len > 0 ? FLAG_SIGNED : 0) |
                            (header->is_heartbeat ? FLAG_HEARTBEAT : 0) |
                            (header->is_last ? FLAG_LAST : 0) | (header->is_new ? FLAG_NEW : 0));
    at = put_number(at, header->origin, 8);
    at = put_number(at, header->seq, 8);
    at = put_number(at, (uint64_t)header->sent_unix_us, 8);
    at = put_number(at, header->n_records, 2);
    if (records.len > 0) {
        memcpy(at, records.ptr, records.len);
    }
    buffer_commit(out, BUS_HEADER_BYTES + records.len);
    if (secret.len > 0) {
        const struct bytes all = buffer_bytes(out);

        if (!sign(bytes_make(all.ptr + begin, all.len - begin), secret, channel, buffer_end(out))) {
            out->tail -= BUS_HEADER_BYTES + records.len;
            return -ENOMEM;
        }
        buffer_commit(out, BUS_SIGNATURE_BYTES);
    }
    return 0;
}

/* The header behind the four bytes that all versions share. */
static bool read_header(struct bytes message, struct bus_header *header)
{
    const unsigned char *const at = message.ptr;

    header->is_heartbeat = (at[3] & FLAG_HEARTBEAT) != 0;
    header->is_last = (at[3] & FLAG_LAST) != 0;
    header->is_new = (at[3] & FLAG_NEW) != 0;
    header->origin = get_number(at + 4, 8);
    header->seq = get_number(at + 12, 8);
    header->sent_unix_us = (int64_t)get_number(at + 20, 8);
    header->n_records = (uint16_t)get_number(at + 28, 2);
    return header->is_heartbeat ? header->n_records == 0 : header->seq > 0;
}

enum bus_verdict bus_message_read(struct bytes message, struct bytes secret, struct bytes channel,
                                  struct bus_header *header, struct bytes *records)
{
    const size_t signature_len = message.len >= 4 && (message.ptr[3] & FLAG_SIGNED) != 0
                                     ? BUS_SIGNATURE_BYTES
                                     : 0;
    struct bus_header read = {.is_signed = signature_len > 0};
    struct bytes body;

    if (message.len < 4 + signature_len || message.len > BUS_MESSAGE_MAX || message.ptr[0] != 'N' ||
        message.ptr[1] != 'C') {
        return BUS_MALFORMED;
    }
    if (secret.len > 0 && !read.is_signed) {
        return BUS_UNSIGNED;
    }
    if (secret.len > 0 && check_signature(message, secret, channel) != BUS_GOOD) {
        return BUS_FORGED;
    }
    if (message.ptr[2] != BUS_VERSION) {
        return BUS_NEWER;
    }
    if (message.len < BUS_HEADER_BYTES + signature_len || !read_header(message, &read)) {
        return BUS_MALFORMED;
    }
    body = bytes_make(message.ptr + BUS_HEADER_BYTES,
                      message.len - BUS_HEADER_BYTES - signature_len);
    if (!are_whole(body, read.n_records)) {
        return BUS_MALFORMED;
    }
    *header = read;
    *records = body;
    return BUS_GOOD;
}
