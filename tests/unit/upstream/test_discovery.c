/*
 * test_discovery.c - proves of discovery.h: standalone and cluster are told apart by asking; a map
 * is published when it differs and only then; the best informed node is believed; health follows
 * what nodes say and whether they say anything; login, loading, names, Unix sockets; an absent
 * backend is waited for; nothing is left behind (with ASan)
 *
 * Most servers are scripted ones in the same event loop, so that each answer is chosen; the last
 * tests ask real redis-server processes.
 */
#include "upstream/discovery.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/stats.h"

/* ---- scripted servers ---- */

enum { N_SERVERS = 4, N_CONNECTIONS = 16 };

struct server;

struct connection {
    struct server *server;
    struct bufferevent *stream; /* NULL: free */
    struct resp_reader *reader;
    bool is_logged_in;
};

struct server {
    struct evconnlistener *listener;
    unsigned port;
    char path[64];
    struct connection connections[N_CONNECTIONS];
    /* The script. */
    bool is_silent, is_loading, is_cluster, is_replica, is_in_fail_state, denies_info, is_garbage;
    const char *version, *run_id, *extra_info;
    const char *user, *password;
    char slots[1024];
    unsigned epoch;
    /* What it saw. */
    unsigned n_connections, n_open, n_info, n_command, n_slots, n_ping;
    char last_auth[256];
};

static struct event_base *base;
static struct server servers[N_SERVERS];

static void add_bulk(struct evbuffer *out, const char *text)
{
    evbuffer_add_printf(out, "$%zu\r\n%s\r\n", strlen(text), text);
}

static void answer_info(struct server *server, struct evbuffer *out)
{
    char info[512];

    server->n_info++;
    if (server->denies_info) {
        evbuffer_add_printf(out,
                            "-NOPERM this user has no permissions to run the 'info' command\r\n");
        return;
    }
    snprintf(info, sizeof(info),
             "# Server\r\nredis_version:%s\r\nredis_mode:%s\r\nrun_id:%s\r\n%s\r\n"
             "# Persistence\r\nloading:%d\r\n\r\n# Replication\r\nrole:%s\r\n\r\n"
             "# Cluster\r\ncluster_enabled:%d\r\n",
             server->version, server->is_cluster ? "cluster" : "standalone", server->run_id,
             server->extra_info, server->is_loading, server->is_replica ? "slave" : "master",
             server->is_cluster);
    add_bulk(out, info);
}

static void answer_cluster(struct server *server, const struct resp_request *request,
                           struct evbuffer *out)
{
    char info[128];

    if (!server->is_cluster) {
        evbuffer_add_printf(out, "-ERR This instance has cluster support disabled\r\n");
    } else if (bytes_equal_nocase(request->argv[1], BYTES("slots"))) {
        server->n_slots++;
        evbuffer_add(out, server->slots, strlen(server->slots));
    } else {
        snprintf(info, sizeof(info), "cluster_state:%s\r\ncluster_current_epoch:%u\r\n",
                 server->is_in_fail_state ? "fail" : "ok", server->epoch);
        add_bulk(out, info);
    }
}

static void answer_auth(struct connection *connection, const struct resp_request *request,
                        struct evbuffer *out)
{
    struct server *server = connection->server;
    const struct bytes password = request->argv[request->argc - 1];
    char *end = server->last_auth;

    for (unsigned i = 1; i < request->argc; i++) {
        end += sprintf(end, "%.*s ", (int)request->argv[i].len, (const char *)request->argv[i].ptr);
    }
    connection->is_logged_in = server->password != NULL &&
                               bytes_equal(password, bytes_of_string(server->password));
    if (connection->is_logged_in) {
        evbuffer_add_printf(out, "+OK\r\n");
    } else {
        evbuffer_add_printf(out,
                            "-WRONGPASS invalid username-password pair or user is disabled.\r\n");
    }
}

static void answer(struct connection *connection, const struct resp_request *request,
                   struct evbuffer *out)
{
    struct server *server = connection->server;
    const struct bytes name = request->argv[0];

    if (server->is_garbage) {
        evbuffer_add_printf(out, "HTTP/1.1 400 Bad Request\r\n\r\n");
    } else if (bytes_equal_nocase(name, BYTES("auth"))) {
        answer_auth(connection, request, out);
    } else if (server->password != NULL && !connection->is_logged_in) {
        evbuffer_add_printf(out, "-NOAUTH Authentication required.\r\n");
    } else if (bytes_equal_nocase(name, BYTES("info"))) {
        answer_info(server, out);
    } else if (bytes_equal_nocase(name, BYTES("command"))) {
        server->n_command++;
        evbuffer_add_printf(
            out, "*1\r\n*6\r\n$7\r\nmod.get\r\n:2\r\n*1\r\n+readonly\r\n:1\r\n:1\r\n:1\r\n");
    } else if (server->is_loading) {
        evbuffer_add_printf(out, "-LOADING Redis is loading the dataset in memory\r\n");
    } else if (bytes_equal_nocase(name, BYTES("cluster"))) {
        answer_cluster(server, request, out);
    } else if (bytes_equal_nocase(name, BYTES("ping"))) {
        server->n_ping++;
        evbuffer_add_printf(out, "+PONG\r\n");
    } else {
        evbuffer_add_printf(out, "-ERR unknown command\r\n");
    }
}

