/*
 * What a PUBLISH has to find comes in pieces: rules at once, members of the exact event in batches,
 * patterns from the copy or, where its version has changed, in batches too. Each piece is dropped
 * as it comes; nothing is collected but what scope ALL has to remove at the backend. Patterns are
 * read once for all events that ask for them at a time: one that comes while they are read waits
 * for the end, and takes part in the next reading unless the copy is of its version by then.
 *
 * Subjects of the ledger: "=" and the name of an event, whose members are names to drop; "~", whose
 * members are pattern and name (event_patterns.h).
 */
#include "coherence/events.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/stats.h"
#include "coherence/tags.h"
#include "coherence/unlink.h"

#define PUBLISH_MAGIC 0x70756265u /* "pube" */
#define CHANGE_MAGIC 0x63686765u  /* "chge" */
#define LISTING_MAGIC 0x6c737465u /* "lste" */
#define PATTERNS BYTES("~")
/* Keys that are dropped in one go. */
#define BATCH_KEYS 256u
/* Of scope ALL: what is kept until the jobs begin. */
#define UNLINK_BYTES_MAX ((size_t)16 * 1024 * 1024)
#define SUBJECT_MAX (EVENT_NAME_MAX + 1)

struct publish;

struct events {
    struct coherence *home;
    struct event_patterns *patterns;
    struct ledger_version version; /* of the copy */
    bool has_copy, is_reading;
    struct event_patterns *fresh; /* the copy in the making; NULL: none, or it grew too large */
    struct publish *readers;      /* that had asked before the reading under way began */
    struct publish *waiting;      /* for the next one */
};

struct events *events_new(struct coherence *home)
{
    struct events *events = mem_alloc(sizeof(*events));

    events->home = home;
    events->patterns = event_patterns_new();
    return events;
}

void events_free(struct events **events)
{
    event_patterns_free(&(*events)->patterns);
    mem_free(*events);
    *events = NULL;
}

unsigned events_count_patterns(const struct events *events)
{
    return event_patterns_count(events->patterns);
}

static struct bytes subject_of(struct bytes event, unsigned char room[SUBJECT_MAX])
{
    room[0] = '=';
    memcpy(room + 1, event.ptr, event.len);
    return bytes_make(room, event.len + 1);
}

/* ---- runs of names: kind, database, length, bytes ---- */

struct head {
    uint32_t db, len;
    uint8_t kind; /* enum invalidation_kind */
};

static bool put_name(struct buffer *run, enum invalidation_kind kind, unsigned db,
                     struct bytes name)
{
    const struct head head = {.db = db, .len = (uint32_t)name.len, .kind = (uint8_t)kind};

    if (buffer_reserve(run, sizeof(head) + name.len) != 0) {
        return false;
    }
    memcpy(buffer_end(run), &head, sizeof(head));
    if (name.len > 0) {
        memcpy(buffer_end(run) + sizeof(head), name.ptr, name.len);
    }
    buffer_commit(run, sizeof(head) + name.len);
    return true;
}

static bool take_name(struct bytes *run, struct head *head, struct bytes *name)
{
    if (run->len < sizeof(*head)) {
        return false;
    }
    memcpy(head, run->ptr, sizeof(*head));
    *name = bytes_make(run->ptr + sizeof(*head), head->len);
    *run = bytes_make(name->ptr + name->len, run->len - sizeof(*head) - name->len);
    return true;
}

/* ---- PUBLISH ---- */

struct publish {
    uint32_t magic;
    struct events *events;
    events_done_fn done;
    void *context;
    struct events_order order; /* its event is `name` */
    unsigned char name[EVENT_NAME_MAX];
    unsigned n_waiting;
    bool is_all; /* what is found now goes at the backend, too */
    bool has_too_many;
    struct buffer keys; /* to be dropped in one go */
    unsigned n_keys;
    struct buffer unlink;          /* what scope ALL removes */
    struct publish *next;          /* among those that read patterns, or wait */
    struct ledger_version version; /* of the patterns, when it asked */
    struct events_answer answer;
    char error[160];
};

static struct coherence_fleet *fleet_of(const struct publish *publish)
{
    return publish->events->home->fleet;
}

