/*
 * A job walks from master to master, one connection at a time, and on each of them from batch to
 * batch: a SCAN and the UNLINKs of what it found, then a pause that keeps to the rate. Every step
 * starts from the job's timer, so that no connection is freed within a callback of its own.
 */
#include "coherence/unlink.h"

#include <event2/event.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "coherence/ledger.h"
#include "upstream/control_client.h"

#define JOB_MAGIC 0x756e6c6bu /* "unlk" */
#define BATCH_KEYS 100u
/* Keys of a step, other masters' included: a tenth of a millisecond or two. */
#define LOOKED_AT_MAX 1000u
/* A tenth of a second's worth within these: so long a pause lasts at most, as a rule. */
#define SCAN_COUNT_MIN 10
#define SCAN_COUNT_MAX 500
/* Keys looked at count as this much less than keys removed. */
#define SCAN_CHEAPER 10u

const char *const unlink_state_names[] = {"running", "done", "failed", "cancelled"};

struct unlink_job {
    uint32_t magic;
    struct unlink_job *next; /* jobs->lock */
    struct unlink_jobs *jobs;
    struct mail mail;
    uint64_t id;                                     /* init, and so on to started_at_us */
    struct invalidation what;                        /* its name and tags are the job's */
    struct key_pile keys;                            /* control thread; gone at the end */
    struct bytes *tags;                              /* with room for a glob; gone at the end */
    struct bytes match;                              /* for SCAN; empty: none */
    int ns;                                          /* -1: any */
    int64_t started_at_us;                           /* init */
    int64_t ended_at_us;                             /* jobs->lock */
    enum unlink_state state;                         /* jobs->lock */
    char error[256];                                 /* jobs->lock */
    _Atomic bool is_cancelled;                       /* atomic */
    _Atomic uint64_t n_scanned, n_removed, n_errors; /* atomic; written by the control thread */
    _Atomic unsigned n_masters, n_masters_done;      /* atomic; written by the control thread */
    struct topology *topology;                       /* control thread, and so on to the end */
    struct control_client *client;
    struct event *timer;
    unsigned at; /* of topology->nodes */
    bool is_connected, is_node_done;
    bool has_rules, are_keys_done; /* of INVALIDATE_TAGS: there is something to SCAN for; so far */
    struct key_place key_at;
    struct key_place dropped_at; /* what is in front of it has left tier 1 again */
    char cursor[24];
    unsigned n_waiting, n_batch; /* UNLINKs that are not answered; sent in this batch */
    uint64_t n_seen;             /* by the SCAN of this batch */
};

struct unlink_jobs {
    pthread_mutex_t lock;
    struct unlink_job *first;                /* lock: newest first */
    uint64_t last_id;                        /* lock */
    _Atomic unsigned n_running, max_running; /* atomic */
    struct coherence_fleet *fleet;
    struct worker *control;
    const struct config_backend *login;
    struct config *config;     /* control thread */
    struct topology *topology; /* control thread; NULL: none yet */
    bool is_stopped;           /* control thread */
    struct key_pile trash;     /* lock: freed piece by piece */
};

/* ---- what a job is about ---- */

static bool is_special(unsigned char c)
{
    return c == '*' || c == '?' || c == '[' || c == ']' || c == '\\' || c == '^' || c == '-';
}

/* A pattern that only what begins with prefix matches; out has room for twice as much, and one. */
static size_t pattern_of_prefix(struct bytes prefix, unsigned char *out)
{
    size_t n = 0;

    for (size_t i = 0; i < prefix.len; i++) {
        if (is_special(prefix.ptr[i])) {
            out[n++] = '\\';
        }
        out[n++] = prefix.ptr[i];
    }
    out[n++] = '*';
    return n;
}

/* A glob may match more keys than those that have the tag. */
static bool has_tag(const struct unlink_job *job, struct bytes key)
{
    const struct config *config = job->jobs->config;
    const unsigned ns = config_namespace_of(config, key)->id;

    if (!tag_rules_have(config->tag_rules, ns)) {
        return false;
    }
    for (size_t i = 0; i < job->what.n_tags; i++) {
        if (tag_rules_has(config->tag_rules, ns, key, job->what.tags[i])) {
            return true;
        }
    }
    return false;
}

