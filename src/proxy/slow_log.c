/*
 * Design: a request keeps its first bytes (request.h), as its frame may be gone when its reply
 * comes. They are taken apart when somebody reads the log. Requests that may hold passwords show
 * their names alone.
 */
#include "proxy/slow_log.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/mem.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* a leaf */
static struct slow_entry *ring;                          /* lock; by id modulo size */
static unsigned size;                                    /* lock */
static uint64_t next_id, first_id;                       /* lock: those between are there */
static _Atomic int64_t threshold;                        /* atomic: microseconds; 0: off */

/* ---- the ring ---- */

void slow_log_configure(int64_t threshold_us, unsigned length)
{
    struct slow_entry *fresh = length > 0 ? mem_try_alloc(length * sizeof(*fresh)) : NULL;
    struct slow_entry *former = fresh;

    if (fresh == NULL) {
        length = 0;
    }
    pthread_mutex_lock(&lock);
    if (length != size) {
        if (next_id - first_id > length) {
            first_id = next_id - length;
        }
        for (uint64_t id = first_id; id < next_id; id++) {
            fresh[id % length] = ring[id % size];
        }
        former = ring;
        ring = fresh;
        size = length;
    }
    pthread_mutex_unlock(&lock);
    mem_free(former);
    atomic_store_explicit(&threshold, length > 0 ? threshold_us : 0, memory_order_relaxed);
}

/* Its id is set here. */
static void keep(struct slow_entry *entry)
{
    pthread_mutex_lock(&lock);
    if (size > 0) {
        entry->id = next_id++;
        if (next_id - first_id > size) {
            first_id = next_id - size;
        }
        ring[entry->id % size] = *entry;
    }
    pthread_mutex_unlock(&lock);
}

unsigned slow_log_length(void)
{
    pthread_mutex_lock(&lock);
    const unsigned n = (unsigned)(next_id - first_id);
    pthread_mutex_unlock(&lock);
    return n;
}

void slow_log_reset(void)
{
    pthread_mutex_lock(&lock);
    first_id = next_id;
    pthread_mutex_unlock(&lock);
}

bool slow_log_next(uint64_t before, struct slow_entry *entry)
{
    bool is_there = false;

    pthread_mutex_lock(&lock);
    if (before > next_id) {
        before = next_id;
    }
    if (before > first_id) {
        *entry = ring[(before - 1) % size];
        is_there = true;
    }
    pthread_mutex_unlock(&lock);
    return is_there;
}

/* ---- noting ---- */

/* From when its last connection had it; a read that waits for a fetch waits for the backend. */
static int64_t backend_time(const struct request *request, int64_t took_us)
{
    const int64_t waited_us = request->kind == REQUEST_RELAYED && request->op.sent_at_us != 0
                                  ? request->op.sent_at_us - request->began_at_us
                                  : 0;

    return waited_us > 0 && waited_us < took_us ? took_us - waited_us : took_us;
}

static bool is_secret(const char *command)
{
    static const char *const names[] = {"auth", "hello", "acl", "config", "migrate"};

    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strncasecmp(command, names[i], strlen(names[i])) == 0) {
            return true;
        }
    }
    return false;
}

/* Where it waits for something to happen, the time says nothing. */
static bool is_waiting_by_nature(const struct request *request)
{
    return request->is_blocking || request->is_notice || request->lease_use == LEASE_UNTIMED;
}

static void __attribute__((noinline))
note(const struct request *request, int64_t took_us, bool is_miss)
{
    const struct session *session = request->session;
    struct slow_entry entry = {.at_unix_s = clock_unix_us() / 1000000,
                               .took_us = took_us,
                               .backend_us = backend_time(request, took_us),
                               .frame_bytes = request->frame_brief_bytes,
                               .n_brief = request->n_brief,
                               .is_redacted = request->command != NULL &&
                                              is_secret(request->command->name)};

    snprintf(entry.outcome, sizeof(entry.outcome), "%s", is_miss ? "miss" : "relayed");
    snprintf(entry.command, sizeof(entry.command), "%s",
             request->command != NULL ? request->command->name : "");
    if (session != NULL) {
        snprintf(entry.client, sizeof(entry.client), "%s", session->peer.text);
        snprintf(entry.name, sizeof(entry.name), "%s", session->name != NULL ? session->name : "");
    }
    if (entry.is_redacted) {
        entry.n_brief = 0;
    }
    memcpy(entry.brief, request->brief, entry.n_brief);
    keep(&entry);
}

