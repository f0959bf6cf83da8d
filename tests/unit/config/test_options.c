/*
 * test_options.c - proves of options.h and of tables/options.def: every option takes its default
 * and both its bounds and refuses what is one beyond; units, words and texts are read and printed
 * as documented; a refused value changes nothing; secrets are not shown
 */
#include "config/options.h"

#include "config_testing.h"

#include "base/log.h"
#include "base/mem.h"

/* Storage for any value of an option, of [namespace] or not. */
union values {
    struct config config;
    struct config_namespace space;
};

static bool set(const char *spelling, union values *values, const char *text)
{
    char why[OPTION_TEXT_MAX] = "";
    const struct config_option *const option = config_option_find(false, spelling);

    assert_non_null(option);
    const bool is_set = config_option_set(option, values, text, why);

    assert_int_equal(is_set, why[0] == '\0');
    return is_set;
}

static void every_default_is_accepted(void **state)
{
    unsigned n;
    const struct config_option *const options = config_options(&n);

    (void)state;
    for (unsigned i = 0; i < n; i++) {
        union values values = {.config = {.n_listeners = 0}};
        char why[OPTION_TEXT_MAX];

        /* match has none. */
        if (strcmp(options[i].name, "match") != 0) {
            assert_true(config_option_set(&options[i], &values, options[i].initial, why));
            config_option_clear(&options[i], &values);
        }
    }
}

static int64_t number_of(const struct config_option *option, const union values *values)
{
    const void *const field = (const char *)values + option->offset;

    return option->type == OPTION_SIZE ? (int64_t) * (const size_t *)field
                                       : *(const int64_t *)field;
}

static void assert_bounded(const struct config_option *option)
{
    const char *const unit = option->type == OPTION_SIZE   ? "b"
                             : option->type == OPTION_TIME ? "ms"
                                                           : "";
    union values values = {.config = {.n_listeners = 0}};
    char why[OPTION_TEXT_MAX], beyond[64], shown[OPTION_TEXT_MAX];

    assert_true(config_option_set(option, &values, option->max, why));
    const int64_t max = number_of(option, &values);
    assert_true(config_option_set(option, &values, option->min, why));
    const int64_t min = number_of(option, &values);

    assert_true(min < max);
    (void)snprintf(beyond, sizeof(beyond), "%lld%s", (long long)max + 1, unit);
    assert_false(config_option_set(option, &values, beyond, why));
    assert_non_null(strstr(why, option->min));
    assert_non_null(strstr(why, option->max));
    if (min > 0) {
        (void)snprintf(beyond, sizeof(beyond), "%lld%s", (long long)min - 1, unit);
        assert_false(config_option_set(option, &values, beyond, why));
    }
    assert_false(config_option_set(option, &values, "-1", why));
    assert_int_equal(number_of(option, &values), min);

    config_option_format(option, &values, shown);
    assert_string_equal(shown, option->min);
}

static void every_number_takes_its_bounds_and_nothing_beyond(void **state)
{
    unsigned n, n_bounded = 0;
    const struct config_option *const options = config_options(&n);

    (void)state;
    for (unsigned i = 0; i < n; i++) {
        if (options[i].type == OPTION_INT || options[i].type == OPTION_SIZE ||
            options[i].type == OPTION_TIME) {
            assert_bounded(&options[i]);
            n_bounded++;
        }
    }
    assert_true(n_bounded > 20);
}

static void sizes_count_in_powers_of_1024(void **state)
{
    static const struct {
        const char *text;
        size_t bytes;
    } good[] = {{"2mb", 2 << 20}, {"2M", 2 << 20},       {"1 gb", 1 << 30},       {"1g", 1 << 30},
                {"3kb", 3 << 10}, {"65536b", 64 * 1024}, {"1048576", 1024 * 1024}};
    static const char *const bad[] = {"",
                                      "mb",
                                      "1tb",
                                      "1.5mb",
                                      "-1mb",
                                      "+1mb",
                                      "01mb",
                                      "1mbb",
                                      "1m b",
                                      "0x10mb",
                                      "99999999999999999999mb",
                                      "9999999999999999mb"};
    union values values = {.config = {.n_listeners = 0}};

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_true(set("client-output-soft-limit", &values, good[i].text));
        assert_int_equal(values.config.client_output_soft_limit, good[i].bytes);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(set("client-output-soft-limit", &values, bad[i]));
        assert_int_equal(values.config.client_output_soft_limit, 1024 * 1024);
    }
}

