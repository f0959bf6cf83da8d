/*
 * A proxy without a backend: a configuration from text, tier 1, two workers, and the test's thread
 * as its control thread. One per program, as the cache owns the process's arena.
 */
#ifndef NC_TESTS_ADMIN_TESTING_H
#define NC_TESTS_ADMIN_TESTING_H

#include "base/clock.h"
#include "base/log.h"
#include "proxy/session.h"

#include <arpa/inet.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define RIG_WORKERS 2
#define RIG_NODE ((epochs_node)7)
/* Longer than anything takes, unless it is broken. */
#define RIG_PATIENCE_MS 10000

struct rig {
    struct worker control;
    struct config *config;
    struct cache *cache;
    struct proxy proxy;
};

static struct rig rig;

static inline struct config *rig_parse(const char *text)
{
    struct config *config = NULL;

    assert_int_equal(config_parse(bytes_of_string(text), "test.conf", &config, stderr), 0);
    return config;
}

static inline void rig_start(const char *config_text)
{
    const struct cache_options options = {
        .maxmemory = 16 << 20, .negative_percent = 5, .n_shards = 1, .max_flights = 1024};

    log_set_level(LOG_ERROR);
    rig.config = rig_parse(config_text);
    assert_int_equal(worker_init(&rig.control, RIG_WORKERS), 0);
    assert_int_equal(cache_new(&options, &rig.cache), 0);
    assert_int_equal(proxy_init(&rig.proxy, rig.cache, &rig.control, rig.config, RIG_WORKERS,
                                &rig.config->target),
                     0);
    atomic_store(&rig.proxy.max_clients, 100);
    assert_int_equal(proxy_start(&rig.proxy), 0);
}

static inline void rig_stop(void)
{
    proxy_stop(&rig.proxy);
    proxy_fini(&rig.proxy);
    event_base_loop(rig.control.base, EVLOOP_NONBLOCK);
    worker_fini(&rig.control);
    cache_free(&rig.cache);
    config_unref(&rig.config);
}

/* One turn of the control thread; fd, if it is one, may become readable meanwhile. */
static inline void rig_turn(int fd)
{
    struct pollfd wanted[2] = {{.fd = rig.control.wake_fd}, {.fd = fd, .events = POLLIN}};

    (void)poll(wanted, 2, 1);
    event_base_loop(rig.control.base, EVLOOP_NONBLOCK);
}

/* Stores a view as a fetch on worker 0 would; args as in a request's frame. */
static inline void rig_fill_view(const char *key, const char *command, const char *args,
                                 const char *reply, uint8_t ns)
{
    const struct bytes name = bytes_of_string(command);
    struct epochs *epochs = cache_epochs(rig.cache);
    static uint16_t incarnation;
    const int64_t now_us = clock_now_us();
    const struct cache_query query = {.key = bytes_of_string(key),
                                      .hash = cache_hash(bytes_of_string(key)),
                                      .command = command_find(&name, 1, NULL)->number,
                                      .args = bytes_of_string(args),
                                      .now_us = now_us,
                                      .max_staleness_us = 60000000};
    struct cache_waiter waiter = {.worker = 0};
    const struct cache_fill fill = {.reply = bytes_of_string(reply),
                                    .encoding = CACHE_SAME_IN_BOTH,
                                    .deadline_us = now_us + 60000000,
                                    .ns = ns};
    static unsigned char room[CACHE_COPY_MAX];
    struct cache_flight *flight = NULL;
    struct cache_waiter *answered = NULL;
    struct cache_hit hit;

    epochs_assign(epochs, 0, RIG_NODE);
    if (incarnation == EPOCHS_NONE || !epochs_is_live(epochs_at(epochs, incarnation))) {
        incarnation = epochs_open(epochs, RIG_NODE, 0, now_us);
    }

    const struct cache_offer offer = {.incarnation = incarnation,
                                      .worker = 0,
                                      .node = RIG_NODE,
                                      .may_begin = true,
                                      .may_hit = true};

    assert_int_equal(cache_lookup(rig.cache, &query, &offer, 10, &waiter, room, &hit, &flight),
                     CACHE_BEGUN);
    assert_int_equal(
        cache_complete(rig.cache, &flight, &fill, now_us, query.max_staleness_us, &answered),
        CACHE_FILLED);
}

static inline void rig_fill(const char *key, const char *reply, uint8_t ns)
{
    rig_fill_view(key, "get", "", reply, ns);
}

#endif
