/*
 * test_topology.c - proves of topology.h: node numbers are stable and never shared, CLUSTER SLOTS
 * is read as every server version words it and refused when malformed, snapshots compare by
 * content, look-ups find what is there and nothing else
 */
#include "upstream/topology.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <pthread.h>

#define A "*3\r\n$9\r\n127.0.0.1\r\n:7000\r\n$2\r\naa\r\n"
#define B "*3\r\n$9\r\n127.0.0.1\r\n:7001\r\n$2\r\nbb\r\n"
#define C "*3\r\n$9\r\n127.0.0.1\r\n:7002\r\n$2\r\ncc\r\n"
#define HALVES "*2\r\n*4\r\n:0\r\n:8191\r\n" A C "*3\r\n:8192\r\n:16383\r\n" B

static struct topology *read_slots(const char *reply)
{
    return topology_from_slots(bytes_of_string(reply), "10.9.8.7", NULL);
}

static void a_number_belongs_to_one_address_for_ever(void **state)
{
    const epochs_node a = topology_node_number("10.0.0.1", 6379);
    const epochs_node b = topology_node_number("10.0.0.1", 6380);
    const epochs_node c = topology_node_number("10.0.0.2", 6379);

    (void)state;
    assert_true(a != 0 && b != 0 && c != 0);
    assert_true(a != b && a != c && b != c);
    assert_int_equal(topology_node_number("10.0.0.1", 6379), a);
    assert_int_equal(topology_node_number("10.0.0.1", 6380), b);
    assert_int_equal(topology_node_number("", 0), topology_node_number("", 0));
}

enum { N_THREADS = 4, N_NAMES = 500 };

static void *number_names(void *context)
{
    epochs_node *numbers = context;
    char host[32];

    for (unsigned i = 0; i < N_NAMES; i++) {
        snprintf(host, sizeof(host), "thread-%u", i);
        numbers[i] = topology_node_number(host, 1);
    }
    return NULL;
}

static void threads_agree_on_numbers(void **state)
{
    static epochs_node numbers[N_THREADS][N_NAMES];
    pthread_t threads[N_THREADS];

    (void)state;
    for (unsigned i = 0; i < N_THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, number_names, numbers[i]), 0);
    }
    for (unsigned i = 0; i < N_THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    for (unsigned i = 1; i < N_THREADS; i++) {
        assert_memory_equal(numbers[0], numbers[i], sizeof(numbers[0]));
    }
    for (unsigned i = 1; i < N_NAMES; i++) {
        assert_int_not_equal(numbers[0][i], numbers[0][i - 1]);
    }
}

static void slots_are_read_with_their_masters_and_replicas(void **state)
{
    struct topology *topology = read_slots(HALVES);
    const struct topology_node *a, *c;

    (void)state;
    assert_non_null(topology);
    assert_true(topology->is_cluster);
    assert_int_equal(topology->n_nodes, 3);
    a = topology_find(topology, "127.0.0.1", 7000);
    c = topology_find(topology, "127.0.0.1", 7002);
    assert_ptr_equal(topology_owner(topology, 0), a);
    assert_ptr_equal(topology_owner(topology, 8191), a);
    assert_int_equal(topology_owner(topology, 8192)->port, 7001);
    assert_int_equal(topology_owner(topology, 16383)->port, 7001);
    assert_true(a->is_master && a->is_healthy && a->is_resolved);
    assert_string_equal(a->endpoint.text, "127.0.0.1:7000");
    assert_false(c->is_master);
    assert_int_equal(a->id, topology_node_number("127.0.0.1", 7000));
    assert_ptr_equal(topology_by_id(topology, c->id), c);
    assert_null(topology_by_id(topology, 0));
    assert_null(topology_find(topology, "127.0.0.1", 7003));
    topology_unref(&topology);
    assert_null(topology);
}

static void slots_that_nobody_owns_have_no_owner(void **state)
{
    struct topology *topology = read_slots("*1\r\n*3\r\n:5\r\n:5\r\n" A);

    (void)state;
    assert_null(topology_owner(topology, 4));
    assert_non_null(topology_owner(topology, 5));
    assert_null(topology_owner(topology, 6));
    topology_unref(&topology);
}

