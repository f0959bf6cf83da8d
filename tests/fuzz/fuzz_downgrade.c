/*
 * Downgrades: whatever comes in, what goes out is exactly one reply that RESP2 knows; RESP2 stays
 * as it is; a downgrade of a downgrade changes nothing; a malformed reply appends nothing.
 *
 * The first byte of the input chooses the form.
 */
#include "fuzz.h"

#include "resp/resp.h"

#include <errno.h>

static void check_once_more(struct bytes resp2)
{
    struct buffer again;

    buffer_init(&again);
    MUST(resp_downgrade(resp2, DOWNGRADE_PLAIN, &again) == 0);
    MUST(bytes_equal(buffer_bytes(&again), resp2));
    buffer_fini(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum resp_downgrade how;
    struct bytes reply, end;
    struct buffer out;
    bool is_one_reply;
    int error;

    if (size == 0) {
        return 0;
    }
    how = (enum resp_downgrade)(data[0] % N_DOWNGRADES);
    reply = bytes_make(data + 1, size - 1);
    end = reply;
    is_one_reply = resp_skip(&end) && end.len == 0;

    buffer_init(&out);
    error = resp_downgrade(reply, how, &out);
    if (error != 0) {
        MUST(error == -EINVAL && buffer_len(&out) == 0);
        MUST(!is_one_reply || how == DOWNGRADE_PAIRS);
    } else {
        struct resp_framer framer = {0};
        const struct bytes resp2 = buffer_bytes(&out);
        size_t used = 0;

        MUST(is_one_reply);
        MUST(resp_frame(&framer, resp2.ptr, resp2.len, &used) == RESP_OK && used == resp2.len);
        MUST(resp_is_same_in_both(resp2));
        MUST(how == DOWNGRADE_PAIRS || !resp_is_same_in_both(reply) || bytes_equal(reply, resp2));
        check_once_more(resp2);
    }
    buffer_fini(&out);
    return 0;
}
