/*
 * test_draft.c - proves of draft.h: what spans several options is checked and the message names
 * both with their places; TLS that cannot be is refused with its file; credentials of the URL come
 * before the options; namespaces inherit from [cache]
 */
#include "config/draft.h"

#include "config_testing.h"

static void pairs_that_do_not_go_together_are_refused(void **state)
{
    (void)state;
    assert_refused("[server]\nclient-output-soft-limit = 128mb\nclient-output-limit = 64mb\n",
                   "x.conf:2: client-output-soft-limit = 128mb must not be above "
                   "client-output-limit = 64mb (x.conf:3)\n");
    assert_refused("[backend]\nreconnect-min = 5s\n",
                   "x.conf:2: reconnect-min = 5s must not be above reconnect-max = 2s (default)\n");
    assert_refused("[coherence]\nfence-interval = 3s\nmax-staleness = 4s\n",
                   "default: link-timeout = 3s must be above fence-interval = 3s (x.conf:2)\n");
    assert_refused("[coherence]\nfence-interval = 1s\n",
                   "default: max-staleness = 1s must be above fence-interval = 1s (x.conf:2)\n");
    assert_refused("[admin]\ncache-command = password\n",
                   "x.conf:2: cache-command = password needs a password in cache-password = "
                   "(empty) (default)\n");
    assert_refused("[server]\nlisten = *:1 0.0.0.0:1\n",
                   "x.conf:2: listen: 0.0.0.0:1 is given twice\n");
    assert_refused("[admin]\nadmin = localhost:6380\n",
                   "x.conf:2: admin = localhost:6380: clients are served there (listen)\n");

    struct config *config = assert_accepted("[server]\nclient-output-soft-limit = 64mb\n"
                                            "[backend]\nreconnect-min = 2s\n"
                                            "[coherence]\nfence-interval = 999ms\n");

    config_unref(&config);
}

static void tls_is_refused_with_option_file_and_reason(void **state)
{
    static const char incomplete[] = "tls-listen needs a certificate in tls-cert-file and the key "
                                     "of each in tls-key-file, in the same order\n";
    char expected[200];

    (void)state;
    snprintf(expected, sizeof(expected), "x.conf:2: %s", incomplete);
    assert_refused("[tls]\ntls-listen = *:6390\n", expected);
    snprintf(expected, sizeof(expected), "x.conf:4: %s", incomplete);
    assert_refused("[tls]\ntls-listen = *:6390\ntls-cert-file = a b\ntls-key-file = a\n", expected);
    assert_refused("[tls]\ntls-listen = *:6390\ntls-cert-file = /none/c\ntls-key-file = /none/k\n",
                   "x.conf:3: tls-cert-file = /none/c: No such file or directory\n");
    assert_refused("[tls]\ntls-listen = *:6390\ntls-cert-file = a\ntls-key-file = b\n"
                   "tls-auth-clients = yes\n",
                   "x.conf:5: tls-auth-clients: clients' certificates are verified by tls-ca-file, "
                   "which is not set\n");
    assert_refused("[tls]\ntls-listen = 127.0.0.1:6380\n",
                   "x.conf:2: tls-listen: 127.0.0.1:6380 is given twice\n");
    assert_refused("[backend]\nbackend = rediss://h\n[tls]\nbackend-tls-ca-file = /none/ca\n",
                   "x.conf:4: backend-tls-ca-file = /none/ca: No such file or directory\n");
    assert_refused("[backend]\nbackend = rediss://h\n[tls]\nbackend-tls-key-file = /none/k\n",
                   "x.conf:4: backend-tls-cert-file and backend-tls-key-file go together\n");
    assert_refused("[backend]\nbackend = rediss://h\n[tls]\ntls-ciphers = NO-SUCH\n",
                   "x.conf:4: tls-ciphers: no cipher match\n");
    assert_refused("[backend]\nbackend = rediss://h\n[tls]\ntls-ciphersuites = NO-SUCH\n",
                   "x.conf:4: tls-ciphersuites: no cipher match\n");
}

static void tls_is_made_ready_where_it_is_needed(void **state)
{
    struct config *config = assert_accepted("[tls]\nbackend-tls-ca-file = /none/ca\n");

    (void)state;
    assert_null(config->tls_clients);
    assert_null(config->tls_backend);
    config_unref(&config);
    config = assert_accepted("[backend]\nbackend = rediss://h\n");
    assert_non_null(config->tls_backend);
    assert_true(config->target.is_tls);
    config_unref(&config);
    config = assert_accepted("[backend]\nbackend = sentinels://h/m\n[tls]\nsentinel-tls = off\n");
    assert_true(config->target.is_tls && !config->target.is_sentinel_tls);
    config_unref(&config);
    config = assert_accepted("[backend]\nbackend = sentinel://h/m\n[tls]\nsentinel-tls = on\n");
    assert_true(!config->target.is_tls && config->target.is_sentinel_tls);
    assert_non_null(config->tls_backend);
    config_unref(&config);
}

