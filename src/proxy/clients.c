/*
 * Design: a survey walks from worker to worker by mail, one after the other, and comes home with
 * what it gathered; a list of 10 000 clients holds up each worker for its own share only.
 */
#include "proxy/clients.h"

#include "base/mem.h"
#include "base/stats.h"
#include "proxy/blocking.h"
#include "proxy/relay.h"
#include "proxy/request.h"
#include "resp/writer.h"
#include "upstream/identity.h"

#include <stdio.h>

enum kind_filter { KIND_ANY, KIND_NORMAL, KIND_PUBSUB, KIND_OTHER };

struct survey {
    struct mail mail;
    struct proxy *proxy;
    struct front *home;
    struct request *request; /* answered at home */
    unsigned next;           /* worker to visit */
    enum { SURVEY_LIST, SURVEY_KILL, SURVEY_UNBLOCK } task;

    /* what is wanted */
    uint64_t *ids;
    unsigned n_ids;
    char address[128], local_address[128]; /* empty: any */
    enum kind_filter kind;
    bool is_for_nobody; /* no client can be meant */
    char *user;         /* NULL: any */
    bool skips_me, is_old_form;
    uint64_t me;
    bool unblocks_with_error;

    /* what was found */
    struct buffer self; /* who asks, as it was then: its command is being answered now */
    struct buffer text;
    uint64_t n_found;
    int64_t blocked_id; /* at the backend, on blocked_node */
    epochs_node blocked_node;
    bool has_failed;
};

static bool is_of_kind(enum kind_filter kind, const struct session *session)
{
    const bool is_subscribed = session->subscriber != NULL;

    return kind == KIND_ANY || kind == (is_subscribed ? KIND_PUBSUB : KIND_NORMAL);
}

static bool is_wanted(const struct survey *survey, const struct session *session)
{
    bool is_listed = survey->n_ids == 0;

    for (unsigned i = 0; i < survey->n_ids && !is_listed; i++) {
        is_listed = survey->ids[i] == session->id;
    }
    return is_listed && is_of_kind(survey->kind, session) && !survey->is_for_nobody &&
           (survey->user == NULL || strcmp(survey->user, session_user(session)) == 0) &&
           (survey->address[0] == '\0' || strcmp(survey->address, session->peer.text) == 0) &&
           (survey->local_address[0] == '\0' ||
            strcmp(survey->local_address, session->local.text) == 0) &&
           !(survey->skips_me && session->id == survey->me);
}

static void list(struct survey *survey, const struct session *session)
{
    if (session->id != survey->me) {
        session_describe(session, &survey->text);
    } else if (buffer_append(&survey->text, buffer_bytes(&survey->self)) != 0) {
        survey->has_failed = true;
    }
    if (buffer_append(&survey->text, BYTES("\n")) != 0) {
        survey->has_failed = true;
    }
}

static void visit(struct survey *survey, struct front *front)
{
    struct session *session = front->sessions;

    while (session != NULL && !(survey->is_old_form && survey->n_found > 0)) {
        struct session *const next = session->next;

        if (is_wanted(survey, session)) {
            survey->n_found++;
            if (survey->task == SURVEY_UNBLOCK) {
                survey->blocked_id = blocking_client_id(session, &survey->blocked_node);
            } else if (survey->task == SURVEY_LIST) {
                list(survey, session);
            } else {
                stats_add(METRIC_clients_closed_killed, 1);
                if (session->id == survey->me) {
                    session_close_after_reply(session);
                } else {
                    session_close(session);
                }
            }
        }
        session = next;
    }
}

/* The node that it blocks on answers: only there is known whether it was served meanwhile. */
static void unblock(struct survey *survey)
{
    struct request *request = survey->request;
    struct backend_node *node = backend_by_id(&survey->home->backend, survey->blocked_node);
    char digits[24];
    struct bytes argv[] = {BYTES("CLIENT"), BYTES("UNBLOCK"), bytes_of_string(digits),
                           survey->unblocks_with_error ? BYTES("ERROR") : BYTES("TIMEOUT")};
    struct buffer frame;

    if (survey->blocked_id == 0 || node == NULL) {
        request_take_part(request, BYTES(":0\r\n"));
        request_done(request);
        return;
    }
    snprintf(digits, sizeof(digits), "%lld", (long long)survey->blocked_id);
    argv[2] = bytes_of_string(digits);
    buffer_init(&frame);
    if (resp_write_request(&frame, argv, 4) != 0) {
        request_fail(request, "ERR nearcached: out of memory");
    } else {
        relay_send(request, node, buffer_bytes(&frame));
    }
    buffer_fini(&frame);
}