static void drop(struct connection *connection)
{
    if (connection->stream != NULL) {
        bufferevent_free(connection->stream);
        connection->stream = NULL;
        resp_reader_free(&connection->reader);
        connection->server->n_open--;
    }
}

static void on_input(struct bufferevent *stream, void *context)
{
    static const struct resp_reader_limits limits = {64, 4096, 4096};
    struct connection *connection = context;
    struct evbuffer *in = bufferevent_get_input(stream);

    for (;;) {
        const size_t len = evbuffer_get_length(in);
        const struct bytes bytes = {evbuffer_pullup(in, -1), len};
        struct resp_request request;
        const char *error;
        size_t wanted;

        if (len == 0 || resp_read_request(connection->reader, bytes, &limits, true, &request,
                                          &wanted, &error) != RESP_OK) {
            return;
        }
        if (!connection->server->is_silent) {
            answer(connection, &request, bufferevent_get_output(stream));
        }
        evbuffer_drain(in, request.frame_bytes);
    }
}

static void on_end(struct bufferevent *stream, short what, void *context)
{
    (void)stream;
    (void)what;
    drop(context);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address,
                      int length, void *context)
{
    struct server *server = context;
    struct connection *connection = server->connections;

    (void)listener;
    (void)address;
    (void)length;
    while (connection->stream != NULL) {
        connection++;
    }
    assert_true(connection < server->connections + N_CONNECTIONS);
    server->n_connections++;
    server->n_open++;
    connection->server = server;
    connection->is_logged_in = false;
    connection->reader = resp_reader_new();
    connection->stream = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
    bufferevent_setcb(connection->stream, on_input, NULL, on_end, connection);
    bufferevent_enable(connection->stream, EV_READ | EV_WRITE);
}

/* On its former port if it had one. */
static void start(struct server *server)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                  .sin_port = htons((uint16_t)server->port)};
    socklen_t length = sizeof(address);

    server->listener = evconnlistener_new_bind(base, on_accept, server,
                                               LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE, 64,
                                               (struct sockaddr *)&address, sizeof(address));
    assert_non_null(server->listener);
    assert_int_equal(
        getsockname(evconnlistener_get_fd(server->listener), (struct sockaddr *)&address, &length),
        0);
    server->port = ntohs(address.sin_port);
}

static void start_on_path(struct server *server)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    snprintf(server->path, sizeof(server->path), "/tmp/test-discovery-%d.sock", (int)getpid());
    memcpy(address.sun_path, server->path, sizeof(server->path));
    server->listener = evconnlistener_new_bind(base, on_accept, server, LEV_OPT_CLOSE_ON_FREE, 64,
                                               (struct sockaddr *)&address, sizeof(address));
    assert_non_null(server->listener);
}

static void kick(struct server *server)
{
    for (unsigned i = 0; i < N_CONNECTIONS; i++) {
        drop(&server->connections[i]);
    }
}

static void stop(struct server *server)
{
    if (server->listener != NULL) {
        evconnlistener_free(server->listener);
        server->listener = NULL;
    }
    kick(server);
    if (server->path[0] != '\0') {
        unlink(server->path);
        server->path[0] = '\0';
    }
}

/* Two masters with half of the slots each; border is the second one's first slot. */
static void script_map(struct server *server, unsigned border)
{
    snprintf(server->slots, sizeof(server->slots),
             "*2\r\n*3\r\n:0\r\n:%u\r\n*3\r\n$9\r\n127.0.0.1\r\n:%u\r\n$2\r\naa\r\n"
             "*4\r\n:%u\r\n:16383\r\n*3\r\n$9\r\n127.0.0.1\r\n:%u\r\n$2\r\nbb\r\n"
             "*3\r\n$9\r\n127.0.0.1\r\n:%u\r\n$2\r\ncc\r\n",
             border - 1, servers[0].port, border, servers[1].port, servers[2].port);
}

static void start_cluster(void)
{
    for (unsigned i = 0; i < 3; i++) {
        start(&servers[i]);
    }
    for (unsigned i = 0; i < 3; i++) {
        servers[i].is_cluster = true;
        servers[i].epoch = 5;
        script_map(&servers[i], 8192);
    }
    servers[2].is_replica = true;
}

