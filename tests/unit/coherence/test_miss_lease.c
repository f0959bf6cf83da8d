/*
 * test_miss_lease.c - proves of miss_lease.h: one of many computes, the others are let go when the
 * key is written, and whatever goes wrong ends a lease, a wait and a lock in bounded time
 */
#include "leases_testing.h"

#include <stdio.h>

static struct rig rig;

static int set_up(void **state)
{
    struct cache *cache = rig_cache_new();

    *state = cache;
    rig_init(&rig, cache);
    return 0;
}

static int tear_down(void **state)
{
    struct cache *cache = *state;

    rig_lock_answer = -1;
    assert_int_equal(miss_leases_waiting(rig.fleet.leases), 0);
    rig_fini(&rig);
    cache_free(&cache);
    return 0;
}

/* A client with one read. */
struct one {
    struct miss_client *client;
    struct rig_read read;
};

static void make(struct one *one, unsigned worker)
{
    one->client = miss_client_new();
    rig_read_init(&one->read, one->client, worker);
}

static void go(struct one *one)
{
    if (one->read.state == READ_WAITS) {
        (void)miss_leases_leave(rig.members[one->read.waiter.waiter.worker],
                                &one->read.waiter.miss);
        one->read.state = READ_IDLE;
    }
    if (one->client != NULL) {
        miss_client_free(rig.members[one->read.waiter.waiter.worker], &one->client);
    }
    rig_run(&rig);
}

static unsigned n_leases(void)
{
    return miss_leases_count(rig.fleet.leases);
}

/* The lock is given back with the owner it was taken with. */
static void assert_given_back(uint64_t token)
{
    struct miss_lock *lock = rig_take_lock(true);

    assert_non_null(lock);
    assert_int_equal(lock->of.token, token);
    mem_free(lock);
    assert_null(rig_locks);
}

static uint64_t token_asked(void)
{
    assert_int_equal(rig_count_locks(false), 1);
    return rig_locks->of.token;
}

static void one_computes_and_the_others_have_its_value(void **state)
{
    struct one holder, others[3];
    uint64_t token;

    (void)state;
    make(&holder, 0);
    assert_int_equal(rig_miss(&rig, &holder.read, "k"), MISS_HELD);
    token = token_asked();
    for (unsigned i = 0; i < 3; i++) {
        make(&others[i], i % RIG_WORKERS);
        assert_true(i == 0 ? rig_miss(&rig, &others[i].read, "k") == MISS_HELD
                           : rig_hold(&rig, &others[i].read, "k"));
    }
    rig_answer_lock(&rig, MISS_LOCK_GOT);
    assert_int_equal(holder.read.state, READ_NIL);
    assert_true(miss_client_computes(rig.members[0], holder.client));
    assert_int_equal(miss_leases_waiting(rig.fleet.leases), 3);
    /* The message lets one look; what it finds lets the others go. */
    rig_note(&rig, "k", MISS_TOLD);
    assert_int_equal(others[0].read.state, READ_AGAIN);
    assert_int_equal(others[1].read.state, READ_WAITS);
    rig_found(&rig, "k");
    assert_int_equal(others[1].read.state, READ_AGAIN);
    assert_int_equal(others[2].read.state, READ_AGAIN);
    assert_int_equal(n_leases(), 0);
    assert_false(miss_client_computes(rig.members[0], holder.client));
    assert_given_back(token);
    go(&holder);
    for (unsigned i = 0; i < 3; i++) {
        go(&others[i]);
    }
}

/* The one that was let go to look is gone before it has: the others look for themselves. */
static void who_looks_for_all_and_fails_holds_nobody_up(void **state)
{
    struct one holder, first, last;

    (void)state;
    rig_lock_answer = MISS_LOCK_GOT;
    make(&holder, 0);
    make(&first, 1);
    make(&last, 0);
    (void)rig_miss(&rig, &holder.read, "k");
    rig_run(&rig);
    assert_true(rig_hold(&rig, &first.read, "k"));
    assert_true(rig_hold(&rig, &last.read, "k"));
    rig_note(&rig, "k", MISS_TOLD);
    assert_int_equal(first.read.state, READ_AGAIN);
    go(&first);
    rig_tick(&rig, 10 * MS);
    assert_int_equal(last.read.state, READ_WAITS);
    rig_tick(&rig, MS);
    assert_int_equal(last.read.state, READ_AGAIN);
    go(&last);
    go(&holder);
    assert_int_equal(n_leases(), 0);
}

