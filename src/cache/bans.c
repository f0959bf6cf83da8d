/*
 * A look-up must know at once that its entry has been judged by every ban. So each bucket of the
 * table has a mark, each shard the mark of the newest ban. In a bucket whose mark differs all
 * entries are judged before one is put in beside them (bans_settle_locked()), and what a look-up
 * finds before it is shown (bans_settle_found_locked()); the sweep visits the rest. So every entry
 * is judged once per ban, by whoever meets it first, and no entry by a ban that was set before it
 * was fetched. (While a table grows, one may be that comes into a bucket which has waited longer;
 * that costs a fetch.) A flight has the number of the newest ban when it began.
 *
 * Marks have 16 bits. Should they run out before the sweep has been round, the shards get one that
 * no bucket can have, and every look-up judges its bucket until it has.
 *
 * Bans are read under a shard's lock, as an immutable set. A change makes a new set and then takes
 * the lock of every shard in turn, after which nobody reads the old one.
 */
#include "cache/bans.h"

#include "base/clock.h"
#include "base/mem.h"
#include "cache/shard.h"

/* What no bucket's mark equals. */
#define MARK_NEVER UINT32_C(0x10000)
#define MARKS 65535u
/* Steps of one comparison; a longer one is called a match, which costs a fetch and no more. */
#define GLOB_STEPS ((size_t)1 << 16)
#define MAX_BANS_DEFAULT 256u
#define MAX_TAG_BANS_DEFAULT 100000u

struct ban {
    struct ban_rule rule;
    enum metric reason;
    uint64_t serial, id, pass;
    int64_t set_at_us, expires_at_us;
    bool is_standing, is_settled; /* is_settled: a fact of the set that holds it */
    _Atomic uint64_t n_dropped;   /* atomic */
    unsigned char text[];
};

/* ---- judging: under a shard's lock ---- */

static bool matches_name(const struct cache *cache, const struct ban_rule *rule, struct bytes key,
                         int ns)
{
    switch (rule->kind) {
    case BAN_ANY_NAME:
        return true;
    case BAN_PREFIX:
        return bytes_start_with(key, rule->name);
    case BAN_GLOB:
        return (rule->name.len > 0 && key.len > GLOB_STEPS / rule->name.len) ||
               bytes_match_glob(rule->name, key);
    case BAN_TAG:
        return tag_bans_has(&cache->bans.tags, ns, key, rule->name);
    }
    return false;
}

static bool matches_key(const struct cache *cache, const struct ban_rule *rule, struct bytes key,
                        int ns)
{
    return (rule->ns < 0 || ns < 0 || rule->ns == ns) && matches_name(cache, rule, key, ns);
}

/* The set, or NULL when none of it is newer than what has this serial. */
static const struct ban_set *pending_since(const struct cache *cache, uint64_t serial)
{
    const struct ban_set *set = atomic_load_explicit(&cache->bans.set, memory_order_acquire);

    return set != NULL && set->n_pending > 0 && set->newest > serial ? set : NULL;
}

/* Its age and size are not known yet: what may match does. */
bool bans_match_flight(const struct cache *cache, const struct cache_flight *flight, int ns)
{
    const struct ban_set *set = pending_since(cache, flight->ban_serial);

    enum metric reason;

    for (unsigned i = 0; set != NULL && i < set->n && set->items[i]->serial > flight->ban_serial;
         i++) {
        if (matches_key(cache, &set->items[i]->rule, flight->key, ns)) {
            return true;
        }
    }
    return tag_bans_since(&cache->bans.tags, flight->ban_serial) &&
           tag_bans_match(&cache->bans.tags, ns, flight->key, flight->ban_serial, &reason);
}

/* Of an entry, when the ban was set; milliseconds. */
static int64_t age_at(const struct ban *ban, const struct entry *entry, int64_t now_us)
{
    const int64_t age_s = entry_age(entry->filled, now_us);

    return age_s == INT64_MAX ? INT64_MAX : age_s * 1000 - (now_us - ban->set_at_us) / 1000;
}

/* All but the age. */
static bool matches_entry(const struct cache *cache, const struct ban_rule *rule,
                          const struct entry *entry)
{
    return matches_key(cache, rule, entry_key(entry), entry->ns) &&
           (rule->min_bytes == 0 || entry_measure(entry).cost >= rule->min_bytes);
}

