#include "admin/changer.h"

#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/stats.h"
#include "proxy/request.h"

struct changer {
    struct proxy *proxy;
    struct config *config;
    changer_apply_fn apply;
    void *context;
    bool is_stopped; /* the workers have ended */
};

/* One CACHE CONFIG SET on its way to the control thread, to all workers, and home. */
struct change {
    struct mail mail, home_mail;
    struct changer *changer;
    struct front *home;
    struct request *request; /* outlives its session */
    char *error;             /* NULL: it holds */
    char who[160];
    unsigned n;
    struct config_assignment set[];
};

struct changer *changer_new(struct proxy *proxy, struct config *config, changer_apply_fn apply,
                            void *context)
{
    struct changer *changer = mem_alloc(sizeof(*changer));

    changer->proxy = proxy;
    changer->config = config_ref(config);
    changer->apply = apply;
    changer->context = context;
    return changer;
}

void changer_stop(struct changer *changer)
{
    changer->is_stopped = true;
}

void changer_free(struct changer **changer)
{
    if (*changer != NULL) {
        config_unref(&(*changer)->config);
        mem_free(*changer);
        *changer = NULL;
    }
}

struct config *changer_config(const struct changer *changer)
{
    return changer->config;
}

/* ---- the log ---- */

static void log_difference(void *context, const char *option, const char *before, const char *after)
{
    const char *const who = context;

    log_info("config", "option changed", "option=%s from=%s to=%s by=%s", option,
             before != NULL ? log_quote(bytes_of_string(before)) : "(none)",
             after != NULL ? log_quote(bytes_of_string(after)) : "(none)",
             log_quote(bytes_of_string(who)));
}

static const struct config_namespace *find(const struct config *config, const char *name)
{
    for (unsigned i = 0; i < config->n_namespaces; i++) {
        if (strcmp(config->namespaces[i].name, name) == 0) {
            return &config->namespaces[i];
        }
    }
    return NULL;
}

/* Loud enough to be found by who wonders later. */
static void log_modes(const struct config *former, const struct config *fresh, const char *who)
{
    for (unsigned i = 0; i < fresh->n_namespaces; i++) {
        const struct config_namespace *const after = &fresh->namespaces[i];
        const struct config_namespace *const before = find(former, after->name);
        const int was = before != NULL ? config_mode_of(former, before) : MODE_ON;
        const int is = config_mode_of(fresh, after);

        if (was != is) {
            log_warn("config", "mode changed", "namespace=%s from=%s to=%s by=%s", after->name,
                     config_mode_name(was), config_mode_name(is), log_quote(bytes_of_string(who)));
        }
    }
}

