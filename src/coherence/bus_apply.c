#include "coherence/bus_apply.h"

#include "base/clock.h"
#include "coherence/recent.h"
#include "coherence/track.h"

/* Clients that keep the key are told too: in an array, as on the wire. */
static void announce(struct coherence *coherence, struct bytes key)
{
    struct buffer array;

    buffer_init(&array);
    /* A request is an array of bulk strings. Out of memory: everything may have changed. */
    track_announce(coherence,
                   resp_write_request(&array, &key, 1) == 0 ? buffer_bytes(&array) : BYTES(""));
    buffer_fini(&array);
}

static void drop_key(struct coherence *coherence, struct bytes key)
{
    if (coherence->backend->reads_replicas) {
        recent_note(coherence->fleet->recent, cache_hash(key), clock_now_us());
    }
    if (cache_invalidate(coherence->cache, key)) {
        stats_add(METRIC_invalidations_bus, 1);
    }
    announce(coherence, key);
}

static void drop_all(struct coherence *coherence, enum metric reason)
{
    coherence_drop_all(coherence, reason);
    track_announce(coherence, BYTES(""));
}

static void on_record(void *context, const struct bus_record *record)
{
    if (record->kind == BUS_KEY) {
        drop_key(context, record->a);
    } else {
        drop_all(context, METRIC_flushes_bus);
    }
}

static void on_gap(void *context)
{
    drop_all(context, METRIC_flushes_bus_gap);
}

const struct bus_events bus_apply_events = {on_record, on_gap};
