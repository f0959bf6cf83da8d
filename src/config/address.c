#include "config/address.h"

#include <arpa/inet.h>
#include <string.h>

#include "base/bytes.h"

static bool parse_port(const char *text, unsigned *port)
{
    int64_t value;

    if (!bytes_to_int64(bytes_of_string(text), &value) || value < 1 || value > 65535) {
        return false;
    }
    *port = (unsigned)value;
    return true;
}

static bool parse_unix(struct config_address *out, const char *path)
{
    const size_t len = strlen(path);

    if (len == 0 || len >= sizeof(out->path)) {
        return false;
    }
    *out = (struct config_address){.is_unix = true};
    memcpy(out->path, path, len + 1);
    return true;
}

/* The numeric form of host, which stands in brackets when it is IPv6. */
static bool parse_host(const char *host, size_t len, char *out, size_t size)
{
    unsigned char ignored[sizeof(struct in6_addr)];
    const bool is_v6 = len >= 2 && host[0] == '[' && host[len - 1] == ']';

    if (len == 1 && host[0] == '*') {
        memcpy(out, "0.0.0.0", sizeof("0.0.0.0"));
        return true;
    }
    if (len == strlen("localhost") && memcmp(host, "localhost", len) == 0) {
        memcpy(out, "127.0.0.1", sizeof("127.0.0.1"));
        return true;
    }
    if (is_v6) {
        host++;
        len -= 2;
    }
    if (len >= size) {
        return false;
    }
    memcpy(out, host, len);
    out[len] = '\0';
    return inet_pton(is_v6 ? AF_INET6 : AF_INET, out, ignored) == 1;
}

bool config_address_parse(struct config_address *out, const char *text)
{
    struct config_address address = {.is_unix = false};

    if (strncmp(text, "unix:", 5) == 0) {
        return parse_unix(out, text + 5);
    }

    const char *const colon = strrchr(text, ':');

    if (colon == NULL || !parse_port(colon + 1, &address.port) ||
        !parse_host(text, (size_t)(colon - text), address.host, sizeof(address.host))) {
        return false;
    }
    *out = address;
    return true;
}

/* Letters, digits, dots, dashes and underscores: what name services and /etc/hosts know. */
static bool is_host_name(const char *host, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_", host[i]) ==
            NULL) {
            return false;
        }
    }
    return len > 0;
}

bool config_announce_parse(struct config_announce *out, const char *text)
{
    const char *const colon = strrchr(text, ':');
    const size_t len = colon != NULL ? (size_t)(colon - text) : 0;
    struct config_announce announce = {.port = 0};

    if (len == 0 || len >= sizeof(announce.host) || !parse_port(colon + 1, &announce.port)) {
        return false;
    }
    if (is_host_name(text, len)) {
        memcpy(announce.host, text, len);
    } else if (text[0] != '[' || !parse_host(text, len, announce.host, sizeof(announce.host))) {
        return false;
    }
    *out = announce;
    return true;
}

bool config_address_equal(const struct config_address *a, const struct config_address *b)
{
    return a->is_unix == b->is_unix && a->port == b->port && strcmp(a->host, b->host) == 0 &&
           strcmp(a->path, b->path) == 0;
}
