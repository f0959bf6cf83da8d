/*
 * info.h - the "# Nearcached" section of INFO
 *
 * Purpose:    the proxy's own facts, for people and for clients that read INFO. Each name begins
 *             with "nearcached_", as clients put all sections into one dictionary.
 * Threading:  a worker's thread.
 */
#ifndef NC_ADMIN_INFO_H
#define NC_ADMIN_INFO_H

#include "proxy/front.h"

/* A proxy_info_fn: the section with its heading, lines end with CRLF. */
void info_section(struct proxy *proxy, struct resp_writer *text);

/* Appends one line, CRLF included. */
void info_line(struct resp_writer *text, const char *format, ...) NC_PRINTF(2, 3);

#endif
