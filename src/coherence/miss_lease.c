/*
 * Design: a lease is a record of one key (and database, and user) in one table of the process. It
 * is made by the fetch that found the key missing, before the flight leaves the cache: so a change
 * of the key voids the flight, which the fetch sees, or finds the lease. The readers of that fetch
 * are then offered to it one by one, each on its worker.
 *
 *     VACANT --first reader--> LOCKING --lock--> HERE      (one connection computes)
 *                                 \--refused--> ELSEWHERE  (one of another proxy does)
 *     HERE | ELSEWHERE --its client has gone, the lock was given back--> VACANT, or the next
 *                       reader's
 *
 * A message about the key lets one reader go, which looks it up. The others follow when that has
 * shown a value, and find it in tier 1; or after a moment, should that reader fail. The lease stays
 * until a fetch has shown a value (must_fetch: nobody is held until a fetch finds it missing):
 * should it be missing still, as after a spurious message, the one who computes still does.
 *
 * Hold and wait: a connection that holds a lease, or is about to, is never held, and one that is
 * held is given no lease. Otherwise two pipelines that read the same keys would wait for each
 * other.
 */
#include "coherence/miss_lease.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/stats.h"
#include "coherence/coherence.h"

#include <pthread.h>
#include <sys/random.h>

#define HEADS 4096u
/* Of what a missing key is answered with, whatever the view. */
#define REPLY_MAX 32u
/* The first reader waits this long for the lock, then computes without. */
#define LOCK_PATIENCE_US 500000
/* How often a proxy whose readers wait for another one's lease asks for the lock: 1/8 of it. */
#define LOCK_POLL_MIN_US 20000
#define LOCK_POLL_MAX_US 1000000
/* One reader looks the key up for all: after this long they all do. */
#define LOOK_US 10000
/* A lease that no reader took. */
#define VACANT_US 1000000
#define AGAIN_MAX 3
/* Above this number of leases each tick visits an eighth of the table. */
#define SWEEP_WHOLE 1024u
/* Leases that are visited under the lock at once, and in a tick. */
#define SWEEP_AT_ONCE 512u
#define SWEEP_MAX 16384u
#define COSTS 8192u

enum lease_state { VACANT, LOCKING, HERE, ELSEWHERE };

struct miss_lease {
    struct miss_lease *next; /* of its chain */
    uint64_t hash, number, view, token;
    uint64_t n_notes; /* how often something became of its key */
    uint32_t scope, slot_word;
    uint16_t incarnation, slot;
    uint8_t ns;
    uint8_t state;       /* enum lease_state */
    uint8_t lock_worker; /* who asked for the lock */
    bool is_told, must_fetch, is_locking, has_lock, is_early;
    bool was_given; /* here or elsewhere */
    struct miss_client *holder;
    struct miss_lease *next_held, *prev_held; /* of the holder */
    struct miss_wait *candidate;              /* LOCKING: who is to be the holder */
    struct miss_wait *first, *last;           /* who is held, oldest first */
    unsigned n_waiting;
    int64_t life_us, made_at_us, ends_at_us;
    int64_t began_at_us;    /* when its holder was told; 0: there was none */
    int64_t holds_from_us;  /* early: until then readers are served */
    int64_t first_until_us; /* none of its readers waits less long */
    int64_t looked_for_us;  /* must_fetch: since when */
    int64_t lock_at_us;     /* when the lock was asked for; ELSEWHERE: or will be again */
    enum cache_encoding encoding;
    uint8_t reply_len;
    unsigned char reply[REPLY_MAX]; /* the candidate's */
    struct bytes key;
    unsigned char bytes[];
};

struct miss_leases {
    struct coherence_fleet *fleet;
    pthread_mutex_t lock;
    struct miss_lease *heads[HEADS];                  /* lock */
    uint64_t next_number, n_tokens;                   /* lock */
    unsigned next_head;                               /* lock: where the sweep goes on */
    bool is_over;                                     /* lock */
    uint64_t token_base;                              /* init */
    _Atomic size_t max_leases, max_waiters, max_held; /* atomic: options */
    _Atomic unsigned n_leases;                        /* atomic; written under the lock */
    _Atomic unsigned n_waiting;                       /* atomic; written under the lock */
    /* atomic: half of a hash, and microseconds / 64 */
    _Atomic uint64_t costs[COSTS];
};

/* ---- letting readers go ---- */

struct go_mail {
    struct mail mail;
    struct miss_wait *first, **last;
    bool has_reply;
    enum cache_encoding encoding;
    size_t reply_len;
    unsigned char reply[REPLY_MAX];
};

/* Gathered under the lock, posted after it. */
struct outbox {
    struct go_mail *again[64];
    struct go_mail *granted[4];
    uint8_t granted_worker[4];
    unsigned n_granted;
    struct miss_lock *locks[4];
    unsigned n_locks;
    bool is_full; /* no more leases can be ended into it */
};

static struct coherence_waiter *reader_of(struct miss_wait *wait)
{
    return CONTAINER_OF(wait, struct coherence_waiter, miss);
}

static void on_go(struct mail *arrived)
{
    struct go_mail *mail = CONTAINER_OF(arrived, struct go_mail, mail);
    struct miss_wait *wait = mail->first;
    const int64_t now_us = clock_now_us();

    while (wait != NULL) {
        struct miss_wait *const next = wait->next;
        struct coherence_waiter *reader = reader_of(wait);

        wait->next = wait->prev = NULL;
        stats_observe(HISTOGRAM_lease_wait, now_us - wait->held_at_us, 1);
        reader->on_answer(reader, mail->has_reply ? COHERENCE_MISSING : COHERENCE_AGAIN,
                          bytes_make(mail->reply, mail->reply_len), mail->encoding);
        wait = next;
    }
    mem_free(mail);
}