/* ---- the discovery under test ---- */

static struct config config;
static struct discovery *discovery;
static struct topology *latest;
static unsigned n_changes;

static void on_change(struct topology *topology, void *context)
{
    assert_ptr_equal(context, &config);
    assert_true(latest == NULL || topology->version > latest->version);
    topology_unref(&latest);
    latest = topology_ref(topology);
    n_changes++;
}

static void add_seed(const char *host, unsigned port)
{
    struct config_seed *seed = &config.target.seeds[config.target.n_seeds++];

    seed->host = mem_strdup(host);
    seed->port = port;
}

static void discover(void)
{
    discovery = discovery_new(base, &config, on_change, &config);
}

static void turn(int64_t ms)
{
    const struct timeval delay = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

    event_base_loopexit(base, &delay);
    event_base_dispatch(base);
}

/* Turns the loop until cond holds; what the failure says comes from the line of the caller. */
#define WAIT_FOR(cond)                                                                             \
    do {                                                                                           \
        const int64_t until_ms = clock_now_ms() + 10000;                                           \
        while (!(cond) && clock_now_ms() < until_ms) {                                             \
            turn(5);                                                                               \
        }                                                                                          \
        if (!(cond)) {                                                                             \
            fail_msg("in vain: %s (last error: %s)", #cond,                                        \
                     discovery != NULL ? discovery_last_error(discovery) : "");                    \
        }                                                                                          \
    } while (0)

static int set_up(void **state)
{
    (void)state;
    base = event_base_new();
    memset(servers, 0, sizeof(servers));
    for (unsigned i = 0; i < N_SERVERS; i++) {
        servers[i].version = "7.0.15";
        servers[i].run_id = "run1";
        servers[i].extra_info = "";
    }
    memset(&config, 0, sizeof(config));
    config.connect_timeout_ms = 300;
    config.request_timeout_ms = 200;
    config.reconnect_min_ms = 5;
    config.reconnect_max_ms = 40;
    config.topology_interval_ms = 100;
    config.max_staleness_ms = 100;
    n_changes = 0;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    discovery_free(&discovery);
    topology_unref(&latest);
    for (unsigned i = 0; i < N_SERVERS; i++) {
        stop(&servers[i]);
    }
    for (unsigned i = 0; i < config.target.n_seeds; i++) {
        mem_free(config.target.seeds[i].host);
    }
    /* bufferevents and look-ups that were let go of end here. */
    event_base_loop(base, EVLOOP_NONBLOCK);
    event_base_loop(base, EVLOOP_NONBLOCK);
    event_base_free(base);
    buffer_pool_fini();
    return 0;
}

static const struct topology_node *node_of(const struct server *server)
{
    return latest == NULL ? NULL : topology_find(latest, "127.0.0.1", server->port);
}

static bool is_healthy(const struct server *server)
{
    const struct topology_node *node = node_of(server);

    return node != NULL && node->is_healthy;
}

static unsigned owner_port(unsigned slot)
{
    const struct topology_node *owner = latest == NULL ? NULL : topology_owner(latest, slot);

    return owner == NULL ? 0 : owner->port;
}

/* ---- tests ---- */

static void a_standalone_server_is_one_node_that_owns_slot_zero(void **state)
{
    const struct topology_node *node;

    (void)state;
    start(&servers[0]);
    add_seed("127.0.0.1", servers[0].port);
    discover();
    assert_false(discovery_is_reachable(discovery));
    assert_string_not_equal(discovery_last_error(discovery), "");
    WAIT_FOR(n_changes == 1);
    assert_true(discovery_is_reachable(discovery));
    assert_string_equal(discovery_last_error(discovery), "");
    assert_false(latest->is_cluster);
    assert_int_equal(latest->n_nodes, 1);
    assert_string_equal(latest->server_version, "7.0.15");
    assert_false(latest->has_field_ttl);
    assert_non_null(latest->learnt);
    node = topology_owner(latest, 0);
    assert_true(node->is_master && node->is_healthy && node->is_resolved);
    assert_int_equal(node->port, servers[0].port);
    assert_int_equal(node->id, topology_node_number("127.0.0.1", servers[0].port));
    assert_null(topology_owner(latest, 1));
}

static void a_cluster_is_recognised_and_its_masters_are_asked(void **state)
{
    (void)state;
    start_cluster();
    add_seed("127.0.0.1", servers[1].port);
    discover();
    WAIT_FOR(servers[0].n_slots > 0 && servers[1].n_slots > 0);
    assert_true(latest->is_cluster);
    assert_int_equal(latest->n_nodes, 3);
    assert_int_equal(owner_port(0), servers[0].port);
    assert_int_equal(owner_port(16383), servers[1].port);
    assert_false(node_of(&servers[2])->is_master);
    assert_non_null(latest->learnt);
    turn(150);
    assert_int_equal(servers[2].n_connections, 0);
    assert_true(is_healthy(&servers[0]) && is_healthy(&servers[1]) && is_healthy(&servers[2]));
}

