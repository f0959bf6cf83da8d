/*
 * Design: libevent's evhttp, with a table of pages. /metrics and some more have to ask the workers,
 * so their request waits in a struct scrape; a connection that is closed meanwhile takes its
 * request with it, which the scrape hears of through the connection's close callback.
 *
 * evhttp knows no limit for the number of connections, visitors do. The timeout bounds how long an
 * idle one lasts, and the listener pauses when descriptors run out instead of spinning on accept().
 */
#include "admin/http.h"

#include <errno.h>
#include <event2/http.h>
#include <event2/http_struct.h>
#include <event2/listener.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "admin/exposition.h"
#include "admin/history.h"
#include "admin/hot_json.h"
#include "admin/invalidate_http.h"
#include "admin/mode_http.h"
#include "admin/nodes.h"
#include "admin/order_http.h"
#include "admin/page.h"
#include "admin/readiness.h"
#include "admin/status_http.h"
#include "admin/tell_http.h"
#include "admin/visitors.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/stats.h"

#define HTTP_MAGIC 0x68747470u
#define SCRAPE_MAGIC 0x73637270u
#define MAX_HEADER_BYTES 8192
/* A little more than what is taken, so that most of what is too large is told so. */
#define MAX_BODY_BYTES ((ssize_t)ORDER_BODY_MAX * 4)
#define TIMEOUT_S 10
/* How long accepting rests when there are no descriptors. */
#define PAUSE_MS 100

struct admin_http {
    uint32_t magic;
    struct proxy *proxy;
    const struct discovery *discovery;
    struct evhttp *server;
    struct visitors *visitors;
    struct evconnlistener *listener; /* the server's */
    struct event *resume_event;
    struct endpoint endpoint;
    bool is_accepting;
};

typedef void (*gathered_fn)(struct admin_http *http, struct evhttp_request *request,
                            const struct metrics_facts *facts);

/* One GET while the workers are asked. */
struct scrape {
    uint32_t magic;
    struct admin_http *http;
    struct evhttp_request *request; /* NULL: its connection was closed, and maybe the port */
    gathered_fn answer;
    int64_t began_at_us;
};

struct page {
    const char *path;
    void (*answer)(struct admin_http *http, struct evhttp_request *request);
    bool is_post;         /* and nothing else */
    gathered_fn gathered; /* instead of answer: with what the workers say */
};

/* ---- replies ---- */

void admin_http_reply(struct evhttp_request *request, int status, const char *reason,
                      const char *content_type, struct evbuffer *body)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
    const size_t length = evbuffer_get_length(body);
    char digits[24];

    snprintf(digits, sizeof(digits), "%zu", length);
    evhttp_add_header(headers, "Content-Type", content_type);
    evhttp_add_header(headers, "Content-Length", digits);
    evhttp_add_header(headers, "Cache-Control", "no-store");
    evhttp_add_header(headers, "X-Content-Type-Options", "nosniff");
    if (evhttp_request_get_command(request) == EVHTTP_REQ_HEAD) {
        evbuffer_drain(body, length);
    }
    evhttp_send_reply(request, status, reason, body);
}

static void reply_text(struct evhttp_request *request, int status, const char *reason,
                       const char *text)
{
    struct evbuffer *body = evbuffer_new();

    CHECK(body != NULL);
    evbuffer_add_printf(body, "%s\n", text);
    admin_http_reply(request, status, reason, "text/plain; charset=utf-8", body);
    evbuffer_free(body);
}

/* ---- pages that ask the workers ---- */

static void on_reader_gone(struct evhttp_connection *connection, void *arg)
{
    struct scrape *scrape = OBJ_FROM(arg, struct scrape, SCRAPE_MAGIC);

    (void)connection;
    scrape->request = NULL;
}

static struct scrape *new_scrape(struct admin_http *http, struct evhttp_request *request,
                                 gathered_fn answer)
{
    struct scrape *scrape = mem_alloc(sizeof(*scrape));

    scrape->magic = SCRAPE_MAGIC;
    scrape->http = http;
    scrape->request = request;
    scrape->answer = answer;
    scrape->began_at_us = clock_now_us();
    visitors_watch(evhttp_request_get_connection(request), on_reader_gone, scrape);
    return scrape;
}

/* The request, or NULL when there is nobody left to answer; then the port may be gone, too. */
static struct evhttp_request *end_scrape(struct scrape *scrape)
{
    struct evhttp_request *request = scrape->request;

