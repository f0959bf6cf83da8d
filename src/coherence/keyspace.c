/*
 * Design: PSUBSCRIBE `__keyspace@*__:<prefix>*` hears of each write that notifies, in the order of
 * execution, and a PONG behind it. What notifies nobody is asked for: FLUSHALL, FLUSHDB, SWAPDB and
 * DEBUG are counted by INFO commandstats, also inside scripts and transactions. (INFO keyspace was
 * the other way: a database that was flushed and filled again between two polls looks the same, and
 * so does one of as many keys that took its place.) A counter that was reset and counts as far as
 * before goes unseen; keyspace-mode-max bounds that. notify-keyspace-events can be changed at any
 * time, so it is read along with it.
 */
#include "coherence/ear.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/stats.h"
#include "coherence/dependencies.h"
#include "coherence/dependency_watch.h"
#include "coherence/keyspace_words.h"
#include "resp/own.h"

#include <stdio.h>

/* INFO commandstats names each command once. */
#define POLL_REPLY_MAX ((size_t)512 * 1024)
#define POLL_REPLIES 2

static const char pattern_start[] = "__keyspace@*__:";

/* ---- subscribing ---- */

/* prefix, each byte that a pattern gives a meaning taken literally, and a star. */
static int add_pattern(struct buffer *out, struct bytes prefix)
{
    unsigned char *text = mem_alloc(sizeof(pattern_start) + 2 * prefix.len + 1);
    char head[32];
    size_t n = sizeof(pattern_start) - 1;
    int error;

    memcpy(text, pattern_start, n);
    for (size_t i = 0; i < prefix.len; i++) {
        if (memchr("*?[]\\^", prefix.ptr[i], 6) != NULL) {
            text[n++] = '\\';
        }
        text[n++] = prefix.ptr[i];
    }
    text[n++] = '*';
    error = buffer_append(out,
                          bytes_make(head, (size_t)snprintf(head, sizeof(head), "$%zu\r\n", n)));
    if (error == 0) {
        error = buffer_append(out, bytes_make(text, n));
    }
    mem_free(text);
    return error != 0 ? error : buffer_append(out, BYTES("\r\n"));
}

static unsigned count_patterns(const struct ear *ear)
{
    return ear->prefixes.n > 0 ? ear->prefixes.n : 1;
}

bool keyspace_is_subscribed(const struct ear *ear)
{
    return ear->n_subscribed == count_patterns(ear);
}

void keyspace_subscribe(struct ear *ear)
{
    struct buffer frame;
    char head[64];
    const int length = snprintf(head, sizeof(head), "*%u\r\n$10\r\nPSUBSCRIBe\r\n",
                                count_patterns(ear) + 1);
    int error;

    buffer_init(&frame);
    error = buffer_append(&frame, bytes_make(head, (size_t)length));
    for (unsigned i = 0; error == 0 && i < count_patterns(ear); i++) {
        error = add_pattern(&frame, ear->prefixes.n > 0 ? ear->prefixes.items[i] : BYTES(""));
    }
    if (error != 0 || link_say(&ear->link, buffer_bytes(&frame)) != 0) {
        link_close(&ear->link, "out of memory");
    }
    buffer_fini(&frame);
}

/* ---- messages ---- */

/* Clients that keep the key are told, in the form in which a server with tracking would. */
static void announce(const struct ear *ear, struct bytes key)
{
    char frame[512];
    int head;

    if (key.len > sizeof(frame) - 32) {
        track_announce(ear->track->coherence, BYTES(""));
        return;
    }
    head = snprintf(frame, sizeof(frame), "*1\r\n$%zu\r\n", key.len);
    memcpy(frame + head, key.ptr, key.len);
    memcpy(frame + head + key.len, "\r\n", 2);
    track_announce(ear->track->coherence, bytes_make(frame, (size_t)head + key.len + 2));
}

static void take_write(const struct ear *ear, struct bytes key)
{
    stats_add(METRIC_invalidation_messages, 1);
    if (cache_invalidate(ear->track->coherence->cache, key)) {
        stats_add(METRIC_invalidations_keyspace, 1);
    }
    miss_leases_note(ear->track->coherence->fleet->leases, key, MISS_TOLD);
    if (dependencies_are_used(ear->track->coherence->fleet)) {
        dependency_watch_heard(ear->track->coherence, key);
    }
    announce(ear, key);
}

static void poll_soon(struct ear *ear)
{
    ear->track->poll.has_baseline = false;
    ear->track->poll.sent_at_us = 0;
}

