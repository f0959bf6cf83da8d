/*
 * Design: a merge sees whole replies, in the client's protocol version: RESP2 writes a map as a
 * flat array and a double as a bulk string, so one walk serves both. Lists of entries are cut out
 * as bytes, sorted and written again; maps are gathered as (name, value) pairs of all masters,
 * sorted by name, and each name's values become one.
 */
#include "proxy/merge.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>

/* How deep the maps of MEMORY STATS and LATENCY HISTOGRAM lie in each other, and some more. */
#define DEPTH_MAX 8
/* Redis' own number of entries for SLOWLOG GET and ACL LOG. */
#define ENTRIES_DEFAULT 10

static bool is_error(struct bytes reply)
{
    return reply.len == 0 || reply.ptr[0] == '-' || reply.ptr[0] == '!';
}

/* Digits as a number; the texts are those of the server. */
static double number_of(struct bytes text)
{
    char digits[64];
    const size_t length = text.len < sizeof(digits) - 1 ? text.len : sizeof(digits) - 1;

    memcpy(digits, text.ptr, length);
    digits[length] = '\0';
    return strtod(digits, NULL);
}

/* ---- one of the replies ---- */

static bool begins_with_error(const struct group *group, unsigned part, struct bytes error)
{
    return bytes_start_with(group_reply(group, part), error);
}

/* The first reply that is no error, else the first error that says more than `least`. */
static void put_success(const struct group *group, struct resp_writer *reply, struct bytes least)
{
    for (unsigned i = 0; i < group->n_parts; i++) {
        if (!is_error(group_reply(group, i))) {
            resp_put_raw(reply, group_reply(group, i));
            return;
        }
    }
    for (unsigned i = 0; i < group->n_parts; i++) {
        if (!begins_with_error(group, i, least)) {
            resp_put_raw(reply, group_reply(group, i));
            return;
        }
    }
    (void)group_put_error(group, reply);
}

/* SCRIPT KILL: one success is enough; that a script cannot be killed is news, that there is none
 * is not. */
static void merge_any_ok(struct group *group, struct resp_writer *reply)
{
    put_success(group, reply, BYTES("-NOTBUSY"));
}

/* DEBUG OBJECT and its kind find their key on one master only. */
static void merge_debug(struct group *group, struct resp_writer *reply)
{
    for (unsigned i = 0; i < group->n_parts; i++) {
        if (is_error(group_reply(group, i)) &&
            !begins_with_error(group, i, BYTES("-ERR no such key"))) {
            resp_put_raw(reply, group_reply(group, i));
            return;
        }
    }
    put_success(group, reply, BYTES("-ERR no such key"));
}

/* RANDOMKEY: any master's answer that is no nil; which one goes first changes with the clock. */
static void merge_random(struct group *group, struct resp_writer *reply)
{
    const unsigned start = (unsigned)(clock_now_us() / 7 % group->n_parts);

    if (group_put_error(group, reply)) {
        return;
    }
    for (unsigned i = 0; i < group->n_parts; i++) {
        struct bytes at = group_reply(group, (start + i) % group->n_parts);
        struct resp_value value;

        if (resp_next(&at, &value) && !value.is_null) {
            resp_put_raw(reply, group_reply(group, (start + i) % group->n_parts));
            return;
        }
    }
    resp_put_raw(reply, group_reply(group, 0));
}

/* LASTSAVE: all of them have saved since then. */
static void merge_min(struct group *group, struct resp_writer *reply)
{
    int64_t least = INT64_MAX;

    if (group_put_error(group, reply)) {
        return;
    }
    for (unsigned i = 0; i < group->n_parts; i++) {
        struct bytes at = group_reply(group, i);
        struct resp_value value;
        int64_t number;

        if (!resp_next(&at, &value) || !bytes_to_int64(value.text, &number)) {
            reply->has_failed = true;
            return;
        }
        least = number < least ? number : least;
    }
    resp_put_integer(reply, least);
}

/* SCRIPT EXISTS: 1 where every master knows the script. */
static void merge_and(struct group *group, struct resp_writer *reply)
{
    struct bytes first = group_reply(group, 0);
    struct resp_value head;

    if (group_put_error(group, reply) || !resp_next(&first, &head)) {
        return;
    }
    resp_put_array(reply, head.n_children);
    for (size_t element = 0; element < head.n_children; element++) {
        bool all = true;

        for (unsigned i = 0; i < group->n_parts; i++) {
            struct bytes at = group_reply(group, i);
            struct resp_value value = {0};

            (void)resp_next(&at, &value);
            for (size_t skip = 0; skip <= element; skip++) {
                (void)resp_next(&at, &value);
            }
            all = all && bytes_equal(value.text, BYTES("1"));
        }
        resp_put_integer(reply, all);
    }
}

