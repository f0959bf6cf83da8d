#include "proxy/key_run.h"

#include "resp/resp.h"

#include <errno.h>
#include <string.h>

int key_run_add(struct buffer *run, struct bytes key)
{
    const uint32_t len = (uint32_t)key.len;
    int error = buffer_append(run, bytes_make(&len, sizeof(len)));

    if (error == 0) {
        error = buffer_append(run, key);
    }
    return error;
}

int key_run_add_array(struct buffer *run, struct bytes array)
{
    struct resp_value head, key;
    int error = 0;

    if (!resp_next(&array, &head) || head.type != '*') {
        return -EINVAL;
    }
    for (size_t i = 0; i < head.n_children && error == 0; i++) {
        error = resp_next(&array, &key) && key.type == '$' ? key_run_add(run, key.text) : -EINVAL;
    }
    return error;
}

bool key_run_next(struct bytes *run, struct bytes *key)
{
    uint32_t len;

    if (run->len < sizeof(len)) {
        return false;
    }
    memcpy(&len, run->ptr, sizeof(len));
    if (run->len - sizeof(len) < len) {
        return false;
    }
    *key = bytes_make(run->ptr + sizeof(len), len);
    run->ptr += sizeof(len) + len;
    run->len -= sizeof(len) + len;
    return true;
}
