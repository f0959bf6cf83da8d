/*
 * Proves of resp.h: requests are found whatever way their bytes arrive, arguments point at the
 * right bytes, limits and texts are Redis 7.0's, memory follows the bytes that were sent, and a
 * written request reads as what it was.
 */
#include "resp/resp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct resp_reader_limits limits = {
    .max_args = INT32_MAX, .max_bulk_bytes = 512u << 20, .max_inline_bytes = 64u << 10};

/* What came of an input: requests as "a,b;c;" and the end as a status. */
struct outcome {
    char text[4096];
    enum resp_status status;
    char error[64];
    size_t wanted;
    bool has_odd;
};

static void note(struct outcome *outcome, const struct resp_request *request)
{
    size_t n = strlen(outcome->text);

    for (unsigned i = 0; i < request->argc; i++) {
        assert_true(n + request->argv[i].len + 3 < sizeof(outcome->text));
        memcpy(outcome->text + n, request->argv[i].ptr, request->argv[i].len);
        n += request->argv[i].len;
        outcome->text[n++] = i + 1 < request->argc ? ',' : ';';
    }
    outcome->has_odd |= request->is_inline;
}

/* Shows the reader `step` more bytes at a time, each time at another address. */
static void read_in_steps(struct bytes input, size_t step, bool is_trusted,
                          const struct resp_reader_limits *with, struct outcome *outcome)
{
    struct resp_reader *reader = resp_reader_new();
    size_t start = 0, shown = 0;

    *outcome = (struct outcome){.status = RESP_MORE};
    while (outcome->status != RESP_BAD && shown < input.len) {
        unsigned char *copy;

        shown = input.len - shown < step ? input.len : shown + step;
        copy = malloc(shown - start + 1);
        memcpy(copy, input.ptr + start, shown - start);
        for (size_t at = 0;;) {
            struct resp_request request;
            const char *error = NULL;
            const size_t rest = shown - start - at;

            outcome->status = resp_read_request(reader, bytes_make(copy + at, rest), with,
                                                is_trusted, &request, &outcome->wanted, &error);
            assert_int_equal(resp_reader_is_inside(reader),
                             outcome->status == RESP_MORE && rest > 0);
            if (outcome->status == RESP_BAD) {
                snprintf(outcome->error, sizeof(outcome->error), "%s", error);
            }
            if (outcome->status != RESP_OK) {
                start += at;
                break;
            }
            note(outcome, &request);
            at += request.frame_bytes;
        }
        free(copy);
    }
    resp_reader_free(&reader);
    assert_null(reader);
}

static void read_all_ways(struct bytes input, struct outcome *outcome)
{
    static const size_t steps[] = {1, 2, 3, 7, 16};

    read_in_steps(input, SIZE_MAX / 2, true, &limits, outcome);
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        struct outcome other;

        read_in_steps(input, steps[i], true, &limits, &other);
        assert_string_equal(other.text, outcome->text);
        assert_int_equal(other.status, outcome->status);
        assert_string_equal(other.error, outcome->error);
        assert_int_equal(other.has_odd, outcome->has_odd);
    }
}

static void assert_reads(const char *input, const char *requests)
{
    struct outcome outcome;

    read_all_ways(bytes_of_string(input), &outcome);
    assert_int_equal(outcome.status, RESP_MORE);
    assert_string_equal(outcome.text, requests);
}

static void assert_refuses(const char *input, const char *error)
{
    struct outcome outcome;

    read_all_ways(bytes_of_string(input), &outcome);
    assert_int_equal(outcome.status, RESP_BAD);
    assert_string_equal(outcome.error, error);
}

static void multibulk_requests_are_read_however_they_are_cut(void **state)
{
    (void)state;
    assert_reads("*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", "GET,k;");
    assert_reads("*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n$0\r\n\r\n", "PING;GET,;");
    assert_reads("*3\r\n$3\r\nSET\r\n$12\r\n0123456789ab\r\n$2\r\n\r\n\r\n",
                 "SET,0123456789ab,\r\n;");
    /* More than the reader keeps room for. */
    assert_reads("*12\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n$1\r\ne\r\n$1\r\nf\r\n$1\r\n"
                 "g\r\n$1\r\nh\r\n$1\r\ni\r\n$1\r\nj\r\n$1\r\nk\r\n$1\r\nl\r\n",
                 "a,b,c,d,e,f,g,h,i,j,k,l;");
}

static void empty_requests_are_skipped(void **state)
{
    (void)state;
    assert_reads("*0\r\n*-1\r\n*-99999999999\r\n\r\n  \r\n\n*1\r\n$1\r\nx\r\n", "x;");
}

