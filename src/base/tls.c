/*
 * Design: a BIO of our own on recv(2) and send(2): no SIGPIPE, and no second recv(2) when the first
 * has already emptied the socket. Reading takes all that there is into OpenSSL's buffer, of which
 * epoll does not know: tls_has_pending() does.
 *
 * Every SSL_write() is one record: small parts are put together for it, large ones are encrypted
 * from where they are. A record that the socket did not take in full is offered again alone, so
 * that what counts as written is exactly what has left.
 */
#include "base/tls.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/stats.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

/* recv(2) per call, of 16 KiB each: what is no data (key updates) must not hold up the others. */
#define RECEIVES_MAX 4
#define RECORD_MAX ((size_t)SSL3_RT_MAX_PLAIN_LENGTH)

struct tls {
    SSL *ssl;
    struct tls_context *context;
    char *peer; /* what sessions are kept under; NULL: they are not */
    int fd;
    int error;             /* of the socket: a negative errno */
    int late;              /* what the next tls_read() returns when has_late */
    size_t unsent;         /* length of the record that is to be offered again */
    char *words, *refused; /* why it failed; whose certificate was refused. NULL: nothing did */
    unsigned n_receives;   /* in this call */
    unsigned char first_byte;
    bool has_byte, is_eof, is_drained, is_ready, is_broken, has_pending, has_late, wants_write;
};

static _Atomic unsigned n_open[N_TLS_SIDES]; /* atomic: for /metrics */

unsigned tls_count(enum tls_side side)
{
    return atomic_load_explicit(&n_open[side], memory_order_relaxed);
}

/* ---- the socket, as OpenSSL sees it ---- */

static int on_bio_read(BIO *bio, char *into, int size)
{
    struct tls *tls = BIO_get_data(bio);
    ssize_t n;

    BIO_clear_retry_flags(bio);
    if (tls->is_drained || tls->n_receives++ == RECEIVES_MAX) {
        tls->is_drained = true;
        BIO_set_retry_read(bio);
        return -1;
    }
    do {
        n = recv(tls->fd, into, (size_t)size, 0);
    } while (n < 0 && errno == EINTR);
    if (n > 0) {
        if (!tls->has_byte) {
            tls->has_byte = true;
            tls->first_byte = (unsigned char)into[0];
        }
        tls->is_drained = n < size;
        return (int)n;
    }
    if (n == 0) {
        tls->is_eof = true;
    } else if (errno == EAGAIN) {
        tls->is_drained = true;
        BIO_set_retry_read(bio);
    } else {
        tls->error = -errno;
    }
    return (int)n;
}

static int on_bio_write(BIO *bio, const char *from, int size)
{
    struct tls *tls = BIO_get_data(bio);
    ssize_t n;

    BIO_clear_retry_flags(bio);
    do {
        n = send(tls->fd, from, (size_t)size, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN) {
        BIO_set_retry_write(bio);
    } else if (n < 0) {
        tls->error = -errno;
    }
    return (int)n;
}

static long on_bio_control(BIO *bio, int command, long number, void *pointer)
{
    const struct tls *tls = BIO_get_data(bio);

    (void)number;
    (void)pointer;
    switch (command) {
    case BIO_CTRL_FLUSH:
        return 1;
    case BIO_CTRL_EOF:
        return tls->is_eof;
    default:
        return 0;
    }
}

static BIO_METHOD *method;

static void make_method(void)
{
    method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "nearcached");
    CHECK(method != NULL);
    BIO_meth_set_read(method, on_bio_read);
    BIO_meth_set_write(method, on_bio_write);
    BIO_meth_set_ctrl(method, on_bio_control);
}

static BIO *new_bio(struct tls *tls)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    BIO *bio;

    (void)pthread_once(&once, make_method);
    bio = BIO_new(method);
    if (bio != NULL) {
        BIO_set_data(bio, tls);
        BIO_set_init(bio, 1);
    }
    return bio;
}

/* ---- life ---- */

/*
 * host: a number is verified as one, and nothing asks for it by SNI (RFC 6066), which knows no
 * final dot either.
 */
static bool set_name(struct tls *tls, const char *host)
{
    X509_VERIFY_PARAM *const param = SSL_get0_param(tls->ssl);
    const char *const own = tls_context_server_name(tls->context);
    unsigned char number[sizeof(struct in6_addr)];
    char name[256];
    size_t len;

    /* The zone of a link-local address is nobody's business but ours. */
    snprintf(name, sizeof(name), "%.*s", (int)strcspn(own[0] != '\0' ? own : host, "%"),
             own[0] != '\0' ? own : host);
    len = strlen(name);
    if (len > 0 && name[len - 1] == '.') {
        name[--len] = '\0';
    }
    if (inet_pton(AF_INET, name, number) == 1 || inet_pton(AF_INET6, name, number) == 1) {
        return X509_VERIFY_PARAM_set1_ip_asc(param, name) == 1;
    }
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    /* By an empty name OpenSSL would verify none. */
    return len > 0 && X509_VERIFY_PARAM_set1_host(param, name, 0) == 1 &&
           SSL_set_tlsext_host_name(tls->ssl, name) == 1;
}

