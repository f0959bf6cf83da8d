#include "proxy/broadcast.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "proxy/key_run.h"
#include "resp/own.h"
#include "upstream/lease.h"

#define BROADCAST_MAGIC 0x62636173u
/* How often a connection that says nothing is asked whether it lives. */
#define PING_US 1000000

/* The connection to one master. */
struct source {
    struct source *next;
    struct broadcast *broadcast;
    struct lease *lease;
    epochs_node node;
    struct link_op op; /* CLIENT TRACKING, then PING now and then */
    bool is_asked;     /* op is under way */
    bool is_up, is_broken;
    int64_t asked_at_us;
};

struct broadcast {
    uint32_t magic;
    struct broadcast *next; /* of the front's */
    struct front *front;
    const struct identity *identity;
    const struct broadcast_events *events;
    struct buffer prefixes;
    struct source *sources;
    unsigned n_users;
    bool is_ready, is_over;
};

static void on_reply(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                     bool is_first, bool is_last);
static void on_lost(struct link_op *op, struct link *link, enum link_loss loss);

static const struct link_op_type source_type = {on_reply, on_lost};

/* ---- what is told ---- */

static void free_broadcast(struct broadcast *broadcast)
{
    struct broadcast **at = &broadcast->front->broadcasts;

    while (*at != broadcast) {
        at = &(*at)->next;
    }
    *at = broadcast->next;
    broadcast->is_over = true;
    while (broadcast->sources != NULL) {
        struct source *const source = broadcast->sources;

        broadcast->sources = source->next;
        if (source->lease != NULL) {
            lease_drop(&source->lease);
        }
        mem_free(source);
    }
    buffer_fini(&broadcast->prefixes);
    broadcast->magic = 0;
    mem_free(broadcast);
}

void broadcast_leave(struct broadcast **left)
{
    struct broadcast *broadcast = *left;

    *left = NULL;
    if (broadcast != NULL && --broadcast->n_users == 0) {
        free_broadcast(broadcast);
    }
}

/* Listeners may leave while they are told. */
static void tell_changed(struct broadcast *broadcast, struct bytes keys)
{
    if (broadcast->is_over || !broadcast->is_ready) {
        return;
    }
    broadcast->n_users++;
    broadcast->events->on_changed(broadcast->front, broadcast, keys);
    broadcast_leave(&broadcast);
}

static void tell_ready(struct broadcast *broadcast, struct bytes error)
{
    broadcast->n_users++;
    broadcast->is_ready = error.len == 0;
    broadcast->events->on_ready(broadcast->front, broadcast, error);
    broadcast_leave(&broadcast);
}

static bool are_all_up(const struct broadcast *broadcast)
{
    const struct source *source = broadcast->sources;

    while (source != NULL && source->is_up) {
        source = source->next;
    }
    return broadcast->sources != NULL && source == NULL;
}

static void note_up(struct source *source)
{
    struct broadcast *broadcast = source->broadcast;

    source->is_up = true;
    if (broadcast->is_ready) {
        /* What was read since the former connection broke was heard of by nobody. */
        tell_changed(broadcast, BYTES(""));
    } else if (are_all_up(broadcast)) {
        tell_ready(broadcast, BYTES(""));
    }
}

static void note_broken(struct source *source, struct bytes error)
{
    struct broadcast *broadcast = source->broadcast;

    if (source->is_broken || broadcast->is_over) {
        return;
    }
    source->is_broken = true;
    source->is_up = false;
    if (broadcast->is_ready) {
        tell_changed(broadcast, BYTES(""));
    } else {
        tell_ready(broadcast, error);
    }
}

/* ---- the connections ---- */

static void on_reply(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                     bool is_first, bool is_last)
{
    struct source *source = CONTAINER_OF(op, struct source, op);

    (void)link;
    (void)index;
    (void)is_first;
    if (!is_last) {
        return;
    }
    source->is_asked = false;
    if (part.ptr[0] != '+') {
        note_broken(source, part);
    } else if (!source->is_up) {
        note_up(source);
    }
}

