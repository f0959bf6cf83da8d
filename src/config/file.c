/*
 * inih asks our reader for each line, so the reader stands before it as a guard: it knows the line
 * number, follows the sections, and hands on only lines that inih reads as we do. What it objects
 * to is reported and replaced by an empty line.
 */
#include "config/file.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "config/event_rules.h"
#include "config/nearest.h"

/* Longest line where the library can be told; a build of inih with fixed limits has 200. */
#define LINE_MAX_BYTES 4096
/* inih wants room for "\r\n" and the terminator. */
#define LINE_OVERHEAD 3

/*
 * Debian's inih exports its limits as variables, other builds fix them: weak, so that both link. A
 * line above the limit is an error in either.
 */
extern int ini_max_line __attribute__((weak));
extern int ini_initial_alloc __attribute__((weak));
extern bool ini_use_stack __attribute__((weak));

struct file_reader {
    FILE *file;
    struct config_draft *draft;
    unsigned line;
    char *text; /* the line, getline()'s */
    size_t text_size;
    enum { AT_START, IN_SECTION, IN_NAMESPACE, IN_DEPENDENCY, IN_EVENTS, IN_UNKNOWN } state;
    char section[NEAREST_WORD_MAX];
    struct draft_namespace *space; /* IN_NAMESPACE */
    struct draft_dependency *rule; /* IN_DEPENDENCY */
};

static void raise_line_limit(void)
{
    if (&ini_max_line != NULL && &ini_initial_alloc != NULL && &ini_use_stack != NULL) {
        ini_use_stack = false;
        ini_initial_alloc = LINE_MAX_BYTES;
        ini_max_line = LINE_MAX_BYTES;
    }
}

/* -- Sections --------------------------------------------------------------------------------- */

static bool is_section(const char *name)
{
    unsigned n;
    const struct config_option *const options = config_options(&n);

    for (unsigned i = 0; i < n; i++) {
        if (strcmp(options[i].section, name) == 0) {
            return !options[i].is_local;
        }
    }
    return false;
}

static const char *nearest_section(const char *name)
{
    struct nearest nearest = {.word = name};
    unsigned n;
    const struct config_option *const options = config_options(&n);

    for (unsigned i = 0; i < n; i++) {
        nearest_offer(&nearest, options[i].section);
    }
    return nearest.found;
}

/* `word "name"`, without quotes too: the name, perhaps empty. NULL: it is another section. */
static const char *name_in_title(const char *word, char *title)
{
    const size_t len = strlen(word);

    if (strncmp(title, word, len) != 0 ||
        (title[len] != '\0' && strchr(" \t\"'", title[len]) == NULL)) {
        return NULL;
    }

    char *name = title + len + strspn(title + len, " \t");
    const size_t name_len = strlen(name);

    if (name_len >= 2 && (name[0] == '"' || name[0] == '\'') && name[name_len - 1] == name[0]) {
        name[name_len - 1] = '\0';
        name++;
    }
    return name;
}

/* False: it is another section. */
static bool enter_namespace(struct file_reader *reader, char *title)
{
    const char *const name = name_in_title("namespace", title);

    if (name == NULL) {
        return false;
    }
    if (*name == '\0') {
        draft_error(reader->draft, LAYER_FILE, reader->line,
                    "a namespace has a name, as in [namespace \"session\"]");
    } else {
        reader->space = draft_add_namespace(reader->draft, name, reader->line);
    }
    reader->state = reader->space != NULL ? IN_NAMESPACE : IN_UNKNOWN;
    return true;
}

static bool enter_dependency(struct file_reader *reader, char *title)
{
    const char *const name = name_in_title("dependency", title);

    if (name == NULL) {
        return false;
    }
    if (*name == '\0') {
        draft_error(reader->draft, LAYER_FILE, reader->line,
                    "a dependency has a name, as in [dependency \"profile\"]");
    } else {
        reader->rule = draft_add_dependency(reader->draft, name, reader->line);
    }
    reader->state = reader->rule != NULL ? IN_DEPENDENCY : IN_UNKNOWN;
    return true;
}

/*
 * line begins with a bracket. What follows an unknown section is passed over. False: reported, and
 * not for inih to see.
 */