static void a_holder_that_goes_is_followed_by_the_oldest_reader(void **state)
{
    struct one holder, next, last;
    const uint64_t again = rig_count(NS_METRIC_leases_again);

    (void)state;
    rig_lock_answer = MISS_LOCK_GOT;
    make(&holder, 0);
    make(&next, 1);
    make(&last, 0);
    (void)rig_miss(&rig, &holder.read, "k");
    rig_run(&rig);
    assert_int_equal(holder.read.state, READ_NIL);
    assert_true(rig_hold(&rig, &next.read, "k"));
    assert_true(rig_hold(&rig, &last.read, "k"));
    go(&holder);
    assert_int_equal(next.read.state, READ_AGAIN);
    assert_true(miss_client_computes(rig.members[1], next.client));
    assert_int_equal(rig_miss(&rig, &next.read, "k"), MISS_PASS);
    assert_int_equal(last.read.state, READ_WAITS);
    assert_int_equal(rig_count(NS_METRIC_leases_again), again + 1);
    go(&next);
    go(&last);
    assert_int_equal(n_leases(), 0);
    assert_int_equal(rig_count_locks(true), 1);
}

/* While SET NX is on its way its only reader goes: nobody would give the lock back. */
static void a_lock_that_nobody_needs_is_given_back(void **state)
{
    struct one only;
    uint64_t token;

    (void)state;
    make(&only, 0);
    assert_int_equal(rig_miss(&rig, &only.read, "k"), MISS_HELD);
    token = token_asked();
    go(&only);
    rig_tick(&rig, 5 * MS);
    rig_answer_lock(&rig, MISS_LOCK_GOT);
    rig_tick(&rig, 1100 * MS);
    assert_int_equal(n_leases(), 0);
    assert_given_back(token);
}

/* Its holder goes, and the only other reader waits for two keys: it is let go without the lease. */
static void a_lock_whose_last_reader_may_not_compute_is_given_back(void **state)
{
    struct one holder, elsewhere, both;
    struct rig_read second;
    const uint64_t passes = rig_count(NS_METRIC_lease_passes_own);
    uint64_t token;

    (void)state;
    make(&holder, 0);
    make(&elsewhere, 0);
    make(&both, 0);
    (void)rig_miss(&rig, &holder.read, "k");
    token = token_asked();
    rig_answer_lock(&rig, MISS_LOCK_GOT);
    rig_lock_answer = MISS_LOCK_FAILED;
    (void)rig_miss(&rig, &elsewhere.read, "other");
    rig_run(&rig);
    assert_true(rig_hold(&rig, &both.read, "k"));
    rig_read_init(&second, both.client, 0);
    assert_true(rig_hold(&rig, &second, "other"));
    rig_tick(&rig, 1100 * MS);
    go(&holder);
    assert_int_equal(both.read.state, READ_AGAIN);
    assert_int_equal(rig_count(NS_METRIC_lease_passes_own), passes + 1);
    rig_tick(&rig, 5 * MS);
    assert_int_equal(n_leases(), 1);
    assert_given_back(token);
    (void)miss_leases_leave(rig.members[0], &second.waiter.miss);
    go(&both);
    go(&elsewhere);
}

static void a_lease_that_runs_out_lets_all_go_and_gives_its_lock_back(void **state)
{
    struct one holder, reader;
    const uint64_t ran_out = rig_count(NS_METRIC_leases_ran_out);
    uint64_t token;

    (void)state;
    make(&holder, 0);
    make(&reader, 1);
    (void)rig_miss(&rig, &holder.read, "k");
    token = token_asked();
    rig_answer_lock(&rig, MISS_LOCK_GOT);
    assert_true(rig_hold(&rig, &reader.read, "k"));
    rig_tick(&rig, rig.life_us - 1);
    assert_int_equal(reader.read.state, READ_WAITS);
    rig_tick(&rig, 1);
    assert_int_equal(reader.read.state, READ_AGAIN);
    assert_int_equal(n_leases(), 0);
    assert_int_equal(rig_count(NS_METRIC_leases_ran_out), ran_out + 1);
    /* The backend began to count later than this proxy. */
    assert_given_back(token);
    /* It has waited for its time: what it finds is its answer. */
    (void)rig_miss(&rig, &reader.read, "k");
    assert_int_equal(reader.read.state, READ_NIL);
    go(&holder);
    go(&reader);
}

