/*
 * Design: EXISTS on the tracking link, so that the node remembers the key; its reply; SET on the
 * relay link; then the message. A null message in between makes the node forget what it remembered,
 * so that the test begins anew.
 */
#include "coherence/probe.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/stats.h"
#include "coherence/track.h"
#include "resp/command.h"
#include "resp/own.h"

#include <event2/util.h>
#include <inttypes.h>
#include <stdio.h>

/* How long the message may take, and how long the key may stay if nobody removes it. */
#define PROBE_US 1000000
#define PROBE_LIFE_MS "5000"
/* Tags that are tried until one belongs to a slot of the node. */
#define TAGS_MAX 20000u

static void on_read_reply(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                          bool is_first, bool is_last);
static void on_read_lost(struct link_op *op, struct link *link, enum link_loss loss);
static void on_write_reply(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                           bool is_first, bool is_last);
static void on_write_lost(struct link_op *op, struct link *link, enum link_loss loss);

static const struct link_op_type read_type = {on_read_reply, on_read_lost};
static const struct link_op_type write_type = {on_write_reply, on_write_lost};

void probe_init(struct track *track)
{
    track->probe.read.type = &read_type;
    track->probe.write.type = &write_type;
    track->probe.read.collect = track->probe.write.collect = LINK_COLLECT_MIN;
}

static void conclude(struct track *track, bool is_told)
{
    track->probe.state = PROBE_IDLE;
    track_on_probed(track, is_told);
}

/* False: none that the node would take. */
static bool choose_key(struct track *track)
{
    struct backend *backend = track->coherence->backend;
    struct probe *probe = &track->probe;
    uint64_t random;

    evutil_secure_rng_get_bytes(&random, sizeof(random));
    for (unsigned tag = 0; tag < TAGS_MAX; tag++) {
        const int length = snprintf(probe->key, sizeof(probe->key), "%sprobe:%016" PRIx64 "{%u}",
                                    track->coherence->config->coherence_probe_prefix, random, tag);

        if (length < 0 || (size_t)length >= sizeof(probe->key)) {
            return false;
        }
        probe->key_len = (unsigned)length;
        if (backend->topology == NULL || !backend->topology->is_cluster ||
            backend_owner(backend, command_key_slot(bytes_make(probe->key, (size_t)length))) ==
                track->node) {
            return true;
        }
    }
    return false;
}

static int send_probe(const struct track *track, struct link *link, struct link_op *op,
                      const char *before, const char *after)
{
    const struct probe *probe = &track->probe;
    char head[96];
    const int length = snprintf(head, sizeof(head), "%s$%u\r\n", before, probe->key_len);
    const struct bytes parts[] = {bytes_make(head, (size_t)length),
                                  bytes_make(probe->key, probe->key_len), bytes_of_string(after)};

    return link_send(link, track->coherence->backend->login->db, parts, 3, 1, op);
}

static struct link *writer_of(const struct track *track)
{
    return backend_relay_link(track->coherence->backend, track->node, LINK_RELAY2);
}

/* ---- removing the key: nobody waits for it ---- */

static void on_removed(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                       bool is_first, bool is_last)
{
    (void)link;
    (void)index;
    (void)part;
    (void)is_first;
    if (is_last) {
        mem_free(op);
    }
}

static void on_not_removed(struct link_op *op, struct link *link, enum link_loss loss)
{
    (void)link;
    (void)loss;
    mem_free(op); /* it expires */
}

static const struct link_op_type remove_type = {on_removed, on_not_removed};

static void remove_key(const struct track *track)
{
    struct link_op *op = mem_alloc(sizeof(*op));

    op->type = &remove_type;
    op->collect = LINK_COLLECT_MIN;
    if (send_probe(track, writer_of(track), op, "*2\r\n$3\r\nDEl\r\n", "\r\n") != 0) {
        mem_free(op);
    }
}

/* ---- steps ---- */

bool probe_begin(struct track *track)
{
    if (!track->coherence->config->coherence_probe || track->node->identity != NULL ||
        track->node->owner != track->node->id) {
        return false;
    }
    track->probe.state = PROBE_WANTED;
    probe_tick(track, clock_now_us());
    return true;
}

