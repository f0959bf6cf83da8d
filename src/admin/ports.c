#include "admin/ports.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "proxy/listener.h"

/* No colon: that stands between names. */
#define OWN "own."

enum kind { KIND_LISTEN, KIND_TLS, KIND_ADMIN, N_KINDS };

static const char *const kind_names[N_KINDS] = {"listen", "tls", "admin"};

/* A socket that came from outside, and nobody has taken yet. */
struct inherited {
    int fd; /* -1: taken */
    enum kind kind;
    bool is_own;     /* the predecessor opened it by its options */
    bool is_unused;  /* ours do not name it */
    unsigned number; /* in the predecessor's list */
    char text[sizeof(((struct endpoint *)0)->text)];
};

struct port {
    struct listener *listener; /* NULL: dropped, until ports_thaw() */
    bool is_given;             /* by systemd: no option changes it */
};

struct ports {
    struct proxy *proxy;
    struct inherited inherited[PORTS_MAX];
    unsigned n_inherited;
    struct port all[PORTS_MAX];
    unsigned n;
    struct admin_http *http;
    const struct discovery *discovery;
    bool is_admin_given, is_accepting;
    bool is_closed;        /* for good */
    bool is_frozen;        /* a successor was told of them: no option changes them */
    unsigned n_told;       /* so many, the admin port included, which is the last one */
    struct config *missed; /* in force when the first change came that was not made; or NULL */
};

/* ---- what came from outside ---- */

static enum kind kind_of(const char *name)
{
    return strcmp(name, kind_names[KIND_TLS]) == 0     ? KIND_TLS
           : strcmp(name, kind_names[KIND_ADMIN]) == 0 ? KIND_ADMIN
                                                       : KIND_LISTEN;
}

static void inherit(struct ports *ports, int fd, const char *name, unsigned number)
{
    struct inherited *one = &ports->inherited[ports->n_inherited];
    struct sockaddr_storage address;
    socklen_t length = sizeof(address);
    struct endpoint endpoint;

    if (ports->n_inherited == PORTS_MAX || sd_is_socket(fd, AF_UNSPEC, SOCK_STREAM, 1) <= 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) != 0) {
        log_warn("main",
                 "a socket from outside is not used: it does not listen, or is one too many",
                 "name=%s", log_quote(bytes_of_string(name)));
        close(fd);
        return;
    }
    endpoint_from_sockaddr(&endpoint, (struct sockaddr *)&address, length);
    one->fd = fd;
    one->number = number;
    one->is_own = strncmp(name, OWN, strlen(OWN)) == 0;
    one->kind = kind_of(one->is_own ? name + strlen(OWN) : name);
    (void)snprintf(one->text, sizeof(one->text), "%s", endpoint.text);
    ports->n_inherited++;
}

struct ports *ports_new(struct proxy *proxy)
{
    struct ports *ports = mem_alloc(sizeof(*ports));
    char **names = NULL;
    const int n = sd_listen_fds_with_names(1, &names);

    ports->proxy = proxy;
    for (int i = 0; i < n; i++) {
        inherit(ports, SD_LISTEN_FDS_START + i, names[i], (unsigned)i);
        free(names[i]);
    }
    free(names);
    return ports;
}

static bool is_given(const struct ports *ports, enum kind kind)
{
    for (unsigned i = 0; i < ports->n; i++) {
        if (ports->all[i].is_given &&
            listener_is_tls(ports->all[i].listener) == (kind == KIND_TLS)) {
            return true;
        }
    }
    return false;
}

/* -1: none. */
static int take_own(struct ports *ports, enum kind kind, const char *text)
{
    for (unsigned i = 0; i < ports->n_inherited; i++) {
        struct inherited *one = &ports->inherited[i];

        if (one->fd >= 0 && one->is_own && one->kind == kind && strcmp(one->text, text) == 0) {
            const int fd = one->fd;

            one->fd = -1;
            return fd;
        }
    }
    return -1;
}

/* Of an address whose option is gone: who waits in it is refused, as after a reload. */
static void drop_inherited(struct ports *ports, enum kind kind)
{
    for (unsigned i = 0; i < ports->n_inherited; i++) {
        struct inherited *one = &ports->inherited[i];

        if (one->fd >= 0 && one->kind == kind) {
            close(one->fd);
            one->fd = -1;
            one->is_unused = one->is_own;
        }
    }
}

