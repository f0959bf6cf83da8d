/*
 * backend_url.h - where the backend is, taken apart from its URL
 *
 *     redis://[user:password@]host[:port][,host[:port]...][/db]         rediss://: by TLS
 *     sentinel://[user:password@]host[:port][,host[:port]...]/name[/db]  sentinels://: by TLS
 *     unix:///path[?db=N]
 *
 * Purpose:    turn the option `backend` into seeds, credentials and database. User and password are
 *             percent-decoded; an IPv6 host stands in brackets; the port is 6379 where none is
 * given. Ownership:  a parsed struct owns its strings until config_backend_fini(). Threading:  any
 * thread; no shared state. Errors:     parsing returns false, points *why to a fixed phrase and
 * leaves *out alone.
 */
#ifndef NC_CONFIG_BACKEND_URL_H
#define NC_CONFIG_BACKEND_URL_H

#include "base/check.h"

#include <stdbool.h>
#include <stddef.h>

#define CONFIG_SEEDS_MAX 16
#define CONFIG_DB_MAX 65535

struct config_seed {
    char *host; /* name or number, an IPv6 number without its brackets */
    unsigned port;
};

struct config_backend {
    char *unix_path; /* NULL: the seeds count */
    struct config_seed seeds[CONFIG_SEEDS_MAX];
    unsigned n_seeds;      /* 0 when unix_path is set */
    char *user, *password; /* NULL: none */
    char *
        sentinel_master; /* NULL: the seeds are servers; else Sentinels that know it by this name */
    bool is_tls;         /* to the servers */
    bool is_sentinel_tls; /* to the Sentinels; draft_finish() sets it */
    unsigned db;
};

NC_MUST_CHECK bool config_backend_parse(struct config_backend *out, const char *url,
                                        const char **why);
void config_backend_fini(struct config_backend *backend);

/* For logs: "redis://10.0.0.7:6379,10.0.0.8:6379/2"; never user or password. Cut to size. */
void config_backend_text(const struct config_backend *backend, char *out, size_t size);

/*
 * The credentials inside a URL, well formed or not: *begin and *end enclose what stands between
 * "://" and the last "@". False when there is none.
 */
bool config_backend_credentials(const char *url, size_t *begin, size_t *end);

#endif