static void an_empty_host_is_the_server_that_was_asked(void **state)
{
    static const char *const replies[] = {
        "*1\r\n*3\r\n:0\r\n:1\r\n*3\r\n$0\r\n\r\n:7000\r\n$2\r\naa\r\n",
        "*1\r\n*3\r\n:0\r\n:1\r\n*4\r\n$-1\r\n:7000\r\n$2\r\naa\r\n*0\r\n",
        "*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$-1\r\n:7000\r\n",
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
        struct topology *topology = read_slots(replies[i]);

        assert_non_null(topology);
        assert_string_equal(topology_owner(topology, 0)->host, "10.9.8.7");
        topology_unref(&topology);
    }
}

/* cluster-preferred-endpoint-type hostname, without a hostname: "?" and the address behind it. */
static void an_unknown_host_gives_way_to_the_ip_of_the_metadata(void **state)
{
    struct topology *topology = read_slots(
        "*1\r\n*3\r\n:0\r\n:1\r\n*4\r\n$1\r\n?\r\n:7000\r\n$2\r\naa\r\n"
        "*4\r\n$8\r\nhostname\r\n$0\r\n\r\n$2\r\nip\r\n$8\r\n10.1.2.3\r\n");

    (void)state;
    assert_non_null(topology);
    assert_string_equal(topology_owner(topology, 0)->host, "10.1.2.3");
    topology_unref(&topology);
}

static void names_are_kept_for_the_name_service(void **state)
{
    struct topology *topology = read_slots(
        "*1\r\n*3\r\n:0\r\n:1\r\n*3\r\n$6\r\nnode-1\r\n:7000\r\n$2\r\naa\r\n");

    (void)state;
    assert_string_equal(topology->nodes[0].host, "node-1");
    assert_false(topology->nodes[0].is_resolved);
    topology_unref(&topology);
}

static void a_node_without_a_usable_address_owns_nothing(void **state)
{
    struct topology *topology = read_slots(
        "*2\r\n*3\r\n:0\r\n:1\r\n" A "*3\r\n:2\r\n:3\r\n*3\r\n$1\r\n?\r\n:7000\r\n$1\r\nx\r\n");

    (void)state;
    assert_non_null(topology);
    assert_int_equal(topology->n_nodes, 1);
    assert_non_null(topology_owner(topology, 1));
    assert_null(topology_owner(topology, 2));
    topology_unref(&topology);
}

static void malformed_replies_are_refused(void **state)
{
    static const char *const replies[] = {
        "",
        "*0\r\n",
        "*-1\r\n",
        "+OK\r\n",
        "-ERR This instance has cluster support disabled\r\n",
        ":1\r\n",
        "*1\r\n:1\r\n",
        "*1\r\n*2\r\n:0\r\n:1\r\n",
        "*1\r\n*3\r\n:0\r\n:16384\r\n" A,
        "*1\r\n*3\r\n:-1\r\n:5\r\n" A,
        "*1\r\n*3\r\n:6\r\n:5\r\n" A,
        "*1\r\n*3\r\n$1\r\n0\r\n:5\r\n" A,
        "*1\r\n*3\r\n:0\r\n:5\r\n*1\r\n$1\r\nx\r\n",
        "*1\r\n*3\r\n:0\r\n:5\r\n*2\r\n$3\r\na b\r\n:7000\r\n",
        "*1\r\n*3\r\n:0\r\n:5\r\n*2\r\n$3\r\nabc\r\n:70000\r\n",
        "*1\r\n*3\r\n:0\r\n:5\r\n*2\r\n$3\r\nabc\r\n:0\r\n",
        "*1\r\n*3\r\n:0\r\n:5\r\n*2\r\n*0\r\n:7000\r\n",
        "*1000000000\r\n",
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
        struct topology *topology = read_slots(replies[i]);

        if (topology != NULL) {
            fail_msg("accepted: %s", replies[i]);
        }
    }
}

static void a_host_longer_than_its_field_is_refused(void **state)
{
    char reply[512];
    struct topology *topology;

    (void)state;
    snprintf(reply, sizeof(reply), "*1\r\n*3\r\n:0\r\n:5\r\n*2\r\n$256\r\n%0256d\r\n:7000\r\n", 1);
    assert_null(read_slots(reply));
    snprintf(reply, sizeof(reply), "*1\r\n*3\r\n:0\r\n:5\r\n*2\r\n$255\r\n%0255d\r\n:7000\r\n", 1);
    topology = read_slots(reply);
    assert_non_null(topology);
    topology_unref(&topology);
}

