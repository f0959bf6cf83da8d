/*
 * leases_testing.h - the table of leases with a clock, locks and workers that the test moves by
 * hand
 *
 * The clock (base/clock.h) and the lock at the backend (miss_lock_*()) are defined here, in the
 * place of the daemon's: a proxy is a table, its workers' mailboxes and one incarnation, and what
 * it asks of the backend stands in a list until the test answers it.
 */
#ifndef NC_TESTS_LEASES_TESTING_H
#define NC_TESTS_LEASES_TESTING_H

#include "base/clock.h"
#include "base/mem.h"
#include "base/stats.h"
#include "coherence/coherence.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define MS INT64_C(1000)
#define SECOND INT64_C(1000000)
#define RIG_WORKERS 2u
#define RIG_NS 3u
#define RIG_NODE 1u
#define NIL BYTES("$-1\r\n")

struct rig {
    struct coherence_fleet fleet;
    struct coherence coherences[RIG_WORKERS];
    struct coherence *members[RIG_WORKERS];
    struct worker workers[RIG_WORKERS];
    struct config config;
    uint16_t incarnation;
    int64_t life_us;
};

/* One of a client's reads. */
enum read_state { READ_IDLE, READ_WAITS, READ_NIL, READ_AGAIN };
struct rig_read {
    struct coherence_waiter waiter;
    enum read_state state;
    unsigned n_answers;
};

/* ---- the lock at the backend ---- */

struct miss_lock {
    struct mail mail;
    struct coherence *coherence;
    struct miss_lock_for of;
    bool is_release;
    struct miss_lock *next;
    unsigned char key[];
};
/* What was sent, oldest first; whoever takes one out frees it. */
static struct miss_lock *rig_locks;
/* Set: every request is answered so at once, within miss_lock_send(). -1: it waits for the test. */
static int rig_lock_answer = -1;
static int64_t rig_now_us = 1000 * SECOND;

/* ---- the clock ---- */

int64_t clock_now_us(void)
{
    return rig_now_us;
}

int64_t clock_now_ms(void)
{
    return rig_now_us / 1000;
}

int64_t clock_unix_us(void)
{
    return rig_now_us;
}

int64_t clock_unix_ms(void)
{
    return rig_now_us / 1000;
}

/* ---- the lock ---- */

static void on_lock_mail(struct mail *mail)
{
    miss_lock_send(CONTAINER_OF(mail, struct miss_lock, mail));
}

struct miss_lock *miss_lock_new(struct coherence *coherence, const struct miss_lock_for *of,
                                bool is_release)
{
    struct miss_lock *lock = mem_alloc(sizeof(*lock) + of->key.len);

    lock->mail.run = on_lock_mail;
    lock->coherence = coherence;
    lock->of = *of;
    lock->is_release = is_release;
    lock->of.key.ptr = lock->key;
    if (of->key.len > 0) {
        memcpy(lock->key, of->key.ptr, of->key.len);
    }
    return lock;
}

void miss_lock_send(struct miss_lock *lock)
{
    struct miss_lock **at = &rig_locks;

    if (rig_lock_answer >= 0 && !lock->is_release) {
        miss_leases_locked(lock->coherence, &lock->of, (enum miss_lock_result)rig_lock_answer);
        mem_free(lock);
        return;
    }
    while (*at != NULL) {
        at = &(*at)->next;
    }
    lock->next = NULL;
    *at = lock;
}

void miss_lock_post(struct miss_lock *lock)
{
    worker_post(lock->coherence->worker, &lock->mail);
}

/* The oldest request (or release) is taken out; NULL: there is none. */
static inline struct miss_lock *rig_take_lock(bool is_release)
{
    struct miss_lock **at = &rig_locks;
    struct miss_lock *taken;

    while (*at != NULL && (*at)->is_release != is_release) {
        at = &(*at)->next;
    }
    taken = *at;
    if (taken != NULL) {
        *at = taken->next;
    }
    return taken;
}

/* The mail of all workers, until there is none. */
static inline void rig_run(struct rig *rig)
{
    for (unsigned n = 0; n < 4; n++) {
        worker_run_mails(&rig->workers[n % RIG_WORKERS]);
    }
}

/* The oldest request is answered. */
static inline void rig_answer_lock(struct rig *rig, enum miss_lock_result result)
{
    struct miss_lock *lock = rig_take_lock(false);

    assert_non_null(lock);
    miss_leases_locked(lock->coherence, &lock->of, result);
    mem_free(lock);
    rig_run(rig);
}

static inline unsigned rig_count_locks(bool is_release)
{
    unsigned n = 0;

    for (struct miss_lock *lock = rig_locks; lock != NULL; lock = lock->next) {
        n += lock->is_release == is_release;
    }
    return n;
}

/* ---- proxies ---- */

/* Of the process; each proxy of a test has the same one. */
static inline struct cache *rig_cache_new(void)
{
    const struct cache_options options = {
        .maxmemory = 16 << 20, .negative_percent = 5, .n_shards = 1, .max_flights = 16};
    struct cache *cache;

    assert_int_equal(cache_new(&options, &cache), 0);
    epochs_assign(cache_epochs(cache), 0, RIG_NODE);
    return cache;
}

