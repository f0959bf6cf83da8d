/*
 * test_stages.c - proves of proxy_set_config(): where keys begin to be kept, or no longer are, no
 * worker takes the configuration before all have stopped fetching; changes come one after the
 * other; what is kept of other namespaces stays
 */
#include "admin_testing.h"

#include <semaphore.h>

#define KEPT "[namespace n]\nmatch = n:*\ncache = on\n"
#define NOT_KEPT "[namespace n]\nmatch = n:*\ncache = off\n"

/* Stands in a worker's way until it is let go. */
struct obstacle {
    struct mail mail;
    sem_t is_there, may_go;
};

static void on_obstacle(struct mail *mail)
{
    struct obstacle *obstacle = CONTAINER_OF(mail, struct obstacle, mail);

    sem_post(&obstacle->is_there);
    sem_wait(&obstacle->may_go);
}

static void block(struct obstacle *obstacle, unsigned worker)
{
    obstacle->mail.run = on_obstacle;
    sem_init(&obstacle->is_there, 0, 0);
    sem_init(&obstacle->may_go, 0, 0);
    worker_post(&rig.proxy.fronts[worker].worker, &obstacle->mail);
    sem_wait(&obstacle->is_there);
}

static void let_go(struct obstacle *obstacle)
{
    sem_post(&obstacle->may_go);
}

/* What a worker goes by, behind all that it was told before. */
struct look {
    struct mail mail;
    struct front *front;
    const struct config *config;
    bool holds_fills;
    sem_t is_done;
};

static void on_look(struct mail *mail)
{
    struct look *look = CONTAINER_OF(mail, struct look, mail);

    look->config = look->front->config;
    look->holds_fills = look->front->coherence.holds_fills;
    sem_post(&look->is_done);
}

static struct look look_at(unsigned worker)
{
    struct look look = {.front = &rig.proxy.fronts[worker]};

    look.mail.run = on_look;
    sem_init(&look.is_done, 0, 0);
    worker_post(&look.front->worker, &look.mail);
    sem_wait(&look.is_done);
    return look;
}

static void set_flag(void *context)
{
    *(bool *)context = true;
}

static void wait_for(const bool *flag)
{
    const int64_t deadline_ms = clock_now_ms() + RIG_PATIENCE_MS;

    while (!*flag && clock_now_ms() < deadline_ms) {
        rig_turn(-1);
    }
    assert_true(*flag);
}

/* From what is in force to `to`, which takes its place. */
static void change(struct config *to)
{
    bool is_done = false;

    proxy_set_config(&rig.proxy, rig.config, to, set_flag, &is_done);
    wait_for(&is_done);
    config_unref(&rig.config);
    rig.config = to;
}

static void change_while_one_is_stuck(struct config *to, bool is_staged)
{
    struct obstacle obstacle;
    struct look look;
    bool is_done = false;

    block(&obstacle, 1);
    proxy_set_config(&rig.proxy, rig.config, to, set_flag, &is_done);
    look = look_at(0);
    assert_int_equal(look.holds_fills, is_staged);
    assert_ptr_equal(look.config, is_staged ? rig.config : to);
    rig_turn(-1);
    assert_false(is_done);
    let_go(&obstacle);
    wait_for(&is_done);
    for (unsigned i = 0; i < RIG_WORKERS; i++) {
        look = look_at(i);
        assert_ptr_equal(look.config, to);
        assert_false(look.holds_fills);
    }
    config_unref(&rig.config);
    rig.config = to;
}

static void all_stop_fetching_before_one_begins_to_keep(void **state)
{
    (void)state;
    change_while_one_is_stuck(rig_parse(KEPT), true);
    change_while_one_is_stuck(rig_parse(NOT_KEPT), true);
    /* Other patterns: a key may come from a namespace that is not kept into one that is. */
    change_while_one_is_stuck(rig_parse("[namespace n]\nmatch = m:*\ncache = off\n"), true);
    change_while_one_is_stuck(rig_parse(NOT_KEPT), true);
    change_while_one_is_stuck(rig_parse(NOT_KEPT "[cache]\nmode = bypass\n"), true);
    change_while_one_is_stuck(rig_parse(NOT_KEPT), true);
}

static void other_changes_need_no_stages(void **state)
{
    (void)state;
    change_while_one_is_stuck(rig_parse(NOT_KEPT "max-ttl = 3s\n"), false);
    change_while_one_is_stuck(rig_parse(NOT_KEPT "[cache]\nmode = readonly\n"), false);
    change_while_one_is_stuck(rig_parse(NOT_KEPT), false);
}

static void changes_come_one_after_the_other(void **state)
{
    struct config *first = rig_parse(KEPT), *second = rig_parse(KEPT "max-ttl = 3s\n");
    struct config *third = rig_parse(NOT_KEPT);
    struct obstacle obstacle;
    bool is_first = false, is_second = false, is_third = false;

    (void)state;
    block(&obstacle, 1);
    proxy_set_config(&rig.proxy, rig.config, first, set_flag, &is_first);
    proxy_set_config(&rig.proxy, first, second, set_flag, &is_second);
    proxy_set_config(&rig.proxy, second, third, set_flag, &is_third);
    assert_ptr_equal(look_at(0).config, rig.config);
    let_go(&obstacle);
    wait_for(&is_third);
    assert_true(is_first && is_second);
    assert_ptr_equal(look_at(0).config, third);
    assert_ptr_equal(look_at(1).config, third);
    config_unref(&first);
    config_unref(&second);
    config_unref(&rig.config);
    rig.config = third;
}

static bool is_held(const char *key)
{
    static unsigned char room[CACHE_COPY_MAX];
    const struct bytes name = BYTES("get");
    const struct cache_query query = {.key = bytes_of_string(key),
                                      .hash = cache_hash(bytes_of_string(key)),
                                      .command = command_find(&name, 1, NULL)->number,
                                      .args = BYTES(""),
                                      .now_us = clock_now_us(),
                                      .max_staleness_us = 60000000};
    struct cache_hit hit;
    enum cache_miss miss;

    return cache_get(rig.cache, &query, room, &hit, &miss);
}

static void what_is_kept_of_others_stays(void **state)
{
    const int n = config_namespace_find(BYTES("n"));

    (void)state;
    change(rig_parse(KEPT));
    rig_fill("n:1", "$1\r\nv\r\n", (uint8_t)n);
    rig_fill("other", "$1\r\nv\r\n", 0);
    change(rig_parse(KEPT "max-ttl = 3s\n"));
    assert_false(is_held("n:1"));
    assert_true(is_held("other"));
    rig_fill("n:1", "$1\r\nv\r\n", (uint8_t)n);
    change(rig_parse(KEPT "max-ttl = 3s\nmode = readonly\n[log]\nlog-level = error\n"));
    assert_true(is_held("n:1"));
    change(rig_parse(KEPT "max-ttl = 3s\nmode = bypass\n"));
    assert_false(is_held("n:1"));
    assert_true(is_held("other"));
    change(rig_parse(KEPT "max-ttl = 3s\n[cache]\nmode = off\n"));
    assert_false(is_held("other"));
    change(rig_parse(NOT_KEPT));
}

static int start(void **state)
{
    (void)state;
    rig_start(NOT_KEPT);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    rig_stop();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_stop_fetching_before_one_begins_to_keep),
        cmocka_unit_test(other_changes_need_no_stages),
        cmocka_unit_test(changes_come_one_after_the_other),
        cmocka_unit_test(what_is_kept_of_others_stays),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
