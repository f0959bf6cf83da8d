#include "proxy/as_cluster.h"

#include "base/stats.h"
#include "proxy/fanout.h"
#include "proxy/relay.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>

#define SLOTS 16384
#define BUS_PORT_OFFSET 10000u

/* ---- the node's address ---- */

struct announced {
    char host[256]; /* empty: the client knows it, it is connected (a Unix socket) */
    unsigned port;
};

static unsigned first_port(const struct config *config)
{
    for (unsigned i = 0; i < config->n_listeners; i++) {
        if (!config->listeners[i].is_unix) {
            return config->listeners[i].port;
        }
    }
    return 0;
}

static struct announced address_of(const struct session *session)
{
    static const char mapped[] = "::ffff:"; /* an IPv4 client of an IPv6 listener */
    const struct config *config = session->front->config;
    const struct endpoint *local = &session->local;
    struct announced address = {.port = first_port(config)};
    char port[8];

    if (config->announce.port != 0) {
        snprintf(address.host, sizeof(address.host), "%s", config->announce.host);
        address.port = config->announce.port;
    } else if (!session->is_unix && local->length > 0 &&
               getnameinfo((const struct sockaddr *)&local->address, local->length, address.host,
                           sizeof(address.host), port, sizeof(port),
                           NI_NUMERICHOST | NI_NUMERICSERV) == 0) {
        address.port = (unsigned)strtoul(port, NULL, 10);
        if (strncmp(address.host, mapped, strlen(mapped)) == 0 &&
            strchr(address.host, '.') != NULL) {
            memmove(address.host, address.host + strlen(mapped),
                    strlen(address.host + strlen(mapped)) + 1);
        }
    }
    return address;
}

/* Names are announced as Redis announces cluster-announce-hostname where clients shall use it. */
static bool is_name(const char *host)
{
    unsigned char ignored[sizeof(struct in6_addr)];

    return host[0] != '\0' && inet_pton(AF_INET, host, ignored) != 1 &&
           inet_pton(AF_INET6, host, ignored) != 1;
}

/* ---- descriptions of the cluster ---- */

static void put_slots(struct session *session, struct resp_writer *out)
{
    const struct announced address = address_of(session);

    resp_put_array(out, 1);
    resp_put_array(out, 3);
    resp_put_integer(out, 0);
    resp_put_integer(out, SLOTS - 1);
    resp_put_array(out, 4);
    resp_put_string(out, address.host);
    resp_put_integer(out, address.port);
    resp_put_string(out, session->front->proxy->run_id);
    resp_put_map(out, 0);
}

static void put_pair(struct resp_writer *out, const char *name, const char *value)
{
    resp_put_string(out, name);
    resp_put_string(out, value);
}

static void put_shards(struct session *session, struct resp_writer *out)
{
    const struct announced address = address_of(session);
    const bool has_name = is_name(address.host);

    resp_put_array(out, 1);
    resp_put_map(out, 2);
    resp_put_string(out, "slots");
    resp_put_array(out, 2);
    resp_put_integer(out, 0);
    resp_put_integer(out, SLOTS - 1);
    resp_put_string(out, "nodes");
    resp_put_array(out, 1);
    resp_put_map(out, has_name ? 8 : 7);
    put_pair(out, "id", session->front->proxy->run_id);
    resp_put_string(out, "port");
    resp_put_integer(out, address.port);
    put_pair(out, "ip", address.host);
    put_pair(out, "endpoint", address.host);
    if (has_name) {
        put_pair(out, "hostname", address.host);
    }
    put_pair(out, "role", "master");
    resp_put_string(out, "replication-offset");
    resp_put_integer(out, 0);
    put_pair(out, "health", "online");
}

static void put_nodes(struct session *session, struct resp_writer *out)
{
    const struct announced address = address_of(session);
    const char *name = is_name(address.host) ? address.host : "";
    char line[700];

    snprintf(line, sizeof(line), "%s %s:%u@%u%s%s myself,master - 0 0 0 connected 0-%d\n",
             session->front->proxy->run_id, address.host, address.port,
             address.port == 0 ? 0 : address.port + BUS_PORT_OFFSET, name[0] != '\0' ? "," : "",
             name, SLOTS - 1);
    resp_put_text(out, bytes_of_string(line));
}

