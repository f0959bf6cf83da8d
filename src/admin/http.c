/*
 * Design: libevent's evhttp, with a table of pages. /metrics has to ask the workers, so its request
 * waits in a struct scrape; a connection that is closed meanwhile takes its request with it, which
 * the scrape hears of through the connection's close callback.
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
#include "admin/invalidate_http.h"
#include "admin/tell_http.h"
#include "admin/visitors.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/stats.h"
#include "base/version.h"

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

/* One GET /metrics while the workers are asked. */
struct scrape {
    uint32_t magic;
    struct evhttp_request *request; /* NULL: its connection was closed */
    int64_t began_at_us;
};

struct page {
    const char *path;
    void (*answer)(struct admin_http *http, struct evhttp_request *request);
    bool is_post; /* and nothing else */
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

/* ---- /metrics ---- */

static void on_scraper_gone(struct evhttp_connection *connection, void *arg)
{
    struct scrape *scrape = OBJ_FROM(arg, struct scrape, SCRAPE_MAGIC);

    (void)connection;
    scrape->request = NULL;
}

static void on_gathered(const struct metrics_facts *facts, void *context)
{
    struct scrape *scrape = OBJ_FROM(context, struct scrape, SCRAPE_MAGIC);
    struct evhttp_request *request = scrape->request;
    const int64_t began_at_us = scrape->began_at_us;
    enum exposition_format format;
    struct evbuffer *body;

    scrape->magic = 0;
    mem_free(scrape);
    if (request == NULL) {
        return;
    }
    visitors_watch(evhttp_request_get_connection(request), NULL, NULL);
    body = evbuffer_new();
    CHECK(body != NULL);
    format = exposition_choose(
        evhttp_find_header(evhttp_request_get_input_headers(request), "Accept"));
    evhttp_add_header(evhttp_request_get_output_headers(request), "Vary", "Accept");
    if (exposition_write(facts, format, body) == 0) {
        admin_http_reply(request, HTTP_OK, "OK", exposition_content_type(format), body);
    } else {
        reply_text(request, HTTP_INTERNAL, "Internal Server Error", "out of memory");
    }
    evbuffer_free(body);
    stats_observe(HISTOGRAM_scrape, clock_now_us() - began_at_us, 1);
}

static void answer_metrics(struct admin_http *http, struct evhttp_request *request)
{
    struct scrape *scrape = mem_alloc(sizeof(*scrape));

    scrape->magic = SCRAPE_MAGIC;
    scrape->request = request;
    scrape->began_at_us = clock_now_us();
    visitors_watch(evhttp_request_get_connection(request), on_scraper_gone, scrape);
    metrics_gather(http->proxy, on_gathered, scrape);
}

/* ---- the other pages ---- */

static void answer_health(struct admin_http *http, struct evhttp_request *request)
{
    (void)http;
    reply_text(request, HTTP_OK, "OK", "ok");
}

static void answer_readiness(struct admin_http *http, struct evhttp_request *request)
{
    const struct proxy *proxy = http->proxy;
    const char *error = "";
    char text[512];

    if (atomic_load_explicit(&proxy->is_leaving, memory_order_relaxed) ||
        atomic_load_explicit(&proxy->is_draining, memory_order_relaxed)) {
        reply_text(request, HTTP_SERVUNAVAIL, "Service Unavailable", "draining");
        return;
    }
    if (proxy->config->mode == MODE_OFF) {
        reply_text(request, HTTP_SERVUNAVAIL, "Service Unavailable", "switched off (mode = off)");
        return;
    }
    if (atomic_load_explicit(&proxy->is_reachable, memory_order_relaxed)) {
        reply_text(request, HTTP_OK, "OK", "ok");
        return;
    }
    if (http->discovery != NULL) {
        error = discovery_last_error(http->discovery);
    }
    snprintf(text, sizeof(text), "backend unreachable: %s",
             error[0] != '\0' ? error : "no answer yet");
    if (proxy->config->ready_without_backend) {
        reply_text(request, HTTP_OK, "OK", text);
        return;
    }
    reply_text(request, HTTP_SERVUNAVAIL, "Service Unavailable", text);
}

static void answer_index(struct admin_http *http, struct evhttp_request *request)
{
    struct evbuffer *body = evbuffer_new();

    (void)http;
    CHECK(body != NULL);
    evbuffer_add_printf(body,
                        "<!DOCTYPE html>\n<html lang=\"en\">\n<title>nearcached</title>\n"
                        "<h1>nearcached %s</h1>\n<ul>\n"
                        "<li><a href=\"/metrics\">/metrics</a>: counters and states, for "
                        "Prometheus\n"
                        "<li><a href=\"/healthz\">/healthz</a>: the process runs\n"
                        "<li><a href=\"/readyz\">/readyz</a>: the backend can be reached\n"
                        "<li>/v1/invalidate: POST what tier 1 is to drop, as JSON\n"
                        "<li>/v1/drain: POST, to do as on SIGTERM\n"
                        "<li>/v1/tags, /v1/dependencies, /v1/events: POST what keys have to do "
                        "with each other\n"
                        "<li><a href=\"/v1/bans\">/v1/bans</a>, <a "
                        "href=\"/v1/jobs\">/v1/jobs</a>: what stands, and what is under way\n"
                        "</ul>\n</html>\n",
                        NC_VERSION);
    admin_http_reply(request, HTTP_OK, "OK", "text/html; charset=utf-8", body);
    evbuffer_free(body);
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

static const struct page pages[] = {
    {"/", answer_index, false},
    {"/metrics", answer_metrics, false},
    {"/healthz", answer_health, false},
    {"/readyz", answer_readiness, false},
    {"/v1/invalidate", answer_invalidate, true},
    {"/v1/tags", answer_tags, true},
    {"/v1/dependencies", answer_dependencies, true},
    {"/v1/events", answer_events, true},
    {"/v1/bans", answer_bans, false},
    {"/v1/jobs", answer_jobs, false},
    {"/v1/drain", answer_drain, true},
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
