/*
 * test_log.c - proves of log.h and check.h: the exact shape of a line in both formats, levels, the
 * worker's number, quoting, bounded lines, dropped lines, readers that stop, limited bursts, and
 * the last words of a failed check
 */
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static int real_stderr;
static int log_pipe[2];
static char captured[8192];

/* Everything logged from here on goes into a pipe. */
static void capture(void)
{
    assert_int_equal(pipe2(log_pipe, O_NONBLOCK), 0);
    real_stderr = dup(STDERR_FILENO);
    dup2(log_pipe[1], STDERR_FILENO);
    log_never_block();
}

/* Ends it. Returns what was logged, without the timestamp's changing part. */
static const char *logged(void)
{
    dup2(real_stderr, STDERR_FILENO);
    close(real_stderr);
    log_never_block();
    close(log_pipe[1]);
    const ssize_t n = read(log_pipe[0], captured, sizeof captured - 1);
    close(log_pipe[0]);
    captured[n > 0 ? n : 0] = '\0';
    return captured;
}

/* The text behind "ts=2026-03-01T09:12:44.031Z ", whose shape is checked. */
static const char *behind_timestamp(const char *line, const char *prefix)
{
    static const char shape[] = "0000-00-00T00:00:00.000Z";

    assert_int_equal(strncmp(line, prefix, strlen(prefix)), 0);
    line += strlen(prefix);
    for (size_t i = 0; shape[i] != '\0'; i++) {
        if (shape[i] == '0') {
            assert_in_range(line[i], '0', '9');
        } else {
            assert_int_equal(line[i], shape[i]);
        }
    }
    return line + strlen(shape);
}

static void a_line_is_logfmt(void **state)
{
    (void)state;
    capture();
    log_set_worker(3);
    errno = EBADMSG;
    log_warn("upstream", "link lost", "addr=%s retry_ms=%d", "10.0.0.7:6379", 200);
    assert_int_equal(errno, EBADMSG);
    log_set_worker(-1);
    assert_string_equal(behind_timestamp(logged(), "ts="),
                        " level=warn mod=upstream worker=3 msg=\"link lost\" addr=10.0.0.7:6379 "
                        "retry_ms=200\n");
}

static void a_line_needs_no_fields(void **state)
{
    (void)state;
    capture();
    log_info("main", "ready", NULL);
    assert_string_equal(behind_timestamp(logged(), "ts="), " level=info mod=main msg=\"ready\"\n");
}

static void json_carries_the_same_fields(void **state)
{
    (void)state;
    capture();
    log_set_json(true);
    log_set_worker(0);
    log_error(
        "proxy", "bad \"frame\"",
        "n=%d f=-1.5e3 zero=0 lead=01 dot=1. plus=+1 inf=inf addr=[::1]:1 path=C:\\new key=%s "
        "empty=\"\" quoted=\"7\"",
        -42, log_quote(BYTES("a \"b\"\\\n\x01\xff")));
    log_set_worker(-1);
    log_set_json(false);
    assert_string_equal(
        behind_timestamp(logged(), "{\"ts\":\""),
        "\",\"level\":\"error\",\"mod\":\"proxy\",\"worker\":0,\"msg\":\"bad \\\"frame\\\"\","
        "\"n\":-42,\"f\":-1.5e3,\"zero\":0,\"lead\":\"01\",\"dot\":\"1.\",\"plus\":\"+1\","
        "\"inf\":\"inf\",\"addr\":\"[::1]:1\",\"path\":\"C:\\\\new\","
        "\"key\":\"a \\\"b\\\"\\\\\\n\\u0001\\u00ff\",\"empty\":\"\",\"quoted\":\"7\"}\n");
}

static void levels_are_cumulative(void **state)
{
    (void)state;
    capture();
    log_debug("x", "hidden", NULL);
    log_set_level(LOG_DEBUG);
    log_debug("x", "shown", NULL);
    log_set_level(LOG_ERROR);
    log_warn("x", "hidden", NULL);
    log_error("x", "shown", NULL);
    assert_false(log_is_on(LOG_WARN));
    log_set_level(LOG_INFO);
    assert_true(log_is_on(LOG_WARN));
    const char *text = logged();
    assert_null(strstr(text, "hidden"));
    assert_non_null(strstr(text, "level=debug"));
    assert_non_null(strstr(text, "level=error"));
}

