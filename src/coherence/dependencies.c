/*
 * Design: a cascade first gathers all that is derived, then drops it. Names are followed through
 * relations and rules. Of a pattern (`profile:5:*`) nobody knows which keys it stands for: the
 * sources in the graph that match are looked for, and rules whose sources could match are followed
 * with unknown captures, so that too much goes rather than too little.
 *
 * Rules can make names longer for ever (user:{1} -> user:{1}:x, as {1} may be "5:x"). So along one
 * chain a rule is used again only where the name that it makes is not longer than the one it is
 * made from, and once only on a pattern. What was reached on two ways is followed once more when
 * the second way allows more.
 *
 * Before the lock is taken for a look into the graph, a filter of bits says whether the key can be
 * a source at all.
 */
#include "coherence/dependencies.h"

#include <errno.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/stats.h"
#include "cache/bans.h"
#include "coherence/bus.h"
#include "coherence/debounce.h"
#include "coherence/dependency_watch.h"
#include "coherence/ledger.h"
#include "coherence/recent.h"
#include "coherence/unlink.h"
#include "config/dependency_rules.h"

#define FILTER_BITS (UINT32_C(1) << 18)
/* Patterns that wait for a job; above it one is given up, and counted. */
#define GLOBS_MAX 64u
#define ITEMS_FIRST 16u
#define GLOB_MAX (3 * CAPTURES_TEXT_MAX)

struct dependency_glob {
    struct dependency_glob *next;
    struct bytes text;
    unsigned char room[];
};

/* ---- what a cascade has found ---- */

struct item {
    size_t at, len; /* in texts */
    uint64_t hash;
    uint64_t rules; /* bits of those that led here, on every way that was found */
    bool is_glob;
    bool is_all;      /* at the backend, too */
    bool is_queued;   /* to be followed (again) */
    uint8_t rule, of; /* a pattern: which one of which rule */
};

struct cascade {
    struct dependencies *dependencies;
    struct coherence *from;
    const struct config *config;
    struct item *items; /* items[0] is what it began with */
    unsigned n, room, max;
    uint32_t *slots; /* open addressing: number of the item and 1 */
    unsigned n_slots;
    struct buffer texts;
    bool has_overflowed;
    bool may_hold; /* rules may hold what they drop: the other proxies hear of it themselves */
    unsigned at;   /* the item that is followed */
};

static struct bytes text_of(const struct cascade *cascade, const struct item *item)
{
    return bytes_make(buffer_bytes(&cascade->texts).ptr + item->at, item->len);
}

static uint32_t *slot_of(const struct cascade *cascade, struct bytes text, uint64_t hash,
                         bool is_glob)
{
    unsigned at = (unsigned)hash & (cascade->n_slots - 1);

    while (cascade->slots[at] != 0) {
        const struct item *item = &cascade->items[cascade->slots[at] - 1];

        if (item->hash == hash && item->is_glob == is_glob &&
            bytes_equal(text_of(cascade, item), text)) {
            break;
        }
        at = (at + 1) & (cascade->n_slots - 1);
    }
    return &cascade->slots[at];
}

static bool grow(struct cascade *cascade)
{
    const unsigned room = cascade->room == 0 ? ITEMS_FIRST : cascade->room * 2;
    struct item *items = mem_try_realloc(cascade->items, room * sizeof(*items));
    uint32_t *slots;

    if (items == NULL) {
        return false;
    }
    cascade->items = items;
    slots = mem_try_alloc(2 * room * sizeof(*slots));
    if (slots == NULL) {
        return false;
    }
    memset(slots, 0, 2 * room * sizeof(*slots));
    mem_free(cascade->slots);
    cascade->slots = slots;
    cascade->n_slots = 2 * room;
    cascade->room = room;
    for (unsigned i = 0; i < cascade->n; i++) {
        const struct item *item = &cascade->items[i];

        *slot_of(cascade, text_of(cascade, item), item->hash, item->is_glob) = i + 1;
    }
    return true;
}

