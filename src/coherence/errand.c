/*
 * An errand is with a link, or it waits to be sent again. It ends in a link's callback, in the tick
 * or in errands_stop(), so never within errand_run().
 */
#include "coherence/errand.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/mem.h"
#include "resp/own.h"

#define ERRAND_MAGIC 0x65727264u /* "errd" */
#define PAUSE_US 20000
/* Redirections followed without a pause. */
#define QUICK_REDIRECTS 3u

struct errand {
    uint32_t magic;
    struct errand *next; /* of those that wait */
    struct errands *errands;
    struct link_op op;
    struct errand_order order; /* its requests are the errand's own */
    struct errand_source source;
    struct buffer replies;
    int64_t began_at_us, again_at_us;
    epochs_node to; /* where a redirection pointed; 0: to the slot's owner */
    unsigned n_redirects, n_expected;
    unsigned n_done; /* requests whose replies stay, as another node has to answer the rest */
    size_t done_at;  /* where the rest begins */
    bool is_asking, has_failed, is_too_large;
    char error[192];
    unsigned char requests[];
};

struct errands {
    struct coherence *home;
    struct errand *waiting;
    uint64_t origin, n_sent; /* together in no other stamp */
    bool is_stopped;
};

static void finish(struct errand *errand)
{
    const struct errand_answer answer = {
        .error = errand->has_failed ? errand->error + (errand->error[0] == '-') : NULL,
        .replies = buffer_bytes(&errand->replies),
        .source = errand->source,
        .stamp = errand->order.stamp_at > 0
                     ? bytes_make(errand->requests + errand->order.stamp_at, ERRAND_STAMP)
                     : (struct bytes){0},
    };

    errand->order.done(errand->order.context, &answer);
    buffer_fini(&errand->replies);
    mem_free(errand);
}

static void fail(struct errand *errand, const char *text, struct bytes detail)
{
    errand->has_failed = true;
    const size_t n = detail.len > 120 ? 120 : detail.len;
    const size_t at = strlen(text);

    memcpy(errand->error, text, at);
    if (n > 0) {
        memcpy(errand->error + at, detail.ptr, n);
    }
    errand->error[at + n] = '\0';
}

/* For the tick to send, which also ends it when its time is over. */
static void wait_for(struct errand *errand, int64_t pause_us)
{
    errand->again_at_us = clock_now_us() + pause_us;
    errand->next = errand->errands->waiting;
    errand->errands->waiting = errand;
}

/* False: its time is over, or there is no later. */
static bool may_wait(const struct errand *errand)
{
    const struct errands *errands = errand->errands;

    return !errands->is_stopped && clock_now_us() - errand->began_at_us <
                                       errands->home->config->request_timeout_ms * 1000 / 2;
}

static void wait_or_fail(struct errand *errand)
{
    if (may_wait(errand)) {
        wait_for(errand, PAUSE_US);
    } else {
        finish(errand);
    }
}

/* ---- redirections ---- */

static void ask_for_map(struct errands *errands)
{
    const struct coherence_fleet *fleet = errands->home->fleet;

    if (fleet->request_refresh != NULL) {
        fleet->request_refresh(fleet->refresh_context);
    }
}

/* Of "-MOVED 3999 127.0.0.1:6381"; 0: not in the map. */
static epochs_node named_node(struct errands *errands, struct bytes line, epochs_node from)
{
    struct backend *backend = errands->home->backend;
    const unsigned char *space = memrchr(line.ptr, ' ', line.len);
    const unsigned char *end = line.ptr + line.len;
    const struct backend_node *node;
    struct bytes host;
    unsigned port;
    int64_t number;

    if (space == NULL) {
        return 0;
    }
    const unsigned char *colon = memrchr(space, ':', (size_t)(end - space));
    if (colon == NULL ||
        !bytes_to_int64(bytes_make(colon + 1, (size_t)(end - colon - 1)), &number) || number < 1 ||
        number > 65535) {
        return 0;
    }
    host = bytes_make(space + 1, (size_t)(colon - space - 1));
    port = (unsigned)number;
    (void)config_address_map(&errands->home->config->mappings, &host, &port);
    node = backend_by_address(backend, host, port, backend_by_id(backend, from));
    return node != NULL ? node->id : 0;
}

