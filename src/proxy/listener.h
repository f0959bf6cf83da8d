/*
 * listener.h - accepting clients on the control thread and handing them out to the workers
 *
 * Purpose:    accept until there is nothing more to accept, refuse above maxclients with Redis'
 * text, give each connection to the next worker in turn. Ownership:  a listener owns its socket
 * (and the file of a Unix socket). Threading:  the control thread; handing out is a mail. Errors:
 * opening returns a negative errno; running out of descriptors pauses accepting.
 */
#ifndef NC_PROXY_LISTENER_H
#define NC_PROXY_LISTENER_H

#include "proxy/front.h"

struct listener;

NC_MUST_CHECK int listener_open(struct proxy *proxy, const struct config_address *address,
                                unsigned unix_mode, int64_t keepalive_ms, bool is_tls,
                                struct listener **listener);
/* Stops accepting; a Unix socket's file goes. */
void listener_close(struct listener **listener);

#endif
