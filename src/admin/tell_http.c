/*
 * An ask goes to the first worker by mail, is answered there, perhaps before what it called has
 * returned, and goes home by mail.
 */
#include "admin/tell_http.h"

#include "base/mem.h"
#include "coherence/dependencies.h"
#include "coherence/dependency_orders.h"
#include "coherence/events.h"
#include "coherence/tags.h"

struct ask_kind;

struct ask {
    struct mail mail;
    const struct ask_kind *kind;
    struct proxy *proxy;
    struct order *order;
    bool is_all, is_undo;
    unsigned db;
    char error[200]; /* empty: done */
    bool is_begun;   /* an error came behind it */
    struct tags_answer tags;
    struct events_answer events;
    uint64_t n;         /* of dependencies */
    struct bytes first; /* key, event, or what is derived */
    size_t n_names;
    struct bytes names[];
};

struct ask_kind {
    struct order_words words; /* a member is NULL: there is none */
    bool is_refusal_final;    /* of begin(): to ask again is of no use */
    /* Words: nothing was begun. */
    const char *(*begin)(struct ask *ask);
    json_t *(*answer)(const struct ask *ask);
};

static struct coherence *home_of(const struct ask *ask)
{
    return ask->proxy->fleet.members[0];
}

/* ---- on the way home ---- */

/* The control thread. */
static void on_home(struct mail *mail)
{
    struct ask *ask = CONTAINER_OF(mail, struct ask, mail);
    struct order *order = ask->order;
    const struct call call = {ask->proxy, order, NULL};

    if (ask->error[0] == '\0') {
        call_answer(&call, ask->kind->answer(ask));
    } else if (!ask->is_begun && ask->kind->is_refusal_final) {
        call_refuse_field(&call, ask->kind->words.names, ask->error);
    } else {
        call_refuse(&call, HTTP_SERVUNAVAIL, "Service Unavailable",
                    ask->is_begun ? NULL
                                  : (ask->kind->words.names != NULL ? ask->kind->words.names
                                                                    : ask->kind->words.first),
                    ask->error);
    }
    mem_free(ask);
    order_go_on(order);
}

static void go_home(struct ask *ask, const char *error)
{
    if (error != NULL) {
        (void)snprintf(ask->error, sizeof(ask->error), "%s", error);
    }
    ask->mail.run = on_home;
    worker_post(ask->proxy->control, &ask->mail);
}

/* The first worker. */
static void on_asked(struct mail *mail)
{
    struct ask *ask = CONTAINER_OF(mail, struct ask, mail);
    const char *error;

    /* Before: its answer may come, and it be gone, within the call. */
    ask->is_begun = true;
    error = ask->kind->begin(ask);
    if (error != NULL) {
        ask->is_begun = false;
        go_home(ask, error);
    }
}

/* ---- tags ---- */

static void on_tags(void *context, const struct tags_answer *answer)
{
    struct ask *ask = context;

    ask->tags = *answer;
    go_home(ask, answer->error);
}

static const char *begin_tags(struct ask *ask)
{
    return tags_invalidate(home_of(ask), ask->db, ask->is_all, ask->names, (unsigned)ask->n_names,
                           on_tags, ask);
}

static json_t *answer_tags(const struct ask *ask)
{
    const struct tags_answer *answer = &ask->tags;
    json_t *json = json_pack("{s:o, s:s, s:I, s:i}", "entries",
                             answer->is_counted ? json_integer((json_int_t)answer->n_entries)
                                                : json_null(),
                             "matched", answer->is_counted ? "at-once" : "lazily", "members",
                             (json_int_t)answer->n, "proxies", (int)answer->n_proxies);

    if (answer->job != 0) {
        json_object_set_new(json, "job", json_integer((json_int_t)answer->job));
    }
    return json;
}

static const char *begin_attach(struct ask *ask)
{
    return tags_attach(home_of(ask), ask->db, ask->first, ask->names, (unsigned)ask->n_names,
                       !ask->is_undo, on_tags, ask);
}

static json_t *answer_attach(const struct ask *ask)
{
    return json_pack("{s:I}", "changed", (json_int_t)ask->tags.n);
}

/* ---- dependencies ---- */

static void on_depend(void *context, uint64_t n, const char *error)
{
    struct ask *ask = context;

    ask->n = n;
    go_home(ask, error);
}

static const char *begin_order(struct ask *ask, const struct bytes *sources, size_t n)
{
    struct dependency_order order = {
        .is_undo = ask->is_undo,
        .db = ask->db,
        .derived = ask->first,
        .sources = sources,
        .n_sources = (unsigned)n,
        .done = on_depend,
        .context = ask,
    };

    return dependency_order_begin(home_of(ask), &order);
}

/* Of all the sources that are known here, a thousand at a time. */
static const char *begin_undo_all(struct ask *ask)
{
    struct bytes *sources = mem_alloc(DEPENDENCY_SOURCES_MAX * sizeof(*sources));
    const char *error = NULL;
    struct buffer list;
    struct bytes rest;
    size_t n = 0;

    buffer_init(&list);
    if (dependencies_list(ask->proxy->fleet.dependencies, ask->first, true, DEPENDENCY_SOURCES_MAX,
                          &list) != 0) {
        error = "out of memory";
    } else {
        rest = buffer_bytes(&list);
        while (n < DEPENDENCY_SOURCES_MAX && dependencies_next_name(&rest, &sources[n])) {
            n++;
        }
        if (n > 0) {
            error = begin_order(ask, sources, n);
        } else {
            on_depend(ask, 0, NULL);
        }
    }
    buffer_fini(&list);
    mem_free(sources);
    return error;
}

static const char *begin_depend(struct ask *ask)
{
    return ask->n_names > 0 ? begin_order(ask, ask->names, ask->n_names) : begin_undo_all(ask);
}