static void answer(struct survey *survey)
{
    struct request *request = survey->request;
    struct buffer body;
    struct resp_writer writer;

    if (survey->task == SURVEY_UNBLOCK) {
        unblock(survey);
        return;
    }
    buffer_init(&body);
    writer = (struct resp_writer){.out = &body, .is_resp3 = request->proto == 3};
    if (survey->has_failed) {
        resp_put_error(&writer, "ERR nearcached: out of memory");
    } else if (survey->task == SURVEY_LIST) {
        resp_put_text(&writer, buffer_bytes(&survey->text));
    } else if (!survey->is_old_form) {
        resp_put_integer(&writer, (int64_t)survey->n_found);
    } else if (survey->n_found > 0) {
        resp_put_simple(&writer, "OK");
    } else {
        resp_put_error(&writer, "ERR No such client");
    }
    request_take_part(request, buffer_bytes(&body));
    request_done(request);
    buffer_fini(&body);
}

static void free_survey(struct survey *survey)
{
    buffer_fini(&survey->self);
    buffer_fini(&survey->text);
    mem_free(survey->ids);
    mem_free(survey->user);
    mem_free(survey);
}

static void on_visit(struct mail *mail)
{
    struct survey *survey = CONTAINER_OF(mail, struct survey, mail);

    if (survey->next == survey->proxy->n_fronts) {
        answer(survey);
        free_survey(survey);
        return;
    }
    visit(survey, &survey->proxy->fronts[survey->next]);
    survey->next++;
    worker_post(survey->next < survey->proxy->n_fronts ? &survey->proxy->fronts[survey->next].worker
                                                       : &survey->home->worker,
                &survey->mail);
}

static void begin(struct survey *survey, struct session *session, const struct dispatch_call *call)
{
    struct front *front = session->front;

    survey->mail.run = on_visit;
    survey->proxy = front->proxy;
    survey->home = front;
    survey->me = session->id;
    session->last_command = call->command;
    buffer_init(&survey->self);
    if (survey->task == SURVEY_LIST) {
        session_describe(session, &survey->self);
    }
    survey->request = request_queue(session, REQUEST_LOCAL, call->command);
    worker_post(&front->proxy->fronts[0].worker, &survey->mail);
}

/* ---- options ---- */

static bool add_id(struct survey *survey, struct bytes text)
{
    uint64_t *ids;
    int64_t id;

    if (!bytes_to_int64(text, &id) || id < 1) {
        return false;
    }
    ids = mem_try_realloc(survey->ids, (survey->n_ids + 1) * sizeof(*ids));
    if (ids == NULL) {
        return false;
    }
    survey->ids = ids;
    survey->ids[survey->n_ids++] = (uint64_t)id;
    return true;
}

/* False: no such type. */
static bool set_kind(struct survey *survey, struct bytes type)
{
    if (bytes_equal_nocase(type, BYTES("normal"))) {
        survey->kind = KIND_NORMAL;
        return true;
    }
    if (bytes_equal_nocase(type, BYTES("pubsub"))) {
        survey->kind = KIND_PUBSUB;
        return true;
    }
    survey->kind = KIND_OTHER;
    return bytes_equal_nocase(type, BYTES("master")) || bytes_equal_nocase(type, BYTES("slave")) ||
           bytes_equal_nocase(type, BYTES("replica"));
}

static void set_address(struct survey *survey, char into[128], struct bytes address)
{
    const size_t length = address.len < 127 ? address.len : 127;

    memcpy(into, address.ptr, length);
    into[length] = '\0';
    survey->is_for_nobody = survey->is_for_nobody || length == 0;
}

static enum verdict fail(struct session *session, struct survey *survey, const char *text)
{
    free_survey(survey);
    session_error(session, "%s", text);
    return VERDICT_TAKEN;
}

/* Redis asks its list of users; here it is those that clients have logged in as. */
static bool is_known_user(const struct session *session, struct bytes user)
{
    return bytes_equal(user, BYTES("default")) ||
           bytes_equal(user, bytes_of_string(session_user(session))) || identity_has_name(user);
}

static enum verdict fail_user(struct session *session, struct survey *survey, struct bytes user)
{
    free_survey(survey);
    session_error(session, "ERR No such user '%.*s'", user.len > 128 ? 128 : (int)user.len,
                  (const char *)user.ptr);
    return VERDICT_TAKEN;
}

static enum verdict fail_type(struct session *session, struct survey *survey, struct bytes type)
{
    free_survey(survey);
    session_error(session, "ERR Unknown client type '%.*s'", type.len > 128 ? 128 : (int)type.len,
                  (const char *)type.ptr);
    return VERDICT_TAKEN;
}

