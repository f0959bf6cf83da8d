/*
 * Sessions of a predecessor: a message is taken whole, with name and input that fill it exactly, or
 * not at all; none that is shorter or longer is taken.
 */
#include "fuzz.h"

#include "proxy/handover_record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned char *const copy = fuzz_copy(bytes_make(data, size));
    const struct bytes message = bytes_make(copy, size);
    struct handover_record record, other;
    struct bytes tail, none;

    if (handover_record_read(message, &record, &tail)) {
        MUST(record.magic == HANDOVER_MAGIC && (record.proto == 2 || record.proto == 3));
        MUST(record.age_us >= 0 && tail.len <= HANDOVER_TAIL_MAX);
        MUST((size_t)record.name_bytes + record.input_bytes == tail.len);
        MUST(fuzz_is_within(tail, message) && tail.len + sizeof(record) == size);
        MUST(!handover_record_read(bytes_make(copy, size - 1), &other, &none));
    }
    free(copy);
    return 0;
}