/* It was reached on another way: what that way allows, and what it removes, counts as well. */
static void merge(struct item *known, const struct item *item)
{
    const bool is_more = (known->rules & ~item->rules) != 0;

    known->rules &= item->rules;
    known->is_all = known->is_all || item->is_all;
    known->is_queued = known->is_queued || is_more;
}

/* False: it is one too many. text is copied. */
static bool add(struct cascade *cascade, struct bytes text, struct item item)
{
    uint32_t *slot;

    item.hash = cache_hash(text) + item.is_glob;
    if (cascade->n == cascade->room && !grow(cascade)) {
        cascade->has_overflowed = true;
        return false;
    }
    slot = slot_of(cascade, text, item.hash, item.is_glob);
    if (*slot != 0) {
        merge(&cascade->items[*slot - 1], &item);
        return true;
    }
    item.at = buffer_len(&cascade->texts);
    item.len = text.len;
    item.is_queued = true;
    if (cascade->n > cascade->max || buffer_append(&cascade->texts, text) != 0) {
        cascade->has_overflowed = true;
        return false;
    }
    cascade->items[cascade->n++] = item;
    *slot = cascade->n;
    return true;
}

/* ---- following one ---- */

static uint32_t bit_of(uint64_t hash)
{
    return (uint32_t)(hash >> 20) & (FILTER_BITS - 1);
}

static bool may_be_source(const struct dependencies *dependencies, uint64_t hash)
{
    const uint32_t bit = bit_of(hash);

    return (atomic_load_explicit(&dependencies->filter[bit / 64], memory_order_relaxed) >>
                (bit % 64) &
            1) != 0;
}

static bool on_name(void *context, struct bytes name)
{
    struct cascade *cascade = context;

    return add(cascade, name, (struct item){.rules = cascade->items[cascade->at].rules});
}

/* The names are those of the graph: nothing of it is kept behind the lock. */
static void follow_relations(struct cascade *cascade, const struct item *item, struct bytes text)
{
    struct dependencies *dependencies = cascade->dependencies;

    if (item->is_glob ? !atomic_load_explicit(&dependencies->has_relations, memory_order_relaxed)
                      : !may_be_source(dependencies, item->hash)) {
        return;
    }
    pthread_rwlock_rdlock(&dependencies->lock);
    if (item->is_glob) {
        dependency_graph_each_source_like(dependencies->graph, text, on_name, cascade);
    } else {
        dependency_graph_each_derived(dependencies->graph, text, on_name, cascade);
    }
    pthread_rwlock_unlock(&dependencies->lock);
}

/* It was dropped a moment ago, and will be once more at the end of the rule's window. */
static bool is_held(struct cascade *cascade, const struct config_dependency *rule,
                    struct bytes text, const struct item *made)
{
    const struct debounce_what what = {
        .kind = DEBOUNCE_DEPENDENCY,
        .is_glob = made->is_glob,
        .rule = made->rule,
        .of = made->of,
        .rules = made->rules,
    };

    if (rule->debounce_ms == 0 || !cascade->may_hold ||
        *slot_of(cascade, text, cache_hash(text) + made->is_glob, made->is_glob) != 0) {
        return false;
    }
    return debounce_hold(cascade->dependencies->fleet->debounce, &what, text,
                         rule->debounce_ms * 1000, clock_now_us());
}

