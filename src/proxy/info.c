#include "proxy/info.h"

#include "proxy/as_cluster.h"
#include "proxy/fanout.h"
#include "proxy/relay.h"
#include "proxy/tracking.h"

#include <stdio.h>

#define KEYSPACES_MAX 64

/* dbN:keys=K,expires=E,avg_ttl=T, summed over masters. */
struct keyspace {
    unsigned db;
    unsigned long long n_keys, n_expires, ttl_sum;
};

struct keyspaces {
    struct keyspace of[KEYSPACES_MAX];
    unsigned n;
};

static struct bytes next_line(struct bytes *text)
{
    const unsigned char *end = text->len > 0 ? memchr(text->ptr, '\n', text->len) : NULL;
    const size_t length = end != NULL ? (size_t)(end - text->ptr) : text->len;
    struct bytes line = bytes_make(text->ptr, length);

    text->ptr += length + (end != NULL);
    text->len -= length + (end != NULL);
    if (line.len > 0 && line.ptr[line.len - 1] == '\r') {
        line.len--;
    }
    return line;
}

static bool parse_keyspace(struct bytes line, struct keyspace *keyspace)
{
    char text[160];
    unsigned long long ttl;

    if (line.len >= sizeof(text) || !bytes_start_with(line, BYTES("db"))) {
        return false;
    }
    memcpy(text, line.ptr, line.len);
    text[line.len] = '\0';
    if (sscanf(text, "db%u:keys=%llu,expires=%llu,avg_ttl=%llu", &keyspace->db, &keyspace->n_keys,
               &keyspace->n_expires, &ttl) != 4) {
        return false;
    }
    keyspace->ttl_sum = ttl * keyspace->n_expires;
    return true;
}

static void add_keyspace(struct keyspaces *all, const struct keyspace *one)
{
    unsigned i = 0;

    while (i < all->n && all->of[i].db != one->db) {
        i++;
    }
    if (i == KEYSPACES_MAX) {
        return;
    }
    if (i == all->n) {
        all->of[all->n++] = *one;
        return;
    }
    all->of[i].n_keys += one->n_keys;
    all->of[i].n_expires += one->n_expires;
    all->of[i].ttl_sum += one->ttl_sum;
}

static void sum_keyspaces(const struct group *group, struct keyspaces *all)
{
    for (unsigned i = 0; i < group->n_parts; i++) {
        struct bytes text = group_text(group, i);
        struct keyspace one;

        while (text.len > 0) {
            if (parse_keyspace(next_line(&text), &one)) {
                add_keyspace(all, &one);
            }
        }
    }
}

static void put_keyspaces(struct resp_writer *out, const struct keyspaces *all)
{
    for (unsigned i = 0; i < all->n; i++) {
        const struct keyspace *one = &all->of[i];
        char line[160];

        snprintf(line, sizeof(line), "db%u:keys=%llu,expires=%llu,avg_ttl=%llu\r\n", one->db,
                 one->n_keys, one->n_expires,
                 one->n_expires > 0 ? one->ttl_sum / one->n_expires : 0);
        resp_put_raw(out, bytes_of_string(line));
    }
}

/* What the proxy knows better than the node that was asked. False: keep the line. */
static bool put_own(struct resp_writer *out, const struct proxy *proxy, const struct front *front,
                    struct bytes line)
{
    const struct config *config = front->config;
    char text[128] = "";

