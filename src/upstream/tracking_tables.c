#include "upstream/tracking_tables.h"

#include "base/check.h"
#include "base/mem.h"

#include <string.h>

struct record {
    uint64_t n_keys, limit;
    bool has_keys;
};

/* By node number; these are given out one after the other. */
static struct record *records;
static size_t n_records;

static struct record *record_of(epochs_node node)
{
    if (node >= n_records) {
        const size_t n = (size_t)node + 16;
        struct record *more = mem_try_realloc(records, n * sizeof(*more));

        CHECK(more != NULL);
        memset(more + n_records, 0, (n - n_records) * sizeof(*more));
        records = more;
        n_records = n;
    }
    return &records[node];
}

void tracking_tables_note_keys(epochs_node node, uint64_t n_keys)
{
    struct record *record = record_of(node);

    record->n_keys = n_keys;
    record->has_keys = true;
}

void tracking_tables_note_limit(epochs_node node, uint64_t limit)
{
    record_of(node)->limit = limit;
}

bool tracking_tables_keys(epochs_node node, uint64_t *n_keys)
{
    const bool is_known = node < n_records && records[node].has_keys;

    *n_keys = is_known ? records[node].n_keys : 0;
    return is_known;
}

bool tracking_tables_limit(epochs_node node, uint64_t *limit)
{
    *limit = node < n_records ? records[node].limit : 0;
    return *limit > 0;
}