/* since: the newest ban that it has been judged by, or was fetched after. */
static struct ban *find_for_entry(const struct cache *cache, const struct ban_set *set,
                                  const struct entry *entry, uint64_t since, int64_t now_us)
{
    for (unsigned i = 0; i < set->n; i++) {
        struct ban *ban = set->items[i];

        if ((ban->serial > since || ban->is_standing) && matches_entry(cache, &ban->rule, entry) &&
            (ban->rule.min_age_ms == 0 || age_at(ban, entry, now_us) >= ban->rule.min_age_ms)) {
            return ban;
        }
    }
    return NULL;
}

/* How many marks ago. */
static uint32_t marks_since(uint32_t mark, uint32_t now)
{
    return (now + MARKS - mark) % MARKS;
}

/* The newest ban that all in the bucket have been judged by. */
static uint64_t serial_of(const struct shard *shard, const struct table_bucket *bucket)
{
    if (bucket->mark == 0 || shard->ban_mark == MARK_NEVER) {
        return 0;
    }
    return shard->ban_serial - marks_since(bucket->mark, shard->ban_mark);
}

static bool has_banned_tag(const struct cache *cache, const struct entry *entry, uint64_t since,
                           enum metric *reason)
{
    return tag_bans_since(&cache->bans.tags, since) &&
           tag_bans_match(&cache->bans.tags, entry->ns, entry_key(entry), since, reason);
}

bool bans_match_entry(const struct cache *cache, const struct shard *shard,
                      const struct table_bucket *bucket, const struct entry *entry, int64_t now_us)
{
    const uint64_t since = serial_of(shard, bucket);
    const struct ban_set *set = pending_since(cache, since);
    enum metric reason;

    return (set != NULL && find_for_entry(cache, set, entry, since, now_us) != NULL) ||
           has_banned_tag(cache, entry, since, &reason);
}

/* Standing bans that ask for an age end the entry when it reaches that. */
static void cap_entry(const struct cache *cache, const struct ban_set *set, struct entry *entry,
                      int64_t now_us)
{
    uint32_t deadline;

    for (unsigned i = 0; set->n_standing > 0 && i < set->n; i++) {
        const struct ban *ban = set->items[i];

        if (ban->is_standing && ban->rule.min_age_ms > 0 &&
            matches_entry(cache, &ban->rule, entry)) {
            const int64_t left_ms = ban->rule.min_age_ms - age_at(ban, entry, now_us);

            if (!entry_deadline(ban->set_at_us + left_ms * 1000, now_us, &deadline)) {
                deadline = entry_tick(now_us);
                deadline += deadline == 0;
            }
            entry_cap_deadline(entry, deadline);
        }
    }
}

bool bans_refuse(const struct cache *cache, struct bytes key, const struct cache_fill *fill,
                 size_t cost, uint32_t *deadline, int64_t now_us)
{
    const struct ban_set *set = atomic_load_explicit(&cache->bans.set, memory_order_acquire);

    if (NC_LIKELY(set == NULL || set->n_standing == 0)) {
        return false;
    }
    for (unsigned i = 0; i < set->n; i++) {
        struct ban *ban = set->items[i];
        uint32_t end;

        if (!ban->is_standing || now_us >= ban->expires_at_us ||
            !matches_key(cache, &ban->rule, key, fill->ns) || cost < ban->rule.min_bytes) {
            continue;
        }
        if (ban->rule.min_age_ms == 0 ||
            !entry_deadline(now_us + ban->rule.min_age_ms * 1000, now_us, &end)) {
            atomic_fetch_add_explicit(&ban->n_dropped, 1, memory_order_relaxed);
            return true;
        }
        if (*deadline == 0 || (int32_t)(*deadline - end) > 0) {
            *deadline = end;
        }
    }
    return false;
}

