#include "config/address_map.h"

#include <string.h>

/* HOST, HOST:PORT, [V6] or [V6]:PORT; port 0: none given. */
static bool parse_side(struct bytes text, char host[256], unsigned *port)
{
    const bool is_v6 = text.len > 0 && text.ptr[0] == '[';
    const unsigned char *end = is_v6 ? memchr(text.ptr, ']', text.len)
                                     : memchr(text.ptr, ':', text.len);
    struct bytes name = text, rest = BYTES("");
    int64_t number = 0;

    if (is_v6 && end == NULL) {
        return false;
    }
    if (is_v6) {
        name = bytes_make(text.ptr + 1, (size_t)(end - text.ptr) - 1);
        rest = bytes_make(end + 1, text.len - name.len - 2);
    } else if (end != NULL) {
        name = bytes_make(text.ptr, (size_t)(end - text.ptr));
        rest = bytes_make(end, text.len - name.len);
    }
    if (name.len == 0 || name.len > 255 || memchr(name.ptr, ' ', name.len) != NULL ||
        (rest.len > 0 &&
         (rest.ptr[0] != ':' || !bytes_to_int64(bytes_make(rest.ptr + 1, rest.len - 1), &number) ||
          number < 1 || number > 65535))) {
        return false;
    }
    memcpy(host, name.ptr, name.len);
    host[name.len] = '\0';
    *port = (unsigned)number;
    return true;
}

bool config_mapping_parse(struct config_mapping *out, const char *text)
{
    struct config_mapping mapping = {.from_port = 0};
    const char *equals = strchr(text, '=');

    if (equals == NULL ||
        !parse_side(bytes_make(text, (size_t)(equals - text)), mapping.from, &mapping.from_port) ||
        !parse_side(bytes_of_string(equals + 1), mapping.to, &mapping.to_port) ||
        (mapping.from_port == 0) != (mapping.to_port == 0)) {
        return false;
    }
    *out = mapping;
    return true;
}

bool config_address_map(const struct config_address_map *map, struct bytes *host, unsigned *port)
{
    const struct config_mapping *best = NULL;

    for (unsigned i = 0; i < map->n; i++) {
        const struct config_mapping *at = &map->of[i];

        if (bytes_equal(*host, bytes_of_string(at->from)) &&
            (at->from_port == *port || (at->from_port == 0 && best == NULL))) {
            best = at;
        }
    }
    if (best == NULL) {
        return false;
    }
    *host = bytes_of_string(best->to);
    *port = best->to_port != 0 ? best->to_port : *port;
    return true;
}
