#include "proxy/local.h"

#include "base/mem.h"
#include "base/stats.h"
#include "base/version.h"
#include "proxy/as_cluster.h"
#include "proxy/blocking.h"
#include "proxy/clients.h"
#include "proxy/fanout.h"
#include "proxy/info.h"
#include "proxy/login.h"
#include "proxy/monitor.h"
#include "proxy/pause.h"
#include "proxy/pubsub.h"
#include "proxy/request.h"
#include "proxy/tracking.h"
#include "proxy/transaction.h"
#include "resp/own.h"

#include <stdio.h>

typedef enum verdict (*local_fn)(struct session *session, const struct dispatch_call *call);

static enum verdict reply_ok(struct session *session)
{
    struct resp_writer writer = session_begin_reply(session);

    resp_put_simple(&writer, "OK");
    session_end_reply(session, &writer);
    return VERDICT_TAKEN;
}

static enum verdict reply_error(struct session *session, const char *text)
{
    session_error(session, "%s", text);
    return VERDICT_TAKEN;
}

/* ---- PING, ECHO, ROLE ---- */

static enum verdict handle_ping(struct session *session, const struct dispatch_call *call)
{
    struct resp_writer writer;

    if (call->argc > 2) {
        return dispatch_anywhere(session, call);
    }
    writer = session_begin_reply(session);
    if (call->argc == 2) {
        resp_put_bulk(&writer, call->argv[1]);
    } else {
        resp_put_simple(&writer, "PONG");
    }
    session_end_reply(session, &writer);
    return VERDICT_TAKEN;
}

static enum verdict handle_echo(struct session *session, const struct dispatch_call *call)
{
    struct resp_writer writer = session_begin_reply(session);

    resp_put_bulk(&writer, call->argv[1]);
    session_end_reply(session, &writer);
    return VERDICT_TAKEN;
}

static enum verdict handle_role(struct session *session, const struct dispatch_call *call)
{
    struct resp_writer writer = session_begin_reply(session);

    (void)call;
    resp_put_array(&writer, 3);
    resp_put_string(&writer, "master");
    resp_put_integer(&writer, 0);
    resp_put_array(&writer, 0);
    session_end_reply(session, &writer);
    return VERDICT_TAKEN;
}

/* ---- login and protocol ---- */

static bool log_in(struct session *session, struct bytes user, struct bytes password)
{
    const char *wanted = session->front->config->requirepass;

    if (!bytes_equal(user, BYTES("default")) ||
        (wanted[0] != '\0' && !bytes_equal_secret(password, wanted))) {
        stats_add(METRIC_errors_auth, 1);
        return false;
    }
    session->is_authed = true;
    return true;
}

/* A session changes its links only when the old ones owe it nothing. */
static enum login_state log_in_there(struct session *session, struct bytes user,
                                     struct bytes password, char *error, size_t error_size)
{
    enum login_state state = LOGIN_WAITS;

    if (session->first == NULL) {
        state = login_try(session, user, password, error, error_size);
    }
    if (state == LOGIN_ACCEPTED) {
        transaction_lose(session);
    }
    return state;
}

static enum verdict handle_auth(struct session *session, const struct dispatch_call *call)
{
    const bool has_user = call->argc == 3;

    if (call->argc > 3) {
        return reply_error(session, "ERR syntax error");
    }
    if (login_is_at_backend(session)) {
        char error[256];

        switch (log_in_there(session, has_user ? call->argv[1] : BYTES(""),
                             call->argv[has_user ? 2 : 1], error, sizeof(error))) {
        case LOGIN_WAITS:
            return VERDICT_STALL;
        case LOGIN_ACCEPTED:
            return reply_ok(session);
        case LOGIN_REFUSED:
            return reply_error(session, error);
        }
    }
    if (!has_user && session->front->config->requirepass[0] == '\0') {
        return reply_error(session,
                           "ERR AUTH <password> called without any password configured for the "
                           "default user. Are you sure your configuration is correct?");
    }
    if (!log_in(session, has_user ? call->argv[1] : BYTES("default"),
                call->argv[has_user ? 2 : 1])) {
        return reply_error(session,
                           "WRONGPASS invalid username-password pair or user is disabled.");
    }
    return reply_ok(session);
}

static bool is_valid_name(struct bytes name)
{
    for (size_t i = 0; i < name.len; i++) {
        if (name.ptr[i] < '!' || name.ptr[i] > '~') {
            return false;
        }
    }
    return true;
}

static void set_name(struct session *session, struct bytes name)
{
    mem_free(session->name);
    session->name = NULL;
    if (name.len > 0) {
        session->name = mem_try_alloc(name.len + 1);
        if (session->name != NULL) {
            memcpy(session->name, name.ptr, name.len);
            session->name[name.len] = '\0';
        }
    }
}