static struct go_mail *new_mail(void)
{
    struct go_mail *mail = mem_alloc(sizeof(*mail));

    mail->mail.run = on_go;
    mail->last = &mail->first;
    mail->encoding = CACHE_SAME_IN_BOTH;
    return mail;
}

static void put_mail(struct go_mail *mail, struct miss_wait *wait)
{
    wait->next = wait->prev = NULL;
    *mail->last = wait;
    mail->last = &wait->next;
}

static void let_go_locked(struct outbox *outbox, struct miss_wait *wait)
{
    const unsigned worker = reader_of(wait)->waiter.worker;

    wait->lease = NULL;
    if (outbox->again[worker] == NULL) {
        outbox->again[worker] = new_mail();
    }
    put_mail(outbox->again[worker], wait);
}

static void post_all(struct miss_leases *leases, struct outbox *outbox)
{
    const struct coherence_fleet *fleet = leases->fleet;

    for (unsigned i = 0; i < fleet->n_members; i++) {
        if (outbox->again[i] != NULL) {
            worker_post(fleet->members[i]->worker, &outbox->again[i]->mail);
        }
    }
    for (unsigned i = 0; i < outbox->n_granted; i++) {
        worker_post(fleet->members[outbox->granted_worker[i]]->worker, &outbox->granted[i]->mail);
    }
    for (unsigned i = 0; i < outbox->n_locks; i++) {
        miss_lock_post(outbox->locks[i]);
    }
    memset(outbox, 0, sizeof(*outbox));
}

/* ---- waiters of a lease ---- */

static void link_locked(struct miss_lease *lease, struct miss_wait *wait)
{
    wait->prev = lease->last;
    wait->next = NULL;
    if (lease->last != NULL) {
        lease->last->next = wait;
    } else {
        lease->first = wait;
    }
    lease->last = wait;
    if (lease->n_waiting++ == 0 || wait->until_us < lease->first_until_us) {
        lease->first_until_us = wait->until_us;
    }
    wait->lease = lease;
}

static void unlink_locked(struct miss_lease *lease, struct miss_wait *wait)
{
    if (wait->prev != NULL) {
        wait->prev->next = wait->next;
    } else {
        lease->first = wait->next;
    }
    if (wait->next != NULL) {
        wait->next->prev = wait->prev;
    } else {
        lease->last = wait->prev;
    }
    wait->next = wait->prev = NULL;
    lease->n_waiting--;
}

/* A reader among the lease's. */
static void add_locked(struct miss_leases *leases, struct miss_lease *lease, struct miss_wait *wait)
{
    link_locked(lease, wait);
    wait->client->n_waiting++;
    atomic_fetch_add_explicit(&leases->n_waiting, 1, memory_order_relaxed);
}

static void set_candidate_locked(struct miss_leases *leases, struct miss_lease *lease,
                                 struct miss_wait *wait)
{
    lease->candidate = wait;
    wait->lease = lease;
    wait->client->n_candidates++;
    atomic_fetch_add_explicit(&leases->n_waiting, 1, memory_order_relaxed);
}

/* It is held by the lease no longer. */
static void release_locked(struct miss_leases *leases, struct miss_wait *wait)
{
    if (wait->lease->candidate == wait) {
        wait->lease->candidate = NULL;
        wait->client->n_candidates--;
    } else {
        unlink_locked(wait->lease, wait);
        wait->client->n_waiting--;
    }
    wait->lease = NULL;
    atomic_fetch_sub_explicit(&leases->n_waiting, 1, memory_order_relaxed);
}

static bool release_one_locked(struct miss_leases *leases, struct miss_lease *lease,
                               struct outbox *outbox)
{
    struct miss_wait *wait = lease->candidate != NULL ? lease->candidate : lease->first;

    if (wait != NULL) {
        release_locked(leases, wait);
        let_go_locked(outbox, wait);
    }
    return wait != NULL;
}

static void release_all_locked(struct miss_leases *leases, struct miss_lease *lease,
                               struct outbox *outbox)
{
    while (release_one_locked(leases, lease, outbox)) {
    }
}

/* ---- leases ---- */

static struct miss_lease **head_of(struct miss_leases *leases, uint64_t hash)
{
    return &leases->heads[(hash >> 16) % HEADS];
}

static struct miss_lease *find_locked(struct miss_leases *leases, uint64_t hash, struct bytes key,
                                      uint32_t scope)
{
    struct miss_lease *lease = *head_of(leases, hash);

    while (lease != NULL &&
           !(lease->hash == hash && lease->scope == scope && bytes_equal(lease->key, key))) {
        lease = lease->next;
    }
    return lease;
}

static struct miss_lease *find_number_locked(struct miss_leases *leases, uint64_t hash,
                                             uint64_t number)
{
    struct miss_lease *lease = *head_of(leases, hash);

    while (lease != NULL && lease->number != number) {
        lease = lease->next;
    }
    return lease;
}

static void drop_holder_locked(struct miss_lease *lease)
{
    if (lease->holder == NULL) {
        return;
    }
    if (lease->prev_held != NULL) {
        lease->prev_held->next_held = lease->next_held;
    } else {
        lease->holder->held = lease->next_held;
    }
    if (lease->next_held != NULL) {
        lease->next_held->prev_held = lease->prev_held;
    }
    lease->holder = NULL;
    lease->next_held = lease->prev_held = NULL;
}

