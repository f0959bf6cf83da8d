/*
 * test_key_pile.c - proves of key_pile.h: names come out as they went in, in order, whatever their
 * lengths; a walk can stop and go on, also while more is added; moving loses nothing and copies
 * nothing; freeing goes in pieces and ends
 */
#include "coherence/key_pile.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct bytes name_of(unsigned i, unsigned char room[300000])
{
    const size_t length = i % 1000 == 999 ? 200000 + i % 7 : i % 97;

    memset(room, 'a' + (int)(i % 26), length);
    return bytes_make(room, length);
}

static void check(const struct key_pile *pile, unsigned from, unsigned n, struct key_place *place)
{
    static unsigned char room[300000];
    struct bytes key;

    for (unsigned i = from; i < from + n; i++) {
        assert_true(key_pile_next(pile, place, &key));
        assert_true(bytes_equal(key, name_of(i, room)));
    }
}

static void add(struct key_pile *pile, unsigned from, unsigned n)
{
    static unsigned char room[300000];

    for (unsigned i = from; i < from + n; i++) {
        assert_true(key_pile_add(pile, name_of(i, room)));
    }
}

static void names_come_out_as_they_went_in(void **state)
{
    struct key_pile pile = {0};
    struct key_place place = {0};
    struct bytes key;

    (void)state;
    assert_false(key_pile_next(&pile, &place, &key));
    add(&pile, 0, 5000);
    check(&pile, 0, 5000, &place);
    assert_int_equal(place.n, 5000);
    assert_false(key_pile_next(&pile, &place, &key));
    add(&pile, 5000, 5000);
    check(&pile, 5000, 5000, &place);
    assert_false(key_pile_next(&pile, &place, &key));
    place = (struct key_place){0};
    check(&pile, 0, 10000, &place);
    assert_int_equal(pile.n, 10000);
    key_pile_free(&pile);
}

static void moving_keeps_the_order(void **state)
{
    struct key_pile a = {0}, b = {0}, none = {0};
    struct key_place place = {0};
    struct bytes first, again;

    (void)state;
    key_pile_move(&a, &none);
    add(&a, 0, 3000);
    add(&b, 3000, 4000);
    assert_true(key_pile_next(&b, &place, &first));
    key_pile_move(&a, &b);
    assert_int_equal(a.n, 7000);
    assert_int_equal(b.n + b.n_bytes, 0);
    assert_null(b.first);
    place = (struct key_place){0};
    check(&a, 0, 3000, &place);
    assert_true(key_pile_next(&a, &place, &again));
    assert_ptr_equal(first.ptr, again.ptr);
    key_pile_move(&b, &a);
    place = (struct key_place){0};
    check(&b, 0, 7000, &place);
    key_pile_free(&b);
}

static void freeing_goes_in_pieces(void **state)
{
    struct key_pile pile = {0};
    unsigned n = 1;

    (void)state;
    assert_false(key_pile_free_some(&pile));
    /* Some 10 MB. */
    add(&pile, 0, 50000);
    while (key_pile_free_some(&pile)) {
        n++;
    }
    assert_in_range(n, 3, 100);
    assert_null(pile.first);
    assert_null(pile.last);
    assert_int_equal(pile.n + pile.n_bytes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_come_out_as_they_went_in),
        cmocka_unit_test(moving_keeps_the_order),
        cmocka_unit_test(freeing_goes_in_pieces),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