static void a_replica_as_seed_leads_to_the_masters_and_is_left(void **state)
{
    (void)state;
    start_cluster();
    add_seed("127.0.0.1", servers[2].port);
    discover();
    WAIT_FOR(servers[0].n_slots > 0 && servers[1].n_slots > 0 && servers[2].n_open == 0);
    assert_int_equal(servers[2].n_connections, 1);
}

static void only_what_differs_is_published(void **state)
{
    uint64_t changes, refreshes;

    (void)state;
    start_cluster();
    add_seed("127.0.0.1", servers[0].port);
    changes = stats_sum(METRIC_topology_changes);
    refreshes = stats_sum(METRIC_topology_refreshes);
    discover();
    WAIT_FOR(servers[0].n_slots >= 4 && servers[1].n_slots >= 4);
    assert_int_equal(n_changes, 1);
    assert_int_equal(stats_sum(METRIC_topology_changes), changes);
    assert_true(stats_sum(METRIC_topology_refreshes) >= refreshes + 8);
    for (unsigned i = 0; i < 2; i++) {
        script_map(&servers[i], 4096);
    }
    WAIT_FOR(n_changes == 2);
    assert_int_equal(stats_sum(METRIC_topology_changes), changes + 1);
    assert_int_equal(owner_port(4095), servers[0].port);
    assert_int_equal(owner_port(4096), servers[1].port);
    turn(250);
    assert_int_equal(n_changes, 2);
}

static void a_refresh_reads_at_once_but_not_more_often_than_every_50_ms(void **state)
{
    int64_t began_ms;
    unsigned n_before;

    (void)state;
    start_cluster();
    add_seed("127.0.0.1", servers[0].port);
    config.topology_interval_ms = config.max_staleness_ms = 60000;
    discover();
    WAIT_FOR(servers[0].n_slots == 1 && servers[1].n_slots == 1);
    turn(20);
    for (unsigned i = 0; i < 2; i++) {
        script_map(&servers[i], 100);
    }
    began_ms = clock_now_ms();
    discovery_refresh(discovery);
    WAIT_FOR(owner_port(100) == servers[1].port);
    /* Far less than the interval; how much less depends on what else this machine does. */
    assert_true(clock_now_ms() - began_ms < 5000);
    n_before = servers[0].n_slots;
    for (began_ms = clock_now_ms(); clock_now_ms() < began_ms + 200;) {
        discovery_refresh(discovery);
        turn(1);
    }
    assert_in_range(servers[0].n_slots - n_before, 1, (clock_now_ms() - began_ms) / 50 + 1);
}

static void the_map_of_the_highest_epoch_is_believed(void **state)
{
    (void)state;
    start_cluster();
    add_seed("127.0.0.1", servers[0].port);
    discover();
    WAIT_FOR(servers[0].n_slots > 0 && servers[1].n_slots > 0);
    script_map(&servers[1], 2048);
    servers[1].epoch = 6;
    WAIT_FOR(owner_port(2048) == servers[1].port);
    turn(250);
    assert_int_equal(owner_port(2048), servers[1].port);
    assert_int_equal(n_changes, 2);
}

/* Both have heard of the epoch, one of them also of the slots. */
static void of_equal_epochs_the_map_that_changed_last_is_believed(void **state)
{
    (void)state;
    start_cluster();
    add_seed("127.0.0.1", servers[0].port);
    discover();
    WAIT_FOR(servers[0].n_slots > 0 && servers[1].n_slots > 0);
    script_map(&servers[1], 2048);
    WAIT_FOR(owner_port(2048) == servers[1].port);
    turn(250);
    assert_int_equal(n_changes, 2);
    script_map(&servers[0], 1024);
    WAIT_FOR(owner_port(1024) == servers[1].port);
}

static void a_master_in_fail_state_is_unhealthy_and_not_believed(void **state)
{
    (void)state;
    start_cluster();
    add_seed("127.0.0.1", servers[0].port);
    discover();
    WAIT_FOR(servers[0].n_slots > 0 && servers[1].n_slots > 0);
    servers[1].is_in_fail_state = true;
    servers[1].epoch = 9;
    script_map(&servers[1], 77);
    WAIT_FOR(!is_healthy(&servers[1]));
    turn(250);
    assert_true(is_healthy(&servers[0]));
    assert_true(discovery_is_reachable(discovery));
    assert_int_equal(owner_port(77), servers[0].port);
    script_map(&servers[1], 8192);
    servers[1].is_in_fail_state = false;
    WAIT_FOR(is_healthy(&servers[1]));
    assert_int_equal(owner_port(77), servers[0].port);
}