static void put_info(struct session *session, struct resp_writer *out)
{
    const bool is_reachable = atomic_load_explicit(&session->front->proxy->is_reachable,
                                                   memory_order_relaxed);
    char text[512];

    snprintf(text, sizeof(text),
             "cluster_state:%s\r\n"
             "cluster_slots_assigned:16384\r\n"
             "cluster_slots_ok:%d\r\n"
             "cluster_slots_pfail:0\r\n"
             "cluster_slots_fail:%d\r\n"
             "cluster_known_nodes:1\r\n"
             "cluster_size:1\r\n"
             "cluster_current_epoch:0\r\n"
             "cluster_my_epoch:0\r\n"
             "cluster_stats_messages_sent:0\r\n"
             "cluster_stats_messages_received:0\r\n"
             "total_cluster_links_buffer_limit_exceeded:0\r\n",
             is_reachable ? "ok" : "fail", is_reachable ? SLOTS : 0, is_reachable ? 0 : SLOTS);
    resp_put_text(out, bytes_of_string(text));
}

static void put_help(struct resp_writer *out)
{
    static const char *const lines[] = {
        "CLUSTER <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "COUNT-FAILURE-REPORTS <node-id>",
        "    Return number of failure reports for <node-id>.",
        "COUNTKEYSINSLOT <slot>",
        "    Return the number of keys in <slot>.",
        "GETKEYSINSLOT <slot> <count>",
        "    Return key names stored by current node in a slot.",
        "INFO",
        "    Return information about the cluster.",
        "KEYSLOT <key>",
        "    Return the hash slot for <key>.",
        "MYID",
        "    Return the node id.",
        "NODES",
        "    Return cluster configuration seen by node. Output format:",
        "    <id> <ip:port> <flags> <master> <pings> <pongs> <epoch> <link> <slot> ...",
        "REPLICAS <node-id>",
        "    Return <node-id> replicas.",
        "SLOTS",
        "    Return information about slots range mappings. Each range is made of:",
        "    start, end, master and replicas IP addresses, ports and ids",
        "SHARDS",
        "    Return information about slot range mappings and the nodes associated with them.",
        "LINKS",
        "    Return information about all network links between this node and its peers.",
        "    Output format is an array where each array element is a map containing attributes "
        "of a link",
        "HELP",
        "    Prints this help.",
    };
    const size_t n = sizeof(lines) / sizeof(lines[0]);

    resp_put_array(out, n);
    for (size_t i = 0; i < n; i++) {
        resp_put_simple(out, lines[i]);
    }
}

/* ---- keys of a slot ---- */

/*
 * Which of all keys lie in the slot. A standalone backend keeps no such list: it is asked for all
 * keys, which costs it what KEYS costs. group->number: the slot, and what is wanted above it.
 */
static size_t keys_in_slot(const struct group *group, struct resp_writer *out, uint64_t limit)
{
    const unsigned slot = (unsigned)(group->number % SLOTS);
    struct bytes at = group_reply(group, 0);
    struct resp_value head, key;
    size_t n = 0;

    if (!resp_next(&at, &head)) {
        return 0;
    }
    while (n < limit && resp_next(&at, &key)) {
        if (command_key_slot(key.text) == slot) {
            n++;
            if (out != NULL) {
                resp_put_bulk(out, key.text);
            }
        }
    }
    return n;
}

static void merge_count(struct group *group, struct resp_writer *reply)
{
    if (!group_put_error(group, reply)) {
        resp_put_integer(reply, (int64_t)keys_in_slot(group, NULL, UINT64_MAX));
    }
}

static void merge_keys(struct group *group, struct resp_writer *reply)
{
    const uint64_t limit = group->number / SLOTS;

    if (!group_put_error(group, reply)) {
        resp_put_array(reply, keys_in_slot(group, NULL, limit));
        (void)keys_in_slot(group, reply, limit);
    }
}

static enum verdict ask_for_keys(struct session *session, const struct dispatch_call *call,
                                 unsigned slot, uint64_t limit, bool is_count)
{
    static const struct bytes all_keys = {(const unsigned char *)"*2\r\n$4\r\nKEYS\r\n$1\r\n*\r\n",
                                          21};
    const struct backend *backend = &session->front->backend;

    if (backend->topology != NULL && backend->topology->is_cluster) {
        struct request *request = request_queue(session, REQUEST_RELAYED, call->command);

        request->slot = (uint16_t)slot;
        request->key_mask = UINT64_MAX;
        request_count(request, false, true);
        stats_add(METRIC_commands_relayed, 1);
        relay_send(request, backend_owner(backend, slot), call->frame);
    } else {
        struct group *group = fanout_to_masters(session, call, all_keys,
                                                is_count ? merge_count : merge_keys);

        group->number = slot + limit * SLOTS;
        group_seal(group);
    }
    return VERDICT_TAKEN;
}