    scrape->magic = 0;
    mem_free(scrape);
    if (request != NULL) {
        visitors_watch(evhttp_request_get_connection(request), NULL, NULL);
    }
    return request;
}

static void on_gathered(const struct metrics_facts *facts, void *context)
{
    struct scrape *scrape = OBJ_FROM(context, struct scrape, SCRAPE_MAGIC);
    struct admin_http *http = scrape->http;
    const gathered_fn answer = scrape->answer;
    const int64_t began_at_us = scrape->began_at_us;
    struct evhttp_request *request = end_scrape(scrape);

    if (request != NULL) {
        answer(http, request, facts);
        stats_observe(HISTOGRAM_scrape, clock_now_us() - began_at_us, 1);
    }
}

/* ---- /metrics ---- */

static void answer_metrics(struct admin_http *http, struct evhttp_request *request,
                           const struct metrics_facts *facts)
{
    const enum exposition_format format = exposition_choose(
        evhttp_find_header(evhttp_request_get_input_headers(request), "Accept"));
    struct evbuffer *body = evbuffer_new();

    (void)http;
    CHECK(body != NULL);
    evhttp_add_header(evhttp_request_get_output_headers(request), "Vary", "Accept");
    if (exposition_write(facts, format, body) == 0) {
        admin_http_reply(request, HTTP_OK, "OK", exposition_content_type(format), body);
    } else {
        reply_text(request, HTTP_INTERNAL, "Internal Server Error", "out of memory");
    }
    evbuffer_free(body);
}

/* ---- the status, as JSON ---- */

/* The value of a parameter of the query, or NULL; free() it. */
static char *parameter(struct evhttp_request *request, const char *name)
{
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(request);
    const char *query = uri != NULL ? evhttp_uri_get_query(uri) : NULL;
    struct evkeyvalq found;
    const char *value;
    char *copy = NULL;

    if (query == NULL || evhttp_parse_query_str(query, &found) != 0) {
        return NULL;
    }
    value = evhttp_find_header(&found, name);
    if (value != NULL) {
        copy = strdup(value);
    }
    evhttp_clear_headers(&found);
    return copy;
}

static void reply_json(struct evhttp_request *request, json_t *json)
{
    order_answer_json(request, HTTP_OK, "OK", json);
}

static void answer_status(struct admin_http *http, struct evhttp_request *request,
                          const struct metrics_facts *facts)
{
    reply_json(request, status_json(http->proxy, http->discovery, facts));
}

static void answer_metrics_json(struct admin_http *http, struct evhttp_request *request,
                                const struct metrics_facts *facts)
{
    char *names = parameter(request, "names");

    (void)http;
    reply_json(request, status_metrics_json(facts, names));
    free(names);
}

static void answer_namespaces(struct admin_http *http, struct evhttp_request *request,
                              const struct metrics_facts *facts)
{
    reply_json(request, status_namespaces_json(http->proxy, facts));
}

static void on_nodes(json_t *nodes, void *context)
{
    struct evhttp_request *request = end_scrape(OBJ_FROM(context, struct scrape, SCRAPE_MAGIC));

    if (request != NULL) {
        reply_json(request, json_pack("{s:o}", "nodes", nodes));
    } else {
        json_decref(nodes);
    }
}

static void answer_nodes(struct admin_http *http, struct evhttp_request *request)
{
    nodes_gather(http->proxy, on_nodes, new_scrape(http, request, NULL));
}

static void answer_history(struct admin_http *http, struct evhttp_request *request)
{
    char *since = parameter(request, "since");
    const int64_t since_unix_ms = since != NULL ? strtoll(since, NULL, 10) : 0;

    free(since);
    if (http->proxy->history == NULL) {
        reply_text(request, HTTP_NOTFOUND, "Not Found", "there is no history");
        return;
    }
    reply_json(request, history_json(http->proxy->history, since_unix_ms));
}

/* As CACHE CONFIG GET: for those who may change it. */
static void answer_config(struct admin_http *http, struct evhttp_request *request)
{
    if (order_may(http->proxy, request)) {
        reply_json(request, status_config_json(http->proxy->config));
    }
}

/* As CACHE HOTKEYS: names of keys. */
static void answer_hot_keys(struct admin_http *http, struct evhttp_request *request)
{
    if (order_may(http->proxy, request)) {
        reply_json(request, hot_json());
    }
}

/* ---- the other pages ---- */