static void readers_have_a_time_of_their_own(void **state)
{
    struct one holder, early, late;

    (void)state;
    rig_lock_answer = MISS_LOCK_FAILED;
    make(&holder, 0);
    make(&early, 0);
    make(&late, 1);
    (void)rig_miss(&rig, &holder.read, "k");
    rig_run(&rig);
    assert_true(rig_hold(&rig, &early.read, "k"));
    rig_tick(&rig, rig.life_us / 2);
    /* The lease changes hands, and lasts longer than its readers wait. */
    go(&holder);
    assert_int_equal(early.read.state, READ_AGAIN);
    assert_int_equal(rig_miss(&rig, &early.read, "k"), MISS_PASS);
    assert_true(rig_hold(&rig, &late.read, "k"));
    rig_tick(&rig, rig.life_us - 1);
    assert_int_equal(late.read.state, READ_WAITS);
    rig_tick(&rig, 2);
    assert_int_equal(late.read.state, READ_AGAIN);
    go(&early);
    go(&late);
}

static void a_late_lock_is_waited_for_half_a_second(void **state)
{
    struct one first, other;
    uint64_t token;

    (void)state;
    make(&first, 0);
    make(&other, 1);
    (void)rig_miss(&rig, &first.read, "k");
    token = token_asked();
    assert_true(rig_hold(&rig, &other.read, "k"));
    rig_tick(&rig, 499 * MS);
    assert_int_equal(first.read.state, READ_WAITS);
    rig_tick(&rig, 2 * MS);
    assert_int_equal(first.read.state, READ_NIL);
    assert_int_equal(other.read.state, READ_WAITS);
    /* It comes after all, and is ours. */
    rig_answer_lock(&rig, MISS_LOCK_GOT);
    go(&first);
    assert_int_equal(other.read.state, READ_AGAIN);
    go(&other);
    assert_int_equal(n_leases(), 0);
    assert_given_back(token);
}

/* The first reader goes while the lock is late: the others must not wait for it longer. */
static void those_behind_a_candidate_that_went_wait_no_longer_for_the_lock(void **state)
{
    struct one first, other;

    (void)state;
    make(&first, 0);
    make(&other, 1);
    (void)rig_miss(&rig, &first.read, "k");
    assert_true(rig_hold(&rig, &other.read, "k"));
    go(&first);
    rig_tick(&rig, 501 * MS);
    assert_int_equal(other.read.state, READ_AGAIN);
    assert_true(miss_client_computes(rig.members[1], other.client));
    rig_answer_lock(&rig, MISS_LOCK_GOT);
    go(&other);
    assert_int_equal(rig_count_locks(true), 1);
    assert_int_equal(n_leases(), 0);
}

/* Leases shorter than the lock's reply takes: each ends before it, and the next asks anew. */
static void a_lock_that_is_always_late_costs_the_lease_once(void **state)
{
    struct one reader;
    int64_t began_us = rig_now_us;

    (void)state;
    rig.life_us = 100 * MS;
    make(&reader, 0);
    assert_int_equal(rig_miss(&rig, &reader.read, "k"), MISS_HELD);
    for (unsigned n = 0; n < 1000 && reader.read.state != READ_NIL; n++) {
        rig_tick(&rig, 5 * MS);
        if (reader.read.state == READ_AGAIN) {
            (void)rig_miss(&rig, &reader.read, "k");
        }
    }
    assert_int_equal(reader.read.state, READ_NIL);
    assert_true(rig_now_us - began_us <= rig.life_us + 10 * MS);
    while (rig_count_locks(false) > 0) {
        rig_answer_lock(&rig, MISS_LOCK_GOT);
    }
    go(&reader);
    assert_int_equal(n_leases(), 0);
}

