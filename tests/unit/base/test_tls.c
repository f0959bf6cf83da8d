/*
 * test_tls.c - proves of tls.h and tls_context.h: what is written arrives, however the socket cuts
 * it and the caller splits it; small parts share a record; what was read ahead is pending; a peer
 * that only stops sending is still answered; names are verified; sessions are resumed and refused
 * ones are not; bad files are named
 */
#include "base/clock.h"
#include "base/stats.h"
#include "base/tls.h"

#include <errno.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static char directory[] = "/tmp/test_tls.XXXXXX";
static char cert_file[64], key_file[64], other_key_file[64];

/* ---- time, which goes on as the test wants ---- */

static int64_t later_ms;

int64_t clock_now_us(void)
{
    return clock_unix_ms() * 1000;
}

int64_t clock_now_ms(void)
{
    return clock_unix_ms();
}

int64_t clock_unix_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000 + later_ms;
}

/* ---- a certificate that is its own CA, for the name "here" and 127.0.0.1 ---- */

static void write_key(EVP_PKEY *key, const char *path)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    assert_int_equal(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
    fclose(file);
}

static void write_certificate(void)
{
    EVP_PKEY *key = EVP_EC_gen("P-256"), *other = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    X509_EXTENSION *names = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name,
                                                "DNS:here,IP:127.0.0.1");
    X509_NAME *subject = X509_get_subject_name(cert);
    FILE *file = fopen(cert_file, "w");

    assert_non_null(file);
    X509_set_version(cert, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -60);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)"here", -1, -1,
                               0);
    X509_set_issuer_name(cert, subject);
    X509_set_pubkey(cert, key);
    X509_add_ext(cert, names, -1);
    assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
    assert_int_equal(PEM_write_X509(file, cert), 1);
    fclose(file);
    write_key(key, key_file);
    write_key(other, other_key_file);
    X509_EXTENSION_free(names);
    X509_free(cert);
    EVP_PKEY_free(key);
    EVP_PKEY_free(other);
}

static int set_up(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(directory));
    snprintf(cert_file, sizeof(cert_file), "%s/cert.pem", directory);
    snprintf(key_file, sizeof(key_file), "%s/key.pem", directory);
    snprintf(other_key_file, sizeof(other_key_file), "%s/other.pem", directory);
    write_certificate();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(cert_file);
    unlink(key_file);
    unlink(other_key_file);
    return rmdir(directory);
}

/* ---- two ends ---- */

static struct tls_context *server_context, *client_context;

static struct tls_context *make_context(enum tls_side side, enum tls_verify verify)
{
    struct tls_settings settings = {.side = side,
                                    .ca_file = cert_file,
                                    .verify = verify,
                                    .allows_12 = true,
                                    .allows_13 = true,
                                    .resumes = true};
    struct tls_context *context;
    struct tls_problem problem;

    if (side == TLS_CLIENT) {
        settings.cert_files[0] = cert_file;
        settings.key_files[0] = key_file;
        settings.n_certs = 1;
    }
    assert_int_equal(tls_context_new(&settings, &context, &problem), 0);
    return context;
}

struct pair {
    int fds[2];
    struct tls *near, *far; /* near: who was connected to, as the proxy is by its clients */
};

static void open_pair(struct pair *pair, const char *host)
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair->fds), 0);
    pair->near = tls_new(server_context, pair->fds[0], NULL, NULL);
    pair->far = tls_new(client_context, pair->fds[1], host, "peer");
    assert_non_null(pair->near);
    assert_non_null(pair->far);
}

/* What the handshake of the far end came to; the near one reads, as a session does. */
static int shake_hands(struct pair *pair)
{
    char byte;

    for (int i = 0; i < 10; i++) {
        const int error = tls_handshake(pair->far);
        const ssize_t n = tls_read(pair->near, &byte, 1);

        if (error != -EAGAIN) {
            return error;
        }
        assert_true(n == -EAGAIN);
    }
    fail_msg("no end of the handshake");
    return -1;
}