static void a_silent_master_becomes_unhealthy_after_three_times_the_staleness(void **state)
{
    int64_t began_ms;

    (void)state;
    start_cluster();
    add_seed("127.0.0.1", servers[0].port);
    discover();
    WAIT_FOR(servers[0].n_slots > 0 && servers[1].n_slots > 0);
    servers[1].is_silent = true;
    began_ms = clock_now_ms();
    WAIT_FOR(!is_healthy(&servers[1]));
    /* Its last answer may be one poll old when it falls silent. */
    assert_in_range(clock_now_ms() - began_ms, 190, 5000);
    assert_true(is_healthy(&servers[0]));
    assert_true(discovery_is_reachable(discovery));
    servers[1].is_silent = false;
    WAIT_FOR(is_healthy(&servers[1]));
}

static void an_absent_cluster_keeps_its_last_map_with_unhealthy_nodes(void **state)
{
    (void)state;
    start_cluster();
    add_seed("127.0.0.1", servers[0].port);
    discover();
    WAIT_FOR(servers[0].n_slots > 0 && servers[1].n_slots > 0);
    for (unsigned i = 0; i < 3; i++) {
        stop(&servers[i]);
    }
    WAIT_FOR(!discovery_is_reachable(discovery));
    WAIT_FOR(!is_healthy(&servers[0]) && !is_healthy(&servers[1]) && !is_healthy(&servers[2]));
    assert_int_equal(owner_port(0), servers[0].port);
    assert_non_null(strstr(discovery_last_error(discovery), "onnection refused"));
    for (unsigned i = 0; i < 3; i++) {
        start(&servers[i]);
    }
    WAIT_FOR(is_healthy(&servers[0]) && is_healthy(&servers[1]) && is_healthy(&servers[2]));
    assert_true(discovery_is_reachable(discovery));
    assert_string_equal(discovery_last_error(discovery), "");
}

/* Both masters are gone, the seed too: the replica was only ever named by the map. */
static void a_replica_of_the_map_is_asked_when_no_master_answers(void **state)
{
    (void)state;
    start_cluster();
    add_seed("127.0.0.1", servers[0].port);
    discover();
    WAIT_FOR(servers[0].n_slots > 0 && servers[1].n_slots > 0);
    stop(&servers[0]);
    stop(&servers[1]);
    snprintf(servers[2].slots, sizeof(servers[2].slots),
             "*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$9\r\n127.0.0.1\r\n:%u\r\n$2\r\ncc\r\n",
             servers[2].port);
    servers[2].epoch = 6;
    WAIT_FOR(owner_port(0) == servers[2].port);
    WAIT_FOR(is_healthy(&servers[2]));
    assert_int_equal(latest->n_nodes, 1);
}

static void a_backend_that_is_away_at_start_is_waited_for(void **state)
{
    (void)state;
    start(&servers[0]);
    stop(&servers[0]);
    add_seed("127.0.0.1", servers[0].port);
    discover();
    turn(100);
    assert_int_equal(n_changes, 0);
    assert_non_null(strstr(discovery_last_error(discovery), "onnection refused"));
    start(&servers[0]);
    WAIT_FOR(n_changes == 1);
    assert_true(is_healthy(&servers[0]));
}

static void the_second_seed_is_taken_when_the_first_is_away(void **state)
{
    (void)state;
    start(&servers[0]);
    start(&servers[1]);
    stop(&servers[0]);
    add_seed("127.0.0.1", servers[0].port);
    add_seed("127.0.0.1", servers[1].port);
    discover();
    WAIT_FOR(owner_port(0) == servers[1].port);
}

static void of_standalone_seeds_the_master_is_used_and_followed(void **state)
{
    (void)state;
    start(&servers[0]);
    start(&servers[1]);
    servers[0].is_replica = true;
    add_seed("127.0.0.1", servers[0].port);
    add_seed("127.0.0.1", servers[1].port);
    discover();
    WAIT_FOR(owner_port(0) == servers[1].port);
    WAIT_FOR(servers[0].n_open == 0);
    servers[0].is_replica = false;
    servers[1].is_replica = true;
    WAIT_FOR(owner_port(0) == servers[0].port);
}

static void a_lone_replica_is_accepted(void **state)
{
    (void)state;
    start(&servers[0]);
    servers[0].is_replica = true;
    add_seed("127.0.0.1", servers[0].port);
    discover();
    WAIT_FOR(is_healthy(&servers[0]));
    assert_int_equal(owner_port(0), servers[0].port);
}

