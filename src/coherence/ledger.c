/*
 * Every operation is one errand, or one after the other. A change is MULTI and EXEC around plain
 * commands, as scripts may be forbidden: the subject's place in the registry, the members, the
 * place once more, the version. All three keys are in one slot.
 *
 * While that slot moves they are at two nodes for a time, which may be long, and no transaction
 * succeeds. Then the same commands go one by one, each where its key is. Their order is such that
 * whoever reads in between finds at worst a subject without members, and that a change which ends
 * half-way leaves no member that no review finds. Only then the version tells of it.
 *
 * The place once more is the smallest step ahead: so the reviewer that is about to take the subject
 * out, as it had no members, sees that it is another one by now (ledger_review.c).
 *
 * A walk over members is ZSCAN, which hands out all that stays in the set; but a cursor means
 * nothing to another server (a replica that became the master, or one that was started again), so
 * a walk begins anew when it is not the same connection that answers.
 */
#include "coherence/ledger.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/mem.h"
#include "coherence/errand.h"
#include "coherence/ledger_keys.h"
#include "coherence/ledger_review.h"
#include "resp/own.h"

#define OPERATION_MAGIC 0x6c656467u /* "ledg" */
#define RESTARTS_MAX 8u
/* Of names in one page, as far as ledger-batch allows. */
#define PAGE_BYTES (ERRAND_REPLIES_MAX / 4)
/* Arguments of one request besides the members. */
#define ARGS_EXTRA 4u

struct ledger {
    struct coherence *home;
    struct errands *errands;
    struct ledger_review *review; /* of the first worker; else NULL */
    unsigned n_operations;
    bool is_stopped;
};

enum operation_type { OPERATION_CHANGE, OPERATION_WALK, OPERATION_ASK };

struct operation {
    uint32_t magic;
    enum operation_type type;
    struct ledger *ledger;
    enum ledger_kind kind;
    unsigned shard;
    ledger_done_fn done;
    void *context;
    struct ledger_answer answer;
    /* OPERATION_CHANGE */
    struct buffer requests;
    size_t stamp_at;
    unsigned n_members;
    bool is_add, is_counted;
    bool is_plain;            /* without MULTI and EXEC */
    size_t body_at, body_end; /* of requests: what is between them */
    /* OPERATION_WALK */
    ledger_members_fn on_members;
    ledger_subject_fn on_subject;
    uint64_t max;
    int db; /* -1: any */
    bool is_subjects;
    unsigned n_restarts;
    struct errand_source source;
    char cursor[24];
    size_t subject_len;
    unsigned char subject[];
};

/* ---- words of requests ---- */

/* The name as the proxy spells its own; false: no memory. */
static bool put_request(struct buffer *out, const char *name, struct bytes *argv, unsigned argc)
{
    unsigned char room[OWN_NAME_MAX];

    argv[0] = own_spell(room, bytes_of_string(name));
    return resp_write_request(out, argv, argc) == 0;
}

static struct bytes key_of(const struct operation *operation, enum ledger_part part,
                           unsigned char *room)
{
    const struct bytes subject = part == LEDGER_MEMBERS
                                     ? bytes_make(operation->subject, operation->subject_len)
                                     : (struct bytes){0};

    return ledger_key(operation->ledger->home->config->ledger_prefix, operation->kind,
                      operation->shard, part, subject, room);
}

static unsigned slot_of(const struct operation *operation)
{
    const struct topology *topology = operation->ledger->home->backend->topology;
    unsigned char room[LEDGER_KEY_EXTRA];

    return topology != NULL && topology->is_cluster
               ? command_key_slot(key_of(operation, LEDGER_SUBJECTS, room))
               : 0;
}

static bool run(struct operation *operation, struct bytes requests, unsigned n_replies,
                size_t stamp_at, errand_done_fn done)
{
    const struct errand_order order = {
        .slot = slot_of(operation),
        .db = operation->ledger->home->backend->login->db,
        .requests = requests,
        .n_replies = n_replies,
        .stamp_at = stamp_at,
        .ends_apart = operation->type == OPERATION_CHANGE && !operation->is_plain,
        .done = done,
        .context = operation,
    };

    return errand_run(operation->ledger->errands, &order);
}

