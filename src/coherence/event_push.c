#include "coherence/event_push.h"

#include "resp/resp.h"

static bool is_one_of(struct bytes kind, const char *const *words)
{
    for (; *words != NULL; words++) {
        if (bytes_equal(kind, bytes_of_string(*words))) {
            return true;
        }
    }
    return false;
}

bool event_push_read(struct bytes frame, struct event_push *push)
{
    static const char *const begun[] = {"subscribe", "psubscribe", "ssubscribe", NULL};
    static const char *const messages[] = {"message", "pmessage", "smessage", NULL};
    struct resp_value head, kind, channel, payload;

    if (!resp_next(&frame, &head) || head.n_children < 2 || !resp_next(&frame, &kind) ||
        !resp_next(&frame, &channel)) {
        return false;
    }
    *push = (struct event_push){.channel = channel.text};
    if (is_one_of(kind.text, begun)) {
        push->kind = EVENT_PUSH_BEGUN;
        return true;
    }
    if (bytes_equal(kind.text, BYTES("sunsubscribe"))) {
        push->kind = EVENT_PUSH_MOVED;
        return true;
    }
    if (!is_one_of(kind.text, messages)) {
        return false;
    }
    if (bytes_equal(kind.text, BYTES("pmessage")) && !resp_next(&frame, &channel)) {
        return false;
    }
    if (!resp_next(&frame, &payload) || payload.type != '$' || payload.is_null) {
        return false;
    }
    push->kind = EVENT_PUSH_MESSAGE;
    push->channel = channel.text;
    push->payload = payload.text;
    return true;
}
