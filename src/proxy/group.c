#include "proxy/group.h"

#include "base/mem.h"
#include "upstream/lease.h"

struct group *group_new(struct request *owner,
                        void (*merge)(struct group *group, struct resp_writer *reply))
{
    struct group *group = mem_alloc(sizeof(*group));

    group->owner = owner;
    group->merge = merge;
    owner->group = group;
    return group;
}

struct request *group_add(struct group *group, enum request_kind kind,
                          const struct command *command)
{
    struct request *owner = group->owner;
    struct request *part = request_new(owner->front, kind, command);

    if (group->n_parts == group->capacity) {
        const unsigned capacity = group->capacity == 0 ? 8 : 2 * group->capacity;

        /* A pointer per argument of a request that was read. */
        group->parts = mem_realloc(group->parts, capacity * sizeof(struct request *));
        group->capacity = capacity;
    }
    part->is_part = true;
    part->group = group;
    part->proto = owner->proto;
    part->db = owner->db;
    part->identity = owner->identity;
    group->parts[group->n_parts++] = part;
    group->n_left++;
    return part;
}

void group_drop_last(struct group *group)
{
    request_free(group->parts[--group->n_parts]);
    group->n_left--;
}

struct bytes group_reply(const struct group *group, unsigned part)
{
    return buffer_bytes(&group->parts[part]->reply.tail);
}

struct bytes group_text(const struct group *group, unsigned part)
{
    struct bytes reply = group_reply(group, part);
    struct resp_value value;

    if (!resp_next(&reply, &value)) {
        return bytes_make(NULL, 0);
    }
    return value.type == '=' && value.text.len >= 4
               ? bytes_make(value.text.ptr + 4, value.text.len - 4)
               : value.text;
}

static bool is_error(struct bytes reply)
{
    return reply.len == 0 || reply.ptr[0] == '-' || reply.ptr[0] == '!';
}

bool group_put_error(const struct group *group, struct resp_writer *reply)
{
    for (unsigned i = 0; i < group->n_parts; i++) {
        const struct bytes part = group_reply(group, i);

        if (is_error(part)) {
            resp_put_raw(reply, part);
            return true;
        }
    }
    return false;
}

static void free_group(struct group *group)
{
    for (unsigned i = 0; i < group->n_parts; i++) {
        request_free(group->parts[i]);
    }
    mem_free(group->parts);
    mem_free(group->places);
    mem_free(group);
}

static void finish(struct group *group)
{
    struct request *owner = group->owner;
    struct buffer body;
    struct resp_writer writer;

    buffer_init(&body);
    writer = (struct resp_writer){.out = &body, .is_resp3 = owner->proto == 3};
    if (!group->has_failed && owner->session != NULL) {
        group->merge(group, &writer);
    }
    owner->group = NULL;
    free_group(group);
    if (writer.has_failed || buffer_len(&body) == 0) {
        request_fail(owner, "ERR nearcached: the reply could not be put together");
    } else {
        request_take_part(owner, buffer_bytes(&body));
        request_done(owner);
    }
    buffer_fini(&body);
}

void group_seal(struct group *group)
{
    group->is_sealed = true;
    if (group->n_left == 0) {
        finish(group);
    }
}

void group_abandon(struct group *group)
{
    const bool is_sealed = group->is_sealed;

    group->is_sealed = false; /* not before all have been looked at */
    for (unsigned i = 0; i < group->n_parts; i++) {
        if (group->parts[i]->lease != NULL) {
            lease_drop(&group->parts[i]->lease);
        }
    }
    if (is_sealed) {
        group_seal(group);
    }
}

void group_part_done(struct request *part)
{
    struct group *group = part->group;

    CHECK(!part->is_done);
    part->is_done = true;
    group->n_left--;
    if (group->n_left == 0 && group->is_sealed) {
        finish(group);
    }
}

void group_part_failed(struct request *part)
{
    part->group->has_failed = true;
}

void group_merge_sum(struct group *group, struct resp_writer *reply)
{
    int64_t sum = 0;

    if (group_put_error(group, reply)) {
        return;
    }
    for (unsigned i = 0; i < group->n_parts; i++) {
        struct bytes at = group_reply(group, i);
        struct resp_value value;
        int64_t number;

        if (resp_next(&at, &value) && bytes_to_int64(value.text, &number)) {
            sum += number;
        }
    }
    resp_put_integer(reply, sum);
}

void group_merge_first(struct group *group, struct resp_writer *reply)
{
    if (!group_put_error(group, reply)) {
        resp_put_raw(reply, group_reply(group, 0));
    }
}

void group_merge_concat(struct group *group, struct resp_writer *reply)
{
    size_t n = 0;

    if (group_put_error(group, reply)) {
        return;
    }
    for (unsigned i = 0; i < group->n_parts; i++) {
        struct bytes at = group_reply(group, i);
        struct resp_value head;

        n += resp_next(&at, &head) ? head.n_children : 0;
    }
    resp_put_array(reply, n);
    for (unsigned i = 0; i < group->n_parts; i++) {
        struct bytes at = group_reply(group, i);
        struct resp_value head;

        if (resp_next(&at, &head)) {
            resp_put_raw(reply, at);
        }
    }
}