void slow_log_note(const struct request *request, int64_t took_us, bool is_miss)
{
    const int64_t from_us = atomic_load_explicit(&threshold, memory_order_relaxed);

    if (NC_UNLIKELY(from_us > 0 && took_us >= from_us) && !is_waiting_by_nature(request)) {
        note(request, took_us, is_miss);
    }
}

/* ---- arguments ---- */

/* As Redis has it. */
#define ARGUMENTS_MAX 32u
#define ARGUMENT_MAX 128u

struct brief {
    struct bytes rest;
    struct bytes parts[ARGUMENTS_MAX]; /* what is known of each */
    size_t lengths[ARGUMENTS_MAX];     /* whole */
    unsigned n;                        /* known */
    unsigned long n_all;
};

/* The number behind a '*' or '$', and its line. False: cut off. */
static bool take_header(struct bytes *rest, char mark, unsigned long *number)
{
    const unsigned char *end = rest->len > 0 ? memchr(rest->ptr, '\n', rest->len) : NULL;
    char digits[24] = "";

    if (end == NULL || rest->ptr[0] != (unsigned char)mark || end - rest->ptr >= 24) {
        return false;
    }
    memcpy(digits, rest->ptr + 1, (size_t)(end - rest->ptr) - 1);
    *number = strtoul(digits, NULL, 10);
    *rest = bytes_make(end + 1, rest->len - (size_t)(end + 1 - rest->ptr));
    return true;
}

static void take_arguments(struct brief *brief)
{
    unsigned long length;

    if (!take_header(&brief->rest, '*', &brief->n_all)) {
        return;
    }
    while (brief->n < brief->n_all && brief->n < ARGUMENTS_MAX &&
           take_header(&brief->rest, '$', &length)) {
        const size_t known = length < brief->rest.len ? length : brief->rest.len;
        const size_t step = length + 2 < brief->rest.len ? length + 2 : brief->rest.len;

        brief->parts[brief->n] = bytes_make(brief->rest.ptr, known);
        brief->lengths[brief->n++] = length;
        brief->rest = bytes_make(brief->rest.ptr + step, brief->rest.len - step);
    }
}

static void put_argument(struct resp_writer *reply, struct bytes part, size_t length)
{
    char text[ARGUMENT_MAX + 64];
    const size_t shown = part.len < ARGUMENT_MAX ? part.len : ARGUMENT_MAX;
    int more = 0;

    memcpy(text, part.ptr, shown);
    if (shown < length) {
        more = snprintf(text + shown, sizeof(text) - shown, "... (%zu more bytes)", length - shown);
    }
    resp_put_bulk(reply, bytes_make(text, shown + (size_t)more));
}

void slow_log_put_arguments(const struct slow_entry *entry, struct resp_writer *reply)
{
    struct brief brief = {.rest = bytes_make(entry->brief, entry->n_brief)};

    take_arguments(&brief);
    if (brief.n == 0) {
        resp_put_array(reply, entry->is_redacted ? 2 : 1);
        resp_put_string(reply, entry->command[0] != '\0' ? entry->command : "(unknown)");
        if (entry->is_redacted) {
            resp_put_string(reply, "(redacted)");
        }
        return;
    }
    const bool has_more = brief.n_all > brief.n;
    /* As Redis: of more than 32 the last one shown says how many there are. */
    const unsigned shown = has_more && brief.n == ARGUMENTS_MAX ? brief.n - 1 : brief.n;

    resp_put_array(reply, shown + has_more);
    for (unsigned i = 0; i < shown; i++) {
        put_argument(reply, brief.parts[i], brief.lengths[i]);
    }
    if (has_more) {
        char text[64];

        snprintf(text, sizeof(text), "... (%lu more arguments)", brief.n_all - shown);
        resp_put_string(reply, text);
    }
}
