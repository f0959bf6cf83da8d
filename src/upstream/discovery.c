/*
 * Contacts (contact.h) gather what single servers say; here it is settled what to make of it. Every
 * piece of news activates one event, settle(), which
 *
 *   1. chooses the server to believe: of a cluster the one in state ok with the highest epoch,
 * whose map changed last; of standalone seeds a master before a replica, and the one in use stays;
 *   2. makes a snapshot of its map, with the health and the addresses that the contacts know; if
 *      nobody can be believed, of the last published map;
 *   3. publishes it if it differs;
 *   4. connects to whom it now wants, and lets go of the others.
 *
 * One path for good and bad times: when all servers are silent the snapshot is the old one with all
 * nodes unhealthy. A timer runs settle() when the next server's silence becomes too long.
 *
 * Why not an epoch per slot (CLUSTER NODES has them): workers follow MOVED anyway, so a map that is
 * late by one gossip round costs a redirection, never a wrong answer.
 */
#include "upstream/discovery.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/stats.h"
#include "upstream/contact.h"
#include "upstream/sentinel.h"

#include <stdio.h>
#include <stdlib.h>

#define DISCOVERY_MAGIC 0x64736376u /* "dscv" */

/* More masters than this are routed to but not asked themselves: a bound on sockets and polls. */
#define WATCHED_MAX 64
#define REFRESH_PAUSE_MS 50
/* A server is asked for its state at least this often, however seldom its map is read. */
#define POLL_MAX_MS 1000
#define POLL_MIN_MS 100

struct discovery {
    uint32_t magic;
    struct event_base *base;
    struct contact_watch watch;
    struct config_address_map map; /* as it was at the start */
    char *user, *password;
    discovery_on_change_fn on_change;
    void *context;
    struct contact *contacts; /* seeds first, in their order */
    struct contact *chosen;   /* of standalone seeds; NULL for a cluster */
    struct event *settle, *refresh;
    int64_t silence_ms; /* a node that does not answer for longer is not healthy */
    int64_t reach_ms;   /* no answer at all for longer: the backend is unreachable */
    int64_t answered_at_ms, refreshed_at_ms;
    struct sentinels *sentinels; /* NULL: the seeds are servers */
    unsigned db;                 /* that clients get; a cluster has no other than 0 */
    bool was_reachable;
    char last_error[sizeof(((struct contact *)0)->error)];
    struct topology *published; /* NULL before the first */
    uint64_t version;
    struct command_set *learnt;
    struct contact *learnt_from; /* NULL once it is gone */
    char learnt_version[32], learnt_run_id[48];
};

/* ---- contacts ---- */

static struct contact *find_contact(const struct discovery *discovery, const char *host,
                                    unsigned port)
{
    struct contact *contact = discovery->contacts;

    while (contact != NULL && (contact->port != port || strcmp(contact->host, host) != 0)) {
        contact = contact->next;
    }
    return contact;
}

static struct contact *add_contact(struct discovery *discovery, const char *host, unsigned port,
                                   const char *path)
{
    struct contact *contact = contact_new(&discovery->watch, host, port, path);
    struct contact **end = &discovery->contacts;

    while (*end != NULL) {
        end = &(*end)->next;
    }
    *end = contact;
    return contact;
}

static void forget_strangers(struct discovery *discovery)
{
    struct contact **at = &discovery->contacts;

    while (*at != NULL) {
        struct contact *contact = *at;

        if (contact->is_seed || contact->is_in_map) {
            at = &contact->next;
            continue;
        }
        *at = contact->next;
        if (discovery->learnt_from == contact) {
            discovery->learnt_from = NULL;
        }
        if (discovery->chosen == contact) {
            discovery->chosen = NULL;
        }
        contact_free(&contact);
    }
}

