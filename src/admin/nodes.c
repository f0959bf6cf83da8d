/* A worker says of each node what it alone knows; the map, which all share, says the rest. */
#include "admin/nodes.h"

#include <stdio.h>

#include "admin/order_http.h"
#include "base/clock.h"
#include "base/mem.h"
#include "coherence/track.h"

enum where { WHERE_UP, WHERE_DOWN, WHERE_CONNECTING, WHERE_IDLE, N_WHERE };

static const char *const where_names[N_WHERE] = {"up", "down", "connecting", "idle"};

/* What one worker knows of one node. */
struct node_facts {
    epochs_node id;
    unsigned n_tracking[N_WHERE], n_relay[N_WHERE];
    enum breaker_state breaker;
    const char *breaker_reason; /* a constant; NULL: closed */
    const char *mode;           /* a constant; NULL: its tracking link is not up */
    int64_t watermark_age_us;
    char error[160]; /* why a link is down */
};

struct worker_facts {
    struct node_facts *nodes;
    unsigned n;
};

struct survey {
    nodes_ready_fn ready;
    void *context;
    struct topology *topology; /* worker 0's */
    unsigned n_workers;
    struct worker_facts workers[]; /* by index; each written by its worker */
};

/* ---- on the workers ---- */

/* A relay link that was lost and could connect again is idle: nobody needed it since. */
static enum where where_is(const struct link *link, int64_t now_us)
{
    switch (link->state) {
    case LINK_UP:
        return WHERE_UP;
    case LINK_CONNECTING:
    case LINK_GREETING:
        return WHERE_CONNECTING;
    case LINK_DOWN:
        return link->kind == LINK_TRACKING || now_us < link->retry_at_us ? WHERE_DOWN : WHERE_IDLE;
    case LINK_IDLE:
        break;
    }
    return WHERE_IDLE;
}

static void count(const struct link *link, unsigned into[N_WHERE], int64_t now_us,
                  struct node_facts *facts)
{
    const enum where where = where_is(link, now_us);

    into[where]++;
    if (where == WHERE_DOWN && link->error[0] != '\0') {
        (void)snprintf(facts->error, sizeof(facts->error), "%.*s", (int)sizeof(facts->error) - 1,
                       link->error);
    }
}

static void survey_node(const struct backend_node *node, int64_t now_us, struct node_facts *facts)
{
    const struct link *tracking = &node->links[LINK_TRACKING];
    const struct track *track = node->track;

    facts->id = node->id;
    facts->breaker = health_state(node->health);
    facts->breaker_reason = facts->breaker == BREAKER_CLOSED ? NULL : health_text(node->health);
    count(&node->links[LINK_RELAY2], facts->n_relay, now_us, facts);
    count(&node->links[LINK_RELAY3], facts->n_relay, now_us, facts);
    for (const struct backend_spare *spare = node->spares; spare != NULL; spare = spare->next) {
        count(&spare->link, facts->n_relay, now_us, facts);
    }
    count(tracking, facts->n_tracking, now_us, facts);
    if (link_is_up(tracking) && track != NULL) {
        facts->mode = track_mode_name(track);
        facts->watermark_age_us = now_us > track->watermark_us ? now_us - track->watermark_us : 0;
    }
}

static void ask_front(struct front *front, void *context)
{
    struct survey *survey = context;
    struct worker_facts *worker = &survey->workers[front->worker.index];
    const struct backend *backend = &front->backend;
    const int64_t now_us = clock_now_us();
    unsigned n = 0;

    for (const struct backend_node *node = backend->nodes; node != NULL; node = node->next) {
        n += node->info != NULL;
    }
    worker->nodes = mem_alloc((n + 1) * sizeof(worker->nodes[0]));
    for (const struct backend_node *node = backend->nodes; node != NULL; node = node->next) {
        if (node->info != NULL) {
            survey_node(node, now_us, &worker->nodes[worker->n++]);
        }
    }
    if (front == front->proxy->fronts && backend->topology != NULL) {
        survey->topology = topology_ref(backend->topology);
    }
}

/* ---- on the control thread ---- */

static const struct node_facts *find(const struct worker_facts *worker, epochs_node id)
{
    for (unsigned i = 0; i < worker->n; i++) {
        if (worker->nodes[i].id == id) {
            return &worker->nodes[i];
        }
    }
    return NULL;
}

