/*
 * test_order_body.c - proves of order_body.h: what each order comes to, and which member is to
 * blame for one that is none
 */
#include "admin/order_body.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static json_t *body;

static int forget(void **state)
{
    (void)state;
    json_decref(body);
    body = NULL;
    return 0;
}

static bool read_order(const char *text, struct order_invalidate *order, struct order_fault *fault)
{
    char why[ORDER_WHY_MAX] = "";

    json_decref(body);
    body = order_body_parse(bytes_of_string(text), why);
    if (body == NULL) {
        fail_msg("%s: %s", text, why);
    }
    return order_read_invalidate(body, 3, order, fault);
}

static struct order_invalidate good(const char *text)
{
    struct order_invalidate order;
    struct order_fault fault;

    if (!read_order(text, &order, &fault)) {
        fail_msg("%s: %s: %s", text, fault.field != NULL ? fault.field : "-", fault.text);
    }
    return order;
}

static void blamed(const char *text, const char *field)
{
    struct order_invalidate order;
    struct order_fault fault = {.text = ""};

    if (read_order(text, &order, &fault)) {
        fail_msg("taken: %s", text);
    }
    assert_true(fault.text[0] != '\0');
    if (field == NULL) {
        assert_null(fault.field);
    } else {
        assert_string_equal(fault.field, field);
    }
}

static void each_order_is_what_it_says(void **state)
{
    struct order_invalidate order = good("{\"keys\":[\"a\",\"b\"]}");

    (void)state;
    assert_true(order.action == ORDER_DROP && order.what.kind == INVALIDATE_KEYS);
    assert_int_equal(json_array_size(order.names), 2);
    assert_int_equal(order.what.db, 3);
    assert_false(order.what.is_all);
    order = good("{\"prefix\":\"u:\",\"scope\":\"ALL\",\"db\":5}");
    assert_true(order.what.kind == INVALIDATE_PREFIX && order.what.is_all && order.what.db == 5);
    assert_true(bytes_equal(order.what.name, BYTES("u:")));
    assert_int_equal(good("{\"tags\":[\"t\"]}").action, ORDER_DROP_TAGS);
    assert_int_equal(good("{\"event\":\"e\"}").action, ORDER_PUBLISH);
    assert_int_equal(good("{\"everything\":true}").what.kind, INVALIDATE_EVERYTHING);
    assert_int_equal(good("{\"cancel\":7}").id, 7);
    assert_int_equal(good("{\"unban\":\"00000000000000ff\"}").id, 255);
    order = good("{\"ban\":{\"glob\":\"r:*\",\"namespace\":\"n\",\"older_ms\":1,\"ttl_ms\":9}}");
    assert_true(order.rule.kind == BAN_GLOB && order.rule.min_age_ms == 1 && order.ttl_ms == 9);
    assert_true(bytes_equal(order.ns, BYTES("n")));
}

static void faults_name_the_member(void **state)
{
    (void)state;
    blamed("{}", NULL);
    blamed("{\"keys\":[]}", "keys");
    blamed("{\"keys\":[1]}", "keys");
    blamed("{\"nope\":1}", "nope");
    blamed("{\"keys\":[\"a\"],\"prefix\":\"b\"}", "prefix");
    blamed("{\"prefix\":\"a\",\"scope\":\"l2\"}", "scope");
    blamed("{\"prefix\":\"a\",\"scope\":\"all\\u0000x\"}", "scope");
    blamed("{\"prefix\":\"a\",\"db\":-1}", "db");
    blamed("{\"cancel\":1,\"scope\":\"all\"}", "scope");
    blamed("{\"unban\":\"+0000000000000ff\"}", "unban");
    blamed("{\"ban\":{\"prefix\":\"a\",\"glob\":\"b\"}}", "prefix");
    blamed("{\"ban\":{\"ttl_ms\":5}}", "ban");
    blamed("{\"ban\":{\"prefix\":\"a\",\"ttl\":5}}", "ttl");
    blamed("{\"everything\":false}", "everything");
    blamed("{\"event\":\"\"}", "event");
    blamed("[[]]", NULL);
}

static void what_is_told_is_read(void **state)
{
    static const struct order_words words = {"derived", "sources", 2, false};
    static const struct order_words strict = {"derived", "sources", 2, true};
    struct order_telling telling;
    struct order_fault fault;

    (void)state;
    body = json_pack("{s:s, s:[s, s]}", "derived", "d", "sources", "a", "b");
    assert_true(order_read_telling(body, &words, 4, &telling, &fault));
    assert_true(bytes_equal(telling.first, BYTES("d")) && telling.db == 4 && !telling.is_undo);
    json_array_append_new(json_object_get(body, "sources"), json_string("c"));
    assert_false(order_read_telling(body, &words, 4, &telling, &fault));
    assert_string_equal(fault.field, "sources");
    json_object_del(body, "sources");
    assert_false(order_read_telling(body, &words, 4, &telling, &fault));
    json_object_set_new(body, "remove", json_true());
    assert_true(order_read_telling(body, &words, 4, &telling, &fault));
    assert_true(telling.is_undo && telling.names == NULL);
    assert_false(order_read_telling(body, &strict, 4, &telling, &fault));
}

static void bodies_that_are_none_say_why(void **state)
{
    static const char *const texts[] = {"", "{", "7", "[]", "\"a\"", "{\"a\":1,\"a\":2}"};
    char why[ORDER_WHY_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        why[0] = '\0';
        assert_null(order_body_parse(bytes_of_string(texts[i]), why));
        assert_true(strncmp(why, "not a JSON object, or an array", 30) == 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(each_order_is_what_it_says, forget),
        cmocka_unit_test_teardown(faults_name_the_member, forget),
        cmocka_unit_test_teardown(what_is_told_is_read, forget),
        cmocka_unit_test_teardown(bodies_that_are_none_say_why, forget),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
