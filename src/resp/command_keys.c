/* Where a command's keys are, and what its options say; rules as in db.c of Redis 7.0. */
#include "resp/command.h"

#include "base/mem.h"

#include <limits.h>

/* A few bytes for a key that was read. It must not fail: nobody would drop what a write changes. */
static bool add_key(struct command_key_list *list, unsigned at)
{
    const unsigned room = list->capacity > 0 ? list->capacity
                                             : (unsigned)(sizeof(list->few) / sizeof(list->few[0]));

    if (NC_UNLIKELY(list->n == room)) {
        unsigned *const old = list->capacity > 0 ? list->at : NULL;
        unsigned *const grown = room > UINT_MAX / 2 / sizeof(*grown)
                                    ? NULL
                                    : mem_realloc(old, 2 * room * sizeof(*grown));

        if (grown == NULL) {
            return false;
        }
        if (old == NULL) {
            memcpy(grown, list->few, sizeof(list->few));
        }
        list->at = grown;
        list->capacity = 2 * room;
    }
    list->at[list->n++] = at;
    return true;
}

void command_key_list_fini(struct command_key_list *list)
{
    if (list->capacity > 0) {
        mem_free(list->at);
    }
    list->at = list->few;
    list->capacity = 0;
    list->n = 0;
}

static bool find_range(const struct command *command, unsigned argc, struct command_key_list *list)
{
    const int64_t last = command->last < 0 ? (int64_t)argc + command->last : command->last;
    const unsigned step = command->step > 0 ? (unsigned)command->step : 1;

    if (command->last >= 0 && last >= argc) {
        return false;
    }
    if (last < command->first) {
        /* SUNSUBSCRIBE may come without a channel; a DEL without a key is the backend's error. */
        return command_arity_fits(command, argc);
    }
    for (unsigned at = (unsigned)command->first; at <= last; at += step) {
        if (!add_key(list, at)) {
            return false;
        }
    }
    return true;
}

/* A count at number `count_at`, and as many keys behind it. */
static bool find_counted(const struct bytes *argv, unsigned argc, unsigned count_at,
                         bool may_be_none, struct command_key_list *list)
{
    int64_t count;

    if (count_at >= argc || !bytes_to_int64(argv[count_at], &count) || count < 0 ||
        count > argc - count_at - 1 || (count == 0 && !may_be_none)) {
        return false;
    }
    for (unsigned i = 1; i <= count; i++) {
        if (!add_key(list, count_at + i)) {
            return false;
        }
    }
    return true;
}

/*
 * The number of the argument STREAMS of XREAD and XREADGROUP, 0 when there is none. *has_block:
 * BLOCK stands before it.
 */
static unsigned find_streams(const struct bytes *argv, unsigned argc, bool *has_block)
{
    *has_block = false;
    for (unsigned at = 1; at < argc; at++) {
        if (bytes_equal_nocase(argv[at], BYTES("streams"))) {
            return at;
        }
        if (bytes_equal_nocase(argv[at], BYTES("block"))) {
            *has_block = true;
            at++;
        } else if (bytes_equal_nocase(argv[at], BYTES("count"))) {
            at++;
        } else if (bytes_equal_nocase(argv[at], BYTES("group"))) {
            at += 2;
        } else if (!bytes_equal_nocase(argv[at], BYTES("noack"))) {
            return 0;
        }
    }
    return 0;
}

static bool find_stream_keys(const struct bytes *argv, unsigned argc, struct command_key_list *list)
{
    bool has_block;
    const unsigned streams = find_streams(argv, argc, &has_block);
    const unsigned n = argc - streams - 1;

    if (streams == 0 || n == 0 || n % 2 != 0) {
        return false;
    }
    for (unsigned i = 1; i <= n / 2; i++) {
        if (!add_key(list, streams + i)) {
            return false;
        }
    }
    return true;
}

/* How many arguments follow an option of SORT that takes some. */
static unsigned sort_option_arguments(struct bytes option)
{
    if (bytes_equal_nocase(option, BYTES("limit"))) {
        return 2;
    }
    return bytes_equal_nocase(option, BYTES("get")) || bytes_equal_nocase(option, BYTES("by"));
}

static bool find_sort_keys(const struct bytes *argv, unsigned argc, struct command_key_list *list)
{
    unsigned target = 0;

    for (unsigned at = 2; at < argc; at++) {
        const unsigned n_arguments = sort_option_arguments(argv[at]);

        if (n_arguments == 0 && at + 1 < argc && bytes_equal_nocase(argv[at], BYTES("store"))) {
            target = at + 1;
        }
        at += n_arguments;
    }
    return argc >= 2 && add_key(list, 1) && (target == 0 || add_key(list, target));
}

