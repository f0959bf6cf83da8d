/*
 * Design: a fence has one leg per worker, and one more for each user whose links it has. A leg is
 * passed when that worker's tracking link to the node has answered a PING sent after the fence was
 * asked for, or when the link is down (its epoch has ended, so nothing it read is served any more).
 * The keeper of the ears of the node has one more for each (ear.h).
 * The last leg mails the asker.
 */
#include "coherence/ear.h"
#include "coherence/recent.h"
#include "coherence/track.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/stats.h"

struct fence_leg {
    struct mail mail;
    struct fence_leg *next; /* in its track's list */
    struct fence_leg *more; /* for the same worker's links of users; this worker's until the end */
    struct coherence_fence *fence;
    struct coherence *coherence;
};

struct coherence_fence {
    struct mail done_mail;
    struct coherence *asker;
    _Atomic unsigned n_left;
    epochs_node node;
    unsigned n_workers;
    void (*done)(void *arg);
    void *arg;
    struct fence_leg legs[];
};

struct fence_leg *fence_leg_next(const struct fence_leg *leg)
{
    return leg->next;
}

void fence_leg_set_next(struct fence_leg *leg, struct fence_leg *next)
{
    leg->next = next;
}

static void on_all_passed(struct mail *mail)
{
    struct coherence_fence *fence = CONTAINER_OF(mail, struct coherence_fence, done_mail);

    /* What lapsed with links that were lost may have changed as well. */
    epochs_end_lapsed(cache_epochs(fence->asker->cache), fence->node, INT64_MAX);
    fence->done(fence->arg);
    for (unsigned i = 0; i < fence->n_workers; i++) {
        struct fence_leg *leg = fence->legs[i].more;

        while (leg != NULL) {
            struct fence_leg *const more = leg->more;

            mem_free(leg);
            leg = more;
        }
    }
    mem_free(fence);
}

void fence_leg_done(struct fence_leg *leg)
{
    struct coherence_fence *fence = leg->fence;

    /* acq_rel: the asker sees what every worker dropped before it passed its leg. */
    if (atomic_fetch_sub_explicit(&fence->n_left, 1, memory_order_acq_rel) == 1) {
        worker_post(fence->asker->worker, &fence->done_mail);
    }
}

/* One leg more on this worker. */
static struct fence_leg *add_leg(struct fence_leg *leg)
{
    struct fence_leg *more = mem_alloc(sizeof(*more));

    more->fence = leg->fence;
    more->more = leg->more;
    leg->more = more;
    /* Relaxed: its own leg, still to be passed, keeps the fence from ending. */
    atomic_fetch_add_explicit(&leg->fence->n_left, 1, memory_order_relaxed);
    return more;
}

static void on_leg(struct mail *mail)
{
    struct fence_leg *leg = CONTAINER_OF(mail, struct fence_leg, mail);
    struct backend_node *node = backend_by_id(leg->coherence->backend, leg->fence->node);

    if (node == NULL) {
        fence_leg_done(leg);
        return;
    }
    for (struct backend_node *of = node->of_users; of != NULL; of = of->next) {
        track_add_leg(of->track, add_leg(leg));
    }
    const struct track *track = node->track;

    for (unsigned kind = 0; kind < N_EARS; kind++) {
        if (track->ears[kind] != NULL) {
            ear_add_leg(track->ears[kind], add_leg(leg));
        }
    }
    /* What replicas showed may be older than what the fence is for, and stays so for a while. */
    for (struct backend_node *replica = backend_next_replica(leg->coherence->backend, node, NULL);
         replica != NULL; replica = backend_next_replica(leg->coherence->backend, node, replica)) {
        track_forget(replica->track);
        for (struct backend_node *of = replica->of_users; of != NULL; of = of->next) {
            track_forget(of->track);
        }
    }
    track_add_leg(node->track, leg);
}

void coherence_fence(struct coherence *coherence, epochs_node node, void (*done)(void *arg),
                     void *arg)
{
    struct coherence_fleet *fleet = coherence->fleet;
    struct coherence_fence *fence = mem_alloc(sizeof(*fence) +
                                              fleet->n_members * sizeof(struct fence_leg));

    stats_add(METRIC_fences, 1);
    recent_note_all(fleet->recent, clock_now_us());
    fence->done_mail.run = on_all_passed;
    fence->asker = coherence;
    fence->node = node;
    fence->n_workers = fleet->n_members;
    fence->done = done;
    fence->arg = arg;
    atomic_store_explicit(&fence->n_left, fleet->n_members, memory_order_relaxed);
    for (unsigned i = 0; i < fleet->n_members; i++) {
        struct fence_leg *leg = &fence->legs[i];

        leg->mail.run = on_leg;
        leg->fence = fence;
        leg->coherence = fleet->members[i];
        worker_post(fleet->members[i]->worker, &leg->mail);
    }
}
