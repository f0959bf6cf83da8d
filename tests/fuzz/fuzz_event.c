/*
 * Events: messages of channels and replies of streams are taken apart within their bytes; entries
 * are handed out once and in order, none of a reply that is not understood; what is subscribed to
 * patterns of events is read as it was written.
 *
 * The first byte chooses the source and the reader's position.
 */
#include "fuzz.h"

#include "coherence/event_patterns.h"
#include "coherence/event_push.h"
#include "coherence/event_stream.h"
#include "resp/resp.h"

struct heard {
    struct bytes reply;
    unsigned n;
};

static void on_entry(void *context, struct bytes payload)
{
    struct heard *const heard = context;

    MUST(payload.ptr == NULL || fuzz_is_within(payload, heard->reply));
    heard->n++;
}

static bool is_before(struct stream_id a, struct stream_id b)
{
    return a.ms != b.ms ? a.ms < b.ms : a.seq < b.seq;
}

static void check_stream(struct bytes reply, unsigned choice)
{
    struct event_stream stream = {.is_placed = true, .has_count = (choice & 1) != 0};
    const struct event_stream before = stream;
    struct event_stream placed = {0};
    struct heard heard = {.reply = reply};
    bool has_missed = false;
    unsigned n = 0;

    if (event_stream_place(&placed, reply)) {
        MUST(placed.is_placed && placed.n_read == 0);
    } else {
        MUST(!placed.is_placed);
    }
    if (event_stream_take(&stream, reply, BYTES("event"), EVENT_STREAM_BATCH, on_entry, &heard, &n,
                          &has_missed)) {
        char text[STREAM_ID_MAX];

        MUST(heard.n == n && stream.is_placed);
        stream_id_format(stream.at, text);
        MUST(strlen(text) >= 3);
        MUST(has_missed || !is_before(stream.at, before.at));
    } else {
        MUST(heard.n == 0 && memcmp(&before.at, &stream.at, sizeof(before.at)) == 0 &&
             stream.n_read == before.n_read);
    }
}

static void check_push(struct bytes frame)
{
    static struct captures_pattern *channel, *event;
    unsigned char name[EVENT_NAME_MAX];
    char why[CAPTURES_WHY_MAX];
    struct event_push push;

    if (channel == NULL) {
        channel = captures_pattern_new(BYTES("app:{what}"), why);
        event = captures_pattern_new(BYTES("{what}.{payload}"), why);
    }
    if (!event_push_read(frame, &push)) {
        return;
    }
    MUST(fuzz_is_within(push.channel, frame));
    if (push.kind == EVENT_PUSH_MESSAGE) {
        const struct event_source_rule plain = {.kind = EVENT_CHANNEL};
        const struct event_source_rule made = {
            .kind = EVENT_PATTERN, .channel = channel, .event = event};

        MUST(push.payload.ptr != NULL && fuzz_is_within(push.payload, frame));
        MUST(event_source_name(&plain, push.channel, push.payload, name) <= EVENT_NAME_MAX);
        MUST(event_source_name(&made, push.channel, push.payload, name) <= EVENT_NAME_MAX);
    }
}

static void on_drop(void *context, bool is_glob, struct bytes name, unsigned db)
{
    (void)context;
    MUST(name.len > 0 && name.len <= EVENT_GLOB_MAX && db == 7);
    (void)is_glob;
}

/* Event, name, what happens: zero bytes between them. */
static void check_subscription(struct bytes rest)
{
    const struct bytes event = fuzz_part(&rest), name = fuzz_part(&rest);
    unsigned char member[EVENT_WORDS_MAX];
    struct bytes event_again, name_again;
    char why[EVENT_WHY_MAX] = "";
    struct event_subject subject;

    if (!event_subject_init(&subject, event, why)) {
        MUST(why[0] != '\0');
        return;
    }
    if (event_subject_check(&subject, name, why) && subject.is_pattern) {
        const size_t len = event_member_write(event, name, member);
        struct event_patterns *patterns = event_patterns_new();

        MUST(len <= EVENT_WORDS_MAX);
        MUST(event_member_read(bytes_make(member, len), &event_again, &name_again));
        MUST(bytes_equal(event, event_again) && bytes_equal(name, name_again));
        event_patterns_add(patterns, bytes_make(member, len), 7);
        MUST(event_patterns_count(patterns) == 1);
        if (rest.len <= EVENT_NAME_MAX) {
            event_patterns_match(patterns, rest, on_drop, NULL);
        }
        event_patterns_free(&patterns);
    }
    event_subject_fini(&subject);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned char *copy;
    struct bytes text, end;

    if (size == 0) {
        return 0;
    }
    copy = fuzz_copy(bytes_make(data + 1, size - 1));
    text = bytes_make(copy, size - 1);
    check_subscription(text);
    end = text;
    if (resp_skip(&end) && end.len == 0) { /* a whole reply, as links hand it on */
        check_push(text);
        check_stream(text, data[0]);
    }
    free(copy);
    return 0;
}
