#include "proxy/handover_record.h"

#include <string.h>

bool handover_record_read(struct bytes message, struct handover_record *record, struct bytes *tail)
{
    struct handover_record read;
    struct bytes rest;

    if (message.len < sizeof(read)) {
        return false;
    }
    memcpy(&read, message.ptr, sizeof(read));
    rest = bytes_make(message.ptr + sizeof(read), message.len - sizeof(read));
    if (read.magic != HANDOVER_MAGIC || rest.len > HANDOVER_TAIL_MAX ||
        (uint64_t)read.name_bytes + read.input_bytes != rest.len ||
        (read.proto != 2 && read.proto != 3) || read.age_us < 0 || read.age_us > INT64_MAX / 2) {
        return false;
    }
    *record = read;
    *tail = rest;
    return true;
}