/* set: NULL where no ban of it is newer. */
static void judge_locked(struct cache *cache, struct shard *shard, const struct ban_set *set,
                         uint32_t ref, uint64_t since, int64_t now_us, struct shard_work *work)
{
    struct entry *entry = entry_at(ref);
    struct ban *ban = set != NULL ? find_for_entry(cache, set, entry, since, now_us) : NULL;
    enum metric reason;

    if (ban != NULL) {
        atomic_fetch_add_explicit(&ban->n_dropped, 1, memory_order_relaxed);
        reason = ban->reason;
    } else if (!has_banned_tag(cache, entry, since, &reason)) {
        if (set != NULL) {
            cap_entry(cache, set, entry, now_us);
        }
        return;
    }
    stats_add(reason, 1);
    stats_ns_add(entry->ns, NS_METRIC_invalidated, 1);
    gone_put(&shard->gone, entry_hash(entry), GONE_INVALIDATED);
    shard_remove_locked(cache, shard, entry, entry_hash(entry), work);
}

void bans_settle_locked(struct cache *cache, struct shard *shard, struct table_bucket *bucket,
                        struct shard_work *work)
{
    const uint64_t since = serial_of(shard, bucket);
    const struct ban_set *set = pending_since(cache, since);
    const bool has_any = set != NULL || tag_bans_since(&cache->bans.tags, since);
    const int64_t now_us = set != NULL ? clock_now_us() : 0;

    for (unsigned i = 0; has_any && i < TABLE_SLOTS; i++) {
        if (bucket->tags[i] != 0) {
            judge_locked(cache, shard, set, bucket->refs[i], since, now_us, work);
        }
    }
    /* MARK_NEVER becomes 0, and differs. */
    bucket->mark = (uint16_t)shard->ban_mark;
}

/*
 * Where tags of rules alone are new, the entry that was found is judged alone, and the bucket keeps
 * its mark: with a thousand of them in a second almost every look-up meets another mark, and would
 * judge a dozen entries to show one. One time in LATE_ROUND the whole bucket is, so that one that
 * is looked up all the time pays no more than twice what it had to.
 */
#define LATE_ROUND 8u

void bans_settle_found_locked(struct cache *cache, struct shard *shard, struct table_bucket *bucket,
                              uint32_t ref, struct shard_work *work)
{
    const uint64_t since = serial_of(shard, bucket);

    if (pending_since(cache, since) != NULL || ++shard->n_late % LATE_ROUND == 0 ||
        !tag_bans_since(&cache->bans.tags, since)) {
        bans_settle_locked(cache, shard, bucket, work);
    } else {
        judge_locked(cache, shard, NULL, ref, since, 0, work);
    }
}

void bans_note_gone_locked(struct cache *cache, const struct shard *shard,
                           const struct table_bucket *bucket, const struct entry *entry)
{
    _Atomic int64_t *doomed = &cache->bans.ns_doomed[entry->ns];

    if (NC_UNLIKELY(bucket->mark != shard->ban_mark) &&
        atomic_load_explicit(doomed, memory_order_relaxed) > 0 &&
        serial_of(shard, bucket) <
            atomic_load_explicit(&cache->bans.ns_serial[entry->ns], memory_order_relaxed)) {
        atomic_fetch_sub_explicit(doomed, 1, memory_order_relaxed);
    }
}

/* ---- sets: under the lock of the bans ---- */

static struct ban_set *set_of(const struct cache *cache)
{
    return atomic_load_explicit(&cache->bans.set, memory_order_relaxed);
}

static struct ban_set *set_new(unsigned room)
{
    return mem_alloc(sizeof(struct ban_set) + room * sizeof(struct ban *));
}

static void set_put(struct ban_set *set, struct ban *ban)
{
    if (set->n_pending == 0 && !ban->is_settled) {
        set->newest = ban->serial;
    }
    set->n_pending += !ban->is_settled;
    set->n_standing += ban->is_standing;
    set->items[set->n++] = ban;
}

static uint32_t mark_of(const struct bans *bans)
{
    if (bans->serial == 0) {
        return 0;
    }
    return bans->serial - bans->serial_settled >= MARKS ? MARK_NEVER
                                                        : (uint32_t)(1 + bans->serial % MARKS);
}

/* Bans of the old set that the new one lacks, which keeps the order, are freed. */
static void free_gone(struct ban_set *old, const struct ban_set *set)
{
    unsigned kept;

    if (old == NULL) {
        return;
    }
    /* Only the newest one may be new. */
    kept = set != NULL && set->items[0]->serial > old->items[0]->serial ? 1 : 0;
    for (unsigned i = 0; i < old->n; i++) {
        if (set != NULL && kept < set->n && set->items[kept] == old->items[i]) {
            kept++;
        } else {
            mem_free(old->items[i]);
        }
    }
    mem_free(old);
}