static void it_logs_in_and_says_why_it_cannot_without_the_password(void **state)
{
    char secret[] = "s3cr3t-and-w0rse", user[] = "alice";

    (void)state;
    start(&servers[0]);
    servers[0].password = "something else";
    config.target.user = user;
    config.target.password = secret;
    add_seed("127.0.0.1", servers[0].port);
    discover();
    WAIT_FOR(strstr(discovery_last_error(discovery), "WRONGPASS") != NULL);
    assert_string_equal(servers[0].last_auth, "alice s3cr3t-and-w0rse ");
    assert_null(strstr(discovery_last_error(discovery), secret));
    assert_int_equal(n_changes, 0);
    servers[0].password = secret;
    WAIT_FOR(is_healthy(&servers[0]));
}

static void a_missing_password_is_named(void **state)
{
    (void)state;
    start(&servers[0]);
    servers[0].password = "x";
    add_seed("127.0.0.1", servers[0].port);
    discover();
    WAIT_FOR(strstr(discovery_last_error(discovery), "NOAUTH") != NULL);
    assert_false(discovery_is_reachable(discovery));
}

static void a_server_that_loads_is_waited_for_on_one_connection(void **state)
{
    (void)state;
    start(&servers[0]);
    servers[0].is_loading = true;
    add_seed("127.0.0.1", servers[0].port);
    discover();
    WAIT_FOR(servers[0].n_info >= 3);
    assert_int_equal(n_changes, 0);
    assert_int_equal(servers[0].n_connections, 1);
    assert_non_null(strstr(discovery_last_error(discovery), "loads its data"));
    servers[0].is_loading = false;
    WAIT_FOR(is_healthy(&servers[0]));
    assert_int_equal(servers[0].n_connections, 1);
    servers[0].is_loading = true;
    WAIT_FOR(!is_healthy(&servers[0]));
}

static void without_info_a_cluster_is_still_recognised(void **state)
{
    (void)state;
    start_cluster();
    servers[0].denies_info = servers[1].denies_info = true;
    add_seed("127.0.0.1", servers[0].port);
    discover();
    WAIT_FOR(is_healthy(&servers[0]) && is_healthy(&servers[1]));
    assert_true(latest->is_cluster);
    assert_true(latest->has_field_ttl);
}

static void field_ttls_are_known_by_version(void **state)
{
    (void)state;
    start_cluster();
    servers[0].version = "7.4.1";
    servers[1].version = "7.10.0";
    add_seed("127.0.0.1", servers[0].port);
    discover();
    WAIT_FOR(servers[0].n_slots > 1 && servers[1].n_slots > 1);
    assert_true(latest->has_field_ttl);
    assert_string_equal(latest->server_version, "7.4.1");
}

static void valkey_has_field_ttls_since_its_ninth_version(void **state)
{
    (void)state;
    start(&servers[0]);
    servers[0].version = "7.2.4";
    servers[0].extra_info = "valkey_version:8.1.0\r\n";
    add_seed("127.0.0.1", servers[0].port);
    discover();
    WAIT_FOR(latest != NULL);
    assert_false(latest->has_field_ttl);
    servers[0].extra_info = "valkey_version:9.0.1\r\n";
    kick(&servers[0]);
    WAIT_FOR(latest->has_field_ttl);
}

static void commands_are_read_once_per_life_of_the_server(void **state)
{
    (void)state;
    start(&servers[0]);
    add_seed("127.0.0.1", servers[0].port);
    discover();
    WAIT_FOR(latest != NULL);
    assert_int_equal(servers[0].n_command, 1);
    kick(&servers[0]);
    WAIT_FOR(servers[0].n_info >= 2 && servers[0].n_connections == 2);
    turn(120);
    assert_int_equal(servers[0].n_command, 1);
    servers[0].run_id = "run2";
    kick(&servers[0]);
    WAIT_FOR(servers[0].n_command == 2);
}

static void garbage_closes_the_connection_and_is_told(void **state)
{
    (void)state;
    start(&servers[0]);
    servers[0].is_garbage = true;
    add_seed("127.0.0.1", servers[0].port);
    discover();
    WAIT_FOR(strstr(discovery_last_error(discovery), "not a Redis reply") != NULL);
    servers[0].is_garbage = false;
    WAIT_FOR(is_healthy(&servers[0]));
}

static void a_silent_server_is_given_up_in_time(void **state)
{
    char secret[] = "x";
    int64_t began_ms = clock_now_ms();

    (void)state;
    start(&servers[0]);
    servers[0].is_silent = true;
    config.target.password = secret;
    add_seed("127.0.0.1", servers[0].port);
    discover();
    WAIT_FOR(strstr(discovery_last_error(discovery), "no connection within 300 ms") != NULL);
    assert_in_range(clock_now_ms() - began_ms, 290, 5000);
}