static void times_need_a_unit_unless_they_are_zero(void **state)
{
    static const struct {
        const char *text;
        int64_t ms;
    } good[] = {{"250ms", 250},   {"2s", 2000}, {"3m", 180000}, {"4h", 14400000},
                {"1d", 86400000}, {"0", 0},     {"0s", 0},      {"5 S", 5000}};
    static const char *const bad[] = {"1",     "1000", "",    "s",     "1us",
                                      "1m30s", "1.5s", "-1s", "1month"};
    union values values = {.config = {.n_listeners = 0}};

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_true(set("client-idle-timeout", &values, good[i].text));
        assert_int_equal(values.config.client_idle_timeout_ms, good[i].ms);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(set("client-idle-timeout", &values, bad[i]));
        assert_int_equal(values.config.client_idle_timeout_ms, 5000);
    }
}

static void values_print_in_their_largest_whole_unit(void **state)
{
    static const char *const round[] = {"0", "1ms", "1500ms", "90s", "5m", "36h", "2d"};
    const struct config_option *const option = config_option_find(false, "client-idle-timeout");
    union values values = {.config = {.n_listeners = 0}};

    (void)state;
    for (size_t i = 0; i < sizeof(round) / sizeof(round[0]); i++) {
        char shown[OPTION_TEXT_MAX];

        assert_true(set("client-idle-timeout", &values, round[i]));
        config_option_format(option, &values, shown);
        assert_string_equal(shown, round[i]);
    }
}

static void switches_take_six_words(void **state)
{
    static const char *const on[] = {"on", "yes", "true", "ON"}, *const off[] = {"off", "no",
                                                                                 "False"};
    union values values = {.config = {.n_listeners = 0}};

    (void)state;
    for (size_t i = 0; i < sizeof(on) / sizeof(on[0]); i++) {
        values.config.admin_commands = false;
        assert_true(set("admin-commands", &values, on[i]));
        assert_true(values.config.admin_commands);
    }
    for (size_t i = 0; i < sizeof(off) / sizeof(off[0]); i++) {
        values.config.admin_commands = true;
        assert_true(set("admin-commands", &values, off[i]));
        assert_false(values.config.admin_commands);
    }
    assert_false(set("admin-commands", &values, "1"));
    assert_false(set("admin-commands", &values, ""));
}

static void words_stand_for_the_constants_of_the_header(void **state)
{
    static const struct {
        const char *option, *word;
        size_t offset;
        int value;
    } expected[] = {
        {"present-as", "standalone", offsetof(struct config, present_as), PRESENT_AS_STANDALONE},
        {"present-as", "cluster", offsetof(struct config, present_as), PRESENT_AS_CLUSTER},
        {"coherence", "auto", offsetof(struct config, coherence), COHERENCE_AUTO},
        {"coherence", "tracking", offsetof(struct config, coherence), COHERENCE_TRACKING},
        {"coherence", "broadcast", offsetof(struct config, coherence), COHERENCE_BROADCAST},
        {"coherence", "keyspace", offsetof(struct config, coherence), COHERENCE_KEYSPACE},
        {"coherence", "pubsub", offsetof(struct config, coherence), COHERENCE_PUBSUB},
        {"coherence", "ttl", offsetof(struct config, coherence), COHERENCE_TTL},
        {"script-keys", "undeclared", offsetof(struct config, script_keys), SCRIPT_KEYS_UNDECLARED},
        {"script-keys", "declared", offsetof(struct config, script_keys), SCRIPT_KEYS_DECLARED},
        {"config-command", "on", offsetof(struct config, config_command), CONFIG_COMMAND_ON},
        {"config-command", "get", offsetof(struct config, config_command), CONFIG_COMMAND_GET},
        {"config-command", "off", offsetof(struct config, config_command), CONFIG_COMMAND_OFF},
        {"cache-command", "free", offsetof(struct config, cache_command), CACHE_COMMAND_FREE},
        {"cache-command", "password", offsetof(struct config, cache_command),
         CACHE_COMMAND_PASSWORD},
        {"cache-command", "off", offsetof(struct config, cache_command), CACHE_COMMAND_OFF},
        {"log-level", "error", offsetof(struct config, log_level), LOG_ERROR},
        {"log-level", "warn", offsetof(struct config, log_level), LOG_WARN},
        {"log-level", "info", offsetof(struct config, log_level), LOG_INFO},
        {"log-level", "debug", offsetof(struct config, log_level), LOG_DEBUG},
        {"log-format", "logfmt", offsetof(struct config, log_format), LOG_FORMAT_LOGFMT},
        {"log-format", "JSON", offsetof(struct config, log_format), LOG_FORMAT_JSON},
    };
    union values values = {.config = {.n_listeners = 0}};

    (void)state;
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        assert_true(set(expected[i].option, &values, expected[i].word));
        assert_int_equal(*(const int *)(const void *)((char *)&values + expected[i].offset),
                         expected[i].value);
    }
    assert_false(set("coherence", &values, "auto tracking"));
    assert_false(set("coherence", &values, ""));
}

