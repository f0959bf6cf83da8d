/*
 * page.h - the status page: one file, part of the binary
 *
 * Purpose:    answer GET / with src/admin/page/status.html, as it is or compressed, under a policy
 *             that lets it run its own script and ask its own origin, and nothing else.
 * Ownership:  the page is constant.
 * Threading:  the control thread.
 * Errors:     none.
 */
#ifndef NC_ADMIN_PAGE_H
#define NC_ADMIN_PAGE_H

#include <event2/http.h>

void page_answer(struct evhttp_request *request);

#endif
