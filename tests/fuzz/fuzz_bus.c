/*
 * Messages of the bus: one that is taken, written anew, is taken as the same; whatever is cut off
 * it is not taken; and none is taken by a proxy with a secret, as no input can be signed.
 */
#include "coherence/bus_record.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#define CHANNEL BYTES("nc:fuzz:inv")

/* Its records, written anew from what was read of them. */
static void rewrite(struct buffer *out, struct bytes records, unsigned n)
{
    struct bus_record record;

    while (n-- > 0) {
        MUST(bus_record_next(&records, &record));
        MUST(bus_record_write(out, &record) == 0);
    }
    MUST(records.len == 0);
}

static void must_be_stable(const struct bus_header *header, struct bytes records)
{
    struct buffer first, second;
    struct bus_header again;
    struct bytes read;

    buffer_init(&first);
    buffer_init(&second);
    rewrite(&first, records, header->n_records);
    MUST(bus_message_write(&second, header, buffer_bytes(&first), BYTES(""), CHANNEL) == 0);
    /* Shorter lengths may make it shorter, never longer. */
    MUST(bus_message_read(buffer_bytes(&second), BYTES(""), CHANNEL, &again, &read) == BUS_GOOD);
    MUST(again.origin == header->origin && again.seq == header->seq);
    MUST(again.n_records == header->n_records && again.is_heartbeat == header->is_heartbeat);
    MUST(bytes_equal(read, buffer_bytes(&first)));
    buffer_fini(&first);
    buffer_fini(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct bytes input = bytes_make(data, size);
    struct bus_header header;
    struct bytes records;
    enum bus_verdict verdict = bus_message_read(input, BYTES("secret"), CHANNEL, &header, &records);

    MUST(verdict != BUS_GOOD && verdict != BUS_NEWER);
    verdict = bus_message_read(input, BYTES(""), CHANNEL, &header, &records);
    if (verdict != BUS_GOOD) {
        return 0;
    }
    must_be_stable(&header, records);
    MUST(bus_message_read(bytes_make(data, size - 1), BYTES(""), CHANNEL, &header, &records) !=
         BUS_GOOD);
    return 0;
}
