/*
 * Design: options are judged here, in Redis's order and words. What takes time (finding the client
 * to redirect to, on whatever worker; the backend's confirmation of BCAST) suspends the session
 * like a blocking command.
 */
#include "base/mem.h"
#include "proxy/key_run.h"
#include "proxy/request.h"
#include "proxy/tracker.h"

#include <stdlib.h>

/* One CLIENT TRACKING ON on its way. */
struct enabling {
    struct mail mail;
    struct proxy *proxy;
    struct front *home;
    struct request *request;
    struct tracking_options options;
    struct buffer prefixes; /* all of them, those of before included */
    unsigned next;          /* worker to visit */
};

static enum verdict say(struct session *session, const char *error)
{
    struct resp_writer writer = session_begin_reply(session);

    if (error != NULL) {
        resp_put_error(&writer, "%s", error);
    } else {
        resp_put_simple(&writer, "OK");
    }
    session_end_reply(session, &writer);
    return VERDICT_TAKEN;
}

/* ---- options ---- */

/* An error text, or NULL. */
static const char *parse(const struct dispatch_call *call, struct tracking_options *options,
                         struct buffer *prefixes)
{
    for (unsigned i = 3; i < call->argc; i++) {
        const struct bytes word = call->argv[i];
        const bool has_more = i + 1 < call->argc;
        int64_t id;

        if (bytes_equal_nocase(word, BYTES("redirect")) && has_more) {
            if (options->redirect != 0) {
                return "ERR A client can only redirect to a single other client";
            }
            if (!bytes_to_int64(call->argv[++i], &id)) {
                return "ERR value is not an integer or out of range";
            }
            if (id <= 0) {
                return "ERR The client ID you want redirect to does not exist";
            }
            options->redirect = (uint64_t)id;
        } else if (bytes_equal_nocase(word, BYTES("bcast"))) {
            options->is_broadcast = true;
        } else if (bytes_equal_nocase(word, BYTES("optin"))) {
            options->is_optin = true;
        } else if (bytes_equal_nocase(word, BYTES("optout"))) {
            options->is_optout = true;
        } else if (bytes_equal_nocase(word, BYTES("noloop"))) {
            options->is_noloop = true;
        } else if (bytes_equal_nocase(word, BYTES("prefix")) && has_more) {
            if (key_run_add(prefixes, call->argv[++i]) != 0) {
                return "ERR nearcached: out of memory";
            }
        } else {
            return "ERR syntax error";
        }
    }
    return NULL;
}

/* What does not go together, or not with what is in force. */
static const char *conflict_of(const struct session *session,
                               const struct tracking_options *options, bool has_prefixes)
{
    const struct tracking_options *now = tracking_is_on(session) ? &session->tracker->options
                                                                 : NULL;

    if (!options->is_broadcast && has_prefixes) {
        return "ERR PREFIX option requires BCAST mode to be enabled";
    }
    if (now != NULL && now->is_broadcast != options->is_broadcast) {
        return "ERR You can't switch BCAST mode on/off before disabling tracking for this client, "
               "and then re-enabling it with a different mode.";
    }
    if (options->is_broadcast && (options->is_optin || options->is_optout)) {
        return "ERR OPTIN and OPTOUT are not compatible with BCAST";
    }
    if (options->is_optin && options->is_optout) {
        return "ERR You can't specify both OPTIN mode and OPTOUT mode";
    }
    if (now != NULL &&
        ((options->is_optin && now->is_optout) || (options->is_optout && now->is_optin))) {
        return "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, "
               "and then re-enabling it with a different mode.";
    }
    return NULL;
}

static bool overlaps(struct bytes a, struct bytes b)
{
    return bytes_start_with(a, b) || bytes_start_with(b, a);
}

/* True: the session was told which prefixes overlap. */
static bool refuse_overlap(struct session *session, struct bytes prefix, struct bytes other,
                           const char *kind)
{
    if (!overlaps(prefix, other)) {
        return false;
    }
    session_error(session,
                  "ERR Prefix '%.*s' overlaps with %s prefix '%.*s'. Prefixes for a single client "
                  "must not overlap.",
                  prefix.len > 128 ? 128 : (int)prefix.len, (const char *)prefix.ptr, kind,
                  other.len > 128 ? 128 : (int)other.len, (const char *)other.ptr);
    return true;
}

