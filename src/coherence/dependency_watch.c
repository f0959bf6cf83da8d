/*
 * Design: tracking tells once. Between the message about a write and the answer to the next EXISTS
 * another write goes unheard, so each answer is followed by one cascade more. That makes any order
 * of events safe: what is derived and cached before that answer goes, what is cached behind it was
 * read behind it, and the next write is told of.
 *
 *     write -> message -> cascade -> EXISTS -> (writes) -> answer -> cascade; armed
 *
 * A watch is armed under a "way": node, mode, and how often that way had been deaf before. Where
 * any of these is another one by now (link lost, FLUSHALL, slot moved, mode changed), it is armed
 * no more. Nobody needs to tell the watches: they are visited in turn, all of them within 200 ms,
 * those with news in every tick.
 */
#include "coherence/dependency_watch.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/stats.h"
#include "coherence/dependencies.h"
#include "coherence/ear.h"
#include "coherence/errand.h"
#include "coherence/modes.h"
#include "resp/own.h"

#include <stdio.h>

#define WATCH_MAGIC 0x77617463u
/* What one tick (10 ms) does at most, and at least where there is as much to do. */
#define VISITS_MIN 256u
#define TICKS_PER_ROUND 20u
#define ARMS_MAX 512u
#define SOURCES_PER_TICK 512u
/*
 * So often at once, in one tick: a source that is written all the time waits for the next one then.
 * Asked for at once, the request stands before the PING of any fence that begins behind the
 * message, and is answered before it.
 */
#define REARMS_PER_TICK 100u
#define RETRY_US 100000
#define UNLINKS_MAX 10000u
/* Who asks waits so long. */
#define ASK_US 2000000

/* Over which a source is heard of. */
struct way {
    epochs_node node;
    int mode;
    uint64_t n_losses;
    bool is_open; /* it hears now */
};

struct ask {
    struct mail mail; /* there, and back */
    struct ask *next;
    struct coherence *asker, *owner;
    dependency_heard_fn done;
    void *context;
    int64_t until_us;
    bool is_heard;
    struct bytes source;
    unsigned char room[];
};

struct watch {
    uint32_t magic;
    struct watch *next;     /* in its bucket */
    struct watch *next_due; /* to be visited in the next tick */
    struct dependency_watches *watches;
    struct link_op op;
    struct way way; /* under which it is armed, or is being armed */
    struct ask *asks;
    unsigned index; /* among items */
    uint64_t hash, serial;
    bool is_armed, is_sent, is_due, is_gone;
    bool is_missing; /* said the last answer */
    bool was_told;   /* it is armed anew since a message came, not since the way was deaf */
    int64_t armed_at_us, tried_at_us;
    uint64_t tick; /* of the last try, and how many there were in it */
    unsigned n_in_tick;
    int64_t unheard_since_us; /* 0: it is heard of */
    int64_t dropped_at_us;
    struct bytes key;
    unsigned char room[];
};

struct dependency_watches {
    struct coherence *home;
    struct errands *errands;
    unsigned n_unlinks;
    struct watch **items, **buckets;
    unsigned n, room, n_buckets, at;
    struct watch *first_due;
    struct buffer cursor; /* the last source that was looked at */
    uint64_t round_serial, seen_serial;
    unsigned n_arms; /* in this tick */
    uint64_t tick;
    struct prefixes prefixes[N_EARS];
    uint64_t rules_sign; /* of the ways by which the sources of rules are heard of */
    int64_t rules_dropped_at_us;
    bool were_rules_deaf;
    _Atomic size_t n_watched, n_unheard; /* atomic: for the metrics */
};

/* ---- ways ---- */

static bool ear_covers(const struct prefixes *prefixes, struct bytes key)
{
    if (!prefixes->is_wanted) {
        return false;
    }
    for (unsigned i = 0; i < prefixes->n; i++) {
        if (bytes_start_with(key, prefixes->items[i])) {
            return true;
        }
    }
    return prefixes->n == 0;
}

/* The backend tells of writes. Else those through proxies count: the reply rule, and the bus. */
static bool is_told_of(int mode)
{
    return mode != COHERENCE_TTL && mode != COHERENCE_PUBSUB;
}

