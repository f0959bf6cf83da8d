/*
 * All registries, one per kind and shard, are asked for due subjects in turn, each once in a
 * quarter of ledger-review. Several visits go on at a time:
 *
 *     poll      the registry's due subjects, a few
 *     page      the due members of one of them, a few; it will be due again in a while, so that
 *               other proxies leave it alone
 *     check     EXISTS for each, at the node that owns it
 *     settle    in one transaction: those that exist get another time, those that do not go
 *     ... until no member is due, then
 *     look      how many are left, and when the first is due
 *     put off   the subject is due then; or it leaves the registry
 *
 * Somebody may add a member while it is checked: it has another time then, so members go by the
 * time that they had when they were looked up. That cannot meet another member: those of the page
 * that exist have got theirs first, the rest of those with the same time is in the page too, and
 * new times lie a whole ledger-review ahead. (So far the clocks of the proxies may be apart.)
 *
 * A subject leaves the registry in two steps, so that a proxy that ends between them leaves nothing
 * behind: it is given a time that nobody else gives (below 0, so it is due), if it has no members
 * still; then what has exactly that time goes. Who adds a member changes the time. (Proxies of
 * older versions do not: so members are counted again, and the subject is put back if it has one.)
 *
 * A node that cannot be asked pauses its own registries only.
 */
#include "coherence/ledger_review.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "coherence/ledger_keys.h"
#include "resp/own.h"

#define VISIT_MAGIC 0x76697369u /* "visi" */
#define N_VISITS 8u
#define N_REGISTRIES (LEDGER_SHARDS * N_LEDGER_KINDS)
#define SUBJECTS_AT_ONCE 16
#define PAGE_MAX 100u
/* Members with one and the same time: as many as ledger_add() takes, and more. */
#define PAGE_LIMIT 10000u
#define PERIOD_MIN_MS 200
#define PERIOD_MAX_MS 300000
#define SCORE_MAX 32u

enum fate { FATE_UNKNOWN, FATE_STAYS, FATE_GOES };

struct visit_member {
    struct visit *visit;
    struct bytes name; /* in visit->names, as the ledger spells it */
    char score[SCORE_MAX];
    enum fate fate;
};

struct visit {
    uint32_t magic;
    struct ledger_review *review;
    bool is_busy, waits; /* waits: for the rate to allow the next page */
    unsigned registry;
    struct buffer subjects; /* bulk strings that are still to be visited */
    bool has_more;          /* of the registry */
    struct buffer subject;
    struct buffer names;
    struct visit_member *members;
    unsigned n_members, n_left, page;
    bool is_page_full;
    char claim[24]; /* the time that the subject was given to leave by */
};

struct ledger_review {
    struct coherence *home;
    struct errands *errands;
    struct visit visits[N_VISITS];
    unsigned next; /* registry */
    int64_t paused_until_us[N_REGISTRIES];
    int64_t budget, budgeted_at_us, next_at_us;
    bool is_stopped;
};

static const struct config *config_of(const struct visit *visit)
{
    return visit->review->home->config;
}

/* Each registry is asked once in this time. */
static int64_t period_ms(const struct config *config)
{
    const int64_t quarter = config->ledger_review_ms / 4;

    return quarter < PERIOD_MIN_MS ? PERIOD_MIN_MS
                                   : (quarter > PERIOD_MAX_MS ? PERIOD_MAX_MS : quarter);
}

/* ---- words ---- */

static enum ledger_kind kind_of(const struct visit *visit)
{
    return (enum ledger_kind)(visit->registry % N_LEDGER_KINDS);
}

static struct bytes key_of(const struct visit *visit, enum ledger_part part, unsigned char *room)
{
    return ledger_key(
        config_of(visit)->ledger_prefix, kind_of(visit), visit->registry / N_LEDGER_KINDS, part,
        part == LEDGER_MEMBERS ? buffer_bytes(&visit->subject) : (struct bytes){0}, room);
}

static bool put(struct buffer *out, const char *name, struct bytes *argv, unsigned argc)
{
    unsigned char room[OWN_NAME_MAX];

    argv[0] = own_spell(room, bytes_of_string(name));
    return resp_write_request(out, argv, argc) == 0;
}

