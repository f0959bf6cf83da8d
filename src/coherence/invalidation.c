/*
 * On the bus a namespace goes by its name, as every process numbers its own. A name that is not
 * known here means everything: too much is dropped rather than too little.
 *
 * A standing ban travels as text: "<id> <ttl ms> <age ms> <bytes> <kind> <name>", its namespace in
 * b; "<id> -" ends it. Both
 * are told again to those who missed them (ban_book.h).
 */
#include "coherence/invalidation.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/log.h"
#include "coherence/ban_book.h"
#include "coherence/dependencies.h"
#include "coherence/dependency_orders.h"
#include "coherence/recent.h"
#include "coherence/unlink.h"

/* ---- telling ---- */

static void tell(struct coherence_fleet *fleet, struct coherence *from, enum bus_kind kind,
                 struct bytes a, struct bytes b)
{
    const struct bus_record record = {.kind = (uint8_t)kind, .db = -1, .a = a, .b = b};

    bus_send(fleet->bus, from, &record);
}

static struct bytes name_of(int ns)
{
    return ns < 0 ? (struct bytes){0} : bytes_of_string(config_namespace_name((unsigned)ns));
}

/* ---- here ---- */

/* Clients that keep values are told too: of keys, or that anything may have changed. */
static void announce(struct coherence_fleet *fleet, const struct bytes *keys, size_t n)
{
    struct buffer array;

    if (fleet->on_changed == NULL) {
        return;
    }
    buffer_init(&array);
    /* A request is an array of bulk strings. */
    if (n > 0 && resp_write_request(&array, keys, (unsigned)n) != 0) {
        buffer_consume(&array, buffer_len(&array));
    }
    fleet->on_changed(fleet->changed_context, buffer_bytes(&array));
    buffer_fini(&array);
}

/* What is derived from what was named goes as well; only in memory, as nobody wrote it. */
static void drop_derived(struct coherence_fleet *fleet, struct coherence *from,
                         const struct bytes *keys, size_t n)
{
    for (size_t i = 0; i < n && dependencies_are_used(fleet); i++) {
        dependencies_cascade(fleet, from, keys[i], DEPENDENCY_ORDERED);
    }
}

static uint64_t drop_keys(struct coherence_fleet *fleet, struct coherence *from,
                          const struct bytes *keys, size_t n, enum metric reason)
{
    const int64_t now_us = clock_now_us();
    uint64_t n_held = 0;

    for (size_t i = 0; i < n; i++) {
        /* Who says so may know of a write that no replica has. */
        recent_note(fleet->recent, cache_hash(keys[i]), now_us);
        n_held += cache_invalidate(fleet->cache, keys[i]);
        miss_leases_note(fleet->leases, keys[i], MISS_TOLD);
    }
    stats_add(reason, n_held);
    announce(fleet, keys, n);
    drop_derived(fleet, from, keys, n);
    return n_held;
}

static enum ban_outcome set_ban(struct coherence_fleet *fleet, const struct ban_order *order,
                                uint64_t *n_held)
{
    const int64_t now_us = clock_now_us();
    enum ban_outcome outcome;

    recent_note_all(fleet->recent, now_us);
    outcome = bans_add(fleet->cache, order, now_us, n_held);
    if (outcome != BAN_FULL) {
        announce(fleet, NULL, 0);
    }
    return outcome;
}

static uint64_t drop_by_rule(struct coherence_fleet *fleet, const struct ban_rule *rule,
                             enum metric reason)
{
    const struct ban_order order = {.rule = *rule, .reason = reason};
    uint64_t n_held;

    (void)set_ban(fleet, &order, &n_held);
    return n_held;
}

/* The same for what a prefix or a pattern stands for. */
static void drop_derived_like(struct coherence_fleet *fleet, struct coherence *from, bool is_prefix,
                              struct bytes name)
{
    unsigned char glob[2 * BAN_NAME_MAX + 1];
    size_t n = 0;

    if (!dependencies_are_used(fleet) || name.len > BAN_NAME_MAX) {
        return;
    }
    for (size_t i = 0; i < name.len; i++) {
        if (is_prefix && memchr("*?[]\\", name.ptr[i], 5) != NULL) {
            glob[n++] = '\\';
        }
        glob[n++] = name.ptr[i];
    }
    if (is_prefix) {
        glob[n++] = '*';
    }
    dependencies_cascade_glob(fleet, from, bytes_make(glob, n));
}

static enum ban_name ban_name_of(enum invalidation_kind kind)
{
    return kind == INVALIDATE_PREFIX ? BAN_PREFIX
                                     : (kind == INVALIDATE_GLOB ? BAN_GLOB : BAN_ANY_NAME);
}

