/*
 * Large requests and replies on a link: reading that pauses, a request that is written while it
 * still arrives, operations that change hands.
 */
#include "upstream/link.h"

#include "base/clock.h"

#include <errno.h>

/* Below this much unsent, whoever fills is asked for more. */
#define DRAINED_BYTES ((size_t)256 * 1024)

/* ---- replies ---- */

void link_pause(struct link *link)
{
    if (!link->is_paused && link->state == LINK_UP) {
        link->is_paused = true;
        event_del(link->read_event);
    }
}

void link_resume(struct link *link)
{
    if (link->is_paused) {
        link->is_paused = false;
        link->last_progress_us = clock_now_us();
        event_add(link->read_event, NULL);
        /* Bytes may be here already that the descriptor does not tell of. */
        event_active(link->read_event, EV_READ, 0);
    }
}

void link_replace_op(struct link *link, struct link_op *op, struct link_op *by)
{
    struct link_op **at = &link->first_op;

    while (*at != op) {
        CHECK(*at != NULL);
        at = &(*at)->next;
    }
    by->next = op->next;
    by->begin = op->begin;
    by->end = op->end;
    by->sent_at_us = op->sent_at_us;
    by->n_replies = op->n_replies;
    by->n_seen = op->n_seen;
    *at = by;
    if (link->last_op == op) {
        link->last_op = by;
    }
    op->next = NULL;
}

bool link_has_others(const struct link *link, const struct link_op *op)
{
    return link->first_op != op || (op != NULL && op->next != NULL);
}

/* ---- requests ---- */

size_t link_unsent(const struct link *link)
{
    return (size_t)(link->out_base + buffer_len(&link->out) - link->out_sent);
}

void link_keep_requests(struct link *link, bool on)
{
    CHECK(link->first_op == NULL && buffer_len(&link->out) == 0);
    link->settings.keeps_requests = on;
}

int link_begin_fill(struct link *link, uint32_t db, const struct bytes *parts, unsigned n_parts,
                    unsigned n_replies, struct link_op *op)
{
    const int error = link_send(link, db, parts, n_parts, n_replies, op);

    CHECK(!link->settings.keeps_requests);
    if (error == 0) {
        link->is_filling = true;
        link->is_filled = false;
    }
    return error;
}

int link_fill(struct link *link, struct bytes bytes)
{
    const bool was_drained = link_unsent(link) == 0;
    int error;

    if (!link->is_filling || link->is_losing) {
        return -ENOTCONN;
    }
    error = buffer_append(&link->out, bytes);
    if (error == 0 && was_drained) {
        link->last_progress_us = clock_now_us();
    }
    worker_defer(link->worker, &link->flush);
    return error;
}

/* It is written to its end: from now on the node's answer is waited for. */
static void finish_fill(struct link *link)
{
    link->is_filling = false;
    link->last_progress_us = clock_now_us();
}

void link_end_fill(struct link *link)
{
    link->is_filled = true;
    if (link->is_filling && link_unsent(link) == 0) {
        finish_fill(link);
    }
}

void link_note_written(struct link *link)
{
    link->last_progress_us = clock_now_us();
    if (link->on_drained != NULL && link_unsent(link) <= DRAINED_BYTES) {
        link->on_drained(link);
    }
    if (link->is_filled && link_unsent(link) == 0) {
        finish_fill(link);
    }
}