/* When the node's silence becomes too long. One that has just become a master gets its time. */
static int64_t silent_at(const struct discovery *discovery, const struct contact *contact)
{
    const int64_t since_ms = contact->answered_at_ms > contact->watched_since_ms
                                 ? contact->answered_at_ms
                                 : contact->watched_since_ms;

    return since_ms + discovery->silence_ms;
}

/* ---- the server to believe ---- */

static bool has_map(const struct contact *contact)
{
    return contact->state == CONTACT_UP && contact->is_cluster && contact->map != NULL &&
           contact->answered_at_ms > 0;
}

/*
 * Epochs grow with every failover and with every slot that moves. Two nodes may have heard of the
 * same epoch while only one has heard of the change itself: then the one that changed its mind
 * last.
 */
static bool is_better_map(const struct contact *a, const struct contact *b)
{
    if (a->says_fail != b->says_fail) {
        return b->says_fail;
    }
    if (a->epoch != b->epoch) {
        return a->epoch > b->epoch;
    }
    return a->map_changed_at_ms > b->map_changed_at_ms;
}

static struct contact *choose_map(const struct discovery *discovery)
{
    struct contact *best = NULL;

    for (struct contact *contact = discovery->contacts; contact != NULL; contact = contact->next) {
        if (has_map(contact) && (best == NULL || is_better_map(contact, best))) {
            best = contact;
        }
    }
    return best;
}

static bool is_usable(const struct discovery *discovery, const struct contact *contact,
                      int64_t now_ms)
{
    return contact->is_seed && contact->is_known && !contact->is_cluster &&
           contact->answered_at_ms > 0 && now_ms - contact->answered_at_ms <= discovery->silence_ms;
}

/*
 * The server that the Sentinels name, at once: its predecessor is no master any more. One that says
 * itself that it is a replica is none yet, whatever a Sentinel believes.
 */
static struct contact *choose_named(const struct discovery *discovery)
{
    struct contact *contact = discovery->contacts;

    while (contact != NULL && !contact->is_seed) {
        contact = contact->next;
    }
    return contact != NULL && contact->is_known && contact->is_replica ? NULL : contact;
}

/* The one in use stays while it answers, but a replica stays only where no master is to be had. */
static struct contact *choose_standalone(const struct discovery *discovery, int64_t now_ms)
{
    struct contact *best = NULL;

    if (discovery->sentinels != NULL) {
        return choose_named(discovery);
    }
    if (discovery->chosen != NULL && is_usable(discovery, discovery->chosen, now_ms)) {
        best = discovery->chosen;
    }
    for (struct contact *contact = discovery->contacts; contact != NULL; contact = contact->next) {
        if (contact->state == CONTACT_UP && is_usable(discovery, contact, now_ms) &&
            (best == NULL || (best->is_replica && !contact->is_replica))) {
            best = contact;
        }
    }
    return best;
}

/* ---- the snapshot ---- */

static struct topology *copy_topology(const struct topology *topology)
{
    struct topology *copy = topology_new(topology->n_nodes);

    memcpy(copy->nodes, topology->nodes, topology->n_nodes * sizeof(topology->nodes[0]));
    memcpy(copy->slot_node, topology->slot_node, sizeof(copy->slot_node));
    memcpy(copy->server_version, topology->server_version, sizeof(copy->server_version));
    copy->has_field_ttl = topology->has_field_ttl;
    copy->is_cluster = topology->is_cluster;
    return copy;
}

static struct topology *standalone_topology(const struct contact *contact)
{
    struct topology *topology = topology_new(1 + contact->replicas.n);
    struct topology_node *node = &topology->nodes[0];

    memcpy(node->host, contact->host, sizeof(node->host));
    node->port = contact->port;
    node->id = topology_node_number(node->host, node->port);
    /* Whatever its role: it is the one that owns all keys. */
    node->is_master = true;
    topology->slot_node[0] = node->id == 0 ? TOPOLOGY_NO_NODE : 0;
    for (unsigned i = 0; i < contact->replicas.n; i++) {
        const struct replica *replica = &contact->replicas.list[i];

        node = &topology->nodes[1 + i];
        memcpy(node->host, replica->host, sizeof(node->host));
        node->port = replica->port;
        node->id = topology_node_number(node->host, node->port);
        node->master = topology->nodes[0].id;
    }
    return topology;
}