static struct bytes digits_of(int64_t value, char *room)
{
    return bytes_make(room, bytes_from_int64(value, room));
}

static bool is_cluster(const struct visit *visit)
{
    const struct topology *topology = visit->review->home->backend->topology;

    return topology != NULL && topology->is_cluster;
}

/* ---- ends ---- */

static void give_up(struct visit *visit)
{
    visit->is_busy = visit->waits = false;
    buffer_fini(&visit->subjects);
    buffer_fini(&visit->subject);
    buffer_fini(&visit->names);
    buffer_init(&visit->subjects);
    buffer_init(&visit->subject);
    buffer_init(&visit->names);
    mem_free(visit->members);
    visit->members = NULL;
    visit->n_members = 0;
}

static unsigned slot_of(const struct visit *visit, unsigned registry)
{
    unsigned char room[LEDGER_KEY_EXTRA];

    return is_cluster(visit)
               ? command_key_slot(ledger_key(
                     config_of(visit)->ledger_prefix, (enum ledger_kind)(registry % N_LEDGER_KINDS),
                     registry / N_LEDGER_KINDS, LEDGER_SUBJECTS, (struct bytes){0}, room))
               : 0;
}

/* Who refuses once will refuse again: that node is left alone for a while, the others go on. */
static void fail(struct visit *visit, const char *error)
{
    struct ledger_review *review = visit->review;
    struct backend *backend = review->home->backend;

    stats_add(METRIC_ledger_review_failures, 1);
    if (!review->is_stopped) {
        const struct backend_node *node = backend_owner(backend, slot_of(visit, visit->registry));
        const int64_t until_us = clock_now_us() + period_ms(config_of(visit)) * 1000;

        log_debug("ledger", "review failed", "error=%s", log_quote(bytes_of_string(error)));
        for (unsigned i = 0; i < N_REGISTRIES; i++) {
            if (i == visit->registry || backend_owner(backend, slot_of(visit, i)) == node) {
                review->paused_until_us[i] = until_us;
            }
        }
    }
    give_up(visit);
}

/* requests are freed. Where nothing can be sent the visit ends. */
static void run(struct visit *visit, struct buffer *requests, bool is_good, unsigned n_replies,
                size_t stamp_at, errand_done_fn done)
{
    const struct errand_order order = {
        .slot = slot_of(visit, visit->registry),
        .db = visit->review->home->backend->login->db,
        .requests = buffer_bytes(requests),
        .n_replies = n_replies,
        .stamp_at = stamp_at,
        .done = done,
        .context = visit,
    };

    if (!is_good || visit->review->is_stopped || !errand_run(visit->review->errands, &order)) {
        fail(visit, "out of memory");
    }
    buffer_fini(requests);
}

/* ---- the subject's next time ---- */

static void next_subject(struct visit *visit);

static void on_put_off(void *context, const struct errand_answer *answer)
{
    struct visit *visit = OBJ_FROM(context, struct visit, VISIT_MAGIC);

    if (answer->error != NULL) {
        fail(visit, answer->error);
    } else {
        next_subject(visit);
    }
}

/* how: NX or XX. */
static bool put_time(struct visit *visit, struct buffer *requests, const char *how, int64_t at_ms)
{
    unsigned char room[LEDGER_KEY_EXTRA];
    char digits[24];
    struct bytes argv[5] = {{0},
                            key_of(visit, LEDGER_SUBJECTS, room),
                            bytes_of_string(how),
                            digits_of(at_ms, digits),
                            buffer_bytes(&visit->subject)};

    return put(requests, "ZADD", argv, 5);
}

static void put_off(struct visit *visit, const char *how, int64_t at_ms)
{
    struct buffer requests;

    buffer_init(&requests);
    const bool is_good = put_time(visit, &requests, how, at_ms);
    run(visit, &requests, is_good, 1, 0, on_put_off);
}

static size_t put_version(struct visit *visit, struct buffer *requests, bool *is_good);

