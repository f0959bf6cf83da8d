/*
 * Bucket numbers come from the hash by multiplication, so any number of buckets will do and the
 * table can grow by the arena's size classes. The number is the largest prime that fits: a step
 * then visits every bucket.
 */
#include "cache/table.h"

#include <limits.h>

#include "cache/arena.h"

/* Load limits, in entries per bucket: above 11 of 12 the table grows, under 3 of 12 it shrinks. */
#define LOAD_MAX 11u
#define LOAD_MIN 3u
/* What a shrunken table starts with: half way between the limits. */
#define LOAD_SHRUNK 7u

static bool is_prime(uint32_t n)
{
    if (n % 2 == 0) {
        return n == 2;
    }
    for (uint32_t divisor = 3; (uint64_t)divisor * divisor <= n; divisor += 2) {
        if (n % divisor == 0) {
            return false;
        }
    }
    return true;
}

static void set_half(struct table_half *half, struct table_bucket *buckets, size_t n_bytes)
{
    uint32_t n_buckets = (uint32_t)(n_bytes / sizeof(struct table_bucket));

    while (!is_prime(n_buckets)) {
        n_buckets--;
    }
    *half = (struct table_half){.buckets = buckets, .n_buckets = n_buckets, .n_bytes = n_bytes};
}

void table_init(struct table *table, table_hash_fn hash_of, struct table_bucket *buckets,
                size_t n_bytes)
{
    *table = (struct table){.hash_of = hash_of};
    set_half(&table->now, buckets, n_bytes);
}

static uint32_t next_bucket(const struct table_half *half, uint32_t at, uint32_t step)
{
    return at < half->n_buckets - step ? at + step : at - (half->n_buckets - step);
}

/* There is room: the caller has looked at n_used. */
static struct table_bucket *insert_into(struct table_half *half, uint64_t hash, uint32_t ref)
{
    uint32_t at = table_home(half, hash);

    for (;;) {
        struct table_bucket *bucket = &half->buckets[at];
        const unsigned free_mask = table_matches(bucket, 0);

        if (free_mask != 0) {
            const unsigned slot = (unsigned)__builtin_ctz(free_mask);
            bucket->tags[slot] = table_tag(hash);
            bucket->refs[slot] = ref;
            half->n_used++;
            return bucket;
        }
        if (bucket->overflow < UINT16_MAX) {
            bucket->overflow++;
        }
        at = next_bucket(half, at, table_step(half, hash));
    }
}

struct table_bucket *table_place(const struct table *table, uint64_t hash)
{
    const struct table_half *half = &table->now;
    uint32_t at = table_home(half, hash);

    for (uint32_t left = half->n_buckets; left > 0; left--) {
        if (table_matches(&half->buckets[at], 0) != 0) {
            break;
        }
        at = next_bucket(half, at, table_step(half, hash));
    }
    return &half->buckets[at];
}

bool table_insert(struct table *table, uint64_t hash, uint32_t ref)
{
    /* Beyond the limit of growth by 1/44 probes get long; growth has failed or is being prepared.
     */
    const uint64_t limit = (uint64_t)table->now.n_buckets * LOAD_MAX;

    if (table_count(table) >= limit + limit / 44) {
        return false;
    }
    (void)insert_into(&table->now, hash, ref);
    return true;
}

static void erase_from(struct table_half *half, uint64_t hash, const uint32_t *slot)
{
    uint32_t at = table_home(half, hash);
    const size_t offset = (size_t)((const unsigned char *)slot - (unsigned char *)half->buckets);
    const uint32_t target = (uint32_t)(offset / sizeof(struct table_bucket));

    for (uint32_t left = half->n_buckets; at != target; left--) {
        struct table_bucket *passed = &half->buckets[at];

        CHECK(left > 0 && passed->overflow > 0);
        if (passed->overflow < UINT16_MAX) {
            passed->overflow--;
        }
        at = next_bucket(half, at, table_step(half, hash));
    }
    struct table_bucket *bucket = &half->buckets[target];
    const size_t i = (size_t)(slot - bucket->refs);
    CHECK(bucket->tags[i] == table_tag(hash));
    bucket->tags[i] = 0;
    half->n_used--;
}

static bool is_inside(const struct table_half *half, const uint32_t *slot)
{
    const uintptr_t start = (uintptr_t)half->buckets;

    return (uintptr_t)slot >= start && (uintptr_t)slot < start + half->n_bytes;
}

void table_erase(struct table *table, uint64_t hash, const uint32_t *slot)
{
    erase_from(is_inside(&table->now, slot) ? &table->now : &table->old, hash, slot);
}

size_t table_wanted_bytes(const struct table *table)
{
    const uint64_t n = table->now.n_used;
    const uint64_t n_buckets = table->now.n_buckets;

    if (table_is_moving(table)) {
        return 0;
    }
    if (n > n_buckets * LOAD_MAX) {
        return arena_class_above(table->now.n_bytes);
    }
    if (n < n_buckets * LOAD_MIN && table->now.n_bytes > TABLE_MIN_BYTES) {
        const size_t fitting = arena_class_above(n * sizeof(struct table_bucket) / LOAD_SHRUNK +
                                                 sizeof(struct table_bucket));
        return fitting > TABLE_MIN_BYTES ? fitting : TABLE_MIN_BYTES;
    }
    return 0;
}

void table_install(struct table *table, struct table_bucket *buckets, size_t n_bytes)
{
    CHECK(!table_is_moving(table));
    table->old = table->now;
    set_half(&table->now, buckets, n_bytes);
    table->n_moved = 0;
    table->generation++;
}

/* The entries of a bucket are asked for together, or each would cost a wait for memory. */
static void prefetch_bucket(const struct table_bucket *bucket)
{
    for (unsigned i = 0; i < TABLE_SLOTS; i++) {
        if (bucket->tags[i] != 0) {
            __builtin_prefetch(arena_at(bucket->refs[i]));
        }
    }
}

static bool has_one(const struct table_bucket *bucket)
{
    return __builtin_popcount(table_matches(bucket, 0)) == TABLE_SLOTS - 1;
}

static void move_bucket(struct table *table, struct table_bucket *bucket)
{
    prefetch_bucket(bucket);
    for (unsigned i = 0; i < TABLE_SLOTS; i++) {
        if (bucket->tags[i] != 0) {
            struct table_bucket *to = insert_into(&table->now, table->hash_of(bucket->refs[i]),
                                                  bucket->refs[i]);
            if (has_one(to)) {
                to->mark = bucket->mark;
            }
            /* The counts on its way stay: too high only makes a probe longer, for a while. */
            bucket->tags[i] = 0;
            table->old.n_used--;
        }
    }
}

struct table_bucket *table_move(struct table *table, unsigned n)
{
    struct table_bucket *const buckets = table->old.buckets;

    if (buckets == NULL) {
        return NULL;
    }
    for (; n > 0 && table->n_moved < table->old.n_buckets; n--) {
        move_bucket(table, &buckets[table->n_moved++]);
    }
    if (table->n_moved < table->old.n_buckets) {
        return NULL;
    }
    CHECK(table->old.n_used == 0);
    table->old = (struct table_half){0};
    return buckets;
}

unsigned table_bucket_refs(const struct table *table, uint32_t at, uint32_t refs[TABLE_SLOTS])
{
    const struct table_bucket *bucket = &table->now.buckets[at];
    unsigned n = 0;

    for (unsigned i = 0; i < TABLE_SLOTS; i++) {
        if (bucket->tags[i] != 0) {
            refs[n++] = bucket->refs[i];
        }
    }
    return n;
}
