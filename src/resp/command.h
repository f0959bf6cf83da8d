/*
 * command.h - the command table: how every Redis command is handled, and where its keys are
 *
 * Purpose:    one line per command and subcommand in tables/commands.def says class, arity, key
 *             positions, downgrade and handler. What the table lacks (modules, newer servers) is
 *             learnt from the backend's COMMAND reply.
 * Ownership:  the built-in table is constant. A learnt set is immutable and reference counted.
 * Threading:  look-ups on any thread.
 * Errors:     NULL: not known.
 */
#ifndef NC_RESP_COMMAND_H
#define NC_RESP_COMMAND_H

#include "base/bytes.h"
#include "base/check.h"
#include "resp/resp.h"

enum command_class {
    CLASS_CACHED_READ, /* R1 */
    CLASS_READ,        /* R2: one key, never stored */
    CLASS_WRITE,       /* W1: one key */
    CLASS_SPLIT_READ,  /* M1: MGET EXISTS TOUCH */
    CLASS_SPLIT_WRITE, /* M1: DEL UNLINK MSET */
    CLASS_MULTI_READ,  /* M2: all keys in one slot */
    CLASS_MULTI_WRITE, /* M2 */
    CLASS_SCRIPT,      /* L1: may write what it does not name */
    CLASS_SCRIPT_READ, /* L1, _RO: may show what it does not name */
    CLASS_PINNED,      /* D1 */
    CLASS_CONNECTION,  /* C1 */
    CLASS_LOCAL,       /* L0 and L2 */
    CLASS_ALL_NODES,   /* F1 */
    CLASS_ADMIN,       /* F1, off unless admin-commands = on */
    CLASS_REFUSED,     /* X */
    CLASS_PROXY,       /* CACHE */
    N_COMMAND_CLASSES
};

/* Where the keys are. */
enum command_keys {
    KEYS_NONE,
    KEYS_RANGE,       /* first, last, step as COMMAND INFO gives them */
    KEYS_COUNT,       /* a count at `first`, keys behind it (EVAL: 2; LMPOP: 1); */
    KEYS_STORE_COUNT, /* target at 1, count at 2, sources from 3 */
    KEYS_STREAMS,     /* after STREAMS, the first half of what remains */
    KEYS_SORT,        /* 1, and the argument of the last STORE */
    KEYS_GEORADIUS,   /* 1, and the arguments of STORE and STOREDIST */
    KEYS_MIGRATE,     /* 3, or all after KEYS */
};

enum command_flag {
    COMMAND_WRITES = 1 << 0,  /* drops its keys; learnt commands without `readonly` too */
    COMMAND_OPAQUE = 1 << 1,  /* keys it does not name may be written or shown: fence; for SORT see
                                 command_shows_unnamed() */
    COMMAND_CHANNEL = 1 << 2, /* its "keys" are channels: they route, but are no keys */
    COMMAND_NO_AUTH = 1 << 3, /* allowed before login */
    COMMAND_BLOCKS = 1 << 4,  /* may block; see command_blocks() */
    COMMAND_LEARNT = 1 << 5,
    COMMAND_FLUSHES = 1 << 6, /* all that is cached (of a database) goes on its reply */
    COMMAND_BY_KEY = 1 << 7,  /* a split read whose keys are answered from tier 1 (MGET, EXISTS) */
    COMMAND_MAY_REPLICATE = 1 << 8, /* drops no key, but CLIENT PAUSE WRITE holds it as a write */
};

/* How parts of a split or fanned-out command become one reply. */
enum command_merge {
    MERGE_NONE,
    MERGE_ARRAY, /* MGET: in the order of the arguments */
    MERGE_SUM,
    MERGE_ALL_OK, /* the first error, else the first reply */
    MERGE_CONCAT,
    MERGE_AND,    /* SCRIPT EXISTS */
    MERGE_FIRST,  /* any one master will do: sent to one only */
    MERGE_RANDOM, /* RANDOMKEY */
    MERGE_SCAN,
    MERGE_ANY_OK, /* SCRIPT KILL: one success is enough */
    MERGE_MIN,
    MERGE_TEXT,    /* reports for people: one, or each under its master's name */
    MERGE_SLOWLOG, /* entries by age, the newest first, no more than were asked for */
    MERGE_ACL_LOG, /* the same, for another kind of entry */
    MERGE_HISTORY, /* samples by time */
    MERGE_LATEST,  /* LATENCY LATEST: each event once */
    MERGE_STATS,   /* maps of numbers, summed name by name */
    MERGE_DEBUG,   /* a key that only one master has is no error */
};