/* Whoever read the registry meanwhile lacks it: the version tells that to read again. */
static void put_back(struct visit *visit)
{
    struct bytes argv[1];
    struct buffer requests;

    buffer_init(&requests);
    bool is_good = put(&requests, "MULTI", argv, 1) &&
                   put_time(visit, &requests, "NX", clock_unix_ms());
    const size_t stamp_at = put_version(visit, &requests, &is_good);
    is_good = is_good && put(&requests, "EXEC", argv, 1);
    run(visit, &requests, is_good, 4, stamp_at, on_put_off);
}

/* Of MULTI, two commands, EXEC: what the two have said. */
static bool read_pair(struct bytes replies, struct resp_value *first, struct resp_value *second)
{
    struct resp_value exec;

    return resp_skip(&replies) && resp_skip(&replies) && resp_skip(&replies) &&
           resp_next(&replies, &exec) && resp_next(&replies, first) &&
           resp_next(&replies, second) && first->type != '-' && second->type != '-';
}

/* In one transaction: `first` of argc words, and how many members the subject has. */
static void run_with_count(struct visit *visit, const char *first, struct bytes *argv,
                           unsigned argc, errand_done_fn done)
{
    unsigned char *room = mem_try_alloc(LEDGER_KEY_EXTRA + buffer_len(&visit->subject));
    struct bytes words[2];
    struct buffer requests;
    bool is_good = room != NULL;

    buffer_init(&requests);
    if (is_good) {
        is_good = put(&requests, "MULTI", words, 1) && put(&requests, first, argv, argc);
        words[1] = key_of(visit, LEDGER_MEMBERS, room);
        is_good = is_good && put(&requests, "ZCARD", words, 2) && put(&requests, "EXEC", words, 1);
    }
    run(visit, &requests, is_good, 4, 0, done);
    mem_free(room);
}

static void on_left(void *context, const struct errand_answer *answer)
{
    struct visit *visit = OBJ_FROM(context, struct visit, VISIT_MAGIC);
    struct resp_value removed, left;

    if (answer->error != NULL) {
        fail(visit, answer->error);
    } else if (!read_pair(answer->replies, &removed, &left)) {
        fail(visit, "not understood");
    } else if (bytes_equal(left.text, BYTES("0")) || bytes_equal(removed.text, BYTES("0"))) {
        next_subject(visit);
    } else {
        put_back(visit);
    }
}

static void look(struct visit *visit);

static void on_claimed(void *context, const struct errand_answer *answer)
{
    struct visit *visit = OBJ_FROM(context, struct visit, VISIT_MAGIC);
    unsigned char room[LEDGER_KEY_EXTRA];
    const struct bytes claim = bytes_of_string(visit->claim);
    struct resp_value changed, left;

    if (answer->error != NULL) {
        fail(visit, answer->error);
    } else if (!read_pair(answer->replies, &changed, &left)) {
        fail(visit, "not understood");
    } else if (!bytes_equal(left.text, BYTES("0"))) {
        look(visit); /* it has got members since */
    } else {
        struct bytes argv[4] = {{0}, key_of(visit, LEDGER_SUBJECTS, room), claim, claim};

        run_with_count(visit, "ZREMRANGEBYSCORE", argv, 4, on_left);
    }
}

static void leave(struct visit *visit)
{
    unsigned char room[LEDGER_KEY_EXTRA];
    uint64_t random = 0;

    if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random)) {
        random = (uint64_t)clock_unix_us();
    }
    /* 40 bits: a step of 1/1024 still makes another number of it. */
    snprintf(visit->claim, sizeof(visit->claim), "-%" PRIu64, (random >> 24) + 1);
    struct bytes argv[5] = {{0},
                            key_of(visit, LEDGER_SUBJECTS, room),
                            BYTES("XX"),
                            bytes_of_string(visit->claim),
                            buffer_bytes(&visit->subject)};
    run_with_count(visit, "ZADD", argv, 5, on_claimed);
}

