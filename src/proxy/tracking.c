/*
 * Design: a client's read is remembered (tracked.h) before it is looked up. What changes at the
 * backend is heard by the tracking links, which read whatever tier 1 holds: so a view that tier 1
 * shows, or has evicted since, is covered by the link that fetched it. Relayed reads are made known
 * to the links first (touch.h).
 *
 * Redis sends a reply before the message that makes it void. Here both may come over different
 * connections; so a message that concerns an unanswered read takes a place in the session's queue
 * (a notice) behind it. That costs at worst a message too many.
 *
 * NOLOOP: after a client's own write Redis remembers the key for it no longer. Nothing is promised
 * for it until it is read again; that is what makes it safe to leave out the message that comes
 * with the reply, though it may be of another client's write a moment earlier. With BCAST it is
 * sent all the same: Redis tells once of all that one turn of its loop wrote, so the message may
 * be of somebody's write behind our client's as well, which nobody would hear of any more.
 */
#include "proxy/tracking.h"

#include "base/mem.h"
#include "base/stats.h"
#include "proxy/group.h"
#include "proxy/key_run.h"
#include "proxy/relay.h"
#include "proxy/request.h"
#include "proxy/tracker.h"
#include "proxy/transaction.h"

/* Entries freed per tick after everything became void. */
#define SWEEP_MAX 20000
/* Under memory pressure: the part of client-tracking-keys that is kept, and how many go for one
 * that comes. */
#define TIGHT_SHARE 16u
#define TIGHT_STEP 16u

/* For /metrics; no order with anything else is needed. */
static _Atomic unsigned n_clients, n_keys;

unsigned tracking_count_clients(void)
{
    return atomic_load_explicit(&n_clients, memory_order_relaxed);
}

unsigned tracking_count_keys(void)
{
    return atomic_load_explicit(&n_keys, memory_order_relaxed);
}

static void count_keys(struct tracking *tracking)
{
    atomic_fetch_add_explicit(&n_keys, tracking->keys.n - tracking->n_counted,
                              memory_order_relaxed);
    tracking->n_counted = tracking->keys.n;
}

void tracking_free(struct tracking **tracking)
{
    tracked_fini(&(*tracking)->keys);
    count_keys(*tracking);
    topic_table_fini(&(*tracking)->trackers);
    topic_table_fini(&(*tracking)->targets);
    mem_free(*tracking);
    *tracking = NULL;
}

/* ---- who ---- */

static struct topic_key key_of_id(const uint64_t *id)
{
    return (struct topic_key){.name = bytes_make(id, sizeof(*id))};
}

static struct tracker *find_tracker(const struct tracking *tracking, uint64_t id)
{
    const struct topic_key key = key_of_id(&id);
    struct topic *topic = topic_find(&tracking->trackers, &key);

    return topic != NULL ? CONTAINER_OF(topic, struct tracker, by_id) : NULL;
}

static bool is_gone(void *tracking, uint64_t client)
{
    return find_tracker(tracking, client) == NULL;
}

struct tracking *tracking_new(struct front *front)
{
    struct tracking *tracking = mem_alloc(sizeof(*tracking));

    tracking->front = front;
    tracking->keys.is_gone = is_gone;
    tracking->keys.context = tracking;
    return tracking;
}

static struct target *find_target(const struct tracking *tracking, uint64_t id)
{
    const struct topic_key key = key_of_id(&id);
    struct topic *topic = topic_find(&tracking->targets, &key);

    return topic != NULL ? CONTAINER_OF(topic, struct target, by_id) : NULL;
}

struct tracker *tracker_new(struct session *session)
{
    struct tracker *tracker = mem_alloc(sizeof(*tracker));
    const struct topic_key key = key_of_id(&session->id);

    tracker->session = session;
    buffer_init(&tracker->prefixes);
    buffer_init(&tracker->wanted_prefixes);
    topic_add(&session->front->tracking->trackers, &tracker->by_id, &key);
    session->tracker = tracker;
    return tracker;
}

