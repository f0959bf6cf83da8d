/*
 * test_stream.c - proves of stream.h: printable addresses, refused ones, connections over TCP (v4,
 * v6) and Unix sockets with their flags, errors as numbers, and what stream_listen() does with a
 * socket file that is stale, live or no socket
 */
#include "base/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char directory[] = "/tmp/test_stream.XXXXXX";
static char path[64];

static void addresses_are_printed_and_refused(void **state)
{
    struct endpoint endpoint;
    char too_long[200];

    (void)state;
    assert_int_equal(endpoint_from_ip(&endpoint, "127.0.0.1", 6379), 0);
    assert_string_equal(endpoint.text, "127.0.0.1:6379");
    assert_int_equal(endpoint_from_ip(&endpoint, "::1", 65535), 0);
    assert_string_equal(endpoint.text, "[::1]:65535");
    assert_int_equal(endpoint_from_path(&endpoint, "/run/x.sock"), 0);
    assert_string_equal(endpoint.text, "unix:/run/x.sock");
    assert_int_equal(endpoint_from_ip(&endpoint, "localhost", 6379), -EINVAL);
    assert_int_equal(endpoint_from_ip(&endpoint, "127.1", 6379), -EINVAL);
    assert_int_equal(endpoint_from_ip(&endpoint, "", 6379), -EINVAL);
    assert_int_equal(endpoint_from_ip(&endpoint, "127.0.0.1", 65536), -EINVAL);
    assert_int_equal(endpoint_from_ip(&endpoint, "fe80::1%no-such-link", 1), -EINVAL);
    assert_string_equal(endpoint.text, "unix:/run/x.sock"); /* written on success only */
    memset(too_long, 'x', sizeof too_long - 1);
    too_long[sizeof too_long - 1] = '\0';
    assert_int_equal(endpoint_from_path(&endpoint, too_long), -ENAMETOOLONG);
    assert_int_equal(endpoint_from_path(&endpoint, ""), -EINVAL);
    too_long[107] = '\0'; /* the longest that fits */
    assert_int_equal(endpoint_from_path(&endpoint, too_long), 0);
    assert_int_equal(strlen(endpoint.text), strlen("unix:") + 107);
}

/* What the kernel gave a listener that asked for port 0. */
static void bound_endpoint(int fd, struct endpoint *endpoint)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;

    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    endpoint_from_sockaddr(endpoint, (const struct sockaddr *)&address, length);
}