/* What one pattern of a rule makes of captures; those that are not known stand for anything. */
static bool add_derived(struct cascade *cascade, unsigned rule, unsigned of,
                        const struct captures *found, const struct item *item)
{
    const struct config_dependency *which = &cascade->config->dependencies[rule];
    const struct captures_pattern *pattern = which->derived_patterns[of];
    unsigned char room[GLOB_MAX];
    struct item made = {
        .rules = item->rules | UINT64_C(1) << rule,
        .is_all = which->scope == SCOPE_ALL,
        .rule = (uint8_t)rule,
        .of = (uint8_t)of,
    };
    size_t n = captures_is_template(pattern) ? captures_expand(pattern, found, room) : 0;

    if (n > 0) {
        if ((item->rules >> rule & 1) != 0 && n > item->len) {
            return true; /* it would grow for ever */
        }
        return is_held(cascade, which, bytes_make(room, n), &made) ||
               add(cascade, bytes_make(room, n), made);
    }
    if ((item->rules >> rule & 1) != 0) {
        return true;
    }
    made.is_glob = true;
    n = captures_glob(pattern, found, room, sizeof(room));
    if (n == 0 || n > BAN_NAME_MAX) {
        const struct captures nothing = {0};

        n = captures_glob(pattern, &nothing, room, sizeof(room));
    }
    if (n == 0 || n > BAN_NAME_MAX) {
        cascade->has_overflowed = true;
        return false;
    }
    return is_held(cascade, which, bytes_make(room, n), &made) ||
           add(cascade, bytes_make(room, n), made);
}

/* Whether a name of the pattern may match the glob, as far as its beginning tells. */
static bool may_meet(const struct captures_pattern *pattern, struct bytes glob)
{
    unsigned char left[CAPTURES_TEXT_MAX], right[GLOB_MAX];
    const struct bytes prefix = bytes_make(left, captures_prefix(pattern, left));
    size_t n = 0;

    for (size_t i = 0; i < glob.len && n < sizeof(right); i++) {
        if (glob.ptr[i] == '*' || glob.ptr[i] == '?' || glob.ptr[i] == '[') {
            break;
        }
        i += glob.ptr[i] == '\\' && i + 1 < glob.len;
        right[n++] = glob.ptr[i];
    }
    return bytes_start_with(prefix, bytes_make(right, n)) ||
           bytes_start_with(bytes_make(right, n), prefix);
}

static bool matches(const struct config_dependency *rule, const struct item *item,
                    struct bytes text, struct captures *found)
{
    if (!item->is_glob) {
        return captures_match(rule->source_pattern, text, found);
    }
    found->n = 0;
    return may_meet(rule->source_pattern, text);
}

static void follow_rules(struct cascade *cascade, const struct item *item, struct bytes text)
{
    for (unsigned i = 0; i < cascade->config->n_dependencies; i++) {
        const struct config_dependency *rule = &cascade->config->dependencies[i];
        struct captures found;
        bool goes_on = matches(rule, item, text, &found);

        for (unsigned j = 0; goes_on && j < rule->derived.n; j++) {
            goes_on = add_derived(cascade, i, j, &found, item);
        }
        if (cascade->has_overflowed) {
            return;
        }
    }
}

static bool is_source_of_rule(const struct config *config, struct bytes key)
{
    struct captures found;

    for (unsigned i = 0; i < config->n_dependencies; i++) {
        if (captures_match(config->dependencies[i].source_pattern, key, &found)) {
            return true;
        }
    }
    return false;
}

/* Adding moves items and texts: what is followed is a copy. */
static void follow(struct cascade *cascade, unsigned at)
{
    const struct item item = cascade->items[at];
    unsigned char copy[GLOB_MAX];
    const bool fits = item.len <= sizeof(copy);

    cascade->items[at].is_queued = false;
    cascade->at = at;
    if (!fits) {
        /* No relation has such a name; what a rule would make of it does not fit either. */
        cascade->has_overflowed = is_source_of_rule(cascade->config, text_of(cascade, &item));
        return;
    }
    if (item.len > 0) {
        memcpy(copy, text_of(cascade, &item).ptr, item.len);
    }
    follow_relations(cascade, &item, bytes_make(copy, item.len));
    follow_rules(cascade, &item, bytes_make(copy, item.len));
}

