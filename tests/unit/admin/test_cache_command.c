/*
 * test_cache_command.c - proves of cache_command.h and info.h, through real sessions: what each
 * subcommand answers in RESP2 and RESP3, arity and unknown names, that changes obey the option
 * cache-command and its password, that CLEAR's late answer keeps the order of the replies, and
 * that a client which leaves before it does no harm
 */
#include "admin/cache_command.h"
#include "cache/bans.h"

#include "admin/info.h"
#include "admin_testing.h"
#include "base/version.h"

#include <errno.h>

struct opening {
    int fd;
    bool is_open;
};

static void open_on_first_worker(struct front *front, void *context)
{
    struct opening *opening = context;

    if (front->worker.index == 0) {
        session_open(front, opening->fd, true, NULL, 1);
    }
}

static void set_flag(void *context)
{
    *(bool *)context = true;
}

static void wait_for(const bool *flag)
{
    const int64_t deadline_ms = clock_now_ms() + RIG_PATIENCE_MS;

    while (!*flag && clock_now_ms() < deadline_ms) {
        rig_turn(-1);
    }
    assert_true(*flag);
}

static void note_open(void *context)
{
    struct opening *opening = context;

    opening->is_open = true;
}

/* A client's end of a new connection to worker 0. */
static int connect_client(void)
{
    struct opening opening = {.fd = -1};
    int ends[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    opening.fd = ends[1];
    atomic_fetch_add(&rig.proxy.n_clients, 1);
    proxy_on_all_workers(&rig.proxy, open_on_first_worker, note_open, &opening);
    wait_for(&opening.is_open);
    return ends[0];
}

static void send_line(int fd, const char *line)
{
    assert_int_equal(send(fd, line, strlen(line), MSG_NOSIGNAL), strlen(line));
    assert_int_equal(send(fd, "\r\n", 2, MSG_NOSIGNAL), 2);
}

/* Reads up to and with the answer to the ECHO that is sent behind; the caller frees it. */
static char *receive(int fd)
{
    static const char end[] = "$7\r\nthe end\r\n";
    const int64_t deadline_ms = clock_now_ms() + RIG_PATIENCE_MS;
    size_t n = 0, room = 1 << 16;
    char *text = calloc(1, room);

    assert_non_null(text);
    send_line(fd, "ECHO \"the end\"");
    while (clock_now_ms() < deadline_ms) {
        const ssize_t got = recv(fd, text + n, room - n - 1, MSG_DONTWAIT);

        n += got > 0 ? (size_t)got : 0;
        if (n >= strlen(end) && strcmp(text + n - strlen(end), end) == 0) {
            text[n - strlen(end)] = '\0';
            return text;
        }
        rig_turn(fd);
    }
    fail_msg("no answer in time, but: %s", text);
    return NULL;
}

static char *ask(int fd, const char *line)
{
    send_line(fd, line);
    return receive(fd);
}

static void assert_reply(int fd, const char *line, const char *expected)
{
    char *reply = ask(fd, line);

    assert_string_equal(reply, expected);
    free(reply);
}

static void assert_contains(const char *text, const char *part)
{
    if (strstr(text, part) == NULL) {
        fail_msg("no \"%s\" in: %s", part, text);
    }
}

static void do_nothing(struct front *front, void *context)
{
    (void)front;
    (void)context;
}

static void set_config(const char *text)
{
    struct config *config = rig_parse(text);
    bool is_set = false;

    /* The namespaces are those of before: nothing is dropped. */
    proxy_set_config(&rig.proxy, config, config, NULL, NULL);
    proxy_on_all_workers(&rig.proxy, do_nothing, set_flag, &is_set);
    wait_for(&is_set);
    config_unref(&config);
}

#define NAMESPACES "[namespace \"session\"]\nmatch = session:*\nmax-ttl = 30s\nmax-value = 1kb\n"

static void help_lists_every_subcommand(void **state)
{
    const int fd = connect_client();
    char *help = ask(fd, "cache help");

    (void)state;
    assert_contains(help, "\r\n+ATTRIBUTES on|off\r\n+    ");
    assert_memory_equal(help, "*59\r\n+CACHE <subcommand> ", 24);
    assert_contains(help, "\r\n+AUDIT [<key>]\r\n+    ");
    assert_contains(help, "\r\n+AUTH <password>\r\n+    ");
    assert_contains(help, "\r\n+CLEAR [<namespace>]\r\n+    ");
    assert_contains(help, "\r\n+DEPEND <derived> <source> [<source> ...]\r\n+    ");
    assert_contains(help, "\r\n+DEPENDS <key>\r\n+    ");
    assert_contains(help, "\r\n+UNDEPEND <derived> [<source> ...]\r\n+    ");
    assert_contains(help, "\r\n+GET <key>\r\n+    ");
    assert_contains(help, "\r\n+HELP\r\n+    ");
    assert_contains(help, "\r\n+INFO\r\n+    ");
    assert_contains(help, "\r\n+INVALIDATE <key> [<key> ...]\r\n+    ");
    assert_contains(help, "\r\n+INVALIDATE [L1|ALL] KEYS <key> ");
    assert_contains(help, "\r\n+BAN ADD ");
    assert_contains(help, "\r\n+JOB LIST | CANCEL <id>\r\n+    ");
    assert_contains(help, "\r\n+STATS\r\n+    ");
    assert_contains(help, "\r\n+HOTKEYS [REQUESTS|BYTES|MISSES|INVALIDATIONS] [COUNT <n>] | RESET");
    assert_contains(help, "\r\n+BIGKEYS [COUNT <n>]\r\n+    ");
    assert_contains(help, "\r\n+SLOWLOG GET [<count>] | LEN | RESET\r\n+    ");
    assert_contains(help, "\r\n+CONFIG GET <pattern> ");
    assert_contains(help, "\r\n+MODE on|bypass|readonly|off [<namespace>]\r\n+    ");
    assert_contains(help, "\r\n+EVENTS [<pattern>]\r\n+    ");
    assert_contains(help, "\r\n+PUBLISH [L1|ALL] <event>\r\n+    ");
    assert_contains(help, "\r\n+SUBSCRIBE <event> <key> [<key> ...]\r\n+    ");
    assert_contains(help, "\r\n+UNSUBSCRIBE <event> [<key> ...]\r\n+    ");
    free(help);
    close(fd);
}

static void wrong_subcommands_and_numbers_of_arguments_are_errors(void **state)
{
    const int fd = connect_client();

    (void)state;
    assert_reply(fd, "CACHE", "-ERR wrong number of arguments for 'cache' command\r\n");
    assert_reply(fd, "CACHE what",
                 "-ERR unknown subcommand or wrong number of arguments for 'what'. "
                 "Try CACHE HELP.\r\n");
    assert_reply(fd, "CACHE \"a\\r\\nb\"",
                 "-ERR unknown subcommand or wrong number of arguments for 'a  b'. "
                 "Try CACHE HELP.\r\n");
    assert_reply(fd, "CACHE Get",
                 "-ERR unknown subcommand or wrong number of arguments for 'Get'. "
                 "Try CACHE HELP.\r\n");
    for (unsigned i = 0; i < 6; i++) {
        static const char *const lines[] = {"CACHE GET a b",       "CACHE INVALIDATE",
                                            "CACHE CLEAR a b",     "CACHE AUTH",
                                            "CACHE INFO anything", "CACHE STATS anything"};
        char *reply = ask(fd, lines[i]);

        assert_contains(reply, "-ERR unknown subcommand or wrong number of arguments for '");
        free(reply);
    }
    close(fd);
}

static void get_shows_namespace_policy_and_views(void **state)
{
    const int fd = connect_client();
    char *reply;

    (void)state;
    assert_reply(fd, "CACHE GET session:none",
                 "*8\r\n$9\r\nnamespace\r\n$7\r\nsession\r\n$6\r\npolicy\r\n*8\r\n$5\r\ncache\r\n"
                 "$2\r\non\r\n$10\r\nmax-ttl-ms\r\n:30000\r\n$15\r\nnegative-ttl-ms\r\n:5000\r\n"
                 "$15\r\nmax-value-bytes\r\n:1024\r\n$2\r\ndb\r\n:0\r\n$5\r\nviews\r\n*0\r\n");
    rig_fill("session:1", "$1\r\nx\r\n", 1);
    reply = ask(fd, "CACHE GET session:1");
    assert_contains(reply, "$5\r\nviews\r\n*1\r\n*22\r\n$7\r\ncommand\r\n$3\r\nget\r\n"
                           "$4\r\nargs\r\n*0\r\n$5\r\nbytes\r\n:7\r\n");
    assert_contains(reply, "$11\r\nttl-left-ms\r\n:");
    assert_contains(reply, "$14\r\nage-at-most-ms\r\n:");
    assert_contains(reply, "$4\r\nhits\r\n:0\r\n$5\r\nqueue\r\n$5\r\nsmall\r\n"
                           "$8\r\nnegative\r\n:0\r\n$4\r\nlive\r\n:1\r\n$4\r\nlink\r\n*8\r\n");
    free(reply);
    reply = ask(fd, "CACHE GET elsewhere");
    assert_contains(reply, "$9\r\nnamespace\r\n$7\r\ndefault\r\n");
    free(reply);
    close(fd);
}

/* There is no backend: what is held is named, and nothing is said against it. */
static void audit_reports_and_takes_a_key(void **state)
{
    const int fd = connect_client();
    char *reply = ask(fd, "CACHE AUDIT");

    (void)state;
    assert_contains(reply, "*30\r\n$12\r\naudit-sample\r\n:10000\r\n");
    assert_contains(reply, "$5\r\nstale\r\n:0\r\n");
    assert_contains(reply, "$11\r\nstale-ratio\r\n$8\r\n0.000000\r\n");
    assert_contains(reply, "$7\r\ndry-run\r\n$3\r\noff\r\n");
    free(reply);
    assert_reply(fd, "CACHE AUDIT none", "*0\r\n");
    rig_fill("audited", "$1\r\nx\r\n", 0);
    rig_fill_view("audited", "getrange", "$1\r\n0\r\n$2\r\n-1\r\n", "$1\r\nx\r\n", 0);
    reply = ask(fd, "CACHE AUDIT audited");
    assert_contains(reply, "*2\r\n*6\r\n$7\r\ncommand\r\n");
    assert_contains(reply, "$3\r\nget\r\n$4\r\nargs\r\n*0\r\n$6\r\nresult\r\n$4\r\nlink\r\n");
    assert_contains(reply, "$8\r\ngetrange\r\n$4\r\nargs\r\n*2\r\n$1\r\n0\r\n$2\r\n-1\r\n"
                           "$6\r\nresult\r\n$4\r\nlink\r\n");
    free(reply);
    close(fd);
}

/* A view of a command with arguments shows them one by one. */
static void get_shows_the_arguments_of_a_view(void **state)
{
    const int fd = connect_client();
    char *reply;

    (void)state;
    rig_fill_view("list", "lrange", "$1\r\n0\r\n$2\r\n-1\r\n", "*0\r\n", 0);
    reply = ask(fd, "CACHE GET list");
    assert_contains(reply, "$7\r\ncommand\r\n$6\r\nlrange\r\n$4\r\nargs\r\n*2\r\n$1\r\n0\r\n"
                           "$2\r\n-1\r\n$5\r\nbytes\r\n:4\r\n");
    free(reply);
    close(fd);
}

static void maps_are_maps_in_resp3(void **state)
{
    const int fd = connect_client();
    char *reply;

    (void)state;
    free(ask(fd, "HELLO 3"));
    reply = ask(fd, "CACHE GET session:none");
    assert_memory_equal(reply, "%4\r\n", 4);
    assert_contains(reply, "$6\r\npolicy\r\n%4\r\n");
    free(reply);
    reply = ask(fd, "CACHE STATS");
    assert_int_equal(reply[0], '%');
    free(reply);
    reply = ask(fd, "CACHE INFO");
    assert_int_equal(reply[0], '=');
    assert_contains(reply, "\r\ntxt:# Nearcached\r\n");
    free(reply);
    close(fd);
}

static long long stat_of(int fd, const char *name)
{
    char *reply = ask(fd, "CACHE STATS");
    char wanted[80];
    const char *at;
    long long value;

    snprintf(wanted, sizeof(wanted), "$%zu\r\n%s\r\n:", strlen(name), name);
    at = strstr(reply, wanted);
    if (at == NULL) {
        fail_msg("no %s", name);
    }
    value = strtoll(at + strlen(wanted), NULL, 10);
    free(reply);
    return value;
}

static void stats_name_counters_and_sizes(void **state)
{
    const int fd = connect_client();
    const long long misses = stat_of(fd, "misses");
    const long long stale = stat_of(fd, "misses_stale_refused");
    const long long entries = stat_of(fd, "n_entries");

    (void)state;
    stats_ns_add(1, NS_METRIC_misses_stale, 2);
    stats_ns_add(0, NS_METRIC_misses_cold, 3);
    rig_fill("stats:1", "$1\r\nx\r\n", 0);
    assert_int_equal(stat_of(fd, "misses"), misses + 5);
    assert_int_equal(stat_of(fd, "misses_stale_refused"), stale + 2);
    assert_int_equal(stat_of(fd, "n_entries"), entries + 1);
    assert_true(stat_of(fd, "accounted_bytes") > stat_of(fd, "metadata_bytes"));
    assert_int_equal(stat_of(fd, "maxmemory"), 16 << 20);
    assert_int_equal(stat_of(fd, "hits"), 0);
    close(fd);
}

/* The list must not be cut: each name and each label of the table's counters has its figure. */
static void stats_leave_no_counter_out(void **state)
{
    const int fd = connect_client();

    (void)state;
    (void)stat_of(fd, "n_main");
    (void)stat_of(fd, "config_reload_failures");
    (void)stat_of(fd, "invalidations_admin");
    (void)stat_of(fd, "client_stalls_pipeline_limit");
    close(fd);
}

static void info_tells_mode_bound_and_namespaces(void **state)
{
    const int fd = connect_client();
    char *reply = ask(fd, "CACHE INFO");

    (void)state;
    assert_contains(reply, "\r\n# Nearcached\r\nnearcached_version:" NC_VERSION "\r\n");
    assert_contains(reply, "\r\nnearcached_coherence:tracking\r\n"
                           "nearcached_staleness_bound_ms:1000\r\n");
    assert_contains(reply, "\r\nnearcached_memory_limit_bytes:16777216\r\n");
    assert_contains(reply, "\r\n\r\n# Nodes\r\n");
    assert_contains(reply, "\r\n\r\n# Namespaces\r\ndefault:match=,cache=on,max_ttl_ms=3600000,");
    assert_contains(reply, "\r\nsession:match=session:*,cache=on,max_ttl_ms=30000,"
                           "negative_ttl_ms=5000,max_value_bytes=1024,");
    free(reply);
    close(fd);
}

static void info_carries_the_section_without_a_backend(void **state)
{
    const int fd = connect_client();
    char *reply = ask(fd, "INFO nearcached");

    (void)state;
    assert_contains(reply, "\r\n# Nearcached\r\nnearcached_version:");
    assert_contains(reply, "\r\nnearcached_hit_ratio:0.0000\r\n");
    free(reply);
    close(fd);
}

static void invalidate_answers_how_many_keys_went(void **state)
{
    const int fd = connect_client();
    const uint64_t counted = stats_sum(METRIC_invalidations_admin);

    (void)state;
    rig_fill("a", "$1\r\nx\r\n", 0);
    rig_fill("b", "$1\r\nx\r\n", 0);
    assert_reply(fd, "CACHE INVALIDATE a nothing b a", ":2\r\n");
    assert_reply(fd, "CACHE INVALIDATE a b", ":0\r\n");
    assert_int_equal(stats_sum(METRIC_invalidations_admin), counted + 2);
    close(fd);
}

static void clear_answers_in_its_place_how_many_keys_went(void **state)
{
    const int fd = connect_client();

    (void)state;
    assert_reply(fd, "PING\r\nCACHE CLEAR nowhere\r\nPING",
                 "+PONG\r\n-ERR no such namespace\r\n+PONG\r\n");
    free(ask(fd, "CACHE CLEAR"));
    rig_fill("a", "$1\r\nx\r\n", 0);
    rig_fill("session:1", "$1\r\nx\r\n", 1);
    rig_fill("session:2", "$1\r\nx\r\n", 1);
    assert_reply(fd, "PING\r\nCACHE CLEAR session\r\nECHO x\r\nCACHE clear\r\nPING",
                 "+PONG\r\n:2\r\n$1\r\nx\r\n:1\r\n+PONG\r\n");
    bans_settle_all(rig.cache, clock_now_us());
    assert_int_equal(stat_of(fd, "n_entries"), 0);
    close(fd);
}

static void a_client_that_leaves_before_clear_is_done_does_no_harm(void **state)
{
    int fd;

    (void)state;
    for (unsigned i = 0; i < 50; i++) {
        fd = connect_client();
        send_line(fd, "CACHE CLEAR\r\nCACHE CLEAR session");
        if (i % 2 == 0) {
            rig_turn(-1);
        }
        close(fd);
    }
    fd = connect_client();
    assert_reply(fd, "CACHE CLEAR", ":0\r\n");
    close(fd);
}

static void changes_may_need_the_password(void **state)
{
    const int fd = connect_client();
    const int other = connect_client();

    (void)state;
    assert_reply(fd, "CACHE AUTH x",
                 "-ERR CACHE AUTH <password> called without any cache-password configured. Are "
                 "you sure your configuration is correct?\r\n");
    set_config(NAMESPACES "[admin]\ncache-command = password\ncache-password = open sesame\n");
    assert_reply(fd, "CACHE CLEAR", "-NOAUTH CACHE CLEAR needs CACHE AUTH <password> first.\r\n");
    assert_reply(fd, "CACHE INVALIDATE a",
                 "-NOAUTH CACHE INVALIDATE needs CACHE AUTH <password> first.\r\n");
    free(ask(fd, "CACHE GET a"));
    assert_reply(fd, "CACHE AUTH open", "-WRONGPASS invalid password for CACHE.\r\n");
    assert_reply(fd, "CACHE AUTH \"\"", "-WRONGPASS invalid password for CACHE.\r\n");
    assert_reply(fd, "CACHE AUTH \"open sesameopen sesame\"",
                 "-WRONGPASS invalid password for CACHE.\r\n");
    assert_reply(fd, "CACHE AUTH \"open sesame\"", "+OK\r\n");
    assert_reply(fd, "CACHE CLEAR", ":0\r\n");
    assert_reply(fd, "CACHE INVALIDATE a", ":0\r\n");
    assert_reply(other, "CACHE INVALIDATE a",
                 "-NOAUTH CACHE INVALIDATE needs CACHE AUTH <password> first.\r\n");
    /* A wrong password takes the right away again. */
    assert_reply(fd, "CACHE AUTH wrong", "-WRONGPASS invalid password for CACHE.\r\n");
    assert_reply(fd, "CACHE CLEAR", "-NOAUTH CACHE CLEAR needs CACHE AUTH <password> first.\r\n");
    set_config(NAMESPACES);
    close(fd);
    close(other);
}

static void changes_may_be_switched_off(void **state)
{
    const int fd = connect_client();

    (void)state;
    set_config(NAMESPACES "[admin]\ncache-command = off\ncache-password = secret\n");
    assert_reply(fd, "CACHE AUTH secret", "+OK\r\n");
    assert_reply(fd, "CACHE CLEAR", "-ERR CACHE CLEAR is switched off (cache-command = off)\r\n");
    assert_reply(fd, "CACHE INVALIDATE a",
                 "-ERR CACHE INVALIDATE is switched off (cache-command = off)\r\n");
    free(ask(fd, "CACHE STATS"));
    set_config(NAMESPACES);
    assert_reply(fd, "CACHE CLEAR", ":0\r\n");
    close(fd);
}

static int start(void **state)
{
    (void)state;
    rig.proxy.cache_command = cache_command;
    rig.proxy.info_section = info_section;
    rig_start(NAMESPACES);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    rig_stop();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(help_lists_every_subcommand),
        cmocka_unit_test(wrong_subcommands_and_numbers_of_arguments_are_errors),
        cmocka_unit_test(audit_reports_and_takes_a_key),
        cmocka_unit_test(get_shows_namespace_policy_and_views),
        cmocka_unit_test(get_shows_the_arguments_of_a_view),
        cmocka_unit_test(maps_are_maps_in_resp3),
        cmocka_unit_test(stats_name_counters_and_sizes),
        cmocka_unit_test(stats_leave_no_counter_out),
        cmocka_unit_test(info_tells_mode_bound_and_namespaces),
        cmocka_unit_test(info_carries_the_section_without_a_backend),
        cmocka_unit_test(invalidate_answers_how_many_keys_went),
        cmocka_unit_test(clear_answers_in_its_place_how_many_keys_went),
        cmocka_unit_test(a_client_that_leaves_before_clear_is_done_does_no_harm),
        cmocka_unit_test(changes_may_need_the_password),
        cmocka_unit_test(changes_may_be_switched_off),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
