/*
 * resp.h - reading the Redis protocol: requests of clients, replies of the backend
 *
 * Purpose:    find where a request ends and what its arguments are; find where a reply ends. Both
 *             resume where they stopped, so that input in single bytes costs linear time.
 * Ownership:  argv points into the caller's input (inline requests with quotes: into the reader's
 *             scratch) and is valid until the next call or until that input moves.
 * Threading:  one owner.
 * Errors:     RESP_BAD with *error holding the text Redis gives, without "-ERR " and CRLF.
 * Source:     https://redis.io/docs/reference/protocol-spec/ (RESP2 and RESP3); limits and error
 *             texts as in networking.c of Redis 7.0.
 */
#ifndef NC_RESP_RESP_H
#define NC_RESP_RESP_H

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/check.h"

enum resp_status { RESP_OK, RESP_MORE, RESP_BAD };

/* ---- requests ---- */

struct resp_request {
    const struct bytes *argv;
    unsigned argc;      /* 0: an empty line, *0 or *-1: skip it */
    size_t frame_bytes; /* how much of the input the request took */
    bool is_inline;     /* its bytes are no well-formed multibulk frame (an inline request, or line
                           ends that Redis tolerates): write it anew to relay it */
};

struct resp_reader_limits {
    size_t max_args;         /* "invalid multibulk length" */
    size_t max_bulk_bytes;   /* "invalid bulk length" */
    size_t max_inline_bytes; /* "too big inline request"; also "too big mbulk count string" */
};

struct resp_reader; /* opaque: resume state and the argument array */

struct resp_reader *resp_reader_new(void);
void resp_reader_free(struct resp_reader **reader);
/* Forgets a partly read request, and gives back what a large one grew. */
void resp_reader_reset(struct resp_reader *reader);
/* True while a request has begun but not ended: the reader holds state about the input. */
bool resp_reader_is_inside(const struct resp_reader *reader);

/*
 * input starts at the first byte of the request; until RESP_OK each call shows the same bytes
 * again (at whatever address) followed by more. is_trusted lifts the limits of clients that have
 * not logged in ("unauthenticated multibulk length", "unauthenticated bulk length").
 * RESP_MORE: *wanted is a lower bound of the bytes still missing (at least 1); a client chooses it,
 * up to max_bulk_bytes. RESP_BAD: *error lives until the next call; the reader is reset.
 * A zero byte in a line is an ordinary one (Redis waits for ever for the end of such a line).
 */
enum resp_status resp_read_request(struct resp_reader *reader, struct bytes input,
                                   const struct resp_reader_limits *limits, bool is_trusted,
                                   struct resp_request *request, size_t *wanted,
                                   const char **error);

/* So many arguments of an unfinished request are looked at. */
#define RESP_PARTIAL_ARGS 64

/* What is known of a multibulk request that has begun. */
struct resp_partial {
    struct bytes argv[RESP_PARTIAL_ARGS]; /* the first ones; into the input */
    unsigned argc;                        /* how many of them are here whole */
    unsigned n_all;                       /* declared; 0: not known yet, or an inline request */
    unsigned n_left;                      /* not here whole */
    size_t at;                            /* offset of the first byte that is not understood yet */
    bool has_bulk; /* it is of the payload of bulk_bytes, whose header was read */
    size_t bulk_bytes;
};

/* input as in the call of resp_read_request() that said RESP_MORE. */
void resp_reader_peek(const struct resp_reader *reader, struct bytes input,
                      struct resp_partial *partial);

/* The rest of such a request, of which nothing is kept: where does it end? */
struct resp_follower {
    uint64_t skip_bytes;    /* of a payload and its line end */
    unsigned n_left;        /* arguments whose headers are still to come */
    unsigned char line[32]; /* a header line cut by the end of the input */
    uint8_t line_bytes;
    char error[40];
};

void resp_follow_begin(struct resp_follower *follower, const struct resp_partial *partial);
/*
 * Shows it bytes from partial.at on, each once; *used says how many belong to this request.
 * RESP_OK: it ends there. RESP_MORE: all were used. RESP_BAD: *error is Redis's text, and lives as
 * long as the follower.
 */
enum resp_status resp_follow(struct resp_follower *follower, struct bytes input,
                             size_t max_bulk_bytes, size_t *used, const char **error);

/* Appends argv as a multibulk frame. */
NC_MUST_CHECK int resp_write_request(struct buffer *out, const struct bytes *argv, unsigned argc);

/* ---- replies ---- */

/* Finds the end of one reply of any depth in RESP2 or RESP3. All zero to begin with. */
struct resp_framer {
    uint64_t n_pending;     /* values whose headers are still to come */
    uint64_t skip_bytes;    /* of a bulk's payload and its CRLF */
    unsigned char line[24]; /* a header line cut by the end of the input */
    uint8_t line_bytes;
    bool is_inside;  /* a reply has begun */
    bool is_in_text; /* inside a simple string, error, number ...: up to LF */
    bool has_cr;     /* ... whose last byte was CR */
};

/*
 * Streamed types of RESP3 are no RESP here: no server sends them.
 * Shows the framer bytes it has not seen; *used says how many belong to this reply. RESP_OK: it
 * ends there (the framer is ready for the next). RESP_MORE: all were used. RESP_BAD: no RESP.
 */
enum resp_status resp_frame(struct resp_framer *framer, const unsigned char *data, size_t len,
                            size_t *used);

/*
 * begin: the first part of a reply, of which more follows. True: the whole will exceed limit, or
 * may, as it is an aggregate (how much was collected of it is the caller's measure).
 */
bool resp_is_large(struct bytes begin, size_t limit);

/* A cursor over one whole, well-formed reply. */
struct resp_value {
    unsigned char type; /* one of $ + - : * % ~ > _ , # ( = ! | */
    bool is_null;       /* '_', and the null bulk '$' and null array '*' of RESP2 */
    struct bytes text;  /* payload of strings, errors, numbers (digits), booleans (t, f); of a
                           verbatim with its "txt:" */
    size_t n_children;  /* values that follow: twice the pairs of a map or attribute; the value
                           that an attribute describes comes after them and is not counted */
};

/* Reads the header (and payload) at *at, moves *at behind it. False at the end or on malformed
 * input. */
bool resp_next(struct bytes *at, struct resp_value *value);
/* Moves *at behind one whole value, children and attributes included. No depth is too deep. */
bool resp_skip(struct bytes *at);

/* ---- RESP3 to RESP2 ---- */

/*
 * How the server words a command's reply in RESP2 where the types alone do not say; see
 * command_downgrade().
 */
enum resp_downgrade {
    DOWNGRADE_PLAIN,       /* maps and sets flat, doubles bulks, null $-1, booleans :1 :0 */
    DOWNGRADE_PAIRS,       /* plain, and an array of pairs becomes one flat array (WITHSCORES) */
    DOWNGRADE_NULL_ARRAYS, /* plain, but null is *-1 (a member of GEOPOS, XRANGE with COUNT 0) */
    N_DOWNGRADES
};

/*
 * Appends the RESP2 wording of one whole RESP3 reply; attributes have none. -EINVAL: malformed;
 * -ENOMEM. On error nothing was appended.
 */
NC_MUST_CHECK int resp_downgrade(struct bytes reply, enum resp_downgrade how, struct buffer *out);
/* True when a RESP2 reader can be given these bytes, one whole reply, as they are. */
bool resp_is_same_in_both(struct bytes reply);

#endif