/* It hears of all that the configuration wants, and did so a moment ago. */
static bool is_ear_open(const struct track *track, enum ear_kind kind, int64_t now_us)
{
    const struct coherence *coherence = track->coherence;
    const uint16_t number = ear_incarnation(track, kind);

    if (number == EPOCHS_NONE) {
        return false;
    }
    const int64_t watermark_us = atomic_load_explicit(
        &epochs_at(cache_epochs(coherence->cache), number)->watermark_us, memory_order_acquire);
    return now_us - watermark_us <= coherence->config->max_staleness_ms * 1000;
}

static bool is_track_open(const struct track *track, int64_t now_us)
{
    return track->is_confirmed && link_is_up(track->link) && track->node->info != NULL &&
           track->node->info->is_healthy &&
           now_us - track->watermark_us <= track->coherence->config->max_staleness_ms * 1000;
}

static struct way way_of_ear(const struct dependency_watches *watches, const struct track *track,
                             enum ear_kind kind, int mode, int64_t now_us)
{
    (void)watches;
    return (struct way){
        .node = track->node->id,
        .mode = mode,
        .n_losses = atomic_load_explicit(&track->share->n_losses[kind], memory_order_acquire),
        .is_open = is_ear_open(track, kind, now_us),
    };
}

static struct way find_way(const struct dependency_watches *watches, struct bytes key,
                           int64_t now_us)
{
    const struct coherence *home = watches->home;
    const struct topology *topology = home->backend->topology;
    const unsigned slot = topology != NULL && topology->is_cluster ? command_key_slot(key) : 0;
    const struct backend_node *node = topology != NULL ? backend_owner(home->backend, slot) : NULL;
    const int wanted = config_namespace_of(home->config, key)->coherence;
    const struct track *track = node != NULL ? node->track : NULL;
    struct way way = {.mode = -1};

    if (track == NULL) {
        return way;
    }
    if (wanted == COHERENCE_TTL) {
        return (struct way){.node = node->id, .mode = COHERENCE_TTL, .is_open = true};
    }
    link_wake(track->link);
    if (!link_is_up(track->link) || track->is_probing) {
        return way; /* what auto comes to is not known now */
    }
    way.mode = modes_now(track, wanted);
    way.node = node->id;
    if (way.mode == COHERENCE_TRACKING) {
        way.n_losses = track->n_losses;
        way.is_open = is_track_open(track, now_us);
        return way;
    }
    if (!is_told_of(way.mode)) {
        way.is_open = true;
        return way;
    }
    const enum ear_kind kind = way.mode == COHERENCE_BROADCAST ? EAR_BROADCAST : EAR_KEYSPACE;

    way = way_of_ear(watches, track, kind, way.mode, now_us);
    way.is_open = way.is_open && ear_covers(&watches->prefixes[kind], key);
    return way;
}

static bool is_same_way(const struct way *a, const struct way *b)
{
    return a->node == b->node && a->mode == b->mode && a->n_losses == b->n_losses;
}

/* ---- the table ---- */

static unsigned owner_of(const struct coherence_fleet *fleet, uint64_t hash)
{
    return (unsigned)((hash >> 40) % fleet->n_members);
}

static struct watch **bucket_of(const struct dependency_watches *watches, uint64_t hash)
{
    return &watches->buckets[hash & (watches->n_buckets - 1)];
}

static struct watch *find(const struct dependency_watches *watches, struct bytes key, uint64_t hash)
{
    struct watch *watch = watches->n > 0 ? *bucket_of(watches, hash) : NULL;

    while (watch != NULL && (watch->hash != hash || !bytes_equal(watch->key, key))) {
        watch = watch->next;
    }
    return watch;
}

static bool grow(struct dependency_watches *watches)
{
    const unsigned room = watches->room == 0 ? 64 : watches->room * 2;
    struct watch **items = mem_try_realloc(watches->items, room * sizeof(*items));
    struct watch **buckets;

    if (items == NULL) {
        return false;
    }
    watches->items = items;
    buckets = mem_try_alloc(room * sizeof(*buckets));
    if (buckets == NULL) {
        return false;
    }
    memset(buckets, 0, room * sizeof(*buckets));
    mem_free(watches->buckets);
    watches->buckets = buckets;
    watches->n_buckets = watches->room = room;
    for (unsigned i = 0; i < watches->n; i++) {
        struct watch **bucket = bucket_of(watches, watches->items[i]->hash);

        watches->items[i]->next = *bucket;
        *bucket = watches->items[i];
    }
    return true;
}