static int compare_versions(const char *a, const char *b)
{
    unsigned left[3] = {0}, right[3] = {0};

    (void)sscanf(a, "%u.%u.%u", &left[0], &left[1], &left[2]);
    (void)sscanf(b, "%u.%u.%u", &right[0], &right[1], &right[2]);
    for (unsigned i = 0; i < 3; i++) {
        if (left[i] != right[i]) {
            return left[i] < right[i] ? -1 : 1;
        }
    }
    return 0;
}

/*
 * A cluster that is being upgraded is as old as its oldest node, and as dangerous as its newest.
 * Where no node was heard yet, next keeps what it was copied with.
 */
static void describe_server(const struct discovery *discovery, const struct contact *source,
                            struct topology *next)
{
    const char *oldest = NULL;
    bool has_field_ttl = false, is_known = false;

    for (const struct contact *contact = discovery->contacts; contact != NULL;
         contact = contact->next) {
        if (!contact->is_known || (!contact->is_in_map && contact != source)) {
            continue;
        }
        is_known = true;
        has_field_ttl |= contact->has_field_ttl;
        if (contact->version[0] != '\0' &&
            (oldest == NULL || compare_versions(contact->version, oldest) < 0)) {
            oldest = contact->version;
        }
    }
    if (oldest != NULL) {
        snprintf(next->server_version, sizeof(next->server_version), "%s", oldest);
    }
    if (is_known) {
        next->has_field_ttl = has_field_ttl;
    }
    if (discovery->learnt != NULL) {
        command_set_ref(discovery->learnt);
        next->learnt = discovery->learnt;
    }
}

/* One contact for each node of the map; health and addresses as the contacts know them. */
static void join_contacts(struct discovery *discovery, struct topology *next, int64_t now_ms)
{
    const bool is_reachable = discovery_is_reachable(discovery);
    unsigned n_watched = 0;

    for (struct contact *contact = discovery->contacts; contact != NULL; contact = contact->next) {
        contact->is_in_map = false;
    }
    for (unsigned i = 0; i < next->n_nodes; i++) {
        struct topology_node *node = &next->nodes[i];
        struct contact *contact = find_contact(discovery, node->host, node->port);
        const bool is_watched = node->is_master && n_watched < WATCHED_MAX;

        if (contact == NULL) {
            contact = add_contact(discovery, node->host, node->port, NULL);
        }
        if (is_watched && !contact->is_watched) {
            contact->watched_since_ms = now_ms;
        }
        contact->is_in_map = true;
        contact->is_watched = is_watched;
        n_watched += is_watched;
        node->is_healthy = is_watched ? now_ms <= silent_at(discovery, contact) &&
                                            !(next->is_cluster && contact->says_fail)
                                      : is_reachable;
        if (discovery->sentinels != NULL && !contact->is_seed && node->is_master) {
            node->is_healthy = false; /* the Sentinels name another one, which is not up yet */
        }
        if (!is_watched) {
            contact_locate(contact);
        }
        node->is_resolved = contact->is_resolved;
        node->endpoint = contact->endpoint;
    }
    for (struct contact *contact = discovery->contacts; contact != NULL; contact = contact->next) {
        contact->is_watched &= contact->is_in_map;
    }
}

static const struct topology_node *find_replica(const struct topology *topology,
                                                const struct replica *replica)
{
    const struct topology_node *node = topology_find(topology, replica->host, replica->port);
    struct endpoint endpoint;

    if (node != NULL || endpoint_from_ip(&endpoint, replica->host, replica->port) != 0) {
        return node;
    }
    /* The map calls it by a name. */
    for (unsigned i = 0; i < topology->n_nodes && node == NULL; i++) {
        if (topology->nodes[i].is_resolved &&
            strcmp(topology->nodes[i].endpoint.text, endpoint.text) == 0) {
            node = &topology->nodes[i];
        }
    }
    return node;
}

