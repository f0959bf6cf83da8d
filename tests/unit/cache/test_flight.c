/*
 * Proves of cache.h, flights: who may hit, join, begin, and who must relay; one live flight per
 * view, one home per key; what voids a flight, and that a void one fills nothing and drops what the
 * key has; waiters come back in their order; the limits on flights and waiters; W3c.
 */
#include "base/stats.h"
#include "cache_testing.h"

static int set_up(void **state)
{
    struct rig *rig = malloc(sizeof(*rig));

    rig_init(rig, 8 * MIB, 1);
    *state = rig;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *rig = *state;
    struct cache_stats stats;

    rig_audit(rig);
    cache_stats(rig->cache, &stats);
    assert_int_equal(stats.n_flights, 0);
    rig_fini(rig);
    free(rig);
    return 0;
}

static const struct cache_fill fill_x = {.reply = {(const unsigned char *)"$1\r\nx\r\n", 7},
                                         .deadline_us = CACHE_NO_DEADLINE};

static enum cache_outcome look_up(struct rig *rig, const struct cache_query *query,
                                  const struct cache_offer *offer, struct cache_waiter *waiter,
                                  struct cache_flight **flight)
{
    return cache_lookup(rig->cache, query, offer, 3, waiter, rig->copy, &rig->hit, flight);
}

static enum cache_completion complete(struct rig *rig, struct cache_flight *flight,
                                      const struct cache_fill *fill)
{
    return rig_complete(rig, flight, fill);
}

static void first_reader_begins_and_the_others_join(void **state)
{
    struct rig *rig = *state;
    const struct cache_query query = rig_query(rig, "a", 0, NULL);
    const struct cache_offer offer = rig_offer(rig);
    struct cache_waiter waiters[4];
    struct cache_waiter *back = NULL;
    struct cache_flight *flight = NULL;

    assert_int_equal(look_up(rig, &query, &offer, &waiters[0], &flight), CACHE_BEGUN);
    struct cache_flight *begun = flight;
    assert_true(bytes_equal(begun->key, BYTES("a")));
    assert_int_equal(begun->incarnation, rig->link);
    assert_int_equal(begun->t_sent_us, rig->now_us);
    assert_int_equal(look_up(rig, &query, &offer, &waiters[1], &flight), CACHE_JOINED);
    assert_int_equal(look_up(rig, &query, &offer, &waiters[2], &flight), CACHE_JOINED);
    /* max_waiters is 3 */
    assert_int_equal(look_up(rig, &query, &offer, &waiters[3], &flight), CACHE_RELAY);
    assert_int_equal(cache_complete(rig->cache, &begun, &fill_x, rig->now_us, SECOND, &back),
                     CACHE_FILLED);
    assert_ptr_equal(back, &waiters[0]);
    assert_ptr_equal(back->next, &waiters[1]);
    assert_ptr_equal(back->next->next, &waiters[2]);
    assert_null(back->next->next->next);
    assert_int_equal(look_up(rig, &query, &offer, &waiters[0], &flight), CACHE_HIT);
    assert_reply(rig, "$1\r\nx\r\n");
}

static void views_databases_and_keys_have_flights_of_their_own(void **state)
{
    struct rig *rig = *state;
    struct cache_query queries[5];
    struct cache_flight *flights[5];
    struct cache_waiter waiters[5];

    queries[0] = rig_query(rig, "a", 0, NULL);
    queries[1] = rig_query(rig, "a", 7, NULL);
    queries[2] = rig_query(rig, "a", 7, "f");
    queries[3] = rig_query(rig, "b", 0, NULL);
    queries[4] = rig_query(rig, "a", 0, NULL);
    queries[4].db = 3;
    for (unsigned i = 0; i < 5; i++) {
        flights[i] = rig_begin(rig, &queries[i], &waiters[i]);
    }
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(complete(rig, flights[i], &fill_x), CACHE_FILLED);
        assert_true(rig_get_view(rig, &queries[i]));
    }
}