static const char *fault_of(const struct invalidation *what, int *ns)
{
    *ns = -1;
    switch (what->kind) {
    case INVALIDATE_KEYS:
    case INVALIDATE_TAGS:
    case INVALIDATE_EVERYTHING:
        return NULL;
    case INVALIDATE_PREFIX:
    case INVALIDATE_GLOB:
        return what->name.len > BAN_NAME_MAX ? "prefix or pattern is longer than 1024 bytes" : NULL;
    case INVALIDATE_NAMESPACE:
        *ns = config_namespace_find(what->name);
        return *ns < 0 ? "no such namespace" : NULL;
    }
    return "unknown kind";
}

static enum metric reason_of(const struct invalidation *what, enum metric by_form)
{
    return what->is_event ? METRIC_invalidations_event : by_form;
}

static void run_keys(struct coherence_fleet *fleet, struct coherence *from,
                     const struct invalidation *what, struct invalidation_answer *answer)
{
    answer->is_counted = true;
    answer->n_entries = drop_keys(fleet, from, what->keys, what->n_keys,
                                  reason_of(what, METRIC_invalidations_admin));
    for (size_t i = 0; i < what->n_keys && !what->is_heard; i++) {
        tell(fleet, from, BUS_KEY, what->keys[i], (struct bytes){0});
    }
}

uint64_t invalidation_drop_keys(struct coherence_fleet *fleet, struct coherence *from,
                                const struct bytes *keys, size_t n, enum metric reason)
{
    const uint64_t n_held = drop_keys(fleet, from, keys, n, reason);

    for (size_t i = 0; i < n; i++) {
        tell(fleet, from, BUS_KEY, keys[i], (struct bytes){0});
    }
    return n_held;
}

bool invalidation_drop_tag(struct coherence_fleet *fleet, struct coherence *from, struct bytes tag,
                           bool is_told)
{
    const int64_t now_us = clock_now_us();
    enum ban_outcome outcome;

    outcome = bans_add_tag(fleet->cache, tag, is_told, now_us);
    if (outcome != BAN_NONE) {
        recent_note_all(fleet->recent, now_us);
        announce(fleet, NULL, 0);
    }
    /* The others may have rules that are not known here. */
    if (!is_told) {
        tell(fleet, from, BUS_TAG, tag, (struct bytes){0});
    }
    return outcome != BAN_NONE;
}

unsigned invalidation_count_proxies(const struct coherence_fleet *fleet)
{
    return bus_count_peers(fleet->bus);
}

/* The end of a job: what it removed may have been read meanwhile. Keys went batch by batch. */
static void run_tags(struct coherence_fleet *fleet, struct coherence *from,
                     const struct invalidation *what)
{
    for (size_t i = 0; i < what->n_tags; i++) {
        (void)invalidation_drop_tag(fleet, from, what->tags[i], false);
    }
}

static void run_rule(struct coherence_fleet *fleet, struct coherence *from,
                     const struct invalidation *what, int ns, struct invalidation_answer *answer)
{
    const bool is_pattern = what->kind == INVALIDATE_PREFIX || what->kind == INVALIDATE_GLOB;
    const struct ban_rule rule = {.kind = ban_name_of(what->kind),
                                  .name = is_pattern ? what->name : (struct bytes){0},
                                  .ns = ns};

    answer->is_counted = !is_pattern;
    answer->n_entries = drop_by_rule(
        fleet, &rule,
        reason_of(what, is_pattern ? METRIC_invalidations_pattern : METRIC_invalidations_admin));
    if (is_pattern) {
        drop_derived_like(fleet, from, what->kind == INVALIDATE_PREFIX, what->name);
    }
    if (!what->is_heard && is_pattern) {
        tell(fleet, from, what->kind == INVALIDATE_PREFIX ? BUS_PREFIX : BUS_GLOB, what->name,
             (struct bytes){0});
    } else if (!what->is_heard) {
        tell(fleet, from, BUS_FLUSH, name_of(ns), (struct bytes){0});
    }
}

static void run(struct coherence_fleet *fleet, struct coherence *from,
                const struct invalidation *what, int ns, struct invalidation_answer *answer)
{
    if (what->kind == INVALIDATE_KEYS) {
        run_keys(fleet, from, what, answer);
    } else if (what->kind == INVALIDATE_TAGS) {
        run_tags(fleet, from, what);
    } else {
        run_rule(fleet, from, what, ns, answer);
    }
}

static enum metric order_metric(enum invalidation_kind kind)
{
    switch (kind) {
    case INVALIDATE_KEYS:
        return METRIC_orders_keys;
    case INVALIDATE_PREFIX:
    case INVALIDATE_GLOB:
        return METRIC_orders_pattern;
    case INVALIDATE_TAGS:
        return METRIC_orders_tag;
    case INVALIDATE_NAMESPACE:
    case INVALIDATE_EVERYTHING:
        break;
    }
    return METRIC_orders_namespace;
}