static void note_error(struct publish *publish, const char *error)
{
    if (publish->answer.error == NULL && error != NULL) {
        (void)snprintf(publish->error, sizeof(publish->error), "%s", error);
        publish->answer.error = publish->error;
    }
}

static void drop_now(struct publish *publish, struct invalidation *what)
{
    struct invalidation_answer answer;

    what->is_event = true;
    what->is_heard = publish->order.is_heard;
    if (!invalidation_run(fleet_of(publish), publish->events->home, what, &answer)) {
        note_error(publish, answer.error);
        return;
    }
    publish->answer.n_entries += answer.n_entries;
    publish->answer.is_counted = publish->answer.is_counted && answer.is_counted;
    publish->answer.n_proxies = answer.n_proxies;
}

static void drop_keys(struct publish *publish)
{
    struct bytes keys[BATCH_KEYS], run = buffer_bytes(&publish->keys);
    struct invalidation what = {.kind = INVALIDATE_KEYS, .keys = keys};
    struct head head;

    while (what.n_keys < BATCH_KEYS && take_name(&run, &head, &keys[what.n_keys])) {
        what.n_keys++;
    }
    if (what.n_keys > 0) {
        drop_now(publish, &what);
    }
    buffer_consume(&publish->keys, buffer_len(&publish->keys));
    publish->n_keys = 0;
}

/* One name that the event drops. */
static void drop(struct publish *publish, enum invalidation_kind kind, struct bytes name,
                 unsigned db)
{
    struct invalidation what = {.kind = kind, .name = name, .keys = &name, .n_keys = 1};

    publish->answer.n_names++;
    if (publish->is_all && (buffer_len(&publish->unlink) > UNLINK_BYTES_MAX ||
                            !put_name(&publish->unlink, kind, db, name))) {
        publish->has_too_many = true;
    }
    if (kind != INVALIDATE_KEYS || !put_name(&publish->keys, kind, db, name)) {
        drop_now(publish, &what);
    } else if (++publish->n_keys == BATCH_KEYS) {
        drop_keys(publish);
    }
}

static void on_drop(void *context, bool is_glob, struct bytes name, unsigned db)
{
    drop(context, is_glob ? INVALIDATE_GLOB : INVALIDATE_KEYS, name, db);
}

/* ---- scope ALL ---- */

static void start_job(struct publish *publish, struct invalidation *what)
{
    struct coherence_fleet *fleet = fleet_of(publish);
    const int ns = what->kind == INVALIDATE_NAMESPACE ? config_namespace_find(what->name) : -1;
    uint64_t job;

    what->is_event = what->is_all = true;
    what->is_heard = publish->order.is_heard;
    job = fleet->jobs != NULL ? unlink_jobs_start(fleet->jobs, what, ns) : 0;
    if (job == 0) {
        note_error(publish, "dropped from memory, but as many jobs as unlink-jobs allows are under "
                            "way");
        return;
    }
    publish->answer.job = publish->answer.job == 0 ? job : publish->answer.job;
    publish->answer.n_jobs++;
}

/* One job for all keys of a database. */
static void start_key_jobs(struct publish *publish, struct bytes *keys, size_t room)
{
    unsigned db = 0;
    bool has_more = true;

    while (has_more) {
        struct invalidation what = {.kind = INVALIDATE_KEYS, .keys = keys, .db = db};
        struct bytes run = buffer_bytes(&publish->unlink), name;
        unsigned next = UINT32_MAX;
        struct head head;

        while (take_name(&run, &head, &name)) {
            if (head.kind != INVALIDATE_KEYS || head.db < db) {
                continue;
            }
            if (head.db == db && what.n_keys < room) {
                keys[what.n_keys++] = name;
            } else if (head.db < next && head.db != db) {
                next = head.db;
            }
        }
        if (what.n_keys > 0) {
            start_job(publish, &what);
        }
        has_more = next != UINT32_MAX;
        db = next;
    }
}

