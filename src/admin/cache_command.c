#include "admin/cache_command.h"

#include <inttypes.h>
#include <stdio.h>

#include "admin/audit_report.h"
#include "admin/cache_call.h"
#include "admin/coherence_state.h"
#include "admin/info.h"
#include "admin/metrics.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "coherence/bus.h"
#include "coherence/dependency_orders.h"
#include "coherence/track.h"
#include "proxy/request.h"

struct subcommand {
    const char *name; /* in capitals */
    const char *usage;
    const char *help;
    unsigned min_args, max_args;
    bool is_change;
    void (*run)(struct cache_call *call);
};

static struct cache *cache_of(const struct cache_call *call)
{
    return call->front->proxy->cache;
}

/* ---- INFO ---- */

static void put_node(const struct backend_node *node, unsigned n, int64_t now_us,
                     struct resp_writer *text)
{
    const struct link *link = &node->links[LINK_TRACKING];
    const struct track *track = node->track;
    const struct topology_node *info = node->info;
    const char *breaker = breaker_state_name(health_state(node->health));

    if (!link_is_up(link)) {
        info_line(text, "node%u:addr=%s,role=%s,healthy=%d,breaker=%s,tracking_link=down", n,
                  link->name, info->is_master ? "master" : "replica", info->is_healthy, breaker);
        return;
    }
    info_line(text,
              "node%u:addr=%s,role=%s,healthy=%d,breaker=%s,tracking_link=up,coherence=%s,"
              "watermark_age_ms=%" PRId64,
              n, link->name, info->is_master ? "master" : "replica", info->is_healthy, breaker,
              track_mode_name(track), (now_us - track->watermark_us) / 1000);
}

/* As this worker sees them. */
static void put_nodes(const struct front *front, struct resp_writer *text)
{
    const int64_t now_us = clock_now_us();
    unsigned n = 0;

    info_line(text, "\r\n# Nodes");
    for (const struct backend_node *node = front->backend.nodes; node != NULL; node = node->next) {
        if (node->info != NULL) {
            put_node(node, n++, now_us, text);
        }
    }
}

static uint64_t misses_of(unsigned ns)
{
    const struct metric_line *line;
    uint64_t sum = 0;

    for (unsigned i = 0; (line = metric_line_at(i)) != NULL; i++) {
        if (line->is_by_namespace && strcmp(line->name, "misses_total") == 0) {
            sum += stats_ns_sum(ns, (enum ns_metric)line->index);
        }
    }
    return sum;
}

static void put_namespaces(const struct front *front, struct resp_writer *text)
{
    const struct config *config = front->config;

    info_line(text, "\r\n# Namespaces");
    for (unsigned i = 0; i < config->n_namespaces; i++) {
        const struct config_namespace *ns = &config->namespaces[i];
        uint64_t n_entries, n_bytes;

        cache_ns_stats(front->proxy->cache, ns->id, &n_entries, &n_bytes);
        info_line(text,
                  "%s:match=%s,cache=%s,max_ttl_ms=%" PRId64 ",negative_ttl_ms=%" PRId64
                  ",max_value_bytes=%zu,entries=%" PRIu64 ",bytes=%" PRIu64 ",hits=%" PRIu64
                  ",misses=%" PRIu64 ",stale_if_error_ms=%" PRId64 ",stale_served=%" PRIu64
                  ",mode=%s",
                  ns->name, ns->match != NULL ? ns->match : "", ns->cache ? "on" : "off",
                  ns->max_ttl_ms, ns->negative_ttl_ms, ns->max_value, n_entries, n_bytes,
                  stats_ns_sum(ns->id, NS_METRIC_hits), misses_of(ns->id), ns->stale_if_error_ms,
                  stats_ns_sum(ns->id, NS_METRIC_stale_served),
                  config_mode_name(config_mode_of(config, ns)));
    }
}

static void run_info(struct cache_call *call)
{
    struct buffer room;
    struct resp_writer text = {.out = &room};

    buffer_init(&room);
    info_section(call->front->proxy, &text);
    put_nodes(call->front, &text);
    put_namespaces(call->front, &text);
    call->reply->has_failed = call->reply->has_failed || text.has_failed;
    resp_put_text(call->reply, buffer_bytes(&room));
    buffer_fini(&room);
}

/* ---- STATS ---- */

#define STATS_MAX 512

struct stats_list {
    struct {
        char name[64];
        int64_t value;
    } items[STATS_MAX];
    unsigned n;
};