/* ---- beginning and ending ---- */

static const char *fault_of(const struct ledger *ledger, struct bytes name)
{
    const struct config *config = ledger->home->config;

    if (ledger->is_stopped) {
        return "the proxy is stopping";
    }
    if (name.len == 0) {
        return "a name is empty";
    }
    if (name.len > config->ledger_name_limit) {
        return "a name is longer than ledger-name-limit";
    }
    if (ledger->n_operations >= (unsigned)config->ledger_operations) {
        return "as many operations as ledger-operations allows are under way";
    }
    return NULL;
}

static struct operation *operation_new(struct ledger *ledger, enum operation_type type,
                                       enum ledger_kind kind, struct bytes subject)
{
    struct operation *operation = mem_try_alloc(sizeof(*operation) + subject.len);

    if (operation == NULL) {
        return NULL;
    }
    memset(operation, 0, sizeof(*operation));
    operation->magic = OPERATION_MAGIC;
    operation->type = type;
    operation->ledger = ledger;
    operation->kind = kind;
    operation->shard = ledger_shard(kind, subject);
    operation->subject_len = subject.len;
    if (subject.len > 0) {
        memcpy(operation->subject, subject.ptr, subject.len);
    }
    buffer_init(&operation->requests);
    ledger->n_operations++;
    atomic_fetch_add_explicit(&ledger->home->fleet->n_ledger_operations, 1, memory_order_relaxed);
    return operation;
}

static void operation_free(struct operation *operation)
{
    struct ledger *ledger = operation->ledger;

    ledger->n_operations--;
    atomic_fetch_sub_explicit(&ledger->home->fleet->n_ledger_operations, 1, memory_order_relaxed);
    buffer_fini(&operation->requests);
    mem_free(operation);
}

static void finish(struct operation *operation, const char *error)
{
    operation->answer.error = error;
    stats_add(error == NULL ? METRIC_ledger_done : METRIC_ledger_failed, 1);
    operation->done(operation->context, &operation->answer);
    operation_free(operation);
}

static const char *refuse(const char *why)
{
    stats_add(METRIC_ledger_refused, 1);
    return why;
}

#define NO_MEMORY "out of memory"
#define NOT_UNDERSTOOD "the backend's answer is not understood"

static void take_version(struct operation *operation, struct bytes text)
{
    struct ledger_version *version = &operation->answer.version;

    version->length = (uint8_t)(text.len > sizeof(version->text) ? sizeof(version->text)
                                                                 : text.len);
    if (version->length > 0) {
        memcpy(version->text, text.ptr, version->length);
    }
}

/* ---- changes ---- */

/* Between MULTI and EXEC. */
static unsigned body_length(const struct operation *operation)
{
    return operation->is_add ? 4 : 2;
}

/* The number that the command about members says, behind the subject's if it is added. NULL: done.
 */
static const char *read_change(const struct operation *operation, struct bytes replies, uint64_t *n)
{
    const unsigned n_replies = body_length(operation);
    struct resp_value value;
    int64_t number;

    for (unsigned i = 0; i < n_replies + 1 && !operation->is_plain; i++) {
        if (!resp_skip(&replies)) {
            return NOT_UNDERSTOOD;
        }
    }
    if (!operation->is_plain && (!resp_next(&replies, &value) || value.type != '*' ||
                                 value.is_null || value.n_children != n_replies)) {
        return NOT_UNDERSTOOD;
    }
    for (unsigned i = 0; i < n_replies; i++) {
        if (!resp_next(&replies, &value)) {
            return NOT_UNDERSTOOD;
        }
        if (value.type == '-') {
            return "a key of the ledger at the backend is not the ledger's (see ledger-prefix)";
        }
        if (i == operation->is_add && bytes_to_int64(value.text, &number)) {
            *n = (uint64_t)number;
        }
    }
    return NULL;
}

static void send_change(struct operation *operation);

static void on_changed(void *context, const struct errand_answer *answer)
{
    struct operation *operation = OBJ_FROM(context, struct operation, OPERATION_MAGIC);
    const char *error = answer->error;

    if (error != NULL && !operation->is_plain && strncmp(error, "TRYAGAIN", 8) == 0) {
        operation->is_plain = true;
        stats_add(METRIC_ledger_apart, 1);
        send_change(operation);
        return;
    }
    if (error == NULL) {
        error = read_change(operation, answer->replies, &operation->answer.n);
        take_version(operation, answer->stamp);
    }
    finish(operation, error);
}

