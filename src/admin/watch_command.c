/*
 * CACHE HOTKEYS, BIGKEYS and SLOWLOG. Names of keys are their users' data: the rule of
 * cache-command says who may see them (the table in cache_command.c), and no metric has them.
 */
#include <inttypes.h>
#include <stdio.h>
#include <strings.h>

#include "admin/cache_call.h"
#include "base/clock.h"
#include "base/mem.h"
#include "cache/hot_keys.h"
#include "proxy/slow_log.h"

#define SHOWN 10
#define SHOWN_MAX 10000

/* ---- HOTKEYS, BIGKEYS ---- */

static void put_key(struct resp_writer *reply, const struct top_key *item)
{
    char text[TOP_KEY_BYTES + 64];
    const struct bytes name = top_key_name(item);
    int more = 0;

    memcpy(text, name.ptr, name.len);
    if (name.len < item->key_len) {
        more = snprintf(text + name.len, sizeof(text) - name.len, "... (%zu more bytes)",
                        (size_t)item->key_len - name.len);
    }
    resp_put_bulk(reply, bytes_make(text, name.len + (size_t)more));
}

static void put_top(struct cache_call *call, enum hot_kind kind, uint32_t most)
{
    const uint32_t now_s = (uint32_t)(clock_now_us() / 1000000);
    struct top_keys keys;
    uint32_t *order, n;

    if (hot_keys_sample() == 0) {
        resp_put_error(call->reply, "ERR nearcached: keys are not looked at (hot-keys-sample = 0)");
        return;
    }
    if (hot_keys_collect(kind, &keys) != 0) {
        resp_put_error(call->reply, "ERR nearcached: out of memory");
        return;
    }
    order = mem_try_alloc(keys.capacity * sizeof(*order));
    n = order != NULL ? top_keys_sorted(&keys, order) : 0;
    n = n < most ? n : most;
    resp_put_array(call->reply, n);
    for (uint32_t i = 0; i < n; i++) {
        const struct top_key *item = &keys.items[order[i]];

        resp_put_array(call->reply, 3);
        put_key(call->reply, item);
        resp_put_integer(call->reply, (int64_t)item->count);
        resp_put_integer(call->reply, kind == HOT_SIZES ? (int64_t)(now_s - item->seen_s)
                                                        : (int64_t)item->error);
    }
    mem_free(order);
    top_keys_fini(&keys);
}

/* [COUNT n], from args on. False: something else, and said so. */
static bool take_count(struct cache_call *call, unsigned at, uint32_t *count)
{
    int64_t value;

    *count = SHOWN;
    if (at == call->n_args) {
        return true;
    }
    if (call->n_args - at != 2 || !bytes_equal_nocase(call->args[at], BYTES("COUNT"))) {
        resp_put_error(call->reply, "ERR syntax error");
        return false;
    }
    if (!bytes_to_int64(call->args[at + 1], &value) || value < 1 || value > SHOWN_MAX) {
        resp_put_error(call->reply, "ERR value is out of range, must be between 1 and %d",
                       SHOWN_MAX);
        return false;
    }
    *count = (uint32_t)value;
    return true;
}

void cache_run_hotkeys(struct cache_call *call)
{
    static const char *const names[] = {
        [HOT_REQUESTS] = "REQUESTS",
        [HOT_BYTES] = "BYTES",
        [HOT_MISSES] = "MISSES",
        [HOT_INVALIDATIONS] = "INVALIDATIONS",
    };
    enum hot_kind kind = HOT_REQUESTS;
    unsigned at = 0;
    uint32_t count;

    if (call->n_args == 1 && bytes_equal_nocase(call->args[0], BYTES("RESET"))) {
        hot_keys_reset();
        resp_put_simple(call->reply, "OK");
        return;
    }
    for (unsigned i = 0; call->n_args > 0 && i < sizeof(names) / sizeof(names[0]); i++) {
        if (bytes_equal_nocase(call->args[0], bytes_of_string(names[i]))) {
            kind = (enum hot_kind)i;
            at = 1;
        }
    }
    if (take_count(call, at, &count)) {
        put_top(call, kind, count);
    }
}

void cache_run_bigkeys(struct cache_call *call)
{
    uint32_t count;

    if (take_count(call, 0, &count)) {
        put_top(call, HOT_SIZES, count);
    }
}

/* ---- SLOWLOG ---- */

/* Redis' six fields, and three of ours. */
static void put_entry(struct resp_writer *reply, const struct slow_entry *entry)
{
    resp_put_array(reply, 9);
    resp_put_integer(reply, (int64_t)entry->id);
    resp_put_integer(reply, entry->at_unix_s);
    resp_put_integer(reply, entry->took_us);
    slow_log_put_arguments(entry, reply);
    resp_put_string(reply, entry->client);
    resp_put_string(reply, entry->name);
    resp_put_string(reply, entry->outcome);
    resp_put_integer(reply, entry->took_us - entry->backend_us);
    resp_put_integer(reply, entry->backend_us);
}

/* What comes in meanwhile is newer than what is shown, so the number shown is known before. */
static void put_slow(struct cache_call *call, uint32_t most)
{
    struct slow_entry *entries = mem_try_alloc(((size_t)most + 1) * sizeof(*entries));
    uint64_t before = UINT64_MAX;
    uint32_t n = 0;

    if (entries == NULL) {
        resp_put_error(call->reply, "ERR nearcached: out of memory");
        return;
    }
    while (n < most && slow_log_next(before, &entries[n])) {
        before = entries[n++].id;
    }
    resp_put_array(call->reply, n);
    for (uint32_t i = 0; i < n; i++) {
        put_entry(call->reply, &entries[i]);
    }
    mem_free(entries);
}

static void get_slow(struct cache_call *call)
{
    const unsigned n_held = slow_log_length();
    int64_t count = SHOWN;

    if (call->n_args == 2 && (!bytes_to_int64(call->args[1], &count) || count < -1)) {
        resp_put_error(call->reply, "ERR count should be greater than or equal to -1");
        return;
    }
    put_slow(call, count < 0 || count > n_held ? n_held : (uint32_t)count);
}

void cache_run_slowlog(struct cache_call *call)
{
    const struct bytes what = call->args[0];

    if (bytes_equal_nocase(what, BYTES("GET"))) {
        get_slow(call);
    } else if (call->n_args == 1 && bytes_equal_nocase(what, BYTES("LEN"))) {
        resp_put_integer(call->reply, slow_log_length());
    } else if (call->n_args == 1 && bytes_equal_nocase(what, BYTES("RESET"))) {
        slow_log_reset();
        resp_put_simple(call->reply, "OK");
    } else {
        resp_put_error(call->reply, "ERR syntax error");
    }
}