static void set_due(struct watch *watch)
{
    if (!watch->is_due) {
        watch->is_due = true;
        watch->next_due = watch->watches->first_due;
        watch->watches->first_due = watch;
    }
}

static void on_exists(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                      bool is_first, bool is_last);
static void on_exists_lost(struct link_op *op, struct link *link, enum link_loss loss);

static const struct link_op_type exists_type = {on_exists, on_exists_lost};

static void count_unheard(struct dependency_watches *watches, int by)
{
    atomic_fetch_add_explicit(&watches->n_unheard, (size_t)by, memory_order_relaxed);
}

/* NULL: no memory. */
static struct watch *find_or_make(struct dependency_watches *watches, struct bytes key,
                                  int64_t now_us)
{
    const uint64_t hash = cache_hash(key);
    struct watch *watch = find(watches, key, hash);
    struct watch **bucket;

    if (watch != NULL) {
        return watch;
    }
    if (watches->n == watches->room && !grow(watches)) {
        return NULL;
    }
    watch = mem_try_alloc(sizeof(*watch) + key.len);
    if (watch == NULL) {
        return NULL;
    }
    memset(watch, 0, sizeof(*watch));
    watch->magic = WATCH_MAGIC;
    watch->watches = watches;
    watch->op.type = &exists_type;
    watch->op.collect = LINK_COLLECT_MIN;
    watch->hash = hash;
    memcpy(watch->room, key.ptr, key.len);
    watch->key = bytes_make(watch->room, key.len);
    watch->unheard_since_us = watch->dropped_at_us = now_us;
    watch->index = watches->n;
    watches->items[watches->n++] = watch;
    bucket = bucket_of(watches, hash);
    watch->next = *bucket;
    *bucket = watch;
    count_unheard(watches, 1);
    atomic_store_explicit(&watches->n_watched, watches->n, memory_order_relaxed);
    return watch;
}

/* Its op may still be under way, and it may stand among those that are due. */
static void free_if_unused(struct watch *watch)
{
    if (watch->is_gone && !watch->is_sent && !watch->is_due) {
        watch->magic = 0;
        mem_free(watch);
    }
}

static void drop_watch(struct watch *watch)
{
    struct dependency_watches *watches = watch->watches;
    struct watch **at = bucket_of(watches, watch->hash);

    while (*at != watch) {
        at = &(*at)->next;
    }
    *at = watch->next;
    watches->n--;
    watches->items[watch->index] = watches->items[watches->n];
    watches->items[watch->index]->index = watch->index;
    atomic_store_explicit(&watches->n_watched, watches->n, memory_order_relaxed);
    if (watch->unheard_since_us != 0) {
        count_unheard(watches, -1);
    }
    watch->is_gone = true;
}

/* ---- asks ---- */

static void on_answer(struct mail *mail)
{
    struct ask *ask = CONTAINER_OF(mail, struct ask, mail);

    ask->done(ask->context, ask->is_heard);
    mem_free(ask);
}

static void answer(struct ask *ask, bool is_heard)
{
    ask->is_heard = is_heard;
    ask->mail.run = on_answer;
    worker_post(ask->asker->worker, &ask->mail);
}

static void answer_all(struct watch *watch, bool is_heard, int64_t now_us)
{
    struct ask **at = &watch->asks;

    while (*at != NULL) {
        struct ask *ask = *at;

        if (is_heard || watch->is_gone || now_us >= ask->until_us) {
            *at = ask->next;
            answer(ask, is_heard);
        } else {
            at = &ask->next;
        }
    }
}

/* ---- arming ---- */

static void cascade(struct watch *watch, enum dependency_cause cause, int64_t now_us)
{
    struct coherence *home = watch->watches->home;

    watch->dropped_at_us = now_us;
    dependencies_cascade(home->fleet, home, watch->key, cause);
}

static void set_armed(struct watch *watch, int64_t now_us)
{
    const enum dependency_cause cause = watch->was_told ? DEPENDENCY_HEARD : DEPENDENCY_MISSED;

    watch->is_armed = true;
    watch->was_told = false;
    watch->armed_at_us = now_us;
    cascade(watch, cause, now_us);
}

