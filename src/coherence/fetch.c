/*
 * Design: a miss becomes a flight in the cache's shard and two commands on a tracking link, PTTL
 * and the read itself, in one piece of output. PTTL makes the server track the key as well, so any
 * write between the two is announced between the two replies and voids the flight. Whoever joined
 * the flight is answered from the one reply: in place on this worker, by mail on the others.
 */
#include "coherence/early.h"
#include "coherence/modes.h"
#include "coherence/recent.h"
#include "coherence/track.h"
#include "upstream/replicas.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/stats.h"
#include "cache/hot_keys.h"
#include "resp/own.h"

#include <errno.h>
#include <stdio.h>

#define FETCH_MAGIC 0x66657463u
#define PTTL_MAX_MS INT64_C(4000000000000)
/* How long readers of a key whose reply was too large to keep go straight to the backend. */
#define OVERSIZED_US 10000000
/* So much longer the backend keeps what is worth to be read again before its end. */
#define RENEWABLE_US 50000

/* One fetch on its way: the flight's bytes on the link, or in the mail to its home's worker. */
struct fetch {
    uint32_t magic;
    struct link_op op;
    struct mail mail;
    struct coherence *coherence; /* who sends it */
    struct track *track;
    struct cache_flight *flight; /* NULL: given up, its reply means nothing */
    const struct command *command;
    const struct identity *identity;
    struct fetch *next, *prev; /* the worker's list, oldest first */
    int64_t began_at_us;
    int64_t pttl;
    uint8_t ns;
    bool knows_pttl, may_expire_fields;
    bool keeps_key;  /* stale-if-error: a fetch that shows nothing leaves what is held */
    bool is_drained; /* its reply is large, and read for nobody */
    size_t max_value;
    int64_t max_ttl_us, negative_ttl_us, grace_us, lease_us;
    unsigned jitter_percent;
    int coherence_mode;       /* what its namespace says */
    struct modes_bound bound; /* set when it is sent */
};

/* ---- answering ---- */

/* What the waiters of a flight get. */
struct fetch_answer {
    enum coherence_answer kind;
    enum cache_encoding encoding;
    struct bytes reply;
    int64_t until_us; /* the key's deadline at the backend: of no use to who asked later */
    uint64_t lease;   /* the key is missing, and this is its lease; 0: none */
    uint64_t hash, view;
};

/* The waiters of one other worker, with a copy of what they get. */
struct answer_mail {
    struct mail mail;
    struct coherence *coherence; /* of the worker */
    struct cache_waiter *first, **last;
    struct fetch_answer answer;
    unsigned char reply[];
};

/*
 * Who joined after the key had expired at the backend (I5) must not be shown what was read before:
 * that reader asks for itself.
 */
static void answer_one(struct coherence *coherence, struct cache_waiter *waiter,
                       const struct fetch_answer *answer)
{
    struct coherence_waiter *reader = CONTAINER_OF(waiter, struct coherence_waiter, waiter);
    const bool is_past = answer->kind == COHERENCE_REPLY && reader->asked_at_us > answer->until_us;

    if (NC_UNLIKELY(answer->lease != 0)) {
        reader->flight = NULL;
        switch (miss_leases_offer(coherence, reader, answer->lease, answer->hash, answer->view,
                                  answer->reply, answer->encoding)) {
        case MISS_HELD:
            return;
        case MISS_AGAIN:
            reader->on_answer(reader, COHERENCE_AGAIN, BYTES(""), CACHE_SAME_IN_BOTH);
            return;
        case MISS_PASS:
            reader->on_answer(reader, COHERENCE_MISSING, answer->reply, answer->encoding);
            return;
        }
    }
    reader->on_answer(reader, is_past ? COHERENCE_RELAY : answer->kind, answer->reply,
                      answer->encoding);
}

static void on_answer_mail(struct mail *arrived)
{
    struct answer_mail *mail = CONTAINER_OF(arrived, struct answer_mail, mail);
    struct cache_waiter *waiter = mail->first;

    while (waiter != NULL) {
        struct cache_waiter *const next = waiter->next;

        answer_one(mail->coherence, waiter, &mail->answer);
        waiter = next;
    }
    mem_free(mail);
}

static struct answer_mail *new_answer_mail(const struct fetch_answer *answer)
{
    struct answer_mail *mail = mem_try_alloc(sizeof(*mail) + answer->reply.len);

