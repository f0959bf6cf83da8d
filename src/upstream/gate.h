/*
 * gate.h - how many connections to one node the whole process makes at once, and per second
 *
 * Purpose:    a node that comes back is not run over by all workers, pools and leased connections
 *             at the same moment: who may not connect yet waits, and asks again at its next tick.
 * Ownership:  a gate per address, shared by its users: gate_get() and gate_put(). The last user's
 *             gate stays a while, since what was taken from it counts for a second.
 * Threading:  any thread.
 * Errors:     none; a name that is longer than a link's is cut.
 */
#ifndef NC_UPSTREAM_GATE_H
#define NC_UPSTREAM_GATE_H

#include <stdbool.h>
#include <stdint.h>

struct gate; /* opaque */

/* connect-parallel and connect-rate: at start and at reloads. */
void gate_configure(int64_t parallel, int64_t rate);

struct gate *gate_get(const char *address);
/* Accepts a pointer to NULL; clears the pointer. */
void gate_put(struct gate **gate);

/*
 * True: connect now, and say gate_leave() when the connection is up or has failed. is_leased: one
 * client's own connection; an eighth of the places are kept from these, so that the links that all
 * clients share get through.
 */
bool gate_enter(struct gate *gate, bool is_leased, int64_t now_us);
void gate_leave(struct gate *gate);

/* Connections being made now, to all nodes. */
unsigned gate_count_inside(void);
/* How many gates are remembered. */
unsigned gate_count(void);

#endif
