/*
 * listener.h - accepting clients on the control thread and handing them out to the workers
 *
 * Purpose:    accept until there is nothing more to accept, refuse above maxclients with Redis'
 *             text, give each connection to the next worker in turn.
 * Ownership:  a listener owns its socket, and the file of a Unix socket that it made.
 * Threading:  the control thread; handing out is a mail.
 * Errors:     opening returns a negative errno; running out of descriptors pauses accepting.
 */
#ifndef NC_PROXY_LISTENER_H
#define NC_PROXY_LISTENER_H

#include "proxy/front.h"

struct listener;

/* A new one accepts nothing before listener_accept(). */
NC_MUST_CHECK int listener_open(struct proxy *proxy, const struct config_address *address,
                                unsigned unix_mode, int64_t keepalive_ms, bool is_tls,
                                struct listener **listener);
/* Of a socket that listens already: of systemd, or of the predecessor. It is taken. */
struct listener *listener_of_socket(struct proxy *proxy, int fd, int64_t keepalive_ms, bool is_tls);
/* Who connects meanwhile waits in the socket. */
void listener_accept(struct listener *listener, bool on);
void listener_set_keepalive(struct listener *listener, int64_t keepalive_ms);
/* The file of a Unix socket is removed with the listener: what it made itself is, until it is told
 * otherwise. */
void listener_own_file(struct listener *listener, bool on);
int listener_fd(const struct listener *listener);
bool listener_is_tls(const struct listener *listener);
/* "127.0.0.1:6380", "unix:/run/x.sock" */
const char *listener_text(const struct listener *listener);
/* Stops accepting. Accepts a pointer to NULL. */
void listener_close(struct listener **listener);

#endif