static bool refuse_prefixes(struct session *session, struct bytes prefixes)
{
    const struct bytes existing = tracking_is_on(session)
                                      ? buffer_bytes(&session->tracker->prefixes)
                                      : BYTES("");
    struct bytes prefix, other;

    while (key_run_next(&prefixes, &prefix)) {
        struct bytes rest = existing;

        while (key_run_next(&rest, &other)) {
            if (refuse_overlap(session, prefix, other, "an existing")) {
                return true;
            }
        }
        rest = prefixes;
        while (key_run_next(&rest, &other)) {
            if (refuse_overlap(session, prefix, other, "another provided")) {
                return true;
            }
        }
    }
    return false;
}

/* ---- CLIENT TRACKING ON ---- */

static void free_enabling(struct enabling *enabling)
{
    buffer_fini(&enabling->prefixes);
    mem_free(enabling);
}

static void answer(struct request *request, struct bytes reply)
{
    request_take_part(request, reply);
    request_done(request);
}

static void take_effect(struct tracker *tracker, const struct tracking_options *options)
{
    tracker->options = *options;
    tracker->is_broken = false;
    tracker_set_on(tracker, true);
}

/* The prefixes wanted replace those in force. */
static void take_broadcast(struct tracker *tracker)
{
    const struct buffer former = tracker->prefixes;

    tracker->prefixes = tracker->wanted_prefixes;
    tracker->wanted_prefixes = former;
    buffer_consume(&tracker->wanted_prefixes, buffer_len(&tracker->wanted_prefixes));
    broadcast_leave(&tracker->broadcast);
    tracker->broadcast = tracker->wanted_broadcast;
    tracker->wanted_broadcast = NULL;
    take_effect(tracker, &tracker->wanted);
}

static void settle(struct tracker *tracker, struct bytes error)
{
    struct session *session = tracker->session;
    struct request *request = tracker->request;

    tracker->request = NULL;
    if (error.len == 0) {
        take_broadcast(tracker);
    } else {
        broadcast_leave(&tracker->wanted_broadcast);
        if (!tracker->is_on) {
            tracker_free(session);
        }
    }
    answer(request, error.len == 0 ? BYTES("+OK\r\n") : error);
}

void tracking_on_ready(struct front *front, const struct broadcast *broadcast, struct bytes error)
{
    struct tracking *tracking = front->tracking;

    for (struct tracker *tracker = tracker_first(tracking); tracker != NULL;
         tracker = tracker_next(tracking)) {
        if (tracker->wanted_broadcast == broadcast && tracker->request != NULL) {
            settle(tracker, error);
        }
    }
}

static void join_broadcast(struct enabling *enabling)
{
    struct request *request = enabling->request;
    struct session *session = request->session;
    struct tracker *tracker = session->tracker != NULL ? session->tracker : tracker_new(session);
    const struct buffer prefixes = enabling->prefixes;

    enabling->prefixes = tracker->wanted_prefixes;
    tracker->wanted_prefixes = prefixes;
    tracker->wanted = enabling->options;
    tracker->request = request;
    tracker->wanted_broadcast = broadcast_join(session->front, session->identity,
                                               buffer_bytes(&tracker->wanted_prefixes),
                                               &tracking_broadcast_events);
    if (tracker->wanted_broadcast == NULL) {
        settle(tracker, BYTES("-ERR nearcached: no connection to the backend for CLIENT TRACKING "
                              "ON BCAST\r\n"));
    } else if (broadcast_is_ready(tracker->wanted_broadcast)) {
        settle(tracker, BYTES(""));
    }
}

static void enable(struct enabling *enabling)
{
    struct request *request = enabling->request;
    struct session *session = request->session;

    if (session == NULL) {
        request_done(request); /* the client is gone */
    } else if (enabling->options.redirect != 0 && enabling->options.redirect_front == NULL) {
        answer(request, BYTES("-ERR The client ID you want redirect to does not exist\r\n"));
    } else if (enabling->options.is_broadcast) {
        join_broadcast(enabling);
    } else {
        take_effect(session->tracker != NULL ? session->tracker : tracker_new(session),
                    &enabling->options);
        answer(request, BYTES("+OK\r\n"));
    }
    free_enabling(enabling);
}