static bool is_wanted(const struct unlink_job *job, struct bytes key)
{
    if (ledger_owns(job->jobs->config, key)) {
        return false;
    }
    switch (job->what.kind) {
    case INVALIDATE_PREFIX:
        return bytes_start_with(key, job->what.name);
    case INVALIDATE_GLOB:
        return bytes_match_glob(job->what.name, key);
    case INVALIDATE_NAMESPACE:
        return config_namespace_of(job->jobs->config, key)->id == job->ns;
    case INVALIDATE_TAGS:
        return has_tag(job, key);
    case INVALIDATE_KEYS:
    case INVALIDATE_EVERYTHING:
        break;
    }
    return true;
}

/* ---- steps: the control thread ---- */

static void step_in(struct unlink_job *job, int64_t ms)
{
    const struct timeval delay = {ms / 1000, ms % 1000 * 1000};

    event_add(job->timer, &delay);
}

static const struct topology_node *node_of(const struct unlink_job *job)
{
    return &job->topology->nodes[job->at];
}

static void note_error_of(struct unlink_job *job, const char *where, struct bytes text)
{
    atomic_fetch_add_explicit(&job->n_errors, 1, memory_order_relaxed);
    pthread_mutex_lock(&job->jobs->lock);
    if (job->error[0] == '\0') {
        snprintf(job->error, sizeof(job->error), "%.128s: %.*s", where,
                 text.len > 100 ? 100 : (int)text.len, (const char *)text.ptr);
    }
    pthread_mutex_unlock(&job->jobs->lock);
}

/* At the master that it is at. */
static void note_error(struct unlink_job *job, struct bytes text)
{
    note_error_of(job, node_of(job)->endpoint.text, text);
}

/* Jobs that have ended beyond those that are kept. */
static void forget_old(struct unlink_jobs *jobs)
{
    struct unlink_job *gone = NULL;
    unsigned n = 0;

    pthread_mutex_lock(&jobs->lock);
    for (struct unlink_job **at = &jobs->first; *at != NULL;) {
        struct unlink_job *job = *at;

        if (job->state != UNLINK_RUNNING && ++n > UNLINK_KEPT) {
            *at = job->next;
            job->next = gone;
            gone = job;
        } else {
            at = &job->next;
        }
    }
    pthread_mutex_unlock(&jobs->lock);
    while (gone != NULL) {
        struct unlink_job *next = gone->next;
        mem_free(gone);
        gone = next;
    }
}

static void release(struct unlink_job *job)
{
    control_client_free(&job->client);
    if (job->timer != NULL) {
        event_free(job->timer);
        job->timer = NULL;
    }
    topology_unref(&job->topology);
}

/* What went from a master that was still to come to one that had been walked was not seen. */
static void note_moves(struct unlink_job *job)
{
    if (job->topology != NULL && job->jobs->topology != job->topology &&
        topology_has_moved(job->topology, job->jobs->topology)) {
        note_error_of(job, "backend", BYTES("slots have moved meanwhile, give it again"));
    }
}

static void finish(struct unlink_job *job)
{
    struct unlink_jobs *jobs = job->jobs;
    const bool is_cancelled = atomic_load_explicit(&job->is_cancelled, memory_order_relaxed);
    enum unlink_state state = UNLINK_CANCELLED;

    if (!is_cancelled) {
        note_moves(job);
    }
    const uint64_t n_errors = atomic_load_explicit(&job->n_errors, memory_order_relaxed);
    if (!is_cancelled) {
        state = n_errors > 0 ? UNLINK_FAILED : UNLINK_DONE;
    }
    release(job);
    invalidation_repeat(jobs->fleet, &job->what);
    unlink_jobs_discard(jobs, &job->keys);
    mem_free(job->tags);
    job->tags = NULL;
    stats_add(state == UNLINK_DONE
                  ? METRIC_jobs
                  : (state == UNLINK_FAILED ? METRIC_jobs_failed : METRIC_jobs_cancelled),
              1);
    log_info("coherence", "unlink job ended", "job=%llu state=%s removed=%llu errors=%llu error=%s",
             (unsigned long long)job->id, unlink_state_names[state],
             (unsigned long long)atomic_load_explicit(&job->n_removed, memory_order_relaxed),
             (unsigned long long)n_errors, log_quote(bytes_of_string(job->error)));
    pthread_mutex_lock(&jobs->lock);
    job->ended_at_us = clock_now_us();
    job->state = state;
    pthread_mutex_unlock(&jobs->lock);
    atomic_fetch_sub_explicit(&jobs->n_running, 1, memory_order_relaxed);
    forget_old(jobs);
}

