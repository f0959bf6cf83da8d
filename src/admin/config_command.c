/* CACHE CONFIG and CACHE MODE: words in, admin/changer.h, +OK out. */
#include <ctype.h>
#include <stdio.h>

#include "admin/cache_call.h"
#include "admin/changer.h"
#include "base/mem.h"

/* Pairs of one CACHE CONFIG SET. */
#define PAIRS_MAX 128
/* Longest value; a line of the file may not be longer either. */
#define VALUE_MAX ((size_t)4096)
/* namespace.<32>.<31> */
#define NAME_MAX_BYTES ((size_t)80)

/* A copy that ends with a zero. NULL: too long, or with a zero inside. */
static char *text_of(struct bytes bytes, size_t max)
{
    char *text;

    if (bytes.len > max || memchr(bytes.ptr, '\0', bytes.len) != NULL) {
        return NULL;
    }
    text = mem_alloc(bytes.len + 1);
    memcpy(text, bytes.ptr, bytes.len);
    return text;
}

/*
 * Those whom the backend judges do not get at the proxy's configuration as well, unless they have
 * its password.
 */
static bool may_change(struct cache_call *call)
{
    if (call->session->identity == NULL || call->session->may_change_cache) {
        return true;
    }
    stats_add(METRIC_errors_auth, 1);
    resp_put_error(call->reply,
                   "NOPERM it needs CACHE AUTH <password> of users that the backend knows");
    return false;
}

/* ---- CONFIG GET ---- */

struct listing {
    const struct cache_call *call;
    unsigned n; /* that match; put when counted */
    bool is_counting;
};

static bool matches(const struct cache_call *call, const char *option)
{
    for (unsigned i = 1; i < call->n_args; i++) {
        unsigned char lower[NAME_MAX_BYTES];
        const struct bytes pattern = call->args[i];

        if (pattern.len > sizeof(lower)) {
            continue;
        }
        for (size_t at = 0; at < pattern.len; at++) {
            lower[at] = (unsigned char)tolower(pattern.ptr[at]);
        }
        if (bytes_match_glob(bytes_make(lower, pattern.len), bytes_of_string(option))) {
            return true;
        }
    }
    return false;
}

static void on_option(void *context, const char *option, const char *value)
{
    struct listing *listing = context;

    if (!matches(listing->call, option)) {
        return;
    }
    if (listing->is_counting) {
        listing->n++;
    } else {
        resp_put_string(listing->call->reply, option);
        resp_put_string(listing->call->reply, value);
    }
}

static void run_get(struct cache_call *call)
{
    struct listing listing = {.call = call, .is_counting = true};

    config_each(call->front->config, on_option, &listing);
    resp_put_map(call->reply, listing.n);
    listing.is_counting = false;
    config_each(call->front->config, on_option, &listing);
}

/* ---- CONFIG SET ---- */

/* "namespace.session.max-ttl": names of namespaces may hold points, those of options do not. */
static void take_apart(char *name, struct config_assignment *into)
{
    static const char prefix[] = "namespace.";
    char *point;

    into->space = NULL;
    into->name = name;
    if (strncasecmp(name, prefix, sizeof(prefix) - 1) == 0) {
        point = strrchr(name, '.');
        if (point > name + sizeof(prefix) - 1) {
            *point = '\0';
            into->space = name + sizeof(prefix) - 1;
            into->name = point + 1;
        }
    }
    for (char *at = (char *)(uintptr_t)into->name; *at != '\0'; at++) {
        *at = (char)tolower((unsigned char)*at);
    }
}

static bool is_twice(const struct config_assignment *set, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        const bool is_same_space = set[i].space == NULL || set[n].space == NULL
                                       ? set[i].space == set[n].space
                                       : strcmp(set[i].space, set[n].space) == 0;

        if (is_same_space && strcmp(set[i].name, set[n].name) == 0) {
            return true;
        }
    }
    return false;
}

static void run_set(struct cache_call *call)
{
    const unsigned n = (call->n_args - 1) / 2;
    struct config_assignment set[PAIRS_MAX];
    char *names[PAIRS_MAX], *values[PAIRS_MAX];
    const char *error = NULL;
    unsigned n_taken = 0;

    while (n_taken < n && error == NULL) {
        names[n_taken] = text_of(call->args[1 + 2 * n_taken], NAME_MAX_BYTES);
        values[n_taken] = text_of(call->args[2 + 2 * n_taken], VALUE_MAX);
        if (names[n_taken] == NULL || values[n_taken] == NULL) {
            error = "ERR CACHE CONFIG SET: too long, or with a zero byte";
        } else {
            take_apart(names[n_taken], &set[n_taken]);
            set[n_taken].value = values[n_taken];
            if (is_twice(set, n_taken)) {
                error = "ERR CACHE CONFIG SET: an option is given twice";
            }
        }
        n_taken++;
    }
    if (error != NULL) {
        resp_put_error(call->reply, "%s", error);
    } else {
        changer_set(call->front->proxy->changer, call->session, set, n);
    }
    for (unsigned i = 0; i < n_taken; i++) {
        if (values[i] != NULL) {
            explicit_bzero(values[i], strlen(values[i]));
        }
        mem_free(names[i]);
        mem_free(values[i]);
    }
}

void cache_run_config(struct cache_call *call)
{
    const struct bytes word = call->args[0];

    if (!may_change(call)) {
        return;
    }
    if (bytes_equal_nocase(word, BYTES("GET")) && call->n_args >= 2) {
        run_get(call);
    } else if (bytes_equal_nocase(word, BYTES("SET")) && call->n_args >= 3 &&
               call->n_args % 2 == 1 && call->n_args <= 2 * PAIRS_MAX + 1) {
        run_set(call);
    } else {
        resp_put_error(call->reply, "ERR syntax error");
    }
}

/* ---- MODE ---- */

static void show_modes(struct cache_call *call)
{
    const struct config *config = call->front->config;

    resp_put_map(call->reply, config->n_namespaces + 1);
    resp_put_string(call->reply, "mode");
    resp_put_string(call->reply, config_mode_name(config->mode));
    for (unsigned i = 0; i < config->n_namespaces; i++) {
        char name[NAME_MAX_BYTES];

        (void)snprintf(name, sizeof(name), "namespace.%s", config->namespaces[i].name);
        resp_put_string(call->reply, name);
        resp_put_string(call->reply,
                        config_mode_name(config_mode_of(config, &config->namespaces[i])));
    }
}

void cache_run_mode(struct cache_call *call)
{
    char *mode, *space;

    if (call->n_args == 0) {
        show_modes(call);
        return;
    }
    if (!may_change(call)) {
        return;
    }
    mode = text_of(call->args[0], NAME_MAX_BYTES);
    space = call->n_args == 2 ? text_of(call->args[1], NAME_MAX_BYTES) : NULL;
    if (mode == NULL || (call->n_args == 2 && space == NULL)) {
        resp_put_error(call->reply, "ERR syntax error");
    } else {
        const struct config_assignment set = {space, "mode", mode};

        changer_set(call->front->proxy->changer, call->session, &set, 1);
    }
    mem_free(mode);
    mem_free(space);
}