/* [member, score], or nothing. */
static void on_looked(void *context, const struct errand_answer *answer)
{
    struct visit *visit = OBJ_FROM(context, struct visit, VISIT_MAGIC);
    const int64_t now_ms = clock_unix_ms(), review_ms = config_of(visit)->ledger_review_ms;
    struct bytes replies = answer->replies;
    struct resp_value head, name, score;
    int64_t at_ms = now_ms + review_ms;

    if (answer->error != NULL) {
        fail(visit, answer->error);
        return;
    }
    if (!resp_next(&replies, &head) || head.type != '*') {
        fail(visit, "not understood");
        return;
    }
    if (head.n_children == 0) {
        leave(visit);
        return;
    }
    if (resp_next(&replies, &name) && resp_next(&replies, &score)) {
        const unsigned char *dot = memchr(score.text.ptr, '.', score.text.len);
        const size_t length = dot != NULL ? (size_t)(dot - score.text.ptr) : score.text.len;
        int64_t first_ms;

        if (bytes_to_int64(bytes_make(score.text.ptr, length), &first_ms) && first_ms < at_ms) {
            at_ms = first_ms + 1;
        }
    }
    /* What could not be asked now is due already. */
    if (at_ms < now_ms + PERIOD_MIN_MS / 2) {
        at_ms = now_ms + PERIOD_MIN_MS / 2;
    }
    put_off(visit, "XX", at_ms);
}

static void look(struct visit *visit)
{
    unsigned char *room = mem_try_alloc(LEDGER_KEY_EXTRA + buffer_len(&visit->subject));
    struct bytes argv[5] = {{0}, {0}, BYTES("0"), BYTES("0"), BYTES("WITHSCORES")};
    struct buffer requests;
    bool is_good = room != NULL;

    buffer_init(&requests);
    if (is_good) {
        argv[1] = key_of(visit, LEDGER_MEMBERS, room);
        is_good = put(&requests, "ZRANGE", argv, 5);
    }
    run(visit, &requests, is_good, 1, 0, on_looked);
    mem_free(room);
}

/* ---- settling ---- */

static void send_page(struct visit *visit);

static void on_settled(void *context, const struct errand_answer *answer)
{
    struct visit *visit = OBJ_FROM(context, struct visit, VISIT_MAGIC);

    if (answer->error != NULL) {
        fail(visit, answer->error);
    } else if (visit->is_page_full) {
        send_page(visit);
    } else {
        look(visit);
    }
}

/* A member that nobody knows about keeps those with the same time from going. */
static bool may_go(const struct visit *visit, unsigned which)
{
    const struct visit_member *member = &visit->members[which];

    if (member->fate != FATE_GOES) {
        return false;
    }
    /* In the order of their times. */
    for (unsigned i = which + 1;
         i < visit->n_members && strcmp(visit->members[i].score, member->score) == 0; i++) {
        if (visit->members[i].fate == FATE_UNKNOWN) {
            return false;
        }
    }
    for (unsigned i = which; i > 0 && strcmp(visit->members[i - 1].score, member->score) == 0;
         i--) {
        if (visit->members[i - 1].fate == FATE_UNKNOWN) {
            return false;
        }
    }
    return true;
}

/* Returns how many requests it put; is_good as ever. */
static unsigned put_fates(struct visit *visit, struct buffer *requests, struct bytes key,
                          bool *is_good, unsigned *n_gone)
{
    char digits[24];
    const struct bytes later = digits_of(clock_unix_ms() + config_of(visit)->ledger_review_ms,
                                         digits);
    unsigned n = 0;

    for (unsigned i = 0; i < visit->n_members && *is_good; i++) {
        if (visit->members[i].fate == FATE_STAYS) {
            struct bytes argv[5] = {{0}, key, BYTES("XX"), later, visit->members[i].name};

            *is_good = put(requests, "ZADD", argv, 5);
            n++;
        }
    }
    for (unsigned i = 0; i < visit->n_members && *is_good; i++) {
        if (may_go(visit, i)) {
            const struct bytes score = bytes_of_string(visit->members[i].score);
            struct bytes argv[4] = {{0}, key, score, score};

            *is_good = put(requests, "ZREMRANGEBYSCORE", argv, 4);
            n++;
            (*n_gone)++;
        }
    }
    return n;
}

