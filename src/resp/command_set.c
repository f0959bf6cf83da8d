/*
 * Commands that the backend has and the table lacks.
 *
 * Design: the COMMAND reply is walked twice by the same code. The first walk counts, the second
 * fills memory of exactly that size. A server is trusted no further than any peer: every number is
 * bounded, and what makes no sense is skipped.
 */
#include "resp/command.h"
#include "resp/name_index.h"

#include "base/mem.h"

#include <stdatomic.h>

/* More modules than anybody loads; numbers stay far below NAME_UNKNOWN. */
#define MAX_LEARNT 4096

struct command_set {
    _Atomic unsigned n_refs;
    unsigned n;
    struct command *commands;
    char *names;
    struct name_index index;
};

/* What one element of the reply says. */
struct description {
    struct bytes name;
    int64_t arity, first, last, step;
    bool is_readonly, is_write, is_blocking, is_admin, has_movable_keys;
    struct bytes subcommands; /* the array, empty when there is none */
};

struct learner {
    struct command_set *set; /* NULL: only count */
    unsigned n;
    size_t name_bytes;
};

/* ---- reading the reply ---- */

static bool read_array(struct bytes *at, size_t *n)
{
    struct resp_value value;

    if (!resp_next(at, &value) || (value.type != '*' && value.type != '~')) {
        return false;
    }
    *n = value.n_children;
    return true;
}

static bool read_number(struct bytes *at, int64_t *number)
{
    struct resp_value value;

    return resp_next(at, &value) && value.type == ':' && bytes_to_int64(value.text, number);
}

static bool read_flags(struct bytes *at, struct description *description)
{
    size_t n;

    if (!read_array(at, &n)) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        struct resp_value flag;

        if (!resp_next(at, &flag) || (flag.type != '+' && flag.type != '$')) {
            return false;
        }
        description->is_readonly |= bytes_equal(flag.text, BYTES("readonly"));
        description->is_write |= bytes_equal(flag.text, BYTES("write"));
        description->is_blocking |= bytes_equal(flag.text, BYTES("blocking"));
        description->is_admin |= bytes_equal(flag.text, BYTES("admin"));
        description->has_movable_keys |= bytes_equal(flag.text, BYTES("movablekeys"));
    }
    return true;
}

/*
 * One element: name, arity, flags, first key, last key, step; since Redis 6 also ACL categories,
 * since 7 tips, key specifications and subcommands. An element may be null: then its name is empty.
 */
static bool read_description(struct bytes *at, struct description *description)
{
    struct resp_value array, name;

    *description = (struct description){0};
    if (!resp_next(at, &array)) {
        return false;
    }
    if (array.is_null) {
        return true;
    }
    if (array.type != '*' || array.n_children < 6 || !resp_next(at, &name) ||
        (name.type != '$' && name.type != '+') || !read_number(at, &description->arity) ||
        !read_flags(at, description) || !read_number(at, &description->first) ||
        !read_number(at, &description->last) || !read_number(at, &description->step)) {
        return false;
    }
    description->name = name.text;
    for (size_t i = 6; i < array.n_children; i++) {
        const unsigned char *const start = at->ptr;

        if (!resp_skip(at)) {
            return false;
        }
        if (i == 9) {
            description->subcommands = bytes_make(start, (size_t)(at->ptr - start));
        }
    }
    return true;
}

/* ---- what to make of it ---- */

static bool fits_16_bits(int64_t number)
{
    return number >= INT16_MIN && number <= INT16_MAX;
}

static bool makes_sense(const struct description *description)
{
    return description->name.len > 0 && description->name.len <= COMMAND_NAME_MAX &&
           memchr(description->name.ptr, 0, description->name.len) == NULL &&
           fits_16_bits(description->arity) && fits_16_bits(description->first) &&
           fits_16_bits(description->last) && fits_16_bits(description->step) &&
           description->first >= 0;
}

static enum command_class class_with_keys(const struct description *description, bool is_read)
{
    const bool is_single = description->first == description->last;