/* False: no memory. */
static bool try_change(struct operation *operation)
{
    const struct bytes all = buffer_bytes(&operation->requests);
    const unsigned n = body_length(operation);

    return operation->is_plain ? run(operation,
                                     bytes_make(all.ptr + operation->body_at,
                                                operation->body_end - operation->body_at),
                                     n, operation->stamp_at - operation->body_at, on_changed)
                               : run(operation, all, n + 2, operation->stamp_at, on_changed);
}

static void send_change(struct operation *operation)
{
    if (!try_change(operation)) {
        finish(operation, NO_MEMORY);
    }
}

/* More may be added at the same time elsewhere: the limit is exact but for what is under way. */
static void on_counted(void *context, const struct errand_answer *answer)
{
    struct operation *operation = OBJ_FROM(context, struct operation, OPERATION_MAGIC);
    const int64_t max = operation->ledger->home->config->ledger_members;
    struct bytes replies = answer->replies;
    struct resp_value value;
    int64_t n;

    if (answer->error != NULL) {
        finish(operation, answer->error);
    } else if (!resp_next(&replies, &value) || !bytes_to_int64(value.text, &n)) {
        finish(operation, NOT_UNDERSTOOD);
    } else if (n + operation->n_members > max) {
        finish(operation, "it has as many members as ledger-members allows");
    } else {
        send_change(operation);
    }
}

static bool send_count(struct operation *operation)
{
    unsigned char room[LEDGER_KEY_EXTRA + (16 << 10)];
    struct bytes argv[2] = {{0}, key_of(operation, LEDGER_MEMBERS, room)};
    struct buffer request;
    bool is_good;

    buffer_init(&request);
    is_good = put_request(&request, "ZCARD", argv, 2) &&
              run(operation, buffer_bytes(&request), 1, 0, on_counted);
    buffer_fini(&request);
    return is_good;
}

/* ZADD key score member ..., or ZREM key member ... */
static bool put_members(struct operation *operation, const struct ledger_member *members,
                        unsigned n, struct bytes score, struct bytes key)
{
    const unsigned step = operation->is_add ? 2 : 1;
    struct bytes *argv = mem_try_alloc((ARGS_EXTRA + 2 * (size_t)n) * sizeof(*argv));
    size_t room_bytes = 1;
    unsigned char *room;
    bool is_good;

    for (unsigned i = 0; i < n; i++) {
        room_bytes += LEDGER_MEMBER_EXTRA + members[i].key.len;
    }
    room = mem_try_alloc(room_bytes);
    is_good = argv != NULL && room != NULL;
    if (is_good) {
        unsigned char *at = room;

        argv[1] = key;
        for (unsigned i = 0; i < n; i++) {
            argv[2 + i * step] = score;
            argv[1 + step + i * step] = ledger_member_write(&members[i], at);
            at += argv[1 + step + i * step].len;
        }
        is_good = put_request(&operation->requests, operation->is_add ? "ZADD" : "ZREM", argv,
                              2 + n * step);
    }
    mem_free(argv);
    mem_free(room);
    return is_good;
}

/* The subject keeps the place in the registry that it has: its members are looked at in time. */
static bool put_subject(struct operation *operation, struct bytes score)
{
    unsigned char room[LEDGER_KEY_EXTRA];
    struct bytes argv[5] = {{0},
                            key_of(operation, LEDGER_SUBJECTS, room),
                            BYTES("NX"),
                            score,
                            bytes_make(operation->subject, operation->subject_len)};

    return put_request(&operation->requests, "ZADD", argv, 5);
}

/* 1/1024 ms: exact beside any time there is. */
static bool put_step(struct operation *operation)
{
    unsigned char room[LEDGER_KEY_EXTRA];
    struct bytes argv[5] = {{0},
                            key_of(operation, LEDGER_SUBJECTS, room),
                            BYTES("INCR"),
                            BYTES("0.0009765625"),
                            bytes_make(operation->subject, operation->subject_len)};

    return put_request(&operation->requests, "ZADD", argv, 5);
}