static void invalidation_voids_the_flight(void **state)
{
    struct rig *rig = *state;
    const struct cache_query query = rig_query(rig, "a", 0, NULL);
    const struct cache_query other = rig_query(rig, "a", 7, NULL);
    struct cache_waiter waiters[3];
    const uint64_t n_before = stats_sum(METRIC_flights_voided);

    rig_fill_view(rig, &other, BYTES(":1\r\n"), CACHE_NO_DEADLINE, false);
    struct cache_flight *first = rig_begin(rig, &query, &waiters[0]);
    assert_true(cache_invalidate(rig->cache, BYTES("a")));
    assert_true(atomic_load(&first->is_void));
    assert_int_equal(stats_sum(METRIC_flights_voided), n_before + 1);

    /* Nobody joins it: the next reader begins anew. */
    struct cache_flight *second = rig_begin(rig, &query, &waiters[1]);
    assert_int_equal(complete(rig, second, &fill_x), CACHE_FILLED);
    assert_true(rig_get(rig, "a"));

    /* What it shows may be newer than what was filled meanwhile. */
    struct cache_flight *third = rig_begin(rig, &other, &waiters[2]);
    assert_int_equal(complete(rig, first, &fill_x), CACHE_VOIDED);
    assert_false(rig_get(rig, "a"));
    assert_true(atomic_load(&third->is_void));
    assert_int_equal(complete(rig, third, &fill_x), CACHE_VOIDED);
    assert_false(rig_get_view(rig, &other));
}

static void flight_in_another_database_is_voided_too(void **state)
{
    struct rig *rig = *state;
    struct cache_query query = rig_query(rig, "a", 0, NULL);
    struct cache_waiter waiter;

    query.db = 9;
    struct cache_flight *flight = rig_begin(rig, &query, &waiter);
    assert_false(cache_invalidate(rig->cache, BYTES("a")));
    assert_int_equal(complete(rig, flight, &fill_x), CACHE_VOIDED);
    assert_false(rig_get_view(rig, &query));
}

static void failure_drops_the_key(void **state)
{
    struct rig *rig = *state;
    const struct cache_query other = rig_query(rig, "a", 7, NULL);
    struct cache_waiter waiter;

    rig_fill(rig, "a", "x");
    assert_int_equal(complete(rig, rig_begin(rig, &other, &waiter), NULL), CACHE_VOIDED);
    assert_false(rig_get(rig, "a"));
}

static void end_of_an_epoch_keeps_flights_from_filling(void **state)
{
    struct rig *rig = *state;
    const struct cache_query query = rig_query(rig, "a", 0, NULL);
    struct cache_waiter waiter;

    for (unsigned way = 0; way < 6; way++) {
        struct cache_flight *flight = rig_begin(rig, &query, &waiter);
        if (way == 0) {
            epochs_close(rig->epochs, rig->link);
        } else if (way == 1) {
            epochs_close_all(rig->epochs);
        } else if (way == 2) {
            epochs_disturb(rig->epochs, 0);
        } else if (way == 3) {
            epochs_assign(rig->epochs, 0, 2);
            epochs_assign(rig->epochs, 0, RIG_NODE);
        } else if (way == 4) {
            cache_clear(rig->cache, -1, METRIC_invalidations_admin);
        } else {
            rig->now_us += SECOND + 1;
        }
        assert_int_equal(complete(rig, flight, &fill_x), CACHE_VOIDED);
        assert_false(rig_get(rig, "a"));
        epochs_close(rig->epochs, rig->link);
        rig->link = epochs_open(rig->epochs, RIG_NODE, 0, rig->now_us);
        epochs_sweep_begin(rig->epochs);
        epochs_sweep_end(rig->epochs);
    }
}

static void flight_of_an_ended_epoch_does_not_block_the_view(void **state)
{
    struct rig *rig = *state;
    const struct cache_query query = rig_query(rig, "a", 0, NULL);
    struct cache_waiter waiters[2];
    struct cache_flight *old = rig_begin(rig, &query, &waiters[0]);

    epochs_close(rig->epochs, rig->link);
    rig->link = epochs_open(rig->epochs, RIG_NODE, 0, rig->now_us);
    struct cache_flight *new = rig_begin(rig, &query, &waiters[1]);
    assert_true(atomic_load(&old->is_void));
    assert_int_equal(new->incarnation, rig->link);
    assert_int_equal(complete(rig, new, &fill_x), CACHE_FILLED);
    assert_int_equal(complete(rig, old, &fill_x), CACHE_VOIDED);
    assert_false(rig_get(rig, "a"));
}