static bool begin_as_client(struct tls *tls, const char *host, const char *peer)
{
    const size_t size = strlen(host) + strlen(peer) + 2;
    SSL_SESSION *session;

    tls->peer = mem_alloc(size);
    snprintf(tls->peer, size, "%s %s", host, peer);
    SSL_set_connect_state(tls->ssl);
    if (!set_name(tls, host)) {
        return false;
    }
    session = tls_context_find_session(tls->context, tls->peer);
    if (session != NULL) {
        (void)SSL_set_session(tls->ssl, session);
        SSL_SESSION_free(session);
    }
    return true;
}

struct tls *tls_new(struct tls_context *context, int fd, const char *host, const char *peer)
{
    struct tls *tls = mem_alloc(sizeof(*tls));
    bool is_good;
    BIO *bio;

    tls->fd = fd;
    tls->context = tls_context_ref(context);
    atomic_fetch_add_explicit(&n_open[tls_context_side(context)], 1, memory_order_relaxed);
    tls->ssl = tls_context_connection(context);
    bio = tls->ssl != NULL ? new_bio(tls) : NULL;
    is_good = bio != NULL;
    if (is_good) {
        SSL_set_bio(tls->ssl, bio, bio);
        (void)SSL_set_app_data(tls->ssl, tls);
        if (host != NULL) {
            is_good = begin_as_client(tls, host, peer);
        } else {
            SSL_set_accept_state(tls->ssl);
        }
    }
    ERR_clear_error();
    if (!is_good) {
        tls_free(&tls);
    }
    return tls;
}

void tls_free(struct tls **tls)
{
    struct tls *gone = *tls;

    *tls = NULL;
    if (gone == NULL) {
        return;
    }
    if (!gone->is_ready && !gone->is_broken && tls_context_side(gone->context) == TLS_BACKEND) {
        stats_add(METRIC_tls_backend_failed, 1); /* given up */
    }
    if (gone->is_ready && !gone->is_broken && gone->unsent == 0) {
        (void)SSL_shutdown(gone->ssl); /* sends, if the socket takes it, and does not wait */
        ERR_clear_error();
    }
    SSL_free(gone->ssl);
    atomic_fetch_sub_explicit(&n_open[tls_context_side(gone->context)], 1, memory_order_relaxed);
    tls_context_unref(&gone->context);
    mem_free(gone->peer);
    mem_free(gone->words);
    mem_free(gone->refused);
    mem_free(gone);
}

void tls_on_session(struct ssl_st *ssl, struct ssl_session_st *session)
{
    const struct tls *tls = SSL_get_app_data(ssl);

    if (tls->peer != NULL && SSL_SESSION_is_resumable(session)) {
        tls_context_keep_session(tls->context, tls->peer, session);
    }
}

void tls_on_refused(struct ssl_st *ssl, const char *subject)
{
    struct tls *tls = SSL_get_app_data(ssl);

    mem_free(tls->refused);
    tls->refused = mem_strdup(subject);
}

/* ---- what went wrong, in words ---- */

static void put_words(const struct tls *tls, char *out, size_t size)
{
    const bool is_client = tls_context_side(tls->context) == TLS_CLIENT;
    const unsigned long code = ERR_peek_error();
    const int reason = ERR_GET_REASON(code);
    const char *const words = ERR_reason_error_string(code);

    if (tls->has_byte && tls->first_byte != SSL3_RT_HANDSHAKE && tls->first_byte != SSL3_RT_ALERT) {
        snprintf(out, size, "%s",
                 is_client ? "the client speaks plain text, not TLS"
                           : "the server speaks plain text, not TLS");
    } else if (ERR_GET_LIB(code) == ERR_LIB_SSL && reason > SSL_AD_REASON_OFFSET &&
               reason < SSL_AD_REASON_OFFSET + 256) {
        const char *const alert = SSL_alert_desc_string_long(reason - SSL_AD_REASON_OFFSET);

        /* The alerts of TLS 1.3 are in the table of errors only. */
        snprintf(out, size, "the %s refused: %s", is_client ? "client" : "server",
                 strcmp(alert, "unknown") != 0 || words == NULL ? alert : words);
    } else if (ERR_GET_LIB(code) == ERR_LIB_SSL && reason == SSL_R_CERTIFICATE_VERIFY_FAILED) {
        snprintf(out, size, "the %s's certificate is refused: %s, subject %s",
                 is_client ? "client" : "server",
                 X509_verify_cert_error_string(SSL_get_verify_result(tls->ssl)),
                 tls->refused != NULL ? tls->refused : "unknown");
    } else if (ERR_GET_LIB(code) == ERR_LIB_SSL &&
               reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE) {
        snprintf(out, size, "the client sent no certificate");
    } else if (code == 0 && tls->n_receives > RECEIVES_MAX) {
        snprintf(out, size, "the %s sends key updates without end",
                 is_client ? "client" : "server");
    } else if (code == 0) {
        snprintf(out, size, "closed by the %s%s", is_client ? "client" : "server",
                 tls->is_ready ? "" : " in the middle of the handshake");
    } else {
        snprintf(out, size, "%s", words != NULL ? words : "unknown error");
    }
}