static void start_jobs(struct publish *publish)
{
    struct bytes run = buffer_bytes(&publish->unlink), name;
    struct bytes *keys = NULL;
    size_t n_keys = 0;
    struct head head;

    while (take_name(&run, &head, &name)) {
        struct invalidation what = {.kind = (enum invalidation_kind)head.kind, .db = head.db};

        if (what.kind == INVALIDATE_KEYS) {
            n_keys++;
        } else {
            what.name = name;
            start_job(publish, &what);
        }
    }
    if (n_keys > 0) {
        keys = mem_try_alloc(n_keys * sizeof(*keys));
    }
    if (keys != NULL) {
        start_key_jobs(publish, keys, n_keys);
    }
    publish->has_too_many = publish->has_too_many || (n_keys > 0 && keys == NULL);
    mem_free(keys);
    if (publish->has_too_many) {
        note_error(publish, "dropped from memory, but too many keys to remove at the backend");
    }
}

/* ---- the pieces ---- */

static void leave(struct publish *publish)
{
    if (--publish->n_waiting > 0) {
        return;
    }
    drop_keys(publish);
    start_jobs(publish);
    stats_add(publish->answer.error == NULL ? METRIC_events_done : METRIC_events_failed, 1);
    publish->done(publish->context, &publish->answer);
    buffer_fini(&publish->keys);
    buffer_fini(&publish->unlink);
    mem_free(publish);
}

static struct bytes name_of(const struct publish *publish)
{
    return bytes_make(publish->name, publish->order.event.len);
}

static void on_exact(void *context, const struct ledger_member *members, unsigned n)
{
    struct publish *publish = OBJ_FROM(context, struct publish, PUBLISH_MAGIC);

    publish->is_all = publish->order.is_all;
    for (unsigned i = 0; i < n; i++) {
        event_drop_plain(members[i].key, members[i].db, on_drop, publish);
    }
}

static void on_exact_done(void *context, const struct ledger_answer *answer)
{
    struct publish *publish = OBJ_FROM(context, struct publish, PUBLISH_MAGIC);

    note_error(publish, answer->error);
    leave(publish);
}

static void match(struct publish *publish, const struct event_patterns *patterns)
{
    publish->is_all = publish->order.is_all;
    event_patterns_match(patterns, name_of(publish), on_drop, publish);
}

static bool is_copied(const struct events *events, const struct ledger_version *version)
{
    return events->has_copy && ledger_version_equal(&events->version, version);
}

/* Patterns that the copy lacks. */
static void on_patterns(void *context, const struct ledger_member *members, unsigned n)
{
    struct events *events = context;
    const unsigned max = (unsigned)events->home->config->event_patterns;
    struct event_patterns *batch = event_patterns_new();

    for (unsigned i = 0; i < n; i++) {
        event_patterns_add(batch, members[i].key, members[i].db);
        if (events->fresh != NULL) {
            event_patterns_add(events->fresh, members[i].key, members[i].db);
        }
    }
    for (struct publish *at = events->readers; at != NULL; at = at->next) {
        match(at, batch);
    }
    event_patterns_free(&batch);
    if (events->fresh != NULL && event_patterns_count(events->fresh) > max) {
        event_patterns_free(&events->fresh);
    }
}

static void end_readers(struct events *events, const char *error)
{
    struct publish *next = events->readers;

    events->readers = NULL;
    while (next != NULL) {
        struct publish *const publish = next;

        next = publish->next;
        note_error(publish, error);
        leave(publish);
    }
}

static void on_patterns_done(void *context, const struct ledger_answer *answer);

/* Those that wait, unless the copy is of their version now. */
static void begin_reading(struct events *events)
{
    struct publish *next = events->waiting;
    const char *error;

    events->waiting = NULL;
    while (next != NULL) {
        struct publish *const publish = next;

        next = publish->next;
        if (is_copied(events, &publish->version)) {
            match(publish, events->patterns);
            leave(publish);
        } else {
            publish->next = events->readers;
            events->readers = publish;
        }
    }
    if (events->readers == NULL) {
        return;
    }
    stats_add(METRIC_event_pattern_reads, 1);
    events->is_reading = true;
    events->fresh = event_patterns_new();
    error = ledger_members(events->home->ledger, LEDGER_EVENT, PATTERNS, -1, 0, on_patterns,
                           on_patterns_done, events);
    if (error != NULL) {
        events->is_reading = false;
        event_patterns_free(&events->fresh);
        end_readers(events, error);
    }
}

