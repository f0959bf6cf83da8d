/*
 * fuzz_config.c - any bytes as a configuration file: no crash, an error is reported or a
 * configuration comes out, never both; and every accepted configuration holds what its header
 * promises
 */
#include "fuzz.h"

#include "config/options.h"

#include <stdio.h>

/* What every option prints as is read back as the same value. */
static void check_options(const struct config *config)
{
    unsigned n;
    const struct config_option *const options = config_options(&n);

    for (unsigned i = 0; i < n; i++) {
        const enum config_option_type type = options[i].type;
        char text[OPTION_TEXT_MAX], why[OPTION_TEXT_MAX];
        struct config again = {.n_listeners = 0};

        if (options[i].is_local || type == OPTION_TEXT || type == OPTION_SECRET ||
            type == OPTION_LIST) {
            continue;
        }
        config_option_format(&options[i], config, text);
        CHECK(config_option_set(&options[i], &again, text, why));
        CHECK(config_option_equal(&options[i], &again, config));
    }
}

static void check_namespaces(const struct config *config, struct bytes key)
{
    const struct config_namespace *const space = config_namespace_of(config, key);

    CHECK(config->n_namespaces >= 1 && config->n_namespaces <= CONFIG_NAMESPACES_MAX);
    CHECK(space >= config->namespaces && space < config->namespaces + config->n_namespaces);
    CHECK(config->namespaces[0].id == 0 && config->namespaces[0].match == NULL);
    CHECK(space == config->namespaces || bytes_match_glob(bytes_of_string(space->match), key));
    for (unsigned i = 1; i < config->n_namespaces; i++) {
        const bool is_match = bytes_match_glob(bytes_of_string(config->namespaces[i].match), key);

        CHECK(!is_match || space == &config->namespaces[i] || space < &config->namespaces[i]);
        CHECK(!is_match || space != config->namespaces);
        CHECK(config->namespaces[i].id != 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config *config = NULL;
    char *messages = NULL;
    size_t n;
    FILE *const errors = open_memstream(&messages, &n);

    if (errors == NULL) {
        return 0;
    }

    const int result = config_parse(bytes_make(data, size), "fuzz.conf", &config, errors);

    (void)fclose(errors);
    CHECK((result == 0) == (config != NULL));
    CHECK((result == 0) == (n == 0));
    if (config != NULL) {
        CHECK(config->client_output_soft_limit <= config->client_output_limit);
        CHECK(config->n_listeners >= 1);
        CHECK(config->target.unix_path != NULL || config->target.n_seeds >= 1);
        check_options(config);
        check_namespaces(config, bytes_make(data, size));
        check_namespaces(config, bytes_make(data + size / 2, size - size / 2));
        config_unref(&config);
    }
    free(messages);
    return 0;
}
