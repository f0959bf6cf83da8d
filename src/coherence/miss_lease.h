/*
 * miss_lease.h - of the readers of a missing key one computes it, the others wait for the value
 *
 * Purpose:    in namespaces with `miss-lease`, the first reader of a key that the backend does not
 *             have either is told so and holds the key's lease; the others are held until the key
 *             is written, the lease runs out, or their own time is over. Nobody is ever answered
 *             from here: whoever is let go looks the key up anew. Over several proxies the lease
 *             is a lock at the backend (miss_lock.c).
 * Ownership:  the table owns leases; waits are embedded in the readers' requests and linked while
 *             they are held; clients belong to sessions.
 * Threading:  any thread; one lock, a leaf, held for a bounded number of instructions but for
 *             letting go of a lease's waiters. Readers are told by mail to their workers.
 * Errors:     whatever goes wrong (limits, memory, the lock at the backend) lets readers pass: it
 *             costs a second computation, and is counted.
 * Units:      clock_now_us().
 *
 * Source: leases of memcache, Nishtala et al., "Scaling Memcache at Facebook", NSDI 2013.
 */
#ifndef NC_COHERENCE_MISS_LEASE_H
#define NC_COHERENCE_MISS_LEASE_H

#include "base/worker.h"
#include "cache/cache.h"
#include "config/config.h"

/* Longer keys have no lease: it keeps a copy. */
#define MISS_KEY_MAX 1024u

struct coherence;
struct coherence_fleet;
struct miss_lease;  /* opaque */
struct miss_leases; /* opaque: all of the process */

/* A connection as far as leases go. A reader without one is never held. */
struct miss_client {
    struct miss_lease *held; /* lock: leases that it holds, as it computes */
    unsigned n_waiting;      /* lock: its readers that are held */
    unsigned n_candidates;   /* lock: leases that it is about to hold */
};

/* Of one reader. All fields: its worker, but while it is held the lock. */
struct miss_wait {
    struct miss_wait *next, *prev;
    struct miss_lease *lease;   /* lock: it is held by; NULL: by none */
    struct miss_client *client; /* NULL: never held */
    int64_t held_at_us;         /* since when; 0: it never was */
    int64_t until_us;           /* no later than then; 0: it was never held */
    uint8_t n_again;            /* times that it was let go and found the key missing again */
    bool passes;                /* what it finds next is its answer */
};

struct miss_leases *miss_leases_new(struct coherence_fleet *fleet, const struct config *config);
/* The workers have stopped and no session is left. */
void miss_leases_free(struct miss_leases **leases);
/* New limits. */
void miss_leases_set_config(struct miss_leases *leases, const struct config *config);
/* Nobody is held any more, and who was looks again. */
void miss_leases_drain(struct miss_leases *leases);
/* On the first worker, every few milliseconds. */
void miss_leases_tick(struct coherence *coherence, int64_t now_us);

struct miss_client *miss_client_new(void);
/* It holds a lease, or is about to: somebody may wait for what it writes. Accepts NULL. */
bool miss_client_computes(struct coherence *coherence, const struct miss_client *client);
/* The connection is gone: its leases go to whoever waits. Accepts NULL; clears the pointer. */
void miss_client_free(struct coherence *coherence, struct miss_client **client);
/*
 * The reader's client is gone. True: it was held, and no answer will come. False: it was not, or
 * has been let go already, and is told as ever.
 */
bool miss_leases_leave(struct coherence *coherence, struct miss_wait *wait);
/* A client that has hung up does not wait, but gets what there is. */
void miss_leases_hurry(struct coherence *coherence, struct miss_wait *wait);

/* A key, the view of it that is read, and what is known of it. */
struct miss_subject {
    struct bytes key;
    uint64_t hash; /* of key */
    uint32_t scope;
    uint64_t view; /* miss_view(): 0 is GET */
    uint16_t incarnation;
    uint16_t slot; /* of key, with the word that the epochs have for it */
    uint32_t slot_word;
    bool is_told; /* under the incarnation one hears of writes made here, too */
    uint8_t ns;
    int64_t life_us; /* of a lease in that namespace */
    int64_t now_us;
};
uint64_t miss_view(uint16_t command, struct bytes args);