struct tracker *tracker_first(struct tracking *tracking)
{
    tracking->next_told = topic_next(&tracking->trackers, NULL);
    return tracker_next(tracking);
}

struct tracker *tracker_next(struct tracking *tracking)
{
    struct topic *topic = tracking->next_told;

    if (topic == NULL) {
        return NULL;
    }
    tracking->next_told = topic_next(&tracking->trackers, topic);
    return CONTAINER_OF(topic, struct tracker, by_id);
}

void tracker_set_on(struct tracker *tracker, bool is_on)
{
    struct front *front = tracker->session->front;

    if (tracker->is_on == is_on) {
        return;
    }
    tracker->is_on = is_on;
    if (is_on) {
        /* Seq_cst: whoever changes tier 1 after we have read it sees that we are to be told. */
        atomic_fetch_add(&front->n_trackers, 1);
        atomic_fetch_add_explicit(&n_clients, 1, memory_order_relaxed);
    } else {
        atomic_fetch_sub(&front->n_trackers, 1);
        atomic_fetch_sub_explicit(&n_clients, 1, memory_order_relaxed);
    }
}

void tracker_free(struct session *session)
{
    struct tracker *tracker = session->tracker;
    struct tracking *tracking = session->front->tracking;

    if (tracking->next_told == &tracker->by_id) {
        (void)tracker_next(tracking);
    }
    tracker_set_on(tracker, false);
    session->tracker = NULL;
    touch_abandon(&tracker->touch);
    broadcast_leave(&tracker->broadcast);
    broadcast_leave(&tracker->wanted_broadcast);
    topic_remove(&tracking->trackers, &tracker->by_id);
    buffer_fini(&tracker->prefixes);
    buffer_fini(&tracker->wanted_prefixes);
    mem_free(tracker);
}

void tracking_end(struct session *session)
{
    struct target *target = session->is_target ? find_target(session->front->tracking, session->id)
                                               : NULL;

    if (session->tracker != NULL) {
        struct request *request = session->tracker->request;

        session->tracker->request = NULL;
        tracker_free(session);
        if (request != NULL) {
            request_done(request); /* an orphan: the client is gone */
        }
    }
    if (target != NULL && session->is_closed) {
        topic_remove(&session->front->tracking->targets, &target->by_id);
        mem_free(target);
    }
}

void tracker_make_target(struct session *session)
{
    const struct topic_key key = key_of_id(&session->id);
    struct target *target;

    if (session->is_target) {
        return;
    }
    target = mem_alloc(sizeof(*target));
    target->session = session;
    topic_add(&session->front->tracking->targets, &target->by_id, &key);
    session->is_target = true;
}

bool tracking_is_on(const struct session *session)
{
    return session->tracker != NULL && session->tracker->is_on;
}

bool tracking_is_broadcast(const struct session *session)
{
    return tracking_is_on(session) && session->tracker->options.is_broadcast;
}

bool tracking_is_broken(const struct session *session)
{
    return tracking_is_on(session) && session->tracker->is_broken;
}

int64_t tracking_redirection(const struct session *session)
{
    return tracking_is_on(session) ? (int64_t)session->tracker->options.redirect : -1;
}

/* ---- messages ---- */

/* An invalidation as a push, or as RESP2's message to a subscriber. False: no memory. */
static bool compose(struct buffer *out, unsigned proto, struct bytes keys)
{
    struct resp_writer writer = {.out = out, .is_resp3 = proto == 3};
    struct bytes rest = keys, key;
    size_t n = 0;

    if (proto == 3) {
        resp_put_raw(&writer, BYTES(">2\r\n"));
        resp_put_string(&writer, "invalidate");
    } else {
        resp_put_raw(&writer, BYTES(">3\r\n"));
        resp_put_string(&writer, "message");
        resp_put_string(&writer, "__redis__:invalidate");
    }
    if (keys.len == 0) {
        resp_put_null(&writer);
        return !writer.has_failed;
    }
    while (key_run_next(&rest, &key)) {
        n++;
    }
    resp_put_array(&writer, n);
    rest = keys;
    while (key_run_next(&rest, &key)) {
        resp_put_bulk(&writer, key);
    }
    return !writer.has_failed;
}

