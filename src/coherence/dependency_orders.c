/*
 * An order goes through three rounds, each for all of its sources: the ledger; the table; the
 * watches. Only then the other proxies are told, as they read the ledger where they are in doubt.
 *
 * A shard is taken over as a whole only if the version was one and the same all the time. What was
 * added meanwhile, by an order or the bus, belongs to the new list as well (dependency_graph.h).
 */
#include "coherence/dependency_orders.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/stats.h"
#include "coherence/bus.h"
#include "coherence/dependencies.h"
#include "coherence/dependency_watch.h"
#include "coherence/ledger.h"

/* Subjects whose members are read at the same time. */
#define READERS 8u
#define RETRY_US 1000000
#define TORN_US 50000
#define TEXT_MAX 192

_Static_assert(LEDGER_SHARDS == DEPENDENCY_GROUPS, "a shard of the ledger is a group of the graph");

struct pending {
    struct pending *next, *prev;
    struct dependency_desk *desk;
    void (*done)(void *context, uint64_t n, const char *error);
    void *context;
    const char *error;
    char text[TEXT_MAX]; /* of the error, where it is the ledger's */
    uint64_t n;
    unsigned n_left, db, n_sources;
    bool is_undo, is_over;
    struct bytes derived;
    struct bytes *sources;
    unsigned char room[];
};

struct reader {
    struct dependency_desk *desk;
    struct bytes subject;
    bool is_busy;
};

struct shard {
    _Atomic bool is_dirty; /* atomic: any worker sets it */
    bool is_short;         /* the table had no room for all of it */
    struct ledger_version version;
};

struct dependency_desk {
    struct coherence *home;
    struct pending *orders;

    /* The first worker's. */
    struct shard shards[LEDGER_SHARDS];
    struct reader readers[READERS];
    struct buffer subjects; /* of the shard in hand: length and bytes of each */
    size_t subjects_at;     /* those before it were asked for */
    unsigned shard, n_reading;
    unsigned polled;
    bool is_busy, is_torn, is_polling, was_logged;
    bool is_short; /* the table had no room, in this load */
    const char *error;
    char text[TEXT_MAX]; /* as in struct pending */
    struct ledger_version version;
    int64_t max; /* relations that were allowed, in the last tick */
    int64_t retry_at_us, poll_at_us;
};

/* What the ledger says is gone when its call returns. */
static const char *keep_text(const char *error, char room[TEXT_MAX])
{
    (void)snprintf(room, TEXT_MAX, "%s", error);
    return room;
}

static struct dependencies *table_of(const struct dependency_desk *desk)
{
    return desk->home->fleet->dependencies;
}

/* ---- orders ---- */

static void end_order(struct pending *order)
{
    struct dependency_desk *desk = order->desk;

    *(order->prev != NULL ? &order->prev->next : &desk->orders) = order->next;
    if (order->next != NULL) {
        order->next->prev = order->prev;
    }
    stats_add(order->error != NULL
                  ? METRIC_dependency_orders_failed
                  : (order->is_undo ? METRIC_dependency_orders_undo : METRIC_dependency_orders),
              1);
    order->done(order->context, order->n, order->error);
    mem_free(order);
}

static void tell_others(const struct pending *order)
{
    struct coherence *home = order->desk->home;

    for (unsigned i = 0; i < order->n_sources && home->fleet->bus != NULL; i++) {
        const struct bus_record record = {
            .kind = BUS_DEPEND,
            .flags = order->is_undo ? BUS_IS_UNDO : 0,
            .db = -1,
            .a = order->sources[i],
            .b = order->derived,
        };

        bus_send(home->fleet->bus, home, &record);
    }
}

static void on_heard(void *context, bool is_heard)
{
    struct pending *order = context;

    if (!is_heard && order->error == NULL) {
        order->error = "writes to a source are not heard of now; the relation is kept, try again";
    }
    if (--order->n_left > 0) {
        return;
    }
    tell_others(order);
    end_order(order);
}

/* Into the table, and then to the watches. */
static void take_relations(struct pending *order)
{
    struct coherence *home = order->desk->home;

    order->n_left = 1;
    for (unsigned i = 0; i < order->n_sources; i++) {
        const struct bytes source = order->sources[i];

        if (!dependencies_add(home, ledger_shard(LEDGER_DEPENDENCY, source), order->derived,
                              source)) {
            order->error = "as many dependencies as max-dependencies allows are known";
            stats_add(METRIC_dependencies_refused, 1);
        } else if (dependency_watch_ask(home, source, on_heard, order)) {
            order->n_left++;
        } else {
            order->error = "out of memory";
        }
    }
    /* Not from within the ledger's callback alone: nobody answers before this. */
    on_heard(order, true);
}

