/*
 * distance - a TCP relay that makes a server look further away
 *
 *   distance MICROSECONDS PORT:PORT...
 *
 * Listens on the first port of each pair, connects to the second (both on 127.0.0.1), and holds
 * back every byte for that long in either direction, in order. Prints "ready" when it listens, and
 * ends with its standard input.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* What was read at one moment, on its way. */
struct parcel {
    struct parcel *next;
    int64_t due_us;
    struct evbuffer *bytes;
};

/* One direction of a pair. */
struct way {
    struct pair *pair;
    struct bufferevent *from, *to;
    struct parcel *first, **end;
    struct event *timer;
};

struct pair {
    struct way ways[2];
};

struct door {
    struct event_base *base;
    uint16_t target;
};

static int64_t delay_us;

static int64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void pair_free(struct pair *pair)
{
    for (int i = 0; i < 2; i++) {
        struct way *way = &pair->ways[i];

        while (way->first != NULL) {
            struct parcel *parcel = way->first;

            way->first = parcel->next;
            evbuffer_free(parcel->bytes);
            free(parcel);
        }
        event_free(way->timer);
        bufferevent_free(way->from);
    }
    free(pair);
}

static void arm(struct way *way)
{
    int64_t wait_us = way->first->due_us - now_us();
    struct timeval timeout = {0, 0};

    if (wait_us > 0) {
        timeout.tv_sec = wait_us / 1000000;
        timeout.tv_usec = wait_us % 1000000;
    }
    evtimer_add(way->timer, &timeout);
}

static void on_due(evutil_socket_t fd, short what, void *arg)
{
    struct way *way = arg;

    (void)fd;
    (void)what;
    while (way->first != NULL && way->first->due_us <= now_us()) {
        struct parcel *parcel = way->first;

        way->first = parcel->next;
        bufferevent_write_buffer(way->to, parcel->bytes);
        evbuffer_free(parcel->bytes);
        free(parcel);
    }
    if (way->first == NULL) {
        way->end = &way->first;
    } else {
        arm(way);
    }
}

static void on_read(struct bufferevent *from, void *arg)
{
    struct way *way = arg;
    struct parcel *parcel = malloc(sizeof(*parcel));

    if (parcel == NULL) {
        abort();
    }
    parcel->next = NULL;
    parcel->due_us = now_us() + delay_us;
    parcel->bytes = evbuffer_new();
    bufferevent_read_buffer(from, parcel->bytes);
    *way->end = parcel;
    way->end = &parcel->next;
    if (way->first == parcel) {
        arm(way);
    }
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    struct way *way = arg;

    (void)bev;
    if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) {
        pair_free(way->pair);
    }
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address,
                      int length, void *arg)
{
    struct door *door = arg;
    struct sockaddr_in target = {.sin_family = AF_INET, .sin_port = htons(door->target)};
    struct pair *pair = calloc(1, sizeof(*pair));
    struct bufferevent *near, *far;
    int one = 1;

    (void)listener;
    (void)address;
    (void)length;
    if (pair == NULL) {
        abort();
    }
    target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    near = bufferevent_socket_new(door->base, fd, BEV_OPT_CLOSE_ON_FREE);
    far = bufferevent_socket_new(door->base, -1, BEV_OPT_CLOSE_ON_FREE);
    pair->ways[0] = (struct way){.pair = pair, .from = near, .to = far};
    pair->ways[1] = (struct way){.pair = pair, .from = far, .to = near};
    for (int i = 0; i < 2; i++) {
        struct way *way = &pair->ways[i];

        way->end = &way->first;
        way->timer = evtimer_new(door->base, on_due, way);
        bufferevent_setcb(way->from, on_read, NULL, on_event, way);
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (bufferevent_socket_connect(far, (struct sockaddr *)&target, sizeof(target)) < 0) {
        pair_free(pair);
        return;
    }
    setsockopt(bufferevent_getfd(far), IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    bufferevent_enable(near, EV_READ | EV_WRITE);
    bufferevent_enable(far, EV_READ | EV_WRITE);
}

static void on_parent_gone(evutil_socket_t fd, short what, void *arg)
{
    char byte;

    (void)what;
    if (read(fd, &byte, 1) == 0) {
        event_base_loopbreak(arg);
    }
}

static void listen_on(struct event_base *base, const char *ports)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    struct door *door = malloc(sizeof(*door));
    unsigned from, to;

    if (door == NULL || sscanf(ports, "%u:%u", &from, &to) != 2) {
        fprintf(stderr, "distance: %s is not PORT:PORT\n", ports);
        exit(1);
    }
    door->base = base;
    door->target = (uint16_t)to;
    address.sin_port = htons((uint16_t)from);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (evconnlistener_new_bind(base, on_accept, door, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE,
                                512, (struct sockaddr *)&address, sizeof(address)) == NULL) {
        fprintf(stderr, "distance: port %u: %s\n", from, strerror(errno));
        exit(1);
    }
}

int main(int argc, char **argv)
{
    struct event_config *config = event_config_new();
    struct event_base *base;

    if (argc < 3) {
        fputs("usage: distance MICROSECONDS PORT:PORT...\n", stderr);
        return 1;
    }
    delay_us = atol(argv[1]);
    /* timerfd, as the time-out of epoll_wait() counts in milliseconds. */
    event_config_set_flag(config, EVENT_BASE_FLAG_PRECISE_TIMER);
    event_config_avoid_method(config, "select");
    base = event_base_new_with_config(config);
    event_config_free(config);
    for (int i = 2; i < argc; i++) {
        listen_on(base, argv[i]);
    }
    event_add(event_new(base, STDIN_FILENO, EV_READ | EV_PERSIST, on_parent_gone, base), NULL);
    puts("ready");
    fflush(stdout);
    event_base_dispatch(base);
    return 0;
}