static bool put_version(struct operation *operation)
{
    unsigned char room[LEDGER_KEY_EXTRA], stamp[ERRAND_STAMP];
    struct bytes argv[3] = {
        {0}, key_of(operation, LEDGER_VERSION, room), bytes_make(stamp, ERRAND_STAMP)};

    memset(stamp, '0', sizeof(stamp));
    if (!put_request(&operation->requests, "SET", argv, 3)) {
        return false;
    }
    operation->stamp_at = buffer_len(&operation->requests) - ERRAND_STAMP - 2;
    return true;
}

/* Milliseconds, and a fraction that tells apart what is added at the same time. */
static struct bytes score_now(const struct ledger *ledger, char digits[32])
{
    const int length = snprintf(digits, 32, "%" PRId64 ".%03u",
                                clock_unix_ms() + ledger->home->config->ledger_review_ms,
                                (unsigned)((uint64_t)clock_now_us() * 7 % 1000));

    return bytes_make(digits, (size_t)length);
}

static bool put_change(struct operation *operation, const struct ledger_member *members, unsigned n)
{
    unsigned char *room = mem_try_alloc(LEDGER_KEY_EXTRA + operation->subject_len);
    char digits[32];
    struct bytes argv[1], score;
    bool is_good;

    if (room == NULL) {
        return false;
    }
    score = score_now(operation->ledger, digits);
    is_good = put_request(&operation->requests, "MULTI", argv, 1);
    operation->body_at = buffer_len(&operation->requests);
    is_good = is_good && (!operation->is_add || put_subject(operation, score)) &&
              put_members(operation, members, n, score, key_of(operation, LEDGER_MEMBERS, room)) &&
              (!operation->is_add || put_step(operation)) && put_version(operation);
    operation->body_end = buffer_len(&operation->requests);
    is_good = is_good && put_request(&operation->requests, "EXEC", argv, 1);
    mem_free(room);
    return is_good;
}

static const char *change(struct ledger *ledger, enum ledger_kind kind, struct bytes subject,
                          const struct ledger_member *members, unsigned n, ledger_done_fn done,
                          void *context, bool is_add)
{
    const char *fault = fault_of(ledger, subject);
    struct operation *operation;

    for (unsigned i = 0; fault == NULL && i < n; i++) {
        fault = fault_of(ledger, members[i].key);
    }
    if (fault == NULL && (n == 0 || n > LEDGER_ADD_MAX)) {
        fault = "more than 1000 members at a time, or none";
    }
    if (fault != NULL) {
        return refuse(fault);
    }
    operation = operation_new(ledger, OPERATION_CHANGE, kind, subject);
    if (operation == NULL) {
        return refuse(NO_MEMORY);
    }
    operation->done = done;
    operation->context = context;
    operation->is_add = is_add;
    operation->n_members = n;
    if (!put_change(operation, members, n) ||
        !(is_add ? send_count(operation) : try_change(operation))) {
        operation_free(operation);
        return refuse(NO_MEMORY);
    }
    return NULL;
}

const char *ledger_add(struct ledger *ledger, enum ledger_kind kind, struct bytes subject,
                       const struct ledger_member *members, unsigned n, ledger_done_fn done,
                       void *context)
{
    return change(ledger, kind, subject, members, n, done, context, true);
}

const char *ledger_remove(struct ledger *ledger, enum ledger_kind kind, struct bytes subject,
                          const struct ledger_member *members, unsigned n, ledger_done_fn done,
                          void *context)
{
    return change(ledger, kind, subject, members, n, done, context, false);
}

/* ---- walks ---- */

static void on_page(void *context, const struct errand_answer *answer);

