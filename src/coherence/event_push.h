/*
 * event_push.h - what comes on a connection that is subscribed for a source of events, as pure code
 *
 * Purpose:    take a push apart: the end of subscribing, the loss of a shard channel, a message.
 * Ownership:  what is read points into the frame.
 * Threading:  any thread.
 * Errors:     false: none of these, to be passed over.
 */
#ifndef NC_COHERENCE_EVENT_PUSH_H
#define NC_COHERENCE_EVENT_PUSH_H

#include "base/bytes.h"

#include <stdbool.h>

enum event_push_kind {
    EVENT_PUSH_BEGUN, /* from here on messages come */
    EVENT_PUSH_MOVED, /* a shard channel that the node has no more */
    EVENT_PUSH_MESSAGE,
};

struct event_push {
    enum event_push_kind kind;
    struct bytes channel;
    struct bytes payload; /* of a message; never a null one */
};

bool event_push_read(struct bytes frame, struct event_push *push);

#endif