static void push(struct session *session, struct bytes keys)
{
    struct buffer frame;

    buffer_init(&frame);
    if (!compose(&frame, session->proto, keys)) {
        session_close(session);
    } else if (session_push(session, buffer_bytes(&frame))) {
        stats_add(keys.len > 0 ? METRIC_client_invalidations : METRIC_client_flushes, 1);
    }
    buffer_fini(&frame);
}

/* On its way to the client that another one redirects to, and back if there is none. */
struct redirected {
    struct mail mail;
    struct front *from, *to;
    uint64_t client, target;
    size_t len;
    unsigned char keys[];
};

static void take_broken(struct front *front, uint64_t client, uint64_t target)
{
    struct tracker *tracker = find_tracker(front->tracking, client);
    char frame[96];
    int length;

    if (tracker == NULL || !tracker->is_on || tracker->options.redirect != target) {
        return;
    }
    tracker->is_broken = true;
    if (tracker->session->proto == 3) {
        length = snprintf(frame, sizeof(frame), ">2\r\n$21\r\ntracking-redir-broken\r\n:%llu\r\n",
                          (unsigned long long)target);
        (void)session_push(tracker->session, bytes_make(frame, (size_t)length));
    }
}

static void on_broken(struct mail *mail)
{
    struct redirected *redirected = CONTAINER_OF(mail, struct redirected, mail);

    take_broken(redirected->from, redirected->client, redirected->target);
    mem_free(redirected);
}

/* False: there is no such client any more. */
static bool take_redirected(struct front *front, uint64_t id, struct bytes keys)
{
    const struct target *target = find_target(front->tracking, id);

    if (target == NULL) {
        return false;
    }
    if (target->session->proto == 3 || target->session->subscriber != NULL) {
        push(target->session, keys);
    }
    return true;
}

static void on_redirected(struct mail *mail)
{
    struct redirected *redirected = CONTAINER_OF(mail, struct redirected, mail);

    if (take_redirected(redirected->to, redirected->target,
                        bytes_make(redirected->keys, redirected->len))) {
        mem_free(redirected);
        return;
    }
    redirected->mail.run = on_broken;
    worker_post(&redirected->from->worker, &redirected->mail);
}

static void redirect(struct tracker *tracker, struct bytes keys)
{
    struct front *front = tracker->session->front;
    const struct tracking_options *options = &tracker->options;
    struct redirected *redirected;

    if (options->redirect_front == front) {
        if (!take_redirected(front, options->redirect, keys)) {
            take_broken(front, tracker->session->id, options->redirect);
        }
        return;
    }
    redirected = mem_try_alloc(sizeof(*redirected) + keys.len);
    if (redirected == NULL) {
        session_close(tracker->session);
        return;
    }
    *redirected = (struct redirected){.mail = {.run = on_redirected},
                                      .from = front,
                                      .to = options->redirect_front,
                                      .client = tracker->session->id,
                                      .target = options->redirect,
                                      .len = keys.len};
    memcpy(redirected->keys, keys.ptr, keys.len);
    worker_post(&options->redirect_front->worker, &redirected->mail);
}

/* Now: nothing that it concerns is unanswered. */
static void tell(struct tracker *tracker, struct bytes keys)
{
    if (tracker->options.redirect != 0) {
        redirect(tracker, keys);
    } else if (tracker->session->proto == 3) {
        push(tracker->session, keys);
    }
}

void tracking_tell(struct session *session, const struct request *notice)
{
    if (tracking_is_on(session)) {
        tell(session->tracker, bytes_make(notice->stored, notice->stored_bytes));
    }
}

/* No memory for the keys makes it a notice of everything. It counts as output that waits. */
static void make_notice(struct request *notice, struct bytes keys)
{
    notice->is_notice = true;
    notice->is_tracked = notice->is_own_write = notice->is_muted = false;
    notice->stored_bytes = 0;
    if (request_store(notice, keys) != 0) {
        notice->stored_bytes = 0;
    }
    notice->held_bytes = sizeof(*notice) + notice->stored_bytes;
    notice->session->held_bytes += notice->held_bytes;
}