static void on_lost(struct link_op *op, struct link *link, enum link_loss loss)
{
    struct source *source = CONTAINER_OF(op, struct source, op);

    (void)link;
    (void)loss;
    source->is_asked = false;
    note_broken(source, BYTES("-ERR nearcached: no connection to the backend for CLIENT TRACKING "
                              "ON BCAST\r\n"));
}

static void take_keys(struct source *source, struct bytes keys)
{
    struct cache *cache = source->broadcast->front->proxy->cache;
    struct buffer run;
    struct bytes rest, key;

    buffer_init(&run);
    if (key_run_add_array(&run, keys) != 0) {
        tell_changed(source->broadcast, BYTES(""));
    } else {
        /* The tracking links may hear of it later than we do: no reader may be shown the former
         * value behind the message. */
        rest = buffer_bytes(&run);
        while (key_run_next(&rest, &key)) {
            (void)cache_invalidate(cache, key);
        }
        if (buffer_len(&run) > 0) {
            tell_changed(source->broadcast, buffer_bytes(&run));
        }
    }
    buffer_fini(&run);
}

/* `>2 invalidate [key ...]`, or null in their place; empty: the connection broke. */
static void on_unasked(struct lease *lease, struct bytes frame)
{
    struct source *source = lease->user;
    struct resp_value head, kind, keys;
    struct bytes array;

    if (frame.len == 0) {
        note_broken(source, BYTES("-ERR nearcached: the connection to the backend was lost\r\n"));
        return;
    }
    if (!resp_next(&frame, &head) || head.type != '>' || head.n_children != 2 ||
        !resp_next(&frame, &kind) || !bytes_equal(kind.text, BYTES("invalidate"))) {
        return;
    }
    array = frame;
    if (!resp_next(&frame, &keys)) {
        return;
    }
    if (keys.is_null) {
        tell_changed(source->broadcast, BYTES(""));
    } else {
        take_keys(source, array);
    }
}

static int write_request(const struct broadcast *broadcast, struct buffer *frame)
{
    struct bytes rest = buffer_bytes(&broadcast->prefixes), prefix;
    struct bytes *argv;
    unsigned argc = 0, n = 4;
    int error;

    while (key_run_next(&rest, &prefix)) {
        n += 2;
    }
    argv = mem_alloc(n * sizeof(*argv));
    argv[argc++] = BYTES("CLIENt"); /* own.h */
    argv[argc++] = BYTES("TRACKING");
    argv[argc++] = BYTES("ON");
    argv[argc++] = BYTES("BCAST");
    rest = buffer_bytes(&broadcast->prefixes);
    while (key_run_next(&rest, &prefix)) {
        argv[argc++] = BYTES("PREFIX");
        argv[argc++] = prefix;
    }
    error = resp_write_request(frame, argv, argc);
    mem_free(argv);
    return error;
}

static bool ask(struct source *source, struct bytes frame)
{
    source->op.type = &source_type;
    source->op.collect = LINK_COLLECT_MIN;
    source->asked_at_us = clock_now_us();
    source->is_asked = link_send(&source->lease->link, 0, &frame, 1, 1, &source->op) == 0;
    return source->is_asked;
}

/* False: no connection is to be had. */
static bool connect_source(struct source *source, struct backend_node *node)
{
    struct broadcast *broadcast = source->broadcast;
    struct backend *backend = &broadcast->front->backend;
    struct buffer frame;
    bool is_sent = false;

    source->is_up = source->is_broken = false;
    source->lease = lease_take(backend, backend_as(backend, node, broadcast->identity), 3,
                               backend->config->request_timeout_ms);
    if (source->lease == NULL) {
        return false;
    }
    source->lease->user = source;
    source->lease->on_unasked = on_unasked;
    buffer_init(&frame);
    if (write_request(broadcast, &frame) == 0) {
        is_sent = ask(source, buffer_bytes(&frame));
    }
    buffer_fini(&frame);
    return is_sent;
}