static void inline_requests_are_split_like_redis_splits_them(void **state)
{
    (void)state;
    assert_reads("PING\r\n", "PING;");
    assert_reads("  SET\tk   v \r\nGET k\n", "SET,k,v;GET,k;");
    assert_reads("ECHO \"a b\" 'c d' \"\"\r\n", "ECHO,a b,c d,;");
    assert_reads("ECHO \"\\x41\\n\\t\\q\\\"\\xZZ\"\r\n", "ECHO,A\n\tq\"xZZ;");
    assert_reads("ECHO '\\'a\\n'\r\n", "ECHO,'a\\n;");
    assert_reads("ECHO a\"b\" \\x x\vy\r\n", "ECHO,ab,\\x,x\vy;");
    assert_reads("A\rB\r\r\n", "A,B;");
}

static void frames_that_are_not_exactly_multibulk_are_marked(void **state)
{
    struct outcome outcome;

    (void)state;
    read_all_ways(BYTES("*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"), &outcome);
    assert_false(outcome.has_odd);
    read_all_ways(BYTES("PING\r\n"), &outcome);
    assert_true(outcome.has_odd);
    read_all_ways(BYTES("*1\rX$4\r\nPING\r\n"), &outcome);
    assert_true(outcome.has_odd);
    assert_string_equal(outcome.text, "PING;");
    read_all_ways(BYTES("*1\r\n$4\rXPING\r\n"), &outcome);
    assert_true(outcome.has_odd);
    read_all_ways(BYTES("*1\r\n$4\r\nPINGXX*1\r\n$1\r\nx\r\n"), &outcome);
    assert_true(outcome.has_odd);
    assert_string_equal(outcome.text, "PING;x;");
}

static void bad_frames_get_the_words_of_redis(void **state)
{
    static const char *const counts[] = {"*abc\r\n",        "*\r\n",   "*+1\r\n", "*01\r\n",
                                         "*2147483648\r\n", "*-0\r\n", "*1 \r\n", "*1\n$4\r\n"};
    static const char *const lengths[] = {"*1\r\n$-1\r\n", "*1\r\n$\r\n", "*1\r\n$04\r\n",
                                          "*1\r\n$536870913\r\n",
                                          "*1\r\n$99999999999999999999\r\n"};

    (void)state;
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        assert_refuses(counts[i], "Protocol error: invalid multibulk length");
    }
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        assert_refuses(lengths[i], "Protocol error: invalid bulk length");
    }
    assert_refuses("*1\r\nX4\r\n", "Protocol error: expected '$', got 'X'");
    assert_refuses("*1\r\n\r4\r\n", "Protocol error: expected '$', got ' '");
    assert_refuses("ECHO \"a\r\n", "Protocol error: unbalanced quotes in request");
    assert_refuses("ECHO 'a\r\n", "Protocol error: unbalanced quotes in request");
    assert_refuses("ECHO \"a\"b\r\n", "Protocol error: unbalanced quotes in request");
}

static void lines_without_end_are_refused_at_the_limit(void **state)
{
    static const struct {
        const char *before, *error;
    } cases[] = {{"", "Protocol error: too big inline request"},
                 {"*", "Protocol error: too big mbulk count string"},
                 {"*1\r\n$", "Protocol error: too big bulk count string"}};
    const struct resp_reader_limits small = {
        .max_args = 10, .max_bulk_bytes = 10, .max_inline_bytes = 100};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const size_t skipped = i == 2 ? 4 : 0;
        char line[256];
        struct outcome outcome;

        memset(line, '1', sizeof(line));
        memcpy(line, cases[i].before, strlen(cases[i].before));
        for (size_t step = 1; step <= 300; step += 23) {
            read_in_steps(bytes_make(line, skipped + 100), step, true, &small, &outcome);
            assert_int_equal(outcome.status, RESP_MORE);
            read_in_steps(bytes_make(line, skipped + 101), step, true, &small, &outcome);
            assert_int_equal(outcome.status, RESP_BAD);
            assert_string_equal(outcome.error, cases[i].error);
        }
    }
}

static void limits_are_exact(void **state)
{
    const struct resp_reader_limits small = {
        .max_args = 3, .max_bulk_bytes = 5, .max_inline_bytes = 100};
    struct outcome outcome;

    (void)state;
    read_in_steps(BYTES("*3\r\n$5\r\n"), 99, true, &small, &outcome);
    assert_int_equal(outcome.status, RESP_MORE);
    read_in_steps(BYTES("*4\r\n"), 99, true, &small, &outcome);
    assert_string_equal(outcome.error, "Protocol error: invalid multibulk length");
    read_in_steps(BYTES("*3\r\n$6\r\n"), 99, true, &small, &outcome);
    assert_string_equal(outcome.error, "Protocol error: invalid bulk length");
}

static void clients_that_have_not_logged_in_may_send_little(void **state)
{
    struct outcome outcome;

    (void)state;
    read_in_steps(BYTES("*10\r\n$16384\r\n"), 99, false, &limits, &outcome);
    assert_int_equal(outcome.status, RESP_MORE);
    read_in_steps(BYTES("*11\r\n"), 99, false, &limits, &outcome);
    assert_string_equal(outcome.error, "Protocol error: unauthenticated multibulk length");
    read_in_steps(BYTES("*1\r\n$16385\r\n"), 99, false, &limits, &outcome);
    assert_string_equal(outcome.error, "Protocol error: unauthenticated bulk length");
    read_in_steps(BYTES("*11\r\n$16385\r\n"), 99, true, &limits, &outcome);
    assert_int_equal(outcome.status, RESP_MORE);
}