/* ---- texts ---- */

static void put_node_text(struct resp_writer *out, const struct group *group, unsigned part)
{
    const struct backend_node *node = backend_by_id(&group->owner->front->backend,
                                                    group->parts[part]->node);

    if (buffer_len(out->out) > 0) {
        resp_put_raw(out, BYTES("\n"));
    }
    resp_put_raw(out, BYTES("# "));
    resp_put_raw(out, bytes_of_string(node != NULL ? node->links[LINK_RELAY2].name : "?"));
    resp_put_raw(out, BYTES("\n"));
    resp_put_raw(out, group_text(group, part));
}

/*
 * Reports for people: what all masters say alike is said once, else each text stands under its
 * master's address. LATENCY GRAPH is an error where a master has no samples: those are left out.
 */
static void merge_text(struct group *group, struct resp_writer *reply)
{
    struct buffer text;
    struct resp_writer out;
    unsigned first = group->n_parts;
    bool are_alike = true;

    for (unsigned i = group->n_parts; i-- > 0;) {
        if (!is_error(group_reply(group, i))) {
            are_alike = are_alike &&
                        (first == group->n_parts ||
                         bytes_equal(group_reply(group, i), group_reply(group, first)));
            first = i;
        }
    }
    if (first == group->n_parts) {
        (void)group_put_error(group, reply);
        return;
    }
    if (are_alike) {
        resp_put_raw(reply, group_reply(group, first));
        return;
    }
    buffer_init(&text);
    out = (struct resp_writer){.out = &text};
    for (unsigned i = first; i < group->n_parts; i++) {
        if (!is_error(group_reply(group, i))) {
            put_node_text(&out, group, i);
        }
    }
    resp_put_text(reply, buffer_bytes(&text));
    reply->has_failed = reply->has_failed || out.has_failed;
    buffer_fini(&text);
}

/* ---- lists of entries, in the order of a number in each ---- */

struct entry {
    struct bytes raw, name;
    double rank;
    size_t place; /* equals stay in the order of the masters */
};

struct entries {
    struct entry *of;
    size_t n;
};

static int by_rank(const void *one, const void *other)
{
    const struct entry *a = one, *b = other;

    if (a->rank != b->rank) {
        return a->rank < b->rank ? -1 : 1;
    }
    return a->place < b->place ? -1 : a->place > b->place;
}

/* Looks into one entry, at behind its header: its rank, and its name if it matters. */
typedef bool (*entry_fn)(struct bytes at, struct entry *entry);

/* Every entry of every master's array. False: no memory, or not what was expected. */
static bool gather(const struct group *group, entry_fn look, struct entries *entries)
{
    size_t total = 0;

    *entries = (struct entries){NULL, 0};
    for (unsigned i = 0; i < group->n_parts; i++) {
        struct bytes at = group_reply(group, i);
        struct resp_value head;

        if (!resp_next(&at, &head)) {
            return false;
        }
        total += head.n_children;
    }
    entries->of = mem_try_alloc((total + 1) * sizeof(*entries->of));
    if (entries->of == NULL) {
        return false;
    }
    for (unsigned i = 0; i < group->n_parts; i++) {
        struct bytes at = group_reply(group, i);
        struct resp_value head, inner;

        (void)resp_next(&at, &head);
        for (size_t child = 0; child < head.n_children; child++) {
            struct entry *entry = &entries->of[entries->n];
            struct bytes inside = at;
            const unsigned char *start = at.ptr;

            if (!resp_skip(&at) || !resp_next(&inside, &inner) || !look(inside, entry)) {
                return false;
            }
            entry->raw = bytes_make(start, (size_t)(at.ptr - start));
            entry->place = entries->n++;
        }
    }
    return true;
}

static void put_sorted(struct group *group, struct resp_writer *reply, entry_fn look,
                       uint64_t limit)
{
    struct entries entries;

    if (group_put_error(group, reply)) {
        return;
    }
    if (gather(group, look, &entries)) {
        const size_t n = entries.n < limit ? entries.n : (size_t)limit;

        qsort(entries.of, entries.n, sizeof(*entries.of), by_rank);
        resp_put_array(reply, n);
        for (size_t i = 0; i < n; i++) {
            resp_put_raw(reply, entries.of[i].raw);
        }
    } else {
        reply->has_failed = true;
    }
    mem_free(entries.of);
}

