#include "admin/service.h"

#include <inttypes.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

static void do_nothing(struct front *front, void *context)
{
    (void)front;
    (void)context;
}

static void on_toured(void *context)
{
    struct service *service = context;

    service->is_touring = false;
    (void)sd_notify(0, "WATCHDOG=1");
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
}

void service_ready(struct service *service)
{
    (void)service;
    (void)sd_notifyf(0, "READY=1\nMAINPID=%d", (int)getpid());
}

/* systemd compares with its own CLOCK_MONOTONIC, which stands still while the machine sleeps. */
void service_reloading(struct service *service)
{
    struct timespec now;

    (void)service;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    (void)sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRId64,
                     (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000);
}

void service_stopping(struct service *service)
{
    (void)service;
    (void)sd_notify(0, "STOPPING=1");
}

void service_status(struct service *service, bool is_reachable)
{
    (void)service;
    (void)sd_notify(0, is_reachable ? "STATUS=serving" : "STATUS=the backend cannot be reached");
}