/* The session may be closed over it. */
static void queue_notice(struct session *session, struct bytes keys)
{
    struct request *notice = request_queue(session, REQUEST_LOCAL, NULL);

    make_notice(notice, keys);
    request_done(notice);
    (void)session_check_output(session);
}

/* A reply that is still to come may show what is void by now. */
static bool concerns_unanswered(const struct session *session, struct bytes keys)
{
    const uint64_t mask = session->cached_mask | session->relayed_mask;
    struct bytes key;

    if (session->first == NULL || session->first->is_blocking) {
        return false; /* what blocks shows nothing that a client keeps */
    }
    if (keys.len == 0) {
        return true;
    }
    while (key_run_next(&keys, &key)) {
        if ((mask & key_bit(cache_hash(key))) != 0) {
            return true;
        }
    }
    /* A hit that waits for its turn is in no mask. */
    for (const struct request *request = session->first; request != NULL; request = request->next) {
        if (request->is_tracked) {
            return true;
        }
    }
    return false;
}

void tracker_deliver(struct tracker *tracker, struct bytes keys)
{
    if (tracker->touch_state == TOUCH_PENDING || tracker->touch_state == TOUCH_HEARD) {
        tracker->touch_state = TOUCH_FAILED; /* it may have been of that key, and was used up */
        touch_abandon(&tracker->touch);
        session_wake(tracker->session);
    }
    if (concerns_unanswered(tracker->session, keys)) {
        queue_notice(tracker->session, keys);
    } else {
        tell(tracker, keys);
    }
}

/* ---- what changed ---- */

struct change {
    struct front *front;
    struct bytes run; /* of the one key */
};

static void tell_client(void *context, uint64_t id)
{
    const struct change *change = context;
    struct tracker *tracker = find_tracker(change->front->tracking, id);

    if (tracker != NULL && tracker->is_on && !tracker->options.is_broadcast) {
        tracker_deliver(tracker, change->run);
    }
}

/* run: of one key, in memory of its own. */
static void take_change(struct front *front, struct bytes run)
{
    struct change change = {front, run};
    struct bytes rest = run, key;

    if (key_run_next(&rest, &key)) {
        tracked_take(&front->tracking->keys, key, tell_client, &change);
        count_keys(front->tracking);
    }
}

/* BCAST clients too: tier 1 may have shown them what it had not heard of. */
static void forget(struct front *front)
{
    struct tracking *tracking = front->tracking;

    tracked_void(&tracking->keys);
    for (struct tracker *tracker = tracker_first(tracking); tracker != NULL;
         tracker = tracker_next(tracking)) {
        if (tracker->is_on && (tracker->options.is_broadcast || tracker->has_keys)) {
            tracker->has_keys = false;
            tracker_deliver(tracker, BYTES(""));
        }
    }
}

/* keys: in the form of key_run.h. */
static void take_changes(struct front *front, struct bytes keys)
{
    struct bytes key;

    if (keys.len == 0) {
        forget(front);
        return;
    }
    while (keys.len > 0) {
        const unsigned char *const begin = keys.ptr;

        if (!key_run_next(&keys, &key)) {
            return;
        }
        take_change(front, bytes_make(begin, (size_t)(keys.ptr - begin)));
    }
}

struct announcement {
    struct mail mail;
    struct front *front;
    size_t len;
    unsigned char keys[];
};

static void on_announced(struct mail *mail)
{
    struct announcement *announcement = CONTAINER_OF(mail, struct announcement, mail);

    take_changes(announcement->front, bytes_make(announcement->keys, announcement->len));
    mem_free(announcement);
}

