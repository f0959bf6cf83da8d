/*
 * log.h - one event per line on stderr, logfmt or JSON
 *
 * Purpose:    tell an operator what changed. msg is a fixed phrase one can grep for; what varies
 *             goes into fields. Requests are counted, never logged.
 * Threading:  any thread; one write(2) per line, so lines never mix.
 * Errors:     a line that cannot be written (disk full, nobody reads the pipe) is dropped and
 * counted (log_dropped()). After log_never_block() that takes no time either.
 *
 *     log_warn("upstream", "link lost", "addr=%s retry_ms=%d", addr, retry_ms);
 *
 * The third argument is a printf format of space separated key=value fields, or NULL. A value
 * that may hold spaces, quotes or foreign bytes is written as key=%s with log_quote(). No secret
 * and no value of a key ever goes into a field.
 */
#ifndef NC_BASE_LOG_H
#define NC_BASE_LOG_H

#include "base/bytes.h"
#include "base/check.h"

#include <stdarg.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Process-wide, may be changed at any time. */
void log_set_level(enum log_level level);
void log_set_json(bool json);
bool log_is_on(enum log_level level);
unsigned long log_dropped(void);

/*
 * From now on a full pipe, socket or terminal costs lines instead of holding up who logs. Before
 * there are other threads; once more when stderr has become something else.
 */
void log_never_block(void);

/* The number that lines of this thread carry as worker=N; -1 (the default) leaves it out. */
void log_set_worker(int worker);

/* Escaped, quoted where needed and cut to 64 bytes; lives in one of eight thread-local buffers. */
const char *log_quote(struct bytes text);

/* The same for texts of our own making (a configuration error): cut to 400 bytes, one per line. */
const char *log_quote_long(struct bytes text);

void log_event(enum log_level level, const char *module, const char *msg, const char *fields, ...)
    NC_PRINTF(4, 5);

#define log_error(module, msg, ...) log_event(LOG_ERROR, module, msg, __VA_ARGS__)
#define log_warn(module, msg, ...) log_event(LOG_WARN, module, msg, __VA_ARGS__)
#define log_info(module, msg, ...) log_event(LOG_INFO, module, msg, __VA_ARGS__)
#define log_debug(module, msg, ...)                                                                \
    do {                                                                                           \
        if (log_is_on(LOG_DEBUG)) {                                                                \
            log_event(LOG_DEBUG, module, msg, __VA_ARGS__);                                        \
        }                                                                                          \
    } while (0)

/*
 * Limits a burst: true when the event may be logged now; *suppressed then tells how many were
 * withheld since the last one. One struct per call site and thread.
 */
struct log_limit {
    int64_t window_started_ms;
    unsigned n_in_window, n_suppressed;
};
bool log_limit_pass(struct log_limit *limit, int64_t now_ms, unsigned *suppressed);

#endif