static void follow_all(struct cascade *cascade)
{
    bool is_changed = true;

    /* An item may be queued again behind the place where the walk is. */
    while (is_changed) {
        is_changed = false;
        for (unsigned i = 0; i < cascade->n && !cascade->has_overflowed; i++) {
            if (cascade->items[i].is_queued) {
                follow(cascade, i);
                is_changed = true;
            }
        }
    }
}

/* ---- dropping what was found ---- */

static void announce(const struct cascade *cascade, const struct bytes *keys, unsigned n)
{
    struct coherence_fleet *fleet = cascade->dependencies->fleet;
    struct buffer array;

    if (fleet->on_changed == NULL) {
        return;
    }
    buffer_init(&array);
    if (n > 0 && resp_write_request(&array, keys, n) != 0) {
        buffer_consume(&array, buffer_len(&array));
    }
    fleet->on_changed(fleet->changed_context, buffer_bytes(&array));
    buffer_fini(&array);
}

static void drop_key(struct coherence_fleet *fleet, struct bytes key, int64_t now_us)
{
    recent_note(fleet->recent, cache_hash(key), now_us);
    if (cache_invalidate(fleet->cache, key)) {
        stats_add(METRIC_invalidations_dependency, 1);
    }
}

static void drop_glob(struct coherence_fleet *fleet, struct bytes glob, int64_t now_us)
{
    const struct ban_order order = {
        .rule = {.kind = BAN_GLOB, .name = glob, .ns = -1},
        .reason = METRIC_invalidations_dependency,
    };
    uint64_t n_held;

    recent_note_all(fleet->recent, now_us);
    (void)bans_add(fleet->cache, &order, now_us, &n_held);
}

/*
 * Many patterns wait for the sweep already: one for all that this one of the rule can derive takes
 * their place, before there are so many that everything has to go.
 */
static struct bytes widen(const struct cascade *cascade, const struct item *item,
                          unsigned char room[GLOB_MAX])
{
    const struct config_dependency *rule = &cascade->config->dependencies[item->rule];
    const struct captures nothing = {0};
    struct bans_figures figures;
    size_t n;

    if (item->rules == 0 || item->rule >= cascade->config->n_dependencies ||
        item->of >= rule->derived.n) {
        return text_of(cascade, item); /* somebody gave it, no rule made it */
    }
    bans_figures(cascade->dependencies->fleet->cache, &figures);
    if (figures.n_pending < (unsigned)cascade->config->max_bans / 2) {
        return text_of(cascade, item);
    }
    n = captures_glob(rule->derived_patterns[item->of], &nothing, room, GLOB_MAX);
    if (n == 0 || n > BAN_NAME_MAX) {
        return text_of(cascade, item);
    }
    stats_add(METRIC_dependencies_widened, 1);
    return bytes_make(room, n);
}

static void drop_items(const struct cascade *cascade)
{
    struct coherence_fleet *fleet = cascade->dependencies->fleet;
    const int64_t now_us = clock_now_us();
    struct bytes *keys = mem_try_alloc(cascade->n * sizeof(*keys));
    unsigned n_keys = 0, n_globs = 0;

    for (unsigned i = 1; i < cascade->n; i++) {
        const struct item *item = &cascade->items[i];
        unsigned char room[GLOB_MAX];

        if (item->is_glob) {
            drop_glob(fleet, widen(cascade, item, room), now_us);
            n_globs++;
            continue;
        }
        drop_key(fleet, text_of(cascade, item), now_us);
        if (keys != NULL) {
            keys[n_keys] = text_of(cascade, item);
        }
        n_keys++;
    }
    if (n_globs > 0 || keys == NULL) {
        announce(cascade, NULL, 0);
    } else {
        announce(cascade, keys, n_keys);
    }
    mem_free(keys);
}

