#include "coherence/bus_batch.h"

#include "base/mem.h"

#include <xxhash.h>

#define N_PLACES (2 * BUS_RECORDS_MAX)

_Static_assert((N_PLACES & (N_PLACES - 1)) == 0, "places are found by a mask");

struct bus_batch *bus_batch_new(void)
{
    struct bus_batch *batch = mem_alloc(sizeof(*batch));

    buffer_init(&batch->records);
    return batch;
}

void bus_batch_free(struct bus_batch **batch)
{
    struct bus_batch *const gone = *batch;

    *batch = NULL;
    if (gone != NULL) {
        buffer_fini(&gone->records);
        mem_free(gone);
    }
}

/* A record tells its own length: equal bytes at its place are the same record. */
static bool is_at(const struct bus_batch *batch, size_t offset, struct bytes record)
{
    const struct bytes all = buffer_bytes(&batch->records);

    return record.len <= all.len - offset && memcmp(all.ptr + offset, record.ptr, record.len) == 0;
}

enum bus_added bus_batch_add(struct bus_batch *batch, struct bytes record, bool *is_duplicate)
{
    const size_t used = buffer_len(&batch->records);
    size_t place = (size_t)XXH3_64bits(record.ptr, record.len) & (N_PLACES - 1);

    *is_duplicate = false;
    while (batch->places[place] != 0) {
        if (record.ptr[0] != BUS_UPDATE && is_at(batch, batch->places[place] - 1, record)) {
            *is_duplicate = true;
            return BUS_ADDED;
        }
        place = (place + 1) & (N_PLACES - 1);
    }
    if (batch->n == BUS_RECORDS_MAX || (batch->n > 0 && used + record.len > BUS_BATCH_BYTES)) {
        return BUS_FULL;
    }
    if (buffer_append(&batch->records, record) != 0) {
        return BUS_NO_MEMORY;
    }
    batch->places[place] = (uint32_t)used + 1;
    batch->n++;
    return BUS_ADDED;
}