#define INVALID_NAME "ERR Client names cannot contain spaces, newlines or special characters."

/* The options of HELLO; an error text, or NULL. */
struct hello {
    int64_t proto;
    bool has_auth, has_name;
    struct bytes user, password, name;
};

static const char *parse_hello(const struct dispatch_call *call, struct hello *hello, char *room,
                               size_t room_size)
{
    unsigned i = 2;

    if (call->argc > 1) {
        if (!bytes_to_int64(call->argv[1], &hello->proto)) {
            return "ERR Protocol version is not an integer or out of range";
        }
        if (hello->proto < 2 || hello->proto > 3) {
            return "NOPROTO unsupported protocol version";
        }
    }
    while (i < call->argc) {
        const unsigned left = call->argc - i - 1;

        if (left >= 2 && bytes_equal_nocase(call->argv[i], BYTES("AUTH"))) {
            hello->has_auth = true;
            hello->user = call->argv[i + 1];
            hello->password = call->argv[i + 2];
            i += 3;
        } else if (left >= 1 && bytes_equal_nocase(call->argv[i], BYTES("SETNAME"))) {
            hello->has_name = true;
            hello->name = call->argv[i + 1];
            i += 2;
        } else {
            snprintf(room, room_size, "ERR Syntax error in HELLO option '%.*s'",
                     call->argv[i].len > 128 ? 128 : (int)call->argv[i].len,
                     (const char *)call->argv[i].ptr);
            return room;
        }
    }
    return NULL;
}

static void put_hello(struct session *session)
{
    const struct topology *topology = session->front->backend.topology;
    struct resp_writer writer = session_begin_reply(session);

    resp_put_map(&writer, 7);
    resp_put_string(&writer, "server");
    resp_put_string(&writer, "redis");
    resp_put_string(&writer, "version");
    resp_put_string(&writer, topology != NULL && topology->server_version[0] != '\0'
                                 ? topology->server_version
                                 : "7.0.0");
    resp_put_string(&writer, "proto");
    resp_put_integer(&writer, session->proto);
    resp_put_string(&writer, "id");
    resp_put_integer(&writer, (int64_t)session->id);
    resp_put_string(&writer, "mode");
    resp_put_string(&writer, as_cluster(session->front) ? "cluster" : "standalone");
    resp_put_string(&writer, "role");
    resp_put_string(&writer, "master");
    resp_put_string(&writer, "modules");
    resp_put_array(&writer, 0);
    session_end_reply(session, &writer);
}

static enum verdict handle_hello(struct session *session, const struct dispatch_call *call)
{
    struct hello hello = {.proto = session->proto};
    char room[256];
    const char *error = NULL;

    /* A session changes its relay link only when the old one owes it nothing. */
    if (session->first != NULL) {
        return VERDICT_STALL;
    }
    error = parse_hello(call, &hello, room, sizeof(room));
    if (error != NULL) {
        return reply_error(session, error);
    }
    if (hello.has_auth && login_is_at_backend(session)) {
        const enum login_state state = log_in_there(session, hello.user, hello.password, room,
                                                    sizeof(room));

        if (state != LOGIN_ACCEPTED) {
            return state == LOGIN_WAITS ? VERDICT_STALL : reply_error(session, room);
        }
    } else if (hello.has_auth && !log_in(session, hello.user, hello.password)) {
        return reply_error(session,
                           "WRONGPASS invalid username-password pair or user is disabled.");
    }
    if (!session->is_authed) {
        return reply_error(session,
                           "NOAUTH HELLO must be called with the client already authenticated, "
                           "otherwise the HELLO AUTH <user> <pass> option can be used to "
                           "authenticate the client and select the RESP protocol version at the "
                           "same time");
    }
    if (hello.has_name && !is_valid_name(hello.name)) {
        return reply_error(session, INVALID_NAME);
    }
    if (hello.has_name) {
        set_name(session, hello.name);
    }
    session->proto = (uint8_t)hello.proto;
    put_hello(session);
    return VERDICT_TAKEN;
}

static enum verdict handle_reset(struct session *session, const struct dispatch_call *call)
{
    struct resp_writer writer;

    (void)call;
    if (session->first != NULL) {
        return VERDICT_STALL;
    }
    transaction_end(session);
    pubsub_end(session);
    monitor_end(session);
    tracking_end(session);
    session->proto = 2;
    session_log_out(session);
    session_set_db(session, session->front->proxy->login->db);
    session->is_no_evict = false;
    session->reply_mode = REPLY_ON;
    set_name(session, BYTES(""));
    writer = session_begin_reply(session);
    resp_put_simple(&writer, "RESET");
    session_end_reply(session, &writer);
    return VERDICT_TAKEN;
}

static enum verdict handle_quit(struct session *session, const struct dispatch_call *call)
{
    (void)call;
    (void)reply_ok(session);
    session_close_after_reply(session);
    return VERDICT_TAKEN;
}

