/*
 * Proves of cache.h, threading: readers, fillers, invalidators, a link that advances, slots that
 * move, sweep, tick and clear at once, on few keys and a small budget. Values carry the number of
 * their key and a version; after the invalidation of a write no reader of a later begun look-up may
 * see an older version. Sums are exact when all is quiet. Meant for the sanitizers as well.
 */
#include <sched.h>
#include <unistd.h>

#include "cache_testing.h"

#define N_KEYS 200u
#define N_READERS 3u
#define N_ROUNDS 30000u

struct hammer {
    struct rig rig;
    _Atomic unsigned versions[N_KEYS]; /* the backend's */
    _Atomic unsigned acknowledged[N_KEYS];
    _Atomic uint16_t link;
    _Atomic bool is_over;
    _Atomic uint64_t n_hits, n_fills, n_joins, n_wrong;
};

static uint32_t step(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state >> 8;
}

/* "$n\r\n<key> <version> vvv...\r\n" */
static size_t write_reply(unsigned char *out, unsigned key, unsigned version)
{
    const size_t n = key % 10 == 0 ? 6000 : 20 + key;
    char *text = (char *)out;
    const int head = sprintf(text, "$%05zu\r\n", n);

    memset(text + head, 'v', n);
    const int written = sprintf(text + head, "%u %u ", key, version);
    text[head + written] = 'v';
    memcpy(text + head + n, "\r\n", 2);
    return (size_t)head + n + 2;
}

static void check_reply(struct hammer *hammer, struct bytes reply, unsigned key, unsigned least)
{
    unsigned seen_key = 0, seen_version = 0;

    if (sscanf((const char *)reply.ptr + 8, "%u %u ", &seen_key, &seen_version) != 2 ||
        seen_key != key || seen_version < least || reply.ptr[reply.len - 1] != '\n') {
        atomic_fetch_add(&hammer->n_wrong, 1);
    }
}

static struct cache_query query_of(unsigned key, char *text)
{
    const int n = sprintf(text, "key %u", key);
    const struct bytes name = bytes_make(text, (size_t)n);

    return (struct cache_query){.key = name,
                                .hash = cache_hash(name),
                                .db = key % 7 == 0 ? 2 : 0,
                                .command = (uint16_t)(key % 5 == 0 ? 9 : 0),
                                .now_us = clock_now_us(),
                                .max_staleness_us = 10 * SECOND};
}

/* The fetch: reads the backend after the flight has begun, as a link does. */
static void fetch(struct hammer *hammer, struct cache_flight *flight, unsigned key)
{
    static _Thread_local unsigned char reply[8192];
    const size_t n = write_reply(reply, key, atomic_load(&hammer->versions[key]));
    const struct cache_fill fill = {.reply = bytes_make(reply, n),
                                    .deadline_us = clock_now_us() + 500 * MS};
    struct cache_waiter *waiters = NULL;

    /* The reply is under way: time for a write to come between. */
    sched_yield();
    if (cache_complete(hammer->rig.cache, &flight, &fill, clock_now_us(), 10 * SECOND, &waiters) ==
        CACHE_FILLED) {
        atomic_fetch_add(&hammer->n_fills, 1);
    }
    while (waiters != NULL) {
        struct cache_waiter *next = waiters->next;
        free(waiters);
        waiters = next;
    }
}

static void read_once(struct hammer *hammer, unsigned key)
{
    unsigned char copy[CACHE_COPY_MAX + 1];
    char text[24];
    const unsigned least = atomic_load(&hammer->acknowledged[key]);
    const struct cache_query query = query_of(key, text);
    const struct cache_offer offer = {.incarnation = atomic_load(&hammer->link),
                                      .node = RIG_NODE,
                                      .may_begin = true,
                                      .may_hit = true};
    struct cache_waiter *waiter = malloc(sizeof(*waiter));
    struct cache_flight *flight = NULL;
    struct cache_hit hit;
    const enum cache_outcome outcome = cache_lookup(hammer->rig.cache, &query, &offer, 100, waiter,
                                                    copy, &hit, &flight);

    if (outcome == CACHE_BEGUN) {
        fetch(hammer, flight, key);
        return;
    }
    if (outcome == CACHE_JOINED) {
        atomic_fetch_add(&hammer->n_joins, 1);
        return;
    }
    free(waiter);
    if (outcome == CACHE_HIT) {
        if (hit.pinned == NULL) {
            copy[hit.reply.len] = 0;
        }
        check_reply(hammer, hit.reply, key, least);
        atomic_fetch_add(&hammer->n_hits, 1);
        if (hit.pinned != NULL) {
            cache_unpin(hammer->rig.cache, hit.pinned);
        }
    }
}

static void *reader(void *arg)
{
    struct hammer *hammer = arg;
    uint32_t state = (uint32_t)(uintptr_t)&state;

    for (unsigned i = 0; i < N_ROUNDS; i++) {
        read_once(hammer, step(&state) % N_KEYS);
    }
    return NULL;
}

