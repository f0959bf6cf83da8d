/*
 * bytes.h - a view of wire bytes
 *
 * Purpose:    carry keys, arguments and replies without copying; the bytes may hold
 *             zeros and are never terminated.
 * Ownership:  a view owns nothing; whoever hands one out says how long it lasts.
 * Threading:  plain values, any thread.
 * Errors:     parsers return false and leave their out parameter alone.
 * Units:      lengths are bytes.
 */
#ifndef NC_BASE_BYTES_H
#define NC_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct bytes {
    const unsigned char *ptr;
    size_t len;
};

/* A view of a string literal. */
#define BYTES(literal) ((struct bytes){(const unsigned char *)("" literal), sizeof(literal) - 1})

static inline struct bytes bytes_make(const void *ptr, size_t len)
{
    return (struct bytes){ptr, len};
}

static inline struct bytes bytes_of_string(const char *string)
{
    return (struct bytes){(const unsigned char *)string, strlen(string)};
}

static inline bool bytes_equal(struct bytes a, struct bytes b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* ASCII letters compare without case, as Redis compares command names and options. */
bool bytes_equal_nocase(struct bytes a, struct bytes b);

static inline bool bytes_start_with(struct bytes bytes, struct bytes prefix)
{
    return bytes.len >= prefix.len &&
           (prefix.len == 0 || memcmp(bytes.ptr, prefix.ptr, prefix.len) == 0);
}

/* Takes the same time wherever the first difference is: for passwords. */
bool bytes_equal_secret(struct bytes given, const char *secret);

/* Decimal, whole input; no spaces, plus sign or leading zeros: what Redis takes for an integer. */
bool bytes_to_int64(struct bytes text, int64_t *value);

/* Decimal, without a terminator; out has room for 20 characters. Returns the length. */
size_t bytes_from_int64(int64_t value, char *out);

/* Glob as in Redis' stringmatchlen(): * ? [a-z] [^x] backslash; bounded work for any pattern. */
bool bytes_match_glob(struct bytes pattern, struct bytes text);

#endif
