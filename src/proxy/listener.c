#include "proxy/listener.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/stats.h"
#include "proxy/overload.h"
#include "proxy/session.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/un.h>
#include <unistd.h>

#define LISTENER_MAGIC 0x6c697374u
/* Out of descriptors: others may close some meanwhile. */
#define PAUSE_MS 100
/* At a stretch: among ten thousand that come at once, the control thread has other things to do. */
#define ACCEPTS_MAX 256

struct listener {
    uint32_t magic;
    struct proxy *proxy;
    struct event *event, *resume_event;
    struct endpoint endpoint;
    int64_t keepalive_ms;
    int fd;
    bool is_tls, is_unix, owns_file, is_accepting;
    unsigned next_front;
};

/* A connection on its way to its worker. */
struct arrival {
    struct mail mail;
    struct front *front;
    struct tls_context *tls; /* a reference, or NULL */
    uint64_t id;
    int fd;
    bool is_unix;
};

static void on_arrival(struct mail *mail)
{
    struct arrival *arrival = CONTAINER_OF(mail, struct arrival, mail);

    session_open(arrival->front, arrival->fd, arrival->is_unix, arrival->tls, arrival->id);
    tls_context_unref(&arrival->tls);
    mem_free(arrival);
}

static void set_options(const struct listener *listener, int fd)
{
    const int on = 1, idle = (int)(listener->keepalive_ms / 1000);

    if (listener->is_unix) {
        return;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (idle > 0) {
        const int interval = idle / 3 > 0 ? idle / 3 : 1, count = 3;

        (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
        (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
        (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
        (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
    }
}

static void refuse(int fd, bool is_tls)
{
    static const char text[] = "-ERR max number of clients reached\r\n";

    stats_add(METRIC_connections_refused, 1);
    if (!is_tls) { /* nothing can be said before a handshake */
        (void)!write(fd, text, sizeof(text) - 1);
    }
    close(fd);
}

static void hand_out(struct listener *listener, int fd)
{
    struct proxy *proxy = listener->proxy;
    struct front *front = &proxy->fronts[listener->next_front++ % proxy->n_fronts];
    struct arrival *arrival;

    if (overload_refuses_clients(proxy)) {
        stats_add(METRIC_connections_shed, 1);
        refuse(fd, listener->is_tls);
        return;
    }
    if (atomic_fetch_add_explicit(&proxy->n_clients, 1, memory_order_relaxed) >=
        atomic_load_explicit(&proxy->max_clients, memory_order_relaxed)) {
        atomic_fetch_sub_explicit(&proxy->n_clients, 1, memory_order_relaxed);
        refuse(fd, listener->is_tls);
        return;
    }
    if (listener->is_tls && proxy->tls_clients == NULL) { /* its certificates were taken away */
        atomic_fetch_sub_explicit(&proxy->n_clients, 1, memory_order_relaxed);
        refuse(fd, true);
        return;
    }
    set_options(listener, fd);
    stats_add(METRIC_connections_accepted, 1);
    arrival = mem_alloc(sizeof(*arrival));
    arrival->mail.run = on_arrival;
    arrival->front = front;
    arrival->tls = listener->is_tls ? tls_context_ref(proxy->tls_clients) : NULL;
    arrival->fd = fd;
    arrival->is_unix = listener->is_unix;
    arrival->id = atomic_fetch_add_explicit(&proxy->next_session_id, 1, memory_order_relaxed);
    worker_post(&front->worker, &arrival->mail);
}

static void on_resume(evutil_socket_t fd, short what, void *arg)
{
    struct listener *listener = OBJ_FROM(arg, struct listener, LISTENER_MAGIC);

    (void)fd;
    (void)what;
    if (listener->is_accepting) {
        event_add(listener->event, NULL);
    }
}

static void on_acceptable(evutil_socket_t socket, short what, void *arg)
{
    struct listener *listener = OBJ_FROM(arg, struct listener, LISTENER_MAGIC);
    static struct log_limit limit;
    unsigned suppressed;

    (void)what;
    for (unsigned n = 0; n < ACCEPTS_MAX; n++) {
        const int fd = accept4(socket, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd >= 0) {
            hand_out(listener, fd);
            continue;
        }
        if (errno == EINTR || errno == ECONNABORTED) {
            continue;
        }
        if (errno != EAGAIN) {
            const struct timeval pause = {0, PAUSE_MS * 1000};

            stats_add(METRIC_accept_failures, 1);
            if (log_limit_pass(&limit, clock_now_ms(), &suppressed)) {
                log_error("proxy", "cannot accept", "reason=%s suppressed=%u",
                          log_quote(bytes_of_string(strerror(errno))), suppressed);
            }
            event_del(listener->event);
            event_add(listener->resume_event, &pause);
        }
        return;
    }
}

static struct listener *make(struct proxy *proxy, int fd, int64_t keepalive_ms, bool is_tls)
{
    struct listener *made = mem_alloc(sizeof(*made));

    made->magic = LISTENER_MAGIC;
    made->proxy = proxy;
    made->keepalive_ms = keepalive_ms;
    made->is_tls = is_tls;
    made->fd = fd;
    made->event = event_new(proxy->control->base, fd, EV_READ | EV_PERSIST, on_acceptable, made);
    made->resume_event = event_new(proxy->control->base, -1, 0, on_resume, made);
    CHECK(made->event != NULL && made->resume_event != NULL);
    return made;
}

static void tell(const struct listener *listener)
{
    log_info("proxy", "listening", "addr=%s%s", listener->endpoint.text,
             listener->is_tls ? " tls=yes" : "");
}

int listener_open(struct proxy *proxy, const struct config_address *address, unsigned unix_mode,
                  int64_t keepalive_ms, bool is_tls, struct listener **listener)
{
    struct endpoint endpoint;
    int error = address->is_unix ? endpoint_from_path(&endpoint, address->path)
                                 : endpoint_from_ip(&endpoint, address->host, address->port);

    if (error == 0) {
        error = stream_listen(&endpoint, (mode_t)unix_mode);
    }
    if (error < 0) {
        return error;
    }
    *listener = make(proxy, error, keepalive_ms, is_tls);
    (*listener)->endpoint = endpoint;
    (*listener)->is_unix = (*listener)->owns_file = address->is_unix;
    tell(*listener);
    return 0;
}

struct listener *listener_of_socket(struct proxy *proxy, int fd, int64_t keepalive_ms, bool is_tls)
{
    struct listener *made = make(proxy, fd, keepalive_ms, is_tls);
    struct sockaddr_storage address;
    socklen_t length = sizeof(address);

    if (getsockname(fd, (struct sockaddr *)&address, &length) == 0) {
        endpoint_from_sockaddr(&made->endpoint, (struct sockaddr *)&address, length);
        made->is_unix = address.ss_family == AF_UNIX;
    }
    (void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    tell(made);
    return made;
}

void listener_accept(struct listener *listener, bool on)
{
    if (listener->is_accepting == on) {
        return;
    }
    listener->is_accepting = on;
    event_del(listener->resume_event);
    if (on) {
        event_add(listener->event, NULL);
    } else {
        event_del(listener->event);
    }
}

void listener_set_keepalive(struct listener *listener, int64_t keepalive_ms)
{
    listener->keepalive_ms = keepalive_ms;
}

void listener_own_file(struct listener *listener, bool on)
{
    listener->owns_file = on && listener->is_unix;
}

int listener_fd(const struct listener *listener)
{
    return listener->fd;
}

bool listener_is_tls(const struct listener *listener)
{
    return listener->is_tls;
}

const char *listener_text(const struct listener *listener)
{
    return listener->endpoint.text;
}

void listener_close(struct listener **listener)
{
    struct listener *gone = *listener;

    if (gone == NULL) {
        return;
    }
    event_free(gone->event);
    event_free(gone->resume_event);
    close(gone->fd);
    if (gone->owns_file) {
        (void)unlink(((const struct sockaddr_un *)(const void *)&gone->endpoint.address)->sun_path);
    }
    mem_free(gone);
    *listener = NULL;
}
