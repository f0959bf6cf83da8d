/*
 * order_http.h - one POST of JSON on its way to its answer
 *
 * Purpose:    who may, what the body is, and in which form it is answered, for all paths that take
 *             orders. The body is one order (an object) or an array of them: those are carried out
 *             one after the other, each with an answer of its own, also behind one that failed.
 * Ownership:  the order owns the body; it goes when it is answered, or when what is under way has
 *             come back and nobody is there any more to be answered.
 * Threading:  the control thread.
 * Errors:     answered as {"error": "...", "field": "..."}; field is null where none is to blame.
 */
#ifndef NC_ADMIN_ORDER_HTTP_H
#define NC_ADMIN_ORDER_HTTP_H

#include "admin/order_body.h"
#include "proxy/front.h"

#include <event2/http.h>

struct order; /* opaque */

/* One of them. */
struct call {
    struct proxy *proxy;
    struct order *order;
    const json_t *body; /* a value of any type */
};

/* Answers it by one of the functions below, at once or later. */
typedef void (*order_run_fn)(const struct call *call);

void order_post(struct proxy *proxy, struct evhttp_request *request, order_run_fn run);
/* The admin port closes: what is not answered yet will not be. Before it frees its requests. */
void order_stop(void);

/* json: taken. */
void call_answer(const struct call *call, json_t *json);
void call_refuse(const struct call *call, int status, const char *reason, const char *field,
                 const char *error);
/* Status 400. */
void call_refuse_field(const struct call *call, const char *field, const char *error);
void call_refuse_fault(const struct call *call, const struct order_fault *fault);
/* Where the order names no database. */
unsigned call_db(const struct call *call);
/* Behind an answer that did not come within the order_run_fn. */
void order_go_on(struct order *order);

/* ---- who may ---- */

/* False: refused, and said so. */
bool order_may(const struct proxy *proxy, struct evhttp_request *request);
/* The same, and the body calls itself JSON, which is what keeps other sites' pages out. */
bool order_may_json(const struct proxy *proxy, struct evhttp_request *request);
/* Where clients must log in, nobody removes keys at the backend without a token. */
bool call_may_unlink(const struct call *call);

/* ---- writing JSON ---- */

/* Of any bytes: what is no UTF-8 is shown with question marks, and cut. */
json_t *json_of_bytes(struct bytes bytes);
/* Without a body of its own: GET. json: taken. */
void order_answer_json(struct evhttp_request *request, int status, const char *reason,
                       json_t *json);

#endif
