/*
 * clock.h - the instants that the program reasons with
 *
 * Purpose:    CLOCK_BOOTTIME for every deadline, age and watermark: it goes on while the machine
 *             sleeps, so a value cannot look fresh after a suspend, and no step of the wall clock
 *             moves it. The wall clock serves logs and
 *             metrics only.
 * Threading:  any thread; a vDSO read of about 25 ns, no system call.
 * Units:      microseconds and milliseconds since boot; clock_unix_ms() and clock_unix_us() since
 * 1970.
 */
#ifndef NC_BASE_CLOCK_H
#define NC_BASE_CLOCK_H

#include <stdint.h>

int64_t clock_now_us(void);
int64_t clock_now_ms(void);
int64_t clock_unix_ms(void);
int64_t clock_unix_us(void);

#endif
