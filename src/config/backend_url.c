#include "config/backend_url.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/bytes.h"
#include "base/mem.h"

#define REDIS_PORT 6379
#define SENTINEL_PORT 26379
/* sockaddr_un.sun_path with its terminator. */
#define UNIX_PATH_MAX_BYTES 108
#define HOST_MAX_BYTES 255

static const char *const why_form =
    "expected redis://[user:password@]host:port[,host:port...][/db], "
    "sentinel://[user:password@]host:port[,host:port...]/name[/db] or unix:///path[?db=N] "
    "(with TLS rediss:// and sentinels://)";
static const char *const why_sentinel =
    "expected the name that the Sentinels know the master by: "
    "sentinel://[user:password@]host:port[,host:port...]/name[/db]";

static char *copy_of(struct bytes text)
{
    char *const copy = mem_alloc(text.len + 1);

    memcpy(copy, text.ptr, text.len);
    return copy;
}

/* Splits at the first separator; the whole is the head, and false the answer, when there is none.
 */
static bool split(struct bytes text, char separator, struct bytes *head, struct bytes *tail)
{
    const unsigned char *const at = text.len == 0 ? NULL : memchr(text.ptr, separator, text.len);

    if (at == NULL) {
        *head = text;
        *tail = bytes_make(text.ptr + text.len, 0);
        return false;
    }
    *head = bytes_make(text.ptr, (size_t)(at - text.ptr));
    *tail = bytes_make(at + 1, text.len - head->len - 1);
    return true;
}

static int hex_value(unsigned char digit)
{
    if (!isxdigit(digit)) {
        return -1;
    }
    return isdigit(digit) ? digit - '0' : tolower(digit) - 'a' + 10;
}

/* Percent-decoded, or NULL: a broken escape, or one that stands for a zero. */
static char *decoded(struct bytes text)
{
    char *const out = mem_alloc(text.len + 1);
    size_t n = 0;

    for (size_t i = 0; i < text.len; i++, n++) {
        if (text.ptr[i] != '%') {
            out[n] = (char)text.ptr[i];
            continue;
        }

        const int high = i + 2 < text.len ? hex_value(text.ptr[i + 1]) : -1;
        const int low = i + 2 < text.len ? hex_value(text.ptr[i + 2]) : -1;

        if (high < 0 || low < 0 || high * 16 + low == 0) {
            mem_free(out);
            return NULL;
        }
        out[n] = (char)(high * 16 + low);
        i += 2;
    }
    out[n] = '\0';
    return out;
}

static bool parse_credentials(struct config_backend *out, struct bytes text, const char **why)
{
    struct bytes user, password;

    (void)split(text, ':', &user, &password);
    if (user.len > 0) {
        out->user = decoded(user);
    }
    if (password.len > 0) {
        out->password = decoded(password);
    }
    if ((user.len > 0 && out->user == NULL) || (password.len > 0 && out->password == NULL)) {
        *why = "user and password hold a % that two hexadecimal digits (not 00) do not follow; "
               "write %25 for the character itself";
        return false;
    }
    return true;
}

static bool is_host(struct bytes host, bool is_v6)
{
    const char *const allowed = is_v6 ? ":.%" : "-._";

    if (host.len == 0 || host.len > HOST_MAX_BYTES) {
        return false;
    }
    for (size_t i = 0; i < host.len; i++) {
        if (!isalnum(host.ptr[i]) && (host.ptr[i] == '\0' || !strchr(allowed, host.ptr[i]))) {
            return false;
        }
    }
    return true;
}

static bool parse_number(struct bytes text, int64_t min, int64_t max, unsigned *out)
{
    int64_t value;

    if (!bytes_to_int64(text, &value) || value < min || value > max) {
        return false;
    }
    *out = (unsigned)value;
    return true;
}