/* After this nobody reads what was there before. */
static void tell_shards(struct cache *cache)
{
    for (unsigned i = 0; i < cache->n_shards; i++) {
        struct shard *shard = &cache->shards[i];

        pthread_mutex_lock(&shard->lock);
        shard->ban_mark = mark_of(&cache->bans);
        shard->ban_serial = cache->bans.serial;
        pthread_mutex_unlock(&shard->lock);
    }
}

static void publish(struct cache *cache, struct ban_set *set)
{
    struct bans *bans = &cache->bans;
    struct ban_set *old = set_of(cache);

    if (set != NULL && set->n == 0) {
        mem_free(set);
        set = NULL;
    }
    bans->first_expiry_us = CACHE_NO_DEADLINE;
    for (unsigned i = 0; set != NULL && i < set->n; i++) {
        if (set->items[i]->expires_at_us < bans->first_expiry_us) {
            bans->first_expiry_us = set->items[i]->expires_at_us;
        }
    }
    /* Release: partner are the loads under a shard's lock. */
    atomic_store_explicit(&bans->set, set, memory_order_release);
    tell_shards(cache);
    free_gone(old, set);
}

/* ---- adding ---- */

static bool is_same_rule(const struct ban_rule *a, const struct ban_rule *b)
{
    return a->kind == b->kind && a->ns == b->ns && a->min_age_ms == b->min_age_ms &&
           a->min_bytes == b->min_bytes && bytes_equal(a->name, b->name);
}

static bool is_whole(const struct ban_rule *rule)
{
    return rule->kind == BAN_ANY_NAME && rule->min_age_ms == 0 && rule->min_bytes == 0;
}

/* A later one makes it needless: it drops the same, or more. */
static bool is_covered(const struct ban *ban, const struct ban_rule *by)
{
    return !ban->is_standing && (is_same_rule(&ban->rule, by) ||
                                 (is_whole(by) && (by->ns < 0 || by->ns == ban->rule.ns)));
}

static struct ban *ban_new(const struct ban_order *order, const struct bans *bans, int64_t now_us)
{
    struct ban *ban = mem_alloc(sizeof(*ban) + order->rule.name.len);

    ban->rule = order->rule;
    ban->rule.name = bytes_make(ban->text, order->rule.name.len);
    if (order->rule.name.len > 0) {
        memcpy(ban->text, order->rule.name.ptr, order->rule.name.len);
    }
    ban->reason = order->reason;
    ban->serial = bans->serial;
    ban->set_at_us = now_us;
    ban->id = order->id;
    ban->pass = bans->pass;
    ban->is_standing = order->is_standing;
    ban->expires_at_us = order->is_standing ? order->expires_at_us : CACHE_NO_DEADLINE;
    return ban;
}

/* Entries of the namespace that have not been dropped by a ban of it before; now they are. */
static uint64_t doom(struct cache *cache, unsigned ns)
{
    const int64_t n = (int64_t)atomic_load_explicit(&cache->ns_entries[ns], memory_order_relaxed);
    const int64_t doomed = atomic_load_explicit(&cache->bans.ns_doomed[ns], memory_order_relaxed);

    atomic_store_explicit(&cache->bans.ns_serial[ns], cache->bans.serial, memory_order_relaxed);
    atomic_store_explicit(&cache->bans.ns_doomed[ns], n, memory_order_relaxed);
    return n > doomed ? (uint64_t)(n - (doomed > 0 ? doomed : 0)) : 0;
}

static uint64_t doom_all(struct cache *cache, const struct ban_rule *rule)
{
    uint64_t n = 0;

    if (!is_whole(rule)) {
        return 0;
    }
    for (unsigned ns = 0; ns < 256; ns++) {
        if (rule->ns < 0 || rule->ns == (int)ns) {
            n += doom(cache, ns);
        }
    }
    return n;
}

/* What there is, without what the rule covers and without the one that is replaced; ban first. */
static void add_locked(struct cache *cache, struct ban *ban)
{
    const struct ban_set *old = set_of(cache);
    struct ban_set *set = set_new((old != NULL ? old->n : 0) + 1);

    set_put(set, ban);
    for (unsigned i = 0; old != NULL && i < old->n; i++) {
        struct ban *other = old->items[i];

        if (!is_covered(other, &ban->rule) &&
            !(ban->is_standing && other->is_standing && other->id == ban->id)) {
            set_put(set, other);
        }
    }
    publish(cache, set);
}