static void old_flight_is_not_joined_and_blocks_a_second(void **state)
{
    struct rig *rig = *state;
    struct cache_query query = rig_query(rig, "a", 0, NULL);
    const struct cache_offer offer = rig_offer(rig);
    struct cache_waiter waiters[2];
    struct cache_flight *flight = rig_begin(rig, &query, &waiters[0]);
    struct cache_flight *none = NULL;

    rig->now_us += SECOND;
    epochs_advance(rig->epochs, rig->link, rig->now_us);
    query.now_us = rig->now_us + 1;
    assert_int_equal(look_up(rig, &query, &offer, &waiters[1], &none), CACHE_RELAY);
    assert_null(none);
    query.now_us = rig->now_us;
    assert_int_equal(look_up(rig, &query, &offer, &waiters[1], &none), CACHE_JOINED);
    assert_int_equal(complete(rig, flight, &fill_x), CACHE_FILLED);
}

static void begin_needs_an_offer_a_fresh_link_and_the_owner(void **state)
{
    struct rig *rig = *state;
    struct cache_query query = rig_query(rig, "a", 0, NULL);
    const struct cache_offer good = rig_offer(rig);
    struct cache_offer offer = good;
    struct cache_waiter waiter;
    struct cache_flight *flight = NULL;

    offer.may_begin = false;
    assert_int_equal(look_up(rig, &query, &offer, &waiter, &flight), CACHE_RELAY);
    offer = good;
    offer.incarnation = EPOCHS_NONE;
    assert_int_equal(look_up(rig, &query, &offer, &waiter, &flight), CACHE_RELAY);
    offer = good;
    offer.node = 2;
    assert_int_equal(look_up(rig, &query, &offer, &waiter, &flight), CACHE_RELAY);
    offer = good;
    offer.worker = 1; /* the number is another link's by now */
    assert_int_equal(look_up(rig, &query, &offer, &waiter, &flight), CACHE_RELAY);
    query.now_us += SECOND + 1;
    assert_int_equal(look_up(rig, &query, &good, &waiter, &flight), CACHE_RELAY);
    query.now_us -= SECOND + 1;
    epochs_close(rig->epochs, rig->link);
    assert_int_equal(look_up(rig, &query, &good, &waiter, &flight), CACHE_RELAY);
    rig->link = epochs_open(rig->epochs, RIG_NODE, 0, rig->now_us);
    assert_null(flight);
    assert_int_equal(complete(rig, rig_begin(rig, &query, &waiter), NULL), CACHE_VOIDED);
}

/* A second link to the same node, of worker 1. */
static struct cache_offer second_offer(struct rig *rig)
{
    struct cache_offer offer = rig_offer(rig);

    offer.worker = 1;
    offer.incarnation = epochs_open(rig->epochs, RIG_NODE, 1, rig->now_us);
    return offer;
}

static void key_with_a_view_or_flight_is_fetched_by_its_home(void **state)
{
    struct rig *rig = *state;
    const struct cache_query get = rig_query(rig, "a", 0, NULL);
    struct cache_query scoped = rig_query(rig, "a", 7, NULL);
    const struct cache_offer offer = second_offer(rig);
    struct cache_waiter waiters[2];
    struct cache_flight *flight = NULL;

    scoped.db = 4;
    /* home by a flight */
    struct cache_flight *first = rig_begin(rig, &get, &waiters[0]);
    assert_int_equal(look_up(rig, &scoped, &offer, &waiters[1], &flight), CACHE_BEGUN);
    assert_int_equal(flight->incarnation, rig->link);
    assert_int_equal(flight->worker, 0);
    assert_int_equal(complete(rig, first, &fill_x), CACHE_FILLED);
    assert_int_equal(complete(rig, flight, &fill_x), CACHE_FILLED);
    /* home by a view in another database */
    cache_invalidate(rig->cache, BYTES("a"));
    rig_fill_view(rig, &scoped, BYTES(":1\r\n"), CACHE_NO_DEADLINE, false);
    assert_int_equal(look_up(rig, &get, &offer, &waiters[1], &flight), CACHE_BEGUN);
    assert_int_equal(flight->incarnation, rig->link);
    assert_int_equal(complete(rig, flight, &fill_x), CACHE_FILLED);
    /* a home that is not fresh: nobody begins */
    const struct cache_query other = rig_query(rig, "a", 8, NULL);
    struct cache_query later = other;
    later.now_us += SECOND + 1;
    epochs_advance(rig->epochs, offer.incarnation, later.now_us);
    assert_int_equal(look_up(rig, &later, &offer, &waiters[1], &flight), CACHE_RELAY);
    /* a home that has ended is none */
    epochs_close(rig->epochs, rig->link);
    assert_int_equal(look_up(rig, &later, &offer, &waiters[1], &flight), CACHE_BEGUN);
    assert_int_equal(flight->incarnation, offer.incarnation);
    assert_int_equal(flight->worker, 1);
    assert_false(rig_get_view(rig, &scoped));
    assert_int_equal(complete(rig, flight, NULL), CACHE_VOIDED);
}

