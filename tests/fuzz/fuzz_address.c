/*
 * Addresses, URLs of the backend, mappings, times: what is taken is within its limits, and written
 * anew is taken as the same.
 *
 * The input is one text, that each of the parsers is given.
 */
#include "fuzz.h"

#include "config/address.h"
#include "config/address_map.h"
#include "config/backend_url.h"
#include "config/options.h"

#include <stdio.h>

static void check_listen(const char *text)
{
    struct config_address address = {.port = 0}, again = {.port = 0};
    char written[sizeof(address.path) + 80];

    if (!config_address_parse(&address, text)) {
        return;
    }
    MUST(address.is_unix ? address.port == 0 && address.path[0] != '\0'
                         : address.port >= 1 && address.port <= 65535 && address.host[0] != '\0');
    if (address.is_unix) {
        snprintf(written, sizeof(written), "unix:%s", address.path);
    } else {
        snprintf(written, sizeof(written), strchr(address.host, ':') != NULL ? "[%s]:%u" : "%s:%u",
                 address.host, address.port);
    }
    MUST(config_address_parse(&again, written) && config_address_equal(&address, &again));
}

static void check_announced(const char *text)
{
    struct config_announce announce, again;
    char written[sizeof(announce.host) + 16];

    if (!config_announce_parse(&announce, text)) {
        return;
    }
    MUST(announce.port >= 1 && announce.port <= 65535 && announce.host[0] != '\0');
    snprintf(written, sizeof(written), strchr(announce.host, ':') != NULL ? "[%s]:%u" : "%s:%u",
             announce.host, announce.port);
    MUST(config_announce_parse(&again, written) && again.port == announce.port &&
         strcmp(again.host, announce.host) == 0);
}

static void check_mapping(const char *text)
{
    struct config_address_map map = {.n = 1};
    struct bytes host;
    unsigned port;

    if (!config_mapping_parse(&map.of[0], text)) {
        return;
    }
    MUST(map.of[0].from[0] != '\0' && map.of[0].to[0] != '\0');
    MUST((map.of[0].from_port == 0) == (map.of[0].to_port == 0));
    host = bytes_of_string(map.of[0].from);
    port = map.of[0].from_port != 0 ? map.of[0].from_port : 7;
    MUST(config_address_map(&map, &host, &port));
    MUST(bytes_equal(host, bytes_of_string(map.of[0].to)));
    MUST(port == (map.of[0].to_port != 0 ? map.of[0].to_port : 7));
}

static bool is_same(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static void check_same_place(const struct config_backend *a, const struct config_backend *b)
{
    MUST(a->db == b->db && a->n_seeds == b->n_seeds && a->is_tls == b->is_tls);
    MUST(is_same(a->unix_path, b->unix_path) && is_same(a->sentinel_master, b->sentinel_master));
    for (unsigned i = 0; i < a->n_seeds; i++) {
        MUST(is_same(a->seeds[i].host, b->seeds[i].host) && a->seeds[i].port == b->seeds[i].port);
    }
    MUST(b->user == NULL && b->password == NULL);
}

static void check_url(const char *text)
{
    struct config_backend backend = {.n_seeds = 0}, again = {.n_seeds = 0};
    size_t begin, end;
    const char *why = NULL;
    char written[8192];

    if (config_backend_credentials(text, &begin, &end)) {
        MUST(begin <= end && end < strlen(text));
    }
    if (!config_backend_parse(&backend, text, &why)) {
        MUST(why != NULL && backend.n_seeds == 0 && backend.unix_path == NULL);
        return;
    }
    MUST(backend.n_seeds <= CONFIG_SEEDS_MAX && backend.db <= CONFIG_DB_MAX);
    MUST((backend.n_seeds == 0) == (backend.unix_path != NULL));
    for (unsigned i = 0; i < backend.n_seeds; i++) {
        MUST(backend.seeds[i].host[0] != '\0');
        MUST(backend.seeds[i].port >= 1 && backend.seeds[i].port <= 65535);
    }
    config_backend_text(&backend, written, sizeof(written));
    if (strlen(written) < sizeof(written) - 1 && config_backend_parse(&again, written, &why)) {
        check_same_place(&backend, &again);
        config_backend_fini(&again);
    }
    config_backend_fini(&backend);
}

static void check_time(const char *text)
{
    int64_t ms = -1;

    if (config_parse_time(text, &ms)) {
        MUST(ms >= 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes input = bytes_make(data, size);
    char *const text = fuzz_string(&input);

    check_listen(text);
    check_announced(text);
    check_mapping(text);
    check_url(text);
    check_time(text);
    free(text);
    return 0;
}
