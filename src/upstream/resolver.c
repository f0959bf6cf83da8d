/*
 * evdns may answer inside evdns_getaddrinfo() (a name of /etc/hosts) or much later; a query turns
 * both into one event of its own. And evdns touches its base in the callback of a cancelled
 * request, which it runs in a later turn: so the evdns base lives until the last of them came back.
 */
#include "upstream/resolver.h"

#include "base/mem.h"

#include <event2/dns.h>
#include <event2/util.h>
#include <stdio.h>

#define QUERY_MAGIC 0x72717279u /* "rqry" */

struct resolver {
    struct event_base *base;
    struct evdns_base *dns; /* NULL until a name is asked for, or where evdns cannot start */
    unsigned n_asked;       /* look-ups that evdns has not called back about */
    bool is_closed;
    struct event *farewell; /* frees a closed resolver outside of evdns' own callbacks */
};

struct resolver_query {
    uint32_t magic;
    struct resolver *resolver;
    struct evdns_getaddrinfo_request *request; /* NULL once evdns called back */
    struct event *deliver;
    resolver_answer_fn on_answer;
    void *context;
    bool is_cancelled;
    struct endpoint endpoints[RESOLVER_MAX];
    unsigned n_endpoints;
    const char *error;
};

static void destroy(struct resolver *resolver)
{
    if (resolver->dns != NULL) {
        evdns_base_free(resolver->dns, 0);
    }
    event_free(resolver->farewell);
    mem_free(resolver);
}

static void on_farewell(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    destroy(context);
}

struct resolver *resolver_new(struct event_base *base)
{
    struct resolver *resolver = mem_alloc(sizeof(*resolver));

    resolver->base = base;
    resolver->farewell = event_new(base, -1, 0, on_farewell, resolver);
    CHECK(resolver->farewell != NULL);
    return resolver;
}

void resolver_free(struct resolver **resolver)
{
    struct resolver *closed = *resolver;

    *resolver = NULL;
    if (closed == NULL) {
        return;
    }
    closed->is_closed = true;
    if (closed->n_asked == 0) {
        destroy(closed);
    }
}

/*
 * Two tries of a second each per name server, where resolv.conf does not say otherwise: evdns' own
 * 3 x 5 s would outlast every other timeout here. Short names need the search list (Kubernetes).
 */
static void open_dns(struct resolver *resolver)
{
    if (resolver->dns != NULL) {
        return;
    }
    resolver->dns = evdns_base_new(resolver->base, EVDNS_BASE_DISABLE_WHEN_INACTIVE);
    if (resolver->dns == NULL) {
        return;
    }
    (void)evdns_base_set_option(resolver->dns, "timeout:", "1");
    (void)evdns_base_set_option(resolver->dns, "attempts:", "2");
    /* Upper and lower case mixed at random in a question confuses some small DNS servers. */
    (void)evdns_base_set_option(resolver->dns, "randomize-case:", "0");
    /* Without the file evdns takes its defaults: the name server of this host. */
    (void)evdns_base_resolv_conf_parse(resolver->dns, DNS_OPTIONS_ALL, "/etc/resolv.conf");
}

static void free_query(struct resolver_query *query)
{
    event_free(query->deliver);
    query->magic = 0;
    mem_free(query);
}

static void on_deliver(evutil_socket_t fd, short what, void *context)
{
    struct resolver_query *query = OBJ_FROM(context, struct resolver_query, QUERY_MAGIC);

    (void)fd;
    (void)what;
    query->on_answer(query->endpoints, query->n_endpoints, query->error, query->context);
    free_query(query);
}

static void collect(struct resolver_query *query, int result, const struct evutil_addrinfo *list)
{
    if (result != 0) {
        query->error = evutil_gai_strerror(result);
        return;
    }
    for (; list != NULL && query->n_endpoints < RESOLVER_MAX; list = list->ai_next) {
        if (list->ai_addrlen <= sizeof(struct sockaddr_storage)) {
            endpoint_from_sockaddr(&query->endpoints[query->n_endpoints++], list->ai_addr,
                                   (socklen_t)list->ai_addrlen);
        }
    }
    if (query->n_endpoints == 0) {
        query->error = "the name has no address";
    }
}

static void on_resolved(int result, struct evutil_addrinfo *list, void *context)
{
    struct resolver_query *query = OBJ_FROM(context, struct resolver_query, QUERY_MAGIC);
    struct resolver *resolver = query->resolver;

    query->request = NULL;
    resolver->n_asked--;
    if (query->is_cancelled) {
        free_query(query);
        if (resolver->is_closed && resolver->n_asked == 0) {
            event_active(resolver->farewell, 0, 0);
        }
    } else {
        collect(query, result, list);
        event_active(query->deliver, 0, 0);
    }
    if (list != NULL) {
        evutil_freeaddrinfo(list);
    }
}

static void ask_dns(struct resolver *resolver, struct resolver_query *query, const char *host,
                    unsigned port)
{
    const struct evutil_addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_protocol = IPPROTO_TCP};
    struct evdns_getaddrinfo_request *request;
    char service[8];

    open_dns(resolver);
    if (resolver->dns == NULL) {
        query->error = "the name service cannot be started";
        event_active(query->deliver, 0, 0);
        return;
    }
    snprintf(service, sizeof(service), "%u", port & UINT16_MAX);
    resolver->n_asked++;
    request = evdns_getaddrinfo(resolver->dns, host, service, &hints, on_resolved, query);
    /* NULL: on_resolved() has run already; the query still lives, as its delivery is an event. */
    query->request = request;
}

struct resolver_query *resolver_ask(struct resolver *resolver, const char *host, unsigned port,
                                    resolver_answer_fn on_answer, void *context)
{
    struct resolver_query *query = mem_alloc(sizeof(*query));

    CHECK(!resolver->is_closed);
    query->magic = QUERY_MAGIC;
    query->resolver = resolver;
    query->on_answer = on_answer;
    query->context = context;
    query->deliver = event_new(resolver->base, -1, 0, on_deliver, query);
    CHECK(query->deliver != NULL);
    if (endpoint_from_ip(&query->endpoints[0], host, port) == 0) {
        query->n_endpoints = 1;
        event_active(query->deliver, 0, 0);
    } else {
        ask_dns(resolver, query, host, port);
    }
    return query;
}

void resolver_cancel(struct resolver_query **query)
{
    struct resolver_query *cancelled = *query;

    *query = NULL;
    if (cancelled == NULL) {
        return;
    }
    if (cancelled->request == NULL) {
        free_query(cancelled);
        return;
    }
    cancelled->is_cancelled = true;
    evdns_getaddrinfo_cancel(cancelled->request);
}
