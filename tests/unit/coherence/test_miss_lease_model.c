/*
 * test_miss_lease_model.c - proves of miss_lease.h under any order of events: two proxies before
 * one backend, with clients that ask, write, hang up and go, links and replies that are lost, locks
 * that are answered late and in any order, limits that change
 *
 * At every step: nobody waits beyond its time, nobody computes and waits. In the end: every reader
 * was answered, and no lease, no waiter and no lock at the backend is left.
 */
#include "leases_testing.h"

#include <stdio.h>
#include <stdlib.h>

#define PROXIES 2u
#define KEYS 3u
#define CLIENTS 10u
#define READS 3u
#define EVENTS 64u
#define STEPS 4000u
#define SEEDS 60u

enum read_step { STEP_LOOK, STEP_FETCHING, STEP_OFFERED, STEP_DONE };

struct reading {
    struct rig_read read; /* first */
    struct reading *next; /* of its flight */
    unsigned proxy, key;
    uint64_t view;
    enum read_step step;
    bool is_used, is_orphan;
};

struct model_client {
    struct miss_client *client; /* NULL: it has gone */
    unsigned proxy, worker;
    struct reading *reads[READS]; /* NULL: none */
};

struct flight {
    struct reading *first;
    bool is_active, is_sent, is_void, is_found;
};

/* What is on its way on a proxy's tracking link. */
struct event_on_link {
    bool is_reply;
    unsigned key;
};

struct model_proxy {
    struct rig rig;
    struct flight flights[KEYS];
    bool is_tracked[KEYS];
    struct event_on_link events[EVENTS];
    unsigned n_events;
};

struct lock_answer {
    struct miss_lock *lock;
    enum miss_lock_result result;
};

static struct {
    struct cache *cache;
    struct model_proxy proxies[PROXIES];
    struct model_client clients[CLIENTS];
    struct reading readings[CLIENTS * READS * 4];
    bool exists[KEYS];
    uint64_t owner[KEYS]; /* of the lock; it never runs out: who took it must give it back */
    struct lock_answer answers[256];
    unsigned n_answers;
    bool is_ending;
    uint64_t random;
    unsigned n_told, n_shown;
} world;

static const char *const names[KEYS] = {"k0", "k1", "k2"};

static unsigned pick(unsigned below)
{
    world.random ^= world.random << 13;
    world.random ^= world.random >> 7;
    world.random ^= world.random << 17;
    return (unsigned)(world.random >> 33) % below;
}

static unsigned key_of(struct bytes name)
{
    return (unsigned)(name.ptr[1] - '0');
}

static struct model_proxy *proxy_of(const struct coherence *coherence)
{
    for (unsigned i = 0; i < PROXIES; i++) {
        if (coherence->fleet == &world.proxies[i].rig.fleet) {
            return &world.proxies[i];
        }
    }
    fail();
    return NULL;
}

/* ---- readers ---- */

static void finish(struct reading *reading)
{
    reading->step = STEP_DONE;
    reading->is_used = reading->is_used && !reading->is_orphan;
}

/* An answer by mail has come, or is there at once. */
static void settle(struct reading *reading)
{
    if (reading->step != STEP_OFFERED || reading->read.state == READ_WAITS) {
        return;
    }
    if (reading->read.state == READ_NIL || reading->is_orphan) {
        world.n_told += reading->read.state == READ_NIL;
        finish(reading);
    } else {
        reading->step = STEP_LOOK;
    }
}

static void settle_all(void)
{
    for (unsigned i = 0; i < sizeof(world.readings) / sizeof(world.readings[0]); i++) {
        if (world.readings[i].is_used) {
            settle(&world.readings[i]);
        }
    }
}

static uint64_t n_counted(void)
{
    static const enum ns_metric all[] = {
        NS_METRIC_leases,
        NS_METRIC_leases_early,
        NS_METRIC_leases_again,
        NS_METRIC_lease_passes_own,
        NS_METRIC_lease_passes_time,
        NS_METRIC_lease_passes_limit,
        NS_METRIC_lease_passes_view,
        NS_METRIC_lease_passes_gone,
    };
    uint64_t sum = 0;

    for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        sum += rig_count(all[i]);
    }
    return sum;
}

