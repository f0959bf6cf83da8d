#include "resp/command.h"

#include "resp/name_index.h"

#define NO_KEYS .keys = KEYS_NONE
#define ONE_KEY KEYS_AT(1, 1, 1)
#define KEYS_AT(first_key, last_key, key_step)                                                     \
    .keys = KEYS_RANGE, .first = (first_key), .last = (last_key), .step = (key_step)
#define COUNTED_KEYS(count_at) .keys = KEYS_COUNT, .first = (count_at)
#define KEYS_LIKE(rule) .keys = KEYS_##rule

/* A line's number is how many lines came before it. */
enum { LINES_BEFORE = __COUNTER__ + 1 };

/* All columns but the keys, which are several fields already. */
#define COLUMNS(name_, arity_, class_, flags_, merge_, handler_, downgrade_)                       \
    .name = name_, .number = __COUNTER__ - LINES_BEFORE, .class = class_, .arity = arity_,         \
    .flags = flags_, .merge = MERGE_##merge_, .handler = HANDLER_##handler_,                       \
    .downgrade = DOWNGRADE_##downgrade_
#define COMMAND(name, arity, class, keys, flags, merge, handler, downgrade)                        \
    {COLUMNS(name, arity, class, flags, merge, handler, downgrade), keys},
#define SUBCOMMAND COMMAND
#define CONTAINER(name, arity, class, keys, flags, merge, handler, downgrade)                      \
    {COLUMNS(name, arity, class, flags, merge, handler, downgrade), keys, .has_subcommands = true},

static const struct command table[] = {
#include "tables/commands.def"
};

#undef COMMAND
#undef SUBCOMMAND
#undef CONTAINER
#undef COLUMNS
#undef NO_KEYS
#undef ONE_KEY
#undef KEYS_AT
#undef COUNTED_KEYS
#undef KEYS_LIKE

#define N_COMMANDS (sizeof(table) / sizeof(table[0]))
#define N_SLOTS 1024

_Static_assert(N_COMMANDS <= N_SLOTS / 4 * 3, "the index must stay sparse");

static struct name_slot slots[N_SLOTS];
static const struct name_index index_of_all = {slots, N_SLOTS};

/* Before main(), so that no thread can find the index half filled: containers, then what they hold.
 */
__attribute__((constructor)) static void fill_index(void)
{
    struct name_index filling = index_of_all;

    for (unsigned i = 0; i < N_COMMANDS; i++) {
        if (strchr(table[i].name, ' ') == NULL) {
            name_index_add(&filling, NAME_NO_PARENT, table[i].name, table[i].number);
        }
    }
    for (unsigned i = 0; i < N_COMMANDS; i++) {
        const char *const space = strchr(table[i].name, ' ');

        if (space != NULL) {
            const struct bytes container = bytes_make(table[i].name,
                                                      (size_t)(space - table[i].name));
            const uint16_t parent = name_index_find(&filling, NAME_NO_PARENT, container);

            CHECK(parent != NAME_UNKNOWN);
            name_index_add(&filling, parent, space + 1, table[i].number);
        }
    }
}

static const struct command *find_subcommand(const struct command *container, struct bytes name,
                                             const struct command_set *learnt)
{
    const struct command *found = NULL;

    if ((container->flags & COMMAND_LEARNT) == 0) {
        const uint16_t number = name_index_find(&index_of_all, container->number, name);

        if (number != NAME_UNKNOWN) {
            return &table[number];
        }
    }
    if (learnt != NULL) {
        found = command_set_find(learnt, container->number, name);
    }
    return found != NULL ? found : container;
}

const struct command *command_find(const struct bytes *argv, unsigned argc,
                                   const struct command_set *learnt)
{
    const struct command *found;
    uint16_t number;

    if (argc == 0) {
        return NULL;
    }
    number = name_index_find(&index_of_all, NAME_NO_PARENT, argv[0]);
    if (NC_LIKELY(number != NAME_UNKNOWN)) {
        found = &table[number];
    } else if (learnt != NULL) {
        found = command_set_find(learnt, NAME_NO_PARENT, argv[0]);
    } else {
        found = NULL;
    }
    if (found != NULL && found->has_subcommands && argc >= 2) {
        return find_subcommand(found, argv[1], learnt);
    }
    return found;
}

const struct command *command_at(unsigned number)
{
    return number < N_COMMANDS ? &table[number] : NULL;
}

unsigned command_count(void)
{
    return N_COMMANDS;
}

const char *command_class_name(enum command_class class)
{
    static const char *const names[N_COMMAND_CLASSES] = {
        [CLASS_CACHED_READ] = "CACHED_READ",
        [CLASS_READ] = "READ",
        [CLASS_WRITE] = "WRITE",
        [CLASS_SPLIT_READ] = "SPLIT_READ",
        [CLASS_SPLIT_WRITE] = "SPLIT_WRITE",
        [CLASS_MULTI_READ] = "MULTI_READ",
        [CLASS_MULTI_WRITE] = "MULTI_WRITE",
        [CLASS_SCRIPT] = "SCRIPT",
        [CLASS_SCRIPT_READ] = "SCRIPT_READ",
        [CLASS_PINNED] = "PINNED",
        [CLASS_CONNECTION] = "CONNECTION",
        [CLASS_LOCAL] = "LOCAL",
        [CLASS_ALL_NODES] = "ALL_NODES",
        [CLASS_ADMIN] = "ADMIN",
        [CLASS_REFUSED] = "REFUSED",
        [CLASS_PROXY] = "PROXY",
    };

    return (unsigned)class < N_COMMAND_CLASSES ? names[class] : "?";
}

bool command_arity_fits(const struct command *command, unsigned argc)
{
    return command->arity >= 0 ? argc == (unsigned)command->arity
                               : argc >= (unsigned)-command->arity;
}
