/* fuzz.h - what fuzzers share: an entry point, and a check that ends the process */
#ifndef NC_FUZZ_H
#define NC_FUZZ_H

#include "base/bytes.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* What stands before the first zero byte; *rest is what stands behind it. */
static inline struct bytes fuzz_part(struct bytes *rest)
{
    const unsigned char *const end = rest->len > 0 ? memchr(rest->ptr, 0, rest->len) : NULL;
    const struct bytes part = end == NULL ? *rest
                                          : bytes_make(rest->ptr, (size_t)(end - rest->ptr));

    *rest = end == NULL ? bytes_make(rest->ptr + rest->len, 0)
                        : bytes_make(end + 1, rest->len - part.len - 1);
    return part;
}

/* The same as a string, to be freed. */
static inline char *fuzz_string(struct bytes *rest)
{
    const struct bytes part = fuzz_part(rest);
    char *const text = malloc(part.len + 1);

    MUST(text != NULL);
    if (part.len > 0) {
        memcpy(text, part.ptr, part.len);
    }
    text[part.len] = '\0';
    return text;
}

/* In a block of its own length: what is read beyond it is seen. To be freed. */
static inline unsigned char *fuzz_copy(struct bytes part)
{
    unsigned char *const copy = malloc(part.len > 0 ? part.len : 1);

    MUST(copy != NULL);
    if (part.len > 0) {
        memcpy(copy, part.ptr, part.len);
    }
    return copy;
}

/* It points into the text. */
static inline bool fuzz_is_within(struct bytes part, struct bytes text)
{
    return part.len == 0 ||
           (part.ptr >= text.ptr && part.len <= (size_t)(text.ptr + text.len - part.ptr));
}

#endif