static void answer_health(struct admin_http *http, struct evhttp_request *request)
{
    (void)http;
    reply_text(request, HTTP_OK, "OK", "ok");
}

static void answer_readiness(struct admin_http *http, struct evhttp_request *request)
{
    char text[READINESS_TEXT_MAX];

    if (readiness_of(http->proxy, http->discovery, text)) {
        reply_text(request, HTTP_OK, "OK", text);
    } else {
        reply_text(request, HTTP_SERVUNAVAIL, "Service Unavailable", text);
    }
}

static void answer_page(struct admin_http *http, struct evhttp_request *request)
{
    (void)http;
    page_answer(request);
}

/* ---- invalidation ---- */

static void answer_invalidate(struct admin_http *http, struct evhttp_request *request)
{
    invalidate_http_post(http->proxy, request);
}

static void answer_bans(struct admin_http *http, struct evhttp_request *request)
{
    invalidate_http_bans(http->proxy, request);
}

static void answer_jobs(struct admin_http *http, struct evhttp_request *request)
{
    invalidate_http_jobs(http->proxy, request);
}

static void answer_drain(struct admin_http *http, struct evhttp_request *request)
{
    if (order_may_json(http->proxy, request)) {
        reply_text(request, 202, "Accepted", "draining");
        http->proxy->begin_drain(http->proxy->drain_context);
    }
}

static void answer_tags(struct admin_http *http, struct evhttp_request *request)
{
    tell_http_tags(http->proxy, request);
}

static void answer_dependencies(struct admin_http *http, struct evhttp_request *request)
{
    tell_http_dependencies(http->proxy, request);
}

static void answer_events(struct admin_http *http, struct evhttp_request *request)
{
    tell_http_events(http->proxy, request);
}

static void answer_mode(struct admin_http *http, struct evhttp_request *request)
{
    mode_http_post(http->proxy, request);
}

static const struct page pages[] = {
    {"/", answer_page, false, NULL},
    {"/metrics", NULL, false, answer_metrics},
    {"/v1/status", NULL, false, answer_status},
    {"/v1/metrics", NULL, false, answer_metrics_json},
    {"/v1/namespaces", NULL, false, answer_namespaces},
    {"/v1/nodes", answer_nodes, false, NULL},
    {"/v1/history", answer_history, false, NULL},
    {"/v1/config", answer_config, false, NULL},
    {"/v1/hotkeys", answer_hot_keys, false, NULL},
    {"/healthz", answer_health, false, NULL},
    {"/readyz", answer_readiness, false, NULL},
    {"/v1/invalidate", answer_invalidate, true, NULL},
    {"/v1/mode", answer_mode, true, NULL},
    {"/v1/tags", answer_tags, true, NULL},
    {"/v1/dependencies", answer_dependencies, true, NULL},
    {"/v1/events", answer_events, true, NULL},
    {"/v1/bans", answer_bans, false, NULL},
    {"/v1/jobs", answer_jobs, false, NULL},
    {"/v1/drain", answer_drain, true, NULL},
};

static const struct page *find_page(struct evhttp_request *request)
{
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(request);
    const char *path = uri != NULL ? evhttp_uri_get_path(uri) : NULL;

    for (size_t i = 0; path != NULL && i < sizeof(pages) / sizeof(pages[0]); i++) {
        if (strcmp(path, pages[i].path) == 0) {
            return &pages[i];
        }
    }
    return NULL;
}

static void on_request(struct evhttp_request *request, void *arg)
{
    struct admin_http *http = OBJ_FROM(arg, struct admin_http, HTTP_MAGIC);
    const enum evhttp_cmd_type method = evhttp_request_get_command(request);
    const struct page *page = find_page(request);

    if (page == NULL) {
        reply_text(request, HTTP_NOTFOUND, "Not Found", "not found");
    } else if (page->is_post ? method != EVHTTP_REQ_POST
                             : method != EVHTTP_REQ_GET && method != EVHTTP_REQ_HEAD) {
        evhttp_add_header(evhttp_request_get_output_headers(request), "Allow",
                          page->is_post ? "POST" : "GET, HEAD");
        reply_text(request, HTTP_BADMETHOD, "Method Not Allowed", "method not allowed");
    } else if (page->gathered != NULL) {
        metrics_gather(http->proxy, on_gathered, new_scrape(http, request, page->gathered));
    } else {
        page->answer(http, request);
    }
}

/* ---- life ---- */

