/*
 * test_event_rules.c - proves of event_rules.h: sections become rules and sources, each mistake is
 * told with its line, and a message's text and channel become the event's name
 */
#include "config/event_rules.h"

#include "config_testing.h"

static void sections_become_rules_and_sources(void **state)
{
    struct config *config = assert_accepted(
        "[event \"deploy\"]\ninvalidate = profile:{id} user:{id}:*\n"
        "match = deployment.*.user.{id}\ntags = user:{id}\nscope = ALL\n"
        "[cache]\nmax-ttl = 1m\n"
        "[event plain]\nmatch = plain\nnamespaces = default\n"
        "[event-source a]\nchannel = app.events\n"
        "[event-source b]\nchannel = db.{table}.*\nevent = changed.{table}.{payload}\n"
        "[event-source c]\nshard-channel = s\n"
        "[event-source d]\nstream = log\nfield = what\n");
    const struct event_rules *const events = config->events;

    (void)state;
    assert_int_equal(events->n_rules, 2);
    assert_string_equal(events->rules[0].name, "deploy");
    assert_int_equal(events->rules[0].n_targets, 3);
    assert_int_equal(events->rules[0].targets[2].kind, EVENT_TARGET_TAG);
    assert_true(events->rules[0].is_all);
    assert_int_equal(events->rules[1].targets[0].kind, EVENT_TARGET_NAMESPACE);
    assert_false(events->rules[1].is_all);
    assert_int_equal(events->n_sources, 4);
    assert_int_equal(events->sources[0].kind, EVENT_CHANNEL);
    assert_string_equal(events->sources[0].address, "app.events");
    assert_int_equal(events->sources[1].kind, EVENT_PATTERN);
    assert_string_equal(events->sources[1].address, "db.*.*");
    assert_int_equal(events->sources[2].kind, EVENT_SHARD_CHANNEL);
    assert_int_equal(events->sources[3].kind, EVENT_STREAM);
    assert_string_equal(events->sources[3].field, "what");
    config_unref(&config);
}