static void a_refused_lock_is_asked_for_again_while_readers_wait(void **state)
{
    struct one first, other;

    (void)state;
    make(&first, 0);
    make(&other, 1);
    (void)rig_miss(&rig, &first.read, "k");
    assert_true(rig_hold(&rig, &other.read, "k"));
    rig_answer_lock(&rig, MISS_LOCK_REFUSED);
    assert_int_equal(first.read.state, READ_WAITS);
    assert_int_equal(miss_leases_waiting(rig.fleet.leases), 2);
    rig_tick(&rig, 999 * MS); /* an eighth of the lease, but no more than a second */
    assert_int_equal(rig_count_locks(false), 0);
    rig_tick(&rig, 2 * MS);
    assert_int_equal(rig_count_locks(false), 1);
    rig_tick(&rig, 5000 * MS);
    assert_int_equal(rig_count_locks(false), 1);
    rig_answer_lock(&rig, MISS_LOCK_GOT);
    /* The other proxy's has given up: the oldest of ours computes. */
    assert_int_equal(other.read.state, READ_AGAIN);
    assert_int_equal(first.read.state, READ_WAITS);
    go(&other);
    assert_int_equal(first.read.state, READ_AGAIN);
    go(&first);
    assert_int_equal(n_leases(), 0);
    assert_int_equal(rig_count_locks(true), 1);
}

/* The reply is lost, the lock is perhaps there: nobody else must wait for it to run out. */
static void a_lock_in_doubt_is_given_back_at_once(void **state)
{
    struct one reader, other;
    uint64_t token;

    (void)state;
    make(&reader, 0);
    (void)rig_miss(&rig, &reader.read, "k");
    token = token_asked();
    rig_answer_lock(&rig, MISS_LOCK_IN_DOUBT);
    assert_int_equal(reader.read.state, READ_NIL);
    assert_given_back(token);
    go(&reader);
    /* Of one lease, the next lock is of another owner: what is late gives back no other. */
    make(&reader, 0);
    make(&other, 0);
    (void)rig_miss(&rig, &reader.read, "k");
    rig_answer_lock(&rig, MISS_LOCK_REFUSED);
    rig_tick(&rig, 1001 * MS);
    token = token_asked();
    rig_answer_lock(&rig, MISS_LOCK_IN_DOUBT);
    assert_given_back(token);
    rig_tick(&rig, 1001 * MS);
    assert_int_not_equal(token_asked(), token);
    go(&reader);
    rig_answer_lock(&rig, MISS_LOCK_REFUSED);
    go(&other);
    rig_tick(&rig, rig.life_us);
    assert_int_equal(n_leases(), 0);
}

static void a_lock_for_a_lease_that_has_ended_is_given_back(void **state)
{
    struct one reader;
    uint64_t token;

    (void)state;
    make(&reader, 0);
    (void)rig_miss(&rig, &reader.read, "k");
    token = token_asked();
    rig_found(&rig, "k");
    assert_int_equal(reader.read.state, READ_AGAIN);
    assert_int_equal(n_leases(), 0);
    rig_answer_lock(&rig, MISS_LOCK_GOT);
    assert_given_back(token);
    go(&reader);
}

static enum miss_verdict take_early(struct one *one, int64_t expires_at_us)
{
    const struct miss_subject subject = rig_subject(&rig, "k");
    const enum miss_verdict verdict = miss_leases_take_early(rig.members[0], &one->read.waiter,
                                                             &subject, expires_at_us);

    one->read.state = verdict == MISS_HELD   ? READ_WAITS
                      : verdict == MISS_PASS ? READ_NIL
                                             : READ_IDLE;
    return verdict;
}

