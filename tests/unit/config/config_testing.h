/* Loads a configuration from text and keeps what was said about it. */
#ifndef NC_TESTS_CONFIG_TESTING_H
#define NC_TESTS_CONFIG_TESTING_H

#include "config/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct loaded {
    int error;
    struct config *config; /* NULL after an error */
    char *messages;
};

static inline struct loaded load_text_bytes(struct bytes text)
{
    struct loaded loaded = {.config = NULL};
    size_t size;
    FILE *const errors = open_memstream(&loaded.messages, &size);

    loaded.error = config_parse(text, "x.conf", &loaded.config, errors);
    (void)fclose(errors);
    return loaded;
}

static inline struct loaded load_text(const char *text)
{
    return load_text_bytes(bytes_of_string(text));
}

static inline void unload(struct loaded *loaded)
{
    config_unref(&loaded->config);
    free(loaded->messages);
    loaded->messages = NULL;
}

/* text is refused, and all that is said about it are these lines. */
static inline void assert_refused(const char *text, const char *messages)
{
    struct loaded loaded = load_text(text);

    assert_string_equal(loaded.messages, messages);
    assert_true(loaded.error < 0);
    assert_null(loaded.config);
    unload(&loaded);
}

static inline struct config *assert_accepted(const char *text)
{
    struct loaded loaded = load_text(text);
    struct config *config;

    assert_string_equal(loaded.messages, "");
    assert_int_equal(loaded.error, 0);
    config = config_ref(loaded.config);
    unload(&loaded);
    return config;
}

#endif
