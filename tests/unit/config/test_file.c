/*
 * test_file.c - proves of file.h: what a file may look like, that every error of a file is reported
 * with its line and a hint, and that nothing is passed over in silence
 */
#include "config/file.h"

#include "config_testing.h"

static void an_empty_file_gives_the_defaults(void **state)
{
    struct config *config = assert_accepted("");

    (void)state;
    assert_int_equal(config->maxmemory, 256 << 20);
    assert_int_equal(config->max_staleness_ms, 1000);
    assert_int_equal(config->listen.n, 1);
    assert_string_equal(config->listeners[0].host, "127.0.0.1");
    assert_int_equal(config->listeners[0].port, 6380);
    assert_true(config->has_admin);
    assert_int_equal(config->admin_address.port, 9380);
    assert_int_equal(config->target.seeds[0].port, 6379);
    assert_int_equal(config->unix_mode, 0770);
    assert_int_equal(config->n_namespaces, 1);
    assert_string_equal(config->requirepass, "");
    assert_null(config_file_name(config));
    config_unref(&config);
    assert_null(config);
}

static void comments_spaces_colons_and_quotes_are_understood(void **state)
{
    struct config *config = assert_accepted("\xef\xbb\xbf; first\r\n"
                                            "# second\r\n"
                                            "\r\n"
                                            "[server] ; section\r\n"
                                            "  requirepass = \" a;b=c:d \"   ; comment\r\n"
                                            "\tthreads : 3\r\n"
                                            "[admin]\r\n"
                                            "cache-password = 'it\"s'\r\n"
                                            "admin =\r\n"
                                            "[cache] # the end\r\n"
                                            "maxmemory=1gb");

    (void)state;
    assert_string_equal(config->requirepass, " a;b=c:d ");
    assert_int_equal(config->threads, 3);
    assert_string_equal(config->cache_password, "it\"s");
    assert_false(config->has_admin);
    assert_int_equal(config->maxmemory, 1 << 30);
    config_unref(&config);
}

static void listen_may_stand_on_several_lines(void **state)
{
    struct config *config = assert_accepted("[server]\n"
                                            "listen = 127.0.0.1:1 *:2\n"
                                            "threads = 1\n"
                                            "listen = unix:/run/x.sock\n");

    (void)state;
    assert_int_equal(config->n_listeners, 3);
    assert_string_equal(config->listeners[1].host, "0.0.0.0");
    assert_string_equal(config->listeners[2].path, "/run/x.sock");
    config_unref(&config);
}

/* inih takes an indented line for more of the value above. */
static void an_indented_line_is_a_line_of_its_own(void **state)
{
    struct config *config = assert_accepted("[server]\nlisten = 127.0.0.1:1\n   threads = 2\n");

    (void)state;
    assert_int_equal(config->threads, 2);
    assert_int_equal(config->n_listeners, 1);
    config_unref(&config);
}

static void every_error_is_reported_with_its_line(void **state)
{
    (void)state;
    assert_refused(
        "maxmemory = 1gb\n"
        "[cache]\n"
        "maxmemory = 12tb\n"
        "max_ttl = 1s\n"
        "max-ttl = 5\n"
        "listen = 127.0.0.1:1\n"
        "nonsense\n"
        "nonsense\t; = 1\n"
        "= 1\n"
        "colour = red\n"
        "match = x\n"
        "[cache] maxmemory = 1mb\n"
        "maxmemory = 0\n"
        "[cache\n"
        "[cash]\n"
        "also-unknown = 1\n"
        "[elsewhere]\n",
        "x.conf:1: maxmemory belongs into [cache]\n"
        "x.conf:3: maxmemory = 12tb: expected a size from 1mb to 48gb\n"
        "x.conf:4: unknown option max_ttl, did you mean max-ttl?\n"
        "x.conf:5: max-ttl = 5: expected a time from 1ms to 30d, with its unit (ms, s, m, h, d)\n"
        "x.conf:6: listen belongs into [server]\n"
        "x.conf:7: expected name = value\n"
        "x.conf:8: expected name = value\n"
        "x.conf:9: expected name = value\n"
        "x.conf:10: unknown option colour\n"
        "x.conf:11: match belongs into [namespace \"name\"]\n"
        "x.conf:12: expected a section as in [cache] or [namespace \"session\"], alone on its "
        "line\n"
        "x.conf:14: expected a section as in [cache] or [namespace \"session\"], alone on its "
        "line\n"
        "x.conf:15: unknown section [cash], did you mean [cache]?\n"
        "x.conf:17: unknown section [elsewhere]\n");
}