bool ports_next_unused(struct ports *ports, unsigned *number)
{
    for (unsigned i = 0; i < ports->n_inherited; i++) {
        struct inherited *one = &ports->inherited[i];

        if (one->is_unused) {
            one->is_unused = false;
            *number = one->number;
            return true;
        }
    }
    return false;
}

/* ---- clients ---- */

static void add(struct ports *ports, struct listener *listener, bool is_of_systemd)
{
    ports->all[ports->n++] = (struct port){listener, is_of_systemd};
    listener_accept(listener, ports->is_accepting);
}

static int text_of(const struct config_address *address, struct endpoint *endpoint)
{
    return address->is_unix ? endpoint_from_path(endpoint, address->path)
                            : endpoint_from_ip(endpoint, address->host, address->port);
}

static struct port *find(struct ports *ports, const char *text, bool is_tls)
{
    for (unsigned i = 0; i < ports->n; i++) {
        struct port *port = &ports->all[i];

        if (listener_is_tls(port->listener) == is_tls &&
            strcmp(listener_text(port->listener), text) == 0) {
            return port;
        }
    }
    return NULL;
}

static int open_one(struct ports *ports, const struct config *config,
                    const struct config_address *address, bool is_tls, FILE *errors)
{
    struct endpoint endpoint = {.text = "?"};
    struct listener *listener;
    int error = text_of(address, &endpoint);
    int fd = -1;

    if (error == 0) {
        if (find(ports, endpoint.text, is_tls) != NULL) {
            return 0;
        }
        fd = take_own(ports, is_tls ? KIND_TLS : KIND_LISTEN, endpoint.text);
    }
    if (fd >= 0) {
        listener = listener_of_socket(ports->proxy, fd, config->tcp_keepalive_ms, is_tls);
    } else if (error == 0 && ports->n == PORTS_MAX) {
        error = -EMFILE;
    } else if (error == 0) {
        error = listener_open(ports->proxy, address, config->unix_mode, config->tcp_keepalive_ms,
                              is_tls, &listener);
    }
    if (error != 0) {
        fprintf(errors, "%s = %s: cannot listen: %s\n", is_tls ? "tls-listen" : "listen",
                endpoint.text, strerror(-error));
        return error;
    }
    add(ports, listener, false);
    return 0;
}

static int open_all(struct ports *ports, const struct config *config, bool is_tls, FILE *errors)
{
    const unsigned n = is_tls ? config->n_tls_listeners : config->n_listeners;
    int error = 0;

    if (is_given(ports, is_tls ? KIND_TLS : KIND_LISTEN)) {
        return 0;
    }
    for (unsigned i = 0; i < n && error == 0; i++) {
        error = open_one(ports, config, is_tls ? &config->tls_listeners[i] : &config->listeners[i],
                         is_tls, errors);
    }
    return error;
}

static int take_given(struct ports *ports, const struct config *config, FILE *errors)
{
    for (unsigned i = 0; i < ports->n_inherited; i++) {
        struct inherited *one = &ports->inherited[i];

        if (one->fd < 0 || one->is_own || one->kind == KIND_ADMIN) {
            continue;
        }
        if (one->kind == KIND_TLS && config->tls_clients == NULL) {
            fprintf(errors, "a socket called tls needs tls-listen, with its certificates\n");
            return -EINVAL;
        }
        add(ports,
            listener_of_socket(ports->proxy, one->fd, config->tcp_keepalive_ms,
                               one->kind == KIND_TLS),
            true);
        one->fd = -1;
    }
    return 0;
}

/* Closes those from `from` on, or those that config does not name. */
static void close_some(struct ports *ports, unsigned from, const bool *stays)
{
    unsigned n = from;

    for (unsigned i = from; i < ports->n; i++) {
        if (stays != NULL && stays[i]) {
            ports->all[n++] = ports->all[i];
        } else {
            log_info("main", "no longer listening", "addr=%s",
                     listener_text(ports->all[i].listener));
            listener_close(&ports->all[i].listener);
        }
    }
    ports->n = n;
}

