/*
 * Design: one SSL_CTX per certificate; the first one is where every connection begins, and the
 * name that a client asks for moves it to another. A server resumes by tickets alone, whose keys
 * belong to the context: after a reload everybody is verified anew, and no session takes memory
 * here. A client keeps copies of sessions, since OpenSSL writes into those in use.
 */
#include "base/tls_context.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* Nodes whose session is kept; beyond it the one used longest ago goes. */
#define SESSIONS_MAX 256

/* As Redis has it. Who resumes is not verified again: not for long. */
#define TICKET_LIFE_S 300

struct kept_session {
    struct kept_session *next;
    SSL_SESSION *session;
    char peer[];
};

struct tls_context {
    _Atomic unsigned n_refs;
    enum tls_side side;
    SSL_CTX *certs[TLS_CERTS_MAX];
    char *files[TLS_CERTS_MAX]; /* of the certificates, for the log; NULL: none */
    unsigned n_certs;           /* at least 1, if without a certificate */
    char *server_name;
    pthread_mutex_t lock;      /* a leaf */
    struct kept_session *kept; /* lock; used last first */
    unsigned n_kept;           /* lock */
};

/* ---- errors ---- */

/* The first error is the one that says what happened; those behind it say who passed it on. */
static int fail(struct tls_problem *problem, enum tls_part part, const char *file)
{
    const unsigned long code = ERR_get_error();
    const char *words = ERR_reason_error_string(code);
    char system_words[100];

    if (ERR_SYSTEM_ERROR(code)) {
        words = strerror_r(ERR_GET_REASON(code), system_words, sizeof(system_words));
    }
    problem->part = part;
    problem->file = file;
    snprintf(problem->reason, sizeof(problem->reason), "%s", words != NULL ? words : "unusable");
    ERR_clear_error();
    return -EINVAL;
}

/* ---- callbacks of OpenSSL ---- */

/* Without it OpenSSL would ask at the terminal. */
static int on_password(char *out, int size, int is_writing, void *context)
{
    const char *password = context;
    const size_t len = password != NULL ? strlen(password) : 0;

    (void)is_writing;
    if (len == 0 || len > (size_t)size) {
        return -1;
    }
    memcpy(out, password, len);
    return (int)len;
}

/* The certificate of the name that the client asks for; else the first. */
static int on_server_name(SSL *ssl, int *alert, void *arg)
{
    const struct tls_context *context = arg;
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);

    (void)alert;
    for (unsigned i = 0; name != NULL && i < context->n_certs; i++) {
        X509 *const cert = SSL_CTX_get0_certificate(context->certs[i]);

        if (cert != NULL && X509_check_host(cert, name, 0, 0, NULL) == 1) {
            if (i > 0) {
                SSL_set_SSL_CTX(ssl, context->certs[i]);
            }
            return SSL_TLSEXT_ERR_OK;
        }
    }
    return SSL_TLSEXT_ERR_OK;
}

static int on_verified(int is_good, X509_STORE_CTX *store)
{
    SSL *const ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    X509 *const cert = X509_STORE_CTX_get_current_cert(store);
    char subject[200];

    if (!is_good && cert != NULL && ssl != NULL) {
        X509_NAME_oneline(X509_get_subject_name(cert), subject, sizeof(subject));
        tls_on_refused(ssl, subject);
    }
    return is_good;
}

static int on_new_session(SSL *ssl, SSL_SESSION *session)
{
    tls_on_session(ssl, session);
    return 0; /* the reference stays OpenSSL's */
}

/* ---- how long a session stands for a verified certificate ---- */

static bool has_ended(const X509 *cert)
{
    time_t now = (time_t)(clock_unix_ms() / 1000);

    return cert != NULL && X509_cmp_time(X509_get0_notAfter(cert), &now) < 0;
}

/*
 * TLS 1.3 gives a new ticket at every resumption, and OpenSSL counts its age from then: the time of
 * the full handshake goes along.
 */
