/*
 * An order that must ask the backend is answered by mail. Until then its request may go, as its
 * client hangs up or the port closes: then the rest of its array is left undone, as nobody was told
 * that it was done.
 *
 * The type application/json is demanded, as a browser sends it to another site only when that
 * site allows it.
 */
#include "admin/order_http.h"

#include <event2/buffer.h>
#include <stdlib.h>
#include <strings.h>

#include "admin/http.h"
#include "admin/visitors.h"
#include "base/mem.h"
#include "cache/bans.h"

struct order {
    struct order *next; /* of those that are not answered */
    struct proxy *proxy;
    struct evhttp_request *request; /* NULL: whoever asked has gone */
    order_run_fn run;
    json_t *body;
    json_t *results; /* NULL: it is no array */
    size_t n, at;
    size_t n_failed;
    int status; /* of the first that failed, or of the only one */
    const char *reason;
    bool is_waiting; /* the one before `at` is not answered yet */
};

static struct order *orders;

/* ---- JSON ---- */

json_t *json_of_bytes(struct bytes bytes)
{
    json_t *json = json_stringn((const char *)bytes.ptr, bytes.len);
    char text[BAN_NAME_MAX];
    size_t n = 0;

    if (json != NULL) {
        return json;
    }
    for (; n < bytes.len && n < sizeof(text); n++) {
        text[n] = bytes.ptr[n] < 0x80 ? (char)bytes.ptr[n] : '?';
    }
    return json_stringn(text, n);
}

void order_answer_json(struct evhttp_request *request, int status, const char *reason, json_t *json)
{
    struct evbuffer *body = evbuffer_new();
    /* 15 digits, as in /metrics: 0.05 stays as it is written, every count of bytes exact. */
    char *text = json_dumps(json, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(15));

    CHECK(body != NULL && text != NULL);
    evbuffer_add_printf(body, "%s\n", text);
    admin_http_reply(request, status, reason, "application/json", body);
    evbuffer_free(body);
    free(text);
    json_decref(json);
}

static json_t *json_of_error(const char *field, const char *error)
{
    stats_add(METRIC_orders_refused, 1);
    return json_pack("{s:o, s:o}", "error", json_of_bytes(bytes_of_string(error)), "field",
                     field != NULL ? json_of_bytes(bytes_of_string(field)) : json_null());
}

static void refuse(struct evhttp_request *request, int status, const char *reason,
                   const char *error)
{
    order_answer_json(request, status, reason, json_of_error(NULL, error));
}

/* ---- answers ---- */

static void settle(struct order *order, int status, const char *reason, json_t *json)
{
    if (status != HTTP_OK) {
        order->n_failed++;
    }
    if (order->n_failed <= 1 && status != HTTP_OK) {
        order->status = status;
        order->reason = reason;
    }
    if (order->results != NULL) {
        json_array_append_new(order->results, json);
    } else {
        order->results = json;
    }
    order->is_waiting = false;
}

void call_answer(const struct call *call, json_t *json)
{
    settle(call->order, HTTP_OK, "OK", json);
}

void call_refuse(const struct call *call, int status, const char *reason, const char *field,
                 const char *error)
{
    settle(call->order, status, reason, json_of_error(field, error));
}

void call_refuse_field(const struct call *call, const char *field, const char *error)
{
    call_refuse(call, HTTP_BADREQUEST, "Bad Request", field, error);
}

void call_refuse_fault(const struct call *call, const struct order_fault *fault)
{
    call_refuse_field(call, fault->field, fault->text);
}

unsigned call_db(const struct call *call)
{
    return call->proxy->login->db;
}

/* ---- who may ---- */

static bool has_token(struct evhttp_request *request, const char *password)
{
    const char *header = evhttp_find_header(evhttp_request_get_input_headers(request),
                                            "Authorization");

    return header != NULL && password[0] != '\0' && strncasecmp(header, "Bearer ", 7) == 0 &&
           bytes_equal_secret(bytes_of_string(header + 7), password);
}

/*
 * Browsers say whose page asks. The token is sent by scripts of our own page alone, but where none
 * is needed another site's page must not get by either. What is no browser says nothing.
 */
static bool is_of_own_page(struct evhttp_request *request)
{
    const struct evkeyvalq *headers = evhttp_request_get_input_headers(request);
    const char *origin = evhttp_find_header(headers, "Origin");
    const char *host = evhttp_find_header(headers, "Host");
    const char *begin = origin != NULL ? strstr(origin, "://") : NULL;

    return origin == NULL || (begin != NULL && host != NULL && strcasecmp(begin + 3, host) == 0);
}