    if (description->is_blocking) {
        return CLASS_PINNED;
    }
    if (is_read) {
        return is_single ? CLASS_READ : CLASS_MULTI_READ;
    }
    return is_single ? CLASS_WRITE : CLASS_MULTI_WRITE;
}

static enum command_class class_without_keys(const struct description *description, bool is_read)
{
    if (description->is_blocking) {
        return CLASS_PINNED;
    }
    /* What a newer server reserves for administrators is none of an application's business. */
    if (description->is_admin) {
        return CLASS_ADMIN;
    }
    return is_read ? CLASS_ALL_NODES : CLASS_SCRIPT;
}

/* Anything that is not known to only read is a write of its keys; without keys, of any key. */
static struct command describe(const struct description *description)
{
    const bool is_read = description->is_readonly && !description->is_write;
    struct command command = {
        .arity = (int16_t)description->arity,
        .flags = COMMAND_LEARNT,
        .merge = MERGE_NONE,
        .handler = HANDLER_none,
        .downgrade = DOWNGRADE_PLAIN,
    };

    if (description->first > 0) {
        command.class = (uint8_t)class_with_keys(description, is_read);
        command.keys = KEYS_RANGE;
        command.first = (int16_t)description->first;
        command.last = (int16_t)description->last;
        command.step = description->step > 0 ? (int16_t)description->step : 1;
    } else {
        command.class = (uint8_t)class_without_keys(description, is_read);
        command.keys = KEYS_NONE;
        if (command.class == CLASS_ALL_NODES) {
            command.merge = MERGE_FIRST;
        } else if (command.class == CLASS_ADMIN) {
            command.merge = MERGE_ALL_OK;
        }
    }
    if (!is_read) {
        command.flags |= COMMAND_WRITES;
    }
    if (description->has_movable_keys || (!is_read && description->first == 0)) {
        command.flags |= COMMAND_OPAQUE;
    }
    if (description->is_blocking) {
        command.flags |= COMMAND_BLOCKS;
    }
    return command;
}

/* Counts one more command, or enters it. False: no room for more. */
static bool learn(struct learner *learner, const struct description *description, uint16_t parent,
                  struct bytes own_name, bool has_subcommands)
{
    struct command_set *const set = learner->set;
    const size_t name_bytes = description->name.len + 1;

    if (learner->n == MAX_LEARNT) {
        return false;
    }
    if (set != NULL) {
        char *const name = set->names + learner->name_bytes;
        const char *const own = name + (own_name.ptr - description->name.ptr);
        struct command *const command = &set->commands[learner->n];

        /* Zeroed memory ends the name. */
        for (size_t i = 0; i < description->name.len; i++) {
            const unsigned char byte = description->name.ptr[i];

            name[i] = byte == '|'                  ? ' '
                      : byte >= 'A' && byte <= 'Z' ? (char)(byte + 0x20)
                                                   : (char)byte;
        }
        *command = describe(description);
        command->name = name;
        command->number = (uint16_t)(command_count() + learner->n);
        command->has_subcommands = has_subcommands;
        name_index_add(&set->index, parent, own, (uint16_t)learner->n);
    }
    learner->n++;
    learner->name_bytes += name_bytes;
    return true;
}

/* What stands behind "container|", empty when the name begins otherwise. */
static struct bytes own_name_of(struct bytes name, struct bytes container)
{
    if (name.len <= container.len + 1 || name.ptr[container.len] != '|' ||
        !bytes_equal_nocase(bytes_make(name.ptr, container.len), container)) {
        return bytes_make(name.ptr, 0);
    }
    return bytes_make(name.ptr + container.len + 1, name.len - container.len - 1);
}

/*
 * The subcommands of a container. Of one that the table has, new subcommands are learnt only with
 * keys: without, the container knows better (CLIENT's must never reach a shared link).
 */
