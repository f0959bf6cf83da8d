/*
 * An invalidation: first what rules say, for each tag, then the members of each tag, one walk after
 * the other. Members are dropped and told while the walk goes on; for the scope ALL they are
 * gathered too, and the job begins when all are known.
 *
 * Why this order is right: whoever was told that a key is tagged finds it in the walk, as it begins
 * later. A fetch of the key that was begun before the drop becomes void by it; one that begins
 * after it reads what the backend has then, which is as new as the caller's knowledge.
 */
#include "coherence/tags.h"

#include "base/mem.h"
#include "coherence/unlink.h"

#define JOB_MAGIC 0x74616773u /* "tags" */
/* Names that an invalidation of scope ALL gathers. */
#define GATHERED_MAX ((size_t)256 * 1024 * 1024)

struct tags_job {
    uint32_t magic;
    struct coherence *home;
    tags_done_fn done;
    void *context;
    struct tags_answer answer;
    unsigned db;
    bool is_all, has_rules, is_too_much;
    unsigned n_tags, n_left, at;
    struct key_pile gathered;
    char error[192];
    struct bytes tags[];
};

static const char *fault_of(unsigned n)
{
    return n == 0 || n > TAGS_MAX ? "more than 128 tags at a time" : NULL;
}

static struct tags_job *job_new(struct coherence *home, unsigned db, const struct bytes *tags,
                                unsigned n, tags_done_fn done, void *context)
{
    size_t n_bytes = 0;
    struct tags_job *job;
    unsigned char *room;

    for (unsigned i = 0; i < n; i++) {
        n_bytes += tags[i].len;
    }
    job = mem_try_alloc(sizeof(*job) + n * sizeof(struct bytes) + n_bytes);
    if (job == NULL) {
        return NULL;
    }
    memset(job, 0, sizeof(*job));
    job->magic = JOB_MAGIC;
    job->home = home;
    job->done = done;
    job->context = context;
    job->db = db;
    job->n_tags = n;
    room = (unsigned char *)&job->tags[n];
    for (unsigned i = 0; i < n; i++) {
        if (tags[i].len > 0) {
            memcpy(room, tags[i].ptr, tags[i].len);
        }
        job->tags[i] = bytes_make(room, tags[i].len);
        room += tags[i].len;
    }
    return job;
}

static void job_free(struct tags_job *job)
{
    if (job->is_all) {
        atomic_fetch_sub_explicit(&job->home->fleet->n_gathering, 1, memory_order_relaxed);
    }
    unlink_jobs_discard(job->home->fleet->jobs, &job->gathered);
    mem_free(job);
}

static void finish(struct tags_job *job)
{
    if (job->error[0] != '\0') {
        job->answer.error = job->error;
    }
    job->done(job->context, &job->answer);
    job_free(job);
}

/* The first one counts. */
static void note_error(struct tags_job *job, const char *error)
{
    if (job->error[0] == '\0' && error != NULL) {
        const size_t length = strnlen(error, sizeof(job->error) - 1);

        memcpy(job->error, error, length);
        job->error[length] = '\0';
    }
}

/* ---- attaching ---- */

static void on_attached(void *context, const struct ledger_answer *answer)
{
    struct tags_job *job = OBJ_FROM(context, struct tags_job, JOB_MAGIC);

    note_error(job, answer->error);
    job->answer.n += answer->n;
    if (--job->n_left == 0) {
        finish(job);
    }
}

static const char *attach_one(struct tags_job *job, struct bytes tag,
                              const struct ledger_member *member, bool is_attach)
{
    struct ledger *ledger = job->home->ledger;

    return is_attach ? ledger_add(ledger, LEDGER_TAG, tag, member, 1, on_attached, job)
                     : ledger_remove(ledger, LEDGER_TAG, tag, member, 1, on_attached, job);
}

const char *tags_attach(struct coherence *home, unsigned db, struct bytes key,
                        const struct bytes *tags, unsigned n, bool is_attach, tags_done_fn done,
                        void *context)
{
    const struct ledger_member member = {db, key};
    const char *error = ledger_owns(home->config, key) ? "the key is one of the ledger's own"
                                                       : fault_of(n);
    struct tags_job *job = error == NULL ? job_new(home, db, tags, n, done, context) : NULL;

    if (error != NULL || job == NULL) {
        return error != NULL ? error : "out of memory";
    }
    for (unsigned i = 0; i < n && error == NULL; i++) {
        error = attach_one(job, tags[i], &member, is_attach);
        job->n_left += error == NULL;
    }
    if (job->n_left == 0) {
        job_free(job);
        return error;
    }
    /* Some are under way: they end first. */
    note_error(job, error);
    return NULL;
}

