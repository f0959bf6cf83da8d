/*
 * Design: a list, searched from its front, where whoever was heard last is put: a fleet is a few
 * dozen proxies, each heard once a second, and a burst comes from one of them.
 */
#include "coherence/bus_peers.h"

#include "base/mem.h"

/* Nothing was heard on the channel. */
#define UNHEARD UINT64_MAX

struct peer {
    struct peer *next;
    uint64_t origin;
    int64_t heard_at_us;
    bool was_there; /* heard, and not called silent since */
    bool has_left;
    uint64_t last[]; /* by channel: the number heard last, or UNHEARD */
};

struct bus_peers {
    struct peer *first;
    unsigned n, n_channels;
    bool used[]; /* by channel */
};

struct bus_peers *bus_peers_new(unsigned n_channels)
{
    struct bus_peers *peers = mem_alloc(sizeof(*peers) + n_channels * sizeof(bool));

    peers->n_channels = n_channels;
    return peers;
}

void bus_peers_free(struct bus_peers **peers)
{
    struct bus_peers *const gone = *peers;

    *peers = NULL;
    if (gone == NULL) {
        return;
    }
    while (gone->first != NULL) {
        struct peer *const peer = gone->first;

        gone->first = peer->next;
        mem_free(peer);
    }
    mem_free(gone);
}

/* Out of the list; NULL: not known. */
static struct peer *take(struct bus_peers *peers, uint64_t origin)
{
    struct peer **at = &peers->first;
    struct peer *found;

    while (*at != NULL && (*at)->origin != origin) {
        at = &(*at)->next;
    }
    found = *at;
    if (found != NULL) {
        *at = found->next;
        peers->n--;
    }
    return found;
}

/* The last of the list was silent longest. */
static void forget_last(struct bus_peers *peers)
{
    struct peer **at = &peers->first;

    while ((*at)->next != NULL) {
        at = &(*at)->next;
    }
    mem_free(*at);
    *at = NULL;
    peers->n--;
}

static struct peer *heard(struct bus_peers *peers, uint64_t origin)
{
    struct peer *peer = take(peers, origin);

    if (peer == NULL) {
        if (peers->n == BUS_PEERS_MAX) {
            forget_last(peers);
        }
        peer = mem_alloc(sizeof(*peer) + peers->n_channels * sizeof(peer->last[0]));
        peer->origin = origin;
        for (unsigned i = 0; i < peers->n_channels; i++) {
            peer->last[i] = UNHEARD;
        }
    }
    peer->next = peers->first;
    peers->first = peer;
    peers->n++;
    return peer;
}

static enum bus_order order_of(uint64_t last, const struct bus_header *header)
{
    if (header->is_heartbeat) {
        if (last == UNHEARD) {
            return header->seq > 0 ? BUS_FIRST : BUS_NEXT;
        }
        return header->seq > last ? BUS_GAP : BUS_NEXT;
    }
    if (last == UNHEARD) {
        return header->seq > 1 ? BUS_FIRST : BUS_NEXT;
    }
    if (header->seq <= last) {
        return BUS_DUPLICATE;
    }
    return header->seq == last + 1 ? BUS_NEXT : BUS_GAP;
}

enum bus_order bus_peers_note(struct bus_peers *peers, const struct bus_header *header,
                              unsigned channel, int64_t now_us)
{
    struct peer *const peer = heard(peers, header->origin);
    uint64_t *const last = &peer->last[channel];
    const enum bus_order order = order_of(*last, header);

    peer->heard_at_us = now_us;
    peer->was_there = true;
    peer->has_left = header->is_last;
    if (*last == UNHEARD || header->seq > *last) {
        *last = header->seq == UNHEARD ? UNHEARD - 1 : header->seq;
    }
    peers->used[channel] = true;
    return order;
}

static bool is_there(const struct peer *peer, int64_t since_us)
{
    return !peer->has_left && peer->heard_at_us >= since_us;
}

unsigned bus_peers_count(const struct bus_peers *peers, int64_t since_us)
{
    unsigned n = 0;

    for (const struct peer *peer = peers->first; peer != NULL; peer = peer->next) {
        n += is_there(peer, since_us);
    }
    return n;
}

unsigned bus_peers_take_silent(struct bus_peers *peers, int64_t since_us)
{
    unsigned n = 0;

    for (struct peer *peer = peers->first; peer != NULL; peer = peer->next) {
        n += peer->was_there && !peer->has_left && peer->heard_at_us < since_us;
        peer->was_there = peer->was_there && is_there(peer, since_us);
    }
    return n;
}

bool bus_peers_use(const struct bus_peers *peers, unsigned channel)
{
    return peers->used[channel];
}