static void announce_to(struct front *front, struct bytes keys)
{
    struct announcement *announcement;

    if (worker_self() == &front->worker) {
        take_changes(front, keys);
        return;
    }
    announcement = mem_try_alloc(sizeof(*announcement) + keys.len);
    if (announcement == NULL) {
        keys = BYTES(""); /* all of it, then: that needs little */
        announcement = mem_alloc(sizeof(*announcement));
    }
    announcement->mail.run = on_announced;
    announcement->front = front;
    announcement->len = keys.len;
    if (keys.len > 0) {
        memcpy(announcement->keys, keys.ptr, keys.len);
    }
    worker_post(&front->worker, &announcement->mail);
}

void tracking_announce(void *context, struct bytes keys)
{
    struct proxy *proxy = context;
    struct buffer run;
    bool is_packed = false;

    buffer_init(&run);
    for (unsigned i = 0; i < proxy->n_fronts; i++) {
        if (atomic_load(&proxy->fronts[i].n_trackers) == 0) {
            continue;
        }
        if (!is_packed && keys.len > 0 && key_run_add_array(&run, keys) != 0) {
            buffer_consume(&run, buffer_len(&run));
        }
        is_packed = true;
        if (keys.len == 0 || buffer_len(&run) > 0) {
            announce_to(&proxy->fronts[i], buffer_bytes(&run));
        }
    }
    buffer_fini(&run);
}

void tracking_move(struct front *front)
{
    forget(front);
}

void tracking_tick(struct front *front)
{
    struct tracking *tracking = front->tracking;

    if (atomic_load_explicit(&front->n_trackers, memory_order_relaxed) == 0) {
        tracked_void(&tracking->keys);
    }
    tracked_sweep(&tracking->keys, SWEEP_MAX);
    count_keys(tracking);
    broadcast_tick(front);
}

/* ---- remembering what is shown ---- */

bool tracking_is_refused(const struct proxy *proxy)
{
    for (unsigned i = 0; i < proxy->n_fronts; i++) {
        const struct coherence *coherence = &proxy->fronts[i].coherence;

        if (atomic_load_explicit(&coherence->n_ttl_links, memory_order_relaxed) > 0 ||
            atomic_load_explicit(&coherence->n_pubsub_links, memory_order_relaxed) > 0 ||
            atomic_load_explicit(&coherence->n_broadcast_links, memory_order_relaxed) > 0 ||
            atomic_load_explicit(&coherence->n_keyspace_links, memory_order_relaxed) > 0) {
            return true;
        }
    }
    return false;
}

static bool shows_keys(const struct command *command)
{
    if (command == NULL || (command->flags & (COMMAND_WRITES | COMMAND_CHANNEL)) != 0) {
        return false;
    }
    switch ((enum command_class)command->class) {
    case CLASS_CACHED_READ:
    case CLASS_READ:
    case CLASS_SPLIT_READ:
    case CLASS_MULTI_READ:
    case CLASS_SCRIPT_READ:
    case CLASS_PINNED:
        return true;
    default:
        return false;
    }
}

bool tracking_wants(const struct session *session, const struct command *command)
{
    const struct tracker *tracker = session->tracker;

    return tracker != NULL && tracker->is_on && !tracker->options.is_broadcast &&
           !(tracker->options.is_optin && !tracker->has_caching) &&
           !(tracker->options.is_optout && tracker->has_caching) && shows_keys(command);
}

static unsigned limit_of(const struct front *front)
{
    const unsigned limit =
        (unsigned)(front->config->client_tracking_keys / front->proxy->n_fronts) + 1;
    const unsigned n = front->tracking->keys.n;

    if (NC_LIKELY(!front->is_tight) || n <= limit / TIGHT_SHARE) {
        return limit;
    }
    /* Little by little: each is told to its clients. */
    return n > TIGHT_STEP && n - TIGHT_STEP < limit ? n - TIGHT_STEP : limit;
}

/* The keys that have been remembered longest make room, and are called changed. */
static void keep_within_limit(struct front *front)
{
    struct tracked *keys = &front->tracking->keys;
    const unsigned limit = limit_of(front);

    while (keys->n > limit) {
        struct buffer run;

        buffer_init(&run);
        if (key_run_add(&run, tracked_oldest(keys)) != 0) {
            forget(front);
        }
        stats_add(METRIC_client_tracking_evictions, 1);
        take_change(front, buffer_bytes(&run));
        tracked_sweep(keys, 1);
        buffer_fini(&run);
    }
}