static void set_holder_locked(struct miss_lease *lease, struct miss_client *client)
{
    lease->holder = client;
    lease->next_held = client->held;
    if (client->held != NULL) {
        client->held->prev_held = lease;
    }
    client->held = lease;
}

/*
 * Each request for the lock is of an owner of its own: what gives back one whose reply was lost
 * must not take the next one away.
 */
static struct miss_lock *new_lock(struct miss_leases *leases, struct miss_lease *lease,
                                  bool is_release)
{
    if (!is_release) {
        lease->token = leases->token_base + ++leases->n_tokens;
    }
    const struct miss_lock_for of = {
        .key = lease->key,
        .hash = lease->hash,
        .scope = lease->scope,
        .number = lease->number,
        .token = lease->token,
        .life_ms = lease->life_us / 1000,
    };

    return miss_lock_new(leases->fleet->members[lease->lock_worker], &of, is_release);
}

static void give_back_locked(struct miss_leases *leases, struct miss_lease *lease,
                             struct outbox *outbox)
{
    struct miss_lock *lock = new_lock(leases, lease, true);

    if (lock != NULL) {
        outbox->locks[outbox->n_locks++] = lock;
    } else {
        stats_add(METRIC_lease_releases_failed, 1);
    }
}

/*
 * Out of the table; its readers look again. A lock that we had is given back however late: the
 * backend began to count when the request arrived there, and only its owner can remove it.
 */
static void end_locked(struct miss_leases *leases, struct miss_lease *lease, struct outbox *outbox)
{
    struct miss_lease **at = head_of(leases, lease->hash);

    while (*at != lease) {
        at = &(*at)->next;
    }
    *at = lease->next;
    release_all_locked(leases, lease, outbox);
    drop_holder_locked(lease);
    if (lease->has_lock) {
        give_back_locked(leases, lease, outbox);
    }
    outbox->is_full = outbox->n_locks == sizeof(outbox->locks) / sizeof(outbox->locks[0]);
    atomic_fetch_sub_explicit(&leases->n_leases, 1, memory_order_relaxed);
    mem_free(lease);
}

/* It holds a lease, or is about to. */
static bool computes_locked(const struct miss_client *client)
{
    return client->held != NULL || client->n_candidates > 0;
}

/* The client computes from now on. */
static void begin_locked(struct miss_lease *lease, struct miss_client *client, int64_t now_us)
{
    if (lease->was_given) {
        stats_ns_add(lease->ns, NS_METRIC_leases_again, 1);
    } else {
        stats_ns_add(lease->ns, lease->is_early ? NS_METRIC_leases_early : NS_METRIC_leases, 1);
    }
    lease->state = HERE;
    lease->was_given = true;
    lease->began_at_us = now_us;
    if (!lease->has_lock) {
        lease->ends_at_us = now_us + lease->life_us;
    }
    set_holder_locked(lease, client);
}

/* The candidate gets its nil. */
static void tell_locked(struct miss_leases *leases, struct miss_lease *lease, struct outbox *outbox)
{
    struct miss_wait *wait = lease->candidate;
    struct go_mail *mail = new_mail();

    mail->has_reply = true;
    mail->encoding = lease->encoding;
    mail->reply_len = lease->reply_len;
    memcpy(mail->reply, lease->reply, lease->reply_len);
    outbox->granted_worker[outbox->n_granted] = reader_of(wait)->waiter.worker;
    outbox->granted[outbox->n_granted++] = mail;
    release_locked(leases, wait);
    put_mail(mail, wait);
}

/* LOCKING has ended well enough. */
static void grant_locked(struct miss_leases *leases, struct miss_lease *lease,
                         struct outbox *outbox, int64_t now_us)
{
    begin_locked(lease, lease->candidate->client, now_us);
    tell_locked(leases, lease, outbox);
}

/*
 * Nobody computes: the oldest reader does, once it has found the key missing again. One that waits
 * for other keys as well is let go without the lease.
 */
static void promote_locked(struct miss_leases *leases, struct miss_lease *lease,
                           struct outbox *outbox, int64_t now_us)
{
    struct miss_wait *wait = lease->first;

    lease->state = VACANT;
    if (wait == NULL) {
        return;
    }
    if (wait->client->n_waiting == 1 && !computes_locked(wait->client)) {
        begin_locked(lease, wait->client, now_us);
    } else {
        stats_ns_add(lease->ns, NS_METRIC_lease_passes_own, 1);
    }
    wait->passes = true;
    release_locked(leases, wait);
    let_go_locked(outbox, wait);
}

static struct miss_lease *make_locked(struct miss_leases *leases,
                                      const struct miss_subject *subject)
{
    struct miss_lease **head = head_of(leases, subject->hash);
    struct miss_lease *lease;

    if (leases->is_over || subject->key.len > MISS_KEY_MAX ||
        atomic_load_explicit(&leases->n_leases, memory_order_relaxed) >=
            atomic_load_explicit(&leases->max_leases, memory_order_relaxed)) {
        return NULL;
    }
    lease = mem_try_alloc(sizeof(*lease) + subject->key.len);
    if (lease == NULL) {
        return NULL;
    }
    memset(lease, 0, sizeof(*lease));
    lease->hash = subject->hash;
    lease->scope = subject->scope;
    lease->number = ++leases->next_number;
    lease->ns = subject->ns;
    lease->life_us = subject->life_us;
    lease->incarnation = subject->incarnation;
    lease->slot = subject->slot;
    lease->slot_word = subject->slot_word;
    lease->is_told = subject->is_told;
    lease->made_at_us = subject->now_us;
    lease->ends_at_us = subject->now_us + lease->life_us;
    lease->key = bytes_make(lease->bytes, subject->key.len);
    if (subject->key.len > 0) {
        memcpy(lease->bytes, subject->key.ptr, subject->key.len);
    }
    lease->next = *head;
    *head = lease;
    atomic_fetch_add_explicit(&leases->n_leases, 1, memory_order_relaxed);
    return lease;
}