static void drop_everything(const struct cascade *cascade)
{
    struct coherence_fleet *fleet = cascade->dependencies->fleet;

    coherence_drop_all(fleet->members[0], METRIC_flushes_dependency);
    stats_add(METRIC_cascades_overflowed, 1);
    announce(cascade, NULL, 0);
}

static void tell_others(const struct cascade *cascade)
{
    struct coherence_fleet *fleet = cascade->dependencies->fleet;
    struct bus_record record = {.kind = BUS_FLUSH, .db = -1};

    if (cascade->from == NULL || fleet->bus == NULL) {
        return;
    }
    if (cascade->has_overflowed) {
        bus_send(fleet->bus, cascade->from, &record);
        return;
    }
    for (unsigned i = 1; i < cascade->n; i++) {
        const struct item *item = &cascade->items[i];
        unsigned char room[GLOB_MAX];

        record = (struct bus_record){
            .kind = item->is_glob ? BUS_GLOB : BUS_KEY,
            .flags = BUS_IS_DEPENDENCY,
            .db = -1,
            .a = item->is_glob ? widen(cascade, item, room) : text_of(cascade, item),
        };
        bus_send(fleet->bus, cascade->from, &record);
    }
}

/* ---- at the backend ---- */

static bool is_waiting(const struct dependencies *dependencies, struct bytes text)
{
    const struct dependency_glob *glob = dependencies->globs;

    while (glob != NULL && !bytes_equal(glob->text, text)) {
        glob = glob->next;
    }
    return glob != NULL;
}

static void queue_glob(struct dependencies *dependencies, struct bytes text)
{
    struct dependency_glob *glob;

    pthread_mutex_lock(&dependencies->globs_lock);
    if (!is_waiting(dependencies, text)) {
        if (dependencies->n_globs == GLOBS_MAX) {
            stats_add(METRIC_dependency_unlinks_failed, 1);
        } else {
            glob = mem_alloc(sizeof(*glob) + text.len);
            memcpy(glob->room, text.ptr, text.len);
            glob->text = bytes_make(glob->room, text.len);
            glob->next = dependencies->globs;
            dependencies->globs = glob;
            dependencies->n_globs++;
        }
    }
    pthread_mutex_unlock(&dependencies->globs_lock);
}

/* False: as many jobs as may be are under way. */
static bool start_job(struct coherence_fleet *fleet, struct bytes glob)
{
    const struct invalidation what = {.kind = INVALIDATE_GLOB,
                                      .name = glob,
                                      .db = fleet->members[0]->backend->login->db,
                                      .is_all = true};

    if (fleet->jobs == NULL || unlink_jobs_start(fleet->jobs, &what, -1) == 0) {
        return false;
    }
    stats_add(METRIC_dependency_unlinks, 1);
    return true;
}

void dependencies_tick(struct dependencies *dependencies)
{
    struct dependency_glob *first, *glob;

    pthread_mutex_lock(&dependencies->globs_lock);
    first = dependencies->globs;
    dependencies->globs = NULL;
    dependencies->n_globs = 0;
    pthread_mutex_unlock(&dependencies->globs_lock);
    while ((glob = first) != NULL) {
        first = glob->next;
        if (!start_job(dependencies->fleet, glob->text)) {
            queue_glob(dependencies, glob->text);
        }
        mem_free(glob);
    }
}

static void unlink_items(const struct cascade *cascade)
{
    struct dependencies *dependencies = cascade->dependencies;

    for (unsigned i = 1; i < cascade->n && cascade->from != NULL; i++) {
        const struct item *item = &cascade->items[i];

        if (!item->is_all) {
            continue;
        }
        if (!item->is_glob) {
            dependency_watch_unlink(cascade->from, text_of(cascade, item));
        } else if (!start_job(dependencies->fleet, text_of(cascade, item))) {
            queue_glob(dependencies, text_of(cascade, item));
        }
    }
}

/* ---- cascades ---- */