enum verdict clients_list(struct session *session, const struct dispatch_call *call)
{
    struct survey *survey = mem_alloc(sizeof(*survey));

    buffer_init(&survey->text);
    if (call->argc == 4 && bytes_equal_nocase(call->argv[2], BYTES("TYPE"))) {
        if (!set_kind(survey, call->argv[3])) {
            return fail_type(session, survey, call->argv[3]);
        }
    } else if (call->argc > 3 && bytes_equal_nocase(call->argv[2], BYTES("ID"))) {
        for (unsigned i = 3; i < call->argc; i++) {
            if (!add_id(survey, call->argv[i])) {
                return fail(session, survey, "ERR Invalid client ID");
            }
        }
    } else if (call->argc != 2) {
        return fail(session, survey, "ERR syntax error");
    }
    begin(survey, session, call);
    return VERDICT_TAKEN;
}

/* One filter of the new form: an error text, or NULL. */
static const char *set_filter(struct survey *survey, struct bytes name, struct bytes value)
{
    if (bytes_equal_nocase(name, BYTES("ID"))) {
        return add_id(survey, value) ? NULL : "ERR client-id should be greater than 0";
    }
    if (bytes_equal_nocase(name, BYTES("ADDR"))) {
        set_address(survey, survey->address, value);
        return NULL;
    }
    if (bytes_equal_nocase(name, BYTES("LADDR"))) {
        set_address(survey, survey->local_address, value);
        return NULL;
    }
    if (bytes_equal_nocase(name, BYTES("USER"))) {
        mem_free(survey->user);
        survey->user = mem_alloc(value.len + 1);
        memcpy(survey->user, value.ptr, value.len);
        return NULL;
    }
    if (bytes_equal_nocase(name, BYTES("SKIPME"))) {
        survey->skips_me = bytes_equal_nocase(value, BYTES("yes"));
        return survey->skips_me || bytes_equal_nocase(value, BYTES("no")) ? NULL
                                                                          : "ERR syntax error";
    }
    return "ERR syntax error";
}

enum verdict clients_kill(struct session *session, const struct dispatch_call *call)
{
    struct survey *survey = mem_alloc(sizeof(*survey));

    buffer_init(&survey->text);
    survey->task = SURVEY_KILL;
    if (call->argc == 3) {
        survey->is_old_form = true;
        set_address(survey, survey->address, call->argv[2]);
        begin(survey, session, call);
        return VERDICT_TAKEN;
    }
    survey->skips_me = true;
    for (unsigned i = 2; i < call->argc; i += 2) {
        const char *error;

        if (i + 1 == call->argc) {
            return fail(session, survey, "ERR syntax error");
        }
        if (bytes_equal_nocase(call->argv[i], BYTES("TYPE"))) {
            if (!set_kind(survey, call->argv[i + 1])) {
                return fail_type(session, survey, call->argv[i + 1]);
            }
            continue;
        }
        if (bytes_equal_nocase(call->argv[i], BYTES("USER")) &&
            !is_known_user(session, call->argv[i + 1])) {
            return fail_user(session, survey, call->argv[i + 1]);
        }
        error = set_filter(survey, call->argv[i], call->argv[i + 1]);
        if (error != NULL) {
            return fail(session, survey, error);
        }
    }
    begin(survey, session, call);
    return VERDICT_TAKEN;
}

enum verdict clients_unblock(struct session *session, const struct dispatch_call *call)
{
    struct survey *survey = mem_alloc(sizeof(*survey));

    buffer_init(&survey->text);
    survey->task = SURVEY_UNBLOCK;
    if (call->argc > 4) {
        free_survey(survey);
        session_error(session,
                      "ERR unknown subcommand or wrong number of arguments for '%.*s'. Try CLIENT "
                      "HELP.",
                      call->argv[1].len > 128 ? 128 : (int)call->argv[1].len,
                      (const char *)call->argv[1].ptr);
        return VERDICT_TAKEN;
    }
    if (call->argc == 4) {
        survey->unblocks_with_error = bytes_equal_nocase(call->argv[3], BYTES("ERROR"));
        if (!survey->unblocks_with_error && !bytes_equal_nocase(call->argv[3], BYTES("TIMEOUT"))) {
            return fail(session, survey, "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR");
        }
    }
    if (!add_id(survey, call->argv[2])) {
        int64_t id;

        if (!bytes_to_int64(call->argv[2], &id)) {
            return fail(session, survey, "ERR value is not an integer or out of range");
        }
        survey->is_for_nobody = true; /* there is no such client */
    }
    begin(survey, session, call);
    return VERDICT_TAKEN;
}