static void end_node(struct unlink_job *job)
{
    job->is_node_done = true;
    step_in(job, 0);
}

static bool is_here(const struct unlink_job *job, struct bytes key)
{
    return !job->topology->is_cluster ||
           topology_owner(job->topology, command_key_slot(key)) == node_of(job);
}

/* There may be very many: tier 1 drops them batch by batch. */
static void drop_sent(struct unlink_job *job)
{
    struct bytes batch[BATCH_KEYS], key;
    size_t n = 0;

    while (job->dropped_at.n < job->key_at.n && key_pile_next(&job->keys, &job->dropped_at, &key)) {
        if (is_here(job, key) && n < BATCH_KEYS) {
            batch[n++] = key;
        }
    }
    if (n > 0) {
        invalidation_repeat_keys(job->jobs->fleet, &job->what, batch, n);
    }
}

static void pause_after_batch(struct unlink_job *job)
{
    drop_sent(job);
    const uint64_t rate = (uint64_t)job->jobs->config->unlink_rate;
    const uint64_t cost = job->n_batch + job->n_seen / SCAN_CHEAPER;

    step_in(job, (int64_t)(cost * 1000 / rate));
}

static void on_unlinked(const struct resp_value *head, struct bytes reply, void *context)
{
    struct unlink_job *job = OBJ_FROM(context, struct unlink_job, JOB_MAGIC);
    int64_t n;

    (void)reply;
    if (head->type == ':' && bytes_to_int64(head->text, &n)) {
        atomic_fetch_add_explicit(&job->n_removed, (uint64_t)n, memory_order_relaxed);
        stats_add(METRIC_job_keys, (uint64_t)n);
    } else {
        note_error(job, head->text);
    }
    if (--job->n_waiting == 0) {
        pause_after_batch(job);
    }
}

static void send_unlink(struct unlink_job *job, struct bytes key)
{
    const struct bytes argv[] = {BYTES("UNLINK"), key};

    control_client_send_bytes(job->client, argv, 2, on_unlinked);
    job->n_waiting++;
    job->n_batch++;
}

/* Of tags, what has them by a rule is looked for then. */
static void end_keys(struct unlink_job *job)
{
    if (job->what.kind == INVALIDATE_TAGS && job->has_rules) {
        job->are_keys_done = true;
        step_in(job, 0);
    } else {
        end_node(job);
    }
}

/* Told once, by the first master. */
static bool is_nowhere(const struct unlink_job *job, struct bytes key)
{
    return atomic_load_explicit(&job->n_masters_done, memory_order_relaxed) == 0 &&
           topology_owner(job->topology, command_key_slot(key)) == NULL;
}

static void send_keys(struct unlink_job *job)
{
    struct bytes key;
    bool has_more = true;

    for (unsigned i = 0; has_more && i < LOOKED_AT_MAX && job->n_batch < BATCH_KEYS; i++) {
        has_more = key_pile_next(&job->keys, &job->key_at, &key);
        if (has_more && is_here(job, key)) {
            send_unlink(job, key);
        } else if (has_more && is_nowhere(job, key)) {
            note_error_of(job, "backend", BYTES("a key's slot has no master"));
        }
    }
    if (job->n_waiting == 0 && has_more) {
        drop_sent(job);
        step_in(job, 0);
    } else if (job->n_waiting == 0) {
        end_keys(job);
    }
}