static void one_is_told_early_and_readers_are_served_until_the_end(void **state)
{
    const int64_t end_us = rig_now_us + 5 * SECOND;
    struct one first, other;
    uint64_t token;

    (void)state;
    make(&first, 0);
    make(&other, 1);
    assert_int_equal(take_early(&first, end_us), MISS_HELD);
    token = token_asked();
    rig_answer_lock(&rig, MISS_LOCK_GOT);
    assert_int_equal(first.read.state, READ_NIL);
    assert_int_equal(take_early(&other, end_us), MISS_AGAIN);
    assert_false(rig_hold(&rig, &other.read, "k"));
    rig_found(&rig, "k"); /* the old value still */
    assert_int_equal(n_leases(), 1);
    rig_tick(&rig, 5 * SECOND);
    rig_note(&rig, "k", MISS_TOLD); /* its expiry, perhaps */
    assert_int_equal(n_leases(), 1);
    assert_int_equal(rig_miss(&rig, &other.read, "k"), MISS_HELD);
    rig_note(&rig, "k", MISS_TOLD);
    rig_found(&rig, "k");
    assert_int_equal(other.read.state, READ_AGAIN);
    assert_int_equal(n_leases(), 0);
    assert_given_back(token);
    go(&first);
    go(&other);
}

/* Another proxy's reader computes: ours are served, and ask for the lock no more. */
static void a_refused_early_lease_costs_one_request(void **state)
{
    const int64_t end_us = rig_now_us + 5 * SECOND;
    struct one first, other;

    (void)state;
    make(&first, 0);
    make(&other, 1);
    assert_int_equal(take_early(&first, end_us), MISS_HELD);
    rig_answer_lock(&rig, MISS_LOCK_REFUSED);
    assert_int_equal(first.read.state, READ_AGAIN);
    for (unsigned n = 0; n < 100; n++) {
        assert_int_equal(take_early(&other, end_us), MISS_AGAIN);
        rig_tick(&rig, 10 * MS);
    }
    assert_int_equal(rig_count_locks(false), 0);
    /* The write at the other proxy ends it. */
    rig_note(&rig, "k", MISS_TOLD);
    assert_int_equal(n_leases(), 0);
    /* Where none comes, readers wait for it from the end on, and it is asked for again. */
    assert_int_equal(take_early(&first, end_us), MISS_HELD);
    rig_answer_lock(&rig, MISS_LOCK_REFUSED);
    rig_tick(&rig, 5 * SECOND);
    assert_true(rig_hold(&rig, &other.read, "k"));
    rig_tick(&rig, 5 * MS);
    rig_answer_lock(&rig, MISS_LOCK_GOT);
    assert_int_equal(other.read.state, READ_AGAIN);
    go(&other);
    go(&first);
    assert_int_equal(n_leases(), 0);
    assert_int_equal(rig_count_locks(true), 1);
}

static void limits_let_readers_pass(void **state)
{
    struct one all[4];

    (void)state;
    rig_lock_answer = MISS_LOCK_GOT;
    rig.config.max_waiters = 1;
    rig.config.max_leases = 1;
    miss_leases_set_config(rig.fleet.leases, &rig.config);
    for (unsigned i = 0; i < 4; i++) {
        make(&all[i], 0);
    }
    (void)rig_miss(&rig, &all[0].read, "k");
    rig_run(&rig);
    assert_true(rig_hold(&rig, &all[1].read, "k"));
    assert_false(rig_hold(&rig, &all[2].read, "k"));
    assert_int_equal(rig_miss(&rig, &all[2].read, "k"), MISS_PASS);
    assert_int_equal(rig_miss(&rig, &all[3].read, "other"), MISS_PASS);
    assert_int_equal(n_leases(), 1);
    for (unsigned i = 4; i-- > 0;) {
        go(&all[i]);
    }
    assert_int_equal(n_leases(), 0);
}

static void who_computes_is_never_held_and_who_is_held_never_computes(void **state)
{
    struct one a, b;
    struct rig_read a2, b2;

    (void)state;
    make(&a, 0);
    make(&b, 1);
    rig_read_init(&a2, a.client, 0);
    rig_read_init(&b2, b.client, 1);
    (void)rig_miss(&rig, &a.read, "x");
    (void)rig_miss(&rig, &b.read, "y");
    /* Both are candidates; so neither waits for the other. */
    assert_int_equal(rig_miss(&rig, &a2, "y"), MISS_PASS);
    assert_int_equal(rig_miss(&rig, &b2, "x"), MISS_PASS);
    rig_answer_lock(&rig, MISS_LOCK_REFUSED);
    assert_int_equal(a.read.state, READ_WAITS);
    rig_answer_lock(&rig, MISS_LOCK_GOT);
    assert_int_equal(b.read.state, READ_NIL);
    /* One that waits takes no lease. */
    assert_int_equal(rig_miss(&rig, &a2, "z"), MISS_PASS);
    assert_false(miss_client_computes(rig.members[0], a.client));
    assert_int_equal(rig_count_locks(false), 0);
    go(&a);
    go(&b);
}

