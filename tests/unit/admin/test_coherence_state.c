/*
 * test_coherence_state.c - proves of coherence_state.h: mode and bound by what the links of all
 * workers are, and by what is configured where none is up
 */
#include "admin/coherence_state.h"

#include "admin_testing.h"

static struct front fronts[2];
static const struct proxy proxy = {.fronts = fronts, .n_fronts = 2};

static struct coherence_state state_with(const char *mode, unsigned tracking, unsigned ttl)
{
    char text[160];
    struct config *config;
    struct coherence_state state;

    snprintf(text, sizeof(text),
             "[coherence]\ncoherence = %s\nmax-staleness = 400ms\nttl-mode-max = 2s\n", mode);
    config = rig_parse(text);
    atomic_store(&fronts[0].coherence.n_tracking_links, tracking);
    atomic_store(&fronts[1].coherence.n_ttl_links, ttl);
    state = coherence_state_of(&proxy, config);
    config_unref(&config);
    assert_int_equal(state.n_tracking_links, tracking);
    assert_int_equal(state.n_ttl_links, ttl);
    return state;
}

static void assert_state(struct coherence_state state, const char *mode, bool is_tracking,
                         int64_t bound_ms)
{
    assert_string_equal(state.mode, mode);
    assert_int_equal(state.is_tracking, is_tracking);
    assert_int_equal(state.staleness_bound_ms, bound_ms);
}

static void tracking_links_alone_are_bounded_by_max_staleness(void **state)
{
    (void)state;
    assert_state(state_with("auto", 3, 0), "tracking", true, 400);
    assert_state(state_with("tracking", 3, 0), "tracking", true, 400);
}

static void links_without_tracking_are_bounded_by_an_entrys_life(void **state)
{
    (void)state;
    assert_state(state_with("auto", 0, 2), "ttl", false, 2000);
    assert_state(state_with("ttl", 0, 2), "ttl", false, 2000);
}

static void links_of_mode_pubsub_are_bounded_by_its_limit(void **state)
{
    (void)state;
    atomic_store(&fronts[0].coherence.n_pubsub_links, 2);
    assert_state(state_with("auto", 0, 0), "pubsub", false, 5000);
    atomic_store(&fronts[0].coherence.n_pubsub_links, 0);
    /* While the bus is not up, its links are those of mode ttl. */
    assert_state(state_with("pubsub", 0, 2), "ttl", false, 2000);
}

static void one_link_without_tracking_among_others_makes_it_mixed(void **state)
{
    (void)state;
    assert_state(state_with("auto", 5, 1), "mixed", false, 2000);
}

static void without_links_the_configuration_says_what_they_will_be(void **state)
{
    (void)state;
    assert_state(state_with("auto", 0, 0), "tracking", true, 400);
    assert_state(state_with("ttl", 0, 0), "ttl", false, 2000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tracking_links_alone_are_bounded_by_max_staleness),
        cmocka_unit_test(links_without_tracking_are_bounded_by_an_entrys_life),
        cmocka_unit_test(links_of_mode_pubsub_are_bounded_by_its_limit),
        cmocka_unit_test(one_link_without_tracking_among_others_makes_it_mixed),
        cmocka_unit_test(without_links_the_configuration_says_what_they_will_be),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