int ports_open(struct ports *ports, const struct config *config, FILE *errors)
{
    int error = take_given(ports, config, errors);

    if (error == 0) {
        error = open_all(ports, config, false, errors);
    }
    if (error == 0) {
        error = open_all(ports, config, true, errors);
    }
    drop_inherited(ports, KIND_LISTEN);
    drop_inherited(ports, KIND_TLS);
    return error;
}

void ports_close_clients(struct ports *ports)
{
    ports->is_closed = true;
    for (unsigned i = 0; i < ports->n; i++) {
        listener_close(&ports->all[i].listener);
    }
    ports->n = 0;
}

/* ---- the admin port ---- */

static int start_admin(struct ports *ports, const struct config *config, int fd, FILE *errors)
{
    struct admin_http *former = ports->http;
    struct admin_http *http = NULL;
    const int error = admin_http_start(&http, ports->proxy, ports->discovery,
                                       &config->admin_address, fd);

    if (error != 0) {
        fprintf(errors, "admin = %s: cannot listen: %s\n", config->admin, strerror(-error));
        return error;
    }
    ports->http = http;
    admin_http_accept(http, ports->is_accepting);
    admin_http_stop(&former);
    return 0;
}

int ports_open_admin(struct ports *ports, const struct config *config,
                     const struct discovery *discovery, FILE *errors)
{
    struct endpoint endpoint;
    int fd = -1;

    ports->discovery = discovery;
    for (unsigned i = 0; i < ports->n_inherited; i++) {
        struct inherited *one = &ports->inherited[i];

        if (one->fd >= 0 && one->kind == KIND_ADMIN && !one->is_own && fd < 0) {
            fd = one->fd;
            one->fd = -1;
            ports->is_admin_given = true;
        }
    }
    if (fd < 0 && config->has_admin && text_of(&config->admin_address, &endpoint) == 0) {
        fd = take_own(ports, KIND_ADMIN, endpoint.text);
    }
    drop_inherited(ports, KIND_ADMIN);
    return fd >= 0 || config->has_admin ? start_admin(ports, config, fd, errors) : 0;
}

/* ---- all of them ---- */

void ports_accept(struct ports *ports, bool on)
{
    ports->is_accepting = on;
    for (unsigned i = 0; i < ports->n; i++) {
        if (ports->all[i].listener != NULL) {
            listener_accept(ports->all[i].listener, on);
        }
    }
    if (ports->http != NULL) {
        admin_http_accept(ports->http, on);
    }
}

static bool names(const struct config_address *list, unsigned n, const char *text)
{
    for (unsigned i = 0; i < n; i++) {
        struct endpoint endpoint;

        if (text_of(&list[i], &endpoint) == 0 && strcmp(endpoint.text, text) == 0) {
            return true;
        }
    }
    return false;
}

static void close_unnamed(struct ports *ports, const struct config *config)
{
    bool stays[PORTS_MAX];

    for (unsigned i = 0; i < ports->n; i++) {
        const struct port *port = &ports->all[i];
        const char *text = listener_text(port->listener);

        stays[i] = port->is_given ||
                   (listener_is_tls(port->listener)
                        ? names(config->tls_listeners, config->n_tls_listeners, text)
                        : names(config->listeners, config->n_listeners, text));
    }
    close_some(ports, 0, stays);
}

static int change_admin(struct ports *ports, const struct config *former,
                        const struct config *config, FILE *errors)
{
    if (ports->is_admin_given ||
        (former->has_admin == config->has_admin && config->has_admin == (ports->http != NULL) &&
         (!config->has_admin ||
          config_address_equal(&former->admin_address, &config->admin_address)))) {
        return 0;
    }
    if (config->has_admin) {
        return start_admin(ports, config, -1, errors);
    }
    admin_http_stop(&ports->http);
    return 0;
}

/* Modes of files of those that stay, and the time of probes of those that come. */
static void set_options(struct ports *ports, const struct config *former,
                        const struct config *config)
{
    for (unsigned i = 0; i < ports->n; i++) {
        listener_set_keepalive(ports->all[i].listener, config->tcp_keepalive_ms);
    }
    for (unsigned i = 0; i < config->n_listeners && former->unix_mode != config->unix_mode; i++) {
        const struct config_address *address = &config->listeners[i];

        if (address->is_unix && !is_given(ports, KIND_LISTEN) &&
            chmod(address->path, (mode_t)config->unix_mode) != 0) {
            log_warn("main", "permissions of a Unix socket cannot be changed", "path=%s reason=%s",
                     log_quote(bytes_of_string(address->path)),
                     log_quote(bytes_of_string(strerror(errno))));
        }
    }
}

