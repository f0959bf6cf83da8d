/*
 * test_backend_url.c - proves of backend_url.h: seeds, credentials, database and path come out of a
 * URL; what is wrong is refused with its reason and leaves *out alone; the text for logs has no
 * credentials
 */
#include "config/backend_url.h"

#include "config_testing.h"

static void assert_text(const char *url, const char *text, const char *user, const char *password)
{
    struct config_backend backend;
    const char *why = "";
    char shown[256];

    if (!config_backend_parse(&backend, url, &why)) {
        fail_msg("refused: %s: %s", url, why);
    }
    config_backend_text(&backend, shown, sizeof(shown));
    assert_string_equal(shown, text);
    assert_int_equal(user == NULL, backend.user == NULL);
    assert_int_equal(password == NULL, backend.password == NULL);
    if (user != NULL) {
        assert_string_equal(backend.user, user);
    }
    if (password != NULL) {
        assert_string_equal(backend.password, password);
    }
    config_backend_fini(&backend);
    config_backend_fini(&backend);
}

static void urls_are_taken_apart(void **state)
{
    (void)state;
    assert_text("redis://10.0.0.7:6379", "redis://10.0.0.7:6379", NULL, NULL);
    assert_text("redis://10.0.0.7", "redis://10.0.0.7:6379", NULL, NULL);
    assert_text("REDIS://host/", "redis://host:6379", NULL, NULL);
    assert_text("redis://a:1,b,[::1]:3,[fe80::1%eth0]/12",
                "redis://a:1,b:6379,[::1]:3,[fe80::1%eth0]:6379/12", NULL, NULL);
    assert_text("redis://joe:pw@h:1/0", "redis://h:1", "joe", "pw");
    assert_text("redis://:pw@h:1", "redis://h:1", NULL, "pw");
    assert_text("redis://joe@h:1", "redis://h:1", "joe", NULL);
    assert_text("redis://joe:p%40s%3A%2f%25@h:1", "redis://h:1", "joe", "p@s:/%");
    assert_text("redis://joe:p@ss:word@h:1", "redis://h:1", "joe", "p@ss:word");
    assert_text("redis://:@h:1", "redis://h:1", NULL, NULL);
    assert_text("sentinel://a,b:1/main", "sentinel://a:26379,b:1/main", NULL, NULL);
    assert_text("sentinel://joe:p%2fw@[::1]/m%20n/4", "sentinel://[::1]:26379/m n/4", "joe", "p/w");
    assert_text("rediss://joe:pw@a:1,b/3", "rediss://a:1,b:6379/3", "joe", "pw");
    assert_text("sentinels://a,b:1/main", "sentinels://a:26379,b:1/main", NULL, NULL);
    assert_text("unix:///run/redis.sock", "unix:///run/redis.sock", NULL, NULL);
    assert_text("unix:///run/redis.sock?db=3", "unix:///run/redis.sock?db=3", NULL, NULL);
}

static void refused_urls_say_why_and_change_nothing(void **state)
{
    static const struct {
        const char *url, *why;
    } bad[] = {
        {"", "expected redis://"},
        {"10.0.0.7:6379", "expected redis://"},
        {"http://h", "expected redis://"},
        {"redis://", "expected redis://"},
        {"redis:///1", "expected redis://"},
        {"redis://h,,i", "expected redis://"},
        {"redis://h,", "expected redis://"},
        {"redis://h?x=1", "expected redis://"},
        {"redis://h h", "expected redis://"},
        {"redis://h:0", "expected a port"},
        {"redis://h:65536", "expected a port"},
        {"redis://h:", "expected a port"},
        {"redis://::1", "expected redis://"},
        {"redis://fe80::1:6379", "expected a port"},
        {"redis://[::1", "an IPv6 host"},
        {"redis://[::1]6379", "an IPv6 host"},
        {"redis://h/x", "expected a database"},
        {"redis://h/65536", "expected a database"},
        {"redis://h/-1", "expected a database"},
        {"redis://h/1/2", "expected a database"},
        {"redis://u:%4@h", "user and password"},
        {"redis://u:%zz@h", "user and password"},
        {"redis://%00:p@h", "user and password"},
        {"redis://a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q", "expected at most 16"},
        {"unix://relative", "expected unix:///path"},
        {"unix:///", "expected unix:///path"},
        {"unix:///x?database=1", "expected nothing but ?db=N"},
        {"unix:///x?db=", "expected a database"},
        {"rediss:///run/x", "expected redis://"},
        {"sentinels://h:1", "expected the name"},
        {"sentinel://h:1", "expected the name"},
        {"sentinel://h:1/", "expected the name"},
        {"sentinel://h:1//2", "expected the name"},
        {"sentinel:///name", "expected redis://"},
        {"sentinel://h:1/name/x", "expected a database"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct config_backend backend = {.db = 77};
        const char *why = NULL;

        if (config_backend_parse(&backend, bad[i].url, &why)) {
            fail_msg("accepted: %s", bad[i].url);
        }
        if (strncmp(why, bad[i].why, strlen(bad[i].why)) != 0) {
            fail_msg("%s: %s", bad[i].url, why);
        }
        assert_int_equal(backend.db, 77);
        assert_int_equal(backend.n_seeds, 0);
    }
}

static void a_socket_path_is_bounded(void **state)
{
    char url[7 + 200] = "unix://";
    struct config_backend backend;
    const char *why;

    (void)state;
    memset(url + 7, '/', 107);
    url[7 + 107] = '\0';
    assert_true(config_backend_parse(&backend, url, &why));
    assert_int_equal(strlen(backend.unix_path), 107);
    config_backend_fini(&backend);
    memset(url + 7, '/', 108);
    url[7 + 108] = '\0';
    assert_false(config_backend_parse(&backend, url, &why));
}

static void the_text_for_logs_is_cut_to_its_room(void **state)
{
    struct config_backend backend;
    const char *why;

    (void)state;
    assert_true(config_backend_parse(&backend, "redis://joe:pw@first:1,second:2/5", &why));
    for (size_t size = 1; size < 40; size++) {
        char text[40];

        memset(text, '#', sizeof(text));
        config_backend_text(&backend, text, size);
        assert_true(strlen(text) < size);
        assert_int_equal(text[size], '#');
        assert_memory_equal(text, "redis://first:1,second:2/5", strlen(text));
    }
    config_backend_fini(&backend);
}

static void credentials_are_found_in_broken_urls_too(void **state)
{
    size_t begin = 0, end = 0;

    (void)state;
    assert_true(config_backend_credentials("redis://u:p/w@d@h:1", &begin, &end));
    assert_int_equal(begin, 8);
    assert_int_equal(end, 15);
    assert_true(config_backend_credentials("u:p@h", &begin, &end));
    assert_int_equal(begin, 0);
    assert_int_equal(end, 3);
    assert_false(config_backend_credentials("redis://h:1", &begin, &end));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(urls_are_taken_apart),
        cmocka_unit_test(refused_urls_say_why_and_change_nothing),
        cmocka_unit_test(a_socket_path_is_bounded),
        cmocka_unit_test(the_text_for_logs_is_cut_to_its_room),
        cmocka_unit_test(credentials_are_found_in_broken_urls_too),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
