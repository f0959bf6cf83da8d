/*
 * status_http.h - GET /v1/status, /v1/metrics, /v1/namespaces, /v1/history and /v1/config
 *
 * Purpose:    what /metrics says, as JSON in the form that the status page and nearcached-top need:
 *             docs/status.md describes it. Members are added, and never change their meaning.
 * Ownership:  the JSON goes to the caller.
 * Threading:  the control thread, with the facts of metrics_gather().
 * Errors:     none.
 * Units:      as names end: _ms, _us, _bytes, _unix_ms; /v1/metrics has base units, like /metrics.
 */
#ifndef NC_ADMIN_STATUS_HTTP_H
#define NC_ADMIN_STATUS_HTTP_H

#include "admin/metric_facts.h"
#include "upstream/discovery.h"

#include <jansson.h>

/* discovery may be NULL. */
json_t *status_json(const struct proxy *proxy, const struct discovery *discovery,
                    const struct metrics_facts *facts);
/* names: of metrics, apart by commas, with or without "nearcached_"; NULL: all. */
json_t *status_metrics_json(const struct metrics_facts *facts, const char *names);
/* One row for each that is configured. */
json_t *status_namespaces_json(const struct proxy *proxy, const struct metrics_facts *facts);
/* Options in force; of secrets only whether there is one. */
json_t *status_config_json(const struct config *config);

#endif