static void quoting_escapes_cuts_and_keeps_eight_at_once(void **state)
{
    const char *kept[8];
    char text[100];

    (void)state;
    assert_string_equal(log_quote(BYTES("user:1000")), "user:1000");
    assert_string_equal(log_quote(BYTES("")), "\"\"");
    assert_string_equal(log_quote(BYTES("a b")), "\"a b\"");
    assert_string_equal(log_quote(BYTES("a=b")), "\"a=b\"");
    assert_string_equal(log_quote(BYTES("a\"\\\r\n\t\0\x7f\x80")),
                        "\"a\\\"\\\\\\r\\n\\t\\x00\\x7f\\x80\"");
    memset(text, 0xfe, sizeof text);
    assert_int_equal(strlen(log_quote(bytes_make(text, 64))), 2 + 64 * 4);
    const char *cut = log_quote(bytes_make(text, 65));
    assert_int_equal(strlen(cut), 2 + 64 * 4 + 3);
    assert_string_equal(cut + strlen(cut) - 4, "...\"");
    for (unsigned char i = 0; i < 8; i++) {
        kept[i] = log_quote(bytes_make(&"01234567"[i], 1));
    }
    for (unsigned char i = 0; i < 8; i++) {
        assert_int_equal(kept[i][0], '0' + i);
    }
}

static void foreign_bytes_never_break_a_line(void **state)
{
    (void)state;
    capture();
    log_warn("x", "raw", "a=%s", "1\nlevel=error\x80");
    const char *text = logged();
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
    assert_non_null(strstr(text, " a=1?level=error?\n"));
}

static void long_lines_lose_whole_fields_and_say_so(void **state)
{
    char value[5000];

    (void)state;
    memset(value, 'v', sizeof value - 1);
    value[sizeof value - 1] = '\0';
    for (int json = 0; json < 2; json++) {
        capture();
        log_set_json(json != 0);
        log_warn("x", "long", "first=1 second=\"%s\" third=3", value);
        log_set_json(false);
        const char *text = logged();
        assert_true(strlen(text) <= 2048);
        assert_non_null(strstr(text, json ? ",\"first\":1,\"cut\":1}\n" : " first=1 cut=1\n"));
        assert_null(strstr(text, "second"));
    }
    /* Fits the fields' room, and not the line once it is escaped for JSON. */
    memset(value, '\\', sizeof value);
    value[1500] = '\0';
    capture();
    log_set_json(true);
    log_warn("x", "long", "first=1 second=%s third=3", value);
    log_set_json(false);
    const char *text = logged();
    assert_true(strlen(text) <= 2048);
    assert_non_null(strstr(text, ",\"first\":1,\"cut\":1}\n"));
}

static void a_line_that_cannot_be_written_is_dropped_and_counted(void **state)
{
    const unsigned long before = log_dropped();
    char block[4096] = {0};

    (void)state;
    capture();
    while (write(log_pipe[1], block, sizeof block) > 0) {
        /* until the pipe is full */
    }
    log_warn("x", "lost", NULL);
    log_warn("x", "lost", NULL);
    (void)logged();
    assert_int_equal(log_dropped() - before, 2);
}

/* Everything that stderr takes; it blocks afterwards. */
static void fill(int fd)
{
    const int flags = fcntl(fd, F_GETFL);
    char block[512] = {0};

    assert_int_equal(fcntl(fd, F_SETFL, flags | O_NONBLOCK), 0);
    while (write(fd, block, sizeof block) > 0) {
        /* until it is full */
    }
    assert_int_equal(fcntl(fd, F_SETFL, flags & ~O_NONBLOCK), 0);
}

/* Nobody reads what is logged; then somebody does. Should it block, the alarm ends the test. */
static void check_never_blocks(int reader, int writer)
{
    const unsigned long before = log_dropped();
    char text[4096];
    ssize_t n;

    real_stderr = dup(STDERR_FILENO);
    dup2(writer, STDERR_FILENO);
    fill(STDERR_FILENO);
    log_never_block();
    alarm(20);
    for (unsigned i = 0; i < 100; i++) {
        log_warn("x", "lost", NULL);
    }
    alarm(0);
    assert_int_equal(log_dropped() - before, 100);
    assert_int_equal(fcntl(reader, F_SETFL, fcntl(reader, F_GETFL) | O_NONBLOCK), 0);
    while (read(reader, text, sizeof text) > 0) {
        /* until it is empty */
    }
    log_warn("x", "comes", "n=%d", 1);
    n = read(reader, text, sizeof text - 1);
    dup2(real_stderr, STDERR_FILENO);
    close(real_stderr);
    log_never_block();
    assert_true(n > 0);
    text[n] = '\0';
    assert_non_null(strstr(text, "msg=\"comes\" n=1\n"));
    assert_int_equal(log_dropped() - before, 100);
}

