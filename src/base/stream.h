/*
 * stream.h - a connected byte stream: TCP or Unix socket
 *
 * Purpose:    the one place that reads, writes and connects sockets; TLS, once it was begun, works
 *             behind the same calls.
 * Ownership:  a stream owns its descriptor; stream_close() gives it back and is idempotent.
 * Threading:  one owner.
 * Errors:     negative errno; -EAGAIN: try when the descriptor is ready; 0 from stream_read():
 *             the peer closed. stream_error() has the words for it, those of TLS included.
 * Units:      bytes.
 */
#ifndef NC_BASE_STREAM_H
#define NC_BASE_STREAM_H

#include "base/bytes.h"
#include "base/check.h"
#include "base/tls.h"

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

struct stream {
    int fd;          /* -1: closed */
    struct tls *tls; /* NULL: plain */
};

/* A socket address with its printable form ("127.0.0.1:6379", "[::1]:6379", "unix:/run/x.sock"). */
struct endpoint {
    struct sockaddr_storage address;
    socklen_t length;
    char text[128];
};

/* host must be a numeric IPv4 or IPv6 address; names are resolved above, through evdns. */
NC_MUST_CHECK int endpoint_from_ip(struct endpoint *endpoint, const char *host, unsigned port);
NC_MUST_CHECK int endpoint_from_path(struct endpoint *endpoint, const char *path);
void endpoint_from_sockaddr(struct endpoint *endpoint, const struct sockaddr *address,
                            socklen_t length);

void stream_init(struct stream *stream, int fd);
/* Non-blocking; returns 0 (connected), -EINPROGRESS (writable tells) or a negative errno. */
NC_MUST_CHECK int stream_connect(struct stream *stream, const struct endpoint *endpoint);
/* After writability: 0 or the negative errno of the connect. */
NC_MUST_CHECK int stream_connect_result(struct stream *stream);

/*
 * From now on all bytes go through TLS, begun by the peer (host and peer NULL, see tls_new()) or by
 * us. -ENOMEM. Who connected completes the handshake with stream_handshake(): 0, -EAGAIN (when
 * readable, or writable if stream_wants_write()) or an error. For who accepted, reading does it.
 */
NC_MUST_CHECK int stream_start_tls(struct stream *stream, struct tls_context *context,
                                   const char *host, const char *peer);
NC_MUST_CHECK int stream_handshake(struct stream *stream);

static inline bool stream_is_in_handshake(const struct stream *stream)
{
    return NC_UNLIKELY(stream->tls != NULL) && !tls_is_ready(stream->tls);
}

/* There is more to read that the descriptor does not tell of: read again without waiting. */
static inline bool stream_has_pending(const struct stream *stream)
{
    return NC_UNLIKELY(stream->tls != NULL) && tls_has_pending(stream->tls);
}

/* What stream_read() or stream_handshake() could not do yet goes on when it is writable. */
static inline bool stream_wants_write(const struct stream *stream)
{
    return NC_UNLIKELY(stream->tls != NULL) && tls_wants_write(stream->tls);
}

/* Valid until the stream is closed. */
const char *stream_error(const struct stream *stream, int error);

NC_MUST_CHECK ssize_t stream_read(struct stream *stream, void *into, size_t size);
NC_MUST_CHECK ssize_t stream_write(struct stream *stream, struct bytes bytes);
NC_MUST_CHECK ssize_t stream_writev(struct stream *stream, const struct iovec *parts, int n_parts);
/* After idle_s seconds of silence TCP asks the peer, three times. */
void stream_keep_alive(struct stream *stream, int idle_s);
void stream_close(struct stream *stream);

/* A listening, non-blocking socket with a backlog of 4096, or a negative errno. */
NC_MUST_CHECK int stream_listen(const struct endpoint *endpoint, mode_t unix_mode);

#endif