static bool learn_subcommands(struct learner *learner, const struct description *container,
                              uint16_t parent, bool is_parent_learnt)
{
    struct bytes array = container->subcommands;
    size_t n;

    if (array.len == 0) {
        return true;
    }
    if (!read_array(&array, &n)) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        struct description sub;
        struct bytes argv[2] = {container->name};

        if (!read_description(&array, &sub)) {
            return false;
        }
        argv[1] = own_name_of(sub.name, container->name);
        if (!makes_sense(&sub) || argv[1].len == 0) {
            continue;
        }
        if (!is_parent_learnt &&
            (sub.first == 0 || command_find(argv, 2, NULL)->number != parent)) {
            continue;
        }
        if (!learn(learner, &sub, parent, argv[1], false)) {
            return true;
        }
    }
    return true;
}

static bool walk(struct learner *learner, struct bytes reply)
{
    size_t n;

    if (!read_array(&reply, &n)) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        struct description description;
        const struct command *known;
        uint16_t parent;

        if (!read_description(&reply, &description)) {
            return false;
        }
        if (!makes_sense(&description)) {
            continue;
        }
        known = command_find(&description.name, 1, NULL);
        if (known != NULL) {
            if (known->has_subcommands &&
                !learn_subcommands(learner, &description, known->number, false)) {
                return false;
            }
            continue;
        }
        parent = (uint16_t)(command_count() + learner->n);
        if (!learn(learner, &description, NAME_NO_PARENT, description.name,
                   description.subcommands.len > sizeof("*0\r\n") - 1)) {
            return true;
        }
        if (!learn_subcommands(learner, &description, parent, true)) {
            return false;
        }
    }
    return reply.len == 0;
}

/* ---- life ---- */

static void free_set(struct command_set *set)
{
    mem_free(set->commands);
    mem_free(set->names);
    mem_free(set->index.slots);
    mem_free(set);
}

static void *try_alloc_zeroed(size_t size)
{
    void *const block = mem_try_alloc(size);

    if (block != NULL) {
        memset(block, 0, size);
    }
    return block;
}

/* Room for what a first walk has counted. */
static struct command_set *new_set(const struct learner *counted)
{
    struct command_set *const set = mem_alloc(sizeof(*set));
    unsigned n_slots = 16;

    while (n_slots < 2 * counted->n) {
        n_slots *= 2;
    }
    atomic_init(&set->n_refs, 1);
    set->commands = try_alloc_zeroed((counted->n + 1) * sizeof(*set->commands));
    set->names = try_alloc_zeroed(counted->name_bytes + 1);
    set->index.slots = try_alloc_zeroed(n_slots * sizeof(*set->index.slots));
    set->index.n_slots = n_slots;
    if (set->commands == NULL || set->names == NULL || set->index.slots == NULL) {
        free_set(set);
        return NULL;
    }
    return set;
}

struct command_set *command_set_from_reply(struct bytes reply)
{
    struct learner counted = {0}, learner = {0};

    if (!walk(&counted, reply)) {
        return NULL;
    }
    learner.set = new_set(&counted);
    if (learner.set == NULL) {
        return NULL;
    }
    CHECK(walk(&learner, reply) && learner.n == counted.n &&
          learner.name_bytes == counted.name_bytes);
    learner.set->n = learner.n;
    return learner.set;
}

unsigned command_set_count(const struct command_set *set)
{
    return set->n;
}

const struct command *command_set_at(const struct command_set *set, unsigned index)
{
    return index < set->n ? &set->commands[index] : NULL;
}

const struct command *command_set_find(const struct command_set *set, uint16_t parent,
                                       struct bytes name)
{
    const uint16_t index = name_index_find(&set->index, parent, name);

    return index == NAME_UNKNOWN ? NULL : &set->commands[index];
}

void command_set_ref(struct command_set *set)
{
    atomic_fetch_add_explicit(&set->n_refs, 1, memory_order_relaxed);
}

void command_set_unref(struct command_set **set)
{
    struct command_set *const old = *set;

    *set = NULL;
    /* acq_rel: what other holders did with the set comes before its end. */
    if (old != NULL && atomic_fetch_sub_explicit(&old->n_refs, 1, memory_order_acq_rel) == 1) {
        free_set(old);
    }
}
