/*
 * One of the members of an order says what is to be done (actions[] below), others how; a member
 * that nobody knows is an error, so that a misspelt one does no harm. Strings are UTF-8: keys of
 * other bytes are for CACHE INVALIDATE.
 */
#include "admin/order_body.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "coherence/tags.h"
#include "config/event_rules.h"

#define TIME_MAX_MS (INT64_C(30) * 86400 * 1000)
#define SIZE_MAX_BYTES ((int64_t)1 << 32)

struct bytes bytes_of_json(const json_t *string)
{
    return bytes_make(json_string_value(string), json_string_length(string));
}

json_t *order_body_parse(struct bytes text, char why[ORDER_WHY_MAX])
{
    json_error_t error;
    json_t *body = NULL;

    if (text.len > 0) {
        body = json_loadb((const char *)text.ptr, text.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL,
                          &error);
    }
    if (json_is_object(body) ||
        (json_array_size(body) >= 1 && json_array_size(body) <= ORDERS_MAX)) {
        return body;
    }
    const bool is_broken = text.len > 0 && body == NULL;
    (void)snprintf(why, ORDER_WHY_MAX, "not a JSON object, or an array of 1 to 1000%s%.160s",
                   is_broken ? ": " : "", is_broken ? error.text : "");
    json_decref(body);
    return NULL;
}

/* ---- parts ---- */

/* Always false. */
static bool blame(struct order_fault *fault, const char *field, const char *text)
{
    fault->field = field;
    (void)snprintf(fault->text, sizeof(fault->text), "%s", text);
    return false;
}

/* Absent: *value stays. */
static bool take_integer(const json_t *object, const char *name, int64_t max, int64_t *value,
                         struct order_fault *fault)
{
    const json_t *member = json_object_get(object, name);

    if (member == NULL) {
        return true;
    }
    if (!json_is_integer(member) || json_integer_value(member) < 0 ||
        json_integer_value(member) > max) {
        return blame(fault, name, "not an integer, or out of range");
    }
    *value = json_integer_value(member);
    return true;
}

static bool take_db(const json_t *order, unsigned *db, struct order_fault *fault)
{
    int64_t number = *db;

    if (!take_integer(order, "db", CONFIG_DB_MAX, &number, fault)) {
        return false;
    }
    *db = (unsigned)number;
    return true;
}

/* known: ends with NULL. */
static bool has_known(const json_t *object, const char *const *known, struct order_fault *fault)
{
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)object, name, value)
    {
        unsigned i = 0;

        while (known[i] != NULL && strcmp(known[i], name) != 0) {
            i++;
        }
        if (known[i] == NULL) {
            return blame(fault, name, "unknown member");
        }
    }
    return true;
}

/* An array of 1 to max strings. */
static bool are_names(const json_t *names, size_t max)
{
    for (size_t i = 0; i < json_array_size(names); i++) {
        if (!json_is_string(json_array_get(names, i))) {
            return false;
        }
    }
    return json_array_size(names) > 0 && json_array_size(names) <= max;
}

static bool take_names(const json_t *names, const char *field, size_t max,
                       struct order_fault *fault)
{
    char text[80];

    if (are_names(names, max)) {
        return true;
    }
    (void)snprintf(text, sizeof(text), "not an array of 1 to %zu strings", max);
    return blame(fault, field, text);
}

/* ---- actions of POST /v1/invalidate ---- */

static bool read_keys(const json_t *value, struct order_invalidate *out, struct order_fault *fault)
{
    out->names = value;
    out->what.kind = INVALIDATE_KEYS;
    return take_names(value, "keys", INVALIDATE_KEYS_MAX, fault);
}

static bool read_named(const json_t *value, enum invalidation_kind kind,
                       struct order_invalidate *out, struct order_fault *fault)
{
    if (!json_is_string(value)) {
        return blame(fault, out->field, "not a string");
    }
    out->what.kind = kind;
    out->what.name = bytes_of_json(value);
    return true;
}

static bool read_prefix(const json_t *value, struct order_invalidate *out,
                        struct order_fault *fault)
{
    return read_named(value, INVALIDATE_PREFIX, out, fault);
}

static bool read_glob(const json_t *value, struct order_invalidate *out, struct order_fault *fault)
{
    return read_named(value, INVALIDATE_GLOB, out, fault);
}

static bool read_namespace(const json_t *value, struct order_invalidate *out,
                           struct order_fault *fault)
{
    return read_named(value, INVALIDATE_NAMESPACE, out, fault);
}

static bool read_everything(const json_t *value, struct order_invalidate *out,
                            struct order_fault *fault)
{
    out->what.kind = INVALIDATE_EVERYTHING;
    return json_is_true(value) || blame(fault, "everything", "not true");
}