static void home_is_forgotten_with_the_last_view(void **state)
{
    struct rig *rig = *state;
    const struct cache_query get = rig_query(rig, "a", 0, NULL);
    const struct cache_offer offer = second_offer(rig);
    struct cache_waiter waiter;
    struct cache_flight *flight = NULL;

    rig_fill(rig, "a", "x");
    cache_invalidate(rig->cache, BYTES("a"));
    assert_int_equal(look_up(rig, &get, &offer, &waiter, &flight), CACHE_BEGUN);
    assert_int_equal(flight->incarnation, offer.incarnation);
    assert_int_equal(complete(rig, flight, &fill_x), CACHE_FILLED);
}

static void pipelined_reads_of_a_key_follow_w3c(void **state)
{
    struct rig *rig = *state;
    const struct cache_query one = rig_query(rig, "a", 8, "1");
    const struct cache_query two = rig_query(rig, "a", 8, "2");
    const struct cache_query three = rig_query(rig, "a", 8, "3");
    struct cache_waiter waiters[6];
    struct cache_flight *own[2];
    struct cache_flight *other = NULL;
    struct cache_offer offer = rig_offer(rig);

    rig_fill_view(rig, &three, BYTES(":3\r\n"), CACHE_NO_DEADLINE, false);
    own[0] = rig_begin(rig, &one, &waiters[0]);
    offer.own = own;
    offer.n_own = 1;
    /* The very flight is joined; another view begins on the same link; no hit. */
    assert_int_equal(look_up(rig, &one, &offer, &waiters[1], &other), CACHE_JOINED);
    assert_int_equal(look_up(rig, &two, &offer, &waiters[2], &own[1]), CACHE_BEGUN);
    offer.n_own = 2;
    assert_int_equal(look_up(rig, &three, &offer, &waiters[3], &other), CACHE_BEGUN);
    assert_int_equal(complete(rig, other, &fill_x), CACHE_FILLED);
    /* An older one of its own may show less than the newer one will. */
    assert_int_equal(look_up(rig, &one, &offer, &waiters[3], &other), CACHE_RELAY);
    /* On another link than the own flights' nothing begins. */
    struct cache_offer elsewhere = second_offer(rig);
    const struct cache_query four = rig_query(rig, "a", 8, "4");
    elsewhere.own = own;
    elsewhere.n_own = 2;
    assert_int_equal(look_up(rig, &four, &elsewhere, &waiters[3], &other), CACHE_RELAY);
    /* Nothing begins or joins once one of them is void. */
    cache_invalidate(rig->cache, BYTES("a"));
    assert_int_equal(look_up(rig, &four, &offer, &waiters[3], &other), CACHE_RELAY);
    struct cache_flight *fresh = rig_begin(rig, &two, &waiters[4]);
    assert_int_equal(look_up(rig, &two, &offer, &waiters[3], &other), CACHE_RELAY);
    assert_int_equal(complete(rig, fresh, NULL), CACHE_VOIDED);
    assert_int_equal(complete(rig, own[0], NULL), CACHE_VOIDED);
    assert_int_equal(complete(rig, own[1], NULL), CACHE_VOIDED);
    /* Completed and freed: told by address, nothing is read through it. */
    assert_int_equal(look_up(rig, &four, &offer, &waiters[3], &other), CACHE_RELAY);
}

