/*
 * replicas.h - how far the replicas of a master have come
 *
 * Purpose:    from what a master says of its replication (INFO replication): until when each of its
 *             replicas has everything. A replica that has acknowledged an offset has what the
 *             master had executed when it stood there.
 * Ownership:  a struct replicas belongs to the contact of its master; the registry by node number
 *             is the process's.
 * Threading:  a struct replicas: the control thread. replicas_caught_up(): any thread.
 * Units:      clock_now_us().
 *
 * Source: https://redis.io/docs/management/replication/ (offsets, acknowledged once a second)
 */
#ifndef NC_UPSTREAM_REPLICAS_H
#define NC_UPSTREAM_REPLICAS_H

#include "base/bytes.h"
#include "cache/epochs.h"
#include "config/address_map.h"

#define REPLICAS_MAX 16
/* Of one master: at the shortest pause between polls they reach back several seconds. */
#define REPLICAS_SAMPLES 64

struct replica {
    char host[256]; /* as it is reached */
    unsigned port;
    int64_t caught_up_us; /* it has all that was executed before; 0: not known */
};

struct replicas {
    char id[48]; /* of the history that the offsets count */
    struct {
        int64_t at_us, offset;
    } samples[REPLICAS_SAMPLES]; /* newest last */
    unsigned n_samples;
    struct replica list[REPLICAS_MAX]; /* those that are online, by address */
    unsigned n;
};

/* info: INFO replication of the master, asked for at asked_at_us. map: may be NULL. */
void replicas_take(struct replicas *replicas, struct bytes info, int64_t asked_at_us,
                   const struct config_address_map *map);

void replicas_note(epochs_node node, int64_t caught_up_us);
/* 0: nothing is known. */
int64_t replicas_caught_up(epochs_node node);

#endif
