/*
 * upload.h - a request larger than large-request, passed on as it arrives
 *
 * Purpose:    a value of any size reaches the backend through a window of bounded size, over a
 *             leased connection. Only this client waits when the backend is slow.
 * Ownership:  the session owns its upload; its request stands in the session's queue as any other.
 * Threading:  the session's worker.
 * Errors:     a request whose keys are not known when its bulk arrives (MSET, a large script) is
 *             collected, up to client-input-limit. Above it the client is told, and the rest of
 *             its request is skipped.
 *
 * It begins when the session owes nothing (W3), and what its client sends next waits for the
 * answer. Until its last byte is there the backend executes nothing: a client that leaves, or a
 * connection that breaks midway, changes no key. It cannot be sent a second time: on a cluster its
 * key's node is asked first, with EXISTS, and where the slot moves later the error is TRYAGAIN.
 */
#ifndef NC_PROXY_UPLOAD_H
#define NC_PROXY_UPLOAD_H

#include "proxy/dispatch.h"

enum upload_verdict {
    UPLOAD_NOT,   /* collect it: it is small, or cannot be passed on piece by piece */
    UPLOAD_BEGUN, /* session->upload takes the input from now on: it shows the same bytes again */
    UPLOAD_STALL, /* look at it again when the session owes nothing */
};

/* input: of an unfinished request whose reader said RESP_MORE with `wanted`. */
enum upload_verdict upload_consider(struct session *session, const struct resp_reader *reader,
                                    struct bytes input, size_t wanted);

/* Takes input of session->upload; how much of it. *error: a protocol error, if there is
 * one, valid until upload_end(), which must follow. */
size_t upload_take(struct session *session, struct bytes input, const char **error);
/* No input is wanted now: the window is full, or the node is still being asked. */
bool upload_is_full(const struct session *session);
/* The client left, or must. */
void upload_end(struct session *session);

#endif
