/*
 * test_link.c - proves of link.h: who is told that its time is over may ask again at once, on the
 * link that is up, and replies that come late are nobody's
 *
 * The server is a socket of this process that the test reads and writes by hand; time is what the
 * test says to link_tick().
 */
#include "upstream/link.h"

#include "base/clock.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define TIMEOUT_MS 1000
#define PING "*1\r\n$4\r\nPING\r\n"

static struct worker worker;
static struct link the_link;
static int listener = -1, server = -1;

struct ask {
    struct link_op op;
    bool asks_again;
    int error; /* of asking again */
    struct ask *other;
    unsigned n_replies, n_lost;
    char reply[32];
};

static void on_reply(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                     bool is_first, bool is_last);
static void on_lost(struct link_op *op, struct link *link, enum link_loss loss);

static const struct link_op_type ask_type = {on_reply, on_lost};

static int ask(struct ask *what)
{
    const struct bytes parts[] = {BYTES(PING)};

    what->op.type = &ask_type;
    what->op.collect = LINK_COLLECT_MIN;
    return link_send(&the_link, 0, parts, 1, 1, &what->op);
}

static void on_reply(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                     bool is_first, bool is_last)
{
    struct ask *what = CONTAINER_OF(op, struct ask, op);

    (void)link;
    (void)index;
    assert_true(is_first && is_last);
    what->n_replies++;
    snprintf(what->reply, sizeof(what->reply), "%.*s", (int)part.len - 2, (const char *)part.ptr);
}

static void on_lost(struct link_op *op, struct link *link, enum link_loss loss)
{
    struct ask *what = CONTAINER_OF(op, struct ask, op);

    (void)loss;
    (void)link;
    what->n_lost++;
    if (what->asks_again) {
        what->error = ask(what->other);
    }
}

/* Until the server has read so many bytes, which go to text. */
static void server_reads(char *text, size_t n)
{
    size_t got = 0;

    while (got < n) {
        struct pollfd wait = {.fd = server, .events = POLLIN};

        event_base_loop(worker.base, EVLOOP_NONBLOCK);
        worker_run_deferred(&worker);
        if (poll(&wait, 1, 1) > 0) {
            const ssize_t some = read(server, text + got, n - got);

            assert_true(some > 0);
            got += (size_t)some;
        }
    }
    text[n] = '\0';
}

static void server_says(const char *text)
{
    assert_int_equal(write(server, text, strlen(text)), strlen(text));
}

static void run_until_up(void)
{
    char greeting[64];

    link_wake(&the_link);
    server = accept(listener, NULL, NULL);
    assert_true(server >= 0);
    server_reads(greeting, 16);
    server_says("+OK\r\n");
    while (!link_is_up(&the_link)) {
        assert_int_not_equal(the_link.state, LINK_DOWN);
        event_base_loop(worker.base, EVLOOP_ONCE);
    }
    fcntl(server, F_SETFL, O_NONBLOCK);
    while (read(server, greeting, sizeof(greeting)) > 0) {
    }
    fcntl(server, F_SETFL, 0);
}

static int set_up(void **state)
{
    static const struct config_backend login;
    const struct link_settings settings = {.connect_timeout_ms = 60000,
                                           .request_timeout_ms = TIMEOUT_MS,
                                           .reconnect_min_ms = 1000,
                                           .reconnect_max_ms = 1000,
                                           .output_limit = 1 << 20};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    struct topology_node node = {0};

    (void)state;
    listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, length), 0);
    assert_int_equal(listen(listener, 4), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &length), 0);
    assert_int_equal(endpoint_from_ip(&node.endpoint, "127.0.0.1", ntohs(address.sin_port)), 0);
    assert_int_equal(worker_init(&worker, 0), 0);
    link_init(&the_link, LINK_RELAY2, &worker, &node, &login, &settings);
    run_until_up();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    link_fini(&the_link);
    worker_fini(&worker);
    close(server);
    close(listener);
    return 0;
}

static void who_is_told_that_its_time_is_over_may_ask_again_at_once(void **state)
{
    struct ask late = {.asks_again = true}, again = {0}, other = {0};
    char text[64];

    (void)state;
    late.other = &again;
    assert_int_equal(ask(&late), 0);
    server_reads(text, strlen(PING));
    assert_string_equal(text, PING);
    link_tick(&the_link, clock_now_us() + (TIMEOUT_MS + 100) * 1000);
    assert_int_equal(late.n_lost, 1);
    assert_int_equal(late.error, 0);
    assert_true(link_is_up(&the_link));
    assert_int_equal(ask(&other), 0);
    server_reads(text, 2 * strlen(PING));
    /* The first reply is nobody's. */
    server_says("+late\r\n+again\r\n+other\r\n");
    while (other.n_replies == 0) {
        event_base_loop(worker.base, EVLOOP_ONCE);
        worker_run_deferred(&worker);
    }
    assert_int_equal(late.n_replies, 0);
    assert_int_equal(again.n_replies, 1);
    assert_string_equal(again.reply, "+again");
    assert_string_equal(other.reply, "+other");
    assert_int_equal(again.n_lost + other.n_lost, 0);
}

static void on_a_link_that_is_lost_nothing_can_be_queued(void **state)
{
    struct ask lost = {.asks_again = true}, again = {0};

    (void)state;
    lost.other = &again;
    assert_int_equal(ask(&lost), 0);
    link_close(&the_link, "the test says so");
    assert_int_equal(lost.n_lost, 1);
    assert_int_equal(lost.error, -ENOTCONN);
    assert_int_equal(again.n_lost, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(who_is_told_that_its_time_is_over_may_ask_again_at_once,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(on_a_link_that_is_lost_nothing_can_be_queued, set_up,
                                        tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