static void on_patterns_done(void *context, const struct ledger_answer *answer)
{
    struct events *events = context;

    if (answer->error == NULL && events->fresh != NULL) {
        event_patterns_free(&events->patterns);
        events->patterns = events->fresh;
        events->fresh = NULL;
        events->version = answer->version;
        events->has_copy = true;
    }
    event_patterns_free(&events->fresh);
    events->is_reading = false;
    end_readers(events, answer->error);
    if (!events->is_reading && events->waiting != NULL) {
        begin_reading(events);
    }
}

static void on_version(void *context, const struct ledger_answer *answer)
{
    struct publish *publish = OBJ_FROM(context, struct publish, PUBLISH_MAGIC);
    struct events *events = publish->events;

    if (answer->error != NULL) {
        note_error(publish, answer->error);
    } else if (is_copied(events, &answer->version)) {
        match(publish, events->patterns);
    } else {
        publish->n_waiting++;
        publish->version = answer->version;
        publish->next = events->waiting;
        events->waiting = publish;
        if (!events->is_reading) {
            begin_reading(events);
        }
    }
    leave(publish);
}

/* ---- rules of the configuration ---- */

static void on_tag_done(void *context, const struct tags_answer *answer)
{
    struct publish *publish = OBJ_FROM(context, struct publish, PUBLISH_MAGIC);

    note_error(publish, answer->error);
    publish->answer.n_entries += answer->n_entries;
    publish->answer.n_names += answer->n;
    publish->answer.is_counted = publish->answer.is_counted && answer->is_counted;
    if (answer->job != 0) {
        publish->answer.job = publish->answer.job == 0 ? answer->job : publish->answer.job;
        publish->answer.n_jobs++;
    }
    leave(publish);
}

static void drop_tag(struct publish *publish, struct bytes tag)
{
    const char *error;

    publish->n_waiting++;
    error = tags_invalidate(publish->events->home, publish->order.db, publish->is_all, &tag, 1,
                            on_tag_done, publish);
    if (error != NULL) {
        note_error(publish, error);
        publish->n_waiting--;
    }
}

static void apply_target(struct publish *publish, const struct event_rule *rule,
                         const struct event_target *target, const struct captures *found)
{
    unsigned char room[EVENT_GLOB_MAX];
    const bool is_glob = !captures_is_template(target->name);
    const size_t len = is_glob ? captures_glob(target->name, found, room, sizeof(room))
                               : captures_expand(target->name, found, room);
    const struct bytes name = bytes_make(room, len);

    if (len == 0) {
        note_error(publish, "what a rule names is longer than 1024 bytes");
        return;
    }
    publish->is_all = publish->order.is_all || rule->is_all;
    switch (target->kind) {
    case EVENT_TARGET_NAME:
        drop(publish, is_glob ? INVALIDATE_GLOB : INVALIDATE_KEYS, name, publish->order.db);
        break;
    case EVENT_TARGET_NAMESPACE:
        drop(publish, INVALIDATE_NAMESPACE, name, publish->order.db);
        break;
    case EVENT_TARGET_TAG:
        drop_tag(publish, name);
        break;
    }
}

/*
 * Only what a source told is held: the other proxies have heard it too, and nobody waits for the
 * answer. Each event apart, whichever of the rules it meets.
 */
static bool is_held(struct publish *publish, const struct event_rule *rule, unsigned at)
{
    const struct debounce_what what = {
        .kind = DEBOUNCE_EVENT,
        .rule = (uint8_t)at,
        .db = publish->order.db,
        .rules = publish->events->home->config->events->print,
    };

    return rule->debounce_ms > 0 && publish->order.is_heard && !publish->order.is_all &&
           debounce_hold(fleet_of(publish)->debounce, &what, name_of(publish),
                         rule->debounce_ms * 1000, clock_now_us());
}

static void apply_rule(struct publish *publish, const struct event_rule *rule,
                       const struct captures *found)
{
    for (unsigned i = 0; i < rule->n_targets; i++) {
        apply_target(publish, rule, &rule->targets[i], found);
    }
}