static bool read_tags(const json_t *value, struct order_invalidate *out, struct order_fault *fault)
{
    out->names = value;
    return take_names(value, "tags", TAGS_MAX, fault);
}

static bool read_event(const json_t *value, struct order_invalidate *out, struct order_fault *fault)
{
    if (!json_is_string(value) || json_string_length(value) == 0 ||
        json_string_length(value) > EVENT_NAME_MAX) {
        return blame(fault, "event", "not a string of 1 to 512 bytes");
    }
    out->what.name = bytes_of_json(value);
    return true;
}

static bool read_ban_name(const json_t *ban, struct order_invalidate *out,
                          struct order_fault *fault)
{
    static const char *const members[] = {"prefix", "glob", "tag"};
    static const enum ban_name kinds[] = {BAN_PREFIX, BAN_GLOB, BAN_TAG};
    const json_t *const ns = json_object_get(ban, "namespace");
    const char *first = NULL;

    for (unsigned i = 0; i < 3; i++) {
        const json_t *const name = json_object_get(ban, members[i]);

        if (name == NULL) {
            continue;
        }
        if (first != NULL || !json_is_string(name)) {
            return blame(fault, first != NULL ? first : members[i], "not one string");
        }
        first = members[i];
        out->rule.kind = kinds[i];
        out->rule.name = bytes_of_json(name);
    }
    if (ns != NULL && !json_is_string(ns)) {
        return blame(fault, "namespace", "no such namespace");
    }
    out->ns = ns != NULL ? bytes_of_json(ns) : (struct bytes){0};
    return true;
}

static bool read_ban(const json_t *value, struct order_invalidate *out, struct order_fault *fault)
{
    static const char *const known[] = {"prefix",   "glob",         "tag",    "namespace",
                                        "older_ms", "larger_bytes", "ttl_ms", NULL};
    int64_t n_bytes = 0;

    out->rule = (struct ban_rule){.ns = -1};
    if (!json_is_object(value) || json_object_size(value) == 0) {
        return blame(fault, "ban", "not an object with a rule");
    }
    if (!has_known(value, known, fault) || !read_ban_name(value, out, fault) ||
        !take_integer(value, "older_ms", TIME_MAX_MS, &out->rule.min_age_ms, fault) ||
        !take_integer(value, "larger_bytes", SIZE_MAX_BYTES, &n_bytes, fault) ||
        !take_integer(value, "ttl_ms", TIME_MAX_MS, &out->ttl_ms, fault)) {
        return false;
    }
    out->rule.min_bytes = (size_t)n_bytes;
    if (out->rule.kind == BAN_ANY_NAME && out->ns.ptr == NULL && out->rule.min_age_ms == 0 &&
        n_bytes == 0) {
        return blame(fault, "ban", "needs prefix, glob, tag, namespace, older_ms or larger_bytes");
    }
    return true;
}

static bool read_unban(const json_t *value, struct order_invalidate *out, struct order_fault *fault)
{
    const char *const text = json_string_value(value);

    if (text == NULL || json_string_length(value) != 16 ||
        strspn(text, "0123456789abcdefABCDEF") != 16) {
        return blame(fault, "unban", "not the id of a ban");
    }
    out->id = strtoull(text, NULL, 16);
    return true;
}

static bool read_cancel(const json_t *value, struct order_invalidate *out,
                        struct order_fault *fault)
{
    out->id = (uint64_t)json_integer_value(value);
    return json_is_integer(value) || blame(fault, "cancel", "not the number of a job");
}

/* ---- POST /v1/invalidate ---- */

static const struct action {
    const char *name;
    bool has_scope; /* "scope" and "db" may stand beside it */
    enum order_action action;
    bool (*read)(const json_t *value, struct order_invalidate *out, struct order_fault *fault);
} actions[] = {
    {"keys", true, ORDER_DROP, read_keys},
    {"prefix", true, ORDER_DROP, read_prefix},
    {"glob", true, ORDER_DROP, read_glob},
    {"namespace", true, ORDER_DROP, read_namespace},
    {"everything", true, ORDER_DROP, read_everything},
    {"tags", true, ORDER_DROP_TAGS, read_tags},
    {"event", true, ORDER_PUBLISH, read_event},
    {"ban", false, ORDER_BAN, read_ban},
    {"unban", false, ORDER_UNBAN, read_unban},
    {"cancel", false, ORDER_CANCEL, read_cancel},
};

