/*
 * CACHE INVALIDATE, CLEAR, BAN and JOB: words in, coherence/invalidation.h, numbers out.
 *
 * INVALIDATE takes keys as they are, or a form that begins with a word. So a key that is called
 * like such a word is named behind KEYS. Of very many keys the answer comes later, in its place,
 * and what the client sends behind it waits.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "admin/cache_call.h"
#include "base/clock.h"
#include "base/mem.h"
#include "coherence/key_orders.h"
#include "coherence/unlink.h"
#include "proxy/request.h"

static bool is_word(struct bytes text, const char *word)
{
    return bytes_equal_nocase(text, bytes_of_string(word));
}

static void put_pair(struct resp_writer *reply, const char *name, uint64_t value)
{
    resp_put_string(reply, name);
    resp_put_integer(reply, (int64_t)value);
}

static struct coherence_fleet *fleet_of(struct cache_call *call)
{
    return &call->front->proxy->fleet;
}

/* ---- INVALIDATE ---- */

struct form {
    const char *word;
    enum invalidation_kind kind;
    unsigned min_args, max_args; /* behind the word */
};

static const struct form forms[] = {
    {"KEYS", INVALIDATE_KEYS, 1, UINT32_MAX},
    {"PREFIX", INVALIDATE_PREFIX, 1, 1},
    {"GLOB", INVALIDATE_GLOB, 1, 1},
    {"NAMESPACE", INVALIDATE_NAMESPACE, 1, 1},
    {"EVERYTHING", INVALIDATE_EVERYTHING, 0, 0},
    {"TAG", INVALIDATE_TAGS, 1, UINT32_MAX},
};

static const struct form *find_form(struct bytes word)
{
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        if (is_word(word, forms[i].word)) {
            return &forms[i];
        }
    }
    return NULL;
}

/* Jobs work with the proxy's own login: who logged in as somebody else may not borrow it. */
bool cache_may_unlink(struct cache_call *call)
{
    if (call->session->identity == NULL || call->session->may_change_cache) {
        return true;
    }
    stats_add(METRIC_errors_auth, 1);
    resp_put_error(call->reply, "NOPERM CACHE INVALIDATE ALL needs CACHE AUTH <password> of users "
                                "that the backend knows");
    return false;
}

static void put_answer(struct resp_writer *reply, const struct invalidation_answer *answer)
{
    resp_put_map(reply, answer->job != 0 ? 4 : 3);
    resp_put_string(reply, "entries");
    if (answer->is_counted) {
        resp_put_integer(reply, (int64_t)answer->n_entries);
    } else {
        resp_put_null(reply);
    }
    resp_put_string(reply, "matched");
    resp_put_string(reply, answer->is_counted ? "at-once" : "lazily");
    put_pair(reply, "proxies", answer->n_proxies);
    if (answer->job != 0) {
        put_pair(reply, "job", answer->job);
    }
}

/* ---- a great many keys ---- */

struct many {
    struct request *request; /* outlives its session */
    bool is_plain;
};

static void on_many_done(void *context, const struct invalidation_answer *answer)
{
    struct many *many = context;
    struct request *request = many->request;
    struct buffer room;

    buffer_init(&room);
    if (answer->error != NULL) {
        request_fail(request, "ERR %s", answer->error);
    } else {
        struct resp_writer reply = {.out = &room, .is_resp3 = request->proto == 3};

        if (many->is_plain) {
            resp_put_integer(&reply, (int64_t)answer->n_entries);
        } else {
            put_answer(&reply, answer);
        }
        if (reply.has_failed) {
            request_fail(request, "ERR nearcached: out of memory");
        } else {
            request_take_part(request, buffer_bytes(&room));
            request_done(request);
        }
    }
    buffer_fini(&room);
    mem_free(many);
}

/*
 * The names as they came in: bulk strings one behind the other. Empty: the request was inline, and
 * so is not that long.
 */
static struct bytes as_sent(const struct bytes *keys, unsigned n)
{
    const unsigned char *begin = keys[0].ptr - 2;

    /* A word of the command stands before it at least. */
    if (memcmp(begin, "\r\n", 2) != 0) {
        return (struct bytes){0};
    }
    while (*begin != '$') {
        begin--;
    }
    return bytes_make(begin, (size_t)(keys[n - 1].ptr + keys[n - 1].len - begin) + 2);
}