bool order_may(const struct proxy *proxy, struct evhttp_request *request)
{
    const struct config *config = proxy->config;

    if (!is_of_own_page(request)) {
        stats_add(METRIC_errors_refused, 1);
        refuse(request, 403, "Forbidden", "a page of another site asks (Origin)");
        return false;
    }
    if (config->cache_command == CACHE_COMMAND_FREE) {
        return true;
    }
    if (config->cache_command == CACHE_COMMAND_OFF) {
        stats_add(METRIC_errors_refused, 1);
        refuse(request, 403, "Forbidden", "switched off (cache-command = off)");
        return false;
    }
    if (!has_token(request, config->cache_password)) {
        stats_add(METRIC_errors_auth, 1);
        evhttp_add_header(evhttp_request_get_output_headers(request), "WWW-Authenticate", "Bearer");
        refuse(request, 401, "Unauthorized",
               "needs the header Authorization: Bearer with the cache-password");
        return false;
    }
    return true;
}

bool call_may_unlink(const struct call *call)
{
    const struct config *config = call->proxy->config;

    if (config->cache_command == CACHE_COMMAND_PASSWORD ||
        (config->requirepass[0] == '\0' && config->auth != AUTH_BACKEND)) {
        return true;
    }
    stats_add(METRIC_errors_auth, 1);
    call_refuse(call, 403, "Forbidden", "scope",
                "scope all needs cache-command = password where clients have to log in");
    return false;
}

/* ---- one after the other ---- */

static void on_caller_gone(struct evhttp_connection *connection, void *context)
{
    struct order *order = context;

    (void)connection;
    order->request = NULL;
}

static void finish(struct order *order)
{
    struct order **at = &orders;
    struct evhttp_request *request = order->request;
    json_t *json = order->results;

    while (*at != order) {
        at = &(*at)->next;
    }
    *at = order->next;
    if (request == NULL) {
        json_decref(json);
    } else {
        visitors_watch(evhttp_request_get_connection(request), NULL, NULL);
        if (json_is_array(json)) {
            json = json_pack("{s:o, s:I}", "results", json, "failed", (json_int_t)order->n_failed);
        }
        order_answer_json(request, order->status, order->reason, json);
    }
    json_decref(order->body);
    mem_free(order);
}

static void run_one(struct order *order, const json_t *body)
{
    const struct call call = {order->proxy, order, body};

    order->is_waiting = true;
    order->run(&call);
}

void order_go_on(struct order *order)
{
    const bool is_array = json_is_array(order->body);

    while (!order->is_waiting && order->at < order->n && order->request != NULL) {
        const size_t at = order->at++;

        run_one(order, is_array ? json_array_get(order->body, at) : order->body);
    }
    if (!order->is_waiting) {
        finish(order);
    }
}

void order_stop(void)
{
    for (struct order *order = orders; order != NULL; order = order->next) {
        order->request = NULL;
    }
}

/* ---- POST ---- */

static bool is_json(struct evhttp_request *request)
{
    const char *type = evhttp_find_header(evhttp_request_get_input_headers(request),
                                          "Content-Type");

    return type != NULL && strncasecmp(type, "application/json", 16) == 0 &&
           (type[16] == '\0' || type[16] == ';' || type[16] == ' ');
}

static bool must_be_json(struct evhttp_request *request)
{
    if (is_json(request)) {
        return true;
    }
    refuse(request, 415, "Unsupported Media Type", "Content-Type is not application/json");
    return false;
}

bool order_may_json(const struct proxy *proxy, struct evhttp_request *request)
{
    return order_may(proxy, request) && must_be_json(request);
}

/* body: taken. */
static void begin(struct proxy *proxy, struct evhttp_request *request, order_run_fn run,
                  json_t *body)
{
    struct order *order = mem_alloc(sizeof(*order));

    order->proxy = proxy;
    order->request = request;
    order->run = run;
    order->body = body;
    order->results = json_is_array(body) ? json_array() : NULL;
    order->n = json_is_array(body) ? json_array_size(body) : 1;
    order->status = HTTP_OK;
    order->reason = "OK";
    order->next = orders;
    orders = order;
    visitors_watch(evhttp_request_get_connection(request), on_caller_gone, order);
    order_go_on(order);
}

void order_post(struct proxy *proxy, struct evhttp_request *request, order_run_fn run)
{
    struct evbuffer *input = evhttp_request_get_input_buffer(request);
    const size_t length = evbuffer_get_length(input);
    char why[ORDER_WHY_MAX];
    json_t *body;

    if (!order_may(proxy, request)) {
        return;
    }
    if (length > ORDER_BODY_MAX) {
        refuse(request, HTTP_ENTITYTOOLARGE, "Request Entity Too Large",
               "the body is larger than 256 KiB");
        return;
    }
    if (!must_be_json(request)) {
        return;
    }
    body = order_body_parse(bytes_make(evbuffer_pullup(input, -1), length), why);
    if (body == NULL) {
        refuse(request, HTTP_BADREQUEST, "Bad Request", why);
        return;
    }
    begin(proxy, request, run, body);
}