struct miss_arming miss_leases_arm(struct miss_leases *leases, const struct miss_subject *subject)
{
    struct miss_arming arming = {.incarnation = subject->incarnation,
                                 .slot_word = subject->slot_word,
                                 .is_told = subject->is_told};
    struct miss_lease *lease;

    pthread_mutex_lock(&leases->lock);
    lease = find_locked(leases, subject->hash, subject->key, subject->scope);
    if (lease == NULL) {
        lease = make_locked(leases, subject);
        if (lease != NULL) {
            lease->must_fetch = true;
        }
    }
    if (lease != NULL) {
        arming.number = lease->number;
        arming.n_notes = lease->n_notes;
        /* From now on: nobody tells of what comes between this and miss_leases_confirm(). */
        lease->is_told = lease->is_told && subject->is_told;
    }
    pthread_mutex_unlock(&leases->lock);
    return arming;
}

void miss_leases_confirm(struct miss_leases *leases, uint64_t hash,
                         const struct miss_arming *arming)
{
    struct miss_lease *lease;

    pthread_mutex_lock(&leases->lock);
    lease = find_number_locked(leases, hash, arming->number);
    if (lease != NULL && lease->n_notes == arming->n_notes) {
        /* The newest reading is what one hears of. */
        lease->incarnation = arming->incarnation;
        lease->slot_word = arming->slot_word;
        lease->is_told = arming->is_told;
        lease->must_fetch = false;
    }
    pthread_mutex_unlock(&leases->lock);
}

/* ---- something became of the key ---- */

static void note_cost(struct miss_leases *leases, const struct miss_lease *lease)
{
    const uint64_t units = (uint64_t)(clock_now_us() - lease->began_at_us) / 64 + 1;

    if (lease->began_at_us != 0) {
        atomic_store_explicit(&leases->costs[lease->hash % COSTS],
                              (lease->hash & ~(uint64_t)UINT32_MAX) |
                                  (units < UINT32_MAX ? units : UINT32_MAX),
                              memory_order_relaxed);
    }
}

int64_t miss_leases_cost(const struct miss_leases *leases, uint64_t hash)
{
    const uint64_t word = atomic_load_explicit(&leases->costs[hash % COSTS], memory_order_relaxed);

    return word >> 32 == hash >> 32 ? (int64_t)(word & UINT32_MAX) * 64 : 0;
}

static void note_one_locked(struct miss_leases *leases, struct miss_lease *lease,
                            enum miss_cause cause, struct outbox *outbox)
{
    /* Of a key that was told to be missing early the message may be that of its expiry. */
    const bool may_be_expiry = lease->is_early && cause != MISS_FOUND &&
                               clock_now_us() >= lease->holds_from_us;
    const bool is_over = cause == MISS_FOUND || (cause == MISS_TOLD && lease->n_waiting == 0 &&
                                                 !may_be_expiry && lease->candidate == NULL);

    if (cause == MISS_WRITTEN && lease->is_told) {
        /* The message says it better: a reply may be that of another read. */
        return;
    }
    if (cause == MISS_FOUND && lease->is_early && lease->holds_from_us > clock_now_us()) {
        /* It is the old value still. */
        return;
    }
    if (lease->state == HERE && !may_be_expiry && !lease->must_fetch) {
        note_cost(leases, lease);
    }
    if (is_over) {
        if (lease->state == HERE) {
            stats_ns_add(lease->ns, NS_METRIC_leases_set, 1);
        }
        end_locked(leases, lease, outbox);
        return;
    }
    lease->n_notes++;
    lease->must_fetch = true;
    lease->looked_for_us = clock_now_us();
    if (cause == MISS_FOUND) {
        release_all_locked(leases, lease, outbox);
    } else {
        release_one_locked(leases, lease, outbox);
    }
}

/* Of a database, or (-1) of all. */
static void note_all(struct miss_leases *leases, struct bytes key, uint64_t hash, int64_t db,
                     enum miss_cause cause)
{
    struct outbox outbox = {0};
    struct miss_lease *lease, *next;
    bool was_full;

    do {
        pthread_mutex_lock(&leases->lock);
        for (lease = *head_of(leases, hash); lease != NULL && !outbox.is_full; lease = next) {
            next = lease->next;
            if (lease->hash == hash && (db < 0 || cache_scope_db(lease->scope) == db) &&
                bytes_equal(lease->key, key)) {
                note_one_locked(leases, lease, cause, &outbox);
            }
        }
        was_full = outbox.is_full;
        pthread_mutex_unlock(&leases->lock);
        post_all(leases, &outbox);
    } while (was_full);
}

void miss_leases_note(struct miss_leases *leases, struct bytes key, enum miss_cause cause)
{
    /* Relaxed: a lease that this does not see was made by a fetch that ends after the key's shard
     * was told, and finds its flight void. */
    if (NC_UNLIKELY(atomic_load_explicit(&leases->n_leases, memory_order_relaxed) > 0)) {
        note_all(leases, key, cache_hash(key), -1, cause);
    }
}