/* The process has one admin port; libevent's error callback has no argument of ours. */
static struct admin_http *serving;

static void on_resume(evutil_socket_t fd, short what, void *arg)
{
    struct admin_http *http = OBJ_FROM(arg, struct admin_http, HTTP_MAGIC);

    (void)fd;
    (void)what;
    if (http->is_accepting) {
        evconnlistener_enable(http->listener);
    }
}

static void on_accept_error(struct evconnlistener *listener, void *arg)
{
    const struct timeval pause = {0, PAUSE_MS * 1000};
    const int error = errno;
    static struct log_limit limit;
    unsigned suppressed;

    (void)arg;
    stats_add(METRIC_accept_failures, 1);
    if (log_limit_pass(&limit, clock_now_ms(), &suppressed)) {
        log_warn("admin", "admin connections cannot be accepted",
                 "reason=%s pause_ms=%d suppressed=%u", log_quote(bytes_of_string(strerror(error))),
                 PAUSE_MS, suppressed);
    }
    evconnlistener_disable(listener);
    event_add(serving->resume_event, &pause);
}

static int open_socket(const struct config_address *address)
{
    struct endpoint endpoint;
    int fd;

    if (address->is_unix) {
        /* evhttp names the peer of each connection by host and port. */
        return -EAFNOSUPPORT;
    }
    fd = endpoint_from_ip(&endpoint, address->host, address->port);
    if (fd < 0) {
        return fd;
    }
    return stream_listen(&endpoint, 0);
}

/* All methods come here, so that every refusal is worded alike. */
static struct evhttp *new_server(struct admin_http *http, struct event_base *base)
{
    struct evhttp *server = evhttp_new(base);

    CHECK(server != NULL);
    evhttp_set_allowed_methods(server, UINT16_MAX);
    evhttp_set_max_headers_size(server, MAX_HEADER_BYTES);
    evhttp_set_max_body_size(server, MAX_BODY_BYTES);
    evhttp_set_timeout(server, TIMEOUT_S);
    evhttp_set_default_content_type(server, "text/plain; charset=utf-8");
    evhttp_set_gencb(server, on_request, http);
    return server;
}

int admin_http_start(struct admin_http **http, struct proxy *proxy,
                     const struct discovery *discovery, const struct config_address *address,
                     int fd)
{
    const unsigned flags = LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC;
    struct event_base *base = proxy->control->base;
    struct evconnlistener *listener;
    struct sockaddr_storage bound;
    socklen_t length = sizeof(bound);
    struct admin_http *new;

    fd = fd >= 0 ? fd : open_socket(address);
    if (fd < 0) {
        return fd;
    }
    (void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    listener = evconnlistener_new(base, NULL, NULL, flags, 0, fd);
    CHECK(listener != NULL);
    new = mem_alloc(sizeof(*new));
    new->magic = HTTP_MAGIC;
    new->proxy = proxy;
    new->discovery = discovery;
    new->listener = listener;
    if (getsockname(fd, (struct sockaddr *)&bound, &length) == 0) {
        endpoint_from_sockaddr(&new->endpoint, (struct sockaddr *)&bound, length);
    }
    new->resume_event = event_new(base, -1, 0, on_resume, new);
    CHECK(new->resume_event != NULL);
    new->server = new_server(new, base);
    new->visitors = visitors_new(base, new->server);
    CHECK(evhttp_bind_listener(new->server, listener) != NULL);
    evconnlistener_set_error_cb(listener, on_accept_error);
    serving = new;
    new->is_accepting = true;
    *http = new;
    return 0;
}

void admin_http_accept(struct admin_http *http, bool on)
{
    http->is_accepting = on;
    event_del(http->resume_event);
    if (on) {
        evconnlistener_enable(http->listener);
    } else {
        evconnlistener_disable(http->listener);
    }
}

int admin_http_fd(const struct admin_http *http)
{
    return evconnlistener_get_fd(http->listener);
}

const char *admin_http_text(const struct admin_http *http)
{
    return http->endpoint.text;
}

void admin_http_stop(struct admin_http **http)
{
    if (*http == NULL) {
        return;
    }
    order_stop();
    /* The server frees its listener. */
    evhttp_free((*http)->server);
    visitors_free(&(*http)->visitors);
    event_free((*http)->resume_event);
    (*http)->magic = 0;
    if (serving == *http) {
        serving = NULL;
    }
    mem_free(*http);
    *http = NULL;
}
