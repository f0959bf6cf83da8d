/*
 * address.h - where to listen: HOST:PORT, [V6]:PORT, *:PORT or unix:PATH
 *
 * Purpose:    check the addresses of `listen` and `admin` when the configuration is read, so that
 *             a typing error is reported with its line and not when a socket is bound.
 * Ownership:  plain values.
 * Threading:  any thread.
 * Errors:     parsing returns false and leaves *out alone.
 */
#ifndef NC_CONFIG_ADDRESS_H
#define NC_CONFIG_ADDRESS_H

#include "base/check.h"

#include <stdbool.h>

struct config_address {
    bool is_unix;
    char host[46];  /* numeric; "0.0.0.0" for *, "127.0.0.1" for localhost; "" when is_unix */
    unsigned port;  /* 1 to 65535; 0 when is_unix */
    char path[108]; /* as long as sockaddr_un takes; "" unless is_unix */
};

/* What config_address_parse() accepts, for messages. */
#define CONFIG_ADDRESS_EXPECTED                                                                    \
    "an address as 127.0.0.1:6380, [::1]:6380, *:6380 or unix:/path (at most 107 characters)"

/* What others are told to connect to: not bound here, so a name will do. */
struct config_announce {
    char host[256]; /* a name or a numeric address, without brackets */
    unsigned port;
};

#define CONFIG_ANNOUNCE_EXPECTED "HOST:PORT or [V6]:PORT, a name as host will do"

NC_MUST_CHECK bool config_announce_parse(struct config_announce *out, const char *text);

NC_MUST_CHECK bool config_address_parse(struct config_address *out, const char *text);
bool config_address_equal(const struct config_address *a, const struct config_address *b);

#endif