static void add_stat(struct stats_list *list, const char *name, size_t name_len, const char *suffix,
                     uint64_t value)
{
    if (list->n < STATS_MAX) {
        snprintf(list->items[list->n].name, sizeof(list->items[0].name), "%.*s%s%s", (int)name_len,
                 name, suffix[0] != '\0' ? "_" : "", suffix);
        list->items[list->n++].value = (int64_t)value;
    }
}

/* "stale_refused" of reason="stale-refused"; of several labels all values. */
static void word_of_labels(const char *labels, char *out, size_t size)
{
    struct bytes name, value;
    size_t n = 0;

    while (metric_label_next(&labels, &name, &value)) {
        if (n > 0 && n + 1 < size) {
            out[n++] = '_';
        }
        for (size_t i = 0; i < value.len && n + 1 < size; i++) {
            out[n++] = value.ptr[i] == '-' ? '_' : (char)value.ptr[i];
        }
    }
    out[n] = '\0';
}

/* misses_total gives misses, and misses_cold and so on where its lines carry labels. */
static void add_counters(struct stats_list *list)
{
    const struct metric_line *line;
    const char *former = "";

    for (unsigned i = 0; (line = metric_line_at(i)) != NULL; i++) {
        const size_t name_len = strlen(line->name) - strlen("_total");
        char word[32];

        if (line->kind != METRIC_COUNTER) {
            continue;
        }
        if (strcmp(line->name, former) != 0) {
            add_stat(list, line->name, name_len, "", metric_total(line->name));
        }
        if (line->labels[0] != '\0') {
            word_of_labels(line->labels, word, sizeof(word));
            add_stat(list, line->name, name_len, word, metric_line_sum(line));
        }
        former = line->name;
    }
}

static void add_cache_stats(struct stats_list *list, struct cache *cache)
{
    struct cache_stats stats;

    cache_stats(cache, &stats);
#define ADD(field) add_stat(list, #field, strlen(#field), "", stats.field)
    ADD(n_entries);
    ADD(n_negative);
    ADD(n_views);
    ADD(n_flights);
    ADD(accounted_bytes);
    ADD(metadata_bytes);
    ADD(budget_bytes);
    ADD(maxmemory);
    ADD(arena_resident_bytes);
    ADD(arena_active_bytes);
    ADD(n_small);
    ADD(n_main);
#undef ADD
}

static void run_stats(struct cache_call *call)
{
    struct stats_list *list = mem_alloc(sizeof(*list));

    add_cache_stats(list, cache_of(call));
    add_counters(list);
    resp_put_map(call->reply, list->n);
    for (unsigned i = 0; i < list->n; i++) {
        resp_put_string(call->reply, list->items[i].name);
        resp_put_integer(call->reply, list->items[i].value);
    }
    mem_free(list);
}

/* ---- GET ---- */

/* Room for the arguments of every view. */
#define ARGS_ROOM (CACHE_VIEWS_MAX * CACHE_COPY_MAX)

static void put_integer_of(struct resp_writer *reply, const char *name, int64_t value)
{
    resp_put_string(reply, name);
    resp_put_integer(reply, value);
}

static void put_string_of(struct resp_writer *reply, const char *name, const char *value)
{
    resp_put_string(reply, name);
    resp_put_string(reply, value);
}

static void put_policy(struct resp_writer *reply, const struct config_namespace *ns)
{
    resp_put_string(reply, "policy");
    resp_put_map(reply, 4);
    put_string_of(reply, "cache", ns->cache ? "on" : "off");
    put_integer_of(reply, "max-ttl-ms", ns->max_ttl_ms);
    put_integer_of(reply, "negative-ttl-ms", ns->negative_ttl_ms);
    put_integer_of(reply, "max-value-bytes", (int64_t)ns->max_value);
}

/* A view keeps its arguments as they stood in the request's frame: bulk strings, one by one. */
static void put_args(struct resp_writer *reply, struct bytes args)
{
    struct bytes at = args;
    struct resp_value value;
    size_t n = 0;

    while (resp_next(&at, &value)) {
        n++;
    }
    resp_put_string(reply, "args");
    resp_put_array(reply, n);
    at = args;
    while (n > 0 && resp_next(&at, &value)) {
        resp_put_bulk(reply, value.text);
        n--;
    }
}

