/*
 * stream.c - system calls on sockets, with their errors as negative numbers
 */
#include "base/stream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* 10 000 clients that come at once wait here while earlier ones are accepted. */
#define BACKLOG 4096

/* "fe80::1%eth0": the address is link-local, and which link is part of it. */
static bool parse_ip6(const char *host, struct sockaddr_in6 *address)
{
    const char *percent = strchr(host, '%');
    char digits[INET6_ADDRSTRLEN];

    if (percent == NULL) {
        return inet_pton(AF_INET6, host, &address->sin6_addr) == 1;
    }
    if ((size_t)(percent - host) >= sizeof digits) {
        return false;
    }
    memcpy(digits, host, (size_t)(percent - host));
    digits[percent - host] = '\0';
    address->sin6_scope_id = if_nametoindex(percent + 1);
    return address->sin6_scope_id != 0 && inet_pton(AF_INET6, digits, &address->sin6_addr) == 1;
}

int endpoint_from_ip(struct endpoint *endpoint, const char *host, unsigned port)
{
    struct sockaddr_in ip4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct sockaddr_in6 ip6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};

    if (port > UINT16_MAX) {
        return -EINVAL;
    }
    if (inet_pton(AF_INET, host, &ip4.sin_addr) == 1) {
        endpoint_from_sockaddr(endpoint, (const struct sockaddr *)&ip4, sizeof ip4);
        return 0;
    }
    if (parse_ip6(host, &ip6)) {
        endpoint_from_sockaddr(endpoint, (const struct sockaddr *)&ip6, sizeof ip6);
        return 0;
    }
    return -EINVAL;
}

int endpoint_from_path(struct endpoint *endpoint, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const size_t len = strlen(path);

    if (len == 0) {
        return -EINVAL;
    }
    if (len >= sizeof address.sun_path) {
        return -ENAMETOOLONG;
    }
    memcpy(address.sun_path, path, len);
    endpoint_from_sockaddr(endpoint, (const struct sockaddr *)&address, sizeof address);
    return 0;
}

/* A client's end of a Unix socket has no name; its text is "unix:" alone. */
static void print_path(struct endpoint *endpoint)
{
    struct sockaddr_un address = {.sun_family = AF_UNSPEC};

    memcpy(&address, &endpoint->address, endpoint->length);
    snprintf(endpoint->text, sizeof endpoint->text, "unix:%.*s", (int)sizeof address.sun_path,
             address.sun_path);
}

void endpoint_from_sockaddr(struct endpoint *endpoint, const struct sockaddr *address,
                            socklen_t length)
{
    char host[INET6_ADDRSTRLEN];

    CHECK(length <= sizeof endpoint->address);
    memset(endpoint, 0, sizeof *endpoint);
    memcpy(&endpoint->address, address, length);
    endpoint->length = length;
    switch (length < sizeof(sa_family_t) ? AF_UNSPEC : endpoint->address.ss_family) {
    case AF_INET: {
        const struct sockaddr_in *ip4 = (const void *)&endpoint->address;

        inet_ntop(AF_INET, &ip4->sin_addr, host, sizeof host);
        snprintf(endpoint->text, sizeof endpoint->text, "%s:%u", host, ntohs(ip4->sin_port));
        break;
    }
    case AF_INET6: {
        const struct sockaddr_in6 *ip6 = (const void *)&endpoint->address;

        inet_ntop(AF_INET6, &ip6->sin6_addr, host, sizeof host);
        snprintf(endpoint->text, sizeof endpoint->text, "[%s]:%u", host, ntohs(ip6->sin6_port));
        break;
    }
    case AF_UNIX:
        print_path(endpoint);
        break;
    default:
        snprintf(endpoint->text, sizeof endpoint->text, "unknown");
        break;
    }
}

/*
 * Replies must not wait for Nagle's algorithm. On a Unix socket the call fails at once, which is
 * cheaper than to ask what the socket is.
 */