static void a_cluster_without_slots_is_no_map(void **state)
{
    (void)state;
    start(&servers[0]);
    servers[0].is_cluster = true;
    strcpy(servers[0].slots, "*0\r\n");
    add_seed("127.0.0.1", servers[0].port);
    discover();
    WAIT_FOR(strstr(discovery_last_error(discovery), "no slots assigned") != NULL);
    assert_int_equal(n_changes, 0);
    assert_false(discovery_is_reachable(discovery));
}

static void a_unix_socket_is_a_node_without_host(void **state)
{
    (void)state;
    start_on_path(&servers[0]);
    config.target.unix_path = servers[0].path;
    discover();
    WAIT_FOR(latest != NULL);
    assert_string_equal(latest->nodes[0].host, "");
    assert_int_equal(latest->nodes[0].port, 0);
    assert_int_equal(latest->nodes[0].endpoint.address.ss_family, AF_UNIX);
    assert_true(latest->nodes[0].is_resolved && latest->nodes[0].is_healthy);
}

static void a_name_of_the_hosts_file_is_resolved(void **state)
{
    (void)state;
    start(&servers[0]);
    add_seed("localhost", servers[0].port);
    discover();
    WAIT_FOR(latest != NULL);
    assert_string_equal(latest->nodes[0].host, "localhost");
    assert_true(latest->nodes[0].is_resolved);
    assert_string_not_equal(latest->nodes[0].endpoint.text, "");
}

/* Freed while the look-up is under way, whatever name servers this machine has. */
static void a_look_up_under_way_does_not_outlive_the_discovery(void **state)
{
    (void)state;
    add_seed("no-such-name.invalid", 6379);
    discover();
    /* One turn asks; an answer of the name server needs at least another. */
    event_base_loop(base, EVLOOP_NONBLOCK);
    assert_string_equal(discovery_last_error(discovery), "no node has answered yet");
    discovery_free(&discovery);
    turn(10);
}

static void a_name_that_does_not_exist_is_told(void **state)
{
    (void)state;
    add_seed("no-such-name.invalid", 6379);
    discover();
    WAIT_FOR(strstr(discovery_last_error(discovery), "no-such-name.invalid:6379: ") != NULL);
    assert_false(discovery_is_reachable(discovery));
}

static void new_timeouts_are_taken_by_a_reload(void **state)
{
    (void)state;
    start_cluster();
    add_seed("127.0.0.1", servers[0].port);
    config.topology_interval_ms = config.max_staleness_ms = 1000;
    discover();
    WAIT_FOR(latest != NULL && servers[1].n_slots > 0);
    config.topology_interval_ms = config.max_staleness_ms = 100;
    discovery_configure(discovery, &config);
    turn(1100);
    const unsigned n_before = servers[0].n_slots;

    turn(550);
    assert_true(servers[0].n_slots - n_before >= 2);
}

static void a_topology_outlives_the_discovery(void **state)
{
    (void)state;
    start_cluster();
    add_seed("127.0.0.1", servers[0].port);
    discover();
    WAIT_FOR(latest != NULL);
    discovery_free(&discovery);
    assert_int_equal(owner_port(0), servers[0].port);
}

/* ---- real servers ---- */

static pid_t real_pid;
static char real_directory[64];

/* A free port whose cluster bus port (10000 above) is valid too. */
static unsigned free_port(void)
{
    unsigned port;

    do {
        start(&servers[3]);
        port = servers[3].port;
        stop(&servers[3]);
        servers[3].port = 0;
    } while (port > 50000);
    return port;
}

static bool start_redis(unsigned port, bool is_cluster)
{
    char number[8];

    snprintf(number, sizeof(number), "%u", port);
    if (access("/usr/bin/redis-server", X_OK) != 0) {
        print_message("skipped: /usr/bin/redis-server is not installed\n");
        return false;
    }
    strcpy(real_directory, "/tmp/test-discovery-XXXXXX");
    assert_non_null(mkdtemp(real_directory));
    real_pid = fork();
    if (real_pid == 0) {
        execl("/usr/bin/redis-server", "redis-server", "--port", number, "--bind", "127.0.0.1",
              "--save", "", "--dir", real_directory, "--logfile", "log", "--cluster-enabled",
              is_cluster ? "yes" : "no", NULL);
        _exit(127);
    }
    assert_true(real_pid > 0);
    return true;
}

static void stop_redis(void)
{
    static const char *const files[] = {"/log", "/nodes.conf", ""};
    char path[96];

    if (real_pid <= 0) {
        return;
    }
    kill(real_pid, SIGKILL);
    waitpid(real_pid, NULL, 0);
    real_pid = 0;
    for (unsigned i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        snprintf(path, sizeof(path), "%s%s", real_directory, files[i]);
        (void)remove(path);
    }
}

