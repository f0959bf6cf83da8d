/*
 * key_run.h - names of keys, one behind the other, each with its length before it
 *
 * Purpose:    the one form in which keys are kept with a request or sent from worker to worker.
 * Ownership:  the bytes are the caller's.
 * Threading:  one owner.
 * Errors:     appending answers -ENOMEM, or -EINVAL for what is no array of strings; a run that was
 *             cut short ends there.
 */
#ifndef NC_PROXY_KEY_RUN_H
#define NC_PROXY_KEY_RUN_H

#include "base/buffer.h"

#include <stdbool.h>

NC_MUST_CHECK int key_run_add(struct buffer *run, struct bytes key);
/* All elements of an array as it stands in a reply. */
NC_MUST_CHECK int key_run_add_array(struct buffer *run, struct bytes array);
/* Takes the next key off the run's front. False: there is none. */
bool key_run_next(struct bytes *run, struct bytes *key);

#endif
