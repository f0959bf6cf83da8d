/*
 * hot_json.h - GET /v1/hotkeys: what CACHE HOTKEYS and BIGKEYS show
 *
 * Purpose:    the heaviest keys by what is counted of them, for the status page.
 * Ownership:  the JSON goes to the caller.
 * Threading:  the control thread. Names of keys are their users' data: the caller asks order_may().
 * Errors:     what there is no memory for is an empty list.
 * Units:      counts are estimates; sizes are bytes, ages seconds.
 */
#ifndef NC_ADMIN_HOT_JSON_H
#define NC_ADMIN_HOT_JSON_H

#include <jansson.h>

#define HOT_JSON_SHOWN 20u

json_t *hot_json(void);

#endif