static bool remember_key(struct session *session, struct bytes key)
{
    session->tracker->has_keys = true;
    return key.len <= CACHE_KEY_MAX &&
           tracked_add(&session->front->tracking->keys, key, session->id);
}

/*
 * False: one of the n keys could not be remembered, or the session was closed. More than there is
 * room for make room for each other, and were called changed before they are shown.
 */
static bool end_remembering(struct session *session, unsigned n, bool are_remembered)
{
    are_remembered = are_remembered && n <= limit_of(session->front);
    keep_within_limit(session->front);
    count_keys(session->front->tracking);
    return are_remembered && !session->is_closed && !tracking_is_refused(session->front->proxy);
}

static bool remember(struct session *session, const struct bytes *argv,
                     const struct command_key_list *keys)
{
    bool are_remembered = true;

    for (unsigned i = 0; i < keys->n; i++) {
        are_remembered = remember_key(session, argv[keys->at[i]]) && are_remembered;
    }
    return end_remembering(session, keys->n, are_remembered);
}

static bool remember_run(struct session *session, struct bytes keys)
{
    bool are_remembered = true;
    struct bytes key;
    unsigned n = 0;

    while (key_run_next(&keys, &key)) {
        are_remembered = remember_key(session, key) && are_remembered;
        n++;
    }
    return end_remembering(session, n, are_remembered);
}

/* False: no memory. To be freed with buffer_fini() in any case. */
static bool put_run(struct buffer *run, const struct bytes *argv,
                    const struct command_key_list *keys)
{
    int error = 0;

    buffer_init(run);
    for (unsigned i = 0; i < keys->n && error == 0; i++) {
        error = key_run_add(run, argv[keys->at[i]]);
    }
    return error == 0;
}

static void disown_keys(struct session *session, const struct bytes *argv,
                        const struct command_key_list *keys)
{
    struct buffer run;

    queue_notice(session, put_run(&run, argv, keys) ? buffer_bytes(&run) : BYTES(""));
    buffer_fini(&run);
}

static void on_touched(void *owner, bool is_heard)
{
    struct tracker *tracker = owner;

    tracker->touch = NULL;
    tracker->touch_state = is_heard ? TOUCH_HEARD : TOUCH_FAILED;
    session_wake(tracker->session);
}

/* True: it has to be waited for. */
static bool touch_keys(struct session *session, struct bytes keys)
{
    struct tracker *tracker = session->tracker;

    if (tracker->touch_state == TOUCH_NONE) {
        tracker->touch = touch_begin(session->front, session->identity, session->db, keys,
                                     on_touched, tracker);
        tracker->touch_state = tracker->touch != NULL ? TOUCH_PENDING : TOUCH_FAILED;
    }
    tracker->is_protected = tracker->touch_state == TOUCH_HEARD;
    return tracker->touch_state == TOUCH_PENDING;
}

bool tracking_must_wait(struct session *session, const struct bytes *argv,
                        const struct command_key_list *keys)
{
    struct buffer run;
    bool must_wait;

    if (!session->tracker->applies) {
        return false;
    }
    must_wait = put_run(&run, argv, keys) && touch_keys(session, buffer_bytes(&run));
    buffer_fini(&run);
    return must_wait;
}

void tracking_note_relayed(struct session *session, const struct bytes *argv,
                           const struct command_key_list *keys)
{
    if (session->tracker->applies && !session->tracker->is_protected) {
        disown_keys(session, argv, keys);
    }
}

bool tracking_must_wait_for_exec(struct session *session, struct bytes keys)
{
    if (!tracking_is_on(session) || session->tracker->options.is_broadcast || keys.len == 0) {
        return false;
    }
    session->tracker->shows = true;
    return remember_run(session, keys) && touch_keys(session, keys);
}