/* "cursor" and an array of keys. False: something else. */
static bool take_scanned(struct unlink_job *job, struct bytes reply)
{
    struct resp_value value;

    if (!resp_next(&reply, &value) || value.type != '*' || value.n_children != 2 ||
        !resp_next(&reply, &value) || value.text.len >= sizeof(job->cursor)) {
        return false;
    }
    memcpy(job->cursor, value.text.ptr, value.text.len);
    job->cursor[value.text.len] = '\0';
    if (!resp_next(&reply, &value) || value.type != '*') {
        return false;
    }
    for (size_t n = value.n_children; n > 0 && resp_next(&reply, &value); n--) {
        job->n_seen++;
        if (is_wanted(job, value.text)) {
            send_unlink(job, value.text);
        }
    }
    atomic_fetch_add_explicit(&job->n_scanned, job->n_seen, memory_order_relaxed);
    return true;
}

static void on_scanned(const struct resp_value *head, struct bytes reply, void *context)
{
    struct unlink_job *job = OBJ_FROM(context, struct unlink_job, JOB_MAGIC);

    if (head->type != '*' || !take_scanned(job, reply)) {
        note_error(job, head->type == '-' ? head->text : BYTES("not an answer to SCAN"));
        end_node(job);
        return;
    }
    if (job->n_waiting == 0) {
        pause_after_batch(job);
    }
}

static int scan_count(const struct unlink_job *job)
{
    const int64_t tenth = job->jobs->config->unlink_rate / 10;

    return tenth < SCAN_COUNT_MIN ? SCAN_COUNT_MIN
                                  : (tenth > SCAN_COUNT_MAX ? SCAN_COUNT_MAX : (int)tenth);
}

static void send_scan(struct unlink_job *job)
{
    char count[24];
    struct bytes argv[6] = {BYTES("SCAN"),  bytes_of_string(job->cursor),
                            BYTES("COUNT"), {0},
                            BYTES("MATCH"), job->match};

    snprintf(count, sizeof(count), "%d", scan_count(job));
    argv[3] = bytes_of_string(count);
    control_client_send_bytes(job->client, argv, job->match.len > 0 ? 6 : 4, on_scanned);
}

static void send_batch(struct unlink_job *job)
{
    job->n_batch = 0;
    job->n_seen = 0;
    if (job->what.kind == INVALIDATE_KEYS ||
        (job->what.kind == INVALIDATE_TAGS && !job->are_keys_done)) {
        send_keys(job);
        return;
    }
    if (strcmp(job->cursor, "0") == 0) {
        end_node(job);
        return;
    }
    if (job->cursor[0] == '\0') {
        memcpy(job->cursor, "0", 2);
    }
    send_scan(job);
}

/* ---- from master to master ---- */

static void on_selected(const struct resp_value *head, struct bytes reply, void *context)
{
    struct unlink_job *job = OBJ_FROM(context, struct unlink_job, JOB_MAGIC);

    (void)reply;
    if (head->type == '-') {
        note_error(job, head->text);
        end_node(job);
    } else {
        step_in(job, 0);
    }
}

static void on_up(void *context)
{
    struct unlink_job *job = OBJ_FROM(context, struct unlink_job, JOB_MAGIC);
    char db[16];
    const char *argv[] = {"SELECT", db};

    job->is_connected = true;
    if (job->topology->is_cluster || job->what.db == 0) {
        step_in(job, 0);
        return;
    }
    snprintf(db, sizeof(db), "%u", job->what.db);
    control_client_send(job->client, argv, 2, on_selected);
}

static void on_down(const char *reason, bool is_refused, void *context)
{
    struct unlink_job *job = OBJ_FROM(context, struct unlink_job, JOB_MAGIC);

    (void)is_refused;
    note_error(job, bytes_of_string(reason));
    job->n_waiting = 0;
    drop_sent(job);
    end_node(job);
}

static const struct control_events client_events = {on_up, on_down, NULL};