static void begin(struct cascade *cascade, struct coherence_fleet *fleet, struct coherence *from)
{
    const struct worker *self = worker_self();

    if (from == NULL && self != NULL && self->index < fleet->n_members) {
        from = fleet->members[self->index];
    }
    *cascade = (struct cascade){
        .dependencies = fleet->dependencies,
        .from = from,
        .config = from != NULL ? from->config : fleet->dependencies->config,
    };
    cascade->max = (unsigned)cascade->config->max_cascade;
    buffer_init(&cascade->texts);
}

static void finish(struct cascade *cascade, enum dependency_cause cause)
{
    follow_all(cascade);
    if (cascade->n > 1 || cascade->has_overflowed) {
        stats_add(METRIC_cascades, 1);
        if (cascade->has_overflowed) {
            drop_everything(cascade);
        } else {
            drop_items(cascade);
        }
        if (cause == DEPENDENCY_WRITTEN || cause == DEPENDENCY_LEARNT) {
            tell_others(cascade);
        }
        if (cause == DEPENDENCY_HEARD ||
            (cause == DEPENDENCY_WRITTEN &&
             !atomic_load_explicit(&cascade->dependencies->is_told, memory_order_relaxed))) {
            unlink_items(cascade);
        }
    }
    buffer_fini(&cascade->texts);
    mem_free(cascade->items);
    mem_free(cascade->slots);
}

/* Most keys are no source of anything: that is found out without memory. */
static bool may_have_derived(const struct coherence_fleet *fleet, const struct config *config,
                             struct bytes key)
{
    return may_be_source(fleet->dependencies, cache_hash(key)) || is_source_of_rule(config, key);
}

void dependencies_cascade(struct coherence_fleet *fleet, struct coherence *from, struct bytes key,
                          enum dependency_cause cause)
{
    struct cascade cascade;

    begin(&cascade, fleet, from);
    cascade.may_hold = cause == DEPENDENCY_HEARD ||
                       (cause == DEPENDENCY_WRITTEN &&
                        atomic_load_explicit(&fleet->dependencies->is_told, memory_order_relaxed));
    if (may_have_derived(fleet, cascade.config, key)) {
        (void)add(&cascade, key, (struct item){0});
    }
    finish(&cascade, cause);
}

void dependencies_cascade_glob(struct coherence_fleet *fleet, struct coherence *from,
                               struct bytes glob)
{
    struct cascade cascade;

    begin(&cascade, fleet, from);
    (void)add(&cascade, glob, (struct item){.is_glob = true});
    finish(&cascade, DEPENDENCY_ORDERED);
}

void dependencies_cascade_rules(struct coherence *from)
{
    const struct captures nothing = {0};
    struct cascade cascade;

    begin(&cascade, from->fleet, from);
    /* In the place of what it begins with, which is not dropped. */
    (void)add(&cascade, BYTES(""), (struct item){0});
    for (unsigned i = 0; i < cascade.config->n_dependencies; i++) {
        for (unsigned j = 0; j < cascade.config->dependencies[i].derived.n; j++) {
            (void)add_derived(&cascade, i, j, &nothing, &(struct item){0});
        }
    }
    finish(&cascade, DEPENDENCY_MISSED);
}

void dependencies_drop_held(struct coherence *from, const struct debounce_what *what,
                            struct bytes name)
{
    const struct item item = {
        .is_glob = what->is_glob, .rule = what->rule, .of = what->of, .rules = what->rules};
    struct cascade cascade;

    begin(&cascade, from->fleet, from);
    cascade.may_hold = true;
    (void)add(&cascade, BYTES(""), (struct item){0});
    (void)add(&cascade, name, item);
    finish(&cascade, DEPENDENCY_HEARD);
}

/* With what is derived from it in turn. */
static void drop_derived(struct coherence *from, struct bytes derived, enum dependency_cause cause)
{
    struct cascade cascade;

    begin(&cascade, from->fleet, from);
    (void)add(&cascade, BYTES(""), (struct item){0});
    (void)add(&cascade, derived, (struct item){0});
    finish(&cascade, cause);
}

