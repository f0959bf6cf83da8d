/*
 * tls_context.h - certificates, keys and rules that TLS connections of one side share
 *
 * Purpose:    made from files when a configuration is loaded, so that a bad file is an error of
 *             that configuration. Of a server several certificates, chosen by the name that the
 *             client asks for (SNI); of a client the sessions that may be resumed.
 * Ownership:  reference counted; a connection (tls.h) keeps the context that it began with, so a
 *             reload changes only what comes after it.
 * Threading:  any thread. The kept sessions are behind a lock, a leaf.
 * Errors:     tls_context_new() returns -EINVAL and says in *problem what was wrong with which
 *             file. Never the content of one.
 */
#ifndef NC_BASE_TLS_CONTEXT_H
#define NC_BASE_TLS_CONTEXT_H

#include "base/check.h"

#include <stdbool.h>
#include <stdint.h>

/* Who is at the other end. */
enum tls_side { TLS_CLIENT, TLS_BACKEND, N_TLS_SIDES };
enum tls_verify { TLS_VERIFY_NONE, TLS_VERIFY_OPTIONAL, TLS_VERIFY_REQUIRED };
enum tls_part {
    TLS_PART_NONE,
    TLS_PART_CERT,
    TLS_PART_KEY,
    TLS_PART_CA,
    TLS_PART_CIPHERS,
    TLS_PART_CIPHERSUITES
};

#define TLS_CERTS_MAX 16

/* Borrowed for the call. An empty text or NULL: none. */
struct tls_settings {
    enum tls_side side;
    const char *cert_files[TLS_CERTS_MAX], *key_files[TLS_CERTS_MAX];
    unsigned n_certs;
    const char *key_password;
    const char *ca_file; /* none: the system's, for backends */
    enum tls_verify verify;
    bool allows_12, allows_13;
    const char *ciphers, *ciphersuites; /* of TLS 1.2, of TLS 1.3 */
    bool resumes;
    const char *server_name; /* backends: to ask for and to verify; none: the host's own */
};

struct tls_problem {
    enum tls_part part;
    const char *file; /* one of the settings', or NULL */
    char reason[200];
};

struct tls_context;

NC_MUST_CHECK int tls_context_new(const struct tls_settings *settings, struct tls_context **out,
                                  struct tls_problem *problem);
/* Accepts NULL. */
struct tls_context *tls_context_ref(struct tls_context *context);
/* Accepts a pointer to NULL; clears the pointer. */
void tls_context_unref(struct tls_context **context);

/* One log line per certificate, with its subject and its end; a warning when that is over. */
void tls_context_log(const struct tls_context *context);
/* When the first of its certificates ends, in seconds since 1970; 0: there is none. */
int64_t tls_context_expires_at(const struct tls_context *context);

/* ---- for tls.c ---- */

struct ssl_st;
struct ssl_session_st;

enum tls_side tls_context_side(const struct tls_context *context);
/* "" : the host's own. */
const char *tls_context_server_name(const struct tls_context *context);
/* A fresh connection, or NULL. app_data finds its way into the callbacks. */
struct ssl_st *tls_context_connection(struct tls_context *context);
/* A copy of its own for each connection; the caller frees. NULL: there is none for this peer. */
struct ssl_session_st *tls_context_find_session(struct tls_context *context, const char *peer);
void tls_context_keep_session(struct tls_context *context, const char *peer,
                              struct ssl_session_st *session);
/* tls.c: a session of this connection may be resumed later; its certificate was refused. */
void tls_on_session(struct ssl_st *ssl, struct ssl_session_st *session);
void tls_on_refused(struct ssl_st *ssl, const char *subject);

#endif