/* Of those that wait for the sweep, how many the rule does not cover. */
static unsigned n_kept(const struct ban_set *set, const struct ban_rule *rule)
{
    unsigned n = 0;

    for (unsigned i = 0; set != NULL && i < set->n; i++) {
        n += !set->items[i]->is_standing && !is_covered(set->items[i], rule);
    }
    return n;
}

enum ban_outcome bans_add(struct cache *cache, const struct ban_order *order, int64_t now_us,
                          uint64_t *n_held)
{
    struct ban_order chosen = *order;
    enum ban_outcome outcome = BAN_SET;

    *n_held = 0;
    pthread_mutex_lock(&cache->bans.lock);
    const struct ban_set *set = set_of(cache);
    if (set != NULL && order->is_standing && set->n_standing >= cache->bans.max_bans) {
        pthread_mutex_unlock(&cache->bans.lock);
        return BAN_FULL;
    }
    if (!order->is_standing && !is_whole(&order->rule) &&
        n_kept(set, &order->rule) >= cache->bans.max_bans) {
        chosen.rule = (struct ban_rule){.ns = -1};
        outcome = BAN_EVERYTHING;
        stats_add(METRIC_bans_overflowed, 1);
    }
    cache->bans.serial++;
    struct ban *ban = ban_new(&chosen, &cache->bans, now_us);
    *n_held = doom_all(cache, &ban->rule);
    add_locked(cache, ban);
    pthread_mutex_unlock(&cache->bans.lock);
    return outcome;
}

enum ban_outcome bans_add_tag(struct cache *cache, struct bytes tag, bool is_told, int64_t now_us)
{
    const struct ban_order everything = {
        .rule = {.ns = -1},
        .reason = is_told ? METRIC_invalidations_bus : METRIC_invalidations_tag,
    };
    enum ban_outcome outcome = BAN_NONE;

    pthread_mutex_lock(&cache->bans.lock);
    if (tag_bans_know(&cache->bans.tags, tag)) {
        cache->bans.serial++;
        if (tag_bans_put(&cache->bans.tags, tag, cache->bans.serial, is_told)) {
            tell_shards(cache);
            outcome = BAN_SET;
        } else {
            struct ban *ban = ban_new(&everything, &cache->bans, now_us);

            (void)doom_all(cache, &ban->rule);
            add_locked(cache, ban);
            stats_add(METRIC_bans_overflowed, 1);
            outcome = BAN_EVERYTHING;
        }
    }
    pthread_mutex_unlock(&cache->bans.lock);
    return outcome;
}

uint64_t cache_clear(struct cache *cache, int ns, enum metric reason)
{
    const struct ban_order order = {.rule = {.ns = ns}, .reason = reason};
    uint64_t n_held;

    (void)bans_add(cache, &order, clock_now_us(), &n_held);
    return n_held;
}

/* ---- ending ---- */

/* Without those that `goes` names. Nothing is published when there are none and nothing else is
 * new. */
static bool drop_bans(struct cache *cache, bool (*goes)(const struct ban *ban, int64_t what),
                      int64_t what, bool is_new)
{
    const struct ban_set *old = set_of(cache);
    struct ban_set *set;

    if (old == NULL) {
        return false;
    }
    set = set_new(old->n);
    for (unsigned i = 0; i < old->n; i++) {
        if (!goes(old->items[i], what)) {
            set_put(set, old->items[i]);
        }
    }
    if (set->n == old->n && set->n_pending == old->n_pending && !is_new) {
        mem_free(set);
        return false;
    }
    publish(cache, set);
    return true;
}

static bool has_id(const struct ban *ban, int64_t what)
{
    return ban->is_standing && ban->id == (uint64_t)what;
}

static bool is_over(const struct ban *ban, int64_t now_us)
{
    return now_us >= ban->expires_at_us;
}

bool bans_remove(struct cache *cache, uint64_t id)
{
    pthread_mutex_lock(&cache->bans.lock);
    const bool is_found = drop_bans(cache, has_id, (int64_t)id, false);
    pthread_mutex_unlock(&cache->bans.lock);
    return is_found;
}

