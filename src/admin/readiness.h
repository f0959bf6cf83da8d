/*
 * readiness.h - may clients be sent here? For /readyz and for people
 *
 * Purpose:    one answer, with its reason.
 * Ownership:  everything is borrowed for the call.
 * Threading:  the control thread.
 * Errors:     none.
 */
#ifndef NC_ADMIN_READINESS_H
#define NC_ADMIN_READINESS_H

#include "proxy/front.h"
#include "upstream/discovery.h"

#define READINESS_TEXT_MAX 512

/* discovery: NULL: nobody knows why the backend cannot be reached. text: "ok", or the reason. */
bool readiness_of(const struct proxy *proxy, const struct discovery *discovery,
                  char text[READINESS_TEXT_MAX]);

#endif
