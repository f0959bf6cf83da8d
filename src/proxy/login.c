#include "proxy/login.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/stats.h"
#include "resp/own.h"
#include "upstream/identity.h"

#include <stdio.h>

struct login {
    struct login *next; /* of the front's */
    struct front *front;
    struct session *session;    /* NULL: cancelled */
    struct identity *candidate; /* until it is registered */
    struct link link;
    struct link_op op;
    enum login_state state;
    bool is_over; /* to be freed in the next tick: its link may be up the stack */
    char error[256];
};

bool login_is_at_backend(const struct session *session)
{
    const struct config *config = session->front->config;

    return config->auth == AUTH_BACKEND ||
           (config->auth == AUTH_AUTO && config->requirepass[0] == '\0');
}

static void settle(struct login *login, enum login_state state)
{
    if (login->state == LOGIN_WAITS) {
        login->state = state;
        if (login->session != NULL) {
            session_wake(login->session);
        }
    }
}

/* Whatever is answered, the connection came up: the credentials are right. */
static void on_reply(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                     bool is_first, bool is_last)
{
    (void)link;
    (void)index;
    (void)part;
    (void)is_first;
    if (is_last) {
        settle(CONTAINER_OF(op, struct login, op), LOGIN_ACCEPTED);
    }
}

static void on_lost(struct link_op *op, struct link *link, enum link_loss loss)
{
    static const char prefix[] = "refused: -";
    struct login *login = CONTAINER_OF(op, struct login, op);

    (void)loss;
    if (strncmp(link->error, prefix, sizeof(prefix) - 1) == 0) {
        snprintf(login->error, sizeof(login->error), "%s", link->error + sizeof(prefix) - 1);
    } else {
        snprintf(login->error, sizeof(login->error),
                 "ERR nearcached: the backend could not be asked about this login (%.150s)",
                 link->error);
    }
    settle(login, LOGIN_REFUSED);
}

static const struct link_op_type login_type = {on_reply, on_lost};

static void begin(struct session *session, struct backend_node *node, struct bytes user,
                  struct bytes password)
{
    struct front *front = session->front;
    struct link_settings settings = node->links[LINK_RELAY2].settings;
    const struct bytes ping = BYTES(OWN_PING);
    struct login *login = mem_alloc(sizeof(*login));

    settings.is_quiet = true;
    login->front = front;
    login->session = session;
    login->candidate = identity_new(user, password);
    login->op.type = &login_type;
    login->op.collect = LINK_COLLECT_MIN;
    link_init(&login->link, LINK_RELAY2, &front->worker, node->info, &login->candidate->login,
              &settings);
    login->next = front->logins;
    front->logins = login;
    session->login = login;
    stats_add(METRIC_logins, 1);
    if (link_send(&login->link, 0, &ping, 1, 1, &login->op) != 0) {
        on_lost(&login->op, &login->link, LINK_LOST_UNSENT);
    }
}

/* The proxy's own login is nobody's in particular. */
static bool is_own(const struct config_backend *own, const struct identity *candidate)
{
    const char *user = own->user != NULL && own->user[0] != '\0' ? own->user : "default";

    return strcmp(user, candidate->name) == 0 &&
           (own->password == NULL ||
            bytes_equal_secret(bytes_of_string(candidate->login.password), own->password));
}

/* Takes the answer to what was asked; the login is over. */
static enum login_state take_answer(struct session *session, char *error, size_t error_size)
{
    struct login *login = session->login;
    const enum login_state state = login->state;
    struct identity *identity = NULL;

    snprintf(error, error_size, "%s", login->error);
    if (state == LOGIN_ACCEPTED && !is_own(session->front->proxy->login, login->candidate)) {
        /* The link still borrows its login: it closes first. */
        link_shut(&login->link);
        identity = identity_register(&login->candidate);
        if (identity == NULL) {
            snprintf(error, error_size, "ERR nearcached: too many users");
            login_cancel(session);
            return LOGIN_REFUSED;
        }
    }
    login_cancel(session);
    if (state == LOGIN_ACCEPTED) {
        session_set_identity(session, identity);
        session->is_authed = true;
    } else {
        stats_add(METRIC_errors_auth, 1);
    }
    return state;
}

enum login_state login_try(struct session *session, struct bytes user, struct bytes password,
                           char *error, size_t error_size)
{
    struct backend_node *node;

    if (session->login != NULL) {
        return session->login->state == LOGIN_WAITS ? LOGIN_WAITS
                                                    : take_answer(session, error, error_size);
    }
    node = dispatch_any_node(session->front);
    if (node == NULL || node->info == NULL) {
        snprintf(error, error_size, "ERR nearcached: the backend was not reached yet");
        return LOGIN_REFUSED;
    }
    begin(session, node, user, password);
    return session->login->state == LOGIN_WAITS ? LOGIN_WAITS
                                                : take_answer(session, error, error_size);
}

void login_cancel(struct session *session)
{
    if (session->login != NULL) {
        session->login->session = NULL;
        session->login->is_over = true;
        session->login = NULL;
    }
}

static void free_login(struct login *login)
{
    link_fini(&login->link);
    identity_free(&login->candidate);
    mem_free(login);
}

void login_tick(struct front *front, int64_t now_us)
{
    struct login **at = &front->logins;

    while (*at != NULL) {
        struct login *const login = *at;

        if (login->is_over) {
            *at = login->next;
            free_login(login);
            continue;
        }
        link_tick(&login->link, now_us);
        at = &login->next;
    }
}