static void put_link(struct cache_call *call, uint16_t number)
{
    const struct epochs_incarnation *incarnation = epochs_at(cache_epochs(cache_of(call)), number);
    const epochs_node node = atomic_load_explicit(&incarnation->node, memory_order_relaxed);
    const struct backend_node *owner = backend_by_id(&call->front->backend, node);

    resp_put_string(call->reply, "link");
    resp_put_map(call->reply, 4);
    put_integer_of(call->reply, "incarnation", number);
    put_integer_of(call->reply, "worker",
                   atomic_load_explicit(&incarnation->worker, memory_order_relaxed));
    put_string_of(call->reply, "node", owner != NULL ? owner->links[LINK_TRACKING].name : "");
    put_integer_of(call->reply, "live", epochs_is_live(incarnation));
}

static int64_t ttl_left_ms(const struct cache_view_info *view, int64_t now_us)
{
    if (view->deadline_us == CACHE_NO_DEADLINE) {
        return -1;
    }
    return view->deadline_us <= now_us ? 0 : (view->deadline_us - now_us) / 1000;
}

/*
 * The compact entry keeps its deadline, not the time of its fetch. No view lives longer than the
 * namespace allows, so what is left of that bounds its age; a key without a TTL of its own has
 * exactly this age.
 */
static int64_t age_at_most_ms(const struct cache_view_info *view, const struct config_namespace *ns,
                              int64_t now_us)
{
    const int64_t life_ms = view->is_negative && ns->negative_ttl_ms < ns->max_ttl_ms
                                ? ns->negative_ttl_ms
                                : ns->max_ttl_ms;
    const int64_t left_ms = (view->deadline_us - now_us) / 1000;

    /* Less than nothing is left of what is shown behind its deadline, for a while. */
    return view->deadline_us == CACHE_NO_DEADLINE || left_ms > life_ms ? -1 : life_ms - left_ms;
}

static void put_view(struct cache_call *call, const struct cache_view_info *view,
                     const struct config_namespace *ns, int64_t now_us)
{
    const struct command *command = command_at(view->command);

    resp_put_map(call->reply, 11);
    put_string_of(call->reply, "command", command != NULL ? command->name : "");
    put_args(call->reply, view->args);
    put_integer_of(call->reply, "bytes", (int64_t)view->reply_bytes);
    put_integer_of(call->reply, "entry-bytes", (int64_t)view->entry_bytes);
    put_integer_of(call->reply, "ttl-left-ms", ttl_left_ms(view, now_us));
    put_integer_of(call->reply, "age-at-most-ms", age_at_most_ms(view, ns, now_us));
    put_integer_of(call->reply, "hits", view->hits);
    put_string_of(call->reply, "queue", view->queue);
    put_integer_of(call->reply, "negative", view->is_negative);
    put_integer_of(call->reply, "live", view->is_live);
    put_link(call, view->incarnation);
}

static void run_get(struct cache_call *call)
{
    const struct bytes key = call->args[0];
    const struct config_namespace *ns = config_namespace_of(call->front->config, key);
    const int64_t now_us = clock_now_us();
    struct cache_view_info views[CACHE_VIEWS_MAX];
    unsigned char *room = mem_try_alloc(ARGS_ROOM);
    unsigned n = 0;

    if (room == NULL) {
        resp_put_error(call->reply, "ERR nearcached: out of memory");
        return;
    }
    if (key.len <= CACHE_KEY_MAX) {
        n = cache_inspect(cache_of(call), key, call->session->scope, now_us, views, CACHE_VIEWS_MAX,
                          room, ARGS_ROOM);
    }
    resp_put_map(call->reply, 4);
    put_string_of(call->reply, "namespace", ns->name);
    put_policy(call->reply, ns);
    put_integer_of(call->reply, "db", call->session->db);
    resp_put_string(call->reply, "views");
    resp_put_array(call->reply, n);
    for (unsigned i = 0; i < n; i++) {
        put_view(call, &views[i], ns, now_us);
    }
    mem_free(room);
}

/* ---- AUDIT ---- */

static void run_audit(struct cache_call *call)
{
    if (call->n_args == 0) {
        audit_report(call->front->config, call->reply);
    } else {
        audit_report_key(call->session, call->args[0], call->reply);
    }
}

/* ---- ATTRIBUTES ---- */

static void run_attributes(struct cache_call *call)
{
    const bool is_on = bytes_equal_nocase(call->args[0], BYTES("on"));

    if (!is_on && !bytes_equal_nocase(call->args[0], BYTES("off"))) {
        resp_put_error(call->reply, "ERR syntax error");
        return;
    }
    call->session->wants_attributes = is_on;
    resp_put_simple(call->reply, "OK");
}

/* ---- AUTH ---- */

