#include "coherence/event_patterns.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"

struct entry {
    struct entry *next;
    unsigned db;
    struct captures_pattern *event, *name;
    size_t len;
    unsigned char member[];
};

struct event_patterns {
    struct entry *first;
    unsigned n;
};

static const struct captures nothing = {0};

/* ---- what clients name ---- */

/* Braces that no backslash precedes get one. Returns the length, or 0: longer than size. */
static size_t escape_braces(struct bytes text, unsigned char *out, size_t size)
{
    size_t n = 0;

    for (size_t i = 0; i < text.len; i++) {
        const bool is_escape = text.ptr[i] == '\\' && i + 1 < text.len;
        const bool is_brace = text.ptr[i] == '{';

        if (n + 2 > size) {
            return 0;
        }
        if (is_escape) {
            out[n++] = text.ptr[i++];
        } else if (is_brace) {
            out[n++] = '\\';
        }
        out[n++] = text.ptr[i];
    }
    return n;
}

static struct captures_pattern *plain_pattern(struct bytes name, char why[CAPTURES_WHY_MAX])
{
    unsigned char room[2 * CAPTURES_TEXT_MAX];
    const size_t len = escape_braces(name, room, sizeof(room));

    return captures_pattern_new(bytes_make(room, len), why);
}

bool event_subject_init(struct event_subject *subject, struct bytes text, char why[EVENT_WHY_MAX])
{
    char reason[CAPTURES_WHY_MAX];
    size_t len;

    memset(subject, 0, sizeof(*subject));
    subject->text = text;
    if (text.len == 0 || text.len > EVENT_NAME_MAX || memchr(text.ptr, 0, text.len) != NULL) {
        snprintf(why, EVENT_WHY_MAX, "event: expected 1 to %zu bytes, none of them zero",
                 EVENT_NAME_MAX);
        return false;
    }
    subject->pattern = captures_pattern_new(text, reason);
    if (subject->pattern == NULL) {
        snprintf(why, EVENT_WHY_MAX, "event: %s", reason);
        return false;
    }
    subject->is_pattern = captures_count(subject->pattern) > 0 ||
                          !captures_is_template(subject->pattern);
    if (!subject->is_pattern) {
        len = captures_expand(subject->pattern, &nothing, subject->room);
        subject->name = bytes_make(subject->room, len);
    }
    return true;
}

void event_subject_fini(struct event_subject *subject)
{
    captures_pattern_free(&subject->pattern);
}

bool event_subject_check(const struct event_subject *subject, struct bytes name,
                         char why[EVENT_WHY_MAX])
{
    char reason[CAPTURES_WHY_MAX];
    struct captures_pattern *pattern;
    bool is_good;

    if (name.len == 0 || name.len + subject->text.len + 1 > EVENT_WORDS_MAX) {
        snprintf(why, EVENT_WHY_MAX, "key: expected 1 byte or more, and with the event at most %zu",
                 EVENT_WORDS_MAX - 1);
        return false;
    }
    pattern = captures_count(subject->pattern) == 0 ? plain_pattern(name, reason)
                                                    : captures_pattern_new(name, reason);
    is_good = pattern != NULL && captures_check(subject->pattern, pattern, reason);
    if (!is_good) {
        snprintf(why, EVENT_WHY_MAX, "key: %s", reason);
    }
    captures_pattern_free(&pattern);
    return is_good;
}

size_t event_member_write(struct bytes pattern, struct bytes name,
                          unsigned char out[EVENT_WORDS_MAX])
{
    if (pattern.len + 1 + name.len > EVENT_WORDS_MAX) {
        return 0;
    }
    memcpy(out, pattern.ptr, pattern.len);
    out[pattern.len] = 0;
    if (name.len > 0) {
        memcpy(out + pattern.len + 1, name.ptr, name.len);
    }
    return pattern.len + 1 + name.len;
}