/* host, host:port, [v6] or [v6]:port. */
static bool parse_seed(struct config_backend *out, struct bytes text, unsigned default_port,
                       const char **why)
{
    const bool is_v6 = text.len > 0 && text.ptr[0] == '[';
    struct config_seed *const seed = &out->seeds[out->n_seeds];
    struct bytes host, rest, port;
    bool has_port;

    if (is_v6) {
        if (!split(bytes_make(text.ptr + 1, text.len - 1), ']', &host, &rest) ||
            (rest.len > 0 && rest.ptr[0] != ':')) {
            *why = "an IPv6 host stands in brackets, as in redis://[::1]:6379";
            return false;
        }
        has_port = rest.len > 0;
        port = has_port ? bytes_make(rest.ptr + 1, rest.len - 1) : rest;
    } else {
        has_port = split(text, ':', &host, &port);
    }
    if (!is_host(host, is_v6)) {
        *why = why_form;
        return false;
    }
    seed->port = default_port;
    if (has_port && !parse_number(port, 1, 65535, &seed->port)) {
        *why = "expected a port from 1 to 65535 (an IPv6 host stands in brackets)";
        return false;
    }
    seed->host = copy_of(host);
    out->n_seeds++;
    return true;
}

static bool parse_seeds(struct config_backend *out, struct bytes text, unsigned default_port,
                        const char **why)
{
    bool has_more = true;

    while (has_more) {
        struct bytes seed, rest;

        has_more = split(text, ',', &seed, &rest);
        if (out->n_seeds == CONFIG_SEEDS_MAX) {
            *why = "expected at most 16 hosts";
            return false;
        }
        if (!parse_seed(out, seed, default_port, why)) {
            return false;
        }
        text = rest;
    }
    return true;
}

static bool parse_db(struct config_backend *out, struct bytes text, const char **why)
{
    if (!parse_number(text, 0, CONFIG_DB_MAX, &out->db)) {
        *why = "expected a database from 0 to 65535 at the end";
        return false;
    }
    return true;
}

static bool parse_tcp(struct config_backend *out, struct bytes text, unsigned default_port,
                      const char **why)
{
    struct bytes authority, db;
    const bool has_path = split(text, '/', &authority, &db);
    const unsigned char *const at = authority.len == 0 ? NULL
                                                       : memrchr(authority.ptr, '@', authority.len);

    if (at != NULL) {
        const size_t n = (size_t)(at - authority.ptr);

        if (!parse_credentials(out, bytes_make(authority.ptr, n), why)) {
            return false;
        }
        authority = bytes_make(at + 1, authority.len - n - 1);
    }
    if (!parse_seeds(out, authority, default_port, why)) {
        return false;
    }
    return !has_path || db.len == 0 || parse_db(out, db, why);
}

/* host[,host...]/name[/db]; the credentials are those of the master. */
static bool parse_sentinel(struct config_backend *out, struct bytes text, const char **why)
{
    const unsigned char *const at = text.len == 0 ? NULL : memrchr(text.ptr, '@', text.len);
    const size_t n_login = at != NULL ? (size_t)(at - text.ptr) + 1 : 0;
    struct bytes seeds, path, name, db;
    bool has_db;

    if (!split(bytes_make(text.ptr + n_login, text.len - n_login), '/', &seeds, &path)) {
        *why = why_sentinel;
        return false;
    }
    has_db = split(path, '/', &name, &db);
    if (name.len == 0) {
        *why = why_sentinel;
        return false;
    }
    out->sentinel_master = decoded(name);
    if (out->sentinel_master == NULL) {
        *why = why_sentinel;
        return false;
    }
    if (!parse_tcp(out, bytes_make(text.ptr, n_login + seeds.len), SENTINEL_PORT, why)) {
        return false;
    }
    return !has_db || db.len == 0 || parse_db(out, db, why);
}

