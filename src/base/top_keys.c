/*
 * Design: items in an array, found by chains of their hashes; a binary heap of their numbers has
 * the lightest at its top. An item's place in the heap stands with it, so that a count that grows
 * is put right in O(log capacity). (The paper's lists of equal counts need weights of one.)
 */
#include "base/top_keys.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

int top_keys_init(struct top_keys *keys, uint32_t capacity)
{
    uint32_t n_chains = 16;

    while (n_chains < capacity) {
        n_chains *= 2;
    }
    *keys = (struct top_keys){.capacity = capacity, .n_chains = n_chains};
    keys->items = mem_try_alloc(capacity * sizeof(keys->items[0]));
    keys->heap = mem_try_alloc(capacity * sizeof(keys->heap[0]));
    keys->chains = mem_try_alloc(n_chains * sizeof(keys->chains[0]));
    if (keys->items == NULL || keys->heap == NULL || keys->chains == NULL) {
        top_keys_fini(keys);
        return -ENOMEM;
    }
    top_keys_clear(keys);
    return 0;
}

void top_keys_fini(struct top_keys *keys)
{
    mem_free(keys->items);
    mem_free(keys->heap);
    mem_free(keys->chains);
    *keys = (struct top_keys){0};
}

void top_keys_clear(struct top_keys *keys)
{
    keys->n = 0;
    memset(keys->chains, 0, keys->n_chains * sizeof(keys->chains[0]));
}

/* ---- the heap ---- */

static uint64_t count_at(const struct top_keys *keys, uint32_t at)
{
    return keys->items[keys->heap[at]].count;
}

static void swap(struct top_keys *keys, uint32_t a, uint32_t b)
{
    const uint32_t number = keys->heap[a];

    keys->heap[a] = keys->heap[b];
    keys->heap[b] = number;
    keys->items[keys->heap[a]].heap_at = a;
    keys->items[keys->heap[b]].heap_at = b;
}

static void sift_down(struct top_keys *keys, uint32_t at)
{
    for (;;) {
        const uint32_t left = 2 * at + 1, right = left + 1;
        uint32_t least = at;

        if (left < keys->n && count_at(keys, left) < count_at(keys, least)) {
            least = left;
        }
        if (right < keys->n && count_at(keys, right) < count_at(keys, least)) {
            least = right;
        }
        if (least == at) {
            return;
        }
        swap(keys, at, least);
        at = least;
    }
}

static void sift_up(struct top_keys *keys, uint32_t at)
{
    while (at > 0 && count_at(keys, at) < count_at(keys, (at - 1) / 2)) {
        swap(keys, at, (at - 1) / 2);
        at = (at - 1) / 2;
    }
}

/* ---- finding ---- */

static uint32_t *chain_of(const struct top_keys *keys, uint64_t hash)
{
    return &keys->chains[hash & (keys->n_chains - 1)];
}

static struct top_key *find(const struct top_keys *keys, uint64_t hash)
{
    uint32_t number = *chain_of(keys, hash);

    while (number != 0 && keys->items[number - 1].hash != hash) {
        number = keys->items[number - 1].next;
    }
    return number != 0 ? &keys->items[number - 1] : NULL;
}

static void unlink_item(struct top_keys *keys, const struct top_key *item)
{
    const uint32_t number = (uint32_t)(item - keys->items) + 1;
    uint32_t *at = chain_of(keys, item->hash);

    while (*at != number) {
        at = &keys->items[*at - 1].next;
    }
    *at = item->next;
}

static void name_item(struct top_keys *keys, struct top_key *item, uint64_t hash, struct bytes key)
{
    uint32_t *chain = chain_of(keys, hash);

    item->hash = hash;
    item->key_len = key.len > UINT32_MAX ? UINT32_MAX : (uint32_t)key.len;
    if (key.len > 0) {
        memcpy(item->key, key.ptr, key.len < TOP_KEY_BYTES ? key.len : TOP_KEY_BYTES);
    }
    item->next = *chain;
    *chain = (uint32_t)(item - keys->items) + 1;
}

/* A counter for a new name: a free one, or that of the lightest, whose count it keeps. */
static struct top_key *take_item(struct top_keys *keys, uint64_t hash, struct bytes key)
{
    struct top_key *item;