void miss_leases_found(struct miss_leases *leases, struct bytes key, uint64_t hash, uint32_t scope)
{
    if (atomic_load_explicit(&leases->n_leases, memory_order_relaxed) > 0) {
        note_all(leases, key, hash, cache_scope_db(scope), MISS_FOUND);
    }
}

/* ---- readers ---- */

/* What changes the key would be told on the link that it was read on. */
static bool is_heard_of(const struct coherence *coherence, const struct miss_lease *lease)
{
    struct epochs *epochs = cache_epochs(coherence->cache);

    return epochs_is_live(epochs_at(epochs, lease->incarnation)) &&
           epochs_slot_word(epochs, lease->slot) == lease->slot_word;
}

uint64_t miss_view(uint16_t command, struct bytes args)
{
    return command == 0 && args.len == 0 ? 0 : (cache_hash(args) ^ command) | 1;
}

static bool has_room(const struct miss_leases *leases, const struct miss_lease *lease)
{
    return lease->n_waiting < atomic_load_explicit(&leases->max_waiters, memory_order_relaxed) &&
           atomic_load_explicit(&leases->n_waiting, memory_order_relaxed) <
               atomic_load_explicit(&leases->max_held, memory_order_relaxed);
}

/* Why a reader passes that might be held; N_NS_METRICS: it is held. */
static enum ns_metric why_pass_locked(const struct miss_leases *leases,
                                      const struct miss_lease *lease, const struct miss_wait *wait,
                                      uint64_t view, int64_t now_us)
{
    if (leases->is_over || computes_locked(wait->client)) {
        return NS_METRIC_lease_passes_own;
    }
    if (wait->until_us != 0 && (now_us >= wait->until_us || wait->n_again > AGAIN_MAX)) {
        return NS_METRIC_lease_passes_time;
    }
    if (view != 0 && view != lease->view) {
        return NS_METRIC_lease_passes_view;
    }
    return has_room(leases, lease) ? N_NS_METRICS : NS_METRIC_lease_passes_limit;
}

static void hold_locked(struct miss_leases *leases, struct miss_lease *lease,
                        struct miss_wait *wait, int64_t now_us)
{
    if (wait->until_us == 0) {
        wait->held_at_us = now_us;
        wait->until_us = now_us + lease->life_us;
        stats_ns_add(lease->ns, NS_METRIC_lease_waits, 1);
    }
    add_locked(leases, lease, wait);
}

/* The lease has nobody: the reader takes it. *lock: what must be sent when the lock is left. */
static enum miss_verdict take_locked(struct coherence *coherence, struct miss_lease *lease,
                                     struct coherence_waiter *waiter, struct bytes reply,
                                     enum cache_encoding encoding, int64_t now_us,
                                     struct miss_lock **lock)
{
    struct miss_leases *leases = coherence->fleet->leases;
    struct miss_wait *wait = &waiter->miss;

    if (reply.len > REPLY_MAX || wait->client->n_waiting > 0 || leases->is_over) {
        stats_ns_add(lease->ns, NS_METRIC_lease_passes_own, 1);
        return MISS_PASS;
    }
    lease->lock_worker = waiter->waiter.worker;
    /* Who has waited for its time already, for a lock that is late again and again, does not. */
    *lock = coherence->config->miss_lease_lock && !lease->has_lock && !lease->is_locking &&
                    (wait->until_us == 0 || now_us < wait->until_us)
                ? new_lock(leases, lease, false)
                : NULL;
    if (*lock == NULL) {
        begin_locked(lease, wait->client, now_us);
        return MISS_PASS;
    }
    lease->state = LOCKING;
    lease->is_locking = true;
    lease->lock_at_us = now_us;
    lease->encoding = encoding;
    lease->reply_len = (uint8_t)reply.len;
    memcpy(lease->reply, reply.ptr, reply.len);
    if (wait->until_us == 0) {
        wait->held_at_us = now_us;
        wait->until_us = now_us + lease->life_us;
    }
    set_candidate_locked(leases, lease, wait);
    return MISS_HELD;
}

enum miss_verdict miss_leases_offer(struct coherence *coherence, struct coherence_waiter *waiter,
                                    uint64_t number, uint64_t hash, uint64_t view,
                                    struct bytes reply, enum cache_encoding encoding)
{
    struct miss_leases *leases = coherence->fleet->leases;
    struct miss_wait *wait = &waiter->miss;
    struct miss_lock *lock = NULL;
    const int64_t now_us = clock_now_us();
    enum miss_verdict verdict = MISS_PASS;
    enum ns_metric why;
    struct miss_lease *lease;

    if (wait->client == NULL || wait->passes) {
        return MISS_PASS;
    }
    pthread_mutex_lock(&leases->lock);
    lease = find_number_locked(leases, hash, number);
    if (lease == NULL || lease->must_fetch) {
        /* It changed since: what was found may be old. */
        verdict = wait->n_again++ < AGAIN_MAX ? MISS_AGAIN : MISS_PASS;
        if (verdict == MISS_PASS && lease != NULL) {
            stats_ns_add(lease->ns, NS_METRIC_lease_passes_time, 1);
        }
    } else if (lease->state == VACANT) {
        lease->view = view;
        verdict = take_locked(coherence, lease, waiter, reply, encoding, now_us, &lock);
    } else if ((why = why_pass_locked(leases, lease, wait, view, now_us)) != N_NS_METRICS) {
        stats_ns_add(lease->ns, why, 1);
    } else {
        wait->n_again = (uint8_t)(wait->n_again + (wait->until_us != 0 ? 1 : 0));
        hold_locked(leases, lease, wait, now_us);
        verdict = MISS_HELD;
    }
    pthread_mutex_unlock(&leases->lock);
    if (lock != NULL) {
        miss_lock_send(lock);
    }
    return verdict;
}

