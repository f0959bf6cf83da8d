/*
 * wire.h - what one header line of RESP says; shared by the framer and the cursor
 *
 * Purpose:    one reading of type bytes and lengths, so that the two cannot disagree about where
 *             a value ends.
 * Ownership:  none. Threading: pure functions.
 * Errors:     see wire_read_number(). Lengths are strict: no plus sign, no leading zero, CRLF.
 */
#ifndef NC_RESP_WIRE_H
#define NC_RESP_WIRE_H

#include "base/bytes.h"
#include "base/check.h"

enum wire_kind {
    WIRE_BAD,
    WIRE_TEXT,      /* up to CRLF: + - : , ( # _ */
    WIRE_BULK,      /* a length, then that many bytes and CRLF: $ = ! */
    WIRE_ARRAY,     /* a count of values: * ~ > */
    WIRE_MAP,       /* a count of pairs: % */
    WIRE_ATTRIBUTE, /* a count of pairs, then the value they describe: | */
};

/* A text's shape by its first byte. */
extern const unsigned char wire_kinds[256];

/* What a peer may declare; keeps every sum of such numbers far from an overflow. */
#define WIRE_MAX_CHILDREN ((int64_t)1 << 32)
#define WIRE_MAX_BULK ((int64_t)1 << 48)
/* Type byte, digits up to the limits above, CRLF; any longer line is refused before that. */
#define WIRE_MAX_HEADER 24

enum { WIRE_NUMBER_CUT = 0, WIRE_NUMBER_BAD = -1 };

/*
 * The number between the type byte and CRLF. Returns the bytes it takes, CRLF included;
 * WIRE_NUMBER_CUT: fits so far but does not end here; WIRE_NUMBER_BAD. is_nullable allows -1.
 */
static inline int wire_read_number(const unsigned char *at, const unsigned char *end,
                                   bool is_nullable, int64_t *number)
{
    const unsigned char *const start = at;
    int64_t n = 0;

    if (is_nullable && at < end && *at == '-') {
        static const unsigned char null[] = "-1\r\n";
        const size_t seen = (size_t)(end - at) < 4 ? (size_t)(end - at) : 4;

        *number = -1;
        return memcmp(at, null, seen) != 0 ? WIRE_NUMBER_BAD : seen < 4 ? WIRE_NUMBER_CUT : 4;
    }
    while (at < end && (unsigned)(*at - '0') <= 9) {
        if ((n == 0 && at > start) || at - start == 15) {
            return WIRE_NUMBER_BAD;
        }
        n = n * 10 + (*at - '0');
        at++;
    }
    *number = n;
    if (at == end) {
        return WIRE_NUMBER_CUT;
    }
    if (at == start || at[0] != '\r') {
        return WIRE_NUMBER_BAD;
    }
    if (at + 1 == end) {
        return WIRE_NUMBER_CUT;
    }
    return at[1] == '\n' ? (int)(at + 2 - start) : WIRE_NUMBER_BAD;
}

/* The number is one that a value of this kind may declare. */
static inline bool wire_number_fits(enum wire_kind kind, int64_t number)
{
    return number <= (kind == WIRE_BULK ? WIRE_MAX_BULK : WIRE_MAX_CHILDREN);
}

/* A null can be spelled with a length of -1 in RESP2's own types only. */
static inline bool wire_is_nullable(unsigned char type)
{
    return type == '$' || type == '*';
}

#endif