/* Its fetch found the key missing. */
static void offer(struct reading *reading, const struct miss_arming *arming, uint64_t hash)
{
    struct miss_wait *wait = &reading->read.waiter.miss;
    struct rig *rig = &world.proxies[reading->proxy].rig;
    const bool is_promised = wait->client == NULL || wait->passes;
    const uint64_t before = n_counted();
    enum miss_verdict verdict = MISS_PASS;

    reading->step = STEP_OFFERED;
    reading->read.state = READ_WAITS;
    if (arming->number != 0) {
        verdict = miss_leases_offer(rig->members[reading->read.waiter.waiter.worker],
                                    &reading->read.waiter, arming->number, hash, reading->view, NIL,
                                    CACHE_SAME_IN_BOTH);
    }
    if (verdict == MISS_PASS && arming->number != 0 && !is_promised && wait->n_again <= 3) {
        assert_int_equal(n_counted(), before + 1);
    }
    /* What asks for the lock may have been answered within the call, by mail. */
    if (verdict != MISS_HELD) {
        reading->read.state = verdict == MISS_PASS ? READ_NIL : READ_AGAIN;
    }
    settle(reading);
}

static void look(struct reading *reading)
{
    struct model_proxy *proxy = &world.proxies[reading->proxy];
    struct flight *flight = &proxy->flights[reading->key];
    struct miss_subject subject = rig_subject(&proxy->rig, names[reading->key]);

    subject.view = reading->view;
    if (reading->is_orphan) {
        finish(reading);
        return;
    }
    if (miss_leases_hold(proxy->rig.members[reading->read.waiter.waiter.worker],
                         &reading->read.waiter, &subject)) {
        reading->step = STEP_OFFERED;
        reading->read.state = READ_WAITS;
        return;
    }
    if (flight->is_active && flight->is_void) {
        return; /* the next one; the model has one at a time */
    }
    flight->is_active = true;
    reading->next = flight->first;
    flight->first = reading;
    reading->step = STEP_FETCHING;
}

static void look_all(void)
{
    for (unsigned i = 0; i < sizeof(world.readings) / sizeof(world.readings[0]); i++) {
        if (world.readings[i].is_used && world.readings[i].step == STEP_LOOK) {
            look(&world.readings[i]);
        }
    }
}

static void begin_read(void)
{
    struct model_client *client = &world.clients[pick(CLIENTS)];
    const unsigned slot = pick(READS);
    struct reading *reading = client->reads[slot];
    unsigned i = 0;

    if (client->client == NULL || (reading != NULL && reading->step != STEP_DONE)) {
        return;
    }
    if (reading != NULL) {
        reading->is_used = false;
    }
    while (world.readings[i].is_used) {
        i++;
        assert_true(i < sizeof(world.readings) / sizeof(world.readings[0]));
    }
    reading = client->reads[slot] = &world.readings[i];
    memset(reading, 0, sizeof(*reading));
    rig_read_init(&reading->read, client->client, client->worker);
    reading->is_used = true;
    reading->proxy = client->proxy;
    reading->key = pick(KEYS);
    reading->view = pick(4) == 0 ? 77 : 0;
    if (world.exists[reading->key] && pick(2) == 0) {
        /* A hit that is about to expire. */
        struct rig *rig = &world.proxies[client->proxy].rig;
        const struct miss_subject subject = rig_subject(rig, names[reading->key]);
        const enum miss_verdict verdict = miss_leases_take_early(rig->members[client->worker],
                                                                 &reading->read.waiter, &subject,
                                                                 rig_now_us + pick(200) * MS);

        reading->step = verdict == MISS_AGAIN ? STEP_DONE : STEP_OFFERED;
        reading->read.state = verdict == MISS_HELD ? READ_WAITS : READ_NIL;
        settle(reading);
        return;
    }
    look(reading);
}

static void close_client(struct model_client *client)
{
    struct rig *rig = &world.proxies[client->proxy].rig;
    struct coherence *coherence = rig->members[client->worker];

    for (unsigned i = 0; i < READS; i++) {
        struct reading *reading = client->reads[i];

        client->reads[i] = NULL;
        if (reading == NULL) {
            continue;
        }
        reading->is_orphan = true;
        if (miss_leases_leave(coherence, &reading->read.waiter.miss) ||
            reading->step == STEP_LOOK || reading->step == STEP_DONE) {
            finish(reading);
            reading->is_used = false;
        }
    }
    miss_client_free(coherence, &client->client);
}

