/*
 * own.h - how requests are spelled that the proxy makes for itself
 *
 * Purpose:    MONITOR shows what clients do, and not the proxy's PTTL, PING and SELECT between it;
 *             an operator at the backend can tell them apart too. The name of such a command ends
 *             in a small letter and is written in capitals else: PINg. No client writes it so, and
 *             no server minds.
 * Ownership:  borrows everything.
 * Threading:  any thread.
 *
 * The addresses of the proxy's connections were the other way: the backend may see others than the
 * proxy does (NAT, containers), a Unix socket has none, and clients' requests share them.
 */
#ifndef NC_RESP_OWN_H
#define NC_RESP_OWN_H

#include "resp/resp.h"

#define OWN_ASKING "*1\r\n$6\r\nASKINg\r\n"
#define OWN_CLIENT_INFO "*2\r\n$6\r\nCLIENt\r\n$4\r\nINFO\r\n"
#define OWN_DISCARD "*1\r\n$7\r\nDISCARd\r\n"
#define OWN_EXISTS "*2\r\n$6\r\nEXISTs\r\n" /* the key follows */
#define OWN_PING "*1\r\n$4\r\nPINg\r\n"
#define OWN_PTTL "*2\r\n$4\r\nPTTl\r\n"     /* the key follows */
#define OWN_SELECT "*2\r\n$6\r\nSELECt\r\n" /* the number follows */
#define OWN_TRACKING_ON "*3\r\n$6\r\nCLIENt\r\n$8\r\nTRACKING\r\n$2\r\nON\r\n"

/* Longest name that own_spell() takes. */
#define OWN_NAME_MAX 24

/* name as the proxy spells it, in `room`; name is in capitals. */
struct bytes own_spell(unsigned char room[OWN_NAME_MAX], struct bytes name);
bool own_is_name(struct bytes name);
/* A line of MONITOR about a request of this proxy's, or of another one's. */
bool own_is_monitor_line(struct bytes line);

#endif