static void close_pair(struct pair *pair)
{
    tls_free(&pair->near);
    tls_free(&pair->far);
    close(pair->fds[0]);
    close(pair->fds[1]);
}

static void connect_pair(struct pair *pair)
{
    char byte;

    open_pair(pair, "here");
    assert_int_equal(shake_hands(pair), 0);
    assert_true(tls_read(pair->near, &byte, 1) == -EAGAIN);
    assert_true(tls_is_ready(pair->near) && tls_is_ready(pair->far));
    /* The tickets, which the far end would read with what comes first. */
    assert_true(tls_read(pair->far, &byte, 1) == -EAGAIN);
}

static bool is_readable(int fd)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};

    return poll(&ready, 1, 0) == 1;
}

/* ---- tests ---- */

static int both_contexts(void **state)
{
    (void)state;
    server_context = make_context(TLS_CLIENT, TLS_VERIFY_NONE);
    client_context = make_context(TLS_BACKEND, TLS_VERIFY_REQUIRED);
    return 0;
}

static int free_contexts(void **state)
{
    (void)state;
    tls_context_unref(&server_context);
    tls_context_unref(&client_context);
    assert_int_equal(tls_count(TLS_CLIENT) + tls_count(TLS_BACKEND), 0);
    return 0;
}

static void small_parts_share_a_record_and_large_ones_need_no_more(void **state)
{
    static unsigned char wire[40000], text[20000];
    struct iovec parts[64];
    struct pair pair;
    ssize_t n, at = 0;
    int n_records = 0;

    (void)state;
    connect_pair(&pair);
    for (int i = 0; i < 64; i++) {
        parts[i] = (struct iovec){.iov_base = text, .iov_len = i % 2 == 0 ? 10 : 0};
    }
    parts[40].iov_len = sizeof(text);
    assert_int_equal(tls_writev(pair.near, parts, 64), 310 + sizeof(text));
    n = recv(pair.fds[1], wire, sizeof(wire), MSG_PEEK);
    while (at < n) {
        assert_int_equal(wire[at], 23); /* application data */
        at += 5 + wire[at + 3] * 256 + wire[at + 4];
        n_records++;
    }
    assert_int_equal(at, n);
    assert_int_equal(n_records, 2);
    close_pair(&pair);
}

static void what_was_read_ahead_is_pending(void **state)
{
    static unsigned char text[30000];
    unsigned char into[1000];
    struct pair pair;
    size_t got = 0;

    (void)state;
    connect_pair(&pair);
    for (size_t i = 0; i < sizeof(text); i++) {
        text[i] = (unsigned char)(i % 251);
    }
    assert_int_equal(tls_write(pair.far, bytes_make(text, sizeof(text))), sizeof(text));
    assert_false(tls_has_pending(pair.near));
    while (got < sizeof(text)) {
        const ssize_t n = tls_read(pair.near, into, sizeof(into));

        assert_true(n > 0);
        assert_memory_equal(into, text + got, n);
        got += (size_t)n;
        /* Either the socket tells, or tls does; at the end neither. */
        assert_int_equal(is_readable(pair.fds[0]) || tls_has_pending(pair.near),
                         got < sizeof(text));
    }
    assert_true(tls_read(pair.near, into, sizeof(into)) == -EAGAIN);
    assert_false(tls_has_pending(pair.near));
    /* The end comes with the last bytes, and would not come again by itself. */
    assert_int_equal(tls_write(pair.far, BYTES("bye")), 3);
    tls_free(&pair.far);
    assert_int_equal(tls_read(pair.near, into, sizeof(into)), 3);
    assert_true(tls_has_pending(pair.near));
    assert_int_equal(tls_read(pair.near, into, sizeof(into)), 0);
    close_pair(&pair);
}

