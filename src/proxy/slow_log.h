/*
 * slow_log.h - the proxy's own slow requests, as SLOWLOG shows a server's
 *
 * Purpose:    keep the last slowlog-length requests that took slowlog-threshold or longer, with who
 *             asked, how the request began, and where the time went.
 * Ownership:  a ring for the process. What is read is copied.
 * Threading:  any thread. A short lock, for requests that are slow already; a reader takes it once
 *             per entry.
 * Errors:     none; without memory nothing is kept.
 * Units:      microseconds; instants in seconds since 1970.
 */
#ifndef NC_PROXY_SLOW_LOG_H
#define NC_PROXY_SLOW_LOG_H

#include "proxy/request.h"
#include "resp/writer.h"

struct slow_entry {
    uint64_t id;
    int64_t at_unix_s, took_us;
    int64_t backend_us; /* of these, from being handed to a connection on */
    char outcome[8];    /* "miss" or "relayed" */
    bool is_redacted;   /* it may hold a password */
    char client[128], name[64];
    char command[64]; /* for when the request's beginning is not known */
    uint32_t frame_bytes;
    uint32_t n_brief;
    unsigned char brief[REQUEST_BRIEF_MAX];
};

/* threshold_us 0: off. The newest of what is there stay. Any thread. */
void slow_log_configure(int64_t threshold_us, unsigned length);
/* A request has its reply, in this time. */
void slow_log_note(const struct request *request, int64_t took_us, bool is_miss);

unsigned slow_log_length(void);
void slow_log_reset(void);
/* The newest that is older than `before` (UINT64_MAX: the newest of all). False: there is none. */
bool slow_log_next(uint64_t before, struct slow_entry *entry);
/* The entry's arguments as far as they are known, as SLOWLOG shortens them: an array. */
void slow_log_put_arguments(const struct slow_entry *entry, struct resp_writer *reply);

#endif
