/*
 * group.h - a request answered from several parts: split by slot, or asked of all masters
 *
 * Purpose:    make the parts, wait for all of them, merge their replies into one.
 * Ownership:  the group belongs to its owner request and owns the parts; it goes when the last part
 *             is done, whether the client is still there or not.
 * Threading:  its worker only.
 * Errors:     the first part (in the order of the parts) that is an error is the whole reply.
 */
#ifndef NC_PROXY_GROUP_H
#define NC_PROXY_GROUP_H

#include "proxy/request.h"

struct group {
    struct request *owner;
    unsigned n_parts, n_left, capacity;
    unsigned n_apart;    /* parts on connections of their own; see large.h */
    size_t n_kept_bytes; /* of all parts' replies */
    bool is_sealed;      /* all parts were made: it may finish */
    bool has_failed;     /* a part's reply could not be kept */
    /* Composes the owner's reply from the parts. */
    void (*merge)(struct group *group, struct resp_writer *reply);
    struct request **parts;
    /* MGET, EXISTS: which part, and which element of its array, answers key number i. */
    struct group_place *places;
    unsigned n_places;
    uint64_t number; /* SCAN: the node asked; INFO: whether the proxy's section is wanted */
};

struct group_place {
    uint32_t part, element;
    bool is_array; /* the part's reply is an array, else the element itself */
};

struct group *group_new(struct request *owner,
                        void (*merge)(struct group *group, struct resp_writer *reply));
/* A new part; the caller sends it. */
struct request *group_add(struct group *group, enum request_kind kind,
                          const struct command *command);
/* Takes back the part added last, which was not sent. */
void group_drop_last(struct group *group);
/* All parts are made; finishes at once when all are done already. */
void group_seal(struct group *group);

/* The client is gone: what its parts wait for on connections of their own is for nobody now. May
 * end the group. */
void group_abandon(struct group *group);

void group_part_done(struct request *part);
void group_part_failed(struct request *part);

/* A part's reply, whole. */
struct bytes group_reply(const struct group *group, unsigned part);
/* The text of a part that is a bulk or verbatim string, without the "txt:" of the latter. */
struct bytes group_text(const struct group *group, unsigned part);
/* Puts the first error of the parts, if there is one. */
bool group_put_error(const struct group *group, struct resp_writer *reply);

/* Merges that several callers share. */
void group_merge_sum(struct group *group, struct resp_writer *reply);
void group_merge_first(struct group *group, struct resp_writer *reply);
void group_merge_concat(struct group *group, struct resp_writer *reply);

#endif