bool bans_has(struct cache *cache, uint64_t id)
{
    bool is_found = false;

    pthread_mutex_lock(&cache->bans.lock);
    const struct ban_set *set = set_of(cache);
    for (unsigned i = 0; set != NULL && i < set->n && !is_found; i++) {
        is_found = has_id(set->items[i], (int64_t)id);
    }
    pthread_mutex_unlock(&cache->bans.lock);
    return is_found;
}

bool bans_know_tag(struct cache *cache, struct bytes tag)
{
    pthread_mutex_lock(&cache->bans.lock);
    const bool is_known = tag_bans_know(&cache->bans.tags, tag);
    pthread_mutex_unlock(&cache->bans.lock);
    return is_known;
}

void bans_pass_begin(struct cache *cache)
{
    struct bans *bans = &cache->bans;

    pthread_mutex_lock(&bans->lock);
    bans->pass++;
    bans->serial_then = bans->serial;
    pthread_mutex_unlock(&bans->lock);
}

/* One that the pass began after: whatever is older has met it. */
static bool is_done(const struct ban *ban, int64_t pass)
{
    return !ban->is_standing && ban->pass < (uint64_t)pass;
}

/* Standing ones stay, and need not be asked about entries of before any more. */
static void settle_standing(struct cache *cache)
{
    const struct ban_set *set = set_of(cache);

    for (unsigned i = 0; set != NULL && i < set->n; i++) {
        struct ban *ban = set->items[i];

        ban->is_settled = ban->is_settled || ban->pass < cache->bans.pass;
    }
}

void bans_pass_end(struct cache *cache)
{
    struct bans *bans = &cache->bans;

    pthread_mutex_lock(&bans->lock);
    const bool lacked_marks = mark_of(bans) == MARK_NEVER;
    bans->serial_settled = bans->serial_then;
    bans->serial += lacked_marks;
    settle_standing(cache);
    const bool is_changed = drop_bans(cache, is_done, (int64_t)bans->pass, lacked_marks);
    struct tag_table *gone = tag_bans_turn(&bans->tags);
    if (gone != NULL || lacked_marks) {
        tell_shards(cache);
    }
    tag_table_free(gone);
    const struct ban_set *set = set_of(cache);
    if (is_changed && (set == NULL || set->n_pending == 0)) {
        for (unsigned ns = 0; ns < 256; ns++) {
            atomic_store_explicit(&bans->ns_doomed[ns], 0, memory_order_relaxed);
        }
    }
    pthread_mutex_unlock(&bans->lock);
}

/* ---- the sweep ---- */

static bool is_any_pending(struct cache *cache)
{
    pthread_mutex_lock(&cache->bans.lock);
    const struct ban_set *set = set_of(cache);
    const bool is_pending = (set != NULL && set->n_pending > 0) ||
                            tag_bans_since(&cache->bans.tags, 0);
    pthread_mutex_unlock(&cache->bans.lock);
    return is_pending;
}

int64_t bans_section_begin(const struct cache *cache)
{
    return atomic_load_explicit(&cache->bans.set, memory_order_relaxed) != NULL ||
                   tag_bans_since(&cache->bans.tags, 0)
               ? clock_now_us()
               : 0;
}

static void note_longest(_Atomic int64_t *longest, int64_t us)
{
    if (us > atomic_load_explicit(longest, memory_order_relaxed)) {
        atomic_store_explicit(longest, us, memory_order_relaxed);
    }
}

void bans_section_end(struct cache *cache, int64_t began_us)
{
    if (began_us != 0) {
        note_longest(&cache->bans.longest_section_us, clock_now_us() - began_us);
    }
}

/* Buckets between two looks at the clock. */
#define SLICE_BUCKETS 16u

void bans_sweep(struct cache *cache, int64_t now_us, int64_t budget_us)
{
    struct bans *bans = &cache->bans;
    const int64_t began_us = clock_now_us();

    pthread_mutex_lock(&bans->lock);
    if (now_us >= bans->first_expiry_us) {
        (void)drop_bans(cache, is_over, now_us, false);
    }
    pthread_mutex_unlock(&bans->lock);
    if (!is_any_pending(cache)) {
        return;
    }
    do {
        cache_sweep(cache, SLICE_BUCKETS, now_us);
    } while (clock_now_us() - began_us < budget_us && is_any_pending(cache));
    note_longest(&bans->longest_slice_us, clock_now_us() - began_us);
}