static void connect_to(struct unlink_job *job, const struct topology_node *node)
{
    const struct config *config = job->jobs->config;
    const struct control_settings settings = {
        .user = job->jobs->login->user,
        .password = job->jobs->login->password,
        .connect_timeout_ms = config->connect_timeout_ms,
        .request_timeout_ms = config->request_timeout_ms,
        .tls = config->tls_backend,
    };

    job->is_connected = job->is_node_done = job->are_keys_done = false;
    job->cursor[0] = '\0';
    job->key_at = job->dropped_at = (struct key_place){0};
    if (!node->is_resolved) {
        note_error(job, BYTES("its name has no address"));
        end_node(job);
        return;
    }
    job->client = control_client_new(job->jobs->control->base, &client_events, job);
    control_client_connect(job->client, &node->endpoint, node->host, &settings);
}

/* The next master from job->at on. */
static void go_to_node(struct unlink_job *job)
{
    while (job->at < job->topology->n_nodes && !node_of(job)->is_master) {
        job->at++;
    }
    if (job->at == job->topology->n_nodes) {
        finish(job);
    } else {
        connect_to(job, node_of(job));
    }
}

static void on_step(evutil_socket_t fd, short what, void *context)
{
    struct unlink_job *job = OBJ_FROM(context, struct unlink_job, JOB_MAGIC);

    (void)fd;
    (void)what;
    if (atomic_load_explicit(&job->is_cancelled, memory_order_relaxed)) {
        finish(job);
    } else if (job->is_node_done) {
        control_client_free(&job->client);
        atomic_fetch_add_explicit(&job->n_masters_done, 1, memory_order_relaxed);
        job->at++;
        go_to_node(job);
    } else {
        send_batch(job);
    }
}

/* One glob tells SCAN what to show; more than one are all looked at. The room was kept for it. */
static void find_rules(struct unlink_job *job)
{
    unsigned char *room = (unsigned char *)(uintptr_t)job->match.ptr;
    unsigned n = 0;

    for (size_t i = 0; i < job->what.n_tags && n < 2; i++) {
        unsigned char glob[4 * CAPTURES_TEXT_MAX];
        size_t length;
        const unsigned n_globs = tag_rules_globs(job->jobs->config->tag_rules, job->what.tags[i],
                                                 glob, &length);

        if (n == 0 && n_globs > 0) {
            memcpy(room, glob, length);
            job->match.len = length;
        }
        n += n_globs;
    }
    job->has_rules = n > 0;
    job->match.len = n == 1 ? job->match.len : 0;
}

/* On the control thread. */
static void begin(struct mail *mail)
{
    struct unlink_job *job = CONTAINER_OF(mail, struct unlink_job, mail);
    unsigned n = 0;

    if (job->jobs->is_stopped) {
        return;
    }
    if (job->jobs->topology == NULL) {
        note_error_of(job, "backend", BYTES("no master is known"));
        finish(job);
        return;
    }
    if (job->what.kind == INVALIDATE_TAGS) {
        find_rules(job);
    }
    job->topology = topology_ref(job->jobs->topology);
    if (job->topology->is_cluster && job->what.db != 0) {
        note_error_of(job, "backend", BYTES("a cluster has no database but 0"));
        finish(job);
        return;
    }
    for (unsigned i = 0; i < job->topology->n_nodes; i++) {
        n += job->topology->nodes[i].is_master;
    }
    atomic_store_explicit(&job->n_masters, n, memory_order_relaxed);
    job->timer = event_new(job->jobs->control->base, -1, 0, on_step, job);
    CHECK(job->timer != NULL);
    go_to_node(job);
}

/* ---- any thread ---- */

static struct bytes keep(unsigned char **room, struct bytes bytes)
{
    const struct bytes kept = bytes_make(*room, bytes.len);

    if (bytes.len > 0) {
        memcpy(*room, bytes.ptr, bytes.len);
    }
    *room += bytes.len;
    return kept;
}