/* What is derived may still be so in another database: the ledger knows. */
static void mark_dirty(struct coherence_fleet *fleet, struct bytes source)
{
    struct shard *shard = &fleet->members[0]->desk->shards[ledger_shard(LEDGER_DEPENDENCY, source)];

    atomic_store_explicit(&shard->is_dirty, true, memory_order_relaxed);
}

static void on_ledger(void *context, const struct ledger_answer *answer)
{
    struct pending *order = context;

    if (answer->error != NULL && order->error == NULL) {
        order->error = keep_text(answer->error, order->text);
    }
    order->n += answer->error == NULL ? answer->n : 0;
    if (--order->n_left > 0) {
        return;
    }
    if (order->error != NULL) {
        end_order(order);
    } else if (order->is_undo) {
        for (unsigned i = 0; i < order->n_sources; i++) {
            mark_dirty(order->desk->home->fleet, order->sources[i]);
        }
        tell_others(order);
        end_order(order);
    } else {
        take_relations(order);
    }
}

static const char *fault_of(struct coherence *from, const struct dependency_order *order)
{
    const struct config *config = from->config;

    if (order->n_sources > DEPENDENCY_SOURCES_MAX) {
        return "more than 1000 sources at once";
    }
    if (order->derived.len > DEPENDENCY_NAME_MAX) {
        return "a name is longer than 1024 bytes";
    }
    if (!order->is_undo && dependencies_count(from->fleet->dependencies) + order->n_sources >
                               (size_t)config->max_dependencies) {
        bool is_known = true;

        for (unsigned i = 0; i < order->n_sources; i++) {
            is_known = is_known && dependencies_has(from->fleet->dependencies, order->derived,
                                                    order->sources[i]);
        }
        if (!is_known) {
            stats_add(METRIC_dependencies_refused, 1);
            return "as many dependencies as max-dependencies allows are known";
        }
    }
    for (unsigned i = 0; i < order->n_sources; i++) {
        if (order->sources[i].len > DEPENDENCY_NAME_MAX) {
            return "a name is longer than 1024 bytes";
        }
        if (order->sources[i].len == 0) {
            return "a source has no name";
        }
        if (bytes_equal(order->sources[i], order->derived)) {
            return "a key cannot be derived from itself";
        }
        if (ledger_owns(config, order->sources[i])) {
            return "keys that begin with ledger-prefix are the proxy's own";
        }
    }
    return ledger_owns(config, order->derived)
               ? "keys that begin with ledger-prefix are the proxy's own"
               : NULL;
}

static struct bytes keep(unsigned char **room, struct bytes bytes)
{
    const struct bytes kept = bytes_make(*room, bytes.len);

    if (bytes.len > 0) {
        memcpy(*room, bytes.ptr, bytes.len);
    }
    *room += bytes.len;
    return kept;
}

static struct pending *new_order(struct dependency_desk *desk, const struct dependency_order *order)
{
    size_t n_bytes = order->derived.len + order->n_sources * sizeof(struct bytes);
    struct pending *made;
    unsigned char *room;

    for (unsigned i = 0; i < order->n_sources; i++) {
        n_bytes += order->sources[i].len;
    }
    made = mem_try_alloc(sizeof(*made) + n_bytes);
    if (made == NULL) {
        return NULL;
    }
    memset(made, 0, sizeof(*made));
    made->sources = (struct bytes *)(void *)made->room;
    room = made->room + order->n_sources * sizeof(struct bytes);
    made->derived = keep(&room, order->derived);
    for (unsigned i = 0; i < order->n_sources; i++) {
        made->sources[i] = keep(&room, order->sources[i]);
    }
    made->desk = desk;
    made->done = order->done;
    made->context = order->context;
    made->is_undo = order->is_undo;
    made->n_sources = order->n_sources;
    made->next = desk->orders;
    if (made->next != NULL) {
        made->next->prev = made;
    }
    desk->orders = made;
    return made;
}