static int tear_down_real(void **state)
{
    stop_redis();
    return tear_down(state);
}

static void configure_for_real(unsigned port)
{
    add_seed("127.0.0.1", port);
    config.connect_timeout_ms = config.request_timeout_ms = 1000;
}

static void a_real_server_is_found_lost_and_found_again(void **state)
{
    const unsigned port = free_port();
    const struct bytes get = BYTES("get");

    (void)state;
    if (!start_redis(port, false)) {
        skip();
    }
    configure_for_real(port);
    discover();
    WAIT_FOR(latest != NULL);
    assert_false(latest->is_cluster);
    assert_int_equal(owner_port(0), port);
    assert_non_null(latest->learnt);
    assert_non_null(command_find(&get, 1, latest->learnt));
    assert_true(latest->server_version[0] >= '5');
    stop_redis();
    WAIT_FOR(!latest->nodes[0].is_healthy && !discovery_is_reachable(discovery));
    assert_true(start_redis(port, false));
    WAIT_FOR(latest->nodes[0].is_healthy && discovery_is_reachable(discovery));
}

static void a_real_paused_server_is_noticed(void **state)
{
    const unsigned port = free_port();

    (void)state;
    if (!start_redis(port, false)) {
        skip();
    }
    configure_for_real(port);
    discover();
    WAIT_FOR(latest != NULL);
    kill(real_pid, SIGSTOP);
    WAIT_FOR(!latest->nodes[0].is_healthy);
    kill(real_pid, SIGCONT);
    WAIT_FOR(latest->nodes[0].is_healthy);
}

static void a_real_cluster_is_found(void **state)
{
    const unsigned port = free_port();
    char command[96];

    (void)state;
    if (!start_redis(port, true)) {
        skip();
    }
    configure_for_real(port);
    discover();
    WAIT_FOR(strstr(discovery_last_error(discovery), "no slots assigned") != NULL);
    snprintf(command, sizeof(command), "redis-cli -p %u cluster addslotsrange 0 16383 >/dev/null",
             port);
    assert_int_equal(system(command), 0);
    WAIT_FOR(latest != NULL && latest->is_cluster && latest->nodes[0].is_healthy);
    assert_int_equal(latest->n_nodes, 1);
    assert_int_equal(owner_port(0), port);
    assert_int_equal(owner_port(16383), port);
    assert_true(discovery_is_reachable(discovery));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define REAL(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down_real)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_standalone_server_is_one_node_that_owns_slot_zero),
        TEST(a_cluster_is_recognised_and_its_masters_are_asked),
        TEST(a_replica_as_seed_leads_to_the_masters_and_is_left),
        TEST(only_what_differs_is_published),
        TEST(a_refresh_reads_at_once_but_not_more_often_than_every_50_ms),
        TEST(the_map_of_the_highest_epoch_is_believed),
        TEST(of_equal_epochs_the_map_that_changed_last_is_believed),
        TEST(a_master_in_fail_state_is_unhealthy_and_not_believed),
        TEST(a_silent_master_becomes_unhealthy_after_three_times_the_staleness),
        TEST(an_absent_cluster_keeps_its_last_map_with_unhealthy_nodes),
        TEST(a_replica_of_the_map_is_asked_when_no_master_answers),
        TEST(a_backend_that_is_away_at_start_is_waited_for),
        TEST(the_second_seed_is_taken_when_the_first_is_away),
        TEST(of_standalone_seeds_the_master_is_used_and_followed),
        TEST(a_lone_replica_is_accepted),
        TEST(it_logs_in_and_says_why_it_cannot_without_the_password),
        TEST(a_missing_password_is_named),
        TEST(a_server_that_loads_is_waited_for_on_one_connection),
        TEST(without_info_a_cluster_is_still_recognised),
        TEST(field_ttls_are_known_by_version),
        TEST(valkey_has_field_ttls_since_its_ninth_version),
        TEST(commands_are_read_once_per_life_of_the_server),
        TEST(garbage_closes_the_connection_and_is_told),
        TEST(a_silent_server_is_given_up_in_time),
        TEST(a_cluster_without_slots_is_no_map),
        TEST(a_unix_socket_is_a_node_without_host),
        TEST(a_name_of_the_hosts_file_is_resolved),
        TEST(a_look_up_under_way_does_not_outlive_the_discovery),
        TEST(a_name_that_does_not_exist_is_told),
        TEST(new_timeouts_are_taken_by_a_reload),
        TEST(a_topology_outlives_the_discovery),
        REAL(a_real_server_is_found_lost_and_found_again),
        REAL(a_real_paused_server_is_noticed),
        REAL(a_real_cluster_is_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