/* False: they are not so many. */
static bool run_many(struct cache_call *call, const struct bytes *keys, unsigned n, bool is_all,
                     bool is_plain)
{
    const struct bytes names = n > KEY_ORDERS_SLICE ? as_sent(keys, n) : (struct bytes){0};
    struct many *many;
    const char *error;

    if (names.len == 0) {
        return false;
    }
    many = mem_alloc(sizeof(*many));
    *many = (struct many){request_queue(call->session, REQUEST_LOCAL, NULL), is_plain};
    many->request->suspends = true;
    session_suspend(call->session, false);
    error = key_orders_begin(call->front->coherence.key_orders,
                             &(struct key_order){.keys = names,
                                                 .is_all = is_all,
                                                 .db = call->session->db,
                                                 .done = on_many_done,
                                                 .context = many});
    if (error != NULL) {
        request_fail(many->request, "ERR %s", error);
        mem_free(many);
    }
    return true;
}

static void run_form(struct cache_call *call, const struct form *form, const struct bytes *args,
                     unsigned n_args, bool is_all)
{
    const struct invalidation what = {
        .kind = form->kind,
        .keys = form->kind == INVALIDATE_KEYS ? args : NULL,
        .n_keys = form->kind == INVALIDATE_KEYS ? n_args : 0,
        .name = form->kind != INVALIDATE_KEYS && n_args > 0 ? args[0] : (struct bytes){0},
        .is_all = is_all,
        .db = call->session->db,
    };
    struct invalidation_answer answer;

    if (n_args < form->min_args || n_args > form->max_args) {
        resp_put_error(call->reply, "ERR wrong number of arguments for CACHE INVALIDATE %s",
                       form->word);
    } else if (is_all && !cache_may_unlink(call)) {
        return;
    } else if (form->kind == INVALIDATE_TAGS) {
        cache_run_invalidate_tags(call, args, n_args, is_all);
    } else if (form->kind == INVALIDATE_KEYS && run_many(call, args, n_args, is_all, false)) {
        return;
    } else if (!invalidation_run(fleet_of(call), &call->front->coherence, &what, &answer)) {
        resp_put_error(call->reply, "ERR %s", answer.error);
    } else {
        put_answer(call->reply, &answer);
    }
}

/* Keys as they are: answered by their number alone. */
static void run_plain(struct cache_call *call)
{
    const struct invalidation what = {
        .kind = INVALIDATE_KEYS, .keys = call->args, .n_keys = call->n_args};
    struct invalidation_answer answer;

    if (run_many(call, call->args, call->n_args, false, true)) {
        return;
    }
    (void)invalidation_run(fleet_of(call), &call->front->coherence, &what, &answer);
    resp_put_integer(call->reply, (int64_t)answer.n_entries);
}

void cache_run_invalidate(struct cache_call *call)
{
    const bool is_all = is_word(call->args[0], "ALL");
    const unsigned at = call->n_args > 1 && (is_all || is_word(call->args[0], "L1")) ? 1 : 0;
    const struct form *form = find_form(call->args[at]);

    if (form == NULL && at == 1) {
        /* Keys called like that are named behind KEYS: a misspelt form is not to drop them. */
        resp_put_error(call->reply, "ERR syntax error");
        return;
    }
    /* One word alone is a key, unless it is a whole form. */
    if (form == NULL || (call->n_args == 1 && form->min_args > 0)) {
        run_plain(call);
        return;
    }
    run_form(call, form, call->args + at + 1, call->n_args - at - 1, is_all && at == 1);
}

void cache_run_clear(struct cache_call *call)
{
    const struct invalidation what = {
        .kind = call->n_args == 1 ? INVALIDATE_NAMESPACE : INVALIDATE_EVERYTHING,
        .name = call->n_args == 1 ? call->args[0] : (struct bytes){0},
    };
    struct invalidation_answer answer;

    if (invalidation_run(fleet_of(call), &call->front->coherence, &what, &answer)) {
        resp_put_integer(call->reply, (int64_t)answer.n_entries);
    } else {
        resp_put_error(call->reply, "ERR %s", answer.error);
    }
}

/* ---- BAN ---- */