/* Splits what is left of text into parts of random length, as the caller's queue might stand. */
static int split(struct iovec parts[64], unsigned char *from, size_t left)
{
    int n = 0;

    while (n < 64 && left > 0) {
        const size_t wanted = rand() % 3 == 0 ? (size_t)(rand() % 50000) : (size_t)(rand() % 700);
        /* What was offered once is offered again: as much, if split otherwise. */
        const size_t len = n == 63 || wanted > left ? left : wanted;

        parts[n++] = (struct iovec){.iov_base = from, .iov_len = len};
        from += len;
        left -= len;
    }
    return n;
}

static void a_socket_that_is_full_gets_the_same_bytes_later(void **state)
{
    static unsigned char text[2000000], into[sizeof(text)];
    const int small = 6000;
    struct pair pair;
    size_t sent = 0, got = 0;
    unsigned n_full = 0;

    (void)state;
    connect_pair(&pair);
    srand(1);
    for (size_t i = 0; i < sizeof(text); i++) {
        text[i] = (unsigned char)rand();
    }
    assert_int_equal(setsockopt(pair.fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
    while (got < sizeof(text)) {
        struct iovec parts[64];
        const int n_parts = split(parts, text + sent, sizeof(text) - sent);
        const ssize_t n = n_parts == 0 ? 0 : tls_writev(pair.near, parts, n_parts);

        assert_true(n >= 0 || n == -EAGAIN);
        n_full += n == -EAGAIN;
        sent += n > 0 ? (size_t)n : 0;
        for (int i = rand() % 3; i > 0; i--) {
            const size_t room = sizeof(text) - got;
            const ssize_t n_read = tls_read(pair.far, into + got, room < 9000 ? room : 9000);

            assert_true(n_read > 0 || n_read == -EAGAIN || room == 0);
            got += n_read > 0 ? (size_t)n_read : 0;
        }
    }
    assert_memory_equal(text, into, sizeof(text));
    assert_true(n_full > 10);
    close_pair(&pair);
}

static void a_peer_that_only_stops_sending_is_still_answered(void **state)
{
    struct pair pair;
    char into[16];

    (void)state;
    connect_pair(&pair);
    assert_int_equal(tls_write(pair.far, BYTES("ask")), 3);
    shutdown(pair.fds[1], SHUT_WR);
    assert_int_equal(tls_read(pair.near, into, sizeof(into)), 3);
    assert_int_equal(tls_read(pair.near, into, sizeof(into)), 0);
    assert_int_equal(tls_write(pair.near, BYTES("answer")), 6);
    assert_int_equal(tls_read(pair.far, into, sizeof(into)), 6);
    close_pair(&pair);
}

/* Another OpenSSL at the far end, whose next output gathers in memory. */
static SSL *connect_other(struct pair *pair, SSL_CTX *context)
{
    SSL *ssl = SSL_new(context);
    char byte;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair->fds), 0);
    pair->near = tls_new(server_context, pair->fds[0], NULL, NULL);
    pair->far = NULL;
    assert_int_equal(SSL_set_fd(ssl, pair->fds[1]), 1);
    for (int i = 0; SSL_connect(ssl) != 1; i++) {
        assert_true(i < 10);
        assert_true(tls_read(pair->near, &byte, 1) == -EAGAIN);
    }
    assert_true(tls_read(pair->near, &byte, 1) == -EAGAIN);
    assert_true(tls_is_ready(pair->near));
    SSL_set0_wbio(ssl, BIO_new(BIO_s_mem()));
    return ssl;
}

/* After a request and before another. */
static void send_key_updates(const struct pair *pair, SSL *ssl, int n, int kind)
{
    char *wire;
    long size;

    assert_int_equal(SSL_write(ssl, "ask", 3), 3);
    for (int i = 0; i < n; i++) {
        assert_int_equal(SSL_key_update(ssl, kind), 1);
        assert_int_equal(SSL_do_handshake(ssl), 1);
    }
    assert_int_equal(SSL_write(ssl, "more", 4), 4);
    size = BIO_get_mem_data(SSL_get_wbio(ssl), &wire);
    assert_int_equal(send(pair->fds[1], wire, (size_t)size, 0), size);
    (void)BIO_reset(SSL_get_wbio(ssl));
}