static const struct action *find_action(const char *name)
{
    for (size_t i = 0; i < sizeof(actions) / sizeof(actions[0]); i++) {
        if (strcmp(actions[i].name, name) == 0) {
            return &actions[i];
        }
    }
    return NULL;
}

/* NULL: *fault says why. */
static const struct action *choose(const json_t *order, struct order_fault *fault)
{
    const struct action *chosen = NULL;
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)order, name, value)
    {
        const struct action *const action = find_action(name);

        if (action == NULL && strcmp(name, "scope") != 0 && strcmp(name, "db") != 0) {
            (void)blame(fault, name, "unknown member");
            return NULL;
        }
        if (action != NULL && chosen != NULL) {
            (void)blame(fault, name, "more than one thing to do");
            return NULL;
        }
        chosen = action != NULL ? action : chosen;
    }
    if (chosen == NULL) {
        (void)blame(fault, NULL,
                    "needs keys, prefix, glob, namespace, everything, tags, event, ban, unban or "
                    "cancel");
    }
    return chosen;
}

/* Not cut at a zero byte. */
static bool is_word(const json_t *value, const char *word)
{
    return json_is_string(value) && json_string_length(value) == strlen(word) &&
           strcasecmp(json_string_value(value), word) == 0;
}

static bool take_scope(const json_t *order, struct invalidation *what, struct order_fault *fault)
{
    const json_t *const scope = json_object_get(order, "scope");

    what->is_all = is_word(scope, "all");
    if (scope != NULL && !what->is_all && !is_word(scope, "l1")) {
        return blame(fault, "scope", "neither \"l1\" nor \"all\"");
    }
    return take_db(order, &what->db, fault);
}

bool order_read_invalidate(const json_t *order, unsigned db, struct order_invalidate *out,
                           struct order_fault *fault)
{
    const struct action *chosen;

    if (!json_is_object(order)) {
        return blame(fault, NULL, "not a JSON object");
    }
    chosen = choose(order, fault);
    if (chosen == NULL) {
        return false;
    }
    if (!chosen->has_scope && json_object_size(order) > 1) {
        return blame(fault, json_object_get(order, "scope") != NULL ? "scope" : "db",
                     "does not go with what is to be done");
    }
    *out = (struct order_invalidate){
        .action = chosen->action, .field = chosen->name, .what = {.db = db}};
    return take_scope(order, &out->what, fault) &&
           chosen->read(json_object_get(order, chosen->name), out, fault);
}

/* ---- what is told ---- */

bool order_read_telling(const json_t *order, const struct order_words *words, unsigned db,
                        struct order_telling *out, struct order_fault *fault)
{
    const char *const known[] = {words->first, words->names, "remove", "db", NULL};
    const json_t *const first = json_object_get(order, words->first);
    const json_t *const undo = json_object_get(order, "remove");

    if (!json_is_object(order)) {
        return blame(fault, NULL, "not a JSON object");
    }
    if (!has_known(order, known, fault)) {
        return false;
    }
    if (!json_is_string(first) || json_string_length(first) == 0) {
        return blame(fault, words->first, "not a string, or empty");
    }
    if (undo != NULL && !json_is_boolean(undo)) {
        return blame(fault, "remove", "neither true nor false");
    }
    *out = (struct order_telling){.first = bytes_of_json(first),
                                  .names = json_object_get(order, words->names),
                                  .is_undo = json_is_true(undo),
                                  .db = db};
    if (out->names == NULL && out->is_undo && !words->needs_names) {
        return take_db(order, &out->db, fault);
    }
    return take_names(out->names, words->names, words->names_max, fault) &&
           take_db(order, &out->db, fault);
}

/* ---- modes ---- */

static int mode_of(const char *name)
{
    for (int mode = MODE_ON; name != NULL && mode <= MODE_OFF; mode++) {
        if (strcmp(config_mode_name(mode), name) == 0) {
            return mode;
        }
    }
    return -1;
}

bool order_read_mode(const json_t *order, struct order_mode *out, struct order_fault *fault)
{
    static const char *const known[] = {"mode", "namespace", NULL};
    const json_t *const space = json_object_get(order, "namespace");

    if (!json_is_object(order)) {
        return blame(fault, NULL, "not a JSON object");
    }
    if (!has_known(order, known, fault)) {
        return false;
    }
    *out = (struct order_mode){.mode = mode_of(json_string_value(json_object_get(order, "mode"))),
                               .ns = json_string_value(space)};
    if (out->mode < 0) {
        return blame(fault, "mode", "none of \"on\", \"bypass\", \"readonly\", \"off\"");
    }
    if (space != NULL && out->ns == NULL) {
        return blame(fault, "namespace", "not a string");
    }
    return true;
}