static bool send_page(struct operation *operation)
{
    const enum ledger_part part = operation->is_subjects ? LEDGER_SUBJECTS : LEDGER_MEMBERS;
    unsigned char *room = mem_try_alloc(LEDGER_KEY_EXTRA + operation->subject_len);
    unsigned char version_room[LEDGER_KEY_EXTRA];
    char digits[24];
    const struct config *config = operation->ledger->home->config;
    const int64_t fit = (int64_t)(PAGE_BYTES / (config->ledger_name_limit + LEDGER_MEMBER_EXTRA));
    struct bytes get[2] = {{0}, key_of(operation, LEDGER_VERSION, version_room)};
    struct bytes scan[5] = {{0}, {0}, bytes_of_string(operation->cursor), BYTES("COUNT")};
    struct buffer requests;
    bool is_good;

    if (room == NULL) {
        return false;
    }
    buffer_init(&requests);
    scan[1] = key_of(operation, part, room);
    scan[4] = bytes_make(
        digits, bytes_from_int64(config->ledger_batch < fit ? config->ledger_batch : fit, digits));
    is_good = put_request(&requests, "GET", get, 2) && put_request(&requests, "ZSCAN", scan, 5) &&
              run(operation, buffer_bytes(&requests), 2, 0, on_page);
    buffer_fini(&requests);
    mem_free(room);
    return is_good;
}

static void begin_walk(struct operation *operation)
{
    memcpy(operation->cursor, "0", 2);
    operation->source = (struct errand_source){0};
}

/* False: another server, or one that was started again, was asked for a part. */
static bool is_same_walk(struct operation *operation, const struct errand_source *source)
{
    if (strcmp(operation->cursor, "0") == 0) {
        operation->source = *source;
        return true;
    }
    return operation->source.link == source->link &&
           operation->source.connected_at_us == source->connected_at_us;
}

/* Pairs of name and score. False: not understood. */
static bool hand_out(struct operation *operation, struct bytes page, size_t n_values)
{
    struct ledger_member *members = mem_try_alloc((n_values / 2 + 1) * sizeof(*members));
    struct resp_value name, score;
    unsigned n = 0;

    if (members == NULL) {
        return false;
    }
    for (size_t i = 0; i + 1 < n_values; i += 2) {
        if (!resp_next(&page, &name) || !resp_next(&page, &score)) {
            mem_free(members);
            return false;
        }
        if (operation->is_subjects) {
            operation->on_subject(operation->context, name.text);
            n++;
        } else if (ledger_member_read(name.text, &members[n]) &&
                   (operation->db < 0 || members[n].db == (unsigned)operation->db)) {
            n++;
        }
    }
    operation->answer.n += n;
    if (n > 0 && operation->on_members != NULL) {
        operation->on_members(operation->context, members, n);
    }
    mem_free(members);
    return true;
}

/* [cursor, [name, score ...]] */
static bool take_page(struct operation *operation, struct bytes replies, bool is_first)
{
    struct resp_value value;

    if (!resp_next(&replies, &value) || (value.type != '$' && !value.is_null)) {
        return false;
    }
    if (is_first) {
        take_version(operation, value.is_null ? (struct bytes){0} : value.text);
    }
    if (!resp_next(&replies, &value) || value.type != '*' || value.n_children != 2 ||
        !resp_next(&replies, &value) || value.text.len == 0 ||
        value.text.len >= sizeof(operation->cursor)) {
        return false;
    }
    memcpy(operation->cursor, value.text.ptr, value.text.len);
    operation->cursor[value.text.len] = '\0';
    return resp_next(&replies, &value) && value.type == '*' &&
           hand_out(operation, replies, value.n_children);
}

static bool is_over(const struct operation *operation)
{
    return strcmp(operation->cursor, "0") == 0 ||
           (operation->max > 0 && operation->answer.n >= operation->max);
}

static void on_page(void *context, const struct errand_answer *answer)
{
    struct operation *operation = OBJ_FROM(context, struct operation, OPERATION_MAGIC);
    const bool is_first = strcmp(operation->cursor, "0") == 0;

    if (answer->error != NULL) {
        finish(operation, answer->error);
        return;
    }
    if (!is_same_walk(operation, &answer->source)) {
        stats_add(METRIC_ledger_restarts, 1);
        if (++operation->n_restarts > RESTARTS_MAX) {
            finish(operation, "the backend's master changes all the time");
            return;
        }
        begin_walk(operation);
    } else if (!take_page(operation, answer->replies, is_first)) {
        finish(operation, NOT_UNDERSTOOD);
        return;
    } else if (is_over(operation)) {
        finish(operation, NULL);
        return;
    }
    if (!send_page(operation)) {
        finish(operation, NO_MEMORY);
    }
}