static void open_or_close(void)
{
    struct model_client *client = &world.clients[pick(CLIENTS)];

    if (client->client != NULL) {
        close_client(client);
    } else if (!world.is_ending) {
        client->client = miss_client_new();
    }
}

static void hurry(void)
{
    const struct model_client *client = &world.clients[pick(CLIENTS)];

    for (unsigned i = 0; i < READS && client->client != NULL; i++) {
        if (client->reads[i] != NULL) {
            miss_leases_hurry(world.proxies[client->proxy].rig.members[client->worker],
                              &client->reads[i]->read.waiter.miss);
        }
    }
}

/* ---- the backend and its links ---- */

static void put_event(struct model_proxy *proxy, bool is_reply, unsigned key)
{
    assert_true(proxy->n_events < EVENTS);
    proxy->events[proxy->n_events++] = (struct event_on_link){is_reply, key};
}

static void execute_fetch(struct model_proxy *proxy, unsigned key)
{
    struct flight *flight = &proxy->flights[key];

    if (flight->is_active && !flight->is_sent) {
        flight->is_sent = true;
        flight->is_found = world.exists[key];
        proxy->is_tracked[key] = true;
        put_event(proxy, true, key);
    }
}

static void change(unsigned key, bool exists)
{
    if (!exists && !world.exists[key]) {
        return;
    }
    world.exists[key] = exists;
    for (unsigned i = 0; i < PROXIES; i++) {
        struct model_proxy *proxy = &world.proxies[i];

        if (proxy->is_tracked[key]) {
            proxy->is_tracked[key] = false;
            put_event(proxy, false, key);
        }
    }
    if (pick(2) == 0) {
        miss_leases_note(world.proxies[pick(PROXIES)].rig.fleet.leases, bytes_of_string(names[key]),
                         MISS_WRITTEN);
    }
}

static void take_fetched(struct model_proxy *proxy, unsigned key)
{
    const struct miss_subject subject = rig_subject(&proxy->rig, names[key]);
    struct flight flight = proxy->flights[key];
    struct miss_arming arming = {0};

    memset(&proxy->flights[key], 0, sizeof(proxy->flights[key]));
    if (flight.is_found) {
        miss_leases_found(proxy->rig.fleet.leases, subject.key, subject.hash, 0);
    } else {
        arming = miss_leases_arm(proxy->rig.fleet.leases, &subject);
        if (!flight.is_void) {
            miss_leases_confirm(proxy->rig.fleet.leases, subject.hash, &arming);
        }
    }
    while (flight.first != NULL) {
        struct reading *reading = flight.first;

        flight.first = reading->next;
        if (flight.is_found) {
            world.n_shown++;
            finish(reading);
        } else {
            offer(reading, &arming, subject.hash);
        }
    }
}

static void deliver(struct model_proxy *proxy)
{
    const struct event_on_link event = proxy->events[0];

    if (proxy->n_events == 0) {
        return;
    }
    memmove(proxy->events, proxy->events + 1, --proxy->n_events * sizeof(proxy->events[0]));
    if (event.is_reply) {
        take_fetched(proxy, event.key);
        return;
    }
    proxy->flights[event.key].is_void = proxy->flights[event.key].is_active;
    miss_leases_note(proxy->rig.fleet.leases, bytes_of_string(names[event.key]), MISS_TOLD);
}

/* All that was under way on it is asked for anew. */
static void lose_link(struct model_proxy *proxy)
{
    struct epochs *epochs = cache_epochs(world.cache);

    epochs_close(epochs, proxy->rig.incarnation);
    proxy->rig.incarnation = epochs_open(epochs, RIG_NODE, 0, rig_now_us);
    assert_int_not_equal(proxy->rig.incarnation, EPOCHS_NONE);
    proxy->n_events = 0;
    memset(proxy->is_tracked, 0, sizeof(proxy->is_tracked));
    for (unsigned key = 0; key < KEYS; key++) {
        struct reading *reading = proxy->flights[key].first;

        while (reading != NULL) {
            struct reading *const next = reading->next;

            reading->step = STEP_LOOK;
            if (reading->is_orphan) {
                finish(reading);
            }
            reading = next;
        }
        memset(&proxy->flights[key], 0, sizeof(proxy->flights[key]));
    }
}

/* ---- locks ---- */