bool miss_leases_hold(struct coherence *coherence, struct coherence_waiter *waiter,
                      const struct miss_subject *subject)
{
    struct miss_leases *leases = coherence->fleet->leases;
    struct miss_wait *wait = &waiter->miss;
    struct miss_lease *lease;
    bool is_held = false;

    if (atomic_load_explicit(&leases->n_leases, memory_order_relaxed) == 0 || wait->passes ||
        wait->until_us != 0) {
        /* Who was let go looks at the backend first. */
        return false;
    }
    pthread_mutex_lock(&leases->lock);
    lease = find_locked(leases, subject->hash, subject->key, subject->scope);
    if (lease != NULL && lease->state != VACANT && !lease->must_fetch &&
        subject->now_us >= lease->holds_from_us && is_heard_of(coherence, lease) &&
        why_pass_locked(leases, lease, wait, subject->view, subject->now_us) == N_NS_METRICS) {
        hold_locked(leases, lease, wait, subject->now_us);
        is_held = true;
    }
    pthread_mutex_unlock(&leases->lock);
    return is_held;
}

enum miss_verdict miss_leases_take_early(struct coherence *coherence,
                                         struct coherence_waiter *waiter,
                                         const struct miss_subject *subject, int64_t expires_at_us)
{
    struct miss_leases *leases = coherence->fleet->leases;
    struct miss_lock *lock = NULL;
    struct miss_lease *lease;
    enum miss_verdict verdict = MISS_AGAIN;

    pthread_mutex_lock(&leases->lock);
    if (waiter->miss.client->n_waiting == 0 && !computes_locked(waiter->miss.client) &&
        find_locked(leases, subject->hash, subject->key, subject->scope) == NULL &&
        (lease = make_locked(leases, subject)) != NULL) {
        lease->is_early = true;
        lease->holds_from_us = expires_at_us;
        verdict = take_locked(coherence, lease, waiter, BYTES("_\r\n"), CACHE_RESP3,
                              subject->now_us, &lock);
    }
    pthread_mutex_unlock(&leases->lock);
    if (lock != NULL) {
        miss_lock_send(lock);
    }
    return verdict;
}

/* ---- clients that go ---- */

struct miss_client *miss_client_new(void)
{
    return mem_alloc(sizeof(struct miss_client));
}

bool miss_client_computes(struct coherence *coherence, const struct miss_client *client)
{
    struct miss_leases *leases = coherence->fleet->leases;
    bool computes;

    if (client == NULL) {
        return false;
    }
    pthread_mutex_lock(&leases->lock);
    computes = computes_locked(client);
    pthread_mutex_unlock(&leases->lock);
    return computes;
}

static void abandon_locked(struct miss_leases *leases, struct miss_lease *lease,
                           struct outbox *outbox, int64_t now_us)
{
    drop_holder_locked(lease);
    stats_ns_add(lease->ns, NS_METRIC_leases_abandoned, 1);
    if (lease->first == NULL) {
        end_locked(leases, lease, outbox);
    } else {
        promote_locked(leases, lease, outbox, now_us);
    }
}

void miss_client_free(struct coherence *coherence, struct miss_client **client)
{
    struct miss_leases *leases = coherence->fleet->leases;
    struct miss_client *gone = *client;
    struct outbox outbox = {0};
    bool is_done = false;

    *client = NULL;
    while (gone != NULL && !is_done) {
        pthread_mutex_lock(&leases->lock);
        while (gone->held != NULL && !outbox.is_full) {
            abandon_locked(leases, gone->held, &outbox, clock_now_us());
        }
        is_done = gone->held == NULL;
        pthread_mutex_unlock(&leases->lock);
        post_all(leases, &outbox);
    }
    mem_free(gone);
}

/* The candidate is gone: when the lock is here, the next reader gets the lease. */
bool miss_leases_leave(struct coherence *coherence, struct miss_wait *wait)
{
    struct miss_leases *leases = coherence->fleet->leases;
    bool was_held;

    if (wait->client == NULL) {
        return false;
    }
    pthread_mutex_lock(&leases->lock);
    was_held = wait->lease != NULL;
    if (was_held) {
        release_locked(leases, wait);
    }
    wait->client = NULL;
    pthread_mutex_unlock(&leases->lock);
    return was_held;
}

void miss_leases_hurry(struct coherence *coherence, struct miss_wait *wait)
{
    struct miss_leases *leases = coherence->fleet->leases;
    struct outbox outbox = {0};

    if (wait->client == NULL) {
        return;
    }
    pthread_mutex_lock(&leases->lock);
    if (wait->lease != NULL) {
        stats_ns_add(wait->lease->ns, NS_METRIC_lease_passes_gone, 1);
        wait->passes = true;
        release_locked(leases, wait);
        let_go_locked(&outbox, wait);
    }
    pthread_mutex_unlock(&leases->lock);
    post_all(leases, &outbox);
}

/* ---- the lock at the backend ---- */