static int on_new_ticket(SSL *ssl, void *arg)
{
    SSL_SESSION *const session = SSL_get_session(ssl);
    const int64_t now_ms = clock_now_ms();
    void *had;
    size_t n;

    (void)arg;
    if (SSL_SESSION_get0_ticket_appdata(session, &had, &n) == 1 && n == sizeof(now_ms)) {
        return 1;
    }
    return SSL_SESSION_set1_ticket_appdata(session, &now_ms, sizeof(now_ms));
}

static bool is_old(SSL_SESSION *session)
{
    int64_t verified_ms;
    void *had;
    size_t n;

    if (SSL_SESSION_get0_ticket_appdata(session, &had, &n) != 1 || n != sizeof(verified_ms)) {
        return true;
    }
    memcpy(&verified_ms, had, sizeof(verified_ms));
    return clock_now_ms() - verified_ms >= (int64_t)TICKET_LIFE_S * 1000;
}

static SSL_TICKET_RETURN on_ticket(SSL *ssl, SSL_SESSION *session, const unsigned char *name,
                                   size_t name_len, SSL_TICKET_STATUS status, void *arg)
{
    (void)ssl;
    (void)name;
    (void)name_len;
    (void)arg;
    if ((status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW) || is_old(session) ||
        has_ended(SSL_SESSION_get0_peer(session))) {
        return SSL_TICKET_RETURN_IGNORE_RENEW; /* a full handshake then */
    }
    return status == SSL_TICKET_SUCCESS ? SSL_TICKET_RETURN_USE : SSL_TICKET_RETURN_USE_RENEW;
}

/* ---- making ---- */

static void set_resumption(SSL_CTX *ctx, const struct tls_settings *settings)
{
    static const unsigned char name[] = "nearcached";

    if (settings->side == TLS_BACKEND) {
        SSL_CTX_set_session_cache_mode(ctx, settings->resumes
                                                ? SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL
                                                : SSL_SESS_CACHE_OFF);
        SSL_CTX_sess_set_new_cb(ctx, on_new_session);
        return;
    }
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    (void)SSL_CTX_set_timeout(ctx, TICKET_LIFE_S);
    (void)SSL_CTX_set_session_ticket_cb(ctx, on_new_ticket, on_ticket, NULL);
    (void)SSL_CTX_set_session_id_context(ctx, name, sizeof(name) - 1);
    if (!settings->resumes) {
        SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
        (void)SSL_CTX_set_num_tickets(ctx, 0);
    }
}

static int set_rules(SSL_CTX *ctx, const struct tls_settings *settings, struct tls_problem *problem)
{
    SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
                                 SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                              SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(ctx, 1);
    (void)SSL_CTX_set_min_proto_version(ctx, settings->allows_12 ? TLS1_2_VERSION : TLS1_3_VERSION);
    (void)SSL_CTX_set_max_proto_version(ctx, settings->allows_13 ? TLS1_3_VERSION : TLS1_2_VERSION);
    set_resumption(ctx, settings);
    if (settings->ciphers != NULL && settings->ciphers[0] != '\0' &&
        SSL_CTX_set_cipher_list(ctx, settings->ciphers) != 1) {
        return fail(problem, TLS_PART_CIPHERS, NULL);
    }
    if (settings->ciphersuites != NULL && settings->ciphersuites[0] != '\0' &&
        SSL_CTX_set_ciphersuites(ctx, settings->ciphersuites) != 1) {
        return fail(problem, TLS_PART_CIPHERSUITES, NULL);
    }
    return 0;
}

static int set_verification(SSL_CTX *ctx, const struct tls_settings *settings,
                            struct tls_problem *problem)
{
    const bool is_named = settings->ca_file != NULL && settings->ca_file[0] != '\0';
    int mode = SSL_VERIFY_NONE;

