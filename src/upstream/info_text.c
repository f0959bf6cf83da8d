#include "upstream/info_text.h"

#include <string.h>

bool info_text_find(struct bytes text, const char *name, struct bytes *value)
{
    const size_t name_len = strlen(name);

    while (text.len > 0) {
        const unsigned char *end = memchr(text.ptr, '\n', text.len);
        const size_t line_len = end == NULL ? text.len : (size_t)(end - text.ptr);

        if (line_len > name_len && memcmp(text.ptr, name, name_len) == 0 &&
            text.ptr[name_len] == ':') {
            *value = bytes_make(text.ptr + name_len + 1, line_len - name_len - 1);
            if (value->len > 0 && value->ptr[value->len - 1] == '\r') {
                value->len--;
            }
            return true;
        }
        if (end == NULL) {
            return false;
        }
        text = bytes_make(end + 1, text.len - line_len - 1);
    }
    return false;
}