uint64_t merge_limit(const struct bytes *argv, unsigned argc)
{
    int64_t asked;

    if (argc < 3 || !bytes_to_int64(argv[2], &asked)) {
        return ENTRIES_DEFAULT;
    }
    return asked < 0 ? UINT64_MAX : (uint64_t)asked;
}

/* [id, time, duration, arguments, client, name]: the newest first. */
static bool look_at_slow(struct bytes at, struct entry *entry)
{
    struct resp_value id, time;

    if (!resp_next(&at, &id) || !resp_next(&at, &time)) {
        return false;
    }
    entry->rank = -number_of(time.text);
    return true;
}

static void merge_slowlog(struct group *group, struct resp_writer *reply)
{
    put_sorted(group, reply, look_at_slow, group->number);
}

/* A map with "age-seconds": the youngest first. */
static bool look_at_denial(struct bytes at, struct entry *entry)
{
    struct resp_value name, value;

    while (resp_next(&at, &name)) {
        struct bytes rest = at;

        if (bytes_equal(name.text, BYTES("age-seconds"))) {
            if (!resp_next(&rest, &value)) {
                return false;
            }
            entry->rank = number_of(value.text);
            return true;
        }
        if (!resp_skip(&at)) {
            return false;
        }
    }
    return false;
}

/* ACL LOG RESET is answered by OK. */
static void merge_acl_log(struct group *group, struct resp_writer *reply)
{
    if (bytes_start_with(group_reply(group, 0), BYTES("+"))) {
        group_merge_first(group, reply);
    } else {
        put_sorted(group, reply, look_at_denial, group->number);
    }
}

/* [time, latency]: in the order of time. */
static bool look_at_sample(struct bytes at, struct entry *entry)
{
    struct resp_value time;

    if (!resp_next(&at, &time)) {
        return false;
    }
    entry->rank = number_of(time.text);
    return true;
}

static void merge_history(struct group *group, struct resp_writer *reply)
{
    put_sorted(group, reply, look_at_sample, UINT64_MAX);
}

/* LATENCY LATEST: [event, time, latest, maximum]. */
static bool look_at_event(struct bytes at, struct entry *entry)
{
    struct resp_value event, time;

    if (!resp_next(&at, &event) || !resp_next(&at, &time)) {
        return false;
    }
    entry->name = event.text;
    entry->rank = -number_of(time.text);
    return true;
}

static int64_t maximum_of(struct bytes raw)
{
    struct resp_value value = {0};
    int64_t number = 0;

    for (unsigned i = 0; i < 5; i++) {
        (void)resp_next(&raw, &value);
    }
    (void)bytes_to_int64(value.text, &number);
    return number;
}

/* Each event once: its newest sample, and the largest of all masters' maxima. */
static void put_event(struct resp_writer *reply, struct entries *entries, size_t first)
{
    struct bytes at = entries->of[first].raw;
    const struct bytes name = entries->of[first].name;
    int64_t maximum = maximum_of(at);
    struct resp_value value;

    for (size_t i = first + 1; i < entries->n; i++) {
        if (entries->of[i].name.ptr != NULL && bytes_equal(entries->of[i].name, name)) {
            const int64_t other = maximum_of(entries->of[i].raw);

            maximum = other > maximum ? other : maximum;
            entries->of[i].name = bytes_make(NULL, 0);
        }
    }
    resp_put_array(reply, 4);
    resp_put_bulk(reply, name);
    (void)resp_next(&at, &value);
    (void)resp_next(&at, &value);
    for (unsigned i = 0; i < 2; i++) {
        int64_t number = 0;

        (void)resp_next(&at, &value);
        (void)bytes_to_int64(value.text, &number);
        resp_put_integer(reply, number);
    }
    resp_put_integer(reply, maximum);
}