static void arm(struct watch *watch, const struct way *way, int64_t now_us)
{
    struct dependency_watches *watches = watch->watches;
    char head[64];
    const int length = snprintf(head, sizeof(head), OWN_EXISTS "$%zu\r\n", watch->key.len);
    const struct bytes parts[] = {bytes_make(head, (size_t)length), watch->key, BYTES("\r\n")};
    struct backend_node *node = backend_by_id(watches->home->backend, way->node);
    struct link *link = &node->links[LINK_TRACKING];

    watch->tried_at_us = now_us;
    watch->n_in_tick = watch->tick == watches->tick ? watch->n_in_tick + 1 : 1;
    watch->tick = watches->tick;
    watch->way = *way;
    if (way->mode != COHERENCE_TRACKING) {
        set_armed(watch, now_us);
        return;
    }
    watches->n_arms++;
    if (link_send(link, link->db, parts, 3, 1, &watch->op) == 0) {
        watch->is_sent = true;
        stats_add(METRIC_dependency_watches_armed, 1);
    }
}

static void on_exists(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                      bool is_first, bool is_last)
{
    struct watch *watch = CONTAINER_OF(op, struct watch, op);
    const struct coherence_fleet *fleet = watch->watches->home->fleet;
    const int64_t now_us = clock_now_us();

    (void)link;
    (void)index;
    (void)is_first;
    if (!is_last) {
        return;
    }
    CHECK(watch->magic == WATCH_MAGIC);
    watch->is_sent = false;
    if (watch->is_gone) {
        free_if_unused(watch);
        return;
    }
    if (part.len > 1 && part.ptr[0] == ':') {
        const bool is_missing = part.ptr[1] == '0';
        const bool is_known = watch->is_armed && is_missing == watch->is_missing;

        watch->is_missing = is_missing;
        watch->armed_at_us = now_us;
        if (!is_known) {
            set_armed(watch, now_us);
        }
    } else {
        /* A slot on its way elsewhere, or a node that is not ready. */
        watch->is_armed = false;
        stats_add(METRIC_dependency_watches_refused, 1);
        if (fleet->request_refresh != NULL) {
            fleet->request_refresh(fleet->refresh_context);
        }
    }
    set_due(watch);
}

static void on_exists_lost(struct link_op *op, struct link *link, enum link_loss loss)
{
    struct watch *watch = CONTAINER_OF(op, struct watch, op);

    (void)link;
    (void)loss;
    watch->is_sent = false;
    watch->is_armed = false;
    free_if_unused(watch);
}

/* ---- visits ---- */

/* Of a key that is not there: in a cluster it may come into being where its slot is imported. */
static bool wants_recheck(const struct watch *watch, int64_t now_us)
{
    const struct coherence *home = watch->watches->home;

    return watch->is_missing && watch->way.mode == COHERENCE_TRACKING &&
           home->backend->topology->is_cluster &&
           now_us - watch->armed_at_us >= home->config->max_staleness_ms * 1000;
}

static bool may_arm(const struct watch *watch, int64_t now_us)
{
    if (watch->is_sent || watch->watches->n_arms >= ARMS_MAX) {
        return false;
    }
    if (watch->was_told) {
        return watch->tick != watch->watches->tick || watch->n_in_tick < REARMS_PER_TICK;
    }
    return watch->tried_at_us == 0 || now_us - watch->tried_at_us >= RETRY_US;
}

static void note_heard(struct watch *watch, bool is_heard, int64_t now_us)
{
    const int64_t bound_us = watch->watches->home->config->max_staleness_ms * 1000;

    if (is_heard) {
        if (watch->unheard_since_us != 0) {
            watch->unheard_since_us = 0;
            count_unheard(watch->watches, -1);
        }
    } else if (watch->unheard_since_us == 0) {
        watch->unheard_since_us = now_us;
        count_unheard(watch->watches, 1);
    } else if (now_us - watch->unheard_since_us >= bound_us &&
               now_us - watch->dropped_at_us >= bound_us) {
        cascade(watch, DEPENDENCY_MISSED, now_us);
        stats_add(METRIC_dependency_watches_deaf, 1);
    }
}