/* What the masters say of their replicas. */
static void note_replicas(const struct discovery *discovery, const struct topology *next)
{
    for (const struct contact *contact = discovery->contacts; contact != NULL;
         contact = contact->next) {
        const struct topology_node *master = topology_find(next, contact->host, contact->port);

        for (unsigned i = 0; master != NULL && i < contact->replicas.n; i++) {
            const struct topology_node *node = find_replica(next, &contact->replicas.list[i]);

            if (node != NULL && node->master == master->id) {
                replicas_note(node->id, contact->replicas.list[i].caught_up_us);
            }
        }
    }
}

/* NULL while nothing is known. */
static struct topology *make_topology(struct discovery *discovery, int64_t now_ms)
{
    struct contact *source = choose_map(discovery);
    struct topology *next = NULL;

    if (source != NULL) {
        discovery->chosen = NULL;
        next = copy_topology(source->map);
    } else {
        source = choose_standalone(discovery, now_ms);
        if (source != NULL) {
            discovery->chosen = source;
            next = standalone_topology(source);
        } else if (discovery->published != NULL) {
            next = copy_topology(discovery->published);
        }
    }
    if (next != NULL) {
        join_contacts(discovery, next, now_ms);
        note_replicas(discovery, next);
        describe_server(discovery, source, next);
    }
    return next;
}

static epochs_node owner_id(const struct topology *topology, unsigned slot)
{
    const struct topology_node *owner = topology_owner(topology, slot);

    return owner == NULL ? 0 : owner->id;
}

static unsigned count_moved(const struct topology *before, const struct topology *after)
{
    unsigned n_moved = 0;

    for (unsigned slot = 0; before != NULL && slot < EPOCHS_SLOTS; slot++) {
        n_moved += owner_id(before, slot) != owner_id(after, slot);
    }
    return n_moved;
}

static void log_change(const struct topology *before, const struct topology *after)
{
    unsigned n_masters = 0, n_healthy = 0;

    for (unsigned i = 0; i < after->n_nodes; i++) {
        n_masters += after->nodes[i].is_master;
        n_healthy += after->nodes[i].is_master && after->nodes[i].is_healthy;
    }
    log_info("upstream", before == NULL ? "topology known" : "topology changed",
             "version=%llu mode=%s nodes=%u masters=%u healthy_masters=%u moved_slots=%u",
             (unsigned long long)after->version, after->is_cluster ? "cluster" : "standalone",
             after->n_nodes, n_masters, n_healthy, count_moved(before, after));
}

/* Takes the reference. */
static void publish(struct discovery *discovery, struct topology *next)
{
    struct topology *before = discovery->published;

    if (before != NULL && topology_equal(before, next)) {
        topology_unref(&next);
        return;
    }
    next->version = ++discovery->version;
    log_change(before, next);
    if (next->is_cluster && discovery->db != 0 && (before == NULL || !before->is_cluster)) {
        log_error("upstream", "a cluster has database 0 only: take it out of the backend's URL",
                  "db=%u", discovery->db);
    }
    if (before != NULL) {
        stats_add(METRIC_topology_changes, 1);
    }
    discovery->published = next;
    topology_unref(&before);
    discovery->on_change(next, discovery->context);
}

/* ---- whom to ask ---- */

static bool has_answering_master(const struct discovery *discovery)
{
    for (const struct contact *contact = discovery->contacts; contact != NULL;
         contact = contact->next) {
        if (contact->is_watched && has_map(contact)) {
            return true;
        }
    }
    return false;
}

/*
 * Of a cluster the masters; seeds and replicas only while no master gives a map. Of standalone
 * seeds the one in use; the others while it does not answer or is a replica.
 */