/* STORE and STOREDIST both count: the last one is the target, and the server asks for all. */
static bool find_georadius_keys(const struct bytes *argv, unsigned argc,
                                struct command_key_list *list)
{
    if (argc < 2 || !add_key(list, 1)) {
        return false;
    }
    for (unsigned at = 5; at + 1 < argc; at++) {
        if (bytes_equal_nocase(argv[at], BYTES("store")) ||
            bytes_equal_nocase(argv[at], BYTES("storedist"))) {
            at++;
            if (!add_key(list, at)) {
                return false;
            }
        }
    }
    return true;
}

static bool find_migrate_keys(const struct bytes *argv, unsigned argc,
                              struct command_key_list *list)
{
    if (argc < 4) {
        return false;
    }
    for (unsigned at = 6; at < argc; at++) {
        if (bytes_equal_nocase(argv[at], BYTES("keys")) && argv[3].len == 0) {
            while (++at < argc) {
                if (!add_key(list, at)) {
                    return false;
                }
            }
            return true;
        }
        if (bytes_equal_nocase(argv[at], BYTES("auth"))) {
            at++;
        } else if (bytes_equal_nocase(argv[at], BYTES("auth2"))) {
            at += 2;
        }
    }
    return add_key(list, 3);
}

static bool find_keys(const struct command *command, const struct bytes *argv, unsigned argc,
                      struct command_key_list *list)
{
    switch ((enum command_keys)command->keys) {
    case KEYS_NONE:
        return true;
    case KEYS_RANGE:
        return find_range(command, argc, list);
    case KEYS_COUNT:
        return find_counted(argv, argc, (unsigned)command->first,
                            command->class == CLASS_SCRIPT || command->class == CLASS_SCRIPT_READ,
                            list);
    case KEYS_STORE_COUNT:
        return argc >= 2 && add_key(list, 1) && find_counted(argv, argc, 2, false, list);
    case KEYS_STREAMS:
        return find_stream_keys(argv, argc, list);
    case KEYS_SORT:
        return find_sort_keys(argv, argc, list);
    case KEYS_GEORADIUS:
        return find_georadius_keys(argv, argc, list);
    case KEYS_MIGRATE:
        return find_migrate_keys(argv, argc, list);
    }
    return false;
}

bool command_find_keys(const struct command *command, const struct bytes *argv, unsigned argc,
                       struct command_key_list *list)
{
    bool is_found;

    list->n = 0;
    if (list->capacity == 0) {
        list->at = list->few;
    }
    /* Nearly every command: one key, the first argument. */
    if (NC_LIKELY(command->keys == KEYS_RANGE && command->last == command->first)) {
        if (argc <= (unsigned)command->first) {
            return false;
        }
        list->at[0] = (unsigned)command->first;
        list->n = 1;
        return true;
    }
    is_found = find_keys(command, argv, argc, list);
    if (!is_found) {
        list->n = 0;
    }
    return is_found;
}

bool command_shows_unnamed(const struct command *command, const struct bytes *argv, unsigned argc)
{
    if (command->keys != KEYS_SORT) {
        return (command->flags & COMMAND_OPAQUE) != 0;
    }
    for (unsigned at = 2; at + 1 < argc; at++) {
        const unsigned n_arguments = sort_option_arguments(argv[at]);

        /* A pattern without an asterisk names no key: BY nosort, GET #. */
        if (n_arguments == 1 && argv[at + 1].len > 0 &&
            memchr(argv[at + 1].ptr, '*', argv[at + 1].len) != NULL) {
            return true;
        }
        at += n_arguments;
    }
    return false;
}

bool command_blocks(const struct command *command, const struct bytes *argv, unsigned argc)
{
    bool has_block;

    if ((command->flags & COMMAND_BLOCKS) == 0) {
        return false;
    }
    if (command->keys != KEYS_STREAMS) {
        return true;
    }
    (void)find_streams(argv, argc, &has_block);
    return has_block;
}

enum resp_downgrade command_downgrade(const struct command *command, const struct bytes *argv,
                                      unsigned argc)
{
    const enum resp_downgrade form = (enum resp_downgrade)command->downgrade;

    if (form != DOWNGRADE_PAIRS) {
        return form;
    }
    /* Key and range come first; a range that is spelled "withscores" is no option. */
    for (unsigned at = 4; at < argc; at++) {
        if (bytes_equal_nocase(argv[at], BYTES("withscores"))) {
            return DOWNGRADE_PAIRS;
        }
    }
    return DOWNGRADE_PLAIN;
}
