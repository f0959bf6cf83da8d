/*
 * audit_report.h - what the auditor found, and CACHE AUDIT
 *
 * Purpose:    the sums that INFO, /metrics and CACHE AUDIT show; auditing all views of one key now.
 * Ownership:  none.
 * Threading:  the sums: any thread. audit_report_key(): the session's worker; its reply takes its
 *             place in the session's order when every view has its verdict.
 * Errors:     answered.
 */
#ifndef NC_ADMIN_AUDIT_REPORT_H
#define NC_ADMIN_AUDIT_REPORT_H

#include "proxy/session.h"

/* Of what was compared; 0 when nothing was. */
double audit_stale_ratio(void);
/* Lines of the "# Nearcached" section of INFO. */
void audit_report_info(const struct config *config, struct resp_writer *text);
/* CACHE AUDIT. */
void audit_report(const struct config *config, struct resp_writer *reply);
/* CACHE AUDIT key. */
void audit_report_key(struct session *session, struct bytes key, struct resp_writer *reply);

#endif
