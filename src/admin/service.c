/*
 * sd_notify(3) waits while the queue of systemd's socket is full: a systemd that hangs for a moment
 * would stop the control thread, and with it accepting. So the datagrams are sent here. A sign of
 * life that finds no room is left out, as the next one follows; everything else waits and is sent
 * again.
 */
#include "admin/service.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

#define RETRY_MS 200

/* 0, also where nobody wants to hear; -EAGAIN: no room. */
static int send_now(const char *text)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const size_t length = path != NULL ? strlen(path) : 0;
    int error = 0, fd;

    if (length < 2 || length >= sizeof(address.sun_path) || (path[0] != '/' && path[0] != '@')) {
        return 0;
    }
    memcpy(address.sun_path, path, length);
    if (path[0] == '@') {
        address.sun_path[0] = '\0'; /* an abstract one */
    }
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return errno == EMFILE || errno == ENFILE ? -EAGAIN : 0;
    }
    if (sendto(fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL,
               (const struct sockaddr *)&address,
               (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)) < 0 &&
        (errno == EAGAIN || errno == ENOBUFS)) {
        error = -EAGAIN;
    }
    close(fd);
    return error;
}

static void retry_later(struct service *service)
{
    const struct timeval delay = {0, RETRY_MS * 1000};

    if (service->retry_event != NULL) {
        event_add(service->retry_event, &delay);
    }
}

static void flush(struct service *service)
{
    unsigned n_sent = 0;

    while (n_sent < service->n_words && send_now(service->words[n_sent]) == 0) {
        n_sent++;
    }
    service->n_words -= n_sent;
    memmove(service->words[0], service->words[n_sent], service->n_words * SERVICE_WORD_BYTES);
    if (service->n_words > 0) {
        retry_later(service);
    }
}

static void on_retry(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    flush(arg);
}

/* In order; of more than there is room for the oldest are forgotten. */
static void notify(struct service *service, const char *text)
{
    if (service->n_words == SERVICE_WORDS) {
        service->n_words--;
        memmove(service->words[0], service->words[1], service->n_words * SERVICE_WORD_BYTES);
    }
    snprintf(service->words[service->n_words++], SERVICE_WORD_BYTES, "%s", text);
    flush(service);
}

static void do_nothing(struct front *front, void *context)
{
    (void)front;
    (void)context;
}

static void on_toured(void *context)
{
    struct service *service = context;

    service->is_touring = false;
    (void)send_now("WATCHDOG=1");
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct service *service = arg;

    (void)fd;
    (void)what;
    if (!service->is_touring) {
        service->is_touring = true;
        proxy_on_all_workers(service->proxy, do_nothing, on_toured, service);
    }
}

/* systemd asks for a sign twice within its time; a third of it leaves room for a slow machine. */
void service_init(struct service *service, struct proxy *proxy)
{
    uint64_t limit_us = 0;

    service->proxy = proxy;
    service->retry_event = event_new(proxy->control->base, -1, 0, on_retry, service);
    CHECK(service->retry_event != NULL);
    flush(service);
    if (sd_watchdog_enabled(0, &limit_us) > 0 && limit_us > 0) {
        const uint64_t tick_us = limit_us / 3 > 0 ? limit_us / 3 : 1;
        const struct timeval tick = {(time_t)(tick_us / 1000000), (suseconds_t)(tick_us % 1000000)};

        service->event = event_new(proxy->control->base, -1, EV_PERSIST, on_timer, service);
        CHECK(service->event != NULL);
        event_add(service->event, &tick);
    }
}

void service_fini(struct service *service)
{
    if (service->event != NULL) {
        event_free(service->event);
        service->event = NULL;
    }
    if (service->retry_event != NULL) {
        event_free(service->retry_event);
        service->retry_event = NULL;
    }
}

void service_ready(struct service *service)
{
    char text[SERVICE_WORD_BYTES];

    snprintf(text, sizeof(text), "READY=1\nMAINPID=%d", (int)getpid());
    notify(service, text);
}

/* systemd compares with its own CLOCK_MONOTONIC, which stands still while the machine sleeps. */
void service_reloading(struct service *service)
{
    char text[SERVICE_WORD_BYTES];
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%" PRId64,
             (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000);
    notify(service, text);
}

void service_stopping(struct service *service)
{
    notify(service, "STOPPING=1");
}

void service_status(struct service *service, bool is_reachable)
{
    notify(service, is_reachable ? "STATUS=serving" : "STATUS=the backend cannot be reached");
}