static void key_updates_are_followed_but_not_without_end(void **state)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    struct pair pair;
    char into[16];
    SSL *ssl;

    (void)state;
    ssl = connect_other(&pair, context);
    send_key_updates(&pair, ssl, 100, SSL_KEY_UPDATE_REQUESTED);
    assert_int_equal(tls_read(pair.near, into, sizeof(into)), 7);
    assert_int_equal(tls_write(pair.near, BYTES("answer")), 6);
    assert_int_equal(SSL_read(ssl, into, sizeof(into)), 6);
    send_key_updates(&pair, ssl, 4000, SSL_KEY_UPDATE_NOT_REQUESTED);
    assert_int_equal(tls_read(pair.near, into, sizeof(into)), 3);
    assert_int_equal(tls_read(pair.near, into, sizeof(into)), -EPROTO);
    assert_string_equal(tls_error(pair.near), "the client sends key updates without end");
    SSL_free(ssl);
    SSL_CTX_free(context);
    close_pair(&pair);
}

static void a_key_update_may_come_in_the_middle_of_a_record(void **state)
{
    static unsigned char text[1000000], into[sizeof(text)];
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    struct pair pair;
    size_t sent = 0, got = 0, n;
    char question[16];
    SSL *ssl;

    (void)state;
    ssl = connect_other(&pair, context);
    for (size_t i = 0; i < sizeof(text); i++) {
        text[i] = (unsigned char)(i % 251);
    }
    sent = (size_t)tls_write(pair.near, bytes_make(text, sizeof(text)));
    assert_true(sent > 0 && sent < sizeof(text));
    assert_true(tls_write(pair.near, bytes_make(text + sent, sizeof(text) - sent)) == -EAGAIN);
    send_key_updates(&pair, ssl, 1, SSL_KEY_UPDATE_REQUESTED);
    while (got < sizeof(text)) {
        const ssize_t n_read = tls_read(pair.near, question, sizeof(question));
        const ssize_t n_sent = tls_write(pair.near, bytes_make(text + sent, sizeof(text) - sent));

        assert_true(n_read == 7 || n_read == -EAGAIN);
        assert_true(n_sent >= 0 || n_sent == -EAGAIN);
        sent += n_sent > 0 ? (size_t)n_sent : 0;
        while (SSL_read_ex(ssl, into + got, sizeof(into) - got, &n) == 1) {
            got += n;
        }
    }
    assert_memory_equal(text, into, sizeof(text));
    SSL_free(ssl);
    SSL_CTX_free(context);
    close_pair(&pair);
}

/* OpenSSL answers a key update when it reads the next one, if there was nothing to write. */
static void what_stands_behind_an_answer_that_waits_is_not_forgotten(void **state)
{
    static char junk[100000];
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    struct pair pair;
    char into[16];
    SSL *ssl;

    (void)state;
    ssl = connect_other(&pair, context);
    while (send(pair.fds[0], junk, sizeof(junk), 0) > 0) {
    }
    send_key_updates(&pair, ssl, 3, SSL_KEY_UPDATE_REQUESTED);
    assert_int_equal(tls_read(pair.near, into, sizeof(into)), 3);
    assert_true(tls_has_pending(pair.near));
    assert_int_equal(tls_read(pair.near, into, sizeof(into)), -EAGAIN);
    assert_true(tls_wants_write(pair.near) && !tls_has_pending(pair.near));
    while (recv(pair.fds[1], junk, sizeof(junk), 0) > 0) {
    }
    assert_int_equal(tls_read(pair.near, into, sizeof(into)), 4);
    SSL_free(ssl);
    SSL_CTX_free(context);
    close_pair(&pair);
}