static void run_auth(struct cache_call *call)
{
    const char *password = call->front->config->cache_password;

    if (password[0] == '\0') {
        resp_put_error(call->reply,
                       "ERR CACHE AUTH <password> called without any cache-password configured. "
                       "Are you sure your configuration is correct?");
        return;
    }
    if (!bytes_equal_secret(call->args[0], password)) {
        stats_add(METRIC_errors_auth, 1);
        call->session->may_change_cache = false;
        resp_put_error(call->reply, "WRONGPASS invalid password for CACHE.");
        return;
    }
    call->session->may_change_cache = true;
    resp_put_simple(call->reply, "OK");
}

/* ---- the table ---- */

static void run_help(struct cache_call *call);

static const struct subcommand subcommands[] = {
    {"ATTRIBUTES", "on|off",
     "Say of each stale reply to this connection (RESP3) for how many ms it may still be shown.", 1,
     1, false, run_attributes},
    {"AUDIT", "[<key>]",
     "Show what comparing hits with the backend found, or compare what is held for a key.", 0, 1,
     false, run_audit},
    {"AUTH", "<password>", "Allow this connection the subcommands that change tier 1.", 1, 1, false,
     run_auth},
    {"BAN", "ADD [PREFIX <p>|GLOB <p>] [NAMESPACE <n>] [OLDER <ms>] [LARGER <bytes>] [TTL <ms>]",
     "Drop what matches, and keep it out until the ban is removed or its TTL is over.", 1, 13, true,
     cache_run_ban},
    {"BAN", "LIST | REMOVE <id>", "Show the bans that stand, or remove one.", 1, 2, true,
     cache_run_ban},
    {"BIGKEYS", "[COUNT <n>]",
     "Show the keys with the largest replies that came from the backend within an hour: bytes, and "
     "seconds since then.",
     0, 2, true, cache_run_bigkeys},
    {"CLEAR", "[<namespace>]", "Drop everything, or all of a namespace. Returns how many keys.", 0,
     1, true, cache_run_clear},
    {"CONFIG", "GET <pattern> [<pattern> ...] | SET <option> <value> [<option> <value> ...]",
     "Show options, or set them until the next reload or restart.", 1, UINT32_MAX, true,
     cache_run_config},
    {"DEPEND", "<derived> <source> [<source> ...]",
     "Drop what is held of derived whenever a source is written, whoever writes it.", 2,
     1 + DEPENDENCY_SOURCES_MAX, true, cache_run_depend},
    {"DEPENDS", "<key>", "Show what a key is derived from, and what is derived from it.", 1, 1,
     false, cache_run_depends},
    {"EVENTS", "[<pattern>]", "Show who is subscribed to events, and what rules say.", 0, 1, false,
     cache_run_events},
    {"GET", "<key>", "Show a key's namespace and policy, and what tier 1 holds for it.", 1, 1,
     false, run_get},
    {"HELP", "", "Print this help.", 0, 0, false, run_help},
    {"HOTKEYS", "[REQUESTS|BYTES|MISSES|INVALIDATIONS] [COUNT <n>] | RESET",
     "Show the keys with the most of these of late: an estimate, and by how much it may be too "
     "high.",
     0, 3, true, cache_run_hotkeys},
    {"INFO", "", "Show version, coherence, nodes and namespaces.", 0, 0, false, run_info},
    {"INVALIDATE", "<key> [<key> ...]", "Drop keys. Returns how many of them were held.", 1,
     UINT32_MAX, true, cache_run_invalidate},
    {"INVALIDATE",
     "[L1|ALL] KEYS <key> [<key> ...] | PREFIX <p> | GLOB <p> | NAMESPACE <n> | EVERYTHING | TAG "
     "<tag> [<tag> ...]",
     "Drop what is named, in every proxy's memory; ALL: at the backend, too.", 1, UINT32_MAX, true,
     cache_run_invalidate},
    {"JOB", "LIST | CANCEL <id>", "Show what INVALIDATE ALL is doing at the backend, or end it.", 1,
     2, true, cache_run_job},
    {"MEMBERS", "<tag> [<count>]", "Show keys that were given the tag: 100, or as many.", 1, 2,
     true, cache_run_members},
    {"MODE", "", "Show the mode of all, and of each namespace.", 0, 0, false, cache_run_mode},
    {"MODE", "on|bypass|readonly|off [<namespace>]",
     "Relay everything, refuse writes, or refuse all, at once and until it is changed.", 1, 2, true,
     cache_run_mode},
    {"PUBLISH", "[L1|ALL] <event>",
     "Drop what is subscribed to an event, in every proxy's memory; ALL: at the backend, too.", 1,
     2, true, cache_run_publish},
    {"SLOWLOG", "GET [<count>] | LEN | RESET",
     "Show requests that took slowlog-threshold or longer: as SLOWLOG GET, and outcome, "
     "microseconds "
     "of waiting and at the backend.",
     1, 2, true, cache_run_slowlog},
    {"STATS", "", "Show counters and sizes as a map of integers.", 0, 0, false, run_stats},
    {"SUBSCRIBE", "<event> <key> [<key> ...]",
     "Drop keys, or globs of keys, whenever an event is published. Returns how many are new.", 2,
     UINT32_MAX, true, cache_run_subscribe},
    {"TAG", "<key> <tag> [<tag> ...]", "Give a key tags. Returns how many it did not have.", 2,
     UINT32_MAX, true, cache_run_tag},
    {"UNDEPEND", "<derived> [<source> ...]",
     "Forget that derived depends on these sources, or on any. Returns how many it forgot.", 1,
     1 + DEPENDENCY_SOURCES_MAX, true, cache_run_undepend},
    {"UNSUBSCRIBE", "<event> [<key> ...]",
     "Take that back; without keys, all of the event. Returns how many there were.", 1, UINT32_MAX,
     true, cache_run_unsubscribe},
    {"UNTAG", "<key> <tag> [<tag> ...]", "Take tags off a key. Returns how many it had.", 2,
     UINT32_MAX, true, cache_run_untag},
};

