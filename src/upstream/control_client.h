/*
 * control_client.h - one connection for control traffic: commands out, whole replies in
 *
 * Purpose:    what the control thread asks of a node (INFO, CLUSTER SLOTS ...). Few and small
 *             requests: no batching, RESP2, every reply collected whole.
 * Ownership:  the client owns its connection and copies what it sends. Replies are borrowed for
 *             the call that hands them out.
 * Threading:  the thread of the event base.
 * Errors:     a connection that fails, is silent or speaks no RESP is closed and on_down() tells
 *             why, once. Requests in flight are then forgotten: their on_reply is not called.
 * Units:      milliseconds.
 */
#ifndef NC_UPSTREAM_CONTROL_CLIENT_H
#define NC_UPSTREAM_CONTROL_CLIENT_H

#include "base/stream.h"
#include "resp/resp.h"

#include <event2/event.h>

struct control_client; /* opaque */

/* head is the reply's first value, reply all its bytes. */
typedef void (*control_reply_fn)(const struct resp_value *head, struct bytes reply, void *context);

struct control_events {
    /* Connected, and logged in where there is a password. */
    void (*on_up)(void *context);
    /*
     * Lost, or never came up. is_refused: the node refused the login, reason holds its words.
     * Never a secret. The client may be connected again, or freed, once this has returned.
     */
    void (*on_down)(const char *reason, bool is_refused, void *context);
    /* What nobody asked for: messages of channels. NULL: an error that closes the connection. */
    control_reply_fn on_message;
};

struct control_settings {
    const char *user, *password; /* NULL: none; borrowed while connecting */
    int64_t connect_timeout_ms;  /* connection and login together */
    int64_t request_timeout_ms;
    struct tls_context *tls; /* NULL: plain; borrowed while connecting */
};

/* events must outlive the client; context goes into every callback. */
struct control_client *control_client_new(struct event_base *base,
                                          const struct control_events *events, void *context);
/* Not from within a callback of this client. */
void control_client_free(struct control_client **client);

/*
 * The client must be closed. Neither callback is called before this returns. host: what TLS asks
 * for and verifies.
 */
void control_client_connect(struct control_client *client, const struct endpoint *endpoint,
                            const char *host, const struct control_settings *settings);
/* Closes without on_down(). Allowed at any time. */
void control_client_close(struct control_client *client);

/* The client must be up. argv are strings; replies come in the order of the requests. */
void control_client_send(struct control_client *client, const char *const *argv, unsigned argc,
                         control_reply_fn on_reply);

/* The same with arguments of any bytes; argv[0] is a name in capitals. */
void control_client_send_bytes(struct control_client *client, const struct bytes *argv,
                               unsigned argc, control_reply_fn on_reply);

#endif