static void merge_latest(struct group *group, struct resp_writer *reply)
{
    struct entries entries;
    struct buffer body;
    struct resp_writer out;
    size_t n = 0;

    if (group_put_error(group, reply)) {
        return;
    }
    buffer_init(&body);
    out = (struct resp_writer){.out = &body, .is_resp3 = reply->is_resp3};
    if (gather(group, look_at_event, &entries)) {
        qsort(entries.of, entries.n, sizeof(*entries.of), by_rank);
        for (size_t i = 0; i < entries.n; i++) {
            if (entries.of[i].name.ptr != NULL) {
                put_event(&out, &entries, i);
                n++;
            }
        }
        resp_put_array(reply, n);
        resp_put_raw(reply, buffer_bytes(&body));
    } else {
        reply->has_failed = true;
    }
    reply->has_failed = reply->has_failed || out.has_failed;
    buffer_fini(&body);
    mem_free(entries.of);
}

/* ---- maps of numbers ---- */

/* One pair of one master's map; order is its place there. */
struct field {
    struct bytes name, value;
    size_t order;
    double number; /* a histogram's bucket */
    int64_t count; /* a histogram's requests in it */
};

static int by_name(const void *one, const void *other)
{
    const struct field *a = one, *b = other;
    const size_t least = a->name.len < b->name.len ? a->name.len : b->name.len;
    const int order = memcmp(a->name.ptr, b->name.ptr, least);

    if (order != 0 || a->name.len != b->name.len) {
        return order != 0 ? order : (a->name.len < b->name.len ? -1 : 1);
    }
    return a->order < b->order ? -1 : a->order > b->order;
}

static int by_bucket(const void *one, const void *other)
{
    const struct field *a = one, *b = other;

    return a->number < b->number ? -1 : a->number > b->number;
}

/* The pairs of all maps that are the values of `of`; NULL: no memory, or malformed. */
static struct field *open_maps(const struct field *of, size_t n_of, size_t *n)
{
    struct field *fields;
    size_t total = 0;

    for (size_t i = 0; i < n_of; i++) {
        struct bytes at = of[i].value;
        struct resp_value head;

        total += resp_next(&at, &head) ? head.n_children / 2 : 0;
    }
    fields = mem_try_alloc((total + 1) * sizeof(*fields));
    *n = 0;
    for (size_t i = 0; i < n_of && fields != NULL; i++) {
        struct bytes at = of[i].value;
        struct resp_value head, name;

        if (!resp_next(&at, &head)) {
            continue;
        }
        for (size_t pair = 0; pair < head.n_children / 2; pair++) {
            struct field *field = &fields[*n];
            const unsigned char *start;

            if (!resp_next(&at, &name) || (start = at.ptr, !resp_skip(&at))) {
                mem_free(fields);
                return NULL;
            }
            *field = (struct field){.name = name.text,
                                    .value = bytes_make(start, (size_t)(at.ptr - start)),
                                    .order = pair};
            (*n)++;
        }
    }
    return fields;
}

/*
 * Buckets say how many requests took at most so long. Of several masters: each bucket that one of
 * them names, with the requests of all up to there.
 */
static void put_histogram(struct resp_writer *reply, const struct field *of, size_t n_of)
{
    struct field *buckets;
    size_t n, n_different = 0;
    int64_t before = 0, sum = 0;

    buckets = open_maps(of, n_of, &n);
    if (buckets == NULL) {
        reply->has_failed = true;
        return;
    }
    for (size_t i = 0; i < n; i++) {
        struct bytes at = buckets[i].value;
        struct resp_value value = {0};
        int64_t up_to = 0;

        (void)resp_next(&at, &value);
        (void)bytes_to_int64(value.text, &up_to);
        before = buckets[i].order == 0 ? 0 : before;
        buckets[i].number = number_of(buckets[i].name);
        buckets[i].count = up_to - before;
        before = up_to;
    }
    qsort(buckets, n, sizeof(*buckets), by_bucket);
    for (size_t i = 0; i < n; i++) {
        n_different += i == 0 || buckets[i].number != buckets[i - 1].number;
    }
    resp_put_map(reply, n_different);
    for (size_t i = 0; i < n; i++) {
        sum += buckets[i].count;
        if (i + 1 == n || buckets[i + 1].number != buckets[i].number) {
            resp_put_integer(reply, (int64_t)buckets[i].number);
            resp_put_integer(reply, sum);
        }
    }
    mem_free(buckets);
}