    if (mail != NULL) {
        mail->answer = *answer;
        mail->answer.reply.ptr = mail->reply;
        if (answer->reply.len > 0) {
            memcpy(mail->reply, answer->reply.ptr, answer->reply.len);
        }
    } else {
        /* No memory for a copy: these readers ask the backend themselves. */
        mail = mem_alloc(sizeof(*mail));
        mail->answer.kind = COHERENCE_RELAY;
    }
    mail->mail.run = on_answer_mail;
    mail->first = NULL;
    mail->last = &mail->first;
    return mail;
}

static void answer_all(struct coherence *coherence, struct cache_waiter *waiters,
                       const struct fetch_answer *answer)
{
    struct answer_mail *mails[64] = {NULL};

    while (waiters != NULL) {
        struct cache_waiter *const waiter = waiters;

        waiters = waiter->next;
        waiter->next = NULL;
        if (waiter->worker == coherence->worker->index) {
            answer_one(coherence, waiter, answer);
            continue;
        }
        if (mails[waiter->worker] == NULL) {
            mails[waiter->worker] = new_answer_mail(answer);
            mails[waiter->worker]->coherence = coherence->fleet->members[waiter->worker];
        }
        *mails[waiter->worker]->last = waiter;
        mails[waiter->worker]->last = &waiter->next;
    }
    for (unsigned i = 0; i < coherence->fleet->n_members; i++) {
        if (mails[i] != NULL) {
            worker_post(coherence->fleet->members[i]->worker, &mails[i]->mail);
        }
    }
}

/* ---- completing ---- */

static void unlist(struct fetch *fetch)
{
    struct coherence *coherence = fetch->coherence;

    if (fetch->prev != NULL) {
        fetch->prev->next = fetch->next;
    } else if (coherence->first_fetch == fetch) {
        coherence->first_fetch = fetch->next;
    }
    if (fetch->next != NULL) {
        fetch->next->prev = fetch->prev;
    } else if (coherence->last_fetch == fetch) {
        coherence->last_fetch = fetch->prev;
    }
    fetch->next = fetch->prev = NULL;
}

static void list(struct fetch *fetch)
{
    struct coherence *coherence = fetch->coherence;

    fetch->prev = coherence->last_fetch;
    if (coherence->last_fetch != NULL) {
        coherence->last_fetch->next = fetch;
    } else {
        coherence->first_fetch = fetch;
    }
    coherence->last_fetch = fetch;
}

/* Ends the flight without a fill and tells its readers what to do instead. */
static void give_up(struct fetch *fetch, enum coherence_answer answer, struct bytes reply)
{
    struct coherence *coherence = fetch->coherence;
    struct cache_waiter *waiters = NULL;

    if (fetch->flight == NULL) {
        return;
    }
    unlist(fetch);
    fetch->flight->keeps_key = fetch->keeps_key && answer != COHERENCE_REPLY;
    (void)cache_complete(coherence->cache, &fetch->flight, NULL, clock_now_us(),
                         coherence->config->max_staleness_ms * 1000, &waiters);
    fetch->flight = NULL;
    answer_all(
        coherence, waiters,
        &(struct fetch_answer){
            .kind = answer, .encoding = CACHE_SAME_IN_BOTH, .reply = reply, .until_us = INT64_MAX});
}

static bool starts_with(struct bytes reply, const char *prefix)
{
    return bytes_start_with(reply, bytes_of_string(prefix));
}

static void refresh_map(struct coherence *coherence)
{
    if (coherence->fleet->request_refresh != NULL) {
        coherence->fleet->request_refresh(coherence->fleet->refresh_context);
    }
}

/*
 * Errors go to all who wait and are never kept. Redirections are followed by relaying, and what
 * says "not now" is waited for there as long as may be.
 */