static size_t put_version(struct visit *visit, struct buffer *requests, bool *is_good)
{
    unsigned char room[LEDGER_KEY_EXTRA], stamp[ERRAND_STAMP];
    struct bytes argv[3] = {
        {0}, key_of(visit, LEDGER_VERSION, room), bytes_make(stamp, ERRAND_STAMP)};

    memset(stamp, '0', sizeof(stamp));
    *is_good = *is_good && put(requests, "SET", argv, 3);
    return *is_good ? buffer_len(requests) - ERRAND_STAMP - 2 : 0;
}

static void settle(struct visit *visit)
{
    unsigned char *room = mem_try_alloc(LEDGER_KEY_EXTRA + buffer_len(&visit->subject));
    struct bytes argv[1];
    struct buffer requests;
    bool is_good = room != NULL;
    unsigned n = 0, n_gone = 0;
    size_t stamp_at = 0;

    buffer_init(&requests);
    if (is_good) {
        is_good = put(&requests, "MULTI", argv, 1);
        n = put_fates(visit, &requests, key_of(visit, LEDGER_MEMBERS, room), &is_good, &n_gone);
        if (n_gone > 0) {
            stamp_at = put_version(visit, &requests, &is_good);
            n++;
        }
        is_good = is_good && put(&requests, "EXEC", argv, 1);
    }
    mem_free(room);
    for (unsigned i = 0; i < visit->n_members; i++) {
        if (visit->members[i].fate == FATE_UNKNOWN) {
            visit->is_page_full = false; /* they would be in the next page again */
        }
    }
    stats_add(METRIC_ledger_reviewed, visit->n_members);
    stats_add(METRIC_ledger_expired, n_gone);
    if (is_good && n == 0) {
        buffer_fini(&requests);
        look(visit);
        return;
    }
    run(visit, &requests, is_good, n + 2, stamp_at, on_settled);
}

/* ---- checking ---- */

static void on_exists(void *context, const struct errand_answer *answer)
{
    struct visit_member *member = context;
    struct visit *visit = member->visit;
    struct bytes replies = answer->replies;
    struct resp_value value;

    if (answer->error == NULL && resp_next(&replies, &value) && value.type == ':') {
        member->fate = bytes_equal(value.text, BYTES("0")) ? FATE_GOES : FATE_STAYS;
    } else {
        stats_add(METRIC_ledger_review_failures, 1);
    }
    if (--visit->n_left == 0) {
        settle(visit);
    }
}

static void ask_for(struct visit_member *member)
{
    struct visit *visit = member->visit;
    struct ledger_member key;
    struct bytes argv[2];
    struct buffer request;

    buffer_init(&request);
    if (!ledger_member_read(member->name, &key)) {
        member->fate = FATE_GOES; /* nobody's */
    } else {
        argv[1] = key.key;
        if (put(&request, "EXISTS", argv, 2)) {
            const struct errand_order order = {
                .slot = is_cluster(visit) ? command_key_slot(key.key) : 0,
                .db = is_cluster(visit) ? 0 : key.db,
                .requests = buffer_bytes(&request),
                .n_replies = 1,
                .done = on_exists,
                .context = member,
            };
            visit->n_left += errand_run(visit->review->errands, &order);
        }
    }
    buffer_fini(&request);
}

static void check(struct visit *visit)
{
    /* One more, so that the last answer cannot be the last before all are asked. */
    visit->n_left = 1;
    for (unsigned i = 0; i < visit->n_members; i++) {
        ask_for(&visit->members[i]);
    }
    if (--visit->n_left == 0) {
        settle(visit);
    }
}

/* ---- pages ---- */