static void add(struct node_facts *sum, const struct node_facts *facts)
{
    for (unsigned i = 0; i < N_WHERE; i++) {
        sum->n_tracking[i] += facts->n_tracking[i];
        sum->n_relay[i] += facts->n_relay[i];
    }
    sum->breaker = facts->breaker;
    sum->breaker_reason = facts->breaker_reason;
    if (facts->mode != NULL) {
        sum->mode = sum->mode == NULL || sum->mode == facts->mode ? facts->mode : "mixed";
    }
    if (facts->watermark_age_us > sum->watermark_age_us) {
        sum->watermark_age_us = facts->watermark_age_us;
    }
    if (facts->error[0] != '\0') {
        memcpy(sum->error, facts->error, sizeof(sum->error));
    }
}

static json_t *json_of_links(const unsigned n[N_WHERE])
{
    json_t *json = json_object();

    for (unsigned i = 0; i < N_WHERE; i++) {
        json_object_set_new(json, where_names[i], json_integer(n[i]));
    }
    return json;
}

static json_t *json_of_text(const char *text)
{
    return json_of_bytes(bytes_of_string(text));
}

static json_t *json_or_null(const char *text)
{
    return text != NULL && text[0] != '\0' ? json_of_text(text) : json_null();
}

static void name_of(const struct topology_node *node, char out[300])
{
    if (node == NULL) {
        out[0] = '\0';
    } else if (node->host[0] == '\0') {
        (void)snprintf(out, 300, "%s", node->endpoint.text);
    } else {
        (void)snprintf(out, 300, strchr(node->host, ':') != NULL ? "[%s]:%u" : "%s:%u", node->host,
                       node->port);
    }
}

static json_t *json_of_node(const struct survey *survey, unsigned index, unsigned n_slots)
{
    const struct topology_node *node = &survey->topology->nodes[index];
    struct node_facts sum = {0};
    char address[300], master[300] = "";

    for (unsigned i = 0; i < survey->n_workers; i++) {
        const struct node_facts *facts = find(&survey->workers[i], node->id);

        if (facts != NULL) {
            add(&sum, facts);
        }
    }
    name_of(node, address);
    if (!node->is_master) {
        name_of(topology_by_id(survey->topology, node->master), master);
    }
    return json_pack(
        "{s:o, s:s, s:o, s:b, s:i, s:{s:s, s:o}, s:{s:o, s:o}, s:{s:o, s:o}, s:o}", "address",
        json_of_text(address), "role", node->is_master ? "master" : "replica", "master",
        json_or_null(master), "healthy", node->is_healthy, "slots", (int)n_slots, "breaker",
        "state", breaker_state_name(sum.breaker), "reason", json_or_null(sum.breaker_reason),
        "links", "tracking", json_of_links(sum.n_tracking), "relay", json_of_links(sum.n_relay),
        "coherence", "mode", json_or_null(sum.mode), "watermark_age_ms",
        sum.mode != NULL ? json_integer(sum.watermark_age_us / 1000) : json_null(), "error",
        json_or_null(sum.error));
}

static json_t *json_of_nodes(const struct survey *survey)
{
    const struct topology *topology = survey->topology;
    json_t *list = json_array();
    unsigned *n_slots;

    if (topology == NULL) {
        return list;
    }
    n_slots = mem_alloc((topology->n_nodes + 1) * sizeof(*n_slots));
    for (unsigned slot = 0; slot < EPOCHS_SLOTS; slot++) {
        if (topology->slot_node[slot] < topology->n_nodes) {
            n_slots[topology->slot_node[slot]]++;
        }
    }
    for (unsigned i = 0; i < topology->n_nodes; i++) {
        json_array_append_new(list, json_of_node(survey, i, topology->is_cluster ? n_slots[i] : 0));
    }
    mem_free(n_slots);
    return list;
}

static void on_all_asked(void *context)
{
    struct survey *survey = context;

    survey->ready(json_of_nodes(survey), survey->context);
    for (unsigned i = 0; i < survey->n_workers; i++) {
        mem_free(survey->workers[i].nodes);
    }
    topology_unref(&survey->topology);
    mem_free(survey);
}

void nodes_gather(struct proxy *proxy, nodes_ready_fn ready, void *context)
{
    struct survey *survey = mem_alloc(sizeof(*survey) +
                                      proxy->n_fronts * sizeof(survey->workers[0]));

    survey->n_workers = proxy->n_fronts;
    survey->ready = ready;
    survey->context = context;
    proxy_on_all_workers(proxy, ask_front, on_all_asked, survey);
}