/* False: no memory. */
static bool keep_tags(struct unlink_job *job, const struct invalidation *what)
{
    size_t n = what->n_tags * sizeof(struct bytes) + 4 * CAPTURES_TEXT_MAX;
    unsigned char *room;

    if (what->n_tags == 0) {
        return true;
    }
    for (size_t i = 0; i < what->n_tags; i++) {
        n += what->tags[i].len;
    }
    job->tags = mem_try_alloc(n);
    if (job->tags == NULL) {
        return false;
    }
    room = (unsigned char *)(job->tags + what->n_tags);
    for (size_t i = 0; i < what->n_tags; i++) {
        job->tags[i] = keep(&room, what->tags[i]);
    }
    job->match = bytes_make(room, 0);
    return true;
}

/* False: no memory. A pile is taken over in the end, when nothing can fail any more. */
static bool keep_keys(struct unlink_job *job, const struct invalidation *what)
{
    bool is_good = true;

    for (size_t i = 0; i < what->n_keys && is_good; i++) {
        is_good = key_pile_add(&job->keys, what->keys[i]);
    }
    if (!is_good || !keep_tags(job, what)) {
        key_pile_free(&job->keys);
        return false;
    }
    if (what->pile != NULL) {
        key_pile_move(&job->keys, what->pile);
    }
    return true;
}

static struct unlink_job *job_new(struct unlink_jobs *jobs, const struct invalidation *what, int ns)
{
    struct unlink_job *job = mem_alloc(sizeof(*job) + 3 * what->name.len + 1);
    unsigned char *room = (unsigned char *)(job + 1);

    if (!keep_keys(job, what)) {
        mem_free(job);
        return NULL;
    }
    job->magic = JOB_MAGIC;
    job->jobs = jobs;
    job->mail.run = begin;
    job->what = *what;
    job->what.name = keep(&room, what->name);
    job->what.keys = NULL;
    job->what.n_keys = 0;
    job->what.pile = NULL;
    job->what.tags = job->tags;
    job->ns = ns;
    job->started_at_us = clock_now_us();
    if (what->kind == INVALIDATE_PREFIX) {
        job->match = bytes_make(room, pattern_of_prefix(what->name, room));
    } else if (what->kind == INVALIDATE_GLOB) {
        job->match = job->what.name;
    }
    return job;
}

uint64_t unlink_jobs_start(struct unlink_jobs *jobs, const struct invalidation *what, int ns)
{
    const unsigned max = atomic_load_explicit(&jobs->max_running, memory_order_relaxed);
    struct unlink_job *job = NULL;

    if (atomic_fetch_add_explicit(&jobs->n_running, 1, memory_order_relaxed) < max) {
        job = job_new(jobs, what, ns);
    }
    if (job == NULL) {
        atomic_fetch_sub_explicit(&jobs->n_running, 1, memory_order_relaxed);
        stats_add(METRIC_jobs_refused, 1);
        return 0;
    }
    pthread_mutex_lock(&jobs->lock);
    const uint64_t id = ++jobs->last_id;
    job->id = id;
    job->next = jobs->first;
    jobs->first = job;
    pthread_mutex_unlock(&jobs->lock);
    worker_post(jobs->control, &job->mail);
    return id;
}

void unlink_jobs_discard(struct unlink_jobs *jobs, struct key_pile *pile)
{
    if (jobs == NULL) {
        key_pile_free(pile);
        return;
    }
    pthread_mutex_lock(&jobs->lock);
    key_pile_move(&jobs->trash, pile);
    pthread_mutex_unlock(&jobs->lock);
}

void unlink_jobs_tick(struct unlink_jobs *jobs)
{
    struct key_pile trash = {0};

    pthread_mutex_lock(&jobs->lock);
    key_pile_move(&trash, &jobs->trash);
    pthread_mutex_unlock(&jobs->lock);
    if (key_pile_free_some(&trash)) {
        unlink_jobs_discard(jobs, &trash);
    }
}

bool unlink_jobs_cancel(struct unlink_jobs *jobs, uint64_t id)
{
    bool is_found = false;

    pthread_mutex_lock(&jobs->lock);
    for (struct unlink_job *job = jobs->first; job != NULL; job = job->next) {
        if (job->id == id && job->state == UNLINK_RUNNING) {
            atomic_store_explicit(&job->is_cancelled, true, memory_order_relaxed);
            is_found = true;
        }
    }
    pthread_mutex_unlock(&jobs->lock);
    return is_found;
}

