/*
 * test_event_stream.c - proves of event_stream.h: entries are handed out once, in order, and what
 * was removed before it was read is noticed, with the count of Redis 7 and without
 */
#include "coherence/event_stream.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char heard[200];

static void on_entry(void *context, struct bytes payload)
{
    const size_t len = strlen(heard);

    (void)context;
    snprintf(heard + len, sizeof(heard) - len, "%.*s;", payload.ptr != NULL ? (int)payload.len : 1,
             payload.ptr != NULL ? (const char *)payload.ptr : "-");
}

static void put(char *out, const char *text)
{
    sprintf(out + strlen(out), "$%zu\r\n%s\r\n", strlen(text), text);
}

/* added -1: a server without the count; last NULL: no such key; first NULL: it is empty. */
static const char *info(const char *last, int added, const char *first)
{
    static char text[600];

    text[0] = '\0';
    if (last == NULL) {
        return "-ERR no such key\r\n";
    }
    sprintf(text, "*%d\r\n", added >= 0 ? 6 : 4);
    put(text, "last-generated-id");
    put(text, last);
    if (added >= 0) {
        put(text, "entries-added");
        sprintf(text + strlen(text), ":%d\r\n", added);
    }
    put(text, "first-entry");
    if (first == NULL) {
        strcat(text, "*-1\r\n");
    } else {
        strcat(text, "*2\r\n");
        put(text, first);
        strcat(text, "*2\r\n$1\r\nf\r\n$1\r\nv\r\n");
    }
    return text;
}

/* entries: "1-1=a 1-2=b"; none: nothing was read. */
static const char *exec(const char *entries, const char *summary)
{
    static char text[2000];
    char copy[300], body[900] = "", *rest = copy, *word;
    unsigned n = 0;

    snprintf(copy, sizeof(copy), "%s", entries);
    while ((word = strtok_r(rest, " ", &rest)) != NULL) {
        char *const value = strchr(word, '=');

        *value = '\0';
        strcat(body, "*2\r\n");
        put(body, word);
        strcat(body, "*4\r\n$1\r\nx\r\n$1\r\ny\r\n");
        put(body, value[1] == '!' ? "other" : "event");
        put(body, value + 1);
        n++;
    }
    if (n == 0) {
        snprintf(text, sizeof(text), "*2\r\n*-1\r\n%s", summary);
    } else {
        snprintf(text, sizeof(text), "*2\r\n*1\r\n*2\r\n$1\r\ns\r\n*%u\r\n%s%s", n, body, summary);
    }
    return text;
}

struct step {
    const char *entries, *last;
    int added;
    const char *first;
    unsigned max;
    const char *heard, *at;
    bool has_missed;
};

static void run(const struct step *steps, size_t n, const char *last, int added, const char *first)
{
    struct event_stream stream = {0};

    assert_true(event_stream_place(&stream, bytes_of_string(info(last, added, first))));
    for (size_t i = 0; i < n; i++) {
        const char *const text = exec(steps[i].entries,
                                      info(steps[i].last, steps[i].added, steps[i].first));
        char at[STREAM_ID_MAX];
        bool has_missed;
        unsigned n_read;

        heard[0] = '\0';
        assert_true(event_stream_take(&stream, bytes_of_string(text), BYTES("event"), steps[i].max,
                                      on_entry, NULL, &n_read, &has_missed));
        stream_id_format(stream.at, at);
        if (strcmp(heard, steps[i].heard) != 0 || strcmp(at, steps[i].at) != 0 ||
            has_missed != steps[i].has_missed) {
            fail_msg("step %zu: heard %s at %s, missed %d", i, heard, at, has_missed);
        }
    }
}

#define RUN(steps, last, added, first)                                                             \
    run(steps, sizeof(steps) / sizeof((steps)[0]), last, added, first)

static void entries_are_heard_once(void **state)
{
    static const struct step steps[] = {
        {"", "5-0", 7, "1-0", 100, "", "5-0", false},
        {"6-0=a 6-1=b", "6-1", 9, "1-0", 100, "a;b;", "6-1", false},
        {"", "6-1", 9, "6-1", 100, "", "6-1", false}, /* what was read is trimmed */
        {"7-0=c", "7-0", 10, "7-0", 100, "c;", "7-0", false},
        {"8-0=!", "8-0", 11, "7-0", 100, "-;", "8-0", false},
        {"9-0=d", "9-1", 13, "7-0", 1, "d;", "9-0", false}, /* there is more */
        {"9-1=e", "9-1", 13, "7-0", 1, "e;", "9-1", false},
    };

    (void)state;
    RUN(steps, "5-0", 7, "1-0");
}

