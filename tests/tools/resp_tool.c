/*
 * What src/resp/ makes of given bytes, for tests that compare it with a real server.
 *
 * Reads RESP requests on stdin, answers each with one bulk string on stdout:
 *
 *   table                    one line per command: name|arity|first|last|step|keys|class|flags
 *   learn REPLY              the same for what command_set_from_reply() learns; "malformed"
 *   keys COMMAND ARG...      the keys, one per line; "none" when they cannot be found
 *   downgrade REPLY COMMAND ARG...   the reply in RESP2; "malformed"
 *   read IS_TRUSTED BYTES    what the reader reads: a line per request, then "more" or the error
 */
#include "base/mem.h"
#include "resp/command.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const struct resp_reader_limits limits = {
    .max_args = INT32_MAX, .max_bulk_bytes = 512u << 20, .max_inline_bytes = 64u << 10};

static void must(int error)
{
    if (error != 0) {
        fprintf(stderr, "resp_tool: no memory\n");
        exit(1);
    }
}

static void append_string(struct buffer *out, const char *string)
{
    must(buffer_append(out, bytes_of_string(string)));
}

static void describe(const struct command *command, struct buffer *out)
{
    char line[256];

    snprintf(line, sizeof(line), "%s|%d|%d|%d|%d|%u|%s|%u\n", command->name, command->arity,
             command->first, command->last, command->step, command->keys,
             command_class_name(command->class), command->flags);
    append_string(out, line);
}

static void print_table(struct buffer *out)
{
    for (unsigned i = 0; i < command_count(); i++) {
        describe(command_at(i), out);
    }
}

static void print_learnt(struct bytes reply, struct buffer *out)
{
    struct command_set *set = command_set_from_reply(reply);

    if (set == NULL) {
        append_string(out, "malformed");
        return;
    }
    for (unsigned i = 0; i < command_set_count(set); i++) {
        describe(command_set_at(set, i), out);
    }
    command_set_unref(&set);
}

static void print_keys(const struct bytes *argv, unsigned argc, struct buffer *out)
{
    const struct command *const command = command_find(argv, argc, NULL);
    struct command_key_list keys = {0};

    if (command == NULL || !command_find_keys(command, argv, argc, &keys)) {
        append_string(out, "none");
    }
    for (unsigned i = 0; i < keys.n; i++) {
        must(buffer_append(out, argv[keys.at[i]]));
        append_string(out, "\n");
    }
    command_key_list_fini(&keys);
}

static void print_downgrade(struct bytes reply, const struct bytes *argv, unsigned argc,
                            struct buffer *out)
{
    const struct command *const command = command_find(argv, argc, NULL);
    int error;

    if (resp_is_same_in_both(reply)) {
        must(buffer_append(out, reply));
        return;
    }
    error = resp_downgrade(
        reply, command == NULL ? DOWNGRADE_PLAIN : command_downgrade(command, argv, argc), out);
    if (error != 0) {
        append_string(out, "malformed");
    }
}

static void print_requests(bool is_trusted, struct bytes input, struct buffer *out)
{
    struct resp_reader *reader = resp_reader_new();
    const char *error = "more";
    enum resp_status status;

    do {
        struct resp_request request;
        size_t wanted;

        status = resp_read_request(reader, input, &limits, is_trusted, &request, &wanted, &error);
        if (status == RESP_OK) {
            for (unsigned i = 0; i < request.argc; i++) {
                append_string(out, i == 0 ? "" : " ");
                must(buffer_append(out, request.argv[i]));
            }
            append_string(out, "\n");
            input = bytes_make(input.ptr + request.frame_bytes, input.len - request.frame_bytes);
        }
    } while (status == RESP_OK && input.len > 0);
    append_string(out, status == RESP_OK ? "more" : error);
    resp_reader_free(&reader);
}

static void answer(const struct bytes *argv, unsigned argc)
{
    struct buffer out;
    const struct bytes op = argv[0];

    buffer_init(&out);
    if (bytes_equal(op, BYTES("table")) && argc == 1) {
        print_table(&out);
    } else if (bytes_equal(op, BYTES("learn")) && argc == 2) {
        print_learnt(argv[1], &out);
    } else if (bytes_equal(op, BYTES("keys")) && argc >= 2) {
        print_keys(argv + 1, argc - 1, &out);
    } else if (bytes_equal(op, BYTES("downgrade")) && argc >= 3) {
        print_downgrade(argv[1], argv + 2, argc - 2, &out);
    } else if (bytes_equal(op, BYTES("read")) && argc == 3) {
        print_requests(bytes_equal(argv[1], BYTES("1")), argv[2], &out);
    } else {
        fprintf(stderr, "resp_tool: unknown request\n");
        exit(1);
    }
    printf("$%zu\r\n", buffer_len(&out));
    fwrite(buffer_bytes(&out).ptr, 1, buffer_len(&out), stdout);
    printf("\r\n");
    fflush(stdout);
    buffer_fini(&out);
}

int main(void)
{
    struct resp_reader *reader = resp_reader_new();
    struct buffer input;
    ssize_t n;

    buffer_init(&input);
    do {
        struct resp_request request;
        size_t wanted;
        const char *error;

        while (resp_read_request(reader, buffer_bytes(&input), &limits, true, &request, &wanted,
                                 &error) == RESP_OK) {
            if (request.argc > 0) {
                answer(request.argv, request.argc);
            }
            buffer_consume(&input, request.frame_bytes);
        }
        must(buffer_reserve(&input, BUFFER_CHUNK));
        n = read(STDIN_FILENO, buffer_end(&input), BUFFER_CHUNK);
        if (n > 0) {
            buffer_commit(&input, (size_t)n);
        }
    } while (n > 0);
    buffer_fini(&input);
    resp_reader_free(&reader);
    return 0;
}