/* The names are copied: a buffer that grows moves, so they are pointed at in the end. */
static bool take_members(struct visit *visit, struct bytes replies, size_t n)
{
    struct resp_value name, score;
    size_t at = 0;

    mem_free(visit->members);
    visit->n_members = 0;
    visit->members = mem_try_alloc(n * sizeof(*visit->members));
    buffer_consume(&visit->names, buffer_len(&visit->names));
    if (visit->members == NULL) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        struct visit_member *member = &visit->members[i];

        if (!resp_next(&replies, &name) || !resp_next(&replies, &score) ||
            score.text.len >= SCORE_MAX || buffer_append(&visit->names, name.text) != 0) {
            return false;
        }
        *member = (struct visit_member){.visit = visit, .name = {NULL, name.text.len}};
        memcpy(member->score, score.text.ptr, score.text.len);
    }
    for (size_t i = 0; i < n; i++) {
        visit->members[i].name.ptr = buffer_bytes(&visit->names).ptr + at;
        at += visit->members[i].name.len;
    }
    visit->n_members = (unsigned)n;
    return true;
}

/* Of a full page, the members with the last time may not be all of them. */
static void cut_page(struct visit *visit)
{
    const char *last = visit->members[visit->n_members - 1].score;
    unsigned n = visit->n_members;

    while (n > 0 && strcmp(visit->members[n - 1].score, last) == 0) {
        n--;
    }
    if (n > 0) {
        visit->n_members = n;
    } else if (visit->page < PAGE_LIMIT) {
        visit->page *= 4;
        visit->n_members = 0;
    }
}

static void on_page(void *context, const struct errand_answer *answer)
{
    struct visit *visit = OBJ_FROM(context, struct visit, VISIT_MAGIC);
    struct bytes replies = answer->replies;
    struct resp_value placed, head;

    if (answer->error != NULL) {
        fail(visit, answer->error);
        return;
    }
    if (!resp_next(&replies, &placed) || !resp_next(&replies, &head) || head.type != '*') {
        fail(visit, "not understood");
        return;
    }
    const size_t n = head.n_children / 2;
    if (n == 0) {
        look(visit);
        return;
    }
    if (!take_members(visit, replies, n)) {
        fail(visit, "out of memory");
        return;
    }
    visit->is_page_full = n >= visit->page;
    if (visit->is_page_full) {
        cut_page(visit);
    }
    visit->review->budget -= visit->n_members;
    if (visit->n_members == 0) {
        send_page(visit);
    } else {
        check(visit);
    }
}

static void send_page(struct visit *visit)
{
    unsigned char *room;
    char now[24], count[24];
    struct bytes argv[8] = {{0},       {0}, BYTES("-inf"), {0}, BYTES("WITHSCORES"), BYTES("LIMIT"),
                            BYTES("0")};
    struct buffer requests;
    bool is_good;

    if (visit->review->budget <= 0) {
        visit->waits = true;
        return;
    }
    room = mem_try_alloc(LEDGER_KEY_EXTRA + buffer_len(&visit->subject));
    is_good = room != NULL;
    buffer_init(&requests);
    if (is_good) {
        argv[1] = key_of(visit, LEDGER_MEMBERS, room);
        argv[3] = digits_of(clock_unix_ms(), now);
        argv[7] = digits_of(visit->page, count);
        is_good = put_time(visit, &requests, "XX", clock_unix_ms() + period_ms(config_of(visit))) &&
                  put(&requests, "ZRANGEBYSCORE", argv, 8);
    }
    run(visit, &requests, is_good, 2, 0, on_page);
    mem_free(room);
}

/* ---- registries ---- */

static void poll_registry(struct visit *visit);

static void next_subject(struct visit *visit)
{
    struct bytes at = buffer_bytes(&visit->subjects);
    struct resp_value name;
    const size_t before = at.len;

    if (!resp_next(&at, &name)) {
        if (visit->has_more) {
            poll_registry(visit);
        } else {
            give_up(visit);
        }
        return;
    }
    buffer_consume(&visit->subject, buffer_len(&visit->subject));
    if (buffer_append(&visit->subject, name.text) != 0) {
        fail(visit, "out of memory");
        return;
    }
    buffer_consume(&visit->subjects, before - at.len);
    visit->page = PAGE_MAX;
    send_page(visit);
}