static void what_was_removed_unread_is_noticed(void **state)
{
    static const struct step steps[] = {
        {"8-0=a", "8-0", 9, "8-0", 100, "a;", "8-0", true}, /* 7-0 was trimmed */
        {"", "8-0", 9, "8-0", 100, "", "8-0", false},
        {"", "9-0", 10, NULL, 100, "", "9-0", true},            /* added and deleted */
        {"10-0=b", "10-2", 13, "10-0", 1, "b;", "10-0", false}, /* not yet known */
        {"10-2=c", "10-2", 13, "10-2", 1, "c;", "10-2", true},
        {"", NULL, 0, NULL, 100, "", "0-0", true}, /* the stream is gone */
        {"", NULL, 0, NULL, 100, "", "0-0", false},
        {"3-0=d", "3-0", 1, "3-0", 100, "d;", "3-0", false}, /* and made anew */
        {"", "2-0", 1, "2-0", 100, "", "2-0", true},         /* and again, unseen */
    };

    (void)state;
    RUN(steps, "6-0", 7, "6-0");
}

static void without_a_count_the_entry_read_last_has_to_be_there(void **state)
{
    static const struct step steps[] = {
        {"", "5-0", -1, "1-0", 100, "", "5-0", false},
        {"6-0=a", "6-0", -1, "1-0", 100, "a;", "6-0", false},
        {"7-0=b", "7-0", -1, "6-0", 100, "b;", "7-0", false},
        {"9-0=c", "9-0", -1, "9-0", 100, "c;", "9-0", true},
        {"", "10-0", -1, NULL, 100, "", "10-0", true},
        {"", "10-0", -1, NULL, 100, "", "10-0", false},
    };

    (void)state;
    RUN(steps, "5-0", -1, "1-0");
}

static void a_stream_that_comes_into_being_is_read_from_its_beginning(void **state)
{
    static const struct step steps[] = {
        {"", NULL, 0, NULL, 100, "", "0-0", false},
        {"1-0=a", "1-0", 1, "1-0", 100, "a;", "1-0", false},
    };
    static const struct step old[] = {
        {"1-0=a", "1-0", -1, "1-0", 100, "a;", "1-0", false},
        {"2-0=b", "2-0", -1, "2-0", 100, "b;", "2-0", true},
    };

    (void)state;
    RUN(steps, NULL, 0, NULL);
    RUN(old, NULL, 0, NULL);
}

static void other_replies_change_nothing(void **state)
{
    static const char *const bad[] = {
        "",
        "+OK\r\n",
        "*-1\r\n",
        "*1\r\n*-1\r\n",
        "*2\r\n*-1\r\n+x\r\n",
        "*2\r\n-WRONGTYPE x\r\n-ERR no such key\r\n",
        "*2\r\n*-1\r\n-NOPERM x\r\n",
        "*2\r\n*-1\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n",
        "*2\r\n*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$1\r\nx\r\n*0\r\n-ERR no such key\r\n",
    };
    struct event_stream stream = {0};

    (void)state;
    assert_true(event_stream_place(&stream, bytes_of_string(info("5-0", 7, "1-0"))));
    assert_false(event_stream_place(&stream, BYTES("-NOPERM x\r\n")));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        bool has_missed;
        unsigned n;

        heard[0] = '\0';
        assert_false(event_stream_take(&stream, bytes_of_string(bad[i]), BYTES("event"), 100,
                                       on_entry, NULL, &n, &has_missed));
        assert_string_equal(heard, "");
        assert_int_equal(stream.at.ms, 5);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_are_heard_once),
        cmocka_unit_test(what_was_removed_unread_is_noticed),
        cmocka_unit_test(without_a_count_the_entry_read_last_has_to_be_there),
        cmocka_unit_test(a_stream_that_comes_into_being_is_read_from_its_beginning),
        cmocka_unit_test(other_replies_change_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