static bool enter_section(struct file_reader *reader, const char *line)
{
    const char *const end = strchr(line, ']');
    const char *const rest = end == NULL ? "" : end + 1 + strspn(end + 1, " \t");
    char *const title = strndup(line + 1, end == NULL ? 0 : (size_t)(end - line - 1));

    bool is_good = true;

    CHECK(title != NULL);
    reader->state = IN_UNKNOWN;
    reader->space = NULL;
    reader->rule = NULL;
    if (end == NULL || strpbrk(title, ";") != NULL ||
        (*rest != '\0' && *rest != ';' && *rest != '#')) {
        draft_error(
            reader->draft, LAYER_FILE, reader->line,
            "expected a section as in [cache] or [namespace \"session\"], alone on its line");
        is_good = false;
    } else if (is_section(title)) {
        reader->state = IN_SECTION;
        (void)snprintf(reader->section, sizeof(reader->section), "%s", title);
    } else if (event_rules_enter(draft_events(reader->draft), reader->draft, reader->line, title)) {
        reader->state = IN_EVENTS;
    } else if (!enter_namespace(reader, title) && !enter_dependency(reader, title)) {
        const char *const nearest = nearest_section(title);

        draft_error(reader->draft, LAYER_FILE, reader->line, "unknown section [%s]%s%s%s",
                    log_quote(bytes_of_string(title)), nearest != NULL ? ", did you mean [" : "",
                    nearest != NULL ? nearest : "", nearest != NULL ? "]?" : "");
    }
    free(title);
    return is_good;
}

/* -- Options ---------------------------------------------------------------------------------- */

static void unknown_option(struct file_reader *reader, const char *name)
{
    const bool in_namespace = reader->state == IN_NAMESPACE;
    const struct config_option *const elsewhere = config_option_find(!in_namespace, name);
    const struct config_option *const nearest = config_option_nearest(in_namespace, name);
    const char *const shown = log_quote(bytes_of_string(name));

    if (elsewhere != NULL) {
        draft_error(reader->draft, LAYER_FILE, reader->line, "%s belongs into [%s%s]", shown,
                    elsewhere->section, in_namespace ? "" : " \"name\"");
    } else if (nearest != NULL) {
        draft_error(reader->draft, LAYER_FILE, reader->line, "unknown option %s, did you mean %s?",
                    shown, nearest->spelling);
    } else {
        draft_error(reader->draft, LAYER_FILE, reader->line, "unknown option %s", shown);
    }
}

/* Takes the quotes off; false when only one is there. */
static bool unquote(const char *value, char **out)
{
    const size_t len = strlen(value);
    const bool is_quoted = len > 0 && (value[0] == '"' || value[0] == '\'');

    if (is_quoted && (len < 2 || value[len - 1] != value[0])) {
        return false;
    }
    *out = mem_strdup(is_quoted ? value + 1 : value);
    if (is_quoted) {
        (*out)[len - 2] = '\0';
    }
    return true;
}

/* NULL: reported. */
static char *unquoted_value(struct file_reader *reader, const char *name, const char *value)
{
    char *unquoted = NULL;

    if (!unquote(value, &unquoted)) {
        draft_error(
            reader->draft, LAYER_FILE, reader->line,
            "%s: the closing quote is missing (a semicolon behind a space begins a comment)", name);
    }
    return unquoted;
}

static void take_event_value(struct file_reader *reader, const char *name, const char *value)
{
    char *const unquoted = unquoted_value(reader, name, value);

    if (unquoted != NULL) {
        event_rules_set(draft_events(reader->draft), reader->draft, reader->line, name, unquoted);
    }
    mem_free(unquoted);
}

static void take_value(struct file_reader *reader, const struct config_option *option,
                       const char *value)
{
    char *const unquoted = unquoted_value(reader, option->spelling, value);

    if (unquoted == NULL) {
        return;
    }
    if (reader->state == IN_NAMESPACE) {
        draft_set_in_namespace(reader->draft, reader->space, option, reader->line, unquoted);
    } else if (reader->state == IN_DEPENDENCY) {
        draft_set_in_dependency(reader->draft, reader->rule, option, reader->line, unquoted);
    } else if (reader->state == IN_SECTION && strcmp(option->section, reader->section) == 0) {
        draft_set(reader->draft, option, LAYER_FILE, reader->line, unquoted);
    } else {
        draft_error(reader->draft, LAYER_FILE, reader->line, "%s belongs into [%s]",
                    option->spelling, option->section);
    }
    mem_free(unquoted);
}