static bool is_wanted(const struct discovery *discovery, const struct contact *contact,
                      bool is_served)
{
    if (discovery->published == NULL || !is_served) {
        return contact->is_seed || discovery->published == NULL || discovery->published->is_cluster;
    }
    return discovery->published->is_cluster ? contact->is_watched : contact == discovery->chosen;
}

static void connect_wanted(struct discovery *discovery, int64_t now_ms)
{
    const struct contact *chosen = discovery->chosen;
    const bool is_served = chosen != NULL ? chosen->state == CONTACT_UP && !chosen->is_replica &&
                                                is_usable(discovery, chosen, now_ms)
                                          : has_answering_master(discovery);

    for (struct contact *contact = discovery->contacts; contact != NULL; contact = contact->next) {
        if (is_wanted(discovery, contact, is_served)) {
            contact_start(contact);
        } else if (contact->state != CONTACT_IDLE) {
            contact_stop(contact);
        }
    }
}

/* ---- settling ---- */

static void note_reachability(struct discovery *discovery)
{
    const bool is_reachable = discovery_is_reachable(discovery);

    if (is_reachable && !discovery->was_reachable) {
        log_debug("upstream", "a node answers", NULL);
    } else if (!is_reachable && discovery->was_reachable) {
        log_debug("upstream", "no node answers", "error=%s",
                  log_quote(bytes_of_string(discovery_last_error(discovery))));
    }
    discovery->was_reachable = is_reachable;
}

/* For the next moment at which silence alone changes something. */
static void arm_settle(struct discovery *discovery, int64_t now_ms)
{
    int64_t at_ms = INT64_MAX, when_ms;
    struct timeval delay;

    for (const struct contact *contact = discovery->contacts; contact != NULL;
         contact = contact->next) {
        when_ms = silent_at(discovery, contact);
        if (contact->is_watched && when_ms >= now_ms && when_ms < at_ms) {
            at_ms = when_ms;
        }
    }
    when_ms = discovery->answered_at_ms + discovery->reach_ms;
    if (when_ms >= now_ms && when_ms < at_ms) {
        at_ms = when_ms;
    }
    if (at_ms != INT64_MAX) {
        /* Silence is too long one millisecond later. */
        const int64_t delay_ms = at_ms - now_ms + 1;

        delay.tv_sec = delay_ms / 1000;
        delay.tv_usec = delay_ms % 1000 * 1000;
        event_add(discovery->settle, &delay);
    }
}

static void on_settle(evutil_socket_t fd, short what, void *context)
{
    struct discovery *discovery = OBJ_FROM(context, struct discovery, DISCOVERY_MAGIC);
    const int64_t now_ms = clock_now_ms();
    struct topology *next;

    (void)fd;
    (void)what;
    note_reachability(discovery);
    next = make_topology(discovery, now_ms);
    if (next != NULL) {
        publish(discovery, next);
        forget_strangers(discovery);
    }
    connect_wanted(discovery, now_ms);
    arm_settle(discovery, now_ms);
}

static void settle_soon(struct discovery *discovery)
{
    event_active(discovery->settle, 0, 0);
}

/* ---- what contacts tell ---- */

static void on_news(struct contact *contact, void *context)
{
    struct discovery *discovery = OBJ_FROM(context, struct discovery, DISCOVERY_MAGIC);
    const bool is_enough = contact->is_cluster ? contact->map != NULL : contact->is_known;

    if (contact->state == CONTACT_UP && is_enough &&
        contact->answered_at_ms > discovery->answered_at_ms) {
        discovery->answered_at_ms = contact->answered_at_ms;
    }
    if (contact->error[0] != '\0') {
        memcpy(discovery->last_error, contact->error, sizeof(discovery->last_error));
    }
    settle_soon(discovery);
}

/*
 * COMMAND is read once, and again when the server it came from was restarted (with other modules,
 * perhaps) or when a newer one appears. Its order differs between servers, so that asking them all
 * would make a new set each time.
 */