/* From worker to worker, until the client to redirect to is found; then home. */
static void on_visit(struct mail *mail)
{
    struct enabling *enabling = CONTAINER_OF(mail, struct enabling, mail);
    struct proxy *proxy = enabling->proxy;
    struct front *front;
    struct session *session;

    if (enabling->next == proxy->n_fronts) {
        enable(enabling);
        return;
    }
    front = &proxy->fronts[enabling->next++];
    session = front->sessions;
    while (session != NULL && session->id != enabling->options.redirect) {
        session = session->next;
    }
    if (session != NULL) {
        tracker_make_target(session);
        enabling->options.redirect_front = front;
        enabling->next = proxy->n_fronts;
    }
    worker_post(enabling->next < proxy->n_fronts ? &proxy->fronts[enabling->next].worker
                                                 : &enabling->home->worker,
                &enabling->mail);
}

/* All prefixes in force from now on; the empty one when none is named. */
static int add_prefixes(const struct session *session, struct enabling *enabling,
                        struct bytes prefixes)
{
    const bool is_on = tracking_is_on(session);
    struct bytes all = prefixes.len > 0 ? prefixes : BYTES("\0\0\0\0"), rest, prefix, other;
    int error = is_on
                    ? buffer_append(&enabling->prefixes, buffer_bytes(&session->tracker->prefixes))
                    : 0;

    while (error == 0 && enabling->options.is_broadcast && key_run_next(&all, &prefix)) {
        bool is_there = false;

        rest = buffer_bytes(&enabling->prefixes);
        while (!is_there && key_run_next(&rest, &other)) {
            is_there = bytes_equal(prefix, other);
        }
        error = is_there ? 0 : key_run_add(&enabling->prefixes, prefix);
    }
    return error;
}

static void begin(struct session *session, const struct dispatch_call *call,
                  const struct tracking_options *options, struct bytes prefixes)
{
    struct front *front = session->front;
    struct enabling *enabling = mem_alloc(sizeof(*enabling));

    enabling->mail.run = on_visit;
    enabling->proxy = front->proxy;
    enabling->home = front;
    enabling->options = *options;
    buffer_init(&enabling->prefixes);
    enabling->request = request_queue(session, REQUEST_LOCAL, call->command);
    enabling->request->suspends = true;
    session_suspend(session, false);
    if (add_prefixes(session, enabling, prefixes) != 0) {
        request_fail(enabling->request, "ERR nearcached: out of memory");
        free_enabling(enabling);
    } else if (options->redirect != 0) {
        worker_post(&front->proxy->fronts[0].worker, &enabling->mail);
    } else {
        enable(enabling);
    }
}

static enum verdict turn_on(struct session *session, const struct dispatch_call *call,
                            const struct tracking_options *options, struct bytes prefixes)
{
    const char *error = conflict_of(session, options, prefixes.len > 0);

    if (error != NULL) {
        return say(session, error);
    }
    if (options->is_broadcast && refuse_prefixes(session, prefixes)) {
        return VERDICT_TAKEN;
    }
    if (!options->is_broadcast && tracking_is_refused(session->front->proxy)) {
        return say(session, "ERR nearcached: the backend offers no tracking of keys");
    }
    begin(session, call, options, prefixes);
    return VERDICT_TAKEN;
}

enum verdict tracking_client(struct session *session, const struct dispatch_call *call)
{
    struct tracking_options options = {0};
    struct buffer prefixes;
    enum verdict verdict;
    const char *error;

    /* What was asked before is shown before. */
    if (session->first != NULL) {
        return VERDICT_STALL;
    }
    buffer_init(&prefixes);
    error = parse(call, &options, &prefixes);
    if (error != NULL) {
        verdict = say(session, error);
    } else if (bytes_equal_nocase(call->argv[2], BYTES("on"))) {
        verdict = turn_on(session, call, &options, buffer_bytes(&prefixes));
    } else if (bytes_equal_nocase(call->argv[2], BYTES("off"))) {
        if (session->tracker != NULL) {
            tracker_free(session);
        }
        verdict = say(session, NULL);
    } else {
        verdict = say(session, "ERR syntax error");
    }
    buffer_fini(&prefixes);
    return verdict;
}