/* The oldest of its worker's link. */
static void execute_lock(void)
{
    struct miss_lock *lock = rig_locks, **at = &rig_locks;
    unsigned key;

    for (unsigned n = pick(3); lock != NULL && lock->next != NULL && n > 0; n--) {
        lock = lock->next;
    }
    if (lock == NULL) {
        return;
    }
    while ((*at)->coherence != lock->coherence) {
        at = &(*at)->next;
    }
    lock = *at;
    *at = lock->next;
    key = key_of(lock->of.key);
    if (lock->is_release) {
        world.owner[key] = world.owner[key] == lock->of.token ? 0 : world.owner[key];
        mem_free(lock);
        return;
    }
    const unsigned fate = world.is_ending ? 0 : pick(8);
    const bool is_free = world.owner[key] == 0;
    struct lock_answer *answer = &world.answers[world.n_answers++];

    assert_true(world.n_answers <= sizeof(world.answers) / sizeof(world.answers[0]));
    answer->lock = lock;
    answer->result = fate == 1               ? MISS_LOCK_FAILED
                     : fate <= 3 && fate > 1 ? MISS_LOCK_IN_DOUBT
                     : is_free               ? MISS_LOCK_GOT
                                             : MISS_LOCK_REFUSED;
    if (is_free && fate != 1 && fate != 2) {
        world.owner[key] = lock->of.token;
    }
}

static void answer_lock(void)
{
    if (world.n_answers > 0) {
        const unsigned i = pick(world.n_answers);
        const struct lock_answer answer = world.answers[i];

        world.answers[i] = world.answers[--world.n_answers];
        (void)proxy_of(answer.lock->coherence);
        miss_leases_locked(answer.lock->coherence, &answer.lock->of, answer.result);
        mem_free(answer.lock);
    }
}

/* ---- steps ---- */

static void run_mails(void)
{
    for (unsigned i = 0; i < PROXIES; i++) {
        rig_run(&world.proxies[i].rig);
    }
    settle_all();
}

static void pass_time(int64_t by_us)
{
    rig_now_us += by_us;
    for (unsigned i = 0; i < PROXIES; i++) {
        miss_leases_tick(world.proxies[i].rig.members[0], rig_now_us);
    }
    for (unsigned i = 0; i < sizeof(world.readings) / sizeof(world.readings[0]); i++) {
        const struct miss_wait *wait = &world.readings[i].read.waiter.miss;

        if (world.readings[i].is_used && wait->lease != NULL) {
            assert_true(wait->until_us > rig_now_us);
        }
    }
}

static void new_limits(void)
{
    struct rig *rig = &world.proxies[pick(PROXIES)].rig;

    rig->config.max_leases = 1 + pick(4);
    rig->config.max_waiters = 1 + pick(6);
    rig->config.max_held = 1 + pick(8);
    rig->life_us = (20 + pick(2000)) * MS;
    rig->config.miss_lease_lock = pick(8) > 0;
    miss_leases_set_config(rig->fleet.leases, &rig->config);
}

static void step(void)
{
    struct model_proxy *proxy = &world.proxies[pick(PROXIES)];
    const unsigned key = pick(KEYS);

    switch (pick(24)) {
    case 0:
        change(key, true);
        break;
    case 1:
        change(key, false);
        break;
    case 2:
        if (pick(4) == 0) {
            open_or_close();
        }
        break;
    case 3:
        if (pick(8) == 0) {
            hurry();
        } else if (pick(16) == 0) {
            lose_link(proxy);
        } else if (pick(16) == 0) {
            new_limits();
        }
        break;
    case 4:
        pass_time(pick(4) == 0 ? pick(400) * MS : 5 * MS);
        break;
    case 5:
    case 6:
        execute_lock();
        break;
    case 7:
    case 8:
        answer_lock();
        break;
    case 9:
    case 10:
    case 11:
        execute_fetch(proxy, key);
        break;
    case 12:
    case 13:
    case 14:
        deliver(proxy);
        break;
    case 15:
    case 16:
    case 17:
        run_mails();
        break;
    default:
        begin_read();
        break;
    }
    look_all();
}

static unsigned n_unanswered(void)
{
    unsigned n = 0;

    for (unsigned i = 0; i < sizeof(world.readings) / sizeof(world.readings[0]); i++) {
        n += world.readings[i].is_used && world.readings[i].step != STEP_DONE;
    }
    return n;
}