static int64_t poll_interval(const struct miss_lease *lease)
{
    const int64_t eighth = lease->life_us / 8;

    return eighth < LOCK_POLL_MIN_US   ? LOCK_POLL_MIN_US
           : eighth > LOCK_POLL_MAX_US ? LOCK_POLL_MAX_US
                                       : eighth;
}

static void take_lock_locked(struct miss_leases *leases, struct miss_lease *lease,
                             struct outbox *outbox, int64_t now_us)
{
    lease->has_lock = true;
    lease->ends_at_us = lease->lock_at_us + lease->life_us;
    if (lease->candidate != NULL) {
        grant_locked(leases, lease, outbox, now_us);
    } else if (lease->state != HERE) {
        /* The other proxy's reader has given up, or this one's has. */
        promote_locked(leases, lease, outbox, now_us);
    }
}

static void refuse_lock_locked(struct miss_leases *leases, struct miss_lease *lease,
                               struct outbox *outbox, int64_t now_us)
{
    struct miss_wait *wait = lease->candidate;

    if (lease->state == HERE) {
        return;
    }
    if (lease->is_early && wait != NULL) {
        /* It goes on being served. So do the others, who ask for the lock no more. */
        release_locked(leases, wait);
        let_go_locked(outbox, wait);
    } else if (wait != NULL && (wait->client->held != NULL || wait->client->n_candidates > 1)) {
        /* It computes other keys, for which somebody may wait who computes this one. */
        stats_ns_add(lease->ns, NS_METRIC_lease_passes_own, 1);
        tell_locked(leases, lease, outbox);
    } else if (wait != NULL) {
        stats_ns_add(lease->ns, NS_METRIC_lease_waits, 1);
        release_locked(leases, wait);
        add_locked(leases, lease, wait);
    }
    lease->ends_at_us = lease->state == ELSEWHERE ? lease->ends_at_us : now_us + lease->life_us;
    lease->state = ELSEWHERE;
    lease->was_given = true;
    lease->lock_at_us = now_us + poll_interval(lease);
}

void miss_leases_locked(struct coherence *coherence, const struct miss_lock_for *of,
                        enum miss_lock_result result)
{
    struct miss_leases *leases = coherence->fleet->leases;
    const int64_t now_us = clock_now_us();
    struct outbox outbox = {0};
    struct miss_lease *lease;
    struct miss_lock *unwanted = NULL;

    pthread_mutex_lock(&leases->lock);
    lease = find_number_locked(leases, of->hash, of->number);
    if (lease != NULL) {
        lease->is_locking = false;
    }
    if (result == MISS_LOCK_IN_DOUBT || (lease == NULL && result == MISS_LOCK_GOT)) {
        unwanted = miss_lock_new(coherence, of, true);
    }
    if (lease != NULL && result == MISS_LOCK_GOT) {
        take_lock_locked(leases, lease, &outbox, now_us);
    } else if (lease != NULL && result == MISS_LOCK_REFUSED) {
        refuse_lock_locked(leases, lease, &outbox, now_us);
    } else if (lease != NULL && lease->candidate != NULL) {
        grant_locked(leases, lease, &outbox, now_us);
    } else if (lease != NULL && lease->state == LOCKING) {
        promote_locked(leases, lease, &outbox, now_us);
    } else if (lease != NULL) {
        lease->lock_at_us = now_us + poll_interval(lease);
    }
    pthread_mutex_unlock(&leases->lock);
    if (unwanted != NULL) {
        miss_lock_send(unwanted);
    }
    post_all(leases, &outbox);
}

/* ---- time ---- */

static void let_overdue_go_locked(struct miss_leases *leases, struct miss_lease *lease,
                                  struct outbox *outbox, int64_t now_us)
{
    int64_t first_us = INT64_MAX;
    struct miss_wait *next;

    for (struct miss_wait *wait = lease->first; wait != NULL; wait = next) {
        next = wait->next;
        if (wait->until_us <= now_us) {
            stats_ns_add(lease->ns, NS_METRIC_lease_passes_time, 1);
            wait->passes = true;
            release_locked(leases, wait);
            let_go_locked(outbox, wait);
        } else if (wait->until_us < first_us) {
            first_us = wait->until_us;
        }
    }
    lease->first_until_us = first_us;
}

static bool is_over(const struct miss_lease *lease, int64_t now_us)
{
    return now_us >= lease->ends_at_us ||
           (lease->state == VACANT && lease->first == NULL && lease->candidate == NULL &&
            !lease->is_locking && now_us - lease->made_at_us > VACANT_US);
}

static void poll_lock_locked(struct miss_leases *leases, struct miss_lease *lease,
                             struct outbox *outbox, int64_t now_us)
{
    struct miss_lock *lock;

    if (lease->state != ELSEWHERE || lease->is_locking || lease->first == NULL ||
        now_us < lease->lock_at_us) {
        return;
    }
    lease->lock_worker = 0;
    lease->lock_at_us = now_us + poll_interval(lease);
    lock = new_lock(leases, lease, false);
    if (lock != NULL) {
        lease->is_locking = true;
        lease->lock_at_us = now_us;
        outbox->locks[outbox->n_locks++] = lock;
        outbox->is_full = outbox->n_locks == sizeof(outbox->locks) / sizeof(outbox->locks[0]);
    }
}

/* The candidate may be gone, and others wait by now. */
static bool is_lock_late(const struct miss_lease *lease, int64_t now_us)
{
    const bool is_awaited = lease->candidate != NULL || lease->first != NULL;

    return lease->state == LOCKING && is_awaited &&
           (now_us - lease->lock_at_us > LOCK_PATIENCE_US ||
            (lease->candidate != NULL && lease->candidate->until_us <= now_us));
}