#define N_SUBCOMMANDS (sizeof(subcommands) / sizeof(subcommands[0]))

/* In the form of Redis' own help texts. */
static void run_help(struct cache_call *call)
{
    char line[192];

    resp_put_array(call->reply, 1 + 2 * N_SUBCOMMANDS);
    resp_put_simple(call->reply, "CACHE <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
    for (unsigned i = 0; i < N_SUBCOMMANDS; i++) {
        const struct subcommand *subcommand = &subcommands[i];

        snprintf(line, sizeof(line), "%s%s%s", subcommand->name,
                 subcommand->usage[0] != '\0' ? " " : "", subcommand->usage);
        resp_put_simple(call->reply, line);
        snprintf(line, sizeof(line), "    %s", subcommand->help);
        resp_put_simple(call->reply, line);
    }
}

static const struct subcommand *find_subcommand(struct bytes name, unsigned n_args)
{
    for (unsigned i = 0; i < N_SUBCOMMANDS; i++) {
        const struct subcommand *subcommand = &subcommands[i];

        if (bytes_equal_nocase(name, bytes_of_string(subcommand->name))) {
            if (n_args >= subcommand->min_args && n_args <= subcommand->max_args) {
                return subcommand;
            }
        }
    }
    return NULL;
}

/* False: refused, and said so. */
static bool may_run(const struct cache_call *call, const struct subcommand *subcommand)
{
    const int rule = call->front->config->cache_command;

    if (!subcommand->is_change || rule == CACHE_COMMAND_FREE) {
        return true;
    }
    if (rule == CACHE_COMMAND_OFF) {
        stats_add(METRIC_errors_refused, 1);
        resp_put_error(call->reply, "ERR CACHE %s is switched off (cache-command = off)",
                       subcommand->name);
        return false;
    }
    if (!call->session->may_change_cache) {
        stats_add(METRIC_errors_auth, 1);
        resp_put_error(call->reply, "NOAUTH CACHE %s needs CACHE AUTH <password> first.",
                       subcommand->name);
        return false;
    }
    return true;
}

void cache_command(struct session *session, const struct bytes *argv, unsigned argc,
                   struct resp_writer *reply)
{
    struct cache_call call = {
        .session = session,
        .front = session->front,
        .args = argv + 2,
        .n_args = argc - 2,
        .reply = reply,
    };
    const struct subcommand *subcommand;

    if (argc < 2) {
        resp_put_error(reply, "ERR wrong number of arguments for 'cache' command");
        return;
    }
    subcommand = find_subcommand(argv[1], call.n_args);
    if (subcommand == NULL) {
        resp_put_error(reply,
                       "ERR unknown subcommand or wrong number of arguments for '%.*s'. "
                       "Try CACHE HELP.",
                       argv[1].len > 128 ? 128 : (int)argv[1].len, (const char *)argv[1].ptr);
    } else if (may_run(&call, subcommand)) {
        subcommand->run(&call);
    }
}