static void nobody_reads_the_pipe(void **state)
{
    int fds[2];

    (void)state;
    assert_int_equal(pipe(fds), 0);
    check_never_blocks(fds[0], fds[1]);
    /* Whoever shares the open file does not find it changed. */
    assert_int_equal(fcntl(fds[1], F_GETFL) & O_NONBLOCK, 0);
    close(fds[0]);
    close(fds[1]);
}

static void nobody_reads_the_socket(void **state)
{
    int fds[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    check_never_blocks(fds[0], fds[1]);
    close(fds[0]);
    close(fds[1]);
}

/* As after a change of users: it cannot be opened once more. */
static void nobody_reads_the_pipe_of_another_user(void **state)
{
    int fds[2];

    (void)state;
    assert_int_equal(pipe(fds), 0);
    if (geteuid() == 0) {
        assert_int_equal(seteuid(65534), 0);
    }
    check_never_blocks(fds[0], fds[1]);
    if (getuid() == 0) {
        assert_int_equal(seteuid(0), 0);
    }
    close(fds[0]);
    close(fds[1]);
}

static void a_line_behind_one_that_was_cut_off_stands_alone(void **state)
{
    const unsigned long before = log_dropped();
    char text[4096];
    int fds[2], size = 4608;
    ssize_t n, last = 0;

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    assert_int_equal(setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof size), 0);
    real_stderr = dup(STDERR_FILENO);
    dup2(fds[1], STDERR_FILENO);
    log_never_block();
    while (log_dropped() == before) {
        log_warn("x", "many", NULL);
    }
    assert_int_equal(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
    while ((n = read(fds[0], text, sizeof text)) > 0) {
        last = text[n - 1];
    }
    log_warn("x", "alone", NULL);
    n = read(fds[0], text, sizeof text - 1);
    dup2(real_stderr, STDERR_FILENO);
    close(real_stderr);
    log_never_block();
    assert_true(n > 0);
    text[n] = '\0';
    assert_int_equal(text[0], last == '\n' ? 't' : '\n');
    close(fds[0]);
    close(fds[1]);
}

static void a_burst_is_limited_and_its_rest_counted(void **state)
{
    struct log_limit limit = {0};
    unsigned suppressed = 99;
    unsigned n_passed = 0;

    (void)state;
    for (unsigned i = 0; i < 100; i++) {
        n_passed += log_limit_pass(&limit, 1000000 + i, &suppressed);
    }
    assert_in_range(n_passed, 1, 50);
    assert_int_equal(suppressed, 0);
    assert_true(log_limit_pass(&limit, 1000000 + 60000, &suppressed));
    assert_int_equal(suppressed, 100 - n_passed);
    assert_true(log_limit_pass(&limit, 1000000 + 60001, &suppressed));
    assert_int_equal(suppressed, 0);
}

static void a_failed_check_says_where_and_aborts(void **state)
{
    int status;

    (void)state;
    capture();
    const pid_t child = fork();
    if (child == 0) {
        signal(SIGABRT, SIG_DFL); /* not cmocka's handler */
        CHECK(captured == NULL && strlen("\"") > 7);
        _exit(0);
    }
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    const char *text = logged();
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
    assert_non_null(
        strstr(text, "level=error mod=check msg=\"check failed\" expression=\"captured"));
    assert_non_null(strstr(text, "strlen(\\\"\\\\\\\"\\\") > 7\""));
    assert_non_null(strstr(text, " function=a_failed_check_says_where_and_aborts\n"));
    CHECK(captured[0] != '\0'); /* one that holds */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_is_logfmt),
        cmocka_unit_test(a_line_needs_no_fields),
        cmocka_unit_test(json_carries_the_same_fields),
        cmocka_unit_test(levels_are_cumulative),
        cmocka_unit_test(quoting_escapes_cuts_and_keeps_eight_at_once),
        cmocka_unit_test(foreign_bytes_never_break_a_line),
        cmocka_unit_test(long_lines_lose_whole_fields_and_say_so),
        cmocka_unit_test(a_line_that_cannot_be_written_is_dropped_and_counted),
        cmocka_unit_test(nobody_reads_the_pipe),
        cmocka_unit_test(nobody_reads_the_socket),
        cmocka_unit_test(nobody_reads_the_pipe_of_another_user),
        cmocka_unit_test(a_line_behind_one_that_was_cut_off_stands_alone),
        cmocka_unit_test(a_burst_is_limited_and_its_rest_counted),
        cmocka_unit_test(a_failed_check_says_where_and_aborts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
