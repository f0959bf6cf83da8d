#include "config/changes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "config/file.h"

#define READ_AT_ONCE ((size_t)16 * 1024)
/* A file that goes on for ever is no configuration. */
#define FILE_MAX ((size_t)16 * 1024 * 1024)

/* False: errno says why. */
static bool slurp(FILE *file, struct config_changes *changes)
{
    size_t room = 0;

    changes->text = NULL;
    do {
        if (room - changes->text_len < READ_AT_ONCE) {
            char *const more = realloc(changes->text, room + 2 * READ_AT_ONCE);

            CHECK(more != NULL);
            changes->text = more;
            room += 2 * READ_AT_ONCE;
        }
        changes->text_len += fread(changes->text + changes->text_len, 1, READ_AT_ONCE, file);
        if (changes->text_len > FILE_MAX) {
            errno = EFBIG;
            return false;
        }
    } while (feof(file) == 0 && ferror(file) == 0);
    return ferror(file) == 0;
}

struct config_changes *changes_read(const char *file_name, bool is_again,
                                    struct config_draft *draft)
{
    struct config_changes *const changes = mem_alloc(sizeof(*changes));
    struct stat about;
    FILE *file;

    if (file_name == NULL) {
        return changes;
    }
    if (is_again && stat(file_name, &about) == 0 && !S_ISREG(about.st_mode)) {
        draft_error(draft, LAYER_FILE, 0, "is not a file any more");
        return changes;
    }
    file = fopen(file_name, "re");
    if (file == NULL) {
        draft_error(draft, LAYER_FILE, 0, "cannot be opened: %s", strerror(errno));
        return changes;
    }
    if (!slurp(file, changes)) {
        draft_error(draft, LAYER_FILE, 0, "cannot be read: %s", strerror(errno));
    }
    (void)fclose(file);
    return changes;
}

struct config_changes *changes_copy(const struct config_changes *from)
{
    struct config_changes *const changes = mem_alloc(sizeof(*changes));

    if (from->text != NULL) {
        changes->text = malloc(from->text_len + 1);
        CHECK(changes->text != NULL);
        memcpy(changes->text, from->text, from->text_len);
        changes->text_len = from->text_len;
    }
    for (unsigned i = 0; i < from->n_items; i++) {
        changes_set(changes, from->items[i].space, from->items[i].name, from->items[i].value);
    }
    return changes;
}

static void free_item(struct config_change_item *item)
{
    mem_free(item->space);
    mem_free(item->name);
    explicit_bzero(item->value, strlen(item->value));
    mem_free(item->value);
}

void changes_free(struct config_changes **changes)
{
    struct config_changes *const gone = *changes;

    *changes = NULL;
    if (gone == NULL) {
        return;
    }
    for (unsigned i = 0; i < gone->n_items; i++) {
        free_item(&gone->items[i]);
    }
    free(gone->items);
    free(gone->text);
    mem_free(gone);
}

static bool is_same_space(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

void changes_set(struct config_changes *changes, const char *space, const char *name,
                 const char *value)
{
    const struct config_change_item made = {space != NULL ? mem_strdup(space) : NULL,
                                            mem_strdup(name), mem_strdup(value)};

    for (unsigned i = 0; i < changes->n_items; i++) {
        struct config_change_item *const item = &changes->items[i];

        if (strcmp(item->name, name) == 0 && is_same_space(item->space, space)) {
            free_item(item);
            *item = made;
            return;
        }
    }

    struct config_change_item *const items = realloc(changes->items,
                                                     (changes->n_items + 1) * sizeof(*items));

    CHECK(items != NULL);
    changes->items = items;
    changes->items[changes->n_items++] = made;
}

void changes_apply_text(const struct config_changes *changes, struct config_draft *draft)
{
    FILE *file;

    if (changes->text_len == 0) {
        return;
    }
    file = fmemopen(changes->text, changes->text_len, "r");
    CHECK(file != NULL);
    config_file_read(file, draft);
    (void)fclose(file);
}

void changes_apply_items(const struct config_changes *changes, struct config_draft *draft)
{
    for (unsigned i = 0; i < changes->n_items; i++) {
        const struct config_change_item *const item = &changes->items[i];

        draft_override(draft, item->space, item->name, item->value);
    }
}
