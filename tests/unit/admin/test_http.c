/*
 * test_http.c - proves of http.h: what each page answers and when, the refusal of other paths and
 * methods, the limits, a port that is taken, and that neither a scraper that leaves nor a stop
 * while the workers are asked does harm
 */
#include "admin/http.h"

#include "admin_testing.h"

#include <errno.h>

static struct config_address address = {.host = "127.0.0.1"};
static struct admin_http *http;

/* A port that was free a moment ago. */
static unsigned free_port(void)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof(any);
    const int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&any, sizeof(any)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&any, &length), 0);
    close(fd);
    return ntohs(any.sin_port);
}

static int connect_to_admin(void)
{
    const struct sockaddr_in target = {.sin_family = AF_INET,
                                       .sin_addr = {htonl(INADDR_LOOPBACK)},
                                       .sin_port = htons((uint16_t)address.port)};
    const int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_int_equal(connect(fd, (const struct sockaddr *)&target, sizeof(target)), 0);
    return fd;
}

static void send_text(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* All that comes until the server closes; the caller frees it. */
static char *receive_all(int fd)
{
    const int64_t deadline_ms = clock_now_ms() + RIG_PATIENCE_MS;
    size_t n = 0, room = 1 << 20;
    char *text = malloc(room);

    assert_non_null(text);
    while (clock_now_ms() < deadline_ms) {
        const ssize_t got = recv(fd, text + n, room - n - 1, MSG_DONTWAIT);

        if (got == 0 || (got < 0 && errno == ECONNRESET)) {
            text[n] = '\0';
            return text;
        }
        n += got > 0 ? (size_t)got : 0;
        rig_turn(fd);
    }
    fail_msg("no answer in time");
    return NULL;
}

static char *ask(const char *method, const char *path)
{
    const int fd = connect_to_admin();
    char request[256];
    char *answer;

    snprintf(request, sizeof(request), "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
             method, path);
    send_text(fd, request);
    answer = receive_all(fd);
    close(fd);
    return answer;
}

static void assert_answer(const char *method, const char *path, const char *status,
                          const char *body)
{
    char *answer = ask(method, path);
    const char *blank = strstr(answer, "\r\n\r\n");

    assert_non_null(blank);
    assert_memory_equal(answer, "HTTP/1.1 ", 9);
    assert_memory_equal(answer + 9, status, strlen(status));
    assert_string_equal(blank + 4, body);
    free(answer);
}

static void a_running_process_is_healthy_whatever_the_backend_does(void **state)
{
    (void)state;
    assert_answer("GET", "/healthz", "200 OK", "ok\n");
    assert_answer("GET", "/healthz?verbose=1", "200 OK", "ok\n");
    atomic_store(&rig.proxy.is_draining, true);
    assert_answer("GET", "/healthz", "200 OK", "ok\n");
    atomic_store(&rig.proxy.is_draining, false);
}

static void readiness_needs_a_backend_and_ends_with_the_drain(void **state)
{
    (void)state;
    assert_answer("GET", "/readyz", "503 Service Unavailable",
                  "backend unreachable: no answer yet\n");
    atomic_store(&rig.proxy.is_reachable, true);
    assert_answer("GET", "/readyz", "200 OK", "ok\n");
    atomic_store(&rig.proxy.is_draining, true);
    assert_answer("GET", "/readyz", "503 Service Unavailable", "draining\n");
    atomic_store(&rig.proxy.is_draining, false);
    atomic_store(&rig.proxy.is_reachable, false);
}

static void metrics_come_in_the_text_format_of_prometheus(void **state)
{
    char *answer = ask("GET", "/metrics");

    (void)state;
    assert_non_null(strstr(answer, "HTTP/1.1 200 OK\r\n"));
    assert_non_null(strstr(answer, "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    assert_non_null(strstr(answer, "\n# TYPE nearcached_hits_total counter\n"));
    assert_non_null(strstr(answer, "\nnearcached_ready 0\n"));
    assert_non_null(strstr(answer, "\nnearcached_max_clients 100\n"));
    free(answer);
}

static void the_index_links_to_the_pages(void **state)
{
    char *answer = ask("GET", "/");

    (void)state;
    assert_non_null(strstr(answer, "Content-Type: text/html"));
    assert_non_null(strstr(answer, "href=\"/metrics\""));
    assert_non_null(strstr(answer, "href=\"/healthz\""));
    assert_non_null(strstr(answer, "href=\"/readyz\""));
    free(answer);
}

static void a_head_request_gets_the_length_but_no_body(void **state)
{
    char *answer = ask("HEAD", "/healthz");

    (void)state;
    assert_non_null(strstr(answer, "HTTP/1.1 200 OK\r\n"));
    assert_non_null(strstr(answer, "Content-Length: 3\r\n"));
    assert_string_equal(strstr(answer, "\r\n\r\n"), "\r\n\r\n");
    free(answer);
}

static void other_paths_and_methods_are_refused(void **state)
{
    char *answer;

    (void)state;
    assert_answer("GET", "/metrics/", "404 Not Found", "not found\n");
    assert_answer("GET", "/../etc/passwd", "404 Not Found", "not found\n");
    assert_answer("POST", "/healthz", "405 Method Not Allowed", "method not allowed\n");
    assert_answer("DELETE", "/metrics", "405 Method Not Allowed", "method not allowed\n");
    answer = ask("PUT", "/readyz");
    assert_non_null(strstr(answer, "\r\nAllow: GET, HEAD\r\n"));
    free(answer);
}

static void requests_beyond_the_limits_are_refused(void **state)
{
    const int fd = connect_to_admin();
    char *filler = malloc(20001);
    char *answer;

    (void)state;
    assert_non_null(filler);
    memset(filler, 'a', 20000);
    filler[20000] = '\0';
    send_text(fd, "GET /healthz HTTP/1.1\r\nX-Filler: ");
    send_text(fd, filler);
    send_text(fd, "\r\n\r\n");
    answer = receive_all(fd);
    assert_null(strstr(answer, "200 OK"));
    close(fd);
    free(filler);
    free(answer);
    assert_answer("GET", "/healthz", "200 OK", "ok\n");
}

static void connections_stay_open_for_more_requests(void **state)
{
    const int fd = connect_to_admin();
    char *answer;

    (void)state;
    send_text(fd, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
                  "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    answer = receive_all(fd);
    assert_non_null(strstr(answer, "nearcached_uptime_seconds"));
    assert_non_null(strstr(answer, "\r\n\r\nok\n"));
    close(fd);
    free(answer);
}

/* Both ways to lose the request while the workers are asked. */
static void a_scraper_that_leaves_early_does_no_harm(void **state)
{
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};

    (void)state;
    for (unsigned i = 0; i < 200; i++) {
        const int fd = connect_to_admin();

        send_text(fd, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        for (unsigned turn = 0; turn < i % 4; turn++) {
            event_base_loop(rig.control.base, EVLOOP_NONBLOCK);
        }
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
        close(fd);
        event_base_loop(rig.control.base, EVLOOP_NONBLOCK);
    }
    assert_answer("GET", "/healthz", "200 OK", "ok\n");
}

static void stopping_drops_answers_under_way(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 50; i++) {
        const int fd = connect_to_admin();
        char *answer;

        send_text(fd, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        for (unsigned turn = 0; turn < i % 4; turn++) {
            event_base_loop(rig.control.base, EVLOOP_NONBLOCK);
        }
        admin_http_stop(&http);
        assert_null(http);
        answer = receive_all(fd);
        free(answer);
        close(fd);
        rig_turn(-1);
        assert_int_equal(admin_http_start(&http, &rig.proxy, NULL, &address, -1), 0);
    }
}

static void a_port_that_is_taken_is_an_error(void **state)
{
    const struct config_address socket_file = {.is_unix = true, .path = "/tmp/x.sock"};
    struct admin_http *other = NULL;

    (void)state;
    assert_int_equal(admin_http_start(&other, &rig.proxy, NULL, &address, -1), -EADDRINUSE);
    assert_null(other);
    assert_int_equal(admin_http_start(&other, &rig.proxy, NULL, &socket_file, -1), -EAFNOSUPPORT);
    assert_null(other);
    admin_http_stop(&other);
    assert_answer("GET", "/healthz", "200 OK", "ok\n");
}

static void it_answers_on_ipv6(void **state)
{
    const struct sockaddr_in6 loopback = {.sin6_family = AF_INET6,
                                          .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    struct config_address on_v6 = {.host = "::1", .port = free_port()};
    struct sockaddr_in6 target = loopback;
    const int fd = socket(AF_INET6, SOCK_STREAM, 0);
    char *answer;

    (void)state;
    if (fd < 0 || bind(fd, (const struct sockaddr *)&loopback, sizeof(loopback)) != 0) {
        print_message("skipped: this machine has no IPv6 loopback\n");
        close(fd);
        skip();
    }
    close(fd);
    admin_http_stop(&http);
    assert_int_equal(admin_http_start(&http, &rig.proxy, NULL, &on_v6, -1), 0);
    const int client = socket(AF_INET6, SOCK_STREAM, 0);
    target.sin6_port = htons((uint16_t)on_v6.port);
    assert_int_equal(connect(client, (struct sockaddr *)&target, sizeof(target)), 0);
    send_text(client, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    answer = receive_all(client);
    assert_non_null(strstr(answer, "200 OK"));
    free(answer);
    close(client);
    admin_http_stop(&http);
    assert_int_equal(admin_http_start(&http, &rig.proxy, NULL, &address, -1), 0);
}

static int start(void **state)
{
    (void)state;
    rig_start("");
    address.port = free_port();
    assert_int_equal(admin_http_start(&http, &rig.proxy, NULL, &address, -1), 0);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    admin_http_stop(&http);
    rig_stop();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_running_process_is_healthy_whatever_the_backend_does),
        cmocka_unit_test(readiness_needs_a_backend_and_ends_with_the_drain),
        cmocka_unit_test(metrics_come_in_the_text_format_of_prometheus),
        cmocka_unit_test(the_index_links_to_the_pages),
        cmocka_unit_test(a_head_request_gets_the_length_but_no_body),
        cmocka_unit_test(other_paths_and_methods_are_refused),
        cmocka_unit_test(requests_beyond_the_limits_are_refused),
        cmocka_unit_test(connections_stay_open_for_more_requests),
        cmocka_unit_test(a_scraper_that_leaves_early_does_no_harm),
        cmocka_unit_test(stopping_drops_answers_under_way),
        cmocka_unit_test(a_port_that_is_taken_is_an_error),
        cmocka_unit_test(it_answers_on_ipv6),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