static enum verdict fail(struct session *session, const char *text)
{
    session_error(session, "%s", text);
    return VERDICT_TAKEN;
}

static enum verdict keys_of_slot(struct session *session, const struct dispatch_call *call,
                                 bool is_count)
{
    int64_t slot, limit = 0;

    if (!bytes_to_int64(call->argv[2], &slot) ||
        (!is_count && !bytes_to_int64(call->argv[3], &limit))) {
        return fail(session, "ERR value is not an integer or out of range");
    }
    if (slot < 0 || slot >= SLOTS || limit < 0) {
        return fail(session, is_count ? "ERR Invalid slot" : "ERR Invalid slot or number of keys");
    }
    return ask_for_keys(session, call, (unsigned)slot,
                        (uint64_t)(limit < INT32_MAX ? limit : INT32_MAX), is_count);
}

/* ---- the command ---- */

static bool is_subcommand(const struct dispatch_call *call, const char *name)
{
    return bytes_equal_nocase(call->argv[1], bytes_of_string(name));
}

/* REPLICAS, SLAVES, COUNT-FAILURE-REPORTS: about this node, or about none. */
static void put_about_node(struct session *session, const struct dispatch_call *call,
                           struct resp_writer *out)
{
    const struct bytes id = call->argv[2];

    if (!bytes_equal(id, bytes_of_string(session->front->proxy->run_id))) {
        resp_put_error(out, "ERR Unknown node %.*s", id.len > 128 ? 128 : (int)id.len,
                       (const char *)id.ptr);
    } else if (is_subcommand(call, "count-failure-reports")) {
        resp_put_integer(out, 0);
    } else {
        resp_put_array(out, 0);
    }
}

/* False: it would change the cluster. */
static bool put_answer(struct session *session, const struct dispatch_call *call,
                       struct resp_writer *out)
{
    if (is_subcommand(call, "slots")) {
        put_slots(session, out);
    } else if (is_subcommand(call, "shards")) {
        put_shards(session, out);
    } else if (is_subcommand(call, "nodes")) {
        put_nodes(session, out);
    } else if (is_subcommand(call, "info")) {
        put_info(session, out);
    } else if (is_subcommand(call, "myid")) {
        resp_put_string(out, session->front->proxy->run_id);
    } else if (is_subcommand(call, "keyslot")) {
        resp_put_integer(out, command_key_slot(call->argv[2]));
    } else if (is_subcommand(call, "links")) {
        resp_put_array(out, 0);
    } else if (is_subcommand(call, "help")) {
        put_help(out);
    } else if (is_subcommand(call, "replicas") || is_subcommand(call, "slaves") ||
               is_subcommand(call, "count-failure-reports")) {
        put_about_node(session, call, out);
    } else {
        return false;
    }
    return true;
}

enum verdict as_cluster_dispatch(struct session *session, const struct dispatch_call *call)
{
    struct resp_writer writer;

    if (is_subcommand(call, "countkeysinslot")) {
        return keys_of_slot(session, call, true);
    }
    if (is_subcommand(call, "getkeysinslot")) {
        return keys_of_slot(session, call, false);
    }
    writer = session_begin_reply(session);
    if (!put_answer(session, call, &writer)) {
        stats_add(METRIC_errors_refused, 1);
        resp_put_error(&writer, "ERR command '%s' is not supported by nearcached",
                       call->command->name);
    }
    session_end_reply(session, &writer);
    return VERDICT_TAKEN;
}

bool as_cluster_refuses_select(struct session *session, const struct dispatch_call *call)
{
    int64_t db;

    /* What is no number is worded by the backend. */
    if (!bytes_to_int64(call->argv[1], &db) || db < INT32_MIN || db > INT32_MAX || db == 0) {
        return false;
    }
    session_error(session, "ERR SELECT is not allowed in cluster mode");
    return true;
}

bool as_cluster_refuses(struct session *session, const struct dispatch_call *call)
{
    const struct bytes name = bytes_of_string(call->command->name);

    if (bytes_equal(name, BYTES("swapdb"))) {
        session_error(session, "ERR SWAPDB is not allowed in cluster mode");
        return true;
    }
    if (bytes_equal(name, BYTES("move"))) {
        session_error(session, "ERR MOVE is not allowed in cluster mode");
        return true;
    }
    return false;
}