/* ---- CACHING, TRACKINGINFO, GETREDIR ---- */

enum verdict tracking_caching(struct session *session, const struct dispatch_call *call)
{
    struct tracker *tracker = session->tracker;
    const bool is_yes = bytes_equal_nocase(call->argv[2], BYTES("yes"));

    if (!tracking_is_on(session)) {
        return say(session, "ERR CLIENT CACHING can be called only when the client is in tracking "
                            "mode with OPTIN or OPTOUT mode enabled");
    }
    if (!is_yes && !bytes_equal_nocase(call->argv[2], BYTES("no"))) {
        return say(session, "ERR syntax error");
    }
    if (is_yes && !tracker->options.is_optin) {
        return say(session, "ERR CLIENT CACHING YES is only valid when tracking is enabled in "
                            "OPTIN mode.");
    }
    if (!is_yes && !tracker->options.is_optout) {
        return say(session, "ERR CLIENT CACHING NO is only valid when tracking is enabled in "
                            "OPTOUT mode.");
    }
    tracker->has_caching = true;
    return say(session, NULL);
}

static void put_flags(struct resp_writer *writer, const struct session *session)
{
    const struct tracker *tracker = session->tracker;
    const char *flags[8];
    unsigned n = 0;

    flags[n++] = tracking_is_on(session) ? "on" : "off";
    if (tracking_is_on(session)) {
        const struct tracking_options *options = &tracker->options;

        if (options->is_broadcast) {
            flags[n++] = "bcast";
        }
        if (options->is_optin) {
            flags[n++] = "optin";
        }
        if (options->is_optout) {
            flags[n++] = "optout";
        }
        if (tracker->has_caching) {
            flags[n++] = options->is_optin ? "caching-yes" : "caching-no";
        }
        if (options->is_noloop) {
            flags[n++] = "noloop";
        }
        if (tracker->is_broken) {
            flags[n++] = "broken_redirect";
        }
    }
    resp_put_set(writer, n);
    for (unsigned i = 0; i < n; i++) {
        resp_put_string(writer, flags[i]);
    }
}

static int compare_prefixes(const void *a, const void *b)
{
    const struct bytes *left = a, *right = b;
    const int order = memcmp(left->ptr, right->ptr,
                             left->len < right->len ? left->len : right->len);

    return order != 0 ? order : (left->len > right->len) - (left->len < right->len);
}

/* In the order of the alphabet, as Redis keeps them. */
static void put_prefixes(struct resp_writer *writer, const struct session *session)
{
    struct bytes rest = tracking_is_on(session) ? buffer_bytes(&session->tracker->prefixes)
                                                : BYTES("");
    struct bytes at = rest, prefix;
    struct bytes *sorted;
    size_t n = 0;

    while (key_run_next(&at, &prefix)) {
        n++;
    }
    sorted = mem_alloc((n + 1) * sizeof(*sorted));
    for (size_t i = 0; i < n; i++) {
        (void)key_run_next(&rest, &sorted[i]);
    }
    qsort(sorted, n, sizeof(*sorted), compare_prefixes);
    resp_put_array(writer, n);
    for (size_t i = 0; i < n; i++) {
        resp_put_bulk(writer, sorted[i]);
    }
    mem_free(sorted);
}

enum verdict tracking_info(struct session *session, const struct dispatch_call *call)
{
    struct resp_writer writer = session_begin_reply(session);

    (void)call;
    resp_put_map(&writer, 3);
    resp_put_string(&writer, "flags");
    put_flags(&writer, session);
    resp_put_string(&writer, "redirect");
    resp_put_integer(&writer, tracking_redirection(session));
    resp_put_string(&writer, "prefixes");
    put_prefixes(&writer, session);
    session_end_reply(session, &writer);
    return VERDICT_TAKEN;
}

enum verdict tracking_getredir(struct session *session, const struct dispatch_call *call)
{
    struct resp_writer writer = session_begin_reply(session);

    (void)call;
    resp_put_integer(&writer, tracking_redirection(session));
    session_end_reply(session, &writer);
    return VERDICT_TAKEN;
}