    if (bytes_start_with(line, BYTES("redis_mode:"))) {
        snprintf(text, sizeof(text), "redis_mode:%s\r\n",
                 as_cluster(front) ? "cluster" : "standalone");
    } else if (bytes_start_with(line, BYTES("role:"))) {
        snprintf(text, sizeof(text), "role:master\r\n");
    } else if (bytes_start_with(line, BYTES("cluster_enabled:"))) {
        snprintf(text, sizeof(text), "cluster_enabled:%d\r\n", as_cluster(front));
    } else if (bytes_start_with(line, BYTES("connected_clients:"))) {
        snprintf(text, sizeof(text), "connected_clients:%u\r\n",
                 atomic_load_explicit(&proxy->n_clients, memory_order_relaxed));
    } else if (bytes_start_with(line, BYTES("tracking_clients:"))) {
        snprintf(text, sizeof(text), "tracking_clients:%u\r\n", tracking_count_clients());
    } else if (bytes_start_with(line, BYTES("blocked_clients:"))) {
        snprintf(text, sizeof(text), "blocked_clients:%u\r\n",
                 atomic_load_explicit(&proxy->n_blocked, memory_order_relaxed));
    } else if (bytes_start_with(line, BYTES("maxclients:"))) {
        snprintf(text, sizeof(text), "maxclients:%u\r\n",
                 atomic_load_explicit(&proxy->max_clients, memory_order_relaxed));
    } else if (bytes_start_with(line, BYTES("tcp_port:"))) {
        unsigned port = 0;

        for (unsigned i = 0; i < config->n_listeners && port == 0; i++) {
            port = config->listeners[i].port;
        }
        snprintf(text, sizeof(text), "tcp_port:%u\r\n", port);
    } else {
        return false;
    }
    resp_put_raw(out, bytes_of_string(text));
    return true;
}

static void put_text(const struct group *group, struct resp_writer *out)
{
    const struct front *front = group->owner->front;
    struct bytes text = group_text(group, 0);
    struct keyspaces all = {.n = 0};

    sum_keyspaces(group, &all);
    while (text.len > 0) {
        const struct bytes line = next_line(&text);
        struct keyspace ignored;

        if (parse_keyspace(line, &ignored) || put_own(out, front->proxy, front, line)) {
            continue;
        }
        resp_put_raw(out, line);
        resp_put_raw(out, BYTES("\r\n"));
        if (bytes_equal(line, BYTES("# Keyspace"))) {
            put_keyspaces(out, &all);
        }
    }
    if (group->number != 0) {
        if (buffer_len(out->out) > 0) {
            resp_put_raw(out, BYTES("\r\n"));
        }
        front->proxy->info_section(front->proxy, out);
    }
}

static void merge_info(struct group *group, struct resp_writer *reply)
{
    struct buffer text;
    struct resp_writer writer;

    if (group_put_error(group, reply)) {
        return;
    }
    buffer_init(&text);
    writer = (struct resp_writer){.out = &text, .is_resp3 = reply->is_resp3};
    put_text(group, &writer);
    resp_put_text(reply, buffer_bytes(&text));
    reply->has_failed = reply->has_failed || writer.has_failed;
    buffer_fini(&text);
}

static bool names_own_section(const struct dispatch_call *call)
{
    if (call->argc == 1) {
        return true;
    }
    for (unsigned i = 1; i < call->argc; i++) {
        if (bytes_equal_nocase(call->argv[i], BYTES("nearcached")) ||
            bytes_equal_nocase(call->argv[i], BYTES("default")) ||
            bytes_equal_nocase(call->argv[i], BYTES("all")) ||
            bytes_equal_nocase(call->argv[i], BYTES("everything"))) {
            return true;
        }
    }
    return false;
}

/* INFO nearcached needs no backend. */
static enum verdict answer_alone(struct session *session)
{
    struct resp_writer reply = session_begin_reply(session);
    struct buffer text;
    struct resp_writer writer;

    buffer_init(&text);
    writer = (struct resp_writer){.out = &text, .is_resp3 = false};
    session->front->proxy->info_section(session->front->proxy, &writer);
    resp_put_text(&reply, buffer_bytes(&text));
    reply.has_failed = reply.has_failed || writer.has_failed;
    session_end_reply(session, &reply);
    buffer_fini(&text);
    return VERDICT_TAKEN;
}

enum verdict info_dispatch(struct session *session, const struct dispatch_call *call)
{
    struct group *group;

    if (call->argc == 2 && bytes_equal_nocase(call->argv[1], BYTES("nearcached"))) {
        return answer_alone(session);
    }
    group = fanout_to_masters(session, call, call->frame, merge_info);
    group->number = names_own_section(call);
    group_seal(group);
    return VERDICT_TAKEN;
}