static void apply_rules(struct publish *publish)
{
    const struct event_rules *rules = publish->events->home->config->events;
    struct captures found;

    for (unsigned i = 0; i < rules->n_rules; i++) {
        const struct event_rule *rule = &rules->rules[i];

        if (captures_match(rule->match, name_of(publish), &found) && !is_held(publish, rule, i)) {
            apply_rule(publish, rule, &found);
        }
    }
}

static struct publish *publish_new(struct events *events, const struct events_order *order,
                                   events_done_fn done, void *context)
{
    struct publish *publish = mem_alloc(sizeof(*publish));

    publish->magic = PUBLISH_MAGIC;
    publish->events = events;
    publish->done = done;
    publish->context = context;
    publish->order = *order;
    publish->answer.is_counted = true;
    publish->n_waiting = 1;
    memcpy(publish->name, order->event.ptr, order->event.len);
    buffer_init(&publish->keys);
    buffer_init(&publish->unlink);
    return publish;
}

/* ---- at the end of a window ---- */

struct held {
    struct events *events;
    struct debounce_what what;
    int64_t window_us;
    struct bytes event;
    unsigned char name[];
};

/* What failed is tried again at the next end. */
static void on_held_done(void *context, const struct events_answer *answer)
{
    struct held *held = context;

    if (answer->error != NULL) {
        (void)debounce_hold(held->events->home->fleet->debounce, &held->what, held->event,
                            held->window_us, clock_now_us());
    }
    mem_free(held);
}

void events_drop_held(struct events *events, const struct debounce_what *what, struct bytes event)
{
    const struct event_rules *rules = events->home->config->events;
    const struct events_order order = {.event = event, .db = what->db, .is_heard = true};
    const struct event_rule *rule = what->rule < rules->n_rules ? &rules->rules[what->rule] : NULL;
    struct publish *publish;
    struct captures found;
    struct held *held;

    /* The rules have changed since it was held: nobody knows any more what it was to drop. */
    if (what->rules != rules->print || rule == NULL ||
        !captures_match(rule->match, event, &found)) {
        const struct invalidation everything = {
            .kind = INVALIDATE_EVERYTHING, .is_event = true, .is_heard = true};
        struct invalidation_answer answer;

        (void)invalidation_run(events->home->fleet, events->home, &everything, &answer);
        return;
    }
    held = mem_alloc(sizeof(*held) + event.len);
    held->events = events;
    held->what = *what;
    held->window_us = rule->debounce_ms * 1000;
    memcpy(held->name, event.ptr, event.len);
    held->event = bytes_make(held->name, event.len);
    publish = publish_new(events, &order, on_held_done, held);
    apply_rule(publish, rule, &found);
    leave(publish);
}

const char *events_publish(struct events *events, const struct events_order *order,
                           events_done_fn done, void *context)
{
    struct ledger *ledger = events->home->ledger;
    unsigned char room[SUBJECT_MAX];
    struct publish *publish;
    const char *error;

    if (order->event.len == 0 || order->event.len > EVENT_NAME_MAX) {
        return "event: expected 1 to 512 bytes";
    }
    publish = publish_new(events, order, done, context);
    apply_rules(publish);
    publish->n_waiting += 2;
    error = ledger_members(ledger, LEDGER_EVENT, subject_of(order->event, room), -1, 0, on_exact,
                           on_exact_done, publish);
    if (error != NULL) {
        note_error(publish, error);
        publish->n_waiting--;
    }
    error = ledger_ask_version(ledger, LEDGER_EVENT, ledger_shard(LEDGER_EVENT, PATTERNS),
                               on_version, publish);
    if (error != NULL) {
        note_error(publish, error);
        publish->n_waiting--;
    }
    leave(publish);
    return NULL;
}

/* ---- SUBSCRIBE, UNSUBSCRIBE ---- */