    if (keys->n < keys->capacity) {
        item = &keys->items[keys->n];
        item->count = 0;
        item->heap_at = keys->n;
        keys->heap[keys->n] = keys->n;
        keys->n++;
        name_item(keys, item, hash, key);
        sift_up(keys, item->heap_at);
        return item;
    }
    item = &keys->items[keys->heap[0]];
    unlink_item(keys, item);
    name_item(keys, item, hash, key);
    return item;
}

void top_keys_add(struct top_keys *keys, uint64_t hash, struct bytes key, uint64_t weight,
                  uint32_t now_s)
{
    struct top_key *item = find(keys, hash);

    if (item == NULL) {
        item = take_item(keys, hash, key);
        item->error = item->count;
    }
    item->count += weight;
    item->seen_s = now_s;
    sift_down(keys, item->heap_at);
}

void top_keys_set(struct top_keys *keys, uint64_t hash, struct bytes key, uint64_t value,
                  uint32_t now_s)
{
    struct top_key *item = find(keys, hash);

    if (item == NULL) {
        if (keys->n == keys->capacity && value <= count_at(keys, 0)) {
            return;
        }
        item = take_item(keys, hash, key);
    }
    item->error = 0;
    item->count = value;
    item->seen_s = now_s;
    sift_up(keys, item->heap_at);
    sift_down(keys, item->heap_at);
}

/* ---- all of them ---- */

/* The order among counts stays, so the heap is one still. */
void top_keys_halve(struct top_keys *keys, unsigned n)
{
    for (uint32_t i = 0; i < keys->n; i++) {
        keys->items[i].count = n < 64 ? keys->items[i].count >> n : 0;
        keys->items[i].error = n < 64 ? keys->items[i].error >> n : 0;
    }
}

void top_keys_forget(struct top_keys *keys, uint32_t before_s)
{
    for (uint32_t i = 0; i < keys->n; i++) {
        struct top_key *item = &keys->items[i];

        if (item->count > 0 && (int32_t)(item->seen_s - before_s) < 0) {
            item->count = item->error = 0;
            sift_up(keys, item->heap_at);
        }
    }
}

void top_keys_merge(struct top_keys *dst, const struct top_keys *src, bool is_value)
{
    for (uint32_t i = 0; i < src->n; i++) {
        const struct top_key *item = &src->items[i];
        const struct top_key *known = find(dst, item->hash);

        if (item->count == 0) {
            continue;
        }
        if (!is_value) {
            const uint64_t error = known != NULL ? known->error : 0;

            top_keys_add(dst, item->hash, bytes_make(item->key, item->key_len), item->count,
                         item->seen_s);
            find(dst, item->hash)->error = error + item->error;
        } else if (known == NULL || (int32_t)(item->seen_s - known->seen_s) >= 0) {
            top_keys_set(dst, item->hash, bytes_make(item->key, item->key_len), item->count,
                         item->seen_s);
        }
    }
}

/* Heapsort, with the lightest at the top: it leaves the heaviest first. */
static void sift_number(const struct top_keys *keys, uint32_t *numbers, uint32_t n, uint32_t at)
{
    for (;;) {
        uint32_t least = at;

        for (uint32_t child = 2 * at + 1; child <= 2 * at + 2 && child < n; child++) {
            if (keys->items[numbers[child]].count < keys->items[numbers[least]].count) {
                least = child;
            }
        }
        if (least == at) {
            return;
        }
        const uint32_t number = numbers[at];
        numbers[at] = numbers[least];
        numbers[least] = number;
        at = least;
    }
}

uint32_t top_keys_sorted(const struct top_keys *keys, uint32_t *out)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < keys->n; i++) {
        if (keys->items[i].count > 0) {
            out[n++] = i;
        }
    }
    for (uint32_t i = n / 2; i-- > 0;) {
        sift_number(keys, out, n, i);
    }
    for (uint32_t left = n; left > 1; left--) {
        const uint32_t lightest = out[0];

        out[0] = out[left - 1];
        out[left - 1] = lightest;
        sift_number(keys, out, left - 1, 0);
    }
    return n;
}