const char *dependency_order_begin(struct coherence *from, const struct dependency_order *what)
{
    const struct ledger_member member = {.db = what->db, .key = what->derived};
    const char *error = fault_of(from, what);
    struct pending *order;

    if (error != NULL) {
        return error;
    }
    order = new_order(from->desk, what);
    if (order == NULL) {
        return "out of memory";
    }
    for (unsigned i = 0; i < order->n_sources && order->error == NULL; i++) {
        order->error = (what->is_undo ? ledger_remove : ledger_add)(
            from->ledger, LEDGER_DEPENDENCY, order->sources[i], &member, 1, on_ledger, order);
        order->n_left += order->error == NULL;
    }
    error = order->error;
    if (order->n_left > 0) {
        return NULL; /* what was begun comes back, and tells of the error */
    }
    order->done = NULL;
    *(order->prev != NULL ? &order->prev->next : &from->desk->orders) = order->next;
    if (order->next != NULL) {
        order->next->prev = order->prev;
    }
    mem_free(order);
    return error != NULL ? error : "nothing to do";
}

/* ---- loading a shard ---- */

static void load_next(struct dependency_desk *desk);

static bool is_any_short(const struct dependency_desk *desk)
{
    bool is_short = false;

    for (unsigned i = 0; i < LEDGER_SHARDS; i++) {
        is_short = is_short || desk->shards[i].is_short;
    }
    return is_short;
}

/* There is room again: what had none before is read once more. */
static void reload_short(struct dependency_desk *desk)
{
    for (unsigned i = 0; i < LEDGER_SHARDS; i++) {
        if (desk->shards[i].is_short) {
            desk->shards[i].is_dirty = true;
        }
    }
}

static void end_load(struct dependency_desk *desk)
{
    struct shard *shard = &desk->shards[desk->shard];

    desk->is_busy = false;
    if (desk->error != NULL) {
        shard->is_dirty = true;
        desk->retry_at_us = clock_now_us() + RETRY_US;
        stats_add(METRIC_dependency_loads_failed, 1);
        if (!desk->was_logged) {
            log_warn("coherence", "dependencies cannot be read from the ledger", "error=%s",
                     log_quote(bytes_of_string(desk->error)));
        }
        desk->was_logged = true;
    } else if (desk->is_torn) {
        shard->is_dirty = true;
        desk->retry_at_us = clock_now_us() + TORN_US;
    } else {
        shard->version = desk->version;
        shard->is_short = desk->is_short;
        if (dependencies_end_load(table_of(desk), desk->shard) > 0) {
            reload_short(desk);
        }
        desk->was_logged = false;
    }
    atomic_store_explicit(&table_of(desk)->is_incomplete, is_any_short(desk), memory_order_relaxed);
    buffer_consume(&desk->subjects, buffer_len(&desk->subjects));
    buffer_release(&desk->subjects);
    if (desk->error == NULL && !desk->is_torn) {
        load_next(desk);
    }
}

static void read_more(struct dependency_desk *desk);

static void on_members(void *context, const struct ledger_member *members, unsigned n)
{
    const struct reader *reader = context;
    struct dependency_desk *desk = reader->desk;

    for (unsigned i = 0; i < n; i++) {
        if (!dependencies_add(desk->home, desk->shard, members[i].key, reader->subject)) {
            desk->is_short = true;
        }
    }
}

static void on_read(void *context, const struct ledger_answer *answer)
{
    struct reader *reader = context;
    struct dependency_desk *desk = reader->desk;

    reader->is_busy = false;
    desk->n_reading--;
    if (answer->error != NULL) {
        desk->error = keep_text(answer->error, desk->text);
    } else if (!ledger_version_equal(&answer->version, &desk->version)) {
        desk->is_torn = true;
    }
    read_more(desk);
}

static bool next_subject(struct dependency_desk *desk, struct bytes *subject)
{
    const struct bytes all = buffer_bytes(&desk->subjects);
    struct bytes rest = bytes_make(all.ptr + desk->subjects_at, all.len - desk->subjects_at);

    if (!dependencies_next_name(&rest, subject)) {
        return false;
    }
    desk->subjects_at = all.len - rest.len;
    return true;
}

/* Begins as many reads as may be under way; ends the load when nothing is left. */
static void read_more(struct dependency_desk *desk)
{
    struct bytes subject;

    for (unsigned i = 0; i < READERS && desk->error == NULL && !desk->is_torn; i++) {
        struct reader *reader = &desk->readers[i];

        if (reader->is_busy) {
            continue;
        }
        if (!next_subject(desk, &subject)) {
            break;
        }
        *reader = (struct reader){.desk = desk, .subject = subject};
        desk->error = ledger_members(desk->home->ledger, LEDGER_DEPENDENCY, subject, -1, 0,
                                     on_members, on_read, reader);
        reader->is_busy = desk->error == NULL;
        desk->n_reading += desk->error == NULL;
    }
    if (desk->n_reading == 0) {
        end_load(desk);
    }
}