static int broken(const struct tls *tls)
{
    return tls->error != 0 ? tls->error : -EPROTO;
}

static int fail(struct tls *tls)
{
    char words[400];

    tls->is_broken = true;
    if (!tls->is_ready) {
        stats_add(tls_context_side(tls->context) == TLS_CLIENT ? METRIC_tls_client_failed
                                                               : METRIC_tls_backend_failed,
                  1);
    }
    if (tls->error == 0) {
        put_words(tls, words, sizeof(words));
        mem_free(tls->words);
        tls->words = mem_strdup(words);
    }
    return broken(tls);
}

const char *tls_error(const struct tls *tls)
{
    return tls->words != NULL ? tls->words : "";
}

/* ---- handshake ---- */

static void note_ready(struct tls *tls)
{
    const bool is_resumed = SSL_session_reused(tls->ssl) == 1;

    tls->is_ready = true;
    if (tls_context_side(tls->context) == TLS_CLIENT) {
        stats_add(is_resumed ? METRIC_tls_client_resumed : METRIC_tls_client_full, 1);
    } else {
        stats_add(is_resumed ? METRIC_tls_backend_resumed : METRIC_tls_backend_full, 1);
    }
    log_debug("tls", "handshake done", "fd=%d version=%s cipher=%s resumed=%s", tls->fd,
              SSL_get_version(tls->ssl), SSL_get_cipher_name(tls->ssl), is_resumed ? "yes" : "no");
}