static void on_polled(void *context, const struct errand_answer *answer)
{
    struct visit *visit = OBJ_FROM(context, struct visit, VISIT_MAGIC);
    struct bytes replies = answer->replies;
    struct resp_value head;

    if (answer->error != NULL) {
        fail(visit, answer->error);
    } else if (!resp_next(&replies, &head) || head.type != '*') {
        fail(visit, "not understood");
    } else if (buffer_append(&visit->subjects, replies) != 0) {
        fail(visit, "out of memory");
    } else {
        visit->has_more = head.n_children == SUBJECTS_AT_ONCE;
        next_subject(visit);
    }
}

static void poll_registry(struct visit *visit)
{
    unsigned char room[LEDGER_KEY_EXTRA];
    char now[24], count[24];
    struct bytes argv[7] = {{0},
                            key_of(visit, LEDGER_SUBJECTS, room),
                            BYTES("-inf"),
                            digits_of(clock_unix_ms(), now),
                            BYTES("LIMIT"),
                            BYTES("0"),
                            digits_of(SUBJECTS_AT_ONCE, count)};
    struct buffer requests;

    buffer_init(&requests);
    const bool is_good = put(&requests, "ZRANGEBYSCORE", argv, 7);
    run(visit, &requests, is_good, 1, 0, on_polled);
}

/* ---- time ---- */

static void fill_budget(struct ledger_review *review, int64_t now_us)
{
    const int64_t rate = review->home->config->ledger_review_rate;
    int64_t passed_us = now_us - review->budgeted_at_us;

    passed_us = passed_us > 1000000 ? 1000000 : passed_us;
    if (rate * passed_us / 1000000 > 0) {
        review->budget += rate * passed_us / 1000000;
        review->budgeted_at_us = now_us;
    }
    review->budget = review->budget > rate ? rate : review->budget;
}

void ledger_review_tick(struct ledger_review *review, int64_t now_us)
{
    const int64_t step_us = period_ms(review->home->config) * 1000 / N_REGISTRIES;

    if (review->is_stopped || review->home->backend->topology == NULL) {
        return;
    }
    fill_budget(review, now_us);
    for (unsigned i = 0; i < N_VISITS; i++) {
        struct visit *visit = &review->visits[i];

        if (visit->waits && review->budget > 0) {
            visit->waits = false;
            send_page(visit);
        } else if (!visit->is_busy && now_us >= review->next_at_us) {
            /* Not faster because it was late, or much was due. */
            review->next_at_us += step_us;
            if (review->next_at_us < now_us - 100000) {
                review->next_at_us = now_us;
            }
            visit->is_busy = true;
            visit->registry = review->next;
            review->next = (review->next + 1) % N_REGISTRIES;
            /* What is subscribed to events may be no key yet, or a pattern of keys: it stays. */
            if (kind_of(visit) == LEDGER_EVENT ||
                now_us < review->paused_until_us[visit->registry]) {
                visit->is_busy = false;
            } else {
                poll_registry(visit);
            }
        }
    }
}

struct ledger_review *ledger_review_new(struct coherence *home, struct errands *errands)
{
    struct ledger_review *review = mem_alloc(sizeof(*review));

    review->home = home;
    review->errands = errands;
    /* Proxies that were started together do not go hand in hand. */
    review->next = (unsigned)((uint64_t)clock_unix_us() % N_REGISTRIES);
    review->next_at_us = clock_now_us();
    for (unsigned i = 0; i < N_VISITS; i++) {
        review->visits[i].magic = VISIT_MAGIC;
        review->visits[i].review = review;
        buffer_init(&review->visits[i].subjects);
        buffer_init(&review->visits[i].subject);
        buffer_init(&review->visits[i].names);
    }
    return review;
}

void ledger_review_stop(struct ledger_review *review)
{
    if (review != NULL) {
        review->is_stopped = true;
    }
}

void ledger_review_free(struct ledger_review **review)
{
    if (*review == NULL) {
        return;
    }
    for (unsigned i = 0; i < N_VISITS; i++) {
        give_up(&(*review)->visits[i]);
    }
    mem_free(*review);
    *review = NULL;
}
