/*
 * address_map.h - where nodes are reached that announce another address (NAT, containers)
 *
 * Purpose:    option address-map: ANNOUNCED=REACHABLE, each HOST:PORT, or HOST alone for all ports.
 * Ownership:  plain values.
 * Threading:  any thread; constant once the configuration is read.
 * Errors:     parsing returns false and leaves *out alone.
 */
#ifndef NC_CONFIG_ADDRESS_MAP_H
#define NC_CONFIG_ADDRESS_MAP_H

#include "base/bytes.h"
#include "base/check.h"

#include <stdbool.h>

#define CONFIG_MAPPINGS_MAX 16
#define CONFIG_MAPPING_EXPECTED                                                                    \
    "ANNOUNCED=REACHABLE, both HOST:PORT or both HOST; an IPv6 HOST in brackets"

struct config_mapping {
    char from[256], to[256];     /* without brackets */
    unsigned from_port, to_port; /* 0: any, and the same */
};

struct config_address_map {
    unsigned n;
    struct config_mapping of[CONFIG_MAPPINGS_MAX];
};

NC_MUST_CHECK bool config_mapping_parse(struct config_mapping *out, const char *text);

/* True: *host and *port were announced by the backend and are reached elsewhere; they are changed.
 */
bool config_address_map(const struct config_address_map *map, struct bytes *host, unsigned *port);

#endif