static void credentials_of_the_url_come_first(void **state)
{
    struct config *config = assert_accepted("[backend]\nbackend = redis://h\n"
                                            "backend-user = joe\nbackend-password = one\n");

    (void)state;
    assert_string_equal(config->target.user, "joe");
    assert_string_equal(config->target.password, "one");
    config_unref(&config);

    config = assert_accepted("[backend]\nbackend = redis://ann:two@h\n"
                             "backend-user = joe\nbackend-password = one\n");
    assert_string_equal(config->target.user, "ann");
    assert_string_equal(config->target.password, "two");
    config_unref(&config);

    config = assert_accepted("[backend]\nbackend = unix:///x\nbackend-password = one\n");
    assert_null(config->target.user);
    assert_string_equal(config->target.password, "one");
    config_unref(&config);

    assert_refused("[backend]\nbackend-user = joe\n",
                   "x.conf:2: backend-user (or the user in the URL of backend) needs "
                   "backend-password\n");
}

static void namespaces_inherit_from_cache_wherever_it_stands(void **state)
{
    struct config *config = assert_accepted("[namespace \"session\"]\n"
                                            "match = session:*\n"
                                            "max-ttl = 1m\n"
                                            "[namespace raw]\n"
                                            "match = raw:*\n"
                                            "cache = off\n"
                                            "[cache]\n"
                                            "max-ttl = 2h\n"
                                            "max-value = 1kb\n");
    const struct config_namespace *const session = &config->namespaces[1];
    const struct config_namespace *const raw = &config->namespaces[2];

    (void)state;
    assert_int_equal(config->n_namespaces, 3);
    assert_string_equal(config->namespaces[0].name, "default");
    assert_null(config->namespaces[0].match);
    assert_int_equal(config->namespaces[0].id, 0);
    assert_true(config->namespaces[0].cache);
    assert_int_equal(config->namespaces[0].max_ttl_ms, 7200000);
    assert_string_equal(session->name, "session");
    assert_true(session->cache);
    assert_int_equal(session->max_ttl_ms, 60000);
    assert_int_equal(session->negative_ttl_ms, 5000);
    assert_int_equal(session->max_value, 1024);
    assert_string_equal(raw->name, "raw");
    assert_false(raw->cache);
    assert_int_equal(raw->max_ttl_ms, 7200000);
    config_unref(&config);
}

static void the_default_namespace_may_have_a_section(void **state)
{
    struct config *config = assert_accepted("[namespace \"a\"]\nmatch = a*\n"
                                            "[namespace \"default\"]\ncache = off\n");

    (void)state;
    assert_int_equal(config->n_namespaces, 2);
    assert_string_equal(config->namespaces[0].name, "default");
    assert_false(config->namespaces[0].cache);
    assert_true(config->namespaces[1].cache);
    config_unref(&config);
}

static void wrong_namespaces_are_refused(void **state)
{
    (void)state;
    assert_refused(
        "[namespace \"a\"]\nmatch = a:*\n"
        "[namespace \"b\"]\nmatch = \"a:*\"\n"
        "[namespace \"a\"]\nmatch = again-and-again\n"
        "[namespace \"c\"]\ncache = on\n"
        "[namespace \"default\"]\nmatch = x\n"
        "[namespace]\n"
        "[namespace \"with space\"]\n"
        "[namespace \"123456789012345678901234567890123\"]\n"
        "[namespace \"d\"]\nmatch =\nmaxmemory = 1gb\ncash = on\nmax-ttl = 0\n",
        "x.conf:5: namespace a is given twice, first on line 1\n"
        "x.conf:11: a namespace has a name, as in [namespace \"session\"]\n"
        "x.conf:12: namespace \"with space\": expected a name of 1 to 32 letters, digits "
        "and . _ - :\n"
        "x.conf:13: namespace 123456789012345678901234567890123: expected a name of 1 to "
        "32 letters, digits and . _ - :\n"
        "x.conf:15: match = \"\": expected a glob pattern of 1 to 256 characters\n"
        "x.conf:16: maxmemory belongs into [cache]\n"
        "x.conf:17: unknown option cash, did you mean cache?\n"
        "x.conf:18: max-ttl = 0: expected a time from 1ms to 30d, with its unit (ms, s, "
        "m, h, d)\n"
        "x.conf:10: match: the namespace default has the keys that match no other\n"
        "x.conf:4: match = a:*: namespace a has this pattern\n"
        "x.conf:7: namespace c has no match\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pairs_that_do_not_go_together_are_refused),
        cmocka_unit_test(tls_is_refused_with_option_file_and_reason),
        cmocka_unit_test(tls_is_made_ready_where_it_is_needed),
        cmocka_unit_test(credentials_of_the_url_come_first),
        cmocka_unit_test(namespaces_inherit_from_cache_wherever_it_stands),
        cmocka_unit_test(the_default_namespace_may_have_a_section),
        cmocka_unit_test(wrong_namespaces_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