static void go_on_without_lock_locked(struct miss_leases *leases, struct miss_lease *lease,
                                      struct outbox *outbox, int64_t now_us)
{
    stats_add(METRIC_lease_locks_late, 1);
    if (lease->candidate != NULL) {
        grant_locked(leases, lease, outbox, now_us);
        outbox->is_full = outbox->n_granted == sizeof(outbox->granted) / sizeof(outbox->granted[0]);
    } else {
        promote_locked(leases, lease, outbox, now_us);
    }
}

static void visit_locked(struct miss_leases *leases, struct miss_lease *lease,
                         struct outbox *outbox, int64_t now_us)
{
    if (is_over(lease, now_us)) {
        if (lease->state == HERE) {
            stats_ns_add(lease->ns, NS_METRIC_leases_ran_out, 1);
        }
        end_locked(leases, lease, outbox);
        return;
    }
    if (!lease->must_fetch && !is_heard_of(leases->fleet->members[0], lease)) {
        /* Nobody would tell us any more. */
        lease->must_fetch = true;
        release_all_locked(leases, lease, outbox);
    }
    if (lease->must_fetch && lease->first != NULL && now_us - lease->looked_for_us > LOOK_US) {
        release_all_locked(leases, lease, outbox);
    }
    if (is_lock_late(lease, now_us)) {
        go_on_without_lock_locked(leases, lease, outbox, now_us);
    }
    if (lease->first != NULL && lease->first_until_us <= now_us) {
        let_overdue_go_locked(leases, lease, outbox, now_us);
    }
    if (lease->state == VACANT && lease->first != NULL) {
        promote_locked(leases, lease, outbox, now_us);
    }
    poll_lock_locked(leases, lease, outbox, now_us);
}

/* Goes on with the table, without the lock for more than a moment. How many leases were visited. */
static unsigned sweep(struct miss_leases *leases, unsigned *n_heads, int64_t now_us)
{
    struct outbox outbox = {0};
    unsigned n = 0;

    pthread_mutex_lock(&leases->lock);
    for (; *n_heads > 0 && n < SWEEP_AT_ONCE && !outbox.is_full; (*n_heads)--) {
        struct miss_lease *next;

        for (struct miss_lease *lease = leases->heads[leases->next_head];
             lease != NULL && !outbox.is_full; lease = next) {
            next = lease->next;
            visit_locked(leases, lease, &outbox, now_us);
            n++;
        }
        leases->next_head = (leases->next_head + (outbox.is_full ? 0 : 1)) % HEADS;
    }
    pthread_mutex_unlock(&leases->lock);
    post_all(leases, &outbox);
    return n;
}

void miss_leases_tick(struct coherence *coherence, int64_t now_us)
{
    struct miss_leases *leases = coherence->fleet->leases;
    const unsigned n = atomic_load_explicit(&leases->n_leases, memory_order_relaxed);
    unsigned n_heads = n <= SWEEP_WHOLE ? HEADS : HEADS / 8;
    unsigned n_visited = 0;

    while (n > 0 && n_heads > 0 && n_visited < SWEEP_MAX) {
        n_visited += sweep(leases, &n_heads, now_us);
    }
}

/* ---- life ---- */

void miss_leases_set_config(struct miss_leases *leases, const struct config *config)
{
    atomic_store_explicit(&leases->max_leases, (size_t)config->max_leases, memory_order_relaxed);
    atomic_store_explicit(&leases->max_waiters, (size_t)config->max_waiters, memory_order_relaxed);
    atomic_store_explicit(&leases->max_held, (size_t)config->max_held, memory_order_relaxed);
}

struct miss_leases *miss_leases_new(struct coherence_fleet *fleet, const struct config *config)
{
    struct miss_leases *leases = mem_alloc(sizeof(*leases));

    leases->fleet = fleet;
    miss_leases_set_config(leases, config);
    pthread_mutex_init(&leases->lock, NULL);
    if (getrandom(&leases->token_base, sizeof(leases->token_base), 0) !=
        (ssize_t)sizeof(leases->token_base)) {
        leases->token_base = (uint64_t)clock_unix_us();
    }
    return leases;
}

void miss_leases_free(struct miss_leases **leases)
{
    struct miss_leases *gone = *leases;

    *leases = NULL;
    for (unsigned i = 0; gone != NULL && i < HEADS; i++) {
        while (gone->heads[i] != NULL) {
            struct miss_lease *const lease = gone->heads[i];

            gone->heads[i] = lease->next;
            mem_free(lease);
        }
    }
    if (gone != NULL) {
        pthread_mutex_destroy(&gone->lock);
        mem_free(gone);
    }
}

void miss_leases_drain(struct miss_leases *leases)
{
    struct outbox outbox = {0};

    pthread_mutex_lock(&leases->lock);
    leases->is_over = true;
    for (unsigned i = 0; i < HEADS; i++) {
        for (struct miss_lease *lease = leases->heads[i]; lease != NULL; lease = lease->next) {
            release_all_locked(leases, lease, &outbox);
        }
    }
    pthread_mutex_unlock(&leases->lock);
    post_all(leases, &outbox);
}

unsigned miss_leases_count(const struct miss_leases *leases)
{
    return atomic_load_explicit(&leases->n_leases, memory_order_relaxed);
}

unsigned miss_leases_waiting(const struct miss_leases *leases)
{
    return atomic_load_explicit(&leases->n_waiting, memory_order_relaxed);
}