struct change {
    uint32_t magic;
    struct events *events;
    events_done_fn done;
    void *context;
    bool is_pattern;
    bool has_more; /* UNSUBSCRIBE without names: not all were found at once */
    unsigned n;    /* members in `run` */
    struct buffer run;
    struct event_subject subject;
    unsigned char text[EVENT_NAME_MAX];
    unsigned char room[SUBJECT_MAX];
    struct bytes in_ledger; /* the subject there */
    struct events_answer answer;
};

static void finish(struct change *change, const char *error)
{
    change->answer.error = error;
    change->done(change->context, &change->answer);
    event_subject_fini(&change->subject);
    buffer_fini(&change->run);
    mem_free(change);
}

static void free_change(struct change *change)
{
    event_subject_fini(&change->subject);
    buffer_fini(&change->run);
    mem_free(change);
}

static const char no_memory[] = "out of memory";
/* Of the worker: valid until the next refusal. */
static _Thread_local char refusal[EVENT_WHY_MAX];

static const char *new_change(struct events *events, struct bytes event, events_done_fn done,
                              void *context, struct change **made)
{
    struct change *change = mem_alloc(sizeof(*change));

    change->magic = CHANGE_MAGIC;
    change->events = events;
    change->done = done;
    change->context = context;
    buffer_init(&change->run);
    if (event.len > 0 && event.len <= EVENT_NAME_MAX) {
        memcpy(change->text, event.ptr, event.len);
        event.ptr = change->text;
    }
    if (!event_subject_init(&change->subject, event, refusal)) {
        free_change(change);
        return refusal;
    }
    change->is_pattern = change->subject.is_pattern;
    change->in_ledger = change->is_pattern ? PATTERNS
                                           : subject_of(change->subject.name, change->room);
    *made = change;
    return NULL;
}

static const char *add_name(struct change *change, struct bytes name, unsigned db)
{
    unsigned char room[EVENT_WORDS_MAX];
    struct bytes member = name;

    if (!event_subject_check(&change->subject, name, refusal)) {
        return refusal;
    }
    if (change->is_pattern) {
        member = bytes_make(room, event_member_write(change->subject.text, name, room));
    }
    if (!put_name(&change->run, INVALIDATE_KEYS, db, member)) {
        return no_memory;
    }
    change->n++;
    return NULL;
}

/* *members: freed by the caller. */
static const char *list_members(const struct change *change, struct ledger_member **members)
{
    struct bytes run = buffer_bytes(&change->run);
    struct head head;

    *members = mem_try_alloc(change->n * sizeof(**members));
    if (*members == NULL) {
        return no_memory;
    }
    for (unsigned i = 0; i < change->n; i++) {
        (void)take_name(&run, &head, &(*members)[i].key);
        (*members)[i].db = head.db;
    }
    return NULL;
}

static void on_changed(void *context, const struct ledger_answer *answer)
{
    struct change *change = OBJ_FROM(context, struct change, CHANGE_MAGIC);

    change->answer.n += answer->n;
    finish(change, answer->error);
}

static const char *send_add(struct change *change)
{
    struct ledger_member *members;
    const char *error = list_members(change, &members);

    if (error == NULL) {
        error = ledger_add(change->events->home->ledger, LEDGER_EVENT, change->in_ledger, members,
                           change->n, on_changed, change);
    }
    mem_free(members);
    return error;
}

static void on_counted(void *context, const struct ledger_answer *answer)
{
    struct change *change = OBJ_FROM(context, struct change, CHANGE_MAGIC);
    const uint64_t max = (uint64_t)change->events->home->config->event_patterns;
    const char *error = answer->error;

    if (error == NULL && answer->n + change->n > max) {
        error = "there are as many subscriptions by pattern as event-patterns allows";
    }
    if (error == NULL) {
        error = send_add(change);
    }
    if (error != NULL) {
        finish(change, error);
    }
}

static const char *add_names(struct change *change, const struct bytes *names, unsigned n,
                             unsigned db)
{
    const char *error = n > LEDGER_ADD_MAX ? "more than 1000 keys at a time" : NULL;

    for (unsigned i = 0; i < n && error == NULL; i++) {
        error = add_name(change, names[i], db);
    }
    return error;
}