/* False: it is no source any more, and gone. */
static bool visit(struct watch *watch, int64_t now_us)
{
    struct dependency_watches *watches = watch->watches;
    struct dependencies *dependencies = watches->home->fleet->dependencies;
    const uint64_t serial = atomic_load_explicit(&dependencies->serial, memory_order_relaxed);
    const struct way way = find_way(watches, watch->key, now_us);

    if (watch->serial != serial) {
        watch->serial = serial;
        if (!dependencies_is_source(dependencies, watch->key)) {
            drop_watch(watch);
            answer_all(watch, false, now_us);
            return false;
        }
    }
    if (watch->is_armed && !is_same_way(&way, &watch->way)) {
        watch->is_armed = watch->was_told = false;
        watch->tried_at_us = 0;
        cascade(watch, DEPENDENCY_MISSED, now_us);
    }
    if (way.is_open && may_arm(watch, now_us) &&
        (!watch->is_armed || wants_recheck(watch, now_us))) {
        arm(watch, &way, now_us);
    }
    note_heard(watch, watch->is_armed && way.is_open, now_us);
    answer_all(watch, watch->is_armed && way.is_open, now_us);
    return true;
}

static void visit_due(struct dependency_watches *watches, int64_t now_us)
{
    struct watch *watch = watches->first_due;

    watches->first_due = NULL;
    while (watch != NULL) {
        struct watch *const next = watch->next_due;

        watch->is_due = false;
        if (watch->is_gone || !visit(watch, now_us)) {
            free_if_unused(watch);
        } else if (watch->asks != NULL || (!watch->is_armed && watch->was_told)) {
            set_due(watch);
        }
        watch = next;
    }
}

static void visit_in_turn(struct dependency_watches *watches, int64_t now_us)
{
    unsigned n = watches->n / TICKS_PER_ROUND;

    n = n < VISITS_MIN ? VISITS_MIN : n;
    for (n = n < watches->n ? n : watches->n; n > 0 && watches->n > 0; n--) {
        struct watch *watch;

        watches->at = watches->at < watches->n ? watches->at : 0;
        watch = watches->items[watches->at];
        if (visit(watch, now_us)) {
            watches->at++;
        } else {
            free_if_unused(watch);
        }
    }
}

/* ---- sources that came with the ledger ---- */

static void take_sources(struct dependency_watches *watches, struct bytes list, int64_t now_us)
{
    struct bytes name, last = {0};

    while (dependencies_next_name(&list, &name)) {
        if (owner_of(watches->home->fleet, cache_hash(name)) == watches->home->worker->index) {
            (void)find_or_make(watches, name, now_us);
        }
        last = name;
    }
    buffer_consume(&watches->cursor, buffer_len(&watches->cursor));
    if (last.len > 0 && buffer_append(&watches->cursor, last) != 0) {
        watches->seen_serial = 0;
    }
}

static void look_for_sources(struct dependency_watches *watches, int64_t now_us)
{
    struct dependencies *dependencies = watches->home->fleet->dependencies;
    const uint64_t serial = atomic_load_explicit(&dependencies->serial, memory_order_relaxed);
    const bool is_beginning = buffer_len(&watches->cursor) == 0;
    struct buffer list;
    struct bytes rest, name;
    unsigned n = 0;

    if (is_beginning && serial == watches->seen_serial) {
        return;
    }
    if (is_beginning) {
        watches->round_serial = serial;
    }
    buffer_init(&list);
    if (dependencies_list_sources(dependencies, buffer_bytes(&watches->cursor), SOURCES_PER_TICK,
                                  &list) == 0) {
        for (rest = buffer_bytes(&list); dependencies_next_name(&rest, &name);) {
            n++;
        }
        take_sources(watches, buffer_bytes(&list), now_us);
        if (n < SOURCES_PER_TICK) {
            buffer_consume(&watches->cursor, buffer_len(&watches->cursor));
            watches->seen_serial = watches->round_serial;
        }
    }
    buffer_fini(&list);
}

/* ---- the sources of rules: the first worker ---- */

static int ear_mode(const struct track *track)
{
    const int mode = modes_now(track, track->coherence->config->coherence);

    return mode == COHERENCE_TRACKING ? COHERENCE_BROADCAST : mode;
}

/*
 * True when every master's ear hears. *sign: another one when any of them may have missed some.
 * *is_told: none of them is in mode ttl.
 */
