/*
 * bytes.c - comparing, numbers and globs
 *
 * The glob matcher goes back to the last star only. Every other token takes exactly one byte, so
 * an earlier star can gain nothing that the last one cannot, and the work is bounded by the
 * product of the two lengths where a recursive matcher is exponential in the number of stars.
 */
#include "base/bytes.h"

static unsigned char lower(unsigned char c)
{
    return c >= 'A' && c <= 'Z' ? (unsigned char)(c + ('a' - 'A')) : c;
}

bool bytes_equal_nocase(struct bytes a, struct bytes b)
{
    if (a.len != b.len) {
        return false;
    }
    for (size_t i = 0; i < a.len; i++) {
        if (lower(a.ptr[i]) != lower(b.ptr[i])) {
            return false;
        }
    }
    return true;
}

bool bytes_equal_secret(struct bytes given, const char *secret)
{
    const size_t length = strlen(secret);
    unsigned difference = given.len != length;

    for (size_t i = 0; i < given.len; i++) {
        difference |= given.ptr[i] ^ (unsigned char)secret[length == 0 ? 0 : i % length];
    }
    return difference == 0;
}

bool bytes_to_int64(struct bytes text, int64_t *value)
{
    const bool is_negative = text.len > 0 && text.ptr[0] == '-';
    const uint64_t limit = (uint64_t)INT64_MAX + is_negative;
    uint64_t magnitude = 0;
    size_t i = is_negative;

    /* 20 characters is the longest number; a zero stands alone, without a sign. */
    if (i == text.len || text.len > 20 || (text.ptr[i] == '0' && text.len > 1)) {
        return false;
    }
    for (; i < text.len; i++) {
        const unsigned digit = (unsigned)text.ptr[i] - '0';

        if (digit > 9 || magnitude > (limit - digit) / 10) {
            return false;
        }
        magnitude = magnitude * 10 + digit;
    }
    *value = (int64_t)(is_negative ? 0 - magnitude : magnitude);
    return true;
}

size_t bytes_from_int64(int64_t value, char *out)
{
    uint64_t magnitude = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    char digits[20];
    size_t n_digits = 0;
    size_t len = 0;

    do {
        digits[n_digits++] = (char)('0' + magnitude % 10);
        magnitude /= 10;
    } while (magnitude > 0);
    if (value < 0) {
        out[len++] = '-';
    }
    while (n_digits > 0) {
        out[len++] = digits[--n_digits];
    }
    return len;
}

/*
 * Redis compares the ends of a range as signed characters, in either order; a range takes what
 * stands behind its dash even when that is the closing bracket.
 */
static bool is_in_range(unsigned char first, unsigned char last, unsigned char c)
{
    const int a = (signed char)first;
    const int b = (signed char)last;
    const int x = (signed char)c;

    return a <= b ? (a <= x && x <= b) : (b <= x && x <= a);
}

/* Matches c against the class whose bracket stands at pattern[*at], and moves *at behind it. */
static bool match_class(struct bytes pattern, size_t *at, unsigned char c)
{
    size_t i = *at + 1;
    const bool is_negated = i < pattern.len && pattern.ptr[i] == '^';
    bool is_match = false;

    i += is_negated;
    /* A class that is never closed reaches to the end of the pattern. */
    while (i < pattern.len && pattern.ptr[i] != ']') {
        const size_t left = pattern.len - i;

        if (left >= 2 && pattern.ptr[i] == '\\') {
            is_match |= pattern.ptr[i + 1] == c;
            i += 2;
        } else if (left >= 3 && pattern.ptr[i + 1] == '-') {
            is_match |= is_in_range(pattern.ptr[i], pattern.ptr[i + 2], c);
            i += 3;
        } else {
            is_match |= pattern.ptr[i] == c;
            i += 1;
        }
    }
    *at = i < pattern.len ? i + 1 : i;
    return is_match != is_negated;
}

/* Matches c against the one-byte token at pattern[*at], and moves *at behind it. */
static bool match_token(struct bytes pattern, size_t *at, unsigned char c)
{
    switch (pattern.ptr[*at]) {
    case '?':
        *at += 1;
        return true;
    case '[':
        return match_class(pattern, at, c);
    case '\\':
        /* A backslash at the very end stands for itself. */
        if (*at + 1 < pattern.len) {
            *at += 1;
        }
        break;
    default:
        break;
    }
    return pattern.ptr[(*at)++] == c;
}

/*
 * One difference to stringmatchlen(), which calls no pattern but the empty one a match for an
 * empty text: here stars match it. KEYS * does as well, by a shortcut of its own.
 */
bool bytes_match_glob(struct bytes pattern, struct bytes text)
{
    size_t p = 0;
    size_t t = 0;
    size_t behind_star = SIZE_MAX; /* in the pattern; SIZE_MAX: no star yet */
    size_t star_ends = 0;          /* in the text: how far the last star reaches */

    while (t < text.len) {
        if (p < pattern.len && pattern.ptr[p] == '*') {
            behind_star = ++p;
            star_ends = t;
            if (p == pattern.len) {
                return true;
            }
        } else if (p < pattern.len && match_token(pattern, &p, text.ptr[t])) {
            t++;
        } else if (behind_star != SIZE_MAX) {
            p = behind_star;
            t = ++star_ends;
        } else {
            return false;
        }
    }
    while (p < pattern.len && pattern.ptr[p] == '*') {
        p++;
    }
    return p == pattern.len;
}