static void every_cut_of_a_reply_is_refused(void **state)
{
    static const char whole[] = HALVES;

    (void)state;
    for (size_t len = 0; len < sizeof(whole) - 1; len++) {
        /* On the heap, so that a sanitizer sees a read behind the end. */
        char *cut = malloc(len + 1);

        memcpy(cut, whole, len);
        assert_null(topology_from_slots(bytes_make(cut, len), "127.0.0.1", NULL));
        free(cut);
    }
}

static void the_order_of_a_reply_does_not_matter(void **state)
{
    struct topology *a = read_slots(HALVES);
    struct topology *b = read_slots("*2\r\n*3\r\n:8192\r\n:16383\r\n" B
                                    "*4\r\n:0\r\n:8191\r\n" A C);

    (void)state;
    assert_true(topology_equal(a, b));
    topology_unref(&a);
    topology_unref(&b);
}

static void every_difference_is_seen(void **state)
{
    struct topology *a = read_slots(HALVES), *b = read_slots(HALVES);
    struct topology_node *node = &b->nodes[1];

    (void)state;
    assert_true(topology_equal(a, b));
    b->version = 77;
    assert_true(topology_equal(a, b));
#define SEEN(change, undo)                                                                         \
    do {                                                                                           \
        change;                                                                                    \
        assert_false(topology_equal(a, b));                                                        \
        undo;                                                                                      \
        assert_true(topology_equal(a, b));                                                         \
    } while (0)
    SEEN(b->slot_node[100] ^= 1, b->slot_node[100] ^= 1);
    SEEN(b->slot_node[100] = TOPOLOGY_NO_NODE, b->slot_node[100] = b->slot_node[101]);
    SEEN(node->is_healthy = false, node->is_healthy = true);
    SEEN(node->is_master = !node->is_master, node->is_master = !node->is_master);
    SEEN(node->is_resolved = false, node->is_resolved = true);
    SEEN(node->port++, node->port--);
    SEEN(node->host[0]++, node->host[0]--);
    SEEN(node->id++, node->id--);
    SEEN(b->is_cluster = false, b->is_cluster = true);
    SEEN(b->has_field_ttl = true, b->has_field_ttl = false);
    SEEN(b->server_version[0] = '7', b->server_version[0] = '\0');
    SEEN(b->n_nodes--, b->n_nodes++);
    SEEN(((unsigned char *)&node->endpoint.address)[4] ^= 1,
         ((unsigned char *)&node->endpoint.address)[4] ^= 1);
#undef SEEN
    topology_unref(&a);
    topology_unref(&b);
}

static void the_last_reference_frees(void **state)
{
    struct topology *topology = topology_new(2);
    struct topology *second = topology_ref(topology);

    (void)state;
    topology_unref(&topology);
    assert_null(topology);
    /* Under ASan this reads freed memory if the first reference was the last. */
    assert_int_equal(second->n_nodes, 2);
    assert_null(topology_owner(second, 0));
    topology_unref(&second);
    topology_unref(&second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_number_belongs_to_one_address_for_ever),
        cmocka_unit_test(threads_agree_on_numbers),
        cmocka_unit_test(slots_are_read_with_their_masters_and_replicas),
        cmocka_unit_test(slots_that_nobody_owns_have_no_owner),
        cmocka_unit_test(an_empty_host_is_the_server_that_was_asked),
        cmocka_unit_test(an_unknown_host_gives_way_to_the_ip_of_the_metadata),
        cmocka_unit_test(names_are_kept_for_the_name_service),
        cmocka_unit_test(a_node_without_a_usable_address_owns_nothing),
        cmocka_unit_test(malformed_replies_are_refused),
        cmocka_unit_test(a_host_longer_than_its_field_is_refused),
        cmocka_unit_test(every_cut_of_a_reply_is_refused),
        cmocka_unit_test(the_order_of_a_reply_does_not_matter),
        cmocka_unit_test(every_difference_is_seen),
        cmocka_unit_test(the_last_reference_frees),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
