/*
 * Design: the lock is a key of the application's database, beside the key it stands for: of a
 * cluster in its slot, so the same node judges all proxies. SET NX PX takes it, a script that
 * compares the owner gives it back: another proxy may have it by then. It runs out by itself, so
 * whatever is lost on the way costs that time at most.
 *
 * A hash tag ends at the first "}": a name that has one and no tag cannot be put into another
 * name's tag. Such keys of a cluster have no lock, and a lease in each proxy.
 */
#include "coherence/coherence.h"
#include "coherence/miss_lease.h"

#include "base/mem.h"
#include "base/stats.h"
#include "resp/own.h"

#include <inttypes.h>
#include <stdio.h>

#define RELEASE_SCRIPT                                                                             \
    "if redis.call('GET',KEYS[1])==ARGV[1] then return redis.call('DEL',KEYS[1]) end return 0"

struct miss_lock {
    struct link_op op;
    struct mail mail;
    struct coherence *coherence;
    struct miss_lock_for of;
    bool is_release;
    unsigned char key[];
};

static void on_reply(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                     bool is_first, bool is_last);
static void on_lost(struct link_op *op, struct link *link, enum link_loss loss);

static const struct link_op_type lock_type = {on_reply, on_lost};

static void on_mail(struct mail *mail)
{
    miss_lock_send(CONTAINER_OF(mail, struct miss_lock, mail));
}

struct miss_lock *miss_lock_new(struct coherence *coherence, const struct miss_lock_for *of,
                                bool is_release)
{
    struct miss_lock *lock = mem_try_alloc(sizeof(*lock) + of->key.len);

    if (lock == NULL) {
        return NULL;
    }
    memset(lock, 0, sizeof(*lock));
    lock->op.type = &lock_type;
    lock->op.collect = LINK_COLLECT_MIN;
    lock->mail.run = on_mail;
    lock->coherence = coherence;
    lock->of = *of;
    lock->is_release = is_release;
    lock->of.key.ptr = lock->key;
    if (of->key.len > 0) {
        memcpy(lock->key, of->key.ptr, of->key.len);
    }
    return lock;
}

static void end(struct miss_lock *lock, enum miss_lock_result result)
{
    static const enum metric metrics[] = {
        [MISS_LOCK_GOT] = METRIC_lease_locks_got,
        [MISS_LOCK_REFUSED] = METRIC_lease_locks_refused,
        [MISS_LOCK_FAILED] = METRIC_lease_locks_failed,
        [MISS_LOCK_IN_DOUBT] = METRIC_lease_locks_failed,
    };

    if (!lock->is_release) {
        stats_add(metrics[result], 1);
        miss_leases_locked(lock->coherence, &lock->of, result);
    } else if (result == MISS_LOCK_FAILED || result == MISS_LOCK_IN_DOUBT) {
        stats_add(METRIC_lease_releases_failed, 1);
    }
    mem_free(lock);
}

/* The part of a key that its slot is reckoned from. */
static struct bytes tag_of(struct bytes key)
{
    const unsigned char *open = key.len > 0 ? memchr(key.ptr, '{', key.len) : NULL;
    const unsigned char *end_of_key = key.ptr + key.len;
    const unsigned char *close = open != NULL ? memchr(open, '}', (size_t)(end_of_key - open))
                                              : NULL;

    return close != NULL && close > open + 1 ? bytes_make(open + 1, (size_t)(close - open - 1))
                                             : key;
}

/* <prefix>lease:{key}, or <prefix>lease:{tag}:key of a key with a tag. False: no such name. */
static bool name_of(const struct miss_lock *lock, bool is_cluster, struct buffer *name)
{
    const struct bytes key = lock->of.key;
    const struct bytes tag = tag_of(key);
    const struct bytes prefix = bytes_of_string(lock->coherence->config->miss_lease_prefix);

    if (is_cluster && tag.len == key.len &&
        (key.len == 0 || memchr(key.ptr, '}', key.len) != NULL)) {
        return false;
    }
    if (buffer_append(name, prefix) != 0 || buffer_append(name, BYTES("lease:{")) != 0 ||
        buffer_append(name, tag) != 0 || buffer_append(name, BYTES("}")) != 0) {
        return false;
    }
    return tag.len == key.len ||
           (buffer_append(name, BYTES(":")) == 0 && buffer_append(name, key) == 0);
}

static bool compose(const struct miss_lock *lock, bool is_cluster, struct buffer *frame)
{
    struct buffer name;
    char token[24], life[24];
    bool is_good;

    snprintf(token, sizeof(token), "%016" PRIx64, lock->of.token);
    snprintf(life, sizeof(life), "%" PRId64, lock->of.life_ms);
    buffer_init(&name);
    is_good = name_of(lock, is_cluster, &name);
    const struct bytes take[] = {BYTES("SEt"), buffer_bytes(&name), bytes_of_string(token),
                                 BYTES("NX"),  BYTES("PX"),         bytes_of_string(life)};
    const struct bytes give[] = {BYTES("EVAl"), BYTES(RELEASE_SCRIPT), BYTES("1"),
                                 buffer_bytes(&name), bytes_of_string(token)};
    is_good = is_good && (lock->is_release ? resp_write_request(frame, give, 5)
                                           : resp_write_request(frame, take, 6)) == 0;
    buffer_fini(&name);
    return is_good;
}

void miss_lock_send(struct miss_lock *lock)
{
    struct backend *backend = lock->coherence->backend;
    const bool is_cluster = backend->topology != NULL && backend->topology->is_cluster;
    const unsigned slot = is_cluster ? command_key_slot(lock->of.key) : 0;
    struct backend_node *node = backend_owner(backend, slot);
    struct buffer frame;
    struct bytes parts[1];
    int error = -1;

    buffer_init(&frame);
    if (node != NULL && compose(lock, is_cluster, &frame)) {
        parts[0] = buffer_bytes(&frame);
        error = link_send(backend_relay_link(backend, node, LINK_RELAY2),
                          cache_scope_db(lock->of.scope), parts, 1, 1, &lock->op);
    }
    buffer_fini(&frame);
    if (error != 0) {
        end(lock, MISS_LOCK_FAILED);
    }
}

void miss_lock_post(struct miss_lock *lock)
{
    worker_post(lock->coherence->worker, &lock->mail);
}

/* Of SET: "+OK", or null where somebody has the lock. Of EVAL: a number. */
static void on_reply(struct link_op *op, struct link *link, unsigned index, struct bytes part,
                     bool is_first, bool is_last)
{
    struct miss_lock *lock = CONTAINER_OF(op, struct miss_lock, op);

    (void)link;
    (void)index;
    (void)is_first;
    if (is_last) {
        end(lock, part.ptr[0] == '+' || part.ptr[0] == ':'   ? MISS_LOCK_GOT
                  : part.ptr[0] == '$' || part.ptr[0] == '_' ? MISS_LOCK_REFUSED
                                                             : MISS_LOCK_FAILED);
    }
}

static void on_lost(struct link_op *op, struct link *link, enum link_loss loss)
{
    (void)link;
    end(CONTAINER_OF(op, struct miss_lock, op),
        loss == LINK_LOST_UNSENT ? MISS_LOCK_FAILED : MISS_LOCK_IN_DOUBT);
}
