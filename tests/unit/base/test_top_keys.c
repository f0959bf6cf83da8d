/*
 * test_top_keys.c - proves of top_keys.h: counts are never too low and too high by their error at
 * most; at least 19 of the true top 20 of a Zipf(1.0) stream over a million names are found, also
 * from samples of it and from parts that are merged; halving keeps the order and forgets; values
 * are kept largest first, and follow their names down; long names are cut, not confused.
 */
#include "base/top_keys.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NAMES 1000000u
#define TOP 20u

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* Which of the names a stream of Zipf(1.0) has at this position: the inverse of its distribution.
 */
struct zipf {
    double *sums; /* of 1 / rank */
    uint64_t state;
};

static void zipf_init(struct zipf *zipf)
{
    double sum = 0;

    zipf->sums = malloc(NAMES * sizeof(double));
    assert_non_null(zipf->sums);
    for (unsigned i = 0; i < NAMES; i++) {
        sum += 1.0 / (i + 1);
        zipf->sums[i] = sum;
    }
    zipf->state = 1;
}

static uint32_t zipf_next(struct zipf *zipf)
{
    const double at = (double)(mix(zipf->state++) >> 11) / 9007199254740992.0 *
                      zipf->sums[NAMES - 1];
    uint32_t low = 0, high = NAMES - 1;

    while (low < high) {
        const uint32_t middle = (low + high) / 2;

        if (zipf->sums[middle] < at) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static void add_number(struct top_keys *keys, uint32_t number, uint64_t weight)
{
    char text[24];

    snprintf(text, sizeof(text), "key:%u", number);
    top_keys_add(keys, mix(number + 1), bytes_of_string(text), weight, 1);
}

/* The names with the highest counts, in any order. */
static void true_top(const uint32_t *counts, uint32_t out[TOP])
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < NAMES; i++) {
        uint32_t at = n < TOP ? n++ : TOP;

        if (at == TOP) {
            if (counts[out[TOP - 1]] >= counts[i]) {
                continue;
            }
            at = TOP - 1;
        }
        for (; at > 0 && counts[out[at - 1]] < counts[i]; at--) {
            out[at] = out[at - 1];
        }
        out[at] = i;
    }
}

static unsigned count_found(const struct top_keys *keys, const uint32_t *counts)
{
    uint32_t *order = malloc(keys->capacity * sizeof(*order));
    const uint32_t n = top_keys_sorted(keys, order);
    uint32_t top[TOP];
    unsigned n_found = 0;

    assert_true(n >= TOP);
    true_top(counts, top);
    for (unsigned i = 0; i < TOP; i++) {
        const struct top_key *item = &keys->items[order[i]];

        for (unsigned k = 0; k < TOP; k++) {
            n_found += item->hash == mix(top[k] + 1);
        }
        assert_true(i == 0 || item->count <= keys->items[order[i - 1]].count);
    }
    free(order);
    return n_found;
}

static void the_top_of_a_zipf_stream_is_found(void **state)
{
    enum { STREAM = 2000000, PARTS = 4, SAMPLE = 2 };
    uint32_t *counts = calloc(NAMES, sizeof(*counts));
    struct top_keys whole, sampled, merged, parts[PARTS];
    struct zipf zipf;

    (void)state;
    zipf_init(&zipf);
    assert_int_equal(top_keys_init(&whole, 1000), 0);
    assert_int_equal(top_keys_init(&sampled, 1000), 0);
    assert_int_equal(top_keys_init(&merged, PARTS * 1000), 0);
    for (unsigned i = 0; i < PARTS; i++) {
        assert_int_equal(top_keys_init(&parts[i], 1000), 0);
    }
    for (unsigned i = 0; i < STREAM; i++) {
        const uint32_t name = zipf_next(&zipf);

        counts[name]++;
        add_number(&whole, name, 1);
        add_number(&parts[i % PARTS], name, 1);
        if (mix(i ^ 0x5eed) % SAMPLE == 0) {
            add_number(&sampled, name, SAMPLE);
        }
    }
    assert_in_range(count_found(&whole, counts), 19, 20);
    assert_in_range(count_found(&sampled, counts), 19, 20);
    for (unsigned i = 0; i < PARTS; i++) {
        top_keys_merge(&merged, &parts[i], false);
        top_keys_fini(&parts[i]);
    }
    assert_in_range(count_found(&merged, counts), 19, 20);
    /* No count is too low, none too high by more than its error. */
    for (uint32_t i = 0; i < whole.n; i++) {
        const struct bytes text = top_key_name(&whole.items[i]);
        char copy[24] = "";
        uint32_t name;

        memcpy(copy, text.ptr, text.len);
        assert_int_equal(sscanf(copy, "key:%u", &name), 1);
        assert_true(whole.items[i].count >= counts[name]);
        assert_true(whole.items[i].count - whole.items[i].error <= counts[name]);
    }
    top_keys_fini(&whole);
    top_keys_fini(&sampled);
    top_keys_fini(&merged);
    free(zipf.sums);
    free(counts);
}

