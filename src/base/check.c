/*
 * check.c - the end of a process whose state cannot be trusted any more
 */
#include "base/check.h"

#include <stdlib.h>

#include "base/log.h"

/* Source text holds quotes; log_quote() would cut a long expression where it becomes interesting.
 */
static void escape(const char *text, char *out, size_t size)
{
    size_t len = 0;

    for (; *text != '\0' && len + 3 <= size; text++) {
        if (*text == '"' || *text == '\\') {
            out[len++] = '\\';
        }
        out[len++] = *text;
    }
    out[len] = '\0';
}

void check_failed(const char *expression, const char *file, int line, const char *function)
{
    char escaped[512];

    escape(expression, escaped, sizeof escaped);
    log_error("check", "check failed", "expression=\"%s\" file=%s line=%d function=%s", escaped,
              file, line, function);
    abort();
}