static bool wants_commands(const struct contact *contact, void *context)
{
    struct discovery *discovery = OBJ_FROM(context, struct discovery, DISCOVERY_MAGIC);
    const struct contact *from = discovery->learnt_from;

    if (discovery->learnt == NULL || from == NULL || from->state == CONTACT_IDLE) {
        return true;
    }
    if (contact == from) {
        return contact->run_id[0] == '\0' ||
               strcmp(contact->run_id, discovery->learnt_run_id) != 0 ||
               strcmp(contact->version, discovery->learnt_version) != 0;
    }
    return compare_versions(contact->version, discovery->learnt_version) > 0;
}

static void on_commands(const struct contact *contact, struct command_set *learnt, void *context)
{
    struct discovery *discovery = OBJ_FROM(context, struct discovery, DISCOVERY_MAGIC);

    /* Another contact may have been faster since this one was asked. */
    if (!wants_commands(contact, discovery)) {
        command_set_unref(&learnt);
        return;
    }
    if (discovery->learnt != NULL) {
        command_set_unref(&discovery->learnt);
    }
    discovery->learnt = learnt;
    discovery->learnt_from = find_contact(discovery, contact->host, contact->port);
    memcpy(discovery->learnt_version, contact->version, sizeof(discovery->learnt_version));
    memcpy(discovery->learnt_run_id, contact->run_id, sizeof(discovery->learnt_run_id));
    settle_soon(discovery);
}

/* What served until now is not polled any more, and leaves with the next map. */
static void on_master(const char *host, unsigned port, void *context)
{
    struct discovery *discovery = OBJ_FROM(context, struct discovery, DISCOVERY_MAGIC);
    struct contact *master = find_contact(discovery, host, port);

    if (master == NULL) {
        master = add_contact(discovery, host, port, NULL);
    }
    for (struct contact *contact = discovery->contacts; contact != NULL; contact = contact->next) {
        contact->is_seed = contact == master;
    }
    /* What it was before does not matter: it is asked anew. */
    contact_stop(master);
    master->is_known = master->is_replica = false;
    master->answered_at_ms = 0;
    settle_soon(discovery);
}

/* ---- refreshing ---- */

static void on_refresh(evutil_socket_t fd, short what, void *context)
{
    struct discovery *discovery = OBJ_FROM(context, struct discovery, DISCOVERY_MAGIC);

    (void)fd;
    (void)what;
    discovery->refreshed_at_ms = clock_now_ms();
    for (struct contact *contact = discovery->contacts; contact != NULL; contact = contact->next) {
        contact_poll(contact);
    }
    if (discovery->sentinels != NULL) {
        sentinels_refresh(discovery->sentinels);
    }
}

void discovery_refresh(struct discovery *discovery)
{
    const int64_t wait_ms = discovery->refreshed_at_ms + REFRESH_PAUSE_MS - clock_now_ms();
    const struct timeval delay = {.tv_usec = wait_ms > 0 ? wait_ms * 1000 : 0};

    if (!event_pending(discovery->refresh, EV_TIMEOUT, NULL)) {
        event_add(discovery->refresh, &delay);
    }
}

bool discovery_is_reachable(const struct discovery *discovery)
{
    return discovery->answered_at_ms > 0 &&
           clock_now_ms() - discovery->answered_at_ms <= discovery->reach_ms;
}

const char *discovery_last_error(const struct discovery *discovery)
{
    if (discovery_is_reachable(discovery)) {
        return "";
    }
    if (discovery->sentinels != NULL && sentinels_error(discovery->sentinels)[0] != '\0') {
        return sentinels_error(discovery->sentinels);
    }
    return discovery->last_error[0] != '\0' ? discovery->last_error : "no node has answered yet";
}

/* ---- life ---- */

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