/* ---- CLIENT ---- */

static enum verdict handle_client_id(struct session *session, const struct dispatch_call *call)
{
    struct resp_writer writer = session_begin_reply(session);

    (void)call;
    resp_put_integer(&writer, (int64_t)session->id);
    session_end_reply(session, &writer);
    return VERDICT_TAKEN;
}

static enum verdict handle_client_info(struct session *session, const struct dispatch_call *call)
{
    struct resp_writer writer;
    struct buffer text;

    session->last_command = call->command;
    buffer_init(&text);
    session_describe(session, &text);
    writer = session_begin_reply(session);
    resp_put_raw(&writer, BYTES(""));
    if (buffer_append(&text, BYTES("\n")) != 0) {
        writer.has_failed = true;
    }
    resp_put_text(&writer, buffer_bytes(&text));
    session_end_reply(session, &writer);
    buffer_fini(&text);
    return VERDICT_TAKEN;
}

static enum verdict handle_client_getname(struct session *session, const struct dispatch_call *call)
{
    struct resp_writer writer = session_begin_reply(session);

    (void)call;
    if (session->name != NULL) {
        resp_put_string(&writer, session->name);
    } else {
        resp_put_null(&writer);
    }
    session_end_reply(session, &writer);
    return VERDICT_TAKEN;
}

static enum verdict handle_client_setname(struct session *session, const struct dispatch_call *call)
{
    if (!is_valid_name(call->argv[2])) {
        return reply_error(session, INVALID_NAME);
    }
    set_name(session, call->argv[2]);
    return reply_ok(session);
}

static enum verdict handle_client_no_evict(struct session *session,
                                           const struct dispatch_call *call)
{
    if (bytes_equal_nocase(call->argv[2], BYTES("on"))) {
        session->is_no_evict = true;
    } else if (bytes_equal_nocase(call->argv[2], BYTES("off"))) {
        session->is_no_evict = false;
    } else {
        return reply_error(session, "ERR syntax error");
    }
    return reply_ok(session);
}

static enum verdict handle_client_reply(struct session *session, const struct dispatch_call *call)
{
    if (bytes_equal_nocase(call->argv[2], BYTES("on"))) {
        session->reply_mode = REPLY_ON;
        return reply_ok(session);
    }
    if (bytes_equal_nocase(call->argv[2], BYTES("off"))) {
        session->reply_mode = REPLY_OFF;
        return VERDICT_TAKEN;
    }
    if (bytes_equal_nocase(call->argv[2], BYTES("skip"))) {
        if (session->reply_mode != REPLY_OFF) {
            session->reply_mode = REPLY_SKIP_NEXT;
        }
        return VERDICT_TAKEN;
    }
    return reply_error(session, "ERR syntax error");
}

static enum verdict handle_acl_whoami(struct session *session, const struct dispatch_call *call)
{
    struct resp_writer writer = session_begin_reply(session);

    (void)call;
    resp_put_string(&writer, session_user(session));
    session_end_reply(session, &writer);
    return VERDICT_TAKEN;
}

static enum verdict handle_client_unknown(struct session *session, const struct dispatch_call *call)
{
    stats_add(METRIC_errors_refused, 1);
    session_error(session, "ERR unknown subcommand '%.*s'. Try CLIENT HELP.",
                  call->argv[1].len > 128 ? 128 : (int)call->argv[1].len,
                  (const char *)call->argv[1].ptr);
    return VERDICT_TAKEN;
}

/* ---- SELECT ---- */

/*
 * The backend decides whether the number is a database. The link must stand where it stood
 * afterwards, whatever the answer: SELECT n, then SELECT back.
 */
static void on_select_reply(struct link_op *op, struct link *link, unsigned index,
                            struct bytes part, bool is_first, bool is_last)
{
    struct request *request = CONTAINER_OF(op, struct request, op);
    struct session *session = request->session;

    (void)link;
    (void)is_first;
    if (index == 0) {
        if (session != NULL && part.len > 0 && part.ptr[0] == '+') {
            session_set_db(session, (uint32_t)request->key_hash);
        }
        request_take_part(request, part);
    } else if (is_last) {
        request_done(request);
    }
}

static void on_select_lost(struct link_op *op, struct link *link, enum link_loss loss)
{
    struct request *request = CONTAINER_OF(op, struct request, op);

    (void)loss;
    stats_add(METRIC_errors_backend, 1);
    request_fail(request, "ERR nearcached: no connection to the backend %s (%s)", link->name,
                 link->error);
}

static const struct link_op_type select_type = {on_select_reply, on_select_lost};

static enum verdict handle_select(struct session *session, const struct dispatch_call *call)
{
    struct front *front = session->front;
    struct backend_node *node = backend_owner(&front->backend, 0);
    struct request *request;
    struct link *link;
    struct bytes parts[2];
    char digits[12], back[64];
    int64_t db;
    int length;

