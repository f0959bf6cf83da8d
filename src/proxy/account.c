#include "proxy/account.h"

#include "base/clock.h"
#include "base/stats.h"
#include "proxy/slow_log.h"

enum account_family account_family_of(const struct command *command)
{
    if (command == NULL) {
        return FAMILY_OTHER;
    }
    switch ((enum command_class)command->class) {
    case CLASS_CACHED_READ:
    case CLASS_READ:
    case CLASS_SPLIT_READ:
    case CLASS_MULTI_READ:
        return FAMILY_READ;
    case CLASS_WRITE:
    case CLASS_SPLIT_WRITE:
    case CLASS_MULTI_WRITE:
        return FAMILY_WRITE;
    case CLASS_SCRIPT:
    case CLASS_SCRIPT_READ:
        return FAMILY_SCRIPT;
    case CLASS_PINNED:
    case CLASS_CONNECTION:
    case CLASS_LOCAL:
    case CLASS_ALL_NODES:
    case CLASS_ADMIN:
    case CLASS_REFUSED:
    case CLASS_PROXY:
    case N_COMMAND_CLASSES:
        break;
    }
    return (command->flags & COMMAND_WRITES) != 0 ? FAMILY_WRITE : FAMILY_OTHER;
}

/* ---- outcomes ---- */

static bool is_miss(const struct request *request)
{
    return request->kind == REQUEST_CACHED || request->outcome == OUTCOME_MISS;
}

static enum ns_metric metric_of(const struct request *request)
{
    static const enum ns_metric relayed[] = {
        [FAMILY_READ] = NS_METRIC_requests_read,
        [FAMILY_WRITE] = NS_METRIC_requests_write,
        [FAMILY_SCRIPT] = NS_METRIC_requests_script,
        [FAMILY_OTHER] = NS_METRIC_requests_other,
    };

    if (is_miss(request)) {
        return NS_METRIC_requests_miss;
    }
    switch ((enum request_outcome)request->outcome) {
    case OUTCOME_HIT:
        return NS_METRIC_requests_hit;
    case OUTCOME_STALE:
        return NS_METRIC_requests_stale;
    case OUTCOME_BYPASS:
        return NS_METRIC_requests_bypass;
    case OUTCOME_OF_KIND:
    case OUTCOME_MISS:
        break;
    }
    return relayed[account_family_of(request->command)];
}

/* Its parts have been counted and timed where they were found. */
static bool is_from_tier_1(const struct request *request)
{
    return request->outcome == OUTCOME_HIT || request->outcome == OUTCOME_STALE;
}

void account_done(const struct request *request)
{
    const int64_t took_us = clock_now_us() - request->began_at_us;

    if (request->kind == REQUEST_LOCAL) {
        return;
    }
    stats_ns_add(request->ns, metric_of(request), 1);
    if (is_from_tier_1(request)) {
        return;
    }
    stats_ns_observe(request->ns,
                     is_miss(request) ? NS_HISTOGRAM_latency_miss : NS_HISTOGRAM_latency_relayed,
                     took_us, 1);
    slow_log_note(request, took_us, is_miss(request));
}

/* ---- errors ---- */

enum error_kind { ERROR_TYPE, ERROR_AUTH, ERROR_AWAY, ERROR_MEMORY, ERROR_PROXY, ERROR_OTHER };

static const struct {
    const char *begin;
    enum error_kind kind;
} words[] = {
    {"-WRONGTYPE", ERROR_TYPE},  {"-NOAUTH", ERROR_AUTH},
    {"-WRONGPASS", ERROR_AUTH},  {"-NOPERM", ERROR_AUTH},
    {"-LOADING", ERROR_AWAY},    {"-CLUSTERDOWN", ERROR_AWAY},
    {"-MASTERDOWN", ERROR_AWAY}, {"-READONLY", ERROR_AWAY},
    {"-TRYAGAIN", ERROR_AWAY},   {"-BUSY ", ERROR_AWAY},
    {"-NOREPLICAS", ERROR_AWAY}, {"-MISCONF", ERROR_AWAY},
    {"-OOM", ERROR_MEMORY},      {"-ERR nearcached: ", ERROR_PROXY},
};

static enum error_kind kind_of(struct bytes error)
{
    for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (bytes_start_with(error, bytes_of_string(words[i].begin))) {
            return words[i].kind;
        }
    }
    return ERROR_OTHER;
}

#define KINDS(family)                                                                              \
    {                                                                                              \
        [ERROR_TYPE] = METRIC_error_replies_##family##_type,                                       \
        [ERROR_AUTH] = METRIC_error_replies_##family##_auth,                                       \
        [ERROR_AWAY] = METRIC_error_replies_##family##_away,                                       \
        [ERROR_MEMORY] = METRIC_error_replies_##family##_memory,                                   \
        [ERROR_PROXY] = METRIC_error_replies_##family##_proxy,                                     \
        [ERROR_OTHER] = METRIC_error_replies_##family##_other,                                     \
    }

void account_reply(const struct command *command, struct bytes reply)
{
    static const enum metric metrics[][ERROR_OTHER + 1] = {
        [FAMILY_READ] = KINDS(read),
        [FAMILY_WRITE] = KINDS(write),
        [FAMILY_SCRIPT] = KINDS(script),
        [FAMILY_OTHER] = KINDS(other),
    };

    if (reply.len > 0 && reply.ptr[0] == '-') {
        stats_add(metrics[account_family_of(command)][kind_of(reply)], 1);
    }
}