static json_t *answer_depend(const struct ask *ask)
{
    return json_pack("{s:I}", "changed", (json_int_t)ask->n);
}

/* ---- events ---- */

static void on_event(void *context, const struct events_answer *answer)
{
    struct ask *ask = context;

    ask->events = *answer;
    go_home(ask, answer->error);
}

static const char *begin_publish(struct ask *ask)
{
    const struct events_order order = {.event = ask->first, .db = ask->db, .is_all = ask->is_all};

    return events_publish(home_of(ask)->events, &order, on_event, ask);
}

static json_t *answer_publish(const struct ask *ask)
{
    const struct events_answer *answer = &ask->events;
    json_t *json = json_pack("{s:o, s:s, s:I, s:i}", "entries",
                             answer->is_counted ? json_integer((json_int_t)answer->n_entries)
                                                : json_null(),
                             "matched", answer->is_counted ? "at-once" : "lazily", "names",
                             (json_int_t)answer->n_names, "proxies", (int)answer->n_proxies);

    if (answer->n_jobs > 0) {
        json_object_set_new(json, "jobs", json_integer((json_int_t)answer->n_jobs));
        json_object_set_new(json, "job", json_integer((json_int_t)answer->job));
    }
    return json;
}

static const char *begin_subscribe(struct ask *ask)
{
    struct events *events = home_of(ask)->events;

    return ask->is_undo ? events_unsubscribe(events, ask->first, ask->names, (unsigned)ask->n_names,
                                             ask->db, on_event, ask)
                        : events_subscribe(events, ask->first, ask->names, (unsigned)ask->n_names,
                                           ask->db, on_event, ask);
}

static json_t *answer_subscribe(const struct ask *ask)
{
    return json_pack("{s:I}", "changed", (json_int_t)ask->events.n);
}

static const struct ask_kind invalidate_tags = {
    .words = {.names = "tags"}, .begin = begin_tags, .answer = answer_tags};
static const struct ask_kind publish = {
    .words = {.first = "event"}, .begin = begin_publish, .answer = answer_publish};
static const struct ask_kind attach = {
    .words = {.first = "key", .names = "tags", .names_max = TAGS_MAX, .needs_names = true},
    .begin = begin_attach,
    .answer = answer_attach};
static const struct ask_kind depend = {
    .words = {.first = "derived", .names = "sources", .names_max = DEPENDENCY_SOURCES_MAX},
    .is_refusal_final = true,
    .begin = begin_depend,
    .answer = answer_depend};
static const struct ask_kind subscribe = {
    .words = {.first = "event", .names = "names", .names_max = LEDGER_ADD_MAX},
    .begin = begin_subscribe,
    .answer = answer_subscribe};

/* ---- asking ---- */

static struct bytes copy(unsigned char **room, struct bytes text)
{
    const struct bytes copied = bytes_make(*room, text.len);

    if (text.len > 0) {
        memcpy(*room, text.ptr, text.len);
        *room += text.len;
    }
    return copied;
}

/* names: NULL, or an array of strings. */
static struct ask *ask_new(const struct call *call, const struct ask_kind *kind, struct bytes first,
                           const json_t *names)
{
    const size_t n = json_array_size(names);
    size_t n_bytes = first.len;
    struct ask *ask;
    unsigned char *room;

    for (size_t i = 0; i < n; i++) {
        n_bytes += json_string_length(json_array_get(names, i));
    }
    ask = mem_alloc(sizeof(*ask) + n * sizeof(struct bytes) + n_bytes);
    ask->mail.run = on_asked;
    ask->kind = kind;
    ask->proxy = call->proxy;
    ask->order = call->order;
    ask->n_names = n;
    room = (unsigned char *)&ask->names[n];
    ask->first = copy(&room, first);
    for (size_t i = 0; i < n; i++) {
        ask->names[i] = copy(&room, bytes_of_json(json_array_get(names, i)));
    }
    return ask;
}

static void post(struct ask *ask)
{
    worker_post(home_of(ask)->worker, &ask->mail);
}

void tell_http_invalidate_tags(const struct call *call, const struct order_invalidate *order)
{
    struct ask *ask = ask_new(call, &invalidate_tags, BYTES(""), order->names);

    ask->db = order->what.db;
    ask->is_all = order->what.is_all;
    post(ask);
}

void tell_http_publish(const struct call *call, const struct order_invalidate *order)
{
    struct ask *ask = ask_new(call, &publish, order->what.name, NULL);

    ask->db = order->what.db;
    ask->is_all = order->what.is_all;
    post(ask);
}

/* ---- what is told ---- */

static void tell(const struct call *call, const struct ask_kind *kind)
{
    struct order_telling order;
    struct order_fault fault;
    struct ask *ask;

    if (!order_read_telling(call->body, &kind->words, call_db(call), &order, &fault)) {
        call_refuse_fault(call, &fault);
        return;
    }
    ask = ask_new(call, kind, order.first, order.names);
    ask->db = order.db;
    ask->is_undo = order.is_undo;
    post(ask);
}

static void tell_tags(const struct call *call)
{
    tell(call, &attach);
}

static void tell_dependencies(const struct call *call)
{
    tell(call, &depend);
}

static void tell_events(const struct call *call)
{
    tell(call, &subscribe);
}

void tell_http_tags(struct proxy *proxy, struct evhttp_request *request)
{
    order_post(proxy, request, tell_tags);
}

void tell_http_dependencies(struct proxy *proxy, struct evhttp_request *request)
{
    order_post(proxy, request, tell_dependencies);
}

void tell_http_events(struct proxy *proxy, struct evhttp_request *request)
{
    order_post(proxy, request, tell_events);
}