    if (settings->verify != TLS_VERIFY_NONE) {
        mode = SSL_VERIFY_PEER;
        mode |= settings->verify == TLS_VERIFY_REQUIRED ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0;
    }
    SSL_CTX_set_verify(ctx, mode, on_verified);
    if (!is_named) {
        if (settings->side == TLS_BACKEND) {
            (void)SSL_CTX_set_default_verify_paths(ctx);
        }
        return 0;
    }
    if (SSL_CTX_load_verify_file(ctx, settings->ca_file) != 1) {
        return fail(problem, TLS_PART_CA, settings->ca_file);
    }
    if (settings->side == TLS_CLIENT) {
        /* A client with several certificates learns which of them is asked for. */
        SSL_CTX_set_client_CA_list(ctx, SSL_load_client_CA_file(settings->ca_file));
    }
    return 0;
}

static int set_certificate(SSL_CTX *ctx, const struct tls_settings *settings, unsigned i,
                           struct tls_problem *problem)
{
    const char *const cert = settings->cert_files[i], *const key = settings->key_files[i];
    int error = 0;

    SSL_CTX_set_default_passwd_cb(ctx, on_password);
    SSL_CTX_set_default_passwd_cb_userdata(ctx, (void *)(uintptr_t)settings->key_password);
    if (SSL_CTX_use_certificate_chain_file(ctx, cert) != 1) {
        error = fail(problem, TLS_PART_CERT, cert);
    } else if (SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1 ||
               SSL_CTX_check_private_key(ctx) != 1) {
        error = fail(problem, TLS_PART_KEY, key);
    }
    SSL_CTX_set_default_passwd_cb_userdata(ctx, NULL); /* only borrowed */
    return error;
}

static int make_cert(struct tls_context *context, const struct tls_settings *settings, unsigned i,
                     struct tls_problem *problem)
{
    SSL_CTX *const ctx = SSL_CTX_new(settings->side == TLS_CLIENT ? TLS_server_method()
                                                                  : TLS_client_method());
    int error;

    if (ctx == NULL) {
        return fail(problem, TLS_PART_NONE, NULL);
    }
    context->certs[context->n_certs++] = ctx;
    error = set_rules(ctx, settings, problem);
    if (error == 0) {
        error = set_verification(ctx, settings, problem);
    }
    if (error == 0 && i < settings->n_certs) {
        context->files[i] = mem_strdup(settings->cert_files[i]);
        error = set_certificate(ctx, settings, i, problem);
    }
    return error;
}

int tls_context_new(const struct tls_settings *settings, struct tls_context **out,
                    struct tls_problem *problem)
{
    struct tls_context *context = mem_alloc(sizeof(*context));
    int error = 0;

    CHECK(settings->n_certs <= TLS_CERTS_MAX);
    atomic_init(&context->n_refs, 1);
    pthread_mutex_init(&context->lock, NULL);
    context->side = settings->side;
    context->server_name = mem_strdup(settings->server_name != NULL ? settings->server_name : "");
    ERR_clear_error();
    for (unsigned i = 0; error == 0 && (i == 0 || i < settings->n_certs); i++) {
        error = make_cert(context, settings, i, problem);
    }
    if (error != 0) {
        tls_context_unref(&context);
        return error;
    }
    if (context->n_certs > 1) {
        SSL_CTX_set_tlsext_servername_callback(context->certs[0], on_server_name);
        SSL_CTX_set_tlsext_servername_arg(context->certs[0], context);
    }
    *out = context;
    return 0;
}

struct tls_context *tls_context_ref(struct tls_context *context)
{
    if (context != NULL) {
        atomic_fetch_add_explicit(&context->n_refs, 1, memory_order_relaxed);
    }
    return context;
}

static void free_kept(struct kept_session *kept)
{
    SSL_SESSION_free(kept->session);
    mem_free(kept);
}

void tls_context_unref(struct tls_context **context)
{
    struct tls_context *const last = *context;

    *context = NULL;
    /* Release what was read here, acquire what others did: the last one frees. */
    if (last == NULL || atomic_fetch_sub_explicit(&last->n_refs, 1, memory_order_acq_rel) > 1) {
        return;
    }
    while (last->kept != NULL) {
        struct kept_session *const kept = last->kept;

        last->kept = kept->next;
        free_kept(kept);
    }
    for (unsigned i = 0; i < last->n_certs; i++) {
        SSL_CTX_free(last->certs[i]);
        mem_free(last->files[i]);
    }
    pthread_mutex_destroy(&last->lock);
    mem_free(last->server_name);
    mem_free(last);
}