/* One line each. */
static void log_lines(char *text, enum log_level level, const char *msg, const char *field)
{
    char *rest = NULL;

    for (char *line = strtok_r(text, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        log_event(level, "config", msg, "%s=%s", field, log_quote_long(bytes_of_string(line)));
    }
}

/* ---- changing ---- */

/* Takes the reference of fresh. done is called when all workers act by it; not after an error. */
static int take(struct changer *changer, struct config *fresh, const char *who, FILE *errors,
                void (*done)(void *context), void *context)
{
    struct config *former = changer->config;
    char name[160];
    const int error = changer->apply(changer->context, former, fresh, errors);

    if (error != 0) {
        config_unref(&fresh);
        return error;
    }
    (void)snprintf(name, sizeof(name), "%s", who);
    (void)config_diff(former, fresh, log_difference, name);
    log_modes(former, fresh, who);
    changer->config = fresh;
    proxy_set_config(changer->proxy, former, fresh, done, context);
    config_unref(&former);
    return 0;
}

bool changer_reload(struct changer *changer)
{
    struct config *fresh = NULL;
    char *errors_text = NULL, *notes_text = NULL;
    size_t errors_size = 0, notes_size = 0;
    FILE *errors = open_memstream(&errors_text, &errors_size);
    FILE *notes = open_memstream(&notes_text, &notes_size);
    int error = -ENOMEM;

    CHECK(errors != NULL && notes != NULL);
    error = config_reload(changer->config, &fresh, errors, notes);
    if (error == 0) {
        error = take(changer, fresh, "reload", errors, NULL, NULL);
    }
    (void)fclose(errors);
    (void)fclose(notes);
    if (error != 0) {
        stats_add(METRIC_reload_failures, 1);
        log_lines(errors_text, LOG_ERROR, "reload refused", "error");
        log_error("config", "reload failed, the old configuration stays in force", NULL);
    } else {
        const char *const file = config_file_name(changer->config);

        log_lines(notes_text, LOG_WARN, "not changed, as it needs a restart", "option");
        stats_add(METRIC_reloads, 1);
        log_info("config", "configuration reloaded", "file=%s", file != NULL ? file : "none");
    }
    free(errors_text);
    free(notes_text);
    return error == 0;
}

bool changer_set_modes(struct changer *changer, const char *text)
{
    struct config *fresh = NULL;
    char *errors_text = NULL;
    size_t errors_size = 0;
    FILE *errors = open_memstream(&errors_text, &errors_size);
    int error;

    CHECK(errors != NULL);
    error = config_set_modes(changer->config, text, &fresh, errors);
    if (error == 0) {
        error = take(changer, fresh, "predecessor", errors, NULL, NULL);
    }
    (void)fclose(errors);
    if (error != 0) {
        log_lines(errors_text, LOG_ERROR, "the predecessor's modes are not taken over", "error");
    }
    free(errors_text);
    return error == 0;
}

/* ---- for a client ---- */

static void free_change(struct change *change)
{
    for (unsigned i = 0; i < change->n; i++) {
        mem_free((char *)(uintptr_t)change->set[i].space);
        mem_free((char *)(uintptr_t)change->set[i].name);
        explicit_bzero((char *)(uintptr_t)change->set[i].value, strlen(change->set[i].value));
        mem_free((char *)(uintptr_t)change->set[i].value);
    }
    free(change->error);
    mem_free(change);
}

static void on_home(struct mail *mail)
{
    struct change *change = CONTAINER_OF(mail, struct change, home_mail);

    if (change->error != NULL) {
        request_fail(change->request, "ERR %.400s", change->error);
    } else {
        request_take_part(change->request, BYTES("+OK\r\n"));
        request_done(change->request);
    }
    free_change(change);
}

static void go_home(void *context)
{
    struct change *change = context;

    if (change->changer->is_stopped) {
        free_change(change); /* the request goes with the process */
        return;
    }
    worker_post(&change->home->worker, &change->home_mail);
}

/* Several errors become one line. */
static void join_lines(char *text)
{
    for (size_t len = strlen(text); len > 0 && text[len - 1] == '\n'; len--) {
        text[len - 1] = '\0';
    }
    for (char *at = text; *at != '\0'; at++) {
        *at = *at == '\n' || *at == '\r' ? ';' : *at;
    }
}

char *changer_set_now(struct changer *changer, const char *who, const struct config_assignment *set,
                      unsigned n, void (*done)(void *context), void *context)
{
    struct config *fresh = NULL;
    char *text = NULL;
    size_t size = 0;
    FILE *errors = open_memstream(&text, &size);
    int error;

    CHECK(errors != NULL);
    error = config_set(changer->config, set, n, &fresh, errors);
    if (error == 0) {
        error = take(changer, fresh, who, errors, done, context);
    }
    (void)fclose(errors);
    if (error != 0) {
        join_lines(text);
        return text;
    }
    /* The workers have mail, but this thread, which ends the tour, is still here. */
    free(text);
    stats_add(METRIC_config_sets, 1);
    return NULL;
}

static void on_change(struct mail *mail)
{
    struct change *change = CONTAINER_OF(mail, struct change, mail);
    struct changer *changer = change->changer;
    char *error;

    if (changer->is_stopped) {
        free_change(change);
        return;
    }
    error = changer_set_now(changer, change->who, change->set, change->n, go_home, change);
    if (error != NULL) {
        change->error = error;
        go_home(change);
    }
}

void changer_set(struct changer *changer, struct session *session,
                 const struct config_assignment *set, unsigned n)
{
    struct change *change = mem_alloc(sizeof(*change) + n * sizeof(change->set[0]));

    change->mail.run = on_change;
    change->home_mail.run = on_home;
    change->changer = changer;
    change->home = session->front;
    (void)snprintf(change->who, sizeof(change->who), "client %s", session->peer.text);
    for (unsigned i = 0; i < n; i++) {
        change->set[i] = (struct config_assignment){
            set[i].space != NULL ? mem_strdup(set[i].space) : NULL, mem_strdup(set[i].name),
            mem_strdup(set[i].value)};
    }
    change->n = n;
    change->request = request_queue(session, REQUEST_LOCAL, NULL);
    change->request->suspends = true;
    session_suspend(session, false);
    worker_post(changer->proxy->control, &change->mail);
}