bool invalidation_run(struct coherence_fleet *fleet, struct coherence *from,
                      const struct invalidation *what, struct invalidation_answer *answer)
{
    int ns;

    *answer = (struct invalidation_answer){.error = fault_of(what, &ns)};
    if (answer->error == NULL && what->is_all) {
        answer->job = fleet->jobs != NULL ? unlink_jobs_start(fleet->jobs, what, ns) : 0;
        answer->error = answer->job == 0 ? INVALIDATION_NO_MORE_JOBS : NULL;
    }
    if (answer->error != NULL) {
        stats_add(METRIC_orders_refused, 1);
        return false;
    }
    run(fleet, from, what, ns, answer);
    stats_add(order_metric(what->kind), !what->is_event);
    answer->n_proxies = what->is_heard ? 0 : bus_count_peers(fleet->bus);
    return true;
}

void invalidation_repeat(struct coherence_fleet *fleet, const struct invalidation *what)
{
    struct invalidation_answer answer = {0};
    int ns;

    if (what->kind != INVALIDATE_KEYS && fault_of(what, &ns) == NULL) {
        run(fleet, NULL, what, ns, &answer);
    }
}

void invalidation_repeat_keys(struct coherence_fleet *fleet, const struct invalidation *what,
                              const struct bytes *keys, size_t n)
{
    struct invalidation piece = *what;
    struct invalidation_answer answer = {0};

    if (what->kind == INVALIDATE_TAGS) {
        (void)invalidation_drop_keys(fleet, NULL, keys, n, METRIC_invalidations_tag);
        return;
    }
    piece.keys = keys;
    piece.n_keys = n;
    run_keys(fleet, NULL, &piece, &answer);
}

/* ---- standing bans ---- */

/* Never 0. */
static uint64_t new_id(void)
{
    uint64_t id = 0;

    if (getrandom(&id, sizeof(id), 0) != (ssize_t)sizeof(id)) {
        id = (uint64_t)clock_now_us();
    }
    return id | 1;
}

bool invalidation_ban(struct coherence_fleet *fleet, struct coherence *from,
                      const struct ban_rule *rule, int64_t ttl_ms, uint64_t *id,
                      struct invalidation_answer *answer)
{
    const int64_t now_us = clock_now_us();
    const struct ban_order order = {
        .rule = *rule,
        .reason = METRIC_invalidations_ban,
        .is_standing = true,
        .id = new_id(),
        .expires_at_us = ttl_ms > 0 ? now_us + ttl_ms * 1000 : CACHE_NO_DEADLINE,
    };
    unsigned char text[BAN_TEXT_MAX];

    *answer = (struct invalidation_answer){.n_proxies = bus_count_peers(fleet->bus)};
    if (rule->name.len > BAN_NAME_MAX) {
        answer->error = "prefix or pattern is longer than 1024 bytes";
    } else if (rule->kind == BAN_TAG && !bans_know_tag(fleet->cache, rule->name)) {
        answer->error = "no namespace gives this tag to keys, and a ban cannot know what "
                        "applications have tagged: INVALIDATE TAG drops that";
    } else if (set_ban(fleet, &order, &answer->n_entries) == BAN_FULL) {
        answer->error = "as many bans as max-bans allows stand already";
    }
    if (answer->error != NULL) {
        stats_add(METRIC_orders_refused, 1);
        return false;
    }
    tell(fleet, from, BUS_BAN, bytes_make(text, ban_text_write(text, order.id, ttl_ms, rule)),
         name_of(rule->ns));
    stats_add(METRIC_orders_ban, 1);
    *id = order.id;
    return true;
}

bool invalidation_unban(struct coherence_fleet *fleet, struct coherence *from, uint64_t id,
                        struct invalidation_answer *answer)
{
    unsigned char text[BAN_TEXT_MAX];

    *answer = (struct invalidation_answer){.n_proxies = bus_count_peers(fleet->bus)};
    ban_book_note_removed(fleet->ban_book, id);
    tell(fleet, from, BUS_BAN, bytes_make(text, ban_text_write_removal(text, id)),
         (struct bytes){0});
    stats_add(METRIC_orders_ban, 1);
    return bans_remove(fleet->cache, id);
}

/* ---- what the bus received ---- */

/* -1: any, or not known here. */
static int namespace_of(struct bytes name)
{
    return name.len > 0 ? config_namespace_find(name) : -1;
}

/*
 * One that stands is not set anew, and one that was removed stays away, in whatever order they are
 * told. False: there is no room for it.
 */
