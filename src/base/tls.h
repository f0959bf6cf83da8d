/*
 * tls.h - TLS on one connected, non-blocking socket
 *
 * Purpose:    handshake, reading and writing behind the calls of stream.h.
 * Ownership:  tls_free() tells the peer (close_notify, without waiting) and leaves the descriptor,
 *             which belongs to the stream.
 * Threading:  one owner.
 * Errors:     as stream.h has them; -EPROTO: TLS failed, tls_error() says why in words. The
 *             socket is of no use then.
 * Units:      bytes of plain text.
 *
 * Written means that the whole record that holds a byte was given to the kernel; of a record that
 * has not left in full the peer can use nothing. After -EAGAIN the same bytes are to be offered
 * again, more may follow them.
 */
#ifndef NC_BASE_TLS_H
#define NC_BASE_TLS_H

#include "base/bytes.h"
#include "base/tls_context.h"

#include <sys/types.h>
#include <sys/uio.h>

struct tls;

/*
 * Of a client (TLS_CLIENT) host and peer are NULL. Of a backend: its name or number, to be asked
 * for and verified, and what its session is kept under. NULL: no memory, or no name.
 */
struct tls *tls_new(struct tls_context *context, int fd, const char *host, const char *peer);
void tls_free(struct tls **tls);

/* 0: done. -EAGAIN: when the socket is readable, or writable if tls_wants_write(). */
NC_MUST_CHECK int tls_handshake(struct tls *tls);
/* Reading completes the handshake too, as far as the peer lets it. */
NC_MUST_CHECK ssize_t tls_read(struct tls *tls, void *into, size_t size);
NC_MUST_CHECK ssize_t tls_write(struct tls *tls, struct bytes bytes);
NC_MUST_CHECK ssize_t tls_writev(struct tls *tls, const struct iovec *parts, int n_parts);

/* The handshake is over. */
bool tls_is_ready(const struct tls *tls);
/* tls_read() has more, of which the socket would not tell: read again without waiting. */
bool tls_has_pending(const struct tls *tls);
/* The last tls_handshake() or tls_read() goes on when the socket is writable. */
bool tls_wants_write(const struct tls *tls);
/* Why it failed; lives as long as the connection. "" when it did not. */
const char *tls_error(const struct tls *tls);

/* Connections that are open. */
unsigned tls_count(enum tls_side side);

#endif