static bool is_not_now(struct bytes line)
{
    static const char *const words[] = {"-TRYAGAIN", "-CLUSTERDOWN", "-LOADING", "-READONLY",
                                        "-MASTERDOWN"};

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (bytes_start_with(line, bytes_of_string(words[i]))) {
            return true;
        }
    }
    return false;
}

static void send_errand(struct errand *errand);

static void begin_anew(struct errand *errand)
{
    errand->n_done = 0;
    errand->done_at = 0;
    buffer_consume(&errand->replies, buffer_len(&errand->replies));
}

/*
 * While a slot moves its keys are at two nodes, and each request goes where its key is: what was
 * answered is not asked again, as the node that is asked next may not have that. A transaction
 * begins again; it says TRYAGAIN while its keys are apart.
 */
static void keep_answered(struct errand *errand)
{
    const struct bytes all = errand->order.requests;
    struct bytes replies = buffer_bytes(&errand->replies), rest = all;
    unsigned n = 0;

    if (bytes_start_with(all, BYTES("*1\r\n$5\r\nMULT"))) {
        begin_anew(errand);
        return;
    }
    while (replies.len > 0 && resp_skip(&replies) && resp_skip(&rest)) {
        n++;
    }
    errand->n_done = n;
    errand->done_at = all.len - rest.len;
}

/* All replies are here. */
static void conclude(struct errand *errand, epochs_node from)
{
    const struct bytes line = bytes_of_string(errand->error);
    const bool is_ask = bytes_start_with(line, BYTES("-ASK "));

    if (errand->is_too_large) {
        fail(errand, "the backend's answer is too large", (struct bytes){0});
        finish(errand);
    } else if (!errand->has_failed) {
        finish(errand);
    } else if (is_ask || bytes_start_with(line, BYTES("-MOVED "))) {
        ask_for_map(errand->errands);
        keep_answered(errand);
        errand->to = named_node(errand->errands, line, from);
        errand->is_asking = is_ask && errand->to != 0;
        if (++errand->n_redirects <= QUICK_REDIRECTS && errand->to != 0 && may_wait(errand)) {
            send_errand(errand);
        } else {
            wait_or_fail(errand);
        }
    } else if (errand->order.ends_apart && bytes_start_with(line, BYTES("-TRYAGAIN"))) {
        finish(errand);
    } else if (is_not_now(line)) {
        begin_anew(errand);
        ask_for_map(errand->errands);
        wait_or_fail(errand);
    } else {
        finish(errand);
    }
}

/* ---- with a link ---- */

static void on_reply(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                     bool is_first, bool is_last)
{
    struct errand *errand = CONTAINER_OF(op, struct errand, op);
    const bool is_end = is_last && index + 1 == errand->n_expected;

    if (!is_first || !is_last) {
        errand->is_too_large = true;
    } else if (part.len > 0 && part.ptr[0] == '-') {
        /* What follows the first one follows from it. */
        if (!errand->has_failed) {
            fail(errand, "", bytes_make(part.ptr, part.len > 2 ? part.len - 2 : 0));
        }
    } else if (!errand->has_failed && (index > 0 || !errand->is_asking)) {
        if (part.len > ERRAND_REPLIES_MAX - buffer_len(&errand->replies) ||
            buffer_append(&errand->replies, part) != 0) {
            errand->is_too_large = true;
        }
    }
    if (is_end) {
        errand->source = (struct errand_source){link, link->connect_began_us};
        conclude(errand, errand->to);
    }
}

static void on_lost(struct link_op *op, struct link *link, enum link_loss loss)
{
    struct errand *errand = CONTAINER_OF(op, struct errand, op);

    (void)loss;
    errand->to = 0;
    errand->is_asking = false;
    begin_anew(errand);
    fail(errand, "no connection to the backend ", bytes_of_string(link->name));
    ask_for_map(errand->errands);
    wait_or_fail(errand);
}

