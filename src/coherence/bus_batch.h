/*
 * bus_batch.h - the records of one message while it is gathered
 *
 * Purpose:    records one behind the other, as they go on the wire; one that is there already is
 *             not added again (but for UPDATE, whose order counts).
 * Ownership:  whoever made it frees it.
 * Threading:  one owner.
 * Units:      bytes on the wire.
 */
#ifndef NC_COHERENCE_BUS_BATCH_H
#define NC_COHERENCE_BUS_BATCH_H

#include "coherence/bus_record.h"

struct bus_batch {
    struct bus_batch *next; /* of its owner's */
    struct buffer records;
    unsigned n;
    /* Open addressing: where each record begins in `records`, plus one; 0: free. */
    uint32_t places[2 * BUS_RECORDS_MAX];
};

/* BUS_ADDED: also when it was merged: *is_duplicate. */
enum bus_added { BUS_ADDED, BUS_FULL, BUS_NO_MEMORY };

struct bus_batch *bus_batch_new(void);
void bus_batch_free(struct bus_batch **batch);
/* record: as bus_record_write() left it. An empty batch takes any one. */
enum bus_added bus_batch_add(struct bus_batch *batch, struct bytes record, bool *is_duplicate);

#endif
