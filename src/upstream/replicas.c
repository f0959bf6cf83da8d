#include "upstream/replicas.h"

#include "upstream/info_text.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* By node number. Release and acquire: who sees the time sees nothing older than it. */
static _Atomic int64_t caught_up[UINT16_MAX + 1];

void replicas_note(epochs_node node, int64_t caught_up_us)
{
    atomic_store_explicit(&caught_up[node], caught_up_us, memory_order_release);
}

int64_t replicas_caught_up(epochs_node node)
{
    return atomic_load_explicit(&caught_up[node], memory_order_acquire);
}

static void add_sample(struct replicas *replicas, int64_t at_us, int64_t offset)
{
    if (replicas->n_samples == REPLICAS_SAMPLES) {
        replicas->n_samples--;
        memmove(&replicas->samples[0], &replicas->samples[1],
                replicas->n_samples * sizeof(replicas->samples[0]));
    }
    replicas->samples[replicas->n_samples].at_us = at_us;
    replicas->samples[replicas->n_samples++].offset = offset;
}

/* When the master stood at this offset, or further back. */
static int64_t time_of(const struct replicas *replicas, int64_t offset)
{
    for (unsigned i = replicas->n_samples; i > 0; i--) {
        if (replicas->samples[i - 1].offset <= offset) {
            return replicas->samples[i - 1].at_us;
        }
    }
    return 0;
}

/* "ip=10.0.0.7,port=6379,state=online,offset=1234,lag=0": the value behind "name=". */
static bool find_word(struct bytes line, const char *name, struct bytes *value)
{
    const size_t name_len = strlen(name);

    while (line.len > 0) {
        const unsigned char *end = memchr(line.ptr, ',', line.len);
        const size_t len = end == NULL ? line.len : (size_t)(end - line.ptr);

        if (len > name_len && memcmp(line.ptr, name, name_len) == 0 && line.ptr[name_len] == '=') {
            *value = bytes_make(line.ptr + name_len + 1, len - name_len - 1);
            return true;
        }
        if (end == NULL) {
            return false;
        }
        line = bytes_make(end + 1, line.len - len - 1);
    }
    return false;
}

/* False: it is not online, or makes no sense. */
static bool read_replica(const struct replicas *replicas, struct bytes line,
                         struct replica *replica, const struct config_address_map *map)
{
    struct bytes host, port, state, offset;
    int64_t port_number, acknowledged;

    if (!find_word(line, "ip", &host) || !find_word(line, "port", &port) ||
        !find_word(line, "state", &state) || !find_word(line, "offset", &offset) ||
        !bytes_equal(state, BYTES("online")) || host.len == 0 ||
        host.len >= sizeof(replica->host) || !bytes_to_int64(port, &port_number) ||
        port_number < 1 || port_number > UINT16_MAX || !bytes_to_int64(offset, &acknowledged)) {
        return false;
    }
    replica->port = (unsigned)port_number;
    if (map != NULL) {
        (void)config_address_map(map, &host, &replica->port);
    }
    memcpy(replica->host, host.ptr, host.len);
    replica->host[host.len] = '\0';
    replica->caught_up_us = time_of(replicas, acknowledged);
    return true;
}

static int compare(const void *left, const void *right)
{
    const struct replica *a = left, *b = right;
    const int by_host = strcmp(a->host, b->host);

    return by_host != 0 ? by_host : (a->port > b->port) - (a->port < b->port);
}

void replicas_take(struct replicas *replicas, struct bytes info, int64_t asked_at_us,
                   const struct config_address_map *map)
{
    struct bytes id, offset, line;
    int64_t reached;

    replicas->n = 0;
    if (!info_text_find(info, "master_replid", &id) || id.len >= sizeof(replicas->id) ||
        !info_text_find(info, "master_repl_offset", &offset) || !bytes_to_int64(offset, &reached)) {
        replicas->n_samples = 0;
        return;
    }
    if (!bytes_equal(id, bytes_of_string(replicas->id))) {
        memcpy(replicas->id, id.ptr, id.len);
        replicas->id[id.len] = '\0';
        replicas->n_samples = 0;
    }
    add_sample(replicas, asked_at_us, reached);
    for (unsigned i = 0; replicas->n < REPLICAS_MAX; i++) {
        char name[24];

        snprintf(name, sizeof(name), "slave%u", i);
        if (!info_text_find(info, name, &line)) {
            break;
        }
        replicas->n += read_replica(replicas, line, &replicas->list[replicas->n], map);
    }
    qsort(replicas->list, replicas->n, sizeof(replicas->list[0]), compare);
}