int ports_change(struct ports *ports, const struct config *former, const struct config *config,
                 FILE *errors)
{
    const unsigned n_before = ports->n;
    int error;

    /* Whoever connects to what is opened now is not served, or not even accepted. */
    if (ports->is_closed) {
        return 0;
    }
    if (ports->is_frozen) {
        if (ports->missed == NULL) {
            /* Its references are counted; what it says does not change. */
            ports->missed = config_ref((struct config *)(uintptr_t)former);
        }
        return 0;
    }
    error = open_all(ports, config, false, errors);

    if (error == 0) {
        error = open_all(ports, config, true, errors);
    }
    if (error == 0) {
        error = change_admin(ports, former, config, errors);
    }
    if (error != 0) {
        close_some(ports, n_before, NULL);
        return error;
    }
    close_unnamed(ports, config);
    set_options(ports, former, config);
    return 0;
}

static void put(int fd, enum kind kind, bool is_own, int *into, char name[PORTS_NAME_MAX])
{
    *into = fd;
    (void)snprintf(name, PORTS_NAME_MAX, "%s%s", is_own ? OWN : "", kind_names[kind]);
}

unsigned ports_list(const struct ports *ports, int fds[PORTS_MAX],
                    char names_of[PORTS_MAX][PORTS_NAME_MAX])
{
    unsigned n = 0;

    for (unsigned i = 0; i < ports->n; i++, n++) {
        const struct port *port = &ports->all[i];

        put(listener_fd(port->listener), listener_is_tls(port->listener) ? KIND_TLS : KIND_LISTEN,
            !port->is_given, &fds[n], names_of[n]);
    }
    if (ports->http != NULL && n < PORTS_MAX) {
        put(admin_http_fd(ports->http), KIND_ADMIN, !ports->is_admin_given, &fds[n], names_of[n]);
        n++;
    }
    return n;
}

void ports_freeze(struct ports *ports)
{
    ports->is_frozen = true;
    ports->n_told = ports->n;
}

static void forget_dropped(struct ports *ports)
{
    unsigned n = 0;

    for (unsigned i = 0; i < ports->n; i++) {
        if (ports->all[i].listener != NULL) {
            ports->all[n++] = ports->all[i];
        }
    }
    ports->n = n;
}

void ports_thaw(struct ports *ports, const struct config *config)
{
    struct config *former = ports->missed;
    char *text = NULL;
    size_t size = 0;
    FILE *errors = open_memstream(&text, &size);

    CHECK(errors != NULL);
    ports->missed = NULL;
    ports->is_frozen = false;
    forget_dropped(ports);
    if (ports_change(ports, former != NULL ? former : config, config, errors) != 0) {
        (void)fflush(errors);
        log_error("main", "not all sockets can be listened on again", "reason=%s",
                  log_quote_long(bytes_of_string(text)));
    }
    (void)fclose(errors);
    free(text);
    config_unref(&former);
}

void ports_drop(struct ports *ports, unsigned number)
{
    if (!ports->is_frozen || ports->is_closed) {
        return;
    }
    if (number == ports->n_told) {
        admin_http_stop(&ports->http);
    } else if (number < ports->n && ports->all[number].listener != NULL) {
        struct port *port = &ports->all[number];

        log_info("main", "no longer listening: the successor does not", "addr=%s",
                 listener_text(port->listener));
        listener_own_file(port->listener, !port->is_given);
        listener_close(&port->listener);
    }
}

void ports_own_files(struct ports *ports, bool on)
{
    for (unsigned i = 0; i < ports->n; i++) {
        if (ports->all[i].listener != NULL) {
            listener_own_file(ports->all[i].listener, on && !ports->all[i].is_given);
        }
    }
}

void ports_free(struct ports **ports)
{
    if (*ports == NULL) {
        return;
    }
    ports_close_clients(*ports);
    admin_http_stop(&(*ports)->http);
    for (unsigned kind = 0; kind < N_KINDS; kind++) {
        drop_inherited(*ports, (enum kind)kind);
    }
    config_unref(&(*ports)->missed);
    mem_free(*ports);
    *ports = NULL;
}
