/* libevent's client, with the loop run until the answer is there. */
#include "top/ask.h"

#include "base/mem.h"

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>

/* A hundred namespaces take some hundred kilobytes. */
#define ANSWER_MAX (64 * 1024 * 1024)

struct asker {
    struct event_base *base;
    struct evhttp_connection *connection;
    char *host;
    char *address;
    char *authorization; /* NULL: none */
    uint16_t port;
    unsigned timeout_s;
    /* The answer under way. */
    int status;
    json_t *answer;
    char *error; /* the caller's */
};

static void fail(struct asker *asker, const char *text)
{
    snprintf(asker->error, ASK_ERROR_LEN, "%s: %s", asker->address, text);
}

/* host and port out of where; false: it is no address. */
static bool take_apart(struct asker *asker, const char *where)
{
    char *uri_text = mem_alloc(strlen(where) + sizeof("http://127.0.0.1"));
    struct evhttp_uri *uri;
    const char *host;
    int port;
    bool is_one;

    sprintf(uri_text, "%s%s%s", strstr(where, "://") == NULL ? "http://" : "",
            where[0] == ':' ? "127.0.0.1" : "", where);
    uri = evhttp_uri_parse(uri_text);
    mem_free(uri_text);
    if (uri == NULL) {
        return false;
    }
    host = evhttp_uri_get_host(uri);
    port = evhttp_uri_get_port(uri);
    is_one = evhttp_uri_get_scheme(uri) != NULL &&
             strcmp(evhttp_uri_get_scheme(uri), "http") == 0 && host != NULL && host[0] != '\0' &&
             port > 0;
    if (is_one) {
        const size_t size = strlen(host) + sizeof("[]:65535");

        asker->host = mem_strdup(host);
        if (host[0] == '[') { /* an address of version 6; sockets take it bare */
            memmove(asker->host, asker->host + 1, strlen(asker->host));
            asker->host[strlen(asker->host) - 1] = '\0';
        }
        asker->port = (uint16_t)port;
        asker->address = mem_alloc(size);
        snprintf(asker->address, size, "%s:%d", host, port);
    }
    evhttp_uri_free(uri);
    return is_one;
}

struct asker *asker_new(const char *where, const char *token, unsigned timeout_s,
                        char error[ASK_ERROR_LEN])
{
    struct asker *asker = mem_alloc(sizeof(*asker));

    asker->timeout_s = timeout_s;
    if (!take_apart(asker, where)) {
        snprintf(error, ASK_ERROR_LEN, "%.100s: expected HOST:PORT", where);
        mem_free(asker);
        return NULL;
    }
    if (token != NULL) {
        const size_t size = sizeof("Bearer ") + strlen(token);

        asker->authorization = mem_alloc(size);
        snprintf(asker->authorization, size, "Bearer %s", token);
    }
    asker->base = event_base_new();
    CHECK(asker->base != NULL);
    return asker;
}

void asker_free(struct asker **at)
{
    struct asker *asker = *at;

    *at = NULL;
    if (asker == NULL) {
        return;
    }
    if (asker->connection != NULL) {
        evhttp_connection_free(asker->connection);
    }
    event_base_free(asker->base);
    mem_free(asker->authorization);
    mem_free(asker->address);
    mem_free(asker->host);
    mem_free(asker);
}

const char *asker_address(const struct asker *asker)
{
    return asker->address;
}

int asker_status(const struct asker *asker)
{
    return asker->status;
}

static void on_answer(struct evhttp_request *request, void *context)
{
    struct asker *asker = context;
    struct evbuffer *body;
    size_t len;
    json_error_t where;

    event_base_loopbreak(asker->base);
    if (request == NULL || evhttp_request_get_response_code(request) == 0) {
        fail(asker, "no answer");
        return;
    }
    asker->status = evhttp_request_get_response_code(request);
    if (asker->status != HTTP_OK) {
        const char *line = evhttp_request_get_response_code_line(request);
        char text[80];

        snprintf(text, sizeof(text), "HTTP %d %s", asker->status, line == NULL ? "" : line);
        fail(asker, text);
        return;
    }
    body = evhttp_request_get_input_buffer(request);
    len = evbuffer_get_length(body);
    asker->answer = json_loadb((const char *)evbuffer_pullup(body, -1), len, 0, &where);
    if (!json_is_object(asker->answer)) {
        json_decref(asker->answer);
        asker->answer = NULL;
        fail(asker, "the answer is no JSON object: is this the admin port of nearcached?");
    }
}

static bool has_connection(struct asker *asker)
{
    if (asker->connection == NULL) {
        asker->connection = evhttp_connection_base_new(asker->base, NULL, asker->host, asker->port);
        if (asker->connection == NULL) {
            return false;
        }
        evhttp_connection_set_timeout(asker->connection, (int)asker->timeout_s);
        evhttp_connection_set_max_body_size(asker->connection, ANSWER_MAX);
    }
    return true;
}

json_t *asker_get(struct asker *asker, const char *path, char error[ASK_ERROR_LEN])
{
    struct evhttp_request *request;
    json_t *answer;

    asker->status = 0;
    asker->answer = NULL;
    asker->error = error;
    request = evhttp_request_new(on_answer, asker);
    if (request == NULL || !has_connection(asker)) {
        fail(asker, "out of memory");
        return NULL;
    }
    evhttp_add_header(evhttp_request_get_output_headers(request), "Host", asker->address);
    if (asker->authorization != NULL) {
        evhttp_add_header(evhttp_request_get_output_headers(request), "Authorization",
                          asker->authorization);
    }
    if (evhttp_make_request(asker->connection, request, EVHTTP_REQ_GET, path) != 0) {
        fail(asker, "cannot connect");
    } else {
        event_base_dispatch(asker->base);
    }
    answer = asker->answer;
    asker->answer = NULL;
    if (answer == NULL && asker->status == 0) { /* lost: the next one begins anew */
        evhttp_connection_free(asker->connection);
        asker->connection = NULL;
    }
    return answer;
}
