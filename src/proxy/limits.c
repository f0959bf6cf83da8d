#include "proxy/limits.h"

#include "base/bucket.h"
#include "base/stats.h"
#include "upstream/identity.h"

#include <stdatomic.h>
#include <stdio.h>

struct meter {
    struct bucket bucket;
    _Atomic unsigned n; /* atomic: under way */
};

static struct meter of_namespaces[CONFIG_NAMESPACES_MAX];
static struct meter of_users[IDENTITIES_MAX + 1];

bool limits_are_set(const struct config *config)
{
    bool is_set = config->user_rate_limit > 0 || config->user_max_concurrency > 0;

    for (unsigned i = 0; i < config->n_namespaces; i++) {
        is_set = is_set || config->namespaces[i].rate_limit > 0 ||
                 config->namespaces[i].max_concurrency > 0;
    }
    return is_set;
}

/* A place among those under way. most 0: no limit, and nothing is counted. */
static bool enter(struct meter *meter, int64_t most, uint16_t number, uint16_t *held)
{
    *held = 0;
    if (most == 0) {
        return true;
    }
    if (atomic_fetch_add_explicit(&meter->n, 1, memory_order_relaxed) >= most) {
        atomic_fetch_sub_explicit(&meter->n, 1, memory_order_relaxed);
        return false;
    }
    *held = (uint16_t)(number + 1);
    return true;
}

static const char *refuse(struct permit *permit, char *text, size_t size, enum metric metric,
                          const char *option, const char *whose)
{
    limits_return(permit);
    stats_add(metric, 1);
    (void)snprintf(text, size, "ERR nearcached: the %s of %s is reached", option, whose);
    return text;
}

const char *limits_take(const struct config *config, const struct config_namespace *ns,
                        unsigned user, const char *user_name, int64_t now_us, struct permit *permit,
                        char *text, size_t size)
{
    struct meter *const of_ns = &of_namespaces[ns->id];
    struct meter *const of_user = &of_users[user <= IDENTITIES_MAX ? user : 0];
    char whose[160];

    *permit = (struct permit){0};
    (void)snprintf(whose, sizeof(whose), "namespace '%s'", ns->name);
    if (!enter(of_ns, ns->max_concurrency, ns->id, &permit->ns)) {
        return refuse(permit, text, size, METRIC_limited_ns_concurrency, "max-concurrency", whose);
    }
    if (ns->rate_limit > 0 && !bucket_take(&of_ns->bucket, ns->rate_limit, now_us)) {
        return refuse(permit, text, size, METRIC_limited_ns_rate, "rate-limit", whose);
    }
    (void)snprintf(whose, sizeof(whose), "user '%.128s'", user_name);
    if (!enter(of_user, config->user_max_concurrency, (uint16_t)user, &permit->user)) {
        if (ns->rate_limit > 0) {
            bucket_return(&of_ns->bucket, ns->rate_limit);
        }
        return refuse(permit, text, size, METRIC_limited_user_concurrency, "user-max-concurrency",
                      whose);
    }
    if (config->user_rate_limit > 0 &&
        !bucket_take(&of_user->bucket, config->user_rate_limit, now_us)) {
        if (ns->rate_limit > 0) {
            bucket_return(&of_ns->bucket, ns->rate_limit);
        }
        return refuse(permit, text, size, METRIC_limited_user_rate, "user-rate-limit", whose);
    }
    return NULL;
}

void limits_return(struct permit *permit)
{
    if (permit->ns != 0) {
        atomic_fetch_sub_explicit(&of_namespaces[permit->ns - 1].n, 1, memory_order_relaxed);
    }
    if (permit->user != 0) {
        atomic_fetch_sub_explicit(&of_users[permit->user - 1].n, 1, memory_order_relaxed);
    }
    *permit = (struct permit){0};
}

void limits_undo(const struct config *config, const struct config_namespace *ns, unsigned user)
{
    if (ns->rate_limit > 0) {
        bucket_return(&of_namespaces[ns->id].bucket, ns->rate_limit);
    }
    if (config->user_rate_limit > 0) {
        bucket_return(&of_users[user <= IDENTITIES_MAX ? user : 0].bucket, config->user_rate_limit);
    }
}