void stream_init(struct stream *stream, int fd)
{
    const int on = 1;

    stream->fd = fd;
    stream->tls = NULL;
    if (fd >= 0) {
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
}

int stream_connect(struct stream *stream, const struct endpoint *endpoint)
{
    const int fd = socket(endpoint->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
                          0);

    if (fd < 0) {
        stream->fd = -1;
        stream->tls = NULL;
        return -errno;
    }
    stream_init(stream, fd);
    if (connect(fd, (const struct sockaddr *)&endpoint->address, endpoint->length) == 0) {
        return 0;
    }
    const int error = errno;

    /* An interrupted connect goes on by itself. */
    if (error == EINPROGRESS || error == EINTR) {
        return -EINPROGRESS;
    }
    stream_close(stream);
    /* A Unix listener whose backlog is full. Nothing tells when to go on, so it is a refusal. */
    return error == EAGAIN ? -ECONNREFUSED : -error;
}

int stream_connect_result(struct stream *stream)
{
    int error = 0;
    socklen_t length = sizeof error;

    if (getsockopt(stream->fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) {
        return -errno;
    }
    return -error;
}

int stream_start_tls(struct stream *stream, struct tls_context *context, const char *host,
                     const char *peer)
{
    stream->tls = tls_new(context, stream->fd, host, peer);
    return stream->tls != NULL ? 0 : -ENOMEM;
}

int stream_handshake(struct stream *stream)
{
    return stream->tls != NULL ? tls_handshake(stream->tls) : 0;
}

const char *stream_error(const struct stream *stream, int error)
{
    const char *const words = stream->tls != NULL ? tls_error(stream->tls) : "";

    return error == -EPROTO && words[0] != '\0' ? words : strerror(-error);
}

ssize_t stream_read(struct stream *stream, void *into, size_t size)
{
    if (NC_UNLIKELY(stream->tls != NULL)) {
        return tls_read(stream->tls, into, size);
    }
    for (;;) {
        const ssize_t n = recv(stream->fd, into, size, 0);

        if (n >= 0) {
            return n;
        }
        if (errno != EINTR) {
            return -errno;
        }
    }
}

ssize_t stream_write(struct stream *stream, struct bytes bytes)
{
    if (NC_UNLIKELY(stream->tls != NULL)) {
        return tls_write(stream->tls, bytes);
    }
    for (;;) {
        const ssize_t n = send(stream->fd, bytes.ptr, bytes.len, MSG_NOSIGNAL);

        if (n >= 0) {
            return n;
        }
        if (errno != EINTR) {
            return -errno;
        }
    }
}

/* sendmsg(2) rather than writev(2): only the former can be told not to raise SIGPIPE. */
ssize_t stream_writev(struct stream *stream, const struct iovec *parts, int n_parts)
{
    const struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)parts,
                                   .msg_iovlen = (size_t)n_parts};

    if (NC_UNLIKELY(stream->tls != NULL)) {
        return tls_writev(stream->tls, parts, n_parts);
    }
    for (;;) {
        const ssize_t n = sendmsg(stream->fd, &message, MSG_NOSIGNAL);

        if (n >= 0) {
            return n;
        }
        if (errno != EINTR) {
            return -errno;
        }
    }
}

void stream_keep_alive(struct stream *stream, int idle_s)
{
    const int on = 1, interval_s = idle_s / 3 > 0 ? idle_s / 3 : 1, count = 3;

    (void)setsockopt(stream->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    (void)setsockopt(stream->fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
    (void)setsockopt(stream->fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
    (void)setsockopt(stream->fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
}

void stream_close(struct stream *stream)
{
    if (stream->fd >= 0) {
        tls_free(&stream->tls);
        close(stream->fd);
        stream->fd = -1;
    }
}

/*
 * Removes the socket that an earlier process left behind. One that somebody listens on stays, and
 * so does a file of another kind, to which a connection would be refused just the same.
 */
static int remove_stale_socket(const struct endpoint *endpoint)
{
    const struct sockaddr_un *address = (const void *)&endpoint->address;
    struct stat status;
    struct stream probe = {.tls = NULL};

    if (lstat(address->sun_path, &status) != 0) {
        return errno == ENOENT ? 0 : -errno;
    }
    if (!S_ISSOCK(status.st_mode)) {
        return -EADDRINUSE;
    }
    probe.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (probe.fd < 0) {
        return -errno;
    }
    const int result = connect(probe.fd, (const struct sockaddr *)&endpoint->address,
                               endpoint->length);
    const int error = errno;

    stream_close(&probe);
    if (result == 0 || error != ECONNREFUSED) {
        return -EADDRINUSE;
    }
    return unlink(address->sun_path) == 0 ? 0 : -errno;
}

/* Before listen(2) nobody can connect, so the mode is in force from the first client on. */
static int bind_path(int fd, const struct endpoint *endpoint, mode_t mode)
{
    const struct sockaddr_un *address = (const void *)&endpoint->address;
    const int error = remove_stale_socket(endpoint);

    if (error != 0) {
        return error;
    }
    if (bind(fd, (const struct sockaddr *)&endpoint->address, endpoint->length) != 0 ||
        chmod(address->sun_path, mode) != 0) {
        return -errno;
    }
    return 0;
}

static int bind_port(int fd, const struct endpoint *endpoint)
{
    const int on = 1;

    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0) {
        return -errno;
    }
    /* 0.0.0.0 and :: are two listeners; without this the second would find its port taken. */
    if (endpoint->address.ss_family == AF_INET6 &&
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) != 0) {
        return -errno;
    }
    if (bind(fd, (const struct sockaddr *)&endpoint->address, endpoint->length) != 0) {
        return -errno;
    }
    return 0;
}

int stream_listen(const struct endpoint *endpoint, mode_t unix_mode)
{
    const int family = endpoint->address.ss_family;
    const int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        return -errno;
    }
    int error = family == AF_UNIX ? bind_path(fd, endpoint, unix_mode) : bind_port(fd, endpoint);

    if (error == 0 && listen(fd, BACKLOG) != 0) {
        error = -errno;
    }
    if (error != 0) {
        close(fd);
        return error;
    }
    return fd;
}
