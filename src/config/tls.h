/*
 * tls.h - from the options of [tls] to what connections begin with
 *
 * Purpose:    read certificates, keys and CAs when a configuration is made, so that a bad one is
 *             refused with it and what is in force stays so.
 * Ownership:  the configuration holds a reference to each context.
 * Threading:  any thread.
 * Errors:     false, with the option and what is wrong with it. Values of secrets are not told.
 */
#ifndef NC_CONFIG_TLS_H
#define NC_CONFIG_TLS_H

#include "config/config.h"

struct config_tls_problem {
    const char *option; /* as in the file */
    char text[480];     /* the whole line: option, file and reason */
};

/* Fills tls_clients and tls_backend, each where it is needed; the options before it are good. */
NC_MUST_CHECK bool config_tls_make(struct config *config, struct config_tls_problem *problem);

/* Of one item of tls-protocols. */
#define CONFIG_PROTOCOL_EXPECTED "TLSv1.2, TLSv1.3 or both"
bool config_is_protocol(const char *text);

#endif
