#include "config/tls.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

static const char tls_12[] = "TLSv1.2", tls_13[] = "TLSv1.3";

bool config_is_protocol(const char *text)
{
    return strcasecmp(text, tls_12) == 0 || strcasecmp(text, tls_13) == 0;
}

static bool has_protocol(const struct config *config, const char *name)
{
    for (unsigned i = 0; i < config->tls_protocols.n; i++) {
        if (strcasecmp(config->tls_protocols.items[i], name) == 0) {
            return true;
        }
    }
    return false;
}

static bool refuse(struct config_tls_problem *problem, const char *option, const char *text)
{
    problem->option = option;
    snprintf(problem->text, sizeof(problem->text), "%s", text);
    return false;
}

/* What both sides have in common. */
static struct tls_settings common_settings(const struct config *config, enum tls_side side)
{
    return (struct tls_settings){
        .side = side,
        .allows_12 = has_protocol(config, tls_12),
        .allows_13 = has_protocol(config, tls_13),
        .ciphers = config->tls_ciphers,
        .ciphersuites = config->tls_ciphersuites,
        .resumes = config->tls_session_resumption,
    };
}

/* The options that a part of the settings came from, by side. */
static bool make(const struct tls_settings *settings, struct tls_context **out,
                 struct config_tls_problem *problem)
{
    static const char *const options[][N_TLS_SIDES] = {
        [TLS_PART_NONE] = {"tls-listen", "backend"},
        [TLS_PART_CERT] = {"tls-cert-file", "backend-tls-cert-file"},
        [TLS_PART_KEY] = {"tls-key-file", "backend-tls-key-file"},
        [TLS_PART_CA] = {"tls-ca-file", "backend-tls-ca-file"},
        [TLS_PART_CIPHERS] = {"tls-ciphers", "tls-ciphers"},
        [TLS_PART_CIPHERSUITES] = {"tls-ciphersuites", "tls-ciphersuites"},
    };
    struct tls_problem why;

    if (tls_context_new(settings, out, &why) == 0) {
        return true;
    }
    problem->option = options[why.part][settings->side];
    if (why.file != NULL) {
        snprintf(problem->text, sizeof(problem->text), "%s = %.200s: %s", problem->option, why.file,
                 why.reason);
    } else {
        snprintf(problem->text, sizeof(problem->text), "%s: %s", problem->option, why.reason);
    }
    return false;
}

static bool make_for_clients(struct config *config, struct config_tls_problem *problem)
{
    struct tls_settings settings = common_settings(config, TLS_CLIENT);
    const bool has_ca = config->tls_ca_file[0] != '\0';

    if (config->tls_cert_file.n == 0 || config->tls_cert_file.n != config->tls_key_file.n) {
        return refuse(problem, config->tls_cert_file.n == 0 ? "tls-listen" : "tls-key-file",
                      "tls-listen needs a certificate in tls-cert-file and the key of each in "
                      "tls-key-file, in the same order");
    }
    for (unsigned i = 0; i < config->tls_cert_file.n; i++) {
        settings.cert_files[i] = config->tls_cert_file.items[i];
        settings.key_files[i] = config->tls_key_file.items[i];
    }
    settings.n_certs = config->tls_cert_file.n;
    settings.key_password = config->tls_key_file_password;
    settings.ca_file = config->tls_ca_file;
    switch (config->tls_auth_clients) {
    case TLS_AUTH_CLIENTS_AUTO:
        settings.verify = has_ca ? TLS_VERIFY_REQUIRED : TLS_VERIFY_NONE;
        break;
    case TLS_AUTH_CLIENTS_NO:
        settings.verify = TLS_VERIFY_NONE;
        break;
    default:
        if (!has_ca) {
            return refuse(problem, "tls-auth-clients",
                          "tls-auth-clients: clients' certificates are verified by tls-ca-file, "
                          "which is not set");
        }
        settings.verify = config->tls_auth_clients == TLS_AUTH_CLIENTS_YES ? TLS_VERIFY_REQUIRED
                                                                           : TLS_VERIFY_OPTIONAL;
        break;
    }
    return make(&settings, &config->tls_clients, problem);
}

static bool make_for_backend(struct config *config, struct config_tls_problem *problem)
{
    struct tls_settings settings = common_settings(config, TLS_BACKEND);
    const bool has_cert = config->backend_tls_cert_file[0] != '\0';

    if (has_cert != (config->backend_tls_key_file[0] != '\0')) {
        return refuse(problem, has_cert ? "backend-tls-cert-file" : "backend-tls-key-file",
                      "backend-tls-cert-file and backend-tls-key-file go together");
    }
    settings.cert_files[0] = config->backend_tls_cert_file;
    settings.key_files[0] = config->backend_tls_key_file;
    settings.n_certs = has_cert;
    settings.key_password = config->backend_tls_key_file_password;
    settings.ca_file = config->backend_tls_ca_file;
    settings.verify = config->backend_tls_verify ? TLS_VERIFY_REQUIRED : TLS_VERIFY_NONE;
    settings.server_name = config->backend_tls_server_name;
    return make(&settings, &config->tls_backend, problem);
}

bool config_tls_make(struct config *config, struct config_tls_problem *problem)
{
    if (config->tls_listen.n > 0 && !make_for_clients(config, problem)) {
        return false;
    }
    if (config->target.is_tls || config->target.is_sentinel_tls) {
        return make_for_backend(config, problem);
    }
    return true;
}
