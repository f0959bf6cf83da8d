/*
 * process.h - what the kernel says of this process
 *
 * Purpose:    the figures that every exporter of metrics shows.
 * Ownership:  none.
 * Threading:  any thread. It reads a few files of /proc: not for the data path.
 * Errors:     what cannot be read is 0.
 * Units:      bytes, microseconds, seconds since 1970.
 */
#ifndef NC_BASE_PROCESS_H
#define NC_BASE_PROCESS_H

#include <stdint.h>

struct process_figures {
    uint64_t resident_bytes, virtual_bytes;
    uint64_t n_open_fds, max_fds, n_threads;
    int64_t cpu_us;
    double started_at_unix;
};

void process_read(struct process_figures *figures);

#endif
