#include "proxy/touch.h"

#include "base/mem.h"
#include "base/stats.h"
#include "proxy/dispatch.h"
#include "proxy/key_run.h"
#include "resp/own.h"

#include <stdio.h>

struct touch_leg {
    struct link_op op;
    struct touch *touch;
};

struct touch {
    void (*done)(void *owner, bool is_heard);
    void *owner; /* NULL: abandoned */
    unsigned n_left;
    bool has_failed;
    struct touch_leg legs[];
};

static void end_leg(struct touch *touch, bool is_heard)
{
    touch->has_failed = touch->has_failed || !is_heard;
    if (--touch->n_left > 0) {
        return;
    }
    if (touch->owner != NULL) {
        touch->done(touch->owner, !touch->has_failed);
    }
    mem_free(touch);
}

static void on_reply(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                     bool is_first, bool is_last)
{
    (void)link;
    (void)index;
    (void)is_first;
    if (is_last) {
        end_leg(CONTAINER_OF(op, struct touch_leg, op)->touch, part.len > 0 && part.ptr[0] == ':');
    }
}

static void on_lost(struct link_op *op, struct link *link, enum link_loss loss)
{
    (void)link;
    (void)loss;
    end_leg(CONTAINER_OF(op, struct touch_leg, op)->touch, false);
}

static const struct link_op_type touch_type = {on_reply, on_lost};

static bool send_leg(struct touch_leg *leg, struct link *link, uint32_t db, struct bytes key)
{
    char head[64];
    const int length = snprintf(head, sizeof(head), OWN_EXISTS "$%zu\r\n", key.len);
    const struct bytes parts[] = {bytes_make(head, (size_t)length), key, BYTES("\r\n")};

    leg->op.type = &touch_type;
    leg->op.collect = LINK_COLLECT_MIN;
    return link_send(link, db, parts, 3, 1, &leg->op) == 0;
}

static unsigned count_keys(struct bytes keys)
{
    struct bytes key;
    unsigned n = 0;

    while (key_run_next(&keys, &key)) {
        n++;
    }
    return n;
}

struct touch *touch_begin(struct front *front, const struct identity *identity, uint32_t db,
                          struct bytes keys, void (*done)(void *owner, bool is_heard), void *owner)
{
    struct touch *touch = mem_try_alloc(sizeof(*touch) +
                                        count_keys(keys) * sizeof(struct touch_leg));
    struct touch_leg *leg = touch != NULL ? touch->legs : NULL;
    struct bytes key;

    if (touch == NULL) {
        return NULL;
    }
    *touch = (struct touch){.done = done, .owner = owner};
    while (!touch->has_failed && key_run_next(&keys, &key)) {
        const unsigned slot = dispatch_is_cluster(front) ? command_key_slot(key) : 0;
        struct link *link = coherence_hearing_link(&front->coherence, slot, identity);

        leg->touch = touch;
        if (link == NULL || !send_leg(leg, link, db, key)) {
            touch->has_failed = true;
        } else {
            touch->n_left++;
            leg++;
        }
    }
    if (!touch->has_failed) {
        stats_add(METRIC_client_tracking_touches, 1);
        return touch;
    }
    touch->owner = NULL; /* what was sent is answered to nobody */
    if (touch->n_left == 0) {
        mem_free(touch);
    }
    return NULL;
}

void touch_abandon(struct touch **touch)
{
    if (*touch != NULL) {
        (*touch)->owner = NULL;
        *touch = NULL;
    }
}