void bans_settle_all(struct cache *cache, int64_t now_us)
{
    while (is_any_pending(cache)) {
        cache_sweep(cache, SLICE_BUCKETS, now_us);
    }
}

/* ---- life and figures ---- */

void bans_init(struct cache *cache)
{
    pthread_mutex_init(&cache->bans.lock, NULL);
    cache->bans.max_bans = MAX_BANS_DEFAULT;
    cache->bans.first_expiry_us = CACHE_NO_DEADLINE;
    cache->bans.tags.max = MAX_TAG_BANS_DEFAULT;
}

static struct tag_rules *rules_of(const struct cache *cache)
{
    return atomic_load_explicit(&cache->bans.tags.rules, memory_order_relaxed);
}

void bans_fini(struct cache *cache)
{
    struct tag_rules *rules = rules_of(cache);

    free_gone(set_of(cache), NULL);
    tag_table_free(tag_bans_turn(&cache->bans.tags));
    tag_table_free(tag_bans_turn(&cache->bans.tags));
    tag_rules_unref(&rules);
    pthread_mutex_destroy(&cache->bans.lock);
}

void cache_set_max_bans(struct cache *cache, unsigned max_bans)
{
    pthread_mutex_lock(&cache->bans.lock);
    cache->bans.max_bans = max_bans;
    pthread_mutex_unlock(&cache->bans.lock);
}

void cache_set_max_tag_bans(struct cache *cache, unsigned max)
{
    pthread_mutex_lock(&cache->bans.lock);
    cache->bans.tags.max = max;
    pthread_mutex_unlock(&cache->bans.lock);
}

void cache_set_tag_rules(struct cache *cache, struct tag_rules *rules)
{
    struct tag_table *gone[2];
    struct tag_rules *former;

    pthread_mutex_lock(&cache->bans.lock);
    former = rules_of(cache);
    /* Release: partner is the load in tag_bans_match(). */
    atomic_store_explicit(&cache->bans.tags.rules, tag_rules_ref(rules), memory_order_release);
    gone[0] = tag_bans_turn(&cache->bans.tags);
    gone[1] = tag_bans_turn(&cache->bans.tags);
    tell_shards(cache);
    pthread_mutex_unlock(&cache->bans.lock);
    tag_table_free(gone[0]);
    tag_table_free(gone[1]);
    tag_rules_unref(&former);
}

unsigned bans_list(struct cache *cache, struct ban_info *infos, unsigned max)
{
    unsigned n = 0;

    pthread_mutex_lock(&cache->bans.lock);
    const struct ban_set *set = set_of(cache);
    for (unsigned i = 0; set != NULL && i < set->n && n < max; i++) {
        const struct ban *ban = set->items[i];
        struct ban_info *info = &infos[n];

        if (!ban->is_standing) {
            continue;
        }
        info->id = ban->id;
        info->rule = ban->rule;
        info->expires_at_us = ban->expires_at_us;
        info->is_settled = ban->is_settled;
        info->n_dropped = atomic_load_explicit(&ban->n_dropped, memory_order_relaxed);
        if (ban->rule.name.len > 0) {
            memcpy(info->text, ban->text, ban->rule.name.len);
        }
        info->rule.name = bytes_make(info->text, ban->rule.name.len);
        n++;
    }
    pthread_mutex_unlock(&cache->bans.lock);
    return n;
}

void bans_figures(struct cache *cache, struct bans_figures *figures)
{
    const struct bans *bans = &cache->bans;

    pthread_mutex_lock(&cache->bans.lock);
    const struct ban_set *set = set_of(cache);
    *figures = (struct bans_figures){
        .n_standing = set != NULL ? set->n_standing : 0,
        .n_pending = set != NULL ? set->n_pending : 0,
        .n_tags = tag_bans_count(&bans->tags),
        .longest_section_us = atomic_load_explicit(&bans->longest_section_us, memory_order_relaxed),
        .longest_slice_us = atomic_load_explicit(&bans->longest_slice_us, memory_order_relaxed),
    };
    pthread_mutex_unlock(&cache->bans.lock);
}