/* False: refused, and said so. */
static bool take_positive(struct cache_call *call, struct bytes text, int64_t max, int64_t *value)
{
    if (bytes_to_int64(text, value) && *value > 0 && *value <= max) {
        return true;
    }
    resp_put_error(call->reply, "ERR value is not an integer or out of range");
    return false;
}

/* 30 days, as for max-ttl; 64 MiB, as for max-value. */
#define TIME_MAX_MS (INT64_C(30) * 86400 * 1000)
#define SIZE_MAX_BYTES ((int64_t)1 << 32)

/* One word and its value. False: refused, and said so. */
static bool take_option(struct cache_call *call, struct bytes word, struct bytes value,
                        struct ban_rule *rule, int64_t *ttl_ms)
{
    int64_t n;

    if ((is_word(word, "PREFIX") || is_word(word, "GLOB")) && rule->kind == BAN_ANY_NAME) {
        rule->kind = is_word(word, "PREFIX") ? BAN_PREFIX : BAN_GLOB;
        rule->name = value;
        return true;
    }
    if (is_word(word, "TAG") && rule->kind == BAN_ANY_NAME) {
        rule->kind = BAN_TAG;
        rule->name = value;
        return true;
    }
    if (is_word(word, "NAMESPACE")) {
        rule->ns = config_namespace_find(value);
        if (rule->ns < 0) {
            resp_put_error(call->reply, "ERR no such namespace");
        }
        return rule->ns >= 0;
    }
    if (is_word(word, "OLDER")) {
        return take_positive(call, value, TIME_MAX_MS, &rule->min_age_ms);
    }
    if (is_word(word, "TTL")) {
        return take_positive(call, value, TIME_MAX_MS, ttl_ms);
    }
    if (is_word(word, "LARGER") && take_positive(call, value, SIZE_MAX_BYTES, &n)) {
        rule->min_bytes = (size_t)n;
        return true;
    }
    if (!is_word(word, "LARGER")) {
        resp_put_error(call->reply, "ERR syntax error");
    }
    return false;
}

static void run_ban_add(struct cache_call *call)
{
    struct ban_rule rule = {.ns = -1};
    struct invalidation_answer answer;
    int64_t ttl_ms = 0;
    uint64_t id;
    char text[20];

    if (call->n_args % 2 == 0) {
        resp_put_error(call->reply, "ERR syntax error");
        return;
    }
    for (unsigned i = 1; i < call->n_args; i += 2) {
        if (!take_option(call, call->args[i], call->args[i + 1], &rule, &ttl_ms)) {
            return;
        }
    }
    if (rule.kind == BAN_ANY_NAME && rule.ns < 0 && rule.min_age_ms == 0 && rule.min_bytes == 0) {
        resp_put_error(call->reply,
                       "ERR a ban needs PREFIX, GLOB, TAG, NAMESPACE, OLDER or LARGER");
        return;
    }
    if (!invalidation_ban(fleet_of(call), &call->front->coherence, &rule, ttl_ms, &id, &answer)) {
        resp_put_error(call->reply, "ERR %s", answer.error);
        return;
    }
    snprintf(text, sizeof(text), "%016" PRIx64, id);
    resp_put_map(call->reply, 2);
    resp_put_string(call->reply, "id");
    resp_put_string(call->reply, text);
    put_pair(call->reply, "proxies", answer.n_proxies);
}

static void put_ban(struct resp_writer *reply, const struct ban_info *info, int64_t now_us)
{
    static const char *const kinds[] = {"", "prefix", "glob", "tag"};
    const struct ban_rule *rule = &info->rule;
    char id[20];

    snprintf(id, sizeof(id), "%016" PRIx64, info->id);
    resp_put_map(reply, 8);
    resp_put_string(reply, "id");
    resp_put_string(reply, id);
    resp_put_string(reply, "match");
    resp_put_string(reply, kinds[rule->kind]);
    resp_put_string(reply, "name");
    resp_put_bulk(reply, rule->name);
    resp_put_string(reply, "namespace");
    resp_put_string(reply, rule->ns < 0 ? "" : config_namespace_name((unsigned)rule->ns));
    put_pair(reply, "older-ms", (uint64_t)rule->min_age_ms);
    put_pair(reply, "larger-bytes", rule->min_bytes);
    put_pair(
        reply, "ttl-left-ms",
        info->expires_at_us == CACHE_NO_DEADLINE
            ? UINT64_MAX
            : (uint64_t)(info->expires_at_us > now_us ? (info->expires_at_us - now_us) / 1000 : 0));
    put_pair(reply, "matched", info->n_dropped);
}