static inline void rig_init(struct rig *rig, struct cache *cache)
{
    memset(rig, 0, sizeof(*rig));
    rig->config.max_leases = 1000;
    rig->config.max_waiters = 1000;
    rig->config.max_held = 1000;
    rig->config.miss_lease_lock = true;
    rig->life_us = 10 * SECOND;
    rig->fleet.cache = cache;
    rig->fleet.members = rig->members;
    rig->fleet.n_members = RIG_WORKERS;
    for (unsigned i = 0; i < RIG_WORKERS; i++) {
        assert_int_equal(worker_init(&rig->workers[i], i), 0);
        rig->members[i] = &rig->coherences[i];
        rig->coherences[i].fleet = &rig->fleet;
        rig->coherences[i].cache = cache;
        rig->coherences[i].worker = &rig->workers[i];
        rig->coherences[i].config = &rig->config;
    }
    rig->fleet.leases = miss_leases_new(&rig->fleet, &rig->config);
    rig->incarnation = epochs_open(cache_epochs(cache), RIG_NODE, 0, rig_now_us);
}

static inline void rig_fini(struct rig *rig)
{
    struct miss_lock *lock;

    rig_run(rig);
    miss_leases_free(&rig->fleet.leases);
    for (unsigned i = 0; i < RIG_WORKERS; i++) {
        worker_fini(&rig->workers[i]);
    }
    while ((lock = rig_locks) != NULL) {
        rig_locks = lock->next;
        mem_free(lock);
    }
}

static inline struct miss_subject rig_subject(const struct rig *rig, const char *key)
{
    struct miss_subject subject = {
        .key = bytes_of_string(key),
        .incarnation = rig->incarnation,
        .slot_word = epochs_slot_word(cache_epochs(rig->fleet.cache), 0),
        .is_told = true,
        .ns = RIG_NS,
        .life_us = rig->life_us,
        .now_us = rig_now_us,
    };

    subject.hash = cache_hash(subject.key);
    return subject;
}

static void on_answer(struct coherence_waiter *waiter, enum coherence_answer answer,
                      struct bytes reply, enum cache_encoding encoding)
{
    struct rig_read *read = CONTAINER_OF(waiter, struct rig_read, waiter);

    (void)reply;
    (void)encoding;
    assert_true(answer == COHERENCE_MISSING || answer == COHERENCE_AGAIN);
    assert_int_equal(read->state, READ_WAITS);
    read->state = answer == COHERENCE_MISSING ? READ_NIL : READ_AGAIN;
    read->n_answers++;
}

static inline void rig_read_init(struct rig_read *read, struct miss_client *client, unsigned worker)
{
    memset(read, 0, sizeof(*read));
    read->waiter.miss.client = client;
    read->waiter.waiter.worker = (uint8_t)worker;
    read->waiter.on_answer = on_answer;
}

/* A fetch that found the key missing, and that nothing made void: what this reader is told. */
static inline enum miss_verdict rig_miss(struct rig *rig, struct rig_read *read, const char *key)
{
    const struct miss_subject subject = rig_subject(rig, key);
    const struct miss_arming arming = miss_leases_arm(rig->fleet.leases, &subject);
    enum miss_verdict verdict;

    if (arming.number == 0) {
        read->state = READ_NIL;
        return MISS_PASS;
    }
    miss_leases_confirm(rig->fleet.leases, subject.hash, &arming);
    read->state = READ_WAITS;
    verdict = miss_leases_offer(rig->members[read->waiter.waiter.worker], &read->waiter,
                                arming.number, subject.hash, 0, NIL, CACHE_SAME_IN_BOTH);
    read->state = verdict == MISS_HELD ? READ_WAITS : verdict == MISS_AGAIN ? READ_AGAIN : READ_NIL;
    return verdict;
}

static inline bool rig_hold(struct rig *rig, struct rig_read *read, const char *key)
{
    const struct miss_subject subject = rig_subject(rig, key);

    if (!miss_leases_hold(rig->members[read->waiter.waiter.worker], &read->waiter, &subject)) {
        return false;
    }
    read->state = READ_WAITS;
    return true;
}

static inline void rig_note(struct rig *rig, const char *key, enum miss_cause cause)
{
    miss_leases_note(rig->fleet.leases, bytes_of_string(key), cause);
    rig_run(rig);
}

static inline void rig_found(struct rig *rig, const char *key)
{
    const struct bytes name = bytes_of_string(key);

    miss_leases_found(rig->fleet.leases, name, cache_hash(name), 0);
    rig_run(rig);
}

static inline void rig_tick(struct rig *rig, int64_t after_us)
{
    rig_now_us += after_us;
    miss_leases_tick(rig->members[0], rig_now_us);
    rig_run(rig);
}

static inline uint64_t rig_count(enum ns_metric metric)
{
    return stats_ns_sum(RIG_NS, metric);
}

#endif