static void halving_lets_what_is_hot_now_pass(void **state)
{
    struct top_keys keys;
    uint32_t order[4];

    (void)state;
    assert_int_equal(top_keys_init(&keys, 4), 0);
    for (unsigned i = 0; i < 4; i++) {
        add_number(&keys, i, 100 * (i + 1));
    }
    top_keys_halve(&keys, 3);
    assert_int_equal(top_keys_sorted(&keys, order), 4);
    assert_int_equal(keys.items[order[0]].count, 50);
    assert_int_equal(keys.items[order[3]].count, 12);
    add_number(&keys, 9, 60); /* takes the place of the lightest, and what that had as its error */
    assert_int_equal(top_keys_sorted(&keys, order), 4);
    assert_int_equal(keys.items[order[0]].hash, mix(10));
    assert_int_equal(keys.items[order[0]].count, 72);
    assert_int_equal(keys.items[order[0]].error, 12);
    top_keys_halve(&keys, 64);
    assert_int_equal(top_keys_sorted(&keys, order), 0);
    add_number(&keys, 7, 1);
    assert_int_equal(top_keys_sorted(&keys, order), 1);
    top_keys_fini(&keys);
}

static void set_value(struct top_keys *keys, uint32_t number, uint64_t value, uint32_t now_s)
{
    top_keys_set(keys, mix(number), BYTES("k"), value, now_s);
}

static void values_are_the_last_seen(void **state)
{
    struct top_keys keys, other;
    uint32_t order[8];

    (void)state;
    assert_int_equal(top_keys_init(&keys, 3), 0);
    assert_int_equal(top_keys_init(&other, 8), 0);
    set_value(&keys, 1, 10, 1);
    set_value(&keys, 2, 30, 2);
    set_value(&keys, 3, 20, 3);
    set_value(&keys, 4, 5, 3); /* smaller than all */
    assert_int_equal(top_keys_sorted(&keys, order), 3);
    assert_int_equal(keys.items[order[2]].count, 10);
    set_value(&keys, 5, 15, 4); /* instead of 1 */
    set_value(&keys, 2, 12, 5); /* shrank */
    assert_int_equal(top_keys_sorted(&keys, order), 3);
    assert_int_equal(keys.items[order[0]].count, 20);
    assert_int_equal(keys.items[order[2]].count, 12);
    set_value(&other, 3, 99, 2); /* older */
    set_value(&other, 2, 40, 6); /* newer */
    top_keys_merge(&other, &keys, true);
    assert_int_equal(top_keys_sorted(&other, order), 3);
    assert_int_equal(other.items[order[0]].count, 40);
    assert_int_equal(other.items[order[1]].count, 20);
    top_keys_forget(&keys, 5);
    assert_int_equal(top_keys_sorted(&keys, order), 1);
    assert_int_equal(keys.items[order[0]].count, 12);
    top_keys_fini(&keys);
    top_keys_fini(&other);
}

static void long_names_are_cut_and_not_confused(void **state)
{
    struct top_keys keys;
    char text[400];
    uint32_t order[4];

    (void)state;
    memset(text, 'x', sizeof(text));
    assert_int_equal(top_keys_init(&keys, 4), 0);
    top_keys_add(&keys, 1, bytes_make(text, 400), 5, 1);
    top_keys_add(&keys, 2, bytes_make(text, 399), 4, 1);
    top_keys_add(&keys, 3, BYTES(""), 3, 1);
    assert_int_equal(top_keys_sorted(&keys, order), 3);
    assert_int_equal(keys.items[order[0]].key_len, 400);
    assert_int_equal(top_key_name(&keys.items[order[0]]).len, TOP_KEY_BYTES);
    assert_int_equal(keys.items[order[1]].key_len, 399);
    assert_int_equal(top_key_name(&keys.items[order[2]]).len, 0);
    top_keys_clear(&keys);
    assert_int_equal(top_keys_sorted(&keys, order), 0);
    top_keys_fini(&keys);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_top_of_a_zipf_stream_is_found),
        cmocka_unit_test(halving_lets_what_is_hot_now_pass),
        cmocka_unit_test(values_are_the_last_seen),
        cmocka_unit_test(long_names_are_cut_and_not_confused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
