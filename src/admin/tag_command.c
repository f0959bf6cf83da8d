/*
 * CACHE TAG, UNTAG, MEMBERS and INVALIDATE TAG. The ledger is asked first: the answer takes its
 * place in the session's order, and what the client sends behind it waits, so that a pipeline of
 * TAG and INVALIDATE TAG does what it says.
 */
#include "admin/cache_call.h"
#include "base/mem.h"
#include "coherence/tags.h"
#include "proxy/request.h"

#define MEMBERS_SHOWN 100
#define MEMBERS_SHOWN_MAX 10000

/* Of MEMBERS. */
struct listing {
    struct request *request; /* outlives its session */
    struct buffer keys;      /* bulk strings */
    size_t n, max;
    bool has_failed;
};

static struct request *begin(struct cache_call *call)
{
    struct request *request = request_queue(call->session, REQUEST_LOCAL, NULL);

    request->suspends = true;
    session_suspend(call->session, false);
    return request;
}

/* It was not begun after all. */
static void refuse(struct request *request, const char *error)
{
    request_fail(request, "ERR nearcached: %s", error);
}

static struct resp_writer writer_to(struct buffer *room, const struct request *request)
{
    buffer_init(room);
    return (struct resp_writer){.out = room, .is_resp3 = request->proto == 3};
}

static void answer(struct request *request, struct resp_writer *reply)
{
    if (reply->has_failed) {
        request_fail(request, "ERR nearcached: out of memory");
    } else {
        request_take_part(request, buffer_bytes(reply->out));
        request_done(request);
    }
    buffer_fini(reply->out);
}

/* ---- TAG, UNTAG ---- */

static void on_attached(void *context, const struct tags_answer *result)
{
    struct request *request = context;
    struct buffer room;

    if (result->error != NULL) {
        refuse(request, result->error);
    } else {
        struct resp_writer reply = writer_to(&room, request);

        resp_put_integer(&reply, (int64_t)result->n);
        answer(request, &reply);
    }
}

static void attach(struct cache_call *call, bool is_attach)
{
    struct request *request = begin(call);
    const char *error = tags_attach(&call->front->coherence, call->session->db, call->args[0],
                                    call->args + 1, call->n_args - 1, is_attach, on_attached,
                                    request);

    if (error != NULL) {
        refuse(request, error);
    }
}

void cache_run_tag(struct cache_call *call)
{
    attach(call, true);
}

void cache_run_untag(struct cache_call *call)
{
    attach(call, false);
}

/* ---- INVALIDATE TAG ---- */

static void put_pair(struct resp_writer *reply, const char *name, uint64_t value)
{
    resp_put_string(reply, name);
    resp_put_integer(reply, (int64_t)value);
}

static void on_invalidated(void *context, const struct tags_answer *result)
{
    struct request *request = context;
    struct resp_writer reply;
    struct buffer room;

    if (result->error != NULL) {
        refuse(request, result->error);
        return;
    }
    reply = writer_to(&room, request);
    resp_put_map(&reply, result->job != 0 ? 5 : 4);
    resp_put_string(&reply, "entries");
    if (result->is_counted) {
        resp_put_integer(&reply, (int64_t)result->n_entries);
    } else {
        resp_put_null(&reply);
    }
    resp_put_string(&reply, "matched");
    resp_put_string(&reply, result->is_counted ? "at-once" : "lazily");
    put_pair(&reply, "members", result->n);
    put_pair(&reply, "proxies", result->n_proxies);
    if (result->job != 0) {
        put_pair(&reply, "job", result->job);
    }
    answer(request, &reply);
}

void cache_run_invalidate_tags(struct cache_call *call, const struct bytes *tags, unsigned n,
                               bool is_all)
{
    struct request *request = begin(call);
    const char *error = tags_invalidate(&call->front->coherence, call->session->db, is_all, tags, n,
                                        on_invalidated, request);

    if (error != NULL) {
        refuse(request, error);
    }
}

/* ---- MEMBERS ---- */

static void on_members(void *context, const struct ledger_member *members, unsigned n)
{
    struct listing *listing = context;
    struct resp_writer keys = {.out = &listing->keys};

    for (unsigned i = 0; i < n && listing->n < listing->max; i++) {
        resp_put_bulk(&keys, members[i].key);
        listing->n++;
    }
    listing->has_failed = listing->has_failed || keys.has_failed;
}

static void on_listed(void *context, const struct ledger_answer *result)
{
    struct listing *listing = context;
    struct buffer room;

    if (result->error != NULL) {
        refuse(listing->request, result->error);
    } else {
        struct resp_writer reply = writer_to(&room, listing->request);

        resp_put_array(&reply, listing->n);
        reply.has_failed = reply.has_failed || listing->has_failed ||
                           buffer_append(&room, buffer_bytes(&listing->keys)) != 0;
        answer(listing->request, &reply);
    }
    buffer_fini(&listing->keys);
    mem_free(listing);
}

void cache_run_members(struct cache_call *call)
{
    struct listing *listing;
    int64_t max = MEMBERS_SHOWN;
    const char *error;

    if (call->n_args == 2 &&
        (!bytes_to_int64(call->args[1], &max) || max < 1 || max > MEMBERS_SHOWN_MAX)) {
        resp_put_error(call->reply, "ERR value is not an integer or out of range");
        return;
    }
    listing = mem_alloc(sizeof(*listing));
    listing->request = begin(call);
    listing->max = (size_t)max;
    buffer_init(&listing->keys);
    error = ledger_members(call->front->coherence.ledger, LEDGER_TAG, call->args[0],
                           (int)call->session->db, (uint64_t)max, on_members, on_listed, listing);
    if (error != NULL) {
        refuse(listing->request, error);
        buffer_fini(&listing->keys);
        mem_free(listing);
    }
}