const char *events_subscribe(struct events *events, struct bytes event, const struct bytes *names,
                             unsigned n, unsigned db, events_done_fn done, void *context)
{
    struct change *change;
    const char *error = new_change(events, event, done, context, &change);

    if (error != NULL) {
        return error;
    }
    error = add_names(change, names, n, db);
    if (error == NULL) {
        error = change->is_pattern
                    ? ledger_members(events->home->ledger, LEDGER_EVENT, PATTERNS, -1,
                                     (uint64_t)events->home->config->event_patterns + 1, NULL,
                                     on_counted, change)
                    : send_add(change);
    }
    if (error != NULL) {
        free_change(change);
    }
    return error;
}

/* ---- UNSUBSCRIBE without names: a round for each thousand ---- */

static const char *begin_round(struct change *change);

static void on_round_done(void *context, const struct ledger_answer *answer)
{
    struct change *change = OBJ_FROM(context, struct change, CHANGE_MAGIC);
    const char *error = answer->error;

    change->answer.n += answer->n;
    /* Without progress somebody else is at it. */
    if (error != NULL || !change->has_more || answer->n == 0) {
        finish(change, error);
        return;
    }
    error = begin_round(change);
    if (error != NULL) {
        finish(change, error);
    }
}

static const char *send_remove(struct change *change, ledger_done_fn done)
{
    struct ledger_member *members;
    const char *error = list_members(change, &members);

    if (error == NULL) {
        error = ledger_remove(change->events->home->ledger, LEDGER_EVENT, change->in_ledger,
                              members, change->n, done, change);
    }
    mem_free(members);
    return error;
}

static void on_found(void *context, const struct ledger_member *members, unsigned n)
{
    struct change *change = OBJ_FROM(context, struct change, CHANGE_MAGIC);
    struct bytes pattern, name;

    for (unsigned i = 0; i < n; i++) {
        if (change->is_pattern && (!event_member_read(members[i].key, &pattern, &name) ||
                                   !bytes_equal(pattern, change->subject.text))) {
            continue;
        }
        if (change->n == LEDGER_ADD_MAX ||
            !put_name(&change->run, INVALIDATE_KEYS, members[i].db, members[i].key)) {
            change->has_more = true;
        } else {
            change->n++;
        }
    }
}

static void on_all_found(void *context, const struct ledger_answer *answer)
{
    struct change *change = OBJ_FROM(context, struct change, CHANGE_MAGIC);
    const char *error = answer->error;

    if (error == NULL && change->n > 0) {
        error = send_remove(change, on_round_done);
        if (error == NULL) {
            return;
        }
    }
    finish(change, error);
}

static const char *begin_round(struct change *change)
{
    const uint64_t max = change->is_pattern ? 0 : LEDGER_ADD_MAX;

    buffer_consume(&change->run, buffer_len(&change->run));
    change->n = 0;
    /* Of an exact event so many are read as can be removed; perhaps there are more. */
    change->has_more = !change->is_pattern;
    return ledger_members(change->events->home->ledger, LEDGER_EVENT, change->in_ledger, -1, max,
                          on_found, on_all_found, change);
}

const char *events_unsubscribe(struct events *events, struct bytes event, const struct bytes *names,
                               unsigned n, unsigned db, events_done_fn done, void *context)
{
    struct change *change;
    const char *error = new_change(events, event, done, context, &change);

    if (error != NULL) {
        return error;
    }
    if (n == 0) {
        error = begin_round(change);
    } else {
        error = add_names(change, names, n, db);
        error = error != NULL ? error : send_remove(change, on_changed);
    }
    if (error != NULL) {
        free_change(change);
    }
    return error;
}

/* ---- EVENTS ---- */

struct listing {
    uint32_t magic;
    struct events *events;
    events_list_fn on_subscription;
    events_done_fn done;
    void *context;
    uint64_t n, max;
    unsigned shard;         /* whose subjects are read next */
    struct buffer subjects; /* of the one before, still to be read */
    unsigned char subject[SUBJECT_MAX];
    size_t subject_len, glob_len;
    struct events_answer answer;
    unsigned char glob[];
};

static void go_on(struct listing *listing);