static void run_ban_list(struct cache_call *call)
{
    const unsigned max = (unsigned)call->front->config->max_bans;
    struct ban_info *infos = mem_try_alloc(max * sizeof(*infos));
    unsigned n;

    if (infos == NULL) {
        resp_put_error(call->reply, "ERR nearcached: out of memory");
        return;
    }
    n = bans_list(call->front->proxy->cache, infos, max);
    resp_put_array(call->reply, n);
    for (unsigned i = 0; i < n; i++) {
        put_ban(call->reply, &infos[i], clock_now_us());
    }
    mem_free(infos);
}

/* 16 hexadecimal digits, as ADD and LIST write them. */
static bool parse_id(struct bytes text, uint64_t *id)
{
    char digits[17];
    char *end;

    if (text.len != 16) {
        return false;
    }
    memcpy(digits, text.ptr, 16);
    digits[16] = '\0';
    *id = strtoull(digits, &end, 16);
    return *end == '\0';
}

void cache_run_ban(struct cache_call *call)
{
    const struct bytes word = call->args[0];
    struct invalidation_answer answer;
    uint64_t id;

    if (is_word(word, "ADD")) {
        run_ban_add(call);
    } else if (is_word(word, "LIST") && call->n_args == 1) {
        run_ban_list(call);
    } else if (is_word(word, "REMOVE") && call->n_args == 2) {
        resp_put_integer(call->reply, parse_id(call->args[1], &id) &&
                                          invalidation_unban(fleet_of(call),
                                                             &call->front->coherence, id, &answer));
    } else {
        resp_put_error(call->reply, "ERR syntax error");
    }
}

/* ---- JOB ---- */

static const char *const kind_names[] = {"keys",      "prefix",     "glob",
                                         "namespace", "everything", "tag"};

static void put_job(struct resp_writer *reply, const struct unlink_info *info)
{
    resp_put_map(reply, 12);
    put_pair(reply, "id", info->id);
    resp_put_string(reply, "state");
    resp_put_string(reply, unlink_state_names[info->state]);
    resp_put_string(reply, "match");
    resp_put_string(reply, kind_names[info->kind]);
    resp_put_string(reply, "name");
    resp_put_bulk(reply, bytes_make(info->name, info->name_len));
    put_pair(reply, "db", info->db);
    put_pair(reply, "masters", info->n_masters);
    put_pair(reply, "masters-done", info->n_masters_done);
    put_pair(reply, "scanned", info->n_scanned);
    put_pair(reply, "removed", info->n_removed);
    put_pair(reply, "errors", info->n_errors);
    resp_put_string(reply, "error");
    resp_put_string(reply, info->error);
    put_pair(reply, "took-ms", (uint64_t)info->took_ms);
}

static void run_job_list(struct cache_call *call)
{
    struct unlink_jobs *jobs = fleet_of(call)->jobs;
    const unsigned max = UNLINK_KEPT + (unsigned)call->front->config->unlink_jobs;
    struct unlink_info *infos = mem_alloc(max * sizeof(*infos));
    const unsigned n = jobs != NULL ? unlink_jobs_list(jobs, infos, max) : 0;

    resp_put_array(call->reply, n);
    for (unsigned i = 0; i < n; i++) {
        put_job(call->reply, &infos[i]);
    }
    mem_free(infos);
}

void cache_run_job(struct cache_call *call)
{
    struct unlink_jobs *jobs = fleet_of(call)->jobs;
    const struct bytes word = call->args[0];
    int64_t id;

    if (is_word(word, "LIST") && call->n_args == 1) {
        run_job_list(call);
    } else if (is_word(word, "CANCEL") && call->n_args == 2) {
        resp_put_integer(call->reply, bytes_to_int64(call->args[1], &id) && jobs != NULL &&
                                          unlink_jobs_cancel(jobs, (uint64_t)id));
    } else {
        resp_put_error(call->reply, "ERR syntax error");
    }
}