static bool are_rules_heard(const struct dependency_watches *watches, uint64_t *sign, bool *is_told,
                            int64_t now_us)
{
    const struct coherence *home = watches->home;
    bool are_heard = home->backend->topology != NULL;

    *is_told = home->config->coherence != COHERENCE_TTL;
    *sign = 1;
    for (const struct backend_node *node = home->backend->nodes; node != NULL; node = node->next) {
        const struct track *track = node->track;
        struct way way;

        if (node->info == NULL || !node->info->is_master) {
            continue;
        }
        if (home->config->coherence == COHERENCE_TTL) {
            continue;
        }
        if (!link_is_up(track->link) || track->is_probing) {
            are_heard = false;
            continue;
        }
        const int mode = ear_mode(track);

        if (!is_told_of(mode)) {
            *is_told = false;
            continue;
        }
        way = way_of_ear(watches, track, mode == COHERENCE_BROADCAST ? EAR_BROADCAST : EAR_KEYSPACE,
                         mode, now_us);
        are_heard = are_heard && way.is_open;
        *sign = (*sign ^ way.node ^ (way.n_losses << 32) ^ (uint64_t)way.mode) *
                UINT64_C(0x9e3779b97f4a7c15);
    }
    return are_heard;
}

static void tick_rules(struct dependency_watches *watches, int64_t now_us)
{
    struct coherence *home = watches->home;
    uint64_t sign;
    bool are_heard, is_told;

    if (home->config->n_dependencies == 0) {
        return;
    }
    are_heard = are_rules_heard(watches, &sign, &is_told, now_us);
    atomic_store_explicit(&home->fleet->dependencies->is_told, are_heard && is_told,
                          memory_order_relaxed);
    if ((are_heard && (sign != watches->rules_sign || watches->were_rules_deaf)) ||
        (!are_heard &&
         now_us - watches->rules_dropped_at_us >= home->config->max_staleness_ms * 1000)) {
        watches->rules_dropped_at_us = now_us;
        dependencies_cascade_rules(home);
        stats_add(METRIC_dependency_rules_deaf, !are_heard);
    }
    if (are_heard) {
        watches->rules_sign = sign;
    }
    watches->were_rules_deaf = !are_heard;
}

void dependency_watches_tick(struct dependency_watches *watches, int64_t now_us)
{
    struct coherence *home = watches->home;

    if (home->fleet->dependencies == NULL) {
        return;
    }
    errands_tick(watches->errands, now_us);
    watches->n_arms = 0;
    watches->tick++;
    if (atomic_load_explicit(&home->fleet->dependencies->has_relations, memory_order_relaxed) ||
        watches->n > 0) {
        look_for_sources(watches, now_us);
        visit_due(watches, now_us);
        visit_in_turn(watches, now_us);
    }
    if (home->worker->index == 0) {
        tick_rules(watches, now_us);
        dependencies_tick(home->fleet->dependencies);
    }
}

/* ---- from outside ---- */

void dependency_watch_heard(const struct coherence *coherence, struct bytes key)
{
    struct dependency_watches *watches = coherence->watches;
    const int64_t now_us = clock_now_us();
    struct watch *watch;

    dependencies_cascade(coherence->fleet, watches->home, key, DEPENDENCY_HEARD);
    watch = find(watches, key, cache_hash(key));
    if (watch == NULL || watch->way.mode != COHERENCE_TRACKING) {
        return;
    }
    watch->is_armed = false;
    watch->was_told = true;
    if (watch->is_sent) {
        return; /* the answer is behind the message, and arms it */
    }
    if (visit(watch, now_us)) {
        set_due(watch);
    } else {
        free_if_unused(watch);
    }
}

static void on_ask(struct mail *mail)
{
    struct ask *ask = CONTAINER_OF(mail, struct ask, mail);
    struct dependency_watches *watches = ask->owner->watches;
    const int64_t now_us = clock_now_us();
    struct watch *watch = find_or_make(watches, ask->source, now_us);

    if (watch == NULL) {
        answer(ask, false);
        return;
    }
    ask->until_us = now_us + ASK_US;
    ask->next = watch->asks;
    watch->asks = ask;
    (void)visit(watch, now_us);
    if (watch->is_gone) {
        free_if_unused(watch);
    } else {
        set_due(watch);
    }
}