static void names_and_numbers_are_verified(void **state)
{
    struct pair pair;

    (void)state;
    open_pair(&pair, "127.0.0.1");
    assert_int_equal(shake_hands(&pair), 0);
    close_pair(&pair);
    open_pair(&pair, "here.");
    assert_int_equal(shake_hands(&pair), 0);
    close_pair(&pair);
    assert_null(tls_new(client_context, -1, "", "peer")); /* verifies no name */
    assert_null(tls_new(client_context, -1, "%lo", "peer"));
    open_pair(&pair, "elsewhere");
    assert_int_equal(shake_hands(&pair), -EPROTO);
    assert_string_equal(tls_error(pair.far), "the server's certificate is refused: hostname "
                                             "mismatch, subject /CN=here");
    close_pair(&pair);
    open_pair(&pair, "127.0.0.2");
    assert_int_equal(shake_hands(&pair), -EPROTO);
    assert_string_equal(tls_error(pair.far), "the server's certificate is refused: IP address "
                                             "mismatch, subject /CN=here");
    close_pair(&pair);
}

static void sessions_are_resumed_with_the_same_context_only(void **state)
{
    const uint64_t before = stats_sum(METRIC_tls_backend_resumed);
    struct pair pair;

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        connect_pair(&pair);
        close_pair(&pair);
        assert_int_equal(stats_sum(METRIC_tls_backend_resumed) - before, i);
    }
    tls_context_unref(&server_context);
    server_context = make_context(TLS_CLIENT, TLS_VERIFY_NONE);
    connect_pair(&pair);
    close_pair(&pair);
    assert_int_equal(stats_sum(METRIC_tls_backend_resumed) - before, 2);
}

/* Each resumption brings a new ticket; the five minutes count from the full handshake. */
static void sessions_are_not_resumed_for_ever(void **state)
{
    const uint64_t before = stats_sum(METRIC_tls_client_resumed);
    struct pair pair;

    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        connect_pair(&pair);
        close_pair(&pair);
        later_ms += 100 * 1000;
        /* Full, 100 s, 200 s, full, ... */
        assert_int_equal(stats_sum(METRIC_tls_client_resumed) - before, i - i / 3);
    }
}

static void kept_sessions_are_bounded(void **state)
{
    struct pair pair;
    SSL_SESSION *session;
    char peer[32];

    (void)state;
    connect_pair(&pair);
    close_pair(&pair);
    session = tls_context_find_session(client_context, "here peer");
    assert_non_null(session);
    for (unsigned i = 0; i < 300; i++) {
        snprintf(peer, sizeof(peer), "peer %u", i % 260);
        tls_context_keep_session(client_context, peer, session);
    }
    SSL_SESSION_free(session);
    assert_null(tls_context_find_session(client_context, "here peer"));
    assert_null(tls_context_find_session(client_context, "peer 40"));
    session = tls_context_find_session(client_context, "peer 259");
    assert_non_null(session);
    SSL_SESSION_free(session);
    later_ms += 3600 * 1000; /* and no longer good than the certificate */
    assert_null(tls_context_find_session(client_context, "peer 259"));
}

static void plain_text_is_told_from_tls(void **state)
{
    const uint64_t before = stats_sum(METRIC_tls_client_failed);
    struct pair pair;
    char into[16];

    (void)state;
    open_pair(&pair, "here");
    assert_int_equal(send(pair.fds[1], "PING\r\n", 6, 0), 6);
    assert_int_equal(tls_read(pair.near, into, sizeof(into)), -EPROTO);
    assert_string_equal(tls_error(pair.near), "the client speaks plain text, not TLS");
    assert_int_equal(tls_read(pair.near, into, sizeof(into)), -EPROTO);
    assert_int_equal(tls_write(pair.near, BYTES("x")), -EPROTO);
    assert_int_equal(stats_sum(METRIC_tls_client_failed) - before, 1);
    close_pair(&pair);
    /* Who says nothing has not failed. */
    open_pair(&pair, "here");
    shutdown(pair.fds[1], SHUT_WR);
    assert_int_equal(tls_read(pair.near, into, sizeof(into)), 0);
    assert_int_equal(stats_sum(METRIC_tls_client_failed) - before, 1);
    close_pair(&pair);
}