bool keyspace_take(struct ear *ear, struct bytes frame)
{
    struct keyspace_message message;

    if (!keyspace_read_message(frame, &message)) {
        return false;
    }
    if (message.kind == KEYSPACE_SUBSCRIBED && ++ear->n_subscribed == count_patterns(ear)) {
        poll_soon(ear);
    }
    if (message.kind == KEYSPACE_WRITTEN) {
        take_write(ear, message.key);
    }
    return true;
}

/* ---- what notifies nobody ---- */

static void on_poll_reply(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                          bool is_first, bool is_last);
static void on_poll_lost(struct link_op *op, struct link *link, enum link_loss loss);

static const struct link_op_type poll_type = {on_poll_reply, on_poll_lost};

void keyspace_init_poll(struct track *track)
{
    track->poll.op.type = &poll_type;
    track->poll.op.collect = POLL_REPLY_MAX;
}

static void warn_once(struct track *track, const char *what)
{
    if (!track->poll.was_warned) {
        track->poll.was_warned = true;
        log_warn("coherence", what, "addr=%s mode=keyspace bound_ms=%lld", track->link->name,
                 (long long)track->coherence->config->keyspace_mode_max_ms);
    }
}

static void take_flushes(struct track *track, struct bytes reply)
{
    struct keyspace_poll *poll = &track->poll;
    struct ear *ear = track->ears[EAR_KEYSPACE];
    uint64_t n_flushes;

    if (!keyspace_count_flushes(reply, &n_flushes)) {
        warn_once(track,
                  "INFO does not tell of FLUSHALL: its bound is the longest life of an entry");
        n_flushes = poll->n_flushes;
    }
    if (poll->has_baseline && n_flushes != poll->n_flushes) {
        ear_forget(ear, METRIC_flushes_poll);
    }
    poll->n_flushes = n_flushes;
    poll->has_baseline = true;
    poll->answered_at_us = clock_now_us();
    poll->proven_at_us = poll->op.sent_at_us;
    if (keyspace_is_subscribed(ear)) {
        ear_confirm(ear, poll->has_events, "notify-keyspace-events lacks K or A");
    }
}

static void on_poll_reply(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                          bool is_first, bool is_last)
{
    struct track *track = CONTAINER_OF(op, struct track, poll.op);
    const bool is_whole = is_first && is_last;

    (void)link;
    if (index == 0 && is_last) {
        track->poll.has_events = is_whole && keyspace_has_flags(part);
        if (is_whole && part.ptr[0] == '-') {
            track->poll.has_events = track->coherence->config->keyspace_assumed;
        }
    }
    if (index == POLL_REPLIES - 1 && is_last) {
        track->poll.is_sent = false;
        if (track->ears[EAR_KEYSPACE] != NULL) {
            take_flushes(track, is_whole ? part : BYTES(""));
        }
    }
}

static void on_poll_lost(struct link_op *op, struct link *link, enum link_loss loss)
{
    struct track *track = CONTAINER_OF(op, struct track, poll.op);

    (void)link;
    (void)loss;
    track->poll.is_sent = false;
}

/* So that a flush around the proxy is shown for keyspace-poll longer than any other write. */
int64_t keyspace_limit(const struct ear *ear, int64_t sent_at_us)
{
    const struct track *track = ear->track;
    const int64_t limit_us = track->poll.proven_at_us +
                             track->coherence->config->keyspace_poll_ms * 1000;

    return sent_at_us < limit_us ? sent_at_us : limit_us;
}

void keyspace_tick(struct ear *ear, int64_t now_us)
{
    const struct bytes frame = BYTES("*3\r\n$6\r\nCONFIg\r\n$3\r\nGET\r\n$22\r\n"
                                     "notify-keyspace-events\r\n"
                                     "*2\r\n$4\r\nINFo\r\n$12\r\ncommandstats\r\n");
    const struct config *config = ear->track->coherence->config;
    struct keyspace_poll *poll = &ear->track->poll;
    struct link *link = ear->track->link;

    if (ear->is_confirmed && now_us - poll->answered_at_us >
                                 (3 * config->keyspace_poll_ms + config->max_staleness_ms) * 1000) {
        ear_confirm(ear, false, "what notifications do not tell cannot be asked for");
    }
    if (poll->is_sent || !keyspace_is_subscribed(ear) || !link_is_up(link) ||
        now_us - poll->sent_at_us < config->keyspace_poll_ms * 1000) {
        return;
    }
    if (link_send(link, link->db, &frame, 1, POLL_REPLIES, &poll->op) == 0) {
        poll->is_sent = true;
        poll->sent_at_us = now_us;
    }
}