void probe_end(struct track *track)
{
    track->probe.state = PROBE_IDLE;
    track->probe.has_failed = false;
}

static void begin_reading(struct track *track)
{
    struct probe *probe = &track->probe;

    if (probe->is_reading || probe->is_writing) {
        return;
    }
    if (!choose_key(track)) {
        conclude(track, true);
        return;
    }
    if (send_probe(track, track->link, &probe->read, OWN_EXISTS, "\r\n") == 0) {
        probe->is_reading = true;
        probe->state = PROBE_READING;
    }
}

static void begin_writing(struct track *track)
{
    struct probe *probe = &track->probe;

    probe->state = PROBE_WRITING;
    if (send_probe(track, writer_of(track), &probe->write, "*5\r\n$3\r\nSEt\r\n",
                   "\r\n$1\r\n1\r\n$2\r\nPX\r\n$4\r\n" PROBE_LIFE_MS "\r\n") == 0) {
        probe->is_writing = true;
    } else {
        probe->state = PROBE_WANTED; /* the next tick tries again */
    }
}

static void on_read_reply(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                          bool is_first, bool is_last)
{
    struct track *track = CONTAINER_OF(op, struct track, probe.read);

    (void)link;
    (void)index;
    (void)is_first;
    if (!is_last) {
        return;
    }
    track->probe.is_reading = false;
    if (track->probe.state != PROBE_READING) {
        return;
    }
    if (part.len > 0 && part.ptr[0] == ':') {
        begin_writing(track);
    } else {
        conclude(track, true);
    }
}

static void on_read_lost(struct link_op *op, struct link *link, enum link_loss loss)
{
    (void)link;
    (void)loss;
    CONTAINER_OF(op, struct track, probe.read)->probe.is_reading = false;
}

static void on_write_reply(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                           bool is_first, bool is_last)
{
    struct track *track = CONTAINER_OF(op, struct track, probe.write);
    struct probe *probe = &track->probe;

    (void)link;
    (void)index;
    (void)is_first;
    if (!is_last) {
        return;
    }
    probe->is_writing = false;
    if (probe->state != PROBE_WRITING) {
        return;
    }
    if (part.len > 0 && part.ptr[0] == '+') {
        probe->state = PROBE_WRITTEN;
        probe->until_us = clock_now_us() + PROBE_US;
    } else {
        conclude(track, true);
    }
}

static void on_write_lost(struct link_op *op, struct link *link, enum link_loss loss)
{
    struct probe *probe = &CONTAINER_OF(op, struct track, probe.write)->probe;

    (void)link;
    (void)loss;
    probe->is_writing = false;
    if (probe->state == PROBE_WRITING) {
        probe->state = PROBE_WANTED;
    }
}

void probe_take_message(struct track *track, struct bytes frame)
{
    struct probe *probe = &track->probe;

    if (NC_LIKELY(probe->state == PROBE_IDLE)) {
        return;
    }
    /* The message may come before the reply to SET. */
    if ((probe->state == PROBE_WRITING || probe->state == PROBE_WRITTEN) &&
        memmem(frame.ptr, frame.len, probe->key, probe->key_len) != NULL) {
        remove_key(track);
        conclude(track, true);
    }
}

void probe_restart(struct track *track)
{
    if (track->probe.state != PROBE_IDLE) {
        track->probe.state = PROBE_WANTED;
    }
}

void probe_tick(struct track *track, int64_t now_us)
{
    struct probe *probe = &track->probe;

    if (probe->state == PROBE_WANTED) {
        begin_reading(track);
    } else if (probe->state == PROBE_WRITTEN && now_us > probe->until_us) {
        probe->has_failed = true;
        stats_add(METRIC_probe_failures, 1);
        if (!probe->was_logged) {
            probe->was_logged = true;
            log_warn("coherence", "the backend accepts tracking, but does not tell of changes",
                     "addr=%s probe=%.*s", track->link->name, (int)probe->key_len, probe->key);
        }
        remove_key(track);
        conclude(track, false);
    }
}