static void a_lost_link_lets_all_go(void **state)
{
    struct one holder, reader;
    struct epochs *epochs = cache_epochs(rig.fleet.cache);

    (void)state;
    rig_lock_answer = MISS_LOCK_GOT;
    make(&holder, 0);
    make(&reader, 1);
    (void)rig_miss(&rig, &holder.read, "k");
    rig_run(&rig);
    assert_true(rig_hold(&rig, &reader.read, "k"));
    epochs_close_all(epochs);
    rig_tick(&rig, 5 * MS);
    assert_int_equal(reader.read.state, READ_AGAIN);
    assert_false(rig_hold(&rig, &reader.read, "k"));
    rig.incarnation = epochs_open(epochs, RIG_NODE, 0, rig_now_us);
    assert_int_equal(rig_miss(&rig, &reader.read, "k"), MISS_HELD);
    rig_found(&rig, "k");
    assert_int_equal(reader.read.state, READ_AGAIN);
    go(&holder);
    go(&reader);
}

static void what_is_found_in_another_database_ends_nothing(void **state)
{
    struct one holder;

    (void)state;
    rig_lock_answer = MISS_LOCK_GOT;
    make(&holder, 0);
    (void)rig_miss(&rig, &holder.read, "k");
    rig_run(&rig);
    miss_leases_found(rig.fleet.leases, BYTES("k"), cache_hash(BYTES("k")), 1);
    assert_int_equal(n_leases(), 1);
    rig_found(&rig, "k");
    assert_int_equal(n_leases(), 0);
    go(&holder);
}

static void a_message_between_finding_and_confirming_holds_nobody(void **state)
{
    struct miss_subject subject = rig_subject(&rig, "k");
    struct miss_arming arming;
    struct one reader;

    (void)state;
    make(&reader, 0);
    arming = miss_leases_arm(rig.fleet.leases, &subject);
    miss_leases_confirm(rig.fleet.leases, subject.hash, &arming);
    /* Messages end, and the reply is all there is. */
    subject.is_told = false;
    arming = miss_leases_arm(rig.fleet.leases, &subject);
    rig_note(&rig, "k", MISS_WRITTEN);
    miss_leases_confirm(rig.fleet.leases, subject.hash, &arming);
    for (unsigned n = 0; n < 3; n++) {
        assert_int_equal(miss_leases_offer(rig.members[0], &reader.read.waiter, arming.number,
                                           subject.hash, 0, NIL, CACHE_SAME_IN_BOTH),
                         MISS_AGAIN);
    }
    assert_int_equal(miss_leases_offer(rig.members[0], &reader.read.waiter, arming.number,
                                       subject.hash, 0, NIL, CACHE_SAME_IN_BOTH),
                     MISS_PASS);
    go(&reader);
    rig_tick(&rig, rig.life_us);
    assert_int_equal(n_leases(), 0);
}

static void who_hangs_up_is_told_what_there_is(void **state)
{
    const uint64_t gone = rig_count(NS_METRIC_lease_passes_gone);
    struct one holder, reader;

    (void)state;
    rig_lock_answer = MISS_LOCK_GOT;
    make(&holder, 0);
    make(&reader, 1);
    (void)rig_miss(&rig, &holder.read, "k");
    rig_run(&rig);
    assert_true(rig_hold(&rig, &reader.read, "k"));
    miss_leases_hurry(rig.members[1], &reader.read.waiter.miss);
    rig_run(&rig);
    assert_int_equal(reader.read.state, READ_AGAIN);
    assert_int_equal(rig_miss(&rig, &reader.read, "k"), MISS_PASS);
    assert_int_equal(rig_count(NS_METRIC_lease_passes_gone), gone + 1);
    go(&reader);
    go(&holder);
}

