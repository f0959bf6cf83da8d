/*
 * Messages of the bus: one that is taken, written anew, is taken as the same; whatever is cut off
 * it is not taken; and none is taken by a proxy with a secret, as no input can be signed.
 */
#include "fuzz.h"

#include "coherence/bus_batch.h"
#include "coherence/bus_record.h"

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

/* Signed here it is taken by who has the secret, on this channel, and as it is. */
static void must_be_signed(const struct bus_header *header, struct bytes records)
{
    struct bus_header again;
    struct buffer message;
    struct bytes read;

    buffer_init(&message);
    MUST(bus_message_write(&message, header, records, BYTES("secret"), CHANNEL) == 0);
    const struct bytes whole = buffer_bytes(&message);
    MUST(bus_message_read(whole, BYTES("secret"), CHANNEL, &again, &read) == BUS_GOOD);
    MUST(again.is_signed && again.seq == header->seq && bytes_equal(read, records));
    MUST(bus_message_read(whole, BYTES("other"), CHANNEL, &again, &read) == BUS_FORGED);
    MUST(bus_message_read(whole, BYTES("secret"), BYTES("nc:other"), &again, &read) == BUS_FORGED);
    /* One bit, wherever: version and flags may make it something else that is refused. */
    unsigned char *const changed = fuzz_copy(whole);
    changed[header->seq % whole.len] ^= (unsigned char)(1u << (header->origin % 8));
    MUST(bus_message_read(bytes_make(changed, whole.len), BYTES("secret"), CHANNEL, &again,
                          &read) != BUS_GOOD);
    free(changed);
    buffer_fini(&message);
}

/* Gathered one by one, each is there once. */
static void must_be_batched(struct bytes records, unsigned n)
{
    struct bus_batch *batch = bus_batch_new();

    MUST(batch != NULL);
    for (unsigned i = 0; i < n; i++) {
        const unsigned char *const begin = records.ptr;
        const unsigned before = batch->n;
        struct bus_record record;
        bool is_duplicate = false;

        MUST(bus_record_next(&records, &record));
        const struct bytes written = bytes_make(begin, (size_t)(records.ptr - begin));
        const enum bus_added added = bus_batch_add(batch, written, &is_duplicate);
        MUST(added == BUS_ADDED || batch->n > 0);
        MUST(added != BUS_ADDED || batch->n == before + (is_duplicate ? 0 : 1));
        if (added == BUS_ADDED && record.kind != BUS_UPDATE) {
            MUST(bus_batch_add(batch, written, &is_duplicate) == BUS_ADDED && is_duplicate);
        }
    }
    bus_batch_free(&batch);
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
    must_be_signed(header, buffer_bytes(&first));
    must_be_batched(buffer_bytes(&first), header->n_records);
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
