/*
 * ports.h - all sockets that this process listens on: those of `listen`, `tls-listen` and `admin`,
 * those that systemd has opened, and those of a predecessor
 *
 * Purpose:    open them at the start, change them at a reload without touching those that stay,
 * give them to a successor. Ownership:  the ports own listeners and the admin port. Threading:  the
 * control thread. Errors:     opening writes the reason to the FILE, returns a negative errno and
 * opens nothing.
 *
 * Sockets of systemd (sd_listen_fds(3)) stand for an option: with one called "tls", tls-listen is
 * not opened, with one called "admin", admin is not; any other name stands for listen. They are
 * told apart by FileDescriptorName=. A predecessor's sockets are called "own." and the kind: each
 * is taken where the option still names its address, and closed where not.
 */
#ifndef NC_ADMIN_PORTS_H
#define NC_ADMIN_PORTS_H

#include "admin/http.h"

struct ports; /* opaque */

struct ports *ports_new(struct proxy *proxy);
void ports_free(struct ports **ports);

/* Opens what clients connect to / the admin port. Nothing is accepted before ports_accept(). */
NC_MUST_CHECK int ports_open(struct ports *ports, const struct config *config, FILE *errors);
NC_MUST_CHECK int ports_open_admin(struct ports *ports, const struct config *config,
                                   const struct discovery *discovery, FILE *errors);
void ports_accept(struct ports *ports, bool on);

/* From one configuration to the next: all or nothing; later or never when frozen or closed. */
NC_MUST_CHECK int ports_change(struct ports *ports, const struct config *former,
                               const struct config *config, FILE *errors);

/* Closes those of clients; the admin port stays until ports_free(). */
void ports_close_clients(struct ports *ports);

/* For a successor: descriptors and their names. Returns how many. */
#define PORTS_MAX (2 * CONFIG_LIST_MAX + 32)
#define PORTS_NAME_MAX 32
unsigned ports_list(const struct ports *ports, int fds[PORTS_MAX],
                    char names[PORTS_MAX][PORTS_NAME_MAX]);
/* From now on no option changes them: a successor was told of them. */
void ports_freeze(struct ports *ports);
/* There is no successor after all: what options have asked for meanwhile is done now. */
void ports_thaw(struct ports *ports, const struct config *config);
/* The successor does not use this one, by its number in the list: who waits in it is refused. */
void ports_drop(struct ports *ports, unsigned number);
/* The same as seen by the successor: *number of one that it did not use. False: no further one. */
bool ports_next_unused(struct ports *ports, unsigned *number);
/* Files of sockets are ours to remove / somebody else's. */
void ports_own_files(struct ports *ports, bool on);

#endif