static void a_drain_lets_all_go_and_holds_nobody(void **state)
{
    struct one holder, reader, late;

    (void)state;
    rig_lock_answer = MISS_LOCK_GOT;
    make(&holder, 0);
    make(&reader, 1);
    make(&late, 1);
    (void)rig_miss(&rig, &holder.read, "k");
    rig_run(&rig);
    assert_true(rig_hold(&rig, &reader.read, "k"));
    miss_leases_drain(rig.fleet.leases);
    rig_run(&rig);
    assert_int_equal(reader.read.state, READ_AGAIN);
    assert_int_equal(rig_miss(&rig, &reader.read, "k"), MISS_PASS);
    assert_false(rig_hold(&rig, &late.read, "k"));
    assert_int_equal(rig_miss(&rig, &late.read, "new"), MISS_PASS);
    go(&reader);
    go(&late);
    go(&holder);
    assert_int_equal(n_leases(), 0);
}

static void many_leases_run_out_within_a_few_ticks(void **state)
{
    static struct miss_client *clients[40000];
    const unsigned n = sizeof(clients) / sizeof(clients[0]);
    unsigned n_ticks = 0;

    (void)state;
    rig.config.max_leases = n;
    rig.config.miss_lease_lock = false;
    miss_leases_set_config(rig.fleet.leases, &rig.config);
    for (unsigned i = 0; i < n; i++) {
        struct rig_read read;
        char key[16];

        snprintf(key, sizeof(key), "k%u", i);
        clients[i] = miss_client_new();
        rig_read_init(&read, clients[i], 0);
        assert_int_equal(rig_miss(&rig, &read, key), MISS_PASS);
    }
    assert_int_equal(n_leases(), n);
    rig_tick(&rig, rig.life_us);
    assert_true(n_leases() > 0); /* the lock is left, and the worker does other things */
    for (; n_leases() > 0; n_ticks++) {
        assert_true(n_ticks < 20);
        rig_tick(&rig, 10 * MS);
    }
    for (unsigned i = 0; i < n; i++) {
        miss_client_free(rig.members[0], &clients[i]);
    }
}

static void the_cost_is_that_of_the_last_computation(void **state)
{
    struct one holder;

    (void)state;
    rig_lock_answer = MISS_LOCK_GOT;
    make(&holder, 0);
    (void)rig_miss(&rig, &holder.read, "k");
    rig_run(&rig);
    rig_tick(&rig, 640 * MS);
    rig_note(&rig, "k", MISS_TOLD);
    assert_in_range(miss_leases_cost(rig.fleet.leases, cache_hash(BYTES("k"))), 640 * MS, 641 * MS);
    assert_int_equal(miss_leases_cost(rig.fleet.leases, cache_hash(BYTES("other"))), 0);
    go(&holder);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(one_computes_and_the_others_have_its_value),
        TEST(who_looks_for_all_and_fails_holds_nobody_up),
        TEST(a_holder_that_goes_is_followed_by_the_oldest_reader),
        TEST(a_lock_that_nobody_needs_is_given_back),
        TEST(a_lock_whose_last_reader_may_not_compute_is_given_back),
        TEST(a_lease_that_runs_out_lets_all_go_and_gives_its_lock_back),
        TEST(readers_have_a_time_of_their_own),
        TEST(a_late_lock_is_waited_for_half_a_second),
        TEST(those_behind_a_candidate_that_went_wait_no_longer_for_the_lock),
        TEST(a_lock_that_is_always_late_costs_the_lease_once),
        TEST(a_refused_lock_is_asked_for_again_while_readers_wait),
        TEST(a_lock_in_doubt_is_given_back_at_once),
        TEST(a_lock_for_a_lease_that_has_ended_is_given_back),
        TEST(one_is_told_early_and_readers_are_served_until_the_end),
        TEST(a_refused_early_lease_costs_one_request),
        TEST(limits_let_readers_pass),
        TEST(who_computes_is_never_held_and_who_is_held_never_computes),
        TEST(a_lost_link_lets_all_go),
        TEST(what_is_found_in_another_database_ends_nothing),
        TEST(a_message_between_finding_and_confirming_holds_nobody),
        TEST(who_hangs_up_is_told_what_there_is),
        TEST(a_drain_lets_all_go_and_holds_nobody),
        TEST(many_leases_run_out_within_a_few_ticks),
        TEST(the_cost_is_that_of_the_last_computation),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
