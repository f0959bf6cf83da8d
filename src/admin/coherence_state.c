#include "admin/coherence_state.h"

#include "coherence/bus.h"
#include "coherence/ear.h"
#include "coherence/modes.h"

/* What is in use, and what that allows. */
struct survey {
    bool is_in_use[COHERENCE_TTL + 1];
};

static void add_links(const struct proxy *proxy, struct coherence_state *state)
{
    for (unsigned i = 0; i < proxy->n_fronts; i++) {
        const struct coherence *coherence = &proxy->fronts[i].coherence;

        state->n_tracking_links += atomic_load_explicit(&coherence->n_tracking_links,
                                                        memory_order_relaxed);
        state->n_broadcast_links += atomic_load_explicit(&coherence->n_broadcast_links,
                                                         memory_order_relaxed);
        state->n_keyspace_links += atomic_load_explicit(&coherence->n_keyspace_links,
                                                        memory_order_relaxed);
        state->n_pubsub_links += atomic_load_explicit(&coherence->n_pubsub_links,
                                                      memory_order_relaxed);
        state->n_ttl_links += atomic_load_explicit(&coherence->n_ttl_links, memory_order_relaxed);
    }
    state->n_broadcast_nodes = atomic_load_explicit(&proxy->fleet.n_ears[EAR_BROADCAST],
                                                    memory_order_relaxed);
    state->n_keyspace_nodes = atomic_load_explicit(&proxy->fleet.n_ears[EAR_KEYSPACE],
                                                   memory_order_relaxed);
}

static void survey_links(const struct coherence_state *state, int coherence, struct survey *survey)
{
    survey->is_in_use[COHERENCE_TRACKING] = state->n_tracking_links > 0;
    survey->is_in_use[COHERENCE_BROADCAST] = state->n_broadcast_links > 0;
    survey->is_in_use[COHERENCE_KEYSPACE] = state->n_keyspace_links > 0;
    survey->is_in_use[COHERENCE_PUBSUB] = state->n_pubsub_links > 0;
    survey->is_in_use[COHERENCE_TTL] = state->n_ttl_links > 0 || coherence == COHERENCE_TTL;
    for (int mode = COHERENCE_TRACKING; mode <= COHERENCE_TTL; mode++) {
        if (survey->is_in_use[mode]) {
            return;
        }
    }
    /* None is up: what they will be. */
    survey->is_in_use[coherence == COHERENCE_AUTO ? COHERENCE_TRACKING : coherence] = true;
}

static void survey_namespaces(const struct proxy *proxy, const struct config *config, int coherence,
                              struct survey *survey)
{
    const struct bus *bus = proxy->fleet.bus;
    const bool is_bus_up = bus != NULL && bus_is_up(bus);

    for (unsigned i = 0; i < config->n_namespaces; i++) {
        const struct config_namespace *ns = &config->namespaces[i];

        if (!ns->has_cache || ns->coherence == coherence) {
            continue;
        }
        if (ns->coherence == COHERENCE_AUTO) {
            survey->is_in_use[COHERENCE_TRACKING] = true;
            ear_survey_untold(&proxy->fleet, &survey->is_in_use[COHERENCE_KEYSPACE],
                              &survey->is_in_use[is_bus_up ? COHERENCE_PUBSUB : COHERENCE_TTL]);
        } else if (ns->coherence == COHERENCE_PUBSUB && !is_bus_up) {
            survey->is_in_use[COHERENCE_TTL] = true;
        } else {
            survey->is_in_use[ns->coherence] = true;
        }
    }
}

/*
 * Where a link is told of writes, the serve rule refuses what its watermark leaves older than
 * max-staleness; what notifications do not tell is asked for. Where none tells, an entry's life is
 * the bound.
 */
static int64_t bound_of(int mode, const struct config *config)
{
    switch (mode) {
    case COHERENCE_KEYSPACE:
        return config->max_staleness_ms + config->keyspace_poll_ms;
    case COHERENCE_PUBSUB:
        return config->pubsub_mode_max_ms;
    case COHERENCE_TTL:
        return config->ttl_mode_max_ms;
    default:
        return config->max_staleness_ms;
    }
}

struct coherence_state coherence_state_of(const struct proxy *proxy, const struct config *config)
{
    struct coherence_state state = {0};
    struct survey survey = {0};
    const int coherence = config_main_coherence(config);
    unsigned n_modes = 0;

    add_links(proxy, &state);
    survey_links(&state, coherence, &survey);
    survey_namespaces(proxy, config, coherence, &survey);
    for (int mode = COHERENCE_TRACKING; mode <= COHERENCE_TTL; mode++) {
        if (survey.is_in_use[mode]) {
            const int64_t bound_ms = bound_of(mode, config);

            state.mode = n_modes++ == 0 ? modes_name(mode) : "mixed";
            state.staleness_bound_ms = bound_ms > state.staleness_bound_ms
                                           ? bound_ms
                                           : state.staleness_bound_ms;
        }
    }
    state.is_tracking = n_modes == 1 && survey.is_in_use[COHERENCE_TRACKING];
    return state;
}