static void take_error(struct fetch *fetch, struct bytes reply)
{
    struct coherence *coherence = fetch->coherence;

    stats_ns_add(fetch->ns, NS_METRIC_fills_error, 1);
    if (starts_with(reply, "-ASK ") && fetch->flight != NULL) {
        epochs_disturb(cache_epochs(coherence->cache), fetch->flight->slot);
    }
    if (starts_with(reply, "-MOVED ") || starts_with(reply, "-ASK ") ||
        starts_with(reply, "-TRYAGAIN") || starts_with(reply, "-CLUSTERDOWN") ||
        starts_with(reply, "-MASTERDOWN") || starts_with(reply, "-READONLY") ||
        starts_with(reply, "-LOADING")) {
        refresh_map(coherence);
        give_up(fetch, COHERENCE_RELAY, BYTES(""));
        return;
    }
    give_up(fetch, COHERENCE_REPLY, reply);
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static bool is_cluster(const struct fetch *fetch)
{
    const struct topology *topology = fetch->coherence->backend->topology;

    return topology != NULL && topology->is_cluster;
}

/* What is left of the key; a deadline in the next geological age is no deadline. */
static int64_t pttl_us(const struct fetch *fetch)
{
    return earlier(fetch->pttl, PTTL_MAX_MS) * 1000;
}

/* How long what was fetched may be shown: bounds that keep it true, and no option softens. */
static int64_t truth_of(const struct fetch *fetch)
{
    const struct config *config = fetch->coherence->config;
    int64_t life_us = fetch->bound.max_life_us;

    if (fetch->pttl == -2 && is_cluster(fetch)) {
        /* While its slot is imported elsewhere a key is created there: no message comes. */
        life_us = earlier(life_us, config->max_staleness_ms * 1000);
    }
    if (fetch->identity != NULL) {
        /* What the user may read is asked of the backend again by then. */
        life_us = earlier(life_us, config->acl_max_age_ms * 1000);
    }
    if (fetch->may_expire_fields) {
        life_us = earlier(life_us, config->hash_ttl_cap_ms * 1000);
    }
    return life_us;
}

/* What the configuration allows for its own sake, shortened at random. */
static int64_t limit_of(const struct fetch *fetch)
{
    int64_t life_us = fetch->max_ttl_us;

    if (fetch->pttl == -2) {
        life_us = earlier(life_us, fetch->negative_ttl_us);
    }
    if (fetch->jitter_percent > 0) {
        life_us -= (int64_t)((double)life_us * fetch->jitter_percent / 100 *
                             ((double)early_random() / UINT32_MAX));
    }
    return life_us;
}

/*
 * Deadline, what may be shown behind it, and whether another fetch would move it. Within its grace
 * an entry is what the backend had, may have no more, and was not heard to have changed.
 */
static void set_end(const struct fetch *fetch, struct cache_fill *fill)
{
    const int64_t own_us = fetch->pttl >= 0 ? pttl_us(fetch) : INT64_MAX;
    const int64_t truth_us = truth_of(fetch);
    const int64_t life_us = earlier(earlier(own_us, limit_of(fetch)), truth_us);

    fill->deadline_us = fetch->flight->t_sent_us + life_us;
    fill->is_renewable = own_us - life_us > RENEWABLE_US;
    fill->grace_us = fetch->grace_us <= truth_us - life_us ? fetch->grace_us : 0;
}

static bool is_worth_keeping(const struct fetch *fetch, struct bytes reply, int64_t deadline_us,
                             int64_t now_us)
{
    return fetch->knows_pttl && deadline_us > now_us && reply.len <= fetch->max_value;
}

/* Before anybody is shown it. */
static void note_shown(const struct fetch *fetch, int64_t now_us)
{
    const struct coherence *coherence = fetch->coherence;
    const struct backend_node *node = fetch->track->node;
    const uint64_t hash = cache_hash(fetch->flight->key);

    if (NC_LIKELY(!coherence->backend->reads_replicas)) {
        return;
    }
    if (node->owner == node->id) {
        recent_note(coherence->fleet->recent, hash, now_us);
    } else {
        recent_note_replica(coherence->fleet->recent, hash, node->id, replicas_caught_up(node->id),
                            now_us);
    }
}

static void count_completion(const struct fetch *fetch, enum cache_completion completion,
                             size_t reply_bytes)
{
    switch (completion) {
    case CACHE_FILLED:
        stats_ns_add(fetch->ns, NS_METRIC_fills, 1);
        break;
    case CACHE_DECLINED:
        stats_ns_add(fetch->ns, NS_METRIC_fills_admission, 1);
        break;
    case CACHE_BANNED:
        stats_ns_add(fetch->ns, NS_METRIC_fills_ban, 1);
        break;
    case CACHE_VOIDED:
        if (reply_bytes <= fetch->max_value) {
            stats_ns_add(fetch->ns, NS_METRIC_fills_void, 1);
        }
        break;
    }
}

/* A missing key of a namespace with leases is not kept: who asks for it meets the lease. */
static bool is_leased(const struct fetch *fetch)
{
    return fetch->lease_us > 0 && fetch->knows_pttl && fetch->pttl == -2;
}

static struct miss_arming arm_lease(const struct fetch *fetch, int64_t now_us)
{
    const struct cache_flight *flight = fetch->flight;
    const struct miss_subject subject = {
        .key = flight->key,
        .hash = flight->hash,
        .scope = flight->db,
        .incarnation = flight->incarnation,
        .slot = flight->slot,
        .slot_word = flight->slot_word,
        .is_told = modes_is_told(fetch->track, fetch->coherence_mode, flight->incarnation),
        .ns = fetch->ns,
        .life_us = fetch->lease_us,
        .now_us = now_us,
    };
    const struct miss_arming arming = miss_leases_arm(fetch->coherence->fleet->leases, &subject);

    if (arming.number == 0) {
        stats_ns_add(fetch->ns, NS_METRIC_lease_passes_limit, 1);
    }
    return arming;
}

/* Ends the flight of a key that is there: who has its lease is done. */
static enum cache_completion complete(struct fetch *fetch, const struct cache_fill *fill,
                                      int64_t now_us, struct cache_waiter **waiters)
{
    struct coherence *coherence = fetch->coherence;
    struct cache_flight *flight = fetch->flight;
    unsigned char key[MISS_KEY_MAX];
    const size_t key_len = flight->key.len;
    const uint64_t hash = flight->hash;
    const uint32_t scope = flight->db;
    const bool may_have_lease = fetch->lease_us > 0 && key_len <= sizeof(key);
    enum cache_completion completion;

    if (may_have_lease && key_len > 0) {
        memcpy(key, flight->key.ptr, key_len);
    }
    completion = cache_complete(coherence->cache, &fetch->flight, fill, now_us,
                                coherence->config->max_staleness_ms * 1000, waiters);
    if (may_have_lease) {
        miss_leases_found(coherence->fleet->leases, bytes_make(key, key_len), hash, scope);
    }
    return completion;
}

/* That of a missing key, whose readers are offered to its lease. */
static void complete_missing(struct fetch *fetch, const struct cache_fill *fill, int64_t now_us,
                             struct cache_waiter **waiters, struct fetch_answer *answer)
{
    struct coherence *coherence = fetch->coherence;
    const uint64_t hash = fetch->flight->hash;
    const struct miss_arming arming = arm_lease(fetch, now_us);

    answer->lease = arming.number;
    answer->hash = hash;
    answer->view = miss_view(fetch->flight->command, fetch->flight->args);
    if (cache_complete(coherence->cache, &fetch->flight, fill, now_us,
                       coherence->config->max_staleness_ms * 1000, waiters) == CACHE_DECLINED) {
        miss_leases_confirm(coherence->fleet->leases, hash, &arming);
    }
}

static void take_reply(struct fetch *fetch, struct bytes reply)
{
    struct coherence *coherence = fetch->coherence;
    const int64_t now_us = clock_now_us();
    struct cache_waiter *waiters = NULL;
    struct cache_fill fill = {
        .reply = reply,
        .encoding = fetch->track->link->is_resp2 || resp_is_same_in_both(reply) ? CACHE_SAME_IN_BOTH
                                                                                : CACHE_RESP3,
        .ns = fetch->ns,
        .is_negative = fetch->pttl == -2,
        .max_key_bytes = fetch->max_value,
        .is_sole = fetch->bound.is_sole,
    };
    struct fetch_answer answer = {
        .kind = COHERENCE_REPLY, .encoding = fill.encoding, .reply = reply, .until_us = INT64_MAX};

    set_end(fetch, &fill);
    hot_keys_note(HOT_BYTES, fetch->flight->hash, fetch->flight->key, reply.len);
    hot_keys_size(fetch->flight->hash, fetch->flight->key, reply.len);
    const bool may_keep = is_worth_keeping(fetch, reply, fill.deadline_us, now_us);
    if (fetch->pttl >= 0) {
        answer.until_us = fetch->flight->t_sent_us + pttl_us(fetch);
    }
    if (reply.len > fetch->max_value) {
        cache_note_oversized(coherence->cache, fetch->flight->hash, now_us + OVERSIZED_US);
        stats_ns_add(fetch->ns, NS_METRIC_fills_large, 1);
    }
    note_shown(fetch, now_us);
    early_note_fetch(coherence->fleet->early, fetch->ns, now_us - fetch->began_at_us);
    fill.is_unwanted = is_leased(fetch);
    unlist(fetch);
    if (NC_UNLIKELY(fill.is_unwanted)) {
        complete_missing(fetch, &fill, now_us, &waiters, &answer);
    } else {
        count_completion(fetch, complete(fetch, may_keep ? &fill : NULL, now_us, &waiters),
                         reply.len);
    }
    answer_all(coherence, waiters, &answer);
}

/* ---- the link's side ---- */

static void take_pttl(struct fetch *fetch, struct bytes reply)
{
    struct bytes at = reply;
    struct resp_value value;

    fetch->knows_pttl = resp_next(&at, &value) && value.type == ':' &&
                        bytes_to_int64(value.text, &fetch->pttl) && fetch->pttl != 0;
}

/* What a string says of its size; of other replies nobody knows before they have come. */
static size_t announced_bytes(struct bytes part)
{
    const unsigned char *end = memchr(part.ptr, '\r', part.len < 24 ? part.len : 24);
    int64_t length;

    if (part.ptr[0] != '$' || end == NULL ||
        !bytes_to_int64(bytes_make(part.ptr + 1, (size_t)(end - part.ptr) - 1), &length) ||
        length < 0) {
        return part.len;
    }
    return (size_t)length;
}

/*
 * Larger than anything tier 1 keeps: its readers stream it from another link. When it is so large
 * that what stands behind it would notice, that goes another way as well until it has been read;
 * tier 1 goes on to answer what it holds, as long as the watermark is young enough.
 */
static void take_beginning(struct fetch *fetch, struct bytes part)
{
    struct coherence *coherence = fetch->coherence;
    const bool is_large = resp_is_large(part, coherence->config->large_reply);

    if (fetch->flight != NULL) {
        hot_keys_size(fetch->flight->hash, fetch->flight->key, announced_bytes(part));
        cache_note_oversized(coherence->cache, fetch->flight->hash, clock_now_us() + OVERSIZED_US);
        stats_ns_add(fetch->ns, NS_METRIC_fills_large, 1);
        give_up(fetch, is_large ? COHERENCE_LARGE : COHERENCE_RELAY, BYTES(""));
    }
    if (is_large) {
        stats_add(METRIC_large_repeated, 1);
        fetch->is_drained = fetch->track->is_draining = true;
        fetch_give_way(fetch->track);
    }
}

static void on_fetch_reply(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                           bool is_first, bool is_last)
{
    struct fetch *fetch = CONTAINER_OF(op, struct fetch, op);

    (void)link;
    CHECK(fetch->magic == FETCH_MAGIC);
    if (index == 0) {
        if (is_last) {
            take_pttl(fetch, part);
        }
        return;
    }
    if (is_first && !is_last) {
        take_beginning(fetch, part);
    } else if (fetch->flight != NULL) {
        if (part.ptr[0] == '-' || part.ptr[0] == '!') {
            take_error(fetch, part);
        } else {
            take_reply(fetch, part);
        }
    }
    if (is_last) {
        fetch->track->is_draining = fetch->track->is_draining && !fetch->is_drained;
        track_advance(fetch->track, op->sent_at_us);
        mem_free(fetch);
    }
}

static void on_fetch_lost(struct link_op *op, struct link *link, enum link_loss loss)
{
    struct fetch *fetch = CONTAINER_OF(op, struct fetch, op);

    (void)link;
    /* A link that died of silence would let its readers wait again: they ask the backend. */
    give_up(fetch, loss == LINK_LOST_TIMEOUT ? COHERENCE_RELAY : COHERENCE_RETRY, BYTES(""));
    mem_free(fetch);
}

static const struct link_op_type fetch_type = {on_fetch_reply, on_fetch_lost};

void fetch_give_way(struct track *track)
{
    struct fetch *fetch = track->coherence->first_fetch;

    while (fetch != NULL) {
        struct fetch *const next = fetch->next;

        if (fetch->track == track) {
            give_up(fetch, COHERENCE_RELAY, BYTES(""));
        }
        fetch = next;
    }
}

static unsigned count_args(struct bytes args)
{
    unsigned n = 0;

    while (args.len > 0 && resp_skip(&args)) {
        n++;
    }
    return n;
}

/* PTTL key, then the command itself: args are its further arguments as they stood on the wire. */
static int send_fetch(struct fetch *fetch)
{
    const struct cache_flight *flight = fetch->flight;
    const char *name = fetch->command->name;
    char pttl[64], head[96];
    struct bytes parts[7];
    const int n_pttl = snprintf(pttl, sizeof(pttl), OWN_PTTL "$%zu\r\n", flight->key.len);
    const int n_head = snprintf(head, sizeof(head), "\r\n*%u\r\n$%zu\r\n%s\r\n$%zu\r\n",
                                2 + count_args(flight->args), strlen(name), name, flight->key.len);

    parts[0] = bytes_make(pttl, (size_t)n_pttl);
    parts[1] = flight->key;
    parts[2] = bytes_make(head, (size_t)n_head);
    parts[3] = flight->key;
    parts[4] = BYTES("\r\n");
    parts[5] = flight->args;
    return link_send(fetch->track->link, cache_scope_db(flight->db), parts,
                     flight->args.len > 0 ? 6 : 5, 2, &fetch->op);
}

/*
 * That of the incarnation, or any if it is shared (the flight was begun for this worker's link
 * then), among those to the owner of the slot and to its replicas; or NULL.
 */
static struct track *find_track(const struct fetch *fetch, struct backend_node *owner,
                                bool is_shared)
{
    struct backend *backend = fetch->coherence->backend;
    struct backend_node *node = owner;

    if (is_shared) {
        return backend_as(backend, owner, fetch->identity)->track;
    }
    while (node != NULL) {
        struct track *track = backend_as(backend, node, fetch->identity)->track;

        if (track->incarnation == fetch->flight->incarnation) {
            return track;
        }
        node = backend_next_replica(backend, owner, node == owner ? NULL : node);
    }
    return NULL;
}

/* On the worker whose link must carry it. */
static void launch(struct fetch *fetch)
{
    struct coherence *coherence = fetch->coherence;
    const struct cache_flight *flight = fetch->flight;
    const struct epochs_incarnation *incarnation = epochs_at(cache_epochs(coherence->cache),
                                                             flight->incarnation);
    const bool is_shared = atomic_load_explicit(&incarnation->shared, memory_order_relaxed) != 0;
    struct backend_node *node = backend_by_id(coherence->backend, incarnation->node);

    list(fetch);
    fetch->track = node != NULL ? find_track(fetch, node, is_shared) : NULL;
    if (fetch->track != NULL && fetch->track->is_draining) {
        give_up(fetch, COHERENCE_RELAY, BYTES(""));
        mem_free(fetch);
        return;
    }
    if (fetch->track != NULL) {
        fetch->bound = modes_bound_of(fetch->track, fetch->coherence_mode, flight->incarnation);
    }
    if (fetch->track == NULL || !link_is_up(fetch->track->link) || send_fetch(fetch) != 0) {
        /*
         * The link it was meant for is gone, or full. A new link may not carry it: what the
         * session read on the old one is asked for again later, and would be newer.
         */
        give_up(fetch, COHERENCE_RETRY, BYTES(""));
        mem_free(fetch);
        return;
    }
    stats_ns_add(fetch->ns, NS_METRIC_fetches, 1);
    if (fetch->track->node->owner != fetch->track->node->id) {
        stats_add(METRIC_replica_fetches, 1);
    }
}

static void on_handed_over(struct mail *mail)
{
    launch(CONTAINER_OF(mail, struct fetch, mail));
}

static struct fetch *new_fetch(struct coherence *coherence, struct cache_flight *flight,
                               const struct command *command)
{
    const struct config_namespace *ns = config_namespace_of(coherence->config, flight->key);
    const struct topology *topology = coherence->backend->topology;
    struct fetch *fetch = mem_alloc(sizeof(*fetch));

    fetch->magic = FETCH_MAGIC;
    fetch->op.type = &fetch_type;
    fetch->mail.run = on_handed_over;
    fetch->flight = flight;
    fetch->command = command;
    fetch->ns = ns->id;
    fetch->began_at_us = flight->t_sent_us;
    fetch->max_value = ns->max_value;
    fetch->coherence_mode = ns->coherence;
    fetch->keeps_key = ns->stale_if_error_ms > 0;
    fetch->op.collect = ns->max_value > LINK_COLLECT_MIN ? ns->max_value : LINK_COLLECT_MIN;
    fetch->max_ttl_us = ns->max_ttl_ms * 1000;
    fetch->negative_ttl_us = ns->negative_ttl_ms * 1000;
    fetch->grace_us = ns->stale_while_revalidate_ms * 1000;
    fetch->lease_us = ns->cache ? ns->miss_lease_ms * 1000 : 0;
    fetch->jitter_percent = (unsigned)ns->ttl_jitter;
    fetch->may_expire_fields = topology != NULL && topology->has_field_ttl &&
                               command->name[0] == 'h';
    return fetch;
}

/* Rendezvous hashing: the highest weight wins, so a replica that goes takes only its own keys. */
static uint64_t weight_of(uint64_t hash, epochs_node node)
{
    uint64_t mixed = (hash ^ node) * UINT64_C(0x9e3779b97f4a7c15);

    mixed = (mixed ^ mixed >> 32) * UINT64_C(0x9e3779b97f4a7c15);
    return mixed ^ mixed >> 29;
}

/*
 * The replica that shows this key, always the same one while it can; or NULL: its link is down, or
 * it is not proven to have what was shown before.
 */
static struct backend_node *choose_replica(struct coherence *coherence,
                                           const struct cache_query *query,
                                           const struct identity *identity,
                                           const struct backend_node *owner)
{
    struct backend *backend = coherence->backend;
    struct backend_node *best = NULL;
    uint64_t best_weight = 0;

    for (struct backend_node *node = backend_next_replica(backend, owner, NULL); node != NULL;
         node = backend_next_replica(backend, owner, node)) {
        const uint64_t weight = weight_of(query->hash, node->id);
        const int64_t caught_up_us = replicas_caught_up(node->id);
        struct backend_node *as_user = backend_as(backend, node, identity);

        link_wake(&as_user->links[LINK_TRACKING]);
        if ((best == NULL || weight > best_weight) && track_is_coherent(as_user->track) &&
            track_has_caught_up(as_user->track, query->now_us) &&
            recent_allows(coherence->fleet->recent, query->hash, node->id, caught_up_us) &&
            track_incarnation(as_user->track, query->now_us) != EPOCHS_NONE) {
            best = as_user;
            best_weight = weight;
        }
    }
    return best;
}

/* Which node is asked for what tier 1 lacks; NULL: nobody is known. */
static struct backend_node *choose_node(struct coherence *coherence,
                                        const struct cache_query *query,
                                        const struct identity *identity, unsigned slot,
                                        const struct config_namespace *ns)
{
    struct backend_node *owner = backend_owner(coherence->backend, slot);
    struct backend_node *replica = NULL;

    if (owner == NULL) {
        return NULL;
    }
    if (NC_UNLIKELY(coherence->backend->reads_replicas) && ns->replica_reads &&
        modes_now(owner->track, ns->coherence) == COHERENCE_TRACKING) {
        replica = choose_replica(coherence, query, identity, owner);
    }
    return replica != NULL ? replica : backend_as(coherence->backend, owner, identity);
}

/* The link that may fetch the key now. True: there is a node to ask. */
static bool make_offer(struct coherence *coherence, const struct cache_query *query,
                       const struct identity *identity, const struct config_namespace *ns,
                       struct cache_offer *offer)
{
    const unsigned slot = coherence->backend->topology != NULL &&
                                  coherence->backend->topology->is_cluster
                              ? command_key_slot(query->key)
                              : 0;
    struct backend_node *node = choose_node(coherence, query, identity, slot, ns);

    offer->worker = (uint8_t)coherence->worker->index;
    if (node == NULL) {
        return false;
    }
    link_wake(&node->links[LINK_TRACKING]);
    offer->node = node->owner;
    /* What a node has not been proven fit for is not sent to it, to whichever link. */
    offer->incarnation = NC_UNLIKELY(health_refuses(node->health))
                             ? EPOCHS_NONE
                             : modes_incarnation(node->track, ns->coherence, query->now_us);
    return true;
}

/* A flight has been begun: its fetch, on its home's worker. */
static void send_off(struct coherence *coherence, struct cache_flight *flight,
                     const struct command *command, const struct identity *identity)
{
    struct fetch *fetch = new_fetch(coherence, flight, command);

    fetch->identity = identity;
    fetch->coherence = coherence->fleet->members[flight->worker];
    if (fetch->coherence == coherence) {
        launch(fetch);
    } else {
        stats_add(METRIC_handoffs, 1);
        worker_post(fetch->coherence->worker, &fetch->mail);
    }
}

/*
 * A look-up that was begun when the namespace was kept may come again when it no longer is; and
 * while a configuration is on its way, nothing is fetched.
 */
static bool may_fill(const struct coherence *coherence, const struct config_namespace *ns)
{
    return ns->cache && NC_LIKELY(!coherence->holds_fills);
}

bool early_refresh(struct coherence *coherence, const struct cache_query *query,
                   const struct command *command, const struct identity *identity)
{
    const struct config_namespace *ns = config_namespace_of(coherence->config, query->key);
    struct cache_offer offer = {.may_begin = true};
    struct cache_flight *flight = NULL;

    if (!may_fill(coherence, ns) || !make_offer(coherence, query, identity, ns, &offer) ||
        !cache_refresh(coherence->cache, query, &offer, &flight)) {
        return false;
    }
    stats_ns_add(ns->id, NS_METRIC_refreshes, 1);
    send_off(coherence, flight, command, identity);
    return true;
}

/* Somebody computes the key already: the reader waits, and nobody asks the backend. */
static bool is_held(struct coherence *coherence, const struct cache_query *query,
                    const struct config_namespace *ns, struct coherence_waiter *waiter)
{
    const struct miss_subject subject = {
        .key = query->key,
        .hash = query->hash,
        .scope = query->db,
        .view = miss_view(query->command, query->args),
        .ns = ns->id,
        .now_us = query->now_us,
    };

    return waiter->miss.client != NULL && miss_leases_hold(coherence, waiter, &subject);
}

enum cache_outcome coherence_read(struct coherence *coherence, const struct cache_query *query,
                                  const struct command *command, struct coherence_waiter *waiter,
                                  const struct coherence_order *order, unsigned char *copy_to,
                                  struct cache_hit *hit, enum coherence_refusal *refusal)
{
    const struct config_namespace *ns = config_namespace_of(coherence->config, query->key);
    struct cache_offer offer = {
        .own = order->own,
        .n_own = order->n_own,
        .may_hit = order->may_hit,
        .may_begin = order->may_begin,
    };
    struct cache_flight *flight = NULL;
    enum cache_outcome outcome;

    *refusal = REFUSED_NOT;
    (void)make_offer(coherence, query, waiter->identity, ns, &offer);
    waiter->flight = NULL;
    waiter->has_begun = false;
    waiter->asked_at_us = query->now_us;
    waiter->waiter.worker = offer.worker;
    if (!may_fill(coherence, ns)) {
        *refusal = REFUSED_CACHE;
        return CACHE_RELAY;
    }
    if (NC_UNLIKELY(ns->miss_lease_ms > 0) && is_held(coherence, query, ns, waiter)) {
        return CACHE_JOINED;
    }
    outcome = cache_lookup(coherence->cache, query, &offer,
                           (unsigned)coherence->config->max_waiters, &waiter->waiter, copy_to, hit,
                           &flight);
    if (outcome == CACHE_JOINED || outcome == CACHE_BEGUN) {
        waiter->flight = flight;
    }
    if (outcome == CACHE_RELAY) {
        *refusal = offer.incarnation == EPOCHS_NONE ? REFUSED_LINK : REFUSED_CACHE;
    }
    if (outcome == CACHE_BEGUN) {
        waiter->has_begun = true;
        send_off(coherence, flight, command, waiter->identity);
    }
    return outcome;
}

/* Readers whose fetch is overdue ask the backend themselves; its reply, should it come, fills
 * nothing. */
void fetch_expire(struct coherence *coherence, int64_t now_us)
{
    const int64_t limit_us = coherence->config->flight_timeout_ms * 1000;

    while (coherence->first_fetch != NULL &&
           now_us - coherence->first_fetch->began_at_us > limit_us) {
        stats_add(METRIC_flights_overdue, 1);
        give_up(coherence->first_fetch, COHERENCE_RELAY, BYTES(""));
    }
}