static int accept_one(int listener)
{
    struct pollfd ready = {.fd = listener, .events = POLLIN};

    assert_int_equal(poll(&ready, 1, 5000), 1);
    return accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

static void wait_for(const struct stream *stream, short events)
{
    struct pollfd ready = {.fd = stream->fd, .events = events};

    assert_int_equal(poll(&ready, 1, 5000), 1);
}

/* Connects, talks in both directions, and sees the other side leave. */
static void talk(int listener, const struct endpoint *endpoint)
{
    struct stream client, server;
    char buffer[16];
    struct iovec parts[2] = {{.iov_base = buffer, .iov_len = 2},
                             {.iov_base = buffer, .iov_len = 3}};

    const int result = stream_connect(&client, endpoint);
    assert_true(result == 0 || result == -EINPROGRESS);
    stream_init(&server, accept_one(listener));
    wait_for(&client, POLLOUT);
    assert_int_equal(stream_connect_result(&client), 0);
    assert_true(fcntl(client.fd, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(client.fd, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(stream_read(&client, buffer, sizeof buffer), -EAGAIN);
    assert_int_equal(stream_write(&server, BYTES("hello")), 5);
    wait_for(&client, POLLIN);
    assert_int_equal(stream_read(&client, buffer, sizeof buffer), 5);
    assert_memory_equal(buffer, "hello", 5);
    assert_int_equal(stream_writev(&client, parts, 2), 5);
    wait_for(&server, POLLIN);
    assert_int_equal(stream_read(&server, buffer, sizeof buffer), 5);
    assert_memory_equal(buffer, "hehel", 5);
    if (endpoint->address.ss_family != AF_UNIX) {
        int client_on = 0, server_on = 0;
        socklen_t length = sizeof client_on;

        assert_int_equal(getsockopt(client.fd, IPPROTO_TCP, TCP_NODELAY, &client_on, &length), 0);
        assert_int_equal(getsockopt(server.fd, IPPROTO_TCP, TCP_NODELAY, &server_on, &length), 0);
        assert_true(client_on && server_on);
    }
    stream_close(&client);
    stream_close(&client); /* idempotent */
    assert_int_equal(client.fd, -1);
    wait_for(&server, POLLIN);
    assert_int_equal(stream_read(&server, buffer, sizeof buffer), 0);
    stream_close(&server);
    assert_int_equal(stream_read(&server, buffer, sizeof buffer), -EBADF);
}

static void tcp_connections_work_over_ip4(void **state)
{
    struct endpoint endpoint;

    (void)state;
    assert_int_equal(endpoint_from_ip(&endpoint, "127.0.0.1", 0), 0);
    const int listener = stream_listen(&endpoint, 0);
    assert_true(listener >= 0);
    bound_endpoint(listener, &endpoint);
    talk(listener, &endpoint);
    assert_int_equal(stream_listen(&endpoint, 0), -EADDRINUSE);
    close(listener);
}

static void tcp_connections_work_over_ip6_beside_ip4(void **state)
{
    struct endpoint endpoint, ip4;
    unsigned port = 0;

    (void)state;
    assert_int_equal(endpoint_from_ip(&endpoint, "::", 0), 0);
    const int listener = stream_listen(&endpoint, 0);
    if (listener == -EAFNOSUPPORT || listener == -EADDRNOTAVAIL) {
        print_message("no IPv6 on this machine: %s\n", strerror(-listener));
        skip();
    }
    assert_true(listener >= 0);
    bound_endpoint(listener, &endpoint);
    assert_int_equal(sscanf(endpoint.text, "[::]:%u", &port), 1);
    assert_int_equal(endpoint_from_ip(&ip4, "0.0.0.0", port), 0);
    const int second = stream_listen(&ip4, 0);
    assert_true(second >= 0);
    close(second);
    assert_int_equal(endpoint_from_ip(&endpoint, "::1", port), 0);
    talk(listener, &endpoint);
    close(listener);
}

static void unix_sockets_have_their_mode_and_replace_stale_ones_only(void **state)
{
    struct endpoint endpoint;
    struct stat status;

    (void)state;
    assert_int_equal(endpoint_from_path(&endpoint, path), 0);
    int listener = stream_listen(&endpoint, 0620);
    assert_true(listener >= 0);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0620);
    talk(listener, &endpoint);
    assert_int_equal(stream_listen(&endpoint, 0600), -EADDRINUSE);
    assert_int_equal(stat(path, &status), 0);
    close(listener);

    /* The file is still there, and nobody behind it. */
    listener = stream_listen(&endpoint, 0666);
    assert_true(listener >= 0);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0666);
    talk(listener, &endpoint);
    close(listener);
    unlink(path);
}

static void a_file_that_is_no_socket_is_not_removed(void **state)
{
    struct endpoint endpoint;
    struct stat status;
    const int fd = open(path, O_CREAT | O_WRONLY, 0600);

    (void)state;
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(endpoint_from_path(&endpoint, path), 0);
    assert_int_equal(stream_listen(&endpoint, 0600), -EADDRINUSE);
    assert_int_equal(stat(path, &status), 0);
    unlink(path);
}

static void a_refused_connection_is_an_error_and_leaves_no_descriptor(void **state)
{
    struct endpoint endpoint;
    struct stream stream;

    (void)state;
    assert_int_equal(endpoint_from_path(&endpoint, path), 0);
    assert_int_equal(stream_connect(&stream, &endpoint), -ENOENT);
    assert_int_equal(stream.fd, -1);

    assert_int_equal(endpoint_from_ip(&endpoint, "127.0.0.1", 0), 0);
    const int listener = stream_listen(&endpoint, 0);
    bound_endpoint(listener, &endpoint);
    close(listener);
    const int result = stream_connect(&stream, &endpoint);
    if (result == -EINPROGRESS) {
        wait_for(&stream, POLLOUT);
        assert_int_equal(stream_connect_result(&stream), -ECONNREFUSED);
        stream_close(&stream);
    } else {
        assert_int_equal(result, -ECONNREFUSED);
        assert_int_equal(stream.fd, -1);
    }
}

static void writing_to_a_closed_peer_is_an_error_not_a_signal(void **state)
{
    int fds[2];
    struct stream stream;
    char buffer[4] = "abc";
    const struct iovec part = {.iov_base = buffer, .iov_len = 3};

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    stream_init(&stream, fds[0]);
    close(fds[1]);
    assert_int_equal(stream_write(&stream, BYTES("x")), -EPIPE);
    assert_int_equal(stream_writev(&stream, &part, 1), -EPIPE);
    stream_close(&stream);
}

static void an_unnamed_peer_has_a_text(void **state)
{
    const struct sockaddr_un_prefix {
        sa_family_t family;
    } unnamed = {AF_UNIX};
    struct endpoint endpoint;

    (void)state;
    endpoint_from_sockaddr(&endpoint, (const struct sockaddr *)&unnamed, sizeof unnamed);
    assert_string_equal(endpoint.text, "unix:");
    endpoint_from_sockaddr(&endpoint, (const struct sockaddr *)&unnamed, 0);
    assert_string_equal(endpoint.text, "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_printed_and_refused),
        cmocka_unit_test(tcp_connections_work_over_ip4),
        cmocka_unit_test(tcp_connections_work_over_ip6_beside_ip4),
        cmocka_unit_test(unix_sockets_have_their_mode_and_replace_stale_ones_only),
        cmocka_unit_test(a_file_that_is_no_socket_is_not_removed),
        cmocka_unit_test(a_refused_connection_is_an_error_and_leaves_no_descriptor),
        cmocka_unit_test(writing_to_a_closed_peer_is_an_error_not_a_signal),
        cmocka_unit_test(an_unnamed_peer_has_a_text),
    };

    if (mkdtemp(directory) == NULL) {
        perror(directory);
        return 1;
    }
    snprintf(path, sizeof path, "%s/s", directory);
    const int n_failed = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(directory);
    return n_failed;
}