static void a_reset_connection_is_an_error_of_the_socket(void **state)
{
    struct pair pair;
    char into[16];

    (void)state;
    connect_pair(&pair);
    tls_free(&pair.far);
    close(pair.fds[1]);
    assert_int_equal(tls_write(pair.near, BYTES("x")), -EPIPE);
    assert_int_equal(tls_write(pair.near, BYTES("x")), -EPIPE);
    assert_true(tls_read(pair.near, into, sizeof(into)) <= 0);
    pair.fds[1] = -1;
    close_pair(&pair);
}

static void bad_files_are_named(void **state)
{
    struct tls_settings settings = {.side = TLS_CLIENT,
                                    .cert_files = {cert_file},
                                    .key_files = {other_key_file},
                                    .n_certs = 1,
                                    .allows_13 = true};
    struct tls_context *context = NULL;
    struct tls_problem problem;

    (void)state;
    assert_int_equal(tls_context_new(&settings, &context, &problem), -EINVAL);
    assert_int_equal(problem.part, TLS_PART_KEY);
    assert_ptr_equal(problem.file, other_key_file);
    assert_string_equal(problem.reason, "key values mismatch");
    settings.key_files[0] = cert_file;
    assert_int_equal(tls_context_new(&settings, &context, &problem), -EINVAL);
    assert_int_equal(problem.part, TLS_PART_KEY);
    settings.cert_files[0] = key_file;
    assert_int_equal(tls_context_new(&settings, &context, &problem), -EINVAL);
    assert_int_equal(problem.part, TLS_PART_CERT);
    settings.cert_files[0] = cert_file;
    settings.key_files[0] = key_file;
    settings.ca_file = "/none";
    settings.verify = TLS_VERIFY_REQUIRED;
    assert_int_equal(tls_context_new(&settings, &context, &problem), -EINVAL);
    assert_int_equal(problem.part, TLS_PART_CA);
    assert_string_equal(problem.reason, "No such file or directory");
    assert_null(context);
    settings.ca_file = cert_file;
    assert_int_equal(tls_context_new(&settings, &context, &problem), 0);
    assert_true(tls_context_expires_at(context) > 0);
    tls_context_unref(&context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(small_parts_share_a_record_and_large_ones_need_no_more,
                                        both_contexts, free_contexts),
        cmocka_unit_test_setup_teardown(what_was_read_ahead_is_pending, both_contexts,
                                        free_contexts),
        cmocka_unit_test_setup_teardown(a_socket_that_is_full_gets_the_same_bytes_later,
                                        both_contexts, free_contexts),
        cmocka_unit_test_setup_teardown(a_peer_that_only_stops_sending_is_still_answered,
                                        both_contexts, free_contexts),
        cmocka_unit_test_setup_teardown(key_updates_are_followed_but_not_without_end, both_contexts,
                                        free_contexts),
        cmocka_unit_test_setup_teardown(a_key_update_may_come_in_the_middle_of_a_record,
                                        both_contexts, free_contexts),
        cmocka_unit_test_setup_teardown(what_stands_behind_an_answer_that_waits_is_not_forgotten,
                                        both_contexts, free_contexts),
        cmocka_unit_test_setup_teardown(names_and_numbers_are_verified, both_contexts,
                                        free_contexts),
        cmocka_unit_test_setup_teardown(sessions_are_resumed_with_the_same_context_only,
                                        both_contexts, free_contexts),
        cmocka_unit_test_setup_teardown(sessions_are_not_resumed_for_ever, both_contexts,
                                        free_contexts),
        cmocka_unit_test_setup_teardown(kept_sessions_are_bounded, both_contexts, free_contexts),
        cmocka_unit_test_setup_teardown(plain_text_is_told_from_tls, both_contexts, free_contexts),
        cmocka_unit_test_setup_teardown(a_reset_connection_is_an_error_of_the_socket, both_contexts,
                                        free_contexts),
        cmocka_unit_test(bad_files_are_named),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