static const struct link_op_type errand_type = {on_reply, on_lost};

static void put_stamp(struct errand *errand)
{
    struct errands *errands = errand->errands;
    char digits[ERRAND_STAMP + 1];

    snprintf(digits, sizeof(digits), "%016" PRIx64 "%016" PRIx64, errands->origin,
             ++errands->n_sent);
    memcpy(errand->requests + errand->order.stamp_at, digits, ERRAND_STAMP);
}

static void send_errand(struct errand *errand)
{
    struct backend *backend = errand->errands->home->backend;
    struct backend_node *node = errand->to != 0 ? backend_by_id(backend, errand->to) : NULL;
    const struct bytes all = errand->order.requests;
    struct bytes parts[2] = {BYTES(OWN_ASKING),
                             bytes_make(all.ptr + errand->done_at, all.len - errand->done_at)};
    struct link *link;

    if (node == NULL) {
        errand->is_asking = false;
        node = backend_owner(backend, errand->order.slot);
    }
    if (node == NULL) {
        fail(errand, "the backend was not reached yet", (struct bytes){0});
        wait_for(errand, PAUSE_US);
        return;
    }
    if (errand->order.stamp_at > 0) {
        put_stamp(errand);
    }
    errand->has_failed = errand->is_too_large = false;
    errand->to = node->id;
    errand->n_expected = errand->order.n_replies - errand->n_done + errand->is_asking;
    errand->op.type = &errand_type;
    errand->op.collect = errand->op.collect_many = ERRAND_REPLIES_MAX;
    link = backend_relay_link(backend, node, LINK_RELAY2);
    if (link_send(link, errand->order.db, parts + !errand->is_asking, 1 + errand->is_asking,
                  errand->n_expected, &errand->op) != 0) {
        errand->to = 0;
        fail(errand, "no connection to the backend ", bytes_of_string(link->name));
        wait_for(errand, PAUSE_US);
    }
}

/* ---- the face ---- */

bool errand_run(struct errands *errands, const struct errand_order *order)
{
    struct errand *errand = mem_try_alloc(sizeof(*errand) + order->requests.len);

    if (errand == NULL) {
        return false;
    }
    memset(errand, 0, sizeof(*errand));
    errand->magic = ERRAND_MAGIC;
    errand->errands = errands;
    errand->order = *order;
    errand->began_at_us = clock_now_us();
    memcpy(errand->requests, order->requests.ptr, order->requests.len);
    errand->order.requests = bytes_make(errand->requests, order->requests.len);
    buffer_init(&errand->replies);
    send_errand(errand);
    return true;
}

void errands_tick(struct errands *errands, int64_t now_us)
{
    struct errand *errand = errands->waiting;

    /* What waits again is put on a new list. */
    errands->waiting = NULL;
    while (errand != NULL) {
        struct errand *next = errand->next;

        if (now_us < errand->again_at_us) {
            errand->next = errands->waiting;
            errands->waiting = errand;
        } else if (may_wait(errand)) {
            errand->to = errand->is_asking ? errand->to : 0;
            send_errand(errand);
        } else {
            finish(errand);
        }
        errand = next;
    }
}

void errands_stop(struct errands *errands)
{
    errands->is_stopped = true;
    while (errands->waiting != NULL) {
        struct errand *errand = errands->waiting;

        errands->waiting = errand->next;
        finish(errand);
    }
}

struct errands *errands_new(struct coherence *home)
{
    struct errands *errands = mem_alloc(sizeof(*errands));

    errands->home = home;
    if (getrandom(&errands->origin, sizeof(errands->origin), 0) !=
        (ssize_t)sizeof(errands->origin)) {
        errands->origin = (uint64_t)clock_unix_us() ^ (uint64_t)(uintptr_t)errands;
    }
    return errands;
}

void errands_free(struct errands **errands)
{
    if (*errands != NULL) {
        errands_stop(*errands);
        mem_free(*errands);
        *errands = NULL;
    }
}