static struct source *find_source(const struct broadcast *broadcast, epochs_node node)
{
    struct source *source = broadcast->sources;

    while (source != NULL && source->node != node) {
        source = source->next;
    }
    return source;
}

/* False: a master cannot be asked. */
static bool connect_masters(struct broadcast *broadcast)
{
    struct backend *backend = &broadcast->front->backend;
    bool are_asked = true;

    for (struct backend_node *node = backend_next_master(backend, 0); node != NULL;
         node = backend_next_master(backend, node->id)) {
        struct source *source = find_source(broadcast, node->id);

        if (source == NULL) {
            source = mem_alloc(sizeof(*source));
            source->broadcast = broadcast;
            source->node = node->id;
            source->next = broadcast->sources;
            broadcast->sources = source;
        }
        if (source->lease == NULL && !connect_source(source, node)) {
            source->is_broken = true;
            are_asked = false;
        }
    }
    return are_asked;
}

/* ---- joining ---- */

struct broadcast *broadcast_join(struct front *front, const struct identity *identity,
                                 struct bytes prefixes, const struct broadcast_events *events)
{
    struct broadcast *broadcast = front->broadcasts;

    while (broadcast != NULL && !(broadcast->identity == identity &&
                                  bytes_equal(buffer_bytes(&broadcast->prefixes), prefixes))) {
        broadcast = broadcast->next;
    }
    if (broadcast != NULL) {
        broadcast->n_users++;
        return broadcast;
    }
    broadcast = mem_alloc(sizeof(*broadcast));
    broadcast->magic = BROADCAST_MAGIC;
    broadcast->front = front;
    broadcast->identity = identity;
    broadcast->events = events;
    broadcast->n_users = 1;
    buffer_init(&broadcast->prefixes);
    broadcast->next = front->broadcasts;
    front->broadcasts = broadcast;
    if (buffer_append(&broadcast->prefixes, prefixes) != 0 || !connect_masters(broadcast) ||
        broadcast->sources == NULL) {
        broadcast_leave(&broadcast);
    }
    return broadcast;
}

bool broadcast_is_ready(const struct broadcast *broadcast)
{
    return broadcast->is_ready;
}

/* ---- time ---- */

static bool is_master(const struct backend *backend, epochs_node id)
{
    const struct backend_node *node = backend_by_id(backend, id);

    return node != NULL && node->is_in_map && node->info != NULL && node->info->is_master;
}

/* Connections that broke go, and so do those to nodes that are masters no more. */
static bool drop_broken(struct broadcast *broadcast)
{
    const struct backend *backend = &broadcast->front->backend;
    struct source **at = &broadcast->sources;
    bool is_any_lost = false;

    while (*at != NULL) {
        struct source *const source = *at;

        if (is_master(backend, source->node) && !source->is_broken) {
            at = &source->next;
            continue;
        }
        is_any_lost = is_any_lost || source->is_up;
        source->is_broken = true; /* its loss is no news any more */
        if (source->lease != NULL) {
            lease_drop(&source->lease);
        }
        *at = source->next;
        mem_free(source);
    }
    return is_any_lost;
}

void broadcast_tick(struct front *front)
{
    const int64_t now_us = clock_now_us();
    struct broadcast *broadcast = front->broadcasts;

    while (broadcast != NULL) {
        struct broadcast *next;
        const bool is_any_lost = drop_broken(broadcast);

        broadcast->n_users++;
        (void)connect_masters(broadcast);
        for (struct source *source = broadcast->sources; source != NULL; source = source->next) {
            if (source->is_up && !source->is_asked && now_us - source->asked_at_us > PING_US) {
                (void)ask(source, BYTES(OWN_PING));
            }
        }
        if (is_any_lost) {
            tell_changed(broadcast, BYTES(""));
        }
        if (!broadcast->is_ready && are_all_up(broadcast)) {
            tell_ready(broadcast, BYTES("")); /* the last one to wait for has left the map */
        }
        next = broadcast->next;
        broadcast_leave(&broadcast);
        broadcast = next;
    }
}