static void messages_name_what_is_accepted(void **state)
{
    static const struct {
        const char *option, *bad, *why;
    } cases[] = {
        {"maxmemory", "12tb", "expected a size from 1mb to 48gb"},
        {"request-timeout", "5", "expected a time from 1ms to 10m, with its unit (ms, s, m, h, d)"},
        {"threads", "many", "expected a whole number from 0 to 64"},
        {"admin-commands", "maybe", "expected on or off"},
        {"coherence", "strong", "expected auto, tracking, broadcast, keyspace, pubsub or ttl"},
        {"unix-socket-mode", "rwx", "expected permissions in octal from 0000 to 0777"},
        {"unix-socket-mode", "1777", "expected permissions in octal from 0000 to 0777"},
        {"tls-listen", "unix:/run/x",
         "expected an address as 127.0.0.1:6390, [::1]:6390 or *:6390"},
        {"tls-protocols", "TLSv1.1", "expected TLSv1.2, TLSv1.3 or both"},
        {"tls-protocols", "", "expected TLSv1.2, TLSv1.3 or both"},
        {"tls-auth-clients", "maybe", "expected auto, no, optional or yes"},
    };
    union values values = {.config = {.n_listeners = 0}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char why[OPTION_TEXT_MAX];
        const struct config_option *const option = config_option_find(false, cases[i].option);

        assert_false(config_option_set(option, &values, cases[i].bad, why));
        assert_string_equal(why, cases[i].why);
    }
}

static void lists_grow_until_they_are_full_and_keep_their_items_on_an_error(void **state)
{
    const struct config_option *const listen = config_option_find(false, "listen");
    union values values = {.config = {.n_listeners = 0}};
    char shown[OPTION_TEXT_MAX];

    (void)state;
    assert_true(set("listen", &values, "127.0.0.1:1, [::1]:2\tunix:/x"));
    assert_true(set("listen", &values, " *:4 "));
    assert_int_equal(values.config.listen.n, 4);
    assert_false(set("listen", &values, "127.0.0.1:5 nonsense"));
    assert_false(set("listen", &values, " , "));
    config_option_format(listen, &values, shown);
    assert_string_equal(shown, "127.0.0.1:1 [::1]:2 unix:/x *:4");
    for (unsigned i = 4; i < CONFIG_LIST_MAX; i++) {
        assert_true(set("listen", &values, "127.0.0.1:9"));
    }
    assert_false(set("listen", &values, "127.0.0.1:9"));
    config_option_clear(listen, &values);
    assert_int_equal(values.config.listen.n, 0);
}

static void secrets_are_never_shown(void **state)
{
    const struct config_option *const secret = config_option_find(false, "requirepass");
    const struct config_option *const backend = config_option_find(false, "backend");
    union values values = {.config = {.n_listeners = 0}};
    char shown[OPTION_TEXT_MAX];

    (void)state;
    assert_true(set("requirepass", &values, "hunter2"));
    config_option_format(secret, &values, shown);
    assert_string_equal(shown, "(hidden)");
    assert_string_equal(config_option_shown(secret, ""), "(empty)");
    assert_string_equal(config_option_shown(backend, "redis://joe:hunter2@h:1/0"),
                        "redis://***@h:1/0");
    /* Also where the password is the reason for which the URL is refused. */
    assert_null(strstr(config_option_shown(backend, "redis://joe:hun/ter@2@h:1"), "ter"));
    assert_null(strstr(config_option_shown(backend, "joe:hunter2@h"), "hunter2"));
    config_option_clear(secret, &values);
}

static void names_are_spelt_three_ways_and_found_by_one(void **state)
{
    const struct config_option *const option = config_option_find(false, "max-staleness");

    (void)state;
    assert_non_null(option);
    assert_string_equal(option->name, "max_staleness");
    assert_string_equal(option->variable, "NEARCACHED_MAX_STALENESS");
    assert_null(config_option_find(false, "max_staleness"));
    assert_null(config_option_find(false, "match"));
    assert_non_null(config_option_find(true, "match"));
    assert_string_equal(config_option_nearest(false, "max-stalenes")->spelling, "max-staleness");
    assert_null(config_option_nearest(false, "colour"));
    /* The same option twice: of [cache], and of a namespace. */
    assert_true(config_option_find(true, "max-ttl")->is_override);
    assert_false(config_option_find(false, "max-ttl")->is_override);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_default_is_accepted),
        cmocka_unit_test(every_number_takes_its_bounds_and_nothing_beyond),
        cmocka_unit_test(sizes_count_in_powers_of_1024),
        cmocka_unit_test(times_need_a_unit_unless_they_are_zero),
        cmocka_unit_test(values_print_in_their_largest_whole_unit),
        cmocka_unit_test(switches_take_six_words),
        cmocka_unit_test(words_stand_for_the_constants_of_the_header),
        cmocka_unit_test(messages_name_what_is_accepted),
        cmocka_unit_test(lists_grow_until_they_are_full_and_keep_their_items_on_an_error),
        cmocka_unit_test(secrets_are_never_shown),
        cmocka_unit_test(names_are_spelt_three_ways_and_found_by_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