static bool learn_ban(struct coherence_fleet *fleet, const struct ban_order *order,
                      const struct bus_record *record)
{
    const bool is_again = (record->flags & BUS_IS_AGAIN) != 0;
    uint64_t n_held;

    if (bans_has(fleet->cache, order->id) || ban_book_is_removed(fleet->ban_book, order->id)) {
        return true;
    }
    if (record->b.len > 0 && order->rule.ns < 0) {
        ban_book_note_foreign(fleet->ban_book, order->id);
        log_warn("coherence", "a ban concerns a namespace that is not known here",
                 "id=%016" PRIx64 " namespace=%s effect=\"keys of every namespace are kept out\"",
                 order->id, log_quote(record->b));
    }
    if (set_ban(fleet, order, &n_held) == BAN_FULL) {
        stats_add(METRIC_bans_not_learnt, 1);
        return is_again; /* when it was told first, everything was dropped */
    }
    stats_add(METRIC_bans_learnt, is_again);
    if (ban_book_is_removed(fleet->ban_book, order->id)) {
        (void)bans_remove(fleet->cache, order->id); /* meanwhile, on another worker */
    }
    return true;
}

/* False: not as above. */
static bool apply_ban(struct coherence_fleet *fleet, const struct bus_record *record)
{
    struct ban_text ban;

    if (!ban_text_read(record->a, &ban)) {
        return false;
    }
    if (ban.is_removal) {
        ban_book_note_removed(fleet->ban_book, ban.id);
        (void)bans_remove(fleet->cache, ban.id);
        return true;
    }
    ban.rule.ns = namespace_of(record->b);
    const struct ban_order order = {
        .rule = ban.rule,
        .reason = METRIC_invalidations_bus,
        .is_standing = true,
        .id = ban.id,
        .expires_at_us = ban.ttl_ms > 0 ? clock_now_us() + ban.ttl_ms * 1000 : CACHE_NO_DEADLINE,
    };
    return learn_ban(fleet, &order, record);
}

static enum metric reason_of_record(const struct bus_record *record)
{
    return (record->flags & BUS_IS_DEPENDENCY) != 0 ? METRIC_invalidations_dependency
                                                    : METRIC_invalidations_bus;
}

static void apply_pattern(struct coherence_fleet *fleet, const struct bus_record *record)
{
    struct ban_rule rule = {.kind = record->kind == BUS_PREFIX ? BAN_PREFIX : BAN_GLOB,
                            .name = record->a,
                            .ns = namespace_of(record->b)};

    if (record->a.len > BAN_NAME_MAX) {
        rule = (struct ban_rule){.ns = -1};
    }
    (void)drop_by_rule(fleet, &rule, reason_of_record(record));
    drop_derived_like(fleet, fleet->members[0], record->kind == BUS_PREFIX, record->a);
}

/* What the group could have told may be anything. */
static void drop_everything(struct coherence_fleet *fleet, enum metric reason)
{
    coherence_drop_all(fleet->members[0], reason);
    announce(fleet, NULL, 0);
}

static void apply_flush(struct coherence_fleet *fleet, struct bytes name)
{
    const struct ban_rule rule = {.ns = namespace_of(name)};

    if (rule.ns < 0) {
        drop_everything(fleet, METRIC_flushes_bus);
    } else {
        (void)drop_by_rule(fleet, &rule, METRIC_invalidations_bus);
    }
}

static void on_record(void *context, const struct bus_record *record)
{
    struct coherence_fleet *fleet = context;

    switch (record->kind) {
    case BUS_KEY:
        (void)drop_keys(fleet, fleet->members[0], &record->a, 1, reason_of_record(record));
        return;
    case BUS_PREFIX:
    case BUS_GLOB:
        apply_pattern(fleet, record);
        return;
    case BUS_FLUSH:
        apply_flush(fleet, record->a);
        return;
    case BUS_DEPEND:
        dependency_desk_take_record(fleet, record);
        return;
    case BUS_TAG:
        (void)invalidation_drop_tag(fleet, NULL, record->a, true);
        return;
    case BUS_BAN:
        if (apply_ban(fleet, record)) {
            return;
        }
        break;
    default:
        break;
    }
    /* Not understood. */
    drop_everything(fleet, METRIC_flushes_bus);
}

static void on_gap(void *context)
{
    struct coherence_fleet *fleet = context;

    drop_everything(fleet, METRIC_flushes_bus_gap);
    dependency_desk_reload(fleet);
}

static bool on_newcomer(void *context, bool is_beginning)
{
    return ban_book_teach(context, is_beginning);
}

const struct bus_events invalidation_bus_events = {on_record, on_gap, on_newcomer};