/* inih's view of the section is not needed: the reader follows sections itself. */
static int on_value(void *user, const char *section, const char *name, const char *value)
{
    struct file_reader *const reader = user;

    (void)section;
    if (reader->state == IN_UNKNOWN) {
        return 1;
    }
    if (reader->state == IN_EVENTS) {
        take_event_value(reader, name, value);
        return 1;
    }

    const struct config_option *const option =
        reader->state == IN_DEPENDENCY ? config_option_of_dependency(name)
                                       : config_option_find(reader->state == IN_NAMESPACE, name);

    if (option == NULL && reader->state == IN_DEPENDENCY) {
        draft_error(reader->draft, LAYER_FILE, reader->line,
                    "unknown option %s, a dependency has source, derived, scope and debounce",
                    log_quote(bytes_of_string(name)));
    } else if (option == NULL) {
        unknown_option(reader, name);
    } else {
        take_value(reader, option, value);
    }
    return 1;
}

/* -- Lines ------------------------------------------------------------------------------------ */

/* The line without its end and indentation; NULL at the end of the file. */
static char *next_line(struct file_reader *reader, size_t *len)
{
    const ssize_t n = getline(&reader->text, &reader->text_size, reader->file);
    char *line = reader->text;

    if (n < 0) {
        return NULL;
    }
    *len = (size_t)n;
    reader->line++;
    if (reader->line == 1 && *len >= 3 && memcmp(line, "\xef\xbb\xbf", 3) == 0) {
        line += 3;
        *len -= 3;
    }
    while (*len > 0 && isspace((unsigned char)line[*len - 1])) {
        line[--*len] = '\0';
    }
    while (*len > 0 && isspace((unsigned char)*line)) {
        line++;
        --*len;
    }
    return line;
}

/* True when inih may see the line. */
static bool admit_line(struct file_reader *reader, const char *line, size_t len, size_t limit)
{
    if (memchr(line, '\0', len) != NULL) {
        draft_error(reader->draft, LAYER_FILE, reader->line, "the line holds a zero byte");
        return false;
    }
    if (len > limit) {
        draft_error(reader->draft, LAYER_FILE, reader->line,
                    "the line has %zu characters, at most %zu can be read", len, limit);
        return false;
    }
    return *line != '[' || enter_section(reader, line);
}

/* A name and its separator come before any comment. */
static bool is_assignment(const char *line)
{
    for (size_t i = 0; line[i] != '\0'; i++) {
        if (line[i] == ';' && i > 0 && isspace((unsigned char)line[i - 1])) {
            return false;
        }
        if (line[i] == '=' || line[i] == ':') {
            return i > 0;
        }
    }
    return false;
}

/*
 * inih's ini_reader: like fgets(). inih tells only the first line that is neither section nor
 * assignment, so each such line is reported here and not handed on.
 */
static char *read_line(char *into, int size, void *stream)
{
    struct file_reader *const reader = stream;
    size_t len = 0;
    const char *line = next_line(reader, &len);

    if (line == NULL) {
        return NULL;
    }
    if (!admit_line(reader, line, len, (size_t)size - LINE_OVERHEAD)) {
        line = "";
    } else if (strchr(";#[", *line) == NULL && !is_assignment(line)) {
        draft_error(reader->draft, LAYER_FILE, reader->line, "expected name = value");
        line = "";
    }
    len = strlen(line);
    memcpy(into, line, len);
    memcpy(into + len, "\n", 2);
    return into;
}

void config_file_read(FILE *file, struct config_draft *draft)
{
    struct file_reader reader = {.file = file, .draft = draft};

    raise_line_limit();

    const int result = ini_parse_stream(read_line, &reader, on_value, &reader);

    if (ferror(file)) {
        draft_error(draft, LAYER_FILE, 0, "cannot be read: %s", strerror(errno));
    } else if (result != 0 && draft_n_errors(draft) == 0) {
        draft_error(draft, LAYER_FILE, result > 0 ? (unsigned)result : 0, "expected name = value");
    }
    free(reader.text);
}