/* ---- invalidating ---- */

/* A worker does this for a batch of members at a time, and nothing at all for all of them. */
static bool gather(struct tags_job *job, struct bytes key)
{
    return job->gathered.n_bytes < GATHERED_MAX && key_pile_add(&job->gathered, key);
}

static void on_members(void *context, const struct ledger_member *members, unsigned n)
{
    struct tags_job *job = OBJ_FROM(context, struct tags_job, JOB_MAGIC);
    struct bytes *keys = mem_try_alloc(n * sizeof(*keys));

    if (keys == NULL) {
        note_error(job, "out of memory");
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        keys[i] = members[i].key;
        if (job->is_all && members[i].db == job->db && !job->is_too_much) {
            job->is_too_much = !gather(job, members[i].key);
        }
    }
    job->answer.n += n;
    job->answer.n_entries += invalidation_drop_keys(job->home->fleet, job->home, keys, n,
                                                    METRIC_invalidations_tag);
    mem_free(keys);
}

static void start_unlink(struct tags_job *job)
{
    const struct invalidation what = {
        .kind = INVALIDATE_TAGS,
        .pile = &job->gathered,
        .tags = job->tags,
        .n_tags = job->n_tags,
        .name = job->tags[0],
        .is_all = true,
        .db = job->db,
    };

    if (job->is_too_much) {
        note_error(job, "too many keys carry the tag to be removed by one job");
    } else if (job->gathered.n > 0 || job->has_rules) {
        job->answer.job = job->home->fleet->jobs != NULL
                              ? unlink_jobs_start(job->home->fleet->jobs, &what, -1)
                              : 0;
        note_error(job, job->answer.job == 0 ? INVALIDATION_NO_MORE_JOBS : NULL);
    }
}

static void next_tag(struct tags_job *job);

static void on_walked(void *context, const struct ledger_answer *answer)
{
    struct tags_job *job = OBJ_FROM(context, struct tags_job, JOB_MAGIC);

    note_error(job, answer->error);
    next_tag(job);
}

/* Members of the next tag; at the end of all, the answer. */
static void next_tag(struct tags_job *job)
{
    if (job->error[0] == '\0' && job->at < job->n_tags) {
        const char *error = ledger_members(job->home->ledger, LEDGER_TAG, job->tags[job->at++], -1,
                                           0, on_members, on_walked, job);

        if (error == NULL) {
            return;
        }
        note_error(job, error);
    }
    if (job->is_all && job->error[0] == '\0') {
        start_unlink(job);
    }
    job->answer.is_counted = !job->has_rules;
    job->answer.n_proxies = invalidation_count_proxies(job->home->fleet);
    stats_add(job->error[0] == '\0' ? METRIC_orders_tag : METRIC_orders_refused, 1);
    finish(job);
}

/* What is gathered takes memory: no more of it at a time than there may be jobs. */
static bool may_gather(const struct coherence *home)
{
    const unsigned n = atomic_fetch_add_explicit(&home->fleet->n_gathering, 1,
                                                 memory_order_relaxed);

    return n < (unsigned)home->config->unlink_jobs;
}

const char *tags_invalidate(struct coherence *home, unsigned db, bool is_all,
                            const struct bytes *tags, unsigned n, tags_done_fn done, void *context)
{
    const char *error = fault_of(n);
    struct tags_job *job = error == NULL ? job_new(home, db, tags, n, done, context) : NULL;

    if (error == NULL && job == NULL) {
        error = "out of memory";
    }
    if (error == NULL && is_all) {
        job->is_all = true;
        error = may_gather(home) ? NULL : INVALIDATION_NO_MORE_JOBS;
    }
    if (error == NULL) {
        error = ledger_members(home->ledger, LEDGER_TAG, tags[0], -1, 0, on_members, on_walked,
                               job);
    }
    if (error != NULL) {
        if (job != NULL) {
            job_free(job);
        }
        stats_add(METRIC_orders_refused, 1);
        return error;
    }
    job->at = 1;
    for (unsigned i = 0; i < n; i++) {
        job->has_rules |= invalidation_drop_tag(home->fleet, home, tags[i], false);
    }
    return NULL;
}