/* Whole numbers are summed; fractions are ratios, and averages have no sum: their mean. */
static void put_number(struct resp_writer *reply, const struct field *of, size_t n_of,
                       unsigned char type)
{
    const bool is_mean = type != ':' || bytes_equal(of[0].name, BYTES("keys.bytes-per-key"));
    double sum = 0;
    char text[64];

    for (size_t i = 0; i < n_of; i++) {
        struct bytes at = of[i].value;
        struct resp_value value;

        sum += resp_next(&at, &value) ? number_of(value.text) : 0;
    }
    sum = is_mean ? sum / (double)n_of : sum;
    if (type == ':') {
        resp_put_integer(reply, (int64_t)sum);
        return;
    }
    snprintf(text, sizeof(text), "%.17g", sum);
    if (type == ',') {
        resp_put_raw(reply, BYTES(","));
        resp_put_raw(reply, bytes_of_string(text));
        resp_put_raw(reply, BYTES("\r\n"));
    } else {
        resp_put_string(reply, text);
    }
}

static void put_maps(struct resp_writer *reply, const struct field *of, size_t n_of,
                     unsigned depth);

/* The values of one name. */
static void put_values(struct resp_writer *reply, const struct field *of, size_t n_of,
                       unsigned depth)
{
    const unsigned char type = of[0].value.ptr[0];

    if (bytes_equal(of[0].name, BYTES("histogram_usec"))) {
        put_histogram(reply, of, n_of);
    } else if (type == '*' || type == '%') {
        put_maps(reply, of, n_of, depth + 1);
    } else {
        put_number(reply, of, n_of, type);
    }
}

/* Fields of one name stand together, as first to first + n. */
struct bundle {
    size_t first, n, order;
};

static int by_order(const void *one, const void *other)
{
    const struct bundle *a = one, *b = other;

    if (a->order != b->order) {
        return a->order < b->order ? -1 : 1;
    }
    return a->first < b->first ? -1 : a->first > b->first;
}

/* Maps of all masters as one: every name once, about where it stood. */
static void put_maps(struct resp_writer *reply, const struct field *of, size_t n_of, unsigned depth)
{
    size_t n, n_bundles = 0;
    struct field *fields = depth < DEPTH_MAX ? open_maps(of, n_of, &n) : NULL;
    struct bundle *bundles = fields != NULL ? mem_try_alloc((n + 1) * sizeof(*bundles)) : NULL;

    if (bundles == NULL) {
        reply->has_failed = true;
        mem_free(fields);
        return;
    }
    qsort(fields, n, sizeof(*fields), by_name);
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || !bytes_equal(fields[i].name, fields[i - 1].name)) {
            bundles[n_bundles++] = (struct bundle){i, 0, fields[i].order};
        }
        bundles[n_bundles - 1].n++;
    }
    qsort(bundles, n_bundles, sizeof(*bundles), by_order);
    resp_put_map(reply, n_bundles);
    for (size_t i = 0; i < n_bundles; i++) {
        const struct field *values = &fields[bundles[i].first];

        resp_put_bulk(reply, values->name);
        put_values(reply, values, bundles[i].n, depth);
    }
    mem_free(bundles);
    mem_free(fields);
}

/* MEMORY STATS, LATENCY HISTOGRAM. */
static void merge_stats(struct group *group, struct resp_writer *reply)
{
    struct field *replies;

    if (group_put_error(group, reply)) {
        return;
    }
    replies = mem_try_alloc(group->n_parts * sizeof(*replies));
    if (replies == NULL) {
        reply->has_failed = true;
        return;
    }
    for (unsigned i = 0; i < group->n_parts; i++) {
        replies[i] = (struct field){.value = group_reply(group, i)};
    }
    put_maps(reply, replies, group->n_parts, 0);
    mem_free(replies);
}

merge_fn merge_of(enum command_merge merge)
{
    static const merge_fn merges[] = {
        [MERGE_SUM] = group_merge_sum,   [MERGE_CONCAT] = group_merge_concat,
        [MERGE_AND] = merge_and,         [MERGE_RANDOM] = merge_random,
        [MERGE_ANY_OK] = merge_any_ok,   [MERGE_MIN] = merge_min,
        [MERGE_TEXT] = merge_text,       [MERGE_SLOWLOG] = merge_slowlog,
        [MERGE_ACL_LOG] = merge_acl_log, [MERGE_HISTORY] = merge_history,
        [MERGE_LATEST] = merge_latest,   [MERGE_STATS] = merge_stats,
        [MERGE_DEBUG] = merge_debug,
    };
    const bool is_listed = (size_t)merge < sizeof(merges) / sizeof(merges[0]);

    return is_listed && merges[merge] != NULL ? merges[merge] : group_merge_first;
}