bool event_member_read(struct bytes member, struct bytes *pattern, struct bytes *name)
{
    const unsigned char *const end = member.len > 0 ? memchr(member.ptr, 0, member.len) : NULL;

    if (end == NULL || end == member.ptr) {
        return false;
    }
    *pattern = bytes_make(member.ptr, (size_t)(end - member.ptr));
    *name = bytes_make(end + 1, member.len - pattern->len - 1);
    return name->len > 0;
}

/* ---- what events drop ---- */

/* A glob without wildcards is a name with backslashes. */
static size_t unescape(unsigned char *text, size_t len)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++) {
        i += text[i] == '\\' && i + 1 < len;
        text[n++] = text[i];
    }
    return n;
}

static void hand_out(const struct captures_pattern *name, const struct captures *found, unsigned db,
                     event_drop_fn drop, void *context)
{
    unsigned char room[EVENT_GLOB_MAX];
    const bool is_glob = !captures_is_template(name);
    size_t len = is_glob ? 0 : captures_expand(name, found, room);

    if (len == 0) {
        len = captures_glob(name, found, room, sizeof(room));
        /* Of a long event a name may be made that is longer than templates are. */
        len = is_glob ? len : unescape(room, len);
    }
    if (len > 0) {
        drop(context, is_glob, bytes_make(room, len), db);
    }
}

void event_drop_plain(struct bytes name, unsigned db, event_drop_fn drop, void *context)
{
    char why[CAPTURES_WHY_MAX];
    struct captures_pattern *pattern = plain_pattern(name, why);

    if (pattern != NULL) {
        hand_out(pattern, &nothing, db, drop, context);
    }
    captures_pattern_free(&pattern);
}

void event_drop_by(const struct captures_pattern *pattern, const struct captures_pattern *name,
                   struct bytes event, unsigned db, event_drop_fn drop, void *context)
{
    struct captures found;

    if (captures_match(pattern, event, &found)) {
        hand_out(name, &found, db, drop, context);
    }
}

/* ---- the table ---- */

struct event_patterns *event_patterns_new(void)
{
    return mem_alloc(sizeof(struct event_patterns));
}

static void free_entry(struct entry *entry)
{
    captures_pattern_free(&entry->event);
    captures_pattern_free(&entry->name);
    mem_free(entry);
}

void event_patterns_clear(struct event_patterns *patterns)
{
    while (patterns->first != NULL) {
        struct entry *const entry = patterns->first;

        patterns->first = entry->next;
        free_entry(entry);
    }
    patterns->n = 0;
}

void event_patterns_free(struct event_patterns **patterns)
{
    if (*patterns != NULL) {
        event_patterns_clear(*patterns);
        mem_free(*patterns);
        *patterns = NULL;
    }
}

unsigned event_patterns_count(const struct event_patterns *patterns)
{
    return patterns->n;
}

void event_patterns_add(struct event_patterns *patterns, struct bytes member, unsigned db)
{
    char why[CAPTURES_WHY_MAX];
    struct bytes pattern, name;
    struct entry *entry;

    if (!event_member_read(member, &pattern, &name)) {
        return;
    }
    entry = mem_alloc(sizeof(*entry) + member.len);
    entry->db = db;
    entry->len = member.len;
    memcpy(entry->member, member.ptr, member.len);
    entry->event = captures_pattern_new(pattern, why);
    if (entry->event != NULL) {
        entry->name = captures_count(entry->event) == 0 ? plain_pattern(name, why)
                                                        : captures_pattern_new(name, why);
    }
    if (entry->name == NULL) {
        free_entry(entry);
        return;
    }
    entry->next = patterns->first;
    patterns->first = entry;
    patterns->n++;
}

void event_patterns_match(const struct event_patterns *patterns, struct bytes event,
                          event_drop_fn drop, void *context)
{
    for (const struct entry *at = patterns->first; at != NULL; at = at->next) {
        event_drop_by(at->event, at->name, event, at->db, drop, context);
    }
}