/* Writes: the backend first, then the invalidation, then the acknowledgement. */
static void *writer(void *arg)
{
    struct hammer *hammer = arg;
    uint32_t state = 77;
    char text[24];

    while (!atomic_load(&hammer->is_over)) {
        const unsigned key = step(&state) % N_KEYS;
        const struct cache_query query = query_of(key, text);
        const unsigned version = atomic_fetch_add(&hammer->versions[key], 1) + 1;

        cache_invalidate(hammer->rig.cache, query.key);
        atomic_store(&hammer->acknowledged[key], version);
        if (step(&state) % 64 == 0) {
            usleep(100);
        }
    }
    return NULL;
}

static void *control(void *arg)
{
    struct hammer *hammer = arg;
    struct cache *cache = hammer->rig.cache;
    struct epochs *epochs = hammer->rig.epochs;
    struct cache_stats stats;

    for (unsigned i = 0; !atomic_load(&hammer->is_over); i++) {
        const uint16_t link = atomic_load(&hammer->link);
        epochs_advance(epochs, link, clock_now_us());
        cache_sweep(cache, cache_sweep_quota(cache, 10 * MS), clock_now_us());
        if (i % 50 == 0) {
            epochs_close(epochs, link);
            atomic_store(&hammer->link, epochs_open(epochs, RIG_NODE, 0, clock_now_us()));
        }
        if (i % 70 == 0) {
            epochs_disturb(epochs, 0);
        }
        if (i % 90 == 0) {
            cache_tick(cache);
            cache_stats(cache, &stats);
        }
        if (i % 110 == 0) {
            (void)cache_clear(cache, i % 220 == 0 ? -1 : 0, METRIC_invalidations_admin);
        }
        usleep(500);
    }
    return NULL;
}

static void nothing_old_is_read_whatever_happens_at_once(void **state)
{
    struct hammer *hammer = calloc(1, sizeof(*hammer));
    pthread_t readers[N_READERS], others[2];
    struct cache_stats stats;

    (void)state;
    rig_init(&hammer->rig, MIB, 1);
    atomic_store(&hammer->link, hammer->rig.link);
    pthread_create(&others[0], NULL, writer, hammer);
    pthread_create(&others[1], NULL, control, hammer);
    for (unsigned i = 0; i < N_READERS; i++) {
        pthread_create(&readers[i], NULL, reader, hammer);
    }
    for (unsigned i = 0; i < N_READERS; i++) {
        pthread_join(readers[i], NULL);
    }
    atomic_store(&hammer->is_over, true);
    pthread_join(others[0], NULL);
    pthread_join(others[1], NULL);

    assert_int_equal(atomic_load(&hammer->n_wrong), 0);
    assert_true(atomic_load(&hammer->n_hits) > 1000);
    assert_true(atomic_load(&hammer->n_fills) > 1000);
    cache_stats(hammer->rig.cache, &stats);
    assert_int_equal(stats.n_flights, 0);
    assert_int_equal(hammer->rig.cache->shards[0].detached_bytes, 0);
    rig_audit(&hammer->rig);
    rig_fini(&hammer->rig);
    free(hammer);
}

/* Growth, eviction and shrinking under several fillers. */
static void *filler(void *arg)
{
    struct rig *rig = arg;
    static _Atomic unsigned n_fillers;
    const unsigned number = atomic_fetch_add(&n_fillers, 1);
    char key[32];
    unsigned char copy[CACHE_COPY_MAX];

    for (unsigned i = 0; i < 20000; i++) {
        const int n = snprintf(key, sizeof(key), "filler %u %u", number % 2, i);
        const struct bytes name = bytes_make(key, (size_t)n);
        const struct cache_query query = {.key = name,
                                          .hash = cache_hash(name),
                                          .now_us = rig->now_us,
                                          .max_staleness_us = 100 * SECOND};
        const struct cache_offer offer = rig_offer(rig);
        const struct cache_fill fill = {.reply = BYTES("$4\r\nabcd\r\n"),
                                        .deadline_us = CACHE_NO_DEADLINE};
        struct cache_waiter *waiter = malloc(sizeof(*waiter));
        struct cache_waiter *back = NULL;
        struct cache_flight *flight = NULL;
        struct cache_hit hit;
        const enum cache_outcome outcome = cache_lookup(rig->cache, &query, &offer, 100, waiter,
                                                        copy, &hit, &flight);

        if (outcome == CACHE_BEGUN) {
            (void)cache_complete(rig->cache, &flight, &fill, rig->now_us, 100 * SECOND, &back);
        } else if (outcome != CACHE_JOINED) {
            free(waiter);
        }
        while (back != NULL) {
            waiter = back->next;
            free(back);
            back = waiter;
        }
        if (i % 3 == 0) {
            cache_invalidate(rig->cache, name);
        }
    }
    return NULL;
}

static void table_grows_under_several_threads(void **state)
{
    struct rig rig;
    pthread_t threads[4];

    (void)state;
    rig_init(&rig, 2 * MIB, 2);
    for (unsigned i = 0; i < 4; i++) {
        pthread_create(&threads[i], NULL, filler, &rig);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    rig_audit(&rig);
    cache_clear(rig.cache, -1, METRIC_invalidations_admin);
    rig_audit(&rig);
    rig_fini(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_old_is_read_whatever_happens_at_once),
        cmocka_unit_test(table_grows_under_several_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
