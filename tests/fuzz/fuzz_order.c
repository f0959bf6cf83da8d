/*
 * Bodies of POST /v1/invalidate, /v1/tags, /v1/dependencies and /v1/events: an order is taken whole
 * or refused with words; what is taken is within the limits; order and fault do not depend on the
 * order of the members; and each order that is taken alone is taken in an array.
 */
#include "fuzz.h"

#include "admin/order_body.h"
#include "coherence/dependency_orders.h"
#include "coherence/ledger.h"
#include "coherence/tags.h"
#include "config/event_rules.h"

static const struct order_words tellings[] = {
    {"key", "tags", TAGS_MAX, true},
    {"derived", "sources", 1000, false},
    {"event", "names", LEDGER_ADD_MAX, false},
};

static void check_names(const json_t *names, size_t max)
{
    MUST(json_array_size(names) >= 1 && json_array_size(names) <= max);
    for (size_t i = 0; i < json_array_size(names); i++) {
        MUST(json_is_string(json_array_get(names, i)));
    }
}

static void check_fault(const struct order_fault *fault)
{
    MUST(fault->text[0] != '\0' && strlen(fault->text) < sizeof(fault->text));
    MUST(fault->field == NULL || strlen(fault->field) < ORDER_BODY_MAX);
}

static void check_invalidate(const struct order_invalidate *order)
{
    MUST(order->field != NULL && order->what.db <= CONFIG_DB_MAX);
    switch (order->action) {
    case ORDER_DROP:
        MUST((order->names != NULL) == (order->what.kind == INVALIDATE_KEYS));
        MUST(order->what.keys == NULL && order->what.n_keys == 0);
        if (order->names != NULL) {
            check_names(order->names, INVALIDATE_KEYS_MAX);
        }
        break;
    case ORDER_DROP_TAGS:
        check_names(order->names, TAGS_MAX);
        break;
    case ORDER_PUBLISH:
        MUST(order->what.name.len >= 1 && order->what.name.len <= EVENT_NAME_MAX);
        break;
    case ORDER_BAN:
        MUST(order->rule.kind <= BAN_TAG && order->rule.ns == -1 && order->ttl_ms >= 0);
        MUST(order->rule.kind != BAN_ANY_NAME || order->ns.ptr != NULL ||
             order->rule.min_age_ms > 0 || order->rule.min_bytes > 0);
        MUST(!order->what.is_all);
        break;
    case ORDER_UNBAN:
    case ORDER_CANCEL:
        MUST(!order->what.is_all);
        break;
    }
}

/* The members the other way round. */
static json_t *turned(const json_t *order)
{
    json_t *const out = json_object();
    const char *names[64];
    const char *name;
    json_t *value;
    size_t n = 0;

    json_object_foreach((json_t *)(uintptr_t)order, name, value)
    {
        if (n < sizeof(names) / sizeof(names[0])) {
            names[n++] = name;
        }
    }
    while (n-- > 0) {
        json_object_set(out, names[n], json_object_get(order, names[n]));
    }
    return out;
}

static void check_order(const json_t *order)
{
    struct order_invalidate read, again;
    struct order_fault fault, other;
    const bool is_good = order_read_invalidate(order, 3, &read, &fault);

    if (is_good) {
        check_invalidate(&read);
    } else {
        check_fault(&fault);
    }
    if (json_is_object(order) && json_object_size(order) <= 64) {
        json_t *const other_way = turned(order);

        MUST(order_read_invalidate(other_way, 3, &again, &other) == is_good);
        MUST(!is_good || (again.action == read.action && again.what.db == read.what.db &&
                          again.what.is_all == read.what.is_all && again.id == read.id));
        json_decref(other_way);
    }
    for (unsigned i = 0; i < sizeof(tellings) / sizeof(tellings[0]); i++) {
        struct order_telling telling;

        if (!order_read_telling(order, &tellings[i], 3, &telling, &fault)) {
            check_fault(&fault);
            continue;
        }
        MUST(telling.first.len > 0 && telling.db <= CONFIG_DB_MAX);
        if (telling.names != NULL) {
            check_names(telling.names, tellings[i].names_max);
        } else {
            MUST(telling.is_undo && !tellings[i].needs_names);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct bytes input = bytes_make(data, size);
    unsigned char *const copy = fuzz_copy(input);
    char why[ORDER_WHY_MAX] = "";
    json_t *const body = order_body_parse(bytes_make(copy, size), why);

    free(copy); /* nothing points into it */
    MUST((body == NULL) == (why[0] != '\0') && strlen(why) < sizeof(why));
    if (json_is_array(body)) {
        MUST(json_array_size(body) >= 1 && json_array_size(body) <= ORDERS_MAX);
        for (size_t i = 0; i < json_array_size(body); i++) {
            check_order(json_array_get(body, i));
        }
    } else if (body != NULL) {
        check_order(body);
    }
    json_decref(body);
    return 0;
}
