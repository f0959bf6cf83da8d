#include "admin/hot_json.h"

#include "admin/order_http.h"
#include "base/clock.h"
#include "base/mem.h"
#include "cache/hot_keys.h"

static json_t *json_of_item(const struct top_key *item, enum hot_kind kind, uint32_t now_s)
{
    json_t *json = json_pack("{s:o, s:b}", "key", json_of_bytes(top_key_name(item)), "cut",
                             top_key_name(item).len < item->key_len);

    if (kind == HOT_SIZES) {
        json_object_set_new(json, "bytes", json_integer((json_int_t)item->count));
        json_object_set_new(json, "age_s", json_integer((json_int_t)(now_s - item->seen_s)));
    } else {
        json_object_set_new(json, "count", json_integer((json_int_t)item->count));
        json_object_set_new(json, "error", json_integer((json_int_t)item->error));
    }
    return json;
}

static json_t *json_of_kind(enum hot_kind kind)
{
    const uint32_t now_s = (uint32_t)(clock_now_us() / 1000000);
    json_t *list = json_array();
    struct top_keys keys;
    uint32_t *order, n;

    if (hot_keys_sample() == 0 || hot_keys_collect(kind, &keys) != 0) {
        return list;
    }
    order = mem_try_alloc(keys.capacity * sizeof(*order));
    n = order != NULL ? top_keys_sorted(&keys, order) : 0;
    for (uint32_t i = 0; i < n && i < HOT_JSON_SHOWN; i++) {
        json_array_append_new(list, json_of_item(&keys.items[order[i]], kind, now_s));
    }
    mem_free(order);
    top_keys_fini(&keys);
    return list;
}

json_t *hot_json(void)
{
    return json_pack("{s:I, s:{s:o, s:o, s:o, s:o}, s:o}", "sample", (json_int_t)hot_keys_sample(),
                     "hotkeys", "requests", json_of_kind(HOT_REQUESTS), "bytes",
                     json_of_kind(HOT_BYTES), "misses", json_of_kind(HOT_MISSES), "invalidations",
                     json_of_kind(HOT_INVALIDATIONS), "bigkeys", json_of_kind(HOT_SIZES));
}