static void number_of_flights_is_bounded(void **state)
{
    struct rig *rig = *state;
    static struct cache_flight *flights[1024];
    static struct cache_waiter waiters[1025];
    const struct cache_offer offer = rig_offer(rig);
    struct cache_flight *none = NULL;
    char key[16];

    for (unsigned i = 0; i < 1024; i++) {
        snprintf(key, sizeof(key), "k%u", i);
        const struct cache_query query = rig_query(rig, key, 0, NULL);
        flights[i] = rig_begin(rig, &query, &waiters[i]);
    }
    const struct cache_query last = rig_query(rig, "one more", 0, NULL);
    assert_int_equal(look_up(rig, &last, &offer, &waiters[1024], &none), CACHE_RELAY);
    for (unsigned i = 0; i < 1024; i++) {
        assert_int_equal(complete(rig, flights[i], &fill_x), CACHE_FILLED);
    }
    struct cache_flight *one_more = rig_begin(rig, &last, &waiters[0]);
    assert_int_equal(complete(rig, one_more, &fill_x), CACHE_FILLED);
}

static void oversized_key_is_relayed_until_the_note_ends(void **state)
{
    struct rig *rig = *state;
    struct cache_query query = rig_query(rig, "a", 0, NULL);
    const struct cache_query other = rig_query(rig, "b", 0, NULL);
    const struct cache_offer offer = rig_offer(rig);
    struct cache_waiter waiter;
    struct cache_flight *flight = NULL;

    cache_note_oversized(rig->cache, query.hash, rig->now_us + 500 * MS);
    assert_int_equal(look_up(rig, &query, &offer, &waiter, &flight), CACHE_RELAY);
    assert_int_equal(complete(rig, rig_begin(rig, &other, &waiter), NULL), CACHE_VOIDED);
    query.now_us += 500 * MS;
    assert_int_equal(look_up(rig, &query, &offer, &waiter, &flight), CACHE_BEGUN);
    assert_int_equal(complete(rig, flight, NULL), CACHE_VOIDED);
}

static void sweep_voids_flights_of_ended_links_before_their_number_returns(void **state)
{
    struct rig *rig = *state;
    const struct cache_query query = rig_query(rig, "a", 0, NULL);
    struct cache_waiter waiter;
    struct cache_flight *flight = rig_begin(rig, &query, &waiter);

    epochs_close(rig->epochs, rig->link);
    for (unsigned i = 0; i < 100; i++) {
        cache_sweep(rig->cache, 100, rig->now_us);
    }
    assert_true(atomic_load(&flight->is_void));
    assert_int_equal(complete(rig, flight, &fill_x), CACHE_VOIDED);
}

static uint16_t slot_of_first_byte(struct bytes key)
{
    return key.ptr[0];
}

static void slot_function_decides_which_slot_a_flight_depends_on(void **state)
{
    struct rig *rig = *state;
    const struct cache_query query = rig_query(rig, "a", 0, NULL);
    struct cache_waiter waiter;

    cache_set_slot_function(rig->cache, slot_of_first_byte);
    epochs_assign(rig->epochs, 'a', RIG_NODE);
    struct cache_flight *flight = rig_begin(rig, &query, &waiter);
    assert_int_equal(flight->slot, 'a');
    epochs_disturb(rig->epochs, 0);
    assert_int_equal(complete(rig, flight, &fill_x), CACHE_FILLED);
    assert_true(rig_get(rig, "a"));
    epochs_assign(rig->epochs, 'a', 2);
    assert_false(rig_get(rig, "a"));
    assert_int_equal(rig->miss, CACHE_EPOCH);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(first_reader_begins_and_the_others_join),
        TEST(views_databases_and_keys_have_flights_of_their_own),
        TEST(invalidation_voids_the_flight),
        TEST(flight_in_another_database_is_voided_too),
        TEST(failure_drops_the_key),
        TEST(end_of_an_epoch_keeps_flights_from_filling),
        TEST(flight_of_an_ended_epoch_does_not_block_the_view),
        TEST(old_flight_is_not_joined_and_blocks_a_second),
        TEST(begin_needs_an_offer_a_fresh_link_and_the_owner),
        TEST(key_with_a_view_or_flight_is_fetched_by_its_home),
        TEST(home_is_forgotten_with_the_last_view),
        TEST(pipelined_reads_of_a_key_follow_w3c),
        TEST(number_of_flights_is_bounded),
        TEST(oversized_key_is_relayed_until_the_note_ends),
        TEST(sweep_voids_flights_of_ended_links_before_their_number_returns),
        TEST(slot_function_decides_which_slot_a_flight_depends_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
