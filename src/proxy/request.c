/*
 * Design: the queue of a session holds only what could not be answered at once; hits of an
 * otherwise idle session never enter it. The reply of the head goes straight to the output as it
 * arrives, so a large one is never collected; a reply behind an unanswered request waits in its own
 * queue, counted against the session's output limit.
 */
#include "proxy/request.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/stats.h"
#include "proxy/account.h"
#include "proxy/dry.h"
#include "proxy/group.h"
#include "proxy/large.h"
#include "proxy/relay.h"
#include "proxy/tracking.h"
#include "upstream/lease.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#define REQUEST_MAGIC 0x72657175u
#define SPARE_REQUESTS_MAX 1024

struct request *request_new(struct front *front, enum request_kind kind,
                            const struct command *command)
{
    struct request *request = front->spare_requests;

    if (request != NULL) {
        front->spare_requests = request->next;
        front->n_spare_requests--;
        memset(request, 0, offsetof(struct request, few));
    } else {
        request = mem_alloc(sizeof(*request));
    }
    request->magic = REQUEST_MAGIC;
    request->front = front;
    request->kind = (uint8_t)kind;
    request->command = command;
    request->config_serial = front->config_serial;
    request->stored = request->few;
    request->began_at_us = clock_now_us();
    outq_init(&request->reply);
    return request;
}

void request_free(struct request *request)
{
    struct front *front = request->front;

    CHECK(request->magic == REQUEST_MAGIC);
    if (request->stored != request->few) {
        mem_free(request->stored);
    }
    outq_fini(&request->reply);
    if (NC_UNLIKELY(request->shadow != NULL)) {
        dry_forget(request);
    }
    if (NC_UNLIKELY((request->permit.ns | request->permit.user) != 0)) {
        limits_return(&request->permit);
    }
    request->magic = 0;
    if (front->n_spare_requests < SPARE_REQUESTS_MAX) {
        request->next = front->spare_requests;
        front->spare_requests = request;
        front->n_spare_requests++;
    } else {
        mem_free(request);
    }
}

void front_free_spare_requests(struct front *front)
{
    while (front->spare_requests != NULL) {
        struct request *const request = front->spare_requests;

        front->spare_requests = request->next;
        mem_free(request);
    }
    front->n_spare_requests = 0;
}

struct request *request_queue(struct session *session, enum request_kind kind,
                              const struct command *command)
{
    struct request *request = request_new(session->front, kind, command);

    request->session = session;
    request->proto = session->proto;
    request->db = session->db;
    request->identity = session->identity;
    request->is_muted = session_is_muted(session);
    if (session->last != NULL) {
        session->last->next = request;
    } else {
        session->first = request;
    }
    session->last = request;
    session->n_requests++;
    if (NC_UNLIKELY(session->tracker != NULL)) {
        tracking_mark(request);
    }
    return request;
}

struct request *request_queue_behind(struct request *before)
{
    struct session *session = before->session;
    struct request *request = request_new(session->front, REQUEST_LOCAL, NULL);

    request->session = session;
    request->next = before->next;
    before->next = request;
    if (session->last == before) {
        session->last = request;
    }
    session->n_requests++;
    return request;
}

static void uncount(struct request *request)
{
    struct session *session = request->session;

    if (session != NULL && request->suspends) {
        session_resume(session);
    }
    if (request->is_blocking) {
        atomic_fetch_sub_explicit(&request->front->proxy->n_blocked, 1, memory_order_relaxed);
    }
    request->suspends = request->is_blocking = false;

    if (session != NULL && request->counts_cached && --session->n_cached == 0) {
        session->cached_mask = 0;
    }
    if (session != NULL && request->counts_relayed && --session->n_relayed == 0) {
        session->relayed_mask = 0;
    }
    request->counts_cached = request->counts_relayed = false;
}

void request_unqueue(struct request *request)
{
    struct session *session = request->session;
    struct request **at = &session->first;
    struct request *before = NULL;

    while (*at != request) {
        before = *at;
        at = &before->next;
    }
    *at = request->next;
    if (session->last == request) {
        session->last = before;
    }
    session->n_requests--;
    uncount(request);
    large_end(request);
    request_free(request);
}

int request_store(struct request *request, struct bytes bytes)
{
    unsigned char *room = request->few;

    if (bytes.len > sizeof(request->few)) {
        room = mem_try_alloc(bytes.len);
        if (room == NULL) {
            return -ENOMEM;
        }
    }
    if (bytes.len > 0) {
        memmove(room, bytes.ptr, bytes.len);
    }
    if (request->stored != request->few) {
        mem_free(request->stored);
    }
    request->stored = room;
    request->stored_bytes = bytes.len;
    request->frame_bytes = 0;
    return 0;
}