/* ---- relations ---- */

static void note_sizes(struct dependencies *dependencies)
{
    atomic_fetch_add_explicit(&dependencies->serial, 1, memory_order_relaxed);
    const size_t n = dependency_graph_count(dependencies->graph);

    atomic_store_explicit(&dependencies->n_relations, n, memory_order_relaxed);
    atomic_store_explicit(&dependencies->n_sources,
                          dependency_graph_count_sources(dependencies->graph),
                          memory_order_relaxed);
    atomic_store_explicit(&dependencies->n_bytes, dependency_graph_bytes(dependencies->graph),
                          memory_order_relaxed);
    atomic_store_explicit(&dependencies->has_relations, n > 0, memory_order_relaxed);
}

/* For good: who watches sources must not miss a message because there were none for a moment. */
static void note_use(struct dependencies *dependencies)
{
    if (atomic_load(&dependencies->has_rules) || atomic_load(&dependencies->has_relations)) {
        atomic_store(&dependencies->is_used, true);
    }
}

static bool add_relation(struct coherence *from, unsigned shard, struct bytes derived,
                         struct bytes source, enum dependency_cause cause)
{
    struct dependencies *dependencies = from->fleet->dependencies;
    const uint32_t bit = bit_of(cache_hash(source));
    enum dependency_added added;

    pthread_rwlock_wrlock(&dependencies->lock);
    added = dependency_graph_add(dependencies->graph, derived, source, shard,
                                 (size_t)from->config->max_dependencies);
    if (added == DEPENDENCY_ADDED) {
        atomic_fetch_or_explicit(&dependencies->filter[bit / 64], UINT64_C(1) << (bit % 64),
                                 memory_order_relaxed);
        note_sizes(dependencies);
        note_use(dependencies);
    }
    pthread_rwlock_unlock(&dependencies->lock);
    if (added == DEPENDENCY_ADDED) {
        drop_derived(from, derived, cause);
    }
    return added != DEPENDENCY_FULL;
}

bool dependencies_add(struct coherence *from, unsigned shard, struct bytes derived,
                      struct bytes source)
{
    return add_relation(from, shard, derived, source, DEPENDENCY_MISSED);
}

bool dependencies_learn(struct coherence *from, unsigned shard, struct bytes derived,
                        struct bytes source)
{
    const bool is_untold = from->knows_no_writes || from->n_untold > 0;

    return add_relation(from, shard, derived, source,
                        is_untold ? DEPENDENCY_LEARNT : DEPENDENCY_MISSED);
}

void dependencies_begin_load(struct dependencies *dependencies, unsigned shard)
{
    pthread_rwlock_wrlock(&dependencies->lock);
    dependency_graph_begin_load(dependencies->graph, shard);
    pthread_rwlock_unlock(&dependencies->lock);
}

size_t dependencies_end_load(struct dependencies *dependencies, unsigned shard)
{
    size_t n;

    pthread_rwlock_wrlock(&dependencies->lock);
    n = dependency_graph_end_load(dependencies->graph, shard);
    note_sizes(dependencies);
    note_use(dependencies);
    pthread_rwlock_unlock(&dependencies->lock);
    stats_add(METRIC_dependency_loads, 1);
    return n;
}

bool dependencies_has(struct dependencies *dependencies, struct bytes derived, struct bytes source)
{
    pthread_rwlock_rdlock(&dependencies->lock);
    const bool has = dependency_graph_has(dependencies->graph, derived, source);
    pthread_rwlock_unlock(&dependencies->lock);
    return has;
}

bool dependencies_is_source(struct dependencies *dependencies, struct bytes key)
{
    pthread_rwlock_rdlock(&dependencies->lock);
    const bool is_source = dependency_graph_is_source(dependencies->graph, key);
    pthread_rwlock_unlock(&dependencies->lock);
    return is_source;
}