static void check(void)
{
    unsigned n_held[PROXIES] = {0};

    for (unsigned i = 0; i < sizeof(world.readings) / sizeof(world.readings[0]); i++) {
        const struct reading *reading = &world.readings[i];

        n_held[reading->proxy] += reading->is_used && reading->read.waiter.miss.lease != NULL;
    }
    for (unsigned i = 0; i < PROXIES; i++) {
        assert_int_equal(miss_leases_waiting(world.proxies[i].rig.fleet.leases), n_held[i]);
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        const struct miss_client *client = world.clients[i].client;

        if (client != NULL && (client->held != NULL || client->n_candidates > 0)) {
            assert_int_equal(client->n_waiting, 0);
        }
    }
}

/* Nothing new happens; all that is under way arrives. */
static void run_out(void)
{
    for (unsigned proxy = 0; proxy < PROXIES; proxy++) {
        for (unsigned key = 0; key < KEYS; key++) {
            execute_fetch(&world.proxies[proxy], key);
        }
        while (world.proxies[proxy].n_events > 0) {
            deliver(&world.proxies[proxy]);
        }
    }
    while (rig_locks != NULL) {
        execute_lock();
    }
    while (world.n_answers > 0) {
        answer_lock();
    }
    run_mails();
    look_all();
}

static void begin(unsigned seed)
{
    memset(&world, 0, sizeof(world));
    world.random = UINT64_C(0x9e3779b97f4a7c15) * (seed + 1);
    world.cache = rig_cache_new();
    for (unsigned i = 0; i < PROXIES; i++) {
        rig_init(&world.proxies[i].rig, world.cache);
        world.proxies[i].rig.life_us = (20 + pick(3000)) * MS;
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        world.clients[i].proxy = i % PROXIES;
        world.clients[i].worker = i / PROXIES % RIG_WORKERS;
        world.clients[i].client = miss_client_new();
    }
}

static void end(bool do_drain)
{
    const int64_t began_us = rig_now_us;

    world.is_ending = true;
    for (unsigned i = 0; i < PROXIES && do_drain; i++) {
        miss_leases_drain(world.proxies[i].rig.fleet.leases);
    }
    while (n_unanswered() > 0) {
        run_out();
        check();
        pass_time(20 * MS);
        assert_true(rig_now_us - began_us < 5 * SECOND);
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        if (world.clients[i].client != NULL) {
            close_client(&world.clients[i]);
        }
    }
    for (unsigned n = 0; n < 5 * 50; n++) {
        run_out();
        pass_time(20 * MS);
    }
    run_out();
    check();
    for (unsigned i = 0; i < PROXIES; i++) {
        assert_int_equal(miss_leases_count(world.proxies[i].rig.fleet.leases), 0);
        assert_int_equal(miss_leases_waiting(world.proxies[i].rig.fleet.leases), 0);
    }
    for (unsigned key = 0; key < KEYS; key++) {
        assert_int_equal(world.owner[key], 0);
    }
    assert_int_equal(rig_count(NS_METRIC_leases) + rig_count(NS_METRIC_leases_early) +
                         rig_count(NS_METRIC_leases_again),
                     rig_count(NS_METRIC_leases_set) + rig_count(NS_METRIC_leases_ran_out) +
                         rig_count(NS_METRIC_leases_abandoned));
    for (unsigned i = 0; i < PROXIES; i++) {
        rig_fini(&world.proxies[i].rig);
    }
    cache_free(&world.cache);
}

static void any_order_of_events_leaves_nothing_behind(void **state)
{
    const char *only = getenv("SEED");
    unsigned n_told = 0, n_shown = 0;

    (void)state;
    for (unsigned seed = 0; seed < SEEDS; seed++) {
        if (only != NULL && (unsigned)atoi(only) != seed) {
            continue;
        }
        begin(seed);
        print_message("seed %u\n", seed);
        for (unsigned n = 0; n < STEPS; n++) {
            step();
            check();
        }
        end(seed % 4 == 3);
        n_told += world.n_told;
        n_shown += world.n_shown;
    }
    if (only == NULL) {
        /* It did happen. */
        assert_true(n_told > 1000 && n_shown > 1000);
        assert_true(rig_count(NS_METRIC_leases_again) > 100);
        assert_true(rig_count(NS_METRIC_leases_early) > 100);
        assert_true(rig_count(NS_METRIC_leases_ran_out) > 100);
        assert_true(rig_count(NS_METRIC_leases_set) > 100);
        assert_true(stats_sum(METRIC_lease_locks_late) > 20);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_order_of_events_leaves_nothing_behind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