    if (as_cluster(front)) {
        return as_cluster_refuses_select(session, call) ? VERDICT_TAKEN
               : bytes_equal(call->argv[1], BYTES("0")) ? reply_ok(session)
                                                        : dispatch_anywhere(session, call);
    }
    if (!bytes_to_int64(call->argv[1], &db) || db < 0 || db > INT32_MAX) {
        return dispatch_anywhere(session, call); /* the backend words the error */
    }
    if (db == session->db) {
        return reply_ok(session);
    }
    if (session->first != NULL) {
        return VERDICT_STALL;
    }
    request = request_queue(session, REQUEST_RELAYED, call->command);
    if (node == NULL) {
        request_fail(request, "ERR nearcached: the backend was not reached yet");
        return VERDICT_TAKEN;
    }
    node = backend_as(&front->backend, node, session->identity);
    link = &node->links[session->proto == 3 ? LINK_RELAY3 : LINK_RELAY2];
    length = snprintf(digits, sizeof(digits), "%u", link->db);
    length = snprintf(back, sizeof(back), OWN_SELECT "$%d\r\n%s\r\n", length, digits);
    parts[0] = call->frame;
    parts[1] = bytes_make(back, (size_t)length);
    request->key_hash = (uint64_t)db;
    request->op.type = &select_type;
    request->op.collect = LINK_COLLECT_MIN;
    if (link_send(link, link->db, parts, 2, 2, &request->op) != 0) {
        stats_add(METRIC_errors_backend, 1);
        request_fail(request, "ERR nearcached: no connection to the backend %s (%s)", link->name,
                     link->error);
        return VERDICT_TAKEN;
    }
    request->suspends = true;
    session_suspend(session, false);
    return VERDICT_TAKEN;
}

/* ---- handed on ---- */

static enum verdict handle_cluster(struct session *session, const struct dispatch_call *call)
{
    if (call->command->has_subcommands) {
        return dispatch_anywhere(session, call); /* an unknown subcommand */
    }
    return as_cluster(session->front)
               ? as_cluster_dispatch(session, call)
               : reply_error(session, "ERR This instance has cluster support disabled");
}

/* READONLY, READWRITE, ASKING. */
static enum verdict handle_cluster_mode(struct session *session, const struct dispatch_call *call)
{
    (void)call;
    return as_cluster(session->front)
               ? reply_ok(session)
               : reply_error(session, "ERR This instance has cluster support disabled");
}

static enum verdict handle_config(struct session *session, const struct dispatch_call *call)
{
    const int allowed = session->front->config->config_command;
    const bool is_get = bytes_equal(bytes_of_string(call->command->name), BYTES("config get"));

    if (allowed == CONFIG_COMMAND_OFF || (allowed == CONFIG_COMMAND_GET && !is_get)) {
        stats_add(METRIC_errors_refused, 1);
        session_error(session, "ERR command '%s' is switched off by config-command",
                      call->command->name);
        return VERDICT_TAKEN;
    }
    return is_get ? dispatch_anywhere(session, call) : fanout_dispatch(session, call);
}

static enum verdict handle_cache(struct session *session, const struct dispatch_call *call)
{
    struct resp_writer writer = session_begin_reply(session);

    session->front->proxy->cache_command(session, call->argv, call->argc, &writer);
    if (buffer_len(writer.out) > 0 || writer.has_failed) {
        session_end_reply(session, &writer);
    }
    return VERDICT_TAKEN;
}

static enum verdict handle_none(struct session *session, const struct dispatch_call *call)
{
    return dispatch_anywhere(session, call);
}

#define handle_client_list clients_list
#define handle_client_kill clients_kill
#define handle_client_unblock clients_unblock
#define handle_client_tracking tracking_client
#define handle_client_trackinginfo tracking_info
#define handle_client_caching tracking_caching
#define handle_client_getredir tracking_getredir
#define handle_monitor monitor_dispatch
#define handle_pubsub pubsub_dispatch
#define handle_publish pubsub_publish
#define handle_pubsub_report pubsub_report
#define handle_transaction transaction_dispatch
#define handle_blocking blocking_dispatch
#define handle_wait blocking_wait
#define handle_client_pause pause_begin
#define handle_client_unpause pause_end
#define handle_info info_dispatch
#define handle_command dispatch_anywhere
#define handle_forward dispatch_anywhere

static const local_fn handlers[N_HANDLERS] = {
#define COMMAND_HANDLER(name) [HANDLER_##name] = handle_##name,
#include "tables/handlers.def"
#undef COMMAND_HANDLER
};

enum verdict local_dispatch(struct session *session, const struct dispatch_call *call)
{
    return handlers[call->command->handler](session, call);
}