static void end_listing(struct listing *listing, const char *error)
{
    listing->answer.error = error;
    listing->answer.n = listing->n;
    listing->done(listing->context, &listing->answer);
    buffer_fini(&listing->subjects);
    mem_free(listing);
}

static bool is_listed(const struct listing *listing, struct bytes event)
{
    return listing->glob_len == 0 ||
           bytes_match_glob(bytes_make(listing->glob, listing->glob_len), event);
}

static void list_one(struct listing *listing, struct bytes event, struct bytes name, unsigned db)
{
    if (listing->n < listing->max) {
        listing->n++;
        listing->on_subscription(listing->context, event, name, db);
    }
}

static void on_listed(void *context, const struct ledger_member *members, unsigned n)
{
    struct listing *listing = OBJ_FROM(context, struct listing, LISTING_MAGIC);
    struct bytes event, name;

    for (unsigned i = 0; i < n; i++) {
        if (listing->subject_len > 0) {
            list_one(listing, bytes_make(listing->subject + 1, listing->subject_len - 1),
                     members[i].key, members[i].db);
        } else if (event_member_read(members[i].key, &event, &name) && is_listed(listing, event)) {
            list_one(listing, event, name, members[i].db);
        }
    }
}

static void on_listed_done(void *context, const struct ledger_answer *answer)
{
    struct listing *listing = OBJ_FROM(context, struct listing, LISTING_MAGIC);

    if (answer->error != NULL || listing->n >= listing->max) {
        end_listing(listing, answer->error);
    } else {
        go_on(listing);
    }
}

static void on_subject(void *context, struct bytes subject)
{
    struct listing *listing = OBJ_FROM(context, struct listing, LISTING_MAGIC);
    const struct bytes event = subject.len > 0 ? bytes_make(subject.ptr + 1, subject.len - 1)
                                               : subject;

    if (event.len == 0 || event.len > EVENT_NAME_MAX || subject.ptr[0] != '=' ||
        !is_listed(listing, event) || buffer_len(&listing->subjects) > UNLINK_BYTES_MAX) {
        return;
    }
    (void)put_name(&listing->subjects, INVALIDATE_KEYS, 0, subject);
}

/* The next event that is one name, or the next shard; each step ends in on_listed_done(). */
static void go_on(struct listing *listing)
{
    struct ledger *ledger = listing->events->home->ledger;
    struct bytes run = buffer_bytes(&listing->subjects), subject;
    const size_t before = run.len;
    const char *error;
    struct head head;

    if (take_name(&run, &head, &subject)) {
        listing->subject_len = subject.len;
        memcpy(listing->subject, subject.ptr, subject.len);
        buffer_consume(&listing->subjects, before - run.len);
        error = ledger_members(ledger, LEDGER_EVENT,
                               bytes_make(listing->subject, listing->subject_len), -1,
                               listing->max - listing->n, on_listed, on_listed_done, listing);
    } else if (listing->shard < LEDGER_SHARDS) {
        error = ledger_subjects(ledger, LEDGER_EVENT, listing->shard++, on_subject, on_listed_done,
                                listing);
    } else {
        end_listing(listing, NULL);
        return;
    }
    if (error != NULL) {
        end_listing(listing, error);
    }
}

const char *events_list(struct events *events, struct bytes glob, uint64_t max,
                        events_list_fn on_subscription, events_done_fn done, void *context)
{
    struct listing *listing;
    const char *error;

    if (glob.len > EVENT_NAME_MAX) {
        return "pattern: longer than 512 bytes";
    }
    listing = mem_alloc(sizeof(*listing) + glob.len);
    listing->magic = LISTING_MAGIC;
    listing->events = events;
    listing->on_subscription = on_subscription;
    listing->done = done;
    listing->context = context;
    listing->max = max;
    listing->glob_len = glob.len;
    buffer_init(&listing->subjects);
    if (glob.len > 0) {
        memcpy(listing->glob, glob.ptr, glob.len);
    }
    error = ledger_members(events->home->ledger, LEDGER_EVENT, PATTERNS, -1, 0, on_listed,
                           on_listed_done, listing);
    if (error != NULL) {
        buffer_fini(&listing->subjects);
        mem_free(listing);
    }
    return error;
}