void request_keep_frame(struct request *request, struct bytes frame)
{
    const size_t total = request->stored_bytes + frame.len;
    unsigned char *room = request->stored;

    request->frame_bytes = 0;
    if (request->stored != request->few) {
        room = mem_try_realloc(request->stored, total);
    } else if (total > sizeof(request->few)) {
        room = mem_try_alloc(total);
        if (room != NULL) {
            memcpy(room, request->few, request->stored_bytes);
        }
    }
    if (room != NULL) {
        memcpy(room + request->stored_bytes, frame.ptr, frame.len);
        request->stored = room;
        request->frame_bytes = frame.len;
    }
}

struct request *request_in_queue(const struct request *request)
{
    /* The caller may change what it finds; a part and its owner belong to the same worker. */
    return request->is_part ? request->group->owner : (struct request *)(uintptr_t)request;
}

void request_count(struct request *request, bool as_cached, bool as_relayed)
{
    struct session *session = request->session;

    uncount(request);
    if (session == NULL) {
        return;
    }
    request->counts_cached = as_cached;
    request->counts_relayed = as_relayed;
    if (as_cached) {
        session->n_cached++;
        session->cached_mask |= request->key_mask;
    }
    if (as_relayed) {
        session->n_relayed++;
        session->relayed_mask |= request->key_mask;
    }
}

/* Parts are kept whole until all are there: no more of them than a client may be owed. */
static void keep_for_group(struct request *request, struct bytes part)
{
    const size_t limit = request->front->config->client_output_limit;
    size_t *n_kept = &request->group->n_kept_bytes;

    if (request->is_skipping) {
        return;
    }
    *n_kept += part.len;
    if (*n_kept > limit || outq_append(&request->reply, part) != 0) {
        *n_kept -= outq_len(&request->reply) + part.len;
        request->is_skipping = true;
        outq_fini(&request->reply);
        group_part_failed(request);
    }
}

void request_take_part(struct request *request, struct bytes part)
{
    struct session *session = request->session;

    if (request->is_part) {
        keep_for_group(request, part);
        return;
    }
    if (session == NULL || request->is_muted) {
        return;
    }
    if (!request->has_reply) {
        request->has_reply = true;
        account_reply(request->command, part);
    }
    if (session->first == request && !request->is_held) {
        if (outq_append(&session->out, part) != 0) {
            session_close_for_memory(session);
            return;
        }
    } else {
        if (outq_append(&request->reply, part) != 0) {
            session_close_for_memory(session);
            return;
        }
        request->held_bytes += part.len;
        session->held_bytes += part.len;
    }
    if (session_check_output(session)) {
        session_wake(session);
    }
}

void request_done(struct request *request)
{
    struct session *session = request->session;

    if (request->is_part) {
        large_end(request);
        group_part_done(request);
        return;
    }
    account_done(request);
    request->is_done = true;
    if (session == NULL) {
        large_end(request);
        request_free(request);
        return;
    }
    uncount(request);
    large_end(request);
    session_advance(session);
    session_wake(session);
}

void request_fail(struct request *request, const char *format, ...)
{
    char text[400], line[420];
    va_list arguments;
    int length;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    length = snprintf(line, sizeof(line), "-%s\r\n", text);
    request_take_part(request, bytes_make(line, (size_t)length));
    request_done(request);
}

/* What the head has gathered goes out; more of it follows directly. */
static void release_held(struct session *session, struct request *request)
{
    session->held_bytes -= request->held_bytes;
    request->held_bytes = 0;
    if (outq_len(&request->reply) > 0 && outq_move(&session->out, &request->reply) != 0) {
        session_close_for_memory(session);
    }
}

void session_advance(struct session *session)
{
    while (session->first != NULL && !session->is_closed) {
        struct request *const request = session->first;

        if (request->is_held) {
            return;
        }
        release_held(session, request);
        if (session->is_closed || !request->is_done) {
            return;
        }
        session->first = request->next;
        if (session->first == NULL) {
            session->last = NULL;
        }
        session->n_requests--;
        if (NC_UNLIKELY(request->is_notice)) {
            tracking_tell(session, request);
        }
        request_free(request);
        session_release_pushes(session);
        if (session->first != NULL && session->first->awaits_turn) {
            session->first->awaits_turn = false;
            relay_retry(session->first);
        }
    }
}

void request_drop(struct request *request)
{
    if (!request->is_done) {
        account_done(request);
    }
    request_free(request);
}

void request_orphan(struct request *request)
{
    uncount(request);
    large_end(request);
    request->session = NULL;
    request->next = NULL;
    request->is_held = false;
    if (miss_leases_leave(&request->front->coherence, &request->waiter.miss) || request->is_done ||
        request->awaits_turn) {
        request_drop(request);
    } else if (large_is_alone(request)) {
        /* The rest of the reply is for nobody. */
        link_shut(request->on_link);
    } else if (request->lease != NULL) {
        /* What it waits for is for nobody now: its loss ends the request. */
        lease_drop(&request->lease);
    } else if (request->group != NULL) {
        group_abandon(request->group);
    }
}