static void an_option_is_given_once(void **state)
{
    (void)state;
    assert_refused("[cache]\nmax-ttl = 1s\n\nmax-ttl = 2s\n",
                   "x.conf:4: max-ttl is given twice, first on line 2\n");
    assert_refused("[namespace a]\nmatch = a\nmatch = b\n",
                   "x.conf:3: match is given twice, first on line 2\n");
}

static void a_value_cut_by_a_comment_within_quotes_is_noticed(void **state)
{
    (void)state;
    assert_refused("[server]\nrequirepass = \"hun ;ter\"\n",
                   "x.conf:2: requirepass: the closing quote is missing (a semicolon behind a "
                   "space begins a comment)\n");
    assert_refused("[server]\nrequirepass = \"\n",
                   "x.conf:2: requirepass: the closing quote is missing (a semicolon behind a "
                   "space begins a comment)\n");
    assert_refused("[cache]\nmaxmemory = 1gb # large\n",
                   "x.conf:2: maxmemory = \"1gb # large\": expected a size from 1mb to 48gb\n");
}

/* Lines of this length pass or are reported; none is cut. */
static void long_lines_are_read_whole_or_refused(void **state)
{
    (void)state;
    for (unsigned length = 150; length < 5000; length += 7) {
        char text[5100], *const password = strcpy(text, "[server]\nrequirepass = ") + strlen(text);

        memset(password, 'p', length);
        password[length] = '\0';

        struct loaded loaded = load_text(text);

        if (loaded.error == 0) {
            assert_string_equal(loaded.config->requirepass, password);
        } else {
            assert_non_null(strstr(loaded.messages, "x.conf:2: the line has "));
        }
        assert_int_equal(loaded.error == 0, length < 4080);
        unload(&loaded);
    }
}

static void zero_bytes_are_refused(void **state)
{
    static const char text[] = "[server]\nrequirepass = a\0b\n";
    struct loaded loaded = load_text_bytes(bytes_make(text, sizeof(text) - 1));

    (void)state;
    assert_true(loaded.error < 0);
    assert_string_equal(loaded.messages, "x.conf:2: the line holds a zero byte\n");
    unload(&loaded);
}

static void a_flood_of_errors_ends_in_a_count(void **state)
{
    char text[200 * 3] = "";
    struct loaded loaded;
    unsigned n_lines = 0;

    (void)state;
    for (int i = 0; i < 170; i++) {
        strcat(text, "x\n");
    }
    loaded = load_text(text);
    for (const char *at = loaded.messages; (at = strchr(at, '\n')) != NULL; at++) {
        n_lines++;
    }
    assert_int_equal(n_lines, 51);
    assert_non_null(strstr(loaded.messages, "\n120 more errors\n"));
    unload(&loaded);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_file_gives_the_defaults),
        cmocka_unit_test(comments_spaces_colons_and_quotes_are_understood),
        cmocka_unit_test(listen_may_stand_on_several_lines),
        cmocka_unit_test(an_indented_line_is_a_line_of_its_own),
        cmocka_unit_test(every_error_is_reported_with_its_line),
        cmocka_unit_test(an_option_is_given_once),
        cmocka_unit_test(a_value_cut_by_a_comment_within_quotes_is_noticed),
        cmocka_unit_test(long_lines_are_read_whole_or_refused),
        cmocka_unit_test(zero_bytes_are_refused),
        cmocka_unit_test(a_flood_of_errors_ends_in_a_count),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