/* What proxy/ does with classes CONNECTION, LOCAL and PROXY: one handler each. */
enum command_handler {
#define COMMAND_HANDLER(name) HANDLER_##name,
#include "tables/handlers.def"
#undef COMMAND_HANDLER
    N_HANDLERS
};

struct command {
    const char *name; /* lower case; subcommands as "client id" */
    uint16_t number;  /* position in the table; GET is 0; learnt ones follow */
    uint8_t class;
    uint8_t keys;
    int16_t arity; /* as COMMAND INFO: negative is a minimum */
    int16_t first, last, step;
    uint16_t flags;
    uint8_t merge, handler;
    uint8_t downgrade; /* the form that its options may ask for: ask command_downgrade() */
    bool has_subcommands;
};

/* Longer names are not known. */
#define COMMAND_NAME_MAX 64

struct command_set; /* learnt commands; opaque */

/*
 * argv[0] (and argv[1] where the command has subcommands) in any case. A container with an unknown
 * or missing subcommand returns the container itself. learnt may be NULL.
 */
const struct command *command_find(const struct bytes *argv, unsigned argc,
                                   const struct command_set *learnt);
/* The built-in table, NULL behind its end. */
const struct command *command_at(unsigned number);
unsigned command_count(void);
/* "CACHED_READ" and so on, for reports and tests. */
const char *command_class_name(enum command_class class);
bool command_arity_fits(const struct command *command, unsigned argc);

/*
 * Argument numbers of keys, in the order of the arguments; SORT and GEORADIUS name their target
 * last. A list of all zero is empty; one that was filled can be filled again and ends with
 * command_key_list_fini(). It may not be copied: at may point into it.
 */
struct command_key_list {
    unsigned n;
    unsigned *at; /* points at few, or at heap memory */
    unsigned few[16];
    unsigned capacity; /* of the heap memory; 0: none */
};

/*
 * False: numbers that do not parse or exceed the arguments (or no memory for the list); n is 0 and
 * the backend words the error.
 */
bool command_find_keys(const struct command *command, const struct bytes *argv, unsigned argc,
                       struct command_key_list *list);
void command_key_list_fini(struct command_key_list *list);

/* True: it may write or show keys that it does not name. COMMAND_OPAQUE, and SORT with patterns. */
bool command_shows_unnamed(const struct command *command, const struct bytes *argv, unsigned argc);
/* True: it may wait on its connection. XREAD and XREADGROUP only with BLOCK. */
bool command_blocks(const struct command *command, const struct bytes *argv, unsigned argc);

/* The downgrade of a cached read depends on its options (WITHSCORES, WITHCOORD ...). */
enum resp_downgrade command_downgrade(const struct command *command, const struct bytes *argv,
                                      unsigned argc);

/*
 * Learns what the table lacks from a COMMAND reply in RESP2 (Redis 5 to 8, Valkey). NULL:
 * malformed or no memory. The set comes with one reference and owns its names and commands.
 * Not learnt: subcommands without keys of containers that the table has; their containers decide.
 */
struct command_set *command_set_from_reply(struct bytes reply);
unsigned command_set_count(const struct command_set *set);
/* index counts from 0 within the set. */
const struct command *command_set_at(const struct command_set *set, unsigned index);
void command_set_ref(struct command_set *set);
void command_set_unref(struct command_set **set);

/* CRC16 XMODEM modulo 16384 of the key or its {tag}; https://redis.io/docs/reference/cluster-spec/
 */
uint16_t command_key_slot(struct bytes key);

#endif