/* ---- telling ---- */

static int64_t end_of(const X509 *cert)
{
    struct tm tm;

    if (cert == NULL || ASN1_TIME_to_tm(X509_get0_notAfter(cert), &tm) != 1) {
        return 0;
    }
    return (int64_t)timegm(&tm);
}

void tls_context_log(const struct tls_context *context)
{
    for (unsigned i = 0; context != NULL && i < context->n_certs; i++) {
        const X509 *const cert = SSL_CTX_get0_certificate(context->certs[i]);
        const int64_t at = end_of(cert);
        const time_t end = (time_t)at;
        char subject[200], text[32];
        struct tm tm;

        if (cert == NULL) {
            continue;
        }
        X509_NAME_oneline(X509_get_subject_name(cert), subject, sizeof(subject));
        strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&end, &tm));
        log_event(at <= (int64_t)time(NULL) ? LOG_WARN : LOG_INFO, "tls",
                  at <= (int64_t)time(NULL) ? "certificate has expired" : "certificate in force",
                  "side=%s file=%s subject=%s not_after=%s",
                  context->side == TLS_CLIENT ? "client" : "backend",
                  log_quote(bytes_of_string(context->files[i])),
                  log_quote(bytes_of_string(subject)), text);
    }
}

int64_t tls_context_expires_at(const struct tls_context *context)
{
    int64_t first = 0;

    for (unsigned i = 0; context != NULL && i < context->n_certs; i++) {
        const int64_t at = end_of(SSL_CTX_get0_certificate(context->certs[i]));

        if (at > 0 && (first == 0 || at < first)) {
            first = at;
        }
    }
    return first;
}

/* ---- for tls.c ---- */

enum tls_side tls_context_side(const struct tls_context *context)
{
    return context->side;
}

const char *tls_context_server_name(const struct tls_context *context)
{
    return context->server_name;
}

struct ssl_st *tls_context_connection(struct tls_context *context)
{
    return SSL_new(context->certs[0]);
}

/* Where the peer's session hangs in the list; *NULL: none. */
static struct kept_session **find_locked(struct tls_context *context, const char *peer)
{
    struct kept_session **at = &context->kept;

    while (*at != NULL && strcmp((*at)->peer, peer) != 0) {
        at = &(*at)->next;
    }
    return at;
}

static void put_first_locked(struct tls_context *context, struct kept_session *kept)
{
    kept->next = context->kept;
    context->kept = kept;
}

struct ssl_session_st *tls_context_find_session(struct tls_context *context, const char *peer)
{
    struct kept_session **at, *kept;
    SSL_SESSION *copy = NULL;

    pthread_mutex_lock(&context->lock);
    at = find_locked(context, peer);
    kept = *at;
    if (kept != NULL) {
        *at = kept->next;
        put_first_locked(context, kept);
        if (!has_ended(SSL_SESSION_get0_peer(kept->session))) {
            copy = SSL_SESSION_dup(kept->session);
        }
    }
    pthread_mutex_unlock(&context->lock);
    return copy;
}

void tls_context_keep_session(struct tls_context *context, const char *peer,
                              struct ssl_session_st *session)
{
    const size_t size = strlen(peer) + 1;
    struct kept_session *const kept = mem_alloc(sizeof(*kept) + size);
    struct kept_session **at, *former;

    memcpy(kept->peer, peer, size);
    kept->session = SSL_SESSION_dup(session);
    if (kept->session == NULL) {
        mem_free(kept);
        return;
    }
    pthread_mutex_lock(&context->lock);
    at = find_locked(context, peer);
    if (*at == NULL && context->n_kept == SESSIONS_MAX) {
        for (at = &context->kept; (*at)->next != NULL; at = &(*at)->next) {
        }
    }
    former = *at;
    if (former != NULL) {
        *at = former->next;
    } else {
        context->n_kept++;
    }
    put_first_locked(context, kept);
    pthread_mutex_unlock(&context->lock);
    if (former != NULL) {
        free_kept(former);
    }
}