static const char *walk(struct operation *operation, ledger_done_fn done, void *context)
{
    if (operation == NULL) {
        return refuse(NO_MEMORY);
    }
    operation->done = done;
    operation->context = context;
    begin_walk(operation);
    if (!send_page(operation)) {
        operation_free(operation);
        return refuse(NO_MEMORY);
    }
    return NULL;
}

const char *ledger_members(struct ledger *ledger, enum ledger_kind kind, struct bytes subject,
                           int db, uint64_t max, ledger_members_fn on_members, ledger_done_fn done,
                           void *context)
{
    const char *fault = fault_of(ledger, subject);
    struct operation *operation;

    if (fault != NULL) {
        return refuse(fault);
    }
    operation = operation_new(ledger, OPERATION_WALK, kind, subject);
    if (operation != NULL) {
        operation->on_members = on_members;
        operation->max = max;
        operation->db = db;
    }
    return walk(operation, done, context);
}

const char *ledger_subjects(struct ledger *ledger, enum ledger_kind kind, unsigned shard,
                            ledger_subject_fn on_subject, ledger_done_fn done, void *context)
{
    const char *fault = fault_of(ledger, BYTES("x"));
    struct operation *operation;

    if (fault != NULL) {
        return refuse(fault);
    }
    operation = operation_new(ledger, OPERATION_WALK, kind, (struct bytes){0});
    if (operation != NULL) {
        operation->is_subjects = true;
        operation->shard = shard;
        operation->on_subject = on_subject;
    }
    return walk(operation, done, context);
}

/* ---- the version alone ---- */

static void on_version(void *context, const struct errand_answer *answer)
{
    struct operation *operation = OBJ_FROM(context, struct operation, OPERATION_MAGIC);
    struct bytes replies = answer->replies;
    struct resp_value value;

    if (answer->error != NULL) {
        finish(operation, answer->error);
    } else if (!resp_next(&replies, &value) || (value.type != '$' && !value.is_null)) {
        finish(operation, NOT_UNDERSTOOD);
    } else {
        take_version(operation, value.is_null ? (struct bytes){0} : value.text);
        finish(operation, NULL);
    }
}

const char *ledger_ask_version(struct ledger *ledger, enum ledger_kind kind, unsigned shard,
                               ledger_done_fn done, void *context)
{
    const char *fault = fault_of(ledger, BYTES("x"));
    unsigned char room[LEDGER_KEY_EXTRA];
    struct operation *operation;
    struct bytes argv[2];

    if (fault != NULL) {
        return refuse(fault);
    }
    operation = operation_new(ledger, OPERATION_ASK, kind, (struct bytes){0});
    if (operation == NULL) {
        return refuse(NO_MEMORY);
    }
    operation->shard = shard;
    operation->done = done;
    operation->context = context;
    argv[1] = key_of(operation, LEDGER_VERSION, room);
    if (!put_request(&operation->requests, "GET", argv, 2) ||
        !run(operation, buffer_bytes(&operation->requests), 1, 0, on_version)) {
        operation_free(operation);
        return refuse(NO_MEMORY);
    }
    return NULL;
}

bool ledger_version_equal(const struct ledger_version *a, const struct ledger_version *b)
{
    return a->length == b->length && memcmp(a->text, b->text, a->length) == 0;
}

/* ---- life ---- */

struct ledger *ledger_new(struct coherence *home)
{
    struct ledger *ledger = mem_alloc(sizeof(*ledger));

    ledger->home = home;
    ledger->errands = errands_new(home);
    if (home->worker->index == 0) {
        ledger->review = ledger_review_new(home, ledger->errands);
    }
    return ledger;
}

void ledger_tick(struct ledger *ledger, int64_t now_us)
{
    errands_tick(ledger->errands, now_us);
    if (ledger->review != NULL) {
        ledger_review_tick(ledger->review, now_us);
    }
}

void ledger_stop(struct ledger *ledger)
{
    ledger->is_stopped = true;
    ledger_review_stop(ledger->review);
    errands_stop(ledger->errands);
}

void ledger_free(struct ledger **ledger)
{
    if (*ledger != NULL) {
        ledger_review_free(&(*ledger)->review);
        errands_free(&(*ledger)->errands);
        mem_free(*ledger);
        *ledger = NULL;
    }
}
