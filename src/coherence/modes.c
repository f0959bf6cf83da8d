#include "coherence/modes.h"

#include "base/log.h"
#include "base/stats.h"
#include "coherence/bus.h"
#include "coherence/ear.h"

#define NO_MODE (-1)

const char *modes_name(int mode)
{
    switch (mode) {
    case COHERENCE_TRACKING:
        return "tracking";
    case COHERENCE_BROADCAST:
        return "broadcast";
    case COHERENCE_KEYSPACE:
        return "keyspace";
    case COHERENCE_PUBSUB:
        return "pubsub";
    default:
        return "ttl";
    }
}

/* Where tracking is demanded and refused nothing is kept. */
const char *track_mode_name(const struct track *track)
{
    if (track->is_probing) {
        return "probing";
    }
    if (track->mode == COHERENCE_TRACKING && !track->is_confirmed) {
        return "none";
    }
    return modes_name(track->mode);
}

static bool is_heard(const struct track *track, enum ear_kind kind)
{
    return atomic_load_explicit(&track->share->is_heard[kind], memory_order_relaxed);
}

/* Until the first test of a connection has ended nothing is decided; then it is as it was. */
static bool is_first_probe(const struct track *track)
{
    return track->is_probing && !track->probe.has_failed;
}

/* The other proxies' writes are heard of, or that some were missed. */
static bool is_bus_up(const struct track *track)
{
    const struct bus *bus = track->coherence->fleet->bus;

    return bus != NULL && bus_is_up(bus);
}

int modes_now(const struct track *track, int coherence)
{
    if (coherence != COHERENCE_AUTO && coherence != COHERENCE_PUBSUB) {
        return coherence;
    }
    if (coherence == COHERENCE_AUTO) {
        if (track->is_confirmed || is_first_probe(track)) {
            return COHERENCE_TRACKING;
        }
        if (is_heard(track, EAR_KEYSPACE)) {
            return COHERENCE_KEYSPACE;
        }
    }
    return is_bus_up(track) ? COHERENCE_PUBSUB : COHERENCE_TTL;
}

/* Whether the bus is up does not matter: what it could not tell, it tells of as a gap. */
bool modes_is_untold(const struct track *track)
{
    const int mode = modes_now(track, COHERENCE_AUTO);

    return mode == COHERENCE_PUBSUB || mode == COHERENCE_TTL;
}

uint16_t modes_incarnation(struct track *track, int coherence, int64_t now_us)
{
    switch (modes_now(track, coherence)) {
    case COHERENCE_TRACKING:
        return track->is_confirmed ? track_incarnation(track, now_us) : EPOCHS_NONE;
    case COHERENCE_BROADCAST:
        return track_may_fetch(track, now_us) ? ear_incarnation(track, EAR_BROADCAST) : EPOCHS_NONE;
    case COHERENCE_KEYSPACE:
        return track_may_fetch(track, now_us) ? ear_incarnation(track, EAR_KEYSPACE) : EPOCHS_NONE;
    default:
        return track_incarnation(track, now_us);
    }
}

struct modes_bound modes_bound_of(const struct track *track, int coherence, uint16_t incarnation)
{
    const struct config *config = track->coherence->config;
    const struct epochs_incarnation *at = epochs_at(cache_epochs(track->coherence->cache),
                                                    incarnation);

    switch (atomic_load_explicit(&at->shared, memory_order_relaxed)) {
    case EAR_BROADCAST + 1:
        return (struct modes_bound){true, INT64_MAX};
    case EAR_KEYSPACE + 1:
        return (struct modes_bound){true, config->keyspace_mode_max_ms * 1000};
    default:
        break;
    }
    if (track->is_confirmed && coherence != COHERENCE_TTL && coherence != COHERENCE_PUBSUB) {
        return (struct modes_bound){false, INT64_MAX};
    }
    if (modes_now(track, coherence) == COHERENCE_PUBSUB) {
        return (struct modes_bound){true, config->pubsub_mode_max_ms * 1000};
    }
    return (struct modes_bound){true, config->ttl_mode_max_ms * 1000};
}

