/*
 * order_body.h - what a POST of JSON asks for, as pure code
 *
 * Purpose:    from the bytes of a body to orders, checked in form: which members there may be, of
 *             which types, how many and how long. What an order means in this proxy (is there such
 *             a namespace, may this be done) is for those who carry it out.
 * Ownership:  what is read points into the JSON.
 * Threading:  any thread.
 * Errors:     false, and struct order_fault says which member is to blame, and why.
 * Limits:     bodies of 256 KiB, 1000 orders in one of them.
 */
#ifndef NC_ADMIN_ORDER_BODY_H
#define NC_ADMIN_ORDER_BODY_H

#include "coherence/invalidation.h"

#include <jansson.h>

#define ORDER_BODY_MAX ((size_t)256 * 1024)
#define ORDERS_MAX ((size_t)1000)
#define INVALIDATE_KEYS_MAX ((size_t)10000)
#define ORDER_WHY_MAX 256

struct order_fault {
    const char *field; /* may point into the order; NULL: none is to blame */
    char text[96];
};

/* Of a string. */
struct bytes bytes_of_json(const json_t *string);

/* An object, or an array of 1 to ORDERS_MAX of whatever; the caller's. NULL: why. */
json_t *order_body_parse(struct bytes text, char why[ORDER_WHY_MAX]);

/* ---- POST /v1/invalidate ---- */

enum order_action {
    ORDER_DROP, /* `what` says it; of INVALIDATE_KEYS the keys are `names` */
    ORDER_DROP_TAGS,
    ORDER_PUBLISH,
    ORDER_BAN,
    ORDER_UNBAN,
    ORDER_CANCEL,
};

struct order_invalidate {
    enum order_action action;
    const char *field;        /* the member that says so */
    struct invalidation what; /* of DROP, TAGS and PUBLISH: is_all, db; name also of PUBLISH */
    const json_t *names;      /* of keys and tags: an array of strings */
    struct ban_rule rule;     /* of BAN; ns is -1 */
    struct bytes ns;          /* of BAN: the namespace's name; ptr NULL: none is said */
    int64_t ttl_ms;           /* of BAN */
    uint64_t id;              /* of UNBAN and CANCEL */
};

/* order: one value of the body. db: where it says none. */
bool order_read_invalidate(const json_t *order, unsigned db, struct order_invalidate *out,
                           struct order_fault *fault);

/* ---- POST /v1/tags, /v1/dependencies, /v1/events ---- */

struct order_words {
    const char *first, *names; /* members */
    size_t names_max;
    bool needs_names; /* also to undo */
};

struct order_telling {
    struct bytes first;
    const json_t *names; /* an array of strings; NULL: all, to undo */
    bool is_undo;
    unsigned db;
};

bool order_read_telling(const json_t *order, const struct order_words *words, unsigned db,
                        struct order_telling *out, struct order_fault *fault);

/* ---- POST /v1/mode ---- */

struct order_mode {
    int mode;       /* MODE_ON ... */
    const char *ns; /* NULL: of all */
};

bool order_read_mode(const json_t *order, struct order_mode *out, struct order_fault *fault);

#endif