void tracking_note_exec(struct session *session, struct bytes keys)
{
    if (tracking_is_on(session) && !session->tracker->options.is_broadcast && keys.len > 0 &&
        !session->tracker->is_protected) {
        queue_notice(session, keys);
    }
}

void tracking_note_late(struct request *request, struct bytes key)
{
    struct request *in_queue = request->is_part ? request->group->owner : request;
    struct session *session = in_queue->session;
    struct request *notice;
    struct buffer run;

    if (session == NULL || !in_queue->is_tracked || in_queue->is_done || session->tracker == NULL ||
        session->tracker->options.is_broadcast) {
        return;
    }
    buffer_init(&run);
    notice = request_queue_behind(in_queue);
    make_notice(notice, key_run_add(&run, key) == 0 ? buffer_bytes(&run) : BYTES(""));
    notice->is_done = true;
    buffer_fini(&run);
}

/* ---- NOLOOP ---- */

static bool has_option(const struct dispatch_call *call, unsigned first, struct bytes option)
{
    for (unsigned i = first; i < call->argc; i++) {
        if (bytes_equal_nocase(call->argv[i], option)) {
            return true;
        }
    }
    return false;
}

/* With some options the reply tells neither that nor what was written. */
static bool has_unclear_options(const struct dispatch_call *call)
{
    const char *name = call->command->name;

    return (strcmp(name, "set") == 0 &&
            (has_option(call, 3, BYTES("nx")) || has_option(call, 3, BYTES("xx")) ||
             has_option(call, 3, BYTES("get")))) ||
           (strcmp(name, "zadd") == 0 && has_option(call, 2, BYTES("incr")));
}

/* Its reply tells whether it has written. */
static bool is_plain_write(const struct dispatch_call *call)
{
    static const char *const unclear[] = {"getex",          "bitfield", "setbit",  "setrange",
                                          "sort",           "ltrim",    "zincrby", "restore",
                                          "restore-asking", "xack",     "xclaim",  "xautoclaim",
                                          "xsetid",         "xdel",     "xtrim"};
    const struct command *command = call->command;

    if (command == NULL || (command->class != CLASS_WRITE && command->class != CLASS_SPLIT_WRITE)) {
        return false;
    }
    for (unsigned i = 0; i < sizeof(unclear) / sizeof(unclear[0]); i++) {
        if (strcmp(command->name, unclear[i]) == 0) {
            return false;
        }
    }
    return strncmp(command->name, "xgroup", 6) != 0 && !has_unclear_options(call);
}

/* What a reply says of its write: true only when the key has changed for sure. */
static bool has_written(struct bytes part)
{
    switch (part.ptr[0]) {
    case '+':
    case ',':
        return true;
    case ':':
        return part.ptr[1] >= '1' && part.ptr[1] <= '9';
    case '$':
        return part.ptr[1] != '-';
    case '*':
    case '~':
        return part.ptr[1] >= '1' && part.ptr[1] <= '9';
    default:
        return false;
    }
}

/* Takes key out of the notices right behind request. */
static void unsay(struct request *request, struct bytes key)
{
    for (struct request *notice = request->next; notice != NULL && notice->is_notice;
         notice = notice->next) {
        struct bytes rest = bytes_make(notice->stored, notice->stored_bytes), other;

        while (key_run_next(&rest, &other)) {
            if (bytes_equal(other, key)) {
                unsigned char *begin = (unsigned char *)(uintptr_t)other.ptr - sizeof(uint32_t);

                memmove(begin, rest.ptr, rest.len);
                notice->stored_bytes -= sizeof(uint32_t) + key.len;
                /* Empty it would mean everything. */
                notice->is_notice = notice->stored_bytes > 0;
                break;
            }
        }
    }
}

static bool is_read_again_behind(const struct request *request)
{
    if (request->session->tracker->touch_state != TOUCH_NONE) {
        return true; /* a read waits to be relayed */
    }
    for (const struct request *later = request->next; later != NULL; later = later->next) {
        if (later->is_tracked && (later->key_mask & request->key_mask) != 0) {
            return true;
        }
    }
    return false;
}

