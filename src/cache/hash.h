/*
 * hash.h - the hash of keys, seeded once per process
 *
 * Purpose:    a client who knows the program cannot choose keys that share a bucket.
 * Threading:  any thread, after the first call of hash_seed().
 */
#ifndef NC_CACHE_HASH_H
#define NC_CACHE_HASH_H

#include "base/bytes.h"

/* Draws the seed; later calls change nothing. */
void hash_seed(void);
uint64_t hash_key(struct bytes key);

#endif