static void mistakes_are_told(void **state)
{
    static const struct {
        const char *text, *error;
    } cases[] = {
        {"[event a]\ninvalidate = x\n", "event a has no match"},
        {"[event a]\nmatch = x\n", "event a drops nothing"},
        {"[event a]\nmatch = x{1}\ninvalidate = y:{2}\n", ":3: invalidate"},
        {"[event a]\nmatch = x\ntags = y*\n", "no wildcards"},
        {"[event a]\nmatch = x{\ninvalidate = y\n", ":2: match"},
        {"[event a]\nmatch = x\ninvalidate = y\nscope = both\n", "expected L1 or ALL"},
        {"[event a]\nmatch = x\nmatch = y\ninvalidate = z\n", "given twice, first on line 2"},
        {"[event a]\nmatch = x\ninvalidate = z\n[event a]\n", ":4: event a is given twice"},
        {"[event a]\nmatch = x\ninvalidate = z\ncolour = red\n", "unknown option"},
        {"[event a b]\n", "expected a name"},
        {"[event-source]\nchannel = x\n", "expected a name"},
        {"[event-source a]\n", "expected one of channel, shard-channel and stream"},
        {"[event-source a]\nchannel = x\nstream = y\n", "expected one of"},
        {"[event-source a]\nshard-channel = x*\n", "the name of one channel"},
        {"[event-source a]\nchannel = x{1}\nevent = {2}\n", ":3: event"},
        {"[event-source a]\nchannel = x\nevent = *\n", "no wildcards"},
        {"[event-source a]\nchannel = 'x\n", "closing quote"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct loaded loaded = load_text(cases[i].text);

        assert_null(loaded.config);
        if (strstr(loaded.messages, cases[i].error) == NULL) {
            fail_msg("%s\nexpected: %s\ntold: %s", cases[i].text, cases[i].error, loaded.messages);
        }
        unload(&loaded);
    }
}

static void messages_name_their_event(void **state)
{
    static const struct {
        const char *source, *channel, *payload, *event; /* event "": none */
    } cases[] = {
        {"channel = a", "a", "deploy.1", "deploy.1"},
        {"channel = a", "a", "", ""},
        {"channel = db.{t}\nevent = changed.{t}", "db.users", "17", "changed.users"},
        {"channel = db.{t}\nevent = changed.{t}", "db.users", "", "changed.users"},
        {"channel = db.{t}\nevent = changed.{t}", "other", "17", ""},
        {"channel = db.{t}\nevent = {t}.{payload}", "db.users", "17", "users.17"},
        {"channel = db.{t}\nevent = {t}.{payload}", "db.users", "", ""},
        {"stream = s\nevent = s.{payload}", "s", "x", "s.x"},
        {"channel = a\nevent = always", "a", "x", "always"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[200];
        unsigned char out[EVENT_NAME_MAX];
        struct config *config;
        size_t len;

        (void)snprintf(text, sizeof(text), "[event-source x]\n%s\n", cases[i].source);
        config = assert_accepted(text);
        len = event_source_name(&config->events->sources[0], bytes_of_string(cases[i].channel),
                                bytes_of_string(cases[i].payload), out);
        if (!bytes_equal(bytes_make(out, len), bytes_of_string(cases[i].event))) {
            fail_msg("%s: %.*s instead of %s", text, (int)len, (const char *)out, cases[i].event);
        }
        config_unref(&config);
    }
}

static void what_is_too_long_is_no_event(void **state)
{
    struct config *config = assert_accepted("[event-source x]\nchannel = c\n"
                                            "[event-source y]\nchannel = c\nevent = {payload}!\n");
    unsigned char payload[EVENT_NAME_MAX + 1], out[EVENT_NAME_MAX];

    (void)state;
    memset(payload, 'x', sizeof(payload));
    for (unsigned i = 0; i < 2; i++) {
        const struct event_source_rule *const source = &config->events->sources[i];

        assert_int_equal(
            event_source_name(source, BYTES("c"), bytes_make(payload, EVENT_NAME_MAX - i), out),
            EVENT_NAME_MAX);
        assert_int_equal(
            event_source_name(source, BYTES("c"), bytes_make(payload, EVENT_NAME_MAX - i + 1), out),
            0);
    }
    config_unref(&config);
}

static void sources_are_compared_word_for_word(void **state)
{
    struct config *a = assert_accepted("[event-source x]\nchannel = c\nevent = {payload}!\n");
    struct config *b = assert_accepted("[event-source x]\nchannel = c\nevent = {payload}.x\n");

    (void)state;
    assert_true(event_source_equal(a->events->sources, a->events->sources));
    assert_false(event_source_equal(a->events->sources, b->events->sources));
    config_unref(&a);
    config_unref(&b);
}

static uint64_t print_of(const char *text)
{
    struct config *config = assert_accepted(text);
    const uint64_t print = config->events->print;

    config_unref(&config);
    return print;
}

/* What one configuration has held is done by the rules of the next one only when they are equal. */
static void equal_rules_have_equal_prints(void **state)
{
    static const char text[] = "[event a]\nmatch = x.{1}\ninvalidate = y:{1}\n"
                               "[event b]\nmatch = z\ninvalidate = z\n";
    static const char *const others[] = {
        "[event a]\nmatch = x.{1}\ninvalidate = v:{1}\n[event b]\nmatch = z\ninvalidate = z\n",
        "[event b]\nmatch = z\ninvalidate = z\n[event a]\nmatch = x.{1}\ninvalidate = y:{1}\n",
        "[event a]\nmatch = x.{1}\ninvalidate = y:{1}\n",
        "[event a]\nmatch = x.{1}\ninvalidate = y:{1}\ndebounce = 1s\n"
        "[event b]\nmatch = z\ninvalidate = z\n",
        "[event a]\nmatch = x.{1}\nnamespaces = default\n"
        "[event b]\nmatch = z\ninvalidate = z\n",
    };

    (void)state;
    assert_true(print_of(text) == print_of(text));
    assert_true(print_of("[event b]\ninvalidate = z\nmatch = z\n") ==
                print_of("[cache]\nmax-ttl = 1m\n[event c]\nmatch = z\ninvalidate = z\n"));
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        assert_false(print_of(text) == print_of(others[i]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sections_become_rules_and_sources),
        cmocka_unit_test(mistakes_are_told),
        cmocka_unit_test(messages_name_their_event),
        cmocka_unit_test(what_is_too_long_is_no_event),
        cmocka_unit_test(sources_are_compared_word_for_word),
        cmocka_unit_test(equal_rules_have_equal_prints),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