void tracking_take_own_write(struct request *request, struct bytes part)
{
    struct session *session = request->session;
    struct bytes run = bytes_make(request->stored, request->stored_bytes), key;

    if (session == NULL || !tracking_is_on(session) || !has_written(part) ||
        !key_run_next(&run, &key) || run.len > 0 || is_read_again_behind(request)) {
        return;
    }
    unsay(request, key);
    tracked_remove(&session->front->tracking->keys, key, session->id);
    count_keys(session->front->tracking);
}

/* ---- BCAST ---- */

static void on_broadcast(struct front *front, const struct broadcast *broadcast, struct bytes keys)
{
    struct tracking *tracking = front->tracking;

    for (struct tracker *tracker = tracker_first(tracking); tracker != NULL;
         tracker = tracker_next(tracking)) {
        if (tracker->broadcast == broadcast && tracker->is_on) {
            tracker_deliver(tracker, keys);
        }
    }
}

const struct broadcast_events tracking_broadcast_events = {tracking_on_ready, on_broadcast};

/* ---- requests of a session that tracks ---- */

/* CLIENT CACHING holds for the command behind it, or for the whole transaction. */
static void end_caching(struct session *session, const struct dispatch_call *call)
{
    const char *name = call->command != NULL ? call->command->name : "";
    const bool ends_transaction = strcmp(name, "exec") == 0 || strcmp(name, "discard") == 0;

    if (session->tracker != NULL && strncmp(name, "client", 6) != 0 &&
        (ends_transaction || transaction_depth(session) < 0)) {
        session->tracker->has_caching = false;
    }
}

static enum verdict dispatch_on(struct session *session, const struct dispatch_call *call)
{
    return session->transaction != NULL ? transaction_dispatch(session, call)
                                        : dispatch_by_class(session, call);
}

void tracking_mark(struct request *request)
{
    const struct tracker *tracker = request->session->tracker;

    request->is_tracked = tracker->shows;
    request->is_own_write = tracker->writes_plainly;
}

static enum verdict dispatch_remembered(struct session *session, const struct dispatch_call *call,
                                        const struct command_key_list *keys)
{
    struct tracker *tracker = session->tracker;
    const bool is_remembered = !tracker->applies || remember(session, call->argv, keys);
    enum verdict verdict;

    if (session->is_closed) {
        return VERDICT_TAKEN;
    }
    tracker->is_protected = false;
    tracker->shows = shows_keys(call->command);
    tracker->writes_plainly = tracker->options.is_noloop && !tracker->options.is_broadcast &&
                              is_plain_write(call);
    verdict = dispatch_on(session, call);
    tracker = session->tracker;
    if (tracker == NULL || session->is_closed) {
        return verdict;
    }
    if (verdict == VERDICT_TAKEN) {
        touch_abandon(&tracker->touch);
        tracker->touch_state = TOUCH_NONE;
    }
    tracker->applies = tracker->shows = tracker->writes_plainly = false;
    if (verdict == VERDICT_TAKEN && !is_remembered) {
        disown_keys(session, call->argv, keys); /* the session may be closed over it */
    }
    return verdict;
}

void tracking_begin_upload(struct session *session, const struct dispatch_call *call)
{
    struct tracker *tracker = session->tracker;

    tracker->applies = tracker->is_protected = false;
    tracker->writes_plainly = tracker->options.is_noloop && !tracker->options.is_broadcast &&
                              is_plain_write(call);
    end_caching(session, call);
}

enum verdict tracking_dispatch(struct session *session, const struct dispatch_call *call)
{
    struct command_key_list keys = {0};
    enum verdict verdict;

    session->tracker->applies = transaction_depth(session) < 0 &&
                                tracking_wants(session, call->command) &&
                                command_arity_fits(call->command, call->argc) &&
                                command_find_keys(call->command, call->argv, call->argc, &keys) &&
                                keys.n > 0;
    verdict = dispatch_remembered(session, call, &keys);
    command_key_list_fini(&keys);
    if (verdict == VERDICT_TAKEN && !session->is_closed) {
        end_caching(session, call);
    }
    return verdict;
}
