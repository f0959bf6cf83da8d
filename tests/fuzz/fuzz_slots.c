/*
 * Replies to CLUSTER SLOTS: a map names only nodes that it has, in order, each once, and owners are
 * masters; the same bytes give the same map.
 */
#include "fuzz.h"

#include "resp/resp.h"
#include "upstream/topology.h"

static void check_nodes(const struct topology *topology)
{
    MUST(topology->n_nodes >= 1);
    for (unsigned i = 0; i < topology->n_nodes; i++) {
        const struct topology_node *const node = &topology->nodes[i];

        MUST(memchr(node->host, 0, sizeof(node->host)) != NULL && node->host[0] != '\0');
        MUST(node->port >= 1 && node->port <= 65535);
        MUST(topology_find(topology, node->host, node->port) == node);
        MUST(node->id == 0 || topology_by_id(topology, node->id) == node);
    }
    for (unsigned slot = 0; slot < EPOCHS_SLOTS; slot++) {
        MUST(topology->slot_node[slot] == TOPOLOGY_NO_NODE ||
             topology->slot_node[slot] < topology->n_nodes);
        MUST(topology->slot_node[slot] == TOPOLOGY_NO_NODE ||
             topology->nodes[topology->slot_node[slot]].is_master);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned char *const copy = fuzz_copy(bytes_make(data, size));
    const struct bytes reply = bytes_make(copy, size);
    struct topology *topology, *again;
    struct bytes end = reply;

    if (resp_skip(&end) && end.len == 0) { /* links hand on whole replies alone */
        topology = topology_from_slots(reply, "10.0.0.1", NULL);
        again = topology_from_slots(reply, "10.0.0.1", NULL);
        MUST((topology == NULL) == (again == NULL));
        if (topology != NULL) {
            check_nodes(topology);
            MUST(topology_equal(topology, again) && !topology_has_moved(topology, again));
        }
        topology_unref(&topology);
        topology_unref(&again);
    }
    free(copy);
    return 0;
}
