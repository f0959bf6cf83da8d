#include "resp/own.h"

#include "base/check.h"

struct bytes own_spell(unsigned char room[OWN_NAME_MAX], struct bytes name)
{
    CHECK(name.len > 0 && name.len <= OWN_NAME_MAX);
    memcpy(room, name.ptr, name.len);
    room[name.len - 1] |= 0x20;
    return bytes_make(room, name.len);
}

bool own_is_name(struct bytes name)
{
    if (name.len < 2 || name.ptr[name.len - 1] < 'a' || name.ptr[name.len - 1] > 'z') {
        return false;
    }
    for (size_t i = 0; i < name.len - 1; i++) {
        if ((name.ptr[i] < 'A' || name.ptr[i] > 'Z') && name.ptr[i] != '_') {
            return false;
        }
    }
    return true;
}

/* +1700000000.123456 [0 127.0.0.1:6379] "GET" "key" */
bool own_is_monitor_line(struct bytes line)
{
    static const char before[] = "] \"";
    const unsigned char *at = memmem(line.ptr, line.len, before, sizeof(before) - 1);
    const unsigned char *end;
    size_t left;

    if (at == NULL) {
        return false;
    }
    at += sizeof(before) - 1;
    left = line.len - (size_t)(at - line.ptr);
    end = memchr(at, '"', left);
    return end != NULL && own_is_name(bytes_make(at, (size_t)(end - at)));
}