/* 0: the peer closed. */
static int take_result(struct tls *tls, int result)
{
    switch (SSL_get_error(tls->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        return -EAGAIN;
    case SSL_ERROR_WANT_WRITE:
        tls->wants_write = true;
        return -EAGAIN;
    case SSL_ERROR_ZERO_RETURN:
        /*
         * Many clients just close; what they are owed still leaves. Requests and replies know
         * their length, so nothing is cut off unnoticed. A handshake that never began is nobody's
         * failure: that is how load balancers see whether a port is open.
         */
        return tls->is_ready || !tls->has_byte ? 0 : fail(tls);
    default:
        if (tls->error == -ECONNRESET && !tls->has_byte &&
            tls_context_side(tls->context) == TLS_CLIENT) {
            return 0; /* the same, in a hurry */
        }
        return fail(tls);
    }
}

static void begin_call(struct tls *tls)
{
    ERR_clear_error();
    tls->is_drained = tls->wants_write = false;
    tls->n_receives = 0;
}

int tls_handshake(struct tls *tls)
{
    int result, error;

    if (tls->is_ready) {
        return 0;
    }
    begin_call(tls);
    result = SSL_do_handshake(tls->ssl);
    if (result == 1) {
        note_ready(tls);
        return 0;
    }
    error = take_result(tls, result);
    if (error == 0) { /* not a word, or close_notify */
        return fail(tls);
    }
    return error;
}

bool tls_is_ready(const struct tls *tls)
{
    return tls->is_ready;
}

bool tls_has_pending(const struct tls *tls)
{
    return tls->has_pending;
}

bool tls_wants_write(const struct tls *tls)
{
    return tls->wants_write;
}

/* ---- reading ---- */

/* Nobody needs thousands of key updates between two requests, and each is paid for by us. */
static bool is_empty_talk(const struct tls *tls, bool was_ready, int end)
{
    return was_ready && end == -EAGAIN && tls->n_receives > RECEIVES_MAX;
}

ssize_t tls_read(struct tls *tls, void *into, size_t size)
{
    const bool was_ready = tls->is_ready;
    size_t got = 0;
    int end = 0;

    tls->has_pending = false;
    if (tls->has_late) {
        return tls->late;
    }
    if (tls->is_broken) {
        return broken(tls);
    }
    begin_call(tls);
    while (got < size) {
        size_t n;
        const int result = SSL_read_ex(tls->ssl, (char *)into + got, size - got, &n);

        if (!tls->is_ready && SSL_is_init_finished(tls->ssl)) {
            note_ready(tls);
        }
        if (result != 1) {
            end = take_result(tls, result);
            break;
        }
        got += n;
    }
    if (got == 0) {
        return is_empty_talk(tls, was_ready, end) ? fail(tls) : end;
    }
    if (got == size) {
        tls->has_pending = SSL_has_pending(tls->ssl) == 1;
    } else if (end != -EAGAIN) {
        tls->has_pending = tls->has_late = true;
        tls->late = end;
    } else {
        /* More may have been read than was looked at: the next call says what it waits for. */
        tls->has_pending = tls->wants_write;
    }
    return (ssize_t)got;
}

/* ---- writing ---- */

/*
 * In TLS 1.3 we are done, and write, before the server has judged our certificate. If it refuses it
 * writing fails with a reset connection; the alert that says why has come before that.
 */
static int look_for_alert(struct tls *tls)
{
    const int error = tls->error;
    unsigned char byte;
    size_t n;

    begin_call(tls);
    tls->error = 0;
    if (SSL_read_ex(tls->ssl, &byte, 1, &n) != 1 && ERR_peek_error() != 0 && tls->error == 0) {
        return fail(tls);
    }
    tls->error = error;
    return error;
}

/* One record, or the one that is to be offered again. 0, or a negative errno. */
static int write_record(struct tls *tls, struct bytes bytes, size_t *n)
{
    if (tls->is_broken) {
        return broken(tls);
    }
    ERR_clear_error();
    const int result = SSL_write_ex(tls->ssl, bytes.ptr, bytes.len, n);

    if (result == 1) {
        tls->unsent = 0;
        return 0;
    }
    const bool did_want_write = tls->wants_write;
    const int error = take_result(tls, result);

    tls->wants_write = did_want_write; /* it tells of reading */
    tls->unsent = error == -EAGAIN ? bytes.len : 0;
    if (error == -EPIPE || error == -ECONNRESET) {
        return look_for_alert(tls);
    }
    return error == 0 ? -EPIPE : error;
}

static size_t record_size(const struct tls *tls)
{
    return tls->unsent != 0 ? tls->unsent : RECORD_MAX;
}

ssize_t tls_write(struct tls *tls, struct bytes bytes)
{
    size_t done = 0;

    while (done < bytes.len) {
        const size_t left = bytes.len - done, room = record_size(tls);
        size_t n;
        const int error = write_record(tls, bytes_make(bytes.ptr + done, left < room ? left : room),
                                       &n);

        if (error != 0) {
            /* What has left counts; the next call comes upon the error again. */
            return done > 0 ? (ssize_t)done : error;
        }
        done += n;
    }
    return (ssize_t)done;
}

/* Where in a list of parts the next record begins. */
struct position {
    const struct iovec *part, *end;
    size_t offset; /* in *part */
};

static struct bytes rest_of_part(const struct position *at)
{
    return bytes_make((const unsigned char *)at->part->iov_base + at->offset,
                      at->part->iov_len - at->offset);
}

static void skip(struct position *at, size_t n)
{
    while (at->part < at->end) {
        const size_t left = at->part->iov_len - at->offset;

        if (n < left) {
            at->offset += n;
            return;
        }
        n -= left;
        at->part++;
        at->offset = 0;
    }
}

/* Up to room bytes from here on, in place if one part has them, else copied together. */
static struct bytes gather(const struct position *from, size_t room)
{
    static _Thread_local unsigned char together[RECORD_MAX];
    struct position at = *from;
    struct bytes part = rest_of_part(&at);
    size_t n = 0;

    if (part.len >= room || at.part + 1 == at.end) {
        return bytes_make(part.ptr, part.len < room ? part.len : room);
    }
    while (at.part < at.end && n < room) {
        part = rest_of_part(&at);
        const size_t taken = part.len < room - n ? part.len : room - n;

        memcpy(together + n, part.ptr, taken);
        n += taken;
        skip(&at, taken);
    }
    return bytes_make(together, n);
}

ssize_t tls_writev(struct tls *tls, const struct iovec *parts, int n_parts)
{
    struct position at = {parts, parts + n_parts, 0};
    size_t done = 0;

    skip(&at, 0); /* what is empty */
    while (at.part < at.end) {
        size_t n;
        const int error = write_record(tls, gather(&at, record_size(tls)), &n);

        if (error != 0) {
            return done > 0 ? (ssize_t)done : error;
        }
        done += n;
        skip(&at, n);
    }
    return (ssize_t)done;
}