bool modes_is_told(const struct track *track, int coherence, uint16_t incarnation)
{
    const struct epochs_incarnation *at = epochs_at(cache_epochs(track->coherence->cache),
                                                    incarnation);

    return atomic_load_explicit(&at->shared, memory_order_relaxed) != 0 ||
           (track->is_confirmed && coherence != COHERENCE_TTL);
}

/* ---- changes ---- */

static _Atomic unsigned *count_of(struct track *track)
{
    struct coherence *coherence = track->coherence;

    switch (track->mode) {
    case NO_MODE:
        return NULL;
    case COHERENCE_TRACKING:
        return track->is_confirmed ? &coherence->n_tracking_links : &coherence->n_ttl_links;
    case COHERENCE_BROADCAST:
        return &coherence->n_broadcast_links;
    case COHERENCE_KEYSPACE:
        return &coherence->n_keyspace_links;
    case COHERENCE_PUBSUB:
        return &coherence->n_pubsub_links;
    default:
        return &coherence->n_ttl_links;
    }
}

static void count_in(struct track *track, _Atomic unsigned *count)
{
    if (track->counted_in == count) {
        return;
    }
    if (track->counted_in != NULL) {
        atomic_fetch_sub_explicit(track->counted_in, 1, memory_order_relaxed);
    }
    if (count != NULL) {
        atomic_fetch_add_explicit(count, 1, memory_order_relaxed);
    }
    track->counted_in = count;
}

/* So that the keeper of the node's ears knows that auto wants notifications there. */
static void say_untold(struct track *track, bool is_untold)
{
    if (is_untold != track->is_untold) {
        atomic_fetch_add_explicit(&track->share->n_untold, is_untold ? 1u : (unsigned)-1,
                                  memory_order_relaxed);
        track->is_untold = is_untold;
    }
}

/* While a link is down what is written goes on; so what it came to last still counts. */
static void remember_untold(struct track *track)
{
    const bool was_untold = !track->is_confirmed && (track->is_untold || track->was_untold);

    if (was_untold != track->was_untold) {
        track->coherence->n_untold += was_untold ? 1u : (unsigned)-1;
        track->was_untold = was_untold;
    }
}

static void log_mode(const struct track *track, int former)
{
    const struct config *config = track->coherence->config;
    const char *addr = track->link->name;

    switch (track->mode) {
    case COHERENCE_TRACKING:
        if (former != NO_MODE) {
            log_info("coherence", "the backend accepts tracking again", "addr=%s mode=tracking",
                     addr);
        }
        break;
    case COHERENCE_KEYSPACE:
        log_warn("coherence", "the backend refuses tracking, its keyspace notifications are used",
                 "addr=%s mode=keyspace bound_ms=%lld", addr,
                 (long long)config->keyspace_mode_max_ms);
        break;
    case COHERENCE_PUBSUB:
        log_info("coherence", "the other proxies tell of their writes",
                 "addr=%s mode=pubsub bound_ms=%lld", addr, (long long)config->pubsub_mode_max_ms);
        break;
    default:
        log_warn("coherence",
                 config->coherence == COHERENCE_PUBSUB
                     ? "the bus is not up, entries are bounded by time alone"
                     : "the backend refuses tracking, entries are bounded by time alone",
                 "addr=%s mode=ttl bound_ms=%lld", addr, (long long)config->ttl_mode_max_ms);
        break;
    }
}

void modes_renew(struct track *track)
{
    const int coherence = config_main_coherence(track->coherence->config);
    const bool is_up = link_is_up(track->link) && !is_first_probe(track);
    const int former = track->mode;

    track->mode = is_up ? modes_now(track, coherence) : NO_MODE;
    if (is_up && former != track->mode &&
        (coherence == COHERENCE_AUTO || coherence == COHERENCE_PUBSUB)) {
        log_mode(track, former);
    }
    if (is_up && former != NO_MODE && former != track->mode) {
        stats_add(METRIC_flushes_mode, 1);
        stats_add(METRIC_mode_changes, 1);
        track_forget(track);
    }
    say_untold(track, is_up && !track->is_confirmed && track->link->settings.wants_tracking);
    remember_untold(track);
    count_in(track, count_of(track));
}
