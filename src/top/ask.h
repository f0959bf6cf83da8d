/*
 * ask.h - JSON of the admin port
 *
 * Purpose:    one GET at a time over one connection, which is made again when it is lost.
 * Ownership:  asker_new() to asker_free(); the caller decrefs the answer.
 * Threading:  one thread, which waits.
 * Errors:     NULL, with a text for people; asker_status() tells refusals apart.
 * Units:      seconds.
 */
#ifndef NC_TOP_ASK_H
#define NC_TOP_ASK_H

#include "base/check.h"

#include <jansson.h>

#define ASK_ERROR_LEN 160

struct asker; /* opaque */

/*
 * where: [http://]HOST:PORT, [http://][V6]:PORT or :PORT. token: sent as Bearer, or NULL. NULL,
 * with the reason in error, when where is none of these.
 */
struct asker *asker_new(const char *where, const char *token, unsigned timeout_s,
                        char error[ASK_ERROR_LEN]);
void asker_free(struct asker **asker);

/* "10.0.0.7:9380" */
const char *asker_address(const struct asker *asker);
/* path with its query. */
NC_MUST_CHECK json_t *asker_get(struct asker *asker, const char *path, char error[ASK_ERROR_LEN]);
/* HTTP's, of the last answer; 0: there was none. */
int asker_status(const struct asker *asker);

#endif