bool dependency_watch_ask(struct coherence *from, struct bytes source, dependency_heard_fn done,
                          void *context)
{
    struct coherence_fleet *fleet = from->fleet;
    struct ask *ask = mem_try_alloc(sizeof(*ask) + source.len);

    if (ask == NULL) {
        return false;
    }
    memset(ask, 0, sizeof(*ask));
    memcpy(ask->room, source.ptr, source.len);
    ask->source = bytes_make(ask->room, source.len);
    ask->asker = from;
    ask->owner = fleet->members[owner_of(fleet, cache_hash(source))];
    ask->done = done;
    ask->context = context;
    ask->mail.run = on_ask;
    worker_post(ask->owner->worker, &ask->mail);
    return true;
}

void dependency_watches_count(const struct coherence_fleet *fleet, size_t *n_watched,
                              size_t *n_unheard)
{
    *n_watched = *n_unheard = 0;
    for (unsigned i = 0; i < fleet->n_members; i++) {
        const struct dependency_watches *watches = fleet->members[i]->watches;

        *n_watched += atomic_load_explicit(&watches->n_watched, memory_order_relaxed);
        *n_unheard += atomic_load_explicit(&watches->n_unheard, memory_order_relaxed);
    }
}

/* ---- UNLINK ---- */

static void on_unlinked(void *context, const struct errand_answer *answer)
{
    struct dependency_watches *watches = context;

    watches->n_unlinks--;
    stats_add(answer->error == NULL ? METRIC_dependency_unlinks : METRIC_dependency_unlinks_failed,
              1);
}

void dependency_watch_unlink(struct coherence *coherence, struct bytes key)
{
    struct dependency_watches *watches = coherence->watches;
    const struct topology *topology = coherence->backend->topology;
    char head[64];
    const int length = snprintf(head, sizeof(head), "*2\r\n$6\r\nUNLINk\r\n$%zu\r\n", key.len);
    struct errand_order order = {
        .slot = topology != NULL && topology->is_cluster ? command_key_slot(key) : 0,
        .db = coherence->backend->login->db,
        .n_replies = 1,
        .done = on_unlinked,
        .context = watches,
    };
    struct buffer request;
    bool is_good;

    buffer_init(&request);
    is_good = watches->n_unlinks < UNLINKS_MAX &&
              buffer_append(&request, bytes_make(head, (size_t)length)) == 0 &&
              buffer_append(&request, key) == 0 && buffer_append(&request, BYTES("\r\n")) == 0;
    order.requests = buffer_bytes(&request);
    if (is_good && errand_run(watches->errands, &order)) {
        watches->n_unlinks++;
    } else {
        stats_add(METRIC_dependency_unlinks_failed, 1);
    }
    buffer_fini(&request);
}

/* ---- life ---- */

struct dependency_watches *dependency_watches_new(struct coherence *home)
{
    struct dependency_watches *watches = mem_alloc(sizeof(*watches));

    watches->home = home;
    watches->errands = errands_new(home);
    buffer_init(&watches->cursor);
    home->watches = watches;
    dependency_watches_set_config(watches);
    return watches;
}

void dependency_watches_set_config(struct dependency_watches *watches)
{
    for (enum ear_kind kind = 0; kind < N_EARS; kind++) {
        prefixes_fini(&watches->prefixes[kind]);
        ear_make_prefixes(&watches->prefixes[kind], kind, watches->home->config);
    }
}

void dependency_watches_free(struct dependency_watches **watches)
{
    struct dependency_watches *gone = *watches;

    *watches = NULL;
    if (gone == NULL) {
        return;
    }
    errands_stop(gone->errands);
    errands_free(&gone->errands);
    while (gone->first_due != NULL) {
        struct watch *watch = gone->first_due;

        gone->first_due = watch->next_due;
        watch->is_due = false;
        free_if_unused(watch);
    }
    for (unsigned i = 0; i < gone->n; i++) {
        struct ask *ask;

        while ((ask = gone->items[i]->asks) != NULL) {
            gone->items[i]->asks = ask->next;
            mem_free(ask);
        }
        mem_free(gone->items[i]);
    }
    for (enum ear_kind kind = 0; kind < N_EARS; kind++) {
        prefixes_fini(&gone->prefixes[kind]);
    }
    mem_free(gone->items);
    mem_free(gone->buckets);
    buffer_fini(&gone->cursor);
    mem_free(gone);
}