unsigned unlink_jobs_running(const struct unlink_jobs *jobs)
{
    return atomic_load_explicit(&jobs->n_running, memory_order_relaxed);
}

static void tell_about(const struct unlink_job *job, struct unlink_info *info)
{
    const int64_t now_us = clock_now_us();
    const struct bytes name = job->what.name;

    *info = (struct unlink_info){
        .id = job->id,
        .state = job->state,
        .kind = job->what.kind,
        .name_len = name.len < sizeof(info->name) ? name.len : sizeof(info->name),
        .db = job->what.db,
        .n_masters = atomic_load_explicit(&job->n_masters, memory_order_relaxed),
        .n_masters_done = atomic_load_explicit(&job->n_masters_done, memory_order_relaxed),
        .n_scanned = atomic_load_explicit(&job->n_scanned, memory_order_relaxed),
        .n_removed = atomic_load_explicit(&job->n_removed, memory_order_relaxed),
        .n_errors = atomic_load_explicit(&job->n_errors, memory_order_relaxed),
        .took_ms = ((job->state == UNLINK_RUNNING ? now_us : job->ended_at_us) -
                    job->started_at_us) /
                   1000,
    };
    if (info->name_len > 0) {
        memcpy(info->name, name.ptr, info->name_len);
    }
    memcpy(info->error, job->error, sizeof(info->error));
}

unsigned unlink_jobs_list(struct unlink_jobs *jobs, struct unlink_info *infos, unsigned max)
{
    unsigned n = 0;

    pthread_mutex_lock(&jobs->lock);
    for (const struct unlink_job *job = jobs->first; job != NULL && n < max; job = job->next) {
        tell_about(job, &infos[n++]);
    }
    pthread_mutex_unlock(&jobs->lock);
    return n;
}

/* ---- life ---- */

struct unlink_jobs *unlink_jobs_new(struct coherence_fleet *fleet, struct worker *control,
                                    const struct config_backend *login, struct config *config)
{
    struct unlink_jobs *jobs = mem_alloc(sizeof(*jobs));

    pthread_mutex_init(&jobs->lock, NULL);
    jobs->fleet = fleet;
    jobs->control = control;
    jobs->login = login;
    unlink_jobs_set_config(jobs, config);
    fleet->jobs = jobs;
    return jobs;
}

void unlink_jobs_set_config(struct unlink_jobs *jobs, struct config *config)
{
    struct config *former = jobs->config;

    jobs->config = config_ref(config);
    atomic_store_explicit(&jobs->max_running, (unsigned)config->unlink_jobs, memory_order_relaxed);
    config_unref(&former);
}

void unlink_jobs_set_topology(struct unlink_jobs *jobs, struct topology *topology)
{
    topology_unref(&jobs->topology);
    jobs->topology = topology_ref(topology);
}

void unlink_jobs_stop(struct unlink_jobs *jobs)
{
    struct unlink_job *first;

    jobs->is_stopped = true;
    /* Workers may still begin jobs, which go to the front; only this thread takes any away. */
    pthread_mutex_lock(&jobs->lock);
    first = jobs->first;
    pthread_mutex_unlock(&jobs->lock);
    for (struct unlink_job *job = first; job != NULL; job = job->next) {
        release(job);
    }
}

void unlink_jobs_free(struct unlink_jobs **jobs)
{
    struct unlink_jobs *gone = *jobs;

    *jobs = NULL;
    if (gone == NULL) {
        return;
    }
    while (gone->first != NULL) {
        struct unlink_job *next = gone->first->next;
        key_pile_free(&gone->first->keys);
        mem_free(gone->first->tags);
        mem_free(gone->first);
        gone->first = next;
    }
    key_pile_free(&gone->trash);
    topology_unref(&gone->topology);
    config_unref(&gone->config);
    pthread_mutex_destroy(&gone->lock);
    mem_free(gone);
}