static bool parse_unix(struct config_backend *out, struct bytes text, const char **why)
{
    struct bytes path, query;
    const bool has_query = split(text, '?', &path, &query);

    if (path.len < 2 || path.ptr[0] != '/' || path.len >= UNIX_PATH_MAX_BYTES) {
        *why = "expected unix:///path with at most 107 characters, an absolute one";
        return false;
    }
    if (has_query && !bytes_start_with(query, BYTES("db="))) {
        *why = "expected nothing but ?db=N behind the path";
        return false;
    }
    if (has_query && !parse_db(out, bytes_make(query.ptr + 3, query.len - 3), why)) {
        return false;
    }
    out->unix_path = copy_of(path);
    return true;
}

static bool parse_redis(struct config_backend *out, struct bytes text, const char **why)
{
    return parse_tcp(out, text, REDIS_PORT, why);
}

static bool parse_any(struct config_backend *out, const char *url, const char **why)
{
    static const struct {
        const char *scheme;
        bool (*parse)(struct config_backend *out, struct bytes text, const char **why);
        bool is_tls;
    } schemes[] = {
        {"redis://", parse_redis, false},       {"unix://", parse_unix, false},
        {"rediss://", parse_redis, true},       {"sentinel://", parse_sentinel, false},
        {"sentinels://", parse_sentinel, true},
    };

    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        const size_t n = strlen(schemes[i].scheme);

        if (strncasecmp(url, schemes[i].scheme, n) != 0) {
            continue;
        }
        out->is_tls = schemes[i].is_tls;
        return schemes[i].parse(out, bytes_of_string(url + n), why);
    }
    *why = why_form;
    return false;
}

bool config_backend_parse(struct config_backend *out, const char *url, const char **why)
{
    struct config_backend backend = {.unix_path = NULL};

    if (!parse_any(&backend, url, why)) {
        config_backend_fini(&backend);
        return false;
    }
    *out = backend;
    return true;
}

void config_backend_fini(struct config_backend *backend)
{
    mem_free(backend->unix_path);
    for (unsigned i = 0; i < backend->n_seeds; i++) {
        mem_free(backend->seeds[i].host);
    }
    mem_free(backend->user);
    mem_free(backend->password);
    mem_free(backend->sentinel_master);
    *backend = (struct config_backend){.unix_path = NULL};
}

static const char *scheme_of(const struct config_backend *backend)
{
    if (backend->sentinel_master != NULL) {
        return backend->is_tls ? "sentinels://" : "sentinel://";
    }
    if (backend->unix_path != NULL) {
        return "unix://";
    }
    return backend->is_tls ? "rediss://" : "redis://";
}

void config_backend_text(const struct config_backend *backend, char *out, size_t size)
{
    size_t used = 0;
    int n = snprintf(out, size, "%s%s", scheme_of(backend),
                     backend->unix_path != NULL ? backend->unix_path : "");

    for (unsigned i = 0; i <= backend->n_seeds; i++) {
        if (n < 0 || (size_t)n >= size - used) {
            return;
        }
        used += (size_t)n;
        if (i < backend->n_seeds) {
            const bool is_v6 = strchr(backend->seeds[i].host, ':') != NULL;

            n = snprintf(out + used, size - used, "%s%s%s%s:%u", i > 0 ? "," : "", is_v6 ? "[" : "",
                         backend->seeds[i].host, is_v6 ? "]" : "", backend->seeds[i].port);
        }
    }
    if (backend->sentinel_master != NULL && used < size) {
        n = snprintf(out + used, size - used, "/%s", backend->sentinel_master);
        used += n > 0 && (size_t)n < size - used ? (size_t)n : 0;
    }
    if (backend->db != 0) {
        (void)snprintf(out + used, size - used, "%s%u", backend->unix_path != NULL ? "?db=" : "/",
                       backend->db);
    }
}

bool config_backend_credentials(const char *url, size_t *begin, size_t *end)
{
    const char *const scheme = strstr(url, "://");
    const char *const at = scheme == NULL ? strrchr(url, '@') : strrchr(scheme + 3, '@');

    if (at == NULL) {
        return false;
    }
    *begin = scheme == NULL ? 0 : (size_t)(scheme + 3 - url);
    *end = (size_t)(at - url);
    return true;
}