/* What a fetch that found the key missing knows of its lease. */
struct miss_arming {
    uint64_t number; /* 0: there is none to be had, readers pass */
    uint64_t n_notes;
    uint32_t slot_word;
    uint16_t incarnation;
    bool is_told;
};
/*
 * The key was found missing under this incarnation, and its flight is still in the cache: what
 * changes the key voids that, or comes later and finds the lease. When the flight has ended, and
 * was not void, the lease is confirmed: from then on readers are held without being asked for.
 */
struct miss_arming miss_leases_arm(struct miss_leases *leases, const struct miss_subject *subject);
void miss_leases_confirm(struct miss_leases *leases, uint64_t hash,
                         const struct miss_arming *arming);

enum miss_cause {
    MISS_TOLD,    /* the backend says that the key changed */
    MISS_WRITTEN, /* a reply that named it came by here */
    MISS_FOUND,   /* of miss_leases_found() */
};
/* Something became of the key, in any database, and tier 1 has been told. */
void miss_leases_note(struct miss_leases *leases, struct bytes key, enum miss_cause cause);
/* It was read, and is there: in the scope's database. */
void miss_leases_found(struct miss_leases *leases, struct bytes key, uint64_t hash, uint32_t scope);

enum miss_verdict {
    MISS_PASS,  /* the reader gets what was found */
    MISS_AGAIN, /* it looks the key up anew */
    MISS_HELD,  /* it waits: its on_answer() is called later */
};
struct coherence_waiter;
/* On the reader's worker: a fetch found the key missing, with this reply. number: of the lease. */
enum miss_verdict miss_leases_offer(struct coherence *coherence, struct coherence_waiter *waiter,
                                    uint64_t number, uint64_t hash, uint64_t view,
                                    struct bytes reply, enum cache_encoding encoding);
/* The reader need not ask the backend: it is held by a lease that there is. */
bool miss_leases_hold(struct coherence *coherence, struct coherence_waiter *waiter,
                      const struct miss_subject *subject);
/*
 * A key that is about to expire at expires_at_us: one reader (of GET) is told early that it is
 * missing. MISS_PASS: this one, now. MISS_HELD: it may be, and is told later. MISS_AGAIN: not this
 * one.
 */
enum miss_verdict miss_leases_take_early(struct coherence *coherence,
                                         struct coherence_waiter *waiter,
                                         const struct miss_subject *subject, int64_t expires_at_us);
/* How long the key's last computation took, from its lease to its write; 0: not known. */
int64_t miss_leases_cost(const struct miss_leases *leases, uint64_t hash);

unsigned miss_leases_count(const struct miss_leases *leases);
unsigned miss_leases_waiting(const struct miss_leases *leases);

/* ---- miss_lock.c: the lock at the backend ---- */

enum miss_lock_result {
    MISS_LOCK_GOT,
    MISS_LOCK_REFUSED, /* somebody else has it */
    MISS_LOCK_FAILED,
    MISS_LOCK_IN_DOUBT, /* the reply was lost: the same, but the lock is perhaps ours */
};

/* A request for the lock, or its release; miss_lock_new() copies. */
struct miss_lock;
struct miss_lock_for {
    struct bytes key;
    uint64_t hash;
    uint32_t scope;
    uint64_t number; /* of the lease */
    uint64_t token;  /* who owns it */
    int64_t life_ms;
};
struct miss_lock *miss_lock_new(struct coherence *coherence, const struct miss_lock_for *of,
                                bool is_release);
/* Sends it now, on its worker, or by mail to that one. It frees itself. */
void miss_lock_send(struct miss_lock *lock);
void miss_lock_post(struct miss_lock *lock);
/* miss_lease.c: how it ended, on its worker. */
void miss_leases_locked(struct coherence *coherence, const struct miss_lock_for *of,
                        enum miss_lock_result result);

#endif