static void on_subject(void *context, struct bytes subject)
{
    struct dependency_desk *desk = context;

    if (buffer_append(&desk->subjects, bytes_make(&subject.len, sizeof(subject.len))) != 0 ||
        buffer_append(&desk->subjects, subject) != 0) {
        desk->error = "out of memory";
    }
}

static void on_subjects(void *context, const struct ledger_answer *answer)
{
    struct dependency_desk *desk = context;

    if (answer->error != NULL) {
        desk->error = answer->error;
        end_load(desk);
        return;
    }
    desk->version = answer->version;
    read_more(desk);
}

static void begin_load(struct dependency_desk *desk, unsigned shard)
{
    desk->shard = shard;
    desk->shards[shard].is_dirty = false;
    desk->is_busy = true;
    desk->is_torn = desk->is_short = false;
    desk->error = NULL;
    desk->subjects_at = 0;
    dependencies_begin_load(table_of(desk), shard);
    desk->error = ledger_subjects(desk->home->ledger, LEDGER_DEPENDENCY, shard, on_subject,
                                  on_subjects, desk);
    if (desk->error != NULL) {
        end_load(desk);
    }
}

static void load_next(struct dependency_desk *desk)
{
    /* In turn: one that cannot be read now keeps none of the others waiting. */
    for (unsigned i = 1; i <= LEDGER_SHARDS; i++) {
        const unsigned shard = (desk->shard + i) % LEDGER_SHARDS;

        if (desk->shards[shard].is_dirty) {
            begin_load(desk, shard);
            return;
        }
    }
}

/* ---- looking at versions ---- */

static void on_version(void *context, const struct ledger_answer *answer)
{
    struct dependency_desk *desk = context;
    struct shard *shard = &desk->shards[desk->polled];

    desk->is_polling = false;
    if (answer->error == NULL && !ledger_version_equal(&answer->version, &shard->version)) {
        shard->is_dirty = true;
    }
    desk->polled = (desk->polled + 1) % LEDGER_SHARDS;
}

static void poll_version(struct dependency_desk *desk, int64_t now_us)
{
    const int64_t pause_us = desk->home->config->dependencies_poll_ms * 1000 / LEDGER_SHARDS;

    if (desk->is_polling || now_us < desk->poll_at_us) {
        return;
    }
    desk->poll_at_us = now_us + pause_us;
    desk->is_polling = ledger_ask_version(desk->home->ledger, LEDGER_DEPENDENCY, desk->polled,
                                          on_version, desk) == NULL;
}

void dependency_desk_tick(struct dependency_desk *desk, int64_t now_us)
{
    if (desk->home->worker->index != 0 || desk->home->config->max_dependencies == 0 ||
        desk->home->backend->topology == NULL) {
        return;
    }
    if (desk->max != desk->home->config->max_dependencies) {
        desk->max = desk->home->config->max_dependencies;
        reload_short(desk);
    }
    if (!desk->is_busy && now_us >= desk->retry_at_us) {
        load_next(desk);
    }
    poll_version(desk, now_us);
}

/* ---- what others said ---- */

void dependency_desk_take_record(struct coherence_fleet *fleet, const struct bus_record *record)
{
    struct coherence *home = fleet->members[0];
    const unsigned shard = ledger_shard(LEDGER_DEPENDENCY, record->a);

    if (home->config->max_dependencies == 0) {
        return;
    }
    if ((record->flags & BUS_IS_UNDO) != 0 ||
        !dependencies_learn(home, shard, record->b, record->a)) {
        mark_dirty(fleet, record->a);
    }
}

void dependency_desk_reload(struct coherence_fleet *fleet)
{
    for (unsigned i = 0; i < LEDGER_SHARDS; i++) {
        fleet->members[0]->desk->shards[i].is_dirty = true;
    }
}

/* ---- life ---- */

struct dependency_desk *dependency_desk_new(struct coherence *home)
{
    struct dependency_desk *desk = mem_alloc(sizeof(*desk));

    desk->home = home;
    buffer_init(&desk->subjects);
    for (unsigned i = 0; i < LEDGER_SHARDS; i++) {
        desk->shards[i].is_dirty = true;
    }
    return desk;
}

void dependency_desk_free(struct dependency_desk **desk)
{
    struct dependency_desk *gone = *desk;

    *desk = NULL;
    if (gone == NULL) {
        return;
    }
    while (gone->orders != NULL) {
        gone->orders->error = "the proxy stops";
        end_order(gone->orders);
    }
    buffer_fini(&gone->subjects);
    mem_free(gone);
}
