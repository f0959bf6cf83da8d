/*
 * Requests: any split of the input reads like the whole, at addresses that change; a request that
 * was read and written anew reads as the same arguments; the commands named may be looked up and
 * their keys sought, whatever they are.
 *
 * The first byte of the input chooses the limits, whether the client has logged in, and the split.
 */
#include "fuzz.h"

#include "resp/command.h"

static const struct resp_reader_limits all_limits[] = {
    {.max_args = INT32_MAX, .max_bulk_bytes = 512u << 20, .max_inline_bytes = 64u << 10},
    {.max_args = 4, .max_bulk_bytes = 16, .max_inline_bytes = 24},
};

/* Everything that came of an input, as one text to compare. */
struct outcome {
    struct buffer text;
    enum resp_status status;
};

static void note(struct outcome *outcome, struct bytes bytes)
{
    MUST(buffer_append(&outcome->text, bytes) == 0);
}

/* The request written anew is a frame of the same arguments, and writing that changes nothing. */
static void check_written(const struct resp_request *request)
{
    struct resp_reader *reader = resp_reader_new();
    struct resp_request again;
    struct buffer first, second;
    size_t wanted;
    const char *error;

    buffer_init(&first);
    buffer_init(&second);
    MUST(resp_write_request(&first, request->argv, request->argc) == 0);
    MUST(resp_read_request(reader, buffer_bytes(&first), &all_limits[0], true, &again, &wanted,
                           &error) == RESP_OK);
    MUST(again.frame_bytes == buffer_len(&first) && again.argc == request->argc);
    MUST(!again.is_inline);
    for (unsigned i = 0; i < again.argc; i++) {
        MUST(bytes_equal(again.argv[i], request->argv[i]));
    }
    MUST(resp_write_request(&second, again.argv, again.argc) == 0);
    MUST(bytes_equal(buffer_bytes(&first), buffer_bytes(&second)));
    buffer_fini(&first);
    buffer_fini(&second);
    resp_reader_free(&reader);
}

static void check_command(const struct resp_request *request)
{
    struct command_key_list keys = {0};
    const struct command *const command = command_find(request->argv, request->argc, NULL);

    if (command == NULL) {
        return;
    }
    if (command_find_keys(command, request->argv, request->argc, &keys)) {
        for (unsigned i = 0; i < keys.n; i++) {
            MUST(keys.at[i] > 0 && keys.at[i] < request->argc);
            MUST(command_key_slot(request->argv[keys.at[i]]) < 16384);
        }
    }
    (void)command_shows_unnamed(command, request->argv, request->argc);
    (void)command_blocks(command, request->argv, request->argc);
    (void)command_downgrade(command, request->argv, request->argc);
    command_key_list_fini(&keys);
}

static void take(const struct resp_request *request, bool is_whole, struct outcome *outcome)
{
    for (unsigned i = 0; i < request->argc; i++) {
        note(outcome, request->argv[i]);
        note(outcome, BYTES("\0|"));
    }
    note(outcome, request->is_inline ? BYTES("\0i\n") : BYTES("\0m\n"));
    if (is_whole && request->argc > 0) {
        check_written(request);
        check_command(request);
    }
}

/* Shows the input in steps, each time as a copy of its own, so that a stale pointer is seen. */
static void read_in_steps(struct bytes input, size_t step, bool is_trusted,
                          const struct resp_reader_limits *limits, struct outcome *outcome)
{
    struct resp_reader *reader = resp_reader_new();
    size_t start = 0, shown = 0;

    buffer_init(&outcome->text);
    outcome->status = RESP_MORE;
    while (outcome->status == RESP_MORE && shown < input.len) {
        unsigned char *copy;
        size_t at = 0;

        shown = input.len - shown < step ? input.len : shown + step;
        copy = malloc(shown - start);
        MUST(copy != NULL);
        memcpy(copy, input.ptr + start, shown - start);
        do {
            struct resp_request request;
            size_t wanted = 0;
            const char *error = NULL;

            outcome->status = resp_read_request(reader, bytes_make(copy + at, shown - start - at),
                                                limits, is_trusted, &request, &wanted, &error);
            if (outcome->status == RESP_OK) {
                MUST(request.frame_bytes > 0 && request.frame_bytes <= shown - start - at);
                take(&request, step > input.len, outcome);
                at += request.frame_bytes;
            } else if (outcome->status == RESP_BAD) {
                note(outcome, bytes_of_string(error));
            } else {
                MUST(wanted > 0);
            }
        } while (outcome->status == RESP_OK && at < shown - start);
        if (outcome->status == RESP_OK) {
            outcome->status = RESP_MORE;
        }
        start += at;
        free(copy);
        /* What a stalled request shows again each time would make large inputs slow. */
        step += step / 4;
    }
    resp_reader_free(&reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct outcome whole, split;
    struct bytes input;
    bool is_trusted;
    const struct resp_reader_limits *limits;

    if (size == 0) {
        return 0;
    }
    limits = &all_limits[data[0] & 1];
    is_trusted = (data[0] & 2) == 0;
    input = bytes_make(data + 1, size - 1);
    read_in_steps(input, SIZE_MAX / 2, is_trusted, limits, &whole);
    read_in_steps(input, 1u + (data[0] >> 2), is_trusted, limits, &split);
    MUST(whole.status == split.status);
    MUST(bytes_equal(buffer_bytes(&whole.text), buffer_bytes(&split.text)));
    buffer_fini(&whole.text);
    buffer_fini(&split.text);
    return 0;
}