void discovery_configure(struct discovery *discovery, const struct config *config)
{
    struct contact_watch *watch = &discovery->watch;
    const int64_t wanted_ms = smaller(config->topology_interval_ms, config->max_staleness_ms);

    watch->settings.connect_timeout_ms = config->connect_timeout_ms;
    watch->settings.request_timeout_ms = config->request_timeout_ms;
    tls_context_unref(&watch->settings.tls);
    watch->settings.tls = config->target.is_tls ? tls_context_ref(config->tls_backend) : NULL;
    watch->reconnect_min_ms = config->reconnect_min_ms;
    watch->reconnect_max_ms = config->reconnect_max_ms;
    watch->poll_ms = smaller(larger(wanted_ms, POLL_MIN_MS), POLL_MAX_MS);
    watch->slots_ms = config->topology_interval_ms;
    watch->wants_replicas = config_reads_replicas(config);
    discovery->reach_ms = 3 * watch->poll_ms;
    discovery->silence_ms = 3 * larger(config->max_staleness_ms, watch->poll_ms);
    if (discovery->sentinels != NULL) {
        sentinels_configure(discovery->sentinels, config);
    }
}

static void add_seeds(struct discovery *discovery, const struct config_backend *target)
{
    if (target->unix_path != NULL) {
        add_contact(discovery, "", 0, target->unix_path)->is_seed = true;
    }
    for (unsigned i = 0; i < target->n_seeds; i++) {
        const struct config_seed *seed = &target->seeds[i];

        if (find_contact(discovery, seed->host, seed->port) == NULL) {
            add_contact(discovery, seed->host, seed->port, NULL)->is_seed = true;
        }
    }
}

struct discovery *discovery_new(struct event_base *base, const struct config *config,
                                discovery_on_change_fn on_change, void *context)
{
    const struct config_backend *target = &config->target;
    struct discovery *discovery = mem_alloc(sizeof(*discovery));

    discovery->magic = DISCOVERY_MAGIC;
    discovery->base = base;
    discovery->on_change = on_change;
    discovery->context = context;
    discovery->db = target->db;
    discovery->user = target->user != NULL ? mem_strdup(target->user) : NULL;
    discovery->password = target->password != NULL ? mem_strdup(target->password) : NULL;
    discovery->settle = evtimer_new(base, on_settle, discovery);
    discovery->refresh = evtimer_new(base, on_refresh, discovery);
    CHECK(discovery->settle != NULL && discovery->refresh != NULL);
    discovery->map = config->mappings;
    discovery->watch = (struct contact_watch){
        .base = base,
        .map = &discovery->map,
        .resolver = resolver_new(base),
        .settings = {.user = discovery->user, .password = discovery->password},
        .on_news = on_news,
        .wants_commands = wants_commands,
        .on_commands = on_commands,
        .context = discovery,
    };
    discovery_configure(discovery, config);
    if (target->sentinel_master != NULL) {
        discovery->sentinels = sentinels_new(base, discovery->watch.resolver, config, on_master,
                                             discovery);
    } else {
        add_seeds(discovery, target);
    }
    settle_soon(discovery);
    return discovery;
}

void discovery_free(struct discovery **discovery)
{
    struct discovery *freed = *discovery;

    *discovery = NULL;
    if (freed == NULL) {
        return;
    }
    sentinels_free(&freed->sentinels);
    while (freed->contacts != NULL) {
        struct contact *contact = freed->contacts;

        freed->contacts = contact->next;
        contact_free(&contact);
    }
    tls_context_unref(&freed->watch.settings.tls);
    resolver_free(&freed->watch.resolver);
    event_free(freed->settle);
    event_free(freed->refresh);
    topology_unref(&freed->published);
    if (freed->learnt != NULL) {
        command_set_unref(&freed->learnt);
    }
    if (freed->password != NULL) {
        explicit_bzero(freed->password, strlen(freed->password));
    }
    mem_free(freed->password);
    mem_free(freed->user);
    freed->magic = 0;
    mem_free(freed);
}