size_t dependencies_count(struct dependencies *dependencies)
{
    return atomic_load_explicit(&dependencies->n_relations, memory_order_relaxed);
}

/* ---- lists ---- */

struct list {
    struct buffer *out;
    unsigned n_left;
    int error;
};

static bool on_listed(void *context, struct bytes name)
{
    struct list *list = context;

    if (list->n_left == 0) {
        return false;
    }
    list->n_left--;
    list->error = buffer_append(list->out, bytes_make(&name.len, sizeof(name.len)));
    if (list->error == 0) {
        list->error = buffer_append(list->out, name);
    }
    return list->error == 0;
}

int dependencies_list(struct dependencies *dependencies, struct bytes name, bool wants_sources,
                      unsigned max, struct buffer *out)
{
    struct list list = {out, max, 0};

    pthread_rwlock_rdlock(&dependencies->lock);
    if (wants_sources) {
        dependency_graph_each_source(dependencies->graph, name, on_listed, &list);
    } else {
        dependency_graph_each_derived(dependencies->graph, name, on_listed, &list);
    }
    pthread_rwlock_unlock(&dependencies->lock);
    return list.error;
}

int dependencies_list_sources(struct dependencies *dependencies, struct bytes after, unsigned max,
                              struct buffer *out)
{
    struct list list = {out, max, 0};

    pthread_rwlock_rdlock(&dependencies->lock);
    dependency_graph_each_source_after(dependencies->graph, after, on_listed, &list);
    pthread_rwlock_unlock(&dependencies->lock);
    return list.error;
}

bool dependencies_next_name(struct bytes *list, struct bytes *name)
{
    size_t len;

    if (list->len < sizeof(len)) {
        return false;
    }
    memcpy(&len, list->ptr, sizeof(len));
    *name = bytes_make(list->ptr + sizeof(len), len);
    *list = bytes_make(list->ptr + sizeof(len) + len, list->len - sizeof(len) - len);
    return true;
}

/* ---- life ---- */

struct dependencies *dependencies_new(struct coherence_fleet *fleet, struct config *config)
{
    struct dependencies *dependencies = mem_alloc(sizeof(*dependencies));
    pthread_rwlockattr_t attributes;

    dependencies->fleet = fleet;
    dependencies->graph = dependency_graph_new();
    dependencies->filter = mem_alloc(FILTER_BITS / 8);
    /* Else writes to sources, which only read it, could keep CACHE DEPEND waiting. */
    pthread_rwlockattr_init(&attributes);
    pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&dependencies->lock, &attributes);
    pthread_rwlockattr_destroy(&attributes);
    pthread_mutex_init(&dependencies->globs_lock, NULL);
    dependencies_set_config(dependencies, config);
    return dependencies;
}

void dependencies_set_config(struct dependencies *dependencies, struct config *config)
{
    struct config *former = dependencies->config;

    dependencies->config = config_ref(config);
    pthread_rwlock_wrlock(&dependencies->lock);
    atomic_store(&dependencies->has_rules, config->n_dependencies > 0);
    note_use(dependencies);
    pthread_rwlock_unlock(&dependencies->lock);
    config_unref(&former);
}

void dependencies_free(struct dependencies **dependencies)
{
    struct dependencies *gone = *dependencies;

    *dependencies = NULL;
    if (gone == NULL) {
        return;
    }
    while (gone->globs != NULL) {
        struct dependency_glob *next = gone->globs->next;

        mem_free(gone->globs);
        gone->globs = next;
    }
    dependency_graph_free(&gone->graph);
    pthread_rwlock_destroy(&gone->lock);
    pthread_mutex_destroy(&gone->globs_lock);
    mem_free(gone->filter);
    config_unref(&gone->config);
    mem_free(gone);
}