static void missing_bytes_of_an_argument_are_told(void **state)
{
    struct outcome outcome;

    (void)state;
    read_in_steps(BYTES("*1\r\n$100\r\nabc"), 999, true, &limits, &outcome);
    assert_int_equal(outcome.wanted, 97 + 2);
    read_in_steps(BYTES("*1\r\n$1\r\na\r"), 999, true, &limits, &outcome);
    assert_int_equal(outcome.wanted, 1);
    read_in_steps(BYTES("*1\r\n$1"), 999, true, &limits, &outcome);
    assert_int_equal(outcome.wanted, 1);
}

static void a_declared_count_costs_no_memory(void **state)
{
    /* A reader that believed the counts would need 32 GB for each of these. */
    struct outcome outcome;

    (void)state;
    for (unsigned i = 0; i < 100; i++) {
        read_in_steps(BYTES("*2147483647\r\n$1\r\na\r\n"), 5, true, &limits, &outcome);
        assert_int_equal(outcome.status, RESP_MORE);
    }
}

static void a_reset_forgets_a_partly_read_request(void **state)
{
    struct resp_reader *reader = resp_reader_new();
    struct resp_request request;
    size_t wanted;
    const char *error;

    (void)state;
    assert_int_equal(resp_read_request(reader, BYTES("*2\r\n$3\r\nGE"), &limits, true, &request,
                                       &wanted, &error),
                     RESP_MORE);
    assert_true(resp_reader_is_inside(reader));
    resp_reader_reset(reader);
    assert_false(resp_reader_is_inside(reader));
    assert_int_equal(
        resp_read_request(reader, BYTES("PING\r\n"), &limits, true, &request, &wanted, &error),
        RESP_OK);
    assert_int_equal(request.argc, 1);
    assert_int_equal(request.frame_bytes, 6);
    resp_reader_free(&reader);
}

static void a_reader_goes_on_after_a_large_request_and_after_an_error(void **state)
{
    struct resp_reader *reader = resp_reader_new();
    struct resp_request request;
    struct buffer large;
    struct bytes argv[1000];
    size_t wanted;
    const char *error;

    (void)state;
    buffer_init(&large);
    for (unsigned i = 0; i < 1000; i++) {
        argv[i] = BYTES("argument");
    }
    assert_int_equal(resp_write_request(&large, argv, 1000), 0);
    for (unsigned round = 0; round < 3; round++) {
        assert_int_equal(resp_read_request(reader, buffer_bytes(&large), &limits, true, &request,
                                           &wanted, &error),
                         RESP_OK);
        assert_int_equal(request.argc, 1000);
        assert_true(bytes_equal(request.argv[999], BYTES("argument")));
        assert_int_equal(
            resp_read_request(reader, BYTES("*x\r\n"), &limits, true, &request, &wanted, &error),
            RESP_BAD);
        assert_int_equal(resp_read_request(reader, BYTES("*1\r\n$4\r\nPING\r\n"), &limits, true,
                                           &request, &wanted, &error),
                         RESP_OK);
        assert_int_equal(request.argc, 1);
    }
    buffer_fini(&large);
    resp_reader_free(&reader);
}

static void a_written_request_is_a_multibulk_frame(void **state)
{
    const struct bytes argv[] = {BYTES("SET"), BYTES(""), BYTES("0123456789")};
    struct buffer out;

    (void)state;
    buffer_init(&out);
    assert_int_equal(resp_write_request(&out, argv, 3), 0);
    assert_true(bytes_equal(buffer_bytes(&out),
                            BYTES("*3\r\n$3\r\nSET\r\n$0\r\n\r\n$10\r\n0123456789\r\n")));
    buffer_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(multibulk_requests_are_read_however_they_are_cut),
        cmocka_unit_test(empty_requests_are_skipped),
        cmocka_unit_test(inline_requests_are_split_like_redis_splits_them),
        cmocka_unit_test(frames_that_are_not_exactly_multibulk_are_marked),
        cmocka_unit_test(bad_frames_get_the_words_of_redis),
        cmocka_unit_test(lines_without_end_are_refused_at_the_limit),
        cmocka_unit_test(limits_are_exact),
        cmocka_unit_test(clients_that_have_not_logged_in_may_send_little),
        cmocka_unit_test(missing_bytes_of_an_argument_are_told),
        cmocka_unit_test(a_declared_count_costs_no_memory),
        cmocka_unit_test(a_reset_forgets_a_partly_read_request),
        cmocka_unit_test(a_reader_goes_on_after_a_large_request_and_after_an_error),
        cmocka_unit_test(a_written_request_is_a_multibulk_frame),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
