/*
 * A timer of no time runs once in each turn, behind what has come in on links and sockets; orders
 * take turns, one slice of one of them each time, however many there are.
 */
#include "coherence/key_orders.h"

#include <event2/event.h>

#include "base/mem.h"
#include "coherence/unlink.h"

struct running {
    struct running *next;
    struct key_order order;
    struct bytes left; /* of its names */
    struct key_pile pile;
    struct invalidation_answer answer;
    unsigned char names[];
};

struct key_orders {
    struct coherence *home;
    struct event *timer;
    struct running *first, *last;
};

static void schedule(struct key_orders *orders)
{
    const struct timeval now = {0, 0};

    if (orders->first != NULL) {
        event_add(orders->timer, &now);
    }
}

static void put(struct key_orders *orders, struct running *running)
{
    running->next = NULL;
    *(orders->last != NULL ? &orders->last->next : &orders->first) = running;
    orders->last = running;
}

static struct running *take(struct key_orders *orders)
{
    struct running *running = orders->first;

    orders->first = running->next;
    if (orders->first == NULL) {
        orders->last = NULL;
    }
    return running;
}

static struct coherence_fleet *fleet_of(const struct key_orders *orders)
{
    return orders->home->fleet;
}

static void end(struct key_orders *orders, struct running *running)
{
    struct coherence_fleet *fleet = fleet_of(orders);

    if (running->order.is_all) {
        atomic_fetch_sub_explicit(&fleet->n_gathering, 1, memory_order_relaxed);
    }
    unlink_jobs_discard(fleet->jobs, &running->pile);
    stats_add(running->answer.error == NULL ? METRIC_orders_keys : METRIC_orders_refused, 1);
    running->order.done(running->order.context, &running->answer);
    mem_free(running);
}

static void start_job(struct key_orders *orders, struct running *running)
{
    const struct invalidation what = {
        .kind = INVALIDATE_KEYS, .pile = &running->pile, .is_all = true, .db = running->order.db};

    if (fleet_of(orders)->jobs != NULL) {
        running->answer.job = unlink_jobs_start(fleet_of(orders)->jobs, &what, -1);
    }
    if (running->answer.job == 0) {
        running->answer.error = INVALIDATION_NO_MORE_JOBS;
    }
}

/* False: that was the last one. */
static bool run_slice(struct key_orders *orders, struct running *running)
{
    struct bytes keys[KEY_ORDERS_SLICE];
    struct resp_value value;
    unsigned n = 0;

    while (n < KEY_ORDERS_SLICE && resp_next(&running->left, &value)) {
        keys[n++] = value.text;
        if (running->order.is_all && running->answer.error == NULL &&
            !key_pile_add(&running->pile, value.text)) {
            running->answer.error = "out of memory";
        }
    }
    if (n > 0) {
        running->answer.n_entries += invalidation_drop_keys(fleet_of(orders), orders->home, keys, n,
                                                            METRIC_invalidations_admin);
    }
    return n == KEY_ORDERS_SLICE;
}

static void on_turn(evutil_socket_t fd, short what, void *context)
{
    struct key_orders *orders = context;
    struct running *running = take(orders);

    (void)fd;
    (void)what;
    if (run_slice(orders, running)) {
        put(orders, running);
    } else {
        if (running->order.is_all && running->answer.error == NULL) {
            start_job(orders, running);
        }
        running->answer.is_counted = true;
        running->answer.n_proxies = invalidation_count_proxies(fleet_of(orders));
        end(orders, running);
    }
    schedule(orders);
}

/* Names that wait for a job take memory: of no more orders at a time than there may be jobs. */
static bool may_gather(const struct key_orders *orders)
{
    struct coherence_fleet *fleet = fleet_of(orders);

    if (atomic_fetch_add_explicit(&fleet->n_gathering, 1, memory_order_relaxed) <
        (unsigned)orders->home->config->unlink_jobs) {
        return true;
    }
    atomic_fetch_sub_explicit(&fleet->n_gathering, 1, memory_order_relaxed);
    return false;
}

const char *key_orders_begin(struct key_orders *orders, const struct key_order *order)
{
    struct running *running = mem_try_alloc(sizeof(*running) + order->keys.len);

    if (running == NULL) {
        stats_add(METRIC_orders_refused, 1);
        return "out of memory";
    }
    if (order->is_all && !may_gather(orders)) {
        mem_free(running);
        stats_add(METRIC_orders_refused, 1);
        return INVALIDATION_NO_MORE_JOBS;
    }
    memset(running, 0, sizeof(*running));
    running->order = *order;
    memcpy(running->names, order->keys.ptr, order->keys.len);
    running->left = running->order.keys = bytes_make(running->names, order->keys.len);
    put(orders, running);
    schedule(orders);
    return NULL;
}

struct key_orders *key_orders_new(struct coherence *home)
{
    struct key_orders *orders = mem_alloc(sizeof(*orders));

    orders->home = home;
    orders->timer = event_new(home->worker->base, -1, 0, on_turn, orders);
    CHECK(orders->timer != NULL);
    event_priority_set(orders->timer, PRIORITY_CLIENT);
    return orders;
}

void key_orders_free(struct key_orders **orders)
{
    struct key_orders *gone = *orders;

    *orders = NULL;
    if (gone == NULL) {
        return;
    }
    event_free(gone->timer);
    while (gone->first != NULL) {
        struct running *running = take(gone);

        running->answer.error = "the proxy stops";
        end(gone, running);
    }
    mem_free(gone);
}
